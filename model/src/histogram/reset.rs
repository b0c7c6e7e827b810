//! Whether a counter was reset between two histograms.

use super::arithmetic::{common_bounds, targets};
use super::bounds::upper_bound;
use super::buckets::Cells;
use super::layout::target_index;
use super::{CounterResetHint, FloatHistogram};

impl FloatHistogram {
    /// Whether the counter was reset between `previous` and this one: the hint says so, or any count is smaller, or a
    /// populated bucket is gone. A higher resolution or a narrower zero bucket comes only with a reset; lower resolution
    /// and a wider zero bucket are reconciled first.
    #[must_use]
    pub fn detect_reset(&self, previous: &FloatHistogram) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::CounterReset => return true,
            CounterResetHint::NotCounterReset => return false,
            // A gauge is treated as a counter, since a function for counters was applied to it.
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if !self.has_bounds_of(previous) {
                return self.less_within_common_bounds(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let zero = previous.zero_count_for(self.zero_threshold, None);
        if zero.threshold > self.zero_threshold || self.zero_count < zero.count {
            return true;
        }
        less(
            self.outside_zero(self.positive_cells(), self.schema),
            self.outside_zero(previous.positive_cells(), previous.schema),
        ) || less(
            self.outside_zero(self.negative_cells(), self.schema),
            self.outside_zero(previous.negative_cells(), previous.schema),
        )
    }

    /// Cells merged into this histogram's schema, without those in its zero bucket.
    fn outside_zero<'a>(&self, cells: Cells<'a>, from: i32) -> impl Iterator<Item = (i32, f64)> + use<'a> {
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let mut cells = cells
            .map(move |(i, c)| (if from == schema { i } else { target_index(i, from, schema) }, c))
            .peekable();
        let merged = std::iter::from_fn(move || {
            let (index, mut count) = cells.next()?;
            while let Some((_, more)) = cells.next_if(|(i, _)| *i == index) {
                count += more;
            }
            Some((index, count))
        });
        let custom = self.uses_custom_buckets();
        merged
            .skip_while(move |(i, _)| !custom && threshold > 0.0 && upper_bound(*i, schema, &[]) <= threshold)
    }

    /// Whether any bucket holds less than in `previous`, once both are rolled up to the bounds that both have.
    fn less_within_common_bounds(&self, previous: &FloatHistogram) -> bool {
        let bounds = common_bounds(&self.custom_values, &previous.custom_values);
        let rolled_up = |h: &FloatHistogram| {
            let mut sums = vec![0.0; bounds.len() + 1];
            for (target, count) in targets(h, &bounds).zip(&h.positive_buckets) {
                if let Some(sum) = sums.get_mut(target) {
                    *sum += count;
                }
            }
            sums
        };
        rolled_up(self).iter().zip(rolled_up(previous)).any(|(now, before)| *now < before)
    }
}

/// Whether any cell of `before` is larger than its match in `now`; one without match counts when it is populated.
fn less(now: impl Iterator<Item = (i32, f64)>, before: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = now.peekable();
    for (index, count) in before {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let fell = match now.peek() {
            Some((i, current)) if *i == index => *current < count,
            _ => count != 0.0,
        };
        if fell {
            return true;
        }
    }
    false
}
