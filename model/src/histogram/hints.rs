//! Counter-reset hints as a store gives them back.
//!
//! What a sample's hint says is relative to the sample before it, which may have come later, or not at all. So a store
//! derives hints when it reads, chunk by chunk, as Prometheus's chunks do.

use std::sync::Arc;

use super::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, HistogramValue};
use crate::chunk::Samples;
use crate::staleness::is_stale_nan;

/// The hint that a sample has when it is read back. A reset begins a new chunk, so of all samples of a chunk but the first
/// it is known that they follow none. Of the first, nothing is known: the chunk before may not be there.
#[must_use]
pub fn read_back_hint(last: Option<&FloatHistogram>, h: &FloatHistogram) -> CounterResetHint {
    use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
    if matches!(h.counter_reset_hint, Gauge | CounterReset) {
        return h.counter_reset_hint;
    }
    let Some(last) = last.filter(|l| l.counter_reset_hint != Gauge) else {
        return Unknown;
    };
    if is_stale_nan(h.sum) {
        return NotCounterReset;
    }
    if is_stale_nan(last.sum) {
        return Unknown;
    }
    if h.schema != last.schema || h.zero_threshold != last.zero_threshold {
        return Unknown;
    }
    let other_bounds = h.schema == CUSTOM_BUCKETS_SCHEMA && !h.has_bounds_of(last);
    let unknown = FloatHistogram { counter_reset_hint: Unknown, ..h.clone() };
    if other_bounds || unknown.detect_reset(last) { Unknown } else { NotCounterReset }
}

/// Gives the histograms of one chunk, the samples from `from` on, their hints.
pub fn settle_hints(samples: &mut Samples, from: usize) {
    if samples.histograms.is_empty() {
        return;
    }
    let mut last: Option<Arc<FloatHistogram>> = None;
    for value in &mut samples.histograms[from..] {
        let Some(value) = value else {
            last = None;
            continue;
        };
        let float = value.to_float();
        let hint = read_back_hint(last.as_deref(), &float);
        match value {
            HistogramValue::Int(h) if h.counter_reset_hint != hint => {
                Arc::make_mut(h).counter_reset_hint = hint
            }
            HistogramValue::Float(h) if h.counter_reset_hint != hint => {
                Arc::make_mut(h).counter_reset_hint = hint
            }
            _ => {}
        }
        let mut settled = float;
        if settled.counter_reset_hint != hint {
            Arc::make_mut(&mut settled).counter_reset_hint = hint;
        }
        last = Some(settled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_those_of_chunks() {
        let histogram = |count: f64, hint| FloatHistogram {
            count,
            counter_reset_hint: hint,
            ..FloatHistogram::default()
        };
        use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
        let mut last: Option<Arc<FloatHistogram>> = None;
        for (count, given, expect) in [
            (5.0, NotCounterReset, Unknown),
            (6.0, Unknown, NotCounterReset),
            (4.0, Unknown, Unknown),
            (5.0, Unknown, NotCounterReset),
            (6.0, CounterReset, CounterReset),
            (7.0, Gauge, Gauge),
            (8.0, Unknown, Unknown),
        ] {
            let mut h = histogram(count, given);
            h.counter_reset_hint = read_back_hint(last.as_deref(), &h);
            assert_eq!(h.counter_reset_hint, expect, "{count}");
            last = Some(Arc::new(h));
        }
    }
}
