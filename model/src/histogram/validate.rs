//! Whether a histogram is consistent in itself, as Prometheus judges it.

use super::bounds::is_exponential_schema;
use super::error::HistogramError;
use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, Span};

const POSITIVE: &str = "positive side";
const NEGATIVE: &str = "negative side";
const CUSTOM: &str = "custom buckets";

type Valid = Result<(), HistogramError>;

impl Histogram {
    /// Checks spans against buckets, signs of counts, custom bounds, and the total against the buckets.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Valid {
        let shape = Shape {
            schema: self.schema,
            zero: self.zero_count != 0,
            zero_threshold: self.zero_threshold,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            custom_values: &self.custom_values,
        };
        shape.check()?;
        let negative = delta_sum(&self.negative_buckets, NEGATIVE)?;
        let positive = delta_sum(&self.positive_buckets, POSITIVE)?;
        let in_buckets = negative.wrapping_add(positive).wrapping_add(self.zero_count);
        let count = self.count;
        if self.sum.is_nan() {
            if in_buckets > count {
                return Err(HistogramError::CountTooSmall { in_buckets, count });
            }
        } else if in_buckets != count {
            return Err(HistogramError::CountMismatch { in_buckets, count });
        }
        Ok(())
    }
}

impl FloatHistogram {
    /// Checks spans against buckets, signs of counts and custom bounds. The total is not compared with the buckets, since
    /// rounding may tell them apart.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Valid {
        let shape = Shape {
            schema: self.schema,
            zero: self.zero_count != 0.0,
            zero_threshold: self.zero_threshold,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            custom_values: &self.custom_values,
        };
        shape.check()?;
        not_negative(&self.negative_buckets, NEGATIVE)?;
        if self.zero_count < 0.0 {
            return Err(HistogramError::NegativeZeroCount(self.zero_count));
        }
        if self.count < 0.0 {
            return Err(HistogramError::NegativeCount(self.count));
        }
        not_negative(&self.positive_buckets, POSITIVE)
    }
}

/// What both kinds of histograms have in common.
struct Shape<'a> {
    schema: i32,
    zero: bool,
    zero_threshold: f64,
    positive: (&'a [Span], usize),
    negative: (&'a [Span], usize),
    custom_values: &'a [f64],
}

impl Shape<'_> {
    fn check(&self) -> Valid {
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            return self.check_custom();
        }
        if !is_exponential_schema(self.schema) {
            return Err(HistogramError::Schema(self.schema));
        }
        check_spans(self.positive.0, self.positive.1, POSITIVE)?;
        check_spans(self.negative.0, self.negative.1, NEGATIVE)?;
        if !self.custom_values.is_empty() {
            return Err(HistogramError::ExponentialWithCustomBounds);
        }
        Ok(())
    }

    fn check_custom(&self) -> Valid {
        let mut previous = f64::NEG_INFINITY;
        for (i, bound) in self.custom_values.iter().enumerate() {
            if bound.is_nan() {
                return Err(HistogramError::CustomBoundNan);
            }
            if i > 0 && *bound <= previous {
                return Err(HistogramError::CustomBoundsOrder);
            }
            previous = *bound;
        }
        if self.custom_values.iter().any(|b| b.is_infinite()) {
            return Err(HistogramError::CustomBoundInfinite);
        }
        let (spans, buckets) = self.positive;
        if let Some((i, s)) = spans.iter().enumerate().find(|(_, s)| s.offset < 0) {
            return Err(HistogramError::NegativeSpanOffset { side: CUSTOM, number: i + 1, offset: s.offset });
        }
        check_spans(spans, buckets, CUSTOM)?;
        let length: u64 = spans.iter().map(|s| u64::from(s.length) + s.offset.unsigned_abs() as u64).sum();
        if (self.custom_values.len() as u64) + 1 < length {
            return Err(HistogramError::TooFewCustomBounds { bounds: self.custom_values.len(), length });
        }
        let wrong = [
            (self.zero, "have zero count of 0"),
            (self.zero_threshold != 0.0, "have zero threshold of 0"),
            (!self.negative.0.is_empty(), "not have negative spans"),
            (self.negative.1 > 0, "not have negative buckets"),
        ];
        match wrong.into_iter().find(|(is, _)| *is) {
            Some((_, what)) => Err(HistogramError::CustomBuckets(what)),
            None => Ok(()),
        }
    }
}

fn check_spans(spans: &[Span], have: usize, side: &'static str) -> Valid {
    let mut needed: u64 = 0;
    for (i, span) in spans.iter().enumerate() {
        if i > 0 && span.offset < 0 {
            return Err(HistogramError::NegativeSpanOffset { side, number: i + 1, offset: span.offset });
        }
        needed += u64::from(span.length);
    }
    if needed != have as u64 {
        return Err(HistogramError::SpansBucketsMismatch { side, needed, have });
    }
    Ok(())
}

fn not_negative(buckets: &[f64], side: &'static str) -> Valid {
    match buckets.iter().enumerate().find(|(_, c)| **c < 0.0) {
        Some((i, count)) => Err(HistogramError::NegativeBucketCount { side, number: i + 1, count: *count }),
        None => Ok(()),
    }
}

fn delta_sum(deltas: &[i64], side: &'static str) -> Result<u64, HistogramError> {
    let (mut at, mut sum) = (0_i64, 0_u64);
    for (i, delta) in deltas.iter().enumerate() {
        at = at.wrapping_add(*delta);
        if at < 0 {
            return Err(HistogramError::NegativeBucketCount { side, number: i + 1, count: at as f64 });
        }
        sum = sum.wrapping_add(at as u64);
    }
    Ok(sum)
}
