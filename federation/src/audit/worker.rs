//! The continuous audit of one destination.
//!
//! It follows the settled point of the live lane: what lies before the lowest acknowledged time, and is not in the
//! backlog, must be there. Slices that are clean move *complete until*; a slice that lacks samples goes into the backlog
//! and is compared again once that is through. One that still lacks them after several times is passed, loudly, and
//! holds *complete until* back until it is clean. Now and then, and always at the settled point, it looks at old windows
//! again; a difference there takes it back to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{Matcher, StorageError};
use prometheus::{Gauge, IntCounter, IntGauge};
use tokio::sync::watch;
use wire::digest::{WINDOW_MS, window_start};

use super::{Auditor, Verdict};
use crate::backlog::{Backlog, LocalStore, NewRange, Reason};
use crate::queue::Acknowledged;
use crate::sender::Shared;
use crate::sender::metrics::Registrar;

/// How many windows are gone by before an old one is looked at again.
const RECHECK_EVERY: u32 = 6;
/// With less than this settled a request is not worth it.
const MIN_SLICE_MS: i64 = 60_000;
/// A slice that still lacks samples after so many repairs is passed, and looked at again later.
const MAX_REPAIRS: u32 = 3;
/// Series that are named in a repair; with more, all that is selected is sent again.
const MAX_NAMED_IN_REPAIR: u64 = 20;

/// Gauges and counters of the audit.
#[derive(Debug)]
pub(crate) struct AuditMetrics {
    complete_until: Gauge,
    pub(crate) lag: Gauge,
    windows: IntCounter,
    samples: IntCounter,
    differing: IntCounter,
    missing: IntCounter,
    different: IntCounter,
    errors: IntCounter,
    unrepaired: IntGauge,
}

impl AuditMetrics {
    pub(crate) fn register(r: &mut Registrar<'_>) -> prometheus::Result<Self> {
        const A: &str = "almanac_longterm_";
        let name = |suffix: &str| format!("{A}{suffix}");
        Ok(Self {
            complete_until: r.gauge(
                &name("complete_until_timestamp_seconds"),
                "Every selected local sample before this time is known to be in the long-term node; 0 when nothing is known yet.",
            )?,
            lag: r.gauge(
                &name("complete_until_lag_seconds"),
                "How far that lies behind now.",
            )?,
            windows: r.int_counter(&name("audit_slices_total"), "Slices of windows compared.")?,
            samples: r.int_counter(&name("audit_samples_total"), "Local samples compared.")?,
            differing: r.int_counter(&name("audit_differing_total"), "Slices in which the long-term node lacked samples.")?,
            missing: r.int_counter(&name("audit_missing_samples_total"), "Samples that it lacked; they go into the backlog.")?,
            different: r.int_counter(
                &name("audit_different_samples_total"),
                "Samples for which it has another value; it keeps the one that came first.",
            )?,
            errors: r.int_counter(&name("audit_errors_total"), "Comparisons that could not be made.")?,
            unrepaired: r.int_gauge(
                &name("audit_unrepaired"),
                "Slices that lack samples although they were sent several times.",
            )?,
        })
    }
}

/// Audits one destination.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) store: Arc<dyn LocalStore>,
    pub(crate) auditor: Arc<Auditor>,
    pub(crate) position: watch::Receiver<Acknowledged>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) metrics: Arc<AuditMetrics>,
    pub(crate) interval: Duration,
    pub(crate) state: State,
}

/// What it remembers beside *complete until*.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Begin of the next slice; `None` before the first.
    next: Option<i64>,
    /// Next old window to look at again.
    recheck: i64,
    ticks: u32,
    /// The slice that was repaired last, and how often.
    repairs: (i64, u32),
    /// Begins of slices that were passed although they lack samples.
    unrepaired: BTreeSet<i64>,
}

impl Worker {
    /// Works until told to stop.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                _ = self.stop.wait_for(|stop| *stop) => return,
            }
            // Blocks, so it is done beside; nothing else touches the state.
            let stepped = tokio::task::spawn_blocking(move || {
                let outcome = self.step();
                (self, outcome)
            });
            let outcome;
            (self, outcome) = match stepped.await {
                Ok(both) => both,
                Err(e) => {
                    if e.is_panic() {
                        tracing::error!(error = %e, "the audit failed; it goes on after the next reload or start");
                    }
                    return;
                }
            };
            if let Err(e) = outcome {
                self.metrics.errors.inc();
                tracing::debug!(destination = self.shared.config.name, error = %e, "the audit could not compare");
            }
        }
    }

    /// Compares the next slice, if there is one.
    fn step(&mut self) -> Result<(), StorageError> {
        let result = self.next_slice();
        if let Some(t) = self.complete_until() {
            self.backlog.set_verified_until(Some(t));
        }
        self.metrics.unrepaired.set(i64::try_from(self.state.unrepaired.len()).unwrap_or(i64::MAX));
        let until = self.backlog.status().verified_until_ms;
        self.metrics.complete_until.set(until.map_or(0.0, |t| t as f64 / 1000.0));
        let lag_ms = until.map_or(0, |t| self.shared.clock.now_ms().saturating_sub(t));
        self.metrics.lag.set(lag_ms as f64 / 1000.0);
        result
    }

    fn next_slice(&mut self) -> Result<(), StorageError> {
        let (Some(times), Some(local_min)) = (self.position.borrow().times, self.store.min_time()) else {
            return Ok(());
        };
        // What is to be sent yet is known to be missing.
        let settled = self.backlog.earliest_ms().map_or(times.low_ms, |t| t.min(times.low_ms));
        let next = self.state.next.or_else(|| self.backlog.status().verified_until_ms).unwrap_or(i64::MIN);
        let from = next.max(local_min);
        let to = window_start(from).saturating_add(WINDOW_MS).min(settled);
        self.state.ticks = self.state.ticks.wrapping_add(1);
        // The rest of a window may be short; what counts is how much is settled.
        let worth_it = settled.saturating_sub(from) >= MIN_SLICE_MS && to > from;
        if worth_it && !self.state.ticks.is_multiple_of(RECHECK_EVERY) {
            if self.slice(from, to)? {
                self.state.next = Some(to);
            }
            return Ok(());
        }
        // An old window again; of the newest one what was looked at, or nobody would come back to it once nothing is
        // scraped any more.
        let from = self.state.recheck.max(local_min);
        let to = window_start(from).saturating_add(WINDOW_MS).min(next).min(settled);
        if to <= from {
            self.state.recheck = i64::MIN;
            return Ok(());
        }
        self.state.recheck = to;
        if !self.slice(from, to)? {
            self.state.next = Some(from);
        }
        Ok(())
    }

    /// Compares a slice; says whether to go on behind it.
    fn slice(&mut self, from: i64, to: i64) -> Result<bool, StorageError> {
        let verdict = self.auditor.window(from, to - 1)?;
        let m = &self.metrics;
        m.windows.inc();
        m.samples.inc_by(verdict.samples);
        m.different.inc_by(verdict.different);
        let destination = &self.shared.config.name;
        if verdict.different > 0 {
            tracing::warn!(
                destination,
                from_ms = from,
                to_ms = to,
                samples = verdict.different,
                "the long-term node has other values than the local store"
            );
        }
        if verdict.missing == 0 {
            self.state.unrepaired.retain(|t| !(from..to).contains(t));
            return Ok(true);
        }
        m.differing.inc();
        m.missing.inc_by(verdict.missing);
        tracing::error!(
            destination,
            from_ms = from,
            to_ms = to,
            samples = verdict.missing,
            series = verdict.missing_series,
            "the long-term node lacks samples; they are sent again"
        );
        let times = if self.state.repairs.0 == from { self.state.repairs.1 + 1 } else { 1 };
        self.state.repairs = (from, times);
        // Sent over and over it would hold up the rest; the next round of old windows tries again.
        let pass = times > MAX_REPAIRS || self.state.unrepaired.contains(&from);
        if pass {
            self.state.unrepaired.insert(from);
        }
        self.backlog.enqueue(self.repair(&verdict, from, to))?;
        Ok(pass)
    }

    /// Everything before is known to be there.
    fn complete_until(&self) -> Option<i64> {
        let first = self.state.unrepaired.first().copied();
        match (self.state.next, first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn repair(&self, verdict: &Verdict, from: i64, to: i64) -> NewRange {
        let exactly =
            |l: &model::Labels| -> Vec<Matcher> { l.iter().map(|(n, v)| Matcher::equal(n, v)).collect() };
        let named = verdict.missing_series <= MAX_NAMED_IN_REPAIR
            && verdict.affected.len() as u64 == verdict.missing_series;
        let selectors = if named {
            verdict.affected.iter().map(exactly).collect()
        } else {
            self.shared.config.matchers.clone()
        };
        NewRange { reason: Reason::Audit, selectors, strip: Vec::new(), mint: from, maxt: to - 1 }
    }
}
