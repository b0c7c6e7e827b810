//! Names of segments and checkpoints, framing of records into pages, and [`SegmentWriter`], which both the log and its
//! checkpoints are written with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::StorageError;

use super::{HEADER_LEN_BYTES, PAGE_LEN_BYTES};
use crate::config::WalCompression;
use crate::dir::{self, OutFile, SyncHandle};

pub(crate) const CHECKPOINT_PREFIX: &str = "checkpoint.";
pub(crate) const TMP_SUFFIX: &str = ".tmp";

/// Low three bits of a fragment's first byte.
pub(crate) const TYPE_MASK: u8 = 7;
pub(crate) const TYPE_PAGE_END: u8 = 0;
pub(crate) const TYPE_FULL: u8 = 1;
pub(crate) const TYPE_FIRST: u8 = 2;
pub(crate) const TYPE_MIDDLE: u8 = 3;
pub(crate) const TYPE_LAST: u8 = 4;
pub(crate) const FLAG_SNAPPY: u8 = 1 << 3;
pub(crate) const FLAG_ZSTD: u8 = 1 << 4;

/// Largest record taken or read, decompressed. A commit writes far smaller ones.
pub(crate) const MAX_RECORD_LEN_BYTES: usize = 256 << 20;

pub(crate) fn path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}"))
}

pub(crate) fn checkpoint_path(dir: &Path, last_segment: u32) -> PathBuf {
    dir.join(format!("{CHECKPOINT_PREFIX}{last_segment:08}"))
}

/// Numbers of the segments in a directory, rising.
///
/// # Errors
/// When the directory cannot be read, or a number is missing between two segments.
pub(crate) fn list(dir: &Path) -> Result<Vec<u32>, StorageError> {
    let out = numbers(dir)?;
    match out.windows(2).find(|w| w[1] != w[0] + 1) {
        Some(w) => Err(StorageError::Corruption {
            path: dir.to_owned(),
            offset: 0,
            reason: format!("segment {} is followed by {}: segments between are missing", w[0], w[1]),
        }),
        None => Ok(out),
    }
}

/// The same, whatever is missing between them.
pub(crate) fn numbers(dir: &Path) -> Result<Vec<u32>, StorageError> {
    let mut out: Vec<u32> = dir::list(dir)?
        .iter()
        .filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|n| n.parse().ok())
        .collect();
    out.sort_unstable();
    Ok(out)
}

/// The newest checkpoint: its directory and the last segment it stands for.
pub(crate) fn last_checkpoint(dir: &Path) -> Result<Option<(PathBuf, u32)>, StorageError> {
    Ok(checkpoints(dir)?.last().map(|n| (checkpoint_path(dir, *n), *n)))
}

/// Numbers of all checkpoints, rising.
pub(crate) fn checkpoints(dir: &Path) -> Result<Vec<u32>, StorageError> {
    let mut out: Vec<u32> = dir::list(dir)?
        .iter()
        .filter_map(|n| n.strip_prefix(CHECKPOINT_PREFIX))
        .filter_map(|n| n.parse().ok())
        .collect();
    out.sort_unstable();
    Ok(out)
}

/// A record ready to be framed: compressed, or left as it was when that did not make it smaller.
pub(crate) struct Payload {
    flag: u8,
    bytes: Vec<u8>,
}

impl Payload {
    pub(crate) fn new(record: Vec<u8>, compression: WalCompression) -> Self {
        assert!(!record.is_empty(), "a record has at least its type");
        assert!(record.len() <= MAX_RECORD_LEN_BYTES, "callers split larger records");
        let packed = match compression {
            WalCompression::None => None,
            WalCompression::Snappy => {
                snap::raw::Encoder::new().compress_vec(&record).ok().map(|b| (FLAG_SNAPPY, b))
            }
            WalCompression::Zstd => zstd::bulk::compress(&record, 1).ok().map(|b| (FLAG_ZSTD, b)),
        };
        match packed {
            Some((flag, bytes)) if bytes.len() < record.len() => Self { flag, bytes },
            _ => Self { flag: 0, bytes: record },
        }
    }

    /// Length with headers and padding, at most.
    fn framed_len_max(&self) -> u64 {
        let fragments = self.bytes.len() / (PAGE_LEN_BYTES - HEADER_LEN_BYTES) + 2;
        (self.bytes.len() + fragments * 2 * HEADER_LEN_BYTES) as u64
    }
}

/// Undoes the compression that the flags of a fragment name.
pub(crate) fn decompress(flags: u8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    out.clear();
    if flags & FLAG_SNAPPY != 0 {
        let len = snap::raw::decompress_len(bytes).map_err(|e| e.to_string())?;
        if len > MAX_RECORD_LEN_BYTES || len > bytes.len().saturating_mul(64) {
            return Err(format!("a record of {} bytes claims to hold {len}", bytes.len()));
        }
        out.resize(len, 0);
        snap::raw::Decoder::new().decompress(bytes, out).map_err(|e| e.to_string())?;
    } else if flags & FLAG_ZSTD != 0 {
        *out = zstd::bulk::decompress(bytes, MAX_RECORD_LEN_BYTES).map_err(|e| e.to_string())?;
    } else {
        out.extend_from_slice(bytes);
    }
    Ok(())
}

/// Appends the fragments of a record, the first of which begins at `page_used` bytes into its page. Returns the bytes then
/// used of the last page. Where no header fits any more, the page is filled with zeros.
fn frame(out: &mut Vec<u8>, mut page_used: usize, payload: &Payload) -> usize {
    assert!(page_used + HEADER_LEN_BYTES <= PAGE_LEN_BYTES, "a fragment's header fits its page");
    let mut rest = payload.bytes.as_slice();
    let mut first = true;
    loop {
        let n = rest.len().min(PAGE_LEN_BYTES - page_used - HEADER_LEN_BYTES);
        let (part, tail) = rest.split_at(n);
        let kind = match (first, tail.is_empty()) {
            (true, true) => TYPE_FULL,
            (false, true) => TYPE_LAST,
            (true, false) => TYPE_FIRST,
            (false, false) => TYPE_MIDDLE,
        };
        out.push(kind | payload.flag);
        out.extend_from_slice(&(n as u16).to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(part).to_be_bytes());
        out.extend_from_slice(part);
        page_used += HEADER_LEN_BYTES + n;
        let left = PAGE_LEN_BYTES - page_used;
        if left < HEADER_LEN_BYTES {
            out.resize(out.len() + left, 0);
            page_used = 0;
        }
        if tail.is_empty() {
            return page_used;
        }
        rest = tail;
        first = false;
    }
}

fn rewritten_path(path: &Path) -> PathBuf {
    path.with_extension(&TMP_SUFFIX[1..])
}

/// Whether writing a segment anew was interrupted: an fsync failed for it, which the next fsync would say nothing of.
pub(crate) fn is_to_be_rewritten(path: &Path) -> bool {
    dir::exists(&rewritten_path(path))
}

/// Removes what is left of segments that were to be written anew, up to `last`, which have gone.
pub(crate) fn remove_rewritten(dir: &Path, last: u32) -> Result<(), StorageError> {
    for name in dir::list(dir)? {
        let number = name.strip_suffix(TMP_SUFFIX).and_then(|n| n.parse::<u32>().ok());
        if number.is_some_and(|n| n <= last) {
            dir::remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

/// What a segment must have.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) len: u64,
    /// Checksum of what comes from there on; what is before is on the disk.
    pub(crate) from: u64,
    pub(crate) crc: u32,
    /// All of it, for a log that keeps it.
    pub(crate) bytes: Option<Arc<Vec<u8>>>,
}

impl Content {
    /// It, as it is in memory or else as it can be read.
    fn get(&self, path: &Path) -> Result<Arc<Vec<u8>>, StorageError> {
        let bytes = match &self.bytes {
            Some(bytes) => bytes.clone(),
            None => {
                let mut bytes = dir::read(path)?.unwrap_or_default();
                bytes.truncate(self.len as usize);
                Arc::new(bytes)
            }
        };
        let is_whole = bytes.len() as u64 == self.len;
        if !is_whole || crc32c::crc32c(&bytes[self.from as usize..]) != self.crc {
            let reason =
                "an fsync failed and what was written is lost; a restart keeps what comes before it".into();
            return Err(StorageError::Corruption { path: path.to_owned(), offset: 0, reason });
        }
        Ok(bytes)
    }
}

/// Writes a finished segment anew, durably, in place of itself: one that an fsync failed for. Where it is not known what it must
/// have, what can be read is written, and its records tell whether they are whole. Readers that have the old file open go on with it.
pub(crate) fn rewrite(path: &Path, content: Option<&Content>) -> Result<SyncHandle, StorageError> {
    let bytes = match content {
        Some(content) => content.get(path)?,
        None => Arc::new(dir::read(path)?.unwrap_or_default()),
    };
    let temporary = rewritten_path(path);
    let mut out = OutFile::create(&temporary)?;
    out.write(&bytes)?;
    out.sync()?;
    dir::publish(&temporary, path)?;
    SyncHandle::open(path)
}

/// Removes segments before the last hole, for a log whose oldest segments are removed without a checkpoint, oldest first: a
/// machine that went down meanwhile may have left some of them.
pub(crate) fn remove_before_hole(dir: &Path) -> Result<(), StorageError> {
    let numbers = numbers(dir)?;
    let Some(first) = numbers.windows(2).rposition(|w| w[1] != w[0] + 1).map(|i| numbers[i + 1]) else {
        return Ok(());
    };
    numbers.iter().filter(|s| **s < first).try_for_each(|s| dir::remove_file(&path(dir, *s)))?;
    dir::sync(dir)
}

/// Makes all segments of a directory durable: a process that was killed left them with the operating system. `read` is what was
/// read of some.
pub(crate) fn sync_all(dir: &Path, read: &HashMap<u32, Content>) -> Result<(), StorageError> {
    for s in numbers(dir)? {
        let path = path(dir, s);
        if is_to_be_rewritten(&path) || SyncHandle::open(&path)?.sync().is_err() {
            rewrite(&path, read.get(&s))?;
        }
    }
    dir::sync(dir)
}

/// Says that a segment is to be written anew, to whoever writes the log next.
pub(crate) fn mark_to_be_rewritten(path: &Path) -> Result<(), StorageError> {
    OutFile::create(&rewritten_path(path)).map(drop)
}

/// As [`sync_all`], beside a replay that reads the segments: nothing is written anew. One that an fsync fails for is marked for
/// who writes the log next, or else put into `unmarked`.
///
/// # Errors
/// When a segment is to be written anew.
pub(crate) fn sync_left(dir: &Path, unmarked: &mut Vec<PathBuf>) -> Result<(), StorageError> {
    for s in numbers(dir)? {
        let path = path(dir, s);
        if is_to_be_rewritten(&path) || unmarked.contains(&path) {
            let reason = "an fsync failed, and it is written anew only when the replay is through".to_owned();
            return Err(StorageError::Unavailable { who: path.display().to_string(), reason });
        }
        if let Err(e) = SyncHandle::open(&path)?.sync() {
            if mark_to_be_rewritten(&path).is_err() {
                unmarked.push(path);
            }
            return Err(e);
        }
    }
    dir::sync(dir)
}

/// Writes segments one after the other.
pub(crate) struct SegmentWriter {
    dir: PathBuf,
    pub(crate) segment: u32,
    pub(crate) out: OutFile,
    segment_len_bytes: u64,
    scratch: Vec<u8>,
    /// Checksum of all that the segment has.
    crc: u32,
    /// All that it has, when that is kept.
    kept: Option<Arc<Vec<u8>>>,
}

impl SegmentWriter {
    /// Begins with an empty segment.
    pub(crate) fn create(dir: &Path, segment: u32, segment_len_bytes: u64) -> Result<Self, StorageError> {
        let out = OutFile::create(&path(dir, segment))?;
        dir::sync(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            segment,
            out,
            segment_len_bytes,
            scratch: Vec::new(),
            crc: 0,
            kept: None,
        })
    }

    /// Keeps what segments have in memory from now on.
    pub(crate) fn keep(&mut self) {
        assert!(self.out.len() == 0, "nothing of the segment is missing");
        self.kept = Some(Arc::default());
    }

    /// What the segment has.
    pub(crate) fn content(&self) -> Content {
        Content { len: self.out.len(), from: 0, crc: self.crc, bytes: self.kept.clone() }
    }

    fn has_written(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        if let Some(kept) = &mut self.kept {
            Arc::make_mut(kept).extend_from_slice(bytes);
        }
    }

    /// Whether the payloads need a new segment.
    pub(crate) fn is_full_for(&self, payloads: &[Payload]) -> bool {
        let need: u64 = payloads.iter().map(Payload::framed_len_max).sum();
        self.out.len() > 0 && self.out.len() + need > self.segment_len_bytes
    }

    /// Writes the payloads with one call. On an error nothing of them stays, unless the second part is false: then the
    /// segment must not be written any more.
    pub(crate) fn write(&mut self, payloads: &[Payload]) -> Result<(), (StorageError, bool)> {
        self.scratch.clear();
        let mut page_used = (self.out.len() % PAGE_LEN_BYTES as u64) as usize;
        for p in payloads {
            page_used = frame(&mut self.scratch, page_used, p);
        }
        let result = self.out.write_through(&self.scratch);
        let mut scratch = std::mem::take(&mut self.scratch);
        if result.is_ok() {
            self.has_written(&scratch);
        }
        if scratch.capacity() <= 4 << 20 {
            std::mem::swap(&mut self.scratch, &mut scratch);
        }
        result
    }

    /// Fills the last page and begins the next segment; returns the file of the one before, not synced, and what it has.
    pub(crate) fn cut(&mut self) -> Result<(OutFile, Content), StorageError> {
        let used = (self.out.len() % PAGE_LEN_BYTES as u64) as usize;
        if used > 0 {
            // When this fails the page stays short, which every reader takes for padding.
            let padding = vec![0; PAGE_LEN_BYTES - used];
            self.out.write_through(&padding).map_err(|(e, _)| e)?;
            self.has_written(&padding);
        }
        let next = OutFile::create(&path(&self.dir, self.segment + 1))?;
        dir::sync(&self.dir)?;
        self.segment += 1;
        let content = self.content();
        self.crc = 0;
        self.kept = self.kept.as_ref().map(|_| Arc::default());
        Ok((std::mem::replace(&mut self.out, next), content))
    }
}
