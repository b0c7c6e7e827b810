//! What the API shows of rules: plain snapshots.

use model::Labels;

/// A group as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// The file that defines it.
    pub file: String,
    /// Time between two evaluations.
    pub interval_ms: i64,
    /// Most series or alerts of one rule; 0 for no limit.
    pub limit: usize,
    /// Rules in their order.
    pub rules: Vec<RuleStatus>,
    /// Length of the last evaluation.
    pub evaluation_seconds: f64,
    /// When it began; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
}

/// A rule as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleStatus {
    /// Name of the alert or of the recorded series.
    pub name: String,
    /// The expression.
    pub query: String,
    /// Labels it adds, as written.
    pub labels: Labels,
    /// How the last evaluation went.
    pub health: Health,
    /// Why it failed; empty when it did not.
    pub last_error: String,
    /// Length of the last evaluation.
    pub evaluation_seconds: f64,
    /// When it was; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
    /// What an alerting rule has beside; `None` for a recording rule.
    pub alerting: Option<AlertingStatus>,
}

/// What an alerting rule has beside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertingStatus {
    /// The highest state of its alerts.
    pub state: AlertState,
    /// `for`.
    pub for_ms: i64,
    /// `keep_firing_for`.
    pub keep_firing_for_ms: i64,
    /// Annotations as written.
    pub annotations: Labels,
    /// Pending and firing alerts, sorted by labels.
    pub alerts: Vec<AlertStatus>,
}

/// An alert as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertStatus {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations, expanded.
    pub annotations: Labels,
    /// Pending or firing.
    pub state: AlertState,
    /// Since when the expression holds.
    pub active_at_ms: i64,
    /// Since when it is only kept firing; `None` while the expression holds.
    pub keep_firing_since_ms: Option<i64>,
    /// Value of the expression.
    pub value: f64,
}

/// How the last evaluation of a rule went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// There was none.
    #[default]
    Unknown,
    /// Well.
    Ok,
    /// It failed.
    Err,
}

/// State of an alert, or of an alerting rule. Orders by urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// Never evaluated.
    #[default]
    Unknown,
    /// The expression does not hold.
    Inactive,
    /// It holds, not yet for long enough.
    Pending,
    /// It has held for long enough.
    Firing,
}

impl Health {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Err => "err",
        }
    }
}

impl AlertState {
    /// The word in the API and in the label `alertstate`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}
