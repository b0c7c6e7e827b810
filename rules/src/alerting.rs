//! Alerting rules: which alerts are pending or firing, and the series that say so.
//!
//! An alert is known by its labels. It is pending from the first evaluation whose answer holds it, firing once it has
//! been there for `for`, and gone when the answer holds it no longer, or `keep_firing_for` later.

use std::collections::BTreeMap;

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder};
use promql::{PointValue, VectorSample};

use crate::status::{AlertState, AlertStatus};
use crate::template::{Template, Values};

/// An alerting rule with its alerts.
#[derive(Debug)]
pub(crate) struct Alerting {
    pub(crate) name: String,
    pub(crate) for_ms: i64,
    pub(crate) keep_firing_for_ms: i64,
    pub(crate) labels: Vec<(String, Template)>,
    pub(crate) annotations: Vec<(String, Template)>,
    /// Pending and firing alerts.
    pub(crate) active: BTreeMap<Labels, AlertStatus>,
}

/// What templates may speak of beside the alert itself.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) external_labels: Labels,
    pub(crate) external_url: String,
}

impl Alerting {
    /// Takes the answer at `ts_ms` and returns `ALERTS` and `ALERTS_FOR_STATE`, with timestamp `sample_ms`.
    ///
    /// # Errors
    /// When two alerts have the same labels, or there are more than `limit` (0: any number); all alerts are dropped
    /// then, as Prometheus does.
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
        for alert in self.active.values_mut() {
            if let Some(new) = held.remove(&alert.labels) {
                alert.value = new.value;
                alert.annotations = new.annotations;
                alert.keep_firing_since_ms = None;
            } else if alert.state == AlertState::Firing && self.keep_firing_for_ms > 0 {
                let since = *alert.keep_firing_since_ms.get_or_insert(ts_ms);
                if ts_ms - since >= self.keep_firing_for_ms {
                    alert.state = AlertState::Inactive;
                }
            } else {
                alert.state = AlertState::Inactive;
            }
        }
        self.active.retain(|_, alert| alert.state != AlertState::Inactive);
        self.active.extend(held);
        if limit > 0 && self.active.len() > limit {
            let count = self.active.len();
            self.active.clear();
            return Err(format!("exceeded limit of {limit} with {count} alerts"));
        }
        for alert in self.active.values_mut() {
            let firing = ts_ms - alert.active_at_ms >= self.for_ms;
            alert.state = if firing { AlertState::Firing } else { AlertState::Pending };
        }
        Ok(self.active.values().flat_map(|alert| self.series(alert, sample_ms)).collect())
    }

    fn alert(&self, sample: &VectorSample, ts_ms: i64, around: &Surroundings) -> AlertStatus {
        let value = match &sample.value {
            PointValue::Float(v) => *v,
            PointValue::Histogram(_) => 0.0,
        };
        let values = Values {
            labels: &sample.labels,
            value,
            external_labels: &around.external_labels,
            external_url: &around.external_url,
        };
        let mut labels = LabelsBuilder::from_labels(&sample.labels);
        labels.del(METRIC_NAME);
        for (name, template) in &self.labels {
            labels.set(name, &template.expand(&values));
        }
        labels.set("alertname", &self.name);
        let annotations = self.annotations.iter().map(|(name, template)| (name, template.expand(&values)));
        AlertStatus {
            labels: labels.build(),
            annotations: Labels::from_pairs(annotations),
            state: AlertState::Pending,
            active_at_ms: ts_ms,
            keep_firing_since_ms: None,
            value,
        }
    }

    fn series(&self, alert: &AlertStatus, sample_ms: i64) -> [VectorSample; 2] {
        let sample = |labels: Labels, value: f64| VectorSample {
            labels,
            timestamp_ms: sample_ms,
            value: PointValue::Float(value),
        };
        let mut labels = LabelsBuilder::from_labels(&alert.labels);
        labels.set(METRIC_NAME, "ALERTS_FOR_STATE");
        let for_state = labels.build();
        labels.set(METRIC_NAME, "ALERTS").set("alertstate", alert.state.as_str());
        let active_at_seconds = alert.active_at_ms.div_euclid(1000) as f64;
        [sample(labels.build(), 1.0), sample(for_state, active_at_seconds)]
    }
}
