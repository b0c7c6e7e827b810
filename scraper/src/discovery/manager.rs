//! Runs one provider per distinct configuration and one publisher per job.
//!
//! [`DiscoveryManager::apply`] is start and reload. A provider whose configuration is still asked for keeps running;
//! others are stopped. A publisher waits for its providers, lets changes gather for the debounce time and replaces the
//! job's list. A job whose providers were replaced keeps its old list until each new one has seen its source once, or
//! [`HOLD`] has passed, so that a changed setting does not make targets vanish for a moment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::DiscoveryConfig;
use super::error::DiscoveryError;
use super::kubernetes::Clusters;
use super::metrics::Metrics;
use super::sink::GroupSink;
use super::{consul, dns, file, http_sd, kubernetes};
use crate::target_group::{TargetGroup, TargetGroupReceiver, TargetGroups};

/// How long a reloaded job waits for its new providers before it gives up its old targets.
const HOLD: Duration = Duration::from_secs(10);

/// One part in this many of a publisher's time is for publishing, however often something changes.
const PUBLISH_SHARE: u32 = 50;
/// Longest pause after publishing, so that changes arrive within a second.
const PUBLISH_PAUSE_MAX: Duration = Duration::from_millis(400);

/// How often [`DiscoveryManager::settled`] looks.
const SETTLED_POLL: Duration = Duration::from_millis(20);

/// Settings that do not come from the configuration file.
#[derive(Clone, Debug)]
pub struct DiscoveryOptions {
    /// Label `name` of the metrics: what the targets are for.
    pub name: String,
    /// How long changes gather before the job hears of them.
    pub debounce_ms: u64,
    /// How often files are looked at for changes.
    pub file_poll_ms: u64,
    /// `User-Agent` towards URLs and API servers.
    pub user_agent: String,
    /// Names the DNS servers.
    pub resolv_conf: PathBuf,
    /// Port of the DNS servers.
    pub dns_port: u16,
}

impl Default for DiscoveryOptions {
    fn default() -> Self {
        Self {
            name: "scrape".into(),
            debounce_ms: 50,
            file_poll_ms: 500,
            user_agent: concat!("almanac/", env!("CARGO_PKG_VERSION")).into(),
            resolv_conf: "/etc/resolv.conf".into(),
            dns_port: 53,
        }
    }
}

/// What every provider is given.
#[derive(Clone)]
pub(super) struct ProviderContext {
    /// First job that asked for it, for messages and metrics.
    pub(super) job: String,
    pub(super) sink: Arc<GroupSink>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clusters: Arc<Clusters>,
    pub(super) options: Arc<DiscoveryOptions>,
}

/// Runs discovery for all jobs. Lives on a tokio runtime; `apply` is called from within it.
pub struct DiscoveryManager {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    clusters: Arc<Clusters>,
    options: Arc<DiscoveryOptions>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    providers: Vec<Provider>,
    jobs: Vec<Job>,
}

struct Provider {
    config: DiscoveryConfig,
    job: String,
    metrics: Arc<Metrics>,
    sink: Arc<GroupSink>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.metrics.refreshes_no_more(self.config.mechanism(), &self.job);
    }
}

struct Job {
    publisher: Arc<Publisher>,
    task: JoinHandle<()>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
        self.publisher.retire();
    }
}

/// Joins the groups of a job's providers into the list that its receiver sees.
struct Publisher {
    job: String,
    sources: Mutex<Sources>,
    wake: Arc<Notify>,
    sender: watch::Sender<TargetGroups>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Sources {
    sinks: Vec<Arc<GroupSink>>,
    hold_until: Option<Instant>,
}

// === impl DiscoveryManager ===

impl DiscoveryManager {
    /// A manager without jobs. A second manager on the same `registry` works but shows no metrics of its own unless
    /// `options.name` differs.
    ///
    /// # Errors
    /// When a metric cannot be registered.
    pub fn new(
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
        options: DiscoveryOptions,
    ) -> Result<Self, DiscoveryError> {
        let metrics = Arc::new(Metrics::new(registry, &options.name, Arc::clone(&clock))?);
        let clusters = Arc::new(Clusters::new(Arc::clone(&metrics), &options.user_agent));
        Ok(Self { clock, metrics, clusters, options: Arc::new(options), running: Mutex::default() })
    }

    /// Makes `jobs` the jobs in force and returns a receiver for each, in the same order. A job that was there before
    /// keeps its channel. Static groups are visible in the receivers at once. A configuration that breaks a rule of
    /// [`DiscoveryConfig::validate`] is logged, counted in `prometheus_sd_failed_configs` and left out.
    pub fn apply(&self, jobs: Vec<(String, Vec<DiscoveryConfig>)>) -> Vec<(String, TargetGroupReceiver)> {
        let mut running = self.running.lock();
        let mut old_providers = std::mem::take(&mut running.providers);
        let mut old_jobs = std::mem::take(&mut running.jobs);
        let mut failed = 0_u32;
        let mut receivers = Vec::with_capacity(jobs.len());
        for (name, configs) in jobs {
            let mut sinks: Vec<Arc<GroupSink>> = Vec::with_capacity(configs.len());
            for config in configs {
                if let Err(error) = config.validate() {
                    tracing::error!(job = name, %error, "discovery is not set up");
                    failed += 1;
                    continue;
                }
                let sink = self.provider(&mut running.providers, &mut old_providers, &name, config);
                if !sinks.iter().any(|known| Arc::ptr_eq(known, &sink)) {
                    sinks.push(sink);
                }
            }
            let job = match old_jobs.iter().position(|job| job.publisher.job == name) {
                Some(i) => old_jobs.swap_remove(i),
                None => self.start_job(name.clone()),
            };
            job.publisher.listen_to(sinks);
            receivers.push((name, job.publisher.sender.subscribe()));
            running.jobs.push(job);
        }
        self.metrics.failed_configs.set(f64::from(failed));
        receivers
    }

    /// What the sources of a job have found once each has been seen as a whole, or `limit` has passed. Tells whether
    /// nothing is missing.
    pub async fn settled(&self, job: &str, limit: Duration) -> (TargetGroups, bool) {
        let sinks = {
            let running = self.running.lock();
            let job = running.jobs.iter().find(|known| known.publisher.job == job);
            job.map(|job| job.publisher.sources.lock().sinks.clone()).unwrap_or_default()
        };
        let synced = || sinks.iter().all(|sink| sink.is_synced());
        let deadline = Instant::now() + limit;
        while !synced() && Instant::now() < deadline {
            tokio::time::sleep(SETTLED_POLL.min(deadline - Instant::now())).await;
        }
        let complete = synced();
        (Arc::new(sinks.iter().flat_map(|sink| sink.list().to_vec()).collect()), complete)
    }

    /// Stops all providers. Receivers keep their last list.
    pub fn stop(&self) {
        *self.running.lock() = Running::default();
    }

    /// The sink of the provider for `config`: one already in `current`, one taken over from `old`, or a new one.
    fn provider(
        &self,
        current: &mut Vec<Provider>,
        old: &mut Vec<Provider>,
        job: &str,
        config: DiscoveryConfig,
    ) -> Arc<GroupSink> {
        if let Some(provider) = current.iter().find(|provider| provider.config == config) {
            return Arc::clone(&provider.sink);
        }
        let provider = match old.iter().position(|provider| provider.config == config) {
            Some(i) => old.swap_remove(i),
            None => self.start_provider(job, config),
        };
        let sink = Arc::clone(&provider.sink);
        current.push(provider);
        sink
    }

    fn start_provider(&self, job: &str, config: DiscoveryConfig) -> Provider {
        let sink = Arc::new(GroupSink::new(Arc::clone(&self.metrics)));
        let context = ProviderContext {
            job: job.to_owned(),
            sink: Arc::clone(&sink),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            clusters: Arc::clone(&self.clusters),
            options: Arc::clone(&self.options),
        };
        let task = match &config {
            DiscoveryConfig::Static(groups) => {
                publish_static(&sink, groups);
                None
            }
            DiscoveryConfig::File(config) => Some(tokio::spawn(file::run(config.clone(), context))),
            DiscoveryConfig::Http(config) => Some(tokio::spawn(http_sd::run(config.clone(), context))),
            DiscoveryConfig::Dns(config) => Some(tokio::spawn(dns::run(config.clone(), context))),
            DiscoveryConfig::Consul(config) => Some(tokio::spawn(consul::run((**config).clone(), context))),
            DiscoveryConfig::Kubernetes(config) => {
                Some(tokio::spawn(kubernetes::run(config.clone(), context)))
            }
        };
        Provider { config, job: job.to_owned(), metrics: Arc::clone(&self.metrics), sink, task }
    }

    fn start_job(&self, job: String) -> Job {
        self.metrics.discovered_targets.with_label_values(&[&job]).set(0);
        let publisher = Arc::new(Publisher {
            job,
            sources: Mutex::default(),
            wake: Arc::new(Notify::new()),
            sender: watch::Sender::new(TargetGroups::default()),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
        });
        let debounce = Duration::from_millis(self.options.debounce_ms);
        let task = tokio::spawn(Arc::clone(&publisher).run(debounce));
        Job { publisher, task }
    }
}

fn publish_static(sink: &GroupSink, groups: &[TargetGroup]) {
    sink.update(groups.iter().enumerate().map(|(i, group)| {
        let mut group = group.clone();
        if group.source.is_empty() {
            group.source = i.to_string().into();
        }
        (group.source.clone(), Some(group))
    }));
    sink.mark_synced();
}

// === impl Publisher ===

impl Publisher {
    async fn run(self: Arc<Self>, debounce: Duration) {
        loop {
            let hold_until = self.sources.lock().hold_until;
            match hold_until {
                None => self.wake.notified().await,
                Some(at) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
            tokio::time::sleep(debounce).await;
            let begun = Instant::now();
            self.publish();
            // A list of ten thousands takes milliseconds; it is not made anew for each of many changes.
            tokio::time::sleep((begun.elapsed() * PUBLISH_SHARE).min(PUBLISH_PAUSE_MAX)).await;
        }
    }

    /// Takes `sinks` as the job's sources from now on and publishes what they already know.
    fn listen_to(&self, sinks: Vec<Arc<GroupSink>>) {
        let mut sources = self.sources.lock();
        for sink in &sinks {
            sink.subscribe(&self.wake);
        }
        for old in &sources.sinks {
            if !sinks.iter().any(|sink| Arc::ptr_eq(sink, old)) {
                old.unsubscribe(&self.wake);
            }
        }
        sources.sinks = sinks;
        sources.hold_until = (!self.sender.borrow().is_empty()).then(|| Instant::now() + HOLD);
        drop(sources);
        // The publisher's task may be asleep without a deadline; it must see the new one.
        self.wake.notify_one();
        self.publish();
    }

    fn publish(&self) {
        let mut sources = self.sources.lock();
        if let Some(until) = sources.hold_until {
            if Instant::now() < until && !sources.sinks.iter().all(|sink| sink.is_synced()) {
                return;
            }
            sources.hold_until = None;
        }
        let mut lists: Vec<TargetGroups> = sources.sinks.iter().map(|sink| sink.list()).collect();
        let groups = match lists.len() {
            1 => lists.remove(0),
            _ => Arc::new(lists.iter().flat_map(|list| list.iter().cloned()).collect()),
        };
        // Still under the lock, so that an older list never follows a newer one.
        let targets: usize = groups.iter().map(|group| group.targets.len()).sum();
        let sent = self.sender.send_if_modified(|current| {
            let same = Arc::ptr_eq(current, &groups)
                || (current.len() == groups.len()
                    && current.iter().zip(groups.iter()).all(|(a, b)| Arc::ptr_eq(a, b)));
            if !same {
                *current = groups;
            }
            !same
        });
        if sent {
            self.metrics.sent_updates.inc();
            self.metrics.discovered_targets.with_label_values(&[&self.job]).set(targets as i64);
            let now = self.clock.now_ms() as f64 / 1000.0;
            self.metrics.last_update_seconds.with_label_values(&[&self.job]).set(now);
        }
    }

    /// Forgets the sources and the job's metrics.
    fn retire(&self) {
        for sink in self.sources.lock().sinks.drain(..) {
            sink.unsubscribe(&self.wake);
        }
        // Absent when the job never published; that is as good as removed.
        let _ = self.metrics.discovered_targets.remove_label_values(&[&self.job]);
        let _ = self.metrics.last_update_seconds.remove_label_values(&[&self.job]);
    }
}

#[cfg(test)]
mod tests;
