//! Against a collector of our own, over both protocols.

use std::convert::Infallible;
use std::io::Read;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use httpclient::{Secret, TlsConfig};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::SystemClock;
use tokio::net::TcpListener;
use wire::trace::ReadSpan;

use super::*;

/// What a collector was asked.
struct Asked {
    path: String,
    headers: HeaderMap,
    spans: Vec<ReadSpan>,
}

/// Answers with the statuses it is given, then takes everything.
#[derive(Default)]
struct Collector {
    asked: Mutex<Vec<Asked>>,
    /// A status of gRPC, or of HTTP.
    refusals: Mutex<Vec<u16>>,
    /// What is said about spans that are taken.
    says: Vec<u8>,
}

impl Collector {
    async fn listen(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let this = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = Arc::clone(&this);
                tokio::spawn(async move {
                    let answer = service_fn(move |request| Arc::clone(&this).answer(request));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A client that goes away is no failure of the test.
                    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        address
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let (head, body) = request.into_parts();
        let mut body = body.collect().await.expect("a body").to_bytes().to_vec();
        let grpc = head.headers["content-type"] == "application/grpc";
        let mut gzip = head.headers.get("content-encoding").is_some_and(|v| v == "gzip");
        if grpc {
            assert_eq!(
                (head.version, &head.headers["te"]),
                (http::Version::HTTP_2, &http::HeaderValue::from_static("trailers"))
            );
            assert_eq!(u32::from_be_bytes(body[1..5].try_into().expect("4 bytes")) as usize, body.len() - 5);
            gzip = body[0] == 1;
            body.drain(..5);
        }
        if gzip {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
            body = plain;
        }
        let spans = wire::trace::read(&body).expect("a request");
        let asked = Asked { path: head.uri.path().into(), headers: head.headers, spans };
        self.asked.lock().expect("not poisoned").push(asked);
        let refusal = self.refusals.lock().expect("not poisoned").pop();
        if !grpc {
            let answer = Response::builder()
                .status(refusal.unwrap_or(200))
                .header("content-type", "application/x-protobuf")
                .header("retry-after", "0")
                .body(Full::new(Bytes::from(self.says.clone())).boxed());
            return Ok(answer.expect("an answer"));
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", refusal.unwrap_or(0).into());
        let frames = [
            Ok(Frame::data(Bytes::from(grpc::frame(&self.says, false)))),
            Ok::<_, Infallible>(Frame::trailers(trailers)),
        ];
        Ok(Response::new(BodyExt::boxed(StreamBody::new(Frames(frames.into_iter())))))
    }

    fn names(&self) -> Vec<String> {
        self.asked
            .lock()
            .expect("not poisoned")
            .iter()
            .flat_map(|a| &a.spans)
            .map(|s| s.name.clone())
            .collect()
    }
}

struct Frames<I>(I);

impl<I: Iterator + Unpin> futures_util::Stream for Frames<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

fn config(protocol: Protocol, endpoint: &str) -> SpansConfig {
    SpansConfig {
        protocol,
        endpoint: endpoint.into(),
        sampling_fraction: 1.0,
        insecure: true,
        tls: TlsConfig::default(),
        headers: vec![("x-tenant".into(), Secret::new("blue"))],
        gzip: false,
        timeout: Duration::ZERO,
    }
}

fn spans() -> (Spans, Tracer, Registry) {
    let (tracer, registry) = (Tracer::default(), Registry::new());
    let spans = Spans::new(tracer.clone(), SystemClock::shared(), &registry, "prometheus", "1.2.3");
    (spans.expect("metrics"), tracer, registry)
}

fn count(registry: &Registry, reason: &str) -> f64 {
    let family = registry.gather().into_iter().find(|f| f.name() == "almanac_tracing_spans_dropped_total");
    let family = family.expect("a metric");
    let metric = family.get_metric().iter().find(|m| m.get_label()[0].value() == reason);
    metric.map_or(0.0, |m| m.get_counter().get_value())
}

#[tokio::test]
async fn a_collector_gets_the_spans() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for gzip in [false, true] {
            let collector = Arc::new(Collector::default());
            let endpoint = collector.listen().await;
            let (spans, tracer, _) = spans();
            spans.apply(Some(SpansConfig { gzip, ..config(protocol, &endpoint) })).await.expect("settings");
            let root = tracer.start("root");
            drop(root.link().child("inner", model::trace::SpanKind::Client));
            drop(root);
            spans.stop().await;
            let asked = collector.asked.lock().expect("not poisoned");
            let [one] = &asked[..] else { panic!("{} requests", asked.len()) };
            let path = match protocol {
                Protocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                Protocol::Http => "/v1/traces",
            };
            assert_eq!(
                (one.path.as_str(), &one.headers["x-tenant"]),
                (path, &http::HeaderValue::from_static("blue"))
            );
            let [inner, root] = &one.spans[..] else { panic!("{:?}", one.spans) };
            assert_eq!((inner.name.as_str(), inner.kind, inner.parent), ("inner", 3, Some(root.span_id)));
            assert_eq!(inner.trace_id, root.trace_id);
            for pair in [("service.name", "prometheus"), ("service.version", "1.2.3")] {
                assert!(root.resource.contains(&(pair.0.into(), pair.1.into())), "{:?}", root.resource);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_and_what_does_not_is_given_up() {
    for (protocol, passing, final_) in [(Protocol::Grpc, 14, 3), (Protocol::Http, 503, 400)] {
        let collector =
            Arc::new(Collector { refusals: Mutex::new(vec![final_, passing]), ..Collector::default() });
        let client = {
            let endpoint = collector.listen().await;
            let source = Source { resource: Vec::new(), scope: "s", scope_version: "1" };
            Client::new(&config(protocol, &endpoint), Arc::new(source), SystemClock::shared())
                .expect("settings")
        };
        let sink = Arc::new(model::trace::MemorySink::default());
        drop(sink.tracer(SystemClock::shared()).start("one"));
        let batch = sink.taken();
        let reason = client.send(&batch).await.expect_err("refused for good");
        assert!(reason.contains("InvalidArgument") || reason.contains("400"), "{reason}");
        assert_eq!(collector.names(), ["one", "one"]);
        assert_eq!(client.send(&batch).await, Ok(None));
    }
}

#[tokio::test]
async fn a_part_that_is_not_taken_is_said() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let says = vec![0x0a, 6, 0x08, 1, 0x12, 2, b'n', b'o'];
        let collector = Arc::new(Collector { says, ..Collector::default() });
        let endpoint = collector.listen().await;
        let (spans, tracer, registry) = spans();
        spans.apply(Some(config(protocol, &endpoint))).await.expect("settings");
        drop(tracer.start("one"));
        spans.stop().await;
        assert_eq!((collector.names().len(), count(&registry, "export_failed")), (1, 1.0));
    }
}

#[tokio::test]
async fn a_reload_sends_what_waits_and_goes_on_elsewhere() {
    let (first, second) = (Arc::new(Collector::default()), Arc::new(Collector::default()));
    let (at_first, at_second) = (first.listen().await, second.listen().await);
    let (spans, tracer, _) = spans();
    spans.apply(Some(config(Protocol::Grpc, &at_first))).await.expect("settings");
    drop(tracer.start("a"));
    spans.apply(Some(config(Protocol::Grpc, &at_first))).await.expect("the same");
    let under_way = tracer.start("b");
    spans.apply(Some(config(Protocol::Http, &at_second))).await.expect("settings");
    drop(under_way);
    drop(tracer.start("c"));
    let bad =
        SpansConfig { headers: vec![("x y".into(), Secret::new("z"))], ..config(Protocol::Grpc, &at_first) };
    assert!(spans.apply(Some(bad)).await.expect_err("a header").to_string().contains("x y"));
    drop(tracer.start("d"));
    spans.apply(None).await.expect("off");
    assert!(!tracer.start("e").is_recording());
    for (collector, names) in [(first, ["a", "b"]), (second, ["c", "d"])] {
        tokio::time::timeout(Duration::from_secs(10), async {
            while collector.names() != names {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{:?}, not {names:?}", collector.names()));
    }
}

#[tokio::test]
async fn a_share_of_none_sends_nothing() {
    let collector = Arc::new(Collector::default());
    let endpoint = collector.listen().await;
    let (spans, tracer, _) = spans();
    let none = SpansConfig { sampling_fraction: 0.0, ..config(Protocol::Grpc, &endpoint) };
    spans.apply(Some(none)).await.expect("settings");
    (0..100).for_each(|_| drop(tracer.start("x")));
    spans.stop().await;
    assert!(collector.names().is_empty());
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away() {
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = silent.local_addr().expect("an address").to_string();
    let (spans, tracer, registry) = spans();
    let config = SpansConfig { timeout: Duration::from_millis(50), ..config(Protocol::Http, &endpoint) };
    spans.apply(Some(config)).await.expect("settings");
    let most = queue::QUEUE_SPANS_MAX;
    // The task that empties the queue has no turn meanwhile.
    (0..most + 100).for_each(|_| drop(tracer.start("x")));
    assert_eq!(count(&registry, "queue_full"), 100.0);
    let began = tokio::time::Instant::now();
    spans.apply(None).await.expect("off");
    assert!(began.elapsed() < Duration::from_secs(1));
}
