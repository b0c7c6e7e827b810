//! Window functions over many steps at once, for series of floats: the plain case, which nearly all series are. Each gives
//! what its twin for one window gives, bit for bit; the tests compare them.
//!
//! Functions that look at ends only are in [`growth`], those that add up in [`sums`]. Where a sum is compensated the order
//! of additions is part of the outcome: windows are added up anew, but several side by side.

mod growth;
mod sums;
#[cfg(test)]
mod tests;

pub(crate) use growth::{Ends, Extrapolation, delta, idelta, increase, irate, rate};
pub(crate) use sums::{avg, stddev, stdvar, sum};

use super::quantile::{is_invalid, of_window};
use super::window::{Bound, Env, Steps};
use crate::annotations::Note;
use crate::exec::batch::clean;

pub(crate) fn count(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    for b in s.bounds {
        cells[b.step] = (b.floats.1 - b.floats.0) as f64;
    }
}

pub(crate) fn last(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    for b in s.bounds {
        cells[b.step] = s.columns.floats[b.floats.1 - 1];
    }
}

pub(crate) fn min(s: &Steps<'_>, env: &mut Env<'_>, cells: &mut [f64]) {
    extreme(s, env, cells, |a, b| a < b);
}

pub(crate) fn max(s: &Steps<'_>, env: &mut Env<'_>, cells: &mut [f64]) {
    extreme(s, env, cells, |a, b| a > b);
}

/// The first of the best floats that are numbers; NaN when none is.
#[inline]
fn extreme(s: &Steps<'_>, env: &mut Env<'_>, cells: &mut [f64], better: impl Fn(f64, f64) -> bool + Copy) {
    /// Windows that share less than this part are looked through one by one.
    const SHARED_MIN: usize = 4;
    let mut prev_hi = env.state.extremes_end;
    for b in s.bounds {
        let (lo, hi) = b.floats;
        let new = hi - lo.max(prev_hi.min(hi));
        prev_hi = hi;
        cells[b.step] = match new >= (hi - lo) / SHARED_MIN {
            true => scan_extreme(s.floats(b), better),
            false => slide_extreme(s, env, b, better),
        };
    }
}

#[inline]
fn scan_extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = values[0];
    for v in values {
        if better(*v, best) || best.is_nan() {
            best = *v;
        }
    }
    best
}

/// A float enters the queue once and leaves it once; in it, each is better than all behind it.
#[inline]
fn slide_extreme(s: &Steps<'_>, env: &mut Env<'_>, b: &Bound, better: impl Fn(f64, f64) -> bool) -> f64 {
    let (lo, hi) = b.floats;
    let floats = &s.columns.floats;
    let queue = &mut env.state.extremes;
    while queue.front().is_some_and(|i| *i < lo) {
        queue.pop_front();
    }
    for i in env.state.extremes_end.max(lo)..hi {
        let v = floats[i];
        if v.is_nan() {
            continue;
        }
        while queue.back().is_some_and(|q| better(v, floats[*q])) {
            queue.pop_back();
        }
        queue.push_back(i);
    }
    env.state.extremes_end = hi.max(env.state.extremes_end);
    queue.front().map_or(f64::NAN, |i| floats[*i])
}

pub(crate) fn quantile(s: &Steps<'_>, env: &mut Env<'_>, cells: &mut [f64]) {
    for b in s.bounds {
        let q = s.args[0][b.step];
        if is_invalid(q) {
            env.note(Note::InvalidQuantile(q));
        }
        cells[b.step] = clean(of_window(q, env.state, &s.columns.floats, b.floats));
    }
}

pub(crate) fn resets(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    let resets = &s.columns.resets;
    let (mut from, mut to) = (0, 0);
    for b in s.bounds {
        let (lo, hi) = b.floats;
        while from < resets.len() && resets[from] <= lo {
            from += 1;
        }
        to = from.max(to);
        while to < resets.len() && resets[to] < hi {
            to += 1;
        }
        cells[b.step] = (to - from) as f64;
    }
}

pub(crate) fn changes(s: &Steps<'_>, env: &mut Env<'_>, cells: &mut [f64]) {
    let floats = &s.columns.floats;
    // Changes before the floats with indices `from + 1` up to `to - 1` of the window before this one.
    let count = |from: usize, to: usize| {
        let pairs = floats[from..to].windows(2);
        pairs.fold(0_u64, |n, w| n + u64::from(w[0] != w[1] && !(w[0].is_nan() && w[1].is_nan())))
    };
    for b in s.bounds {
        let (lo, hi) = b.floats;
        let (old_lo, old_hi) = env.state.changes_range;
        let shared = old_lo <= lo && lo < old_hi && old_hi <= hi;
        if shared && lo - old_lo < hi - lo {
            env.state.changes = env.state.changes - count(old_lo, lo + 1) + count(old_hi - 1, hi);
        } else {
            env.state.changes = count(lo, hi);
        }
        env.state.changes_range = b.floats;
        cells[b.step] = env.state.changes as f64;
    }
}
