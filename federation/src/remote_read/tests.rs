//! The client against a server on the loopback interface that answers from memory, or badly.

use std::sync::Mutex;
use std::time::Duration;

use ::http::{Request, Response as HttpResponse};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::chunk::decode_chunks;
use model::memory::MemoryStorage;
use model::{Histogram, Labels, MatchOp, Sample, Samples};
use tokio::net::TcpListener;
use wire::read::ReadResponseEncoder;

use super::*;
use crate::tiered::{OnUnavailable, Tiered};

type Flat = Vec<(String, Vec<Sample>)>;

/// A canned answer: status, content type, body.
type Canned = (u16, &'static str, Vec<u8>);

#[derive(Clone)]
struct Server {
    store: MemoryStorage,
    canned: Arc<Mutex<Option<Canned>>>,
    /// Path and query of each request.
    seen: Arc<Mutex<Vec<String>>>,
    url: String,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let this = Self {
            store: MemoryStorage::new(),
            canned: Arc::default(),
            seen: Arc::default(),
            url: format!("http://{address}/prom/api/v1/read"),
        };
        let accepting = this.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let this = accepting.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| this.clone().serve(request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        this
    }

    fn remote(&self, change: impl FnOnce(&mut RemoteReadConfig)) -> RemoteRead {
        let mut config = RemoteReadConfig::new("lt", self.url.clone());
        config.timeout = Duration::from_millis(500);
        change(&mut config);
        RemoteRead::new(config, Handle::current()).expect("settings")
    }

    fn answer(&self, status: u16, kind: &'static str, body: impl Into<Vec<u8>>) {
        *self.canned.lock().expect("sound") = Some((status, kind, body.into()));
    }

    async fn serve(self, request: Request<Incoming>) -> Result<HttpResponse<Full<Bytes>>, std::io::Error> {
        let target = request.uri().path_and_query().expect("a path").to_string();
        self.seen.lock().expect("sound").push(target.clone());
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        let canned = self.canned.lock().expect("sound").clone();
        let (status, kind, body) = match canned {
            Some(canned) => canned,
            None => (200, "application/x-protobuf", self.read(&body)),
        };
        if status == 999 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let mut response = HttpResponse::new(Full::new(body.into()));
        *response.status_mut() = status.try_into().expect("a status");
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(response)
    }

    fn read(&self, body: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        Decompressor::new().decompress(body, 1 << 20, &mut plain).expect("snappy");
        let request = ReadRequest::decode(&plain).expect("a request");
        assert_eq!(request.answer_form(), Ok(wire::read::ResponseType::Samples));
        let mut out = ReadResponseEncoder::new();
        for q in &request.queries {
            let querier = self.store.querier(q.mint, q.maxt).expect("opens");
            let mut set = querier.select(&q.matchers, &q.hints).expect("selects");
            out.result(&mut *set, q.mint, q.maxt, &mut 1_000_000).expect("fits");
        }
        let mut compressed = Vec::new();
        Compressor::new().compress(&out.into_bytes(), &mut compressed).expect("fits");
        compressed
    }
}

fn flat(mut set: Box<dyn SeriesSet>) -> (Flat, Vec<String>) {
    let mut out = Vec::new();
    let mut samples = Samples::new();
    while let Some(s) = set.next().expect("readable") {
        decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples).expect("columns");
        out.push((s.labels.to_string(), samples.iter().collect()));
    }
    (out, set.warnings())
}

/// Runs on a blocking thread, as callers of the contracts do.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.expect("no panic")
}

fn up() -> Vec<Matcher> {
    vec![Matcher::equal("__name__", "up")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seam_cannot_be_seen_over_http() {
    let server = Server::start().await;
    let (whole, local) = (MemoryStorage::new(), MemoryStorage::new());
    for (job, t) in (0..40).map(|i| (["a", "b"][i % 2], i as i64)) {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", job)]);
        let sample = if t % 10 == 3 {
            Sample::histogram(t, Histogram { count: t as u64, ..Histogram::default() })
        } else {
            Sample::float(t, if t % 10 == 7 { model::stale_nan() } else { t as f64 })
        };
        whole.insert(&labels, sample.clone());
        if t >= 25 {
            local.insert(&labels, sample);
        } else {
            let sent = labels.iter().chain([("cluster", "c")]);
            server.store.insert(&Labels::from_pairs(sent), sample);
        }
    }
    let remote = server.remote(|_| {});
    assert_eq!(remote.name(), "lt");
    blocking(move || {
        let tiered = Tiered {
            local: Arc::new(local),
            local_min_time: Arc::new(|| Some(25)),
            remote: Arc::new(remote),
            external_labels: Labels::from_pairs([("cluster", "c")]),
            promoted: None,
            on_unavailable: OnUnavailable::Fail,
        };
        for (mint, maxt) in [(0, 39), (10, 20), (30, 39), (24, 25), (5, 4)] {
            let hints = SelectHints { start_ms: mint, end_ms: maxt, ..SelectHints::default() };
            let select = |q: &dyn Queryable| {
                flat(q.querier(mint, maxt).expect("opens").select(&up(), &hints).expect("selects"))
            };
            assert_eq!(select(&tiered), select(&whole), "[{mint}, {maxt}]");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_questions_go_to_the_api_beside_it() {
    let server = Server::start().await;
    server.answer(200, "application/json", r#"{"status":"success","data":["b","a","b"],"warnings":["w"]}"#);
    let remote = server.remote(|_| {});
    let other = server.remote(|c| c.url = c.url.replace("/read", "/rr"));
    blocking(move || {
        let q = remote.querier(-1500, 2007).expect("opens");
        let matchers = [
            Matcher::equal("__name__", "up"),
            Matcher::new(MatchOp::NotRegexp, "ü", "a\"&+ ").expect("valid"),
        ];
        let expect = LabelsResult { values: vec!["a".into(), "b".into()], warnings: vec!["w".into()] };
        assert_eq!(q.label_names(&matchers, 0).expect("answers"), expect);
        assert_eq!(q.label_values("job", &[], 1).expect("answers").values, ["a"]);
        assert_eq!(q.label_values("my.ü_x", &[], 0).expect("answers"), expect);
        let e = other.querier(0, 1).expect("opens").label_names(&[], 0).expect_err("no address");
        assert!(matches!(e, StorageError::Unsupported(_)), "{e}");
    })
    .await;
    let seen = server.seen.lock().expect("sound").clone();
    let selector = "%7B%5F%5Fname%5F%5F%3D%22up%22%2C%22%C3%BC%22%21%7E%22a%5C%22%26%2B%20%22%7D";
    assert_eq!(
        seen,
        [
            format!("/prom/api/v1/labels?start=-1.500&end=2.007&match%5B%5D={selector}"),
            "/prom/api/v1/label/job/values?start=-1.500&end=2.007&limit=1".into(),
            "/prom/api/v1/label/U__my_2e__fc___x/values?start=-1.500&end=2.007".into(),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_none_are_errors_with_the_remotes_name() {
    let server = Server::start().await;
    let remote = server.remote(|c| {
        c.max_response_bytes = 100;
        c.max_decompressed_bytes = 1000;
    });
    let check = async |server: &Server, canned: Canned, reason: &'static str| {
        server.answer(canned.0, canned.1, canned.2);
        let remote = remote.clone();
        let e = blocking(move || {
            let q = remote.querier(0, 10).expect("opens");
            q.select(&up(), &SelectHints::default()).map(drop).expect_err(reason)
        })
        .await;
        assert!(e.to_string().contains(reason) && e.to_string().contains("\"lt\""), "{e}");
        e
    };
    const PROTOBUF: &str = "application/x-protobuf";
    let e =
        check(&server, (500, "text/plain", b"broken\nmore".to_vec()), "Internal Server Error: broken").await;
    assert!(matches!(e, StorageError::Unavailable { .. }));
    check(&server, (999, PROTOBUF, vec![]), "no answer within").await;
    check(&server, (200, PROTOBUF, vec![0xff; 50]), "snappy").await;
    check(&server, (200, PROTOBUF, vec![0]), "one result").await;
    let e = check(&server, (200, PROTOBUF, vec![1; 101]), "exceeds the limit of 100").await;
    assert!(matches!(e, StorageError::Limit(_)));
    // A block that declares 1 MiB.
    let e = check(&server, (200, PROTOBUF, vec![0x80, 0x80, 0x40, 0]), "exceeds the limit of 1000").await;
    assert!(matches!(e, StorageError::Limit(_)));
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    let e = check(&server, (200, kind, vec![]), "streamed").await;
    assert!(matches!(e, StorageError::Unsupported(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_chunks_are_taken_where_their_codecs_are_known() {
    let server = Server::start().await;
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    let remote = server.remote(|c| c.max_frame_bytes = 9).with_chunks(|_| None);
    for (body, problem) in [
        (vec![], None),
        (vec![0, 0, 0, 0, 0], None),
        (vec![0, 0, 0, 0, 1], Some("checksum")),
        (vec![10, 0, 0, 0, 0], Some("exceeds the limit of 9")),
    ] {
        server.answer(200, kind, body);
        let remote = remote.clone();
        let read = blocking(move || {
            let q = remote.querier(0, 10).expect("opens");
            let mut set = q.select(&up(), &SelectHints::default())?;
            set.next().map(|series| series.is_none())
        });
        match (read.await, problem) {
            (Ok(empty), None) => assert!(empty),
            (Err(e), Some(problem)) => assert!(e.to_string().contains(problem), "{e}"),
            (other, _) => panic!("{other:?}, expected {problem:?}"),
        }
    }
}
