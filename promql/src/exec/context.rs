//! What all operators of one query share: limits, settings, annotations.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use model::{Clock, Labels, Querier, Resolutions, Series};
use parking_lot::Mutex;

use crate::annotations::{Note, Notes};
use crate::engine::{CancelToken, EngineConfig};
use crate::error::{QueryError, Result};
use crate::exec::memory::MemoryAccount;
use crate::exec::source::rollup_of;
use crate::exec::tally::Tallies;
use crate::plan::node::Site;

/// Cells that the operators of any query may have in a row each, however few samples it may hold: 128 MiB.
const ROW_CELLS_MIN: u64 = 1 << 24;

/// The stage that is named when a limit is hit.
const STAGE: &str = "query execution";
const EVALUATION: &str = "expression evaluation";

/// Shared state of a running query.
pub(crate) struct Context<'q> {
    pub(crate) querier: &'q dyn Querier,
    pub(crate) config: &'q EngineConfig,
    pub(crate) lookback_ms: i64,
    pub(crate) threads: usize,
    /// Where in a trace the evaluation is.
    pub(crate) trace: model::trace::Link,
    clock: &'q dyn Clock,
    /// By the monotonic clock.
    deadline: Duration,
    cancel: Option<CancelToken>,
    row_cells: AtomicU64,
    samples_now: AtomicU64,
    samples_peak: AtomicU64,
    /// Bytes held, against the budget.
    pub(crate) memory: MemoryAccount,
    /// Samples looked at.
    pub(crate) tallies: Tallies,
    sort_nanos: AtomicU64,
    /// What the series at hand were made of.
    resolutions: AtomicU8,
    notes: Mutex<Notes>,
    storage_warnings: Mutex<Vec<String>>,
}

impl<'q> Context<'q> {
    pub(crate) fn new(
        querier: &'q dyn Querier,
        config: &'q EngineConfig,
        clock: &'q dyn Clock,
        deadline: Duration,
        cancel: Option<CancelToken>,
        lookback_ms: i64,
        tallies: Tallies,
    ) -> Self {
        let threads = match config.worker_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        Self {
            querier,
            config,
            lookback_ms,
            threads,
            trace: model::trace::Link::default(),
            clock,
            deadline,
            cancel,
            row_cells: AtomicU64::new(0),
            samples_now: AtomicU64::new(0),
            samples_peak: AtomicU64::new(0),
            memory: MemoryAccount::new(config.max_memory_bytes),
            tallies,
            sort_nanos: AtomicU64::new(0),
            resolutions: AtomicU8::new(0),
            notes: Mutex::default(),
            storage_warnings: Mutex::default(),
        }
    }

    /// Fails when the query was cancelled or its time is up. Called between batches and series.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            return Err(QueryError::Canceled(EVALUATION));
        }
        if self.clock.monotonic() > self.deadline {
            return Err(QueryError::Timeout(EVALUATION));
        }
        Ok(())
    }

    /// Counts the row of cells that an operator has at the least, empty ones too, as long as the query runs: a subquery can
    /// ask for more steps than there is memory.
    pub(crate) fn reserve_row(&self, steps: usize) -> Result<()> {
        let limit = self.config.max_samples.max(ROW_CELLS_MIN);
        let before = self.row_cells.fetch_add((steps as u64).min(limit + 1), Ordering::Relaxed);
        if before + steps as u64 > limit {
            return Err(QueryError::TooManySamples(STAGE));
        }
        Ok(())
    }

    /// Counts samples that are held from now on.
    pub(crate) fn hold(&self, samples: u64) -> Result<()> {
        let now = self.samples_now.fetch_add(samples, Ordering::Relaxed) + samples;
        self.samples_peak.fetch_max(now, Ordering::Relaxed);
        if now > self.config.max_samples {
            return Err(QueryError::TooManySamples(STAGE));
        }
        Ok(())
    }

    /// Counts samples that are no longer held.
    pub(crate) fn release(&self, samples: u64) {
        // Never below zero, whatever order operators are dropped in.
        let _ = self
            .samples_now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(samples)));
    }

    /// Does the sorting of an answer and counts the time that it takes.
    pub(crate) fn sorting<T>(&self, sort: impl FnOnce() -> T) -> T {
        let begin = self.clock.monotonic();
        let sorted = sort();
        let nanos = self.clock.monotonic().saturating_sub(begin).as_nanos();
        self.sort_nanos.fetch_add(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        sorted
    }

    pub(crate) fn sort_seconds(&self) -> f64 {
        Duration::from_nanos(self.sort_nanos.load(Ordering::Relaxed)).as_secs_f64()
    }

    pub(crate) fn samples_peak(&self) -> u64 {
        self.samples_peak.load(Ordering::Relaxed)
    }

    /// Notes whether a series comes as samples or summed up.
    pub(crate) fn count_resolution(&self, series: &Series) {
        let here = match rollup_of(series) {
            Some(rollup) => rollup.resolutions,
            None if series.chunks.is_empty() => return,
            None => Resolutions::RAW,
        };
        self.resolutions.fetch_or(here.bits(), Ordering::Relaxed);
    }

    /// What all series that were read were made of; samples when there was none.
    pub(crate) fn resolutions(&self) -> Resolutions {
        let all = Resolutions::from_bits(self.resolutions.load(Ordering::Relaxed));
        if all.is_empty() { Resolutions::RAW } else { all }
    }

    /// Adds an annotation.
    pub(crate) fn note(&self, site: Site, note: Note<'_>) {
        self.notes.lock().add(site, note);
    }

    /// Adds annotations collected elsewhere.
    pub(crate) fn merge_notes(&self, notes: Notes) {
        if !notes.is_empty() {
            self.notes.lock().merge(notes);
        }
    }

    pub(crate) fn take_notes(&self) -> Notes {
        std::mem::take(&mut *self.notes.lock())
    }

    pub(crate) fn warn_storage(&self, warnings: Vec<String>) {
        if !warnings.is_empty() {
            self.storage_warnings.lock().extend(warnings);
        }
    }

    pub(crate) fn take_storage_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.storage_warnings.lock())
    }

    /// Whether names are dropped at the end of the query only.
    pub(crate) fn delayed_names(&self) -> bool {
        self.config.delayed_name_removal
    }

    /// The labels that an operation which changes the meaning of its input gives: without name, type and unit, now or
    /// later.
    pub(crate) fn drop_name(&self, labels: &Labels) -> Labels {
        if self.delayed_names() { labels.clone() } else { without_metadata(labels) }
    }
}

/// The labels without name, type and unit.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    use model::labels::{METRIC_NAME, TYPE_LABEL, UNIT_LABEL};
    labels.filter(|n| !matches!(n, METRIC_NAME | TYPE_LABEL | UNIT_LABEL))
}
