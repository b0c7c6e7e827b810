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
use hyper::ext::ReasonPhrase;
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
    let (url, job) = (config.url.clone(), context.job.clone());
    match Refresher::new(config, context) {
        Ok(mut refresher) => loop {
            sleep(refresher.refresh().await).await;
        },
        Err(reason) => tracing::error!(job, error = %failed(&url, reason), "no targets are fetched"),
    }
}

struct Refresher {
    config: HttpDiscoveryConfig,
    context: ProviderContext,
    client: Client,
    /// Groups of the last answer.
    groups: usize,
    /// Failures since then.
    failures: u32,
}

impl Refresher {
    fn new(config: HttpDiscoveryConfig, context: ProviderContext) -> Result<Self, String> {
        context.metrics.refreshes("http", &context.job);
        let client = Client::new(config.http.clone(), context.clock.clone())?;
        Ok(Self { config, context, client, groups: 0, failures: 0 })
    }

    /// Fetches once and returns how long to wait before the next time.
    async fn refresh(&mut self) -> Duration {
        let Self { config, context, .. } = self;
        let interval = Duration::from_millis(config.refresh_interval_ms);
        let begun = context.clock.monotonic();
        let fetched = match timeout(interval, fetch(config, &self.client, &context.options.user_agent)).await
        {
            Ok(fetched) => fetched,
            Err(_) => Err(failed(&config.url, format!("no answer within {interval:?}"))),
        };
        let took = context.clock.monotonic().saturating_sub(begun);
        context.metrics.refreshed("http", &context.job, took, fetched.is_err());
        match fetched {
            Ok(groups) => {
                let count = groups.len();
                let found = groups.into_iter().map(|group| (group.source.clone(), Some(group)));
                let gone = (count..self.groups).map(|i| (format!("{}:{i}", config.url).into(), None));
                context.sink.update(found.chain(gone));
                context.sink.mark_synced();
                (self.groups, self.failures) = (count, 0);
                interval
            }
            Err(error) => {
                tracing::error!(job = context.job, %error, "targets not fetched, the previous ones stay");
                context.metrics.http_failures.inc();
                let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(interval);
                self.failures = self.failures.saturating_add(1);
                pause
            }
        }
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
        let status = response.status();
        let reason = response.extensions().get::<ReasonPhrase>().map_or_else(
            || status.canonical_reason().unwrap_or_default().into(),
            |reason| String::from_utf8_lossy(reason.as_bytes()),
        );
        let text = format!("{} {reason}", status.as_u16());
        return Err(fail(format!("server returned HTTP status {}", text.trim_end())));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !is_json(kind) {
        return Err(fail(format!("unsupported content type {kind:?}, application/json is expected")));
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
