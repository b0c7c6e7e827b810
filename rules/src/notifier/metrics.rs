//! Metrics of sending alerts, named and labelled as Prometheus has them. The label `alertmanager` is the address.

use std::sync::Arc;

use model::Clock;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use summary::{Summary, SummaryVec};

use crate::error::RulesError;

pub(super) struct Metrics {
    latency: SummaryVec,
    latency_histogram: HistogramVec,
    errors: IntCounterVec,
    sent: IntCounterVec,
    dropped: IntCounterVec,
    queue_length: IntGaugeVec,
    pub(super) queue_capacity: IntGauge,
    pub(super) discovered: IntGauge,
}

/// Those of one Alertmanager.
pub(super) struct OfOne {
    all: Arc<Metrics>,
    pub(super) errors: IntCounter,
    pub(super) sent: IntCounter,
    pub(super) dropped: IntCounter,
    pub(super) queue_length: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, clock: &Arc<dyn Clock>) -> Result<Self, RulesError> {
        let label: &[&str] = &["alertmanager"];
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), label);
        let histogram = HistogramOpts::new(
            "prometheus_notifications_latency_histogram_seconds",
            "Latency histogram for sending alert notifications.",
        );
        let metrics = Self {
            latency: SummaryVec::new(
                "prometheus_notifications_latency_seconds",
                "Latency quantiles for sending alert notifications.",
                label,
                &[0.5, 0.9, 0.99],
                clock.clone(),
            )?,
            latency_histogram: HistogramVec::new(histogram.buckets(vec![0.01, 0.1, 1.0, 10.0]), label)?,
            errors: counter(
                "prometheus_notifications_errors_total",
                "Total number of sent alerts affected by errors.",
            )?,
            sent: counter("prometheus_notifications_sent_total", "Total number of alerts sent.")?,
            dropped: counter(
                "prometheus_notifications_dropped_total",
                "Total number of alerts dropped due to errors when sending to Alertmanager.",
            )?,
            queue_length: IntGaugeVec::new(
                Opts::new(
                    "prometheus_notifications_queue_length",
                    "The number of alert notifications in the queue.",
                ),
                label,
            )?,
            queue_capacity: IntGauge::new(
                "prometheus_notifications_queue_capacity",
                "The capacity of the alert notifications queue.",
            )?,
            discovered: IntGauge::new(
                "prometheus_notifications_alertmanagers_discovered",
                "The number of alertmanagers discovered and active.",
            )?,
        };
        let collectors: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(metrics.latency.clone()),
            Box::new(metrics.latency_histogram.clone()),
            Box::new(metrics.errors.clone()),
            Box::new(metrics.sent.clone()),
            Box::new(metrics.dropped.clone()),
            Box::new(metrics.queue_length.clone()),
            Box::new(metrics.queue_capacity.clone()),
            Box::new(metrics.discovered.clone()),
        ];
        for collector in collectors {
            match registry.register(collector) {
                Ok(()) | Err(prometheus::Error::AlreadyReg) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(metrics)
    }

    /// Those of the Alertmanager at this address, which show from now on.
    pub(super) fn of(self: &Arc<Self>, url: &str) -> OfOne {
        let label = &[url];
        OfOne {
            all: Arc::clone(self),
            errors: self.errors.with_label_values(label),
            sent: self.sent.with_label_values(label),
            dropped: self.dropped.with_label_values(label),
            queue_length: self.queue_length.with_label_values(label),
        }
    }

    fn latencies(&self, url: &str) -> (Summary, Histogram) {
        (self.latency.with_label_values(&[url]), self.latency_histogram.with_label_values(&[url]))
    }

    /// What was never set is as good as removed.
    fn forget(&self, url: &str) {
        let label = &[url];
        for counter in [&self.errors, &self.sent, &self.dropped] {
            let _ = counter.remove_label_values(label);
        }
        let _ = self.queue_length.remove_label_values(label);
        let _ = self.latency_histogram.remove_label_values(label);
        let _ = self.latency.remove_label_values(label);
    }
}

impl OfOne {
    pub(super) fn observe(&self, url: &str, seconds: f64) {
        let (summary, histogram) = self.all.latencies(url);
        summary.observe(seconds);
        histogram.observe(seconds);
    }

    /// Shows them no longer.
    pub(super) fn forget(&self, url: &str) {
        self.all.forget(url);
    }
}
