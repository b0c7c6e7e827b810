//! meta.json of a block, and ULIDs, which name blocks.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use model::{ChunkEncoding, StorageError};
use serde::{Deserialize, Serialize};

use crate::dir::{self, OutFile};

const FILE: &str = "meta.json";
/// The only version there is.
pub(crate) const VERSION: u32 = 1;

/// Hint of a block that holds nothing but samples that came out of order.
pub(crate) const FROM_OUT_OF_ORDER: &str = "from-out-of-order";
/// Hint of a block that holds only the stale series of a head.
pub(crate) const FROM_STALE_SERIES: &str = "from-stale-series";
/// Hint of a block that holds only some chosen series of a head.
pub(crate) const FROM_SELECTED_SERIES: &str = "from-selected-series";

/// What a block says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) ulid: String,
    /// Timestamp of the first sample, or a lower bound.
    #[serde(rename = "minTime")]
    pub(crate) min_time: i64,
    /// Samples are before this.
    #[serde(rename = "maxTime")]
    pub(crate) max_time: i64,
    #[serde(default)]
    pub(crate) stats: Stats,
    #[serde(default)]
    pub(crate) compaction: Compaction,
    pub(crate) version: u32,
}

fn is_zero(v: &u64) -> bool {
    *v == 0
}

/// Counts of a block's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stats {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) num_samples: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) num_float_samples: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) num_histogram_samples: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) num_series: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) num_chunks: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) num_tombstones: u64,
}

/// Whether a chunk has floats.
pub(crate) fn is_float(encoding: ChunkEncoding) -> bool {
    const FLOATS: [ChunkEncoding; 2] = [ChunkEncoding::XOR, ChunkEncoding::XOR2];
    FLOATS.contains(&encoding)
}

impl Stats {
    pub(crate) fn add_chunk(&mut self, encoding: u8, samples: u64) {
        self.num_chunks += 1;
        self.num_samples += samples;
        if is_float(ChunkEncoding(encoding)) {
            self.num_float_samples += samples;
        } else {
            self.num_histogram_samples += samples;
        }
    }
}

/// How a block came about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Compaction {
    /// 1 for a block cut from the head.
    pub(crate) level: u32,
    /// Blocks cut from the head that went into this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deletable: bool,
    /// Blocks that this one replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) parents: Vec<Parent>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) failed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hints: Vec<String>,
}

/// A block that another one replaces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Parent {
    pub(crate) ulid: String,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
}

impl Meta {
    /// Whether the block has all that the head had of its time, so that the write-ahead log needs it no more.
    pub(crate) fn is_from_whole_head(&self) -> bool {
        let partial = [FROM_OUT_OF_ORDER, FROM_STALE_SERIES, FROM_SELECTED_SERIES];
        !self.compaction.hints.iter().any(|h| partial.contains(&h.as_str()))
    }

    pub(crate) fn read(block: &Path) -> Result<Self, StorageError> {
        let path = block.join(FILE);
        let corrupt = |reason: String| StorageError::Corruption { path: path.clone(), offset: 0, reason };
        let bytes = dir::read(&path)?.ok_or_else(|| corrupt("file is missing".into()))?;
        let meta: Self = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        if meta.version != VERSION {
            return Err(corrupt(format!("version is {}, expected {VERSION}", meta.version)));
        }
        if meta.min_time > meta.max_time {
            return Err(corrupt(format!("minTime {} is after maxTime {}", meta.min_time, meta.max_time)));
        }
        Ok(meta)
    }

    pub(crate) fn write(&self, block: &Path) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut out = serde_json::Serializer::with_formatter(&mut bytes, tabs);
        self.serialize(&mut out).expect("numbers and strings always serialise");
        let temporary = block.join("meta.json.tmp");
        let mut file = OutFile::create(&temporary)?;
        file.write(&bytes)?;
        file.sync()?;
        drop(file);
        dir::publish(&temporary, &block.join(FILE))
    }
}

/// A ULID: 48 bits of milliseconds, 80 random bits; in text 26 characters of Crockford's base 32. Orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ulid(u128);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Ulid {
    /// A new one. The random part comes from the keys of the standard library's hasher, which the operating system seeds.
    pub(crate) fn new(now_ms: i64) -> Self {
        let random = |salt: u64| {
            #[cfg(any(test, feature = "fuzzing"))]
            if let Some(n) = crate::sim::ulid_random() {
                return u128::from(n);
            }
            let mut h = std::collections::hash_map::RandomState::new().build_hasher();
            h.write_u64(salt);
            u128::from(h.finish())
        };
        let time = (now_ms.max(0) as u128) & ((1 << 48) - 1);
        Self(time << 80 | (random(1) << 64 | random(2)) & ((1 << 80) - 1))
    }

    /// When it was made.
    pub(crate) fn time_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// 64 of the random bits.
    pub(crate) fn random(self) -> u64 {
        self.0 as u64
    }

    /// Reads the text form, upper or lower case.
    pub(crate) fn parse(s: &str) -> Option<Self> {
        if s.len() != 26 {
            return None;
        }
        let mut v = 0_u128;
        for (i, c) in s.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_uppercase())? as u128;
            if i == 0 && digit > 7 {
                return None;
            }
            v = v << 5 | digit;
        }
        Some(Self(v))
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 26];
        for (i, c) in text.iter_mut().rev().enumerate() {
            *c = ALPHABET[(self.0 >> (5 * i)) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulids_read_as_written() {
        let u = Ulid::new(1_700_000_000_000);
        assert_eq!(Ulid::parse(&u.to_string()), Some(u));
        assert_ne!(u, Ulid::new(1_700_000_000_000));
        assert!(u < Ulid::new(1_700_000_000_001));
        assert_eq!(
            Ulid::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").map(|u| u.to_string()).as_deref(),
            Some("01ARZ3NDEKTSV4RRFFQ69G5FAV")
        );
        assert_eq!(Ulid::parse("wal"), None);
    }
}
