//! `/federate`: the newest sample of each selected series of this node, in the text format 0.0.4.
//!
//! Samples older than the lookback, and series whose newest sample is the stale marker, are left out. External labels are
//! added where a series has no label of that name. Native histograms have no text form and are left out, those with
//! custom buckets are shown as classic ones. Names that the format does not take are written with underscores, or in
//! quotes when the client allows UTF-8.

use std::cmp::Ordering;
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use model::chunk::decode_chunks;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint};
use model::labels::{METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};
use model::{FloatHistogram, Labels, SampleValue, Samples, SelectHints, StorageError};

use crate::app::{App, Request};
use crate::body::BodyOut;
use crate::exposition::{underscored, write_label_value, write_number};
use crate::params::parse_selector;

struct Newest {
    labels: Labels,
    timestamp_ms: i64,
    value: SampleValue,
}

/// `/federate`
pub(crate) fn federate(app: &Arc<App>, request: &Request, mut out: BodyOut) {
    let fail = |mut out: BodyOut, status: StatusCode, text: String| {
        out.set_status(status);
        out.headers().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        out.raw(&text);
        out.raw("\n");
        out.finish();
    };
    let p = &request.params;
    if let Err(e) = p.check() {
        return fail(out, StatusCode::BAD_REQUEST, e.text);
    }
    let sets: Result<Vec<_>, _> = p.all("match[]").map(parse_selector).collect();
    let sets = match sets {
        Ok(sets) => sets,
        Err(e) => return fail(out, StatusCode::BAD_REQUEST, e),
    };
    let found = match newest(app, request, &sets) {
        Ok(found) => found,
        Err(e) => {
            app.metrics.federation_errors.inc();
            let status = match e {
                StorageError::Closed => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return fail(out, status, e.to_string());
        }
    };
    let utf8 = allows_utf8(&request.headers);
    let kind = if utf8 {
        "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    };
    out.headers().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    write_all(&mut out, &found, &app.deps.status.external_labels(), utf8);
    out.finish();
}

fn allows_utf8(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains("escaping=allow-utf-8"))
}

/// The newest sample of each series, by metric name and then by labels.
fn newest(app: &App, request: &Request, sets: &[Vec<model::Matcher>]) -> Result<Vec<Newest>, StorageError> {
    let maxt = app.deps.clock.now_ms();
    let mint = maxt.saturating_sub(app.deps.engine.config().lookback_ms);
    let querier = app.deps.local_queryable.querier(mint, maxt)?;
    let hints = SelectHints { start_ms: mint, end_ms: maxt, ..SelectHints::default() };
    let mut found: Vec<Newest> = Vec::new();
    let mut samples = Samples::new();
    for matchers in sets {
        let mut set = querier.select(matchers, &hints)?;
        while let Some(series) = set.next()? {
            decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            let Some(last) = samples.len().checked_sub(1) else { continue };
            let sample = samples.get(last);
            if sample.value.is_stale() || series.labels.metric_name().is_empty() {
                continue;
            }
            let (timestamp_ms, value) = (sample.timestamp_ms, sample.value);
            found.push(Newest { labels: series.labels, timestamp_ms, value });
            if request.cancel.is_cancelled() {
                return Err(StorageError::Cancelled);
            }
        }
        let warnings = set.warnings();
        app.metrics.federation_warnings.inc_by(warnings.len() as u64);
        for w in warnings {
            tracing::debug!("federation select: {w}");
        }
    }
    found.sort_by(|a, b| match a.labels.metric_name().cmp(b.labels.metric_name()) {
        Ordering::Equal => a.labels.cmp(&b.labels),
        other => other,
    });
    // Several selectors may select the same series.
    found.dedup_by(|a, b| a.labels == b.labels);
    Ok(found)
}

/// What the type line of a family depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Untyped,
    Histogram,
    GaugeHistogram,
}

fn write_all(out: &mut BodyOut, found: &[Newest], external: &Labels, utf8: bool) {
    // A scraper that honours labels must not put its own instance on what has none.
    let mut extra: Vec<(&str, &str)> = external.iter().collect();
    if !external.contains("instance") {
        extra.push(("instance", ""));
        extra.sort_unstable();
    }
    let mut open: Option<(&str, Shape)> = None;
    for sample in found {
        let name = sample.labels.metric_name();
        let histogram = match &sample.value {
            SampleValue::Float(_) => None,
            SampleValue::Histogram(h) => Some(h.to_float()),
        };
        let shape = match &histogram {
            None => Shape::Untyped,
            Some(h) if h.schema != CUSTOM_BUCKETS_SCHEMA => continue,
            Some(h) if h.counter_reset_hint == CounterResetHint::Gauge => Shape::GaugeHistogram,
            Some(_) => Shape::Histogram,
        };
        let line =
            Line { name, labels: &sample.labels, extra: &extra, timestamp_ms: sample.timestamp_ms, utf8 };
        if open != Some((name, shape)) {
            write_type(out.buf(), name, shape, utf8);
            open = Some((name, shape));
        }
        match (&sample.value, &histogram) {
            (SampleValue::Float(v), _) => line.write(out.buf(), "", None, *v),
            (_, Some(h)) => write_histogram(out.buf(), &line, h),
            _ => {}
        }
        out.checkpoint();
    }
}

fn write_type(out: &mut Vec<u8>, name: &str, shape: Shape, utf8: bool) {
    out.extend_from_slice(b"# TYPE ");
    write_name(out, name, utf8, true);
    out.extend_from_slice(match shape {
        Shape::Untyped => b" untyped\n",
        // The text format has one word for both.
        Shape::Histogram | Shape::GaugeHistogram => b" histogram\n",
    });
}

fn write_name(out: &mut Vec<u8>, name: &str, utf8: bool, metric: bool) {
    let plain = if metric { is_legacy_metric_name(name) } else { is_legacy_label_name(name) };
    if plain {
        out.extend_from_slice(name.as_bytes());
    } else if utf8 {
        write_label_value(out, name);
    } else {
        out.extend_from_slice(underscored(name, metric).as_bytes());
    }
}

/// The parts of a line that do not change within one sample.
struct Line<'a> {
    name: &'a str,
    labels: &'a Labels,
    extra: &'a [(&'a str, &'a str)],
    timestamp_ms: i64,
    utf8: bool,
}

impl Line<'_> {
    fn write(&self, out: &mut Vec<u8>, suffix: &str, le: Option<f64>, value: f64) {
        // A quoted metric name moves inside the braces.
        let quoted = self.utf8 && !is_legacy_metric_name(self.name);
        let mut open = false;
        let mut separate = |out: &mut Vec<u8>| {
            out.push(if open { b',' } else { b'{' });
            open = true;
        };
        if quoted {
            separate(out);
            write_label_value(out, &format!("{}{suffix}", self.name));
        } else {
            write_name(out, self.name, self.utf8, true);
            out.extend_from_slice(suffix.as_bytes());
        }
        let own = self.labels.iter().filter(|(n, _)| *n != METRIC_NAME);
        let added = self.extra.iter().copied().filter(|(n, _)| !self.labels.contains(n));
        for (n, v) in own.chain(added) {
            separate(out);
            write_name(out, n, self.utf8, false);
            out.push(b'=');
            write_label_value(out, v);
        }
        if let Some(le) = le {
            separate(out);
            out.extend_from_slice(b"le=\"");
            write_number(out, le);
            out.push(b'"');
        }
        if open {
            out.push(b'}');
        }
        out.push(b' ');
        write_number(out, value);
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(self.timestamp_ms).as_bytes());
        out.push(b'\n');
    }
}

/// A histogram with custom buckets as a classic one.
fn write_histogram(out: &mut Vec<u8>, line: &Line<'_>, h: &FloatHistogram) {
    let mut buckets = h.positive_cells().peekable();
    let mut cumulative = 0.0;
    for (i, le) in h.custom_values.iter().enumerate() {
        while let Some((_, count)) = buckets.next_if(|(index, _)| *index <= i as i32) {
            cumulative += count;
        }
        line.write(out, "_bucket", Some(*le), cumulative);
    }
    line.write(out, "_bucket", Some(f64::INFINITY), h.count);
    line.write(out, "_sum", None, h.sum);
    line.write(out, "_count", None, h.count);
}
