//! `*_over_time` functions of floats. Windows hold at least one sample; those without floats give nothing here.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#aggregation_over_time>.

use super::kahan;
use super::window::{Env, Window};
use crate::annotations::Note;
use crate::error::Result;
use crate::exec::batch::Cell;

/// Tells that histograms beside floats were left out.
pub(crate) fn note_ignored_histograms(w: &Window<'_>, env: &mut Env<'_>) {
    if !w.histograms().is_empty() {
        let name = env.name();
        env.note(Note::HistogramIgnoredInMixedRange(name));
    }
}

pub(crate) fn count(w: &Window<'_>, _: &mut Env<'_>) -> Result<Cell> {
    Ok(Cell::Float((w.floats().len() + w.histograms().len()) as f64))
}

pub(crate) fn min(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    extreme(w, env, |v, best| v < best || best.is_nan(), |v, _| v)
}

pub(crate) fn max(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    extreme(w, env, |v, best| v > best || best.is_nan(), |v, _| v)
}

pub(crate) fn ts_of_min(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    extreme(w, env, |v, best| v <= best || best.is_nan(), |_, t| t as f64 / 1000.0)
}

pub(crate) fn ts_of_max(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    extreme(w, env, |v, best| v >= best || best.is_nan(), |_, t| t as f64 / 1000.0)
}

#[inline]
fn extreme(
    w: &Window<'_>,
    env: &mut Env<'_>,
    better: impl Fn(f64, f64) -> bool,
    result: impl Fn(f64, i64) -> f64,
) -> Result<Cell> {
    let (values, times) = (w.floats(), w.float_ts());
    let Some(first) = values.first() else { return Ok(Cell::Absent) };
    note_ignored_histograms(w, env);
    let mut best = (*first, 0);
    for (i, v) in values.iter().enumerate() {
        if better(*v, best.0) {
            best = (*v, i);
        }
    }
    Ok(Cell::Float(result(best.0, times[best.1])))
}

pub(crate) fn first(w: &Window<'_>, _: &mut Env<'_>) -> Result<Cell> {
    Ok(match (w.float_ts().first(), w.histogram_ts().first()) {
        (Some(f), Some(h)) if f < h => Cell::Float(w.floats()[0]),
        (_, Some(_)) => Cell::Histogram(w.histograms()[0].clone()),
        (Some(_), None) => Cell::Float(w.floats()[0]),
        (None, None) => Cell::Absent,
    })
}

pub(crate) fn last(w: &Window<'_>, _: &mut Env<'_>) -> Result<Cell> {
    Ok(match (w.float_ts().last(), w.histogram_ts().last()) {
        (Some(f), Some(h)) if h < f => w.floats().last().map_or(Cell::Absent, |v| Cell::Float(*v)),
        (_, Some(_)) => w.histograms().last().map_or(Cell::Absent, |h| Cell::Histogram(h.clone())),
        (Some(_), None) => w.floats().last().map_or(Cell::Absent, |v| Cell::Float(*v)),
        (None, None) => Cell::Absent,
    })
}

pub(crate) fn ts_of_first(w: &Window<'_>, _: &mut Env<'_>) -> Result<Cell> {
    let first = w.float_ts().first().into_iter().chain(w.histogram_ts().first()).min();
    Ok(first.map_or(Cell::Absent, |t| Cell::Float(*t as f64 / 1000.0)))
}

pub(crate) fn ts_of_last(w: &Window<'_>, _: &mut Env<'_>) -> Result<Cell> {
    // Where one kind is missing, Prometheus takes the epoch for it: before the epoch, that is later.
    let last = |times: &[i64]| times.last().copied().unwrap_or(0);
    Ok(Cell::Float(last(w.float_ts()).max(last(w.histogram_ts())) as f64 / 1000.0))
}

pub(crate) fn stddev(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    variance(w, env, f64::sqrt)
}

pub(crate) fn stdvar(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    variance(w, env, |v| v)
}

fn variance(w: &Window<'_>, env: &mut Env<'_>, result: fn(f64) -> f64) -> Result<Cell> {
    if w.floats().is_empty() {
        return Ok(Cell::Absent);
    }
    note_ignored_histograms(w, env);
    let mut count = 0.0;
    let (mut mean, mut mean_c) = (0.0, 0.0);
    let (mut aux, mut aux_c) = (0.0, 0.0);
    for v in w.floats() {
        count += 1.0;
        let delta = v - (mean + mean_c);
        (mean, mean_c) = kahan::add(delta / count, mean, mean_c);
        (aux, aux_c) = kahan::add(delta * (v - (mean + mean_c)), aux, aux_c);
    }
    Ok(Cell::Float(result((aux + aux_c) / count)))
}
