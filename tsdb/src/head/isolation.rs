//! Isolation: a reader sees all of a commit or nothing of it.
//!
//! Commits are numbered when they begin to apply. A [`Snapshot`] sees exactly the commits that had ended when it was taken.
//! Series remember, for the few commits that some reader may not see yet, how many samples they had before
//! (`series::Visibility`). What lies below the low watermark is seen by everybody and is forgotten.
//!
//! Guarantee and its limit: visible samples of a series are always a prefix of its samples. When two commits that overlap
//! in time add to one series and only the second has ended, its samples of that series stay hidden until the first ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

/// Numbers commits and knows the readers.
#[derive(Default)]
pub(crate) struct Isolation {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_commit: u64,
    open: BTreeSet<u64>,
    last_reader: u64,
    /// By order of opening, so that the first has the lowest watermark.
    readers: BTreeMap<u64, Reader>,
}

struct Reader {
    low_watermark: u64,
    mint: i64,
}

impl State {
    fn first_unseen(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.last_commit + 1)
    }

    fn low_watermark(&self) -> u64 {
        let readers = self.readers.first_key_value().map_or(u64::MAX, |(_, r)| r.low_watermark);
        self.first_unseen().min(readers)
    }
}

/// A commit that is being applied.
pub(crate) struct OpenCommit<'a> {
    isolation: &'a Isolation,
    pub(crate) number: u64,
    /// Commits below are seen by every reader.
    pub(crate) low_watermark: u64,
}

impl Drop for OpenCommit<'_> {
    fn drop(&mut self) {
        self.isolation.state.lock().open.remove(&self.number);
    }
}

impl Isolation {
    /// Begins to apply a commit; it ends, and is seen by readers opened from then on, when the result is dropped.
    pub(crate) fn begin(&self) -> OpenCommit<'_> {
        let mut s = self.state.lock();
        s.last_commit += 1;
        let number = s.last_commit;
        s.open.insert(number);
        let low_watermark = s.low_watermark();
        OpenCommit { isolation: self, number, low_watermark }
    }

    /// Number of the newest commit begun.
    pub(crate) fn last_commit(&self) -> u64 {
        self.state.lock().last_commit
    }

    /// Whether a commit up to `number` is still being applied.
    pub(crate) fn is_applying(&self, number: u64) -> bool {
        self.state.lock().open.first().is_some_and(|n| *n <= number)
    }

    /// Number of the newest reader opened.
    pub(crate) fn last_reader(&self) -> u64 {
        self.state.lock().last_reader
    }

    /// Whether a reader up to `number` is still open that may want samples before `t`.
    pub(crate) fn is_reading(&self, number: u64, t: i64) -> bool {
        self.state.lock().readers.range(..=number).any(|(_, r)| r.mint < t)
    }

    /// Opens a reader of samples from `mint` on.
    pub(crate) fn snapshot(self: &Arc<Self>, mint: i64) -> Snapshot {
        let mut s = self.state.lock();
        s.last_reader += 1;
        let reader = s.last_reader;
        let low_watermark = s.first_unseen();
        s.readers.insert(reader, Reader { low_watermark, mint });
        Snapshot {
            reader,
            last: s.last_commit,
            open: s.open.iter().copied().collect(),
            isolation: Some(self.clone()),
        }
    }
}

/// The commits that a reader sees.
pub(crate) struct Snapshot {
    reader: u64,
    last: u64,
    /// Sorted.
    open: Vec<u64>,
    isolation: Option<Arc<Isolation>>,
}

impl Snapshot {
    /// Sees every commit, those being applied too.
    pub(crate) fn everything() -> Self {
        Self { reader: 0, last: u64::MAX, open: Vec::new(), isolation: None }
    }

    pub(crate) fn sees(&self, commit: u64) -> bool {
        commit <= self.last && self.open.binary_search(&commit).is_err()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(isolation) = &self.isolation {
            isolation.state.lock().readers.remove(&self.reader);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let i = Arc::new(Isolation::default());
        let a = i.begin();
        let b = i.begin();
        drop(a);
        let s = i.snapshot(0);
        assert!(s.sees(1) && !s.sees(2) && !s.sees(3));
        drop(b);
        let c = i.begin();
        assert_eq!(c.low_watermark, 2, "the reader does not see 2");
        assert!(!s.sees(2) && i.is_reading(1, 1) && !i.is_reading(1, 0));
        drop(s);
        drop(c);
        assert_eq!(i.begin().low_watermark, 4);
    }
}
