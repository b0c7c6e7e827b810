//! What happens beside appends and queries: cutting the head's oldest range into blocks, truncating memory and log,
//! merging blocks, retention. One pass at a time, on a thread of its own ([`Db::start_maintenance`]).
//!
//! The head comes first: while it covers enough for a block, blocks are cut one after the other, and merging others waits.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::StorageError;
use parking_lot::{Condvar, Mutex};
use serde::Deserialize;

use super::{Db, Ordering, blocks};
use crate::block::Block;
use crate::block::meta::Meta;
use crate::compact;
use crate::dir;
use crate::error::Error;
use crate::head::isolation::Snapshot;
use crate::head::late::Leaving;

/// How long cutting a block waits for commits that are being applied, in steps of a millisecond. They take far less.
const SETTLE_STEPS_MAX: u32 = 30_000;
/// The log is truncated once so many blocks have been cut, and after the last one.
const CUTS_PER_TRUNCATION: u32 = 16;
/// After a pass that could not do all it should, the next one waits this long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Maintenance {
    /// The head may lose what is before this time as soon as readers up to this number are gone.
    truncation: Option<(i64, u64)>,
    /// Blocks cut, and the end of the newest, since the log was truncated.
    cut: Option<(u32, i64)>,
    /// Late samples that are in blocks; the head may lose them as soon as readers up to this number are gone.
    leaving: Option<(Leaving, u64)>,
}

/// Wakes and stops the maintenance thread.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    woken: bool,
    stopped: bool,
}

impl Signal {
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        if !state.woken {
            state.woken = true;
            self.changed.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until somebody wakes the thread, or for `timeout`; `false` when it is to end. `patient` does not let itself be
    /// woken.
    fn wait(&self, timeout: Duration, patient: bool) -> bool {
        let mut state = self.state.lock();
        if patient {
            self.changed.wait_while_for(&mut state, |s| !s.stopped, timeout);
        } else {
            self.changed.wait_while_for(&mut state, |s| !s.stopped && !s.woken, timeout);
        }
        state.woken = false;
        !state.stopped
    }
}

/// The file that names blocks which others have copied.
#[derive(Default, Deserialize)]
struct Uploaded {
    #[serde(default)]
    uploaded: Vec<String>,
}

impl Db {
    /// Starts a thread that calls [`Db::maintain`] every `interval`, and at once when the head is due. It ends when the
    /// database is closed or dropped.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start_maintenance(self: &Arc<Self>, interval: Duration) -> Result<(), Error> {
        let (signal, db) = (self.signal.clone(), Arc::downgrade(self));
        let run = move || {
            let mut patient = false;
            while signal.wait(if patient { RETRY_PAUSE.min(interval) } else { interval }, patient) {
                let Some(db) = Weak::upgrade(&db) else { return };
                if !db.is_ready() {
                    continue;
                }
                patient = match std::panic::catch_unwind(AssertUnwindSafe(|| db.maintain())) {
                    Ok(Ok(())) => db.head.compactable().is_some(),
                    Ok(Err(_)) if db.closed.load(Ordering::SeqCst) => return,
                    Err(_) => {
                        tracing::error!("maintenance of the local storage panicked; it is tried again");
                        true
                    }
                    Ok(Err(e)) => {
                        tracing::error!(error = %e, "maintenance of the local storage failed; it is tried again");
                        true
                    }
                };
            }
        };
        let thread = std::thread::Builder::new().name("tsdb-maintenance".into()).spawn(run);
        thread.map(drop).map_err(|e| StorageError::io("start thread", &self.config.dir, &e).into())
    }

    /// Cuts blocks from the head, drops what they hold from memory and log, merges blocks, and drops blocks by retention.
    /// Blocks the caller. Calls at the same time wait for each other.
    ///
    /// # Errors
    /// When files cannot be read or written. Nothing is lost; the next call tries again.
    pub fn maintain(&self) -> Result<(), Error> {
        self.check_ready()?;
        let mut state = self.maintenance.lock();
        self.metrics.compactions_triggered.inc();
        let done = self.run_maintenance(&mut state);
        match &done {
            Err(StorageError::Closed) => return Ok(()),
            Err(_) => self.metrics.compactions_failed.inc(),
            Ok(()) => {}
        }
        self.show_sizes()?;
        done.map_err(Error::from)
    }

    fn run_maintenance(&self, state: &mut Maintenance) -> Result<(), StorageError> {
        self.reload_blocks()?;
        self.finish_leaving(state)?;
        self.head.mend_chunks()?;
        self.head.store_chunks()?;
        let cut = self.cut_blocks(state);
        let late = if matches!(cut, Ok(true)) { self.cut_late(state) } else { Ok(()) };
        self.truncate_wal(state)?;
        cut?;
        late?;
        let taken = if self.head.is_snapshot_due()? { self.head.take_snapshot() } else { Ok(()) };
        self.drop_blocks()?;
        taken?;
        self.merge_blocks(state)
    }

    /// Drops late samples from the head once they are in blocks and nobody wants them there.
    fn finish_leaving(&self, state: &mut Maintenance) -> Result<(), StorageError> {
        let Some((leaving, reader)) = &state.leaving else { return Ok(()) };
        if self.head.isolation.is_reading(*reader, i64::MAX) {
            return Ok(());
        }
        self.head.late_have_left(leaving)?;
        state.leaving = None;
        Ok(())
    }

    /// Writes late samples into blocks, as Prometheus does when it has cut blocks of the others.
    fn cut_late(&self, state: &mut Maintenance) -> Result<(), StorageError> {
        if state.leaving.is_some() {
            return Ok(());
        }
        let Some(leaving) = self.head.late_begin_leaving()? else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        for block in
            self.writing(|| compact::late::cut_late(&self.head, &leaving, &self.config.dir, now_ms))?
        {
            tracing::info!(ulid = %block.ulid, mint = block.meta.min_time, maxt = block.meta.max_time,
                series = block.meta.stats.num_series, "block of late samples written");
            self.replace_blocks(&[], Some(block))?;
        }
        state.leaving = Some((leaving, self.head.isolation.last_reader()));
        self.finish_leaving(state)
    }

    /// Cuts blocks as long as there are any due. Gives whether there was one.
    fn cut_blocks(&self, state: &mut Maintenance) -> Result<bool, StorageError> {
        let mut cut = false;
        while self.finish_truncation(state) && self.cut_block(state)? {
            cut = true;
            if state.cut.is_some_and(|(n, _)| n >= CUTS_PER_TRUNCATION) {
                self.finish_truncation(state);
                self.truncate_wal(state)?;
            }
            self.check_open()?;
        }
        Ok(cut)
    }

    /// Whether no part of the head waits to be dropped any more.
    fn finish_truncation(&self, state: &mut Maintenance) -> bool {
        let Some((end, reader)) = state.truncation else { return true };
        if self.head.isolation.is_reading(reader, end) {
            return false;
        }
        self.head.set_restart_from(blocks::end_of_head(&self.blocks.load_full()));
        self.head.truncate_memory(end);
        state.truncation = None;
        true
    }

    fn truncate_wal(&self, state: &mut Maintenance) -> Result<(), StorageError> {
        let Some((_, end)) = state.cut.filter(|_| state.truncation.is_none()) else { return Ok(()) };
        self.head.truncate_wal(end)?;
        state.cut = None;
        Ok(())
    }

    /// Whether a block was due.
    fn cut_block(&self, state: &mut Maintenance) -> Result<bool, StorageError> {
        let Some((_, end)) = self.head.compactable() else { return Ok(false) };
        let commit = self.head.refuse_before(end);
        let mut steps = 0;
        while !self.head.is_settled(commit) {
            steps += 1;
            if steps > SETTLE_STEPS_MAX {
                return Err(StorageError::Unavailable {
                    who: "head".into(),
                    reason: "a commit takes too long: no block is cut this time".into(),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let now_ms = self.clock.now_ms();
        let (dir, all) = (&self.config.dir, Snapshot::everything());
        let block = self.writing(|| compact::cut_head(&self.head, dir, end, now_ms, &all, &self.metrics))?;
        if let Some(block) = block {
            tracing::info!(ulid = %block.ulid, mint = block.meta.min_time, maxt = block.meta.max_time,
                series = block.meta.stats.num_series, "block written");
            self.replace_blocks(&[], Some(block))?;
        }
        state.truncation = Some((end, self.head.isolation.last_reader()));
        state.cut = Some((state.cut.map_or(0, |(n, _)| n) + 1, end));
        Ok(true)
    }

    /// Writes a block, and counts that.
    pub(super) fn writing<T>(
        &self,
        write: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let timer = self.metrics.compaction_duration.start_timer();
        self.metrics.populating_block.set(1);
        let done = write();
        self.metrics.populating_block.set(0);
        self.metrics.compactions.inc();
        timer.observe_duration();
        done
    }

    /// Merges blocks as long as there are any due, and the head is not.
    fn merge_blocks(&self, state: &mut Maintenance) -> Result<(), StorageError> {
        let uploaded = self.uploaded();
        loop {
            self.check_open()?;
            if self.finish_truncation(state) && self.head.compactable().is_some() {
                self.signal.wake();
                return Ok(());
            }
            let blocks = self.blocks.load_full();
            let metas: Vec<Meta> = blocks.iter().map(|b| b.meta_now()).collect();
            // A block of late samples that reaches past what the head has cut would, merged with others, pass for one that has
            // all of its time: the next start would take nothing of that time from the log.
            let whole_end = metas.iter().filter(|m| m.is_from_whole_head()).map(|m| m.max_time).max();
            let is_covered = |m: &&Meta| m.is_from_whole_head() || Some(m.max_time) <= whole_end;
            let mut by_age: Vec<&Meta> = metas.iter().filter(is_covered).collect();
            by_age.sort_by(|a, b| a.ulid.cmp(&b.ulid));
            // Merging goes from old to new; past the first block that is not copied there would be holes.
            let waits = |m: &&Meta| {
                let waits = |u: &Vec<String>| m.compaction.level <= 1 && !u.contains(&m.ulid);
                uploaded.as_ref().is_some_and(waits)
            };
            let first = by_age.iter().position(waits).unwrap_or(by_age.len());
            let plan = compact::plan::plan(&by_age[..first], &self.ranges);
            if plan.is_empty() {
                return Ok(());
            }
            let chosen = plan.iter().filter_map(|i| blocks.iter().find(|b| b.meta.ulid == by_age[*i].ulid));
            self.merge(&chosen.cloned().collect::<Vec<_>>())?;
            self.show_sizes()?;
        }
    }

    /// Puts one block in the place of others, which come sorted by start.
    pub(super) fn merge(&self, blocks: &[Arc<Block>]) -> Result<(), StorageError> {
        let mut end = i64::MIN;
        let overlaps = blocks.iter().any(|b| {
            let overlaps = b.meta.min_time < end;
            end = end.max(b.meta.max_time);
            overlaps
        });
        self.metrics.vertical_compactions.inc_by(u64::from(overlaps));
        let stop = || self.closed.load(Ordering::Relaxed);
        let now_ms = self.clock.now_ms();
        let merged = self.writing(|| compact::merge::merge(blocks, &self.config.dir, now_ms, &stop));
        let merged = match merged {
            Ok(merged) => merged,
            Err(e) => {
                // The same would happen again. A full disk, on the other hand, gets better.
                if !matches!(e, StorageError::Closed | StorageError::Io { .. }) {
                    let is_damaged = |b: &&Arc<Block>| matches!(&e, StorageError::Corruption { path, .. } if path.starts_with(b.dir()));
                    match blocks.iter().find(is_damaged) {
                        Some(damaged) => damaged.set_failed()?,
                        None => blocks.iter().try_for_each(|b| b.set_failed())?,
                    }
                }
                return Err(e);
            }
        };
        let ulid = merged.as_ref().map(|b| b.ulid.to_string()).unwrap_or_default();
        tracing::info!(
            ulid,
            mint = blocks[0].meta.min_time,
            maxt = end,
            count = blocks.len(),
            "blocks merged"
        );
        self.replace_blocks(blocks, merged)
    }

    /// What the file of copied blocks says; `None` when nobody is waited for.
    fn uploaded(&self) -> Option<Vec<String>> {
        let path = self.config.delay_compact_file.as_ref()?;
        let text = dir::read(path).ok().flatten();
        let read = text.and_then(|t| serde_json::from_slice::<Uploaded>(&t).ok());
        if read.is_none() {
            tracing::warn!(path = %path.display(), "the file of uploaded blocks cannot be read: no block is waited for");
        }
        read.map(|u| u.uploaded)
    }
}
