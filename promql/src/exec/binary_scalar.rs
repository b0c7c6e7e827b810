//! Binary operators between a vector and a scalar.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#binary-operators>.

use super::batch::{ABSENT, Batch, Cell, clean, is_float};
use super::binary::element::{ElementError, Told, combine};
use super::context::Context;
use super::duplicates::Duplicates;
use super::operator::{BoxOperator, Operator, drain};
use super::scalar::Scalar;
use crate::error::Result;
use crate::functions::math::{arithmetic, changes_meaning, compare};
use crate::plan::node::Binary;

pub(crate) struct VectorScalar<'q> {
    ctx: &'q Context<'q>,
    node: &'q Binary,
    vector: BoxOperator<'q>,
    scalar: Scalar<'q>,
    column: Option<Vec<f64>>,
    /// The scalar stands on the left.
    swapped: bool,
    duplicates: Option<Duplicates<'q>>,
    told: Told,
}

impl<'q> VectorScalar<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        node: &'q Binary,
        vector: BoxOperator<'q>,
        scalar: Scalar<'q>,
        swapped: bool,
    ) -> Self {
        let drops = changes_meaning(node.op) || node.return_bool;
        let duplicates = (drops && !ctx.delayed_names()).then(|| Duplicates::new(ctx));
        Self { ctx, node, vector, scalar, column: None, swapped, duplicates, told: Told::default() }
    }
}

impl Operator for VectorScalar<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        if self.column.is_none() {
            match self.scalar.column() {
                Ok(column) => self.column = Some(column),
                Err(e) => {
                    if !self.swapped {
                        // The error of the left side comes first.
                        drain(self.ctx, &mut *self.vector)?;
                    }
                    return Err(e);
                }
            }
        }
        if !self.vector.next(out)? {
            self.told.tell(self.ctx, self.node);
            return Ok(false);
        }
        let column = self.column.as_deref().unwrap_or(&[]);
        let (node, swapped) = (self.node, self.swapped);
        for row in 0..out.rows() {
            floats(node, swapped, column, out.row_mut(row), &mut self.told);
            if !out.histograms.is_empty() {
                histograms(node, swapped, column, out, row, &mut self.told);
            }
        }
        if changes_meaning(node.op) || node.return_bool {
            for head in &mut out.heads {
                head.drop_name = true;
                head.labels = self.ctx.drop_name(&head.labels);
            }
            if let Some(d) = &mut self.duplicates {
                d.check(out)?;
            }
        }
        Ok(true)
    }
}

/// The fast path: cells that hold floats.
fn floats(node: &Binary, swapped: bool, column: &[f64], row: &mut [f64], told: &mut Told) {
    for (step, (v, s)) in row.iter_mut().zip(column).enumerate().filter(|(_, (v, _))| is_float(**v)) {
        let (l, r) = if swapped { (*s, *v) } else { (*v, *s) };
        *v = if let Some(x) = arithmetic(node.op, l, r) {
            clean(x)
        } else {
            match compare(node.op, l, r) {
                Some(holds) if node.return_bool => f64::from(holds),
                Some(true) => *v,
                Some(false) => ABSENT,
                None => {
                    told.error(node.op, ElementError::Types("float", "float"), step);
                    ABSENT
                }
            }
        };
    }
}

/// Cells that hold histograms, and operators that only histograms have.
fn histograms(node: &Binary, swapped: bool, column: &[f64], out: &mut Batch, row: usize, told: &mut Told) {
    for (step, s) in column.iter().enumerate() {
        let cell = match out.cell(row, step) {
            Cell::Histogram(h) => Cell::Histogram(h),
            _ => continue,
        };
        let number = Cell::Float(*s);
        let (l, r) = if swapped { (&number, &cell) } else { (&cell, &number) };
        let result = match combine(node.op, l, r) {
            Ok(c) => match (node.return_bool, c.keep) {
                (true, keep) => Cell::Float(f64::from(keep)),
                (false, true) if node.op.is_comparison() && swapped => cell.clone(),
                (false, true) => c.value,
                (false, false) => Cell::Absent,
            },
            Err(e) => {
                told.error(node.op, e, step);
                Cell::Absent
            }
        };
        let at = row * out.steps() + step;
        out.histograms[at] = None;
        out.set(row, step, result);
    }
}
