//! Selections from a block.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Chunk, Labels, Matcher, Samples, SelectHints, Series, SeriesSet, StorageError};

use super::{Block, ChunkMeta, tombstones};
use crate::chunk;
use crate::head::read::insert_new;
use crate::postings;

/// Series of a selection; index and chunks are read as the reader comes to them.
pub(crate) struct BlockSeriesSet {
    block: Arc<Block>,
    ids: std::vec::IntoIter<u64>,
    mint: i64,
    maxt: i64,
    labels_only: bool,
    metas: Vec<ChunkMeta>,
}

impl Block {
    pub(crate) fn select(
        self: &Arc<Self>,
        matchers: &[Matcher],
        hints: &SelectHints,
        mint: i64,
        maxt: i64,
    ) -> Result<BlockSeriesSet, StorageError> {
        Ok(BlockSeriesSet {
            block: self.clone(),
            // Ids rise with the labels, so the list is in order already.
            ids: postings::resolve(&self.index, matchers)?.into_iter(),
            mint,
            maxt,
            labels_only: hints.labels_only,
            metas: Vec::new(),
        })
    }

    pub(crate) fn label_names(
        &self,
        matchers: &[Matcher],
        out: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        if matchers.is_empty() {
            insert_new(out, self.index.label_names());
            return Ok(());
        }
        self.for_each_labels(matchers, |l| insert_new(out, l.iter().map(|(n, _)| n)))
    }

    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        out: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        if name.is_empty() {
            return Ok(());
        }
        if matchers.is_empty() {
            return self.index.for_each_value(name, "", |v, _| {
                insert_new(out, [v].into_iter());
                Ok(true)
            });
        }
        self.for_each_labels(matchers, |l| insert_new(out, l.get(name).into_iter()))
    }

    fn for_each_labels(&self, matchers: &[Matcher], mut f: impl FnMut(&Labels)) -> Result<(), StorageError> {
        let mut metas = Vec::new();
        for id in postings::resolve(&self.index, matchers)? {
            f(&self.index.series(id, &mut metas)?);
        }
        Ok(())
    }

    /// A chunk of a series without what is deleted of it; `None` when nothing is left.
    pub(crate) fn chunk(
        &self,
        meta: &ChunkMeta,
        deleted: &[(i64, i64)],
    ) -> Result<Option<Chunk>, StorageError> {
        let (encoding, bytes) = self.chunks.get(meta.reference)?;
        let Some(codec) = chunk::codec(encoding) else {
            return Err(StorageError::Unsupported(format!(
                "chunk encoding {encoding} in {}",
                self.dir.display()
            )));
        };
        let whole = Chunk::encoded(codec, bytes, meta.mint, meta.maxt);
        if !deleted.iter().any(|(mint, maxt)| *mint <= meta.maxt && *maxt >= meta.mint) {
            return Ok(Some(whole));
        }
        let mut samples = Samples::new();
        whole.decode(i64::MIN, i64::MAX, &mut samples)?;
        let rest = tombstones::without(&samples, deleted);
        Ok((!rest.is_empty()).then(|| Chunk::columns(Arc::new(rest))))
    }
}

impl SeriesSet for BlockSeriesSet {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        for id in self.ids.by_ref() {
            let labels = self.block.index.series(id, &mut self.metas)?;
            let deleted = self.block.tombstones.of(id);
            self.metas.retain(|m| m.mint <= self.maxt && m.maxt >= self.mint);
            if self.metas.is_empty() {
                continue;
            }
            if self.labels_only && deleted.is_empty() {
                return Ok(Some(Series { labels, chunks: Vec::new() }));
            }
            let mut chunks = Vec::with_capacity(self.metas.len());
            for m in &self.metas {
                chunks.extend(self.block.chunk(m, deleted)?);
            }
            if !chunks.is_empty() {
                return Ok(Some(Series { labels, chunks }));
            }
        }
        Ok(None)
    }
}
