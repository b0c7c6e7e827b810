//! The typed syntax tree of a PromQL expression. Nodes are what Prometheus's `querying/basics.md` and `querying/operators.md` name.
//!
//! Every node knows the bytes of the query text it was read from ([`Span`]); positions say nothing about meaning, so they
//! are left out of `==`. Nodes hold what the user wrote, not what the engine makes of it: an offset is the written
//! offset, step invariance and resolved times belong to the plan.
//!
//! The tree that the parser hands out is nested at most [`super::ParserOptions::max_depth`] deep, where a chain of
//! operators (`a + b - c`, a tree that leans to the left) counts as one level. `Drop`, `Clone`, `==` and printing go down
//! chains in a loop, so they need no care for the stack; other walks do the same ([`Binary::chain`]) or keep a list
//! ([`Expr::walk`]). Chains are in `ast/chain.rs`, what can be asked of any expression in `ast/walk.rs`, positions in
//! `ast/span.rs`.

mod chain;
mod span;
mod walk;

use model::labels::Quoted;
use model::{MatchOp, Matcher};

pub use super::duration::{Duration, DurationExpr, DurationOp};
pub use super::functions::FunctionSpec;
pub use super::operators::{AggregateOp, BinaryOp, MatchCardinality, UnaryOp};
pub use span::Span;

/// What an expression gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// Nothing that can be evaluated.
    None,
    /// One number per step.
    Scalar,
    /// One sample per series and step.
    Vector,
    /// A window of samples per series and step.
    Matrix,
    /// A string.
    String,
}

impl ValueType {
    /// The name in the API: `vector`, `matrix`, …
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::String => "string",
        }
    }

    /// The name in the documentation and in error texts: `instant vector`, `range vector`, …
    #[must_use]
    pub fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

/// An expression. Two words wide; the parts are boxed.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `1`, `0x1f`, `Inf`, `5m`
    Number(Box<NumberLiteral>),
    /// `"text"`
    String(Box<StringLiteral>),
    /// `up{job="a"} offset 5m @ 10`
    Vector(Box<VectorSelector>),
    /// `up[5m]`
    Matrix(Box<MatrixSelector>),
    /// `rate(up[5m])[1h:1m]`
    Subquery(Box<Subquery>),
    /// `rate(up[5m])`
    Call(Box<Call>),
    /// `sum by (job) (up)`
    Aggregate(Box<Aggregate>),
    /// `a + on (x) b`
    Binary(Box<Binary>),
    /// `-a`
    Unary(Box<Unary>),
    /// `(a)`
    Paren(Box<Paren>),
}

/// A number.
#[derive(Clone, Debug)]
pub struct NumberLiteral {
    /// The value; a duration counts in seconds.
    pub value: f64,
    /// Whether it was written as a duration, which printing keeps.
    pub duration: bool,
    /// Where it stands, its sign included.
    pub span: Span,
}

impl PartialEq for NumberLiteral {
    fn eq(&self, o: &Self) -> bool {
        self.duration == o.duration && same_number(self.value, o.value)
    }
}

/// All NaNs are one number here.
fn same_number(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// A string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringLiteral {
    /// The value without quotes and escapes. Escaped bytes that are no UTF-8 are replaced by U+FFFD, as they would be
    /// in any answer.
    pub value: String,
    /// The bytes as escaped, when they are no UTF-8: no valid label name or value, in particular.
    pub not_utf8: Option<Box<[u8]>>,
    /// Where it stands, quotes included.
    pub span: Span,
}

/// The time an `@` modifier pins a selector to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Milliseconds since the Unix epoch.
    Timestamp(i64),
    /// `@ start()`: the start of the query's range.
    Start,
    /// `@ end()`: the end of the query's range.
    End,
}

/// What happens at the ends of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Boundary {
    /// Samples in the window only.
    #[default]
    Plain,
    /// `anchored`: the sample before the window counts as one at its start.
    Anchored,
    /// `smoothed`: values at both ends are interpolated.
    Smoothed,
}

/// An instant vector selector. The order of its matchers does not matter for `==`.
#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The metric name written before the braces. There is a matcher for it too, the last one.
    pub name: Option<String>,
    /// All matchers, in the order written, the one for `name` last.
    pub matchers: Vec<Matcher>,
    /// The offset as written; zero when there is none.
    pub offset: Duration,
    /// The `@` modifier.
    pub at: Option<At>,
    /// The `anchored` or `smoothed` modifier.
    pub boundary: Boundary,
    /// Where it stands, its modifiers included.
    pub span: Span,
}

impl PartialEq for VectorSelector {
    fn eq(&self, o: &Self) -> bool {
        fn sorted(v: &VectorSelector) -> Vec<(&str, MatchOp, &str)> {
            let mut keys: Vec<_> =
                v.matchers.iter().map(|m| (m.name.as_str(), m.op, m.value.as_str())).collect();
            keys.sort_unstable();
            keys
        }
        self.name == o.name
            && self.offset == o.offset
            && self.at == o.at
            && self.boundary == o.boundary
            && sorted(self) == sorted(o)
    }
}

/// A range vector selector. Modifiers written after the range are on `selector`.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// The series, offset, `@` and boundary.
    pub selector: VectorSelector,
    /// Length of the window.
    pub range: Duration,
    /// Where it stands, its modifiers included.
    pub span: Span,
}

/// A subquery.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated at every step.
    pub expr: Expr,
    /// Length of the window.
    pub range: Duration,
    /// Distance of the steps; `None` is the default interval of the engine.
    pub step: Option<Duration>,
    /// The offset as written; zero when there is none.
    pub offset: Duration,
    /// The `@` modifier.
    pub at: Option<At>,
    /// Where it stands, its modifiers included.
    pub span: Span,
}

/// A function call. Number and types of the arguments fit the function.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub func: &'static FunctionSpec,
    /// Its arguments.
    pub args: Vec<Expr>,
    /// From the name to the closing parenthesis.
    pub span: Span,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// The vector that is aggregated.
    pub expr: Expr,
    /// The parameter: a string for `count_values`, else a scalar; there if and only if the operator takes one.
    pub param: Option<Expr>,
    /// Labels of the `by` or `without` clause, as written.
    pub grouping: Vec<String>,
    /// Whether the clause is `without`.
    pub without: bool,
    /// From the operator to the end.
    pub span: Span,
}

/// How the series of two vectors find each other.
#[derive(Clone, Debug)]
pub struct VectorMatching {
    /// How many series of either side may share a match group.
    pub card: MatchCardinality,
    /// Labels of the `on` or `ignoring` clause, as written.
    pub labels: Vec<String>,
    /// Whether the clause is `on`.
    pub on: bool,
    /// Labels of the `group_left` or `group_right` clause: they are taken from the "one" side.
    pub include: Vec<String>,
    /// `fill_left`: the value for a series missing on the left.
    pub fill_left: Option<f64>,
    /// `fill_right`: the value for a series missing on the right.
    pub fill_right: Option<f64>,
}

impl PartialEq for VectorMatching {
    fn eq(&self, o: &Self) -> bool {
        let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => same_number(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        self.card == o.card
            && self.labels == o.labels
            && self.on == o.on
            && self.include == o.include
            && same(self.fill_left, o.fill_left)
            && same(self.fill_right, o.fill_right)
    }
}

/// A binary operation.
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: Expr,
    /// Right operand.
    pub rhs: Expr,
    /// Vector matching; there if and only if both operands are vectors.
    pub matching: Option<VectorMatching>,
    /// Whether a comparison gives 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Scalar when both operands are, else vector. Kept here so that asking costs nothing in long chains.
    pub value_type: ValueType,
    /// From the start of the left operand to the end of the right one.
    pub span: Span,
}

/// A sign before anything but a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// The sign.
    pub op: UnaryOp,
    /// The operand: scalar or vector.
    pub expr: Expr,
    /// From the sign to the end of the operand.
    pub span: Span,
}

/// An expression in parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct Paren {
    /// What is inside.
    pub expr: Expr,
    /// Parentheses included.
    pub span: Span,
}

impl StringLiteral {
    /// The value in double quotes with Go's escapes, bytes that are no UTF-8 as `\xff`.
    #[must_use]
    pub fn quoted(&self) -> String {
        match &self.not_utf8 {
            None => Quoted(&self.value).to_string(),
            Some(bytes) => super::string::quote_bytes(bytes),
        }
    }
}
