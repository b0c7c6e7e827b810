//! [`MemSeries`]: one series of the head, its finished chunks and the one being written.
//!
//! There may be millions, so what few of them have is in a box of its own ([`Rare`]), and the rest is kept in one allocation of
//! 192 bytes.
//!
//! Invariants: samples rise strictly in time; a chunk never crosses a multiple of the block range, so that cutting a
//! block never splits one; a removed series takes no samples.

mod restore;

use std::sync::Arc;

use model::{
    FloatHistogram, Histogram, HistogramValue, Metadata, Sample, SampleValue, SeriesRef, StorageError,
};
use parking_lot::Mutex;

pub(crate) use super::chunk_list::{HeadChunk, to_model};
use super::chunk_list::{hide, within};
use super::head_chunks::{HeadChunks, Place, StoredChunk};
use super::isolation::Snapshot;
use super::out_of_order::{Bounds, Inserted, OutOfOrder};
use super::visibility::Visibility;
use crate::chunk::{Cut, Encodings, OpenChunk};

/// One series. Its labels are in the index (`SeriesMap::labels`).
pub(crate) struct MemSeries {
    pub(crate) reference: SeriesRef,
    /// Numbers of its label pairs, in order of their names.
    pub(super) pairs: Box<[u32]>,
    /// Its place in the index, which other series may have after it.
    pub(super) slot: u32,
    /// Part of the hash of its labels.
    pub(super) hash: u32,
    pub(crate) state: Mutex<SeriesState>,
}

/// With the two counters of its `Arc` it fills an allocation.
const _: () = assert!(size_of::<MemSeries>() == 192 - 16);

impl MemSeries {
    pub(super) fn new(reference: SeriesRef, (slot, hash): (u32, u32), pairs: Box<[u32]>) -> Self {
        Self { reference, pairs, slot, hash, state: Mutex::new(SeriesState::default()) }
    }
}

/// The changing part of a series.
#[derive(Default)]
pub(crate) struct SeriesState {
    /// The newest sample ever taken.
    last: Option<(i64, SampleValue)>,
    open: Option<OpenChunk>,
    cut: Cut,
    /// The oldest chunks, which are in files.
    stored: Box<[StoredChunk]>,
    pub(super) visibility: Visibility,
    rare: Option<Box<Rare>>,
}

/// What a series has at times.
#[derive(Default)]
struct Rare {
    /// Finished chunks after the stored ones, until they are stored too.
    finished: Vec<HeadChunk>,
    metadata: Option<Arc<Metadata>>,
    late: Option<Box<OutOfOrder>>,
}

/// How long chunks are at most, and their encodings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkForm {
    /// No chunk crosses a multiple of this.
    pub(crate) range_ms: i64,
    pub(crate) encodings: Encodings,
}

/// Of what kind the newest sample in order is, as metrics count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) stale: i64,
    pub(super) histogram: i64,
    pub(super) buckets: i64,
}

impl Shape {
    pub(super) fn add(&mut self, other: Self, times: i64) {
        self.stale += times * other.stale;
        self.histogram += times * other.histogram;
        self.buckets += times * other.buckets;
    }
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It would be, or was, stored.
    Stored,
    /// Stored, as the first sample of a new chunk.
    StoredInNewChunk,
    /// The series has this very sample already.
    Same,
    /// It would be, or was, stored among the late samples.
    Late,
    /// Stored among the late samples, as the first one of a new chunk.
    LateInNewChunk,
    /// Older than the newest sample, and late samples are not taken.
    OutOfOrder,
    /// Older than what is taken in order, and late samples are not taken.
    OutOfBounds,
    /// Older than the window of late samples.
    TooOld,
    /// Another value than the newest sample, at its timestamp.
    Duplicate,
}

impl SeriesState {
    /// What would become of a sample.
    #[inline]
    pub(crate) fn check(&self, t: i64, value: &SampleValue, bounds: &Bounds) -> Outcome {
        if t >= bounds.min_valid {
            match &self.last {
                None => return Outcome::Stored,
                Some((last, _)) if t > *last => return Outcome::Stored,
                Some((last, v)) if t == *last => {
                    return if v == value { Outcome::Same } else { Outcome::Duplicate };
                }
                Some(_) => {}
            }
        }
        if bounds.takes_late(t) {
            Outcome::Late
        } else if bounds.window_ms > 0 {
            Outcome::TooOld
        } else if t < bounds.min_valid {
            Outcome::OutOfBounds
        } else {
            Outcome::OutOfOrder
        }
    }

    /// Timestamp of the newest sample.
    pub(crate) fn last_timestamp_ms(&self) -> Option<i64> {
        self.last.as_ref().map(|(t, _)| *t)
    }

    /// The newest value in order, where it is known.
    #[inline]
    pub(super) fn newest(&self) -> Option<&SampleValue> {
        self.last.as_ref().map(|(_, v)| v)
    }

    pub(super) fn shape(&self) -> Shape {
        let of_histogram = |sum: f64, buckets: usize| Shape {
            stale: i64::from(model::is_stale_nan(sum)),
            histogram: 1,
            buckets: buckets as i64,
        };
        match self.newest() {
            None => Shape::default(),
            Some(SampleValue::Float(v)) => {
                Shape { stale: i64::from(model::is_stale_nan(*v)), ..Shape::default() }
            }
            Some(SampleValue::Histogram(HistogramValue::Int(h))) => {
                of_histogram(h.sum, h.positive_buckets.len() + h.negative_buckets.len())
            }
            Some(SampleValue::Histogram(HistogramValue::Float(h))) => {
                of_histogram(h.sum, h.positive_buckets.len() + h.negative_buckets.len())
            }
        }
    }

    /// A stale marker of the kind that the series has; any other value as it is. Scrapes do not know of what kind a series
    /// was that has gone.
    pub(crate) fn of_same_kind(&self, value: SampleValue) -> SampleValue {
        let (SampleValue::Float(v), Some((_, SampleValue::Histogram(last)))) = (&value, &self.last) else {
            return value;
        };
        if !model::is_stale_nan(*v) {
            return value;
        }
        SampleValue::Histogram(match last {
            HistogramValue::Int(_) => Histogram { sum: *v, ..Histogram::default() }.into(),
            HistogramValue::Float(_) => FloatHistogram { sum: *v, ..FloatHistogram::default() }.into(),
        })
    }

    /// Adds a sample as part of a commit.
    pub(crate) fn append(
        &mut self,
        (t, start, value): (i64, i64, SampleValue),
        form: ChunkForm,
        bounds: &Bounds,
        (commit, low_watermark): (u64, u64),
    ) -> Outcome {
        let value = self.of_same_kind(value);
        match self.check(t, &value, bounds) {
            Outcome::Stored => {}
            Outcome::Late => return self.insert((t, start, value), form),
            outcome => return outcome,
        }
        let sample = (t, start, &value);
        let begun = match (&mut self.open, &self.last) {
            (Some(open), Some(last)) => {
                let (mint, maxt) = (self.cut.mint(), last.0);
                match self.cut.append(open, last, sample, form.range_ms, form.encodings) {
                    Some(full) => {
                        let finished = &mut self.rare.get_or_insert_default().finished;
                        finished.reserve_exact(1); // There may be millions, and mostly one each.
                        finished.push(HeadChunk::of(&full, mint, maxt));
                        true
                    }
                    None => false,
                }
            }
            _ => {
                let (cut, open) = Cut::first(sample, form.range_ms, form.encodings);
                (self.cut, self.open) = (cut, Some(open));
                true
            }
        };
        self.last = Some((t, value));
        self.visibility.add(commit, low_watermark);
        if begun { Outcome::StoredInNewChunk } else { Outcome::Stored }
    }

    /// Adds a late sample.
    pub(crate) fn insert(&mut self, (t, start, value): (i64, i64, SampleValue), form: ChunkForm) -> Outcome {
        let sample = Sample { timestamp_ms: t, start_timestamp_ms: start, value };
        let late = self.rare.get_or_insert_default().late.get_or_insert_default();
        match late.insert(sample, form.encodings) {
            Inserted::Yes => Outcome::Late,
            Inserted::InNewChunk => Outcome::LateInNewChunk,
            Inserted::Same => Outcome::Same,
        }
    }

    /// Drops chunks whose samples are all before `mint`; returns how many.
    pub(crate) fn truncate(&mut self, mint: i64) -> usize {
        let before = self.chunk_count();
        if self.stored.first().is_some_and(|c| c.maxt < mint) {
            self.stored = self.stored.iter().filter(|c| c.maxt >= mint).copied().collect();
        }
        if let Some(rare) = &mut self.rare {
            rare.finished.retain(|c| c.maxt >= mint);
        }
        let is_all = self.unstored().is_empty() && self.stored.is_empty();
        if is_all && self.last_timestamp_ms().is_some_and(|t| t < mint) {
            self.open = None;
        }
        self.tidy();
        before - self.chunk_count()
    }

    /// Gives back the box of what few series have.
    fn tidy(&mut self) {
        self.rare.take_if(|r| r.finished.is_empty() && r.metadata.is_none() && r.late.is_none());
    }

    pub(crate) fn chunk_count(&self) -> usize {
        let late = self.late().map_or(0, OutOfOrder::chunk_count);
        self.stored.len() + self.unstored().len() + usize::from(self.open.is_some()) + late
    }

    /// Finished chunks that are in memory.
    pub(crate) fn unstored(&self) -> &[HeadChunk] {
        self.rare.as_ref().map_or(&[], |r| r.finished.as_slice())
    }

    /// Late samples, if there are any.
    pub(crate) fn late(&self) -> Option<&OutOfOrder> {
        self.rare.as_ref()?.late.as_deref()
    }

    pub(crate) fn late_mut(&mut self) -> Option<&mut OutOfOrder> {
        self.rare.as_mut()?.late.as_deref_mut()
    }

    /// Drops late samples that are in blocks now; returns how many chunks they were.
    pub(crate) fn late_have_left(&mut self) -> usize {
        let Some(rare) = &mut self.rare else { return 0 };
        let left = rare.late.as_mut().map_or(0, |l| l.left());
        rare.late.take_if(|l| l.chunk_count() == 0);
        self.tidy();
        left
    }

    pub(crate) fn metadata(&self) -> Option<&Arc<Metadata>> {
        self.rare.as_ref()?.metadata.as_ref()
    }

    pub(crate) fn set_metadata(&mut self, metadata: Metadata) {
        self.rare.get_or_insert_default().metadata = Some(Arc::new(metadata));
    }

    /// Keeps the series from being removed, as long as an appender holds a sample for it.
    pub(super) fn pin(&mut self) {
        self.visibility.life.pin();
    }

    /// Takes back one [`SeriesState::pin`].
    pub(super) fn unpin(&mut self) {
        self.visibility.life.unpin();
    }

    /// Whether an appender holds a sample for the series.
    pub(super) fn is_pending(&self) -> bool {
        self.visibility.life.is_pinned()
    }

    /// Whether the write-ahead log has its series record.
    pub(crate) fn is_logged(&self) -> bool {
        self.visibility.life.is_logged()
    }

    pub(crate) fn set_logged(&mut self) {
        self.visibility.life.set_logged();
    }

    /// Whether it takes no samples any more, and nobody trusts its pairs.
    pub(crate) fn is_removed(&self) -> bool {
        self.visibility.life.is_removed()
    }

    pub(super) fn set_removed(&mut self) {
        self.visibility.life.set_removed();
    }

    /// Puts places in files where the first so many finished chunks are in memory.
    pub(crate) fn store(&mut self, places: &[Place]) {
        let Some(rare) = &mut self.rare else { return };
        let chunks = rare.finished.drain(..places.len()).zip(places);
        let new = chunks.map(|(c, place)| StoredChunk { mint: c.mint, maxt: c.maxt, place: *place });
        let mut stored = std::mem::take(&mut self.stored).into_vec();
        stored.reserve_exact(places.len());
        stored.extend(new);
        self.stored = stored.into_boxed_slice();
        rare.finished.shrink_to_fit();
        self.tidy();
    }

    /// The oldest chunks, which are in files.
    pub(crate) fn stored(&self) -> &[StoredChunk] {
        &self.stored
    }

    /// Puts others in the place of a chunk that cannot be read.
    pub(crate) fn replace_stored(&mut self, lost: &StoredChunk, new: &[StoredChunk]) {
        let mut stored = std::mem::take(&mut self.stored).into_vec();
        if let Some(i) = stored.iter().position(|c| c.place == lost.place) {
            stored.splice(i..=i, new.iter().copied());
        }
        self.stored = stored.into_boxed_slice();
    }

    /// Times of the oldest and the newest sample, late ones too.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        let in_order = self.mint().zip(self.last_timestamp_ms());
        let late = self.late().and_then(|l| l.range());
        in_order.into_iter().chain(late).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Timestamp of the oldest sample held.
    pub(crate) fn mint(&self) -> Option<i64> {
        let finished = self.unstored().first().map(|c| c.mint);
        self.stored
            .first()
            .map(|c| c.mint)
            .or(finished)
            .or_else(|| self.open.is_some().then_some(self.cut.mint()))
    }

    /// Whether there may be late samples within `[mint, maxt]`.
    pub(crate) fn overlaps_late(&self, mint: i64, maxt: i64) -> bool {
        let range = self.late().and_then(|l| l.range());
        range.is_some_and(|(first, last)| first <= maxt && last >= mint)
    }

    /// Whether there may be samples in order within `[mint, maxt]`.
    pub(crate) fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        let open = self.open.is_some()
            && self.cut.mint() <= maxt
            && self.last_timestamp_ms().is_some_and(|t| t >= mint);
        open || !within(self.unstored(), |c| (c.mint, c.maxt), mint, maxt).is_empty()
            || !within(&self.stored, |c| (c.mint, c.maxt), mint, maxt).is_empty()
    }

    /// All chunks with samples within `[mint, maxt]` that the snapshot sees, sorted by start; they overlap where there are
    /// late samples.
    pub(crate) fn all_chunks(
        &self,
        (mint, maxt): (i64, i64),
        snapshot: &Snapshot,
        (form, files): (ChunkForm, &HeadChunks),
        out: &mut Vec<HeadChunk>,
    ) -> Result<(), StorageError> {
        let start = out.len();
        self.chunks((mint, maxt), snapshot, files, out)?;
        if let Some(late) = self.late() {
            late.chunks(mint, maxt, form.encodings, out);
            out[start..].sort_by_key(|c| c.mint);
        }
        Ok(())
    }

    /// Chunks in order with samples within `[mint, maxt]` that the snapshot sees, sorted by time.
    pub(crate) fn chunks(
        &self,
        (mint, maxt): (i64, i64),
        snapshot: &Snapshot,
        files: &HeadChunks,
        out: &mut Vec<HeadChunk>,
    ) -> Result<(), StorageError> {
        let mut hidden = self.visibility.hidden(snapshot);
        let start = out.len();
        if let Some(open) = &self.open {
            let last = self.last_timestamp_ms().expect("an open chunk has samples");
            let shown = hide(open.count(), &mut hidden);
            if shown > 0 && self.cut.mint() <= maxt && last >= mint {
                let bytes = open.encode_first(shown);
                out.push(HeadChunk { mint: self.cut.mint(), maxt: last, encoding: open.encoding(), bytes });
            }
        }
        // Only as long as samples are hidden must chunks be opened that lie outside the range.
        let mut finished = self.unstored();
        while hidden > 0
            && let Some((c, older)) = finished.split_last()
        {
            finished = older;
            if let Some(c) = c.clone().visible(&mut hidden)
                && c.overlaps(mint, maxt)
            {
                out.push(c);
            }
        }
        out.extend(within(finished, |c| (c.mint, c.maxt), mint, maxt).iter().rev().cloned());
        let mut stored = &*self.stored;
        while hidden > 0
            && let Some((c, older)) = stored.split_last()
        {
            stored = older;
            if let Some(c) = files.get(c)?.visible(&mut hidden)
                && c.overlaps(mint, maxt)
            {
                out.push(c);
            }
        }
        for c in within(stored, |c| (c.mint, c.maxt), mint, maxt).iter().rev() {
            out.push(files.get(c)?);
        }
        out[start..].reverse();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(range_ms: i64) -> ChunkForm {
        ChunkForm { range_ms, encodings: Encodings::default() }
    }

    #[test]
    fn chunks_are_cut_as_prometheus_does() {
        let mut s = SeriesState::default();
        let block = 7_200_000;
        let start = block * 200_000;
        for i in 0..480 * 2 {
            s.append(
                (start + i * 15_000, 0, SampleValue::Float(i as f64)),
                form(block),
                &Bounds::NONE,
                (0, 0),
            );
        }
        let mut chunks = Vec::new();
        s.chunks((i64::MIN, i64::MAX), &Snapshot::everything(), &HeadChunks::default(), &mut chunks)
            .expect("in memory");
        assert_eq!(chunks.len(), 8);
        assert!(chunks.iter().all(|c| (110..=130).contains(&c.count())), "evenly filled");
        assert!(chunks.iter().all(|c| c.mint / block == c.maxt / block), "none crosses a block");
    }

    #[test]
    fn duplicates_and_order() {
        let mut s = SeriesState::default();
        let mut put = |t, v| s.append((t, 0, SampleValue::Float(v)), form(7_200_000), &Bounds::NONE, (0, 0));
        assert_eq!(put(10, 1.0), Outcome::StoredInNewChunk);
        assert_eq!(put(10, 1.0), Outcome::Same);
        assert_eq!(put(10, 2.0), Outcome::Duplicate);
        assert_eq!(put(9, 1.0), Outcome::OutOfOrder);
        assert_eq!(put(11, model::stale_nan()), Outcome::Stored);
        assert_eq!(put(11, model::stale_nan()), Outcome::Same);
    }

    #[test]
    fn hidden_samples_are_a_suffix() {
        let mut s = SeriesState::default();
        let isolation = Arc::new(super::super::isolation::Isolation::default());
        let mut snapshots = Vec::new();
        for i in 0..300_i64 {
            let commit = isolation.begin();
            s.append(
                (i, 0, SampleValue::Float(i as f64)),
                form(7_200_000),
                &Bounds::NONE,
                (commit.number, commit.low_watermark),
            );
            drop(commit);
            if i % 50 == 0 {
                snapshots.push((i + 1, isolation.snapshot(0)));
            }
        }
        for (expect, snapshot) in snapshots {
            let mut chunks = Vec::new();
            s.chunks((0, i64::MAX), &snapshot, &HeadChunks::default(), &mut chunks).expect("in memory");
            let total: i64 = chunks.iter().map(|c| i64::from(c.count())).sum();
            assert_eq!(total, expect);
        }
    }
}
