//! Durations in expressions: a literal, or arithmetic that is worked out when the query's step and range are known. Follows
//! Prometheus's `querying/basics.md`, "Float literals and time durations", and `feature_flags.md`, "Experimental duration
//! arithmetic".

use super::ast::Span;

/// A range, step or offset. Offsets may be negative, ranges and steps are not. What is below a millisecond makes no two of
/// them differ.
#[derive(Clone, Debug)]
pub enum Duration {
    /// Nanoseconds, of which only the whole milliseconds count when the query runs.
    Nanos(i64),
    /// Arithmetic, to be resolved with [`Duration::resolve_positive`] or [`Duration::resolve_signed`].
    Expr(Box<DurationExpr>),
}

impl PartialEq for Duration {
    fn eq(&self, o: &Self) -> bool {
        match (self, o) {
            (Self::Nanos(a), Self::Nanos(b)) => a / NANOS_PER_MS == b / NANOS_PER_MS,
            (Self::Expr(a), Self::Expr(b)) => a == b,
            _ => false,
        }
    }
}

impl Default for Duration {
    fn default() -> Self {
        Self::Nanos(0)
    }
}

/// Arithmetic on durations. Values are seconds.
#[derive(Clone, Debug)]
pub enum DurationExpr {
    /// A number of seconds, or a duration.
    Number {
        /// Seconds.
        seconds: f64,
        /// Whether it was written as a duration, which printing keeps.
        duration: bool,
        /// Where it stands.
        span: Span,
    },
    /// `step()`: the step of the query.
    Step(Span),
    /// `range()`: the length of the query's range.
    Range(Span),
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>, Span),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>, Span),
    /// `-a`
    Neg(Box<DurationExpr>, Span),
    /// `+a`, which only an offset keeps, and only before a function. It is left out of `==` and of what is printed.
    Plus(Box<DurationExpr>, Span),
    /// `(a)`, never in further parentheses. The span is that of the inside.
    Paren(Box<DurationExpr>, Span),
    /// `a + b`
    Binary {
        /// The operator.
        op: DurationOp,
        /// Left operand.
        lhs: Box<DurationExpr>,
        /// Right operand.
        rhs: Box<DurationExpr>,
        /// From the start of the left operand to the end of the right one.
        span: Span,
    },
}

/// Binary operators on durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DurationOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

/// Why a duration expression has no value. Prints as `START:END: reason`, byte positions in the query text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {reason}", span.start, span.end)]
pub struct DurationError {
    /// The expression concerned.
    pub span: Span,
    /// What is wrong.
    pub reason: &'static str,
}

pub(super) const NANOS_PER_MS: i64 = 1_000_000;

/// Largest magnitude of a duration in seconds: what 64 bits of nanoseconds hold.
pub(super) const MAX_SECONDS: f64 = 9_223_372_036.854_776;

impl Duration {
    /// Whether it is the literal zero, which is how a missing offset is written down.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        matches!(self, Self::Nanos(0))
    }

    /// Milliseconds of a range or step. `step_ms` and `range_ms` are those of the query; both are 0 for an instant query.
    ///
    /// # Errors
    /// When the value is not above zero, not finite, too large, or divides by zero.
    pub fn resolve_positive(&self, step_ms: i64, range_ms: i64) -> Result<i64, DurationError> {
        self.resolve(step_ms, range_ms, false)
    }

    /// Milliseconds of an offset, which may be negative.
    ///
    /// # Errors
    /// When the value is not finite, too large, or divides by zero.
    pub fn resolve_signed(&self, step_ms: i64, range_ms: i64) -> Result<i64, DurationError> {
        self.resolve(step_ms, range_ms, true)
    }

    fn resolve(&self, step_ms: i64, range_ms: i64, signed: bool) -> Result<i64, DurationError> {
        let expr = match self {
            Self::Nanos(ns) => return Ok(ns / NANOS_PER_MS),
            Self::Expr(e) => e,
        };
        let fail = |reason| Err(DurationError { span: expr.span(), reason });
        let seconds = expr.seconds(step_ms, range_ms)?;
        if !seconds.is_finite() {
            return fail("duration is NaN or infinite");
        }
        if seconds <= 0.0 && !signed {
            return fail("duration must be greater than 0");
        }
        if seconds.abs() > MAX_SECONDS {
            return fail("duration is out of range");
        }
        Ok((seconds * 1000.0) as i64)
    }
}

impl DurationExpr {
    /// Where the expression stands in the query text.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::Number { span, .. }
            | Self::Step(span)
            | Self::Range(span)
            | Self::MinOf(.., span)
            | Self::MaxOf(.., span)
            | Self::Neg(_, span)
            | Self::Plus(_, span)
            | Self::Paren(_, span)
            | Self::Binary { span, .. } => *span,
        }
    }

    /// Whether an offset that is written so ends by itself: one term without parentheses, or with one sign. Anything else
    /// takes the operators that follow.
    pub(super) fn ends_itself(&self) -> bool {
        match self {
            Self::Neg(e, _) => !matches!(**e, Self::Neg(..) | Self::Binary { .. }),
            Self::Paren(..) | Self::Binary { .. } => false,
            _ => true,
        }
    }

    /// The expression in parentheses, which stand at `span` if it is a number. Another pair makes no difference.
    pub(super) fn in_parens(self, span: Span) -> Self {
        match self {
            Self::Paren(..) => self,
            Self::Number { .. } => Self::Paren(Box::new(self), span),
            other => {
                let span = other.span();
                Self::Paren(Box::new(other), span)
            }
        }
    }

    /// A literal becomes nanoseconds.
    pub(super) fn into_duration(self) -> Duration {
        match self {
            Self::Number { seconds, .. } => Duration::Nanos((seconds * 1e9).round() as i64),
            other => Duration::Expr(Box::new(other)),
        }
    }

    /// The value in seconds.
    fn seconds(&self, step_ms: i64, range_ms: i64) -> Result<f64, DurationError> {
        let value = |e: &DurationExpr| e.seconds(step_ms, range_ms);
        Ok(match self {
            Self::Number { seconds, .. } => *seconds,
            Self::Step(_) => step_ms as f64 / 1000.0,
            Self::Range(_) => range_ms as f64 / 1000.0,
            Self::MinOf(a, b, _) => nan_or(value(a)?, value(b)?, f64::min),
            Self::MaxOf(a, b, _) => nan_or(value(a)?, value(b)?, f64::max),
            Self::Neg(e, _) => -value(e)?,
            Self::Plus(e, _) | Self::Paren(e, _) => value(e)?,
            Self::Binary { op, lhs, rhs, span } => {
                let (a, b) = (value(lhs)?, value(rhs)?);
                let zero_divisor = |reason| Err(DurationError { span: *span, reason });
                match op {
                    DurationOp::Add => a + b,
                    DurationOp::Sub => a - b,
                    DurationOp::Mul => a * b,
                    DurationOp::Div if b == 0.0 => return zero_divisor("division by zero"),
                    DurationOp::Div => a / b,
                    DurationOp::Mod if b == 0.0 => return zero_divisor("modulo by zero"),
                    DurationOp::Mod => a % b,
                    DurationOp::Pow => a.powf(b),
                }
            }
        })
    }
}

impl PartialEq for DurationExpr {
    fn eq(&self, o: &Self) -> bool {
        match (self, o) {
            (Self::Plus(a, _), b) => **a == *b,
            (a, Self::Plus(b, _)) => *a == **b,
            (
                Self::Number { seconds: a, duration: a_duration, .. },
                Self::Number { seconds: b, duration: b_duration, .. },
            ) => a_duration == b_duration && (a == b || (a.is_nan() && b.is_nan())),
            (Self::Step(_), Self::Step(_)) | (Self::Range(_), Self::Range(_)) => true,
            (Self::MinOf(a, b, _), Self::MinOf(c, d, _)) | (Self::MaxOf(a, b, _), Self::MaxOf(c, d, _)) => {
                a == c && b == d
            }
            (Self::Neg(a, _), Self::Neg(b, _)) | (Self::Paren(a, _), Self::Paren(b, _)) => a == b,
            (Self::Binary { op, lhs, rhs, .. }, Self::Binary { op: o_op, lhs: o_lhs, rhs: o_rhs, .. }) => {
                op == o_op && lhs == o_lhs && rhs == o_rhs
            }
            _ => false,
        }
    }
}

/// NaN when either is, else `pick`.
fn nan_or(a: f64, b: f64, pick: fn(f64, f64) -> f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) }
}

impl DurationOp {
    /// The operator as PromQL writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        }
    }
}
