//! What the tests of discovery share: a quick manager and patient waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::SystemClock;

use super::kubernetes::Clusters;
use super::manager::ProviderContext;
use super::metrics::Metrics;
use super::sink::GroupSink;
use super::{DiscoveryManager, DiscoveryOptions};
use crate::target_group::{TargetGroup, TargetGroupReceiver, TargetGroups};

/// Longest time a test waits for something that must happen; generous because machines may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn manager() -> (DiscoveryManager, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let options = DiscoveryOptions { debounce_ms: 10, file_poll_ms: 20, ..DiscoveryOptions::default() };
    (DiscoveryManager::new(SystemClock::shared(), &registry, options).unwrap(), registry)
}

/// What a provider is given that runs by itself.
pub(super) fn context() -> (ProviderContext, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let clock = SystemClock::shared();
    let metrics = Arc::new(Metrics::new(&registry, "scrape", Arc::clone(&clock)).unwrap());
    let context = ProviderContext {
        job: "job".to_owned(),
        sink: Arc::new(GroupSink::new(Arc::clone(&metrics))),
        clusters: Arc::new(Clusters::new(Arc::clone(&metrics), "test")),
        clock,
        metrics,
        options: Arc::new(DiscoveryOptions::default()),
    };
    (context, registry)
}

/// Waits until the list satisfies `done`.
pub(super) async fn wait(
    receiver: &mut TargetGroupReceiver,
    done: impl FnMut(&TargetGroups) -> bool,
) -> TargetGroups {
    if let Ok(groups) = tokio::time::timeout(PATIENCE, receiver.wait_for(done)).await {
        return groups.unwrap().clone();
    }
    panic!("waited in vain; the list is {:#?}", receiver.borrow())
}

/// All addresses, sorted.
pub(super) fn addresses(groups: &TargetGroups) -> Vec<String> {
    let targets = groups.iter().flat_map(|group| &group.targets);
    let mut addresses: Vec<String> = targets.map(|target| target["__address__"].to_owned()).collect();
    addresses.sort();
    addresses
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn group(addresses: &[&str]) -> TargetGroup {
    let targets = addresses.iter().map(|address| labels(&[("__address__", address)]).into()).collect();
    TargetGroup { targets, ..TargetGroup::default() }
}

/// The value of a counter or gauge, 0 when it is absent.
pub(super) fn metric(registry: &prometheus::Registry, name: &str, wanted: &[(&str, &str)]) -> f64 {
    let families = registry.gather();
    let metrics =
        families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
    let fits = |metric: &&prometheus::proto::Metric| {
        wanted
            .iter()
            .all(|(n, v)| metric.get_label().iter().any(|label| label.name() == *n && label.value() == *v))
    };
    metrics.filter(fits).map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
}
