//! Windows over a rollup: each is made of whole cells, which are put together step by step.

use model::Rollup;
use model::rollup::Summary;

use super::batch::clean;
use super::feed::seek;
use super::tally::Counts;
use crate::functions::rollup::{SummaryFunction, SummaryWindow};
use crate::plan::Grid;
use crate::plan::grid::Shift;

/// Moves windows `(t - range, t]` over a rollup.
pub(crate) struct Cells<'a> {
    rollup: &'a Rollup,
    range_ms: i64,
    /// The window is `rollup.cells[lo..hi]`.
    lo: usize,
    hi: usize,
    moved: (usize, usize),
    /// Resets of cells before the window.
    gone: usize,
    /// Values before resets of the window.
    resets: Vec<f64>,
}

impl<'a> Cells<'a> {
    pub(crate) fn new(rollup: &'a Rollup, range_ms: i64) -> Self {
        Self { rollup, range_ms, lo: 0, hi: 0, moved: (0, 0), gone: 0, resets: Vec::new() }
    }

    /// Moves on to the window that ends at `end_ms`, and puts its cells together.
    #[inline]
    pub(crate) fn move_to(&mut self, end_ms: i64) -> Summary {
        let ends = &self.rollup.ends_ms;
        // A cell lies in the window when its end does: bounds of windows are bounds of cells.
        let lo = seek(ends, self.lo, self.moved.0, end_ms.saturating_sub(self.range_ms));
        let hi = seek(ends, self.hi, self.moved.1, end_ms);
        self.moved = (lo - self.lo, hi - self.hi);
        (self.lo, self.hi) = (lo.min(hi), hi);
        let mut window = Summary::default();
        self.rollup.cells[self.lo..self.hi].iter().for_each(|c| window.append(c));
        window
    }

    /// Values before resets of the window, in order of time. Called once for each window.
    #[inline]
    fn resets(&mut self) -> &[f64] {
        self.resets.clear();
        let all = &self.rollup.resets;
        while all.get(self.gone).is_some_and(|r| r.cell < self.lo) {
            self.gone += 1;
        }
        let mut next = self.gone;
        let mut before: Option<&Summary> = None;
        for (i, cell) in self.rollup.cells.iter().enumerate().take(self.hi).skip(self.lo) {
            if let Some(before) = before.filter(|b| b.resets_before(cell)) {
                self.resets.push(before.last);
            }
            if cell.count > 0 {
                before = Some(cell);
            }
            while let Some(r) = all.get(next).filter(|r| r.cell == i) {
                self.resets.push(r.value);
                next += 1;
            }
        }
        &self.resets
    }
}

/// Fills the row of a series. Samples are counted as if they had been looked at. Gives the cells of the largest window.
pub(crate) fn fill(
    rollup: &Rollup,
    (grid, shift, range_ms): (Grid, Shift, i64),
    function: &mut SummaryFunction,
    counts: &mut Counts,
    row: &mut [f64],
) -> u64 {
    let mut cells = Cells::new(rollup, range_ms);
    let (mut largest, mut seen) = (0, 0);
    for (step, value) in row.iter_mut().enumerate() {
        let end_ms = shift.apply(grid.at(step));
        let summary = cells.move_to(end_ms);
        if summary.count == 0 {
            continue;
        }
        largest = largest.max((cells.hi - cells.lo) as u64);
        let new = cells.lo.max(seen)..cells.hi;
        let read = match step {
            0 => summary.count,
            _ if shift.is_pinned() => 0,
            _ => rollup.cells[new].iter().map(|c| c.count).sum(),
        };
        seen = cells.hi;
        counts.add(step, summary.count, read);
        let window = SummaryWindow { summary: &summary, resets: cells.resets(), end_ms };
        if let Some(v) = function.value(&window) {
            *value = clean(v);
        }
    }
    largest
}
