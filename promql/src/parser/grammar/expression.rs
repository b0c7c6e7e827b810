//! Operands: literals, selectors, calls, parentheses, signs, and the modifiers after them. Follows Prometheus's
//! `querying/basics.md` (literals, modifiers) and `querying/operators.md` (precedence).

use super::super::ast::{BinaryOp, Expr, NumberLiteral, Paren, Span, StringLiteral, Unary, UnaryOp};
use super::super::number::{parse_duration_seconds, parse_number};
use super::super::string::unquote_bytes;
use super::super::token::{Keyword, Kind};
use super::{Node, Parsed, Parser};

/// How tightly a sign binds: like `*`, so that `-1 ^ 2` is `-(1 ^ 2)`.
pub(super) const UNARY_BINDING: u8 = 6;

impl Parser<'_> {
    /// An expression whose operators bind at least as tightly as `min`.
    pub(super) fn expression(&mut self, min: u8) -> Parsed<Node> {
        self.descend()?;
        let mut lhs = self.operand()?;
        while let Kind::Op(op) = self.peek()? {
            let power = super::binary::binding(op);
            if power < min {
                break;
            }
            lhs = self.binary(lhs, op, power)?;
        }
        self.depth -= 1;
        Ok(lhs)
    }

    /// Anything but a binary operation, with all that follows it.
    fn operand(&mut self) -> Parsed<Node> {
        if let Kind::Op(BinaryOp::Add | BinaryOp::Sub) = self.peek()? {
            return self.unary();
        }
        let mut node = self.primary()?;
        loop {
            match self.peek()? {
                Kind::LeftBracket => node = self.range_or_subquery(node)?,
                Kind::At => self.at_modifier(&mut node.expr)?,
                Kind::Keyword(Keyword::Offset) => self.offset_modifier(&mut node.expr)?,
                Kind::Keyword(word @ (Keyword::Anchored | Keyword::Smoothed)) => {
                    self.boundary_modifier(word, &mut node.expr)?;
                }
                _ => return Ok(node),
            }
        }
    }

    #[inline(never)]
    fn unary(&mut self) -> Parsed<Node> {
        let Some((op, sign)) = self.sign()? else {
            return self.unexpected();
        };
        let mut operand = self.expression(UNARY_BINDING)?;
        let span = sign.to(operand.expr.span());
        if let Expr::Number(n) = &mut operand.expr {
            if op == UnaryOp::Minus {
                n.value = -n.value;
            }
            n.span = span;
            return Ok(operand);
        }
        let height = self.above(operand.height, span)?;
        Ok(Node { expr: Expr::Unary(Box::new(Unary { op, expr: operand.expr, span })), height })
    }

    /// A sign, if the next token is one.
    pub(super) fn sign(&mut self) -> Parsed<Option<(UnaryOp, Span)>> {
        let op = match self.peek()? {
            Kind::Op(BinaryOp::Add) => UnaryOp::Plus,
            Kind::Op(BinaryOp::Sub) => UnaryOp::Minus,
            _ => return Ok(None),
        };
        Ok(Some((op, self.bump()?.span)))
    }

    fn primary(&mut self) -> Parsed<Node> {
        let token = self.peek_token()?;
        match token.kind {
            Kind::LeftParen => self.paren(),
            Kind::Number | Kind::Duration => Ok(Node::leaf(Expr::Number(Box::new(self.number_literal()?)))),
            Kind::String => {
                self.bump()?;
                let (value, not_utf8) = unquote_bytes(self.text(token.span));
                let literal = StringLiteral { value, not_utf8, span: token.span };
                Ok(Node::leaf(Expr::String(Box::new(literal))))
            }
            Kind::LeftBrace => self.vector_selector(None),
            Kind::Aggregate(op) => self.aggregate_or_name(op),
            Kind::Identifier | Kind::Preprocessor(_) => {
                self.bump()?;
                if self.peek()? == Kind::LeftParen {
                    return self.call(token.span);
                }
                self.vector_selector(Some(token.span))
            }
            kind if kind.is_metric_name() => {
                self.bump()?;
                self.vector_selector(Some(token.span))
            }
            _ => self.unexpected(),
        }
    }

    #[inline(never)]
    pub(super) fn vector_selector(&mut self, name: Option<Span>) -> Parsed<Node> {
        Ok(Node::leaf(Expr::Vector(Box::new(self.selector(name)?))))
    }

    #[inline(never)]
    fn paren(&mut self) -> Parsed<Node> {
        let open = self.bump()?;
        let inner = self.expression(0)?;
        let close = self.expect(Kind::RightParen)?;
        let span = open.span.to(close.span);
        let height = self.above(inner.height, span)?;
        Ok(Node { expr: Expr::Paren(Box::new(Paren { expr: inner.expr, span })), height })
    }

    /// A number or duration, which the next token must be.
    pub(super) fn number_literal(&mut self) -> Parsed<NumberLiteral> {
        let token = self.peek_token()?;
        let (text, span) = (self.text(token.span), token.span);
        let (duration, value) = match token.kind {
            Kind::Number => (false, parse_number(text)),
            Kind::Duration => (true, parse_duration_seconds(text)),
            _ => return self.unexpected(),
        };
        self.bump()?;
        let value = value.map_err(|reason| self.error(span, reason))?;
        Ok(NumberLiteral { value, duration, span })
    }
}
