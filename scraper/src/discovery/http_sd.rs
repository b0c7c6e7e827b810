//! HTTP discovery: target groups fetched as JSON from a URL.
//!
//! A fetch that fails changes nothing and is tried again sooner than the next one is due. Spec:
//! <https://prometheus.io/docs/prometheus/latest/http_sd/>.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::config::Config;
use tokio::time::{sleep, timeout};
use url::Url;

use super::client_config::apply_http;
use super::config::HttpDiscoveryConfig;
use super::error::DiscoveryError;
use super::manager::ProviderContext;
use super::target_file::{self, Format};
use crate::config::HttpConfig;
use crate::target_group::TargetGroup;

/// Label with the URL a target is from.
const URL_LABEL: &str = "__meta_url";
/// Largest answer that is read.
const BODY_LEN_BYTES_MAX: usize = 256 << 20;
/// Redirects that are followed for one fetch.
const REDIRECTS_MAX: usize = 10;
/// First pause after a failure; it doubles up to the refresh interval.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Fetches until the task is aborted.
pub(super) async fn run(config: HttpDiscoveryConfig, context: ProviderContext) {
    let interval = Duration::from_millis(config.refresh_interval_ms);
    let mut groups_before = 0;
    let mut failures = 0_u32;
    loop {
        let fetched = match timeout(interval, fetch(&config, &context.options.user_agent)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(failed(&config.url, format!("no answer within {interval:?}"))),
        };
        let pause = match fetched {
            Ok(groups) => {
                failures = 0;
                let count = groups.len();
                let found = groups.into_iter().map(|group| (group.source.clone(), Some(group)));
                let gone = (count..groups_before).map(|i| (format!("{}:{i}", config.url).into(), None));
                context.sink.update(found.chain(gone));
                context.sink.mark_synced();
                groups_before = count;
                interval
            }
            Err(error) => {
                tracing::error!(job = context.job, %error, "targets not fetched, the previous ones stay");
                context.metrics.http_failures.inc();
                context.metrics.refresh_failures.with_label_values(&["http", &context.job]).inc();
                let pause = RETRY_MIN.saturating_mul(1 << failures.min(16)).min(interval);
                failures = failures.saturating_add(1);
                pause
            }
        };
        sleep(pause).await;
    }
}

fn failed(url: &str, message: impl Into<String>) -> DiscoveryError {
    DiscoveryError::Request { url: url.to_owned(), message: message.into() }
}

async fn fetch(config: &HttpDiscoveryConfig, user_agent: &str) -> Result<Vec<TargetGroup>, DiscoveryError> {
    let fail = |message: String| failed(&config.url, message);
    let mut url = Url::parse(&config.url).map_err(|e| fail(e.to_string()))?;
    let mut http = config.http.clone();
    for _ in 0..=REDIRECTS_MAX {
        let response = get(&url, &http, config.refresh_interval_ms, user_agent).await.map_err(fail)?;
        if !(response.status().is_redirection() && http.follow_redirects) {
            return read(config, response).await;
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location =
            location.ok_or_else(|| fail(format!("status {} without Location", response.status())))?;
        let next = url.join(location).map_err(|e| fail(format!("redirect to {location:?}: {e}")))?;
        if next.origin() != url.origin() {
            // Credentials are for the server they were configured for.
            http = HttpConfig { basic_auth: None, authorization: None, headers: Vec::new(), ..http };
        }
        url = next;
    }
    Err(fail(format!("more than {REDIRECTS_MAX} redirects")))
}

async fn get(
    url: &Url,
    http: &HttpConfig,
    interval_ms: u64,
    user_agent: &str,
) -> Result<Response<Body>, String> {
    let server = url.origin().ascii_serialization();
    let mut config = Config::new(server.parse().map_err(|e| format!("{server}: {e}"))?);
    apply_http(&mut config, http)?;
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|e| e.to_string())?;
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let seconds =
        HeaderValue::from_str(&(interval_ms as f64 / 1000.0).to_string()).map_err(|e| e.to_string())?;
    let agent = HeaderValue::from_str(user_agent).map_err(|e| format!("User-Agent: {e}"))?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, agent)
        .header("X-Prometheus-Refresh-Interval-Seconds", seconds)
        .body(Body::empty())
        .map_err(|e| e.to_string())?;
    client.send(request).await.map_err(|e| e.to_string())
}

async fn read(
    config: &HttpDiscoveryConfig,
    response: Response<Body>,
) -> Result<Vec<TargetGroup>, DiscoveryError> {
    let fail = |message: String| failed(&config.url, message);
    if response.status() != StatusCode::OK {
        return Err(fail(format!("status {}", response.status())));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !is_json(kind) {
        return Err(fail(format!("content type {kind:?} is not application/json")));
    }
    let body = Limited::new(response.into_body(), BODY_LEN_BYTES_MAX).collect().await;
    let body = body.map_err(|e| fail(format!("reading the answer: {e}")))?.to_bytes();
    let text = std::str::from_utf8(&body).map_err(|e| fail(e.to_string()))?;
    target_file::parse(text, Format::Json, &config.url, URL_LABEL)
}

/// `application/json`, with `charset=utf-8` or without.
fn is_json(content_type: &str) -> bool {
    let content_type = content_type.trim().to_ascii_lowercase();
    match content_type.split_once(';') {
        None => content_type == "application/json",
        Some((kind, parameter)) => {
            kind == "application/json"
                && matches!(parameter.trim_start(), "charset=utf-8" | "charset=\"utf-8\"")
        }
    }
}

#[cfg(test)]
mod tests;
