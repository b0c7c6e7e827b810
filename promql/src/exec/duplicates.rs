//! Notices when two rows have a sample at the same step under the same labels.
//!
//! Rows are not merged: whoever consumes them looks at each step by itself. So it is enough to remember, for every label
//! set, at which steps it was seen.

use model::Labels;
use model::labels::{TYPE_LABEL, UNIT_LABEL};

use super::batch::{ABSENT, Batch, is_absent, is_float, is_histogram};
use super::bitmap::StepBits;
use super::context::Context;
use super::memory::{HeldBytes, labels_bytes};
use crate::error::{QueryError, Result};
use crate::hash::FastMap;

pub(crate) fn same_labelset() -> QueryError {
    QueryError::execution("vector cannot contain metrics with the same labelset")
}

/// Label sets seen so far.
pub(crate) struct Duplicates<'q> {
    seen: FastMap<Labels, StepBits>,
    /// Equal labels are an error even at different steps.
    strict: bool,
    /// All series have one name and come sorted: they can only meet when some have a type or a unit, which is dropped with
    /// the name.
    one_name: bool,
    /// A series with type or unit has come.
    metadata_seen: bool,
    /// Floats and histograms do not meet: where the histograms were seen.
    histograms: Option<FastMap<Labels, StepBits>>,
    bytes: HeldBytes<'q>,
}

impl<'q> Duplicates<'q> {
    pub(crate) fn new(ctx: &'q Context<'_>) -> Self {
        Self {
            seen: FastMap::default(),
            strict: false,
            one_name: false,
            metadata_seen: false,
            histograms: None,
            bytes: ctx.memory.hold(),
        }
    }

    pub(crate) fn strict(ctx: &'q Context<'_>) -> Self {
        Self { strict: true, ..Self::new(ctx) }
    }

    /// A float and a histogram at the same step are no twins.
    pub(crate) fn of_one_kind(ctx: &'q Context<'_>) -> Self {
        Self { histograms: Some(FastMap::default()), ..Self::new(ctx) }
    }

    /// For sorted series that all have the same name. [`Duplicates::meet`] has to be told of each.
    pub(crate) fn of_one_name(self) -> Self {
        Self { one_name: true, ..self }
    }

    /// Learns of a series, before its name is dropped.
    pub(crate) fn meet(&mut self, labels: &Labels) {
        self.metadata_seen |= labels.contains(TYPE_LABEL) || labels.contains(UNIT_LABEL);
    }

    /// Fails when a row of `batch` meets another one.
    pub(crate) fn check(&mut self, batch: &Batch) -> Result<()> {
        for (i, head) in batch.heads.iter().enumerate() {
            self.check_row(&head.labels, batch.row(i))?;
        }
        Ok(())
    }

    pub(crate) fn check_row(&mut self, labels: &Labels, row: &[f64]) -> Result<()> {
        // Without type and unit, a series comes before its twin with them only if it has no label after these.
        let comes_first = || labels.iter().last().is_none_or(|(name, _)| name < UNIT_LABEL);
        if self.one_name && !self.metadata_seen && !comes_first() {
            return Ok(());
        }
        if row.iter().all(|v| is_absent(*v)) {
            return Ok(());
        }
        if let Some(histograms) = &mut self.histograms
            && row.iter().any(|v| is_histogram(*v))
        {
            let only = |keep: fn(f64) -> bool| -> Vec<f64> {
                row.iter().map(|v| if keep(*v) { *v } else { ABSENT }).collect()
            };
            if !histograms.contains_key(labels) {
                self.bytes.add(labels_bytes(labels) + StepBits::bytes(row.len()))?;
            }
            let bits = histograms.entry(labels.clone()).or_insert_with(|| StepBits::new(row.len()));
            if bits.add_row_overlaps(&only(is_histogram)) {
                return Err(same_labelset());
            }
            return self.check_floats(labels, &only(is_float));
        }
        self.check_floats(labels, row)
    }

    fn check_floats(&mut self, labels: &Labels, row: &[f64]) -> Result<()> {
        match self.seen.get_mut(labels) {
            Some(_) if self.strict => Err(same_labelset()),
            Some(bits) => match bits.add_row_overlaps(row) {
                true => Err(same_labelset()),
                false => Ok(()),
            },
            None => {
                self.bytes.add(labels_bytes(labels) + StepBits::bytes(row.len()))?;
                let mut bits = StepBits::new(row.len());
                bits.add_row(row);
                self.seen.insert(labels.clone(), bits);
                Ok(())
            }
        }
    }
}
