//! A `kube` client that speaks through the HTTP client of everyone else, so that every setting works towards an API
//! server too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use httpclient::Client;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use model::SystemClock;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower_service::Service;
use url::Url;

use crate::config::HttpConfig;

/// How long setting up a connection and sending a request may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client of the API server at `url`, whose answers may pause for `read_timeout`.
///
/// # Errors
/// What is wrong, on one line.
pub(super) fn kube_client(
    url: &str,
    http: &HttpConfig,
    user_agent: &str,
    read_timeout: Duration,
) -> Result<kube::Client, String> {
    let base = Url::parse(url).map_err(|e| format!("{url}: {e}"))?;
    let agent = HeaderValue::from_str(user_agent).map_err(|e| format!("User-Agent: {e}"))?;
    // Dates of assertions are all that the clock is for.
    let client = Client::new(http.clone(), SystemClock::shared())?;
    Ok(kube::Client::new(ApiServer { base, agent, client, read_timeout }, "default"))
}

#[derive(Clone)]
struct ApiServer {
    base: Url,
    agent: HeaderValue,
    client: Client,
    read_timeout: Duration,
}

impl Service<Request<kube::client::Body>> for ApiServer {
    type Response = Response<Watched>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Watched>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let server = self.clone();
        async move { server.send(request).await }.boxed()
    }
}

impl ApiServer {
    async fn send(&self, request: Request<kube::client::Body>) -> Result<Response<Watched>, BoxError> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let base = self.base.as_str().trim_end_matches('/');
        parts.uri = format!("{base}{path}").parse::<Uri>()?;
        parts.headers.insert(USER_AGENT, self.agent.clone());
        let answer = self.client.send(Request::from_parts(parts, body));
        let response = timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| "context deadline exceeded")??;
        let (limit, deadline) = (self.read_timeout, sleep(self.read_timeout));
        Ok(response.map(|body| Watched { body, limit, deadline: Box::pin(deadline) }))
    }
}

/// A body that ends with an error when nothing comes for too long.
struct Watched {
    body: Incoming,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.deadline.as_mut().reset(Instant::now() + this.limit);
            return Poll::Ready(frame.map(|f| f.map_err(|e| httpclient::body::broken(&e).into())));
        }
        match this.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(format!("nothing came for {:?}", this.limit).into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
