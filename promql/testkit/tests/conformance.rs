//! The conformance scripts on the plain store in memory.
//!
//! The data lies outside of the repository: `CONFORMANCE_DIR`, or `conformance` beside the checkout. Without it the tests
//! say that they were skipped.

use std::collections::BTreeMap;
use std::path::PathBuf;

use promql::parser::{ParserOptions, parse};
use promql_testkit::{MemoryTestStorage, Report, run_file};

/// Evals that there are: none may be passed over.
const PASSED_MIN: usize = 1_432;

fn scripts_dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("CONFORMANCE_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
    }
    .join("promqltest");
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("skipped: {} is not there", dir.display());
    None
}

fn run_all() -> BTreeMap<String, Report> {
    let mut reports = BTreeMap::new();
    for entry in scripts_dir().iter().flat_map(|d| std::fs::read_dir(d).expect("readable")) {
        let path = entry.expect("readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".test") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let report = run_file(&name, &text, &mut || Box::new(MemoryTestStorage::new()));
            reports.insert(name, report);
        }
    }
    reports
}

#[test]
fn scripts_pass() {
    let reports = run_all();
    if reports.is_empty() {
        return;
    }
    let passed: usize = reports.values().map(|r| r.passed).sum();
    let failures: Vec<String> = reports.values().flat_map(|r| &r.failures).map(ToString::to_string).collect();
    assert!(
        failures.is_empty(),
        "{passed} evals passed, {} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(passed >= PASSED_MIN, "{passed} evals passed, there were {PASSED_MIN}");
}

/// Every query that is valid prints as a text that parses to the same tree.
#[test]
fn queries_round_trip() {
    let Some(dir) = scripts_dir() else {
        return;
    };
    let list = std::fs::read_to_string(dir.join("evals.tsv")).expect("readable");
    let mut refused = Vec::new();
    for line in list.lines().filter(|l| !l.starts_with('#')) {
        let query = line.splitn(6, '\t').nth(5).expect("six columns");
        match parse(query, &ParserOptions::all()) {
            Ok(expr) => {
                let printed = expr.to_string();
                assert_eq!(parse(&printed, &ParserOptions::all()), Ok(expr), "{query} printed as {printed}");
            }
            Err(e) => refused.push(format!("{query}: {e}")),
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
