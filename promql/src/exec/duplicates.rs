//! Notices when two rows have a sample at the same step under the same labels.
//!
//! Rows are not merged: whoever consumes them looks at each step by itself. So it is enough to remember, for every label
//! set, at which steps it was seen.

use model::Labels;

use super::batch::{Batch, is_absent};
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
    bytes: HeldBytes<'q>,
}

impl<'q> Duplicates<'q> {
    pub(crate) fn new(ctx: &'q Context<'_>) -> Self {
        Self { seen: FastMap::default(), strict: false, bytes: ctx.memory.hold() }
    }

    pub(crate) fn strict(ctx: &'q Context<'_>) -> Self {
        Self { strict: true, ..Self::new(ctx) }
    }

    /// Fails when a row of `batch` meets another one.
    pub(crate) fn check(&mut self, batch: &Batch) -> Result<()> {
        for (i, head) in batch.heads.iter().enumerate() {
            self.check_row(&head.labels, batch.row(i))?;
        }
        Ok(())
    }

    pub(crate) fn check_row(&mut self, labels: &Labels, row: &[f64]) -> Result<()> {
        if row.iter().all(|v| is_absent(*v)) {
            return Ok(());
        }
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
