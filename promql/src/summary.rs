//! A summary: quantiles of what was observed in the last ten minutes, by one label.
//!
//! Observations go into buckets whose bounds grow by 2 %, so a quantile is off by 1 % at most, in bounded memory. Five sets
//! of buckets of two minutes each are kept; the oldest one goes when a new one begins. Count and sum cover everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};

/// The quantiles shown.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
const AGES: u64 = 5;
const AGE_SECONDS: u64 = 120;
/// How much larger the bound of a bucket is than that of the one before.
const GROWTH: f64 = 1.02;
/// What is smaller counts as nothing: a nanosecond.
const SMALLEST: f64 = 1e-9;
/// Bounds end here: three years.
const LARGEST: f64 = 1e8;

/// Summaries of one name, one for each value of a label. Clones share them.
#[derive(Clone)]
pub(crate) struct SummaryVec {
    desc: Desc,
    label: &'static str,
    clock: Arc<dyn Clock>,
    all: Arc<BTreeMap<&'static str, Mutex<Observed>>>,
}

#[derive(Default)]
struct Observed {
    count: u64,
    sum: f64,
    /// Age and its buckets, the newest last.
    ages: Vec<(u64, BTreeMap<i32, u64>)>,
}

impl SummaryVec {
    pub(crate) fn new(
        name: &str,
        help: &str,
        label: &'static str,
        values: &[&'static str],
        clock: Arc<dyn Clock>,
    ) -> Self {
        let desc = Desc::new(name.into(), help.into(), vec![label.into()], Default::default())
            .expect("name and label are fixed and valid");
        let all = values.iter().map(|v| (*v, Mutex::default())).collect();
        Self { desc, label, clock, all: Arc::new(all) }
    }

    /// Adds an observation under a value of the label; one that is not known is left out.
    pub(crate) fn observe(&self, value: &str, seconds: f64, now: Duration) {
        if let Some(observed) = self.all.get(value) {
            observed.lock().observe(seconds, now);
        }
    }
}

impl Observed {
    fn observe(&mut self, v: f64, now: Duration) {
        self.count += 1;
        self.sum += v;
        self.forget(now);
        let age = now.as_secs() / AGE_SECONDS;
        if self.ages.last().is_none_or(|(newest, _)| *newest < age) {
            self.ages.push((age, BTreeMap::new()));
        }
        if let Some((_, buckets)) = self.ages.last_mut() {
            let bucket = (v.clamp(SMALLEST, LARGEST).ln() / GROWTH.ln()).ceil() as i32;
            *buckets.entry(bucket).or_default() += 1;
        }
    }

    fn forget(&mut self, now: Duration) {
        let age = now.as_secs() / AGE_SECONDS;
        self.ages.retain(|(a, _)| a + AGES > age);
    }

    /// NaN when nothing was observed lately.
    fn quantiles(&self) -> [f64; 3] {
        let mut merged: BTreeMap<i32, u64> = BTreeMap::new();
        for (bucket, n) in self.ages.iter().flat_map(|(_, b)| b) {
            *merged.entry(*bucket).or_default() += n;
        }
        let total: u64 = merged.values().sum();
        QUANTILES.map(|q| {
            let rank = (q * total as f64).ceil().max(1.0) as u64;
            let mut below = 0;
            for (bucket, n) in &merged {
                below += n;
                if below >= rank {
                    // The middle of the bucket.
                    return GROWTH.powi(*bucket) * 2.0 / (1.0 + GROWTH);
                }
            }
            f64::NAN
        })
    }

    fn to_metric(&self, label: LabelPair) -> Metric {
        let mut summary = Summary::default();
        summary.set_sample_count(self.count);
        summary.set_sample_sum(self.sum);
        let quantiles = QUANTILES.into_iter().zip(self.quantiles()).map(|(q, v)| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(q);
            quantile.set_value(v);
            quantile
        });
        summary.set_quantile(quantiles.collect());
        let mut metric = Metric::default();
        metric.set_summary(summary);
        metric.set_label(vec![label]);
        metric
    }
}

impl Collector for SummaryVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.clock.monotonic();
        let metrics = self.all.iter().map(|(value, observed)| {
            let mut label = LabelPair::default();
            label.set_name(self.label.into());
            label.set_value((*value).into());
            let mut observed = observed.lock();
            observed.forget(now);
            observed.to_metric(label)
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_and_fade_away() {
        let mut o = Observed::default();
        (1..=1000).for_each(|i| o.observe(f64::from(i), Duration::from_secs(1)));
        for (got, expect) in o.quantiles().into_iter().zip([500.0, 900.0, 990.0]) {
            assert!((got / expect - 1.0).abs() < 0.011, "{got} for {expect}");
        }
        o.observe(7.0, Duration::from_secs(599));
        assert!((o.quantiles()[0] / 500.0 - 1.0).abs() < 0.011);
        o.forget(Duration::from_secs(601));
        assert!((o.quantiles()[0] / 7.0 - 1.0).abs() < 0.011);
        o.forget(Duration::from_secs(2_000));
        assert!(o.quantiles()[0].is_nan());
        assert_eq!((o.count, o.sum), (1001, 500_507.0));
    }
}
