//! Summaries for the program's own metrics: count, sum, and quantiles of what was observed in the last ten minutes, as
//! Prometheus's client for Go shows them. The client for Rust has none.
//!
//! Observations go into buckets whose bounds grow by 1 %, each with the sum of what is in it; a quantile is the mean of its
//! bucket, so it is off by 1 % at most, and right where all values are alike. Five sets of buckets of two minutes each are
//! kept; the oldest one goes when a new one begins. Memory follows the variety of values, not their number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use parking_lot::{Mutex, RwLock};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType, Quantile};

const AGES: u64 = 5;
const AGE_SECONDS: u64 = 120;
/// How much larger the bound of a bucket is than that of the one before.
const GROWTH: f64 = 1.01;
/// What is smaller shares a bucket: a nanosecond.
const SMALLEST: f64 = 1e-9;
/// What is larger shares a bucket.
const LARGEST: f64 = 1e15;

/// A summary without labels, or one of a [`SummaryVec`]. Clones share what they observe.
#[derive(Clone)]
pub struct Summary {
    desc: Desc,
    quantiles: &'static [f64],
    clock: Arc<dyn Clock>,
    observed: Arc<Mutex<Observed>>,
}

/// Summaries of one name, one for each set of label values. Clones share them.
#[derive(Clone)]
pub struct SummaryVec {
    desc: Desc,
    quantiles: &'static [f64],
    clock: Arc<dyn Clock>,
    all: Arc<RwLock<BTreeMap<Vec<String>, Summary>>>,
}

/// Observes the seconds from its start to when it is dropped.
pub struct Timer {
    summary: Summary,
    begun: Duration,
}

/// Count and sum of what fell into one bucket.
#[derive(Clone, Copy, Default)]
struct Bucket {
    count: u64,
    sum: f64,
}

#[derive(Default)]
struct Observed {
    count: u64,
    sum: f64,
    /// Age and its buckets, the newest last.
    ages: Vec<(u64, BTreeMap<i32, Bucket>)>,
}

impl Summary {
    /// A summary that shows `quantiles`, which may be none.
    ///
    /// # Errors
    /// When the name is not valid.
    pub fn new(
        name: &str,
        help: &str,
        quantiles: &'static [f64],
        clock: Arc<dyn Clock>,
    ) -> prometheus::Result<Self> {
        let desc = Desc::new(name.into(), help.into(), Vec::new(), Default::default())?;
        Ok(Self { desc, quantiles, clock, observed: Arc::default() })
    }

    /// Adds an observation.
    pub fn observe(&self, value: f64) {
        self.observed.lock().observe(value, self.clock.monotonic());
    }

    /// Begins to measure a duration.
    #[must_use]
    pub fn start_timer(&self) -> Timer {
        Timer { summary: self.clone(), begun: self.clock.monotonic() }
    }

    fn metric(&self, labels: Vec<LabelPair>) -> Metric {
        let mut observed = self.observed.lock();
        observed.forget(self.clock.monotonic());
        let mut summary = proto::Summary::default();
        summary.set_sample_count(observed.count);
        summary.set_sample_sum(observed.sum);
        let quantiles = observed.quantiles(self.quantiles).map(|(q, v)| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(q);
            quantile.set_value(v);
            quantile
        });
        summary.set_quantile(quantiles.collect());
        let mut metric = Metric::default();
        metric.set_summary(summary);
        metric.set_label(labels);
        metric
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let took = self.summary.clock.monotonic().saturating_sub(self.begun);
        self.summary.observe(took.as_secs_f64());
    }
}

impl SummaryVec {
    /// Summaries by `labels` that show `quantiles`.
    ///
    /// # Errors
    /// When the name or a label is not valid.
    pub fn new(
        name: &str,
        help: &str,
        labels: &[&str],
        quantiles: &'static [f64],
        clock: Arc<dyn Clock>,
    ) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        let desc = Desc::new(name.into(), help.into(), labels, Default::default())?;
        Ok(Self { desc, quantiles, clock, all: Arc::default() })
    }

    /// The summary of these values, in the order of the labels; made, and shown from then on, when there is none.
    ///
    /// # Panics
    /// When there are more or fewer values than labels.
    #[must_use]
    pub fn with_label_values(&self, values: &[&str]) -> Summary {
        assert_eq!(values.len(), self.desc.variable_labels.len(), "one value for each label");
        let key: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        if let Some(known) = self.all.read().get(&key) {
            return known.clone();
        }
        let make = || Summary {
            desc: self.desc.clone(),
            quantiles: self.quantiles,
            clock: self.clock.clone(),
            observed: Arc::default(),
        };
        self.all.write().entry(key).or_insert_with(make).clone()
    }

    /// Shows the summary of these values no longer. Whether there was one.
    pub fn remove_label_values(&self, values: &[&str]) -> bool {
        let key: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        self.all.write().remove(&key).is_some()
    }
}

impl Observed {
    fn observe(&mut self, v: f64, now: Duration) {
        self.count += 1;
        self.sum += v;
        if v.is_nan() {
            return;
        }
        self.forget(now);
        let age = now.as_secs() / AGE_SECONDS;
        if self.ages.last().is_none_or(|(newest, _)| *newest < age) {
            self.ages.push((age, BTreeMap::new()));
        }
        if let Some((_, buckets)) = self.ages.last_mut() {
            let number = (v.clamp(SMALLEST, LARGEST).ln() / GROWTH.ln()).ceil() as i32;
            let bucket = buckets.entry(number).or_default();
            bucket.count += 1;
            bucket.sum += v;
        }
    }

    fn forget(&mut self, now: Duration) {
        let age = now.as_secs() / AGE_SECONDS;
        self.ages.retain(|(a, _)| a + AGES > age);
    }

    /// The quantiles, in the order asked for; NaN when nothing was observed lately.
    fn quantiles(&self, wanted: &'static [f64]) -> impl Iterator<Item = (f64, f64)> + use<> {
        let mut merged: BTreeMap<i32, Bucket> = BTreeMap::new();
        for (number, b) in self.ages.iter().flat_map(|(_, b)| b) {
            let into = merged.entry(*number).or_default();
            into.count += b.count;
            into.sum += b.sum;
        }
        let total: u64 = merged.values().map(|b| b.count).sum();
        wanted.iter().map(move |q| {
            let rank = (q * total as f64).ceil().max(1.0) as u64;
            let mut below = 0;
            let found = merged.values().find(|b| {
                below += b.count;
                below >= rank
            });
            (*q, found.map_or(f64::NAN, |b| b.sum / b.count as f64))
        })
    }
}

fn family(desc: &Desc, metrics: Vec<Metric>) -> Vec<MetricFamily> {
    if metrics.is_empty() {
        return Vec::new();
    }
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::SUMMARY);
    family.set_metric(metrics);
    vec![family]
}

impl Collector for Summary {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        family(&self.desc, vec![self.metric(Vec::new())])
    }
}

impl Collector for SummaryVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.all.read();
        let metrics = all.iter().map(|(values, summary)| {
            let labels = self.desc.variable_labels.iter().zip(values).map(|(name, value)| {
                let mut label = LabelPair::default();
                label.set_name(name.clone());
                label.set_value(value.clone());
                label
            });
            summary.metric(labels.collect())
        });
        family(&self.desc, metrics.collect())
    }
}

#[cfg(test)]
mod tests {
    use model::clock::ManualClock;
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    const HALVES: &[f64] = &[0.5, 0.9, 0.99];

    fn values(o: &Observed) -> Vec<f64> {
        o.quantiles(HALVES).map(|(_, v)| v).collect()
    }

    #[test]
    fn quantiles_are_close_and_fade_away() {
        let mut o = Observed::default();
        (1..=1000).for_each(|i| o.observe(f64::from(i), Duration::from_secs(1)));
        for (got, expect) in values(&o).into_iter().zip([500.0, 900.0, 990.0]) {
            assert!((got / expect - 1.0).abs() < 0.011, "{got} for {expect}");
        }
        o.observe(7.0, Duration::from_secs(599));
        assert!((values(&o)[0] / 500.0 - 1.0).abs() < 0.011);
        o.forget(Duration::from_secs(601));
        assert_eq!(values(&o)[0], 7.0);
        o.forget(Duration::from_secs(2_000));
        assert!(values(&o)[0].is_nan());
        assert_eq!((o.count, o.sum), (1001, 500_507.0));
    }

    #[test]
    fn values_out_of_the_ordinary_are_counted() {
        let mut o = Observed::default();
        for v in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            o.observe(v, Duration::ZERO);
        }
        assert_eq!(o.count, 4);
        assert_eq!(values(&o), [-0.5, f64::INFINITY, f64::INFINITY]);
    }

    #[test]
    fn the_registry_shows_them_by_label() {
        let clock = Arc::new(ManualClock::default());
        let vec = SummaryVec::new("x_seconds", "X.", &["job", "kind"], &[0.5], clock.clone()).expect("valid");
        let none = Summary::new("y_seconds", "Y.", &[], clock.clone()).expect("valid");
        let registry = Registry::new();
        registry.register(Box::new(vec.clone())).expect("new");
        registry.register(Box::new(none.clone())).expect("new");
        let text = || {
            let mut out = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut out).expect("into memory");
            String::from_utf8(out).expect("text")
        };
        assert!(!text().contains("x_seconds"));
        let timer = none.start_timer();
        clock.advance(Duration::from_secs(2));
        drop(timer);
        vec.with_label_values(&["a", "b"]).observe(15.0);
        vec.with_label_values(&["a", "b"]).observe(15.0);
        assert_eq!(
            text(),
            "# HELP x_seconds X.\n# TYPE x_seconds summary\nx_seconds{job=\"a\",kind=\"b\",quantile=\"0.5\"} 15\n\
             x_seconds_sum{job=\"a\",kind=\"b\"} 30\nx_seconds_count{job=\"a\",kind=\"b\"} 2\n\
             # HELP y_seconds Y.\n# TYPE y_seconds summary\ny_seconds_sum 2\ny_seconds_count 1\n"
        );
        assert!(vec.remove_label_values(&["a", "b"]) && !text().contains("x_seconds"));
    }
}
