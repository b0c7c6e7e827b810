//! DNS discovery: a group for each name, a target for each record.
//!
//! Reading order: this file (from records to targets), [`resolver`] (which names and servers are asked), [`message`]
//! (the bytes). The client is our own: what is needed is five record types and one question a message, less than
//! configuring a resolver crate, whose caches and defaults would have to be switched off to follow `resolv.conf` as
//! Prometheus does.
//!
//! A name that cannot be resolved keeps its targets; a name that does not exist has none. Spec:
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#dns_sd_config>.

mod message;
mod resolver;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use self::message::{Record, RecordData};
use self::resolver::Resolver;
use super::config::DnsConfig;
use super::manager::ProviderContext;
use super::naming::host_port;
use crate::target_group::{GroupLabels, TargetGroup};

/// Asks until the task is aborted.
pub(super) async fn run(config: DnsConfig, context: ProviderContext) {
    let resolver =
        Resolver::new(&context.options.resolv_conf, context.options.dns_port, Arc::clone(&context.clock));
    let mut ticks = tokio::time::interval(Duration::from_millis(config.refresh_interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    context.metrics.refreshes("dns", &context.job);
    loop {
        ticks.tick().await;
        let begun = context.clock.monotonic();
        let names = config.names.iter().map(|name| look_up(name, &config, &resolver, &context));
        let found = join_all(names).await;
        let complete = found.iter().all(Option::is_some);
        // A name that cannot be resolved counts as a failed lookup, the refresh as such goes on.
        let took = context.clock.monotonic().saturating_sub(begun);
        context.metrics.refreshed("dns", &context.job, took, false);
        context
            .sink
            .update(found.into_iter().flatten().map(|group| (Arc::clone(&group.source), Some(group))));
        if complete {
            context.sink.mark_synced();
        }
    }
}

/// The group of a name; `None` when nobody could say.
async fn look_up(
    name: &str,
    config: &DnsConfig,
    resolver: &Resolver,
    context: &ProviderContext,
) -> Option<TargetGroup> {
    context.metrics.dns_lookups.inc();
    match resolver.look_up(name, config.record).await {
        Ok(records) => Some(group(name, config.port, &records)),
        Err(error) => {
            context.metrics.dns_failures.inc();
            tracing::error!(job = context.job, %error, "name not resolved, its targets stay");
            None
        }
    }
}

fn group(name: &str, port: u16, records: &[Record]) -> TargetGroup {
    TargetGroup {
        source: name.into(),
        labels: GroupLabels::default(),
        targets: records.iter().filter_map(|record| target(name, port, record)).collect(),
    }
}

/// The question that [`group_of`] takes answers to.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn question_of(name: &str, record: super::config::DnsRecord) -> Vec<u8> {
    message::question(0, name, record, true).expect("the name of a test")
}

/// The group of an answer; for `fuzz/`.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn group_of(name: &str, record: super::config::DnsRecord, answer: &[u8]) -> Option<TargetGroup> {
    let answer = message::answer(answer, &question_of(name, record)).ok()??;
    Some(group(name, 80, &answer.records))
}

/// The target of a record; `None` for what only leads to the others.
fn target(name: &str, port: u16, record: &Record) -> Option<GroupLabels> {
    let bare = |host: &str| host.trim_end_matches('.').to_owned();
    let mut labels = vec![("__meta_dns_name", name.to_owned())];
    let address = match &record.data {
        RecordData::A(address) => host_port(&address.to_string(), port),
        RecordData::Aaaa(address) => match address.to_ipv4_mapped() {
            Some(v4) => host_port(&v4.to_string(), port),
            None => host_port(&address.to_string(), port),
        },
        RecordData::Srv { port, target } => {
            labels.push(("__meta_dns_srv_record_target", target.clone()));
            labels.push(("__meta_dns_srv_record_port", port.to_string()));
            host_port(&bare(target), *port)
        }
        RecordData::Mx(host) => {
            labels.push(("__meta_dns_mx_record_target", host.clone()));
            host_port(&bare(host), port)
        }
        RecordData::Ns(host) => {
            labels.push(("__meta_dns_ns_record_target", host.clone()));
            host_port(&bare(host), port)
        }
        RecordData::Cname => return None,
        RecordData::Other(kind) => {
            tracing::warn!(name, kind, "a record of another type than asked for is left out");
            return None;
        }
    };
    labels.push(("__address__", address));
    Some(GroupLabels::from_pairs(labels))
}

#[cfg(test)]
mod tests;
