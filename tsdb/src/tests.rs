//! The whole database against a plain model: whatever is appended, cut into blocks and reopened comes back bit for bit.

mod compaction;
mod crash;
mod damage;
mod deletes;
mod late;
mod promtool;
mod snapshots;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use model::clock::ManualClock;
use model::storage::{Appendable, Querier, Queryable, WalSource};
use model::{
    AppendError, Exemplar, Labels, MatchOp, Matcher, Metadata, MetricType, Sample, SelectHints, SeriesRef,
    WalRecord, chunk::decode_chunks,
};
use proptest::prelude::*;

use crate::{Config, Db, Error};

const HOUR: i64 = 3_600_000;
/// A multiple of two hours.
const START: i64 = 2 * HOUR * 230_000;

type Expected = BTreeMap<Labels, BTreeMap<i64, u64>>;

fn config(dir: &Path) -> Config {
    Config { wal_segment_bytes: 128 << 10, ..Config::new(dir) }
}

fn open(config: Config) -> Arc<Db> {
    let clock = Arc::new(ManualClock::new(START));
    Db::open(config, clock, &prometheus::Registry::new()).expect("opens")
}

fn open_in(dir: &Path) -> Arc<Db> {
    open(config(dir))
}

fn labels(i: u64) -> Labels {
    let parity = if i.is_multiple_of(2) { "even" } else { "" };
    Labels::from_pairs([("__name__", "m"), ("i", i.to_string().as_str()), ("parity", parity)])
}

fn append(db: &Db, samples: &[(Labels, i64, f64)]) {
    let mut a = db.appender().expect("open");
    for (l, t, v) in samples {
        a.append(SeriesRef::NONE, l, Sample::float(*t, *v)).expect("accepted");
    }
    a.commit().expect("committed");
}

fn read_with(q: &dyn Querier, matchers: &[Matcher], mint: i64, maxt: i64) -> Expected {
    let mut set = q.select(matchers, &SelectHints::default()).expect("selected");
    let mut out = Expected::new();
    let mut samples = model::Samples::new();
    let mut last: Option<Labels> = None;
    while let Some(s) = set.next().expect("read") {
        assert!(last.is_none_or(|l| l < s.labels), "sorted by labels");
        last = Some(s.labels.clone());
        assert!(s.chunks.is_sorted_by_key(|c| c.mint), "chunks are sorted");
        decode_chunks(&s.chunks, mint, maxt, &mut samples).expect("decodes");
        let list = samples.timestamps_ms.iter().zip(&samples.values).map(|(t, v)| (*t, v.to_bits()));
        let list: BTreeMap<_, _> = list.collect();
        if !list.is_empty() {
            out.insert(s.labels, list);
        }
    }
    out
}

fn read(db: &Db, matchers: &[Matcher], mint: i64, maxt: i64) -> Expected {
    let q = db.querier(mint, maxt).expect("open");
    read_with(&*q, matchers, mint, maxt)
}

fn all() -> Vec<Matcher> {
    vec![Matcher::equal("__name__", "m")]
}

fn read_all(db: &Db) -> Expected {
    read(db, &all(), i64::MIN, i64::MAX)
}

fn clip(expected: &Expected, matchers: &[Matcher], mint: i64, maxt: i64) -> Expected {
    let series = expected.iter().filter(|(l, _)| Matcher::all_match(matchers, l));
    let clipped = series.map(|(l, s)| (l.clone(), s.range(mint..=maxt).map(|(t, v)| (*t, *v)).collect()));
    clipped.filter(|(_, s): &(_, BTreeMap<_, _>)| !s.is_empty()).collect()
}

fn block_names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("listed").map(|e| e.expect("entry").file_name());
    let mut names: Vec<_> = names.filter_map(|n| n.into_string().ok()).filter(|n| n.len() == 26).collect();
    names.sort();
    names
}

#[test]
fn a_second_process_and_a_bad_directory_get_clear_errors() {
    let dir = tempfile::tempdir().expect("tempdir");
    let _db = open_in(dir.path());
    let again = |c| Db::open(c, Arc::new(ManualClock::new(0)), &prometheus::Registry::new());
    let e = again(config(dir.path())).err().expect("locked");
    assert!(matches!(e, Error::Locked(_)));
    assert!(e.to_string().contains(&dir.path().display().to_string()), "{e}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let e = again(config(&file.join("sub"))).err().expect("not a directory");
    assert!(e.to_string().contains("not writable"), "{e}");
    let e = again(Config { out_of_order_window_ms: -1, ..config(dir.path()) }).err().expect("refused");
    assert!(e.to_string().contains("out_of_order_window_ms"), "{e}");
}

#[test]
fn samples_are_refused_as_prometheus_does() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    append(&db, &[(labels(1), START, 1.0)]);
    let mut a = db.appender().expect("open");
    let mut put = |t, v| a.append(SeriesRef::NONE, &labels(1), Sample::float(t, v));
    assert!(matches!(put(START, 2.0), Err(AppendError::DuplicateTimestamp)));
    assert!(put(START, 1.0).is_ok(), "the same sample again");
    assert!(matches!(put(START - 1, 1.0), Err(AppendError::OutOfOrder)));
    assert!(matches!(put(START - HOUR - 1, 1.0), Err(AppendError::OutOfBounds)));
    let r = put(START + 10, model::stale_nan()).expect("accepted");
    assert!(a.append_float(r, START + 20, 2.0).is_ok());
    assert!(matches!(a.append_float(SeriesRef(999), START, 1.0), Err(AppendError::UnknownRef)));
    let none = a.append(SeriesRef::NONE, &Labels::empty(), Sample::float(START, 1.0));
    assert!(matches!(none, Err(AppendError::InvalidLabels(_))));
    a.commit().expect("committed");
    let got = read_all(&db);
    let expect =
        [(START, 1.0_f64.to_bits()), (START + 10, model::STALE_NAN_BITS), (START + 20, 2.0_f64.to_bits())];
    assert_eq!(got[&labels(1)], BTreeMap::from(expect));
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    append(&db, &[(labels(1), START, 1.0)]);
    let before = db.querier(i64::MIN, i64::MAX).expect("open");
    let mut a = db.appender().expect("open");
    for i in 0..10 {
        a.append(SeriesRef::NONE, &labels(i), Sample::float(START + 5, 2.0)).expect("accepted");
    }
    assert_eq!(read_all(&db).len(), 1, "not committed");
    a.commit().expect("committed");
    let seen = read_with(&*before, &all(), i64::MIN, i64::MAX);
    assert_eq!(seen, Expected::from([(labels(1), BTreeMap::from([(START, 1.0_f64.to_bits())]))]));
    assert_eq!(read_all(&db).len(), 10);
    let mut a = db.appender().expect("open");
    a.append(SeriesRef::NONE, &labels(77), Sample::float(START + 5, 2.0)).expect("accepted");
    a.rollback();
    assert_eq!(read_all(&db).len(), 10);
}

/// Ten series every 15 s; returns what was appended.
fn fill(db: &Db, from: i64, to: i64, expected: &mut Expected) {
    let mut t = from;
    while t < to {
        let batch: Vec<_> =
            (0..10).map(|i| (labels(i), t, (t / 1000 * (i as i64 % 3)) as f64 + i as f64)).collect();
        for (l, t, v) in &batch {
            expected.entry(l.clone()).or_default().insert(*t, v.to_bits());
        }
        append(db, &batch);
        t += 15_000;
    }
}

#[test]
fn blocks_are_cut_and_everything_stays_readable() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    let mut tail = db.tail(None).expect("opened");
    for hour in 0..9 {
        fill(&db, START + hour * HOUR, START + (hour + 1) * HOUR, &mut expected);
        db.maintain().expect("maintained");
        assert_eq!(read_all(&db), expected, "after hour {hour}");
    }
    assert_eq!(block_names(dir.path()).len(), 3);
    assert!(db.stats(0).min_time.expect("samples") >= START + 6 * HOUR, "memory was given back");
    assert_eq!(db.min_time(), Some(START));
    assert!(std::fs::read_dir(dir.path().join("wal")).expect("listed").count() < 20, "the log was truncated");
    let (mint, maxt) = (START + HOUR + 7, START + 5 * HOUR + 100);
    let even =
        [Matcher::equal("parity", "even"), Matcher::new(MatchOp::NotRegexp, "i", "2|4").expect("valid")];
    assert_eq!(read(&db, &even, mint, maxt), clip(&expected, &even, mint, maxt));

    let q = db.querier(i64::MIN, i64::MAX).expect("open");
    assert_eq!(q.label_names(&[], 0).expect("read").values, ["__name__", "i", "parity"]);
    assert_eq!(q.label_names(&[], 2).expect("read").values.len(), 2);
    assert_eq!(q.label_values("parity", &[], 0).expect("read").values, ["even"]);
    assert_eq!(q.label_values("i", &even, 0).expect("read").values, ["0", "6", "8"]);
    assert_eq!(q.label_values("none", &even, 0).expect("read").values, [""; 0]);
    let two = q.label_values("i", &even, 2).expect("read");
    assert_eq!((two.values, two.warnings.len()), (vec!["0".to_owned(), "6".to_owned()], 1));
    assert_eq!(q.label_values("i", &even, 3).expect("read").warnings.len(), 0);
    let hints = SelectHints { labels_only: true, ..SelectHints::default() };
    let mut set = q.select(&even, &hints).expect("selected");
    let mut n = 0;
    while set.next().expect("read").is_some() {
        n += 1;
    }
    assert_eq!(n, 3);
    let first_two = SelectHints { limit: 2, ..SelectHints::default() };
    let mut limited = q.select(&even, &first_two).expect("selected");
    let names: Vec<_> = std::iter::from_fn(|| limited.next().expect("read")).map(|s| s.labels).collect();
    assert_eq!(names, [labels(0), labels(6)]);

    // The follower saw every sample of every series.
    let mut records = Vec::new();
    while {
        let before = records.len();
        tail.read(100, &mut records).expect("read");
        records.len() > before
    } {}
    if tail.gap().is_none() {
        let samples: usize =
            records.iter().map(|r| if let WalRecord::Samples(s) = r { s.len() } else { 0 }).sum();
        assert_eq!(samples, expected.values().map(BTreeMap::len).sum::<usize>());
    }

    drop(q);
    db.close().expect("closed");
    assert!(db.appender().is_err() && db.querier(0, 1).is_err());
    drop((db, set, tail));
    let db = open_in(dir.path());
    assert_eq!(read_all(&db), expected, "after a restart");
    promtool::check(&db, dir.path(), &expected);
}

#[test]
fn a_reader_keeps_its_samples_while_a_block_is_cut() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    fill(&db, START, START + 4 * HOUR, &mut expected);
    let q = db.querier(i64::MIN, i64::MAX).expect("open");
    db.maintain().expect("maintained");
    assert_eq!(block_names(dir.path()).len(), 1);
    assert_eq!(db.stats(0).min_time, Some(START), "the reader may still want them");
    assert_eq!(read_with(&*q, &all(), i64::MIN, i64::MAX), expected);
    assert_eq!(read_all(&db), expected);
    drop(q);
    db.maintain().expect("maintained");
    assert_eq!(db.stats(0).min_time, Some(START + 2 * HOUR));
    assert_eq!(read_all(&db), expected);
}

#[test]
fn series_without_samples_go_and_come_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    append(&db, &[(labels(100), START, 1.0)]);
    expected.entry(labels(100)).or_default().insert(START, 1.0_f64.to_bits());
    fill(&db, START, START + 4 * HOUR, &mut expected);
    assert_eq!(db.stats(10).series, 11);
    db.maintain().expect("maintained");
    let stats = db.stats(2);
    assert_eq!((stats.series, stats.label_pairs), (10, 12));
    assert_eq!(stats.series_by_metric_name, [("m".to_owned(), 10)]);
    assert_eq!(stats.values_by_label_name, [("i".to_owned(), 10), ("__name__".to_owned(), 1)]);
    assert_eq!(stats.series_by_label_pair[1], ("parity=even".to_owned(), 5));
    append(&db, &[(labels(100), START + 4 * HOUR, 2.0)]);
    expected.entry(labels(100)).or_default().insert(START + 4 * HOUR, 2.0_f64.to_bits());
    assert_eq!(read_all(&db), expected);
    drop(db);
    assert_eq!(read_all(&open_in(dir.path())), expected);
}

#[test]
fn series_are_counted_by_the_kind_of_their_newest_sample() {
    let dir = tempfile::tempdir().expect("tempdir");
    let count = |registry: &prometheus::Registry| {
        let families = registry.gather();
        ["stale_series", "native_histogram_series", "native_histogram_buckets"].map(|n| {
            let name = format!("prometheus_tsdb_head_{n}");
            let family = families.iter().find(|f| f.name() == name).expect("registered");
            family.get_metric()[0].get_gauge().get_value() as i64
        })
    };
    let start = || {
        let registry = prometheus::Registry::new();
        let db = Db::open(config(dir.path()), Arc::new(ManualClock::new(START)), &registry).expect("opens");
        (db, registry)
    };
    let (db, registry) = start();
    let histogram = |buckets: u32| model::Histogram {
        count: u64::from(buckets),
        positive_spans: vec![model::histogram::Span { offset: 0, length: buckets }],
        positive_buckets: (0..buckets).map(|i| i64::from(i == 0)).collect(),
        ..model::Histogram::default()
    };
    let put = |db: &Db, i: u64, sample: Sample| {
        let mut a = db.appender().expect("open");
        a.append(SeriesRef::NONE, &labels(i), sample).expect("accepted");
        a.commit().expect("committed");
    };
    put(&db, 1, Sample::float(START, 1.0));
    put(&db, 2, Sample::histogram(START, histogram(3)));
    put(&db, 3, Sample::histogram(START, histogram(2)));
    assert_eq!(count(&registry), [0, 2, 5]);
    put(&db, 1, Sample::float(START + 1, model::stale_nan()));
    put(&db, 2, Sample::float(START + 1, model::stale_nan()));
    put(&db, 3, Sample::histogram(START + 1, histogram(4)));
    assert_eq!(count(&registry), [2, 2, 4], "a stale marker is of the kind of its series");
    drop(db);
    let (db, registry) = start();
    assert_eq!(count(&registry), [2, 2, 4]);
    put(&db, 2, Sample::float(START + 2, 1.0));
    assert_eq!(count(&registry), [1, 1, 4]);
    put(&db, 9, Sample::float(START + 4 * HOUR, 1.0));
    db.maintain().expect("maintained");
    assert_eq!(count(&registry), [0, 0, 0], "with their series they go");
}

#[test]
fn retention_drops_whole_blocks() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open(Config { retention_ms: 4 * HOUR, ..config(dir.path()) });
    fill(&db, START, START + 12 * HOUR, &mut Expected::new());
    db.maintain().expect("maintained");
    let names = block_names(dir.path());
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(db.min_time(), Some(START + 6 * HOUR));
    db.close().expect("closed");
    drop(db);
    let db = open(Config { retention_bytes: 1, ..config(dir.path()) });
    db.maintain().expect("maintained");
    assert_eq!(block_names(dir.path()), [""; 0]);
}

#[test]
fn a_damaged_block_is_set_aside() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    fill(&db, START, START + 4 * HOUR, &mut expected);
    db.maintain().expect("maintained");
    drop(db);
    let name = block_names(dir.path()).pop().expect("a block");
    let index = dir.path().join(&name).join("index");
    let mut bytes = std::fs::read(&index).expect("read");
    bytes[12] ^= 1;
    std::fs::write(&index, bytes).expect("written");
    let db = open_in(dir.path());
    assert_eq!(block_names(dir.path()), [""; 0]);
    assert!(dir.path().join(format!("{name}.quarantined")).exists());
    // The log still has what the block has, as far as it was not truncated.
    assert!(read_all(&db).values().all(|s| *s.keys().next_back().expect("samples") >= START + 3 * HOUR));
}

#[test]
fn exemplars_and_metadata_survive_a_restart() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let e = Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), value: 1.0, timestamp_ms: None };
    let m = Metadata { metric_type: MetricType::Counter, unit: "s".into(), help: "h".into() };
    let mut a = db.appender().expect("open");
    let r = a.append(SeriesRef::NONE, &labels(1), Sample::float(START, 1.0)).expect("accepted");
    a.append_exemplar(r, &e).expect("accepted");
    a.append_metadata(r, &m).expect("accepted");
    a.commit().expect("committed");
    let expect = vec![(labels(1), vec![Exemplar { timestamp_ms: Some(START), ..e }])];
    assert_eq!(db.exemplars(&[all()], START, START), expect);
    drop(db);
    let db = open_in(dir.path());
    assert_eq!(db.exemplars(&[all()], START, START), expect);
    assert_eq!(db.exemplars(&[all()], START + 1, i64::MAX), []);
    assert_eq!(db.metadata(r).as_deref(), Some(&m));
}

#[test]
fn histograms_survive_blocks_and_restarts() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let histogram = |n: u64| model::Histogram {
        schema: 1,
        count: 3 * n,
        sum: n as f64 / 3.0,
        positive_spans: vec![model::histogram::Span { offset: 1, length: 2 }],
        positive_buckets: vec![n as i64, n as i64],
        ..Default::default()
    };
    let mut expect: Vec<(i64, model::HistogramValue)> = Vec::new();
    for n in 0..4 * 240 {
        let t = START + n * 15_000;
        // A reset, new buckets, floats and a stale marker on the way.
        let h = histogram(if n < 500 { n as u64 } else { n as u64 - 400 });
        let value: model::HistogramValue = match n {
            700 => model::Histogram { sum: model::stale_nan(), ..Default::default() }.into(),
            800.. => h.to_float().into(),
            _ => h.into(),
        };
        let mut a = db.appender().expect("open");
        a.append(SeriesRef::NONE, &labels(1), Sample::histogram(t, value.clone())).expect("accepted");
        let bad = model::Histogram { count: 1, ..histogram(5) };
        let refused = a.append(SeriesRef::NONE, &labels(1), Sample::histogram(t + 1, bad));
        assert!(matches!(refused, Err(AppendError::InvalidHistogram(_))));
        a.commit().expect("committed");
        expect.push((t, value));
    }
    let check = |db: &Db, from: i64| {
        let q = db.querier(from, i64::MAX).expect("open");
        let mut set = q.select(&all(), &SelectHints::default()).expect("selected");
        let series = set.next().expect("read").expect("one series");
        let mut samples = model::Samples::new();
        decode_chunks(&series.chunks, from, i64::MAX, &mut samples).expect("decodes");
        let expect: Vec<_> = expect.iter().filter(|(t, _)| *t >= from).collect();
        assert_eq!(samples.len(), expect.len());
        for (i, (t, h)) in expect.into_iter().enumerate() {
            let got = samples.histogram(i).expect("a histogram");
            assert_eq!((samples.timestamps_ms[i], got.sum().to_bits()), (*t, h.sum().to_bits()));
            assert_eq!(
                matches!(got, model::HistogramValue::Int(_)),
                matches!(h, model::HistogramValue::Int(_))
            );
            // Hints are given anew by the chunks.
            let plain = |h: &model::HistogramValue| {
                let mut h = h.to_float().as_ref().clone();
                h.counter_reset_hint = Default::default();
                h
            };
            assert_eq!(plain(got), plain(h));
        }
    };
    check(&db, START);
    db.maintain().expect("maintained");
    assert_eq!(block_names(dir.path()).len(), 1);
    check(&db, START);
    check(&db, START + HOUR + 7);
    drop(db);
    check(&open_in(dir.path()), START);
}

#[derive(Clone, Debug)]
enum Step {
    /// Series, seconds to go on, value.
    Batch(Vec<(u64, u16, u64)>),
    Maintain,
    Reopen {
        cleanly: bool,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        any::<u64>(),
        (0_u64..50).prop_map(|v| (v as f64).to_bits()),
        Just(model::STALE_NAN_BITS)
    ];
    let sample = (0_u64..12, prop_oneof![0_u16..60, Just(900_u16)], value);
    prop_oneof![
        20 => prop::collection::vec(sample, 1..30).prop_map(Step::Batch),
        3 => Just(Step::Maintain),
        1 => any::<bool>().prop_map(|cleanly| Step::Reopen { cleanly }),
    ]
}

/// `PROPTEST_CASES`, for a long run, or so many.
fn cases(few: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(few)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(24)))]

    #[test]
    fn equals_a_map_over_batches_blocks_and_restarts(steps in prop::collection::vec(any_step(), 1..60)) {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut db = open_in(dir.path());
        let mut expected = Expected::new();
        let mut now = START;
        let mut seen: BTreeSet<i64> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Batch(samples) => {
                    let mut a = db.appender().expect("open");
                    let mut accepted = Vec::new();
                    for (i, seconds, bits) in samples {
                        now += i64::from(seconds) * 1000;
                        let v = f64::from_bits(bits);
                        if a.append(SeriesRef::NONE, &labels(i), Sample::float(now, v)).is_ok() {
                            accepted.push((labels(i), now, bits));
                        }
                    }
                    a.commit().expect("committed");
                    for (l, t, bits) in accepted {
                        let series = expected.entry(l).or_default();
                        // Within a batch, the second sample of a series at one time is left out.
                        if series.last_key_value().is_none_or(|(last, _)| *last < t) {
                            series.insert(t, bits);
                            seen.insert(t);
                        }
                    }
                }
                Step::Maintain => db.maintain().expect("maintained"),
                Step::Reopen { cleanly } => {
                    if cleanly {
                        db.close().expect("closed");
                    }
                    drop(db);
                    db = open_in(dir.path());
                }
            }
        }
        prop_assert_eq!(&read_all(&db), &expected);
        let middle = seen.iter().nth(seen.len() / 2).copied().unwrap_or(START);
        prop_assert_eq!(read(&db, &all(), middle, i64::MAX), clip(&expected, &all(), middle, i64::MAX));
    }
}
