//! Recording rules: the answer of a query under a new name.

use std::collections::BTreeSet;

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder};
use promql::VectorSample;

/// Renames the samples and adds the rule's labels.
///
/// # Errors
/// When two samples become one series, or there are more than `limit` (0: any number).
pub(crate) fn record(
    record: &str,
    labels: &Labels,
    limit: usize,
    mut vector: Vec<VectorSample>,
) -> Result<Vec<VectorSample>, String> {
    let mut builder = LabelsBuilder::new();
    let mut seen = BTreeSet::new();
    for sample in &mut vector {
        builder.reset(&sample.labels);
        builder.set(METRIC_NAME, record);
        for (name, value) in labels.iter() {
            builder.set(name, value);
        }
        sample.labels = builder.build();
        if !seen.insert(sample.labels.clone()) {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels".to_owned()
            );
        }
    }
    if limit > 0 && vector.len() > limit {
        return Err(format!("exceeded limit of {limit} with {} series", vector.len()));
    }
    Ok(vector)
}
