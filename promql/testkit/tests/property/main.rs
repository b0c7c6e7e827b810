//! Random queries over random data: the optimised plan, on one thread and on several, gives exactly what the plain one
//! gives, and both what the reference evaluator gives.
//!
//! `ALMANAC_SEED` is the first seed, `ALMANAC_PROPERTY_CASES` how many queries are tried, `ALMANAC_PROPERTY_SECONDS` for how long
//! instead, `ALMANAC_PROPERTY_FAILURES` how many failures are gathered before giving up. A failure is printed small: the
//! part of the query and of the data that still fails.

mod comparison;
mod minimise;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use model::clock::SystemClock;
use promql::parser::{ParserOptions, parse};
use promql::{Engine, EngineConfig, QueryOptions, Value};
use promql_testkit::generate::{DataSet, EvalTime, GeneratedQuery, Generator, Profile};
use promql_testkit::reference::{self, Settings};

use comparison::{Kind, stripped};

/// Queries over one data set.
const QUERIES_PER_SEED: u64 = 50;
/// Cases in an ordinary run of the tests.
const CASES: u64 = 500;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// The settings that a seed is tried with.
fn settings(seed: u64) -> Settings {
    Settings {
        lookback_ms: if seed.is_multiple_of(5) { 90_000 } else { 300_000 },
        default_subquery_step_ms: 60_000,
        delayed_name_removal: seed.is_multiple_of(3),
        use_start_timestamps: seed.is_multiple_of(2),
    }
}

struct Engines {
    plain: Engine,
    optimised: [Engine; 2],
}

impl Engines {
    fn new(s: Settings) -> Self {
        let engine = |optimize, worker_threads| {
            let config = EngineConfig {
                lookback_ms: s.lookback_ms,
                default_subquery_step_ms: s.default_subquery_step_ms,
                delayed_name_removal: s.delayed_name_removal,
                use_start_timestamps: s.use_start_timestamps,
                experimental_functions: true,
                duration_expressions: true,
                extended_range_selectors: true,
                fill_modifiers: true,
                optimize,
                worker_threads,
                ..EngineConfig::default()
            };
            Engine::new(config, SystemClock::shared(), &prometheus::Registry::new())
        };
        Self { plain: engine(false, 1), optimised: [engine(true, 1), engine(true, 3)] }
    }
}

type Outcome = Result<(Value, Vec<String>), String>;

fn run(engine: &Engine, data: &DataSet, query: &GeneratedQuery) -> Outcome {
    let (store, options) = (data.storage(), QueryOptions::default());
    let out = match query.time {
        EvalTime::Instant(t) => engine.instant(&store, &query.text, t, &options),
        EvalTime::Range { start_ms, end_ms, step_ms } => {
            engine.range(&store, &query.text, start_ms, end_ms, step_ms, &options)
        }
    };
    out.map(|o| {
        let notes = o.annotations.warnings().chain(o.annotations.infos()).map(str::to_owned).collect();
        (o.value, notes)
    })
    .map_err(|e| e.to_string())
}

/// Why a case fails, if it does.
fn check(engines: &Engines, s: Settings, data: &DataSet, query: &GeneratedQuery) -> Option<String> {
    let plain = run(&engines.plain, data, query);
    let optimised = engines.optimised.each_ref().map(|e| run(e, data, query));
    for optimised in &optimised {
        let same = match (&plain, optimised) {
            (Ok(a), Ok(b)) => comparison::identical(a, b, query.text.contains('@')),
            (Err(_), Err(_)) => true,
            // Evaluated once, as an instant query is, twins are not yet an error where names are dropped at the end; the
            // plain plan evaluates them at every step.
            (Err(_), Ok(_)) => s.delayed_name_removal && query.text.contains('@'),
            _ => false,
        };
        if !same {
            return Some(format!("optimised and plain plan differ:\n  {optimised:?}\n  {plain:?}"));
        }
    }
    let expr = parse(&query.text, &ParserOptions::all()).expect("generated queries parse");
    let expected = catch_unwind(AssertUnwindSafe(|| reference::evaluate(data, &expr, query.time, s)));
    let expected = match expected {
        Ok(e) => e,
        Err(_) => return Some("the reference evaluator panics".to_owned()),
    };
    let [engine, _] = optimised;
    match (engine, expected) {
        (Err(_), Err(_)) => None,
        (Ok((value, notes)), Ok(answer)) => {
            let kind = Kind::of(&expr);
            if let Some(reason) = comparison::difference(kind, &value, &answer.value) {
                if kind.is_inexact() && expr.levels() > 2 {
                    return None;
                }
                return Some(format!("{reason}\n  engine    {value:?}\n  reference {:?}", answer.value));
            }
            let notes = stripped(&notes);
            let allowed: BTreeSet<String> = &answer.annotations | &answer.possible_annotations;
            if !(notes.is_superset(&answer.annotations) && notes.is_subset(&allowed)) {
                return Some(format!(
                    "annotations\n  engine    {notes:?}\n  reference {:?}",
                    answer.annotations
                ));
            }
            None
        }
        (Ok(a), Err(e)) => Some(format!("only the reference fails: {e}\n  engine    {a:?}")),
        (Err(e), Ok(a)) => Some(format!("only the engine fails: {e}\n  reference {:?}", a.value)),
    }
}

#[test]
fn plans_and_the_reference_agree() {
    let clock = SystemClock::shared();
    let began = clock.monotonic();
    let first = number("ALMANAC_SEED").unwrap_or(1);
    let seconds = number("ALMANAC_PROPERTY_SECONDS");
    let cases = number("ALMANAC_PROPERTY_CASES").unwrap_or(CASES);
    let failures_max = number("ALMANAC_PROPERTY_FAILURES").unwrap_or(1) as usize;
    let (mut done, mut failures) = (0, Vec::new());
    for seed in first.. {
        let over = match seconds {
            Some(s) => clock.monotonic() - began >= Duration::from_secs(s),
            None => done >= cases,
        };
        if over || failures.len() >= failures_max {
            break;
        }
        let s = settings(seed);
        let engines = Engines::new(s);
        let mut generator = Generator::new(seed, Profile::full());
        let data = generator.data();
        for _ in 0..QUERIES_PER_SEED {
            let query = generator.query();
            done += 1;
            if check(&engines, s, &data, &query).is_some() {
                let small = minimise::case(&data, &query, |d, q| check(&engines, s, d, q).is_some());
                let reason = check(&engines, s, &small.0, &small.1).unwrap_or_default();
                let failure = format!(
                    "ALMANAC_SEED={seed} {s:?}\n  {}\nsmall: {:?}\n  {}\n{}\n{reason}\n",
                    query.text,
                    small.1.time,
                    small.1.text,
                    minimise::printed(&small.0),
                );
                // At once: who ends a long run early still sees them.
                eprintln!("{failure}");
                failures.push(failure);
                if failures.len() >= failures_max {
                    break;
                }
            }
        }
    }
    eprintln!("{done} cases");
    assert!(failures.is_empty(), "{} of {done} cases fail\n{}", failures.len(), failures.join("\n"));
}
