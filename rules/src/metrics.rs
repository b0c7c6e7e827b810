//! Metrics of rule evaluation, named and labelled as Prometheus has them. The label `rule_group` is `FILE;GROUP`.

use std::fmt;
use std::sync::Arc;

use model::Clock;
use prometheus::{GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};
use summary::Summary;

use crate::error::RulesError;

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) evaluations: IntCounterVec,
    pub(crate) failures: IntCounterVec,
    pub(crate) iterations: IntCounterVec,
    pub(crate) iterations_missed: IntCounterVec,
    pub(crate) interval_seconds: GaugeVec,
    pub(crate) last_duration_seconds: GaugeVec,
    pub(crate) last_evaluation_seconds: GaugeVec,
    pub(crate) last_rule_duration_sum_seconds: GaugeVec,
    pub(crate) last_restore_seconds: GaugeVec,
    pub(crate) rules: IntGaugeVec,
    pub(crate) samples: IntGaugeVec,
    /// Of single rules.
    pub(crate) rule_duration: Durations,
    /// Of whole groups.
    pub(crate) group_duration: Durations,
}

/// Seconds, as a summary and as a histogram.
pub(crate) struct Durations {
    summary: Summary,
    histogram: Histogram,
}

impl Durations {
    fn new(
        (summary_name, histogram_name): (&str, &str),
        help: &str,
        quantiles: &'static [f64],
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, prometheus::Error> {
        let histogram = HistogramOpts::new(histogram_name, help).buckets(vec![0.01, 0.1, 1.0, 10.0]);
        Ok(Self {
            summary: Summary::new(summary_name, help, quantiles, clock.clone())?,
            histogram: Histogram::with_opts(histogram)?,
        })
    }

    pub(crate) fn observe(&self, seconds: f64) {
        self.summary.observe(seconds);
        self.histogram.observe(seconds);
    }
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durations").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, clock: &Arc<dyn Clock>) -> Result<Self, RulesError> {
        let group: &[&str] = &["rule_group"];
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), group);
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), group);
        let count = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), group);
        let metrics = Self {
            evaluations: counter("prometheus_rule_evaluations_total", "Evaluations of rules.")?,
            failures: counter(
                "prometheus_rule_evaluation_failures_total",
                "Evaluations of rules that failed.",
            )?,
            iterations: counter(
                "prometheus_rule_group_iterations_total",
                "Scheduled evaluations of the group.",
            )?,
            iterations_missed: counter(
                "prometheus_rule_group_iterations_missed_total",
                "Evaluations of the group left out because the one before took too long.",
            )?,
            interval_seconds: gauge("prometheus_rule_group_interval_seconds", "Interval of the group.")?,
            last_duration_seconds: gauge(
                "prometheus_rule_group_last_duration_seconds",
                "Length of the group's last evaluation.",
            )?,
            last_evaluation_seconds: gauge(
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "When the group was evaluated last.",
            )?,
            last_rule_duration_sum_seconds: gauge(
                "prometheus_rule_group_last_rule_duration_sum_seconds",
                "Sum of the lengths of the group's rules at its last evaluation.",
            )?,
            last_restore_seconds: gauge(
                "prometheus_rule_group_last_restore_duration_seconds",
                "How long it took to restore the group's pending alerts from their series.",
            )?,
            rules: count("prometheus_rule_group_rules", "Rules of the group.")?,
            samples: count(
                "prometheus_rule_group_last_evaluation_samples",
                "Samples of the group's last evaluation.",
            )?,
            rule_duration: Durations::new(
                (
                    "prometheus_rule_evaluation_duration_seconds",
                    "prometheus_rule_evaluation_duration_histogram_seconds",
                ),
                "The duration for a rule to execute.",
                &[0.5, 0.9, 0.99],
                clock,
            )?,
            group_duration: Durations::new(
                (
                    "prometheus_rule_group_duration_seconds",
                    "prometheus_rule_group_duration_histogram_seconds",
                ),
                "The duration of rule group evaluations.",
                &[0.01, 0.05, 0.5, 0.9, 0.99],
                clock,
            )?,
        };
        let collectors: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(metrics.evaluations.clone()),
            Box::new(metrics.failures.clone()),
            Box::new(metrics.iterations.clone()),
            Box::new(metrics.iterations_missed.clone()),
            Box::new(metrics.interval_seconds.clone()),
            Box::new(metrics.last_duration_seconds.clone()),
            Box::new(metrics.last_evaluation_seconds.clone()),
            Box::new(metrics.last_rule_duration_sum_seconds.clone()),
            Box::new(metrics.last_restore_seconds.clone()),
            Box::new(metrics.rules.clone()),
            Box::new(metrics.samples.clone()),
            Box::new(metrics.rule_duration.summary.clone()),
            Box::new(metrics.rule_duration.histogram.clone()),
            Box::new(metrics.group_duration.summary.clone()),
            Box::new(metrics.group_duration.histogram.clone()),
        ];
        for collector in collectors {
            match registry.register(collector) {
                Ok(()) | Err(prometheus::Error::AlreadyReg) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(metrics)
    }

    /// Forgets a group that is gone. What was never set is as good as removed.
    pub(crate) fn forget(&self, group: &str) {
        let group = &[group];
        for counter in [&self.evaluations, &self.failures, &self.iterations, &self.iterations_missed] {
            let _ = counter.remove_label_values(group);
        }
        for gauge in [
            &self.interval_seconds,
            &self.last_duration_seconds,
            &self.last_evaluation_seconds,
            &self.last_rule_duration_sum_seconds,
            &self.last_restore_seconds,
        ] {
            let _ = gauge.remove_label_values(group);
        }
        for gauge in [&self.rules, &self.samples] {
            let _ = gauge.remove_label_values(group);
        }
    }
}
