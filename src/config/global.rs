//! `global`, `runtime`, `storage`, `tracing`, `otlp`: the sections that stand once in the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::http::{RESERVED_HEADERS, Tls, join};
use super::scalar::{Bytes, Ms, whole};
use super::scrape::{PROTO_FIRST_PROTOCOLS, check_protocols, check_validation_scheme, name_validation};
use super::yaml::Problem;

/// `global`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Global {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_interval: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_timeout: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_protocols: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_interval: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_query_offset: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_log_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_failure_log_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub external_labels: BTreeMap<String, Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_size_limit: Option<Bytes>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub sample_limit: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub series_soft_limit: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub series_soft_limit_reserve: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub server_series_soft_limit: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub server_series_soft_limit_reserve: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub target_limit: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub label_limit: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub label_name_length_limit: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub label_value_length_limit: Option<u64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub keep_dropped_targets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_name_validation_scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_name_escaping_scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_native_histograms: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert_classic_histograms_to_nhcb: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_scrape_classic_histograms: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_scrape_metrics: Option<bool>,
}

/// Defaults that features of the command line change.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeatureDefaults {
    /// Ask for protobuf first.
    pub protobuf_first: bool,
    /// Write the extra series about scrapes.
    pub extra_scrape_metrics: bool,
}

impl FeatureDefaults {
    /// Writes them where the section says nothing.
    pub fn apply(&self, global: &mut Global) {
        if self.protobuf_first && global.scrape_protocols.is_none() {
            global.scrape_protocols = Some(PROTO_FIRST_PROTOCOLS.map(str::to_owned).to_vec());
        }
        if self.extra_scrape_metrics {
            global.extra_scrape_metrics.get_or_insert(true);
        }
    }
}

impl Global {
    /// Interval of jobs that name none.
    pub fn interval(&self) -> Ms {
        self.scrape_interval.unwrap_or(Ms(60_000))
    }

    /// Timeout of jobs that name none.
    pub fn timeout(&self) -> Ms {
        self.scrape_timeout.unwrap_or(Ms(10_000).min(self.interval()))
    }

    /// Interval of rule groups that name none.
    pub fn evaluation(&self) -> Ms {
        self.evaluation_interval.unwrap_or(Ms(60_000))
    }

    /// External labels, sorted by name.
    pub fn external_labels(&self) -> model::Labels {
        model::Labels::from_pairs(self.external_labels.iter().map(|(n, v)| (n, v.as_deref().unwrap_or(""))))
    }

    /// Fills defaults, checks, expands environment variables in external labels with `env`, and makes file names relative to `dir`.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn finish(&mut self, dir: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(), Problem> {
        self.scrape_interval = Some(self.scrape_interval.filter(|i| i.0 > 0).unwrap_or(Ms(60_000)));
        if self.scrape_timeout.is_some_and(|t| t > self.interval()) {
            return Err(Problem::new("global scrape timeout greater than scrape interval"));
        }
        self.scrape_timeout =
            Some(self.scrape_timeout.filter(|t| t.0 > 0).unwrap_or(Ms(10_000).min(self.interval())));
        self.evaluation_interval = Some(self.evaluation_interval.filter(|i| i.0 > 0).unwrap_or(Ms(60_000)));
        if let Some(p) = &self.scrape_protocols {
            check_protocols(p).map_err(|e| Problem::new(format!("{e} for global config")))?;
        }
        let scheme = self.metric_name_validation_scheme.get_or_insert_with(|| "utf8".into());
        check_validation_scheme(scheme)?;
        let names = name_validation(Some(scheme));
        for (name, value) in &mut self.external_labels {
            if !names.is_label_name(name) {
                return Err(Problem::new(format!("{name:?} is not a valid label name")));
            }
            if let Some(v) = value {
                *v = expand_env(v, env);
            }
        }
        join(dir, &mut self.query_log_file);
        join(dir, &mut self.scrape_failure_log_file);
        Ok(())
    }
}

/// `$NAME`, `${NAME}` and `$$`; an unset variable is empty.
fn expand_env(text: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(i) = rest.find('$') {
        out.push_str(&rest[..i]);
        rest = &rest[i + 1..];
        let (name, tail) = if let Some(t) = rest.strip_prefix('$') {
            out.push('$');
            rest = t;
            continue;
        } else if let Some((name, tail)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            (name, tail)
        } else {
            let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            rest.split_at(len)
        };
        if name.is_empty() {
            out.push('$');
        } else {
            let value = env(name).unwrap_or_default();
            if value.is_empty() {
                tracing::warn!(name, "Empty environment variable");
            }
            out.push_str(&value);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// `runtime`: settings of Go's runtime. Accepted, so that files can be shared, and without effect here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub gogc: Option<i64>,
}

/// `storage`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tsdb: Option<Tsdb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exemplars: Option<Exemplars>,
}

/// `storage.tsdb`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tsdb {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_order_time_window: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_series_compaction_threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_encoding: Option<ChunkEncoding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// `storage.tsdb.chunk_encoding`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChunkEncoding {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floats: Option<String>,
}

/// `storage.tsdb.retention`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<f64>,
}

/// `storage.exemplars`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exemplars {
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub max_exemplars: Option<i64>,
}

impl Storage {
    /// # Errors
    /// The first value out of its range.
    pub fn check(&self) -> Result<(), Problem> {
        let Some(tsdb) = &self.tsdb else { return Ok(()) };
        if let Some(p) = tsdb.retention.as_ref().and_then(|r| r.percentage)
            && !(0.0..=100.0).contains(&p)
        {
            return Err(Problem::new(format!(
                "'storage.tsdb.retention.percentage' must be in the range [0, 100], got {p}"
            )));
        }
        match tsdb.chunk_encoding.as_ref().and_then(|c| c.floats.as_deref()) {
            None | Some("" | "xor" | "xor2") => Ok(()),
            Some(other) => Err(Problem::new(format!(
                "'storage.tsdb.chunk_encoding.floats' must be 'xor' or 'xor2', or the field must be omitted entirely, got {other:?}"
            ))),
        }
    }
}

/// `tracing`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_type: Option<String>,
    pub endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Ms>,
}

impl Tracing {
    /// Checks, and makes file names relative to `dir`.
    ///
    /// # Errors
    /// The first value that is not accepted.
    pub fn finish(&mut self, dir: &Path) -> Result<(), Problem> {
        let bad = |text: String| Err(Problem::new(text));
        if let Some(tls) = &mut self.tls_config {
            tls.finish(dir).map_err(Problem::new)?;
        }
        match self.client_type.as_deref() {
            None | Some("http" | "grpc") => {}
            Some(t) => return bad(format!("expected tracing client type to be http or grpc, but got {t}")),
        }
        for (h, _) in self.headers.iter().flatten() {
            let lower = h.to_ascii_lowercase();
            if lower == "authorization" {
                return bad("custom authorization header configuration is not yet supported".into());
            }
            if RESERVED_HEADERS.contains(&lower.as_str()) {
                return bad(format!("{h} is a reserved header. It must not be changed"));
            }
        }
        if self.endpoint.is_empty() {
            return bad("tracing endpoint must be set".into());
        }
        match self.compression.as_deref() {
            None | Some("" | "gzip") => Ok(()),
            Some(c) => bad(format!("invalid compression type {c} provided, valid options: gzip")),
        }
    }
}

/// `otlp`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_all_resource_attributes: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_resource_attributes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_resource_attributes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translation_strategy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_identifying_resource_attributes: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert_histograms_to_nhcb: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_scope_metadata: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_name_underscore_sanitization: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_name_preserve_multiple_underscores: Option<bool>,
}

impl Otlp {
    /// What the receiver is told. An empty strategy is none: it leaves names as they are.
    pub fn settings(&self) -> wire::otlp::Settings {
        let strategy = self.translation_strategy.as_deref().unwrap_or("UnderscoreEscapingWithSuffixes");
        let default = wire::otlp::Settings::default();
        let set = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect();
        let on = |option: Option<bool>, default: bool| option.unwrap_or(default);
        wire::otlp::Settings {
            suffixes: strategy.ends_with("WithSuffixes"),
            utf8: !strategy.starts_with("UnderscoreEscaping"),
            promote: if self.promote_all_resource_attributes == Some(true) {
                wire::otlp::Promote::AllBut(set(&self.ignore_resource_attributes))
            } else {
                wire::otlp::Promote::Only(set(&self.promote_resource_attributes))
            },
            keep_identifying_resource_attributes: on(self.keep_identifying_resource_attributes, false),
            convert_histograms_to_nhcb: on(self.convert_histograms_to_nhcb, false),
            promote_scope_metadata: on(self.promote_scope_metadata, false),
            label_name_underscore_sanitization: on(
                self.label_name_underscore_sanitization,
                default.label_name_underscore_sanitization,
            ),
            label_name_preserve_multiple_underscores: on(
                self.label_name_preserve_multiple_underscores,
                default.label_name_preserve_multiple_underscores,
            ),
            ..default
        }
    }

    /// # Errors
    /// The first contradiction, within the section or with `global`.
    pub fn finish(&mut self, global: &Global) -> Result<(), Problem> {
        let bad = |text: String| Err(Problem::new(text));
        let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
        if self.promote_all_resource_attributes == Some(true) {
            if has(&self.promote_resource_attributes) {
                return bad("'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured simultaneously".into());
            }
            trim(&mut self.ignore_resource_attributes, "ignored", "ignore_resource_attributes")?;
        } else {
            if has(&self.ignore_resource_attributes) {
                return bad("'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true".into());
            }
            trim(&mut self.promote_resource_attributes, "promoted", "promote_resource_attributes")?;
        }
        let legacy = global.metric_name_validation_scheme.as_deref() == Some("legacy");
        match self.translation_strategy.as_deref() {
            None | Some("" | "UnderscoreEscapingWithSuffixes" | "UnderscoreEscapingWithoutSuffixes") => {
                Ok(())
            }
            Some(s @ ("NoTranslation" | "NoUTF8EscapingWithSuffixes")) if legacy => {
                bad(format!("OTLP translation strategy {s:?} is not allowed when UTF8 is disabled"))
            }
            Some("NoTranslation" | "NoUTF8EscapingWithSuffixes") => Ok(()),
            Some(s) => bad(format!("unsupported OTLP translation strategy {s:?}")),
        }
    }
}

fn trim(list: &mut Option<Vec<String>>, adjective: &str, field: &str) -> Result<(), Problem> {
    let Some(list) = list else { return Ok(()) };
    for i in 0..list.len() {
        let trimmed = list[i].trim().to_owned();
        if trimmed.is_empty() {
            return Err(Problem::new(format!("invalid '{field}': empty {adjective} resource attribute")));
        }
        if list[..i].contains(&trimmed) {
            return Err(Problem::new(format!(
                "invalid '{field}': duplicated {adjective} resource attribute {trimmed:?}"
            )));
        }
        list[i] = trimmed;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_expanded_in_external_labels() {
        let env = |n: &str| (n == "A").then(|| "1".to_owned());
        for (text, expect) in [("x$A", "x1"), ("${A}y", "1y"), ("$$A", "$A"), ("$B|", "|"), ("a$", "a$")] {
            assert_eq!(expand_env(text, &env), expect, "{text}");
        }
    }
}
