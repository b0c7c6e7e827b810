//! Reads the records of a segment, and replays a whole log.
//!
//! A record that ends too early or has a wrong checksum is [`StorageError::Corruption`] with the offset at which the
//! record begins. [`SegmentReader::skip_damage`] finds the next good record after it, so that damage costs what it hit and not
//! what was logged later; [`mend`] makes the segment readable for everybody without moving anything in it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;

use model::{StorageError, WalPosition};

use super::segment::{
    self, Content, TYPE_FIRST, TYPE_FULL, TYPE_LAST, TYPE_MASK, TYPE_MIDDLE, TYPE_PAGE_END,
};
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
    /// Where the first page that was read begins, where those end that were read one after the other from there, and their
    /// checksum.
    seen: Option<(u64, u64, u32)>,
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
            seen: None,
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
            let (_, end, crc) = self.seen.get_or_insert((start, start, 0));
            if *end == start {
                *crc = crc32c::crc32c_append(*crc, &self.page);
                *end += self.page.len() as u64;
            }
        }
        Ok(())
    }

    /// What it has read, once that is everything to the end.
    fn content(&self) -> Option<Content> {
        let (from, end, crc) = self.seen?;
        (end == self.limit).then_some(Content { len: end, from, crc, bytes: None })
    }

    fn corrupt(&self, offset: u64, reason: impl Into<String>) -> StorageError {
        StorageError::Corruption { path: self.file.path().to_owned(), offset, reason: reason.into() }
    }

    /// Goes to the first record after the damaged one that begins at `start` whose first fragment is good, or to the end of what is
    /// looked at; gives the offset of the former.
    ///
    /// Fragments follow each other by their lengths. Where one is damaged its length is believed if a good fragment, or nothing more,
    /// comes after so many bytes; else the next page is where one begins surely.
    pub(crate) fn skip_damage(&mut self, start: u64) -> Result<Option<u64>, StorageError> {
        let mut at = start;
        while at < self.limit {
            self.offset = at;
            self.load_page()?;
            let page_end = at - at % PAGE + PAGE;
            at = match self.look(at) {
                Look::Good { begins: true, .. } if at > start => {
                    self.offset = at;
                    return Ok(Some(at));
                }
                Look::Good { next, .. } => next,
                Look::Damaged { next: Some(next) } if self.is_credible(at, next) => next,
                Look::Damaged { .. } | Look::Padding { .. } => page_end,
            };
        }
        self.offset = self.limit;
        Ok(None)
    }

    /// Whether a fragment, or the end of the page, is at `next`, and a filler fits before it.
    fn is_credible(&self, at: u64, next: u64) -> bool {
        let page_end = at - at % PAGE + PAGE;
        if next - at < FILLER_LEN_BYTES_MIN as u64 {
            return false;
        }
        next >= page_end.min(self.limit)
            || matches!(self.look(next), Look::Good { .. } | Look::Padding { is_good: true })
    }

    /// What is at an offset of the loaded page.
    fn look(&self, offset: u64) -> Look {
        let page = &self.page[(offset % PAGE) as usize..];
        let room = (PAGE - offset % PAGE) as usize;
        let kind = page[0] & TYPE_MASK;
        if kind == TYPE_PAGE_END || room < HEADER_LEN_BYTES {
            return Look::Padding { is_good: page.iter().all(|b| *b == 0) };
        }
        let Some(header) = page.get(..HEADER_LEN_BYTES) else { return Look::Damaged { next: None } };
        let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
        let crc = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        if HEADER_LEN_BYTES + len > room {
            return Look::Damaged { next: None };
        }
        let next = offset + (HEADER_LEN_BYTES + len) as u64;
        let is_whole = |data: &[u8]| kind <= TYPE_LAST && checksum::is_right(data, crc);
        match page.get(HEADER_LEN_BYTES..HEADER_LEN_BYTES + len) {
            Some(data) if is_whole(data) => {
                Look::Good { next, begins: matches!(kind, TYPE_FULL | TYPE_FIRST) }
            }
            Some(_) => Look::Damaged { next: Some(next) },
            None => Look::Damaged { next: None },
        }
    }
}

/// What is at a place in a page.
enum Look {
    /// A fragment whose checksum is right, where the next one begins, and whether a record begins with it.
    Good { next: u64, begins: bool },
    /// Something else; where its length says that the next one begins.
    Damaged { next: Option<u64> },
    /// The rest of the page, which should be zeros.
    Padding { is_good: bool },
}

/// A part of a segment that holds no good record.
#[derive(Debug)]
pub(crate) struct Damage {
    start: u64,
    end: u64,
    /// Nothing comes after it.
    is_last: bool,
    /// What is wrong with its first record.
    pub(crate) error: StorageError,
}

/// What a replay met.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Number the next segment gets.
    pub(crate) next_segment: u32,
    /// Damage in segments and in the checkpoint, already mended: all other records were used.
    pub(crate) damaged: Vec<StorageError>,
    /// What was read of segments. What is mended is on the disk already, and has none.
    pub(crate) contents: HashMap<u32, Content>,
}

/// How far a replay is: numbers of segments. The first may be a checkpoint's. Also carries the wish to end it early.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    min: AtomicU32,
    max: AtomicU32,
    current: AtomicU32,
    stopped: AtomicBool,
    #[cfg(test)]
    pub(crate) gate: crate::sim::gate::Gate,
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
        #[cfg(test)]
        self.gate.open();
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.stopped.load(Ordering::Relaxed) { Err(StorageError::Closed) } else { Ok(()) }
    }
}

/// Calls `apply(segment, record)` for every record of checkpoint and segments in order; with `from`, only for those from that
/// position on. Damaged records are left out, and mended ([`mend`]), so that the log is whole when this returns. Records are read and
/// unpacked by a thread of their own, some of them ahead.
///
/// `apply` says what is wrong with a record that it cannot decode, which is damage too. `tell` hears of damage before it is mended:
/// afterwards nobody could find it.
///
/// # Errors
/// When files cannot be read or mended, and when the replay is stopped.
pub(crate) fn replay(
    dir: &Path,
    from: Option<WalPosition>,
    (progress, tell): (&Progress, &dyn Fn(&StorageError)),
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
    let mut read = |path: &Path, start: u64, segment: u32| {
        let (damaged, content) = read_ahead(path, start, progress, |bytes| apply(segment, bytes))?;
        if damaged.is_empty() {
            return Ok(content);
        }
        damaged.iter().for_each(|d| tell(&d.error));
        mend(path, &damaged)?;
        out.damaged.extend(damaged.into_iter().map(|d| d.error));
        Ok::<_, StorageError>(None)
    };
    let mut contents = HashMap::new();
    if let Some((checkpoint, last)) = checkpoint {
        first = last + 1;
        for s in segment::list(&checkpoint)? {
            read(&segment::path(&checkpoint, s), 0, last)?;
        }
    }
    for s in segments.iter().filter(|s| **s >= first) {
        let start = from.filter(|p| p.segment == *s).map_or(0, |p| p.offset);
        contents.extend(read(&segment::path(dir, *s), start, *s)?.map(|content| (*s, content)));
        progress.done(*s);
    }
    out.contents = contents;
    out.next_segment = segments.last().map_or(first, |l| (l + 1).max(first));
    Ok(out)
}

/// Records read ahead, one after the other in `bytes`.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    /// Where each begins and ends in the segment, and ends in `bytes`.
    records: Vec<(u64, u64, usize)>,
    /// What was not readable among them.
    damaged: Vec<Damage>,
    /// How the segment ended, with the last ones, and what was read of it.
    end: Option<Result<Option<Content>, StorageError>>,
}

impl Ahead {
    fn fill(&mut self, reader: &mut SegmentReader) {
        self.bytes.clear();
        self.records.clear();
        while self.bytes.len() < AHEAD_LEN_BYTES {
            match reader.next() {
                Ok(Some((offset, bytes))) => {
                    self.bytes.extend_from_slice(bytes);
                    self.records.push((offset, reader.offset(), self.bytes.len()));
                }
                Ok(None) => return self.end = Some(Ok(reader.content())),
                Err(error @ StorageError::Corruption { offset, .. }) => match reader.skip_damage(offset) {
                    Ok(next) => {
                        let (end, is_last) = (reader.offset(), next.is_none());
                        self.damaged.push(Damage { start: offset, end, is_last, error });
                    }
                    Err(e) => return self.end = Some(Err(e)),
                },
                Err(e) => return self.end = Some(Err(e)),
            }
        }
    }
}

/// Calls `apply` for the records of a file from `start` on, which another thread reads and unpacks. Gives what is damaged, in order,
/// and what was read, as far as that is known.
pub(crate) fn read_ahead(
    path: &Path,
    start: u64,
    progress: &Progress,
    mut apply: impl FnMut(&[u8]) -> Result<(), &'static str>,
) -> Result<(Vec<Damage>, Option<Content>), StorageError> {
    let mut damaged = Vec::new();
    let Some(mut reader) = SegmentReader::open(path)? else { return Ok((damaged, None)) };
    if reader.limit <= start {
        return Ok((damaged, None));
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
                // The other side ends early when it is stopped.
                if filled.send(ahead).is_err() || is_last {
                    return;
                }
            }
        });
        for mut ahead in read {
            #[cfg(test)]
            progress.gate.pass();
            progress.check()?;
            let mut from = 0;
            damaged.append(&mut ahead.damaged);
            for (offset, end, to) in &ahead.records {
                if let Err(e) = apply(&ahead.bytes[from..*to]) {
                    let reason = format!("record does not decode: {e}");
                    let error = StorageError::Corruption { path: path.to_owned(), offset: *offset, reason };
                    damaged.push(Damage { start: *offset, end: *end, is_last: false, error });
                }
                from = *to;
            }
            if let Some(end) = ahead.end.take() {
                damaged.sort_by_key(|d| d.start);
                return end.map(|content| (damaged, content));
            }
            let _ = give_back.send(ahead); // The reader may be through.
        }
        let reason = "the thread that reads ended early".to_owned();
        Err(StorageError::Unavailable { who: path.display().to_string(), reason })
    })
}

/// A filler is a record of a type that nobody knows, which every reader passes over.
pub(crate) const FILLER_TYPE: u8 = 0xff;
const FILLER_LEN_BYTES_MIN: usize = HEADER_LEN_BYTES + 1;

/// Puts what every reader passes over, also Prometheus, in place of damage: zeros up to the end of a page, and a record of an unknown
/// type before a good one. No record moves, so that positions in the log stay what they were. Damage that nothing comes after
/// is cut off. When the machine goes down meanwhile the next start mends the rest.
fn mend(path: &Path, damaged: &[Damage]) -> Result<(), StorageError> {
    let mut file = dir::Patch::open(path)?;
    for d in damaged {
        if d.is_last {
            file.truncate(d.start)?;
            continue;
        }
        let mut at = d.start;
        while at < d.end {
            let page_end = at - at % PAGE + PAGE;
            let to = d.end.min(page_end);
            let mut fill = vec![0; (to - at) as usize];
            // Less than a filler is only left of a page that the damaged record ended with.
            if to < page_end && fill.len() >= FILLER_LEN_BYTES_MIN {
                let (header, data) = fill.split_at_mut(HEADER_LEN_BYTES);
                data[0] = FILLER_TYPE;
                header[0] = TYPE_FULL;
                header[1..3].copy_from_slice(&(data.len() as u16).to_be_bytes());
                header[3..].copy_from_slice(&crc32c::crc32c(data).to_be_bytes());
            }
            file.write_at(at, &fill)?;
            at = to;
        }
    }
    file.sync()
}
