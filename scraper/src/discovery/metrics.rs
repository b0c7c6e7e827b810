//! Discovery's own metrics, named and labelled as Prometheus has them.
//!
//! Event counts of Kubernetes are per watch; Prometheus opens a watch per job and so counts an event once per job.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::config::Role;
use super::error::DiscoveryError;

/// All metrics of one discovery manager.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) failed_configs: Gauge,
    pub(super) discovered_targets: IntGaugeVec,
    pub(super) received_updates: IntCounter,
    pub(super) sent_updates: IntCounter,
    pub(super) last_update_seconds: GaugeVec,
    pub(super) refresh_failures: IntCounterVec,
    pub(super) file_read_errors: IntCounter,
    pub(super) file_mtime_seconds: GaugeVec,
    pub(super) http_failures: IntCounter,
    pub(super) dns_lookups: IntCounter,
    pub(super) dns_failures: IntCounter,
    pub(super) consul_failures: IntCounter,
    pub(super) kubernetes_events: IntCounterVec,
    pub(super) kubernetes_failures: IntCounter,
}

impl Metrics {
    /// Creates and registers the metrics; `name` tells several managers apart. Metrics that `registry` already has are
    /// left as they are.
    pub(super) fn new(registry: &Registry, name: &str) -> Result<Self, DiscoveryError> {
        let own = |metric: &str, help: &str| Opts::new(metric, help).const_label("name", name);
        let metrics = Self {
            failed_configs: Gauge::with_opts(own(
                "prometheus_sd_failed_configs",
                "Service discovery configurations that could not be set up.",
            ))?,
            discovered_targets: IntGaugeVec::new(
                own("prometheus_sd_discovered_targets", "Targets found, before relabeling."),
                &["config"],
            )?,
            received_updates: IntCounter::with_opts(own(
                "prometheus_sd_received_updates_total",
                "Updates received from discovery providers.",
            ))?,
            sent_updates: IntCounter::with_opts(own(
                "prometheus_sd_updates_total",
                "Updates handed to the consumers of discovery.",
            ))?,
            last_update_seconds: GaugeVec::new(
                own("prometheus_sd_last_update_timestamp_seconds", "When the last update was handed on."),
                &["config"],
            )?,
            refresh_failures: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_refresh_failures_total",
                    "Failed refreshes of a discovery mechanism.",
                ),
                &["mechanism", "config"],
            )?,
            file_read_errors: IntCounter::new(
                "prometheus_sd_file_read_errors_total",
                "Target files that could not be read or understood.",
            )?,
            file_mtime_seconds: GaugeVec::new(
                Opts::new(
                    "prometheus_sd_file_mtime_seconds",
                    "Modification time of a target file when it was read.",
                ),
                &["filename"],
            )?,
            http_failures: IntCounter::new(
                "prometheus_sd_http_failures_total",
                "Fetches of target groups by HTTP that failed.",
            )?,
            dns_lookups: IntCounter::new("prometheus_sd_dns_lookups_total", "DNS names looked up.")?,
            dns_failures: IntCounter::new(
                "prometheus_sd_dns_lookup_failures_total",
                "DNS names that could not be looked up.",
            )?,
            consul_failures: IntCounter::new(
                "prometheus_sd_consul_rpc_failures_total",
                "Requests to Consul that failed.",
            )?,
            kubernetes_events: IntCounterVec::new(
                Opts::new("prometheus_sd_kubernetes_events_total", "Kubernetes events handled."),
                &["role", "event"],
            )?,
            kubernetes_failures: IntCounter::new(
                "prometheus_sd_kubernetes_failures_total",
                "Requests to list or watch Kubernetes objects that failed.",
            )?,
        };
        for role in Role::ALL {
            for event in ["add", "delete", "update"] {
                metrics.kubernetes_events.with_label_values(&[role.as_str(), event]);
            }
        }
        metrics.register(registry)?;
        Ok(metrics)
    }

    fn register(&self, registry: &Registry) -> Result<(), DiscoveryError> {
        let collectors: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(self.failed_configs.clone()),
            Box::new(self.discovered_targets.clone()),
            Box::new(self.received_updates.clone()),
            Box::new(self.sent_updates.clone()),
            Box::new(self.last_update_seconds.clone()),
            Box::new(self.refresh_failures.clone()),
            Box::new(self.file_read_errors.clone()),
            Box::new(self.file_mtime_seconds.clone()),
            Box::new(self.http_failures.clone()),
            Box::new(self.dns_lookups.clone()),
            Box::new(self.dns_failures.clone()),
            Box::new(self.consul_failures.clone()),
            Box::new(self.kubernetes_events.clone()),
            Box::new(self.kubernetes_failures.clone()),
        ];
        for collector in collectors {
            match registry.register(collector) {
                Ok(()) | Err(prometheus::Error::AlreadyReg) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
