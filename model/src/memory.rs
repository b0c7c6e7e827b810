//! An in-memory store behind the storage contracts: the plain reference for tests of engines and stores.
//!
//! Everything sits in one map under one lock; any order of samples is taken, and a second value for a timestamp
//! replaces the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::chunk::{Chunk, Samples};
use crate::error::{AppendError, StorageError};
use crate::exemplar::Exemplar;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::metadata::Metadata;
use crate::sample::Sample;
use crate::storage::{
    Appendable, Appender, LabelsResult, Querier, Queryable, SelectHints, Series, SeriesRef, SeriesSet,
    VecSeriesSet,
};

type SeriesMap = BTreeMap<Labels, BTreeMap<i64, Sample>>;

/// A store in memory.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    series: Arc<Mutex<SeriesMap>>,
}

impl MemoryStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sample at once.
    pub fn insert(&self, labels: &Labels, sample: Sample) {
        self.lock().entry(labels.clone()).or_default().insert(sample.timestamp_ms, sample);
    }

    /// Drops everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SeriesMap> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Appendable for MemoryStorage {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        Ok(Box::new(MemoryAppender { store: self.clone(), batch: Vec::new() }))
    }
}

struct MemoryAppender {
    store: MemoryStorage,
    batch: Vec<(Labels, Sample)>,
}

impl Appender for MemoryAppender {
    /// The store gives no references, so labels are needed every time.
    fn append(
        &mut self,
        _series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("no labels".into()));
        }
        self.batch.push((labels.clone(), sample));
        Ok(SeriesRef::NONE)
    }

    fn append_float(
        &mut self,
        _series: SeriesRef,
        _timestamp_ms: i64,
        _value: f64,
    ) -> Result<(), AppendError> {
        Err(AppendError::UnknownRef)
    }

    fn append_exemplar(&mut self, _series: SeriesRef, _exemplar: &Exemplar) -> Result<(), AppendError> {
        Err(AppendError::UnknownRef)
    }

    fn append_metadata(&mut self, _series: SeriesRef, _metadata: &Metadata) -> Result<(), AppendError> {
        Err(AppendError::UnknownRef)
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let mut map = self.store.lock();
        for (labels, sample) in self.batch {
            map.entry(labels).or_default().insert(sample.timestamp_ms, sample);
        }
        Ok(())
    }

    fn rollback(self: Box<Self>) {}
}

impl Queryable for MemoryStorage {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(MemoryQuerier { store: self.clone(), mint, maxt }))
    }
}

struct MemoryQuerier {
    store: MemoryStorage,
    mint: i64,
    maxt: i64,
}

impl MemoryQuerier {
    fn matching(&self, matchers: &[Matcher]) -> Vec<Series> {
        let map = self.store.lock();
        let mut out = Vec::new();
        if self.mint > self.maxt {
            return out;
        }
        for (labels, samples) in map.iter().filter(|(l, _)| Matcher::all_match(matchers, l)) {
            let mut columns = Samples::new();
            samples.range(self.mint..=self.maxt).for_each(|(_, s)| columns.push(s.clone()));
            if !columns.is_empty() {
                out.push(Series { labels: labels.clone(), chunks: vec![Chunk::columns(Arc::new(columns))] });
            }
        }
        out
    }

    fn collect<'a>(
        series: &'a [Series],
        limit: usize,
        f: impl Fn(&'a Labels, &mut BTreeSet<String>),
    ) -> LabelsResult {
        let mut set = BTreeSet::new();
        series.iter().for_each(|s| f(&s.labels, &mut set));
        let mut values: Vec<_> = set.into_iter().collect();
        if limit > 0 {
            values.truncate(limit);
        }
        LabelsResult { values, warnings: Vec::new() }
    }
}

impl Querier for MemoryQuerier {
    fn select(&self, matchers: &[Matcher], _hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        Ok(Box::new(VecSeriesSet::new(self.matching(matchers), Vec::new())))
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        let series = self.matching(matchers);
        Ok(Self::collect(&series, limit, |l, set| set.extend(l.iter().map(|(n, _)| n.to_owned()))))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError> {
        let series = self.matching(matchers);
        Ok(Self::collect(&series, limit, |l, set| set.extend(l.get(name).map(str::to_owned))))
    }
}
