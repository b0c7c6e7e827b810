//! [`Visibility`]: which commits a series has samples of, as far as some reader may not see them.

use super::isolation::Snapshot;

/// Samples of a commit, with those of commits forgotten behind it.
type Part = (u64, u32);

/// How many samples at the end of a series came with which commit.
#[derive(Default)]
pub(super) struct Visibility {
    /// The newest commit.
    commit: u64,
    /// Commits before it that were not seen by everybody, oldest first.
    #[allow(clippy::box_collection, reason = "one word in every series instead of three")]
    older: Option<Box<Vec<Part>>>,
    /// Samples of the newest commit.
    count: u32,
    /// Belongs to the series; here it fills a gap.
    pub(super) life: Life,
}

/// Appenders that hold a sample for a series, which is not removed meanwhile, and two marks.
#[derive(Default)]
pub(super) struct Life(u32);

const REMOVED: u32 = 1 << 31;
const LOGGED: u32 = 1 << 30;

impl Life {
    pub(super) fn pin(&mut self) {
        self.0 += 1;
        assert!(self.0 & (LOGGED - 1) > 0, "no process holds a thousand million samples of one series");
    }

    pub(super) fn unpin(&mut self) {
        assert!(self.is_pinned(), "nobody unpins what he has not pinned");
        self.0 -= 1;
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.0 & (LOGGED - 1) > 0
    }

    /// Whether the write-ahead log has the series record.
    pub(super) fn is_logged(&self) -> bool {
        self.0 & LOGGED != 0
    }

    pub(super) fn set_logged(&mut self) {
        self.0 |= LOGGED;
    }

    pub(super) fn is_removed(&self) -> bool {
        self.0 & REMOVED != 0
    }

    pub(super) fn set_removed(&mut self) {
        self.0 |= REMOVED;
    }
}

impl Visibility {
    /// Notes a sample of a commit. Commits below the low watermark are seen by everybody.
    #[inline]
    pub(super) fn add(&mut self, commit: u64, low_watermark: u64) {
        if self.commit != commit {
            self.begin(commit, low_watermark);
        }
        self.count = self.count.saturating_add(1);
    }

    fn begin(&mut self, commit: u64, low_watermark: u64) {
        let newest = (self.commit, self.count);
        (self.commit, self.count) = (commit, 0);
        if self.older.is_none() && newest.0 < low_watermark {
            return;
        }
        // What is forgotten may stand behind what is not, and is hidden with it.
        let older = self.older.get_or_insert_default();
        let mut kept: Vec<Part> = Vec::with_capacity(older.len() + 1);
        for (c, n) in older.drain(..).chain([newest]) {
            if c >= low_watermark {
                kept.push((c, n));
            } else if let Some(before) = kept.last_mut() {
                before.1 = before.1.saturating_add(n);
            }
        }
        **older = kept;
        self.older.take_if(|o| o.is_empty());
    }

    /// Samples at the end that the snapshot does not see.
    pub(super) fn hidden(&self, snapshot: &Snapshot) -> u64 {
        let parts = self.older.iter().flat_map(|o| o.iter().copied()).chain([(self.commit, self.count)]);
        parts.skip_while(|(c, _)| snapshot.sees(*c)).map(|(_, n)| u64::from(n)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::isolation::Isolation;
    use super::*;

    #[test]
    fn what_stands_behind_a_hidden_commit_is_hidden_too() {
        let isolation = Arc::new(Isolation::default());
        let mut v = Visibility::default();
        let add = |v: &mut Visibility, n, low| (0..3).for_each(|_| v.add(n, low));
        add(&mut v, 0, 0);
        let first = isolation.begin();
        let second = isolation.begin();
        add(&mut v, second.number, second.low_watermark);
        add(&mut v, first.number, first.low_watermark);
        drop(first);
        let seen = isolation.snapshot(0);
        assert_eq!(v.hidden(&seen), 6, "of two commits the first in the series goes on");
        let third = isolation.begin();
        assert_eq!(third.low_watermark, second.number);
        add(&mut v, third.number, third.low_watermark);
        assert_eq!((v.hidden(&seen), v.hidden(&Snapshot::everything())), (9, 0));
        drop(second);
        let later = isolation.snapshot(0);
        assert_eq!(v.hidden(&later), 3);
        drop((seen, later, third));
        let fourth = isolation.begin();
        add(&mut v, fourth.number, fourth.low_watermark);
        assert!(v.older.is_none());
        drop(fourth);
        assert_eq!(v.hidden(&isolation.snapshot(0)), 0);
    }
}
