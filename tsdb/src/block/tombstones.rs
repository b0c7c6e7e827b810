//! Tombstones of a block: ranges of series that are deleted but still in its chunks. Spec: docs/formats/blocks.md#tombstones.

use std::collections::HashMap;
use std::path::Path;

use model::{Samples, StorageError};

use crate::checksum;
use crate::dir::{self, OutFile};
use crate::varint::{Reader, put_be32, put_uvarint, put_varint};

const FILE: &str = "tombstones";
const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;

/// Deleted ranges `[mint, maxt]` by series id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tombstones {
    by_series: HashMap<u64, Vec<(i64, i64)>>,
}

impl Tombstones {
    /// Reads a block's file; without one nothing is deleted.
    pub(crate) fn read(block: &Path) -> Result<Self, StorageError> {
        let path = block.join(FILE);
        let Some(bytes) = dir::read(&path)? else { return Ok(Self::default()) };
        let corrupt = |reason: &str| StorageError::Corruption {
            path: path.clone(),
            offset: 0,
            reason: reason.to_owned(),
        };
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| corrupt("file is too short"))?;
        let mut r = Reader::new(body);
        if r.be32() != Some(MAGIC) || r.u8() != Some(VERSION) {
            return Err(corrupt("not a tombstones file of version 1"));
        }
        if !checksum::is_right(r.rest, u32::from_be_bytes(*crc)) {
            return Err(corrupt("checksum is wrong"));
        }
        let mut out = Self::default();
        while !r.is_empty() {
            let stone = (|| Some((r.uvarint()?, r.varint()?, r.varint()?)))();
            let (series, mint, maxt) = stone.ok_or_else(|| corrupt("a tombstone ends early"))?;
            out.by_series.entry(series).or_default().push((mint, maxt));
        }
        Ok(out)
    }

    /// Writes the file of a block, in place of the one that is there.
    pub(crate) fn write(&self, block: &Path) -> Result<(), StorageError> {
        let mut body = Vec::new();
        self.put(&mut body);
        let mut bytes = Vec::new();
        put_be32(&mut bytes, MAGIC);
        bytes.push(VERSION);
        let crc = crc32c::crc32c(&body);
        bytes.extend_from_slice(&body);
        put_be32(&mut bytes, crc);
        let temporary = block.join(format!("{FILE}.tmp"));
        let mut file = OutFile::create(&temporary)?;
        file.write(&bytes)?;
        file.sync()?;
        drop(file);
        dir::publish(&temporary, &block.join(FILE))
    }

    /// Appends all ranges as they stand in a file.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut series: Vec<_> = self.by_series.iter().collect();
        series.sort();
        for (id, ranges) in series {
            for (mint, maxt) in ranges {
                put_uvarint(out, *id);
                put_varint(out, *mint);
                put_varint(out, *maxt);
            }
        }
    }

    /// All ranges, by series.
    pub(crate) fn list(&self) -> Vec<(model::SeriesRef, i64, i64)> {
        let one = |(id, ranges): (&u64, &Vec<(i64, i64)>)| {
            let id = model::SeriesRef(*id);
            ranges.iter().map(move |(mint, maxt)| (id, *mint, *maxt)).collect::<Vec<_>>()
        };
        let mut out: Vec<_> = self.by_series.iter().flat_map(one).collect();
        out.sort_unstable();
        out
    }

    /// Deleted ranges of a series.
    pub(crate) fn of(&self, series: u64) -> &[(i64, i64)] {
        self.by_series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> u64 {
        self.by_series.values().map(|r| r.len() as u64).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_series.is_empty()
    }

    /// The ranges that reach `mint`.
    pub(crate) fn from(&self, mint: i64) -> Self {
        let mut kept = self.clone();
        kept.by_series.retain(|_, ranges| {
            ranges.retain(|(_, maxt)| *maxt >= mint);
            !ranges.is_empty()
        });
        kept
    }

    /// Adds a range; those that touch or overlap become one.
    pub(crate) fn add(&mut self, series: u64, mint: i64, maxt: i64) {
        let ranges = self.by_series.entry(series).or_default();
        let (mut mint, mut maxt) = (mint, maxt);
        ranges.retain(|(a, b)| {
            let touches = *a <= maxt.saturating_add(1) && mint <= b.saturating_add(1);
            if touches {
                mint = mint.min(*a);
                maxt = maxt.max(*b);
            }
            !touches
        });
        let at = ranges.partition_point(|(a, _)| *a < mint);
        ranges.insert(at, (mint, maxt));
    }
}

/// The samples outside the ranges.
pub(crate) fn without(samples: &Samples, ranges: &[(i64, i64)]) -> Samples {
    let mut out = Samples::new();
    let deleted = |t: i64| ranges.iter().any(|(mint, maxt)| (*mint..=*maxt).contains(&t));
    samples.iter().filter(|s| !deleted(s.timestamp_ms)).for_each(|s| out.push(s));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_come_back() {
        let mut t = Tombstones::default();
        for (a, b) in [(10, 20), (40, 50), (21, 25), (-5, 3), (24, 39), (60, 60)] {
            t.add(7, a, b);
        }
        t.add(3, i64::MIN, i64::MAX);
        t.add(3, 0, 1);
        assert_eq!(t.of(7), [(-5, 3), (10, 50), (60, 60)]);
        assert_eq!((t.of(3), t.of(1), t.len()), ([(i64::MIN, i64::MAX)].as_slice(), [].as_slice(), 4));
        let dir = tempfile::tempdir().expect("tempdir");
        t.write(dir.path()).expect("written");
        assert_eq!(Tombstones::read(dir.path()).expect("read"), t);
    }
}
