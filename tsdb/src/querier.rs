//! [`DbQuerier`]: a view on head and blocks as they were when it was opened.
//!
//! The snapshot of the head is taken before the list of blocks. A block is published before its samples leave the head,
//! and they do not leave while an older snapshot may want them, so nothing is missed; what is seen twice is merged.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{LabelsResult, Matcher, Querier, SelectHints, SeriesSet, StorageError};

use crate::block::Block;
use crate::head::Head;
use crate::head::isolation::Snapshot;
use crate::merge::MergeSeriesSet;

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

    fn reads_head(&self) -> bool {
        self.mint <= self.maxt && self.head.min_time().is_some_and(|t| t <= self.maxt)
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
        let (mint, maxt) = (self.mint, self.maxt);
        let mut sources: Vec<Box<dyn SeriesSet>> = Vec::with_capacity(self.blocks.len() + 1);
        for b in &self.blocks {
            sources.push(Box::new(b.select(matchers, hints, mint, maxt)?));
        }
        if self.reads_head() {
            sources.push(Box::new(self.head.select(matchers, hints, mint, maxt, &self.snapshot)?));
        }
        if sources.len() == 1 {
            return Ok(sources.swap_remove(0));
        }
        Ok(Box::new(MergeSeriesSet::new(sources)))
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
        self.collect(
            limit,
            |h, out| h.label_values(name, matchers, out),
            |b, out| b.label_values(name, matchers, out),
        )
    }
}
