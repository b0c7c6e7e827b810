//! Why rules could not be set up. Failures of a running rule show in its status instead.

/// An error in the configuration of rules, or in setting up.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A rule that cannot run: refuse the configuration.
    #[error("{file}: group {group:?}, rule {rule} ({name:?}): {reason}")]
    Rule {
        /// The rule file.
        file: String,
        /// Name of the group.
        group: String,
        /// Position in the group, from 1.
        rule: usize,
        /// Name of the alert or recorded series.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A group that cannot run: refuse the configuration.
    #[error("{file}: group {group:?}: {reason}")]
    Group {
        /// The rule file.
        file: String,
        /// Name of the group.
        group: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Settings of an Alertmanager's HTTP client that cannot be used: refuse the configuration.
    #[error("alertmanager: {0}")]
    Alertmanager(String),
    /// A metric could not be registered.
    #[error("register metric: {0}")]
    Metrics(#[from] prometheus::Error),
}
