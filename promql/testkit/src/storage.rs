//! Stores that scripts run on.

use model::memory::MemoryStorage;
use model::{Labels, Querier, Queryable, Sample, StorageError};

/// A store that a script can fill. `clear` in a script makes a new one.
pub trait TestStorage: Queryable + Send {
    /// Adds the data of one load, visible when it returns. Called several times; series and times may repeat those of
    /// earlier calls.
    ///
    /// # Errors
    /// When the store does not take the data.
    fn load(&mut self, series: &[(Labels, Vec<Sample>)]) -> Result<(), String>;
}

/// The plain store in memory.
#[derive(Default)]
pub struct MemoryTestStorage(MemoryStorage);

impl MemoryTestStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Queryable for MemoryTestStorage {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.0.querier(mint, maxt)
    }
}

impl TestStorage for MemoryTestStorage {
    fn load(&mut self, series: &[(Labels, Vec<Sample>)]) -> Result<(), String> {
        for (labels, samples) in series {
            samples.iter().for_each(|s| self.0.insert(labels, s.clone()));
        }
        Ok(())
    }
}
