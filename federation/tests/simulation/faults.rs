//! Random histories: scrapes, tags, weather, deaths of either side. In the end all that was acknowledged is stored, the
//! audit is clean, and the long-term node holds exactly what it must.

use std::time::Duration;

use model::{Labels, stale_nan};

use crate::network::{Rng, Weather};
use crate::world::{World, assert_same, contents};

/// Steps of one history.
const STEPS: u64 = 40;
/// Series that are scraped.
const SERIES: usize = 8;

fn series(i: usize, tagged: bool) -> Labels {
    let i = format!("series-with-a-long-name-{i}");
    let pairs = [("__name__", "m"), ("i", i.as_str()), ("longterm", "year")];
    Labels::from_pairs(pairs.into_iter().take(if tagged { 3 } else { 2 }))
}

struct History {
    world: World,
    rng: Rng,
    tagged: [bool; SERIES],
    count: u64,
}

impl History {
    /// One scrape: a series that changes its labels ends under the old ones with a stale marker.
    fn scrape(&mut self) {
        self.count += 1;
        let mut samples = Vec::new();
        for i in 0..SERIES {
            let was = self.tagged[i];
            if self.rng.one_in(400) {
                self.tagged[i] = true;
            }
            let now = self.tagged[i];
            if was != now {
                samples.push((series(i, was), stale_nan()));
            }
            let value =
                if self.rng.one_in(50) { stale_nan() } else { (self.count * 10) as f64 + i as f64 / 8.0 };
            samples.push((series(i, now), value));
        }
        self.world.scrape(&samples);
    }

    async fn step(&mut self) {
        for _ in 0..self.rng.below(40) {
            self.scrape();
            self.world.sleep(Duration::from_secs(60)).await;
        }
        match self.rng.below(10) {
            0 => self.world.network.set(Weather::Cut),
            1 | 2 => self.world.network.set(Weather::Storm),
            3 | 4 => self.world.heal(),
            5 => {
                self.world.kill().await;
                self.world.start();
            }
            6 => self.world.receiver.restart(),
            7 => {
                self.world.receiver.store().maintain().expect("maintains");
            }
            _ => self.world.maintain(),
        }
    }
}

async fn history(seed: u64) {
    let what = format!("ALMANAC_SEED={seed}");
    let rng = Rng::new(seed ^ 0xabcd);
    let mut tagged = [false; SERIES];
    tagged.iter_mut().take(4).for_each(|t| *t = true);
    let mut world = World::new(seed);
    // Hours are to pass quickly.
    world.config.queue.poll_interval = Duration::from_secs(5);
    world.config.audit_interval = Duration::from_secs(300);
    world.stop().await;
    world.start();
    let mut h = History { world, rng, tagged, count: 0 };
    for _ in 0..STEPS {
        h.step().await;
    }
    h.world.heal();
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
