//! `almanac longterm verify`: whether a store is as it was written.

use federation::store::{self, VerifyReport};

use super::grouped;
use crate::cli::LongtermVerifyFlags;
use crate::tsdb_tool::progress::{Interrupt, Progress};

/// Reads everything and prints what is wrong.
///
/// # Errors
/// When the store cannot be opened, or the user ended the command.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn verify(flags: &LongtermVerifyFlags, interrupt: &Interrupt) -> anyhow::Result<bool> {
    let mut progress = Progress::new(false);
    let report = store::verify(&flags.path, |rows, share| {
        progress.show(Some(share), rows, "rows");
        interrupt.check().is_ok()
    })?;
    progress.clear();
    interrupt.check()?;
    print!("{}", text(&report));
    Ok(report.is_good())
}

/// What is said of a report.
fn text(report: &VerifyReport) -> String {
    let mut out: String = report.problems.iter().map(|p| format!("damaged: {p}\n")).collect();
    let rest = report.problem_count - report.problems.len() as u64;
    if rest > 0 {
        out.push_str(&format!("and {} more\n", grouped(rest)));
    }
    let (sealed, open) = (grouped(report.sealed_samples), grouped(report.journal_samples));
    out.push_str(&format!(
        "{} series, {sealed} sealed samples, {open} in the journal; {} rows, {} bytes read\n",
        grouped(report.series),
        grouped(report.rows),
        grouped(report.bytes)
    ));
    if report.moved_aside > 0 {
        let n = grouped(report.moved_aside);
        out.push_str(&format!("{n} damaged chunks were moved aside before; their samples are missing\n"));
    }
    out.push_str(&match report.problem_count {
        0 => "every checksum is right\n".to_owned(),
        n => format!(
            "problems: {}; restore a backup, or start the node and let an audit send what is missing\n",
            grouped(n)
        ),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_and_what_to_do() {
        let good = VerifyReport { series: 1200, rows: 5, bytes: 70, ..VerifyReport::default() };
        assert_eq!(
            text(&good),
            "1,200 series, 0 sealed samples, 0 in the journal; 5 rows, 70 bytes read\nevery checksum is right\n"
        );
        let bad =
            VerifyReport { problem_count: 1500, problems: vec!["raw: x: y".into()], moved_aside: 2, ..good };
        let said = text(&bad);
        assert!(said.starts_with("damaged: raw: x: y\nand 1,499 more\n"), "{said}");
        assert!(
            said.contains("2 damaged chunks were moved aside") && said.contains("problems: 1,500;"),
            "{said}"
        );
    }
}
