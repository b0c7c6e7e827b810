//! The long-term store: samples of a year and more in one RocksDB.
//!
//! A committed batch is a journal record, durable when `commit` returns, and open samples in memory. `maintain`, called about
//! once a minute, seals open samples into compressed chunks, cuts the journal behind them and drops expired months.
//! Queries see journal and chunks as one, each sample exactly once. The only user of RocksDB in the project.
//!
//! Not here: the wire (crate `wire`), deduplication of HA pairs, merging with a local store.
//!
//! Read in this order: docs/formats/longterm.md; `keys`, `families`, `rows`, `journal`, `chunk` (with `floats`, `ints`,
//! `sample_codec`), `postings` for the bytes; `registry`, `open` for the memory; `appender`, `commit` for the way in; `replay` for
//! opening; `seal`, `rollup`, `expire`, `retention` for maintenance; `select`, `read` for the way out; `delete`, `snapshot`, `verify` for operators; `stats`;
//! `write` is where all rows go out.
//!
//! Locks, in the order in which they may nest: maintenance, writer, open, registry. None but the first two is held
//! across I/O.

mod appender;
mod chunk;
mod chunk_rows;
mod commit;
mod config;
mod delete;
mod error;
mod expire;
mod families;
mod floats;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod ints;
mod journal;
mod keys;
mod maintain;
mod metrics;
mod open;
mod postings;
mod read;
mod registry;
mod replay;
mod retention;
mod rollup;
mod rows;
mod sample_codec;
mod seal;
mod select;
mod snapshot;
mod stats;
#[cfg(test)]
mod tests;
mod varint;
mod verify;
mod write;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Appendable, Appender, Clock, Querier, Queryable, StorageError};
use parking_lot::{Mutex, RwLock};
use rocksdb::{BoundColumnFamily, DB};

pub(crate) use chunk::sealed_len_bytes;
pub use chunk::{ANY_CHUNKS, AnyChunkCodec, FLOAT_CHUNKS, FloatChunkCodec};
pub use config::StoreConfig;
pub use delete::Deleted;
pub use error::StoreError;
pub use maintain::MaintainReport;
pub use retention::RetentionRule;
pub use rollup::ROLLUP_GRIDS_MS;
pub use snapshot::SNAPSHOTS_DIR;
pub use stats::StoreStats;
pub use verify::{VerifyReport, verify};

use appender::LongtermAppender;
use commit::{Ticket, Writer};
use keys::Month;
use maintain::Maintenance;
use metrics::Metrics;
use open::{Open, Readers};
use registry::Registry;

/// The long-term store. Cheap to share; the database closes when the last user, open queries included, is gone.
pub struct LongtermStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: StoreConfig,
    clock: Arc<dyn Clock>,
    db: DB,
    registry: RwLock<Registry>,
    open: RwLock<Open>,
    readers: Readers,
    writer: Mutex<Writer>,
    queue: Mutex<Vec<Arc<Ticket>>>,
    maintenance: Mutex<Maintenance>,
    /// Months that may have data.
    months: RwLock<BTreeSet<Month>>,
    metrics: Metrics,
    closed: AtomicBool,
    /// Some part with sealed samples may lack its row of rollups.
    rollup_gaps: AtomicBool,
    #[cfg(test)]
    write_fault: write::fault::WriteFault,
}

impl LongtermStore {
    /// Opens the store in `config.dir`, makes it when there is none, and reads the journal. Blocks for the latter.
    ///
    /// # Errors
    /// [`StoreError`] tells what to do: the directory is locked by another process, cannot be written, belongs to a newer
    /// format or to something else, or is damaged.
    pub fn open(
        config: StoreConfig,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>, StoreError> {
        config.check()?;
        let db = families::open(&config)?;
        let inner = replay::load(config, clock, db, Metrics::new(metrics))?;
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Seals what is due, cuts the journal, drops expired months. To be called about once a minute on a thread that may
    /// block; calls do not overlap.
    ///
    /// # Errors
    /// When RocksDB fails. Nothing is lost; the next call tries again.
    pub fn maintain(&self) -> Result<MaintainReport, StorageError> {
        self.inner.check_open()?;
        self.inner.maintain()
    }

    /// Writes all files anew in their smallest form: what was deleted leaves the disk, and everything is compressed as data is that
    /// has lain for a while. Takes minutes per 10 GB; writing and reading go on. Open samples stay open.
    ///
    /// # Errors
    /// When memory cannot be written out.
    pub fn compact(&self) -> Result<(), StorageError> {
        self.inner.check_open()?;
        let mut options = rocksdb::CompactOptions::default();
        // What has to be compacted for other reasons need not wait.
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        for family in families::FAMILIES {
            let cf = self.inner.cf(family);
            self.inner.db.flush_cf(&cf).map_err(|e| self.inner.error("flush", &e))?;
            self.inner.db.compact_range_cf_opt(&cf, None::<&[u8]>, None::<&[u8]>, &options);
        }
        Ok(())
    }

    /// Ends writing and makes everything durable. Open samples stay in the journal. Appenders and queriers asked for later
    /// get [`StorageError::Closed`]; queries under way finish.
    ///
    /// # Errors
    /// When the last bytes cannot be written.
    pub fn close(&self) -> Result<(), StorageError> {
        if self.inner.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        // Behind both locks no commit and no sealing is under way any more.
        let _maintenance = self.inner.maintenance.lock();
        let _writer = self.inner.writer.lock();
        self.inner.db.flush_wal(true).map_err(|e| self.inner.error("sync", &e))?;
        for family in families::FAMILIES {
            self.inner.db.flush_cf(&self.inner.cf(family)).map_err(|e| self.inner.error("flush", &e))?;
        }
        Ok(())
    }

    /// The directory of the store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.config.dir
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), StorageError> {
        if self.closed.load(Ordering::SeqCst) { Err(StorageError::Closed) } else { Ok(()) }
    }

    fn cf(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(name).expect("all families were opened")
    }

    fn error(&self, op: &'static str, e: &rocksdb::Error) -> StorageError {
        error::storage_error(op, &self.config.dir, e)
    }

    /// First timestamp within the longest retention.
    fn oldest_ms(&self, now_ms: i64) -> i64 {
        self.expiry_ms(now_ms).saturating_sub(self.config.longest_ms()).max(0)
    }
}

impl Appendable for LongtermStore {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        self.inner.check_open()?;
        self.inner.check_memory()?;
        Ok(Box::new(LongtermAppender::new(self.inner.clone())))
    }
}

impl Queryable for LongtermStore {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.inner.check_open()?;
        Ok(Box::new(read::LongtermQuerier::new(self.inner.clone(), mint, maxt)))
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        &rollup::ROLLUP_GRIDS_MS
    }
}
