//! The exposition formats: bytes of a scrape to entries.
//!
//! [`Parser`] walks a body and yields one [`Entry`] at a time without copying; labels are built only when asked for
//! ([`Parser::labels`]). What is accepted is what Prometheus's server accepts, which is more than the specifications
//! allow. `text` holds text 0.0.4 and 1.0.0, `openmetrics` OpenMetrics 0.0.1 and 1.0.0, `series` the lexing of names and
//! labels that both share, `value` numbers, `negotiation` the choice of a format by `Content-Type`. Bodies of which a sample
//! is more than a line come as `samples`: `protobuf`, and `text_samples` for text whose histograms are converted (`classic`)
//! or whose start timestamps are read.
//!
//! Invariants: the parser never reads outside the body, never panics on any bytes, and each `next` moves on or ends.
//!
//! Spec: <https://prometheus.io/docs/instrumenting/exposition_formats/>, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

mod classic;
pub mod negotiation;
mod openmetrics;
pub(crate) mod protobuf;
pub(crate) mod samples;
mod series;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod text_samples;
mod value;

use std::borrow::Cow;
use std::fmt;

use model::{Exemplar, MetricType};

use series::{Span, Spans};

/// Longer names and values are no part of an exemplar: stores take 128 characters for all of them.
const EXEMPLAR_LABEL_LEN_BYTES_MAX: usize = 1 << 16;

/// What becomes of histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramOptions {
    /// Read the native part.
    pub native: bool,
    /// Keep the classic series of what is also a native histogram, be it exposed or converted.
    pub keep_classic: bool,
    /// Make a native histogram with custom buckets from what has only a classic part.
    pub convert_classic: bool,
}

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Text format 0.0.4 and 1.0.0, which one parser reads.
    Text,
    /// OpenMetrics 0.0.1 and 1.0.0.
    OpenMetrics,
}

/// One line of a body, borrowed from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A sample. Its labels are at hand through [`Parser::labels`] until the next entry.
    Series(Tail<'a>),
    /// Type of a metric family.
    Type {
        /// Name of the family.
        family: &'a [u8],
        /// Its type.
        metric_type: MetricType,
    },
    /// Help of a metric family.
    Help {
        /// Name of the family.
        family: &'a [u8],
        /// The text as it stands, valid UTF-8; [`unescape_help`] makes it readable.
        text: &'a str,
    },
    /// Unit of a metric family (OpenMetrics only).
    Unit {
        /// Name of the family.
        family: &'a [u8],
        /// The unit, possibly empty.
        unit: &'a [u8],
    },
    /// Any other line that begins with `#`.
    Comment(&'a [u8]),
}

/// A sample without its labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail<'a> {
    /// Name and labels as they stand in the body: the key by which a cache knows the series.
    pub series: &'a [u8],
    /// Offset of the value in the body.
    pub value_at: usize,
    /// The value; any NaN is the one normal NaN.
    pub value: f64,
    /// Explicit timestamp in milliseconds.
    pub timestamp_ms: Option<i64>,
}

/// Where and why a body is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// Number of the line, from 1; 0 where there are no lines.
    pub line: usize,
    /// What was expected and what was there.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.reason)
    }
}

/// A failure before its line is counted.
#[derive(Debug)]
pub(crate) struct Failure {
    at: usize,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// Something else stood at `at`.
    Expected(&'static str),
    /// The whole story.
    Text(String),
}

impl Failure {
    pub(crate) fn expected(at: usize, what: &'static str) -> Self {
        Self { at, reason: Reason::Expected(what) }
    }

    pub(crate) fn text(at: usize, text: impl Into<String>) -> Self {
        Self { at, reason: Reason::Text(text.into()) }
    }

    /// Counts the line. Off the hot path: bodies rarely fail.
    pub(crate) fn locate(self, body: &[u8]) -> ParseError {
        let at = self.at.min(body.len());
        let line = 1 + memchr::memchr_iter(b'\n', &body[..at]).count();
        let reason = match self.reason {
            Reason::Text(text) => text,
            Reason::Expected(what) => {
                let line_start = memchr::memrchr(b'\n', &body[..at]).map_or(0, |i| i + 1);
                let got = Excerpt(&body[at..]);
                if line_start == at {
                    format!("expected {what}, got {got}")
                } else {
                    format!("expected {what}, got {got} while parsing: {}", Excerpt(&body[line_start..at]))
                }
            }
        };
        ParseError { line, reason }
    }
}

/// At most 40 bytes up to the end of the line, in quotes.
struct Excerpt<'a>(&'a [u8]);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("end of body");
        }
        if self.0[0] == b'\n' {
            return f.write_str("end of line");
        }
        let line = self.0.split(|b| *b == b'\n').next().unwrap_or_default();
        let cut = &line[..line.len().min(40)];
        let dots = if cut.len() < line.len() { "..." } else { "" };
        write!(f, "{:?}{dots}", String::from_utf8_lossy(cut))
    }
}

/// Walks a body.
pub struct Parser<'a> {
    format: Format,
    body: &'a [u8],
    at: usize,
    metric_type: MetricType,
    unit: &'a [u8],
    /// The metric name read last, where it stands plain.
    known: Span,
    spans: Spans,
    exemplar: Option<RawExemplar>,
    ended: bool,
}

/// An exemplar before its labels are built.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawExemplar {
    spans: Spans,
    value: f64,
    timestamp_ms: Option<i64>,
}

/// A label pair, borrowed from the body where nothing had to be unescaped.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

impl<'a> Parser<'a> {
    /// A parser at the start of `body`. A last line without newline counts as whole in the text format.
    #[must_use]
    pub fn new(format: Format, body: &'a [u8]) -> Self {
        Self {
            format,
            body,
            at: 0,
            metric_type: MetricType::Unknown,
            unit: b"",
            known: (0, 0),
            spans: Spans::default(),
            exemplar: None,
            ended: false,
        }
    }

    /// The next entry, `None` at the end.
    ///
    /// # Errors
    /// When the body breaks the format; the parser is then at its end.
    #[allow(clippy::should_implement_trait, reason = "it lends from the parser's state and can fail")]
    pub fn next(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        if self.ended {
            return Ok(None);
        }
        self.exemplar = None;
        let entry = match self.format {
            Format::Text => text::next(self),
            Format::OpenMetrics => openmetrics::next(self),
        };
        if !matches!(entry, Ok(Some(_))) {
            self.ended = true;
        }
        entry.map_err(|f| f.locate(self.body))
    }

    /// Offset of what comes next.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes on at `at`, the start of a line, with the type and unit in force there.
    pub(crate) fn seek(&mut self, at: usize, metric_type: MetricType, unit: &'a [u8]) {
        self.at = at;
        self.metric_type = metric_type;
        self.unit = unit;
    }

    /// Type that the last `TYPE` line named.
    #[must_use]
    pub fn metric_type(&self) -> MetricType {
        self.metric_type
    }

    /// Unit that the last `UNIT` line named.
    #[must_use]
    pub fn unit(&self) -> &'a [u8] {
        self.unit
    }

    /// Appends the labels of the last sample to `out`, the metric name first, then in the body's order.
    ///
    /// # Errors
    /// When names or values are not UTF-8.
    pub fn labels(&self, out: &mut Vec<Pair<'a>>) -> Result<(), ParseError> {
        series::pairs(self.body, &self.spans, self.metric_type, out).map_err(|f| f.locate(self.body))
    }

    /// Metric name of the last sample as it stands, without quotes.
    pub(crate) fn name_bytes(&self) -> &'a [u8] {
        self.spans.name.map_or(&[], |(from, to)| &self.body[from..to])
    }

    /// Names and values of the last sample's labels as they stand, without quotes.
    pub(crate) fn label_bytes(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let text = |(from, to): Span| &self.body[from..to];
        self.spans.labels.iter().map(move |(name, value)| (text(*name), text(*value)))
    }

    /// The exemplar of the last sample.
    #[must_use]
    pub fn exemplar(&self) -> Option<Exemplar> {
        let raw = self.exemplar.as_ref()?;
        let mut pairs = Vec::new();
        series::pairs(self.body, &raw.spans, MetricType::Unknown, &mut pairs).ok()?;
        if pairs.iter().any(|(n, v)| n.len().max(v.len()) > EXEMPLAR_LABEL_LEN_BYTES_MAX) {
            return None;
        }
        Some(Exemplar {
            labels: model::Labels::from_pairs(pairs),
            value: raw.value,
            timestamp_ms: raw.timestamp_ms,
        })
    }
}

/// A help text as its author meant it.
#[must_use]
pub fn unescape_help(format: Format, text: &str) -> Cow<'_, str> {
    series::unescape(text, format == Format::OpenMetrics)
}

/// Reads value, timestamp and exemplar of a sample whose value begins at `at`. Returns them with the offset of the next
/// line.
pub(crate) fn sample_tail(format: Format, body: &[u8], at: usize) -> Result<SampleTail, Failure> {
    match format {
        Format::Text => text::sample_tail(body, at),
        Format::OpenMetrics => openmetrics::sample_tail(body, at),
    }
}

/// What follows the labels of a sample.
#[derive(Debug)]
pub(crate) struct SampleTail {
    pub(crate) value: f64,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) exemplar: Option<RawExemplar>,
    pub(crate) next: usize,
}

pub(crate) use value::short_value;
