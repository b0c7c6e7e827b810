//! One rule group: evaluating its rules in order, appending what they give, and marking stale what they give no more.
//!
//! Each rule is one batch, visible to the rules after it. A rule that fails keeps its series: they are marked stale at
//! the first success that lacks them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use model::{AppendError, Appendable, Clock, Labels, Sample, SeriesRef, StorageError, stale_nan};
use parking_lot::Mutex;
use promql::{PointValue, QueryError, Value, VectorSample};

use crate::alerting::{Alerting, Surroundings};
use crate::config::{GroupConfig, RuleConfig, RuleKind};
use crate::error::RulesError;
use crate::metrics::Metrics;
use crate::recording::record;
use crate::status::{AlertState, AlertingStatus, GroupStatus, Health, RuleStatus};
use crate::template::Template;

/// Evaluates a query at a moment.
pub(crate) type QueryFn = Arc<dyn Fn(&str, i64) -> Result<Value, QueryError> + Send + Sync>;

/// What groups share.
pub(crate) struct Environment {
    pub(crate) query: QueryFn,
    pub(crate) appendable: Arc<dyn Appendable>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) around: Surroundings,
}

/// A group with the state of its rules.
pub(crate) struct Group {
    pub(crate) config: GroupConfig,
    rules: Vec<Rule>,
    /// Series of rules that are gone.
    orphans: BTreeSet<Labels>,
    evaluation_seconds: f64,
    last_evaluation_ms: Option<i64>,
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
            shown: Arc::default(),
        };
        group.show();
        Ok(group)
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
        let mut samples = 0;
        for i in 0..self.rules.len() {
            let rule = &mut self.rules[i];
            samples += rule.evaluate(&self.config, environment, &key, ts_ms);
            self.show();
        }
        self.mark_orphans(environment, ts_ms);
        self.evaluation_seconds = environment.clock.monotonic().saturating_sub(began).as_secs_f64();
        self.last_evaluation_ms = Some(began_ms);
        let (metrics, key) = (&environment.metrics, [key.as_str()]);
        metrics.samples.with_label_values(&key).set(samples as i64);
        metrics.last_duration_seconds.with_label_values(&key).set(self.evaluation_seconds);
        metrics.group_duration.observe(self.evaluation_seconds);
        metrics.last_evaluation_seconds.with_label_values(&key).set(began_ms as f64 / 1000.0);
        self.show();
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
        let templates = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
            pairs
                .map(|(name, text)| Ok((name.to_owned(), Template::parse(text)?)))
                .collect::<Result<Vec<_>, String>>()
        };
        let alerting = match &config.kind {
            RuleKind::Recording { record } if record.is_empty() => return Err("`record` is empty".to_owned()),
            RuleKind::Recording { .. } => None,
            RuleKind::Alerting { alert, .. } if alert.is_empty() => return Err("`alert` is empty".to_owned()),
            RuleKind::Alerting { alert, for_ms, keep_firing_for_ms, annotations } => Some(Alerting {
                name: alert.clone(),
                for_ms: *for_ms,
                keep_firing_for_ms: *keep_firing_for_ms,
                labels: templates(&mut labels.iter())?,
                annotations: templates(&mut annotations.iter().map(|(n, t)| (n.as_str(), t.as_str())))?,
                active: std::collections::BTreeMap::new(),
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
    fn evaluate(&mut self, group: &GroupConfig, environment: &Environment, key: &str, ts_ms: i64) -> usize {
        let (began, began_ms) = (environment.clock.monotonic(), environment.clock.now_ms());
        environment.metrics.evaluations.with_label_values(&[key]).inc();
        let outcome = self
            .samples(group, environment, ts_ms)
            .and_then(|samples| self.append(environment, &samples, ts_ms - group.query_offset_ms));
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
                tracing::warn!(group = key, rule = self.config.name(), error, "rule failed");
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

    fn append(
        &mut self,
        environment: &Environment,
        samples: &[VectorSample],
        at_ms: i64,
    ) -> Result<usize, String> {
        let mut appender = environment.appendable.appender().map_err(|e| e.to_string())?;
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
        appender.commit().map_err(|e| e.to_string())?;
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
            alerts: alerting.active.values().cloned().collect(),
        })
    }
}

fn histogram_value(histogram: &Arc<model::FloatHistogram>) -> model::HistogramValue {
    model::HistogramValue::Float(Arc::clone(histogram))
}

#[cfg(test)]
mod tests;
