//! The scraper's own metrics, named as Prometheus names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Clock;
use model::duration::go_duration;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use summary::SummaryVec;

use crate::cardinality::Guard;
use crate::pool::PoolView;

/// Quantiles of durations, as Prometheus shows them.
const QUANTILES: &[f64] = &[0.01, 0.05, 0.5, 0.9, 0.99];

/// Counters and gauges of all scrape pools.
#[derive(Clone)]
pub(crate) struct ScrapeMetrics {
    interval_length: Lengths,
    reload_length: SummaryVec,
    /// Of jobs with extra scrape metrics.
    pub(crate) scrape_duration: Histogram,
    /// What the metadata of targets takes is counted when it is asked for.
    pub(crate) views: PoolViews,
    pub(crate) sync_length: Lengths,
    pub(crate) syncs: IntCounterVec,
    pub(crate) syncs_failed: IntCounterVec,
    pub(crate) pool_targets: IntGaugeVec,
    pub(crate) pool_target_limit: IntGaugeVec,
    pub(crate) pools: IntCounter,
    pub(crate) reloads: IntCounter,
    pub(crate) reloads_failed: IntCounter,
    pub(crate) exceeded_target_limit: IntCounter,
    pub(crate) exceeded_body_size_limit: IntCounter,
    pub(crate) exceeded_sample_limit: IntCounter,
    pub(crate) exceeded_label_limits: IntCounter,
    pub(crate) exceeded_bucket_limit: IntCounter,
    pub(crate) duplicate_timestamp: IntCounter,
    pub(crate) out_of_order: IntCounter,
    pub(crate) out_of_bounds: IntCounter,
    pub(crate) exemplar_out_of_order: IntCounter,
    pub(crate) cache_flush_forced: IntCounter,
}

impl ScrapeMetrics {
    /// Registers everything; what is registered already stays and goes uncounted here.
    pub(crate) fn new(
        registry: &Registry,
        clock: &Arc<dyn Clock>,
        guard: &Arc<Guard>,
    ) -> Result<Self, prometheus::Error> {
        let r = Registrar(registry);
        // Nothing ever makes a pool fail; the series is there for those who alert on it.
        r.counter(
            "prometheus_target_scrape_pools_failed_total",
            "Total number of scrape pool creations that failed.",
        )?;
        let views = PoolViews::default();
        r.add(MetadataCollector::new(views.clone())?)?;
        r.add(GuardCollector::new(Arc::clone(guard))?)?;
        let scrape_duration = HistogramOpts::new(
            "prometheus_target_scrape_duration_seconds",
            "Total duration of the scrape from start to commit completion in seconds.",
        );
        Ok(Self {
            reload_length: r.add(SummaryVec::new(
                "prometheus_target_reload_length_seconds",
                "Actual interval to reload the scrape pool with a given configuration.",
                &["interval"],
                QUANTILES,
                clock.clone(),
            )?)?,
            scrape_duration: r.add(Histogram::with_opts(scrape_duration.buckets(vec![f64::INFINITY]))?)?,
            views,
            interval_length: r.lengths(
                "prometheus_target_interval_length",
                "Actual intervals between scrapes.",
                "interval",
                clock,
            )?,
            sync_length: r.lengths(
                "prometheus_target_sync_length",
                "Actual interval to sync the scrape pool.",
                "scrape_job",
                clock,
            )?,
            syncs: r.counters(
                "prometheus_target_scrape_pool_sync_total",
                "Total number of syncs that were executed on a scrape pool.",
            )?,
            syncs_failed: r
                .counters("prometheus_target_sync_failed_total", "Total number of target sync failures.")?,
            pool_targets: r.gauges(
                "prometheus_target_scrape_pool_targets",
                "Current number of targets in this scrape pool.",
            )?,
            pool_target_limit: r.gauges(
                "prometheus_target_scrape_pool_target_limit",
                "Maximum number of targets allowed in this scrape pool.",
            )?,
            pools: r.counter(
                "prometheus_target_scrape_pools_total",
                "Total number of scrape pool creation attempts.",
            )?,
            reloads: r.counter(
                "prometheus_target_scrape_pool_reloads_total",
                "Total number of scrape pool reloads.",
            )?,
            reloads_failed: r.counter(
                "prometheus_target_scrape_pool_reloads_failed_total",
                "Total number of failed scrape pool reloads.",
            )?,
            exceeded_target_limit: r.counter(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Total number of times scrape pools hit the target limit, during sync or config reload.",
            )?,
            exceeded_body_size_limit: r.counter(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Total number of scrapes that hit the body size limit",
            )?,
            exceeded_sample_limit: r.counter(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Total number of scrapes that hit the sample limit and were rejected.",
            )?,
            exceeded_label_limits: r.counter(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Total number of times scrape pools hit the label limits, during sync or config reload.",
            )?,
            exceeded_bucket_limit: r.counter(
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected.",
            )?,
            duplicate_timestamp: r.counter(
                "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                "Total number of samples rejected due to duplicate timestamps but different values.",
            )?,
            out_of_order: r.counter(
                "prometheus_target_scrapes_sample_out_of_order_total",
                "Total number of samples rejected due to not being out of the expected order.",
            )?,
            out_of_bounds: r.counter(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            )?,
            exemplar_out_of_order: r.counter(
                "prometheus_target_scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            )?,
            cache_flush_forced: r.counter(
                "prometheus_target_scrapes_cache_flush_forced_total",
                "How many times a scrape cache was flushed due to getting big while scrapes are failing.",
            )?,
        })
    }

    /// Time from one scrape of a target to the next.
    pub(crate) fn observe_interval(&self, interval_ms: i64, seconds: f64) {
        self.interval_length.observe(&go_duration(interval_ms), seconds);
    }

    /// Time that a pool took to change its configuration.
    pub(crate) fn observe_reload(&self, interval_ms: i64, seconds: f64) {
        self.reload_length.with_label_values(&[&go_duration(interval_ms)]).observe(seconds);
    }

    /// Forgets a pool that is gone.
    pub(crate) fn forget_pool(&self, job: &str) {
        self.views.lock().remove(job);
        // A pool that never got as far as a metric has none to remove.
        self.sync_length.forget(job);
        let _ = self.syncs.remove_label_values(&[job]);
        let _ = self.syncs_failed.remove_label_values(&[job]);
        let _ = self.pool_targets.remove_label_values(&[job]);
        let _ = self.pool_target_limit.remove_label_values(&[job]);
    }
}

/// Seconds by one label, as a summary and as a histogram.
#[derive(Clone)]
pub(crate) struct Lengths {
    summary: SummaryVec,
    histogram: HistogramVec,
}

impl Lengths {
    pub(crate) fn observe(&self, label: &str, seconds: f64) {
        self.summary.with_label_values(&[label]).observe(seconds);
        self.histogram.with_label_values(&[label]).observe(seconds);
    }

    fn forget(&self, label: &str) {
        let _ = self.summary.remove_label_values(&[label]);
        let _ = self.histogram.remove_label_values(&[label]);
    }
}

/// The pools by job.
pub(crate) type PoolViews = Arc<Mutex<BTreeMap<String, Arc<Mutex<PoolView>>>>>;

/// Tells how much metadata the targets of each pool have.
#[derive(Clone)]
struct MetadataCollector {
    views: PoolViews,
    entries: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl MetadataCollector {
    fn new(views: PoolViews) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["scrape_job"]);
        Ok(Self {
            views,
            entries: gauges(
                "prometheus_target_metadata_cache_entries",
                "Total number of metric metadata entries in the cache",
            )?,
            bytes: gauges(
                "prometheus_target_metadata_cache_bytes",
                "The number of bytes that are currently used for storing metric metadata in the cache",
            )?,
        })
    }
}

impl Collector for MetadataCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.entries.desc().into_iter().chain(self.bytes.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.entries.reset();
        self.bytes.reset();
        for (job, view) in self.views.lock().iter() {
            let targets = view.lock().targets.clone();
            let (mut entries, mut bytes) = (0, 0);
            for of in targets {
                let store = of.target.state.lock().metadata.clone();
                let (n, b) = store.map_or((0, 0), |s| s.size());
                entries += n;
                bytes += b;
            }
            self.entries.with_label_values(&[job]).set(entries as i64);
            self.bytes.with_label_values(&[job]).set(bytes as i64);
        }
        self.entries.collect().into_iter().chain(self.bytes.collect()).collect()
    }
}

/// Tells how soft limits of series stand, as far as there are any.
#[derive(Clone)]
struct GuardCollector {
    guard: Arc<Guard>,
    series: IntGaugeVec,
    limit: IntGaugeVec,
    refused: IntGaugeVec,
    refused_total: IntCounterVec,
    server: IntGaugeVec,
    server_limit: IntGaugeVec,
}

impl GuardCollector {
    fn new(guard: Arc<Guard>) -> Result<Self, prometheus::Error> {
        let gauges =
            |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let of_job = &["scrape_job"];
        Ok(Self {
            guard,
            series: gauges(
                "almanac_scrape_pool_series",
                "Series that count towards the soft limit.",
                of_job,
            )?,
            limit: gauges(
                "almanac_scrape_pool_series_soft_limit",
                "Series from which new ones are refused; 0 for no limit of the job's own.",
                of_job,
            )?,
            refused: gauges(
                "almanac_scrape_pool_series_refused",
                "Series that targets expose and that are left out now for a soft limit.",
                of_job,
            )?,
            refused_total: IntCounterVec::new(
                Opts::new("almanac_scrape_series_refused_total", "New series that a soft limit refused."),
                &["scrape_job", "reason"],
            )?,
            server: gauges("almanac_scrape_series", "Series of all pools that count.", &[])?,
            server_limit: gauges(
                "almanac_scrape_series_soft_limit",
                "Series of all pools from which new ones are refused; 0 for no limit.",
                &[],
            )?,
        })
    }

    fn gauges(&self) -> [&IntGaugeVec; 5] {
        [&self.series, &self.limit, &self.refused, &self.server, &self.server_limit]
    }
}

impl Collector for GuardCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges();
        gauges.into_iter().flat_map(|g| g.desc()).chain(self.refused_total.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.gauges().into_iter().for_each(IntGaugeVec::reset);
        self.refused_total.reset();
        let status = self.guard.status(0);
        for job in &status.jobs {
            let name = [job.job.as_str()];
            self.series.with_label_values(&name).set(number(job.limit.used));
            self.limit.with_label_values(&name).set(number(job.limit.limit.series));
            self.refused.with_label_values(&name).set(number(job.refused));
            for (reason, n) in [("job_limit", job.refused_for_job), ("server_limit", job.refused_for_server)]
            {
                self.refused_total.with_label_values(&[name[0], reason]).inc_by(n);
            }
        }
        if !status.jobs.is_empty() {
            self.server.with_label_values::<&str>(&[]).set(number(status.server.used));
            self.server_limit.with_label_values::<&str>(&[]).set(number(status.server.limit.series));
        }
        self.gauges().into_iter().flat_map(|g| g.collect()).chain(self.refused_total.collect()).collect()
    }
}

struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, c: C) -> Result<C, prometheus::Error> {
        match self.0.register(Box::new(c.clone())) {
            Ok(()) | Err(prometheus::Error::AlreadyReg) => Ok(c),
            Err(e) => Err(e),
        }
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), &["scrape_job"])?)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &["scrape_job"])?)
    }

    /// `NAME_seconds` and `NAME_histogram_seconds`.
    fn lengths(
        &self,
        name: &str,
        help: &str,
        label: &str,
        clock: &Arc<dyn Clock>,
    ) -> Result<Lengths, prometheus::Error> {
        let summary = SummaryVec::new(&format!("{name}_seconds"), help, &[label], QUANTILES, clock.clone())?;
        let histogram = HistogramOpts::new(format!("{name}_histogram_seconds"), help);
        let histogram = HistogramVec::new(histogram.buckets(vec![0.01, 0.1, 1.0, 10.0]), &[label])?;
        Ok(Lengths { summary: self.add(summary)?, histogram: self.add(histogram)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (ms, text) in [
            (0, "0s"),
            (500, "500ms"),
            (1500, "1.5s"),
            (15_000, "15s"),
            (60_000, "1m0s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
            (5_400_250, "1h30m0.25s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }
}
