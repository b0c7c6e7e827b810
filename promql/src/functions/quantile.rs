//! Quantiles of samples. Windows that overlap keep their floats sorted from step to step: a sample that comes or goes costs
//! a binary search and a move. Of a window that is mostly new the two floats in question are selected in linear time.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#aggregation_over_time>, <https://prometheus.io/docs/prometheus/latest/querying/operators/#quantile>.

use std::cmp::Ordering;

use super::over_time::note_ignored_histograms;
use super::window::{Env, State, Window};
use crate::annotations::Note;
use crate::error::Result;
use crate::exec::batch::Cell;

/// Order of values: NaN before everything.
pub(crate) fn order(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

/// Whether `q` is no quantile.
pub(crate) fn is_invalid(q: f64) -> bool {
    q.is_nan() || !(0.0..=1.0).contains(&q)
}

/// The quantile of sorted values, weighted between neighbours.
pub(crate) fn of_sorted(q: f64, sorted: &[f64]) -> f64 {
    if sorted.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = (sorted.len() - 1) as f64;
    let rank = q * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    let weight = rank - rank.floor();
    sorted[lower as usize] * (1.0 - weight) + sorted[upper as usize] * weight
}

pub(crate) fn quantile_over_time(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    if w.floats().is_empty() {
        return Ok(Cell::Absent);
    }
    let q = env.scalars[0];
    if is_invalid(q) {
        env.note(Note::InvalidQuantile(q));
    }
    note_ignored_histograms(w, env);
    Ok(Cell::Float(of_window(q, env.state, &w.columns.floats, w.float_range)))
}

/// Median of the distances from the median.
pub(crate) fn mad(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    if w.floats().is_empty() {
        return Ok(Cell::Absent);
    }
    note_ignored_histograms(w, env);
    slide(env.state, &w.columns.floats, w.float_range);
    if env.state.sorted.first().is_some_and(|v| v.is_nan()) {
        return Ok(Cell::Float(f64::NAN));
    }
    let median = of_sorted(0.5, &env.state.sorted);
    let distances = &mut env.state.scratch;
    distances.clear();
    distances.extend(env.state.sorted.iter().map(|v| (v - median).abs()));
    distances.sort_unstable_by(order);
    Ok(Cell::Float(of_sorted(0.5, distances)))
}

/// The quantile of the floats of a window, which are at least one.
pub(crate) fn of_window(q: f64, state: &mut State, all: &[f64], window: (usize, usize)) -> f64 {
    if is_invalid(q) {
        return of_sorted(q, &all[window.0..window.1]);
    }
    if overlaps(state.sorted_range, window) {
        slide(state, all, window);
        return of_sorted(q, &state.sorted);
    }
    state.sorted.clear();
    state.sorted_range = window;
    let keys = &mut state.keys;
    keys.clear();
    keys.extend(all[window.0..window.1].iter().map(|v| key(*v)));
    let last = keys.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor().max(0.0) as usize).min(last);
    let (_, low, above) = keys.select_nth_unstable(lower);
    let low = of_key(*low);
    let high = above.iter().min().map_or(low, |k| of_key(*k));
    let weight = rank - rank.floor();
    low * (1.0 - weight) + high * weight
}

/// A number that sorts as the value does; all NaNs are one and come first.
fn key(v: f64) -> i64 {
    let bits = v.to_bits() as i64;
    if v.is_nan() { i64::MIN } else { bits ^ (((bits >> 63) as u64) >> 1) as i64 }
}

fn of_key(key: i64) -> f64 {
    if key == i64::MIN {
        return f64::NAN;
    }
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// Whether most of a window is known from the one before.
fn overlaps((old_lo, old_hi): (usize, usize), (lo, hi): (usize, usize)) -> bool {
    lo >= old_lo && hi >= old_hi && lo < old_hi && (lo - old_lo) + (hi - old_hi) <= (hi - lo) / 4
}

/// Brings the sorted floats from the previous window to this one.
fn slide(state: &mut State, all: &[f64], (lo, hi): (usize, usize)) {
    let (old_lo, old_hi) = state.sorted_range;
    let known = !state.sorted.is_empty() && overlaps((old_lo, old_hi), (lo, hi));
    state.sorted_range = (lo, hi);
    if !known {
        state.sorted.clear();
        state.sorted.extend_from_slice(&all[lo..hi]);
        state.sorted.sort_unstable_by(order);
        return;
    }
    for v in &all[old_lo..lo] {
        // Equal values cannot be told apart, but for NaN payloads and the sign of zero: neither reaches a result.
        if let Ok(at) = state.sorted.binary_search_by(|x| order(x, v)) {
            state.sorted.remove(at);
        }
    }
    for v in &all[old_hi..hi] {
        let at = state.sorted.partition_point(|x| order(x, v) == Ordering::Less);
        state.sorted.insert(at, *v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighs_between_neighbours() {
        assert_eq!(of_sorted(0.5, &[1.0, 2.0]), 1.5);
        assert_eq!(of_sorted(1.0, &[1.0, 2.0, 4.0]), 4.0);
        assert_eq!(of_sorted(-0.1, &[1.0]), f64::NEG_INFINITY);
        assert!(of_sorted(f64::NAN, &[1.0]).is_nan());
    }
}
