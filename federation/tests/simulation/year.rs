//! A year behind one face: queries over the local store of a scraper node and its long-term node answer what a store answers that
//! always had everything, wherever the seam is.

use std::sync::Arc;
use std::time::Duration;

use federation::store::{LongtermStore, StoreConfig};
use federation::tiered::{OnUnavailable, Tiered};
use model::chunk::decode_chunks;
use model::clock::ManualClock;
use model::memory::MemoryStorage;
use model::storage::VecSeriesSet;
use model::{
    Appendable, Labels, LabelsBuilder, LabelsResult, Matcher, Querier, Queryable, RollupRequest, Sample,
    Samples, SelectHints, SeriesRef, SeriesSet, StorageError, stale_nan,
};
use promql::{Engine, EngineConfig, MatrixSeries, QueryOptions, Value};
use tsdb::Db;
use wire::chunked::FrameEncoder;
use wire::read::{ReadQuery, ReadRequest};
use wire::read_chunks::{ChunkLimits, decode_chunked};

use crate::world::BEGIN_MS;

const DAY_MS: i64 = 86_400_000;
const DAYS: i64 = 365;
const STEP_MS: i64 = 10 * 60_000;
const END_MS: i64 = BEGIN_MS + DAYS * DAY_MS;

/// What dashboards of a year ask.
const QUERIES: [&str; 14] = [
    "requests_total",
    "sum by (pod) (increase(requests_total[1d]))",
    "rate(requests_total[6h])",
    "avg_over_time(memory_bytes[1d])",
    "max by (pod) (max_over_time(memory_bytes[1d]))",
    "min_over_time(memory_bytes[1d]) / max_over_time(memory_bytes[1d])",
    "count_over_time(memory_bytes[1d])",
    "quantile_over_time(0.9, memory_bytes[1d])",
    "changes(memory_bytes[1d])",
    "sum(memory_bytes) by (longterm)",
    "topk(2, memory_bytes)",
    "memory_bytes offset 1w - memory_bytes",
    "absent(memory_bytes{pod=\"3\"})",
    "sum_over_time(memory_bytes[90d])",
];

/// Samples of one time: counters that start anew now and then, gauges, a pod that comes and goes with stale markers.
fn samples_at(t: i64) -> Vec<(Labels, f64)> {
    let n = (t - BEGIN_MS) / STEP_MS;
    let mut out = Vec::new();
    for pod in 0..4_i64 {
        let text = pod.to_string();
        let labels =
            |name| Labels::from_pairs([("__name__", name), ("longterm", "year"), ("pod", text.as_str())]);
        let (alive, ends) = match pod {
            3 => ((n / 2000) % 2 == 0, n % 4000 == 2000),
            _ => (true, false),
        };
        // Noise by a multiplicative hash: no pattern that a rollup could hide.
        let noise = ((n * 4 + pod) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
        if alive {
            let life = 700 + 311 * pod;
            out.push((labels("requests_total"), ((n % life) * (pod + 1)) as f64 + (noise % 7) as f64 / 8.0));
            out.push((labels("memory_bytes"), noise as f64 * 1024.5));
        } else if ends {
            out.push((labels("requests_total"), stale_nan()));
            out.push((labels("memory_bytes"), stale_nan()));
        }
    }
    out
}

fn commit(store: &dyn Appendable, samples: Vec<(Labels, i64, f64)>) {
    let mut appender = store.appender().expect("open");
    for (labels, t, v) in samples {
        appender.append(SeriesRef::NONE, &labels, Sample::float(t, v)).expect("taken");
    }
    appender.commit().expect("stored");
}

fn with_cluster(labels: &Labels) -> Labels {
    LabelsBuilder::from_labels(labels).set("cluster", "c").build()
}

/// The long-term store as a scraper node sees it: questions and answers go over the wire.
struct Wired(Arc<LongtermStore>);

struct WiredQuerier {
    querier: Box<dyn Querier>,
    mint: i64,
    maxt: i64,
}

impl Queryable for Wired {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(WiredQuerier { querier: self.0.querier(mint, maxt)?, mint, maxt }))
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        self.0.rollup_grids_ms()
    }
}

impl Querier for WiredQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        self.querier.select(matchers, hints)
    }

    fn select_rollup(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
        request: &RollupRequest,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        let query = ReadQuery {
            mint: self.mint,
            maxt: self.maxt,
            matchers: matchers.to_vec(),
            hints: hints.clone(),
            rollup: Some(*request),
        };
        let asked = ReadRequest::decode(&ReadRequest::chunks(vec![query]).encode()).expect("own bytes");
        let query = &asked.queries[0];
        let request = query.rollup.as_ref().expect("it was asked for");
        let mut set = self.querier.select_rollup(&query.matchers, &query.hints, request)?;
        let (mut out, mut encoder) = (Vec::new(), FrameEncoder::new(1 << 20));
        let mut samples = Samples::new();
        while let Some(series) = set.next()? {
            encoder.begin(0, &series.labels);
            if let Some(rollup) = series.chunks[0].as_rollup() {
                let range = (series.chunks[0].mint, series.chunks[0].maxt);
                encoder.rollup(rollup, request.columns, range, &mut out);
            } else {
                decode_chunks(&series.chunks, self.mint, self.maxt, &mut samples)?;
                let chunks = tsdb::chunk::encode_common(&samples);
                chunks.iter().for_each(|c| encoder.chunk(c, &mut out));
            }
            encoder.end(&mut out);
        }
        let limits =
            ChunkLimits { mint: self.mint, maxt: self.maxt, frame_len_bytes: 4 << 20, samples: 10_000_000 };
        let series = decode_chunked(&out.into(), tsdb::chunk::codec, limits).expect("own bytes");
        Ok(Box::new(VecSeriesSet::new(series, Vec::new())))
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        self.querier.label_names(matchers, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError> {
        self.querier.label_values(name, matchers, limit)
    }
}

struct Year {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    whole: MemoryStorage,
    longterm: Arc<LongtermStore>,
}

impl Year {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let clock = Arc::new(ManualClock::new(BEGIN_MS));
        let config = StoreConfig { sync: false, ..StoreConfig::new(dir.path().join("longterm")) };
        let longterm =
            LongtermStore::open(config, clock.clone(), &prometheus::Registry::new()).expect("opens");
        let whole = MemoryStorage::new();
        for day in 0..DAYS {
            let times = (0..DAY_MS / STEP_MS).map(|i| BEGIN_MS + day * DAY_MS + i * STEP_MS);
            let mut batch = Vec::new();
            for t in times {
                for (labels, v) in samples_at(t) {
                    whole.insert(&labels, Sample::float(t, v));
                    batch.push((with_cluster(&labels), t, v));
                }
            }
            clock.set_ms(BEGIN_MS + (day + 1) * DAY_MS);
            commit(&*longterm, batch);
            longterm.maintain().expect("maintained");
        }
        Self { dir, clock, whole, longterm }
    }

    /// The scraper node's face when its local store begins so long ago.
    fn tiered(&self, local_days: i64) -> Tiered {
        let config = tsdb::Config::new(self.dir.path().join(format!("local-{local_days}")));
        let db = Db::open(config, self.clock.clone(), &prometheus::Registry::new()).expect("opens");
        db.wait_ready().expect("replayed");
        let mut t = END_MS - local_days * DAY_MS;
        while t < END_MS {
            commit(&*db, samples_at(t).into_iter().map(|(l, v)| (l, t, v)).collect());
            t += STEP_MS;
        }
        let local = db.clone();
        Tiered {
            local: db,
            local_min_time: Arc::new(move || local.min_time()),
            remote: Arc::new(Wired(self.longterm.clone())),
            external_labels: Labels::from_pairs([("cluster", "c")]),
            promoted: None,
            on_unavailable: OnUnavailable::Fail,
        }
    }
}

fn matrix(
    engine: &Engine,
    store: &dyn Queryable,
    query: &str,
    step: Duration,
) -> (Vec<MatrixSeries>, String) {
    let output = engine
        .range(store, query, BEGIN_MS, END_MS - STEP_MS, step.as_millis() as i64, &QueryOptions::default())
        .unwrap_or_else(|e| panic!("{query}: {e}"));
    assert!(output.annotations.is_empty(), "{query}: {:?}", output.annotations);
    match output.value {
        Value::Matrix(m) => (m, output.resolutions.to_string()),
        other => panic!("{query}: {other:?}"),
    }
}

/// Equal up to the order in which sums are made.
fn assert_equal(found: &[MatrixSeries], expected: &[MatrixSeries], what: &str) {
    let labels = |m: &[MatrixSeries]| m.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>();
    assert_eq!(labels(found), labels(expected), "{what}");
    for (f, e) in found.iter().zip(expected) {
        assert_eq!(f.floats.len(), e.floats.len(), "{what}: points of {}", f.labels);
        for ((t, a), (u, b)) in f.floats.iter().zip(&e.floats) {
            let close = a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-12 * a.abs().max(b.abs());
            assert!(t == u && close, "{what}: {} at {t}: {a:e}, not {b:e} at {u}", f.labels);
        }
    }
}

#[test]
fn a_year_reads_the_same_wherever_the_seam_is() {
    let year = Year::new();
    let engine = Engine::new(EngineConfig::default(), year.clock.clone(), &prometheus::Registry::new());
    let day = Duration::from_secs(86_400);
    let whole = |query: &str, step| matrix(&engine, &year.whole, query, step).0;
    let expected: Vec<_> = QUERIES.iter().map(|q| whole(q, day)).collect();
    assert!(expected.iter().all(|m| !m.is_empty() && m[0].floats.len() > 100), "the queries give something");
    for local_days in [1, 15, 200] {
        let tiered = year.tiered(local_days);
        let mut from_rollups = 0;
        for (query, expected) in QUERIES.iter().zip(&expected) {
            let (found, resolutions) = matrix(&engine, &tiered, query, day);
            from_rollups += usize::from(resolutions.contains("1h"));
            assert_equal(&found, expected, &format!("{query} with {local_days} days at hand"));
        }
        assert!(from_rollups >= 7, "{from_rollups} queries used rollups with {local_days} days at hand");
        // Steps that no window is aligned to.
        let odd = Duration::from_secs(7 * 3600 + 131);
        for query in &QUERIES[..6] {
            let (found, _) = matrix(&engine, &tiered, query, odd);
            assert_equal(&found, &whole(query, odd), &format!("{query} at odd steps"));
        }
    }
}
