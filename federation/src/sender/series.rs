//! Which series go to a destination, and as what: decided once per series, remembered by its reference.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use model::relabel::{self, RelabelRule};
use model::storage::SeriesRef;
use model::{Labels, LabelsBuilder, Matcher};

use crate::queue::SentSeries;

/// What is known of a reference.
pub(crate) enum Lookup<'a> {
    /// The log has named no such series: the sample cannot be sent.
    Unknown,
    /// The destination does not want it.
    NotSelected,
    /// It goes out as this.
    Sent(&'a Arc<SentSeries>),
}

/// Under which labels a series goes out.
#[derive(Clone)]
pub(crate) struct Naming {
    rules: Vec<RelabelRule>,
    external_labels: Labels,
    builder: LabelsBuilder,
}

impl Naming {
    pub(crate) fn new(rules: Vec<RelabelRule>, external_labels: Labels) -> Self {
        Self { rules, external_labels, builder: LabelsBuilder::new() }
    }

    /// The labels under which a series goes out when one of the matcher sets selects it (none: all); `None` when it
    /// does not.
    pub(crate) fn name(&mut self, labels: &Labels, sets: &[Vec<Matcher>]) -> Option<Labels> {
        let extended = if self.external_labels.is_empty() {
            labels.clone()
        } else {
            self.builder.reset(labels);
            for (name, value) in self.external_labels.iter() {
                if self.builder.get(name).is_empty() {
                    self.builder.set(name, value);
                }
            }
            self.builder.build()
        };
        let selected = sets.is_empty() || sets.iter().any(|set| Matcher::all_match(set, &extended));
        if !selected {
            return None;
        }
        if self.rules.is_empty() {
            return (!extended.is_empty()).then_some(extended);
        }
        self.builder.reset(&extended);
        (relabel::process(&self.rules, &mut self.builder) && !self.builder.is_empty())
            .then(|| self.builder.build())
    }

    /// What a local store is asked for so that it gives every series that [`Naming::name`] may select: matchers on
    /// external labels are left out, since local series lack those.
    pub(crate) fn local_sets(&self, sets: &[Vec<Matcher>]) -> Vec<Vec<Matcher>> {
        if sets.is_empty() {
            return vec![Vec::new()];
        }
        let local = |set: &Vec<Matcher>| {
            set.iter().filter(|m| !self.external_labels.contains(&m.name)).cloned().collect()
        };
        sets.iter().map(local).collect()
    }
}

/// The decision for each series of the log.
pub(crate) struct SeriesCache {
    matchers: Vec<Vec<Matcher>>,
    naming: Naming,
    series: HashMap<SeriesRef, Option<Arc<SentSeries>>, BuildHasherDefault<RefHasher>>,
}

impl SeriesCache {
    pub(crate) fn new(matchers: Vec<Vec<Matcher>>, naming: Naming) -> Self {
        Self { matchers, naming, series: HashMap::default() }
    }

    /// Decides on a series and says whether it is sent. A reference that the log uses again stands for the new labels
    /// from then on.
    pub(crate) fn add(&mut self, series: SeriesRef, labels: &Labels) -> bool {
        let sent = self.naming.name(labels, &self.matchers).map(|labels| Arc::new(SentSeries::new(labels)));
        let is_sent = sent.is_some();
        self.series.insert(series, sent);
        is_sent
    }

    #[inline]
    pub(crate) fn get(&self, series: SeriesRef) -> Lookup<'_> {
        match self.series.get(&series) {
            None => Lookup::Unknown,
            Some(None) => Lookup::NotSelected,
            Some(Some(sent)) => Lookup::Sent(sent),
        }
    }

    /// Number of series remembered.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// Forgets all series, before the log is opened anew and names those that it still has.
    pub(crate) fn clear(&mut self) {
        self.series.clear();
        self.series.shrink_to_fit();
    }
}

/// Hashes a reference with one multiplication: references are given out by our own store, nobody can choose them to
/// collide.
#[derive(Default)]
struct RefHasher(u64);

impl Hasher for RefHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The table takes its bits from both ends.
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::relabel::RelabelAction;
    use model::{MatchOp, Regexp};

    fn check(mut cache: SeriesCache, labels: &[(&str, &str)], expect: Option<&str>) {
        cache.add(SeriesRef(1), &Labels::from_pairs(labels.iter().copied()));
        assert!(matches!(cache.get(SeriesRef(2)), Lookup::Unknown));
        match (cache.get(SeriesRef(1)), expect) {
            (Lookup::Sent(s), Some(text)) => assert_eq!(s.labels.to_string(), text),
            (Lookup::NotSelected, None) => {}
            (Lookup::Sent(s), None) => panic!("{} is sent", s.labels),
            (Lookup::Unknown, _) => panic!("it was added"),
            (_, Some(text)) => panic!("{text} is not sent"),
        }
    }

    #[test]
    fn any_set_of_matchers_selects() {
        let longterm = || {
            let sets = vec![
                vec![Matcher::not_equal("longterm", "")],
                vec![
                    Matcher::equal("job", "a"),
                    Matcher::new(MatchOp::Regexp, "__name__", "x.*").expect("valid"),
                ],
            ];
            SeriesCache::new(sets, Naming::new(Vec::new(), Labels::empty()))
        };
        check(longterm(), &[("__name__", "up"), ("longterm", "true")], Some("up{longterm=\"true\"}"));
        check(longterm(), &[("__name__", "up")], None);
        check(longterm(), &[("__name__", "xy"), ("job", "a")], Some("xy{job=\"a\"}"));
        check(longterm(), &[("__name__", "xy"), ("job", "b")], None);
    }

    #[test]
    fn external_labels_are_added_and_rules_see_them() {
        let external = Labels::from_pairs([("cluster", "c"), ("job", "external")]);
        let cache = |rules| SeriesCache::new(Vec::new(), Naming::new(rules, external.clone()));
        check(
            cache(Vec::new()),
            &[("__name__", "up"), ("job", "own")],
            Some("up{cluster=\"c\", job=\"own\"}"),
        );
        let drop = RelabelRule {
            source_labels: vec!["cluster".into()],
            regex: Regexp::new("c").expect("valid"),
            action: RelabelAction::Drop,
            ..RelabelRule::default()
        };
        check(cache(vec![drop]), &[("__name__", "up")], None);
        let nothing_left = RelabelRule {
            regex: Regexp::new(".*").expect("valid"),
            action: RelabelAction::LabelDrop,
            ..RelabelRule::default()
        };
        check(cache(vec![nothing_left]), &[("__name__", "up")], None);
    }
}
