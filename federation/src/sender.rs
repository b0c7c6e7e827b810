//! The live lane: follows the write-ahead log and sends what a destination wants, at least once.
//!
//! A thread reads the log ([`reader`]) and hands pieces to a task ([`dispatcher`]), which fills batches and gives
//! them to shards ([`crate::shard`]). What is acknowledged moves the position ([`crate::queue`]), which a third task
//! stores about once a second. Nothing here ever makes the writer of the log wait: a slow destination pauses the
//! reader.
//!
//! # What is promised
//!
//! - The stored position only passes samples that the destination has acknowledged with a 2xx, has refused for good
//!   (answers in the 400s but 429; counted and logged) or does not want. After a restart sending goes on from there,
//!   so samples may arrive twice and are not lost, as long as the log still holds them.
//! - When the log no longer reaches back to the position, that is logged, counted
//!   (`almanac_federation_gap_total`) and kept in [`SenderStatus::gaps`].
//! - Samples of one series arrive in the order of the log. Between series nothing is promised.
//! - At most `capacity * shards` samples, plus three pieces of the log (64 records each), wait in memory.
//! - Without a stored position sending begins at the start of the log as it is.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use model::storage::{WalPosition, WalSource};
use model::{Clock, StorageError};
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::SenderConfig;
use crate::http::{HttpClient, HttpError, parse_url};
use crate::queue::position::PositionFile;

mod dispatcher;
pub(crate) mod metrics;
mod reader;
mod series;
#[cfg(test)]
mod tests;

use dispatcher::Dispatcher;
use metrics::SenderMetrics;
use reader::Reader;
use series::SeriesCache;

/// How often the position is stored, at most.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);

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
    /// No thread could be started.
    #[error("remote write {name:?}: cannot start a thread: {reason}")]
    Thread {
        /// Name of the destination.
        name: String,
        /// What the system says.
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
    /// Parts of the log that were gone before they were sent, since the start of the sender.
    pub gaps: Vec<Gap>,
    /// Newest timestamp acknowledged, in milliseconds; `None` before the first.
    pub highest_sent_ms: Option<i64>,
}

/// What the parts of one sender share.
pub(crate) struct Shared {
    pub(crate) config: SenderConfig,
    pub(crate) uri: Uri,
    pub(crate) client: HttpClient,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<SenderMetrics>,
    gaps: Mutex<Vec<Gap>>,
    highest_sent_ms: AtomicI64,
}

impl Shared {
    /// Notes a gap, loudly.
    pub(crate) fn note_gap(&self, gap: Gap) {
        tracing::error!(
            destination = self.config.name,
            from = %gap.from,
            to = %gap.to,
            "the write-ahead log no longer holds what was not yet sent: samples between these positions did not reach the destination"
        );
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
}

/// Starts senders.
#[derive(Clone, Copy, Debug)]
pub struct Sender;

impl Sender {
    /// Starts sending. Blocks for the time it takes to read the position file; needs a tokio runtime with I/O and
    /// time, given as `runtime`.
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
        let name = config.name.clone();
        let (uri, client) =
            check(&config).map_err(|e| SenderError::Config { name: name.clone(), reason: e.to_string() })?;
        let position = |source| SenderError::Position { name: name.clone(), source };
        let file = PositionFile::open(&config.positions_dir, &name).map_err(position)?;
        let start = file.load().map_err(position)?;
        let metrics_error =
            |e: prometheus::Error| SenderError::Metrics { name: name.clone(), reason: e.to_string() };
        let metrics = SenderMetrics::register(registry, &name, &config.url).map_err(metrics_error)?;
        if let Err(e) = metrics.show_config(&config.queue) {
            metrics.unregister();
            return Err(metrics_error(e));
        }
        // Segments are kept from before the reader opens the log, or a checkpoint between the two could drop them.
        // A position beyond the end is of another log; all of this one is needed then.
        let hold_name = hold_name(&name);
        let end = source.end();
        source.hold(&hold_name, Some(start.filter(|p| *p <= end).unwrap_or_default()));
        let shared = Arc::new(Shared {
            config,
            uri,
            client,
            clock,
            metrics: Arc::new(metrics),
            gaps: Mutex::new(Vec::new()),
            highest_sent_ms: AtomicI64::new(i64::MIN),
        });
        match spawn(&shared, &source, start, file, runtime) {
            Ok(handle) => Ok(handle),
            Err(e) => {
                shared.metrics.unregister();
                source.hold(&hold_name, None);
                Err(SenderError::Thread { name, reason: e.to_string() })
            }
        }
    }
}

/// The name under which the log knows this reader.
fn hold_name(destination: &str) -> String {
    format!("remote_write/{destination}")
}

fn check(config: &SenderConfig) -> Result<(Uri, HttpClient), HttpError> {
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
    Ok((parse_url(&config.url)?, HttpClient::new(&config.http)?))
}

fn spawn(
    shared: &Arc<Shared>,
    source: &Arc<dyn WalSource>,
    start: Option<WalPosition>,
    file: PositionFile,
    runtime: &Handle,
) -> std::io::Result<SenderHandle> {
    let (pieces, pieces_in) = mpsc::channel(1);
    let (stop_reader, reader_stop) = std::sync::mpsc::channel();
    let config = &shared.config;
    let reader = Reader {
        source: source.clone(),
        shared: shared.clone(),
        cache: SeriesCache::new(
            config.matchers.clone(),
            config.write_relabel.clone(),
            config.external_labels.clone(),
        ),
        start,
        pieces,
        stop: reader_stop,
    };
    let thread = std::thread::Builder::new().name("remote-write-read".into()).spawn(move || reader.run())?;

    let acknowledged = start.unwrap_or_default();
    let (position, position_rx) = watch::channel(acknowledged);
    let (stop, stop_rx) = oneshot::channel();
    let dispatcher = Dispatcher::new(shared.clone(), pieces_in, position, acknowledged, runtime.clone());
    let task = runtime.spawn(dispatcher.run(stop_rx));
    let keeper = Keeper { shared: shared.clone(), source: source.clone(), file, stored: start };
    let keeper = runtime.spawn(keeper.run(position_rx.clone()));
    Ok(SenderHandle {
        shared: shared.clone(),
        source: source.clone(),
        runtime: runtime.clone(),
        position: position_rx,
        running: Some(Running { thread, stop_reader, stop, task, keeper }),
    })
}

/// Stores the position as it moves, and lets the log go of what lies before it.
struct Keeper {
    shared: Arc<Shared>,
    source: Arc<dyn WalSource>,
    file: PositionFile,
    stored: Option<WalPosition>,
}

impl Keeper {
    /// Runs until the position has no sender any more, and stores the last one.
    async fn run(mut self, mut position: watch::Receiver<WalPosition>) {
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

    async fn store(&mut self, position: WalPosition) {
        let file = self.file.clone();
        let result = tokio::task::spawn_blocking(move || file.store(position)).await;
        let error = match result {
            Ok(Ok(())) => {
                self.stored = Some(position);
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
async fn closed(position: &mut watch::Receiver<WalPosition>) {
    while position.changed().await.is_ok() {}
}

struct Running {
    thread: std::thread::JoinHandle<()>,
    stop_reader: std::sync::mpsc::Sender<()>,
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<bool>,
    keeper: JoinHandle<()>,
}

/// A running sender. Dropped without [`SenderHandle::stop`] it ends soon, without waiting for requests under way; the
/// stored position is right all the same.
pub struct SenderHandle {
    shared: Arc<Shared>,
    source: Arc<dyn WalSource>,
    runtime: Handle,
    position: watch::Receiver<WalPosition>,
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

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> SenderStatus {
        SenderStatus {
            acknowledged: *self.position.borrow(),
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
        let Some(Running { thread, stop_reader, stop, task, keeper }) = self.running.take() else {
            return true;
        };
        drop(stop_reader);
        // A receiver that is gone has ended already.
        let _ = stop.send(deadline);
        let name = &self.shared.config.name;
        let clean = task.await.unwrap_or_else(|e| {
            tracing::error!(destination = name, error = %e, "the sender's task failed");
            false
        });
        if let Err(e) = keeper.await {
            tracing::error!(destination = name, error = %e, "the task that stores the position failed");
        }
        let joined = self.runtime.spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!(destination = name, "the reader of the write-ahead log failed");
        }
        self.shared.metrics.unregister();
        clean
    }
}

impl Drop for SenderHandle {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            self.shared.metrics.unregister();
        }
    }
}
