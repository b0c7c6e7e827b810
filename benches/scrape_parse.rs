//! Lines per second from an exposed body to the appender: the body of the scrape before with new numbers (hot), a body
//! never seen (first sight), and the `prometheus-parse` crate, which only parses, as the baseline.
//!
//! The body is a node_exporter's. The appender does nothing, so that the scraper alone is measured. The allocator is the
//! program's, for the baseline too.
//! Targets: hot at least 20 times, first sight at least 8 times the baseline.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use model::{AppendError, Appender, Exemplar, Labels, Metadata, Sample, SeriesRef, StorageError};
use scraper::cache::ScrapeCache;
use scraper::exposition::Format;
use scraper::sample_labels::SampleRules;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const BODY: &str = include_str!("data/node_exporter.prom");

/// Takes everything, keeps nothing, and gives references.
struct NullAppender(u64);

impl Appender for NullAppender {
    fn append(
        &mut self,
        _series: SeriesRef,
        labels: &Labels,
        _sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        black_box(labels);
        self.0 += 1;
        Ok(SeriesRef(self.0))
    }
    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) -> Result<(), AppendError> {
        black_box((series, timestamp_ms, value));
        Ok(())
    }
    fn append_exemplar(&mut self, _series: SeriesRef, _exemplar: &Exemplar) -> Result<(), AppendError> {
        Ok(())
    }
    fn append_metadata(&mut self, _series: SeriesRef, _metadata: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
    fn rollback(self: Box<Self>) {}
}

fn scrape(cache: &mut ScrapeCache, timestamp_ms: i64, rules: &SampleRules, app: &mut NullAppender) -> usize {
    let (counts, result) = cache.append(BODY.as_bytes(), Format::Text, timestamp_ms, rules, app);
    result.expect("the body is valid");
    counts.scraped
}

fn bench(c: &mut Criterion) {
    let rules = SampleRules {
        target_labels: Labels::from_pairs([("instance", "10.0.0.1:9100"), ("job", "node")]),
        honor_timestamps: true,
        ..SampleRules::default()
    };
    let mut group = c.benchmark_group("scrape_parse");
    group.throughput(Throughput::Elements(BODY.lines().count() as u64));
    group.bench_function("hot", |b| {
        let mut app = NullAppender(0);
        let mut cache = ScrapeCache::default();
        let mut now_ms = 0;
        b.iter(|| {
            now_ms += 15_000;
            scrape(&mut cache, now_ms, &rules, &mut app)
        });
    });
    group.bench_function("first_sight", |b| {
        let mut app = NullAppender(0);
        b.iter_batched(
            ScrapeCache::default,
            |mut cache| {
                scrape(&mut cache, 1000, &rules, &mut app);
                cache
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("baseline_prometheus_parse", |b| {
        b.iter(|| {
            let lines = BODY.lines().map(|l| Ok(l.to_owned()));
            prometheus_parse::Scrape::parse(lines).expect("the body is valid").samples.len()
        });
    });
    group.finish();
}

fn main() {
    // `cargo test --all-targets` runs this too, and has no time for it.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let mut c = Criterion::default().configure_from_args();
    bench(&mut c);
    c.final_summary();
}
