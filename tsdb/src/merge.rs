//! Merges series sets that are sorted by labels into one. Series that several sets have become one with all their chunks,
//! sorted by start; where chunks overlap, readers take the sample of the chunk that comes first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use model::{Series, SeriesSet, StorageError};

/// The merged set. Holds one series of each source.
pub(crate) struct MergeSeriesSet {
    sources: Vec<Box<dyn SeriesSet>>,
    heap: BinaryHeap<Waiting>,
    started: bool,
}

/// The next series of a source.
struct Waiting {
    series: Series,
    source: usize,
}

/// Reversed, as the heap gives its greatest first: lowest labels, then lowest source.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.series.labels.cmp(&self.series.labels).then(other.source.cmp(&self.source))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl MergeSeriesSet {
    pub(crate) fn new(sources: Vec<Box<dyn SeriesSet>>) -> Self {
        Self { sources, heap: BinaryHeap::new(), started: false }
    }

    fn pull(&mut self, source: usize) -> Result<(), StorageError> {
        match self.sources[source].next() {
            Ok(Some(series)) => {
                self.heap.push(Waiting { series, source });
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(e) => {
                self.heap.clear(); // The set is at its end now.
                Err(e)
            }
        }
    }
}

impl SeriesSet for MergeSeriesSet {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        if !self.started {
            self.started = true;
            for i in 0..self.sources.len() {
                self.pull(i)?;
            }
        }
        let Some(Waiting { mut series, source }) = self.heap.pop() else { return Ok(None) };
        self.pull(source)?;
        let mut merged = false;
        while self.heap.peek().is_some_and(|w| w.series.labels == series.labels) {
            let other = self.heap.pop().expect("peeked above");
            series.chunks.extend(other.series.chunks);
            merged = true;
            self.pull(other.source)?;
        }
        if merged {
            series.chunks.sort_by_key(|c| c.mint);
        }
        Ok(Some(series))
    }

    fn warnings(&self) -> Vec<String> {
        self.sources.iter().flat_map(|s| s.warnings()).collect()
    }
}
