//! `tsdb create-blocks-from openmetrics`: blocks from a file with timestamps.
//!
//! The file is read once for its range of time and then once for each block, so that memory holds one block at a time.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use model::{Labels, SampleValue, SystemClock};
use scraper::exposition::{Entry, Format, Parser};
use tsdb::BlockBuilder;

use super::list::print_blocks;
use super::progress::{Interrupt, Progress};
use crate::cli::{BackfillFlags, OpenmetricsFlags};

/// Lines between two looks at the clock and at signals.
const LINES_BETWEEN: u64 = 4096;

pub(super) fn backfill(
    shared: &BackfillFlags,
    flags: &OpenmetricsFlags,
    interrupt: &Interrupt,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let body =
        std::fs::read(&flags.input).with_context(|| format!("cannot read {}", flags.input.display()))?;
    let mut pass = Pass {
        body: &body,
        extra: &flags.labels,
        interrupt,
        progress: Progress::new(shared.quiet),
        samples: 0,
    };
    let (mint, maxt) = pass.time_range().context("getting min and max timestamp")?;
    pass.create_blocks((mint, maxt), shared, &flags.output, out).context("block creation: process blocks")
}

/// What every reading of the file shares.
struct Pass<'a> {
    body: &'a [u8],
    extra: &'a [(String, String)],
    interrupt: &'a Interrupt,
    progress: Progress,
    /// Samples that are in blocks.
    samples: u64,
}

impl Pass<'_> {
    fn create_blocks(
        &mut self,
        (mint, maxt): (i64, i64),
        shared: &BackfillFlags,
        output: &Path,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let block_ms = super::compatible_block(shared.max_block_duration.ms());
        let clock = SystemClock::new();
        let (mut with_header, mut start) = (true, mint - mint.rem_euclid(block_ms));
        while start <= maxt {
            // Of the whole work, by time: this block's share begins and ends here.
            let share = |t: i64| (t - mint).clamp(0, maxt - mint) as f64 / (maxt - mint).max(1) as f64;
            let end = start + block_ms;
            let mut builder = super::block_builder(output, block_ms)?;
            let next = self.fill((start, end), (share(start), share(end)), &mut builder)?;
            self.interrupt.check()?;
            if let Some(block) = builder.finish(&clock)?
                && !shared.quiet
            {
                self.progress.clear();
                print_blocks(&[block], with_header, shared.human_readable, out)?;
                out.flush()?;
                with_header = false;
            }
            match next {
                Some(next) => start = next - next.rem_euclid(block_ms),
                None => break,
            }
        }
        Ok(())
    }

    /// Timestamps of the oldest and the newest sample.
    fn time_range(&mut self) -> anyhow::Result<(i64, i64)> {
        let mut range: Option<(i64, i64)> = None;
        let mut parser = Parser::new(Format::OpenMetrics, self.body);
        let mut lines = 0;
        while let Some(entry) = parser.next().context("next")? {
            lines += 1;
            if lines % LINES_BETWEEN == 0 {
                self.interrupt.check()?;
                self.progress.show(Some(parser.position() as f64 / self.body.len() as f64), lines, "lines");
            }
            let Entry::Series(tail) = entry else { continue };
            let Some(t) = tail.timestamp_ms else { bail!("expected timestamp for series got none") };
            let (low, high) = range.unwrap_or((t, t));
            range = Some((low.min(t), high.max(t)));
        }
        Ok(range.unwrap_or((0, 0)))
    }

    /// Adds the samples within `[start, end)`; gives the time of the first one behind, if there is any.
    fn fill(
        &mut self,
        (start, end): (i64, i64),
        (share, share_after): (f64, f64),
        builder: &mut BlockBuilder,
    ) -> anyhow::Result<Option<i64>> {
        let mut next: Option<i64> = None;
        let mut parser = Parser::new(Format::OpenMetrics, self.body);
        let (mut found, mut lines) = (Vec::new(), 0_u64);
        while let Some(entry) = parser.next().context("parse")? {
            lines += 1;
            if lines.is_multiple_of(LINES_BETWEEN) {
                self.interrupt.check()?;
                let read = parser.position() as f64 / self.body.len() as f64;
                self.progress.show(Some(share + (share_after - share) * read), self.samples, "samples");
            }
            let Entry::Series(tail) = entry else { continue };
            let labels = |found: &mut Vec<_>| -> anyhow::Result<Labels> {
                found.clear();
                parser.labels(found).context("parse")?;
                Ok(labelled(found, self.extra))
            };
            let Some(t) = tail.timestamp_ms else {
                bail!("expected timestamp for series {}, got none", labels(&mut found)?)
            };
            if t >= end {
                next = Some(next.map_or(t, |n| n.min(t)));
            } else if t >= start {
                let labels = labels(&mut found)?;
                builder.append(&labels, t, SampleValue::Float(tail.value)).context("add sample")?;
                self.samples += 1;
            }
        }
        Ok(next)
    }
}

/// The labels found; those of the command line take the place of others of their name.
fn labelled(found: &[scraper::exposition::Pair<'_>], extra: &[(String, String)]) -> Labels {
    let mut labels = model::LabelsBuilder::new();
    for (n, v) in found {
        labels.set(n, v);
    }
    for (n, v) in extra {
        labels.set(n, v);
    }
    labels.build()
}
