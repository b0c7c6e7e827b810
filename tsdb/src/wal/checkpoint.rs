//! Writes a checkpoint: what still counts of segments that are about to be removed, in the same format, in a directory
//! `checkpoint.NNNNNNNN` named after the last of them. It appears by rename, whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use model::{Metadata, SeriesRef, StorageError, WalRecord};

use super::reader::SegmentReader;
use super::segment::{self, Payload, SegmentWriter, TMP_SUFFIX};
use super::{Record, record};
use crate::config::WalCompression;
use crate::dir;

/// Records are written when so many bytes are collected.
const BATCH_LEN_BYTES: usize = 1 << 20;
const SEGMENT_LEN_BYTES: u64 = 128 << 20;

/// Removes what an interrupted checkpoint, or the rewriting of a segment, left.
pub(crate) fn remove_temporary(dir: &Path) -> Result<(), StorageError> {
    for name in dir::list(dir)? {
        let Some(rest) = name.strip_suffix(TMP_SUFFIX) else { continue };
        if rest.starts_with(segment::CHECKPOINT_PREFIX) {
            dir::remove_all(&dir.join(name))?;
        } else if rest.bytes().all(|b| b.is_ascii_digit()) {
            dir::remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Removes segments and checkpoints that the newest checkpoint stands for. A machine that went down while they were removed
/// may have left any of them, with holes between, which would look like a broken log.
pub(crate) fn remove_replaced(dir: &Path) -> Result<(), StorageError> {
    let Some((_, last)) = segment::last_checkpoint(dir)? else { return Ok(()) };
    let segments = segment::numbers(dir)?.into_iter().filter(|s| *s <= last);
    let segments: Vec<_> = segments.map(|s| segment::path(dir, s)).collect();
    let checkpoints = segment::checkpoints(dir)?.into_iter().filter(|c| *c < last);
    let checkpoints: Vec<_> = checkpoints.map(|c| segment::checkpoint_path(dir, c)).collect();
    if segments.is_empty() && checkpoints.is_empty() {
        return Ok(());
    }
    // The checkpoint is seen, but its name may not be on the disk yet.
    dir::sync(dir)?;
    segments.iter().try_for_each(|s| dir::remove_file(s))?;
    checkpoints.iter().try_for_each(|c| dir::remove_all(c))?;
    dir::sync(dir)
}

/// Writes the checkpoint of the newest checkpoint and all segments up to `last`. Stays: series for which `keep` holds,
/// samples and exemplars that reach `mint`, tombstones that reach `deleted_from` (late samples are in a log of their own and may
/// be older), the newest metadata of kept series.
///
/// # Errors
/// When files cannot be read or written, or are corrupt: the head knows the samples, so the log is left as it is.
pub(crate) fn write(
    dir: &Path,
    last: u32,
    (mint, deleted_from): (i64, i64),
    compression: WalCompression,
    keep: &dyn Fn(SeriesRef) -> bool,
) -> Result<(), StorageError> {
    remove_temporary(dir)?;
    let mut sources = Vec::new();
    let mut from = 0;
    if let Some((checkpoint, n)) = segment::last_checkpoint(dir)? {
        sources.extend(segment::list(&checkpoint)?.into_iter().map(|s| segment::path(&checkpoint, s)));
        from = n + 1;
    }
    let segments = segment::list(dir)?.into_iter().filter(|s| (from..=last).contains(s));
    sources.extend(segments.map(|s| segment::path(dir, s)));

    let target = segment::checkpoint_path(dir, last);
    let temporary = target.with_file_name(format!("{}{last:08}{TMP_SUFFIX}", segment::CHECKPOINT_PREFIX));
    dir::create_all(&temporary)?;
    let mut out = RecordWriter::create(&temporary, compression)?;
    // A reference that is no series' own any more may still have samples that stay: after a restart a series that was
    // collected and made again has two. Its record must stay with them, or the next replay would not know whose they are.
    let mut needed: BTreeSet<SeriesRef> = BTreeSet::new();
    for_each_record(&sources, |record| {
        match &record {
            Record::Data(WalRecord::Samples(s)) => {
                needed.extend(s.iter().filter(|s| s.1 >= mint).map(|s| s.0))
            }
            Record::Data(WalRecord::Histograms(s)) => {
                needed.extend(s.iter().filter(|s| s.1 >= mint).map(|s| s.0))
            }
            Record::Data(WalRecord::StartedSamples(s)) => {
                needed.extend(s.iter().filter(|s| s.1 >= mint).map(|s| s.0))
            }
            Record::Data(WalRecord::StartedHistograms(s)) => {
                needed.extend(s.iter().filter(|s| s.1 >= mint).map(|s| s.0))
            }
            _ => {}
        }
        Ok(())
    })?;
    let keep = |r: SeriesRef| keep(r) || needed.contains(&r);
    let mut metadata: BTreeMap<SeriesRef, Metadata> = BTreeMap::new();
    for_each_record(&sources, |record| {
        filter(record, (mint, deleted_from), &keep, &mut metadata)
            .into_iter()
            .try_for_each(|rec| out.push(rec))
    })?;
    let metadata: Vec<_> = metadata.into_iter().collect();
    for part in metadata.chunks(10_000) {
        out.push(record::encode_metadata(part))?;
    }
    out.finish()?;
    if dir::exists(&target) {
        dir::remove_all(&target)?;
    }
    dir::publish(&temporary, &target)
}

/// Reads all records of some segments in order.
fn for_each_record(
    sources: &[PathBuf],
    mut visit: impl FnMut(Record) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    for path in sources {
        let Some(mut reader) = SegmentReader::open(path)? else { continue };
        while let Some((offset, bytes)) = reader.next()? {
            visit(record::decode(bytes).map_err(|e| StorageError::Corruption {
                path: path.clone(),
                offset,
                reason: format!("record does not decode: {e}"),
            })?)?;
        }
    }
    Ok(())
}

/// What stays of a record.
fn filter(
    decoded: Record,
    (mint, deleted_from): (i64, i64),
    keep: &dyn Fn(SeriesRef) -> bool,
    metadata: &mut BTreeMap<SeriesRef, Metadata>,
) -> Vec<Vec<u8>> {
    fn unless_empty<T>(list: &[T], encode: impl FnOnce(&[T]) -> Vec<u8>) -> Vec<Vec<u8>> {
        if list.is_empty() { Vec::new() } else { vec![encode(list)] }
    }
    match decoded {
        Record::Data(WalRecord::Series(mut s)) => {
            s.retain(|(r, _)| keep(*r));
            unless_empty(&s, |s| record::encode_series(s.iter().map(|(r, l)| (*r, l))))
        }
        Record::Data(WalRecord::Samples(mut s)) => {
            s.retain(|(_, t, _)| *t >= mint);
            unless_empty(&s, record::encode_samples)
        }
        Record::Data(WalRecord::Histograms(mut s)) => {
            s.retain(|(_, t, _)| *t >= mint);
            record::encode_histograms(&s)
        }
        Record::Data(WalRecord::StartedSamples(mut s)) => {
            s.retain(|(_, t, ..)| *t >= mint);
            unless_empty(&s, |s| record::encode_started_samples(s.iter().copied()))
        }
        Record::Data(WalRecord::StartedHistograms(s)) => {
            let kept: Vec<_> =
                s.iter().filter(|s| s.1 >= mint).map(|(r, t, start, h)| (*r, *t, *start, h)).collect();
            record::encode_started_histograms(&kept)
        }
        Record::Data(WalRecord::Exemplars(mut s)) => {
            s.retain(|(_, e)| e.timestamp_ms.unwrap_or(0) >= mint);
            unless_empty(&s, record::encode_exemplars)
        }
        Record::Data(WalRecord::Metadata(s)) => {
            metadata.extend(s.into_iter().filter(|(r, _)| keep(*r)));
            Vec::new()
        }
        Record::Tombstones(mut s) => {
            s.retain(|(r, _, maxt)| *maxt >= deleted_from && keep(*r));
            unless_empty(&s, record::encode_tombstones)
        }
        Record::Unknown => Vec::new(),
    }
}

/// Writes records into segments in a directory of their own.
pub(crate) struct RecordWriter {
    writer: SegmentWriter,
    batch: Vec<Payload>,
    batch_len_bytes: usize,
    compression: WalCompression,
}

impl RecordWriter {
    /// Begins in a directory without segments.
    pub(crate) fn create(dir: &Path, compression: WalCompression) -> Result<Self, StorageError> {
        let writer = SegmentWriter::create(dir, 0, SEGMENT_LEN_BYTES)?;
        Ok(Self { writer, batch: Vec::new(), batch_len_bytes: 0, compression })
    }

    pub(crate) fn push(&mut self, record: Vec<u8>) -> Result<(), StorageError> {
        self.batch_len_bytes += record.len();
        self.batch.push(Payload::new(record, self.compression));
        if self.batch_len_bytes >= BATCH_LEN_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if self.writer.is_full_for(&self.batch) {
            self.writer.cut()?.0.sync()?;
        }
        self.writer.write(&self.batch).map_err(|(e, _)| e)?;
        self.batch.clear();
        self.batch_len_bytes = 0;
        Ok(())
    }

    /// Makes all records durable.
    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        self.flush()?;
        self.writer.out.sync()
    }
}
