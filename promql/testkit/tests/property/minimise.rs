//! Makes a failing case small: fewer series, fewer samples, fewer steps, a part of the query.

use model::SampleValue;
use promql::parser::ast::{Expr, ValueType};
use promql::parser::{ParserOptions, parse};
use promql_testkit::generate::{DataSet, EvalTime, GeneratedQuery};

/// The smallest case found for which `fails` holds.
pub(crate) fn case(
    data: &DataSet,
    query: &GeneratedQuery,
    fails: impl Fn(&DataSet, &GeneratedQuery) -> bool,
) -> (DataSet, GeneratedQuery) {
    let (mut data, mut query) = (data.clone(), query.clone());
    while let Some(smaller) = parts(&query).into_iter().find(|q| fails(&data, q)) {
        query = smaller;
    }
    if let EvalTime::Range { start_ms, end_ms, step_ms } = query.time {
        let moments = (start_ms..=end_ms).step_by(step_ms as usize);
        let instants = moments.map(|t| GeneratedQuery { time: EvalTime::Instant(t), ..query.clone() });
        if let Some(smaller) = instants.into_iter().find(|q| fails(&data, q)) {
            query = smaller;
        }
    }
    let mut i = 0;
    while i < data.series.len() {
        let mut fewer = data.clone();
        fewer.series.remove(i);
        if fails(&fewer, &query) {
            data = fewer;
        } else {
            i += 1;
        }
    }
    for i in 0..data.series.len() {
        let mut width = data.series[i].1.len() / 2;
        while width > 0 {
            let mut at = 0;
            while at < data.series[i].1.len() {
                let mut fewer = data.clone();
                let end = (at + width).min(fewer.series[i].1.len());
                fewer.series[i].1.drain(at..end);
                if fails(&fewer, &query) {
                    data = fewer;
                } else {
                    at += width;
                }
            }
            width /= 2;
        }
    }
    (data, query)
}

/// Queries for a part of the expression, largest part first.
fn parts(query: &GeneratedQuery) -> Vec<GeneratedQuery> {
    let Ok(expr) = parse(&query.text, &ParserOptions::all()) else { return Vec::new() };
    let mut out = Vec::new();
    expr.walk(|e| {
        let plain = matches!(e.value_type(), ValueType::Vector | ValueType::Scalar);
        if plain && !std::ptr::eq(e, &expr) && !matches!(e, Expr::Number(_)) {
            out.push(GeneratedQuery { text: e.to_string(), time: query.time });
        }
    });
    out.retain(|q| q.text.len() < query.text.len());
    out
}

/// The data, a sample a line.
pub(crate) fn printed(data: &DataSet) -> String {
    let mut out = String::new();
    for (labels, samples) in &data.series {
        out.push_str(&format!("  {labels}\n"));
        for s in samples {
            let value = match &s.value {
                SampleValue::Float(v) => format!("{v:?} ({:#x})", v.to_bits()),
                SampleValue::Histogram(h) => {
                    format!("{:?} {}", h.to_float().counter_reset_hint, h.to_float().test_expression())
                }
            };
            out.push_str(&format!("    {} start {}: {value}\n", s.timestamp_ms, s.start_timestamp_ms));
        }
    }
    out
}
