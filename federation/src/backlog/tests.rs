//! Senders with a local store in memory and a receiver in this process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use model::memory::MemoryStorage;
use model::relabel::{RelabelAction, RelabelRule};
use model::storage::{SeriesRef, WalRecord, WalSource};
use model::{
    Exemplar, Histogram, Labels, Matcher, Metadata, MetricType, Querier, Queryable, Regexp, Sample, Samples,
    SelectHints, stale_nan,
};
use prometheus::Registry;
use tokio::runtime::Handle;
use wire::digest::WINDOW_MS;

use model::clock::ManualClock;

use super::*;
use crate::config::SenderConfig;
use crate::sender::tests::wal::MemoryWal;
use crate::sender::{RemoteSide, Sender, SenderHandle, SenderParts};
use crate::testing::Loopback;

/// Later than all samples.
const NOW_MS: i64 = 4 * WINDOW_MS;
const MS: fn(u64) -> Duration = Duration::from_millis;

#[derive(Clone, Default)]
struct Local(MemoryStorage);

impl Queryable for Local {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.0.querier(mint, maxt)
    }
}

impl LocalStore for Local {
    fn min_time(&self) -> Option<i64> {
        Some(0)
    }

    fn exemplars(&self, sets: &[Vec<Matcher>], _: i64, _: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        let labels = series(1, false);
        let exemplar = Exemplar { labels: Labels::empty(), value: 1.0, timestamp_ms: Some(1) };
        let wanted = sets.iter().any(|s| Matcher::all_match(s, &labels));
        if wanted { vec![(labels, vec![exemplar])] } else { Vec::new() }
    }
}

struct Setup {
    dir: tempfile::TempDir,
    wal: MemoryWal,
    local: Local,
    remote: MemoryStorage,
    receiver: Arc<Loopback>,
    registry: Registry,
}

impl Setup {
    fn new() -> Self {
        let remote = MemoryStorage::new();
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            wal: MemoryWal::default(),
            local: Local::default(),
            receiver: Loopback::new(Arc::new(remote.clone())),
            remote,
            registry: Registry::new(),
        }
    }

    fn config(&self) -> SenderConfig {
        let tag = vec![vec![Matcher::not_equal("longterm", "")]];
        let mut c = SenderConfig::longterm("test", "http://there/api/v1/write", self.dir.path(), tag);
        c.queue.poll_interval = MS(2);
        c.queue.batch_send_deadline = MS(10);
        c.queue.min_backoff = MS(2);
        c.queue.max_backoff = MS(10);
        c.backlog.batch_samples = 7;
        c.backlog.promotion_delay = MS(30);
        c
    }

    fn start(&self, config: SenderConfig) -> SenderHandle {
        let parts = SenderParts {
            source: Arc::new(self.wal.clone()),
            local: Some(Arc::new(self.local.clone())),
            remote: Some(RemoteSide {
                digests: Arc::new(self.remote.clone()),
                samples: Arc::new(self.remote.clone()),
            }),
            transport: Some(self.receiver.clone()),
            clock: Arc::new(ManualClock::new(NOW_MS)),
            registry: self.registry.clone(),
            runtime: Handle::current(),
            tracer: model::trace::Tracer::default(),
        };
        Sender::start_with(config, parts).expect("starts")
    }

    async fn settled(&self, sender: &SenderHandle) {
        let backlog = sender.backlog().expect("there is one");
        let wait = async {
            while sender.status().acknowledged < self.wal.end() || !backlog.is_empty() {
                tokio::time::sleep(MS(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), wait).await.expect("sent in time");
    }

    /// One sample of a series, in log and local store.
    fn append(&self, i: u64, tagged: bool, t: i64) {
        let value = if t % 5 == 4 { stale_nan() } else { t as f64 };
        self.local.0.insert(&series(i, tagged), Sample::float(t, value));
        self.wal.append(WalRecord::Samples(vec![(reference(i, tagged), t, value)]));
    }

    fn name(&self, i: u64, tagged: bool) {
        self.wal.append(WalRecord::Series(vec![(reference(i, tagged), series(i, tagged))]));
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let all = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
        all.map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }
}

fn reference(i: u64, tagged: bool) -> SeriesRef {
    SeriesRef(i * 2 + u64::from(tagged))
}

fn series(i: u64, tagged: bool) -> Labels {
    let i = i.to_string();
    let plain = [("__name__", "m"), ("i", i.as_str())];
    let tag = [("longterm", "year")];
    Labels::from_pairs(plain.iter().chain(tag.iter().filter(|_| tagged)).copied())
}

/// All samples of a store, as text: NaNs compare by their bits.
fn all(store: &MemoryStorage, matchers: &[Matcher]) -> Vec<String> {
    let querier = store.querier(i64::MIN, i64::MAX).expect("opens");
    let mut set = querier.select(matchers, &SelectHints::default()).expect("selects");
    let (mut out, mut samples) = (Vec::new(), Samples::new());
    while let Some(s) = set.next().expect("readable") {
        model::chunk::decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples).expect("columns");
        out.extend(samples.iter().map(|x| {
            let value = match &x.value {
                model::SampleValue::Float(v) => format!("{:x}", v.to_bits()),
                model::SampleValue::Histogram(h) => format!("{h:?}"),
            };
            format!("{} {} {} {value}", s.labels, x.timestamp_ms, x.start_timestamp_ms)
        }));
    }
    out
}

fn tagged(store: &MemoryStorage) -> Vec<String> {
    all(store, &[Matcher::not_equal("longterm", "")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_filled_from_the_local_store() {
    let setup = Setup::new();
    (0..3).for_each(|i| setup.name(i, true));
    let sender = setup.start(setup.config());
    (0..20).for_each(|t| setup.append(t as u64 % 3, true, t));
    setup.settled(&sender).await;
    assert!(sender.stop(MS(1000)).await);

    (20..2000).for_each(|t| setup.append(t as u64 % 3, true, t));
    setup.wal.truncate(1990);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    assert_eq!(sender.status().gaps.len(), 1);
    assert_eq!(all(&setup.remote, &[]), all(&setup.local.0, &[]));
    assert!(setup.metric("almanac_federation_backlog_samples_total") >= 1970.0);
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_shrinks_under_a_sender_loses_nothing() {
    let setup = Setup::new();
    setup.name(1, true);
    let mut config = setup.config();
    config.queue.capacity = 10;
    config.queue.max_samples_per_send = 5;
    let sender = setup.start(config);
    (0..10).for_each(|t| setup.append(1, true, t));
    setup.settled(&sender).await;
    setup.receiver.down.store(true, Ordering::Relaxed);
    (10..1000).for_each(|t| setup.append(1, true, t));
    tokio::time::sleep(MS(50)).await;
    setup.wal.vanish(900);
    tokio::time::sleep(MS(50)).await;
    setup.receiver.down.store(false, Ordering::Relaxed);
    setup.settled(&sender).await;
    assert_eq!(all(&setup.remote, &[]), all(&setup.local.0, &[]));
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_that_is_new_brings_its_history() {
    let setup = Setup::new();
    let mut config = setup.config();
    config.matchers = vec![vec![Matcher::equal("i", "0")]];
    (0..3).for_each(|i| setup.name(i, false));
    (0..300).for_each(|t| setup.append(t as u64 % 3, false, t));
    let sender = setup.start(config.clone());
    setup.settled(&sender).await;
    assert!(sender.stop(MS(1000)).await);
    assert_eq!(all(&setup.remote, &[]), all(&setup.local.0, &[Matcher::equal("i", "0")]));

    // The log has lost the beginning; only the local store knows it.
    setup.wal.truncate(280);
    config.matchers.push(vec![Matcher::equal("i", "2"), Matcher::equal("cluster", "c")]);
    config.external_labels = Labels::from_pairs([("cluster", "c")]);
    let drop_label = RelabelRule {
        regex: Regexp::new("cluster").expect("valid"),
        action: RelabelAction::LabelDrop,
        ..RelabelRule::default()
    };
    config.write_relabel = vec![drop_label];
    let sender = setup.start(config.clone());
    setup.settled(&sender).await;
    assert!(sender.stop(MS(1000)).await);
    assert_eq!(all(&setup.remote, &[]), all(&setup.local.0, &[Matcher::not_equal("i", "1")]));

    // Nothing is new at the next start.
    let sender = setup.start(config);
    assert!(sender.backlog().expect("there is one").is_empty());
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_that_gets_its_tag_brings_its_history() {
    let setup = Setup::new();
    setup.name(1, false);
    setup.name(2, false);
    (0..500).for_each(|t| {
        setup.append(1, false, t);
        setup.append(2, false, t);
    });
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    assert_eq!(all(&setup.remote, &[]).len(), 0);
    // The scrape that brings the tag ends the series without it.
    setup.local.0.insert(&series(1, false), Sample::float(500, stale_nan()));
    setup.name(1, true);
    (500..510).for_each(|t| setup.append(1, true, t));
    setup.settled(&sender).await;
    let expect: Vec<String> = {
        let as_if = Setup::new();
        (0..510).for_each(|t| as_if.append(1, true, t));
        all(&as_if.local.0, &[])
    };
    assert_eq!(tagged(&setup.remote), expect);
    assert_eq!(all(&setup.remote, &[]), expect, "nothing goes out without the tag");
    assert!(sender.backlog().expect("there is one").status().promoted_until_ms.is_some());
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_survives_a_sender_that_dies() {
    let setup = Setup::new();
    setup.name(1, false);
    (0..50).for_each(|t| setup.append(1, false, t));
    let mut config = setup.config();
    config.backlog.promotion_delay = Duration::from_secs(60);
    let sender = setup.start(config);
    setup.name(1, true);
    (50..60).for_each(|t| setup.append(1, true, t));
    while tagged(&setup.remote).len() < 10 {
        tokio::time::sleep(MS(2)).await;
    }
    assert!(sender.status().acknowledged < setup.wal.end(), "held by the newly tagged series");
    drop(sender);
    tokio::time::sleep(MS(20)).await;
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    assert_eq!(tagged(&setup.remote).len(), 60);
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_by_hand_resumes_after_a_restart() {
    let setup = Setup::new();
    for t in 0..10 {
        for i in 0..20 {
            setup.local.0.insert(&series(i, false), Sample::float(t * WINDOW_MS / 3, i as f64));
        }
    }
    let histogram = Sample {
        start_timestamp_ms: 7,
        ..Sample::histogram(3, Histogram { count: 3, sum: 1.0, ..Histogram::default() })
    };
    setup.local.0.insert(&series(30, false), histogram);
    let range = NewRange {
        reason: Reason::Manual,
        selectors: vec![vec![Matcher::equal("__name__", "m")], vec![Matcher::equal("i", "3")]],
        strip: Vec::new(),
        mint: 0,
        maxt: i64::MAX,
    };
    let mut config = setup.config();
    config.backlog.samples_per_second = 50.0;
    let sender = setup.start(config);
    sender.backlog().expect("there is one").enqueue(range).expect("durable");
    while all(&setup.remote, &[]).len() < 130 {
        tokio::time::sleep(MS(5)).await;
    }
    drop(sender);
    tokio::time::sleep(MS(50)).await;
    let sender = setup.start(setup.config());
    let status = sender.backlog().expect("there is one").status();
    let range = status.ranges.iter().find(|r| r.reason == Reason::Manual).expect("still there");
    assert!(range.done_until > 0 || range.after.is_some(), "{range:?}");
    setup.settled(&sender).await;
    assert_eq!(all(&setup.remote, &[]), all(&setup.local.0, &[]));
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_halved_and_older_versions_spoken() {
    for only_v1 in [false, true] {
        let setup = Setup::new();
        setup.receiver.max_samples.store(3, Ordering::Relaxed);
        setup.receiver.only_v1.store(only_v1, Ordering::Relaxed);
        setup.name(1, true);
        let metadata = Metadata { metric_type: MetricType::Gauge, unit: "".into(), help: "m".into() };
        setup.wal.append(WalRecord::Metadata(vec![(reference(1, true), metadata)]));
        setup.wal.append(WalRecord::StartedSamples(vec![(reference(1, true), 0, -5, 1.0)]));
        (1..50).for_each(|t| setup.append(1, true, t));
        let sender = setup.start(setup.config());
        setup.settled(&sender).await;
        let got = all(&setup.remote, &[]);
        assert_eq!(got.len(), 50);
        assert_eq!(got[0].contains(" 0 -5 "), !only_v1, "{}", got[0]);
        assert_eq!(setup.receiver.metadata.load(Ordering::Relaxed) > 0, !only_v1);
        assert!(setup.metric("almanac_federation_split_total") > 0.0);
        assert_eq!(setup.metric("prometheus_remote_storage_samples_failed_total"), 0.0);
        assert!(sender.stop(MS(1000)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_samples_are_counted_when_there_is_a_limit() {
    let setup = Setup::new();
    setup.name(1, true);
    (0..50).for_each(|t| setup.append(1, true, t));
    setup.append(1, true, NOW_MS);
    let mut config = setup.config();
    config.sample_age_limit = Some(Duration::from_secs(3600));
    let sender = setup.start(config);
    setup.settled(&sender).await;
    assert_eq!(all(&setup.remote, &[]).len(), 1);
    assert!(setup.metric("prometheus_remote_storage_samples_dropped_total") >= 50.0);
    assert!(sender.stop(MS(1000)).await);
}
