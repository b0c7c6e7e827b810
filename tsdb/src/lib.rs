//! The local TSDB: a write-ahead log, a head in memory and blocks on disk, all in Prometheus's formats.
//!
//! Reading order: `db` ([`Db`], which ties everything together), `head` (the newest samples), `wal`, `block`, `chunk`
//! (encodings), `postings` (matchers to series), `querier` and `merge` (selections over head and blocks), `compact` and
//! `retention` (what maintenance does), `dir` (the only place that touches files). For tools: `read_only`,
//! `analysis`, `block_builder`. Formats: docs/formats/.

#![deny(unsafe_code)]

mod analysis;
mod block;
mod block_builder;
mod checksum;
pub mod chunk;
mod compact;
mod config;
mod db;
mod dir;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod head;
mod merge;
mod metrics;
mod postings;
mod querier;
mod read_only;
mod retention;
#[cfg(any(test, feature = "fuzzing"))]
mod sim;
mod stats;
mod varint;
mod wal;

#[cfg(test)]
mod tests;

pub use analysis::{Analysis, Chunks};
pub use block_builder::BlockBuilder;
pub use config::{Config, FloatEncoding, WalCompression};
pub use db::Db;
pub use error::Error;
pub use read_only::{BlockInfo, ReadOnly, ReadOnlyDb};
pub use stats::Stats;
