//! The command line: Prometheus's flags for the scraper node, and the commands beside it.
//!
//! Flags are spelled and defaulted as in Prometheus 3.14. Durations use its notation (`15d`, `2m`).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::global::FeatureDefaults;
use crate::config::scalar::{Bytes, Ms};

mod longterm;
pub mod tools;

pub use longterm::{
    LongtermAuditFlags, LongtermBackfillFlags, LongtermCommand, LongtermPreviewFlags, LongtermStoreFlags,
    LongtermVerifyFlags,
};
pub use tools::{
    AnalyzeFlags, BackfillCommand, BackfillFlags, BenchCommand, BenchWriteFlags, CheckCommand, DumpFlags,
    DumpFormat, OpenmetricsFlags, PromqlCommand, RuleImportFlags, ServerFlags, TestCommand, TestRulesFlags,
    TestStorageKind, TsdbCommand,
};

/// Metrics scraper and federation tier with long-term retention, compatible with Prometheus.
///
/// Without a command, almanac runs as a scraper node.
#[derive(Parser, Debug)]
#[command(name = "almanac", version = version_text(), args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to run; a scraper node when absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of the scraper node.
    #[command(flatten)]
    pub scraper: ScraperFlags,
}

/// What to run instead of a scraper node.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a long-term node: receives series by remote write and keeps them for a year and more.
    Longterm(Box<LongtermFlags>),
    /// Run a scraper node and a long-term node in one process.
    Standalone(Box<StandaloneFlags>),
    /// Work on PromQL queries.
    Promql {
        /// What to do.
        #[command(subcommand)]
        what: PromqlCommand,
    },
    /// Check files.
    Check {
        /// What to check.
        #[command(subcommand)]
        what: CheckCommand,
    },
    /// Look into data directories and make blocks.
    Tsdb {
        /// What to do.
        #[command(subcommand)]
        what: Box<TsdbCommand>,
    },
    /// Run test scripts.
    Test {
        /// What to run.
        #[command(subcommand)]
        what: TestCommand,
    },
}

/// Flags of a scraper node.
#[derive(Args, Debug, Clone)]
pub struct ScraperFlags {
    /// Prometheus configuration file path.
    #[arg(long = "config.file", default_value = "prometheus.yml")]
    pub config_file: PathBuf,
    /// Whether files are loaded again when they change.
    #[command(flatten)]
    pub auto_reload: AutoReloadFlags,
    /// Base path for metrics storage.
    #[arg(long = "storage.tsdb.path", default_value = "data/")]
    pub tsdb_path: PathBuf,
    /// Flags of the local storage.
    #[command(flatten)]
    pub tsdb: TsdbFlags,
    /// Address to listen on. Repeatable.
    #[arg(long = "web.listen-address", default_value = "0.0.0.0:9090")]
    pub listen: Vec<String>,
    /// Flags of the HTTP server.
    #[command(flatten)]
    pub web: WebFlags,
    /// Flags of queries.
    #[command(flatten)]
    pub query: QueryFlags,
    /// Flags of scraping.
    #[command(flatten)]
    pub scrape: ScrapeFlags,
    /// Flags of alerts.
    #[command(flatten)]
    pub alerts: AlertFlags,
    /// Flags that change nothing.
    #[command(flatten)]
    pub inert: InertFlags,
    /// Flags of features and logging.
    #[command(flatten)]
    pub general: GeneralFlags,
}

/// Flags of a long-term node.
#[derive(Args, Debug, Clone)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LongtermFlags {
    /// Work on what is in the long-term node, or should be, in place of running one.
    #[command(subcommand)]
    pub what: Option<LongtermCommand>,
    /// Base path of the long-term store.
    #[arg(long = "storage.longterm.path", default_value = "data-longterm/")]
    pub path: PathBuf,
    /// What the store keeps.
    #[command(flatten)]
    pub store: LongtermStoreFlags,
    /// Address to listen on. Repeatable.
    #[arg(long = "web.listen-address", default_value = "0.0.0.0:9201")]
    pub listen: Vec<String>,
    /// Flags of the HTTP server.
    #[command(flatten)]
    pub web: WebFlags,
    /// Flags of queries.
    #[command(flatten)]
    pub query: QueryFlags,
    /// Flags of features and logging.
    #[command(flatten)]
    pub general: GeneralFlags,
}

/// Flags of both nodes in one process.
#[derive(Args, Debug, Clone)]
pub struct StandaloneFlags {
    /// Configuration file path.
    #[arg(long = "config.file", default_value = "prometheus.yml")]
    pub config_file: PathBuf,
    /// Whether files are loaded again when they change.
    #[command(flatten)]
    pub auto_reload: AutoReloadFlags,
    /// Base path of both stores: `tsdb/` and `longterm/` are made in it.
    #[arg(long = "storage.path", default_value = "data/")]
    pub path: PathBuf,
    /// Flags of the local storage.
    #[command(flatten)]
    pub tsdb: TsdbFlags,
    /// What the long-term store keeps.
    #[command(flatten)]
    pub store: LongtermStoreFlags,
    /// Address of the scraper node. Repeatable.
    #[arg(long = "web.listen-address", default_value = "0.0.0.0:9090")]
    pub listen: Vec<String>,
    /// Address of the long-term node. Repeatable.
    #[arg(long = "web.longterm-listen-address", default_value = "0.0.0.0:9201")]
    pub longterm_listen: Vec<String>,
    /// Flags of the HTTP server.
    #[command(flatten)]
    pub web: WebFlags,
    /// Flags of queries.
    #[command(flatten)]
    pub query: QueryFlags,
    /// Flags of scraping.
    #[command(flatten)]
    pub scrape: ScrapeFlags,
    /// Flags of alerts.
    #[command(flatten)]
    pub alerts: AlertFlags,
    /// Flags of features and logging.
    #[command(flatten)]
    pub general: GeneralFlags,
}

/// Flags of the local storage.
#[derive(Args, Debug, Clone)]
pub struct TsdbFlags {
    /// How long to retain samples. Default 15d unless a size is given. Units: y, w, d, h, m, s, ms.
    #[arg(long = "storage.tsdb.retention.time", value_parser = duration)]
    pub retention_time: Option<Ms>,
    /// Maximum number of bytes that blocks may take. Units: B, KB, MB, GB, TB, PB, EB, of powers of 1024.
    #[arg(long = "storage.tsdb.retention.size", value_parser = size)]
    pub retention_size: Option<Bytes>,
    /// Compress the write-ahead log: the default. `--no-storage.tsdb.wal-compression` turns it off.
    #[arg(long = "storage.tsdb.wal-compression", conflicts_with = "no_wal_compression")]
    pub wal_compression: bool,
    /// Do not compress the write-ahead log.
    #[arg(long = "no-storage.tsdb.wal-compression", action = clap::ArgAction::SetTrue, hide = true)]
    pub no_wal_compression: bool,
    /// How to compress the write-ahead log, unless that is turned off: `snappy` or `zstd`.
    #[arg(
        long = "storage.tsdb.wal-compression-type",
        value_parser = wal_compression_type,
        default_value = "snappy",
        hide = true
    )]
    pub wal_compression_type: tsdb::WalCompression,
    /// Size at which to split segments of the write-ahead log. Example: 100MB.
    #[arg(long = "storage.tsdb.wal-segment-size", value_parser = size, hide = true)]
    pub wal_segment_size: Option<Bytes>,
    /// Minimum duration of a block before it is persisted. For use in testing.
    #[arg(long = "storage.tsdb.min-block-duration", value_parser = duration, default_value = "2h", hide = true)]
    pub min_block_duration: Ms,
    /// Maximum duration blocks are merged to. For use in testing. Defaults to a tenth of the retention period.
    #[arg(long = "storage.tsdb.max-block-duration", value_parser = duration, hide = true)]
    pub max_block_duration: Option<Ms>,
    /// JSON file with uploaded blocks, such as the Thanos shipper's: blocks that are not named in it wait with being merged.
    #[arg(long = "storage.tsdb.delay-compact-file.path", value_name = "FILE")]
    pub delay_compact_file: Option<PathBuf>,
    /// Sync the write-ahead log to disk with every commit, so that scrapes survive power loss too.
    #[arg(long = "storage.tsdb.wal-fsync-on-commit")]
    pub wal_fsync_on_commit: bool,
}

/// Flags of the HTTP server.
#[derive(Args, Debug, Clone)]
pub struct WebFlags {
    /// The URL under which the server is externally reachable, for example behind a reverse proxy.
    #[arg(long = "web.external-url", default_value = "")]
    pub external_url: String,
    /// Prefix for the internal routes of web endpoints. Defaults to the path of `--web.external-url`.
    #[arg(long = "web.route-prefix")]
    pub route_prefix: Option<String>,
    /// Enable shutdown and reload via HTTP request.
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// Enable API endpoints for admin control actions.
    #[arg(long = "web.enable-admin-api")]
    pub enable_admin_api: bool,
    /// Enable the API endpoint that accepts remote write requests.
    #[arg(long = "web.enable-remote-write-receiver")]
    pub enable_remote_write_receiver: bool,
    /// Enable the API endpoint that accepts OTLP metrics. A long-term node always does.
    #[arg(long = "web.enable-otlp-receiver")]
    pub enable_otlp_receiver: bool,
    /// Maximum duration before timing out read of the request, and closing idle connections.
    #[arg(long = "web.read-timeout", default_value = "5m", value_parser = duration)]
    pub read_timeout: Ms,
    /// Maximum number of simultaneous connections across all listeners.
    #[arg(long = "web.max-connections", default_value_t = 512)]
    pub max_connections: usize,
    /// Regex for CORS origin. It is fully anchored.
    #[arg(long = "web.cors.origin", default_value = ".*")]
    pub cors_origin: String,
    /// Document title of the pages.
    #[arg(long = "web.page-title", default_value = "almanac")]
    pub page_title: String,
    /// Configuration file that can enable TLS or authentication.
    #[arg(long = "web.config.file", default_value = "")]
    pub web_config_file: String,
    /// Limits of remote read.
    #[command(flatten)]
    pub remote_read: RemoteReadFlags,
}

/// Flags of queries.
#[derive(Args, Debug, Clone)]
pub struct QueryFlags {
    /// The maximum lookback duration for retrieving metrics during expression evaluations and federation.
    #[arg(long = "query.lookback-delta", default_value = "5m", value_parser = duration)]
    pub lookback_delta: Ms,
    /// Maximum time a query may take before being aborted.
    #[arg(long = "query.timeout", default_value = "2m", value_parser = duration)]
    pub timeout: Ms,
    /// Maximum number of queries executed concurrently.
    #[arg(long = "query.max-concurrency", default_value_t = 20)]
    pub max_concurrency: usize,
    /// Maximum number of samples a single query can load into memory.
    #[arg(long = "query.max-samples", default_value_t = 50_000_000)]
    pub max_samples: u64,
    /// Maximum memory a single query may hold, as the engine counts it; 0 for no limit. Units: B, KB, MB, GB, TB, of
    /// powers of 1024.
    #[arg(long = "query.max-memory", default_value = "2GB", value_parser = size)]
    pub max_memory: Bytes,
}

/// Flags of reloading.
#[derive(Args, Debug, Clone)]
pub struct AutoReloadFlags {
    /// Enable automatic reloading of the configuration file, and of the files of rules and scrape configurations that it names.
    #[arg(id = "auto_reload", long = "config.auto-reload")]
    pub enabled: bool,
    /// Interval for checking whether they have changed. Only used with --config.auto-reload.
    #[arg(id = "auto_reload_interval", long = "config.auto-reload-interval", default_value = "30s", value_parser = duration)]
    pub interval: Ms,
}

/// Flags of remote read, for those who read from this node.
#[derive(Args, Debug, Clone)]
pub struct RemoteReadFlags {
    /// Maximum overall number of samples to return via the remote read interface, in a single query. 0 means no limit.
    /// Streamed answers are not limited.
    #[arg(long = "storage.remote.read-sample-limit", default_value_t = 50_000_000)]
    pub read_sample_limit: usize,
    /// Maximum number of concurrent remote read calls.
    #[arg(long = "storage.remote.read-concurrent-limit", default_value_t = 10)]
    pub read_max_concurrency: usize,
    /// Maximum number of bytes in a single frame of a streamed answer before marshalling.
    #[arg(long = "storage.remote.read-max-bytes-in-frame", default_value_t = 1 << 20)]
    pub read_max_bytes_in_frame: usize,
}

/// Flags of scraping, and of sending what was scraped.
#[derive(Args, Debug, Clone)]
pub struct ScrapeFlags {
    /// How long to wait flushing samples to remote storage on shutdown or configuration reload.
    #[arg(long = "storage.remote.flush-deadline", default_value = "10s", value_parser = duration)]
    pub flush_deadline: Ms,
    /// Tolerance within which the timestamps of scrapes are aligned to their interval.
    #[arg(long = "scrape.timestamp-tolerance", default_value = "2ms", value_parser = duration, hide = true)]
    pub timestamp_tolerance: Ms,
    /// Use the time at which a scrape really began.
    #[arg(long = "no-scrape.adjust-timestamps", hide = true)]
    pub no_adjust_timestamps: bool,
}

impl ScrapeFlags {
    /// How far a scrape may be from its plan and still get the planned timestamp.
    pub fn tolerance_ms(&self) -> i64 {
        if self.no_adjust_timestamps { 0 } else { self.timestamp_tolerance.ms() }
    }
}

/// Flags of alerts.
#[derive(Args, Debug, Clone)]
pub struct AlertFlags {
    /// Max time to tolerate an outage of the server for restoring the "for" state of alerts.
    #[arg(long = "rules.alert.for-outage-tolerance", default_value = "1h", value_parser = duration)]
    pub outage_tolerance: Ms,
    /// Minimum duration between an alert and its restored "for" state. Only for alerts whose "for" time is not shorter.
    #[arg(long = "rules.alert.for-grace-period", default_value = "10m", value_parser = duration)]
    pub grace_period: Ms,
    /// Minimum amount of time to wait before resending an alert to Alertmanager.
    #[arg(long = "rules.alert.resend-delay", default_value = "1m", value_parser = duration)]
    pub resend_delay: Ms,
    /// The capacity of the queue for pending Alertmanager notifications.
    #[arg(long = "alertmanager.notification-queue-capacity", default_value_t = 10_000)]
    pub queue_capacity: usize,
    /// The maximum number of notifications per batch to send to the Alertmanager.
    #[arg(long = "alertmanager.notification-batch-size", default_value_t = 256)]
    pub batch_size: usize,
    /// Send outstanding Alertmanager notifications when shutting down: the default.
    /// `--no-alertmanager.drain-notification-queue-on-shutdown` drops them.
    #[arg(long = "alertmanager.drain-notification-queue-on-shutdown", conflicts_with = "no_drain")]
    pub drain: bool,
    /// Drop outstanding notifications when shutting down.
    #[arg(long = "no-alertmanager.drain-notification-queue-on-shutdown", action = clap::ArgAction::SetTrue, hide = true)]
    pub no_drain: bool,
}

/// Flags of Prometheus that change nothing here. They are accepted, so that its command lines keep working, and said in
/// the log when they are given.
#[derive(Args, Debug, Clone)]
pub struct InertFlags {
    #[arg(long = "web.console.templates", hide = true)]
    console_templates: Option<String>,
    #[arg(long = "web.console.libraries", hide = true)]
    console_libraries: Option<String>,
    #[arg(long = "web.user-assets", hide = true)]
    user_assets: Option<String>,
    #[arg(long = "web.max-notifications-subscribers", hide = true)]
    notifications_subscribers: Option<String>,
    #[arg(long = "storage.tsdb.max-block-chunk-segment-size", hide = true)]
    chunk_segment_size: Option<String>,
    #[arg(long = "storage.tsdb.head-chunks-write-queue-size", hide = true)]
    head_chunks_queue: Option<String>,
    #[arg(long = "storage.tsdb.samples-per-chunk", hide = true)]
    samples_per_chunk: Option<String>,
    #[arg(long = "storage.tsdb.no-lockfile", hide = true)]
    no_lockfile: bool,
    #[arg(long = "storage.tsdb.allow-overlapping-blocks", hide = true)]
    allow_overlapping: bool,
    #[arg(long = "rules.max-concurrent-evals", hide = true)]
    concurrent_evals: Option<String>,
    #[arg(long = "scrape.adjust-timestamps", hide = true)]
    adjust_timestamps: bool,
    #[arg(long = "scrape.discovery-reload-interval", hide = true)]
    discovery_reload: Option<String>,
    #[arg(long = "auto-gomaxprocs", hide = true)]
    gomaxprocs: bool,
    #[arg(long = "auto-gomemlimit", hide = true)]
    gomemlimit: bool,
    #[arg(long = "auto-gomemlimit.ratio", hide = true)]
    gomemlimit_ratio: Option<String>,
}

impl InertFlags {
    /// Names of those that were given.
    pub fn given(&self) -> Vec<&'static str> {
        let options = [
            (self.console_templates.is_some(), "web.console.templates"),
            (self.console_libraries.is_some(), "web.console.libraries"),
            (self.user_assets.is_some(), "web.user-assets"),
            (self.notifications_subscribers.is_some(), "web.max-notifications-subscribers"),
            (self.chunk_segment_size.is_some(), "storage.tsdb.max-block-chunk-segment-size"),
            (self.head_chunks_queue.is_some(), "storage.tsdb.head-chunks-write-queue-size"),
            (self.samples_per_chunk.is_some(), "storage.tsdb.samples-per-chunk"),
            (self.no_lockfile, "storage.tsdb.no-lockfile"),
            (self.allow_overlapping, "storage.tsdb.allow-overlapping-blocks"),
            (self.concurrent_evals.is_some(), "rules.max-concurrent-evals"),
            (self.adjust_timestamps, "scrape.adjust-timestamps"),
            (self.discovery_reload.is_some(), "scrape.discovery-reload-interval"),
            (self.gomaxprocs, "auto-gomaxprocs"),
            (self.gomemlimit, "auto-gomemlimit"),
            (self.gomemlimit_ratio.is_some(), "auto-gomemlimit.ratio"),
        ];
        options.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
    }
}

/// Flags of features and logging.
#[derive(Args, Debug, Clone)]
pub struct GeneralFlags {
    /// Comma-separated feature names to enable. Repeatable.
    #[arg(long = "enable-feature", value_delimiter = ',')]
    pub features: Vec<String>,
    /// Only log messages with the given severity or above.
    #[arg(long = "log.level", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
    /// Output format of log messages.
    #[arg(long = "log.format", value_enum, default_value_t = LogFormat::Logfmt)]
    pub log_format: LogFormat,
}

/// Severity of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may need care.
    Warn,
    /// What failed.
    Error,
}

/// Form of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

fn label_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Ms, String> {
    model::duration::parse_ms(text).map(Ms)
}

fn time(text: &str) -> Result<Ms, String> {
    api::parse_time(text).map(Ms)
}

fn size(text: &str) -> Result<Bytes, String> {
    text.parse()
}

fn wal_compression_type(text: &str) -> Result<tsdb::WalCompression, String> {
    match text {
        "snappy" => Ok(tsdb::WalCompression::Snappy),
        "zstd" => Ok(tsdb::WalCompression::Zstd),
        _ => Err(format!("enum value must be one of snappy,zstd, got '{text}'")),
    }
}

impl TsdbFlags {
    /// How the write-ahead log is compressed.
    pub fn wal_compression_used(&self) -> tsdb::WalCompression {
        if self.no_wal_compression { tsdb::WalCompression::None } else { self.wal_compression_type }
    }
}

/// Version and where it was built, as `--version` prints it.
pub fn version_text() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Feature names that change something here.
const FEATURES: [&str; 16] = [
    "auto-reload-config",
    "otlp-native-delta-ingestion",
    "memory-snapshot-on-shutdown",
    "st-storage",
    "created-timestamp-zero-ingestion",
    "metadata-wal-records",
    "xor2-encoding",
    "histograms-st-encoding",
    "promql-per-step-stats",
    "type-and-unit-labels",
    "use-start-timestamps",
    "promql-experimental-functions",
    "promql-extended-range-selectors",
    "promql-delayed-name-removal",
    "extra-scrape-metrics",
    "promql-binop-fill-modifiers",
];

/// Feature names of Prometheus that are always on, or without meaning, here.
const FEATURES_WITHOUT_EFFECT: [&str; 11] = [
    "promql-duration-expr",
    "expand-external-labels",
    "promql-at-modifier",
    "promql-negative-offset",
    "remote-write-receiver",
    "no-default-scrape-port",
    "new-service-discovery-manager",
    "auto-gomaxprocs",
    "auto-gomemlimit",
    "exemplar-storage",
    "native-histograms",
];

impl GeneralFlags {
    /// Whether a feature is enabled.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }

    /// What the features change in the defaults of the configuration file.
    pub fn defaults(&self) -> FeatureDefaults {
        FeatureDefaults {
            protobuf_first: self.has("st-storage") || self.has("created-timestamp-zero-ingestion"),
            extra_scrape_metrics: self.has("extra-scrape-metrics"),
        }
    }

    /// What becomes of start timestamps in scraped bodies.
    pub fn starts(&self) -> scraper::StartRules {
        let as_zeros = self.has("created-timestamp-zero-ingestion");
        scraper::StartRules { read: as_zeros || self.has("st-storage"), as_zeros }
    }

    /// Refuses features without which data would be lost.
    ///
    /// # Errors
    /// One line that names it.
    pub fn refuse(&self) -> Result<(), String> {
        let converts = self.has("otlp-deltatocumulative");
        if converts && self.has("otlp-native-delta-ingestion") {
            return Err("cannot enable otlp-deltatocumulative and otlp-native-delta-ingestion features at the same time".into());
        }
        if converts {
            return Err("--enable-feature=otlp-deltatocumulative: not supported; let the sender's deltatocumulative processor \
                        do it, or store deltas as they are with otlp-native-delta-ingestion"
                .into());
        }
        Ok(())
    }

    /// What the OTLP receiver is told by a file and the flags.
    pub fn otlp(&self, file: wire::otlp::Settings, query: &QueryFlags) -> wire::otlp::Settings {
        wire::otlp::Settings {
            allow_delta: self.has("otlp-native-delta-ingestion"),
            type_and_unit_labels: self.has("type-and-unit-labels"),
            lookback_ms: query.lookback_delta.ms(),
            ..file
        }
    }

    /// Names among the enabled features that change nothing here, with the reason; said in the log, never silently
    /// dropped.
    pub fn without_effect(&self) -> Vec<(&str, &'static str)> {
        let mut out = Vec::new();
        for f in self.features.iter().map(String::as_str).filter(|f| !FEATURES.contains(f)) {
            let why = if FEATURES_WITHOUT_EFFECT.contains(&f) {
                "always on or without meaning in almanac"
            } else {
                "not supported by this version of almanac"
            };
            out.push((f, why));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_prometheus_s() {
        let cli = Cli::try_parse_from([
            "almanac",
            "--config.file=x.yml",
            "--web.listen-address=:1",
            "--web.listen-address=:2",
        ]);
        let flags = cli.expect("valid").scraper;
        assert_eq!((flags.config_file.to_str(), flags.listen.len()), (Some("x.yml"), 2));
        assert_eq!(flags.query.lookback_delta, Ms(300_000));
        assert_eq!(flags.tsdb.retention_time, None);
        let cli = Cli::try_parse_from(["almanac", "--web.console.templates=/x", "--web.enable-lifecycle"]);
        assert_eq!(cli.expect("valid").scraper.inert.given(), ["web.console.templates"]);
    }

    #[test]
    fn the_log_is_compressed_as_the_flags_say() {
        use tsdb::WalCompression::{None, Snappy, Zstd};
        let used = |flags: &[&str]| {
            let cli = Cli::try_parse_from(["almanac"].iter().chain(flags));
            cli.map(|cli| cli.scraper.tsdb.wal_compression_used())
        };
        assert_eq!(used(&[]).expect("valid"), Snappy);
        let zstd = "--storage.tsdb.wal-compression-type=zstd";
        assert_eq!(used(&[zstd]).expect("valid"), Zstd);
        assert_eq!(used(&[zstd, "--storage.tsdb.wal-compression"]).expect("valid"), Zstd);
        assert_eq!(used(&[zstd, "--no-storage.tsdb.wal-compression"]).expect("valid"), None);
        let e = used(&["--storage.tsdb.wal-compression-type=gzip"]).expect_err("not known").to_string();
        assert!(e.contains("enum value must be one of snappy,zstd, got 'gzip'"), "{e}");
    }

    #[test]
    fn roles_have_their_own_flags() {
        let cli = Cli::try_parse_from(["almanac", "longterm", "--storage.longterm.retention.time=2y"])
            .expect("valid");
        let Some(Command::Longterm(flags)) = cli.command else { panic!("a long-term node") };
        assert_eq!(
            (flags.store.retention, flags.listen),
            (Ms(730 * 86_400_000), vec!["0.0.0.0:9201".to_owned()])
        );
        assert!(Cli::try_parse_from(["almanac", "longterm", "--storage.tsdb.path=x"]).is_err());
        assert!(Cli::try_parse_from(["almanac", "--storage.tsdb.retention.time=1x"]).is_err());
    }

    #[test]
    fn features_that_would_lose_data_are_refused() {
        let general = |features: &str| {
            let cli = Cli::try_parse_from(["almanac", &format!("--enable-feature={features}")]);
            cli.expect("valid").scraper.general
        };
        assert_eq!(general("otlp-native-delta-ingestion,x").refuse(), Ok(()));
        let e = general("otlp-deltatocumulative").refuse().expect_err("not built in");
        assert!(e.starts_with("--enable-feature=otlp-deltatocumulative: not supported"), "{e}");
        let e = general("otlp-deltatocumulative,otlp-native-delta-ingestion").refuse().expect_err("either");
        assert!(e.contains("at the same time"), "{e}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
