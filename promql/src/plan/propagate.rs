//! Matchers move across operators: series that cannot meet one on the other side need not be read.
//!
//! Only where nobody can tell. A series that is left out must cause no error and no annotation, and its side being empty
//! must not either: Prometheus looks for duplicates on the "one" side only while both sides have samples. So the side
//! that is narrowed is a selector, or a function that tells nothing, and for arithmetic the other side is an aggregation,
//! which has no duplicates.

use model::Matcher;
use model::labels::METRIC_NAME;

use super::node::{Aggregate, Binary, Node, Selection, WindowSource};
use crate::parser::ast::{AggregateOp, BinaryOp, Boundary, MatchCardinality, VectorMatching};

/// Adds matchers to selections. Each has one user yet.
pub(crate) fn propagate(node: &mut Node, selections: &mut [Selection]) {
    node.for_each_child_mut(&mut |c| propagate(c, selections));
    let Node::Binary(b) = node else { return };
    let Binary { op, lhs, rhs, matching: Some(m), .. } = &mut **b else { return };
    if m.fill_left.is_some() || m.fill_right.is_some() {
        return;
    }
    match (op, m.card) {
        (BinaryOp::And, _) => {
            narrow(rhs, &known(lhs, selections), m, selections);
            narrow(lhs, &known(rhs, selections), m, selections);
        }
        (BinaryOp::Unless, _) => narrow(rhs, &known(lhs, selections), m, selections),
        (BinaryOp::Or, _) => {}
        (_, MatchCardinality::OneToMany) if is_unique(lhs, m) => {
            narrow(rhs, &known(lhs, selections), m, selections);
        }
        (_, MatchCardinality::OneToOne | MatchCardinality::ManyToOne) if is_unique(rhs, m) => {
            narrow(lhs, &known(rhs, selections), m, selections);
        }
        _ => {}
    }
}

/// Whether the label decides which series meet.
fn decides(m: &VectorMatching, label: &str) -> bool {
    label != METRIC_NAME && m.on == m.labels.iter().any(|l| l == label)
}

/// Whether no two series of the side are in one match group.
fn is_unique(side: &Node, m: &VectorMatching) -> bool {
    match side {
        Node::Aggregate(a) => folds(a.op) && !a.without && a.grouping.iter().all(|l| decides(m, l)),
        _ => false,
    }
}

/// Aggregations with one series per group.
fn folds(op: AggregateOp) -> bool {
    !matches!(
        op,
        AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio
            | AggregateOp::CountValues
    )
}

/// Matchers that all series of a vector pass.
fn known(node: &Node, selections: &[Selection]) -> Vec<Matcher> {
    let of = |at: usize| selections.get(at).map_or_else(Vec::new, |s| s.matchers.clone());
    match node {
        Node::Instant(i) => of(i.selection),
        Node::Window(w) if w.func != "absent_over_time" => match &w.source {
            WindowSource::Selector { selection, .. } => of(*selection),
            WindowSource::Subquery { .. } => Vec::new(),
        },
        Node::Aggregate(a) => of_groups(a, known(&a.input, selections)),
        _ => Vec::new(),
    }
}

fn of_groups(a: &Aggregate, mut matchers: Vec<Matcher>) -> Vec<Matcher> {
    if !folds(a.op) {
        return Vec::new();
    }
    matchers.retain(|m| a.grouping.contains(&m.name) != a.without);
    matchers
}

/// Adds those matchers to a side that decide about its series, when leaving series out goes unnoticed.
fn narrow(side: &Node, matchers: &[Matcher], m: &VectorMatching, selections: &mut [Selection]) {
    let at = match side {
        // A smoothed selector tells of series that mix floats and histograms.
        Node::Instant(i) if i.boundary != Boundary::Smoothed => i.selection,
        Node::Window(w) if matches!(w.func, "count_over_time" | "last_over_time" | "present_over_time") => {
            match &w.source {
                WindowSource::Selector { selection, .. } => *selection,
                WindowSource::Subquery { .. } => return,
            }
        }
        _ => return,
    };
    let Some(selection) = selections.get_mut(at) else { return };
    for matcher in matchers.iter().filter(|x| decides(m, &x.name)) {
        if !selection.matchers.contains(matcher) {
            selection.matchers.push(matcher.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::lower::{Params, lower};
    use crate::plan::optimize::optimize;

    /// The selections of the optimised plan of a query.
    fn selections(query: &str) -> Vec<String> {
        let expr = crate::parser::parse(query, &crate::parser::ParserOptions::default()).expect("a query");
        let params = Params {
            start_ms: 0,
            end_ms: 60_000,
            step_ms: 60_000,
            lookback_ms: 300_000,
            default_subquery_step_ms: 60_000,
        };
        let mut plan = lower(&expr, params).expect("a plan");
        optimize(&mut plan, crate::plan::Grid::new(0, 60_000, 60_000));
        let text = |s: &crate::plan::node::Selection| {
            s.matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        plan.selections.iter().map(text).collect()
    }

    #[test]
    fn matchers_move_where_nobody_can_tell() {
        let a = r#"x="1",__name__="a""#;
        for (query, expect) in [
            (r#"a{x="1"} and on (x) b"#, [a, r#"__name__="b",x="1""#]),
            (r#"a{x="1"} and b"#, [a, r#"__name__="b",x="1""#]),
            (r#"a{x="1"} and ignoring (x) b"#, [a, r#"__name__="b""#]),
            (r#"a{x="1"} and on (y) b"#, [a, r#"__name__="b""#]),
            (r#"a{x="1"} unless b"#, [a, r#"__name__="b",x="1""#]),
            (r#"a{x="1"} or b"#, [a, r#"__name__="b""#]),
            // Duplicates of `b` at other `x` are an error.
            (r#"a{x="1"} / on (x) b"#, [a, r#"__name__="b""#]),
            // The other way round: without `b` nobody looks for duplicates of `a`.
            (r#"b / on (x) a{x="1"}"#, [r#"__name__="b""#, a]),
            (r#"b / on (x) sum by (x) (a{x="1"})"#, [r#"__name__="b",x="1""#, a]),
            (r#"sum by (x) (a{x="1"}) * on (x) group_right () b"#, [a, r#"__name__="b",x="1""#]),
            (r#"b / on (y) sum by (y) (a{x="1"})"#, [r#"__name__="b""#, a]),
            // An annotation about `b` is not lost.
            (r#"rate(b[1m]) / on (x) sum by (x) (a{x="1"})"#, [r#"__name__="b""#, a]),
        ] {
            let mut got = selections(query);
            got.iter_mut().for_each(|s| *s = sorted(s));
            assert_eq!(got, expect.map(sorted), "{query}");
        }
    }

    fn sorted(matchers: &str) -> String {
        let mut all: Vec<&str> = matchers.split(',').collect();
        all.sort_unstable();
        all.join(",")
    }
}
