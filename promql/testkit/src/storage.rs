//! Stores that scripts run on.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::read_back_hint;
use model::memory::MemoryStorage;
use model::{FloatHistogram, Labels, Querier, Queryable, Sample, SampleValue, StorageError};

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
                        stored.counter_reset_hint = read_back_hint(last.as_deref(), &stored);
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
