//! Random data and random queries over it, for comparing engines with each other.
//!
//! A [`Generator`] is made of a seed and a [`Profile`], which says what parts of the language and what kinds of values may
//! occur; the same two always give the same data and queries. Expressions are well typed and parse; evaluating them may
//! still fail, as some matchings must. In `generate/`: `data` and `histograms` make series, `expression`, `calls`,
//! `binary` and `selector` make text, `rng` has the dice.

mod binary;
mod calls;
mod data;
mod expression;
mod histograms;
mod rng;
mod selector;

use model::memory::MemoryStorage;
use model::{Labels, Sample};

use rng::Rng;

/// What may occur in data and queries.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Functions and aggregations behind the switch for experimental ones.
    pub experimental_functions: bool,
    /// Arithmetic in ranges and offsets.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
    /// Series of native histograms, and series that mix them with floats.
    pub native_histograms: bool,
    /// NaN, infinities, negative zero, huge and tiny numbers. Without them values are whole or end in a few bits, so that
    /// sums are exact in whatever order they are made.
    pub extreme_values: bool,
    /// Samples with start timestamps.
    pub start_timestamps: bool,
    /// Names that need quotes, and syntax that came after Prometheus 2.42: numbers as durations, durations as numbers.
    pub recent_syntax: bool,
    /// Samples may lie exactly on the bounds of windows. Without it they never do: no sample's timestamp is a multiple of
    /// 500 ms, evaluation times, ranges, steps and offsets are multiples of a second, and ranges of subqueries are
    /// half a second longer than that. Then it makes no difference whether windows are closed on the left.
    pub samples_on_bounds: bool,
    /// Stable functions that must not occur.
    pub without_functions: &'static [&'static str],
    /// How deep expressions are nested.
    pub max_depth: u32,
    /// Where the data begins, milliseconds since the epoch; else the seed decides, and it may be before the epoch. A
    /// multiple of a minute.
    pub start_ms: Option<i64>,
    /// How long the data lasts, milliseconds.
    pub span_ms: i64,
}

impl Profile {
    /// All of the language as of Prometheus 3.14, and all values.
    #[must_use]
    pub fn full() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            native_histograms: true,
            extreme_values: true,
            start_timestamps: true,
            recent_syntax: true,
            samples_on_bounds: true,
            without_functions: &[],
            max_depth: 4,
            start_ms: None,
            span_ms: 1_800_000,
        }
    }

    /// What Prometheus 2.42 knows and means as 3.14 does, but for rounding.
    #[must_use]
    pub fn prometheus_2_42() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: false,
            extended_range_selectors: false,
            fill_modifiers: false,
            native_histograms: false,
            extreme_values: false,
            start_timestamps: false,
            recent_syntax: false,
            samples_on_bounds: false,
            without_functions: &[
                "first_over_time",
                "histogram_avg",
                "histogram_count",
                "histogram_fraction",
                "histogram_stddev",
                "histogram_stdvar",
                "histogram_sum",
            ],
            max_depth: 4,
            start_ms: Some(1_700_000_040_000),
            span_ms: 1_800_000,
        }
    }
}

/// When a query is evaluated. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalTime {
    /// At one moment.
    Instant(i64),
    /// At `start_ms`, every `step_ms` after it, up to `end_ms`.
    Range {
        /// First moment.
        start_ms: i64,
        /// No moment is after this one.
        end_ms: i64,
        /// Distance of the moments.
        step_ms: i64,
    },
}

/// A query and when to evaluate it.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedQuery {
    /// The text.
    pub text: String,
    /// When.
    pub time: EvalTime,
}

/// Series with their samples: distinct labels, in order; timestamps rise strictly within a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataSet {
    /// Labels and samples.
    pub series: Vec<(Labels, Vec<Sample>)>,
}

impl DataSet {
    /// A store with this data, every sample as it is.
    #[must_use]
    pub fn storage(&self) -> MemoryStorage {
        let store = MemoryStorage::new();
        for (labels, samples) in &self.series {
            samples.iter().for_each(|s| store.insert(labels, s.clone()));
        }
        store
    }
}

/// Makes data and queries from a seed.
#[derive(Clone, Debug)]
pub struct Generator {
    profile: Profile,
    seed: u64,
    start_ms: i64,
    queries: Rng,
}

impl Generator {
    /// A generator; the same seed and profile always give the same.
    #[must_use]
    pub fn new(seed: u64, profile: Profile) -> Self {
        const STARTS_MS: [i64; 4] = [0, 1_700_000_040_000, -600_000, -4_000_000_020_000];
        let start_ms = profile.start_ms.unwrap_or_else(|| Rng::new(seed, 1).pick(&STARTS_MS));
        Self { start_ms, seed, queries: Rng::new(seed, 2), profile }
    }

    /// Where the data begins, milliseconds.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// The data. The same at every call, whatever was drawn in between.
    #[must_use]
    pub fn data(&self) -> DataSet {
        let mut rng = Rng::new(self.seed, 3);
        data::generate(&mut rng, &self.profile, self.start_ms)
    }

    /// The next query over the data.
    pub fn query(&mut self) -> GeneratedQuery {
        // One draw each, so that a query does not depend on the length of the one before.
        let mut rng = Rng::new(self.queries.next(), 4);
        let time = self.time(&mut rng);
        let text = expression::generate(&mut rng, &self.profile, self.start_ms);
        GeneratedQuery { text, time }
    }

    /// Mostly where data is, sometimes at its edges or beside it.
    fn time(&self, rng: &mut Rng) -> EvalTime {
        let span_s = self.profile.span_ms / 1000;
        let unit_ms = if self.profile.samples_on_bounds && rng.chance(15) { 1 } else { 1000 };
        let mut moment = |low_s: i64, high_s: i64| {
            let at = rng.between(low_s * 1000 / unit_ms, high_s * 1000 / unit_ms) * unit_ms;
            self.start_ms + if rng.chance(60) { at.div_euclid(15_000) * 15_000 } else { at }
        };
        let start_ms = moment(-60, span_s + 400);
        if rng.chance(40) {
            return EvalTime::Instant(start_ms);
        }
        let step_ms = match rng.below(10) {
            0..=5 => rng.pick(&[15_000, 30_000, 60_000, 120_000]),
            6..=8 => rng.between(7, 200) * 1000,
            _ => rng.between(7_000 / unit_ms, 90_000 / unit_ms) * unit_ms,
        };
        let steps = rng.between(0, 12);
        let end_ms = start_ms + steps * step_ms + rng.between(0, step_ms / 1000 - 1) * 1000;
        EvalTime::Range { start_ms, end_ms, step_ms }
    }
}

#[cfg(test)]
mod tests {
    use promql::parser::{ParserOptions, parse};

    use super::{Generator, Profile};

    #[test]
    fn everything_generated_parses_and_is_the_same_again() {
        let mut refused = Vec::new();
        for (profile, options) in
            [(Profile::full(), ParserOptions::all()), (Profile::prometheus_2_42(), ParserOptions::default())]
        {
            for seed in 0..20 {
                let (mut a, mut b) =
                    (Generator::new(seed, profile.clone()), Generator::new(seed, profile.clone()));
                assert_eq!(a.data(), b.data());
                assert!(!a.data().series.is_empty(), "seed {seed}");
                for _ in 0..100 {
                    let query = a.query();
                    assert_eq!(query, b.query());
                    if let Err(e) = parse(&query.text, &options) {
                        refused.push(format!("seed {seed}: {}: {e}", query.text));
                    }
                }
            }
        }
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }
}
