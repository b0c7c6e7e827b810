//! The HTTP client of the sender and of remote read: one request, one bounded answer, a time-out around both.
//!
//! Connections are pooled per client. Redirects are not followed: they come back as the answer they are. TLS settings
//! are in [`tls`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub mod tls;

pub use tls::TlsConfig;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

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

/// A secret given in the configuration or in a file, which is read anew for each request so that it may rotate. Never
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself.
    Inline(String),
    /// A file that holds it; white space around it does not count.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("<secret>"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl Secret {
    async fn read(&self) -> Result<String, HttpError> {
        match self {
            Self::Inline(s) => Ok(s.clone()),
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(s) => Ok(s.trim().to_owned()),
                Err(e) => Err(HttpError::Config(format!("read secret {}: {e}", path.display()))),
            },
        }
    }
}

/// What the `Authorization` header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing.
    #[default]
    None,
    /// User and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// A scheme and its credentials.
    Scheme {
        /// `Bearer`, in most cases.
        scheme: String,
        /// The credentials.
        credentials: Secret,
    },
}

/// Settings of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Authorization.
    pub auth: Auth,
    /// TLS.
    pub tls: TlsConfig,
    /// Headers added to each request; they win over the client's own.
    pub headers: Vec<(String, String)>,
    /// Whether HTTP/2 may be negotiated over TLS.
    pub http2: bool,
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
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    auth: Auth,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpClient {
    /// A client. Reads the files that the TLS settings name.
    ///
    /// # Errors
    /// [`HttpError::Config`] for headers that are none, and for TLS files that cannot be read or do not fit.
    pub fn new(config: &HttpConfig) -> Result<Self, HttpError> {
        let connector = tls::connector(&config.tls, config.http2, CONNECT_TIMEOUT)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let agent = HeaderValue::from_static(concat!("almanac/", env!("CARGO_PKG_VERSION")));
        let mut headers = vec![(USER_AGENT, agent)];
        for (name, value) in &config.headers {
            let bad =
                || HttpError::Config(format!("header {name:?} has a name or value that HTTP does not allow"));
            let name = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            let value = HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
            headers.push((name, value));
        }
        Ok(Self { client, auth: config.auth.clone(), headers })
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
        let request = self.request(outgoing).await?;
        let response =
            self.client.request(request).await.map_err(|e| HttpError::Transport(with_causes(&e)))?;
        let (parts, body) = response.into_parts();
        let body = read_body(body, limit, need).await?;
        Ok(Response { status: parts.status, headers: parts.headers, body })
    }

    async fn request(&self, outgoing: Outgoing<'_>) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = outgoing.uri.clone();
        let headers = request.headers_mut();
        if let Some(value) = authorization(&self.auth).await? {
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in outgoing.headers.iter().chain(&self.headers) {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("auth", &self.auth).finish_non_exhaustive()
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
            Err(e) => return Err(HttpError::Transport(with_causes(&e))),
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

async fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, HttpError> {
    let text = match auth {
        Auth::None => return Ok(None),
        Auth::Basic { username, password } => {
            format!("Basic {}", base64(format!("{username}:{}", password.read().await?).as_bytes()))
        }
        Auth::Scheme { scheme, credentials } => format!("{scheme} {}", credentials.read().await?),
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| HttpError::Config("credentials hold bytes that a header cannot carry".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Base64 with padding, as Basic authorization needs it (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = [0_u8; 3];
        word[..group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for i in 0..4 {
            if i <= group.len() {
                out.push(DIGITS[(word >> (18 - 6 * i) & 63) as usize] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// An error with what caused it: hyper's own text says little ("client error").
fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standards() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("\u{ff}?", "w78/"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn urls_need_scheme_and_host() {
        assert!(parse_url("http://a:9090/api/v1/write?x=y").is_ok());
        for bad in ["", "a:9090", "/api", "ftp://a/", "http://", "http://a b/", "http://u:p@a/"] {
            let e = parse_url(bad).expect_err(bad);
            assert!(matches!(e, HttpError::Config(_)), "{e}");
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        let auth = Auth::Basic { username: "u".into(), password: Secret::Inline("hunter2".into()) };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
