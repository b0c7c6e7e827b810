//! The whole scraper against an exporter on the loopback interface.

use std::io::Write;
use std::time::Duration;

use model::SystemClock;
use model::relabel::{RelabelAction, RelabelRule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::config::{BasicAuth, Secret, SecretSource};
use crate::target_group::{GroupLabels, TargetGroup, TargetGroups};
use crate::test_store::TestStore;

/// What the exporter answers.
#[derive(Clone)]
enum Answer {
    Text(String),
    Gzip(Vec<u8>),
    Status(&'static str),
    Redirect(String),
    /// Headers, then bytes without end.
    Endless,
    /// Headers, then nothing.
    Slow,
}

struct Exporter {
    address: String,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Exporter {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let exporter = Self {
            address,
            answer: Arc::new(Mutex::new(answer)),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let (answer, requests, connections) =
            (exporter.answer.clone(), exporter.requests.clone(), exporter.connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock() += 1;
                tokio::spawn(serve(stream, answer.clone(), requests.clone()));
            }
        });
        exporter
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }
}

async fn serve(
    mut stream: tokio::net::TcpStream,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    let mut buf = [0; 4096];
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buf).await {
                Ok(n) if n > 0 => head.extend_from_slice(&buf[..n]),
                _ => return,
            }
        }
        requests.lock().push(String::from_utf8_lossy(&head).into_owned());
        head.clear();
        let answer = answer.lock().clone();
        let ok = |kind: &str, body: &[u8]| {
            let len = body.len();
            let mut out =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n{kind}Content-Length: {len}\r\n\r\n")
                    .into_bytes();
            out.extend_from_slice(body);
            out
        };
        let bytes = match &answer {
            Answer::Text(body) => ok("", body.as_bytes()),
            Answer::Gzip(body) => ok("Content-Encoding: gzip\r\n", body),
            Answer::Status(status) => format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes(),
            Answer::Redirect(to) => {
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
            }
            Answer::Slow | Answer::Endless => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99999999999\r\n\r\n".to_vec()
            }
        };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        match answer {
            Answer::Endless => while stream.write_all(&[b'#'; 4096]).await.is_ok() {},
            Answer::Slow => tokio::time::sleep(Duration::from_secs(3600)).await,
            _ => {}
        }
    }
}

struct Scene {
    store: TestStore,
    manager: ScrapeManager,
    groups: watch::Sender<TargetGroups>,
}

fn group(addresses: &[&str]) -> TargetGroups {
    let target = |a: &&str| GroupLabels::from_pairs([("__address__", *a), ("__meta_x", "m")]);
    let targets = addresses.iter().map(target).collect();
    Arc::new(vec![Arc::new(TargetGroup { source: "test".into(), targets, ..TargetGroup::default() })])
}

fn config() -> ScrapeConfig {
    ScrapeConfig {
        job_name: "j".into(),
        scrape_interval_ms: 100,
        scrape_timeout_ms: 80,
        ..ScrapeConfig::default()
    }
}

impl Scene {
    async fn start(config: ScrapeConfig, addresses: &[&str]) -> Self {
        Self::start_with(config, addresses, SystemClock::shared()).await
    }

    async fn start_with(config: ScrapeConfig, addresses: &[&str], clock: Arc<dyn Clock>) -> Self {
        let store = TestStore::new();
        let options = ScrapeOptions { discovery_reload_interval_ms: 10, ..ScrapeOptions::default() };
        let manager =
            ScrapeManager::new(Arc::new(store.clone()), clock, &prometheus::Registry::new(), options)
                .expect("metrics register");
        let (groups, received) = watch::channel(group(addresses));
        manager.apply(vec![(config, received)]).await.expect("valid");
        Self { store, manager, groups }
    }

    async fn apply(&self, config: ScrapeConfig) {
        self.manager.apply(vec![(config, self.groups.subscribe())]).await.expect("valid");
    }

    /// Waits until `ready` holds, ten seconds at most.
    async fn until(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if ready(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?} {:?}", self.manager.targets(), self.store.drain());
    }

    fn active(&self) -> Vec<ActiveTarget> {
        self.manager.targets().remove("j").unwrap_or_default().active
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.store.samples(name).into_iter().map(|(_, _, v)| v).collect()
    }

    async fn until_error(&self, text: &str) {
        self.until(text, |s| {
            s.active().iter().any(|t| t.health == TargetHealth::Down && t.last_error.contains(text))
        })
        .await;
        assert!(self.values("up").contains(&0.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_reports_and_ends_with_stale_markers() {
    let body = "# TYPE a counter\n# HELP a text\na 1\nb{x=\"1\"} 2\n";
    let e = Exporter::start(Answer::Text(body.into())).await;
    let s = Scene::start(config(), &[&e.address]).await;
    s.until("three scrapes", |s| s.values("a").len() >= 3).await;
    let (labels, _, _) = s.store.samples("b").remove(0);
    assert_eq!(labels.to_string(), format!("b{{instance=\"{}\", job=\"j\", x=\"1\"}}", e.address));
    for (name, value) in [
        ("up", 1.0),
        ("scrape_samples_scraped", 2.0),
        ("scrape_samples_post_metric_relabeling", 2.0),
        ("scrape_series_added", 2.0),
    ] {
        assert_eq!(s.values(name)[0], value, "{name}");
    }
    assert_eq!(s.values("scrape_series_added")[1], 0.0);
    let times: Vec<_> = s.store.samples("a").iter().map(|(_, t, _)| *t).collect();
    assert!(times.windows(2).all(|w| w[1] > w[0]), "{times:?}");
    let target = s.active().remove(0);
    assert_eq!((target.health, target.last_error.as_str()), (TargetHealth::Up, ""));
    assert_eq!(target.scrape_url, format!("http://{}/metrics", e.address));
    assert_eq!(target.discovered_labels.value("__meta_x"), "m");
    assert_eq!(target.discovered_labels.value("__scrape_interval__"), "100ms");
    let metadata = s.manager.metadata();
    assert_eq!((metadata[0].families[0].0.as_str(), &*metadata[0].families[0].1.help), ("a", "text"));
    let request = e.requests.lock()[0].to_ascii_lowercase();
    for header in [
        "get /metrics http/1.1",
        "accept-encoding: gzip",
        "x-prometheus-scrape-timeout-seconds: 0.08",
        "user-agent: almanac/",
        "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6",
    ] {
        assert!(request.contains(header), "{header} in {request}");
    }
    assert_eq!(*e.connections.lock(), 1, "the connection is kept");
    s.manager.stop().await;
    for name in ["a", "b", "up", "scrape_duration_seconds"] {
        assert!(s.values(name).last().is_some_and(|v| model::is_stale_nan(*v)), "{name}");
    }
    assert!(s.manager.targets().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_show_and_make_series_stale() {
    let e = Exporter::start(Answer::Text("a 1\n".into())).await;
    let mut c = config();
    c.body_size_limit = 1 << 20;
    let s = Scene::start(c, &[&e.address]).await;
    s.until("a scrape", |s| !s.values("a").is_empty()).await;
    e.answer(Answer::Status("503 Service Unavailable"));
    s.until_error("server returned HTTP status 503 Service Unavailable").await;
    assert!(s.values("a").last().is_some_and(|v| model::is_stale_nan(*v)));
    e.answer(Answer::Text("a one\n".into()));
    s.until_error("line 1: strconv.ParseFloat: parsing \"one\": invalid syntax").await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..64 {
        gzip.write_all(&[b'#'; 1 << 16]).expect("memory");
    }
    e.answer(Answer::Gzip(gzip.finish().expect("memory")));
    s.until_error("body size limit exceeded").await;
    e.answer(Answer::Text("a 1\n".into()));
    s.until("recovery", |s| s.active()[0].health == TargetHealth::Up).await;
    e.answer(Answer::Endless);
    s.until_error("body size limit exceeded").await;
    e.answer(Answer::Slow);
    s.until_error("context deadline exceeded").await;
    e.answer(Answer::Gzip(b"no gzip".to_vec()));
    s.until_error("gzip: ").await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"a 7\n").expect("memory");
    e.answer(Answer::Gzip(gzip.finish().expect("memory")));
    s.until("gzip is read", |s| s.values("a").last() == Some(&7.0)).await;
    s.manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_redirects_and_keeps_credentials_home() {
    let end = Exporter::start(Answer::Text("a 1\n".into())).await;
    // Another host by its name: ports do not count.
    let other_host = end.address.replace("127.0.0.1", "localhost");
    let e = Exporter::start(Answer::Redirect(format!("http://{}/there?x=1", other_host))).await;
    let mut c = config();
    c.http.basic_auth = Some(BasicAuth {
        username: SecretSource::Inline(Secret::new("user")),
        password: Some(SecretSource::Inline(Secret::new("pass"))),
    });
    c.params = vec![("p".into(), vec!["1".into(), "2 3".into()])];
    let s = Scene::start(c, &[&e.address]).await;
    s.until("a scrape", |s| !s.values("a").is_empty()).await;
    let (first, second) =
        (e.requests.lock()[0].to_ascii_lowercase(), end.requests.lock()[0].to_ascii_lowercase());
    assert!(first.starts_with("get /metrics?p=1&p=2+3 http"), "{first}");
    assert!(first.contains("authorization: basic dxnlcjpwyxnz"), "{first}");
    assert!(second.starts_with("get /there?x=1 http") && !second.contains("authorization"), "{second}");
    e.answer(Answer::Redirect("/again".into()));
    s.until_error("stopped after 10 redirects").await;
    s.manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_without_a_gap() {
    let e = Exporter::start(Answer::Text("a 1\nb 1\n".into())).await;
    let mut c = config();
    let s = Scene::start(c.clone(), &[&e.address]).await;
    s.until("two scrapes", |s| s.values("a").len() >= 2).await;
    // Nothing changed, then something that keeps the labels, then something that does not.
    s.apply(c.clone()).await;
    c.sample_limit = 100;
    s.apply(c.clone()).await;
    let n = s.values("a").len();
    s.until("two more", |s| s.values("a").len() >= n + 2).await;
    assert_eq!(*e.connections.lock(), 1, "jobs with the same HTTP settings share connections");
    c.metric_relabel_rules = vec![RelabelRule {
        source_labels: vec!["__name__".into()],
        regex: model::Regexp::new("b").expect("valid"),
        action: RelabelAction::Drop,
        ..RelabelRule::default()
    }];
    s.apply(c.clone()).await;
    let n = s.values("a").len();
    s.until("two more", |s| s.values("a").len() >= n + 2).await;
    assert!(s.values("a").iter().all(|v| *v == 1.0), "{:?}", s.values("a"));
    assert!(s.values("up").iter().all(|v| *v == 1.0));
    assert!(s.values("b").last().is_some_and(|v| model::is_stale_nan(*v)));
    let gaps: Vec<_> = s.store.samples("a").windows(2).map(|w| w[1].1 - w[0].1).collect();
    assert!(gaps.iter().all(|g| *g < 1000), "{gaps:?}");
    s.manager.apply(Vec::new()).await.expect("valid");
    assert!(s.values("a").last().is_some_and(|v| model::is_stale_nan(*v)));
    assert!(s.values("up").last().is_some_and(|v| model::is_stale_nan(*v)));
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_come_go_and_are_dropped() {
    let e = Exporter::start(Answer::Text("a 1\n".into())).await;
    let mut c = config();
    c.relabel_rules = vec![RelabelRule {
        source_labels: vec!["__address__".into()],
        regex: model::Regexp::new("drop.*").expect("valid"),
        action: RelabelAction::Drop,
        ..RelabelRule::default()
    }];
    c.keep_dropped_targets = 1;
    c.target_limit = 1;
    let other = Exporter::start(Answer::Text("a 1\n".into())).await;
    let addresses = [e.address.as_str(), &e.address, "drop1:1", "drop2:1", "no/host"];
    let s = Scene::start(c, &addresses).await;
    s.until("a scrape", |s| !s.values("a").is_empty()).await;
    let pool = s.manager.targets().remove("j").expect("the job");
    assert_eq!((pool.active.len(), pool.dropped.len(), pool.dropped_count), (1, 1, 2));
    s.groups.send(group(&[&e.address, &other.address])).expect("received");
    s.until_error("target_limit exceeded (number of targets: 2, limit: 1)").await;
    s.groups.send(group(&[&other.address])).expect("received");
    s.until("one target", |s| s.active().len() == 1 && s.active()[0].health == TargetHealth::Up).await;
    assert!(s.active()[0].scrape_url.contains(&other.address));
    let gone = s.store.samples("up").into_iter().rfind(|(l, _, _)| l.value("instance") == e.address);
    assert!(gone.is_some_and(|(_, _, v)| model::is_stale_nan(v)));
    s.manager.stop().await;
}

/// A clock that can be set.
struct SetClock {
    base: SystemClock,
    ahead_ms: std::sync::atomic::AtomicI64,
}

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.base.now_ms() + self.ahead_ms.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.base.monotonic()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_go_on_when_the_clock_jumps() {
    let e = Exporter::start(Answer::Text("a 1\n".into())).await;
    let clock = Arc::new(SetClock { base: SystemClock::new(), ahead_ms: 0.into() });
    let s = Scene::start_with(config(), &[&e.address], clock.clone()).await;
    for ahead_ms in [0, 3_600_000, -3_600_000, 50, 0] {
        clock.ahead_ms.store(ahead_ms, std::sync::atomic::Ordering::Relaxed);
        let (before, begun) = (e.requests.lock().len(), clock.monotonic());
        s.until("six scrapes", |_| e.requests.lock().len() >= before + 6).await;
        let made = e.requests.lock().len() - before;
        let took = clock.monotonic().saturating_sub(begun);
        // One for each planned time; beside them one that was under way, one that was late, one for the jump, and one
        // for the interval that has begun. On a busy machine a late one and the next in time lie close together.
        let planned = took.as_millis() as usize / config().scrape_interval_ms as usize;
        assert!(made <= planned + 4, "{ahead_ms}: {made} in {took:?}");
    }
    s.manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_during_a_scrape_lose_nothing() {
    let e = Exporter::start(Answer::Text("a 1\nb 1\n".into())).await;
    let mut c = config();
    (c.scrape_interval_ms, c.scrape_timeout_ms) = (300, 250);
    let s = Scene::start(c.clone(), &[&e.address]).await;
    s.until("two scrapes", |s| s.values("a").len() >= 2).await;
    e.answer(Answer::Slow);
    let n = e.requests.lock().len();
    s.until("a scrape hangs", |_| e.requests.lock().len() > n).await;
    // Each of these takes over from one that has not scraped yet; labels fit from one to the next, then no more.
    for regex in ["c", "b", "b"] {
        c.metric_relabel_rules = vec![RelabelRule {
            source_labels: vec!["__name__".into()],
            regex: model::Regexp::new(regex).expect("valid"),
            action: RelabelAction::Drop,
            ..RelabelRule::default()
        }];
        s.apply(c.clone()).await;
    }
    e.answer(Answer::Text("a 1\nb 1\n".into()));
    let n = s.values("a").len();
    s.until("two more", |s| s.values("a").len() >= n + 2).await;
    assert!(s.values("b").last().is_some_and(|v| model::is_stale_nan(*v)), "{:?}", s.values("b"));
    e.answer(Answer::Slow);
    let n = e.requests.lock().len();
    s.until("a scrape hangs", |_| e.requests.lock().len() > n).await;
    s.manager.stop().await;
    assert!(s.values("a").last().is_some_and(|v| model::is_stale_nan(*v)), "the end breaks a fetch off");
}

#[test]
fn refuses_what_contradicts_itself() {
    let mut c = config();
    c.scrape_timeout_ms = 1000;
    assert!(c.check().is_err());
    assert_eq!(format!("{:?} {}", Secret::new("x"), Secret::new("x")), "<secret> <secret>");
}
