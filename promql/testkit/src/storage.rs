//! Stores that scripts run on.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint};
use model::memory::MemoryStorage;
use model::{FloatHistogram, Labels, Querier, Queryable, Sample, SampleValue, StorageError, is_stale_nan};

/// A store that a script can fill. `clear` in a script makes a new one.
pub trait TestStorage: Queryable + Send {
    /// Adds the data of one load, visible when it returns. Called several times; series may occur in several calls.
    ///
    /// # Errors
    /// When the store does not take the data.
    fn load(&mut self, series: &[(Labels, Vec<Sample>)]) -> Result<(), String>;
}

/// The plain store in memory. It keeps the counter reset hints that a store with chunks would give back, which the
/// scripts expect.
#[derive(Default)]
pub struct MemoryTestStorage {
    store: MemoryStorage,
    /// The last sample of each series, when it is a histogram.
    last: BTreeMap<Labels, Arc<FloatHistogram>>,
}

impl MemoryTestStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Queryable for MemoryTestStorage {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.store.querier(mint, maxt)
    }
}

impl TestStorage for MemoryTestStorage {
    fn load(&mut self, series: &[(Labels, Vec<Sample>)]) -> Result<(), String> {
        for (labels, samples) in series {
            let mut last = self.last.remove(labels);
            for sample in samples {
                let mut sample = sample.clone();
                last = match &mut sample.value {
                    SampleValue::Float(_) => None,
                    SampleValue::Histogram(h) => {
                        let mut stored = (*h.to_float()).clone();
                        stored.counter_reset_hint = stored_hint(last.as_deref(), &stored);
                        let stored = Arc::new(stored);
                        *h = model::HistogramValue::Float(stored.clone());
                        Some(stored)
                    }
                };
                self.store.insert(labels, sample);
            }
            if let Some(last) = last {
                self.last.insert(labels.clone(), last);
            }
        }
        Ok(())
    }
}

/// The hint that a sample has when it is read back. A reset begins a new chunk, so of all samples of a chunk but the first
/// it is known that they follow none. Of the first, nothing is known: the chunk before may not be there.
fn stored_hint(last: Option<&FloatHistogram>, h: &FloatHistogram) -> CounterResetHint {
    use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
    if matches!(h.counter_reset_hint, Gauge | CounterReset) {
        return h.counter_reset_hint;
    }
    let Some(last) = last.filter(|l| l.counter_reset_hint != Gauge) else {
        return Unknown;
    };
    if is_stale_nan(h.sum) {
        return NotCounterReset;
    }
    if is_stale_nan(last.sum) {
        return Unknown;
    }
    if h.schema != last.schema || h.zero_threshold != last.zero_threshold {
        return Unknown;
    }
    let other_bounds = h.schema == CUSTOM_BUCKETS_SCHEMA && !h.has_bounds_of(last);
    let unknown = FloatHistogram { counter_reset_hint: Unknown, ..h.clone() };
    if other_bounds || unknown.detect_reset(last) { Unknown } else { NotCounterReset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_those_of_chunks() {
        let sample = |ts, count: f64, hint| {
            let h = FloatHistogram { count, counter_reset_hint: hint, ..FloatHistogram::default() };
            Sample::histogram(ts, h)
        };
        use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
        let mut last: Option<Arc<FloatHistogram>> = None;
        for (count, given, expect) in [
            (5.0, NotCounterReset, Unknown),
            (6.0, Unknown, NotCounterReset),
            (4.0, Unknown, Unknown),
            (5.0, Unknown, NotCounterReset),
            (6.0, CounterReset, CounterReset),
            (7.0, Gauge, Gauge),
            (8.0, Unknown, Unknown),
        ] {
            let SampleValue::Histogram(h) = sample(0, count, given).value else { unreachable!() };
            let mut h = (*h.to_float()).clone();
            h.counter_reset_hint = stored_hint(last.as_deref(), &h);
            assert_eq!(h.counter_reset_hint, expect, "{count}");
            last = Some(Arc::new(h));
        }
    }
}
