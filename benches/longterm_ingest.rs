//! Long-term store: append and commit by reference, decoding of sealed chunks, and queries over a year at steps of a day, from
//! samples and from rollups, with the bytes that each takes on disk.
//!
//! Exits at once without `--bench`, so that it costs nothing when tests build all targets.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use federation::store::{LongtermStore, StoreConfig};
use model::chunk::decode_chunks;
use model::clock::ManualClock;
use model::{Appendable, Labels, Queryable, Sample, Samples, SelectHints, SeriesRef};
use promql::{Engine, EngineConfig, QueryOptions};

const SERIES: usize = 2000;
const T0: i64 = 1_790_000_000_000;
const INTERVAL_MS: i64 = 15_000;

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let mut c = Criterion::default().configure_from_args();
    ingest(&mut c);
    decode(&mut c);
    year(&mut c);
    c.final_summary();
}

struct Bench {
    store: Arc<LongtermStore>,
    clock: Arc<ManualClock>,
    refs: Vec<SeriesRef>,
    round: i64,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = Arc::new(ManualClock::new(T0));
        // Without sync: the disk of the machine at hand is not what is measured.
        let config = StoreConfig { sync: false, ..StoreConfig::new(dir.path()) };
        let store =
            LongtermStore::open(config, clock.clone(), &prometheus::Registry::new()).expect("a new store");
        let mut a = store.appender().expect("an open store");
        let refs = (0..SERIES)
            .map(|i| {
                a.append(SeriesRef::NONE, &labels(i), Sample::float(T0, value(i, 0))).expect("a good sample")
            })
            .collect();
        a.commit().expect("a commit");
        Self { store, clock, refs, round: 0, _dir: dir }
    }

    fn batch(&mut self) {
        self.round += 1;
        let t = T0 + self.round * INTERVAL_MS;
        self.clock.set_ms(t);
        let mut a = self.store.appender().expect("an open store");
        for (i, r) in self.refs.iter().enumerate() {
            a.append_float(*r, t, value(i, self.round)).expect("a good sample");
        }
        a.commit().expect("a commit");
    }
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("node_metric_{}", i % 200)),
        ("instance", format!("10.0.{}.1:9100", i / 200)),
        ("job", "node".to_owned()),
        ("mode", format!("mode-{}", i % 7)),
    ])
}

/// Constants, counters and gauges in about the shares that exporters have.
fn value(i: usize, round: i64) -> f64 {
    let noise =
        ((i as i64 + 1).wrapping_mul(round + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 48) & 0xff;
    match i % 5 {
        0..=2 => i as f64,
        3 => (round * 1000 + noise) as f64,
        _ => (20_000 + noise) as f64 / 100.0,
    }
}

fn ingest(c: &mut Criterion) {
    let mut group = c.benchmark_group("longterm_ingest");
    group.throughput(Throughput::Elements(SERIES as u64));
    let mut bench = Bench::new();
    group.bench_function("append_and_commit_2000", |b| b.iter(|| bench.batch()));
    group.finish();
}

fn decode(c: &mut Criterion) {
    let mut bench = Bench::new();
    for _ in 0..960 {
        bench.batch();
    }
    bench.clock.set_ms(T0 + 2 * 86_400_000);
    bench.store.maintain().expect("sealing");
    let querier = bench.store.querier(i64::MIN, i64::MAX).expect("an open store");
    let mut set = querier.select(&[], &SelectHints::default()).expect("a selection");
    let mut chunks = Vec::new();
    while let Some(series) = set.next().expect("a series") {
        chunks.push(series.chunks);
    }
    let mut group = c.benchmark_group("longterm_decode");
    group.throughput(Throughput::Elements((SERIES * 961) as u64));
    let mut samples = Samples::new();
    group.bench_function("sealed_chunks", |b| {
        b.iter(|| {
            for c in &chunks {
                decode_chunks(c, i64::MIN, i64::MAX, &mut samples).expect("own chunks");
                black_box(&samples);
            }
        });
    });
    group.finish();
}

const DAY_MS: i64 = 86_400_000;
/// A Monday at midnight.
const YEAR_BEGIN: i64 = 1_758_499_200_000;
/// Of each metric.
const YEAR_SERIES: usize = 4;

/// A year of three metrics at 15 s, sealed day by day.
struct Year {
    store: Arc<LongtermStore>,
    clock: Arc<ManualClock>,
    days: i64,
    samples: u64,
    _dir: tempfile::TempDir,
}

impl Year {
    fn new(days: i64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = Arc::new(ManualClock::new(YEAR_BEGIN));
        let config = StoreConfig { sync: false, ..StoreConfig::new(dir.path()) };
        let open = || {
            LongtermStore::open(config.clone(), clock.clone(), &prometheus::Registry::new())
                .expect("a store of our own")
        };
        let store = open();
        let mut samples = 0;
        for day in 0..days {
            clock.set_ms(YEAR_BEGIN + (day + 1) * DAY_MS);
            let mut a = store.appender().expect("an open store");
            for i in 0..3 * YEAR_SERIES {
                let name = ["limit", "temperature", "requests_total"][i % 3];
                let labels =
                    Labels::from_pairs([("__name__", name), ("instance", &format!("host-{i}:9100"))]);
                let mut series = SeriesRef::NONE;
                for k in 0..DAY_MS / INTERVAL_MS {
                    let (t, v) = (YEAR_BEGIN + day * DAY_MS + k * INTERVAL_MS + 7_000, year_value(i, day, k));
                    series = a.append(series, &labels, Sample::float(t, v)).expect("a good sample");
                    samples += 1;
                }
            }
            a.commit().expect("a commit");
            store.maintain().expect("sealing");
        }
        clock.advance(std::time::Duration::from_secs(86_400));
        store.maintain().expect("sealing");
        // What lies in memory tables goes to disk.
        store.close().expect("closing");
        drop(store);
        Self { store: open(), clock: clock.clone(), days, samples, _dir: dir }
    }

    fn query(&self, engine: &Engine, text: &str, raw_only: bool) -> usize {
        let options = QueryOptions { raw_only, ..QueryOptions::default() };
        let (start, end) = (YEAR_BEGIN + DAY_MS, YEAR_BEGIN + self.days * DAY_MS);
        let output = engine.range(&*self.store, text, start, end, DAY_MS, &options).expect("an answer");
        assert_eq!(output.resolutions.to_string() == "raw", raw_only, "{text}");
        match output.value {
            promql::Value::Matrix(series) => series.iter().map(|s| s.floats.len()).sum(),
            _ => 0,
        }
    }
}

/// A constant, a gauge of two decimals, a counter that starts again now and then.
fn year_value(i: usize, day: i64, k: i64) -> f64 {
    let at = day * (DAY_MS / INTERVAL_MS) + k;
    let noise = (((i as i64 + 1) * (at + 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 48) & 0xff;
    match i % 3 {
        0 => i as f64,
        1 => (2_000 + noise + 300 * (k / 240 % 24 - 12).abs()) as f64 / 100.0,
        _ => ((at % 200_000) * 1000 + noise) as f64,
    }
}

#[allow(clippy::print_stdout, reason = "what a bench is for")]
fn year(c: &mut Criterion) {
    let tiny = std::env::args().any(|a| a == "--test");
    let year = Year::new(if tiny { 3 } else { 365 });
    let stats = year.store.stats();
    for (family, bytes) in stats.family_bytes.iter().filter(|(f, _)| ["raw", "agg5m", "agg1h"].contains(f)) {
        println!("longterm_year: {family}: {:.4} bytes per sample", *bytes as f64 / year.samples as f64);
    }
    let config = EngineConfig { worker_threads: 1, ..EngineConfig::default() };
    let engine = Engine::new(config, year.clock.clone(), &prometheus::Registry::new());
    let mut group = c.benchmark_group("longterm_year");
    group.sample_size(10);
    // Samples that the answer stands for.
    group.throughput(Throughput::Elements(year.samples / 3));
    for text in [
        "increase(requests_total[1d])",
        "avg_over_time(temperature[1d])",
        "max_over_time(temperature[1d])",
        "increase(requests_total[1h])",
        "last_over_time(temperature[1d] offset 5m)",
        "temperature",
    ] {
        for raw_only in [true, false] {
            let id = BenchmarkId::new(text, if raw_only { "samples" } else { "rollups" });
            group.bench_function(id, |b| b.iter(|| black_box(year.query(&engine, text, raw_only))));
        }
    }
    group.finish();
}
