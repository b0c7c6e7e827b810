//! `rate`, `increase`, `delta`, `irate`, `idelta` on plain windows. A window costs its ends and its resets; the samples
//! between are not looked at.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#rate>, `#increase`, `#delta`, `#irate`,
//! `#idelta`.

use std::sync::Arc;

use model::FloatHistogram;

use super::histogram_rate;
use super::window::{Env, SeriesColumns, Window};
use crate::annotations::Note;
use crate::error::Result;
use crate::exec::batch::Cell;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rate,
    Increase,
    Delta,
}

impl Kind {
    pub(crate) fn is_counter(self) -> bool {
        self != Self::Delta
    }
}

pub(crate) fn rate(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    extrapolated(w, env, Kind::Rate)
}

pub(crate) fn increase(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    extrapolated(w, env, Kind::Increase)
}

pub(crate) fn delta(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    extrapolated(w, env, Kind::Delta)
}

/// Finds the floats, from index `from` on, before which the counter started again: it fell, or its start timestamp says
/// so.
pub(crate) fn find_resets(c: &mut SeriesColumns, from: usize) {
    /// Floats that are compared at once: most runs have no reset.
    const RUN: usize = 32;
    let starts = &c.float_starts;
    let first = from.max(1);
    if first >= c.floats.len() {
        return;
    }
    if starts.is_empty() {
        let (before, here) = (&c.floats[first - 1..], &c.floats[first..]);
        for (run, (here, before)) in here.chunks(RUN).zip(before.chunks(RUN)).enumerate() {
            let fell = here.iter().zip(before).fold(false, |any, (v, prev)| any | (v < prev));
            if fell {
                let at = first + run * RUN;
                let falls = here.iter().zip(before).enumerate().filter(|(_, (v, prev))| v < prev);
                c.resets.extend(falls.map(|(i, _)| at + i));
            }
        }
        return;
    }
    c.resets.extend((first..c.floats.len()).filter(|i| {
        let i = *i;
        c.floats[i] < c.floats[i - 1]
            || is_start_reset(starts[i - 1], c.float_ts[i - 1], starts[i], c.float_ts[i])
    }));
}

/// Whether the start timestamp of a sample tells that the counter started anew after the sample before.
pub(crate) fn is_start_reset(prev_start: i64, prev_ts: i64, start: i64, ts: i64) -> bool {
    if start == 0 || start >= ts || start < prev_ts {
        return false;
    }
    if start > prev_ts {
        return true;
    }
    // The start lies on the sample before: a delta series, unless the start of that sample is not known either.
    prev_start <= prev_ts && prev_start != 0 && prev_start != prev_ts
}

/// Whether the time a sample stands for overlaps with the sample before.
pub(crate) fn starts_overlap(prev_start: i64, prev_ts: i64, start: i64) -> bool {
    start != 0 && start < prev_ts && start != prev_start
}

pub(crate) fn note_overlaps(times: &[i64], starts: &[i64], env: &mut Env<'_>) {
    let overlap = (1..starts.len()).any(|i| starts_overlap(starts[i - 1], times[i - 1], starts[i]));
    if overlap {
        let name = env.name();
        env.note(Note::StartTimeOverlap(name));
    }
}

enum Growth {
    Float(f64),
    Histogram(Option<FloatHistogram>),
}

fn extrapolated(w: &Window<'_>, env: &mut Env<'_>, kind: Kind) -> Result<Cell> {
    let (floats, histograms) = (w.floats(), w.histograms());
    if !floats.is_empty() && !histograms.is_empty() {
        let name = env.name();
        env.note(Note::MixedFloatsHistograms(name));
        return Ok(Cell::Absent);
    }
    let counter = kind.is_counter();
    let (times, starts, mut growth) = if histograms.is_empty() {
        let (Some(first), Some(last)) = (floats.first(), floats.last()) else { return Ok(Cell::Absent) };
        let starts = if counter { w.float_starts() } else { &[] };
        let mut growth = last - first;
        if counter {
            w.resets().for_each(|r| growth += floats[r - 1]);
            if !starts.is_empty() {
                note_overlaps(w.float_ts(), starts, env);
            }
        }
        (w.float_ts(), starts, Growth::Float(growth))
    } else {
        let starts = if counter { w.histogram_starts() } else { &[] };
        let growth = match histograms.len() {
            1 => None,
            _ => match histogram_rate::increase(w, starts, env, counter)? {
                Some(h) => Some(h),
                None => return Ok(Cell::Absent),
            },
        };
        (w.histogram_ts(), starts, Growth::Histogram(growth))
    };
    let (first_ts, last_ts) = (times[0], times[times.len() - 1]);
    let gaps = (times.len() - 1) as f64;
    let mut to_start = (first_ts - w.start_ms) as f64 / 1000.0;
    let mut to_end = (w.end_ms - last_ts) as f64 / 1000.0;
    let mut sampled = (last_ts - first_ts) as f64 / 1000.0;
    let average_gap = if gaps > 0.0 { sampled / gaps } else { 0.0 };
    let threshold = average_gap * 1.1;

    let known_start = starts.first().copied().filter(|s| *s != 0 && *s > w.start_ms && *s < first_ts);
    if let (true, Some(start)) = (counter, known_start) {
        // The counter was zero at its start, which lies in the window: nothing to extrapolate there.
        to_start = 0.0;
        sampled = (last_ts - start) as f64 / 1000.0;
        match &mut growth {
            Growth::Float(v) => *v += floats[0],
            Growth::Histogram(None) => growth = Growth::Histogram(Some((*histograms[0]).clone())),
            Growth::Histogram(Some(h)) => {
                if !histogram_rate::add(h, &histograms[0], env) {
                    return Ok(Cell::Absent);
                }
            }
        }
    } else if gaps == 0.0 {
        return Ok(Cell::Absent);
    } else {
        if to_start >= threshold {
            to_start = average_gap / 2.0;
        }
        if counter {
            to_start = to_zero(&growth, floats, histograms, sampled, to_start).min(to_start);
        }
    }
    if to_end >= threshold {
        to_end = average_gap / 2.0;
    }
    let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    if kind == Kind::Rate {
        factor /= env.range_ms as f64 / 1000.0;
    }
    Ok(match growth {
        Growth::Float(v) => Cell::Float(v * factor),
        Growth::Histogram(Some(mut h)) => {
            h.mul(factor);
            Cell::Histogram(Arc::new(h))
        }
        Growth::Histogram(None) => Cell::Absent,
    })
}

/// How long before the first sample a counter that grows like this was zero; `otherwise` when that cannot be said.
fn to_zero(
    growth: &Growth,
    floats: &[f64],
    histograms: &[Arc<FloatHistogram>],
    sampled: f64,
    otherwise: f64,
) -> f64 {
    match growth {
        Growth::Float(v) if *v > 0.0 && floats[0] >= 0.0 => sampled * (floats[0] / v),
        Growth::Histogram(Some(h)) if h.count > 0.0 && histograms[0].count >= 0.0 => {
            sampled * (histograms[0].count / h.count)
        }
        _ => otherwise,
    }
}

pub(crate) fn irate(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    instant(w, env, true)
}

pub(crate) fn idelta(w: &Window<'_>, env: &mut Env<'_>) -> Result<Cell> {
    instant(w, env, false)
}

/// One of the last two samples of a window.
#[derive(Clone, Copy)]
struct Last<'a> {
    ts: i64,
    start: i64,
    float: f64,
    histogram: Option<&'a Arc<FloatHistogram>>,
}

/// The last two samples, older first; `None` when there are fewer.
fn last_two<'a>(w: &Window<'a>) -> Option<[Last<'a>; 2]> {
    let float = |back: usize| {
        let i = w.floats().len().checked_sub(back)?;
        let start = w.float_starts().get(i).copied().unwrap_or(0);
        Some(Last { ts: w.float_ts()[i], start, float: w.floats()[i], histogram: None })
    };
    let histogram = |back: usize| {
        let i = w.histograms().len().checked_sub(back)?;
        let start = w.histogram_starts().get(i).copied().unwrap_or(0);
        Some(Last { ts: w.histogram_ts()[i], start, float: 0.0, histogram: Some(&w.histograms()[i]) })
    };
    let mut all: Vec<Last<'a>> =
        [float(2), float(1), histogram(2), histogram(1)].into_iter().flatten().collect();
    all.sort_by_key(|s| s.ts);
    match all.as_slice() {
        [.., a, b] => Some([*a, *b]),
        _ => None,
    }
}

fn instant(w: &Window<'_>, env: &mut Env<'_>, is_rate: bool) -> Result<Cell> {
    let Some([prev, last]) = last_two(w) else { return Ok(Cell::Absent) };
    let interval = (last.ts - prev.ts) as f64 / 1000.0;
    if interval == 0.0 {
        return Ok(Cell::Absent);
    }
    let reset_by_start = is_start_reset(prev.start, prev.ts, last.start, last.ts);
    match (prev.histogram, last.histogram) {
        (None, None) => {
            let reset = is_rate && (last.float < prev.float || reset_by_start);
            let growth = if reset { last.float } else { last.float - prev.float };
            Ok(Cell::Float(if is_rate { growth / interval } else { growth }))
        }
        (Some(a), Some(b)) => {
            let Some(mut h) = histogram_rate::instant(a, b, is_rate, reset_by_start, env) else {
                return Ok(Cell::Absent);
            };
            if is_rate {
                h.div(interval);
            }
            Ok(Cell::Histogram(Arc::new(h)))
        }
        _ => {
            let name = env.name();
            env.note_args(Note::MixedFloatsHistograms(name));
            Ok(Cell::Absent)
        }
    }
}
