//! Arithmetic on durations, in brackets and after `offset`. Follows Prometheus's `querying/basics.md`: "Range vector selectors",
//! "Offset modifier"; the arithmetic itself is in `feature_flags.md`, "Experimental duration arithmetic".

use super::super::ast::{BinaryOp, Span, UnaryOp};
use super::super::duration::{DurationExpr, DurationOp, MAX_SECONDS};
use super::super::token::{Kind, Preprocessor};
use super::binary::binding;
use super::expression::UNARY_BINDING;
use super::{Parsed, Parser};

fn duration_op(op: BinaryOp) -> Option<DurationOp> {
    Some(match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    })
}

impl Parser<'_> {
    /// What follows `offset`. Only one term, signed or not, unless it begins with a parenthesis or two signs:
    /// `a offset 1m * 2` is `(a offset 1m) * 2`.
    pub(super) fn offset_duration(&mut self) -> Parsed<DurationExpr> {
        let Some((op, sign)) = self.sign()? else {
            let in_parens = self.peek()? == Kind::LeftParen;
            return if in_parens { self.duration_expr(0) } else { self.duration_term() };
        };
        match self.peek()? {
            Kind::Op(_) => {
                let operand = self.duration_expr(UNARY_BINDING)?;
                let signed = self.signed(op, sign, operand)?;
                self.duration_operators(signed, 0)
            }
            Kind::LeftParen => {
                self.bump()?;
                let inner = self.duration_expr(0)?;
                self.expect(Kind::RightParen)?;
                let span = inner.span();
                self.signed(op, sign, inner.in_parens(span))
            }
            Kind::Preprocessor(function) => {
                let operand = self.duration_call(function)?;
                let span = sign.to(operand.span());
                self.check_arithmetic(span)?;
                Ok(match op {
                    UnaryOp::Minus => DurationExpr::Neg(Box::new(operand), span),
                    UnaryOp::Plus => DurationExpr::Plus(Box::new(operand), span),
                })
            }
            _ => {
                let n = self.number_literal()?;
                let literal = DurationExpr::Number { seconds: n.value, duration: n.duration, span: n.span };
                self.signed(op, sign, literal)
            }
        }
    }

    /// Arithmetic whose operators bind at least as tightly as `min`.
    pub(super) fn duration_expr(&mut self, min: u8) -> Parsed<DurationExpr> {
        self.descend()?;
        let first = match self.sign()? {
            Some((op, sign)) => {
                let operand = self.duration_expr(UNARY_BINDING)?;
                self.signed(op, sign, operand)?
            }
            None => self.duration_term()?,
        };
        let out = self.duration_operators(first, min)?;
        self.depth -= 1;
        Ok(out)
    }

    fn duration_operators(&mut self, mut lhs: DurationExpr, min: u8) -> Parsed<DurationExpr> {
        let mut height = self.depth;
        while let Kind::Op(token_op) = self.peek()? {
            let Some(op) = duration_op(token_op) else {
                break;
            };
            let power = binding(token_op);
            if power < min {
                break;
            }
            // A chain of operators grows the tree to the left, one level for each.
            height += 1;
            self.check_depth(height, lhs.span())?;
            let operator = self.bump()?.span;
            let rhs = self.duration_expr(if op == DurationOp::Pow { power } else { power + 1 })?;
            self.check_arithmetic(lhs.span())?;
            if matches!(rhs, DurationExpr::Number { seconds, .. } if seconds == 0.0) {
                match op {
                    DurationOp::Div => return Err(self.error(operator, "division by zero")),
                    DurationOp::Mod => return Err(self.error(operator, "modulo by zero")),
                    _ => {}
                }
            }
            let span = lhs.span().to(rhs.span());
            lhs = DurationExpr::Binary { op, lhs: Box::new(lhs), rhs: Box::new(rhs), span };
        }
        Ok(lhs)
    }

    /// A literal, `step()`, `range()`, `min_of(…)`, `max_of(…)` or something in parentheses.
    fn duration_term(&mut self) -> Parsed<DurationExpr> {
        match self.peek()? {
            Kind::Preprocessor(function) => {
                let call = self.duration_call(function)?;
                self.check_arithmetic(call.span())?;
                Ok(call)
            }
            Kind::LeftParen => {
                let open = self.bump()?.span;
                let inner = self.duration_expr(0)?;
                self.expect(Kind::RightParen)?;
                self.check_arithmetic(inner.span())?;
                let span = open.to(inner.span());
                Ok(inner.in_parens(span))
            }
            _ => {
                let n = self.number_literal()?;
                self.duration_literal(n.value, n.duration, n.span, n.span)
            }
        }
    }

    /// A call of one of the four functions that durations have; the next token is its name.
    fn duration_call(&mut self, function: Preprocessor) -> Parsed<DurationExpr> {
        if matches!(function, Preprocessor::Start | Preprocessor::End) {
            return self.unexpected();
        }
        let name = self.bump()?.span;
        self.expect(Kind::LeftParen)?;
        let mut args = None;
        if matches!(function, Preprocessor::MinOf | Preprocessor::MaxOf) {
            let a = self.duration_expr(0)?;
            self.expect(Kind::Comma)?;
            args = Some((Box::new(a), Box::new(self.duration_expr(0)?)));
        }
        let close = self.expect(Kind::RightParen)?.span;
        Ok(match (args, function) {
            (Some((a, b)), function) => {
                let span = a.span().to(b.span());
                match function {
                    Preprocessor::MinOf => DurationExpr::MinOf(a, b, span),
                    _ => DurationExpr::MaxOf(a, b, span),
                }
            }
            (None, Preprocessor::Range) => DurationExpr::Range(name.to(close)),
            (None, _) => DurationExpr::Step(name.to(close)),
        })
    }

    /// A sign applied. It goes into a literal; a plus before anything else is left out.
    fn signed(&mut self, op: UnaryOp, sign: Span, operand: DurationExpr) -> Parsed<DurationExpr> {
        match operand {
            DurationExpr::Number { seconds, duration, span } => {
                let seconds = if op == UnaryOp::Minus { -seconds } else { seconds };
                self.duration_literal(seconds, duration, sign.to(span), sign)
            }
            other if op == UnaryOp::Minus => {
                let span = sign.to(other.span());
                Ok(DurationExpr::Neg(Box::new(other), span))
            }
            other => Ok(other),
        }
    }

    fn duration_literal(
        &self,
        seconds: f64,
        duration: bool,
        span: Span,
        blame: Span,
    ) -> Parsed<DurationExpr> {
        if seconds.abs() > MAX_SECONDS {
            return Err(self.error(blame, "duration out of range"));
        }
        Ok(DurationExpr::Number { seconds, duration, span })
    }

    fn check_arithmetic(&self, span: Span) -> Parsed<()> {
        if !self.options.duration_expressions {
            return Err(self.error(span, "experimental duration expression is not enabled"));
        }
        Ok(())
    }
}
