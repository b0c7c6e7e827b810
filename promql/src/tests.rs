//! The engine against the store in memory: what scripts do not show, such as settings of a stock server, limits,
//! and time. That plans may be optimised or not, `testkit` sees to.

use std::sync::Arc;
use std::time::Duration;

use model::clock::{ManualClock, SystemClock};
use model::memory::MemoryStorage;
use model::{Labels, Sample};

use crate::{CancelToken, Engine, EngineConfig, PointValue, QueryError, QueryOptions, Value};

mod budget;
mod statistics;

const MINUTE: i64 = 60_000;

/// `series` series of `m{i="…",g="…"}` and of `n_total`, a sample a minute for an hour.
fn store(series: usize) -> MemoryStorage {
    let store = MemoryStorage::new();
    for i in 0..series {
        let labels = |name: &str| {
            Labels::from_pairs([
                ("__name__", name),
                ("i", i.to_string().as_str()),
                ("g", (i % 3).to_string().as_str()),
            ])
        };
        for t in 0..60 {
            let v = ((t * 7 + i as i64 * 13) % 23) as f64;
            store.insert(&labels("m"), Sample::float(t * MINUTE, v - 5.0));
            store.insert(&labels("n_total"), Sample::float(t * MINUTE, (t % 40) as f64 * (i + 1) as f64));
        }
    }
    store
}

fn engine(config: EngineConfig) -> Engine {
    Engine::new(config, SystemClock::shared(), &prometheus::Registry::new())
}

fn floats(engine: &Engine, store: &MemoryStorage, query: &str) -> Vec<(String, f64)> {
    let out = engine.instant(store, query, 30 * MINUTE, &QueryOptions::default()).expect(query);
    match out.value {
        Value::Vector(v) => v
            .into_iter()
            .map(|s| match s.value {
                PointValue::Float(f) => (s.labels.to_string(), f),
                PointValue::Histogram(_) => panic!("no histograms here"),
            })
            .collect(),
        Value::Scalar { value, .. } => vec![(String::new(), value)],
        other => panic!("{query}: {}", other.result_type()),
    }
}

#[test]
fn a_stock_engine_drops_names_at_once() {
    let (engine, store) = (engine(EngineConfig::default()), store(1));
    let check = |query: &str, expect: &[(&str, f64)]| {
        let expect: Vec<_> = expect.iter().map(|(l, v)| ((*l).to_owned(), *v)).collect();
        assert_eq!(floats(&engine, &store, query), expect, "{query}");
    };
    check("1 + 2 * 3 ^ 2", &[("", 19.0)]);
    check("m", &[(r#"m{g="0", i="0"}"#, -2.0)]);
    check("abs(m)", &[(r#"{g="0", i="0"}"#, 2.0)]);
    check("m > bool 0", &[(r#"{g="0", i="0"}"#, 0.0)]);
    check("m < 0", &[(r#"m{g="0", i="0"}"#, -2.0)]);
    check("sum by (g) (m)", &[(r#"{g="0"}"#, -2.0)]);
    check("increase(n_total[5m])", &[(r#"{g="0", i="0"}"#, 5.0)]);
    check("last_over_time(n_total[5m])", &[(r#"n_total{g="0", i="0"}"#, 30.0)]);
    check("max_over_time(m[10m:1m])", &[(r#"{g="0", i="0"}"#, 16.0)]);
    check("absent(nope{a=\"b\"})", &[(r#"{a="b"}"#, 1.0)]);
    let twice = engine.instant(&store, "abs({__name__=~\"m|n_total\"})", 0, &QueryOptions::default());
    let text = twice.expect_err("two series become one").to_string();
    assert_eq!(text, "vector cannot contain metrics with the same labelset");
}

/// Without names at the end of the query, series of two metrics meet in functions, but not in `absent_over_time`.
#[test]
fn a_stock_engine_tells_when_series_meet() {
    let (engine, store) = (engine(EngineConfig::default()), store(2));
    let check = |query: &str, expect: Result<usize, &str>| {
        let out = engine.instant(&store, query, 30 * MINUTE, &QueryOptions::default());
        let got = out.map_err(|e| e.to_string()).map(|out| match out.value {
            Value::Vector(v) => v.len(),
            other => panic!("{query}: {}", other.result_type()),
        });
        assert_eq!(got, expect.map_err(str::to_owned), "{query}");
    };
    let twice = Err("vector cannot contain metrics with the same labelset");
    check("last_over_time({g=~\".\"}[5m])", Ok(4));
    check("count_over_time({g=~\".\"}[5m])", twice);
    check("absent_over_time({g=~\".\"}[5m])", Ok(0));
    check("absent_over_time({g=\"none\"}[5m])", Ok(1));
    // Picking nothing does not hide what is wrong with the input.
    check("topk(0, m)", Ok(0));
    for pick in ["topk(0, ", "bottomk(-1, ", "limitk(0, "] {
        let (all, query) = (
            EngineConfig { experimental_functions: true, ..EngineConfig::default() },
            format!("{pick}count_over_time({{g=~\".\"}}[5m]))"),
        );
        let out = self::engine(all).instant(&store, &query, 30 * MINUTE, &QueryOptions::default());
        assert!(out.is_err(), "{query}");
    }
}

#[test]
fn limits_fail_the_query_only() {
    let store = store(20);
    let run = |config: EngineConfig, options: &QueryOptions| {
        engine(config).range(&store, "m", 0, 59 * MINUTE, MINUTE, options).map(|_| ())
    };
    let few = EngineConfig { max_samples: 1_000, ..EngineConfig::default() };
    let error = run(few, &QueryOptions::default()).expect_err("1,200 samples");
    assert_eq!(
        error.to_string(),
        "query processing would load too many samples into memory in query execution"
    );
    let token = CancelToken::new();
    token.cancel();
    let options = QueryOptions { cancel: Some(token), ..QueryOptions::default() };
    assert!(matches!(run(EngineConfig::default(), &options), Err(QueryError::Canceled(_))));
    assert!(run(EngineConfig::default(), &QueryOptions::default()).is_ok());
}

#[test]
fn time_runs_out() {
    let clock = Arc::new(ManualClock::new(0));
    clock.advance(Duration::from_secs(1));
    let config = EngineConfig { timeout: Duration::ZERO, ..EngineConfig::default() };
    let engine = Engine::new(config, clock, &prometheus::Registry::new());
    // The clock stands still, so a timeout of zero is not over yet.
    assert!(engine.instant(&store(1), "m", 0, &QueryOptions::default()).is_ok());
}

#[test]
fn registering_twice_does_no_harm() {
    let registry = prometheus::Registry::new();
    for _ in 0..2 {
        let engine = Engine::new(EngineConfig::default(), SystemClock::shared(), &registry);
        assert!(engine.instant(&store(1), "m", 0, &QueryOptions::default()).is_ok());
    }
}

#[test]
fn twins_on_the_one_side_are_complained_about_first() {
    let (engine, store) = (engine(EngineConfig::default()), store(4));
    let fails = |query: &str| match engine.instant(&store, query, 0, &QueryOptions::default()) {
        Ok(_) => panic!("{query} has an answer"),
        Err(e) => e.to_string(),
    };
    let twins = |side: &str| {
        format!(
            "found duplicate series for the match group {{g=\"0\"}} on the {side} hand-side of the operation: \
             [{{__name__=\"m\", g=\"0\", i=\"0\"}}, {{__name__=\"m\", g=\"0\", i=\"3\"}}];many-to-many matching not \
             allowed: matching labels must be unique on one side"
        )
    };
    for (query, side) in [
        ("m * on (g) m", "right"),
        ("m * on (g) group_left () m", "right"),
        ("m * on (g) group_right () m", "left"),
        // The twins are in another group than the series of the left side that meet one partner.
        ("m{i=\"1\"} * on (g) m", "right"),
        ("label_replace(m, \"g\", \"1\", \"\", \"\") * on (g) m", "right"),
    ] {
        assert_eq!(fails(query), twins(side), "{query}");
    }
    assert!(fails("m * on (g) m{i!=\"3\"}").starts_with("multiple matches for labels: many-to-one"));
}

#[test]
fn deep_expressions_do_not_need_a_deep_stack() {
    let (engine, store) = (engine(EngineConfig::default()), store(1));
    let options = QueryOptions::default();
    let value = |query: &str| floats(&engine, &store, query).into_iter().map(|(_, v)| v).collect::<Vec<_>>();
    assert_eq!(value(&vec!["1"; 10_001].join("+")), [10_001.0]);
    assert_eq!(value(&format!("time() * 0{}", " + 1".repeat(10_000))), [10_000.0]);
    assert_eq!(value(&format!("m * 0{}", " + 1".repeat(10_000))), [10_000.0]);
    assert_eq!(value(&format!("m * 0{}", " + on (i) vector(1)".repeat(2_000))), []);
    assert_eq!(value(&format!("m{}", " or m".repeat(2_000))).len(), 1);
    let nested = |open: &str, inner: &str| {
        format!("{}{inner}{}", open.repeat(990), ")".repeat(990 * open.matches('(').count()))
    };
    for query in [nested("abs(", "m"), nested("sum by (i) (", "m"), nested("-(", "m").replace("-(-(", "-(")] {
        let _ = engine.instant(&store, &query, 0, &options);
        let _ = engine.range(&store, &query, 0, MINUTE, MINUTE, &options);
        let _ = engine.explain(&query, 0, 0, 0);
    }
    assert!(engine.explain(&vec!["m"; 10_001].join(" or "), 0, 0, 0).is_ok());
}

#[test]
fn plans_are_printed() {
    let text = engine(EngineConfig::default())
        .explain(
            "sum by (g) (rate(n_total[5m])) / on (g) (m @ 60 + 2 * 3) or n_total offset 1m",
            0,
            600_000,
            60_000,
        )
        .expect("a plan");
    assert_eq!(
        text,
        "binary or\n  \
           binary /\n    \
             aggregate sum by (g)\n      \
               window rate [5m]\n        \
                 select #0 {__name__=\"n_total\"} shared by 2\n    \
             once\n      \
               binary +\n        \
                 select #1 {__name__=\"m\"} @ 60\n        \
                 number 6\n  \
           select #0 {__name__=\"n_total\"} shared by 2 offset 1m\n"
    );
}

#[test]
fn a_batch_without_rows_is_not_the_end_of_a_subquery() {
    // So many series that the partner of the last one is batches away from the first.
    let store = MemoryStorage::new();
    for i in 0..5_000 {
        let labels = Labels::from_pairs([("__name__", "m"), ("i", format!("{i:05}").as_str())]);
        store.insert(&labels, Sample::float(MINUTE, 1.0));
    }
    store.insert(&Labels::from_pairs([("__name__", "one"), ("i", "04999")]), Sample::float(MINUTE, 2.0));
    let engine = engine(EngineConfig { worker_threads: 1, ..EngineConfig::default() });
    for query in ["max_over_time((m * on (i) one)[10m:1m])", "max_over_time((m * on (i) one)[10m:1s])"] {
        let out = engine.instant(&store, query, 2 * MINUTE, &QueryOptions::default()).expect(query);
        assert!(matches!(&out.value, Value::Vector(v) if v.len() == 1), "{query}: {:?}", out.value);
    }
}

/// Where a query spends its time shows below the span that is current when it is asked, on whatever threads it runs.
#[test]
fn a_query_leaves_spans() {
    use model::trace::{AttributeValue, MemorySink, Span};
    let (engine, store, sink) = (engine(EngineConfig::default()), store(2), Arc::new(MemorySink::default()));
    let root = || sink.tracer(SystemClock::shared()).start("request");
    let ask = |span: Span, query: &str| {
        let _entered = span.enter();
        engine.range(&store, query, 0, 30 * MINUTE, MINUTE, &QueryOptions::default())
    };
    assert!(ask(root(), "sum(m) / sum(rate(n_total[5m]))").is_ok());
    let spans = sink.taken();
    let mut selectors: Vec<_> = spans.iter().filter(|s| s.name == "querierSelect").collect();
    selectors.sort_by_key(|s| s.start_ns);
    let texts: Vec<_> = selectors.iter().map(|s| s.attributes[0].clone()).collect();
    assert!(texts.contains(&("selector", AttributeValue::from("m"))), "{texts:?}");
    assert_eq!(texts.len(), 2);
    let inner = spans.iter().find(|s| s.name == "promqlInnerEval").expect("a span");
    assert!(selectors.iter().all(|s| s.parent == Some(inner.context.span_id)));

    // A deep expression has a thread of its own.
    let deep = format!("{}m{}", "abs(".repeat(300), ")".repeat(300));
    assert!(ask(root(), &deep).is_ok());
    assert_eq!(
        sink.paths(),
        [
            "request",
            "request > promqlExec",
            "request > promqlExec > promqlEval",
            "request > promqlExec > promqlEval > promqlInnerEval",
            "request > promqlExec > promqlEval > promqlInnerEval > querierSelect",
            "request > promqlExec > promqlEval > promqlPrepare",
            "request > promqlExec > promqlEval > promqlPrepare > Querier",
            "request > promqlExec > promqlExecQueue",
        ]
    );
    assert!(ask(Span::default(), "m").is_ok());
    assert!(sink.taken().is_empty());
}
