//! Snapshots of the head: what it holds beside its chunks in files, so that a start reads the write-ahead log only from where the
//! snapshot was taken. Spec: docs/formats/snapshot.md. Reading one is `replay/snapshot`'s business.
//!
//! Invariants: a snapshot has its name once it is whole and durable, and so is the log up to what it holds; everything logged
//! before its position is in it or in files of head chunks; samples logged after it may be in it too, and are known by their
//! times then. It only makes a start short: without it the log has everything.

pub(crate) mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Metadata, SeriesRef, StorageError, WalPosition};
use parking_lot::Mutex;

use super::Head;
use crate::dir;
use crate::wal::checkpoint::RecordWriter;
use crate::wal::record::encode_metadata;
use crate::wal::segment::{self, TMP_SUFFIX};
use record::Extras;

const PREFIX: &str = "chunk_snapshot.";
/// Folder in a snapshot for what Prometheus has no place for.
pub(crate) const EXTRAS_DIR: &str = "almanac";
/// Folder in that one.
pub(crate) const METADATA_DIR: &str = "metadata";
/// A snapshot is taken once the log has grown by so much, and by as much as the last one has.
const LOG_LEN_BYTES_MIN: u64 = if cfg!(test) { 16 << 10 } else { 64 << 20 };
/// Exemplars, or series with metadata, in one record.
const PER_RECORD_MAX: usize = 10_000;

/// A snapshot on the disk.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotDir {
    pub(crate) path: PathBuf,
    /// Everything logged before is in it.
    pub(crate) position: WalPosition,
}

impl SnapshotDir {
    fn new(root: &Path, position: WalPosition) -> Self {
        let name = format!("{PREFIX}{:06}.{:010}", position.segment, position.offset);
        Self { path: root.join(name), position }
    }

    /// The snapshot that a directory of this name is.
    fn of_name(root: &Path, name: &str) -> Option<Self> {
        let (segment, offset) = name.strip_prefix(PREFIX)?.split_once('.')?;
        let is_number = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !is_number(segment) || !is_number(offset) {
            return None;
        }
        let position = WalPosition { segment: segment.parse().ok()?, offset: offset.parse().ok()? };
        Some(Self { path: root.join(name), position })
    }

    /// The newest snapshot below `root` that stands for a position in the log. Older ones are removed, and so is one whose
    /// segment has gone: it is of no use any more.
    pub(crate) fn newest(root: &Path, wal_dir: &Path) -> Result<Option<Self>, StorageError> {
        let mut found = Vec::new();
        for name in dir::list(root)?.iter().filter(|n| n.starts_with(PREFIX)) {
            if name.ends_with(TMP_SUFFIX) {
                dir::remove_all(&root.join(name))?;
            } else if dir::is_dir(&root.join(name)) {
                found.extend(Self::of_name(root, name));
            }
        }
        found.sort_by_key(|s| s.position);
        let Some(newest) = found.pop() else { return Ok(None) };
        found.iter().try_for_each(Self::remove)?;
        if newest.is_in(wal_dir)? {
            return Ok(Some(newest));
        }
        tracing::warn!(path = %newest.path.display(),
            "the write-ahead log has not got the place where the snapshot was taken: the snapshot is removed");
        newest.remove()?;
        Ok(None)
    }

    /// Whether the log has the position, and all that comes after it.
    fn is_in(&self, wal_dir: &Path) -> Result<bool, StorageError> {
        let WalPosition { segment, offset } = self.position;
        let is_replaced = segment::last_checkpoint(wal_dir)?.is_some_and(|(_, last)| last >= segment);
        if is_replaced || !segment::list(wal_dir)?.contains(&segment) {
            return Ok(false);
        }
        Ok(dir::len(&segment::path(wal_dir, segment))? >= offset)
    }

    /// Removes it, in such a way that a part of it is never taken for the whole.
    pub(crate) fn remove(&self) -> Result<(), StorageError> {
        let mut gone = self.path.clone().into_os_string();
        gone.push(".gone");
        gone.push(TMP_SUFFIX);
        let gone = PathBuf::from(gone);
        if dir::exists(&gone) {
            dir::remove_all(&gone)?;
        }
        dir::publish(&self.path, &gone)?;
        dir::remove_all(&gone)
    }
}

/// A snapshot, and its length.
type Taken = (SnapshotDir, u64);

/// What is known of snapshots on the disk.
pub(crate) struct Snapshots {
    root: PathBuf,
    last: Mutex<Option<Taken>>,
}

impl Snapshots {
    pub(crate) fn new(root: &Path, last: Option<Taken>) -> Self {
        Self { root: root.to_owned(), last: Mutex::new(last) }
    }
}

impl Head {
    /// Whether the log has grown enough for a snapshot.
    pub(crate) fn is_snapshot_due(&self) -> Result<bool, StorageError> {
        let last = self.snapshots.last.lock().clone();
        let (since, last_len) = match last {
            Some((s, len_bytes)) => (self.wal.len_since(s.position)?, len_bytes),
            None => (self.wal.len_bytes()?, 0),
        };
        Ok(since > last_len.max(LOG_LEN_BYTES_MIN))
    }

    /// Takes a snapshot, unless nothing has been logged since the last one. Appends do not wait. Calls do not overlap, neither
    /// with each other nor with what deletes samples or drops them from the head.
    ///
    /// # Errors
    /// When files cannot be written; the last snapshot stays then.
    pub(crate) fn take_snapshot(&self) -> Result<(), StorageError> {
        let new = SnapshotDir::new(&self.snapshots.root, self.wal.end());
        let last = self.snapshots.last.lock().clone();
        if last.as_ref().is_some_and(|(s, _)| s.position == new.position) {
            return Ok(());
        }
        self.commits.wait_for_begun()?;
        let mut temporary = new.path.clone().into_os_string();
        temporary.push(TMP_SUFFIX);
        let temporary = PathBuf::from(temporary);
        for left in [&temporary, &new.path].into_iter().filter(|p| dir::exists(p)) {
            // Of a try that failed.
            SnapshotDir { path: left.clone(), position: new.position }.remove()?;
        }
        let write = || {
            let series = self.write_snapshot(&temporary)?;
            Ok((series, dir::len_all(&temporary)?))
        };
        let (series, len_bytes) = write().inspect_err(|_| drop(dir::remove_all(&temporary)))?;
        dir::publish(&temporary, &new.path)?;
        tracing::info!(path = %new.path.display(), series, bytes = len_bytes, "snapshot of the head written");
        *self.snapshots.last.lock() = Some((new, len_bytes));
        last.map_or(Ok(()), |(old, _)| old.remove())
    }

    /// Removes the snapshot if it was taken in one of the segments up to `last`.
    pub(super) fn drop_snapshot_upto(&self, last: u32) -> Result<(), StorageError> {
        let mut taken = self.snapshots.last.lock();
        match taken.take_if(|(s, _)| s.position.segment <= last) {
            Some((s, _)) => s.remove(),
            None => Ok(()),
        }
    }

    /// Writes everything into a directory; gives how many series that are.
    fn write_snapshot(&self, to: &Path) -> Result<u64, StorageError> {
        let (extras_dir, compression) = (to.join(EXTRAS_DIR), self.wal.compression());
        let metadata_dir = extras_dir.join(METADATA_DIR);
        dir::create_all(&metadata_dir)?;
        let mut out = RecordWriter::create(to, compression)?;
        let (mut chunks, mut owners, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        let mut extras = Extras::default();
        let mut pushed = Ok(());
        self.series.for_each(|s| {
            // One that is not in the log comes there with its first sample, after the position.
            let Some(labels) = self.series.labels(s).filter(|_| pushed.is_ok()) else { return };
            let encoded = {
                let state = s.state.lock();
                if !state.is_logged() {
                    return;
                }
                let unstored = state.unstored();
                if !unstored.is_empty() {
                    owners.push((s.clone(), unstored.len()));
                    chunks.extend(unstored.iter().map(|c| (s.reference, c.clone())));
                }
                metadata.extend(state.metadata().map(|m| (s.reference, m.clone())));
                let open = state.open_now();
                record::encode_series(s.reference, &labels, open.as_ref().map(|(c, newest)| (c, *newest)))
            };
            extras.series += 1;
            pushed = out.push(encoded);
        });
        pushed?;
        // Finished chunks are in the files, and what they and the snapshot have is in the log, before the snapshot counts.
        self.store_all(&chunks, owners)?;
        drop(chunks);
        self.wal.sync()?;
        dir::sync(&self.snapshots.root)?;
        out.push(record::encode_tombstones(&self.tombstones()))?;
        let exemplars: Vec<_> = self.exemplars.lock().iter().cloned().collect();
        let is_there = |r: SeriesRef| self.series.get(r).is_some_and(|s| s.state.lock().is_logged());
        let exemplars: Vec<_> = exemplars.into_iter().filter(|(r, _)| is_there(*r)).collect();
        for part in exemplars.chunks(PER_RECORD_MAX) {
            out.push(record::encode_exemplars(part))?;
        }
        out.finish()?;
        self.add_extras(&mut extras);
        let mut out = RecordWriter::create(&extras_dir, compression)?;
        extras.encode().into_iter().try_for_each(|r| out.push(r))?;
        out.finish()?;
        self.write_metadata(&metadata_dir, &metadata)?;
        dir::sync(&extras_dir)?;
        Ok(extras.series)
    }

    fn add_extras(&self, extras: &mut Extras) {
        extras.files = self.files.files();
        let aliases = self.aliases.iter().filter(|(_, own)| self.series.get(**own).is_some());
        extras.aliases = aliases.map(|(alias, own)| (*alias, own.0)).collect();
        extras.aliases.sort_unstable();
        extras.expiring = self.expiring.lock().iter().map(|(r, segment)| (r.0, segment)).collect();
        extras.expiring.sort_unstable();
        extras.last_ref = self.series.last_ref();
    }

    fn write_metadata(&self, to: &Path, metadata: &[(SeriesRef, Arc<Metadata>)]) -> Result<(), StorageError> {
        let mut out = RecordWriter::create(to, self.wal.compression())?;
        for part in metadata.chunks(PER_RECORD_MAX) {
            let part: Vec<_> = part.iter().map(|(r, m)| (*r, (**m).clone())).collect();
            out.push(encode_metadata(&part))?;
        }
        out.finish()
    }
}
