//! Arithmetic on durations, in brackets and after `offset`.

use super::super::ast::{BinaryOp, Span, UnaryOp};
use super::super::duration::{DurationExpr, DurationOp, MAX_SECONDS};
use super::super::token::{Kind, Preprocessor};
use super::{Parsed, Parser, UNARY_BINDING, binding};

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
    /// Whether a duration may begin with the next token.
    pub(super) fn at_duration(&self) -> bool {
        match self.token.kind {
            Kind::Number | Kind::Duration | Kind::LeftParen | Kind::Op(BinaryOp::Add | BinaryOp::Sub) => true,
            Kind::Preprocessor(p) => p.is_duration(),
            _ => false,
        }
    }

    /// Whether the next token is an operator that durations have too.
    pub(super) fn at_duration_operator(&self) -> bool {
        matches!(self.token.kind, Kind::Op(op) if duration_op(op).is_some())
    }

    /// What follows `offset`. Only one term, signed or not, unless it begins with a parenthesis or two signs:
    /// `a offset 1m * 2` is `(a offset 1m) * 2`.
    pub(super) fn offset_duration(&mut self) -> Parsed<DurationExpr> {
        match self.token.kind {
            Kind::Number | Kind::Duration | Kind::Preprocessor(_) => self.duration_term(),
            Kind::Op(BinaryOp::Add | BinaryOp::Sub) => {
                let Some((op, sign)) = self.sign()? else {
                    return self.duration_term();
                };
                let operand = match self.token.kind {
                    Kind::Op(_) => {
                        let operand = self.duration_expr(UNARY_BINDING)?;
                        let signed = self.signed(op, sign, operand)?;
                        return self.duration_operators(signed, 0);
                    }
                    _ => self.duration_term()?,
                };
                self.signed(op, sign, operand)
            }
            _ => self.duration_expr(0),
        }
    }

    /// Arithmetic whose operators bind at least as tightly as `min`.
    pub(super) fn duration_expr(&mut self, min: u8) -> Parsed<DurationExpr> {
        self.depth += 1;
        self.check_depth(self.depth, self.token.span)?;
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
        while let Kind::Op(token_op) = self.token.kind {
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
        match self.token.kind {
            Kind::Number | Kind::Duration => {
                let n = self.number_literal()?;
                self.duration_literal(n.value, n.duration, n.span, n.span)
            }
            Kind::Preprocessor(p) if p.is_duration() => self.duration_call(p),
            Kind::LeftParen => {
                let open = self.bump()?.span;
                let inner = self.duration_expr(0)?;
                self.expect(Kind::RightParen)?;
                let span = match &inner {
                    DurationExpr::Number { span, .. } => open.to(*span),
                    other => other.span(),
                };
                self.check_arithmetic(inner.span())?;
                Ok(DurationExpr::Paren(Box::new(inner), span))
            }
            _ => self.unexpected("", ""),
        }
    }

    fn duration_call(&mut self, function: Preprocessor) -> Parsed<DurationExpr> {
        let name = self.bump()?.span;
        self.expect(Kind::LeftParen)?;
        let mut args = None;
        if matches!(function, Preprocessor::MinOf | Preprocessor::MaxOf) {
            let a = self.duration_expr(0)?;
            self.expect(Kind::Comma)?;
            args = Some((Box::new(a), Box::new(self.duration_expr(0)?)));
        }
        let span = name.to(self.expect(Kind::RightParen)?.span);
        self.check_arithmetic(span)?;
        Ok(match (args, function) {
            (Some((a, b)), Preprocessor::MinOf) => DurationExpr::MinOf(a, b, span),
            (Some((a, b)), _) => DurationExpr::MaxOf(a, b, span),
            (None, Preprocessor::Range) => DurationExpr::Range(span),
            (None, _) => DurationExpr::Step(span),
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
        if seconds.is_nan() || seconds.abs() > MAX_SECONDS {
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
