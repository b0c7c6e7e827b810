//! The cardinality guard: a soft limit of series per job and for the server. What exists goes on, what is new is refused.
//!
//! A series is what a scrape cache holds: what the target exposed at its last successful scrape and relabeling kept. Each
//! target has [`Seats`] for its series; a new series needs a free one of its target, or a further one of its job and of the
//! server. Series that matter, those that the selectors of `longterm` match, may use a reserve beyond both limits, so that
//! they are refused last. A target keeps its seats while its scrapes fail and over reloads, and gives back at a successful
//! scrape what it does not use, and everything when it goes.
//!
//! Refused series are remembered by the caches, so that they cost next to nothing until there is room, and `growth` counts
//! what is new, in bounded memory, so that the API and the log can name what grows. Without a limit there are no seats, and
//! nothing is counted.
//!
//! Invariants: a count is the sum of the seats of all targets; it exceeds limit and reserve only by what was there before the
//! limit.

mod growth;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use model::{Clock, Labels, Matcher};
use parking_lot::{Mutex, RwLock};

use growth::Growth;
pub use growth::{GrowingLabel, GrowingMetric};

/// Time between two messages about one job.
const WARN_INTERVAL_MS: i64 = 10 * 60 * 1000;
/// Metrics and labels that a message names.
const WARN_NAMES: usize = 3;

/// A soft limit of series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftLimit {
    /// Series from which new ones are refused; 0 for no limit.
    pub series: usize,
    /// How many more there may be of those that `longterm` selects.
    pub reserve: usize,
}

/// Limits of the whole server, and which series are refused last.
#[derive(Clone, Debug, Default)]
pub struct ServerLimit {
    /// The limit over all jobs.
    pub limit: SoftLimit,
    /// A series that any of these sets selects may use the reserves.
    pub selectors: Vec<Vec<Matcher>>,
}

/// Whether a cache has been told to leave a series out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has not.
    #[default]
    None,
    /// It may come in below the limit.
    Plain,
    /// It may come in below limit and reserve.
    Tagged,
}

/// What is used and what there is.
#[derive(Debug, Default)]
struct Count {
    used: AtomicI64,
    limit: AtomicI64,
    /// Limit and reserve.
    limit_tagged: AtomicI64,
}

impl Count {
    fn set(&self, limit: SoftLimit) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.limit.store(number(limit.series), Relaxed);
        self.limit_tagged.store(number(limit.series.saturating_add(limit.reserve)), Relaxed);
    }

    fn most(&self, tagged: bool) -> i64 {
        match self.limit.load(Relaxed) {
            0 => i64::MAX,
            _ if tagged => self.limit_tagged.load(Relaxed),
            limit => limit,
        }
    }

    fn has_room(&self, tagged: bool) -> bool {
        self.used.load(Relaxed) < self.most(tagged)
    }

    fn take(&self, tagged: bool) -> bool {
        let most = self.most(tagged);
        self.used.fetch_update(Relaxed, Relaxed, |used| (used < most).then_some(used + 1)).is_ok()
    }

    fn add(&self, n: i64) {
        self.used.fetch_add(n, Relaxed);
    }

    fn soft_limit(&self) -> SoftLimit {
        let number = |n: i64| usize::try_from(n).unwrap_or(0);
        let (limit, tagged) = (self.limit.load(Relaxed), self.limit_tagged.load(Relaxed));
        SoftLimit { series: number(limit), reserve: number(tagged - limit) }
    }
}

/// What all jobs share.
#[derive(Debug, Default)]
struct Server {
    count: Count,
    selectors: RwLock<Arc<[Vec<Matcher>]>>,
}

/// The guard of one job.
pub(crate) struct JobGuard {
    job: String,
    count: Count,
    server: Arc<Server>,
    clock: Arc<dyn Clock>,
    /// The job is there and has a limit, or the server has.
    on: AtomicBool,
    /// Series that the targets expose and that are left out now.
    refused_now: AtomicI64,
    /// Series refused for a limit of the job, and for one of the server.
    refused_total: [AtomicU64; 2],
    growth: Mutex<Growth>,
    warned_ms: AtomicI64,
}

impl std::fmt::Debug for JobGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobGuard").field("job", &self.job).field("count", &self.count).finish_non_exhaustive()
    }
}

/// The guards of all jobs.
pub(crate) struct Guard {
    server: Arc<Server>,
    clock: Arc<dyn Clock>,
    jobs: Mutex<BTreeMap<String, Arc<JobGuard>>>,
}

/// How a limit stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitStatus {
    /// The limit; `series` is 0 when there is none.
    pub limit: SoftLimit,
    /// Series that count.
    pub used: usize,
}

/// How a job stands.
#[derive(Clone, Debug)]
pub struct JobCardinality {
    /// The job.
    pub job: String,
    /// Its limit.
    pub limit: LimitStatus,
    /// Series that its targets expose and that are left out now.
    pub refused: usize,
    /// Series that were refused since the start for the job's limit.
    pub refused_for_job: u64,
    /// And for the server's.
    pub refused_for_server: u64,
    /// New series of the last hour, the refused ones included.
    pub new_in_last_hour: u64,
    /// Seconds that the lists look back.
    pub window_seconds: u64,
    /// Metrics with most new series, first the one with most.
    pub metrics: Vec<GrowingMetric>,
    /// Labels with most values in new series, first the one with most.
    pub labels: Vec<GrowingLabel>,
}

/// How all limits stand.
#[derive(Clone, Debug, Default)]
pub struct Cardinality {
    /// Over all jobs that are counted.
    pub server: LimitStatus,
    /// Jobs that have a limit; all when the server has one. Sorted by name.
    pub jobs: Vec<JobCardinality>,
}

// === impl Guard ===

impl Guard {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { server: Arc::default(), clock, jobs: Mutex::default() }
    }

    /// Puts limits in force: the server's, and those of the jobs that there are.
    pub(crate) fn set(&self, server: ServerLimit, jobs: impl IntoIterator<Item = (String, SoftLimit)>) {
        self.server.count.set(server.limit);
        *self.server.selectors.write() = server.selectors.into();
        let mut known = self.jobs.lock();
        known.values().for_each(|guard| guard.on.store(false, Relaxed));
        for (job, limit) in jobs {
            let guard = known.entry(job).or_insert_with_key(|job| Arc::new(self.job(job)));
            guard.count.set(limit);
            guard.on.store(limit.series > 0 || server.limit.series > 0, Relaxed);
        }
        // Targets of a job that is gone still give back their seats.
        known.retain(|_, guard| guard.on.load(Relaxed) || Arc::strong_count(guard) > 1);
    }

    fn job(&self, job: &str) -> JobGuard {
        JobGuard {
            job: job.to_owned(),
            count: Count::default(),
            server: Arc::clone(&self.server),
            clock: Arc::clone(&self.clock),
            on: AtomicBool::new(false),
            refused_now: AtomicI64::new(0),
            refused_total: Default::default(),
            growth: Mutex::default(),
            warned_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// The guard of a job, made without a limit when it is not known.
    pub(crate) fn of(&self, job: &str) -> Arc<JobGuard> {
        let mut known = self.jobs.lock();
        if let Some(guard) = known.get(job) {
            return Arc::clone(guard);
        }
        let guard = Arc::new(self.job(job));
        known.insert(job.to_owned(), Arc::clone(&guard));
        guard
    }

    /// How everything stands, with at most `names` metrics and labels per job.
    pub(crate) fn status(&self, names: usize) -> Cardinality {
        let jobs: Vec<Arc<JobGuard>> = self.jobs.lock().values().cloned().collect();
        let jobs = jobs.iter().filter(|job| job.on.load(Relaxed)).map(|job| job.status(names));
        Cardinality { server: status(&self.server.count), jobs: jobs.collect() }
    }
}

fn status(count: &Count) -> LimitStatus {
    LimitStatus { limit: count.soft_limit(), used: usize::try_from(count.used.load(Relaxed)).unwrap_or(0) }
}

// === impl JobGuard ===

impl JobGuard {
    /// The seats of a target at the beginning of a scrape whose cache holds so many series; none without a limit.
    pub(crate) fn seats(self: &Arc<Self>, seats: &mut Option<Arc<Seats>>, held: usize) -> Option<Arc<Seats>> {
        if !self.on.load(Relaxed) {
            *seats = None;
            return None;
        }
        // A job of another name has another guard.
        if seats.as_ref().is_some_and(|seats| !Arc::ptr_eq(&seats.job, self)) {
            *seats = None;
        }
        let seats = seats.get_or_insert_with(|| Arc::new(Seats::new(Arc::clone(self))));
        seats.open(held);
        Some(Arc::clone(seats))
    }

    fn add(&self, n: i64) {
        self.count.add(n);
        self.server.count.add(n);
    }

    fn is_tagged(&self, labels: &Labels) -> bool {
        let selectors = Arc::clone(&self.server.selectors.read());
        selectors.iter().any(|set| set.iter().all(|m| m.matches(labels.value(&m.name))))
    }

    /// A seat for a new series. Tagged ones are looked for only where it matters.
    fn take(&self, labels: &Labels) -> Refusal {
        let mut tagged = None;
        let mut is_tagged = || *tagged.get_or_insert_with(|| self.is_tagged(labels));
        let mut has = |count: &Count| count.take(false) || (is_tagged() && count.take(true));
        let refused_for = if !has(&self.count) {
            Some(0)
        } else if !has(&self.server.count) {
            self.count.add(-1);
            Some(1)
        } else {
            None
        };
        self.growth.lock().note(labels, refused_for.is_some(), self.clock.now_ms());
        match refused_for {
            None => Refusal::None,
            Some(reason) => {
                self.refused_total[reason].fetch_add(1, Relaxed);
                if is_tagged() { Refusal::Tagged } else { Refusal::Plain }
            }
        }
    }

    fn has_room(&self, refusal: Refusal) -> bool {
        let tagged = refusal == Refusal::Tagged;
        self.count.has_room(tagged) && self.server.count.has_room(tagged)
    }

    fn status(&self, names: usize) -> JobCardinality {
        let growth = self.growth.lock().report(names, self.clock.now_ms());
        JobCardinality {
            job: self.job.clone(),
            limit: status(&self.count),
            refused: usize::try_from(self.refused_now.load(Relaxed)).unwrap_or(0),
            refused_for_job: self.refused_total[0].load(Relaxed),
            refused_for_server: self.refused_total[1].load(Relaxed),
            new_in_last_hour: growth.new_in_last_hour,
            window_seconds: growth.window_seconds,
            metrics: growth.metrics,
            labels: growth.labels,
        }
    }

    /// Says that series are refused and what grows, now and then.
    fn warn(&self) {
        let now_ms = self.clock.now_ms();
        let due = |warned: i64| (now_ms.saturating_sub(warned) >= WARN_INTERVAL_MS).then_some(now_ms);
        if self.warned_ms.fetch_update(Relaxed, Relaxed, due).is_err() {
            return;
        }
        let s = self.status(WARN_NAMES);
        let metrics: Vec<_> = s.metrics.iter().map(|m| format!("{} ({} new)", m.name, m.new)).collect();
        let labels: Vec<_> = s.labels.iter().map(|l| format!("{} ({} values)", l.name, l.values)).collect();
        tracing::warn!(
            scrape_pool = self.job,
            series = s.limit.used,
            limit = s.limit.limit.series,
            server_limit = self.server.count.soft_limit().series,
            refused = s.refused,
            metrics = metrics.join(", "),
            labels = labels.join(", "),
            "new series are refused because of series_soft_limit or server_series_soft_limit"
        );
    }
}

// === Seats ===

/// The seats of one target. They are given back when this is dropped.
#[derive(Debug)]
pub struct Seats {
    job: Arc<JobGuard>,
    held: AtomicI64,
    /// Seats that no series of the cache has.
    spare: AtomicI64,
    /// Series left out at the last scrape.
    refused: AtomicI64,
}

impl Drop for Seats {
    fn drop(&mut self) {
        self.job.add(-self.held.load(Relaxed));
        self.job.refused_now.fetch_sub(self.refused.load(Relaxed), Relaxed);
    }
}

impl Seats {
    fn new(job: Arc<JobGuard>) -> Self {
        Self { job, held: 0.into(), spare: 0.into(), refused: 0.into() }
    }

    /// What the cache holds has seats, also beyond the limit.
    fn open(&self, cached: usize) {
        let (held, cached) = (self.held.load(Relaxed), cached as i64);
        if cached > held {
            self.job.add(cached - held);
            self.held.store(cached, Relaxed);
        }
        self.spare.store((held - cached).max(0), Relaxed);
    }

    /// A seat for a series that the cache does not hold.
    pub(crate) fn take(&self, labels: &Labels) -> Refusal {
        let spare = self.spare.load(Relaxed);
        if spare > 0 {
            self.spare.store(spare - 1, Relaxed);
            return Refusal::None;
        }
        let refusal = self.job.take(labels);
        if refusal == Refusal::None {
            self.held.fetch_add(1, Relaxed);
        }
        refusal
    }

    /// Whether it is worth the while to ask again for one that was refused.
    #[inline]
    pub(crate) fn may_take(&self, refusal: Refusal) -> bool {
        self.spare.load(Relaxed) > 0 || self.job.has_room(refusal)
    }

    /// Gives back what a successful scrape left over, and notes how many series are left out.
    pub(crate) fn settle(&self, cached: usize, refused: usize) {
        let (held, cached) = (self.held.swap(cached as i64, Relaxed), cached as i64);
        self.job.add(cached - held);
        self.spare.store(0, Relaxed);
        let refused = refused as i64;
        self.job.refused_now.fetch_add(refused - self.refused.swap(refused, Relaxed), Relaxed);
        if refused > 0 {
            self.job.warn();
        }
    }
}
