//! All targets of one job: follows the groups that discovery sends, and keeps one scrape loop per target.
//!
//! A loop whose target and configuration are unchanged is left alone. One whose series go on under another configuration
//! or URL hands its cache to its successor, so that nothing becomes stale in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::ScrapeConfig;
use crate::manager::DroppedTarget;
use crate::scrape_loop::{LoopHandle, Services};
use crate::target::{Outcome, Target, from_group};
use crate::target_group::TargetGroupReceiver;

/// Loops by the hash of their targets.
pub(crate) type Loops = HashMap<u64, LoopHandle>;

/// What the API sees of a pool.
#[derive(Default)]
pub(crate) struct PoolView {
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) dropped: Vec<DroppedTarget>,
    pub(crate) dropped_count: usize,
}

/// A running pool.
pub(crate) struct Pool {
    pub(crate) view: Arc<Mutex<PoolView>>,
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
        let follower =
            Follower { services, config: Arc::new(config), groups, loops, view: view.clone(), stopped };
        Self { view, stop, task: tokio::spawn(follower.run()) }
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
pub(crate) async fn end_all(loops: impl IntoIterator<Item = LoopHandle>) {
    join_all(loops.into_iter().map(LoopHandle::end)).await;
}

struct Follower {
    services: Arc<Services>,
    config: Arc<ScrapeConfig>,
    groups: TargetGroupReceiver,
    loops: Loops,
    view: Arc<Mutex<PoolView>>,
    stopped: watch::Receiver<bool>,
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
        let wanted = self.read_groups();
        let mut retired = Loops::new();
        let config = &self.config;
        let old = std::mem::take(&mut self.loops);
        for (hash, handle) in old {
            let unchanged = wanted.contains_key(&hash)
                && (Arc::ptr_eq(&handle.config, config) || *handle.config == **config);
            if unchanged { &mut self.loops } else { &mut retired }.insert(hash, handle);
        }
        for (hash, target) in wanted {
            if let Some(running) = self.loops.get(&hash) {
                // Meta labels may have changed, which only the API shows.
                let discovered = std::mem::take(&mut target.state.lock().discovered);
                running.target.state.lock().discovered = discovered;
                continue;
            }
            let predecessor = retired
                .iter()
                .find(|(h, l)| **h == hash || l.target.labels == target.labels)
                .map(|(h, _)| *h)
                .and_then(|h| retired.remove(&h));
            let handle =
                LoopHandle::spawn(self.services.clone(), self.config.clone(), Arc::new(target), predecessor);
            self.loops.insert(hash, handle);
        }
        self.apply_target_limit();
        self.view.lock().targets = self.loops.values().map(|l| l.target.clone()).collect();
        end_all(retired.into_values()).await;
        let m = &self.services.metrics;
        let job = [self.config.job_name.as_str()];
        let length = self.services.clock.monotonic().saturating_sub(start).as_secs_f64();
        m.sync_length.with_label_values(&job).observe(length);
        m.syncs.with_label_values(&job).inc();
        m.pool_targets.with_label_values(&job).set(self.loops.len() as i64);
        m.pool_target_limit.with_label_values(&job).set(self.config.target_limit as i64);
    }

    /// Targets of the groups as they are now, each once. Notes those dropped.
    fn read_groups(&mut self) -> HashMap<u64, Target> {
        let groups = self.groups.borrow_and_update().clone();
        let mut wanted = HashMap::new();
        let mut dropped = Vec::new();
        let mut dropped_count = 0;
        for group in groups.iter() {
            for outcome in from_group(group, &self.config) {
                match outcome {
                    Outcome::Active(target) => {
                        wanted.entry(target.hash).or_insert(*target);
                    }
                    Outcome::Dropped(discovered_labels) => {
                        dropped_count += 1;
                        let keep = self.config.keep_dropped_targets;
                        if keep == 0 || dropped.len() < keep {
                            let scrape_pool = self.config.job_name.clone();
                            dropped.push(DroppedTarget { discovered_labels, scrape_pool });
                        }
                    }
                    Outcome::Invalid(reason) => {
                        let job = self.config.job_name.as_str();
                        self.services.metrics.syncs_failed.with_label_values(&[job]).inc();
                        tracing::error!(
                            scrape_pool = job,
                            group = group.source,
                            reason,
                            "creating a target failed"
                        );
                    }
                }
            }
        }
        let mut view = self.view.lock();
        view.dropped = dropped;
        view.dropped_count = dropped_count;
        wanted
    }

    fn apply_target_limit(&self) {
        let (targets, limit) = (self.loops.len(), self.config.target_limit);
        let over = (limit > 0 && targets > limit).then_some((targets, limit));
        if over.is_some() {
            self.services.metrics.exceeded_target_limit.inc();
        }
        self.loops.values().for_each(|l| l.set_over_limit(over));
    }
}
