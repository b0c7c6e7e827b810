//! Range and instant queries over encoded chunks: what selecting, decoding, windows, aggregation and joins cost, and what
//! they hold. 100 and 10,000 series, 1 and 1,000 steps.
//!
//! The store hands out XOR chunks of 120 samples, those that the hints ask for, as the stores of the program do. For every
//! query the table shows wall time, time per series and step, and the most bytes allocated at once beside the store; a
//! second table shows what a hundred times the series and a thousand times the steps cost. Engines run on one thread, so
//! that times add up. Prints a hash of every answer, so that a run that does nothing is noticed. With `--test` everything
//! runs once in a tiny size.

use std::alloc::{GlobalAlloc, Layout};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::clock::{Clock, SystemClock};
use model::{
    Chunk, Labels, LabelsResult, Matcher, Querier, Queryable, SelectHints, Series, SeriesSet, StorageError,
};
use promql::{Engine, EngineConfig, QueryOptions, Value};
use tsdb::chunk::{XOR_CODEC, XorAppender};

const SCRAPE_MS: i64 = 15_000;
const STEP_MS: i64 = 15_000;
const SAMPLES_PER_CHUNK: i64 = 120;
/// Samples before the first step, so that windows are full.
const LEAD_MS: i64 = 3_600_000;

// === What is held ===

/// The program's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static INNER: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let held = HELD_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK_BYTES.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call goes on unchanged to an allocator that keeps the contract; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { INNER.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { INNER.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { INNER.realloc(at, layout, size) }
    }
}

// === The store ===

/// Series in order of their labels.
struct Store {
    series: Vec<Series>,
}

impl Store {
    fn new(count: usize, steps: i64) -> Self {
        let samples = LEAD_MS / SCRAPE_MS + steps;
        let mut series: Vec<Series> = (0..count).map(|i| bucket(i, samples)).collect();
        let hosts = count.div_ceil(10).min(50);
        series.extend((0..hosts).map(|host| {
            let labels =
                Labels::from_pairs([("__name__", "capacity"), ("instance", &format!("host-{host}"))]);
            Series { labels, chunks: chunks(samples, |_| 1000.0 + host as f64) }
        }));
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Self { series }
    }
}

/// The `i`-th counter: ten buckets make a histogram, fifty hosts have many of them.
fn bucket(i: usize, samples: i64) -> Series {
    let (family, bucket) = (i / 10, i % 10);
    let le = if bucket == 9 { "+Inf".to_owned() } else { (1 << bucket).to_string() };
    let labels = Labels::from_pairs([
        ("__name__", "requests_bucket"),
        ("instance", &format!("host-{}", family % 50)),
        ("path", &format!("/p/{family}")),
        ("le", &le),
    ]);
    let mut v = 0.0;
    let chunks = chunks(samples, |at| {
        v += ((at * 31 + family as i64 * 17) % 11) as f64 * (bucket + 1) as f64;
        v
    });
    Series { labels, chunks }
}

fn chunks(samples: i64, mut value: impl FnMut(i64) -> f64) -> Vec<Chunk> {
    let mut out = Vec::new();
    for first in (0..samples).step_by(SAMPLES_PER_CHUNK as usize) {
        let last = (first + SAMPLES_PER_CHUNK).min(samples) - 1;
        let mut chunk = XorAppender::new();
        (first..=last).for_each(|i| chunk.append(i * SCRAPE_MS, value(i)));
        out.push(Chunk::encoded(XOR_CODEC, chunk.encode(), first * SCRAPE_MS, last * SCRAPE_MS));
    }
    out
}

#[derive(Clone)]
struct View(Arc<Store>);

impl Queryable for View {
    fn querier(&self, _: i64, _: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Querier for View {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let (view, matchers) = (self.clone(), matchers.to_vec());
        Ok(Box::new(Selected { view, matchers, mint: hints.start_ms, maxt: hints.end_ms, next: 0 }))
    }

    fn label_names(&self, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        Ok(LabelsResult::default())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        Ok(LabelsResult::default())
    }
}

/// Gives series as they are asked for.
struct Selected {
    view: View,
    matchers: Vec<Matcher>,
    mint: i64,
    maxt: i64,
    next: usize,
}

impl SeriesSet for Selected {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        while let Some(s) = self.view.0.series.get(self.next) {
            self.next += 1;
            if self.matchers.iter().all(|m| m.matches(s.labels.value(&m.name))) {
                let wanted = s.chunks.iter().filter(|c| c.maxt >= self.mint && c.mint <= self.maxt);
                return Ok(Some(Series { labels: s.labels.clone(), chunks: wanted.cloned().collect() }));
            }
        }
        Ok(None)
    }
}

// === Measuring ===

const QUERIES: [(&str, &str); 12] = [
    ("selector", "requests_bucket"),
    ("rate", "rate(requests_bucket[5m])"),
    ("sum by (rate)", "sum by (instance) (rate(requests_bucket[5m]))"),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (le, instance) (rate(requests_bucket[5m])))"),
    ("join, one to one", "requests_bucket - requests_bucket offset 5m"),
    ("join, many to one", "rate(requests_bucket[5m]) / on (instance) group_left () capacity"),
    ("topk", "topk(5, requests_bucket)"),
    ("subquery", "max_over_time(sum(rate(requests_bucket[5m]))[30m:1m])"),
    ("quantile_over_time", "sum(quantile_over_time(0.9, requests_bucket[10m]))"),
    ("avg_over_time", "sum(avg_over_time(requests_bucket[10m]))"),
    ("max_over_time", "sum(max_over_time(requests_bucket[10m]))"),
    ("stddev_over_time", "sum(stddev_over_time(requests_bucket[10m]))"),
];

/// What one query over one store cost.
struct Cost {
    wall: Duration,
    peak_bytes: usize,
    answer: u64,
}

fn measure(
    engine: &Engine,
    clock: &dyn Clock,
    store: &View,
    query: &str,
    steps: i64,
    budget: Duration,
) -> Cost {
    let run = || {
        let end = LEAD_MS + (steps - 1) * STEP_MS;
        let options = QueryOptions::default();
        engine.range(store, query, LEAD_MS, end, STEP_MS, &options).expect("a valid query").value
    };
    let before = HELD_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    let answer = shape(&run());
    let peak_bytes = PEAK_BYTES.load(Ordering::Relaxed).saturating_sub(before);
    let (begin, mut runs) = (clock.monotonic(), Vec::new());
    while runs.is_empty() || (clock.monotonic() - begin < budget && runs.len() < 101) {
        let run_begin = clock.monotonic();
        black_box(run());
        runs.push(clock.monotonic() - run_begin);
    }
    runs.sort_unstable();
    Cost { wall: runs[runs.len() / 2], peak_bytes, answer }
}

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

fn bench(series: [usize; 2], steps: [i64; 2], budget: Duration) -> std::io::Result<()> {
    let config = EngineConfig { max_samples: 1 << 40, worker_threads: 1, ..EngineConfig::default() };
    let clock = SystemClock::shared();
    let engine = Engine::new(config, clock.clone(), &prometheus::Registry::new());
    let mut out = std::io::stdout().lock();
    let mut costs: Vec<Vec<Cost>> = QUERIES.iter().map(|_| Vec::new()).collect();
    writeln!(out, "| query | series | steps | ms | ns per series and step | peak KiB | answer |")?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for count in series {
        let store = View(Arc::new(Store::new(count, steps[1])));
        for ((name, query), costs) in QUERIES.iter().zip(&mut costs) {
            for steps in steps {
                let cost = measure(&engine, &*clock, &store, query, steps, budget);
                let (ms, cells) = (cost.wall.as_secs_f64() * 1e3, (count as i64 * steps) as f64);
                let (ns, kib) = (ms * 1e6 / cells, cost.peak_bytes / 1024);
                writeln!(
                    out,
                    "| {name} | {count} | {steps} | {ms:.3} | {ns:.1} | {kib} | {:016x} |",
                    cost.answer
                )?;
                costs.push(cost);
            }
        }
    }
    let (more_series, more_steps) = (series[1] / series[0], steps[1] / steps[0]);
    writeln!(out, "\n{more_series} times the series at {} steps, {more_steps} times the steps:\n", steps[1])?;
    writeln!(out, "| query | time, series | memory, series | time, steps | memory, steps |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for ((name, _), costs) in QUERIES.iter().zip(&costs) {
        let [_, few, one, many] = costs.as_slice() else { continue };
        let time = |a: &Cost, b: &Cost| b.wall.as_secs_f64() / a.wall.as_secs_f64();
        let memory = |a: &Cost, b: &Cost| b.peak_bytes as f64 / a.peak_bytes.max(1) as f64;
        writeln!(
            out,
            "| {name} | {:.1} | {:.1} | {:.1} | {:.1} |",
            time(few, many),
            memory(few, many),
            time(one, many),
            memory(one, many)
        )?;
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let given = |flag: &str| std::env::args().any(|a| a == flag);
    // Plain test runs start this too: without `--bench` there is nothing to do.
    match (given("--bench"), given("--test")) {
        (false, _) => Ok(()),
        (true, true) => bench([10, 30], [1, 20], Duration::ZERO),
        (true, false) => bench([100, 10_000], [1, 1_000], Duration::from_secs(1)),
    }
}
