//! Range and instant queries over columns in memory: what planning, windows and aggregation cost, without a store's
//! decoding. 100 and 10,000 series, 1 and 1,000 steps. Prints a hash of every answer's shape, so that a run that does
//! nothing is noticed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use model::clock::SystemClock;
use model::storage::VecSeriesSet;
use model::{
    Chunk, Labels, LabelsResult, Matcher, Querier, Queryable, Samples, SelectHints, Series, SeriesSet,
    StorageError,
};
use promql::{Engine, EngineConfig, QueryOptions, Value};

const SCRAPE_MS: i64 = 15_000;
const STEP_MS: i64 = 15_000;
const STEPS: i64 = 1_000;
/// Samples before the first step, so that windows are full.
const LEAD_MS: i64 = 3_600_000;

/// Series that are handed out as they are: cloning one clones references.
struct Columns {
    series: Vec<Series>,
}

impl Columns {
    fn new(count: usize) -> Arc<Self> {
        let (families, buckets) = (count / 10, 10);
        let mut series = Vec::with_capacity(count);
        for f in 0..families {
            for b in 0..buckets {
                let le = if b + 1 == buckets { "+Inf".to_owned() } else { format!("{}", 1 << b) };
                let labels = Labels::from_pairs([
                    ("__name__", "requests_bucket"),
                    ("instance", &format!("host-{}", f % 50)),
                    ("path", &format!("/p/{f}")),
                    ("le", &le),
                ]);
                let mut s = Samples::new();
                let mut v = 0.0;
                for i in 0..(LEAD_MS + STEPS * STEP_MS) / SCRAPE_MS {
                    v += ((i * 31 + f as i64 * 17) % 11) as f64 * (b + 1) as f64;
                    s.push_float(i * SCRAPE_MS, v);
                }
                series.push(Series { labels, chunks: vec![Chunk::columns(Arc::new(s))] });
            }
        }
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Arc::new(Self { series })
    }
}

struct View(Arc<Columns>);

impl Queryable for View {
    fn querier(&self, _: i64, _: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(View(self.0.clone())))
    }
}

impl Querier for View {
    fn select(&self, _: &[Matcher], _: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        Ok(Box::new(VecSeriesSet::new(self.0.series.clone(), Vec::new())))
    }

    fn label_names(&self, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        Ok(LabelsResult::default())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        Ok(LabelsResult::default())
    }
}

const QUERIES: [(&str, &str); 6] = [
    ("rate", "rate(requests_bucket[5m])"),
    ("sum_by_rate", "sum by (instance) (rate(requests_bucket[5m]))"),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (le, instance) (rate(requests_bucket[5m])))"),
    ("topk", "topk(5, requests_bucket)"),
    ("subquery", "max_over_time(rate(requests_bucket[5m])[30m:1m])"),
    ("quantile_over_time", "quantile_over_time(0.9, requests_bucket[10m])"),
];

fn shape(value: &Value) -> u64 {
    let mut h = DefaultHasher::new();
    match value {
        Value::Vector(v) => v.iter().for_each(|s| s.labels.as_packed().hash(&mut h)),
        Value::Matrix(m) => m.iter().for_each(|s| {
            s.labels.as_packed().hash(&mut h);
            s.floats.iter().for_each(|(t, v)| (t, v.to_bits()).hash(&mut h));
        }),
        Value::Scalar { .. } | Value::String { .. } => {}
    }
    h.finish()
}

fn bench(c: &mut Criterion) {
    let config = EngineConfig { max_samples: 1 << 40, ..EngineConfig::default() };
    let engine = Engine::new(config, SystemClock::shared(), &prometheus::Registry::new());
    for series in [100, 10_000] {
        let store = View(Columns::new(series));
        let mut group = c.benchmark_group(format!("range_query/{series}_series"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(2));
        for (name, query) in QUERIES {
            for steps in [1, STEPS] {
                let run = || {
                    let end = LEAD_MS + (steps - 1) * STEP_MS;
                    let options = QueryOptions::default();
                    engine.range(&store, query, LEAD_MS, end, STEP_MS, &options).expect("a valid query").value
                };
                let mut told = false;
                group.bench_function(BenchmarkId::new(name, steps), |b| {
                    if !std::mem::replace(&mut told, true) {
                        let _ = writeln!(std::io::stdout(), "{name}/{steps}: answer {:016x}", shape(&run()));
                    }
                    b.iter(|| black_box(run()));
                });
            }
        }
        group.finish();
    }
}

fn main() {
    // Plain test runs start this too: without `--bench` there is nothing to do.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let mut c = Criterion::default().configure_from_args();
    bench(&mut c);
    c.final_summary();
}
