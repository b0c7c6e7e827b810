//! Repeats what was evaluated once at every step.

use super::batch::{Batch, Cell, rows_bytes};
use super::context::Context;
use super::memory::HeldBytes;
use super::operator::{BoxOperator, Operator};
use crate::error::Result;
use crate::plan::Grid;

pub(crate) struct Repeat<'q> {
    ctx: &'q Context<'q>,
    input: BoxOperator<'q>,
    grid: Grid,
    once: Batch,
    /// Rows of `once` that were handed on.
    done: usize,
    held: u64,
    bytes: HeldBytes<'q>,
}

impl<'q> Repeat<'q> {
    pub(crate) fn new(ctx: &'q Context<'q>, input: BoxOperator<'q>, grid: Grid) -> Self {
        Self { ctx, input, grid, once: Batch::new(), done: 0, held: 0, bytes: ctx.memory.hold() }
    }
}

impl Operator for Repeat<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        self.ctx.release(std::mem::take(&mut self.held));
        if self.done >= self.once.rows() {
            self.done = 0;
            if self.grid.count == 0 || !self.input.next(&mut self.once)? {
                self.once.reset(1);
                return Ok(false);
            }
        }
        let end = (self.done + super::exchange::rows_per_batch(self.grid.count)).min(self.once.rows());
        // One float and one reference for every step, at most.
        let columns = if self.once.histograms.is_empty() { 1 } else { 2 };
        self.bytes.set(rows_bytes((end - self.done) * columns, self.grid.count))?;
        out.reserve_rows(end - self.done);
        for row in self.done..end {
            let at = out.push_row(self.once.heads[row].clone());
            match self.once.cell(row, 0) {
                Cell::Absent => {}
                Cell::Float(v) => out.row_mut(at).fill(v),
                Cell::Histogram(h) => {
                    (0..self.grid.count).for_each(|step| out.set_histogram(at, step, h.clone()));
                }
            }
        }
        self.done = end;
        self.held = out.samples();
        self.ctx.hold(self.held)?;
        Ok(true)
    }
}
