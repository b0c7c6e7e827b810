//! Runs the groups: each on its own interval, at an offset that its name decides, so that load is even and the same
//! after a restart.
//!
//! Evaluations block and run on tokio's blocking threads. A group that takes longer than its interval leaves
//! evaluations out; it never runs twice at once.

use std::sync::Arc;
use std::time::Duration;

use model::trace::Tracer;
use model::{Appendable, Clock, Labels, Queryable};
use parking_lot::Mutex;
use promql::{Engine, QueryOptions, QueryOrigin};
use tokio::task::JoinHandle;

use crate::config::{GroupConfig, RuleConfig};
use crate::error::RulesError;
use crate::group::{Environment, Group, NotifyFn, QueryFn, Timing};
use crate::metrics::Metrics;
use crate::status::GroupStatus;
use crate::template::Surroundings;

/// What templates may speak of: `$externalLabels` and `$externalURL`.
#[derive(Clone, Debug, Default)]
pub struct TemplateContext {
    /// The server's external labels.
    pub external_labels: Labels,
    /// Where the server is reached from outside.
    pub external_url: String,
}

/// What a manager works with.
pub struct RuleParts {
    /// Evaluates the rules.
    pub engine: Engine,
    /// What rules read.
    pub queryable: Arc<dyn Queryable>,
    /// Where their answers are stored.
    pub appendable: Arc<dyn Appendable>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When alerts are sent again and restored.
    pub timing: Timing,
    /// Takes the alerts that are to be sent; called from evaluations, so it must not block.
    pub notify: NotifyFn,
    /// Records what evaluations take their time for.
    pub tracer: Tracer,
}

/// Runs rule groups. Lives on a tokio runtime; all methods are called from within it.
pub struct RuleManager {
    parts: RuleParts,
    metrics: Arc<Metrics>,
    running: Mutex<Groups>,
}

#[derive(Default)]
struct Groups {
    running: Vec<Running>,
    /// Whether there were groups before: only the first ones go on from before a restart.
    begun: bool,
}

struct Running {
    config: GroupConfig,
    context: (Labels, String),
    group: Arc<Mutex<Group>>,
    shown: Arc<Mutex<GroupStatus>>,
    environment: Arc<Environment>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RuleManager {
    /// A manager without groups.
    ///
    /// # Errors
    /// When the metrics cannot be registered.
    pub fn new(parts: RuleParts, registry: &prometheus::Registry) -> Result<Self, RulesError> {
        let metrics = Arc::new(Metrics::new(registry, &parts.clock)?);
        Ok(Self { parts, metrics, running: Mutex::default() })
    }

    /// Makes `groups` the groups in force. Unchanged ones go on; changed ones keep alerts and series of the rules that
    /// are still there; series of what is gone end. Groups of the first call take up their pending alerts from before a
    /// restart. Blocks while a changed group finishes a running evaluation.
    ///
    /// # Errors
    /// When a rule cannot run; nothing changes then.
    pub fn apply(&self, groups: Vec<GroupConfig>, context: &TemplateContext) -> Result<(), RulesError> {
        let mut new = Vec::with_capacity(groups.len());
        for config in groups {
            self.check_expressions(&config)?;
            new.push((config.clone(), Group::new(config)?));
        }
        let context = (context.external_labels.clone(), context.external_url.clone());
        let mut groups = self.running.lock();
        let first = !std::mem::replace(&mut groups.begun, true);
        let running = &mut groups.running;
        let mut old: Vec<Running> = std::mem::take(running);
        for (config, mut group) in new {
            if first {
                group.restore_later();
            }
            let same = |old: &Running| old.config.file == config.file && old.config.name == config.name;
            let before = old.iter().position(same).map(|i| old.swap_remove(i));
            match before {
                Some(before) if before.config == config && before.context == context => running.push(before),
                before => {
                    if let Some(before) = before {
                        before.task.abort();
                        group.take_over(&mut before.group.lock());
                    }
                    running.push(self.start(config, context.clone(), group));
                }
            }
        }
        for gone in old {
            self.metrics.forget(&gone.group.lock().key());
            retire(&gone);
        }
        Ok(())
    }

    /// All groups as they are now, sorted by file and name.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        let mut groups: Vec<_> =
            self.running.lock().running.iter().map(|running| running.shown.lock().clone()).collect();
        groups.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
        groups
    }

    /// Stops all groups; their series stay as they are, as over a restart.
    pub fn stop(&self) {
        self.running.lock().running.clear();
    }

    fn check_expressions(&self, group: &GroupConfig) -> Result<(), RulesError> {
        let check =
            |rule: &RuleConfig| self.parts.engine.prepare(&rule.expr).map(|_| ()).map_err(|e| e.to_string());
        for (i, rule) in group.rules.iter().enumerate() {
            check(rule).map_err(|reason| RulesError::Rule {
                file: group.file.clone(),
                group: group.name.clone(),
                rule: i + 1,
                name: rule.name().to_owned(),
                reason: format!("could not parse expression: {reason}"),
            })?;
        }
        Ok(())
    }

    fn start(&self, config: GroupConfig, context: (Labels, String), group: Group) -> Running {
        let parts = &self.parts;
        let (engine, queryable) = (parts.engine.clone(), Arc::clone(&parts.queryable));
        let origin = QueryOrigin::RuleGroup { file: config.file.clone(), name: config.name.clone() };
        let options = QueryOptions { origin: Some(origin), ..QueryOptions::default() };
        let query: QueryFn = Arc::new(move |query, ts_ms| {
            engine.instant(&*queryable, query, ts_ms, &options).map(|output| output.value)
        });
        let environment = Arc::new(Environment {
            query: Arc::clone(&query),
            queryable: Arc::clone(&parts.queryable),
            appendable: Arc::clone(&parts.appendable),
            clock: Arc::clone(&parts.clock),
            metrics: Arc::clone(&self.metrics),
            around: Surroundings {
                external_labels: context.0.clone(),
                external_url: context.1.clone(),
                query,
            },
            timing: parts.timing,
            notify: Arc::clone(&parts.notify),
            tracer: parts.tracer.clone(),
        });
        let key = group.key();
        self.metrics.interval_seconds.with_label_values(&[&key]).set(config.interval_ms as f64 / 1000.0);
        self.metrics.rules.with_label_values(&[&key]).set(config.rules.len() as i64);
        let shown = group.shown();
        let group = Arc::new(Mutex::new(group));
        let schedule = Schedule::new(&config);
        let task = tokio::spawn(run(schedule, Arc::clone(&group), Arc::clone(&environment), key));
        Running { config, context, group, shown, environment, task }
    }
}

/// Ends the series of a group that is gone, two intervals later: a group that was only renamed goes on with them until
/// then, and a marker older than its samples is refused by the store.
fn retire(gone: &Running) {
    let (group, environment) = (Arc::clone(&gone.group), Arc::clone(&gone.environment));
    let now_ms = environment.clock.now_ms();
    let pause = Duration::from_millis(gone.config.interval_ms.unsigned_abs().saturating_mul(2));
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        let retired = tokio::task::spawn_blocking(move || group.lock().retire(&environment, now_ms)).await;
        if let Err(error) = retired {
            tracing::error!(%error, "ending the series of an old rule group");
        }
    });
}

async fn run(schedule: Schedule, group: Arc<Mutex<Group>>, environment: Arc<Environment>, key: String) {
    let mut ts_ms = schedule.latest(environment.clock.now_ms()) + schedule.interval_ms;
    loop {
        let wait_ms = ts_ms - environment.clock.now_ms();
        tokio::time::sleep(Duration::from_millis(wait_ms.max(0).unsigned_abs())).await;
        environment.metrics.iterations.with_label_values(&[&key]).inc();
        let (running, shared) = (Arc::clone(&group), Arc::clone(&environment));
        let evaluated = tokio::task::spawn_blocking(move || running.lock().evaluate(&shared, ts_ms)).await;
        if let Err(error) = evaluated {
            tracing::error!(group = key, %error, "evaluation of a rule group broke off");
        }
        let latest = schedule.latest(environment.clock.now_ms());
        let missed = ((latest - ts_ms) / schedule.interval_ms).max(0);
        if missed > 0 {
            environment.metrics.iterations.with_label_values(&[&key]).inc_by(missed.unsigned_abs());
            environment.metrics.iterations_missed.with_label_values(&[&key]).inc_by(missed.unsigned_abs());
        }
        ts_ms += (missed + 1) * schedule.interval_ms;
    }
}

/// When a group is evaluated: at multiples of its interval plus an offset within it.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    interval_ms: i64,
    offset_ms: i64,
}

impl Schedule {
    fn new(config: &GroupConfig) -> Self {
        // The same hash as Prometheus's, so that a group keeps its moments when one replaces the other.
        let hash = Labels::from_pairs([("name", &config.name), ("file", &config.file)]).prometheus_hash64();
        let interval_ns = config.interval_ms.unsigned_abs().saturating_mul(1_000_000).max(1);
        Self { interval_ms: config.interval_ms, offset_ms: (hash % interval_ns / 1_000_000) as i64 }
    }

    /// The last moment of evaluation that is not after `now_ms`.
    fn latest(self, now_ms: i64) -> i64 {
        let now = now_ms - self.offset_ms;
        now - now.rem_euclid(self.interval_ms) + self.offset_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_an_interval_apart_and_stable() {
        let config = GroupConfig {
            name: "g".into(),
            file: "f".into(),
            interval_ms: 15_000,
            query_offset_ms: 0,
            limit: 0,
            labels: Vec::new(),
            rules: Vec::new(),
        };
        let schedule = Schedule::new(&config);
        assert!((0..15_000).contains(&schedule.offset_ms));
        for now in [0, 1, 14_999, 15_000, 1_700_000_000_123] {
            let latest = schedule.latest(now);
            assert!(latest <= now && now < latest + 15_000, "{now}");
            assert_eq!((latest - schedule.offset_ms).rem_euclid(15_000), 0);
        }
    }

    #[tokio::test]
    async fn groups_run_and_bad_expressions_are_refused() {
        let clock = model::SystemClock::shared();
        let registry = prometheus::Registry::new();
        let engine = Engine::new(promql::EngineConfig::default(), Arc::clone(&clock), &registry);
        let storage = model::memory::MemoryStorage::new();
        let (queryable, appendable) = (Arc::new(storage.clone()), Arc::new(storage));
        let (timing, notify): (_, NotifyFn) = (Timing::default(), Arc::new(|_| {}));
        let parts =
            RuleParts { engine, queryable, appendable, clock, timing, notify, tracer: Tracer::default() };
        let manager = RuleManager::new(parts, &registry).unwrap();
        let rule = |record: &str, expr: &str| RuleConfig {
            expr: expr.into(),
            labels: Vec::new(),
            kind: crate::config::RuleKind::Recording { record: record.into() },
        };
        let group = |rules| GroupConfig {
            name: "g".into(),
            file: "f".into(),
            interval_ms: 50,
            query_offset_ms: 0,
            limit: 0,
            labels: Vec::new(),
            rules,
        };
        // The second rule sees what the first one stored.
        let good = group(vec![rule("one", "vector(1)"), rule("two", "one + 1")]);
        manager.apply(vec![good.clone()], &TemplateContext::default()).unwrap();
        let bad = group(vec![rule("one", "vector(")]);
        let error = manager.apply(vec![bad], &TemplateContext::default()).unwrap_err().to_string();
        assert!(error.contains("could not parse expression"), "{error}");
        let done = |status: &GroupStatus| status.rules.iter().all(|r| r.health == crate::status::Health::Ok);
        let waiting = async {
            while !done(&manager.groups()[0]) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("both rules run");
        assert_eq!(manager.groups()[0].rules[1].query, "one + 1");
        manager.apply(Vec::new(), &TemplateContext::default()).unwrap();
        assert!(manager.groups().is_empty());
    }
}
