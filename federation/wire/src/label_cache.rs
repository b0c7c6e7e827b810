//! What a receiver remembers of a series by its label bytes, so that the labels it has seen are neither parsed nor
//! looked up again.
//!
//! Two generations bound it: what is not asked for while the young one fills up is forgotten with the old one. The
//! hash is seeded at random, since senders choose the keys.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A bounded map from the label section of a series ([`crate::write_v1::TimeSeries::raw_labels`]) to `V`, usually a
/// series reference.
#[derive(Debug)]
pub struct LabelCache<V> {
    young: HashMap<Box<[u8]>, V, Seed>,
    old: HashMap<Box<[u8]>, V, Seed>,
    generation_len_max: usize,
}

impl<V> LabelCache<V> {
    /// A cache of at most `max_series` entries (at least two).
    #[must_use]
    pub fn new(max_series: usize) -> Self {
        let seed = Seed(RandomState::new().hash_one(0));
        Self {
            young: HashMap::with_hasher(seed),
            old: HashMap::with_hasher(seed),
            generation_len_max: (max_series / 2).max(1),
        }
    }

    /// What is remembered of these bytes.
    #[inline]
    pub fn get(&mut self, raw_labels: &[u8]) -> Option<&V> {
        // One look-up on the fast path: the borrow checker does not let a found entry leave this branch, so it is the
        // last.
        if self.old.is_empty() || !self.old.contains_key(raw_labels) {
            return self.young.get(raw_labels);
        }
        let (key, value) = self.old.remove_entry(raw_labels)?;
        self.put(key, value);
        self.young.get(raw_labels)
    }

    /// Remembers, or replaces what was remembered.
    pub fn insert(&mut self, raw_labels: &[u8], value: V) {
        self.old.remove(raw_labels);
        self.put(raw_labels.into(), value);
    }

    fn put(&mut self, key: Box<[u8]>, value: V) {
        if self.young.len() >= self.generation_len_max && !self.young.contains_key(&key) {
            self.old = std::mem::replace(&mut self.young, HashMap::with_hasher(*self.old.hasher()));
        }
        self.young.insert(key, value);
    }

    /// Forgets these bytes, for example because the reference is no longer valid.
    pub fn remove(&mut self, raw_labels: &[u8]) {
        self.young.remove(raw_labels);
        self.old.remove(raw_labels);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Seed(u64);

impl BuildHasher for Seed {
    type Hasher = BytesHasher;

    fn build_hasher(&self) -> BytesHasher {
        BytesHasher(self.0)
    }
}

struct BytesHasher(u64);

impl Hasher for BytesHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The length that precedes a slice; the bytes after it say enough.
    #[inline]
    fn write_usize(&mut self, _len: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_is_not_used_and_stays_bounded() {
        let mut cache = LabelCache::new(10);
        for i in 0..1000_u32 {
            cache.insert(&i.to_be_bytes(), i);
            assert_eq!(cache.get(b"\0\0\0\0"), Some(&0), "used each time");
            assert!(cache.len() <= 10, "{}", cache.len());
        }
        assert_eq!(cache.get(&999_u32.to_be_bytes()), Some(&999));
        assert_eq!(cache.get(&500_u32.to_be_bytes()), None);
        cache.insert(b"\0\0\0\0", 7);
        assert_eq!(cache.get(b"\0\0\0\0"), Some(&7));
        cache.remove(b"\0\0\0\0");
        assert_eq!(cache.get(b"\0\0\0\0"), None);
        cache.clear();
        assert!(cache.is_empty());
    }
}
