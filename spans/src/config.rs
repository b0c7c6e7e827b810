//! The section `tracing` once it is read.

use std::time::Duration;

use httpclient::{Secret, TlsConfig};

/// How long a request may take when nothing is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a collector is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP, in protobuf.
    Http,
}

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct SpansConfig {
    /// The protocol.
    pub protocol: Protocol,
    /// Host and port of the collector.
    pub endpoint: String,
    /// Share of traces that are recorded when their caller does not say.
    pub sampling_fraction: f64,
    /// Without TLS.
    pub insecure: bool,
    /// TLS, unless it is insecure.
    pub tls: TlsConfig,
    /// Headers, or metadata of gRPC.
    pub headers: Vec<(String, Secret)>,
    /// Compress with gzip.
    pub gzip: bool,
    /// Longest time of a request; zero for ten seconds.
    pub timeout: Duration,
}

impl SpansConfig {
    pub(crate) fn timeout(&self) -> Duration {
        if self.timeout.is_zero() { DEFAULT_TIMEOUT } else { self.timeout }
    }
}
