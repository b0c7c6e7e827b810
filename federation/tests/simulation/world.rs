//! A scraper node's store and sender, a network and a receiver, on simulated time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use federation::backlog::LocalStore;
use federation::config::SenderConfig;
use federation::sender::{RemoteSide, Sender, SenderHandle, SenderParts};
use model::chunk::decode_chunks;
use model::storage::{SeriesRef, WalSource};
use model::{
    AppendError, Appendable, Clock, Labels, Matcher, Querier, Queryable, Sample, SampleValue, Samples,
    SelectHints, StorageError,
};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tsdb::Db;

use crate::network::{Network, Weather};
use crate::receiver::{Contents, Receiver, bits};

/// When simulations begin: 2026-01-01.
pub(crate) const BEGIN_MS: i64 = 1_767_225_600_000;
/// Length of a block.
const BLOCK_MS: i64 = 2 * 3600 * 1000;

/// The paused clock of the runtime, as one node has it: the time of day may be set, what has passed may not.
pub(crate) struct SimClock {
    begin: Instant,
    runtime: Handle,
    ahead_ms: AtomicI64,
}

impl SimClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), runtime: Handle::current(), ahead_ms: AtomicI64::new(0) })
    }

    /// Sets the time of day, to so much ahead of the true one.
    pub(crate) fn set_ahead(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        BEGIN_MS + self.monotonic().as_millis() as i64 + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        // Threads of the stores ask too.
        let _inside = self.runtime.enter();
        Instant::now().duration_since(self.begin)
    }
}

/// The local store as a source of history.
#[derive(Clone)]
pub(crate) struct Local(pub(crate) Arc<Db>);

impl Queryable for Local {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.0.querier(mint, maxt)
    }
}

impl LocalStore for Local {
    fn min_time(&self) -> Option<i64> {
        self.0.min_time()
    }
}

/// The receiver's store, whichever process it is.
struct Remote(Arc<Receiver>);

impl Queryable for Remote {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.0.store().querier(mint, maxt)
    }
}

/// A folder for a store, in memory where there is room for that: nobody takes power away here, and waiting for a disk would take most
/// of the time.
pub(crate) fn folder() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).expect("temporary directory")
}

/// Everything.
pub(crate) struct World {
    pub(crate) clock: Arc<SimClock>,
    /// The long-term node's.
    pub(crate) longterm_clock: Arc<SimClock>,
    dir: tempfile::TempDir,
    db: Option<Arc<Db>>,
    sender: Option<SenderHandle>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) network: Arc<Network>,
    /// All samples ever committed locally.
    pub(crate) local: Contents,
    pub(crate) config: SenderConfig,
    /// Whether the audit may see losses that only time mends.
    pub(crate) is_patient: bool,
    pub(crate) registry: prometheus::Registry,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let clock = SimClock::new();
        let dir = folder();
        let longterm_clock = SimClock::new();
        let receiver = Receiver::new(longterm_clock.clone());
        let network = Network::new(receiver.clone(), seed);
        let tag = vec![vec![Matcher::not_equal("longterm", "")]];
        let mut config = SenderConfig::longterm("lt", "http://lt/api/v1/write", dir.path().join("rw"), tag);
        config.external_labels = Labels::from_pairs([("cluster", "c")]);
        config.queue.poll_interval = Duration::from_millis(500);
        config.queue.capacity = 400;
        config.queue.max_samples_per_send = 200;
        config.backlog.batch_samples = 500;
        config.audit_interval = Duration::from_secs(60);
        let mut this = Self {
            clock,
            longterm_clock,
            dir,
            db: None,
            sender: None,
            receiver,
            network,
            local: Contents::new(),
            config,
            is_patient: false,
            registry: prometheus::Registry::new(),
        };
        this.start();
        this
    }

    /// Starts the scraper node.
    pub(crate) fn start(&mut self) {
        let config = tsdb::Config {
            wal_segment_bytes: 32 << 10,
            wal_hold_max_bytes: 32 << 10,
            retention_ms: 30 * 86_400_000,
            ..tsdb::Config::new(self.dir.path().join("tsdb"))
        };
        let db = Db::open(config, self.clock.clone(), &prometheus::Registry::new()).expect("opens");
        self.registry = prometheus::Registry::new();
        let remote = Arc::new(Remote(self.receiver.clone()));
        let parts = SenderParts {
            source: db.clone(),
            local: Some(Arc::new(Local(db.clone()))),
            remote: Some(RemoteSide { digests: remote.clone(), samples: remote }),
            transport: Some(self.network.clone()),
            clock: self.clock.clone(),
            registry: self.registry.clone(),
            runtime: Handle::current(),
            tracer: model::trace::Tracer::default(),
        };
        self.sender = Some(Sender::start_with(self.config.clone(), parts).expect("starts"));
        self.db = Some(db);
    }

    /// The scraper node ends without a word.
    pub(crate) async fn kill(&mut self) {
        drop(self.sender.take());
        let db = self.db.take().expect("it runs");
        // What the sender had begun ends soon; the directory is free then.
        while Arc::strong_count(&db) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(db);
    }

    /// The scraper node ends in order, with other settings next time.
    pub(crate) async fn stop(&mut self) {
        let sender = self.sender.take().expect("it runs");
        sender.stop(Duration::from_secs(1)).await;
        self.kill().await;
    }

    pub(crate) fn db(&self) -> Arc<Db> {
        self.db.clone().expect("it runs")
    }

    pub(crate) fn sender(&self) -> &SenderHandle {
        self.sender.as_ref().expect("it runs")
    }

    /// Commits one scrape.
    pub(crate) fn scrape(&mut self, samples: &[(Labels, f64)]) {
        let samples: Vec<_> = samples.iter().map(|(l, v)| (l.clone(), SampleValue::Float(*v))).collect();
        self.scrape_values(&samples);
    }

    /// [`World::scrape`] of any values. What is older than what is there, after the clock was set back, is not taken.
    pub(crate) fn scrape_values(&mut self, samples: &[(Labels, SampleValue)]) {
        let timestamp_ms = self.clock.now_ms();
        let mut appender = self.db().appender().expect("it runs");
        for (labels, value) in samples {
            let sample = Sample { timestamp_ms, start_timestamp_ms: 0, value: value.clone() };
            match appender.append(SeriesRef::NONE, labels, sample.clone()) {
                Ok(_) => {
                    self.local.entry(labels.clone()).or_default().insert(timestamp_ms, bits(&sample));
                }
                Err(AppendError::OutOfOrder | AppendError::OutOfBounds | AppendError::TooOld) => {}
                Err(AppendError::DuplicateTimestamp) => {}
                Err(e) => panic!("{labels}: {e}"),
            }
        }
        appender.commit().expect("commits");
    }

    /// The disk with the sender's state is full: nothing can be made in its directory, what is there stays.
    pub(crate) fn set_state_full(&mut self, full: bool) {
        let (dir, aside) = (self.config.positions_dir.clone(), self.dir.path().join("aside"));
        if full && !aside.exists() {
            std::fs::rename(&dir, &aside).expect("moved");
            std::fs::write(&dir, "").expect("written");
        } else if !full && aside.exists() {
            std::fs::remove_file(&dir).expect("removed");
            std::fs::rename(&aside, &dir).expect("moved back");
        }
    }

    /// Time of the newest local sample.
    pub(crate) fn newest_ms(&self) -> i64 {
        self.local.values().filter_map(|m| m.keys().next_back()).copied().max().unwrap_or(BEGIN_MS)
    }

    pub(crate) fn maintain(&self) {
        self.db().maintain().expect("maintains");
    }

    pub(crate) fn clock_now(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until everything is acknowledged, the backlog is empty and the audit has come to `until`.
    pub(crate) async fn settle(&self, until: i64, what: &str) {
        let give_up = Instant::now() + Duration::from_secs(2 * 86_400);
        loop {
            let status = self.sender().status();
            let backlog = self.sender().backlog().expect("there is one").status();
            let sent = status.acknowledged >= self.db().end();
            let repaired = self.metric("almanac_longterm_audit_unrepaired") == 0.0;
            if sent
                && repaired
                && backlog.ranges.is_empty()
                && backlog.verified_until_ms.is_some_and(|t| t >= until)
            {
                return;
            }
            if !self.is_patient && self.metric("almanac_longterm_audit_unrepaired") > 0.0 {
                let found = contents(&*self.receiver.store());
                assert_same(&found, &self.expected(), &format!("{what}: cannot be repaired"));
                panic!("{what}: the audit sees a loss where there is none");
            }
            if Instant::now() > give_up {
                let found = contents(&*self.receiver.store());
                assert_same(&found, &self.expected(), &format!("{what}: does not settle"));
                panic!("{what}: does not settle, though nothing is missing: {status:?} {backlog:?}");
            }
            self.sleep(Duration::from_secs(20)).await;
        }
    }

    /// What must be in the long-term node: what was tagged, and the history from before the tag.
    pub(crate) fn expected(&self) -> Contents {
        let mut out = Contents::new();
        for (labels, samples) in &self.local {
            if !labels.contains("longterm") {
                continue;
            }
            let named = Labels::from_pairs(labels.iter().chain([("cluster", "c")]));
            let all: &mut BTreeMap<i64, u64> = out.entry(named).or_default();
            if let Some(before) = self.local.get(&labels.without(&["longterm"])) {
                all.extend(before);
            }
            // Its own samples win.
            all.extend(samples);
        }
        out
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let all = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
        all.map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }

    /// Fair weather from now on.
    pub(crate) fn heal(&self) {
        self.network.set(Weather::Fine);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.network.requests.load(Ordering::Relaxed)
    }
}

/// Everything in a store.
pub(crate) fn contents(store: &dyn Queryable) -> Contents {
    let querier = store.querier(0, i64::MAX).expect("opens");
    let mut set = querier.select(&[], &SelectHints::default()).expect("selects");
    let (mut out, mut samples) = (Contents::new(), Samples::new());
    while let Some(series) = set.next().expect("readable") {
        decode_chunks(&series.chunks, 0, i64::MAX, &mut samples).expect("decodes");
        let mut last = i64::MIN;
        for s in samples.iter() {
            assert!(s.timestamp_ms > last, "{} has {} after {last}", series.labels, s.timestamp_ms);
            last = s.timestamp_ms;
        }
        let samples = samples.iter().map(|s| (s.timestamp_ms, bits(&s))).collect();
        let twice = out.insert(series.labels.clone(), samples);
        assert!(twice.is_none(), "{} is there twice", series.labels);
    }
    out
}

/// Fails with the first differences of two contents.
pub(crate) fn assert_same(found: &Contents, expected: &Contents, what: &str) {
    if found == expected {
        return;
    }
    let mut differences = Vec::new();
    for labels in found.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (f, e) = (found.get(labels), expected.get(labels));
        let times: std::collections::BTreeSet<&i64> = f.into_iter().chain(e).flat_map(|m| m.keys()).collect();
        for t in times {
            let (f, e) = (f.and_then(|m| m.get(t)), e.and_then(|m| m.get(t)));
            if f != e {
                differences.push(format!("{labels} at {}: found {f:x?}, expected {e:x?}", t - BEGIN_MS));
            }
        }
    }
    let n = differences.len();
    panic!("{what}: {n} differences, first: {:#?}", &differences[..n.min(10)]);
}

const _: () = assert!(BEGIN_MS % BLOCK_MS == 0);
