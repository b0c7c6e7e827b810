//! Two things that a query's text decides before it is evaluated, and that show in the answer.
//!
//! What does not depend on the time of evaluation is evaluated once: `sort` does not complain about a range then. And
//! histograms of which only sum and count are asked for are read without their buckets: hints about resets are made
//! before, and what is compared later is sum and count.

use std::collections::BTreeSet;

use promql::parser::ast::{BinaryOp, Expr};

use crate::pin::DEPEND_ON_TIME;

/// Whether the expression is evaluated at one step for all.
pub(super) fn is_evaluated_once(expr: &Expr) -> bool {
    match expr.without_parens() {
        Expr::Number(_) | Expr::String(_) | Expr::Matrix(_) | Expr::Subquery(_) => false,
        Expr::Unary(u) => is_evaluated_once(&u.expr),
        _ => is_invariant(expr),
    }
}

fn is_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Vector(v) => v.at.is_some(),
        Expr::Matrix(m) => m.selector.at.is_some(),
        Expr::Subquery(s) => s.at.is_some(),
        Expr::Paren(p) => is_invariant(&p.expr),
        Expr::Unary(u) => is_invariant(&u.expr),
        // Whatever the parameter: its first value counts then.
        Expr::Aggregate(a) => is_invariant(&a.expr),
        Expr::Binary(b) => is_invariant(&b.lhs) && is_invariant(&b.rhs),
        Expr::Call(c) => {
            // Bounds and step of the query are numbers.
            if matches!(c.func.name, "start" | "end" | "step" | "range") {
                return true;
            }
            let pinned_selector = c.func.name == "timestamp"
                && c.args.iter().all(|a| matches!(a.without_parens(), Expr::Vector(v) if v.at.is_some()));
            pinned_selector || (!DEPEND_ON_TIME.contains(&c.func.name) && c.args.iter().all(is_invariant))
        }
    }
}

/// Where the selectors stand whose buckets nobody looks at.
pub(super) fn statistics_only(expr: &Expr) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    walk(expr, &mut Vec::new(), &mut out);
    out
}

fn walk<'e>(expr: &'e Expr, path: &mut Vec<&'e Expr>, out: &mut BTreeSet<u32>) {
    if let Expr::Vector(_) | Expr::Matrix(_) = expr
        && skips_buckets(path)
    {
        out.insert(expr.span().start);
    }
    path.push(expr);
    let mut children = Vec::new();
    expr.for_each_child(|c| children.push(c));
    children.into_iter().for_each(|c| walk(c, path, out));
    path.pop();
}

fn skips_buckets(path: &[&Expr]) -> bool {
    let mut skips = false;
    for e in path.iter().rev() {
        match e {
            Expr::Subquery(_) => return false,
            Expr::Call(c) => match c.func.name {
                "histogram_count" | "histogram_sum" | "histogram_avg" => skips = true,
                "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => return false,
                _ => {}
            },
            Expr::Binary(b) if matches!(b.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) => return false,
            _ => {}
        }
    }
    skips
}
