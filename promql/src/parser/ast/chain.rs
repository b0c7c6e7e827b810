//! Chains of binary operations, `a + b - c`: trees that lean to the left and may be thousands of levels high. What the
//! compiler would derive as recursion is a loop here.

use std::fmt;

use super::{Binary, Expr, NumberLiteral, Span};

impl Binary {
    /// This operation and those on its left, without parentheses between them: of `a + b - c` the minus, then the plus.
    #[must_use]
    pub fn chain(&self) -> Vec<&Binary> {
        let mut chain = vec![self];
        let mut at = self;
        while let Expr::Binary(b) = &at.lhs {
            chain.push(b);
            at = b;
        }
        chain
    }

    /// Takes out the left operand if it is an operation too.
    pub(in crate::parser) fn take_left(&mut self) -> Option<Box<Binary>> {
        if !matches!(self.lhs, Expr::Binary(_)) {
            return None;
        }
        let nothing = NumberLiteral { value: 0.0, duration: false, span: Span::default() };
        match std::mem::replace(&mut self.lhs, Expr::Number(Box::new(nothing))) {
            Expr::Binary(b) => Some(b),
            _ => None,
        }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let mut next = self.take_left();
        while let Some(mut b) = next {
            next = b.take_left();
        }
    }
}

impl Clone for Binary {
    fn clone(&self) -> Self {
        let with_left = |b: &Binary, lhs: Expr| Binary {
            op: b.op,
            lhs,
            rhs: b.rhs.clone(),
            matching: b.matching.clone(),
            return_bool: b.return_bool,
            value_type: b.value_type,
            span: b.span,
        };
        let chain = self.chain();
        let first = chain.last().map_or(&self.lhs, |b| &b.lhs);
        let left =
            chain[1..].iter().rev().fold(first.clone(), |lhs, b| Expr::Binary(Box::new(with_left(b, lhs))));
        with_left(self, left)
    }
}

impl PartialEq for Binary {
    fn eq(&self, o: &Self) -> bool {
        let (mut a, mut b) = (self, o);
        loop {
            let same = a.op == b.op
                && a.matching == b.matching
                && a.return_bool == b.return_bool
                && a.value_type == b.value_type
                && a.rhs == b.rhs;
            match (&a.lhs, &b.lhs) {
                _ if !same => return false,
                (Expr::Binary(x), Expr::Binary(y)) => (a, b) = (x, y),
                (x, y) => return x == y,
            }
        }
    }
}

/// As PromQL, since the tree of a long chain is deep.
impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binary({self})")
    }
}
