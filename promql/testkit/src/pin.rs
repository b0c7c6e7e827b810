//! A query pinned to one time: `@ T` on everything that selects.

use promql::parser::ast::{At, Expr};
use promql::parser::{ParseError, ParserOptions, parse};

/// Functions whose value depends on the time of evaluation, or on the query's bounds, whatever the selectors say.
pub(crate) const DEPEND_ON_TIME: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "year",
];

/// The query with `@` on every selector and subquery that lies in no other subquery and names no time yet, printed back.
/// `None` when it calls a function whose value depends on the time of evaluation.
///
/// # Errors
/// When the query does not parse.
pub(crate) fn pinned(query: &str, timestamp_ms: i64) -> Result<Option<String>, ParseError> {
    let mut expr = parse(query, &ParserOptions::all())?;
    let mut depends = false;
    expr.walk(|e| depends |= matches!(e, Expr::Call(c) if DEPEND_ON_TIME.contains(&c.func.name)));
    if depends {
        return Ok(None);
    }
    pin(&mut expr, At::Timestamp(timestamp_ms));
    Ok(Some(expr.to_string()))
}

fn pin(expr: &mut Expr, to: At) {
    // `start()` and `end()` are times of the query, which is about to be evaluated at other ones.
    let set = |at: &mut Option<At>| {
        if !matches!(at, Some(At::Timestamp(_))) {
            *at = Some(to);
        }
    };
    match expr {
        Expr::Vector(v) => set(&mut v.at),
        Expr::Matrix(m) => set(&mut m.selector.at),
        Expr::Subquery(s) => set(&mut s.at),
        other => other.for_each_child_mut(|c| pin(c, to)),
    }
}

#[cfg(test)]
mod tests {
    use super::pinned;

    #[test]
    fn pins_what_lies_in_no_subquery() {
        for (query, expect) in [
            ("foo + bar @ 5", "foo @ -1.500 + bar @ 5.000"),
            ("rate(foo[5m] offset 1m)", "rate(foo[5m] @ -1.500 offset 1m)"),
            ("sum_over_time(foo[5m:1m])", "sum_over_time(foo[5m:1m] @ -1.500)"),
            ("foo @ end()", "foo @ -1.500"),
            ("1 + 2", "1 + 2"),
        ] {
            assert_eq!(pinned(query, -1_500).expect("valid").as_deref(), Some(expect));
        }
        assert_eq!(pinned("foo + time()", 0).expect("valid"), None);
    }
}
