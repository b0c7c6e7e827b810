//! `/api/v1/longterm/*`: what almanac has beside Prometheus's API. Digests for the audit, the backlog of a scraper node,
//! and a preview of what tagging would cost.
//!
//! `digest` answers on every node, for its own store, under the labels with which it sends: external labels are added,
//! and a matcher that asks for one with its value passes series without the label, as in remote read.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use model::{Labels, LabelsBuilder, MatchOp, Matcher, StorageError};
use wire::digest::{self, WINDOW_MS, window_start};

use crate::app::{Answer, App, Request};
use crate::body::BodyOut;
use crate::failure::{Failure, Kind};
use crate::params::{MAX_TIME_MS, MIN_TIME_MS};
use crate::sources::{BacklogRange, LongtermSource};

/// Most windows of one answer.
const MAX_WINDOWS: i64 = 12 * 400;

/// `/api/v1/longterm/digest`
pub(crate) fn digest(app: &Arc<App>, request: &Request, mut out: BodyOut) {
    let asked = match Asked::read(request) {
        Ok(asked) => asked,
        Err(e) => return fail(out, StatusCode::BAD_REQUEST, &e.text),
    };
    out.headers().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    digest::encode_begin(out.buf());
    let external = app.deps.status.external_labels();
    let sets: Vec<Vec<Matcher>> =
        asked.sets.iter().map(|set| set.iter().map(|m| without_external(m, &external)).collect()).collect();
    let mut builder = LabelsBuilder::new();
    let mut windows = 0;
    let mut mint = asked.start_ms;
    while mint <= asked.end_ms {
        let maxt = window_start(mint).saturating_add(WINDOW_MS - 1).min(asked.end_ms);
        let named = |labels: &Labels| Some(with_external(labels, &external, &mut builder));
        match digest::digest_window(&*app.deps.local_queryable, &sets, mint, maxt, named) {
            Ok(window) if window.series.is_empty() => {}
            Ok(window) => {
                windows += 1;
                digest::encode_window(&window, out.buf());
                out.checkpoint();
            }
            Err(e) => {
                tracing::warn!("digest: {e}");
                if windows == 0 {
                    out.buf().clear();
                    return fail(out, status_of(&e), &e.to_string());
                }
                // Without its end the answer is broken, which the reader sees.
                return;
            }
        }
        if out.is_dead() || request.cancel.is_cancelled() {
            return;
        }
        mint = maxt.saturating_add(1);
    }
    digest::encode_end(windows, out.buf());
    out.finish();
}

fn status_of(e: &StorageError) -> StatusCode {
    match e {
        StorageError::Closed | StorageError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        StorageError::Limit(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn fail(mut out: BodyOut, status: StatusCode, text: &str) {
    out.set_status(status);
    out.headers().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    out.raw(text);
    out.raw("\n");
    out.finish();
}

/// Selectors and range of a request.
struct Asked {
    sets: Vec<Vec<Matcher>>,
    start_ms: i64,
    end_ms: i64,
}

impl Asked {
    fn read(request: &Request) -> Result<Self, Failure> {
        let p = &request.params;
        p.check()?;
        let sets = p.matchers()?;
        if sets.is_empty() {
            return Err(Failure::bad_data("no match[] parameter provided"));
        }
        let (start_ms, end_ms) = (p.time("start")?, p.time("end")?);
        if end_ms.saturating_sub(start_ms) / WINDOW_MS > MAX_WINDOWS {
            return Err(Failure::bad_data(format!(
                "more than {MAX_WINDOWS} windows of two hours in one request"
            )));
        }
        Ok(Self { sets, start_ms, end_ms })
    }
}

/// The store knows no external labels: asking for one with its value is asking for series without it.
fn without_external(m: &Matcher, external: &Labels) -> Matcher {
    if m.op == MatchOp::Equal && external.get(&m.name) == Some(m.value.as_str()) {
        return Matcher::equal(m.name.clone(), "");
    }
    m.clone()
}

fn with_external(labels: &Labels, external: &Labels, builder: &mut LabelsBuilder) -> Labels {
    if external.is_empty() {
        return labels.clone();
    }
    builder.reset(labels);
    for (name, value) in external {
        if !labels.contains(name) {
            builder.set(name, value);
        }
    }
    builder.build()
}

fn source(app: &App) -> Result<&dyn LongtermSource, Failure> {
    match &app.deps.longterm {
        Some(source) => Ok(&**source),
        None => Err(Failure::new(Kind::Disabled, "this node sends nothing to a long-term node")),
    }
}

/// `/api/v1/longterm/backlog`: how it stands, or, with POST, a range to be sent.
pub(crate) fn backlog(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let source = source(app)?;
    if request.method == Method::GET {
        return show(source);
    }
    if !app.config.enable_admin_api {
        return Err(Failure::new(Kind::Disabled, "admin APIs disabled"));
    }
    let p = &request.params;
    p.check()?;
    let cancel = p.get("cancel");
    if !cancel.is_empty() {
        let id = cancel.parse().map_err(|e| Failure::invalid("cancel", format!("{e}")))?;
        let found = source.cancel(id).map_err(|e| Failure::operation(&e))?;
        return match found {
            true => Ok(Answer::nothing()),
            false => Err(Failure::bad_data(format!("the backlog has no range {id}"))),
        };
    }
    let sets = p.matchers()?;
    if sets.is_empty() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let start_ms = p.time_or("start", MIN_TIME_MS)?;
    let end_ms = p.time_or("end", MAX_TIME_MS)?.min(app.deps.clock.now_ms());
    if start_ms > end_ms {
        return Err(Failure::bad_data("end timestamp must not be before start time"));
    }
    let id = source.enqueue(&sets, start_ms, end_ms).map_err(|e| Failure::operation(&e))?;
    Ok(Answer::data(move |out| {
        out.raw("{");
        out.key("id");
        out.int(id);
        out.raw("}");
    }))
}

fn show(source: &dyn LongtermSource) -> Result<Answer, Failure> {
    let Some(s) = source.status() else {
        return Err(Failure::new(Kind::Disabled, "this node sends nothing to a long-term node"));
    };
    Ok(Answer::data(move |out| {
        out.raw("{");
        out.key("url");
        out.string(&s.url);
        out.raw(",");
        out.key("match");
        out.strings(s.selectors.iter().map(String::as_str));
        if let Some(label) = &s.replica_label {
            out.raw(",");
            out.key("replicaLabel");
            out.string(label);
        }
        out.raw(",");
        out.key("liveLagSeconds");
        out.number(s.live_lag_seconds);
        out.raw(",");
        out.key("completeUntil");
        match s.complete_until_ms {
            Some(t) => out.seconds(t),
            None => out.raw("null"),
        }
        out.raw(",");
        out.key("paused");
        out.bool(s.paused);
        out.raw(",");
        out.key("lastError");
        out.string(&s.last_error);
        for (key, n) in [
            ("samplesSent", s.samples_sent),
            ("windowsLeft", s.windows_left),
            ("samplesLeft", s.samples_left),
        ] {
            out.raw(",");
            out.key(key);
            out.int(n);
        }
        out.raw(",");
        out.key("samplesPerSecond");
        out.number(s.samples_per_second);
        out.raw(",");
        out.key("ranges");
        out.list(s.ranges, |out, r| write_range(out, &r));
        out.raw("}");
    }))
}

fn write_range(out: &mut BodyOut, r: &BacklogRange) {
    out.raw("{");
    out.key("id");
    out.int(r.id);
    out.raw(",");
    out.key("reason");
    out.string(&r.reason);
    out.raw(",");
    out.key("match");
    out.strings(r.selectors.iter().map(String::as_str));
    for (key, t) in [("start", r.start_ms), ("end", r.end_ms), ("doneUntil", r.done_until_ms)] {
        out.raw(",");
        out.key(key);
        out.seconds(t);
    }
    out.raw(",");
    out.key("samplesSent");
    out.int(r.samples);
    out.raw("}");
}

/// `/api/v1/longterm/preview`: what selectors select, and what it would take in the long-term node.
pub(crate) fn preview(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let source = source(app)?;
    let p = &request.params;
    p.check()?;
    let sets = p.matchers()?;
    if sets.is_empty() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let now_ms = app.deps.clock.now_ms();
    let end_ms = p.time_or("end", now_ms)?;
    let start_ms = p.time_or("start", end_ms.saturating_sub(86_400_000))?;
    let found = source.preview(&sets, start_ms, end_ms).map_err(|e| Failure::operation(&e))?;
    Ok(Answer::data(move |out| {
        out.raw("{");
        out.key("seconds");
        out.number(found.seconds);
        for (key, n) in [("series", found.series), ("samples", found.samples), ("bytes", found.bytes)] {
            out.raw(",");
            out.key(key);
            out.int(n);
        }
        out.raw("}");
    }))
}
