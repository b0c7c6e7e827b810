//! Native histograms: types and their spans. What is computed with them is in `histogram/`: [`bounds`] and [`buckets`]
//! (where buckets lie), `arithmetic` (sums, differences, factors), `layout` (compaction, resolution, zero bucket), `reset`,
//! `trim`, `validate`, and [`display`].
//!
//! Nothing in here trusts a histogram to be valid: spans that do not fit the buckets give odd numbers, never a panic.
//!
//! Spec: <https://prometheus.io/docs/specs/native_histograms/>.

use std::sync::Arc;

mod arithmetic;
pub mod bounds;
pub mod buckets;
pub mod display;
mod error;
mod hints;
mod integer;
mod kahan;
mod layout;
mod reset;
mod trim;
mod validate;

#[cfg(test)]
mod tests;

pub use arithmetic::AddOutcome;
pub use bounds::is_exponential_schema;
pub use buckets::Bucket;
pub use error::HistogramError;
pub use hints::{read_back_hint, settle_hints};
pub use kahan::kahan_inc;
pub use trim::Keep;

/// Schema of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known about counter resets before a histogram sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum CounterResetHint {
    /// Compare with the sample before to find out.
    #[default]
    Unknown,
    /// There was a reset between the sample before and this one.
    CounterReset,
    /// There was none.
    NotCounterReset,
    /// A gauge histogram: resets mean nothing.
    Gauge,
}

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Gap to the end of the span before; for the first span, the index of its first bucket.
    pub offset: i32,
    /// Number of buckets in the run.
    pub length: u32,
}

/// A native histogram with integer counts. Bucket counts are deltas: the first is absolute, each other one the
/// difference to the bucket before.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Known resets before this sample.
    pub counter_reset_hint: CounterResetHint,
    /// -4 to 8: bucket bounds are powers of 2^(2^-schema). [`CUSTOM_BUCKETS_SCHEMA`]: bounds are `custom_values`.
    pub schema: i32,
    /// Half width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Sum of observed values; the stale marker ends the series.
    pub sum: f64,
    /// Spans of the positive buckets.
    pub positive_spans: Vec<Span>,
    /// Counts of the positive buckets, as deltas.
    pub positive_buckets: Vec<i64>,
    /// Spans of the negative buckets.
    pub negative_spans: Vec<Span>,
    /// Counts of the negative buckets, as deltas.
    pub negative_buckets: Vec<i64>,
    /// Upper bounds of custom buckets, strictly rising, without +Inf.
    pub custom_values: Vec<f64>,
}

/// A native histogram with float counts. Bucket counts are absolute.
#[derive(Clone, Debug, Default)]
pub struct FloatHistogram {
    /// Known resets before this sample.
    pub counter_reset_hint: CounterResetHint,
    /// As in [`Histogram`].
    pub schema: i32,
    /// Half width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of observed values; the stale marker ends the series.
    pub sum: f64,
    /// Spans of the positive buckets.
    pub positive_spans: Vec<Span>,
    /// Counts of the positive buckets.
    pub positive_buckets: Vec<f64>,
    /// Spans of the negative buckets.
    pub negative_spans: Vec<Span>,
    /// Counts of the negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, strictly rising, without +Inf.
    pub custom_values: Vec<f64>,
}

/// A histogram of either kind, cheap to clone.
#[derive(Clone, Debug)]
pub enum HistogramValue {
    /// Integer counts, as scraped.
    Int(Arc<Histogram>),
    /// Float counts, as computed.
    Float(Arc<FloatHistogram>),
}

impl HistogramValue {
    /// Sum of observed values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        match self {
            Self::Int(h) => h.sum,
            Self::Float(h) => h.sum,
        }
    }

    /// As a float histogram: a clone of the reference, or a conversion.
    #[must_use]
    pub fn to_float(&self) -> Arc<FloatHistogram> {
        match self {
            Self::Int(h) => Arc::new(h.to_float()),
            Self::Float(h) => h.clone(),
        }
    }
}

impl From<Histogram> for HistogramValue {
    fn from(h: Histogram) -> Self {
        Self::Int(Arc::new(h))
    }
}

impl From<FloatHistogram> for HistogramValue {
    fn from(h: FloatHistogram) -> Self {
        Self::Float(Arc::new(h))
    }
}

/// Exact equality: floats by their bits, so that NaN payloads count.
impl PartialEq for HistogramValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            _ => false,
        }
    }
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Exact equality: floats by their bits.
impl PartialEq for Histogram {
    fn eq(&self, o: &Self) -> bool {
        self.counter_reset_hint == o.counter_reset_hint
            && self.schema == o.schema
            && self.zero_count == o.zero_count
            && self.count == o.count
            && same_bits(&[self.zero_threshold, self.sum], &[o.zero_threshold, o.sum])
            && self.positive_spans == o.positive_spans
            && self.positive_buckets == o.positive_buckets
            && self.negative_spans == o.negative_spans
            && self.negative_buckets == o.negative_buckets
            && same_bits(&self.custom_values, &o.custom_values)
    }
}

/// Exact equality: floats by their bits.
impl PartialEq for FloatHistogram {
    fn eq(&self, o: &Self) -> bool {
        self.counter_reset_hint == o.counter_reset_hint
            && self.schema == o.schema
            && same_bits(
                &[self.zero_threshold, self.zero_count, self.count, self.sum],
                &[o.zero_threshold, o.zero_count, o.count, o.sum],
            )
            && self.positive_spans == o.positive_spans
            && same_bits(&self.positive_buckets, &o.positive_buckets)
            && self.negative_spans == o.negative_spans
            && same_bits(&self.negative_buckets, &o.negative_buckets)
            && same_bits(&self.custom_values, &o.custom_values)
    }
}

impl Histogram {
    /// The same histogram with float counts.
    #[must_use]
    pub fn to_float(&self) -> FloatHistogram {
        FloatHistogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            positive_buckets: absolute(&self.positive_buckets),
            negative_spans: self.negative_spans.clone(),
            negative_buckets: absolute(&self.negative_buckets),
            custom_values: self.custom_values.clone(),
        }
    }
}

impl FloatHistogram {
    /// Whether any number in it is infinite, as happens when sums overflow.
    #[must_use]
    pub fn has_overflow(&self) -> bool {
        [self.zero_count, self.count, self.sum]
            .iter()
            .chain(&self.positive_buckets)
            .chain(&self.negative_buckets)
            .chain(&self.custom_values)
            .any(|v| v.is_infinite())
    }

    /// Bytes as Prometheus counts them for the limit of samples per query: 168, and 8 for each span, bucket and bound.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let spans = self.positive_spans.len() + self.negative_spans.len();
        let floats = self.positive_buckets.len() + self.negative_buckets.len() + self.custom_values.len();
        168 + 8 * (spans + floats)
    }
}

fn absolute(deltas: &[i64]) -> Vec<f64> {
    let mut at = 0_i64;
    deltas
        .iter()
        .map(|d| {
            at = at.wrapping_add(*d);
            at as f64
        })
        .collect()
}
