//! Which directories are blocks: opening them, taking in those that others put there, dropping what retention says.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use model::StorageError;

use super::{Db, WAL_DIR};
use crate::block::meta::{Meta, Ulid};
use crate::block::{self, Block};
use crate::dir;
use crate::head::head_chunks::HEAD_CHUNKS_DIR;
use crate::head::late::WBL_DIR;
use crate::metrics::Metrics;
use crate::retention::{self, Limits};

/// A damaged block gets this suffix.
const QUARANTINED_SUFFIX: &str = ".quarantined";

/// The end of the newest block that took everything of its time from the head: a start takes what is older from blocks alone.
pub(super) fn end_of_head(blocks: &[Arc<Block>]) -> i64 {
    let whole = blocks.iter().filter(|b| b.meta.is_from_whole_head());
    whole.map(|b| b.meta.max_time).max().unwrap_or(i64::MIN)
}

/// Opens all blocks of a directory, sorted by start. Blocks that another one replaces are removed, damaged ones are set
/// aside.
pub(super) fn open_all(root: &Path, metrics: &Metrics) -> Result<Vec<Arc<Block>>, StorageError> {
    let mut metas: HashMap<Ulid, Meta> = HashMap::new();
    let names = ulids(root)?;
    for ulid in &names {
        if let Ok(meta) = Meta::read(&root.join(ulid.to_string())) {
            metas.insert(*ulid, meta);
        }
    }
    let mut blocks: Vec<Arc<Block>> = Vec::new();
    for ulid in &names {
        let path = root.join(ulid.to_string());
        match Block::open(&path, *ulid) {
            Ok(b) => blocks.push(Arc::new(b)),
            // Removing it was interrupted, or it is replaced: nothing of it is missing.
            Err(StorageError::Corruption { .. }) if is_replaced(*ulid, &metas) => {}
            Err(e @ StorageError::Corruption { .. }) => {
                metrics.quarantined_blocks.inc();
                tracing::error!(block = %ulid, error = %e, "damaged block set aside: its samples are missing");
                dir::publish(&path, &root.join(format!("{ulid}{QUARANTINED_SUFFIX}")))?;
            }
            Err(e) => return Err(e),
        }
    }
    // Only a block that opens replaces others.
    let replaced = replaced(blocks.iter().map(|b| &b.meta));
    for ulid in names.iter().filter(|u| replaced.contains(*u)) {
        block::remove(&root.join(ulid.to_string()))?;
    }
    blocks.retain(|b| !replaced.contains(&b.ulid));
    let (gone, mut kept): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|b| b.meta.compaction.deletable);
    for b in gone {
        b.remove()?;
    }
    sort(&mut kept);
    Ok(kept)
}

/// ULIDs of the directories that may be blocks.
fn ulids(root: &Path) -> Result<Vec<Ulid>, StorageError> {
    let names = dir::list(root)?;
    // Others may use lower case; ours is upper case, and only that is a block.
    let parsed = names.iter().filter_map(|n| Ulid::parse(n).filter(|u| u.to_string() == *n));
    Ok(parsed.filter(|u| dir::is_dir(&root.join(u.to_string()))).collect())
}

fn replaced<'a>(metas: impl Iterator<Item = &'a Meta>) -> HashSet<Ulid> {
    metas.flat_map(|m| m.compaction.parents.iter()).filter_map(|p| Ulid::parse(&p.ulid)).collect()
}

fn is_replaced(ulid: Ulid, metas: &HashMap<Ulid, Meta>) -> bool {
    replaced(metas.values()).contains(&ulid)
}

fn sort(blocks: &mut [Arc<Block>]) {
    blocks.sort_by_key(|b| (b.meta.min_time, b.ulid));
}

impl Db {
    /// Takes in blocks that were put into the directory, and lets go of those that vanished from it.
    pub(super) fn reload_blocks(&self) -> Result<(), StorageError> {
        self.metrics.reloads.inc();
        let there = ulids(&self.config.dir).inspect_err(|_| self.metrics.reloads_failed.inc())?;
        let known = self.blocks.load_full();
        let mut blocks: Vec<Arc<Block>> = known.iter().filter(|b| there.contains(&b.ulid)).cloned().collect();
        let mut changed = blocks.len() != known.len();
        let have: HashSet<Ulid> = blocks.iter().map(|b| b.ulid).collect();
        for ulid in there.into_iter().filter(|u| !have.contains(u)) {
            // It may just be being copied: it is looked at again the next time.
            match Block::open(&self.config.dir.join(ulid.to_string()), ulid) {
                Ok(b) => {
                    tracing::info!(%ulid, mint = b.meta.min_time, maxt = b.meta.max_time, "block found");
                    blocks.push(Arc::new(b));
                    changed = true;
                }
                Err(e) => {
                    self.metrics.reloads_failed.inc();
                    tracing::warn!(%ulid, error = %e, "a directory that may be a block does not open");
                }
            }
        }
        if changed {
            sort(&mut blocks);
            self.blocks.store(Arc::new(blocks));
        }
        Ok(())
    }

    /// Shows a new block, if there is one, in place of others, which are removed.
    pub(super) fn replace_blocks(&self, gone: &[Arc<Block>], new: Option<Block>) -> Result<(), StorageError> {
        let is_gone = |b: &Arc<Block>| gone.iter().any(|g| g.ulid == b.ulid);
        let mut blocks: Vec<_> = self.blocks.load().iter().filter(|b| !is_gone(b)).cloned().collect();
        blocks.extend(new.map(Arc::new));
        sort(&mut blocks);
        self.blocks.store(Arc::new(blocks));
        gone.iter().try_for_each(|b| b.remove())
    }

    /// Drops blocks by retention.
    pub(super) fn drop_blocks(&self) -> Result<(), StorageError> {
        let blocks = self.blocks.load_full();
        let mut retention_bytes = self.config.retention_bytes;
        if self.config.retention_percentage > 0.0 {
            match dir::file_system_bytes(&self.config.dir) {
                Some(size) => {
                    retention_bytes = (size as f64 * self.config.retention_percentage / 100.0) as u64;
                }
                None => tracing::warn!(
                    "the size of the file system is not known: retention by percentage is not applied"
                ),
            }
        }
        let limits = Limits { retention_ms: self.config.retention_ms, retention_bytes };
        let doomed = retention::pick(&blocks, limits, self.head_bytes()?);
        self.metrics.time_retentions.inc_by(u64::from(!doomed.by_time.is_empty()));
        self.metrics.size_retentions.inc_by(u64::from(!doomed.by_size.is_empty()));
        let gone: Vec<_> = doomed.by_time.into_iter().chain(doomed.by_size).collect();
        if gone.is_empty() {
            return Ok(());
        }
        for b in &gone {
            tracing::info!(ulid = %b.ulid, mint = b.meta.min_time, maxt = b.meta.max_time, "block dropped");
        }
        self.replace_blocks(&gone, None)
    }

    /// What the head takes on disk.
    fn head_bytes(&self) -> Result<u64, StorageError> {
        let mut total = 0;
        for name in [WAL_DIR, WBL_DIR, HEAD_CHUNKS_DIR] {
            let path = self.config.dir.join(name);
            if dir::exists(&path) {
                total += dir::len_all(&path)?;
            }
        }
        Ok(total)
    }

    pub(super) fn show_sizes(&self) -> Result<(), StorageError> {
        let blocks = self.blocks.load();
        self.metrics.blocks_loaded.set(blocks.len() as i64);
        self.metrics.blocks_bytes.set(blocks.iter().map(|b| b.len_bytes as i64).sum());
        self.metrics.symbols_bytes.set(blocks.iter().map(|b| b.index.memory_bytes() as i64).sum());
        self.metrics.wal_storage_bytes.set(self.head.wal.len_bytes()? as i64);
        let lowest = self.min_time().unwrap_or(i64::MAX);
        self.metrics.lowest_timestamp.set(lowest);
        self.metrics.lowest_timestamp_seconds.set(lowest / 1000);
        Ok(())
    }
}
