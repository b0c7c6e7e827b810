//! For tests: a receiver in this process behind the transport, which stores what it gets in any store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use model::storage::SeriesRef;
use model::{AppendError, Appendable, Labels, SampleValue};
use wire::snappy::Decompressor;
use wire::write_v1::{LabelScratch, WriteRequest, to_labels};
use wire::write_v2;

use crate::http::{HttpError, Outgoing, Response};
use crate::transport::{Answer, Transport};

/// A receiver of remote write 1.0 and 2.0 that answers as the specification says.
pub(crate) struct Loopback {
    pub(crate) store: parking_lot::Mutex<Arc<dyn Appendable>>,
    /// No answer, nothing stored.
    pub(crate) down: AtomicBool,
    /// 415 for version 2.0.
    pub(crate) only_v1: AtomicBool,
    /// 413 above so many samples; 0 for no limit.
    pub(crate) max_samples: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    pub(crate) metadata: AtomicUsize,
}

/// What a request holds: labels and samples of each series.
pub(crate) type Decoded = Vec<(Labels, Vec<model::Sample>)>;

impl Loopback {
    pub(crate) fn new(store: Arc<dyn Appendable>) -> Arc<Self> {
        Arc::new(Self {
            store: parking_lot::Mutex::new(store),
            down: AtomicBool::new(false),
            only_v1: AtomicBool::new(false),
            max_samples: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            metadata: AtomicUsize::new(0),
        })
    }

    /// Answers a request at once.
    pub(crate) fn receive(&self, outgoing: &Outgoing<'_>) -> Result<Response, HttpError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            return Err(HttpError::Transport("connection refused".into()));
        }
        let is_v2 = outgoing.headers.iter().any(|(n, v)| {
            n == "content-type" && v.to_str().is_ok_and(|v| v.ends_with("io.prometheus.write.v2.Request"))
        });
        if is_v2 && self.only_v1.load(Ordering::Relaxed) {
            return Ok(answer(415, None));
        }
        let mut body = Vec::new();
        Decompressor::new().decompress(&outgoing.body, 1 << 28, &mut body).expect("snappy");
        let series = if is_v2 { self.v2(&body) } else { v1(&body) };
        let samples: usize = series.iter().map(|(_, s)| s.len()).sum();
        let limit = self.max_samples.load(Ordering::Relaxed);
        if limit > 0 && samples > limit {
            return Ok(answer(413, None));
        }
        let store = self.store.lock().clone();
        match store_all(&*store, series) {
            Ok(written) => Ok(answer(204, Some(written))),
            Err(e) => {
                let mut response = answer(503, None);
                response.body = Bytes::from(e);
                Ok(response)
            }
        }
    }

    fn v2(&self, body: &[u8]) -> Decoded {
        let mut request = write_v2::Request::new(body).expect("valid");
        let (mut out, mut s) = (Vec::new(), write_v2::TimeSeries::new());
        while request.next_series(&mut s).expect("valid") {
            assert!(!s.samples().is_empty(), "a series of version 2.0 has a sample");
            self.metadata.fetch_add(usize::from(s.metadata().is_some()), Ordering::Relaxed);
            out.push((to_labels(s.labels()).expect("valid"), s.samples().to_vec()));
        }
        out
    }
}

fn v1(body: &[u8]) -> Decoded {
    let mut request = WriteRequest::new(body);
    let (mut out, mut scratch) = (Vec::new(), LabelScratch::default());
    while let Some(s) = request.next_series().expect("valid") {
        let labels = to_labels(s.labels(&mut scratch).expect("valid")).expect("valid");
        let floats = s.samples().map(|s| s.expect("valid")).map(|(t, v)| model::Sample::float(t, v));
        out.push((labels, floats.chain(s.histograms().map(|h| h.expect("valid"))).collect()));
    }
    out
}

/// Stores everything as one batch; gives the numbers of floats and histograms.
fn store_all(store: &dyn Appendable, series: Decoded) -> Result<(u64, u64), String> {
    let mut appender = store.appender().map_err(|e| e.to_string())?;
    let (mut floats, mut histograms) = (0, 0);
    for (labels, samples) in series {
        for sample in samples {
            let is_float = matches!(sample.value, SampleValue::Float(_));
            match appender.append(SeriesRef::NONE, &labels, sample) {
                Ok(_) if is_float => floats += 1,
                Ok(_) => histograms += 1,
                Err(AppendError::Storage(e)) => return Err(e.to_string()),
                Err(e) => panic!("{labels}: {e}"),
            }
        }
    }
    appender.commit().map_err(|e| e.to_string())?;
    Ok((floats, histograms))
}

fn answer(status: u16, written: Option<(u64, u64)>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some((floats, histograms)) = written {
        headers.insert("x-prometheus-remote-write-samples-written", HeaderValue::from(floats));
        headers.insert("x-prometheus-remote-write-histograms-written", HeaderValue::from(histograms));
        headers.insert("x-prometheus-remote-write-exemplars-written", HeaderValue::from(1_u64 << 32));
    }
    Response { status: StatusCode::from_u16(status).expect("a status"), headers, body: Bytes::new() }
}

impl Transport for Loopback {
    fn send<'a>(&'a self, outgoing: Outgoing<'a>) -> Answer<'a> {
        Box::pin(async move { self.receive(&outgoing) })
    }
}
