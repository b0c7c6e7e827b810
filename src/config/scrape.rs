//! `scrape_configs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::relabel::NameValidation;
use serde::Deserialize;

use super::discovery::discovery_section;
use super::global::Global;
use super::http::join;
use super::relabel::{self, Relabel};
use super::scalar::{Bytes, Ms, present, whole};
use super::yaml::{At, Problem};

discovery_section! {
    /// One job. After [`Scrape::finish`] every setting has its value, inherited or default.
    pub struct Scrape {
        pub job_name: Option<At<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub honor_labels: Option<bool>,
        #[serde(deserialize_with = "present")]
        pub honor_timestamps: Option<bool>,
        pub track_timestamps_staleness: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub params: Option<BTreeMap<String, Vec<String>>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scrape_interval: Option<Ms>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scrape_timeout: Option<Ms>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scrape_protocols: Option<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub fallback_scrape_protocol: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scrape_native_histograms: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub always_scrape_classic_histograms: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub convert_classic_histograms_to_nhcb: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scrape_failure_log_file: Option<PathBuf>,
        #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        pub metrics_path: Option<String>,
        #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        pub scheme: Option<String>,
        #[serde(deserialize_with = "present")]
        pub enable_compression: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub body_size_limit: Option<Bytes>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub sample_limit: Option<u64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub series_soft_limit: Option<u64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub series_soft_limit_reserve: Option<u64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub target_limit: Option<u64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub label_limit: Option<u64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub label_name_length_limit: Option<u64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub label_value_length_limit: Option<u64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub native_histogram_bucket_limit: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub native_histogram_min_bucket_factor: Option<f64>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub keep_dropped_targets: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub metric_name_validation_scheme: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub metric_name_escaping_scheme: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub extra_scrape_metrics: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub relabel_configs: Option<Vec<At<Relabel>>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub metric_relabel_configs: Option<Vec<At<Relabel>>>,
    }
}

/// A file named by `scrape_config_files`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrapeFile {
    pub scrape_configs: Vec<At<Scrape>>,
}

/// Names of the formats, in the order Prometheus asks for them.
pub const DEFAULT_PROTOCOLS: [&str; 4] =
    ["OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText1.0.0", "PrometheusText0.0.4"];
/// The same with native histograms on.
pub const PROTO_FIRST_PROTOCOLS: [&str; 5] = [
    "PrometheusProto",
    "OpenMetricsText1.0.0",
    "OpenMetricsText0.0.1",
    "PrometheusText1.0.0",
    "PrometheusText0.0.4",
];
const ESCAPINGS: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

/// # Errors
/// When the list is empty, names a format nobody knows, or one twice.
pub fn check_protocols(list: &[String]) -> Result<(), String> {
    if list.is_empty() {
        return Err("scrape_protocols cannot be empty".into());
    }
    for (i, p) in list.iter().enumerate() {
        if list[..i].iter().any(|o| o.eq_ignore_ascii_case(p)) {
            return Err(format!("duplicated protocol in scrape_protocols, got [{}]", list.join(" ")));
        }
        check_protocol(p).map_err(|e| format!("scrape_protocols: {e}"))?;
    }
    Ok(())
}

fn check_protocol(p: &str) -> Result<(), String> {
    if PROTO_FIRST_PROTOCOLS.contains(&p) {
        return Ok(());
    }
    let mut known = PROTO_FIRST_PROTOCOLS;
    known.sort_unstable();
    Err(format!("unknown scrape protocol {p}, supported: [{}]", known.join(" ")))
}

impl Scrape {
    /// The job's name; empty when it has none.
    pub fn job(&self) -> &str {
        self.job_name.as_ref().map_or("", |j| j.value.as_str())
    }

    /// Fills every setting from `global` or its default, checks what excludes what, and makes file names relative to
    /// `dir`.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn finish(&mut self, global: &Global, dir: &Path) -> Result<(), Problem> {
        if self.job().is_empty() {
            return Err(Problem::new("job_name is empty"));
        }
        self.inherit(global)?;
        self.names(global)?;
        self.http().finish(dir, true)?;
        join(dir, &mut self.scrape_failure_log_file);
        let has_relabeling = self.relabel_configs.as_ref().is_some_and(|r| !r.is_empty());
        self.discovery().finish(dir, has_relabeling)?;
        match super::convert::scrape_config(self) {
            Err(p) if !p.not_built_in => Err(p),
            _ => Ok(()),
        }
    }

    /// Checked rules of one of the job's lists.
    ///
    /// # Errors
    /// The first rule that contradicts itself.
    pub fn rules(
        &self,
        list: Option<&Vec<At<Relabel>>>,
    ) -> Result<Vec<model::relabel::RelabelRule>, Problem> {
        relabel::rules(list.map_or(&[], Vec::as_slice), self.name_validation())
    }

    /// Which names are valid in this job.
    pub fn name_validation(&self) -> NameValidation {
        name_validation(self.metric_name_validation_scheme.as_deref())
    }

    fn inherit(&mut self, global: &Global) -> Result<(), Problem> {
        self.scrape_timeout = self.scrape_timeout.filter(|t| t.0 > 0);
        let interval = self.scrape_interval.filter(|i| i.0 > 0).unwrap_or(global.interval());
        self.scrape_interval = Some(interval);
        if self.scrape_timeout.is_some_and(|t| t > interval) {
            return Err(Problem::new(format!(
                "scrape timeout greater than scrape interval for scrape config with job name {:?}",
                self.job()
            )));
        }
        self.scrape_timeout.get_or_insert(global.timeout().min(interval));
        self.honor_timestamps.get_or_insert(true);
        self.track_timestamps_staleness.get_or_insert(false);
        self.enable_compression.get_or_insert(true);
        self.metrics_path.get_or_insert_with(|| "/metrics".into());
        self.scheme.get_or_insert_with(|| "http".into());
        inherit(&mut self.body_size_limit, global.body_size_limit);
        inherit(&mut self.sample_limit, global.sample_limit);
        inherit(&mut self.series_soft_limit, global.series_soft_limit);
        inherit(&mut self.series_soft_limit_reserve, global.series_soft_limit_reserve);
        inherit(&mut self.target_limit, global.target_limit);
        inherit(&mut self.label_limit, global.label_limit);
        inherit(&mut self.label_name_length_limit, global.label_name_length_limit);
        inherit(&mut self.label_value_length_limit, global.label_value_length_limit);
        inherit(&mut self.keep_dropped_targets, global.keep_dropped_targets);
        inherit(&mut self.scrape_failure_log_file, global.scrape_failure_log_file.clone());
        let native =
            *self.scrape_native_histograms.get_or_insert(global.scrape_native_histograms.unwrap_or(false));
        self.extra_scrape_metrics.get_or_insert(global.extra_scrape_metrics.unwrap_or(false));
        self.convert_classic_histograms_to_nhcb
            .get_or_insert(global.convert_classic_histograms_to_nhcb.unwrap_or(false));
        self.always_scrape_classic_histograms
            .get_or_insert(global.always_scrape_classic_histograms.unwrap_or(false));
        let default: &[&str] = if native { &PROTO_FIRST_PROTOCOLS } else { &DEFAULT_PROTOCOLS };
        let protocols = self.scrape_protocols.get_or_insert_with(|| {
            global
                .scrape_protocols
                .clone()
                .unwrap_or_else(|| default.iter().map(|s| (*s).to_owned()).collect())
        });
        let named =
            |e: String, job: &str| Problem::new(format!("{e} for scrape config with job name {job:?}"));
        check_protocols(protocols).map_err(|e| named(e, self.job()))?;
        self.fallback_scrape_protocol = self.fallback_scrape_protocol.take().filter(|p| !p.is_empty());
        if let Some(p) = &self.fallback_scrape_protocol {
            check_protocol(p)
                .map_err(|e| named(format!("invalid fallback_scrape_protocol: {e}"), self.job()))?;
        }
        Ok(())
    }

    fn names(&mut self, global: &Global) -> Result<(), Problem> {
        let global_validation = global.metric_name_validation_scheme.as_deref().unwrap_or("utf8");
        let global_escaping = match global.metric_name_escaping_scheme.as_deref().unwrap_or("") {
            "" if global_validation == "legacy" => "underscores",
            "" => "allow-utf-8",
            e if ESCAPINGS.contains(&e) => e,
            e => return Err(unknown_escaping("global", e)),
        };
        let own = self.metric_name_validation_scheme.clone().filter(|s| !s.is_empty());
        let validation = own.clone().unwrap_or_else(|| global_validation.to_owned());
        check_validation_scheme(&validation)?;
        let escaping = match self.metric_name_escaping_scheme.clone().filter(|s| !s.is_empty()) {
            Some(e) => e,
            None if own.is_none() => global_escaping.to_owned(),
            None if validation == "legacy" => "underscores".into(),
            None => "allow-utf-8".into(),
        };
        if !ESCAPINGS.contains(&escaping.as_str()) {
            return Err(unknown_escaping("scrape config", &escaping));
        }
        if escaping == "allow-utf-8" && validation != "utf8" {
            return Err(Problem::new("utf8 metric names requested but validation scheme is not set to UTF8"));
        }
        self.metric_name_validation_scheme = Some(validation);
        self.metric_name_escaping_scheme = Some(escaping);
        Ok(())
    }
}

/// Zero and absent both mean "as the global section says".
fn inherit<T: PartialEq + Default>(own: &mut Option<T>, global: Option<T>) {
    if own.as_ref().is_none_or(|v| *v == T::default()) {
        *own = global;
    }
}

fn unknown_escaping(whose: &str, got: &str) -> Problem {
    Problem::new(format!(
        "unknown {whose} name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got {got:?}"
    ))
}

/// # Errors
/// When the scheme is neither `legacy` nor `utf8`.
pub fn check_validation_scheme(scheme: &str) -> Result<(), Problem> {
    match scheme {
        "legacy" | "utf8" => Ok(()),
        other => Err(Problem::new(format!(
            "unknown name validation method specified, must be either '', 'legacy' or 'utf8', got {other}"
        ))),
    }
}

/// Which names a scheme allows.
pub fn name_validation(scheme: Option<&str>) -> NameValidation {
    if scheme == Some("legacy") { NameValidation::Legacy } else { NameValidation::Utf8 }
}
