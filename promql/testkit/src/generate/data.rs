//! Random series. The metrics are always the same, so that queries can name them; which series there are, and what they
//! carry, the dice decide.

use std::collections::BTreeMap;

use model::{Labels, Sample, stale_nan};

use super::histograms::{HistogramSource, Layout};
use super::rng::Rng;
use super::{DataSet, Profile};

/// Metrics that hold floats that go up and down.
pub(super) const GAUGES: [&str; 3] = ["temperature", "queue_length", "flat"];
/// Metrics that hold floats that rise.
pub(super) const COUNTERS: [&str; 2] = ["requests_total", "errors_total"];
/// The metric that holds the buckets of classic histograms.
pub(super) const BUCKETS: &str = "latency_seconds_bucket";
/// Metrics that hold native histograms: with exponential buckets, rising and not, and with custom ones.
pub(super) const NATIVE: [&str; 3] = ["size_bytes", "load", "wait_seconds"];
/// The metric whose series change between floats and histograms.
pub(super) const MIXED: &str = "mixed";
/// The info metric.
pub(super) const INFO: &str = "target_info";

/// Labels that series have.
pub(super) const LABELS: [&str; 4] = ["job", "instance", "mode", "le"];

const STALE_PERCENT: u64 = 60;

pub(super) fn generate(rng: &mut Rng, profile: &Profile, start_ms: i64) -> DataSet {
    let mut maker = Maker { rng, profile, start_ms, series: BTreeMap::new() };
    for name in GAUGES {
        maker.family(name, |rng, p| Floats::gauge(rng, p, name == "flat"));
    }
    for name in COUNTERS {
        maker.family(name, Floats::counter);
    }
    maker.classic_histograms();
    maker.info();
    if profile.native_histograms {
        maker.native("size_bytes", Layout::Exponential, true);
        maker.native("load", Layout::Exponential, false);
        maker.native("wait_seconds", Layout::Custom, true);
        maker.mixed();
    }
    DataSet { series: maker.series.into_iter().collect() }
}

struct Maker<'a> {
    rng: &'a mut Rng,
    profile: &'a Profile,
    start_ms: i64,
    series: BTreeMap<Labels, Vec<Sample>>,
}

impl Maker<'_> {
    /// Label sets of a few series, without the metric name.
    fn identities(&mut self, percent: u64) -> Vec<Vec<(&'static str, &'static str)>> {
        let mut out = Vec::new();
        for job in ["api", "db"] {
            for instance in ["0", "1", "2"] {
                if !self.rng.chance(percent) {
                    continue;
                }
                let mut labels = vec![("job", job), ("instance", instance)];
                match self.rng.below(6) {
                    0 => labels.push(("mode", "idle")),
                    1 => labels.push(("mode", "user")),
                    2 if self.profile.recent_syntax => labels.push(("data.center", "a\"b")),
                    _ => {}
                }
                out.push(labels);
            }
        }
        out
    }

    /// One without gaps gives the other no reason to differ: each series has its own times.
    fn times(&mut self) -> Vec<Scraped> {
        let rng = &mut *self.rng;
        let span = self.profile.span_ms;
        let interval = rng.pick(&[15_000, 30_000, 30_000, 60_000]);
        let jitter = if rng.chance(50) { 0 } else { rng.between(1, interval / 3) };
        let first = if rng.chance(70) { 0 } else { rng.between(0, span / 2) };
        let last = if rng.chance(70) { span } else { rng.between(span / 2, span) };
        let phase = if rng.chance(60) { 0 } else { rng.between(0, interval) };
        let (mut out, mut at, mut gap, mut stale) = (Vec::new(), first + phase, 0, false);
        let mut previous = i64::MIN;
        while at <= last {
            let mut t = at + if jitter > 0 { rng.between(0, jitter) } else { 0 };
            if !self.profile.samples_on_bounds {
                t = t - t.rem_euclid(500) + rng.between(1, 499);
            }
            at += interval;
            if gap == 0 && rng.chance(4) {
                gap = rng.between(1, 900_000 / interval / 2);
                stale = rng.chance(STALE_PERCENT);
            } else if gap > 0 {
                gap -= 1;
                if !stale {
                    continue;
                }
            }
            if t > previous {
                out.push(Scraped { t: self.start_ms + t, stale: std::mem::take(&mut stale) });
                previous = t;
            }
            if gap > 0 && out.last().is_some_and(|s| s.stale) {
                // The marker is there; the rest of the gap is empty.
                stale = false;
            }
        }
        out
    }

    fn insert(&mut self, name: &str, labels: &[(&str, &str)], samples: Vec<Sample>) {
        let pairs = std::iter::once(("__name__", name)).chain(labels.iter().copied());
        if !samples.is_empty() {
            self.series.insert(Labels::from_pairs(pairs), samples);
        }
    }

    fn family(&mut self, name: &str, source: impl Fn(&mut Rng, &Profile) -> Floats) {
        for labels in self.identities(70) {
            let times = self.times();
            let mut floats = source(self.rng, self.profile);
            let mut starts = Starts::new(self.rng, self.profile);
            let samples = times
                .into_iter()
                .map(|at| {
                    let (value, reset) = floats.next(self.rng);
                    let start_timestamp_ms = starts.next(self.rng, at.t, reset);
                    let value = if at.stale { stale_nan() } else { value };
                    Sample { start_timestamp_ms, ..Sample::float(at.t, value) }
                })
                .collect();
            self.insert(name, &labels, samples);
        }
    }

    /// Buckets of one histogram mostly share their times; values are cumulative, mostly.
    fn classic_histograms(&mut self) {
        const BOUNDS: [&str; 6] = ["0.1", "0.5", "1", "2.5", "10", "+Inf"];
        for labels in self.identities(50) {
            let times = self.times();
            let mut counts = [0_u64; BOUNDS.len()];
            let mut columns: Vec<Vec<Sample>> = vec![Vec::new(); BOUNDS.len()];
            let negative = self.rng.chance(10);
            for at in times {
                if self.rng.chance(3) {
                    counts = [0; BOUNDS.len()];
                }
                for c in &mut counts {
                    *c += self.rng.below(5);
                }
                let mut sum = 0;
                for (column, count) in columns.iter_mut().zip(counts) {
                    sum += count;
                    let odd = self.profile.extreme_values && self.rng.chance(1);
                    let value = if odd { special(self.rng) } else { sum as f64 };
                    let value = if at.stale { stale_nan() } else { value };
                    column.push(Sample::float(at.t, value));
                }
            }
            for (bound, samples) in BOUNDS.iter().zip(columns) {
                if self.profile.extreme_values && self.rng.chance(3) {
                    continue;
                }
                let bound = match *bound {
                    "0.1" if negative => "-1",
                    "1" if self.profile.recent_syntax && self.rng.chance(10) => "1.0",
                    "0.5" if self.profile.extreme_values && self.rng.chance(3) => "odd",
                    b => b,
                };
                let mut labels = labels.clone();
                labels.push(("le", bound));
                self.insert(BUCKETS, &labels, samples);
            }
        }
    }

    fn info(&mut self) {
        for mut labels in self.identities(60) {
            labels.retain(|(n, _)| *n != "mode");
            let times = self.times();
            let cut = if self.rng.chance(30) { self.rng.below(times.len() as u64 + 1) as usize } else { 0 };
            for (part, version) in [(&times[..cut], "1.0"), (&times[cut..], "1.1")] {
                let mut labels = labels.clone();
                labels.push(("version", version));
                if self.rng.chance(50) {
                    labels.push(("cluster", "eu"));
                }
                let value = |at: &Scraped| if at.stale { stale_nan() } else { 1.0 };
                let samples = part.iter().map(|at| Sample::float(at.t, value(at))).collect();
                self.insert(INFO, &labels, samples);
            }
        }
    }

    fn native(&mut self, name: &str, layout: Layout, counter: bool) {
        for labels in self.identities(50) {
            let times = self.times();
            let mut source = HistogramSource::new(self.rng, self.profile, layout, counter);
            let mut starts = Starts::new(self.rng, self.profile);
            let samples = times
                .into_iter()
                .map(|at| {
                    let (value, reset) = source.next(self.rng, at.stale);
                    let start_timestamp_ms = starts.next(self.rng, at.t, reset);
                    Sample { start_timestamp_ms, ..Sample::histogram(at.t, value) }
                })
                .collect();
            self.insert(name, &labels, samples);
        }
    }

    fn mixed(&mut self) {
        for labels in self.identities(40) {
            let times = self.times();
            let layout = if self.rng.chance(60) { Layout::Exponential } else { Layout::Custom };
            let mut other = HistogramSource::new(self.rng, self.profile, Layout::Custom, true);
            let mut source = HistogramSource::new(self.rng, self.profile, layout, true);
            let mut floats = Floats::counter(self.rng, self.profile);
            let mut what = 0;
            let samples = times
                .into_iter()
                .map(|at| {
                    if self.rng.chance(15) {
                        what = self.rng.below(5);
                    }
                    match what {
                        0 | 1 => {
                            let value = if at.stale { stale_nan() } else { floats.next(self.rng).0 };
                            Sample::float(at.t, value)
                        }
                        2 | 3 => Sample::histogram(at.t, source.next(self.rng, at.stale).0),
                        _ => Sample::histogram(at.t, other.next(self.rng, at.stale).0),
                    }
                })
                .collect();
            self.insert(MIXED, &labels, samples);
        }
    }
}

/// When a sample is taken, and whether it is the marker of an end.
struct Scraped {
    t: i64,
    stale: bool,
}

/// Start timestamps of a series, true or not.
struct Starts {
    on: bool,
    at: i64,
    previous: Option<i64>,
}

impl Starts {
    fn new(rng: &mut Rng, profile: &Profile) -> Self {
        Self { on: profile.start_timestamps && rng.chance(25), at: 0, previous: None }
    }

    fn next(&mut self, rng: &mut Rng, t: i64, reset: bool) -> i64 {
        if !self.on {
            return 0;
        }
        let previous = self.previous.replace(t);
        if reset || previous.is_none() || rng.chance(5) {
            let from = previous.unwrap_or(t - 60_000);
            self.at = match rng.below(10) {
                0 => 0,
                1 => from,
                2 => t,
                3 => from - 1,
                _ => rng.between(from, t),
            };
        }
        self.at
    }
}

/// Values of a series of floats.
enum Floats {
    Flat(f64),
    Gauge { at: f64, width: i64, scale: f64, special: u64 },
    Counter { at: f64, width: i64, scale: f64, resets: u64, special: u64 },
}

impl Floats {
    fn gauge(rng: &mut Rng, profile: &Profile, flat: bool) -> Self {
        let special_percent = if profile.extreme_values { rng.pick(&[0, 0, 2, 20]) } else { 0 };
        if flat {
            let odd = profile.extreme_values && rng.chance(20);
            return Self::Flat(if odd { special(rng) } else { rng.between(-3, 3) as f64 });
        }
        let scale = scale(rng, profile);
        Self::Gauge { at: 0.0, width: rng.between(1, 40), scale, special: special_percent }
    }

    fn counter(rng: &mut Rng, profile: &Profile) -> Self {
        let special = if profile.extreme_values { rng.pick(&[0, 0, 0, 3]) } else { 0 };
        let (at, width) = (rng.between(0, 50) as f64, rng.between(0, 40));
        Self::Counter { at, width, scale: scale(rng, profile), resets: rng.pick(&[0, 3, 10]), special }
    }

    /// The next value, and whether a counter began anew before it.
    fn next(&mut self, rng: &mut Rng) -> (f64, bool) {
        match self {
            Self::Flat(v) => (*v, false),
            Self::Gauge { at, width, scale, special: percent } => {
                *at += rng.between(-*width, *width) as f64;
                (if rng.chance(*percent) { special(rng) } else { *at * *scale }, false)
            }
            Self::Counter { at, width, scale, resets, special: percent } => {
                let reset = rng.chance(*resets);
                *at = if reset { rng.between(0, 3) as f64 } else { *at + rng.between(0, *width) as f64 };
                (if rng.chance(*percent) { special(rng) } else { *at * *scale }, reset)
            }
        }
    }
}

fn scale(rng: &mut Rng, profile: &Profile) -> f64 {
    if profile.extreme_values && rng.chance(40) {
        return rng.pick(&[0.1, 1e-3, 1e9, 1.0 / 3.0, 1e300, 1e-310, 1e17]);
    }
    rng.pick(&[1.0, 1.0, 0.5, 0.25, 10.0])
}

/// A number off the beaten track.
pub(super) fn special(rng: &mut Rng) -> f64 {
    rng.pick(&[
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.0,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        1e100,
        -1e100,
        9_007_199_254_740_993.0,
    ])
}
