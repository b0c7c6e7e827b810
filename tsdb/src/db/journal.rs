//! [`Journal`]: batches that come while the write-ahead log is still being replayed. Spec: docs/formats/journal.md.
//!
//! The series of the head are not known yet, so such a batch can neither be checked nor be written into the write-ahead log: a
//! second series record for a series that is there makes Prometheus drop the samples between both (decision 6). It goes into a
//! log of its own, with references of its own, and is committed to the head when the replay is through. What that finds out of order is counted
//! as always; the one who appended does not hear of it.
//!
//! Invariants: a batch is either in the journal and committed to the head later, or committed to the head; a journal on the disk
//! belongs to a start that did not get through, and is read before the one after it. Reading one twice changes nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::storage::WalTail;
use model::{
    AppendError, Appender, Exemplar, Labels, Metadata, Sample, SampleValue, SeriesRef, StorageError,
    WalPosition, WalRecord,
};
use parking_lot::{Mutex, RwLock};

use super::HeadSlot;
use crate::chunk;
use crate::config::Config;
use crate::dir;
use crate::head::Head;
use crate::head::append::HeadAppender;
use crate::metrics::LogMetrics;
use crate::wal::reader::{Progress, SegmentReader};
use crate::wal::tail::Tail;
use crate::wal::{Record, Wal, record, segment};

/// Folder of the journal, below the database's.
pub(super) const JOURNAL_DIR: &str = "journal";
/// Set in references of the journal; references of the head stay below.
const FLAG: u64 = 1 << 63;
/// Timestamp of an exemplar that has none.
const NO_TIME: i64 = i64::MIN;
/// Records read at a time.
const READ_MAX: usize = 64;
/// So often the journal is read to its end while batches still go into it; then they wait.
const ROUNDS_MAX: u32 = 100;
/// Segments are shorter than those of the write-ahead log: the one that is written is kept in memory.
const SEGMENT_LEN_BYTES_MAX: u64 = 4 << 20;
/// They wait at once when no more than this is left.
const REST_LEN_BYTES: u64 = 64 << 10;

/// The journal of one start.
pub(super) struct Journal {
    config: Config,
    dir: PathBuf,
    /// Segments of starts that did not get through.
    left: Vec<u32>,
    /// Held by batches that are being written; true once they go to the head.
    passed: RwLock<bool>,
    /// Begun with the first batch.
    log: Mutex<Option<Arc<Wal>>>,
    names: Mutex<Names>,
    metrics: LogMetrics,
}

#[cfg(test)]
mod tests;

#[derive(Default)]
struct Names {
    refs: HashMap<Labels, SeriesRef>,
    /// Number of the first of `series`. Numbers are not used again: a batch may hold some that are forgotten.
    first: u64,
    /// By number: labels, and whether the journal has them.
    series: Vec<(Labels, bool)>,
}

impl Names {
    fn get_or_create(&mut self, labels: &Labels) -> SeriesRef {
        if let Some(r) = self.refs.get(labels) {
            return *r;
        }
        let r = SeriesRef(FLAG | (self.first + self.series.len() as u64));
        self.series.push((labels.clone(), false));
        self.refs.insert(labels.clone(), r);
        r
    }

    fn get_mut(&mut self, r: SeriesRef) -> Option<&mut (Labels, bool)> {
        if r.0 & FLAG == 0 {
            return None;
        }
        self.series.get_mut(usize::try_from((r.0 & !FLAG).checked_sub(self.first)?).ok()?)
    }

    fn forget(&mut self) {
        self.first += self.series.len() as u64;
        self.refs = HashMap::new();
        self.series = Vec::new();
    }
}

impl Journal {
    pub(super) fn open(config: &Config, metrics: LogMetrics) -> Result<Self, StorageError> {
        let dir = config.dir.join(JOURNAL_DIR);
        let mut left = Vec::new();
        if dir::exists(&dir) {
            // A machine that went down while they were removed may have left holes; all was committed by then.
            segment::remove_before_hole(&dir)?;
            left = segment::list(&dir)?;
        }
        let next = left.last().map_or(0, |s| s + 1);
        // What an earlier start calls a series must not name one of this start, whatever of both can be read later.
        let names = Names { first: u64::from(next) << 32, ..Names::default() };
        Ok(Self {
            config: config.clone(),
            dir,
            left,
            passed: RwLock::new(false),
            log: Mutex::new(None),
            names: Mutex::new(names),
            metrics,
        })
    }

    fn log(&self) -> Result<Arc<Wal>, StorageError> {
        let mut log = self.log.lock();
        if let Some(log) = &*log {
            return Ok(log.clone());
        }
        dir::create_all(&self.dir)?;
        dir::sync(&self.config.dir)?;
        let wal_segment_bytes = self.config.wal_segment_bytes.min(SEGMENT_LEN_BYTES_MAX);
        let config = Config { wal_segment_bytes, ..self.config.clone() };
        let begun = Wal::create(&self.dir, &config, self.first_segment(), self.metrics.clone())?;
        Ok(log.insert(Arc::new(begun.keeping())).clone())
    }

    fn first_segment(&self) -> u32 {
        self.left.last().map_or(0, |s| s + 1)
    }

    /// Makes durable what is in the journal, also of starts before. What has been committed to the head is the write-ahead log's.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        let passed = self.passed.read();
        let is_empty = self.left.is_empty() && self.log.lock().is_none();
        if *passed || is_empty { Ok(()) } else { self.log()?.sync() }
    }

    /// Syncs the journal and refuses further batches.
    pub(super) fn close(&self) -> Result<(), StorageError> {
        self.sync()?;
        let log = self.log.lock().clone();
        log.filter(|_| !*self.passed.read()).map_or(Ok(()), |log| log.close())
    }

    /// Commits everything to the head, then calls `pass`, from where on batches go to the head; none is between. The journal is
    /// gone when this returns.
    pub(super) fn pass_to(
        &self,
        head: &Arc<Head>,
        progress: &Progress,
        pass: impl FnOnce(),
    ) -> Result<(), StorageError> {
        let mut target = Target::new(head);
        for s in &self.left {
            self.commit_left(*s, &mut target, progress)?;
        }
        let mut tail = None;
        let mut rounds = 0;
        let mut passed = loop {
            #[cfg(test)]
            progress.gate.pass();
            self.commit_new(&mut tail, &mut target, progress)?;
            rounds += 1;
            let end = self.log.lock().as_ref().map(|log| log.end());
            let near = match (&tail, end) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some((t, _)), Some(end)) => {
                    let at = t.position();
                    at.segment == end.segment && end.offset.saturating_sub(at.offset) <= REST_LEN_BYTES
                }
            };
            if near || rounds == ROUNDS_MAX {
                break self.passed.write();
            }
        };
        self.commit_new(&mut tail, &mut target, progress)?;
        pass();
        *passed = true;
        drop(passed);
        self.names.lock().forget();
        head.wal.sync()?;
        head.sync_late()?;
        if dir::exists(&self.dir) {
            dir::remove_all(&self.dir)?;
            dir::sync(&self.config.dir)?;
        }
        Ok(())
    }

    /// Commits what has come since the last call. `tail` goes with how many segments had been written anew when it was opened.
    fn commit_new(
        &self,
        tail: &mut Option<(Tail, u64)>,
        target: &mut Target<'_>,
        progress: &Progress,
    ) -> Result<(), StorageError> {
        let Some(log) = self.log.lock().clone() else { return Ok(()) };
        let (tail, rewritten) = match tail {
            Some(tail) => tail,
            None => {
                let start = WalPosition { segment: self.first_segment(), offset: 0 };
                let rewritten = log.rewritten();
                tail.insert((Tail::open(log.clone(), Some(start))?, rewritten))
            }
        };
        let mut records = Vec::new();
        loop {
            progress.check()?;
            let (position, gap) = (tail.position(), tail.gap());
            tail.read(READ_MAX, &mut records)?;
            if tail.gap() != gap {
                // Perhaps an fsync is failing, and what it was to write has been thrown away: the log writes it anew.
                log.sync()?;
            }
            if log.rewritten() != *rewritten {
                // What was read may be what was thrown away, which may look like the end of a segment.
                records.clear();
                *rewritten = log.rewritten();
                *tail = Tail::open(log.clone(), Some(position))?;
                continue;
            }
            if records.is_empty() {
                return Ok(());
            }
            records.drain(..).try_for_each(|r| target.commit(r))?;
        }
    }

    /// Commits a segment of a start that did not get through. Its end may be torn: no batch there was acknowledged. Damage costs what it
    /// hit.
    fn commit_left(&self, s: u32, target: &mut Target<'_>, progress: &Progress) -> Result<(), StorageError> {
        let path = segment::path(&self.dir, s);
        let Some(mut reader) = SegmentReader::open(&path)? else { return Ok(()) };
        loop {
            #[cfg(test)]
            progress.gate.pass();
            progress.check()?;
            let (offset, decoded) = match reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some((offset, bytes))) => (offset, record::decode(bytes)),
                Err(e @ StorageError::Corruption { .. }) => {
                    target.head.count_corruption();
                    tracing::error!(error = %e, "journal of an interrupted start: a batch is lost");
                    if let StorageError::Corruption { offset, .. } = e {
                        reader.skip_damage(offset)?;
                    }
                    continue;
                }
                Err(e) => return Err(e),
            };
            match decoded {
                Ok(Record::Data(r)) => target.commit(r)?,
                Ok(_) => {}
                Err(e) => {
                    target.head.count_corruption();
                    tracing::error!(error = e, path = %path.display(), offset,
                        "journal of an interrupted start: a record does not decode, a batch is lost");
                }
            }
        }
    }
}

/// Commits records of the journal to the head.
struct Target<'a> {
    head: &'a Arc<Head>,
    /// By reference in the journal: labels, and the head's reference once it is known.
    series: HashMap<SeriesRef, (Labels, SeriesRef)>,
}

impl<'a> Target<'a> {
    fn new(head: &'a Arc<Head>) -> Self {
        Self { head, series: HashMap::new() }
    }

    fn commit(&mut self, record: WalRecord) -> Result<(), StorageError> {
        let mut a = HeadAppender::new(self.head.clone());
        let mut sample = |r, t, start, value| {
            // The journal has a series before what names it; without it, its beginning is torn off.
            let Some((labels, known)) = self.series.get_mut(&r) else { return Ok(()) };
            let sample = Sample { timestamp_ms: t, start_timestamp_ms: start, value };
            match a.append(*known, labels, sample) {
                Ok(r) => *known = r,
                Err(AppendError::Storage(e)) => return Err(e),
                // Counted; the one who appended is gone.
                Err(_) => {}
            }
            Ok(())
        };
        match record {
            WalRecord::Series(list) => {
                self.series.extend(list.into_iter().map(|(r, l)| (r, (l, SeriesRef::NONE))));
                return Ok(());
            }
            WalRecord::Samples(list) => {
                list.into_iter().try_for_each(|(r, t, v)| sample(r, t, 0, SampleValue::Float(v)))?;
            }
            WalRecord::StartedSamples(list) => {
                list.into_iter().try_for_each(|(r, t, s, v)| sample(r, t, s, SampleValue::Float(v)))?;
            }
            WalRecord::Histograms(list) => {
                list.into_iter().try_for_each(|(r, t, h)| sample(r, t, 0, SampleValue::Histogram(h)))?;
            }
            WalRecord::StartedHistograms(list) => {
                list.into_iter().try_for_each(|(r, t, s, h)| sample(r, t, s, SampleValue::Histogram(h)))?;
            }
            WalRecord::Exemplars(list) => {
                for (r, mut e) in list {
                    e.timestamp_ms = e.timestamp_ms.filter(|t| *t != NO_TIME);
                    if let Some((_, known)) = self.series.get(&r) {
                        let _ = a.append_exemplar(*known, &e); // Counted.
                    }
                }
            }
            WalRecord::Metadata(list) => {
                for (r, m) in list {
                    if let Some((_, known)) = self.series.get(&r) {
                        let _ = a.append_metadata(*known, &m); // Unknown: no sample of the series was taken.
                    }
                }
            }
        }
        Box::new(a).commit()
    }
}

/// A batch for the journal, or for the head when that is there by the time of the commit.
pub(super) struct JournalAppender {
    journal: Arc<Journal>,
    head: Arc<HeadSlot>,
    samples: Vec<(SeriesRef, Sample)>,
    exemplars: Vec<(SeriesRef, Exemplar)>,
    metadata: Vec<(SeriesRef, Metadata)>,
    /// Labels of the series of the batch.
    labels: HashMap<SeriesRef, Labels>,
}

impl JournalAppender {
    pub(super) fn new(journal: Arc<Journal>, head: Arc<HeadSlot>) -> Self {
        let (samples, exemplars, metadata, labels) = Default::default();
        Self { journal, head, samples, exemplars, metadata, labels }
    }

    fn know(&mut self, series: SeriesRef) -> Result<(), AppendError> {
        if !self.labels.contains_key(&series) {
            let mut names = self.journal.names.lock();
            let (labels, _) = names.get_mut(series).ok_or(AppendError::UnknownRef)?;
            self.labels.insert(series, labels.clone());
        }
        Ok(())
    }

    /// The records of the batch, and the series that they make known.
    fn records(&self) -> (Vec<Vec<u8>>, Vec<SeriesRef>) {
        let mut new: Vec<SeriesRef> = {
            let mut names = self.journal.names.lock();
            let is_new = |r: &SeriesRef| names.get_mut(*r).is_some_and(|(_, logged)| !*logged);
            self.labels.keys().copied().filter(is_new).collect()
        };
        new.sort_unstable();
        let mut out = Vec::new();
        if !new.is_empty() {
            out.push(record::encode_series(new.iter().map(|r| (*r, &self.labels[r]))));
        }
        let floats = self.samples.iter().filter_map(|(r, s)| match &s.value {
            SampleValue::Float(v) => Some((*r, s.timestamp_ms, s.start_timestamp_ms, *v)),
            SampleValue::Histogram(_) => None,
        });
        if floats.clone().next().is_some() {
            out.push(record::encode_started_samples(floats));
        }
        let histograms = self.samples.iter().filter_map(|(r, s)| match &s.value {
            SampleValue::Histogram(h) => Some((*r, s.timestamp_ms, s.start_timestamp_ms, h)),
            SampleValue::Float(_) => None,
        });
        out.extend(record::encode_started_histograms(&histograms.collect::<Vec<_>>()));
        // The head takes metadata and exemplars only of series that it knows.
        if !self.metadata.is_empty() {
            out.push(record::encode_metadata(&self.metadata));
        }
        if !self.exemplars.is_empty() {
            out.push(record::encode_exemplars(&self.exemplars));
        }
        (out, new)
    }

    /// Commits the batch to the head, which is there now.
    fn forward(self) -> Result<(), StorageError> {
        let mut a = HeadAppender::new((**self.head).clone());
        let mut known: HashMap<SeriesRef, SeriesRef> = HashMap::new();
        for (r, sample) in self.samples {
            let series = known.entry(r).or_default();
            match a.append(*series, &self.labels[&r], sample) {
                Ok(r) => *series = r,
                Err(AppendError::Storage(e)) => return Err(e),
                Err(_) => {}
            }
        }
        for (r, m) in self.metadata {
            let _ = a.append_metadata(known.get(&r).copied().unwrap_or_default(), &m);
        }
        for (r, mut e) in self.exemplars {
            e.timestamp_ms = e.timestamp_ms.filter(|t| *t != NO_TIME);
            let _ = a.append_exemplar(known.get(&r).copied().unwrap_or_default(), &e);
        }
        Box::new(a).commit()
    }
}

impl Appender for JournalAppender {
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        mut sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        if let SampleValue::Histogram(h) = &sample.value {
            chunk::validate(h).map_err(AppendError::InvalidHistogram)?;
        }
        if !self.journal.config.store_start_timestamps {
            sample.start_timestamp_ms = 0;
        }
        let series = if series != SeriesRef::NONE && self.know(series).is_ok() {
            series
        } else if labels.is_empty() {
            return Err(AppendError::InvalidLabels("no labels".into()));
        } else {
            let series = self.journal.names.lock().get_or_create(labels);
            self.labels.entry(series).or_insert_with(|| labels.clone());
            series
        };
        self.samples.push((series, sample));
        Ok(series)
    }

    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) -> Result<(), AppendError> {
        self.know(series)?;
        self.samples.push((series, Sample::float(timestamp_ms, value)));
        Ok(())
    }

    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        self.know(series)?;
        let of_batch = || self.samples.iter().rev().find(|(r, _)| *r == series).map(|(_, s)| s.timestamp_ms);
        let timestamp_ms = exemplar.timestamp_ms.or_else(of_batch).unwrap_or(NO_TIME);
        self.exemplars.push((series, Exemplar { timestamp_ms: Some(timestamp_ms), ..exemplar.clone() }));
        Ok(())
    }

    fn append_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        self.know(series)?;
        self.metadata.push((series, metadata.clone()));
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let journal = self.journal.clone();
        let passed = journal.passed.read();
        if *passed {
            drop(passed);
            return self.forward();
        }
        let (records, new) = self.records();
        if records.is_empty() {
            return Ok(());
        }
        journal.log()?.log(records)?;
        let mut names = journal.names.lock();
        for r in new {
            if let Some((_, logged)) = names.get_mut(r) {
                *logged = true;
            }
        }
        Ok(())
    }

    fn rollback(self: Box<Self>) {}
}
