//! Queries answered from rollups against the same queries over samples, on random histories; and what becomes of rows.

use std::collections::BTreeSet;

use model::rng::Rng;
use promql::{Engine, EngineConfig, QueryOptions, QueryOutput, Value};

use super::super::families::{AGG1H, AGG5M};
use super::super::rollup::{ROLLUPS, Row};
use super::*;

const MINUTE_MS: i64 = 60_000;
/// 2026-09-26: histories reach into October.
const BEGIN: i64 = 1_790_380_800_000;
const DAYS: i64 = 9;
const SERIES: usize = 12;

fn engine(f: &Fixture, use_start_timestamps: bool) -> Engine {
    let config = EngineConfig {
        use_start_timestamps,
        experimental_functions: true,
        worker_threads: 1,
        ..EngineConfig::default()
    };
    Engine::new(config, f.clock.clone(), &prometheus::Registry::new())
}

/// The history of one series: what kind it is decides about its values.
fn history(r: &mut Rng, kind: usize) -> Vec<Sample> {
    let interval = r.pick(&[MINUTE_MS, 2 * MINUTE_MS, 5 * MINUTE_MS, 7 * MINUTE_MS, HOUR_MS]);
    let phase = r.pick(&[0, 0, 1, 17_123]);
    let mut t = BEGIN + phase;
    let (mut v, mut out) = (r.below(1000) as f64, Vec::new());
    let end = BEGIN + DAYS * DAY_MS;
    while t < end {
        let mut sample = match kind % SERIES {
            // Counters, with resets.
            0..=3 => {
                v += r.below(100) as f64 * if kind == 3 { 0.1 } else { 1.0 };
                if r.one_in(400) {
                    v = r.below(3) as f64;
                }
                Sample::float(t, v)
            }
            4 => Sample::float(t, 7.25),
            // Gauges: of one sign, of both, with everything a float can be.
            5 => Sample::float(t, 20.0 + r.below(1000) as f64 / 100.0),
            6 => Sample::float(t, (r.below(2001) as f64 - 1000.0) / 7.0),
            7 => Sample::float(t, r.pick(&[f64::NAN, 1.0, 2.5, -0.0, 0.0])),
            8 if r.one_in(2000) => Sample::float(t, r.pick(&[f64::INFINITY, f64::NEG_INFINITY])),
            8 => Sample::float(t, r.below(50) as f64),
            9 if r.one_in(2000) => Sample::float(t, r.pick(&[1e300, -1.7e308])),
            10 if t > BEGIN + 4 * DAY_MS && t < BEGIN + 4 * DAY_MS + HOUR_MS => {
                Sample::histogram(t, model::Histogram { count: 3, sum: 1.5, ..Default::default() })
            }
            _ => {
                v += r.below(9) as f64;
                Sample::float(t, v)
            }
        };
        if kind == 11 && t > BEGIN + 5 * DAY_MS {
            sample.start_timestamp_ms = BEGIN + 5 * DAY_MS;
        }
        out.push(sample);
        t += interval;
        if r.one_in(500) {
            out.push(Sample::float(t, model::stale_nan()));
            t += r.pick(&[interval, 3 * HOUR_MS, 30 * HOUR_MS]);
        }
    }
    out.retain(|s| s.timestamp_ms < end);
    out.dedup_by_key(|s| s.timestamp_ms);
    out
}

/// Slots of all series.
fn slots() -> Vec<u32> {
    (0..SERIES as u32).collect()
}

/// A store whose samples came in some order, sealed now and then, with late and deleted ones.
fn store(seed: u64) -> (Fixture, Rng) {
    let mut r = Rng::new(seed);
    let mut f = Fixture::new();
    f.clock.set_ms(BEGIN + DAYS * DAY_MS);
    let all: Vec<Vec<Sample>> = (0..SERIES).map(|i| history(&mut r, i)).collect();
    let mut late: Vec<(Labels, Sample)> = Vec::new();
    let mut next = [0; SERIES];
    let mut until = BEGIN;
    while until < BEGIN + DAYS * DAY_MS {
        until += r.pick(&[3 * HOUR_MS, 20 * HOUR_MS, DAY_MS, 2 * DAY_MS + 5 * MINUTE_MS]);
        let mut batch = Vec::new();
        for (i, samples) in all.iter().enumerate() {
            let held_back = r.one_in(6);
            while next[i] < samples.len() && samples[next[i]].timestamp_ms < until {
                let sample = (labels("m_total", i), samples[next[i]].clone());
                if held_back {
                    late.push(sample)
                } else {
                    batch.push(sample)
                }
                next[i] += 1;
            }
        }
        f.commit(&batch);
        if until < BEGIN + DAYS * DAY_MS && !r.one_in(3) {
            let some: Vec<u32> = slots().into_iter().filter(|_| !r.one_in(4)).collect();
            f.store().inner.seal(&some).unwrap();
        }
        if r.one_in(3) && !late.is_empty() {
            f.commit(&std::mem::take(&mut late));
        }
        match r.below(8) {
            0 => {
                let from = BEGIN + r.below(DAYS as u64 * 24 * 60) as i64 * MINUTE_MS;
                let to = from + r.pick(&[1, 10 * MINUTE_MS, HOUR_MS, 3 * DAY_MS]);
                let of = Matcher::equal("instance", format!("host-{}:9100", r.below(SERIES as u64)));
                f.store().delete(&[of], from, to).unwrap();
            }
            1 => f.restart(),
            _ => {}
        }
    }
    f.commit(&late);
    if r.one_in(2) {
        f.store().inner.seal(&slots()).unwrap();
    }
    (f, r)
}

fn query(r: &mut Rng) -> (String, i64, i64, i64) {
    let grid = r.pick(&[5 * MINUTE_MS, HOUR_MS, HOUR_MS, DAY_MS, DAY_MS]);
    let times = |r: &mut Rng, n: u64| grid * (1 + r.below(n) as i64);
    let range = times(r, 3).min(2 * DAY_MS);
    let step = times(r, 3);
    let mut start = BEGIN / DAY_MS * DAY_MS + grid * r.below((DAYS * DAY_MS / grid) as u64) as i64;
    if r.one_in(10) {
        start += 1 + r.below(1000) as i64;
    }
    let end = (start + step * r.below(40) as i64).min(BEGIN + (DAYS + 1) * DAY_MS);
    let offset = if r.one_in(3) { format!(" offset {}ms", times(r, 2)) } else { String::new() };
    let func = r.pick(&[
        "rate",
        "increase",
        "delta",
        "resets",
        "sum_over_time",
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "last_over_time",
        "first_over_time",
        "present_over_time",
        "absent_over_time",
        "ts_of_first_over_time",
        "ts_of_last_over_time",
        "stddev_over_time",
    ]);
    let window = format!("{func}(m_total[{range}ms]{offset})");
    let text = match r.below(12) {
        0 => format!("m_total{offset}"),
        1 => format!("timestamp(m_total{offset})"),
        2 => format!("{func}(m_total[{range}ms] @ {}{offset})", start / 1000),
        3 => format!("max_over_time({window}[{}ms:{}ms])", 2 * step, step),
        4 => format!(
            "sum without (instance) (max_over_time(m_total[{range}ms])) - sum without (instance) ({window})"
        ),
        5 => format!("max_over_time(m_total[{range}ms]) > quantile_over_time(0.5, m_total[{range}ms])"),
        _ => window,
    };
    (text, start, end.max(start), step)
}

fn near(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

fn compare(what: &str, rolled: &QueryOutput, raw: &QueryOutput) {
    let (Value::Matrix(a), Value::Matrix(b)) = (&rolled.value, &raw.value) else {
        panic!("{what}: no matrix")
    };
    let names = |m: &[promql::MatrixSeries]| m.iter().map(|s| s.labels.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b), "{what}: series");
    for (a, b) in a.iter().zip(b) {
        let times = |s: &promql::MatrixSeries| s.floats.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        assert_eq!(times(a), times(b), "{what}: points of {}", a.labels);
        for ((t, x), (_, y)) in a.floats.iter().zip(&b.floats) {
            assert!(near(*x, *y), "{what}: {x:?} instead of {y:?} at {t} of {}", a.labels);
        }
        assert_eq!(a.histograms.len(), b.histograms.len(), "{what}: histograms of {}", a.labels);
    }
    let notes = |o: &QueryOutput| {
        (
            o.annotations.warnings().map(str::to_owned).collect::<BTreeSet<_>>(),
            o.annotations.infos().map(str::to_owned).collect::<BTreeSet<_>>(),
        )
    };
    assert_eq!(notes(rolled), notes(raw), "{what}: annotations");
    assert_eq!(rolled.stats.total_queryable_samples, raw.stats.total_queryable_samples, "{what}: samples");
    assert_eq!(rolled.stats.samples_read, raw.stats.samples_read, "{what}: samples read");
}

/// Gives how many of the queries used rollups.
fn check(seed: u64, queries: usize) -> usize {
    let (mut f, mut r) = store(seed);
    let mut used = 0;
    for i in 0..queries {
        if i == queries / 2 {
            // Now from rows that maintenance filled in, and without open samples.
            f.restart();
            f.store().inner.seal(&slots()).unwrap();
            f.store().maintain().unwrap();
        }
        let engine = engine(&f, r.one_in(3));
        let (text, start, end, step) = query(&mut r);
        let what = format!("seed {seed}: {text} from {start} to {end} by {step}");
        let run = |raw_only| {
            let options = QueryOptions { raw_only, ..QueryOptions::default() };
            engine
                .range(f.store(), &text, start, end, step, &options)
                .unwrap_or_else(|e| panic!("{what}: {e}"))
        };
        let (rolled, raw) = (run(false), run(true));
        assert_eq!(raw.resolutions.to_string(), "raw", "{what}");
        compare(&what, &rolled, &raw);
        used += usize::from(rolled.resolutions.to_string() != "raw");
    }
    used
}

#[test]
fn answers_from_rollups_equal_those_from_samples() {
    let seeds = std::env::var("ROLLUP_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let first = std::env::var("ROLLUP_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let queries = 120;
    let used: usize = (first..first + seeds).map(|seed| check(seed, queries)).sum();
    assert!(used * 3 > queries * seeds as usize, "{used} queries used rollups");
}

/// The rows of a family.
fn rows(f: &Fixture, family: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inner = &f.store().inner;
    let mut out = Vec::new();
    let mut rows = inner.db.raw_iterator_cf(&inner.cf(family));
    rows.seek_to_first();
    while let Some((key, value)) = rows.item() {
        out.push((key.to_vec(), value.to_vec()));
        rows.next();
    }
    out
}

#[test]
fn rows_survive_the_codec_and_damage_is_an_error() {
    for seed in 0..20 {
        let mut r = Rng::new(seed);
        let mut samples = Samples::new();
        let family = ROLLUPS[(seed % 2) as usize];
        let kind = r.below(SERIES as u64) as usize;
        let part = family.part_of(super::super::keys::month_of(BEGIN), BEGIN);
        history(&mut r, kind).into_iter().filter(|s| s.timestamp_ms < part.end).for_each(|s| samples.push(s));
        let row = Row::of(family, part, &samples);
        let bytes = row.encode();
        let back = Row::decode(family, part, &bytes).expect("own bytes");
        assert_eq!(back.encode(), bytes, "seed {seed}: what is read back is written the same");
        assert_eq!((back.maxt, back.samples), (row.maxt, row.samples));
        for (a, b) in row.levels.iter().zip(&back.levels) {
            assert_eq!((&a.rollup.ends_ms, &a.flags), (&b.rollup.ends_ms, &b.flags), "seed {seed}");
            for (x, y) in a.rollup.cells.iter().zip(&b.rollup.cells) {
                let bits = |s: &model::rollup::Summary| [s.first, s.last, s.min, s.max].map(f64::to_bits);
                assert_eq!((x.count, x.is_stale), (y.count, y.is_stale));
                if x.count > 0 {
                    assert_eq!((bits(x), x.first_ms, x.last_ms), (bits(y), y.first_ms, y.last_ms));
                    assert!(near(x.total(), y.total()));
                }
            }
        }
        for cut in 0..bytes.len() {
            assert!(Row::decode(family, part, &bytes[..cut]).is_err(), "seed {seed}: cut at {cut}");
        }
        for _ in 0..200 {
            let mut bad = bytes.clone();
            let at = r.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << r.below(8);
            assert!(Row::decode(family, part, &bad).is_err(), "seed {seed}: flipped at {at}");
        }
    }
}

/// Damage that a checksum was made for afterwards: an error or other numbers, but no panic.
#[test]
fn foreign_bytes_with_a_good_checksum_never_panic() {
    for seed in 0..40 {
        let mut r = Rng::new(seed);
        let family = &super::super::rollup::MINUTES;
        let part = family.part_of(super::super::keys::month_of(BEGIN), BEGIN);
        let mut samples = Samples::new();
        let kind = seed as usize % SERIES;
        history(&mut r, kind).into_iter().filter(|s| s.timestamp_ms < part.end).for_each(|s| samples.push(s));
        let good = Row::of(family, part, &samples).encode();
        let block = 2 + good[1] as usize + 4;
        for _ in 0..300 {
            let mut bad = good[..good.len() - 4].to_vec();
            for _ in 0..1 + r.below(3) {
                let at = block + r.below((bad.len() - block) as u64) as usize;
                let noise = r.next() as u8;
                bad[at] = r.pick(&[0, 1, 0x7f, 0x80, 0xff, noise]);
            }
            let crc = crc32c::crc32c(&bad[block..]);
            bad.extend_from_slice(&crc.to_le_bytes());
            let inner = samples.timestamps_ms.len() as u64;
            if let Ok(row) = Row::decode(family, part, &bad) {
                assert_eq!(row.samples, inner, "seed {seed}: the head is as it was");
                let _ = row.encode();
            }
        }
    }
}

/// A store that was written before there were rollups.
fn without_rollups(f: &mut Fixture) {
    let inner = &f.store().inner;
    for family in [AGG5M, AGG1H] {
        inner.db.delete_range_cf(&inner.cf(family), [0_u8; 18], [0xff_u8; 18]).unwrap();
    }
    inner.db.delete_cf(&inner.cf("meta"), super::super::rollup::FILLED_KEY).unwrap();
    f.restart();
}

#[test]
fn rows_made_by_appending_by_merging_and_by_filling_are_the_same() {
    let (mut f, _) = store(4);
    f.store().inner.seal(&slots()).unwrap();
    f.store().maintain().unwrap();
    let keys = |f: &Fixture| [AGG5M, AGG1H].map(|n| rows(f, n).into_iter().map(|r| r.0).collect::<Vec<_>>());
    let before = keys(&f);
    assert!(before.iter().all(|rows| rows.len() > SERIES));
    without_rollups(&mut f);
    assert_eq!(keys(&f).map(|rows| rows.len()), [0, 0]);
    let report = f.store().maintain().unwrap();
    assert_eq!(report.filled_rollups as usize, before.iter().map(Vec::len).sum::<usize>());
    assert_eq!(keys(&f), before);
    assert_eq!(f.store().maintain().unwrap().filled_rollups, 0, "nothing is left to do");
    let report = verified(&mut f);
    assert!(report.is_good() && report.rollups > 0, "{report:?}");
}

fn verified(f: &mut Fixture) -> super::super::VerifyReport {
    f.store.take().unwrap().close().unwrap();
    let report = super::super::verify(&f.config.dir, |_, _| true).unwrap();
    f.open();
    report
}

/// A counter over some days, all sealed.
fn counter(days: i64) -> Fixture {
    let f = Fixture::new();
    f.clock.set_ms(BEGIN + days * DAY_MS);
    let samples = (0..days * 24 * 60).map(|i| (BEGIN + i * MINUTE_MS, (i % 5000) as f64));
    f.commit_floats(&labels("c_total", 0), samples);
    f.store().inner.seal(&[0]).unwrap();
    f
}

/// The answer, and what it was made of; it equals that from samples.
fn ask(f: &Fixture, query: &str, start: i64, end: i64) -> (QueryOutput, String) {
    let engine = engine(f, false);
    let run = |raw_only| {
        let options = QueryOptions { raw_only, ..QueryOptions::default() };
        engine
            .range(f.store(), query, start, end, DAY_MS, &options)
            .unwrap_or_else(|e| panic!("{query}: {e}"))
    };
    let rolled = run(false);
    compare(query, &rolled, &run(true));
    let resolutions = rolled.resolutions.to_string();
    (rolled, resolutions)
}

#[test]
fn the_coarsest_resolution_that_fits_is_used() {
    let f = counter(4);
    let day = BEGIN / DAY_MS * DAY_MS + DAY_MS;
    for (query, start, resolution) in [
        ("increase(c_total[1d])", day, "1h"),
        ("increase(c_total[1d])", day + HOUR_MS, "1h"),
        ("increase(c_total[1d] offset 1h)", day, "1h"),
        ("increase(c_total[1d] offset 5m)", day, "5m"),
        ("increase(c_total[1d])", day + 5 * MINUTE_MS, "5m"),
        ("increase(c_total[1d])", day + MINUTE_MS, "raw"),
        ("increase(c_total[90m])", day, "5m"),
        ("c_total", day, "5m"),
        ("timestamp(c_total)", day, "5m"),
        ("c_total offset 1s", day, "raw"),
        ("quantile_over_time(0.5, c_total[1d])", day, "raw"),
        ("rate(c_total[1d]) / rate(c_total[1d] offset 5m)", day, "5m,1h"),
        ("sum(avg_over_time(c_total[1d]) + max_over_time(c_total[1d]))", day, "1h"),
        ("c_total > avg_over_time(c_total[1d])", day, "5m,1h"),
    ] {
        let (output, used) = ask(&f, query, start, start + 2 * DAY_MS);
        assert_eq!(used, resolution, "{query}");
        assert!(matches!(&output.value, Value::Matrix(m) if m.len() == 1 || query.contains('>')), "{query}");
    }
}

#[test]
fn limits_count_windows_and_not_their_samples() {
    let f = counter(4);
    let config = EngineConfig { max_samples: 100, ..EngineConfig::default() };
    let engine = Engine::new(config, f.clock.clone(), &prometheus::Registry::new());
    let day = BEGIN / DAY_MS * DAY_MS + DAY_MS;
    let run = |raw_only| {
        let options = QueryOptions { raw_only, ..QueryOptions::default() };
        engine.range(f.store(), "sum_over_time(c_total[1d])", day, day + DAY_MS, DAY_MS, &options)
    };
    assert!(run(true).is_err(), "1,440 samples are more than 100");
    assert_eq!(run(false).unwrap().resolutions.to_string(), "1h");
}

#[test]
fn what_is_not_rolled_up_or_damaged_is_read_as_samples() {
    let mut f = counter(4);
    let day = BEGIN / DAY_MS * DAY_MS + DAY_MS;
    let ask = |f: &Fixture, query| ask(f, query, day, day + 2 * DAY_MS).1;
    let query = "increase(c_total[1d])";
    // Late samples and open ones are added to the rest.
    f.commit_floats(&labels("c_total", 0), [(BEGIN + 30 * MINUTE_MS + 1, 1.5)]);
    assert_eq!(ask(&f, query), "raw", "the part of the late sample is read, and there is no other");
    assert_eq!(ask(&f, "increase(c_total[1d] offset 5m)"), "raw,5m");
    f.store().inner.seal(&[0]).unwrap();
    assert_eq!(ask(&f, query), "1h");

    without_rollups(&mut f);
    assert_eq!(ask(&f, query), "raw");
    // New samples of a part without row are sealed; the row comes later.
    f.commit_floats(&labels("c_total", 0), [(BEGIN + 4 * DAY_MS, 7.0)]);
    f.store().inner.seal(&[0]).unwrap();
    assert_eq!(ask(&f, query), "raw");
    assert!(f.store().maintain().unwrap().filled_rollups > 0);
    assert_eq!(ask(&f, query), "1h");

    let rows = rows(&f, AGG1H);
    let inner = &f.store().inner;
    for (key, value) in &rows {
        let mut bad = value.clone();
        let at = bad.len() - 5;
        bad[at] ^= 1;
        inner.db.put_cf(&inner.cf(AGG1H), key, bad).unwrap();
    }
    assert_eq!(ask(&f, "increase(c_total[1h])"), "raw", "a damaged row");
    let report = verified(&mut f);
    assert_eq!(report.problem_count as usize, rows.len(), "{report:?}");
    assert!(report.problems[0].contains("agg1h: month 2026-09, series 1"), "{:?}", report.problems);
    // The next samples of a part take its damaged row away, and maintenance makes it again.
    f.commit_floats(
        &labels("c_total", 0),
        [(BEGIN + 60 * MINUTE_MS + 1, 1.5), (BEGIN + 4 * DAY_MS + 1, 7.0)],
    );
    f.store().inner.seal(&[0]).unwrap();
    f.store().maintain().unwrap();
    assert!(verified(&mut f).is_good());
    assert_eq!(ask(&f, query), "1h");
}

#[test]
fn a_row_that_tells_of_other_samples_is_found() {
    let mut f = counter(2);
    let stored = rows(&f, AGG5M);
    {
        let inner = &f.store().inner;
        // The row of one day in place of another's.
        inner.db.put_cf(&inner.cf(AGG5M), &stored[0].0, &stored[1].1).unwrap();
        let orphan = super::super::keys::sample_key(600, 1, super::super::keys::month_start_ms(600));
        inner.db.put_cf(&inner.cf(AGG5M), orphan, &stored[0].1).unwrap();
    }
    let report = verified(&mut f);
    assert_eq!(report.problem_count, 2, "{report:?}");
}

#[test]
fn expired_samples_are_not_in_sums() {
    let mut f = Fixture::with(|c| c.retention_ms = 20 * DAY_MS);
    let days = 30;
    f.clock.set_ms(BEGIN);
    for day in 0..days {
        f.clock.set_ms(BEGIN + (day + 1) * DAY_MS);
        let samples = (0..24 * 12).map(|i| (BEGIN + day * DAY_MS + i * 5 * MINUTE_MS, i as f64));
        f.commit_floats(&labels("c_total", 0), samples);
        f.store().inner.seal(&[0]).unwrap();
    }
    // Retention begins within a window of five minutes, of an hour, of a day.
    f.clock.advance(Duration::from_millis(11 * 3_600_000 + 17 * 60_000 + 3));
    let last = BEGIN / DAY_MS * DAY_MS + days * DAY_MS;
    for query in
        ["count_over_time(c_total[1d])", "sum_over_time(c_total[1h] offset 12h)", "c_total offset 11h"]
    {
        let (_, used) = ask(&f, query, last - 25 * DAY_MS, last);
        assert!(used.contains('h') || used.contains('m'), "{query}: {used}");
    }
    f.advance(DAY_MS * 2);
    assert_eq!(f.store().maintain().unwrap().dropped_months, 1);
    let september = super::super::keys::month_of(BEGIN).to_be_bytes();
    for family in [AGG5M, AGG1H] {
        let rows = rows(&f, family);
        assert!(!rows.is_empty() && rows.iter().all(|(key, _)| key[..2] != september), "{family}");
    }
    assert!(verified(&mut f).is_good());
}
