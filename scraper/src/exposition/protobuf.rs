//! The protobuf format: `MetricFamily` messages, each after its length.
//!
//! [`Protobuf`] gives the samples in the order and with the names that Prometheus makes of them: a summary is its count, its
//! sum and its quantiles; a classic histogram its count, its sum and its buckets, with the bucket to `+Inf` added when it
//! is not there; a native histogram is one sample. `wire` reads the encoding, `message` a metric.
//!
//! Invariants: memory is bounded by the body; each `next` moves on or ends; no bytes panic. One metric that is decoded
//! serves all of its samples, and its memory the next metric.
//!
//! Spec: <https://prometheus.io/docs/instrumenting/exposition_formats/#protobuf-format>.

mod message;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wire;

use std::borrow::Cow;

use model::labels::{BUCKET_LABEL, METRIC_NAME, QUANTILE_LABEL};
use model::{Exemplar, Labels, MetricType};

use super::classic::ClassicHistogram;
use super::samples::{FamilyFacts, Item, Key, Part, SampleSource, Value};
use super::value::format_openmetrics;
use super::{HistogramOptions, Pair, ParseError};
use message::{ExemplarMessage, Metric, Stamp, read_label};
use wire::{Fields, WireError};

/// Lengths of messages are written in at most so many bytes.
const LENGTH_LEN_BYTES_MAX: usize = 5;
/// Exemplars above this are no exemplars: stores take 128 characters.
const EXEMPLAR_LEN_BYTES_MAX: usize = 1 << 16;

/// Walks a body.
pub(crate) struct Protobuf<'a> {
    body: &'a [u8],
    at: usize,
    options: HistogramOptions,
    family: FamilyFacts<'a>,
    gauge_histogram: bool,
    /// Goes over the metrics of the family.
    metrics: Fields<'a>,
    metric: Metric<'a>,
    /// Labels of the metric, when they do not stand together in the message.
    gathered: Vec<u8>,
    step: Step,
    part: Part,
    /// Which bucket or quantile the last sample is.
    element: usize,
    same_metric: bool,
    classic: ClassicHistogram,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Family,
    Metric,
    /// The metric has been read; nothing of it was given.
    Begin,
    Count,
    Sum,
    /// A bucket or quantile.
    Element(usize),
    Convert,
    End,
}

fn failure(reason: impl Into<String>) -> ParseError {
    ParseError { line: 0, reason: reason.into() }
}

impl From<WireError> for ParseError {
    fn from(e: WireError) -> Self {
        failure(e.0)
    }
}

impl<'a> Protobuf<'a> {
    pub(crate) fn new(body: &'a [u8], options: HistogramOptions) -> Self {
        Self {
            body,
            at: 0,
            options,
            family: FamilyFacts { name: "", metric_type: MetricType::Unknown, help: "", unit: "" },
            gauge_histogram: false,
            metrics: Fields::new(&[]),
            metric: Metric::default(),
            gathered: Vec::new(),
            step: Step::Family,
            part: Part::Whole,
            element: 0,
            same_metric: false,
            classic: ClassicHistogram::default(),
        }
    }

    /// Goes to the next family that has metrics, and reads its first one. False at the end of the body.
    fn next_family(&mut self) -> Result<bool, ParseError> {
        while self.at < self.body.len() {
            let message = self.family_bytes()?;
            let mut head = Head::default();
            let mut fields = Fields::new(message);
            // Metrics may stand before what describes them, so they are read in a second walk.
            while let Some(tag) = fields.next("MetricFamily")? {
                match tag.field {
                    1 => head.name = fields.message(tag, "Name")?,
                    2 => head.help = fields.message(tag, "Help")?,
                    3 => head.kind = fields.uint(tag, "Type")? as i32,
                    4 => {
                        fields.message(tag, "Metric")?;
                        head.metrics = true;
                    }
                    5 => head.unit = fields.message(tag, "Unit")?,
                    _ => fields.skip(tag)?,
                }
            }
            if !head.metrics {
                continue;
            }
            self.metrics = Fields::new(message);
            self.next_metric()?;
            (self.family, self.gauge_histogram) = head.facts()?;
            return Ok(true);
        }
        Ok(false)
    }

    fn family_bytes(&mut self) -> Result<&'a [u8], ParseError> {
        let rest = &self.body[self.at..];
        let mut fields = Fields::new(rest);
        let length = fields.varint().map_err(|_| failure("clientpb: invalid varint encountered"))?;
        let from = fields.position();
        if from > LENGTH_LEN_BYTES_MAX {
            return Err(failure("clientpb: invalid varint encountered"));
        }
        let to = usize::try_from(length).ok().and_then(|l| from.checked_add(l));
        let Some(message) = to.and_then(|to| rest.get(from..to)) else {
            let (expected, got) = (length.saturating_add(from as u64), rest.len());
            return Err(failure(format!(
                "clientpb: insufficient length of buffer, expected at least {expected} bytes, got {got} bytes"
            )));
        };
        self.at += from + message.len();
        Ok(message)
    }

    /// Reads the next metric of the family. False when there is none.
    fn next_metric(&mut self) -> Result<bool, ParseError> {
        while let Some(tag) = self.metrics.next("MetricFamily")? {
            if tag.field != 4 {
                self.metrics.skip(tag)?;
                continue;
            }
            self.metric.read(self.metrics.message(tag, "Metric")?)?;
            self.same_metric = false;
            self.gathered.clear();
            if self.metric.labels_scattered {
                let mut fields = Fields::new(self.metric.bytes);
                while let Some(tag) = fields.next("Metric")? {
                    fields.skip(tag)?;
                    if tag.field == 1 {
                        self.gathered.extend_from_slice(&self.metric.bytes[tag.start..fields.position()]);
                    }
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn label_bytes(&self) -> &[u8] {
        if self.metric.labels_scattered {
            return &self.gathered;
        }
        let (from, to) = self.metric.labels;
        &self.metric.bytes[from..to]
    }

    fn is_histogram(&self) -> bool {
        matches!(self.family.metric_type, MetricType::Histogram | MetricType::GaugeHistogram)
    }

    fn sample(&mut self, part: Part, value: Value, then: Step) -> Item<'a> {
        // The first sample of a metric begins it.
        self.same_metric = !matches!(self.step, Step::Begin);
        self.part = part;
        self.step = then;
        // A timestamp of zero cannot be told from none.
        let timestamp_ms = Some(self.metric.timestamp_ms).filter(|t| *t != 0);
        Item::Sample { value, timestamp_ms }
    }

    /// The first sample of a metric.
    fn begin(&mut self) -> Result<Item<'a>, ParseError> {
        let float = |v| Value::Float(v);
        match self.family.metric_type {
            MetricType::Counter => Ok(self.sample(Part::Whole, float(self.metric.counter), Step::Metric)),
            MetricType::Gauge => Ok(self.sample(Part::Whole, float(self.metric.gauge), Step::Metric)),
            MetricType::Summary => {
                let count = self.metric.summary.count as f64;
                Ok(self.sample(Part::Count, float(count), Step::Sum))
            }
            MetricType::Histogram | MetricType::GaugeHistogram => self.begin_histogram(),
            _ => Ok(self.sample(Part::Whole, float(self.metric.untyped), Step::Metric)),
        }
    }

    fn begin_histogram(&mut self) -> Result<Item<'a>, ParseError> {
        let HistogramOptions { native, keep_classic, convert_classic } = self.options;
        let h = &self.metric.histogram;
        if native && h.is_native() {
            h.check_spans().map_err(|e| failure(format!("histogram {:?}: {e}", self.family.name)))?;
            let value = Value::Histogram(h.native(self.gauge_histogram));
            let then = if keep_classic && !h.buckets.is_empty() { Step::Count } else { Step::Metric };
            return Ok(self.sample(Part::Native, value, then));
        }
        if convert_classic && !keep_classic {
            return self.convert();
        }
        Ok(self.sample(Part::Count, Value::Float(self.metric.histogram.count()), Step::Sum))
    }

    fn sum(&mut self) -> Item<'a> {
        if self.is_histogram() {
            return self.sample(Part::Sum, Value::Float(self.metric.histogram.sum), Step::Element(0));
        }
        let then = if self.metric.summary.quantiles.is_empty() { Step::Metric } else { Step::Element(0) };
        self.sample(Part::Sum, Value::Float(self.metric.summary.sum), then)
    }

    fn element(&mut self, at: usize) -> Item<'a> {
        self.element = at;
        if !self.is_histogram() {
            let quantiles = &self.metric.summary.quantiles;
            let q = quantiles.get(at).copied().unwrap_or_default();
            let then = if at + 1 < quantiles.len() { Step::Element(at + 1) } else { Step::Metric };
            return self.sample(Part::Quantile(q.quantile.to_bits()), Value::Float(q.value), then);
        }
        let h = &self.metric.histogram;
        let (bound, count) = match h.buckets.get(at) {
            Some(b) => (b.upper_bound, b.cumulative_count()),
            None => (f64::INFINITY, h.count()),
        };
        let then = if bound != f64::INFINITY {
            Step::Element(at + 1)
        } else if self.options.convert_classic && !(self.options.native && h.is_native()) {
            Step::Convert
        } else {
            Step::Metric
        };
        self.sample(Part::Bucket(bound.to_bits()), Value::Float(count), then)
    }

    fn convert(&mut self) -> Result<Item<'a>, ParseError> {
        let h = &self.metric.histogram;
        self.classic.clear();
        self.classic.set_count(h.count());
        self.classic.set_sum(h.sum);
        h.buckets.iter().for_each(|b| self.classic.set_bucket(b.upper_bound, b.cumulative_count()));
        let mut value = self.classic.convert().map_err(failure)?;
        if self.gauge_histogram {
            value = message::as_gauge(value);
        }
        Ok(self.sample(Part::Converted, Value::Histogram(value), Step::Metric))
    }

    /// The exemplar of a message, if it is one.
    fn exemplar(bytes: &[u8], needs_timestamp: bool) -> Option<Exemplar> {
        if bytes.len() > EXEMPLAR_LEN_BYTES_MAX {
            return None;
        }
        let message = ExemplarMessage::read(bytes).ok()?;
        if needs_timestamp && message.timestamp.is_none() {
            return None;
        }
        Some(Exemplar {
            labels: Labels::from_pairs(message.labels().ok()?),
            value: message.value,
            timestamp_ms: message.timestamp.map(Stamp::ms),
        })
    }
}

/// The head of a family, undecoded.
#[derive(Default)]
struct Head<'a> {
    name: &'a [u8],
    help: &'a [u8],
    kind: i32,
    unit: &'a [u8],
    metrics: bool,
}

impl<'a> Head<'a> {
    /// The head, and whether the family is one of gauge histograms.
    fn facts(&self) -> Result<(FamilyFacts<'a>, bool), ParseError> {
        let name = std::str::from_utf8(self.name)
            .ok()
            .filter(|n| !n.is_empty())
            .ok_or_else(|| failure(format!("invalid metric name: {}", String::from_utf8_lossy(self.name))))?;
        let help = std::str::from_utf8(self.help).map_err(|_| {
            failure(format!("invalid help for metric {name:?}: {}", String::from_utf8_lossy(self.help)))
        })?;
        let metric_type = match self.kind {
            0 => MetricType::Counter,
            1 => MetricType::Gauge,
            2 => MetricType::Summary,
            3 => MetricType::Unknown,
            4 => MetricType::Histogram,
            5 => MetricType::GaugeHistogram,
            other => return Err(failure(format!("unknown metric type for metric {name:?}: {other}"))),
        };
        // As the name, but never looked at by Prometheus: what cannot be shown is left out.
        let unit = std::str::from_utf8(self.unit).unwrap_or_default();
        Ok((FamilyFacts { name, metric_type, help, unit }, self.kind == 5))
    }
}

impl<'a> SampleSource<'a> for Protobuf<'a> {
    fn next(&mut self) -> Result<Option<Item<'a>>, ParseError> {
        let item = loop {
            match self.step {
                Step::Family => {
                    if !self.next_family()? {
                        self.step = Step::End;
                        return Ok(None);
                    }
                    self.step = Step::Begin;
                    break Ok(Item::Family(self.family));
                }
                Step::Metric => {
                    self.step = if self.next_metric()? { Step::Begin } else { Step::Family };
                }
                Step::Begin => break self.begin(),
                Step::Count => {
                    break Ok(self.sample(
                        Part::Count,
                        Value::Float(self.metric.histogram.count()),
                        Step::Sum,
                    ));
                }
                Step::Sum => break Ok(self.sum()),
                Step::Element(at) => break Ok(self.element(at)),
                Step::Convert => break self.convert(),
                Step::End => return Ok(None),
            }
        };
        item.map(Some)
    }

    fn key(&self) -> Key<'_> {
        Key { labels: self.label_bytes(), part: self.part, same_metric: self.same_metric }
    }

    fn labels(&self, out: &mut Vec<Pair<'a>>) -> Result<(), ParseError> {
        let suffix = match self.part {
            Part::Count => "_count",
            Part::Sum => "_sum",
            Part::Bucket(_) => "_bucket",
            Part::Whole | Part::Quantile(_) | Part::Native | Part::Converted => "",
        };
        let name = self.family.name;
        let name =
            if suffix.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{name}{suffix}")) };
        out.push((Cow::Borrowed(METRIC_NAME), name));
        let mut fields = Fields::new(self.metric.bytes);
        while let Some(tag) = fields.next("Metric")? {
            if tag.field != 1 {
                fields.skip(tag)?;
                continue;
            }
            let (name, value) = read_label(fields.message(tag, "Label")?)?;
            let text = |what: &str, bytes: &'a [u8]| {
                std::str::from_utf8(bytes)
                    .map_err(|_| failure(format!("invalid label {what}: {}", String::from_utf8_lossy(bytes))))
            };
            let (name, value) = (text("name", name)?, text("value", value)?);
            if name.is_empty() {
                return Err(failure("invalid label name: "));
            }
            out.push((Cow::Borrowed(name), Cow::Borrowed(value)));
        }
        let bound = match self.part {
            Part::Bucket(bits) => Some((BUCKET_LABEL, bits)),
            Part::Quantile(bits) => Some((QUANTILE_LABEL, bits)),
            _ => None,
        };
        if let Some((name, bits)) = bound {
            out.push((Cow::Borrowed(name), Cow::Owned(format_openmetrics(f64::from_bits(bits)))));
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.family.metric_type
    }

    fn exemplars(&mut self, out: &mut Vec<Exemplar>) {
        let h = &self.metric.histogram;
        match self.part {
            Part::Whole if self.family.metric_type == MetricType::Counter => {
                out.extend(self.metric.counter_exemplar.and_then(|e| Self::exemplar(e, false)));
            }
            Part::Bucket(_) => {
                let exemplar = h.buckets.get(self.element).and_then(|b| b.exemplar);
                out.extend(exemplar.and_then(|e| Self::exemplar(e, false)));
            }
            Part::Native | Part::Converted if h.exemplars.is_empty() => {
                let of_buckets = h.buckets.iter().filter_map(|b| b.exemplar);
                out.extend(of_buckets.filter_map(|e| Self::exemplar(e, true)));
            }
            Part::Native | Part::Converted => {
                out.extend(h.exemplars.iter().filter_map(|e| Self::exemplar(e, true)));
            }
            Part::Whole | Part::Count | Part::Sum | Part::Quantile(_) => {}
        }
    }

    fn start_ms(&mut self) -> i64 {
        let start = match self.family.metric_type {
            MetricType::Counter => self.metric.counter_start,
            MetricType::Summary => self.metric.summary.start,
            MetricType::Histogram | MetricType::GaugeHistogram => self.metric.histogram.start,
            _ => None,
        };
        start.map_or(0, Stamp::ms)
    }
}
