//! Functions of windows that are answered from a rollup: from what the samples of a window come to, without the samples.
//!
//! Each gives what its twin over samples gives, up to the order of additions in sums and averages. Functions that are not here
//! need the samples.

use model::RollupColumns;
use model::rollup::Summary;

use super::columns::{Ends, Extrapolation};
use super::rate::Kind;

/// What a function needs of the samples; `None` when it needs all of them.
pub(crate) fn columns(func: &str) -> Option<RollupColumns> {
    Some(match func {
        "count_over_time" | "present_over_time" | "absent_over_time" => RollupColumns::COUNT,
        "sum_over_time" | "avg_over_time" => RollupColumns::SUM,
        "min_over_time" => RollupColumns::MIN,
        "max_over_time" => RollupColumns::MAX,
        "first_over_time" | "ts_of_first_over_time" => RollupColumns::FIRST,
        "last_over_time" | "ts_of_last_over_time" => RollupColumns::LAST,
        "delta" => RollupColumns::FIRST.and(RollupColumns::LAST),
        "rate" | "increase" | "resets" => RollupColumns::RESETS,
        _ => return None,
    })
}

/// A window: what its samples, of which there is at least one, come to, and the values before resets in order of time.
#[derive(Clone, Copy)]
pub(crate) struct SummaryWindow<'a> {
    pub(crate) summary: &'a Summary,
    pub(crate) resets: &'a [f64],
    pub(crate) end_ms: i64,
}

/// A function over the windows of one series after the other.
pub(crate) enum SummaryFunction {
    /// One that looks at a window and nothing else.
    Plain(fn(&SummaryWindow<'_>) -> f64),
    /// `rate`, `increase`, `delta`.
    Growth(Kind, Extrapolation),
}

impl SummaryFunction {
    /// The function with this name over windows of `range_ms`; `None` when it needs samples.
    pub(crate) fn new(func: &str, range_ms: i64) -> Option<Self> {
        let growth = |kind| Self::Growth(kind, Extrapolation::new(kind, range_ms));
        Some(match func {
            "count_over_time" => Self::Plain(|w| w.summary.count as f64),
            "present_over_time" | "absent_over_time" => Self::Plain(|_| 1.0),
            "sum_over_time" => Self::Plain(|w| w.summary.total()),
            "avg_over_time" => Self::Plain(mean),
            "min_over_time" => Self::Plain(|w| w.summary.min),
            "max_over_time" => Self::Plain(|w| w.summary.max),
            "first_over_time" => Self::Plain(|w| w.summary.first),
            "last_over_time" => Self::Plain(|w| w.summary.last),
            "ts_of_first_over_time" => Self::Plain(|w| w.summary.first_ms as f64 / 1000.0),
            "ts_of_last_over_time" => Self::Plain(|w| w.summary.last_ms as f64 / 1000.0),
            "resets" => Self::Plain(|w| w.resets.len() as f64),
            "delta" => growth(Kind::Delta),
            "rate" => growth(Kind::Rate),
            "increase" => growth(Kind::Increase),
            _ => return None,
        })
    }

    /// The value at a window; `None` when there is none.
    #[inline]
    pub(crate) fn value(&mut self, w: &SummaryWindow<'_>) -> Option<f64> {
        let s = w.summary;
        let (kind, extrapolation) = match self {
            Self::Plain(f) => return Some(f(w)),
            Self::Growth(kind, extrapolation) => (*kind, extrapolation),
        };
        if s.count < 2 {
            return None;
        }
        let mut growth = s.last - s.first;
        if kind.is_counter() {
            w.resets.iter().for_each(|value| growth += value);
        }
        let ends =
            Ends { samples: s.count as usize, first: s.first, first_ms: s.first_ms, last_ms: s.last_ms };
        Some(extrapolation.carry_on(&ends, growth, w.end_ms))
    }
}

/// The mean of a window, rounded as over samples.
fn mean(w: &SummaryWindow<'_>) -> f64 {
    let (s, n) = (w.summary, w.summary.count as f64);
    if s.sum.is_finite() { s.sum / n + s.compensation / n } else { s.sum }
}
