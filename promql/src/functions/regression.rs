//! Functions that fit something to the floats of a window.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#deriv>, `#predict_linear`,
//! `#double_exponential_smoothing`.

use super::kahan;
use super::over_time::note_ignored_histograms;
use super::window::{Env, Window};
use crate::error::{QueryError, Result};
use crate::exec::batch::Cell;

pub(crate) fn deriv(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    if !enough(w, env) {
        return Ok(Cell::Absent);
    }
    // Times near zero keep their precision.
    let (slope, _) = least_squares(w, w.float_ts()[0]);
    Ok(Cell::Float(slope))
}

pub(crate) fn predict_linear(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    if !enough(w, env) {
        return Ok(Cell::Absent);
    }
    let (slope, intercept) = least_squares(w, w.ts_ms);
    Ok(Cell::Float(slope * env.scalars[0] + intercept))
}

/// Whether there are two floats; tells about histograms beside at least one.
fn enough(w: &Window<'_>, env: &mut Env<'_>) -> bool {
    if !w.floats().is_empty() {
        note_ignored_histograms(w, env);
    }
    w.floats().len() >= 2
}

/// Slope per second and value at `origin_ms` of the line through the floats.
fn least_squares(w: &Window<'_>, origin_ms: i64) -> (f64, f64) {
    let (mut sum_x, mut cx) = (0.0, 0.0);
    let (mut sum_y, mut cy) = (0.0, 0.0);
    let (mut sum_xy, mut cxy) = (0.0, 0.0);
    let (mut sum_x2, mut cx2) = (0.0, 0.0);
    let first = w.floats()[0];
    let mut constant = true;
    let mut n = 0.0;
    for (t, y) in w.float_ts().iter().zip(w.floats()) {
        constant &= *y == first || n == 0.0;
        n += 1.0;
        let x = (t - origin_ms) as f64 / 1e3;
        (sum_x, cx) = kahan::add(x, sum_x, cx);
        (sum_y, cy) = kahan::add(*y, sum_y, cy);
        (sum_xy, cxy) = kahan::add(x * y, sum_xy, cxy);
        (sum_x2, cx2) = kahan::add(x * x, sum_x2, cx2);
    }
    if constant {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    sum_x += cx;
    sum_y += cy;
    sum_xy += cxy;
    sum_x2 += cx2;
    let covariance = sum_xy - sum_x * sum_y / n;
    let variance = sum_x2 - sum_x * sum_x / n;
    let slope = covariance / variance;
    (slope, sum_y / n - slope * sum_x / n)
}

/// Holt's linear smoothing.
pub(crate) fn double_exponential_smoothing(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    let [sf, tf] = env.scalars;
    let invalid = |what: &str, letters: &str, v: f64| {
        Err(QueryError::Execution(format!("invalid {what} factor. Expected: 0 < {letters} < 1, got: {v:.6}")))
    };
    if sf <= 0.0 || sf >= 1.0 {
        return invalid("smoothing", "sf", sf);
    }
    if tf <= 0.0 || tf >= 1.0 {
        return invalid("trend", "tf", tf);
    }
    if !enough(w, env) {
        return Ok(Cell::Absent);
    }
    let values = w.floats();
    let (mut s0, mut s1) = (0.0, values[0]);
    let mut trend = values[1] - values[0];
    for (i, v) in values.iter().enumerate().skip(1) {
        let x = sf * v;
        if i > 1 {
            trend = tf * (s1 - s0) + (1.0 - tf) * trend;
        }
        let y = (1.0 - sf) * (s1 + trend);
        (s0, s1) = (s1, x + y);
    }
    Ok(Cell::Float(s1))
}
