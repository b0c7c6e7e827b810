//! Statistics of queries: samples looked at, samples read, by step.

use model::memory::MemoryStorage;
use model::{FloatHistogram, Labels, Sample};

use super::engine;
use crate::{EngineConfig, QueryOptions, QueryStats};

const SECOND: i64 = 1_000;

/// `m` in three series, a sample every ten seconds for two hours; `h` likewise with native histograms, which count as
/// eleven samples each, and as twelve with a bucket.
fn store() -> MemoryStorage {
    let store = MemoryStorage::new();
    for i in 0..3_usize {
        let labels = |name: &str| Labels::from_pairs([("__name__", name), ("i", i.to_string().as_str())]);
        for t in 0..=720 {
            store.insert(&labels("m"), Sample::float(t * 10 * SECOND, t as f64));
        }
    }
    let h = FloatHistogram {
        count: 1.0,
        sum: 1.0,
        positive_spans: vec![model::histogram::Span { offset: 0, length: 1 }],
        positive_buckets: vec![1.0],
        ..FloatHistogram::default()
    };
    for t in 0..=720 {
        let labels = Labels::from_pairs([("__name__", "h")]);
        store.insert(&labels, Sample::histogram(t * 10 * SECOND, h.clone()));
    }
    store
}

fn stats(query: &str, span: Option<(i64, i64, i64)>) -> QueryStats {
    let config = EngineConfig { per_step_stats: true, ..EngineConfig::default() };
    let options = QueryOptions { per_step_stats: true, ..QueryOptions::default() };
    let (engine, store) = (engine(config), store());
    let out = match span {
        None => engine.instant(&store, query, 3_600 * SECOND, &options),
        Some((start, end, step)) => {
            engine.range(&store, query, start * SECOND, end * SECOND, step * SECOND, &options)
        }
    };
    out.expect(query).stats
}

#[test]
fn instant_queries() {
    for (query, queryable, read) in [
        ("1", 0, 0),
        ("time()", 0, 0),
        ("m", 3, 3),
        ("timestamp(m)", 3, 3),
        ("m + m", 6, 6),
        ("h", 12, 12),
        ("timestamp(h)", 1, 1),
        ("m offset 10m", 3, 3),
        ("m @ 60", 3, 3),
        ("m{i=\"9\"}", 0, 0),
        // Six samples a minute.
        ("m[1m]", 18, 18),
        ("h[1m]", 72, 72),
        ("rate(m[1m])", 18, 18),
        ("rate(m[1m] @ 600)", 18, 18),
        // Buckets that nobody looks at are not there.
        ("histogram_count(rate(h[1m]))", 66, 66),
        // Three moments of three series are looked at; each of them read one sample.
        ("max_over_time(m[30s:10s])", 9, 9),
        ("m[30s:10s]", 9, 9),
        // Five moments, each of which read six samples that overlap: at the first one all, then one more each.
        ("max_over_time(rate(m[1m])[50s:10s])", 15, 30),
        ("sum(m) + max(max_over_time(m[30s:10s]))", 12, 12),
    ] {
        let s = stats(query, None);
        assert_eq!((s.total_queryable_samples, s.samples_read), (queryable, read), "{query}");
        let by_step = s.by_step.expect("asked for");
        assert_eq!((by_step.queryable, by_step.read), (vec![queryable], vec![read]), "{query}");
    }
}

#[test]
fn range_queries() {
    // Steps at 3600, 3620, 3640, 3660.
    let span = Some((3_600, 3_660, 20));
    for (query, queryable, read) in [
        ("m", vec![3; 4], vec![3; 4]),
        ("m @ 60", vec![3; 4], vec![3, 0, 0, 0]),
        ("sum(m) or h", vec![15; 4], vec![15; 4]),
        // Each step has two new samples of six.
        ("rate(m[1m])", vec![18; 4], vec![18, 6, 6, 6]),
        // Windows of ten seconds do not overlap.
        ("count_over_time(m[10s])", vec![3; 4], vec![3; 4]),
        ("count_over_time(h[40s])", vec![48; 4], vec![48, 24, 24, 24]),
        ("rate(m[1m] @ 600)", vec![18; 4], vec![18, 0, 0, 0]),
        ("quantile_over_time(scalar(m{i=\"0\"}), m[1m] @ 600)", vec![19; 4], vec![19, 1, 1, 1]),
        // Moments every ten seconds; two are new at each step, four are there at first.
        ("max_over_time(m[40s:10s])", vec![12; 4], vec![12, 6, 6, 6]),
        ("max_over_time(m[40s:10s] offset 1m)", vec![12; 4], vec![12, 6, 6, 6]),
        // The moments between windows were evaluated for nothing and do not count.
        ("max_over_time(m[10s:5s])", vec![6; 4], vec![6, 6, 6, 6]),
        ("max_over_time(m[40s:10s] @ 600)", vec![12; 4], vec![12, 0, 0, 0]),
        ("vector(1)", vec![0; 4], vec![0; 4]),
    ] {
        let s = stats(query, span);
        let by_step = s.by_step.expect("asked for");
        assert_eq!((&by_step.queryable, &by_step.read), (&queryable, &read), "{query}");
        let sums = (queryable.iter().sum(), read.iter().sum());
        assert_eq!((s.total_queryable_samples, s.samples_read), sums, "{query}");
        assert_eq!((by_step.start_ms, by_step.step_ms), (3_600 * SECOND, 20 * SECOND));
    }
}

#[test]
fn steps_are_counted_only_when_both_ask() {
    let store = store();
    for (of_engine, of_query) in [(false, true), (true, false)] {
        let engine = engine(EngineConfig { per_step_stats: of_engine, ..EngineConfig::default() });
        let options = QueryOptions { per_step_stats: of_query, ..QueryOptions::default() };
        let out = engine.instant(&store, "rate(m[1m])", 3_600 * SECOND, &options).expect("an answer");
        assert_eq!((out.stats.total_queryable_samples, out.stats.by_step), (18, None));
    }
}
