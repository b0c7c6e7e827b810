//! A remote-write receiver on the loopback interface that misbehaves as told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::{Sample, SampleValue};
use tokio::net::TcpListener;
use wire::snappy::Decompressor;
use wire::write_v1::{LabelScratch, WriteRequest, to_labels};

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Stored, 200.
    Accept,
    /// Stored, but the answer gets lost.
    AcceptAndReset,
    /// Not stored, no answer.
    Reset,
    /// Not stored, and no answer within the sender's time.
    Hang,
    /// Not stored, this status and `Retry-After`.
    Status(u16, Option<&'static str>),
}

#[derive(Default)]
pub(super) struct State {
    /// Acts for the next requests; then `otherwise`.
    pub(super) script: VecDeque<Act>,
    pub(super) otherwise: Option<Act>,
    /// What was stored, in order of arrival.
    pub(super) stored: Vec<(String, Sample)>,
    pub(super) exemplars: usize,
    pub(super) families: Vec<String>,
    /// When each request came, and how many samples it held.
    pub(super) requests: Vec<(tokio::time::Instant, usize)>,
    pub(super) headers: Option<::http::HeaderMap>,
    /// Time until each answer.
    pub(super) delay: Duration,
}

#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) address: SocketAddr,
}

impl Receiver {
    pub(super) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let state = State { script: script.into_iter().collect(), ..State::default() };
        let this = Self { state: Arc::new(Mutex::new(state)), address };
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

    pub(super) fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    pub(super) fn set_otherwise(&self, act: Act) {
        self.state.lock().expect("sound").otherwise = Some(act);
    }

    pub(super) fn stored(&self) -> Vec<(String, Sample)> {
        self.state.lock().expect("sound").stored.clone()
    }

    async fn serve(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let act = self.receive(parts.headers, &body);
        let delay = self.state.lock().expect("sound").delay;
        tokio::time::sleep(delay).await;
        let respond = |status: u16, after: Option<&str>| {
            let mut response = Response::new(Full::new(Bytes::from("because")));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            if let Some(after) = after {
                response.headers_mut().insert("retry-after", after.parse().expect("a header"));
            }
            Ok(response)
        };
        match act {
            Act::Accept => respond(200, None),
            Act::Status(status, after) => respond(status, after),
            Act::Hang => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                respond(200, None)
            }
            Act::AcceptAndReset | Act::Reset => Err(std::io::Error::other("reset")),
        }
    }

    fn receive(&self, headers: ::http::HeaderMap, body: &[u8]) -> Act {
        let mut decompressed = Vec::new();
        Decompressor::new().decompress(body, 1 << 24, &mut decompressed).expect("snappy");
        let mut state = self.state.lock().expect("sound");
        let act = state.script.pop_front().or(state.otherwise).unwrap_or(Act::Accept);
        let samples = read(&decompressed);
        state.requests.push((tokio::time::Instant::now(), samples.len()));
        state.headers = Some(headers);
        if matches!(act, Act::Accept | Act::AcceptAndReset) {
            state.stored.extend(samples);
            let mut request = WriteRequest::new(&decompressed);
            state.families.extend(request.metadata().map(|m| m.expect("valid").0.to_owned()));
            while let Some(s) = request.next_series().expect("valid") {
                state.exemplars += s.exemplars_len();
            }
        }
        act
    }
}

fn read(body: &[u8]) -> Vec<(String, Sample)> {
    let mut out = Vec::new();
    let mut scratch = LabelScratch::default();
    let mut request = WriteRequest::new(body);
    while let Some(s) = request.next_series().expect("valid") {
        let labels = to_labels(s.labels(&mut scratch).expect("valid")).expect("valid").to_string();
        for x in s.samples() {
            let (t, v) = x.expect("valid");
            out.push((labels.clone(), Sample::float(t, v)));
        }
        for x in s.histograms() {
            let x = x.expect("valid");
            assert!(matches!(x.value, SampleValue::Histogram(_)));
            out.push((labels.clone(), x));
        }
    }
    out
}
