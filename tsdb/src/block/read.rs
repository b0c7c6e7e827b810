//! Selections from a block.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::labels::{LabelsIter, LabelsWriter};
use model::{Chunk, Labels, Matcher, Samples, StorageError};

use super::index_read::RawSeries;
use super::tombstones::{self, Tombstones};
use super::{Block, ChunkMeta};
use crate::chunk;
use crate::head::read::insert_new;
use crate::merge::Source;
use crate::postings::{self, PostingsIndex};

/// Values are looked up one by one, and not read from the series, when there are so many more series than values.
const SERIES_PER_VALUE: usize = 4;

/// Stands at one series of a selection after the other. Buffers are reused; nothing of a series that the reader passes
/// over is allocated.
pub(crate) struct BlockCursor {
    block: Arc<Block>,
    tombstones: Arc<Tombstones>,
    ids: std::vec::IntoIter<u64>,
    mint: i64,
    maxt: i64,
    id: u64,
    series: RawSeries,
    labels: LabelsWriter,
}

impl BlockCursor {
    pub(crate) fn new(
        block: &Arc<Block>,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
    ) -> Result<Self, StorageError> {
        Ok(Self {
            block: block.clone(),
            tombstones: block.tombstones(),
            // Ids rise with the labels, so the list is in order already.
            ids: postings::resolve(&block.index, matchers)?.into_iter(),
            mint,
            maxt,
            id: 0,
            series: RawSeries::default(),
            labels: LabelsWriter::new(),
        })
    }
}

impl Source for BlockCursor {
    fn advance(&mut self) -> Result<bool, StorageError> {
        for id in self.ids.by_ref() {
            self.block.index.series(id, self.mint, self.maxt, &mut self.series)?;
            let deleted = self.tombstones.of(id);
            if !deleted.is_empty() {
                self.series.chunks.retain(|c| !deleted.iter().any(|(a, b)| *a <= c.mint && c.maxt <= *b));
            }
            if self.series.chunks.is_empty() {
                continue;
            }
            self.block.index.write_labels(&self.series.labels, &mut self.labels)?;
            self.id = id;
            return Ok(true);
        }
        Ok(false)
    }

    fn labels_iter(&self) -> LabelsIter<'_> {
        self.labels.iter()
    }

    fn labels(&self) -> Labels {
        self.labels.build()
    }

    fn take_chunks(&mut self, out: &mut Vec<Chunk>) -> Result<(), StorageError> {
        out.reserve(self.series.chunks.len());
        let deleted = self.tombstones.of(self.id);
        for c in &self.series.chunks {
            out.extend(self.block.chunk(c, deleted)?);
        }
        Ok(())
    }
}

impl Block {
    /// Label names of the series that pass the matchers.
    pub(crate) fn label_names(
        &self,
        matchers: &[Matcher],
        out: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        if matchers.is_empty() {
            insert_new(out, self.index.label_names());
            return Ok(());
        }
        let mut names: Vec<u32> = Vec::new();
        self.for_each_series(matchers, |s| {
            for (name, _) in &s.labels {
                if let Err(at) = names.binary_search(name) {
                    names.insert(at, *name);
                }
            }
        })?;
        insert_new(out, names.iter().filter_map(|n| self.index.symbols.get(*n)));
        Ok(())
    }

    /// Values of a label among the series that pass the matchers: the first `limit` of them at least, 0 for all.
    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
        out: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        if name.is_empty() {
            return Ok(());
        }
        let mut room = if limit == 0 { usize::MAX } else { limit };
        let mut give = |v: &str, out: &mut BTreeSet<String>| {
            insert_new(out, [v].into_iter());
            room -= 1;
            Ok(room > 0)
        };
        let (own, others): (Vec<_>, Vec<_>) = matchers.iter().partition(|m| m.name == name);
        let passes = |v: &str| own.iter().all(|m| m.matches(v));
        if others.is_empty() {
            return self.index.for_each_value(
                name,
                "",
                |v, _| if passes(v) { give(v, out) } else { Ok(true) },
            );
        }
        let series = postings::resolve(&self.index, matchers)?;
        if series.len() / SERIES_PER_VALUE < self.index.value_count(name) {
            let values = self.values_of(&series, name)?;
            for v in values.iter().filter_map(|v| self.index.symbols.get(*v)) {
                if !give(v, out)? {
                    break;
                }
            }
            return Ok(());
        }
        self.index.for_each_value(name, "", |v, _| {
            let found = passes(v) && postings::intersects(&series, &self.index.get(name, v)?);
            if found { give(v, out) } else { Ok(true) }
        })
    }

    /// Positions of the values of a label among series, sorted.
    fn values_of(&self, ids: &[u64], name: &str) -> Result<Vec<u32>, StorageError> {
        let name = self.index.symbols.find(name);
        let mut raw = RawSeries::default();
        let mut values: Vec<u32> = Vec::new();
        for id in ids {
            self.index.series(*id, i64::MAX, i64::MIN, &mut raw)?;
            let value = raw.labels.iter().find(|(n, _)| Some(*n) == name).map(|(_, v)| *v);
            values.extend(value.filter(|v| values.last() != Some(v)));
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    /// Calls `f` with the labels of each series that passes the matchers; chunks are left out.
    fn for_each_series(
        &self,
        matchers: &[Matcher],
        mut f: impl FnMut(&RawSeries),
    ) -> Result<(), StorageError> {
        let mut raw = RawSeries::default();
        for id in postings::resolve(&self.index, matchers)? {
            self.index.series(id, i64::MAX, i64::MIN, &mut raw)?;
            f(&raw);
        }
        Ok(())
    }

    /// A chunk of a series without what is deleted of it; `None` when nothing is left.
    pub(crate) fn chunk(
        &self,
        meta: &ChunkMeta,
        deleted: &[(i64, i64)],
    ) -> Result<Option<Chunk>, StorageError> {
        let stored = self.chunks.get(meta.reference)?;
        let Some(codec) = chunk::codec(stored.encoding) else {
            return Err(StorageError::Unsupported(format!(
                "chunk encoding {} in {}",
                stored.encoding,
                self.dir.display()
            )));
        };
        let whole = Chunk::encoded(codec, stored.bytes(), meta.mint, meta.maxt);
        if !deleted.iter().any(|(mint, maxt)| *mint <= meta.maxt && *maxt >= meta.mint) {
            return Ok(Some(whole));
        }
        let mut samples = Samples::new();
        whole.decode(i64::MIN, i64::MAX, &mut samples)?;
        let rest = tombstones::without(&samples, deleted);
        Ok((!rest.is_empty()).then(|| Chunk::columns(Arc::new(rest))))
    }
}
