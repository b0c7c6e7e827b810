//! What the head does when a file under it is damaged while it runs: each of the log and the files of head chunks has what the
//! other one, or memory, lost.
//!
//! A damaged log: a checkpoint gets from memory what segments that go should have held ([`Head::log_memory`]). A damaged chunk in a
//! file: the log has its samples ([`Head::mend_chunks`]). At a start `replay` does both in its own ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{HistogramValue, Sample, SampleValue, Samples, SeriesRef, StorageError, WalRecord};

use super::Head;
use super::head_chunks::StoredChunk;
use super::isolation::Snapshot;
use super::series::{HeadChunk, MemSeries, to_model};
use crate::chunk;
use crate::wal::checkpoint::{self, RecordWriter};
use crate::wal::{Record, record, segment};

/// Entries in one record.
const PER_RECORD_MAX: usize = 5000;

/// A chunk in a file that cannot be read, and what the log has of it: time to start and value.
struct Lost {
    series: Arc<MemSeries>,
    stored: StoredChunk,
    found: BTreeMap<i64, (i64, SampleValue)>,
}

impl Head {
    /// Writes records of all that the head has from `mint` on: series that are not `known`, what is deleted, samples in order,
    /// metadata, exemplars. A replay of what is logged later finds these samples there already. Late samples are in their own log.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub(super) fn log_memory(
        &self,
        mint: i64,
        known: &BTreeSet<SeriesRef>,
        out: &mut RecordWriter,
    ) -> Result<(), StorageError> {
        self.mend_chunks()?;
        self.commits.wait_for_begun()?;
        let mut all: Vec<Arc<MemSeries>> = Vec::new();
        self.series.for_each(|s| {
            if s.state.lock().is_logged() {
                all.push(s.clone());
            }
        });
        let mut others: BTreeMap<SeriesRef, Vec<SeriesRef>> = BTreeMap::new();
        for (alias, own) in &self.aliases {
            others.entry(*own).or_default().push(SeriesRef(*alias));
        }
        for s in &all {
            let refs = others.get(&s.reference).into_iter().flatten().chain([&s.reference]);
            for r in refs.filter(|r| !known.contains(r)) {
                if let Some(labels) = self.series.labels(s) {
                    out.push(record::encode_series([(*r, &labels)]))?;
                }
            }
        }
        let is_there = |r: SeriesRef| self.series.get(r).is_some_and(|s| s.state.lock().is_logged());
        let mut stones = self.tombstones().list();
        stones.retain(|(r, ..)| is_there(*r));
        if !stones.is_empty() {
            out.push(record::encode_tombstones(&stones))?;
        }
        for s in &all {
            self.log_samples(s, mint, out)?;
        }
        for s in &all {
            let metadata = s.state.lock().metadata().cloned();
            if let Some(m) = metadata {
                out.push(record::encode_metadata(&[(s.reference, (*m).clone())]))?;
            }
        }
        let exemplars: Vec<_> = self.exemplars.lock().iter().cloned().collect();
        let exemplars: Vec<_> = exemplars.into_iter().filter(|(r, _)| is_there(*r)).collect();
        exemplars.chunks(PER_RECORD_MAX).try_for_each(|part| out.push(record::encode_exemplars(part)))
    }

    fn log_samples(&self, s: &MemSeries, mint: i64, out: &mut RecordWriter) -> Result<(), StorageError> {
        let mut chunks: Vec<HeadChunk> = Vec::new();
        s.state.lock().chunks((mint, i64::MAX), &Snapshot::everything(), &self.files, &mut chunks)?;
        let mut samples = Samples::new();
        for c in chunks {
            let Some(c) = to_model(c) else { continue };
            samples.clear();
            c.decode(mint, i64::MAX, &mut samples)?;
            let (mut floats, mut histograms): (Vec<_>, Vec<_>) = Default::default();
            for sample in samples.iter().filter(|s| s.timestamp_ms >= mint) {
                let (t, start) = (sample.timestamp_ms, sample.start_timestamp_ms);
                match sample.value {
                    SampleValue::Float(v) => floats.push((s.reference, t, start, v)),
                    SampleValue::Histogram(h) => histograms.push((s.reference, t, start, h)),
                }
            }
            if !floats.is_empty() {
                out.push(record::encode_started_samples(floats.iter().copied()))?;
            }
            let histograms: Vec<_> = histograms.iter().map(|(r, t, start, h)| (*r, *t, *start, h)).collect();
            for rec in record::encode_started_histograms(&histograms) {
                out.push(rec)?;
            }
        }
        Ok(())
    }

    /// Writes chunks anew that their files have lost, from the log, when one was found that cannot be read. What the log has not got
    /// either is given up, so that the rest of the head can still become a block. Does not overlap with what moves chunks.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub(crate) fn mend_chunks(&self) -> Result<(), StorageError> {
        if !self.files.take_damaged() {
            return Ok(());
        }
        let mended = self.mend_damaged_chunks();
        if mended.is_err() {
            self.files.set_damaged();
        }
        mended
    }

    fn mend_damaged_chunks(&self) -> Result<(), StorageError> {
        let mut lost: Vec<Lost> = Vec::new();
        self.series.for_each(|s| {
            let stored = s.state.lock().stored().to_vec();
            for c in stored {
                if let Err(e) = self.files.get(&c) {
                    self.metrics.head_chunk_corruptions.inc();
                    tracing::error!(error = %e, series = s.reference.0, mint = c.mint, maxt = c.maxt,
                        "a head chunk cannot be read: its samples are taken from the write-ahead log");
                    lost.push(Lost { series: s.clone(), stored: c, found: BTreeMap::new() });
                }
            }
        });
        self.files.take_damaged();
        if lost.is_empty() {
            return Ok(());
        }
        self.find_in_log(&mut lost)?;
        for l in lost {
            let mut samples = Samples::new();
            let restored = l.found.len();
            for (timestamp_ms, (start_timestamp_ms, value)) in l.found {
                samples.push(Sample { timestamp_ms, start_timestamp_ms, value });
            }
            let chunks: Vec<_> = chunk::encode(&samples, self.form.encodings)
                .into_iter()
                .map(|(mint, maxt, encoding, bytes)| {
                    (l.series.reference, HeadChunk { mint, maxt, encoding, bytes })
                })
                .collect();
            let places = self.files.write(&chunks)?;
            let new: Vec<_> = chunks
                .iter()
                .zip(places)
                .map(|((_, c), place)| StoredChunk { mint: c.mint, maxt: c.maxt, place })
                .collect();
            l.series.state.lock().replace_stored(&l.stored, &new);
            tracing::warn!(series = l.series.reference.0, samples = restored, "head chunk written anew");
        }
        Ok(())
    }

    /// Looks for the samples of chunks in the log, as a replay takes them: those that came in order.
    fn find_in_log(&self, lost: &mut [Lost]) -> Result<(), StorageError> {
        let mut by_ref: BTreeMap<SeriesRef, Vec<usize>> = BTreeMap::new();
        for (i, l) in lost.iter().enumerate() {
            by_ref.entry(l.series.reference).or_default().push(i);
        }
        let mut newest: BTreeMap<SeriesRef, i64> = BTreeMap::new();
        let mut take = |r: SeriesRef, (t, start): (i64, i64), value: SampleValue| {
            let r = self.aliases.get(&r.0).copied().unwrap_or(r);
            let Some(mine) = by_ref.get(&r) else { return };
            let newest = newest.entry(r).or_insert(i64::MIN);
            if t <= *newest {
                return;
            }
            *newest = t;
            let valid = match &value {
                SampleValue::Float(_) => true,
                SampleValue::Histogram(h) => chunk::validate(h).is_ok(),
            };
            for i in mine {
                let l = &mut lost[*i];
                if valid && (l.stored.mint..=l.stored.maxt).contains(&t) {
                    l.found.insert(t, (start, value.clone()));
                }
            }
        };
        let dir = self.wal.dir();
        let mut sources = Vec::new();
        if let Some((checkpoint, _)) = segment::last_checkpoint(dir)? {
            sources.extend(segment::list(&checkpoint)?.into_iter().map(|s| segment::path(&checkpoint, s)));
        }
        sources.extend(segment::list(dir)?.into_iter().map(|s| segment::path(dir, s)));
        let float = SampleValue::Float;
        let histogram = |h: HistogramValue| SampleValue::Histogram(h);
        // Damage there is told when the log is truncated.
        checkpoint::for_each_record(&sources, |record| {
            match record {
                Record::Data(WalRecord::Samples(list)) => {
                    list.into_iter().for_each(|(r, t, v)| take(r, (t, 0), float(v)));
                }
                Record::Data(WalRecord::StartedSamples(list)) => {
                    list.into_iter().for_each(|(r, t, start, v)| take(r, (t, start), float(v)));
                }
                Record::Data(WalRecord::Histograms(list)) => {
                    list.into_iter().for_each(|(r, t, h)| take(r, (t, 0), histogram(h)));
                }
                Record::Data(WalRecord::StartedHistograms(list)) => {
                    list.into_iter().for_each(|(r, t, start, h)| take(r, (t, start), histogram(h)));
                }
                _ => {}
            }
            Ok(())
        })
        .map(drop)
    }
}
