//! Discovery of a large cluster: targets are right within a second, whatever the connection does, and how much memory
//! and CPU that takes.
//!
//! Small by default, as part of the tests. `CLUSTER_PODS`, `CLUSTER_NODES` and `CLUSTER_SECONDS` set the size;
//! `make bench-cluster` runs the large one in a release build. The cluster is simulated by [`api_server`] in a second
//! process of this program.

#![allow(clippy::print_stdout, reason = "a measurement prints what it measured; the child says its port")]

mod api_server;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use model::memory::MemoryStorage;
use model::regexp::Regexp;
use model::relabel::{RelabelAction, RelabelRule};
use model::{Clock, SystemClock};
use scraper::discovery::{DiscoveryConfig, DiscoveryManager, DiscoveryOptions, KubernetesConfig, Role};
use scraper::{ScrapeConfig, ScrapeManager, ScrapeOptions, TargetGroups};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The argument that makes this program the API server.
const SERVE: &str = "serve-kubernetes-api";
/// Longest time a change may take to arrive.
const DEADLINE: Duration = Duration::from_secs(1);
/// Memory that 50,000 pods may take, in proportion for fewer; only large runs are held to it.
const BYTES_PER_POD: u64 = 150_000_000 / 50_000;

/// How large the cluster is and how it behaves.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pods: usize,
    nodes: usize,
    seconds: u64,
    seed: u64,
    between_changes: Duration,
    /// Wake-ups after which a connection breaks at the latest.
    connection_life: u64,
    attach_node: bool,
}

impl Size {
    fn from_environment() -> Self {
        let number = |name: &str, default: u64| {
            std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let pods = number("CLUSTER_PODS", 400);
        // One in a hundred changes per minute; a small cluster changes faster, so that a short run sees something.
        let per_second = (pods as f64 / 100.0 / 60.0).max(20.0_f64.min(pods as f64));
        let per_second = if pods >= 5_000 { pods as f64 / 6_000.0 } else { per_second };
        Self {
            pods: pods as usize,
            nodes: number("CLUSTER_NODES", 40) as usize,
            seconds: number("CLUSTER_SECONDS", 3),
            seed: number("CLUSTER_SEED", 1),
            between_changes: Duration::from_secs_f64(1.0 / per_second),
            connection_life: 60,
            attach_node: number("CLUSTER_ATTACH_NODE", 0) > 0,
        }
    }

    fn large(&self) -> bool {
        self.pods >= 10_000
    }
}

struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut process = Command::new(program)
            .arg(SERVE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("piped")).read_line(&mut line).expect("the port");
        Self { port: line.trim().parse().expect("a port"), process }
    }

    fn get(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).expect("sent");
        stream
    }

    /// Pod, revision and whether it exists, as changes happen.
    fn changes(&self) -> Receiver<(usize, u32, bool)> {
        let stream = self.get("/changes");
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut words = line.split(' ');
                let (Some(pod), Some(revision), Some(exists)) = (words.next(), words.next(), words.next())
                else {
                    continue;
                };
                let (Ok(pod), Ok(revision)) = (pod.parse(), revision.parse()) else { continue };
                if sender.send((pod, revision, exists == "true")).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn main() {
    let size = Size::from_environment();
    if std::env::args().any(|argument| argument == SERVE) {
        return api_server::serve(size);
    }
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(run(size));
}

/// Resident bytes of this process and CPU seconds it used.
fn usage() -> (u64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (rss * 1024, (ticks(11) + ticks(12)) / 100.0)
}

/// The rules of a job that scrapes what is annotated, as charts write them.
fn rules() -> Vec<RelabelRule> {
    let rule = |action, sources: &[&str], regex: &str, target: &str, replacement: &str| RelabelRule {
        action,
        source_labels: sources.iter().map(|name| format!("__meta_kubernetes_{name}")).collect(),
        regex: Regexp::new(regex).expect("a valid expression"),
        target_label: target.into(),
        replacement: replacement.into(),
        ..RelabelRule::default()
    };
    use RelabelAction::{Drop, Keep, LabelMap, Replace};
    vec![
        rule(Keep, &["pod_annotation_prometheus_io_scrape"], "true", "", "$1"),
        rule(Keep, &["pod_container_port_name"], "metrics", "", "$1"),
        rule(Drop, &["pod_phase"], "Pending|Succeeded|Failed|Completed", "", "$1"),
        rule(Replace, &["pod_annotation_prometheus_io_path"], "(.+)", "__metrics_path__", "$1"),
        rule(LabelMap, &[], "__meta_kubernetes_pod_label_(.+)", "", "$1"),
        rule(Replace, &["namespace"], "(.*)", "namespace", "$1"),
        rule(Replace, &["pod_name"], "(.*)", "pod", "$1"),
        rule(Replace, &["pod_node_name"], "(.*)", "node", "$1"),
    ]
}

async fn run(size: Size) {
    let server = Server::start();
    let clock = SystemClock::shared();
    let registry = prometheus::Registry::new();
    let discovery = DiscoveryManager::new(Arc::clone(&clock), &registry, DiscoveryOptions::default())
        .expect("fresh metrics");
    let (rss_before, _) = usage();
    let begun = clock.monotonic();
    let config = |role| {
        let mut config = KubernetesConfig {
            api_server: Some(format!("http://127.0.0.1:{}", server.port)),
            ..KubernetesConfig::in_cluster(role)
        };
        config.attach_metadata.node = size.attach_node && role == Role::Pod;
        vec![DiscoveryConfig::Kubernetes(config)]
    };
    let jobs = vec![("pods".to_owned(), config(Role::Pod)), ("nodes".to_owned(), config(Role::Node))];
    let mut receivers = discovery.apply(jobs);
    let mut nodes = receivers.remove(1).1;
    let mut pods = receivers.remove(0).1;
    let all = |n: usize| move |groups: &TargetGroups| groups.len() == n;
    pods.wait_for(all(size.pods)).await.expect("discovery runs");
    nodes.wait_for(all(size.nodes)).await.expect("discovery runs");
    let found_after = clock.monotonic().saturating_sub(begun);
    // Memory that was only needed for the list goes back to the system after a while.
    let settle = if size.large() { 12 } else { 0 };
    tokio::time::sleep(Duration::from_secs(settle)).await;
    let (rss_found, cpu_found) = usage();

    // A year between two scrapes: the loops are there and idle.
    let scraping = ScrapeManager::new(
        Arc::new(MemoryStorage::new()),
        Arc::clone(&clock),
        &registry,
        ScrapeOptions { discovery_reload_interval_ms: 200, ..ScrapeOptions::default() },
    )
    .expect("fresh metrics");
    let job = ScrapeConfig {
        job_name: "pods".into(),
        scrape_interval_ms: 365 * 24 * 3_600_000,
        relabel_rules: rules(),
        ..ScrapeConfig::default()
    };
    scraping.apply(vec![(job, pods.clone())]).await.expect("a valid job");
    wait_for_targets(&registry, size.pods).await;
    tokio::time::sleep(Duration::from_secs(settle)).await;
    let (rss_targets, cpu_targets) = usage();

    let follow_begun = clock.monotonic();
    let delays = follow(&server, &pods, &*clock, size).await;
    let (rss_after, cpu_after) = usage();
    let seconds = clock.monotonic().saturating_sub(follow_begun).as_secs_f64();
    let mb = |bytes: u64| bytes.saturating_sub(rss_before) as f64 / 1e6;
    eprintln!(
        "{} pods, {} nodes: found after {:.1} s and {:.1} s CPU, {:.0} MB; with {} targets and idle loops {:.0} MB, {:.1} s CPU; \
         {} changes in {:.0} s at {:.3} cores, {:.0} MB; delay p50 {:?}, p99 {:?}, greatest {:?}",
        size.pods,
        size.nodes,
        found_after.as_secs_f64(),
        cpu_found,
        mb(rss_found),
        size.pods,
        mb(rss_targets),
        cpu_targets - cpu_found,
        delays.len(),
        seconds,
        (cpu_after - cpu_targets) / seconds,
        mb(rss_after),
        percentile(&delays, 50),
        percentile(&delays, 99),
        delays.last().copied().unwrap_or_default(),
    );
    if size.large() {
        let limit = BYTES_PER_POD * size.pods as u64;
        assert!(rss_found.saturating_sub(rss_before) <= limit, "more than {limit} bytes");
    }
    expire(&server, &mut pods, size, &*clock).await;
    scraping.stop().await;
}

/// Asks the metric, not the list of targets: writing that list takes more memory than having it.
async fn wait_for_targets(registry: &prometheus::Registry, expect: usize) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let families = registry.gather();
        let targets = families.iter().find(|family| family.name() == "prometheus_target_scrape_pool_targets");
        let targets = targets.and_then(|family| family.get_metric().first());
        if targets.is_some_and(|metric| metric.get_gauge().get_value() == expect as f64) {
            return;
        }
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// The address that the list has for a pod.
fn address_of(groups: &TargetGroups, pod: usize) -> Option<String> {
    let source = format!("pod/{}", api_server::pod_key(pod));
    let at = groups.binary_search_by(|group| (*group.source).cmp(&source)).ok()?;
    groups[at].targets.first()?.get("__address__").map(str::to_owned)
}

fn is_right(groups: &TargetGroups, pod: usize, revision: u32) -> bool {
    let wanted = api_server::exists(revision).then(|| format!("{}:8080", api_server::pod_ip(pod, revision)));
    address_of(groups, pod) == wanted
}

/// Watches changes arrive; how long each took, sorted.
async fn follow(
    server: &Server,
    pods: &scraper::TargetGroupReceiver,
    clock: &dyn Clock,
    size: Size,
) -> Vec<Duration> {
    let changes = server.changes();
    let end = clock.monotonic() + Duration::from_secs(size.seconds);
    let mut open: HashMap<usize, (u32, Duration)> = HashMap::new();
    let mut delays = Vec::new();
    // Machines that run tests are busy with other tests too.
    let deadline = if size.large() { DEADLINE } else { 10 * DEADLINE };
    loop {
        let now = clock.monotonic();
        if now < end {
            for (pod, revision, _) in changes.try_iter() {
                open.insert(pod, (revision, now));
            }
        } else if open.is_empty() {
            break;
        }
        let groups = pods.borrow().clone();
        open.retain(|pod, (revision, since)| {
            let right = is_right(&groups, *pod, *revision);
            let delay = now.saturating_sub(*since);
            if right {
                delays.push(delay);
            }
            assert!(right || delay <= deadline, "pod {pod} is wrong for {delay:?}; seed {}", size.seed);
            !right
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!delays.is_empty(), "nothing changed");
    delays.sort();
    delays
}

/// All versions expire, so that everything is listed again: no target may vanish meanwhile.
async fn expire(server: &Server, pods: &mut scraper::TargetGroupReceiver, size: Size, clock: &dyn Clock) {
    let before = pods.borrow_and_update().clone();
    let begun = clock.monotonic();
    let mut stream = server.get("/expire");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let watched = Duration::from_secs(if size.large() { 20 } else { 1 });
    while clock.monotonic().saturating_sub(begun) < watched {
        let now = pods.borrow().clone();
        assert!(now.len() + 100 >= before.len(), "{} of {} groups", now.len(), before.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (rss, _) = usage();
    eprintln!("after a new list: {:.0} MB resident in all", rss as f64 / 1e6);
}
