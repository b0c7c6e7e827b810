//! `quantile`: all samples of a group and step have to be at hand.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#quantile>.

use super::groups::Grouping;
use crate::annotations::Note;
use crate::error::Result;
use crate::exec::batch::{Batch, Head, clean, is_absent, is_float};
use crate::exec::context::Context;
use crate::exec::memory::HeldBytes;
use crate::exec::operator::{BoxOperator, Operator};
use crate::exec::scalar::Scalar;
use crate::functions::quantile::{of_sorted, order};
use crate::plan::node::Aggregate;

/// Steps between two looks at the clock: each sorts the samples of its group.
const STEPS_PER_CHECK: usize = 64;

pub(crate) struct Quantile<'q> {
    ctx: &'q Context<'q>,
    node: &'q Aggregate,
    input: Option<BoxOperator<'q>>,
    param: Scalar<'q>,
    quantiles: Vec<f64>,
    grouping: Grouping<'q>,
    /// Columns of the series of each group, one after the other.
    columns: Vec<Vec<f64>>,
    drop_name: Vec<bool>,
    steps: usize,
    done: usize,
    held: u64,
    bytes: HeldBytes<'q>,
}

impl<'q> Quantile<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        node: &'q Aggregate,
        input: BoxOperator<'q>,
        param: Scalar<'q>,
    ) -> Self {
        Self {
            ctx,
            node,
            input: Some(input),
            param,
            quantiles: Vec::new(),
            grouping: Grouping::new(ctx, node),
            columns: Vec::new(),
            drop_name: Vec::new(),
            steps: 0,
            done: 0,
            held: 0,
            bytes: ctx.memory.hold(),
        }
    }

    fn read(&mut self, mut input: BoxOperator<'_>) -> Result<()> {
        self.quantiles = self.param.column()?;
        // Of all quantiles that are none, the outermost are told.
        let max = self.quantiles.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = self.quantiles.iter().copied().fold(f64::INFINITY, f64::min);
        let nan = self.quantiles.iter().copied().find(|q| q.is_nan());
        let told = [nan, Some(max).filter(|q| *q > 1.0), Some(min).filter(|q| *q < 0.0)];
        for q in told.into_iter().flatten().filter(|_| !self.quantiles.is_empty()) {
            self.ctx.note(self.node.param_site, Note::InvalidQuantile(q));
        }
        let mut rows = Batch::new();
        while input.next(&mut rows)? {
            self.ctx.check()?;
            self.steps = rows.steps();
            for (i, head) in rows.heads.iter().enumerate() {
                let values = rows.row(i);
                if values.iter().any(|v| !is_float(*v) && !is_absent(*v)) {
                    self.ctx.note(self.node.input_site, Note::HistogramIgnoredInAggregation("quantile"));
                }
                if !values.iter().any(|v| is_float(*v)) {
                    continue;
                }
                let group = self.grouping.find(&head.labels)?;
                if group >= self.columns.len() {
                    self.columns.push(Vec::new());
                    self.drop_name.push(false);
                }
                self.drop_name[group] |= head.drop_name;
                self.ctx.hold(values.len() as u64)?;
                self.held += values.len() as u64;
                self.bytes.add(size_of_val(values) as u64)?;
                self.columns[group].extend_from_slice(values);
            }
        }
        Ok(())
    }
}

impl Operator for Quantile<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        if let Some(input) = self.input.take() {
            self.read(input)?;
        }
        out.reset(self.steps);
        if self.done >= self.grouping.len() {
            return Ok(false);
        }
        let group = self.done;
        self.done += 1;
        self.ctx.check()?;
        let column = std::mem::take(&mut self.columns[group]);
        let head = Head { labels: self.grouping.labels(group).clone(), drop_name: self.drop_name[group] };
        let row = out.push_row(head);
        let mut values = Vec::with_capacity(column.len() / self.steps.max(1));
        for (step, cell) in out.row_mut(row).iter_mut().enumerate() {
            if step % STEPS_PER_CHECK == 0 {
                self.ctx.check()?;
            }
            values.clear();
            values.extend(column.iter().skip(step).step_by(self.steps).filter(|v| is_float(**v)));
            if values.is_empty() {
                continue;
            }
            values.sort_unstable_by(order);
            *cell = clean(of_sorted(self.quantiles[step], &values));
        }
        Ok(true)
    }
}

impl Drop for Quantile<'_> {
    fn drop(&mut self) {
        self.ctx.release(self.held);
    }
}
