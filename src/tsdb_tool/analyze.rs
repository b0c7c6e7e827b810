//! `tsdb analyze`: churn, cardinality and chunks of a block.

use std::io::Write;

use tsdb::Analysis;

use super::go_text;
use crate::cli::AnalyzeFlags;

pub(super) fn analyze(flags: &AnalyzeFlags, out: &mut impl Write) -> anyhow::Result<()> {
    let matchers = match flags.matchers.as_str() {
        "" => Vec::new(),
        text => promql::parser::parse_selector(text)?,
    };
    let db = super::open(&flags.path)?;
    let a = db.analyze(flags.block.as_deref(), &matchers)?;
    writeln!(out, "Block ID: {}", a.block.ulid)?;
    writeln!(out, "Duration: {}", go_text::duration_ms(a.block.max_time - a.block.min_time))?;
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
