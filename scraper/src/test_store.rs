//! A store for tests: gives references, can forget them, refuses samples out of order, and tells what it was given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{
    AppendError, Appendable, Appender, Exemplar, HistogramValue, Labels, Metadata, Sample, SampleValue,
    SeriesRef, StorageError,
};
use parking_lot::Mutex;

/// What was committed.
#[derive(Clone, Default)]
pub(crate) struct TestStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    refs: HashMap<Labels, u64>,
    labels: BTreeMap<u64, Labels>,
    next_ref: u64,
    /// Samples in order of their commits.
    log: Vec<(Labels, Sample)>,
    newest: HashMap<Labels, (i64, SampleValue)>,
    exemplars: Vec<(Labels, Exemplar)>,
    metadata: Vec<(Labels, Metadata)>,
    by_labels: usize,
    closed: bool,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Makes all references invalid, as a head does that forgets old series.
    pub(crate) fn forget_refs(&self) {
        let mut inner = self.inner.lock();
        inner.refs.clear();
        inner.labels.clear();
    }

    /// Refuses new batches from here on.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
    }

    /// Takes what was committed, one line per sample: `labels timestamp value`.
    pub(crate) fn drain(&self) -> Vec<String> {
        let log = std::mem::take(&mut self.inner.lock().log);
        log.into_iter().map(|(l, s)| format!("{l} {} {}", s.timestamp_ms, show(&s))).collect()
    }

    /// All samples of series with this name, in order of their commits.
    pub(crate) fn samples(&self, name: &str) -> Vec<(Labels, i64, f64)> {
        let inner = self.inner.lock();
        let of_name = inner.log.iter().filter(|(l, _)| l.metric_name() == name);
        let float = |(l, s): &(Labels, Sample)| match &s.value {
            SampleValue::Float(v) => Some((l.clone(), s.timestamp_ms, *v)),
            SampleValue::Histogram(_) => None,
        };
        of_name.filter_map(float).collect()
    }

    pub(crate) fn exemplars(&self) -> Vec<(Labels, Exemplar)> {
        self.inner.lock().exemplars.clone()
    }

    pub(crate) fn metadata(&self) -> Vec<(Labels, Metadata)> {
        self.inner.lock().metadata.clone()
    }

    /// Appends that came with labels.
    pub(crate) fn appends_by_labels(&self) -> usize {
        self.inner.lock().by_labels
    }
}

fn show(s: &Sample) -> String {
    let mut out = match &s.value {
        v if v.is_stale() => "stale".to_owned(),
        SampleValue::Float(v) => v.to_string(),
        SampleValue::Histogram(h) => {
            let (kind, schema) = match h {
                HistogramValue::Int(h) => ("int", h.schema),
                HistogramValue::Float(h) => ("float", h.schema),
            };
            format!("{kind} s={schema} n={}", h.to_float().count)
        }
    };
    if s.start_timestamp_ms != 0 {
        out.push_str(&format!(" st={}", s.start_timestamp_ms));
    }
    out
}

impl Appendable for TestStore {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        if self.inner.lock().closed {
            return Err(StorageError::Closed);
        }
        Ok(Box::new(TestAppender { store: self.clone(), batch: Vec::new() }))
    }
}

struct TestAppender {
    store: TestStore,
    batch: Vec<(Labels, Sample)>,
}

impl TestAppender {
    fn push(&mut self, labels: Labels, sample: Sample) -> Result<(), AppendError> {
        let inner = self.store.inner.lock();
        let t = sample.timestamp_ms;
        match inner.newest.get(&labels) {
            Some((newest, _)) if t < *newest => return Err(AppendError::OutOfOrder),
            Some((newest, value)) if t == *newest && *value != sample.value => {
                return Err(AppendError::DuplicateTimestamp);
            }
            _ => {}
        }
        drop(inner);
        self.batch.push((labels, sample));
        Ok(())
    }

    fn labels(&self, series: SeriesRef) -> Option<Labels> {
        self.store.inner.lock().labels.get(&series.0).cloned()
    }
}

impl Appender for TestAppender {
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        if let SampleValue::Histogram(HistogramValue::Int(h)) = &sample.value {
            h.validate().map_err(|e| AppendError::InvalidHistogram(e.to_string()))?;
        }
        if let Some(known) = self.labels(series) {
            return self.push(known, sample).map(|()| series);
        }
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("no labels".into()));
        }
        self.push(labels.clone(), sample)?;
        let mut inner = self.store.inner.lock();
        inner.by_labels += 1;
        if let Some(r) = inner.refs.get(labels) {
            return Ok(SeriesRef(*r));
        }
        inner.next_ref += 1;
        let r = inner.next_ref;
        inner.refs.insert(labels.clone(), r);
        inner.labels.insert(r, labels.clone());
        Ok(SeriesRef(r))
    }

    fn append_float(&mut self, series: SeriesRef, t: i64, v: f64) -> Result<(), AppendError> {
        let labels = self.labels(series).ok_or(AppendError::UnknownRef)?;
        self.push(labels, Sample::float(t, v))
    }

    fn append_start_as_zero(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: &Sample,
    ) -> Result<(), AppendError> {
        let labels = self.labels(series).unwrap_or_else(|| labels.clone());
        if labels.is_empty() {
            return Err(AppendError::UnknownRef);
        }
        // Out of order is expected from the second scrape on.
        let _ = self.push(labels, Sample::float(sample.start_timestamp_ms, 0.0));
        Ok(())
    }

    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let labels = self.labels(series).ok_or(AppendError::UnknownRef)?;
        self.store.inner.lock().exemplars.push((labels, exemplar.clone()));
        Ok(())
    }

    fn append_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        let labels = self.labels(series).ok_or(AppendError::UnknownRef)?;
        self.store.inner.lock().metadata.push((labels, metadata.clone()));
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let mut inner = self.store.inner.lock();
        for (labels, sample) in self.batch {
            inner.newest.insert(labels.clone(), (sample.timestamp_ms, sample.value.clone()));
            inner.log.push((labels, sample));
        }
        Ok(())
    }

    fn rollback(self: Box<Self>) {}
}
