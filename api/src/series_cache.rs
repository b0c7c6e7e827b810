//! What the remote-write receiver remembers: the store's reference for the labels of a series, under a hash of the bytes that a
//! sender writes them as.
//!
//! A sender encodes the labels of a series the same way every time, so in the steady state these bytes are hashed and no
//! label is parsed. The hash has 128 bits and stands for the bytes: that two of a billion series have the same one is less
//! likely than 10^-20, and a sender that looked for such a pair could write to both series anyway. So a series takes some 40
//! bytes here and one access to memory; [`SeriesCache::get_all`] lets those of many series overlap.
//!
//! The cache is bounded and has two generations: when the young one is full it becomes the old one and the old one is forgotten,
//! while what is still in use moves to the young one when it is looked up. A wrong or outdated reference does no harm,
//! since the store refuses it and the labels are read again.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::SeriesRef;
use xxhash_rust::xxh3::xxh3_128;

/// What is known of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) series: SeriesRef,
    /// Hash of the metadata that the store was last told; 0 for none.
    pub(crate) metadata_hash: u64,
}

/// What stands for the bytes of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u128);

impl Key {
    #[inline]
    pub(crate) fn of(labels: &[u8]) -> Self {
        Self(xxh3_128(labels))
    }
}

/// Takes half of a [`Key`] as it is.
#[derive(Default)]
struct HashedKey(u64);

impl Hasher for HashedKey {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one number");
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

type Map = HashMap<Key, Known, BuildHasherDefault<HashedKey>>;

#[derive(Default)]
struct Generations {
    young: Map,
    old: Map,
}

/// A bounded map from label bytes to references.
pub(crate) struct SeriesCache {
    generations: Mutex<Generations>,
    /// Most entries of one generation.
    entries_max: usize,
}

// === impl SeriesCache ===

impl SeriesCache {
    /// A cache of at most so many entries.
    pub(crate) fn new(entries: usize) -> Self {
        Self { generations: Mutex::default(), entries_max: entries.div_ceil(2) }
    }

    /// What is known under `key`.
    pub(crate) fn get(&self, key: Key) -> Option<Known> {
        let mut generations = self.generations();
        match generations.young.get(&key) {
            Some(known) => Some(*known),
            None => generations.wake(key, self.entries_max),
        }
    }

    /// What is known under each of `keys`, in their order, in place of what is in `out`.
    pub(crate) fn get_all(&self, keys: &[Key], out: &mut Vec<Option<Known>>) {
        out.clear();
        let mut generations = self.generations();
        // Nothing else is done in this loop, so that the processor looks for several at once.
        out.extend(keys.iter().map(|key| generations.young.get(key).copied()));
        if generations.old.is_empty() {
            return;
        }
        for (key, known) in keys.iter().zip(out).filter(|(_, known)| known.is_none()) {
            *known = generations.wake(*key, self.entries_max);
        }
    }

    /// Remembers what is known under `key`.
    pub(crate) fn put(&self, key: Key, known: Known) {
        if self.entries_max == 0 || known.series == SeriesRef::NONE {
            return;
        }
        let mut generations = self.generations();
        generations.old.remove(&key);
        generations.insert(key, known, self.entries_max);
    }

    /// Forgets `key`.
    pub(crate) fn forget(&self, key: Key) {
        let mut generations = self.generations();
        generations.young.remove(&key);
        generations.old.remove(&key);
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        let generations = self.generations();
        generations.young.len() + generations.old.len()
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    /// Moves an entry of the old generation to the young one.
    fn wake(&mut self, key: Key, entries_max: usize) -> Option<Known> {
        let known = self.old.remove(&key)?;
        self.insert(key, known, entries_max);
        Some(known)
    }

    fn insert(&mut self, key: Key, known: Known, entries_max: usize) {
        if self.young.len() >= entries_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: u64) -> Known {
        Known { series: SeriesRef(n), metadata_hash: 0 }
    }

    fn key(text: &str) -> Key {
        Key::of(text.as_bytes())
    }

    #[test]
    fn remembers_and_forgets() {
        let cache = SeriesCache::new(100);
        cache.put(key("a"), known(1));
        cache.put(key("b"), known(2));
        cache.put(key("a"), known(3));
        assert_eq!((cache.get(key("a")), cache.get(key("c"))), (Some(known(3)), None));
        let mut all = vec![None];
        cache.get_all(&[key("c"), key("b"), key("a"), key("b")], &mut all);
        assert_eq!(all, [None, Some(known(2)), Some(known(3)), Some(known(2))]);
        cache.forget(key("a"));
        assert_eq!((cache.get(key("a")), cache.len()), (None, 1));
        let none = SeriesCache::new(0);
        none.put(key("a"), known(1));
        assert_eq!(none.get(key("a")), None);
    }

    #[test]
    fn stays_within_its_limit_and_keeps_what_is_used() {
        let cache = SeriesCache::new(1000);
        let mut all = Vec::new();
        for n in 0..100_000_u64 {
            cache.put(key(&format!("series {n}")), known(n + 1));
            assert_eq!(cache.get(key("series 0")), Some(known(1)), "used all the time");
            cache.get_all(&[key("series 1"), key("series 0")], &mut all);
            assert_eq!(all[1], Some(known(1)));
            assert_eq!(all[0].is_some(), n > 0, "{n}");
        }
        assert!(cache.len() <= 1000, "{}", cache.len());
    }
}
