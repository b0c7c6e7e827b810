//! XOR chunk codec: appending and decoding chunks of 120 and 960 samples of three shapes, in samples per second.
//!
//! Exits at once without `--bench`, so that `cargo test --all-targets` does not measure.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use model::Samples;
use tsdb::chunk::{XOR_CODEC, XorAppender};

const START_MS: i64 = 1_700_000_000_000;
const STEP_MS: i64 = 15_000;

/// Regular timestamps with values of one kind.
fn shape(name: &str, len: i64) -> Vec<(i64, f64)> {
    let value = |i: i64| match name {
        "constant" => 42.0,
        // A counter of requests: steps of a few hundred, never the same.
        "counter" => (1_000_000 + i * 250 + (i * 7919) % 97) as f64,
        // A gauge that changes once in eight samples, by little.
        "slow_gauge" => 350.0 + ((i / 8) * 31 % 17) as f64 * 0.5,
        other => unreachable!("no shape {other}"),
    };
    (0..len).map(|i| (START_MS + i * STEP_MS, value(i))).collect()
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk_codec/append");
    for name in ["constant", "slow_gauge", "counter"] {
        for len in [120, 960] {
            let samples = shape(name, len);
            group.throughput(Throughput::Elements(len as u64));
            group.bench_with_input(BenchmarkId::new(name, len), &samples, |b, samples| {
                b.iter(|| {
                    let mut a = XorAppender::new();
                    samples.iter().for_each(|(t, v)| a.append(*t, *v));
                    black_box(a.len_bytes())
                });
            });
        }
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk_codec/decode");
    for name in ["constant", "slow_gauge", "counter"] {
        for len in [120, 960] {
            let mut a = XorAppender::new();
            shape(name, len).iter().for_each(|(t, v)| a.append(*t, *v));
            let bytes = a.encode();
            let mut out = Samples::new();
            group.throughput(Throughput::Elements(len as u64));
            group.bench_with_input(BenchmarkId::new(name, len), &bytes, |b, bytes| {
                b.iter(|| {
                    out.clear();
                    XOR_CODEC.decode(black_box(bytes), i64::MIN, i64::MAX, &mut out).expect("own bytes");
                    black_box(out.len())
                });
            });
        }
    }
    group.finish();
}

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let mut c = Criterion::default().configure_from_args();
    append(&mut c);
    decode(&mut c);
    c.final_summary();
}
