//! [`DbQuerier`]: a view on head and blocks as they were when it was opened.
//!
//! The snapshot of the head is taken before the list of blocks. A block is published before its samples leave the head,
//! and they do not leave while an older snapshot may want them, so nothing is missed; what is seen twice is merged.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{LabelsResult, Matcher, Querier, SelectHints, Series, SeriesSet, StorageError};

use crate::block::Block;
use crate::block::read::BlockCursor;
use crate::head::Head;
use crate::head::isolation::Snapshot;
use crate::merge::{MergeSeriesSet, SetSource, Source};

/// The first so many series of a set; 0: all.
fn limited(set: impl SeriesSet + 'static, limit: usize) -> Box<dyn SeriesSet> {
    if limit == 0 { Box::new(set) } else { Box::new(Limited { set, left: limit }) }
}

struct Limited<S> {
    set: S,
    left: usize,
}

impl<S: SeriesSet> SeriesSet for Limited<S> {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.set.next()
    }
}

pub(crate) struct DbQuerier {
    head: Arc<Head>,
    snapshot: Arc<Snapshot>,
    /// Those that overlap the range.
    blocks: Vec<Arc<Block>>,
    mint: i64,
    maxt: i64,
}

impl DbQuerier {
    pub(crate) fn new(
        head: Arc<Head>,
        snapshot: Snapshot,
        blocks: &[Arc<Block>],
        mint: i64,
        maxt: i64,
    ) -> Self {
        let blocks = blocks.iter().filter(|b| b.overlaps(mint, maxt)).cloned().collect();
        Self { head, snapshot: Arc::new(snapshot), blocks, mint, maxt }
    }

    /// The part of the range that is needed. Hints that say nothing are all zeros.
    fn range(&self, hints: &SelectHints) -> (i64, i64) {
        if hints.start_ms == 0 && hints.end_ms == 0 {
            return (self.mint, self.maxt);
        }
        (self.mint.max(hints.start_ms), self.maxt.min(hints.end_ms))
    }

    fn reads_head(&self) -> bool {
        self.mint <= self.maxt && self.head.reaches_back_to(self.maxt)
    }

    fn collect(
        &self,
        limit: usize,
        head: impl FnOnce(&Head, &mut BTreeSet<String>) -> Result<(), StorageError>,
        block: impl Fn(&Block, &mut BTreeSet<String>) -> Result<(), StorageError>,
    ) -> Result<LabelsResult, StorageError> {
        let mut set = BTreeSet::new();
        if self.reads_head() {
            head(&self.head, &mut set)?;
        }
        for b in &self.blocks {
            block(b, &mut set)?;
        }
        let mut out = LabelsResult::default();
        if limit > 0 && set.len() > limit {
            out.warnings.push("results truncated due to limit".into());
        }
        let take = if limit == 0 { usize::MAX } else { limit };
        out.values = set.into_iter().take(take).collect();
        Ok(out)
    }
}

impl Querier for DbQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let (mint, maxt) = self.range(hints);
        let mut sources: Vec<Box<dyn Source>> = Vec::with_capacity(self.blocks.len() + 1);
        for b in self.blocks.iter().filter(|b| b.overlaps(mint, maxt)) {
            sources.push(Box::new(BlockCursor::new(b, matchers, mint, maxt)?));
        }
        if self.reads_head() {
            let head = self.head.select(matchers, hints, mint, maxt, &self.snapshot)?;
            if sources.is_empty() {
                return Ok(limited(head, hints.limit));
            }
            sources.push(Box::new(SetSource::new(head)));
        }
        Ok(limited(MergeSeriesSet::new(sources, hints.labels_only), hints.limit))
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        self.collect(limit, |h, out| h.label_names(matchers, out), |b, out| b.label_names(matchers, out))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError> {
        // One more tells that there are more.
        let enough = if limit == 0 { 0 } else { limit.saturating_add(1) };
        self.collect(
            limit,
            |h, out| h.label_values(name, matchers, enough, out),
            |b, out| b.label_values(name, matchers, enough, out),
        )
    }
}
