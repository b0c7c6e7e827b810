//! Runs Prometheus's own PromQL scripts against the engine over the store in memory. The scripts are found through
//! `CONFORMANCE_DIR`; without it there is nothing to run. `PROMQL_SCRIPT=functions` runs one of them.

use std::path::PathBuf;

use model::clock::SystemClock;
use promql::{Engine, EngineConfig};
use promql_testkit::{MemoryTestStorage, TestStorage, engine_config, run_with_engine};

const FILES: [&str; 21] = [
    "aggregators",
    "at_modifier",
    "collision",
    "duration_expression",
    "extended_vectors",
    "fill-modifier",
    "functions",
    "histograms",
    "info",
    "limit",
    "literals",
    "name_label_dropping",
    "native_histograms",
    "operators",
    "range_queries",
    "selectors",
    "staleness",
    "start_timestamps",
    "subquery",
    "trig_functions",
    "type_and_unit",
];

#[test]
fn scripts_pass() {
    let Some(dir) = std::env::var_os("CONFORMANCE_DIR") else { return };
    let dir = PathBuf::from(dir).join("promqltest");
    let only = std::env::var("PROMQL_SCRIPT").unwrap_or_default();
    // The scripts know types by names: labels that carry the type are dropped like names, but not asked for.
    let config = EngineConfig { type_and_unit_labels: false, ..engine_config() };
    let engine = Engine::new(config, SystemClock::shared(), &prometheus::Registry::new());
    let (mut passed, mut failed) = (0, Vec::new());
    for name in FILES.iter().filter(|n| only.is_empty() || **n == only) {
        let path = dir.join(format!("{name}.test"));
        let text = std::fs::read_to_string(&path).expect("the script is there");
        let mut store = || Box::new(MemoryTestStorage::default()) as Box<dyn TestStorage>;
        let report = run_with_engine(&engine, &path.display().to_string(), &text, &mut store);
        println!("{name}: {} passed, {} failed", report.passed, report.failures.len());
        passed += report.passed;
        failed.extend(report.failures);
    }
    let list: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{passed} passed, {} failed:\n{}", list.len(), list.join("\n"));
}
