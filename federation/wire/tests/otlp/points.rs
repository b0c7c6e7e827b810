//! Each type of metric, exemplars, ends of series, metadata.

use model::{HistogramValue, MetricType, SampleValue};
use wire::otlp::{Category, Settings};

use crate::support::{Kept, good, request, run};

fn default() -> Settings {
    Settings::default()
}

const NANOS: &str = r#""timeUnixNano":"1500999999","startTimeUnixNano":"1000000000""#;

#[test]
fn gauges_and_sums() {
    let kept = good(
        &default(),
        &request(&format!(
            r#"{{"name":"use","unit":"1","description":"How much.","gauge":{{"dataPoints":[{{"asDouble":0.5,{NANOS}}},{{"asInt":7}}]}}}},
               {{"name":"n","sum":{{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{{"asInt":"-3",{NANOS}}}]}}}},
               {{"name":"m","unit":"By/s","sum":{{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","dataPoints":[{{}}]}}}}"#
        )),
    );
    let rows = ["use_ratio 1500 0.5", "use_ratio 0 7", "n_total 1500 -3", "m_bytes_per_second 0 0"];
    assert_eq!(kept.rows, rows);
    assert_eq!(kept.samples[0].start_timestamp_ms, 1000);
    let types: Vec<_> = kept.metadata.iter().map(|m| (m.metric_type, &*m.unit, &*m.help)).collect();
    assert_eq!(
        types,
        [
            (MetricType::Gauge, "", "How much."),
            (MetricType::Gauge, "", "How much."),
            (MetricType::Counter, "", ""),
            (MetricType::Gauge, "bytes_per_second", "")
        ]
    );
}

#[test]
fn the_end_of_a_series() {
    let point = r#"{"flags":1,"count":"3","sum":2,"asInt":4,"exemplars":[{"asInt":"1"}]"#;
    let kept = good(
        &default(),
        &request(&format!(
            r#"{{"name":"g","gauge":{{"dataPoints":[{point}}}]}}}},
               {{"name":"h","histogram":{{"aggregationTemporality":2,"dataPoints":[{point},"explicitBounds":[1],"bucketCounts":["1","2"]}}]}}}},
               {{"name":"e","exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{point}}}]}}}},
               {{"name":"s","summary":{{"dataPoints":[{point},"quantileValues":[{{"quantile":0.5,"value":1}}]}}]}}}}"#
        )),
    );
    assert!(kept.rows.iter().all(|row| row.ends_with("0 stale")), "{:?}", kept.rows);
    assert_eq!(kept.rows.len(), 1 + 4 + 1 + 3);
    assert!(kept.exemplars.iter().all(Vec::is_empty));
}

const HISTOGRAM: &str = r#"{"name":"h","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[{
    "attributes":[{"key":"le","value":{"stringValue":"mine"}},{"key":"a","value":{"boolValue":true}}],
    "timeUnixNano":"2000000","count":"6","sum":7.5,"explicitBounds":[0.5,1e21],"bucketCounts":["1","2","3"],
    "exemplars":[{"asDouble":0.25},{"asDouble":0.5},{"asInt":"9","timeUnixNano":"1999999","traceId":"000102030405060708090a0b0c0d0e0f",
    "spanId":"0000000000000000","filteredAttributes":[{"key":"x.y","value":{"intValue":"1"}}]},{"asDouble":1e22}]}]}}"#;

#[test]
fn classic_histograms() {
    let kept = good(&default(), &request(HISTOGRAM));
    assert_eq!(
        kept.rows,
        [
            r#"h_seconds_sum{a="true", le="mine"} 2 7.5"#,
            r#"h_seconds_count{a="true", le="mine"} 2 6"#,
            r#"h_seconds_bucket{a="true", le="0.5"} 2 1"#,
            r#"h_seconds_bucket{a="true", le="1000000000000000000000"} 2 3"#,
            r#"h_seconds_bucket{a="true", le="+Inf"} 2 6"#,
        ]
    );
    let counts: Vec<usize> = kept.exemplars.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 0, 2, 1, 1]);
    let exemplar = &kept.exemplars[3][0];
    let labels = r#"{trace_id="000102030405060708090a0b0c0d0e0f", "x.y"="1"}"#;
    assert_eq!((exemplar.labels.to_string().as_str(), exemplar.timestamp_ms), (labels, Some(1)));
    assert_eq!(kept.exemplars[2][0].timestamp_ms, Some(0));
    assert!(kept.metadata.iter().all(|m| m.metric_type == MetricType::Histogram && &*m.unit == "seconds"));
    // Without a sum there is no series for it.
    let kept = good(&default(), &request(&HISTOGRAM.replace(r#""sum":7.5,"#, "")));
    assert_eq!(kept.rows.len(), 4);
}

#[test]
fn histograms_with_custom_buckets() {
    let settings = Settings { convert_histograms_to_nhcb: true, ..default() };
    let kept = good(&settings, &request(HISTOGRAM));
    assert_eq!(kept.rows, [r#"h_seconds{a="true", le="mine"} 2 histogram of 6"#]);
    let SampleValue::Histogram(HistogramValue::Int(h)) = &kept.samples[0].value else {
        panic!("a histogram")
    };
    assert_eq!((h.schema, &*h.custom_values, &*h.positive_buckets), (-53, &[0.5, 1e21][..], &[1, 1, 1][..]));
    assert!(h.validate().is_ok());
    assert_eq!(kept.exemplars[0].len(), 4);
}

#[test]
fn exponential_histograms() {
    let json = r#"{"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"count":"9","sum":1.5,"scale":9,
        "zeroCount":"2","positive":{"offset":-2,"bucketCounts":["1",2]},"negative":{"offset":3,"bucketCounts":[4]},"zeroThreshold":0.1}]}}"#;
    let kept = good(&default(), &request(json));
    assert_eq!(kept.rows, ["e 0 histogram of 9"]);
    let SampleValue::Histogram(HistogramValue::Int(h)) = &kept.samples[0].value else {
        panic!("a histogram")
    };
    assert_eq!((h.schema, h.zero_threshold, h.zero_count), (8, 1e-128, 2));
    assert_eq!((h.positive_spans[0].offset, &*h.positive_buckets), (0, &[3][..]));
    assert_eq!((h.negative_spans[0].offset, &*h.negative_buckets), (2, &[4][..]));
    assert!(h.validate().is_ok());
}

#[test]
fn summaries() {
    let json = r#"{"name":"s","summary":{"dataPoints":[{"count":"2","sum":3,"timeUnixNano":"1000000",
        "quantileValues":[{"quantile":0.5,"value":1},{"quantile":1,"value":"NaN"}]}]}}"#;
    let kept = good(&default(), &request(json));
    assert_eq!(
        kept.rows,
        ["s_sum 1 3", "s_count 1 2", r#"s{quantile="0.5"} 1 1"#, r#"s{quantile="1"} 1 NaN"#]
    );
    assert!(kept.metadata.iter().all(|m| m.metric_type == MetricType::Summary));
}

#[test]
fn long_exemplars_keep_their_ids_only() {
    let exemplar = |len: usize| {
        format!(
            r#"{{"asInt":1,"spanId":"0000000000000001","filteredAttributes":[{{"key":"é","value":{{"stringValue":"{}"}}}}]}}"#,
            "ü".repeat(len)
        )
    };
    // The id takes 7 + 16 of 128 characters, the key one.
    let json = format!(
        r#"{{"name":"c","sum":{{"aggregationTemporality":2,"dataPoints":[{{"exemplars":[{},{}]}}]}}}}"#,
        exemplar(104),
        exemplar(105)
    );
    let kept = good(&default(), &request(&json));
    let sizes: Vec<usize> = kept.exemplars[0].iter().map(|e| e.labels.len()).collect();
    assert_eq!(sizes, [2, 1]);
}

#[test]
fn warnings_are_counted_by_category() {
    let mut kept = Kept::default();
    let json = request(
        r#"{"name":"none","gauge":{}},{"name":"none","sum":{"aggregationTemporality":2}},
        {"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"sum":1},{"sum":1}]}},
        {"name":"g","gauge":{"dataPoints":[{"attributes":[
            {"key":"a.b","value":{"stringValue":"2"}},{"key":"a-b","value":{"stringValue":"1"}},{"key":"a_b","value":{}}]}]}}"#,
    );
    let report = run(&default(), &json, &mut kept).expect("a request");
    let counts = Category::ALL.map(|c| report.warnings.count(c));
    assert_eq!(counts, [1, 1, 1], "{:?}", report.warnings.texts);
    assert_eq!(
        kept.rows.last().map(String::as_str),
        Some(r#"g{a_b="1;2;"} 0 1"#.replace("0 1", "0 0").as_str())
    );
}

#[test]
fn deltas_where_they_are_allowed() {
    let settings = Settings { allow_delta: true, type_and_unit_labels: true, ..default() };
    let json = request(
        r#"{"name":"d","sum":{"isMonotonic":true,"aggregationTemporality":1,"dataPoints":[{"asInt":"1"}]}},
        {"name":"e","unit":"s","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{}]}},
        {"name":"c","unit":"By/s","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{}]}}"#,
    );
    let kept = good(&settings, &json);
    assert_eq!(
        kept.rows,
        [
            "d_total 0 1",
            r#"e_seconds{__unit__="seconds"} 0 histogram of 0"#,
            r#"c_bytes_per_second_total{__type__="counter", __unit__="bytes_per_second"} 0 0"#
        ]
    );
    assert_eq!(kept.metadata[0].metric_type, MetricType::Unknown);
}
