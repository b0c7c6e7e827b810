//! [`HeadAppender`]: collects a batch, then logs and applies it.
//!
//! A sample is checked against its series twice: when it is appended, so that the caller hears why it is refused, and
//! again when the batch is applied, because other batches may have come in between. What the second check refuses is
//! counted and left out. Several samples of one series in one batch must rise in time; of those that do not, only the
//! second check hears.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::histogram::CounterResetHint;
use model::{
    AppendError, Appender, Exemplar, FloatHistogram, Histogram, HistogramValue, Labels, Metadata, Sample,
    SampleValue, SeriesRef, StorageError,
};

use super::Head;
use super::exemplars::Added;
use super::out_of_order::Bounds;
use super::series::{MemSeries, Outcome, Shape};
use crate::chunk;
use crate::wal::record;

/// Samples in one record at most, so that records stay far below the largest one taken.
const RECORD_SAMPLES_MAX: usize = 1_000_000;

/// Why a sample is refused; `None` when it is not.
fn refused(outcome: Outcome) -> Option<AppendError> {
    match outcome {
        Outcome::OutOfOrder => Some(AppendError::OutOfOrder),
        Outcome::OutOfBounds => Some(AppendError::OutOfBounds),
        Outcome::TooOld => Some(AppendError::TooOld),
        Outcome::Duplicate => Some(AppendError::DuplicateTimestamp),
        Outcome::Stored
        | Outcome::StoredInNewChunk
        | Outcome::Late
        | Outcome::LateInNewChunk
        | Outcome::Same => None,
    }
}

impl Head {
    fn count_refused(&self, outcome: Outcome, kind: &str) {
        let m = &self.metrics;
        let counter = match outcome {
            Outcome::OutOfOrder => &m.out_of_order,
            Outcome::OutOfBounds => &m.out_of_bounds,
            Outcome::TooOld => &m.too_old,
            Outcome::Duplicate => &m.duplicates,
            _ => return,
        };
        counter.with_label_values(&[kind]).inc();
    }

    /// Shows by how much a sample is late, whether it is taken or not.
    fn show_lateness(&self, t: i64, bounds: &Bounds, outcome: Outcome) {
        let late = bounds.max_time.saturating_sub(t);
        if late > 0 && !matches!(outcome, Outcome::Duplicate | Outcome::OutOfBounds) {
            self.metrics.lateness.observe(late as f64 / 1000.0);
        }
    }
}

/// Whether a value is neither a histogram nor a stale marker.
#[inline]
fn is_plain(value: &SampleValue) -> bool {
    matches!(value, SampleValue::Float(v) if !model::is_stale_nan(*v))
}

/// Label of the counters by type.
fn type_of(value: &SampleValue) -> &'static str {
    match value {
        SampleValue::Float(_) => "float",
        SampleValue::Histogram(_) => "histogram",
    }
}

/// A sample of a batch.
struct BatchSample {
    series: Arc<MemSeries>,
    t: i64,
    /// 0: none.
    start: i64,
    value: SampleValue,
}

/// The records of samples.
fn sample_records(samples: &[BatchSample], out: &mut Vec<Vec<u8>>) {
    for part in samples.chunks(RECORD_SAMPLES_MAX) {
        let mut histograms = Vec::new();
        for s in part {
            if let SampleValue::Histogram(h) = &s.value {
                histograms.push((s.series.reference, s.t, s.start, h));
            }
        }
        if histograms.len() < part.len() {
            out.push(record::encode_started_samples(part.iter().filter_map(|s| match &s.value {
                SampleValue::Float(v) => Some((s.series.reference, s.t, s.start, *v)),
                SampleValue::Histogram(_) => None,
            })));
        }
        out.extend(record::encode_started_histograms(&histograms));
    }
}

impl Head {
    /// Writes late samples, which are applied, to their log.
    ///
    /// # Errors
    /// When they could not be written; they are with the next batch then, or with [`Head::sync_late`].
    fn log_late(&self, late: &[BatchSample]) -> Result<(), StorageError> {
        let mut records = Vec::new();
        sample_records(late, &mut records);
        let (mint, maxt) = late.iter().fold((i64::MAX, i64::MIN), |(a, b), s| (a.min(s.t), b.max(s.t)));
        self.saw_late(mint, maxt);
        for s in late {
            self.metrics.late_appended.with_label_values(&[type_of(&s.value)]).inc();
        }
        // A replay of the log of all samples would not take them, so they are not acknowledged without this one.
        self.log_late_records(records)
    }
}

/// A batch for the head.
pub(crate) struct HeadAppender {
    head: Arc<Head>,
    bounds: Bounds,
    samples: Vec<BatchSample>,
    /// Series with samples in the batch that were not in the log then, with their labels where these are at hand.
    unlogged: Vec<(Arc<MemSeries>, Option<Labels>)>,
    exemplars: Vec<(Arc<MemSeries>, Exemplar)>,
    metadata: Vec<(Arc<MemSeries>, Metadata)>,
}

impl HeadAppender {
    pub(crate) fn new(head: Arc<Head>) -> Self {
        let bounds = head.bounds();
        head.metrics.appenders_created.inc();
        head.metrics.appenders_active.inc();
        Self {
            head,
            bounds,
            samples: Vec::new(),
            unlogged: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
        }
    }

    fn known(&self, series: SeriesRef) -> Result<Arc<MemSeries>, AppendError> {
        self.head.series.get(series).ok_or_else(|| {
            self.head.metrics.series_not_found.inc();
            AppendError::UnknownRef
        })
    }

    /// Takes a sample for a series that is known; false when the series has been removed meanwhile.
    fn add(
        &mut self,
        series: Arc<MemSeries>,
        (t, start, mut value): (i64, i64, SampleValue),
        labels: Option<&Labels>,
    ) -> Result<bool, AppendError> {
        let outcome = {
            let mut state = series.state.lock();
            if state.is_removed() {
                return Ok(false);
            }
            value = state.of_same_kind(value);
            let outcome = state.check(t, &value, &self.bounds);
            if matches!(outcome, Outcome::Stored | Outcome::Late) {
                state.pin();
                if !state.is_logged() {
                    self.unlogged.push((series.clone(), labels.cloned()));
                }
            }
            outcome
        };
        match outcome {
            Outcome::Same => return Ok(true),
            Outcome::Stored | Outcome::StoredInNewChunk => {}
            refused_or_late => {
                self.head.show_lateness(t, &self.bounds, refused_or_late);
                if let Some(e) = refused(refused_or_late) {
                    self.head.count_refused(refused_or_late, type_of(&value));
                    return Err(e);
                }
            }
        }
        self.samples.push(BatchSample { series, t, start, value });
        Ok(true)
    }

    fn release(&mut self) {
        for s in self.samples.drain(..) {
            s.series.state.lock().unpin();
        }
        self.unlogged.clear();
        self.exemplars.clear();
        self.metadata.clear();
    }

    /// The series of the batch that are not in the log yet, with their labels. What is said of a series that has been removed
    /// meanwhile is dropped.
    fn take_unlogged(&mut self) -> Vec<(Arc<MemSeries>, Labels)> {
        let mut unlogged = std::mem::take(&mut self.unlogged);
        let mut is_there = |s: &Arc<MemSeries>| {
            let state = s.state.lock();
            if !state.is_logged() && !state.is_removed() {
                unlogged.push((s.clone(), None));
            }
            state.is_logged() || !state.is_removed()
        };
        self.exemplars.retain(|(s, _)| is_there(s));
        self.metadata.retain(|(s, _)| is_there(s));
        unlogged.sort_by_key(|(s, _)| s.reference);
        unlogged.dedup_by_key(|(s, _)| s.reference);
        let labels = |(s, labels): (Arc<MemSeries>, Option<Labels>)| {
            let labels = labels.or_else(|| self.head.series.labels(&s))?;
            Some((s, labels))
        };
        unlogged.into_iter().filter(|(s, _)| !s.state.lock().is_logged()).filter_map(labels).collect()
    }

    /// The records of the batch, series first.
    fn records(&self, new: &[(Arc<MemSeries>, Labels)]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if !new.is_empty() {
            out.push(record::encode_series(new.iter().map(|(s, labels)| (s.reference, labels))));
        }
        if !self.metadata.is_empty() {
            let list: Vec<_> = self.metadata.iter().map(|(s, m)| (s.reference, m.clone())).collect();
            out.push(record::encode_metadata(&list));
        }
        sample_records(&self.samples, &mut out);
        if !self.exemplars.is_empty() {
            let list: Vec<_> = self.exemplars.iter().map(|(s, e)| (s.reference, e.clone())).collect();
            out.push(record::encode_exemplars(&list));
        }
        out
    }

    fn apply(&mut self) -> Result<(), StorageError> {
        let head = self.head.clone();
        let commit = head.isolation.begin();
        // Read after `begin`: whoever cuts a block raises the bound first and then waits for commits begun before.
        let min_valid = head.min_valid.load(Ordering::SeqCst);
        let bounds = Bounds { min_valid, ..self.bounds };
        let (mut floats, mut histograms, mut new_chunks) = (0, 0, 0);
        let mut late: Vec<BatchSample> = Vec::new();
        let (mut mint, mut maxt) = (i64::MAX, i64::MIN);
        let mut shapes = Shape::default();
        for BatchSample { series, t, start, value } in self.samples.drain(..) {
            let kind = type_of(&value);
            let mut state = series.state.lock();
            state.unpin();
            let numbers = (commit.number, commit.low_watermark);
            // Late samples are needed once more, for their log; histograms are cheap to clone.
            let logged = (bounds.window_ms > 0).then(|| value.clone());
            // Nearly always a plain number comes after another one, which no count tells of.
            let before = (!is_plain(&value) || !state.newest().is_none_or(is_plain)).then(|| state.shape());
            match state.append((t, start, value), head.form, &bounds, numbers) {
                outcome @ (Outcome::Stored | Outcome::StoredInNewChunk) => {
                    if kind == "float" {
                        floats += 1;
                    } else {
                        histograms += 1;
                    }
                    new_chunks += u64::from(outcome == Outcome::StoredInNewChunk);
                    if let Some(before) = before {
                        shapes.add(state.shape(), 1);
                        shapes.add(before, -1);
                    }
                    mint = mint.min(t);
                    maxt = maxt.max(t);
                }
                outcome @ (Outcome::Late | Outcome::LateInNewChunk) => {
                    new_chunks += u64::from(outcome == Outcome::LateInNewChunk);
                    drop(state);
                    late.extend(logged.map(|value| BatchSample { series, t, start, value }));
                }
                Outcome::Same => {}
                outcome => head.count_refused(outcome, kind),
            }
        }
        head.count_shapes(shapes);
        if floats + histograms > 0 {
            head.saw(mint, maxt);
        }
        let logged = if late.is_empty() { Ok(()) } else { head.log_late(&late) };
        for (series, m) in self.metadata.drain(..) {
            series.state.lock().set_metadata(m);
        }
        if !self.exemplars.is_empty() {
            let mut ring = head.exemplars.lock();
            for (series, e) in self.exemplars.drain(..) {
                match ring.add(series.reference, || head.series.labels(&series), e) {
                    Added::Yes => head.metrics.exemplars_appended.inc(),
                    Added::OutOfOrder => head.metrics.exemplars_out_of_order.inc(),
                    Added::Same | Added::Disabled => {}
                }
            }
            ring.show(&head.metrics);
        }
        head.metrics.isolation_high.set(commit.number as i64);
        head.metrics.isolation_low.set(commit.low_watermark as i64);
        drop(commit);
        head.metrics.samples_appended.with_label_values(&["float"]).inc_by(floats);
        head.metrics.samples_appended.with_label_values(&["histogram"]).inc_by(histograms);
        head.metrics.chunks_created.inc_by(new_chunks);
        head.metrics.head_chunks.add(new_chunks as i64);
        logged
    }
}

/// An empty histogram of the same layout: by definition the counter begins anew with it.
fn zero_like(h: &HistogramValue) -> HistogramValue {
    match h {
        HistogramValue::Int(h) => Histogram {
            counter_reset_hint: CounterResetHint::CounterReset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: h.custom_values.clone(),
            ..Histogram::default()
        }
        .into(),
        HistogramValue::Float(h) => FloatHistogram {
            counter_reset_hint: CounterResetHint::CounterReset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: h.custom_values.clone(),
            ..FloatHistogram::default()
        }
        .into(),
    }
}

impl Appender for HeadAppender {
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        let (t, value) = (sample.timestamp_ms, sample.value);
        let start = if self.head.stores_starts { sample.start_timestamp_ms } else { 0 };
        if let SampleValue::Histogram(h) = &value {
            chunk::validate(h).map_err(AppendError::InvalidHistogram)?;
        }
        if series != SeriesRef::NONE
            && let Some(known) = self.head.series.get(series)
            && self.add(known, (t, start, value.clone()), None)?
        {
            return Ok(series);
        }
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("no labels".into()));
        }
        if t < self.bounds.min_valid && !self.bounds.takes_late(t) {
            // Not even the series is made for a sample that cannot be taken.
            let late = self.bounds.window_ms > 0;
            let outcome = if late { Outcome::TooOld } else { Outcome::OutOfBounds };
            self.head.count_refused(outcome, type_of(&value));
            self.head.show_lateness(t, &self.bounds, outcome);
            return Err(if late { AppendError::TooOld } else { AppendError::OutOfBounds });
        }
        loop {
            let series = self.head.get_or_create(labels);
            let reference = series.reference;
            if self.add(series, (t, start, value.clone()), Some(labels))? {
                return Ok(reference);
            }
        }
    }

    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) -> Result<(), AppendError> {
        let known = self.known(series)?;
        let known = self.add(known, (timestamp_ms, 0, SampleValue::Float(value)), None)?;
        if known { Ok(()) } else { Err(AppendError::UnknownRef) }
    }

    fn append_start_as_zero(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: &Sample,
    ) -> Result<(), AppendError> {
        let start = sample.start_timestamp_ms;
        if start >= sample.timestamp_ms || start < self.bounds.min_valid {
            return Ok(());
        }
        let zero = match &sample.value {
            SampleValue::Float(_) => SampleValue::Float(0.0),
            SampleValue::Histogram(h) => {
                chunk::validate(h).map_err(AppendError::InvalidHistogram)?;
                SampleValue::Histogram(zero_like(h))
            }
        };
        let known = match self.head.series.get(series) {
            Some(known) => known,
            None if labels.is_empty() => return Err(AppendError::UnknownRef),
            None => self.head.get_or_create(labels),
        };
        // A zero that would come late is one that has been there before, or that others have overtaken.
        let overtaken = known.state.lock().last_timestamp_ms().is_some_and(|last| last >= start);
        if !overtaken {
            // Whatever else may be wrong shows with the sample itself.
            let _ = self.add(known, (start, 0, zero), (!labels.is_empty()).then_some(labels));
        }
        Ok(())
    }

    /// An exemplar without a timestamp gets that of the newest sample of its series in this batch, or else of the series.
    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let series = self.known(series)?;
        let mut exemplar = exemplar.clone();
        if exemplar.timestamp_ms.is_none() {
            // A target exposes its last exemplar again and again; as in Prometheus the same one is stored once.
            if self.head.exemplars.lock().repeats(series.reference, &exemplar) {
                return Ok(());
            }
            let of_batch = self.samples.iter().rev().find(|s| Arc::ptr_eq(&s.series, &series)).map(|s| s.t);
            let of_series = || series.state.lock().last_timestamp_ms();
            exemplar.timestamp_ms = of_batch.or_else(of_series);
        }
        match self.head.exemplars.lock().check(series.reference, &exemplar) {
            Added::Yes => self.exemplars.push((series, exemplar)),
            Added::Same | Added::Disabled => {}
            Added::OutOfOrder => {
                self.head.metrics.exemplars_out_of_order.inc();
                return Err(AppendError::OutOfOrder);
            }
        }
        Ok(())
    }

    fn append_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        let series = self.known(series)?;
        let known = series.state.lock().metadata().is_some_and(|m| **m == *metadata);
        if !known {
            self.metadata.push((series, metadata.clone()));
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        let head = self.head.clone();
        let count = |_: &_| head.metrics.commits_failed.inc();
        let _under_way = head.commits.begin();
        // On an error, dropping releases the series.
        self.head.log_rest_of_late().inspect_err(count)?;
        let new = self.take_unlogged();
        let records = self.records(&new);
        self.head.wal.log(records).inspect_err(count)?;
        new.iter().for_each(|(s, _)| s.state.lock().set_logged());
        self.apply().inspect_err(count)
    }

    fn rollback(self: Box<Self>) {}
}

impl Drop for HeadAppender {
    fn drop(&mut self) {
        self.release();
        self.head.metrics.appenders_active.dec();
    }
}
