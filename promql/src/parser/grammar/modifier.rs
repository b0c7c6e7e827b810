//! What may follow an expression: a range, a subquery, `offset`, `@`, `anchored`, `smoothed`.

use super::super::ast::{
    At, Boundary, Duration, Expr, MatrixSelector, NumberLiteral, Paren, Span, Subquery, UnaryOp,
};
use super::super::duration::DurationExpr;
use super::super::token::{Keyword, Kind, Preprocessor};
use super::{Node, Parsed, Parser};

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
        if !self.at_duration() {
            let expected = "number, duration, step(), or range()";
            return self.unexpected("subquery or range selector", expected);
        }
        let range = self.positive_duration()?;
        match self.token.kind {
            Kind::RightBracket => self.matrix_selector(node, range, open),
            Kind::Colon => self.subquery(node, range),
            _ => self.unexpected("subquery or range", "\":\" or \"]\""),
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
        const CONTEXT: &str = "subquery selector";
        self.bump()?;
        let mut step = None;
        if self.token.kind != Kind::RightBracket {
            if !self.at_duration() {
                return self.unexpected(CONTEXT, "number, duration, step(), range(), or \"]\"");
            }
            step = Some(self.positive_duration()?);
        }
        if self.token.kind != Kind::RightBracket {
            return self.unexpected(CONTEXT, "\"]\"");
        }
        let span = node.expr.span().to(self.bump()?.span);
        let height = self.above(node.height, span)?;
        let (expr, offset) = (node.expr, Duration::default());
        let expr = Expr::Subquery(Box::new(Subquery { expr, range, step, offset, at: None, span }));
        Ok(Node { expr, height })
    }

    /// A range or step: above zero, as far as that can be told now.
    fn positive_duration(&mut self) -> Parsed<Duration> {
        let expr = self.duration_expr(0)?;
        match &expr {
            DurationExpr::Number { seconds, span, .. } if *seconds <= 0.0 => {
                return Err(self.error(*span, "duration must be greater than 0"));
            }
            _ => {}
        }
        Ok(expr.into_duration())
    }

    // === offset ===

    #[inline(never)]
    pub(super) fn offset_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.bump()?;
        if !self.at_duration() {
            return self.unexpected("offset", "number, duration, step(), or range()");
        }
        let written = self.offset_duration()?.into_duration();
        let (span, last_end) = (expr.span(), self.last_end);
        let Some(target) = modifiable(expr) else {
            let reason = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.error(span, reason));
        };
        if !target.offset.is_zero() {
            return Err(self.error(span, "offset may not be set multiple times"));
        }
        *target.offset = written;
        *target.end = last_end;
        Ok(())
    }

    /// `a offset +(1m) * 2` is `(a offset (1m)) * 2`, and `a offset (1m) @ 10 * 2` is `(a @ 10 offset (1m)) * 2`. Neither
    /// must print without those parentheses, since a lone plus is not kept and the offset comes last: the operator
    /// would become the offset's. To be asked when all modifiers are read.
    pub(super) fn close_offset(&self, node: &mut Node) -> Parsed<()> {
        let offset = match &node.expr {
            Expr::Vector(v) => &v.offset,
            Expr::Matrix(m) => &m.selector.offset,
            Expr::Subquery(s) => &s.offset,
            _ => return Ok(()),
        };
        let Duration::Expr(written) = offset else {
            return Ok(());
        };
        if !written.ends_itself() && self.at_duration_operator() {
            let span = node.expr.span();
            node.height = self.above(node.height, span)?;
            let nothing = Expr::Number(Box::new(NumberLiteral { value: 0.0, duration: false, span }));
            let expr = std::mem::replace(&mut node.expr, nothing);
            node.expr = Expr::Paren(Box::new(Paren { expr, span }));
        }
        Ok(())
    }

    // === @ ===

    #[inline(never)]
    pub(super) fn at_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.bump()?;
        let at = match self.token.kind {
            Kind::Preprocessor(p @ (Preprocessor::Start | Preprocessor::End)) => {
                self.bump()?;
                for kind in [Kind::LeftParen, Kind::RightParen] {
                    if !self.eat(kind)? {
                        return self.unexpected("@", "timestamp");
                    }
                }
                if p == Preprocessor::Start { At::Start } else { At::End }
            }
            _ => At::Timestamp(self.at_timestamp(expr.span())?),
        };
        let (span, last_end) = (expr.span(), self.last_end);
        let Some(target) = modifiable(expr) else {
            let reason = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.error(span, reason));
        };
        if target.at.is_some() {
            return Err(self.error(span, "@ <timestamp> may not be set multiple times"));
        }
        *target.at = Some(at);
        *target.end = last_end;
        Ok(())
    }

    /// A timestamp in seconds, as milliseconds. `span` is the expression it is for.
    fn at_timestamp(&mut self, span: Span) -> Parsed<i64> {
        let negative = self.sign()?.is_some_and(|(op, _)| op == UnaryOp::Minus);
        if !matches!(self.token.kind, Kind::Number | Kind::Duration) {
            return self.unexpected("@", "timestamp");
        }
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

    pub(super) fn boundary_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        let (word, boundary, other) = if self.token.kind == Kind::Keyword(Keyword::Anchored) {
            ("anchored", Boundary::Anchored, Boundary::Smoothed)
        } else {
            ("smoothed", Boundary::Smoothed, Boundary::Anchored)
        };
        self.bump()?;
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
