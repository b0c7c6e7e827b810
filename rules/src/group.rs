//! One rule group: evaluating its rules in order, appending what they give, and marking stale what they give no more.
//!
//! Each rule is one batch, visible to the rules after it. A rule that fails keeps its series: they are marked stale at
//! the first success that lacks them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use model::calendar::rfc3339;
use model::duration::go_duration;
use model::trace::{self, Span, SpanKind, Tracer};
use model::{AppendError, Appendable, Clock, Labels, Queryable, Sample, SeriesRef, StorageError, stale_nan};
use parking_lot::Mutex;
use promql::{PointValue, QueryError, Value, VectorSample};

use crate::alerting::{Alerting, Sending};
use crate::config::{GroupConfig, RuleConfig, RuleKind};
use crate::error::RulesError;
use crate::links::table_link;
use crate::metrics::Metrics;
use crate::notifier::Alert;
use crate::recording::record;
use crate::status::{AlertState, AlertingStatus, GroupStatus, Health, RuleStatus};
use crate::template::{Surroundings, Template};

/// Evaluates a query at a moment.
pub(crate) type QueryFn = Arc<dyn Fn(&str, i64) -> Result<Value, QueryError> + Send + Sync>;

/// Takes the alerts that are to be sent. Does not block.
pub type NotifyFn = Arc<dyn Fn(Vec<Alert>) + Send + Sync>;

/// What groups share.
pub(crate) struct Environment {
    pub(crate) query: QueryFn,
    pub(crate) queryable: Arc<dyn Queryable>,
    pub(crate) appendable: Arc<dyn Appendable>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) around: Surroundings,
    pub(crate) timing: Timing,
    pub(crate) notify: NotifyFn,
    pub(crate) tracer: Tracer,
}

/// When alerts are sent again, and what becomes of pending ones over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Least time between sending an alert twice.
    pub resend_delay_ms: i64,
    /// Longest time for which nobody may have evaluated the rules, for pending alerts to go on.
    pub outage_tolerance_ms: i64,
    /// Least time between a restart and an alert that fires because it was pending before.
    pub grace_period_ms: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { resend_delay_ms: 60_000, outage_tolerance_ms: 3_600_000, grace_period_ms: 600_000 }
    }
}

/// Evaluations before pending alerts are restored: what rules depend on may be missing in the first one.
const EVALUATIONS_BEFORE_RESTORE: u32 = 2;

/// A group with the state of its rules.
pub(crate) struct Group {
    pub(crate) config: GroupConfig,
    rules: Vec<Rule>,
    /// Series of rules that are gone.
    orphans: BTreeSet<Labels>,
    evaluation_seconds: f64,
    last_evaluation_ms: Option<i64>,
    /// Evaluations after which pending alerts are taken up from before a restart.
    restore_after: Option<u32>,
    /// What the API sees; never locked for longer than a copy.
    shown: Arc<Mutex<GroupStatus>>,
}

struct Rule {
    config: RuleConfig,
    labels: Labels,
    alerting: Option<Alerting>,
    previous: BTreeSet<Labels>,
    health: Health,
    last_error: String,
    evaluation_seconds: f64,
    last_evaluation_ms: Option<i64>,
}

// === impl Group ===

impl Group {
    /// A group that was never evaluated.
    ///
    /// # Errors
    /// When the configuration contradicts itself or a template is not understood.
    pub(crate) fn new(config: GroupConfig) -> Result<Self, RulesError> {
        if config.interval_ms <= 0 {
            return Err(RulesError::Group {
                file: config.file,
                group: config.name,
                reason: "the interval must be above 0".to_owned(),
            });
        }
        let mut rules = Vec::with_capacity(config.rules.len());
        for (i, rule) in config.rules.iter().enumerate() {
            let built = Rule::new(&config, rule).map_err(|reason| RulesError::Rule {
                file: config.file.clone(),
                group: config.name.clone(),
                rule: i + 1,
                name: rule.name().to_owned(),
                reason,
            })?;
            rules.push(built);
        }
        let mut group = Self {
            config,
            rules,
            orphans: BTreeSet::new(),
            evaluation_seconds: 0.0,
            last_evaluation_ms: None,
            restore_after: None,
            shown: Arc::default(),
        };
        group.show();
        Ok(group)
    }

    /// Makes the group take up pending alerts from before a restart, once it has run for a while.
    pub(crate) fn restore_later(&mut self) {
        self.restore_after = Some(EVALUATIONS_BEFORE_RESTORE);
        self.rules.iter_mut().filter_map(|rule| rule.alerting.as_mut()).for_each(|a| a.restored = false);
    }

    /// What the API sees, always up to date.
    pub(crate) fn shown(&self) -> Arc<Mutex<GroupStatus>> {
        Arc::clone(&self.shown)
    }

    /// `FILE;NAME`, as metrics have it.
    pub(crate) fn key(&self) -> String {
        format!("{};{}", self.config.file, self.config.name)
    }

    /// Takes alerts and series over from an older version of the group. Rules fit when name and labels are equal, the
    /// first to the first; series of those that fit none are marked stale at the next evaluation.
    pub(crate) fn take_over(&mut self, old: &mut Group) {
        self.evaluation_seconds = old.evaluation_seconds;
        self.last_evaluation_ms = old.last_evaluation_ms;
        let mut left: VecDeque<Rule> = old.rules.drain(..).collect();
        for rule in &mut self.rules {
            let fits = |old: &Rule| old.config.name() == rule.config.name() && old.labels == rule.labels;
            let Some(old) = left.iter().position(fits).and_then(|i| left.remove(i)) else { continue };
            rule.previous = old.previous;
            if let (Some(alerting), Some(old)) = (&mut rule.alerting, old.alerting) {
                alerting.active = old.active;
            }
        }
        self.orphans.append(&mut old.orphans);
        self.orphans.extend(left.into_iter().flat_map(|rule| rule.previous));
        self.show();
    }

    /// Evaluates all rules at `ts_ms`. Blocks.
    pub(crate) fn evaluate(&mut self, environment: &Environment, ts_ms: i64) {
        let (began, began_ms) = (environment.clock.monotonic(), environment.clock.now_ms());
        let key = self.key();
        let span = self.span(environment, ts_ms);
        let entered = span.enter();
        let mut samples = 0;
        for i in 0..self.rules.len() {
            let rule = &mut self.rules[i];
            samples += rule.evaluate(&self.config, environment, &key, i, ts_ms);
            self.show();
        }
        self.mark_orphans(environment, ts_ms);
        drop((entered, span));
        self.evaluation_seconds = environment.clock.monotonic().saturating_sub(began).as_secs_f64();
        self.last_evaluation_ms = Some(began_ms);
        let (metrics, key) = (&environment.metrics, [key.as_str()]);
        metrics.samples.with_label_values(&key).set(samples as i64);
        metrics.last_duration_seconds.with_label_values(&key).set(self.evaluation_seconds);
        metrics.group_duration.observe(self.evaluation_seconds);
        metrics.last_evaluation_seconds.with_label_values(&key).set(began_ms as f64 / 1000.0);
        let rules_seconds: f64 = self.rules.iter().map(|rule| rule.evaluation_seconds).sum();
        metrics.last_rule_duration_sum_seconds.with_label_values(&key).set(rules_seconds);
        self.restore_after = match self.restore_after {
            Some(1) => {
                self.restore(environment);
                None
            }
            after => after.map(|n| n - 1),
        };
        self.show();
    }

    /// The span of an evaluation. It begins when the evaluation was due, and says how late that is.
    fn span(&self, environment: &Environment, ts_ms: i64) -> Span {
        let mut span = environment.tracer.start("rule group");
        if span.is_recording() {
            span.set_start_ms(ts_ms);
            span.set("name", self.config.name.clone());
            span.set("file", self.config.file.clone());
            span.set("interval", go_duration(self.config.interval_ms));
            span.set("scheduled", rfc3339(ts_ms));
            if environment.clock.now_ms() > ts_ms {
                span.link().child("scheduleDelay", SpanKind::Internal).set_start_ms(ts_ms);
            }
        }
        span
    }

    /// Takes up the pending alerts of before a restart.
    fn restore(&mut self, environment: &Environment) {
        let began = environment.clock.monotonic();
        let alerting = self.rules.iter_mut().filter_map(|rule| rule.alerting.as_mut());
        crate::restore::restore(
            alerting,
            &*environment.queryable,
            environment.timing,
            environment.clock.now_ms(),
        );
        let seconds = environment.clock.monotonic().saturating_sub(began).as_secs_f64();
        environment.metrics.last_restore_seconds.with_label_values(&[&self.key()]).set(seconds);
    }

    /// Ends every series of the group at `ts_ms`: nobody will go on with them. Blocks.
    pub(crate) fn retire(&mut self, environment: &Environment, ts_ms: i64) {
        self.orphans.extend(self.rules.iter_mut().flat_map(|rule| std::mem::take(&mut rule.previous)));
        self.mark_orphans(environment, ts_ms);
    }

    fn mark_orphans(&mut self, environment: &Environment, ts_ms: i64) {
        if self.orphans.is_empty() {
            return;
        }
        let at_ms = ts_ms - self.config.query_offset_ms;
        let marked = environment.appendable.appender().and_then(|mut appender| {
            for labels in &self.orphans {
                mark_stale(&mut *appender, labels, at_ms)?;
            }
            appender.commit()
        });
        match marked {
            Ok(()) => self.orphans.clear(),
            Err(error) => {
                tracing::warn!(group = self.key(), %error, "series of old rules not marked stale yet")
            }
        }
    }

    fn show(&mut self) {
        *self.shown.lock() = GroupStatus {
            name: self.config.name.clone(),
            file: self.config.file.clone(),
            interval_ms: self.config.interval_ms,
            limit: self.config.limit,
            rules: self.rules.iter().map(Rule::status).collect(),
            evaluation_seconds: self.evaluation_seconds,
            last_evaluation_ms: self.last_evaluation_ms,
        };
    }
}

/// Appends a stale marker. That the series has a newer sample is no failure: another rule goes on with it.
fn mark_stale(appender: &mut dyn model::Appender, labels: &Labels, at_ms: i64) -> Result<(), StorageError> {
    match appender.append(SeriesRef::NONE, labels, Sample::float(at_ms, stale_nan())) {
        Err(AppendError::Storage(error)) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

// === impl Rule ===

impl Rule {
    fn new(group: &GroupConfig, config: &RuleConfig) -> Result<Self, String> {
        let labels = group.labels_of(config);
        let templates = |what: &str, pairs: &mut dyn Iterator<Item = (&str, &str)>| {
            let parse = |(name, text): (&str, &str)| {
                let template = Template::parse(config.name(), text);
                Ok((name.to_owned(), template.map_err(|e| format!("{what} {name:?}: {e}"))?))
            };
            pairs.map(parse).collect::<Result<Vec<_>, String>>()
        };
        let alerting = match &config.kind {
            RuleKind::Recording { record } if record.is_empty() => return Err("`record` is empty".to_owned()),
            RuleKind::Recording { .. } => None,
            RuleKind::Alerting { alert, .. } if alert.is_empty() => return Err("`alert` is empty".to_owned()),
            RuleKind::Alerting { alert, for_ms, keep_firing_for_ms, annotations } => Some(Alerting {
                name: alert.clone(),
                for_ms: *for_ms,
                keep_firing_for_ms: *keep_firing_for_ms,
                raw_labels: labels.clone(),
                labels: templates("label", &mut labels.iter())?,
                annotations: templates(
                    "annotation",
                    &mut annotations.iter().map(|(n, t)| (n.as_str(), t.as_str())),
                )?,
                active: std::collections::BTreeMap::new(),
                restored: true,
            }),
        };
        Ok(Self {
            config: config.clone(),
            labels,
            alerting,
            previous: BTreeSet::new(),
            health: Health::Unknown,
            last_error: String::new(),
            evaluation_seconds: 0.0,
            last_evaluation_ms: None,
        })
    }

    /// Evaluates and appends; returns the number of samples.
    fn evaluate(
        &mut self,
        group: &GroupConfig,
        environment: &Environment,
        key: &str,
        index: usize,
        ts_ms: i64,
    ) -> usize {
        let mut span = trace::child("rule");
        if span.is_recording() {
            span.set("group", group.name.clone());
            span.set("name", self.config.name().to_owned());
            span.set("query_offset", go_duration(group.query_offset_ms));
            span.set("index", index as i64);
            span.set("query", self.config.expr.clone());
        }
        let entered = span.enter();
        let (began, began_ms) = (environment.clock.monotonic(), environment.clock.now_ms());
        environment.metrics.evaluations.with_label_values(&[key]).inc();
        let outcome = self.samples(group, environment, ts_ms).and_then(|samples| {
            span.set("num_series", samples.len() as i64);
            self.send(group, environment, ts_ms);
            self.append(environment, &samples, ts_ms - group.query_offset_ms)
        });
        drop(entered);
        if let Err(error) = &outcome {
            span.set_failed(error);
        }
        self.evaluation_seconds = environment.clock.monotonic().saturating_sub(began).as_secs_f64();
        self.last_evaluation_ms = Some(began_ms);
        environment.metrics.rule_duration.observe(self.evaluation_seconds);
        match outcome {
            Ok(count) => {
                self.health = Health::Ok;
                self.last_error.clear();
                count
            }
            Err(error) => {
                environment.metrics.failures.with_label_values(&[key]).inc();
                // As Prometheus: of a trace that can be looked up.
                let link = span.link();
                let trace_id = link.context().filter(|c| c.is_sampled()).map(|c| c.trace_id.to_string());
                tracing::warn!(group = key, rule = self.config.name(), error, trace_id, "rule failed");
                self.health = Health::Err;
                self.last_error = error;
                0
            }
        }
    }

    fn samples(
        &mut self,
        group: &GroupConfig,
        environment: &Environment,
        ts_ms: i64,
    ) -> Result<Vec<VectorSample>, String> {
        let at_ms = ts_ms - group.query_offset_ms;
        let vector = match (environment.query)(&self.config.expr, at_ms).map_err(|e| e.to_string())? {
            Value::Vector(vector) => vector,
            Value::Scalar { timestamp_ms, value } => {
                vec![VectorSample { labels: Labels::empty(), timestamp_ms, value: PointValue::Float(value) }]
            }
            Value::String { .. } | Value::Matrix(_) => {
                return Err("rule result is not a vector or scalar".to_owned());
            }
        };
        match (&mut self.alerting, &self.config.kind) {
            (Some(alerting), _) => alerting.evaluate(&vector, ts_ms, at_ms, group.limit, &environment.around),
            (None, _) => record(self.config.name(), &self.labels, group.limit, vector),
        }
    }

    /// Hands over the alerts that are due, before their series are stored: storing may take its time.
    fn send(&mut self, group: &GroupConfig, environment: &Environment, ts_ms: i64) {
        let Some(alerting) = &mut self.alerting else { return };
        let sending =
            Sending { resend_delay_ms: environment.timing.resend_delay_ms, interval_ms: group.interval_ms };
        let due = alerting.take_due(ts_ms, sending);
        if due.is_empty() {
            return;
        }
        let base = environment.around.external_url.as_str();
        let generator_url: Arc<str> = format!("{base}{}", table_link(&self.config.expr)).into();
        let alerts = due.into_iter().map(|told| Alert {
            labels: told.labels,
            annotations: told.annotations,
            starts_at_ms: told.starts_at_ms,
            ends_at_ms: told.ends_at_ms,
            generator_url: Arc::clone(&generator_url),
        });
        (environment.notify)(alerts.collect());
    }

    fn append(
        &mut self,
        environment: &Environment,
        samples: &[VectorSample],
        at_ms: i64,
    ) -> Result<usize, String> {
        let appender_span = trace::child("newAppender");
        let mut appender = environment.appendable.appender().map_err(|e| e.to_string())?;
        drop(appender_span);
        let append_span = trace::child("ruleAppendResults");
        let (mut given, mut rejected) = (BTreeSet::new(), None);
        for sample in samples {
            let point = match &sample.value {
                PointValue::Float(value) => Sample::float(at_ms, *value),
                PointValue::Histogram(histogram) => Sample::histogram(at_ms, histogram_value(histogram)),
            };
            match appender.append(SeriesRef::NONE, &sample.labels, point) {
                Ok(_) => {
                    given.insert(sample.labels.clone());
                }
                Err(AppendError::Storage(error)) => return Err(error.to_string()),
                // One sample that cannot be stored must not cost the others.
                Err(error) => rejected = Some(format!("{}: {error}", sample.labels)),
            }
        }
        for labels in self.previous.difference(&given) {
            mark_stale(&mut *appender, labels, at_ms).map_err(|e| e.to_string())?;
        }
        drop(append_span);
        let mut commit_span = trace::child("ruleCommit");
        let committed = appender.commit();
        commit_span.fail_if_err(&committed);
        committed.map_err(|e| e.to_string())?;
        self.previous = given;
        rejected.map_or(Ok(self.previous.len()), Err)
    }

    fn status(&self) -> RuleStatus {
        RuleStatus {
            name: self.config.name().to_owned(),
            query: self.config.expr.clone(),
            labels: self.labels.clone(),
            health: self.health,
            last_error: self.last_error.clone(),
            evaluation_seconds: self.evaluation_seconds,
            last_evaluation_ms: self.last_evaluation_ms,
            alerting: self.alerting_status(),
        }
    }

    fn alerting_status(&self) -> Option<AlertingStatus> {
        let (Some(alerting), RuleKind::Alerting { annotations, .. }) = (&self.alerting, &self.config.kind)
        else {
            return None;
        };
        let least =
            if self.last_evaluation_ms.is_some() { AlertState::Inactive } else { AlertState::Unknown };
        Some(AlertingStatus {
            state: alerting.active.values().map(|alert| alert.state).fold(least, Ord::max),
            for_ms: alerting.for_ms,
            keep_firing_for_ms: alerting.keep_firing_for_ms,
            annotations: Labels::from_pairs(annotations.iter().map(|(name, text)| (name, text))),
            alerts: alerting.active.values().filter_map(|alert| alert.status()).collect(),
        })
    }
}

fn histogram_value(histogram: &Arc<model::FloatHistogram>) -> model::HistogramValue {
    model::HistogramValue::Float(Arc::clone(histogram))
}

#[cfg(test)]
mod tests;
