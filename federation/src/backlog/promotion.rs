//! Retroactive promotion: when a series gets its tag, its history without the tag is to be sent too.
//!
//! The reader of the log gives each new series that is sent and has a label which a selector asks for. They are
//! collected for some seconds; then one selection per group looks whether the local store has any of them without the
//! tag. If so, a range is enqueued, which is durable before the position passes the record that named the series: the
//! piece of the log is held until then.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use model::labels::{METRIC_NAME, is_legacy_metric_name};
use model::{Labels, MatchOp, Matcher, SelectHints, StorageError};
use tokio::sync::mpsc;

use super::Backlog;
use super::local::LocalStore;
use super::range::{NewRange, Reason};
use super::read::without_tag;
use crate::sender::{Naming, Shared};

/// More metric names than this are not named in a selection.
const MAX_NAMES: usize = 200;
/// Series of a group beyond which it is looked at before its time.
const MAX_COLLECTED: usize = 50_000;
/// Pause after the local store could not be asked.
const RETRY: Duration = Duration::from_secs(1);

/// Newly tagged series of one piece of the log.
#[derive(Debug)]
pub(crate) struct Tagged {
    pub(crate) piece: u64,
    pub(crate) series: Vec<Labels>,
}

/// Looks for the history of newly tagged series.
pub(crate) struct Promoter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) store: Arc<dyn LocalStore>,
    pub(crate) naming: Naming,
    pub(crate) tagged: mpsc::UnboundedReceiver<Tagged>,
    /// Pieces that need not be held any more.
    pub(crate) released: mpsc::UnboundedSender<u64>,
}

impl Promoter {
    /// Runs until nobody gives series any more; those given before are still looked at.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.tagged.recv().await {
            let mut pieces = vec![first.piece];
            let mut series = first.series;
            let due = tokio::time::Instant::now() + self.shared.config.backlog.promotion_delay;
            while series.len() < MAX_COLLECTED {
                match tokio::time::timeout_at(due, self.tagged.recv()).await {
                    Ok(Some(more)) => {
                        pieces.push(more.piece);
                        series.extend(more.series);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            if !self.look(series).await {
                return;
            }
            for piece in pieces {
                if self.released.send(piece).is_err() {
                    return;
                }
            }
        }
    }

    /// Looks until it works. False when nobody waits any more.
    async fn look(&self, series: Vec<Labels>) -> bool {
        let series = Arc::new(series);
        loop {
            let (shared, backlog, store, naming, series) = (
                self.shared.clone(),
                self.backlog.clone(),
                self.store.clone(),
                self.naming.clone(),
                series.clone(),
            );
            let work = move || {
                let now_ms = shared.clock.now_ms();
                for range in promotions(&*store, &naming, &shared.config.matchers, &series, now_ms)? {
                    backlog.enqueue(range)?;
                }
                Ok::<_, StorageError>(())
            };
            let error = match tokio::task::spawn_blocking(work).await {
                Ok(Ok(())) => return true,
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            if self.released.is_closed() {
                return false;
            }
            let destination = &self.shared.config.name;
            tracing::warn!(
                destination,
                error,
                "the history of newly tagged series cannot be looked for; trying again"
            );
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Names of all labels that can make a series be selected by being there.
#[must_use]
pub fn tag_label_names(sets: &[Vec<Matcher>]) -> Vec<String> {
    let tags = sets.iter().flatten().filter(|m| m.name != METRIC_NAME && !m.matches_empty());
    tags.map(|m| m.name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The names of the labels because of which a series is selected: what a series has and its history may lack.
pub(crate) fn tag_names(sets: &[Vec<Matcher>], labels: &Labels) -> Vec<String> {
    let mut names = BTreeSet::new();
    for m in sets.iter().flatten() {
        let tag = m.name != METRIC_NAME && labels.contains(&m.name) && !m.matches_empty();
        if tag && m.matches(labels.value(&m.name)) {
            names.insert(m.name.clone());
        }
    }
    names.into_iter().collect()
}

/// The ranges to be sent for newly tagged series.
fn promotions(
    store: &dyn LocalStore,
    naming: &Naming,
    sets: &[Vec<Matcher>],
    series: &[Labels],
    now_ms: i64,
) -> Result<Vec<NewRange>, StorageError> {
    let mut groups: BTreeMap<Vec<String>, HashSet<Labels>> = BTreeMap::new();
    for labels in series {
        let strip = tag_names(sets, labels);
        let bare = labels.without(&strip);
        if !strip.is_empty() && !bare.is_empty() {
            groups.entry(strip).or_default().insert(bare);
        }
    }
    let mut ranges = Vec::new();
    for (strip, bare) in groups {
        let narrow = narrowing(&bare);
        let selectors: Vec<Vec<Matcher>> =
            sets.iter().map(|set| set.iter().chain(&narrow).cloned().collect()).collect();
        if has_any(store, &without_tag(&naming.local_sets(&selectors), &strip), &bare)? {
            let reason = Reason::Promotion;
            ranges.push(NewRange { reason, selectors, strip, mint: i64::MIN, maxt: now_ms });
        }
    }
    Ok(ranges)
}

/// Matchers that all of the series pass and as few others as possible.
fn narrowing(series: &HashSet<Labels>) -> Vec<Matcher> {
    let Some(first) = series.iter().next() else { return Vec::new() };
    let common = first.iter().filter(|(n, v)| series.iter().all(|l| l.get(n) == Some(v)));
    let mut out: Vec<Matcher> = common.map(|(n, v)| Matcher::equal(n, v)).collect();
    if !out.iter().any(|m| m.name == METRIC_NAME) {
        let names: BTreeSet<&str> = series.iter().map(Labels::metric_name).collect();
        // Names that need escaping are left to the other matchers.
        if names.len() <= MAX_NAMES && names.iter().all(|n| is_legacy_metric_name(n)) {
            let pattern = names.into_iter().collect::<Vec<_>>().join("|");
            out.extend(Matcher::new(MatchOp::Regexp, METRIC_NAME, pattern).ok());
        }
    }
    out
}

fn has_any(
    store: &dyn LocalStore,
    sets: &[Vec<Matcher>],
    wanted: &HashSet<Labels>,
) -> Result<bool, StorageError> {
    let mint = store.min_time().unwrap_or(i64::MIN);
    let querier = store.querier(mint, i64::MAX)?;
    let hints = SelectHints {
        start_ms: mint,
        end_ms: i64::MAX,
        func: "series".into(),
        labels_only: true,
        ..SelectHints::default()
    };
    for matchers in sets {
        let mut found = querier.select(matchers, &hints)?;
        while let Some(s) = found.next()? {
            if wanted.contains(&s.labels) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::memory::MemoryStorage;
    use model::{Querier, Queryable, Sample};

    struct Store(MemoryStorage);

    impl Queryable for Store {
        fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
            self.0.querier(mint, maxt)
        }
    }

    impl LocalStore for Store {
        fn min_time(&self) -> Option<i64> {
            Some(0)
        }
    }

    fn l(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn only_series_with_a_history_are_promoted_in_groups() {
        let store = MemoryStorage::new();
        for job in ["a", "b"] {
            store.insert(&l(&[("__name__", "up"), ("job", job)]), Sample::float(1, 1.0));
        }
        let sets = vec![vec![Matcher::not_equal("longterm", "")]];
        let naming = Naming::new(Vec::new(), Labels::empty());
        let tagged = |name, job| l(&[("__name__", name), ("job", job), ("longterm", "x")]);
        let look = |series: &[Labels]| {
            promotions(&Store(store.clone()), &naming, &sets, series, 9).expect("readable")
        };
        assert_eq!(look(&[tagged("up", "c"), tagged("down", "a")]), []);
        let found = look(&[tagged("up", "a"), tagged("down", "a")]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].mint, found[0].maxt, &found[0].strip[..]),
            (i64::MIN, 9, &["longterm".to_owned()][..])
        );
        let shown: Vec<String> = found[0].selectors[0].iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["longterm!=\"\"", "job=\"a\"", "__name__=~\"down|up\""]);
    }

    #[test]
    fn tags_are_what_a_selector_asks_for() {
        let sets = vec![
            vec![Matcher::equal("job", "a"), Matcher::not_equal("env", "dev")],
            vec![Matcher::not_equal("longterm", "")],
        ];
        let names = |labels: &[(&str, &str)]| tag_names(&sets, &l(labels));
        assert_eq!(names(&[("job", "a"), ("env", "x")]), ["job"]);
        assert_eq!(names(&[("job", "b"), ("longterm", "x")]), ["longterm"]);
        assert!(names(&[("job", "b")]).is_empty());
    }
}
