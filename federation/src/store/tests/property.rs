//! The store against a map, under restarts, kills, sealing, readers and disks that are full or die, in any order.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// Series, offset to the clock in steps, value.
    Commit(Vec<(u8, i32, i8)>),
    /// Advances the clock by minutes and maintains.
    Maintain(u32),
    Restart,
    Kill,
    /// Keeps a reader from here until the next one.
    Hold,
    /// Reads a part: offset and length in steps, name.
    Read(i32, i32, u8),
    /// Deletes a part: offset to the clock and length in steps, name.
    Delete(i32, i32, u8),
    /// The disk is full for so many writes.
    Full(u32),
    /// After so many writes one is said to have failed and stays, and all later ones fail until the next process.
    Dies(u32),
}

const STEP_MS: i64 = 10_000;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let sample = (0..6_u8, prop_oneof![6 => -30..0_i32, 2 => -200_000..0_i32], any::<i8>());
    let op = prop_oneof![
        8 => proptest::collection::vec(sample, 1..60).prop_map(Op::Commit),
        3 => prop_oneof![1..10_u32, 300..3000_u32].prop_map(Op::Maintain),
        1 => Just(Op::Restart),
        1 => Just(Op::Kill),
        1 => Just(Op::Hold),
        2 => (-210_000..10_i32, 0..200_000_i32, 0..4_u8).prop_map(|(a, b, c)| Op::Read(a, b, c)),
        1 => (-210_000..10_i32, prop_oneof![0..100_i32, 0..200_000_i32], 0..4_u8).prop_map(|(a, b, c)| Op::Delete(a, b, c)),
        1 => (1..4_u32).prop_map(Op::Full),
        1 => (0..3_u32).prop_map(Op::Dies),
    ];
    proptest::collection::vec(op, 1..40)
}

fn value(v: i8) -> f64 {
    match v {
        127 => model::stale_nan(),
        126 => f64::NAN,
        v if v % 2 == 0 => f64::from(v) / 8.0,
        v => f64::from(v) * 1e-7 + 0.1,
    }
}

/// The last series has histograms, some with a start timestamp; the others have floats.
fn sample(series: u8, t: i64, v: i8) -> Sample {
    if series < 5 {
        return Sample::float(t, value(v));
    }
    let h = model::Histogram { count: v.unsigned_abs().into(), sum: value(v), ..Default::default() };
    let start_timestamp_ms = if v % 3 == 0 { t - 1000 } else { 0 };
    Sample { start_timestamp_ms, ..Sample::histogram(t, h) }
}

fn visible(model: &Expected, name: Option<&str>, mint: i64, maxt: i64) -> Expected {
    let mut out = Expected::new();
    for (l, s) in model.iter().filter(|(l, _)| name.is_none_or(|n| l.metric_name() == n)) {
        let s: BTreeMap<_, _> =
            s.iter().filter(|(t, _)| **t >= mint && **t <= maxt).map(|(t, v)| (*t, v.clone())).collect();
        if !s.is_empty() {
            out.insert(l.clone(), s);
        }
    }
    out
}

fn try_commit(f: &Fixture, samples: &[(Labels, Sample)]) -> Result<(), StorageError> {
    let mut a = f.store().appender()?;
    for (labels, sample) in samples {
        a.append(SeriesRef::NONE, labels, sample.clone()).unwrap();
    }
    a.commit()
}

fn add(model: &mut Expected, batch: Vec<(Labels, Sample)>) {
    for (l, s) in batch {
        model.entry(l).or_default().entry(s.timestamp_ms).or_insert(s.value);
    }
}

/// What differs between what was found within `[mint, maxt]` and what must be there. Where the clock has left the newest month behind, samples
/// may be shown that are older than the retention.
fn difference(
    f: &Fixture,
    found: &Expected,
    model: &Expected,
    name: Option<&str>,
    mint: i64,
    maxt: i64,
) -> Option<String> {
    let now = model::Clock::now_ms(f.clock.as_ref());
    let within = visible(model, name, mint.max(now - f.config.retention_ms), maxt);
    let most =
        if f.store().inner.expiry_ms(now) == now { within.clone() } else { visible(model, name, mint, maxt) };
    let lacks = |of: &Expected, from: &Expected, what: &str| {
        let has =
            |l: &Labels, t: &i64, v: &SampleValue| from.get(l).and_then(|s| s.get(t)).is_some_and(|w| w == v);
        let all = of.iter().flat_map(|(l, s)| s.iter().map(move |(t, v)| (l, t, v)));
        let mut lacking = all.filter(|(l, t, v)| !has(l, t, v));
        lacking.next().map(|(l, t, v)| format!("{l} at {t} is {what}: {v:?}, now {now}"))
    };
    lacks(&within, found, "lost").or_else(|| lacks(found, &most, "shown"))
}

/// A batch that was refused is there as a whole or not at all.
fn adopt(f: &Fixture, model: &mut Expected, refused: Option<Vec<(Labels, Sample)>>) {
    let Some(batch) = refused else { return };
    let mut with = model.clone();
    add(&mut with, batch);
    let found = f.all();
    if difference(f, &found, model, None, i64::MIN, i64::MAX).is_some() {
        assert_eq!(difference(f, &found, &with, None, i64::MIN, i64::MAX), None);
        *model = with;
    }
}

fn run(ops: Vec<Op>) {
    let mut f = Fixture::with(|c| {
        c.retention_ms = 40 * DAY_MS;
        c.open_max_bytes = 8 << 10;
    });
    let mut model = Expected::new();
    let mut held: Option<(Box<dyn model::Querier>, Expected)> = None;
    // The batch that a dying disk refused, and that is there all the same once the store is opened again.
    let mut refused: Option<Vec<(Labels, Sample)>> = None;
    for op in ops {
        let now = model::Clock::now_ms(f.clock.as_ref());
        match op {
            Op::Commit(samples) => {
                let oldest = now - f.config.retention_ms;
                let batch: Vec<_> = samples
                    .iter()
                    .map(|(s, at, v)| {
                        let l = labels(&format!("m{}", s % 3), *s as usize);
                        (l, sample(*s, now + i64::from(*at) * STEP_MS, *v))
                    })
                    .filter(|(_, s)| s.timestamp_ms >= oldest)
                    .collect();
                let fault = &f.store().inner.write_fault;
                let (was_good, was_dead) = (fault.is_good(), fault.is_dead());
                match try_commit(&f, &batch) {
                    Ok(()) => add(&mut model, batch),
                    // What a reader holds back is not sealed, until it is too much.
                    Err(StorageError::Limit(_)) if held.is_some() => {}
                    Err(e) => {
                        assert!(!was_good, "{e}");
                        if !was_dead && f.store().inner.write_fault.is_dead() {
                            refused = Some(batch);
                        }
                    }
                }
            }
            Op::Maintain(minutes) => {
                f.advance(i64::from(minutes) * 60_000);
                let was_good = f.store().inner.write_fault.is_good();
                let done = f.store().maintain();
                assert!(done.is_ok() || !was_good, "{done:?}");
            }
            Op::Restart => {
                held = None;
                f.restart();
                adopt(&f, &mut model, refused.take());
            }
            Op::Kill => {
                held = None;
                f.kill();
                adopt(&f, &mut model, refused.take());
            }
            Op::Full(writes) => f.store().inner.write_fault.full(writes),
            Op::Dies(after) => f.store().inner.write_fault.dies(after),
            Op::Hold => {
                let expect = visible(&model, None, now - f.config.retention_ms, i64::MAX);
                held = Some((f.store().querier(i64::MIN, i64::MAX).unwrap(), expect));
            }
            Op::Read(from, len, name) => {
                let (mint, maxt) = (now + i64::from(from) * STEP_MS, now + i64::from(from + len) * STEP_MS);
                let name = (name < 3).then(|| format!("m{name}"));
                let matchers: Vec<_> = name.iter().map(|n| Matcher::equal("__name__", n)).collect();
                let found = read(f.store(), &matchers, mint, maxt).unwrap();
                assert_eq!(difference(&f, &found, &model, name.as_deref(), mint, maxt), None);
            }
            // What it has deleted when it fails half-way nobody says.
            Op::Delete(..) if !f.store().inner.write_fault.is_good() => {}
            Op::Delete(from, len, name) => {
                // A reader may miss what is deleted while it reads.
                held = None;
                let (mint, maxt) = (now + i64::from(from) * STEP_MS, now + i64::from(from + len) * STEP_MS);
                let name = (name < 3).then(|| format!("m{name}"));
                let matchers: Vec<_> = name.iter().map(|n| Matcher::equal("__name__", n)).collect();
                let oldest = now - f.config.retention_ms;
                let hit = visible(&model, name.as_deref(), mint, maxt);
                let shown = visible(&model, name.as_deref(), mint.max(oldest), maxt);
                let deleted = f.store().delete(&matchers, mint, maxt).unwrap();
                let most: usize = hit.values().map(BTreeMap::len).sum();
                let least: usize = shown.values().map(BTreeMap::len).sum();
                // What expired may be there still, or not any more.
                assert!((least..=most).contains(&(deleted.samples as usize)), "{deleted:?}");
                for (l, samples) in hit {
                    let of = model.get_mut(&l).unwrap();
                    of.retain(|t, _| !samples.contains_key(t));
                }
                model.retain(|_, of| !of.is_empty());
            }
        }
        // A reader that stays for longer than sealing has patience may see more, but loses nothing.
        if let Some((querier, expect)) = &held {
            let seen = read_from(querier.as_ref(), &[], i64::MIN, i64::MAX).unwrap();
            for (l, samples) in expect {
                for (t, v) in samples {
                    assert_eq!(seen[l].get(t), Some(v), "{l} at {t}");
                }
            }
        }
    }
    assert_eq!(difference(&f, &f.all(), &model, None, i64::MIN, i64::MAX), None);
    f.kill();
    adopt(&f, &mut model, refused);
    assert_eq!(difference(&f, &f.all(), &model, None, i64::MIN, i64::MAX), None);
    let name = f.store().snapshot().unwrap();
    let report = crate::store::verify(f.config.dir.join(crate::store::SNAPSHOTS_DIR).join(name), |_, _| true);
    let report = report.unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Histories follow from a seed: `ALMANAC_STORE_CASES=1000 ALMANAC_SEED=7` for others.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: number("ALMANAC_STORE_CASES", 24),
        rng_seed: RngSeed::Fixed(number("ALMANAC_SEED", 1)),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn the_store_is_a_map(ops in ops()) {
        run(ops);
    }
}
