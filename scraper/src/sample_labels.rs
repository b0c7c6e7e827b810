//! From the labels of an exposed sample to those of the stored series.
//!
//! Target labels are merged in (`honor_labels` decides conflicts, the loser of `honor_labels: false` gets `exported_`
//! before its name), metric relabeling runs, names and limits are checked. This is the slow path: it runs once per
//! series of a target, not once per sample. Without metric relabeling and without conflicts it allocates the label set
//! and nothing else.

use std::cmp::Ordering;
use std::sync::Arc;

use model::histogram::bounds::{EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN};
use model::labels::{
    LabelsWriter, MAX_LEN_BYTES, METRIC_NAME, Quoted, TYPE_LABEL, UNIT_LABEL, is_legacy_label_name,
};
use model::relabel::{NameValidation, RelabelRule, process};
use model::{Labels, LabelsBuilder, MetricType};

use crate::cardinality::Seats;
use crate::config::ScrapeConfig;
use crate::error::ScrapeFailure;
use crate::exposition::Pair;

const EXPORTED_PREFIX: &str = "exported_";

/// What decides the labels and the fate of a target's samples.
#[derive(Clone, Debug, Default)]
pub struct SampleRules {
    /// Public labels of the target.
    pub target_labels: Labels,
    /// Exposed labels win over target labels.
    pub honor_labels: bool,
    /// Timestamps of the body count.
    pub honor_timestamps: bool,
    /// Series with explicit timestamps get stale markers too.
    pub track_timestamps_staleness: bool,
    /// Metric relabeling.
    pub relabel: Arc<[RelabelRule]>,
    /// Names that series may have.
    pub names: NameValidation,
    /// Most samples of a scrape; 0 for any number.
    pub sample_limit: usize,
    /// Most labels of a series; 0 for any number.
    pub label_limit: usize,
    /// Most bytes of a label name; 0 for any number.
    pub label_name_length_limit: usize,
    /// Most bytes of a label value; 0 for any number.
    pub label_value_length_limit: usize,
    /// Add `__type__` and `__unit__`.
    pub type_and_unit_labels: bool,
    /// Hand metadata to the appender.
    pub append_metadata: bool,
    /// What becomes of start timestamps.
    pub starts: StartRules,
    /// Highest resolution of native histograms; finer ones are merged.
    pub schema_max: Option<i32>,
    /// Most buckets of a native histogram; 0 for any number.
    pub bucket_limit: usize,
    /// The target's seats, when there is a soft limit of series.
    pub seats: Option<Arc<Seats>>,
}

/// What becomes of start timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartRules {
    /// Read them; `_created` lines of OpenMetrics are no samples then.
    pub read: bool,
    /// Put a zero where a counter began.
    pub as_zeros: bool,
}

impl SampleRules {
    /// The rules of a job for one of its targets.
    #[must_use]
    pub fn new(config: &ScrapeConfig, target_labels: Labels) -> Self {
        Self {
            target_labels,
            honor_labels: config.honor_labels,
            honor_timestamps: config.honor_timestamps,
            track_timestamps_staleness: config.track_timestamps_staleness,
            relabel: config.metric_relabel_rules.clone().into(),
            names: config.metric_name_validation,
            sample_limit: config.sample_limit,
            label_limit: config.label_limit,
            label_name_length_limit: config.label_name_length_limit,
            label_value_length_limit: config.label_value_length_limit,
            type_and_unit_labels: false,
            append_metadata: false,
            starts: StartRules::default(),
            schema_max: schema_of_factor(config.native_histogram_min_bucket_factor),
            bucket_limit: config.native_histogram_bucket_limit,
            seats: None,
        }
    }

    /// Labels of the series to store, or `None` when relabeling drops it. `pairs` and `writer` are used up.
    ///
    /// # Errors
    /// When the scrape must fail because of them.
    pub(crate) fn series_labels(
        &self,
        pairs: &mut [Pair<'_>],
        writer: &mut LabelsWriter,
    ) -> Result<Option<Labels>, ScrapeFailure> {
        // Most targets write labels in order.
        if !pairs.is_sorted_by(|a, b| by_name(&a.0, &b.0) == Ordering::Less) {
            pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
                return Err(ScrapeFailure::Labels(format!(
                    "label name {} is not unique: invalid sample",
                    Quoted(&twice[0].0)
                )));
            }
        }
        if !self.relabel.is_empty() {
            return self.relabeled(pairs);
        }
        match self.merge(pairs, writer) {
            Merged::Plain if !self.has_limits() && self.names == NameValidation::Utf8 => {}
            Merged::Plain | Merged::Odd => self.verify(|| writer.iter())?,
            Merged::Conflict => return self.relabeled(pairs),
            Merged::TooLong => {
                return Err(invalid_names(pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))));
            }
        }
        Ok(Some(writer.build()))
    }

    /// Writes exposed labels, sorted by name, and those of the target.
    fn merge(&self, pairs: &[Pair<'_>], writer: &mut LabelsWriter) -> Merged {
        writer.clear();
        let (mut has_name, mut odd) = (false, false);
        // Labels of the target are written in runs, packed as they are: those from `start` to `at` come next.
        let mut start = self.target_labels.as_packed();
        let mut at = start;
        let mut behind = self.target_labels.iter();
        let mut ahead = behind.next();
        for (name, value) in pairs {
            if !short(name) || !short(value) {
                return Merged::TooLong;
            }
            while let Some((target, _)) = ahead
                && by_name(target, name) == Ordering::Less
            {
                at = behind.as_packed();
                ahead = behind.next();
            }
            if ahead.is_some_and(|(target, _)| target == name) {
                if !self.honor_labels {
                    if value.is_empty() {
                        continue;
                    }
                    return Merged::Conflict;
                }
                // The exposed label wins, and takes the target's away if it is empty.
                writer.push_packed(&start[..start.len() - at.len()]);
                start = behind.as_packed();
                at = start;
                ahead = behind.next();
            } else if at.len() < start.len() {
                writer.push_packed(&start[..start.len() - at.len()]);
                start = at;
            }
            if value.is_empty() {
                continue;
            }
            has_name |= name == METRIC_NAME;
            odd |= name.is_empty();
            writer.push(name, value);
        }
        writer.push_packed(start);
        if has_name && !odd { Merged::Plain } else { Merged::Odd }
    }

    fn relabeled(&self, pairs: &[Pair<'_>]) -> Result<Option<Labels>, ScrapeFailure> {
        let mut b = LabelsBuilder::new();
        pairs.iter().for_each(|(n, v)| {
            b.set(n, v);
        });
        self.merge_target(pairs, &mut b);
        if !process(&self.relabel, &mut b) || b.is_empty() {
            return Ok(None);
        }
        self.verify(|| b.iter())?;
        Ok(Some(b.build()))
    }

    fn merge_target(&self, pairs: &[Pair<'_>], b: &mut LabelsBuilder) {
        let mut losers: Vec<(&str, &str)> = Vec::new();
        for (name, value) in self.target_labels.iter() {
            let exposed = pairs.iter().find(|(n, _)| n == name).map(|(n, v)| (n.as_ref(), v.as_ref()));
            match exposed {
                Some(_) if self.honor_labels => continue,
                Some((n, v)) if !v.is_empty() => losers.push((n, v)),
                _ => {}
            }
            b.set(name, value);
        }
        losers.sort_by_key(|(n, _)| n.len());
        for (name, value) in losers {
            let mut exported = EXPORTED_PREFIX.to_owned() + name;
            while !b.get(&exported).is_empty() {
                exported.insert_str(0, EXPORTED_PREFIX);
            }
            b.set(&exported, value);
        }
    }

    /// Checks names and limits of labels that are sorted and have no empty value.
    fn verify<'a, I: Iterator<Item = (&'a str, &'a str)>>(
        &self,
        pairs: impl Fn() -> I,
    ) -> Result<(), ScrapeFailure> {
        let name = pairs()
            .find(|(n, _)| *n == METRIC_NAME)
            .map(|(_, v)| v)
            .ok_or_else(|| ScrapeFailure::Labels(format!("missing metric name ({METRIC_NAME} label)")))?;
        let label_name_valid = |n: &str| match self.names {
            NameValidation::Utf8 => !n.is_empty(),
            NameValidation::Legacy => is_legacy_label_name(n),
        };
        let valid = self.names.is_metric_name(name)
            && pairs().all(|(n, v)| label_name_valid(n) && short(n) && short(v));
        if !valid {
            return Err(invalid_names(pairs()));
        }
        self.verify_limits(name, pairs)
    }

    fn has_limits(&self) -> bool {
        self.label_limit > 0 || self.label_name_length_limit > 0 || self.label_value_length_limit > 0
    }

    fn verify_limits<'a, I: Iterator<Item = (&'a str, &'a str)>>(
        &self,
        metric: &str,
        pairs: impl Fn() -> I,
    ) -> Result<(), ScrapeFailure> {
        if self.label_limit > 0 {
            let metric = first_chars(metric);
            let (labels, limit) = (pairs().count(), self.label_limit);
            if labels > limit {
                return Err(ScrapeFailure::LabelLimit(format!(
                    "label_limit exceeded (metric: {metric}, number of labels: {labels}, limit: {limit})"
                )));
            }
        }
        let (name_limit, value_limit) = (self.label_name_length_limit, self.label_value_length_limit);
        if name_limit == 0 && value_limit == 0 {
            return Ok(());
        }
        let metric = first_chars(metric);
        for (n, v) in pairs() {
            let name = first_chars(n);
            if name_limit > 0 && n.len() > name_limit {
                return Err(ScrapeFailure::LabelLimit(format!(
                    "label_name_length_limit exceeded (metric: {metric}, label name: {name}, length: {}, limit: {name_limit})",
                    n.len()
                )));
            }
            if value_limit > 0 && v.len() > value_limit {
                return Err(ScrapeFailure::LabelLimit(format!(
                    "label_value_length_limit exceeded (metric: {metric}, label name: {name}, value: {}, length: {}, limit: {value_limit})",
                    Quoted(first_chars(v)),
                    v.len()
                )));
            }
        }
        Ok(())
    }
}

/// Adds `__type__` and `__unit__`, as far as they are known; exposed labels of these names give way.
pub(crate) fn add_type_and_unit(pairs: &mut Vec<Pair<'_>>, metric_type: MetricType, unit: &str) {
    let kind = match metric_type {
        MetricType::Unknown => "",
        known => known.as_str(),
    };
    for (name, value) in [(TYPE_LABEL, kind), (UNIT_LABEL, unit)] {
        if !value.is_empty() {
            pairs.retain(|(n, _)| n != name);
            pairs.push((name.into(), value.to_owned().into()));
        }
    }
}

/// The highest schema whose buckets grow by at least `factor`; `None` when all do.
fn schema_of_factor(factor: f64) -> Option<i32> {
    if factor <= 1.0 || factor.is_nan() {
        return None;
    }
    let schema = (-factor.log2().log2()).floor();
    (schema < f64::from(EXPONENTIAL_SCHEMA_MAX)).then(|| schema.max(f64::from(EXPONENTIAL_SCHEMA_MIN)) as i32)
}

/// What came of exposed labels and those of the target.
enum Merged {
    /// Names that UTF-8 validation accepts.
    Plain,
    /// Names that need a look.
    Odd,
    /// A target label that the exposed one must make room for.
    Conflict,
    /// A string that no label can hold.
    TooLong,
}

fn short(s: &str) -> bool {
    s.len() <= MAX_LEN_BYTES
}

fn invalid_names<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> ScrapeFailure {
    let labels = Labels::from_pairs(pairs.filter(|(n, v)| short(n) && short(v)));
    ScrapeFailure::Labels(format!("invalid metric name or label names: {labels}"))
}

/// The order of strings. Names that sit together mostly differ in their first byte, which saves a call.
#[inline]
fn by_name(a: &str, b: &str) -> Ordering {
    match (a.as_bytes().first(), b.as_bytes().first()) {
        (Some(x), Some(y)) if x != y => x.cmp(y),
        _ => a.cmp(b),
    }
}

/// At most fifty characters, as error texts show them.
fn first_chars(s: &str) -> &str {
    s.char_indices().nth(50).map_or(s, |(at, _)| &s[..at])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Texts = BTreeMap<String, String>;

    /// Few names, so that exposed labels and those of the target meet; empty values among them.
    fn labels() -> impl Strategy<Value = Texts> {
        let name = prop_oneof![Just("__name__"), Just("A"), Just("a"), Just("ab"), Just("job"), Just("")];
        let value = prop_oneof![Just(""), Just("x"), Just("yy")];
        proptest::collection::btree_map(name.prop_map(String::from), value.prop_map(String::from), 0..6)
    }

    fn outcome(result: Result<Option<Labels>, ScrapeFailure>) -> Result<Option<Labels>, String> {
        result.map_err(|e| e.to_string())
    }

    proptest! {
        /// Labels written straight away are those that the way through the builder makes.
        #[test]
        fn both_ways_agree(
            exposed in labels(),
            metric in "m?",
            target in labels(),
            honor_labels in any::<bool>(),
            names in prop_oneof![Just(NameValidation::Utf8), Just(NameValidation::Legacy)],
            label_limit in 0..5_usize,
            turn in 0..6_usize,
        ) {
            let target_labels = Labels::from_pairs(target.iter().filter(|(n, _)| !n.is_empty()));
            let rules = SampleRules { target_labels, honor_labels, names, label_limit, ..SampleRules::default() };
            let mut exposed = exposed;
            exposed.insert(METRIC_NAME.into(), metric);
            let mut pairs: Vec<Pair<'_>> =
                exposed.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect();
            let by_builder = outcome(rules.relabeled(&pairs));
            let turn = turn % pairs.len();
            pairs.rotate_left(turn);
            let mut writer = LabelsWriter::new();
            writer.push("left", "over");
            let straight = outcome(rules.series_labels(&mut pairs, &mut writer));
            // Only relabeling may leave nothing at all; what is exposed without a name is an error.
            if by_builder != Ok(None) {
                prop_assert_eq!(straight, by_builder);
            } else {
                prop_assert!(straight.is_err_and(|e| e.contains("missing metric name")));
            }
        }
    }

    #[test]
    fn a_name_twice_is_refused() {
        let mut pairs: Vec<Pair<'_>> =
            [("__name__", "m"), ("b", "1"), ("a", "1"), ("b", "2")].map(|(n, v)| (n.into(), v.into())).into();
        let error = SampleRules::default()
            .series_labels(&mut pairs, &mut LabelsWriter::new())
            .expect_err("one label has one value");
        assert_eq!(error.to_string(), "label name \"b\" is not unique: invalid sample");
    }
}
