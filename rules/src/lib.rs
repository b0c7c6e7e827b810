//! Recording and alerting rules.
//!
//! Reading order: [`config`] (what a rule file says), [`manager`] (groups that run, and reload), `group` (one
//! evaluation: query, append, stale markers), `recording` and `alerting` (from a query's answer to samples),
//! `template` (texts of labels and annotations), [`status`] (what the API shows).
//!
//! Leaves out: reading rule files (the program does that), sending alerts to an Alertmanager, and taking up pending
//! alerts from `ALERTS_FOR_STATE` after a restart.

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod manager;
pub mod status;

mod alerting;
mod group;
mod metrics;
mod recording;
mod template;

pub use config::{GroupConfig, RuleConfig, RuleKind};
pub use error::RulesError;
pub use manager::{RuleManager, TemplateContext};
pub use status::{AlertState, AlertStatus, AlertingStatus, GroupStatus, Health, RuleStatus};
