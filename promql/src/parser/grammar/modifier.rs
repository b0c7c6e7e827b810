//! What may follow an expression: a range, a subquery, `offset`, `@`, `anchored`, `smoothed`. Follows Prometheus's
//! `querying/basics.md`: "Range vector selectors", "Offset modifier", "@ modifier", "Subquery"; the last two keywords are in
//! `feature_flags.md`, "Extended range selectors".

use super::super::ast::{At, Boundary, Duration, Expr, MatrixSelector, Span, Subquery, UnaryOp};
use super::super::duration::DurationExpr;
use super::super::token::{Keyword, Kind, Preprocessor};
use super::{Construct, Node, Parsed, Parser};

const DURATION: &str = "number, duration, step(), or range()";
const RANGE_OR_SUBQUERY: Construct = Construct::new("subquery or range selector", DURATION);
const STEP: Construct = Construct::new("subquery selector", "number, duration, step(), range(), or \"]\"");
const OFFSET: Construct = Construct::new("offset", DURATION);
const AT: Construct = Construct::new("@", "timestamp");

/// The parts of a selector or subquery that modifiers set.
struct Modifiable<'e> {
    offset: &'e mut Duration,
    at: &'e mut Option<At>,
    end: &'e mut u32,
}

fn modifiable(expr: &mut Expr) -> Option<Modifiable<'_>> {
    Some(match expr {
        Expr::Vector(v) => Modifiable { offset: &mut v.offset, at: &mut v.at, end: &mut v.span.end },
        Expr::Matrix(m) => {
            Modifiable { offset: &mut m.selector.offset, at: &mut m.selector.at, end: &mut m.span.end }
        }
        Expr::Subquery(s) => Modifiable { offset: &mut s.offset, at: &mut s.at, end: &mut s.span.end },
        _ => return None,
    })
}

impl Parser<'_> {
    // === Ranges and subqueries ===

    #[inline(never)]
    pub(super) fn range_or_subquery(&mut self, node: Node) -> Parsed<Node> {
        let open = self.bump()?.span;
        let range = self.positive_duration(RANGE_OR_SUBQUERY)?;
        match self.peek()? {
            Kind::RightBracket => self.matrix_selector(node, range, open),
            Kind::Colon => self.subquery(node, range),
            _ => self.unexpected_in(Construct::new("subquery or range", "\":\" or \"]\"")),
        }
    }

    fn matrix_selector(&mut self, node: Node, range: Duration, open: Span) -> Parsed<Node> {
        let close = self.bump()?.span;
        let fail = |reason| Err(self.error(open.to(close), reason));
        let Expr::Vector(selector) = node.expr else {
            return fail("ranges only allowed for vector selectors");
        };
        if !selector.offset.is_zero() {
            return fail("no offset modifiers allowed before range");
        }
        if selector.at.is_some() {
            return fail("no @ modifiers allowed before range");
        }
        let span = selector.span.to(close);
        Ok(Node::leaf(Expr::Matrix(Box::new(MatrixSelector { selector: *selector, range, span }))))
    }

    fn subquery(&mut self, node: Node, range: Duration) -> Parsed<Node> {
        self.bump()?;
        let mut step = None;
        if self.peek()? != Kind::RightBracket {
            step = Some(self.positive_duration(STEP)?);
        }
        if self.peek()? != Kind::RightBracket {
            return self.unexpected_in(Construct::new("subquery selector", "\"]\""));
        }
        let span = node.expr.span().to(self.bump()?.span);
        let height = self.above(node.height, span)?;
        let (expr, offset) = (node.expr, Duration::default());
        let expr = Expr::Subquery(Box::new(Subquery { expr, range, step, offset, at: None, span }));
        Ok(Node { expr, height })
    }

    /// A range or step: above zero, as far as that can be told now.
    fn positive_duration(&mut self, construct: Construct) -> Parsed<Duration> {
        self.open.push(construct);
        let expr = self.duration_expr(0)?;
        self.open.pop();
        if let DurationExpr::Number { seconds, span, .. } = &expr
            && *seconds <= 0.0
        {
            return Err(self.error(*span, "duration must be greater than 0"));
        }
        self.duration(expr)
    }

    /// Not-a-number has a value only where arithmetic is worked out, and there the query fails.
    fn duration(&self, expr: DurationExpr) -> Parsed<Duration> {
        match &expr {
            DurationExpr::Number { seconds, span, .. } if seconds.is_nan() => {
                Err(self.error(*span, "duration out of range"))
            }
            _ => Ok(expr.into_duration()),
        }
    }

    // === offset ===

    #[inline(never)]
    pub(super) fn offset_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.bump()?;
        self.open.push(OFFSET);
        let written = self.offset_duration()?;
        self.open.pop();
        let written = self.duration(written)?;
        let (span, end) = (expr.span(), self.last_closing);
        let Some(target) = modifiable(expr) else {
            let reason = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.error(span, reason));
        };
        if !target.offset.is_zero() {
            return Err(self.error(span, "offset may not be set multiple times"));
        }
        *target.offset = written;
        *target.end = end;
        Ok(())
    }

    // === @ ===

    #[inline(never)]
    pub(super) fn at_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.bump()?;
        self.open.push(AT);
        let at = match self.peek()? {
            Kind::Preprocessor(p @ (Preprocessor::Start | Preprocessor::End)) => {
                self.bump()?;
                self.expect(Kind::LeftParen)?;
                self.expect(Kind::RightParen)?;
                if p == Preprocessor::Start { At::Start } else { At::End }
            }
            _ => At::Timestamp(self.at_timestamp(expr.span())?),
        };
        self.open.pop();
        let (span, end) = (expr.span(), self.last_closing);
        let Some(target) = modifiable(expr) else {
            let reason = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.error(span, reason));
        };
        if target.at.is_some() {
            return Err(self.error(span, "@ <timestamp> may not be set multiple times"));
        }
        *target.at = Some(at);
        *target.end = end;
        Ok(())
    }

    /// A timestamp in seconds, as milliseconds. `span` is the expression it is for.
    fn at_timestamp(&mut self, span: Span) -> Parsed<i64> {
        let negative = self.sign()?.is_some_and(|(op, _)| op == UnaryOp::Minus);
        let value = self.number_literal()?.value;
        let seconds = if negative { -value } else { value };
        // NaN is outside too.
        if seconds > i64::MIN as f64 && seconds < i64::MAX as f64 {
            return Ok((seconds * 1000.0).round() as i64);
        }
        let text = match seconds {
            s if s.is_nan() => "NaN".to_owned(),
            s if s.is_infinite() => format!("{}Inf", if s > 0.0 { '+' } else { '-' }),
            s => format!("{s:.6}"),
        };
        Err(self.error(span, format!("timestamp out of bounds for @ modifier: {text}")))
    }

    // === anchored, smoothed ===

    /// `anchored` or `smoothed`: the keyword that is the next token.
    pub(super) fn boundary_modifier(&mut self, keyword: Keyword, expr: &mut Expr) -> Parsed<()> {
        self.bump()?;
        let (word, boundary, other) = match keyword {
            Keyword::Anchored => ("anchored", Boundary::Anchored, Boundary::Smoothed),
            _ => ("smoothed", Boundary::Smoothed, Boundary::Anchored),
        };
        let span = expr.span();
        let fail = |reason: String| Err(self.error(span, reason));
        if !self.options.extended_range_selectors {
            return fail(format!("{word} modifier is experimental and not enabled"));
        }
        let selector = match expr {
            Expr::Vector(v) => &mut **v,
            Expr::Matrix(m) => &mut m.selector,
            Expr::Subquery(_) => return fail(format!("{word} modifier is not supported for subqueries")),
            _ => return fail(format!("{word} modifier not implemented")),
        };
        if selector.boundary == other {
            return fail("anchored and smoothed modifiers cannot be used together".into());
        }
        selector.boundary = boundary;
        Ok(())
    }
}
