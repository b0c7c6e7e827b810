//! Fetches one target's body: one HTTP/1.1 connection per target, kept alive and made anew when it closed.
//!
//! Everything is bounded: the whole fetch by the scrape timeout (by the caller), the body by `body_size_limit` after
//! decompression, redirects by ten. Credentials are read again for each connection, so that files can rotate, and are
//! not sent to another host that a redirect names. TLS lives in `client/tls.rs`.

mod tls;

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, LOCATION, USER_AGENT,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use url::Url;

use crate::config::{HttpConfig, ScrapeConfig, SecretSource};
use crate::error::{ScrapeFailure, ScraperError};
use crate::exposition::negotiation::accept_header;
use crate::target::Target;

const REDIRECTS_MAX: usize = 10;
/// Without a configured limit a body may still not fill the memory.
const BODY_LEN_BYTES_MAX: u64 = 512 << 20;

/// A fetched body.
pub(crate) struct Fetched {
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: String,
}

/// The client of one target.
pub(crate) struct Client {
    config: Arc<ScrapeConfig>,
    url: String,
    headers: HeaderMap,
    connection: Option<Connection>,
    last_body_len: usize,
}

struct Connection {
    authority: String,
    headers: HeaderMap,
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(crate) fn new(config: Arc<ScrapeConfig>, target: &Target, user_agent: &str) -> Self {
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
        Self { config, url: target.url(), headers, connection: None, last_body_len: 0 }
    }

    /// Drops the connection: whatever is under way on it is of no use any more.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Fetches the target's body. The future may be dropped at any time; then call [`Client::disconnect`].
    ///
    /// # Errors
    /// Why there is no body.
    pub(crate) async fn fetch(&mut self) -> Result<Fetched, ScrapeFailure> {
        let response = self.get().await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let reason = status.canonical_reason().unwrap_or_default();
            self.connection = None;
            return Err(ScrapeFailure::Status(format!("{} {reason}", status.as_u16()).trim_end().to_owned()));
        }
        let result = self.read_body(response).await;
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn get(&mut self) -> Result<Response<Incoming>, ScrapeFailure> {
        let origin = self.parse_url(&self.url)?;
        let mut url = origin.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.request(&url, &origin).await?;
            let redirects = self.config.http.follow_redirects
                && matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let Some(location) = location.filter(|_| redirects) else { return Ok(response) };
            url = url.join(location).map_err(|e| self.failure(format!("redirect to {location:?}: {e}")))?;
            // The rest of the answer is not read, so the connection is of no further use.
            self.connection = None;
        }
        Err(self.failure("stopped after 10 redirects"))
    }

    fn parse_url(&self, url: &str) -> Result<Url, ScrapeFailure> {
        Url::parse(url).map_err(|e| self.failure(e))
    }

    fn failure(&self, reason: impl ToString) -> ScrapeFailure {
        ScrapeFailure::Http { url: self.url.clone(), reason: reason.to_string() }
    }

    async fn request(&mut self, url: &Url, origin: &Url) -> Result<Response<Incoming>, ScrapeFailure> {
        let authority = authority(url);
        let fits = |c: &Connection| c.authority == authority && !c.sender.is_closed();
        let reused = self.connection.as_ref().is_some_and(fits);
        if !reused {
            self.connection = Some(self.connect(url, authority == self::authority(origin)).await?);
        }
        match self.send(url).await {
            // The target may close an idle connection just when it is used again: that is no failure of the target.
            Err(_) if reused => {
                self.connection = Some(self.connect(url, authority == self::authority(origin)).await?);
                self.send(url).await
            }
            result => result,
        }
    }

    async fn send(&mut self, url: &Url) -> Result<Response<Incoming>, ScrapeFailure> {
        let failure = |reason: String| ScrapeFailure::Http { url: self.url.clone(), reason };
        let Some(connection) = &mut self.connection else { return Err(failure("no connection".into())) };
        connection.sender.ready().await.map_err(|e| failure(e.to_string()))?;
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request =
            Request::get(path).body(Empty::<Bytes>::new()).map_err(|e| failure(e.to_string()))?;
        *request.headers_mut() = connection.headers.clone();
        connection.sender.send_request(request).await.map_err(|e| failure(chain(&e)))
    }

    async fn connect(&self, url: &Url, with_credentials: bool) -> Result<Connection, ScrapeFailure> {
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(self.failure(format!("unsupported protocol scheme {other:?}"))),
        };
        let host = url.host_str().ok_or_else(|| self.failure("no host in URL"))?;
        let port = url.port_or_known_default().unwrap_or(80);
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, port))
            .await
            .map_err(|e| self.failure(format!("dial tcp {host}:{port}: {e}")))?;
        // Requests are small and wait for their answer.
        let _ = stream.set_nodelay(true);
        let (sender, driver) = if tls {
            let stream = tls::connect(&self.config.http.tls, name, stream).await?;
            start(TokioIo::new(stream)).await
        } else {
            start(TokioIo::new(stream)).await
        }
        .map_err(|e| self.failure(chain(&e)))?;
        let mut headers = self.headers.clone();
        let host_header = HeaderValue::try_from(host_header(url)).map_err(|e| self.failure(e))?;
        headers.insert(HOST, host_header);
        add_headers(&self.config.http, with_credentials, &mut headers).await?;
        Ok(Connection { authority: authority(url), headers, sender, driver })
    }

    async fn read_body(&mut self, response: Response<Incoming>) -> Result<Fetched, ScrapeFailure> {
        let header = |name| {
            response.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default()
        };
        let content_type = header(CONTENT_TYPE).to_owned();
        let gzip = header(CONTENT_ENCODING) == "gzip";
        let limit = match self.config.body_size_limit {
            0 => BODY_LEN_BYTES_MAX,
            n => n.min(BODY_LEN_BYTES_MAX),
        };
        let out = Limited { bytes: Vec::with_capacity(self.last_body_len), limit, exceeded: false };
        let mut sink = if gzip { Sink::Gzip(MultiGzDecoder::new(out)) } else { Sink::Plain(out) };
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.failure(chain(&e)))?;
            if let Some(data) = frame.data_ref() {
                sink.write(data)?;
            }
        }
        let body = sink.finish()?;
        if !body.is_empty() {
            self.last_body_len = body.len();
        }
        Ok(Fetched { body, content_type })
    }
}

async fn start<T>(io: T) -> Result<(SendRequest<Empty<Bytes>>, JoinHandle<()>), hyper::Error>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await?;
    // The connection's own error shows at the request that waits on it.
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((sender, driver))
}

fn authority(url: &Url) -> String {
    url[..url::Position::BeforePath].to_owned()
}

fn host_header(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}

/// An error with its causes, as one line.
fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        out.push_str(": ");
        out.push_str(&s.to_string());
        source = s.source();
    }
    out
}

// === Credentials ===

async fn add_headers(
    config: &HttpConfig,
    with_credentials: bool,
    headers: &mut HeaderMap,
) -> Result<(), ScraperError> {
    for h in &config.headers {
        let name = HeaderName::try_from(h.name.as_str()).map_err(|e| bad_header(&h.name, e))?;
        for v in &h.values {
            let value = read_secret(v).await?;
            headers.append(name.clone(), HeaderValue::try_from(value).map_err(|e| bad_header(&h.name, e))?);
        }
    }
    if !with_credentials {
        return Ok(());
    }
    let mut value = None;
    if let Some(basic) = &config.basic_auth {
        let user = read_secret(&basic.username).await?;
        let password = match &basic.password {
            Some(p) => read_secret(p).await?,
            None => String::new(),
        };
        value = Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())));
    } else if let Some(authorization) = &config.authorization {
        let credentials = match &authorization.credentials {
            Some(c) => read_secret(c).await?,
            None => String::new(),
        };
        value = Some(format!("{} {credentials}", authorization.kind));
    }
    if let Some(value) = value {
        let mut value = HeaderValue::try_from(value).map_err(|e| bad_header("Authorization", e))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(())
}

fn bad_header(name: &str, e: impl ToString) -> ScraperError {
    ScraperError::Header { name: name.to_owned(), reason: e.to_string() }
}

/// Reads a secret; blanks around what a file holds do not count.
async fn read_secret(source: &SecretSource) -> Result<String, ScraperError> {
    match source {
        SecretSource::Inline(s) => Ok(s.expose().to_owned()),
        SecretSource::File(path) => {
            let text = tokio::fs::read_to_string(path).await.map_err(|e| ScraperError::File {
                what: "read credentials file",
                path: path.clone(),
                reason: e.to_string(),
            })?;
            Ok(text.trim().to_owned())
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let n = group.iter().fold(0_u32, |n, b| (n << 8) | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= group.len() { digit } else { '=' });
        }
    }
    out
}

// === Body ===

/// Bytes up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: u64,
    exceeded: bool,
}

impl Write for Limited {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if (self.bytes.len() + data.len()) as u64 >= self.limit {
            self.exceeded = true;
            return Err(std::io::Error::other("body size limit exceeded"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Sink {
    Plain(Limited),
    Gzip(MultiGzDecoder<Limited>),
}

impl Sink {
    fn write(&mut self, data: &[u8]) -> Result<(), ScrapeFailure> {
        match self {
            Sink::Plain(out) => out.write_all(data).map_err(|_| ScrapeFailure::BodySizeLimit),
            Sink::Gzip(decoder) => {
                let result = decoder.write_all(data);
                result.map_err(|e| gzip_failure(decoder.get_ref(), &e))
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, ScrapeFailure> {
        match self {
            Sink::Plain(out) => Ok(out.bytes),
            Sink::Gzip(mut decoder) => {
                let result = decoder.try_finish();
                result.map_err(|e| gzip_failure(decoder.get_ref(), &e))?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }
}

fn gzip_failure(out: &Limited, e: &std::io::Error) -> ScrapeFailure {
    if out.exceeded { ScrapeFailure::BodySizeLimit } else { ScrapeFailure::Encoding(format!("gzip: {e}")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_as_the_rfc_has_it() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(super::base64(plain.as_bytes()), coded);
        }
    }
}
