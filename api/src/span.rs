//! The span of a request: begun where its caller left off, named and described as OpenTelemetry's conventions for HTTP servers
//! have it, which Prometheus's server follows.

use std::net::SocketAddr;

use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Version};
use model::trace::{Span, SpanContext, SpanKind, Tracer};

/// Begins the span of a request.
pub(crate) fn of_request<B>(tracer: &Tracer, request: &Request<B>, peer: SocketAddr, tls: bool) -> Span {
    let headers = request.headers();
    let parent = headers
        .get("traceparent")
        .and_then(|_| SpanContext::parse(text(headers, "traceparent"), text(headers, "tracestate")));
    let path = request.uri().path();
    let mut span =
        tracer.continued(parent, SpanKind::Server, || format!("{} {path}", request.method()).into());
    if span.is_recording() {
        describe(&mut span, request, peer, tls);
    }
    span
}

fn describe<B>(span: &mut Span, request: &Request<B>, peer: SocketAddr, tls: bool) {
    let (headers, uri) = (request.headers(), request.uri());
    let host = uri.authority().map_or_else(|| text(headers, HOST.as_str()), |a| a.as_str());
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    };
    span.set("server.address", name.trim_matches(['[', ']']).to_owned());
    span.set("http.request.method", request.method().to_string());
    span.set("url.scheme", if tls { "https" } else { "http" });
    if let Some(port) = port.filter(|p: &u16| *p != if tls { 443 } else { 80 }) {
        span.set("server.port", i64::from(port));
    }
    let address = peer.ip().to_canonical().to_string();
    span.set("network.peer.port", i64::from(peer.port()));
    let agent = text(headers, USER_AGENT.as_str());
    if !agent.is_empty() {
        span.set("user_agent.original", agent.to_owned());
    }
    let len = text(headers, CONTENT_LENGTH.as_str()).parse::<i64>().unwrap_or(0);
    if len > 0 {
        span.set("http.request.body.size", len);
    }
    let forwarded = text(headers, "x-forwarded-for").split(',').next().unwrap_or_default();
    span.set("client.address", if forwarded.is_empty() { address.clone() } else { forwarded.to_owned() });
    span.set("network.peer.address", address);
    span.set("url.path", uri.path().to_owned());
    let version = match request.version() {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        _ => "1.1",
    };
    span.set("network.protocol.version", version);
}

/// Notes how the request ended.
pub(crate) fn note_status(span: &mut Span, status: StatusCode) {
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set_failed(&"");
    }
}

/// A header; the empty text when there is none that is one.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}
