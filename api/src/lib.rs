//! The HTTP server: Prometheus's API, `/federate`, remote write and read, OTLP metrics, health, metrics and a small UI.
//!
//! Everything a user reaches over HTTP is here and nowhere else. The crate knows the rest of the program only through
//! [`Deps`]; it keeps no state but connections and caches. Reading order:
//!
//! 1. [`config`] and [`sources`]: what goes in. [`Server`] (`server.rs`): sockets, limits, draining.
//! 2. `router.rs` names the endpoints, `app.rs` takes a request through readiness, body, handler and metrics.
//! 3. `intake.rs`, `params.rs`, `failure.rs`, `json.rs`, `body.rs`, `small.rs`: how requests are read and answers written.
//! 4. One file per family of endpoints: `query`, `labels`, `metadata`, `targets`, `rules`, `status`, `cardinality`, `admin`,
//!    `federate`, `remote_write`, `otlp`, `remote_read`, `longterm`, `exposition`, `web`.
//!
//! Handlers block and run on blocking threads; none of them holds a lock while it writes.

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod sources;

mod admin;
mod app;
mod body;
mod cardinality;
mod exposition;
mod failure;
mod federate;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod gate;
mod intake;
mod json;
mod labels;
mod longterm;
mod metadata;
mod metrics;
mod otlp;
mod params;
mod query;
mod query_tree;
mod remote_read;
mod remote_write;
mod request_target;
mod router;
mod rules;
mod series_cache;
mod server;
mod small;
mod span;
mod stall;
mod status;
mod targets;
mod web;

pub use cardinality::{Cardinality, Growing, JobCardinality, SoftLimit};
pub use config::{ApiConfig, CorsOrigin, OtlpConfig, RemoteReadConfig, RemoteWriteConfig};
pub use error::ApiError;
pub use otlp::OtlpSettings;
pub use params::parse_time;
pub use server::Server;
pub use sources::{
    ActiveTarget, AdminSource, Alert, AlertingRule, BacklogRange, BuildInfo, Deps, DroppedTarget,
    ExemplarSource, Lifecycle, LongtermSource, LongtermStatus, Notification, Preview, Readiness, ReadyState,
    Rule, RuleGroup, RulesSource, RuntimeInfo, StatusSource, TargetHealth, TargetsSource, TsdbStatus,
    WalReplayStatus,
};
