//! Sealing: open samples become chunks in `raw`.
//!
//! A round takes, per series, the samples up to one sequence (the watermark), merges them with the sealed chunks they
//! fall into, and writes chunks, deletions and the new `sealed` sequence as one RocksDB write. Only then they leave
//! memory. The watermark never passes a reader, so that what is sealed is visible to everyone, and a reader who looks at
//! open samples first and at chunks second finds each sample at least once; the merge makes that once.

use model::{Samples, StorageError};
use rocksdb::WriteBatch;

use super::Inner;
use super::chunk::{SMALL_CHUNK_SAMPLES, chunk_head, decode_stored, encode, page_len};
use super::chunk_rows::{ChunkBatch, ChunkRows};
use super::families::{META, RAW, SEALED};
use super::keys::{
    Month, MonthCursor, SAMPLE_KEY_LEN_BYTES, month_end_ms, month_name, parse_sample_key, sample_key,
};
use super::write::Durable;

/// Open samples of one series above which it is sealed before its time.
pub(super) const MAX_OPEN_SAMPLES: usize = 16 * 1024;
/// Samples and series of one round, which is one RocksDB write.
const ROUND_SAMPLES: usize = 128 * 1024;
const ROUND_SERIES: usize = 512;
/// A reader that goes on for longer no longer holds sealing back. It may then see samples of batches that came after it.
const READER_PATIENCE_MS: i64 = 300_000;

/// What sealing did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SealStats {
    /// Open samples taken.
    pub(super) taken: u64,
    /// Chunks, samples and bytes written.
    pub(super) chunks: u64,
    pub(super) samples: u64,
    pub(super) bytes: u64,
    /// Samples dropped because their timestamp had another value.
    pub(super) conflicts: u64,
    /// Damaged chunks moved aside.
    pub(super) damaged: u64,
}

/// Open samples of one series on their way into chunks.
struct Taken {
    slot: u32,
    id: u64,
    /// Samples of the log these are; more than `samples` when timestamps repeat.
    log_len: usize,
    samples: Samples,
}

/// A sealed chunk that new samples may fall into.
struct Sealed {
    key: [u8; SAMPLE_KEY_LEN_BYTES],
    start: i64,
    maxt: i64,
    samples: usize,
    bytes: Vec<u8>,
}

impl Inner {
    /// Seals the open samples of some slots, as far as readers allow. The maintenance lock is held.
    pub(super) fn seal(&self, slots: &[u32]) -> Result<SealStats, StorageError> {
        self.seal_heeding(slots, READER_PATIENCE_MS)
    }

    /// Seals all open samples of some slots. A reader may then see samples of batches that came after it.
    pub(super) fn seal_past_readers(&self, slots: &[u32]) -> Result<SealStats, StorageError> {
        self.seal_heeding(slots, -1)
    }

    /// Seals as far as readers allow that began at most so long ago.
    fn seal_heeding(&self, slots: &[u32], patience_ms: i64) -> Result<SealStats, StorageError> {
        let mut stats = SealStats::default();
        let mut rest = slots;
        while !rest.is_empty() {
            let (taken, watermark, used) = self.take(rest, patience_ms);
            rest = &rest[used..];
            stats += self.seal_round(&taken, watermark)?;
        }
        Ok(stats)
    }

    /// Copies the open samples of the first slots; how many slots those are comes last.
    fn take(&self, slots: &[u32], patience_ms: i64) -> (Vec<Taken>, u64, usize) {
        let now_ms = self.clock.now_ms();
        let mint = self.oldest_ms(now_ms);
        let open = self.open.read();
        let oldest_reader = self.readers.oldest_seq_since(now_ms.saturating_sub(patience_ms));
        let watermark = open.published.min(oldest_reader);
        let (mut out, mut samples, mut used) = (Vec::new(), 0, 0);
        for slot in slots.iter().take(ROUND_SERIES) {
            if samples >= ROUND_SAMPLES {
                break;
            }
            used += 1;
            let Some(series) = open.get(*slot) else { continue };
            let log_len = series.visible_len(watermark);
            if log_len > 0 {
                samples += log_len;
                let samples = series.copy(log_len, mint, i64::MAX);
                out.push(Taken { slot: *slot, id: series.id, log_len, samples });
            }
        }
        // Chunks of neighbours are read and written together.
        out.sort_unstable_by_key(|t| t.id);
        (out, watermark, used)
    }

    fn seal_round(&self, taken: &[Taken], watermark: u64) -> Result<SealStats, StorageError> {
        let mut stats = SealStats::default();
        if taken.is_empty() {
            return Ok(stats);
        }
        let mut out = ChunkBatch::default();
        let sealed = self.cf(SEALED);
        let mut raw = self.chunk_rows();
        for t in taken {
            self.seal_series(&mut raw, t, &mut out, &mut stats)?;
            out.batch.put_cf(&sealed, t.id.to_be_bytes(), watermark.to_be_bytes());
            stats.taken += t.log_len as u64;
        }
        // Not synced: until it is durable the journal has everything, and the journal is cut with a sync.
        let batch = self.finish_chunks(out)?;
        self.write("seal into", batch, Durable::Later)?;
        let now_ms = self.clock.now_ms();
        let mut open = self.open.write();
        for t in taken {
            open.drain(t.slot, t.log_len, watermark, now_ms);
        }
        self.metrics.show_open(&open);
        drop(open);
        self.metrics.sealed_chunks.inc_by(stats.chunks);
        self.metrics.sealed_samples.inc_by(stats.samples);
        self.metrics.sealed_bytes.inc_by(stats.bytes);
        self.metrics.conflicts.inc_by(stats.conflicts);
        Ok(stats)
    }

    fn seal_series(
        &self,
        raw: &mut ChunkRows<'_>,
        taken: &Taken,
        out: &mut ChunkBatch,
        stats: &mut SealStats,
    ) -> Result<(), StorageError> {
        let ts = &taken.samples.timestamps_ms;
        let mut cursor = MonthCursor::new();
        let mut from = 0;
        while from < ts.len() {
            let month = cursor.month_of(ts[from]);
            let to = from + ts[from..].partition_point(|t| *t < month_end_ms(month));
            self.seal_month(raw, month, taken.id, &taken.samples, from..to, out, stats)?;
            from = to;
        }
        Ok(())
    }

    /// Seals the samples `range`, all of one month: those between the starts of two sealed chunks belong to the first.
    #[allow(clippy::too_many_arguments, reason = "the loop of one caller, cut out")]
    fn seal_month(
        &self,
        raw: &mut ChunkRows<'_>,
        month: Month,
        id: u64,
        samples: &Samples,
        range: std::ops::Range<usize>,
        out: &mut ChunkBatch,
        stats: &mut SealStats,
    ) -> Result<(), StorageError> {
        let ts = &samples.timestamps_ms;
        let last = ts[range.end - 1];
        let damaged = stats.damaged;
        let mut current = self.chunk_before(raw, month, id, ts[range.start])?;
        let mut at = range.start;
        while at < range.end {
            let next_start = next_start(raw, month, id).filter(|t| *t <= last);
            let end = next_start.map_or(range.end, |t| at + ts[at..range.end].partition_point(|x| *x < t));
            if at < end {
                self.seal_group(raw, (month, id), current.take(), samples, at..end, out, stats)?;
            }
            at = end;
            if next_start.is_some() {
                current = Self::read_chunk(raw);
                raw.next();
            }
        }
        if stats.damaged > damaged {
            self.drop_rollups(month, id, &mut out.batch);
            return Ok(());
        }
        self.roll_up(raw, (month, id), samples, range, &mut out.batch)
    }

    /// The last chunk that starts at or before `t`; leaves the iterator at the chunk behind it.
    fn chunk_before(
        &self,
        raw: &mut ChunkRows<'_>,
        month: Month,
        id: u64,
        t: i64,
    ) -> Result<Option<Sealed>, StorageError> {
        raw.seek_for_prev(sample_key(month, id, t));
        raw.status().map_err(|e| self.raw_error(month, id, t, &e))?;
        if raw.key().and_then(parse_sample_key).is_some_and(|(m, i, _)| (m, i) == (month, id)) {
            let chunk = Self::read_chunk(raw);
            raw.next();
            return Ok(chunk);
        }
        raw.seek(sample_key(month, id, 0));
        raw.status().map_err(|e| self.raw_error(month, id, t, &e))?;
        Ok(None)
    }

    /// The chunk at the iterator.
    fn read_chunk(raw: &ChunkRows<'_>) -> Option<Sealed> {
        let (key, value) = raw.item()?;
        let (month, id, start) = parse_sample_key(key)?;
        // A damaged head counts as empty, so that it is decoded, found damaged and moved aside.
        let (maxt, samples) = chunk_head(value).map_or((start, 0), |head| (head.maxt, head.samples));
        let key = sample_key(month, id, start);
        Some(Sealed { key, start, maxt, samples, bytes: value.to_vec() })
    }

    #[allow(clippy::too_many_arguments, reason = "the loop of one caller, cut out")]
    fn seal_group(
        &self,
        raw: &mut ChunkRows<'_>,
        (month, id): (Month, u64),
        current: Option<Sealed>,
        samples: &Samples,
        range: std::ops::Range<usize>,
        out: &mut ChunkBatch,
        stats: &mut SealStats,
    ) -> Result<(), StorageError> {
        let Some(sealed) = current else {
            self.put_chunks(month, id, samples, range, out, stats);
            return Ok(());
        };
        if samples.timestamps_ms[range.start] > sealed.maxt && sealed.samples >= SMALL_CHUNK_SAMPLES {
            self.put_chunks(month, id, samples, range, out, stats);
            return Ok(());
        }
        let mut old = Samples::new();
        let read = raw.whole_of(month, &sealed.bytes).and_then(|whole| decode_stored(&whole, &mut old));
        if let Err(e) = read {
            if !is_damage(&e) {
                return Err(e);
            }
            self.quarantine(month, id, &sealed, &e, &mut out.batch);
            stats.damaged += 1;
            self.put_chunks(month, id, samples, range, out, stats);
            return Ok(());
        }
        let merged = merge(&old, samples, range, &mut stats.conflicts);
        if merged.len() > old.len() {
            out.batch.delete_cf(&self.cf(RAW), sealed.key);
            let all = 0..merged.len();
            self.put_chunks(month, id, &merged, all, out, stats);
        }
        Ok(())
    }

    pub(super) fn put_chunks(
        &self,
        month: Month,
        id: u64,
        samples: &Samples,
        range: std::ops::Range<usize>,
        out: &mut ChunkBatch,
        stats: &mut SealStats,
    ) {
        let mut at = range.start;
        while at < range.end {
            let len = page_len(samples, at, range.end);
            let chunk = encode(samples, at, at + len);
            stats.chunks += 1;
            stats.samples += len as u64;
            stats.bytes += chunk.len() as u64;
            out.put(month, id, samples.timestamps_ms[at], chunk);
            at += len;
        }
    }

    /// Moves a damaged chunk aside, so that its series goes on; the bytes stay for whoever wants to look.
    fn quarantine(&self, month: Month, id: u64, sealed: &Sealed, e: &StorageError, batch: &mut WriteBatch) {
        let error = self.chunk_error(month, id, sealed.start, &e.to_string());
        tracing::error!("damaged chunk moved aside: {error}");
        self.metrics.corruptions.inc();
        let key = [b"damaged".as_slice(), sealed.key.as_slice()].concat();
        batch.put_cf(&self.cf(META), key, &sealed.bytes);
        batch.delete_cf(&self.cf(RAW), sealed.key);
    }

    /// An error of RocksDB while reading chunks: with the series when it is damage, else as it is.
    pub(super) fn raw_error(&self, month: Month, id: u64, start: i64, e: &rocksdb::Error) -> StorageError {
        if e.kind() == rocksdb::ErrorKind::Corruption {
            self.metrics.corruptions.inc();
            return self.chunk_error(month, id, start, e.as_ref());
        }
        self.error("read chunks of", e)
    }

    /// What reading a chunk came to: damage with everything needed to find it, else as it is.
    pub(super) fn read_error(&self, month: Month, id: u64, start: i64, e: StorageError) -> StorageError {
        if is_damage(&e) { self.chunk_error(month, id, start, &e.to_string()) } else { e }
    }

    /// What is wrong with a sealed chunk, with everything needed to find it.
    pub(super) fn chunk_error(&self, month: Month, id: u64, start: i64, reason: &str) -> StorageError {
        let labels = self.read_labels(id).ok().flatten().map_or_else(String::new, |l| format!(" {l}"));
        StorageError::Corruption {
            path: self.config.dir.join(RAW),
            offset: 0,
            reason: format!("series {id}{labels}, month {}, chunk at {start}: {reason}", month_name(month)),
        }
    }
}

/// Whether bytes are at fault, and not the way to them.
fn is_damage(e: &StorageError) -> bool {
    matches!(e, StorageError::Decode { .. } | StorageError::Corruption { .. })
}

/// Start of the chunk at the iterator, when it is of this series and month.
fn next_start(raw: &ChunkRows<'_>, month: Month, id: u64) -> Option<i64> {
    let (m, i, start) = parse_sample_key(raw.key()?)?;
    ((m, i) == (month, id)).then_some(start)
}

/// Old samples and those of `range`; on equal timestamps the old one stays.
fn merge(old: &Samples, new: &Samples, range: std::ops::Range<usize>, conflicts: &mut u64) -> Samples {
    let mut out = Samples::new();
    let (mut i, mut j) = (0, range.start);
    let push = |out: &mut Samples, from: &Samples, at: usize| {
        if from.histograms.is_empty() && from.start_timestamps_ms.is_empty() {
            out.push_float(from.timestamps_ms[at], from.values[at]);
        } else {
            out.push(from.get(at));
        }
    };
    while i < old.len() || j < range.end {
        let a = old.timestamps_ms.get(i).copied().unwrap_or(i64::MAX);
        let b = if j < range.end { new.timestamps_ms[j] } else { i64::MAX };
        if i < old.len() && a <= b {
            push(&mut out, old, i);
            i += 1;
            if a == b && j < range.end {
                *conflicts += u64::from(old.get(i - 1) != new.get(j));
                j += 1;
            }
        } else {
            push(&mut out, new, j);
            j += 1;
        }
    }
    out
}

/// As sealing does it: `first` counts where both have a timestamp.
pub(super) fn merge_all(first: &Samples, second: &Samples) -> Samples {
    merge(first, second, 0..second.len(), &mut 0)
}
