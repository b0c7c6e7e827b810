//! Rollups: samples of a series summed up ahead, so that whoever looks at long windows need not decode them.
//!
//! A [`Rollup`] has cells `(end - width, end]`, left open and right closed as the windows of range selectors are, and of each
//! cell what the functions that can be answered from it need ([`Summary`]). A store gives one in place of chunks when it is asked by
//! [`crate::Querier::select_rollup`] and when the answer is the one that the samples would give, up to the order of floating-point
//! additions; see there. Cells combine in order of time: [`Summary::append`], [`Rollup::push`].
//!
//! Not here: which functions those are (crate `promql`), and where sums come from (the long-term store).

use std::fmt;

use crate::kahan;
use crate::staleness::is_stale_nan;

/// Parts of a [`Summary`] that are needed; the others may be left at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RollupColumns(u8);

impl RollupColumns {
    /// [`Summary::count`] and [`Summary::is_stale`], which are always there.
    pub const COUNT: Self = Self(0);
    /// [`Summary::sum`] and [`Summary::compensation`].
    pub const SUM: Self = Self(1);
    /// [`Summary::min`].
    pub const MIN: Self = Self(2);
    /// [`Summary::max`].
    pub const MAX: Self = Self(4);
    /// [`Summary::first`] and [`Summary::first_ms`].
    pub const FIRST: Self = Self(8);
    /// [`Summary::last`] and [`Summary::last_ms`].
    pub const LAST: Self = Self(16);
    /// [`Rollup::resets`]. Asks for first and last samples too.
    pub const RESETS: Self = Self(32 | 16 | 8);
    /// Everything.
    pub const ALL: Self = Self(63);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// As a number, and back.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The columns with these [`RollupColumns::bits`].
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether all of `other` are needed.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which cells are wanted: `(end - width_ms, end]` for every `end` that lies a multiple of `period_ms` from `end_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollupRequest {
    /// Length of a cell, above 0.
    pub width_ms: i64,
    /// Distance of neighbouring ends, at least `width_ms`. Samples between two cells are not needed.
    pub period_ms: i64,
    /// End of some cell.
    pub end_ms: i64,
    /// What of each cell.
    pub columns: RollupColumns,
    /// Whether start timestamps of samples make a difference.
    pub starts: bool,
}

impl RollupRequest {
    /// The request that serves windows `(t - range_ms, t]` at `count` times `t` from `first_ms` on, `step_ms` apart: each window
    /// is made of whole cells. `None` when there is no window.
    #[must_use]
    pub fn for_windows(
        first_ms: i64,
        step_ms: i64,
        count: usize,
        range_ms: i64,
        columns: RollupColumns,
        starts: bool,
    ) -> Option<Self> {
        if range_ms <= 0 || count == 0 {
            return None;
        }
        let (width_ms, period_ms) = match (count, step_ms) {
            (1, _) | (_, ..=0) => (range_ms, range_ms),
            (_, step) if step >= range_ms => (range_ms, step),
            (_, step) => (gcd(range_ms, step), gcd(range_ms, step)),
        };
        Some(Self { width_ms, period_ms, end_ms: first_ms, columns, starts })
    }

    /// A request whose cells serve the windows of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (columns, starts) = (self.columns.and(other.columns), self.starts || other.starts);
        let apart = self.end_ms.abs_diff(other.end_ms);
        let same = (self.width_ms, self.period_ms) == (other.width_ms, other.period_ms)
            && apart.is_multiple_of(self.period_ms.unsigned_abs());
        if same {
            return Self { columns, starts, ..self };
        }
        let lengths = [self.width_ms, self.period_ms, other.width_ms, other.period_ms];
        let unit = lengths.into_iter().fold(i64::try_from(apart).unwrap_or(1), gcd).max(1);
        Self { width_ms: unit, period_ms: unit, end_ms: self.end_ms, columns, starts }
    }

    /// Whether all bounds of cells are multiples of `grid_ms`.
    #[must_use]
    pub fn is_on(&self, grid_ms: i64) -> bool {
        [self.width_ms, self.period_ms, self.end_ms].iter().all(|ms| ms % grid_ms == 0)
    }

    /// End of the cell that holds `t`; `None` when none does.
    #[must_use]
    #[inline]
    pub fn cell_of(&self, t: i64) -> Option<i64> {
        let end = self.end_from(t);
        (t > end.saturating_sub(self.width_ms)).then_some(end)
    }

    /// End of the first cell that does not end before `t`.
    #[must_use]
    #[inline]
    pub fn end_from(&self, t: i64) -> i64 {
        let into = t.saturating_sub(self.end_ms).saturating_sub(1).rem_euclid(self.period_ms);
        t.saturating_add(self.period_ms - 1 - into)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Greater numbers may overflow when they are added in another order, so that samples have to be looked at.
const MAX_SUMMED: f64 = 1e290;

/// Whether a number can be summed up ahead.
#[must_use]
#[inline]
pub fn is_summable(value: f64) -> bool {
    value.abs() <= MAX_SUMMED || !value.is_finite()
}

/// What some neighbouring samples of a series come to. Stale markers are not samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Number of samples.
    pub count: u64,
    /// Their sum without `compensation`.
    pub sum: f64,
    /// What rounding took from `sum`; 0 when the sum is not finite.
    pub compensation: f64,
    /// The first smallest number among them; NaN when all are NaN.
    pub min: f64,
    /// The first greatest one.
    pub max: f64,
    /// Value of the first sample.
    pub first: f64,
    /// Value of the last sample.
    pub last: f64,
    /// Timestamp of the first sample.
    pub first_ms: i64,
    /// Timestamp of the last sample.
    pub last_ms: i64,
    /// A stale marker comes after the last sample, or there is nothing but stale markers.
    pub is_stale: bool,
}

/// No sample.
impl Default for Summary {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            compensation: 0.0,
            min: f64::NAN,
            max: f64::NAN,
            first: 0.0,
            last: 0.0,
            first_ms: 0,
            last_ms: 0,
            is_stale: false,
        }
    }
}

impl Summary {
    /// Adds a sample that comes after those at hand; a stale marker is one that counts as none.
    #[inline]
    pub fn add(&mut self, timestamp_ms: i64, value: f64) {
        if is_stale_nan(value) {
            self.is_stale = true;
            return;
        }
        self.is_stale = false;
        if self.count == 0 {
            (self.first, self.first_ms, self.min, self.max) = (value, timestamp_ms, value, value);
        }
        self.count += 1;
        (self.sum, self.compensation) = kahan::add(value, self.sum, self.compensation);
        self.extremes(value, value);
        (self.last, self.last_ms) = (value, timestamp_ms);
    }

    /// Adds what samples come to that are later than those at hand.
    #[inline]
    pub fn append(&mut self, later: &Self) {
        if later.count == 0 {
            self.is_stale |= later.is_stale;
            return;
        }
        if self.count == 0 {
            *self = *later;
            return;
        }
        self.count += later.count;
        (self.sum, self.compensation) = kahan::add(later.sum, self.sum, self.compensation);
        self.compensation += later.compensation;
        self.extremes(later.min, later.max);
        (self.last, self.last_ms, self.is_stale) = (later.last, later.last_ms, later.is_stale);
    }

    #[inline]
    fn extremes(&mut self, min: f64, max: f64) {
        if min < self.min || self.min.is_nan() {
            self.min = min;
        }
        if max > self.max || self.max.is_nan() {
            self.max = max;
        }
    }

    /// The sum with what rounding took from it.
    #[must_use]
    #[inline]
    pub fn total(&self) -> f64 {
        if self.sum.is_finite() { self.sum + self.compensation } else { self.sum }
    }

    /// Whether a counter fell between the samples at hand and later ones.
    #[must_use]
    #[inline]
    pub fn resets_before(&self, later: &Self) -> bool {
        self.count > 0 && later.count > 0 && later.first < self.last
    }
}

/// A sample before a counter reset, within one cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reset {
    /// Index of the cell.
    pub cell: usize,
    /// The value before the counter fell.
    pub value: f64,
}

/// From which samples an answer was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Resolutions(u8);

impl Resolutions {
    /// None.
    pub const NONE: Self = Self(0);
    /// Samples as they are.
    pub const RAW: Self = Self(1);
    /// Sums over five minutes.
    pub const MINUTES_5: Self = Self(2);
    /// Sums over an hour.
    pub const HOUR: Self = Self(4);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As a number, and back.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The resolutions with these [`Resolutions::bits`].
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }
}

/// `raw`, `5m`, `1h`, or several with commas between them.
impl fmt::Display for Resolutions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (bit, name) in [(Self::RAW, "raw"), (Self::MINUTES_5, "5m"), (Self::HOUR, "1h")] {
            if self.0 & bit.0 != 0 {
                write!(f, "{comma}{name}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// Cells of one series that have samples or stale markers, in order of time.
#[derive(Clone, Debug, Default)]
pub struct Rollup {
    /// Ends of the cells, strictly rising.
    pub ends_ms: Vec<i64>,
    /// One for each end.
    pub cells: Vec<Summary>,
    /// Resets within cells, in order of time. A reset between two cells is not among them: [`Summary::resets_before`].
    pub resets: Vec<Reset>,
    /// What the cells were made of.
    pub resolutions: Resolutions,
}

impl Rollup {
    /// Whether there is no cell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Forgets all cells and keeps the buffers.
    pub fn clear(&mut self) {
        self.ends_ms.clear();
        self.cells.clear();
        self.resets.clear();
        self.resolutions = Resolutions::NONE;
    }

    /// Adds a sample, or a stale marker, that is later than everything at hand, to the cell that ends at `end_ms`.
    #[inline]
    pub fn push_sample(&mut self, end_ms: i64, timestamp_ms: i64, value: f64) {
        if self.ends_ms.last() != Some(&end_ms) {
            self.ends_ms.push(end_ms);
            self.cells.push(Summary::default());
        }
        let at = self.cells.len() - 1;
        let cell = &mut self.cells[at];
        if cell.count > 0 && value < cell.last {
            self.resets.push(Reset { cell: at, value: cell.last });
        }
        cell.add(timestamp_ms, value);
    }

    /// Adds what later samples of the cell that ends at `end_ms` come to, and the values before resets among them.
    #[inline]
    pub fn push(&mut self, end_ms: i64, later: &Summary, resets: impl Iterator<Item = f64>) {
        if self.ends_ms.last() == Some(&end_ms) {
            let at = self.cells.len() - 1;
            let cell = &mut self.cells[at];
            if cell.resets_before(later) {
                self.resets.push(Reset { cell: at, value: cell.last });
            }
            cell.append(later);
        } else {
            self.ends_ms.push(end_ms);
            self.cells.push(*later);
        }
        let cell = self.cells.len() - 1;
        self.resets.extend(resets.map(|value| Reset { cell, value }));
    }

    /// Bytes of the columns.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.ends_ms.len() * size_of::<i64>()
            + self.cells.len() * size_of::<Summary>()
            + self.resets.len() * size_of::<Reset>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(first: i64, step: i64, count: usize, range: i64) -> RollupRequest {
        RollupRequest::for_windows(first, step, count, range, RollupColumns::SUM, false).expect("windows")
    }

    #[test]
    fn cells_make_up_windows() {
        let r = request(100, 10, 3, 30);
        assert_eq!((r.width_ms, r.period_ms), (10, 10));
        assert_eq!([90, 91, 100, 101].map(|t| r.cell_of(t)), [90, 100, 100, 110].map(Some));
        let r = request(100, 50, 3, 30);
        assert_eq!((r.width_ms, r.period_ms), (30, 50));
        assert_eq!([50, 51, 70, 71, 100, 120, 121].map(|t| r.cell_of(t)), {
            [Some(50), None, None, Some(100), Some(100), None, Some(150)]
        });
        assert!(r.is_on(10) && r.is_on(5) && !r.is_on(20) && !r.is_on(30));
        assert_eq!(request(7, 0, 1, 30).period_ms, 30);
        assert_eq!(RollupRequest::for_windows(0, 1, 0, 5, RollupColumns::COUNT, false), None);
    }

    #[test]
    fn unions_serve_both() {
        let (a, b) = (request(100, 50, 3, 30), request(150, 50, 9, 30));
        assert_eq!(a.union(b), a);
        let u = a.union(request(100, 50, 3, 20));
        assert_eq!((u.width_ms, u.period_ms), (10, 10));
        assert_eq!(a.union(request(93, 50, 3, 30)).width_ms, 1);
    }

    #[test]
    fn parts_in_order_come_to_the_whole() {
        let stale = crate::stale_nan();
        let values = [3.0, 5.0, 2.0, stale, f64::NAN, 1e100, -0.0, 7.0, 1.0, -1e100, stale, 4.0, stale];
        let mut whole = Rollup::default();
        values.iter().enumerate().for_each(|(i, v)| whole.push_sample(100, i as i64, *v));
        for cut in 0..=values.len() {
            let (mut a, mut b) = (Rollup::default(), Rollup::default());
            values[..cut].iter().enumerate().for_each(|(i, v)| a.push_sample(100, i as i64, *v));
            (cut..values.len()).for_each(|i| b.push_sample(100, i as i64, values[i]));
            if let Some(later) = b.cells.first() {
                a.push(100, later, b.resets.iter().map(|r| r.value));
            }
            let key = |r: &Rollup| {
                let c = r.cells[0];
                let bits = [c.min, c.max, c.first, c.last].map(f64::to_bits);
                (c.count, bits, c.first_ms, c.last_ms, c.is_stale, c.total().is_nan(), r.resets.clone())
            };
            assert_eq!(key(&a), key(&whole), "cut at {cut}");
        }
        assert_eq!(whole.resets.iter().map(|r| r.value).collect::<Vec<_>>(), [5.0, 1e100, 7.0, 1.0]);
    }

    #[test]
    fn resolutions_have_names() {
        let all = Resolutions::RAW.and(Resolutions::MINUTES_5).and(Resolutions::HOUR);
        assert_eq!(all.to_string(), "raw,5m,1h");
        assert_eq!(Resolutions::from_bits(Resolutions::HOUR.bits()).to_string(), "1h");
    }
}
