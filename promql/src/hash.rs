//! Maps keyed by label sets and match groups. XXH3 costs a fraction of the standard hash; the seed is drawn once per
//! process, so that nobody can prepare label sets that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A map with short keys of bytes.
pub(crate) type FastMap<K, V> = HashMap<K, V, Xxh3>;

static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// Makes hashers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Xxh3;

impl BuildHasher for Xxh3 {
    type Hasher = Xxh3Hasher;

    fn build_hasher(&self) -> Xxh3Hasher {
        Xxh3Hasher(*SEED)
    }
}

/// Hashes one run of bytes after the other, each seeded with what came before.
pub(crate) struct Xxh3Hasher(u64);

impl Hasher for Xxh3Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// Lengths of slices come here; with one slice in a key they tell nothing that its bytes do not.
    fn write_usize(&mut self, n: usize) {
        self.0 = self.0.wrapping_add(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
