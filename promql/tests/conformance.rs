//! Runs Prometheus's own PromQL scripts against the engine over the store in memory. The scripts are found through
//! `CONFORMANCE_DIR`; without it there is nothing to run. `PROMQL_SCRIPT=functions` runs one of them.

use std::path::PathBuf;

use model::clock::SystemClock;
use model::histogram::CounterResetHint;
use model::memory::MemoryStorage;
use model::{HistogramValue, Labels, Querier, Queryable, Sample, SampleValue, StorageError};
use promql::{Engine, EngineConfig};
use promql_testkit::{TestStorage, engine_config, run_with_engine};

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

/// The store in memory, with what a time series database knows of resets: a histogram that goes on from the one before
/// says so.
#[derive(Default)]
struct HintedStorage(MemoryStorage);

impl Queryable for HintedStorage {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.0.querier(mint, maxt)
    }
}

impl TestStorage for HintedStorage {
    fn load(&mut self, series: &[(Labels, Vec<Sample>)]) -> Result<(), String> {
        for (labels, samples) in series {
            with_hints(samples).into_iter().for_each(|s| self.0.insert(labels, s));
        }
        Ok(())
    }
}

fn with_hints(samples: &[Sample]) -> Vec<Sample> {
    let mut prev: Option<std::sync::Arc<model::FloatHistogram>> = None;
    let hinted = samples.iter().map(|s| {
        let SampleValue::Histogram(h) = &s.value else {
            prev = None;
            return s.clone();
        };
        let h = h.to_float();
        let goes_on = h.counter_reset_hint == CounterResetHint::Unknown
            && prev.as_ref().is_some_and(|p| {
                p.counter_reset_hint != CounterResetHint::Gauge
                    && (p.schema, p.zero_threshold) == (h.schema, h.zero_threshold)
                    && p.custom_values == h.custom_values
                    && !h.detect_reset(p)
            });
        prev = Some(h.clone());
        let mut hinted = (*h).clone();
        if goes_on {
            hinted.counter_reset_hint = CounterResetHint::NotCounterReset;
        }
        Sample { value: SampleValue::Histogram(HistogramValue::from(hinted)), ..s.clone() }
    });
    hinted.collect()
}

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
        let mut store = || Box::new(HintedStorage::default()) as Box<dyn TestStorage>;
        let report = run_with_engine(&engine, &path.display().to_string(), &text, &mut store);
        passed += report.passed;
        failed.extend(report.failures);
    }
    let list: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{passed} passed, {} failed:\n{}", list.len(), list.join("\n"));
}
