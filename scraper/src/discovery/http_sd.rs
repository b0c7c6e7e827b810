//! HTTP discovery: target groups fetched as JSON from a URL.
//!
//! A fetch that fails changes nothing and is tried again sooner than the next one is due. Spec:
//! <https://prometheus.io/docs/prometheus/latest/http_sd/>.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use httpclient::Client;
use hyper::body::Incoming;
use tokio::time::{sleep, timeout};

use super::config::HttpDiscoveryConfig;
use super::error::DiscoveryError;
use super::manager::ProviderContext;
use super::target_file::{self, Format};
use crate::target_group::TargetGroup;

/// Label with the URL a target is from.
const URL_LABEL: &str = "__meta_url";
/// Largest answer that is read.
const BODY_LEN_BYTES_MAX: usize = 256 << 20;
/// First pause after a failure; it doubles up to the refresh interval.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Fetches until the task is aborted.
pub(super) async fn run(config: HttpDiscoveryConfig, context: ProviderContext) {
    let interval = Duration::from_millis(config.refresh_interval_ms);
    let client = match Client::new(config.http.clone(), context.clock.clone()) {
        Ok(client) => client,
        Err(reason) => {
            let error = failed(&config.url, reason);
            tracing::error!(job = context.job, %error, "no targets are fetched");
            return;
        }
    };
    let mut groups_before = 0;
    let mut failures = 0_u32;
    loop {
        let fetched = match timeout(interval, fetch(&config, &client, &context.options.user_agent)).await {
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

async fn fetch(
    config: &HttpDiscoveryConfig,
    client: &Client,
    user_agent: &str,
) -> Result<Vec<TargetGroup>, DiscoveryError> {
    let fail = |message: String| failed(&config.url, message);
    let seconds = (config.refresh_interval_ms as f64 / 1000.0).to_string();
    let request = Request::builder()
        .uri(&config.url)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, user_agent)
        .header("X-Prometheus-Refresh-Interval-Seconds", seconds)
        .body(Bytes::new())
        .map_err(|e| fail(e.to_string()))?;
    read(config, client.send(request).await.map_err(|e| fail(e.reason().to_owned()))?).await
}

async fn read(
    config: &HttpDiscoveryConfig,
    response: Response<Incoming>,
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
