//! Self-metrics of a backlog lane.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge};

use super::{BacklogStatus, Reason};
use crate::sender::metrics::Registrar;

/// Counters and gauges of one lane.
#[derive(Debug)]
pub(crate) struct BacklogMetrics {
    ranges: GaugeVec,
    windows_left: Gauge,
    samples_left: Gauge,
    rate: Gauge,
    oldest: Gauge,
    pub(crate) samples: IntCounterVec,
    pub(crate) not_sent: IntCounterVec,
    pub(crate) windows: IntCounterVec,
    pub(crate) errors: IntCounter,
    pub(crate) paused: IntGauge,
}

impl BacklogMetrics {
    pub(crate) fn register(r: &mut Registrar<'_>) -> prometheus::Result<Self> {
        const B: &str = "almanac_federation_backlog_";
        let name = |suffix: &str| format!("{B}{suffix}");
        Ok(Self {
            ranges: r.gauge_vec(
                &name("ranges"),
                "Ranges of history waiting to be sent, by reason.",
                &["reason"],
            )?,
            windows_left: r
                .gauge(&name("windows_remaining"), "Windows of two hours still to be looked at.")?,
            samples_left: r.gauge(
                &name("samples_remaining"),
                "Samples still to be sent, as the windows before let expect.",
            )?,
            rate: r.gauge(&name("samples_per_second"), "Samples sent per second over about a minute.")?,
            oldest: r.gauge(
                &name("oldest_timestamp_seconds"),
                "Begin of the earliest window still to be sent; 0 when there is none.",
            )?,
            samples: r.int_counter_vec(
                &name("samples_total"),
                "Samples and histograms acknowledged by the destination, by reason of the range.",
                &["reason"],
            )?,
            not_sent: r.int_counter_vec(
                &name("samples_not_sent_total"),
                "Samples and histograms refused for good or too old, by reason of the range.",
                &["reason"],
            )?,
            windows: r.int_counter_vec(
                &name("windows_total"),
                "Windows done, by reason of the range.",
                &["reason"],
            )?,
            errors: r.int_counter(
                &name("errors_total"),
                "Failed reads of the local store, and failed writes of the queue.",
            )?,
            paused: r.int_gauge(&name("paused"), "Whether the lane waits for the live lane to catch up.")?,
        })
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&self, status: &BacklogStatus) {
        for reason in Reason::ALL {
            let n = status.ranges.iter().filter(|r| r.reason == reason).count();
            self.ranges.with_label_values(&[reason.as_str()]).set(n as f64);
        }
        self.windows_left.set(status.windows_left as f64);
        self.samples_left.set(status.samples_left as f64);
        self.rate.set(status.samples_per_second);
        let oldest = status.ranges.iter().map(|r| r.done_until).min().unwrap_or(0);
        self.oldest.set(oldest as f64 / 1000.0);
        self.paused.set(i64::from(status.paused));
    }
}
