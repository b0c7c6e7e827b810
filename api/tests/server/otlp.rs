//! OTLP metrics over HTTP: forms, limits, statuses, counters.

use std::collections::HashSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use model::{AppendError, Appender, Exemplar, Labels, Metadata, Sample, SeriesRef, StorageError};
use wire::otlp::{Promote, Settings, json_to_protobuf};

use crate::support::{Answer, NOW_MS, TestServer, start, start_with};

const PATH: &str = "/api/v1/otlp/v1/metrics";

fn body(name: &str, value: i64, t_ms: i64) -> Vec<u8> {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"s"}}}},
        {{"key":"host.name","value":{{"stringValue":"h"}}}}]}},"scopeMetrics":[{{"metrics":[{{"name":"{name}","gauge":{{"dataPoints":[
        {{"asInt":"{value}","timeUnixNano":"{t_ms}000000","attributes":[{{"key":"a.b","value":{{"stringValue":"x"}}}}]}}]}}}}]}}]}}]}}"#
    )
    .into_bytes()
}

fn protobuf(json: &[u8]) -> Vec<u8> {
    json_to_protobuf(json, 1 << 20).expect("a request")
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn post(server: &TestServer, kind: &str, encoding: &str, body: &[u8]) -> Answer {
    let mut headers = vec![("Content-Type", kind)];
    if !encoding.is_empty() {
        headers.push(("Content-Encoding", encoding));
    }
    server.request("POST", PATH, &headers, body)
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn value(server: &TestServer, query: &str) -> serde_json::Value {
    server.get(&format!("/api/v1/query?query={query}")).json()["data"]["result"][0]["value"][1].clone()
}

#[test]
fn all_forms_are_taken() {
    let server = start();
    for (i, (kind, encoding)) in
        [(PROTOBUF, ""), (PROTOBUF, "gzip"), (JSON, ""), (JSON, "gzip")].into_iter().enumerate()
    {
        // Again and again: the first time the series is new, then it is known.
        let json = body("m", i as i64, NOW_MS - 4000 + 1000 * i as i64);
        let plain = if kind == JSON { json } else { protobuf(&json) };
        let sent = if encoding.is_empty() { plain } else { gzip(&plain) };
        let answer = post(&server, kind, encoding, &sent);
        assert_eq!((answer.status, answer.text()), (200, ""), "{kind} {encoding}");
        assert_eq!(value(&server, "m{a_b=\"x\",job=\"s\"}"), i.to_string());
    }
    assert_eq!(value(&server, "target_info{host_name=\"h\"}"), "1");
    assert_eq!(post(&server, PROTOBUF, "", b"").status, 200, "nothing is fine too");
}

#[test]
fn what_is_no_request_is_refused() {
    let server = start();
    let check = |kind: &str, encoding: &str, body: &[u8], status: u16, text: &str| {
        let answer = post(&server, kind, encoding, body);
        assert_eq!(answer.status, status, "{kind} {encoding}: {}", answer.text());
        assert!(answer.text().contains(text), "{}", answer.text());
    };
    let types =
        "unsupported content type: text/plain, supported: [application/json, application/x-protobuf]\n";
    check("text/plain", "", b"", 400, types);
    check("application/json; charset=utf-8", "", b"{}", 400, "unsupported content type");
    let encodings = "unsupported compression: zstd. Only \"gzip\" or no compression supported\n";
    check(PROTOBUF, "zstd", b"", 400, encodings);
    check(PROTOBUF, "snappy", b"", 400, "unsupported compression: snappy");
    check(PROTOBUF, "gzip", b"no gzip", 400, "gzip");
    check(PROTOBUF, "", b"no protobuf", 400, "malformed");
    check(JSON, "", b"no JSON", 400, "an object is expected");
    check(JSON, "", b"\xff", 400, "not UTF-8");
}

#[test]
fn bombs_are_refused() {
    let server = start_with(|config, _| {
        config.remote_write.max_decoded_bytes = 50_000;
        config.remote_write.max_body_bytes = 20_000;
    });
    assert_eq!(post(&server, PROTOBUF, "gzip", &gzip(&vec![0; 10_000_000])).status, 413);
    assert_eq!(post(&server, PROTOBUF, "", &vec![0; 20_001]).status, 413);
    // As protobuf it would be larger than the limit.
    let numbers = "1,".repeat(8000) + "1";
    let json = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[{numbers}]}}]}}}}]}}]}}]}}"#
    );
    assert_eq!(post(&server, JSON, "", json.as_bytes()).status, 413);
    // A resource with a long attribute that each of many points would have.
    let small = start_with(|_, deps| {
        let promote = Promote::AllBut(HashSet::new());
        deps.otlp =
            api::OtlpSettings::new(Settings { promote, max_label_bytes: 1 << 20, ..Settings::default() });
    });
    let points = "{},".repeat(2000) + "{}";
    let json = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"a","value":{{"stringValue":"{}"}}}}]}},
        "scopeMetrics":[{{"metrics":[{{"name":"g","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#,
        "x".repeat(1000)
    );
    let answer = post(&small, JSON, "", json.as_bytes());
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("1048576 bytes"), "{}", answer.text());
}

#[test]
fn a_request_is_taken_as_a_whole_or_not_at_all() {
    let server = start();
    let delta = String::from_utf8(body("good", 1, NOW_MS))
        .expect("text")
        .replace(r#"{"name":"good""#, r#"{"name":"d","sum":{"aggregationTemporality":1}},{"name":"good""#);
    let answer = post(&server, JSON, "", delta.as_bytes());
    let expect = "invalid temporality and type combination for metric \"d\"\n";
    assert_eq!((answer.status, answer.text()), (500, expect));
    assert!(value(&server, "good").is_null());
    let late = post(&server, JSON, "", &body("late", 1, NOW_MS + 601_000));
    // The sample's, and that of target_info.
    let twice = "out of bounds: timestamp is too far in the future\n".repeat(2);
    assert_eq!((late.status, late.text()), (400, twice.as_str()));
}

#[test]
fn settings_count_from_the_next_request_on() {
    let settings = api::OtlpSettings::default();
    let shared = settings.clone();
    let server = start_with(|_, deps| deps.otlp = shared);
    assert_eq!(post(&server, JSON, "", &body("m.n", 1, NOW_MS)).status, 200);
    settings.set(Settings { utf8: true, ..Settings::default() });
    assert_eq!(post(&server, JSON, "", &body("m.n", 2, NOW_MS)).status, 200);
    assert_eq!((value(&server, "m_n"), value(&server, "{\"m.n\"}")), ("1".into(), "2".into()));
}

#[test]
fn it_is_off_unless_it_is_asked_for() {
    let off = start_with(|config, _| config.enable_otlp_receiver = false);
    let answer = post(&off, JSON, "", b"{}");
    let text = "otlp write receiver needs to be enabled with --web.enable-otlp-receiver\n";
    assert_eq!((answer.status, answer.text()), (404, text));
    let features = |server: &TestServer| {
        server.get("/api/v1/features").json()["data"]["api"]["otlp_write_receiver"].clone()
    };
    assert_eq!((features(&off), features(&start())), (false.into(), true.into()));
}

/// A store that takes no exemplar, or no sample at all.
struct Refusing(bool);

impl model::Appendable for Refusing {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        Ok(Box::new(Self(self.0)))
    }
}

impl Appender for Refusing {
    fn append(&mut self, _: SeriesRef, _: &Labels, _: Sample) -> Result<SeriesRef, AppendError> {
        if self.0 { Err(StorageError::Closed.into()) } else { Ok(SeriesRef(1)) }
    }
    fn append_float(&mut self, _: SeriesRef, _: i64, _: f64) -> Result<(), AppendError> {
        Ok(())
    }
    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        Err(AppendError::OutOfOrder)
    }
    fn append_metadata(&mut self, _: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
    fn rollback(self: Box<Self>) {}
}

#[test]
fn counters_and_a_store_that_fails() {
    let server = start_with(|_, deps| deps.appendable = Some(std::sync::Arc::new(Refusing(false))));
    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"none","gauge":{}},
        {"name":"c","sum":{"aggregationTemporality":2,"dataPoints":[{"exemplars":[{"asInt":1},{"asInt":2}]}]}}]}]}]}"#;
    assert_eq!(post(&server, JSON, "", json.as_bytes()).status, 200);
    let metrics = server.get("/metrics").text().to_owned();
    for line in [
        "prometheus_api_otlp_translation_warnings_total{category=\"empty_data_points\"} 1\n",
        "prometheus_api_otlp_out_of_order_exemplars_total 2\n",
        "prometheus_api_otlp_appended_samples_without_metadata_total 0\n",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let closed = start_with(|_, deps| deps.appendable = Some(std::sync::Arc::new(Refusing(true))));
    assert_eq!(post(&closed, JSON, "", &body("m", 1, NOW_MS)).status, 503);
}
