//! What operators do: delete, take snapshots, verify.

use std::collections::BTreeMap;

use model::{Matcher, Queryable, Sample, SampleValue};

use super::{DAY_MS, Expected, Fixture, HOUR_MS, T0, floats, labels, read};
use crate::store::families::{AGG1H, AGG5M, INDEX, RAW, SERIES};
use crate::store::{LongtermStore, SNAPSHOTS_DIR, StoreConfig, StoreError, verify};

/// 300 samples a minute apart for each of ten series, half of them sealed.
fn filled() -> (Fixture, Expected) {
    let f = Fixture::new();
    for from in [0, 150] {
        for i in 0..10 {
            f.commit_floats(
                &labels("m", i),
                (from..from + 150).map(|k| (T0 - HOUR_MS * 5 + k * 60_000, k as f64)),
            );
        }
        if from == 0 {
            f.store().inner.seal(&(0..10).collect::<Vec<_>>()).unwrap();
        }
    }
    let all = f.all();
    assert_eq!(all.values().map(BTreeMap::len).sum::<usize>(), 3000);
    (f, all)
}

#[test]
fn deleting_takes_samples_out_of_chunks_and_journal_for_good() {
    let (mut f, mut expect) = filled();
    let (mint, maxt) = (T0 - 4 * HOUR_MS, T0 - 2 * HOUR_MS);
    let matchers = [Matcher::new(model::MatchOp::Regexp, "instance", "host-[3-5]:9100").unwrap()];
    // Somebody who reads meanwhile does not hold it up.
    let reader = f.store().querier(i64::MIN, i64::MAX).unwrap();
    let deleted = f.store().delete(&matchers, mint, maxt).unwrap();
    assert_eq!((deleted.series, deleted.samples), (3, 3 * 121));
    drop(reader);
    for i in 3..=5 {
        expect.get_mut(&labels("m", i)).unwrap().retain(|t, _| *t < mint || *t > maxt);
    }
    assert_eq!(f.all(), expect);
    assert_eq!(f.store().delete(&matchers, mint, maxt).unwrap().samples, 0, "nothing is left to delete");
    f.kill();
    assert_eq!(f.all(), expect, "the journal does not bring it back");
    f.restart();
    assert_eq!(f.all(), expect);
    // What is sent again is taken again.
    f.commit_floats(&labels("m", 4), [(mint, 9.0)]);
    expect.get_mut(&labels("m", 4)).unwrap().insert(mint, SampleValue::Float(9.0));
    assert_eq!(f.all(), expect);
    assert!(verify_copy(&f).is_good());
}

#[test]
fn a_series_without_samples_leaves_the_index_and_may_come_back() {
    let (mut f, mut expect) = filled();
    let gone = labels("m", 7);
    let deleted = f.store().delete(&[Matcher::equal("instance", "host-7:9100")], i64::MIN, i64::MAX).unwrap();
    assert_eq!((deleted.series, deleted.samples), (1, 300));
    expect.remove(&gone);
    let values = |f: &Fixture| {
        f.store().querier(0, i64::MAX).unwrap().label_values("instance", &[], 0).unwrap().values
    };
    for _ in 0..2 {
        assert_eq!(f.all(), expect);
        assert_eq!(values(&f).len(), 9, "{:?}", values(&f));
        f.kill();
    }
    f.commit_floats(&gone, [(T0, 1.0)]);
    expect.insert(gone, floats(&[(T0, 1.0)]));
    assert_eq!((f.all(), values(&f).len()), (expect, 10));
    assert!(verify_copy(&f).is_good());
}

#[test]
fn a_snapshot_is_a_store_and_the_next_one_gets_another_name() {
    let (f, expect) = filled();
    let names = [f.store().snapshot().unwrap(), f.store().snapshot().unwrap()];
    assert_eq!(names, ["20260921T141320Z-0000000000000000", "20260921T141320Z-0000000000000001"]);
    f.store().delete(&[Matcher::equal("job", "node")], i64::MIN, i64::MAX).unwrap();
    assert!(f.all().is_empty());
    for name in names {
        let dir = f.config.dir.join(SNAPSHOTS_DIR).join(name);
        let report = verify(&dir, |_, _| true).unwrap();
        assert!(report.is_good(), "{:?}", report.problems);
        assert_eq!((report.series, report.sealed_samples, report.journal_samples), (10, 1500, 3000));
        let config = StoreConfig { dir, ..f.config.clone() };
        let copy = LongtermStore::open(config, f.clock.clone(), &prometheus::Registry::new()).unwrap();
        assert_eq!(read(&copy, &[], i64::MIN, i64::MAX).unwrap(), expect);
    }
}

fn verify_copy(f: &Fixture) -> crate::store::VerifyReport {
    let name = f.store().snapshot().unwrap();
    verify(f.config.dir.join(SNAPSHOTS_DIR).join(name), |_, _| true).unwrap()
}

#[test]
fn verifying_finds_each_kind_of_damage_and_names_the_place() {
    let (f, _) = filled();
    f.store().inner.seal(&(0..10).collect::<Vec<_>>()).unwrap();
    assert!(verify_copy(&f).is_good());
    let inner = &f.store().inner;
    let first = |family: &str| {
        let mut rows = inner.db.raw_iterator_cf(&inner.cf(family));
        rows.seek_to_first();
        let (key, value) = rows.item().unwrap();
        (key.to_vec(), value.to_vec())
    };
    for (family, change, place, reason) in [
        (RAW, None, "raw: month 2026-09, series 1,", "checksum"),
        (AGG1H, None, "agg1h: month 2026-09, series 1,", "checksum"),
        (AGG5M, None, "agg5m: month 2026-09, series 1,", "checksum"),
        (SERIES, None, "series: 1: ", "checksum"),
        (INDEX, Some(vec![0, 1, 99]), "index: ", "there is no series 99"),
    ] {
        let (key, value) = first(family);
        let mut bad = value.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        inner.db.put_cf(&inner.cf(family), &key, change.unwrap_or(bad)).unwrap();
        let report = verify_copy(&f);
        assert!(
            report.problems.iter().any(|p| p.starts_with(place) && p.contains(reason)),
            "{family}: {:?}",
            report.problems
        );
        inner.db.put_cf(&inner.cf(family), &key, value).unwrap();
    }
    let (key, value) = first(RAW);
    let mut elsewhere = key.clone();
    elsewhere[17] ^= 1;
    inner.db.put_cf(&inner.cf(RAW), &elsewhere, value).unwrap();
    let report = verify_copy(&f);
    assert!(report.problems.iter().any(|p| p.contains("where its key puts them")), "{:?}", report.problems);
    // The rollups of its part are not those of the samples either.
    let of = |family: &str| report.problems.iter().filter(|p| p.starts_with(family)).count();
    assert_eq!(["raw", "agg5m", "agg1h"].map(of), [1, 1, 1], "{:?}", report.problems);
    assert_eq!(report.problem_count, 3, "{:?}", report.problems);
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(verify(empty.path(), |_, _| true), Err(StoreError::Config(_))));
    let sample = Sample::float(T0, 1.0);
    f.commit(&[(labels("still", 1), sample)]);
}

#[test]
fn what_came_while_the_clock_was_ahead_is_sealed_in_time() {
    let f = Fixture::new();
    f.commit_floats(&labels("before", 0), [(T0, 1.0)]);
    f.clock.set_ms(T0 + 900 * DAY_MS);
    f.commit_floats(&labels("meanwhile", 0), [(T0 + 1, 2.0)]);
    f.clock.set_ms(T0);
    f.advance(DAY_MS);
    f.store().maintain().unwrap();
    assert_eq!(f.store().stats().open_samples, 0);
    assert_eq!(f.all().values().map(BTreeMap::len).sum::<usize>(), 2);
}
