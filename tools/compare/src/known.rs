//! Differences between Prometheus 2.x and 3.x that are meant to be: recognised, and counted by name.
//!
//! A rule names the version that changed the behaviour and says which differences it may explain, from what occurs in the
//! query and how the answers differ. Rules are as narrow as that allows. Only a comparison of a 2.x server with one of 3.x
//! asks for them.

use std::collections::BTreeSet;

use promql::parser::ast::{AggregateOp, BinaryOp, Expr, ValueType};
use promql::parser::{ParserOptions, parse};

use crate::difference::{Difference, Kind};

/// What occurs in a query.
#[derive(Debug, Default)]
pub struct Features {
    functions: BTreeSet<&'static str>,
    aggregates: BTreeSet<&'static str>,
    operators: BTreeSet<&'static str>,
    selectors: bool,
    subqueries: bool,
    pinned: bool,
    parameter_varies: bool,
    duration_numbers: bool,
}

impl Features {
    /// Of a query; nothing when it does not parse.
    #[must_use]
    pub fn of(query: &str) -> Self {
        let mut f = Self::default();
        let Ok(expr) = parse(query, &ParserOptions::all()) else {
            return f;
        };
        expr.walk(|e| match e {
            Expr::Call(c) => drop(f.functions.insert(c.func.name)),
            Expr::Aggregate(a) => {
                f.aggregates.insert(a.op.as_str());
                let constant = |p: &Expr| matches!(p.without_parens(), Expr::Number(_) | Expr::String(_));
                f.parameter_varies |= a.param.as_ref().is_some_and(|p| !constant(p));
            }
            Expr::Binary(b) => drop(f.operators.insert(b.op.as_str())),
            Expr::Subquery(s) => {
                f.subqueries = true;
                f.pinned |= s.at.is_some();
            }
            Expr::Number(n) => f.duration_numbers |= n.duration,
            _ => {}
        });
        for v in expr.selectors() {
            f.selectors = true;
            f.pinned |= v.at.is_some();
        }
        f
    }

    fn function(&self, names: &[&str]) -> bool {
        names.iter().any(|n| self.functions.contains(n))
    }

    fn aggregate(&self, ops: &[AggregateOp]) -> bool {
        ops.iter().any(|op| self.aggregates.contains(op.as_str()))
    }

    /// Whether something makes a great difference of a small one.
    fn jumps(&self) -> bool {
        self.function(JUMPS)
            || self.aggregate(&[AggregateOp::Topk, AggregateOp::Bottomk, AggregateOp::CountValues])
            || self.operator(|op| {
                matches!(op, BinaryOp::Mod | BinaryOp::Pow | BinaryOp::Atan2) || op.is_comparison()
            })
    }

    fn operator(&self, fits: impl Fn(BinaryOp) -> bool) -> bool {
        BinaryOp::ALL.into_iter().any(|op| fits(op) && self.operators.contains(op.as_str()))
    }
}

/// Whether an instant vector's order is part of the answer: the outermost call sorts.
#[must_use]
pub fn is_ordered(query: &str) -> bool {
    match parse(query, &ParserOptions::all()) {
        Ok(e) => match e.without_parens() {
            Expr::Call(c) => c.func.returns == ValueType::Vector && c.func.name.starts_with("sort"),
            _ => false,
        },
        Err(_) => false,
    }
}

/// A comparison to be explained.
#[derive(Debug)]
pub struct Case<'a> {
    /// What occurs in the query.
    pub features: &'a Features,
    /// What differs.
    pub difference: &'a Difference,
    /// Samples may lie on the bounds of windows.
    pub samples_on_bounds: bool,
    /// The query has one step only.
    pub instant: bool,
}

struct Rule {
    name: &'static str,
    explains: fn(&Case<'_>) -> bool,
}

/// Functions of the mathematical library.
const LIBRARY: &[&str] = &[
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "exp", "ln", "log10", "log2", "sin",
    "sinh", "tan", "tanh",
];

/// Functions that jump, or that magnify near some value.
const JUMPS: &[&str] = &[
    "acosh",
    "atanh",
    "ceil",
    "changes",
    "cos",
    "cosh",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "exp",
    "floor",
    "hour",
    "ln",
    "log10",
    "log2",
    "minute",
    "month",
    "resets",
    "round",
    "sgn",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "year",
];

/// In the order they are tried.
const RULES: &[Rule] = &[
    Rule {
        name: "3.0: windows and the lookback are left-open",
        explains: |c| {
            let windows = c.features.selectors || c.features.subqueries;
            c.samples_on_bounds && windows && c.difference.kind != Kind::ErrorType
        },
    },
    Rule {
        name: "2.54, 2.55, 3.4: sums and averages are compensated",
        explains: |c| {
            use AggregateOp::{Avg, Stddev, Stdvar, Sum};
            c.difference.kind == Kind::Value
                && (c.difference.relative < 1e-6 || c.difference.absolute < 1e-9)
                && (c.features.aggregate(&[Avg, Stddev, Stdvar, Sum])
                    || c.features.function(&[
                        "avg_over_time",
                        "sum_over_time",
                        "stddev_over_time",
                        "stdvar_over_time",
                    ]))
        },
    },
    Rule {
        name: "2.51: rate does not extrapolate beyond half an interval",
        explains: |c| c.features.function(&["rate", "increase"]) && c.difference.kind != Kind::ErrorType,
    },
    Rule {
        name: "2.49: histogram_quantile forgives small errors of buckets",
        explains: |c| c.features.function(&["histogram_quantile"]) && c.difference.kind == Kind::Value,
    },
    Rule {
        name: "3.5: parameters of aggregations may vary by step, and NaN is refused",
        explains: |c| c.features.parameter_varies,
    },
    Rule {
        name: "3.9: many-to-one matching is checked in comparisons that find nothing, too",
        explains: |c| {
            c.difference.kind == Kind::Outcome
                && c.features.operator(BinaryOp::is_comparison)
                && ["many-to-one", "multiple matches"].iter().any(|t| c.difference.detail.contains(t))
        },
    },
    Rule {
        name: "3.2, 3.9: series that never meet may get the same labels",
        explains: |c| {
            c.difference.kind == Kind::Outcome
                && !c.instant
                && c.difference.detail.contains("same labelset")
                && (c.features.function(&["label_replace", "label_join"]) || c.features.operator(|_| true))
        },
    },
    Rule {
        name: "2.51: windows pinned with @ are the same at every step",
        explains: |c| c.features.pinned && c.features.function(&["predict_linear"]),
    },
    Rule {
        name: "3.0: stddev and stdvar of NaN or infinity are NaN",
        explains: |c| {
            c.difference.kind == Kind::Value
                && c.features.aggregate(&[AggregateOp::Stddev, AggregateOp::Stdvar])
                && c.difference.detail.contains("Float(NaN)")
        },
    },
    Rule {
        name: "3.x: atan2 drops the metric name",
        explains: |c| {
            c.features.operator(|op| op == BinaryOp::Atan2)
                && matches!(c.difference.kind, Kind::Series | Kind::Outcome)
        },
    },
    Rule {
        name: "count_values writes all digits of a value into a label, also the last ones",
        explains: |c| {
            c.features.aggregate(&[AggregateOp::CountValues])
                && matches!(c.difference.kind, Kind::Series | Kind::Samples)
        },
    },
    Rule {
        name: "last digits: trigonometric functions, logarithms and powers are those of another library",
        explains: |c| {
            c.difference.kind == Kind::Value
                && (c.difference.relative < 1e-9 || c.difference.absolute < 1e-9)
                && (c.features.operator(|op| matches!(op, BinaryOp::Pow | BinaryOp::Atan2))
                    || c.features.function(LIBRARY))
        },
    },
    Rule {
        name: "last digits, magnified by a function that jumps",
        explains: |c| {
            use AggregateOp::{Avg, Stddev, Stdvar};
            let inexact = c.features.aggregate(&[Avg, Stddev, Stdvar])
                || c.features.function(LIBRARY)
                || c.features.function(&[
                    "avg_over_time",
                    "stddev_over_time",
                    "stdvar_over_time",
                    "deriv",
                    "predict_linear",
                ])
                || c.features.operator(|op| matches!(op, BinaryOp::Pow | BinaryOp::Atan2));
            inexact
                && c.features.jumps()
                && matches!(c.difference.kind, Kind::Value | Kind::Series | Kind::Samples)
        },
    },
    Rule {
        name: "2.47: timestamp() of a selector pinned with @ heeds its offset",
        explains: |c| c.features.pinned && c.features.function(&["timestamp"]),
    },
    Rule {
        name: "3.13: subqueries end with the last step of the query",
        explains: |c| c.features.subqueries && !c.instant && c.difference.kind == Kind::Outcome,
    },
    Rule {
        name: "2.44: of equal values, topk and bottomk pick others",
        explains: |c| {
            c.features.aggregate(&[AggregateOp::Topk, AggregateOp::Bottomk])
                && c.difference.kind != Kind::Outcome
        },
    },
    Rule {
        name: "2.x: a string in parentheses is an error",
        explains: |c| c.difference.kind == Kind::Outcome && c.difference.detail.contains("StepInvariantExpr"),
    },
    Rule {
        name: "2.54: numbers and durations stand for each other",
        explains: |c| c.features.duration_numbers && c.difference.kind == Kind::Outcome,
    },
];

/// The name of what explains a difference.
#[must_use]
pub fn explain(case: &Case<'_>) -> Option<&'static str> {
    RULES.iter().find(|r| (r.explains)(case)).map(|r| r.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_narrow() {
        let value =
            |relative| Difference { kind: Kind::Value, detail: String::new(), relative, absolute: relative };
        let check = |query: &str, difference: &Difference, samples_on_bounds, expect: Option<&str>| {
            let features = Features::of(query);
            let case = Case { features: &features, difference, samples_on_bounds, instant: true };
            let name = explain(&case);
            assert_eq!(name.map(|n| n.split(':').next().unwrap_or(n)), expect, "{query}");
        };
        check("a", &value(1.0), false, None);
        check("a", &value(1.0), true, Some("3.0"));
        check("sum_over_time(vector(1)[3m:1m])", &value(1.0), true, Some("3.0"));
        check("sum(a)", &value(1e-10), false, Some("2.54, 2.55, 3.4"));
        check("sum(a)", &value(1.0), false, None);
        check("1 + rate(a[5m])", &value(1.0), false, Some("2.51"));
        check("delta(a[5m])", &value(1.0), false, None);
    }

    #[test]
    fn sorting_on_the_outside_orders() {
        assert!(is_ordered("sort_desc(a)") && is_ordered("(sort(a))"));
        assert!(!is_ordered("sum(sort(a))") && !is_ordered("a") && !is_ordered("sort("));
    }
}
