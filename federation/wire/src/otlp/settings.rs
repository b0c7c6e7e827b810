//! How OTLP metrics are translated: the section `otlp` of the configuration, and flags that change it.

use std::collections::HashSet;

/// What a receiver is told. The default is that of a configuration without a section `otlp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Units and types become a part of metric names.
    pub suffixes: bool,
    /// Names of metrics and labels stay as they are.
    pub utf8: bool,
    /// Resource attributes that become labels of every series.
    pub promote: Promote,
    /// `target_info` has the attributes that make up `job` and `instance` too.
    pub keep_identifying_resource_attributes: bool,
    /// Histograms with explicit bounds become native histograms with custom buckets.
    pub convert_histograms_to_nhcb: bool,
    /// Name, version, schema and attributes of the scope become labels.
    pub promote_scope_metadata: bool,
    /// A label whose name begins with one underscore gets `key` before it.
    pub label_name_underscore_sanitization: bool,
    /// Several underscores in a row stay in label names.
    pub label_name_preserve_multiple_underscores: bool,
    /// Deltas are stored as they come.
    pub allow_delta: bool,
    /// Series carry `__type__` and `__unit__`.
    pub type_and_unit_labels: bool,
    /// How far back queries look, which says how often `target_info` must have samples; 0 is five minutes.
    pub lookback_ms: i64,
    /// Most bytes of all labels of a request's series.
    pub max_label_bytes: usize,
}

/// Which resource attributes become labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promote {
    /// These.
    Only(HashSet<String>),
    /// All but these.
    AllBut(HashSet<String>),
}

impl Promote {
    /// Whether an attribute becomes a label.
    #[must_use]
    pub fn has(&self, attribute: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(attribute),
            Self::AllBut(names) => !names.contains(attribute),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            suffixes: true,
            utf8: false,
            promote: Promote::Only(HashSet::new()),
            keep_identifying_resource_attributes: false,
            convert_histograms_to_nhcb: false,
            promote_scope_metadata: false,
            label_name_underscore_sanitization: true,
            label_name_preserve_multiple_underscores: true,
            allow_delta: false,
            type_and_unit_labels: false,
            lookback_ms: 0,
            max_label_bytes: 512 << 20,
        }
    }
}
