//! [`Db`]: the database in a directory: lock, head, write-ahead log and blocks.
//!
//! Reading order: this file (opening, and the contracts of `model`), `blocks` (which directories are blocks), `maintain`
//! (what moves samples from the head into blocks, and from blocks into longer ones), `admin` (deletes and snapshots).
//!
//! ```text
//! lock                       held while open
//! wal/00000007 …             write-ahead log
//! wal/checkpoint.00000006/   what still counts of earlier segments
//! 01BKGV7JBM69T2G1BGBGM6KB12/  a block: meta.json, index, chunks/, tombstones
//! ```

mod admin;
mod blocks;
mod maintain;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use crate::head::head_chunks::HeadChunks;
use crate::head::replay::Replay;
use crate::metrics::Metrics;
use crate::querier::DbQuerier;
use crate::stats::Stats;
use crate::wal::tail::Tail;
use crate::wal::{Wal, checkpoint};
use crate::{compact, stats};
use maintain::{Maintenance, Signal};

const WAL_DIR: &str = "wal";

/// An open database.
///
/// What is committed is in the write-ahead log: it survives the process, and with `fsync_on_commit` the machine. A querier
/// sees each commit whole or not at all, and only commits that had ended when it was opened.
pub struct Db {
    config: Config,
    clock: Arc<dyn Clock>,
    head: Arc<Head>,
    /// Sorted by start.
    blocks: ArcSwap<Vec<Arc<Block>>>,
    /// Lengths of blocks, rising.
    ranges: Vec<i64>,
    maintenance: Mutex<Maintenance>,
    signal: Arc<Signal>,
    closed: AtomicBool,
    metrics: Arc<Metrics>,
    _lock: DirLock,
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
        config.check()?;
        let lock = dir::lock(&config.dir)?;
        let metrics = Arc::new(Metrics::register(registry)?);
        metrics.retention_bytes.set(config.retention_bytes as i64);
        metrics.retention_percentage.set(config.retention_percentage);
        metrics.retention_seconds.set(config.retention_ms as f64 / 1000.0);
        block::remove_temporary(&config.dir)?;
        let blocks = blocks::open_all(&config.dir, &metrics)?;
        let whole = blocks.iter().filter(|b| b.meta.is_from_whole_head());
        let min_valid = whole.map(|b| b.meta.max_time).max().unwrap_or(i64::MIN);

        let wal_dir = config.dir.join(WAL_DIR);
        dir::create_all(&wal_dir)?;
        dir::sync(&config.dir)?;
        checkpoint::remove_temporary(&wal_dir)?;
        let start = clock.monotonic();
        let (replay, log) = Replay::run(&wal_dir, &config, min_valid, &metrics)?;
        metrics.replay_duration.set((clock.monotonic() - start).as_secs_f64());
        let wal = Arc::new(Wal::create(&wal_dir, &config, log.next_segment, metrics.wal())?);
        let head =
            Head::new(&config, min_valid, (wal, HeadChunks::open(&config.dir)?), replay, metrics.clone());
        let db = Arc::new(Self {
            head: Arc::new(head),
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
        db.show_sizes()?;
        Ok(db)
    }

    /// Makes everything committed so far durable.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub fn flush(&self) -> Result<(), Error> {
        self.head.wal.sync()?;
        self.head.sync_late().map_err(Error::from)
    }

    /// Makes everything durable and refuses further batches and queries. The directory stays locked until the database is
    /// dropped.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        self.signal.stop();
        let _maintenance = self.maintenance.lock();
        self.head.close_late()?;
        self.head.wal.close().map_err(Error::from)
    }

    /// Takes samples that are late by at most so much from now on; 0: samples of a series must come in order.
    pub fn set_out_of_order_window(&self, window_ms: i64) {
        self.head.set_late_window(window_ms);
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.closed.load(Ordering::SeqCst) { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Timestamp of the oldest sample held here, or a lower bound; `None` when there is none.
    #[must_use]
    pub fn min_time(&self) -> Option<i64> {
        let blocks = self.blocks.load();
        let late = self.head.late_range().map(|(min, _)| min);
        blocks.iter().map(|b| b.meta.min_time).chain(self.head.min_time()).chain(late).min()
    }

    /// Timestamp of the newest sample; `None` when there is none.
    #[must_use]
    pub fn max_time(&self) -> Option<i64> {
        let blocks = self.blocks.load();
        blocks.iter().map(|b| b.meta.max_time - 1).chain(self.head.max_time()).max()
    }

    /// Counts of the head; lists of at most `limit` entries. Walks all series.
    #[must_use]
    pub fn stats(&self, limit: usize) -> Stats {
        stats::of_head(&self.head, limit)
    }

    /// Exemplars within `[mint, maxt]` of the series that pass one of the sets of matchers, sorted by labels, those of a
    /// series by time. Exemplars are held in memory only, the newest ones.
    #[must_use]
    pub fn exemplars(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        self.head.exemplars(sets, mint, maxt)
    }

    /// Type, unit and help last set for a series of the head.
    #[must_use]
    pub fn metadata(&self, series: SeriesRef) -> Option<Arc<Metadata>> {
        self.head.series.get(series)?.state.lock().metadata.clone()
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.signal.stop();
    }
}

// === The contracts of `model` ===

impl Appendable for Db {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        self.check_open()?;
        if self.head.compactable().is_some() {
            self.signal.wake();
        }
        Ok(Box::new(HeadAppender::new(self.head.clone())))
    }
}

impl Queryable for Db {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.check_open()?;
        let snapshot = self.head.isolation.snapshot(mint);
        let blocks = self.blocks.load();
        Ok(Box::new(DbQuerier::new(self.head.clone(), snapshot, &blocks, mint, maxt)))
    }
}

impl WalSource for Db {
    fn tail(&self, from: Option<WalPosition>) -> Result<Box<dyn WalTail>, StorageError> {
        Ok(Box::new(Tail::open(self.head.wal.clone(), from)?))
    }

    fn end(&self) -> WalPosition {
        self.head.wal.end()
    }

    fn hold(&self, reader: &str, position: Option<WalPosition>) {
        self.head.wal.hold(reader, position);
    }
}
