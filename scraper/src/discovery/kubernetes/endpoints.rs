//! Role `endpoints`: a target for each address and port of each endpoints object, joined with its service, and with
//! its pod where there is one; also for the other ports of those pods. Kubernetes has deprecated these objects.

use super::backing_pods::BackingPods;
use super::meta_labels::{ADDRESS, LabelSet, add_object, host_port, set, set_some};
use super::object::{EndpointAddress, Kind, ServicePort};
use super::roles::{Builder, Built};
use super::service::service_labels;

/// Label that says the API server left addresses out.
const OVER_CAPACITY_LABEL: &str = "endpoints.kubernetes.io/over-capacity";

/// The group of an endpoints object.
pub(super) fn build(builder: &mut Builder<'_>, key: &str) -> Option<Built> {
    let endpoints = builder.stores.endpoints.get(key)?;
    let namespace = endpoints.metadata.namespace.as_deref().unwrap_or_default();
    let mut labels = LabelSet::new();
    set(&mut labels, "namespace", namespace);
    // The service has the same name.
    builder.depend(Kind::Service, key);
    if let Some(service) = builder.stores.services.get(key) {
        labels.extend(service_labels(&service));
    }
    add_object(&mut labels, &endpoints.metadata, "endpoints");
    builder.add_namespace(&mut labels, namespace);
    if endpoints.metadata.labels.iter().flatten().any(|(name, _)| name == OVER_CAPACITY_LABEL) {
        tracing::warn!(
            endpoints = key,
            "more than 1000 addresses, some are left out; use role endpointslice"
        );
    }
    let mut targets = Vec::new();
    let mut pods = BackingPods::default();
    for subset in &endpoints.subsets {
        let ready = subset.addresses.iter().map(|address| (address, "true"));
        let addresses = ready.chain(subset.not_ready_addresses.iter().map(|address| (address, "false")));
        let addresses: Vec<_> = addresses.collect();
        for port in &subset.ports {
            for (address, ready) in &addresses {
                let mut target = address_labels(address, port, ready);
                add_node(builder, &mut target, address);
                let reference = address.target_ref.as_ref();
                pods.add_labels(builder, &mut target, reference, Some(port.port), Some(&port.protocol));
                targets.push(target);
            }
        }
    }
    targets.extend(pods.uncovered(builder));
    Some(Built { labels, targets })
}

fn address_labels(address: &EndpointAddress, port: &ServicePort, ready: &str) -> LabelSet {
    let mut target = LabelSet::new();
    target.insert(ADDRESS.to_owned(), host_port(&address.ip, port.port));
    set(&mut target, "endpoint_port_name", port.name.as_str());
    set(&mut target, "endpoint_port_protocol", port.protocol.as_str());
    set(&mut target, "endpoint_ready", ready);
    if let Some(reference) = &address.target_ref {
        set(&mut target, "endpoint_address_target_kind", reference.kind.as_str());
        set(&mut target, "endpoint_address_target_name", reference.name.as_str());
    }
    set_some(&mut target, "endpoint_node_name", address.node_name.as_deref());
    if !address.hostname.is_empty() {
        set(&mut target, "endpoint_hostname", address.hostname.as_str());
    }
    target
}

fn add_node(builder: &mut Builder<'_>, target: &mut LabelSet, address: &EndpointAddress) {
    if !builder.attach.node {
        return;
    }
    if let Some(node) = &address.node_name {
        builder.add_node(target, node);
    } else if let Some(reference) = address.target_ref.as_ref().filter(|reference| reference.kind == "Node") {
        builder.add_node(target, &reference.name);
    }
}
