//! Role `service`: a target for each port of each service, by its DNS name. For black-box monitoring of services.

use super::meta_labels::{ADDRESS, LabelSet, add_object, host_port, set};
use super::object::Service;
use super::roles::{Builder, Built};

/// The group of a service.
pub(super) fn build(builder: &mut Builder<'_>, key: &str) -> Option<Built> {
    let service = builder.stores.services.get(key)?;
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut labels = service_labels(&service);
    builder.add_namespace(&mut labels, namespace);
    let spec = &service.spec;
    let targets = spec.ports.iter().map(|port| {
        let mut target = LabelSet::new();
        target.insert(ADDRESS.to_owned(), host_port(&format!("{name}.{namespace}.svc"), port.port));
        set(&mut target, "service_port_name", port.name.as_str());
        set(&mut target, "service_port_number", port.port.to_string());
        set(&mut target, "service_port_protocol", port.protocol.as_str());
        set(&mut target, "service_type", spec.kind.as_str());
        if spec.kind == "ExternalName" {
            set(&mut target, "service_external_name", spec.external_name.as_str());
        } else {
            set(&mut target, "service_cluster_ip", spec.cluster_ip.as_str());
        }
        if spec.kind == "LoadBalancer" {
            set(&mut target, "service_loadbalancer_ip", load_balancer_ips(&service));
        }
        target
    });
    Some(Built { labels, targets: targets.collect() })
}

/// Namespace, name, labels and annotations of a service.
pub(super) fn service_labels(service: &Service) -> LabelSet {
    let mut labels = LabelSet::new();
    set(&mut labels, "namespace", service.metadata.namespace.as_deref().unwrap_or_default());
    add_object(&mut labels, &service.metadata, "service");
    labels
}

/// The addresses the load balancer got, joined by commas, else the one that was asked for.
fn load_balancer_ips(service: &Service) -> String {
    let got = service.status.load_balancer.ingress.iter().map(|ingress| ingress.ip.as_str());
    let got: Vec<&str> = got.filter(|ip| !ip.is_empty()).collect();
    if got.is_empty() { service.spec.load_balancer_ip.clone() } else { got.join(",") }
}
