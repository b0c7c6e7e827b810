//! Role `node`: a target for the kubelet of each node.

use std::collections::BTreeMap;

use super::meta_labels::{ADDRESS, LabelSet, add_object, host_port, sanitize, set};
use super::object::Node;
use super::roles::{Builder, Built};

/// Kinds of addresses, the one to scrape first.
const ADDRESS_ORDER: [&str; 6] =
    ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

/// The group of a node. A node without any known address has no target.
pub(super) fn build(builder: &mut Builder<'_>, key: &str) -> Option<Built> {
    let node = builder.stores.nodes.get(key)?;
    // The first address of each kind counts.
    let mut addresses: BTreeMap<&str, &str> = BTreeMap::new();
    for address in &node.status.addresses {
        addresses.entry(&address.kind).or_insert(&address.address);
    }
    let Some(address) = ADDRESS_ORDER.iter().find_map(|kind| addresses.get(kind)) else {
        tracing::warn!(node = key, "node has no address to scrape");
        return Some(Built::default());
    };
    let mut target = LabelSet::new();
    target.insert(ADDRESS.to_owned(), host_port(address, node.status.daemon_endpoints.kubelet_endpoint.port));
    target.insert("instance".to_owned(), key.to_owned());
    for (kind, address) in addresses {
        set(&mut target, &format!("node_address_{}", sanitize(kind)), address);
    }
    Some(Built { labels: node_labels(&node), targets: vec![target] })
}

fn node_labels(node: &Node) -> LabelSet {
    let mut labels = LabelSet::new();
    set(&mut labels, "node_provider_id", node.spec.provider_id.as_str());
    for condition in &node.status.conditions {
        let name = sanitize(&condition.kind.to_lowercase());
        set(&mut labels, &format!("node_condition_{name}"), condition.status.to_lowercase());
    }
    add_object(&mut labels, &node.metadata, "node");
    labels
}
