//! The server's own metrics, under Prometheus's names.

use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

/// Counters and histograms of the server.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    size: HistogramVec,
    pub(crate) ready: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) panics: IntCounter,
    pub(crate) federation_errors: IntCounter,
    pub(crate) federation_warnings: IntCounter,
    pub(crate) remote_read_queries: IntGauge,
    pub(crate) remote_write_requests: IntCounter,
    pub(crate) remote_write_samples: IntCounterVec,
    pub(crate) remote_write_rejected: IntCounterVec,
    pub(crate) remote_write_invalid_labels: IntCounter,
    pub(crate) remote_write_cached_series: IntGauge,
    pub(crate) otlp_warnings: IntCounterVec,
    pub(crate) otlp_without_metadata: IntCounter,
    pub(crate) otlp_out_of_order_exemplars: IntCounter,
}

impl Metrics {
    /// Metrics registered on `registry`. One that is registered already stays as it is there, and this server's own
    /// values of it are not shown: two servers in one program share one view.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let m = Self {
            requests: IntCounterVec::new(
                Opts::new("prometheus_http_requests_total", "Counter of HTTP requests."),
                &["handler", "code"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "prometheus_http_request_duration_seconds",
                    "Histogram of latencies for HTTP requests.",
                )
                .buckets(vec![0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0]),
                &["handler"],
            )?,
            size: HistogramVec::new(
                HistogramOpts::new(
                    "prometheus_http_response_size_bytes",
                    "Histogram of response size for HTTP requests.",
                )
                .buckets(prometheus::exponential_buckets(100.0, 10.0, 8)?),
                &["handler"],
            )?,
            ready: IntGauge::new(
                "prometheus_ready",
                "Whether startup is complete and the server is ready for normal operation.",
            )?,
            connections: IntGauge::new("almanac_http_connections", "Open HTTP connections.")?,
            panics: IntCounter::new("almanac_http_panics_total", "Requests whose handler panicked.")?,
            federation_errors: IntCounter::new(
                "prometheus_web_federation_errors_total",
                "Total number of errors that occurred while sending federation responses.",
            )?,
            federation_warnings: IntCounter::new(
                "prometheus_web_federation_warnings_total",
                "Total number of warnings that occurred while sending federation responses.",
            )?,
            remote_read_queries: IntGauge::new(
                "prometheus_remote_read_handler_queries",
                "Remote read requests that are running or waiting.",
            )?,
            remote_write_requests: IntCounter::new(
                "almanac_remote_write_received_requests_total",
                "Remote write requests that were taken, in part or whole.",
            )?,
            remote_write_samples: IntCounterVec::new(
                Opts::new(
                    "almanac_remote_write_received_samples_total",
                    "Samples taken from remote write, by kind.",
                ),
                &["kind"],
            )?,
            remote_write_rejected: IntCounterVec::new(
                Opts::new(
                    "almanac_remote_write_rejected_samples_total",
                    "Samples refused from remote write, by reason.",
                ),
                &["reason"],
            )?,
            remote_write_invalid_labels: IntCounter::new(
                "prometheus_api_remote_write_invalid_labels_samples_total",
                "Samples and histograms of remote write that were refused because of invalid labels.",
            )?,
            remote_write_cached_series: IntGauge::new(
                "almanac_remote_write_cached_series",
                "Series that the remote-write receiver knows by the bytes of their labels.",
            )?,
            otlp_warnings: IntCounterVec::new(
                Opts::new(
                    "prometheus_api_otlp_translation_warnings_total",
                    "Warnings about OTLP metrics that were translated, by category.",
                ),
                &["category"],
            )?,
            otlp_without_metadata: IntCounter::new(
                "prometheus_api_otlp_appended_samples_without_metadata_total",
                "Samples taken from OTLP whose metrics have no type, unit or help.",
            )?,
            otlp_out_of_order_exemplars: IntCounter::new(
                "prometheus_api_otlp_out_of_order_exemplars_total",
                "Exemplars of OTLP that were refused because they were out of order.",
            )?,
        };
        m.register(registry)?;
        Ok(m)
    }

    fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 17] = [
            Box::new(self.requests.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.size.clone()),
            Box::new(self.ready.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.panics.clone()),
            Box::new(self.federation_errors.clone()),
            Box::new(self.federation_warnings.clone()),
            Box::new(self.remote_read_queries.clone()),
            Box::new(self.remote_write_requests.clone()),
            Box::new(self.remote_write_samples.clone()),
            Box::new(self.remote_write_rejected.clone()),
            Box::new(self.remote_write_invalid_labels.clone()),
            Box::new(self.remote_write_cached_series.clone()),
            Box::new(self.otlp_warnings.clone()),
            Box::new(self.otlp_without_metadata.clone()),
            Box::new(self.otlp_out_of_order_exemplars.clone()),
        ];
        for collector in all {
            match registry.register(collector) {
                Ok(()) | Err(prometheus::Error::AlreadyReg) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Begins to measure a request.
    pub(crate) fn observe(&self, clock: &Arc<dyn Clock>, handler: &'static str) -> Observation {
        Observation {
            metrics: self.clone(),
            clock: clock.clone(),
            handler,
            code: 200,
            begun: clock.monotonic(),
            bytes: 0,
        }
    }
}

/// A request being measured; it is counted when this is dropped, which is when its body is gone.
pub(crate) struct Observation {
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    handler: &'static str,
    code: u16,
    begun: Duration,
    bytes: usize,
}

impl Observation {
    /// Sets the status code.
    pub(crate) fn set_code(&mut self, code: u16) {
        self.code = code;
    }

    /// Counts bytes of the body.
    pub(crate) fn add_bytes(&mut self, n: usize) {
        self.bytes += n;
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let m = &self.metrics;
        let seconds = self.clock.monotonic().saturating_sub(self.begun).as_secs_f64();
        let mut digits = itoa::Buffer::new();
        m.requests.with_label_values(&[self.handler, digits.format(self.code)]).inc();
        m.duration.with_label_values(&[self.handler]).observe(seconds);
        m.size.with_label_values(&[self.handler]).observe(self.bytes as f64);
    }
}

/// Counts itself in a gauge for as long as it lives.
pub(crate) struct CountedIn(IntGauge);

impl CountedIn {
    /// One more.
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for CountedIn {
    fn drop(&mut self) {
        self.0.dec();
    }
}
