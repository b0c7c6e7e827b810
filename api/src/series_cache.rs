//! What the remote-write receiver remembers: bytes of labels as a sender writes them, and the store's reference for them.
//!
//! A sender encodes the labels of a series the same way every time, so in the steady state the bytes are hashed and
//! compared and no label is parsed. Bounded by entries and bytes: each shard has two generations; when the young one is
//! full it becomes the old one and the old one is forgotten, while what is still in use moves to the young one when it is
//! looked up. A wrong or outdated reference does no harm, since the store refuses it and the labels are read again.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, PoisonError};

use model::SeriesRef;
use xxhash_rust::xxh3::Xxh3;

const SHARDS: usize = 16;
/// Bytes of an entry beside its key: hash table slot, pointers, allocator.
const ENTRY_OVERHEAD_BYTES: usize = 64;

type Map = HashMap<Box<[u8]>, Known, BuildHasherDefault<Xxh3>>;

/// What is known of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) series: SeriesRef,
    /// Hash of the metadata that the store was last told; 0 for none.
    pub(crate) metadata_hash: u64,
}

#[derive(Default)]
struct Shard {
    young: Map,
    old: Map,
    young_bytes: usize,
}

/// A bounded map from label bytes to references.
pub(crate) struct SeriesCache {
    shards: Vec<Mutex<Shard>>,
    /// Limits of one generation of one shard.
    entries_max: usize,
    bytes_max: usize,
}

// === impl SeriesCache ===

impl SeriesCache {
    /// A cache of at most about so many entries and bytes.
    pub(crate) fn new(entries: usize, bytes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            entries_max: entries.div_ceil(2 * SHARDS) * usize::from(entries > 0),
            bytes_max: bytes / (2 * SHARDS),
        }
    }

    /// What is known under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Known> {
        let mut shard = self.shard(key);
        if let Some(known) = shard.young.get(key) {
            return Some(*known);
        }
        let (key, known) = shard.old.remove_entry(key)?;
        self.insert(&mut shard, key, known);
        Some(known)
    }

    /// Remembers what is known under `key`.
    pub(crate) fn put(&self, key: &[u8], known: Known) {
        if self.entries_max == 0 || known.series == SeriesRef::NONE {
            return;
        }
        let mut shard = self.shard(key);
        if let Some(slot) = shard.young.get_mut(key) {
            *slot = known;
            return;
        }
        shard.old.remove(key);
        self.insert(&mut shard, key.into(), known);
    }

    /// Forgets `key`.
    pub(crate) fn forget(&self, key: &[u8]) {
        let mut shard = self.shard(key);
        if shard.young.remove(key).is_some() {
            shard.young_bytes = shard.young_bytes.saturating_sub(key.len() + ENTRY_OVERHEAD_BYTES);
        }
        shard.old.remove(key);
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        let count = |s: &Mutex<Shard>| {
            let s = s.lock().unwrap_or_else(PoisonError::into_inner);
            s.young.len() + s.old.len()
        };
        self.shards.iter().map(count).sum()
    }

    fn insert(&self, shard: &mut Shard, key: Box<[u8]>, known: Known) {
        let bytes = key.len() + ENTRY_OVERHEAD_BYTES;
        if shard.young.len() >= self.entries_max || shard.young_bytes + bytes > self.bytes_max {
            shard.old = std::mem::take(&mut shard.young);
            shard.young_bytes = 0;
        }
        if bytes <= self.bytes_max {
            shard.young_bytes += bytes;
            shard.young.insert(key, known);
        }
    }

    fn shard(&self, key: &[u8]) -> std::sync::MutexGuard<'_, Shard> {
        // The last bytes of a key hold the value of its last label, where neighbouring series differ.
        let tail = &key[key.len().saturating_sub(24)..];
        let at = xxhash_rust::xxh3::xxh3_64(tail) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: u64) -> Known {
        Known { series: SeriesRef(n), metadata_hash: 0 }
    }

    #[test]
    fn remembers_and_forgets() {
        let cache = SeriesCache::new(100, 1 << 20);
        cache.put(b"a", known(1));
        cache.put(b"b", known(2));
        cache.put(b"a", known(3));
        assert_eq!(
            (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")),
            (Some(known(3)), Some(known(2)), None)
        );
        cache.forget(b"a");
        assert_eq!((cache.get(b"a"), cache.len()), (None, 1));
        let none = SeriesCache::new(0, 1 << 20);
        none.put(b"a", known(1));
        assert_eq!(none.get(b"a"), None);
    }

    #[test]
    fn stays_within_its_limits_and_keeps_what_is_used() {
        let cache = SeriesCache::new(1000, 1 << 20);
        for n in 0..100_000_u64 {
            cache.put(format!("series {n}").as_bytes(), known(n + 1));
            assert_eq!(cache.get(b"series 0"), Some(known(1)), "used all the time");
        }
        assert!(cache.len() <= 1100, "{}", cache.len());
        let small = SeriesCache::new(1_000_000, 32 * 200 * SHARDS);
        for n in 0..10_000_u64 {
            small.put(format!("{n:0100}").as_bytes(), known(n + 1));
        }
        assert!(small.len() < 700, "{}", small.len());
    }
}
