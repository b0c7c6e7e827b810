//! `resets` and `changes`: how often something happened between neighbouring samples, floats and histograms in the order
//! of their times.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#resets>, `#changes`.

use std::sync::Arc;

use model::FloatHistogram;

use super::histogram::equal;
use super::rate::is_start_reset;
use super::window::{Env, Window};
use crate::error::Result;
use crate::exec::batch::Cell;
use crate::parser::ast::Boundary;

#[derive(Clone, Copy)]
struct Sample<'a> {
    ts: i64,
    start: i64,
    float: f64,
    histogram: Option<&'a Arc<FloatHistogram>>,
}

pub(crate) fn resets(w: &Window<'_>, _: &mut Env<'_>) -> Result<Cell> {
    Ok(count(w, |a, b| match (a.histogram, b.histogram) {
        (None, None) => b.float < a.float || is_start_reset(a.start, a.ts, b.start, b.ts),
        (Some(x), Some(y)) => is_start_reset(a.start, a.ts, b.start, b.ts) || y.detect_reset(x),
        _ => true,
    }))
}

pub(crate) fn changes(w: &Window<'_>, _: &mut Env<'_>) -> Result<Cell> {
    Ok(count(w, |a, b| match (a.histogram, b.histogram) {
        (None, None) => a.float != b.float && !(a.float.is_nan() && b.float.is_nan()),
        (Some(x), Some(y)) => !equal(y, x),
        _ => true,
    }))
}

fn count(w: &Window<'_>, happened: impl Fn(&Sample<'_>, &Sample<'_>) -> bool) -> Cell {
    let Some((mut f, mut h)) = first_indices(w) else { return Cell::Absent };
    let mut prev: Option<Sample<'_>> = None;
    let mut n = 0_u64;
    while let Some(s) = next_sample(w, &mut f, &mut h) {
        if prev.is_some_and(|p| happened(&p, &s)) {
            n += 1;
        }
        prev = Some(s);
    }
    Cell::Float(n as f64)
}

fn next_sample<'a>(w: &Window<'a>, f: &mut usize, h: &mut usize) -> Option<Sample<'a>> {
    let (ft, ht) = (w.float_ts().get(*f), w.histogram_ts().get(*h));
    let float_first = match (ft, ht) {
        (Some(a), Some(b)) => a < b,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => return None,
    };
    if float_first {
        let i = *f;
        *f += 1;
        let start = w.float_starts().get(i).copied().unwrap_or(0);
        return Some(Sample { ts: w.float_ts()[i], start, float: w.floats()[i], histogram: None });
    }
    let i = *h;
    *h += 1;
    let start = w.histogram_starts().get(i).copied().unwrap_or(0);
    Some(Sample { ts: w.histogram_ts()[i], start, float: 0.0, histogram: Some(&w.histograms()[i]) })
}

/// Where to begin. An anchored window begins with the last sample, of either kind, at or before its start; without a
/// sample after its start there is nothing to count.
fn first_indices(w: &Window<'_>) -> Option<(usize, usize)> {
    if w.boundary != Boundary::Anchored {
        return Some((0, 0));
    }
    let f = w.float_ts().partition_point(|t| *t <= w.start_ms);
    let h = w.histogram_ts().partition_point(|t| *t <= w.start_ms);
    if f >= w.floats().len() && h >= w.histograms().len() {
        return None;
    }
    Some(match (f, h) {
        (0, 0) => (0, 0),
        (_, 0) => (f - 1, 0),
        (0, _) => (0, h - 1),
        _ if w.float_ts()[f - 1] >= w.histogram_ts()[h - 1] => (f - 1, h),
        _ => (f, h - 1),
    })
}
