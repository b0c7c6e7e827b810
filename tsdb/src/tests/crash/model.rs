//! What is known of the samples of a history. The value of a sample follows from its series and time, so that only these are
//! kept.

use std::collections::{BTreeMap, BTreeSet};

use ::model::histogram::{CounterResetHint, Span};
use ::model::{FloatHistogram, Histogram, HistogramValue, Labels, SampleValue};

use model::rng::Rng;

/// A sample: number of its series, and time.
pub(super) type Key = (u64, i64);

/// What an acknowledged sample survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Survives {
    Process,
    Machine,
}

#[derive(Default)]
pub(super) struct Model {
    /// May be there.
    pub(super) sent: BTreeSet<Key>,
    /// What of them was deleted.
    hidden: BTreeSet<Key>,
    /// Must be there.
    pub(super) acknowledged: BTreeMap<Key, Survives>,
    /// Deleted, perhaps in part: `(series, mint, maxt)`. Late samples that come there are not sent: as with Prometheus they are hidden
    /// as long as the tombstone is there, which goes with the block that is written next, so that both outcomes are right.
    pub(super) deleted: Vec<(u64, i64, i64)>,
}

pub(super) fn labels(series: u64) -> Labels {
    Labels::from_pairs([
        ("__name__", "m"),
        ("group", (series % 3).to_string().as_str()),
        ("i", series.to_string().as_str()),
    ])
}

/// The value of a sample.
pub(super) fn value(seed: u64, (series, t): Key) -> SampleValue {
    let mut rng = Rng::new(seed ^ series.wrapping_mul(0x9e37_79b9) ^ (t as u64).wrapping_mul(0x85eb_ca6b));
    let mut n = || rng.below(1000);
    match series % 5 {
        3 => {
            let buckets = [n(), n(), n()];
            let deltas = [
                buckets[0] as i64,
                buckets[1] as i64 - buckets[0] as i64,
                buckets[2] as i64 - buckets[1] as i64,
            ];
            let zero = n();
            SampleValue::Histogram(HistogramValue::Int(
                Histogram {
                    schema: 1,
                    zero_threshold: 0.001,
                    zero_count: zero,
                    count: zero + buckets.iter().sum::<u64>(),
                    sum: n() as f64 / 7.0,
                    positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 3, length: 1 }],
                    positive_buckets: deltas.to_vec(),
                    ..Histogram::default()
                }
                .into(),
            ))
        }
        4 => {
            let buckets = [n() as f64 / 3.0, n() as f64];
            SampleValue::Histogram(HistogramValue::Float(
                FloatHistogram {
                    schema: 0,
                    count: buckets[0] + buckets[1],
                    sum: n() as f64,
                    negative_spans: vec![Span { offset: -2, length: 2 }],
                    negative_buckets: buckets.to_vec(),
                    ..FloatHistogram::default()
                }
                .into(),
            ))
        }
        _ if n() < 20 => SampleValue::Float(::model::stale_nan()),
        0 => SampleValue::Float((t / 1000) as f64),
        _ => SampleValue::Float(n() as f64 / 16.0),
    }
}

/// Whether a value that was read is the one of this sample. Hints on resets follow from neighbours and are left out.
pub(super) fn is_value(seed: u64, key: Key, mut read: SampleValue) -> bool {
    match &mut read {
        SampleValue::Histogram(HistogramValue::Int(h)) => {
            std::sync::Arc::make_mut(h).counter_reset_hint = CounterResetHint::default();
        }
        SampleValue::Histogram(HistogramValue::Float(h)) => {
            std::sync::Arc::make_mut(h).counter_reset_hint = CounterResetHint::default();
        }
        SampleValue::Float(_) => {}
    }
    value(seed, key) == read
}

impl Model {
    pub(super) fn is_deleted(&self, (series, t): Key) -> bool {
        self.deleted.iter().any(|(s, mint, maxt)| *s == series && (*mint..=*maxt).contains(&t))
    }

    pub(super) fn acknowledge(&mut self, keys: &[Key], survives: Survives) {
        for k in keys {
            let known = self.acknowledged.entry(*k).or_insert(survives);
            *known = (*known).max(survives);
        }
    }

    /// All that is acknowledged so far is on the disk.
    pub(super) fn all_durable(&mut self) {
        self.acknowledged.values_mut().for_each(|s| *s = Survives::Machine);
    }

    /// Only what is on the disk must still be there.
    pub(super) fn lose_undurable(&mut self) {
        self.acknowledged.retain(|_, s| *s == Survives::Machine);
    }

    /// Nothing that was said can be relied on, also not what was said to be deleted.
    pub(super) fn lose_all(&mut self) {
        self.acknowledged.clear();
        self.unhide();
    }

    /// What was deleted may be seen again.
    pub(super) fn unhide(&mut self) {
        self.sent.append(&mut self.hidden);
    }

    /// Samples before `t` may be gone.
    pub(super) fn expire(&mut self, t: i64) {
        self.acknowledged.retain(|(_, at), _| *at >= t);
    }

    /// A delete that ended well, or one of which nobody knows.
    pub(super) fn delete(&mut self, series: &[u64], mint: i64, maxt: i64, surely: bool) {
        let within = |(s, t): &Key| series.contains(s) && (mint..=maxt).contains(t);
        let known: Vec<Key> = self.acknowledged.keys().copied().filter(|k| within(k)).collect();
        self.acknowledged.retain(|k, _| !within(k));
        self.deleted.extend(series.iter().map(|s| (*s, mint, maxt)));
        if surely {
            // A batch that failed may be in the log all the same and come with the next start. It was never seen, so that nobody
            // meant it; a tombstone for more than is there would hide what is sent later, perhaps that very batch once more.
            for k in known {
                self.sent.remove(&k);
                self.hidden.insert(k);
            }
        }
    }
}
