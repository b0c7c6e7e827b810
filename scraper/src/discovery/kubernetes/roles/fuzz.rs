//! Objects of any shape, as a list and as events of a watch bring them, down to the groups of all roles.

use std::sync::{Arc, OnceLock};

use kube::api::WatchEvent;
use kube::core::ObjectList;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::super::object::{Object, key};
use super::*;
use crate::discovery::metrics::Metrics;

/// One object of every kind, which belong together.
pub(in crate::discovery) const SEED: &str = r#"{"pods":[{"metadata":{"name":"w-1","namespace":"s","uid":"u","labels":{"l.io/a":"b"},
"annotations":{"a-b":"c"},"ownerReferences":[{"kind":"ReplicaSet","name":"r","controller":true}]},"spec":{"nodeName":"n",
"containers":[{"name":"c","image":"i","ports":[{"name":"http","containerPort":80,"protocol":"TCP"}]}],"initContainers":[{"name":"d"}]},
"status":{"podIP":"10.0.0.7","hostIP":"10.0.0.1","phase":"Running","conditions":[{"type":"Ready","status":"True"}],
"containerStatuses":[{"name":"c","containerID":"x"}]}}],"nodes":[{"metadata":{"name":"n"},"spec":{"providerID":"p"},"status":
{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}}}}],
"services":[{"metadata":{"name":"w","namespace":"s"},"spec":{"type":"LoadBalancer","clusterIP":"10.0.0.9","ports":[{"name":"p","port":80}]},
"status":{"loadBalancer":{"ingress":[{"ip":"1.1.1.1"}]}}}],"slices":[{"metadata":{"name":"w-a","namespace":"s","labels":
{"kubernetes.io/service-name":"w"}},"addressType":"IPv4","ports":[{"name":"http","port":80}],"endpoints":[{"addresses":["10.0.0.7"],
"conditions":{"ready":true},"nodeName":"n","targetRef":{"kind":"Pod","namespace":"s","name":"w-1"}}]}],"endpoints":[{"metadata":
{"name":"w","namespace":"s"},"subsets":[{"addresses":[{"ip":"10.0.0.7","targetRef":{"kind":"Pod","namespace":"s","name":"w-1"}}],
"notReadyAddresses":[{"ip":"::1"}],"ports":[{"port":80}]}]}],"ingresses":[{"metadata":{"name":"i","namespace":"s"},"spec":
{"ingressClassName":"c","rules":[{"host":"h","http":{"paths":[{"path":"/"}]}},{}],"tls":[{"hosts":["h"]}]}}],"namespaces":
[{"metadata":{"name":"s"}}],"replica_sets":[{"metadata":{"name":"r","namespace":"s","ownerReferences":[{"kind":"Deployment","name":"d",
"controller":true}]}}],"jobs":[],"event":{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}},
"list":{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"x"},"items":[]}}"#;

/// A cluster in one document.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Document {
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    endpoints: Vec<Endpoints>,
    ingresses: Vec<Ingress>,
    namespaces: Vec<Namespace>,
    replica_sets: Vec<ReplicaSet>,
    jobs: Vec<Job>,
    event: serde_json::Value,
    list: serde_json::Value,
}

/// Tasks of watches that there are not, and what is counted of them.
fn surroundings() -> &'static (Runtime, Arc<Metrics>) {
    static ONCE: OnceLock<(Runtime, Arc<Metrics>)> = OnceLock::new();
    ONCE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let clock: Arc<dyn model::Clock> = Arc::new(model::clock::ManualClock::new(0));
        let metrics = Metrics::new(&prometheus::Registry::new(), "scrape", clock).expect("a new registry");
        (runtime, Arc::new(metrics))
    })
}

fn watched<K: Object>(objects: Vec<K>, keys: &mut Vec<Arc<str>>) -> Watched<K> {
    let (runtime, metrics) = surroundings();
    keys.extend(objects.iter().map(|o| Arc::from(key(o.meta()))));
    let task = runtime.spawn(std::future::ready(()));
    Watched(Some(Arc::new(Watching::of_objects(objects, Arc::clone(metrics), task))))
}

/// Whether a kind is read from a list and an event, and what is kept of it is what was read.
fn read<K: Object + DeserializeOwned>(document: &Document) {
    let _ = serde_json::from_value::<WatchEvent<K>>(document.event.clone());
    let _ = serde_json::from_value::<ObjectList<K>>(document.list.clone());
}

/// The groups of all roles.
pub(in crate::discovery) fn groups(data: &[u8]) -> Vec<TargetGroup> {
    let Ok(document) = serde_json::from_slice::<Document>(data) else { return Vec::new() };
    read::<Pod>(&document);
    read::<Ingress>(&document);
    let mut keys = Vec::new();
    let stores = Stores {
        pods: watched(document.pods, &mut keys),
        nodes: watched(document.nodes, &mut keys),
        services: watched(document.services, &mut keys),
        endpoint_slices: watched(document.slices, &mut keys),
        endpoints: watched(document.endpoints, &mut keys),
        ingresses: watched(document.ingresses, &mut keys),
        namespaces: watched(document.namespaces, &mut keys),
        replica_sets: watched(document.replica_sets, &mut keys),
        jobs: watched(document.jobs, &mut keys),
    };
    let attach = AttachMetadata { node: true, namespace: true, deployment: true, job: true, cronjob: true };
    let mut runner = RoleRunner {
        role: Role::Pod,
        attach,
        stores,
        inbox: Arc::new(Inbox::new(&surroundings().1, Role::Pod.as_str())),
        dependencies: Dependencies::default(),
    };
    let mut groups = Vec::new();
    for role in [Role::Pod, Role::Node, Role::Service, Role::EndpointSlice, Role::Endpoints, Role::Ingress] {
        runner.role = role;
        for key in &keys {
            groups.extend(runner.build(Arc::clone(key)).1);
        }
    }
    groups
}
