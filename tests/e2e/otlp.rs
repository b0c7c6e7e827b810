//! OTLP metrics beside Prometheus 3: the same bodies, made up by a seed, with every type and under every option, go to both; what
//! both answer to them, and then to queries, is the same.
//!
//! The program is named by `PROMETHEUS_3`; without it the test says "skipped". `OTLP_SEED` and `OTLP_BODIES` make longer runs.

#![allow(clippy::disallowed_methods, reason = "writing to real processes takes real time")]

mod bodies;

use std::path::PathBuf;

use flate2::{Compression, write::GzEncoder};
use model::Clock;
use model::clock::SystemClock;
use serde_json::Value;

use self::bodies::{Dice, again, body};
use crate::support::{Process, free_port, get, http, http_with, number, percent, ready, write};

/// What stands under `otlp:`, one after the other.
const SECTIONS: [&str; 10] = [
    "",
    "otlp: {promote_resource_attributes: [host.name, service.name, missing, '1st']}",
    "otlp: {promote_all_resource_attributes: true, ignore_resource_attributes: [host.name]}",
    "otlp: {translation_strategy: NoUTF8EscapingWithSuffixes, promote_all_resource_attributes: true}",
    "otlp: {translation_strategy: NoTranslation, promote_scope_metadata: true}",
    "otlp: {translation_strategy: UnderscoreEscapingWithoutSuffixes, keep_identifying_resource_attributes: true}",
    "otlp: {convert_histograms_to_nhcb: true, promote_scope_metadata: true}",
    "otlp: {label_name_underscore_sanitization: false}",
    "otlp: {label_name_preserve_multiple_underscores: false, promote_all_resource_attributes: true}",
    "otlp: {translation_strategy: ''}",
];

/// Time between two bodies of a section.
const STEP_MS: u64 = 20_000;

fn post(port: u16, json: bool, gzip: bool, body: &Value) -> (u16, String) {
    let text = serde_json::to_vec(body).expect("JSON");
    let mut bytes =
        if json { text } else { wire::otlp::json_to_protobuf(&text, 64 << 20).expect("a request") };
    let mut headers = format!("Content-Type: application/{}\r\n", if json { "json" } else { "x-protobuf" });
    if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::Write::write_all(&mut encoder, &bytes).expect("memory");
        bytes = encoder.finish().expect("memory");
        headers += "Content-Encoding: gzip\r\n";
    }
    http_with("POST", port, "/api/v1/otlp/v1/metrics", &headers, &bytes).expect("an answer")
}

/// The data of an answer, lists of series sorted.
fn data(port: u16, path: &str) -> Vec<String> {
    let text = get(port, path).unwrap_or_else(|| panic!("no good answer to {path}"));
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    let mut data = json["data"].take();
    let rows = if data["result"].is_array() { data["result"].take() } else { data };
    let mut rows: Vec<String> = match rows {
        Value::Array(rows) => rows.iter().map(Value::to_string).collect(),
        other => vec![other.to_string()],
    };
    rows.sort();
    rows
}

fn check_same(what: &str, ports: [u16; 2], path: &str) -> usize {
    let [theirs, ours] = ports.map(|port| data(port, path));
    for row in theirs.iter().filter(|row| !ours.contains(row)).take(5) {
        eprintln!("only Prometheus: {row}");
    }
    for row in ours.iter().filter(|row| !theirs.contains(row)).take(5) {
        eprintln!("only almanac:    {row}");
    }
    assert!(theirs == ours, "{what} differ");
    ours.len()
}

/// What a node counts of OTLP.
fn counters(port: u16) -> Vec<String> {
    let text = get(port, "/metrics").expect("metrics");
    let mut lines: Vec<String> =
        text.lines().filter(|l| l.starts_with("prometheus_api_otlp")).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn otlp_is_taken_as_prometheus_takes_it() {
    let Some(prometheus) = std::env::var_os("PROMETHEUS_3").map(PathBuf::from).filter(|p| p.is_file()) else {
        eprintln!("skipped: PROMETHEUS_3 names no program");
        return;
    };
    let (seed, bodies) = (from_env("OTLP_SEED", 1), from_env("OTLP_BODIES", 12));
    compare(&prometheus, seed, bodies, "exemplar-storage", "");
    compare(
        &prometheus,
        seed + 1,
        bodies.min(6),
        "exemplar-storage,type-and-unit-labels,otlp-native-delta-ingestion",
        "1s",
    );
    compare(&prometheus, seed + 2, bodies.min(4), "exemplar-storage,created-timestamp-zero-ingestion", "");
}

fn compare(prometheus: &std::path::Path, seed: u64, bodies: u64, features: &str, lookback: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = write(dir.path(), "p.yml", "global: {}\n");
    let ports = [free_port(), free_port()];
    let args = ["theirs", "ours"].map(|name| {
        let port = ports[usize::from(name == "ours")];
        let mut args = vec![
            format!("--config.file={file}"),
            format!("--storage.tsdb.path={}", dir.path().join(name).display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            format!("--enable-feature={features}"),
            "--web.enable-otlp-receiver".into(),
            "--web.enable-lifecycle".into(),
        ];
        if !lookback.is_empty() {
            args.push(format!("--query.lookback-delta={lookback}"));
        }
        args
    });
    let args = args.each_ref().map(|a| a.iter().map(String::as_str).collect::<Vec<_>>());
    let theirs = Process::start(prometheus, &args[0]);
    let ours = Process::almanac(&args[1]);
    ready(&theirs, ports[0]);
    ready(&ours, ports[1]);

    let mut dice = Dice(seed);
    let (mut good, mut refused) = (0, 0);
    let now_ms = SystemClock::new().now_ms() as u64;
    for (section, text) in SECTIONS.iter().enumerate() {
        write(
            dir.path(),
            "p.yml",
            &format!("global: {{}}\nstorage: {{exemplars: {{max_exemplars: 100000}}}}\n{text}\n"),
        );
        for port in ports {
            let (status, text) = http("POST", port, "/-/reload", b"").expect("an answer");
            assert_eq!(status, 200, "{text}");
        }
        for n in 0..bodies {
            // Rising from half an hour ago.
            let t_ms =
                now_ms - 1_800_000 + (section as u64 * bodies + n) * STEP_MS.min(1_700_000 / (bodies * 10));
            let mut next = body(&mut dice, section, t_ms);
            // Sometimes the same once more, or moved in time.
            loop {
                let (json, gzip) = (dice.one_in(2), dice.one_in(3));
                let expect = post(ports[0], json, gzip, &next);
                let got = post(ports[1], !json, !gzip, &next);
                let shown = || format!("seed {seed}, {text}\n{next}\n{}", ours.log());
                assert_eq!(got.0, expect.0, "{expect:?} {got:?}\n{}", shown());
                // Prometheus adds values to what it says of duplicates.
                if !expect.1.contains("duplicate sample") {
                    assert_eq!(got.1, expect.1, "{}", shown());
                }
                *(if expect.0 == 200 { &mut good } else { &mut refused }) += 1;
                if !dice.one_in(3) {
                    break;
                }
                let shift = |dice: &mut Dice| (dice.below(4) as i64 - 1) * 500_000_000;
                again(&mut next, shift(&mut dice), shift(&mut dice));
            }
        }
    }
    assert!(good > refused && refused > 0, "{good} good, {refused} refused");

    let (start, end) = ((now_ms - 3_600_000 * 3) / 1000, (now_ms + 7_200_000) / 1000);
    let series = check_same(
        "series",
        ports,
        &format!("/api/v1/series?match[]={}&start={start}&end={end}", percent("{__name__!=\"\"}")),
    );
    assert!(series as u64 > bodies, "{series} series of {good} bodies");
    let range = percent("{__name__!=\"\"}[5h]");
    check_same("samples", ports, &format!("/api/v1/query?query={range}&time={end}"));
    let selector = percent("{__name__!=\"\"}");
    let exemplars = check_same(
        "exemplars",
        ports,
        &format!("/api/v1/query_exemplars?query={selector}&start={start}&end={end}"),
    );
    assert!(exemplars > 3, "{exemplars} series with exemplars");
    check_same("metadata", ports, "/api/v1/metadata");
    assert_eq!(counters(ports[1]), counters(ports[0]));
    eprintln!("{features}: {good} bodies, {refused} refused, {series} series, {exemplars} with exemplars");
}

#[test]
fn a_longterm_node_takes_otlp_without_a_flag() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let path = format!("--storage.longterm.path={}", dir.path().display());
    let listen = format!("--web.listen-address=127.0.0.1:{port}");
    let node = Process::almanac(&["longterm", &path, &listen]);
    ready(&node, port);
    let now_ms = SystemClock::new().now_ms();
    let body = serde_json::json!({"resourceMetrics": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "s"}}, {"key": "host.name", "value": {"stringValue": "h"}}]},
        "scopeMetrics": [{"metrics": [
            {"name": "requests", "sum": {"isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [
                {"asInt": "7", "timeUnixNano": (now_ms * 1_000_000).to_string(), "startTimeUnixNano": "1000000"}]}},
            {"name": "size", "unit": "By", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
                {"count": "3", "sum": 5, "timeUnixNano": now_ms * 1_000_000, "positive": {"bucketCounts": [1, 2]}}]}}]}]}]});
    assert_eq!(post(port, true, true, &body), (200, String::new()));
    assert_eq!(number(port, "requests_total{job=\"s\"}"), Some(7.0));
    assert_eq!(number(port, "histogram_sum(size_bytes)"), Some(5.0));
    assert_eq!(number(port, "target_info{host_name=\"h\"}"), Some(1.0));
    let features = get(port, "/api/v1/features").expect("an answer");
    assert!(features.contains("\"otlp_write_receiver\":true"), "{features}");
}
