//! Alerts on their way out: the notifier, fed with the Alertmanagers that discovery finds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Clock;
use prometheus::Registry;
use rules::notifier::endpoint::TargetGroup;
use rules::notifier::{Notifier, NotifierConfig, NotifierOptions, SetHandle};
use rules::{NotifyFn, Timing};
use scraper::TargetGroupReceiver;
use scraper::discovery::{DiscoveryManager, DiscoveryOptions};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::cli::AlertFlags;
use crate::config::settings::Settings;

/// The notifier and what finds Alertmanagers for it.
pub struct AlertSending {
    notifier: Arc<Notifier>,
    discovery: DiscoveryManager,
    /// One for each set: takes what is discovered to the notifier.
    following: Mutex<Vec<JoinHandle<()>>>,
}

impl AlertFlags {
    /// When alerts are sent again and restored.
    pub fn timing(&self) -> Timing {
        Timing {
            resend_delay_ms: self.resend_delay.ms(),
            outage_tolerance_ms: self.outage_tolerance.ms(),
            grace_period_ms: self.grace_period.ms(),
        }
    }
}

impl AlertSending {
    /// Without Alertmanagers until [`AlertSending::apply`].
    ///
    /// # Errors
    /// When the metrics cannot be registered.
    pub fn new(flags: &AlertFlags, clock: Arc<dyn Clock>, registry: &Registry) -> anyhow::Result<Self> {
        let options = NotifierOptions {
            queue_capacity: flags.queue_capacity,
            batch_size: flags.batch_size,
            drain_on_shutdown: !flags.no_drain,
            ..NotifierOptions::default()
        };
        let discovery = DiscoveryOptions { name: "notify".into(), ..DiscoveryOptions::default() };
        Ok(Self {
            notifier: Notifier::new(options, clock.clone(), registry, Handle::current())?,
            discovery: DiscoveryManager::new(clock, registry, discovery)?,
            following: Mutex::default(),
        })
    }

    /// Where rules hand over their alerts.
    pub fn notify(&self) -> NotifyFn {
        let notifier = self.notifier.clone();
        Arc::new(move |alerts| notifier.send(alerts))
    }

    /// Puts the section `alerting` in force.
    ///
    /// # Errors
    /// Settings of an HTTP client that cannot be used; nothing changes then.
    pub fn apply(&self, settings: &Settings) -> anyhow::Result<()> {
        let (configs, discovery): (Vec<_>, Vec<_>) = settings.alerting.sets.iter().cloned().unzip();
        let handles = self.notifier.apply(NotifierConfig {
            external_labels: settings.external_labels.clone(),
            alert_relabel: settings.alerting.relabel.clone(),
            alertmanagers: configs,
        })?;
        let named = discovery.into_iter().enumerate().map(|(i, d)| (format!("config-{i}"), d));
        let receivers = self.discovery.apply(named.collect());
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.drain(..).for_each(|task| task.abort());
        let new = handles
            .into_iter()
            .zip(receivers)
            .map(|(handle, (_, r))| tokio::spawn(follow(handle, r, FIRST_PATIENCE)));
        following.extend(new);
        Ok(())
    }

    /// Addresses of the Alertmanagers in use, and of those that relabeling dropped.
    pub fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        self.notifier.alertmanagers()
    }

    /// Sends what waits, unless that is not wanted, and ends.
    pub async fn stop(&self) {
        self.following.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
        self.notifier.stop().await;
        self.discovery.stop();
    }
}

/// How long Alertmanagers of before a reload stay while discovery finds none.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// The first list of a changed set may be empty because discovery has just begun; the Alertmanagers known before stay
/// until it has found something, and for `patience` at most.
async fn follow(handle: SetHandle, mut receiver: TargetGroupReceiver, patience: Duration) {
    if receiver.borrow_and_update().is_empty()
        && let Ok(Err(_)) = tokio::time::timeout(patience, receiver.changed()).await
    {
        return;
    }
    loop {
        let groups = receiver.borrow_and_update().clone();
        let pairs = |labels: &scraper::target_group::GroupLabels| {
            labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
        };
        let groups: Vec<TargetGroup> = groups
            .iter()
            .map(|g| TargetGroup { labels: pairs(&g.labels), targets: g.targets.iter().map(pairs).collect() })
            .collect();
        handle.sync(&groups);
        if receiver.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::config::Config;

    #[tokio::test(flavor = "multi_thread")]
    async fn alertmanagers_that_are_no_longer_found_go() {
        let flags = crate::cli::Cli::parse_from(["almanac"]).scraper.alerts;
        let sending =
            AlertSending::new(&flags, model::SystemClock::shared(), &Registry::new()).expect("settings");
        for (targets, count) in [("['a:1', 'b:1']", 2), ("[]", 0), ("['c:1']", 1)] {
            let text = format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: {targets}}}]}}]}}");
            let config = Config::parse(&text, Path::new("")).expect("valid");
            sending.apply(&config.settings().expect("built in")).expect("usable");
            let begun = tokio::time::Instant::now();
            while sending.alertmanagers().0.len() != count {
                assert!(begun.elapsed() < 4 * FIRST_PATIENCE, "{targets}: {:?}", sending.alertmanagers());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        sending.stop().await;
    }
}
