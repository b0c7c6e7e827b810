//! From the labels of an exposed sample to those of the stored series.
//!
//! Target labels are merged in (`honor_labels` decides conflicts, the loser of `honor_labels: false` gets `exported_`
//! before its name), metric relabeling runs, names and limits are checked. This is the slow path: it runs once per
//! series of a target, not once per sample. Without metric relabeling and without conflicts it allocates the label set
//! and nothing else.

use std::borrow::Cow;

use model::labels::{MAX_LEN_BYTES, METRIC_NAME, Quoted, is_legacy_label_name};
use model::relabel::{NameValidation, RelabelRule, process};
use model::{Labels, LabelsBuilder};

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
    pub relabel: Vec<RelabelRule>,
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
            relabel: config.metric_relabel_rules.clone(),
            names: config.metric_name_validation,
            sample_limit: config.sample_limit,
            label_limit: config.label_limit,
            label_name_length_limit: config.label_name_length_limit,
            label_value_length_limit: config.label_value_length_limit,
            type_and_unit_labels: false,
            append_metadata: false,
        }
    }

    /// Labels of the series to store, or `None` when relabeling drops it. `pairs` is used up.
    ///
    /// # Errors
    /// When the scrape must fail because of them.
    pub(crate) fn series_labels<'a>(
        &'a self,
        pairs: &mut Vec<Pair<'a>>,
    ) -> Result<Option<Labels>, ScrapeFailure> {
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(ScrapeFailure::Labels(format!(
                "label name {} is not unique: invalid sample",
                Quoted(&twice[0].0)
            )));
        }
        if !self.relabel.is_empty() || self.has_conflict(pairs) {
            return self.relabeled(pairs);
        }
        // No conflict: of two equal names at most one has a value that counts.
        let own = pairs.len();
        for (name, value) in self.target_labels.iter() {
            match pairs[..own].binary_search_by(|(n, _)| n.as_ref().cmp(name)) {
                // An exposed empty value takes the target's label away if labels are honored.
                Ok(_) if self.honor_labels => {}
                Ok(at) => pairs[at].1 = Cow::Borrowed(value),
                Err(_) => pairs.push((Cow::Borrowed(name), Cow::Borrowed(value))),
            }
        }
        if pairs.iter().any(|(_, v)| v.is_empty()) {
            pairs.retain(|(_, v)| !v.is_empty());
        }
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.verify(|| pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref())))?;
        Ok(Some(Labels::from_sorted(pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref())))))
    }

    fn has_conflict(&self, pairs: &[Pair<'_>]) -> bool {
        !self.honor_labels && pairs.iter().any(|(n, v)| !v.is_empty() && self.target_labels.contains(n))
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
        let short = |s: &str| s.len() <= MAX_LEN_BYTES;
        let valid = self.names.is_metric_name(name)
            && pairs().all(|(n, v)| label_name_valid(n) && short(n) && short(v));
        if !valid {
            return Err(ScrapeFailure::Labels(format!(
                "invalid metric name or label names: {}",
                Labels::from_pairs(pairs().filter(|(n, v)| short(n) && short(v)))
            )));
        }
        self.verify_limits(name, pairs)
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

/// At most fifty characters, as error texts show them.
fn first_chars(s: &str) -> &str {
    s.char_indices().nth(50).map_or(s, |(at, _)| &s[..at])
}
