//! What plans are made of.

use model::{Matcher, RollupRequest, SelectHints};

use super::grid::Shift;
use crate::parser::ast::{AggregateOp, BinaryOp, Boundary, Span, ValueType, VectorMatching};

/// A plan: a tree and the selections that its leaves read.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) root: Node,
    pub(crate) selections: Vec<Selection>,
}

/// One read from storage. Several leaves may share one.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Of histograms only count, sum and resets are looked at: buckets may be left out.
    pub(crate) stats_only: bool,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) hints: SelectHints,
    /// Leaves that read it.
    pub(crate) users: usize,
    /// Cells that all leaves can do with in place of samples.
    pub(crate) rollup: Option<RollupRequest>,
}

impl Plan {
    /// Forgets rollups that are on none of the grids, which are those of a store.
    pub(crate) fn keep_rollups(&mut self, grids_ms: &[i64]) {
        for s in &mut self.selections {
            s.rollup = s.rollup.filter(|r| grids_ms.iter().any(|grid| r.is_on(*grid)));
        }
    }
}

/// The place in the query text that an annotation of a node points to. Of equal annotations the one with the highest
/// `rank` (the node evaluated last, operands before operators) is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Site {
    pub(crate) span: Span,
    pub(crate) rank: u32,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// A scalar that never changes.
    Number(f64),
    /// A string.
    Text(String),
    /// `time()`: the evaluation time in seconds, a scalar.
    Time,
    /// An instant vector read from storage.
    Instant(Box<Instant>),
    /// A function over the windows of series.
    Window(Box<WindowCall>),
    /// The windows themselves; only at the root.
    Ranges(Box<WindowSource>),
    /// Any other function.
    Call(Box<Call>),
    /// An aggregation.
    Aggregate(Box<Aggregate>),
    /// A binary operator.
    Binary(Box<Binary>),
    /// Unary minus.
    Negate(Box<Node>),
    /// Evaluated at the first moment, the same at all others.
    Invariant(Box<Node>),
}

/// An instant selector.
#[derive(Clone, Debug)]
pub(crate) struct Instant {
    pub(crate) selection: usize,
    pub(crate) shift: Shift,
    pub(crate) boundary: Boundary,
    pub(crate) reads: Reads,
    pub(crate) site: Site,
}

/// What an instant selector gives of the sample it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Value,
    /// Its timestamp in seconds.
    Timestamp,
    /// Its start timestamp in seconds.
    StartTimestamp,
}

/// A function over windows.
#[derive(Clone, Debug)]
pub(crate) struct WindowCall {
    pub(crate) func: &'static str,
    pub(crate) source: WindowSource,
    /// The scalar arguments, in order.
    pub(crate) scalars: Vec<Node>,
    /// The first argument of the call.
    pub(crate) first_arg: Site,
    /// All arguments.
    pub(crate) site: Site,
    /// What `absent_over_time` gives where there is nothing.
    pub(crate) absent_labels: Vec<(String, String)>,
}

/// Where windows come from.
#[derive(Clone, Debug)]
pub(crate) enum WindowSource {
    Selector { selection: usize, shift: Shift, range_ms: i64, boundary: Boundary },
    Subquery { input: Node, shift: Shift, range_ms: i64, step_ms: i64 },
}

impl WindowSource {
    pub(crate) fn shift(&self) -> Shift {
        match self {
            Self::Selector { shift, .. } | Self::Subquery { shift, .. } => *shift,
        }
    }

    pub(crate) fn range_ms(&self) -> i64 {
        match self {
            Self::Selector { range_ms, .. } | Self::Subquery { range_ms, .. } => *range_ms,
        }
    }

    pub(crate) fn boundary(&self) -> Boundary {
        match self {
            Self::Selector { boundary, .. } => *boundary,
            Self::Subquery { .. } => Boundary::Plain,
        }
    }
}

/// A function of instant vectors, scalars and strings.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) func: &'static str,
    pub(crate) returns: ValueType,
    pub(crate) args: Vec<Node>,
    /// One for each argument.
    pub(crate) arg_sites: Vec<Site>,
    pub(crate) site: Site,
    pub(crate) extra: CallExtra,
}

/// What only some functions need.
#[derive(Clone, Debug)]
pub(crate) enum CallExtra {
    None,
    /// Labels of the series that `absent` makes.
    Absent(Vec<(String, String)>),
    /// `info`: matchers of the second argument, and the time that the first one is pinned to.
    Info {
        matchers: Option<Vec<Matcher>>,
        shift: Shift,
    },
}

/// An aggregation.
#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    pub(crate) op: AggregateOp,
    pub(crate) input: Node,
    pub(crate) param: Option<Node>,
    pub(crate) grouping: Vec<String>,
    pub(crate) without: bool,
    /// The vector.
    pub(crate) input_site: Site,
    /// The parameter.
    pub(crate) param_site: Site,
    /// The whole.
    pub(crate) site: Site,
}

/// A binary operator.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub(crate) op: BinaryOp,
    pub(crate) lhs: Node,
    pub(crate) rhs: Node,
    /// There when both sides are vectors.
    pub(crate) matching: Option<VectorMatching>,
    pub(crate) return_bool: bool,
    /// Scalar when both sides are, else vector.
    pub(crate) value_type: ValueType,
    pub(crate) site: Site,
}

impl Node {
    /// What the node gives.
    pub(crate) fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) | Self::Time => ValueType::Scalar,
            Self::Text(_) => ValueType::String,
            Self::Instant(_) | Self::Window(_) | Self::Aggregate(_) => ValueType::Vector,
            Self::Ranges(_) => ValueType::Matrix,
            Self::Call(c) => c.returns,
            Self::Binary(b) => b.value_type,
            Self::Negate(n) | Self::Invariant(n) => n.value_type(),
        }
    }

    /// Calls `visit` for every operand.
    pub(crate) fn for_each_child_mut(&mut self, visit: &mut dyn FnMut(&mut Node)) {
        match self {
            Self::Number(_) | Self::Text(_) | Self::Time | Self::Instant(_) => {}
            Self::Window(w) => {
                w.scalars.iter_mut().for_each(&mut *visit);
                if let WindowSource::Subquery { input, .. } = &mut w.source {
                    visit(input);
                }
            }
            Self::Ranges(source) => {
                if let WindowSource::Subquery { input, .. } = &mut **source {
                    visit(input);
                }
            }
            Self::Call(c) => c.args.iter_mut().for_each(visit),
            Self::Aggregate(a) => {
                a.param.iter_mut().for_each(&mut *visit);
                visit(&mut a.input);
            }
            Self::Binary(b) => {
                visit(&mut b.lhs);
                visit(&mut b.rhs);
            }
            Self::Negate(n) | Self::Invariant(n) => visit(n),
        }
    }
}
