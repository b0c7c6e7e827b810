//! Scalars: one float per step, worked out as a column when first needed.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#scalar>, `#vector`, `#time`.

use super::batch::{Batch, Head, clean, is_float, rows_bytes};
use super::context::Context;
use super::operator::{BoxOperator, Builder, Operator, arg};
use crate::error::{QueryError, Result};
use crate::functions::{math, scalar_binary};
use crate::parser::ast::{BinaryOp, ValueType};
use crate::plan::Grid;
use crate::plan::node::Node;
use model::Labels;

/// A scalar expression.
pub(crate) enum Scalar<'q> {
    Constant(f64, usize),
    Time(Grid),
    /// `scalar(v)`
    OfVector(BoxOperator<'q>, usize, &'q Context<'q>),
    Negate(Box<Scalar<'q>>),
    Binary(BinaryOp, Box<Scalar<'q>>, Box<Scalar<'q>>),
    MaxOf(Box<Scalar<'q>>, Box<Scalar<'q>>),
    MinOf(Box<Scalar<'q>>, Box<Scalar<'q>>),
    /// The same at all steps.
    Once(Box<Scalar<'q>>, usize),
}

impl<'q> Scalar<'q> {
    pub(crate) fn build(b: Builder<'q>, node: &'q Node, grid: Grid) -> Result<Self> {
        b.ctx.reserve_row(grid.count)?;
        let boxed = |n: &'q Node| Ok::<_, QueryError>(Box::new(Self::build(b, n, grid)?));
        Ok(match node {
            Node::Number(v) => Self::Constant(*v, grid.count),
            Node::Time => Self::Time(grid),
            Node::Negate(n) => Self::Negate(boxed(n)?),
            Node::Binary(bin) => Self::Binary(bin.op, boxed(&bin.lhs)?, boxed(&bin.rhs)?),
            Node::Invariant(n) => {
                let first = Grid { count: grid.count.min(1), ..Grid::single(grid.start_ms) };
                Self::Once(Box::new(Self::build(b.once(grid, first), n, first)?), grid.count)
            }
            Node::Call(c) if c.func == "scalar" => {
                Self::OfVector(b.vector(arg(c, 0)?, grid)?, grid.count, b.ctx)
            }
            Node::Call(c) if c.func == "max_of" => Self::MaxOf(boxed(arg(c, 0)?)?, boxed(arg(c, 1)?)?),
            Node::Call(c) if c.func == "min_of" => Self::MinOf(boxed(arg(c, 0)?)?, boxed(arg(c, 1)?)?),
            other => {
                let got = match other {
                    Node::Call(c) if c.returns == ValueType::Scalar => format!("function {}", c.func),
                    _ => other.value_type().documented().to_owned(),
                };
                return Err(QueryError::Execution(format!("a scalar is needed here, got {got}")));
            }
        })
    }

    /// The value at every step.
    pub(crate) fn column(&mut self) -> Result<Vec<f64>> {
        let zip = |a: &mut Scalar<'_>, b: &mut Scalar<'_>, f: &dyn Fn(f64, f64) -> f64| {
            let (mut a, b) = (a.column()?, b.column()?);
            a.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, b));
            Ok(a)
        };
        match self {
            Self::Constant(v, n) => Ok(vec![*v; *n]),
            Self::Time(g) => Ok((0..g.count).map(|i| g.at(i) as f64 / 1000.0).collect()),
            Self::OfVector(v, steps, ctx) => only_floats(ctx, v, *steps),
            Self::Negate(s) => {
                let mut column = s.column()?;
                column.iter_mut().for_each(|v| *v = -*v);
                Ok(column)
            }
            Self::Binary(op, a, b) => {
                let op = *op;
                if scalar_binary(op, 0.0, 0.0).is_none() {
                    let text = format!("operator {:?} not allowed for Scalar operations", op.as_str());
                    return Err(QueryError::Execution(text));
                }
                zip(a, b, &|a, b| scalar_binary(op, a, b).unwrap_or(f64::NAN))
            }
            Self::MaxOf(a, b) => zip(a, b, &math::max),
            Self::MinOf(a, b) => zip(a, b, &math::min),
            Self::Once(s, n) => Ok(s.column()?.first().map_or_else(Vec::new, |v| vec![*v; *n])),
        }
    }
}

/// At each step the only float of a vector; NaN where there are none or several.
fn only_floats(ctx: &Context<'_>, v: &mut BoxOperator<'_>, steps: usize) -> Result<Vec<f64>> {
    let mut bytes = ctx.memory.hold();
    bytes.add(rows_bytes(2, steps))?;
    let mut found = vec![(0_u8, f64::NAN); steps];
    let mut rows = Batch::new();
    while v.next(&mut rows)? {
        ctx.check()?;
        for row in 0..rows.rows() {
            for (f, v) in found.iter_mut().zip(rows.row(row)).filter(|(_, v)| is_float(**v)) {
                *f = (f.0.saturating_add(1), *v);
            }
        }
    }
    Ok(found.into_iter().map(|(n, v)| if n == 1 { v } else { f64::NAN }).collect())
}

/// `vector(s)`, and scalars as answers: one row without labels.
pub(crate) struct ScalarVector<'q> {
    scalar: Option<Scalar<'q>>,
    grid: Grid,
}

impl<'q> ScalarVector<'q> {
    pub(crate) fn new(scalar: Scalar<'q>, grid: Grid) -> Self {
        Self { scalar: Some(scalar), grid }
    }
}

impl Operator for ScalarVector<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        let Some(mut scalar) = self.scalar.take() else { return Ok(false) };
        let column = scalar.column()?;
        let row = out.push_row(Head { labels: Labels::empty(), drop_name: false });
        out.row_mut(row).iter_mut().zip(column).for_each(|(cell, v)| *cell = clean(v));
        Ok(true)
    }
}
