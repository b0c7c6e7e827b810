//! Lines per second from an exposed body to the appender: the body of the scrape before with new numbers (hot), a body
//! never seen (first sight), and the `prometheus-parse` crate, which only parses, as the baseline.
//!
//! The body is a node_exporter's. The appender does nothing, so that the scraper alone is measured. The allocator is the
//! program's, for the baseline too.
//! Targets: hot at least 20 times, first sight at least 8 times the baseline. The same samples are also scraped as protobuf,
//! and as text whose histograms are converted.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use model::{AppendError, Appender, Exemplar, Labels, Metadata, Sample, SeriesRef, StorageError};
use scraper::cache::ScrapeCache;
use scraper::exposition::negotiation::BodyFormat;
use scraper::exposition::{Entry, Format, HistogramOptions, Parser};
use scraper::sample_labels::SampleRules;
use scraper::series_cache::SeriesCache;

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

// === The same samples as protobuf ===

fn varint(mut v: usize, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends a field of bytes.
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Every series as an untyped metric, those of one name as a family.
fn protobuf_body() -> Vec<u8> {
    let mut body = Vec::new();
    let mut family: (String, Vec<u8>) = Default::default();
    let mut finish = |(name, metrics): (String, Vec<u8>)| {
        let mut message = Vec::new();
        field(1, name.as_bytes(), &mut message);
        message.extend([3 << 3, 3]);
        message.extend(metrics);
        varint(message.len(), &mut body);
        body.extend(message);
    };
    let mut parser = Parser::new(Format::Text, BODY.as_bytes());
    while let Some(entry) = parser.next().expect("the body is valid") {
        let Entry::Series(tail) = entry else { continue };
        let mut pairs = Vec::new();
        parser.labels(&mut pairs).expect("the body is valid");
        if family.0 != pairs[0].1 {
            finish(std::mem::replace(&mut family, (pairs[0].1.to_string(), Vec::new())));
        }
        let mut metric = Vec::new();
        for (name, value) in &pairs[1..] {
            let mut label = Vec::new();
            field(1, name.as_bytes(), &mut label);
            field(2, value.as_bytes(), &mut label);
            field(1, &label, &mut metric);
        }
        let mut untyped = vec![1 << 3 | 1];
        untyped.extend(tail.value.to_le_bytes());
        field(5, &untyped, &mut metric);
        field(4, &metric, &mut family.1);
    }
    finish(family);
    body
}

/// Bodies that come sample by sample.
fn bench_samples(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    rules: &SampleRules,
) {
    let protobuf = protobuf_body();
    let convert = HistogramOptions { convert_classic: true, ..HistogramOptions::default() };
    for (name, body, format, histograms) in [
        ("protobuf", protobuf.as_slice(), BodyFormat::Protobuf, HistogramOptions::default()),
        ("text_converted", BODY.as_bytes(), BodyFormat::Text(Format::Text), convert),
    ] {
        let scrape = |cache: &mut SeriesCache, now_ms, app: &mut NullAppender| {
            let appended = cache.append(body, format, histograms, now_ms, rules, app);
            appended.result.expect("the body is valid");
            appended.counts.scraped
        };
        group.bench_function(format!("{name}_hot"), |b| {
            let mut app = NullAppender(0);
            let mut cache = SeriesCache::default();
            let mut now_ms = 0;
            b.iter(|| {
                now_ms += 15_000;
                scrape(&mut cache, now_ms, &mut app)
            });
        });
        group.bench_function(format!("{name}_first_sight"), |b| {
            let mut app = NullAppender(0);
            b.iter_batched(
                SeriesCache::default,
                |mut cache| {
                    scrape(&mut cache, 1000, &mut app);
                    cache
                },
                BatchSize::PerIteration,
            );
        });
    }
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
    bench_samples(&mut group, &rules);
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
