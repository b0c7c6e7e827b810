//! Duration expressions are worked out before anything else of a query, and one without a value is an error in the query's
//! text: of several, the one that Prometheus finds first. Follows Prometheus's `feature_flags.md`, "Experimental duration
//! arithmetic".

use super::lower::Params;
use crate::error::{QueryError, Result};
use crate::parser::ast::{Duration, Expr};
use crate::parser::duration::DurationError;

/// Fails with the first duration of `expr` that has no value.
pub(super) fn check(expr: &Expr, params: &Params) -> Result<()> {
    let (step_ms, range_ms) = (params.step_ms, params.end_ms.saturating_sub(params.start_ms));
    let signed = |d: &Duration| d.resolve_signed(step_ms, range_ms);
    let positive = |d: &Duration| d.resolve_positive(step_ms, range_ms);
    let mut todo = vec![expr];
    while let Some(e) = todo.pop() {
        match e {
            Expr::Vector(v) => signed(&v.offset).map(drop),
            Expr::Matrix(m) => positive(&m.range).and_then(|_| signed(&m.selector.offset)).map(drop),
            Expr::Subquery(s) => signed(&s.offset)
                .and_then(|_| s.step.as_ref().map_or(Ok(0), positive))
                .and_then(|_| positive(&s.range))
                .map(drop),
            _ => Ok(()),
        }
        .map_err(|e| error(&e))?;
        // The vector of an aggregation comes before its parameter.
        let first = todo.len();
        e.for_each_child(|c| todo.push(c));
        if !matches!(e, Expr::Aggregate(_)) {
            todo[first..].reverse();
        }
    }
    Ok(())
}

/// The error of a query with a duration that has no value.
pub(super) fn error(e: &DurationError) -> QueryError {
    QueryError::Parse(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{ParserOptions, parse};

    #[test]
    fn the_first_duration_without_a_value_counts() {
        let params = Params {
            start_ms: 0,
            end_ms: 0,
            step_ms: 0,
            lookback_ms: 300_000,
            default_subquery_step_ms: 60_000,
        };
        for (text, expect) in [
            ("a[step()]", Some("2:8: duration must be greater than 0")),
            ("a[5m:step()] offset (1 / step())", Some("21:31: division by zero")),
            ("a[0s + range():(1m - 1m)]", Some("16:23: duration must be greater than 0")),
            (
                "quantile(scalar(a offset (1 / step())), b offset (2 % range()))",
                Some("50:61: modulo by zero"),
            ),
            ("a offset (step())", None),
            ("a offset (10 ^ 10)", Some("10:17: duration is out of range")),
            ("a offset (0 - (-1) ^ 0.5)", Some("10:24: duration is NaN or infinite")),
        ] {
            let expr = parse(text, &ParserOptions::all()).expect(text);
            let got = check(&expr, &params).map_err(|e| (e.api_type(), e.to_string()));
            assert_eq!(got, expect.map_or(Ok(()), |e| Err(("bad_data", e.to_owned()))), "{text}");
        }
    }
}
