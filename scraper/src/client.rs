//! Fetches one target's body through the client that all targets with the same HTTP settings share.
//!
//! Everything is bounded: the whole fetch by the scrape timeout (by the caller), the body by `body_size_limit` after
//! decompression. Connections, credentials, redirects, proxies and TLS are `httpclient`'s.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Request, Response, StatusCode, Uri};
use httpclient::body::BodyError;
use hyper::body::Incoming;
use model::Clock;
use parking_lot::Mutex;

use crate::config::{HttpConfig, ScrapeConfig};
use crate::error::ScrapeFailure;
use crate::exposition::negotiation::accept_header;
use crate::target::Target;

/// Without a configured limit a body may still not fill the memory.
const BODY_LEN_BYTES_MAX: u64 = 512 << 20;

/// Clients by their settings: jobs with the same ones share connections and tokens.
pub(crate) struct Clients {
    clock: Arc<dyn Clock>,
    known: Mutex<Vec<httpclient::Client>>,
}

impl Clients {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }

    /// The client for these settings.
    ///
    /// # Errors
    /// Settings that cannot be used.
    fn get(&self, config: &HttpConfig) -> Result<httpclient::Client, String> {
        let mut known = self.known.lock();
        if let Some(client) = known.iter().find(|c| c.config() == config) {
            return Ok(client.clone());
        }
        known.retain(httpclient::Client::is_shared);
        let client = httpclient::Client::new(config.clone(), self.clock.clone())?;
        known.push(client.clone());
        Ok(client)
    }
}

/// A fetched body.
pub(crate) struct Fetched {
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: String,
}

/// The client of one target.
pub(crate) struct Client {
    client: Result<httpclient::Client, String>,
    url: String,
    headers: HeaderMap,
    body_limit: u64,
    last_body_len: usize,
}

impl Client {
    pub(crate) fn new(clients: &Clients, config: &ScrapeConfig, target: &Target, user_agent: &str) -> Self {
        let mut headers = HeaderMap::new();
        let mut put = |name, value: String| {
            // What is built here from names and numbers is always a header value.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        put(ACCEPT, accept_header(&config.scrape_protocols, config.metric_name_escaping));
        put(ACCEPT_ENCODING, if config.enable_compression { "gzip" } else { "identity" }.into());
        put(USER_AGENT, user_agent.to_owned());
        let timeout = (target.timeout_ms as f64 / 1000.0).to_string();
        put(HeaderName::from_static("x-prometheus-scrape-timeout-seconds"), timeout);
        let client = clients.get(&config.http).map(|c| match &*target.unix_socket {
            "" => c,
            path => c.over_unix_socket(path),
        });
        let body_limit = match config.body_size_limit {
            0 => BODY_LEN_BYTES_MAX,
            n => n.min(BODY_LEN_BYTES_MAX),
        };
        Self { client, url: target.url(), headers, body_limit, last_body_len: 0 }
    }

    /// Fetches the target's body. The future may be dropped at any time.
    ///
    /// # Errors
    /// Why there is no body.
    pub(crate) async fn fetch(&mut self) -> Result<Fetched, ScrapeFailure> {
        let failure = |reason: String| ScrapeFailure::Http { url: self.url.clone(), reason };
        let client = self.client.as_ref().map_err(|e| failure(e.clone()))?;
        let uri: Uri = self.url.parse().map_err(|e: http::uri::InvalidUri| failure(e.to_string()))?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&self.headers);
        let response = client
            .send(request)
            .await
            .map_err(|e| ScrapeFailure::Http { url: e.url().to_owned(), reason: e.reason().to_owned() })?;
        if response.status() != StatusCode::OK {
            return Err(ScrapeFailure::Status(status_text(&response)));
        }
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (content_type, encoding) = (header(CONTENT_TYPE), header(CONTENT_ENCODING));
        let body =
            httpclient::body::read(response.into_body(), &encoding, self.body_limit, self.last_body_len)
                .await;
        let body = body.map_err(|e| match e {
            BodyError::TooLarge => ScrapeFailure::BodySizeLimit,
            other => ScrapeFailure::Encoding(other.to_string()),
        })?;
        if !body.is_empty() {
            self.last_body_len = body.len();
        }
        Ok(Fetched { body, content_type })
    }
}

/// The status as the server worded it.
fn status_text(response: &Response<Incoming>) -> String {
    let status = response.status();
    let own = response.extensions().get::<hyper::ext::ReasonPhrase>();
    let reason = own.map_or_else(
        || status.canonical_reason().unwrap_or_default().into(),
        |r| String::from_utf8_lossy(r.as_bytes()).into_owned(),
    );
    format!("{} {reason}", status.as_u16()).trim_end().to_owned()
}
