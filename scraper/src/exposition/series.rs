//! Names and labels of a sample: lexing to offsets, and offsets to strings.
//!
//! Both text formats write `name{label="value",...}` or `{"name","label"="value",...}`. The lenient manner of the text
//! format allows blanks between tokens and forgets missing commas; the strict one of OpenMetrics does neither.

use std::borrow::Cow;

use model::MetricType;
use model::labels::{BUCKET_LABEL, METRIC_NAME, QUANTILE_LABEL};

use super::value::{float, format_openmetrics, is_canonical_bound};
use super::{Failure, Pair};

/// Half-open range of the body.
pub(crate) type Span = (usize, usize);

/// Where name and labels of a sample stand. Quotes are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans {
    pub(super) name: Option<Span>,
    pub(super) labels: Vec<(Span, Span)>,
    /// A backslash occurs somewhere.
    pub(super) escaped: bool,
}

impl Spans {
    pub(super) fn clear(&mut self) {
        self.name = None;
        self.labels.clear();
        self.escaped = false;
    }
}

/// How labels are lexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Text format.
    Lenient,
    /// OpenMetrics.
    Strict,
    /// Exemplar in OpenMetrics, which has no name.
    Exemplar,
}

const NAME_START: u8 = 1;
const NAME_PART: u8 = 2;
const COLON: u8 = 4;

const CLASS: [u8; 256] = {
    let mut t = [0; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        if c.is_ascii_alphabetic() || c == b'_' {
            t[b] = NAME_START | NAME_PART;
        } else if c.is_ascii_digit() {
            t[b] = NAME_PART;
        } else if c == b':' {
            t[b] = COLON;
        }
        b += 1;
    }
    t
};

/// End of the metric name that begins at `at`; `at` itself when none does. `known` is the name read before: mostly it
/// stands here again, and only what follows it has to be read.
pub(super) fn metric_name_end(body: &[u8], at: usize, known: &mut Span) -> usize {
    let before = &body[known.0..known.1];
    let repeats = !before.is_empty() && body[at..].starts_with(before);
    let end = if repeats {
        chars_end(body, at + before.len(), NAME_PART | COLON)
    } else {
        name_end(body, at, COLON)
    };
    *known = (at, end);
    end
}

fn name_end(body: &[u8], at: usize, also: u8) -> usize {
    match body.get(at) {
        Some(b) if CLASS[usize::from(*b)] & (NAME_START | also) != 0 => {
            chars_end(body, at + 1, NAME_PART | also)
        }
        _ => at,
    }
}

fn chars_end(body: &[u8], at: usize, accepted: u8) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|b| CLASS[usize::from(**b)] & accepted != 0).count()
}

pub(super) fn skip_blanks(body: &[u8], mut at: usize) -> usize {
    while at < body.len() && (body[at] == b' ' || body[at] == b'\t') {
        at += 1;
    }
    at
}

/// End of the string whose opening quote stands at `at`, the closing quote included.
fn string_end(body: &[u8], at: usize, escaped: &mut bool) -> Result<usize, Failure> {
    let mut i = at + 1;
    loop {
        let rest = body.get(i..).unwrap_or_default();
        let Some(n) = memchr::memchr2(b'"', b'\\', rest) else {
            return Err(Failure::text(at, "expected a closing quote, got end of body"));
        };
        i += n;
        if body[i] == b'"' {
            return Ok(i + 1);
        }
        *escaped = true;
        if body.get(i + 1) == Some(&b'\n') {
            return Err(Failure::text(i, "backslash at the end of a line"));
        }
        i += 2;
    }
}

/// A metric name in a `HELP`, `TYPE` or `UNIT` line: plain or in quotes. Returns its span without quotes, and its end.
pub(super) fn family_name(body: &[u8], at: usize, known: &mut Span) -> Option<(Span, usize)> {
    if body.get(at) == Some(&b'"') {
        let end = string_end(body, at, &mut false).ok()?;
        let one_line = memchr::memchr(b'\n', &body[at..end]).is_none();
        return one_line.then_some(((at + 1, end - 1), end));
    }
    let end = metric_name_end(body, at, known);
    (end > at).then_some(((at, end), end))
}

/// Lexes what follows an opening brace up to and including the closing one; returns the offset behind it.
pub(super) fn labels(body: &[u8], at: usize, manner: Manner, spans: &mut Spans) -> Result<usize, Failure> {
    let lenient = manner == Manner::Lenient;
    let blanks = |at| if lenient { skip_blanks(body, at) } else { at };
    let mut at = blanks(at);
    loop {
        let quoted = match body.get(at) {
            Some(b'}') => return Ok(at + 1),
            Some(b'"') => true,
            _ => false,
        };
        let (name, end) = if quoted {
            let end = string_end(body, at, &mut spans.escaped)?;
            ((at + 1, end - 1), end)
        } else {
            let end = name_end(body, at, 0);
            if end == at {
                return Err(Failure::expected(at, "label name"));
            }
            ((at, end), end)
        };
        let name_at = at;
        at = blanks(end);
        if quoted && matches!(body.get(at), Some(b',' | b'}')) {
            if manner == Manner::Exemplar {
                return Err(Failure::expected(at, "equal"));
            }
            if spans.name.is_some() {
                return Err(Failure::text(name_at, "metric name already set"));
            }
            spans.name = Some(name);
            if body[at] == b'}' {
                return Ok(at + 1);
            }
            at = blanks(at + 1);
            continue;
        }
        if body.get(at) != Some(&b'=') {
            return Err(Failure::expected(at, "equal"));
        }
        at = blanks(at + 1);
        let (value, end) = label_value(body, at, manner, &mut spans.escaped)?;
        spans.labels.push((name, value));
        at = blanks(end);
        match body.get(at) {
            Some(b',') => at = blanks(at + 1),
            Some(b'}') => {}
            _ if lenient => {}
            _ => return Err(Failure::expected(at, "comma or brace close")),
        }
    }
}

fn label_value(body: &[u8], at: usize, manner: Manner, escaped: &mut bool) -> Result<(Span, usize), Failure> {
    if body.get(at) != Some(&b'"') {
        return Err(Failure::expected(at, "label value"));
    }
    let end = string_end(body, at, escaped)?;
    let value = &body[at + 1..end - 1];
    if manner != Manner::Lenient && memchr::memchr(b'\n', value).is_some() {
        return Err(Failure::text(at, "line break in a label value"));
    }
    if manner == Manner::Exemplar && std::str::from_utf8(value).is_err() {
        let value = String::from_utf8_lossy(value);
        return Err(Failure::text(at, format!("invalid UTF-8 label value: {value:?}")));
    }
    Ok(((at + 1, end - 1), end))
}

/// Builds the pairs of a sample, the name first. Bounds of histograms and summaries get the one form that OpenMetrics
/// gives them, so that a target that changes its format keeps its series.
pub(super) fn pairs<'a>(
    body: &'a [u8],
    spans: &Spans,
    metric_type: MetricType,
    out: &mut Vec<Pair<'a>>,
) -> Result<(), Failure> {
    // One check for the whole sample; only what fails it is looked at piece by piece.
    let first = spans.labels.first().map(|(name, _)| name.0);
    let last = spans.labels.last().map(|(_, value)| value.1);
    let start = spans.name.map(|n| n.0).into_iter().chain(first).min().unwrap_or(0);
    let end = spans.name.map(|n| n.1).into_iter().chain(last).max().unwrap_or(start);
    let whole = std::str::from_utf8(&body[start..end]).ok();
    let text = |span: Span, what: &str| -> Result<Cow<'a, str>, Failure> {
        let s = match whole.and_then(|w| w.get(span.0 - start..span.1 - start)) {
            Some(s) => s,
            None => std::str::from_utf8(&body[span.0..span.1]).map_err(|_| {
                let piece = String::from_utf8_lossy(&body[span.0..span.1]);
                Failure::text(span.0, format!("invalid UTF-8 {what}: {piece:?}"))
            })?,
        };
        Ok(if spans.escaped { unescape(s, true) } else { Cow::Borrowed(s) })
    };
    let bound_label = match metric_type {
        MetricType::Summary => QUANTILE_LABEL,
        MetricType::Histogram => BUCKET_LABEL,
        _ => "",
    };
    if let Some(name) = spans.name {
        out.push((Cow::Borrowed(METRIC_NAME), text(name, "metric name")?));
    }
    for (name, value) in &spans.labels {
        let name = text(*name, "label name")?;
        let mut value = text(*value, "label value")?;
        if name == bound_label
            && !is_canonical_bound(value.as_bytes())
            && let Ok(v) = float(value.as_bytes(), 0)
        {
            value = Cow::Owned(format_openmetrics(v));
        }
        out.push((name, value));
    }
    Ok(())
}

/// Resolves `\\` and `\n`, and `\"` where `quotes` says so. Other backslashes stay.
pub(super) fn unescape(s: &str, quotes: bool) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', s.as_bytes()) else { return Cow::Borrowed(s) };
    let mut out = String::with_capacity(s.len());
    out.push_str(&s[..first]);
    let mut rest = &s[first..];
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let c = match rest.as_bytes().first() {
            Some(b'\\') => '\\',
            Some(b'n') => '\n',
            Some(b'"') if quotes => '"',
            _ => {
                out.push('\\');
                continue;
            }
        };
        out.push(c);
        rest = &rest[1..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}
