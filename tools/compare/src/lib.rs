//! Sends the same random queries to two Prometheus-compatible servers that hold the same data, and tells what differs.
//!
//! Reading order: [`session`] loads data and asks; [`answer`] reads answers, [`difference`] compares two of them, [`known`]
//! names the differences between Prometheus 2.x and 3.x that are meant to be; [`client`] speaks HTTP. The queries are those
//! of `promql_testkit::generate`.

#![forbid(unsafe_code)]

pub mod answer;
pub mod client;
pub mod difference;
pub mod known;
pub mod session;

pub use client::Client;
pub use session::{Finding, Options, Report, run};

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("{0:?} is no address of the form http://host:port")]
    Address(String),
    /// Nobody answers, or not with HTTP.
    #[error("{method} {address}{path}: {reason}")]
    Http {
        /// The method.
        method: &'static str,
        /// The server.
        address: String,
        /// The path.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The answer is not what the HTTP API says it is.
    #[error("{address}: {reason}")]
    Answer {
        /// The server.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The data makes no request.
    #[error("the data cannot be sent: {0}")]
    Encode(#[from] wire::Error),
    /// Data was not taken.
    #[error("{address} did not take the data: {status} {text}")]
    Load {
        /// The server.
        address: String,
        /// The HTTP status.
        status: u16,
        /// The body.
        text: String,
    },
}
