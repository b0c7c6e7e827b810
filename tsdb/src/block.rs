//! Blocks: immutable directories that hold the samples of a range `[min_time, max_time)`, as Prometheus writes them.
//!
//! Reading order: `meta` (meta.json, ULIDs), `chunks` (chunk files), `symbols`, `index_write`, `index_read`, `tombstones`,
//! `read` (selections); then [`Block`], which opens a directory, and [`BlockWriter`], which makes one. Format: docs/formats/blocks.md.
//!
//! A block appears by rename, whole or not at all. Everything read from it is checked against its checksum.

pub(crate) mod chunks;
pub(crate) mod index_read;
pub(crate) mod index_write;
pub(crate) mod meta;
pub(crate) mod read;
pub(crate) mod symbols;
pub(crate) mod tombstones;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use model::{Matcher, StorageError};

use crate::{dir, postings};
use chunks::{ChunkFiles, ChunkWriter, StoredChunk};
use index_read::{IndexReader, RawSeries, SymbolPair};
use index_write::{IndexWriter, SymbolWriter};
use meta::{Meta, Ulid};
use tombstones::Tombstones;

pub(crate) const CREATION_SUFFIX: &str = ".tmp-for-creation";
pub(crate) const DELETION_SUFFIX: &str = ".tmp-for-deletion";
const INDEX: &str = "index";
const CHUNKS: &str = "chunks";

/// A chunk as the index of a block knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkMeta {
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    /// Number of the chunk file in the upper, offset in the lower 32 bits.
    pub(crate) reference: u64,
}

/// An open block.
pub(crate) struct Block {
    pub(crate) dir: PathBuf,
    pub(crate) ulid: Ulid,
    pub(crate) meta: Meta,
    pub(crate) index: IndexReader,
    pub(crate) chunks: ChunkFiles,
    tombstones: ArcSwap<Tombstones>,
    /// Merging it with others failed, and would again.
    failed: AtomicBool,
    pub(crate) len_bytes: u64,
}

impl Block {
    /// Opens a block's directory.
    ///
    /// # Errors
    /// [`StorageError::Corruption`] when it is not a whole block.
    pub(crate) fn open(block: &Path, ulid: Ulid) -> Result<Self, StorageError> {
        let meta = Meta::read(block)?;
        for part in [INDEX, CHUNKS] {
            let path = block.join(part);
            if !dir::exists(&path) {
                return Err(StorageError::Corruption { path, offset: 0, reason: "it is missing".into() });
            }
        }
        Ok(Self {
            dir: block.to_owned(),
            ulid,
            failed: AtomicBool::new(meta.compaction.failed),
            meta,
            index: IndexReader::open(&block.join(INDEX))?,
            chunks: ChunkFiles::open(&block.join(CHUNKS))?,
            tombstones: ArcSwap::from_pointee(Tombstones::read(block)?),
            len_bytes: dir::len_all(block)?,
        })
    }

    /// Whether the block may have samples within `[mint, maxt]`.
    pub(crate) fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.meta.min_time <= maxt && mint < self.meta.max_time
    }

    /// What is deleted, as of now.
    pub(crate) fn tombstones(&self) -> Arc<Tombstones> {
        self.tombstones.load_full()
    }

    /// What the block says of itself now: tombstones come, and merging it may have failed.
    pub(crate) fn meta_now(&self) -> Meta {
        let mut meta = self.meta.clone();
        meta.stats.num_tombstones = self.tombstones().len();
        meta.compaction.failed = self.failed.load(Ordering::Relaxed);
        meta
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes, durably, that merging the block with others failed because of what it holds.
    pub(crate) fn set_failed(&self) -> Result<(), StorageError> {
        self.failed.store(true, Ordering::Relaxed);
        self.meta_now().write(&self.dir)
    }

    /// Deletes samples within `[mint, maxt]` of the series that pass the matchers, durably. They stay in the chunks until
    /// the block is written anew. Calls do not overlap.
    pub(crate) fn delete(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<(), StorageError> {
        let mut stones = (*self.tombstones()).clone();
        let before = stones.clone();
        let mut series = RawSeries::default();
        for id in postings::resolve(&self.index, matchers)? {
            self.index.series(id, i64::MIN, i64::MAX, &mut series)?;
            let (Some(first), Some(last)) = (series.chunks.first(), series.chunks.last()) else { continue };
            if series.chunks.iter().any(|c| c.mint <= maxt && mint <= c.maxt) {
                stones.add(id, mint.max(first.mint), maxt.min(last.maxt));
            }
        }
        if stones == before {
            return Ok(());
        }
        stones.write(&self.dir)?;
        self.tombstones.store(Arc::new(stones));
        self.meta_now().write(&self.dir)
    }

    /// Links the block's files into a directory of the same name below `root`; tombstones, which change, are written anew.
    pub(crate) fn snapshot(&self, root: &Path) -> Result<(), StorageError> {
        let name = self.ulid.to_string();
        let temporary = root.join(format!("{name}{CREATION_SUFFIX}"));
        dir::create_all(&temporary.join(CHUNKS))?;
        dir::link(&self.dir.join(INDEX), &temporary.join(INDEX))?;
        for file in dir::list(&self.dir.join(CHUNKS))? {
            dir::link(&self.dir.join(CHUNKS).join(&file), &temporary.join(CHUNKS).join(&file))?;
        }
        self.tombstones().write(&temporary)?;
        self.meta_now().write(&temporary)?;
        dir::sync(&temporary.join(CHUNKS))?;
        dir::publish(&temporary, &root.join(name))
    }

    /// Removes the directory. Readers that have the block open go on.
    pub(crate) fn remove(&self) -> Result<(), StorageError> {
        remove(&self.dir)
    }
}

/// Removes a block's directory, so that an interruption leaves no half of it under its name. One that is gone is fine.
pub(crate) fn remove(block: &Path) -> Result<(), StorageError> {
    if !dir::exists(block) {
        return Ok(());
    }
    let name = block.file_name().expect("a block's directory has a name").to_string_lossy();
    let doomed = block.with_file_name(format!("{name}{DELETION_SUFFIX}"));
    dir::publish(block, &doomed)?;
    dir::remove_all(&doomed)
}

/// Writes a block. Symbols come first, then series in order of their labels, each after its chunks.
pub(crate) struct BlockWriter {
    root: PathBuf,
    ulid: Ulid,
    temporary: PathBuf,
    chunks: ChunkWriter,
    index: IndexWriter,
    stats: meta::Stats,
    /// Timestamps of the first and last sample.
    range: Option<(i64, i64)>,
    /// Chunks of the series to come.
    metas: Vec<ChunkMeta>,
}

impl BlockWriter {
    /// Begins a block in a directory. `symbols` is called to give every label name and value of the series to come,
    /// strictly sorted.
    pub(crate) fn create(
        root: &Path,
        ulid: Ulid,
        symbols: impl FnOnce(&mut SymbolWriter) -> Result<(), StorageError>,
    ) -> Result<Self, StorageError> {
        let temporary = root.join(format!("{ulid}{CREATION_SUFFIX}"));
        let create = || {
            dir::create_all(&temporary.join(CHUNKS))?;
            let mut writer = IndexWriter::create(&temporary.join(INDEX))?;
            symbols(&mut writer)?;
            writer.finish()
        };
        let index = create().inspect_err(|_| discard(&temporary))?;
        Ok(Self {
            root: root.to_owned(),
            ulid,
            chunks: ChunkWriter::new(&temporary.join(CHUNKS)),
            index,
            temporary,
            stats: meta::Stats::default(),
            range: None,
            metas: Vec::new(),
        })
    }

    /// Adds a chunk to the series to come. Chunks rise in time and do not overlap.
    pub(crate) fn add_chunk(
        &mut self,
        mint: i64,
        maxt: i64,
        encoding: u8,
        data: &[u8],
    ) -> Result<(), StorageError> {
        let reference = self.chunks.add(encoding, data)?;
        self.note_chunk(ChunkMeta { mint, maxt, reference }, encoding, data);
        Ok(())
    }

    /// The same for a chunk of another block, which is copied as it is.
    pub(crate) fn copy_chunk(
        &mut self,
        mint: i64,
        maxt: i64,
        chunk: &StoredChunk<'_>,
    ) -> Result<(), StorageError> {
        let reference = self.chunks.copy(chunk.record)?;
        self.note_chunk(ChunkMeta { mint, maxt, reference }, chunk.encoding, chunk.data);
        Ok(())
    }

    fn note_chunk(&mut self, meta: ChunkMeta, encoding: u8, data: &[u8]) {
        assert!(meta.mint <= meta.maxt, "a chunk ends after it begins");
        assert!(self.metas.last().is_none_or(|m| m.maxt < meta.mint), "chunks do not overlap");
        self.stats.add_chunk(encoding, u64::from(crate::chunk::sample_count(encoding, data)));
        let (low, high) = self.range.unwrap_or((meta.mint, meta.maxt));
        self.range = Some((low.min(meta.mint), high.max(meta.maxt)));
        self.metas.push(meta);
    }

    /// Adds the series that has the chunks added since the last one; without any there is no series. Labels are positions
    /// of symbols.
    pub(crate) fn end_series(&mut self, labels: &[SymbolPair]) -> Result<(), StorageError> {
        if self.metas.is_empty() {
            return Ok(());
        }
        self.stats.num_series += 1;
        self.index.add_series(labels, &self.metas)?;
        self.metas.clear();
        Ok(())
    }

    /// Finishes the block and gives it its name. It covers its samples, and `range`, `[min_time, max_time)`, where that is
    /// given. Without any series there is no block, and `None` is returned.
    pub(crate) fn finish(
        self,
        range: (Option<i64>, Option<i64>),
        compaction: meta::Compaction,
    ) -> Result<Option<Meta>, StorageError> {
        assert!(self.metas.is_empty(), "chunks belong to a series");
        let Some((mint, maxt)) = self.range else {
            self.abandon();
            return Ok(None);
        };
        self.chunks.finish()?;
        self.index.finish()?;
        Tombstones::default().write(&self.temporary)?;
        let last = maxt.saturating_add(1);
        let meta = Meta {
            ulid: self.ulid.to_string(),
            min_time: range.0.map_or(mint, |t| t.min(mint)),
            max_time: range.1.map_or(last, |t| t.max(last)),
            stats: self.stats,
            compaction,
            version: meta::VERSION,
        };
        meta.write(&self.temporary)?;
        dir::sync(&self.temporary.join(CHUNKS))?;
        dir::publish(&self.temporary, &self.root.join(self.ulid.to_string()))?;
        Ok(Some(meta))
    }

    /// Removes what was written.
    pub(crate) fn abandon(self) {
        discard(&self.temporary);
    }
}

/// Removes an unfinished block. When that fails, the next start does it.
fn discard(temporary: &Path) {
    if let Err(e) = dir::remove_all(temporary) {
        tracing::warn!(error = %e, "an unfinished block could not be removed");
    }
}

/// Removes what interrupted writers and removers left in the database's directory.
pub(crate) fn remove_temporary(root: &Path) -> Result<(), StorageError> {
    for name in dir::list(root)? {
        let ours = [CREATION_SUFFIX, DELETION_SUFFIX].iter().find_map(|s| name.strip_suffix(s));
        if ours.is_some_and(|n| Ulid::parse(n).is_some()) {
            dir::remove_all(&root.join(name))?;
        }
    }
    Ok(())
}
