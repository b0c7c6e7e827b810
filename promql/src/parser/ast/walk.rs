//! What can be asked of any expression: place, type, height, operands.

use super::{Expr, Span, ValueType, VectorSelector};

impl Expr {
    /// Where the expression stands in the query text.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::Number(e) => e.span,
            Self::String(e) => e.span,
            Self::Vector(e) => e.span,
            Self::Matrix(e) => e.span,
            Self::Subquery(e) => e.span,
            Self::Call(e) => e.span,
            Self::Aggregate(e) => e.span,
            Self::Binary(e) => e.span,
            Self::Unary(e) => e.span,
            Self::Paren(e) => e.span,
        }
    }

    /// What the expression gives.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        let mut at = self;
        loop {
            return match at {
                Self::Number(_) => ValueType::Scalar,
                Self::String(_) => ValueType::String,
                Self::Vector(_) | Self::Aggregate(_) => ValueType::Vector,
                Self::Matrix(_) | Self::Subquery(_) => ValueType::Matrix,
                Self::Call(c) => c.func.returns,
                Self::Binary(b) => b.value_type,
                Self::Unary(u) => {
                    at = &u.expr;
                    continue;
                }
                Self::Paren(p) => {
                    at = &p.expr;
                    continue;
                }
            };
        }
    }

    /// The height of the tree, every operator of a chain counted.
    #[must_use]
    pub fn levels(&self) -> usize {
        let mut highest = 0;
        let mut todo = vec![(self, 1)];
        while let Some((e, level)) = todo.pop() {
            highest = highest.max(level);
            e.for_each_child(|c| todo.push((c, level + 1)));
        }
        highest
    }

    /// The expression without the parentheses around it.
    #[must_use]
    pub fn without_parens(&self) -> &Expr {
        let mut at = self;
        while let Self::Paren(p) = at {
            at = &p.expr;
        }
        at
    }

    /// Calls `visit` for every operand of this node, in the order of the text: a parameter of an aggregation before its
    /// vector.
    pub fn for_each_child<'a>(&'a self, mut visit: impl FnMut(&'a Expr)) {
        match self {
            Self::Number(_) | Self::String(_) | Self::Vector(_) | Self::Matrix(_) => {}
            Self::Subquery(e) => visit(&e.expr),
            Self::Call(e) => e.args.iter().for_each(visit),
            Self::Aggregate(e) => {
                e.param.iter().for_each(&mut visit);
                visit(&e.expr);
            }
            Self::Binary(e) => {
                visit(&e.lhs);
                visit(&e.rhs);
            }
            Self::Unary(e) => visit(&e.expr),
            Self::Paren(e) => visit(&e.expr),
        }
    }

    /// Like [`Expr::for_each_child`], to change the operands.
    pub fn for_each_child_mut(&mut self, mut visit: impl FnMut(&mut Expr)) {
        match self {
            Self::Number(_) | Self::String(_) | Self::Vector(_) | Self::Matrix(_) => {}
            Self::Subquery(e) => visit(&mut e.expr),
            Self::Call(e) => e.args.iter_mut().for_each(visit),
            Self::Aggregate(e) => {
                e.param.iter_mut().for_each(&mut visit);
                visit(&mut e.expr);
            }
            Self::Binary(e) => {
                visit(&mut e.lhs);
                visit(&mut e.rhs);
            }
            Self::Unary(e) => visit(&mut e.expr),
            Self::Paren(e) => visit(&mut e.expr),
        }
    }

    /// Calls `visit` for this expression and everything below it, parents first, in the order of the text.
    pub fn walk<'a>(&'a self, mut visit: impl FnMut(&'a Expr)) {
        let mut todo = vec![self];
        while let Some(e) = todo.pop() {
            visit(e);
            let first = todo.len();
            e.for_each_child(|c| todo.push(c));
            todo[first..].reverse();
        }
    }

    /// The selectors below, instant and range, in the order of the text.
    #[must_use]
    pub fn selectors(&self) -> Vec<&VectorSelector> {
        let mut out = Vec::new();
        self.walk(|e| match e {
            Self::Vector(v) => out.push(&**v),
            Self::Matrix(m) => out.push(&m.selector),
            _ => {}
        });
        out
    }
}
