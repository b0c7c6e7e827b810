//! Self-metrics of one destination, under the names that Prometheus gives them, with `remote_name` and `url`.
//!
//! They are registered when the sender starts and taken off when it stops, so that a destination that left the
//! configuration leaves the metrics too.

use std::collections::HashMap;
use std::sync::Mutex;

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry,
};

use crate::audit::worker::AuditMetrics;
use crate::backlog::BacklogMetrics;
use crate::queue::{Item, Value};

/// Counters of one kind of item.
pub(crate) struct Kind {
    pub(crate) total: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) retried: IntCounter,
    pub(crate) dropped: CounterVec,
    pub(crate) pending: IntGauge,
}

pub(crate) struct SenderMetrics {
    registry: Registry,
    registered: Mutex<Vec<Box<dyn Collector>>>,
    pub(crate) samples: Kind,
    pub(crate) histograms: Kind,
    pub(crate) exemplars: Kind,
    pub(crate) metadata: Kind,
    pub(crate) failed_by_reason: CounterVec,
    pub(crate) sent_batch_duration: Histogram,
    pub(crate) bytes: IntCounter,
    pub(crate) highest: Gauge,
    pub(crate) highest_sent: Gauge,
    pub(crate) shards: IntGauge,
    pub(crate) shards_desired: Gauge,
    pub(crate) enqueue_retries: IntCounter,
    pub(crate) split: IntCounter,
    pub(crate) gaps: IntCounter,
    pub(crate) read_errors: IntCounter,
    pub(crate) position_errors: IntCounter,
    pub(crate) acknowledged_bytes: IntGauge,
    pub(crate) lag_seconds: Gauge,
}

/// What a request or a refused part of it held, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
    pub(crate) metadata: u64,
}

impl Counts {
    pub(crate) fn of(items: &[Item]) -> Self {
        let mut c = Self::default();
        for item in items {
            match item.value {
                Value::Float(_) => c.samples += 1,
                Value::Histogram(_) => c.histograms += 1,
                Value::Exemplar(_) => c.exemplars += 1,
                Value::Metadata(_) => c.metadata += 1,
            }
        }
        c
    }
}

impl Counts {
    /// Whether there is nothing.
    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// What `other` has not, kind by kind.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            samples: self.samples.saturating_sub(other.samples),
            histograms: self.histograms.saturating_sub(other.histograms),
            exemplars: self.exemplars.saturating_sub(other.exemplars),
            metadata: self.metadata.saturating_sub(other.metadata),
        }
    }

    /// Both together.
    #[cfg(test)]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            samples: self.samples + other.samples,
            histograms: self.histograms + other.histograms,
            exemplars: self.exemplars + other.exemplars,
            metadata: self.metadata + other.metadata,
        }
    }
}

/// Registers one collector after the other and remembers them.
pub(crate) struct Registrar<'a> {
    registry: &'a Registry,
    labels: HashMap<String, String>,
    done: Vec<Box<dyn Collector>>,
}

impl Registrar<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_labels(self.labels.clone())
    }

    fn add<C: Collector + Clone + 'static>(&mut self, c: prometheus::Result<C>) -> prometheus::Result<C> {
        let c = c?;
        self.registry.register(Box::new(c.clone()))?;
        self.done.push(Box::new(c.clone()));
        Ok(c)
    }

    pub(crate) fn int_counter(&mut self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let opts = self.opts(name, help);
        self.add(IntCounter::with_opts(opts))
    }

    pub(crate) fn int_gauge(&mut self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let opts = self.opts(name, help);
        self.add(IntGauge::with_opts(opts))
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        let opts = self.opts(name, help);
        self.add(Gauge::with_opts(opts))
    }

    pub(crate) fn gauge_vec(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<GaugeVec> {
        let opts = self.opts(name, help);
        self.add(GaugeVec::new(opts, labels))
    }

    pub(crate) fn int_counter_vec(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let opts = self.opts(name, help);
        self.add(IntCounterVec::new(opts, labels))
    }

    fn counter_vec(&mut self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        let opts = self.opts(name, help);
        self.add(CounterVec::new(opts, labels))
    }

    fn kind(&mut self, kind: &str, what: &str) -> prometheus::Result<Kind> {
        let name = |suffix: &str| format!("prometheus_remote_storage_{kind}_{suffix}");
        Ok(Kind {
            total: self.int_counter(&name("total"), &format!("{what} sent to remote storage."))?,
            failed: self.int_counter(
                &name("failed_total"),
                &format!("{what} that remote storage refused for good; they are not sent again."),
            )?,
            retried: self.int_counter(
                &name("retried_total"),
                &format!("{what} sent again because an attempt failed in a way that may pass."),
            )?,
            dropped: self.counter_vec(
                &name("dropped_total"),
                &format!("{what} read from the write-ahead log and not sent, by reason."),
                &["reason"],
            )?,
            pending: self.int_gauge(&name("pending"), &format!("{what} read and not yet acknowledged."))?,
        })
    }
}

impl SenderMetrics {
    /// Registers everything for a destination, or nothing.
    pub(crate) fn register(registry: &Registry, name: &str, url: &str) -> prometheus::Result<Self> {
        let labels =
            HashMap::from([("remote_name".to_owned(), name.to_owned()), ("url".to_owned(), url.to_owned())]);
        let mut r = Registrar { registry, labels, done: Vec::new() };
        match Self::register_all(&mut r) {
            Ok(metrics) => {
                *metrics.registered.lock().expect("nobody panics holding it") = r.done;
                Ok(metrics)
            }
            Err(e) => {
                unregister(registry, r.done);
                Err(e)
            }
        }
    }

    fn register_all(r: &mut Registrar<'_>) -> prometheus::Result<Self> {
        const P: &str = "prometheus_remote_storage_";
        const A: &str = "almanac_federation_";
        let buckets = [&prometheus::DEFAULT_BUCKETS[..], &[25.0, 60.0, 120.0, 300.0]].concat();
        let duration = HistogramOpts::new(
            format!("{P}sent_batch_duration_seconds"),
            "Duration of send calls to the remote storage.",
        )
        .const_labels(r.labels.clone())
        .buckets(buckets);
        Ok(Self {
            registry: r.registry.clone(),
            registered: Mutex::new(Vec::new()),
            samples: r.kind("samples", "Samples")?,
            histograms: r.kind("histograms", "Native histograms")?,
            exemplars: r.kind("exemplars", "Exemplars")?,
            metadata: r.kind("metadata", "Metadata entries")?,
            failed_by_reason: r.counter_vec(
                &format!("{A}refused_total"),
                "Samples, histograms and exemplars that remote storage refused for good, by status code.",
                &["code"],
            )?,
            sent_batch_duration: r.add(Histogram::with_opts(duration))?,
            bytes: r.int_counter(&format!("{P}bytes_total"), "Bytes sent, after compression.")?,
            highest: r.gauge(
                &format!("{P}queue_highest_timestamp_seconds"),
                "Highest timestamp read for this destination, in seconds since the epoch.",
            )?,
            highest_sent: r.gauge(
                &format!("{P}queue_highest_sent_timestamp_seconds"),
                "Highest timestamp acknowledged by this destination, in seconds since the epoch.",
            )?,
            shards: r.int_gauge(&format!("{P}shards"), "Shards that send in parallel.")?,
            shards_desired: r.gauge(&format!("{P}shards_desired"), "Shards that the load asks for.")?,
            enqueue_retries: r.int_counter(
                &format!("{P}enqueue_retries_total"),
                "Times that reading the log paused because the queues were full.",
            )?,
            split: r.int_counter(
                &format!("{A}split_total"),
                "Requests that were halved because the destination found them too large.",
            )?,
            gaps: r.int_counter(
                &format!("{A}gap_total"),
                "Times that the log no longer reached back to the acknowledged position.",
            )?,
            read_errors: r.int_counter(&format!("{A}read_errors_total"), "Failed reads of the log.")?,
            position_errors: r.int_counter(
                &format!("{A}position_errors_total"),
                "Failed attempts to store the acknowledged position.",
            )?,
            acknowledged_bytes: r.int_gauge(
                &format!("{A}acknowledged_position_bytes"),
                "Acknowledged position as segment * 128 MiB + offset.",
            )?,
            lag_seconds: r.gauge(
                &format!("{A}lag_seconds"),
                "Age of the newest acknowledged sample while others wait; 0 when none waits.",
            )?,
        })
    }

    /// Sets the gauges that show the configuration. They are only read, so they need no handle.
    pub(crate) fn show_config(&self, queue: &crate::config::QueueConfig) -> prometheus::Result<()> {
        let mut r = self.registrar();
        for (name, help, value) in [
            ("shard_capacity", "Samples that a shard may hold.", queue.capacity),
            ("shards_max", "Most shards.", queue.max_shards),
            ("shards_min", "Fewest shards.", queue.min_shards),
            ("max_samples_per_send", "Most samples in one request.", queue.max_samples_per_send),
        ] {
            r.int_gauge(&format!("prometheus_remote_storage_{name}"), help)?
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.registered.lock().expect("nobody panics holding it").append(&mut r.done);
        Ok(())
    }

    /// Registers the metrics of a backlog lane beside these.
    pub(crate) fn register_backlog(&self) -> prometheus::Result<BacklogMetrics> {
        let mut r = self.registrar();
        let metrics = BacklogMetrics::register(&mut r);
        // What is registered before a failure is taken off with the rest.
        self.registered.lock().expect("nobody panics holding it").append(&mut r.done);
        metrics
    }

    /// Registers the metrics of an audit beside these.
    pub(crate) fn register_audit(&self) -> prometheus::Result<AuditMetrics> {
        let mut r = self.registrar();
        let metrics = AuditMetrics::register(&mut r);
        self.registered.lock().expect("nobody panics holding it").append(&mut r.done);
        metrics
    }

    fn registrar(&self) -> Registrar<'_> {
        Registrar {
            registry: &self.registry,
            labels: self.samples.total.desc()[0]
                .const_label_pairs
                .iter()
                .map(|p| (p.name().to_owned(), p.value().to_owned()))
                .collect(),
            done: Vec::new(),
        }
    }

    /// Adds `counts` to one counter of each kind.
    pub(crate) fn add(&self, counts: Counts, which: impl Fn(&Kind) -> &IntCounter) {
        which(&self.samples).inc_by(counts.samples);
        which(&self.histograms).inc_by(counts.histograms);
        which(&self.exemplars).inc_by(counts.exemplars);
        which(&self.metadata).inc_by(counts.metadata);
    }

    /// Counts what is not sent, by reason.
    pub(crate) fn dropped(&self, counts: Counts, why: &str) {
        for (kind, n) in [
            (&self.samples, counts.samples),
            (&self.histograms, counts.histograms),
            (&self.exemplars, counts.exemplars),
        ] {
            if n > 0 {
                reason(kind, why).inc_by(n as f64);
            }
        }
    }

    /// Moves the gauges of what is pending.
    pub(crate) fn add_pending(&self, counts: Counts, sign: i64) {
        let by = |n: u64| sign * i64::try_from(n).unwrap_or(i64::MAX);
        self.samples.pending.add(by(counts.samples));
        self.histograms.pending.add(by(counts.histograms));
        self.exemplars.pending.add(by(counts.exemplars));
        self.metadata.pending.add(by(counts.metadata));
    }

    /// Takes everything off the registry.
    pub(crate) fn unregister(&self) {
        let all = std::mem::take(&mut *self.registered.lock().expect("nobody panics holding it"));
        unregister(&self.registry, all);
    }
}

fn unregister(registry: &Registry, collectors: Vec<Box<dyn Collector>>) {
    for c in collectors {
        if let Err(e) = registry.unregister(c) {
            tracing::warn!(error = %e, "a metric could not be taken off");
        }
    }
}

/// Counters of the `reason` label, looked up once.
pub(crate) fn reason(kind: &Kind, reason: &str) -> Counter {
    kind.dropped.with_label_values(&[reason])
}
