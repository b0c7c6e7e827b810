//! A receiver of remote write before a long-term store: a request is one batch, acknowledged once it is committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use federation::http::Response;
use federation::store::{LongtermStore, StoreConfig};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use model::storage::SeriesRef;
use model::{AppendError, Appendable, Clock, Labels, Sample, SampleValue};
use wire::snappy::Decompressor;
use wire::write_v1::{LabelScratch, WriteRequest, to_labels};
use wire::write_v2;

/// Samples by labels and time, as bits.
pub(crate) type Contents = BTreeMap<Labels, BTreeMap<i64, u64>>;

/// The bits of a sample; histograms by their sum.
pub(crate) fn bits(s: &Sample) -> u64 {
    match &s.value {
        SampleValue::Float(v) => v.to_bits(),
        SampleValue::Histogram(h) => h.sum().to_bits(),
    }
}

/// How far ahead of its clock a long-term node takes samples.
const MAX_AHEAD_MS: i64 = 600_000;

/// The long-term node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    Fine,
    /// Nothing can be written.
    Full,
    /// What is written is there, although the write is said to have failed.
    FullAtTheLast,
}

/// A long-term node that can die.
pub(crate) struct Receiver {
    dir: tempfile::TempDir,
    clock: Arc<dyn Clock>,
    store: Mutex<Option<Arc<LongtermStore>>>,
    disk: Mutex<Disk>,
    /// What was acknowledged with an answer that arrived.
    pub(crate) acknowledged: Mutex<Contents>,
}

impl Receiver {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let dir = crate::world::folder();
        let this = Arc::new(Self {
            dir,
            clock,
            store: Mutex::default(),
            disk: Mutex::new(Disk::Fine),
            acknowledged: Mutex::default(),
        });
        this.restart();
        this
    }

    /// The process ends without a word and starts again. Nothing may use the store meanwhile.
    pub(crate) fn restart(&self) {
        let mut store = self.store.lock().expect("sound");
        drop(store.take());
        // Whoever was reading finishes; the directory is free then.
        let opened = (0..5000).find_map(|_| {
            let config = StoreConfig {
                sync: false,
                cache_bytes: 8 << 20,
                write_buffer_bytes: 4 << 20,
                background_threads: 1,
                ..StoreConfig::new(self.dir.path())
            };
            let opened = LongtermStore::open(config, self.clock.clone(), &prometheus::Registry::new());
            if opened.is_err() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            opened.ok()
        });
        *store = Some(opened.expect("opens"));
    }

    pub(crate) fn store(&self) -> Arc<LongtermStore> {
        self.store.lock().expect("sound").clone().expect("it runs")
    }

    /// From now on the disk is full, or not.
    pub(crate) fn set_disk(&self, disk: Disk) {
        *self.disk.lock().expect("sound") = disk;
    }

    /// Stores a request; gives the answer and what is acknowledged with it. Samples far ahead of the clock are refused, and so
    /// are those that are older than the retention while nothing newer is there to doubt the clock by; the rest is kept, as a
    /// long-term node does.
    pub(crate) fn receive(&self, is_v2: bool, body: &[u8]) -> (Response, Vec<(Labels, Sample)>) {
        let mut decoded = Vec::new();
        Decompressor::new().decompress(body, 1 << 28, &mut decoded).expect("snappy");
        let samples = if is_v2 { v2(&decoded) } else { v1(&decoded) };
        let store = self.store();
        let mut appender = store.appender().expect("it runs");
        let max_ms = self.clock.now_ms() + MAX_AHEAD_MS;
        let mut taken = Vec::new();
        let (mut refused, mut floats, mut histograms) = (false, 0_u64, 0_u64);
        for (labels, sample) in samples {
            let appended = if sample.timestamp_ms > max_ms {
                Err(AppendError::OutOfBounds)
            } else {
                appender.append(SeriesRef::NONE, &labels, sample.clone())
            };
            match appended {
                Ok(_) | Err(AppendError::DuplicateTimestamp) => {}
                Err(AppendError::OutOfBounds | AppendError::TooOld) => {
                    refused = true;
                    continue;
                }
                Err(e) => panic!("{labels} at {}: {e}", sample.timestamp_ms),
            }
            match sample.value {
                SampleValue::Float(_) => floats += 1,
                SampleValue::Histogram(_) => histograms += 1,
            }
            taken.push((labels, sample));
        }
        match *self.disk.lock().expect("sound") {
            Disk::Fine => appender.commit().expect("durable"),
            Disk::Full => {
                appender.rollback();
                return (answer(StatusCode::SERVICE_UNAVAILABLE), Vec::new());
            }
            Disk::FullAtTheLast => {
                appender.commit().expect("durable");
                return (answer(StatusCode::SERVICE_UNAVAILABLE), Vec::new());
            }
        }
        let mut answer = answer(if refused { StatusCode::BAD_REQUEST } else { StatusCode::NO_CONTENT });
        let written = [("samples", floats), ("histograms", histograms), ("exemplars", 1 << 32)];
        for (what, n) in written {
            let name = format!("x-prometheus-remote-write-{what}-written");
            answer.headers.insert(HeaderName::try_from(name).expect("a name"), HeaderValue::from(n));
        }
        (answer, taken)
    }

    /// An answer has arrived.
    pub(crate) fn note_acknowledged(&self, samples: Vec<(Labels, Sample)>) {
        let mut all = self.acknowledged.lock().expect("sound");
        for (labels, s) in samples {
            all.entry(labels).or_default().insert(s.timestamp_ms, bits(&s));
        }
    }
}

fn answer(status: StatusCode) -> Response {
    Response { status, headers: HeaderMap::new(), body: Bytes::new() }
}

fn v2(body: &[u8]) -> Vec<(Labels, Sample)> {
    let mut request = write_v2::Request::new(body).expect("valid");
    let (mut out, mut s) = (Vec::new(), write_v2::TimeSeries::new());
    while request.next_series(&mut s).expect("valid") {
        let labels = to_labels(s.labels()).expect("valid");
        out.extend(s.samples().iter().map(|x| (labels.clone(), x.clone())));
    }
    out
}

fn v1(body: &[u8]) -> Vec<(Labels, Sample)> {
    let mut request = WriteRequest::new(body);
    let (mut out, mut scratch) = (Vec::new(), LabelScratch::default());
    while let Some(s) = request.next_series().expect("valid") {
        let labels = to_labels(s.labels(&mut scratch).expect("valid")).expect("valid");
        for x in s.samples() {
            let (t, v) = x.expect("valid");
            out.push((labels.clone(), Sample::float(t, v)));
        }
        out.extend(s.histograms().map(|h| (labels.clone(), h.expect("valid"))));
    }
    out
}
