//! Makes a plan cheaper without changing its answer: constants are folded, matchers move across operators, parts that do
//! not depend on the evaluation time are evaluated once, selections that read the same series are shared.

use model::RollupRequest;

use super::grid::Grid;
use super::node::{Node, Plan, WindowSource};
use super::propagate::propagate;
use crate::functions::scalar_binary;
use crate::parser::ast::ValueType;

/// Functions whose value depends on the evaluation time even when their arguments do not.
const TIME_DEPENDENT: [&str; 10] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "timestamp",
    "year",
];

/// Applies all passes.
pub(crate) fn optimize(plan: &mut Plan, grid: Grid) {
    fold_constants(&mut plan.root);
    propagate(&mut plan.root, &mut plan.selections);
    if grid.is_range || holds_subquery(&mut plan.root) {
        let wrap = pin_invariants(&mut plan.root);
        if wrap && worth_pinning(&plan.root) {
            pin(&mut plan.root);
        }
    }
    share_selections(plan);
}

fn fold_constants(node: &mut Node) {
    node.for_each_child_mut(&mut fold_constants);
    let folded = match node {
        Node::Binary(b) => match (&b.lhs, &b.rhs) {
            (Node::Number(l), Node::Number(r)) => scalar_binary(b.op, *l, *r),
            _ => None,
        },
        Node::Negate(inner) => match **inner {
            Node::Number(v) => Some(-v),
            _ => None,
        },
        _ => None,
    };
    if let Some(v) = folded {
        *node = Node::Number(v);
    }
}

fn holds_subquery(node: &mut Node) -> bool {
    let mut found = match node {
        Node::Window(w) => matches!(w.source, WindowSource::Subquery { .. }),
        Node::Ranges(s) => matches!(**s, WindowSource::Subquery { .. }),
        _ => false,
    };
    node.for_each_child_mut(&mut |c| found |= holds_subquery(c));
    found
}

/// Wraps the largest invariant parts below `node` and tells whether `node` is invariant itself.
fn pin_invariants(node: &mut Node) -> bool {
    match node {
        Node::Number(_) | Node::Text(_) | Node::Invariant(_) => true,
        Node::Time => false,
        Node::Instant(i) => i.shift.is_pinned(),
        Node::Window(w) => {
            let mut invariant = !TIME_DEPENDENT.contains(&w.func) && source_is_pinned(&mut w.source);
            let scalars: Vec<bool> = w.scalars.iter_mut().map(pin_invariants).collect();
            invariant &= scalars.iter().all(|s| *s);
            if !invariant {
                w.scalars.iter_mut().zip(scalars).for_each(|(n, s)| pin_if(n, s));
            }
            invariant
        }
        Node::Ranges(source) => {
            source_is_pinned(source);
            false
        }
        Node::Call(c) => {
            let args: Vec<bool> = c.args.iter_mut().map(pin_invariants).collect();
            let needs_time = TIME_DEPENDENT.contains(&c.func) || (c.func == "info");
            let invariant = !needs_time && args.iter().all(|a| *a);
            if !invariant && c.func != "info" {
                c.args.iter_mut().zip(args).for_each(|(n, a)| pin_if(n, a));
            }
            invariant
        }
        Node::Aggregate(a) => {
            let input = pin_invariants(&mut a.input);
            let param = a.param.as_mut().is_none_or(pin_invariants);
            if !(input && param) {
                pin_if(&mut a.input, input);
                a.param.iter_mut().for_each(|p| pin_if(p, param));
            }
            input && param
        }
        Node::Binary(b) => {
            let (l, r) = (pin_invariants(&mut b.lhs), pin_invariants(&mut b.rhs));
            if !(l && r) {
                pin_if(&mut b.lhs, l);
                pin_if(&mut b.rhs, r);
            }
            l && r
        }
        Node::Negate(inner) => pin_invariants(inner),
    }
}

/// Whether a part of a plan is the same at all times, without changing it.
pub(super) fn is_invariant(node: &Node) -> bool {
    match node {
        Node::Number(_) | Node::Text(_) | Node::Invariant(_) => true,
        Node::Time | Node::Ranges(_) => false,
        Node::Instant(i) => i.shift.is_pinned(),
        Node::Window(w) => {
            let source = w.source.shift().is_pinned();
            source && !TIME_DEPENDENT.contains(&w.func) && w.scalars.iter().all(is_invariant)
        }
        Node::Call(c) => {
            c.func != "info" && !TIME_DEPENDENT.contains(&c.func) && c.args.iter().all(is_invariant)
        }
        Node::Aggregate(a) => is_invariant(&a.input),
        Node::Binary(b) => is_invariant(&b.lhs) && is_invariant(&b.rhs),
        Node::Negate(inner) => is_invariant(inner),
    }
}

/// The inside of a subquery is pinned even when the subquery is too.
fn source_is_pinned(source: &mut WindowSource) -> bool {
    if let WindowSource::Subquery { input, .. } = source {
        let invariant = pin_invariants(input);
        pin_if(input, invariant);
    }
    source.shift().is_pinned()
}

fn pin_if(node: &mut Node, invariant: bool) {
    if invariant && worth_pinning(node) {
        pin(node);
    }
}

/// Constants cost nothing.
fn worth_pinning(node: &Node) -> bool {
    !matches!(node, Node::Number(_) | Node::Text(_) | Node::Invariant(_) | Node::Ranges(_))
        && node.value_type() != ValueType::String
}

fn pin(node: &mut Node) {
    let inner = std::mem::replace(node, Node::Number(0.0));
    *node = Node::Invariant(Box::new(inner));
}

/// Leaves with equal matchers read one selection over the union of their ranges.
fn share_selections(plan: &mut Plan) {
    let mut moved_to: Vec<usize> = Vec::with_capacity(plan.selections.len());
    let mut kept: Vec<super::node::Selection> = Vec::new();
    for s in plan.selections.drain(..) {
        let same = |k: &super::node::Selection| {
            k.matchers == s.matchers
                && k.stats_only == s.stats_only
                && shared_rollup(k.rollup, s.rollup).is_some()
        };
        match kept.iter().position(same) {
            Some(at) => {
                let k = &mut kept[at];
                k.rollup = shared_rollup(k.rollup, s.rollup).flatten();
                k.users += s.users;
                k.hints.start_ms = k.hints.start_ms.min(s.hints.start_ms);
                k.hints.end_ms = k.hints.end_ms.max(s.hints.end_ms);
                k.hints.range_ms = k.hints.range_ms.max(s.hints.range_ms);
                if (&k.hints.func, &k.hints.grouping, k.hints.by)
                    != (&s.hints.func, &s.hints.grouping, s.hints.by)
                {
                    k.hints.func.clear();
                    k.hints.grouping.clear();
                    k.hints.by = false;
                }
                moved_to.push(at);
            }
            None => {
                moved_to.push(kept.len());
                kept.push(s);
            }
        }
    }
    plan.selections = kept;
    redirect(&mut plan.root, &moved_to);
}

/// The rollup that serves two leaves. `None` when samples or finer cells would have to do, which cost more than a second look at
/// the series.
fn shared_rollup(a: Option<RollupRequest>, b: Option<RollupRequest>) -> Option<Option<RollupRequest>> {
    match (a, b) {
        (None, None) => Some(None),
        (Some(a), Some(b)) => {
            let both = a.union(b);
            let same = |r: RollupRequest| (r.width_ms, r.period_ms) == (both.width_ms, both.period_ms);
            (same(a) && same(b)).then_some(Some(both))
        }
        _ => None,
    }
}

fn redirect(node: &mut Node, moved_to: &[usize]) {
    let source = match node {
        Node::Instant(i) => {
            i.selection = moved_to[i.selection];
            None
        }
        Node::Window(w) => Some(&mut w.source),
        Node::Ranges(s) => Some(&mut **s),
        _ => None,
    };
    if let Some(WindowSource::Selector { selection, .. }) = source {
        *selection = moved_to[*selection];
    }
    node.for_each_child_mut(&mut |c| redirect(c, moved_to));
}
