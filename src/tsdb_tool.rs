//! `almanac tsdb …`: looks into data directories and makes blocks, with promtool's arguments and output.
//!
//! One file a command: [`list`], [`analyze`], [`dump`], [`openmetrics`] and [`rule_import`] (both `create-blocks-from`),
//! [`bench_write`]. What runs long shows where it is and ends cleanly when it is interrupted: [`progress`].

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use tsdb::ReadOnly;

use crate::cli::{BackfillCommand, BenchCommand, DumpFormat, TsdbCommand};
use progress::{Interrupt, Interrupted};

mod analyze;
mod bench_write;
mod dump;
mod go_text;
mod list;
mod openmetrics;
pub(crate) mod progress;
mod rule_import;
pub use rule_import::http_config;
#[cfg(test)]
mod tests;

/// Runs a command, with its output on standard output and a failure on standard error, and says whether it succeeded.
pub fn run(command: &TsdbCommand) -> bool {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let done = run_into(command, &mut out);
    match done.and_then(|()| out.flush().map_err(anyhow::Error::from)) {
        Ok(()) => true,
        // The reader of a pipe went away: it has what it wanted.
        Err(e)
            if e.downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            true
        }
        Err(e) if e.is::<Interrupted>() => {
            // What was printed before is whole lines.
            let _ = out.flush();
            eprintln!("{Interrupted}");
            false
        }
        Err(e) => {
            eprintln!("{e:#}");
            false
        }
    }
}

fn run_into(command: &TsdbCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        TsdbCommand::List { human_readable, path } => list::list(path, *human_readable, out),
        TsdbCommand::Analyze(flags) => analyze::analyze(flags, out),
        TsdbCommand::Dump { flags, format } => dump::dump(flags, *format, &Interrupt::watch()?, out),
        TsdbCommand::DumpOpenmetrics(flags) => {
            dump::dump(flags, DumpFormat::Openmetrics, &Interrupt::watch()?, out)
        }
        TsdbCommand::CreateBlocksFrom { shared, what } => match what {
            BackfillCommand::Openmetrics(flags) => {
                openmetrics::backfill(shared, flags, &Interrupt::watch()?, out)
            }
            BackfillCommand::Rules(flags) => rule_import::import(shared, flags, &Interrupt::watch()?),
        },
        TsdbCommand::Bench { what: BenchCommand::Write(flags) } => {
            bench_write::bench(flags, &Interrupt::watch()?, out)
        }
    }
}

fn open(path: &Path) -> anyhow::Result<ReadOnly> {
    ReadOnly::open(path).with_context(|| format!("cannot open the data directory {}", path.display()))
}

/// Shortest block that samples are put into, in milliseconds.
const BLOCK_MS: i64 = 2 * 3_600_000;

/// The longest range, of two hours and then three times the one before, that is not above `max_ms`.
fn compatible_block(max_ms: i64) -> i64 {
    let ranges = std::iter::successors(Some(BLOCK_MS), |r| r.checked_mul(3)).take(10);
    ranges.take_while(|r| *r <= max_ms).last().unwrap_or(BLOCK_MS)
}

/// A builder of a block whose samples are within `block_ms`. Prometheus's tools take a range twice as long for the chunks
/// of a block, so both end chunks at the same samples.
fn block_builder(output: &Path, block_ms: i64) -> anyhow::Result<tsdb::BlockBuilder> {
    Ok(tsdb::BlockBuilder::new(output, 2 * block_ms)?)
}
