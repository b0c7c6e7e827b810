//! The series that a target exposes, found by the hash of the bytes it writes for them.
//!
//! 96 bits of hash stand for the bytes. The seed keeps a target from choosing its collisions.

use std::collections::HashMap;

use crate::cardinality::Refusal;
use hashbrown::HashTable;
use model::{Labels, SeriesRef};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// No entry, no line.
pub(super) const NONE: u32 = u32::MAX;

/// What stands for the bytes of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    low: u64,
    high: u32,
}

/// One exposed series.
#[derive(Debug)]
pub(super) struct Entry {
    key_low: u64,
    /// Reference of the stored series; [`SeriesRef::NONE`] when the store gives none.
    pub(super) series: SeriesRef,
    key_high: u32,
    /// First line of the series in the last completed scrape.
    pub(super) line: u32,
    /// Last scrape that exposed it.
    pub(super) seen: u32,
    /// Whether its sample in that scrape counts for staleness.
    pub(super) tracked: bool,
    /// Metric relabeling drops it, or there is no seat for it.
    pub(super) dropped: bool,
    /// There is no seat for it.
    pub(super) refusal: Refusal,
    live: bool,
}

/// There are as many entries as series.
const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    fn key(&self) -> Key {
        Key { low: self.key_low, high: self.key_high }
    }

    /// Whether it has a sample in this scrape that counts for staleness.
    pub(super) fn counts_in(&self, scrape: u32) -> bool {
        self.seen == scrape && self.tracked
    }
}

/// All entries of a target.
#[derive(Debug)]
pub(super) struct Entries {
    slots: Vec<Entry>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    /// Labels of the series that the store gives no reference for.
    labels: HashMap<u32, Labels>,
    seed: u64,
    /// Entries that are not dropped.
    kept: usize,
    /// Entries without a seat.
    refused: usize,
}

impl Entries {
    pub(super) fn new() -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            labels: HashMap::new(),
            seed,
            kept: 0,
            refused: 0,
        }
    }

    pub(super) fn reserve(&mut self, n: usize) {
        self.slots.reserve(n);
        let slots = &self.slots;
        self.by_key.reserve(n, |id| slots[*id as usize].key_low);
    }

    /// Gives back what has been reserved or used before beyond what is there, when that is much.
    pub(super) fn shrink(&mut self) {
        if self.slots.len() < self.slots.capacity() / 8 * 7 {
            self.slots.shrink_to_fit();
        }
        if self.by_key.len() < self.by_key.capacity() / 2 {
            let slots = &self.slots;
            self.by_key.shrink_to_fit(|id| slots[*id as usize].key_low);
        }
    }

    /// Series that are stored, and those that are left out for want of a seat.
    pub(super) fn seated(&self) -> (usize, usize) {
        (self.kept, self.refused)
    }

    /// Marks an entry as one that is not stored.
    pub(super) fn drop_series(&mut self, id: u32, refusal: Refusal) {
        self.readmit(id);
        let e = &mut self.slots[id as usize];
        (e.dropped, e.refusal) = (true, refusal);
        self.kept -= 1;
        self.refused += usize::from(refusal != Refusal::None);
    }

    /// Marks an entry as one that is stored.
    pub(super) fn readmit(&mut self, id: u32) {
        let e = &mut self.slots[id as usize];
        let refusal = std::mem::take(&mut e.refusal);
        self.refused -= usize::from(refusal != Refusal::None);
        self.kept += usize::from(std::mem::take(&mut e.dropped));
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &Entry {
        &self.slots[id as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.slots[id as usize]
    }

    /// Labels of a series that the store gives no reference for.
    pub(super) fn labels(&self, id: u32) -> Option<&Labels> {
        self.labels.get(&id).filter(|_| self.slots[id as usize].series == SeriesRef::NONE)
    }

    /// Sets what the store calls a series; the labels are kept when it gives no reference.
    pub(super) fn set_series(&mut self, id: u32, series: SeriesRef, labels: Option<&Labels>) {
        self.slots[id as usize].series = series;
        match labels.filter(|_| series == SeriesRef::NONE) {
            Some(labels) => {
                self.labels.insert(id, labels.clone());
            }
            None if self.labels.is_empty() => {}
            None => {
                self.labels.remove(&id);
            }
        }
    }

    /// What stands for the text of a line.
    #[inline]
    pub(super) fn hash(&self, text: &[u8]) -> u64 {
        xxh3_64_with_seed(text, self.seed)
    }

    /// What stands for the bytes of a series.
    pub(super) fn key(&self, series: &[u8]) -> Key {
        let hash = xxh3_128_with_seed(series, self.seed);
        Key { low: hash as u64, high: (hash >> 64) as u32 }
    }

    pub(super) fn find(&self, key: Key) -> Option<u32> {
        self.by_key.find(key.low, |id| self.slots[*id as usize].key() == key).copied()
    }

    /// Adds a series that is not there yet.
    pub(super) fn insert(&mut self, key: Key) -> u32 {
        let entry = Entry {
            key_low: key.low,
            key_high: key.high,
            series: SeriesRef::NONE,
            line: NONE,
            seen: 0,
            tracked: false,
            dropped: false,
            refusal: Refusal::None,
            live: true,
        };
        self.kept += 1;
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
        self.by_key.insert_unique(key.low, id, |id| slots[*id as usize].key_low);
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
        if let Ok(found) = self.by_key.find_entry(self.slots[id as usize].key_low, |other| *other == id) {
            found.remove();
        }
        self.readmit(id);
        self.kept -= 1;
        self.slots[id as usize].live = false;
        self.labels.remove(&id);
        self.free.push(id);
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter(|e| e.live)
    }
}
