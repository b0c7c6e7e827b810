//! Types of operands and arguments, and what else the grammar alone does not say. Follows Prometheus's
//! `querying/basics.md`, "Expression language data types", and `querying/operators.md`.
//!
//! Runs over a tree that is nested to a bounded depth, operands before operators, and stops at the first error. It also settles what
//! depends on types: set operators match many to many, and matching exists only between vectors.

use model::Matcher;
use model::labels::{METRIC_NAME, Quoted};

use super::ast::{
    Aggregate, AggregateOp, Binary, Call, Expr, MatchCardinality, Span, ValueType, VectorSelector,
};
use super::error::ParseError;

type Checked = Result<(), ParseError>;

/// Checks `expr`, which was read from `query`.
pub(super) fn check(expr: &mut Expr, query: &str) -> Checked {
    Checker { query }.expr(expr)
}

struct Checker<'a> {
    query: &'a str,
}

impl Checker<'_> {
    fn fail(&self, span: Span, reason: impl Into<String>) -> Checked {
        Err(ParseError::new(self.query, span, reason))
    }

    fn expr(&self, expr: &mut Expr) -> Checked {
        match expr {
            Expr::Number(_) | Expr::String(_) => Ok(()),
            Expr::Vector(v) => self.selector(v, false),
            Expr::Matrix(m) => self.selector(&m.selector, false),
            Expr::Subquery(s) => {
                self.expr(&mut s.expr)?;
                match s.expr.value_type() {
                    ValueType::Vector => Ok(()),
                    t => {
                        let t = t.as_str();
                        self.fail(
                            s.span,
                            format!("subquery is only allowed on instant vector, got {t} instead"),
                        )
                    }
                }
            }
            Expr::Call(c) => self.call(c),
            Expr::Aggregate(a) => self.aggregate(a),
            Expr::Binary(b) => self.chain(b),
            Expr::Unary(u) => {
                self.expr(&mut u.expr)?;
                match u.expr.value_type() {
                    ValueType::Scalar | ValueType::Vector => Ok(()),
                    t => self.fail(
                        u.span,
                        format!(
                            "unary expression only allowed on expressions of type scalar or instant vector, got \"{}\"",
                            t.documented()
                        ),
                    ),
                }
            }
            Expr::Paren(p) => self.expr(&mut p.expr),
        }
    }

    fn expect(&self, expr: &mut Expr, want: ValueType, context: &str) -> Checked {
        self.expr(expr)?;
        let got = expr.value_type();
        if got == want {
            return Ok(());
        }
        let (want, got) = (want.documented(), got.documented());
        self.fail(expr.span(), format!("expected type {want} in {context}, got {got}"))
    }

    fn selector(&self, v: &VectorSelector, may_match_all: bool) -> Checked {
        if let Some(name) = &v.name {
            let written = v.matchers.iter().rev().skip(1).rev();
            return match written.clone().find(|m| m.name == METRIC_NAME) {
                None => Ok(()),
                Some(m) => {
                    let (a, b) = (Quoted(name), Quoted(&m.value));
                    self.fail(v.span, format!("metric name must not be set twice: {a} or {b}"))
                }
            };
        }
        if !may_match_all && v.matchers.iter().all(Matcher::matches_empty) {
            return self.fail(v.span, "vector selector must contain at least one non-empty matcher");
        }
        Ok(())
    }

    fn aggregate(&self, a: &mut Aggregate) -> Checked {
        self.expect(&mut a.expr, ValueType::Vector, "aggregation expression")?;
        let Some(param) = &mut a.param else {
            return Ok(());
        };
        let want = if a.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
        self.expect(param, want, "aggregation parameter")
    }

    // === Calls ===

    fn call(&self, c: &mut Call) -> Checked {
        self.argument_count(c)?;
        if c.func.name == "info" {
            self.info_selector(c)?;
        }
        let context = format!("call to function \"{}\"", c.func.name);
        let is_info = c.func.name == "info";
        for (i, arg) in c.args.iter_mut().enumerate() {
            let Some(want) = c.func.args.get(i).or(c.func.args.last()) else {
                break;
            };
            match arg {
                Expr::Vector(v) if is_info && i == 1 => self.selector(v, true)?,
                arg => self.expect(arg, *want, &context)?,
            }
        }
        Ok(())
    }

    fn argument_count(&self, c: &Call) -> Checked {
        let (known, got, name) = (c.func.args.len(), c.args.len(), c.func.name);
        let wrong = |bound: &str, n: usize| {
            self.fail(c.span, format!("expected {bound}{n} argument(s) in call to \"{name}\", got {got}"))
        };
        if c.func.variadic == 0 {
            return if known == got { Ok(()) } else { wrong("", known) };
        }
        let least = known.saturating_sub(1);
        if got < least {
            return wrong("at least ", least);
        }
        match usize::try_from(c.func.variadic) {
            Ok(more) if got > least + more => wrong("at most ", least + more),
            _ => Ok(()),
        }
    }

    /// The second argument of `info` says which info series are wanted; it selects nothing by itself.
    fn info_selector(&self, c: &Call) -> Checked {
        match c.args.get(1) {
            None => Ok(()),
            Some(Expr::Vector(v)) if v.name.is_some() => {
                self.fail(v.span, "expected label selectors only, got vector selector instead")
            }
            Some(Expr::Vector(_)) => Ok(()),
            Some(other) if other.value_type() != ValueType::Vector => {
                let got = other.value_type().documented();
                self.fail(
                    c.span,
                    format!("expected type instant vector in call to function \"info\", got {got}"),
                )
            }
            Some(other) => self.fail(other.span(), "expected label selectors only"),
        }
    }

    // === Binary operations ===

    /// An operation and those on its left, in the order of the text. The chain is taken apart and put together again.
    fn chain(&self, last: &mut Binary) -> Checked {
        let mut todo = Vec::new();
        let mut next = last.take_left();
        while let Some(mut b) = next {
            next = b.take_left();
            todo.push(b);
        }
        match todo.pop() {
            None => self.expr(&mut last.lhs)?,
            Some(mut left) => {
                self.expr(&mut left.lhs)?;
                self.binary(&mut left)?;
                while let Some(mut b) = todo.pop() {
                    b.lhs = Expr::Binary(left);
                    self.binary(&mut b)?;
                    left = b;
                }
                last.lhs = Expr::Binary(left);
            }
        }
        self.binary(last)
    }

    /// An operation whose left operand is checked already.
    fn binary(&self, b: &mut Binary) -> Checked {
        self.expr(&mut b.rhs)?;
        let (lhs, rhs) = (b.lhs.value_type(), b.rhs.value_type());
        let scalars = lhs == ValueType::Scalar && rhs == ValueType::Scalar;
        if b.return_bool && !b.op.is_comparison() {
            return self.fail(self.operator(b), "bool modifier can only be used on comparison operators");
        }
        if b.op.is_comparison() && !b.return_bool && scalars {
            return self.fail(self.operator(b), "comparisons between scalars must use BOOL modifier");
        }
        self.label_in_both_clauses(b)?;
        for operand in [&b.lhs, &b.rhs] {
            if !matches!(operand.value_type(), ValueType::Scalar | ValueType::Vector) {
                let reason = "binary expression must contain only scalar and instant vector types";
                return self.fail(operand.span(), reason);
            }
        }
        if lhs != ValueType::Vector || rhs != ValueType::Vector {
            return self.with_scalar(b);
        }
        if b.op.is_set() { self.set_operation(b) } else { Ok(()) }
    }

    /// The operator, as errors about it point to it.
    fn operator(&self, b: &Binary) -> Span {
        let end = b.lhs.span().end as usize;
        let rest = self.query.get(end..).unwrap_or("");
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        Span::new(end + blanks, b.rhs.span().start as usize)
    }

    fn label_in_both_clauses(&self, b: &Binary) -> Checked {
        let Some(m) = b.matching.as_ref().filter(|m| m.on) else {
            return Ok(());
        };
        match m.labels.iter().find(|l| m.include.contains(l)) {
            None => Ok(()),
            Some(l) => self.fail(
                self.operator(b),
                format!("label {} must not occur in ON and GROUP clause at once", Quoted(l)),
            ),
        }
    }

    fn with_scalar(&self, b: &mut Binary) -> Checked {
        if let Some(m) = b.matching.take() {
            if !m.labels.is_empty() {
                return self.fail(b.span, "vector matching only allowed between instant vectors");
            }
            if m.fill_left.is_some() || m.fill_right.is_some() {
                let reason = "filling in missing series only allowed between instant vectors";
                return self.fail(b.span, reason);
            }
        }
        if b.op.is_set() {
            let op = b.op.as_str();
            return self
                .fail(b.span, format!("set operator \"{op}\" not allowed in binary scalar expression"));
        }
        Ok(())
    }

    fn set_operation(&self, b: &mut Binary) -> Checked {
        let Some(m) = &mut b.matching else {
            return Ok(());
        };
        if m.card == MatchCardinality::OneToOne {
            m.card = MatchCardinality::ManyToMany;
        }
        if m.card != MatchCardinality::ManyToMany {
            let op = b.op.as_str();
            return self.fail(b.span, format!("no grouping allowed for \"{op}\" operation"));
        }
        if m.fill_left.is_some() || m.fill_right.is_some() {
            return self.fail(b.span, "filling in missing series not allowed for set operators");
        }
        Ok(())
    }
}
