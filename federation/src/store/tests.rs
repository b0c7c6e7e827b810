//! The store as a whole. What the parts promise is tested beside them.

mod durability;
mod index;
mod operate;
mod property;
mod retention;
mod rollups;
mod shared;
mod years;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::chunk::decode_chunks;
use model::clock::ManualClock;
use model::{
    AppendError, Appendable, Exemplar, HistogramValue, Labels, Matcher, Metadata, MetricType, Queryable,
    Sample, SampleValue, Samples, SelectHints, SeriesRef, StorageError,
};

use super::sample_codec::tests::specimens;
use super::{LongtermStore, StoreConfig, StoreError};

/// 2026-09-21, in the middle of a month.
pub(super) const T0: i64 = 1_790_000_000_000;
pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// Samples per series and timestamp.
pub(super) type Expected = BTreeMap<Labels, BTreeMap<i64, SampleValue>>;

/// A store in a temporary directory under a clock that stands still.
pub(super) struct Fixture {
    dirs: Vec<tempfile::TempDir>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) config: StoreConfig,
    pub(super) store: Option<Arc<LongtermStore>>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut StoreConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = StoreConfig {
            sync: false,
            cache_bytes: 4 << 20,
            write_buffer_bytes: 4 << 20,
            ..StoreConfig::new(dir.path())
        };
        change(&mut config);
        let clock = Arc::new(ManualClock::new(T0));
        let mut out = Self { dirs: vec![dir], clock, config, store: None };
        out.open();
        out
    }

    pub(super) fn try_open(&self) -> Result<Arc<LongtermStore>, StoreError> {
        LongtermStore::open(self.config.clone(), self.clock.clone(), &prometheus::Registry::new())
    }

    pub(super) fn open(&mut self) {
        self.store = Some(self.try_open().unwrap());
    }

    pub(super) fn store(&self) -> &LongtermStore {
        self.store.as_ref().unwrap()
    }

    /// Ends in good order and opens again.
    pub(super) fn restart(&mut self) {
        self.store.take().unwrap().close().unwrap();
        self.open();
    }

    /// Opens a copy of the files as they are, which is what `kill -9` leaves.
    pub(super) fn kill(&mut self) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&self.config.dir, copy.path());
        self.config.dir = copy.path().to_path_buf();
        self.dirs.push(copy);
        self.store = None;
        self.open();
    }

    pub(super) fn advance(&self, ms: i64) {
        self.clock.advance(Duration::from_millis(ms as u64));
    }

    pub(super) fn commit(&self, samples: &[(Labels, Sample)]) {
        let mut a = self.store().appender().unwrap();
        for (labels, sample) in samples {
            a.append(SeriesRef::NONE, labels, sample.clone()).unwrap();
        }
        a.commit().unwrap();
    }

    pub(super) fn commit_floats(&self, series: &Labels, samples: impl IntoIterator<Item = (i64, f64)>) {
        let samples: Vec<_> =
            samples.into_iter().map(|(t, v)| (series.clone(), Sample::float(t, v))).collect();
        self.commit(&samples);
    }

    pub(super) fn all(&self) -> Expected {
        read(self.store(), &[], i64::MIN, i64::MAX).unwrap()
    }
}

/// Copies a folder as a `kill -9` would leave it. RocksDB's background threads go on, so a copy during which files came or
/// went is thrown away and made again.
fn copy_dir(from: &Path, to: &Path) {
    let names = || -> std::collections::BTreeSet<_> {
        std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    for _ in 0..1000 {
        let before = names();
        let copied = before.iter().all(|name| std::fs::copy(from.join(name), to.join(name)).is_ok());
        if copied && names() == before {
            return;
        }
        for entry in std::fs::read_dir(to).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the folder {} never stands still", from.display());
}

pub(super) fn labels(name: &str, i: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", &format!("host-{i}:9100")), ("job", "node")])
}

/// Everything a selection gives, decoded.
pub(super) fn read(
    store: &LongtermStore,
    matchers: &[Matcher],
    mint: i64,
    maxt: i64,
) -> Result<Expected, StorageError> {
    let querier = store.querier(mint, maxt)?;
    read_from(querier.as_ref(), matchers, mint, maxt)
}

pub(super) fn read_from(
    querier: &dyn model::Querier,
    matchers: &[Matcher],
    mint: i64,
    maxt: i64,
) -> Result<Expected, StorageError> {
    let mut set = querier.select(matchers, &SelectHints::default())?;
    let mut out = Expected::new();
    let mut samples = Samples::new();
    let mut last: Option<Labels> = None;
    while let Some(series) = set.next()? {
        assert!(last.as_ref().is_none_or(|l| *l < series.labels), "sorted by labels");
        assert!(series.chunks.windows(2).all(|w| w[0].maxt < w[1].mint), "chunks do not overlap");
        decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
        assert!(!samples.is_empty(), "series without samples are left out: {}", series.labels);
        out.insert(series.labels.clone(), samples.iter().map(|s| (s.timestamp_ms, plain(s.value))).collect());
        last = Some(series.labels);
    }
    Ok(out)
}

/// A value without the hint that no reset precedes it, which a store derives when it reads.
pub(super) fn plain(value: SampleValue) -> SampleValue {
    use model::histogram::CounterResetHint::{NotCounterReset, Unknown};
    let SampleValue::Histogram(mut h) = value else { return value };
    match &mut h {
        HistogramValue::Int(h) if h.counter_reset_hint == NotCounterReset => {
            Arc::make_mut(h).counter_reset_hint = Unknown;
        }
        HistogramValue::Float(h) if h.counter_reset_hint == NotCounterReset => {
            Arc::make_mut(h).counter_reset_hint = Unknown;
        }
        _ => {}
    }
    SampleValue::Histogram(h)
}

pub(super) fn floats(samples: &[(i64, f64)]) -> BTreeMap<i64, SampleValue> {
    samples.iter().map(|(t, v)| (*t, SampleValue::Float(*v))).collect()
}

#[test]
fn what_is_committed_is_read_back_through_every_stage() {
    let mut f = Fixture::new();
    let (a, b) = (labels("a", 1), labels("b", 2));
    let mut expect = Expected::new();
    let stale = model::stale_nan();
    let values = [1.0, 1.5, stale, f64::from_bits(0x7ff8_dead_beef_0001), -0.0, f64::INFINITY, 1e300];
    f.commit_floats(&a, values.iter().enumerate().map(|(i, v)| (T0 - 60_000 + i as i64 * 15_000, *v)));
    expect.insert(
        a.clone(),
        (0..).map(|i| T0 - 60_000 + i * 15_000).zip(values.map(SampleValue::Float)).collect(),
    );
    let many: Vec<(Labels, Sample)> = (0..20)
        .flat_map(|i| specimens(T0 - 5_000_000 + i * 1000)[(i % 5) as usize..][..1].to_vec())
        .map(|s| (b.clone(), s))
        .collect();
    f.commit(&many);
    expect.insert(b.clone(), many.iter().map(|(_, s)| (s.timestamp_ms, plain(s.value.clone()))).collect());

    assert_eq!(f.all(), expect);
    f.kill();
    assert_eq!(f.all(), expect, "from the journal");
    f.advance(DAY_MS);
    let report = f.store().maintain().unwrap();
    assert_eq!((report.sealed_samples, report.sealed_chunks), (27, 2));
    assert_eq!(f.all(), expect, "from chunks");
    f.kill();
    assert_eq!((f.all(), f.store().stats().open_samples), (expect.clone(), 0));
    f.restart();
    assert_eq!(f.all(), expect, "after a restart");
    // Start timestamps come back too.
    let q = f.store().querier(i64::MIN, i64::MAX).unwrap();
    let mut set = q.select(&[Matcher::equal("__name__", "b")], &SelectHints::default()).unwrap();
    let mut samples = Samples::new();
    decode_chunks(&set.next().unwrap().unwrap().chunks, i64::MIN, i64::MAX, &mut samples).unwrap();
    let plain = |s: Sample| (s.timestamp_ms, s.start_timestamp_ms, plain(s.value));
    let expect: Vec<_> = many.into_iter().map(|(_, s)| plain(s)).collect();
    assert_eq!(samples.iter().map(plain).collect::<Vec<_>>(), expect);
}

#[test]
fn the_first_value_of_a_timestamp_counts_at_every_stage() {
    let mut f = Fixture::new();
    let a = labels("a", 1);
    f.commit_floats(&a, [(T0, 1.0), (T0, 2.0), (T0 + 10, 3.0)]);
    f.commit_floats(&a, [(T0, 3.0), (T0 + 10, 3.0), (T0 - 10, 0.0)]);
    let expect = floats(&[(T0 - 10, 0.0), (T0, 1.0), (T0 + 10, 3.0)]);
    assert_eq!(f.all()[&a], expect);
    f.kill();
    assert_eq!(f.all()[&a], expect);
    f.advance(DAY_MS);
    f.store().maintain().unwrap();
    assert_eq!(f.all()[&a], expect);
    f.commit_floats(&a, [(T0, 9.0), (T0 + 5, 5.0), (T0 + 10, 9.0), (T0 + 20, 4.0)]);
    let expect = floats(&[(T0 - 10, 0.0), (T0, 1.0), (T0 + 5, 5.0), (T0 + 10, 3.0), (T0 + 20, 4.0)]);
    assert_eq!(f.all()[&a], expect, "late samples over a chunk");
    f.advance(DAY_MS);
    f.store().maintain().unwrap();
    assert_eq!(f.all()[&a], expect, "merged");
    f.kill();
    assert_eq!(f.all()[&a], expect);
}

#[test]
fn samples_are_refused_by_time_labels_and_shape() {
    let f = Fixture::new();
    let a = labels("a", 1);
    let mut ap = f.store().appender().unwrap();
    let mut add = |l: &Labels, s: Sample| ap.append(SeriesRef::NONE, l, s);
    assert!(matches!(add(&a, Sample::float(T0 - 400 * DAY_MS - 1, 1.0)), Err(AppendError::TooOld)));
    assert!(matches!(add(&a, Sample::float(T0 + HOUR_MS + 1, 1.0)), Err(AppendError::OutOfBounds)));
    assert!(matches!(add(&Labels::empty(), Sample::float(T0, 1.0)), Err(AppendError::InvalidLabels(_))));
    let long = Labels::from_pairs([("n".repeat(70_000), "v")]);
    assert!(matches!(add(&long, Sample::float(T0, 1.0)), Err(AppendError::InvalidLabels(_))));
    let bad = model::Histogram { positive_buckets: vec![1], ..Default::default() };
    assert!(matches!(add(&a, Sample::histogram(T0, bad)), Err(AppendError::InvalidHistogram(_))));
    let series = add(&a, Sample::float(T0 + HOUR_MS, 1.0)).unwrap();
    add(&a, Sample::float(T0 - 400 * DAY_MS, 2.0)).unwrap();
    assert!(matches!(ap.append_float(SeriesRef(u64::MAX), T0, 1.0), Err(AppendError::UnknownRef)));
    ap.append_float(series, T0, 3.0).unwrap();
    ap.commit().unwrap();
    assert_eq!(f.all()[&a], floats(&[(T0 - 400 * DAY_MS, 2.0), (T0, 3.0), (T0 + HOUR_MS, 1.0)]));
}

#[test]
fn a_batch_is_seen_as_a_whole_and_only_by_those_who_come_later() {
    let f = Fixture::new();
    let (a, b) = (labels("a", 1), labels("b", 2));
    f.commit_floats(&a, [(T0, 1.0)]);
    let early = f.store().querier(i64::MIN, i64::MAX).unwrap();
    let mut open = f.store().appender().unwrap();
    open.append(SeriesRef::NONE, &a, Sample::float(T0 + 1, 2.0)).unwrap();
    open.append(SeriesRef::NONE, &b, Sample::float(T0 + 1, 2.0)).unwrap();
    assert_eq!(f.all().len(), 1, "not committed yet");
    open.commit().unwrap();
    let mut rolled_back = f.store().appender().unwrap();
    rolled_back.append(SeriesRef::NONE, &labels("c", 3), Sample::float(T0, 1.0)).unwrap();
    rolled_back.rollback();
    assert_eq!(f.all().keys().cloned().collect::<Vec<_>>(), [a.clone(), b.clone()]);

    // Sealing waits for the early reader, who goes on seeing what it saw.
    f.advance(60_000);
    let before = read_from(early.as_ref(), &[], i64::MIN, i64::MAX).unwrap();
    assert_eq!(before, Expected::from([(a.clone(), floats(&[(T0, 1.0)]))]));
    f.clock.set_ms(T0 + 100_000);
    let late = f.store().querier(i64::MIN, i64::MAX).unwrap();
    f.store().inner.seal(&[0, 1]).unwrap();
    assert_eq!(f.store().stats().open_samples, 2, "only what the early reader sees is sealed");
    assert_eq!(read_from(early.as_ref(), &[], i64::MIN, i64::MAX).unwrap(), before);
    assert_eq!(read_from(late.as_ref(), &[], i64::MIN, i64::MAX).unwrap(), f.all());
    drop(early);
    f.store().inner.seal(&[0, 1]).unwrap();
    assert_eq!(f.store().stats().open_samples, 0);
    assert_eq!(read_from(late.as_ref(), &[], i64::MIN, i64::MAX).unwrap(), f.all());
    assert_eq!(f.all()[&a], floats(&[(T0, 1.0), (T0 + 1, 2.0)]));
}

#[test]
fn metadata_and_exemplars_are_kept() {
    let mut f = Fixture::new();
    let a = labels("a", 1);
    let meta = Metadata { metric_type: MetricType::Counter, unit: "seconds".into(), help: "Time.".into() };
    let exemplar = |t, v: &str| Exemplar {
        labels: Labels::from_pairs([("trace_id", v)]),
        value: 0.5,
        timestamp_ms: Some(t),
    };
    let mut ap = f.store().appender().unwrap();
    let series = ap.append(SeriesRef::NONE, &a, Sample::float(T0, 1.0)).unwrap();
    ap.append_metadata(series, &meta).unwrap();
    ap.append_exemplar(series, &exemplar(T0, "x")).unwrap();
    ap.append_exemplar(series, &exemplar(T0 - 40 * DAY_MS, "old")).unwrap();
    assert!(ap.append_exemplar(SeriesRef(99), &exemplar(T0, "x")).is_err());
    ap.commit().unwrap();
    f.kill();
    let m = [Matcher::equal("job", "node")];
    assert_eq!(f.store().metadata(&m, T0, T0, 0).unwrap(), [(a.clone(), meta)]);
    let both = vec![exemplar(T0 - 40 * DAY_MS, "old"), exemplar(T0, "x")];
    assert_eq!(f.store().exemplars(&m, 0, i64::MAX, 0).unwrap(), [(a.clone(), both)]);
    assert_eq!(f.store().exemplars(&m, T0, T0, 0).unwrap()[0].1.len(), 1);
    assert!(f.store().exemplars(&m, T0 + 1, i64::MAX, 0).unwrap().is_empty());
}

#[test]
fn full_memory_seals_early_and_idle_series_leave_it() {
    let f = Fixture::with(|c| c.open_max_bytes = 64 << 10);
    let mut expect = Expected::new();
    for round in 0..40 {
        let batch: Vec<_> = (0..100)
            .flat_map(|i| {
                (0..20).map(move |k| (labels("m", i), Sample::float(T0 + (round * 20 + k) * 1000, k as f64)))
            })
            .collect();
        f.commit(&batch);
        for (l, s) in batch {
            expect.entry(l).or_default().insert(s.timestamp_ms, s.value);
        }
        assert!(f.store().stats().open_bytes < 202 << 10);
    }
    assert_eq!(f.all(), expect);
    let mut ap = f.store().appender().unwrap();
    let series = ap.append(SeriesRef::NONE, &labels("m", 0), Sample::float(T0, 0.0)).unwrap();
    ap.append(SeriesRef::NONE, &labels("ghost", 0), Sample::float(T0, 0.0)).unwrap();
    ap.rollback();
    let mut forgotten = 0;
    for _ in 0..6 {
        f.advance(DAY_MS);
        forgotten += f.store().maintain().unwrap().forgotten_series;
    }
    assert_eq!((forgotten, f.store().stats().series_in_memory), (101, 0));
    let mut ap = f.store().appender().unwrap();
    assert!(matches!(ap.append_float(series, T0, 1.0), Err(AppendError::UnknownRef)));
    assert_eq!(f.all(), expect);
    // A series that comes back is the same one.
    f.commit_floats(&labels("m", 5), [(T0 - 1, 7.0)]);
    expect.get_mut(&labels("m", 5)).unwrap().insert(T0 - 1, SampleValue::Float(7.0));
    assert_eq!(f.all(), expect);
    assert_eq!(f.store().stats().series, 100);
}
