//! `/parse_query`: the syntax tree as JSON. Keys are in alphabetical order.

use model::Matcher;
use promql::parser::Expr;
use promql::parser::ast::{At, Binary, Boundary, Call, Subquery, UnaryOp, VectorSelector};
use promql::parser::duration::{Duration, DurationExpr, DurationOp};

use crate::body::BodyOut;
use crate::json::write_plain_float;

/// Writes the tree of `expr`.
pub(crate) fn write(out: &mut BodyOut, expr: &Expr) {
    match expr {
        Expr::Number(n) => {
            out.raw("{\"type\":\"numberLiteral\",\"val\":\"");
            write_plain_float(out.buf(), n.value);
            out.raw("\"}");
        }
        Expr::String(s) => {
            out.raw("{\"type\":\"stringLiteral\",\"val\":");
            out.string(&s.value);
            out.raw("}");
        }
        Expr::Vector(v) => {
            out.raw("{");
            selector(out, v, None);
            out.raw("vectorSelector\"}");
        }
        Expr::Matrix(m) => {
            out.raw("{");
            selector(out, &m.selector, Some(&m.range));
            out.raw("matrixSelector\"}");
        }
        Expr::Subquery(s) => subquery(out, s),
        Expr::Call(c) => call(out, c),
        Expr::Aggregate(a) => {
            out.raw("{\"expr\":");
            write(out, &a.expr);
            out.raw(",\"grouping\":");
            out.strings(a.grouping.iter().map(String::as_str));
            out.raw(",\"op\":");
            out.string(a.op.as_str());
            out.raw(",\"param\":");
            match &a.param {
                Some(p) => write(out, p),
                None => out.raw("null"),
            }
            out.raw(",\"type\":\"aggregation\",\"without\":");
            out.bool(a.without);
            out.raw("}");
        }
        Expr::Binary(b) => binary(out, b),
        Expr::Unary(u) => {
            out.raw("{\"expr\":");
            write(out, &u.expr);
            out.raw(if u.op == UnaryOp::Minus { ",\"op\":\"-\"" } else { ",\"op\":\"+\"" });
            out.raw(",\"type\":\"unaryExpr\"}");
        }
        Expr::Paren(p) => {
            out.raw("{\"expr\":");
            write(out, &p.expr);
            out.raw(",\"type\":\"parenExpr\"}");
        }
    }
    out.checkpoint();
}

/// The fields of both selectors, up to the opening quote of the value of `type`.
fn selector(out: &mut BodyOut, v: &VectorSelector, range: Option<&Duration>) {
    out.raw("\"anchored\":");
    out.bool(v.boundary == Boundary::Anchored);
    out.raw(",\"matchers\":");
    out.list(&v.matchers, matcher);
    out.raw(",\"name\":");
    out.string(v.name.as_deref().unwrap_or(""));
    out.raw(",");
    duration(out, "offset", &v.offset);
    if let Some(range) = range {
        out.raw(",");
        duration(out, "range", range);
    }
    out.raw(",\"smoothed\":");
    out.bool(v.boundary == Boundary::Smoothed);
    start_or_end(out, v.at);
    timestamp(out, v.at);
    out.raw(",\"type\":\"");
}

fn matcher(out: &mut BodyOut, m: &Matcher) {
    out.raw("{\"name\":");
    out.string(&m.name);
    out.raw(",\"type\":");
    out.string(m.op.as_str());
    out.raw(",\"value\":");
    out.string(&m.value);
    out.raw("}");
}

fn start_or_end(out: &mut BodyOut, at: Option<At>) {
    out.raw(",\"startOrEnd\":");
    out.raw(match at {
        Some(At::Start) => "\"start\"",
        Some(At::End) => "\"end\"",
        _ => "null",
    });
}

fn timestamp(out: &mut BodyOut, at: Option<At>) {
    out.raw(",\"timestamp\":");
    match at {
        Some(At::Timestamp(ms)) => out.int(ms),
        _ => out.raw("null"),
    }
}

/// `"name":ms,"nameExpr":…`
fn duration(out: &mut BodyOut, name: &str, d: &Duration) {
    let (ms, expr) = match d {
        Duration::Nanos(ns) => (*ns / 1_000_000, None),
        Duration::Expr(e) => (0, Some(e)),
    };
    out.key(name);
    out.int(ms);
    out.raw(",\"");
    out.raw(name);
    out.raw("Expr\":");
    match expr {
        Some(e) => duration_expr(out, e, false),
        None => out.raw("null"),
    }
}

fn duration_expr(out: &mut BodyOut, e: &DurationExpr, wrapped: bool) {
    let (lhs, op, rhs) = match e {
        DurationExpr::Paren(inner, _) => return duration_expr(out, inner, true),
        DurationExpr::Number { seconds, duration, .. } if !wrapped => {
            out.raw("{\"duration\":");
            out.bool(*duration);
            out.raw(",\"type\":\"numberLiteral\",\"val\":\"");
            write_plain_float(out.buf(), *seconds);
            return out.raw("\"}");
        }
        // A number in parentheses is kept as one with a sign that says nothing.
        DurationExpr::Number { .. } => (None, "+", Some(e)),
        DurationExpr::Step(_) => (None, "step", None),
        DurationExpr::Range(_) => (None, "range", None),
        DurationExpr::MinOf(a, b, _) => (Some(&**a), "min_of", Some(&**b)),
        DurationExpr::MaxOf(a, b, _) => (Some(&**a), "max_of", Some(&**b)),
        DurationExpr::Neg(a, _) => (None, "-", Some(&**a)),
        DurationExpr::Plus(a, _) => (None, "+", Some(&**a)),
        DurationExpr::Binary { op, lhs, rhs, .. } => (Some(&**lhs), operator(*op), Some(&**rhs)),
    };
    out.raw("{\"lhs\":");
    side(out, lhs);
    out.raw(",\"op\":");
    out.string(op);
    out.raw(",\"rhs\":");
    side(out, rhs);
    out.raw(",\"type\":\"durationExpr\",\"wrapped\":");
    out.bool(wrapped);
    out.raw("}");
}

fn side(out: &mut BodyOut, e: Option<&DurationExpr>) {
    match e {
        Some(e) => duration_expr(out, e, false),
        None => out.raw("null"),
    }
}

fn operator(op: DurationOp) -> &'static str {
    match op {
        DurationOp::Add => "+",
        DurationOp::Sub => "-",
        DurationOp::Mul => "*",
        DurationOp::Div => "/",
        DurationOp::Mod => "%",
        DurationOp::Pow => "^",
    }
}

fn subquery(out: &mut BodyOut, s: &Subquery) {
    out.raw("{\"expr\":");
    write(out, &s.expr);
    out.raw(",");
    duration(out, "offset", &s.offset);
    out.raw(",");
    duration(out, "range", &s.range);
    start_or_end(out, s.at);
    out.raw(",");
    duration(out, "step", s.step.as_ref().unwrap_or(&Duration::Nanos(0)));
    timestamp(out, s.at);
    out.raw(",\"type\":\"subquery\"}");
}

fn call(out: &mut BodyOut, c: &Call) {
    out.raw("{\"args\":");
    out.list(&c.args, write);
    out.raw(",\"func\":{\"argTypes\":");
    out.strings(c.func.args.iter().map(|t| t.as_str()));
    out.raw(",\"name\":");
    out.string(c.func.name);
    out.raw(",\"returnType\":");
    out.string(c.func.returns.as_str());
    out.raw(",\"variadic\":");
    out.int(c.func.variadic);
    out.raw("},\"type\":\"call\"}");
}

/// An operation and those on its left, in a loop: chains are long.
fn binary(out: &mut BodyOut, last: &Binary) {
    let chain = last.chain();
    for b in &chain {
        out.raw("{\"bool\":");
        out.bool(b.return_bool);
        out.raw(",\"lhs\":");
    }
    if let Some(first) = chain.last() {
        write(out, &first.lhs);
    }
    for (i, b) in chain.iter().rev().enumerate() {
        if i > 0 {
            out.checkpoint();
        }
        after_left(out, b);
    }
}

/// What follows the left operand.
fn after_left(out: &mut BodyOut, b: &Binary) {
    out.raw(",\"matching\":");
    match &b.matching {
        None => out.raw("null"),
        Some(m) => {
            out.raw("{\"card\":");
            out.string(m.card.as_str());
            out.raw(",\"fillValues\":{\"lhs\":");
            fill(out, m.fill_left);
            out.raw(",\"rhs\":");
            fill(out, m.fill_right);
            out.raw("},\"include\":");
            out.strings(m.include.iter().map(String::as_str));
            out.raw(",\"labels\":");
            out.strings(m.labels.iter().map(String::as_str));
            out.raw(",\"on\":");
            out.bool(m.on);
            out.raw("}");
        }
    }
    out.raw(",\"op\":");
    out.string(b.op.as_str());
    out.raw(",\"rhs\":");
    write(out, &b.rhs);
    out.raw(",\"type\":\"binaryExpr\"}");
}

fn fill(out: &mut BodyOut, value: Option<f64>) {
    match value {
        Some(v) => out.number(v),
        None => out.raw("null"),
    }
}
