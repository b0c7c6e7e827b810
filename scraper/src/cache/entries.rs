//! The series that a target exposes, found by the bytes it writes for them.
//!
//! Keys live in the cache's arena; the table holds offsets. Lookup is by a seeded hash, so that a target cannot choose
//! its collisions.

use hashbrown::HashTable;
use model::{Labels, SeriesRef};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// No entry, no line.
pub(super) const NONE: u32 = u32::MAX;

/// A range of the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Slice {
    #[inline]
    pub(super) fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..self.start as usize + self.len as usize]
    }
}

/// One exposed series.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) hash: u64,
    /// Reference of the stored series; [`SeriesRef::NONE`] when the store gives none.
    pub(super) series: SeriesRef,
    /// Only kept when the store gives no reference.
    pub(super) labels: Option<Labels>,
    pub(super) key: Slice,
    /// First line of the series in the last completed scrape.
    pub(super) line: u32,
    /// Last scrape that exposed it.
    pub(super) seen: u32,
    /// Last scrape whose sample counts for staleness.
    pub(super) tracked: u32,
    /// Metric relabeling drops it.
    pub(super) dropped: bool,
    live: bool,
}

/// All entries of a target.
#[derive(Debug)]
pub(super) struct Entries {
    slots: Vec<Entry>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    seed: u64,
}

impl Entries {
    pub(super) fn new() -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64);
        Self { slots: Vec::new(), free: Vec::new(), by_key: HashTable::new(), seed }
    }

    pub(super) fn reserve(&mut self, n: usize) {
        self.slots.reserve(n);
        let slots = &self.slots;
        self.by_key.reserve(n, |id| slots[*id as usize].hash);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.slots[id as usize]
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    pub(super) fn find(&self, hash: u64, key: &[u8], arena: &[u8]) -> Option<u32> {
        self.by_key.find(hash, |id| self.slots[*id as usize].key.of(arena) == key).copied()
    }

    /// Adds a series that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, key: Slice, series: SeriesRef) -> u32 {
        let entry = Entry {
            hash,
            series,
            labels: None,
            key,
            line: NONE,
            seen: 0,
            tracked: 0,
            dropped: false,
            live: true,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = entry;
                id
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        self.by_key.insert_unique(hash, id, |id| slots[*id as usize].hash);
        id
    }

    /// Removes the entries for which `keep` is false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        for id in 0..self.slots.len() as u32 {
            let e = &self.slots[id as usize];
            if e.live && !keep(e) {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: u32) {
        if let Ok(found) = self.by_key.find_entry(self.slots[id as usize].hash, |other| *other == id) {
            found.remove();
        }
        let e = &mut self.slots[id as usize];
        e.live = false;
        e.labels = None;
        self.free.push(id);
    }

    /// All entries.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slots.iter_mut().filter(|e| e.live)
    }
}
