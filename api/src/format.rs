//! `/format_query`: an expression over several lines where one line would be long.
//!
//! A part whose text is longer than [`MAX_LINE_BYTES`] is broken at its outermost operator and its operands go two blanks
//! to the right; anything shorter stays on its line. Heads (`sum by (job) (`) and operators are cut out of the printed
//! text, so that the printer of the parser stays the only one that knows how they look.

use promql::parser::Expr;

const MAX_LINE_BYTES: usize = 100;

/// The expression, laid out.
pub(crate) fn pretty(expr: &Expr) -> String {
    lay_out(expr, 0)
}

fn lay_out(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let text = expr.to_string();
    if text.len() <= MAX_LINE_BYTES {
        // A subquery that fits starts where it is put.
        return if matches!(expr, Expr::Subquery(_)) { text } else { indent + &text };
    }
    match expr {
        Expr::Aggregate(a) => {
            let inner = a.expr.to_string();
            let param = a.param.as_ref().map(|p| format!("{p}, ")).unwrap_or_default();
            let tail = format!("({param}{inner})");
            let head = text.strip_suffix(tail.as_str()).unwrap_or(a.op.as_str());
            let mut out = format!("{indent}{head}(\n");
            if let Some(p) = &a.param {
                out.push_str(&lay_out(p, level + 1));
                out.push_str(",\n");
            }
            out + &lay_out(&a.expr, level + 1) + "\n" + &indent + ")"
        }
        Expr::Binary(b) => {
            let (lhs, rhs) = (b.lhs.to_string(), b.rhs.to_string());
            let middle = text
                .strip_prefix(lhs.as_str())
                .and_then(|t| t.strip_suffix(rhs.as_str()))
                .map_or(b.op.as_str(), str::trim);
            format!("{}\n{indent}{middle}\n{}", lay_out(&b.lhs, level + 1), lay_out(&b.rhs, level + 1))
        }
        Expr::Call(c) => {
            let args: Vec<_> = c.args.iter().map(|a| lay_out(a, level + 1)).collect();
            format!("{indent}{}(\n{}\n{indent})", c.func.name, args.join(",\n"))
        }
        Expr::Paren(p) => format!("{indent}(\n{}\n{indent})", lay_out(&p.expr, level + 1)),
        Expr::Subquery(s) => {
            let inner = s.expr.to_string();
            let suffix = text.strip_prefix(inner.as_str()).unwrap_or("");
            lay_out(&s.expr, level) + suffix
        }
        Expr::Unary(u) => {
            let inner = u.expr.to_string();
            let sign = text.strip_suffix(inner.as_str()).unwrap_or("-");
            format!("{indent}{sign}{}", lay_out(&u.expr, level).trim())
        }
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => indent + &text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use promql::parser::{ParserOptions, parse};

    fn check(query: &str, expect: &str) {
        let expr = parse(query, &ParserOptions::all()).expect(query);
        assert_eq!(pretty(&expr), expect);
        let again = parse(expect, &ParserOptions::all()).expect(expect);
        assert_eq!(again, expr, "layout changes nothing");
    }

    #[test]
    fn short_ones_stay_on_a_line() {
        check("foo/bar", "foo / bar");
        check("sum(rate(a[5m]))by(job)", "sum by (job) (rate(a[5m]))");
    }

    #[test]
    fn long_ones_are_broken_at_operators() {
        let long = "http_request_duration_seconds_bucket{handler=\"/api/v1/query\",job=\"a-quite-long-job-name-indeed\"}";
        check(
            &format!("topk(3, sum by(job) (rate({long}[5m])) / -({long} > 1))"),
            &format!(
                "topk(\n  3,\n    sum by (job) (\n      rate(\n        {long}[5m]\n      )\n    )\n  /\n    -(\n      {long} > 1\n    )\n)"
            ),
        );
    }
}
