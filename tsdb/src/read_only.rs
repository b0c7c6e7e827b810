//! [`ReadOnly`]: a data directory looked at from outside, for tools: nothing in it is changed, and whoever has it open is not
//! disturbed.
//!
//! What is not in blocks yet is replayed in a sandbox: a temporary directory beside the data, with links to the blocks and
//! copies of the logs, which goes when the reader is dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Clock, Matcher, StorageError};

use crate::block::meta::Ulid;
use crate::block::{Block, index_read::RawSeries};
use crate::config::Config;
use crate::db::Db;
use crate::dir;
use crate::error::Error;
use crate::postings;

/// Parts of a data directory that are not blocks and hold samples.
const HEAD_DIRS: [&str; 3] = ["wal", "wbl", "chunks_head"];

/// What a block says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its name.
    pub ulid: String,
    /// Timestamp of the first sample, or a lower bound.
    pub min_time: i64,
    /// Samples are before this.
    pub max_time: i64,
    /// Number of samples.
    pub samples: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Number of series.
    pub series: u64,
    /// Length of all its files.
    pub bytes: u64,
}

impl BlockInfo {
    pub(crate) fn of(b: &Block) -> Self {
        let stats = &b.meta.stats;
        Self {
            ulid: b.ulid.to_string(),
            min_time: b.meta.min_time,
            max_time: b.meta.max_time,
            samples: stats.num_samples,
            chunks: stats.num_chunks,
            series: stats.num_series,
            bytes: b.len_bytes,
        }
    }
}

/// A data directory that is only read.
pub struct ReadOnly {
    dir: PathBuf,
    /// Sorted by start.
    blocks: Vec<Arc<Block>>,
}

impl ReadOnly {
    /// Opens the blocks of a directory.
    ///
    /// # Errors
    /// When the directory cannot be read, or a block in it is damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut blocks = Vec::new();
        for name in dir::list(path)? {
            let Some(ulid) = Ulid::parse(&name).filter(|u| u.to_string() == name) else { continue };
            if dir::exists(&path.join(&name).join("meta.json")) {
                blocks.push(Arc::new(Block::open(&path.join(&name), ulid)?));
            }
        }
        blocks.sort_by_key(|b| (b.meta.min_time, b.ulid));
        Ok(Self { dir: path.to_owned(), blocks })
    }

    /// The blocks, sorted by start.
    #[must_use]
    pub fn blocks(&self) -> Vec<BlockInfo> {
        self.blocks.iter().map(|b| BlockInfo::of(b)).collect()
    }

    /// The block with this name, or the one that was written last: the first by name of those of the same millisecond.
    fn block(&self, ulid: Option<&str>) -> Result<&Arc<Block>, Error> {
        match ulid {
            None => self
                .blocks
                .iter()
                .max_by_key(|b| (b.ulid.time_ms(), std::cmp::Reverse(b.ulid)))
                .ok_or_else(|| Error::Config("no blocks found".into())),
            Some(u) => {
                let found = self.blocks.iter().find(|b| b.ulid.to_string() == u);
                found.ok_or_else(|| Error::Config(format!("block {u} not found")))
            }
        }
    }

    /// Counts what a block has: the one with this name, or the one written last; only of the series that pass the matchers.
    ///
    /// # Errors
    /// When there is no such block, or it cannot be read.
    pub fn analyze(
        &self,
        ulid: Option<&str>,
        matchers: &[Matcher],
    ) -> Result<crate::analysis::Analysis, Error> {
        crate::analysis::analyze(self.block(ulid)?, matchers).map_err(Error::from)
    }

    /// Opens what has samples up to `maxt` for queries. The sandbox is made below `sandbox_root`, or in the directory itself.
    ///
    /// # Errors
    /// When files cannot be read, or the sandbox not be made.
    pub fn queryable(
        &self,
        maxt: i64,
        sandbox_root: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<ReadOnlyDb, Error> {
        let now_ms = clock.now_ms();
        let name = format!("tmp_dbro_sandbox{:016x}", Ulid::new(now_ms).random());
        let sandbox = Sandbox(sandbox_root.unwrap_or(&self.dir).join(name));
        dir::create_all(&sandbox.0)?;
        self.blocks.iter().try_for_each(|b| b.snapshot(&sandbox.0))?;
        let covered = self.blocks.iter().map(|b| b.meta.max_time).max();
        if covered.is_none_or(|t| t <= maxt) {
            for name in HEAD_DIRS {
                let from = self.dir.join(name);
                if dir::exists(&from) {
                    dir::copy_all(&from, &sandbox.0.join(name))?;
                }
            }
        }
        let config = Config { retention_ms: 0, exemplars_max: 0, ..Config::new(&sandbox.0) };
        let db = Db::open(config, clock, &prometheus::Registry::new())?;
        Ok(ReadOnlyDb { db: Some(db), _sandbox: sandbox })
    }
}

/// A data directory as a store that is only read.
pub struct ReadOnlyDb {
    /// Dropped before its directory.
    db: Option<Arc<Db>>,
    _sandbox: Sandbox,
}

impl Drop for ReadOnlyDb {
    fn drop(&mut self) {
        self.db = None;
    }
}

impl model::Queryable for ReadOnlyDb {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn model::Querier>, StorageError> {
        match &self.db {
            Some(db) => db.querier(mint, maxt),
            None => Err(StorageError::Closed),
        }
    }
}

/// A directory that goes when it is dropped.
struct Sandbox(PathBuf);

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(e) = dir::remove_all(&self.0) {
            tracing::warn!(error = %e, "a sandbox could not be removed");
        }
    }
}

/// Ids of the series of a block that pass the matchers; all without matchers.
pub(crate) fn series_ids(block: &Block, matchers: &[Matcher]) -> Result<Vec<u64>, StorageError> {
    postings::resolve(&block.index, matchers)
}

/// Reads a series of a block with all its chunks.
pub(crate) fn read_series(block: &Block, id: u64, out: &mut RawSeries) -> Result<(), StorageError> {
    block.index.series(id, i64::MIN, i64::MAX, out)
}
