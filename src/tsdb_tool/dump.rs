//! `tsdb dump` and `dump-openmetrics`: series with their samples.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::Context;
use model::histogram::display::GoFloat;
use model::labels::{METRIC_NAME, Quoted};
use model::{HistogramValue, Labels, Matcher, Queryable, SampleValue, Samples, SelectHints, SystemClock};

use super::progress::{Interrupt, Progress};
use crate::cli::{DumpFlags, DumpFormat};

pub(super) fn dump(
    flags: &DumpFlags,
    format: DumpFormat,
    interrupt: &Interrupt,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut sets: Vec<Vec<Matcher>> = Vec::new();
    for m in &flags.matchers {
        sets.push(promql::parser::parse_selector(m).with_context(|| format!("--match {m}"))?);
    }
    let clock = SystemClock::shared();
    let db = super::open(&flags.path)?.queryable(flags.max_time, flags.sandbox.as_deref(), clock)?;
    interrupt.check()?;
    let querier = db.querier(flags.min_time, flags.max_time)?;
    let hints = SelectHints { labels_only: format == DumpFormat::Seriesjson, ..whole(flags) };
    let mut samples = Samples::new();
    // Where what is printed is seen, no other line may come between.
    let mut progress = Progress::new(std::io::stdout().is_terminal());
    let mut count = 0;
    let mut give = |series: model::Series| -> anyhow::Result<()> {
        interrupt.check()?;
        if format == DumpFormat::Seriesjson {
            count += 1;
            progress.show(None, count, "series");
            return write_json(&series.labels, out);
        }
        model::chunk::decode_chunks(&series.chunks, flags.min_time, flags.max_time, &mut samples)?;
        count += samples.len() as u64;
        progress.show(None, count, "samples");
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
        // Several selectors may find one series; each is given once, in order.
        let mut all: BTreeMap<Labels, model::Series> = BTreeMap::new();
        for matchers in &sets {
            let mut set = querier.select(matchers, &hints)?;
            while let Some(series) = set.next()? {
                interrupt.check()?;
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

fn whole(flags: &DumpFlags) -> SelectHints {
    SelectHints { start_ms: flags.min_time, end_ms: flags.max_time, ..SelectHints::default() }
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
