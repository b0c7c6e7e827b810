//! The Kubernetes objects that discovery reads, reduced to the fields it needs.
//!
//! A full pod is many times larger than what becomes labels, and a cluster has tens of thousands of them. Everything
//! is optional and `null` counts as absent, because one field of an unexpected shape must not hide a whole list.
//! `resourceVersion` is there for the watch and removed before an object is kept.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Deserialize as DeriveDeserialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use super::packed::{Pack, Packer, Unpacker};
use crate::discovery::config::Role;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Pod,
    Node,
    Service,
    EndpointSlice,
    Endpoints,
    Ingress,
    Namespace,
    ReplicaSet,
    Job,
}

/// A watched object.
pub(super) trait Object:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + PartialEq + Pack + Send + Sync + 'static
{
    /// Which kind it is.
    const KIND: Kind;

    /// Removes what was read and is not used.
    fn slim(&mut self);
}

/// Removes what was read and is not used, from parts that have such.
trait Unused {
    fn drop_unused(&mut self) {}
}

/// Names one object: `key` is `NAMESPACE/NAME`, or `NAME` for what has no namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectRef {
    pub(super) kind: Kind,
    pub(super) key: Arc<str>,
}

impl ObjectRef {
    pub(super) fn new(kind: Kind, key: impl Into<Arc<str>>) -> Self {
        Self { kind, key: key.into() }
    }
}

impl Kind {
    /// The role whose events are counted for this kind.
    pub(super) fn role(self) -> Option<Role> {
        match self {
            Self::Pod => Some(Role::Pod),
            Self::Node => Some(Role::Node),
            Self::Service => Some(Role::Service),
            Self::EndpointSlice => Some(Role::EndpointSlice),
            Self::Endpoints => Some(Role::Endpoints),
            Self::Ingress => Some(Role::Ingress),
            Self::Namespace | Self::ReplicaSet | Self::Job => None,
        }
    }
}

/// The key of an object in its store.
pub(super) fn key(meta: &ObjectMeta) -> String {
    let name = meta.name.as_deref().unwrap_or_default();
    match meta.namespace.as_deref() {
        None | Some("") => name.to_owned(),
        Some(namespace) => namespaced(namespace, name),
    }
}

/// `NAMESPACE/NAME`.
pub(super) fn namespaced(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Absent and `null` alike.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The metadata that is used, so that managed fields are never built.
fn slim_meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(DeriveDeserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, Option<String>>>,
        annotations: Option<BTreeMap<String, Option<String>>>,
        #[serde(default, deserialize_with = "nullable")]
        owner_references: Vec<SlimOwner>,
    }
    #[derive(DeriveDeserialize)]
    struct SlimOwner {
        controller: Option<bool>,
        #[serde(default, deserialize_with = "nullable")]
        kind: String,
        #[serde(default, deserialize_with = "nullable")]
        name: String,
    }
    fn filled(map: Option<BTreeMap<String, Option<String>>>) -> Option<BTreeMap<String, String>> {
        map.map(|map| map.into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect())
    }
    let slim = Slim::deserialize(deserializer)?;
    let controllers: Vec<OwnerReference> = slim
        .owner_references
        .into_iter()
        .filter(|owner| owner.controller == Some(true))
        .map(|owner| OwnerReference {
            controller: owner.controller,
            kind: owner.kind,
            name: owner.name,
            ..OwnerReference::default()
        })
        .collect();
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        labels: filled(slim.labels),
        annotations: filled(slim.annotations),
        owner_references: (!controllers.is_empty()).then_some(controllers),
        ..ObjectMeta::default()
    })
}

/// Defines a type whose fields are read leniently.
macro_rules! lenient {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, DeriveDeserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $name {
            $($(#[$field_meta])* #[serde(default, deserialize_with = "nullable")] pub(super) $field: $type,)*
        }

        impl Pack for $name {
            fn pack<'a>(&'a self, out: &mut Packer<'a>) {
                $(self.$field.pack(out);)*
            }

            fn unpack(from: &mut Unpacker<'_>) -> Self {
                Self { $($field: Pack::unpack(from),)* }
            }
        }
    )*};
}

/// Defines a watched kind: its API group, version and plural, and the fields besides its metadata.
macro_rules! object {
    ($($name:ident: $group:literal / $version:literal / $plural:literal, $scope:ident {
        $($field:ident: $type:ty,)*
    })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, DeriveDeserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $name {
            #[serde(default, deserialize_with = "slim_meta")]
            pub(super) metadata: ObjectMeta,
            $(#[serde(default, deserialize_with = "nullable")] pub(super) $field: $type,)*
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = k8s_openapi::$scope;

            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                stringify!($name).into()
            }

            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl Object for $name {
            const KIND: Kind = Kind::$name;

            fn slim(&mut self) {
                self.drop_unused();
            }
        }

        impl Pack for $name {
            fn pack<'a>(&'a self, out: &mut Packer<'a>) {
                self.metadata.pack(out);
                $(self.$field.pack(out);)*
            }

            fn unpack(from: &mut Unpacker<'_>) -> Self {
                Self { metadata: Pack::unpack(from), $($field: Pack::unpack(from),)* }
            }
        }
    )*};
}

object! {
    Pod: "" / "v1" / "pods", NamespaceResourceScope {
        spec: PodSpec,
        status: PodStatus,
    }
    Node: "" / "v1" / "nodes", ClusterResourceScope {
        spec: NodeSpec,
        status: NodeStatus,
    }
    Service: "" / "v1" / "services", NamespaceResourceScope {
        spec: ServiceSpec,
        status: ServiceStatus,
    }
    EndpointSlice: "discovery.k8s.io" / "v1" / "endpointslices", NamespaceResourceScope {
        address_type: String,
        endpoints: Vec<Endpoint>,
        ports: Vec<SlicePort>,
    }
    Endpoints: "" / "v1" / "endpoints", NamespaceResourceScope {
        subsets: Vec<Subset>,
    }
    Ingress: "networking.k8s.io" / "v1" / "ingresses", NamespaceResourceScope {
        spec: IngressSpec,
    }
    Namespace: "" / "v1" / "namespaces", ClusterResourceScope {}
    ReplicaSet: "apps" / "v1" / "replicasets", NamespaceResourceScope {}
    Job: "batch" / "v1" / "jobs", NamespaceResourceScope {}
}

lenient! {
    PodSpec { node_name: String, containers: Vec<Container>, init_containers: Vec<Container>, }
    Container { name: String, image: String, ports: Vec<ContainerPort>, }
    ContainerPort { name: String, container_port: i64, protocol: String, }
    PodStatus {
        phase: String,
        #[serde(rename = "podIP")]
        pod_ip: String,
        #[serde(rename = "hostIP")]
        host_ip: String,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
    }
    ContainerStatus {
        name: String,
        #[serde(rename = "containerID")]
        container_id: String,
    }
    Condition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
    }
    NodeSpec {
        #[serde(rename = "providerID")]
        provider_id: String,
    }
    NodeStatus { addresses: Vec<NodeAddress>, conditions: Vec<Condition>, daemon_endpoints: DaemonEndpoints, }
    NodeAddress {
        #[serde(rename = "type")]
        kind: String,
        address: String,
    }
    DaemonEndpoints { kubelet_endpoint: DaemonEndpoint, }
    DaemonEndpoint {
        #[serde(rename = "Port")]
        port: i64,
    }
    ServiceSpec {
        #[serde(rename = "type")]
        kind: String,
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        external_name: String,
        #[serde(rename = "loadBalancerIP")]
        load_balancer_ip: String,
        ip_families: Vec<String>,
        ip_family_policy: String,
        ports: Vec<ServicePort>,
    }
    ServicePort { name: String, port: i64, protocol: String, }
    ServiceStatus { load_balancer: LoadBalancerStatus, }
    LoadBalancerStatus { ingress: Vec<LoadBalancerIngress>, }
    LoadBalancerIngress { ip: String, }
    Endpoint {
        addresses: Vec<String>,
        conditions: EndpointConditions,
        hostname: Option<String>,
        node_name: Option<String>,
        zone: Option<String>,
        target_ref: Option<TargetRef>,
        deprecated_topology: BTreeMap<String, String>,
    }
    EndpointConditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>, }
    TargetRef { kind: String, namespace: String, name: String, }
    SlicePort {
        name: Option<String>,
        port: Option<i64>,
        protocol: Option<String>,
        app_protocol: Option<String>,
    }
    Subset { addresses: Vec<EndpointAddress>, not_ready_addresses: Vec<EndpointAddress>, ports: Vec<ServicePort>, }
    EndpointAddress { ip: String, hostname: String, node_name: Option<String>, target_ref: Option<TargetRef>, }
    IngressSpec { ingress_class_name: Option<String>, rules: Vec<IngressRule>, tls: Vec<IngressTls>, }
    IngressRule { host: String, http: Option<IngressHttp>, }
    IngressHttp { paths: Vec<IngressPath>, }
    IngressPath { path: String, }
    IngressTls { hosts: Vec<String>, }
}

impl Unused for Pod {
    fn drop_unused(&mut self) {
        // Times of the others change and nobody looks at them.
        self.status.conditions.retain(|condition| condition.kind == "Ready");
        self.status.conditions.truncate(1);
    }
}

impl Unused for Node {}
impl Unused for Service {}
impl Unused for EndpointSlice {}
impl Unused for Endpoints {}
impl Unused for Ingress {}
impl Unused for Namespace {}

impl Unused for ReplicaSet {
    fn drop_unused(&mut self) {
        only_owners(&mut self.metadata);
    }
}

impl Unused for Job {
    fn drop_unused(&mut self) {
        only_owners(&mut self.metadata);
    }
}

/// What is only a step on the way from a pod to its deployment or cron job needs no labels of its own.
fn only_owners(meta: &mut ObjectMeta) {
    meta.uid = None;
    meta.labels = None;
    meta.annotations = None;
}

#[cfg(test)]
mod tests {
    use super::super::packed::Packed;
    use super::*;

    #[test]
    fn nulls_and_foreign_fields_are_no_obstacle() {
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"kind": "EndpointSlice", "metadata": {"name": "s", "namespace": "n", "labels": null, "managedFields": [{"x": 1}],
                "creationTimestamp": "not a time"}, "endpoints": null, "ports": [{"port": null, "name": ""}], "new": {}}"#,
        )
        .unwrap();
        assert_eq!(key(&slice.metadata), "n/s");
        assert!(slice.endpoints.is_empty());
        assert_eq!(slice.ports[0].name.as_deref(), Some(""));
        assert_eq!(slice.ports[0].port, None);
        assert!(slice.metadata.managed_fields.is_none());
    }

    #[test]
    fn what_is_packed_comes_back() {
        let mut pod: Pod = serde_json::from_str(
            r#"{"metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": ""},
                "annotations": {"c": "2"}, "ownerReferences": [{"kind": "Job", "name": "j", "controller": true}]},
                "spec": {"nodeName": "k", "containers": [{"name": "c", "image": "i", "ports": [
                    {"name": "http", "containerPort": -1, "protocol": "TCP"}, {"containerPort": 9223372036854775807}]}]},
                "status": {"podIP": "10.0.0.1", "conditions": [{"type": "A", "status": "x"}, {"type": "Ready",
                    "status": "True"}], "containerStatuses": [{"name": "c", "containerID": "id"}]}}"#,
        )
        .unwrap();
        let packed = Packed::of(&pod);
        let mut back: Pod = packed.unpack();
        (back.metadata.name, back.metadata.namespace) =
            (pod.metadata.name.clone(), pod.metadata.namespace.clone());
        assert_eq!(back, pod);
        pod.slim();
        assert_eq!(pod.status.conditions.len(), 1);
        assert_ne!(Packed::of(&pod), packed);
        let slice = EndpointSlice {
            endpoints: vec![Endpoint {
                hostname: Some(String::new()),
                conditions: EndpointConditions { ready: Some(false), serving: Some(true), terminating: None },
                deprecated_topology: BTreeMap::from([("z".to_owned(), "1".to_owned())]),
                ..Endpoint::default()
            }],
            ..EndpointSlice::default()
        };
        assert_eq!(Packed::of(&slice).unpack::<EndpointSlice>(), slice);
    }

    #[test]
    fn only_the_controller_is_kept_of_the_owners() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata": {"name": "p", "namespace": "n", "ownerReferences": [
                {"kind": "A", "name": "a"}, {"kind": "ReplicaSet", "name": "rs", "controller": true}]},
                "spec": {"nodeName": "k"}, "status": {"podIP": "10.0.0.1", "hostIP": null}}"#,
        )
        .unwrap();
        let owners = pod.metadata.owner_references.unwrap();
        assert_eq!((owners.len(), owners[0].name.as_str()), (1, "rs"));
        assert_eq!(pod.status.pod_ip, "10.0.0.1");
    }
}
