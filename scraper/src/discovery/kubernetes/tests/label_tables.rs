//! The meta labels of every role, compared in full with what Prometheus documents and does.

use serde_json::{Value, json};

use super::fake_api::FakeApi;
use crate::discovery::config::{AttachMetadata, DiscoveryConfig, KubernetesConfig, Role};
use crate::discovery::testing::{labels, manager, wait};
use crate::target_group::TargetGroup;

/// The groups that `role` makes of `objects`.
async fn discover(
    role: Role,
    attach: AttachMetadata,
    objects: Vec<(&str, Value)>,
    groups: usize,
) -> Vec<TargetGroup> {
    let api = FakeApi::start().await;
    for (plural, object) in objects {
        api.put(plural, object);
    }
    let config = KubernetesConfig {
        api_server: Some(api.url()),
        attach_metadata: attach,
        ..KubernetesConfig::in_cluster(role)
    };
    let (manager, _registry) = manager();
    let jobs = vec![("job".to_owned(), vec![DiscoveryConfig::Kubernetes(config)])];
    let mut receiver = manager.apply(jobs).remove(0).1;
    let found = wait(&mut receiver, |found| found.len() == groups).await;
    found.iter().map(|group| (**group).clone()).collect()
}

/// Labels written without their common prefix; those that begin with `=` stand as they are.
fn meta(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    let full = |name: &str| match name.strip_prefix('=') {
        Some(name) => name.to_owned(),
        None => format!("__meta_kubernetes_{name}"),
    };
    let full: Vec<_> = pairs.iter().map(|(name, value)| (full(name), *value)).collect();
    labels(&full.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())
}

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "u-1",
            "labels": {"app.kubernetes.io/name": "web"},
            "annotations": {"prometheus.io/scrape": "true"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [
                {"name": "web", "image": "web:1", "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                {"name": "side", "image": "side:2"},
            ],
            "initContainers": [{"name": "init", "image": "init:3"}],
        },
        "status": {
            "podIP": "10.0.0.7", "hostIP": "192.168.0.1", "phase": "Running",
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "containerID": "containerd://w"}],
            "initContainerStatuses": [{"name": "init", "containerID": "containerd://i"}],
        },
    })
}

const POD_LABELS: [(&str, &str); 13] = [
    ("pod_name", "web-1"),
    ("pod_ip", "10.0.0.7"),
    ("pod_label_app_kubernetes_io_name", "web"),
    ("pod_labelpresent_app_kubernetes_io_name", "true"),
    ("pod_annotation_prometheus_io_scrape", "true"),
    ("pod_annotationpresent_prometheus_io_scrape", "true"),
    ("pod_ready", "true"),
    ("pod_phase", "Running"),
    ("pod_node_name", "n1"),
    ("pod_host_ip", "192.168.0.1"),
    ("pod_uid", "u-1"),
    ("pod_controller_kind", "ReplicaSet"),
    ("pod_controller_name", "web"),
];

fn joined(parts: &[&[(&'static str, &'static str)]]) -> std::collections::BTreeMap<String, String> {
    meta(&parts.concat())
}

fn node() -> Value {
    json!({
        "metadata": {"name": "n1", "labels": {"zone": "z1"}, "annotations": {"a/b": "c"}},
        "spec": {"providerID": "aws:///i-1"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "n1.local"},
                {"type": "ExternalIP", "address": "1.2.3.4"},
                {"type": "InternalIP", "address": "10.1.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
            ],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "Unknown"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    })
}

const NODE_METADATA: [(&str, &str); 5] = [
    ("node_name", "n1"),
    ("node_label_zone", "z1"),
    ("node_labelpresent_zone", "true"),
    ("node_annotation_a_b", "c"),
    ("node_annotationpresent_a_b", "true"),
];

fn service() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop", "labels": {"longterm": "true"}, "annotations": {"x": "y"}},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    })
}

const SERVICE_METADATA: [(&str, &str); 6] = [
    ("namespace", "shop"),
    ("service_name", "web"),
    ("service_label_longterm", "true"),
    ("service_labelpresent_longterm", "true"),
    ("service_annotation_x", "y"),
    ("service_annotationpresent_x", "true"),
];

#[tokio::test]
async fn role_pod() {
    let groups = discover(Role::Pod, AttachMetadata::default(), vec![("pods", pod())], 1).await;
    assert_eq!(&*groups[0].source, "pod/shop/web-1");
    assert_eq!(groups[0].labels, joined(&[&POD_LABELS, &[("namespace", "shop")]]));
    let web = [
        ("pod_container_name", "web"),
        ("pod_container_image", "web:1"),
        ("pod_container_id", "containerd://w"),
        ("pod_container_init", "false"),
    ];
    let http = [
        ("=__address__", "10.0.0.7:8080"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
        ("pod_container_port_protocol", "TCP"),
    ];
    let dns = [
        ("=__address__", "10.0.0.7:53"),
        ("pod_container_port_name", "dns"),
        ("pod_container_port_number", "53"),
        ("pod_container_port_protocol", "UDP"),
    ];
    let side = [
        ("=__address__", "10.0.0.7"),
        ("pod_container_name", "side"),
        ("pod_container_image", "side:2"),
        ("pod_container_id", ""),
        ("pod_container_init", "false"),
    ];
    let init = [
        ("=__address__", "10.0.0.7"),
        ("pod_container_name", "init"),
        ("pod_container_image", "init:3"),
        ("pod_container_id", "containerd://i"),
        ("pod_container_init", "true"),
    ];
    let expect = [joined(&[&web, &http]), joined(&[&web, &dns]), meta(&side), meta(&init)];
    assert_eq!(groups[0].targets, expect);
}

#[tokio::test]
async fn pod_metadata_of_related_objects() {
    let attach = AttachMetadata { node: true, namespace: true, deployment: true, job: true, cronjob: true };
    let mut lost = pod();
    lost["metadata"]["name"] = json!("lost");
    lost["spec"]["nodeName"] = json!("unknown");
    let mut batch = pod();
    batch["metadata"]["name"] = json!("batch");
    batch["metadata"]["ownerReferences"] = json!([{"kind": "Job", "name": "j-1", "controller": true}]);
    let owned = |kind: &str, name: &str, own: &str| {
        json!({"metadata": {"name": own, "namespace": "shop",
            "ownerReferences": [{"kind": kind, "name": name, "controller": true}]}})
    };
    let objects = vec![
        ("pods", pod()),
        ("pods", lost),
        ("pods", batch),
        ("nodes", node()),
        (
            "namespaces",
            json!({"metadata": {"name": "shop", "labels": {"team": "t"}, "annotations": {"n": "m"}}}),
        ),
        ("replicasets", owned("Deployment", "web-deployment", "web")),
        ("jobs", owned("CronJob", "nightly", "j-1")),
    ];
    // The pod on an unknown node is no target: node selectors exclude it.
    let groups = discover(Role::Pod, attach, objects, 2).await;
    let web = groups.iter().find(|group| &*group.source == "pod/shop/web-1").unwrap();
    let related = [
        ("namespace", "shop"),
        ("namespace_label_team", "t"),
        ("namespace_labelpresent_team", "true"),
        ("namespace_annotation_n", "m"),
        ("namespace_annotationpresent_n", "true"),
        ("pod_deployment_name", "web-deployment"),
    ];
    assert_eq!(web.labels, joined(&[&POD_LABELS, &NODE_METADATA, &related]));
    let batch = groups.iter().find(|group| &*group.source == "pod/shop/batch").unwrap();
    assert_eq!(&batch.labels["__meta_kubernetes_pod_job_name"], "j-1");
    assert_eq!(&batch.labels["__meta_kubernetes_pod_cronjob_name"], "nightly");
    assert_eq!(&batch.labels["__meta_kubernetes_pod_controller_kind"], "Job");
}

#[tokio::test]
async fn role_node() {
    let mut silent = node();
    silent["metadata"]["name"] = json!("silent");
    silent["status"]["addresses"] = json!([]);
    let groups =
        discover(Role::Node, AttachMetadata::default(), vec![("nodes", node()), ("nodes", silent)], 1).await;
    assert_eq!(&*groups[0].source, "node/n1");
    let own = [
        ("node_provider_id", "aws:///i-1"),
        ("node_condition_ready", "true"),
        ("node_condition_diskpressure", "unknown"),
    ];
    assert_eq!(groups[0].labels, joined(&[&NODE_METADATA, &own]));
    let target = [
        ("=__address__", "10.1.0.1:10250"),
        ("=instance", "n1"),
        ("node_address_Hostname", "n1.local"),
        ("node_address_ExternalIP", "1.2.3.4"),
        ("node_address_InternalIP", "10.1.0.1"),
    ];
    assert_eq!(groups[0].targets, [meta(&target)]);
}

#[tokio::test]
async fn role_service() {
    let mut external = service();
    external["metadata"]["name"] = json!("ext");
    external["spec"] = json!({"type": "ExternalName", "externalName": "db.example.com",
        "ports": [{"port": 5432, "protocol": "TCP"}]});
    let mut balanced = service();
    balanced["metadata"]["name"] = json!("lb");
    balanced["spec"]["type"] = json!("LoadBalancer");
    balanced["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}, {"hostname": "h"}, {"ip": "2.2.2.2"}]}});
    let objects = vec![("services", service()), ("services", external), ("services", balanced)];
    let groups = discover(Role::Service, AttachMetadata::default(), objects, 3).await;
    let sources: Vec<_> = groups.iter().map(|group| &*group.source).collect();
    assert_eq!(sources, ["svc/shop/ext", "svc/shop/lb", "svc/shop/web"]);
    assert_eq!(groups[2].labels, meta(&SERVICE_METADATA));
    let web = [
        ("=__address__", "web.shop.svc:80"),
        ("service_port_name", "http"),
        ("service_port_number", "80"),
        ("service_port_protocol", "TCP"),
        ("service_type", "ClusterIP"),
        ("service_cluster_ip", "10.96.0.1"),
    ];
    assert_eq!(groups[2].targets, [meta(&web)]);
    let ext = [
        ("=__address__", "ext.shop.svc:5432"),
        ("service_port_name", ""),
        ("service_port_number", "5432"),
        ("service_port_protocol", "TCP"),
        ("service_type", "ExternalName"),
        ("service_external_name", "db.example.com"),
    ];
    assert_eq!(groups[0].targets, [meta(&ext)]);
    assert_eq!(&groups[1].targets[0]["__meta_kubernetes_service_loadbalancer_ip"], "1.1.1.1,2.2.2.2");
}

fn slice() -> Value {
    json!({
        "metadata": {"name": "web-abc", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "h2c"}],
        "endpoints": [
            {"addresses": ["10.0.0.7"], "conditions": {"ready": true, "serving": true, "terminating": false},
                "hostname": "web-1", "nodeName": "n1", "zone": "z1", "deprecatedTopology": {"topology/x": "y"},
                "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop"}},
            {"addresses": ["10.5.5.5"], "conditions": {"ready": false}},
        ],
    })
}

#[tokio::test]
async fn role_endpointslice() {
    let attach = AttachMetadata { node: true, ..AttachMetadata::default() };
    let objects =
        vec![("pods", pod()), ("nodes", node()), ("services", service()), ("endpointslices", slice())];
    let groups = discover(Role::EndpointSlice, attach, objects, 1).await;
    assert_eq!(&*groups[0].source, "endpointslice/shop/web-abc");
    let own = [
        ("endpointslice_name", "web-abc"),
        ("endpointslice_address_type", "IPv4"),
        ("endpointslice_label_kubernetes_io_service_name", "web"),
        ("endpointslice_labelpresent_kubernetes_io_service_name", "true"),
    ];
    assert_eq!(groups[0].labels, joined(&[&SERVICE_METADATA, &own]));
    let port = [
        ("endpointslice_port", "8080"),
        ("endpointslice_port_name", "http"),
        ("endpointslice_port_protocol", "TCP"),
        ("endpointslice_port_app_protocol", "h2c"),
    ];
    let of_pod = [
        ("=__address__", "10.0.0.7:8080"),
        ("endpointslice_endpoint_conditions_ready", "true"),
        ("endpointslice_endpoint_conditions_serving", "true"),
        ("endpointslice_endpoint_conditions_terminating", "false"),
        ("endpointslice_endpoint_hostname", "web-1"),
        ("endpointslice_endpoint_node_name", "n1"),
        ("endpointslice_endpoint_zone", "z1"),
        ("endpointslice_endpoint_topology_topology_x", "y"),
        ("endpointslice_endpoint_topology_present_topology_x", "true"),
        ("endpointslice_address_target_kind", "Pod"),
        ("endpointslice_address_target_name", "web-1"),
        ("pod_container_name", "web"),
        ("pod_container_image", "web:1"),
        ("pod_container_init", "false"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
        ("pod_container_port_protocol", "TCP"),
    ];
    let foreign = [("=__address__", "10.5.5.5:8080"), ("endpointslice_endpoint_conditions_ready", "false")];
    let uncovered = [
        ("=__address__", "10.0.0.7:53"),
        ("pod_container_name", "web"),
        ("pod_container_image", "web:1"),
        ("pod_container_init", "false"),
        ("pod_container_port_name", "dns"),
        ("pod_container_port_number", "53"),
        ("pod_container_port_protocol", "UDP"),
    ];
    let expect = [
        joined(&[&port, &of_pod, &POD_LABELS, &NODE_METADATA]),
        joined(&[&port, &foreign]),
        joined(&[&uncovered, &POD_LABELS]),
    ];
    assert_eq!(groups[0].targets, expect);
}

#[tokio::test]
async fn the_second_family_of_a_dual_stack_service_is_left_out() {
    let mut dual = service();
    dual["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    dual["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    let mut second = slice();
    second["metadata"]["name"] = json!("web-v6");
    second["addressType"] = json!("IPv6");
    second["endpoints"] = json!([{"addresses": ["fd00::7"]}]);
    let objects = vec![("services", dual), ("endpointslices", slice()), ("endpointslices", second)];
    let groups = discover(Role::EndpointSlice, AttachMetadata::default(), objects, 1).await;
    assert_eq!(&*groups[0].source, "endpointslice/shop/web-abc");
}

#[tokio::test]
async fn role_endpoints() {
    let endpoints = json!({
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"e": "f"}},
        "subsets": [{
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "addresses": [{"ip": "10.0.0.7", "nodeName": "n1", "hostname": "h",
                "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop"}}],
            "notReadyAddresses": [{"ip": "10.5.5.5"}],
        }],
    });
    let objects = vec![("pods", pod()), ("services", service()), ("endpoints", endpoints)];
    let groups = discover(Role::Endpoints, AttachMetadata::default(), objects, 1).await;
    assert_eq!(&*groups[0].source, "endpoints/shop/web");
    let own = [
        ("endpoints_name", "web"),
        ("endpoints_annotation_e", "f"),
        ("endpoints_annotationpresent_e", "true"),
    ];
    assert_eq!(groups[0].labels, joined(&[&SERVICE_METADATA, &own]));
    let port = [("endpoint_port_name", "http"), ("endpoint_port_protocol", "TCP")];
    let of_pod = [
        ("=__address__", "10.0.0.7:8080"),
        ("endpoint_ready", "true"),
        ("endpoint_node_name", "n1"),
        ("endpoint_hostname", "h"),
        ("endpoint_address_target_kind", "Pod"),
        ("endpoint_address_target_name", "web-1"),
        ("pod_container_name", "web"),
        ("pod_container_image", "web:1"),
        ("pod_container_init", "false"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
        ("pod_container_port_protocol", "TCP"),
    ];
    assert_eq!(groups[0].targets.len(), 3);
    assert_eq!(groups[0].targets[0], joined(&[&port, &of_pod, &POD_LABELS]));
    let not_ready = [("=__address__", "10.5.5.5:8080"), ("endpoint_ready", "false")];
    assert_eq!(groups[0].targets[1], joined(&[&port, &not_ready]));
    assert_eq!(&groups[0].targets[2]["__address__"], "10.0.0.7:53");
}

#[tokio::test]
async fn role_ingress() {
    let ingress = json!({
        "metadata": {"name": "front", "namespace": "shop", "labels": {"l": "m"}},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": ["*.example.com"]}],
            "rules": [
                {"host": "a.example.com", "http": {"paths": [{"path": "/x"}, {"path": null}]}},
                {"host": "plain.org"},
            ],
        },
    });
    let groups = discover(Role::Ingress, AttachMetadata::default(), vec![("ingresses", ingress)], 1).await;
    assert_eq!(&*groups[0].source, "ingress/shop/front");
    let own = [
        ("namespace", "shop"),
        ("ingress_name", "front"),
        ("ingress_class_name", "nginx"),
        ("ingress_label_l", "m"),
        ("ingress_labelpresent_l", "true"),
    ];
    assert_eq!(groups[0].labels, meta(&own));
    let target = |host: &'static str, scheme, path| {
        meta(&[
            ("=__address__", host),
            ("ingress_host", host),
            ("ingress_scheme", scheme),
            ("ingress_path", path),
        ])
    };
    let expect = [
        target("a.example.com", "https", "/x"),
        target("a.example.com", "https", "/"),
        target("plain.org", "http", "/"),
    ];
    assert_eq!(groups[0].targets, expect);
}
