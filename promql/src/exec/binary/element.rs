//! Binary operators between two samples, floats or native histograms.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#binary-operators>.

use std::sync::Arc;

use crate::annotations::{HistogramOperation, Note};
use crate::exec::batch::{Cell, clean};
use crate::exec::context::Context;
use crate::functions::histogram as hist;
use crate::functions::math::{arithmetic, compare};
use crate::parser::ast::BinaryOp;
use crate::plan::node::Binary;

/// Outcome of an operator between two samples.
pub(crate) struct Combined {
    pub(crate) value: Cell,
    pub(crate) keep: bool,
    /// Custom bucket bounds differed.
    pub(crate) reconciled: bool,
}

/// Why two samples do not combine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ElementError {
    /// Kinds of the two sides.
    Types(&'static str, &'static str),
    /// Bucket schemas do not fit.
    Layout,
    /// One side was reset, the other was not.
    Collision,
}

fn operation(op: BinaryOp) -> HistogramOperation {
    if op == BinaryOp::Sub { HistogramOperation::Subtraction } else { HistogramOperation::Addition }
}

/// The operator between two samples.
pub(crate) fn combine(op: BinaryOp, l: &Cell, r: &Cell) -> std::result::Result<Combined, ElementError> {
    let plain = |value: Cell| Ok(Combined { value, keep: true, reconciled: false });
    let shared = |h| plain(Cell::Histogram(Arc::new(h)));
    match (l, r) {
        (Cell::Float(a), Cell::Float(b)) => {
            if let Some(v) = arithmetic(op, *a, *b) {
                return plain(Cell::Float(clean(v)));
            }
            match compare(op, *a, *b) {
                Some(keep) => Ok(Combined { value: l.clone(), keep, reconciled: false }),
                None => Err(ElementError::Types("float", "float")),
            }
        }
        (Cell::Float(a), Cell::Histogram(h)) => match op {
            BinaryOp::Mul => shared(hist::scaled(h, *a)),
            _ => Err(ElementError::Types("float", "histogram")),
        },
        (Cell::Histogram(h), Cell::Float(b)) => match op {
            BinaryOp::Mul => shared(hist::scaled(h, *b)),
            BinaryOp::Div => shared(hist::divided(h, *b)),
            BinaryOp::TrimUpper => shared(hist::trimmed(h, *b, true)),
            BinaryOp::TrimLower => shared(hist::trimmed(h, *b, false)),
            _ => Err(ElementError::Types("histogram", "float")),
        },
        (Cell::Histogram(a), Cell::Histogram(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => {
                let (h, outcome) = match op {
                    BinaryOp::Add => hist::sum(a, b),
                    _ => hist::difference(a, b),
                }
                .ok_or(ElementError::Layout)?;
                if outcome.collision {
                    return Err(ElementError::Collision);
                }
                let value = Cell::Histogram(Arc::new(h));
                Ok(Combined { value, keep: true, reconciled: outcome.reconciled })
            }
            BinaryOp::Eq | BinaryOp::NotEq => {
                let keep = hist::equal(a, b) == (op == BinaryOp::Eq);
                Ok(Combined { value: l.clone(), keep, reconciled: false })
            }
            _ => Err(ElementError::Types("histogram", "histogram")),
        },
        (Cell::Absent, _) | (_, Cell::Absent) => plain(Cell::Absent),
    }
}

/// What is to be told about each step. Of several things at one step only the last is told.
#[derive(Default)]
pub(crate) struct Told {
    by_step: Vec<Option<Note<'static>>>,
}

impl Told {
    /// Remembers that something went wrong at a step.
    pub(crate) fn error(&mut self, op: BinaryOp, e: ElementError, step: usize) {
        let note = match e {
            ElementError::Types(lhs, rhs) => Note::IncompatibleTypes { lhs, op: op.as_str(), rhs },
            ElementError::Layout => Note::IncompatibleBucketLayout(op.as_str()),
            ElementError::Collision => Note::CounterResetCollision(operation(op)),
        };
        self.put(note, step);
    }

    /// Remembers that custom bounds differed at a step.
    pub(crate) fn reconciled(&mut self, op: BinaryOp, step: usize) {
        self.put(Note::MismatchedCustomBuckets(operation(op)), step);
    }

    fn put(&mut self, note: Note<'static>, step: usize) {
        if step >= self.by_step.len() {
            self.by_step.resize(step + 1, None);
        }
        self.by_step[step] = Some(note);
    }

    /// Tells it.
    pub(crate) fn tell(&mut self, ctx: &Context<'_>, node: &Binary) {
        std::mem::take(&mut self.by_step).into_iter().flatten().for_each(|note| ctx.note(node.site, note));
    }
}
