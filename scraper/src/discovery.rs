//! Finds targets: static lists, files, URLs, DNS, Consul and the Kubernetes API.
//!
//! Reading order: [`config`] (what a job asks for), [`manager`] (who runs and who listens), `sink` (what a provider
//! has found so far), then one file per mechanism: `file`, `http_sd`, `dns`, `consul`, `kubernetes`. `target_file` reads the
//! format that files and URLs share.
//!
//! Invariants:
//! - A source that is away never takes targets with it: the last known groups stay until the source says otherwise.
//! - Equal configurations share one provider, whichever jobs they belong to, and survive a reload untouched.
//! - A group that did not change keeps its `Arc`, so that listeners compare pointers.
//! - A change reaches the listener within [`DiscoveryOptions::debounce_ms`] of the provider learning of it.

pub mod config;
pub mod error;
pub mod glob;
pub mod manager;

mod client_config;
mod consul;
mod dns;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod http_sd;
mod kubernetes;
mod metrics;
mod naming;
mod sink;
mod target_file;
#[cfg(test)]
mod testing;

pub use config::{
    ConsulConfig, DiscoveryConfig, DnsConfig, DnsRecord, FileConfig, HttpDiscoveryConfig, KubernetesConfig,
    Role,
};
pub use error::DiscoveryError;
pub use file::read_target_file;
pub use manager::{DiscoveryManager, DiscoveryOptions};
