//! Role `endpointslice`: a target for each address and port of each slice, joined with its service, and with its pod
//! where there is one; also for the other ports of those pods.

use super::backing_pods::BackingPods;
use super::meta_labels::{ADDRESS, LabelSet, add_object, host_port, sanitize, set, set_some};
use super::object::{Endpoint, EndpointSlice, Kind, Service, SlicePort, namespaced};
use super::roles::{Builder, Built};
use super::service::service_labels;

/// Label of a slice that names its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The group of a slice.
pub(super) fn build(builder: &mut Builder<'_>, key: &str) -> Option<Built> {
    let slice = builder.stores.endpoint_slices.get(key)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let mut labels = LabelSet::new();
    set(&mut labels, "namespace", namespace);
    set(&mut labels, "endpointslice_address_type", slice.address_type.as_str());
    add_object(&mut labels, &slice.metadata, "endpointslice");
    let service = slice.metadata.labels.iter().flatten().find(|(name, _)| *name == SERVICE_NAME_LABEL);
    let service = service.and_then(|(_, name)| {
        let key = namespaced(namespace, name);
        builder.depend(Kind::Service, &key);
        builder.stores.services.get(&key)
    });
    if let Some(service) = &service {
        labels.extend(service_labels(service));
    }
    builder.add_namespace(&mut labels, namespace);
    let mut targets = Vec::new();
    if service.is_some_and(|service| is_secondary_family(&service, &slice)) {
        return Some(Built { labels, targets });
    }
    let mut pods = BackingPods::default();
    for endpoint in &slice.endpoints {
        for port in &slice.ports {
            for address in &endpoint.addresses {
                let mut target = endpoint_labels(address, endpoint, port);
                add_node(builder, &mut target, endpoint);
                pods.add_labels(builder, &mut target, endpoint.target_ref.as_ref(), port.port, None);
                targets.push(target);
            }
        }
    }
    targets.extend(pods.uncovered(builder));
    Some(Built { labels, targets })
}

/// Whether a dual-stack service has these endpoints in another slice too, of its first address family.
fn is_secondary_family(service: &Service, slice: &EndpointSlice) -> bool {
    let dual = matches!(service.spec.ip_family_policy.as_str(), "PreferDualStack" | "RequireDualStack");
    dual && service.spec.ip_families.first().is_some_and(|primary| *primary != slice.address_type)
}

fn endpoint_labels(address: &str, endpoint: &Endpoint, port: &SlicePort) -> LabelSet {
    let mut target = LabelSet::new();
    let with_port = port.port.map(|port| host_port(address, port));
    target.insert(ADDRESS.to_owned(), with_port.unwrap_or_else(|| address.to_owned()));
    set_some(&mut target, "endpointslice_port_name", port.name.as_deref());
    set_some(&mut target, "endpointslice_port_protocol", port.protocol.as_deref());
    set_some(&mut target, "endpointslice_port", port.port.map(|port| port.to_string()));
    set_some(&mut target, "endpointslice_port_app_protocol", port.app_protocol.as_deref());
    let conditions = &endpoint.conditions;
    for (name, condition) in [
        ("ready", conditions.ready),
        ("serving", conditions.serving),
        ("terminating", conditions.terminating),
    ] {
        let name = format!("endpointslice_endpoint_conditions_{name}");
        set_some(&mut target, &name, condition.map(|is| is.to_string()));
    }
    set_some(&mut target, "endpointslice_endpoint_hostname", endpoint.hostname.as_deref());
    if let Some(reference) = &endpoint.target_ref {
        set(&mut target, "endpointslice_address_target_kind", reference.kind.as_str());
        set(&mut target, "endpointslice_address_target_name", reference.name.as_str());
    }
    set_some(&mut target, "endpointslice_endpoint_node_name", endpoint.node_name.as_deref());
    set_some(&mut target, "endpointslice_endpoint_zone", endpoint.zone.as_deref());
    for (name, value) in &endpoint.deprecated_topology {
        let name = sanitize(name);
        set(&mut target, &format!("endpointslice_endpoint_topology_{name}"), value.as_str());
        set(&mut target, &format!("endpointslice_endpoint_topology_present_{name}"), "true");
    }
    target
}

fn add_node(builder: &mut Builder<'_>, target: &mut LabelSet, endpoint: &Endpoint) {
    if !builder.attach.node {
        return;
    }
    match &endpoint.target_ref {
        Some(reference) if reference.kind == "Node" => builder.add_node(target, &reference.name),
        _ => endpoint.node_name.as_ref().is_some_and(|node| builder.add_node(target, node)),
    };
}
