//! [`HeadChunks`]: finished chunks of the head in mapped files (`chunks_head/`), so that memory only holds where they are, and a
//! start need not read their samples from the log. Spec: docs/formats/chunks_head.md.
//!
//! Invariants: a file has its name once it is whole and durable; of a series the files hold all chunks up to a time, in order; the
//! write-ahead log has their samples too, as long as no block has. A file is removed when all it holds is older than the head.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use model::{SeriesRef, StorageError};
use parking_lot::RwLock;

use super::series::HeadChunk;
use crate::checksum;
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
const HEADER_LEN_BYTES: usize = 8;
const CRC_LEN_BYTES: usize = 4;

/// Where a chunk is: number of the file in the upper, offset in the lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// In the first file.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn in_first(offset: u32) -> Self {
        Self(1 << 32 | u64::from(offset))
    }
}

/// A chunk in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredChunk {
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    pub(crate) place: Place,
}

/// Set in the encoding of a chunk of late samples.
const LATE: u8 = 0x80;

/// What was found in the files.
#[derive(Default)]
pub(crate) struct FoundChunks {
    /// By series, in order of the files.
    chunks: Vec<(u64, StoredChunk)>,
    /// The highest reference met, so that it is not given to another series.
    pub(crate) last_ref: u64,
    /// Chunks of late samples, which only Prometheus writes here.
    pub(crate) late: Vec<(u64, HeadChunk)>,
    /// A file was damaged: what it and later ones held is in the log only.
    pub(crate) damaged: bool,
    /// A chunk has an encoding that this version does not know: only the log has its samples.
    pub(crate) unknown: bool,
}

impl FoundChunks {
    /// Chunks of a series.
    pub(crate) fn of(&self, series: SeriesRef) -> impl Iterator<Item = StoredChunk> {
        let from = self.chunks.partition_point(|(r, _)| *r < series.0);
        self.chunks[from..].iter().take_while(move |(r, _)| *r == series.0).map(|(_, c)| *c)
    }
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
    /// A chunk could not be read.
    damaged: AtomicBool,
}

impl HeadChunks {
    /// Opens the files, and looks what is in them as far as it reaches `mint`. A damaged file is cut to its last good chunk and
    /// later ones are removed: the log has what they held.
    pub(crate) fn open(root: &Path, mint: i64) -> Result<(Self, FoundChunks), StorageError> {
        let dir = root.join(HEAD_CHUNKS_DIR);
        let mut found = FoundChunks::default();
        let mut files: BTreeMap<u32, MappedFile> = BTreeMap::new();
        let numbers = if dir::exists(&dir) { list(&dir)? } else { Vec::new() };
        for (i, number) in numbers.iter().enumerate() {
            if files.last_key_value().is_some_and(|(last, _)| last + 1 != *number) {
                found.damaged = true;
                remove_newest_first(&dir, &numbers[i..])?;
                break;
            }
            let path = name(&dir, *number);
            let mut file = MappedFile { bytes: dir::map(&path)?, path, maxt: i64::MIN };
            let Some((at, reason)) = Self::scan(*number, &mut file, mint, &mut found) else {
                files.insert(*number, file);
                continue;
            };
            let (path, maxt) = (file.path.clone(), file.maxt);
            let e = StorageError::Corruption { path: path.clone(), offset: at, reason: reason.to_owned() };
            tracing::error!(error = %e, "head chunks repaired: the write-ahead log has what comes after the last good one");
            found.damaged = true;
            // Later files first: with them a next start would take the series for whole up to there.
            remove_newest_first(&dir, &numbers[i + 1..])?;
            // What is mapped must not become shorter than it was: chunks found refer to the new mapping.
            drop(file);
            if at <= HEADER_LEN_BYTES as u64 {
                dir::remove_file(&path)?;
            } else {
                dir::truncate(&path, at)?;
                files.insert(*number, MappedFile { bytes: dir::map(&path)?, path, maxt });
            }
            break;
        }
        found.chunks.sort_by_key(|(r, _)| *r);
        Ok((Self { dir, files: RwLock::new(files), damaged: AtomicBool::new(false) }, found))
    }

    /// Goes through a file; gives where it is damaged, and how.
    fn scan(
        number: u32,
        file: &mut MappedFile,
        mint: i64,
        found: &mut FoundChunks,
    ) -> Option<(u64, &'static str)> {
        let header = [&MAGIC.to_be_bytes()[..], &[VERSION]].concat();
        let mut at = HEADER_LEN_BYTES;
        if !file.bytes.starts_with(&header) || file.bytes.len() < at {
            return Some((0, "header is wrong"));
        }
        while at < file.bytes.len() {
            let record = &file.bytes[at..];
            // Prometheus makes files longer than what is in them.
            if record.iter().take(FIXED_LEN_BYTES - 1).all(|b| *b == 0) {
                break;
            }
            let p = match parse(record) {
                Err(reason) => return Some((at as u64, reason)),
                Ok(p) => p,
            };
            file.maxt = file.maxt.max(p.maxt);
            found.last_ref = found.last_ref.max(p.series);
            let (from, to) = (at + p.from, at + p.to);
            if crate::chunk::codec(p.encoding & !LATE).is_none() {
                found.unknown = true;
            } else if p.encoding & LATE != 0 {
                let bytes = file.bytes.slice(from..to);
                let encoding = p.encoding & !LATE;
                found.late.push((p.series, HeadChunk { mint: p.mint, maxt: p.maxt, encoding, bytes }));
            } else if p.maxt >= mint {
                let place = Place(u64::from(number) << 32 | at as u64);
                found.chunks.push((p.series, StoredChunk { mint: p.mint, maxt: p.maxt, place }));
            }
            at = to + CRC_LEN_BYTES;
        }
        None
    }

    /// One file with these bytes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_bytes(bytes: Bytes) -> Self {
        let file = MappedFile { path: PathBuf::new(), bytes, maxt: 0 };
        Self { files: RwLock::new(BTreeMap::from([(1, file)])), ..Self::default() }
    }

    /// Maps a file as it is now.
    #[cfg(test)]
    pub(crate) fn remap(&self, path: &Path) {
        for file in self.files.write().values_mut().filter(|f| f.path == path) {
            file.bytes = dir::map(path).expect("it is there");
        }
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
            let path = name(&self.dir, number);
            let temporary = path.with_extension("tmp");
            let mut out = OutFile::create(&temporary)?;
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
            out.sync()?;
            drop(out);
            dir::publish(&temporary, &path)?;
            let bytes = dir::map(&path)?;
            self.files.write().insert(number, MappedFile { path, bytes, maxt });
            rest = &rest[n..];
        }
        Ok(places)
    }

    /// A chunk, checked, without copying. That one could not be read is remembered.
    pub(crate) fn get(&self, stored: &StoredChunk) -> Result<HeadChunk, StorageError> {
        self.read(stored).inspect_err(|_| self.set_damaged())
    }

    pub(crate) fn set_damaged(&self) {
        self.damaged.store(true, Ordering::SeqCst);
    }

    /// Whether a chunk could not be read since the last call.
    pub(crate) fn take_damaged(&self) -> bool {
        self.damaged.swap(false, Ordering::SeqCst)
    }

    fn read(&self, stored: &StoredChunk) -> Result<HeadChunk, StorageError> {
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
        let p = parse(file.bytes.get(offset..).unwrap_or_default()).map_err(corrupt)?;
        let bytes = file.bytes.slice(offset + p.from..offset + p.to);
        Ok(HeadChunk { mint: stored.mint, maxt: stored.maxt, encoding: p.encoding, bytes })
    }

    /// All files: number, length, and time of the newest sample.
    pub(crate) fn files(&self) -> Vec<(u32, u64, i64)> {
        self.files.read().iter().map(|(n, f)| (*n, f.bytes.len() as u64, f.maxt)).collect()
    }

    /// Whether there is a file of at least this length.
    pub(crate) fn has(&self, number: u32, len_bytes: u64) -> bool {
        self.files.read().get(&number).is_some_and(|f| f.bytes.len() as u64 >= len_bytes)
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

fn name(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:06}"))
}

/// Removes files, durably, so that no interruption leaves a hole before one of them.
fn remove_newest_first(dir: &Path, numbers: &[u32]) -> Result<(), StorageError> {
    for number in numbers.iter().rev() {
        dir::remove_file(&name(dir, *number))?;
        dir::sync(dir)?;
    }
    Ok(())
}

/// Numbers of the files, rising.
fn list(dir: &Path) -> Result<Vec<u32>, StorageError> {
    let mut out = Vec::new();
    for n in dir::list(dir)? {
        if n.ends_with(".tmp") {
            dir::remove_file(&dir.join(n))?;
        } else if n.bytes().all(|b| b.is_ascii_digit()) {
            out.extend(n.parse::<u32>().ok());
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// A chunk as it stands in a file, its data by place.
struct Parsed {
    series: u64,
    mint: i64,
    maxt: i64,
    encoding: u8,
    from: usize,
    to: usize,
}

/// The chunk at the front of `record`.
///
/// # Errors
/// What is wrong with it.
fn parse(record: &[u8]) -> Result<Parsed, &'static str> {
    let mut r = Reader::new(record);
    let read = (|| {
        let (series, mint, maxt, encoding) = (r.be64()?, r.be64()? as i64, r.be64()? as i64, r.u8()?);
        let len = usize::try_from(r.uvarint()?).ok()?;
        let from = record.len() - r.len();
        r.bytes(len)?;
        Some((Parsed { series, mint, maxt, encoding, from, to: from + len }, r.be32()?))
    })();
    let (parsed, crc) = read.ok_or("head chunk ends early")?;
    if !checksum::is_right(&record[..parsed.to], crc) {
        return Err("checksum of the head chunk is wrong");
    }
    Ok(parsed)
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
        let (store, _) = HeadChunks::open(dir.path(), 0).expect("opened");
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
        // What is there is found again, as far as it is needed.
        store.write(&batches[0]).expect("written");
        drop(store);
        let (again, found) = HeadChunks::open(dir.path(), 14).expect("opened");
        assert!(!found.damaged && path(4).exists());
        assert_eq!(found.of(SeriesRef(0)).count(), 0, "older than what is asked for");
        let at: Vec<_> = found.of(SeriesRef(5)).collect();
        assert_eq!((at.len(), found.of(SeriesRef(30)).count()), (1, 1));
        assert_eq!(again.get(&at[0]).expect("read").bytes, batches[0][1].1.bytes);
        // A flipped bit is found, and what comes after it goes.
        drop(again);
        let mut bytes = std::fs::read(path(3)).expect("read");
        bytes[40] ^= 1;
        std::fs::write(path(3), &bytes).expect("written");
        let (again, found) = HeadChunks::open(dir.path(), 0).expect("opened");
        assert!(found.damaged && !path(3).exists() && !path(4).exists());
        assert_eq!(again.write(&batches[0]).expect("written")[0], Place(1 << 32 | 8));
        // A torn file keeps what is whole, and zeros at the end are nothing.
        let whole = std::fs::read(path(1)).expect("read");
        // Of two records of 40 and 331 bytes; both cut ends that are not damage are zeros.
        for (cut, expect) in [(whole.len() - 1, 1), (60, 1), (52, 1), (20, 0)] {
            std::fs::write(path(1), &whole[..cut]).expect("written");
            let (_, found) = HeadChunks::open(dir.path(), 0).expect("opened");
            assert_eq!((found.chunks.len(), found.damaged), (expect, ![20, 52].contains(&cut)), "{cut}");
        }
        std::fs::write(path(1), [&whole[..], &[0; 1000]].concat()).expect("written");
        let (_, found) = HeadChunks::open(dir.path(), 0).expect("opened");
        assert_eq!((found.chunks.len(), found.damaged), (2, false));
    }
}
