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

/// The first and the last of at least two samples.
pub(crate) struct Ends {
    pub(crate) samples: usize,
    pub(crate) first: f64,
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

/// Carries growth between samples on to the bounds of their window, window after window.
pub(crate) struct Extrapolation {
    is_counter: bool,
    range_ms: i64,
    per_second: Option<f64>,
    layout: Layout,
}

impl Extrapolation {
    pub(crate) fn new(kind: Kind, range_ms: i64) -> Self {
        let per_second = (kind == Kind::Rate).then_some(range_ms as f64 / 1000.0);
        Self { is_counter: kind.is_counter(), range_ms, per_second, layout: Layout::default() }
    }

    /// What growth from the first to the last sample is over the whole window that ends at `end_ms`.
    #[inline]
    pub(crate) fn carry_on(&mut self, ends: &Ends, growth: f64, end_ms: i64) -> f64 {
        let (before, after) = (ends.first_ms - (end_ms - self.range_ms), end_ms - ends.last_ms);
        let sampled = ends.last_ms - ends.first_ms;
        let layout = &mut self.layout;
        if (layout.samples, layout.before_ms, layout.after_ms, layout.sampled_ms)
            != (ends.samples, before, after, sampled)
        {
            *layout = Layout::new(ends.samples, before, after, sampled, self.per_second);
        }
        let factor = match self.is_counter {
            true => layout.counter_factor(ends.first, growth, self.per_second),
            false => layout.factor,
        };
        growth * factor
    }
}

fn extrapolated(s: &Steps<'_>, cells: &mut [f64], kind: Kind) {
    let c = s.columns;
    let resets: &[usize] = if kind.is_counter() { &c.resets } else { &[] };
    let mut extrapolation = Extrapolation::new(kind, s.range_ms);
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
        let (first_ms, last_ms) = (c.float_ts[lo], c.float_ts[hi - 1]);
        let ends = Ends { samples: hi - lo, first, first_ms, last_ms };
        cells[b.step] = clean(extrapolation.carry_on(&ends, growth, b.end_ms));
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
