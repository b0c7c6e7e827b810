//! Columns of timestamps that series of one target share.

use super::*;
use crate::store::families::{RAW, TS};

const SERIES: usize = 12;
const START: i64 = T0 - 3 * DAY_MS;

/// Scrapes of one target, some of them late by milliseconds, of which each has its own value in each series.
fn scrapes(f: &Fixture, count: i64) -> Expected {
    let mut expect = Expected::new();
    for k in 0..count {
        let t = START + k * 15_000 + k * k % 7;
        let batch: Vec<_> =
            (0..SERIES).map(|i| (labels("m", i), Sample::float(t, (k * 3 + i as i64) as f64))).collect();
        f.commit(&batch);
        for (l, s) in batch {
            expect.entry(l).or_default().insert(t, s.value);
        }
    }
    expect
}

fn seal(f: &Fixture) {
    f.advance(2 * DAY_MS);
    f.store().maintain().unwrap();
    assert_eq!(f.store().stats().open_samples, 0);
}

/// Rows of a family.
fn rows(f: &Fixture, family: &str) -> usize {
    let inner = &f.store().inner;
    let mut rows = inner.db.raw_iterator_cf(&inner.cf(family));
    rows.seek_to_first();
    let mut n = 0;
    while rows.valid() {
        n += 1;
        rows.next();
    }
    n
}

fn verified(f: &Fixture) {
    let name = f.store().snapshot().unwrap();
    let dir = f.config.dir.join(crate::store::SNAPSHOTS_DIR).join(name);
    let report = crate::store::verify(dir, |_, _| true).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn timestamps_of_a_target_are_kept_once() {
    let mut f = Fixture::new();
    let mut expect = scrapes(&f, 2000);
    seal(&f);
    // Two chunks of each series.
    assert_eq!((rows(&f, RAW), rows(&f, TS)), (2 * SERIES, 2));
    assert_eq!(f.all(), expect);
    f.kill();
    assert_eq!(f.all(), expect);
    verified(&f);

    // A late sample gives one series timestamps of its own in one chunk.
    let late = (START + 100 * 15_000 - 1000, 0.5);
    f.commit_floats(&labels("m", 3), [late]);
    expect.get_mut(&labels("m", 3)).unwrap().insert(late.0, SampleValue::Float(late.1));
    seal(&f);
    assert_eq!(f.all(), expect);
    // So does a delete; the others keep theirs.
    let (from, to) = (START + 1500 * 15_000, START + 1600 * 15_000);
    f.store().delete(&[Matcher::equal("instance", "host-5:9100")], from, to).unwrap();
    expect.get_mut(&labels("m", 5)).unwrap().retain(|t, _| *t < from || *t > to);
    assert_eq!(f.all(), expect);
    verified(&f);

    // The month goes, and what was shared with it.
    f.advance(f.config.retention_ms + 32 * DAY_MS);
    let now = model::Clock::now_ms(f.clock.as_ref());
    f.commit_floats(&labels("later", 0), [(now, 1.0)]);
    f.store().maintain().unwrap();
    assert_eq!((rows(&f, RAW), rows(&f, TS)), (0, 0));
    assert_eq!(f.all().into_keys().collect::<Vec<_>>(), [labels("later", 0)]);
}

#[test]
fn steady_timestamps_and_those_of_one_series_stay_in_their_chunks() {
    let f = Fixture::new();
    let steady = (0..500).map(|k| (START + k * 15_000, k as f64));
    (0..3).for_each(|i| f.commit_floats(&labels("steady", i), steady.clone()));
    f.commit_floats(&labels("alone", 0), (0..500).map(|k| (START + k * 15_000 + k * k % 11, k as f64)));
    let expect = f.all();
    seal(&f);
    assert_eq!((rows(&f, RAW), rows(&f, TS)), (4, 0));
    assert_eq!(f.all(), expect);
}

#[test]
fn a_column_that_is_lost_is_told_of_with_the_chunk() {
    let f = Fixture::new();
    scrapes(&f, 600);
    seal(&f);
    let inner = &f.store().inner;
    let ts = inner.cf(TS);
    let mut columns = inner.db.raw_iterator_cf(&ts);
    columns.seek_to_first();
    inner.db.delete_cf(&ts, columns.key().expect("a column")).unwrap();
    let error = read(f.store(), &[], 0, i64::MAX).unwrap_err().to_string();
    assert!(error.contains("are missing") && error.contains("m{"), "{error}");
}
