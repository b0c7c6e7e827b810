//! Instant selectors: the last sample of each series within the lookback, at every step.

use model::{Rollup, Samples, Series, is_stale_nan};

use super::batch::{ABSENT, Batch, Head, clean, rows_bytes};
use super::context::Context;
use super::duplicates::Duplicates;
use super::exchange::{RowFiller, RowHistograms, fill_rows, rows_per_batch};
use super::feed::seek;
use super::memory::HeldBytes;
use super::operator::{Builder, Operator};
use super::rollup::Cells;
use super::source::{SeriesStream, decode, rollup_of, strip_buckets};
use crate::annotations::Notes;
use crate::error::Result;
use crate::functions::extended;
use crate::parser::ast::Boundary;
use crate::plan::Grid;
use crate::plan::grid::Shift;
use crate::plan::node::{Instant, Reads};

/// Reads one selection.
pub(crate) struct InstantSelector<'q> {
    builder: Builder<'q>,
    node: &'q Instant,
    grid: Grid,
    stream: Option<SeriesStream>,
    series: Vec<Series>,
    /// Looked after when names are dropped.
    duplicates: Option<Duplicates<'q>>,
    held: u64,
    bytes: HeldBytes<'q>,
}

impl<'q> InstantSelector<'q> {
    pub(crate) fn new(builder: Builder<'q>, node: &'q Instant, grid: Grid) -> Self {
        let ctx = builder.ctx;
        let drops = node.reads != Reads::Value && !ctx.delayed_names();
        let duplicates = drops.then(|| match builder.selections.one_name(node.selection) {
            true => Duplicates::new(ctx).of_one_name(),
            false => Duplicates::new(ctx),
        });
        Self {
            builder,
            node,
            grid,
            duplicates,
            stream: None,
            series: Vec::new(),
            held: 0,
            bytes: builder.ctx.memory.hold(),
        }
    }
}

impl Operator for InstantSelector<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        let ctx = self.builder.ctx;
        ctx.release(std::mem::take(&mut self.held));
        if self.grid.count == 0
            || (self.node.reads == Reads::StartTimestamp && !ctx.config.use_start_timestamps)
        {
            return Ok(false);
        }
        if self.stream.is_none() {
            self.stream = Some(self.builder.selections.open(ctx, self.node.selection)?);
        }
        let Some(stream) = &mut self.stream else { return Ok(false) };
        ctx.check()?;
        stream.take(ctx, rows_per_batch(self.grid.count), &mut self.series)?;
        if self.series.is_empty() {
            return Ok(false);
        }
        self.bytes.set(rows_bytes(self.series.len(), self.grid.count))?;
        out.reserve_rows(self.series.len());
        let drops = self.node.reads != Reads::Value;
        for s in &self.series {
            if let Some(d) = &mut self.duplicates {
                d.meet(&s.labels);
            }
            let labels = if drops { ctx.drop_name(&s.labels) } else { s.labels.clone() };
            out.push_row(Head { labels, drop_name: drops });
        }
        let stats_only = self.builder.selections.stats_only(self.node.selection);
        let (node, grid, series) = (self.node, self.grid, self.series.as_slice());
        fill_rows(ctx, out, out.values.len() * 4, || Filler {
            ctx,
            node,
            grid,
            series,
            stats_only,
            samples: Samples::new(),
            notes: Notes::default(),
        })?;
        if let Some(d) = &mut self.duplicates {
            d.check(out)?;
        }
        self.held = out.samples();
        ctx.hold(self.held)?;
        self.bytes.set(out.bytes())?;
        // The values between samples were read by nobody.
        if self.node.boundary != Boundary::Smoothed {
            ctx.tallies.add_batch(self.builder.tally, out, self.held);
        }
        Ok(true)
    }
}

struct Filler<'a> {
    ctx: &'a Context<'a>,
    node: &'a Instant,
    grid: Grid,
    series: &'a [Series],
    stats_only: bool,
    samples: Samples,
    notes: Notes,
}

impl RowFiller for Filler<'_> {
    fn fill(&mut self, row: usize, cells: &mut [f64], histograms: &mut RowHistograms) -> Result<()> {
        let lookback = self.ctx.lookback_ms;
        let shift = self.node.shift;
        let first = shift.apply(self.grid.start_ms);
        let last = shift.apply(self.grid.last_ms());
        let series = &self.series[row];
        if let Some(rollup) = rollup_of(series) {
            self.fill_from(rollup, cells);
            return Ok(());
        }
        // The time of a sample is not smoothed.
        if self.node.boundary == Boundary::Smoothed && self.node.reads == Reads::Value {
            decode(self.ctx, series, first - lookback + 1, last + lookback, &mut self.samples)?;
            if self.stats_only {
                strip_buckets(&mut self.samples);
            }
            return extended::smooth_series(
                &mut self.samples,
                (self.grid, shift, lookback),
                (&series.labels, self.node.site),
                &mut self.notes,
                cells,
                histograms,
            );
        }
        if self.node.reads == Reads::Value && !self.stats_only && is_plain(series) {
            return self.fill_floats(row, cells);
        }
        decode(self.ctx, series, first - lookback + 1, last, &mut self.samples)?;
        if self.stats_only {
            strip_buckets(&mut self.samples);
        }
        // Pinned, the time of a sample is looked up without the offset, among the samples that the offset leaves.
        let pinned = self.node.reads != Reads::Value && shift.is_pinned();
        let shift = if pinned { Shift { offset_ms: 0, ..shift } } else { shift };
        let samples = &self.samples;
        let times = samples.timestamps_ms.as_slice();
        // Samples before `next` are at or before the time looked at.
        let mut next = 0;
        for (step, cell) in cells.iter_mut().enumerate() {
            let at = shift.apply(self.grid.at(step));
            while next < times.len() && times[next] <= at {
                next += 1;
            }
            let Some(i) = next.checked_sub(1) else { continue };
            if times[i] <= at - lookback {
                continue;
            }
            *cell = match samples.histogram(i) {
                Some(h) if is_stale_nan(h.sum()) => ABSENT,
                None if is_stale_nan(samples.values[i]) => ABSENT,
                found => match (self.node.reads, found) {
                    (Reads::Timestamp, _) => times[i] as f64 / 1000.0,
                    (Reads::StartTimestamp, _) => samples.start_timestamp_ms(i) as f64 / 1000.0,
                    (Reads::Value, None) => clean(samples.values[i]),
                    (Reads::Value, Some(h)) => {
                        // Neighbouring steps often see the same sample: convert it once.
                        let same = histograms
                            .last()
                            .filter(|_| step > 0 && last_seen(times, i, shift.apply(self.grid.at(step - 1))));
                        let value = match same {
                            Some((s, h)) if *s + 1 == step => h.clone(),
                            _ => h.to_float(),
                        };
                        histograms.push((step, value));
                        ABSENT
                    }
                },
            };
        }
        Ok(())
    }

    fn finish(self) -> Notes {
        self.notes
    }
}

impl Filler<'_> {
    /// Fills a row from what samples come to.
    fn fill_from(&self, rollup: &Rollup, row: &mut [f64]) {
        let mut cells = Cells::new(rollup, self.ctx.lookback_ms);
        for (step, cell) in row.iter_mut().enumerate() {
            let found = cells.move_to(self.node.shift.apply(self.grid.at(step)));
            if found.count > 0 && !found.is_stale {
                *cell = match self.node.reads {
                    Reads::Value => clean(found.last),
                    Reads::Timestamp | Reads::StartTimestamp => found.last_ms as f64 / 1000.0,
                };
            }
        }
    }

    /// The fast path: one chunk of floats after the other is decoded, and only those in which some step finds its sample.
    fn fill_floats(&mut self, row: usize, cells: &mut [f64]) -> Result<()> {
        let (lookback, shift) = (self.ctx.lookback_ms, self.node.shift);
        let samples = &mut self.samples;
        samples.clear();
        let mut chunks = self.series[row].chunks.iter().peekable();
        // Samples before `next` are at or before the time looked at.
        let (mut next, mut moved) = (0, 0);
        for (step, cell) in cells.iter_mut().enumerate() {
            let at = shift.apply(self.grid.at(step));
            while let Some(chunk) = chunks.next_if(|c| c.mint <= at) {
                if chunk.maxt <= at - lookback {
                    continue;
                }
                // All at hand are before those of the next chunk: the last one may be needed yet.
                let last = samples.timestamps_ms.last().copied().zip(samples.values.last().copied());
                samples.clear();
                last.into_iter().for_each(|(t, v)| samples.push_float(t, v));
                (next, moved) = (0, 0);
                chunk.decode(chunk.mint, chunk.maxt, samples)?;
            }
            let seen = seek(&samples.timestamps_ms, next, moved, at);
            (next, moved) = (seen, seen - next);
            let Some(i) = next.checked_sub(1) else { continue };
            let (t, v) = (samples.timestamps_ms[i], samples.values[i]);
            if t <= at - lookback || is_stale_nan(v) {
                continue;
            }
            *cell = clean(v);
        }
        Ok(())
    }
}

/// Whether all samples are floats without start timestamps, in chunks that do not overlap.
fn is_plain(series: &Series) -> bool {
    let chunks = &series.chunks;
    chunks.iter().all(|c| c.encoding().is_floats()) && chunks.is_sorted_by(|a, b| a.maxt < b.mint)
}

/// Whether sample `i` was the last one already at time `at`.
fn last_seen(times: &[i64], i: usize, at: i64) -> bool {
    times[i] <= at && times.get(i + 1).is_none_or(|t| *t > at)
}
