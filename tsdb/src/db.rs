//! [`Db`]: the database in a directory: lock, head, write-ahead log, blocks, and the maintenance that moves samples from one
//! to the other.
//!
//! ```text
//! lock                       held while open
//! wal/00000007 …             write-ahead log
//! wal/checkpoint.00000006/   what still counts of earlier segments
//! 01BKGV7JBM69T2G1BGBGM6KB12/  a block: meta.json, index, chunks/, tombstones
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::storage::WalSource;
use model::{
    Appendable, Appender, Clock, Exemplar, Labels, Matcher, Metadata, Querier, Queryable, SeriesRef,
    StorageError, WalPosition, WalTail,
};
use parking_lot::Mutex;

use crate::block::meta::Ulid;
use crate::block::{self, Block};
use crate::config::Config;
use crate::dir::{self, DirLock};
use crate::error::Error;
use crate::head::Head;
use crate::head::append::HeadAppender;
use crate::head::replay::Replay;
use crate::metrics::Metrics;
use crate::querier::DbQuerier;
use crate::stats::Stats;
use crate::wal::tail::Tail;
use crate::wal::{Wal, checkpoint};
use crate::{compact, retention, stats};

const WAL_DIR: &str = "wal";
/// Prometheus's log of out-of-order samples.
const WBL_DIR: &str = "wbl";
/// How long cutting a block waits for commits that are being applied, in steps of a millisecond. They take far less.
const SETTLE_STEPS_MAX: u32 = 30_000;

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
    maintenance: Mutex<Maintenance>,
    closed: AtomicBool,
    metrics: Arc<Metrics>,
    _lock: DirLock,
}

#[derive(Default)]
struct Maintenance {
    /// The head may lose what is before this time as soon as readers up to this number are gone.
    truncation: Option<(i64, u64)>,
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
        metrics.retention_seconds.set(config.retention_ms as f64 / 1000.0);
        if dir::exists(&config.dir.join(WBL_DIR)) {
            tracing::warn!("the directory has a log of out-of-order samples (wbl), which is not read");
        }
        block::remove_temporary(&config.dir)?;
        let blocks = open_blocks(&config.dir, &metrics)?;
        let min_valid = blocks.iter().map(|b| b.meta.max_time).max().unwrap_or(i64::MIN);

        let wal_dir = config.dir.join(WAL_DIR);
        dir::create_all(&wal_dir)?;
        dir::sync(&config.dir)?;
        checkpoint::remove_temporary(&wal_dir)?;
        let start = clock.monotonic();
        let (replay, log) =
            Replay::run(&wal_dir, config.min_block_ms, config.exemplars_max, min_valid, &metrics)?;
        metrics.replay_duration.set((clock.monotonic() - start).as_secs_f64());
        let wal = Arc::new(Wal::create(&wal_dir, &config, log.next_segment, metrics.clone())?);
        let head =
            Head::new(config.min_block_ms, config.exemplars_max, min_valid, wal, replay, metrics.clone());
        let db = Arc::new(Self {
            head: Arc::new(head),
            blocks: ArcSwap::from_pointee(blocks),
            maintenance: Mutex::default(),
            closed: AtomicBool::new(false),
            config,
            clock,
            metrics,
            _lock: lock,
        });
        db.show_sizes()?;
        Ok(db)
    }

    /// Cuts blocks from the head, drops what they hold from memory and log, and drops blocks by retention. Blocks the
    /// caller; meant to be called about every minute. Calls at the same time wait for each other.
    ///
    /// # Errors
    /// When files cannot be read or written. Nothing is lost; the next call tries again.
    pub fn maintain(&self) -> Result<(), Error> {
        self.check_open()?;
        let mut state = self.maintenance.lock();
        while self.finish_truncation(&mut state)? && self.cut_block(&mut state)? {}
        self.drop_blocks()?;
        self.show_sizes()?;
        Ok(())
    }

    /// Whether nothing is waiting to be truncated any more.
    fn finish_truncation(&self, state: &mut Maintenance) -> Result<bool, StorageError> {
        let Some((end, reader)) = state.truncation else { return Ok(true) };
        if self.head.isolation.is_reading(reader, end) {
            return Ok(false);
        }
        self.head.truncate_memory(end);
        state.truncation = None;
        self.head.truncate_wal(end)?;
        Ok(true)
    }

    /// Whether a block was due.
    fn cut_block(&self, state: &mut Maintenance) -> Result<bool, StorageError> {
        let Some((_, end)) = self.head.compactable() else { return Ok(false) };
        let commit = self.head.refuse_before(end);
        let mut steps = 0;
        while !self.head.is_settled(commit) {
            steps += 1;
            if steps > SETTLE_STEPS_MAX {
                return Err(StorageError::Unavailable {
                    who: "head".into(),
                    reason: "a commit takes too long: no block is cut this time".into(),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let timer = self.metrics.compaction_duration.start_timer();
        let block = match compact::cut_head(&self.head, &self.config.dir, end, self.clock.now_ms()) {
            Ok(block) => block,
            Err(e) => {
                self.metrics.compactions_failed.inc();
                return Err(e);
            }
        };
        timer.observe_duration();
        self.metrics.compactions.inc();
        if let Some(block) = block {
            tracing::info!(ulid = %block.ulid, mint = block.meta.min_time, maxt = block.meta.max_time,
                series = block.meta.stats.num_series, "block written");
            let mut blocks = self.blocks.load().to_vec();
            blocks.push(Arc::new(block));
            blocks.sort_by_key(|b| (b.meta.min_time, b.ulid));
            self.blocks.store(Arc::new(blocks));
        }
        state.truncation = Some((end, self.head.isolation.last_reader()));
        Ok(true)
    }

    fn drop_blocks(&self) -> Result<(), StorageError> {
        let blocks = self.blocks.load_full();
        let doomed = retention::pick(
            &blocks,
            self.config.retention_ms,
            self.config.retention_bytes,
            self.head.wal.len_bytes()?,
        );
        self.metrics.time_retentions.inc_by(doomed.by_time.len() as u64);
        self.metrics.size_retentions.inc_by(doomed.by_size.len() as u64);
        let gone: Vec<_> = doomed.by_time.into_iter().chain(doomed.by_size).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let rest = blocks.iter().filter(|b| !gone.iter().any(|g| g.ulid == b.ulid)).cloned().collect();
        self.blocks.store(Arc::new(rest));
        for b in gone {
            tracing::info!(ulid = %b.ulid, mint = b.meta.min_time, maxt = b.meta.max_time, "block dropped");
            b.remove()?;
        }
        Ok(())
    }

    fn show_sizes(&self) -> Result<(), StorageError> {
        let blocks = self.blocks.load();
        self.metrics.blocks_loaded.set(blocks.len() as i64);
        self.metrics.blocks_bytes.set(blocks.iter().map(|b| b.len_bytes as i64).sum());
        self.metrics.symbols_bytes.set(blocks.iter().map(|b| b.index.memory_bytes() as i64).sum());
        self.metrics.wal_storage_bytes.set(self.head.wal.len_bytes()? as i64);
        self.metrics.lowest_timestamp.set(self.min_time().unwrap_or(i64::MAX));
        Ok(())
    }

    /// Makes everything committed so far durable.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub fn flush(&self) -> Result<(), Error> {
        self.head.wal.sync().map_err(Error::from)
    }

    /// Makes everything durable and refuses further batches and queries. The directory stays locked until the database is
    /// dropped.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        let _maintenance = self.maintenance.lock();
        self.head.wal.close().map_err(Error::from)
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.closed.load(Ordering::SeqCst) { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Timestamp of the oldest sample held here, or a lower bound; `None` when there is none.
    #[must_use]
    pub fn min_time(&self) -> Option<i64> {
        let blocks = self.blocks.load();
        blocks.iter().map(|b| b.meta.min_time).chain(self.head.min_time()).min()
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

/// Opens all blocks of a directory, sorted by start. Blocks that another one replaces are removed, damaged ones are set
/// aside.
fn open_blocks(root: &Path, metrics: &Metrics) -> Result<Vec<Arc<Block>>, StorageError> {
    let mut blocks = Vec::new();
    for name in dir::list(root)? {
        let path = root.join(&name);
        let Some(ulid) = Ulid::parse(&name).filter(|_| dir::is_dir(&path)) else { continue };
        match Block::open(&path, ulid) {
            Ok(b) => blocks.push(Arc::new(b)),
            Err(e @ StorageError::Corruption { .. }) => {
                metrics.quarantined_blocks.inc();
                tracing::error!(block = %name, error = %e, "damaged block set aside: its samples are missing");
                dir::publish(&path, &root.join(format!("{name}.quarantined")))?;
            }
            Err(e) => return Err(e),
        }
    }
    let replaced: Vec<Ulid> = blocks
        .iter()
        .flat_map(|b| b.meta.compaction.parents.iter())
        .filter_map(|p| Ulid::parse(&p.ulid))
        .collect();
    let (gone, mut kept): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .partition(|b: &Arc<Block>| b.meta.compaction.deletable || replaced.contains(&b.ulid));
    for b in gone {
        b.remove()?;
    }
    kept.sort_by_key(|b| (b.meta.min_time, b.ulid));
    Ok(kept)
}

// === The contracts of `model` ===

impl Appendable for Db {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        self.check_open()?;
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
