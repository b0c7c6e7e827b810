//! Brings rows with equal labels together, as long as no two of them have a sample at the same step.
//!
//! Most consumers of rows look at each step by itself, and rows that share their labels do not matter to them. Functions
//! over the windows of a subquery look at several steps: to them `a > 1 or a` has to be one series. All rows are read
//! before the first one is given.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/basics/#subquery>.

use model::Labels;

use super::batch::{Batch, is_absent};
use super::context::Context;
use super::duplicates::same_labelset;
use super::memory::{HeldBytes, labels_bytes};
use super::operator::{BoxOperator, Operator};
use crate::error::Result;
use crate::hash::FastMap;
use crate::parser::ast::{AggregateOp, BinaryOp, ValueType};
use crate::plan::Grid;
use crate::plan::node::Node;

/// Whether rows of a node may share their labels.
pub(crate) fn may_have_twins(node: &Node) -> bool {
    match node {
        // At a single step, equal labels are an error.
        Node::Number(_) | Node::Text(_) | Node::Time | Node::Ranges(_) | Node::Invariant(_) => false,
        Node::Instant(_) | Node::Window(_) => false,
        Node::Aggregate(a) => {
            use AggregateOp::{Bottomk, LimitRatio, Limitk, Topk};
            matches!(a.op, Topk | Bottomk | Limitk | LimitRatio) && may_have_twins(&a.input)
        }
        Node::Binary(b) if matches!(b.op, BinaryOp::And | BinaryOp::Unless) => may_have_twins(&b.lhs),
        Node::Call(c) if matches!(c.func, "absent" | "vector") => false,
        Node::Binary(_) | Node::Call(_) | Node::Negate(_) => node.value_type() == ValueType::Vector,
    }
}

pub(crate) struct Merge<'q> {
    ctx: &'q Context<'q>,
    input: Option<BoxOperator<'q>>,
    grid: Grid,
    held: u64,
    bytes: HeldBytes<'q>,
}

impl<'q> Merge<'q> {
    pub(crate) fn new(ctx: &'q Context<'q>, input: BoxOperator<'q>, grid: Grid) -> Self {
        Self { ctx, input: Some(input), grid, held: 0, bytes: ctx.memory.hold() }
    }
}

impl Operator for Merge<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        let Some(mut input) = self.input.take() else { return Ok(false) };
        let mut rows = Batch::new();
        let mut row_of: FastMap<Labels, usize> = FastMap::default();
        while input.next(&mut rows)? {
            self.ctx.check()?;
            let samples = rows.samples();
            self.ctx.hold(samples)?;
            self.held += samples;
            self.bytes.add(rows.bytes())?;
            for (i, head) in rows.heads.iter().enumerate() {
                match row_of.get(&head.labels) {
                    Some(row) => merge_row(out, *row, &rows, i)?,
                    None => {
                        self.bytes.add(labels_bytes(&head.labels))?;
                        let row = out.push_copy(head.clone(), &rows, i);
                        row_of.insert(head.labels.clone(), row);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Adds the samples of a row to those of another one. Whether the name is dropped at the end is said by the older sample.
fn merge_row(all: &mut Batch, row: usize, rows: &Batch, i: usize) -> Result<()> {
    let begin = |values: &[f64]| values.iter().position(|v| !is_absent(*v));
    if let Some(at) = begin(rows.row(i))
        && begin(all.row(row)).is_none_or(|known| at < known)
    {
        all.heads[row].drop_name = rows.heads[i].drop_name;
    }
    for step in 0..rows.steps() {
        if is_absent(rows.row(i)[step]) {
            continue;
        }
        if !is_absent(all.row(row)[step]) {
            return Err(same_labelset());
        }
        all.set(row, step, rows.cell(i, step));
    }
    Ok(())
}

impl Drop for Merge<'_> {
    fn drop(&mut self) {
        self.ctx.release(self.held);
    }
}
