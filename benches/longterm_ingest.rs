//! Long-term store: append and commit by reference, and decoding of sealed chunks.
//!
//! Exits at once without `--bench`, so that it costs nothing when tests build all targets.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use federation::store::{LongtermStore, StoreConfig};
use model::chunk::decode_chunks;
use model::clock::ManualClock;
use model::{Appendable, Labels, Queryable, Sample, Samples, SelectHints, SeriesRef};

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
