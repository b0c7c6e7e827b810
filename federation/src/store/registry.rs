//! The series that are in memory: labels to slot, slot to labels.
//!
//! A slot is a small number that indexes the arrays of the store. A [`SeriesRef`] holds the slot and its generation, which
//! rises when the slot passes to another series, so that a stale reference is noticed. A series without id exists in
//! memory only: its first commit gives it one and stores it. Open samples are in `open.rs`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Labels, SeriesRef};
use roaring::RoaringTreemap;

/// No slot.
const NONE: u32 = u32::MAX;

/// The hash of labels is good enough as it is.
#[derive(Default)]
pub(super) struct HashedKey(u64);

impl Hasher for HashedKey {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only 64-bit keys are hashed");
    }
    fn write_u64(&mut self, x: u64) {
        self.0 = x;
    }
}

/// Slot and generation, as a [`SeriesRef`] carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotRef {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl SlotRef {
    /// `generation << 32 | slot + 1`; never 0.
    pub(super) fn to_series_ref(self) -> SeriesRef {
        SeriesRef(u64::from(self.generation) << 32 | (u64::from(self.slot) + 1))
    }

    #[inline]
    pub(super) fn from_series_ref(r: SeriesRef) -> Option<Self> {
        let slot = (r.0 as u32).checked_sub(1)?;
        Some(Self { slot, generation: (r.0 >> 32) as u32 })
    }
}

struct Slot {
    labels: Labels,
    hash: u64,
    /// Next slot with the same hash.
    next: u32,
    generation: u32,
    /// Series id, 0 when it has none yet.
    id: u64,
    /// Set by each append, taken back by each round of forgetting.
    touched: AtomicBool,
    /// Rounds of forgetting without an append.
    idle_rounds: u32,
    live: bool,
}

/// Series in memory.
#[derive(Default)]
pub(super) struct Registry {
    by_hash: HashMap<u64, u32, BuildHasherDefault<HashedKey>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Counts removals of series from disk, so that a look-up on disk that one overtook is done again.
    pub(super) removals: u64,
    /// Ids being removed from disk: what a look-up still finds of them does not count.
    pub(super) dying: RoaringTreemap,
}

impl Registry {
    /// Number of series in memory.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The slot of a reference that is still valid. Marks the series as used.
    #[inline]
    pub(super) fn check(&self, series: SeriesRef) -> Option<SlotRef> {
        let r = SlotRef::from_series_ref(series)?;
        let slot = self.slots.get(r.slot as usize)?;
        if slot.generation != r.generation || !slot.live {
            return None;
        }
        slot.touch();
        Some(r)
    }

    /// The slot of a label set. Marks the series as used.
    pub(super) fn find(&self, hash: u64, labels: &Labels) -> Option<SlotRef> {
        let mut at = self.by_hash.get(&hash).copied().unwrap_or(NONE);
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.labels == *labels {
                slot.touch();
                return Some(SlotRef { slot: at, generation: slot.generation });
            }
            at = slot.next;
        }
        None
    }

    /// Takes in a series that [`Registry::find`] does not know. `id` is 0 for a new one.
    pub(super) fn insert(&mut self, hash: u64, labels: Labels, id: u64) -> SlotRef {
        debug_assert!(self.find(hash, &labels).is_none());
        let next = self.by_hash.get(&hash).copied().unwrap_or(NONE);
        let at = match self.free.pop() {
            Some(at) => {
                let slot = &mut self.slots[at as usize];
                slot.labels = labels;
                slot.hash = hash;
                slot.next = next;
                slot.id = id;
                slot.idle_rounds = 0;
                slot.touched.store(true, Ordering::Relaxed);
                slot.live = true;
                at
            }
            None => {
                let at = u32::try_from(self.slots.len()).expect("memory holds fewer than 2^32 series");
                let touched = AtomicBool::new(true);
                let slot =
                    Slot { labels, hash, next, generation: 0, id, touched, idle_rounds: 0, live: true };
                self.slots.push(slot);
                at
            }
        };
        self.by_hash.insert(hash, at);
        SlotRef { slot: at, generation: self.slots[at as usize].generation }
    }

    /// Id and labels of a slot, when it still belongs to the series of the reference.
    pub(super) fn series(&self, r: SlotRef) -> Option<(u64, &Labels)> {
        let slot = self.slots.get(r.slot as usize)?;
        (slot.live && slot.generation == r.generation).then_some((slot.id, &slot.labels))
    }

    /// Gives a series its id.
    pub(super) fn set_id(&mut self, slot: u32, id: u64) {
        self.slots[slot as usize].id = id;
    }

    /// Ids of all series in memory.
    pub(super) fn live_ids(&self) -> RoaringTreemap {
        self.slots.iter().filter(|s| s.live && s.id != 0).map(|s| s.id).collect()
    }

    /// One round of forgetting: the live slots that saw no append in the last `rounds` rounds.
    pub(super) fn idle(&mut self, rounds: u32) -> Vec<u32> {
        let mut out = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate().filter(|(_, s)| s.live) {
            if std::mem::replace(slot.touched.get_mut(), false) {
                slot.idle_rounds = 0;
            } else {
                slot.idle_rounds = slot.idle_rounds.saturating_add(1);
                if slot.idle_rounds >= rounds {
                    out.push(at as u32);
                }
            }
        }
        out
    }

    /// Lets a series go, unless it was used since [`Registry::idle`] named it.
    pub(super) fn forget(&mut self, at: u32) -> bool {
        let slot = &mut self.slots[at as usize];
        if !slot.live || *slot.touched.get_mut() {
            return false;
        }
        let (hash, next) = (slot.hash, slot.next);
        slot.live = false;
        slot.generation = slot.generation.wrapping_add(1);
        slot.labels = Labels::empty();
        self.unlink(hash, at, next);
        self.free.push(at);
        true
    }

    fn unlink(&mut self, hash: u64, at: u32, next: u32) {
        let head = self.by_hash[&hash];
        if head == at {
            if next == NONE {
                self.by_hash.remove(&hash);
            } else {
                self.by_hash.insert(hash, next);
            }
            return;
        }
        let mut before = head;
        while self.slots[before as usize].next != at {
            before = self.slots[before as usize].next;
        }
        self.slots[before as usize].next = next;
    }
}

impl Slot {
    #[inline]
    fn touch(&self) {
        // Read first: a store would take the cache line from all other appenders each time.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(v: &str) -> Labels {
        Labels::from_pairs([("__name__", "up"), ("i", v)])
    }

    #[test]
    fn equal_hashes_are_kept_apart_and_stale_references_noticed() {
        let mut r = Registry::default();
        // All three under one hash on purpose.
        let refs: Vec<SlotRef> = ["a", "b", "c"].iter().map(|v| r.insert(9, labels(v), 0)).collect();
        for (i, v) in ["a", "b", "c"].iter().enumerate() {
            assert_eq!(r.find(9, &labels(v)), Some(refs[i]));
        }
        assert!(r.idle(1).is_empty(), "all were just used");
        assert_eq!(r.idle(1), [0, 1, 2]);
        assert!(r.check(refs[2].to_series_ref()).is_some());
        assert!(r.forget(1) && !r.forget(2) && r.forget(0));
        assert_eq!((r.len(), r.find(9, &labels("b")), r.find(9, &labels("c"))), (1, None, Some(refs[2])));
        assert!(r.check(refs[1].to_series_ref()).is_none());
        let again = r.insert(10, labels("d"), 4);
        assert_eq!((again.slot, again.generation), (0, 1));
        assert!(r.check(refs[0].to_series_ref()).is_none());
        assert_eq!(r.series(again).map(|(id, _)| id), Some(4));
        assert!(SlotRef::from_series_ref(SeriesRef::NONE).is_none());
    }
}
