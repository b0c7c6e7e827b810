//! Random histories: scrapes, tags, weather, deaths and full disks of either side, clocks that are set. In the end all that was acknowledged is stored, the
//! audit is clean, and the long-term node holds exactly what it must.

use std::sync::Arc;
use std::time::Duration;

use model::histogram::{Histogram, Span};
use model::{HistogramValue, Labels, SampleValue, stale_nan};

use crate::network::{Rng, Weather};
use crate::outage::assert_one_history;
use crate::receiver::{Contents, Disk};
use crate::world::{World, assert_same, contents};

/// Steps of one history.
const STEPS: u64 = 40;
/// More than the retention of the long-term node.
const YEARS_MS: i64 = 3 * 365 * 86_400_000;
/// Series that are scraped.
const SERIES: usize = 8;

fn series(i: usize, tagged: bool) -> Labels {
    let i = format!("series-with-a-long-name-{i}");
    let pairs = [("__name__", "m"), ("i", i.as_str()), ("longterm", "year")];
    Labels::from_pairs(pairs.into_iter().take(if tagged { 3 } else { 2 }))
}

/// A histogram that only this value makes.
fn histogram(value: f64) -> SampleValue {
    let spans = vec![Span { offset: 0, length: 1 }];
    let h = Histogram {
        schema: 3,
        count: 2,
        sum: value,
        positive_spans: spans,
        positive_buckets: vec![2],
        ..Histogram::default()
    };
    SampleValue::Histogram(HistogramValue::Int(Arc::new(h)))
}

struct History {
    world: World,
    rng: Rng,
    tagged: [bool; SERIES],
    count: u64,
    /// Whether clocks are set in this history.
    clocks: bool,
}

impl History {
    /// One scrape: a series that changes its labels ends under the old ones with a stale marker.
    fn scrape(&mut self) {
        self.count += 1;
        let mut samples = Vec::new();
        for i in 0..SERIES {
            let was = self.tagged[i];
            // Where clocks are set back, the last sample under the old labels may be lost, or the first under the new ones.
            if !self.clocks && self.rng.one_in(400) {
                self.tagged[i] = true;
            }
            let now = self.tagged[i];
            if was != now {
                samples.push((series(i, was), SampleValue::Float(stale_nan())));
            }
            let value = (self.count * 10) as f64 + i as f64 / 8.0;
            let value = match self.rng.one_in(50) {
                true => SampleValue::Float(stale_nan()),
                false if i % 4 == 3 => histogram(value),
                false => SampleValue::Float(value),
            };
            samples.push((series(i, now), value));
        }
        self.world.scrape_values(&samples);
    }

    async fn step(&mut self) {
        for _ in 0..self.rng.below(40) {
            self.scrape();
            self.world.sleep(Duration::from_secs(60)).await;
        }
        match self.rng.below(14) {
            0 => self.world.network.set(Weather::Cut),
            1 | 2 => self.world.network.set(Weather::Storm),
            3 | 4 => self.heal(),
            5 => self.kill().await,
            6 => self.world.receiver.restart(),
            7 => {
                self.world.receiver.store().maintain().expect("maintains");
            }
            8 => {
                let disk = if self.rng.one_in(2) { Disk::Full } else { Disk::FullAtTheLast };
                self.world.receiver.set_disk(disk);
            }
            9 => self.world.set_state_full(true),
            10 => {
                self.kill().await;
                self.world.receiver.restart();
            }
            11 | 12 if self.clocks => {
                // Up to six hours ahead or behind, either node; or the long-term node years ahead, past all retention.
                let ahead_ms = (self.rng.below(12 * 60) as i64 - 6 * 60) * 60_000;
                match self.rng.below(5) {
                    0 | 1 => self.world.clock.set_ahead(ahead_ms),
                    2 | 3 => self.world.longterm_clock.set_ahead(ahead_ms),
                    _ => self.world.longterm_clock.set_ahead(YEARS_MS + ahead_ms),
                }
            }
            _ => self.world.maintain(),
        }
    }

    /// The scraper node dies; a node that cannot write its state does not start.
    async fn kill(&mut self) {
        self.world.kill().await;
        self.world.set_state_full(false);
        self.world.start();
    }

    /// Nothing is wrong from now on, but for the time of day.
    fn heal(&mut self) {
        self.world.heal();
        self.world.receiver.set_disk(Disk::Fine);
        self.world.set_state_full(false);
    }
}

/// What a reader sees over both tiers: series with their history from before the tag, the others as they are.
fn whole(world: &World) -> Contents {
    let mut whole = Contents::new();
    for (labels, samples) in world.expected() {
        whole.insert(labels.without(&["cluster"]), samples);
    }
    for (labels, samples) in &world.local {
        let tagged = Labels::from_pairs(labels.iter().chain([("longterm", "year")]));
        if !labels.contains("longterm") && !world.local.contains_key(&tagged) {
            whole.insert(labels.clone(), samples.clone());
        }
    }
    whole
}

async fn history(seed: u64) {
    let what = format!("ALMANAC_SEED={seed}");
    let rng = Rng::new(seed ^ 0xabcd);
    let mut tagged = [false; SERIES];
    tagged.iter_mut().take(4).for_each(|t| *t = true);
    let mut world = World::new(seed);
    let clocks = seed.is_multiple_of(3);
    world.is_patient = clocks;
    // Hours are to pass quickly.
    world.config.queue.poll_interval = Duration::from_secs(20);
    world.config.queue.min_shards = 1 + (seed % 4) as usize;
    world.config.queue.max_shards = 8;
    world.config.audit_interval = Duration::from_secs(300);
    world.stop().await;
    world.start();
    let mut h = History { world, rng, tagged, count: 0, clocks };
    for _ in 0..STEPS {
        h.step().await;
    }
    h.heal();
    h.world.clock.set_ahead(0);
    h.world.longterm_clock.set_ahead(0);
    // Samples of a clock that was ahead are due once their time has come.
    while h.world.clock_now() <= h.world.newest_ms() {
        h.world.sleep(Duration::from_secs(60)).await;
    }
    let last = h.world.clock_now();
    // The audit follows behind samples that may come late: some more scrapes move it.
    for _ in 0..40 {
        h.scrape();
        h.world.sleep(Duration::from_secs(60)).await;
    }
    h.world.settle(last, &what).await;
    let (found, expected) = (contents(&*h.world.receiver.store()), h.world.expected());
    for (labels, samples) in &*h.world.receiver.acknowledged.lock().expect("sound") {
        for t in samples.keys() {
            assert!(
                found.get(labels).is_some_and(|m| m.contains_key(t)),
                "{what}: {labels} at {t} was acknowledged"
            );
        }
    }
    assert_same(&found, &expected, &what);
    assert_one_history(&h.world, &whole(&h.world), &what);
    h.world.stop().await;
}

fn seeds() -> std::ops::Range<u64> {
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let first: u64 = number("ALMANAC_SEED", 1);
    first..first + number("ALMANAC_SIM_SEEDS", 1)
}

#[test]
fn nothing_is_lost_and_nothing_is_doubled_whatever_happens() {
    for seed in seeds() {
        // A failure anywhere, also within tasks, is known by its seed.
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(history(seed));
    }
}
