//! [`Wal`]: takes the records of commits, makes them durable, keeps segments for those who hold them.
//!
//! Compression and framing are done by the committing thread; only the write itself is under the lock of the current
//! segment. Syncing is grouped: whoever syncs covers all that was written until then, and those who waited find their
//! part done.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{StorageError, WalPosition};
use parking_lot::Mutex;

use super::segment::{self, Content, Payload, SegmentWriter};
use crate::config::{Config, WalCompression};
use crate::dir::{self, SyncHandle};
use crate::metrics::LogMetrics;

/// The log that is written to.
pub(crate) struct Wal {
    dir: PathBuf,
    compression: WalCompression,
    hold_max_bytes: u64,
    fsync_on_commit: bool,
    /// What is not synced is kept in memory too ([`Wal::keeping`]).
    keeps: bool,
    rewritten: AtomicU64,
    current: Mutex<Current>,
    /// End of the last whole commit; never moves back.
    end: Mutex<WalPosition>,
    /// Everything before is on the disk. Held while syncing.
    synced: Mutex<WalPosition>,
    holds: Mutex<BTreeMap<String, WalPosition>>,
    metrics: LogMetrics,
}

struct Current {
    writer: SegmentWriter,
    /// The current segment and those before it that are not synced yet.
    unsynced: Vec<Unsynced>,
    /// A write failed and could not be undone: a new segment is needed first.
    broken: bool,
    /// A segment could not be synced. What follows it would be worth nothing, so nothing is taken until it is mended.
    damaged: bool,
    closed: bool,
}

#[derive(Clone)]
struct Unsynced {
    handle: Arc<SyncHandle>,
    /// What it has, once it is finished; unknown when another process wrote it and it was not read.
    content: Option<Content>,
    /// Syncing it failed. What the operating system could not write it counts as written: syncing again says nothing.
    failed: bool,
}

impl Unsynced {
    fn new(handle: SyncHandle) -> Self {
        Self { handle: Arc::new(handle), content: None, failed: false }
    }
}

impl Wal {
    /// Begins segment `next_segment`. The log before it has been replayed and is whole, but may not be on the disk: a
    /// process that was killed left it with the operating system. What comes now is worth nothing without it, so the first
    /// sync covers it.
    pub(crate) fn create(
        dir: &Path,
        config: &Config,
        next_segment: u32,
        metrics: LogMetrics,
    ) -> Result<Self, StorageError> {
        let writer = SegmentWriter::create(dir, next_segment, config.wal_segment_bytes)?;
        let mut unsynced = Vec::new();
        for s in segment::list(dir)?.into_iter().filter(|s| *s < next_segment) {
            let path = segment::path(dir, s);
            let mut before = Unsynced::new(SyncHandle::open(&path)?);
            // The process before knew that an fsync had failed, and did not get to the end of writing it anew.
            before.failed = segment::is_to_be_rewritten(&path);
            unsynced.push(before);
        }
        unsynced.push(Unsynced::new(writer.out.sync_handle()?));
        let start = WalPosition { segment: next_segment, offset: 0 };
        metrics.segment_current.set(i64::from(next_segment));
        Ok(Self {
            dir: dir.to_owned(),
            compression: config.wal_compression,
            hold_max_bytes: config.wal_hold_max_bytes,
            fsync_on_commit: config.fsync_on_commit,
            keeps: false,
            rewritten: AtomicU64::new(0),
            current: Mutex::new(Current { writer, unsynced, broken: false, damaged: false, closed: false }),
            end: Mutex::new(start),
            synced: Mutex::new(WalPosition { segment: 0, offset: 0 }),
            holds: Mutex::new(BTreeMap::new()),
            metrics,
        })
    }

    /// Tells what was read of earlier segments, which an fsync may yet lose.
    pub(crate) fn after_reading(mut self, mut contents: HashMap<u32, Content>) -> Self {
        for before in &mut self.current.get_mut().unsynced {
            let number = before.handle.path().file_name().and_then(|n| n.to_str()?.parse().ok());
            before.content = number.and_then(|n: u32| contents.remove(&n));
        }
        self
    }

    /// For a log whose records are nowhere else: keeps in memory what is not synced, so that a segment that an fsync failed for is
    /// written anew even where what was written cannot be read any more. Segments are synced when they are finished, which
    /// bounds what is kept.
    pub(crate) fn keeping(mut self) -> Self {
        self.keeps = true;
        self.current.get_mut().writer.keep();
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn compression(&self) -> WalCompression {
        self.compression
    }

    /// End of the last whole commit.
    pub(crate) fn end(&self) -> WalPosition {
        *self.end.lock()
    }

    /// Writes the records, in order and all into one segment. When this returns they are with the operating system, and
    /// on the disk when the configuration says so.
    ///
    /// # Errors
    /// When they could not be written (then none is in the log) or not be synced (then they may be).
    pub(crate) fn log(&self, records: Vec<Vec<u8>>) -> Result<(), StorageError> {
        if records.is_empty() {
            return Ok(());
        }
        let payloads: Vec<Payload> = records.into_iter().map(|r| Payload::new(r, self.compression)).collect();
        let mended = if self.current.lock().damaged { self.sync() } else { Ok(()) };
        let (end, must_sync) = match mended.and_then(|()| self.write(&payloads)) {
            Ok(done) => done,
            Err(e) => {
                self.metrics.writes_failed.inc();
                return Err(e);
            }
        };
        if must_sync { self.sync_to(end) } else { Ok(()) }
    }

    /// Gives the end of what was written, and whether it must be synced.
    fn write(&self, payloads: &[Payload]) -> Result<(WalPosition, bool), StorageError> {
        let mut current = self.current.lock();
        if current.closed {
            return Err(StorageError::Closed);
        }
        if current.damaged {
            return Err(StorageError::Unavailable {
                who: "write-ahead log".into(),
                reason: "a sync failed, and what it should have written could not be written anew yet".into(),
            });
        }
        if current.broken || current.writer.is_full_for(payloads) {
            self.cut(&mut current)?;
        }
        if let Err((e, usable)) = current.writer.write(payloads) {
            current.broken = !usable;
            return Err(e);
        }
        let end = WalPosition { segment: current.writer.segment, offset: current.writer.out.len() };
        self.set_end(end);
        let has_finished = self.keeps && current.unsynced.len() > 1;
        Ok((end, self.fsync_on_commit || has_finished))
    }

    fn set_end(&self, end: WalPosition) {
        let mut shown = self.end.lock();
        assert!(*shown <= end, "the log only grows");
        *shown = end;
    }

    fn cut(&self, current: &mut Current) -> Result<(), StorageError> {
        // Until the new segment can be synced nothing goes there.
        current.broken = true;
        let (_, content) = current.writer.cut()?;
        if let Some(last) = current.unsynced.last_mut().filter(|u| u.content.is_none()) {
            last.content = Some(content);
        }
        current.unsynced.push(Unsynced::new(current.writer.out.sync_handle()?));
        current.broken = false;
        let segment = current.writer.segment;
        self.metrics.segment_current.set(i64::from(segment));
        self.set_end(WalPosition { segment, offset: 0 });
        Ok(())
    }

    /// Begins a new segment; returns its number. An empty segment is kept.
    pub(crate) fn next_segment(&self) -> Result<u32, StorageError> {
        let mut current = self.current.lock();
        if current.closed {
            return Err(StorageError::Closed);
        }
        if current.writer.out.len() > 0 {
            self.cut(&mut current)?;
        }
        Ok(current.writer.segment)
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.sync_to(self.end())
    }

    fn sync_to(&self, position: WalPosition) -> Result<(), StorageError> {
        let mut synced = self.synced.lock();
        if *synced >= position {
            return Ok(());
        }
        let (handles, end) = {
            let current = self.current.lock();
            let end = WalPosition { segment: current.writer.segment, offset: current.writer.out.len() };
            (current.unsynced.clone(), end)
        };
        let timer = self.metrics.fsync_duration.start_timer();
        for (i, segment) in handles.iter().enumerate() {
            self.sync_segment(i, segment)?;
        }
        drop(timer);
        *synced = end;
        let mut current = self.current.lock();
        // The last one is the current segment, which will need syncing again.
        current.unsynced.drain(..handles.len() - 1);
        current.damaged = false;
        Ok(())
    }

    /// Syncs the `i`th of the segments that are not synced. What an fsync could not write, the operating system drops and
    /// counts as written, so that the next fsync says nothing: the segment is then written anew from what can be read of it.
    fn sync_segment(&self, i: usize, segment: &Unsynced) -> Result<(), StorageError> {
        if !segment.failed {
            let Err(e) = segment.handle.sync() else { return Ok(()) };
            tracing::error!(error = %e, "the write-ahead log could not be synced: writing the segment anew");
            let mut current = self.current.lock();
            current.unsynced[i].failed = true;
            current.damaged = true;
            // The current one is not written any more.
            current.broken = true;
        }
        let content = {
            let current = self.current.lock();
            let is_current = i + 1 == current.unsynced.len();
            let of_current = || is_current.then(|| current.writer.content());
            current.unsynced[i].content.clone().or_else(of_current)
        };
        let handle = Arc::new(segment::rewrite(segment.handle.path(), content.as_ref())?);
        self.rewritten.fetch_add(1, Ordering::SeqCst);
        self.current.lock().unsynced[i] = Unsynced { handle, content, failed: false };
        Ok(())
    }

    /// How many segments have been written anew. Who had one open may not have read what it has.
    pub(crate) fn rewritten(&self) -> u64 {
        self.rewritten.load(Ordering::SeqCst)
    }

    /// Syncs and refuses further records.
    pub(crate) fn close(&self) -> Result<(), StorageError> {
        self.current.lock().closed = true;
        self.sync()
    }

    /// Bytes of all segments and checkpoints.
    pub(crate) fn len_bytes(&self) -> Result<u64, StorageError> {
        dir::len_all(&self.dir)
    }

    /// Bytes of the segments after a position.
    pub(crate) fn len_since(&self, position: WalPosition) -> Result<u64, StorageError> {
        let mut total = 0;
        for s in segment::list(&self.dir)?.into_iter().filter(|s| *s >= position.segment) {
            total += dir::len(&segment::path(&self.dir, s))?;
        }
        Ok(total.saturating_sub(position.offset))
    }

    /// Sets or removes what a reader needs.
    pub(crate) fn hold(&self, reader: &str, position: Option<WalPosition>) {
        let mut holds = self.holds.lock();
        match position {
            Some(p) => holds.insert(reader.to_owned(), p),
            None => holds.remove(reader),
        };
    }

    /// The last segment that may go when truncation would like to drop everything up to `wanted`: segments that a reader
    /// holds stay as long as all those kept do not exceed the limit.
    pub(crate) fn droppable(&self, wanted: u32) -> Result<Option<u32>, StorageError> {
        let Some(held) = self.holds.lock().values().map(|p| p.segment).min() else { return Ok(Some(wanted)) };
        let mut kept_bytes = 0;
        for s in segment::list(&self.dir)?.into_iter().rev() {
            if s < held {
                return Ok(Some(wanted.min(s)));
            }
            kept_bytes += dir::len(&segment::path(&self.dir, s))?;
            if kept_bytes > self.hold_max_bytes && s <= wanted {
                tracing::warn!(
                    segment = s,
                    "readers hold more of the write-ahead log than wal_hold_max_bytes allows: dropping it"
                );
                return Ok(Some(s));
            }
        }
        Ok(None)
    }

    /// Shows the length of all files.
    pub(crate) fn show_size(&self) -> Result<(), StorageError> {
        self.metrics.storage_bytes.set(self.len_bytes()? as i64);
        Ok(())
    }

    /// Removes segments up to `last`, oldest first, and checkpoints older than the one of `last`, which exists.
    pub(crate) fn truncate(&self, last: u32) -> Result<(), StorageError> {
        assert!(last < self.end().segment, "the current segment is never removed");
        self.metrics.truncations.inc();
        let done = self.remove_upto(last);
        if done.is_err() {
            self.metrics.truncations_failed.inc();
        }
        done
    }

    fn remove_upto(&self, last: u32) -> Result<(), StorageError> {
        for s in segment::list(&self.dir)?.into_iter().filter(|s| *s <= last) {
            dir::remove_file(&segment::path(&self.dir, s))?;
        }
        segment::remove_rewritten(&self.dir, last)?;
        for c in segment::checkpoints(&self.dir)?.into_iter().filter(|c| *c < last) {
            dir::remove_all(&segment::checkpoint_path(&self.dir, c))?;
        }
        dir::sync(&self.dir)
    }
}
