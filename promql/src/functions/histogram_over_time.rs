//! `sum_over_time` and `avg_over_time`, of floats and of native histograms.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#aggregation_over_time>.

use std::sync::Arc;

use model::histogram::CounterResetHint;

use super::histogram::Accumulated;
use super::kahan;
use super::window::{Env, Window};
use crate::annotations::{HistogramOperation, Note};
use crate::error::Result;
use crate::exec::batch::Cell;

pub(crate) fn sum(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    if !w.histograms().is_empty() {
        return histograms(w, env, false);
    }
    let (mut sum, mut c) = (0.0_f64, 0.0);
    for v in w.floats() {
        (sum, c) = kahan::add(*v, sum, c);
    }
    Ok(Cell::Float(if sum.is_infinite() { sum } else { sum + c }))
}

pub(crate) fn avg(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    if !w.histograms().is_empty() {
        return histograms(w, env, true);
    }
    let mut mean = kahan::Mean::default();
    w.floats().iter().for_each(|v| mean.add(*v));
    Ok(Cell::Float(mean.get()))
}

fn histograms(w: &Window<'_>, env: &mut Env<'_>, is_mean: bool) -> Result<Cell> {
    let name = env.name();
    if !w.floats().is_empty() {
        env.note(Note::MixedFloatsHistograms(name));
        return Ok(Cell::Absent);
    }
    let mut sum: Option<Accumulated> = None;
    let (mut reset, mut no_reset, mut reconciled) = (false, false, false);
    for h in w.histograms() {
        reset |= h.counter_reset_hint == CounterResetHint::CounterReset;
        no_reset |= h.counter_reset_hint == CounterResetHint::NotCounterReset;
        match &mut sum {
            None => sum = Some(Accumulated::new(h, is_mean)),
            Some(s) => match s.add(h) {
                Ok(r) => reconciled |= r,
                Err(_) => {
                    env.note(Note::MixedExponentialCustom(name));
                    return Ok(Cell::Absent);
                }
            },
        }
    }
    if reset && no_reset {
        env.note(Note::CounterResetCollision(HistogramOperation::Aggregation));
    }
    if reconciled {
        env.note(Note::MismatchedCustomBuckets(HistogramOperation::Aggregation));
    }
    let outcome = sum.and_then(Accumulated::finish_uncompacted);
    Ok(outcome.map_or(Cell::Absent, |h| Cell::Histogram(Arc::new(h))))
}
