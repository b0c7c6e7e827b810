//! Two years in seconds: sealing, expiry, series that come and go.

use super::*;

const EVERY_MS: i64 = 2 * HOUR_MS;
const SERIES: usize = 8;

/// Series of a month: half are always there, half live for one month.
fn series(i: usize, t: i64) -> Labels {
    if i.is_multiple_of(2) { labels("steady", i) } else { labels(&format!("churn_{}", t / (30 * DAY_MS)), i) }
}

fn value_at(i: usize, t: i64) -> f64 {
    ((t / EVERY_MS) % 977) as f64 * 0.25 + i as f64
}

#[test]
fn two_years_pass() {
    let mut f = Fixture::new();
    let begin = T0;
    let days = 760;
    let mut removed = 0;
    for day in 0..days {
        let mut batch = Vec::new();
        for k in 0..DAY_MS / EVERY_MS {
            let t = begin + day * DAY_MS + k * EVERY_MS;
            batch.extend((0..SERIES).map(|i| (series(i, t), Sample::float(t, value_at(i, t)))));
        }
        f.advance(DAY_MS);
        f.commit(&batch);
        let report = f.store().maintain().unwrap();
        removed += report.removed_series;
        if day % 190 == 100 {
            f.kill();
        } else if day % 190 == 0 {
            f.restart();
        }
    }
    let now = begin + days * DAY_MS;
    let oldest = now - f.config.retention_ms;
    let mut expect = Expected::new();
    let mut t = begin;
    while t < now {
        if t >= oldest {
            for i in 0..SERIES {
                let v = SampleValue::Float(value_at(i, t));
                expect.entry(series(i, t)).or_default().insert(t, v);
            }
        }
        t += EVERY_MS;
    }
    // Compared in parts, so that a failure can be read.
    let all = f.all();
    for (l, want) in &expect {
        let got = all.get(l).unwrap_or_else(|| panic!("{l} is gone"));
        let odd = want.iter().find(|(t, v)| got.get(t) != Some(v));
        assert_eq!(
            (got.len(), odd),
            (want.len(), None),
            "{l}, oldest {oldest}, first {:?}",
            got.first_key_value()
        );
    }
    assert_eq!(all.len(), expect.len());
    let stats = f.store().stats();
    assert!((13..=15).contains(&stats.months), "{stats:?}");
    assert!(stats.oldest_ms.unwrap() > oldest - 31 * DAY_MS);
    assert!(removed >= 10 * SERIES as u64 / 2, "series of dropped months are removed: {removed}");
    let inner = &f.store().inner;
    let rows = |family: &str| inner.db.iterator_cf(&inner.cf(family), rocksdb::IteratorMode::Start).count();
    assert_eq!(rows("series"), rows("ids"));
    assert!(rows("series") <= 4 + 4 * 16, "{} series rows", rows("series"));
    assert!(rows("raw") < 15 * 8 * 4, "{} chunks", rows("raw"));

    // The clock jumps far ahead, and what was scraped before goes on coming: all of it stays.
    f.advance(800 * DAY_MS);
    for _ in 0..4 {
        f.advance(DAY_MS);
        f.store().maintain().unwrap();
    }
    let mut found: usize = f.all().values().map(BTreeMap::len).sum();
    let wanted: usize = expect.values().map(BTreeMap::len).sum();
    assert!(found >= wanted, "{found} of {wanted}");
    f.restart();
    f.commit_floats(&labels("steady", 0), [(now, 1.0)]);
    found += 1;
    assert_eq!(f.all().values().map(BTreeMap::len).sum::<usize>(), found);

    // With samples of that time everything older expires, and what was known is forgotten.
    let now = model::Clock::now_ms(f.clock.as_ref());
    f.commit_floats(&labels("late", 0), [(now, 1.0)]);
    f.store().maintain().unwrap();
    assert_eq!(f.all().len(), 1);
    for _ in 0..4 {
        f.advance(DAY_MS);
        f.store().maintain().unwrap();
    }
    let inner = &f.store().inner;
    for (family, left) in [("series", 1), ("ids", 1), ("raw", 1), ("journal", 0)] {
        let rows = inner.db.iterator_cf(&inner.cf(family), rocksdb::IteratorMode::Start).count();
        assert_eq!(rows, left, "{family}");
    }
    f.restart();
    assert_eq!(f.all().into_keys().collect::<Vec<_>>(), [labels("late", 0)]);
}
