//! Queries: `/query`, `/query_range`, `/query_exemplars`, `/format_query`, `/parse_query`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use model::duration::go_duration;
use model::labels::Quoted;
use model::trace::{self, Span};
use model::{Exemplar, Labels};
use promql::parser::{self, ParserOptions};
use promql::{QueryError, QueryOptions, QueryOutput, QueryStats, StepStats, Value, VectorSample};

use crate::app::{Answer, App, Request};
use crate::body::BodyOut;
use crate::failure::Failure;
use crate::json::{rfc3339, write_plain_float};
use crate::params::{MAX_TIME_MS, MIN_TIME_MS, Params, parse_duration_ns};
use crate::query_tree;

pub(crate) const TRUNCATED: &str = "results truncated due to limit";
const TOO_MANY_POINTS: &str = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
const BAD_STEP: &str =
    "zero or negative query resolution step widths are not accepted. Try a positive integer";

/// `/api/v1/query`
pub(crate) fn instant(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let p = &request.params;
    let limit = p.limit()?;
    let ts_ms = p.time_or("time", app.deps.clock.now_ms())?;
    let options = options(request)?;
    let mut span = span_of("promqlInstantQuery", p, &[("time", ts_ms)]);
    let _entered = span.enter();
    let output = app.deps.engine.instant(&app.deps.queryable, p.get("query"), ts_ms, &options);
    note_output(&mut span, &output);
    let output = output.map_err(|e| Failure::query(&e))?;
    Ok(answer(output, limit, p.get("stats")))
}

/// `/api/v1/query_range`
pub(crate) fn range(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let p = &request.params;
    let limit = p.limit()?;
    let start_ms = p.time("start")?;
    let end_ms = p.time("end")?;
    if end_ms < start_ms {
        return Err(Failure::invalid("end", "end timestamp must not be before start time"));
    }
    let step_ms = step_ms(p, start_ms, end_ms, app.config.max_range_points)?;
    let options = options(request)?;
    let mut span = span_of("promqlRangeQuery", p, &[("start", start_ms), ("end", end_ms)]);
    if span.is_recording() {
        span.set("step", go_duration(step_ms));
    }
    let _entered = span.enter();
    let engine = &app.deps.engine;
    let output = engine.range(&app.deps.queryable, p.get("query"), start_ms, end_ms, step_ms, &options);
    note_output(&mut span, &output);
    let output = output.map_err(|e| Failure::query(&e))?;
    Ok(answer(output, limit, p.get("stats")))
}

/// The span of a query, and what was asked for.
fn span_of(name: &'static str, p: &Params, times: &[(&'static str, i64)]) -> Span {
    let mut span = trace::child(name);
    if span.is_recording() {
        span.set("query", p.get("query").to_owned());
        span.set("timeout", p.get("timeout").to_owned());
        times.iter().for_each(|(key, ms)| span.set(key, rfc3339(*ms)));
    }
    span
}

fn note_output(span: &mut Span, output: &Result<QueryOutput, QueryError>) {
    match output {
        Err(e) => span.fail(e),
        Ok(output) => {
            let series = match &output.value {
                Value::Vector(v) => v.len(),
                Value::Matrix(m) => m.len(),
                Value::Scalar { .. } | Value::String { .. } => 0,
            };
            span.set("result_series", series as i64);
            span.set("total_samples", output.stats.total_queryable_samples as i64);
        }
    }
}

fn step_ms(p: &Params, start_ms: i64, end_ms: i64, max_points: i64) -> Result<i64, Failure> {
    let step_ns = parse_duration_ns(p.get("step")).map_err(|e| Failure::invalid("step", e))?;
    if step_ns <= 0 {
        return Err(Failure::invalid("step", BAD_STEP));
    }
    let range_ns = i128::from(end_ms.saturating_sub(start_ms)) * 1_000_000;
    if range_ns / i128::from(step_ns) > i128::from(max_points) {
        return Err(Failure::bad_data(TOO_MANY_POINTS));
    }
    // The engine counts in milliseconds; a shorter step cannot be told from one.
    Ok((step_ns / 1_000_000).max(1))
}

/// What an answer was made of: `raw`, `5m`, `1h`, or several with commas between them.
const RESOLUTION: HeaderName = HeaderName::from_static("x-almanac-resolution");

fn options(request: &Request) -> Result<QueryOptions, Failure> {
    let p = &request.params;
    let mut options = QueryOptions {
        cancel: Some(request.cancel.clone()),
        origin: Some(request.origin.clone()),
        per_step_stats: p.get("stats") == "all",
        ..QueryOptions::default()
    };
    match p.get("resolution") {
        "" => {}
        "raw" => options.raw_only = true,
        other => {
            let why = format!("{} is no resolution that can be asked for; there is \"raw\"", Quoted(other));
            return Err(Failure::invalid("resolution", why));
        }
    }
    match p.get("timeout") {
        "" => {}
        text => {
            let ns = parse_duration_ns(text).map_err(|e| Failure::invalid("timeout", e))?;
            options.timeout = Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)));
        }
    }
    match p.get("lookback_delta") {
        "" => {}
        text => {
            let ns = parse_duration_ns(text)
                .map_err(|e| Failure::bad_data(format!("error parsing lookback delta duration: {e}")))?;
            // Zero and less mean the engine's own.
            options.lookback_ms = (ns >= 1_000_000).then_some(ns / 1_000_000);
        }
    }
    Ok(options)
}

fn answer(mut output: QueryOutput, limit: usize, stats: &str) -> Answer {
    let mut notes = std::mem::take(&mut output.annotations);
    if limit > 0 && truncate(&mut output.value, limit) {
        notes.warn(TRUNCATED);
    }
    if !matches!(stats, "" | "true" | "all") {
        notes.warn(format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, \
             use \"true\" or \"all\"",
            Quoted(stats)
        ));
    }
    let with_stats = !stats.is_empty();
    let resolutions = output.resolutions.to_string();
    Answer::data(move |out| {
        out.raw("{\"resultType\":\"");
        out.raw(output.value.result_type());
        out.raw("\",\"result\":");
        write_value(out, &output.value);
        if with_stats {
            out.raw(",\"stats\":");
            write_stats(out, &output.stats);
        }
        out.raw("}");
    })
    .with(notes)
    .with_header(RESOLUTION, &resolutions)
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::Vector(v) if v.len() > limit => v.truncate(limit),
        Value::Matrix(m) if m.len() > limit => m.truncate(limit),
        _ => return false,
    }
    true
}

fn write_value(out: &mut BodyOut, value: &Value) {
    match value {
        Value::Scalar { timestamp_ms, value } => {
            out.raw("[");
            out.number(*timestamp_ms as f64 / 1000.0);
            out.raw(",\"");
            write_plain_float(out.buf(), *value);
            out.raw("\"]");
        }
        Value::String { timestamp_ms, value } => {
            out.raw("[");
            out.number(*timestamp_ms as f64 / 1000.0);
            out.raw(",");
            out.string(value);
            out.raw("]");
        }
        Value::Vector(samples) => out.list(samples, write_sample),
        Value::Matrix(series) => out.list(series, |out, s| {
            out.raw("{\"metric\":");
            out.labels(&s.labels);
            if !s.floats.is_empty() {
                out.raw(",\"values\":");
                out.list(&s.floats, |out, (t, v)| out.float_point(*t, *v));
            }
            if !s.histograms.is_empty() {
                out.raw(",\"histograms\":");
                out.list(&s.histograms, |out, (t, h)| out.histogram_point(*t, h));
            }
            out.raw("}");
        }),
    }
}

fn write_sample(out: &mut BodyOut, s: &VectorSample) {
    out.raw("{\"metric\":");
    out.labels(&s.labels);
    match &s.value {
        promql::value::PointValue::Float(v) => {
            out.raw(",\"value\":");
            out.float_point(s.timestamp_ms, *v);
        }
        promql::value::PointValue::Histogram(h) => {
            out.raw(",\"histogram\":");
            out.histogram_point(s.timestamp_ms, h);
        }
    }
    out.raw("}");
}

fn write_stats(out: &mut BodyOut, stats: &QueryStats) {
    let mut first = true;
    out.raw("{\"timings\":{");
    for (name, seconds) in [
        ("evalTotalTime", stats.eval_total_seconds),
        ("resultSortTime", stats.result_sort_seconds),
        ("queryPreparationTime", stats.query_preparation_seconds),
        ("innerEvalTime", stats.inner_eval_seconds),
        ("execQueueTime", stats.exec_queue_seconds),
        ("execTotalTime", stats.exec_total_seconds),
    ] {
        if !std::mem::take(&mut first) {
            out.raw(",");
        }
        out.key(name);
        out.number(seconds);
    }
    out.raw("},\"samples\":{");
    if let Some(steps) = &stats.by_step {
        write_points(out, "totalQueryableSamplesPerStep", steps, &steps.queryable);
    }
    out.raw("\"totalQueryableSamples\":");
    out.int(stats.total_queryable_samples);
    out.raw(",");
    if let Some(steps) = &stats.by_step {
        write_points(out, "samplesReadPerStep", steps, &steps.read);
    }
    out.raw("\"samplesRead\":");
    out.int(stats.samples_read);
    out.raw(",\"peakSamples\":");
    out.int(stats.peak_samples);
    out.raw("}}");
}

/// Counts by step; nothing at all when there is no step.
fn write_points(out: &mut BodyOut, name: &str, steps: &StepStats, counts: &[u64]) {
    if counts.is_empty() {
        return;
    }
    out.key(name);
    out.list(steps.points(counts), |out, (seconds, n)| {
        out.raw("[");
        out.number(seconds);
        out.raw(",");
        out.int(n);
        out.raw("]");
    });
    out.raw(",");
}

/// `/api/v1/query_exemplars`
pub(crate) fn exemplars(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let p = &request.params;
    let start_ms = p.time_or("start", MIN_TIME_MS)?;
    let end_ms = p.time_or("end", MAX_TIME_MS)?;
    if end_ms < start_ms {
        return Err(Failure::bad_data("end timestamp must not be before start timestamp"));
    }
    let expr =
        parser::parse(p.get("query"), &ParserOptions::all()).map_err(|e| Failure::bad_data(e.to_string()))?;
    let sets: Vec<_> = expr.selectors().iter().map(|s| s.matchers.clone()).collect();
    if sets.is_empty() {
        return Ok(Answer::nothing());
    }
    let Some(source) = &app.deps.exemplars else {
        return Err(Failure::new(
            crate::failure::Kind::Execution,
            "not supported: this store keeps no exemplars",
        ));
    };
    let found = source.select(start_ms, end_ms, &sets).map_err(|e| Failure::storage(&e))?;
    Ok(Answer::data(move |out| out.list(&found, |out, (labels, list)| write_exemplars(out, labels, list))))
}

fn write_exemplars(out: &mut BodyOut, labels: &Labels, exemplars: &[Exemplar]) {
    out.raw("{\"seriesLabels\":");
    out.labels(labels);
    out.raw(",\"exemplars\":");
    out.list(exemplars, |out, e| {
        out.raw("{\"labels\":");
        out.labels(&e.labels);
        out.raw(",\"value\":");
        out.value(e.value);
        out.raw(",\"timestamp\":");
        out.seconds(e.timestamp_ms.unwrap_or(0));
        out.raw("}");
    });
    out.raw("}");
}

/// `/api/v1/format_query`
pub(crate) fn format(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let expr = parse_expr(app, request)?;
    let text = parser::pretty(&expr);
    Ok(Answer::data(move |out| out.string(&text)))
}

/// `/api/v1/parse_query`
pub(crate) fn parse(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let expr = parse_expr(app, request)?;
    Ok(Answer::data(move |out| query_tree::write(out, &expr)))
}

fn parse_expr(app: &Arc<App>, request: &Request) -> Result<parser::Expr, Failure> {
    let options = app.deps.engine.parser_options();
    parser::parse(request.params.get("query"), &options).map_err(|e| Failure::invalid("query", e))
}
