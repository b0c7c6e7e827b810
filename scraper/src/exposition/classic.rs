//! A native histogram with custom buckets, made from the samples of a classic one.
//!
//! Invariants: bounds rise strictly and counts never fall; what breaks that makes the conversion fail, not the bucket be
//! guessed. An integer histogram comes out when all counts are whole numbers.
//!
//! Spec: <https://prometheus.io/docs/specs/native_histograms/#scrape-configuration>.

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::{FloatHistogram, Histogram, HistogramValue};

use super::value::format_g;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper_bound: f64,
    count: f64,
}

/// Collects a classic histogram, in any order. Used again for the next one, with its memory.
#[derive(Debug, Default)]
pub(super) struct ClassicHistogram {
    buckets: Vec<Bucket>,
    count: Option<f64>,
    sum: f64,
    error: Option<String>,
}

impl ClassicHistogram {
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
        self.count = None;
        self.sum = 0.0;
        self.error = None;
    }

    /// Adds a cumulative bucket. The first of equal bounds counts.
    pub(super) fn set_bucket(&mut self, upper_bound: f64, count: f64) {
        if self.error.is_some() {
            return;
        }
        self.error = self.try_set_bucket(upper_bound, count).err();
    }

    fn try_set_bucket(&mut self, upper_bound: f64, count: f64) -> Result<(), String> {
        if upper_bound.is_nan() {
            return Err("bucket boundary must not be NaN".into());
        }
        if count < 0.0 {
            let (le, count) = (format_g(upper_bound), format_g(count));
            return Err(format!("bucket count must be non-negative: le={le}, count={count}"));
        }
        // Nearly always the bound is the highest so far.
        let at = match self.buckets.last() {
            Some(last) if upper_bound <= last.upper_bound => {
                self.buckets.partition_point(|b| b.upper_bound < upper_bound)
            }
            _ => self.buckets.len(),
        };
        if self.buckets.get(at).is_some_and(|b| b.upper_bound == upper_bound) {
            return Ok(());
        }
        let not_cumulative = |sign: &str, other: f64| {
            Err(format!("count is not cumulative: {} {sign} {}", format_g(count), format_g(other)))
        };
        if at > 0 && count < self.buckets[at - 1].count {
            return not_cumulative("<", self.buckets[at - 1].count);
        }
        if let Some(next) = self.buckets.get(at)
            && count > next.count
        {
            return not_cumulative(">", next.count);
        }
        self.buckets.insert(at, Bucket { upper_bound, count });
        Ok(())
    }

    pub(super) fn set_count(&mut self, count: f64) {
        if self.error.is_none() && count < 0.0 {
            self.error = Some(format!("count must be non-negative: count={}", format_g(count)));
        }
        self.count = Some(count);
    }

    pub(super) fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The histogram.
    ///
    /// # Errors
    /// Why what was collected is none.
    pub(super) fn convert(&mut self) -> Result<HistogramValue, String> {
        if let Some(e) = self.error.take() {
            return Err(e);
        }
        let highest = self.buckets.last().map_or(0.0, |b| b.count);
        let count = self.count.unwrap_or(highest);
        if self.buckets.last().is_none_or(|b| b.upper_bound != f64::INFINITY) {
            self.buckets.push(Bucket { upper_bound: f64::INFINITY, count });
        }
        let last = self.buckets.last().map_or(count, |b| b.count);
        // A NaN is no whole number and differs from itself.
        if count != last {
            let (count, last) = (format_g(count), format_g(last));
            return Err(format!("count mismatch: count={count} != le=+Inf count={last}"));
        }
        let whole = |v: f64| v.trunc() == v && v.abs() < 9.2e18;
        let custom_values: Vec<f64> =
            self.buckets[..self.buckets.len() - 1].iter().map(|b| b.upper_bound).collect();
        let positive_spans = vec![Span { offset: 0, length: self.buckets.len() as u32 }];
        if self.buckets.iter().all(|b| whole(b.count)) {
            let (mut before, mut delta_before) = (0_i64, 0_i64);
            let positive_buckets = self.buckets.iter().map(|b| {
                let delta = (b.count as i64).wrapping_sub(before);
                before = b.count as i64;
                delta.wrapping_sub(std::mem::replace(&mut delta_before, delta))
            });
            let mut h = Histogram {
                schema: CUSTOM_BUCKETS_SCHEMA,
                count: count as u64,
                sum: self.sum,
                positive_buckets: positive_buckets.collect(),
                positive_spans,
                custom_values,
                ..Histogram::default()
            };
            h.compact(2);
            return Ok(h.into());
        }
        let mut before = 0.0;
        let positive_buckets = self.buckets.iter().map(|b| b.count - std::mem::replace(&mut before, b.count));
        let mut h = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_buckets: positive_buckets.collect(),
            positive_spans,
            custom_values,
            ..FloatHistogram::default()
        };
        h.compact(0);
        Ok(h.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(buckets: &[(f64, f64)], count: Option<f64>) -> Result<HistogramValue, String> {
        let mut h = ClassicHistogram::default();
        buckets.iter().for_each(|(le, n)| h.set_bucket(*le, *n));
        if let Some(count) = count {
            h.set_count(count);
        }
        h.set_sum(7.5);
        h.convert()
    }

    #[test]
    fn whole_counts_make_an_integer_histogram() {
        let inf = f64::INFINITY;
        let in_order = convert(&[(1.0, 2.0), (2.0, 2.0), (5.0, 6.0), (inf, 7.0)], Some(7.0));
        let any_order = convert(&[(5.0, 6.0), (1.0, 2.0), (inf, 7.0), (2.0, 2.0), (5.0, 9.0)], None);
        let expected = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 7,
            sum: 7.5,
            positive_spans: vec![Span { offset: 0, length: 4 }],
            positive_buckets: vec![2, -2, 4, -3],
            custom_values: vec![1.0, 2.0, 5.0],
            ..Histogram::default()
        };
        assert_eq!(in_order, Ok(expected.into()));
        assert_eq!(any_order, in_order);
    }

    #[test]
    fn a_missing_last_bucket_is_the_count() {
        let Ok(HistogramValue::Float(h)) = convert(&[(1.0, 0.5)], Some(2.0)) else {
            panic!("a float histogram")
        };
        assert_eq!((h.positive_buckets.clone(), h.custom_values.clone()), (vec![0.5, 1.5], vec![1.0]));
        let Ok(HistogramValue::Int(h)) = convert(&[], Some(3.0)) else { panic!("an integer histogram") };
        assert_eq!((h.positive_buckets.clone(), h.count), (vec![3], 3));
    }

    #[test]
    fn contradictions_are_named() {
        for (buckets, count, error) in [
            (&[(1.0, 3.0), (2.0, 2.0)][..], None, "count is not cumulative: 2 < 3"),
            (&[(2.0, 2.0), (1.0, 3.0)], None, "count is not cumulative: 3 > 2"),
            (&[(1.0, -1.0)], None, "bucket count must be non-negative: le=1, count=-1"),
            (&[(f64::NAN, 1.0)], None, "bucket boundary must not be NaN"),
            (&[(f64::INFINITY, 1.0)], Some(2.0), "count mismatch: count=2 != le=+Inf count=1"),
            (&[], Some(-2.0), "count must be non-negative: count=-2"),
        ] {
            assert_eq!(convert(buckets, count), Err(error.to_owned()));
        }
    }
}
