//! Spreads the rows of a batch over threads. Each thread gets a run of neighbouring series and the cells of their rows,
//! so the outcome does not depend on who is faster.

use std::sync::Arc;

use model::FloatHistogram;

use super::batch::Batch;
use super::context::Context;
use crate::annotations::Notes;
use crate::error::{QueryError, Result};

/// Cells and samples that a thread should have at least: going through them takes several times as long as starting it.
const CELLS_PER_THREAD_MIN: usize = 65_536;

/// Cells between two looks at the clock.
const CELLS_PER_CHECK: usize = 64;

/// Histograms of a row that was filled: step and value.
pub(crate) type RowHistograms = Vec<(usize, Arc<FloatHistogram>)>;

/// What one thread needs to fill rows.
pub(crate) trait RowFiller: Send {
    /// Fills the cells of row `row`; histograms go to `histograms`, and their cells may be left alone.
    fn fill(&mut self, row: usize, cells: &mut [f64], histograms: &mut RowHistograms) -> Result<()>;

    /// Annotations and counts gathered so far.
    fn finish(self) -> Notes;
}

/// Fills all rows of `batch`. `cost` is the number of cells and samples to be gone through.
pub(crate) fn fill_rows<F: RowFiller>(
    ctx: &Context<'_>,
    batch: &mut Batch,
    cost: usize,
    make: impl Fn() -> F + Sync,
) -> Result<()> {
    let (rows, steps) = (batch.rows(), batch.steps());
    if rows == 0 || steps == 0 {
        return Ok(());
    }
    let threads = ctx.threads.min(cost / CELLS_PER_THREAD_MIN).min(rows).max(1);
    let filled = if threads == 1 {
        vec![fill_run(ctx, &make, 0, steps, &mut batch.values)]
    } else {
        let per_thread = rows.div_ceil(threads);
        let make = &make;
        std::thread::scope(|scope| {
            let handles: Vec<_> = batch
                .values
                .chunks_mut(per_thread * steps)
                .enumerate()
                .map(|(i, cells)| scope.spawn(move || fill_run(ctx, make, i * per_thread, steps, cells)))
                .collect();
            handles
                .into_iter()
                .map(|h| {
                    h.join().unwrap_or_else(|_| {
                        Err(QueryError::execution("unexpected error: a worker thread of the query failed"))
                    })
                })
                .collect()
        })
    };
    for part in filled {
        let (histograms, notes) = part?;
        ctx.merge_notes(notes);
        for (row, step, h) in histograms {
            batch.set_histogram(row, step, h);
        }
    }
    Ok(())
}

type Filled = (Vec<(usize, usize, Arc<FloatHistogram>)>, Notes);

fn fill_run<F: RowFiller>(
    ctx: &Context<'_>,
    make: &impl Fn() -> F,
    first_row: usize,
    steps: usize,
    cells: &mut [f64],
) -> Result<Filled> {
    let mut filler = make();
    let mut all = Vec::new();
    let mut of_row = RowHistograms::new();
    // Asking for the time costs as much as a row of one step.
    let rows_per_check = (CELLS_PER_CHECK / steps).max(1);
    for (i, row) in cells.chunks_mut(steps).enumerate() {
        if i % rows_per_check == 0 {
            ctx.check()?;
        }
        filler.fill(first_row + i, row, &mut of_row)?;
        all.extend(of_row.drain(..).map(|(step, h)| (first_row + i, step, h)));
    }
    Ok((all, filler.finish()))
}

/// Rows that a batch should have.
pub(crate) fn rows_per_batch(steps: usize) -> usize {
    const CELLS_PER_BATCH: usize = 131_072;
    /// Some rows at least, so that a batch is worth its while; of very long ones fewer.
    const CELLS_PER_BATCH_MAX: usize = 8 * CELLS_PER_BATCH;
    let steps = steps.max(1);
    (CELLS_PER_BATCH / steps).clamp((CELLS_PER_BATCH_MAX / steps).clamp(1, 8), 2_048)
}
