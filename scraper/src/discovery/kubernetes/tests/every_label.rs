//! Every meta label of every role, by name, on one cluster whose objects have all fields.
//!
//! The tables are those of
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config>, with `attach_metadata`
//! switched on throughout, and the two labels that are not documented there: `ingress_host` and
//! `endpointslice_port_app_protocol`. A label that is missing, has another value, or is not in the table fails.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fake_api::FakeApi;
use crate::discovery::config::{AttachMetadata, DiscoveryConfig, KubernetesConfig, Role};
use crate::discovery::testing::{manager, wait};

/// Labels and annotations, told apart by `tag`.
fn meta(name: &str, tag: &str) -> Value {
    json!({"name": name, "namespace": "shop", "uid": format!("uid-{tag}"),
        "labels": {format!("l.io/{tag}"): format!("lv-{tag}")},
        "annotations": {format!("a.io/{tag}"): format!("av-{tag}")}})
}

fn cluster_meta(name: &str, tag: &str) -> Value {
    let mut meta = meta(name, tag);
    meta.as_object_mut().unwrap().remove("namespace");
    meta
}

fn objects() -> Vec<(&'static str, Value)> {
    let owner = |kind: &str, name: &str| json!([{"kind": kind, "name": name, "controller": true}]);
    let mut pod = json!({
        "metadata": meta("web-1", "pod"),
        "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": "web:1",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"podIP": "10.0.0.7", "hostIP": "192.168.0.1", "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "containerID": "containerd://w"}]},
    });
    pod["metadata"]["ownerReferences"] = owner("ReplicaSet", "web-rs");
    let mut batch = pod.clone();
    batch["metadata"] = meta("batch-1", "pod");
    batch["metadata"]["ownerReferences"] = owner("Job", "batch-j");
    let mut replica_set = json!({"metadata": meta("web-rs", "rs")});
    replica_set["metadata"]["ownerReferences"] = owner("Deployment", "web");
    let mut job = json!({"metadata": meta("batch-j", "job")});
    job["metadata"]["ownerReferences"] = owner("CronJob", "nightly");
    let mut slice = json!({
        "metadata": meta("web-abc", "slice"), "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "h2c"}],
        "endpoints": [{"addresses": ["10.0.0.7"], "hostname": "web-1.web", "nodeName": "n1", "zone": "z1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "deprecatedTopology": {"topology.io/rack": "r1"},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"}}],
    });
    slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!("web");
    let address = json!({"ip": "10.0.0.7", "hostname": "web-1.web", "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"}});
    let addresses: Vec<Value> = ["ExternalDNS", "ExternalIP", "Hostname", "InternalDNS", "InternalIP"]
        .map(|kind| json!({"type": kind, "address": format!("addr-{kind}")}))
        .into();
    vec![
        ("pods", pod),
        ("pods", batch),
        ("replicasets", replica_set),
        ("jobs", job),
        ("namespaces", json!({"metadata": cluster_meta("shop", "ns")})),
        (
            "nodes",
            json!({"metadata": cluster_meta("n1", "node"), "spec": {"providerID": "aws:///i-1"},
            "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}),
        ),
        (
            "services",
            json!({"metadata": meta("web", "svc"),
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}, {"ip": "2.2.2.2"}]}}}),
        ),
        (
            "services",
            json!({"metadata": meta("out", "svc"),
            "spec": {"type": "ExternalName", "externalName": "out.example.com",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}),
        ),
        (
            "endpoints",
            json!({"metadata": meta("web", "ep"), "subsets": [{"addresses": [address],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}]}),
        ),
        ("endpointslices", slice),
        (
            "ingresses",
            json!({"metadata": meta("front", "ing"), "spec": {"ingressClassName": "nginx",
            "tls": [{"hosts": ["*.example.com"]}],
            "rules": [{"host": "a.example.com", "http": {"paths": [{"path": "/x"}]}}]}}),
        ),
    ]
}

/// The four label families of an object.
fn families(role: &str, tag: &str) -> Vec<(String, String)> {
    vec![
        (format!("{role}_label_l_io_{tag}"), format!("lv-{tag}")),
        (format!("{role}_labelpresent_l_io_{tag}"), "true".into()),
        (format!("{role}_annotation_a_io_{tag}"), format!("av-{tag}")),
        (format!("{role}_annotationpresent_a_io_{tag}"), "true".into()),
    ]
}

/// A table: names without their prefix, and values.
struct Table(BTreeMap<String, String>);

impl Table {
    fn of(pairs: &[(&str, &str)]) -> Self {
        let full = |(name, value): &(&str, &str)| match name.strip_prefix('=') {
            Some(name) => (name.to_owned(), (*value).to_owned()),
            None => (format!("__meta_kubernetes_{name}"), (*value).to_owned()),
        };
        Self(pairs.iter().map(full).collect())
    }

    fn family(mut self, role: &str, tag: &str) -> Self {
        let full = families(role, tag).into_iter().map(|(n, v)| (format!("__meta_kubernetes_{n}"), v));
        self.0.extend(full);
        self
    }

    fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

fn pod_table() -> Table {
    Table::of(&[
        ("pod_name", "web-1"),
        ("pod_ip", "10.0.0.7"),
        ("pod_container_name", "web"),
        ("pod_container_image", "web:1"),
        ("pod_container_init", "false"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
        ("pod_container_port_protocol", "TCP"),
        ("pod_ready", "true"),
        ("pod_phase", "Running"),
        ("pod_node_name", "n1"),
        ("pod_host_ip", "192.168.0.1"),
        ("pod_uid", "uid-pod"),
        ("pod_controller_kind", "ReplicaSet"),
        ("pod_controller_name", "web-rs"),
        ("pod_deployment_name", "web"),
    ])
    .family("pod", "pod")
}

fn shop() -> Table {
    Table::of(&[("namespace", "shop")]).family("namespace", "ns")
}

fn attached_node() -> Table {
    Table::of(&[("node_name", "n1")]).family("node", "node")
}

fn service_family() -> Table {
    Table::of(&[("service_name", "web")]).family("service", "svc")
}

/// Discovers with everything attached and compares the target at `address` with the table, group labels included.
async fn check(role: Role, source: &str, table: Table) {
    let api = FakeApi::start().await;
    for (plural, object) in objects() {
        api.put(plural, object);
    }
    let attach = AttachMetadata { node: true, namespace: true, deployment: true, job: true, cronjob: true };
    let config = KubernetesConfig {
        api_server: Some(api.url()),
        attach_metadata: attach,
        ..KubernetesConfig::in_cluster(role)
    };
    let (manager, _registry) = manager();
    let jobs = vec![("job".to_owned(), vec![DiscoveryConfig::Kubernetes(config)])];
    let mut receiver = manager.apply(jobs).remove(0).1;
    let groups = wait(&mut receiver, |groups| groups.iter().any(|group| &*group.source == source)).await;
    let group = groups.iter().find(|group| &*group.source == source).unwrap();
    let mut found: BTreeMap<String, String> =
        group.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    found.extend(group.targets[0].iter().map(|(n, v)| (n.to_owned(), v.to_owned())));
    for (name, value) in &table.0 {
        assert_eq!(found.get(name), Some(value), "{role}: {name}");
    }
    let surplus: Vec<_> = found.keys().filter(|name| !table.0.contains_key(*name)).collect();
    assert!(surplus.is_empty(), "{role}: {surplus:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let table = Table::of(&[
        ("=__address__", "addr-InternalIP:10250"),
        ("=instance", "n1"),
        ("node_name", "n1"),
        ("node_provider_id", "aws:///i-1"),
        ("node_condition_ready", "true"),
        ("node_address_ExternalDNS", "addr-ExternalDNS"),
        ("node_address_ExternalIP", "addr-ExternalIP"),
        ("node_address_Hostname", "addr-Hostname"),
        ("node_address_InternalDNS", "addr-InternalDNS"),
        ("node_address_InternalIP", "addr-InternalIP"),
    ]);
    check(Role::Node, "node/n1", table.family("node", "node")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service() {
    let balanced = Table::of(&[
        ("=__address__", "web.shop.svc:80"),
        ("service_cluster_ip", "10.96.0.1"),
        ("service_loadbalancer_ip", "1.1.1.1,2.2.2.2"),
        ("service_port_name", "http"),
        ("service_port_number", "80"),
        ("service_port_protocol", "TCP"),
        ("service_type", "LoadBalancer"),
    ]);
    check(Role::Service, "svc/shop/web", balanced.and(service_family()).and(shop())).await;
    let external = Table::of(&[
        ("=__address__", "out.shop.svc:443"),
        ("service_name", "out"),
        ("service_external_name", "out.example.com"),
        ("service_port_name", "https"),
        ("service_port_number", "443"),
        ("service_port_protocol", "TCP"),
        ("service_type", "ExternalName"),
    ]);
    check(Role::Service, "svc/shop/out", external.family("service", "svc").and(shop())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pod() {
    let own = Table::of(&[("=__address__", "10.0.0.7:8080"), ("pod_container_id", "containerd://w")]);
    check(Role::Pod, "pod/shop/web-1", own.and(pod_table()).and(shop()).and(attached_node())).await;
    let mut batch = Table::of(&[("=__address__", "10.0.0.7:8080"), ("pod_container_id", "containerd://w")])
        .and(pod_table())
        .and(shop())
        .and(attached_node());
    batch.0.remove("__meta_kubernetes_pod_deployment_name");
    let batch = batch.and(Table::of(&[
        ("pod_name", "batch-1"),
        ("pod_controller_kind", "Job"),
        ("pod_controller_name", "batch-j"),
        ("pod_job_name", "batch-j"),
        ("pod_cronjob_name", "nightly"),
    ]));
    check(Role::Pod, "pod/shop/batch-1", batch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints() {
    let own = Table::of(&[
        ("=__address__", "10.0.0.7:8080"),
        ("endpoints_name", "web"),
        ("endpoint_hostname", "web-1.web"),
        ("endpoint_node_name", "n1"),
        ("endpoint_ready", "true"),
        ("endpoint_port_name", "http"),
        ("endpoint_port_protocol", "TCP"),
        ("endpoint_address_target_kind", "Pod"),
        ("endpoint_address_target_name", "web-1"),
    ]);
    let own = own.family("endpoints", "ep");
    let all = own.and(service_family()).and(pod_table()).and(shop()).and(attached_node());
    check(Role::Endpoints, "endpoints/shop/web", all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpointslice() {
    let own = Table::of(&[
        ("=__address__", "10.0.0.7:8080"),
        ("endpointslice_name", "web-abc"),
        ("endpointslice_address_type", "IPv4"),
        ("endpointslice_address_target_kind", "Pod"),
        ("endpointslice_address_target_name", "web-1"),
        ("endpointslice_endpoint_node_name", "n1"),
        ("endpointslice_endpoint_zone", "z1"),
        ("endpointslice_endpoint_hostname", "web-1.web"),
        ("endpointslice_endpoint_conditions_ready", "true"),
        ("endpointslice_endpoint_conditions_serving", "true"),
        ("endpointslice_endpoint_conditions_terminating", "false"),
        ("endpointslice_endpoint_topology_topology_io_rack", "r1"),
        ("endpointslice_endpoint_topology_present_topology_io_rack", "true"),
        ("endpointslice_port", "8080"),
        ("endpointslice_port_name", "http"),
        ("endpointslice_port_protocol", "TCP"),
        ("endpointslice_port_app_protocol", "h2c"),
        ("endpointslice_label_kubernetes_io_service_name", "web"),
        ("endpointslice_labelpresent_kubernetes_io_service_name", "true"),
    ]);
    let own = own.family("endpointslice", "slice");
    let all = own.and(service_family()).and(pod_table()).and(shop()).and(attached_node());
    check(Role::EndpointSlice, "endpointslice/shop/web-abc", all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingress() {
    let own = Table::of(&[
        ("=__address__", "a.example.com"),
        ("ingress_name", "front"),
        ("ingress_class_name", "nginx"),
        ("ingress_scheme", "https"),
        ("ingress_host", "a.example.com"),
        ("ingress_path", "/x"),
    ]);
    check(Role::Ingress, "ingress/shop/front", own.family("ingress", "ing").and(shop())).await;
}
