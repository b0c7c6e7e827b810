//! Role `ingress`: a target for each host and path of each ingress. For black-box monitoring of ingresses.

use super::meta_labels::{ADDRESS, LabelSet, add_object, set, set_some};
use super::object::IngressRule;
use super::roles::{Builder, Built};

/// The group of an ingress.
pub(super) fn build(builder: &mut Builder<'_>, key: &str) -> Option<Built> {
    let ingress = builder.stores.ingresses.get(key)?;
    let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
    let mut labels = LabelSet::new();
    set(&mut labels, "namespace", namespace);
    set_some(&mut labels, "ingress_class_name", ingress.spec.ingress_class_name.as_deref());
    add_object(&mut labels, &ingress.metadata, "ingress");
    builder.add_namespace(&mut labels, namespace);
    let mut targets = Vec::new();
    for rule in &ingress.spec.rules {
        let mut tls_hosts = ingress.spec.tls.iter().flat_map(|tls| &tls.hosts);
        let scheme =
            if tls_hosts.any(|pattern| matches_host(pattern, &rule.host)) { "https" } else { "http" };
        for path in paths(rule) {
            let mut target = LabelSet::new();
            target.insert(ADDRESS.to_owned(), rule.host.clone());
            set(&mut target, "ingress_scheme", scheme);
            set(&mut target, "ingress_host", rule.host.as_str());
            set(&mut target, "ingress_path", path);
            targets.push(target);
        }
    }
    Some(Built { labels, targets })
}

/// The rule's paths; `/` where none is written.
fn paths(rule: &IngressRule) -> Vec<&str> {
    match &rule.http {
        None => vec!["/"],
        Some(http) => http.paths.iter().map(|p| if p.path.is_empty() { "/" } else { &p.path }).collect(),
    }
}

/// Whether `host` is `pattern`, or fits it when its first part is `*`, which stands for exactly one part.
fn matches_host(pattern: &str, host: &str) -> bool {
    if pattern == host {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(pattern), Some((_, host))) => pattern == host,
        _ => pattern == "*" && !host.contains('.'),
    }
}

#[cfg(test)]
mod tests {
    use super::matches_host;

    #[test]
    fn a_wildcard_stands_for_one_part() {
        assert!(matches_host("a.example.com", "a.example.com"));
        assert!(matches_host("*.example.com", "a.example.com"));
        assert!(!matches_host("*.example.com", "a.b.example.com"));
        assert!(!matches_host("*.example.com", "example.com"));
        assert!(!matches_host("a.*.com", "a.example.com"));
        assert!(matches_host("*", "localhost"));
        assert!(!matches_host("*", "a.example.com"));
    }
}
