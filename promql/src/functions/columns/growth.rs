//! `rate`, `increase`, `delta`, `irate`, `idelta`.
//!
//! Scrapes come at even intervals, and so do steps: the distances between the ends of a window and its samples repeat. What
//! follows from them is kept from step to step, which leaves one multiplication for most windows.

use crate::exec::batch::clean;
use crate::functions::rate::Kind;
use crate::functions::window::{Env, Steps};

pub(crate) fn rate(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    extrapolated(s, cells, Kind::Rate);
}

pub(crate) fn increase(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    extrapolated(s, cells, Kind::Increase);
}

pub(crate) fn delta(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    extrapolated(s, cells, Kind::Delta);
}

/// How the samples lie in a window, and what follows from that.
#[derive(Default)]
struct Layout {
    samples: usize,
    /// From the start of the window to the first sample, from the last sample to the end, between both.
    before_ms: i64,
    after_ms: i64,
    sampled_ms: i64,
    sampled: f64,
    /// How far the growth is carried on to the start and to the end.
    to_start: f64,
    to_end: f64,
    /// What growth is multiplied with when nothing else stops it before the start.
    factor: f64,
}

impl Layout {
    fn new(samples: usize, before_ms: i64, after_ms: i64, sampled_ms: i64, per_second: Option<f64>) -> Self {
        let mut to_start = before_ms as f64 / 1000.0;
        let mut to_end = after_ms as f64 / 1000.0;
        let sampled = sampled_ms as f64 / 1000.0;
        let average_gap = sampled / (samples - 1) as f64;
        let threshold = average_gap * 1.1;
        if to_start >= threshold {
            to_start = average_gap / 2.0;
        }
        if to_end >= threshold {
            to_end = average_gap / 2.0;
        }
        let mut layout =
            Self { samples, before_ms, after_ms, sampled_ms, sampled, to_start, to_end, factor: 0.0 };
        layout.factor = layout.factor(to_start, per_second);
        layout
    }

    #[inline]
    fn factor(&self, to_start: f64, per_second: Option<f64>) -> f64 {
        let mut factor =
            if self.sampled == 0.0 { 1.0 } else { (self.sampled + to_start + self.to_end) / self.sampled };
        if let Some(seconds) = per_second {
            factor /= seconds;
        }
        factor
    }

    /// The factor for a counter that grew so much from its first value: it was zero once, and not below.
    #[inline]
    fn counter_factor(&self, first: f64, growth: f64, per_second: Option<f64>) -> f64 {
        // Not so near that rounding counts: the counter was zero long before the start.
        let (zero, start) = (first * self.sampled, growth * self.to_start);
        if zero > start * 1.000_001 && start > 1e-290 {
            return self.factor;
        }
        if growth > 0.0 && first >= 0.0 {
            let to_zero = self.sampled * (first / growth);
            if to_zero < self.to_start {
                return self.factor(to_zero, per_second);
            }
        }
        self.factor
    }
}

fn extrapolated(s: &Steps<'_>, cells: &mut [f64], kind: Kind) {
    let c = s.columns;
    let resets: &[usize] = if kind.is_counter() { &c.resets } else { &[] };
    let per_second = (kind == Kind::Rate).then_some(s.range_ms as f64 / 1000.0);
    let mut layout = Layout::default();
    let mut reset = 0;
    for b in s.bounds {
        let (lo, hi) = b.floats;
        if hi - lo < 2 {
            continue;
        }
        let (first, last) = (c.floats[lo], c.floats[hi - 1]);
        let mut growth = last - first;
        while reset < resets.len() && resets[reset] <= lo {
            reset += 1;
        }
        for r in resets[reset..].iter().take_while(|r| **r < hi) {
            growth += c.floats[r - 1];
        }
        let (first_ts, last_ts) = (c.float_ts[lo], c.float_ts[hi - 1]);
        let (before, after) = (first_ts - (b.end_ms - s.range_ms), b.end_ms - last_ts);
        let sampled = last_ts - first_ts;
        if (layout.samples, layout.before_ms, layout.after_ms, layout.sampled_ms)
            != (hi - lo, before, after, sampled)
        {
            layout = Layout::new(hi - lo, before, after, sampled, per_second);
        }
        let factor = match kind.is_counter() {
            true => layout.counter_factor(first, growth, per_second),
            false => layout.factor,
        };
        cells[b.step] = clean(growth * factor);
    }
}

pub(crate) fn irate(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    last_two(s, cells, |prev, last, seconds| (if last < prev { last } else { last - prev }) / seconds);
}

pub(crate) fn idelta(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    last_two(s, cells, |prev, last, _| last - prev);
}

#[inline]
fn last_two(s: &Steps<'_>, cells: &mut [f64], f: impl Fn(f64, f64, f64) -> f64) {
    let c = s.columns;
    for b in s.bounds {
        let (lo, hi) = b.floats;
        if hi - lo < 2 {
            continue;
        }
        let seconds = (c.float_ts[hi - 1] - c.float_ts[hi - 2]) as f64 / 1000.0;
        if seconds != 0.0 {
            cells[b.step] = clean(f(c.floats[hi - 2], c.floats[hi - 1], seconds));
        }
    }
}
