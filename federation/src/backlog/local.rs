//! What the backlog lane and the audit need of the local store.

use std::sync::Arc;

use model::{Exemplar, Labels, Matcher, Queryable};

/// A local store as a source of history.
pub trait LocalStore: Queryable {
    /// Timestamp of the oldest sample, or a lower bound; `None` when there is none.
    fn min_time(&self) -> Option<i64>;

    /// Exemplars within `[mint, maxt]` of the series that pass one of the sets, as far as they are kept.
    fn exemplars(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        let _ = (sets, mint, maxt);
        Vec::new()
    }
}

impl<T: LocalStore + ?Sized> LocalStore for Arc<T> {
    fn min_time(&self) -> Option<i64> {
        (**self).min_time()
    }

    fn exemplars(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        (**self).exemplars(sets, mint, maxt)
    }
}
