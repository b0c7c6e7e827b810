//! What a request leaves in a trace: a span below the current one, and the headers that let the server go on with it.
//!
//! Names and attributes are those of OpenTelemetry's conventions for HTTP clients, which Prometheus's clients follow. The span
//! ends with the head of the answer.

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Response, Uri};
use hyper::body::Incoming;
use model::trace::{self, Link, Span};

/// Begins the span of a request, if something is being recorded.
pub(crate) fn of_request(method: &Method, uri: &Uri, https: bool) -> Span {
    let mut span = trace::client(match method.as_str() {
        "GET" => "HTTP GET",
        "POST" => "HTTP POST",
        "PUT" => "HTTP PUT",
        _ => "HTTP",
    });
    if !span.is_recording() {
        return span;
    }
    span.set("http.request.method", method.to_string());
    span.set("url.full", without_user_info(uri));
    span.set("server.address", uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned());
    if let Some(port) = uri.port_u16().filter(|p| *p != if https { 443 } else { 80 }) {
        span.set("server.port", i64::from(port));
    }
    span.set("network.protocol.version", "1.1");
    span
}

/// The URL without user and password.
fn without_user_info(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |a| a.as_str());
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    format!("{scheme}://{address}{}", uri.path_and_query().map_or("", |p| p.as_str()))
}

/// Tells the server which trace it is in, if there is one.
pub(crate) fn inject(link: &Link, headers: &mut HeaderMap) {
    let Some(context) = link.context() else { return };
    if let Ok(value) = HeaderValue::try_from(context.traceparent()) {
        headers.insert("traceparent", value);
    }
    if let Ok(value) = HeaderValue::from_str(&context.state)
        && !value.is_empty()
    {
        headers.insert("tracestate", value);
    }
}

/// Notes what came back.
pub(crate) fn note_answer(span: &mut Span, answer: &Result<Response<Incoming>, String>) {
    if !span.is_recording() {
        return;
    }
    match answer {
        Ok(response) => {
            let status = response.status().as_u16();
            span.set("http.response.status_code", i64::from(status));
            if status >= 400 {
                span.set("error.type", status.to_string());
                span.set_failed(&"");
            }
        }
        Err(reason) => {
            span.set("error.type", "_OTHER");
            span.set_failed(reason);
        }
    }
}
