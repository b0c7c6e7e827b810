//! Role `pod`: a target for each declared port of each container, or one without a port for a container that has none.

use super::meta_labels::{ADDRESS, LabelSet, add_object, host_port, set};
use super::object::{Container, ContainerPort, ContainerStatus, Kind, Pod, namespaced};
use super::roles::{Builder, Built};

/// The group of a pod. A pod without an address, or on a node that node selectors exclude, has no targets.
pub(super) fn build(builder: &mut Builder<'_>, key: &str) -> Option<Built> {
    let pod = builder.stores.pods.get(key)?;
    if pod.status.pod_ip.is_empty() {
        return Some(Built::default());
    }
    let mut labels = pod_labels(builder, &pod);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    set(&mut labels, "namespace", namespace);
    if builder.attach.node && !builder.add_node(&mut labels, &pod.spec.node_name) {
        return Some(Built::default());
    }
    builder.add_namespace(&mut labels, namespace);
    let mut targets = Vec::new();
    for (container, is_init) in containers(&pod) {
        let id = container_id(&pod, &container.name, is_init);
        let mut base = LabelSet::new();
        add_container(&mut base, container, is_init);
        set(&mut base, "pod_container_id", id);
        if container.ports.is_empty() {
            base.insert(ADDRESS.to_owned(), pod.status.pod_ip.clone());
            targets.push(base);
            continue;
        }
        for port in &container.ports {
            let mut target = base.clone();
            target.insert(ADDRESS.to_owned(), host_port(&pod.status.pod_ip, port.container_port));
            add_container_port(&mut target, port, &port.protocol);
            targets.push(target);
        }
    }
    Some(Built { labels, targets })
}

/// The labels that describe a pod whatever the role.
pub(super) fn pod_labels(builder: &mut Builder<'_>, pod: &Pod) -> LabelSet {
    let mut labels = LabelSet::new();
    set(&mut labels, "pod_ip", pod.status.pod_ip.as_str());
    set(&mut labels, "pod_ready", ready(pod));
    set(&mut labels, "pod_phase", pod.status.phase.as_str());
    set(&mut labels, "pod_node_name", pod.spec.node_name.as_str());
    set(&mut labels, "pod_host_ip", pod.status.host_ip.as_str());
    set(&mut labels, "pod_uid", pod.metadata.uid.as_deref().unwrap_or_default());
    add_object(&mut labels, &pod.metadata, "pod");
    add_controller(builder, pod, &mut labels);
    labels
}

fn add_controller(builder: &mut Builder<'_>, pod: &Pod, labels: &mut LabelSet) {
    let Some(controller) = pod.metadata.owner_references.iter().flatten().next() else { return };
    if !controller.kind.is_empty() {
        set(labels, "pod_controller_kind", controller.kind.as_str());
    }
    if !controller.name.is_empty() {
        set(labels, "pod_controller_name", controller.name.as_str());
    }
    let owner = namespaced(pod.metadata.namespace.as_deref().unwrap_or_default(), &controller.name);
    match controller.kind.as_str() {
        "ReplicaSet" if builder.attach.deployment => {
            builder.depend(Kind::ReplicaSet, &owner);
            let replica_set = builder.stores.replica_sets.get(&owner);
            let owner =
                replica_set.iter().flat_map(|rs| rs.metadata.owner_references.iter().flatten()).next();
            if let Some(owner) = owner.filter(|owner| owner.kind == "Deployment") {
                set(labels, "pod_deployment_name", owner.name.as_str());
            }
        }
        "Job" => {
            if builder.attach.job {
                set(labels, "pod_job_name", controller.name.as_str());
            }
            if builder.attach.cronjob {
                builder.depend(Kind::Job, &owner);
                let job = builder.stores.jobs.get(&owner);
                let owner = job.iter().flat_map(|job| job.metadata.owner_references.iter().flatten()).next();
                if let Some(owner) = owner.filter(|owner| owner.kind == "CronJob") {
                    set(labels, "pod_cronjob_name", owner.name.as_str());
                }
            }
        }
        _ => {}
    }
}

/// The pod's containers, then its init containers, each with whether it is one of the latter.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let init = pod.spec.init_containers.iter().map(|container| (container, true));
    pod.spec.containers.iter().map(|container| (container, false)).chain(init)
}

/// Name, image and whether it is an init container.
pub(super) fn add_container(labels: &mut LabelSet, container: &Container, is_init: bool) {
    set(labels, "pod_container_name", container.name.as_str());
    set(labels, "pod_container_image", container.image.as_str());
    set(labels, "pod_container_init", is_init.to_string());
}

/// Number, name and protocol of a container's port.
pub(super) fn add_container_port(labels: &mut LabelSet, port: &ContainerPort, protocol: &str) {
    set(labels, "pod_container_port_number", port.container_port.to_string());
    set(labels, "pod_container_port_name", port.name.as_str());
    set(labels, "pod_container_port_protocol", protocol);
}

fn container_id<'a>(pod: &'a Pod, name: &str, is_init: bool) -> &'a str {
    let statuses = if is_init { &pod.status.init_container_statuses } else { &pod.status.container_statuses };
    let found = statuses.iter().find(|status: &&ContainerStatus| status.name == name);
    found.map_or("", |status| &status.container_id)
}

fn ready(pod: &Pod) -> String {
    let condition = pod.status.conditions.iter().find(|condition| condition.kind == "Ready");
    condition.map_or_else(|| "unknown".to_owned(), |condition| condition.status.to_lowercase())
}
