//! Bodies are written field by field, as the message definitions have them.

use proptest::prelude::*;

use super::testing::*;
use super::*;

const NATIVE: HistogramOptions =
    HistogramOptions { native: true, keep_classic: false, convert_classic: false };

/// One line per item: families as `name type help unit`, samples as `labels value @timestamp`, then starts and exemplars.
fn read(body: &[u8], options: HistogramOptions) -> Result<Vec<String>, ParseError> {
    let mut p = Protobuf::new(body, options);
    let mut out = Vec::new();
    while let Some(item) = p.next()? {
        match item {
            Item::Family(f) => out.push(format!("{} {} {:?} {:?}", f.name, f.metric_type, f.help, f.unit)),
            Item::Fact(_) => panic!("protobuf has no lines"),
            Item::Sample { value, timestamp_ms } => {
                let mut pairs = Vec::new();
                p.labels(&mut pairs)?;
                let mut line = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(",");
                line.push_str(&match value {
                    Value::Float(v) => format!(" {v}"),
                    Value::Histogram(h) => format!(" {}", show(&h)),
                });
                line.extend(timestamp_ms.map(|t| format!(" @{t}")));
                line.extend(Some(p.start_ms()).filter(|s| *s != 0).map(|s| format!(" st={s}")));
                let mut exemplars = Vec::new();
                p.exemplars(&mut exemplars);
                line.extend(
                    exemplars.iter().map(|e| format!(" # {} {} {:?}", e.labels, e.value, e.timestamp_ms)),
                );
                out.push(line);
            }
        }
    }
    Ok(out)
}

fn show(h: &model::HistogramValue) -> String {
    match h {
        model::HistogramValue::Int(h) => format!(
            "int s={} n={} sum={} z={}/{} {:?}{:?} {:?}{:?} {:?} {:?}",
            h.schema,
            h.count,
            h.sum,
            h.zero_count,
            h.zero_threshold,
            h.positive_spans.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>(),
            h.positive_buckets,
            h.negative_spans.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>(),
            h.negative_buckets,
            h.custom_values,
            h.counter_reset_hint
        ),
        model::HistogramValue::Float(h) => format!(
            "float s={} n={} sum={} z={}/{} {:?}{:?} {:?}{:?} {:?} {:?}",
            h.schema,
            h.count,
            h.sum,
            h.zero_count,
            h.zero_threshold,
            h.positive_spans.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>(),
            h.positive_buckets,
            h.negative_spans.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>(),
            h.negative_buckets,
            h.custom_values,
            h.counter_reset_hint
        ),
    }
}

fn check(body: &[u8], options: HistogramOptions, expect: &[&str]) {
    assert_eq!(read(body, options).expect("a valid body"), expect);
}

#[test]
fn plain_metrics() {
    let counter = bytes(3, [double(1, 1.5), exemplar(2, "x", 2.0, None), stamp(3, 7, 9_000_000)].concat());
    let body = [
        family("c_total", COUNTER, &[metric(&[label("b", "1"), label("a", "ä"), counter])]),
        family("empty", GAUGE, &[]),
        family(
            "g",
            GAUGE,
            &[
                metric(&[bytes(2, double(1, -0.0)), uint(6, 1234)]),
                metric(&[label("x", "1"), bytes(2, double(1, f64::NAN)), label("y", "2")]),
                bytes(5, "bytes"),
            ],
        ),
        family("u.v", UNTYPED, &[metric(&[bytes(5, double(1, 3.0))]), metric(&[])]),
    ]
    .concat();
    check(
        &body,
        NATIVE,
        &[
            "c_total counter \"help me\" \"\"",
            "__name__=c_total,b=1,a=ä 1.5 st=7009 # {t=\"x\"} 2 None",
            "g gauge \"help me\" \"bytes\"",
            "__name__=g -0 @1234",
            "__name__=g,x=1,y=2 NaN",
            "u.v unknown \"help me\" \"\"",
            "__name__=u.v 3",
            "__name__=u.v 0",
        ],
    );
}

#[test]
fn summaries_and_classic_histograms_become_series() {
    let quantile = |q, v| bytes(3, [double(1, q), double(2, v)].concat());
    let summary = bytes(4, [uint(1, 10), double(2, 5.5), quantile(0.5, 1.0), quantile(0.99, 2.0)].concat());
    let bare = bytes(4, [uint(1, 1), double(2, 2.0)].concat());
    let with_exemplar = bytes(3, [uint(1, 3), double(2, 1e6), exemplar(3, "e", 9.0, Some(4))].concat());
    let histogram = bytes(7, [uint(1, 4), double(2, 8.0), bucket(2, 1.0), with_exemplar].concat());
    let complete =
        bytes(7, [double(4, 2.5), bucket(1, f64::INFINITY), bucket(9, 7.0), stamp(15, 1, 0)].concat());
    let body = [
        family("s", SUMMARY, &[metric(&[label("l", "1"), summary]), metric(&[bare])]),
        family("h", HISTOGRAM, &[metric(&[label("l", "1"), histogram]), metric(&[complete])]),
    ]
    .concat();
    let expect = [
        "s summary \"help me\" \"\"",
        "__name__=s_count,l=1 10",
        "__name__=s_sum,l=1 5.5",
        "__name__=s,l=1,quantile=0.5 1",
        "__name__=s,l=1,quantile=0.99 2",
        "__name__=s_count 1",
        "__name__=s_sum 2",
        "h histogram \"help me\" \"\"",
        "__name__=h_count,l=1 4",
        "__name__=h_sum,l=1 8",
        "__name__=h_bucket,l=1,le=1.0 2",
        "__name__=h_bucket,l=1,le=1e+06 3 # {t=\"e\"} 9 Some(4500)",
        "__name__=h_bucket,l=1,le=+Inf 4",
        "__name__=h_count 2.5 st=1000",
        "__name__=h_sum 0 st=1000",
        "__name__=h_bucket,le=+Inf 1 st=1000",
    ];
    check(&body, NATIVE, &expect);
    check(&body, HistogramOptions::default(), &expect);
}

/// A histogram with both parts, and exemplars in both.
fn both_parts() -> Vec<u8> {
    let native = [
        sint(5, 3),
        double(6, 0.001),
        uint(7, 2),
        span(12, -1, 2),
        span(12, 3, 2),
        // Packed, and one by one.
        bytes(13, [varint(2), varint(1)].concat()),
        sint(13, 2),
        sint(13, -2),
        span(9, 4, 1),
        sint(10, 5),
        exemplar(16, "n", 1.0, Some(2)),
        exemplar(16, "dropped", 1.0, None),
    ]
    .concat();
    let with_exemplar = bytes(3, [uint(1, 6), double(2, 1.0), exemplar(3, "c", 9.0, None)].concat());
    bytes(7, [uint(1, 11), double(2, 8.5), with_exemplar, native].concat())
}

const INT: &str = "int s=3 n=11 sum=8.5 z=2/0.001 [(-1, 1), (4, 1)][1, 1] [(4, 1)][5] [] Unknown";

#[test]
fn native_histograms() {
    let body = family("h", HISTOGRAM, &[metric(&[label("l", "1"), both_parts(), uint(6, 5)])]);
    let native = format!("__name__=h,l=1 {INT} @5 # {{t=\"n\"}} 1 Some(2500)");
    check(&body, NATIVE, &["h histogram \"help me\" \"\"", &native]);
    let classic = [
        "__name__=h_count,l=1 11 @5",
        "__name__=h_sum,l=1 8.5 @5",
        "__name__=h_bucket,l=1,le=1.0 6 @5 # {t=\"c\"} 9 None",
        "__name__=h_bucket,l=1,le=+Inf 11 @5",
    ];
    let both = [&["h histogram \"help me\" \"\"", native.as_str()][..], &classic].concat();
    check(&body, HistogramOptions { keep_classic: true, ..NATIVE }, &both);
    // What is native is not converted.
    check(&body, HistogramOptions { keep_classic: true, convert_classic: true, native: true }, &both);
    let only_classic = [&["h histogram \"help me\" \"\""][..], &classic].concat();
    check(&body, HistogramOptions::default(), &only_classic);
}

#[test]
fn float_and_gauge_histograms() {
    let float =
        [double(4, 2.5), double(8, 0.5), span(12, 0, 3), double(14, 1.0), double(14, 0.0), double(14, 1.0)];
    let no_observations = bytes(7, span(12, 0, 0));
    let body =
        family("h", GAUGE_HISTOGRAM, &[metric(&[bytes(7, float.concat())]), metric(&[no_observations])]);
    check(
        &body,
        NATIVE,
        &[
            "h gaugehistogram \"help me\" \"\"",
            "__name__=h float s=0 n=2.5 sum=0 z=0.5/0 [(0, 1), (1, 1)][1.0, 1.0] [][] [] Gauge",
            "__name__=h int s=0 n=0 sum=0 z=0/0 [][] [][] [] Gauge",
        ],
    );
}

#[test]
fn classic_histograms_are_converted() {
    let classic = || bytes(7, [uint(1, 4), double(2, 8.0), bucket(2, 1.0), bucket(3, 5.0)].concat());
    let body =
        family("h", GAUGE_HISTOGRAM, &[metric(&[label("l", "1"), classic()]), metric(&[both_parts()])]);
    let converted = "__name__=h,l=1 int s=-53 n=4 sum=8 z=0/0 [(0, 3)][2, -1, 0] [][] [1.0, 5.0] Gauge";
    let native = format!("__name__=h {} # {{t=\"n\"}} 1 Some(2500)", INT.replace("Unknown", "Gauge"));
    let head = "h gaugehistogram \"help me\" \"\"";
    let options = HistogramOptions { convert_classic: true, ..NATIVE };
    check(&body, options, &[head, converted, &native]);
    let count = read(&body, HistogramOptions { keep_classic: true, ..options }).expect("a valid body").len();
    assert_eq!(count, 1 + 5 + 1 + 1 + 4, "the classic series, too");
}

#[test]
fn broken_bodies_fail_in_prometheus_s_words() {
    let cut = family("g", GAUGE, &[metric(&[bytes(2, double(1, 1.0))])]);
    let spans = bytes(7, [span(12, 0, 3), sint(13, 1)].concat());
    let negative = bytes(7, [bucket(2, 1.0), bucket(1, 2.0)].concat());
    for (body, error) in [
        (
            cut[..cut.len() - 1].to_vec(),
            format!(
                "clientpb: insufficient length of buffer, expected at least {} bytes, got {} bytes",
                cut.len(),
                cut.len() - 1
            ),
        ),
        (vec![0xff; 6], "clientpb: invalid varint encountered".into()),
        (vec![0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "clientpb: invalid varint encountered".into()),
        (family("", GAUGE, &[metric(&[])]), "invalid metric name: ".into()),
        (family("g", 9, &[metric(&[])]), "unknown metric type for metric \"g\": 9".into()),
        (family("g", GAUGE, &[metric(&[uint(2, 1)])]), "proto: wrong wireType = 0 for field Gauge".into()),
        (family("g", GAUGE, &[metric(&[bytes(2, [0x09, 0])])]), "unexpected EOF".into()),
        (
            family("g", GAUGE, &[metric(&[vec![0x02, 0]])]),
            "proto: Metric: illegal tag 0 (wire type 2)".into(),
        ),
        (
            family("g", GAUGE, &[metric(&[vec![0x0c]])]),
            "proto: Metric: wiretype end group for non-group".into(),
        ),
        (family("g", GAUGE, &[metric(&[label("", "x")])]), "invalid label name: ".into()),
        (
            family("g", GAUGE, &[metric(&[bytes(1, [bytes(1, "a"), bytes(2, [0xff])].concat())])]),
            "invalid label value: \u{fffd}".into(),
        ),
        (
            family("h", HISTOGRAM, &[metric(&[spans])]),
            "histogram \"h\": positive side: spans require 3 buckets, have 1".into(),
        ),
        (family("h", HISTOGRAM, &[metric(&[negative])]), "count is not cumulative: 1 < 2".into()),
    ] {
        let options = HistogramOptions { convert_classic: true, ..NATIVE };
        assert_eq!(read(&body, options).expect_err("a broken body").to_string(), error);
    }
}

proptest! {
    /// Bytes of fields in any order and cut anywhere: an error or samples, never a panic, and an end.
    #[test]
    fn foreign_bytes_never_panic(
        parts in proptest::collection::vec((1..20_u64, 0..6_u64, 0..9_u64, any::<u8>()), 0..30),
        cut in 0..100_usize,
        depth in 0..4_usize,
        kind in 0..7_u64,
    ) {
        let mut inner: Vec<u8> = parts.iter().flat_map(|(field, wire, value, byte)| match wire {
            0 | 3 | 4 => uint(*field, *value),
            1 => double(*field, f64::from(*byte)),
            2 => bytes(*field, vec![*byte; *value as usize]),
            5 => vec![*byte],
            _ => span(*field, *value as i64, u64::from(*byte)),
        }).collect();
        inner.truncate(inner.len().saturating_sub(cut.saturating_sub(80)));
        for _ in 0..depth {
            inner = bytes(7, &inner);
        }
        let body = [family("m", kind, &[metric(std::slice::from_ref(&inner)), inner.clone()]), inner].concat();
        for native in [false, true] {
            for convert_classic in [false, true] {
                let _ = read(&body, HistogramOptions { native, keep_classic: true, convert_classic });
            }
        }
    }
}
