//! One request: headers and credentials put on, redirects followed, connections kept for the next one.
//!
//! Credentials are for the host that was asked first and its subdomains; once a redirect has left it they stay off, as
//! in Go. Files are read for each request; a changed certificate or key makes new connections.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName,
    HeaderValue, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, REFERER, TRANSFER_ENCODING, USER_AGENT,
    WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::Clock;
use tokio::time::Instant;
use url::Url;

use crate::config::ClientConfig;
use crate::connect::{Connector, Dial, Settings, port_of, proxy_authorization};
use crate::error::{Error, reason};
use crate::oauth::Tokens;
use crate::proxy::Proxies;
use crate::tls::{self, Material};

/// Requests of one call, the first included.
const REQUESTS_MAX: usize = 10;
/// How long an unused connection is kept: longer than any sane scrape interval.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How often an HTTP/2 connection is asked whether it still lives.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
/// How often files of the TLS settings are read again.
const TLS_FILES_INTERVAL: Duration = Duration::from_secs(1);
/// A redirect's body up to this length is read, so that its connection can be used again.
const REDIRECT_LEN_BYTES_MAX: u64 = 2 << 10;

/// Headers that are for the first host only.
const SENSITIVE: [HeaderName; 5] =
    [AUTHORIZATION, WWW_AUTHENTICATE, COOKIE, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE];

type HyperClient = Pool<Connector, Full<Bytes>>;

/// A client with its pool of connections and its token. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
}

/// What clients of one configuration have in common, wherever they connect to.
struct Shared {
    config: ClientConfig,
    proxies: Arc<Proxies>,
    proxy_connect_headers: HeaderMap,
    tokens: Option<Tokens>,
}

struct Connections {
    dial: Dial,
    versions: Versions,
    plain: HyperClient,
    tls: RwLock<Option<Arc<TlsConnections>>>,
}

/// What of HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Versions {
    /// HTTP/1.1, and HTTP/2 where TLS agrees on it.
    Any,
    Http2,
}

struct TlsConnections {
    client: HyperClient,
    material: Material,
    checked: RwLock<Instant>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Client {
    /// A client. Opens no file and no connection; needs a runtime only when it is used. `clock` dates assertions.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn new(config: ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, String> {
        config.check()?;
        let proxies = Arc::new(Proxies::new(&config.proxy)?);
        let mut proxy_connect_headers = HeaderMap::new();
        for (name, values) in &config.proxy.connect_headers {
            let key = header_name(name)?;
            for value in values {
                proxy_connect_headers.append(key.clone(), header_value(name, value.expose())?);
            }
        }
        for header in &config.headers {
            header_name(&header.name)?;
        }
        let tokens = config.oauth2.clone().map(|o| Tokens::new(o, clock)).transpose()?;
        let shared = Arc::new(Shared { config, proxies, proxy_connect_headers, tokens });
        Ok(Self { connections: Arc::new(Connections::new(&shared, Dial::Tcp, Versions::Any)), shared })
    }

    /// The same client, but all its connections go to the unix socket at `path`.
    #[must_use]
    pub fn over_unix_socket(&self, path: impl Into<std::path::PathBuf>) -> Self {
        let connections = Connections::new(&self.shared, Dial::Unix(path.into()), Versions::Any);
        Self { shared: self.shared.clone(), connections: Arc::new(connections) }
    }

    /// The same client, but it speaks HTTP/2 and nothing else, without TLS too, as gRPC has it.
    #[must_use]
    pub fn over_http2(&self) -> Self {
        let connections = Connections::new(&self.shared, self.connections.dial.clone(), Versions::Http2);
        Self { shared: self.shared.clone(), connections: Arc::new(connections) }
    }

    /// Whether there is another one with the same connections.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.connections) > 1
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// Sends a request to an absolute URL, follows redirects if it may, and gives the answer with its body unread.
    /// There is no time limit; a dropped future gives up the request.
    ///
    /// # Errors
    /// Why there is no answer. Any status is an answer.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, Error> {
        let (parts, body) = request.into_parts();
        let mut hop = Hop { method: parts.method, url: parts.uri.to_string(), headers: parts.headers, body };
        let first_host = parts.uri.host().unwrap_or_default().to_ascii_lowercase();
        let mut strayed = false;
        let mut requests = 0;
        loop {
            let response = self.once(&hop, strayed).await.map_err(|e| hop.error(e))?;
            requests += 1;
            let status = response.status().as_u16();
            if !self.shared.config.follow_redirects || !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let Some(location) = response.headers().get(LOCATION) else { return Ok(response) };
            let next = hop.next_url(location).map_err(|e| hop.error(e))?;
            let host = next.host_str().unwrap_or_default().to_ascii_lowercase();
            hop.redirect(status, next);
            if requests >= REQUESTS_MAX {
                return Err(hop.error(format!("stopped after {REQUESTS_MAX} redirects")));
            }
            strayed = strayed || !is_same_or_sub(&host, &first_host);
            drain(response.into_body()).await;
        }
    }

    async fn once(&self, hop: &Hop, strayed: bool) -> Result<Response<Incoming>, String> {
        let uri: Uri = hop.url.parse().map_err(|e| format!("parse {:?}: {e}", hop.url))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            other => return Err(format!("unsupported protocol scheme {:?}", other.unwrap_or_default())),
        };
        if uri.host().is_none_or(str::is_empty) {
            return Err("no Host in request URL".into());
        }
        let port = port_of(&uri, https)?;
        let mut headers = hop.headers.clone();
        let mut span = crate::span::of_request(&hop.method, &uri, https);
        crate::span::inject(&span.link(), &mut headers);
        let sent = self.send_to(hop, strayed, uri, port, https, headers).await;
        crate::span::note_answer(&mut span, &sent);
        sent
    }

    /// Puts on what the configuration has, and sends to where `uri` says.
    async fn send_to(
        &self,
        hop: &Hop,
        strayed: bool,
        mut uri: Uri,
        port: u16,
        https: bool,
        mut headers: HeaderMap,
    ) -> Result<Response<Incoming>, String> {
        let host = uri.host().unwrap_or_default();
        let proxy = match self.connections.dial {
            Dial::Tcp => self.shared.proxies.of(https, host, port),
            Dial::Unix(_) => None,
        };
        self.add_configured(&mut headers).await?;
        if strayed {
            for name in SENSITIVE {
                headers.remove(name);
            }
            headers.remove("cookie2");
        }
        let user_info = take_user_info(&mut uri)?;
        if !headers.contains_key(AUTHORIZATION) {
            let value = match user_info {
                Some(value) => Some(value),
                None if strayed => None,
                None => self.shared.authorization(headers.get(USER_AGENT)).await?,
            };
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, value);
            }
        }
        if let Some(proxy) = proxy.filter(|p| !https && matches!(p.scheme(), "http" | "https"))
            && let Some(value) = proxy_authorization(proxy)
        {
            headers.insert(PROXY_AUTHORIZATION, value);
        }
        let needs_tls = https || proxy.is_some_and(|p| p.scheme() == "https");
        let client =
            if needs_tls { self.tls().await?.client.clone() } else { self.connections.plain.clone() };
        let mut request = Request::new(Full::new(hop.body.clone()));
        *request.method_mut() = hop.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        client.request(request).await.map_err(|e| reason(&e))
    }

    async fn add_configured(&self, headers: &mut HeaderMap) -> Result<(), String> {
        for header in &self.shared.config.headers {
            let name = header_name(&header.name)?;
            for source in &header.values {
                let text = source
                    .read()
                    .await
                    .map_err(|e| e.replacen("unable to read file", "unable to read headers file", 1))?;
                headers.append(name.clone(), header_value(&header.name, &text)?);
            }
        }
        Ok(())
    }

    /// Connections with TLS settings as their files are now.
    async fn tls(&self) -> Result<Arc<TlsConnections>, String> {
        let config = &self.shared.config;
        let current = self.connections.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(current) = &current
            && (!tls::has_files(&config.tls) || current.is_fresh())
        {
            return Ok(current.clone());
        }
        let material = Material::read(&config.tls).await?;
        if let Some(current) = current.filter(|c| c.material == material) {
            *current.checked.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(current);
        }
        let settings = tls::settings(&config.tls, &material, config.enable_http2)?;
        let Connections { dial, versions, .. } = &*self.connections;
        let client = self.shared.pool(dial, Some(Arc::new(settings)), *versions);
        let made = Arc::new(TlsConnections { client, material, checked: RwLock::new(Instant::now()) });
        let mut slot = self.connections.tls.write().unwrap_or_else(PoisonError::into_inner);
        // Another request may have been faster; its connections are as good.
        if let Some(other) = slot.as_ref().filter(|o| o.material == made.material) {
            return Ok(other.clone());
        }
        *slot = Some(made.clone());
        Ok(made)
    }
}

impl TlsConnections {
    fn is_fresh(&self) -> bool {
        self.checked.read().unwrap_or_else(PoisonError::into_inner).elapsed() < TLS_FILES_INTERVAL
    }
}

impl Connections {
    fn new(shared: &Shared, dial: Dial, versions: Versions) -> Self {
        Self { plain: shared.pool(&dial, None, versions), tls: RwLock::default(), dial, versions }
    }
}

impl Shared {
    fn pool(
        &self,
        dial: &Dial,
        tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
        versions: Versions,
    ) -> HyperClient {
        let connector = Connector::new(Settings {
            dial: dial.clone(),
            proxies: self.proxies.clone(),
            proxy_connect_headers: self.proxy_connect_headers.clone(),
            tls,
            server_name: self.config.tls.server_name.clone(),
        });
        Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
            .http2_only(versions == Versions::Http2)
            .build(connector)
    }

    async fn authorization(&self, user_agent: Option<&HeaderValue>) -> Result<Option<HeaderValue>, String> {
        if let Some(tokens) = &self.tokens {
            return tokens.authorization(user_agent).await.map(Some);
        }
        if let Some(basic) = &self.config.basic_auth {
            let user = basic
                .username
                .read()
                .await
                .map_err(|e| format!("unable to read basic auth username: {e}"))?;
            let password = match &basic.password {
                Some(p) => p.read().await.map_err(|e| format!("unable to read basic auth password: {e}"))?,
                None => String::new(),
            };
            return sensitive(&format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
                .map(Some);
        }
        let Some(authorization) = &self.config.authorization else { return Ok(None) };
        let credentials = match &authorization.credentials {
            Some(c) => {
                c.read().await.map_err(|e| format!("unable to read authorization credentials: {e}"))?
            }
            None => String::new(),
        };
        sensitive(&format!("{} {credentials}", authorization.kind)).map(Some)
    }
}

/// One request of a call.
struct Hop {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Hop {
    fn error(&self, reason: String) -> Error {
        Error::new(&self.method, &self.url, reason)
    }

    fn next_url(&self, location: &HeaderValue) -> Result<Url, String> {
        let text = String::from_utf8_lossy(location.as_bytes()).into_owned();
        let here = Url::parse(&self.url).map_err(|e| format!("parse {:?}: {e}", self.url))?;
        here.join(&text).map_err(|e| format!("failed to parse Location header {text:?}: {e}"))
    }

    fn redirect(&mut self, status: u16, next: Url) {
        let keeps_method = matches!(status, 307 | 308) || matches!(self.method, Method::GET | Method::HEAD);
        if !keeps_method {
            self.method = Method::GET;
            self.body = Bytes::new();
            for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING] {
                self.headers.remove(name);
            }
        }
        if let Ok(mut here) = Url::parse(&self.url) {
            let downgrade = here.scheme() == "https" && next.scheme() == "http";
            // An http URL can do without user and password.
            let _ = (here.set_username(""), here.set_password(None));
            here.set_fragment(None);
            match HeaderValue::try_from(here.as_str()) {
                Ok(value) if !downgrade => self.headers.insert(REFERER, value),
                _ => self.headers.remove(REFERER),
            };
        }
        self.url = next.into();
    }
}

/// Whether `host` is `parent` or below it.
fn is_same_or_sub(host: &str, parent: &str) -> bool {
    if parent.is_empty() {
        return false;
    }
    host == parent
        || !host.contains([':', '%']) && host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// `user:password@` of a URL as a header; it is no part of a request's address.
fn take_user_info(uri: &mut Uri) -> Result<Option<HeaderValue>, String> {
    let Some((user_info, address)) = uri.authority().and_then(|a| a.as_str().rsplit_once('@')) else {
        return Ok(None);
    };
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let pair = format!("{}:{}", crate::connect::decoded(user), crate::connect::decoded(password));
    let value = sensitive(&format!("Basic {}", base64(pair.as_bytes())))?;
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(address.parse().map_err(|e| format!("parse {address:?}: {e}"))?);
    *uri = Uri::from_parts(parts).map_err(|e| e.to_string())?;
    Ok(Some(value))
}

/// Reads the rest of a short body: its connection can be used again.
async fn drain(body: Incoming) {
    if body.size_hint().upper().is_some_and(|n| n <= REDIRECT_LEN_BYTES_MAX) {
        // A connection that breaks here is not used again.
        let _ = crate::body::collect_at_most(body, REDIRECT_LEN_BYTES_MAX as usize + 1).await;
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(name).map_err(|_| format!("net/http: invalid header field name {name:?}"))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, String> {
    // The value may be a secret.
    HeaderValue::try_from(value).map_err(|_| format!("net/http: invalid header field value for {name:?}"))
}

fn sensitive(value: &str) -> Result<HeaderValue, String> {
    let mut value = header_value("Authorization", value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Base64 with padding (RFC 4648, section 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let n = group.iter().fold(0_u32, |n, b| (n << 8) | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = DIGITS[(n >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= group.len() { digit } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests;
