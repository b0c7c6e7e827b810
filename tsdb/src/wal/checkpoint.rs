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

/// Removes what an interrupted checkpoint left.
pub(crate) fn remove_temporary(dir: &Path) -> Result<(), StorageError> {
    for name in dir::list(dir)? {
        let Some(rest) = name.strip_suffix(TMP_SUFFIX) else { continue };
        if rest.starts_with(segment::CHECKPOINT_PREFIX) {
            dir::remove_all(&dir.join(name))?;
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

/// Writes records of what is in memory, given the series that the checkpoint has.
pub(crate) type FromMemory<'a> =
    dyn Fn(&BTreeSet<SeriesRef>, &mut RecordWriter) -> Result<(), StorageError> + 'a;

/// What a checkpoint is to hold.
pub(crate) struct Wanted<'a> {
    /// The last segment that it stands for.
    pub(crate) last: u32,
    /// Samples and exemplars that reach this time stay.
    pub(crate) mint: i64,
    /// Tombstones that reach this one: late samples are in a log of their own and may be older.
    pub(crate) deleted_from: i64,
    /// Series that stay.
    pub(crate) keep: &'a dyn Fn(SeriesRef) -> bool,
    /// Writes all that counts but the series that are known already. It is asked when the log is damaged.
    pub(crate) from_memory: &'a FromMemory<'a>,
}

/// Writes the checkpoint of the newest checkpoint and all segments up to `wanted.last`: series that stay, and those that samples that
/// stay need, samples, exemplars, tombstones, the newest metadata of kept series. Gives where the log is damaged: what the head has
/// in memory was written then, so that nothing is lost.
///
/// # Errors
/// When files cannot be read or written: the log is left as it is.
pub(crate) fn write(
    dir: &Path,
    compression: WalCompression,
    wanted: &Wanted<'_>,
) -> Result<Vec<StorageError>, StorageError> {
    let Wanted { last, mint, deleted_from, .. } = *wanted;
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
    let (needed, damaged) = needed_series(&sources, mint)?;
    let keep = |r: SeriesRef| (wanted.keep)(r) || needed.contains(&r);
    let mut metadata: BTreeMap<SeriesRef, Metadata> = BTreeMap::new();
    if damaged.is_empty() {
        for_each_record(&sources, |record| {
            filter(record, (mint, deleted_from), &keep, &mut metadata)
                .into_iter()
                .try_for_each(|rec| out.push(rec))
        })?;
    } else {
        // Each once, and before all samples: where a series is named again Prometheus drops what it has replayed of it.
        let mut known = BTreeSet::new();
        for_each_record(&sources, |record| {
            let Record::Data(WalRecord::Series(mut list)) = record else { return Ok(()) };
            list.retain(|(r, _)| keep(*r) && known.insert(*r));
            let series = Record::Data(WalRecord::Series(list));
            filter(series, (mint, deleted_from), &keep, &mut metadata)
                .into_iter()
                .try_for_each(|rec| out.push(rec))
        })?;
        (wanted.from_memory)(&known, &mut out)?;
    }
    let metadata: Vec<_> = metadata.into_iter().collect();
    for part in metadata.chunks(10_000) {
        out.push(record::encode_metadata(part))?;
    }
    out.finish()?;
    if dir::exists(&target) {
        dir::remove_all(&target)?;
    }
    dir::publish(&temporary, &target)?;
    Ok(damaged)
}

/// References with samples that stay, and where the log is damaged.
///
/// A reference that is no series' own any more may still have samples that stay: after a restart a series that was collected
/// and made again has two. Its record must stay with them, or the next replay would not know whose they are.
fn needed_series(
    sources: &[PathBuf],
    mint: i64,
) -> Result<(BTreeSet<SeriesRef>, Vec<StorageError>), StorageError> {
    let mut needed: BTreeSet<SeriesRef> = BTreeSet::new();
    let damaged = for_each_record(sources, |record| {
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
    Ok((needed, damaged))
}

/// Reads all good records of some segments in order; gives where others are damaged.
pub(crate) fn for_each_record(
    sources: &[PathBuf],
    mut visit: impl FnMut(Record) -> Result<(), StorageError>,
) -> Result<Vec<StorageError>, StorageError> {
    let mut damaged = Vec::new();
    for path in sources {
        let Some(mut reader) = SegmentReader::open(path)? else { continue };
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some((offset, bytes))) => match record::decode(bytes) {
                    Ok(record) => visit(record)?,
                    Err(e) => {
                        let (path, reason) = (path.clone(), format!("record does not decode: {e}"));
                        damaged.push(StorageError::Corruption { path, offset, reason });
                    }
                },
                Err(StorageError::Corruption { path, offset, reason }) => {
                    reader.skip_damage(offset)?;
                    damaged.push(StorageError::Corruption { path, offset, reason });
                }
                Err(e) => return Err(e),
            }
        }
    }
    Ok(damaged)
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
