//! Growth of native histograms within a window.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#rate>, `#irate`, `#increase`, `#delta`, `#idelta`.

use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::CounterResetHint;

use super::rate::{is_start_reset, note_overlaps};
use super::window::{Env, Window};
use crate::annotations::{HistogramOperation, Note};
use crate::error::Result;

/// Adds `other`; `false`, and a warning, when the schemas do not fit.
pub(crate) fn add(h: &mut FloatHistogram, other: &FloatHistogram, env: &mut Env<'_>) -> bool {
    match h.add(other) {
        Ok(outcome) => {
            if outcome.bounds_reconciled {
                env.note(Note::MismatchedCustomBuckets(HistogramOperation::Addition));
            }
            true
        }
        Err(_) => {
            let name = env.name();
            env.note(Note::MixedExponentialCustom(name));
            false
        }
    }
}

/// Subtracts `other`; `false`, and a warning, when the schemas do not fit.
pub(crate) fn sub(h: &mut FloatHistogram, other: &FloatHistogram, env: &mut Env<'_>) -> bool {
    match h.sub(other) {
        Ok(outcome) => {
            if outcome.bounds_reconciled {
                env.note(Note::MismatchedCustomBuckets(HistogramOperation::Subtraction));
            }
            true
        }
        Err(_) => {
            let name = env.name();
            env.note(Note::MixedExponentialCustom(name));
            false
        }
    }
}

/// The growth from the first to the last of at least two histograms, resets of counters made good. `None`, and a
/// warning, when they do not fit together.
pub(crate) fn increase(
    w: &Window<'_>,
    starts: &[i64],
    env: &mut Env<'_>,
    counter: bool,
) -> Result<Option<FloatHistogram>> {
    let (points, times) = (w.histograms(), w.histogram_ts());
    let name = env.name();
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let started =
        |i: usize| i < starts.len() && is_start_reset(starts[i - 1], times[i - 1], starts[i], times[i]);
    // After a reset right behind it, the first histogram does not count, whatever its buckets are.
    let blank;
    let mut prev: &FloatHistogram = first;
    if counter && (started(1) || points[1].detect_reset(first)) {
        blank = FloatHistogram {
            schema: points[1].schema,
            custom_values: points[1].custom_values.clone(),
            ..FloatHistogram::default()
        };
        prev = &blank;
    }
    let custom = prev.uses_custom_buckets();
    let inner = &points[1..points.len() - 1];
    let mixed_end = last.uses_custom_buckets() != custom;
    let mixed_inside = !mixed_end && counter && inner.iter().any(|p| p.uses_custom_buckets() != custom);
    // A mix that shows inside only is all that is told then.
    let told = if mixed_end { is_gauge(first) || is_gauge(last) } else { points.iter().any(|p| is_gauge(p)) };
    if counter && told && !mixed_inside {
        env.note(Note::NativeNotCounter(name));
    }
    if mixed_end || mixed_inside {
        env.note(Note::MixedExponentialCustom(name));
        return Ok(None);
    }
    let mut schema = last.schema.min(prev.schema);
    if counter {
        schema = inner.iter().map(|p| p.schema).fold(schema, i32::min);
    }
    let Ok(mut h) = last.copy_to_schema(schema) else {
        env.note(Note::MixedExponentialCustom(name));
        return Ok(None);
    };
    if !sub(&mut h, prev, env) {
        return Ok(None);
    }
    if counter {
        note_overlaps(times, starts, env);
        for (i, p) in points.iter().enumerate().skip(1) {
            if (started(i) || p.detect_reset(prev)) && !add(&mut h, prev, env) {
                return Ok(None);
            }
            prev = p;
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        env.note(Note::NativeNotGauge(name));
    }
    h.counter_reset_hint = CounterResetHint::Gauge;
    h.compact(0);
    Ok(Some(h))
}

/// The growth between two neighbouring histograms.
pub(crate) fn instant(
    prev: &Arc<FloatHistogram>,
    last: &Arc<FloatHistogram>,
    is_rate: bool,
    reset_by_start: bool,
    env: &mut Env<'_>,
) -> Option<FloatHistogram> {
    let gauge = CounterResetHint::Gauge;
    let hints = [prev.counter_reset_hint, last.counter_reset_hint];
    let name = env.name();
    if is_rate && hints.contains(&gauge) {
        env.note_args(Note::NativeNotCounter(name));
    }
    if !is_rate && hints != [gauge, gauge] {
        env.note_args(Note::NativeNotGauge(name));
    }
    let mut h = (**last).clone();
    if !is_rate || !(reset_by_start || last.detect_reset(prev)) {
        match h.sub(prev) {
            Ok(o) if o.bounds_reconciled => {
                env.note_args(Note::MismatchedCustomBuckets(HistogramOperation::Subtraction));
            }
            Ok(_) => {}
            Err(_) => {
                env.note_args(Note::MixedExponentialCustom(name));
                return None;
            }
        }
    }
    h.counter_reset_hint = gauge;
    h.compact(0);
    Some(h)
}
