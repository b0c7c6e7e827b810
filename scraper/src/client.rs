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
use model::{Clock, trace};
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

/// What all targets of a job are asked with.
pub(crate) struct JobClient {
    client: Result<httpclient::Client, String>,
    /// Headers but for the timeout, which targets may have of their own.
    headers: HeaderMap,
    body_limit: u64,
}

impl JobClient {
    pub(crate) fn new(clients: &Clients, config: &ScrapeConfig, user_agent: &str) -> Self {
        let mut headers = HeaderMap::new();
        put(&mut headers, ACCEPT, accept_header(&config.scrape_protocols, config.metric_name_escaping));
        let encoding = if config.enable_compression { "gzip" } else { "identity" };
        put(&mut headers, ACCEPT_ENCODING, encoding.into());
        put(&mut headers, USER_AGENT, user_agent.to_owned());
        let body_limit = match config.body_size_limit {
            0 => BODY_LEN_BYTES_MAX,
            n => n.min(BODY_LEN_BYTES_MAX),
        };
        Self { client: clients.get(&config.http), headers, body_limit }
    }

    /// Fetches a target's body. `socket` keeps the connections of one that has a unix socket; `expected_len` is a guess of
    /// the body's length. The future may be dropped at any time.
    ///
    /// # Errors
    /// Why there is no body.
    pub(crate) async fn fetch(
        &self,
        target: &Target,
        socket: &mut Option<httpclient::Client>,
        expected_len: usize,
    ) -> Result<Fetched, ScrapeFailure> {
        let failure = |reason: String| ScrapeFailure::Http { url: target.url(), reason };
        let client = self.client.as_ref().map_err(|e| failure(e.clone()))?;
        let client = match &*target.unix_socket {
            "" => client,
            path => socket.get_or_insert_with(|| client.over_unix_socket(path)),
        };
        let uri: Uri = target.url.parse().map_err(|e: http::uri::InvalidUri| failure(e.to_string()))?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&self.headers);
        let timeout = (target.timeout_ms as f64 / 1000.0).to_string();
        put(request.headers_mut(), HeaderName::from_static("x-prometheus-scrape-timeout-seconds"), timeout);
        let mut span = trace::client("scrapeRequest");
        if span.is_recording() {
            span.set("url", target.url());
        }
        let response = trace::within(span.link(), client.send(request)).await;
        drop(span);
        let response = response
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
        let mut span = trace::child("scrapeRead");
        let (content_type, encoding) = (header(CONTENT_TYPE), header(CONTENT_ENCODING));
        let body =
            httpclient::body::read(response.into_body(), &encoding, self.body_limit, expected_len).await;
        span.fail_if_err(&body);
        let body = body.map_err(|e| match e {
            BodyError::TooLarge => ScrapeFailure::BodySizeLimit,
            other => ScrapeFailure::Encoding(other.to_string()),
        })?;
        drop(span);
        Ok(Fetched { body, content_type })
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // What is built here from names and numbers is always a header value.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
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
