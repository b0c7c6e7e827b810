//! What became of spans. Prometheus has no such metrics.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counters of spans.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) sent: IntCounter,
    /// The queue was full.
    pub(crate) dropped_queue: IntCounter,
    /// The collector did not take them.
    pub(crate) dropped_export: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let sent = IntCounter::new(
            "almanac_tracing_spans_sent_total",
            "Spans that the collector of the section tracing took.",
        )?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "almanac_tracing_spans_dropped_total",
                "Spans that were given up: the queue was full, or the collector did not take them.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(sent.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self {
            sent,
            dropped_queue: dropped.with_label_values(&["queue_full"]),
            dropped_export: dropped.with_label_values(&["export_failed"]),
        })
    }
}
