//! Counts and times requests to an API server, as Prometheus's client for Kubernetes does.
//!
//! A watch is counted when it begins and not timed. Names in a path count as one endpoint, so that there are few of them.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use tokio::time::Instant;
use tower_service::Service;

use crate::discovery::metrics::Metrics;

/// A client whose requests are counted.
pub(super) struct Measured {
    pub(super) inner: kube::Client,
    pub(super) metrics: Arc<Metrics>,
}

impl Service<Request<Body>> for Measured {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        // Each request asks its own clone.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, metrics) = (self.inner.clone(), Arc::clone(&self.metrics));
        Box::pin(async move {
            let watch = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "watch=true"));
            let endpoint = (!watch).then(|| endpoint(request.uri().path()));
            let begun = Instant::now();
            let answer = client.send(request).await;
            let code = match &answer {
                Ok(response) => response.status().as_str().to_owned(),
                Err(_) => "<error>".to_owned(),
            };
            metrics.kubernetes_requests.with_label_values(&[&code]).inc();
            if let Some(endpoint) = endpoint {
                let seconds = begun.elapsed().as_secs_f64();
                metrics.kubernetes_request_seconds.with_label_values(&[&endpoint]).observe(seconds);
            }
            answer
        })
    }
}

/// The path with the namespace left out, escaped as Prometheus's client shows it.
fn endpoint(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    if let Some(at) = parts.iter().position(|p| *p == "namespaces")
        && at + 2 < parts.len()
    {
        parts[at + 1] = "%7Bnamespace%7D";
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_no_endpoints_of_their_own() {
        for (path, shown) in [
            ("/api/v1/pods", "/api/v1/pods"),
            ("/api/v1/namespaces", "/api/v1/namespaces"),
            ("/api/v1/namespaces/shop/pods", "/api/v1/namespaces/%7Bnamespace%7D/pods"),
            (
                "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices",
                "/apis/discovery.k8s.io/v1/namespaces/%7Bnamespace%7D/endpointslices",
            ),
        ] {
            assert_eq!(endpoint(path), shown);
        }
    }
}
