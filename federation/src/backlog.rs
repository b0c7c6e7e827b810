//! The backlog lane: what the live lane could not send is read from the local store and sent later.
//!
//! A [`Backlog`] is a durable queue of ranges ([`range`]) in a file ([`mod@file`]) beside the destination's position. The
//! lane ([`lane`]) works through them in windows of two hours, oldest first, series in the order of their labels
//! ([`read`]), at a limited pace and only while the live lane is not behind.
//!
//! # What is promised
//!
//! - [`Backlog::enqueue`] returns once the range is durable. Ranges with equal selectors that touch or overlap become one.
//! - A range leaves the queue only when each sample that the local store has in it was acknowledged, or refused for good
//!   and counted. How far it is gets stored about once a second; a restart goes on there and repeats at most what was
//!   sent since.
//! - Memory: the samples of a few requests, and for promotions the labels of the tagged series.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Clock, StorageError};
use tokio::sync::Notify;

mod file;
mod lane;
mod local;
mod metrics;
mod promotion;
mod range;
mod read;
#[cfg(test)]
mod tests;

pub use local::LocalStore;
pub use promotion::tag_label_names;
pub use range::{NewRange, Range, Reason};

use file::BacklogFile;
pub(crate) use lane::Lane;
pub(crate) use metrics::BacklogMetrics;
pub(crate) use promotion::{Promoter, Tagged, tag_names};
use range::{Job, Ranges};

/// How far a range may reach beyond now.
const FUTURE_MS: i64 = 3_600_000;

/// How a backlog stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BacklogStatus {
    /// What is still to be sent, in the order in which it came.
    pub ranges: Vec<Range>,
    /// Samples sent by the lane since it started.
    pub sent: u64,
    /// Samples per second over about the last minute.
    pub samples_per_second: f64,
    /// Windows still to be looked at.
    pub windows_left: u64,
    /// Samples still to be sent, as the windows before let expect.
    pub samples_left: u64,
    /// Whether it waits for the live lane.
    pub paused: bool,
    /// Why the lane does not get on; empty when it does.
    pub last_error: String,
    /// Everything before is known to be in the destination, as far as the audit has come.
    pub verified_until_ms: Option<i64>,
    /// Promoted history ends here at the latest: up to it the destination may have samples under labels that the local
    /// store does not know.
    pub promoted_until_ms: Option<i64>,
}

/// The queue of one destination.
pub struct Backlog {
    file: BacklogFile,
    state: Mutex<State>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
    changed: Notify,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog").field("file", &self.file).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    ranges: Ranges,
    /// What is not stored.
    dirty: bool,
    status: BacklogStatus,
}

impl Backlog {
    /// Opens the queue of `destination` in `dir`. Blocks on the disk.
    ///
    /// A damaged file is kept aside; what it held is not known, so everything that `all` selects is enqueued anew.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(
        dir: &Path,
        destination: &str,
        all: &[Vec<model::Matcher>],
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StorageError> {
        let (file, loaded) = BacklogFile::open(dir, destination)?;
        let mut state = State::default();
        let damaged = loaded.is_none();
        if let Some(stored) = loaded {
            state.ranges = stored.ranges;
            state.status.verified_until_ms = stored.verified_until_ms;
            state.status.promoted_until_ms = stored.promoted_until_ms;
        }
        let this = Arc::new(Self {
            file,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            changed: Notify::new(),
            clock,
        });
        if damaged {
            this.enqueue(NewRange {
                reason: Reason::Damaged,
                selectors: all.to_vec(),
                strip: Vec::new(),
                mint: i64::MIN,
                maxt: this.clock.now_ms(),
            })?;
        }
        Ok(this)
    }

    /// Adds a range; it is durable on return. It ends soon after now at the latest: what comes then is news. Gives the number of the range that it has become or become part of.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When it could not be made durable; it is worked on all the same, unless the process ends before.
    pub fn enqueue(&self, new: NewRange) -> Result<u64, StorageError> {
        let now_ms = self.clock.now_ms();
        let new = NewRange { maxt: new.maxt.min(now_ms.saturating_add(FUTURE_MS)), ..new };
        tracing::info!(
            reason = new.reason.as_str(),
            from_ms = new.mint,
            to_ms = new.maxt,
            "history to be sent from the local store"
        );
        let id = {
            let mut state = self.lock();
            if new.reason == Reason::Promotion {
                let until = state.status.promoted_until_ms.map_or(new.maxt, |t| t.max(new.maxt));
                state.status.promoted_until_ms = Some(until);
            }
            state.dirty = true;
            state.ranges.add(new, now_ms)
        };
        self.changed.notify_one();
        self.save()?;
        Ok(id)
    }

    /// Takes a range out of the queue; `false` when there is none of this number. Blocks on the disk.
    ///
    /// # Errors
    /// When the queue without it could not be stored.
    pub fn cancel(&self, id: u64) -> Result<bool, StorageError> {
        let found = {
            let mut state = self.lock();
            state.dirty = true;
            state.ranges.remove(id)
        };
        self.save()?;
        Ok(found)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> BacklogStatus {
        let state = self.lock();
        BacklogStatus { ranges: state.ranges.list().to_vec(), ..state.status.clone() }
    }

    /// End of promoted history, see [`BacklogStatus::promoted_until_ms`].
    #[must_use]
    pub fn promoted_until_ms(&self) -> Option<i64> {
        self.lock().status.promoted_until_ms
    }

    /// Begin of the earliest window that is still to be sent; `None` when nothing is.
    #[must_use]
    pub fn earliest_ms(&self) -> Option<i64> {
        self.lock().ranges.list().iter().map(|r| r.done_until).min()
    }

    /// Whether nothing is to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().ranges.list().is_empty()
    }

    /// Notes how far the audit has come; stored with the next change or second.
    pub(crate) fn set_verified_until(&self, t: Option<i64>) {
        let mut state = self.lock();
        state.dirty |= state.status.verified_until_ms != t;
        state.status.verified_until_ms = t;
    }

    /// The next piece of work; `local_min` is the time of the oldest local sample. Ranges with nothing left are dropped.
    fn next(&self, local_min: Option<i64>) -> Option<Job> {
        let mut state = self.lock();
        let before = state.ranges.list().len();
        let job = state.ranges.next(local_min);
        state.dirty |= state.ranges.list().len() != before;
        job
    }

    /// Series up to `after` of a window are acknowledged.
    fn advanced(&self, job: &Job, after: Option<model::Labels>, samples: u64) {
        let mut state = self.lock();
        state.dirty = true;
        state.status.sent += samples;
        state.ranges.advanced(job, after, samples);
    }

    /// A window is done.
    fn finished(&self, job: &Job) {
        let mut state = self.lock();
        state.dirty = true;
        state.ranges.finished(job);
    }

    fn with_status<T>(&self, change: impl FnOnce(&mut BacklogStatus) -> T) -> T {
        change(&mut self.lock().status)
    }

    /// Stores what has changed. Blocks on the disk.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub fn save(&self) -> Result<(), StorageError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let content = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            file::Stored {
                ranges: state.ranges.clone(),
                verified_until_ms: state.status.verified_until_ms,
                promoted_until_ms: state.status.promoted_until_ms,
            }
        };
        self.file.store(&content).inspect_err(|_| self.lock().dirty = true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
