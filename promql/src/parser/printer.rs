//! Trees to text, as Prometheus prints them: durations normalised, matchers sorted, modifiers in one order.
//!
//! What is printed means the same as what was read. Some texts of Prometheus's do not, and there this one differs: an offset
//! that would take the operator after it is put in parentheses or gets signs, a range below a millisecond keeps its digits,
//! and a label that is a keyword gets quotes.

use std::fmt::{self, Display, Formatter, Write};

use model::duration::format_ms;
use model::labels::{METRIC_NAME, Quoted, is_legacy_label_name};
use model::{MatchOp, Matcher};

use super::ast::{
    Aggregate, At, Binary, BinaryOp, Boundary, Duration, DurationExpr, Expr, MatchCardinality,
    MatrixSelector, NumberLiteral, Subquery, UnaryOp, VectorMatching, VectorSelector,
};
use super::duration::NANOS_PER_MS;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::String(s) => f.write_str(&s.quoted()),
            Self::Vector(_) | Self::Matrix(_) | Self::Subquery(_) => {
                let parens = f.alternate() && self.ends_open();
                f.write_str(if parens { "(" } else { "" })?;
                match self {
                    Self::Vector(v) => v.fmt(f),
                    Self::Matrix(m) => m.fmt(f),
                    Self::Subquery(s) => s.fmt(f),
                    _ => Ok(()),
                }?;
                f.write_str(if parens { ")" } else { "" })
            }
            Self::Call(c) => {
                write!(f, "{}(", c.func.name)?;
                separated(f, &c.args, ", ", |f, a| write!(f, "{a}"))?;
                f.write_char(')')
            }
            Self::Aggregate(a) => a.fmt(f),
            Self::Binary(b) => b.fmt(f),
            Self::Unary(u) => {
                f.write_char(if u.op == UnaryOp::Minus { '-' } else { '+' })?;
                u.expr.fmt(f)
            }
            Self::Paren(p) => write!(f, "({})", p.expr),
        }
    }
}

impl Expr {
    /// Whether the text ends with an offset that would take the arithmetic after it, as in `a offset (1m)`. There is one
    /// before an operator where a sign, which is not kept, or a modifier, which is printed before the offset, ended it:
    /// `a offset +(1m) * 2`, `a offset (1m) @ 10 * 2`. Alternate (`{:#}`) formatting puts parentheses around it.
    pub(super) fn ends_open(&self) -> bool {
        let offset = match self {
            Self::Vector(v) => &v.offset,
            Self::Matrix(m) => &m.selector.offset,
            Self::Subquery(s) => &s.offset,
            Self::Binary(b) => return b.rhs.ends_open(),
            Self::Unary(u) => return u.expr.ends_open(),
            _ => return false,
        };
        matches!(offset, Duration::Expr(written) if !written.ends_itself())
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        number(f, self.value, self.duration)
    }
}

/// A number, or a duration given in seconds.
fn number(f: &mut Formatter<'_>, value: f64, duration: bool) -> fmt::Result {
    if duration && value.is_finite() {
        if value.is_sign_negative() && value != 0.0 {
            f.write_char('-')?;
        }
        return f.write_str(&format_ms((value.abs() * 1e9) as i64 / NANOS_PER_MS));
    }
    match value {
        v if v.is_nan() => f.write_str("NaN"),
        v if v.is_infinite() => f.write_str(if v > 0.0 { "+Inf" } else { "-Inf" }),
        v => write!(f, "{v}"),
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.series(f)?;
        at(f, self.at)?;
        boundary(f, self.boundary)?;
        offset(f, &self.offset)
    }
}

impl VectorSelector {
    /// Name and matchers, without the modifiers.
    fn series(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("");
        f.write_str(name)?;
        let is_name = |m: &Matcher| {
            m.name == METRIC_NAME && m.op == MatchOp::Equal && m.value == name && !m.value.is_empty()
        };
        let mut parts: Vec<String> =
            self.matchers.iter().filter(|m| !is_name(m)).map(ToString::to_string).collect();
        if parts.is_empty() {
            return if name.is_empty() { f.write_str("{}") } else { Ok(()) };
        }
        parts.sort_unstable();
        f.write_char('{')?;
        separated(f, &parts, ",", |f, p| f.write_str(p))?;
        f.write_char('}')
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.selector.series(f)?;
        f.write_char('[')?;
        range(f, &self.range)?;
        f.write_char(']')?;
        boundary(f, self.selector.boundary)?;
        at(f, self.selector.at)?;
        offset(f, &self.selector.offset)
    }
}

impl Display for Subquery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.expr, SubqueryTail(self))
    }
}

/// What follows the expression of a subquery.
pub(super) struct SubqueryTail<'a>(pub(super) &'a Subquery);

impl Display for SubqueryTail<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        range(f, &self.0.range)?;
        f.write_char(':')?;
        if let Some(step) = &self.0.step {
            range(f, step)?;
        }
        f.write_char(']')?;
        at(f, self.0.at)?;
        offset(f, &self.0.offset)
    }
}

/// A range or step. Less than a millisecond has no notation as a duration that would be accepted.
fn range(f: &mut Formatter<'_>, range: &Duration) -> fmt::Result {
    match range {
        Duration::Nanos(ns) if *ns < NANOS_PER_MS => write!(f, "{}", *ns as f64 / 1e9),
        Duration::Nanos(ns) => f.write_str(&format_ms(ns / NANOS_PER_MS)),
        Duration::Expr(e) => e.fmt(f),
    }
}

fn offset(f: &mut Formatter<'_>, offset: &Duration) -> fmt::Result {
    match offset {
        Duration::Nanos(0) => Ok(()),
        Duration::Nanos(ns) => {
            f.write_str(if *ns < 0 { " offset -" } else { " offset " })?;
            f.write_str(&format_ms((ns / NANOS_PER_MS).saturating_abs()))
        }
        Duration::Expr(e) => write!(f, " offset {}{e}", opening(e)),
    }
}

/// The signs that make an offset be read to its end. Without them `offset 5m - 1m` and `offset -2 ^ 2` end after the
/// first term; after two signs or a parenthesis all arithmetic belongs to the offset.
fn opening(e: &DurationExpr) -> &'static str {
    if e.ends_itself() {
        return "";
    }
    let mut first = e;
    while let DurationExpr::Binary { lhs, .. } = first {
        first = lhs;
    }
    match first {
        DurationExpr::Paren(..) => "",
        DurationExpr::Neg(inner, _) if matches!(**inner, DurationExpr::Neg(..)) => "",
        DurationExpr::Neg(..) => "+",
        DurationExpr::Number { seconds, .. } if seconds.is_sign_negative() => "+",
        _ => "++",
    }
}

fn at(f: &mut Formatter<'_>, at: Option<At>) -> fmt::Result {
    match at {
        None => Ok(()),
        Some(At::Start) => f.write_str(" @ start()"),
        Some(At::End) => f.write_str(" @ end()"),
        Some(At::Timestamp(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let abs = ms.unsigned_abs();
            write!(f, " @ {sign}{}.{:03}", abs / 1000, abs % 1000)
        }
    }
}

fn boundary(f: &mut Formatter<'_>, boundary: Boundary) -> fmt::Result {
    f.write_str(match boundary {
        Boundary::Plain => "",
        Boundary::Anchored => " anchored",
        Boundary::Smoothed => " smoothed",
    })
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", AggregateHead(self))?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

/// What stands before the parenthesis of an aggregation.
pub(super) struct AggregateHead<'a>(pub(super) &'a Aggregate);

impl Display for AggregateHead<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Aggregate { op, grouping, without, .. } = self.0;
        f.write_str(op.as_str())?;
        if *without || !grouping.is_empty() {
            f.write_str(if *without { " without (" } else { " by (" })?;
            labels(f, grouping)?;
            f.write_str(") ")?;
        }
        Ok(())
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operand = |f: &mut Formatter<'_>, e: &Expr, next: Option<&&Binary>| {
            let followed = next.map_or(f.alternate(), |b| b.op.is_duration_operator());
            if followed { write!(f, "{e:#}") } else { write!(f, "{e}") }
        };
        let chain = self.chain();
        chain.last().map_or(Ok(()), |b| match &b.lhs {
            // A sign would be read as that of the power.
            Expr::Number(n) if b.op == BinaryOp::Pow && n.value == f64::INFINITY => f.write_str("Inf"),
            lhs => operand(f, lhs, Some(b)),
        })?;
        for (i, b) in chain.iter().enumerate().rev() {
            write!(f, " {} ", Operator(b))?;
            operand(f, &b.rhs, i.checked_sub(1).and_then(|next| chain.get(next)))?;
        }
        Ok(())
    }
}

/// The operator of a binary operation, with what belongs to it.
pub(super) struct Operator<'a>(pub(super) &'a Binary);

impl Display for Operator<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op.as_str())?;
        if self.0.return_bool {
            f.write_str(" bool")?;
        }
        self.0.matching.as_ref().map_or(Ok(()), |m| matching(f, m))
    }
}

fn matching(f: &mut Formatter<'_>, m: &VectorMatching) -> fmt::Result {
    let group = match m.card {
        MatchCardinality::ManyToOne => Some("left"),
        MatchCardinality::OneToMany => Some("right"),
        _ => None,
    };
    if !m.labels.is_empty() || m.on || group.is_some() {
        f.write_str(if m.on { " on (" } else { " ignoring (" })?;
        labels(f, &m.labels)?;
        f.write_char(')')?;
    }
    if let Some(side) = group {
        write!(f, " group_{side} (")?;
        labels(f, &m.include)?;
        f.write_char(')')?;
    }
    let mut fill = |word, value| {
        write!(f, " {word} (")?;
        short_number(f, value)?;
        f.write_char(')')
    };
    match (m.fill_left, m.fill_right) {
        (Some(a), Some(b)) if a == b => fill("fill", a),
        (left, right) => {
            left.map_or(Ok(()), |v| fill("fill_left", v))?;
            right.map_or(Ok(()), |v| fill("fill_right", v))
        }
    }
}

/// With an exponent when there would be more than 21 digits before the point or four zeros after it.
fn short_number(f: &mut Formatter<'_>, value: f64) -> fmt::Result {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return number(f, value, false);
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    write!(f, "{mantissa}e{sign}{digits:0>2}")
}

fn labels(f: &mut Formatter<'_>, names: &[String]) -> fmt::Result {
    separated(f, names, ", ", |f, name| {
        // These three are no label names to the grammar unless they are in quotes.
        let reserved = ["without", "inf", "nan"].iter().any(|w| name.eq_ignore_ascii_case(w));
        if is_legacy_label_name(name) && !reserved { f.write_str(name) } else { Quoted(name).fmt(f) }
    })
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { seconds, duration, .. } => number(f, *seconds, *duration),
            Self::Step(_) => f.write_str("step()"),
            Self::Range(_) => f.write_str("range()"),
            Self::MinOf(a, b, _) => write!(f, "min_of({a}, {b})"),
            Self::MaxOf(a, b, _) => write!(f, "max_of({a}, {b})"),
            Self::Neg(e, _) => write!(f, "-{e}"),
            Self::Plus(e, _) => e.fmt(f),
            Self::Paren(e, _) => write!(f, "({e})"),
            Self::Binary { op, lhs, rhs, .. } => write!(f, "{lhs} {} {rhs}", op.as_str()),
        }
    }
}

fn separated<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    separator: &str,
    mut each: impl FnMut(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        each(f, item)?;
    }
    Ok(())
}
