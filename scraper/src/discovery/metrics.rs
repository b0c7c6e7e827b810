//! Discovery's own metrics, named and labelled as Prometheus has them.
//!
//! Event counts of Kubernetes are per watch; Prometheus opens a watch per job and so counts an event once per job.

use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use summary::{Summary, SummaryVec};

use super::config::Role;
use super::error::DiscoveryError;

/// Quantiles of durations.
const QUANTILES: &[f64] = &[0.5, 0.9, 0.99];
/// Bounds of durations of refreshes, in seconds.
const REFRESH_BOUNDS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// All metrics of one discovery manager.
pub(super) struct Metrics {
    pub(super) failed_configs: Gauge,
    pub(super) discovered_targets: IntGaugeVec,
    pub(super) received_updates: IntCounter,
    pub(super) sent_updates: IntCounter,
    pub(super) last_update_seconds: GaugeVec,
    /// A consumer takes an update whenever it comes, so that this stays zero.
    delayed_updates: IntCounter,
    refresh_failures: IntCounterVec,
    refresh_seconds: SummaryVec,
    refresh_histogram: HistogramVec,
    pub(super) file_read_errors: IntCounter,
    pub(super) file_watcher_errors: IntCounter,
    pub(super) file_scan_seconds: Summary,
    pub(super) file_mtime_seconds: GaugeVec,
    pub(super) http_failures: IntCounter,
    pub(super) dns_lookups: IntCounter,
    pub(super) dns_failures: IntCounter,
    pub(super) consul_failures: IntCounter,
    consul_seconds: SummaryVec,
    pub(super) kubernetes_events: IntCounterVec,
    pub(super) kubernetes_failures: IntCounter,
    /// By status code; `<error>` where there was no answer.
    pub(super) kubernetes_requests: IntCounterVec,
    /// Lists, by endpoint.
    pub(super) kubernetes_request_seconds: SummaryVec,
    pub(super) kubernetes_queue_items: IntCounterVec,
    pub(super) kubernetes_queue_depth: IntGaugeVec,
}

impl Metrics {
    /// Creates and registers the metrics; `name` tells several managers apart. Metrics that `registry` already has are
    /// left as they are.
    pub(super) fn new(
        registry: &Registry,
        name: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DiscoveryError> {
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
            delayed_updates: IntCounter::with_opts(own(
                "prometheus_sd_updates_delayed_total",
                "Updates that the consumers of discovery could not take at once.",
            ))?,
            refresh_seconds: SummaryVec::new(
                "prometheus_sd_refresh_duration_seconds",
                "Seconds that a refresh of a discovery mechanism took.",
                &["mechanism", "config"],
                QUANTILES,
                Arc::clone(&clock),
            )?,
            refresh_histogram: HistogramVec::new(
                HistogramOpts::new(
                    "prometheus_sd_refresh_duration_histogram_seconds",
                    "Seconds that a refresh of a discovery mechanism took.",
                )
                .buckets(REFRESH_BOUNDS.to_vec()),
                &["mechanism"],
            )?,
            file_watcher_errors: IntCounter::new(
                "prometheus_sd_file_watcher_errors_total",
                "Failures to watch target files for changes; they are looked at regularly all the same.",
            )?,
            file_scan_seconds: Summary::new(
                "prometheus_sd_file_scan_duration_seconds",
                "Seconds that a look at all target files took.",
                QUANTILES,
                Arc::clone(&clock),
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
            consul_seconds: SummaryVec::new(
                "prometheus_sd_consul_rpc_duration_seconds",
                "Seconds that requests to Consul took.",
                &["endpoint", "call"],
                QUANTILES,
                Arc::clone(&clock),
            )?,
            kubernetes_events: IntCounterVec::new(
                Opts::new("prometheus_sd_kubernetes_events_total", "Kubernetes events handled."),
                &["role", "event"],
            )?,
            kubernetes_failures: IntCounter::new(
                "prometheus_sd_kubernetes_failures_total",
                "Requests to list or watch Kubernetes objects that failed.",
            )?,
            kubernetes_requests: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_kubernetes_http_request_total",
                    "Requests to Kubernetes APIs by status code.",
                ),
                &["status_code"],
            )?,
            kubernetes_request_seconds: SummaryVec::new(
                "prometheus_sd_kubernetes_http_request_duration_seconds",
                "Seconds that requests to Kubernetes APIs took, watches excepted.",
                &["endpoint"],
                &[],
                clock,
            )?,
            kubernetes_queue_items: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_kubernetes_workqueue_items_total",
                    "Changed Kubernetes objects that were queued, to be made targets of.",
                ),
                &["queue_name"],
            )?,
            kubernetes_queue_depth: IntGaugeVec::new(
                Opts::new(
                    "prometheus_sd_kubernetes_workqueue_depth",
                    "Changed Kubernetes objects that wait to be made targets of.",
                ),
                &["queue_name"],
            )?,
        };
        metrics.consul_services();
        metrics.consul_service();
        for role in Role::ALL {
            for event in ["add", "delete", "update"] {
                metrics.kubernetes_events.with_label_values(&[role.as_str(), event]);
            }
        }
        metrics.register(registry)?;
        Ok(metrics)
    }

    /// Shows that a mechanism refreshes for a job, before it has done so.
    pub(super) fn refreshes(&self, mechanism: &str, job: &str) {
        self.refresh_failures.with_label_values(&[mechanism, job]);
        let _ = self.refresh_seconds.with_label_values(&[mechanism, job]);
        self.refresh_histogram.with_label_values(&[mechanism]);
    }

    /// Counts a refresh.
    pub(super) fn refreshed(&self, mechanism: &str, job: &str, took: Duration, failed: bool) {
        if failed {
            self.refresh_failures.with_label_values(&[mechanism, job]).inc();
        }
        self.refresh_seconds.with_label_values(&[mechanism, job]).observe(took.as_secs_f64());
        self.refresh_histogram.with_label_values(&[mechanism]).observe(took.as_secs_f64());
    }

    /// Forgets the refreshes of a job.
    pub(super) fn refreshes_no_more(&self, mechanism: &str, job: &str) {
        // Absent when the mechanism does not refresh.
        let _ = self.refresh_failures.remove_label_values(&[mechanism, job]);
        self.refresh_seconds.remove_label_values(&[mechanism, job]);
    }

    /// How long requests for Consul's list of services take.
    pub(super) fn consul_services(&self) -> Summary {
        self.consul_seconds.with_label_values(&["catalog", "services"])
    }

    /// How long requests for the instances of one of Consul's services take.
    pub(super) fn consul_service(&self) -> Summary {
        self.consul_seconds.with_label_values(&["catalog", "service"])
    }

    fn register(&self, registry: &Registry) -> Result<(), DiscoveryError> {
        let collectors: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(self.failed_configs.clone()),
            Box::new(self.discovered_targets.clone()),
            Box::new(self.received_updates.clone()),
            Box::new(self.sent_updates.clone()),
            Box::new(self.last_update_seconds.clone()),
            Box::new(self.delayed_updates.clone()),
            Box::new(self.refresh_failures.clone()),
            Box::new(self.refresh_seconds.clone()),
            Box::new(self.refresh_histogram.clone()),
            Box::new(self.file_read_errors.clone()),
            Box::new(self.file_watcher_errors.clone()),
            Box::new(self.file_scan_seconds.clone()),
            Box::new(self.file_mtime_seconds.clone()),
            Box::new(self.http_failures.clone()),
            Box::new(self.dns_lookups.clone()),
            Box::new(self.dns_failures.clone()),
            Box::new(self.consul_failures.clone()),
            Box::new(self.consul_seconds.clone()),
            Box::new(self.kubernetes_events.clone()),
            Box::new(self.kubernetes_failures.clone()),
            Box::new(self.kubernetes_requests.clone()),
            Box::new(self.kubernetes_request_seconds.clone()),
            Box::new(self.kubernetes_queue_items.clone()),
            Box::new(self.kubernetes_queue_depth.clone()),
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
