//! Blocks: immutable directories that hold the samples of a range `[min_time, max_time)`, as Prometheus writes them.
//!
//! Reading order: `meta` (meta.json, ULIDs), `chunks` (chunk files), `index_write`, `index_read`, `tombstones`; then
//! [`Block`], which opens a directory, and [`BlockWriter`], which makes one. Format: docs/formats/blocks.md.
//!
//! A block appears by rename, whole or not at all. Everything read from it is checked against its checksum.

pub(crate) mod chunks;
pub(crate) mod index_read;
pub(crate) mod index_write;
pub(crate) mod meta;
pub(crate) mod read;
pub(crate) mod tombstones;

use std::path::{Path, PathBuf};

use model::{Labels, StorageError};

use crate::dir;
use chunks::{ChunkFiles, ChunkWriter};
use index_read::IndexReader;
use index_write::IndexWriter;
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
    pub(crate) tombstones: Tombstones,
    pub(crate) len_bytes: u64,
}

impl Block {
    /// Opens a block's directory.
    ///
    /// # Errors
    /// [`StorageError::Corruption`] when it is not a whole block.
    pub(crate) fn open(dir: &Path, ulid: Ulid) -> Result<Self, StorageError> {
        Ok(Self {
            dir: dir.to_owned(),
            ulid,
            meta: Meta::read(dir)?,
            index: IndexReader::open(&dir.join(INDEX))?,
            chunks: ChunkFiles::open(&dir.join(CHUNKS))?,
            tombstones: Tombstones::read(dir)?,
            len_bytes: dir::len_all(dir)?,
        })
    }

    /// Whether the block may have samples within `[mint, maxt]`.
    pub(crate) fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.meta.min_time <= maxt && mint < self.meta.max_time
    }

    /// Removes the directory. Readers that have the block open go on.
    pub(crate) fn remove(&self) -> Result<(), StorageError> {
        let name = self.dir.file_name().expect("a block's directory has a name").to_string_lossy();
        let doomed = self.dir.with_file_name(format!("{name}{DELETION_SUFFIX}"));
        dir::publish(&self.dir, &doomed)?;
        dir::remove_all(&doomed)
    }
}

/// Writes a block. Series come in order of their labels.
pub(crate) struct BlockWriter {
    root: PathBuf,
    ulid: Ulid,
    temporary: PathBuf,
    chunks: ChunkWriter,
    index: IndexWriter,
    stats: meta::Stats,
    /// Timestamps of the first and last sample.
    range: Option<(i64, i64)>,
    metas: Vec<ChunkMeta>,
}

impl BlockWriter {
    /// Begins a block in the database's directory. `symbols` are sorted, unique, and hold every label name and value of
    /// the series to come.
    pub(crate) fn create<'a>(
        root: &Path,
        ulid: Ulid,
        symbols: impl Iterator<Item = &'a str>,
    ) -> Result<Self, StorageError> {
        let temporary = root.join(format!("{ulid}{CREATION_SUFFIX}"));
        dir::create_all(&temporary.join(CHUNKS))?;
        Ok(Self {
            root: root.to_owned(),
            ulid,
            chunks: ChunkWriter::new(&temporary.join(CHUNKS)),
            index: IndexWriter::create(&temporary.join(INDEX), symbols)?,
            temporary,
            stats: meta::Stats::default(),
            range: None,
            metas: Vec::new(),
        })
    }

    /// Adds a series with its chunks `(mint, maxt, encoding, bytes)`, which rise in time and do not overlap.
    pub(crate) fn add_series(
        &mut self,
        labels: &Labels,
        chunks: &[(i64, i64, u8, bytes::Bytes)],
    ) -> Result<(), StorageError> {
        assert!(!chunks.is_empty(), "a series of a block has samples");
        self.metas.clear();
        for (mint, maxt, encoding, bytes) in chunks {
            assert!(mint <= maxt, "a chunk ends after it begins");
            assert!(self.metas.last().is_none_or(|m| m.maxt < *mint), "chunks do not overlap");
            let reference = self.chunks.add(*encoding, bytes)?;
            self.metas.push(ChunkMeta { mint: *mint, maxt: *maxt, reference });
            let samples = u64::from(crate::chunk::sample_count(bytes));
            self.stats.add_chunk(*encoding, samples);
            let (low, high) = self.range.unwrap_or((*mint, *maxt));
            self.range = Some((low.min(*mint), high.max(*maxt)));
        }
        self.stats.num_series += 1;
        self.index.add_series(labels, &self.metas)
    }

    /// Finishes the block, so that it covers at least `[.., max_time)`, and gives it its name. Without any series there is
    /// no block, and `None` is returned.
    pub(crate) fn finish(
        self,
        max_time: i64,
        compaction: meta::Compaction,
    ) -> Result<Option<Meta>, StorageError> {
        let Some((mint, maxt)) = self.range else {
            drop(self.index);
            dir::remove_all(&self.temporary)?;
            return Ok(None);
        };
        self.chunks.finish()?;
        self.index.finish()?;
        Tombstones::default().write(&self.temporary)?;
        let meta = Meta {
            ulid: self.ulid.to_string(),
            min_time: mint,
            max_time: max_time.max(maxt.saturating_add(1)),
            stats: self.stats,
            compaction,
            version: meta::VERSION,
        };
        meta.write(&self.temporary)?;
        dir::sync(&self.temporary.join(CHUNKS))?;
        dir::publish(&self.temporary, &self.root.join(self.ulid.to_string()))?;
        Ok(Some(meta))
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
