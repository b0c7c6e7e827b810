//! Ranges of history to be sent, and which part of which comes next. Plain data, no I/O.

use model::{Labels, Matcher};
use wire::digest::{WINDOW_MS, window_start};

/// Why a range is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The write-ahead log no longer held what was not yet sent.
    Gap,
    /// Selectors that did not select it before.
    Selectors,
    /// History of a series from before it was tagged.
    Promotion,
    /// The audit found a difference.
    Audit,
    /// An operator asked for it.
    Manual,
    /// The file of the queue was damaged.
    Damaged,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::Gap, Self::Selectors, Self::Promotion, Self::Audit, Self::Manual, Self::Damaged];

    /// The word in metrics, files and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Selectors => "selectors",
            Self::Promotion => "promotion",
            Self::Audit => "audit",
            Self::Manual => "manual",
            Self::Damaged => "damaged_queue",
        }
    }

    /// The reason of a word.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == s)
    }
}

/// A range to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRange {
    /// Why.
    pub reason: Reason,
    /// A series is sent when one of the sets selects it, external labels included; an empty list selects all.
    pub selectors: Vec<Vec<Matcher>>,
    /// For promotions: labels that the history lacks. What is sent is the history of the series without these labels,
    /// under the labels of the series with them.
    pub strip: Vec<String>,
    /// First timestamp in milliseconds; `i64::MIN` for all that there is.
    pub mint: i64,
    /// Last timestamp.
    pub maxt: i64,
}

/// A range in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Its number, not used again.
    pub id: u64,
    /// Why, since when, what.
    pub reason: Reason,
    /// When it was added.
    pub enqueued_ms: i64,
    /// As in [`NewRange`].
    pub selectors: Vec<Vec<Matcher>>,
    /// As in [`NewRange`].
    pub strip: Vec<String>,
    /// First timestamp.
    pub mint: i64,
    /// Last timestamp.
    pub maxt: i64,
    /// Everything before is done.
    pub done_until: i64,
    /// In the window that begins at `done_until`, series up to this one are done.
    pub after: Option<Labels>,
    /// Samples sent.
    pub samples: u64,
    /// Changes whenever the range becomes another one, so that work on the old one does not count for the new one.
    pub(crate) generation: u64,
}

impl Range {
    /// Windows still to be looked at, when the local store begins at `local_min`.
    #[must_use]
    pub fn windows_left(&self, local_min: Option<i64>) -> u64 {
        let Some(local_min) = local_min else { return 0 };
        let from = window_start(self.done_until.max(local_min));
        if from > self.maxt {
            return 0;
        }
        let windows = (i128::from(self.maxt) - i128::from(from)) / i128::from(WINDOW_MS) + 1;
        u64::try_from(windows).unwrap_or(u64::MAX)
    }
}

/// One window of one range.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) generation: u64,
    pub(crate) reason: Reason,
    pub(crate) selectors: Vec<Vec<Matcher>>,
    pub(crate) strip: Vec<String>,
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    pub(crate) after: Option<Labels>,
}

/// The ranges of a queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ranges {
    list: Vec<Range>,
    next_id: u64,
}

impl Ranges {
    /// Ranges as they were stored.
    pub(crate) fn from_parts(list: Vec<Range>, next_id: u64) -> Self {
        let next_id = list.iter().map(|r| r.id + 1).fold(next_id, u64::max);
        Self { list, next_id }
    }

    pub(crate) fn list(&self) -> &[Range] {
        &self.list
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Adds a range, or makes those that it touches one with it. Gives the number of what it is now.
    pub(crate) fn add(&mut self, new: NewRange, now_ms: i64) -> u64 {
        self.next_id = self.next_id.max(1);
        let NewRange { reason, selectors, strip, mut mint, mut maxt } = new;
        let mut merged: Option<Range> = None;
        // What is merged may touch others that the new one alone does not.
        while let Some(i) = self.list.iter().position(|r| {
            r.selectors == selectors
                && r.strip == strip
                && r.done_until <= maxt.saturating_add(1)
                && mint <= r.maxt.saturating_add(1)
        }) {
            let r = self.list.remove(i);
            // What is done of it and asked for again has to be read again: it may have changed.
            mint = mint.min(r.done_until);
            maxt = maxt.max(r.maxt);
            merged = Some(match merged {
                Some(m) if m.id < r.id => Range { samples: m.samples + r.samples, ..m },
                Some(m) => Range { samples: m.samples + r.samples, ..r },
                None => r,
            });
        }
        let range = match merged {
            Some(r) => Range { mint, maxt, done_until: mint, after: None, generation: r.generation + 1, ..r },
            None => {
                let id = self.next_id;
                self.next_id += 1;
                Range {
                    id,
                    reason,
                    enqueued_ms: now_ms,
                    selectors,
                    strip,
                    mint,
                    maxt,
                    done_until: mint,
                    after: None,
                    samples: 0,
                    generation: 0,
                }
            }
        };
        let id = range.id;
        self.list.push(range);
        self.list.sort_by_key(|r| r.id);
        id
    }

    /// Takes out a range; `false` when there is none of this number.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.list.len();
        self.list.retain(|r| r.id != id);
        self.list.len() < before
    }

    /// The oldest window that is to be done. Ranges that end before the local store begins are done. A store that has
    /// nothing may be one that is not ready: nothing is decided then.
    pub(crate) fn next(&mut self, local_min: Option<i64>) -> Option<Job> {
        let local_min = local_min?;
        self.list.retain_mut(|r| {
            if r.done_until < local_min {
                r.done_until = local_min.min(r.maxt.saturating_add(1));
                r.after = None;
                r.generation += 1;
            }
            r.done_until <= r.maxt
        });
        let r = self.list.iter().min_by_key(|r| (r.done_until, r.id))?;
        let end = window_start(r.done_until).saturating_add(WINDOW_MS - 1);
        Some(Job {
            id: r.id,
            generation: r.generation,
            reason: r.reason,
            selectors: r.selectors.clone(),
            strip: r.strip.clone(),
            mint: r.done_until,
            maxt: end.min(r.maxt),
            after: r.after.clone(),
        })
    }

    fn of(&mut self, job: &Job) -> Option<&mut Range> {
        self.list.iter_mut().find(|r| (r.id, r.generation) == (job.id, job.generation))
    }

    /// Series up to `after` of a job's window are done.
    pub(crate) fn advanced(&mut self, job: &Job, after: Option<Labels>, samples: u64) {
        if let Some(r) = self.of(job) {
            r.samples += samples;
            if after.is_some() {
                r.after = after;
            }
        }
    }

    /// A job's window is done.
    pub(crate) fn finished(&mut self, job: &Job) {
        if let Some(r) = self.of(job) {
            r.done_until = job.maxt.saturating_add(1);
            r.after = None;
            if r.done_until > r.maxt || job.maxt == i64::MAX {
                let id = r.id;
                self.list.retain(|r| r.id != id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str, mint: i64, maxt: i64) -> NewRange {
        let selectors = vec![vec![Matcher::equal("a", name)]];
        NewRange { reason: Reason::Gap, selectors, strip: Vec::new(), mint, maxt }
    }

    fn shown(r: &Ranges) -> Vec<(u64, i64, i64)> {
        r.list().iter().map(|r| (r.id, r.done_until, r.maxt)).collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut r = Ranges::default();
        assert_eq!(r.add(new("x", 0, 9), 0), 1);
        assert_eq!(r.add(new("x", 20, 29), 0), 2);
        assert_eq!(r.add(new("y", 10, 19), 0), 3);
        assert_eq!(shown(&r), [(1, 0, 9), (2, 20, 29), (3, 10, 19)]);
        assert_eq!(r.add(new("x", 10, 19), 0), 1);
        assert_eq!(shown(&r), [(1, 0, 29), (3, 10, 19)]);
        assert_eq!(r.add(new("x", 5, 6), 0), 1);
        assert_eq!(r.add(new("x", i64::MIN, i64::MAX), 0), 1);
        assert_eq!(shown(&r), [(1, i64::MIN, i64::MAX), (3, 10, 19)]);
    }

    #[test]
    fn the_oldest_window_comes_first_and_work_on_a_changed_range_does_not_count() {
        let mut r = Ranges::default();
        r.add(new("x", 100, 3 * WINDOW_MS), 0);
        r.add(new("y", WINDOW_MS + 5, WINDOW_MS + 9), 0);
        let job = r.next(Some(0)).expect("work");
        assert_eq!((job.id, job.mint, job.maxt), (1, 100, WINDOW_MS - 1));
        r.advanced(&job, Some(Labels::from_pairs([("a", "b")])), 7);
        assert_eq!(r.next(Some(0)).expect("work").after, Some(Labels::from_pairs([("a", "b")])));
        r.finished(&job);
        let job = r.next(Some(0)).expect("work");
        assert_eq!((job.id, job.mint, job.maxt), (1, WINDOW_MS, 2 * WINDOW_MS - 1));
        // Asked for again while it is read.
        r.add(new("x", WINDOW_MS + 1, WINDOW_MS + 2), 0);
        r.finished(&job);
        assert_eq!(shown(&r)[0], (1, WINDOW_MS, 3 * WINDOW_MS));
        // What the local store no longer has cannot be sent.
        let job = r.next(Some(3 * WINDOW_MS - 1)).expect("work");
        assert_eq!((job.id, job.mint, job.maxt), (1, 3 * WINDOW_MS - 1, 3 * WINDOW_MS - 1));
        r.finished(&job);
        let job = r.next(Some(0)).expect("work");
        assert_eq!((job.mint, job.maxt), (3 * WINDOW_MS, 3 * WINDOW_MS));
        r.finished(&job);
        assert!(r.next(Some(0)).is_none() && r.list().is_empty());
    }

    #[test]
    fn windows_are_counted() {
        let mut r = Ranges::default();
        r.add(new("x", i64::MIN, i64::MAX), 0);
        assert!(r.list()[0].windows_left(Some(0)) > 1 << 40);
        assert_eq!(r.list()[0].windows_left(None), 0);
        let mut r = Ranges::default();
        r.add(new("x", 0, 2 * WINDOW_MS), 0);
        assert_eq!(r.list()[0].windows_left(Some(WINDOW_MS)), 2);
    }
}
