//! Quantiles and fractions, of lists of floats, classic histograms and native ones; trimming of native histograms.

use super::histogram::{Cell, Hist, kahan};

// === Lists ===

/// The quantile of some floats, interpolated between neighbours. NaN counts as the smallest.
pub(super) fn of_floats(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let mut values = values.to_vec();
    values.sort_by(|a, b| {
        b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
    });
    let n = values.len() as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

// === Classic histograms ===

/// An upper bound and the count of observations at or below it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Le {
    pub(super) upper: f64,
    pub(super) count: f64,
}

fn settle(buckets: &[Le]) -> Option<Vec<Le>> {
    let mut sorted = buckets.to_vec();
    sorted.sort_by(|a, b| a.upper.partial_cmp(&b.upper).unwrap_or(std::cmp::Ordering::Equal));
    if sorted.last()?.upper != f64::INFINITY {
        return None;
    }
    let mut out: Vec<Le> = Vec::new();
    for b in sorted {
        match out.last_mut() {
            Some(last) if last.upper == b.upper => last.count += b.count,
            _ => out.push(b),
        }
    }
    Some(out)
}

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

/// The quantile of a classic histogram, and whether counts had to be forced to rise.
pub(super) fn of_classic(q: f64, buckets: &[Le]) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    let Some(mut b) = settle(buckets) else { return (f64::NAN, false) };
    let mut forced = false;
    let mut previous = b[0].count;
    for bucket in &mut b[1..] {
        let count = bucket.count;
        if count == previous {
        } else if almost_equal(previous, count, 1e-12) {
            bucket.count = previous;
        } else if count < previous {
            bucket.count = previous;
            forced = true;
        } else {
            previous = count;
        }
    }
    let last = b.len() - 1;
    let observations = b[last].count;
    if b.len() < 2 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let at = binary_search(last, |i| b[i].count >= rank);
    if at == last {
        return (b[last - 1].upper, forced);
    }
    if at == 0 && b[0].upper <= 0.0 {
        return (b[0].upper, forced);
    }
    let (mut start, end, mut count) = (0.0, b[at].upper, b[at].count);
    if at > 0 {
        start = b[at - 1].upper;
        count -= b[at - 1].count;
        rank -= b[at - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The first of `0..n` for which `f` holds, halving; with NaNs in the way it matters how one searches.
pub(super) fn binary_search(n: usize, f: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = (low + high) / 2;
        if f(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The share of observations between two values.
pub(super) fn classic_fraction(lower: f64, upper: f64, buckets: &[Le]) -> f64 {
    let Some(buckets) = settle(buckets) else { return f64::NAN };
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
    let mut low = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for b in &buckets {
        let within = |v: f64| {
            if low == f64::NEG_INFINITY {
                b.count
            } else {
                rank + (b.count - rank) * (v - low) / (b.upper - low)
            }
        };
        for (value, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() {
                if low >= value {
                    *found = Some(rank);
                } else if low < value && b.upper > value {
                    *found = Some(within(value));
                }
            }
        }
        rank = b.count;
        low = b.upper;
    }
    let cut = |r: Option<f64>| match r {
        Some(r) if r > count => count,
        Some(r) => r,
        None => count,
    };
    (cut(upper_rank) - cut(lower_rank)) / count
}

// === Native histograms ===

/// What NaN observations did to a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NanEffect {
    None,
    Result,
    Skew,
}

pub(super) fn of_native(q: f64, h: &Hist) -> (f64, NanEffect) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, NanEffect::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, NanEffect::None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, NanEffect::None);
    }
    let forward = h.sum.is_nan() || q < 0.5;
    let mut cells = h.all_cells();
    if !forward {
        cells.reverse();
    }
    let mut rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    let mut bucket = Cell { lower: 0.0, upper: 0.0, count: 0.0 };
    let mut count = 0.0;
    let mut rest = cells.into_iter();
    for c in rest.by_ref() {
        bucket = c;
        if c.count == 0.0 {
            continue;
        }
        count += c.count;
        if count >= rank {
            break;
        }
    }
    if !h.is_custom() && bucket.lower < 0.0 && bucket.upper > 0.0 {
        if h.negative.is_empty() && !h.positive.is_empty() {
            bucket.lower = 0.0;
        } else if h.positive.is_empty() && !h.negative.is_empty() {
            bucket.upper = 0.0;
        }
    } else if h.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, NanEffect::None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, NanEffect::None);
        }
    }
    if count > h.count {
        count = h.count;
    }
    if count < rank {
        if h.sum.is_nan() {
            return (f64::NAN, NanEffect::Result);
        }
        return (bucket.upper, NanEffect::None);
    }
    if forward {
        rank -= count - bucket.count;
    } else {
        rank = count - rank;
    }
    let mut effect = NanEffect::None;
    // The bucket is looked at again below, as the last one then.
    if h.sum.is_nan() {
        for c in rest {
            bucket = c;
            count += c.count;
        }
        if count < h.count {
            effect = NanEffect::Skew;
        }
    }
    let fraction = rank / bucket.count;
    if h.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * fraction, effect);
    }
    let (low, high) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        return ((low + (high - low) * fraction).exp2(), effect);
    }
    (-(high + (low - high) * (1.0 - fraction)).exp2(), effect)
}

/// The share of a bucket at or below a value inside of it.
fn fraction_below(c: Cell, v: f64, linear: bool) -> f64 {
    if linear {
        return (v - c.lower) / (c.upper - c.lower);
    }
    let (low, high, at) = (c.lower.abs().log2(), c.upper.abs().log2(), v.abs().log2());
    if v > 0.0 { (at - low) / (high - low) } else { 1.0 - ((at - high) / (low - high)) }
}

/// The share of observations between two values, and whether there are NaNs among them.
pub(super) fn native_fraction(lower: f64, upper: f64, h: &Hist) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let (mut count, mut rank) = (0.0, 0.0);
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut rest = h.all_cells().into_iter();
    for mut b in rest.by_ref() {
        count += b.count;
        let mut zero = false;
        if b.lower <= 0.0 && b.upper >= 0.0 {
            zero = true;
            if h.negative.is_empty() && !h.positive.is_empty() {
                b.lower = 0.0;
            } else if h.positive.is_empty() && !h.negative.is_empty() {
                b.upper = 0.0;
            }
        }
        let within = |v: f64| {
            if h.is_custom() || zero {
                if b.lower == f64::NEG_INFINITY {
                    return b.count;
                }
                return rank + b.count * fraction_below(b, v, true);
            }
            rank + b.count * fraction_below(b, v, false)
        };
        for (value, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() {
                if b.lower >= value {
                    *found = Some(rank);
                } else if b.lower < value && b.upper > value {
                    *found = Some(within(value));
                }
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += b.count;
    }
    let mut nans = false;
    if h.sum.is_nan() {
        rest.for_each(|c| count += c.count);
        nans = count < h.count;
    } else {
        count = h.count;
    }
    let cut = |r: Option<f64>| match r {
        Some(r) if r > count => count,
        Some(r) => r,
        None => count,
    };
    ((cut(upper_rank) - cut(lower_rank)) / h.count, nans)
}

pub(super) fn native_variance(h: &Hist) -> f64 {
    let mean = h.sum / h.count;
    let (mut variance, mut c) = (0.0, 0.0);
    for b in h.all_cells() {
        if b.count == 0.0 {
            continue;
        }
        let value = if h.is_custom() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            let v = (b.upper * b.lower).sqrt();
            if b.upper < 0.0 { -v } else { v }
        };
        let delta = value - mean;
        (variance, c) = kahan(b.count * delta * delta, variance, c);
    }
    (variance + c) / h.count
}

// === Trimming ===

/// The part of a histogram below (`upper`) or above a value.
pub(super) fn trim(h: &Hist, at: f64, upper: bool) -> Hist {
    let mut out = h.clone();
    let (mut count, mut sum, mut trimmed) = (0.0, 0.0, false);
    let mut has = [false, false];
    for negative in [false, true] {
        let cells = if negative { h.negative_cells() } else { h.positive_cells() };
        let side = if negative { &mut out.negative } else { &mut out.positive };
        for (kept, cell) in side.values_mut().zip(cells) {
            if cell.count == 0.0 {
                continue;
            }
            has[usize::from(negative)] = true;
            let (all, part) =
                if upper { (cell.upper <= at, cell.lower < at) } else { (cell.lower >= at, cell.upper > at) };
            if all {
                count += cell.count;
                sum += midpoint(cell.lower, cell.upper, !negative, h.is_custom()) * cell.count;
            } else if part {
                let (keep, middle) = trim_cell(cell, at, upper, !negative, h.is_custom());
                count += keep;
                sum += middle * keep;
                if *kept != keep {
                    *kept = keep;
                    trimmed = true;
                }
            } else {
                *kept = 0.0;
                trimmed = true;
            }
        }
    }
    if h.zero_count > 0.0 {
        let (keep, middle) = trim_zero(h.zero_cell(), at, has, upper);
        if h.zero_count != keep {
            out.zero_count = keep;
            trimmed = true;
        }
        sum += middle * keep;
        count += keep;
    }
    if trimmed {
        (out.count, out.sum) = (count, sum);
        out = out.compact();
    }
    out
}

fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    if lower.is_infinite() {
        return match upper {
            u if u.is_infinite() => 0.0,
            u if u > 0.0 => u / 2.0,
            u => u,
        };
    }
    if upper.is_infinite() {
        return lower;
    }
    if linear {
        return (lower + upper) / 2.0;
    }
    let mean = (lower * upper).abs().sqrt();
    if positive { mean } else { -mean }
}

fn trim_cell(c: Cell, at: f64, upper: bool, positive: bool, custom: bool) -> (f64, f64) {
    if c.lower == f64::NEG_INFINITY || c.upper == f64::INFINITY {
        return trim_endless(c, at, upper);
    }
    let under = if at <= c.lower {
        0.0
    } else if at >= c.upper {
        c.count
    } else {
        c.count * fraction_below(c, at, custom)
    };
    if upper {
        (under, midpoint(c.lower, at, positive, custom))
    } else {
        (c.count - under, midpoint(at, c.upper, positive, custom))
    }
}

fn trim_endless(c: Cell, at: f64, upper: bool) -> (f64, f64) {
    let finite = |x: f64| if x.is_infinite() { 0.0 } else { x };
    if c.lower == f64::NEG_INFINITY {
        if upper {
            if at >= c.upper {
                return (c.count, 0.0);
            }
            if at > 0.0 && c.upper > 0.0 && c.upper != f64::INFINITY {
                return (c.count * at / c.upper, at / 2.0);
            }
            if c.upper <= 0.0 {
                return (c.count, at);
            }
            return (0.0, finite(c.upper));
        }
        if at <= c.lower {
            return (c.count, 0.0);
        }
        if at >= 0.0 && c.upper > at && c.upper != f64::INFINITY {
            return (c.count * (1.0 - at / c.upper), (at + c.upper) / 2.0);
        }
        return (0.0, finite(c.upper));
    }
    if upper {
        return (0.0, finite(c.lower));
    }
    if at >= c.lower { (c.count, at) } else { (0.0, finite(c.lower)) }
}

fn trim_zero(c: Cell, at: f64, [has_positive, has_negative]: [bool; 2], upper: bool) -> (f64, f64) {
    let high = if has_negative && !has_positive { 0.0 } else { c.upper };
    let low = if has_positive && !has_negative { 0.0 } else { c.lower };
    if upper {
        if at <= low {
            return (0.0, 0.0);
        }
        if at >= high {
            return (c.count, (low + high) / 2.0);
        }
        return (c.count * ((at - low) / (high - low)), (low + at) / 2.0);
    }
    if at <= low {
        return (c.count, (low + high) / 2.0);
    }
    if at >= high {
        return (0.0, 0.0);
    }
    (c.count * ((high - at) / (high - low)), (at + high) / 2.0)
}
