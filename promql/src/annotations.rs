//! Warnings and infos of a running query, in Prometheus's words.
//!
//! Annotations are equal when their text without position is equal; of several places that cause one, the place that is
//! evaluated last is printed. Two kinds count how often they occur; of those the first place is printed.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview>.

use std::collections::HashMap;
use std::fmt::Write;

use model::Annotations;
use model::labels::Quoted;

use crate::functions::format::{format_g, format_g_digits};
use crate::plan::node::Site;

/// What is added, subtracted or aggregated when histograms do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HistogramOperation {
    Addition,
    Subtraction,
    Aggregation,
}

impl HistogramOperation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

/// Something to tell about an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note<'a> {
    InvalidQuantile(f64),
    InvalidRatio {
        got: f64,
        capped_to: f64,
    },
    BadBucketLabel {
        name: &'a str,
        label: &'a str,
    },
    MixedFloatsHistograms(&'a str),
    MixedFloatsHistogramsAgg,
    MixedClassicNative(&'a str),
    NativeNotCounter(&'a str),
    NativeNotGauge(&'a str),
    MixedExponentialCustom(&'a str),
    IncompatibleBucketLayout(&'static str),
    SortInRange,
    CounterResetCollision(HistogramOperation),
    StartTimeOverlap(&'a str),
    PossibleNonCounter(&'a str),
    PossibleNonCounterLabel {
        name: &'a str,
        type_label: &'a str,
    },
    ForcedMonotonicity {
        name: &'a str,
        /// First and last.
        times_ms: (i64, i64),
        min_bucket: f64,
        max_bucket: f64,
        max_diff: f64,
        samples: i64,
    },
    IncompatibleTypes {
        lhs: &'static str,
        op: &'static str,
        rhs: &'static str,
    },
    HistogramIgnoredInAggregation(&'static str),
    HistogramIgnoredInMixedRange(&'a str),
    QuantileNanResult(&'a str),
    QuantileNanSkew(&'a str),
    FractionNans(&'a str),
    MismatchedCustomBuckets(HistogramOperation),
}

#[derive(Clone, Debug)]
struct Entry {
    site: Site,
    tally: Tally,
}

#[derive(Clone, Debug)]
enum Tally {
    None,
    Occurrences(u64),
    Monotonicity { min_ts: i64, max_ts: i64, min_bucket: f64, max_bucket: f64, max_diff: f64, samples: i64 },
}

/// A set of annotations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// By text, the prefix included.
    entries: HashMap<String, Entry>,
    /// The last text asked for, so that a loop that says the same again formats into a warm buffer.
    scratch: String,
}

impl Notes {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn add(&mut self, site: Site, note: Note<'_>) {
        self.scratch.clear();
        note.write(&mut self.scratch);
        match self.entries.get_mut(self.scratch.as_str()) {
            Some(e) => e.absorb(Entry { site, tally: note.tally() }),
            None => {
                self.entries.insert(self.scratch.clone(), Entry { site, tally: note.tally() });
            }
        }
    }

    pub(crate) fn merge(&mut self, other: Notes) {
        for (text, entry) in other.entries {
            match self.entries.get_mut(&text) {
                Some(e) => e.absorb(entry),
                None => {
                    self.entries.insert(text, entry);
                }
            }
        }
    }

    /// The annotations as the API prints them.
    pub(crate) fn into_annotations(self, query: &str) -> Annotations {
        let mut out = Annotations::new();
        for (text, entry) in self.entries {
            let line = entry.print(&text, query);
            if text.starts_with(INFO) {
                out.info(line);
            } else {
                out.warn(line);
            }
        }
        out
    }
}

const INFO: &str = "PromQL info: ";
const WARNING: &str = "PromQL warning: ";

impl Entry {
    fn absorb(&mut self, other: Entry) {
        let counts = !matches!(self.tally, Tally::None);
        let takes_over = match counts {
            true => other.site.rank < self.site.rank,
            false => other.site.rank >= self.site.rank,
        };
        if takes_over {
            self.site = other.site;
        }
        match (&mut self.tally, other.tally) {
            (Tally::Occurrences(n), Tally::Occurrences(m)) => *n += m,
            (
                Tally::Monotonicity { min_ts, max_ts, min_bucket, max_bucket, max_diff, samples },
                Tally::Monotonicity {
                    min_ts: a,
                    max_ts: b,
                    min_bucket: c,
                    max_bucket: d,
                    max_diff: e,
                    samples: f,
                },
            ) => {
                *min_ts = a.min(*min_ts);
                *max_ts = b.max(*max_ts);
                *min_bucket = c.min(*min_bucket);
                *max_bucket = d.max(*max_bucket);
                *max_diff = e.max(*max_diff);
                *samples = samples.wrapping_add(f);
            }
            _ => {}
        }
    }

    fn print(&self, text: &str, query: &str) -> String {
        let at = self.site.span.line_col(query);
        match &self.tally {
            Tally::Occurrences(n) if *n > 1 => format!("{text} ({n} occurrences) ({at})"),
            Tally::None | Tally::Occurrences(_) => format!("{text} ({at})"),
            Tally::Monotonicity { min_ts, max_ts, min_bucket, max_bucket, max_diff, samples } => format!(
                "{text}, from buckets {} to {}, with a max diff of {}, over {samples} samples from {} to {} ({at})",
                format_g(*min_bucket),
                format_g(*max_bucket),
                format_g_digits(*max_diff, 2),
                rfc3339_seconds(*min_ts),
                rfc3339_seconds(*max_ts),
            ),
        }
    }
}

fn rfc3339_seconds(ms: i64) -> String {
    chrono::DateTime::from_timestamp(ms / 1000, 0)
        .map_or_else(|| ms.to_string(), |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

impl Note<'_> {
    fn tally(&self) -> Tally {
        match *self {
            Self::StartTimeOverlap(_) => Tally::Occurrences(1),
            Self::ForcedMonotonicity { times_ms, min_bucket, max_bucket, max_diff, samples, .. } => {
                Tally::Monotonicity {
                    min_ts: times_ms.0,
                    max_ts: times_ms.1,
                    min_bucket,
                    max_bucket,
                    max_diff,
                    samples,
                }
            }
            _ => Tally::None,
        }
    }

    fn write(&self, out: &mut String) {
        let named = |out: &mut String, text: &str, name: &str| {
            out.push_str(text);
            if !name.is_empty() {
                let _ = write!(out, " for metric name {}", Quoted(name));
            }
        };
        let quoted = |out: &mut String, text: &str, name: &str| {
            let _ = write!(out, "{text} {}", Quoted(name));
        };
        out.push_str(if self.is_info() { INFO } else { WARNING });
        match *self {
            Self::InvalidQuantile(q) => {
                let _ = write!(out, "quantile value should be between 0 and 1, got {}", format_g(q));
            }
            Self::InvalidRatio { got, capped_to } => {
                let _ = write!(
                    out,
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    format_g(got),
                    format_g(capped_to)
                );
            }
            Self::BadBucketLabel { name, label } => {
                let text =
                    format!("bucket label \"le\" is missing or has a malformed value of {}", Quoted(label));
                named(out, &text, name);
            }
            Self::MixedFloatsHistograms(name) => {
                quoted(out, "encountered a mix of histograms and floats for metric name", name);
            }
            Self::MixedFloatsHistogramsAgg => {
                out.push_str("encountered a mix of histograms and floats for aggregation");
            }
            Self::MixedClassicNative(name) => {
                named(out, "vector contains a mix of classic and native histograms", name);
            }
            Self::NativeNotCounter(name) => {
                quoted(out, "this native histogram metric is not a counter:", name);
            }
            Self::NativeNotGauge(name) => quoted(out, "this native histogram metric is not a gauge:", name),
            Self::MixedExponentialCustom(name) => quoted(
                out,
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name",
                name,
            ),
            Self::IncompatibleBucketLayout(op) => {
                let _ = write!(out, "incompatible bucket layout encountered for binary operator {op}");
            }
            Self::SortInRange => out
                .push_str("sort is ineffective for range queries since results are always ordered by labels"),
            Self::CounterResetCollision(op) => {
                let _ = write!(out, "conflicting counter resets during histogram {}", op.as_str());
            }
            Self::StartTimeOverlap(name) => quoted(
                out,
                "sample has start time that overlaps with previous sample timestamp for metric",
                name,
            ),
            Self::PossibleNonCounter(name) => quoted(
                out,
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:",
                name,
            ),
            Self::PossibleNonCounterLabel { name, type_label } => {
                let _ = write!(
                    out,
                    "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                    Quoted(type_label),
                    Quoted(name)
                );
            }
            Self::ForcedMonotonicity { name, .. } => named(
                out,
                "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
                name,
            ),
            Self::IncompatibleTypes { lhs, op, rhs } => {
                let _ = write!(
                    out,
                    "incompatible sample types encountered for binary operator {}: {lhs} {op} {rhs}",
                    Quoted(op)
                );
            }
            Self::HistogramIgnoredInAggregation(op) => {
                let _ = write!(out, "ignored histogram in {op} aggregation");
            }
            Self::HistogramIgnoredInMixedRange(name) => quoted(
                out,
                "ignored histograms in a range containing both floats and histograms for metric name",
                name,
            ),
            Self::QuantileNanResult(name) => {
                named(out, "input to histogram_quantile has NaN observations, result is NaN", name);
            }
            Self::QuantileNanSkew(name) => {
                named(out, "input to histogram_quantile has NaN observations, result is skewed higher", name);
            }
            Self::FractionNans(name) => named(
                out,
                "input to histogram_fraction has NaN observations, which are excluded from all fractions",
                name,
            ),
            Self::MismatchedCustomBuckets(op) => {
                let _ = write!(out, "mismatched custom buckets were reconciled during {}", op.as_str());
            }
        }
    }

    fn is_info(&self) -> bool {
        matches!(
            self,
            Self::PossibleNonCounter(_)
                | Self::PossibleNonCounterLabel { .. }
                | Self::ForcedMonotonicity { .. }
                | Self::IncompatibleTypes { .. }
                | Self::HistogramIgnoredInAggregation(_)
                | Self::HistogramIgnoredInMixedRange(_)
                | Self::QuantileNanResult(_)
                | Self::QuantileNanSkew(_)
                | Self::FractionNans(_)
                | Self::MismatchedCustomBuckets(_)
        )
    }
}
