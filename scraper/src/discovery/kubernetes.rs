//! Kubernetes discovery: all six roles, with exactly the meta labels of Prometheus.
//!
//! This room is the only place that speaks to a Kubernetes API. Reading order: `object` (the fields that are read),
//! `packed` (how they are kept), `store` and `watch` (one list and watch), `cluster` (connections, and who shares a watch), `roles` (from changed
//! objects to groups), then one file per role; `meta_labels` and `backing_pods` hold what roles have in common,
//! `measured` counts requests, `inbox` what changed, `selector` the check of selectors.
//!
//! Leaves out: OpenID Connect and cloud-specific logins other than `exec` plugins in a kubeconfig.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config>.

mod backing_pods;
mod cluster;
mod endpoints;
mod endpointslice;
mod inbox;
mod ingress;
mod measured;
mod meta_labels;
mod node;
mod object;
mod packed;
mod pod;
mod roles;
pub(super) mod selector;
mod service;
mod store;
mod watch;

#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::roles::fuzz;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

pub(super) use self::cluster::Clusters;
use self::roles::RoleRunner;
use super::config::{KubernetesConfig, Role};
use super::manager::ProviderContext;

/// Pause before the own namespace is looked for again.
const OWN_NAMESPACE_RETRY: Duration = Duration::from_secs(1);

/// Keeps the groups of one configuration in step with its cluster until the task is aborted.
pub(super) async fn run(config: KubernetesConfig, context: ProviderContext) {
    let cluster = context.clusters.get(&config);
    let namespaces = namespaces(&config, &context).await;
    let waiting = AtomicUsize::new(namespaces.len());
    let runs = namespaces.iter().map(|namespace| {
        let runner = RoleRunner::new(&config, &cluster, namespace.as_deref());
        let synced = || {
            if waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                context.sink.mark_synced();
            }
        };
        runner.run(Arc::clone(&context.sink), synced)
    });
    join_all(runs).await;
}

/// The namespaces to watch; `None` stands for all of them.
async fn namespaces(config: &KubernetesConfig, context: &ProviderContext) -> Vec<Option<String>> {
    let wanted = &config.namespaces;
    if config.role == Role::Node || (wanted.names.is_empty() && !wanted.own_namespace) {
        return vec![None];
    }
    let mut names = wanted.names.clone();
    if wanted.own_namespace {
        names.push(own_namespace(context).await);
    }
    names.sort();
    names.dedup();
    names.into_iter().map(Some).collect()
}

async fn own_namespace(context: &ProviderContext) -> String {
    let mut failed_before = false;
    loop {
        match cluster::own_namespace() {
            Ok(namespace) => return namespace,
            Err(error) => {
                if !failed_before {
                    tracing::error!(job = context.job, %error, "namespaces.own_namespace works in a pod only");
                    failed_before = true;
                }
                tokio::time::sleep(OWN_NAMESPACE_RETRY).await;
            }
        }
    }
}
