//! One sample of a series.

use crate::histogram::HistogramValue;
use crate::staleness::is_stale_nan;

/// A timestamp and a value; histograms may carry a start timestamp too.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When the counter behind the sample began, milliseconds since the Unix epoch; 0 when unknown.
    pub start_timestamp_ms: i64,
    /// The value.
    pub value: SampleValue,
}

/// What a sample carries.
#[derive(Clone, Debug)]
pub enum SampleValue {
    /// A float, any bit pattern.
    Float(f64),
    /// A native histogram.
    Histogram(HistogramValue),
}

impl Sample {
    /// A float sample without start timestamp.
    #[must_use]
    pub fn float(timestamp_ms: i64, value: f64) -> Self {
        Self { timestamp_ms, start_timestamp_ms: 0, value: SampleValue::Float(value) }
    }

    /// A histogram sample without start timestamp.
    #[must_use]
    pub fn histogram(timestamp_ms: i64, value: impl Into<HistogramValue>) -> Self {
        Self { timestamp_ms, start_timestamp_ms: 0, value: SampleValue::Histogram(value.into()) }
    }
}

impl SampleValue {
    /// Whether the sample ends its series. A histogram does so by the sum's bits.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            SampleValue::Float(v) => is_stale_nan(*v),
            SampleValue::Histogram(h) => is_stale_nan(h.sum()),
        }
    }
}

/// Bit equality for floats, so that NaNs compare by their payload.
impl PartialEq for SampleValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (SampleValue::Float(a), SampleValue::Float(b)) => a.to_bits() == b.to_bits(),
            (SampleValue::Histogram(a), SampleValue::Histogram(b)) => a == b,
            _ => false,
        }
    }
}
