//! Settings of the server: what it listens on, what is switched on, and the limits that keep it bounded.
//!
//! Flags and their texts live in the binary; everything here is already parsed.

use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use url::Url;

use crate::gate::GateSource;

/// Settings of a [`crate::Server`]. The defaults are Prometheus's.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// `host:port`, `:port` or `[v6]:port`; port 0 takes any free one.
    pub listen_addresses: Vec<String>,
    /// Where users reach this server; its path is the prefix of links and redirects.
    pub external_url: Url,
    /// Prefix of all routes: `/`, or `/something` without a slash at the end.
    pub route_prefix: String,
    /// Most connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// TLS, users and headers of all answers; `None` lets everyone in over plain HTTP.
    pub gate: Option<Arc<dyn GateSource>>,
    /// Longest time a client may take for one whole request, and longest idle time of a connection.
    pub read_timeout: Duration,
    /// Longest time a client may take for the header of a request, the wait for a next request on an open connection
    /// included.
    pub header_timeout: Duration,
    /// Longest time a client may accept no byte of an answer.
    pub write_stall_timeout: Duration,
    /// Longest time that open requests may take after shutdown was asked for.
    pub shutdown_timeout: Duration,
    /// `/-/reload` and `/-/quit` work.
    pub enable_lifecycle: bool,
    /// `/api/v1/admin/*` works.
    pub enable_admin_api: bool,
    /// `/api/v1/write` takes samples.
    pub enable_remote_write_receiver: bool,
    /// `/api/v1/otlp/v1/metrics` takes samples.
    pub enable_otlp_receiver: bool,
    /// Origins that browsers may call from; matched whole.
    pub cors_origin: CorsOrigin,
    /// Title of the pages.
    pub page_title: String,
    /// Name in `/-/healthy` and `/-/ready`.
    pub app_name: String,
    /// Most points per series of a range query.
    pub max_range_points: i64,
    /// Most bytes of a form body.
    pub max_form_bytes: usize,
    /// Most bytes of request bodies that are held at once, of all clients together. A request that would exceed it is
    /// refused and may be tried again.
    pub max_request_bytes: usize,
    /// Limits of the remote-write receiver.
    pub remote_write: RemoteWriteConfig,
    /// What the OTLP receiver stores beside samples. Its limits are those of remote write.
    pub otlp: OtlpConfig,
    /// Limits of remote read.
    pub remote_read: RemoteReadConfig,
    /// Most requests of any kind that run on blocking threads at once; further ones wait.
    pub max_blocking_requests: usize,
}

/// Limits of `/api/v1/write`.
#[derive(Clone, Debug)]
pub struct RemoteWriteConfig {
    /// Most bytes of a request as it arrives.
    pub max_body_bytes: usize,
    /// Most bytes of a request once decompressed.
    pub max_decoded_bytes: usize,
    /// Most series that the receiver remembers by the bytes of their labels, some 40 bytes each; 0 remembers none.
    pub max_cached_series: usize,
    /// Most requests that are taken in at once; further ones wait.
    pub max_concurrency: usize,
    /// How far in the future a timestamp may lie.
    pub max_ahead_ms: i64,
    /// What `Retry-After` says when the store cannot take samples.
    pub retry_after: Duration,
}

/// What `/api/v1/otlp/v1/metrics` stores beside samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct OtlpConfig {
    /// A zero where a counter or histogram began.
    pub starts_as_zeros: bool,
    /// Type, unit and help.
    pub append_metadata: bool,
}

/// Limits of `/api/v1/read`.
#[derive(Clone, Debug)]
pub struct RemoteReadConfig {
    /// Most samples of one answer that is not streamed; 0 for no limit.
    pub sample_limit: usize,
    /// Most requests at once; further ones wait.
    pub max_concurrency: usize,
    /// Most bytes of one frame of a streamed answer.
    pub max_bytes_in_frame: usize,
    /// Most bytes of a request.
    pub max_body_bytes: usize,
}

/// Which origins a browser may call from.
#[derive(Clone, Debug)]
pub enum CorsOrigin {
    /// All of them.
    Any,
    /// Those that match as a whole.
    Matching(Regex),
}

impl CorsOrigin {
    /// Reads the value of `--web.cors.origin`; `.*` is any origin.
    ///
    /// # Errors
    /// When it is no regular expression.
    pub fn parse(text: &str) -> Result<Self, regex::Error> {
        if text == ".*" {
            return Ok(Self::Any);
        }
        Ok(Self::Matching(Regex::new(&format!("^(?s:{text})$"))?))
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen_addresses: vec!["0.0.0.0:9090".into()],
            external_url: Url::parse("http://localhost:9090/").expect("a constant that parses"),
            route_prefix: "/".into(),
            max_connections: 512,
            gate: None,
            read_timeout: Duration::from_secs(300),
            header_timeout: Duration::from_secs(75),
            write_stall_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(30),
            enable_lifecycle: false,
            enable_admin_api: false,
            enable_remote_write_receiver: false,
            enable_otlp_receiver: false,
            cors_origin: CorsOrigin::Any,
            page_title: "almanac".into(),
            app_name: "almanac".into(),
            max_range_points: 11_000,
            max_form_bytes: 10 << 20,
            max_request_bytes: 256 << 20,
            remote_write: RemoteWriteConfig::default(),
            otlp: OtlpConfig::default(),
            remote_read: RemoteReadConfig::default(),
            max_blocking_requests: 128,
        }
    }
}

impl Default for RemoteWriteConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_decoded_bytes: 64 << 20,
            max_cached_series: 2_000_000,
            max_concurrency: 8,
            max_ahead_ms: 600_000,
            retry_after: Duration::from_secs(5),
        }
    }
}

impl Default for RemoteReadConfig {
    fn default() -> Self {
        Self {
            sample_limit: 50_000_000,
            max_concurrency: 10,
            max_bytes_in_frame: 1 << 20,
            max_body_bytes: 4 << 20,
        }
    }
}
