//! Remote write and remote read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use model::chunk::decode_chunks;
use model::storage::Appender;
use model::{
    AppendError, Appendable, ChunkCodec, Exemplar, Labels, Matcher, Metadata, Sample, SampleValue, Samples,
    SelectHints, SeriesRef, StorageError,
};
use wire::read::{ReadQuery, ReadRequest, ResponseType, decode_response};
use wire::read_chunks::{ChunkLimits, decode_chunked};
use wire::snappy::{Compressor, Decompressor};
use wire::write_v1::WriteRequestEncoder;

use crate::support::{Answer, NOW_MS, PlainCodec, TestServer, labels, start, start_with};

fn snappy(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Compressor::new().compress(body, &mut out).expect("compresses");
    out
}

const HEADERS: [(&str, &str); 2] =
    [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];

fn write(server: &TestServer, body: &[u8]) -> Answer {
    server.request("POST", "/api/v1/write", &HEADERS, &snappy(body))
}

fn series(list: &[(&Labels, &[(i64, f64)])]) -> Vec<u8> {
    let mut encoder = WriteRequestEncoder::default();
    for (labels, samples) in list {
        let mut out = encoder.series_of(labels);
        for (t, v) in *samples {
            out.float(*t, *v);
        }
    }
    encoder.as_bytes().to_vec()
}

fn values(server: &TestServer, query: &str) -> serde_json::Value {
    server.get(&format!("/api/v1/query?query={query}")).json()["data"]["result"].clone()
}

#[test]
fn good_requests_are_stored() {
    let server = start();
    let a = labels(&[("__name__", "w"), ("i", "1")]);
    let b = labels(&[("__name__", "w"), ("i", "2")]);
    let answer =
        write(&server, &series(&[(&a, &[(NOW_MS - 1000, 1.0), (NOW_MS, 2.0)]), (&b, &[(NOW_MS, 3.0)])]));
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!(values(&server, "sum(w)")[0]["value"][1], "5");
    // Without headers, as old senders do.
    let again = server.request("POST", "/api/v1/write", &[], &snappy(&series(&[(&a, &[(NOW_MS, 4.0)])])));
    assert_eq!(again.status, 204);
    assert_eq!(values(&server, "sum(w)")[0]["value"][1], "7");
    assert_eq!(write(&server, b"").status, 204, "nothing is fine too");
}

#[test]
fn partly_bad_requests_keep_what_is_valid() {
    let server = start();
    let good = labels(&[("__name__", "w")]);
    let nameless = labels(&[("i", "1")]);
    let body = series(&[
        (&nameless, &[(NOW_MS, 1.0), (NOW_MS + 1, 1.0)]),
        (&good, &[(NOW_MS, 2.0), (NOW_MS + 700_000, 3.0)]),
    ]);
    let answer = write(&server, &body);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text(), "invalid metric name or labels, got {i=\"1\"}\nout of bounds for series w\n");
    assert_eq!(values(&server, "w")[0]["value"][1], "2");
    assert!(
        server.get("/metrics").text().contains("prometheus_api_remote_write_invalid_labels_samples_total 2")
    );
}

#[test]
fn malformed_bodies_are_refused_whole() {
    let server = start_with(|config, _| {
        config.remote_write.max_body_bytes = 10_000;
        config.remote_write.max_decoded_bytes = 50_000;
    });
    let mut cut = series(&[(&labels(&[("__name__", "w")]), &[(NOW_MS, 1.0)])]);
    cut.extend_from_slice(&[0x0a, 0x7f, 0x01]);
    let post = |body: &[u8]| server.request("POST", "/api/v1/write", &HEADERS, body).status;
    assert_eq!(post(&snappy(&cut)), 400);
    assert_eq!(values(&server, "w"), serde_json::json!([]), "nothing of it is kept");
    assert_eq!(post(b"not snappy at all"), 400);
    // Declares 4 GiB.
    assert_eq!(post(&[0xff, 0xff, 0xff, 0xff, 0x0f]), 413);
    assert_eq!(post(&snappy(&vec![0; 60_000])), 413, "too large once decompressed");
    assert_eq!(post(&vec![0; 20_000]), 413, "too large as it arrives");
    let types = |content: &str, encoding: &str| {
        let headers = [("Content-Type", content), ("Content-Encoding", encoding)];
        server.request("POST", "/api/v1/write", &headers, b"")
    };
    assert_eq!(types("application/json", "snappy").status, 415);
    assert_eq!(types("application/x-protobuf", "gzip").status, 415);
    let unknown = types("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy");
    assert_eq!(unknown.status, 415);
    assert!(unknown.text().contains("io.prometheus.write.v3.Request"));
}

/// A store that gives references and counts how often it looks at labels.
#[derive(Default)]
struct Refs {
    series: Mutex<HashMap<Labels, u64>>,
    samples: Mutex<Vec<(u64, i64, f64)>>,
    with_labels: AtomicUsize,
    metadata: AtomicUsize,
    exemplars: AtomicUsize,
    failing: Mutex<Option<StorageError>>,
}

#[derive(Clone)]
struct Store(Arc<Refs>);

struct Batch {
    store: Arc<Refs>,
    samples: Vec<(u64, i64, f64)>,
}

impl Appendable for Store {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        Ok(Box::new(Batch { store: self.0.clone(), samples: Vec::new() }))
    }
}

impl Appender for Batch {
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        let SampleValue::Float(value) = sample.value else {
            return Err(AppendError::InvalidHistogram("not here".into()));
        };
        let mut id = series.0;
        if series == SeriesRef::NONE {
            self.store.with_labels.fetch_add(1, Ordering::SeqCst);
            let mut all = self.store.series.lock().expect("not poisoned");
            let next = all.len() as u64 + 1;
            id = *all.entry(labels.clone()).or_insert(next);
        }
        self.samples.push((id, sample.timestamp_ms, value));
        Ok(SeriesRef(id))
    }

    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) -> Result<(), AppendError> {
        if !self.store.series.lock().expect("not poisoned").values().any(|id| *id == series.0) {
            return Err(AppendError::UnknownRef);
        }
        if value < 0.0 {
            return Err(AppendError::OutOfOrder);
        }
        self.samples.push((series.0, timestamp_ms, value));
        Ok(())
    }

    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        self.store.exemplars.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn append_metadata(&mut self, _: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        self.store.metadata.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        if let Some(e) = self.store.failing.lock().expect("not poisoned").clone() {
            return Err(e);
        }
        self.store.samples.lock().expect("not poisoned").extend(self.samples);
        Ok(())
    }

    fn rollback(self: Box<Self>) {}
}

fn start_refs() -> (TestServer, Arc<Refs>) {
    let refs = Arc::new(Refs::default());
    let store = Store(refs.clone());
    (start_with(|_, deps| deps.appendable = Some(Arc::new(store))), refs)
}

#[test]
fn known_series_cost_no_labels() {
    let (server, refs) = start_refs();
    let all: Vec<Labels> = (0..50).map(|i| labels(&[("__name__", "w"), ("i", &format!("{i:02}"))])).collect();
    for round in 0..4_i32 {
        let sample = [(NOW_MS + i64::from(round), f64::from(round))];
        let list: Vec<(&Labels, &[(i64, f64)])> = all.iter().map(|l| (l, &sample[..])).collect();
        assert_eq!(write(&server, &series(&list)).status, 204);
    }
    assert_eq!(refs.with_labels.load(Ordering::SeqCst), 50, "labels are looked at once per series");
    assert_eq!(refs.samples.lock().expect("not poisoned").len(), 200);
    // The store forgets: the references are refused and labels are read again.
    refs.series.lock().expect("not poisoned").clear();
    assert_eq!(write(&server, &series(&[(&all[7], &[(NOW_MS + 9, 1.0)])])).status, 204);
    assert_eq!(refs.with_labels.load(Ordering::SeqCst), 51);
    // A refusal on the fast path names the series.
    let answer = write(&server, &series(&[(&all[7], &[(NOW_MS + 10, -1.0), (NOW_MS + 11, 5.0)])]));
    assert_eq!((answer.status, answer.text()), (400, "out of order sample for series w{i=\"07\"}\n"));
    assert_eq!(refs.samples.lock().expect("not poisoned").last(), Some(&(1, NOW_MS + 11, 5.0)));
}

#[test]
fn a_store_that_fails_asks_to_try_again() {
    let (server, refs) = start_refs();
    let body = series(&[(&labels(&[("__name__", "w")]), &[(NOW_MS, 1.0)])]);
    *refs.failing.lock().expect("not poisoned") = Some(StorageError::Closed);
    let answer = write(&server, &body);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    *refs.failing.lock().expect("not poisoned") = Some(StorageError::Unsupported("x".into()));
    assert_eq!(write(&server, &body).status, 500);
    *refs.failing.lock().expect("not poisoned") = None;
    assert_eq!(write(&server, &body).status, 204);
}

/// Field of length-delimited bytes.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    out.push(u8::try_from(bytes.len()).expect("short"));
    out.extend_from_slice(bytes);
}

/// One series of version 2.0: `w{i="1"}` as a gauge with a help text.
fn v2_body(value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    for symbol in ["", "__name__", "w", "i", "1", "Helps"] {
        field(&mut out, 4, symbol.as_bytes());
    }
    let mut sample = vec![1 << 3 | 1];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(2 << 3);
    let mut t = NOW_MS as u64;
    while t >= 0x80 {
        sample.push((t & 0x7f) as u8 | 0x80);
        t >>= 7;
    }
    sample.push(t as u8);
    let mut series = Vec::new();
    field(&mut series, 1, &[1, 2, 3, 4]);
    field(&mut series, 2, &sample);
    field(&mut series, 5, &[1 << 3, 2, 3 << 3, 5]);
    field(&mut out, 5, &series);
    out
}

#[test]
fn version_2_counts_what_it_wrote() {
    let (server, refs) = start_refs();
    let headers = [
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("Content-Encoding", "snappy"),
    ];
    for round in 0..3 {
        let answer = server.request("POST", "/api/v1/write", &headers, &snappy(&v2_body(f64::from(round))));
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), Some("1"));
        assert_eq!(answer.header("x-prometheus-remote-write-histograms-written"), Some("0"));
    }
    assert!(
        refs.series.lock().expect("not poisoned").contains_key(&labels(&[("__name__", "w"), ("i", "1")]))
    );
    assert_eq!(refs.with_labels.load(Ordering::SeqCst), 1);
    assert_eq!(refs.metadata.load(Ordering::SeqCst), 1, "metadata is told once");
}

#[test]
fn version_2_with_references_that_lead_nowhere_keeps_the_other_series() {
    let server = start();
    let headers = [
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("Content-Encoding", "snappy"),
    ];
    let post = |body: &[u8]| server.request("POST", "/api/v1/write", &headers, &snappy(body));
    let mut bad = Vec::new();
    field(&mut bad, 1, &[1, 9]);
    field(&mut bad, 2, &[]);
    let mut odd = Vec::new();
    field(&mut odd, 1, &[1, 2, 3]);
    field(&mut odd, 2, &[]);
    let mut body = v2_body(7.0);
    field(&mut body, 5, &bad);
    field(&mut body, 5, &odd);
    let answer = post(&body);
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.text(),
        "parsing labels for series [1 9]: labelRefs 1 (name) = 9 (value) outside of symbols table (size 6)\n\
         parsing labels for series [1 2 3]: invalid labelRefs length 3\n"
    );
    assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), Some("1"));
    assert_eq!(values(&server, "w")[0]["value"][1], "7");
    // A message that stands for far more than it is long is refused whole; a sender may halve it.
    let mut bomb = Vec::new();
    field(&mut bomb, 4, b"");
    bomb.extend(std::iter::repeat_n([5 << 3 | 2, 2, 3 << 3 | 2, 0], 2_000_000).flatten());
    let answer = post(&bomb);
    assert_eq!(
        (answer.status, answer.text().contains("send fewer at once")),
        (413, true),
        "{}",
        answer.text()
    );
    assert_eq!(post(&body[..body.len() - 1]).status, 400, "stops half-way");
}

#[test]
fn labels_and_values_that_are_odd_are_taken_or_refused_one_by_one() {
    let server = start();
    let good = labels(&[("__name__", "w"), ("i", "good")]);
    // In the order of the message: not sorted, and with an empty value, both of which are put right.
    let mut body = series(&[(&good, &[(NOW_MS, 1.0)])]);
    let mut entry = Vec::new();
    for (name, value) in [("z", ""), ("i", "unsorted"), ("__name__", "w")] {
        let mut pair = Vec::new();
        field(&mut pair, 1, name.as_bytes());
        field(&mut pair, 2, value.as_bytes());
        field(&mut entry, 1, &pair);
    }
    let mut twice = entry.clone();
    let mut pair = Vec::new();
    field(&mut pair, 1, b"i");
    field(&mut pair, 2, b"again");
    field(&mut twice, 1, &pair);
    let sample = |t: i64, bits: u64| {
        let mut out = vec![1 << 3 | 1];
        out.extend_from_slice(&bits.to_le_bytes());
        out.push(2 << 3);
        let mut t = t as u64;
        while t >= 0x80 {
            out.push((t & 0x7f) as u8 | 0x80);
            t >>= 7;
        }
        out.push(t as u8);
        out
    };
    // A NaN with a payload of its own keeps it; the year 9999 is out of bounds.
    let payload = 0x7ff8_dead_beef_0001;
    field(&mut entry, 2, &sample(NOW_MS, payload));
    field(&mut entry, 2, &sample(253_402_300_799_000, 0));
    field(&mut twice, 2, &sample(NOW_MS, 0));
    field(&mut body, 1, &entry);
    field(&mut body, 1, &twice);
    let answer = write(&server, &body);
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.text(),
        "out of bounds for series w{i=\"unsorted\"}\ninvalid labels: label \"i\" occurs twice\n"
    );
    assert_eq!(values(&server, "count(w)")[0]["value"][1], "2");
    let querier = model::Queryable::querier(&server.store, NOW_MS, NOW_MS).expect("in memory");
    let matcher = [Matcher::equal("i", "unsorted")];
    let mut set = querier.select(&matcher, &model::SelectHints::default()).expect("in memory");
    let found = set.next().expect("in memory").expect("the series");
    let mut samples = Samples::new();
    model::chunk::decode_chunks(&found.chunks, NOW_MS, NOW_MS, &mut samples).expect("in memory");
    assert_eq!(samples.values[0].to_bits(), payload);
}

#[test]
fn what_has_to_wait_is_looked_at_again_before_the_sender_is_told() {
    let (server, refs) = start_refs();
    *refs.failing.lock().expect("not poisoned") = Some(StorageError::NotYet("wait for replica a".into()));
    let body = series(&[(&labels(&[("__name__", "w")]), &[(NOW_MS, 1.0)])]);
    let later = refs.clone();
    let helper = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        *later.failing.lock().expect("not poisoned") = None;
    });
    assert_eq!(write(&server, &body).status, 204);
    helper.join().expect("waits");
    assert_eq!(refs.samples.lock().expect("not poisoned").len(), 1, "what was held came once");
}

fn read(server: &TestServer, request: &ReadRequest) -> Answer {
    server.request("POST", "/api/v1/read", &HEADERS, &snappy(&request.encode()))
}

fn query(matchers: Vec<Matcher>) -> ReadQuery {
    ReadQuery { mint: NOW_MS - 60_000, maxt: NOW_MS, matchers, hints: SelectHints::default(), rollup: None }
}

#[test]
fn remote_read_gives_samples_with_external_labels() {
    let server = start();
    *server.fixed.external.lock().expect("not poisoned") = vec![("cluster", "c1")];
    let matchers = vec![Matcher::equal("__name__", "up"), Matcher::equal("cluster", "c1")];
    let request =
        ReadRequest::samples(vec![query(matchers), query(vec![Matcher::equal("__name__", "none")])]);
    let answer = read(&server, &request);
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("snappy")), "{answer:?}");
    let mut body = Vec::new();
    Decompressor::new().decompress(&answer.body, 1 << 20, &mut body).expect("snappy");
    let results = decode_response(&body).expect("a response");
    assert_eq!(results.len(), 2);
    assert!(results[1].is_empty());
    let found: Vec<_> = results[0].iter().map(|s| s.labels.to_string()).collect();
    assert_eq!(
        found,
        [
            r#"up{cluster="c1", instance="a:1", job="node"}"#,
            r#"up{cluster="c1", instance="b:2", job="node"}"#
        ]
    );
    let mut samples = model::Samples::new();
    model::chunk::decode_chunks(&results[0][0].chunks, i64::MIN, i64::MAX, &mut samples).expect("decodes");
    assert_eq!(samples.timestamps_ms, [NOW_MS - 60_000, NOW_MS]);
}

#[test]
fn remote_read_refuses_what_it_cannot_answer() {
    let server = start_with(|config, _| config.remote_read.sample_limit = 1);
    let up = labels(&[("__name__", "up")]);
    server.store.insert(&up, Sample::float(NOW_MS - 1, 1.0));
    server.store.insert(&up, Sample::float(NOW_MS, 1.0));
    let all = || query(vec![Matcher::equal("__name__", "up")]);
    assert_eq!(read(&server, &ReadRequest::samples(vec![all()])).status, 400, "over the sample limit");
    let streamed = ReadRequest { queries: vec![all()], accepted: vec![ResponseType::Other(9)] };
    let answer = read(&server, &streamed);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("supported: [Samples, StreamedXorChunks]"), "{}", answer.text());
    assert_eq!(server.request("POST", "/api/v1/read", &HEADERS, b"junk").status, 400);
}

#[test]
fn remote_read_streams_chunks() {
    let server = start_with(|config, _| config.remote_read.max_bytes_in_frame = 150);
    let (a, b) = (labels(&[("__name__", "s"), ("i", "a")]), labels(&[("__name__", "s"), ("i", "b")]));
    for i in 0..20 {
        server.store.insert(&a, Sample::float(NOW_MS - 100_000 + i * 5000, i as f64));
    }
    server.store.insert(&b, Sample::float(NOW_MS, 7.0));
    let streamed = |mint: i64| {
        let mut one = query(vec![Matcher::equal("__name__", "s")]);
        one.mint = mint;
        let accepted = vec![ResponseType::Other(9), ResponseType::StreamedXorChunks, ResponseType::Samples];
        let answer = read(&server, &ReadRequest { queries: vec![one], accepted });
        assert_eq!((answer.status, answer.header("content-encoding")), (200, None));
        assert_eq!(
            answer.header("content-type"),
            Some("application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
        );
        let limits = ChunkLimits { mint: i64::MIN, maxt: i64::MAX, frame_len_bytes: 300, samples: 100 };
        let codecs = |encoding| (encoding == 1).then_some(&PlainCodec as &dyn ChunkCodec);
        let series = decode_chunked(&answer.body.into(), codecs, limits).expect("frames");
        let mut samples = Samples::new();
        let mut floats = |s: &model::Series| {
            decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples).expect("decodes");
            let floats = samples.timestamps_ms.iter().copied().zip(samples.values.iter().copied()).collect();
            (s.labels.to_string(), floats)
        };
        series.iter().map(&mut floats).collect::<Vec<(String, Vec<(i64, f64)>)>>()
    };
    let of_b = ("s{i=\"b\"}".to_owned(), vec![(NOW_MS, 7.0)]);
    let of_a = (8..20).map(|i| (NOW_MS - 100_000 + i * 5000, i as f64)).collect();
    assert_eq!(streamed(NOW_MS - 60_000), [("s{i=\"a\"}".to_owned(), of_a), of_b.clone()]);
    assert_eq!(streamed(NOW_MS), [of_b]);
}
