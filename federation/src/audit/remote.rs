//! Digests of another node, asked for over HTTP. Calls block, as in [`crate::remote_read`].

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Uri};
use model::{Matcher, StorageError};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Handle;
use wire::digest::{self, WindowDigest};

use super::DigestSource;
use crate::config::RemoteReadConfig;
use crate::http::{HttpClient, HttpError, Need, Outgoing, parse_url};
use crate::sender::selector_text;
use crate::transport::Transport;

/// Another node as a source of digests.
pub struct RemoteDigests {
    config: RemoteReadConfig,
    uri: Uri,
    transport: Arc<dyn Transport>,
    runtime: Handle,
}

impl RemoteDigests {
    /// The node whose base address is `base`; `config` says how to speak to it.
    ///
    /// # Errors
    /// [`HttpError::Config`] for settings that cannot be used.
    pub fn new(base: &str, config: RemoteReadConfig, runtime: Handle) -> Result<Self, HttpError> {
        let uri = parse_url(&format!("{}/api/v1/longterm/digest", base.trim_end_matches('/')))?;
        let transport = Arc::new(HttpClient::new(&config.http)?);
        Ok(Self { config, uri, transport, runtime })
    }

    fn unavailable(&self, reason: impl Into<String>) -> StorageError {
        let who = format!("digests of {:?}", self.config.name);
        StorageError::Unavailable { who, reason: reason.into() }
    }
}

impl DigestSource for RemoteDigests {
    fn digests(
        &self,
        sets: &[Vec<Matcher>],
        mint: i64,
        maxt: i64,
    ) -> Result<Vec<WindowDigest>, StorageError> {
        let mut form = format!("start={}&end={}", seconds(mint), seconds(maxt));
        for set in sets {
            let selector = selector_text(set);
            let escaped = utf8_percent_encode(&selector, NON_ALPHANUMERIC);
            // Writing to a string does not fail.
            let _ = write!(form, "&match%5B%5D={escaped}");
        }
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))];
        let request = Outgoing {
            method: Method::POST,
            uri: &self.uri,
            headers: &headers,
            body: Bytes::from(form),
            timeout: self.config.timeout,
            response_limit_bytes: self.config.max_response_bytes,
            need: Need::Whole,
        };
        let response = self
            .runtime
            .block_on(self.transport.send(request))
            .map_err(|e| self.unavailable(e.to_string()))?;
        if !response.status.is_success() {
            let status = response.status;
            return Err(self.unavailable(format!("HTTP status {status}: {}", response.first_line())));
        }
        digest::decode(&response.body).map_err(|e| self.unavailable(e.to_string()))
    }
}

/// Milliseconds as seconds with three digits after the point.
pub(crate) fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}
