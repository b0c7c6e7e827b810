//! One query holds no more memory than its budget: whatever buffers is on the account.

use model::memory::MemoryStorage;
use model::{FloatHistogram, Labels, Sample};

use super::engine;
use crate::{Engine, EngineConfig, QueryError, QueryOptions, Value};

const MIB: u64 = 1 << 20;
const SERIES: usize = 8_000;

/// Many series of `m`, each with a value of its own, and a third as many native histograms `h`.
fn wide_store() -> MemoryStorage {
    let store = MemoryStorage::new();
    for i in 0..SERIES {
        let labels =
            |name: &str| Labels::from_pairs([("__name__", name), ("i", i.to_string().as_str()), ("g", "1")]);
        store.insert(&labels("m"), Sample::float(0, i as f64));
        if i % 3 == 0 {
            let h = FloatHistogram {
                count: 24.0,
                sum: i as f64,
                positive_spans: vec![model::histogram::Span { offset: 0, length: 24 }],
                positive_buckets: vec![1.0; 24],
                ..FloatHistogram::default()
            };
            store.insert(&labels("h"), Sample::histogram(0, h));
        }
    }
    store.insert(&Labels::from_pairs([("__name__", "one"), ("g", "1")]), Sample::float(0, 1.0));
    store
}

fn with_budget(bytes: u64) -> Engine {
    engine(EngineConfig {
        max_memory_bytes: bytes,
        worker_threads: 2,
        experimental_functions: true,
        ..EngineConfig::default()
    })
}

fn run(engine: &Engine, store: &MemoryStorage, query: &str, steps: i64) -> Result<Value, QueryError> {
    let options = QueryOptions::default();
    let step = 240_000 / steps;
    engine.range(store, query, 0, (steps - 1) * step, step, &options).map(|o| o.value)
}

#[test]
fn what_buffers_fails_over_the_budget_and_what_streams_does_not() {
    let store = wide_store();
    let (small, large) = (with_budget(MIB), with_budget(512 * MIB));
    for query in [
        "m",
        "topk(7000, m)",
        "bottomk by (i) (1, m)",
        "limitk by (i) (1, m)",
        "quantile(0.5, m)",
        "count_values(\"v\", m)",
        "sum by (i) (m)",
        "stddev by (i) (m)",
        "m * on (i) m",
        "m + on (i) group_left () m",
        "one + on (g) group_right () m",
        "m * on (g) group_left () one",
        "count(m and on (i) m)",
        "count(m unless on (i) m)",
        "count(m or m)",
        "count(abs({i=~\".+\"}))",
        "count(histogram_quantile(0.5, h))",
        "sum by (i) (h)",
        "h",
        "count(h + h)",
        "count(m @ 0 or h)",
        "count(label_replace(m, \"j\", \"$1\", \"i\", \"(.*)\"))",
        "count(max_over_time(m[5m:1m]) or h)",
        "count(info(m))",
    ] {
        match run(&small, &store, query, 20) {
            Err(QueryError::TooMuchMemory { limit_bytes }) => assert_eq!(limit_bytes, MIB, "{query}"),
            other => panic!("{query}: {:?}", other.map(|v| v.result_type())),
        }
        // What it held is gone: the engine answers others.
        assert!(run(&small, &store, "one + 1", 20).is_ok(), "after {query}");
        assert!(run(&large, &store, query, 20).is_ok() || query.contains("i=~"), "{query} in a large budget");
    }
    for query in ["sum(m)", "max(m) - 1", "count(m > 5)", "group(one)"] {
        assert!(run(&small, &store, query, 20).is_ok(), "{query}");
    }
    for query in ["sort(m)", "sort_desc(m)", "m", "m[1m]", "h", "h[1m]", "(m or m)[1m:30s]"] {
        let error = small.instant(&store, query, 0, &QueryOptions::default()).map(|_| ()).expect_err(query);
        assert!(matches!(error, QueryError::TooMuchMemory { .. }), "{query}: {error}");
        assert!(large.instant(&store, query, 0, &QueryOptions::default()).is_ok(), "{query}");
    }
}

#[test]
fn long_subqueries_are_refused_before_they_are_allocated() {
    let store = wide_store();
    let ask = |budget: u64, query: &str| {
        with_budget(budget).instant(&store, query, 31_536_000_000, &QueryOptions::default())
    };
    for query in [
        "sum_over_time(one[1y:1ms])",
        "one[1y:1ms]",
        "max_over_time(rate(one[5m])[1y:1ms] offset 1d)",
        "max_over_time(vector(time() - 3)[1y:1ms])",
        "max_over_time(vector(scalar(one))[1y:1ms])",
        "sum_over_time((one @ 0)[1y:1ms])",
    ] {
        for budget in [64 * MIB, 2 << 30] {
            let error = ask(budget, query).map(|o| o.value).expect_err(query);
            assert!(matches!(error, QueryError::TooMuchMemory { .. }), "{query}: {error}");
        }
    }
    // A year at ten seconds is three million moments: one row of them at a time.
    let out = ask(128 * MIB, "count(max_over_time(m{i=~\"1?\"}[1y:10s]))").expect("fits");
    assert!(out.stats.peak_bytes < 128 * MIB, "{}", out.stats.peak_bytes);
    assert!(ask(16 * MIB, "max_over_time(one[1y:10s])").is_err());
}

#[test]
fn chains_of_set_operators_are_on_the_account() {
    let store = wide_store();
    let chain: Vec<String> = (0..150).map(|i| format!("m{{i=\"{i}\"}}")).collect();
    let query = chain.join(" or ");
    assert!(matches!(
        run(&with_budget(16 * MIB), &store, &query, 10_000),
        Err(QueryError::TooMuchMemory { .. })
    ));
    assert!(run(&with_budget(8 * MIB), &store, &query, 10).is_ok());
}

#[test]
fn the_error_says_what_to_do() {
    let store = wide_store();
    let error = run(&with_budget(MIB), &store, "m", 10).expect_err("over the budget");
    assert_eq!(error.api_type(), "execution");
    assert_eq!(
        error.to_string(),
        "query processing would hold more than 1 MiB of memory, the limit of one query; select fewer series or steps, or \
         raise --query.max-memory"
    );
}
