//! One target in time: wait, fetch, append, report, again.
//!
//! A target is scraped at `offset + n * interval` of the wall clock, the offset being a hash of the target, so that load
//! is even and stays where it is over restarts and reloads. Waiting never drifts, because each wait is computed from the
//! clock; scrapes that could not be made in time are skipped. Timestamps within two milliseconds of the plan are the
//! planned ones, which compresses better.
//!
//! Appending blocks (a commit may sync a file), so it runs on a blocking thread; the cache travels there and back.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Appendable, Clock};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cache::ScrapeCounts;
use crate::client::{Client, Clients, Fetched};
use crate::config::ScrapeConfig;
use crate::error::ScrapeFailure;
use crate::exposition::negotiation::format_of;
use crate::failure_log::{self, FailureLog};
use crate::manager::{ScrapeOptions, TargetHealth};
use crate::metrics::ScrapeMetrics;
use crate::report::Report;
use crate::sample_labels::SampleRules;
use crate::series_cache::{Appended, SeriesCache};
use crate::target::Target;

/// What all loops share.
pub(crate) struct Services {
    pub(crate) storage: Arc<dyn Appendable>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: ScrapeMetrics,
    pub(crate) options: ScrapeOptions,
    pub(crate) clients: Clients,
    /// Open files by the paths that jobs name.
    pub(crate) failure_logs: Mutex<HashMap<PathBuf, FailureLog>>,
    pub(crate) offset_seed: u64,
}

/// What a loop is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    /// Finish the scrape under way and hand the cache over.
    HandOver,
    /// Break off and write stale markers.
    End,
}

/// Targets and limit of the job, when there are too many.
type OverLimit = Arc<Mutex<Option<(usize, usize)>>>;

/// A running loop.
pub(crate) struct LoopHandle {
    pub(crate) target: Arc<Target>,
    pub(crate) config: Arc<ScrapeConfig>,
    over_limit: OverLimit,
    orders: watch::Sender<Order>,
    task: JoinHandle<Leftover>,
}

/// What a loop leaves to its successor.
struct Leftover {
    config: Arc<ScrapeConfig>,
    cache: SeriesCache,
    report: Report,
    last_timestamp_ms: Option<i64>,
}

impl LoopHandle {
    /// Starts a loop. It waits for `predecessor`, a loop of the same series, to finish, and goes on with its cache.
    pub(crate) fn spawn(
        services: Arc<Services>,
        config: Arc<ScrapeConfig>,
        target: Arc<Target>,
        predecessor: Option<LoopHandle>,
    ) -> Self {
        let (orders, received) = watch::channel(Order::Run);
        let over_limit = OverLimit::default();
        let scrape_loop = ScrapeLoop::new(services, config.clone(), target.clone(), over_limit.clone());
        let task = tokio::spawn(async move {
            let mut scrape_loop = scrape_loop;
            if let Some(predecessor) = predecessor
                && let Some(left) = Box::pin(predecessor.stop(Order::HandOver)).await
            {
                scrape_loop.inherit(left);
            }
            scrape_loop.run(received).await
        });
        Self { target, config, over_limit, orders, task }
    }

    /// Lets all scrapes fail as long as the job has too many targets.
    pub(crate) fn set_over_limit(&self, over: Option<(usize, usize)>) {
        *self.over_limit.lock() = over;
    }

    /// Ends the loop; returns once its stale markers are written.
    pub(crate) async fn end(self) {
        self.stop(Order::End).await;
    }

    async fn stop(self, order: Order) -> Option<Leftover> {
        // A loop that is gone already needs no order.
        let _ = self.orders.send(order);
        match self.task.await {
            Ok(left) => Some(left),
            Err(e) => {
                tracing::error!(target_url = self.target.url(), error = %e, "scrape loop broke down");
                None
            }
        }
    }
}

struct ScrapeLoop {
    services: Arc<Services>,
    config: Arc<ScrapeConfig>,
    target: Arc<Target>,
    over_limit: OverLimit,
    rules: Arc<SampleRules>,
    client: Client,
    cache: SeriesCache,
    report: Report,
    /// Cache of the loop before, when its labels no longer fit.
    outdated: Option<SeriesCache>,
    last_start: Option<Duration>,
    last_timestamp_ms: Option<i64>,
}

impl ScrapeLoop {
    fn new(
        services: Arc<Services>,
        config: Arc<ScrapeConfig>,
        target: Arc<Target>,
        over_limit: OverLimit,
    ) -> Self {
        let options = &services.options;
        let rules = SampleRules {
            type_and_unit_labels: options.type_and_unit_labels,
            append_metadata: options.append_metadata,
            starts: options.starts,
            ..SampleRules::new(&config, target.labels.clone())
        };
        let cache = SeriesCache::default();
        target.state.lock().metadata = Some(cache.metadata());
        Self {
            client: Client::new(&services.clients, &config, &target, &options.user_agent),
            rules: Arc::new(rules),
            report: Report::new(&target.labels, config.extra_scrape_metrics),
            cache,
            outdated: None,
            last_start: None,
            last_timestamp_ms: None,
            services,
            config,
            target,
            over_limit,
        }
    }

    fn inherit(&mut self, left: Leftover) {
        if keeps_labels(&left.config, &self.config) {
            self.cache = left.cache;
            self.target.state.lock().metadata = Some(self.cache.metadata());
        } else {
            self.outdated = Some(left.cache);
        }
        if left.config.extra_scrape_metrics == self.config.extra_scrape_metrics {
            self.report = left.report;
        }
        self.last_timestamp_ms = left.last_timestamp_ms;
    }

    async fn run(mut self, mut orders: watch::Receiver<Order>) -> Leftover {
        let interval_ms = self.target.interval_ms;
        let offset_ms = self.target.offset_ms(self.services.offset_seed);
        let tolerance_ms = self.services.options.timestamp_tolerance_ms.min(interval_ms / 100);
        let mut planned_ms = next_planned(self.services.clock.now_ms(), interval_ms, offset_ms);
        while *orders.borrow() == Order::Run {
            let now_ms = self.services.clock.now_ms();
            if planned_ms - now_ms > interval_ms {
                // The clock went back.
                planned_ms = next_planned(now_ms, interval_ms, offset_ms);
            }
            if now_ms < planned_ms {
                let wait = Duration::from_millis((planned_ms - now_ms).unsigned_abs());
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = orders.changed() => {}
                }
                continue;
            }
            let late = now_ms - planned_ms > tolerance_ms;
            // Apart, so that a loop that waits is a few hundred bytes: it waits nearly always, and there are many.
            Box::pin(self.scrape(if late { now_ms } else { planned_ms }, &mut orders)).await;
            planned_ms += interval_ms;
            let now_ms = self.services.clock.now_ms();
            if planned_ms <= now_ms {
                planned_ms = next_planned(now_ms, interval_ms, offset_ms);
            }
        }
        if *orders.borrow() == Order::End {
            Box::pin(self.write_stale_markers()).await;
        }
        Leftover {
            config: self.config,
            cache: self.cache,
            report: self.report,
            last_timestamp_ms: self.last_timestamp_ms,
        }
    }

    async fn scrape(&mut self, timestamp_ms: i64, orders: &mut watch::Receiver<Order>) {
        let start = self.services.clock.monotonic();
        if let Some(last) = self.last_start.replace(start) {
            let length = start.saturating_sub(last).as_secs_f64();
            self.services.metrics.observe_interval(self.target.interval_ms, length);
        }
        let Some(fetched) = self.fetch(orders).await else { return };
        self.last_timestamp_ms = Some(timestamp_ms);
        let mut work = AppendWork {
            services: self.services.clone(),
            config: self.config.clone(),
            target: self.target.clone(),
            rules: self.rules.clone(),
            timestamp_ms,
            start,
            cache: std::mem::take(&mut self.cache),
            report: std::mem::replace(&mut self.report, Report::new(&model::Labels::empty(), false)),
            outdated: self.outdated.take(),
        };
        let done = tokio::task::spawn_blocking(move || {
            let outcome = work.append(fetched);
            (work, outcome)
        })
        .await;
        match done {
            Ok((work, outcome)) => {
                self.cache = work.cache;
                self.report = work.report;
                self.note(timestamp_ms, start, outcome.err());
            }
            Err(e) => {
                // The cache is lost with the thread; begin anew.
                self.report = Report::new(&self.target.labels, self.config.extra_scrape_metrics);
                self.target.state.lock().metadata = Some(self.cache.metadata());
                tracing::error!(target_url = self.target.url(), error = %e, "appending a scrape broke down");
            }
        }
    }

    /// The body, or why there is none. `None` when the loop was told to end meanwhile.
    async fn fetch(&mut self, orders: &mut watch::Receiver<Order>) -> Option<Result<Fetched, ScrapeFailure>> {
        if let Some((targets, limit)) = *self.over_limit.lock() {
            return Some(Err(ScrapeFailure::TargetLimit { targets, limit }));
        }
        let timeout = Duration::from_millis(self.target.timeout_ms.unsigned_abs());
        let result = tokio::select! {
            result = tokio::time::timeout(timeout, self.client.fetch()) => Some(result),
            _ = orders.wait_for(|o| *o == Order::End) => None,
        };
        match result {
            None => None,
            Some(Ok(fetched)) => Some(fetched),
            Some(Err(_)) => {
                let url = self.target.url();
                Some(Err(ScrapeFailure::Http { url, reason: "context deadline exceeded".into() }))
            }
        }
    }

    fn note(&self, timestamp_ms: i64, start: Duration, failure: Option<ScrapeFailure>) {
        let duration = self.services.clock.monotonic().saturating_sub(start);
        let mut state = self.target.state.lock();
        state.health = if failure.is_none() { TargetHealth::Up } else { TargetHealth::Down };
        state.last_error = failure.map(|f| f.to_string()).unwrap_or_default();
        state.last_scrape_ms = Some(timestamp_ms);
        state.last_duration_seconds = duration.as_secs_f64();
    }

    async fn write_stale_markers(&mut self) {
        let Some(last_ms) = self.last_timestamp_ms else { return };
        let timestamp_ms = self.services.clock.now_ms().max(last_ms + 1);
        let storage = self.services.storage.clone();
        let mut cache = std::mem::take(&mut self.cache);
        let mut outdated = self.outdated.take();
        let mut report = std::mem::replace(&mut self.report, Report::new(&model::Labels::empty(), false));
        let written = tokio::task::spawn_blocking(move || -> Result<(), ScrapeFailure> {
            let mut app = storage.appender()?;
            cache.append_stale(timestamp_ms, app.as_mut())?;
            if let Some(old) = &mut outdated {
                old.append_stale(timestamp_ms, app.as_mut())?;
            }
            report.append_stale(timestamp_ms, app.as_mut())?;
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

/// First planned time at or after `now_ms`.
fn next_planned(now_ms: i64, interval_ms: i64, offset_ms: i64) -> i64 {
    now_ms + (offset_ms - now_ms).rem_euclid(interval_ms)
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

/// One scrape's way into the store.
struct AppendWork {
    services: Arc<Services>,
    config: Arc<ScrapeConfig>,
    target: Arc<Target>,
    rules: Arc<SampleRules>,
    timestamp_ms: i64,
    start: Duration,
    cache: SeriesCache,
    report: Report,
    outdated: Option<SeriesCache>,
}

impl AppendWork {
    /// Appends the samples, or stale markers when there are none, and the report, in one batch where possible.
    fn append(&mut self, fetched: Result<Fetched, ScrapeFailure>) -> Result<(), ScrapeFailure> {
        let mut app = self.services.storage.appender()?;
        let body_len = match &fetched {
            Ok(f) => f.body.len() as f64,
            Err(ScrapeFailure::BodySizeLimit) => -1.0,
            Err(_) => 0.0,
        };
        let flushes = self.cache.forced_flushes();
        let (counts, mut outcome) = match fetched {
            Ok(f) => self.append_body(&f, app.as_mut()),
            Err(e) => {
                self.log_failure(&e);
                (ScrapeCounts::default(), Err(e))
            }
        };
        if outcome.is_err() {
            app.rollback();
            app = self.services.storage.appender()?;
            self.cache.append_stale(self.timestamp_ms, app.as_mut())?;
        }
        if let Some(mut old) = self.outdated.take() {
            old.append_stale_except(&self.cache, self.timestamp_ms, app.as_mut())?;
        }
        let duration = self.services.clock.monotonic().saturating_sub(self.start);
        let values = [
            f64::from(u8::from(outcome.is_ok())),
            duration.as_secs_f64(),
            counts.scraped as f64,
            counts.post_relabel as f64,
            counts.series_added as f64,
            self.target.timeout_ms as f64 / 1000.0,
            self.config.sample_limit as f64,
            body_len,
        ];
        self.report.append(self.timestamp_ms, values, app.as_mut())?;
        let committed = app.commit();
        if self.config.extra_scrape_metrics {
            let duration = self.services.clock.monotonic().saturating_sub(self.start);
            self.services.metrics.scrape_duration.observe(duration.as_secs_f64());
        }
        if let Err(e) = committed {
            tracing::error!(error = %e, "scrape commit failed");
            outcome = outcome.and(Err(e.into()));
        }
        self.count(&counts, outcome.as_ref().err());
        self.services.metrics.cache_flush_forced.inc_by(self.cache.forced_flushes() - flushes);
        outcome
    }

    fn append_body(
        &mut self,
        fetched: &Fetched,
        app: &mut dyn model::Appender,
    ) -> (ScrapeCounts, Result<(), ScrapeFailure>) {
        if fetched.body.is_empty() {
            return (ScrapeCounts::default(), self.cache.append_stale(self.timestamp_ms, app));
        }
        let format = match format_of(&fetched.content_type, self.config.fallback_scrape_protocol) {
            Ok(format) => format,
            Err(reason) => return (ScrapeCounts::default(), Err(ScrapeFailure::ContentType(reason))),
        };
        let Appended { counts, result, outdated } = self.cache.append(
            &fetched.body,
            format,
            self.target.histograms,
            self.timestamp_ms,
            &self.rules,
            app,
        );
        // One that another configuration left behind is older; the cache that took over from it was empty.
        self.outdated = self.outdated.take().or(outdated);
        (counts, result)
    }

    /// Tells the job's file of a target that could not be fetched.
    fn log_failure(&self, failure: &ScrapeFailure) {
        if matches!(failure, ScrapeFailure::TargetLimit { .. }) {
            return;
        }
        let Some(path) = &self.config.scrape_failure_log_file else { return };
        let log = self.services.failure_logs.lock().get(path).cloned();
        if let Some(log) = log {
            let (clock, url) = (self.services.clock.as_ref(), self.target.url());
            failure_log::write(&log, clock, &self.config.job_name, &url, &failure.to_string());
        }
    }

    fn count(&self, counts: &ScrapeCounts, failure: Option<&ScrapeFailure>) {
        let m = &self.services.metrics;
        m.out_of_order.inc_by(counts.out_of_order as u64);
        m.duplicate_timestamp.inc_by(counts.duplicates as u64);
        m.out_of_bounds.inc_by(counts.out_of_bounds as u64);
        m.exemplar_out_of_order.inc_by(counts.exemplars_refused as u64);
        match failure {
            Some(ScrapeFailure::BodySizeLimit) => m.exceeded_body_size_limit.inc(),
            Some(ScrapeFailure::BucketLimit) => m.exceeded_bucket_limit.inc(),
            Some(ScrapeFailure::SampleLimit) => m.exceeded_sample_limit.inc(),
            Some(ScrapeFailure::LabelLimit(_)) => m.exceeded_label_limits.inc(),
            _ => {}
        }
    }
}
