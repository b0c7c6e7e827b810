//! Reads a snapshot of the head. Spec: docs/formats/snapshot.md.
//!
//! A snapshot that is not whole, or does not fit the files of head chunks and what the log has after it, is not used at all: whoever
//! finds that out begins anew, from the log alone.

use std::path::Path;

use model::{SeriesRef, StorageError, WalRecord};

use super::super::head_chunks::{FoundChunks, HeadChunks};
use super::super::series_map::RefMap;
use super::super::snapshot::record::{self, Extras, SnapshotRecord};
use super::super::snapshot::{EXTRAS_DIR, METADATA_DIR, SnapshotDir};
use super::Replay;
use super::shards::{Restored, Shards};
use crate::dir;
use crate::wal::reader::{self, Progress};
use crate::wal::{Record, segment};

/// Series handed over at a time.
const BATCH_MAX: usize = 256;

/// Records of all segments in a directory.
fn for_each_record(
    dir: &Path,
    progress: &Progress,
    mut apply: impl FnMut(&[u8]) -> Result<(), &'static str>,
) -> Result<(), StorageError> {
    let segments = segment::list(dir)?;
    if segments.first() != Some(&0) {
        let reason = "segment 0 is missing".to_owned();
        return Err(StorageError::Corruption { path: dir.to_owned(), offset: 0, reason });
    }
    segments.into_iter().try_for_each(|s| {
        match reader::read_ahead(&segment::path(dir, s), 0, progress, &mut apply)?.0.into_iter().next() {
            Some(damage) => Err(damage.error),
            None => Ok(()),
        }
    })
}

impl Replay {
    /// Restores what a snapshot holds.
    ///
    /// # Errors
    /// When it cannot be read, is not whole, or contradicts itself.
    pub(super) fn load_snapshot(
        &mut self,
        snapshot: &SnapshotDir,
        shards: &mut Shards<'_>,
        (found, files): (&FoundChunks, &HeadChunks),
        progress: &Progress,
    ) -> Result<(), StorageError> {
        let wrong =
            |reason: String| StorageError::Corruption { path: snapshot.path.clone(), offset: 0, reason };
        if found.damaged || found.unknown {
            return Err(wrong("head chunks that belong to it are not all readable".into()));
        }
        let extras_dir = snapshot.path.join(EXTRAS_DIR);
        let extras = if dir::exists(&extras_dir) { Some(read_extras(&extras_dir, progress)?) } else { None };
        let mut aliases: RefMap<Vec<u64>> = RefMap::default();
        if let Some(extras) = &extras {
            let is_lacking = |f: &&(u32, u64, i64)| f.2 >= self.min_valid && !files.has(f.0, f.1);
            if let Some((number, ..)) = extras.files.iter().find(is_lacking) {
                return Err(wrong(format!(
                    "file {number:06} of head chunks, which it needs, is missing or short"
                )));
            }
            self.series.reserve_ref(SeriesRef(extras.last_ref));
            for (alias, own) in &extras.aliases {
                aliases.entry(*own).or_default().push(*alias);
                self.aliases.insert(*alias, SeriesRef(*own));
                self.series.reserve_ref(SeriesRef(*alias));
            }
            for (r, segment) in &extras.expiring {
                self.expiring.add([SeriesRef(*r)], *segment);
            }
        }
        let (mut count, mut batch) = (0, Vec::new());
        for_each_record(&snapshot.path, progress, |bytes| {
            match record::decode(bytes)? {
                SnapshotRecord::Series(r, labels, open) => {
                    let is_taken = self.series.get(r).is_some();
                    let (series, created) = self.series.get_or_create(&labels, Some(r));
                    if is_taken || !created {
                        return Err("a series or a reference is there twice");
                    }
                    series.state.lock().set_logged();
                    let others = aliases.get(&r.0).into_iter().flatten();
                    let stored = others.flat_map(|a| found.of(SeriesRef(*a))).chain(found.of(r)).collect();
                    batch.push(Restored { reference: r.0, series, stored, open });
                    count += 1;
                    if batch.len() == BATCH_MAX {
                        shards.series(batch.drain(..));
                    }
                }
                SnapshotRecord::Tombstones(list) => self.delete(&list),
                SnapshotRecord::Exemplars(list) => self.add_exemplars(list),
            }
            Ok(())
        })?;
        shards.series(batch);
        if extras.is_none() {
            return Ok(());
        }
        if let Some(said) = extras.map(|e| e.series).filter(|said| *said != count) {
            return Err(wrong(format!("it has {count} series of {said}")));
        }
        for_each_record(&extras_dir.join(METADATA_DIR), progress, |bytes| {
            let Record::Data(WalRecord::Metadata(list)) = crate::wal::record::decode(bytes)? else {
                return Err("not metadata");
            };
            self.set_metadata(list);
            Ok(())
        })
    }
}

fn read_extras(dir: &Path, progress: &Progress) -> Result<Extras, StorageError> {
    let mut extras = Extras::default();
    let mut headers = 0;
    for_each_record(dir, progress, |bytes| {
        headers += u32::from(extras.add(bytes)?);
        Ok(())
    })?;
    if headers == 1 {
        return Ok(extras);
    }
    let reason = format!("it has {headers} headers instead of one");
    Err(StorageError::Corruption { path: dir.to_owned(), offset: 0, reason })
}
