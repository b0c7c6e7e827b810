//! What the server asks of the rest of the program: traits that the binary implements, and the plain data they give.
//!
//! All calls block and are made on blocking threads, `external_labels` and the readiness flag apart, which must be quick.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use model::{
    Appendable, Chunk, Clock, Exemplar, Labels, Matcher, Metadata, Queryable, Samples, StorageError,
};

/// Everything the server works with.
#[derive(Clone)]
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` shows, and where the server registers its own metrics.
    pub registry: prometheus::Registry,
    /// Evaluates queries.
    pub engine: Arc<promql::Engine>,
    /// What queries, series and labels are answered from.
    pub queryable: Arc<dyn Queryable>,
    /// What `/federate` and remote read are answered from: this node's own store, so that nodes that read each other do
    /// not go in circles.
    pub local_queryable: Arc<dyn Queryable>,
    /// Encodes samples, sorted by time, in chunks as any Prometheus reads them, for streamed remote read.
    pub encode_chunks: fn(&Samples) -> Vec<Chunk>,
    /// Takes what remote write and OTLP bring; `None` where nothing can.
    pub appendable: Option<Arc<dyn Appendable>>,
    /// How OTLP metrics are translated.
    pub otlp: OtlpSettings,
    /// Targets and their metadata.
    pub targets: Arc<dyn TargetsSource>,
    /// What the program says about itself.
    pub status: Arc<dyn StatusSource>,
    /// Rules and alerts; `None` where no rules run, which answers like an empty rule list.
    pub rules: Option<Arc<dyn RulesSource>>,
    /// Exemplars; `None` where none are kept, which is an error to the one who asks.
    pub exemplars: Option<Arc<dyn ExemplarSource>>,
    /// Deletes and snapshots; `None` where the store cannot.
    pub admin: Option<Arc<dyn AdminSource>>,
    /// The way to the long-term node; `None` on nodes that send nothing there.
    pub longterm: Option<Arc<dyn LongtermSource>>,
    /// Reload and quit.
    pub lifecycle: Arc<dyn Lifecycle>,
    /// Whether the server answers queries yet.
    pub readiness: Readiness,
    /// Records what requests take their time for.
    pub tracer: model::trace::Tracer,
}

pub use crate::otlp::OtlpSettings;

// === Readiness ===

/// Whether the program is ready. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// States of [`Readiness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// Starting: queries get 503.
    NotReady,
    /// Everything answers.
    Ready,
    /// Shutting down: queries get 503.
    Stopping,
}

impl Readiness {
    /// Not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the state.
    pub fn set(&self, state: ReadyState) {
        let n = match state {
            ReadyState::NotReady => 0,
            ReadyState::Ready => 1,
            ReadyState::Stopping => 2,
        };
        self.0.store(n, Ordering::Release);
    }

    /// The state.
    #[must_use]
    pub fn get(&self) -> ReadyState {
        match self.0.load(Ordering::Acquire) {
            0 => ReadyState::NotReady,
            1 => ReadyState::Ready,
            _ => ReadyState::Stopping,
        }
    }
}

pub use crate::cardinality::{Cardinality, Growing, JobCardinality, SoftLimit};

// === Targets ===

/// The targets of this node.
pub trait TargetsSource: Send + Sync {
    /// Targets that are scraped.
    fn active(&self) -> Vec<ActiveTarget>;

    /// Targets that relabeling dropped, as many as are kept.
    fn dropped(&self) -> Vec<DroppedTarget>;

    /// Number of dropped targets per scrape pool, those included that are not kept.
    fn dropped_counts(&self) -> BTreeMap<String, usize>;

    /// How soft limits of series stand, with at most `limit` metrics and labels per job.
    fn cardinality(&self, _limit: usize) -> Cardinality {
        Cardinality::default()
    }

    /// Names of the scrape pools.
    fn scrape_pools(&self) -> Vec<String>;

    /// The scrape configuration of a pool as YAML; `None` when there is no such pool.
    fn scrape_pool_config(&self, pool: &str) -> Option<String>;

    /// Visits what active targets say of their metric families: of the family `metric`, or of all when it is empty. Gives
    /// the target's labels, the family's name and the metadata, until the visitor returns `false`.
    fn metadata(&self, metric: &str, visit: &mut dyn FnMut(&Labels, &str, &Metadata) -> bool);
}

/// A target that is scraped.
#[derive(Clone, Debug, Default)]
pub struct ActiveTarget {
    /// Its scrape pool: the job name of its configuration.
    pub scrape_pool: String,
    /// Labels before relabeling.
    pub discovered_labels: Labels,
    /// Labels after relabeling, as its series carry them.
    pub labels: Labels,
    /// The URL with its parameters.
    pub scrape_url: String,
    /// Why the last scrape failed; empty when it did not.
    pub last_error: String,
    /// When the last scrape began; `None` before the first.
    pub last_scrape_ms: Option<i64>,
    /// How long it took.
    pub last_scrape_seconds: f64,
    /// How it went.
    pub health: TargetHealth,
    /// Interval as a duration text.
    pub scrape_interval: String,
    /// Time-out as a duration text.
    pub scrape_timeout: String,
}

/// How the last scrape of a target went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetHealth {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// Well.
    Up,
    /// It failed.
    Down,
}

impl TargetHealth {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A target that relabeling dropped.
#[derive(Clone, Debug, Default)]
pub struct DroppedTarget {
    /// Its scrape pool.
    pub scrape_pool: String,
    /// Labels before relabeling.
    pub discovered_labels: Labels,
}

// === Status ===

/// What the program says about itself.
pub trait StatusSource: Send + Sync {
    /// Version and build.
    fn build_info(&self) -> BuildInfo;

    /// The configuration in force, as YAML, secrets hidden.
    fn config_yaml(&self) -> String;

    /// Flags and their values, without dashes.
    fn flags(&self) -> BTreeMap<String, String>;

    /// The process and its state.
    fn runtime_info(&self) -> RuntimeInfo;

    /// Cardinality of the head, each list with at most `limit` entries, highest first.
    ///
    /// # Errors
    /// When it cannot be read.
    fn tsdb_status(&self, limit: usize) -> Result<TsdbStatus, StorageError>;

    /// The `meta.json` texts of the blocks.
    ///
    /// # Errors
    /// When they cannot be read, or there is no such store.
    fn tsdb_blocks(&self) -> Result<Vec<String>, StorageError> {
        Err(StorageError::Unsupported("block list of this store".into()))
    }

    /// How far replay of the WAL is.
    fn wal_replay(&self) -> WalReplayStatus;

    /// The `external_labels` of the configuration.
    fn external_labels(&self) -> Labels;

    /// Features by category, beside those the server knows itself.
    fn features(&self) -> BTreeMap<String, BTreeMap<String, bool>> {
        BTreeMap::new()
    }

    /// What operators must be told now.
    fn notifications(&self) -> Vec<Notification> {
        Vec::new()
    }
}

/// Version and build.
#[derive(Clone, Debug, Default)]
pub struct BuildInfo {
    /// Version; clients decide by it what they may ask, so it is the Prometheus version that this API speaks.
    pub version: String,
    /// Commit.
    pub revision: String,
    /// Branch.
    pub branch: String,
    /// Who built it.
    pub build_user: String,
    /// When.
    pub build_date: String,
    /// Toolchain; the API's name for it is `goVersion`.
    pub toolchain: String,
}

/// The process and its state.
#[derive(Clone, Debug, Default)]
pub struct RuntimeInfo {
    /// When the process began.
    pub start_time_ms: i64,
    /// Working directory.
    pub cwd: String,
    /// Host name.
    pub hostname: String,
    /// Whether the last reload worked.
    pub reload_config_success: bool,
    /// When the configuration in force was loaded.
    pub last_config_time_ms: i64,
    /// Corruptions met in the WAL.
    pub corruption_count: i64,
    /// Tasks of the runtime; the API's name for it is `goroutineCount`.
    pub task_count: i64,
    /// Worker threads; the API's name for it is `GOMAXPROCS`.
    pub worker_threads: i64,
    /// Memory limit in bytes; the API's name for it is `GOMEMLIMIT`.
    pub memory_limit_bytes: i64,
    /// Retention as a text, such as `15d` or `15d or 10GiB`.
    pub storage_retention: String,
}

/// Cardinality of the head.
#[derive(Clone, Debug, Default)]
pub struct TsdbStatus {
    /// Series.
    pub num_series: u64,
    /// Label pairs.
    pub num_label_pairs: u64,
    /// Chunks.
    pub chunk_count: u64,
    /// Oldest sample.
    pub min_time_ms: i64,
    /// Newest sample.
    pub max_time_ms: i64,
    /// Series per metric name.
    pub series_count_by_metric_name: Vec<(String, u64)>,
    /// Values per label name.
    pub label_value_count_by_label_name: Vec<(String, u64)>,
    /// Bytes of values per label name.
    pub memory_in_bytes_by_label_name: Vec<(String, u64)>,
    /// Series per `name=value`.
    pub series_count_by_label_value_pair: Vec<(String, u64)>,
}

/// How far replay of the WAL is, in segment numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalReplayStatus {
    /// First segment.
    pub min: u32,
    /// Last segment.
    pub max: u32,
    /// The one being read.
    pub current: u32,
}

/// Something operators must be told.
#[derive(Clone, Debug)]
pub struct Notification {
    /// What.
    pub text: String,
    /// Since when.
    pub date_ms: i64,
    /// Whether it still holds.
    pub active: bool,
}

// === Rules ===

/// Rules, alerts and where alerts go.
pub trait RulesSource: Send + Sync {
    /// All groups, in the order of files and groups.
    fn groups(&self) -> Vec<RuleGroup>;

    /// Alertmanagers in use and dropped ones, as URLs.
    fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        (Vec::new(), Vec::new())
    }
}

/// A group of rules.
#[derive(Clone, Debug, Default)]
pub struct RuleGroup {
    /// Its name.
    pub name: String,
    /// The file that defines it.
    pub file: String,
    /// Interval in seconds.
    pub interval_seconds: f64,
    /// Most series or alerts of one rule; 0 for no limit.
    pub limit: i64,
    /// Rules in their order.
    pub rules: Vec<Rule>,
    /// Length of the last evaluation in seconds.
    pub evaluation_seconds: f64,
    /// When it began; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
}

/// One rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Name of the alert or of the recorded series.
    pub name: String,
    /// The expression, printed.
    pub query: String,
    /// Labels it adds.
    pub labels: Labels,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// Why the last evaluation failed; empty when it did not.
    pub last_error: String,
    /// Length of the last evaluation in seconds.
    pub evaluation_seconds: f64,
    /// When it was; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
    /// What an alerting rule has beside; `None` for a recording rule.
    pub alerting: Option<AlertingRule>,
}

/// What an alerting rule has beside the common things.
#[derive(Clone, Debug, Default)]
pub struct AlertingRule {
    /// `firing`, `pending`, `inactive` or `unknown`.
    pub state: String,
    /// `for` in seconds.
    pub hold_seconds: f64,
    /// `keep_firing_for` in seconds.
    pub keep_firing_seconds: f64,
    /// Annotations as written.
    pub annotations: Labels,
    /// Pending and firing alerts.
    pub alerts: Vec<Alert>,
}

/// One alert.
#[derive(Clone, Debug, Default)]
pub struct Alert {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations, expanded.
    pub annotations: Labels,
    /// `pending` or `firing`.
    pub state: String,
    /// Since when the expression holds.
    pub active_at_ms: i64,
    /// Since when it is only kept firing; `None` when the expression holds.
    pub keep_firing_since_ms: Option<i64>,
    /// Value of the expression.
    pub value: f64,
}

// === Exemplars, admin, lifecycle ===

/// A store of exemplars.
pub trait ExemplarSource: Send + Sync {
    /// Exemplars within `[mint, maxt]` of the series that pass any of the matcher sets, by series, sorted by labels,
    /// each list by time.
    ///
    /// # Errors
    /// When they cannot be read.
    fn select(
        &self,
        mint: i64,
        maxt: i64,
        matchers: &[Vec<Matcher>],
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError>;
}

/// Changes of the store that only an operator makes.
pub trait AdminSource: Send + Sync {
    /// Series that pass one of the sets and their samples within `[mint, maxt]`: what `delete_series` would delete.
    ///
    /// # Errors
    /// When they cannot be read.
    fn count_series(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<(u64, u64), StorageError>;

    /// Deletes the samples within `[mint, maxt]` of the series that pass.
    ///
    /// # Errors
    /// When it cannot be done.
    fn delete_series(&self, mint: i64, maxt: i64, matchers: &[Matcher]) -> Result<(), StorageError>;

    /// Removes deleted samples from disk.
    ///
    /// # Errors
    /// When it cannot be done.
    fn clean_tombstones(&self) -> Result<(), StorageError>;

    /// Makes a snapshot and returns its name: a directory under `snapshots/` of the data directory.
    ///
    /// # Errors
    /// When it cannot be done.
    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError>;
}

/// What a scraper node knows of its long-term node.
pub trait LongtermSource: Send + Sync {
    /// How sending stands; `None` while no long-term node is configured.
    fn status(&self) -> Option<LongtermStatus>;

    /// Has history sent from the local store: what one of the sets selects within `[mint, maxt]`. Durable on return.
    /// Gives the number of the range.
    ///
    /// # Errors
    /// When there is no long-term node, or the queue cannot be stored.
    fn enqueue(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<u64, StorageError>;

    /// Takes a range out of the queue; `false` when there is none of this number.
    ///
    /// # Errors
    /// As for `enqueue`.
    fn cancel(&self, id: u64) -> Result<bool, StorageError>;

    /// What the sets select within `[mint, maxt]` of the local store.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn preview(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<Preview, StorageError>;
}

/// How sending to the long-term node stands.
#[derive(Clone, Debug, Default)]
pub struct LongtermStatus {
    /// Its base address.
    pub url: String,
    /// What is sent.
    pub selectors: Vec<String>,
    /// The label that tells this node from its replica, and that is not kept there; `None` for a node without one.
    pub replica_label: Option<String>,
    /// How long new samples wait.
    pub live_lag_seconds: f64,
    /// Everything before is known to be there.
    pub complete_until_ms: Option<i64>,
    /// Whether the backlog lane waits for the live lane.
    pub paused: bool,
    /// Why the backlog lane does not get on; empty when it does.
    pub last_error: String,
    /// Samples sent by the backlog lane.
    pub samples_sent: u64,
    /// Windows of two hours still to be looked at.
    pub windows_left: u64,
    /// Samples still to be sent, estimated.
    pub samples_left: u64,
    /// Pace of the backlog lane.
    pub samples_per_second: f64,
    /// What it has to send.
    pub ranges: Vec<BacklogRange>,
}

/// A range of history to be sent.
#[derive(Clone, Debug, Default)]
pub struct BacklogRange {
    /// Its number.
    pub id: u64,
    /// Why.
    pub reason: String,
    /// What.
    pub selectors: Vec<String>,
    /// First timestamp.
    pub start_ms: i64,
    /// Last timestamp.
    pub end_ms: i64,
    /// Everything before is done.
    pub done_until_ms: i64,
    /// Samples sent of it.
    pub samples: u64,
}

/// What selectors select.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Preview {
    /// Span of time that has samples.
    pub seconds: f64,
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes that they would take in the long-term node, estimated.
    pub bytes: u64,
}

/// Reload and quit.
pub trait Lifecycle: Send + Sync {
    /// Reads the configuration again and applies it.
    ///
    /// # Errors
    /// Why the old configuration stays.
    fn reload(&self) -> Result<(), String>;

    /// Asks the program to stop; returns at once.
    fn quit(&self);
}
