//! Follows the log while it is written: `WalTail` over [`Wal`].
//!
//! Reading never goes beyond the end that the writer has published, which is the end of a whole commit, so a tail never
//! sees half a record. First come the series of the newest checkpoint and of everything before the position asked for,
//! then all records from there on. Tombstones and unknown records are passed over.
//!
//! When the position is no longer (or not yet) in the log, the tail starts at the oldest record that is there and says so
//! by `gap`. The same happens when segments disappear under a tail that did not hold them, and when a record is damaged: what
//! follows it is read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use model::{StorageError, WalPosition, WalRecord, WalTail};

use super::reader::SegmentReader;
use super::segment;
use super::{Record, Wal, record};

pub(crate) struct Tail {
    wal: Arc<Wal>,
    /// Files whose series are still to be given.
    prefix: VecDeque<PrefixFile>,
    /// Reads the front of `prefix`, or the segment of `position` once `prefix` is empty.
    reader: Option<SegmentReader>,
    position: WalPosition,
    gap: Option<WalPosition>,
}

struct PrefixFile {
    path: PathBuf,
    /// End of the last whole commit, in the segment that is being written.
    limit: Option<u64>,
    /// Records that begin here or later are not part of the prefix.
    stop: u64,
}

impl Tail {
    pub(crate) fn open(wal: Arc<Wal>, from: Option<WalPosition>) -> Result<Self, StorageError> {
        let position = from.unwrap_or_else(|| wal.end());
        let mut tail = Self { wal, prefix: VecDeque::new(), reader: None, position, gap: None };
        tail.plan()?;
        Ok(tail)
    }

    /// Finds the files for `position`, moving it when the log does not have it.
    fn plan(&mut self) -> Result<(), StorageError> {
        let dir = self.wal.dir();
        let checkpoint = segment::last_checkpoint(dir)?;
        let segments = segment::list(dir)?;
        let first = segments.first().copied().unwrap_or_default();
        if self.position.segment < first || self.position > self.wal.end() {
            self.gap.get_or_insert(self.position);
            self.position = WalPosition { segment: first, offset: 0 };
        }
        self.reader = None;
        self.prefix.clear();
        if let Some((path, _)) = checkpoint {
            let files = segment::list(&path)?.into_iter().map(|s| segment::path(&path, s));
            self.prefix.extend(files.map(|path| PrefixFile { path, limit: None, stop: u64::MAX }));
        }
        let end = self.wal.end();
        for s in segments.into_iter().filter(|s| *s <= self.position.segment) {
            let stop = if s == self.position.segment { self.position.offset } else { u64::MAX };
            let limit = (s == end.segment).then_some(end.offset);
            if stop > 0 {
                self.prefix.push_back(PrefixFile { path: segment::path(dir, s), limit, stop });
            }
        }
        Ok(())
    }

    /// Gives series of the files before the position. Returns false when a file has gone meanwhile.
    fn read_prefix(&mut self, room: &mut usize, out: &mut Vec<WalRecord>) -> Result<bool, StorageError> {
        while let Some(file) = self.prefix.front() {
            if self.reader.is_none() {
                let Some(mut reader) = SegmentReader::open(&file.path)? else { return Ok(false) };
                if let Some(limit) = file.limit {
                    reader.set_limit(limit);
                }
                self.reader = Some(reader);
            }
            let reader = self.reader.as_mut().expect("opened above");
            while let Some(next) = next_good(reader)? {
                let Next { start, record, damaged } = next;
                if start >= file.stop {
                    break;
                }
                if damaged {
                    // It may have been a series that is still sent.
                    self.gap.get_or_insert(self.position);
                }
                if let Some(series @ WalRecord::Series(_)) = record {
                    out.push(series);
                    *room -= 1;
                    if *room == 0 {
                        return Ok(true);
                    }
                }
            }
            self.reader = None;
            self.prefix.pop_front();
        }
        Ok(true)
    }

    /// Gives records from the position on. Returns false when the segment has gone.
    fn read_live(&mut self, room: &mut usize, out: &mut Vec<WalRecord>) -> Result<bool, StorageError> {
        loop {
            let end = self.wal.end();
            if self.reader.is_none() {
                let path = segment::path(self.wal.dir(), self.position.segment);
                let Some(reader) = SegmentReader::open(&path)? else { return Ok(false) };
                self.reader = Some(reader);
                self.skip_to_position()?;
            }
            let reader = self.reader.as_mut().expect("opened above");
            if end.segment == self.position.segment {
                reader.set_limit(end.offset);
            } else {
                reader.set_limit_to_file()?;
            }
            while let Some(next) = next_good(reader)? {
                if next.damaged {
                    self.gap.get_or_insert(self.position);
                }
                self.position.offset = reader.offset();
                if let Some(r) = next.record {
                    out.push(r);
                    *room -= 1;
                    if *room == 0 {
                        return Ok(true);
                    }
                }
            }
            if end.segment <= self.position.segment {
                return Ok(true);
            }
            self.position = WalPosition { segment: self.position.segment + 1, offset: 0 };
            self.reader = None;
        }
    }

    /// Reads over the records before the position: only a segment's front is surely the beginning of a record.
    fn skip_to_position(&mut self) -> Result<(), StorageError> {
        let reader = self.reader.as_mut().expect("callers opened it");
        while reader.offset() < self.position.offset {
            if next_good(reader)?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// What comes next in a segment.
struct Next {
    start: u64,
    /// None: one that followers do not see, or damage.
    record: Option<WalRecord>,
    damaged: bool,
}

/// The next record, or damage, which is passed over; `None` at the end.
fn next_good(reader: &mut SegmentReader) -> Result<Option<Next>, StorageError> {
    let error = match reader.next() {
        Ok(None) => return Ok(None),
        Ok(Some((start, bytes))) => match record::decode(bytes) {
            Ok(Record::Data(r)) => return Ok(Some(Next { start, record: Some(r), damaged: false })),
            Ok(Record::Tombstones(_) | Record::Unknown) => {
                return Ok(Some(Next { start, record: None, damaged: false }));
            }
            Err(e) => StorageError::decode("WAL record", e),
        },
        Err(e @ StorageError::Corruption { .. }) => e,
        Err(e) => return Err(e),
    };
    let start = match error {
        StorageError::Corruption { offset, .. } => {
            reader.skip_damage(offset)?;
            offset
        }
        _ => reader.offset(),
    };
    tracing::error!(error = %error, "a follower of the write-ahead log passes over damage");
    Ok(Some(Next { start, record: None, damaged: true }))
}

impl WalTail for Tail {
    fn read(&mut self, max_records: usize, out: &mut Vec<WalRecord>) -> Result<WalPosition, StorageError> {
        let mut room = max_records.max(1);
        // Each round of truncation can make us plan once more; two in one call would be more than one a second.
        for _ in 0..8 {
            let whole = self.read_prefix(&mut room, out)?;
            if whole && (room == 0 || !self.prefix.is_empty() || self.read_live(&mut room, out)?) {
                return Ok(self.position);
            }
            self.plan()?;
        }
        Err(StorageError::Unavailable {
            who: self.wal.dir().display().to_string(),
            reason: "segments disappear faster than they are read".into(),
        })
    }

    fn position(&self) -> WalPosition {
        self.position
    }

    fn gap(&self) -> Option<WalPosition> {
        self.gap
    }
}
