//! [`Db`]: the database in a directory: lock, head, write-ahead log and blocks.
//!
//! Reading order: this file (opening, and the contracts of `model`), `start` (replaying the log while batches are taken),
//! `journal` (where these go), `blocks` (which directories are blocks), `maintain` (what moves samples from the head into
//! blocks, and from blocks into longer ones), `admin` (deletes and snapshots).
//!
//! ```text
//! lock                       held while open
//! wal/00000007 …             write-ahead log
//! wal/checkpoint.00000006/   what still counts of earlier segments
//! journal/00000000 …         batches taken during a replay
//! chunk_snapshot.000007.0000065536/  the head as it was there in the log
//! 01BKGV7JBM69T2G1BGBGM6KB12/  a block: meta.json, index, chunks/, tombstones
//! ```

mod admin;
mod blocks;
mod journal;
mod maintain;
mod start;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use model::storage::WalSource;
use model::{
    Appendable, Appender, Clock, Exemplar, Labels, Matcher, Metadata, Querier, Queryable, SeriesRef,
    StorageError, WalPosition, WalTail,
};
use parking_lot::Mutex;

use crate::block::{self, Block};
use crate::config::Config;
use crate::dir::{self, DirLock};
use crate::error::Error;
use crate::head::Head;
use crate::head::append::HeadAppender;
use crate::metrics::{LogMetrics, Metrics};
use crate::querier::DbQuerier;
use crate::stats::Stats;
use crate::wal::checkpoint;
use crate::wal::tail::Tail;
use crate::{compact, stats};
use journal::{Journal, JournalAppender};
use maintain::{Maintenance, Signal};
use start::Start;

const WAL_DIR: &str = "wal";

/// The head, once the log has been replayed. It is only looked into behind [`Db::check_ready`].
#[derive(Default)]
pub(crate) struct HeadSlot(OnceLock<Arc<Head>>);

impl std::ops::Deref for HeadSlot {
    type Target = Arc<Head>;

    fn deref(&self) -> &Arc<Head> {
        self.0.get().expect("callers have asked whether the head is there")
    }
}

/// An open database.
///
/// What is committed is in the write-ahead log: it survives the process, and with `fsync_on_commit` the machine. A querier
/// sees each commit whole or not at all, and only commits that had ended when it was opened.
///
/// After [`Db::start`] batches are taken at once, while the log is still being replayed; queries, deletes and followers of the
/// log are refused until [`Db::wait_ready`] returns.
pub struct Db {
    config: Config,
    clock: Arc<dyn Clock>,
    pub(crate) head: Arc<HeadSlot>,
    start: Arc<Start>,
    late_window_ms: Arc<AtomicI64>,
    /// Sorted by start.
    pub(crate) blocks: ArcSwap<Vec<Arc<Block>>>,
    /// Lengths of blocks, rising.
    ranges: Vec<i64>,
    maintenance: Mutex<Maintenance>,
    signal: Arc<Signal>,
    closed: AtomicBool,
    metrics: Arc<Metrics>,
    _lock: Arc<DirLock>,
}

impl Db {
    /// Opens the database in `config.dir`, which is made when it does not exist: reads blocks, replays the write-ahead log
    /// and repairs it where the end is torn.
    ///
    /// # Errors
    /// When a setting is not possible, another process has the directory, or files cannot be read or written. A block
    /// that is damaged is set aside under the name `<ULID>.quarantined` and does not stop the opening.
    pub fn open(
        config: Config,
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, Error> {
        let db = Self::start(config, clock, registry)?;
        db.wait_ready()?;
        Ok(db)
    }

    /// As [`Db::open`], but the log is replayed by a thread of its own, and batches are taken meanwhile.
    ///
    /// # Errors
    /// As [`Db::open`]; what the replay fails with comes from [`Db::wait_ready`].
    pub fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, Error> {
        config.check()?;
        let lock = Arc::new(dir::lock(&config.dir)?);
        let metrics = Arc::new(Metrics::register(registry, &clock)?);
        metrics.retention_bytes.set(config.retention_bytes as i64);
        metrics.retention_percentage.set(config.retention_percentage);
        metrics.retention_seconds.set(config.retention_ms as f64 / 1000.0);
        block::remove_temporary(&config.dir)?;
        let blocks = blocks::open_all(&config.dir, &metrics)?;
        let min_valid = blocks::end_of_head(&blocks);

        let wal_dir = config.dir.join(WAL_DIR);
        dir::create_all(&wal_dir)?;
        dir::sync(&config.dir)?;
        checkpoint::remove_temporary(&wal_dir)?;
        checkpoint::remove_replaced(&wal_dir)?;
        let unseen = LogMetrics::unseen(&clock).map_err(|e| Error::Metrics(e.to_string()))?;
        let journal = Arc::new(Journal::open(&config, unseen)?);
        let db = Arc::new(Self {
            head: Arc::default(),
            start: Arc::new(Start::new(&config.dir, journal, min_valid)),
            late_window_ms: Arc::new(AtomicI64::new(config.out_of_order_window_ms)),
            blocks: ArcSwap::from_pointee(blocks),
            ranges: compact::plan::ranges(config.min_block_ms, config.longest_block_ms()),
            maintenance: Mutex::default(),
            signal: Arc::default(),
            closed: AtomicBool::new(false),
            config,
            clock,
            metrics,
            _lock: lock,
        });
        db.spawn_replay()?;
        Ok(db)
    }

    /// Makes everything durable that was committed, also by an earlier process, which was killed and left it with the operating
    /// system.
    ///
    /// # Errors
    /// When the log cannot be synced; during a replay also when it must be written anew first because an fsync failed for it,
    /// which is done when the replay is through.
    pub fn flush(&self) -> Result<(), Error> {
        // What the journal does not have any more is in the log by then.
        self.start.journal.sync()?;
        self.start.sync_logs()?;
        if self.is_ready() { self.head.sync_late().map_err(Error::from) } else { Ok(()) }
    }

    /// Makes everything durable and refuses further batches and queries. The directory stays locked until the database is
    /// dropped. A replay that is under way is given up; the next start begins it again.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        self.signal.stop();
        self.start.stop();
        let replayed = self.start.wait();
        self.start.journal.close()?;
        if !self.is_ready() {
            self.start.sync_logs()?;
            return match replayed {
                Err(StorageError::Closed) | Ok(()) => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
        let _maintenance = self.maintenance.lock();
        self.head.close_late()?;
        self.head.wal.close()?;
        if self.config.snapshot_on_close {
            self.head.take_snapshot()?;
        }
        Ok(())
    }

    /// Takes samples that are late by at most so much from now on; 0: samples of a series must come in order.
    pub fn set_out_of_order_window(&self, window_ms: i64) {
        self.late_window_ms.store(window_ms, Ordering::SeqCst);
        if self.is_ready() {
            self.head.set_late_window(window_ms);
        }
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.closed.load(Ordering::SeqCst) { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Whether the head is there, and the database not closed.
    fn check_ready(&self) -> Result<(), StorageError> {
        self.check_open()?;
        if self.is_ready() {
            return Ok(());
        }
        let reason = "the write-ahead log is still being replayed".to_owned();
        Err(StorageError::Unavailable { who: "local storage".into(), reason })
    }

    /// Timestamp of the oldest sample held here, or a lower bound; `None` when there is none.
    #[must_use]
    pub fn min_time(&self) -> Option<i64> {
        let blocks = self.blocks.load();
        if !self.is_ready() {
            return blocks.iter().map(|b| b.meta.min_time).min();
        }
        let late = self.head.late_range().map(|(min, _)| min);
        blocks.iter().map(|b| b.meta.min_time).chain(self.head.min_time()).chain(late).min()
    }

    /// Timestamp of the newest sample; `None` when there is none.
    #[must_use]
    pub fn max_time(&self) -> Option<i64> {
        let blocks = self.blocks.load();
        let of_head = if self.is_ready() { self.head.max_time() } else { None };
        blocks.iter().map(|b| b.meta.max_time - 1).chain(of_head).max()
    }

    /// Counts of the head; lists of at most `limit` entries. Walks all series.
    #[must_use]
    pub fn stats(&self, limit: usize) -> Stats {
        if self.is_ready() { stats::of_head(&self.head, limit) } else { Stats::default() }
    }

    /// Exemplars within `[mint, maxt]` of the series that pass one of the sets of matchers, sorted by labels, those of a
    /// series by time. Exemplars are held in memory only, the newest ones.
    #[must_use]
    pub fn exemplars(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        if self.is_ready() { self.head.exemplars(sets, mint, maxt) } else { Vec::new() }
    }

    /// Type, unit and help last set for a series of the head.
    #[must_use]
    pub fn metadata(&self, series: SeriesRef) -> Option<Arc<Metadata>> {
        self.head.0.get()?.series.get(series)?.state.lock().metadata().cloned()
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.signal.stop();
        self.start.stop();
        // The thread that replays has the lock too.
        let _ = self.start.wait();
    }
}

// === The contracts of `model` ===

impl Appendable for Db {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        self.check_open()?;
        if !self.is_ready() {
            return Ok(Box::new(JournalAppender::new(self.start.journal.clone(), self.head.clone())));
        }
        if self.head.compactable().is_some() {
            self.signal.wake();
        }
        Ok(Box::new(HeadAppender::new((**self.head).clone())))
    }
}

impl Queryable for Db {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.check_ready()?;
        let snapshot = self.head.isolation.snapshot(mint);
        let blocks = self.blocks.load();
        Ok(Box::new(DbQuerier::new((**self.head).clone(), snapshot, &blocks, mint, maxt)))
    }
}

impl WalSource for Db {
    fn tail(&self, from: Option<WalPosition>) -> Result<Box<dyn WalTail>, StorageError> {
        self.check_ready()?;
        Ok(Box::new(Tail::open(self.head.wal.clone(), from)?))
    }

    /// Before the replay is through, the beginning of the log.
    fn end(&self) -> WalPosition {
        self.head.0.get().map_or(WalPosition::default(), |head| head.wal.end())
    }

    fn hold(&self, reader: &str, position: Option<WalPosition>) {
        if let Some(head) = self.head.0.get() {
            head.wal.hold(reader, position);
        }
    }
}
