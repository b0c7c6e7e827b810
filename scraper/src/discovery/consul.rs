//! Consul discovery: a group for each service, a target for each of its instances.
//!
//! The catalog is watched when the services are not all named, or tags or a filter restrict them; each service is
//! watched by itself with blocking queries, so that a change arrives when it happens, but no more often than once per
//! refresh interval. A request that fails changes nothing. `client` speaks to Consul.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#consul_sd_config> and
//! <https://developer.hashicorp.com/consul/api-docs>.

mod client;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use self::client::{Catalog, Check, ConsulClient, Instance};
use super::config::ConsulConfig;
use super::error::DiscoveryError;
use super::manager::ProviderContext;
use super::naming::{host_port, sanitize};
use crate::target_group::{GroupLabels, TargetGroup};

/// Longest pause after a failure.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// What the watches of one configuration share.
struct Shared {
    config: ConsulConfig,
    context: ProviderContext,
    client: ConsulClient,
    datacenter: String,
    /// Services that have not been seen yet.
    awaited: Mutex<HashSet<String>>,
}

impl Shared {
    fn expect(&self, name: &str) {
        self.awaited.lock().insert(name.to_owned());
    }

    /// A service was seen, or is gone.
    fn seen(&self, name: &str) {
        let mut awaited = self.awaited.lock();
        awaited.remove(name);
        if awaited.is_empty() {
            self.context.sink.mark_synced();
        }
    }
}

/// Watches until the task is aborted.
pub(super) async fn run(config: ConsulConfig, context: ProviderContext) {
    let client = match ConsulClient::new(&config, &context.options.user_agent, Arc::clone(&context.clock)) {
        Ok(client) => client,
        Err(error) => return failed(&context, &error, "Consul cannot be asked"),
    };
    let shared = Arc::new(connect(config, context, client).await);
    let mut watches =
        Watches { shared: Arc::clone(&shared), tasks: JoinSet::new(), services: HashMap::new() };
    let config = &shared.config;
    if config.services.is_empty() || !config.tags.is_empty() || !config.filter.is_empty() {
        watches.follow_catalog().await;
    } else {
        config.services.iter().for_each(|name| shared.expect(name));
        config.services.iter().for_each(|name| watches.start(name));
        // Each ends only with this task.
        while watches.tasks.join_next().await.is_some() {}
    }
}

/// Finds out which datacenter this is; tries until it is told.
async fn connect(config: ConsulConfig, context: ProviderContext, client: ConsulClient) -> Shared {
    let mut failures = 0;
    loop {
        if !config.datacenter.is_empty() {
            let datacenter = config.datacenter.clone();
            return Shared { config, context, client, datacenter, awaited: Mutex::default() };
        }
        match client.datacenter().await {
            Ok(datacenter) => {
                return Shared { config, context, client, datacenter, awaited: Mutex::default() };
            }
            Err(error) => {
                failed(&context, &error, "Consul does not say which datacenter it is");
                sleep(retry_pause(&config, &mut failures)).await;
            }
        }
    }
}

fn failed(context: &ProviderContext, error: &DiscoveryError, what: &str) {
    tracing::error!(job = context.job, %error, "{what}; known targets stay");
    context.metrics.consul_failures.inc();
}

fn retry_pause(config: &ConsulConfig, failures: &mut u32) -> Duration {
    let pause = Duration::from_millis(config.refresh_interval_ms).min(Duration::from_secs(1));
    let pause = pause.saturating_mul(1 << (*failures).min(16)).min(RETRY_MAX);
    *failures = failures.saturating_add(1);
    pause
}

fn refreshing(config: &ConsulConfig) -> Interval {
    let mut ticks = interval(Duration::from_millis(config.refresh_interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

struct Watches {
    shared: Arc<Shared>,
    /// Ends all of them when dropped.
    tasks: JoinSet<()>,
    services: HashMap<String, AbortHandle>,
}

impl Watches {
    fn start(&mut self, name: &str) {
        let watch = follow_service(Arc::clone(&self.shared), name.to_owned());
        self.services.insert(name.to_owned(), self.tasks.spawn(watch));
    }

    async fn follow_catalog(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut ticks = refreshing(&shared.config);
        let mut index = 0;
        let mut failures = 0;
        loop {
            ticks.tick().await;
            let timer = shared.context.metrics.consul_services().start_timer();
            let answer = shared.client.catalog(&shared.config, index).await;
            drop(timer);
            match answer {
                Ok((now, _)) if now == index => failures = 0,
                Ok((now, catalog)) => {
                    (index, failures) = (now, 0);
                    self.adopt(&catalog);
                }
                Err(error) => {
                    failed(&shared.context, &error, "Consul's list of services could not be read");
                    sleep(retry_pause(&shared.config, &mut failures)).await;
                }
            }
        }
    }

    /// Watches services that are new, and forgets those that are gone.
    fn adopt(&mut self, catalog: &Catalog) {
        let shared = Arc::clone(&self.shared);
        let mut new = Vec::new();
        for (name, tags) in catalog {
            let has = |tag: &String| tags.iter().flatten().any(|known| known == tag);
            let named = shared.config.services.is_empty() || shared.config.services.contains(name);
            if named && shared.config.tags.iter().all(has) && !self.services.contains_key(name) {
                shared.expect(name);
                new.push(name);
            }
        }
        // All of them are expected before the first can answer.
        new.into_iter().for_each(|name| self.start(name));
        self.services.retain(|name, watch| {
            let stays = catalog.contains_key(name);
            if !stays {
                watch.abort();
                shared.context.sink.update([(name.as_str().into(), None)]);
                shared.seen(name);
            }
            stays
        });
        if self.services.is_empty() {
            shared.context.sink.mark_synced();
        }
    }
}

async fn follow_service(shared: Arc<Shared>, name: String) {
    let mut ticks = refreshing(&shared.config);
    let mut index = 0;
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let timer = shared.context.metrics.consul_service().start_timer();
        let answer = shared.client.service(&shared.config, &name, index).await;
        drop(timer);
        match answer {
            Ok((now, _)) if now == index => failures = 0,
            Ok((now, instances)) => {
                (index, failures) = (now, 0);
                let group = group(&name, &shared.datacenter, &shared.config.tag_separator, &instances);
                shared.context.sink.update([(Arc::clone(&group.source), Some(group))]);
                shared.seen(&name);
            }
            Err(error) => {
                failed(&shared.context, &error, "the instances of a Consul service could not be read");
                sleep(retry_pause(&shared.config, &mut failures)).await;
            }
        }
    }
}

fn group(name: &str, datacenter: &str, tag_separator: &str, instances: &[Instance]) -> TargetGroup {
    TargetGroup {
        source: name.into(),
        labels: GroupLabels::from_pairs([("__meta_consul_service", name), ("__meta_consul_dc", datacenter)]),
        targets: instances.iter().map(|instance| target(tag_separator, instance)).collect(),
    }
}

/// The groups of an answer, be it of the catalog or of a service; for `fuzz/`.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn groups_of(answer: &[u8]) -> Vec<TargetGroup> {
    let catalog: Catalog = serde_json::from_slice(answer).unwrap_or_default();
    let instances: Vec<Instance> = serde_json::from_slice(answer).unwrap_or_default();
    let names = catalog.keys().map(String::as_str).chain(["a"]);
    names.map(|name| group(name, "dc", ",", &instances)).collect()
}

fn target(separator: &str, instance: &Instance) -> GroupLabels {
    let Instance { node, service, checks } = instance;
    // A service that is registered from afar has an address of its own.
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    // The separator stands around the tags too, so that expressions need not know which tag is first.
    let tags = format!("{separator}{}{separator}", service.tags.join(separator));
    let meta = |name: &str| format!("__meta_consul_{name}");
    let mut labels = vec![
        ("__address__".to_owned(), host_port(host, service.port)),
        (meta("address"), node.address.clone()),
        (meta("node"), node.name.clone()),
        (meta("namespace"), service.namespace.clone()),
        (meta("partition"), service.partition.clone()),
        (meta("tags"), tags),
        (meta("service_address"), service.address.clone()),
        (meta("service_port"), service.port.to_string()),
        (meta("service_id"), service.id.clone()),
        (meta("health"), health(checks).to_owned()),
    ];
    for (family, entries) in [
        ("metadata", &node.meta),
        ("service_metadata", &service.meta),
        ("tagged_address", &node.tagged_addresses),
    ] {
        let entries = entries.iter().flatten();
        labels.extend(
            entries.map(|(name, value)| (meta(&format!("{family}_{}", sanitize(name))), value.clone())),
        );
    }
    GroupLabels::from_pairs(labels)
}

/// The worst of all checks; empty when one says something unknown.
fn health(checks: &[Check]) -> &'static str {
    let mut worst = 0;
    for check in checks {
        let level = match check.status.as_str() {
            _ if check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance:") => 3,
            "critical" => 2,
            "warning" => 1,
            "passing" => 0,
            _ => return "",
        };
        worst = worst.max(level);
    }
    ["passing", "warning", "critical", "maintenance"][worst]
}

#[cfg(test)]
mod tests;
