//! The interface of operators, and the one place that makes operators of plan nodes.

use super::batch::Batch;
use super::context::Context;
use super::source::Selections;
use super::tally::TallyId;
use super::{
    absent, aggregate, binary, binary_scalar, count_values, elementwise, histogram_quantile, info, instant,
    invariant, label_ops, merge, scalar, set, sort, topk, window,
};
use crate::error::{QueryError, Result};
use crate::parser::ast::{AggregateOp, BinaryOp, ValueType};
use crate::plan::Grid;
use crate::plan::grid::Shift;
use crate::plan::node::{Aggregate, Binary, Call, Node};

/// Something that gives rows. Rows of all batches together are the vector at every step; no two rows have a sample at the
/// same step under the same labels. The order of rows is that of evaluation and the same in every run.
pub(crate) trait Operator: Send {
    /// Clears `out` and fills it with the next rows, possibly none; `false` when there are no more. After an error the
    /// query is over.
    fn next(&mut self, out: &mut Batch) -> Result<bool>;
}

/// An operator of a query.
pub(crate) type BoxOperator<'q> = Box<dyn Operator + 'q>;

/// Evaluates to the end what nobody looks at any more: for its annotations, and for an error that comes first.
pub(crate) fn drain(ctx: &Context<'_>, input: &mut dyn Operator) -> Result<()> {
    let mut rows = Batch::new();
    while input.next(&mut rows)? {
        ctx.check()?;
    }
    Ok(())
}

/// Makes operators of plan nodes.
#[derive(Clone, Copy)]
pub(crate) struct Builder<'q> {
    pub(crate) ctx: &'q Context<'q>,
    pub(crate) selections: &'q Selections,
    /// Where the samples that leaves read are counted.
    pub(crate) tally: TallyId,
}

/// What a node of vector type becomes: for a scalar the rows are one row without labels.
impl<'q> Builder<'q> {
    /// The operator of a vector, evaluated at the moments of `grid`.
    pub(crate) fn vector(&self, node: &'q Node, grid: Grid) -> Result<BoxOperator<'q>> {
        self.ctx.memory.fits_column(grid.count)?;
        self.ctx.reserve_row(grid.count)?;
        match node {
            Node::Instant(i) => Ok(Box::new(instant::InstantSelector::new(*self, i, grid))),
            Node::Window(w) => window::build(*self, w, grid),
            Node::Aggregate(a) => self.aggregate(a, grid),
            Node::Binary(b) => self.binary(b, grid),
            Node::Negate(n) => Ok(Box::new(elementwise::Negate::new(self.ctx, self.vector(n, grid)?))),
            Node::Invariant(n) => {
                let first = Grid { count: grid.count.min(1), ..Grid::single(grid.start_ms) };
                let once = self.once(grid, first).vector(n, first)?;
                Ok(Box::new(invariant::Repeat::new(self.ctx, once, grid)))
            }
            Node::Call(c) => self.call(c, grid),
            Node::Number(_) | Node::Time | Node::Text(_) | Node::Ranges(_) => Err(not_a_vector(node)),
        }
    }

    /// The operator of a scalar: one value per moment.
    pub(crate) fn scalar(&self, node: &'q Node, grid: Grid) -> Result<scalar::Scalar<'q>> {
        self.ctx.memory.fits_column(grid.count)?;
        scalar::Scalar::build(*self, node, grid)
    }

    /// The builder of what is evaluated once, on `first`, for all of `grid`.
    pub(crate) fn once(&self, grid: Grid, first: Grid) -> Self {
        // A grid without moments evaluates nothing, and nothing counts for it.
        let tally = if grid.count > 0 { self.ctx.tallies.invariant(self.tally, first) } else { self.tally };
        Self { tally, ..*self }
    }

    /// The builder of the inside of a subquery that a function looks at.
    pub(crate) fn inside(&self, inner: Grid, window: Shift, range_ms: i64) -> Result<Self> {
        let tally = self.ctx.tallies.subquery(&self.ctx.memory, self.tally, inner, window, range_ms)?;
        Ok(Self { tally, ..*self })
    }

    fn aggregate(&self, a: &'q Aggregate, grid: Grid) -> Result<BoxOperator<'q>> {
        let input = self.vector(&a.input, grid)?;
        match a.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                let param = self.param(a, grid)?;
                Ok(Box::new(topk::Pick::new(self.ctx, a, input, param, grid)))
            }
            AggregateOp::CountValues => {
                let label = match &a.param {
                    Some(Node::Text(label)) => label,
                    _ => return Err(QueryError::execution("count_values needs a label name")),
                };
                Ok(Box::new(count_values::CountValues::new(self.ctx, a, label, input)))
            }
            AggregateOp::Quantile => {
                let param = self.param(a, grid)?;
                Ok(Box::new(aggregate::quantile::Quantile::new(self.ctx, a, input, param)))
            }
            _ => Ok(aggregate::build(self.ctx, a, input)),
        }
    }

    fn param(&self, a: &'q Aggregate, grid: Grid) -> Result<scalar::Scalar<'q>> {
        match &a.param {
            Some(p) => self.scalar(p, grid),
            None => Err(QueryError::Execution(format!("{} needs a parameter", a.op.as_str()))),
        }
    }

    fn binary(&self, b: &'q Binary, grid: Grid) -> Result<BoxOperator<'q>> {
        match (b.lhs.value_type(), b.rhs.value_type()) {
            (ValueType::Vector, ValueType::Vector) => {
                let Some(matching) = &b.matching else {
                    return Err(QueryError::execution("operator between vectors without matching"));
                };
                if b.op.is_set() {
                    // Whether the name of a series goes is said once for all steps, by the side that comes first.
                    let merged = b.op == BinaryOp::Or && grid.is_range && self.ctx.delayed_names();
                    let sides = if merged { vec![&b.lhs, &b.rhs] } else { sides(b) };
                    let sides = sides.into_iter().map(|n| self.vector(n, grid)).collect::<Result<_>>()?;
                    let set: BoxOperator<'q> =
                        Box::new(set::SetOperator::new(self.ctx, b.op, matching, sides, grid));
                    return Ok(if merged { Box::new(merge::Merge::new(self.ctx, set, grid)) } else { set });
                }
                let (lhs, rhs) = (self.vector(&b.lhs, grid)?, self.vector(&b.rhs, grid)?);
                Ok(Box::new(binary::VectorBinary::new(self.ctx, b, matching, lhs, rhs, grid)))
            }
            (ValueType::Vector, _) => {
                let (v, s) = (self.vector(&b.lhs, grid)?, self.scalar(&b.rhs, grid)?);
                Ok(Box::new(binary_scalar::VectorScalar::new(self.ctx, b, v, s, false)))
            }
            (_, ValueType::Vector) => {
                let (s, v) = (self.scalar(&b.lhs, grid)?, self.vector(&b.rhs, grid)?);
                Ok(Box::new(binary_scalar::VectorScalar::new(self.ctx, b, v, s, true)))
            }
            _ => Err(QueryError::execution("an instant vector is needed here, got a scalar")),
        }
    }

    fn call(&self, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
        match c.func {
            "absent" => absent::build_absent(*self, c, grid),
            "vector" => Ok(Box::new(scalar::ScalarVector::new(self.scalar(arg(c, 0)?, grid)?, grid))),
            "label_replace" => label_ops::build_replace(*self, c, grid),
            "label_join" => label_ops::build_join(*self, c, grid),
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => sort::build(*self, c, grid),
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                histogram_quantile::build(*self, c, grid)
            }
            "info" => info::build(*self, c, grid),
            _ => elementwise::build(*self, c, grid),
        }
    }
}

/// The operands of a set operator; of `or`, those of all `or` on its left that match by the same labels.
fn sides(b: &Binary) -> Vec<&Node> {
    let (mut sides, mut left) = (vec![&b.rhs], &b.lhs);
    while let Node::Binary(inner) = left
        && b.op == BinaryOp::Or
        && inner.op == BinaryOp::Or
        && let (Some(m), Some(of_inner)) = (&b.matching, &inner.matching)
        && (m.on, &m.labels) == (of_inner.on, &of_inner.labels)
    {
        sides.push(&inner.rhs);
        left = &inner.lhs;
    }
    sides.push(left);
    sides.reverse();
    sides
}

/// An argument of a call.
pub(crate) fn arg(c: &Call, at: usize) -> Result<&Node> {
    c.args.get(at).ok_or_else(|| QueryError::Execution(format!("{}: argument {} is missing", c.func, at + 1)))
}

/// A string argument of a call.
pub(crate) fn text_arg(c: &Call, at: usize) -> Result<&str> {
    match arg(c, at)? {
        Node::Text(s) => Ok(s),
        _ => Err(QueryError::Execution(format!("{}: argument {} must be a string", c.func, at + 1))),
    }
}

fn not_a_vector(node: &Node) -> QueryError {
    QueryError::Execution(format!(
        "an instant vector is needed here, got a {}",
        node.value_type().documented()
    ))
}
