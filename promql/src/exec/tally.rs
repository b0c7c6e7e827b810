//! Counts of the samples that a query looks at, as its statistics give them.
//!
//! Two numbers are counted: *queryable* samples, of which a window counts all at every step, and samples *read*, of which
//! a window counts at every step only those that the step before did not hold. Leaves count into the tally of the grid
//! that they are evaluated on. What is below an invariant part or a subquery has a tally of its own, which is folded into
//! that of the grid outside when the query is over: at each step an invariant counts as if it had been evaluated there
//! and is read once; the inside of a subquery is not queryable, since the windows over it are, and is read at the first
//! outer step whose window holds it. Histograms count by their size. Source: promql/engine.go and util/stats of 3.14.

use parking_lot::Mutex;

use super::batch::{Batch, histogram_weight, is_float};
use super::memory::MemoryAccount;
use crate::error::Result;
use crate::plan::Grid;
use crate::plan::grid::Shift;

/// Names a tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TallyId(usize);

/// Counts of a grid, or of a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) queryable: u64,
    pub(crate) read: u64,
    /// By step; empty when nobody asks.
    pub(crate) queryable_by_step: Vec<u64>,
    /// By step; empty when nobody asks.
    pub(crate) read_by_step: Vec<u64>,
}

impl Counts {
    /// Counts samples of one step.
    #[inline]
    pub(crate) fn add(&mut self, step: usize, queryable: u64, read: u64) {
        self.queryable += queryable;
        self.read += read;
        if let Some(n) = self.queryable_by_step.get_mut(step) {
            *n += queryable;
        }
        if let Some(n) = self.read_by_step.get_mut(step) {
            *n += read;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.queryable += other.queryable;
        self.read += other.read;
        let add = |to: &mut Vec<u64>, from: &[u64]| to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        add(&mut self.queryable_by_step, &other.queryable_by_step);
        add(&mut self.read_by_step, &other.read_by_step);
    }

    /// Empty counts of the same shape.
    fn zeroed(&self) -> Self {
        Self {
            queryable_by_step: vec![0; self.queryable_by_step.len()],
            read_by_step: vec![0; self.read_by_step.len()],
            ..Self::default()
        }
    }
}

/// How a tally counts for the one outside.
#[derive(Clone, Copy, Debug)]
enum Inside {
    Root,
    /// Evaluated once for all steps.
    Invariant,
    /// A subquery whose windows a function looks at.
    Subquery {
        offset_ms: i64,
        range_ms: i64,
    },
    /// A subquery that is the answer itself.
    Answer,
}

struct Tally {
    outer: usize,
    inside: Inside,
    grid: Grid,
    counts: Counts,
}

/// All tallies of a query; a tally comes after the one outside of it.
pub(crate) struct Tallies {
    all: Mutex<Vec<Tally>>,
}

impl Tallies {
    /// The tallies of a query that is evaluated on `grid`.
    pub(crate) fn new(grid: Grid, by_step: bool) -> Self {
        let mut counts = Counts::default();
        if by_step {
            counts.queryable_by_step = vec![0; grid.count];
            counts.read_by_step = vec![0; grid.count];
        }
        Self { all: Mutex::new(vec![Tally { outer: 0, inside: Inside::Root, grid, counts }]) }
    }

    /// The tally of the query's own grid.
    pub(crate) fn root(&self) -> TallyId {
        TallyId(0)
    }

    /// A tally for what is evaluated once.
    pub(crate) fn invariant(&self, outer: TallyId, grid: Grid) -> TallyId {
        self.push(Tally { outer: outer.0, inside: Inside::Invariant, grid, counts: Counts::default() })
    }

    /// A tally for the inside of a subquery, which is evaluated on `grid`.
    pub(crate) fn subquery(
        &self,
        memory: &MemoryAccount,
        outer: TallyId,
        grid: Grid,
        window: Shift,
        range_ms: i64,
    ) -> Result<TallyId> {
        let mut counts = Counts::default();
        let by_step = {
            let all = self.all.lock();
            let o = &all[outer.0];
            // Some steps may be in no window, or it matters when the others are read.
            let gaps = o.grid.step_ms > range_ms || window.is_pinned();
            o.grid.count > 1 && (gaps || !o.counts.read_by_step.is_empty())
        };
        if by_step {
            memory.fits_column(grid.count)?;
            counts.read_by_step = vec![0; grid.count];
        }
        let inside = Inside::Subquery { offset_ms: window.offset_ms, range_ms };
        Ok(self.push(Tally { outer: outer.0, inside, grid, counts }))
    }

    /// A tally for the inside of a subquery that is the answer.
    pub(crate) fn answer(&self, outer: TallyId, grid: Grid) -> TallyId {
        self.push(Tally { outer: outer.0, inside: Inside::Answer, grid, counts: Counts::default() })
    }

    fn push(&self, tally: Tally) -> TallyId {
        let mut all = self.all.lock();
        all.push(tally);
        TallyId(all.len() - 1)
    }

    /// Empty counts to be filled on the side and given to [`Tallies::add`].
    pub(crate) fn part(&self, id: TallyId) -> Counts {
        self.all.lock()[id.0].counts.zeroed()
    }

    pub(crate) fn add(&self, id: TallyId, part: &Counts) {
        self.all.lock()[id.0].counts.merge(part);
    }

    /// Counts the cells of rows that were read from storage, `samples` in all.
    pub(crate) fn add_batch(&self, id: TallyId, rows: &Batch, samples: u64) {
        let mut part = self.part(id);
        if part.queryable_by_step.is_empty() && part.read_by_step.is_empty() {
            (part.queryable, part.read) = (samples, samples);
            return self.add(id, &part);
        }
        for row in 0..rows.rows() {
            for (step, v) in rows.row(row).iter().enumerate() {
                let n = match rows.histogram(row, step) {
                    _ if is_float(*v) => 1,
                    Some(h) => histogram_weight(h),
                    None => continue,
                };
                part.add(step, n, n);
            }
        }
        self.add(id, &part);
    }

    /// What the query looked at in all.
    pub(crate) fn finish(&self) -> Counts {
        let mut all = std::mem::take(&mut *self.all.lock());
        while all.len() > 1 {
            let Some(inner) = all.pop() else { break };
            fold(&inner, &mut all[inner.outer]);
        }
        all.pop().map(|t| t.counts).unwrap_or_default()
    }
}

fn fold(inner: &Tally, outer: &mut Tally) {
    let (from, to, grid) = (&inner.counts, &mut outer.counts, outer.grid);
    let read_first = |to: &mut Counts| to.add(0, 0, from.read);
    match inner.inside {
        Inside::Root => {}
        Inside::Invariant => {
            to.queryable += from.queryable * grid.count as u64;
            to.queryable_by_step.iter_mut().for_each(|n| *n += from.queryable);
            read_first(to);
        }
        Inside::Answer => {
            to.add(grid.count.saturating_sub(1), from.queryable, 0);
            read_first(to);
        }
        Inside::Subquery { .. } if grid.count <= 1 || from.read_by_step.is_empty() => read_first(to),
        Inside::Subquery { offset_ms, range_ms } => {
            for (step, n) in from.read_by_step.iter().enumerate().filter(|(_, n)| **n > 0) {
                let at = inner.grid.at(step).saturating_add(offset_ms);
                let late = at.saturating_sub(grid.start_ms).max(0);
                let first = (late as u64).div_ceil(grid.step_ms.max(1) as u64) as usize;
                let first = first.min(grid.count - 1);
                // Between two windows: evaluated and never looked at.
                if at > grid.at(first).saturating_sub(range_ms) {
                    to.add(first, 0, *n);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subqueries_are_read_at_the_step_that_sees_them() {
        let memory = MemoryAccount::default();
        let t = Tallies::new(Grid::new(100, 300, 100), true);
        let inner = Grid::new(60, 300, 10);
        let s = t.subquery(&memory, t.root(), inner, Shift::default(), 50).expect("a small grid");
        let mut part = t.part(s);
        (0..inner.count).for_each(|step| part.add(step, 1, 1));
        t.add(s, &part);
        // Windows are (50, 100], (150, 200], (250, 300]: five moments each.
        let counts = t.finish();
        assert_eq!((counts.queryable, counts.read), (0, 15));
        assert_eq!(counts.read_by_step, [5, 5, 5]);
    }

    #[test]
    fn invariants_are_read_once_and_looked_at_everywhere() {
        let t = Tallies::new(Grid::new(0, 20, 10), true);
        let i = t.invariant(t.root(), Grid::single(0));
        t.add(i, &Counts { queryable: 4, read: 4, ..Counts::default() });
        let counts = t.finish();
        assert_eq!((counts.queryable, counts.read), (12, 4));
        assert_eq!(counts.queryable_by_step, [4, 4, 4]);
        assert_eq!(counts.read_by_step, [4, 0, 0]);
    }
}
