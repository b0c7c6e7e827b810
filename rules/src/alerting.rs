//! Alerting rules: which alerts are pending or firing, the series that say so, and which of them the notifier is told.
//!
//! An alert is known by its labels. It is pending from the first evaluation whose answer holds it, firing once it has
//! been there for `for`, and resolved when the answer holds it no longer, or `keep_firing_for` later. A resolved alert is
//! kept for [`RESOLVED_RETENTION_MS`], so that an Alertmanager that missed the news is told again.

use std::collections::BTreeMap;

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder, MatchOp, Matcher};
use promql::{PointValue, VectorSample};

use crate::status::{AlertState, AlertStatus};
use crate::template::{Surroundings, Template, Values};

/// Name of the series of an alert's state.
const ALERTS: &str = "ALERTS";
/// Name of the series from which pending alerts go on after a restart.
const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
/// How long a resolved alert is kept, and sent again and again.
const RESOLVED_RETENTION_MS: i64 = 15 * 60_000;

/// An alerting rule with its alerts.
#[derive(Debug)]
pub(crate) struct Alerting {
    pub(crate) name: String,
    pub(crate) for_ms: i64,
    pub(crate) keep_firing_for_ms: i64,
    /// Labels as written.
    pub(crate) raw_labels: Labels,
    pub(crate) labels: Vec<(String, Template)>,
    pub(crate) annotations: Vec<(String, Template)>,
    /// Pending, firing and lately resolved alerts.
    pub(crate) active: BTreeMap<Labels, Alert>,
    /// Whether what was pending before a restart is taken up, or need not be. No series are written before: they would
    /// cover up those that the restoring reads.
    pub(crate) restored: bool,
}

/// One alert.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) state: AlertState,
    pub(crate) value: f64,
    pub(crate) active_at_ms: i64,
    pub(crate) fired_at_ms: Option<i64>,
    pub(crate) resolved_at_ms: Option<i64>,
    pub(crate) last_sent_ms: Option<i64>,
    pub(crate) keep_firing_since_ms: Option<i64>,
}

/// How long an alert that was sent holds without being sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) resend_delay_ms: i64,
    pub(crate) interval_ms: i64,
}

/// What is said of an alert: until when it holds, or since when it does not.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) starts_at_ms: i64,
    pub(crate) ends_at_ms: i64,
}

// === impl Alert ===

impl Alert {
    /// What the API shows; `None` for one that is resolved.
    pub(crate) fn status(&self) -> Option<AlertStatus> {
        self.resolved_at_ms.is_none().then(|| AlertStatus {
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            state: self.state,
            active_at_ms: self.active_at_ms,
            keep_firing_since_ms: self.keep_firing_since_ms,
            value: self.value,
        })
    }

    fn needs_sending(&self, ts_ms: i64, resend_delay_ms: i64) -> bool {
        if self.state == AlertState::Pending {
            return false;
        }
        let Some(last) = self.last_sent_ms else { return true };
        self.resolved_at_ms.is_some_and(|resolved| resolved > last) || last + resend_delay_ms < ts_ms
    }

    /// Whether the alert goes on although the answer does not hold it.
    fn keeps_firing(&mut self, ts_ms: i64, keep_firing_for_ms: i64) -> bool {
        if self.state != AlertState::Firing || keep_firing_for_ms <= 0 {
            return false;
        }
        let since = *self.keep_firing_since_ms.get_or_insert(ts_ms);
        ts_ms - since < keep_firing_for_ms
    }

    /// Fires after `for_ms`; an alert of a rule whose `for` has grown since goes back to pending.
    fn settle(&mut self, ts_ms: i64, for_ms: i64) {
        let long_enough = ts_ms - self.active_at_ms >= for_ms;
        if self.state == AlertState::Pending && long_enough {
            self.state = AlertState::Firing;
            self.fired_at_ms = Some(ts_ms);
        } else if self.state == AlertState::Firing && !long_enough {
            self.state = AlertState::Pending;
            (self.fired_at_ms, self.last_sent_ms, self.keep_firing_since_ms) = (None, None, None);
        }
    }
}

// === impl Alerting ===

impl Alerting {
    /// Takes the answer at `ts_ms` and returns `ALERTS` and `ALERTS_FOR_STATE`, with timestamp `sample_ms`.
    ///
    /// # Errors
    /// When two alerts have the same labels, or there are more than `limit` (0: any number); all alerts are dropped
    /// in the second case, as Prometheus does.
    pub(crate) fn evaluate(
        &mut self,
        vector: &[VectorSample],
        ts_ms: i64,
        sample_ms: i64,
        limit: usize,
        around: &Surroundings,
    ) -> Result<Vec<VectorSample>, String> {
        let mut held = BTreeMap::new();
        for sample in vector {
            let alert = self.alert(sample, ts_ms, around);
            if held.insert(alert.labels.clone(), alert).is_some() {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels".to_owned()
                );
            }
        }
        let mut series = Vec::new();
        let mut count = 0;
        let mut active = std::mem::take(&mut self.active);
        active.retain(|labels, alert| {
            let keep_firing = match held.remove(labels) {
                Some(new) if alert.state == AlertState::Inactive => {
                    *alert = new;
                    true
                }
                Some(new) => {
                    (alert.value, alert.annotations) = (new.value, new.annotations);
                    alert.keep_firing_since_ms = None;
                    true
                }
                None => alert.keeps_firing(ts_ms, self.keep_firing_for_ms),
            };
            if keep_firing {
                count += 1;
                alert.settle(ts_ms, self.for_ms);
                self.add_series(alert, sample_ms, &mut series);
                return true;
            }
            let forgotten = alert.resolved_at_ms.is_some_and(|at| ts_ms - at > RESOLVED_RETENTION_MS);
            let keep = alert.state != AlertState::Pending && !forgotten;
            if alert.state != AlertState::Inactive {
                alert.state = AlertState::Inactive;
                alert.resolved_at_ms = Some(ts_ms);
            }
            keep
        });
        for (labels, mut alert) in held {
            count += 1;
            alert.settle(ts_ms, self.for_ms);
            self.add_series(&alert, sample_ms, &mut series);
            active.insert(labels, alert);
        }
        if limit > 0 && count > limit {
            return Err(format!("exceeded limit of {limit} with {count} alerts"));
        }
        self.active = active;
        Ok(series)
    }

    /// The alerts that are to be sent at `ts_ms`; they count as sent.
    pub(crate) fn take_due(&mut self, ts_ms: i64, sending: Sending) -> Vec<Told> {
        // Two evaluations, or two sendings, may fail before the alert counts as resolved.
        let valid_until_ms = ts_ms + 4 * sending.interval_ms.max(sending.resend_delay_ms);
        let alerts = self.active.values_mut();
        let due = alerts.filter(|alert| alert.needs_sending(ts_ms, sending.resend_delay_ms));
        due.map(|alert| {
            alert.last_sent_ms = Some(ts_ms);
            Told {
                labels: alert.labels.clone(),
                annotations: alert.annotations.clone(),
                starts_at_ms: alert.fired_at_ms.unwrap_or(alert.active_at_ms),
                ends_at_ms: alert.resolved_at_ms.unwrap_or(valid_until_ms),
            }
        })
        .collect()
    }

    /// Selects the series of `ALERTS_FOR_STATE` of this rule. Labels that are templates are left open.
    pub(crate) fn for_state_matchers(&self) -> Result<Vec<Matcher>, String> {
        let mut labels = LabelsBuilder::from_labels(&self.raw_labels);
        labels.set(METRIC_NAME, ALERTS_FOR_STATE).set("alertname", &self.name);
        let labels = labels.build();
        let fixed = labels.iter().filter(|(_, value)| !value.contains("{{"));
        fixed
            .map(|(name, value)| Matcher::new(MatchOp::Equal, name, value).map_err(|e| e.to_string()))
            .collect()
    }

    fn alert(&self, sample: &VectorSample, ts_ms: i64, around: &Surroundings) -> Alert {
        let value = match &sample.value {
            PointValue::Float(v) => *v,
            PointValue::Histogram(_) => 0.0,
        };
        let values = Values { labels: &sample.labels, value: &sample.value, ts_ms, around };
        let expand = |name: &str, template: &Template| {
            template.expand(&values).unwrap_or_else(|error| {
                tracing::warn!(alert = self.name, name, error, "expanding an alert's template failed");
                format!("<error expanding template: {error}>")
            })
        };
        let mut labels = LabelsBuilder::from_labels(&sample.labels);
        labels.del(METRIC_NAME);
        for (name, template) in &self.labels {
            labels.set(name, &expand(name, template));
        }
        labels.set("alertname", &self.name);
        let annotations = self.annotations.iter().map(|(name, template)| (name, expand(name, template)));
        Alert {
            labels: labels.build(),
            annotations: Labels::from_pairs(annotations),
            state: AlertState::Pending,
            value,
            active_at_ms: ts_ms,
            fired_at_ms: None,
            resolved_at_ms: None,
            last_sent_ms: None,
            keep_firing_since_ms: None,
        }
    }

    fn add_series(&self, alert: &Alert, sample_ms: i64, out: &mut Vec<VectorSample>) {
        if !self.restored {
            return;
        }
        let mut sample = |labels: Labels, value: f64| {
            out.push(VectorSample { labels, timestamp_ms: sample_ms, value: PointValue::Float(value) });
        };
        // The rule's own labels as written are below those of the alert: they show where an alert's are empty.
        let mut labels = LabelsBuilder::from_labels(&self.raw_labels);
        alert.labels.iter().for_each(|(name, value)| {
            labels.set(name, value);
        });
        labels.set("alertname", &self.name).set(METRIC_NAME, ALERTS_FOR_STATE);
        let for_state = labels.build();
        labels.set(METRIC_NAME, ALERTS).set("alertstate", alert.state.as_str());
        sample(labels.build(), 1.0);
        sample(for_state, alert.active_at_ms.div_euclid(1000) as f64);
    }
}
