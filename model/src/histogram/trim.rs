//! Cutting observations off a histogram above or below a value: the operators `</` and `>/`.
//!
//! A bucket that holds the value is divided by interpolation: linear in custom buckets and the zero bucket, exponential in
//! the others. The sum is estimated anew, each bucket counting with its midpoint, as soon as anything is cut off.

use super::FloatHistogram;
use super::buckets::Bucket;

/// Which observations stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those up to the value: `</`.
    Below,
    /// Those from the value on: `>/`.
    Above,
}

/// What stays of a bucket: its count, and the value it counts with in the sum.
type Part = (f64, f64);

impl Bucket {
    /// Share of the bucket at or below `v`, which is within its finite bounds.
    #[must_use]
    pub fn fraction_below(&self, v: f64, linear: bool) -> f64 {
        if linear {
            return (v - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper, v_log) = (self.lower.abs().log2(), self.upper.abs().log2(), v.abs().log2());
        if v > 0.0 { (v_log - lower) / (upper - lower) } else { 1.0 - (v_log - upper) / (lower - upper) }
    }
}

impl FloatHistogram {
    /// Cuts off the observations on one side of `at`.
    pub fn trim(&mut self, at: f64, keep: Keep) {
        let cut = Cut { at, keep, linear: self.uses_custom_buckets() };
        let positive = cut.side(self.positive(), true);
        let negative = cut.side(self.negative(), false);
        let mut total = Total::default();
        let mut changed = total.apply(&mut self.positive_buckets, &positive);
        changed |= total.apply(&mut self.negative_buckets, &negative);
        if self.zero_count > 0.0 {
            let populated = |parts: &[Option<Part>]| parts.iter().any(Option::is_some);
            let (count, value) = cut.zero(self.zero_bucket(), populated(&negative), populated(&positive));
            changed |= count != self.zero_count;
            self.zero_count = count;
            total.add((count, value));
        }
        if changed {
            self.count = total.count;
            self.sum = total.sum;
            self.compact(0);
        }
    }
}

#[derive(Default)]
struct Total {
    count: f64,
    sum: f64,
}

impl Total {
    fn add(&mut self, (count, value): Part) {
        self.count += count;
        self.sum += value * count;
    }

    /// Stores what stays of each bucket; empty ones have no part. Returns whether anything changed.
    fn apply(&mut self, buckets: &mut [f64], parts: &[Option<Part>]) -> bool {
        let mut changed = false;
        for (bucket, part) in buckets.iter_mut().zip(parts) {
            if let Some(part) = part {
                changed |= *bucket != part.0;
                *bucket = part.0;
                self.add(*part);
            }
        }
        changed
    }
}

struct Cut {
    at: f64,
    keep: Keep,
    linear: bool,
}

impl Cut {
    fn side(&self, buckets: impl Iterator<Item = Bucket>, positive: bool) -> Vec<Option<Part>> {
        buckets.map(|b| (b.count != 0.0).then(|| self.bucket(&b, positive))).collect()
    }

    fn bucket(&self, b: &Bucket, positive: bool) -> Part {
        let (whole, part) = match self.keep {
            Keep::Below => (b.upper <= self.at, b.lower < self.at),
            Keep::Above => (b.lower >= self.at, b.upper > self.at),
        };
        if whole {
            return (b.count, midpoint(b.lower, b.upper, positive, self.linear));
        }
        if !part {
            return (0.0, 0.0);
        }
        if b.lower == f64::NEG_INFINITY {
            return self.lowest_bucket(b);
        }
        if b.upper == f64::INFINITY {
            return self.highest_bucket(b);
        }
        let below = if self.at <= b.lower {
            0.0
        } else if self.at >= b.upper {
            b.count
        } else {
            b.count * b.fraction_below(self.at, self.linear)
        };
        match self.keep {
            Keep::Below => (below, midpoint(b.lower, self.at, positive, self.linear)),
            Keep::Above => (b.count - below, midpoint(self.at, b.upper, positive, self.linear)),
        }
    }

    /// A bucket that begins at `-Inf`. With a positive upper bound, which only custom buckets have, it is taken to begin
    /// at zero; otherwise nothing is known of how its observations lie.
    fn lowest_bucket(&self, b: &Bucket) -> Part {
        let interpolate = b.upper > 0.0 && b.upper.is_finite();
        match self.keep {
            Keep::Below if self.at >= b.upper => (b.count, 0.0),
            Keep::Below if self.at > 0.0 && interpolate => (b.count * self.at / b.upper, self.at / 2.0),
            Keep::Below if b.upper <= 0.0 => (b.count, self.at),
            Keep::Above if self.at <= b.lower => (b.count, 0.0),
            Keep::Above if self.at >= 0.0 && b.upper > self.at && interpolate => {
                (b.count * (1.0 - self.at / b.upper), (self.at + b.upper) / 2.0)
            }
            _ => (0.0, 0.0),
        }
    }

    /// A bucket that ends at `+Inf`: kept or dropped as a whole.
    fn highest_bucket(&self, b: &Bucket) -> Part {
        if self.keep == Keep::Above && self.at >= b.lower { (b.count, self.at) } else { (0.0, 0.0) }
    }

    /// The zero bucket reaches only to the sides that have observations.
    fn zero(&self, b: Bucket, has_negative: bool, has_positive: bool) -> Part {
        let lower = if has_positive && !has_negative { 0.0 } else { b.lower };
        let upper = if has_negative && !has_positive { 0.0 } else { b.upper };
        let whole = (b.count, (lower + upper) / 2.0);
        let width = upper - lower;
        match self.keep {
            Keep::Below if self.at <= lower => (0.0, 0.0),
            Keep::Below if self.at >= upper => whole,
            Keep::Below => (b.count * ((self.at - lower) / width), (lower + self.at) / 2.0),
            Keep::Above if self.at <= lower => whole,
            Keep::Above if self.at >= upper => (0.0, 0.0),
            Keep::Above => (b.count * ((upper - self.at) / width), (self.at + upper) / 2.0),
        }
    }
}

/// The value that stands for the observations between two bounds.
fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        _ if linear => (lower + upper) / 2.0,
        _ => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
