//! Plans as text, one node a line, operands indented.

use std::fmt::{self, Write};

use super::grid::Shift;
use super::node::{Node, Plan, Selection, WindowSource};
use crate::parser::ast::Boundary;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_node(f, self, &self.root, 0)
    }
}

fn line(f: &mut fmt::Formatter<'_>, depth: usize, text: &str) -> fmt::Result {
    writeln!(f, "{:1$}{text}", "", depth * 2)
}

fn write_node(f: &mut fmt::Formatter<'_>, plan: &Plan, node: &Node, depth: usize) -> fmt::Result {
    let child = |f: &mut fmt::Formatter<'_>, n: &Node| write_node(f, plan, n, depth + 1);
    match node {
        Node::Number(v) => line(f, depth, &format!("number {v}")),
        Node::Text(s) => line(f, depth, &format!("string {s:?}")),
        Node::Time => line(f, depth, "time"),
        Node::Instant(i) => {
            let text = selector(plan, i.selection, &i.shift, i.boundary);
            line(f, depth, &format!("select {text}"))
        }
        Node::Window(w) => {
            line(f, depth, &format!("window {} [{}]", w.func, ms(w.source.range_ms())))?;
            for s in &w.scalars {
                child(f, s)?;
            }
            write_source(f, plan, &w.source, depth + 1)
        }
        Node::Ranges(s) => {
            line(f, depth, &format!("ranges [{}]", ms(s.range_ms())))?;
            write_source(f, plan, s, depth + 1)
        }
        Node::Call(c) => {
            line(f, depth, &format!("call {}", c.func))?;
            c.args.iter().try_for_each(|a| child(f, a))
        }
        Node::Aggregate(a) => {
            let clause = if a.without { "without" } else { "by" };
            line(f, depth, &format!("aggregate {} {clause} ({})", a.op.as_str(), a.grouping.join(", ")))?;
            if let Some(p) = &a.param {
                child(f, p)?;
            }
            child(f, &a.input)
        }
        Node::Binary(b) => {
            line(f, depth, &format!("binary {}", b.op.as_str()))?;
            child(f, &b.lhs)?;
            child(f, &b.rhs)
        }
        Node::Negate(n) => {
            line(f, depth, "negate")?;
            child(f, n)
        }
        Node::Invariant(n) => {
            line(f, depth, "once")?;
            child(f, n)
        }
    }
}

fn write_source(f: &mut fmt::Formatter<'_>, plan: &Plan, source: &WindowSource, depth: usize) -> fmt::Result {
    match source {
        WindowSource::Selector { selection, shift, boundary, .. } => {
            line(f, depth, &format!("select {}", selector(plan, *selection, shift, *boundary)))
        }
        WindowSource::Subquery { input, shift, step_ms, .. } => {
            line(f, depth, &format!("subquery step {}{}", ms(*step_ms), shift_text(shift)))?;
            write_node(f, plan, input, depth + 1)
        }
    }
}

fn selector(plan: &Plan, at: usize, shift: &Shift, boundary: Boundary) -> String {
    let mut out = format!("#{at}");
    if let Some(Selection { matchers, users, .. }) = plan.selections.get(at) {
        out.push_str(" {");
        for (i, m) in matchers.iter().enumerate() {
            let _ = write!(out, "{}{m}", if i > 0 { ", " } else { "" });
        }
        out.push('}');
        if *users > 1 {
            let _ = write!(out, " shared by {users}");
        }
    }
    out.push_str(&shift_text(shift));
    out.push_str(match boundary {
        Boundary::Plain => "",
        Boundary::Anchored => " anchored",
        Boundary::Smoothed => " smoothed",
    });
    out
}

fn shift_text(shift: &Shift) -> String {
    let mut out = String::new();
    if let Some(at) = shift.at_ms {
        let _ = write!(out, " @ {}", at as f64 / 1000.0);
    }
    if shift.offset_ms != 0 {
        let _ = write!(out, " offset {}", ms(shift.offset_ms));
    }
    out
}

fn ms(ms: i64) -> String {
    model::duration::format_ms(ms)
}
