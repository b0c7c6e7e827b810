//! [`Commits`]: commits that are under way, from before their records are logged until they are applied.
//!
//! A snapshot of the head stands for the log up to a position. Who notes the end of the log and then waits here knows that all
//! the log has up to there is in memory. Commits never wait: they are counted by epoch, in one of two counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::StorageError;

/// How long a snapshot waits for commits, in steps of a millisecond. They take far less.
const STEPS_MAX: u32 = 30_000;

/// Counts commits.
#[derive(Default)]
pub(crate) struct Commits {
    epoch: AtomicU64,
    /// Commits begun in even and in odd epochs.
    begun: [AtomicU64; 2],
}

/// A commit under way.
pub(crate) struct Commit<'a>(&'a AtomicU64);

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Commits {
    /// A commit begins; it ends when the result is dropped.
    pub(crate) fn begin(&self) -> Commit<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let begun = self.of(epoch);
            begun.fetch_add(1, Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return Commit(begun);
            }
            // Somebody who waits may not have seen it.
            begun.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn of(&self, epoch: u64) -> &AtomicU64 {
        &self.begun[(epoch & 1) as usize]
    }

    /// Waits until all commits have ended that had begun when this was called. Calls do not overlap.
    ///
    /// # Errors
    /// When one takes too long.
    pub(crate) fn wait_for_begun(&self) -> Result<(), StorageError> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        // Those of a call that gave up.
        wait_for_none(self.of(epoch + 1))?;
        self.epoch.store(epoch + 1, Ordering::SeqCst);
        wait_for_none(self.of(epoch))
    }
}

fn wait_for_none(begun: &AtomicU64) -> Result<(), StorageError> {
    for _ in 0..STEPS_MAX {
        if begun.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let reason = "a commit takes too long: no snapshot is taken this time".into();
    Err(StorageError::Unavailable { who: "head".into(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_begun_before_are_waited_for() {
        let commits = Commits::default();
        let ended = std::sync::atomic::AtomicBool::new(false);
        let first = commits.begin();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                commits.wait_for_begun().expect("it ends");
                assert!(ended.load(Ordering::SeqCst));
            });
            while commits.epoch.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            // One that begins later neither waits nor is waited for.
            let later = commits.begin();
            ended.store(true, Ordering::SeqCst);
            drop(first);
            waiting.join().expect("no panic");
            drop(later);
        });
        commits.wait_for_begun().expect("there are none");
        assert!(commits.begun.iter().all(|n| n.load(Ordering::SeqCst) == 0));
    }
}
