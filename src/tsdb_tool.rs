//! `almanac tsdb …`: looks into data directories and makes blocks, with promtool's arguments and output.

use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use model::calendar::DateTime;
use model::histogram::display::GoFloat;
use model::labels::{METRIC_NAME, Quoted};
use model::{HistogramValue, Labels, Matcher, Queryable, SampleValue, Samples, SelectHints, SystemClock};
use scraper::exposition::{Entry, Format, Parser};
use tsdb::{Analysis, BlockBuilder, BlockInfo, ReadOnly};

use crate::cli::{AnalyzeFlags, BackfillFlags, DumpFlags, DumpFormat, TsdbCommand};

/// Shortest block that samples are put into, in milliseconds.
const BLOCK_MS: i64 = 2 * 3_600_000;
/// Characters a column of a table takes at least, and between columns.
const COLUMN_MIN: usize = 13;
const COLUMN_GAP: usize = 2;

/// Runs a command, with its output on standard output and a failure on standard error, and says whether it succeeded.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn run(command: &TsdbCommand) -> bool {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let done = match command {
        TsdbCommand::List { human_readable, path } => list(path, *human_readable, &mut out),
        TsdbCommand::Analyze(flags) => analyze(flags, &mut out),
        TsdbCommand::Dump { flags, format } => dump(flags, *format, &mut out),
        TsdbCommand::DumpOpenmetrics(flags) => dump(flags, DumpFormat::Openmetrics, &mut out),
        TsdbCommand::CreateBlocksFrom { what } => backfill(what.flags(), &mut out),
    };
    match done.and_then(|()| out.flush().map_err(anyhow::Error::from)) {
        Ok(()) => true,
        // The reader of a pipe went away: it has what it wanted.
        Err(e)
            if e.downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            true
        }
        Err(e) => {
            eprintln!("{e:#}");
            false
        }
    }
}

// === list ===

fn list(path: &Path, human_readable: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let db = open(path)?;
    print_blocks(&db.blocks(), true, human_readable, out)
}

fn open(path: &Path) -> anyhow::Result<ReadOnly> {
    ReadOnly::open(path).with_context(|| format!("cannot open the data directory {}", path.display()))
}

fn print_blocks(
    blocks: &[BlockInfo],
    with_header: bool,
    human_readable: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    const HEADER: [&str; 8] =
        ["BLOCK ULID", "MIN TIME", "MAX TIME", "DURATION", "NUM SAMPLES", "NUM CHUNKS", "NUM SERIES", "SIZE"];
    let mut rows: Vec<[String; 8]> = Vec::new();
    if with_header {
        rows.push(HEADER.map(str::to_owned));
    }
    let time = |ms: i64| if human_readable { date(ms) } else { ms.to_string() };
    for b in blocks {
        rows.push([
            b.ulid.clone(),
            time(b.min_time),
            time(b.max_time),
            go_duration(b.max_time - b.min_time),
            b.samples.to_string(),
            b.chunks.to_string(),
            b.series.to_string(),
            if human_readable { bytes(b.bytes) } else { b.bytes.to_string() },
        ]);
    }
    let width = |column: usize| {
        let longest = rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        (longest + COLUMN_GAP).max(COLUMN_MIN)
    };
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(HEADER.len() - 1) {
            write!(out, "{cell:<width$}")?;
        }
        writeln!(out, "{}", row[HEADER.len() - 1])?;
    }
    Ok(())
}

/// As Go prints a time: `2006-01-02 15:04:05 +0000 UTC`.
fn date(ms: i64) -> String {
    let d = DateTime::from_ms(ms);
    let (year, month, day) = (d.year, d.month, d.day);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} +0000 UTC", d.hour, d.minute, d.second)
}

/// As Go prints a duration: `2h0m0s`, `1.5s`, `20ms`.
fn go_duration(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    if ms == 0 {
        return "0s".into();
    }
    if ms < 1000 {
        return format!("{sign}{ms}ms");
    }
    let (h, m, s, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let fraction = format!(".{rest:03}");
    let seconds = format!("{s}{}s", if rest == 0 { "" } else { fraction.trim_end_matches('0') });
    match (h, m) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, _) => format!("{sign}{m}m{seconds}"),
        _ => format!("{sign}{h}h{m}m{seconds}"),
    }
}

/// All units that are not zero: `1MiB5KiB12B`.
fn bytes(mut n: u64) -> String {
    let mut parts = Vec::new();
    for (i, unit) in ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().enumerate() {
        if !n.is_multiple_of(1024) || i == 0 && n == 0 {
            parts.push(format!("{}{unit}", n % 1024));
        }
        n /= 1024;
        if n == 0 {
            break;
        }
    }
    parts.reverse();
    parts.concat()
}

// === analyze ===

fn analyze(flags: &AnalyzeFlags, out: &mut impl Write) -> anyhow::Result<()> {
    let matchers = match flags.matchers.as_str() {
        "" => Vec::new(),
        text => promql::parser::parse_selector(text)?,
    };
    let db = open(&flags.path)?;
    let a = db.analyze(flags.block.as_deref(), &matchers)?;
    writeln!(out, "Block ID: {}", a.block.ulid)?;
    writeln!(out, "Duration: {}", go_duration(a.block.max_time - a.block.min_time))?;
    writeln!(out, "Total Series: {}", a.block.series)?;
    if !matchers.is_empty() {
        writeln!(out, "Matcher: {}", flags.matchers)?;
    }
    writeln!(out, "Label names: {}", a.label_names)?;
    if !matchers.is_empty() {
        writeln!(out, "Matched series: {}", a.matched_series)?;
    }
    writeln!(out, "Postings (unique label pairs): {}", a.label_pairs)?;
    writeln!(out, "Postings entries (total label pairs): {}", a.entries)?;
    for (title, list) in [
        ("Label pairs most involved in churning", &a.churning_pairs),
        ("Label names most involved in churning", &a.churning_names),
        ("Most common label pairs", &a.common_pairs),
        ("Label names with highest cumulative label value length", &a.value_bytes),
        ("Highest cardinality labels", &a.values),
        ("Highest cardinality metric names", &a.metric_names),
    ] {
        writeln!(out, "\n{title}:")?;
        for (name, count) in list.iter().take(flags.limit) {
            writeln!(out, "{count} {name}")?;
        }
    }
    if flags.extended {
        print_chunks(a, out)?;
    }
    Ok(())
}

fn print_chunks(a: Analysis, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "\nCompaction analysis:\n")?;
    let c = a.chunks;
    for (what, list) in [
        ("samples per float chunk", c.float_samples),
        ("bytes per float chunk", c.float_bytes),
        ("samples per histogram chunk", c.histogram_samples),
        ("bytes per histogram chunk", c.histogram_bytes),
        ("buckets per histogram chunk", c.histogram_buckets),
    ] {
        print_distribution(what, list, c.total, out)?;
    }
    Ok(())
}

fn print_distribution(
    what: &str,
    mut list: Vec<usize>,
    total: usize,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    list.sort_unstable();
    let (Some(min), Some(max)) = (list.first().copied(), list.last().copied()) else {
        writeln!(out, "{what}: N/A\n")?;
        return Ok(());
    };
    let mut step = 10;
    while step < (max - min) / 10 && step <= 10_000 {
        step *= 10;
    }
    let (start, end) = (min - min % step, max - max % step + step);
    let mut buckets = vec![0_usize; (end - start) / step + 1];
    list.iter().for_each(|n| buckets[(n - start) / step] += 1);
    writeln!(out, "{what} (min/avg/max): {min}/{}/{max}", list.iter().sum::<usize>() / list.len())?;
    let digits = |n: usize| n.to_string().len();
    let (left, right) = (digits(end), digits(end + step));
    let count_len = digits(buckets.iter().copied().max().unwrap_or(0));
    for (i, count) in buckets.iter().enumerate() {
        let bar = "#".repeat(100 * count / total.max(1));
        let (low, high) = (i * step + start + 1, (i + 1) * step + start);
        writeln!(out, "[{low:left$}, {high:right$}]: {count:count_len$} {bar}")?;
    }
    writeln!(out)?;
    Ok(())
}

// === dump ===

fn dump(flags: &DumpFlags, format: DumpFormat, out: &mut impl Write) -> anyhow::Result<()> {
    let mut sets: Vec<Vec<Matcher>> = Vec::new();
    for m in &flags.matchers {
        sets.push(promql::parser::parse_selector(m).with_context(|| format!("--match {m}"))?);
    }
    let clock = SystemClock::shared();
    let db = open(&flags.path)?.queryable(flags.max_time, flags.sandbox.as_deref(), clock)?;
    let querier = db.querier(flags.min_time, flags.max_time)?;
    // Several selectors may find one series; each is given once, in order.
    let hints = SelectHints::default();
    let mut samples = Samples::new();
    let mut give = |series: model::Series| -> anyhow::Result<()> {
        match format {
            DumpFormat::Seriesjson => return write_json(&series.labels, out),
            DumpFormat::Prom | DumpFormat::Openmetrics => {}
        }
        model::chunk::decode_chunks(&series.chunks, flags.min_time, flags.max_time, &mut samples)?;
        match format {
            DumpFormat::Openmetrics => write_openmetrics(&series.labels, &samples, out),
            _ => write_samples(&series.labels, &samples, out),
        }
    };
    if let [matchers] = sets.as_slice() {
        let mut set = querier.select(matchers, &hints)?;
        while let Some(series) = set.next()? {
            give(series)?;
        }
    } else {
        let mut all: BTreeMap<Labels, model::Series> = BTreeMap::new();
        for matchers in &sets {
            let mut set = querier.select(matchers, &hints)?;
            while let Some(series) = set.next()? {
                all.entry(series.labels.clone()).or_insert(series);
            }
        }
        all.into_values().try_for_each(give)?;
    }
    if format == DumpFormat::Openmetrics {
        writeln!(out, "# EOF")?;
    }
    Ok(())
}

fn write_samples(labels: &Labels, samples: &Samples, out: &mut impl Write) -> anyhow::Result<()> {
    let name = pairs(labels, ", ", |_| true);
    for s in samples.iter() {
        match s.value {
            SampleValue::Float(v) => writeln!(out, "{name} {} {}", GoFloat(v), s.timestamp_ms)?,
            SampleValue::Histogram(HistogramValue::Int(h)) => {
                writeln!(out, "{name} {} {}", h.to_float(), s.timestamp_ms)?;
            }
            SampleValue::Histogram(HistogramValue::Float(h)) => {
                writeln!(out, "{name} {h} {}", s.timestamp_ms)?;
            }
        }
    }
    Ok(())
}

fn write_openmetrics(labels: &Labels, samples: &Samples, out: &mut impl Write) -> anyhow::Result<()> {
    let name = format!("{}{}", labels.metric_name(), pairs(labels, ",", |n| n != METRIC_NAME));
    for s in samples.iter() {
        // Where histograms begin, the format has nothing to offer.
        let SampleValue::Float(v) = s.value else { break };
        writeln!(out, "{name} {} {:.3}", GoFloat(v), s.timestamp_ms as f64 / 1000.0)?;
    }
    Ok(())
}

fn write_json(labels: &Labels, out: &mut impl Write) -> anyhow::Result<()> {
    let map: BTreeMap<&str, &str> = labels.iter().collect();
    serde_json::to_writer(&mut *out, &map)?;
    writeln!(out)?;
    Ok(())
}

/// All labels that pass in braces.
fn pairs(labels: &Labels, separator: &str, keep: impl Fn(&str) -> bool) -> String {
    let text = |n: &str, v: &str| match model::labels::is_legacy_label_name(n) {
        true => format!("{n}={}", Quoted(v)),
        false => format!("{}={}", Quoted(n), Quoted(v)),
    };
    let kept: Vec<String> = labels.iter().filter(|(n, _)| keep(n)).map(|(n, v)| text(n, v)).collect();
    format!("{{{}}}", kept.join(separator))
}

// === create-blocks-from ===

fn backfill(flags: &BackfillFlags, out: &mut impl Write) -> anyhow::Result<()> {
    let body =
        std::fs::read(&flags.input).with_context(|| format!("cannot read {}", flags.input.display()))?;
    let (mint, maxt) = time_range(&body).context("getting min and max timestamp")?;
    let block_ms = compatible_block(flags.max_block_duration.ms());
    let progress = std::io::stderr().is_terminal() && !flags.quiet;
    let clock = SystemClock::shared();
    let (mut with_header, mut start) = (true, mint - mint.rem_euclid(block_ms));
    while start <= maxt {
        let end = start + block_ms;
        if progress {
            let done = (start - mint).max(0) as f64 / (maxt - mint).max(1) as f64;
            eprint!("\r{:3.0} %\r", done * 100.0);
        }
        let mut builder = BlockBuilder::new(&flags.output)?;
        let next = fill(&body, start, end, &flags.labels, &mut builder).context("process blocks")?;
        if let Some(block) = builder.finish(&*clock).context("process blocks")?
            && !flags.quiet
        {
            print_blocks(&[block], with_header, flags.human_readable, out)?;
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
fn time_range(body: &[u8]) -> anyhow::Result<(i64, i64)> {
    let mut range: Option<(i64, i64)> = None;
    let mut parser = Parser::new(Format::OpenMetrics, body);
    while let Some(entry) = parser.next().context("next")? {
        let Entry::Series(tail) = entry else { continue };
        let Some(t) = tail.timestamp_ms else { bail!("expected timestamp for series got none") };
        let (low, high) = range.unwrap_or((t, t));
        range = Some((low.min(t), high.max(t)));
    }
    Ok(range.unwrap_or((0, 0)))
}

/// Adds the samples within `[start, end)`; gives the time of the first one behind, if there is any.
fn fill(
    body: &[u8],
    start: i64,
    end: i64,
    extra: &[(String, String)],
    builder: &mut BlockBuilder,
) -> anyhow::Result<Option<i64>> {
    let mut next: Option<i64> = None;
    let mut parser = Parser::new(Format::OpenMetrics, body);
    let mut found = Vec::new();
    while let Some(entry) = parser.next().context("parse")? {
        let Entry::Series(tail) = entry else { continue };
        found.clear();
        parser.labels(&mut found).context("parse")?;
        let given = found.iter().map(|(n, v)| (n.as_ref(), v.as_ref()));
        let labels =
            || Labels::from_pairs(given.clone().chain(extra.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
        let Some(t) = tail.timestamp_ms else {
            bail!("expected timestamp for series {}, got none", labels())
        };
        if t >= end {
            next = Some(next.map_or(t, |n| n.min(t)));
        } else if t >= start {
            builder.append(&labels(), t, SampleValue::Float(tail.value)).context("add sample")?;
        }
    }
    Ok(next)
}

/// The longest range, of two hours and then three times the one before, that is not above `max_ms`.
fn compatible_block(max_ms: i64) -> i64 {
    let ranges = std::iter::successors(Some(BLOCK_MS), |r| r.checked_mul(3)).take(10);
    ranges.take_while(|r| *r <= max_ms).last().unwrap_or(BLOCK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_promtool_does() {
        for (ms, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1500, "1.5s"),
            (61_000, "1m1s"),
            (7_200_000, "2h0m0s"),
            (7_199_999, "1h59m59.999s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
        for (n, text) in [(0, "0B"), (1024, "1KiB"), (1_048_577, "1MiB1B"), (1536, "1KiB512B")] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(compatible_block(1), BLOCK_MS);
        assert_eq!(compatible_block(6 * 3_600_000), 6 * 3_600_000);
        assert_eq!(compatible_block(17 * 3_600_000), 6 * 3_600_000);
    }

    #[test]
    fn what_is_made_into_blocks_is_dumped_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let input = dir.path().join("in.om");
        let text = "# TYPE m gauge\nm{a=\"1\"} 1 0.5\nm{a=\"2\"} 2.5 7300\nm{a=\"1\"} 1e6 90000.125\n# EOF\n";
        std::fs::write(&input, text).expect("written");
        let flags = BackfillFlags {
            human_readable: false,
            quiet: false,
            max_block_duration: crate::config::scalar::Ms(0),
            labels: vec![("b".into(), "x".into())],
            input,
            output: dir.path().join("data"),
        };
        let mut printed = Vec::new();
        backfill(&flags, &mut printed).expect("made");
        assert_eq!(String::from_utf8(printed).expect("text").lines().count(), 4);
        let mut dumped = Vec::new();
        let flags = DumpFlags {
            sandbox: None,
            min_time: i64::MIN,
            max_time: i64::MAX,
            matchers: vec!["{__name__=~'(?s:.*)'}".into()],
            path: dir.path().join("data"),
        };
        dump(&flags, DumpFormat::Prom, &mut dumped).expect("dumped");
        let expect = "{__name__=\"m\", a=\"1\", b=\"x\"} 1 500\n{__name__=\"m\", a=\"1\", b=\"x\"} 1e+06 90000125\n\
             {__name__=\"m\", a=\"2\", b=\"x\"} 2.5 7300000\n";
        assert_eq!(String::from_utf8(dumped).expect("text"), expect);
        let left: Vec<_> = std::fs::read_dir(&flags.path).expect("listed").collect();
        assert_eq!(left.len(), 3, "the sandbox is gone: {left:?}");
    }
}
