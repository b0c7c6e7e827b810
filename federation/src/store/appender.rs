//! One batch on its way in: checks each sample, resolves labels to slots, and commits.

use std::sync::Arc;

use model::histogram::Span;
use model::{
    AppendError, Appender, Exemplar, HistogramValue, Labels, Metadata, Sample, SampleValue, SeriesRef,
    StorageError,
};

use super::Inner;
use super::commit::Batch;
use super::families::{IDS, SERIES};
use super::keys::MAX_LABEL_NAME_LEN_BYTES;
use super::registry::SlotRef;
use super::rows::decode_series;

/// Longest label set, in packed bytes: a row and an index key must stay small.
const MAX_LABELS_LEN_BYTES: usize = 256 << 10;

pub(super) struct LongtermAppender {
    inner: Arc<Inner>,
    batch: Batch,
    /// The series that was asked for last: a backfill has many samples of one.
    last: Option<(SeriesRef, SlotRef)>,
    /// Bounds of timestamps taken, both inclusive; fixed when the batch begins.
    mint: i64,
    maxt: i64,
}

impl LongtermAppender {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let now = inner.clock.now_ms();
        let mint = inner.oldest_ms(now);
        let maxt = now.saturating_add(inner.config.future_limit_ms).min(super::keys::MAX_TIMESTAMP_MS);
        Self { inner, batch: Batch::default(), last: None, mint, maxt }
    }

    #[inline]
    fn check_time(&self, timestamp_ms: i64) -> Result<(), AppendError> {
        if timestamp_ms < self.mint {
            return Err(self.reject(AppendError::TooOld, "too_old"));
        }
        if timestamp_ms > self.maxt {
            return Err(self.reject(AppendError::OutOfBounds, "out_of_bounds"));
        }
        Ok(())
    }

    #[cold]
    fn reject(&self, error: AppendError, reason: &str) -> AppendError {
        self.inner.metrics.samples_rejected.with_label_values(&[reason]).inc();
        error
    }

    #[inline]
    fn known(&mut self, series: SeriesRef) -> Result<SlotRef, AppendError> {
        if let Some((last, slot)) = self.last
            && last == series
        {
            // Should it be forgotten meanwhile, the commit finds out.
            return Ok(slot);
        }
        let slot = self.inner.registry.read().check(series).ok_or(AppendError::UnknownRef)?;
        self.last = Some((series, slot));
        Ok(slot)
    }
}

impl Appender for LongtermAppender {
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        self.check_time(sample.timestamp_ms)?;
        if let SampleValue::Histogram(h) = &sample.value {
            check_histogram(h).map_err(|e| self.reject(e, "invalid_histogram"))?;
        }
        let known = if series == SeriesRef::NONE { None } else { self.inner.registry.read().check(series) };
        let slot = match known {
            Some(slot) => slot,
            None => {
                check_labels(labels).map_err(|e| self.reject(e, "invalid_labels"))?;
                self.inner.resolve(labels)?
            }
        };
        match (&sample.value, sample.start_timestamp_ms) {
            (SampleValue::Float(v), 0) => self.batch.floats.push((slot, sample.timestamp_ms, *v)),
            _ => self.batch.others.push((slot, sample)),
        }
        Ok(slot.to_series_ref())
    }

    #[inline]
    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) -> Result<(), AppendError> {
        self.check_time(timestamp_ms)?;
        let slot = self.known(series)?;
        self.batch.floats.push((slot, timestamp_ms, value));
        Ok(())
    }

    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let timestamp_ms = exemplar.timestamp_ms.unwrap_or_else(|| self.inner.clock.now_ms());
        self.check_time(timestamp_ms)?;
        let slot = self.known(series)?;
        self.batch.exemplars.push((slot, Exemplar { timestamp_ms: Some(timestamp_ms), ..exemplar.clone() }));
        Ok(())
    }

    fn append_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        let slot = self.known(series)?;
        self.batch.metadata.push((slot, metadata.clone()));
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        self.inner.check_open()?;
        self.inner.commit(self.batch)
    }

    fn rollback(self: Box<Self>) {}
}

impl Inner {
    /// The slot of a label set: from memory, else from disk, else a new one.
    fn resolve(&self, labels: &Labels) -> Result<SlotRef, AppendError> {
        let hash = labels.hash64();
        loop {
            let removals = {
                let registry = self.registry.read();
                if let Some(slot) = registry.find(hash, labels) {
                    return Ok(slot);
                }
                registry.removals
            };
            let stored = self.stored_id(hash, labels)?;
            let mut registry = self.registry.write();
            if let Some(slot) = registry.find(hash, labels) {
                return Ok(slot);
            }
            // Retention removed series meanwhile, perhaps this one: look again.
            if registry.removals == removals {
                let id = stored.filter(|id| !registry.dying.contains(*id)).unwrap_or(0);
                return Ok(registry.insert(hash, labels.clone(), id));
            }
        }
    }

    /// The id of a label set on disk.
    fn stored_id(&self, hash: u64, labels: &Labels) -> Result<Option<u64>, StorageError> {
        let (ids, series) = (self.cf(IDS), self.cf(SERIES));
        let mut options = rocksdb::ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut rows = self.db.raw_iterator_cf_opt(&ids, options);
        rows.seek(hash.to_be_bytes());
        while let Some(key) = rows.key() {
            let Some((found, id)) = key.split_first_chunk::<8>() else { break };
            let (found, Ok(id)) = (u64::from_be_bytes(*found), id.try_into().map(u64::from_be_bytes)) else {
                break;
            };
            if found != hash {
                break;
            }
            let row = self.db.get_pinned_cf(&series, id.to_be_bytes());
            if let Some(row) = row.map_err(|e| self.error("read series of", &e))?
                && decode_series(&row)?.0 == *labels
            {
                return Ok(Some(id));
            }
            rows.next();
        }
        rows.status().map_err(|e| self.error("read ids of", &e))?;
        Ok(None)
    }
}

fn check_labels(labels: &Labels) -> Result<(), AppendError> {
    if labels.is_empty() {
        return Err(AppendError::InvalidLabels("no labels".into()));
    }
    if labels.as_packed().len() > MAX_LABELS_LEN_BYTES {
        let text = format!("{} bytes, at most {MAX_LABELS_LEN_BYTES} are stored", labels.as_packed().len());
        return Err(AppendError::InvalidLabels(text));
    }
    match labels.iter().find(|(n, _)| n.is_empty() || n.len() > MAX_LABEL_NAME_LEN_BYTES) {
        Some((n, _)) => Err(AppendError::InvalidLabels(format!("a label name of {} bytes", n.len()))),
        None => Ok(()),
    }
}

/// Refuses what readers would have to index out of bounds for: spans that name more or fewer buckets than there are.
fn check_histogram(h: &HistogramValue) -> Result<(), AppendError> {
    let sides: [(&[Span], usize); 2] = match h {
        HistogramValue::Int(h) => {
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())]
        }
        HistogramValue::Float(h) => {
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())]
        }
    };
    for (spans, buckets) in sides {
        let named: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
        if named != buckets as u64 {
            return Err(AppendError::InvalidHistogram(format!(
                "spans name {named} buckets, there are {buckets}"
            )));
        }
    }
    Ok(())
}
