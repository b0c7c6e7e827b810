//! The way of a request: route, readiness, body, handler, answer.
//!
//! Handlers of the API are plain functions from a [`Request`] to an [`Answer`]; they run on blocking threads and learn
//! through [`Request::cancel`] that nobody waits any more. What all answers have in common (envelope, CORS, compression,
//! metrics, panics) is here.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use model::{Annotations, trace};
use promql::{CancelToken, QueryOrigin};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::body::{Body, BodyOut};
use crate::config::{ApiConfig, CorsOrigin};
use crate::error::ApiError;
use crate::failure::{Failure, Kind};
use crate::gate::Gatekeeper;
use crate::intake::{BodyError, HeldBytes, collect};
use crate::metrics::{CountedIn, Metrics};
use crate::params::Params;
use crate::remote_write::{Received, Receiver};
use crate::router::{Endpoint, NoRoute, Route, route};
use crate::small::{close, empty, json_body, method_not_allowed, plain, redirect};
use crate::sources::{Deps, ReadyState};
use crate::{
    admin, cardinality, exposition, federate, labels, longterm, metadata, otlp, query, remote_read,
    remote_write, rules, status, targets, web,
};

/// Pauses after which a request is looked at again that waits for samples of someone else. Together they are shorter than what
/// senders usually wait for an answer.
const NOT_YET_WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// Warnings and infos beyond this number are only counted.
const ANNOTATIONS_MAX: usize = 10;

/// Everything a request is answered with.
pub(crate) struct App {
    pub(crate) config: ApiConfig,
    pub(crate) deps: Deps,
    pub(crate) metrics: Metrics,
    pub(crate) receiver: Receiver,
    pub(crate) quitting: AtomicBool,
    /// What stands before every request, if anything does.
    pub(crate) gate: Option<Gatekeeper>,
    /// As it was decided when the server started.
    pub(crate) speaks_tls: bool,
    blocking: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    reload: Semaphore,
    /// Bytes of bodies that may still be taken.
    body_bytes: Arc<Semaphore>,
}

/// A request as handlers see it.
pub(crate) struct Request {
    pub(crate) endpoint: Endpoint,
    pub(crate) method: Method,
    pub(crate) params: Params,
    pub(crate) headers: HeaderMap,
    /// The name in the path, escapes resolved.
    pub(crate) name: String,
    /// Where it came from, for the query log.
    pub(crate) origin: QueryOrigin,
    /// Set once nobody waits for the answer any more.
    pub(crate) cancel: CancelToken,
}

/// Writes the data of an answer.
type WriteData = Box<dyn FnOnce(&mut BodyOut) + Send>;

/// What a handler of the API found out; the data is written once everything that can fail has been done.
pub(crate) struct Answer {
    write: Option<WriteData>,
    pub(crate) annotations: Annotations,
    /// What else there is to tell: the body has standard keys alone.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// An answer with data.
    pub(crate) fn data(write: impl FnOnce(&mut BodyOut) + Send + 'static) -> Self {
        Self { write: Some(Box::new(write)), annotations: Annotations::new(), header: None }
    }

    /// Success without data: 204.
    pub(crate) fn nothing() -> Self {
        Self { write: None, annotations: Annotations::new(), header: None }
    }

    /// Adds annotations.
    pub(crate) fn with(mut self, annotations: Annotations) -> Self {
        self.annotations.merge(annotations);
        self
    }

    /// Sets a header. A value that no header can have is left out.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.header = HeaderValue::from_str(value).ok().map(|value| (name, value));
        self
    }
}

/// Cancels when it is dropped before the answer is there: hyper drops the request when the client goes away.
struct CancelOnDrop(Option<CancelToken>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.cancel();
        }
    }
}

// === impl App ===

impl App {
    pub(crate) fn new(config: ApiConfig, deps: Deps) -> Result<Self, ApiError> {
        let metrics = Metrics::new(&deps.registry)?;
        let gate = config.gate.clone().map(Gatekeeper::new);
        let speaks_tls = match &gate {
            Some(gate) => gate.tls().map_err(|reason| ApiError::Config { name: "gate", reason })?.is_some(),
            None => false,
        };
        Ok(Self {
            gate,
            speaks_tls,
            blocking: Arc::new(Semaphore::new(config.max_blocking_requests)),
            reads: Arc::new(Semaphore::new(config.remote_read.max_concurrency.max(1))),
            writes: Arc::new(Semaphore::new(config.remote_write.max_concurrency.max(1))),
            reload: Semaphore::new(1),
            body_bytes: Arc::new(Semaphore::new(config.max_request_bytes)),
            receiver: Receiver::new(&config.remote_write, metrics.clone()),
            quitting: AtomicBool::new(false),
            config,
            deps,
            metrics,
        })
    }

    /// Answers a request; never fails and never panics.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let mut span = crate::span::of_request(&self.deps.tracer, &request, peer, self.speaks_tls);
        let mut response = trace::within(span.link(), self.answer_within_span(request, peer)).await;
        crate::span::note_status(&mut span, response.status());
        response.body_mut().hold(span);
        response
    }

    async fn answer_within_span(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        self.metrics.ready.set(i64::from(self.deps.readiness.get() == ReadyState::Ready));
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let head = method == Method::HEAD;
        let found = self.strip_prefix(&path).map_or(Err(NoRoute::NotFound), |p| route(&method, p));
        let found = match found {
            Ok(found) => found,
            Err(_) if path == "/" && method == Method::GET => return redirect(&self.config.route_prefix),
            Err(NoRoute::NotFound) => return plain(StatusCode::NOT_FOUND, "404 page not found\n"),
            Err(NoRoute::Method(allowed)) => return method_not_allowed(allowed),
        };
        let observation = self.metrics.observe(&self.deps.clock, found.handler);
        let answer = AssertUnwindSafe(self.clone().dispatch(request, found, peer)).catch_unwind().await;
        let mut response = answer.unwrap_or_else(|_| self.panicked(&method, &path, peer));
        let mut observation = observation;
        observation.set_code(response.status().as_u16());
        if head {
            *response.body_mut() = Body::empty();
        }
        response.body_mut().observe(observation);
        response
    }

    fn strip_prefix<'a>(&self, path: &'a str) -> Option<&'a str> {
        let prefix = self.config.route_prefix.as_str();
        if prefix == "/" {
            return Some(path);
        }
        match path.strip_prefix(prefix)? {
            "" => Some("/"),
            rest if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }

    fn panicked(&self, method: &Method, path: &str, peer: SocketAddr) -> Response<Body> {
        self.metrics.panics.inc();
        tracing::error!("panic while serving {method} {path} for {peer}");
        plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error, see the log\n")
    }

    async fn dispatch(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        found: Route<'_>,
        peer: SocketAddr,
    ) -> Response<Body> {
        use Endpoint as E;
        if needs_ready(found.endpoint)
            && let Some(response) = self.not_ready()
        {
            return response;
        }
        match found.endpoint {
            E::Healthy => plain(StatusCode::OK, format!("{} is Healthy.\n", self.config.app_name)),
            E::Ready => plain(StatusCode::OK, format!("{} is Ready.\n", self.config.app_name)),
            E::Favicon => empty(StatusCode::NO_CONTENT),
            E::Page => web::page(&self.config),
            E::Debug => plain(
                StatusCode::NOT_FOUND,
                "not supported: profiles under /debug; use perf or the heap profile of the allocator\n",
            ),
            E::Version => json_body(web::version(&self.deps.status.build_info())),
            E::Quit => web::quit(&self, request.method()),
            E::Reload => self.reload(request.method()).await,
            E::OtlpWrite => self.otlp_write(request).await,
            E::NotificationsLive => empty(StatusCode::NO_CONTENT),
            E::Options => self.cors(request.headers(), empty(StatusCode::NO_CONTENT)),
            E::RemoteWrite => self.remote_write(request).await,
            E::RemoteRead => self.remote_read(request).await,
            E::Metrics => self.run(request, found, peer, exposition::metrics).await,
            E::Federate => self.run(request, found, peer, federate::federate).await,
            E::Digest => self.run(request, found, peer, longterm::digest).await,
            _ => {
                let headers = request.headers().clone();
                let response = self.clone().run(request, found, peer, api).await;
                self.cors(&headers, response)
            }
        }
    }

    pub(crate) fn not_ready(&self) -> Option<Response<Body>> {
        let stopping = match self.deps.readiness.get() {
            ReadyState::Ready => return None,
            ReadyState::NotReady => "false",
            ReadyState::Stopping => "true",
        };
        let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
        response.headers_mut().insert("X-Prometheus-Stopping", HeaderValue::from_static(stopping));
        Some(response)
    }

    /// Runs a handler on a blocking thread and gives its answer as soon as the head is known.
    async fn run(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        found: Route<'_>,
        peer: SocketAddr,
        handler: fn(&Arc<App>, &Request, BodyOut),
    ) -> Response<Body> {
        let cancel = CancelToken::new();
        let request = match self.read_form(request, found, peer, cancel.clone()).await {
            Ok(request) => request,
            Err(response) => return response,
        };
        let Ok(permit) = self.blocking.clone().acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
        };
        let mut guard = CancelOnDrop(Some(cancel));
        let gzip = accepts_gzip(&request.headers);
        let (tx, rx) = oneshot::channel();
        let out = BodyOut::new(tx, gzip, self.config.write_stall_timeout, permit);
        let (app, link) = (self.clone(), trace::current());
        let task = tokio::task::spawn_blocking(move || {
            let _entered = link.enter();
            handler(&app, &request, out);
        });
        let response = answer_of(rx, task).await;
        // From here on the body tells the handler when its reader goes away.
        guard.0 = None;
        response
    }

    async fn read_form(
        &self,
        request: http::Request<Incoming>,
        found: Route<'_>,
        peer: SocketAddr,
        cancel: CancelToken,
    ) -> Result<Request, Response<Body>> {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or("");
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let form = content_type.split(';').next().unwrap_or("").trim();
        let held = self.read_body(body, self.config.max_form_bytes).await?;
        let params = if form.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Params::parse(query, &held.bytes)
        } else {
            Params::parse(query, b"")
        };
        if form.eq_ignore_ascii_case("multipart/form-data") {
            return Err(failure_response(&Failure::bad_data(
                "not supported: multipart/form-data; send application/x-www-form-urlencoded",
            )));
        }
        let name = percent_encoding::percent_decode_str(found.name).decode_utf8_lossy().into_owned();
        let origin = QueryOrigin::Http {
            client_ip: peer.ip().to_canonical().to_string(),
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
        };
        let (method, headers) = (parts.method, parts.headers);
        Ok(Request { endpoint: found.endpoint, method, params, headers, name, origin, cancel })
    }

    /// Reads a body of at most `limit` bytes within the read time-out.
    async fn read_body(&self, body: Incoming, limit: usize) -> Result<HeldBytes, Response<Body>> {
        let collecting = collect(body, limit, &self.body_bytes);
        match tokio::time::timeout(self.config.read_timeout, collecting).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(BodyError::Crowded)) => {
                let text = "too many bytes of requests at once, try again\n";
                let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
                Err(close(response))
            }
            Ok(Err(BodyError::TooLarge)) => {
                let text = format!("request body is larger than the limit of {limit} bytes\n");
                Err(close(plain(StatusCode::PAYLOAD_TOO_LARGE, text)))
            }
            Ok(Err(BodyError::Broken(e))) => {
                Err(close(plain(StatusCode::BAD_REQUEST, format!("read request body: {e}\n"))))
            }
            Err(_) => Err(close(plain(StatusCode::REQUEST_TIMEOUT, "request body took too long\n"))),
        }
    }

    async fn remote_write(self: Arc<Self>, request: http::Request<Incoming>) -> Response<Body> {
        let message = match remote_write::check(&self, request.headers()) {
            Ok(message) => message,
            Err(response) => return *response,
        };
        let body = match self.read_body(request.into_body(), self.config.remote_write.max_body_bytes).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        let body = Arc::new(body);
        let mut waits = NOT_YET_WAITS.iter();
        loop {
            // The body comes first: a slow sender must not take a turn from others.
            let Ok(permit) = self.writes.clone().acquire_owned().await else {
                return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
            };
            let (app, body) = (self.clone(), body.clone());
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                remote_write::receive(&app, message, &body.bytes)
            });
            let response = match task.await {
                Ok(Received::Done(response)) => return response,
                Ok(Received::NotYet(response)) => response,
                Err(e) => return join(Err(e)),
            };
            // What is missing usually comes within a scrape interval, and a sender that is told to try again logs it.
            let Some(wait) = waits.next() else { return response };
            tokio::time::sleep(*wait).await;
        }
    }

    async fn otlp_write(self: Arc<Self>, request: http::Request<Incoming>) -> Response<Body> {
        let form = match otlp::check(&self, request.headers()) {
            Ok(form) => form,
            Err(response) => return *response,
        };
        let body = match self.read_body(request.into_body(), self.config.remote_write.max_body_bytes).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        let Ok(permit) = self.writes.clone().acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
        };
        let app = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            otlp::receive(&app, form, &body.bytes)
        });
        join(task.await)
    }

    async fn remote_read(self: Arc<Self>, request: http::Request<Incoming>) -> Response<Body> {
        let _counted = CountedIn::new(&self.metrics.remote_read_queries);
        let body = match self.read_body(request.into_body(), self.config.remote_read.max_body_bytes).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        let Ok(permit) = self.reads.clone().acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
        };
        let (tx, rx) = oneshot::channel();
        let out = BodyOut::new(tx, false, self.config.write_stall_timeout, permit);
        let task = tokio::task::spawn_blocking(move || remote_read::read(&self, &body.bytes, out));
        answer_of(rx, task).await
    }

    async fn reload(self: Arc<Self>, method: &Method) -> Response<Body> {
        if *method == Method::GET {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed");
        }
        if !self.config.enable_lifecycle {
            return plain(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.");
        }
        let Ok(_one_at_a_time) = self.reload.acquire().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
        };
        let lifecycle = self.deps.lifecycle.clone();
        match tokio::task::spawn_blocking(move || lifecycle.reload()).await {
            Ok(Ok(())) => plain(StatusCode::OK, ""),
            Ok(Err(e)) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {e}\n")),
            Err(e) => join(Err(e)),
        }
    }

    /// Adds what lets browsers of other origins read the answer.
    fn cors(&self, request: &HeaderMap, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = request.get(ORIGIN) else {
            return response;
        };
        for (name, value) in [
            ("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin"),
            ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
            ("Access-Control-Expose-Headers", "Date"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        match &self.config.cors_origin {
            CorsOrigin::Any => {
                headers.insert("Access-Control-Allow-Origin", HeaderValue::from_static("*"));
            }
            CorsOrigin::Matching(re) if origin.to_str().is_ok_and(|o| re.is_match(o)) => {
                headers.insert("Access-Control-Allow-Origin", origin.clone());
            }
            CorsOrigin::Matching(_) => {}
        }
        response
    }
}

/// The head of a handler's answer, as soon as it is known.
async fn answer_of(head: oneshot::Receiver<Response<Body>>, handler: JoinHandle<()>) -> Response<Body> {
    if let Ok(response) = head.await {
        return response;
    }
    // The handler went away without an answer: its panic belongs to this request.
    match handler.await {
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error: no answer\n"),
    }
}

/// Whether an endpoint answers only once the program is ready.
fn needs_ready(endpoint: Endpoint) -> bool {
    use Endpoint as E;
    !matches!(
        endpoint,
        E::Healthy
            | E::Metrics
            | E::Version
            | E::Quit
            | E::Reload
            | E::Page
            | E::Favicon
            | E::Debug
            | E::StatusWalReplay
            | E::Notifications
            | E::NotificationsLive
    )
}

/// The handler of everything under `/api/v1` that answers in JSON.
fn api(app: &Arc<App>, request: &Request, mut out: BodyOut) {
    use Endpoint as E;
    let result = match request.endpoint {
        E::Query => query::instant(app, request),
        E::QueryRange => query::range(app, request),
        E::QueryExemplars => query::exemplars(app, request),
        E::FormatQuery => query::format(app, request),
        E::ParseQuery => query::parse(app, request),
        E::Series => labels::series(app, request),
        E::LabelNames => labels::names(app, request),
        E::LabelValues => labels::values(app, request),
        E::Metadata => metadata::metadata(app, request),
        E::TargetsMetadata => metadata::of_targets(app, request),
        E::ScrapePools => targets::scrape_pools(app),
        E::ScrapePoolConfig => targets::scrape_pool_config(app, request),
        E::Targets => targets::targets(app, request),
        E::Rules => rules::rules(app, request),
        E::Alerts => rules::alerts(app),
        E::Alertmanagers => rules::alertmanagers(app),
        E::StatusConfig => status::config(app),
        E::StatusRuntimeInfo => status::runtime_info(app),
        E::StatusBuildInfo => status::build_info(app),
        E::StatusFlags => status::flags(app),
        E::StatusCardinality => cardinality::cardinality(app, request),
        E::StatusTsdb => status::tsdb(app, request),
        E::StatusTsdbBlocks => status::blocks(app),
        E::StatusWalReplay => status::wal_replay(app),
        E::StatusSelfMetrics => status::self_metrics(app, request),
        E::Features => status::features(app),
        E::Notifications => status::notifications(app),
        E::DeleteSeries => admin::delete_series(app, request),
        E::CleanTombstones => admin::clean_tombstones(app),
        E::Snapshot => admin::snapshot(app, request),
        E::Backlog => longterm::backlog(app, request),
        E::LongtermPreview => longterm::preview(app, request),
        E::Search => Err(Failure::new(Kind::Disabled, "search API disabled")),
        E::TargetsRelabelSteps => {
            Err(Failure::new(Kind::Disabled, "not supported: /api/v1/targets/relabel_steps"))
        }
        _ => Err(Failure::internal("endpoint without handler")),
    };
    out.headers().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    match result {
        Ok(answer) => write_answer(answer, out),
        Err(failure) => write_failure(&failure, out),
    }
}

fn write_answer(answer: Answer, mut out: BodyOut) {
    let Some(write) = answer.write else {
        out.set_status(StatusCode::NO_CONTENT);
        return out.finish();
    };
    out.headers().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, value)) = answer.header {
        out.headers().insert(name, value);
    }
    out.raw("{\"status\":\"success\",\"data\":");
    write(&mut out);
    let notes = &answer.annotations;
    write_notes(&mut out, "warnings", "warning", notes.warnings());
    write_notes(&mut out, "infos", "info", notes.infos());
    out.raw("}");
    out.finish();
}

fn write_notes<'a>(out: &mut BodyOut, key: &str, kind: &str, notes: impl ExactSizeIterator<Item = &'a str>) {
    let all = notes.len();
    if all == 0 {
        return;
    }
    out.raw(",");
    out.key(key);
    let omitted =
        (all > ANNOTATIONS_MAX).then(|| format!("{} more {kind} annotations omitted", all - ANNOTATIONS_MAX));
    let shown: Vec<&str> = notes.take(ANNOTATIONS_MAX).collect();
    out.strings(shown.into_iter().chain(omitted.as_deref()));
}

fn write_failure(failure: &Failure, mut out: BodyOut) {
    out.set_status(failure.kind.status());
    out.headers().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if failure.kind == Kind::Unavailable {
        out.headers().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    out.buf().extend_from_slice(&failure_json(failure));
    out.finish();
}

fn failure_json(failure: &Failure) -> Vec<u8> {
    let mut text = b"{\"status\":\"error\",\"errorType\":".to_vec();
    crate::json::write_string(&mut text, failure.kind.as_str(), true);
    text.extend_from_slice(b",\"error\":");
    crate::json::write_string(&mut text, &failure.text, true);
    text.push(b'}');
    text
}

fn failure_response(failure: &Failure) -> Response<Body> {
    let mut response = json_body(failure_json(failure));
    *response.status_mut() = failure.kind.status();
    response
}

fn join(result: Result<Response<Body>, tokio::task::JoinError>) -> Response<Body> {
    match result {
        Ok(response) => response,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| {
        v.split(',').any(|part| {
            let (name, quality) = part.split_once(';').unwrap_or((part, ""));
            let refused = matches!(quality.trim().strip_prefix("q="), Some("0" | "0.0" | "0.00" | "0.000"));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
    })
}
