//! Samples out of order, deletes in the head, start timestamps: through commits, queries, restarts, and as Prometheus sees them.

use model::histogram::Span;
use model::{Histogram, SampleValue};
use proptest::prelude::*;

use super::*;

fn with_window(dir: &Path) -> Config {
    Config { out_of_order_window_ms: HOUR, ..config(dir) }
}

fn count(registry: &prometheus::Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("{name}"));
    family.get_metric().iter().map(|m| m.get_counter().get_value()).sum()
}

#[test]
fn late_samples_within_the_window_are_taken() {
    let dir = tempfile::tempdir().expect("tempdir");
    let registry = prometheus::Registry::new();
    let clock = Arc::new(ManualClock::new(START));
    let db = Db::open(with_window(dir.path()), clock, &registry).expect("opens");
    append(&db, &[(labels(1), START + 3 * HOUR, 1.0), (labels(2), START + 3 * HOUR, 1.0)]);
    let mut a = db.appender().expect("open");
    let mut put = |i, t, v| a.append(SeriesRef::NONE, &labels(i), Sample::float(t, v));
    assert!(put(1, START + 2 * HOUR, 5.0).is_ok(), "the end of the window belongs to it");
    assert!(put(1, START + 2 * HOUR + 7, 6.0).is_ok());
    assert!(put(3, START + 2 * HOUR + 1, 7.0).is_ok(), "a new series may begin late");
    assert!(matches!(put(1, START + 2 * HOUR - 1, 5.0), Err(AppendError::TooOld)));
    assert!(matches!(put(4, START + 2 * HOUR - 1, 5.0), Err(AppendError::TooOld)));
    assert!(matches!(put(2, START + 3 * HOUR, 2.0), Err(AppendError::DuplicateTimestamp)));
    a.commit().expect("committed");
    append(&db, &[(labels(1), START + 2 * HOUR + 7, 66.0)]);
    let expected = Expected::from([
        (
            labels(1),
            BTreeMap::from([
                (START + 2 * HOUR, 5_f64.to_bits()),
                (START + 2 * HOUR + 7, 6_f64.to_bits()),
                (START + 3 * HOUR, 1_f64.to_bits()),
            ]),
        ),
        (labels(2), BTreeMap::from([(START + 3 * HOUR, 1_f64.to_bits())])),
        (labels(3), BTreeMap::from([(START + 2 * HOUR + 1, 7_f64.to_bits())])),
    ]);
    assert_eq!(read_all(&db), expected, "the first of two late samples of one time counts");
    assert_eq!(db.min_time(), Some(START + 2 * HOUR));
    let c = |name: &str| count(&registry, name);
    assert_eq!(c("prometheus_tsdb_head_out_of_order_samples_appended_total"), 2.0);
    assert_eq!(c("prometheus_tsdb_too_old_samples_total"), 2.0);
    assert_eq!(c("prometheus_tsdb_out_of_order_samples_total"), 0.0);
    assert_eq!(db.stats(0).series, 3, "no series is made for a sample that is refused");
    drop(db);
    // The window may be closed later; what was taken stays.
    let db = open_in(dir.path());
    assert_eq!(read_all(&db), expected, "after a restart");
    assert!(
        db.appender()
            .expect("open")
            .append(SeriesRef::NONE, &labels(1), Sample::float(START + 2 * HOUR, 9.0))
            .is_err()
    );
    db.set_out_of_order_window(2 * HOUR);
    append(&db, &[(labels(2), START + HOUR, 9.0)]);
    let mut expected = expected;
    expected.entry(labels(2)).or_default().insert(START + HOUR, 9_f64.to_bits());
    assert_eq!(read_all(&db), expected);
    promtool::check(&db, dir.path(), &expected);
}

#[test]
fn histograms_and_start_timestamps_may_come_late() {
    let dir = tempfile::tempdir().expect("tempdir");
    let config = || Config {
        float_encoding: crate::FloatEncoding::Xor2,
        histogram_start_encoding: true,
        store_start_timestamps: true,
        ..with_window(dir.path())
    };
    let db = open(config());
    let h = |n: u64| {
        SampleValue::Histogram(
            Histogram {
                count: n,
                positive_spans: vec![Span { offset: 0, length: 1 }],
                positive_buckets: vec![n as i64],
                ..Histogram::default()
            }
            .into(),
        )
    };
    let mut expected = BTreeMap::new();
    for i in 0..200_i64 {
        // Two forward, one back.
        let t = START + HOUR + (i + if i % 3 == 2 { -30 } else { 0 }) * 10_000 + i % 3;
        let value = if i / 50 % 2 == 0 { SampleValue::Float(i as f64) } else { h(i as u64) };
        let sample = Sample { timestamp_ms: t, start_timestamp_ms: START + i / 20, value };
        let mut a = db.appender().expect("open");
        a.append(SeriesRef::NONE, &labels(1), sample.clone()).expect("accepted");
        a.commit().expect("committed");
        expected.insert(t, sample);
    }
    let check = |db: &Db| {
        let q = db.querier(i64::MIN, i64::MAX).expect("open");
        let series = q.select(&all(), &SelectHints::default()).expect("selected").next().expect("read");
        let mut samples = model::Samples::new();
        decode_chunks(&series.expect("one").chunks, i64::MIN, i64::MAX, &mut samples).expect("decodes");
        assert_eq!(samples.len(), expected.len());
        for (got, (t, want)) in samples.iter().zip(&expected) {
            assert_eq!((got.timestamp_ms, got.start_timestamp_ms), (*t, want.start_timestamp_ms));
            let sums = |v: &SampleValue| match v {
                SampleValue::Float(v) => v.to_bits(),
                SampleValue::Histogram(h) => h.to_float().count.to_bits() + 1,
            };
            assert_eq!(sums(&got.value), sums(&want.value));
        }
    };
    check(&db);
    drop(db);
    check(&open(config()));
}

#[test]
fn late_samples_can_be_deleted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open(with_window(dir.path()));
    let mut expected = Expected::new();
    fill(&db, START, START + 2 * HOUR, &mut expected);
    append(&db, &[(labels(4), START + HOUR + 5, 77.0)]);
    let even = [Matcher::equal("parity", "even")];
    db.delete(&even, START + HOUR, START + HOUR + 600_000).expect("deleted");
    for (l, samples) in &mut expected {
        if Matcher::all_match(&even, l) {
            samples.retain(|t, _| !(START + HOUR..=START + HOUR + 600_000).contains(t));
        }
    }
    assert_eq!(read_all(&db), expected);
    fill(&db, START + 2 * HOUR, START + 4 * HOUR, &mut expected);
    append(&db, &[(labels(4), START + 3 * HOUR + 5, 78.0)]);
    expected.entry(labels(4)).or_default().insert(START + 3 * HOUR + 5, 78_f64.to_bits());
    drop(db);
    let db = open(with_window(dir.path()));
    assert_eq!(read_all(&db), expected, "after a restart");
    db.maintain().expect("maintained");
    assert_eq!(read_all(&db), expected, "in blocks");
    assert_eq!(block_names(dir.path()).len(), 2, "one of them has the late sample");
    let q = db.querier(i64::MIN, i64::MAX).expect("open");
    append(&db, &[(labels(4), START + 3 * HOUR + 6, 79.0)]);
    drop(q);
    expected.entry(labels(4)).or_default().insert(START + 3 * HOUR + 6, 79_f64.to_bits());
    fill(&db, START + 4 * HOUR, START + 6 * HOUR, &mut expected);
    db.maintain().expect("maintained");
    assert_eq!(read_all(&db), expected, "cut twice");
    drop(db);
    assert_eq!(read_all(&open(with_window(dir.path()))), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(16)))]

    #[test]
    fn equals_a_map_with_late_samples(
        steps in prop::collection::vec(
            (prop::collection::vec((0_u64..4, 0_i64..120, 0_i64..4000, 0_u64..9), 1..40), 0_u32..12),
            1..25,
        ),
    ) {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut db = open(with_window(dir.path()));
        let mut expected = Expected::new();
        let mut now = START + 6 * HOUR;
        for (batch, then) in steps {
            for (i, forward, back, v) in batch {
                now += forward * 1000;
                let t = if back < 2000 { now } else { now - back * 1000 };
                let mut a = db.appender().expect("open");
                let taken = a.append(SeriesRef::NONE, &labels(i), Sample::float(t, v as f64)).is_ok();
                a.commit().expect("committed");
                let series = expected.entry(labels(i)).or_default();
                if taken {
                    // Of two samples of one time, which one is read is not told.
                    let bits = series.get(&t).copied().unwrap_or((v as f64).to_bits());
                    series.insert(t, bits);
                }
            }
            match then {
                0 => db.maintain().expect("maintained"),
                1 => {
                    drop(db);
                    db = open(with_window(dir.path()));
                }
                _ => {}
            }
            expected.retain(|_, s| !s.is_empty());
        }
        let times = |e: &Expected| e.iter().map(|(l, s)| (l.clone(), s.keys().copied().collect())).collect::<BTreeMap<_, Vec<i64>>>();
        prop_assert_eq!(times(&read_all(&db)), times(&expected));
    }
}
