//! Threads that add replayed samples to series, each to its share of them.
//!
//! Of one series all samples go to one thread, in order. What is under way is bounded: batches have a length, and channels
//! hold few.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};

use model::{SampleValue, Samples, StorageError};

use super::super::head_chunks::{HeadChunks, StoredChunk};
use super::super::out_of_order::Bounds;
use super::super::series::{ChunkForm, HeadChunk, MemSeries, Outcome};
use super::super::series_map::RefMap;

/// Samples handed over at a time.
const BATCH_MAX: usize = 8 << 10;
/// Batches that wait for a thread.
const WAITING_MAX: usize = 8;
/// References are neighbours' neighbours: scrapes name them in order.
const PAGE_LEN: u64 = 128;

/// A series as files have it.
pub(super) struct Restored {
    pub(super) reference: u64,
    pub(super) series: Arc<MemSeries>,
    /// Its chunks in files.
    pub(super) stored: Vec<StoredChunk>,
    /// Its open chunk, from a snapshot.
    pub(super) open: Option<HeadChunk>,
}

/// Reference, time, start, value.
pub(super) type Timed = (u64, i64, i64, SampleValue);
type Floats = Vec<(u64, i64, f64)>;

enum Message {
    Series(Vec<Restored>),
    Floats(Floats),
    Others(Vec<Timed>),
    /// What came before is in a block.
    Evicted(u64),
}

/// What the threads need to know.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) form: ChunkForm,
    pub(super) min_valid: i64,
    pub(super) files: &'a HeadChunks,
}

/// What the threads found.
pub(super) struct Totals {
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    pub(super) unknown_floats: u64,
    pub(super) unknown_histograms: u64,
    /// The highest reference of those.
    pub(super) last_unknown: u64,
    /// The files contradict each other: series cannot be restored from them alone.
    pub(super) contradiction: Option<StorageError>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            min_time: i64::MAX,
            max_time: i64::MIN,
            unknown_floats: 0,
            unknown_histograms: 0,
            last_unknown: 0,
            contradiction: None,
        }
    }
}

/// The sending side.
pub(super) struct Shards<'scope> {
    shards: Vec<Shard<'scope>>,
}

struct Shard<'scope> {
    messages: SyncSender<Message>,
    empty: Receiver<Floats>,
    floats: Floats,
    thread: ScopedJoinHandle<'scope, Totals>,
}

impl Shard<'_> {
    fn send(&mut self, message: Message) {
        self.flush();
        let _ = self.messages.send(message); // A thread ends early only by a panic, which `finish` passes on.
    }

    fn flush(&mut self) {
        if !self.floats.is_empty() {
            let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH_MAX));
            let full = std::mem::replace(&mut self.floats, next);
            let _ = self.messages.send(Message::Floats(full));
        }
    }
}

impl<'scope> Shards<'scope> {
    /// Starts as many threads as there are processors.
    pub(super) fn start<'env>(scope: &'scope Scope<'scope, 'env>, terms: Terms<'env>) -> Self {
        let n = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 16));
        let start = |_| {
            let (messages, received) = mpsc::sync_channel(WAITING_MAX);
            let (give_back, empty) = mpsc::channel();
            let thread = scope.spawn(move || Applier::new(terms).run(&received, &give_back));
            Shard { messages, empty, floats: Vec::with_capacity(BATCH_MAX), thread }
        };
        Self { shards: (0..n).map(start).collect() }
    }

    fn of(&mut self, reference: u64) -> &mut Shard<'scope> {
        let n = self.shards.len() as u64;
        &mut self.shards[(reference / PAGE_LEN % n) as usize]
    }

    /// Makes series known. Samples come after this.
    pub(super) fn series(&mut self, list: impl IntoIterator<Item = Restored>) {
        let mut parts: Vec<Vec<Restored>> = self.shards.iter().map(|_| Vec::new()).collect();
        let n = self.shards.len() as u64;
        list.into_iter().for_each(|s| parts[(s.reference / PAGE_LEN % n) as usize].push(s));
        for (shard, part) in self.shards.iter_mut().zip(parts) {
            if !part.is_empty() {
                shard.send(Message::Series(part));
            }
        }
    }

    /// Drops what a series has until now.
    pub(super) fn evict(&mut self, reference: u64) {
        self.of(reference).send(Message::Evicted(reference));
    }

    #[inline]
    pub(super) fn float(&mut self, reference: u64, t: i64, v: f64) {
        let shard = self.of(reference);
        shard.floats.push((reference, t, v));
        if shard.floats.len() == BATCH_MAX {
            shard.flush();
        }
    }

    pub(super) fn others(&mut self, list: impl IntoIterator<Item = Timed>) {
        let mut parts: Vec<Vec<Timed>> = self.shards.iter().map(|_| Vec::new()).collect();
        let n = self.shards.len() as u64;
        list.into_iter().for_each(|s| parts[(s.0 / PAGE_LEN % n) as usize].push(s));
        for (shard, part) in self.shards.iter_mut().zip(parts) {
            if !part.is_empty() {
                shard.send(Message::Others(part));
            }
        }
    }

    /// Waits until everything has been added.
    pub(super) fn finish(self) -> Totals {
        let mut all = Totals::default();
        let end = |mut s: Shard<'scope>| {
            s.flush();
            s.thread
        };
        let threads: Vec<_> = self.shards.into_iter().map(end).collect();
        for t in threads {
            let part = t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.min_time = all.min_time.min(part.min_time);
            all.max_time = all.max_time.max(part.max_time);
            all.unknown_floats += part.unknown_floats;
            all.unknown_histograms += part.unknown_histograms;
            all.last_unknown = all.last_unknown.max(part.last_unknown);
            all.contradiction = all.contradiction.or(part.contradiction);
        }
        all
    }
}

/// A series, and the time up to which files have its samples.
type Slot = Option<(Arc<MemSeries>, i64)>;

struct Applier<'a> {
    terms: Terms<'a>,
    pages: Vec<Box<[Slot]>>,
    /// Places in `pages`.
    places: RefMap<usize>,
    /// The page asked for last, and its place.
    last: (u64, usize),
    totals: Totals,
    scratch: Samples,
}

impl<'a> Applier<'a> {
    fn new(terms: Terms<'a>) -> Self {
        let (pages, places) = Default::default();
        let (totals, scratch) = Default::default();
        Self { terms, pages, places, last: (u64::MAX, 0), totals, scratch }
    }

    fn run(mut self, messages: &Receiver<Message>, give_back: &Sender<Floats>) -> Totals {
        for message in messages {
            match message {
                Message::Series(list) => list.into_iter().for_each(|s| self.restore(s)),
                Message::Floats(mut list) => {
                    for (r, t, v) in &list {
                        self.sample(*r, (*t, 0, SampleValue::Float(*v)));
                    }
                    list.clear();
                    let _ = give_back.send(list); // The other side may be through.
                }
                Message::Others(list) => {
                    list.into_iter().for_each(|(r, t, start, v)| self.sample(r, (t, start, v)));
                }
                Message::Evicted(r) => self.evict(r),
            }
        }
        // Newest samples that no record came after.
        for (series, until) in self.pages.iter().flatten().flatten() {
            if *until != i64::MIN {
                let mut state = series.state.lock();
                if state.lacks_last()
                    && let Err(e) = state.restore_last(self.terms.files)
                {
                    self.totals.contradiction.get_or_insert(e);
                }
            }
        }
        self.totals
    }

    fn evict(&mut self, reference: u64) {
        let Some((series, _)) = self.slot(reference) else { return };
        let series = series.clone();
        series.state.lock().evict();
        let page = self.last.1;
        self.pages[page][(reference % PAGE_LEN) as usize] = Some((series, i64::MIN));
    }

    fn slot(&mut self, reference: u64) -> Option<&(Arc<MemSeries>, i64)> {
        let page = reference / PAGE_LEN;
        if self.last.0 != page {
            self.last = (page, *self.places.get(&page)?);
        }
        self.pages[self.last.1][(reference % PAGE_LEN) as usize].as_ref()
    }

    fn restore(&mut self, s: Restored) {
        let mut until = self.slot(s.reference).map_or(i64::MIN, |(_, until)| *until);
        if !s.stored.is_empty() || s.open.is_some() {
            let mut state = s.series.state.lock();
            let (upto, fit) = state.restore_stored(&s.stored);
            until = until.max(upto);
            if !fit {
                let e =
                    StorageError::decode("head chunks", format!("those of series {} overlap", s.reference));
                self.totals.contradiction.get_or_insert(e);
            }
            if let Some(open) = s.open {
                let Terms { form, min_valid, .. } = self.terms;
                if let Err(e) = state.restore_open(open, min_valid, form, &mut self.scratch) {
                    self.totals.contradiction.get_or_insert(e);
                }
            }
            if let Some((first, last)) = state.range().or_else(|| state.mint().map(|t| (t, until))) {
                self.totals.min_time = self.totals.min_time.min(first.max(self.terms.min_valid));
                self.totals.max_time = self.totals.max_time.max(last);
            }
        }
        let page = s.reference / PAGE_LEN;
        let pages = &mut self.pages;
        let place = *self.places.entry(page).or_insert_with(|| {
            pages.push((0..PAGE_LEN).map(|_| None).collect());
            pages.len() - 1
        });
        pages[place][(s.reference % PAGE_LEN) as usize] = Some((s.series, until));
    }

    #[inline]
    fn sample(&mut self, reference: u64, (t, start, value): (i64, i64, SampleValue)) {
        let terms = self.terms;
        let Some((series, until)) = self.slot(reference) else {
            match value {
                SampleValue::Float(_) => self.totals.unknown_floats += 1,
                SampleValue::Histogram(_) => self.totals.unknown_histograms += 1,
            }
            self.totals.last_unknown = self.totals.last_unknown.max(reference);
            return;
        };
        if t <= *until {
            return;
        }
        let mut state = series.state.lock();
        if *until != i64::MIN && is_stale(&value) && state.lacks_last() {
            // The marker is of the kind of the sample before. One that cannot be read comes up at the end.
            let _ = state.restore_last(terms.files);
        }
        let outcome = state.append((t, start, value), terms.form, &Bounds::NONE, (0, 0));
        drop(state);
        if matches!(outcome, Outcome::Stored | Outcome::StoredInNewChunk) {
            self.totals.min_time = self.totals.min_time.min(t);
            self.totals.max_time = self.totals.max_time.max(t);
        }
    }
}

fn is_stale(value: &SampleValue) -> bool {
    matches!(value, SampleValue::Float(v) if model::is_stale_nan(*v))
}
