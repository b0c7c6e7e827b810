//! `anchored` and `smoothed`: what happens at the ends of a window. A window comes with the samples of the lookback
//! before it (and, smoothed, after it). Anchored takes the last sample at or before the start as one at the start;
//! smoothed interpolates at both ends.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/feature_flags/#extended-range-selectors>.

use std::sync::Arc;

use model::histogram::CounterResetHint;
use model::{FloatHistogram, Labels, Samples};

use super::histogram_rate::{add, sub};
use super::rate::Kind;
use super::window::{Env, SeriesColumns, Window};
use crate::annotations::{HistogramOperation, Note, Notes};
use crate::error::Result;
use crate::exec::batch::{ABSENT, Cell, clean};
use crate::exec::exchange::RowHistograms;
use crate::exec::source::to_columns;
use crate::parser::ast::Boundary;
use crate::plan::Grid;
use crate::plan::grid::Shift;
use crate::plan::node::Site;

pub(crate) fn rate(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    growth(w, env, Kind::Rate)
}

pub(crate) fn increase(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    growth(w, env, Kind::Increase)
}

pub(crate) fn delta(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    growth(w, env, Kind::Delta)
}

fn growth(w: &Window<'_>, env: &mut Env<'_>, kind: Kind) -> Result<Cell> {
    match (w.floats().is_empty(), w.histograms().is_empty()) {
        (true, true) => Ok(Cell::Absent),
        (false, false) => {
            let name = env.name();
            env.note(Note::MixedFloatsHistograms(name));
            Ok(Cell::Absent)
        }
        (false, true) => Ok(float_growth(w, env, kind)),
        (true, false) => {
            Ok(histogram_growth(w, env, kind).map_or(Cell::Absent, |h| Cell::Histogram(Arc::new(h))))
        }
    }
}

/// First and last sample that matter; `None` when none lies in the window.
fn ends(times: &[i64], start: i64, end: i64, smoothed: bool) -> Option<(usize, usize)> {
    let mut last = times.len().checked_sub(1)?;
    let first = times[..last].partition_point(|t| *t <= start).saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|t| *t < end);
    }
    if times[last] <= start || (smoothed && times[first] > end) {
        return None;
    }
    Some((first, last))
}

/// The value at `t` on the line between two samples; a counter that fell started from zero.
fn interpolate(a: (i64, f64), b: (i64, f64), t: i64, counter: bool) -> f64 {
    let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * (t - a.0) as f64 / (b.0 - a.0) as f64
}

fn left_value(times: &[i64], values: &[f64], first: usize, start: i64, smoothed: bool, counter: bool) -> f64 {
    if smoothed && times[first] < start && first + 1 < times.len() {
        return interpolate(
            (times[first], values[first]),
            (times[first + 1], values[first + 1]),
            start,
            counter,
        );
    }
    values[first]
}

fn right_value(times: &[i64], values: &[f64], last: usize, end: i64, smoothed: bool, counter: bool) -> f64 {
    if smoothed && last > 0 && times[last] > end {
        return interpolate((times[last - 1], values[last - 1]), (times[last], values[last]), end, counter);
    }
    values[last]
}

fn float_growth(w: &Window<'_>, env: &Env<'_>, kind: Kind) -> Cell {
    let (times, values) = (w.float_ts(), w.floats());
    let smoothed = w.boundary == Boundary::Smoothed;
    let counter = kind.is_counter();
    let Some((first, last)) = ends(times, w.start_ms, w.end_ms, smoothed) else { return Cell::Absent };
    let left = left_value(times, values, first, w.start_ms, smoothed, counter);
    let right = right_value(times, values, last, w.end_ms, smoothed, counter);
    let mut result = right - left;
    if counter {
        // Only samples inside the window: resets at its ends are in the interpolated values.
        let from = if times[first] <= w.start_ms { first + 1 } else { first };
        let to = if times[last] >= w.end_ms { last } else { last + 1 };
        // Summed up apart, as Prometheus does: the order shows in the last bit.
        let (mut correction, mut prev) = (0.0, left);
        for v in values.get(from..to).unwrap_or(&[]).iter().chain(std::iter::once(&right)) {
            if *v < prev {
                correction += prev;
            }
            prev = *v;
        }
        result += correction;
    }
    if kind == Kind::Rate {
        result /= env.range_ms as f64 / 1000.0;
    }
    Cell::Float(result)
}

fn histogram_growth(w: &Window<'_>, env: &mut Env<'_>, kind: Kind) -> Option<FloatHistogram> {
    let (times, points) = (w.histogram_ts(), w.histograms());
    let smoothed = w.boundary == Boundary::Smoothed;
    let counter = kind.is_counter();
    let (first, last) = ends(times, w.start_ms, w.end_ms, smoothed)?;
    let name = env.name();
    let gauge = CounterResetHint::Gauge;
    let custom = points[first].uses_custom_buckets();
    for p in &points[first..=last] {
        if p.uses_custom_buckets() != custom {
            env.note(Note::MixedExponentialCustom(name));
            return None;
        }
        if counter && p.counter_reset_hint == gauge {
            env.note(Note::NativeNotCounter(name));
        }
    }
    let left = if smoothed && times[first] < w.start_ms && first + 1 < points.len() {
        between(points, times, first, w.start_ms, counter, env)?
    } else {
        (*points[first]).clone()
    };
    let right = if smoothed && last > 0 && times[last] > w.end_ms {
        between(points, times, last - 1, w.end_ms, counter, env)?
    } else {
        (*points[last]).clone()
    };
    if !counter && (left.counter_reset_hint != gauge || right.counter_reset_hint != gauge) {
        env.note(Note::NativeNotGauge(name));
    }
    let mut result = right.clone();
    if !sub(&mut result, &left, env) {
        return None;
    }
    if counter {
        correct_resets(w, (first, last), (&left, &right), &mut result, env)?;
    }
    if kind == Kind::Rate {
        result.div(env.range_ms as f64 / 1000.0);
    }
    result.counter_reset_hint = gauge;
    result.compact(0);
    Some(result)
}

/// Adds what resets between the two ends took away.
fn correct_resets(
    w: &Window<'_>,
    (first, last): (usize, usize),
    (left, right): (&FloatHistogram, &FloatHistogram),
    result: &mut FloatHistogram,
    env: &mut Env<'_>,
) -> Option<()> {
    let points = w.histograms();
    let mut from = first + 1;
    let mut prev = left;
    let smoothed = w.boundary == Boundary::Smoothed;
    if smoothed
        && w.histogram_ts()[first] < w.start_ms
        && points.get(first + 1).is_some_and(|p| p.detect_reset(&points[first]))
    {
        // The interpolated start spans that reset already.
        prev = &points[first + 1];
        from += 1;
    }
    // The last sample is `right`, or `right` was interpolated from it and has its hint.
    if from > last {
        return Some(());
    }
    let mut correction: Option<FloatHistogram> = None;
    let mut take = |prev: &FloatHistogram, env: &mut Env<'_>| match &mut correction {
        None => {
            correction = Some(prev.clone());
            true
        }
        Some(c) => add(c, prev, env),
    };
    for p in &points[from..last] {
        if p.detect_reset(prev) && !take(prev, env) {
            return None;
        }
        prev = p;
    }
    if right.detect_reset(prev) && !take(prev, env) {
        return None;
    }
    match correction {
        Some(c) if !add(result, &c, env) => None,
        _ => Some(()),
    }
}

/// The histogram at `t`, between sample `i` and the next one.
fn between(
    points: &[Arc<FloatHistogram>],
    times: &[i64],
    i: usize,
    t: i64,
    counter: bool,
    env: &mut Env<'_>,
) -> Option<FloatHistogram> {
    let name = env.name();
    let site = env.site;
    interpolate_histograms(
        (times[i], &points[i]),
        (times[i + 1], &points[i + 1]),
        t,
        counter,
        &mut |n| env.notes.add(site, n),
        name,
    )
}

fn interpolate_histograms(
    (t1, a): (i64, &FloatHistogram),
    (t2, b): (i64, &FloatHistogram),
    t: i64,
    counter: bool,
    note: &mut dyn FnMut(Note<'_>),
    name: &str,
) -> Option<FloatHistogram> {
    if t == t1 {
        return Some(a.clone());
    }
    if t == t2 {
        return Some(b.clone());
    }
    let fraction = (t - t1) as f64 / (t2 - t1) as f64;
    let mut result = b.clone();
    if counter && b.detect_reset(a) {
        result.mul(fraction);
        return Some(result);
    }
    let mut step = |outcome: std::result::Result<model::histogram::AddOutcome, _>, op| match outcome {
        Ok(o) => {
            if o.bounds_reconciled {
                note(Note::MismatchedCustomBuckets(op));
            }
            true
        }
        Err(model::histogram::HistogramError::IncompatibleSchemas) => {
            note(Note::MixedExponentialCustom(name));
            false
        }
        Err(_) => false,
    };
    if !step(result.sub(a), HistogramOperation::Subtraction) {
        return None;
    }
    result.mul(fraction);
    step(result.add(a), HistogramOperation::Addition).then_some(result)
}

/// Makes the floats of a window what `anchored` or `smoothed` shows of them: one at each end, those inside between.
pub(crate) fn extend_floats(c: &mut SeriesColumns, start: i64, end: i64, smoothed: bool) {
    let (times, values) = (&c.float_ts, &c.floats);
    let Some(mut last) = times.len().checked_sub(1) else { return };
    let first = times[..last].partition_point(|t| *t <= start).saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|t| *t < end);
    }
    if times[last] <= start {
        c.clear();
        return;
    }
    let left = left_value(times, values, first, start, smoothed, false);
    let right = right_value(times, values, last, end, smoothed, false);
    let from = if times[first] <= start { first + 1 } else { first };
    let to = if times[last] >= end { last } else { last + 1 };
    let to = to.max(from);
    let mut ts = vec![start];
    let mut out = vec![left];
    ts.extend_from_slice(&times[from..to]);
    out.extend_from_slice(&values[from..to]);
    ts.push(end);
    out.push(right);
    (c.float_ts, c.floats) = (ts, out);
}

/// A smoothed instant selector: at every step the value on the line between the samples around it.
pub(crate) fn smooth_series(
    samples: &mut Samples,
    (grid, shift, lookback): (Grid, Shift, i64),
    (labels, site): (&Labels, Site),
    notes: &mut Notes,
    cells: &mut [f64],
    histograms: &mut RowHistograms,
) -> Result<()> {
    let mut c = SeriesColumns::default();
    to_columns(samples, false, &mut c);
    let name = labels.metric_name();
    for (step, cell) in cells.iter_mut().enumerate() {
        let at = shift.apply(grid.at(step));
        let within = |times: &[i64]| {
            let lo = times.partition_point(|t| *t <= at - lookback);
            let hi = times.partition_point(|t| *t <= at + lookback);
            (lo, hi)
        };
        let (f, h) = (within(&c.float_ts), within(&c.histogram_ts));
        if f.0 < f.1 && h.0 < h.1 {
            notes.add(site, Note::MixedFloatsHistograms(name));
            continue;
        }
        let (times, (lo, hi)) = if h.0 < h.1 { (&c.histogram_ts, h) } else { (&c.float_ts, f) };
        // The first sample at or after the time looked at.
        let next = times[lo..hi].partition_point(|t| *t < at) + lo;
        let exact = next < hi && times[next] == at;
        if lo == hi || (!exact && next == lo) {
            continue;
        }
        if h.0 == h.1 {
            *cell = clean(match (exact, next < hi) {
                (true, _) => c.floats[next],
                (false, true) => interpolate(
                    (times[next - 1], c.floats[next - 1]),
                    (times[next], c.floats[next]),
                    at,
                    false,
                ),
                (false, false) => c.floats[next - 1],
            });
            continue;
        }
        let value = match (exact, next < hi) {
            (true, _) => Some((*c.histograms[next]).clone()),
            (false, true) => {
                let (a, b) = (&c.histograms[next - 1], &c.histograms[next]);
                if a.uses_custom_buckets() != b.uses_custom_buckets() {
                    notes.add(site, Note::MixedExponentialCustom(name));
                    None
                } else {
                    let gauge = CounterResetHint::Gauge;
                    let counter = a.counter_reset_hint != gauge || b.counter_reset_hint != gauge;
                    interpolate_histograms(
                        (times[next - 1], a),
                        (times[next], b),
                        at,
                        counter,
                        &mut |n| notes.add(site, n),
                        name,
                    )
                }
            }
            (false, false) => {
                let mut h = (*c.histograms[next - 1]).clone();
                h.counter_reset_hint = CounterResetHint::Unknown;
                Some(h)
            }
        };
        *cell = ABSENT;
        if let Some(value) = value {
            histograms.push((step, Arc::new(value)));
        }
    }
    Ok(())
}
