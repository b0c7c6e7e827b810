//! The live lane: follows the write-ahead log and sends what a destination wants, at least once.
//!
//! A task reads the log ([`reader`]) and hands pieces to another ([`dispatcher`]), which fills batches and gives
//! them to shards ([`crate::shard`]). What is acknowledged moves the position ([`crate::queue`]), which a third task
//! stores about once a second. Nothing here ever makes the writer of the log wait: a slow destination pauses the
//! reader. With a local store at hand, the backlog lane ([`crate::backlog`]) runs beside and sends what the log no longer
//! has, or never had.
//!
//! # What is promised
//!
//! - The stored position only passes samples that the destination has acknowledged with a 2xx, has refused for good
//!   (answers in the 400s but 429; counted and logged) or does not want. After a restart sending goes on from there,
//!   so samples may arrive twice and are not lost, as long as the log still holds them.
//! - When the log no longer reaches back to the position, that is logged, counted (`almanac_federation_gap_total`) and
//!   kept in [`SenderStatus::gaps`]; with a local store the range is enqueued to the backlog before the position passes
//!   the gap.
//! - With a local store, new samples do not wait behind old ones: when the reader has not reached the end of the log for
//!   minutes, it goes on at the end, and what lies between is enqueued likewise.
//! - Selectors that the position was not reached with, and series that get their tag, bring their local history into
//!   the backlog, likewise before the position passes.
//! - Samples of one series arrive in the order of the log. Between series, and between the lanes, nothing is promised.
//! - At most `capacity * shards` samples, plus three pieces of the log (64 records each), wait in memory.
//! - Without a stored position sending begins at the start of the log as it is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use model::storage::{WalPosition, WalSource};
use model::trace::Tracer;
use model::{Clock, Matcher, Metadata, Queryable, StorageError};
use parking_lot::RwLock;
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::audit::worker::AuditMetrics;
use crate::audit::{self, Auditor, DigestSource};
use crate::backlog::{Backlog, BacklogMetrics, Lane, LocalStore, NewRange, Promoter, Reason};
use crate::config::{Protocol, SenderConfig};
use crate::http::{HttpClient, HttpError, parse_url};
use crate::queue::position::{PositionFile, Stored};
use crate::queue::{Acknowledged, Times};
use crate::transport::Transport;

mod dispatcher;
pub(crate) mod metrics;
mod reader;
mod series;
#[cfg(test)]
pub(crate) mod tests;

use dispatcher::{Dispatcher, Promotions};
use metrics::SenderMetrics;
use reader::Reader;
pub(crate) use series::Naming;
use series::SeriesCache;

/// How often the position is stored, at most.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// Families whose metadata is remembered; beyond it all are forgotten and noted again when met.
const MAX_FAMILIES: usize = 100_000;
/// Nothing waits.
const NOT_WAITING: u64 = u64::MAX;

/// Why a sender did not start.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// A setting that cannot be used.
    #[error("remote write {name:?}: {reason}")]
    Config {
        /// Name of the destination.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The position cannot be read or kept.
    #[error("remote write {name:?}: {source}")]
    Position {
        /// Name of the destination.
        name: String,
        /// What failed.
        source: StorageError,
    },
    /// Another sender of the same name and address runs, or the registry holds other metrics of these names.
    #[error("remote write {name:?}: metrics: {reason}")]
    Metrics {
        /// Name of the destination.
        name: String,
        /// What the registry says.
        reason: String,
    },
}

/// A part of the log that was gone before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The position that was asked for.
    pub from: WalPosition,
    /// The first position that the log still had.
    pub to: WalPosition,
}

/// How a sender stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderStatus {
    /// Everything before it is acknowledged. May be a little ahead of what is stored.
    pub acknowledged: WalPosition,
    /// Times of acknowledged samples; `None` before the first.
    pub times: Option<Times>,
    /// Parts of the log that were gone before they were sent, since the start of the sender.
    pub gaps: Vec<Gap>,
    /// Newest timestamp acknowledged, in milliseconds; `None` before the first.
    pub highest_sent_ms: Option<i64>,
    /// How long samples wait to be read or acknowledged.
    pub live_lag: Duration,
}

/// What the parts of one sender share.
pub(crate) struct Shared {
    pub(crate) config: SenderConfig,
    pub(crate) uri: Uri,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Arc<SenderMetrics>,
    /// Whether the destination has turned out not to know version 2.0.
    pub(crate) only_v1: AtomicBool,
    gaps: Mutex<Vec<Gap>>,
    highest_sent_ms: AtomicI64,
    /// When the reader last was at the end of the log, in milliseconds of the monotonic clock.
    caught_up_at: AtomicU64,
    /// When the oldest piece with unacknowledged items was read, likewise.
    waiting_since: AtomicU64,
    families: RwLock<HashMap<String, Arc<Metadata>>>,
}

impl Shared {
    /// Notes a gap, loudly.
    pub(crate) fn note_gap(&self, gap: Gap, repaired: bool) {
        let destination = &self.config.name;
        let (from, to) = (gap.from, gap.to);
        if repaired {
            tracing::warn!(
                destination, %from, %to,
                "the write-ahead log no longer holds what was not yet sent: it is read from blocks and head and sent beside new samples"
            );
        } else {
            tracing::error!(
                destination, %from, %to,
                "the write-ahead log no longer holds what was not yet sent: samples between these positions did not reach the destination"
            );
        }
        self.metrics.gaps.inc();
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).push(gap);
    }

    /// Notes the newest timestamp of an acknowledged batch.
    pub(crate) fn note_sent(&self, newest_ms: i64) {
        let before = self.highest_sent_ms.fetch_max(newest_ms, Ordering::Relaxed);
        let highest_ms = before.max(newest_ms);
        if highest_ms > i64::MIN {
            self.metrics.highest_sent.set(highest_ms as f64 / 1000.0);
        }
    }

    /// Newest acknowledged timestamp.
    pub(crate) fn highest_sent_ms(&self) -> Option<i64> {
        let t = self.highest_sent_ms.load(Ordering::Relaxed);
        (t > i64::MIN).then_some(t)
    }

    /// The message that the destination gets.
    pub(crate) fn protocol(&self) -> Protocol {
        if self.only_v1.load(Ordering::Relaxed) { Protocol::V1 } else { self.config.protocol }
    }

    fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic().as_millis() as u64
    }

    /// The reader is at the end of the log.
    pub(crate) fn note_caught_up(&self) {
        self.caught_up_at.store(self.monotonic_ms(), Ordering::Relaxed);
    }

    /// How long the reader has not been at the end of the log.
    pub(crate) fn reading_lag(&self) -> Duration {
        let since = self.caught_up_at.load(Ordering::Relaxed);
        Duration::from_millis(self.monotonic_ms().saturating_sub(since))
    }

    /// When the oldest piece with unacknowledged items was read.
    pub(crate) fn note_waiting(&self, since: Option<Duration>) {
        let since = since.map_or(NOT_WAITING, |d| d.as_millis() as u64);
        self.waiting_since.store(since, Ordering::Relaxed);
    }

    /// How long new samples wait: to be read, or to be acknowledged.
    pub(crate) fn live_lag(&self) -> Duration {
        let now = self.monotonic_ms();
        let since = self.caught_up_at.load(Ordering::Relaxed).min(self.waiting_since.load(Ordering::Relaxed));
        Duration::from_millis(now.saturating_sub(since))
    }

    /// Notes what is known of a metric family; says whether it is new, and gives it to be shared.
    pub(crate) fn note_family(&self, family: &str, metadata: &Metadata) -> (Arc<Metadata>, bool) {
        if let Some(known) = self.families.read().get(family).filter(|known| ***known == *metadata) {
            return (known.clone(), false);
        }
        let mut families = self.families.write();
        if families.len() >= MAX_FAMILIES {
            families.clear();
        }
        let new = Arc::new(metadata.clone());
        families.insert(family.to_owned(), new.clone());
        (new, true)
    }

    /// What is known of all metric families.
    pub(crate) fn families(&self) -> Vec<(String, Arc<Metadata>)> {
        self.families.read().iter().map(|(family, m)| (family.clone(), m.clone())).collect()
    }

    /// What is known of the family of a metric name.
    pub(crate) fn metadata_of(&self, metric_name: &str) -> Option<Arc<Metadata>> {
        let families = self.families.read();
        let bare = ["_bucket", "_count", "_sum"].iter().find_map(|s| metric_name.strip_suffix(s));
        families.get(metric_name).or_else(|| families.get(bare?)).cloned()
    }
}

/// The destination as something to be read.
#[derive(Clone)]
pub struct RemoteSide {
    /// Its digests.
    pub digests: Arc<dyn DigestSource>,
    /// Its samples.
    pub samples: Arc<dyn Queryable>,
}

/// What a sender works with.
pub struct SenderParts {
    /// The log.
    pub source: Arc<dyn WalSource>,
    /// The local store behind it; without one there is no backlog lane.
    pub local: Option<Arc<dyn LocalStore>>,
    /// The destination as something to be read: with it and a local store, the audit runs.
    pub remote: Option<RemoteSide>,
    /// What carries requests; `None` for an HTTP client as configured.
    pub transport: Option<Arc<dyn Transport>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where metrics go.
    pub registry: Registry,
    /// A tokio runtime with I/O and time.
    pub runtime: Handle,
    /// Records what requests take their time for.
    pub tracer: Tracer,
}

/// Starts senders.
#[derive(Clone, Copy, Debug)]
pub struct Sender;

impl Sender {
    /// Starts sending without a local store. Blocks for the time it takes to read the position file; needs a tokio
    /// runtime with I/O and time, given as `runtime`.
    ///
    /// # Errors
    /// When settings make no sense, the position cannot be read or stored, or a sender of this name and address runs
    /// already.
    pub fn start(
        config: SenderConfig,
        source: Arc<dyn WalSource>,
        clock: Arc<dyn Clock>,
        registry: &Registry,
        runtime: &Handle,
    ) -> Result<SenderHandle, SenderError> {
        let (registry, runtime) = (registry.clone(), runtime.clone());
        let parts = SenderParts {
            source,
            local: None,
            remote: None,
            transport: None,
            clock,
            registry,
            runtime,
            tracer: Tracer::default(),
        };
        Self::start_with(config, parts)
    }

    /// Starts sending. Blocks for the time it takes to read the files of the destination.
    ///
    /// # Errors
    /// As [`Sender::start`].
    pub fn start_with(config: SenderConfig, parts: SenderParts) -> Result<SenderHandle, SenderError> {
        let SenderParts { source, local, remote, transport, clock, registry, runtime, tracer } = parts;
        let name = config.name.clone();
        let (uri, transport) = check(&config, transport)
            .map_err(|e| SenderError::Config { name: name.clone(), reason: e.to_string() })?;
        let position = |source| SenderError::Position { name: name.clone(), source };
        let file = PositionFile::open(&config.positions_dir, &name).map_err(position)?;
        let stored = file.load().map_err(position)?;
        let backlog = local
            .as_ref()
            .map(|_| open_backlog(&config, stored.as_ref(), &file, clock.clone()))
            .transpose()
            .map_err(position)?;
        let start = stored.map(|s| s.acknowledged);
        let metrics_error =
            |e: prometheus::Error| SenderError::Metrics { name: name.clone(), reason: e.to_string() };
        let metrics = SenderMetrics::register(&registry, &name, &config.url).map_err(metrics_error)?;
        let audited = remote.is_some() && backlog.is_some();
        let shown = metrics.show_config(&config.queue).and_then(|()| {
            let lane = backlog.as_ref().map(|_| metrics.register_backlog()).transpose()?;
            let audit = audited.then(|| metrics.register_audit()).transpose()?;
            Ok((lane.map(Arc::new), audit.map(Arc::new)))
        });
        let (lane_metrics, audit_metrics) = match shown {
            Ok(m) => m,
            Err(e) => {
                metrics.unregister();
                return Err(metrics_error(e));
            }
        };
        // Segments are kept from before the reader opens the log, or a checkpoint between the two could drop them.
        // A position beyond the end is of another log; all of this one is needed then.
        let end = source.end();
        let needed = start.map(|a| a.position).filter(|p| *p <= end).unwrap_or_default();
        source.hold(&hold_name(&name), Some(needed));
        let shared = Arc::new(Shared {
            caught_up_at: AtomicU64::new(clock.monotonic().as_millis() as u64),
            waiting_since: AtomicU64::new(NOT_WAITING),
            config,
            uri,
            transport,
            clock,
            tracer,
            metrics: Arc::new(metrics),
            only_v1: AtomicBool::new(false),
            gaps: Mutex::new(Vec::new()),
            highest_sent_ms: AtomicI64::new(i64::MIN),
            families: RwLock::default(),
        });
        let lane = match (local, backlog, lane_metrics) {
            (Some(store), Some(backlog), Some(metrics)) => Some((store, backlog, metrics)),
            _ => None,
        };
        let audit = remote.zip(audit_metrics);
        Ok(spawn(&shared, &source, start, file, (lane, audit), &runtime))
    }
}

/// Opens the backlog, and enqueues the history of selectors that the position was not reached with.
fn open_backlog(
    config: &SenderConfig,
    stored: Option<&Stored>,
    file: &PositionFile,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Backlog>, StorageError> {
    let now_ms = clock.now_ms();
    let backlog = Backlog::open(&config.positions_dir, &config.name, &config.matchers, clock)?;
    if config.history_of_new_selectors
        && let Some(selectors) = newly_selected(&config.matchers, stored)
    {
        let reason = Reason::Selectors;
        backlog.enqueue(NewRange { reason, selectors, strip: Vec::new(), mint: i64::MIN, maxt: now_ms })?;
    }
    let selectors = Some(selector_texts(&config.matchers));
    if let Some(stored) = stored.filter(|s| s.selectors != selectors) {
        // Behind the backlog, so that the history is enqueued again when this does not get through.
        file.store(&Stored { selectors, ..stored.clone() })?;
    }
    Ok(backlog)
}

/// The matcher sets as the position file has them.
fn selector_texts(sets: &[Vec<Matcher>]) -> Vec<String> {
    let mut texts: Vec<String> = sets.iter().map(|set| selector_text(set)).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// A matcher set as PromQL writes a selector.
#[must_use]
pub fn selector_text(set: &[Matcher]) -> String {
    let list: Vec<String> = set.iter().map(ToString::to_string).collect();
    format!("{{{}}}", list.join(","))
}

/// The matcher sets that the stored position was not reached with; `None` when there is none. An empty list of sets
/// selects everything.
fn newly_selected(current: &[Vec<Matcher>], stored: Option<&Stored>) -> Option<Vec<Vec<Matcher>>> {
    let Some(stored) = stored else { return Some(current.to_vec()) };
    // A file of an older version does not say; what it was reached with is taken to be the same.
    let recorded = stored.selectors.as_ref()?;
    if recorded.is_empty() {
        return None;
    }
    if current.is_empty() {
        return Some(Vec::new());
    }
    let new: Vec<Vec<Matcher>> =
        current.iter().filter(|set| !recorded.contains(&selector_text(set))).cloned().collect();
    (!new.is_empty()).then_some(new)
}

/// The name under which the log knows this reader.
fn hold_name(destination: &str) -> String {
    format!("remote_write/{destination}")
}

fn check(
    config: &SenderConfig,
    transport: Option<Arc<dyn Transport>>,
) -> Result<(Uri, Arc<dyn Transport>), HttpError> {
    let bad = |reason: &str| Err(HttpError::Config(reason.to_owned()));
    let queue = &config.queue;
    if config.name.is_empty() {
        return bad("a destination needs a name");
    }
    if queue.max_samples_per_send == 0 || queue.capacity == 0 || queue.max_shards == 0 {
        return bad("queue_config: capacity, max_shards and max_samples_per_send must be above 0");
    }
    if queue.min_shards > queue.max_shards {
        return bad("queue_config: min_shards is above max_shards");
    }
    if queue.min_backoff > queue.max_backoff {
        return bad("queue_config: min_backoff is above max_backoff");
    }
    let uri = parse_url(&config.url)?;
    let transport = match transport {
        Some(transport) => transport,
        None => Arc::new(HttpClient::new(&config.http)?),
    };
    Ok((uri, transport))
}

/// A local store, its queue and the metrics of the lane between them.
type LaneParts = (Arc<dyn LocalStore>, Arc<Backlog>, Arc<BacklogMetrics>);

fn spawn(
    shared: &Arc<Shared>,
    source: &Arc<dyn WalSource>,
    start: Option<Acknowledged>,
    file: PositionFile,
    (lane, audit): (Option<LaneParts>, Option<(RemoteSide, Arc<AuditMetrics>)>),
    runtime: &Handle,
) -> SenderHandle {
    let config = &shared.config;
    let naming = Naming::new(config.write_relabel.clone(), config.external_labels.clone());
    let (stop_lane, lane_stop) = watch::channel(false);
    let backlog = lane.as_ref().map(|(_, backlog, _)| backlog.clone());
    let mut side = Vec::new();
    let audited = lane.as_ref().map(|(store, ..)| store.clone()).zip(audit);
    let promotions = lane.map(|(store, backlog, metrics)| {
        let (tagged, tagged_in) = mpsc::unbounded_channel();
        let (released, released_in) = mpsc::unbounded_channel();
        let promoter = Promoter {
            shared: shared.clone(),
            backlog: backlog.clone(),
            store: store.clone(),
            naming: naming.clone(),
            tagged: tagged_in,
            released,
        };
        side.push(runtime.spawn(promoter.run()));
        let lane = Lane::new(shared.clone(), backlog, store, naming.clone(), metrics, lane_stop.clone());
        side.push(runtime.spawn(lane.run()));
        Promotions { tagged, released: released_in }
    });

    let (pieces, pieces_in) = mpsc::channel(1);
    let cache = SeriesCache::new(config.matchers.clone(), naming);
    let reader = Reader::new(source.clone(), shared.clone(), backlog.clone(), cache, start);
    let reader = runtime.spawn(reader.run(pieces));
    let acknowledged = start.unwrap_or_default();
    let (position, position_rx) = watch::channel(acknowledged);
    let (stop, stop_rx) = oneshot::channel();
    let dispatcher =
        Dispatcher::new(shared.clone(), pieces_in, position, acknowledged, promotions, runtime.clone());
    let task = runtime.spawn(dispatcher.run(stop_rx));
    let keeper = Keeper { shared: shared.clone(), source: source.clone(), file, stored: start };
    let keeper = runtime.spawn(keeper.run(position_rx.clone()));
    if let (Some((store, (remote, metrics))), Some(backlog)) = (audited, &backlog) {
        let worker =
            audit_worker(shared, store, remote, backlog.clone(), metrics, position_rx.clone(), lane_stop);
        side.push(runtime.spawn(worker.run()));
    }
    SenderHandle {
        shared: shared.clone(),
        source: source.clone(),
        position: position_rx,
        backlog,
        running: Some(Running { reader, stop, task, keeper, stop_lane, side }),
    }
}

fn audit_worker(
    shared: &Arc<Shared>,
    store: Arc<dyn LocalStore>,
    remote: RemoteSide,
    backlog: Arc<Backlog>,
    metrics: Arc<AuditMetrics>,
    position: watch::Receiver<Acknowledged>,
    stop: watch::Receiver<bool>,
) -> audit::worker::Worker {
    let config = &shared.config;
    let mut auditor = Auditor::new(
        Arc::new(store.clone()),
        remote.digests,
        remote.samples,
        config.matchers.clone(),
        config.external_labels.clone(),
    );
    if let Some(label) = &config.replica_label {
        auditor = auditor.of_replica(label);
    }
    audit::worker::Worker {
        shared: shared.clone(),
        backlog,
        store,
        auditor: Arc::new(auditor),
        position,
        stop,
        metrics,
        interval: config.audit_interval,
        state: audit::worker::State::default(),
    }
}

/// Stores the position as it moves, and lets the log go of what lies before it.
struct Keeper {
    shared: Arc<Shared>,
    source: Arc<dyn WalSource>,
    file: PositionFile,
    stored: Option<Acknowledged>,
}

impl Keeper {
    /// Runs until the position has no sender any more, and stores the last one.
    async fn run(mut self, mut position: watch::Receiver<Acknowledged>) {
        loop {
            let gone = position.changed().await.is_err();
            let current = *position.borrow_and_update();
            if self.stored != Some(current) {
                self.store(current).await;
            }
            if gone {
                return;
            }
            // The end may come while sleeping.
            let mut end = position.clone();
            tokio::select! {
                () = tokio::time::sleep(POSITION_INTERVAL) => {}
                () = closed(&mut end) => {}
            }
        }
    }

    async fn store(&mut self, acknowledged: Acknowledged) {
        let file = self.file.clone();
        let stored = Stored { acknowledged, selectors: Some(selector_texts(&self.shared.config.matchers)) };
        let result = tokio::task::spawn_blocking(move || file.store(&stored)).await;
        let error = match result {
            Ok(Ok(())) => {
                let position = acknowledged.position;
                self.stored = Some(acknowledged);
                self.source.hold(&hold_name(&self.shared.config.name), Some(position));
                let bytes = u64::from(position.segment) * (128 << 20) + position.offset;
                self.shared.metrics.acknowledged_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
                return;
            }
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        self.shared.metrics.position_errors.inc();
        tracing::error!(
            destination = self.shared.config.name,
            error,
            "cannot store the acknowledged position; trying again when it moves"
        );
    }
}

/// Returns when the channel has no sender any more.
async fn closed(position: &mut watch::Receiver<Acknowledged>) {
    while position.changed().await.is_ok() {}
}

struct Running {
    reader: JoinHandle<()>,
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<bool>,
    keeper: JoinHandle<()>,
    stop_lane: watch::Sender<bool>,
    /// The backlog lane and whoever looks at newly tagged series.
    side: Vec<JoinHandle<()>>,
}

/// A running sender. Dropped without [`SenderHandle::stop`] it ends soon, without waiting for requests under way; the
/// stored position is right all the same.
pub struct SenderHandle {
    shared: Arc<Shared>,
    source: Arc<dyn WalSource>,
    position: watch::Receiver<Acknowledged>,
    backlog: Option<Arc<Backlog>>,
    running: Option<Running>,
}

impl std::fmt::Debug for SenderHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SenderHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl SenderHandle {
    /// Name of the destination.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// Directory of the position file.
    #[must_use]
    pub fn positions_dir(&self) -> &Path {
        &self.shared.config.positions_dir
    }

    /// Its queue of history to be sent; `None` without a local store.
    #[must_use]
    pub fn backlog(&self) -> Option<&Arc<Backlog>> {
        self.backlog.as_ref()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> SenderStatus {
        let Acknowledged { position, times } = *self.position.borrow();
        SenderStatus {
            acknowledged: position,
            times,
            live_lag: self.shared.live_lag(),
            gaps: self.shared.gaps.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            highest_sent_ms: self.shared.highest_sent_ms(),
        }
    }

    /// Stops: reads no more, sends what is read as far as `deadline` allows, and stores the position. The log goes on
    /// keeping what is not acknowledged, for the next start. Returns whether everything read was acknowledged.
    pub async fn stop(mut self, deadline: Duration) -> bool {
        self.halt(deadline).await
    }

    /// Stops and tells the log that this destination needs nothing of it any more. The position stays on disk.
    pub async fn stop_and_release(mut self, deadline: Duration) -> bool {
        let clean = self.halt(deadline).await;
        self.source.hold(&hold_name(&self.shared.config.name), None);
        clean
    }

    async fn halt(&mut self, deadline: Duration) -> bool {
        let Some(Running { reader, stop, task, keeper, stop_lane, side }) = self.running.take() else {
            return true;
        };
        // The lane keeps its place and gives way at once; a receiver that is gone has ended already.
        let _ = stop_lane.send(true);
        let _ = stop.send(deadline);
        let name = &self.shared.config.name;
        let clean = task.await.unwrap_or_else(|e| {
            tracing::error!(destination = name, error = %e, "the sender's task failed");
            false
        });
        for (what, task) in [("position", keeper), ("reader", reader)]
            .into_iter()
            .chain(side.into_iter().map(|t| ("backlog", t)))
        {
            if let Err(e) = task.await {
                tracing::error!(destination = name, what, error = %e, "a task of the sender failed");
            }
        }
        self.shared.metrics.unregister();
        clean
    }
}

impl Drop for SenderHandle {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            running.side.iter().for_each(JoinHandle::abort);
            self.shared.metrics.unregister();
        }
    }
}
