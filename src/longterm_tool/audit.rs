//! `almanac longterm audit`: a verdict on what the long-term node has.

use std::sync::Arc;

use anyhow::{Context, bail};
use federation::audit::{Auditor, RemoteDigests, Verdict, windows};
use federation::remote_read::RemoteRead;
use model::{Clock, Labels, SystemClock};
use tokio::runtime::Runtime;

use super::{Node, date, grouped, selectors};
use crate::cli::LongtermAuditFlags;
use crate::tsdb_tool::progress::{Interrupt, Progress};

/// What is compared when no start is given, before the end.
const DEFAULT_SPAN_MS: i64 = 15 * 86_400_000;
/// What is newer may be on its way.
const SETTLING_MS: i64 = 10 * 60_000;
/// Windows with loss that are listed.
const MAX_LISTED: usize = 20;

/// A window in which samples are missing.
struct Loss {
    mint: i64,
    maxt: i64,
    verdict: Verdict,
}

/// Compares both nodes, prints the verdict, and says whether everything is there.
///
/// # Errors
/// When a node does not answer, or the user ends it.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn audit(
    flags: &LongtermAuditFlags,
    runtime: &Runtime,
    interrupt: &Interrupt,
) -> anyhow::Result<bool> {
    let scraper = Node::new(&flags.url, runtime)?;
    // Only what is not given has to be asked for.
    let status = scraper.ask("/api/v1/longterm/backlog", None);
    let given = flags.longterm_url.is_some() && !flags.matchers.is_empty();
    let status = match status {
        Ok(status) => status,
        Err(_) if given => serde_json::Value::Null,
        Err(e) => return Err(e.context("what does the scraper node send, and where to?")),
    };
    let texts = if flags.matchers.is_empty() { strings(&status["match"]) } else { flags.matchers.clone() };
    let sets = selectors(&texts)?;
    let base = match (&flags.longterm_url, status["url"].as_str()) {
        (Some(url), _) => url.clone(),
        (None, Some(url)) => url.to_owned(),
        (None, None) => bail!("{} names no long-term node; give --longterm-url", flags.url),
    };
    let longterm = Node::new(&base, runtime)?;
    let end = flags.end.map_or_else(|| SystemClock::new().now_ms() - SETTLING_MS, |t| t.ms());
    let start = flags.start.map_or(end - DEFAULT_SPAN_MS, |t| t.ms());
    if start > end {
        bail!("--start is after --end");
    }
    let auditor = auditor(&scraper, &longterm, sets, status["replicaLabel"].as_str(), runtime)?;
    let (total, losses) = compare(&auditor, start, end, interrupt)?;
    print!("{}", text(&total, &losses, start, end, &status));
    Ok(total.missing == 0)
}

fn auditor(
    scraper: &Node<'_>,
    longterm: &Node<'_>,
    sets: Vec<Vec<model::Matcher>>,
    replica_label: Option<&str>,
    runtime: &Runtime,
) -> anyhow::Result<Auditor> {
    let read = |node: &Node<'_>, name| RemoteRead::new(node.read_config(name), runtime.handle().clone());
    let digests = |node: &Node<'_>, name| {
        RemoteDigests::new(&node.base, node.read_config(name), runtime.handle().clone())
    };
    // The scraper node adds its external labels itself when it is read from outside.
    let mut auditor = Auditor::new(
        Arc::new(read(scraper, "scraper node")?),
        Arc::new(digests(longterm, "long-term node")?),
        Arc::new(read(longterm, "long-term node")?),
        sets,
        Labels::empty(),
    );
    match replica_label {
        // Its digests would be of series with that label.
        Some(label) => auditor = auditor.of_replica(label),
        None => auditor.local_digests = Some(Arc::new(digests(scraper, "scraper node")?)),
    }
    Ok(auditor)
}

fn compare(
    auditor: &Auditor,
    start: i64,
    end: i64,
    interrupt: &Interrupt,
) -> anyhow::Result<(Verdict, Vec<Loss>)> {
    let mut progress = Progress::new(false);
    let (mut total, mut losses) = (Verdict::default(), Vec::new());
    for (mint, maxt) in windows(start, end) {
        interrupt.check()?;
        let verdict = auditor.window(mint, maxt).with_context(|| format!("compare from {}", date(mint)))?;
        if verdict.missing > 0 {
            losses.push(Loss { mint, maxt, verdict: verdict.clone() });
        }
        total.add(verdict);
        let share = (maxt - start) as f64 / (end - start).max(1) as f64;
        progress.show(Some(share), total.samples, "samples");
    }
    Ok((total, losses))
}

fn strings(list: &serde_json::Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The verdict, for people.
fn text(total: &Verdict, losses: &[Loss], start: i64, end: i64, status: &serde_json::Value) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    match losses.first() {
        None if total.samples == 0 => {
            line("NOTHING TO COMPARE: the scraper node has no such samples in that range.".into());
        }
        None => line(format!(
            "COMPLETE until {}: every sample that the scraper node has is in the long-term node.",
            date(end)
        )),
        Some(first) => {
            line(format!("INCOMPLETE: complete until {} only.", date(first.mint)));
            line(format!(
                "Missing: {} samples of {} series in {} windows of two hours.",
                grouped(total.missing),
                grouped(total.missing_series),
                losses.len()
            ));
        }
    }
    line(format!(
        "Compared: {} samples, {} series windows, from {} to {}.",
        grouped(total.samples),
        grouped(total.series),
        date(start),
        date(end)
    ));
    if total.different > 0 {
        line(format!(
            "Different: {} samples have another value in the long-term node, which keeps the one that came first.",
            grouped(total.different)
        ));
    }
    for loss in losses.iter().take(MAX_LISTED) {
        let v = &loss.verdict;
        let example = v.affected.first().map(ToString::to_string).unwrap_or_default();
        let repair = if being_repaired(status, loss) { ", being sent again" } else { "" };
        line(format!(
            "  {} to {}: {} samples of {} series{repair}, such as {example}",
            date(loss.mint),
            date(loss.maxt),
            grouped(v.missing),
            grouped(v.missing_series)
        ));
    }
    if losses.len() > MAX_LISTED {
        line(format!("  and {} more windows", losses.len() - MAX_LISTED));
    }
    let left = status["samplesLeft"].as_u64().unwrap_or(0);
    let ranges = status["ranges"].as_array().map_or(0, Vec::len);
    if ranges > 0 {
        line(format!(
            "Repair: the scraper node has {ranges} ranges in its backlog, about {} samples.",
            grouped(left)
        ));
    } else if !losses.is_empty() {
        line("Repair: none is under way; `almanac longterm backfill` with these times starts one.".into());
    }
    out
}

/// Whether a range of the backlog covers what is missing.
fn being_repaired(status: &serde_json::Value, loss: &Loss) -> bool {
    status["ranges"].as_array().into_iter().flatten().any(|r| {
        let ms = |key: &str| r[key].as_f64().map_or(f64::NAN, |s| s * 1000.0);
        ms("doneUntil") <= loss.maxt as f64 && loss.mint as f64 <= ms("end")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_for_managers() {
        let fine = Verdict { series: 3, samples: 1000, ..Verdict::default() };
        let status = serde_json::json!({"ranges": [], "samplesLeft": 0});
        let said = text(&fine, &[], 0, 7_200_000, &status);
        assert!(said.starts_with("COMPLETE until 1970-01-01 02:00 UTC"), "{said}");
        assert!(said.contains("Compared: 1,000 samples"), "{said}");

        let affected = vec![Labels::from_pairs([("__name__", "up")])];
        let bad = Verdict { missing: 12, missing_series: 1, affected, ..fine };
        let loss = Loss { mint: 3_600_000, maxt: 7_199_999, verdict: bad.clone() };
        let status = serde_json::json!({
            "ranges": [{"doneUntil": 0.0, "end": 7200.0}], "samplesLeft": 12
        });
        let said = text(&bad, &[loss], 0, 7_200_000, &status);
        assert!(said.starts_with("INCOMPLETE: complete until 1970-01-01 01:00 UTC only."), "{said}");
        assert!(said.contains("12 samples of 1 series, being sent again, such as up"), "{said}");
        assert!(said.contains("Repair: the scraper node has 1 ranges"), "{said}");
        let nothing = text(&Verdict::default(), &[], 0, 1, &serde_json::Value::Null);
        assert!(nothing.starts_with("NOTHING"), "{nothing}");
    }
}
