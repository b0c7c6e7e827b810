//! Functions and operators of native histograms. Arithmetic itself is in `model::histogram`.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_count-and-histogram_sum> and the
//! sections about the other `histogram_` functions; <https://prometheus.io/docs/specs/native_histograms/#promql>.

use model::FloatHistogram;
use model::histogram::CounterResetHint;
use model::histogram::{AddOutcome, Bucket, HistogramError, Keep};

use super::elementary::{exp2, log2};
use super::kahan;
use crate::annotations::Note;

/// A function of one histogram, by name.
pub(crate) fn of_histogram(name: &str) -> Option<fn(&FloatHistogram) -> f64> {
    Some(match name {
        "histogram_count" => |h| h.count,
        "histogram_sum" => |h| h.sum,
        "histogram_avg" => |h| h.sum / h.count,
        "histogram_stdvar" => variance,
        "histogram_stddev" => |h| variance(h).sqrt(),
        _ => return None,
    })
}

fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut sum, mut c) = (0.0, 0.0);
    for b in h.all_buckets().filter(|b| b.count != 0.0) {
        let middle = if h.uses_custom_buckets() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            let geometric = (b.upper * b.lower).sqrt();
            if b.upper < 0.0 { -geometric } else { geometric }
        };
        let delta = middle - mean;
        (sum, c) = kahan::add(b.count * delta * delta, sum, c);
    }
    (sum + c) / h.count
}

pub(crate) fn scaled(h: &FloatHistogram, factor: f64) -> FloatHistogram {
    let mut h = h.clone();
    h.mul(factor);
    h.compact(0);
    h
}

pub(crate) fn divided(h: &FloatHistogram, divisor: f64) -> FloatHistogram {
    let mut h = h.clone();
    h.div(divisor);
    h.compact(0);
    h
}

/// Observations up to `at` (`below`), or from `at` on.
pub(crate) fn trimmed(h: &FloatHistogram, at: f64, below: bool) -> FloatHistogram {
    let mut h = h.clone();
    h.trim(at, if below { Keep::Below } else { Keep::Above });
    h
}

/// What to tell about a sum or difference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) collision: bool,
    pub(crate) reconciled: bool,
}

impl From<AddOutcome> for Outcome {
    fn from(o: AddOutcome) -> Self {
        Self { collision: o.counter_reset_collision, reconciled: o.bounds_reconciled }
    }
}

/// `a + b`; `None` when their schemas do not fit.
pub(crate) fn sum(a: &FloatHistogram, b: &FloatHistogram) -> Option<(FloatHistogram, Outcome)> {
    let mut h = a.clone();
    let outcome = h.add(b).ok()?;
    h.compact(0);
    Some((h, outcome.into()))
}

/// `a - b`, a gauge; `None` when their schemas do not fit.
pub(crate) fn difference(a: &FloatHistogram, b: &FloatHistogram) -> Option<(FloatHistogram, Outcome)> {
    let mut h = a.clone();
    let outcome = h.sub(b).ok()?;
    h.counter_reset_hint = CounterResetHint::Gauge;
    h.compact(0);
    Some((h, outcome.into()))
}

/// Whether two histograms hold the same, whatever is known about resets. Both are compact.
pub(crate) fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let bits = |x: f64, y: f64| x.to_bits() == y.to_bits();
    let all = |x: &[f64], y: &[f64]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| bits(*x, *y));
    a.schema == b.schema
        && bits(a.count, b.count)
        && bits(a.sum, b.sum)
        && (!a.uses_custom_buckets() || a.has_bounds_of(b))
        && a.zero_threshold == b.zero_threshold
        && bits(a.zero_count, b.zero_count)
        && same_spans(&a.negative_spans, &b.negative_spans)
        && same_spans(&a.positive_spans, &b.positive_spans)
        && all(&a.negative_buckets, &b.negative_buckets)
        && all(&a.positive_buckets, &b.positive_buckets)
}

/// Whether the spans cover the same indexes, however they are cut.
fn same_spans(a: &[model::histogram::Span], b: &[model::histogram::Span]) -> bool {
    let normal = |spans: &[model::histogram::Span]| {
        let mut out: Vec<(i64, u64)> = Vec::new();
        let mut at = 0_i64;
        for s in spans {
            at += i64::from(s.offset);
            if s.length == 0 {
                continue;
            }
            match out.last_mut() {
                Some((start, len)) if *start + *len as i64 == at => *len += u64::from(s.length),
                _ => out.push((at, u64::from(s.length))),
            }
            at += i64::from(s.length);
        }
        out
    };
    a == b || normal(a) == normal(b)
}

/// Whether a sum, count or bucket is infinite.
fn overflows(h: &FloatHistogram) -> bool {
    [h.zero_count, h.count, h.sum].iter().any(|v| v.is_infinite())
        || h.positive_buckets.iter().chain(&h.negative_buckets).any(|v| v.is_infinite())
}

/// A sum or mean of histograms that is still growing, with compensation. A mean is a sum as long as that is finite, and
/// incremental from there on.
#[derive(Clone, Debug)]
pub(crate) struct Accumulated {
    value: FloatHistogram,
    c: Option<FloatHistogram>,
    count: f64,
    is_mean: bool,
    incremental: bool,
}

impl Accumulated {
    pub(crate) fn new(first: &FloatHistogram, is_mean: bool) -> Self {
        Self { value: first.clone(), c: None, count: 1.0, is_mean, incremental: false }
    }

    /// Adds a histogram; tells whether custom bounds differed.
    pub(crate) fn add(&mut self, h: &FloatHistogram) -> Result<bool, HistogramError> {
        self.count += 1.0;
        if !self.is_mean {
            return Ok(self.value.kahan_add(h, &mut self.c)?.bounds_reconciled);
        }
        if !self.incremental {
            let (mut value, mut c) = (self.value.clone(), self.c.clone());
            let outcome = value.kahan_add(h, &mut c)?;
            if !overflows(&value) {
                (self.value, self.c) = (value, c);
                return Ok(outcome.bounds_reconciled);
            }
            self.incremental = true;
            self.value.div(self.count - 1.0);
            if let Some(c) = &mut self.c {
                c.div(self.count - 1.0);
            }
        }
        let q = (self.count - 1.0) / self.count;
        if let Some(c) = &mut self.c {
            c.mul(q);
        }
        self.value.mul(q);
        let mut part = h.clone();
        part.div(self.count);
        Ok(self.value.kahan_add(&part, &mut self.c)?.bounds_reconciled)
    }

    /// The outcome; `None` when it cannot be made.
    pub(crate) fn finish(self) -> Option<FloatHistogram> {
        let mut h = self.finish_uncompacted()?;
        h.compact(0);
        Some(h)
    }

    /// The outcome with the buckets that the parts had.
    pub(crate) fn finish_uncompacted(mut self) -> Option<FloatHistogram> {
        if self.is_mean && !self.incremental {
            self.value.div(self.count);
            if let Some(c) = &mut self.c {
                c.div(self.count);
            }
        }
        if let Some(c) = &self.c {
            self.value.add(c).ok()?;
        }
        Some(self.value)
    }
}

/// The quantile of a native histogram, and what to tell about it.
pub(crate) fn quantile<'n>(q: f64, h: &FloatHistogram, name: &'n str) -> (f64, Option<Note<'n>>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    // NaN observations count but are in no bucket: only from below is the rank known.
    let has_nan_sum = h.sum.is_nan();
    let forward = has_nan_sum || q < 0.5;
    if forward {
        let mut buckets = h.all_buckets();
        quantile_in(&mut buckets, q * h.count, true, h, name)
    } else {
        let mut buckets = h.all_buckets().rev();
        quantile_in(&mut buckets, (1.0 - q) * h.count, false, h, name)
    }
}

fn quantile_in<'n>(
    buckets: &mut dyn Iterator<Item = Bucket>,
    mut rank: f64,
    forward: bool,
    h: &FloatHistogram,
    name: &'n str,
) -> (f64, Option<Note<'n>>) {
    let mut count = 0.0;
    let mut found: Option<Bucket> = None;
    for b in &mut *buckets {
        found = Some(b);
        if b.count == 0.0 {
            continue;
        }
        count += b.count;
        if count >= rank {
            break;
        }
    }
    // No bucket at all, when every observation is NaN, is as good as an empty one at zero.
    let mut bucket = found.unwrap_or(Bucket {
        lower: 0.0,
        upper: 0.0,
        lower_inclusive: true,
        upper_inclusive: true,
        count: 0.0,
        index: 0,
    });
    if h.uses_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, None);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        narrow_zero_bucket(&mut bucket, h);
    }
    count = count.min(h.count);
    if count < rank {
        if h.sum.is_nan() {
            return (f64::NAN, Some(Note::QuantileNanResult(name)));
        }
        return (bucket.upper, None);
    }
    rank = if forward { rank - (count - bucket.count) } else { count - rank };
    let mut note = None;
    if h.sum.is_nan() {
        // The quantile is looked for in the last bucket then, with the rank in the one that was found.
        for b in buckets {
            count += b.count;
            bucket = b;
        }
        if count < h.count {
            note = Some(Note::QuantileNanSkew(name));
        }
    }
    let fraction = rank / bucket.count;
    (interpolate(&bucket, fraction, h.uses_custom_buckets()), note)
}

/// Linear in custom buckets and around zero, exponential elsewhere.
fn interpolate(b: &Bucket, fraction: f64, custom: bool) -> f64 {
    if custom || (b.lower <= 0.0 && b.upper >= 0.0) {
        return b.lower + (b.upper - b.lower) * fraction;
    }
    let (lower, upper) = (log2(b.lower.abs()), log2(b.upper.abs()));
    if b.lower > 0.0 {
        exp2(lower + (upper - lower) * fraction)
    } else {
        -exp2(upper + (lower - upper) * (1.0 - fraction))
    }
}

/// A histogram with buckets on one side only has its zero bucket on that side.
fn narrow_zero_bucket(b: &mut Bucket, h: &FloatHistogram) {
    match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
        (true, false) => b.lower = 0.0,
        (false, true) => b.upper = 0.0,
        _ => {}
    }
}

/// The share of observations between two values, and what to tell about it.
pub(crate) fn fraction<'n>(
    lower: f64,
    upper: f64,
    h: &FloatHistogram,
    name: &'n str,
) -> (f64, Option<Note<'n>>) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let (mut count, mut rank) = (0.0, 0.0);
    let (mut lower_rank, mut upper_rank): (Option<f64>, Option<f64>) = (None, None);
    let mut buckets = h.all_buckets();
    for mut b in &mut buckets {
        count += b.count;
        let around_zero = b.lower <= 0.0 && b.upper >= 0.0;
        if around_zero {
            narrow_zero_bucket(&mut b, h);
        }
        let linear = h.uses_custom_buckets() || around_zero;
        let rank_at = |v: f64| {
            // An endless bucket cannot be cut: none of it counts.
            if linear && b.lower == f64::NEG_INFINITY {
                b.count
            } else {
                rank + b.count * b.fraction_below(v, linear)
            }
        };
        let find = |v: f64, found: &mut Option<f64>| {
            if found.is_none() && b.lower >= v {
                *found = Some(rank);
            }
        };
        find(lower, &mut lower_rank);
        find(upper, &mut upper_rank);
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        for (v, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && b.lower < v && b.upper > v {
                *found = Some(rank_at(v));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += b.count;
    }
    let mut note = None;
    if h.sum.is_nan() {
        // One after the other: the last bit decides below.
        count = buckets.fold(count, |count, b| count + b.count);
        if count < h.count {
            note = Some(Note::FractionNans(name));
        }
    } else {
        count = h.count;
    }
    // A NaN stays one.
    let capped = |r: Option<f64>| match r {
        Some(rank) if rank > count => count,
        Some(rank) => rank,
        None => count,
    };
    ((capped(upper_rank) - capped(lower_rank)) / h.count, note)
}
