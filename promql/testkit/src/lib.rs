//! Runs PromQL test scripts against any storage.
//!
//! A script loads series, evaluates queries and says what must come out; the language is that of Prometheus's own tests
//! (<https://github.com/prometheus/prometheus/blob/main/promql/promqltest/README.md>). [`run_file`] runs one. Reading order:
//! `script` (lines to commands), [`notation`] (series and values), `pin` and `compare`; this file puts them to work.
//!
//! One instant eval runs its query many times: as it stands, pinned with `@` and evaluated at five times, and each of those
//! once more as the middle step of a range query. All must give the same answer.
//!
//! [`generate`] makes random data and queries for comparing engines; [`hostile`] has what must hold for any text at all.

#![forbid(unsafe_code)]

mod compare;
pub mod generate;
pub mod hostile;
mod nhcb;
pub mod notation;
mod pin;
pub mod reference;
mod script;
mod storage;

use std::collections::BTreeMap;

use model::clock::SystemClock;
use model::{Annotations, Labels, Sample};
use promql::{Engine, EngineConfig, QueryOptions, Value};

use notation::SeriesValue;
use script::{AnnotationExpect, Command, Eval, Load, Located, When};
pub use storage::{MemoryTestStorage, TestStorage};

/// What became of the evals of a script.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Evals that gave what they should.
    pub passed: usize,
    /// Those that did not, and commands that could not be carried out.
    pub failures: Vec<Failure>,
}

/// An eval that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Path of the script.
    pub file: String,
    /// Line of the command, counted from 1.
    pub line: usize,
    /// The query; empty when it was no eval.
    pub query: String,
    /// What was wrong.
    pub reason: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}\n    {}", self.file, self.line, self.query, self.reason)
    }
}

/// The settings that scripts are written for.
#[must_use]
pub fn engine_config() -> EngineConfig {
    EngineConfig {
        lookback_ms: 300_000,
        max_samples: 10_000,
        default_subquery_step_ms: 60_000,
        experimental_functions: true,
        duration_expressions: true,
        extended_range_selectors: true,
        fill_modifiers: true,
        delayed_name_removal: true,
        use_start_timestamps: true,
        // The scripts know types by names: no series carries labels for them.
        type_and_unit_labels: false,
        ..EngineConfig::default()
    }
}

/// Runs the script `text` with [`engine_config`]. `path` is for the report; `new_storage` makes empty stores.
pub fn run_file(path: &str, text: &str, new_storage: &mut dyn FnMut() -> Box<dyn TestStorage>) -> Report {
    let engine = Engine::new(engine_config(), SystemClock::shared(), &prometheus::Registry::new());
    run_commands(path, script::parse(text), &engine, new_storage)
}

fn run_commands(
    path: &str,
    commands: impl IntoIterator<Item = Located>,
    engine: &Engine,
    new_storage: &mut dyn FnMut() -> Box<dyn TestStorage>,
) -> Report {
    let mut report = Report::default();
    let mut storage = new_storage();
    for located in commands {
        let outcome = located.command.and_then(|command| match command {
            Command::Clear => {
                storage = new_storage();
                Ok(false)
            }
            Command::Load(load) => load_series(&load).and_then(|s| storage.load(&s)).map(|()| false),
            Command::Eval(eval) => run_eval(engine, &*storage, &eval).map(|()| true),
        });
        match outcome {
            Ok(is_eval) => report.passed += usize::from(is_eval),
            Err(reason) => report.failures.push(Failure {
                file: path.to_owned(),
                line: located.line,
                query: located.query,
                reason,
            }),
        }
    }
    report
}

// === load ===

fn load_series(load: &Load) -> Result<Vec<(Labels, Vec<Sample>)>, String> {
    let mut series = BTreeMap::new();
    for row in &load.rows {
        let offset = |i: usize| row.start_offsets.as_ref().and_then(|o| o.get(i).copied().flatten());
        let samples = row.values.iter().enumerate().filter_map(|(i, value)| {
            let timestamp_ms = i as i64 * load.step_ms;
            let mut sample = match value {
                SeriesValue::Omitted => return None,
                SeriesValue::Float(v) => Sample::float(timestamp_ms, *v),
                SeriesValue::Histogram { value, .. } => Sample::histogram(timestamp_ms, (**value).clone()),
            };
            sample.start_timestamp_ms = offset(i).map_or(0, |o| timestamp_ms + o);
            Some(sample)
        });
        series.insert(row.labels.clone(), samples.collect::<Vec<_>>());
    }
    let native = if load.nhcb { nhcb::native_histograms(&series)? } else { Vec::new() };
    Ok(series.into_iter().chain(native).collect())
}

// === eval ===

/// Runs an eval in all the ways it must hold.
fn run_eval(engine: &Engine, storage: &dyn TestStorage, eval: &Eval) -> Result<(), String> {
    match eval.when {
        When::Range { start, end, step } => {
            let out =
                engine.range(as_queryable(storage), &eval.query, start, end, step, &QueryOptions::default());
            let Some((value, annotations)) = succeeded(eval, out)? else {
                return Ok(());
            };
            check_annotations(eval, &annotations)?;
            compare::range(&eval.expect, &value, start, step)
        }
        When::Instant(at) => {
            run_instant(engine, storage, eval, &eval.query, at)?;
            let pinned = match pin::pinned(&eval.query, at) {
                Ok(pinned) => pinned,
                // It failed as expected, or step 1 would not have passed.
                Err(_) => return Ok(()),
            };
            let Some(query) = pinned else {
                return Ok(());
            };
            let times = if at == 0 { vec![-1_000, 0, 1_000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] };
            for time in times {
                run_instant(engine, storage, eval, &query, time)
                    .map_err(|e| format!("as {query:?} at {time} ms: {e}"))?;
            }
            Ok(())
        }
    }
}

/// Runs a query at one time, and as the middle step of a range.
fn run_instant(
    engine: &Engine,
    storage: &dyn TestStorage,
    eval: &Eval,
    query: &str,
    at: i64,
) -> Result<(), String> {
    const MINUTE_MS: i64 = 60_000;
    let out = engine.instant(as_queryable(storage), query, at, &QueryOptions::default());
    let Some((value, annotations)) = succeeded(eval, out)? else {
        return Ok(());
    };
    check_annotations(eval, &annotations)?;
    compare::instant(&eval.expect, &value)?;
    let bounds_matter = ["start()", "end()", "range()", "step()"].iter().any(|f| query.contains(f));
    if bounds_matter || matches!(value, Value::String { .. } | Value::Matrix(_)) {
        return Ok(());
    }
    let (start, end) = (at - MINUTE_MS, at + MINUTE_MS);
    let out = engine
        .range(as_queryable(storage), query, start, end, MINUTE_MS, &QueryOptions::default())
        .map_err(|e| format!("as a range query: {e}"))?;
    if eval.expect.ordered {
        return Ok(());
    }
    let scalar = matches!(value, Value::Scalar { .. });
    compare::instant(&eval.expect, &compare::at_step(&out.value, at, scalar))
        .map_err(|e| format!("as a range query: {e}"))
}

fn as_queryable(storage: &dyn TestStorage) -> &dyn model::Queryable {
    storage
}

/// The answer, or `None` when the query failed and should.
fn succeeded(
    eval: &Eval,
    out: Result<promql::QueryOutput, promql::QueryError>,
) -> Result<Option<(Value, Annotations)>, String> {
    match (out, eval.expect.fail) {
        (Ok(out), false) => Ok(Some((out.value, out.annotations))),
        (Ok(_), true) => Err("it was expected to fail and did not".into()),
        (Err(e), false) => Err(format!("failed: {e}")),
        (Err(e), true) => {
            let text = e.to_string();
            match eval.expect.fail_text.iter().find(|m| !m.matches(&text)) {
                Some(m) => Err(format!("expected it to fail with {m}, got {text:?}")),
                None => Ok(None),
            }
        }
    }
}

fn check_annotations(eval: &Eval, got: &Annotations) -> Result<(), String> {
    let warnings: Vec<&str> = got.warnings().collect();
    let infos: Vec<&str> = got.infos().collect();
    check_kind("warning", &eval.expect.warn, &warnings)?;
    check_kind("info", &eval.expect.info, &infos)
}

fn check_kind(kind: &str, expect: &AnnotationExpect, got: &[&str]) -> Result<(), String> {
    if expect.none && !got.is_empty() {
        return Err(format!("unexpected {kind}: {got:?}"));
    }
    if expect.lines.is_empty() {
        return Ok(());
    }
    if let Some(m) = expect.lines.iter().find(|m| !got.iter().any(|text| m.matches(text))) {
        return Err(format!("expected {kind} {m}, got {got:?}"));
    }
    match got.iter().find(|text| !expect.lines.iter().any(|m| m.matches(text))) {
        Some(text) => Err(format!("unexpected {kind}: {text:?}")),
        None => Ok(()),
    }
}
