//! Sockets: binding, accepting within the connection limit, time-outs, draining.
//!
//! A connection costs a task and a permit. Over the limit the listener is not asked for more, so that newcomers wait in
//! the kernel's queue and nobody who is inside suffers. Without TLS only HTTP/1 is spoken, with TLS HTTP/2 too where it
//! was agreed on.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::config::ApiConfig;
use crate::error::ApiError;
use crate::metrics::CountedIn;
use crate::request_target::LenientTarget;
use crate::sources::Deps;
use crate::stall::StallGuard;

/// Most bytes of the header of one request, and of what a connection buffers. A longer query is sent as a form.
const MAX_HEADER_BYTES: usize = 128 << 10;
/// Most header lines of one request.
const MAX_HEADERS: usize = 100;
/// Most requests at once of one HTTP/2 connection, as Go's server has it.
const MAX_HTTP2_STREAMS: u32 = 250;
/// How long to wait after `accept` failed, for example because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that is bound and not yet running.
pub struct Server {
    app: Arc<App>,
    listeners: Vec<TcpListener>,
}

// === impl Server ===

impl Server {
    /// Opens the listening sockets. Connections that arrive before [`Server::run`] wait.
    ///
    /// # Errors
    /// When an address cannot be listened on, or a setting makes no sense.
    pub async fn bind(config: ApiConfig, deps: Deps) -> Result<Self, ApiError> {
        check(&config)?;
        let mut listeners = Vec::new();
        for address in &config.listen_addresses {
            listeners.push(listen(address).await?);
        }
        Ok(Self { app: Arc::new(App::new(config, deps)?), listeners })
    }

    /// The addresses that are listened on, in the order of the configuration.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Serves until `shutdown` is done, then takes no new connection, lets open requests finish for as long as
    /// `shutdown_timeout` says, and returns.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { app, listeners } = self;
        let permits = Arc::new(Semaphore::new(app.config.max_connections));
        let graceful = Arc::new(GracefulShutdown::new());
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|l| tokio::spawn(accept(l, app.clone(), permits.clone(), graceful.clone())))
            .collect();
        shutdown.await;
        for task in accepting {
            task.abort();
            // The task holds the listener and a share of `graceful`: both must be gone before draining.
            let _ = task.await;
        }
        let Some(graceful) = Arc::into_inner(graceful) else {
            return;
        };
        let limit = app.config.shutdown_timeout;
        if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still open after {limit:?} and are cut off");
        }
    }
}

fn check(config: &ApiConfig) -> Result<(), ApiError> {
    let bad = |name, reason: &str| Err(ApiError::Config { name, reason: reason.into() });
    let prefix = &config.route_prefix;
    if prefix != "/" && (!prefix.starts_with('/') || prefix.ends_with('/')) {
        return bad("route_prefix", "begins with a slash and ends without one, or is a single slash");
    }
    if config.listen_addresses.is_empty() {
        return bad("listen_addresses", "at least one address is needed");
    }
    if config.max_request_bytes > u32::MAX as usize {
        return bad("max_request_bytes", "at most 4 GiB");
    }
    if config.max_connections == 0 || config.max_blocking_requests == 0 {
        return bad("max_connections", "limits of connections and requests are at least 1");
    }
    Ok(())
}

async fn listen(address: &str) -> Result<TcpListener, ApiError> {
    let bound = match address.strip_prefix(':') {
        // Without a host, both families, as far as the machine has them.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(e),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|e| {
        let reason = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the address is already in use by another process; stop it or choose another address".into()
            }
            std::io::ErrorKind::PermissionDenied => "no permission; ports below 1024 need privileges".into(),
            _ => e.to_string(),
        };
        ApiError::Listen { address: address.to_owned(), reason }
    })
}

async fn accept(
    listener: TcpListener,
    app: Arc<App>,
    permits: Arc<Semaphore>,
    graceful: Arc<GracefulShutdown>,
) {
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (app, watcher) = (app.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _counted = CountedIn::new(&app.metrics.connections);
            if let Err(e) = serve(stream, peer, app.clone(), watcher).await {
                tracing::debug!("connection from {peer}: {e}");
            }
            drop(permit);
        });
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    app: Arc<App>,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Answers are written in one piece or in large ones: waiting to fill packets only delays them.
    let _ = stream.set_nodelay(true);
    let Some(gate) = app.gate.as_ref().filter(|_| app.speaks_tls) else {
        return Ok(watcher.watch(http1_connection(stream, peer, app)).await?);
    };
    let tls = gate.tls()?.ok_or("TLS is no longer configured")?;
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let stream = tokio::time::timeout(app.config.header_timeout, handshake).await??;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return Ok(watcher.watch(http2_connection(stream, peer, app)).await?);
    }
    Ok(watcher.watch(http1_connection(stream, peer, app)).await?)
}

fn http1_connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    app: Arc<App>,
) -> http1::Connection<TokioIo<StallGuard<LenientTarget<S>>>, impl Answering> {
    let io = TokioIo::new(StallGuard::new(LenientTarget::new(stream), app.config.write_stall_timeout));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(app.config.header_timeout)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder.serve_connection(io, service(app, peer))
}

fn http2_connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    app: Arc<App>,
) -> http2::Connection<TokioIo<StallGuard<S>>, impl Answering, TokioExecutor> {
    let io = TokioIo::new(StallGuard::new(stream, app.config.write_stall_timeout));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        // A client that is gone is noticed; one that is idle is asked, and stays as long as it answers.
        .keep_alive_interval(app.config.read_timeout)
        .keep_alive_timeout(app.config.header_timeout);
    builder.serve_connection(io, service(app, peer))
}

/// What answers the requests of a connection.
trait Answering:
    hyper::service::Service<
        http::Request<hyper::body::Incoming>,
        Response = http::Response<crate::body::Body>,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    >
{
}

impl<S> Answering for S where
    S: hyper::service::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<crate::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        >
{
}

fn service(app: Arc<App>, peer: SocketAddr) -> impl Answering {
    service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let app = app.clone();
        async move {
            let Some(keeper) = app.gate.as_ref() else { return Ok(app.answer(request, peer).await) };
            let answer = match keeper.pass(request.headers()).await {
                Err(refused) => refused,
                Ok(gate) => {
                    let mut answer = app.clone().answer(request, peer).await;
                    gate.put_headers(answer.headers_mut());
                    answer
                }
            };
            Ok::<_, std::convert::Infallible>(answer)
        }
    })
}
