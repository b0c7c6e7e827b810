//! Recording and alerting rules.
//!
//! Reading order: [`config`] (what a rule file says), [`manager`] (groups that run, and reload), `group` (one
//! evaluation: query, append, stale markers), `recording` and `alerting` (from a query's answer to samples), `restore`
//! (pending alerts over a restart), `template` (texts of labels and annotations), [`notifier`] (to the Alertmanagers),
//! [`status`] (what the API shows), [`unit_test`] (evaluation by hand).
//!
//! Leaves out: reading rule files and finding Alertmanagers, which the program does.

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod manager;
pub mod notifier;
pub mod status;
pub mod unit_test;

mod alerting;
mod group;
mod links;
mod metrics;
mod recording;
mod restore;
mod template;

/// Whether `text` can be a label or an annotation of the alert `alert`.
///
/// # Errors
/// What Prometheus says of the template.
pub fn check_template(alert: &str, text: &str) -> Result<(), String> {
    template::Template::parse(alert, text).map(|_| ())
}

pub use config::{GroupConfig, RuleConfig, RuleKind};
pub use error::RulesError;
pub use group::{NotifyFn, Timing};
pub use manager::{RuleManager, RuleParts, TemplateContext};
pub use status::{AlertState, AlertStatus, AlertingStatus, GroupStatus, Health, RuleStatus};
