//! A range vector as the answer of an instant query: the samples of the windows themselves.

use model::Samples;

use super::batch::{Batch, histogram_weight, is_absent, is_float};
use super::memory::HeldBytes;
use super::operator::Builder;
use super::source::{decode, to_columns};
use crate::error::{QueryError, Result};
use crate::functions::extended::extend_floats;
use crate::functions::window::SeriesColumns;
use crate::parser::ast::Boundary;
use crate::plan::Grid;
use crate::plan::node::WindowSource;
use crate::value::MatrixSeries;

/// The windows at the first moment of `grid`. `bool`: the name goes away at the end.
pub(crate) fn collect<'q>(
    builder: Builder<'q>,
    source: &'q WindowSource,
    grid: Grid,
) -> Result<(Vec<(MatrixSeries, bool)>, HeldBytes<'q>)> {
    match source {
        WindowSource::Selector { .. } => selector(builder, source, grid),
        WindowSource::Subquery { input, shift, range_ms, step_ms } => {
            let inner = grid.subquery(shift, *range_ms, *step_ms);
            let tally = builder.ctx.tallies.answer(builder.tally, inner);
            let mut operator = Builder { tally, ..builder }.vector(input, inner)?;
            let mut bytes = builder.ctx.memory.hold();
            let (mut rows, mut out) = (Batch::new(), Vec::new());
            while operator.next(&mut rows)? {
                builder.ctx.check()?;
                for (i, head) in rows.heads.iter().enumerate() {
                    let mut s = MatrixSeries { labels: head.labels.clone(), ..Default::default() };
                    push_row(&mut s, &rows, i, inner);
                    bytes.add(s.bytes())?;
                    builder.ctx.hold((s.floats.len() + s.histograms.len()) as u64)?;
                    out.push((s, head.drop_name));
                }
            }
            Ok((out, bytes))
        }
    }
}

/// Adds the samples of a row to a series.
pub(crate) fn push_row(s: &mut MatrixSeries, rows: &Batch, row: usize, grid: Grid) {
    s.floats.reserve_exact(rows.row(row).iter().filter(|v| is_float(**v)).count());
    for (step, v) in rows.row(row).iter().enumerate() {
        if is_float(*v) {
            s.floats.push((grid.at(step), *v));
        } else if !is_absent(*v)
            && let Some(h) = rows.histogram(row, step)
        {
            s.histograms.push((grid.at(step), h.clone()));
        }
    }
}

fn selector<'q>(
    builder: Builder<'q>,
    source: &WindowSource,
    grid: Grid,
) -> Result<(Vec<(MatrixSeries, bool)>, HeldBytes<'q>)> {
    let ctx = builder.ctx;
    let WindowSource::Selector { selection, shift, range_ms, boundary, .. } = source else {
        return Err(QueryError::execution("a range selector was expected"));
    };
    let end = shift.apply(grid.start_ms);
    let start = end - range_ms;
    let (before, after) = match boundary {
        Boundary::Plain => (0, 0),
        Boundary::Anchored => (ctx.lookback_ms, 0),
        Boundary::Smoothed => (ctx.lookback_ms, ctx.lookback_ms),
    };
    let mut stream = builder.selections.open(ctx, *selection)?;
    let (mut batch, mut out) = (Vec::new(), Vec::new());
    let mut bytes = ctx.memory.hold();
    let (mut samples, mut columns) = (Samples::new(), SeriesColumns::default());
    loop {
        ctx.check()?;
        stream.take(ctx, 256, &mut batch)?;
        if batch.is_empty() {
            return Ok((out, bytes));
        }
        for series in &batch {
            decode(ctx, series, start - before + 1, end + after, &mut samples)?;
            to_columns(&mut samples, false, &mut columns);
            if *boundary != Boundary::Plain {
                if !columns.histograms.is_empty() {
                    let name = if *boundary == Boundary::Anchored { "anchored" } else { "smoothed" };
                    let text = format!("{name} modifier is not supported with histograms");
                    return Err(QueryError::Execution(text));
                }
                extend_floats(&mut columns, start, end, *boundary == Boundary::Smoothed);
            }
            let count = columns.floats.len() as u64
                + columns.histograms.iter().map(|h| histogram_weight(h)).sum::<u64>();
            if count == 0 {
                continue;
            }
            ctx.hold(count)?;
            let mut counts = ctx.tallies.part(builder.tally);
            counts.add(0, count, count);
            ctx.tallies.add(builder.tally, &counts);
            let s = MatrixSeries {
                labels: series.labels.clone(),
                floats: columns.float_ts.iter().copied().zip(columns.floats.iter().copied()).collect(),
                histograms: columns
                    .histogram_ts
                    .iter()
                    .copied()
                    .zip(columns.histograms.iter().cloned())
                    .collect(),
            };
            bytes.add(s.bytes())?;
            out.push((s, false));
        }
    }
}
