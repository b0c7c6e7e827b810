//! One batch: encoded, sent, and sent again while there is hope.
//!
//! As OpenTelemetry's exporters: after a failure that may pass a pause of five seconds, then longer ones. With gRPC the
//! time-out is that of all attempts together; with HTTP it is that of each, and all may take 30 seconds.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use httpclient::{ClientConfig, ProxyConfig};
use hyper::body::Incoming;
use model::Clock;
use model::trace::SpanData;
use tokio::time::Instant;
use wire::trace::{Source, encode, rejected};

use crate::config::{Protocol, SpansConfig};
use crate::grpc;

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP_PATH: &str = "/v1/traces";
/// Longest answer that is read.
const ANSWER_LEN_BYTES_MAX: usize = 64 << 10;
/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a batch is tried over HTTP.
const HTTP_TIME_MAX: Duration = Duration::from_secs(30);

/// How many spans a collector did not take, and why.
pub(crate) type Rejected = Option<(i64, String)>;

/// Speaks to a collector.
pub(crate) struct Client {
    client: httpclient::Client,
    source: Arc<Source>,
    protocol: Protocol,
    url: String,
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
}

/// Why a batch was not taken.
struct Refused {
    reason: String,
    /// It may be taken later; after so long, if the collector says.
    again: Option<Option<Duration>>,
}

impl Refused {
    fn for_good(reason: String) -> Self {
        Self { reason, again: None }
    }

    fn passing(reason: String) -> Self {
        Self { reason, again: Some(None) }
    }
}

impl Client {
    /// # Errors
    /// Settings that cannot be used.
    pub(crate) fn new(
        config: &SpansConfig,
        source: Arc<Source>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let settings = ClientConfig {
            tls: config.tls.clone(),
            proxy: ProxyConfig { from_environment: true, ..ProxyConfig::default() },
            ..ClientConfig::default()
        };
        let client = httpclient::Client::new(settings, clock)?;
        let scheme = if config.insecure { "http" } else { "https" };
        let (client, url) = match config.protocol {
            Protocol::Http => (client, format!("{scheme}://{}{HTTP_PATH}", config.endpoint)),
            Protocol::Grpc => match config.endpoint.strip_prefix("unix:") {
                Some(path) => {
                    let path = path.strip_prefix("//").unwrap_or(path);
                    (client.over_unix_socket(path).over_http2(), format!("{scheme}://localhost{GRPC_PATH}"))
                }
                None => {
                    (client.over_http2(), format!("{scheme}://{}{GRPC_PATH}", grpc_host(&config.endpoint)))
                }
            },
        };
        let mut client = Self {
            client,
            source,
            protocol: config.protocol,
            url,
            headers: HeaderMap::new(),
            gzip: config.gzip,
            timeout: config.timeout(),
        };
        client.set_headers(config)?;
        Ok(client)
    }

    fn set_headers(&mut self, config: &SpansConfig) -> Result<(), String> {
        let headers = &mut self.headers;
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("almanac/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &config.headers {
            let key = HeaderName::try_from(name.as_str())
                .map_err(|_| format!("headers: {name:?} is no name of a header"))?;
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| format!("headers: the value of {name:?} is none of a header"))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let kind = match self.protocol {
            Protocol::Http => "application/x-protobuf",
            Protocol::Grpc => "application/grpc",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        match (self.protocol, self.gzip) {
            (Protocol::Http, true) => {
                drop(headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip")))
            }
            (Protocol::Grpc, true) => drop(headers.insert("grpc-encoding", HeaderValue::from_static("gzip"))),
            _ => {}
        }
        if self.protocol == Protocol::Grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(())
    }

    /// Sends a batch, several times if need be.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(crate) async fn send(&self, batch: &[SpanData]) -> Result<Rejected, String> {
        let body = self.body(batch);
        let deadline = Instant::now()
            + match self.protocol {
                Protocol::Grpc => self.timeout,
                Protocol::Http => HTTP_TIME_MAX,
            };
        let mut pause = FIRST_PAUSE;
        loop {
            let until = deadline.min(Instant::now() + self.timeout);
            let refused = match tokio::time::timeout_at(until, self.attempt(body.clone())).await {
                Ok(Ok(rejected)) => return Ok(rejected),
                Ok(Err(refused)) => refused,
                Err(_) => Refused::passing(format!("{}: no answer within {:?}", self.url, self.timeout)),
            };
            let Some(after) = refused.again else { return Err(refused.reason) };
            let wait = after.unwrap_or(pause);
            if Instant::now() + wait >= deadline {
                return Err(refused.reason);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    fn body(&self, batch: &[SpanData]) -> Bytes {
        let mut message = encode(&self.source, batch);
        let mut compressed = false;
        if self.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            // Writing to memory does not fail.
            if encoder.write_all(&message).is_ok()
                && let Ok(bytes) = encoder.finish()
            {
                (message, compressed) = (bytes, true);
            }
        }
        match self.protocol {
            Protocol::Http => message.into(),
            Protocol::Grpc => grpc::frame(&message, compressed).into(),
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<Rejected, Refused> {
        let uri = self.url.parse().map_err(|e| Refused::for_good(format!("parse {:?}: {e}", self.url)))?;
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&self.headers);
        let response = self.client.send(request).await.map_err(|e| Refused::passing(e.to_string()))?;
        match self.protocol {
            Protocol::Grpc => self.grpc_answer(response).await,
            Protocol::Http => self.http_answer(response).await,
        }
    }

    async fn grpc_answer(&self, response: Response<Incoming>) -> Result<Rejected, Refused> {
        let (head, body) = response.into_parts();
        let collected = Limited::new(body, ANSWER_LEN_BYTES_MAX).collect().await;
        let collected = collected.map_err(|e| Refused::passing(format!("{}: {e}", self.url)))?;
        let status = grpc::Status::of(head.status, &head.headers, collected.trailers());
        if status.is_ok() {
            return taken(grpc::message(&collected.to_bytes()));
        }
        let again = status.may_pass().then_some(None);
        Err(Refused { reason: format!("{}: {status}", self.url), again })
    }

    async fn http_answer(&self, response: Response<Incoming>) -> Result<Rejected, Refused> {
        let (head, body) = response.into_parts();
        let broken = |e| Refused::passing(format!("{}: {e}", self.url));
        let body = httpclient::body::collect_at_most(body, ANSWER_LEN_BYTES_MAX).await.map_err(broken)?;
        let header = |name| head.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        if head.status.is_success() {
            let protobuf = header(CONTENT_TYPE) == Some("application/x-protobuf");
            return if protobuf { taken(&body) } else { Ok(None) };
        }
        let text = String::from_utf8_lossy(&body);
        let text = text.trim().lines().next().unwrap_or("(empty)");
        let reason = format!("failed to send to {}: {} (body: {text})", self.url, head.status);
        let after = header(RETRY_AFTER).and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
        let passing = matches!(head.status.as_u16(), 429 | 502..=504);
        Err(Refused { reason, again: passing.then_some(after) })
    }
}

fn taken(answer: &[u8]) -> Result<Rejected, Refused> {
    // Spans that were taken need not be sent again because of what is said about them.
    rejected(answer).map_err(|e| Refused::for_good(format!("taken, but the answer cannot be read: {e}")))
}

/// Host and port of what gRPC calls a target.
fn grpc_host(target: &str) -> String {
    let host =
        ["dns:///", "passthrough:///", "dns:"].iter().find_map(|p| target.strip_prefix(p)).unwrap_or(target);
    let bare = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    if bare.contains(':') { host.to_owned() } else { format!("{host}:443") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_grpc_have_forms() {
        for (target, host) in [
            ("localhost:4317", "localhost:4317"),
            ("dns:///tempo:4317", "tempo:4317"),
            ("passthrough:///[::1]:4317", "[::1]:4317"),
            ("collector", "collector:443"),
            ("[::1]", "[::1]:443"),
        ] {
            assert_eq!(grpc_host(target), host);
        }
    }
}
