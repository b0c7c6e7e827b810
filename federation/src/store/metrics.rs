//! The store's own metrics.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Metrics `almanac_longterm_*`.
pub(super) struct Metrics {
    pub(super) samples_appended: IntCounter,
    pub(super) samples_rejected: IntCounterVec,
    pub(super) commit_seconds: Histogram,
    pub(super) journal_bytes: IntCounter,
    pub(super) series: IntGauge,
    pub(super) open_samples: IntGauge,
    pub(super) open_bytes: IntGauge,
    pub(super) open_series: IntGauge,
    pub(super) sealed_chunks: IntCounter,
    pub(super) sealed_samples: IntCounter,
    pub(super) sealed_bytes: IntCounter,
    pub(super) conflicts: IntCounter,
    pub(super) seal_seconds: Gauge,
    pub(super) dropped_months: IntCounter,
    pub(super) removed_series: IntCounter,
    pub(super) corruptions: IntCounter,
    pub(super) family_bytes: IntGaugeVec,
}

impl Metrics {
    /// Shows how much is not sealed yet.
    pub(super) fn show_open(&self, open: &super::open::Open) {
        self.open_samples.set(open.samples as i64);
        self.open_bytes.set(open.bytes as i64);
        self.open_series.set(open.filled as i64);
    }

    /// Makes the metrics and registers them. A second store on the same registry keeps its own, unseen.
    pub(super) fn new(registry: &Registry) -> Self {
        let commit = HistogramOpts::new(
            "almanac_longterm_commit_duration_seconds",
            "Time from the begin of a commit until its batch is durable and visible.",
        )
        .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]);
        Self {
            samples_appended: counter(registry, "samples_appended_total", "Samples committed."),
            samples_rejected: register(
                registry,
                IntCounterVec::new(
                    Opts::new("almanac_longterm_samples_rejected_total", "Samples not taken, by reason."),
                    &["reason"],
                )
                .expect(FIXED),
            ),
            commit_seconds: register(registry, Histogram::with_opts(commit).expect(FIXED)),
            journal_bytes: counter(registry, "journal_bytes_total", "Bytes written to the journal."),
            series: gauge(registry, "series_in_memory", "Series that took samples lately."),
            open_samples: gauge(registry, "open_samples", "Samples in memory that are not sealed yet."),
            open_bytes: gauge(registry, "open_bytes", "Memory of the samples that are not sealed yet."),
            open_series: gauge(registry, "open_series", "Series with samples that are not sealed yet."),
            sealed_chunks: counter(registry, "sealed_chunks_total", "Chunks written by sealing."),
            sealed_samples: counter(
                registry,
                "sealed_samples_total",
                "Samples in the chunks written by sealing.",
            ),
            sealed_bytes: counter(registry, "sealed_bytes_total", "Bytes of the chunks written by sealing."),
            conflicts: counter(
                registry,
                "conflicting_samples_total",
                "Samples dropped by sealing because their timestamp had another value already.",
            ),
            seal_seconds: register(
                registry,
                Gauge::new("almanac_longterm_last_seal_duration_seconds", "Duration of the last sealing.")
                    .expect(FIXED),
            ),
            dropped_months: counter(registry, "dropped_months_total", "Months dropped by retention."),
            removed_series: counter(registry, "removed_series_total", "Series removed by retention."),
            corruptions: counter(registry, "corruptions_total", "Records and chunks found damaged."),
            family_bytes: register(
                registry,
                IntGaugeVec::new(
                    Opts::new("almanac_longterm_family_bytes", "Bytes on disk by column family."),
                    &["family"],
                )
                .expect(FIXED),
            ),
        }
    }
}

const FIXED: &str = "the names of metrics are fixed and valid";

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(format!("almanac_longterm_{name}"), help).expect(FIXED))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(format!("almanac_longterm_{name}"), help).expect(FIXED))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, c: C) -> C {
    if let Err(e) = registry.register(Box::new(c.clone())) {
        tracing::debug!("metric of the long-term store not registered: {e}");
    }
    c
}
