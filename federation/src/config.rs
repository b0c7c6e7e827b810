//! Settings of the sender and of remote read, plain data made by whoever reads the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use model::relabel::RelabelRule;
use model::{Labels, Matcher};

use crate::http::HttpConfig;

/// Where and what a [`crate::sender::Sender`] sends.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderConfig {
    /// Names the destination in metrics, in logs and in the file that holds its position. Unique, not empty. A sender
    /// that is started again under its name goes on where it stopped, also with another address.
    pub name: String,
    /// Address of the remote-write endpoint.
    pub url: String,
    /// A series is sent when all matchers of any one of these sets match its labels, external labels included. Empty:
    /// all series.
    pub matchers: Vec<Vec<Matcher>>,
    /// Rules applied to what the matchers let through.
    pub write_relabel: Vec<RelabelRule>,
    /// Added to each series that does not have a label of the name.
    pub external_labels: Labels,
    /// The external label by which the destination tells this sender from its replica. It takes the label off and keeps the
    /// samples of one of both ([`crate::ha`]), which the audit has to know.
    pub replica_label: Option<String>,
    /// How to speak to the destination.
    pub http: HttpConfig,
    /// Time for one request.
    pub remote_timeout: Duration,
    /// Batches and shards.
    pub queue: QueueConfig,
    /// Whether exemplars are sent.
    pub send_exemplars: bool,
    /// Whether native histograms are sent.
    pub send_native_histograms: bool,
    /// Whether native histograms with custom buckets are sent too: Prometheus's remote write 1.0 leaves them out, the
    /// long-term node takes them.
    pub send_custom_buckets: bool,
    /// Whether type, unit and help of metric families are sent. Version 2.0 always sends them.
    pub send_metadata: bool,
    /// How often version 1.0 sends all that is known of metric families again.
    pub metadata_interval: Duration,
    /// The message to begin with. A destination that does not know version 2.0 gets 1.0.
    pub protocol: Protocol,
    /// Samples older than this are not sent, and counted. `None`: all are sent.
    pub sample_age_limit: Option<Duration>,
    /// How what was missed is sent later, from the local store.
    pub backlog: BacklogConfig,
    /// Whether selectors that the stored position was not reached with bring the whole local history with them.
    pub history_of_new_selectors: bool,
    /// How often the audit compares a slice of history.
    pub audit_interval: Duration,
    /// Directory of the position files; made when it is not there.
    pub positions_dir: PathBuf,
}

impl SenderConfig {
    /// Everything, sent to `url` with Prometheus's defaults.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>, positions_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            matchers: Vec::new(),
            write_relabel: Vec::new(),
            external_labels: Labels::empty(),
            replica_label: None,
            http: HttpConfig::default(),
            remote_timeout: Duration::from_secs(30),
            queue: QueueConfig::default(),
            send_exemplars: false,
            send_native_histograms: false,
            send_custom_buckets: false,
            send_metadata: true,
            metadata_interval: Duration::from_secs(60),
            protocol: Protocol::V1,
            sample_age_limit: None,
            backlog: BacklogConfig::default(),
            history_of_new_selectors: true,
            audit_interval: Duration::from_secs(10),
            positions_dir: positions_dir.into(),
        }
    }

    /// What a scraper node sends to its long-term node: the series that `matchers` select, all that belongs to them,
    /// soon.
    #[must_use]
    pub fn longterm(
        name: impl Into<String>,
        url: impl Into<String>,
        positions_dir: impl Into<PathBuf>,
        matchers: Vec<Vec<Matcher>>,
    ) -> Self {
        let queue = QueueConfig {
            batch_send_deadline: Duration::from_millis(500),
            poll_interval: Duration::from_millis(50),
            ..QueueConfig::default()
        };
        Self {
            matchers,
            queue,
            send_exemplars: true,
            send_native_histograms: true,
            send_custom_buckets: true,
            protocol: Protocol::V2,
            ..Self::new(name, url, positions_dir)
        }
    }
}

/// Messages of remote write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// Pace of the backlog lane. The live lane goes first whatever is set here.
#[derive(Clone, Debug, PartialEq)]
pub struct BacklogConfig {
    /// Most samples per second; 0 for no limit.
    pub samples_per_second: f64,
    /// Samples in one request.
    pub batch_samples: usize,
    /// Requests under way at one time.
    pub in_flight: usize,
    /// The lane pauses while the live lane is behind by more than this.
    pub yield_above: Duration,
    /// When the live lane has not reached the end of the log for so long, it goes on at the end, and what lies between is
    /// left to this lane.
    pub leave_behind_after: Duration,
    /// How long newly tagged series are collected before their history is looked for.
    pub promotion_delay: Duration,
    /// How late samples may come into the local store: a gap is widened by so much.
    pub late_window: Duration,
}

impl Default for BacklogConfig {
    fn default() -> Self {
        Self {
            samples_per_second: 500_000.0,
            batch_samples: 10_000,
            in_flight: 2,
            yield_above: Duration::from_secs(1),
            leave_behind_after: Duration::from_secs(300),
            promotion_delay: Duration::from_secs(3),
            late_window: Duration::ZERO,
        }
    }
}

/// Batches, shards and retries of a sender. The defaults are Prometheus's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Samples read and not yet acknowledged, per shard. When all shards together hold so many, reading the log pauses.
    pub capacity: usize,
    /// Most requests under way at one time.
    pub max_shards: usize,
    /// Requests that may be under way at one time from the start.
    pub min_shards: usize,
    /// Most samples in one request.
    pub max_samples_per_send: usize,
    /// Longest time that a sample waits for its batch to fill up.
    pub batch_send_deadline: Duration,
    /// First pause before a batch is sent again.
    pub min_backoff: Duration,
    /// Longest pause before a batch is sent again.
    pub max_backoff: Duration,
    /// How often the log is asked for news once all of it is read.
    pub poll_interval: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            max_shards: 50,
            min_shards: 1,
            max_samples_per_send: 2_000,
            batch_send_deadline: Duration::from_secs(5),
            min_backoff: Duration::from_millis(30),
            max_backoff: Duration::from_secs(5),
            poll_interval: Duration::from_millis(100),
        }
    }
}

/// A remote-read endpoint.
#[derive(Clone, Debug)]
pub struct RemoteReadConfig {
    /// Names the endpoint in warnings and errors.
    pub name: String,
    /// Address of the remote-read endpoint, ending in `/api/v1/read`; label names and values are asked for beside it.
    pub url: String,
    /// How to speak to it.
    pub http: HttpConfig,
    /// Time for one request.
    pub timeout: Duration,
    /// Longest answer taken, in bytes, compressed.
    pub max_response_bytes: usize,
    /// Longest answer taken, in bytes, decompressed.
    pub max_decompressed_bytes: usize,
    /// Longest message taken of an answer that is a stream of them, in bytes.
    pub max_frame_bytes: usize,
}

impl RemoteReadConfig {
    /// An endpoint with Prometheus's time-out and bound of messages, and bounds of 64 MiB and 512 MiB on answers.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            http: HttpConfig::default(),
            timeout: Duration::from_secs(60),
            max_response_bytes: 64 << 20,
            max_decompressed_bytes: 512 << 20,
            max_frame_bytes: 50_000_000,
        }
    }
}
