//! Queries: shapes of all result types, parameters, errors, limits, cancelling.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::histogram::{CounterResetHint, Span};
use model::{
    FloatHistogram, LabelsResult, Matcher, Querier, Queryable, Sample, SelectHints, SeriesSet, StorageError,
};

use crate::support::{NOW_MS, enc, labels, start, start_with};

const NOW: &str = "1704067200";

fn data(body: &str) -> String {
    format!("{{\"status\":\"success\",\"data\":{body}}}")
}

#[test]
fn instant_results_of_all_types() {
    let server = start();
    for (query, result) in [
        ("1.5", format!(r#"{{"resultType":"scalar","result":[{NOW},"1.5"]}}"#)),
        ("-Inf", format!(r#"{{"resultType":"scalar","result":[{NOW},"-Inf"]}}"#)),
        ("1e30", format!(r#"{{"resultType":"scalar","result":[{NOW},"1000000000000000000000000000000"]}}"#)),
        (r#""a<b""#, format!(r#"{{"resultType":"string","result":[{NOW},"a\u003cb"]}}"#)),
        ("none", r#"{"resultType":"vector","result":[]}"#.into()),
        (
            "up",
            format!(
                r#"{{"resultType":"vector","result":[{{"metric":{{"__name__":"up","instance":"a:1","job":"node"}},"value":[{NOW},"1"]}},{{"metric":{{"__name__":"up","instance":"b:2","job":"node"}},"value":[{NOW},"0"]}}]}}"#
            ),
        ),
        ("sum(up) * 1e30", format!(r#"{{"resultType":"vector","result":[{{"metric":{{}},"value":[{NOW},"1e+30"]}}]}}"#)),
        (
            "up{instance=\"a:1\"}[90s]",
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a:1","job":"node"},"values":[[1704067140,"1"],[1704067200,"1"]]}]}"#
                .into(),
        ),
    ] {
        let answer = server.get(&format!("/api/v1/query?query={}", enc(query)));
        assert_eq!(answer.text(), data(&result), "{query}");
        assert_eq!(answer.status, 200);
        let form = server.post_form("/api/v1/query", &format!("query={}", enc(query)));
        assert_eq!(form.text(), answer.text(), "GET and POST agree on {query}");
    }
}

#[test]
fn native_histograms_have_buckets() {
    let server = start();
    let h = FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: 0,
        zero_threshold: 0.25,
        zero_count: 3.0,
        count: 10.5,
        sum: 12.0,
        positive_spans: vec![Span { offset: 0, length: 3 }],
        positive_buckets: vec![4.5, 0.0, 2.0],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        negative_buckets: vec![1.0],
        ..FloatHistogram::default()
    };
    server.store.insert(&labels(&[("__name__", "h")]), Sample::histogram(NOW_MS, h));
    let buckets = r#"[[1,"-1","-0.5","1"],[3,"-0.25","0.25","3"],[0,"0.5","1","4.5"],[0,"2","4","2"]]"#;
    let point = format!(r#"[{NOW},{{"count":"10.5","sum":"12","buckets":{buckets}}}]"#);
    assert_eq!(
        server.get("/api/v1/query?query=h").text(),
        data(&format!(
            r#"{{"resultType":"vector","result":[{{"metric":{{"__name__":"h"}},"histogram":{point}}}]}}"#
        ))
    );
    assert_eq!(
        server.get(&format!("/api/v1/query_range?query=h&start={NOW}&end={NOW}&step=1")).text(),
        data(&format!(
            r#"{{"resultType":"matrix","result":[{{"metric":{{"__name__":"h"}},"histograms":[{point}]}}]}}"#
        ))
    );
}

#[test]
fn range_results() {
    let server = start();
    let expect = data(
        r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a:1","job":"node"},"values":[[1704067199.500,"1"],[1704067259.500,"1"]]}]}"#,
    );
    let query = "query=up%7Binstance%3D%22a:1%22%7D";
    for times in [
        "start=1704067199.5&end=1704067260&step=60",
        "start=1704067199.5&end=1704067260&step=1m",
        "start=2023-12-31T23:59:59.5Z&end=2024-01-01T01:01:00%2B01:00&step=60.0",
    ] {
        assert_eq!(server.get(&format!("/api/v1/query_range?{query}&{times}")).text(), expect, "{times}");
        assert_eq!(server.post_form("/api/v1/query_range", &format!("{query}&{times}")).text(), expect);
    }
}

#[test]
fn stats_by_step_are_given_when_enabled() {
    let server = start_with(|_, deps| {
        let config = promql::EngineConfig { per_step_stats: true, ..promql::EngineConfig::default() };
        let registry = prometheus::Registry::new();
        deps.engine = Arc::new(promql::Engine::new(config, deps.clock.clone(), &registry));
    });
    let up = labels(&[("__name__", "up")]);
    (0..10).for_each(|m| server.store.insert(&up, Sample::float(NOW_MS + m * 60_000, 1.0)));
    let path = |query: &str, stats: &str| {
        format!("/api/v1/query_range?query={}&start={NOW}&end=1704067320&step=60&stats={stats}", enc(query))
    };
    let samples =
        |query: &str, stats: &str| server.get(&path(query, stats)).json()["data"]["stats"]["samples"].clone();
    let with_steps = samples("sum_over_time(up[2m])", "all");
    let steps =
        |a: u64, b: u64, c: u64| serde_json::json!([[1704067200, a], [1704067260, b], [1704067320, c]]);
    assert_eq!(with_steps["totalQueryableSamplesPerStep"], steps(1, 2, 2));
    assert_eq!(with_steps["samplesReadPerStep"], steps(1, 1, 1));
    assert_eq!((&with_steps["totalQueryableSamples"], &with_steps["samplesRead"]), (&5.into(), &3.into()));
    assert!(samples("sum_over_time(up[2m])", "true").get("samplesReadPerStep").is_none());
}

#[test]
fn limits_truncate_with_a_warning() {
    let server = start();
    let answer = server.get("/api/v1/query?query=up&limit=1").json();
    assert_eq!(answer["data"]["result"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["warnings"], serde_json::json!(["results truncated due to limit"]));
    let path = format!("/api/v1/query_range?query=up&start={NOW}&end={NOW}&step=1&limit=");
    assert_eq!(server.get(&format!("{path}1")).json()["warnings"][0], "results truncated due to limit");
    assert!(server.get(&format!("{path}2")).json().get("warnings").is_none());
}

#[test]
fn annotations_are_given() {
    let server = start();
    let answer = server.get("/api/v1/query?query=rate(up%5B5m%5D)").json();
    let infos = answer["infos"].as_array().expect("an info on the name of the metric");
    assert!(infos[0].as_str().is_some_and(|i| i.starts_with("PromQL info: ")), "{infos:?}");
}

#[test]
fn stats_are_given_when_asked_for() {
    let server = start();
    let answer = server.get("/api/v1/query?query=up&stats=true").json();
    let stats = &answer["data"]["stats"];
    for timing in [
        "evalTotalTime",
        "resultSortTime",
        "queryPreparationTime",
        "innerEvalTime",
        "execQueueTime",
        "execTotalTime",
    ] {
        assert!(stats["timings"][timing].is_number(), "{timing}");
    }
    assert_eq!(stats["samples"]["totalQueryableSamples"], 2);
    assert!(stats["samples"]["peakSamples"].as_u64().is_some_and(|n| n >= 2));
    assert_eq!(stats["samples"]["samplesRead"], 2);
    let all = server.get("/api/v1/query?query=up&stats=all").json();
    assert!(all["data"]["stats"]["samples"].get("samplesReadPerStep").is_none(), "not enabled");
    let odd = server.get("/api/v1/query?query=up&stats=yes").json();
    assert!(odd["warnings"][0].as_str().is_some_and(|w| w.contains("deprecated")));
    assert!(server.get("/api/v1/query?query=up").json()["data"].get("stats").is_none());
}

#[test]
fn errors_have_the_texts_of_a_stock_server() {
    let server = start();
    let range = |rest: &str| format!("/api/v1/query_range?query=up&{rest}");
    for (path, status, kind, text) in [
        (
            "/api/v1/query?query=foo(".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"query\": 1:1: parse error: unknown function with name \"foo\"",
        ),
        (
            "/api/v1/query".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"query\": unknown position: parse error: no expression found in input",
        ),
        (
            "/api/v1/query?query=up&time=abc".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"time\": invalid time value for 'time': cannot parse \"abc\" to a valid timestamp",
        ),
        (
            "/api/v1/query?query=up&timeout=abc".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"timeout\": cannot parse \"abc\" to a valid duration",
        ),
        (
            "/api/v1/query?query=up&lookback_delta=abc".to_owned(),
            400,
            "bad_data",
            "error parsing lookback delta duration: cannot parse \"abc\" to a valid duration",
        ),
        (
            range("start=x&end=1&step=1"),
            400,
            "bad_data",
            "invalid parameter \"start\": cannot parse \"x\" to a valid timestamp",
        ),
        (
            range("end=1&step=1"),
            400,
            "bad_data",
            "invalid parameter \"start\": cannot parse \"\" to a valid timestamp",
        ),
        (
            range("start=2&end=1&step=1"),
            400,
            "bad_data",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            range("start=0&end=1&step=0"),
            400,
            "bad_data",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            range("start=0&end=1&step=1e30"),
            400,
            "bad_data",
            "invalid parameter \"step\": cannot parse \"1e30\" to a valid duration. It overflows int64",
        ),
        (
            range("start=0&end=11001&step=1"),
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        (
            format!("/api/v1/query?query={}", enc("label_replace(up, \"a\", \"b\", \"c\", \"(\")")),
            422,
            "execution",
            "invalid regular expression in label_replace()",
        ),
    ] {
        let answer = server.get(&path);
        let json = answer.json();
        assert_eq!(answer.status, status, "{path}: {json}");
        assert_eq!(json["status"], "error");
        assert_eq!(json["errorType"], kind, "{path}");
        let error = json["error"].as_str().unwrap_or_default();
        if kind == "execution" {
            assert!(error.starts_with(text), "{error}");
        } else if path.contains("foo(") {
            assert!(
                error.starts_with("invalid parameter \"query\": 1:") && error.contains("parse error"),
                "{error}"
            );
        } else {
            assert_eq!(error, text, "{path}");
        }
    }
    // Exactly 11,000 steps are still allowed.
    assert_eq!(server.get(&range("start=0&end=11000&step=1")).status, 200);
}

#[test]
fn lookback_and_time_are_taken_from_the_request() {
    let server = start();
    let late = "time=1704067320"; // two minutes after the last sample
    assert_eq!(
        server.get(&format!("/api/v1/query?query=up&{late}")).json()["data"]["result"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let short = server.get(&format!("/api/v1/query?query=up&{late}&lookback_delta=1m")).json();
    assert_eq!(short["data"]["result"], serde_json::json!([]));
    server.clock.advance(Duration::from_secs(3600));
    assert_eq!(server.get("/api/v1/query?query=up").json()["data"]["result"], serde_json::json!([]));
}

#[test]
fn queries_are_formatted_and_parsed() {
    let server = start();
    let formatted = server.get(&format!("/api/v1/format_query?query={}", enc("sum(up)by(job)>1"))).json();
    assert_eq!(formatted["data"], "sum by (job) (up) > 1");
    let tree = server
        .get(&format!("/api/v1/parse_query?query={}", enc("-rate(up{job=~\"a\"}[5m] offset 1m) + on(job) x")))
        .json();
    let expect = serde_json::json!({
        "type": "binaryExpr", "op": "+", "bool": false,
        "matching": {"card": "one-to-one", "labels": ["job"], "on": true, "include": [], "fillValues": {"lhs": null, "rhs": null}},
        "lhs": {"type": "unaryExpr", "op": "-", "expr": {
            "type": "call",
            "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
            "args": [{
                "type": "matrixSelector", "name": "up", "range": 300000, "rangeExpr": null, "offset": 60000, "offsetExpr": null,
                "matchers": [{"name": "job", "value": "a", "type": "=~"}, {"name": "__name__", "value": "up", "type": "="}],
                "timestamp": null, "startOrEnd": null, "anchored": false, "smoothed": false
            }]
        }},
        "rhs": {
            "type": "vectorSelector", "name": "x", "offset": 0, "offsetExpr": null,
            "matchers": [{"name": "__name__", "value": "x", "type": "="}],
            "timestamp": null, "startOrEnd": null, "anchored": false, "smoothed": false
        }
    });
    assert_eq!(tree["data"], expect);
    for query in ["max_over_time(up[1h:1m] @ end())", "topk(1, up @ 5)", "(1)", "\"s\"", "sum by (a) (up)"] {
        assert_eq!(
            server.get(&format!("/api/v1/parse_query?query={}", enc(query))).json()["status"],
            "success"
        );
    }
    assert_eq!(server.get("/api/v1/format_query?query=)").status, 400);
}

#[test]
fn large_answers_stream_and_compress() {
    let server = start();
    for n in 0..3000 {
        let series = labels(&[("__name__", "many"), ("n", &n.to_string()), ("pad", &"x".repeat(100))]);
        server.store.insert(&series, Sample::float(NOW_MS, f64::from(n)));
    }
    let plain = server.get("/api/v1/query?query=many");
    assert_eq!(plain.header("transfer-encoding"), Some("chunked"));
    assert_eq!(plain.json()["data"]["result"].as_array().map(Vec::len), Some(3000));
    let zipped =
        server.request("GET", "/api/v1/query?query=many", &[("Accept-Encoding", "deflate, gzip")], b"");
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert!(zipped.body.len() < plain.body.len() / 4, "{}", zipped.body.len());
    let mut back = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut back).expect("gzip");
    assert_eq!(back, plain.body);
    let small = server.request("GET", "/api/v1/query?query=none", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(small.header("content-encoding"), None);
    let refused = server.request("GET", "/api/v1/query?query=many", &[("Accept-Encoding", "gzip;q=0")], b"");
    assert_eq!(refused.header("content-encoding"), None);
}

/// A store whose series never end; says when its reader stopped asking.
#[derive(Clone, Default)]
struct Endless {
    begun: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Queryable for Endless {
    fn querier(&self, _mint: i64, _maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Querier for Endless {
    fn select(&self, _: &[Matcher], _: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        self.begun.store(true, Ordering::SeqCst);
        Ok(Box::new(EndlessSet { store: self.clone(), n: 0 }))
    }

    fn label_names(&self, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        panic!("a handler that panics");
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        Err(StorageError::Closed)
    }
}

struct EndlessSet {
    store: Endless,
    n: u64,
}

impl SeriesSet for EndlessSet {
    fn next(&mut self) -> Result<Option<model::Series>, StorageError> {
        self.n += 1;
        std::thread::sleep(Duration::from_micros(100));
        let series = labels(&[("__name__", "e"), ("n", &format!("{:012}", self.n))]);
        Ok(Some(model::Series { labels: series, chunks: Vec::new() }))
    }
}

impl Drop for EndlessSet {
    fn drop(&mut self) {
        self.store.ended.store(true, Ordering::SeqCst);
    }
}

fn wait_for(flag: &AtomicBool, what: &str) {
    for _ in 0..2000 {
        if flag.load(Ordering::SeqCst) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}");
}

#[test]
fn a_client_that_goes_away_ends_its_request() {
    for path in ["/api/v1/series?match[]=e", "/api/v1/query?query=e"] {
        let endless = Endless::default();
        let server = start_with(|_, deps| deps.queryable = Arc::new(endless.clone()));
        let mut stream = server.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
        wait_for(&endless.begun, "the handler begins");
        drop(stream);
        wait_for(&endless.ended, "the handler learns that nobody waits");
    }
}

/// Queries of `endless`, one at a time.
fn one_at_a_time(endless: &Endless) -> crate::support::TestServer {
    start_with(|_, deps| {
        deps.queryable = Arc::new(endless.clone());
        let config = promql::EngineConfig { max_concurrency: 1, ..promql::EngineConfig::default() };
        deps.engine = Arc::new(promql::Engine::new(config, deps.clock.clone(), &prometheus::Registry::new()));
    })
}

#[test]
fn a_client_that_goes_away_frees_its_slot() {
    let form = "query=sum(e)&start=0&end=600&step=1";
    let head =
        "POST /api/v1/query_range HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-www-form-urlencoded";
    for request in [
        format!("{head}\r\nContent-Length: {}\r\n\r\n{form}", form.len()),
        "GET /api/v1/query?query=count_values(%22v%22,e) HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
    ] {
        let endless = Endless::default();
        let server = one_at_a_time(&endless);
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        wait_for(&endless.begun, "the query begins");
        // A second one waits in line; it goes away too, without ever having had the slot.
        let mut waiting = server.connect();
        write!(waiting, "GET /api/v1/query?query=2 HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
        drop(waiting);
        drop(stream);
        wait_for(&endless.ended, "the query ends");
        assert_eq!(server.get("/api/v1/query?query=1").status, 200, "the slot is free");
    }
}

#[test]
fn time_runs_out() {
    let endless = Endless::default();
    let server = one_at_a_time(&endless);
    let ask = |path: &str| {
        let mut stream = server.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
        stream
    };
    let mut running = ask("/api/v1/query?query=sum(e)");
    wait_for(&endless.begun, "the query begins");
    let mut waiting = ask("/api/v1/query?query=1&timeout=1s");
    std::thread::sleep(Duration::from_millis(100));
    server.clock.advance(Duration::from_secs(2));
    let timeout = |stream: &mut std::net::TcpStream, stage: &str| {
        let answer = crate::support::read_answer(stream);
        let text =
            format!(r#"{{"status":"error","errorType":"timeout","error":"query timed out in {stage}"}}"#);
        assert_eq!((answer.status, answer.text()), (503, text.as_str()));
    };
    timeout(&mut waiting, "query queue");
    server.clock.advance(Duration::from_secs(120));
    timeout(&mut running, "expression evaluation");
    assert_eq!(server.get("/api/v1/query?query=1").status, 200);
}

#[test]
fn a_panic_is_one_answer_and_a_closed_store_another() {
    let server = start_with(|_, deps| deps.queryable = Arc::new(Endless::default()));
    assert_eq!(server.get("/api/v1/labels").status, 500);
    let closed = server.get("/api/v1/label/a/values");
    assert_eq!((closed.status, closed.header("retry-after")), (503, Some("5")));
    assert_eq!(closed.json()["errorType"], "unavailable");
    assert_eq!(server.get("/-/healthy").status, 200, "the server goes on");
    assert!(server.get("/metrics").text().contains("almanac_http_panics_total 1"));
}

/// A store of one series with one sample, of which it says that it comes to seven when it is asked for sums over hours.
struct SummedUp;

const HOUR_MS: i64 = 3_600_000;

impl SummedUp {
    fn series(chunk: model::Chunk) -> Box<dyn SeriesSet> {
        let series = model::Series { labels: labels(&[("__name__", "s")]), chunks: vec![chunk] };
        Box::new(model::storage::VecSeriesSet::new(vec![series], Vec::new()))
    }
}

impl Queryable for SummedUp {
    fn querier(&self, _mint: i64, _maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(Self))
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        &[HOUR_MS]
    }
}

impl Querier for SummedUp {
    fn select(&self, _: &[Matcher], _: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let mut samples = model::Samples::new();
        samples.push_float(HOUR_MS, 1.0);
        Ok(Self::series(model::Chunk::columns(Arc::new(samples))))
    }

    fn select_rollup(
        &self,
        _: &[Matcher],
        _: &SelectHints,
        request: &model::RollupRequest,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        assert!(request.is_on(HOUR_MS), "only what fits is asked for");
        let mut rollup = model::Rollup { resolutions: model::Resolutions::HOUR, ..Default::default() };
        (1..=7).for_each(|t| rollup.push_sample(HOUR_MS, t, 1.0));
        Ok(Self::series(model::Chunk::rollup(Arc::new(rollup), 1, 7)))
    }

    fn label_names(&self, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        Ok(LabelsResult::default())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
        Ok(LabelsResult::default())
    }
}

#[test]
fn answers_tell_their_resolution_and_samples_can_be_asked_for() {
    let server = start_with(|_, deps| deps.queryable = Arc::new(SummedUp));
    for (query, more, value, resolution) in [
        ("count_over_time(s[1h])", "", "7", "1h"),
        ("count_over_time(s[1h])", "&resolution=raw", "1", "raw"),
        ("count_over_time(s[30m])", "", "1", "raw"),
        ("count_over_time(s[1h:1m])", "", "1", "raw"),
        ("stddev_over_time(s[1h])", "", "0", "raw"),
        ("sum(sum_over_time(s[1h])) + sum(s)", "", "8", "raw,1h"),
        ("vector(3)", "", "3", "raw"),
    ] {
        for path in ["query?time=3600", "query_range?start=3600&end=3600&step=3600"] {
            let path = format!("/api/v1/{path}&query={}{more}", enc(query));
            let answer = server.get(&path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert_eq!(answer.header("X-Almanac-Resolution"), Some(resolution), "{path}");
            assert!(answer.text().contains(&format!(",\"{value}\"]")), "{path}: {}", answer.text());
        }
    }
    let answer = server.get("/api/v1/query?query=s&resolution=5m");
    assert_eq!((answer.status, answer.header("X-Almanac-Resolution")), (400, None));
    assert!(answer.text().contains(r#"invalid parameter \"resolution\""#), "{}", answer.text());
}
