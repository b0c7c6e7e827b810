//! Retention by selector and by size.

use super::super::retention::RetentionRule;
use super::*;

const STEP_MS: i64 = 6 * HOUR_MS;

fn rule(name: &str, days: i64) -> RetentionRule {
    RetentionRule { matchers: vec![Matcher::equal("__name__", name)], retention_ms: days * DAY_MS }
}

/// A sample of each series every six hours of so many days; the clock goes with them.
fn pass_days(f: &mut Fixture, from_day: i64, days: i64, names: &[&str]) {
    for day in from_day..from_day + days {
        let times = (0..DAY_MS / STEP_MS).map(|k| T0 + day * DAY_MS + k * STEP_MS);
        let batch: Vec<_> = times
            .flat_map(|t| names.iter().map(move |n| (labels(n, 0), Sample::float(t, (t / STEP_MS) as f64))))
            .collect();
        f.advance(DAY_MS);
        f.commit(&batch);
        f.store().maintain().unwrap();
    }
}

fn times_of(f: &Fixture, name: &str) -> Vec<i64> {
    f.all().get(&labels(name, 0)).map(|s| s.keys().copied().collect()).unwrap_or_default()
}

fn expected(days: i64, retention_days: i64) -> Vec<i64> {
    let oldest = T0 + (days - retention_days) * DAY_MS;
    (0..days * DAY_MS / STEP_MS).map(|k| T0 + k * STEP_MS).filter(|t| *t >= oldest).collect()
}

#[test]
fn each_series_is_kept_as_long_as_its_rule_says() {
    let mut f = Fixture::with(|c| {
        c.retention_ms = 90 * DAY_MS;
        c.rules = vec![rule("short", 20), rule("long", 250), rule("short", 500)];
    });
    let names = ["general", "long", "short"];
    let mut passed = 0;
    for days in [15, 10, 40, 60, 100, 80] {
        pass_days(&mut f, passed, days, &names);
        passed += days;
        for (name, retention) in [("general", 90), ("long", 250), ("short", 20)] {
            assert_eq!(times_of(&f, name), expected(passed, retention), "{name} after {passed} days");
        }
        if passed % 2 == 1 {
            f.kill();
        } else {
            f.restart();
        }
    }
    // On disk too: months in which a series has no business have no chunk of it.
    let inner = &f.store().inner;
    let rows = |family: &str| {
        let mut count: BTreeMap<u64, std::collections::BTreeSet<u32>> = BTreeMap::new();
        for row in inner.db.iterator_cf(&inner.cf(family), rocksdb::IteratorMode::Start) {
            let (key, _) = row.unwrap();
            let (month, id, _) = super::super::keys::parse_sample_key(&key).unwrap();
            count.entry(id).or_default().insert(u32::from(month));
        }
        let mut months: Vec<usize> = count.values().map(std::collections::BTreeSet::len).collect();
        months.sort_unstable();
        months
    };
    let raw = rows("raw");
    assert_eq!(raw.len(), 3, "{raw:?}");
    assert!(raw[0] <= 2 && (4..=5).contains(&raw[1]) && (9..=10).contains(&raw[2]), "{raw:?}");
    assert_eq!(rows("agg1h"), raw);
    let matchers = [Matcher::equal("__name__", "short")];
    let selection = inner.select(&matchers, 0, i64::MAX).unwrap();
    assert!(selection.months.len() <= 2, "the index of old months has forgotten it: {:?}", selection.months);
}

#[test]
fn a_series_whose_every_month_went_is_removed() {
    let mut f = Fixture::with(|c| {
        c.retention_ms = 300 * DAY_MS;
        c.rules = vec![rule("short", 20)];
        c.forget_after = Duration::from_secs(3600);
    });
    pass_days(&mut f, 0, 5, &["general", "short"]);
    pass_days(&mut f, 5, 90, &["general"]);
    assert!(times_of(&f, "short").is_empty());
    let inner = &f.store().inner;
    let series = inner.db.iterator_cf(&inner.cf("series"), rocksdb::IteratorMode::Start).count();
    assert_eq!(series, 1, "its row is gone");
    // It comes back as any new series.
    let now = inner.clock.now_ms();
    f.commit_floats(&labels("short", 0), [(now, 7.0)]);
    assert_eq!(times_of(&f, "short"), [now]);
}

#[test]
fn over_the_limit_of_size_the_oldest_months_go() {
    let mut f = Fixture::with(|c| c.seal_after = Duration::from_secs(3600));
    let names = ["general"];
    pass_days(&mut f, 0, 70, &names);
    assert_eq!(times_of(&f, "general").len(), 70 * 4);
    f.store().close().unwrap();
    f.store = None;
    // Every byte is over a limit of one, but the newest month stays.
    f.config.max_bytes = 1;
    f.open();
    let report = f.store().maintain().unwrap();
    assert!(report.dropped_months >= 2, "{report:?}");
    let left = times_of(&f, "general");
    let month = |t: i64| super::super::keys::month_of(t);
    assert!(!left.is_empty() && left.iter().all(|t| month(*t) == month(left[0])), "{left:?}");
    assert_eq!(left.last(), expected(70, 400).last());
}
