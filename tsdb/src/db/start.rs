//! Starting: the write-ahead log is replayed by a thread of its own; then what came meanwhile is committed, and batches go to
//! the head.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::StorageError;
use parking_lot::{Condvar, Mutex};

use super::journal::Journal;
use super::{Db, HeadSlot, WAL_DIR};
use crate::config::Config;
use crate::dir;
use crate::error::Error;
use crate::head::Head;
use crate::head::late::WBL_DIR;
use crate::head::replay::Replay;
use crate::metrics::Metrics;
use crate::wal::Wal;
use crate::wal::reader::Progress;
use crate::wal::segment::{self, Content};

/// What earlier processes left in the logs, as far as durability goes.
enum Left {
    /// A process that was killed left it with the operating system. An fsync has failed for these, and nothing on the disk says so.
    Unsynced(Vec<PathBuf>),
    Synced,
    /// The write-ahead log that was begun after it sees to it.
    Behind(Arc<Wal>),
}

/// How far the start is.
pub(super) struct Start {
    pub(super) journal: Arc<Journal>,
    progress: Progress,
    /// Samples before are in blocks.
    min_valid: i64,
    /// `wal` and `wbl`.
    log_dirs: [PathBuf; 2],
    left: Mutex<Left>,
    outcome: Mutex<Option<Result<(), StorageError>>>,
    ended: Condvar,
}

impl Start {
    pub(super) fn new(dir: &Path, journal: Arc<Journal>, min_valid: i64) -> Self {
        Self {
            journal,
            progress: Progress::default(),
            min_valid,
            log_dirs: [WAL_DIR, WBL_DIR].map(|name| dir.join(name)),
            left: Mutex::new(Left::Unsynced(Vec::new())),
            outcome: Mutex::new(None),
            ended: Condvar::new(),
        }
    }

    /// Gives up the replay.
    pub(super) fn stop(&self) {
        self.progress.stop();
    }

    /// Waits for the end of the replay.
    pub(super) fn wait(&self) -> Result<(), StorageError> {
        let mut outcome = self.outcome.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            self.ended.wait(&mut outcome);
        }
    }

    /// Begins the write-ahead log when it has been replayed.
    fn begin_log(
        &self,
        late: &HashMap<u32, Content>,
        create: impl FnOnce() -> Result<Wal, StorageError>,
    ) -> Result<Arc<Wal>, StorageError> {
        let mut left = self.left.lock();
        if let Left::Unsynced(unmarked) = &*left {
            unmarked.iter().try_for_each(|p| segment::mark_to_be_rewritten(p))?;
        }
        let [_, wbl_dir] = &self.log_dirs;
        if dir::exists(wbl_dir) {
            // The log of late samples is begun anew with the first one only; a sync before that would not know what is there.
            segment::sync_all(wbl_dir, late)?;
        }
        let wal = Arc::new(create()?);
        *left = Left::Behind(wal.clone());
        Ok(wal)
    }

    /// Makes durable what was in the write-ahead log, and what earlier processes left in that of late samples, also while they are
    /// being replayed.
    pub(super) fn sync_logs(&self) -> Result<(), StorageError> {
        let mut left = self.left.lock();
        match &mut *left {
            Left::Unsynced(unmarked) => {
                let is_under_way = self.outcome.lock().is_none();
                if !is_under_way {
                    unmarked.iter().try_for_each(|p| segment::mark_to_be_rewritten(p))?;
                }
                for dir in self.log_dirs.iter().filter(|d| dir::exists(d)) {
                    if is_under_way {
                        segment::sync_left(dir, unmarked)?;
                    } else {
                        segment::sync_all(dir, &HashMap::new())?;
                    }
                }
                *left = Left::Synced;
                Ok(())
            }
            Left::Synced => Ok(()),
            Left::Behind(wal) => wal.sync(),
        }
    }

    fn run(
        &self,
        config: &Config,
        metrics: &Arc<Metrics>,
        slot: &HeadSlot,
        done: impl FnOnce(&Head),
    ) -> Result<(), StorageError> {
        let [wal_dir, _] = &self.log_dirs;
        let (replay, files, log) = Replay::run(wal_dir, config, self.min_valid, (metrics, &self.progress))?;
        let create =
            || Ok(Wal::create(wal_dir, config, log.next_segment, metrics.wal())?.after_reading(log.contents));
        let wal = self.begin_log(&replay.late.contents, create)?;
        let head = Arc::new(Head::new(config, self.min_valid, (wal, files), replay, metrics.clone()));
        self.journal.pass_to(&head, &self.progress, || {
            let _ = slot.0.set(head.clone()); // Nobody else sets it.
            done(&head);
        })
    }
}

impl Db {
    /// Starts the thread that replays.
    pub(super) fn spawn_replay(self: &Arc<Self>) -> Result<(), Error> {
        let (start, slot, lock) = (self.start.clone(), self.head.clone(), self._lock.clone());
        let (config, clock, metrics) = (self.config.clone(), self.clock.clone(), self.metrics.clone());
        let late_window_ms = self.late_window_ms.clone();
        let run = move || {
            let from = clock.monotonic();
            let done = |head: &Head| {
                metrics.replay_duration.set((clock.monotonic() - from).as_secs_f64());
                head.set_late_window(late_window_ms.load(Ordering::SeqCst));
            };
            let run = || start.run(&config, &metrics, &slot, done);
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
                let reason = "the replay panicked: the log says where".to_owned();
                Err(StorageError::Unavailable { who: "local storage".into(), reason })
            });
            drop(lock);
            *start.outcome.lock() = Some(outcome);
            start.ended.notify_all();
        };
        let thread = std::thread::Builder::new().name("tsdb-replay".into()).spawn(run);
        thread.map(drop).map_err(|e| StorageError::io("start thread", &self.config.dir, &e).into())
    }

    /// Waits until the write-ahead log has been replayed and the head is there.
    ///
    /// # Errors
    /// When the log cannot be read, or the database was closed.
    pub fn wait_ready(&self) -> Result<(), Error> {
        self.start.wait()?;
        self.show_sizes().map_err(Error::from)
    }

    /// Waits until the replay is held up ([`crate::sim::gate::held`]), or has ended.
    #[cfg(test)]
    pub(crate) fn wait_held(&self) {
        while !self.start.progress.gate.is_reached() && self.start.outcome.lock().is_none() {
            std::thread::yield_now();
        }
    }

    /// Lets a replay go on that is held up.
    #[cfg(test)]
    pub(crate) fn let_go(&self) {
        self.start.progress.gate.open();
    }

    /// Whether the write-ahead log has been replayed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.head.0.get().is_some()
    }

    /// How far the replay is: number of the first and the last segment, and of the last one that is through.
    #[must_use]
    pub fn replay_progress(&self) -> (u32, u32, u32) {
        self.start.progress.get()
    }
}
