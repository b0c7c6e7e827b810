//! Native histograms of OTLP's points: exponential ones, and those with explicit bounds as custom buckets.
//!
//! Buckets of OTLP are dense and lie at `(base^i, base^(i+1)]`; those of a native histogram are runs, numbered by their upper
//! bound. Resolutions above the finest one are merged down, two buckets into one for each step.

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{Histogram, STALE_NAN_BITS, stale_nan};

use super::message::Temporality;
use super::point::{Buckets, Point};

const SCHEMA_MIN: i32 = -4;
const SCHEMA_MAX: i32 = 8;
/// Half width of the zero bucket, which OTLP's own is not taken for.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Empty buckets between two runs, up to which they are one run.
const GAP_MAX: i32 = 2;

/// The native histogram of a point of an exponential histogram.
pub(crate) fn exponential(point: &Point<'_>, temporality: Temporality) -> Result<Histogram, String> {
    let scale = point.scale;
    if scale < SCHEMA_MIN {
        return Err(format!(
            "cannot convert exponential to native histogram. Scale must be >= {SCHEMA_MIN}, was {scale}"
        ));
    }
    let down = scale.saturating_sub(SCHEMA_MAX).max(0);
    let (positive_spans, positive_buckets) = runs_of(&point.positive, down);
    let (negative_spans, negative_buckets) = runs_of(&point.negative, down);
    let mut histogram = Histogram {
        counter_reset_hint: hint(temporality),
        schema: scale.min(SCHEMA_MAX),
        zero_threshold: ZERO_THRESHOLD,
        zero_count: point.zero_count,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..Histogram::default()
    };
    count_and_sum(&mut histogram, point);
    Ok(histogram)
}

/// The native histogram with custom buckets of a point with explicit bounds.
pub(crate) fn custom(point: &Point<'_>, temporality: Temporality) -> Histogram {
    let empty = point.bucket_counts.iter().take_while(|n| **n == 0).count();
    let (positive_spans, positive_buckets) =
        runs(&point.bucket_counts[empty..], empty as i32, 0, empty as i32);
    let mut histogram = Histogram {
        counter_reset_hint: hint(temporality),
        schema: CUSTOM_BUCKETS_SCHEMA,
        positive_spans,
        positive_buckets,
        custom_values: point.bounds.clone(),
        ..Histogram::default()
    };
    count_and_sum(&mut histogram, point);
    histogram
}

/// Deltas have no resets, which is what a gauge says; else the store finds out.
fn hint(temporality: Temporality) -> CounterResetHint {
    match temporality {
        Temporality::Delta => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

fn count_and_sum(histogram: &mut Histogram, point: &Point<'_>) {
    if point.no_recorded_value() {
        histogram.sum = stale_nan();
        histogram.count = STALE_NAN_BITS;
    } else {
        histogram.sum = point.sum.unwrap_or(0.0);
        histogram.count = point.count;
    }
}

/// Whether a point of nothing has a sum.
pub(crate) fn sum_of_nothing(histogram: &Histogram) -> bool {
    histogram.count == 0 && histogram.sum != 0.0
}

fn runs_of(buckets: &Buckets, down: i32) -> (Vec<Span>, Vec<i64>) {
    runs(&buckets.counts, buckets.offset, down, index(buckets.offset, down))
}

/// The number of a bucket after `down` halvings of the resolution.
fn index(bucket: i32, down: i32) -> i32 {
    (bucket >> down.min(31)).wrapping_add(1)
}

/// Dense counts, the first of which belongs to `offset`, as runs and the differences between their counts. The first run
/// begins at `start`. Foreign numbers may overflow; what comes of it is a histogram that the store finds invalid.
fn runs(counts: &[u64], offset: i32, down: i32, start: i32) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::new(), Vec::new());
    if counts.is_empty() {
        return (spans, deltas);
    }
    spans.push(Span { offset: start, length: 0 });
    let mut previous = 0_i64;
    let mut push = |spans: &mut Vec<Span>, count: i64| {
        if let Some(last) = spans.last_mut() {
            last.length += 1;
        }
        deltas.push(count.wrapping_sub(previous));
        previous = count;
    };
    // The buckets that are empty up to the one at `gap`: a few are written, more begin a new run.
    let mut close = |spans: &mut Vec<Span>, gap: i32, count: i64| {
        if gap > GAP_MAX {
            spans.push(Span { offset: gap, length: 0 });
        } else {
            (0..gap).for_each(|_| push(spans, 0));
        }
        push(spans, count);
    };
    let (mut at, mut count) = (index(offset, down), 0_i64);
    for (i, n) in counts.iter().enumerate() {
        let next = index((i as i32).wrapping_add(offset), down);
        if at == next {
            count = count.wrapping_add(*n as i64);
            continue;
        }
        if count == 0 {
            count = *n as i64;
            continue;
        }
        close(&mut spans, next.wrapping_sub(at).wrapping_sub(1), count);
        (at, count) = (next, *n as i64);
    }
    let last = index((counts.len() as i32).wrapping_add(offset).wrapping_sub(1), down);
    close(&mut spans, last.wrapping_sub(at), count);
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(counts: &[u64], offset: i32, down: i32, spans: &[(i32, u32)], absolute: &[i64]) {
        let (got, deltas) = runs(counts, offset, down, index(offset, down));
        let got: Vec<(i32, u32)> = got.iter().map(|s| (s.offset, s.length)).collect();
        let mut at = 0;
        let counts: Vec<i64> = deltas
            .iter()
            .map(|d| {
                at += d;
                at
            })
            .collect();
        assert_eq!((got.as_slice(), counts.as_slice()), (spans, absolute));
    }

    #[test]
    fn runs_of_buckets() {
        check(&[], 3, 0, &[], &[]);
        check(&[4, 3, 2], 0, 0, &[(1, 3)], &[4, 3, 2]);
        check(&[4], -5, 0, &[(-4, 1)], &[4]);
        check(&[1, 0, 0, 2], 0, 0, &[(1, 4)], &[1, 0, 0, 2]);
        check(&[1, 0, 0, 0, 2], 0, 0, &[(1, 1), (3, 1)], &[1, 2]);
        // Two, and four, buckets become one.
        check(&[1, 2, 3, 4], 0, 1, &[(1, 2)], &[3, 7]);
        check(&[1, 2, 3, 4], 1, 1, &[(1, 3)], &[1, 5, 4]);
        check(&[1, 2, 3, 4], -1, 2, &[(0, 2)], &[1, 9]);
        check(&[1, 2, 3, 4], -2, 31, &[(0, 2)], &[3, 7]);
        check(&[1, 2], i32::MAX, 0, &[(i32::MIN, 2)], &[1, 2]);
    }

    #[test]
    fn resolutions_and_their_limits() {
        let mut point = Point::new();
        point.positive.counts = vec![1; 4];
        (point.count, point.sum, point.scale) = (4, Some(1.5), 10);
        let h = exponential(&point, Temporality::Cumulative).expect("fine");
        assert_eq!((h.schema, h.count, h.sum, h.positive_buckets), (8, 4, 1.5, vec![4]));
        assert_eq!(h.counter_reset_hint, CounterResetHint::Unknown);
        point.scale = i32::MAX;
        assert!(exponential(&point, Temporality::Delta).is_ok());
        point.scale = -5;
        let e = exponential(&point, Temporality::Delta).expect_err("too coarse");
        assert_eq!(e, "cannot convert exponential to native histogram. Scale must be >= -4, was -5");
    }

    #[test]
    fn custom_buckets() {
        let mut point = Point::new();
        point.bucket_counts = vec![0, 0, 5, 0, 1];
        point.bounds = vec![1.0, 2.0, 3.0, 4.0];
        (point.count, point.sum) = (6, None);
        let h = custom(&point, Temporality::Delta);
        assert_eq!(h.positive_spans, [Span { offset: 2, length: 3 }]);
        assert_eq!((h.positive_buckets, h.custom_values), (vec![5, -5, 1], vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!((h.schema, h.counter_reset_hint), (-53, CounterResetHint::Gauge));
        point.bucket_counts = vec![0; 5];
        (point.count, point.flags) = (0, 1);
        let h = custom(&point, Temporality::Cumulative);
        assert!(h.positive_spans.is_empty() && model::is_stale_nan(h.sum));
        assert_eq!(h.count, STALE_NAN_BITS);
    }
}
