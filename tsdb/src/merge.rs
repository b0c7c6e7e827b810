//! Merges what is sorted: [`Groups`] walks over cursors and hands out those that stand at equal keys together; it serves
//! selections ([`MergeSeriesSet`]) and compaction (`compact::merge`).
//!
//! Cursors mostly stand at the same keys: the same series in one block after the other. Those that were handed out
//! together are moved together and stay together as long as their keys are equal, so that each costs one comparison for
//! equality; only groups go through the heap.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use model::labels::{LabelsIter, cmp_packed};
use model::{Chunk, Labels, Series, SeriesSet, StorageError};

/// Something that stands at one key after the other, strictly rising. At first it stands before the first one.
pub(crate) trait Cursor {
    /// Goes on; `false` at the end.
    fn advance(&mut self) -> Result<bool, StorageError>;

    /// Compares the keys.
    fn order(&self, other: &Self) -> Ordering;
}

/// A cursor and its place among the others.
pub(crate) struct Member<C> {
    pub(crate) cursor: C,
    source: usize,
}

/// Cursors at the same key, in order of their places; never empty.
struct Group<C>(Vec<Member<C>>);

impl<C: Cursor> Ord for Group<C> {
    /// Reversed, as the heap gives its greatest first: lowest key, then lowest source.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0[0], &other.0[0]);
        b.cursor.order(&a.cursor).then(b.source.cmp(&a.source))
    }
}

impl<C: Cursor> PartialOrd for Group<C> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C: Cursor> PartialEq for Group<C> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<C: Cursor> Eq for Group<C> {}

/// Cursors in order of their keys.
pub(crate) struct Groups<C> {
    heap: BinaryHeap<Group<C>>,
    /// Handed out last.
    current: Vec<Member<C>>,
    spare: Vec<Vec<Member<C>>>,
}

impl<C: Cursor> Groups<C> {
    pub(crate) fn new(cursors: impl IntoIterator<Item = C>) -> Self {
        let current =
            cursors.into_iter().enumerate().map(|(source, cursor)| Member { cursor, source }).collect();
        Self { heap: BinaryHeap::new(), current, spare: Vec::new() }
    }

    /// All cursors at the next key, in the order they were given in; `None` at the end.
    ///
    /// # Errors
    /// What a cursor failed with. The groups are then at their end.
    pub(crate) fn next(&mut self) -> Result<Option<&mut [Member<C>]>, StorageError> {
        if let Err(e) = self.advance() {
            self.end();
            return Err(e);
        }
        let Some(Group(mut first)) = self.heap.pop() else { return Ok(None) };
        let mut joined = false;
        while self.heap.peek().is_some_and(|g| g.0[0].cursor.order(&first[0].cursor).is_eq()) {
            let Group(mut other) = self.heap.pop().expect("peeked above");
            first.append(&mut other);
            self.spare.push(other);
            joined = true;
        }
        if joined {
            first.sort_by_key(|m| m.source);
        }
        self.current = first;
        Ok(Some(&mut self.current))
    }

    /// Gives nothing any more.
    pub(crate) fn end(&mut self) {
        self.heap.clear();
        self.current.clear();
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        let mut members = std::mem::take(&mut self.current);
        let mut group: Vec<Member<C>> = self.spare.pop().unwrap_or_default();
        for mut m in members.drain(..) {
            if !m.cursor.advance()? {
                continue;
            }
            if group.last().is_some_and(|g| g.cursor.order(&m.cursor).is_ne()) {
                let next = self.spare.pop().unwrap_or_default();
                self.heap.push(Group(std::mem::replace(&mut group, next)));
            }
            group.push(m);
        }
        self.spare.push(members);
        if group.is_empty() {
            self.spare.push(group);
        } else {
            self.heap.push(Group(group));
        }
        Ok(())
    }
}

// === Selections ===

/// A stream of series that is merged with others: a part of a selection.
pub(crate) trait Source: Send {
    /// Goes on to the next series with chunks; `false` at the end.
    fn advance(&mut self) -> Result<bool, StorageError>;

    /// Labels of the series, for comparing.
    fn labels_iter(&self) -> LabelsIter<'_>;

    /// Labels of the series.
    fn labels(&self) -> Labels;

    /// Appends the chunks of the series, sorted by start.
    fn take_chunks(&mut self, out: &mut Vec<Chunk>) -> Result<(), StorageError>;
}

impl Cursor for Box<dyn Source> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        (**self).advance()
    }

    fn order(&self, other: &Self) -> Ordering {
        cmp_packed(self.labels_iter().as_packed(), other.labels_iter().as_packed())
    }
}

/// A series set as a [`Source`]: that of the head, whose labels are shared and need not be built.
pub(crate) struct SetSource<S> {
    set: S,
    current: Option<Series>,
}

impl<S> SetSource<S> {
    pub(crate) fn new(set: S) -> Self {
        Self { set, current: None }
    }

    fn series(&self) -> &Series {
        self.current.as_ref().expect("a source is asked after it advanced")
    }
}

impl<S: SeriesSet> Source for SetSource<S> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        self.current = self.set.next()?;
        Ok(self.current.is_some())
    }

    fn labels_iter(&self) -> LabelsIter<'_> {
        self.series().labels.iter()
    }

    fn labels(&self) -> Labels {
        self.series().labels.clone()
    }

    fn take_chunks(&mut self, out: &mut Vec<Chunk>) -> Result<(), StorageError> {
        out.append(&mut self.current.as_mut().expect("a source is asked after it advanced").chunks);
        Ok(())
    }
}

/// The merged set. A series that several sources have becomes one with all their chunks, sorted by start; where chunks
/// overlap, readers take the sample of the chunk that comes first.
pub(crate) struct MergeSeriesSet {
    groups: Groups<Box<dyn Source>>,
    labels_only: bool,
}

impl MergeSeriesSet {
    /// Where labels can be had for nothing, the source comes last.
    pub(crate) fn new(sources: Vec<Box<dyn Source>>, labels_only: bool) -> Self {
        Self { groups: Groups::new(sources), labels_only }
    }
}

impl SeriesSet for MergeSeriesSet {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        let next = self.merged();
        if next.is_err() {
            self.groups.end();
        }
        next
    }
}

impl MergeSeriesSet {
    fn merged(&mut self) -> Result<Option<Series>, StorageError> {
        while let Some(group) = self.groups.next()? {
            let mut chunks = Vec::new();
            if !self.labels_only {
                for m in group.iter_mut() {
                    m.cursor.take_chunks(&mut chunks)?;
                }
                if chunks.is_empty() {
                    continue;
                }
                if group.len() > 1 && !chunks.is_sorted_by_key(|c| c.mint) {
                    chunks.sort_by_key(|c| c.mint);
                }
            }
            let last = group.last().expect("a group is not empty");
            return Ok(Some(Series { labels: last.cursor.labels(), chunks }));
        }
        Ok(None)
    }
}
