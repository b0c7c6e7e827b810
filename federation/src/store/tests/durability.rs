//! Locks, versions, damage, and commits side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Appendable, Queryable, Sample, SampleValue, SeriesRef, StorageError};
use rocksdb::{ColumnFamilyDescriptor, DB, Options};

use super::super::StoreError;
use super::super::families::{FAMILIES, FORMAT_VERSION, META, RAW, format_record};
use super::super::postings;
use super::*;

/// Changes the files of a store that is not open, as another program would.
fn with_db(f: &Fixture, change: impl FnOnce(&DB)) {
    let names = std::iter::once("default").chain(FAMILIES).map(|name| {
        let mut o = Options::default();
        o.set_merge_operator_associative(postings::MERGE_OPERATOR, postings::merge);
        if name == "ids" {
            o.set_prefix_extractor(rocksdb::SliceTransform::create_fixed_prefix(8));
        }
        ColumnFamilyDescriptor::new(name, o)
    });
    let db = DB::open_cf_descriptors(&Options::default(), &f.config.dir, names).unwrap();
    change(&db);
    db.flush_wal(true).unwrap();
}

#[test]
fn a_second_opening_is_refused() {
    let mut f = Fixture::new();
    let e = f.try_open().err().expect("the first store has the lock");
    assert!(matches!(e, StoreError::Locked { .. }), "{e}");
    assert!(e.to_string().contains("already open") && !e.to_string().contains('\n'));
    f.restart();
}

#[test]
fn newer_formats_and_foreign_directories_are_refused() {
    let mut f = Fixture::new();
    f.store = None;
    with_db(&f, |db| {
        db.put_cf(&db.cf_handle(META).unwrap(), "format", format_record(FORMAT_VERSION + 1)).unwrap()
    });
    let e = f.try_open().err().expect("too new");
    assert!(matches!(e, StoreError::NewerFormat { .. }) && e.to_string().contains("format 3"), "{e}");
    with_db(&f, |db| {
        db.put_cf(&db.cf_handle(META).unwrap(), "format", format_record(FORMAT_VERSION)).unwrap();
        db.create_cf("agg10s", &Options::default()).unwrap();
    });
    let e = f.try_open().err().expect("too new");
    assert!(matches!(e, StoreError::NewerFormat { .. }) && e.to_string().contains("agg10s"), "{e}");

    // An older one is taken over, and older programs stay away from then on.
    let mut old = Fixture::new();
    old.store = None;
    with_db(&old, |db| {
        db.put_cf(&db.cf_handle(META).unwrap(), "format", format_record(1)).unwrap();
        db.drop_cf("agg5m").unwrap();
        db.drop_cf("agg1h").unwrap();
    });
    old.open();
    old.restart();
    old.store = None;
    with_db(&old, |db| {
        let record = db.get_cf(&db.cf_handle(META).unwrap(), "format").unwrap();
        assert_eq!(record, Some(format_record(FORMAT_VERSION)));
    });

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
    f.config.dir = dir.path().to_path_buf();
    let e = f.try_open().err().expect("not ours");
    assert!(matches!(e, StoreError::Foreign { .. }), "{e}");
    f.config.dir = dir.path().join("holiday.jpg");
    let e = f.try_open().err().expect("a file");
    assert!(matches!(e, StoreError::Unwritable { .. }), "{e}");
}

#[test]
fn a_damaged_chunk_is_reported_and_not_served() {
    let mut f = Fixture::new();
    let (a, b) = (labels("a", 1), labels("b", 2));
    f.commit_floats(&a, (0..100).map(|i| (T0 - 100_000 + i * 1000, i as f64)));
    f.commit_floats(&b, [(T0, 1.0)]);
    f.advance(DAY_MS);
    f.store().maintain().unwrap();
    f.store.take().unwrap().close().unwrap();
    with_db(&f, |db| {
        let raw = db.cf_handle(RAW).unwrap();
        let (key, mut value) = db.iterator_cf(&raw, rocksdb::IteratorMode::Start).next().unwrap().unwrap();
        value[20] ^= 4;
        db.put_cf(&raw, key, value).unwrap();
    });
    f.open();
    let e = read(f.store(), &[], i64::MIN, i64::MAX).expect_err("damaged");
    let text = e.to_string();
    assert!(matches!(e, StorageError::Corruption { .. }), "{text}");
    for part in ["host-1:9100", "month 2026-09", "checksum"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let only_b = read(f.store(), &[Matcher::equal("__name__", "b")], i64::MIN, i64::MAX).unwrap();
    assert_eq!(only_b[&b], floats(&[(T0, 1.0)]));
    // New samples for it are not lost, and the damaged bytes are kept aside.
    f.commit_floats(&a, [(T0 - 50_500, 0.5)]);
    f.advance(DAY_MS);
    f.store().maintain().unwrap();
    assert_eq!(f.all()[&a], floats(&[(T0 - 50_500, 0.5)]));
    f.restart();
    assert_eq!(f.all()[&a], floats(&[(T0 - 50_500, 0.5)]));
}

#[test]
fn closed_stores_say_so() {
    let f = Fixture::new();
    let mut pending = f.store().appender().unwrap();
    pending.append(SeriesRef::NONE, &labels("a", 1), Sample::float(T0, 1.0)).unwrap();
    f.store().close().unwrap();
    f.store().close().unwrap();
    assert!(matches!(pending.commit(), Err(StorageError::Closed)));
    assert!(matches!(f.store().appender(), Err(StorageError::Closed)));
    assert!(matches!(f.store().querier(0, 1), Err(StorageError::Closed)));
    assert!(matches!(f.store().maintain(), Err(StorageError::Closed)));
}

#[test]
fn commits_side_by_side_with_sealing_and_reading_lose_nothing() {
    let mut f = Fixture::with(|c| (c.open_max_bytes, c.sync) = (32 << 10, true));
    let store = f.store.as_ref().unwrap();
    const THREADS: i64 = 4;
    const BATCHES: i64 = 60;
    std::thread::scope(|scope| {
        for k in 0..THREADS {
            let store = Arc::clone(store);
            scope.spawn(move || {
                for b in 0..BATCHES {
                    let mut a = store.appender().unwrap();
                    for i in 0..20 {
                        // All threads share the series, so that new ones are made at the same time.
                        let t = T0 + (b * THREADS + k) * 10;
                        a.append(SeriesRef::NONE, &labels("m", i), Sample::float(t, t as f64)).unwrap();
                    }
                    a.commit().unwrap();
                }
            });
        }
        let store = Arc::clone(store);
        scope.spawn(move || {
            for _ in 0..30 {
                let seen = read(&store, &[], i64::MIN, i64::MAX).unwrap();
                let sizes: Vec<usize> = seen.values().map(BTreeMap::len).collect();
                assert!(sizes.windows(2).all(|w| w[0] == w[1]), "batches are seen whole: {sizes:?}");
            }
        });
    });
    let expect: BTreeMap<i64, SampleValue> =
        (0..THREADS * BATCHES).map(|i| (T0 + i * 10, SampleValue::Float((T0 + i * 10) as f64))).collect();
    let check = |f: &Fixture| {
        let all = f.all();
        assert_eq!(all.len(), 20);
        assert!(all.values().all(|s| *s == expect));
    };
    check(&f);
    f.kill();
    check(&f);
}

#[test]
fn the_journal_is_cut_and_sequences_go_on() {
    let mut f = Fixture::new();
    let a = labels("a", 1);
    let mut expect = BTreeMap::new();
    for day in 0..5 {
        let t = T0 + day * DAY_MS;
        f.commit_floats(&a, [(t, day as f64)]);
        expect.insert(t, SampleValue::Float(day as f64));
        f.advance(DAY_MS);
        f.store().maintain().unwrap();
        let inner = &f.store().inner;
        let mut rows = inner.db.raw_iterator_cf(&inner.cf("journal"));
        rows.seek_to_first();
        assert!(!rows.valid(), "everything is sealed, so the journal is empty");
        drop(rows);
        if day % 2 == 0 {
            f.kill()
        } else {
            f.restart()
        }
        assert_eq!(f.all()[&a], expect, "day {day}");
    }
}
