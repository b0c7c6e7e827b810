//! How objects become meta labels: the prefix, and the labels every object has in common.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config>.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) use crate::discovery::naming::{host_port, sanitize};

/// Labels by name.
pub(super) type LabelSet = BTreeMap<String, String>;

/// What every label of this discovery begins with.
const PREFIX: &str = "__meta_kubernetes_";
/// The address to scrape.
pub(super) const ADDRESS: &str = "__address__";

/// Sets `__meta_kubernetes_NAME`.
pub(super) fn set(labels: &mut LabelSet, name: &str, value: impl Into<String>) {
    labels.insert(format!("{PREFIX}{name}"), value.into());
}

/// Sets `__meta_kubernetes_NAME` when there is a value.
pub(super) fn set_some<V: Into<String>>(labels: &mut LabelSet, name: &str, value: Option<V>) {
    if let Some(value) = value {
        set(labels, name, value);
    }
}

/// Name, labels and annotations of an object, under the name of its role.
pub(super) fn add_object(labels: &mut LabelSet, meta: &ObjectMeta, role: &str) {
    set(labels, &format!("{role}_name"), meta.name.as_deref().unwrap_or_default());
    add_labels_and_annotations(labels, meta, role);
}

/// Labels and annotations of an object, each with its value and a marker that it is there.
pub(super) fn add_labels_and_annotations(labels: &mut LabelSet, meta: &ObjectMeta, role: &str) {
    for (what, entries) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
        for (name, value) in entries.iter().flatten() {
            let name = sanitize(name);
            set(labels, &format!("{role}_{what}_{name}"), value.as_str());
            set(labels, &format!("{role}_{what}present_{name}"), "true");
        }
    }
}
