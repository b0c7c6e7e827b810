//! The pods behind endpoints: their labels on the endpoint's target, and targets for ports no endpoint covers.
//!
//! Shared by the roles `endpoints` and `endpointslice`.

use super::meta_labels::{ADDRESS, LabelSet, host_port};
use super::object::{Kind, Pod, TargetRef, namespaced};
use super::pod::{add_container, add_container_port, containers, pod_labels};
use super::roles::Builder;

/// The pods met so far, each with the ports that endpoints cover.
#[derive(Default)]
pub(super) struct BackingPods {
    pods: Vec<(String, Pod, Vec<Option<i64>>)>,
}

impl BackingPods {
    /// Adds the labels of the pod that an endpoint refers to, if it refers to one that is known, and of the container
    /// that has the endpoint's port. `protocol` replaces the container port's own when given.
    pub(super) fn add_labels(
        &mut self,
        builder: &mut Builder<'_>,
        target: &mut LabelSet,
        reference: Option<&TargetRef>,
        port: Option<i64>,
        protocol: Option<&str>,
    ) {
        let Some(reference) = reference.filter(|reference| reference.kind == "Pod") else { return };
        let key = namespaced(&reference.namespace, &reference.name);
        builder.depend(Kind::Pod, &key);
        let Some(pod) = builder.stores.pods.get(&key) else { return };
        target.extend(pod_labels(builder, &pod));
        for (container, is_init) in containers(&pod) {
            if let Some(own) = container.ports.iter().find(|own| Some(own.container_port) == port) {
                add_container(target, container, is_init);
                add_container_port(target, own, protocol.unwrap_or(&own.protocol));
            }
        }
        match self.pods.iter_mut().find(|(known, ..)| *known == key) {
            Some((_, _, ports)) => ports.push(port),
            None => self.pods.push((key, pod, vec![port])),
        }
    }

    /// Targets for the declared container ports that no endpoint covers.
    pub(super) fn uncovered(self, builder: &mut Builder<'_>) -> Vec<LabelSet> {
        let mut targets = Vec::new();
        for (_, pod, covered) in self.pods {
            if pod.status.pod_ip.is_empty() {
                continue;
            }
            for (container, is_init) in containers(&pod) {
                for port in
                    container.ports.iter().filter(|port| !covered.contains(&Some(port.container_port)))
                {
                    let mut target = pod_labels(builder, &pod);
                    target.insert(ADDRESS.to_owned(), host_port(&pod.status.pod_ip, port.container_port));
                    add_container(&mut target, container, is_init);
                    add_container_port(&mut target, port, &port.protocol);
                    targets.push(target);
                }
            }
        }
        targets
    }
}
