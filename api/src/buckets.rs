//! Buckets of a native histogram with their bounds, from the lowest to the highest, as the API prints them.
//!
//! Empty buckets within spans are given too; the caller leaves them out. Spec: the native histogram page of the
//! Prometheus documentation, "schema".

use model::FloatHistogram;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) lower_inclusive: bool,
    pub(crate) upper_inclusive: bool,
    pub(crate) count: f64,
}

/// All buckets: negative ones from the lowest, the zero bucket, positive ones.
pub(crate) fn all_buckets(h: &FloatHistogram) -> Vec<Bucket> {
    let t = h.zero_threshold;
    // The zero bucket may reach into its neighbours: they are shown to end where it begins.
    let clamp = |mut b: Bucket| {
        if b.upper < 0.0 && b.upper > -t {
            b.upper = -t;
        } else if b.lower > 0.0 && b.lower < t {
            b.lower = t;
        }
        b
    };
    let mut out: Vec<Bucket> = indexed(&h.negative_spans, &h.negative_buckets)
        .map(|(index, count)| {
            let (lower, upper) = bounds(h, index);
            clamp(bucket(h, index, (-upper, -lower), count))
        })
        .collect();
    out.reverse();
    if h.zero_count > 0.0 {
        out.push(Bucket {
            lower: -t,
            upper: t,
            lower_inclusive: true,
            upper_inclusive: true,
            count: h.zero_count,
        });
    }
    out.extend(
        indexed(&h.positive_spans, &h.positive_buckets)
            .map(|(index, count)| clamp(bucket(h, index, bounds(h, index), count))),
    );
    out
}

fn bucket(h: &FloatHistogram, index: i64, (lower, upper): (f64, f64), count: f64) -> Bucket {
    let custom = h.schema == CUSTOM_BUCKETS_SCHEMA;
    Bucket {
        lower,
        upper,
        lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
        upper_inclusive: custom || upper > 0.0,
        count,
    }
}

/// Index and count of each bucket of one side.
pub(crate) fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut at = 0_i64;
    spans
        .iter()
        .flat_map(move |s| {
            let start = at.saturating_add(i64::from(s.offset));
            at = start.saturating_add(i64::from(s.length));
            // `counts` ends the iteration, however long a foreign span says it is.
            start..at
        })
        .zip(counts.iter().copied())
}

fn bounds(h: &FloatHistogram, index: i64) -> (f64, f64) {
    if h.schema == CUSTOM_BUCKETS_SCHEMA {
        let custom = |i: i64| usize::try_from(i).ok().and_then(|i| h.custom_values.get(i)).copied();
        let lower = if index == 0 { f64::NEG_INFINITY } else { custom(index - 1).unwrap_or(f64::INFINITY) };
        return (lower, custom(index).unwrap_or(f64::INFINITY));
    }
    (exponential_bound(index - 1, h.schema), exponential_bound(index, h.schema))
}

/// `2^(index * 2^-schema)`, exact where the result is a power of two.
fn exponential_bound(index: i64, schema: i32) -> f64 {
    if schema <= 0 {
        let exponent = index.saturating_mul(1_i64 << u32::try_from(-schema).unwrap_or(0).min(32));
        // The bucket that holds the greatest floats ends at the greatest float, not at infinity.
        if exponent == 1024 {
            return f64::MAX;
        }
        return power_of_two(exponent);
    }
    let per_octave = 1_i64 << schema.min(32);
    let fraction = index.rem_euclid(per_octave);
    let octave = index.div_euclid(per_octave);
    if fraction == 0 && octave == 1024 {
        return f64::MAX;
    }
    (fraction as f64 / per_octave as f64).exp2() * power_of_two(octave)
}

fn power_of_two(exponent: i64) -> f64 {
    2_f64.powi(exponent.clamp(-2000, 2000) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_schema() {
        let h = FloatHistogram {
            schema: 0,
            zero_threshold: 0.25,
            zero_count: 3.0,
            positive_spans: vec![Span { offset: -1, length: 2 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![12.0, 21.0, 6.0],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        let got: Vec<_> = all_buckets(&h).iter().map(|b| (b.lower, b.upper, b.count)).collect();
        assert_eq!(
            got,
            [(-1.0, -0.5, 1.0), (-0.25, 0.25, 3.0), (0.25, 0.5, 12.0), (0.5, 1.0, 21.0), (2.0, 4.0, 6.0)]
        );
    }

    #[test]
    fn custom_bounds_end_at_infinity() {
        let h = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: vec![1.0, 5.0],
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 2.0, 3.0],
            ..FloatHistogram::default()
        };
        let got: Vec<_> = all_buckets(&h).iter().map(|b| (b.lower, b.upper, b.count)).collect();
        assert_eq!(got, [(f64::NEG_INFINITY, 1.0, 1.0), (1.0, 5.0, 2.0), (5.0, f64::INFINITY, 3.0)]);
    }

    #[test]
    fn long_spans_without_counts_end_at_once() {
        let h = FloatHistogram {
            positive_spans: vec![Span { offset: i32::MAX, length: u32::MAX }],
            positive_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        assert_eq!(all_buckets(&h).len(), 1);
    }
}
