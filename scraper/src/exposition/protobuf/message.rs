//! One `io.prometheus.client.Metric`, decoded into memory that the next metric uses again.
//!
//! Labels are not decoded: their bytes are the key by which a metric is known, and are read only when it is new. Numbers
//! keep their bits, NaN payloads included.
//!
//! Spec: <https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Span};
use model::{FloatHistogram, Histogram, HistogramValue};

use super::wire::{Fields, Tag, Wire, WireError, zigzag};

type Result<T> = std::result::Result<T, WireError>;

/// `google.protobuf.Timestamp` in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    seconds: i64,
    nanos: i32,
}

impl Stamp {
    pub(super) fn ms(self) -> i64 {
        self.seconds.wrapping_mul(1000).wrapping_add(i64::from(self.nanos / 1_000_000))
    }

    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields::new(bytes);
        while let Some(tag) = fields.next("Timestamp")? {
            match tag.field {
                1 => self.seconds = fields.uint(tag, "Seconds")? as i64,
                2 => self.nanos = fields.uint(tag, "Nanos")? as i32,
                _ => fields.skip(tag)?,
            }
        }
        Ok(())
    }
}

fn read_stamp(stamp: &mut Option<Stamp>, bytes: &[u8]) -> Result<()> {
    stamp.get_or_insert_default().read(bytes)
}

/// A bucket of a classic histogram.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClassicBucket<'a> {
    count: u64,
    count_float: f64,
    pub(super) upper_bound: f64,
    pub(super) exemplar: Option<&'a [u8]>,
}

impl ClassicBucket<'_> {
    pub(super) fn cumulative_count(&self) -> f64 {
        if self.count_float == 0.0 { self.count as f64 } else { self.count_float }
    }
}

/// A quantile of a summary.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quantile {
    pub(super) quantile: f64,
    pub(super) value: f64,
}

/// A metric. Only what its family's type asks for counts.
#[derive(Debug, Default)]
pub(super) struct Metric<'a> {
    /// The whole message.
    pub(super) bytes: &'a [u8],
    /// Where its labels stand, when they stand together.
    pub(super) labels: (usize, usize),
    /// They do not: something else is between them.
    pub(super) labels_scattered: bool,
    pub(super) timestamp_ms: i64,
    pub(super) counter: f64,
    pub(super) gauge: f64,
    pub(super) untyped: f64,
    pub(super) counter_exemplar: Option<&'a [u8]>,
    pub(super) counter_start: Option<Stamp>,
    pub(super) summary: Summary,
    pub(super) histogram: HistogramMessage<'a>,
}

#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) quantiles: Vec<Quantile>,
    pub(super) start: Option<Stamp>,
}

#[derive(Debug, Default)]
pub(super) struct HistogramMessage<'a> {
    count: u64,
    count_float: f64,
    pub(super) sum: f64,
    pub(super) buckets: Vec<ClassicBucket<'a>>,
    pub(super) start: Option<Stamp>,
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    negative_spans: Vec<Span>,
    negative_deltas: Vec<i64>,
    negative_counts: Vec<f64>,
    positive_spans: Vec<Span>,
    positive_deltas: Vec<i64>,
    positive_counts: Vec<f64>,
    pub(super) exemplars: Vec<&'a [u8]>,
}

impl<'a> Metric<'a> {
    /// Reads the next metric.
    pub(super) fn read(&mut self, bytes: &'a [u8]) -> Result<()> {
        self.clear(bytes);
        let mut fields = Fields::new(bytes);
        while let Some(tag) = fields.next("Metric")? {
            match tag.field {
                1 => {
                    fields.message(tag, "Label")?;
                    self.saw_label(tag.start, fields.position());
                }
                2 => read_value(&mut self.gauge, fields.message(tag, "Gauge")?, "Gauge")?,
                3 => self.read_counter(fields.message(tag, "Counter")?)?,
                4 => self.summary.read(fields.message(tag, "Summary")?)?,
                5 => read_value(&mut self.untyped, fields.message(tag, "Untyped")?, "Untyped")?,
                6 => self.timestamp_ms = fields.uint(tag, "TimestampMs")? as i64,
                7 => self.histogram.read(fields.message(tag, "Histogram")?)?,
                _ => fields.skip(tag)?,
            }
        }
        Ok(())
    }

    fn clear(&mut self, bytes: &'a [u8]) {
        self.bytes = bytes;
        self.labels = (0, 0);
        self.labels_scattered = false;
        self.timestamp_ms = 0;
        (self.counter, self.gauge, self.untyped) = (0.0, 0.0, 0.0);
        self.counter_exemplar = None;
        self.counter_start = None;
        self.summary.clear();
        self.histogram.clear();
    }

    fn saw_label(&mut self, start: usize, end: usize) {
        if self.labels.1 == 0 {
            self.labels = (start, end);
        } else if self.labels.1 == start {
            self.labels.1 = end;
        } else {
            self.labels_scattered = true;
        }
    }

    fn read_counter(&mut self, bytes: &'a [u8]) -> Result<()> {
        let mut fields = Fields::new(bytes);
        while let Some(tag) = fields.next("Counter")? {
            match tag.field {
                1 => self.counter = fields.double(tag, "Value")?,
                2 => self.counter_exemplar = Some(fields.message(tag, "Exemplar")?),
                3 => read_stamp(&mut self.counter_start, fields.message(tag, "StartTimestamp")?)?,
                _ => fields.skip(tag)?,
            }
        }
        check_exemplar(self.counter_exemplar)
    }
}

fn read_value(value: &mut f64, bytes: &[u8], message: &'static str) -> Result<()> {
    let mut fields = Fields::new(bytes);
    while let Some(tag) = fields.next(message)? {
        match tag.field {
            1 => *value = fields.double(tag, "Value")?,
            _ => fields.skip(tag)?,
        }
    }
    Ok(())
}

impl Summary {
    fn clear(&mut self) {
        self.count = 0;
        self.sum = 0.0;
        self.quantiles.clear();
        self.start = None;
    }

    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields::new(bytes);
        while let Some(tag) = fields.next("Summary")? {
            match tag.field {
                1 => self.count = fields.uint(tag, "SampleCount")?,
                2 => self.sum = fields.double(tag, "SampleSum")?,
                3 => self.quantiles.push(read_quantile(fields.message(tag, "Quantile")?)?),
                4 => read_stamp(&mut self.start, fields.message(tag, "StartTimestamp")?)?,
                _ => fields.skip(tag)?,
            }
        }
        Ok(())
    }
}

fn read_quantile(bytes: &[u8]) -> Result<Quantile> {
    let mut out = Quantile::default();
    let mut fields = Fields::new(bytes);
    while let Some(tag) = fields.next("Quantile")? {
        match tag.field {
            1 => out.quantile = fields.double(tag, "Quantile")?,
            2 => out.value = fields.double(tag, "Value")?,
            _ => fields.skip(tag)?,
        }
    }
    Ok(out)
}

fn read_bucket(bytes: &[u8]) -> Result<ClassicBucket<'_>> {
    let mut out = ClassicBucket::default();
    let mut fields = Fields::new(bytes);
    while let Some(tag) = fields.next("Bucket")? {
        match tag.field {
            1 => out.count = fields.uint(tag, "CumulativeCount")?,
            2 => out.upper_bound = fields.double(tag, "UpperBound")?,
            3 => out.exemplar = Some(fields.message(tag, "Exemplar")?),
            4 => out.count_float = fields.double(tag, "CumulativeCountFloat")?,
            _ => fields.skip(tag)?,
        }
    }
    check_exemplar(out.exemplar)?;
    Ok(out)
}

fn read_span(bytes: &[u8]) -> Result<Span> {
    let mut out = Span::default();
    let mut fields = Fields::new(bytes);
    while let Some(tag) = fields.next("BucketSpan")? {
        match tag.field {
            1 => out.offset = zigzag(fields.uint(tag, "Offset")? & u64::from(u32::MAX)) as i32,
            2 => out.length = fields.uint(tag, "Length")? as u32,
            _ => fields.skip(tag)?,
        }
    }
    Ok(out)
}

/// What an exemplar says, its labels left undecoded.
pub(super) struct ExemplarMessage<'a> {
    pub(super) value: f64,
    pub(super) timestamp: Option<Stamp>,
    bytes: &'a [u8],
}

impl<'a> ExemplarMessage<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut out = Self { value: 0.0, timestamp: None, bytes };
        let mut fields = Fields::new(bytes);
        while let Some(tag) = fields.next("Exemplar")? {
            match tag.field {
                1 => {
                    read_label(fields.message(tag, "Label")?)?;
                }
                2 => out.value = fields.double(tag, "Value")?,
                3 => read_stamp(&mut out.timestamp, fields.message(tag, "Timestamp")?)?,
                _ => fields.skip(tag)?,
            }
        }
        Ok(out)
    }

    /// Its labels, in the order of the message; bytes that are no UTF-8 are replaced.
    pub(super) fn labels(&self) -> Result<Vec<(String, String)>> {
        let mut out = Vec::new();
        let mut fields = Fields::new(self.bytes);
        while let Some(tag) = fields.next("Exemplar")? {
            if tag.field == 1 {
                let (name, value) = read_label(fields.message(tag, "Label")?)?;
                let text = |b| String::from_utf8_lossy(b).into_owned();
                out.push((text(name), text(value)));
            } else {
                fields.skip(tag)?;
            }
        }
        Ok(out)
    }
}

/// Exemplars are read when they are asked for; that they can be is checked with the metric.
fn check_exemplar(bytes: Option<&[u8]>) -> Result<()> {
    bytes.map_or(Ok(()), |b| ExemplarMessage::read(b).map(|_| ()))
}

/// Name and value of a `LabelPair`.
pub(super) fn read_label(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(bytes);
    while let Some(tag) = fields.next("LabelPair")? {
        match tag.field {
            1 => name = fields.message(tag, "Name")?,
            2 => value = fields.message(tag, "Value")?,
            _ => fields.skip(tag)?,
        }
    }
    Ok((name, value))
}

impl<'a> HistogramMessage<'a> {
    fn clear(&mut self) {
        self.count = 0;
        self.count_float = 0.0;
        self.sum = 0.0;
        self.buckets.clear();
        self.start = None;
        self.schema = 0;
        self.zero_threshold = 0.0;
        self.zero_count = 0;
        self.zero_count_float = 0.0;
        self.negative_spans.clear();
        self.negative_deltas.clear();
        self.negative_counts.clear();
        self.positive_spans.clear();
        self.positive_deltas.clear();
        self.positive_counts.clear();
        self.exemplars.clear();
    }

    fn read(&mut self, bytes: &'a [u8]) -> Result<()> {
        let mut fields = Fields::new(bytes);
        while let Some(tag) = fields.next("Histogram")? {
            match tag.field {
                1 => self.count = fields.uint(tag, "SampleCount")?,
                2 => self.sum = fields.double(tag, "SampleSum")?,
                3 => self.buckets.push(read_bucket(fields.message(tag, "Bucket")?)?),
                4 => self.count_float = fields.double(tag, "SampleCountFloat")?,
                15 => read_stamp(&mut self.start, fields.message(tag, "StartTimestamp")?)?,
                16 => {
                    let exemplar = fields.message(tag, "Exemplars")?;
                    check_exemplar(Some(exemplar))?;
                    self.exemplars.push(exemplar);
                }
                _ => self.read_native(&mut fields, tag)?,
            }
        }
        Ok(())
    }

    fn read_native(&mut self, fields: &mut Fields<'a>, tag: Tag) -> Result<()> {
        match tag.field {
            5 => self.schema = zigzag(fields.uint(tag, "Schema")? & u64::from(u32::MAX)) as i32,
            6 => self.zero_threshold = fields.double(tag, "ZeroThreshold")?,
            7 => self.zero_count = fields.uint(tag, "ZeroCount")?,
            8 => self.zero_count_float = fields.double(tag, "ZeroCountFloat")?,
            9 => self.negative_spans.push(read_span(fields.message(tag, "NegativeSpan")?)?),
            10 => fields.repeated(tag, Wire::Varint, "NegativeDelta", |v| {
                self.negative_deltas.push(zigzag(v));
            })?,
            11 => fields.repeated(tag, Wire::Fixed64, "NegativeCount", |v| {
                self.negative_counts.push(f64::from_bits(v));
            })?,
            12 => self.positive_spans.push(read_span(fields.message(tag, "PositiveSpan")?)?),
            13 => fields.repeated(tag, Wire::Varint, "PositiveDelta", |v| {
                self.positive_deltas.push(zigzag(v));
            })?,
            14 => fields.repeated(tag, Wire::Fixed64, "PositiveCount", |v| {
                self.positive_counts.push(f64::from_bits(v));
            })?,
            _ => fields.skip(tag)?,
        }
        Ok(())
    }

    /// All observations.
    pub(super) fn count(&self) -> f64 {
        if self.count_float == 0.0 { self.count as f64 } else { self.count_float }
    }

    /// Whether it has a native part. One without observations yet says so with an empty span.
    pub(super) fn is_native(&self) -> bool {
        !self.positive_spans.is_empty()
            || !self.negative_spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
    }

    fn is_float(&self) -> bool {
        self.count_float > 0.0 || self.zero_count_float > 0.0
    }

    /// Whether its spans describe as many buckets as there are.
    pub(super) fn check_spans(&self) -> std::result::Result<(), String> {
        let (positive, negative) = if self.is_float() {
            (self.positive_counts.len(), self.negative_counts.len())
        } else {
            (self.positive_deltas.len(), self.negative_deltas.len())
        };
        for (side, spans, buckets) in
            [("positive", &self.positive_spans, positive), ("negative", &self.negative_spans, negative)]
        {
            let total: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
            if total != buckets as u64 {
                return Err(format!("{side} side: spans require {total} buckets, have {buckets}"));
            }
        }
        Ok(())
    }

    /// The native histogram, without empty buckets.
    pub(super) fn native(&self, gauge: bool) -> HistogramValue {
        let counter_reset_hint = if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        if self.is_float() {
            let mut h = FloatHistogram {
                counter_reset_hint,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count_float,
                count: self.count_float,
                sum: self.sum,
                positive_spans: self.positive_spans.clone(),
                positive_buckets: self.positive_counts.clone(),
                negative_spans: self.negative_spans.clone(),
                negative_buckets: self.negative_counts.clone(),
                custom_values: Vec::new(),
            };
            h.compact(0);
            return h.into();
        }
        let mut h = Histogram {
            counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            positive_buckets: self.positive_deltas.clone(),
            negative_spans: self.negative_spans.clone(),
            negative_buckets: self.negative_deltas.clone(),
            custom_values: Vec::new(),
        };
        h.compact(0);
        h.into()
    }
}

/// The histogram as one of a gauge.
pub(super) fn as_gauge(h: HistogramValue) -> HistogramValue {
    match h {
        HistogramValue::Int(mut h) => {
            Arc::make_mut(&mut h).counter_reset_hint = CounterResetHint::Gauge;
            HistogramValue::Int(h)
        }
        HistogramValue::Float(mut h) => {
            Arc::make_mut(&mut h).counter_reset_hint = CounterResetHint::Gauge;
            HistogramValue::Float(h)
        }
    }
}
