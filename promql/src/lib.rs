//! PromQL: parser, planner and executor.
//!
//! Reading order: [`parser`] makes a typed tree of a text; `plan/` makes a plan of the tree and improves it; `exec/`
//! runs the plan, one operator per file; `functions/` holds what is computed over windows and samples; [`engine`] puts it
//! all together and keeps the limits. [`value`] is what comes out, [`error`] why nothing did.
//!
//! The crate reads no files, no network and no clock of its own: series come through [`model::Queryable`].

#![forbid(unsafe_code)]

mod annotations;
pub mod engine;
pub mod error;
mod exec;
mod features;
mod functions;
mod hash;
mod limits;
mod metrics;
mod observer;
pub mod parser;
mod plan;
mod stack;
pub mod value;

#[cfg(test)]
mod tests;

pub use engine::{CancelToken, Engine, EngineConfig, Prepared, QueryOptions};
pub use error::QueryError;
pub use features::Features;
pub use observer::{ActiveQueries, QueryLog, QueryOrigin, QueryRecord, format_date};
pub use stack::run_deep;
pub use value::{MatrixSeries, PointValue, QueryOutput, QueryStats, StepStats, Value, VectorSample};
