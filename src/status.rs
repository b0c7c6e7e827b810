//! What the HTTP API asks of a node: its targets, its configuration, its flags, its storage.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use api::sources as web;
use model::{Labels, Metadata, Querier, Queryable, StorageError};
use scraper::ScrapeManager;

use crate::alerting::AlertSending;

/// Facts of a node that change only with a reload.
#[derive(Default)]
pub struct NodeFacts {
    flags: BTreeMap<String, String>,
    start_time_ms: i64,
    changing: RwLock<Changing>,
}

#[derive(Default, Clone)]
struct Changing {
    config_yaml: String,
    external_labels: Labels,
    reload_ok: bool,
    reload_ms: i64,
    retention: String,
}

impl NodeFacts {
    /// Facts of a node that starts at `start_time_ms` with `flags`.
    pub fn new(flags: BTreeMap<String, String>, start_time_ms: i64) -> Self {
        Self { flags, start_time_ms, changing: RwLock::default() }
    }

    /// Takes over a configuration that is now in force.
    pub fn loaded(&self, config_yaml: String, external_labels: Labels, retention: String, now_ms: i64) {
        let mut c = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        *c = Changing { config_yaml, external_labels, reload_ok: true, reload_ms: now_ms, retention };
    }

    /// Notes that a reload failed; the configuration before it stays in force.
    pub fn reload_failed(&self) {
        self.changing.write().unwrap_or_else(PoisonError::into_inner).reload_ok = false;
    }

    fn get(&self) -> Changing {
        self.changing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a node's store says of itself.
pub trait StoreStatus: Send + Sync {
    /// Statistics, lists of at most `limit` entries.
    fn tsdb(&self, limit: usize) -> Result<web::TsdbStatus, StorageError>;

    /// How far its log is replayed.
    fn wal_replay(&self) -> web::WalReplayStatus {
        web::WalReplayStatus::default()
    }
}

/// [`web::StatusSource`] of either node.
pub struct Status {
    facts: Arc<NodeFacts>,
    store: Box<dyn StoreStatus>,
}

impl Status {
    /// The status of the node with these facts and this store.
    pub fn new(facts: Arc<NodeFacts>, store: Box<dyn StoreStatus>) -> Self {
        Self { facts, store }
    }
}

impl web::StatusSource for Status {
    fn build_info(&self) -> web::BuildInfo {
        web::BuildInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: option_env!("ALMANAC_REVISION").unwrap_or("unknown").into(),
            branch: option_env!("ALMANAC_BRANCH").unwrap_or("unknown").into(),
            build_user: String::new(),
            build_date: String::new(),
            toolchain: concat!("rust ", env!("CARGO_PKG_RUST_VERSION")).into(),
        }
    }

    fn config_yaml(&self) -> String {
        self.facts.get().config_yaml
    }

    fn flags(&self) -> BTreeMap<String, String> {
        self.facts.flags.clone()
    }

    fn runtime_info(&self) -> web::RuntimeInfo {
        let c = self.facts.get();
        let threads = std::thread::available_parallelism().map_or(0, |n| i64::try_from(n.get()).unwrap_or(0));
        web::RuntimeInfo {
            start_time_ms: self.facts.start_time_ms,
            cwd: std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default(),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            reload_config_success: c.reload_ok,
            last_config_time_ms: c.reload_ms,
            corruption_count: 0,
            task_count: threads_of_process(),
            worker_threads: threads,
            memory_limit_bytes: 0,
            storage_retention: c.retention,
        }
    }

    fn tsdb_status(&self, limit: usize) -> Result<web::TsdbStatus, StorageError> {
        self.store.tsdb(limit)
    }

    fn wal_replay(&self) -> web::WalReplayStatus {
        self.store.wal_replay()
    }

    fn external_labels(&self) -> Labels {
        self.facts.get().external_labels
    }
}

fn threads_of_process() -> i64 {
    let count = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    i64::try_from(count).unwrap_or(0)
}

/// [`web::TargetsSource`] over the scrape manager.
pub struct Targets(pub Arc<ScrapeManager>);

impl web::TargetsSource for Targets {
    fn active(&self) -> Vec<web::ActiveTarget> {
        let pools = self.0.targets();
        pools.into_values().flat_map(|p| p.active).map(active).collect()
    }

    fn dropped(&self) -> Vec<web::DroppedTarget> {
        let pools = self.0.targets();
        let dropped = pools.into_values().flat_map(|p| p.dropped);
        dropped
            .map(|d| web::DroppedTarget {
                scrape_pool: d.scrape_pool,
                discovered_labels: d.discovered_labels,
            })
            .collect()
    }

    fn dropped_counts(&self) -> BTreeMap<String, usize> {
        self.0.targets().into_iter().map(|(name, p)| (name, p.dropped_count)).collect()
    }

    fn scrape_pools(&self) -> Vec<String> {
        self.0.targets().into_keys().collect()
    }

    fn cardinality(&self, limit: usize) -> api::Cardinality {
        cardinality(self.0.cardinality(limit))
    }

    fn scrape_pool_config(&self, _pool: &str) -> Option<String> {
        None
    }

    fn metadata(&self, metric: &str, visit: &mut dyn FnMut(&Labels, &str, &Metadata) -> bool) {
        for target in self.0.metadata() {
            for (family, metadata) in &target.families {
                if (metric.is_empty() || metric == family) && !visit(&target.labels, family, metadata) {
                    return;
                }
            }
        }
    }
}

fn cardinality(c: scraper::Cardinality) -> api::Cardinality {
    let soft_limit = |l: scraper::cardinality::LimitStatus| api::SoftLimit {
        limit: l.limit.series,
        reserve: l.limit.reserve,
        current: l.used,
    };
    let jobs = c.jobs.into_iter().map(|j| api::JobCardinality {
        job: j.job,
        limit: soft_limit(j.limit),
        refused: j.refused,
        refused_total: vec![("job_limit", j.refused_for_job), ("server_limit", j.refused_for_server)],
        new_in_last_hour: j.new_in_last_hour,
        window_seconds: j.window_seconds,
        metrics: j
            .metrics
            .into_iter()
            .map(|m| api::Growing { name: m.name, new: m.new, refused: m.refused, values: None })
            .collect(),
        labels: j
            .labels
            .into_iter()
            .map(|l| api::Growing { name: l.name, new: l.new, refused: l.refused, values: Some(l.values) })
            .collect(),
    });
    api::Cardinality { server: soft_limit(c.server), jobs: jobs.collect() }
}

fn active(t: scraper::manager::ActiveTarget) -> web::ActiveTarget {
    use scraper::manager::TargetHealth;
    web::ActiveTarget {
        scrape_pool: t.scrape_pool,
        discovered_labels: t.discovered_labels,
        labels: t.labels,
        scrape_url: t.scrape_url,
        last_error: t.last_error,
        last_scrape_ms: t.last_scrape_ms,
        last_scrape_seconds: t.last_scrape_duration_seconds,
        health: match t.health {
            TargetHealth::Unknown => web::TargetHealth::Unknown,
            TargetHealth::Up => web::TargetHealth::Up,
            TargetHealth::Down => web::TargetHealth::Down,
        },
        scrape_interval: model::duration::format_ms(t.scrape_interval_ms),
        scrape_timeout: model::duration::format_ms(t.scrape_timeout_ms),
    }
}

/// [`web::TargetsSource`] of a node that scrapes nothing.
pub struct NoTargets;

impl web::TargetsSource for NoTargets {
    fn active(&self) -> Vec<web::ActiveTarget> {
        Vec::new()
    }

    fn dropped(&self) -> Vec<web::DroppedTarget> {
        Vec::new()
    }

    fn dropped_counts(&self) -> BTreeMap<String, usize> {
        BTreeMap::new()
    }

    fn scrape_pools(&self) -> Vec<String> {
        Vec::new()
    }

    fn scrape_pool_config(&self, _pool: &str) -> Option<String> {
        None
    }

    fn metadata(&self, _metric: &str, _visit: &mut dyn FnMut(&Labels, &str, &Metadata) -> bool) {}
}

/// What queries go to; a reload may put another store in its place.
pub struct CurrentQueryable(RwLock<Arc<dyn Queryable>>);

impl CurrentQueryable {
    /// Queries go to `first` until [`CurrentQueryable::set`].
    pub fn new(first: Arc<dyn Queryable>) -> Self {
        Self(RwLock::new(first))
    }

    /// New queries go to `next`.
    pub fn set(&self, next: Arc<dyn Queryable>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl Queryable for CurrentQueryable {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        current.querier(mint, maxt)
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        self.0.read().unwrap_or_else(PoisonError::into_inner).rollup_grids_ms()
    }
}

/// [`web::RulesSource`] over the rule manager and the notifier.
pub struct Rules {
    /// Evaluates.
    pub rules: Arc<rules::RuleManager>,
    /// Sends.
    pub alerts: Arc<AlertSending>,
}

impl web::RulesSource for Rules {
    fn groups(&self) -> Vec<web::RuleGroup> {
        let groups = self.rules.groups().into_iter();
        groups
            .map(|g| web::RuleGroup {
                name: g.name,
                file: g.file,
                interval_seconds: seconds(g.interval_ms),
                limit: i64::try_from(g.limit).unwrap_or(i64::MAX),
                rules: g.rules.into_iter().map(rule).collect(),
                evaluation_seconds: g.evaluation_seconds,
                last_evaluation_ms: g.last_evaluation_ms,
            })
            .collect()
    }

    fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        self.alerts.alertmanagers()
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn rule(r: rules::RuleStatus) -> web::Rule {
    let alerting = r.alerting.map(|a| web::AlertingRule {
        state: a.state.as_str().into(),
        hold_seconds: seconds(a.for_ms),
        keep_firing_seconds: seconds(a.keep_firing_for_ms),
        annotations: a.annotations,
        alerts: a.alerts.into_iter().map(alert).collect(),
    });
    web::Rule {
        name: r.name,
        query: r.query,
        labels: r.labels,
        health: r.health.as_str().into(),
        last_error: r.last_error,
        evaluation_seconds: r.evaluation_seconds,
        last_evaluation_ms: r.last_evaluation_ms,
        alerting,
    }
}

fn alert(a: rules::AlertStatus) -> web::Alert {
    web::Alert {
        labels: a.labels,
        annotations: a.annotations,
        state: a.state.as_str().into(),
        active_at_ms: a.active_at_ms,
        keep_firing_since_ms: a.keep_firing_since_ms,
        value: a.value,
    }
}
