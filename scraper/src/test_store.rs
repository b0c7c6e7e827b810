//! A store for tests: gives references, can forget them, refuses samples out of order, and tells what it was given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{
    AppendError, Appendable, Appender, Exemplar, Labels, Metadata, Sample, SampleValue, SeriesRef,
    StorageError, is_stale_nan,
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
    log: Vec<(Labels, i64, f64)>,
    newest: HashMap<Labels, (i64, u64)>,
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
        log.into_iter().map(|(l, t, v)| format!("{l} {t} {}", show(v))).collect()
    }

    /// All samples of series with this name, in order of their commits.
    pub(crate) fn samples(&self, name: &str) -> Vec<(Labels, i64, f64)> {
        self.inner.lock().log.iter().filter(|(l, _, _)| l.metric_name() == name).cloned().collect()
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

fn show(v: f64) -> String {
    if is_stale_nan(v) { "stale".into() } else { v.to_string() }
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
    batch: Vec<(Labels, i64, f64)>,
}

impl TestAppender {
    fn push(&mut self, labels: Labels, t: i64, v: f64) -> Result<(), AppendError> {
        let inner = self.store.inner.lock();
        match inner.newest.get(&labels) {
            Some((newest, _)) if t < *newest => return Err(AppendError::OutOfOrder),
            Some((newest, bits)) if t == *newest && *bits != v.to_bits() => {
                return Err(AppendError::DuplicateTimestamp);
            }
            _ => {}
        }
        drop(inner);
        self.batch.push((labels, t, v));
        Ok(())
    }

    fn labels(&self, series: SeriesRef) -> Option<Labels> {
        self.store.inner.lock().labels.get(&series.0).cloned()
    }
}

impl Appender for TestAppender {
    fn append(&mut self, _: SeriesRef, labels: &Labels, sample: Sample) -> Result<SeriesRef, AppendError> {
        let SampleValue::Float(v) = sample.value else {
            return Err(AppendError::InvalidHistogram("only floats in this test".into()));
        };
        self.push(labels.clone(), sample.timestamp_ms, v)?;
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
        self.push(labels, t, v)
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
        for (labels, t, v) in self.batch {
            inner.newest.insert(labels.clone(), (t, v.to_bits()));
            inner.log.push((labels, t, v));
        }
        Ok(())
    }

    fn rollback(self: Box<Self>) {}
}
