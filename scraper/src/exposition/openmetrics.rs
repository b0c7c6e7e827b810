//! OpenMetrics 0.0.1 and 1.0.0, as a Prometheus server reads it.
//!
//! The line syntax is strict (single blanks, no blank lines, `# EOF` at the end); what the specification asks beyond it
//! (no clashing names, suffixes by type, rising buckets) is not checked, because Prometheus stores such samples.
//!
//! Spec: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use model::MetricType;

use super::series::{self, Manner, Spans};
use super::value::{float, format_g, short_value};
use super::{Entry, Failure, Parser, RawExemplar, SampleTail, Tail};

const NO_EOF: &str = "data does not end with # EOF";

pub(super) fn next<'a>(p: &mut Parser<'a>) -> Result<Option<Entry<'a>>, Failure> {
    match p.body.get(p.at) {
        None => Err(Failure::text(p.at, NO_EOF)),
        Some(b'#') => comment(p),
        Some(_) => sample(p).map(Some),
    }
}

fn comment<'a>(p: &mut Parser<'a>) -> Result<Option<Entry<'a>>, Failure> {
    let body = p.body;
    let at = p.at;
    let line = &body[at..];
    if let Some(rest) = line.strip_prefix(b"# EOF") {
        return if matches!(rest, b"" | b"\n") {
            p.at = body.len();
            Ok(None)
        } else {
            Err(Failure::text(at, "unexpected data after # EOF"))
        };
    }
    if ![b"# HELP ", b"# TYPE ", b"# UNIT "].iter().any(|k| line.starts_with(*k)) {
        return Err(Failure::expected(at, "a valid start token: # HELP, # TYPE, # UNIT or # EOF"));
    }
    let Some(((from, to), name_end)) = series::family_name(body, at + 7, &mut p.known) else {
        return Err(Failure::expected(at + 7, "metric name"));
    };
    let family = &body[from..to];
    if body.get(name_end) != Some(&b' ') {
        let what = match line[2] {
            b'H' => "text in HELP",
            b'T' => "text in TYPE",
            _ => "text in UNIT",
        };
        return Err(Failure::expected(name_end, what));
    }
    let Some(len) = memchr::memchr(b'\n', &body[name_end..]) else {
        return Err(Failure::text(at, NO_EOF));
    };
    let text = &body[name_end + 1..name_end + len];
    p.at = name_end + len + 1;
    Ok(Some(match line[2] {
        b'T' => {
            p.metric_type = metric_type(text).ok_or_else(|| {
                Failure::text(at, format!("invalid metric type {:?}", String::from_utf8_lossy(text)))
            })?;
            Entry::Type { family, metric_type: p.metric_type }
        }
        b'H' => {
            let text = std::str::from_utf8(text).map_err(|_| {
                Failure::text(
                    at,
                    format!("help text {:?} is not a valid utf8 string", String::from_utf8_lossy(text)),
                )
            })?;
            Entry::Help { family, text }
        }
        _ => {
            let suffixed = family.strip_suffix(text).is_some_and(|stem| stem.last() == Some(&b'_'));
            if !text.is_empty() && !suffixed {
                let text = String::from_utf8_lossy(text);
                let family = String::from_utf8_lossy(family);
                return Err(Failure::text(at, format!("unit {text:?} not a suffix of metric {family:?}")));
            }
            p.unit = text;
            Entry::Unit { family, unit: text }
        }
    }))
}

fn metric_type(word: &[u8]) -> Option<MetricType> {
    match word {
        b"untyped" => None,
        _ => MetricType::parse(std::str::from_utf8(word).ok()?),
    }
}

fn sample<'a>(p: &mut Parser<'a>) -> Result<Entry<'a>, Failure> {
    let body = p.body;
    let start = p.at;
    p.spans.clear();
    let mut end = series::metric_name_end(body, start, &mut p.known);
    if end > start {
        p.spans.name = Some((start, end));
    } else if body[start] != b'{' {
        return Err(Failure::expected(start, "a valid start token"));
    }
    if body.get(end) == Some(&b'{') {
        end = series::labels(body, end + 1, Manner::Strict, &mut p.spans)?;
    }
    if p.spans.name.is_none() {
        return Err(Failure::text(start, "metric name not set"));
    }
    if body.get(end) != Some(&b' ') {
        return Err(Failure::expected(end, "value after metric"));
    }
    let tail = sample_tail(body, end + 1)?;
    p.at = tail.next;
    p.exemplar = tail.exemplar;
    Ok(Entry::Series(Tail {
        series: &body[start..end],
        value_at: end + 1,
        value: tail.value,
        timestamp_ms: tail.timestamp_ms,
    }))
}

pub(super) fn sample_tail(body: &[u8], at: usize) -> Result<SampleTail, Failure> {
    if let Some((value, next)) = short_value(body, at) {
        return Ok(SampleTail { value, timestamp_ms: None, exemplar: None, next });
    }
    let (token, mut end) = token(body, at, "value after metric")?;
    let mut tail =
        SampleTail { value: float(token, at)?, timestamp_ms: None, exemplar: None, next: body.len() };
    if body.get(end) == Some(&b' ') && !body[end..].starts_with(b" # {") {
        let (timestamp_ms, timestamp_end) = timestamp(body, end + 1)?;
        tail.timestamp_ms = Some(timestamp_ms);
        end = timestamp_end;
    }
    if body[end..].starts_with(b" # {") {
        let (exemplar, exemplar_end) = exemplar(body, end + 4)?;
        tail.exemplar = Some(exemplar);
        end = exemplar_end;
    }
    match body.get(end) {
        Some(b'\n') => {
            tail.next = end + 1;
            Ok(tail)
        }
        None => Err(Failure::text(at, NO_EOF)),
        Some(_) => Err(Failure::expected(end, "next entry after timestamp")),
    }
}

/// A run of bytes up to a blank or line break, with its end.
fn token<'a>(body: &'a [u8], at: usize, what: &'static str) -> Result<(&'a [u8], usize), Failure> {
    let rest = body.get(at..).unwrap_or_default();
    let len = memchr::memchr2(b' ', b'\n', rest).unwrap_or(rest.len());
    if len == 0 { Err(Failure::expected(at, what)) } else { Ok((&rest[..len], at + len)) }
}

/// Seconds as a float, to milliseconds.
fn timestamp(body: &[u8], at: usize) -> Result<(i64, usize), Failure> {
    let (token, end) = token(body, at, "timestamp")?;
    let seconds = float(token, at)?;
    if !seconds.is_finite() {
        return Err(Failure::text(at, format!("invalid timestamp {}", format_g(seconds))));
    }
    Ok(((seconds * 1000.0) as i64, end))
}

fn exemplar(body: &[u8], at: usize) -> Result<(RawExemplar, usize), Failure> {
    let mut spans = Spans::default();
    let end = series::labels(body, at, Manner::Exemplar, &mut spans)?;
    if body.get(end) != Some(&b' ') {
        return Err(Failure::expected(end, "value after exemplar labels"));
    }
    let (value_token, mut end) = token(body, end + 1, "value after exemplar labels")?;
    let value = float(value_token, end - value_token.len())?;
    let mut timestamp_ms = None;
    if body.get(end) == Some(&b' ') {
        let (ms, timestamp_end) = timestamp(body, end + 1)?;
        timestamp_ms = Some(ms);
        end = timestamp_end;
    }
    Ok((RawExemplar { spans, value, timestamp_ms }, end))
}
