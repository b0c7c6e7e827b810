//! Exemplars: one observation, usually with a trace id, attached to a series.

use crate::labels::Labels;

/// One exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Labels of the exemplar itself, such as `trace_id`.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// Milliseconds since the Unix epoch; `None` when the target gave none.
    pub timestamp_ms: Option<i64>,
}
