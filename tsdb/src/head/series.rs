//! [`MemSeries`]: one series of the head, its finished chunks and the one being written; [`SeriesMap`] finds series by
//! labels and by reference.
//!
//! Invariants: samples rise strictly in time; a chunk never crosses a multiple of the block range, so that cutting a
//! block never splits one; a series with `removed` set takes no samples.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::{
    Chunk, FloatHistogram, Histogram, HistogramValue, Labels, Metadata, Sample, SampleValue, SeriesRef,
    StorageError,
};
use parking_lot::{Mutex, RwLock};

use super::head_chunks::{HeadChunks, Place, StoredChunk};
use super::isolation::Snapshot;
use super::out_of_order::{Bounds, Inserted, OutOfOrder};
use crate::chunk::{self, Cut, Encodings, OpenChunk};

/// One series.
pub(crate) struct MemSeries {
    pub(crate) reference: SeriesRef,
    pub(crate) labels: Labels,
    /// Whether the write-ahead log has its series record.
    pub(crate) logged: AtomicBool,
    pub(crate) state: Mutex<SeriesState>,
}

impl MemSeries {
    pub(crate) fn new(reference: SeriesRef, labels: Labels) -> Self {
        let state = Mutex::new(SeriesState::default());
        Self { reference, labels, logged: AtomicBool::new(false), state }
    }
}

/// The changing part of a series.
#[derive(Default)]
pub(crate) struct SeriesState {
    /// The oldest chunks, which are in files.
    stored: Vec<StoredChunk>,
    /// Those after them that are still in memory.
    finished: Vec<HeadChunk>,
    open: Option<OpenChunk>,
    cut: Cut,
    /// The newest sample ever taken.
    last: Option<(i64, SampleValue)>,
    visibility: Visibility,
    /// Appenders that hold a sample for this series; it is not removed meanwhile.
    pub(crate) pending: u32,
    pub(crate) removed: bool,
    pub(crate) metadata: Option<Arc<Metadata>>,
    pub(crate) late: Option<Box<OutOfOrder>>,
}

/// How long chunks are at most, and their encodings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkForm {
    /// No chunk crosses a multiple of this.
    pub(crate) range_ms: i64,
    pub(crate) encodings: Encodings,
}

/// A chunk that gets no more samples.
#[derive(Clone, Debug)]
pub(crate) struct HeadChunk {
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    pub(crate) encoding: u8,
    pub(crate) bytes: Bytes,
}

impl HeadChunk {
    pub(crate) fn count(&self) -> u16 {
        chunk::sample_count(self.encoding, &self.bytes)
    }
}

/// Which commits a series has samples of, as far as some reader may not see them.
#[derive(Default)]
struct Visibility {
    /// Samples ever taken.
    samples: u64,
    /// The newest commit and the samples before it.
    newest: (u64, u64),
    /// Commits before it that were not seen by everybody, oldest first.
    #[allow(clippy::box_collection, reason = "one word in every series instead of three")]
    older: Option<Box<Vec<(u64, u64)>>>,
}

impl Visibility {
    fn add(&mut self, commit: u64, low_watermark: u64) {
        if self.newest.0 != commit {
            if let Some(older) = &mut self.older {
                older.retain(|(c, _)| *c >= low_watermark);
            }
            if self.newest.0 >= low_watermark {
                self.older.get_or_insert_default().push(self.newest);
            } else {
                self.older.take_if(|o| o.is_empty());
            }
            self.newest = (commit, self.samples);
        }
        self.samples += 1;
    }

    /// Samples at the end that the snapshot does not see.
    fn hidden(&self, snapshot: &Snapshot) -> u64 {
        let mut commits = self.older.iter().flat_map(|o| o.iter()).chain([&self.newest]);
        commits.find(|(c, _)| !snapshot.sees(*c)).map_or(0, |(_, before)| self.samples - before)
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
            (Some(open), Some((last, _))) => {
                let (mint, last) = (self.cut.mint(), *last);
                match self.cut.append(open, last, sample, form.range_ms, form.encodings) {
                    Some(full) => {
                        self.finished.push(finish(&full, mint, last));
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
        match self.late.get_or_insert_default().insert(sample, form.encodings) {
            Inserted::Yes => Outcome::Late,
            Inserted::InNewChunk => Outcome::LateInNewChunk,
            Inserted::Same => Outcome::Same,
        }
    }

    /// Drops chunks whose samples are all before `mint`; returns how many.
    pub(crate) fn truncate(&mut self, mint: i64) -> usize {
        let before = self.chunk_count();
        self.stored.retain(|c| c.maxt >= mint);
        self.finished.retain(|c| c.maxt >= mint);
        if self.finished.is_empty() && self.stored.is_empty() {
            (self.finished, self.stored) = Default::default();
            if self.last_timestamp_ms().is_some_and(|t| t < mint) {
                self.open = None;
            }
        }
        before - self.chunk_count()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        let late = self.late.as_ref().map_or(0, |l| l.chunk_count());
        self.stored.len() + self.finished.len() + usize::from(self.open.is_some()) + late
    }

    /// Finished chunks that are in memory.
    pub(crate) fn unstored(&self) -> &[HeadChunk] {
        &self.finished
    }

    /// Puts places in files where the first so many finished chunks are in memory.
    pub(crate) fn store(&mut self, places: &[Place]) {
        self.stored.reserve_exact(places.len());
        let chunks = self.finished.drain(..places.len()).zip(places);
        self.stored.extend(chunks.map(|(c, place)| StoredChunk {
            mint: c.mint,
            maxt: c.maxt,
            place: *place,
        }));
        self.finished.shrink_to_fit();
    }

    /// Times of the oldest and the newest sample, late ones too.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        let in_order = self.mint().zip(self.last_timestamp_ms());
        let late = self.late.as_ref().and_then(|l| l.range());
        in_order.into_iter().chain(late).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Timestamp of the oldest sample held.
    pub(crate) fn mint(&self) -> Option<i64> {
        let finished = self.finished.first().map(|c| c.mint);
        self.stored
            .first()
            .map(|c| c.mint)
            .or(finished)
            .or_else(|| self.open.is_some().then_some(self.cut.mint()))
    }

    /// Whether there may be late samples within `[mint, maxt]`.
    pub(crate) fn overlaps_late(&self, mint: i64, maxt: i64) -> bool {
        let range = self.late.as_ref().and_then(|l| l.range());
        range.is_some_and(|(first, last)| first <= maxt && last >= mint)
    }

    /// Whether there may be samples in order within `[mint, maxt]`.
    pub(crate) fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        let open = self.open.is_some()
            && self.cut.mint() <= maxt
            && self.last_timestamp_ms().is_some_and(|t| t >= mint);
        open || !within(&self.finished, |c| (c.mint, c.maxt), mint, maxt).is_empty()
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
        if let Some(late) = &self.late {
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
        let mut finished = self.finished.as_slice();
        while hidden > 0
            && let Some((c, older)) = finished.split_last()
        {
            finished = older;
            if let Some(c) = visible(c.clone(), &mut hidden)
                && c.mint <= maxt
                && c.maxt >= mint
            {
                out.push(c);
            }
        }
        out.extend(within(finished, |c| (c.mint, c.maxt), mint, maxt).iter().rev().cloned());
        let mut stored = self.stored.as_slice();
        while hidden > 0
            && let Some((c, older)) = stored.split_last()
        {
            stored = older;
            if let Some(c) = visible(files.get(c)?, &mut hidden)
                && c.mint <= maxt
                && c.maxt >= mint
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

fn finish(open: &OpenChunk, mint: i64, maxt: i64) -> HeadChunk {
    HeadChunk { mint, maxt, encoding: open.encoding(), bytes: open.encode_first(open.count()) }
}

/// How many of `count` samples are shown when `hidden` at the end are not.
fn hide(count: u16, hidden: &mut u64) -> u16 {
    let hide = (*hidden).min(u64::from(count));
    *hidden -= hide;
    count - hide as u16
}

/// A finished chunk without its hidden samples, which are at its end; `None` when all are.
fn visible(mut c: HeadChunk, hidden: &mut u64) -> Option<HeadChunk> {
    let count = c.count();
    let shown = hide(count, hidden);
    if shown < count {
        c.bytes = chunk::with_sample_count(c.encoding, &c.bytes, shown);
    }
    (shown > 0).then_some(c)
}

/// Of chunks that follow each other in time, those with samples within `[mint, maxt]`.
fn within<T>(chunks: &[T], range: impl Fn(&T) -> (i64, i64), mint: i64, maxt: i64) -> &[T] {
    let first = chunks.partition_point(|c| range(c).1 < mint);
    let count = chunks[first..].partition_point(|c| range(c).0 <= maxt);
    &chunks[first..first + count]
}

/// A head chunk as the storage contract hands it on.
pub(crate) fn to_model(c: HeadChunk) -> Option<Chunk> {
    Some(Chunk::encoded(chunk::codec(c.encoding)?, c.bytes, c.mint, c.maxt))
}

// === SeriesMap ===

const SHARDS: usize = 128;
const _: () = assert!(SHARDS.is_power_of_two(), "shards are picked by mask");

/// Hashes are spread already; references are spread by a multiplication.
#[derive(Default)]
pub(crate) struct SpreadHasher(u64);

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

pub(crate) type RefMap<T> = HashMap<u64, T, BuildHasherDefault<SpreadHasher>>;

#[derive(Default)]
struct HashShard {
    first: RefMap<Arc<MemSeries>>,
    /// Series whose hash another one in `first` has too.
    collisions: Vec<Arc<MemSeries>>,
}

impl HashShard {
    fn get(&self, hash: u64, labels: &Labels) -> Option<&Arc<MemSeries>> {
        let first = self.first.get(&hash)?;
        if first.labels == *labels {
            return Some(first);
        }
        self.collisions.iter().find(|s| s.labels == *labels)
    }

    fn insert(&mut self, hash: u64, series: Arc<MemSeries>) {
        match self.first.entry(hash) {
            std::collections::hash_map::Entry::Vacant(v) => {
                v.insert(series);
            }
            std::collections::hash_map::Entry::Occupied(_) => self.collisions.push(series),
        }
    }

    fn remove(&mut self, hash: u64, reference: SeriesRef) {
        if self.first.get(&hash).is_some_and(|s| s.reference == reference) {
            self.first.remove(&hash);
            // Another series with this hash must be found again.
            if let Some(i) = self.collisions.iter().position(|s| s.labels.hash64() == hash) {
                self.first.insert(hash, self.collisions.swap_remove(i));
            }
        } else {
            self.collisions.retain(|s| s.reference != reference);
        }
    }
}

/// All series of the head. Lock order: shard by hash, then shard by reference, then a series.
pub(crate) struct SeriesMap {
    by_hash: Vec<RwLock<HashShard>>,
    by_ref: Vec<RwLock<RefMap<Arc<MemSeries>>>>,
    last_ref: AtomicU64,
}

impl SeriesMap {
    pub(crate) fn new() -> Self {
        Self {
            by_hash: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_ref: (0..SHARDS).map(|_| RwLock::default()).collect(),
            last_ref: AtomicU64::new(0),
        }
    }

    fn hash_shard(&self, hash: u64) -> &RwLock<HashShard> {
        &self.by_hash[hash as usize & (SHARDS - 1)]
    }

    fn ref_shard(&self, reference: u64) -> &RwLock<RefMap<Arc<MemSeries>>> {
        &self.by_ref[reference as usize & (SHARDS - 1)]
    }

    pub(crate) fn get(&self, reference: SeriesRef) -> Option<Arc<MemSeries>> {
        self.ref_shard(reference.0).read().get(&reference.0).cloned()
    }

    /// The series with these labels; the second part is true when it was made. `wanted` is its reference then, if given.
    pub(crate) fn get_or_create(&self, labels: &Labels, wanted: Option<SeriesRef>) -> (Arc<MemSeries>, bool) {
        let hash = labels.hash64();
        if let Some(s) = self.hash_shard(hash).read().get(hash, labels) {
            return (s.clone(), false);
        }
        let mut shard = self.hash_shard(hash).write();
        if let Some(s) = shard.get(hash, labels) {
            return (s.clone(), false);
        }
        let reference = match wanted {
            Some(r) => {
                self.last_ref.fetch_max(r.0, Ordering::Relaxed);
                r
            }
            None => SeriesRef(self.last_ref.fetch_add(1, Ordering::Relaxed) + 1),
        };
        let series = Arc::new(MemSeries::new(reference, labels.clone()));
        shard.insert(hash, series.clone());
        self.ref_shard(reference.0).write().insert(reference.0, series.clone());
        (series, true)
    }

    /// Makes sure that new references are above this one.
    pub(crate) fn reserve_ref(&self, reference: SeriesRef) {
        self.last_ref.fetch_max(reference.0, Ordering::Relaxed);
    }

    /// Calls `f` for every series, shard by shard.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<MemSeries>)) {
        for shard in &self.by_ref {
            // Copied, so that no commit waits for `f`.
            let series: Vec<_> = shard.read().values().cloned().collect();
            series.iter().for_each(&mut f);
        }
    }

    /// Removes series without chunks that no appender holds; returns them.
    pub(crate) fn remove_empty(&self) -> Vec<(SeriesRef, Labels)> {
        let mut removed = Vec::new();
        self.for_each(|s| {
            if s.state.lock().chunk_count() > 0 {
                return;
            }
            let hash = s.labels.hash64();
            let mut by_hash = self.hash_shard(hash).write();
            let mut by_ref = self.ref_shard(s.reference.0).write();
            let mut state = s.state.lock();
            if state.chunk_count() == 0 && state.pending == 0 && !state.removed {
                state.removed = true;
                by_hash.remove(hash, s.reference);
                by_ref.remove(&s.reference.0);
                removed.push((s.reference, s.labels.clone()));
            }
        });
        removed
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
