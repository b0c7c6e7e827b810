//! Metrics of the engine, named as Prometheus names them.

use prometheus::{Counter, Gauge, HistogramOpts, HistogramVec, Opts, Registry};

use crate::value::QueryStats;

pub(crate) struct EngineMetrics {
    queries: Gauge,
    concurrent_max: Gauge,
    samples: Counter,
    durations: HistogramVec,
}

/// Counts a query as running until it is dropped.
pub(crate) struct Running<'a>(&'a Gauge);

impl EngineMetrics {
    pub(crate) fn new() -> Self {
        let gauge = |name: &str, help: &str| {
            Gauge::with_opts(Opts::new(name, help)).expect("name and help are fixed and valid")
        };
        let durations = HistogramOpts::new(
            "prometheus_engine_query_duration_histogram_seconds",
            "Query timings in seconds, by stage.",
        )
        .buckets(vec![0.01, 0.1, 1.0, 10.0]);
        Self {
            queries: gauge("prometheus_engine_queries", "Queries being evaluated or waiting."),
            concurrent_max: gauge(
                "prometheus_engine_queries_concurrent_max",
                "Most queries that run at once.",
            ),
            samples: Counter::with_opts(Opts::new(
                "prometheus_engine_query_samples_total",
                "Samples that queries looked at.",
            ))
            .expect("name and help are fixed and valid"),
            durations: HistogramVec::new(durations, &["slice"]).expect("name and label are fixed and valid"),
        }
    }

    /// Registers on `registry`. A second engine on the same registry goes unseen.
    pub(crate) fn register(&self, registry: &Registry, concurrent_max: usize) {
        self.concurrent_max.set(concurrent_max as f64);
        let all: [Box<dyn prometheus::core::Collector>; 4] = [
            Box::new(self.queries.clone()),
            Box::new(self.concurrent_max.clone()),
            Box::new(self.samples.clone()),
            Box::new(self.durations.clone()),
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

    pub(crate) fn observe(&self, stats: &QueryStats) {
        self.samples.inc_by(stats.total_queryable_samples as f64);
        for (slice, seconds) in [
            ("queue_time", stats.exec_queue_seconds),
            ("prepare_time", stats.query_preparation_seconds),
            ("inner_eval", stats.inner_eval_seconds),
            ("result_sort", stats.result_sort_seconds),
        ] {
            self.durations.with_label_values(&[slice]).observe(seconds);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
