//! Quantiles and fractions of classic histograms, those made of `le` buckets.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile>,
//! <https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_fraction>.

use std::cmp::Ordering;

/// A bucket: its upper bound and how many observations are at or below it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LeBucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// What had to be bent so that counts rise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced {
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    pub(crate) max_diff: f64,
}

/// Differences between neighbouring buckets below this share are rounding errors.
const SMALL_DELTA_TOLERANCE: f64 = 1e-12;

/// The quantile, interpolated within a bucket as if observations were spread evenly. `buckets` are left as they were
/// mended: sorted, each at least as full as the one before. Those that were merged leave gaps, in which the next quantile
/// of the same buckets finds what lay there.
pub(crate) fn bucket_quantile(q: f64, buckets: &mut [LeBucket]) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    sort(buckets);
    if !ends_at_infinity(buckets) {
        return (f64::NAN, None);
    }
    let merged = coalesce(buckets);
    let buckets = &mut buckets[..merged];
    let forced = ensure_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if buckets.len() < 2 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    // Not `<`: a NaN count leads the bisection astray as it does in Prometheus.
    let b = bisect(last, |i| buckets[i].count >= rank);
    if b == last {
        return (buckets[last - 1].upper, forced);
    }
    if b == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, forced);
    }
    let (mut start, end, mut count) = (0.0, buckets[b].upper, buckets[b].count);
    if b > 0 {
        start = buckets[b - 1].upper;
        count -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The first of `n` places that fits, found by bisection: where not all behind one that fits do, the steps decide.
fn bisect(n: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low.midpoint(high);
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The share of observations between two values. `buckets` are changed.
pub(crate) fn bucket_fraction(lower: f64, upper: f64, buckets: &mut [LeBucket]) -> f64 {
    sort(buckets);
    if !ends_at_infinity(buckets) {
        return f64::NAN;
    }
    let merged = coalesce(buckets);
    let buckets = &buckets[..merged];
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank_of = |value: f64| {
        let mut low = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
        let mut rank = 0.0;
        for b in buckets.iter() {
            if low >= value {
                return rank;
            }
            if b.upper > value {
                // An endless bucket cannot be cut: none of it counts.
                if low == f64::NEG_INFINITY {
                    return b.count;
                }
                return rank + (b.count - rank) * (value - low) / (b.upper - low);
            }
            rank = b.count;
            low = b.upper;
        }
        count
    };
    // A NaN stays one.
    let rank_of = |value| match rank_of(value) {
        rank if rank > count => count,
        rank => rank,
    };
    (rank_of(upper) - rank_of(lower)) / count
}

fn ends_at_infinity(buckets: &[LeBucket]) -> bool {
    buckets.last().is_some_and(|b| b.upper == f64::INFINITY)
}

fn sort(buckets: &mut [LeBucket]) {
    buckets.sort_by(|a, b| a.upper.partial_cmp(&b.upper).unwrap_or(Ordering::Equal));
}

/// Adds up buckets with the same bound, towards the front; tells how many are left.
fn coalesce(buckets: &mut [LeBucket]) -> usize {
    let mut kept = 0;
    for i in 1..buckets.len() {
        if buckets[i].upper == buckets[kept].upper {
            buckets[kept].count += buckets[i].count;
        } else {
            kept += 1;
            buckets[kept] = buckets[i];
        }
    }
    kept + 1
}

/// Lifts every count to at least the one before.
fn ensure_monotonic(buckets: &mut [LeBucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut prev = buckets[0].count;
    for b in &mut buckets[1..] {
        let count = b.count;
        if count == prev {
            continue;
        }
        if almost_equal(prev, count, SMALL_DELTA_TOLERANCE) {
            b.count = prev;
            continue;
        }
        if count < prev {
            b.count = prev;
            let f = forced.get_or_insert(Forced {
                min_bucket: f64::INFINITY,
                max_bucket: f64::NEG_INFINITY,
                max_diff: 0.0,
            });
            f.min_bucket = f.min_bucket.min(b.upper);
            f.max_bucket = f.max_bucket.max(b.upper);
            f.max_diff = f.max_diff.max(prev - count);
            continue;
        }
        prev = count;
    }
    forced
}

/// Equal but for a share `epsilon` of their sum; NaNs are equal.
fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let diff = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < epsilon * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < epsilon
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<LeBucket> {
        pairs.iter().map(|(upper, count)| LeBucket { upper: *upper, count: *count }).collect()
    }

    #[test]
    fn interpolates_and_forces_monotonicity() {
        let inf = f64::INFINITY;
        assert_eq!(bucket_quantile(0.5, &mut buckets(&[(1.0, 2.0), (2.0, 4.0), (inf, 4.0)])), (1.0, None));
        let (q, forced) = bucket_quantile(0.9, &mut buckets(&[(1.0, 5.0), (2.0, 3.0), (inf, 10.0)]));
        assert_eq!(q, 2.0);
        assert_eq!(forced, Some(Forced { min_bucket: 2.0, max_bucket: 2.0, max_diff: 2.0 }));
        assert!(bucket_quantile(0.5, &mut buckets(&[(1.0, 2.0)])).0.is_nan());
        let gap = [(1.0, 8.0), (2.0, f64::NAN), (3.0, 9.0), (inf, 10.0)];
        assert!(bucket_quantile(0.5, &mut buckets(&gap)).0.is_nan());
        assert_eq!(bucket_fraction(0.0, 1.0, &mut buckets(&[(1.0, 2.0), (2.0, 4.0), (inf, 4.0)])), 0.5);
    }
}
