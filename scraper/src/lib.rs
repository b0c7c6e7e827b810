//! Finds targets, scrapes them and hands their samples to a store.
//!
//! Reading order: [`config`] (what a job is), [`target_group`] (what discovery hands over), [`manager`] (the door), then
//! `pool` and `target` (from groups to targets), `scrape_loop`, `schedule`, `client` and `append_work` (one target in time), [`exposition`] (the
//! formats), [`cache`] and `sample_cache` (the hot path: same body, new numbers), [`cardinality`] (how many series there may be), `report` and `metrics`. [`discovery`] finds targets.

#![forbid(unsafe_code)]

mod append_work;
pub mod cache;
pub mod cardinality;
mod client;
pub mod config;
pub mod discovery;
pub mod error;
pub mod exposition;
mod failure_log;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod manager;
mod metrics;
mod pool;
pub mod preview;
mod report;
mod sample_cache;
pub mod sample_labels;
mod schedule;
mod scrape_loop;
pub mod series_cache;
mod target;
pub mod target_group;
#[cfg(test)]
mod test_store;

pub use cardinality::{Cardinality, ServerLimit, SoftLimit};
pub use config::ScrapeConfig;
pub use error::ScraperError;
pub use manager::{ScrapeManager, ScrapeOptions};
pub use sample_labels::StartRules;
pub use target_group::{TargetGroup, TargetGroupReceiver, TargetGroups};
