//! Adding, subtracting and scaling float histograms.
//!
//! Two histograms are brought to a common form first: the wider zero bucket, the lower schema, or the custom bounds that
//! both have. Bucket layouts of results may hold empty buckets; [`FloatHistogram::compact`] drops them.

use super::bounds::upper_bound;
use super::buckets::{Cells, SideBuilder};
use super::error::HistogramError;
use super::kahan::kahan_inc;
use super::layout::{kahan_merged, merged};
use super::{CounterResetHint, FloatHistogram, Span};

/// What a reader should know about a sum or difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddOutcome {
    /// One side is known to follow a counter reset, the other not to.
    pub counter_reset_collision: bool,
    /// The custom bounds differed; the result has those that both have.
    pub bounds_reconciled: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Plus,
    Minus,
}

impl Sign {
    fn of(self, v: f64) -> f64 {
        if self == Self::Plus { v } else { -v }
    }
}

impl FloatHistogram {
    /// Multiplies all counts and the sum. A negative factor makes it a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.each_value(|v| v * factor);
        if factor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum. A negative divisor makes it a gauge; zero leaves no buckets.
    pub fn div(&mut self, divisor: f64) {
        self.each_value(|v| v / divisor);
        if divisor == 0.0 {
            self.positive_spans.clear();
            self.positive_buckets.clear();
            self.negative_spans.clear();
            self.negative_buckets.clear();
        } else if divisor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    fn each_value(&mut self, f: impl Fn(f64) -> f64) {
        for v in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            *v = f(*v);
        }
        self.positive_buckets.iter_mut().chain(&mut self.negative_buckets).for_each(|v| *v = f(*v));
    }

    /// Adds `other`.
    ///
    /// # Errors
    /// When one has custom buckets and the other has not; `self` is then as it was.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<AddOutcome, HistogramError> {
        self.combine(other, Sign::Plus)
    }

    /// Subtracts `other`. The counter reset hint is set as for a sum; the `-` operator of PromQL makes it a gauge
    /// afterwards.
    ///
    /// # Errors
    /// When one has custom buckets and the other has not; `self` is then as it was.
    pub fn sub(&mut self, other: &FloatHistogram) -> Result<AddOutcome, HistogramError> {
        self.combine(other, Sign::Minus)
    }

    fn combine(&mut self, other: &FloatHistogram, sign: Sign) -> Result<AddOutcome, HistogramError> {
        let mut outcome = self.prepare(other)?;
        self.count += sign.of(other.count);
        self.sum += sign.of(other.sum);
        if self.uses_custom_buckets() {
            if self.has_bounds_of(other) {
                let b = Side::positive(other);
                add_side(&mut self.positive_spans, &mut self.positive_buckets, b, None, sign);
            } else {
                outcome.bounds_reconciled = true;
                self.add_with_other_bounds(other, None, sign);
            }
            return Ok(outcome);
        }
        let theirs = self.reconcile_zero_buckets(other, None);
        self.zero_count += sign.of(theirs.count);
        if other.schema < self.schema {
            self.reduce_resolution(other.schema)?;
        }
        let limit = Some((self.schema, self.zero_threshold));
        for (positive, spans, buckets) in [
            (true, &mut self.positive_spans, &mut self.positive_buckets),
            (false, &mut self.negative_spans, &mut self.negative_buckets),
        ] {
            let side = if positive { Side::positive(other) } else { Side::negative(other) };
            if other.schema > self.schema {
                let (s, b) = merged(side.spans, side.buckets, other.schema, self.schema);
                add_side(spans, buckets, Side { spans: &s, buckets: &b }, limit, sign);
            } else {
                add_side(spans, buckets, side, limit, sign);
            }
        }
        Ok(outcome)
    }

    /// Adds `other` with compensation: `c`, made when it is `None`, holds what rounding lost, in the same layout as
    /// `self`. The true sum is `self + c`.
    ///
    /// # Errors
    /// When one has custom buckets and the other has not; nothing has changed then.
    pub fn kahan_add(
        &mut self,
        other: &FloatHistogram,
        c: &mut Option<FloatHistogram>,
    ) -> Result<AddOutcome, HistogramError> {
        let mut outcome = self.prepare(other)?;
        let c = c.get_or_insert_with(|| self.no_compensation());
        (self.count, c.count) = kahan_inc(other.count, self.count, c.count);
        (self.sum, c.sum) = kahan_inc(other.sum, self.sum, c.sum);
        if self.uses_custom_buckets() {
            if self.has_bounds_of(other) {
                let (spans, buckets) = (&mut self.positive_spans, &mut self.positive_buckets);
                kahan_add_side(spans, buckets, &mut c.positive_buckets, Side::positive(other), &[], None);
            } else {
                outcome.bounds_reconciled = true;
                self.add_with_other_bounds(other, Some(c), Sign::Plus);
            }
        } else {
            self.kahan_add_exponential(other, c);
        }
        c.schema = self.schema;
        c.zero_threshold = self.zero_threshold;
        c.positive_spans.clone_from(&self.positive_spans);
        c.negative_spans.clone_from(&self.negative_spans);
        c.custom_values.clone_from(&self.custom_values);
        Ok(outcome)
    }

    fn kahan_add_exponential(&mut self, other: &FloatHistogram, c: &mut FloatHistogram) {
        let theirs = self.reconcile_zero_buckets(other, Some(c));
        (self.zero_count, c.zero_count) = kahan_inc(theirs.count, self.zero_count, c.zero_count);
        (self.zero_count, c.zero_count) = kahan_inc(theirs.compensation, self.zero_count, c.zero_count);
        if other.schema < self.schema {
            for (spans, buckets, c) in [
                (&mut self.positive_spans, &mut self.positive_buckets, &mut c.positive_buckets),
                (&mut self.negative_spans, &mut self.negative_buckets, &mut c.negative_buckets),
            ] {
                (*spans, *buckets, *c) = kahan_merged(spans, buckets, c, self.schema, other.schema);
            }
            self.schema = other.schema;
        }
        let limit = Some((self.schema, self.zero_threshold));
        for (positive, spans, buckets, c) in [
            (true, &mut self.positive_spans, &mut self.positive_buckets, &mut c.positive_buckets),
            (false, &mut self.negative_spans, &mut self.negative_buckets, &mut c.negative_buckets),
        ] {
            let side = if positive { Side::positive(other) } else { Side::negative(other) };
            if other.schema > self.schema {
                let (s, b, lost) = kahan_merged(side.spans, side.buckets, &[], other.schema, self.schema);
                kahan_add_side(spans, buckets, c, Side { spans: &s, buckets: &b }, &lost, limit);
            } else {
                kahan_add_side(spans, buckets, c, side, &[], limit);
            }
        }
    }

    /// A compensation of nothing for this histogram.
    fn no_compensation(&self) -> FloatHistogram {
        FloatHistogram {
            schema: self.schema,
            counter_reset_hint: self.counter_reset_hint,
            zero_threshold: self.zero_threshold,
            custom_values: self.custom_values.clone(),
            positive_spans: self.positive_spans.clone(),
            positive_buckets: vec![0.0; self.positive_buckets.len()],
            negative_spans: self.negative_spans.clone(),
            negative_buckets: vec![0.0; self.negative_buckets.len()],
            ..Self::default()
        }
    }

    /// Whether the custom bounds are the same numbers.
    #[must_use]
    pub fn has_bounds_of(&self, other: &FloatHistogram) -> bool {
        self.custom_values == other.custom_values
    }

    /// Checks that the two go together, and settles the counter reset hint.
    fn prepare(&mut self, other: &FloatHistogram) -> Result<AddOutcome, HistogramError> {
        use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(HistogramError::IncompatibleSchemas);
        }
        let mut outcome = AddOutcome::default();
        self.counter_reset_hint = match (self.counter_reset_hint, other.counter_reset_hint) {
            (a, b) if a == b => a,
            (Gauge, _) | (_, Gauge) => Gauge,
            (CounterReset, NotCounterReset) | (NotCounterReset, CounterReset) => {
                outcome.counter_reset_collision = true;
                Unknown
            }
            _ => Unknown,
        };
        Ok(outcome)
    }

    // === Custom buckets with different bounds ===

    fn add_with_other_bounds(&mut self, other: &FloatHistogram, c: Option<&mut FloatHistogram>, sign: Sign) {
        let bounds = common_bounds(&self.custom_values, &other.custom_values);
        let mut sums = vec![(0.0, 0.0); bounds.len() + 1];
        let mut put = |h: &FloatHistogram, values: &[f64], sign: Sign| {
            for (target, value) in targets(h, &bounds).zip(values) {
                if let Some((sum, lost)) = sums.get_mut(target) {
                    (*sum, *lost) = kahan_inc(sign.of(*value), *sum, *lost);
                }
            }
        };
        put(self, &self.positive_buckets, Sign::Plus);
        if let Some(c) = &c {
            put(self, &c.positive_buckets, Sign::Plus);
        }
        put(other, &other.positive_buckets, sign);
        let mut out = SideBuilder::with_capacity(sums.len());
        let mut compensations = Vec::new();
        for (i, (sum, lost)) in sums.into_iter().enumerate() {
            if sum != 0.0 || lost != 0.0 {
                out.push(i as i32, sum);
                compensations.push(lost);
            }
        }
        (self.positive_spans, self.positive_buckets) = (out.spans, out.buckets);
        self.custom_values = bounds;
        if let Some(c) = c {
            c.positive_buckets = compensations;
        }
    }
}

/// The bounds that are in both, which are sorted.
pub(super) fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x == y {
            out.push(*x);
            i += 1;
            j += 1;
        } else if x < y {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

/// For each positive bucket of a histogram with custom buckets, the bucket it falls into with fewer bounds.
pub(super) fn targets<'a>(h: &'a FloatHistogram, bounds: &'a [f64]) -> impl Iterator<Item = usize> + 'a {
    h.positive_cells().map(move |(index, _)| {
        let upper = upper_bound(index, h.schema, &h.custom_values);
        bounds.partition_point(|b| *b < upper)
    })
}

// === Sides ===

#[derive(Clone, Copy)]
struct Side<'a> {
    spans: &'a [Span],
    buckets: &'a [f64],
}

impl<'a> Side<'a> {
    fn positive(h: &'a FloatHistogram) -> Self {
        Self { spans: &h.positive_spans, buckets: &h.positive_buckets }
    }

    fn negative(h: &'a FloatHistogram) -> Self {
        Self { spans: &h.negative_spans, buckets: &h.negative_buckets }
    }

    /// The cells that do not lie within the zero bucket, each with its compensation. `limit` is the schema and the zero
    /// threshold.
    fn outside(
        self,
        lost: &'a [f64],
        limit: Option<(i32, f64)>,
    ) -> impl Iterator<Item = (i32, (f64, f64))> + 'a {
        let within = move |index: i32| match limit {
            Some((schema, threshold)) if threshold > 0.0 => upper_bound(index, schema, &[]) <= threshold,
            _ => false,
        };
        Cells::new(self.spans, self.buckets)
            .enumerate()
            .map(|(i, (index, count))| (index, (count, lost.get(i).copied().unwrap_or(0.0))))
            .skip_while(move |(index, _)| within(*index))
    }

    /// Whether it can be added bucket by bucket to a side with these spans.
    fn fits(self, spans: &[Span], buckets: &[f64], limit: Option<(i32, f64)>) -> bool {
        limit.is_none_or(|(_, threshold)| threshold == 0.0)
            && *spans == *self.spans
            && buckets.len() == self.buckets.len()
    }
}

/// Adds side `b`. Same layouts, the common case, are added in place.
fn add_side(
    spans: &mut Vec<Span>,
    buckets: &mut Vec<f64>,
    b: Side<'_>,
    limit: Option<(i32, f64)>,
    sign: Sign,
) {
    if b.fits(spans, buckets, limit) {
        buckets.iter_mut().zip(b.buckets).for_each(|(a, b)| *a += sign.of(*b));
        return;
    }
    let mut out = SideBuilder::with_capacity(buckets.len().max(b.buckets.len()));
    merge(Cells::new(spans, buckets), b.outside(&[], limit), |index, a, b| {
        out.push(index, a.unwrap_or(0.0) + b.map_or(0.0, |(b, _)| sign.of(b)));
    });
    (*spans, *buckets) = (out.spans, out.buckets);
}

/// Adds side `b` with its compensations `lost` to a side with compensations `c`, which go with the buckets.
fn kahan_add_side(
    spans: &mut Vec<Span>,
    buckets: &mut Vec<f64>,
    c: &mut Vec<f64>,
    b: Side<'_>,
    lost: &[f64],
    limit: Option<(i32, f64)>,
) {
    if b.fits(spans, buckets, limit) && lost.is_empty() && c.len() == buckets.len() {
        for ((a, c), b) in buckets.iter_mut().zip(c.iter_mut()).zip(b.buckets) {
            (*a, *c) = kahan_inc(*b, *a, *c);
        }
        return;
    }
    let mut out = SideBuilder::with_capacity(buckets.len().max(b.buckets.len()));
    let mut out_c = Vec::with_capacity(c.len());
    let mut old_c = c.iter();
    merge(Cells::new(spans, buckets), b.outside(lost, limit), |index, a, b| {
        let (sum, compensation) = match (a, b) {
            (None, None) => return,
            (None, Some(b)) => b,
            (Some(a), b) => {
                let mut sum = (a, old_c.next().copied().unwrap_or(0.0));
                if let Some((b, lost)) = b {
                    sum = kahan_inc(b, sum.0, sum.1);
                    sum = kahan_inc(lost, sum.0, sum.1);
                }
                sum
            }
        };
        out.push(index, sum);
        out_c.push(compensation);
    });
    (*spans, *buckets) = (out.spans, out.buckets);
    *c = out_c;
}

/// Walks two sides in rising order of indexes.
fn merge<A, B>(
    a: impl Iterator<Item = (i32, A)>,
    b: impl Iterator<Item = (i32, B)>,
    mut visit: impl FnMut(i32, Option<A>, Option<B>),
) {
    let mut b = b.peekable();
    for (index, count) in a {
        while let Some((i, c)) = b.next_if(|(i, _)| *i < index) {
            visit(i, None, Some(c));
        }
        let same = b.next_if(|(i, _)| *i == index).map(|(_, c)| c);
        visit(index, Some(count), same);
    }
    b.for_each(|(i, c)| visit(i, None, Some(c)));
}
