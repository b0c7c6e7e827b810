//! Remote write 1.0: what receiving and sending cost per sample.
//!
//! 10,000 series of ten labels, with one sample each (a live sender) and with twenty (one that catches up). `decode`
//! is snappy and protobuf with all labels read, `append` resolves series by their raw label bytes and hands samples
//! to an appender that only adds up; `encode` is what a sender does with label sections it made before. Target:
//! `append` in at most 0.6 µs per sample.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use model::Labels;
use wire::label_cache::LabelCache;
use wire::snappy::{Compressor, Decompressor};
use wire::write_v1::encode::encode_labels;
use wire::write_v1::{LabelScratch, WriteRequest, WriteRequestEncoder, to_labels};

const SERIES: u64 = 10_000;
const LIMIT_BYTES: usize = 256 << 20;

fn labels(i: u64) -> Labels {
    let pod = format!("payment-service-{:x}-{:05}", i / 50 * 2_654_435_761 % 0xffff_ffff, i / 50);
    Labels::from_pairs([
        ("__name__", format!("http_server_requests_{}_total", i % 50)),
        ("cluster", "production-eu-west-1".into()),
        ("container", "application".into()),
        ("endpoint", "metrics".into()),
        ("instance", format!("10.{}.{}.{}:8080", i / 50 % 7, i / 50 % 251, i % 50)),
        ("job", "payment-service".into()),
        ("longterm", "true".into()),
        ("method", ["GET", "POST", "PUT", "DELETE"][(i % 4) as usize].into()),
        ("namespace", "payments".into()),
        ("pod", pod),
    ])
}

fn sections() -> Vec<Vec<u8>> {
    let section = |i| {
        let mut out = Vec::new();
        encode_labels(&labels(i), &mut out);
        out
    };
    (0..SERIES).map(section).collect()
}

fn encode(sections: &[Vec<u8>], samples: i64, out: &mut WriteRequestEncoder) {
    out.clear();
    for (i, section) in sections.iter().enumerate() {
        let mut series = out.series(section);
        for k in 0..samples {
            series.float(1_700_000_000_000 + k * 15_000, (i as i64 * 1000 + k * 17) as f64);
        }
    }
}

/// Everything is read, nothing kept.
fn decode(body: &[u8], decompressor: &mut Decompressor, buffer: &mut Vec<u8>) -> u64 {
    decompressor.decompress(body, LIMIT_BYTES, buffer).expect("our own block");
    let mut request = WriteRequest::new(buffer);
    let mut scratch = LabelScratch::default();
    let mut sum = 0_u64;
    while let Some(series) = request.next_series().expect("our own message") {
        sum += series.labels(&mut scratch).expect("our own labels").len() as u64;
        for sample in series.samples() {
            let (t, v) = sample.expect("our own sample");
            sum = sum.wrapping_add(t as u64 ^ v.to_bits());
        }
    }
    sum
}

/// The least that an appender does: a slot per series.
#[derive(Default)]
struct Slots {
    newest: Vec<(i64, f64)>,
}

fn append(
    body: &[u8],
    decompressor: &mut Decompressor,
    buffer: &mut Vec<u8>,
    cache: &mut LabelCache<usize>,
    slots: &mut Slots,
) {
    decompressor.decompress(body, LIMIT_BYTES, buffer).expect("our own block");
    let mut request = WriteRequest::new(buffer);
    let mut scratch = LabelScratch::default();
    while let Some(series) = request.next_series().expect("our own message") {
        let slot = match cache.get(series.raw_labels()) {
            Some(slot) => *slot,
            None => {
                let labels = series.labels(&mut scratch).expect("our own labels");
                black_box(to_labels(labels).expect("our own labels"));
                slots.newest.push((0, 0.0));
                cache.insert(series.raw_labels(), slots.newest.len() - 1);
                slots.newest.len() - 1
            }
        };
        for sample in series.samples() {
            slots.newest[slot] = sample.expect("our own sample");
        }
    }
}

fn remote_write(c: &mut Criterion) {
    let sections = sections();
    let mut group = c.benchmark_group("remote_write");
    for samples in [1_u64, 20] {
        let mut encoder = WriteRequestEncoder::new();
        encode(&sections, samples as i64, &mut encoder);
        let (mut compressor, mut body) = (Compressor::new(), Vec::new());
        compressor.compress(encoder.as_bytes(), &mut body).expect("fits");
        let (mut decompressor, mut buffer) = (Decompressor::new(), Vec::new());
        group.throughput(Throughput::Elements(SERIES * samples));
        group.bench_function(BenchmarkId::new("decode", samples), |b| {
            b.iter(|| black_box(decode(&body, &mut decompressor, &mut buffer)));
        });
        let (mut cache, mut slots) = (LabelCache::new(4 * SERIES as usize), Slots::default());
        group.bench_function(BenchmarkId::new("append", samples), |b| {
            b.iter(|| append(&body, &mut decompressor, &mut buffer, &mut cache, &mut slots));
        });
        group.bench_function(BenchmarkId::new("encode", samples), |b| {
            b.iter(|| {
                encode(&sections, samples as i64, &mut encoder);
                compressor.compress(encoder.as_bytes(), &mut body).expect("fits");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, remote_write);

fn main() {
    // `cargo test --all-targets` runs benches too, without this flag.
    if std::env::args().any(|a| a == "--bench") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
