//! Random native histograms, one after the other as a series has them.

use std::collections::BTreeMap;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{FloatHistogram, Histogram, HistogramValue, stale_nan};

use super::Profile;
use super::data::special;
use super::rng::Rng;

/// Which buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Exponential,
    Custom,
}

/// The state of one series.
pub(super) struct HistogramSource {
    layout: Layout,
    counter: bool,
    float: bool,
    extreme: bool,
    hints: bool,
    schema: i32,
    zero_threshold: f64,
    bounds: &'static [f64],
    zero: u64,
    positive: BTreeMap<i32, u64>,
    negative: BTreeMap<i32, u64>,
    sum: f64,
    max_empty: i32,
}

const BOUNDS: [&[f64]; 4] = [&[1.0, 2.0, 5.0, 10.0], &[1.0, 5.0, 10.0], &[-2.0, 0.0, 3.0], &[0.5]];

impl HistogramSource {
    pub(super) fn new(rng: &mut Rng, profile: &Profile, layout: Layout, counter: bool) -> Self {
        Self {
            layout,
            counter,
            float: rng.chance(40),
            extreme: profile.extreme_values,
            hints: rng.chance(20),
            schema: rng.pick(&[0, 0, 1, 2, 3, -1, -4, 8]),
            zero_threshold: rng.pick(&[0.0, 0.001, 0.001, 0.5, 1.0]),
            bounds: BOUNDS[rng.below(2) as usize],
            zero: 0,
            positive: BTreeMap::new(),
            negative: BTreeMap::new(),
            sum: 0.0,
            max_empty: rng.between(0, 2) as i32,
        }
    }

    /// The next sample, and whether counting began anew before it. A stale one ends the series.
    pub(super) fn next(&mut self, rng: &mut Rng, stale: bool) -> (HistogramValue, bool) {
        let reset = !self.counter || rng.chance(5);
        if reset {
            self.zero = 0;
            self.sum = 0.0;
            self.positive.clear();
            self.negative.clear();
        }
        if rng.chance(4) {
            self.change_layout(rng);
        }
        for _ in 0..rng.between(0, 6) {
            self.observe(rng);
        }
        if stale {
            let marker = FloatHistogram { sum: stale_nan(), ..FloatHistogram::default() };
            return (marker.into(), reset);
        }
        (self.value(rng, reset), reset)
    }

    /// Buckets are dropped with it: another layout begins anew.
    fn change_layout(&mut self, rng: &mut Rng) {
        match self.layout {
            Layout::Exponential if rng.chance(50) => {
                self.zero_threshold = rng.pick(&[0.0, 0.001, 0.25, 1.0, 3.0]);
            }
            Layout::Exponential => {
                self.schema = rng.between(-2, 4) as i32;
                self.positive.clear();
                self.negative.clear();
            }
            Layout::Custom => {
                self.bounds = rng.pick(&BOUNDS);
                let len = self.bounds.len() as i32;
                self.positive.retain(|i, _| *i <= len);
            }
        }
    }

    fn observe(&mut self, rng: &mut Rng) {
        let n = rng.below(4) + 1;
        self.sum += rng.between(-20, 100) as f64 / 4.0 * n as f64;
        match self.layout {
            Layout::Custom => {
                let index = rng.between(0, self.bounds.len() as i64) as i32;
                *self.positive.entry(index).or_default() += n;
            }
            Layout::Exponential => {
                let index = if rng.chance(90) { rng.between(-3, 6) } else { rng.between(-20, 40) } as i32;
                match rng.below(6) {
                    0 => self.zero += n,
                    1 => *self.negative.entry(index).or_default() += n,
                    _ => *self.positive.entry(index).or_default() += n,
                }
            }
        }
    }

    fn value(&mut self, rng: &mut Rng, reset: bool) -> HistogramValue {
        let hint = match rng.below(4) {
            _ if !self.counter && rng.chance(90) => CounterResetHint::Gauge,
            0 if self.hints && reset => CounterResetHint::CounterReset,
            1 if self.hints && !reset => CounterResetHint::NotCounterReset,
            2 if self.hints && rng.chance(10) => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        };
        let (positive_spans, positive) = spans(&self.positive, self.max_empty);
        let (negative_spans, negative) = spans(&self.negative, self.max_empty);
        let count = self.zero + positive.iter().sum::<u64>() + negative.iter().sum::<u64>();
        let custom = self.layout == Layout::Custom;
        let odd = self.extreme && rng.chance(3);
        let sum = if odd { special(rng) } else { self.sum };
        // Observed NaNs are counted and are in no bucket.
        let count = if odd && sum.is_nan() && !custom { count + rng.below(3) } else { count };
        let schema = if custom { CUSTOM_BUCKETS_SCHEMA } else { self.schema };
        let zero_threshold = if custom { 0.0 } else { self.zero_threshold };
        let custom_values = if custom { self.bounds.to_vec() } else { Vec::new() };
        if !self.float {
            return Histogram {
                counter_reset_hint: hint,
                schema,
                zero_threshold,
                zero_count: self.zero,
                count,
                sum,
                positive_spans,
                positive_buckets: deltas(&positive),
                negative_spans,
                negative_buckets: deltas(&negative),
                custom_values,
            }
            .into();
        }
        // Quarters, so that sums are exact.
        let float = |n: &u64| *n as f64 * 0.25;
        FloatHistogram {
            counter_reset_hint: hint,
            schema,
            zero_threshold,
            zero_count: float(&self.zero),
            count: float(&count),
            sum,
            positive_spans,
            positive_buckets: positive.iter().map(float).collect(),
            negative_spans,
            negative_buckets: negative.iter().map(float).collect(),
            custom_values,
        }
        .into()
    }
}

/// Spans and counts of some buckets; up to `max_empty` empty ones between two are written out.
fn spans(buckets: &BTreeMap<i32, u64>, max_empty: i32) -> (Vec<Span>, Vec<u64>) {
    let (mut spans, mut counts): (Vec<Span>, Vec<u64>) = (Vec::new(), Vec::new());
    let mut next = 0;
    for (index, count) in buckets {
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if gap <= max_empty => {
                span.length += gap as u32 + 1;
                counts.extend(std::iter::repeat_n(0, gap as usize));
            }
            _ => spans.push(Span { offset: gap, length: 1 }),
        }
        counts.push(*count);
        next = index + 1;
    }
    (spans, counts)
}

fn deltas(counts: &[u64]) -> Vec<i64> {
    let mut previous = 0;
    counts.iter().map(|c| *c as i64 - std::mem::replace(&mut previous, *c as i64)).collect()
}
