//! Text format 0.0.4, and 1.0.0 with its quoted UTF-8 names.
//!
//! As lenient as Prometheus: blanks and tabs between tokens, comments of any kind, missing commas between labels, line
//! breaks in label values, no newline at the end. One deliberate difference: blanks before a metric name are no part
//! of the name.
//!
//! Spec: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use model::MetricType;

use super::series::{self, Manner, skip_blanks};
use super::value::{float, short_value};
use super::{Entry, Failure, Parser, SampleTail, Tail};

pub(super) fn next<'a>(p: &mut Parser<'a>) -> Result<Option<Entry<'a>>, Failure> {
    let body = p.body;
    loop {
        let at = skip_blanks(body, p.at);
        match body.get(at) {
            // A zero byte where a line begins ends the body.
            None | Some(0) => {
                p.at = body.len();
                return Ok(None);
            }
            Some(b'\n') => p.at = at + 1,
            Some(b'#') => return comment(p, at).map(Some),
            Some(_) => return sample(p, at).map(Some),
        }
    }
}

fn line_end(body: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |n| at + n)
}

fn comment<'a>(p: &mut Parser<'a>, at: usize) -> Result<Entry<'a>, Failure> {
    let body = p.body;
    let end = line_end(body, at);
    p.at = (end + 1).min(body.len());
    let keyword = skip_blanks(body, at + 1);
    let line = &body[keyword..end.max(keyword)];
    let is_help = line.starts_with(b"HELP ") || line.starts_with(b"HELP\t");
    let is_type = line.starts_with(b"TYPE ") || line.starts_with(b"TYPE\t");
    if keyword == at + 1 || !(is_help || is_type) {
        return Ok(Entry::Comment(&body[at..end]));
    }
    let name_at = skip_blanks(body, keyword + 4);
    let Some(((from, to), name_end)) = series::family_name(body, name_at, &mut p.known) else {
        return Err(Failure::expected(
            name_at,
            if is_help { "metric name after HELP" } else { "metric name after TYPE" },
        ));
    };
    let family = &body[from..to];
    let text = &body[name_end..end.max(name_end)];
    // One character separates; blanks alone are no text.
    let blank = text.iter().all(|b| *b == b' ' || *b == b'\t');
    let text = if blank { &[] } else { &text[1..] };
    if is_type {
        p.metric_type = metric_type(text).ok_or_else(|| {
            Failure::text(at, format!("invalid metric type {:?}", String::from_utf8_lossy(text)))
        })?;
        return Ok(Entry::Type { family, metric_type: p.metric_type });
    }
    let text = std::str::from_utf8(text).map_err(|_| {
        Failure::text(at, format!("help text {:?} is not a valid utf8 string", String::from_utf8_lossy(text)))
    })?;
    Ok(Entry::Help { family, text })
}

fn metric_type(word: &[u8]) -> Option<MetricType> {
    Some(match word {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"summary" => MetricType::Summary,
        b"untyped" => MetricType::Unknown,
        _ => return None,
    })
}

fn sample<'a>(p: &mut Parser<'a>, start: usize) -> Result<Entry<'a>, Failure> {
    let body = p.body;
    p.spans.clear();
    let mut end = series::metric_name_end(body, start, &mut p.known);
    if end > start {
        p.spans.name = Some((start, end));
    } else if body[start] != b'{' {
        return Err(Failure::expected(start, "a valid start token"));
    }
    let brace = skip_blanks(body, end);
    if body.get(brace) == Some(&b'{') {
        end = series::labels(body, brace + 1, Manner::Lenient, &mut p.spans)?;
    }
    if p.spans.name.is_none() {
        return Err(Failure::text(start, "metric name not set"));
    }
    let value_at = skip_blanks(body, end);
    let tail = sample_tail(body, value_at)?;
    p.at = tail.next;
    Ok(Entry::Series(Tail {
        series: &body[start..end],
        value_at,
        value: tail.value,
        timestamp_ms: tail.timestamp_ms,
    }))
}

pub(super) fn sample_tail(body: &[u8], at: usize) -> Result<SampleTail, Failure> {
    if let Some((value, next)) = short_value(body, at) {
        return Ok(SampleTail { value, timestamp_ms: None, exemplar: None, next });
    }
    let rest = body.get(at..).unwrap_or_default();
    let len = rest.iter().position(|b| matches!(b, b'{' | b' ' | b'\t' | b'\n')).unwrap_or(rest.len());
    if len == 0 {
        return Err(Failure::expected(at, "value after metric"));
    }
    let value = float(&rest[..len], at)?;
    let mut end = skip_blanks(body, at + len);
    let mut timestamp_ms = None;
    let digits = body[end..].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > 0 {
        timestamp_ms = Some(integer(&body[end..end + digits], end)?);
        end = skip_blanks(body, end + digits);
    }
    match body.get(end) {
        None => Ok(SampleTail { value, timestamp_ms, exemplar: None, next: end }),
        Some(b'\n') => Ok(SampleTail { value, timestamp_ms, exemplar: None, next: end + 1 }),
        Some(_) if timestamp_ms.is_some() => Err(Failure::expected(end, "next entry after timestamp")),
        Some(_) => Err(Failure::expected(end, "timestamp or new record")),
    }
}

fn integer(digits: &[u8], at: usize) -> Result<i64, Failure> {
    digits.iter().try_fold(0_i64, |n, d| n.checked_mul(10)?.checked_add(i64::from(d - b'0'))).ok_or_else(
        || {
            let digits = String::from_utf8_lossy(digits);
            Failure::text(at, format!("strconv.ParseInt: parsing {digits:?}: value out of range"))
        },
    )
}
