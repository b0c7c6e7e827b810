//! `almanac longterm preview`: what tagging some series would cost.

use tokio::runtime::Runtime;

use super::{Node, form, grouped};
use crate::cli::LongtermPreviewFlags;

const DAY_SECONDS: f64 = 86_400.0;

/// Prints series, samples and bytes.
///
/// # Errors
/// When the node does not answer.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn preview(flags: &LongtermPreviewFlags, runtime: &Runtime) -> anyhow::Result<bool> {
    let node = Node::new(&flags.url, runtime)?;
    let form = form(&flags.matchers, flags.start.map(|t| t.ms()), flags.end.map(|t| t.ms()));
    let found = node.ask("/api/v1/longterm/preview", Some(form))?;
    let count = |key: &str| found[key].as_u64().unwrap_or(0);
    print!(
        "{}",
        text(count("series"), count("samples"), count("bytes"), found["seconds"].as_f64().unwrap_or(0.0))
    );
    Ok(true)
}

/// What is said of so much within so many seconds.
fn text(series: u64, samples: u64, bytes: u64, seconds: f64) -> String {
    if samples == 0 {
        return "nothing in that range is selected\n".into();
    }
    let hours = seconds / 3600.0;
    let mut out =
        format!("{} series, {} samples within {hours:.1} hours\n", grouped(series), grouped(samples));
    // One sample tells no rate.
    if seconds < 60.0 {
        out.push_str("too short a time to tell what a day brings\n");
        return out;
    }
    out.push_str("in the long-term node, if it goes on like this:\n");
    for (what, days) in [("per day ", 1.0), ("per year", 365.0)] {
        let factor = days * DAY_SECONDS / seconds;
        let (samples, bytes) = ((samples as f64 * factor) as u64, bytes as f64 * factor);
        out.push_str(&format!("  {what}  {:>20} samples  {:>10}\n", grouped(samples), size(bytes)));
    }
    out
}

/// Bytes for people.
fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_day_and_a_year_bring() {
        let said = text(1000, 240_000, 48_000, 3600.0);
        assert!(said.starts_with("1,000 series, 240,000 samples within 1.0 hours\n"), "{said}");
        assert!(said.contains("5,760,000 samples") && said.contains("2,102,400,000 samples"), "{said}");
        assert!(said.contains("1.1 MiB") && said.contains("401.0 MiB"), "{said}");
        assert!(text(0, 0, 0, 0.0).starts_with("nothing"));
        assert!(text(1, 1, 20, 0.0).contains("too short"));
    }
}
