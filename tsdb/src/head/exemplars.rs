//! A ring of the newest exemplars of all series. Of one series they rise in time; the oldest of all gives way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use model::{Exemplar, Matcher, SeriesRef};

use super::series::MemSeries;

/// Exemplars of a series.
pub(crate) type SeriesExemplars = (model::Labels, Vec<Exemplar>);

#[derive(Default)]
pub(crate) struct ExemplarRing {
    max: usize,
    ring: VecDeque<(Arc<MemSeries>, Exemplar)>,
    /// Newest exemplar of each series in the ring, and how many it has there.
    newest: HashMap<SeriesRef, (Exemplar, usize)>,
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

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// What would become of an exemplar.
    pub(crate) fn check(&self, series: SeriesRef, e: &Exemplar) -> Added {
        if self.max == 0 {
            return Added::Disabled;
        }
        match self.newest.get(&series) {
            Some((n, _)) if n == e => Added::Same,
            Some((n, _)) if n.timestamp_ms > e.timestamp_ms => Added::OutOfOrder,
            _ => Added::Yes,
        }
    }

    pub(crate) fn add(&mut self, series: &Arc<MemSeries>, e: Exemplar) -> Added {
        let outcome = self.check(series.reference, &e);
        if outcome != Added::Yes {
            return outcome;
        }
        if self.ring.len() == self.max
            && let Some((old, _)) = self.ring.pop_front()
        {
            let gone = self.newest.get_mut(&old.reference).is_some_and(|(_, n)| {
                *n -= 1;
                *n == 0
            });
            if gone {
                self.newest.remove(&old.reference);
            }
        }
        let entry = self.newest.entry(series.reference).or_insert_with(|| (e.clone(), 0));
        *entry = (e.clone(), entry.1 + 1);
        self.ring.push_back((series.clone(), e));
        Added::Yes
    }

    /// Exemplars within `[mint, maxt]` of the series that pass one of the sets of matchers, sorted by labels.
    pub(crate) fn select(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Vec<SeriesExemplars> {
        let mut out: HashMap<SeriesRef, SeriesExemplars> = HashMap::new();
        let mut verdicts: HashMap<SeriesRef, bool> = HashMap::new();
        for (s, e) in &self.ring {
            let t = e.timestamp_ms.unwrap_or(i64::MIN);
            if t < mint || t > maxt {
                continue;
            }
            let passes = *verdicts
                .entry(s.reference)
                .or_insert_with(|| sets.iter().any(|m| Matcher::all_match(m, &s.labels)));
            if passes {
                out.entry(s.reference).or_insert_with(|| (s.labels.clone(), Vec::new())).1.push(e.clone());
            }
        }
        let mut out: Vec<_> = out.into_values().collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;

    #[test]
    fn the_oldest_give_way() {
        let mut ring = ExemplarRing::new(2);
        let s = Arc::new(MemSeries::new(SeriesRef(1), Labels::from_pairs([("a", "b")])));
        let e = |t| Exemplar { labels: Labels::empty(), value: 1.0, timestamp_ms: Some(t) };
        assert_eq!(ring.add(&s, e(1)), Added::Yes);
        assert_eq!(ring.add(&s, e(1)), Added::Same);
        assert_eq!(ring.add(&s, e(0)), Added::OutOfOrder);
        assert_eq!(ring.add(&s, e(2)), Added::Yes);
        assert_eq!(ring.add(&s, e(3)), Added::Yes);
        let got = ring.select(&[vec![Matcher::equal("a", "b")]], 0, 10);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].1, vec![e(2), e(3)]);
    }
}
