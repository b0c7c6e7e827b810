//! One scrape's way into the store: samples, stale markers and the report in one batch, and what is counted of them.

use std::time::Duration;

use model::trace::{self, Span};

use crate::cache::ScrapeCounts;
use crate::client::Fetched;
use crate::error::ScrapeFailure;
use crate::exposition::negotiation::format_of;
use crate::failure_log;
use crate::report::Extra;
use crate::sample_labels::SampleRules;
use crate::scrape_loop::{Job, Memory};
use crate::series_cache::Appended;
use crate::target::Target;

/// One scrape's way into the store.
pub(crate) struct AppendWork<'a> {
    pub(crate) job: &'a Job,
    pub(crate) target: &'a Target,
    pub(crate) rules: SampleRules,
    pub(crate) timestamp_ms: i64,
    pub(crate) start: Duration,
    pub(crate) memory: Box<Memory>,
    /// The span of the scrape, which is the thread's current one.
    pub(crate) span: Span,
}

impl AppendWork<'_> {
    /// Appends the samples, or stale markers when there are none, and the report, in one batch where possible.
    pub(crate) fn append(&mut self, fetched: Result<Fetched, ScrapeFailure>) -> Result<(), ScrapeFailure> {
        let appender_span = trace::child("newAppender");
        let mut app = self.job.services.storage.appender()?;
        drop(appender_span);
        let body_len = match &fetched {
            Ok(f) => f.body.len() as f64,
            Err(ScrapeFailure::BodySizeLimit) => -1.0,
            Err(_) => 0.0,
        };
        let flushes = self.memory.cache.forced_flushes();
        let (counts, mut outcome) = match fetched {
            Ok(f) => {
                let mut span = trace::child("scrapeAppend");
                let (counts, result) = self.append_body(&f, app.as_mut());
                span.fail_if_err(&result);
                (counts, result)
            }
            Err(e) => {
                self.log_failure(&e);
                (ScrapeCounts::default(), Err(e))
            }
        };
        self.span.set("samples_scraped", counts.scraped as i64);
        self.span.set("samples_added", counts.post_relabel as i64);
        self.span.set("series_added", counts.series_added as i64);
        self.span.set("bytes", body_len as i64);
        self.span.fail_if_err(&outcome);
        if outcome.is_err() {
            app.rollback();
            app = self.job.services.storage.appender()?;
            self.memory.cache.append_stale(self.timestamp_ms, app.as_mut())?;
        }
        if let Some(mut old) = self.memory.outdated.take() {
            old.append_stale_except(&self.memory.cache, self.timestamp_ms, app.as_mut())?;
        }
        if let (Ok(()), Some(seats)) = (&outcome, &self.rules.seats) {
            let (kept, refused) = self.memory.cache.seated();
            seats.settle(kept, refused);
        }
        let duration = self.job.services.clock.monotonic().saturating_sub(self.start);
        let values = [
            f64::from(u8::from(outcome.is_ok())),
            duration.as_secs_f64(),
            counts.scraped as f64,
            counts.post_relabel as f64,
            counts.series_added as f64,
            self.target.timeout_ms as f64 / 1000.0,
            self.job.config.sample_limit as f64,
            body_len,
            counts.refused as f64,
        ];
        let labels = &self.rules.target_labels;
        let extra = match (self.job.config.extra_scrape_metrics, &self.rules.seats) {
            (false, _) => Extra::None,
            (true, None) => Extra::Prometheus,
            (true, Some(_)) => Extra::Refused,
        };
        let report_span = trace::child("scrapeReport");
        self.memory.report.append(labels, extra, self.timestamp_ms, values, app.as_mut())?;
        drop(report_span);
        let mut commit_span = trace::child("scrapeCommit");
        let committed = app.commit();
        commit_span.fail_if_err(&committed);
        drop(commit_span);
        if self.job.config.extra_scrape_metrics {
            let duration = self.job.services.clock.monotonic().saturating_sub(self.start);
            self.job.services.metrics.scrape_duration.observe(duration.as_secs_f64());
        }
        if let Err(e) = committed {
            tracing::error!(error = %e, "scrape commit failed");
            outcome = outcome.and(Err(e.into()));
        }
        self.count(&counts, outcome.as_ref().err());
        self.job.services.metrics.cache_flush_forced.inc_by(self.memory.cache.forced_flushes() - flushes);
        outcome
    }

    fn append_body(
        &mut self,
        fetched: &Fetched,
        app: &mut dyn model::Appender,
    ) -> (ScrapeCounts, Result<(), ScrapeFailure>) {
        if fetched.body.is_empty() {
            return (ScrapeCounts::default(), self.memory.cache.append_stale(self.timestamp_ms, app));
        }
        let format = match format_of(&fetched.content_type, self.job.config.fallback_scrape_protocol) {
            Ok(format) => format,
            Err(reason) => return (ScrapeCounts::default(), Err(ScrapeFailure::ContentType(reason))),
        };
        let Appended { counts, result, outdated } = self.memory.cache.append(
            &fetched.body,
            format,
            self.target.histograms,
            self.timestamp_ms,
            &self.rules,
            app,
        );
        // One that another configuration left behind is older; the cache that took over from it was empty.
        self.memory.outdated = self.memory.outdated.take().or(outdated.map(Box::new));
        (counts, result)
    }

    /// Tells the job's file of a target that could not be fetched.
    fn log_failure(&self, failure: &ScrapeFailure) {
        if matches!(failure, ScrapeFailure::TargetLimit { .. }) {
            return;
        }
        let Some(path) = &self.job.config.scrape_failure_log_file else { return };
        let log = self.job.services.failure_logs.lock().get(path).cloned();
        if let Some(log) = log {
            let (clock, url) = (self.job.services.clock.as_ref(), self.target.url());
            failure_log::write(&log, clock, &self.job.config.job_name, &url, &failure.to_string());
        }
    }

    fn count(&self, counts: &ScrapeCounts, failure: Option<&ScrapeFailure>) {
        let m = &self.job.services.metrics;
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
