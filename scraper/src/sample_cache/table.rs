//! The series of a target whose body comes as samples: metrics by the bytes of their labels, series by metric and part.
//!
//! Keys live in an arena; tables hold numbers. Lookup is by seeded hashes, so that a target cannot choose its collisions.

use hashbrown::HashTable;
use model::SeriesRef;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cardinality::Refusal;
use crate::exposition::samples::Part;

/// A metric: a label set of a family, or a series of a text format.
#[derive(Debug)]
struct Metric {
    hash: u64,
    family: u32,
    start: u32,
    len: u32,
    /// Series that belong to it; 0 when the slot is free.
    series: u32,
}

/// One exposed series.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) metric: u32,
    pub(super) part: Part,
    /// [`SeriesRef::NONE`] when relabeling drops it.
    pub(super) series: SeriesRef,
    /// Last scrape that exposed it.
    pub(super) seen: u32,
    /// Last scrape whose sample counts for staleness.
    pub(super) tracked: u32,
    /// It counted at the last completed scrape, and no stale marker has been written since.
    pub(super) was_tracked: bool,
    /// Metric relabeling drops it, or there is no seat for it.
    pub(super) dropped: bool,
    /// There is no seat for it.
    pub(super) refusal: Refusal,
    /// Place in the order of the last completed scrape.
    pub(super) place: u32,
    live: bool,
}

/// No metric, no place.
pub(super) const NONE: u32 = u32::MAX;
/// Below this the arena is not worth compacting.
const ARENA_SLACK_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Table {
    arena: Vec<u8>,
    /// Bytes of the arena that no metric uses any more.
    dead_bytes: usize,
    metrics: Vec<Metric>,
    free_metrics: Vec<u32>,
    metrics_by_key: HashTable<u32>,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    entries_by_key: HashTable<u32>,
    seed: u64,
    /// Entries that are not dropped.
    kept: usize,
    /// Entries without a seat.
    refused: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            arena: Vec::new(),
            dead_bytes: 0,
            metrics: Vec::new(),
            free_metrics: Vec::new(),
            metrics_by_key: HashTable::new(),
            entries: Vec::new(),
            free_entries: Vec::new(),
            entries_by_key: HashTable::new(),
            seed: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64),
            kept: 0,
            refused: 0,
        }
    }

    /// Series that are stored, and those that are left out for want of a seat.
    pub(super) fn seated(&self) -> (usize, usize) {
        (self.kept, self.refused)
    }

    /// Marks an entry as one that is not stored.
    pub(super) fn drop_series(&mut self, id: u32, refusal: Refusal) {
        self.readmit(id);
        let e = self.get_mut(id);
        (e.dropped, e.refusal) = (true, refusal);
        self.kept -= 1;
        self.refused += usize::from(refusal != Refusal::None);
    }

    /// Marks an entry as one that is stored.
    pub(super) fn readmit(&mut self, id: u32) {
        let e = &mut self.entries[id as usize];
        let refusal = std::mem::take(&mut e.refusal);
        self.refused -= usize::from(refusal != Refusal::None);
        self.kept += usize::from(std::mem::take(&mut e.dropped));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free_entries.len()
    }

    /// Metrics, those without series included.
    pub(super) fn metrics_len(&self) -> usize {
        self.metrics.len() - self.free_metrics.len()
    }

    /// Bytes of keys.
    pub(super) fn key_bytes(&self) -> usize {
        self.arena.len()
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &Entry {
        &self.entries[id as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.entries[id as usize]
    }

    /// Whether the entry is the series of `part` of the metric with these labels.
    #[inline]
    pub(super) fn is(&self, id: u32, family: u32, labels: &[u8], part: Part) -> bool {
        let e = self.get(id);
        e.part == part && self.is_metric(e.metric, family, labels)
    }

    fn is_metric(&self, metric: u32, family: u32, labels: &[u8]) -> bool {
        let m = &self.metrics[metric as usize];
        m.family == family && self.arena[m.start as usize..m.start as usize + m.len as usize] == *labels
    }

    /// The number of a metric, made when it is not known. One without series goes away with
    /// [`Table::forget_unused`].
    pub(super) fn metric(&mut self, family: u32, labels: &[u8]) -> u32 {
        let hash = xxh3_64_with_seed(labels, self.seed ^ u64::from(family));
        if let Some(id) = self.metrics_by_key.find(hash, |id| self.is_metric(*id, family, labels)) {
            return *id;
        }
        let metric =
            Metric { hash, family, start: self.arena.len() as u32, len: labels.len() as u32, series: 0 };
        self.arena.extend_from_slice(labels);
        let id = place(&mut self.metrics, &mut self.free_metrics, metric);
        let metrics = &self.metrics;
        self.metrics_by_key.insert_unique(hash, id, |id| metrics[*id as usize].hash);
        id
    }

    pub(super) fn find(&self, metric: u32, part: Part) -> Option<u32> {
        let is = |id: &u32| {
            let e = self.get(*id);
            e.metric == metric && e.part == part
        };
        self.entries_by_key.find(entry_hash(self.seed, metric, part), is).copied()
    }

    /// Adds a series that is not there yet.
    pub(super) fn insert(&mut self, metric: u32, part: Part, series: SeriesRef) -> u32 {
        let entry = Entry {
            metric,
            part,
            series,
            seen: 0,
            tracked: 0,
            was_tracked: false,
            dropped: false,
            refusal: Refusal::None,
            place: NONE,
            live: true,
        };
        self.metrics[metric as usize].series += 1;
        self.kept += 1;
        let id = place(&mut self.entries, &mut self.free_entries, entry);
        let (entries, seed) = (&self.entries, self.seed);
        self.entries_by_key.insert_unique(entry_hash(seed, metric, part), id, |id| {
            let e = &entries[*id as usize];
            entry_hash(seed, e.metric, e.part)
        });
        id
    }

    /// Removes the entries for which `keep` is false, and metrics without entries.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        for id in 0..self.entries.len() as u32 {
            let e = &self.entries[id as usize];
            if !e.live || keep(e) {
                continue;
            }
            self.readmit(id);
            self.kept -= 1;
            let e = &mut self.entries[id as usize];
            e.live = false;
            let (metric, part) = (e.metric, e.part);
            let hash = entry_hash(self.seed, metric, part);
            if let Ok(found) = self.entries_by_key.find_entry(hash, |other| *other == id) {
                found.remove();
            }
            self.free_entries.push(id);
            self.metrics[metric as usize].series -= 1;
        }
        self.forget_unused();
    }

    fn forget_unused(&mut self) {
        for id in 0..self.metrics.len() as u32 {
            let m = &self.metrics[id as usize];
            if m.series > 0 {
                continue;
            }
            let (hash, len) = (m.hash, m.len as usize);
            if let Ok(found) = self.metrics_by_key.find_entry(hash, |other| *other == id) {
                found.remove();
                self.free_metrics.push(id);
                self.dead_bytes += len;
            }
        }
        if self.dead_bytes > self.arena.len() / 2 + ARENA_SLACK_BYTES {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.dead_bytes);
        for m in self.metrics.iter_mut().filter(|m| m.series > 0) {
            let start = arena.len() as u32;
            arena.extend_from_slice(&self.arena[m.start as usize..m.start as usize + m.len as usize]);
            m.start = start;
        }
        self.arena = arena;
        self.dead_bytes = 0;
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|e| e.live)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.live)
    }
}

fn place<T>(slots: &mut Vec<T>, free: &mut Vec<u32>, value: T) -> u32 {
    match free.pop() {
        Some(id) => {
            slots[id as usize] = value;
            id
        }
        None => {
            slots.push(value);
            (slots.len() - 1) as u32
        }
    }
}

fn entry_hash(seed: u64, metric: u32, part: Part) -> u64 {
    let (kind, bits) = match part {
        Part::Whole => (0_u8, 0),
        Part::Count => (1, 0),
        Part::Sum => (2, 0),
        Part::Bucket(bits) => (3, bits),
        Part::Quantile(bits) => (4, bits),
        Part::Native => (5, 0),
        Part::Converted => (6, 0),
    };
    let mut key = [0; 13];
    key[..4].copy_from_slice(&metric.to_le_bytes());
    key[4] = kind;
    key[5..].copy_from_slice(&bits.to_le_bytes());
    xxh3_64_with_seed(&key, seed)
}
