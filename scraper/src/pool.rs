//! All targets of one job: follows the groups that discovery sends, and keeps one scrape loop per target.
//!
//! A loop whose target and configuration are unchanged is left alone. One whose series go on under another configuration
//! or URL hands its cache to its successor, so that nothing becomes stale in between.
//!
//! Only groups that changed are relabeled: a group that discovery left alone is the same `Arc`, and what became of its
//! targets is remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::{Labels, LabelsBuilder};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::ScrapeConfig;
use crate::scrape_loop::{Job, ScrapeLoop, Services};
use crate::target::{Origin, Outcome, Target, TargetFactory};
use crate::target_group::{TargetGroup, TargetGroupReceiver};

/// Targets that are relabeled before other tasks get a turn.
const RELABELED_PER_TURN: usize = 512;

/// Loops by the hash of their targets.
pub(crate) type Loops = HashMap<u64, Arc<ScrapeLoop>>;

/// What the API sees of a pool.
#[derive(Default)]
pub(crate) struct PoolView {
    pub(crate) targets: Vec<Arc<ScrapeLoop>>,
    /// No more than `keep_dropped_targets` allows.
    pub(crate) dropped: Vec<Origin>,
    pub(crate) dropped_count: usize,
}

/// A running pool.
pub(crate) struct Pool {
    pub(crate) view: Arc<Mutex<PoolView>>,
    pub(crate) factory: Arc<TargetFactory>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Loops>,
}

impl Pool {
    /// Starts a pool that takes over `loops` as they run.
    pub(crate) fn spawn(
        services: Arc<Services>,
        config: ScrapeConfig,
        groups: TargetGroupReceiver,
        loops: Loops,
        view: Arc<Mutex<PoolView>>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let config = Arc::new(config);
        let factory = Arc::new(TargetFactory::new(Arc::clone(&config)));
        let follower = Follower {
            job: Arc::new(Job::new(Arc::clone(&services), Arc::clone(&config))),
            services,
            config,
            factory: Arc::clone(&factory),
            groups,
            loops,
            members: HashMap::new(),
            known: None,
            invalid: 0,
            view: view.clone(),
            stopped,
        };
        Self { view, factory, stop, task: tokio::spawn(follower.run()) }
    }

    /// Stops following discovery and returns the loops, which go on.
    pub(crate) async fn release(self) -> Loops {
        // A pool whose task is gone needs no order.
        let _ = self.stop.send(true);
        self.task.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "scrape pool broke down");
            Loops::new()
        })
    }
}

/// Ends loops side by side; returns when their stale markers are written.
pub(crate) async fn end_all(loops: impl IntoIterator<Item = Arc<ScrapeLoop>>) {
    join_all(loops.into_iter().map(ScrapeLoop::end)).await;
}

struct Follower {
    services: Arc<Services>,
    config: Arc<ScrapeConfig>,
    job: Arc<Job>,
    factory: Arc<TargetFactory>,
    groups: TargetGroupReceiver,
    loops: Loops,
    /// How many discovered targets became the one of this hash.
    members: HashMap<u64, u32>,
    /// The groups of the last look and what became of their targets; `None` before the first.
    known: Option<Vec<KnownGroup>>,
    /// Targets among them that could not be made.
    invalid: u64,
    view: Arc<Mutex<PoolView>>,
    stopped: watch::Receiver<bool>,
}

/// A group and, for each of its targets, what it became.
struct KnownGroup {
    group: Arc<TargetGroup>,
    targets: Box<[Became]>,
}

#[derive(Clone, Copy)]
enum Became {
    /// The target of this hash.
    Active(u64),
    Dropped,
    Invalid,
}

/// What a look at the groups found.
#[derive(Default)]
struct Changes {
    /// Targets without a running loop.
    fresh: HashMap<u64, Box<Target>>,
    /// Hashes that no group has any more.
    gone: Vec<u64>,
}

impl Follower {
    async fn run(mut self) -> Loops {
        let pause = Duration::from_millis(self.services.options.discovery_reload_interval_ms);
        if !self.loops.is_empty() && self.groups.borrow().is_empty() {
            // Discovery was started anew with the configuration; its first answer decides, not its silence.
            tokio::select! {
                _ = self.groups.changed() => {}
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.changed() => return self.loops,
            }
        }
        loop {
            self.sync().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.changed() => return self.loops,
            }
            let changed = tokio::select! {
                changed = self.groups.changed() => changed.is_ok(),
                _ = self.stopped.changed() => return self.loops,
            };
            if !changed {
                // Discovery is gone; its last word stands.
                let _ = self.stopped.changed().await;
                return self.loops;
            }
        }
    }

    async fn sync(&mut self) {
        let start = self.services.clock.monotonic();
        let Changes { fresh, gone } = self.read_groups().await;
        let mut retired: Vec<Arc<ScrapeLoop>> =
            gone.iter().filter_map(|hash| self.loops.remove(hash)).collect();
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        for (i, old) in retired.iter().enumerate() {
            by_labels.entry(old.target.labels()).or_insert(i);
        }
        let mut retired: Vec<Option<Arc<ScrapeLoop>>> = retired.drain(..).map(Some).collect();
        for (hash, target) in fresh {
            // The loop of the same target under another configuration, else one whose series these are.
            let predecessor = self.loops.remove(&hash).or_else(|| {
                let i = by_labels.get(&target.labels())?;
                retired[*i].take()
            });
            self.loops.insert(hash, ScrapeLoop::start(Arc::clone(&self.job), *target, predecessor));
        }
        self.apply_target_limit();
        self.view.lock().targets = self.loops.values().cloned().collect();
        end_all(retired.into_iter().flatten()).await;
        let m = &self.services.metrics;
        let job = [self.config.job_name.as_str()];
        let length = self.services.clock.monotonic().saturating_sub(start).as_secs_f64();
        m.sync_length.observe(job[0], length);
        m.syncs.with_label_values(&job).inc();
        m.syncs_failed.with_label_values(&job).inc_by(self.invalid);
        m.pool_targets.with_label_values(&job).set(self.loops.len() as i64);
        m.pool_target_limit.with_label_values(&job).set(self.config.target_limit as i64);
    }

    /// Relabels the groups that are new and forgets those that are gone.
    async fn read_groups(&mut self) -> Changes {
        let groups = self.groups.borrow_and_update().clone();
        let first = self.known.is_none();
        let known = self.known.take().unwrap_or_default();
        let mut before: HashMap<usize, Box<[Became]>> = HashMap::with_capacity(known.len());
        let mut old_groups = Vec::with_capacity(known.len());
        for KnownGroup { group, targets } in known {
            before.insert(Arc::as_ptr(&group).addr(), targets);
            // An address says which group it was only as long as the group is not freed.
            old_groups.push(group);
        }
        let mut changes = Changes::default();
        let mut now = Vec::with_capacity(groups.len());
        let mut labels = LabelsBuilder::new();
        let mut relabeled = 0;
        for group in groups.iter() {
            let targets = match before.remove(&Arc::as_ptr(group).addr()) {
                Some(targets) => targets,
                None => {
                    relabeled += group.targets.len();
                    self.enter(group, &mut labels, &mut changes)
                }
            };
            now.push(KnownGroup { group: Arc::clone(group), targets });
            if relabeled >= RELABELED_PER_TURN {
                relabeled = 0;
                tokio::task::yield_now().await;
            }
        }
        for became in before.into_values().flatten() {
            match became {
                Became::Active(hash) => self.leave(hash, &mut changes),
                Became::Invalid => self.invalid -= 1,
                Became::Dropped => {}
            }
        }
        if first {
            // Loops taken over from a pool before this one.
            changes.gone =
                self.loops.keys().filter(|hash| !self.members.contains_key(hash)).copied().collect();
        }
        self.show_dropped(&now);
        self.known = Some(now);
        changes
    }

    /// Makes the targets of a group that is new.
    fn enter(
        &mut self,
        group: &Arc<TargetGroup>,
        labels: &mut LabelsBuilder,
        changes: &mut Changes,
    ) -> Box<[Became]> {
        let make = |index: usize| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            match self.factory.make(group, index, labels) {
                Outcome::Active(target) => {
                    let hash = target.hash;
                    *self.members.entry(hash).or_default() += 1;
                    match self.loops.get(&hash) {
                        Some(running)
                            if Arc::ptr_eq(&running.job, &self.job)
                                || *running.job.config == *self.config =>
                        {
                            // Meta labels may have changed, which only the API shows.
                            running.target.state.lock().origin = Origin { group: Arc::clone(group), index };
                        }
                        _ => {
                            changes.fresh.entry(hash).or_insert(target);
                        }
                    }
                    Became::Active(hash)
                }
                Outcome::Dropped => Became::Dropped,
                Outcome::Invalid(reason) => {
                    self.invalid += 1;
                    let job = self.config.job_name.as_str();
                    tracing::error!(
                        scrape_pool = job,
                        group = &*group.source,
                        reason,
                        "creating a target failed"
                    );
                    Became::Invalid
                }
            }
        };
        (0..group.targets.len()).map(make).collect()
    }

    /// One target of this hash less.
    fn leave(&mut self, hash: u64, changes: &mut Changes) {
        let Some(count) = self.members.get_mut(&hash) else { return };
        *count -= 1;
        if *count == 0 {
            self.members.remove(&hash);
            changes.gone.push(hash);
        }
    }

    fn show_dropped(&self, known: &[KnownGroup]) {
        let keep = match self.config.keep_dropped_targets {
            0 => usize::MAX,
            keep => keep,
        };
        let dropped = known.iter().flat_map(|k| {
            let of_group =
                k.targets.iter().enumerate().filter(|(_, became)| matches!(became, Became::Dropped));
            of_group.map(|(i, _)| Origin {
                group: Arc::clone(&k.group),
                index: u32::try_from(i).unwrap_or(u32::MAX),
            })
        });
        let mut view = self.view.lock();
        view.dropped.clear();
        view.dropped_count = 0;
        for origin in dropped {
            view.dropped_count += 1;
            if view.dropped.len() < keep {
                view.dropped.push(origin);
            }
        }
        view.dropped.shrink_to_fit();
    }

    fn apply_target_limit(&self) {
        let (targets, limit) = (self.loops.len(), self.config.target_limit);
        let over = (limit > 0 && targets > limit).then_some((targets, limit));
        if over.is_some() {
            self.services.metrics.exceeded_target_limit.inc();
        }
        // Loops taken over as they run have their job of before.
        self.loops.values().for_each(|l| l.job.set_over_limit(over));
    }
}
