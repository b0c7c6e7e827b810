//! The stories that the design promises, each on simulated time.

use std::sync::Arc;
use std::time::Duration;

use federation::tiered::{OnUnavailable, Promoted, Tiered};
use model::{Clock, Labels, Queryable, stale_nan};

use crate::network::Weather;
use crate::receiver::Contents;
use crate::world::{BEGIN_MS, Local, World, assert_same, contents};

const SCRAPE_INTERVAL: Duration = Duration::from_secs(30);

fn series(i: usize, tagged: bool) -> Labels {
    let i = i.to_string();
    let pairs = [("__name__", "m"), ("i", i.as_str()), ("longterm", "year")];
    Labels::from_pairs(pairs.into_iter().take(if tagged { 3 } else { 2 }))
}

fn scrape(world: &mut World, tagged: usize, n: u64) {
    let samples: Vec<(Labels, f64)> =
        (0..6).map(|i| (series(i, i < tagged), n as f64 + i as f64 / 8.0)).collect();
    world.scrape(&samples);
}

/// Scrapes for a while, with maintenance as a node does it.
async fn run(world: &mut World, tagged: usize, time: Duration, n: &mut u64) {
    for _ in 0..time.as_secs() / SCRAPE_INTERVAL.as_secs() {
        *n += 1;
        scrape(world, tagged, *n);
        if n.is_multiple_of(20) {
            world.maintain();
        }
        world.sleep(SCRAPE_INTERVAL).await;
    }
}

fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// The seam is tested at every time of a list: what the tiers give together is what one store would give.
pub(crate) fn assert_one_history(world: &World, whole: &Contents, what: &str) {
    let db = world.db();
    let backlog = world.sender().backlog().expect("there is one").clone();
    let local_min = db.clone();
    let remote: Arc<dyn Queryable> = world.receiver.store();
    let tiered = Tiered {
        local: Arc::new(Local(db)),
        local_min_time: Arc::new(move || local_min.min_time()),
        remote,
        external_labels: Labels::from_pairs([("cluster", "c")]),
        promoted: Some(Promoted {
            tags: vec!["longterm".into()],
            until: Arc::new(move || backlog.promoted_until_ms()),
        }),
        on_unavailable: OnUnavailable::Fail,
    };
    assert_same(&contents(&tiered), whole, what);
}

#[tokio::test(start_paused = true)]
async fn three_days_without_the_long_term_node_cost_nothing() {
    let mut world = World::new(1);
    world.config.queue.max_backoff = Duration::from_secs(30);
    world.config.queue.batch_send_deadline = Duration::from_millis(200);
    world.config.queue.poll_interval = Duration::from_millis(250);
    world.stop().await;
    world.start();
    let mut n = 0;
    run(&mut world, 4, minutes(60), &mut n).await;
    world.network.set(Weather::Cut);
    run(&mut world, 4, days(3), &mut n).await;
    world.heal();
    // The sender may still pause from its last attempt.
    world.sleep(Duration::from_secs(30)).await;
    // While history is caught up with, each new sample is there within a second.
    let mut caught_up_beside = 0;
    for _ in 0..20 {
        n += 1;
        scrape(&mut world, 4, n);
        let now_ms = world.clock.now_ms();
        caught_up_beside += u32::from(!world.sender().backlog().expect("there is one").is_empty());
        world.sleep(Duration::from_secs(1)).await;
        let stored = contents_since(&*world.receiver.store(), now_ms);
        assert_eq!(stored, 4, "scraped at {}", now_ms - BEGIN_MS);
    }
    run(&mut world, 4, minutes(20), &mut n).await;
    world.settle(world.clock.now_ms() - 15 * 60_000, "outage").await;
    assert!(world.metric("almanac_federation_backlog_samples_total") > 10_000.0);
    assert_eq!(world.metric("prometheus_remote_storage_samples_failed_total"), 0.0);
    assert!(world.metric("almanac_longterm_complete_until_timestamp_seconds") > 0.0);
    assert_same(&contents(&*world.receiver.store()), &world.expected(), "outage");
    let requests = world.requests();
    println!("{requests} requests, history beside {caught_up_beside} of 20 scrapes");
    world.stop().await;
}

/// Number of series with a sample at or after a time.
fn contents_since(store: &dyn Queryable, since_ms: i64) -> usize {
    contents(store).values().filter(|m| m.range(since_ms..).next().is_some()).count()
}

#[tokio::test(start_paused = true)]
async fn a_series_tagged_today_has_its_history_within_a_minute_and_readers_see_one() {
    let mut world = World::new(2);
    let mut n = 0;
    run(&mut world, 2, days(1), &mut n).await;
    // What a reader should see: always tagged.
    n += 1;
    let ending: Vec<(Labels, f64)> = (0..6)
        .flat_map(|i| {
            let end = (2..4).contains(&i).then(|| (series(i, false), stale_nan()));
            end.into_iter().chain([(series(i, i < 4), n as f64 + i as f64 / 8.0)])
        })
        .collect();
    world.scrape(&ending);
    let whole = |world: &World| {
        let mut whole = Contents::new();
        for (labels, samples) in &world.local {
            let i: usize = labels.value("i").parse().expect("a number");
            whole.entry(series(i, i < 4)).or_default().extend(samples);
        }
        for (labels, samples) in &world.local {
            if labels.contains("longterm") {
                whole.entry(labels.clone()).or_default().extend(samples);
            }
        }
        whole
    };
    world.sleep(Duration::from_secs(60)).await;
    assert_same(&contents(&*world.receiver.store()), &world.expected(), "a minute after the tag");
    assert_one_history(&world, &whole(&world), "after the tag");
    run(&mut world, 4, minutes(180), &mut n).await;
    world.sleep(Duration::from_secs(10)).await;
    assert_one_history(&world, &whole(&world), "three hours later");
    // A restart forgets nothing of it.
    world.kill().await;
    world.start();
    world.sleep(Duration::from_secs(60)).await;
    assert_one_history(&world, &whole(&world), "after a restart");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_clock_that_was_behind_refused_is_sent_again_even_when_nothing_new_comes() {
    let mut world = World::new(3);
    world.is_patient = true;
    let mut n = 0;
    run(&mut world, 4, minutes(130), &mut n).await;
    // The long-term node takes what is scraped for samples from the future, again and again.
    world.longterm_clock.set_ahead(-2 * 3_600_000);
    run(&mut world, 4, minutes(40), &mut n).await;
    assert!(world.metric("almanac_longterm_audit_unrepaired") > 0.0, "the audit has given up for now");
    world.longterm_clock.set_ahead(0);
    // Enough for the audit to look at what was refused.
    run(&mut world, 4, minutes(10), &mut n).await;
    world.sleep(days(1)).await;
    world.settle(world.newest_ms() - 6 * 60_000, "a clock that was behind").await;
    assert_same(&contents(&*world.receiver.store()), &world.expected(), "a clock that was behind");
    world.stop().await;
}
