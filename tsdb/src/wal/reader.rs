//! Reads the records of a segment, and replays a whole log.
//!
//! A record that ends too early or has a wrong checksum is [`StorageError::Corruption`] with the offset at which the
//! record begins; everything before that offset is good, so [`repair`] cuts there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;

use model::{StorageError, WalPosition};

use super::segment::{self, TYPE_FIRST, TYPE_FULL, TYPE_LAST, TYPE_MASK, TYPE_MIDDLE, TYPE_PAGE_END};
use super::{HEADER_LEN_BYTES, PAGE_LEN_BYTES};
use crate::checksum;
use crate::dir::{self, InFile};

const PAGE: u64 = PAGE_LEN_BYTES as u64;
/// A replay reads ahead in parts of at least so many bytes, and so many of them.
const AHEAD_LEN_BYTES: usize = 512 << 10;
const AHEAD_MAX: usize = 4;

/// Reads one segment from front to end.
pub(crate) struct SegmentReader {
    file: InFile,
    offset: u64,
    /// Bytes from here on are not looked at.
    limit: u64,
    page: Vec<u8>,
    page_start: u64,
    compressed: Vec<u8>,
    record: Vec<u8>,
}

impl SegmentReader {
    /// Opens a segment as long as it is now; `None` when there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, StorageError> {
        let Some(file) = InFile::open(path)? else { return Ok(None) };
        let limit = file.len()?;
        Ok(Some(Self {
            file,
            offset: 0,
            limit,
            page: Vec::new(),
            page_start: 0,
            compressed: Vec::new(),
            record: Vec::new(),
        }))
    }

    /// Where the next record begins, padding before it not counted.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Looks at bytes up to `limit`, which is the end of a record.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        if limit != self.limit {
            self.limit = limit;
            self.page.clear();
        }
    }

    /// Looks at all bytes that the file has now: for a segment that is finished.
    pub(crate) fn set_limit_to_file(&mut self) -> Result<(), StorageError> {
        let len = self.file.len()?;
        self.set_limit(len);
        Ok(())
    }

    /// The next record and the offset at which it begins; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &[u8])>, StorageError> {
        self.compressed.clear();
        let mut start = self.offset;
        let mut fragments = 0;
        loop {
            let Some(kind) = self.skip_padding(start)? else {
                return if fragments == 0 { Ok(None) } else { Err(self.corrupt(start, "record ends early")) };
            };
            if fragments == 0 {
                start = self.offset;
            }
            let flags = self.fragment(start, kind)?;
            let kind = kind & TYPE_MASK;
            let fits = match kind {
                TYPE_FULL | TYPE_FIRST => fragments == 0,
                TYPE_MIDDLE | TYPE_LAST => fragments > 0,
                _ => false,
            };
            if !fits {
                return Err(self.corrupt(start, format!("fragment of type {kind} out of place")));
            }
            fragments += 1;
            if matches!(kind, TYPE_FULL | TYPE_LAST) {
                segment::decompress(flags, &self.compressed, &mut self.record)
                    .map_err(|e| self.corrupt(start, e))?;
                return Ok(Some((start, &self.record)));
            }
        }
    }

    /// Goes to the next fragment and returns its first byte; `None` at the end.
    fn skip_padding(&mut self, start: u64) -> Result<Option<u8>, StorageError> {
        loop {
            let in_page = self.offset % PAGE;
            if self.offset >= self.limit {
                self.offset = self.limit;
                return Ok(None);
            }
            self.load_page()?;
            let at = in_page as usize;
            let first = self.page[at];
            let no_header_fits = PAGE_LEN_BYTES - at < HEADER_LEN_BYTES;
            if first & TYPE_MASK != TYPE_PAGE_END && !no_header_fits {
                return Ok(Some(first));
            }
            if self.page[at..].iter().any(|b| *b != 0) {
                return Err(self.corrupt(start, "padding is not zero"));
            }
            self.offset = (self.offset - in_page + PAGE).min(self.limit);
        }
    }

    /// Takes the fragment at the current offset; returns its first byte.
    fn fragment(&mut self, start: u64, first: u8) -> Result<u8, StorageError> {
        let at = (self.offset % PAGE) as usize;
        let Some(header) = self.page.get(at..at + HEADER_LEN_BYTES) else {
            return Err(self.corrupt(start, "header ends early"));
        };
        let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
        let crc = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        let data_at = at + HEADER_LEN_BYTES;
        if data_at + len > PAGE_LEN_BYTES {
            return Err(self.corrupt(start, format!("fragment of {len} bytes crosses its page")));
        }
        let Some(data) = self.page.get(data_at..data_at + len) else {
            return Err(self.corrupt(start, "fragment ends early"));
        };
        if !checksum::is_right(data, crc) {
            let actual = crc32c::crc32c(data);
            return Err(self.corrupt(start, format!("checksum is {actual:08x}, expected {crc:08x}")));
        }
        self.compressed.extend_from_slice(data);
        self.offset += (HEADER_LEN_BYTES + len) as u64;
        Ok(first)
    }

    fn load_page(&mut self) -> Result<(), StorageError> {
        let start = self.offset - self.offset % PAGE;
        if self.page.is_empty() || self.page_start != start {
            self.page.resize((self.limit - start).min(PAGE) as usize, 0);
            if let Err(e) = self.file.read_at(&mut self.page, start) {
                self.page.clear();
                return Err(e);
            }
            self.page_start = start;
        }
        Ok(())
    }

    fn corrupt(&self, offset: u64, reason: impl Into<String>) -> StorageError {
        StorageError::Corruption { path: self.file.path().to_owned(), offset, reason: reason.into() }
    }
}

/// What a replay met.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Number the next segment gets.
    pub(crate) next_segment: u32,
    /// The corruption that ended the replay, already repaired.
    pub(crate) repaired: Option<StorageError>,
    /// Corruption in the checkpoint: what came before it was used.
    pub(crate) checkpoint_corruption: Option<StorageError>,
}

/// How far a replay is: numbers of segments. The first may be a checkpoint's. Also carries the wish to end it early.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    min: AtomicU32,
    max: AtomicU32,
    current: AtomicU32,
    stopped: AtomicBool,
}

impl Progress {
    fn begin(&self, min: u32, max: u32) {
        self.min.store(min, Ordering::Relaxed);
        self.current.store(min, Ordering::Relaxed);
        self.max.store(max, Ordering::Relaxed);
    }

    fn done(&self, segment: u32) {
        self.current.store(segment, Ordering::Relaxed);
    }

    /// The first and the last segment, and the last one that is through.
    pub(crate) fn get(&self) -> (u32, u32, u32) {
        let load = |a: &AtomicU32| a.load(Ordering::Relaxed);
        (load(&self.min), load(&self.max), load(&self.current))
    }

    /// The replay ends soon, with [`StorageError::Closed`].
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.stopped.load(Ordering::Relaxed) { Err(StorageError::Closed) } else { Ok(()) }
    }
}

/// Calls `apply(segment, record)` for every record of checkpoint and segments in order; with `from`, only for those from that
/// position on. A corrupt segment is cut to its last good record and all later ones are removed, so that the log is whole when this
/// returns. Records are read and unpacked by a thread of their own, some of them ahead.
///
/// `apply` says what is wrong with a record that it cannot decode, which is corruption too.
///
/// # Errors
/// When files cannot be read or repaired, and when the replay is stopped.
pub(crate) fn replay(
    dir: &Path,
    from: Option<WalPosition>,
    progress: &Progress,
    mut apply: impl FnMut(u32, &[u8]) -> Result<(), &'static str>,
) -> Result<Replayed, StorageError> {
    let mut out = Replayed::default();
    let checkpoint = segment::last_checkpoint(dir)?.filter(|_| from.is_none());
    let segments = segment::list(dir)?;
    let mut first = from.map_or(0, |p| p.segment);
    if let Some(last) = segments.last() {
        let shown = checkpoint.as_ref().map_or(segments[0].max(first), |(_, n)| *n);
        progress.begin(shown, *last);
    }
    if let Some((checkpoint, last)) = checkpoint {
        first = last + 1;
        for s in segment::list(&checkpoint)? {
            let path = segment::path(&checkpoint, s);
            if let Err(e) = read_ahead(&path, 0, progress, |bytes| apply(last, bytes)) {
                if !matches!(e, StorageError::Corruption { .. }) {
                    return Err(e);
                }
                out.checkpoint_corruption = Some(e);
                break;
            }
        }
    }
    out.next_segment = segments.last().map_or(first, |l| (l + 1).max(first));
    for (i, s) in segments.iter().enumerate().filter(|(_, s)| **s >= first) {
        let start = from.filter(|p| p.segment == *s).map_or(0, |p| p.offset);
        match read_ahead(&segment::path(dir, *s), start, progress, |bytes| apply(*s, bytes)) {
            Ok(()) => progress.done(*s),
            Err(StorageError::Corruption { path, offset, reason }) => {
                repair(dir, *s, offset, &segments[i + 1..])?;
                out.next_segment = s + 1;
                out.repaired = Some(StorageError::Corruption { path, offset, reason });
                break;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(out)
}

/// Records read ahead, one after the other in `bytes`.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    /// Where each begins in the segment and ends in `bytes`.
    records: Vec<(u64, usize)>,
    /// How the segment ended, with the last ones.
    end: Option<Result<(), StorageError>>,
}

impl Ahead {
    fn fill(&mut self, reader: &mut SegmentReader) {
        self.bytes.clear();
        self.records.clear();
        while self.bytes.len() < AHEAD_LEN_BYTES {
            match reader.next() {
                Ok(Some((offset, bytes))) => {
                    self.bytes.extend_from_slice(bytes);
                    self.records.push((offset, self.bytes.len()));
                }
                Ok(None) => return self.end = Some(Ok(())),
                Err(e) => return self.end = Some(Err(e)),
            }
        }
    }
}

/// Calls `apply` for the records of a file from `start` on, which another thread reads and unpacks.
pub(crate) fn read_ahead(
    path: &Path,
    start: u64,
    progress: &Progress,
    mut apply: impl FnMut(&[u8]) -> Result<(), &'static str>,
) -> Result<(), StorageError> {
    let Some(mut reader) = SegmentReader::open(path)? else { return Ok(()) };
    if reader.limit <= start {
        return Ok(());
    }
    reader.offset = start;
    let (filled, read) = mpsc::sync_channel::<Ahead>(AHEAD_MAX);
    let (give_back, empty) = mpsc::channel::<Ahead>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                let mut ahead = empty.try_recv().unwrap_or_default();
                ahead.fill(&mut reader);
                let is_last = ahead.end.is_some();
                // The other side ends early when it cannot apply a record.
                if filled.send(ahead).is_err() || is_last {
                    return;
                }
            }
        });
        for mut ahead in read {
            progress.check()?;
            let mut from = 0;
            for (offset, to) in &ahead.records {
                apply(&ahead.bytes[from..*to]).map_err(|e| StorageError::Corruption {
                    path: path.to_owned(),
                    offset: *offset,
                    reason: format!("record does not decode: {e}"),
                })?;
                from = *to;
            }
            if let Some(end) = ahead.end.take() {
                return end;
            }
            let _ = give_back.send(ahead); // The reader may be through.
        }
        let reason = "the thread that reads ended early".to_owned();
        Err(StorageError::Unavailable { who: path.display().to_string(), reason })
    })
}

/// Cuts a segment at `offset` and removes the `later` ones, newest first, so that a crash in between leaves no hole.
fn repair(dir: &Path, segment: u32, offset: u64, later: &[u32]) -> Result<(), StorageError> {
    for s in later.iter().rev() {
        dir::remove_file(&segment::path(dir, *s))?;
    }
    dir::truncate(&segment::path(dir, segment), offset)?;
    dir::sync(dir)
}
