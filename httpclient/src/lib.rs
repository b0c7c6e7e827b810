//! Outgoing HTTP: one configuration and one client for everyone who asks another server for something.
//!
//! Scraping, discovery, remote write, remote read and alerting share it. Reading order: [`config`] (what can be set),
//! [`client`] (one request with redirects and credentials), [`connect`] (from an address to a connection: TCP, unix
//! sockets, proxies, TLS), [`proxy`], [`tls`], [`oauth`], [`body`] (bounded, decompressed bodies). No YAML here, and no
//! retries: who asks decides whether to ask again.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#http_config>. Texts of errors are
//! those that Prometheus's users know from Go's `net/http`.

#![forbid(unsafe_code)]

pub mod body;
pub mod client;
pub mod config;
mod connect;
mod error;
mod jwt;
mod oauth;
mod proxy;
mod socks;
mod span;
mod tls;
mod trust;

pub use client::Client;
pub use config::{
    Authorization, BasicAuth, ClientConfig, GrantType, HttpHeader, OAuth2Config, ProxyConfig, Secret,
    SecretSource, SignatureAlgorithm, TlsConfig, TlsVersion,
};
pub use error::Error;
pub use trust::element as der_element;
