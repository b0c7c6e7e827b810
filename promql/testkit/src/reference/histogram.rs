//! Native histograms as plain maps, with the arithmetic written down anew from its description.
//!
//! Borrowed from `model`: the bounds of exponential buckets, which are a table, and the text of a histogram. A bucket that
//! is written out stays in the map even when it is empty, since equality looks at it.

use std::collections::BTreeMap;

use model::FloatHistogram;
use model::histogram::bounds::upper_bound;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};

/// Counts by bucket index.
pub(super) type Buckets = BTreeMap<i32, f64>;

#[derive(Clone, Debug, Default)]
pub(super) struct Hist {
    pub(super) hint: CounterResetHint,
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) zero_count: f64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) positive: Buckets,
    pub(super) negative: Buckets,
    pub(super) bounds: Vec<f64>,
}

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) count: f64,
}

/// Exponential and custom buckets do not go together.
#[derive(Debug)]
pub(super) struct Incompatible;

/// What an addition met on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Met {
    /// The hints contradict each other.
    pub(super) collision: bool,
    /// Custom bounds differed.
    pub(super) reconciled: bool,
}

/// Neumaier's step: the new sum and what it lacks.
pub(super) fn kahan(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    if t.is_infinite() {
        return (t, 0.0);
    }
    if sum.abs() >= inc.abs() { (t, c + ((sum - t) + inc)) } else { (t, c + ((inc - t) + sum)) }
}

fn from_spans(spans: &[Span], counts: &[f64]) -> Buckets {
    let (mut out, mut index, mut counts) = (Buckets::new(), 0, counts.iter());
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            out.insert(index, *counts.next().expect("spans fit the buckets"));
            index += 1;
        }
    }
    out
}

fn to_spans(buckets: &Buckets) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut next): (Vec<Span>, i32) = (Vec::new(), 0);
    for index in buckets.keys() {
        match spans.last_mut() {
            Some(s) if *index == next => s.length += 1,
            _ => spans.push(Span { offset: index - next, length: 1 }),
        }
        next = index + 1;
    }
    (spans, buckets.values().copied().collect())
}

impl Hist {
    pub(super) fn from_model(h: &FloatHistogram) -> Self {
        Self {
            hint: h.counter_reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count,
            count: h.count,
            sum: h.sum,
            positive: from_spans(&h.positive_spans, &h.positive_buckets),
            negative: from_spans(&h.negative_spans, &h.negative_buckets),
            bounds: h.custom_values.clone(),
        }
    }

    pub(super) fn to_model(&self) -> FloatHistogram {
        let (positive_spans, positive_buckets) = to_spans(&self.positive);
        let (negative_spans, negative_buckets) = to_spans(&self.negative);
        FloatHistogram {
            counter_reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values: self.bounds.clone(),
        }
    }

    pub(super) fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    fn bound(&self, index: i32) -> f64 {
        upper_bound(index, self.schema, &self.bounds)
    }

    fn positive_cell(&self, index: i32, count: f64) -> Cell {
        Cell { lower: self.bound(index - 1), upper: self.bound(index), count }
    }

    fn negative_cell(&self, index: i32, count: f64) -> Cell {
        Cell { lower: -self.bound(index), upper: -self.bound(index - 1), count }
    }

    /// Away from zero.
    pub(super) fn positive_cells(&self) -> Vec<Cell> {
        self.positive.iter().map(|(i, n)| self.positive_cell(*i, *n)).collect()
    }

    /// Away from zero.
    pub(super) fn negative_cells(&self) -> Vec<Cell> {
        self.negative.iter().map(|(i, n)| self.negative_cell(*i, *n)).collect()
    }

    pub(super) fn zero_cell(&self) -> Cell {
        Cell { lower: -self.zero_threshold, upper: self.zero_threshold, count: self.zero_count }
    }

    /// All buckets, rising; those that reach into the zero bucket are cut where it ends.
    pub(super) fn all_cells(&self) -> Vec<Cell> {
        let z = self.zero_threshold;
        let mut out = Vec::new();
        for mut c in self.negative_cells().into_iter().rev() {
            if c.upper < 0.0 && c.upper > -z {
                c.upper = -z;
            }
            out.push(c);
        }
        if self.zero_count > 0.0 {
            out.push(self.zero_cell());
        }
        for mut c in self.positive_cells() {
            if c.lower > 0.0 && c.lower < z {
                c.lower = z;
            } else if c.upper < 0.0 && c.upper > -z {
                c.upper = -z;
            }
            out.push(c);
        }
        out
    }

    /// Without empty buckets.
    pub(super) fn compact(mut self) -> Self {
        self.drop_empty();
        self
    }

    fn drop_empty(&mut self) {
        self.positive.retain(|_, n| *n != 0.0);
        self.negative.retain(|_, n| *n != 0.0);
    }

    pub(super) fn mul(mut self, factor: f64) -> Self {
        self.each(|v| v * factor);
        if factor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
        self
    }

    pub(super) fn div(mut self, divisor: f64) -> Self {
        if divisor == 0.0 {
            self.positive.clear();
            self.negative.clear();
        }
        self.each(|v| v / divisor);
        if divisor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
        self
    }

    fn each(&mut self, f: impl Fn(f64) -> f64) {
        for v in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            *v = f(*v);
        }
        self.positive.values_mut().chain(self.negative.values_mut()).for_each(|v| *v = f(*v));
    }

    pub(super) fn has_overflow(&self) -> bool {
        [self.zero_count, self.count, self.sum]
            .iter()
            .chain(self.positive.values())
            .chain(self.negative.values())
            .chain(&self.bounds)
            .any(|v| v.is_infinite())
    }

    /// As `==` and `changes` see it: to the bit, the hint aside.
    pub(super) fn equals(&self, o: &Self) -> bool {
        let same = |a: &Buckets, b: &Buckets| {
            a.len() == b.len() && a.iter().zip(b).all(|((i, x), (j, y))| i == j && x.to_bits() == y.to_bits())
        };
        self.schema == o.schema
            && self.count.to_bits() == o.count.to_bits()
            && self.sum.to_bits() == o.sum.to_bits()
            && (!self.is_custom() || self.bounds == o.bounds)
            && self.zero_threshold == o.zero_threshold
            && self.zero_count.to_bits() == o.zero_count.to_bits()
            && same(&self.positive, &o.positive)
            && same(&self.negative, &o.negative)
    }

    // === Sums ===

    pub(super) fn add(&mut self, other: &Self) -> Result<Met, Incompatible> {
        self.combine(other, 1.0)
    }

    pub(super) fn sub(&mut self, other: &Self) -> Result<Met, Incompatible> {
        self.combine(other, -1.0)
    }

    fn combine(&mut self, other: &Self, sign: f64) -> Result<Met, Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let collision = self.adjust_hint(other);
        if self.is_custom() {
            self.count += sign * other.count;
            self.sum += sign * other.sum;
            return Ok(Met { collision, reconciled: self.combine_custom(other, sign, &mut None) });
        }
        let (zero, _) = self.reconcile_zero(other, &mut None);
        self.zero_count += sign * zero;
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        let mut other = other.clone();
        let schema = self.schema.min(other.schema);
        self.reduce(schema);
        other.reduce(schema);
        for (mine, theirs) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            for (index, count) in above(theirs, schema, self.zero_threshold) {
                match mine.entry(index) {
                    std::collections::btree_map::Entry::Occupied(mut e) => *e.get_mut() += sign * count,
                    std::collections::btree_map::Entry::Vacant(e) => {
                        e.insert(sign * count);
                    }
                }
            }
        }
        Ok(Met { collision, reconciled: false })
    }

    /// What is known about resets after an addition. Tells of a contradiction.
    fn adjust_hint(&mut self, other: &Self) -> bool {
        use CounterResetHint::{Gauge, Unknown};
        match (self.hint, other.hint) {
            (a, b) if a == b => {}
            (Gauge, _) => {}
            (_, Gauge) => self.hint = Gauge,
            (Unknown, _) => {}
            (_, Unknown) => self.hint = Unknown,
            _ => {
                self.hint = Unknown;
                return true;
            }
        }
        false
    }

    /// Fewer, wider buckets.
    pub(super) fn reduce(&mut self, schema: i32) {
        if schema >= self.schema || self.is_custom() {
            return;
        }
        for side in [&mut self.positive, &mut self.negative] {
            let mut merged = Buckets::new();
            for (index, count) in side.iter() {
                let target = ((index - 1) >> (self.schema - schema)) + 1;
                merged.entry(target).and_modify(|n| *n += count).or_insert(*count);
            }
            *side = merged;
        }
        self.schema = schema;
    }

    /// Observations within `threshold` of zero, and the threshold, which grows where it would cut a bucket. `extra` is
    /// the part that summation lost.
    fn zero_count_for(&self, mut threshold: f64, extra: &Option<Hist>) -> (f64, f64, f64) {
        let mut c = extra.as_ref().map_or(0.0, |e| e.zero_count);
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold, c);
        }
        assert!(threshold > self.zero_threshold, "thresholds grow");
        'outer: loop {
            let mut zero = self.zero_count;
            for (index, count) in &self.positive {
                let cell = self.positive_cell(*index, *count);
                if cell.lower >= threshold {
                    break;
                }
                (zero, c) = kahan(*count, zero, c);
                if let Some(e) = extra {
                    (zero, c) = kahan(e.positive[index], zero, c);
                }
                if cell.upper > threshold {
                    if *count != 0.0 {
                        threshold = cell.upper;
                    }
                    break;
                }
            }
            for (index, count) in &self.negative {
                let cell = self.negative_cell(*index, *count);
                if cell.upper <= -threshold {
                    break;
                }
                (zero, c) = kahan(*count, zero, c);
                if let Some(e) = extra {
                    (zero, c) = kahan(e.negative[index], zero, c);
                }
                if cell.lower < -threshold {
                    if *count != 0.0 {
                        threshold = -cell.lower;
                        continue 'outer;
                    }
                    break;
                }
            }
            return (zero, threshold, c);
        }
    }

    /// Widens the zero bucket to that of `other`, or finds what `other` has within ours. Gives the count of `other`.
    fn reconcile_zero(&mut self, other: &Self, extra: &mut Option<Hist>) -> (f64, f64) {
        let (mut zero, mut threshold, mut c) = (other.zero_count, other.zero_threshold, 0.0);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (zero, threshold, c) = other.zero_count_for(self.zero_threshold, &None);
            }
            if threshold > self.zero_threshold {
                let (count, grown, lost) = self.zero_count_for(threshold, extra);
                (self.zero_count, self.zero_threshold) = (count, grown);
                if let Some(e) = extra {
                    e.zero_count = lost;
                }
                self.trim_zero(extra);
            }
        }
        (zero, c)
    }

    /// Drops the buckets that are within the zero bucket now.
    fn trim_zero(&mut self, extra: &mut Option<Hist>) {
        let (threshold, schema) = (self.zero_threshold, self.schema);
        // A bucket is within when it begins below the threshold.
        let within = |index: i32| upper_bound(index - 1, schema, &[]) < threshold;
        let keep = |n: f64, lost: f64| n != 0.0 || lost != 0.0;
        let mut lost = extra.take();
        for negative in [false, true] {
            let mine = if negative { &mut self.negative } else { &mut self.positive };
            let theirs = lost.as_mut().map(|e| if negative { &mut e.negative } else { &mut e.positive });
            let before = mine.clone();
            match theirs {
                None => mine.retain(|i, n| !within(*i) && *n != 0.0),
                Some(theirs) => {
                    mine.retain(|i, n| !within(*i) && keep(*n, theirs[i]));
                    theirs.retain(|i, n| !within(*i) && keep(before[i], *n));
                }
            }
        }
        *extra = lost;
    }

    // === Custom buckets ===

    /// Adds buckets with custom bounds; tells whether bounds differed.
    fn combine_custom(&mut self, other: &Self, sign: f64, extra: &mut Option<Hist>) -> bool {
        if self.bounds == other.bounds {
            for (index, count) in &other.positive {
                match extra {
                    None => {
                        self.positive
                            .entry(*index)
                            .and_modify(|n| *n += sign * count)
                            .or_insert(sign * count);
                    }
                    Some(e) => kahan_bucket(&mut self.positive, &mut e.positive, *index, *count, 0.0),
                }
            }
            return false;
        }
        let common: Vec<f64> = self.bounds.iter().copied().filter(|b| other.bounds.contains(b)).collect();
        let target = |bounds: &[f64], index: i32| {
            let bound = bounds.get(index as usize);
            bound.and_then(|b| common.iter().position(|c| c >= b)).unwrap_or(common.len()) as i32
        };
        let (mut sums, mut lost) = (Buckets::new(), Buckets::new());
        let mut put = |index: i32, count: f64| {
            let (s, c) = (sums.entry(index).or_default(), lost.entry(index).or_default());
            (*s, *c) = kahan(count, *s, *c);
        };
        for (index, count) in &self.positive {
            let index_there = target(&self.bounds, *index);
            put(index_there, *count);
            if let Some(e) = extra {
                put(index_there, e.positive[index]);
            }
        }
        for (index, count) in &other.positive {
            put(target(&other.bounds, *index), sign * count);
        }
        let empty: Vec<i32> =
            sums.iter().filter(|(i, s)| **s == 0.0 && lost[i] == 0.0).map(|(i, _)| *i).collect();
        for i in empty {
            sums.remove(&i);
            lost.remove(&i);
        }
        self.positive = sums;
        self.bounds.clone_from(&common);
        if let Some(e) = extra {
            e.positive = lost;
            e.bounds = common;
        }
        true
    }

    // === Compensated sums ===

    /// Adds `other`; what summation loses goes into `lost`, a histogram of the same layout.
    pub(super) fn kahan_add(&mut self, other: &Self, lost: &mut Option<Hist>) -> Result<Met, Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let collision = self.adjust_hint(other);
        if lost.is_none() {
            let mut zero = self.clone();
            zero.each(|_| 0.0);
            *lost = Some(zero);
        }
        let mut other_zero = None;
        if !self.is_custom() {
            other_zero = Some(self.reconcile_zero(other, lost));
        }
        let c = lost.as_mut().expect("made above");
        if let Some((zero, zero_lost)) = other_zero {
            (self.zero_count, c.zero_count) = kahan(zero, self.zero_count, c.zero_count);
            (self.zero_count, c.zero_count) = kahan(zero_lost, self.zero_count, c.zero_count);
        }
        (self.count, c.count) = kahan(other.count, self.count, c.count);
        (self.sum, c.sum) = kahan(other.sum, self.sum, c.sum);
        if self.is_custom() {
            return Ok(Met { collision, reconciled: self.combine_custom(other, 1.0, lost) });
        }
        let schema = self.schema.min(other.schema);
        let (theirs, theirs_lost) = kahan_reduce(other, None, schema);
        let (mine, mine_lost) = kahan_reduce(self, Some(c), schema);
        (self.positive, self.negative) = mine;
        (c.positive, c.negative) = mine_lost;
        for (index, count) in above(&theirs.0, schema, self.zero_threshold) {
            kahan_bucket(&mut self.positive, &mut c.positive, index, count, theirs_lost.0[&index]);
        }
        for (index, count) in above(&theirs.1, schema, self.zero_threshold) {
            kahan_bucket(&mut self.negative, &mut c.negative, index, count, theirs_lost.1[&index]);
        }
        self.schema = schema;
        (c.schema, c.zero_threshold) = (schema, self.zero_threshold);
        Ok(Met { collision, reconciled: false })
    }

    // === Resets ===

    /// Whether a counter began anew between `previous` and this one.
    pub(super) fn is_reset_after(&self, previous: &Self) -> bool {
        match self.hint {
            CounterResetHint::CounterReset => return true,
            CounterResetHint::NotCounterReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.is_custom() {
            if !previous.is_custom() {
                return true;
            }
            if self.bounds != previous.bounds {
                return self.custom_reset_after(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero, threshold, _) = previous.zero_count_for(self.zero_threshold, &None);
        if threshold != self.zero_threshold || self.zero_count < zero {
            return true;
        }
        let mut previous = previous.clone();
        if !self.is_custom() {
            previous.reduce(self.schema);
        }
        let fell = |now: &Buckets, then: &Buckets| {
            let now: Buckets = self.above_zero(now);
            self.above_zero(then).iter().any(|(i, n)| match now.get(i) {
                Some(m) => m < n,
                None => *n != 0.0,
            })
        };
        fell(&self.positive, &previous.positive) || fell(&self.negative, &previous.negative)
    }

    fn above_zero(&self, buckets: &Buckets) -> Buckets {
        if self.is_custom() {
            return buckets.clone();
        }
        above(buckets, self.schema, self.zero_threshold).collect()
    }

    fn custom_reset_after(&self, previous: &Self) -> bool {
        let below = |h: &Self, from: f64, to: f64| -> f64 {
            let cells = h.positive_cells();
            cells.iter().filter(|c| c.upper > from && c.upper <= to).map(|c| c.count).sum()
        };
        let mut from = f64::NEG_INFINITY;
        let common = self.bounds.iter().copied().filter(|b| previous.bounds.contains(b));
        for to in common.chain([f64::INFINITY]) {
            if below(self, from, to) < below(previous, from, to) {
                return true;
            }
            from = to;
        }
        false
    }
}

/// Buckets that do not end within the zero bucket.
fn above(buckets: &Buckets, schema: i32, threshold: f64) -> impl Iterator<Item = (i32, f64)> + '_ {
    buckets.iter().skip_while(move |(i, _)| upper_bound(**i, schema, &[]) <= threshold).map(|(i, n)| (*i, *n))
}

fn kahan_bucket(sums: &mut Buckets, lost: &mut Buckets, index: i32, count: f64, count_lost: f64) {
    let (Some(s), Some(c)) = (sums.get_mut(&index), lost.get_mut(&index)) else {
        sums.insert(index, count);
        lost.insert(index, count_lost);
        return;
    };
    (*s, *c) = kahan(count, *s, *c);
    if count_lost != 0.0 {
        (*s, *c) = kahan(count_lost, *s, *c);
    }
}

/// Both sides at a lower resolution, and what their sums lost.
fn kahan_reduce(h: &Hist, lost: Option<&Hist>, schema: i32) -> ((Buckets, Buckets), (Buckets, Buckets)) {
    let side = |counts: &Buckets, lost: Option<&Buckets>| {
        let (mut sums, mut rest) = (Buckets::new(), Buckets::new());
        for (index, count) in counts {
            let missing = lost.map_or(0.0, |l| l[index]);
            let target = if schema == h.schema { *index } else { ((index - 1) >> (h.schema - schema)) + 1 };
            match (sums.get_mut(&target), rest.get_mut(&target)) {
                (Some(s), Some(c)) => {
                    (*s, *c) = kahan(*count, *s, *c);
                    (*s, *c) = kahan(missing, *s, *c);
                }
                _ => {
                    sums.insert(target, *count);
                    rest.insert(target, missing);
                }
            }
        }
        (sums, rest)
    };
    let (positive, positive_lost) = side(&h.positive, lost.map(|l| &l.positive));
    let (negative, negative_lost) = side(&h.negative, lost.map(|l| &l.negative));
    ((positive, negative), (positive_lost, negative_lost))
}
