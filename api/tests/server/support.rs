//! A server over a store in memory, sources that say fixed things, and a plain HTTP client.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{
    ActiveTarget, AdminSource, Alert, AlertingRule, ApiConfig, BuildInfo, Cardinality, Deps, DroppedTarget,
    ExemplarSource, Growing, JobCardinality, Lifecycle, Readiness, ReadyState, Rule, RuleGroup, RulesSource,
    RuntimeInfo, Server, SoftLimit, StatusSource, TargetHealth, TargetsSource, TsdbStatus, WalReplayStatus,
};
use model::clock::ManualClock;
use model::memory::MemoryStorage;
use model::{
    Chunk, ChunkCodec, ChunkEncoding, Exemplar, Labels, Matcher, Metadata, MetricType, Sample, Samples,
    StorageError,
};

/// What the clock of the tests shows: 2024-01-01T00:00:00Z.
pub(crate) const NOW_MS: i64 = 1_704_067_200_000;

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) store: MemoryStorage,
    pub(crate) readiness: Readiness,
    pub(crate) fixed: Arc<Fixed>,
    pub(crate) clock: Arc<ManualClock>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A server with the given changes to settings and sources.
pub(crate) fn start_with(change: impl FnOnce(&mut ApiConfig, &mut Deps)) -> TestServer {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let registry = prometheus::Registry::new();
    let store = MemoryStorage::new();
    let fixed = Arc::new(Fixed::default());
    let readiness = Readiness::new();
    readiness.set(ReadyState::Ready);
    let engine = promql::Engine::new(promql::EngineConfig::default(), clock.clone(), &registry);
    let mut deps = Deps {
        clock: clock.clone(),
        registry: registry.clone(),
        engine: Arc::new(engine),
        queryable: Arc::new(store.clone()),
        local_queryable: Arc::new(store.clone()),
        encode_chunks: plain_chunks,
        appendable: Some(Arc::new(store.clone())),
        otlp: api::OtlpSettings::default(),
        targets: fixed.clone(),
        status: fixed.clone(),
        rules: Some(fixed.clone()),
        exemplars: Some(fixed.clone()),
        admin: Some(fixed.clone()),
        longterm: None,
        lifecycle: fixed.clone(),
        readiness: readiness.clone(),
        tracer: model::trace::Tracer::default(),
    };
    let mut config = ApiConfig {
        listen_addresses: vec!["127.0.0.1:0".into()],
        enable_lifecycle: true,
        enable_admin_api: true,
        enable_remote_write_receiver: true,
        enable_otlp_receiver: true,
        ..ApiConfig::default()
    };
    change(&mut config, &mut deps);
    let (addr_tx, addr_rx) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("runtime").block_on(async {
            let server = Server::bind(config, deps).await.expect("a free port");
            addr_tx.send(server.local_addrs()[0]).expect("the test waits");
            server.run(async { drop(stopped.await) }).await;
        });
    });
    let addr = addr_rx.recv_timeout(Duration::from_secs(20)).expect("the server starts");
    TestServer { addr, store, readiness, fixed, clock, stop: Some(stop), thread: Some(thread) }
}

/// A server with everything switched on, and some data.
pub(crate) fn start() -> TestServer {
    let server = start_with(|_, _| {});
    server.fill();
    server
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server ends well");
        }
    }
}

impl TestServer {
    fn fill(&self) {
        for (instance, value) in [("a:1", 1.0), ("b:2", 0.0)] {
            let up = labels(&[("__name__", "up"), ("instance", instance), ("job", "node")]);
            for minute in -10..=0 {
                self.store.insert(&up, Sample::float(NOW_MS + minute * 60_000, value));
            }
        }
        let odd = labels(&[("__name__", "temp_celsius"), ("http.status", "<200>"), ("site", "é\"")]);
        self.store.insert(&odd, Sample::float(NOW_MS - 500, 21.5));
    }

    /// Stops the server and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends well");
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post_form(&self, path: &str, form: &str) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes())
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (n, v) in headers {
            text.push_str(&format!("{n}: {v}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        // A server may answer and close before it has read a body that is too large.
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(body));
        read_answer(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        stream
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }
}

pub(crate) fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all);
    let at = all.windows(4).position(|w| w == b"\r\n\r\n");
    let at = at.unwrap_or_else(|| panic!("no head in {:?} ({end:?})", String::from_utf8_lossy(&all)));
    let head = String::from_utf8(all[..at].to_vec()).expect("ASCII head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let mut body = all[at + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = dechunk(&body);
    }
    Answer { status, head, body }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").expect("a chunk length");
        let len = std::str::from_utf8(&rest[..line]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
        let len = len.expect("a hexadecimal length");
        if len == 0 {
            return out;
        }
        out.extend_from_slice(&rest[line + 2..line + 2 + len]);
        rest = &rest[line + 4 + len..];
    }
}

/// Percent-encodes a parameter.
pub(crate) fn enc(s: &str) -> String {
    s.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Sources that say fixed things and remember what was asked of them.
#[derive(Default)]
pub(crate) struct Fixed {
    pub(crate) reloads: AtomicUsize,
    pub(crate) reload_fails: AtomicBool,
    pub(crate) quits: AtomicUsize,
    pub(crate) external: Mutex<Vec<(&'static str, &'static str)>>,
    pub(crate) deleted: Mutex<Vec<String>>,
}

impl Lifecycle for Fixed {
    fn reload(&self) -> Result<(), String> {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        if self.reload_fails.load(Ordering::SeqCst) { Err("line 3: no such field".into()) } else { Ok(()) }
    }

    fn quit(&self) {
        self.quits.fetch_add(1, Ordering::SeqCst);
    }
}

impl TargetsSource for Fixed {
    fn cardinality(&self, limit: usize) -> Cardinality {
        let growing = |name: &str, values| Growing { name: name.into(), new: 5, refused: 3, values };
        let used = |limit, reserve| SoftLimit { limit, reserve, current: 7 };
        let job = JobCardinality {
            job: "node".into(),
            limit: used(6, 1),
            refused: 2,
            refused_total: vec![("job_limit", 3)],
            new_in_last_hour: 9,
            window_seconds: 60,
            metrics: vec![growing("m", None); limit],
            labels: vec![growing("path", Some(4)); limit],
        };
        Cardinality { server: used(0, 0), jobs: vec![job] }
    }

    fn active(&self) -> Vec<ActiveTarget> {
        vec![
            ActiveTarget {
                scrape_pool: "node".into(),
                discovered_labels: labels(&[("__address__", "a:1")]),
                labels: labels(&[("instance", "a:1"), ("job", "node")]),
                scrape_url: "http://a:1/metrics".into(),
                last_scrape_ms: Some(NOW_MS - 1500),
                last_scrape_seconds: 0.25,
                health: TargetHealth::Up,
                scrape_interval: "15s".into(),
                scrape_timeout: "10s".into(),
                ..ActiveTarget::default()
            },
            ActiveTarget {
                scrape_pool: "app".into(),
                labels: labels(&[("instance", "c:3"), ("job", "app")]),
                scrape_url: "http://localhost:3/metrics".into(),
                last_error: "connection refused".into(),
                health: TargetHealth::Down,
                scrape_interval: "1m".into(),
                scrape_timeout: "10s".into(),
                ..ActiveTarget::default()
            },
        ]
    }

    fn dropped(&self) -> Vec<DroppedTarget> {
        vec![DroppedTarget {
            scrape_pool: "node".into(),
            discovered_labels: labels(&[("__address__", "z:9")]),
        }]
    }

    fn dropped_counts(&self) -> BTreeMap<String, usize> {
        BTreeMap::from([("node".into(), 1), ("app".into(), 0)])
    }

    fn scrape_pools(&self) -> Vec<String> {
        vec!["node".into(), "app".into()]
    }

    fn scrape_pool_config(&self, pool: &str) -> Option<String> {
        (pool == "node").then(|| "job_name: node\n".into())
    }

    fn metadata(&self, metric: &str, visit: &mut dyn FnMut(&Labels, &str, &Metadata) -> bool) {
        let node = labels(&[("instance", "a:1"), ("job", "node")]);
        let app = labels(&[("instance", "c:3"), ("job", "app")]);
        let m = |metric_type, help: &str| Metadata { metric_type, unit: "".into(), help: help.into() };
        for (target, family, meta) in [
            (&node, "requests", m(MetricType::Counter, "Requests < 1")),
            (&node, "temp_celsius", m(MetricType::Gauge, "Temperature")),
            (&app, "requests", m(MetricType::Counter, "All requests")),
        ] {
            if (metric.is_empty() || metric == family) && !visit(target, family, &meta) {
                return;
            }
        }
    }
}

impl StatusSource for Fixed {
    fn build_info(&self) -> BuildInfo {
        BuildInfo {
            version: "3.14.0".into(),
            revision: "abc".into(),
            branch: "main".into(),
            build_user: "u@h".into(),
            build_date: "20240101".into(),
            toolchain: "rustc 1.95".into(),
        }
    }

    fn config_yaml(&self) -> String {
        "global:\n  scrape_interval: 15s\n".into()
    }

    fn flags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("web.page-title".into(), "a & b".into()), ("config.file".into(), "p.yml".into())])
    }

    fn runtime_info(&self) -> RuntimeInfo {
        RuntimeInfo {
            start_time_ms: NOW_MS - 60_000,
            cwd: "/".into(),
            hostname: "h".into(),
            reload_config_success: true,
            last_config_time_ms: NOW_MS - 60_000,
            corruption_count: 0,
            task_count: 7,
            worker_threads: 2,
            memory_limit_bytes: i64::MAX,
            storage_retention: "15d".into(),
        }
    }

    fn tsdb_status(&self, _limit: usize) -> Result<TsdbStatus, StorageError> {
        Ok(TsdbStatus {
            num_series: 3,
            num_label_pairs: 5,
            chunk_count: 9,
            min_time_ms: NOW_MS - 600_000,
            max_time_ms: NOW_MS,
            series_count_by_metric_name: vec![("up".into(), 2), ("temp_celsius".into(), 1)],
            ..TsdbStatus::default()
        })
    }

    fn wal_replay(&self) -> WalReplayStatus {
        WalReplayStatus { min: 1, max: 4, current: 3 }
    }

    fn external_labels(&self) -> Labels {
        Labels::from_pairs(self.external.lock().expect("not poisoned").iter().copied())
    }
}

impl RulesSource for Fixed {
    fn groups(&self) -> Vec<RuleGroup> {
        let recording = Rule {
            name: "job:up:sum".into(),
            query: "sum by (job) (up)".into(),
            health: "ok".into(),
            evaluation_seconds: 0.001,
            last_evaluation_ms: Some(NOW_MS),
            ..Rule::default()
        };
        let alert = Alert {
            labels: labels(&[("alertname", "Down"), ("instance", "b:2")]),
            annotations: labels(&[("summary", "b:2 is down")]),
            state: "firing".into(),
            active_at_ms: NOW_MS - 60_000,
            keep_firing_since_ms: None,
            value: 0.0,
        };
        let alerting = Rule {
            name: "Down".into(),
            query: "up == 0".into(),
            labels: labels(&[("severity", "page")]),
            health: "ok".into(),
            alerting: Some(AlertingRule {
                state: "firing".into(),
                hold_seconds: 60.0,
                alerts: vec![alert],
                ..AlertingRule::default()
            }),
            ..Rule::default()
        };
        let group = |name: &str, rules| RuleGroup {
            name: name.into(),
            file: "r.yml".into(),
            interval_seconds: 15.0,
            rules,
            last_evaluation_ms: Some(NOW_MS),
            ..RuleGroup::default()
        };
        vec![group("g1", vec![recording]), group("g2", vec![alerting])]
    }

    fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        (vec!["http://am:9093/api/v2/alerts".into()], Vec::new())
    }
}

impl ExemplarSource for Fixed {
    fn select(
        &self,
        _mint: i64,
        _maxt: i64,
        matchers: &[Vec<Matcher>],
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError> {
        let series = labels(&[("__name__", "up"), ("job", "node")]);
        if !matchers.iter().any(|m| Matcher::all_match(m, &series)) {
            return Ok(Vec::new());
        }
        let exemplar =
            Exemplar { labels: labels(&[("trace_id", "t1")]), value: 6.0, timestamp_ms: Some(NOW_MS - 21) };
        Ok(vec![(series, vec![exemplar])])
    }
}

impl AdminSource for Fixed {
    fn count_series(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<(u64, u64), StorageError> {
        Ok((sets.len() as u64, (maxt - mint) as u64))
    }

    fn delete_series(&self, mint: i64, maxt: i64, matchers: &[Matcher]) -> Result<(), StorageError> {
        let text: Vec<_> = matchers.iter().map(Matcher::to_string).collect();
        self.deleted.lock().expect("not poisoned").push(format!("{mint}..{maxt} {}", text.join(",")));
        Ok(())
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        if skip_head {
            return Err(StorageError::Unsupported("snapshot without the head".into()));
        }
        Ok("20240101T000000Z-1".into())
    }
}

/// Chunks as a test reads them: three samples each, timestamp and value as they lie in memory. They pass for XOR chunks.
pub(crate) struct PlainCodec;

impl ChunkCodec for PlainCodec {
    fn encoding(&self) -> ChunkEncoding {
        ChunkEncoding::XOR
    }

    fn decode(&self, bytes: &[u8], _: i64, _: i64, out: &mut Samples) -> Result<(), StorageError> {
        for sample in bytes.chunks_exact(16) {
            let (t, v) = sample.split_at(8);
            out.push_float(
                i64::from_be_bytes(t.try_into().expect("eight bytes")),
                f64::from_be_bytes(v.try_into().expect("eight bytes")),
            );
        }
        Ok(())
    }
}

fn plain_chunks(samples: &Samples) -> Vec<Chunk> {
    let all: Vec<_> = samples.timestamps_ms.iter().zip(&samples.values).collect();
    let chunk = |some: &[(&i64, &f64)]| {
        let bytes: Vec<u8> =
            some.iter().flat_map(|(t, v)| [t.to_be_bytes(), v.to_be_bytes()].concat()).collect();
        Chunk::encoded(&PlainCodec, bytes.into(), *some[0].0, *some[some.len() - 1].0)
    };
    all.chunks(3).map(chunk).collect()
}
