//! What is neither API nor data: the page, `/version`, `/-/quit`.

use std::sync::atomic::Ordering;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::app::App;
use crate::body::Body;
use crate::config::ApiConfig;
use crate::json::write_string;
use crate::small::plain;
use crate::sources::BuildInfo;
use crate::status::build_fields;

/// One page without outside assets: queries, a chart, targets.
const PAGE: &str = include_str!("ui/page.html");
/// What the page may do: its own inline script and style, and requests to this server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; frame-ancestors 'self'; form-action 'none'";

/// `/`, `/graph`, `/query`, `/targets`
pub(crate) fn page(config: &ApiConfig) -> Response<Body> {
    let base = config.external_url.path().trim_end_matches('/');
    let mut base_json = Vec::new();
    write_string(&mut base_json, base, true);
    let text = PAGE
        .replace("TITLE_PLACEHOLDER", &escape_html(&config.page_title))
        .replace("BASE_PLACEHOLDER", &String::from_utf8_lossy(&base_json));
    let mut response = Response::new(Body::full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert("Content-Security-Policy", HeaderValue::from_static(POLICY));
    headers.insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    response
}

fn escape_html(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `/version`
pub(crate) fn version(info: &BuildInfo) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, (name, value)) in build_fields(info).into_iter().enumerate() {
        out.push(if i > 0 { b',' } else { b'{' });
        write_string(&mut out, name, true);
        out.push(b':');
        write_string(&mut out, value, true);
    }
    out.extend_from_slice(b"}\n");
    out
}

/// `/-/quit`
pub(crate) fn quit(app: &App, method: &Method) -> Response<Body> {
    if *method == Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed");
    }
    if !app.config.enable_lifecycle {
        return plain(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.");
    }
    if app.quitting.swap(true, Ordering::SeqCst) {
        return plain(StatusCode::OK, "Termination already in progress.");
    }
    app.deps.lifecycle.quit();
    plain(StatusCode::OK, "Requesting termination... Goodbye!")
}
