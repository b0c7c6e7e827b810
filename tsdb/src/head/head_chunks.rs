//! [`HeadChunks`]: finished chunks of the head in mapped files (`chunks_head/`), so that memory only holds where they are.
//! Spec: docs/formats/chunks_head.md.
//!
//! The files give memory back and nothing else: what is in them is in the write-ahead log too, and the log is what a start
//! reads. So they need no syncing, and what an earlier run left is removed when a database opens. A file is written whole,
//! mapped, and removed when all it holds is older than the head.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{SeriesRef, StorageError};
use parking_lot::RwLock;

use super::series::HeadChunk;
use crate::dir::{self, OutFile};
use crate::varint::{self, Reader};

/// Folder of the files, below the database's.
pub(crate) const HEAD_CHUNKS_DIR: &str = "chunks_head";
const MAGIC: u32 = 0x0130_BC91;
const VERSION: u8 = 1;
/// Files do not grow much beyond this; offsets have 32 bits.
const FILE_LEN_BYTES_MAX: u64 = 128 << 20;
/// Reference, times and encoding before the length of a chunk.
const FIXED_LEN_BYTES: usize = 25;

/// Where a chunk is: number of the file in the upper, offset in the lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

/// A chunk in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredChunk {
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    pub(crate) place: Place,
}

struct MappedFile {
    path: PathBuf,
    bytes: Bytes,
    maxt: i64,
}

/// The files.
#[derive(Default)]
pub(crate) struct HeadChunks {
    dir: PathBuf,
    files: RwLock<BTreeMap<u32, MappedFile>>,
}

impl HeadChunks {
    /// No files yet; those of an earlier run are removed.
    pub(crate) fn open(root: &Path) -> Result<Self, StorageError> {
        let dir = root.join(HEAD_CHUNKS_DIR);
        if dir::exists(&dir) {
            dir::remove_all(&dir)?;
        }
        Ok(Self { dir, files: RwLock::default() })
    }

    /// Writes chunks into new files; gives their places in the same order. Calls do not overlap.
    pub(crate) fn write(&self, chunks: &[(SeriesRef, HeadChunk)]) -> Result<Vec<Place>, StorageError> {
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        dir::create_all(&self.dir)?;
        let mut places = Vec::with_capacity(chunks.len());
        let mut rest = chunks;
        let mut record = Vec::new();
        while !rest.is_empty() {
            let number = self.files.read().last_key_value().map_or(1, |(n, _)| n + 1);
            let path = self.dir.join(format!("{number:06}"));
            let mut out = OutFile::create(&path)?;
            out.write(&MAGIC.to_be_bytes())?;
            out.write(&[VERSION, 0, 0, 0])?;
            let mut maxt = i64::MIN;
            let mut n = 0;
            for (series, c) in rest {
                if out.len() > FILE_LEN_BYTES_MAX {
                    break;
                }
                places.push(Place(u64::from(number) << 32 | out.len()));
                put(&mut record, *series, c);
                out.write(&record)?;
                maxt = maxt.max(c.maxt);
                n += 1;
            }
            out.flush()?;
            let bytes = dir::map(&path)?;
            self.files.write().insert(number, MappedFile { path, bytes, maxt });
            rest = &rest[n..];
        }
        Ok(places)
    }

    /// A chunk, checked, without copying.
    pub(crate) fn get(&self, stored: &StoredChunk) -> Result<HeadChunk, StorageError> {
        let (number, offset) = ((stored.place.0 >> 32) as u32, (stored.place.0 & 0xffff_ffff) as usize);
        let files = self.files.read();
        let Some(file) = files.get(&number) else {
            return Err(StorageError::decode("place of a head chunk", format!("there is no file {number}")));
        };
        let corrupt = |reason: &str| StorageError::Corruption {
            path: file.path.clone(),
            offset: offset as u64,
            reason: reason.to_owned(),
        };
        let record = file.bytes.get(offset..).unwrap_or_default();
        let mut r = Reader::new(record);
        let read = (|| {
            let encoding = *r.bytes(FIXED_LEN_BYTES)?.last()?;
            let len = usize::try_from(r.uvarint()?).ok()?;
            let from = record.len() - r.len();
            r.bytes(len)?;
            Some((encoding, from, from + len, r.be32()?))
        })();
        let (encoding, from, to, crc) = read.ok_or_else(|| corrupt("head chunk ends early"))?;
        if crc32c::crc32c(&record[..to]) != crc {
            return Err(corrupt("checksum of the head chunk is wrong"));
        }
        let bytes = file.bytes.slice(offset + from..offset + to);
        Ok(HeadChunk { mint: stored.mint, maxt: stored.maxt, encoding, bytes })
    }

    /// Removes the oldest files as far as all they hold is before `mint`. Who has a chunk of them keeps it.
    pub(crate) fn drop_before(&self, mint: i64) -> Result<(), StorageError> {
        let mut files = self.files.write();
        while let Some(first) = files.first_entry().filter(|f| f.get().maxt < mint) {
            dir::remove_file(&first.get().path)?;
            first.remove();
        }
        Ok(())
    }
}

fn put(record: &mut Vec<u8>, series: SeriesRef, c: &HeadChunk) {
    record.clear();
    varint::put_be64(record, series.0);
    varint::put_be64(record, c.mint as u64);
    varint::put_be64(record, c.maxt as u64);
    record.push(c.encoding);
    varint::put_uvarint(record, c.bytes.len() as u64);
    record.extend_from_slice(&c.bytes);
    let crc = crc32c::crc32c(record);
    varint::put_be32(record, crc);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(t: i64, len: usize) -> (SeriesRef, HeadChunk) {
        let c = HeadChunk { mint: t, maxt: t + 9, encoding: 1, bytes: vec![t as u8; len].into() };
        (SeriesRef(t as u64), c)
    }

    #[test]
    fn chunks_come_back_until_their_file_goes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = HeadChunks::open(dir.path()).expect("opened");
        let batches = [vec![chunk(0, 10), chunk(5, 300)], vec![chunk(20, 0)], vec![chunk(30, 7)]];
        let mut stored = Vec::new();
        for batch in &batches {
            let places = store.write(batch).expect("written");
            stored.extend(
                batch
                    .iter()
                    .zip(places)
                    .map(|((_, c), place)| (StoredChunk { mint: c.mint, maxt: c.maxt, place }, c.clone())),
            );
        }
        for (s, c) in &stored {
            let got = store.get(s).expect("read");
            assert_eq!((got.encoding, got.bytes), (c.encoding, c.bytes.clone()));
        }
        let path = |n: u32| dir.path().join(HEAD_CHUNKS_DIR).join(format!("{n:06}"));
        let first = std::fs::read(path(1)).expect("written");
        assert_eq!(first[..8], [0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0]);
        assert_eq!(
            first[8..41],
            [&[0; 23][..], &[9, 1, 10], &[0; 7]].concat()[..33],
            "ref, times, encoding, length"
        );
        let held = store.get(&stored[0].0).expect("read");
        store.drop_before(30).expect("removed");
        assert!(!path(1).exists() && !path(2).exists() && path(3).exists());
        assert!(store.get(&stored[0].0).is_err());
        assert_eq!(held.bytes, vec![0; 10], "who has it keeps it");
        // A flipped bit is found.
        drop(store);
        let again = HeadChunks::open(dir.path()).expect("opened");
        assert!(!path(3).exists(), "an earlier run's files go");
        let places = again.write(&batches[0]).expect("written");
        let at = StoredChunk { mint: 5, maxt: 14, place: places[1] };
        let broken = |bytes: &mut Vec<u8>| bytes[60] ^= 1;
        let mut bytes = std::fs::read(path(1)).expect("read");
        broken(&mut bytes);
        again.files.write().get_mut(&1).expect("there").bytes = bytes.into();
        assert!(matches!(again.get(&at), Err(StorageError::Corruption { .. })));
    }
}
