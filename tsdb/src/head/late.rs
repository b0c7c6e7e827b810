//! Late samples of the whole head: the window that takes them, their times, their log (`wbl`), and how they leave for blocks.
//!
//! The log of all samples has them too, but a replay of it cannot tell where they belong; theirs does. It is begun with the
//! first late sample, and its segments go when what they hold is in blocks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use model::StorageError;
use parking_lot::Mutex;

use super::Head;
use super::series::{HeadChunk, MemSeries};
use crate::config::Config;
use crate::dir;
use crate::metrics::{LogMetrics, Metrics};
use crate::wal::Wal;
use crate::wal::segment::Content;

/// Folder of the log, below the database's.
pub(crate) const WBL_DIR: &str = "wbl";

/// What replaying the log of late samples gave.
pub(crate) struct ReplayedLate {
    /// Number the next segment gets.
    pub(crate) next_segment: u32,
    /// What was read of its segments.
    pub(crate) contents: HashMap<u32, Content>,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
}

impl Default for ReplayedLate {
    fn default() -> Self {
        Self { next_segment: 0, contents: HashMap::new(), min_time: i64::MAX, max_time: i64::MIN }
    }
}

/// Late samples of the head.
pub(super) struct Late {
    window_ms: AtomicI64,
    /// Time of the oldest one, or a lower bound; `i64::MAX` when there is none.
    min_time: AtomicI64,
    max_time: AtomicI64,
    log: Mutex<Option<Arc<Wal>>>,
    /// Records that the log could not take.
    unlogged: Mutex<Vec<Vec<u8>>>,
    dir: PathBuf,
    next_segment: u32,
    config: Config,
    metrics: LogMetrics,
}

impl Late {
    pub(super) fn new(config: &Config, replayed: ReplayedLate, metrics: &Metrics) -> Self {
        Self {
            window_ms: AtomicI64::new(config.out_of_order_window_ms),
            min_time: AtomicI64::new(replayed.min_time),
            max_time: AtomicI64::new(replayed.max_time),
            log: Mutex::new(None),
            unlogged: Mutex::default(),
            dir: config.dir.join(WBL_DIR),
            next_segment: replayed.next_segment,
            config: config.clone(),
            metrics: metrics.wbl(),
        }
    }

    pub(super) fn window_ms(&self) -> i64 {
        self.window_ms.load(Ordering::SeqCst)
    }
}

/// The late samples that are about to be written into blocks.
pub(crate) struct Leaving {
    /// The series that have some, and their chunks, which overlap.
    pub(crate) series: Vec<(Arc<MemSeries>, Vec<HeadChunk>)>,
    /// The last segment of their log that holds nothing else.
    last_segment: Option<u32>,
}

impl Head {
    /// Takes samples that are late by at most so much from now on; 0: none.
    pub(crate) fn set_late_window(&self, window_ms: i64) {
        self.late.window_ms.store(window_ms.max(0), Ordering::SeqCst);
    }

    /// Times of the oldest (or a lower bound) and the newest late sample.
    pub(crate) fn late_range(&self) -> Option<(i64, i64)> {
        let min = self.late.min_time.load(Ordering::SeqCst);
        (min != i64::MAX).then(|| (min, self.late.max_time.load(Ordering::SeqCst)))
    }

    /// Whether there may be samples at or before `maxt`.
    pub(crate) fn reaches_back_to(&self, maxt: i64) -> bool {
        let late = self.late_range().map(|(min, _)| min);
        self.min_time().into_iter().chain(late).any(|t| t <= maxt)
    }

    pub(super) fn saw_late(&self, mint: i64, maxt: i64) {
        self.late.min_time.fetch_min(mint, Ordering::SeqCst);
        self.late.max_time.fetch_max(maxt, Ordering::SeqCst);
    }

    /// The log of late samples, begun when there is none yet.
    pub(super) fn late_log(&self) -> Result<Arc<Wal>, StorageError> {
        let mut log = self.late.log.lock();
        if let Some(log) = &*log {
            return Ok(log.clone());
        }
        let late = &self.late;
        dir::create_all(&late.dir)?;
        dir::sync(&late.config.dir)?;
        let begun = Wal::create(&late.dir, &late.config, late.next_segment, late.metrics.clone())?;
        Ok(log.insert(Arc::new(begun)).clone())
    }

    /// Writes records of samples that are in memory to the log of late samples. What it does not take waits for
    /// [`Head::log_rest_of_late`].
    pub(super) fn log_late_records(&self, records: Vec<Vec<u8>>) -> Result<(), StorageError> {
        let kept = records.clone();
        let done = self.late_log().and_then(|log| log.log(records));
        if done.is_err() {
            self.late.unlogged.lock().extend(kept);
        }
        done
    }

    /// Writes what the log of late samples did not take before. A batch must not be acknowledged when that fails: it may be
    /// one that is sent once more because it failed, and has nothing new.
    pub(super) fn log_rest_of_late(&self) -> Result<(), StorageError> {
        let mut rest = self.late.unlogged.lock();
        if !rest.is_empty() {
            self.late_log()?.log(rest.clone())?;
            rest.clear();
        }
        Ok(())
    }

    /// Makes late samples durable.
    pub(crate) fn sync_late(&self) -> Result<(), StorageError> {
        self.log_rest_of_late()?;
        let log = self.late.log.lock().clone();
        log.map_or(Ok(()), |log| log.sync())
    }

    /// Syncs the log of late samples and refuses more.
    pub(crate) fn close_late(&self) -> Result<(), StorageError> {
        self.log_rest_of_late()?;
        let log = self.late.log.lock().clone();
        log.map_or(Ok(()), |log| log.close())
    }

    /// Gives all late samples there are now, so that they can be written into blocks. They stay until
    /// [`Head::late_have_left`]. `None` when there is none.
    pub(crate) fn late_begin_leaving(&self) -> Result<Option<Leaving>, StorageError> {
        if self.late_range().is_none() {
            return Ok(None);
        }
        // First a new segment, then the samples: what is logged before is in memory before.
        let next = self.late_log()?.next_segment()?;
        let mut series = Vec::new();
        self.series.for_each(|s| {
            let mut state = s.state.lock();
            let mut chunks = match state.late_mut() {
                Some(late) => late.begin_leaving(self.form.encodings).to_vec(),
                None => return,
            };
            drop(state);
            chunks.sort_by_key(|c| c.mint);
            series.push((s.clone(), chunks));
        });
        self.series.sort(&mut series, |(s, _)| s);
        Ok(Some(Leaving { series, last_segment: next.checked_sub(1) }))
    }

    /// Drops late samples that are in blocks now, and what their log has of them.
    pub(crate) fn late_have_left(&self, leaving: &Leaving) -> Result<(), StorageError> {
        // Their log first: as long as it has them, what is deleted of them must be remembered.
        let log = self.late_log()?;
        leaving.last_segment.map_or(Ok(()), |last| log.truncate(last))?;
        let mut dropped = 0;
        for (s, _) in &leaving.series {
            dropped += s.state.lock().late_have_left();
        }
        self.metrics.chunks_removed.inc_by(dropped as u64);
        self.metrics.head_chunks.sub(dropped as i64);
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        self.late.min_time.store(i64::MAX, Ordering::SeqCst);
        self.series.for_each(|s| {
            if let Some((a, b)) = s.state.lock().late().and_then(|l| l.range()) {
                (min, max) = (min.min(a), max.max(b));
            }
        });
        if min <= max {
            self.saw_late(min, max);
        }
        log.show_size()
    }
}
