//! Binary operators with their modifiers. Follows Prometheus's `querying/operators.md`: "Binary operators", "Vector matching",
//! "Filling in missing matches", "Binary operator precedence".

use super::super::ast::{Binary, BinaryOp, Expr, MatchCardinality, UnaryOp, ValueType, VectorMatching};
use super::super::token::{Keyword, Kind};
use super::{Node, Parsed, Parser};

/// How tightly an operator binds.
pub(super) fn binding(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => 7,
        _ => 3,
    }
}

impl Parser<'_> {
    /// The operator `op`, which is the next token, and its right operand.
    #[inline(never)]
    pub(super) fn binary(&mut self, lhs: Node, op: BinaryOp, power: u8) -> Parsed<Node> {
        self.bump()?;
        let (matching, return_bool) = self.binary_modifiers()?;
        let rhs = self.expression(if op == BinaryOp::Pow { power } else { power + 1 })?;
        let span = lhs.expr.span().to(rhs.expr.span());
        if !self.options.fill_modifiers && (matching.fill_left.is_some() || matching.fill_right.is_some()) {
            return Err(self.error(span, "binop fill modifiers are experimental and not enabled"));
        }
        let scalar = |n: &Node| n.expr.value_type() == ValueType::Scalar;
        let value_type = if scalar(&lhs) && scalar(&rhs) { ValueType::Scalar } else { ValueType::Vector };
        let mut height = lhs.height.max(rhs.height).above();
        if matches!(lhs.expr, Expr::Binary(_)) {
            // One more of a chain.
            height.nested = lhs.height.nested.max(rhs.height.nested + 1);
        }
        self.check_height(height, span)?;
        let (lhs, rhs, matching) = (lhs.expr, rhs.expr, Some(matching));
        let expr = Expr::Binary(Box::new(Binary { op, lhs, rhs, matching, return_bool, value_type, span }));
        Ok(Node { expr, height })
    }

    /// `bool`, `on (…)`, `group_left (…)`, `fill (…)` and their kin.
    fn binary_modifiers(&mut self) -> Parsed<(VectorMatching, bool)> {
        let mut m = VectorMatching {
            card: MatchCardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let return_bool = self.eat(Kind::Keyword(Keyword::Bool))?;
        if let Kind::Keyword(k @ (Keyword::On | Keyword::Ignoring)) = self.peek()? {
            self.bump()?;
            m.on = k == Keyword::On;
            m.labels = self.grouping_labels()?;
            if let Kind::Keyword(k @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.peek()? {
                self.bump()?;
                let left = k == Keyword::GroupLeft;
                m.card = if left { MatchCardinality::ManyToOne } else { MatchCardinality::OneToMany };
                if self.peek()? == Kind::LeftParen || !self.at_operand()? {
                    m.include = self.grouping_labels()?;
                }
            }
        }
        self.fill_modifiers(&mut m)?;
        Ok((m, return_bool))
    }

    /// Whether the next token may be the first of an operand, or of a fill modifier before it.
    pub(super) fn at_operand(&mut self) -> Parsed<bool> {
        Ok(match self.peek()? {
            Kind::Number | Kind::Duration | Kind::String | Kind::LeftParen | Kind::LeftBrace => true,
            Kind::Op(BinaryOp::Add | BinaryOp::Sub) => true,
            kind => kind.is_metric_name(),
        })
    }

    fn fill_modifiers(&mut self, m: &mut VectorMatching) -> Parsed<()> {
        let Kind::Keyword(first @ (Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) = self.peek()?
        else {
            return Ok(());
        };
        self.bump()?;
        let value = Some(self.fill_value()?);
        let other = match first {
            Keyword::FillLeft => {
                m.fill_left = value;
                Keyword::FillRight
            }
            Keyword::FillRight => {
                m.fill_right = value;
                Keyword::FillLeft
            }
            _ => {
                (m.fill_left, m.fill_right) = (value, value);
                return Ok(());
            }
        };
        if self.eat(Kind::Keyword(other))? {
            let value = Some(self.fill_value()?);
            if other == Keyword::FillLeft {
                m.fill_left = value;
            } else {
                m.fill_right = value;
            }
        }
        Ok(())
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(Kind::LeftParen)?;
        let negative = self.sign()?.is_some_and(|(op, _)| op == UnaryOp::Minus);
        let value = self.number_literal()?.value;
        self.expect(Kind::RightParen)?;
        Ok(if negative { -value } else { value })
    }
}
