//! Metrics of the engine, named as Prometheus names them.

use std::sync::Arc;

use model::Clock;
use prometheus::{Counter, Gauge, HistogramOpts, HistogramVec, Opts, Registry};
use summary::SummaryVec;

use crate::value::QueryStats;

pub(crate) struct EngineMetrics {
    queries: Gauge,
    concurrent_max: Gauge,
    query_log_enabled: Gauge,
    query_log_failures: Counter,
    samples: Counter,
    samples_read: Counter,
    durations: HistogramVec,
    quantiles: SummaryVec,
}

/// Counts a query as running until it is dropped.
pub(crate) struct Running<'a>(&'a Gauge);

/// The stages that durations are told of.
const SLICES: [&str; 4] = ["inner_eval", "prepare_time", "queue_time", "result_sort"];

impl EngineMetrics {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let gauge = |name: &str, help: &str| {
            Gauge::with_opts(Opts::new(name, help)).expect("name and help are fixed and valid")
        };
        let counter = |name: &str, help: &str| {
            Counter::with_opts(Opts::new(name, help)).expect("name and help are fixed and valid")
        };
        let durations = HistogramOpts::new(
            "prometheus_engine_query_duration_histogram_seconds",
            "Durations of the stages of queries in seconds.",
        )
        .buckets(vec![0.01, 0.1, 1.0, 10.0]);
        let durations = HistogramVec::new(durations, &["slice"]).expect("name and label are fixed and valid");
        for slice in SLICES {
            let _ = durations.with_label_values(&[slice]);
        }
        let quantiles = SummaryVec::new(
            "prometheus_engine_query_duration_seconds",
            "Durations of the stages of queries in seconds, over the last ten minutes.",
            &["slice"],
            &[0.5, 0.9, 0.99],
            clock,
        )
        .expect("name and label are fixed and valid");
        for slice in SLICES {
            let _ = quantiles.with_label_values(&[slice]);
        }
        Self {
            queries: gauge("prometheus_engine_queries", "Queries being evaluated or waiting."),
            concurrent_max: gauge(
                "prometheus_engine_queries_concurrent_max",
                "Most queries that run at once.",
            ),
            query_log_enabled: gauge(
                "prometheus_engine_query_log_enabled",
                "Whether queries are logged (1) or not (0).",
            ),
            query_log_failures: counter(
                "prometheus_engine_query_log_failures_total",
                "Queries that could not be written to the query log.",
            ),
            samples: counter(
                "prometheus_engine_query_samples_total",
                "Samples that queries looked at; a window counts all of its samples at every step.",
            ),
            samples_read: counter(
                "prometheus_engine_query_samples_read_total",
                "Samples that queries read; a window counts at every step those that are new to it.",
            ),
            durations,
            quantiles,
        }
    }

    /// Registers on `registry`. A second engine on the same registry goes unseen.
    pub(crate) fn register(&self, registry: &Registry, concurrent_max: usize) {
        self.concurrent_max.set(concurrent_max as f64);
        let all: [Box<dyn prometheus::core::Collector>; 8] = [
            Box::new(self.queries.clone()),
            Box::new(self.concurrent_max.clone()),
            Box::new(self.query_log_enabled.clone()),
            Box::new(self.query_log_failures.clone()),
            Box::new(self.samples.clone()),
            Box::new(self.samples_read.clone()),
            Box::new(self.durations.clone()),
            Box::new(self.quantiles.clone()),
        ];
        for c in all {
            // Only "registered already" can happen here, which is no harm.
            let _ = registry.register(c);
        }
    }

    pub(crate) fn running(&self) -> Running<'_> {
        self.queries.inc();
        Running(&self.queries)
    }

    /// One stage of a query has ended.
    pub(crate) fn observe(&self, slice: &str, seconds: f64) {
        self.durations.with_label_values(&[slice]).observe(seconds);
        self.quantiles.with_label_values(&[slice]).observe(seconds);
    }

    pub(crate) fn count_samples(&self, stats: &QueryStats) {
        self.samples.inc_by(stats.total_queryable_samples as f64);
        self.samples_read.inc_by(stats.samples_read as f64);
    }

    pub(crate) fn query_log_enabled(&self, on: bool) {
        self.query_log_enabled.set(f64::from(on));
    }

    pub(crate) fn query_log_failed(&self) {
        self.query_log_failures.inc();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
