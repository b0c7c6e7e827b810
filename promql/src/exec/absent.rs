//! `absent` and `absent_over_time`: 1 at the steps where the input has nothing.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#absent>, `#absent_over_time`.

use super::batch::{Batch, Head};
use super::bitmap::StepBits;
use super::context::Context;
use super::operator::{BoxOperator, Builder, Operator, arg};
use crate::error::Result;
use crate::plan::Grid;
use crate::plan::lower::labels_of;
use crate::plan::node::{Call, CallExtra};

pub(crate) fn build_absent<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
    let labels: &[(String, String)] = match &c.extra {
        CallExtra::Absent(labels) => labels,
        _ => &[],
    };
    Ok(Box::new(Absent::new(b.ctx, b.vector(arg(c, 0)?, grid)?, labels, false, grid)))
}

pub(crate) struct Absent<'q> {
    ctx: &'q Context<'q>,
    input: Option<BoxOperator<'q>>,
    labels: &'q [(String, String)],
    drop_name: bool,
    grid: Grid,
}

impl<'q> Absent<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        input: BoxOperator<'q>,
        labels: &'q [(String, String)],
        drop_name: bool,
        grid: Grid,
    ) -> Self {
        Self { ctx, input: Some(input), labels, drop_name, grid }
    }
}

impl Operator for Absent<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        let Some(mut input) = self.input.take() else { return Ok(false) };
        let mut seen = StepBits::new(self.grid.count);
        let mut rows = Batch::new();
        while input.next(&mut rows)? {
            self.ctx.check()?;
            (0..rows.rows()).for_each(|r| seen.add_row(rows.row(r)));
        }
        let row = out.push_row(Head { labels: labels_of(self.labels), drop_name: self.drop_name });
        for (step, v) in out.row_mut(row).iter_mut().enumerate() {
            if !seen.get(step) {
                *v = 1.0;
            }
        }
        Ok(true)
    }
}
