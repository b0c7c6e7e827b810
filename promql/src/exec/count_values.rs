//! `count_values`: how many series of a group have the same value.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#count_values>.

use std::collections::HashMap;

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder};

use super::batch::{Batch, Cell, Head, rows_bytes};
use super::context::Context;
use super::memory::{HeldBytes, labels_bytes};
use super::operator::{BoxOperator, Operator};
use crate::error::Result;
use crate::functions::format::format_f;
use crate::plan::node::Aggregate;

pub(crate) struct CountValues<'q> {
    ctx: &'q Context<'q>,
    node: &'q Aggregate,
    label: &'q str,
    input: Option<BoxOperator<'q>>,
    held: u64,
    bytes: HeldBytes<'q>,
}

impl<'q> CountValues<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        node: &'q Aggregate,
        label: &'q str,
        input: BoxOperator<'q>,
    ) -> Self {
        Self { ctx, node, label, input: Some(input), held: 0, bytes: ctx.memory.hold() }
    }

    /// The group of a series that has `value`.
    fn group(&self, labels: &Labels, value: &str, b: &mut LabelsBuilder) -> Labels {
        let listed = |n: &str| self.node.grouping.iter().any(|g| g == n);
        b.reset(labels);
        b.set(self.label, value);
        if self.node.without {
            b.retain(|n, _| !listed(n) && n != METRIC_NAME);
        } else {
            b.retain(|n, _| listed(n) || n == self.label);
        }
        b.build()
    }
}

impl Operator for CountValues<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        let Some(mut input) = self.input.take() else {
            out.reset(out.steps());
            return Ok(false);
        };
        let mut result = Batch::new();
        let mut row_of: HashMap<Labels, usize> = HashMap::new();
        let (mut rows, mut b) = (Batch::new(), LabelsBuilder::new());
        let mut first = true;
        while input.next(&mut rows)? {
            self.ctx.check()?;
            if std::mem::take(&mut first) {
                result.reset(rows.steps());
            }
            for (i, head) in rows.heads.iter().enumerate() {
                self.ctx.check()?;
                // Neighbouring steps often have the same value.
                let mut last: Option<(u64, usize)> = None;
                for step in 0..rows.steps() {
                    let (bits, text) = match rows.cell(i, step) {
                        Cell::Absent => continue,
                        Cell::Float(v) => match last {
                            Some((bits, row)) if bits == v.to_bits() => {
                                bump(&mut result, row, step);
                                continue;
                            }
                            _ => (Some(v.to_bits()), format_f(v)),
                        },
                        Cell::Histogram(h) => (None, h.to_string()),
                    };
                    let labels = self.group(&head.labels, &text, &mut b);
                    let row = match row_of.get(&labels) {
                        Some(row) => *row,
                        None => {
                            let steps = rows.steps() as u64;
                            self.ctx.hold(steps)?;
                            self.held += steps;
                            self.bytes.add(rows_bytes(1, rows.steps()) + 2 * labels_bytes(&labels))?;
                            let row = result.push_row(Head { labels: labels.clone(), drop_name: false });
                            row_of.insert(labels, row);
                            row
                        }
                    };
                    bump(&mut result, row, step);
                    last = bits.map(|bits| (bits, row));
                }
            }
        }
        *out = result;
        Ok(true)
    }
}

fn bump(result: &mut Batch, row: usize, step: usize) {
    let v = &mut result.row_mut(row)[step];
    *v = if super::batch::is_float(*v) { *v + 1.0 } else { 1.0 };
}

impl Drop for CountValues<'_> {
    fn drop(&mut self) {
        self.ctx.release(self.held);
    }
}
