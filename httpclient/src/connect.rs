//! From an address to a connection: TCP or a unix socket, through a proxy if one is set, with TLS for `https`.
//!
//! Addresses of both families are tried as RFC 8305 has it: those of the second family begin 300 ms later. There is
//! no time limit but that of the handshake: who asks sets one for the whole request.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::header::{HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tower_service::Service;
use url::Url;

use crate::error::{os_text, reason};
use crate::proxy::Proxies;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first family of addresses has for itself.
const FALLBACK_DELAY: Duration = Duration::from_millis(300);
/// Longest answer of a proxy to `CONNECT`.
const PROXY_ANSWER_LEN_BYTES_MAX: usize = 16 << 10;

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectError(pub(crate) String);

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectError {}

/// Where connections go.
#[derive(Clone, Debug, Default)]
pub(crate) enum Dial {
    /// To the host of the URL, or its proxy.
    #[default]
    Tcp,
    /// To this socket, whatever the host of the URL.
    Unix(PathBuf),
}

/// Makes connections; cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Settings>);

pub(crate) struct Settings {
    pub(crate) dial: Dial,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) proxy_connect_headers: HeaderMap,
    /// Absent as long as nothing asked for TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Name expected in certificates; empty: the host.
    pub(crate) server_name: String,
}

impl Connector {
    pub(crate) fn new(settings: Settings) -> Self {
        Self(Arc::new(settings))
    }
}

impl Service<Uri> for Connector {
    type Response = Conn;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Conn, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let settings = self.0.clone();
        Box::pin(async move { settings.connect(&uri).await.map_err(ConnectError) })
    }
}

/// The port of a URL, or that of its scheme.
///
/// # Errors
/// When what is written there is no port.
pub(crate) fn port_of(uri: &Uri, https: bool) -> Result<u16, String> {
    if let Some(port) = uri.port_u16() {
        return Ok(port);
    }
    let authority = uri.authority().map_or("", |a| a.as_str());
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let written = address.rsplit_once(':').map(|(_, port)| port);
    match written.filter(|port| !port.is_empty() && !port.ends_with(']')) {
        Some(port) => Err(format!("dial tcp: address {port}: invalid port")),
        None => Ok(if https { 443 } else { 80 }),
    }
}

impl Settings {
    async fn connect(&self, uri: &Uri) -> Result<Conn, String> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let port = port_of(uri, https)?;
        let (stream, forwarded) = match &self.dial {
            Dial::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|e| format!("dial unix {}: connect: {}", path.display(), os_text(&e)))?;
                (Box::new(stream) as BoxIo, false)
            }
            Dial::Tcp => match self.proxies.of(https, host, port) {
                None => (Box::new(dial(host, port).await?) as BoxIo, false),
                Some(proxy) => self.through(proxy, https, host, port).await?,
            },
        };
        if !https {
            return Ok(Conn { io: TokioIo::new(stream), forwarded, h2: false });
        }
        let tls = self.tls.clone().ok_or("tls: not set up")?;
        let stream = self.handshake(tls, host, stream).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Conn { io: TokioIo::new(Box::new(stream)), forwarded: false, h2 })
    }

    async fn handshake(
        &self,
        tls: Arc<ClientConfig>,
        host: &str,
        stream: BoxIo,
    ) -> Result<tokio_rustls::client::TlsStream<BoxIo>, String> {
        let name = if self.server_name.is_empty() { bare(host) } else { &self.server_name };
        let server =
            ServerName::try_from(name.to_owned()).map_err(|e| format!("tls: server name {name:?}: {e}"))?;
        let handshake = TlsConnector::from(tls).connect(server, stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(result) => result.map_err(|e| reason(&e)),
            Err(_) => Err("net/http: TLS handshake timeout".into()),
        }
    }

    /// A stream to the target through a proxy, and whether the proxy forwards single requests.
    async fn through(
        &self,
        proxy: &Url,
        https: bool,
        host: &str,
        port: u16,
    ) -> Result<(BoxIo, bool), String> {
        let proxy_host = proxy.host_str().unwrap_or_default();
        let default_port = match proxy.scheme() {
            "https" => 443,
            "socks5" | "socks5h" => 1080,
            _ => 80,
        };
        let proxy_port = proxy.port().unwrap_or(default_port);
        let socks = match proxy.scheme() {
            "socks5" | "socks5h" => true,
            "http" | "https" => false,
            other => return Err(format!("unsupported protocol scheme {other:?}")),
        };
        let dialed = dial(proxy_host, proxy_port).await;
        if socks {
            let failed =
                |e: String| format!("socks connect tcp {proxy_host}:{proxy_port}->{host}:{port}: {e}");
            let mut stream = dialed.map_err(failed)?;
            let user = decoded(proxy.username());
            let password = decoded(proxy.password().unwrap_or_default());
            let credentials = (!user.is_empty()).then_some((user.as_str(), password.as_str()));
            crate::socks::connect(&mut stream, host, port, credentials).await.map_err(failed)?;
            return Ok((Box::new(stream), false));
        }
        let failed = |e: String| format!("proxyconnect tcp: {e}");
        let mut stream: BoxIo = Box::new(dialed.map_err(failed)?);
        if proxy.scheme() == "https" {
            let mut tls = (**self.tls.as_ref().ok_or("tls: not set up")?).clone();
            tls.alpn_protocols.clear();
            stream = Box::new(self.handshake(Arc::new(tls), proxy_host, stream).await.map_err(failed)?);
        }
        if !https {
            return Ok((stream, true));
        }
        self.ask_for_tunnel(&mut stream, proxy, host, port).await?;
        Ok((stream, false))
    }

    async fn ask_for_tunnel(
        &self,
        stream: &mut BoxIo,
        proxy: &Url,
        host: &str,
        port: u16,
    ) -> Result<(), String> {
        let mut text = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        let mut line = |name: &HeaderName, value: &HeaderValue| {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        };
        for (name, value) in &self.proxy_connect_headers {
            line(name, value);
        }
        if !self.proxy_connect_headers.contains_key(PROXY_AUTHORIZATION)
            && let Some(value) = proxy_authorization(proxy)
        {
            line(&PROXY_AUTHORIZATION, &value);
        }
        text.extend_from_slice(b"\r\n");
        stream.write_all(&text).await.map_err(|e| os_text(&e))?;
        let mut answer = Vec::new();
        // Byte by byte: what follows the empty line belongs to the target.
        while !answer.ends_with(b"\r\n\r\n") && !answer.ends_with(b"\n\n") {
            if answer.len() >= PROXY_ANSWER_LEN_BYTES_MAX {
                return Err("net/http: server response headers exceeded 16384 bytes; aborted".into());
            }
            match stream.read_u8().await {
                Ok(b) => answer.push(b),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof && answer.is_empty() => {
                    return Err("EOF".into());
                }
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err("unexpected EOF".into());
                }
                Err(e) => return Err(os_text(&e)),
            }
        }
        let first =
            String::from_utf8_lossy(answer.split(|b| *b == b'\r' || *b == b'\n').next().unwrap_or_default())
                .into_owned();
        let (version, status) = first.split_once(' ').unwrap_or((&first, ""));
        if !version.starts_with("HTTP/1.") {
            return Err(format!("malformed HTTP response {first:?}"));
        }
        let (code, text) = status.split_once(' ').unwrap_or((status, ""));
        match (code, text) {
            ("200", _) => Ok(()),
            (_, "") => Err("unknown status code".into()),
            (_, text) => Err(text.to_owned()),
        }
    }
}

/// `Proxy-Authorization` for a proxy whose URL has a user.
pub(crate) fn proxy_authorization(proxy: &Url) -> Option<HeaderValue> {
    if proxy.username().is_empty() {
        return None;
    }
    let pair = format!("{}:{}", decoded(proxy.username()), decoded(proxy.password().unwrap_or_default()));
    let mut value =
        HeaderValue::try_from(format!("Basic {}", crate::client::base64(pair.as_bytes()))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(crate) fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A host without the brackets that IPv6 addresses have in URLs.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let name = bare(host);
    let found = tokio::net::lookup_host((name, port)).await;
    let all: Vec<SocketAddr> = match found {
        Ok(addresses) => addresses.collect(),
        Err(_) => return Err(format!("dial tcp: lookup {name}: no such host")),
    };
    let Some(first) = all.first() else { return Err(format!("dial tcp: lookup {name}: no such host")) };
    let (preferred, others): (Vec<_>, Vec<_>) =
        all.iter().copied().partition(|a| a.is_ipv4() == first.is_ipv4());
    let stream = if others.is_empty() { in_turn(preferred).await? } else { race(preferred, others).await? };
    // Requests are small and wait for their answer.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The first of these addresses that answers; else why the first did not.
async fn in_turn(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut first_error = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => {
                first_error.get_or_insert_with(|| format!("dial tcp {address}: connect: {}", os_text(&e)));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| "dial tcp: missing address".into()))
}

async fn race(preferred: Vec<SocketAddr>, others: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let first = in_turn(preferred);
    let mut first = std::pin::pin!(first);
    let early = tokio::time::timeout(FALLBACK_DELAY, first.as_mut()).await;
    match early {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => in_turn(others).await.map_err(|_| e),
        Err(_) => {
            let second = in_turn(others);
            let mut second = std::pin::pin!(second);
            tokio::select! {
                result = first.as_mut() => match result {
                    Ok(stream) => Ok(stream),
                    Err(e) => second.await.map_err(|_| e),
                },
                result = second.as_mut() => match result {
                    Ok(stream) => Ok(stream),
                    Err(_) => first.await,
                },
            }
        }
    }
}

// === Streams ===

/// A byte stream of any kind.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

type BoxIo = Box<dyn Io>;

/// A connection as hyper wants it.
pub(crate) struct Conn {
    io: TokioIo<BoxIo>,
    forwarded: bool,
    h2: bool,
}

impl Connection for Conn {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.forwarded);
        if self.h2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
