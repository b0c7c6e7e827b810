//! What is refused, and bytes of any kind.

use model::AppendError;
use model::StorageError;
use proptest::prelude::*;
use wire::Error;
use wire::otlp::{Category, Settings, Stop, json_to_protobuf, translate};

use crate::support::{Kept, NOW_MS, refused, request, run};

#[test]
fn reasons_are_prometheus_s() {
    let check = |metric: &str, expect: &str| {
        assert_eq!(refused(&Settings::default(), &request(metric)), expect, "{metric}");
    };
    for sum in
        ["", r#""aggregationTemporality":0"#, r#""aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA""#]
    {
        let metric = format!(r#"{{"name":"a\"b","sum":{{{sum}}}}}"#);
        check(&metric, "invalid temporality and type combination for metric \"a\\\"b\"");
    }
    check(
        r#"{"name":"n"}"#,
        "could not get aggregation temporality for n as it has unsupported metric type Empty",
    );
    check(
        r#"{"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"scale":-5}]}}"#,
        "cannot convert exponential to native histogram. Scale must be >= -4, was -5",
    );
    check(
        r#"{"name":"c","sum":{"aggregationTemporality":2,"dataPoints":[{"exemplars":[{}]}]}}"#,
        "unsupported exemplar value type: Empty",
    );
    let late =
        format!(r#"{{"name":"l","gauge":{{"dataPoints":[{{"timeUnixNano":"{}000000"}}]}}}}"#, NOW_MS + 1);
    check(&late, "out of bounds: timestamp is too far in the future");
    // Each metric has its say.
    check(
        &format!(r#"{{"name":"n"}},{{"name":"ok","gauge":{{"dataPoints":[{{}}]}}}},{late}"#),
        &format!(
            "{}\n{}",
            "could not get aggregation temporality for n as it has unsupported metric type Empty",
            "out of bounds: timestamp is too far in the future"
        ),
    );
}

/// What a resource says of itself is looked at although all its points are in metrics that are refused.
#[test]
fn all_points_count_for_target_info() {
    let json = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}},
        {"key":"a.b","value":{"stringValue":"1"}},{"key":"a_b","value":{"stringValue":"2"}}]},
        "scopeMetrics":[{"metrics":[{"name":"d","sum":{"dataPoints":[{"timeUnixNano":"1000000"}]}}]}]}]}"#;
    let mut kept = Kept::default();
    let report = run(&Settings::default(), json, &mut kept).expect("a request");
    assert!(!report.refused.is_empty());
    assert_eq!(report.warnings.count(Category::LabelNameCollision), 1);
    assert_eq!(kept.rows, [r#"target_info{a_b="1;2", job="s"} 1 1"#]);
}

#[test]
fn what_the_store_says() {
    let json =
        request(r#"{"name":"a","gauge":{"dataPoints":[{},{}]}},{"name":"b","gauge":{"dataPoints":[{}]}}"#);
    let with = |answers| {
        let mut kept = Kept { answers, ..Kept::default() };
        (run(&Settings::default(), &json, &mut kept), kept)
    };
    let (report, kept) = with(vec![Some(AppendError::OutOfOrder)]);
    let refused = report.expect("a request").refused;
    assert_eq!((refused.text().as_str(), refused.by_time()), ("out of order sample", true));
    assert_eq!(kept.rows, ["b 0 0"], "the rest of the metric is not asked for");
    let (report, _) = with(vec![Some(AppendError::InvalidHistogram("bad".into()))]);
    let refused = report.expect("a request").refused;
    assert_eq!((refused.text().as_str(), refused.by_time()), ("bad", false));
    let (report, kept) = with(vec![None, Some(AppendError::Storage(StorageError::Closed))]);
    assert!(matches!(report, Err(Stop::Storage(StorageError::Closed))));
    assert_eq!(kept.rows.len(), 1);
}

#[test]
fn json_that_is_none() {
    let check = |json: &str, expect: &str| {
        let e = json_to_protobuf(json.as_bytes(), 1 << 20).expect_err(json).to_string();
        assert!(e.contains(expect), "{json}: {e}");
    };
    check("", "an object is expected");
    check("[]", "an object is expected");
    check(r#"{"resourceMetrics":{}}"#, "a list is expected");
    check(r#"{"resourceMetrics":[{}"#, "the end of a list");
    check(r#"{"a":tru}"#, "a value is expected");
    check(r#"{"a"}"#, "a colon");
    check("{\"a\":\"\n\"}", "control character");
    check(r#"{"a":"\x"}"#, "unknown escape");
    check(r#"{"a":"b"#, "without an end");
    check(&format!(r#"{{"a":{}}}"#, "[".repeat(300)), "nests");
    let point = |field: &str| request(&format!(r#"{{"gauge":{{"dataPoints":[{{{field}}}]}}}}"#));
    for (field, expect) in [
        (r#""timeUnixNano":-1"#, "integer"),
        (r#""timeUnixNano":"+1""#, "integer"),
        (r#""timeUnixNano":1.5"#, "integer"),
        (r#""timeUnixNano":null"#, "a number is expected"),
        (r#""flags":4294967296"#, "integer"),
        (r#""asDouble":1e999"#, "out of range"),
        (r#""asDouble":"x""#, "no number"),
        (r#""exemplars":[{"traceId":"00"}]"#, "hexadecimal"),
        (r#""exemplars":[{"traceId":"zz"}]"#, "hexadecimal"),
        (r#""attributes":[{"value":{"bytesValue":"?"}}]"#, "base64"),
        (r#""attributes":[{"value":{"boolValue":1}}]"#, "true or false"),
    ] {
        check(&point(field), expect);
    }
    check(&request(r#"{"sum":{"aggregationTemporality":"X"}}"#), "unknown name");
    let e = json_to_protobuf(request(r#"{"name":"long enough"}"#).as_bytes(), 10);
    assert!(matches!(e, Err(Error::TooLarge { .. })));
}

#[test]
fn json_that_is_fine() {
    let same = |a: &str, b: &str| {
        let make = |json: &str| json_to_protobuf(json.as_bytes(), 1 << 20).expect("a request");
        assert_eq!(make(a), make(b));
    };
    same("null", "{}");
    same(" { \"unknown\" : [ 1 , {\"a\":null} , \"\\u00e9\" , true ] } trailing", "{}");
    same(r#"{"resource_metrics":[null]}"#, r#"{"resourceMetrics":[{}]}"#);
    let name = |text: &str| request(&format!(r#"{{"name":{text}}}"#));
    same(&name(r#""\u0061\ud83d\ude00\n\/""#), &name("\"a\u{1f600}\\n/\""));
    same(&name(r#""\ud83dx""#), &name("\"\u{fffd}x\""));
    same(&name("null"), &name(r#""""#));
    let point = |field: &str| request(&format!(r#"{{"gauge":{{"dataPoints":[{{{field}}}]}}}}"#));
    same(&point(r#""asDouble":"1.5""#), &point(r#""as_double":15e-1"#));
    same(
        &point(r#""timeUnixNano":18446744073709551615"#),
        &point(r#""timeUnixNano":"18446744073709551615""#),
    );
}

#[test]
fn bytes_that_are_no_message() {
    let check = |bytes: &[u8]| match translate(bytes, &Settings::default(), NOW_MS, &mut Kept::default()) {
        Err(Stop::Decode(_)) => {}
        _ => panic!("{bytes:?} was taken"),
    };
    check(b"not protobuf");
    check(&[0x0a, 5, 1]);
    check(&[0x08, 1]);
    // A name that is not UTF-8.
    check(&[0x0a, 9, 0x12, 7, 0x12, 5, 0x0a, 3, b'a', 0xff, b'b']);
    // Ten thousand attributes and one more.
    let attributes = [0x0a, 0].repeat(10_001);
    let resource = [&[0x0a, 0xa2, 0x9c, 0x01][..], &attributes].concat();
    let request = [&[0x0a, 0xa6, 0x9c, 0x01][..], &resource].concat();
    check(&request);
}

/// Requests with something of everything, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    let everything = request(
        r#"{"name":"g","unit":"s","gauge":{"dataPoints":[{"asInt":"1","attributes":[{"key":"a","value":{"kvlistValue":{"values":
        [{"key":"b","value":{"arrayValue":{"values":[{"doubleValue":1.5},{"bytesValue":"YWJj"}]}}}]}}}]}]}},
        {"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","sum":2,"explicitBounds":[1],"bucketCounts":["1","2"],
        "exemplars":[{"asInt":"1","traceId":"000102030405060708090a0b0c0d0e0f"}]}]}},
        {"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","scale":9,"positive":{"offset":1,"bucketCounts":[1,2]}}]}},
        {"name":"s","summary":{"dataPoints":[{"quantileValues":[{"quantile":0.5,"value":1}]}]}}"#,
    );
    vec![everything.into_bytes()]
}

fn translate_with_all(bytes: &[u8]) {
    for (utf8, custom) in [(false, false), (true, true)] {
        let settings = Settings {
            utf8,
            convert_histograms_to_nhcb: custom,
            promote_scope_metadata: true,
            allow_delta: true,
            type_and_unit_labels: true,
            ..Settings::default()
        };
        let _ = translate(bytes, &settings, NOW_MS, &mut Kept::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        translate_with_all(&bytes);
        let _ = json_to_protobuf(&bytes, 1000);
    }

    #[test]
    fn damaged_requests_give_an_answer(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        for json in seeds() {
            let mut protobuf = json_to_protobuf(&json, 1 << 20).expect("a request");
            let i = at.index(protobuf.len());
            protobuf[i] = byte;
            if cut {
                protobuf.truncate(i);
            }
            translate_with_all(&protobuf);
            let mut json = json;
            let i = at.index(json.len());
            json[i] = byte;
            if let Ok(protobuf) = json_to_protobuf(&json, 1 << 20) {
                translate_with_all(&protobuf);
            }
        }
    }
}
