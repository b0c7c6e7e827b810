//! What grows: names of metrics and labels of new series, in bounded memory.
//!
//! Names are counted by space-saving: a full list gives the place of its smallest count, and the count itself, to the next
//! newcomer, so that a name that is often new is never missed, and its count is too high by at most that. Values of labels
//! are estimated by HyperLogLog. Lists cover the current half hour and the one before.

use model::Labels;
use model::labels::METRIC_NAME;
use xxhash_rust::xxh3::xxh3_64;

/// Names that are counted.
const NAMES_MAX: usize = 64;
/// Of a longer name only so many bytes are kept.
const NAME_LEN_MAX: usize = 200;
/// Time after which a list is begun anew.
const GENERATION_MS: i64 = 30 * 60 * 1000;
const MINUTE_MS: i64 = 60_000;
const MINUTES: usize = 60;
/// Registers of an estimate, whose standard error is 1.04 / sqrt(128), some 9 %.
const REGISTERS: usize = 128;

/// A metric that new series belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowingMetric {
    /// Its name.
    pub name: String,
    /// New series, the refused ones included.
    pub new: u64,
    /// Those that were refused.
    pub refused: u64,
}

/// A label of new series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowingLabel {
    /// Its name.
    pub name: String,
    /// New series that have it, the refused ones included.
    pub new: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Estimate of its different values among them.
    pub values: u64,
}

/// What [`Growth`] tells.
pub(super) struct Report {
    pub(super) new_in_last_hour: u64,
    pub(super) window_seconds: u64,
    pub(super) metrics: Vec<GrowingMetric>,
    pub(super) labels: Vec<GrowingLabel>,
}

/// New series of one job.
#[derive(Debug)]
pub(super) struct Growth {
    /// The generation now, and the one before.
    lists: [Lists; 2],
    began_ms: Option<i64>,
    minutes: [u64; MINUTES],
    /// The minute of the last change, counted from the epoch.
    minute: i64,
}

#[derive(Debug, Default)]
struct Lists {
    metrics: Vec<Counter>,
    labels: Vec<Counter>,
}

#[derive(Clone, Debug)]
struct Counter {
    name: Box<str>,
    new: u64,
    refused: u64,
    /// For labels.
    values: Option<Box<[u8; REGISTERS]>>,
}

impl Default for Growth {
    fn default() -> Self {
        Self { lists: Default::default(), began_ms: None, minutes: [0; MINUTES], minute: 0 }
    }
}

impl Growth {
    /// Notes a new series.
    pub(super) fn note(&mut self, labels: &Labels, refused: bool, now_ms: i64) {
        self.advance(now_ms);
        self.minutes[self.minute.rem_euclid(MINUTES as i64) as usize] += 1;
        let lists = &mut self.lists[0];
        for (name, value) in labels.iter() {
            if name == METRIC_NAME {
                count(&mut lists.metrics, value, refused);
            } else {
                let counter = count(&mut lists.labels, name, refused);
                see(counter.values.get_or_insert_with(|| Box::new([0; REGISTERS])), value);
            }
        }
    }

    fn advance(&mut self, now_ms: i64) {
        let began_ms = *self.began_ms.get_or_insert(now_ms);
        let age_ms = now_ms - began_ms;
        if !(0..GENERATION_MS).contains(&age_ms) {
            let before = std::mem::take(&mut self.lists[0]);
            // A clock that went back begins anew, as does one that was still for long.
            self.lists[1] =
                if (GENERATION_MS..2 * GENERATION_MS).contains(&age_ms) { before } else { Lists::default() };
            self.began_ms = Some(now_ms);
        }
        let minute = now_ms.div_euclid(MINUTE_MS);
        let passed = usize::try_from(minute - self.minute).unwrap_or(MINUTES).min(MINUTES);
        for i in 0..passed {
            self.minutes[(minute - i as i64).rem_euclid(MINUTES as i64) as usize] = 0;
        }
        self.minute = minute;
    }

    pub(super) fn report(&mut self, names: usize, now_ms: i64) -> Report {
        self.advance(now_ms);
        let merged = |pick: fn(&Lists) -> &Vec<Counter>| {
            let mut all = pick(&self.lists[0]).clone();
            for old in pick(&self.lists[1]) {
                match all.iter_mut().find(|c| c.name == old.name) {
                    Some(c) => c.add(old),
                    None => all.push(old.clone()),
                }
            }
            all
        };
        let (mut metrics, mut labels) = (merged(|l| &l.metrics), merged(|l| &l.labels));
        metrics.sort_by(|a, b| b.new.cmp(&a.new).then_with(|| a.name.cmp(&b.name)));
        labels.sort_by_cached_key(|c| (u64::MAX - c.estimate(), u64::MAX - c.new, c.name.clone()));
        let before_ms = if self.lists[1].metrics.is_empty() { 0 } else { GENERATION_MS };
        let window_ms = before_ms + self.began_ms.map_or(0, |began| now_ms - began);
        Report {
            new_in_last_hour: self.minutes.iter().sum(),
            window_seconds: window_ms.unsigned_abs() / 1000,
            metrics: metrics
                .into_iter()
                .take(names)
                .map(|c| GrowingMetric { name: c.name.into(), new: c.new, refused: c.refused })
                .collect(),
            labels: labels
                .into_iter()
                .take(names)
                .map(|c| GrowingLabel {
                    values: c.estimate(),
                    name: c.name.into(),
                    new: c.new,
                    refused: c.refused,
                })
                .collect(),
        }
    }
}

impl Counter {
    fn add(&mut self, other: &Self) {
        self.new += other.new;
        self.refused += other.refused;
        if let (Some(mine), Some(theirs)) = (&mut self.values, &other.values) {
            mine.iter_mut().zip(theirs.iter()).for_each(|(a, b)| *a = (*a).max(*b));
        }
    }

    fn estimate(&self) -> u64 {
        let Some(registers) = &self.values else { return 0 };
        let m = REGISTERS as f64;
        let sum: f64 = registers.iter().map(|r| (-f64::from(*r)).exp2()).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty = registers.iter().filter(|r| **r == 0).count();
        // Of few values the empty registers tell more.
        let estimate = if estimate <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { estimate };
        (estimate.round() as u64).min(self.new)
    }
}

/// Counts a name.
fn count<'a>(list: &'a mut Vec<Counter>, name: &str, refused: bool) -> &'a mut Counter {
    let name = if name.len() > NAME_LEN_MAX { &name[..name.floor_char_boundary(NAME_LEN_MAX)] } else { name };
    let at = match list.iter().position(|c| &*c.name == name) {
        Some(at) => at,
        None if list.len() < NAMES_MAX => {
            list.push(Counter { name: name.into(), new: 0, refused: 0, values: None });
            list.len() - 1
        }
        None => {
            let smallest = (0..list.len()).min_by_key(|at| list[*at].new).unwrap_or(0);
            let c = &mut list[smallest];
            (c.name, c.refused, c.values) = (name.into(), 0, None);
            smallest
        }
    };
    let counter = &mut list[at];
    counter.new += 1;
    counter.refused += u64::from(refused);
    counter
}

/// Notes a value in an estimate.
fn see(registers: &mut [u8; REGISTERS], value: &str) {
    let hash = xxh3_64(value.as_bytes());
    let register = &mut registers[(hash % REGISTERS as u64) as usize];
    *register = (*register).max(((hash / REGISTERS as u64) | (1 << 57)).trailing_zeros() as u8 + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metric: &str, path: &str) -> Labels {
        Labels::from_pairs([(METRIC_NAME, metric), ("path", path), ("job", "j")])
    }

    #[test]
    fn what_grows_is_named() {
        let mut g = Growth::default();
        for i in 0..20_000 {
            g.note(&series("grows", &format!("/{i}")), i % 2 == 0, i);
            // Names without end cannot push out one that is there often.
            g.note(&series(&format!("once_{i}"), "/"), false, i);
        }
        let r = g.report(2, 20_000);
        assert_eq!(r.new_in_last_hour, 40_000);
        assert_eq!(r.metrics[0], GrowingMetric { name: "grows".into(), new: 20_000, refused: 10_000 });
        assert_eq!((r.labels[0].name.as_str(), r.labels[1].name.as_str()), ("path", "job"));
        assert!((14_000..26_000).contains(&r.labels[0].values), "{}", r.labels[0].values);
        assert_eq!((r.labels[1].values, r.labels[1].new), (1, 40_000));
        assert_eq!(g.lists[0].metrics.len(), NAMES_MAX);
    }

    #[test]
    fn the_past_is_forgotten() {
        let mut g = Growth::default();
        g.note(&series("early", "a"), false, 0);
        g.note(&series("late", "a"), false, GENERATION_MS + 1);
        let r = g.report(9, GENERATION_MS + MINUTE_MS);
        assert_eq!((r.metrics.len(), r.new_in_last_hour), (2, 2));
        assert_eq!(r.window_seconds, 30 * 60 + 59);
        let r = g.report(9, 3 * GENERATION_MS);
        assert_eq!((r.metrics.len(), r.new_in_last_hour), (1, 0));
        let r = g.report(9, 9 * GENERATION_MS);
        assert_eq!((r.metrics.len(), r.new_in_last_hour), (0, 0));
        assert_eq!(g.report(9, 0).metrics.len(), 0, "a clock that goes back");
    }

    #[test]
    fn estimates_are_near() {
        for n in [1_u64, 10, 100, 1_000, 100_000] {
            let mut c =
                Counter { name: "".into(), new: n, refused: 0, values: Some(Box::new([0; REGISTERS])) };
            let registers = c.values.as_mut().expect("just put there");
            (0..n).for_each(|i| see(registers, &i.to_string()));
            let estimate = c.estimate();
            assert!(estimate.abs_diff(n) * 4 <= n, "{n}: {estimate}");
        }
    }
}
