//! The moments at which an expression is evaluated: evenly spaced, possibly just one, possibly none.

/// `count` moments from `start_ms` on, `step_ms` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start_ms: i64,
    pub(crate) step_ms: i64,
    pub(crate) count: usize,
    /// The end lies after the start, even if no other moment does.
    pub(crate) is_range: bool,
}

impl Grid {
    /// From `start_ms` up to and including `end_ms`. A step of 0 gives the start alone.
    pub(crate) fn new(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        if end_ms < start_ms {
            return Self { start_ms, step_ms: step_ms.max(1), count: 0, is_range: false };
        }
        if step_ms <= 0 {
            return Self::single(start_ms);
        }
        let count = end_ms.saturating_sub(start_ms) / step_ms + 1;
        Self { start_ms, step_ms, count: count as usize, is_range: end_ms > start_ms }
    }

    /// One moment.
    pub(crate) fn single(at_ms: i64) -> Self {
        Self { start_ms: at_ms, step_ms: 1, count: 1, is_range: false }
    }

    /// The moment with this index.
    #[inline]
    pub(crate) fn at(&self, index: usize) -> i64 {
        self.start_ms.saturating_add(self.step_ms.saturating_mul(index as i64))
    }

    /// The last moment; the start when there is none.
    pub(crate) fn last_ms(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    /// The moments at which the inside of a subquery is evaluated: multiples of `step_ms` that some window
    /// `(t - range, t]` of this grid holds.
    pub(crate) fn subquery(&self, window: &Shift, range_ms: i64, step_ms: i64) -> Self {
        let (first, last) = (window.apply(self.start_ms), window.apply(self.last_ms()));
        let bound = first.saturating_sub(range_ms);
        let mut start = step_ms.saturating_mul(bound / step_ms);
        if start <= bound {
            start = start.saturating_add(step_ms);
        }
        if self.count == 0 {
            return Self { start_ms: start, step_ms, count: 0, is_range: false };
        }
        Self::new(start, last, step_ms)
    }
}

/// What `@` and `offset` make of an evaluation time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shift {
    pub(crate) at_ms: Option<i64>,
    pub(crate) offset_ms: i64,
}

impl Shift {
    /// The time that is looked at when the expression is evaluated at `ts_ms`.
    #[inline]
    pub(crate) fn apply(&self, ts_ms: i64) -> i64 {
        self.at_ms.unwrap_or(ts_ms).saturating_sub(self.offset_ms)
    }

    /// Whether the evaluation time makes no difference.
    pub(crate) fn is_pinned(&self) -> bool {
        self.at_ms.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_both_ends() {
        assert_eq!(Grid::new(0, 100, 10).count, 11);
        assert_eq!(Grid::new(0, 99, 10).count, 10);
        assert_eq!(Grid::new(5, 5, 0), Grid::single(5));
        assert_eq!(Grid::new(5, 4, 1).count, 0);
    }

    #[test]
    fn subqueries_align_to_their_step() {
        let shift = Shift::default();
        let g = Grid::single(1_005).subquery(&shift, 50, 10);
        assert_eq!((g.start_ms, g.last_ms()), (960, 1_000));
        // The window is left open: a moment at its very start does not count.
        assert_eq!(Grid::single(1_000).subquery(&shift, 50, 10).start_ms, 960);
        // Division truncates toward zero, so negative starts move up.
        assert_eq!(Grid::single(0).subquery(&shift, 45, 10).start_ms, -40);
    }
}
