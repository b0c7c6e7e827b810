//! [`Wal`]: takes the records of commits, makes them durable, keeps segments for those who hold them.
//!
//! Compression and framing are done by the committing thread; only the write itself is under the lock of the current
//! segment. Syncing is grouped: whoever syncs covers all that was written until then, and those who waited find their
//! part done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{StorageError, WalPosition};
use parking_lot::Mutex;

use super::segment::{self, Payload, SegmentWriter};
use crate::config::{Config, WalCompression};
use crate::dir::{self, SyncHandle};
use crate::metrics::LogMetrics;

/// The log that is written to.
pub(crate) struct Wal {
    dir: PathBuf,
    compression: WalCompression,
    hold_max_bytes: u64,
    fsync_on_commit: bool,
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
    unsynced: Vec<Arc<SyncHandle>>,
    /// A write failed and could not be undone: a new segment is needed first.
    broken: bool,
    closed: bool,
}

impl Wal {
    /// Begins segment `next_segment`. The log before it has been replayed and is whole.
    pub(crate) fn create(
        dir: &Path,
        config: &Config,
        next_segment: u32,
        metrics: LogMetrics,
    ) -> Result<Self, StorageError> {
        let writer = SegmentWriter::create(dir, next_segment, config.wal_segment_bytes)?;
        let unsynced = vec![Arc::new(writer.out.sync_handle()?)];
        let start = WalPosition { segment: next_segment, offset: 0 };
        metrics.segment_current.set(i64::from(next_segment));
        Ok(Self {
            dir: dir.to_owned(),
            compression: config.wal_compression,
            hold_max_bytes: config.wal_hold_max_bytes,
            fsync_on_commit: config.fsync_on_commit,
            current: Mutex::new(Current { writer, unsynced, broken: false, closed: false }),
            end: Mutex::new(start),
            synced: Mutex::new(start),
            holds: Mutex::new(BTreeMap::new()),
            metrics,
        })
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
        let end = match self.write(&payloads) {
            Ok(end) => end,
            Err(e) => {
                self.metrics.writes_failed.inc();
                return Err(e);
            }
        };
        if self.fsync_on_commit { self.sync_to(end) } else { Ok(()) }
    }

    fn write(&self, payloads: &[Payload]) -> Result<WalPosition, StorageError> {
        let mut current = self.current.lock();
        if current.closed {
            return Err(StorageError::Closed);
        }
        if current.broken || current.writer.is_full_for(payloads) {
            self.cut(&mut current)?;
            current.broken = false;
        }
        if let Err((e, usable)) = current.writer.write(payloads) {
            current.broken = !usable;
            return Err(e);
        }
        let end = WalPosition { segment: current.writer.segment, offset: current.writer.out.len() };
        self.set_end(end);
        Ok(end)
    }

    fn set_end(&self, end: WalPosition) {
        let mut shown = self.end.lock();
        assert!(*shown <= end, "the log only grows");
        *shown = end;
    }

    fn cut(&self, current: &mut Current) -> Result<(), StorageError> {
        current.writer.cut()?;
        let handle = Arc::new(current.writer.out.sync_handle()?);
        current.unsynced.push(handle);
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
            current.broken = false;
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
        handles.iter().try_for_each(|h| h.sync())?;
        timer.observe_duration();
        *synced = end;
        // The last one is the current segment, which will need syncing again.
        self.current.lock().unsynced.drain(..handles.len() - 1);
        Ok(())
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
        for s in segment::list(&self.dir)?.into_iter().filter(|s| *s <= last) {
            dir::remove_file(&segment::path(&self.dir, s))?;
        }
        for c in segment::checkpoints(&self.dir)?.into_iter().filter(|c| *c < last) {
            dir::remove_all(&segment::checkpoint_path(&self.dir, c))?;
        }
        dir::sync(&self.dir)
    }
}
