//! From changed objects to target groups, for every role in the same way.
//!
//! Each group is built from one *primary* object (a pod for role pod) and notes which other objects it looked at. When
//! any of those changes, appears or goes, the group is built again. That is stricter than Prometheus, which leaves an
//! endpoint's labels stale when only its pod's labels change.

#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::discovery) mod fuzz;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::inbox::Inbox;
use super::meta_labels::{LabelSet, add_labels_and_annotations, add_object};
use super::object::{
    EndpointSlice, Endpoints, Ingress, Job, Kind, Namespace, Node, ObjectRef, Pod, ReplicaSet, Service,
};
use super::watch::{Query, Watching};
use super::{cluster::Cluster, endpoints, endpointslice, ingress, node, pod, service};
use crate::discovery::config::{AttachMetadata, KubernetesConfig, Role};
use crate::discovery::sink::GroupSink;
use crate::target_group::{GroupLabels, TargetGroup};

/// Groups that are built before other tasks get a turn.
const BUILDS_PER_TURN: usize = 256;

/// The stores a role may look into; those it does not need are absent and look empty.
#[derive(Default)]
pub(super) struct Stores {
    pub(super) pods: Watched<Pod>,
    pub(super) nodes: Watched<Node>,
    pub(super) services: Watched<Service>,
    pub(super) endpoint_slices: Watched<EndpointSlice>,
    pub(super) endpoints: Watched<Endpoints>,
    pub(super) ingresses: Watched<Ingress>,
    pub(super) namespaces: Watched<Namespace>,
    pub(super) replica_sets: Watched<ReplicaSet>,
    pub(super) jobs: Watched<Job>,
}

/// A watched kind, or nothing.
pub(super) struct Watched<K>(Option<Arc<Watching<K>>>);

/// A group before it has its source.
#[derive(Default)]
pub(super) struct Built {
    pub(super) labels: LabelSet,
    pub(super) targets: Vec<LabelSet>,
}

/// What building a group may look at; remembers what was looked at.
pub(super) struct Builder<'a> {
    pub(super) stores: &'a Stores,
    pub(super) attach: AttachMetadata,
    looked_at: HashSet<ObjectRef>,
}

/// Which group looked at what.
#[derive(Default)]
struct Dependencies {
    of_group: HashMap<Arc<str>, Box<[ObjectRef]>>,
    groups: HashMap<ObjectRef, HashSet<Arc<str>>>,
}

/// One role in one namespace, or in all of them.
pub(super) struct RoleRunner {
    role: Role,
    attach: AttachMetadata,
    stores: Stores,
    inbox: Arc<Inbox>,
    dependencies: Dependencies,
}

// === impl RoleRunner ===

impl RoleRunner {
    /// Opens or joins the watches that `config` needs in `namespace`.
    pub(super) fn new(config: &KubernetesConfig, cluster: &Arc<Cluster>, namespace: Option<&str>) -> Self {
        let inbox = Arc::new(Inbox::new(cluster.metrics(), config.role.as_str()));
        let mut opener = Opener { config, cluster, namespace, inbox: &inbox, stores: Stores::default() };
        opener.open();
        let stores = opener.stores;
        Self {
            role: config.role,
            attach: config.attach_metadata,
            stores,
            inbox,
            dependencies: Dependencies::default(),
        }
    }

    /// Keeps the groups in `sink` in step with the cluster; calls `synced` once all watches have seen everything and
    /// the groups are there. Runs until it is dropped.
    pub(super) async fn run(mut self, sink: Arc<GroupSink>, synced: impl FnOnce()) {
        while !self.stores.all_synced() {
            self.inbox.wait().await;
        }
        self.step(&sink).await;
        synced();
        loop {
            self.inbox.wait().await;
            self.step(&sink).await;
        }
    }

    /// Rebuilds the groups that what changed concerns.
    async fn step(&mut self, sink: &GroupSink) {
        let changed = self.inbox.take();
        let mut keys: HashSet<Arc<str>> = HashSet::new();
        for object in changed {
            if let Some(groups) = self.dependencies.groups.get(&object) {
                keys.extend(groups.iter().cloned());
            }
            if object.kind == primary_kind(self.role) {
                keys.insert(object.key);
            }
        }
        let mut updates = Vec::with_capacity(keys.len());
        for (i, key) in keys.into_iter().enumerate() {
            if i > 0 && i % BUILDS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            updates.push(self.build(key));
        }
        if !updates.is_empty() {
            sink.update(updates);
        }
    }

    fn build(&mut self, key: Arc<str>) -> (Arc<str>, Option<TargetGroup>) {
        let mut builder = Builder { stores: &self.stores, attach: self.attach, looked_at: HashSet::new() };
        let built = match self.role {
            Role::Pod => pod::build(&mut builder, &key),
            Role::Node => node::build(&mut builder, &key),
            Role::Service => service::build(&mut builder, &key),
            Role::EndpointSlice => endpointslice::build(&mut builder, &key),
            Role::Endpoints => endpoints::build(&mut builder, &key),
            Role::Ingress => ingress::build(&mut builder, &key),
        };
        let looked_at = builder.looked_at;
        let source: Arc<str> = format!("{}/{key}", source_prefix(self.role)).into();
        self.dependencies.replace(key, looked_at);
        let group = built.map(|built| TargetGroup {
            source: Arc::clone(&source),
            labels: built.labels.into(),
            targets: built.targets.into_iter().map(GroupLabels::from).collect(),
        });
        (source, group)
    }
}

fn primary_kind(role: Role) -> Kind {
    match role {
        Role::Pod => Kind::Pod,
        Role::Node => Kind::Node,
        Role::Service => Kind::Service,
        Role::EndpointSlice => Kind::EndpointSlice,
        Role::Endpoints => Kind::Endpoints,
        Role::Ingress => Kind::Ingress,
    }
}

fn source_prefix(role: Role) -> &'static str {
    match role {
        Role::Service => "svc",
        other => other.as_str(),
    }
}

// === impl Dependencies ===

impl Dependencies {
    fn replace(&mut self, group: Arc<str>, looked_at: HashSet<ObjectRef>) {
        for object in self.of_group.remove(&group).into_iter().flatten() {
            if looked_at.contains(&object) {
                continue;
            }
            if let Some(groups) = self.groups.get_mut(&object) {
                groups.remove(&group);
                if groups.is_empty() {
                    self.groups.remove(&object);
                }
            }
        }
        if looked_at.is_empty() {
            return;
        }
        let looked_at = looked_at.into_iter().map(|object| {
            // Ten thousand pods on a hundred nodes: each node's name is kept once.
            let object = self.groups.get_key_value(&object).map_or(object, |(known, _)| known.clone());
            self.groups.entry(object.clone()).or_default().insert(Arc::clone(&group));
            object
        });
        let looked_at: Box<[ObjectRef]> = looked_at.collect();
        self.of_group.insert(group, looked_at);
    }
}

// === impl Builder ===

impl Builder<'_> {
    /// Notes that the group depends on an object, whether it exists or not.
    pub(super) fn depend(&mut self, kind: Kind, key: &str) {
        self.looked_at.insert(ObjectRef::new(kind, key));
    }

    /// Adds name, labels and annotations of a node; says whether the node is known.
    pub(super) fn add_node(&mut self, labels: &mut LabelSet, name: &str) -> bool {
        self.depend(Kind::Node, name);
        match self.stores.nodes.get(name) {
            Some(node) => {
                add_object(labels, &node.metadata, "node");
                true
            }
            None => false,
        }
    }

    /// Adds labels and annotations of a namespace when that is asked for.
    pub(super) fn add_namespace(&mut self, labels: &mut LabelSet, name: &str) {
        if !self.attach.namespace {
            return;
        }
        self.depend(Kind::Namespace, name);
        if let Some(namespace) = self.stores.namespaces.get(name) {
            add_labels_and_annotations(labels, &namespace.metadata, "namespace");
        }
    }
}

// === impl Stores ===

impl Stores {
    fn all_synced(&self) -> bool {
        self.pods.is_synced()
            && self.nodes.is_synced()
            && self.services.is_synced()
            && self.endpoint_slices.is_synced()
            && self.endpoints.is_synced()
            && self.ingresses.is_synced()
            && self.namespaces.is_synced()
            && self.replica_sets.is_synced()
            && self.jobs.is_synced()
    }
}

impl<K> Default for Watched<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: super::object::Object> Watched<K> {
    pub(super) fn get(&self, key: &str) -> Option<K> {
        self.0.as_ref()?.store().get(key)
    }

    fn is_synced(&self) -> bool {
        self.0.as_ref().is_none_or(|watching| watching.store().is_synced())
    }
}

/// Opens the watches of one role.
struct Opener<'a> {
    config: &'a KubernetesConfig,
    cluster: &'a Arc<Cluster>,
    namespace: Option<&'a str>,
    inbox: &'a Arc<Inbox>,
    stores: Stores,
}

impl Opener<'_> {
    fn open(&mut self) {
        let attach = self.config.attach_metadata;
        match self.config.role {
            Role::Node => {
                self.stores.nodes = self.cluster_wide(Some(Role::Node));
                return;
            }
            Role::Pod => self.stores.pods = self.namespaced_kind(Some(Role::Pod)),
            Role::Service => self.stores.services = self.namespaced_kind(Some(Role::Service)),
            Role::Ingress => self.stores.ingresses = self.namespaced_kind(Some(Role::Ingress)),
            Role::EndpointSlice => {
                self.stores.endpoint_slices = self.namespaced_kind(Some(Role::EndpointSlice));
                self.open_backing();
            }
            Role::Endpoints => {
                self.stores.endpoints = self.namespaced_kind(Some(Role::Endpoints));
                self.open_backing();
            }
        }
        if attach.namespace {
            self.stores.namespaces = self.cluster_wide(None);
        }
        if !matches!(self.config.role, Role::Pod | Role::EndpointSlice | Role::Endpoints) {
            return;
        }
        if attach.node {
            self.stores.nodes = self.cluster_wide(Some(Role::Node));
        }
        if attach.deployment {
            self.stores.replica_sets = self.namespaced_kind(None);
        }
        if attach.cronjob {
            self.stores.jobs = self.namespaced_kind(None);
        }
    }

    fn open_backing(&mut self) {
        self.stores.services = self.namespaced_kind(Some(Role::Service));
        self.stores.pods = self.namespaced_kind(Some(Role::Pod));
    }

    fn namespaced_kind<K>(&self, role: Option<Role>) -> Watched<K>
    where
        K: super::object::Object + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let api = |client: kube::Client, namespace: Option<&str>| match namespace {
            Some(namespace) => kube::Api::namespaced(client, namespace),
            None => kube::Api::all(client),
        };
        self.join(self.query(role, self.namespace), api)
    }

    fn cluster_wide<K: super::object::Object>(&self, role: Option<Role>) -> Watched<K> {
        self.join(self.query(role, None), |client, _| kube::Api::all(client))
    }

    fn query(&self, role: Option<Role>, namespace: Option<&str>) -> Query {
        let (label, field) = role.map_or(("", ""), |role| self.config.selector(role));
        Query { namespace: namespace.map(str::to_owned), label: label.to_owned(), field: field.to_owned() }
    }

    fn join<K: super::object::Object>(
        &self,
        query: Query,
        api: fn(kube::Client, Option<&str>) -> kube::Api<K>,
    ) -> Watched<K> {
        let watching = Cluster::watch(self.cluster, query, api);
        watching.store().subscribe(self.inbox);
        Watched(Some(watching))
    }
}
