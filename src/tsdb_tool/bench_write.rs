//! `tsdb bench write`: appends the series of a file again and again to a new database, and says how fast that was.
//!
//! Scrapes are 30 seconds apart; each thread appends some thousand series, a hundred scrapes before it waits for the
//! others. Nothing is compacted meanwhile. Profiles are not written: the operating system's profilers make them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::Context;
use model::histogram::display::GoFloat;
use model::{Appendable, Clock, Labels, Sample, SeriesRef, SystemClock};
use tsdb::{Config, Db};

use super::go_text;
use super::progress::{Interrupt, Progress};
use crate::cli::BenchWriteFlags;

/// Time between two scrapes.
const SCRAPE_MS: i64 = 30_000;
/// Series that are appended by one thread.
const BATCH_SERIES: usize = 1000;
/// Scrapes a thread appends at a stretch. They span less than what a head takes out of order between series.
const ROUND_SCRAPES: usize = 100;

pub(super) fn bench(
    flags: &BenchWriteFlags,
    interrupt: &Interrupt,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let clock = SystemClock::new();
    if flags.out.exists() {
        std::fs::remove_dir_all(&flags.out).with_context(|| format!("remove {}", flags.out.display()))?;
    }
    let config = Config { exemplars_max: 0, ..Config::new(flags.out.join("storage")) };
    let db = Db::open(config, SystemClock::shared(), &prometheus::Registry::new())?;

    let (series, _) = stage("readData", &clock, out, |_| read_series(&flags.file, flags.metrics))?;
    let (total, seconds) = stage("ingestScrapes", &clock, out, |out| {
        let total = ingest(&db, &series, flags.scrapes, interrupt)?;
        writeln!(out, "ingestion completed")?;
        Ok(total)
    })?;
    writeln!(out, " > total samples: {total}")?;
    writeln!(out, " > samples/sec: {}", GoFloat(total as f64 / seconds))?;
    stage("stopStorage", &clock, out, |_| Ok(db.close()?))?;
    Ok(())
}

/// Says when a stage begins and ends; gives how many seconds it took too.
fn stage<T, W: Write>(
    name: &str,
    clock: &SystemClock,
    out: &mut W,
    work: impl FnOnce(&mut W) -> anyhow::Result<T>,
) -> anyhow::Result<(T, f64)> {
    writeln!(out, ">> start stage={name}")?;
    out.flush()?;
    let start = clock.monotonic();
    let done = work(out)?;
    let took = clock.monotonic() - start;
    writeln!(out, ">> completed stage={name} duration={}", go_text::duration_ns(took.as_nanos()))?;
    out.flush()?;
    Ok((done, took.as_secs_f64().max(1e-9)))
}

/// The labels of at most `limit` different series, one a line: `{"name":"value","name":"value"}`.
fn read_series(file: &Path, limit: usize) -> anyhow::Result<Vec<Labels>> {
    let input = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let (mut series, mut seen) = (Vec::new(), HashSet::new());
    for (i, line) in BufReader::new(input).lines().enumerate() {
        if series.len() >= limit {
            break;
        }
        let line = line.with_context(|| format!("read {}", file.display()))?;
        let plain = line.replace(['"', '{', '}'], "");
        let pairs = plain.split(',').map(|pair| {
            let (name, rest) = pair.split_once(':').with_context(|| {
                format!("{}: line {}: expected \"name\":\"value\", found {pair:?}", file.display(), i + 1)
            })?;
            Ok((name, rest.split(':').next().unwrap_or(rest)))
        });
        let labels = Labels::from_pairs(pairs.collect::<anyhow::Result<Vec<_>>>()?);
        if seen.insert(labels.clone()) {
            series.push(labels);
        }
    }
    Ok(series)
}

/// Appends all scrapes; gives the number of samples.
fn ingest(db: &Db, series: &[Labels], scrapes: usize, interrupt: &Interrupt) -> anyhow::Result<u64> {
    let total = AtomicU64::new(0);
    let batches: Vec<&[Labels]> = series.chunks(BATCH_SERIES).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(batches.len());
    let mut progress = Progress::new(false);
    for first in (0..scrapes).step_by(ROUND_SCRAPES) {
        let next = AtomicUsize::new(0);
        let work = || -> anyhow::Result<()> {
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                ingest_batch(db, batch, SCRAPE_MS * first as i64, interrupt, &total)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|t| t.join().expect("threads do not panic"))
        })?;
        let share = (first + ROUND_SCRAPES) as f64 / scrapes as f64;
        progress.show(Some(share), total.load(Ordering::Relaxed), "samples");
    }
    Ok(total.into_inner())
}

fn ingest_batch(
    db: &Db,
    batch: &[Labels],
    base_ms: i64,
    interrupt: &Interrupt,
    total: &AtomicU64,
) -> anyhow::Result<()> {
    let mut refs = vec![SeriesRef::NONE; batch.len()];
    let mut value = 123_456_789.0;
    for scrape in 1..=ROUND_SCRAPES as i64 {
        interrupt.check()?;
        value += 1000.0;
        let mut appender = db.appender()?;
        for (labels, series) in batch.iter().zip(&mut refs) {
            *series = appender.append(*series, labels, Sample::float(base_ms + scrape * SCRAPE_MS, value))?;
        }
        appender.commit()?;
        total.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
