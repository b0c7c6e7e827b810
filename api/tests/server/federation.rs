//! `/federate`: what is in it, and that it reads back.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::memory::MemoryStorage;
use model::{FloatHistogram, Sample, stale_nan};

use crate::support::{NOW_MS, enc, labels, start, start_with};

fn path(selectors: &[&str]) -> String {
    let list: Vec<_> = selectors.iter().map(|s| format!("match[]={}", enc(s))).collect();
    format!("/federate?{}", list.join("&"))
}

#[test]
fn newest_samples_sorted_and_typed() {
    let server = start();
    let answer = server.get(&path(&["temp_celsius", "up", "{instance=\"a:1\"}"]));
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
    );
    assert_eq!(
        answer.text(),
        "# TYPE temp_celsius untyped\n\
         temp_celsius{http_status=\"<200>\",site=\"é\\\"\",instance=\"\"} 21.5 1704067199500\n\
         # TYPE up untyped\n\
         up{instance=\"a:1\",job=\"node\"} 1 1704067200000\n\
         up{instance=\"b:2\",job=\"node\"} 0 1704067200000\n"
    );
    assert_eq!(server.get("/federate").text(), "", "no selector, no series");
    let bad = server.get("/federate?match[]=%7B");
    assert_eq!(bad.status, 400);
    assert!(bad.text().contains("parse error"), "{}", bad.text());
}

#[test]
fn external_labels_fill_gaps_only() {
    let server = start();
    *server.fixed.external.lock().expect("not poisoned") = vec![("cluster", "c1"), ("job", "other")];
    let answer = server.get(&path(&["{instance=\"a:1\"}", "temp_celsius"]));
    assert!(
        answer.text().contains("up{instance=\"a:1\",job=\"node\",cluster=\"c1\"} 1 "),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().contains("site=\"é\\\"\",cluster=\"c1\",instance=\"\",job=\"other\"} 21.5"),
        "{}",
        answer.text()
    );
}

#[test]
fn stale_and_old_series_are_left_out() {
    let server = start();
    let gone = labels(&[("__name__", "gone")]);
    server.store.insert(&gone, Sample::float(NOW_MS - 2000, 1.0));
    server.store.insert(&gone, Sample::float(NOW_MS - 1000, stale_nan()));
    server.store.insert(&labels(&[("__name__", "old")]), Sample::float(NOW_MS - 300_001, 1.0));
    server.store.insert(&labels(&[("__name__", "edge")]), Sample::float(NOW_MS - 300_000, 1e6));
    server.store.insert(&labels(&[("__name__", "future")]), Sample::float(NOW_MS + 1, 1.0));
    let answer = server.get(&path(&["{__name__=~\"gone|old|edge|future\"}"]));
    assert_eq!(
        answer.text(),
        format!("# TYPE edge untyped\nedge{{instance=\"\"}} 1e+06 {}\n", NOW_MS - 300_000)
    );
}

#[test]
fn custom_bucket_histograms_become_classic_ones() {
    let server = start();
    let custom = FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 6.0,
        sum: 9.5,
        custom_values: vec![0.5, 2.0],
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![4.0, 2.0],
        ..FloatHistogram::default()
    };
    let native = FloatHistogram { count: 1.0, zero_count: 1.0, ..FloatHistogram::default() };
    server
        .store
        .insert(&labels(&[("__name__", "lat"), ("instance", "a")]), Sample::histogram(NOW_MS, custom));
    server
        .store
        .insert(&labels(&[("__name__", "nat"), ("instance", "a")]), Sample::histogram(NOW_MS, native));
    assert_eq!(
        server.get(&path(&["lat", "nat"])).text(),
        "# TYPE lat histogram\n\
         lat_bucket{instance=\"a\",le=\"0.5\"} 0 1704067200000\n\
         lat_bucket{instance=\"a\",le=\"2\"} 4 1704067200000\n\
         lat_bucket{instance=\"a\",le=\"+Inf\"} 6 1704067200000\n\
         lat_sum{instance=\"a\"} 9.5 1704067200000\n\
         lat_count{instance=\"a\"} 6 1704067200000\n"
    );
}

#[test]
fn utf8_names_are_quoted_when_the_client_takes_them() {
    let server = start();
    server.store.insert(&labels(&[("__name__", "my.metric"), ("instance", "i")]), Sample::float(NOW_MS, 1.0));
    let accept = [("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8")];
    let answer = server.request("GET", &path(&["{\"my.metric\"}"]), &accept, b"");
    assert_eq!(
        answer.text(),
        "# TYPE \"my.metric\" untyped\n{\"my.metric\",instance=\"i\"} 1 1704067200000\n"
    );
    let plain = server.get(&path(&["{\"my.metric\"}"]));
    assert_eq!(plain.text(), "# TYPE my_metric untyped\nmy_metric{instance=\"i\"} 1 1704067200000\n");
}

#[test]
fn only_the_own_store_is_federated() {
    let elsewhere = MemoryStorage::new();
    elsewhere.insert(&labels(&[("__name__", "far")]), Sample::float(NOW_MS, 1.0));
    let server = start_with(|_, deps| deps.queryable = Arc::new(elsewhere));
    assert_eq!(server.get(&path(&["far"])).text(), "");
    assert_eq!(
        server.get("/api/v1/query?query=far").json()["data"]["result"].as_array().map(Vec::len),
        Some(1)
    );
}
