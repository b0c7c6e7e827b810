//! Sends alerts to Alertmanagers: one queue and one loop for each, so that a slow one holds nobody up.
//!
//! Reading order: this file (who is told what, and reload), [`endpoint`] (from discovered targets to addresses),
//! `send_loop` (one Alertmanager in time), `payload` (the request), `metrics`.
//!
//! Invariants: [`Notifier::send`] never waits for a network; a full queue drops its oldest alerts and counts them. A
//! reload keeps the queues of what is configured as before.
//!
//! Spec: <https://prometheus.io/docs/alerting/latest/clients/> and version 2 of the Alertmanager's API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use httpclient::{Client, ClientConfig};
use model::relabel::{self, RelabelRule};
use model::{Clock, Labels, LabelsBuilder};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use crate::error::RulesError;

pub mod endpoint;
mod metrics;
mod payload;
mod send_loop;

use endpoint::TargetGroup;
use metrics::Metrics;
use send_loop::{Queue, SendLoop, Shared};

/// What Alertmanagers are told of an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// When it began to fire.
    pub starts_at_ms: i64,
    /// When it was resolved, or until when it holds if nothing more is heard.
    pub ends_at_ms: i64,
    /// Shows the rule's expression.
    pub generator_url: Arc<str>,
}

/// Settings that do not come from the configuration file.
#[derive(Clone, Debug)]
pub struct NotifierOptions {
    /// Alerts that wait for one Alertmanager.
    pub queue_capacity: usize,
    /// Alerts of one request.
    pub batch_size: usize,
    /// Whether what waits at the end is sent still.
    pub drain_on_shutdown: bool,
    /// `User-Agent` of requests.
    pub user_agent: String,
}

impl Default for NotifierOptions {
    fn default() -> Self {
        Self {
            queue_capacity: 10_000,
            batch_size: 256,
            drain_on_shutdown: true,
            user_agent: concat!("almanac/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Where alerts go, as the configuration file says.
#[derive(Clone, Debug, Default)]
pub struct NotifierConfig {
    /// Labels that alerts get unless they have them.
    pub external_labels: Labels,
    /// Rules for alerts on their way to any Alertmanager.
    pub alert_relabel: Vec<RelabelRule>,
    /// Sets of Alertmanagers.
    pub alertmanagers: Vec<AlertmanagerConfig>,
}

/// Alertmanagers that are found and spoken to in the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertmanagerConfig {
    /// `http` or `https`, unless relabeling says otherwise.
    pub scheme: String,
    /// Before `/api/v2/alerts`.
    pub path_prefix: String,
    /// Longest time for one request.
    pub timeout: Duration,
    /// How to speak to them.
    pub http: ClientConfig,
    /// Rules for what discovery finds.
    pub relabel: Vec<RelabelRule>,
    /// Rules for alerts on their way to these Alertmanagers.
    pub alert_relabel: Vec<RelabelRule>,
}

/// Sends alerts. Lives on a tokio runtime; all methods but [`Notifier::send`] are called from within it.
pub struct Notifier {
    options: Arc<NotifierOptions>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    runtime: Handle,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    external_labels: Labels,
    alert_relabel: Vec<RelabelRule>,
    sets: Vec<Arc<Set>>,
    stopped: bool,
}

/// One set of Alertmanagers with its loops.
struct Set {
    config: AlertmanagerConfig,
    client: Client,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    dropped: Vec<String>,
    /// By address.
    loops: BTreeMap<String, SendLoop>,
    /// Another set has taken over: what discovery says to this one counts no more.
    retired: bool,
}

/// A set of Alertmanagers, for whoever follows its discovery.
pub struct SetHandle {
    set: Arc<Set>,
    notifier: Arc<Notifier>,
}

// === impl Notifier ===

impl Notifier {
    /// A notifier without Alertmanagers.
    ///
    /// # Errors
    /// When the metrics cannot be registered.
    pub fn new(
        options: NotifierOptions,
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
        runtime: Handle,
    ) -> Result<Arc<Self>, RulesError> {
        let metrics = Arc::new(Metrics::new(registry, &clock)?);
        metrics.queue_capacity.set(i64::try_from(options.queue_capacity).unwrap_or(i64::MAX));
        Ok(Arc::new(Self { options: Arc::new(options), clock, metrics, runtime, state: RwLock::default() }))
    }

    /// Puts a configuration in force and returns a handle for each of its sets, in order. A set that is configured as one
    /// before goes on with its Alertmanagers and queues; loops of what is gone send what they still have, and end.
    ///
    /// # Errors
    /// Settings of an HTTP client that cannot be used; nothing changes then.
    pub fn apply(self: &Arc<Self>, config: NotifierConfig) -> Result<Vec<SetHandle>, RulesError> {
        let new = config.alertmanagers.into_iter().map(|config| {
            let client = Client::new(config.http.clone(), Arc::clone(&self.clock));
            let client = client.map_err(RulesError::Alertmanager)?;
            Ok(Arc::new(Set { config, client, members: Mutex::default() }))
        });
        let new = new.collect::<Result<Vec<_>, RulesError>>()?;
        let mut state = self.state.write();
        for set in &new {
            let same = state.sets.iter().position(|old| old.config == set.config);
            if let Some(old) = same.map(|i| state.sets.remove(i)) {
                let mut members = old.members.lock();
                *set.members.lock() = std::mem::take(&mut *members);
                members.retired = true;
            }
        }
        for gone in state.sets.drain(..) {
            let mut members = gone.members.lock();
            members.retired = true;
            // They end by themselves.
            std::mem::take(&mut members.loops).into_values().for_each(|l| drop(l.stop()));
        }
        state.external_labels = config.external_labels;
        state.alert_relabel = config.alert_relabel;
        state.sets = new;
        self.metrics.discovered.set(state.count());
        let handle = |set: &Arc<Set>| SetHandle { set: Arc::clone(set), notifier: Arc::clone(self) };
        Ok(state.sets.iter().map(handle).collect())
    }

    /// Queues alerts for all Alertmanagers. Never waits for one.
    pub fn send(&self, alerts: Vec<Alert>) {
        let state = self.state.read();
        if state.stopped {
            return;
        }
        let alerts: Vec<Arc<Alert>> = alerts
            .into_iter()
            .filter_map(|alert| relabeled(&state.alert_relabel, &state.external_labels, Arc::new(alert)))
            .collect();
        for set in &state.sets {
            set.send(&alerts);
        }
    }

    /// Addresses of the Alertmanagers in use, and of those that relabeling dropped.
    #[must_use]
    pub fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        let (mut active, mut dropped) = (Vec::new(), Vec::new());
        for set in &self.state.read().sets {
            let members = set.members.lock();
            active.extend(members.loops.keys().cloned());
            dropped.extend(members.dropped.iter().cloned());
        }
        (active, dropped)
    }

    /// Takes no more alerts, sends what waits if that is wanted, and ends.
    pub async fn stop(&self) {
        let sets = {
            let mut state = self.state.write();
            state.stopped = true;
            std::mem::take(&mut state.sets)
        };
        let mut ends = Vec::new();
        for set in sets {
            let mut members = set.members.lock();
            members.retired = true;
            ends.extend(std::mem::take(&mut members.loops).into_values().map(SendLoop::stop));
        }
        for end in ends {
            if let Err(error) = end.await {
                tracing::error!(%error, "a loop that sends alerts broke down");
            }
        }
    }
}

impl State {
    fn count(&self) -> i64 {
        let count: usize = self.sets.iter().map(|set| set.members.lock().loops.len()).sum();
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

impl Set {
    fn send(&self, alerts: &[Arc<Alert>]) {
        let members = self.members.lock();
        if members.loops.is_empty() || alerts.is_empty() {
            return;
        }
        let own: Vec<Arc<Alert>>;
        let alerts = if self.config.alert_relabel.is_empty() {
            alerts
        } else {
            let relabel =
                |alert: &Arc<Alert>| relabeled(&self.config.alert_relabel, &Labels::empty(), alert.clone());
            own = alerts.iter().filter_map(relabel).collect();
            &own
        };
        members.loops.values().for_each(|l| l.add(alerts));
    }
}

/// The alert as it is sent; `None` when a rule drops it.
fn relabeled(rules: &[RelabelRule], external_labels: &Labels, alert: Arc<Alert>) -> Option<Arc<Alert>> {
    if rules.is_empty() && external_labels.is_empty() {
        return Some(alert);
    }
    let mut labels = LabelsBuilder::from_labels(&alert.labels);
    for (name, value) in external_labels.iter() {
        if alert.labels.value(name).is_empty() {
            labels.set(name, value);
        }
    }
    if !relabel::process(rules, &mut labels) {
        return None;
    }
    let labels = labels.build();
    if labels == alert.labels {
        return Some(alert);
    }
    Some(Arc::new(Alert { labels, ..Arc::unwrap_or_clone(alert) }))
}

// === impl SetHandle ===

impl SetHandle {
    /// Takes over what discovery knows now: starts loops of Alertmanagers that are new, ends those of the ones that are
    /// gone.
    pub fn sync(&self, groups: &[TargetGroup]) {
        let set = &self.set;
        let found = endpoint::endpoints(groups, &set.config);
        {
            let mut members = set.members.lock();
            if members.retired {
                return;
            }
            members.dropped = found.dropped;
            let mut old = std::mem::take(&mut members.loops);
            for url in found.active {
                let running = old.remove(&url).or_else(|| members.loops.remove(&url));
                let running = running.unwrap_or_else(|| self.start(url.clone()));
                members.loops.insert(url, running);
            }
            // They end by themselves.
            old.into_values().for_each(|l| drop(l.stop()));
        }
        let notifier = &self.notifier;
        notifier.metrics.discovered.set(notifier.state.read().count());
    }

    fn start(&self, url: String) -> SendLoop {
        let notifier = &self.notifier;
        SendLoop::start(
            Shared {
                metrics: notifier.metrics.of(&url),
                url,
                client: self.set.client.clone(),
                timeout: self.set.config.timeout,
                options: Arc::clone(&notifier.options),
                clock: Arc::clone(&notifier.clock),
                queue: Queue::default(),
            },
            &notifier.runtime,
        )
    }
}

#[cfg(test)]
mod tests;
