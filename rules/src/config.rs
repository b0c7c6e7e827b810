//! Rule groups as a rule file says them, once defaults are filled in. Plain types; reading YAML is the program's task.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/>.

use model::Labels;

use crate::error::RulesError;
use crate::group::Group;

/// Rules that are evaluated one after the other, at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// Unique within the file.
    pub name: String,
    /// The file that defines it.
    pub file: String,
    /// Time between two evaluations.
    pub interval_ms: i64,
    /// How far in the past the rules are evaluated, to wait for late samples.
    pub query_offset_ms: i64,
    /// Most series or alerts of one rule; 0 for no limit.
    pub limit: usize,
    /// Labels of every rule; a rule's own label wins.
    pub labels: Vec<(String, String)>,
    /// Rules in the order of evaluation.
    pub rules: Vec<RuleConfig>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleConfig {
    /// The expression.
    pub expr: String,
    /// Labels it adds. Values of an alerting rule are templates.
    pub labels: Vec<(String, String)>,
    /// What becomes of the answer.
    pub kind: RuleKind,
}

/// What becomes of a rule's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// It is stored as a series.
    Recording {
        /// Name of the series.
        record: String,
    },
    /// Each of its series is an alert.
    Alerting {
        /// Name of the alert.
        alert: String,
        /// How long the expression must hold before the alert fires.
        for_ms: i64,
        /// How long the alert goes on firing after the expression held last.
        keep_firing_for_ms: i64,
        /// Templates of texts for humans.
        annotations: Vec<(String, String)>,
    },
}

impl RuleConfig {
    /// Name of the alert or of the recorded series.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Recording { record } => record,
            RuleKind::Alerting { alert, .. } => alert,
        }
    }
}

impl GroupConfig {
    /// Whether the group could run: names, and templates of labels and annotations. Expressions are the engine's to check.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), RulesError> {
        Group::new(self.clone()).map(|_| ())
    }

    /// The labels of one of the group's rules, the group's own included.
    #[must_use]
    pub fn labels_of(&self, rule: &RuleConfig) -> Labels {
        Labels::from_pairs(self.labels.iter().chain(&rule.labels).map(|(name, value)| (name, value)))
    }
}
