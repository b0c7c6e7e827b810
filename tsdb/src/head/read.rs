//! Selections from the head.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Labels, Matcher, SelectHints, Series, SeriesSet, StorageError};

use super::Head;
use super::delete::shown;
use super::head_chunks::HeadChunks;
use super::isolation::Snapshot;
use super::series::{ChunkForm, HeadChunk, MemSeries};
use crate::block::tombstones::Tombstones;
use crate::postings::{self, PostingsIndex};

/// Series of a selection; chunks are looked up as the reader comes to them.
pub(crate) struct HeadSeriesSet {
    series: std::vec::IntoIter<(Labels, Arc<MemSeries>)>,
    snapshot: Arc<Snapshot>,
    mint: i64,
    maxt: i64,
    labels_only: bool,
    tombstones: Arc<Tombstones>,
    form: ChunkForm,
    files: Arc<HeadChunks>,
    scratch: Vec<HeadChunk>,
}

impl Head {
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
        mint: i64,
        maxt: i64,
        snapshot: &Arc<Snapshot>,
    ) -> Result<HeadSeriesSet, StorageError> {
        Ok(HeadSeriesSet {
            series: self.series.matching(matchers)?.into_iter(),
            snapshot: snapshot.clone(),
            mint,
            maxt,
            labels_only: hints.labels_only,
            tombstones: self.tombstones(),
            form: self.form,
            files: self.files.clone(),
            scratch: Vec::new(),
        })
    }

    /// Label names of the series that pass the matchers.
    pub(crate) fn label_names(
        &self,
        matchers: &[Matcher],
        out: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        if matchers.is_empty() {
            self.with_postings(|p| out.extend(p.names().map(str::to_owned)));
            return Ok(());
        }
        self.for_each_pair(matchers, |name, _| insert_new(out, [name].into_iter()))
    }

    /// Values of a label among the series that pass the matchers: the first `limit` of them at least, 0 for all.
    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
        out: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        let take = if limit == 0 { usize::MAX } else { limit };
        if matchers.is_empty() {
            self.with_postings(|p| out.extend(p.values(name).take(take).map(str::to_owned)));
            return Ok(());
        }
        if limit == 0 {
            return self.for_each_pair(matchers, |n, value| {
                if n == name {
                    insert_new(out, [value].into_iter());
                }
            });
        }
        // Value by value, in their order, so that no more are looked at than are wanted.
        let index = self.series.index();
        let slots = postings::resolve(&*index, matchers)?;
        let mut left = take;
        for value in index.values(name) {
            if postings::intersects(&slots, &index.get(name, value)?) {
                insert_new(out, [value].into_iter());
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Gives each label pair of the series that pass the matchers once.
    fn for_each_pair(&self, matchers: &[Matcher], mut f: impl FnMut(&str, &str)) -> Result<(), StorageError> {
        let index = self.series.index();
        let slots = postings::resolve(&*index, matchers)?;
        let mut seen = vec![false; index.pair_numbers()];
        for pair in slots.into_iter().filter_map(|slot| index.at(slot as u32)).flat_map(|s| &s.pairs) {
            if !std::mem::replace(&mut seen[*pair as usize], true) {
                let (name, value) = index.pair_text(*pair);
                f(name, value);
            }
        }
        Ok(())
    }
}

/// Adds strings, allocating only for those that are new.
pub(crate) fn insert_new<'a>(out: &mut BTreeSet<String>, strings: impl Iterator<Item = &'a str>) {
    for s in strings {
        if !out.contains(s) {
            out.insert(s.to_owned());
        }
    }
}

impl SeriesSet for HeadSeriesSet {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        for (labels, s) in self.series.by_ref() {
            self.scratch.clear();
            {
                let state = s.state.lock();
                if !state.overlaps(self.mint, self.maxt) && !state.overlaps_late(self.mint, self.maxt) {
                    continue;
                }
                state.all_chunks(
                    (self.mint, self.maxt),
                    &self.snapshot,
                    (self.form, &self.files),
                    &mut self.scratch,
                )?;
            }
            if self.scratch.is_empty() {
                continue;
            }
            let deleted = self.tombstones.of(s.reference.0);
            let mut chunks = Vec::with_capacity(if self.labels_only { 0 } else { self.scratch.len() });
            if self.labels_only {
                if self.scratch.iter().all(|c| deleted.iter().any(|(a, b)| *a <= c.mint && c.maxt <= *b)) {
                    continue;
                }
            } else {
                for c in self.scratch.drain(..) {
                    chunks.extend(shown(c, deleted)?);
                }
                if !deleted.is_empty() {
                    chunks.sort_by_key(|c| c.mint); // A chunk may begin later now than one that it overlaps.
                }
                if chunks.is_empty() {
                    continue;
                }
            }
            return Ok(Some(Series { labels, chunks }));
        }
        Ok(None)
    }
}
