//! The scrape manager: all jobs, each a pool of scrape loops that follows its discovered targets.
//!
//! [`ScrapeManager::apply`] is both start and reload. A pool whose configuration is unchanged is left alone; one whose
//! configuration changed restarts its loops with their caches and without a gap; one that is gone stops and writes
//! stale markers. [`ScrapeManager::stop`] ends all loops and writes stale markers at once.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Appendable, Clock, Labels, Metadata};
use parking_lot::Mutex;

use crate::cardinality::{Cardinality, Guard, ServerLimit};
use crate::client::Clients;
use crate::config::ScrapeConfig;
use crate::error::ScraperError;
use crate::failure_log;
use crate::metrics::ScrapeMetrics;
use crate::pool::{Pool, end_all};
use crate::sample_labels::StartRules;
use crate::schedule::Schedule;
use crate::scrape_loop::{ScrapeLoop, Services};
use crate::target::{Origin, TargetFactory};
use crate::target_group::TargetGroupReceiver;

/// Settings of the manager that do not come from the configuration file.
#[derive(Clone, Debug)]
pub struct ScrapeOptions {
    /// Host name and external labels of this server, hashed into the offsets of its targets, so that two servers with
    /// one configuration scrape at different times.
    pub offset_seed: String,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Times that differ from the aligned ones by no more than this count as aligned.
    pub timestamp_tolerance_ms: i64,
    /// Least time between two looks at what discovery found.
    pub discovery_reload_interval_ms: u64,
    /// Hand type, unit and help of series to the appender.
    pub append_metadata: bool,
    /// Add the labels `__type__` and `__unit__`.
    pub type_and_unit_labels: bool,
    /// What becomes of start timestamps.
    pub starts: StartRules,
    /// Records what scrapes take their time for.
    pub tracer: model::trace::Tracer,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        Self {
            offset_seed: String::new(),
            user_agent: concat!("almanac/", env!("CARGO_PKG_VERSION")).into(),
            timestamp_tolerance_ms: 2,
            discovery_reload_interval_ms: 5_000,
            append_metadata: false,
            type_and_unit_labels: false,
            starts: StartRules::default(),
            tracer: model::trace::Tracer::default(),
        }
    }
}

/// Health of a target after its last scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TargetHealth {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// The last scrape succeeded.
    Up,
    /// The last scrape failed.
    Down,
}

impl TargetHealth {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A target that is scraped, as it is now.
#[derive(Clone, Debug)]
pub struct ActiveTarget {
    /// Labels before relabeling.
    pub discovered_labels: Labels,
    /// Labels of its series.
    pub labels: Labels,
    /// Job as configured.
    pub scrape_pool: String,
    /// URL that is fetched.
    pub scrape_url: String,
    /// Why the last scrape failed; empty when it did not.
    pub last_error: String,
    /// When the last scrape began, milliseconds since the Unix epoch; `None` before the first.
    pub last_scrape_ms: Option<i64>,
    /// How long it took.
    pub last_scrape_duration_seconds: f64,
    /// Whether it succeeded.
    pub health: TargetHealth,
    /// Time between two scrapes.
    pub scrape_interval_ms: i64,
    /// Most time a scrape may take.
    pub scrape_timeout_ms: i64,
}

/// A target that relabeling dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// Labels before relabeling.
    pub discovered_labels: Labels,
    /// Job as configured.
    pub scrape_pool: String,
}

/// The targets of one job.
#[derive(Clone, Debug, Default)]
pub struct PoolSnapshot {
    /// Scraped targets, sorted by URL and labels.
    pub active: Vec<ActiveTarget>,
    /// Dropped targets, no more of them than `keep_dropped_targets` allows.
    pub dropped: Vec<DroppedTarget>,
    /// Number of dropped targets, those not kept included.
    pub dropped_count: usize,
}

/// What one target says about its metric families.
#[derive(Clone, Debug)]
pub struct TargetMetadata {
    /// Labels of the target.
    pub labels: Labels,
    /// Job as configured.
    pub scrape_pool: String,
    /// Metric family and what is known of it, sorted by family.
    pub families: Vec<(String, Metadata)>,
}

/// Runs the scrape loops of all jobs. Lives on a tokio runtime; all methods are called from within it.
pub struct ScrapeManager {
    services: Arc<Services>,
    pools: Mutex<BTreeMap<String, Pool>>,
    server_limit: Mutex<ServerLimit>,
    /// One reload at a time.
    applying: tokio::sync::Mutex<()>,
}

impl ScrapeManager {
    /// A manager without jobs. `registry` gets its metrics.
    ///
    /// # Errors
    /// When the metrics cannot be registered.
    pub fn new(
        storage: Arc<dyn Appendable>,
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
        options: ScrapeOptions,
    ) -> Result<Self, ScraperError> {
        let guard = Arc::new(Guard::new(clock.clone()));
        let services = Services {
            storage,
            clients: Clients::new(clock.clone()),
            metrics: ScrapeMetrics::new(registry, &clock, &guard)?,
            clock,
            schedule: Arc::<Schedule>::default(),
            guard,
            failure_logs: Mutex::default(),
            offset_seed: xxhash_rust::xxh3::xxh3_64(options.offset_seed.as_bytes()),
            options,
        };
        Ok(Self {
            services: Arc::new(services),
            pools: Mutex::default(),
            server_limit: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
        })
    }

    /// Makes `jobs` the jobs in force. Loops of unchanged targets go on without a gap. Returns when what is gone has
    /// written its stale markers.
    ///
    /// # Errors
    /// When a job's configuration is refused; nothing changes then.
    pub async fn apply(&self, jobs: Vec<(ScrapeConfig, TargetGroupReceiver)>) -> Result<(), ScraperError> {
        for (config, _) in &jobs {
            if let Err(e) = config.check() {
                self.services.metrics.reloads_failed.inc();
                return Err(e);
            }
        }
        let log_files = jobs.iter().filter_map(|(config, _)| config.scrape_failure_log_file.as_ref());
        let failure_logs = failure_log::open_all(log_files)?;
        let _one_at_a_time = self.applying.lock().await;
        *self.services.failure_logs.lock() = failure_logs;
        let limits = jobs.iter().map(|(config, _)| (config.job_name.clone(), config.series_soft_limit));
        self.services.guard.set(self.server_limit.lock().clone(), limits);
        let mut gone = std::mem::take(&mut *self.pools.lock());
        for (config, groups) in jobs {
            let job = config.job_name.clone();
            let (start, interval_ms) = (self.services.clock.monotonic(), config.scrape_interval_ms);
            let is_reload = gone.contains_key(&job);
            let (loops, view) = match gone.remove(&job) {
                Some(old) => {
                    self.services.metrics.reloads.inc();
                    let view = old.view.clone();
                    (old.release().await, view)
                }
                None => {
                    self.services.metrics.pools.inc();
                    Default::default()
                }
            };
            let pool = Pool::spawn(self.services.clone(), config, groups, loops, view);
            self.services.metrics.views.lock().insert(job.clone(), pool.view.clone());
            self.pools.lock().insert(job, pool);
            if is_reload {
                let length = self.services.clock.monotonic().saturating_sub(start);
                self.services.metrics.observe_reload(interval_ms, length.as_secs_f64());
            }
        }
        self.end(gone).await;
        Ok(())
    }

    async fn end(&self, pools: BTreeMap<String, Pool>) {
        let ended = pools.into_iter().map(|(job, pool)| async move {
            end_all(pool.release().await.into_values()).await;
            self.services.metrics.forget_pool(&job);
        });
        futures_util::future::join_all(ended).await;
    }

    /// Sets the soft limit of series of all jobs together, in force with the next [`ScrapeManager::apply`].
    pub fn set_server_limit(&self, limit: ServerLimit) {
        *self.server_limit.lock() = limit;
    }

    /// How the soft limits of series stand and what grows, with at most `names` metrics and labels per job.
    #[must_use]
    pub fn cardinality(&self, names: usize) -> Cardinality {
        self.services.guard.status(names)
    }

    /// All jobs by name, with their targets as they are now.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<String, PoolSnapshot> {
        // Only handles are taken under the locks: putting together the labels of a large job takes a while.
        let pools = self.pools.lock();
        let views: Vec<_> = pools
            .iter()
            .map(|(job, pool)| {
                let view = pool.view.lock();
                let (targets, dropped) = (view.targets.clone(), view.dropped.clone());
                (job.clone(), Arc::clone(&pool.factory), targets, dropped, view.dropped_count)
            })
            .collect();
        drop(pools);
        let snapshot = |(job, factory, targets, dropped, dropped_count): (_, Arc<TargetFactory>, _, _, _)| {
            let targets: Vec<Arc<ScrapeLoop>> = targets;
            let mut active: Vec<_> = targets.iter().map(|t| t.target.snapshot(&factory)).collect();
            active.sort_by(|a, b| a.scrape_url.cmp(&b.scrape_url).then_with(|| a.labels.cmp(&b.labels)));
            let dropped: Vec<Origin> = dropped;
            let dropped = dropped.iter().map(|origin| DroppedTarget {
                discovered_labels: factory.discovered(origin),
                scrape_pool: String::clone(&job),
            });
            let dropped = dropped.collect();
            (job, PoolSnapshot { active, dropped, dropped_count })
        };
        views.into_iter().map(snapshot).collect()
    }

    /// Metadata of all scraped targets, sorted by job and URL.
    #[must_use]
    pub fn metadata(&self) -> Vec<TargetMetadata> {
        let pools = self.pools.lock();
        let mut all = Vec::new();
        for (job, pool) in pools.iter() {
            let mut targets = pool.view.lock().targets.clone();
            targets.sort_by_cached_key(|t| (t.target.url(), t.target.labels()));
            for scrape_loop in targets {
                let t = &scrape_loop.target;
                let store = t.state.lock().metadata.clone();
                all.push(TargetMetadata {
                    labels: t.labels(),
                    scrape_pool: job.clone(),
                    families: store.map(|s| s.list()).unwrap_or_default(),
                });
            }
        }
        all
    }

    /// Stops all loops and writes stale markers.
    pub async fn stop(&self) {
        let _one_at_a_time = self.applying.lock().await;
        let pools = std::mem::take(&mut *self.pools.lock());
        self.end(pools).await;
    }
}
