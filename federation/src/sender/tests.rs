//! The sender between a log in memory and a receiver that fails in each way a receiver can.

use std::collections::{BTreeMap, BTreeSet};

use model::storage::{SeriesRef, WalRecord};
use model::{
    Exemplar, Histogram, Labels, Matcher, Metadata, MetricType, Sample, SampleValue, SystemClock, stale_nan,
};

use super::*;

mod receiver;
pub(crate) mod wal;

use receiver::{Act, Receiver};
use wal::MemoryWal;

const MS: fn(u64) -> Duration = Duration::from_millis;
const SERIES: u64 = 7;

struct Setup {
    dir: tempfile::TempDir,
    wal: MemoryWal,
    registry: Registry,
    receiver: Receiver,
}

impl Setup {
    async fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            wal: MemoryWal::default(),
            registry: Registry::new(),
            receiver: Receiver::start(script).await,
        }
    }

    fn config(&self) -> SenderConfig {
        let mut c = SenderConfig::new("test", self.receiver.url(), self.dir.path());
        c.remote_timeout = MS(300);
        c.queue.poll_interval = MS(5);
        c.queue.batch_send_deadline = MS(20);
        c.queue.min_backoff = MS(2);
        c.queue.max_backoff = MS(10);
        c.queue.max_samples_per_send = 10;
        c.queue.min_shards = 3;
        c.queue.capacity = 40;
        c
    }

    fn start(&self, config: SenderConfig) -> SenderHandle {
        let source = Arc::new(self.wal.clone());
        Sender::start(config, source, SystemClock::shared(), &self.registry, &Handle::current())
            .expect("starts")
    }

    /// Names series 1 to `SERIES`.
    fn name_series(&self) {
        let list = (1..=SERIES).map(|i| (SeriesRef(i), labels(i))).collect();
        self.wal.append(WalRecord::Series(list));
    }

    /// One sample of each series per timestamp, in one record.
    fn append(&self, times: std::ops::Range<i64>) {
        for t in times {
            let list = (1..=SERIES).map(|i| (SeriesRef(i), t, value(i, t))).collect();
            self.wal.append(WalRecord::Samples(list));
        }
    }

    /// Waits until everything in the log is acknowledged.
    async fn settled(&self, sender: &SenderHandle) {
        let wait = async {
            while sender.status().acknowledged < self.wal.end() {
                tokio::time::sleep(MS(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), wait).await.expect("acknowledged in time");
    }

    /// Waits until a request has failed, so that samples are under way.
    async fn under_way(&self) {
        let wait = async {
            while self.metric("prometheus_remote_storage_samples_retried_total") == 0.0 {
                tokio::time::sleep(MS(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), wait).await.expect("sent in time");
    }

    /// The value of a metric, summed over its label sets.
    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let all = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
        all.map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }
}

fn labels(i: u64) -> Labels {
    let kind = if i.is_multiple_of(2) { "even" } else { "odd" };
    Labels::from_pairs([("__name__", "m"), ("i", &i.to_string()), ("kind", kind)])
}

fn value(i: u64, t: i64) -> f64 {
    if t % 5 == 4 { stale_nan() } else { i as f64 * 1e6 + t as f64 }
}

/// Bits make NaNs comparable.
fn bits(s: &Sample) -> u64 {
    match &s.value {
        SampleValue::Float(v) => v.to_bits(),
        SampleValue::Histogram(h) => h.sum().to_bits(),
    }
}

fn expected(times: std::ops::Range<i64>) -> BTreeSet<(String, i64, u64)> {
    let each = |i| times.clone().map(move |t| (labels(i).to_string(), t, value(i, t).to_bits()));
    (1..=SERIES).flat_map(each).collect()
}

/// What was stored without repetitions, which must not have come late: per series, a sample is either a repetition or
/// newer than all before.
fn deduplicated(stored: &[(String, Sample)]) -> BTreeSet<(String, i64, u64)> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (labels, s) in stored {
        let entry = (labels.clone(), s.timestamp_ms, bits(s));
        let first_time = seen.insert(entry);
        let newest = newest.entry(labels).or_insert(i64::MIN);
        assert!(!first_time || s.timestamp_ms > *newest, "{labels} at {} came late", s.timestamp_ms);
        *newest = s.timestamp_ms.max(*newest);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_once_in_order_with_the_protocols_headers() {
    let setup = Setup::new([]).await;
    setup.name_series();
    setup.append(0..50);
    let mut config = setup.config();
    config.http.headers = vec![("X-Scope".into(), "tenant".into())];
    config.http.client.basic_auth = Some(httpclient::BasicAuth {
        username: httpclient::SecretSource::inline("u"),
        password: Some(httpclient::SecretSource::inline("p")),
    });
    let sender = setup.start(config);
    setup.append(50..100);
    setup.settled(&sender).await;
    let stored = setup.receiver.stored();
    assert_eq!(stored.len(), 100 * SERIES as usize);
    assert_eq!(deduplicated(&stored), expected(0..100));

    {
        let state = setup.receiver.state.lock().expect("sound");
        assert!(state.requests.iter().all(|(_, n)| (1..=10).contains(n)));
        let headers = state.headers.as_ref().expect("requests came");
        for (name, value) in [
            ("content-encoding", "snappy"),
            ("content-type", "application/x-protobuf"),
            ("x-prometheus-remote-write-version", "0.1.0"),
            ("x-scope", "tenant"),
            ("authorization", "Basic dTpw"),
        ] {
            assert_eq!(headers.get(name).expect(name), value);
        }
        assert!(headers["user-agent"].to_str().expect("text").starts_with("almanac/"));
    }
    assert_eq!(setup.metric("prometheus_remote_storage_samples_total"), 700.0);
    assert_eq!(setup.metric("prometheus_remote_storage_samples_pending"), 0.0);
    assert_eq!(setup.metric("prometheus_remote_storage_shards"), 3.0);
    assert!(sender.stop(MS(1000)).await);
    assert!(setup.registry.gather().is_empty());
    assert_eq!(setup.wal.held(), Some(setup.wal.end()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_the_receiver_does() {
    use Act::{Accept, AcceptAndReset, Hang, Reset, Status};
    let script = [
        Status(500, None),
        Reset,
        Accept,
        Hang,
        Status(503, Some("1")),
        AcceptAndReset,
        Status(429, None),
        Accept,
        Reset,
        Status(302, None),
        AcceptAndReset,
        Hang,
        Status(500, None),
    ];
    let setup = Setup::new(script).await;
    setup.name_series();
    setup.append(0..60);
    setup.wal.fail(1);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    let stored = setup.receiver.stored();
    assert_eq!(deduplicated(&stored), expected(0..60));
    assert!(stored.len() > expected(0..60).len(), "answers that got lost repeat samples");
    assert!(setup.metric("prometheus_remote_storage_samples_retried_total") > 0.0);
    assert_eq!(setup.metric("prometheus_remote_storage_samples_failed_total"), 0.0);
    assert_eq!(setup.metric("almanac_federation_read_errors_total"), 1.0);
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_obeyed() {
    let setup = Setup::new([Act::Status(429, Some("1"))]).await;
    setup.name_series();
    setup.append(0..1);
    let mut config = setup.config();
    config.queue.min_shards = 1;
    let sender = setup.start(config);
    setup.settled(&sender).await;
    let state = setup.receiver.state.lock().expect("sound");
    let times: Vec<_> = state.requests.iter().map(|(t, _)| *t).collect();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= MS(1000));
    assert_eq!(state.headers.as_ref().expect("came")["retry-attempt"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_good_is_counted_and_passed() {
    let setup = Setup::new([Act::Status(400, None)]).await;
    setup.name_series();
    setup.append(0..10);
    let mut config = setup.config();
    config.queue.min_shards = 1;
    let sender = setup.start(config);
    setup.settled(&sender).await;
    assert_eq!(setup.receiver.stored().len(), 60);
    assert_eq!(setup.metric("prometheus_remote_storage_samples_failed_total"), 10.0);
    assert_eq!(setup.metric("almanac_federation_refused_total"), 10.0);
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_it_stopped() {
    let setup = Setup::new([]).await;
    setup.name_series();
    setup.append(0..30);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    assert!(sender.stop(MS(1000)).await);
    let before = setup.receiver.stored().len();
    assert_eq!(before, 210);

    // The second run ends while the receiver is down, with samples under way.
    setup.receiver.set_otherwise(Act::Status(500, None));
    setup.append(30..60);
    let sender = setup.start(setup.config());
    setup.under_way().await;
    assert!(!sender.stop(MS(30)).await);
    assert_eq!(setup.receiver.stored().len(), before);

    // The third is dropped without a word.
    let sender = setup.start(setup.config());
    setup.under_way().await;
    drop(sender);

    setup.receiver.set_otherwise(Act::Accept);
    setup.append(60..80);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    let stored = setup.receiver.stored();
    assert_eq!(deduplicated(&stored), expected(0..80));
    assert_eq!(stored.len(), expected(0..80).len(), "nothing acknowledged was sent again");
    assert!(sender.stop_and_release(MS(1000)).await);
    assert_eq!(setup.wal.held(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_receiver_pauses_reading_in_bounded_memory() {
    let setup = Setup::new([]).await;
    setup.receiver.set_otherwise(Act::Status(500, None));
    setup.name_series();
    setup.append(0..2000);
    let sender = setup.start(setup.config());
    setup.under_way().await;
    tokio::time::sleep(MS(300)).await;
    let pending = setup.metric("prometheus_remote_storage_samples_pending");
    // The limit, and the pieces in flight beyond it: one taken over it, one in the channel, one in the reader's hand.
    let piece = 64.0 * SERIES as f64;
    assert!((120.0..=120.0 + 3.0 * piece).contains(&pending), "{pending}");
    setup.receiver.set_otherwise(Act::Accept);
    setup.settled(&sender).await;
    assert_eq!(deduplicated(&setup.receiver.stored()), expected(0..2000));
    assert!(setup.metric("prometheus_remote_storage_enqueue_retries_total") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_matching_series_go_out_with_external_labels() {
    let setup = Setup::new([]).await;
    setup.name_series();
    setup.append(0..4);
    let mut config = setup.config();
    config.matchers = vec![vec![Matcher::equal("kind", "even")], vec![Matcher::equal("i", "7")]];
    config.external_labels = Labels::from_pairs([("cluster", "c"), ("kind", "external")]);
    let sender = setup.start(config);
    setup.settled(&sender).await;
    let found: BTreeSet<String> = setup.receiver.stored().into_iter().map(|(l, _)| l).collect();
    let expect = [("2", "even"), ("4", "even"), ("6", "even"), ("7", "odd")]
        .map(|(i, kind)| format!("m{{cluster=\"c\", i=\"{i}\", kind=\"{kind}\"}}"));
    assert_eq!(found, BTreeSet::from(expect));
    assert_eq!(setup.metric("prometheus_remote_storage_samples_dropped_total"), 12.0);
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histograms_exemplars_and_metadata_go_along() {
    let setup = Setup::new([]).await;
    setup.name_series();
    let histogram = Histogram { sum: 2.5, count: 3, schema: 2, ..Histogram::default() };
    let custom = Histogram { schema: model::histogram::CUSTOM_BUCKETS_SCHEMA, ..histogram.clone() };
    let metadata =
        Metadata { metric_type: MetricType::Histogram, unit: "".into(), help: "What it is.".into() };
    let exemplar =
        Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), value: 1.0, timestamp_ms: Some(7) };
    setup.wal.append(WalRecord::Metadata(vec![(SeriesRef(1), metadata.clone()), (SeriesRef(2), metadata)]));
    setup.wal.append(WalRecord::Histograms(vec![
        (SeriesRef(1), 7, histogram.clone().into()),
        (SeriesRef(2), 8, custom.into()),
    ]));
    setup.wal.append(WalRecord::Exemplars(vec![(SeriesRef(1), exemplar)]));
    setup.wal.append(WalRecord::Samples(vec![(SeriesRef(99), 1, 1.0)]));
    let mut config =
        SenderConfig { queue: setup.config().queue, ..SenderConfig::longterm("lt", "", "", Vec::new()) };
    (config.url, config.positions_dir) = (setup.receiver.url(), setup.dir.path().into());
    let sender = setup.start(config);
    setup.settled(&sender).await;
    let stored = setup.receiver.stored();
    assert_eq!(stored.len(), 2);
    assert!(stored.contains(&(labels(1).to_string(), Sample::histogram(7, histogram))));
    // The receiver turns out not to say what it has written, so that metadata follows as version 1.0 has it.
    let wait = async {
        while setup.receiver.state.lock().expect("sound").families.is_empty() {
            tokio::time::sleep(MS(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("sent");
    let state = setup.receiver.state.lock().expect("sound");
    assert_eq!((state.exemplars, &state.families[..]), (1, &["m".to_owned()][..]));
    // The reference that the log never named.
    assert_eq!(setup.metric("prometheus_remote_storage_samples_dropped_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_noted_and_a_first_start_is_none() {
    let setup = Setup::new([]).await;
    setup.name_series();
    setup.append(0..10);
    setup.wal.truncate(5);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    assert_eq!(sender.status().gaps, []);
    let acknowledged = sender.status().acknowledged;
    assert!(sender.stop(MS(1000)).await);

    setup.append(10..20);
    setup.wal.truncate(15);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    let to = WalPosition { segment: 0, offset: 150 };
    assert_eq!(sender.status().gaps, [Gap { from: acknowledged, to }]);
    assert_eq!(setup.metric("almanac_federation_gap_total"), 1.0);
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_replaced_is_sent_from_its_begin() {
    let mut setup = Setup::new([]).await;
    setup.name_series();
    setup.append(0..30);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    assert!(sender.stop(MS(1000)).await);
    setup.wal = MemoryWal::default();
    setup.name_series();
    setup.append(30..40);
    let sender = setup.start(setup.config());
    let all = expected(0..40);
    let wait = async {
        while deduplicated(&setup.receiver.stored()).len() < all.len() {
            tokio::time::sleep(MS(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("sent");
    assert!(sender.stop(MS(1000)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_work_are_refused() {
    let setup = Setup::new([]).await;
    let start = |config: SenderConfig| {
        let source = Arc::new(setup.wal.clone());
        Sender::start(config, source, SystemClock::shared(), &setup.registry, &Handle::current())
    };
    let check = |change: fn(&mut SenderConfig), reason: &str| {
        let mut config = setup.config();
        change(&mut config);
        let e = start(config).expect_err(reason);
        assert!(e.to_string().contains(reason), "{e}");
    };
    check(|c| c.name.clear(), "needs a name");
    check(|c| c.url = "nonsense".into(), "nonsense");
    check(|c| c.queue.max_samples_per_send = 0, "above 0");
    check(|c| c.queue.min_shards = 100, "min_shards");
    check(|c| c.http.headers = vec![("a b".into(), "c".into())], "a b");
    check(|c| c.positions_dir = "/dev/null/x".into(), "/dev/null/x");
    let first = start(setup.config()).expect("starts");
    check(|_| {}, "metrics");
    assert!(first.stop(MS(100)).await);
    assert!(start(setup.config()).expect("starts again").stop(MS(100)).await);
    assert!(setup.wal.opened() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_that_the_log_forgot_are_forgotten() {
    let setup = Setup::new([]).await;
    setup.name_series();
    setup.append(0..5);
    let sender = setup.start(setup.config());
    setup.settled(&sender).await;
    assert_eq!(setup.wal.opened(), 1);
    for i in 0..150 {
        setup.wal.append(WalRecord::Series(vec![(SeriesRef(1000 + i), labels(1000 + i))]));
    }
    setup.wal.forget_series_from(1000);
    setup.append(5..300);
    setup.settled(&sender).await;
    assert!(setup.wal.opened() > 1);
    assert_eq!(deduplicated(&setup.receiver.stored()), expected(0..300));
    assert_eq!(setup.receiver.stored().len(), expected(0..300).len());
    assert_eq!(sender.status().gaps, []);
    assert!(sender.stop(MS(1000)).await);
}

/// A clock that runs a hundred times as fast, so that shards are planned ten times a second.
struct FastClock(SystemClock);

impl Clock for FastClock {
    fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * 100
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_while_the_number_of_shards_changes() {
    let setup = Setup::new([]).await;
    setup.receiver.state.lock().expect("sound").delay = MS(20);
    setup.name_series();
    let mut config = setup.config();
    config.queue.min_shards = 1;
    config.queue.max_shards = 5;
    let source = Arc::new(setup.wal.clone());
    let clock = Arc::new(FastClock(SystemClock::new()));
    let sender = Sender::start(config, source, clock, &setup.registry, &Handle::current()).expect("starts");
    let mut most = 0.0_f64;
    for i in 0..30 {
        setup.append(i * 10..i * 10 + 10);
        tokio::time::sleep(MS(100)).await;
        most = most.max(setup.metric("prometheus_remote_storage_shards"));
    }
    setup.settled(&sender).await;
    assert!(most > 1.0, "more shards were needed");
    assert_eq!(deduplicated(&setup.receiver.stored()), expected(0..300));
    assert_eq!(setup.receiver.stored().len(), expected(0..300).len());
    assert!(sender.stop(MS(1000)).await);
}
