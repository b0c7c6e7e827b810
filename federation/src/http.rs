//! The HTTP client of the sender and of remote read: one request, one bounded answer, a time-out around both.
//!
//! Connections, credentials, redirects, proxies and TLS are `httpclient`'s.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use httpclient::ClientConfig;
use hyper::body::Incoming;
use model::SystemClock;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HttpError {
    /// A setting that cannot be used.
    #[error("{0}")]
    Config(String),
    /// No complete answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or it broke.
    #[error("{0}")]
    Transport(String),
    /// The answer is longer than is taken.
    #[error("answer exceeds the limit of {0} bytes")]
    TooLarge(usize),
}

/// Settings of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpConfig {
    /// How to speak to the server.
    pub client: ClientConfig,
    /// Headers set on each request; they win over all others.
    pub headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The value of a header, or the empty string.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The first line of the body, cut to what fits a log line.
    #[must_use]
    pub fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.trim().lines().next().unwrap_or("").chars().take(512).collect()
    }
}

/// A request, to be sent once.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Method.
    pub method: Method,
    /// Whole address.
    pub uri: &'a Uri,
    /// Headers of this request.
    pub headers: &'a [(HeaderName, HeaderValue)],
    /// Body.
    pub body: Bytes,
    /// From the start until the last byte of the answer.
    pub timeout: Duration,
    /// Longest answer taken.
    pub response_limit_bytes: usize,
    /// What is needed of the answer.
    pub need: Need,
}

/// What is needed of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All of it: too long a body, or one that breaks off, is an error.
    Whole,
    /// The status decides; of the body as much as there is within the limit, for a message.
    Status,
}

/// A client with its pool of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: httpclient::Client,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpClient {
    /// A client. Reads no file yet.
    ///
    /// # Errors
    /// [`HttpError::Config`] for headers that are none, and for settings that contradict each other.
    pub fn new(config: &HttpConfig) -> Result<Self, HttpError> {
        // Dates of assertions are all that the clock is for.
        let client = httpclient::Client::new(config.client.clone(), SystemClock::shared())
            .map_err(HttpError::Config)?;
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let bad =
                || HttpError::Config(format!("header {name:?} has a name or value that HTTP does not allow"));
            let name = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            let value = HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
            headers.push((name, value));
        }
        Ok(Self { client, headers })
    }

    /// Sends a request and waits for the whole answer, whatever its status.
    ///
    /// # Errors
    /// When there is no complete answer within the limits.
    pub async fn send(&self, outgoing: Outgoing<'_>) -> Result<Response, HttpError> {
        let timeout = outgoing.timeout;
        match tokio::time::timeout(timeout, self.send_within_limits(outgoing)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout(timeout)),
        }
    }

    async fn send_within_limits(&self, outgoing: Outgoing<'_>) -> Result<Response, HttpError> {
        let (limit, need) = (outgoing.response_limit_bytes, outgoing.need);
        let request = self.request(outgoing);
        let response = self.client.send(request).await.map_err(|e| HttpError::Transport(e.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = read_body(body, limit, need).await?;
        Ok(Response { status: parts.status, headers: parts.headers, body })
    }

    fn request(&self, outgoing: Outgoing<'_>) -> Request<Bytes> {
        let mut request = Request::new(outgoing.body);
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = outgoing.uri.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("almanac/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in outgoing.headers.iter().chain(&self.headers) {
            headers.insert(name, value.clone());
        }
        request
    }
}

/// Reads an address.
///
/// # Errors
/// [`HttpError::Config`] unless it is `http://` or `https://` with a host and without credentials.
pub fn parse_url(url: &str) -> Result<Uri, HttpError> {
    let uri: Uri = url.parse().map_err(|e| HttpError::Config(format!("url {url:?}: {e}")))?;
    let scheme = uri.scheme_str().unwrap_or("");
    if !matches!(scheme, "http" | "https") || uri.host().is_none_or(str::is_empty) {
        return Err(HttpError::Config(format!("url {url:?} is not http://host/… or https://host/…")));
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        // They would show up in metrics and logs.
        return Err(HttpError::Config("a url must not hold credentials; set basic_auth instead".into()));
    }
    Ok(uri)
}

async fn read_body(mut body: Incoming, limit: usize, need: Need) -> Result<Bytes, HttpError> {
    let mut out = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(_) if need == Need::Status => break,
            Err(e) => return Err(HttpError::Transport(httpclient::body::broken(&e))),
        };
        let room = limit - out.len();
        if data.len() > room {
            if need == Need::Whole {
                return Err(HttpError::TooLarge(limit));
            }
            out.extend_from_slice(&data[..room]);
            break;
        }
        out.extend_from_slice(&data);
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_need_scheme_and_host() {
        assert!(parse_url("http://a:9090/api/v1/write?x=y").is_ok());
        for bad in ["", "a:9090", "/api", "ftp://a/", "http://", "http://a b/", "http://u:p@a/"] {
            let e = parse_url(bad).expect_err(bad);
            assert!(matches!(e, HttpError::Config(_)), "{e}");
        }
    }
}
