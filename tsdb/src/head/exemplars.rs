//! A ring of the newest exemplars of all series. Of one series they rise in time; the oldest of all gives way.

use std::collections::{HashMap, VecDeque};

use model::{Exemplar, Labels, Matcher, SeriesRef};

use crate::metrics::Metrics;

/// Exemplars of a series.
pub(crate) type SeriesExemplars = (Labels, Vec<Exemplar>);

#[derive(Default)]
pub(crate) struct ExemplarRing {
    max: usize,
    ring: VecDeque<(SeriesRef, Exemplar)>,
    series: HashMap<SeriesRef, Known>,
}

/// A series that has exemplars in the ring.
struct Known {
    labels: Labels,
    newest: Exemplar,
    count: usize,
}

/// What became of an exemplar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Yes,
    /// Equal to the newest one of its series.
    Same,
    OutOfOrder,
    /// The ring has no room at all.
    Disabled,
}

impl ExemplarRing {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Shows what is held.
    pub(crate) fn show(&self, metrics: &Metrics) {
        metrics.exemplars_in_storage.set(self.ring.len() as i64);
        metrics.exemplars_series.set(self.series.len() as i64);
        let oldest = self.ring.front().and_then(|(_, e)| e.timestamp_ms).unwrap_or(0);
        metrics.exemplars_oldest_seconds.set(oldest as f64 / 1000.0);
    }

    /// All exemplars, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(SeriesRef, Exemplar)> {
        self.ring.iter()
    }

    /// What would become of an exemplar.
    pub(crate) fn check(&self, series: SeriesRef, e: &Exemplar) -> Added {
        if self.max == 0 {
            return Added::Disabled;
        }
        match self.series.get(&series) {
            Some(s) if s.newest == *e => Added::Same,
            Some(s) if s.newest.timestamp_ms > e.timestamp_ms => Added::OutOfOrder,
            _ => Added::Yes,
        }
    }

    /// Whether the newest exemplar of the series is this one, whatever its timestamp.
    pub(crate) fn repeats(&self, series: SeriesRef, e: &Exemplar) -> bool {
        self.series
            .get(&series)
            .is_some_and(|s| s.newest.labels == e.labels && s.newest.value.to_bits() == e.value.to_bits())
    }

    /// Adds an exemplar. `labels` gives those of the series; none when it has been removed, which nothing is kept of.
    pub(crate) fn add(
        &mut self,
        series: SeriesRef,
        labels: impl FnOnce() -> Option<Labels>,
        e: Exemplar,
    ) -> Added {
        let outcome = self.check(series, &e);
        if outcome != Added::Yes {
            return outcome;
        }
        match self.series.get_mut(&series) {
            Some(s) => {
                s.newest = e.clone();
                s.count += 1;
            }
            None => {
                let Some(labels) = labels() else { return Added::Same };
                self.series.insert(series, Known { labels, newest: e.clone(), count: 1 });
            }
        }
        if self.ring.len() == self.max
            && let Some((old, _)) = self.ring.pop_front()
        {
            let gone = self.series.get_mut(&old).is_some_and(|s| {
                s.count -= 1;
                s.count == 0
            });
            if gone {
                self.series.remove(&old);
            }
        }
        self.ring.push_back((series, e));
        Added::Yes
    }

    /// Exemplars within `[mint, maxt]` of the series that pass one of the sets of matchers, sorted by labels.
    pub(crate) fn select(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Vec<SeriesExemplars> {
        let mut out: HashMap<SeriesRef, SeriesExemplars> = HashMap::new();
        let mut verdicts: HashMap<SeriesRef, bool> = HashMap::new();
        for (reference, e) in &self.ring {
            let t = e.timestamp_ms.unwrap_or(i64::MIN);
            let Some(s) = self.series.get(reference).filter(|_| t >= mint && t <= maxt) else { continue };
            let passes = *verdicts
                .entry(*reference)
                .or_insert_with(|| sets.iter().any(|m| Matcher::all_match(m, &s.labels)));
            if passes {
                out.entry(*reference).or_insert_with(|| (s.labels.clone(), Vec::new())).1.push(e.clone());
            }
        }
        let mut out: Vec<_> = out.into_values().collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_give_way() {
        let mut ring = ExemplarRing::new(2);
        let labels = || Some(Labels::from_pairs([("a", "b")]));
        let add = |ring: &mut ExemplarRing, e| ring.add(SeriesRef(1), labels, e);
        let e = |t| Exemplar { labels: Labels::empty(), value: 1.0, timestamp_ms: Some(t) };
        assert_eq!(add(&mut ring, e(1)), Added::Yes);
        assert_eq!(add(&mut ring, e(1)), Added::Same);
        assert_eq!(add(&mut ring, e(0)), Added::OutOfOrder);
        assert_eq!(add(&mut ring, e(2)), Added::Yes);
        assert_eq!(add(&mut ring, e(3)), Added::Yes);
        let got = ring.select(&[vec![Matcher::equal("a", "b")]], 0, 10);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].1, vec![e(2), e(3)]);
        assert_eq!(ring.add(SeriesRef(2), || None, e(9)), Added::Same);
        assert_eq!((ring.ring.len(), ring.series.len()), (2, 1), "a removed series leaves nothing");
    }
}
