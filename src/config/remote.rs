//! `remote_write`, `remote_read`, `alerting` and `longterm`: the sections that name other servers.

use std::collections::BTreeMap;
use std::path::Path;

use model::relabel::NameValidation;
use serde::{Deserialize, Serialize};

use super::discovery::discovery_section;
use super::http::{RESERVED_HEADERS, http_section};
use super::relabel::{self, Relabel};
use super::scalar::{Ms, SelectorText, Url, whole};
use super::yaml::{At, Problem};

/// `longterm`: the long-term node and what goes there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Longterm {
    /// Base URL; the paths for writing, reading and digests follow from it.
    pub url: Option<At<Url>>,
    /// Selectors; a series that passes any of them is sent.
    pub r#match: Option<Vec<At<SelectorText>>>,
    /// Name of the external label that tells the replicas of a pair apart; the long-term node takes it off.
    pub replica_label: Option<String>,
}

/// What is sent when `longterm.match` is not given.
pub const DEFAULT_MATCH: &str = r#"{longterm!=""}"#;

/// The same, parsed.
pub fn default_matchers() -> Vec<Vec<model::Matcher>> {
    vec![promql::parser::parse_selector(DEFAULT_MATCH).expect("a constant selector")]
}

impl Longterm {
    /// Checks and fills defaults.
    ///
    /// # Errors
    /// When there is no URL, or a selector does not parse.
    pub fn finish(&mut self) -> Result<(), Problem> {
        let Some(url) = &self.url else { return Err(Problem::new("url for longterm is empty")) };
        if !["http", "https"].contains(&url.0.scheme()) {
            return Err(url.problem("URL scheme must be 'http' or 'https'"));
        }
        let list =
            self.r#match.get_or_insert_with(|| vec![At { value: DEFAULT_MATCH.into(), ..At::default() }]);
        if list.is_empty() {
            return Err(Problem::new(
                "longterm.match is empty: nothing would be sent; remove the section or name a selector",
            ));
        }
        self.matchers().map(|_| ())
    }

    /// The selectors, parsed.
    ///
    /// # Errors
    /// When one does not parse.
    pub fn matchers(&self) -> Result<Vec<Vec<model::Matcher>>, Problem> {
        let list = self.r#match.iter().flatten();
        list.map(|m| {
            promql::parser::parse_selector(m).map_err(|e| m.problem(format!("selector {:?}: {e}", m.value)))
        })
        .collect()
    }
}

/// `queue_config`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub max_shards: Option<i64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub min_shards: Option<i64>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub max_samples_per_send: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_send_deadline: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_backoff: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on_http_429: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_age_limit: Option<Ms>,
}

impl Queue {
    fn finish(&mut self) -> Result<(), Problem> {
        let positive = |name: &str, value: i64| {
            if value > 0 {
                Ok(value)
            } else {
                Err(Problem::new(format!("remote write queue {name} must be positive")))
            }
        };
        let max = positive("max_shards", *self.max_shards.get_or_insert(50))?;
        let min = positive("min_shards", *self.min_shards.get_or_insert(1))?;
        if min > max {
            return Err(Problem::new("remote write queue min_shards must not be greater than max_shards"));
        }
        positive("max_samples_per_send", *self.max_samples_per_send.get_or_insert(2000))?;
        positive("capacity", *self.capacity.get_or_insert(10_000))?;
        self.batch_send_deadline.get_or_insert(Ms(5_000));
        let min_backoff = *self.min_backoff.get_or_insert(Ms(30));
        if *self.max_backoff.get_or_insert(Ms(5_000)) < min_backoff {
            return Err(Problem::new("remote write queue max_backoff must not be less than min_backoff"));
        }
        Ok(())
    }
}

/// `metadata_config`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetadataSettings {
    pub send: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_interval: Option<Ms>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub max_samples_per_send: Option<i64>,
}

http_section! {
    /// One of `remote_write`.
    pub struct RemoteWrite {
        pub url: Option<Url>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub remote_timeout: Option<Ms>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub headers: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub write_relabel_configs: Option<Vec<At<Relabel>>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub send_exemplars: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub send_native_histograms: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub round_robin_dns: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub protobuf_message: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub failed_request_logging: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub queue_config: Option<Queue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub metadata_config: Option<MetadataSettings>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sigv4: Option<At<super::discovery::NotBuiltIn>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub azuread: Option<At<super::discovery::NotBuiltIn>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub google_iam: Option<At<super::discovery::NotBuiltIn>>,
    }
}

impl RemoteWrite {
    /// Checks, fills defaults, makes file names relative to `dir`.
    ///
    /// # Errors
    /// The first thing that is wrong or not built in.
    pub fn finish(&mut self, dir: &Path, names: NameValidation) -> Result<(), Problem> {
        if self.url.is_none() {
            return Err(Problem::new("url for remote_write is empty"));
        }
        check_headers(self.headers.as_ref())?;
        match self.protobuf_message.get_or_insert_with(|| "prometheus.WriteRequest".into()).as_str() {
            "prometheus.WriteRequest" | "io.prometheus.write.v2.Request" => {}
            other => {
                return Err(Problem::new(format!(
                    "invalid protobuf_message value: unknown type for remote write protobuf message {other}, supported: prometheus.WriteRequest, io.prometheus.write.v2.Request"
                )));
            }
        }
        self.remote_timeout.get_or_insert(Ms(30_000));
        self.queue_config.get_or_insert_default().finish()?;
        self.http().finish(dir, false)?;
        relabel::rules(self.write_relabel_configs.as_deref().unwrap_or_default(), names).map(|_| ())
    }
}

impl RemoteWrite {
    /// # Errors
    /// When a vendor's way to sign requests is asked for.
    pub fn check_built_in(&self) -> Result<(), Problem> {
        for (section, name) in
            [(&self.sigv4, "sigv4"), (&self.azuread, "azuread"), (&self.google_iam, "google_iam")]
        {
            if let Some(s) = section {
                let text =
                    format!("{name} is not built in; use basic_auth, authorization or a signing proxy");
                return Err(Problem { not_built_in: true, ..s.problem(text) });
            }
        }
        Ok(())
    }
}

http_section! {
    /// One of `remote_read`.
    pub struct RemoteRead {
        pub url: Option<Url>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub remote_timeout: Option<Ms>,
        #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
        pub chunked_read_limit: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub headers: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub read_recent: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub required_matchers: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub filter_external_labels: Option<bool>,
    }
}

impl RemoteRead {
    /// Checks, fills defaults, makes file names relative to `dir`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn finish(&mut self, dir: &Path) -> Result<(), Problem> {
        if self.url.is_none() {
            return Err(Problem::new("url for remote_read is empty"));
        }
        check_headers(self.headers.as_ref())?;
        self.remote_timeout.get_or_insert(Ms(60_000));
        self.filter_external_labels.get_or_insert(true);
        self.http().finish(dir, true).map_err(Problem::new)
    }
}

fn check_headers(headers: Option<&BTreeMap<String, String>>) -> Result<(), Problem> {
    for h in headers.into_iter().flatten().map(|(h, _)| h.to_ascii_lowercase()) {
        if h == "authorization" {
            return Err(Problem::new(
                "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or google_iam parameter",
            ));
        }
        if RESERVED_HEADERS.contains(&h.as_str())
            || ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"].contains(&h.as_str())
        {
            return Err(Problem::new(format!("{h} is a reserved header. It must not be changed")));
        }
    }
    Ok(())
}

/// `alerting`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerting {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_relabel_configs: Option<Vec<At<Relabel>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alertmanagers: Option<Vec<At<Alertmanager>>>,
}

discovery_section! {
    /// One of `alerting.alertmanagers`.
    pub struct Alertmanager {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scheme: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub path_prefix: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timeout: Option<Ms>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub api_version: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sigv4: Option<At<super::discovery::NotBuiltIn>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub relabel_configs: Option<Vec<At<Relabel>>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub alert_relabel_configs: Option<Vec<At<Relabel>>>,
    }
}

impl Alerting {
    /// Checks, fills defaults, makes file names relative to `dir`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn finish(&mut self, dir: &Path, names: NameValidation) -> Result<(), Problem> {
        relabel::rules(self.alert_relabel_configs.as_deref().unwrap_or_default(), names)?;
        for am in self.alertmanagers.iter_mut().flatten() {
            let at = am.position;
            am.value.finish(dir, names).map_err(|p| p.or_at(at))?;
        }
        Ok(())
    }
}

impl Alertmanager {
    fn finish(&mut self, dir: &Path, names: NameValidation) -> Result<(), Problem> {
        match self.api_version.get_or_insert_with(|| "v2".into()).as_str() {
            "v2" => {}
            other => {
                return Err(Problem::new(format!(
                    "expected Alertmanager api version to be one of [v2] but got {other}"
                )));
            }
        }
        self.scheme.get_or_insert_with(|| "http".into());
        self.timeout.get_or_insert(Ms(10_000));
        self.http().finish(dir, true)?;
        let has_relabeling = self.relabel_configs.as_ref().is_some_and(|r| !r.is_empty());
        self.discovery().finish(dir, has_relabeling)?;
        relabel::rules(self.relabel_configs.as_deref().unwrap_or_default(), names)?;
        relabel::rules(self.alert_relabel_configs.as_deref().unwrap_or_default(), names).map(|_| ())
    }
}
