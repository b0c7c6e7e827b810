//! Plain configuration of scraping: what a `scrape_configs` entry says once defaults and globals are filled in.
//!
//! Reading YAML is the program's task; nothing here knows serde. Checks that need no other section of the file are in
//! [`ScrapeConfig::check`] and [`HttpConfig::check`]. Durations are in milliseconds. A limit of 0 means no limit.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#scrape_config>.

pub use httpclient::{
    Authorization, BasicAuth, ClientConfig as HttpConfig, HttpHeader, Secret, SecretSource, TlsConfig,
};
use std::path::PathBuf;

use model::relabel::{NameValidation, RelabelRule};

use crate::cardinality::SoftLimit;
use crate::discovery::DiscoveryConfig;
use crate::error::ScraperError;

/// One scrape job.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeConfig {
    /// Name of the job, unique, the default of the `job` label.
    pub job_name: String,
    /// Time between two scrapes of a target.
    pub scrape_interval_ms: i64,
    /// A scrape that takes longer fails; not above the interval.
    pub scrape_timeout_ms: i64,
    /// Default of `__metrics_path__`.
    pub metrics_path: String,
    /// Default of `__scheme__`: `http` or `https`.
    pub scheme: String,
    /// Query parameters, each with its values, sorted by name.
    pub params: Vec<(String, Vec<String>)>,
    /// Labels of the scraped series win over those of the target.
    pub honor_labels: bool,
    /// Timestamps of the body count.
    pub honor_timestamps: bool,
    /// Series with timestamps in the body get stale markers too.
    pub track_timestamps_staleness: bool,
    /// Most samples of a scrape after metric relabeling.
    pub sample_limit: usize,
    /// Series of the job from which new ones are refused, and what those that `longterm` selects have beyond it.
    pub series_soft_limit: SoftLimit,
    /// Most bytes of a body, uncompressed.
    pub body_size_limit: u64,
    /// Most labels of a series.
    pub label_limit: usize,
    /// Most bytes of a label name.
    pub label_name_length_limit: usize,
    /// Most bytes of a label value.
    pub label_value_length_limit: usize,
    /// Most buckets of a native histogram.
    pub native_histogram_bucket_limit: usize,
    /// Least growth factor between buckets of a native histogram; 0 for any.
    pub native_histogram_min_bucket_factor: f64,
    /// Most targets of the job after relabeling; above it all its scrapes fail.
    pub target_limit: usize,
    /// Most dropped targets that are remembered to be shown.
    pub keep_dropped_targets: usize,
    /// Rules for discovered targets.
    pub relabel_rules: Vec<RelabelRule>,
    /// Rules for scraped series.
    pub metric_relabel_rules: Vec<RelabelRule>,
    /// How targets are spoken to.
    pub http: HttpConfig,
    /// Ask for gzip.
    pub enable_compression: bool,
    /// Formats to ask for, the most wanted first.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Format of an answer whose `Content-Type` names none that is known.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    /// File that failed scrapes are logged to.
    pub scrape_failure_log_file: Option<PathBuf>,
    /// Take native histograms.
    pub scrape_native_histograms: bool,
    /// Take the classic series of a histogram that is native too.
    pub always_scrape_classic_histograms: bool,
    /// Make native histograms with custom buckets from classic ones.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Names that series may have.
    pub metric_name_validation: NameValidation,
    /// How the target is asked to write names that are not classic.
    pub metric_name_escaping: EscapingScheme,
    /// Write `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` too.
    pub extra_scrape_metrics: bool,
    /// Where targets come from.
    pub discovery: Vec<DiscoveryConfig>,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        Self {
            job_name: String::new(),
            scrape_interval_ms: 60_000,
            scrape_timeout_ms: 10_000,
            metrics_path: "/metrics".into(),
            scheme: "http".into(),
            params: Vec::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            sample_limit: 0,
            series_soft_limit: SoftLimit::default(),
            body_size_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            native_histogram_bucket_limit: 0,
            native_histogram_min_bucket_factor: 0.0,
            target_limit: 0,
            keep_dropped_targets: 0,
            relabel_rules: Vec::new(),
            metric_relabel_rules: Vec::new(),
            http: HttpConfig::default(),
            enable_compression: true,
            scrape_protocols: ScrapeProtocol::DEFAULT.to_vec(),
            fallback_scrape_protocol: None,
            scrape_failure_log_file: None,
            scrape_native_histograms: false,
            always_scrape_classic_histograms: false,
            convert_classic_histograms_to_nhcb: false,
            metric_name_validation: NameValidation::Utf8,
            metric_name_escaping: EscapingScheme::AllowUtf8,
            extra_scrape_metrics: false,
            discovery: Vec::new(),
        }
    }
}

impl ScrapeConfig {
    /// Refuses what contradicts itself or is not built.
    ///
    /// # Errors
    /// [`ScraperError::Config`] with the job, the setting and what to do.
    pub fn check(&self) -> Result<(), ScraperError> {
        let err = |reason: String| ScraperError::Config { job: self.job_name.clone(), reason };
        if self.job_name.is_empty() {
            return Err(err("job_name is empty".into()));
        }
        if self.scrape_interval_ms <= 0 || self.scrape_timeout_ms <= 0 {
            return Err(err("scrape_interval and scrape_timeout must be above 0".into()));
        }
        if self.scrape_timeout_ms > self.scrape_interval_ms {
            return Err(err(format!(
                "scrape timeout greater than scrape interval for scrape config with job name \"{}\"",
                self.job_name
            )));
        }
        if self.scrape_protocols.is_empty() {
            return Err(err("scrape_protocols cannot be empty".into()));
        }
        self.http.check().map_err(err)
    }
}

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// Delimited protobuf.
    PrometheusProto,
    /// OpenMetrics 0.0.1.
    OpenMetricsText0_0_1,
    /// OpenMetrics 1.0.0.
    OpenMetricsText1_0_0,
    /// Text format with UTF-8 names.
    PrometheusText1_0_0,
    /// Text format.
    PrometheusText0_0_4,
}

impl ScrapeProtocol {
    /// What is asked for when nothing is configured.
    pub const DEFAULT: [Self; 4] = [
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The same when protobuf is wanted: for native histograms and start timestamps.
    pub const PROTO_FIRST: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The name in configuration files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
        }
    }

    /// The protocol of a name, case-sensitive.
    ///
    /// # Errors
    /// The list of known names.
    pub fn parse(s: &str) -> Result<Self, String> {
        let all = [
            Self::OpenMetricsText0_0_1,
            Self::OpenMetricsText1_0_0,
            Self::PrometheusProto,
            Self::PrometheusText0_0_4,
            Self::PrometheusText1_0_0,
        ];
        all.into_iter().find(|p| p.as_str() == s).ok_or_else(|| {
            format!("unknown scrape protocol {s}, supported: [{}]", all.map(Self::as_str).join(" "))
        })
    }
}

/// How names that are no classic identifiers come over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum EscapingScheme {
    /// As they are, in quotes.
    #[default]
    AllowUtf8,
    /// Every other character as `_`.
    Underscores,
    /// Dots as `_dot_`, others as `__`.
    Dots,
    /// `U__` and code points.
    Values,
}

impl EscapingScheme {
    /// The name in configuration files and `Accept` headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// The scheme of a name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn parse(s: &str) -> Result<Self, String> {
        [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values]
            .into_iter()
            .find(|p| p.as_str() == s)
            .ok_or_else(|| format!("unknown metric_name_escaping_scheme {s}"))
    }
}
