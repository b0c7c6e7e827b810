//! Two replicas with queues as Prometheus has them, and whatever can happen to them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::SampleValue;
use model::clock::ManualClock;
use model::memory::MemoryStorage;
use model::rng::Rng;

use super::*;

const INTERVAL_MS: i64 = 15_000;
const START_MS: i64 = 1_700_000_000_000;

struct World {
    clock: Arc<ManualClock>,
    store: MemoryStorage,
    pairs: HaPairs,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START_MS));
        let store = MemoryStorage::new();
        let pairs = pairs_over(&store, &clock);
        Self { clock, store, pairs }
    }

    /// The program starts anew over what is stored.
    fn restart(&mut self) {
        self.pairs = pairs_over(&self.store, &self.clock);
    }

    fn send(&self, batch: &[(Labels, i64, f64)]) -> Result<(), StorageError> {
        let mut appender = self.pairs.appender().expect("open");
        for (labels, t, v) in batch {
            let series = appender.append(SeriesRef::NONE, labels, Sample::float(*t, *v)).expect("taken");
            assert!(series != SeriesRef::NONE, "a reference for the next time");
        }
        appender.commit()
    }

    fn stored(&self) -> BTreeMap<String, Vec<(i64, f64)>> {
        let querier = self.store.querier(i64::MIN, i64::MAX).expect("open");
        let matchers = [Matcher::not_equal("__name__", "")];
        let mut set = querier.select(&matchers, &SelectHints::default()).expect("selects");
        let mut samples = Samples::new();
        let mut out = BTreeMap::new();
        while let Some(series) = set.next().expect("reads") {
            decode_chunks(&series.chunks, i64::MIN, i64::MAX, &mut samples).expect("decodes");
            let floats = samples.iter().map(|s| match s.value {
                SampleValue::Float(v) => (s.timestamp_ms, v),
                SampleValue::Histogram(_) => panic!("only floats are sent"),
            });
            out.insert(series.labels.to_string(), floats.collect());
        }
        out
    }
}

fn pairs_over(store: &MemoryStorage, clock: &Arc<ManualClock>) -> HaPairs {
    let (appendable, queryable) = (Arc::new(store.clone()), Arc::new(store.clone()));
    HaPairs::new(HaConfig::default(), appendable, queryable, clock.clone(), &Registry::new())
        .expect("registers")
}

fn labels(name: &str, instance: &str, replica: &str) -> Labels {
    Labels::from_pairs([
        ("__name__", name),
        ("__replica__", replica),
        ("cluster", "c"),
        ("instance", instance),
        ("job", "j"),
    ])
}

fn one(name: &str, replica: &str, t: i64) -> [(Labels, i64, f64); 1] {
    [(labels(name, "i", replica), t, 1.0)]
}

fn times(world: &World, name: &str) -> Vec<i64> {
    let all = world.stored();
    let key = labels(name, "i", "").to_string();
    let series = all.get(&key).unwrap_or_else(|| panic!("{key} is stored: {all:?}"));
    series.iter().map(|(t, _)| t - START_MS).collect()
}

#[test]
fn the_first_one_heard_owns_and_the_other_one_waits_for_it() {
    let world = World::new();
    world.send(&one("m", "a", START_MS)).expect("stored");
    let early = world.send(&one("m", "b", START_MS + 7_000));
    assert!(matches!(&early, Err(StorageError::NotYet(text)) if text.contains("\"a\"")), "{early:?}");
    world.send(&one("m", "a", START_MS + 15_000)).expect("stored");
    world.send(&one("m", "b", START_MS + 7_000)).expect("covered now");
    assert_eq!(times(&world, "m"), [0, 15_000]);
    let count = |outcome| world.pairs.inner.samples.with_label_values(&[outcome]).get();
    assert_eq!((count("stored"), count("covered"), count("held")), (2, 1, 1));
}

#[test]
fn a_silent_owner_is_followed_without_a_gap() {
    let world = World::new();
    world.send(&one("m", "a", START_MS)).expect("stored");
    let held = one("m", "b", START_MS + 7_000);
    assert!(world.send(&held).is_err());
    world.clock.advance(Duration::from_millis(30_001));
    world.send(&held).expect("b owns now");
    world.send(&one("m", "b", START_MS + 22_000)).expect("stored");
    assert!(world.send(&one("m", "a", START_MS + 30_000)).is_err(), "a waits now");
    world.send(&one("m", "a", START_MS + 15_000)).expect("covered");
    assert_eq!(times(&world, "m"), [0, 7_000, 22_000]);
    assert_eq!(world.pairs.inner.takeovers.with_label_values(&["c"]).get(), 1);
}

#[test]
fn an_owner_that_lags_is_followed_too() {
    let world = World::new();
    world.send(&one("m", "a", START_MS)).expect("stored");
    world.send(&one("m", "b", START_MS + 40_000)).expect("b is that far ahead");
    assert_eq!(times(&world, "m"), [0, 40_000]);
}

#[test]
fn a_series_that_only_the_other_one_has_is_stored() {
    let world = World::new();
    world.send(&one("m", "a", START_MS)).expect("stored");
    let own = one("own", "b", START_MS + 1_000);
    assert!(world.send(&own).is_err(), "it may still come from a");
    for i in 1..=8 {
        world.clock.advance(Duration::from_millis(INTERVAL_MS as u64));
        world.send(&one("m", "a", START_MS + i * INTERVAL_MS)).expect("stored");
    }
    assert!(world.send(&own).is_err());
    world.clock.advance(Duration::from_millis(INTERVAL_MS as u64));
    world.send(&one("m", "a", START_MS + 9 * INTERVAL_MS)).expect("stored");
    world.send(&own).expect("a does not have it");
    assert_eq!(times(&world, "own"), [1_000]);
}

#[test]
fn others_pass_through() {
    let world = World::new();
    let no_replica = Labels::from_pairs([("__name__", "m"), ("cluster", "c")]);
    let no_cluster = Labels::from_pairs([("__name__", "m"), ("__replica__", "a")]);
    for l in [&no_replica, &no_cluster] {
        let mut appender = world.pairs.appender().expect("open");
        appender.append(SeriesRef::NONE, l, Sample::float(START_MS, 1.0)).expect("taken");
        appender.commit().expect("stored");
    }
    let stored = world.stored();
    assert!(stored.len() == 2 && stored.contains_key(&no_replica.to_string()), "{stored:?}");
    assert!(stored.contains_key(&no_cluster.to_string()), "{stored:?}");
}

#[test]
fn a_restart_does_not_store_what_is_covered() {
    let mut world = World::new();
    world.send(&one("m", "a", START_MS + 15_000)).expect("stored");
    world.restart();
    world.send(&one("m", "b", START_MS + 7_000)).expect("b owns and sends again what it was held up with");
    world.send(&one("m", "b", START_MS + 22_000)).expect("stored");
    // b is the owner, whose samples are stored whatever they are; a store that orders its samples sees no gap.
    assert_eq!(times(&world, "m"), [7_000, 15_000, 22_000]);
    assert!(world.send(&one("m", "a", START_MS + 30_000)).is_err());
}

#[test]
fn a_backfill_fills_holes_and_nothing_else() {
    let world = World::new();
    for i in (0..40).chain(80..120) {
        world.send(&one("m", "a", START_MS + i * INTERVAL_MS)).expect("stored");
    }
    let backfill: Vec<_> =
        (0..100).map(|i| (labels("m", "i", "b"), START_MS + i * INTERVAL_MS + 7_000, 1.0)).collect();
    world.send(&backfill).expect("taken");
    let times = times(&world, "m");
    let of_b: Vec<i64> = times.iter().filter(|t| *t % INTERVAL_MS != 0).map(|t| t / INTERVAL_MS).collect();
    assert_eq!(of_b, (40..80).collect::<Vec<_>>());
}

#[test]
fn references_outlive_nothing_they_should_not() {
    let world = World::new();
    let append = |l: &Labels, series: SeriesRef, t: i64| {
        let mut appender = world.pairs.appender().expect("open");
        let found = appender.append(series, l, Sample::float(t, 1.0))?;
        appender.commit().expect("stored");
        Ok::<_, AppendError>(found)
    };
    let first = append(&labels("m", "i", "a"), SeriesRef::NONE, START_MS).expect("stored");
    assert_eq!(append(&labels("m", "i", "a"), first, START_MS + 1).expect("stored"), first);
    world.clock.advance(Duration::from_millis(FORGET_MS as u64 + 1));
    append(&labels("n", "i", "a"), SeriesRef::NONE, START_MS + FORGET_MS).expect("stored");
    let mut appender = world.pairs.appender().expect("open");
    let late = appender.append_float(first, START_MS + FORGET_MS, 1.0);
    assert!(matches!(late, Err(AppendError::UnknownRef)), "{late:?}");
    appender.rollback();
    let other = append(&labels("o", "i", "a"), SeriesRef::NONE, START_MS + FORGET_MS).expect("stored");
    assert_ne!(other, first, "the slot is the same, the generation is not");
}

/// A replica: scrapes while it lives, and sends what it scraped in order, again and again until it is taken.
struct Replica {
    name: &'static str,
    offset_ms: i64,
    alive: bool,
    queue: VecDeque<Vec<(Labels, i64, f64)>>,
}

/// Rounds of a second each in which replicas scrape, send, lag, die and come back; one of them lives at any time.
#[test]
fn no_gap_and_no_time_twice_whichever_replica_dies() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut world = World::new();
        let names = ["a", "b"];
        let mut replicas = names.map(|name| Replica {
            name,
            offset_ms: rng.below(INTERVAL_MS as u64 / 1000) as i64 * 1000,
            alive: true,
            queue: VecDeque::new(),
        });
        let end_s = 3600;
        for second in 0..end_s {
            let now = START_MS + second * 1000;
            world.clock.advance(Duration::from_secs(u64::from(second > 0)));
            if rng.below(300) == 0 {
                let dying = rng.below(2) as usize;
                if replicas[1 - dying].alive {
                    replicas[dying].alive = false;
                }
            }
            if rng.below(900) == 0 {
                world.restart();
            }
            for r in &mut replicas {
                if !r.alive && rng.below(120) == 0 {
                    r.alive = true;
                }
                if r.alive && (now - START_MS) % INTERVAL_MS == r.offset_ms {
                    let scrape = ["x", "y"].map(|m| (labels(m, "i", r.name), now, 1.0)).to_vec();
                    r.queue.push_back(scrape);
                }
                // What is due is sent, now and then late.
                while r.alive && rng.below(5) > 0 {
                    let Some(batch) = r.queue.front() else { break };
                    match world.send(batch) {
                        Ok(()) => drop(r.queue.pop_front()),
                        Err(StorageError::NotYet(_)) => break,
                        Err(e) => panic!("seed {seed}: {e}"),
                    }
                }
            }
        }
        let all = world.stored();
        assert_eq!(all.len(), 2, "seed {seed}: {:?}", all.keys());
        for (name, samples) in &all {
            // At a change of hands, a sample of the other one may be almost two intervals away.
            let times: Vec<i64> = samples.iter().map(|(t, _)| (t - START_MS) / 1000).collect();
            let gap = times.windows(2).map(|w| w[1] - w[0]).max().expect("many");
            assert!(gap <= 2 * INTERVAL_MS / 1000, "seed {seed}: {name} has a gap of {gap} s: {times:?}");
            assert!(*times.last().expect("many") > end_s - 90, "seed {seed}: {name} ends at {times:?}");
            let most = end_s * 1000 / INTERVAL_MS * 13 / 10;
            assert!((times.len() as i64) < most, "seed {seed}: {name} has {} samples", times.len());
        }
    }
}
