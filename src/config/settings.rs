//! What a checked file asks the program to run, in the crates' own settings.

use std::path::PathBuf;
use std::time::Duration;

use federation::config::{Protocol, QueueConfig, RemoteReadConfig, SenderConfig};
use federation::http as fed;
use model::relabel::RelabelRule;
use model::{Labels, Matcher};
use rules::notifier::AlertmanagerConfig;
use scraper::discovery::DiscoveryConfig;
use scraper::{ScrapeConfig, ServerLimit};

use super::http::HttpClient;
use super::relabel::Relabel;
use super::remote::{Alertmanager, RemoteRead, RemoteWrite};
use super::scalar::Ms;
use super::yaml::{At, ConfigError, Problem};
use super::{Config, convert};

/// Everything a scraper node takes from its file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Jobs in the order of the file.
    pub jobs: Vec<ScrapeConfig>,
    /// Soft limit of series of all jobs together.
    pub server_limit: ServerLimit,
    /// Labels added to what leaves the node.
    pub external_labels: Labels,
    /// The long-term node, if one is named.
    pub longterm: Option<Longterm>,
    /// Plain remote-write destinations. `positions_dir` is filled in by whoever starts them.
    pub remote_write: Vec<SenderConfig>,
    /// Remote stores that queries ask as well.
    pub remote_read: Vec<RemoteStore>,
    /// Retention and other settings of the local storage that the file may give.
    pub retention: super::global::Retention,
    /// How late samples may be.
    pub out_of_order_window_ms: i64,
    /// Encoding of chunks of floats, when the file names one.
    pub float_encoding: Option<tsdb::FloatEncoding>,
    /// Patterns of rule files.
    pub rule_files: Vec<PathBuf>,
    /// What rule files inherit.
    pub rule_defaults: super::rules::Defaults,
    /// Where alerts go.
    pub alerting: Alerting,
    /// How OTLP metrics are translated.
    pub otlp: wire::otlp::Settings,
    /// Exemplars to keep.
    pub exemplars_max: Option<usize>,
    /// Where spans go, if anywhere.
    pub tracing: Option<spans::SpansConfig>,
    /// File that queries are logged to.
    pub query_log_file: Option<PathBuf>,
    /// What the file asks for that has no effect here; said in the log.
    pub notes: Vec<String>,
}

/// A remote store and when it is asked.
#[derive(Clone, Debug)]
pub struct RemoteStore {
    /// How it is reached.
    pub config: RemoteReadConfig,
    /// Labels that its series have and local ones do not.
    pub external_labels: Labels,
    /// It is asked only when a query has all these as equality matchers.
    pub required_matchers: Vec<(String, String)>,
    /// Whether it is also asked for recent data.
    pub read_recent: bool,
}

/// Where alerts go.
#[derive(Clone, Debug, Default)]
pub struct Alerting {
    /// Rules for all alerts.
    pub relabel: Vec<RelabelRule>,
    /// Sets of Alertmanagers, with what finds them.
    pub sets: Vec<(AlertmanagerConfig, Vec<DiscoveryConfig>)>,
}

/// The long-term node of a scraper node.
#[derive(Clone, Debug)]
pub struct Longterm {
    /// Base URL without a slash at its end.
    pub url: String,
    /// A series is sent when any of these sets matches it.
    pub matchers: Vec<Vec<Matcher>>,
    /// The external label that tells this node from its replica, when it has one.
    pub replica_label: Option<String>,
}

/// Name of the replica label, when none is given.
const DEFAULT_REPLICA_LABEL: &str = "__replica__";

impl Settings {
    /// The groups of all rule files.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line and column.
    pub fn rule_groups(
        &self,
        parser: promql::parser::ParserOptions,
    ) -> Result<Vec<rules::GroupConfig>, ConfigError> {
        let defaults = super::rules::Defaults { parser, ..self.rule_defaults.clone() };
        let mut groups = Vec::new();
        for pattern in &self.rule_files {
            for file in super::matching_files(pattern)? {
                groups.extend(super::rules::load(&file, &defaults)?);
            }
        }
        Ok(groups)
    }
}

impl Config {
    /// The settings to run this file with.
    ///
    /// # Errors
    /// Names the first thing that is valid but not built in.
    pub fn settings(&self) -> Result<Settings, Problem> {
        let jobs = self.scrape_configs.iter().flatten();
        let jobs = jobs
            .map(|j| convert::scrape_config(j).map_err(|p| p.or_at(j.position)))
            .collect::<Result<Vec<_>, _>>()?;
        let external_labels = self.global().external_labels();
        let longterm = self.longterm.as_ref().map(|l| -> Result<_, Problem> {
            let url =
                l.url.as_ref().map(|u| u.0.as_str().trim_end_matches('/').to_owned()).unwrap_or_default();
            let replica_label = replica_label(l.replica_label.as_deref(), &external_labels);
            Ok(Longterm { url, matchers: l.matchers()?, replica_label })
        });
        let writes = self.remote_write.iter().flatten();
        let remote_write = writes.map(|w| {
            let names =
                super::scrape::name_validation(self.global().metric_name_validation_scheme.as_deref());
            sender(&w.value, &external_labels, names).map_err(|p| p.or_at(w.position))
        });
        let alerting = self.alerting()?;
        let storage = self.storage.clone().unwrap_or_default();
        let notes = self.notes();
        let longterm = longterm.transpose()?;
        let global = self.global();
        let server_limit = ServerLimit {
            limit: convert::soft_limit(
                global.server_series_soft_limit,
                global.server_series_soft_limit_reserve,
            ),
            selectors: longterm.as_ref().map_or_else(super::remote::default_matchers, |l| l.matchers.clone()),
        };
        Ok(Settings {
            jobs,
            server_limit,
            longterm,
            remote_write: remote_write.collect::<Result<_, _>>()?,
            remote_read: self.remote_stores(&external_labels)?,
            external_labels,
            alerting,
            rule_files: self.rule_files.clone().unwrap_or_default(),
            rule_defaults: self.rule_defaults(),
            otlp: self.otlp.as_ref().map(super::global::Otlp::settings).unwrap_or_default(),
            out_of_order_window_ms: storage
                .tsdb
                .as_ref()
                .and_then(|t| t.out_of_order_time_window)
                .map_or(0, |w| w.0),
            float_encoding: storage.tsdb.as_ref().and_then(|t| t.chunk_encoding.as_ref()).and_then(
                |c| match c.floats.as_deref() {
                    Some("xor") => Some(tsdb::FloatEncoding::Xor),
                    Some("xor2") => Some(tsdb::FloatEncoding::Xor2),
                    _ => None,
                },
            ),
            retention: storage.tsdb.and_then(|t| t.retention).unwrap_or_default(),
            exemplars_max: storage
                .exemplars
                .and_then(|e| e.max_exemplars)
                .map(|n| usize::try_from(n).unwrap_or(0)),
            tracing: self.tracing.as_ref().map(convert::tracing).transpose()?,
            query_log_file: self.global().query_log_file.clone().filter(|p| !p.as_os_str().is_empty()),
            notes,
        })
    }

    /// What rule files inherit, and expressions with everything that is an experiment.
    pub fn rule_defaults(&self) -> super::rules::Defaults {
        super::rules::Defaults {
            interval: self.global().evaluation(),
            query_offset: self.global().rule_query_offset.unwrap_or_default(),
            names: super::scrape::name_validation(self.global().metric_name_validation_scheme.as_deref()),
            parser: promql::parser::ParserOptions::all(),
        }
    }

    fn remote_stores(&self, external_labels: &Labels) -> Result<Vec<RemoteStore>, Problem> {
        let (mut stores, mut seen) = (Vec::new(), Vec::new());
        for section in self.remote_read.iter().flatten() {
            let text = serde_yaml::to_string(&section.value).unwrap_or_default();
            if seen.contains(&text) {
                let url = section.url.as_ref().map(|u| u.0.to_string()).unwrap_or_default();
                return Err(section.problem(format!(
                    "duplicate remote read configs are not allowed, found duplicate for URL: {url}"
                )));
            }
            seen.push(text);
            let store = remote_store(section, external_labels).map_err(|p| p.or_at(section.position))?;
            stores.push(store);
        }
        Ok(stores)
    }

    fn alerting(&self) -> Result<Alerting, Problem> {
        let Some(alerting) = &self.alerting else { return Ok(Alerting::default()) };
        let names = super::scrape::name_validation(self.global().metric_name_validation_scheme.as_deref());
        let relabel = alert_rules(&alerting.alert_relabel_configs, names)?;
        let sets = alerting.alertmanagers.iter().flatten();
        let sets = sets.map(|am| alertmanagers(am, names).map_err(|p| p.or_at(am.position)));
        Ok(Alerting { relabel, sets: sets.collect::<Result<_, _>>()? })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |present: bool, text: &str| {
            if present {
                notes.push(text.to_owned());
            }
        };
        note(
            self.runtime.as_ref().is_some_and(|r| r.gogc.is_some()),
            "runtime.gogc has no effect: there is no garbage collector",
        );
        notes
    }
}

/// The label that tells replicas apart, when this node has it and shares a cluster with others.
pub fn replica_label(given: Option<&str>, external_labels: &Labels) -> Option<String> {
    let name = given.unwrap_or(DEFAULT_REPLICA_LABEL);
    external_labels.contains(name).then(|| name.to_owned())
}

fn remote_store(r: &RemoteRead, external_labels: &Labels) -> Result<RemoteStore, Problem> {
    let url = r.url.as_ref().map(|u| u.0.to_string()).unwrap_or_default();
    let name = r.name.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| name_of_url(&url));
    let mut own = r.clone();
    let mut config = RemoteReadConfig::new(name, url);
    config.http = http_config(&own.http())?;
    config.http.headers.extend(r.headers.clone().unwrap_or_default());
    if let Some(timeout) = r.remote_timeout {
        config.timeout = Duration::from_millis(u64::try_from(timeout.ms()).unwrap_or(0));
    }
    if let Some(limit) = r.chunked_read_limit {
        config.max_frame_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    }
    Ok(RemoteStore {
        config,
        external_labels: match r.filter_external_labels {
            Some(false) => Labels::empty(),
            _ => external_labels.clone(),
        },
        required_matchers: r.required_matchers.clone().unwrap_or_default().into_iter().collect(),
        read_recent: r.read_recent.unwrap_or(false),
    })
}

/// A name for a URL, the same after a restart.
fn name_of_url(url: &str) -> String {
    format!("{:06x}", Labels::from_pairs([("url", url)]).hash64() >> 40)
}

fn alert_rules(
    list: &Option<Vec<At<Relabel>>>,
    names: model::relabel::NameValidation,
) -> Result<Vec<RelabelRule>, Problem> {
    super::relabel::rules(list.as_deref().unwrap_or_default(), names)
}

fn alertmanagers(
    am: &Alertmanager,
    names: model::relabel::NameValidation,
) -> Result<(AlertmanagerConfig, Vec<DiscoveryConfig>), Problem> {
    am.check_built_in()?;
    if let Some(sigv4) = &am.sigv4 {
        let text = "sigv4 is not built in; use basic_auth, authorization or a signing proxy";
        return Err(Problem { not_built_in: true, ..sigv4.problem(text) });
    }
    let mut own = am.clone();
    let config = AlertmanagerConfig {
        scheme: am.scheme.clone().unwrap_or_default(),
        path_prefix: am.path_prefix.clone().unwrap_or_default(),
        timeout: Duration::from_millis(am.timeout.map_or(0, |t| u64::try_from(t.ms()).unwrap_or(0))),
        http: convert::http_config(&own.http())?,
        relabel: alert_rules(&am.relabel_configs, names)?,
        alert_relabel: alert_rules(&am.alert_relabel_configs, names)?,
    };
    Ok((config, convert::discovery(own.discovery())?))
}

fn sender(
    w: &RemoteWrite,
    external_labels: &Labels,
    names: model::relabel::NameValidation,
) -> Result<SenderConfig, Problem> {
    w.check_built_in()?;
    if w.round_robin_dns == Some(true) {
        return Err(Problem::not_built_in("round_robin_dns is not built in"));
    }
    let url = w.url.as_ref().map(|u| u.0.to_string()).unwrap_or_default();
    let queue = w.queue_config.clone().unwrap_or_default();
    // A name made from the URL stays the same over restarts, and with it the acknowledged position.
    let name = w.name.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| name_of_url(&url));
    let mut own = w.clone();
    let mut http = http_config(&own.http())?;
    http.headers.extend(w.headers.clone().unwrap_or_default());
    let count = |v: Option<i64>| usize::try_from(v.unwrap_or(0)).unwrap_or(0);
    let span = |v: Option<Ms>| Duration::from_millis(v.map_or(0, |m| u64::try_from(m.ms()).unwrap_or(0)));
    let mut config = SenderConfig::new(name, url, "");
    config.write_relabel =
        super::relabel::rules(w.write_relabel_configs.as_deref().unwrap_or_default(), names)?;
    config.external_labels = external_labels.clone();
    config.http = http;
    config.remote_timeout = span(w.remote_timeout);
    config.send_exemplars = w.send_exemplars.unwrap_or(false);
    config.send_native_histograms = w.send_native_histograms.unwrap_or(false);
    config.send_metadata = w.metadata_config.as_ref().and_then(|m| m.send).unwrap_or(true);
    if let Some(interval) = w.metadata_config.as_ref().and_then(|m| m.send_interval).filter(|i| i.0 > 0) {
        config.metadata_interval = span(Some(interval));
    }
    if w.protobuf_message.as_deref() == Some("io.prometheus.write.v2.Request") {
        config.protocol = Protocol::V2;
    }
    config.sample_age_limit = queue.sample_age_limit.filter(|l| l.0 > 0).map(|l| span(Some(l)));
    config.queue = QueueConfig {
        capacity: count(queue.capacity),
        max_shards: count(queue.max_shards),
        min_shards: count(queue.min_shards),
        max_samples_per_send: count(queue.max_samples_per_send),
        batch_send_deadline: span(queue.batch_send_deadline),
        min_backoff: span(queue.min_backoff),
        max_backoff: span(queue.max_backoff),
        ..QueueConfig::default()
    };
    Ok(config)
}

/// Settings of the federation's HTTP client.
///
/// # Errors
/// Names what is not built in.
pub fn http_config(h: &HttpClient<'_>) -> Result<fed::HttpConfig, Problem> {
    Ok(fed::HttpConfig { client: convert::http_config(h)?, headers: Vec::new() })
}
