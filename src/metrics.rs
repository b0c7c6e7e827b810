//! A node's own metrics that belong to no crate: the process, the build, the configuration.

use prometheus::{Gauge, GaugeVec, Opts, Registry};

/// A registry with the process's and the build's metrics. `role` tells the nodes apart.
pub fn registry(role: &str) -> Registry {
    let registry = Registry::new();
    register(&registry, prometheus::process_collector::ProcessCollector::for_self());
    let build = GaugeVec::new(
        Opts::new("almanac_build_info", "A metric with a constant '1' value, labelled with what was built."),
        &["version", "role"],
    )
    .expect("a constant description");
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), role]).set(1.0);
    register(&registry, build);
    // Dashboards made for Prometheus look for this one.
    let build = GaugeVec::new(
        Opts::new(
            "prometheus_build_info",
            "A metric with a constant '1' value, labelled with what was built.",
        ),
        &["version", "revision", "branch"],
    )
    .expect("a constant description");
    let known = |v: Option<&'static str>| v.unwrap_or("unknown");
    let (revision, branch) = (known(option_env!("ALMANAC_REVISION")), known(option_env!("ALMANAC_BRANCH")));
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), revision, branch]).set(1.0);
    register(&registry, build);
    registry
}

/// How the last load of the configuration went.
#[derive(Clone)]
pub struct ReloadMetrics {
    successful: Gauge,
    success_time: Gauge,
}

impl ReloadMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Self {
        let gauge = |name, help| {
            let gauge = Gauge::new(name, help).expect("a constant description");
            register(registry, gauge.clone());
            gauge
        };
        Self {
            successful: gauge(
                "prometheus_config_last_reload_successful",
                "Whether the last configuration reload attempt was successful.",
            ),
            success_time: gauge(
                "prometheus_config_last_reload_success_timestamp_seconds",
                "Timestamp of the last successful configuration reload.",
            ),
        }
    }

    /// Notes a load at `now_ms`.
    pub fn note(&self, ok: bool, now_ms: i64) {
        self.successful.set(f64::from(u8::from(ok)));
        if ok {
            self.success_time.set(now_ms as f64 / 1000.0);
        }
    }
}

fn register(registry: &Registry, collector: impl prometheus::core::Collector + 'static) {
    if let Err(e) = registry.register(Box::new(collector)) {
        tracing::warn!(error = %e, "a metric of the program is not shown");
    }
}
