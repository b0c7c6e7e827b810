//! One target in time: wait, fetch, append, report, again.
//!
//! A target is scraped at `offset + n * interval` of the wall clock, the offset being a hash of the target, so that load
//! is even and stays where it is over restarts and reloads. Waiting never drifts, because each wait is computed from the
//! clock; scrapes that could not be made in time are skipped. Timestamps within two milliseconds of the plan are the
//! planned ones, which compresses better.
//!
//! A loop waits nearly always, and there are as many as targets: a waiting one is its target, a few words, and what it
//! remembers of its last scrape. The schedule (`schedule.rs`) wakes it, and only a scrape under way has a task, buffers and
//! a request. What all loops of a job have in common is in [`Job`].
//!
//! Appending blocks (a commit may sync a file), so it runs on a blocking thread (`append_work.rs`), where the scrape ends.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::trace::{self, Span};
use model::{Appendable, Clock};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::append_work::AppendWork;
use crate::cardinality::{Guard, JobGuard, Seats};
use crate::client::{Clients, Fetched, JobClient};
use crate::config::ScrapeConfig;
use crate::error::ScrapeFailure;
use crate::failure_log::FailureLog;
use crate::manager::{ScrapeOptions, TargetHealth};
use crate::metrics::ScrapeMetrics;
use crate::report::Report;
use crate::sample_labels::SampleRules;
use crate::schedule::Schedule;
use crate::series_cache::SeriesCache;
use crate::target::Target;

/// What all loops share.
pub(crate) struct Services {
    pub(crate) storage: Arc<dyn Appendable>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: ScrapeMetrics,
    pub(crate) options: ScrapeOptions,
    pub(crate) clients: Clients,
    pub(crate) schedule: Arc<Schedule>,
    pub(crate) guard: Arc<Guard>,
    /// Open files by the paths that jobs name.
    pub(crate) failure_logs: Mutex<HashMap<PathBuf, FailureLog>>,
    pub(crate) offset_seed: u64,
}

/// What all loops of a job share.
pub(crate) struct Job {
    pub(crate) services: Arc<Services>,
    pub(crate) config: Arc<ScrapeConfig>,
    /// Those of each target, but for its labels.
    rules: SampleRules,
    client: JobClient,
    pub(crate) guard: Arc<JobGuard>,
    /// Targets and limit, when there are too many.
    over_limit: Mutex<Option<(usize, usize)>>,
}

impl Job {
    pub(crate) fn new(services: Arc<Services>, config: Arc<ScrapeConfig>) -> Self {
        let options = &services.options;
        let rules = SampleRules {
            type_and_unit_labels: options.type_and_unit_labels,
            append_metadata: options.append_metadata,
            starts: options.starts,
            ..SampleRules::new(&config, model::Labels::empty())
        };
        let client = JobClient::new(&services.clients, &config, &options.user_agent);
        let guard = services.guard.of(&config.job_name);
        Self { rules, client, guard, over_limit: Mutex::default(), services, config }
    }

    /// Lets all scrapes fail as long as the job has too many targets.
    pub(crate) fn set_over_limit(&self, over: Option<(usize, usize)>) {
        *self.over_limit.lock() = over;
    }
}

/// What a loop remembers between scrapes.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) cache: SeriesCache,
    pub(crate) report: Report,
    /// The cache before, when its labels no longer fit.
    pub(crate) outdated: Option<Box<SeriesCache>>,
    last_start: Option<Duration>,
    last_timestamp_ms: Option<i64>,
    body_len: usize,
    /// Connections to the target's own socket, when it has one.
    socket: Option<httpclient::Client>,
    /// Its series, where their number is limited.
    pub(crate) seats: Option<Arc<Seats>>,
}

/// A target's loop: from its making on it scrapes, until it is ended or hands over.
pub(crate) struct ScrapeLoop {
    pub(crate) target: Target,
    pub(crate) job: Arc<Job>,
    state: Mutex<State>,
}

/// There are as many loops as targets; strings and the memory of a scrape come on top.
const _: () = assert!(size_of::<ScrapeLoop>() <= 256);

struct State {
    /// When the next scrape is to begin.
    planned_ms: i64,
    stage: Stage,
}

enum Stage {
    /// It is in the schedule. No memory before the first scrape.
    Waiting(Option<Box<Memory>>),
    /// A scrape is under way, or a loop before this one has yet to hand over.
    Busy {
        /// Breaks a fetch off.
        abort: Arc<Notify>,
        /// Gets the memory when that is done; then the loop is over.
        heir: Option<oneshot::Sender<Option<Box<Memory>>>>,
    },
    Over,
}

impl ScrapeLoop {
    /// Starts a loop. It waits for `predecessor`, a loop of the same series, to finish, and goes on with its memory.
    pub(crate) fn start(job: Arc<Job>, target: Target, predecessor: Option<Arc<Self>>) -> Arc<Self> {
        let state = State { planned_ms: i64::MIN, stage: Stage::Waiting(None) };
        let new = Arc::new(Self { target, job, state: Mutex::new(state) });
        match predecessor {
            None => new.finish(None),
            Some(predecessor) => {
                let mut turn = Turn::begin(&new, &mut new.state.lock(), None);
                tokio::spawn(async move {
                    let left = predecessor.stop(Order::HandOver).await;
                    turn.inherit(left, &predecessor.job.config);
                });
            }
        }
        new
    }

    /// Ends the loop; returns once its stale markers are written.
    pub(crate) async fn end(self: Arc<Self>) {
        if let Some(memory) = self.stop(Order::End).await {
            self.write_stale_markers(memory).await;
        }
    }

    /// Stops the loop for good and returns what it remembers.
    async fn stop(&self, order: Order) -> Option<Box<Memory>> {
        let memory = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut state.stage, Stage::Over) {
                Stage::Waiting(memory) => {
                    drop(state);
                    self.job.services.schedule.note_ended();
                    return memory;
                }
                Stage::Busy { abort, .. } => {
                    if order == Order::End {
                        abort.notify_one();
                    }
                    let (heir, memory) = oneshot::channel();
                    state.stage = Stage::Busy { abort, heir: Some(heir) };
                    memory
                }
                Stage::Over => return None,
            }
        };
        // Each turn tells, also one that breaks down.
        memory.await.unwrap_or_default()
    }

    /// The schedule's word that the time may have come.
    pub(crate) fn woken(self: Arc<Self>) {
        let (interval_ms, services) = (self.target.interval_ms, &self.job.services);
        let now_ms = services.clock.now_ms();
        let mut state = self.state.lock();
        let Stage::Waiting(memory) = &mut state.stage else { return };
        let memory = memory.take();
        let planned_ms = state.planned_ms;
        if now_ms < planned_ms {
            if planned_ms - now_ms > interval_ms {
                // The clock went back.
                state.planned_ms = self.next_planned(now_ms);
            }
            self.wait(state, memory);
            return;
        }
        state.planned_ms += interval_ms;
        let turn = Turn::begin(&self, &mut state, memory);
        drop(state);
        let tolerance_ms = services.options.timestamp_tolerance_ms.min(interval_ms / 100);
        let late = now_ms - planned_ms > tolerance_ms;
        tokio::spawn(turn.scrape(if late { now_ms } else { planned_ms }));
    }

    /// Puts the memory back and waits for the next scrape, or hands over.
    fn finish(self: &Arc<Self>, memory: Option<Box<Memory>>) {
        let mut state = self.state.lock();
        if let Stage::Busy { heir: Some(heir), .. } = std::mem::replace(&mut state.stage, Stage::Over) {
            // Whoever asked may have lost interest.
            let _ = heir.send(memory);
            return;
        }
        let now_ms = self.job.services.clock.now_ms();
        // Also when the clock went back meanwhile.
        if state.planned_ms <= now_ms || state.planned_ms - now_ms > self.target.interval_ms {
            state.planned_ms = self.next_planned(now_ms);
        }
        self.wait(state, memory);
    }

    fn wait(self: &Arc<Self>, mut state: MutexGuard<'_, State>, memory: Option<Box<Memory>>) {
        state.stage = Stage::Waiting(memory);
        let services = &self.job.services;
        // Never longer than an interval, whatever the clock does between two looks.
        let wait_ms =
            (state.planned_ms - services.clock.now_ms()).clamp(0, self.target.interval_ms).unsigned_abs();
        drop(state);
        services.schedule.wake_at(Instant::now() + Duration::from_millis(wait_ms), self);
    }

    /// First planned time at or after `now_ms`.
    fn next_planned(&self, now_ms: i64) -> i64 {
        let offset_ms = self.target.offset_ms(self.job.services.offset_seed);
        now_ms + (offset_ms - now_ms).rem_euclid(self.target.interval_ms)
    }

    fn note(&self, timestamp_ms: i64, start: Duration, failure: Option<ScrapeFailure>) {
        let duration = self.job.services.clock.monotonic().saturating_sub(start);
        let mut state = self.target.state.lock();
        state.health = if failure.is_none() { TargetHealth::Up } else { TargetHealth::Down };
        state.last_error = failure.map(|f| f.to_string().into_boxed_str()).unwrap_or_default();
        state.last_scrape_ms = Some(timestamp_ms);
        state.last_duration_seconds = duration.as_secs_f64();
    }

    async fn write_stale_markers(self: Arc<Self>, mut memory: Box<Memory>) {
        let Some(last_ms) = memory.last_timestamp_ms else { return };
        let timestamp_ms = self.job.services.clock.now_ms().max(last_ms + 1);
        let this = Arc::clone(&self);
        let written = tokio::task::spawn_blocking(move || -> Result<(), ScrapeFailure> {
            let mut app = this.job.services.storage.appender()?;
            memory.cache.append_stale(timestamp_ms, app.as_mut())?;
            if let Some(old) = &mut memory.outdated {
                old.append_stale(timestamp_ms, app.as_mut())?;
            }
            memory.report.append_stale(&this.target.labels(), timestamp_ms, app.as_mut())?;
            Ok(app.commit()?)
        })
        .await;
        let problem = match written {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        tracing::warn!(target_url = self.target.url(), error = problem, "stale markers were not written");
    }
}

/// How a loop stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Finish the scrape under way.
    HandOver,
    /// Break it off.
    End,
}

/// A loop that does not wait: it gives the memory back when it is dropped, whatever happened.
struct Turn {
    who: Arc<ScrapeLoop>,
    memory: Option<Box<Memory>>,
    abort: Arc<Notify>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(target_url = self.who.target.url(), "scrape broke down");
        }
        self.who.finish(self.memory.take());
    }
}

impl Turn {
    fn begin(who: &Arc<ScrapeLoop>, state: &mut State, memory: Option<Box<Memory>>) -> Self {
        let abort = Arc::new(Notify::new());
        state.stage = Stage::Busy { abort: Arc::clone(&abort), heir: None };
        Self { who: Arc::clone(who), memory, abort }
    }

    /// Goes on with what a loop left that ran under another configuration.
    fn inherit(&mut self, left: Option<Box<Memory>>, before: &ScrapeConfig) {
        let Some(mut left) = left else { return };
        if !keeps_labels(before, &self.who.job.config) && left.outdated.is_none() {
            left.outdated = Some(Box::new(std::mem::take(&mut left.cache)));
        }
        left.socket = None;
        self.who.target.state.lock().metadata = Some(left.cache.metadata());
        self.memory = Some(left);
    }

    async fn scrape(mut self, timestamp_ms: i64) {
        let services = &self.who.job.services;
        let span = services.options.tracer.start("scrape");
        let start = services.clock.monotonic();
        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => {
                let memory = Box::<Memory>::default();
                self.who.target.state.lock().metadata = Some(memory.cache.metadata());
                memory
            }
        };
        if let Some(last) = memory.last_start.replace(start) {
            let length = start.saturating_sub(last).as_secs_f64();
            services.metrics.observe_interval(self.who.target.interval_ms, length);
        }
        let memory = self.memory.insert(memory);
        let fetching = trace::within(span.link(), fetch(&self.who, memory, &self.abort));
        let Some(fetched) = fetching.await else { return };
        memory.last_timestamp_ms = Some(timestamp_ms);
        // The turn ends on that thread: to come back here would wake another one for nothing.
        drop(tokio::task::spawn_blocking(move || self.append(fetched, timestamp_ms, start, span)));
    }

    /// Appends what was fetched. Should that break down, what is remembered is lost; the next scrape begins anew.
    fn append(
        mut self,
        fetched: Result<Fetched, ScrapeFailure>,
        timestamp_ms: i64,
        start: Duration,
        span: Span,
    ) {
        let _entered = span.enter();
        let who = Arc::clone(&self.who);
        let mut memory = self.memory.take().unwrap_or_default();
        let seats = who.job.guard.seats(&mut memory.seats, memory.cache.seated().0);
        let rules = SampleRules { target_labels: who.target.labels(), seats, ..who.job.rules.clone() };
        let mut work =
            AppendWork { job: &who.job, target: &who.target, rules, timestamp_ms, start, memory, span };
        let outcome = work.append(fetched);
        self.memory = Some(work.memory);
        who.note(timestamp_ms, start, outcome.err());
    }
}

/// The body, or why there is none. `None` when the loop was told to end meanwhile.
async fn fetch(
    who: &ScrapeLoop,
    memory: &mut Memory,
    abort: &Notify,
) -> Option<Result<Fetched, ScrapeFailure>> {
    if let Some((targets, limit)) = *who.job.over_limit.lock() {
        return Some(Err(ScrapeFailure::TargetLimit { targets, limit }));
    }
    let target = &who.target;
    let timeout = Duration::from_millis(target.timeout_ms.unsigned_abs());
    let fetch = who.job.client.fetch(target, &mut memory.socket, memory.body_len);
    let result = tokio::select! {
        result = tokio::time::timeout(timeout, fetch) => result,
        () = abort.notified() => return None,
    };
    let fetched = result.unwrap_or_else(|_| {
        Err(ScrapeFailure::Http { url: target.url(), reason: "context deadline exceeded".into() })
    });
    if let Ok(fetched) = &fetched
        && !fetched.body.is_empty()
    {
        memory.body_len = fetched.body.len();
    }
    Some(fetched)
}

/// Whether a cache made under `a` serves under `b`.
fn keeps_labels(a: &ScrapeConfig, b: &ScrapeConfig) -> bool {
    a.metric_relabel_rules == b.metric_relabel_rules
        && a.honor_labels == b.honor_labels
        && a.honor_timestamps == b.honor_timestamps
        && a.track_timestamps_staleness == b.track_timestamps_staleness
        && a.label_limit == b.label_limit
        && a.label_name_length_limit == b.label_name_length_limit
        && a.label_value_length_limit == b.label_value_length_limit
        && a.metric_name_validation == b.metric_name_validation
        && a.native_histogram_bucket_limit == b.native_histogram_bucket_limit
        && a.native_histogram_min_bucket_factor == b.native_histogram_min_bucket_factor
}
