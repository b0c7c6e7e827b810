//! The reader and the writer against messages derived with prost, and against bytes that are no message.

use model::histogram::{CounterResetHint, HistogramValue, Span};
use model::{Exemplar, FloatHistogram, Histogram, Labels, Metadata, MetricType, SampleValue, stale_nan};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;

/// The messages as the specification declares them.
mod oracle {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub(super) metadata: Vec<MetricMetadata>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricMetadata {
        #[prost(int32, tag = "1")]
        pub(super) r#type: i32,
        #[prost(string, tag = "2")]
        pub(super) metric_family_name: String,
        #[prost(string, tag = "4")]
        pub(super) help: String,
        #[prost(string, tag = "5")]
        pub(super) unit: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub(super) histograms: Vec<Histogram>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub(super) value: f64,
        #[prost(int64, tag = "3")]
        pub(super) timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(super) length: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(oneof = "Count", tags = "1, 2")]
        pub(super) count: Option<Count>,
        #[prost(double, tag = "3")]
        pub(super) sum: f64,
        #[prost(sint32, tag = "4")]
        pub(super) schema: i32,
        #[prost(double, tag = "5")]
        pub(super) zero_threshold: f64,
        #[prost(oneof = "ZeroCount", tags = "6, 7")]
        pub(super) zero_count: Option<ZeroCount>,
        #[prost(message, repeated, tag = "8")]
        pub(super) negative_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "9")]
        pub(super) negative_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "10")]
        pub(super) negative_counts: Vec<f64>,
        #[prost(message, repeated, tag = "11")]
        pub(super) positive_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "12")]
        pub(super) positive_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "13")]
        pub(super) positive_counts: Vec<f64>,
        #[prost(int32, tag = "14")]
        pub(super) reset_hint: i32,
        #[prost(int64, tag = "15")]
        pub(super) timestamp: i64,
        #[prost(double, repeated, tag = "16")]
        pub(super) custom_values: Vec<f64>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Count {
        #[prost(uint64, tag = "1")]
        Int(u64),
        #[prost(double, tag = "2")]
        Float(f64),
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum ZeroCount {
        #[prost(uint64, tag = "6")]
        Int(u64),
        #[prost(double, tag = "7")]
        Float(f64),
    }
}

/// What a request says, in types of the model.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    series: Vec<(Labels, Vec<Sample>, Vec<Exemplar>)>,
    metadata: Vec<(String, Metadata)>,
}

fn read(body: &[u8]) -> Result<Content, Error> {
    let mut content = Content::default();
    let mut scratch = LabelScratch::default();
    let mut request = WriteRequest::new(body);
    while let Some(s) = request.next_series()? {
        let labels = to_labels(s.labels(&mut scratch)?)?;
        let mut samples = Vec::new();
        for x in s.samples() {
            let (t, v) = x?;
            samples.push(Sample::float(t, v));
        }
        for x in s.histograms() {
            samples.push(x?);
        }
        assert_eq!(samples.len(), s.samples_len() + s.histograms_len());
        let exemplars = s.exemplars().collect::<Result<Vec<_>, _>>()?;
        content.series.push((labels, samples, exemplars));
    }
    for m in request.metadata() {
        let (family, metadata) = m?;
        content.metadata.push((family.to_owned(), metadata));
    }
    Ok(content)
}

fn write(content: &Content) -> Vec<u8> {
    let mut out = WriteRequestEncoder::new();
    for (labels, samples, exemplars) in &content.series {
        let mut series = out.series_of(labels);
        for s in samples {
            match &s.value {
                SampleValue::Float(v) => series.float(s.timestamp_ms, *v),
                SampleValue::Histogram(h) => series.histogram(s.timestamp_ms, h),
            };
        }
        exemplars.iter().for_each(|e| {
            series.exemplar(e);
        });
    }
    content.metadata.iter().for_each(|(f, m)| out.metadata(f, m));
    assert_eq!(out.series_len(), content.series.len());
    out.as_bytes().to_vec()
}

fn oracle_labels(labels: &Labels) -> Vec<oracle::Label> {
    labels.iter().map(|(n, v)| oracle::Label { name: n.into(), value: v.into() }).collect()
}

fn oracle_spans(spans: &[Span]) -> Vec<oracle::BucketSpan> {
    spans.iter().map(|s| oracle::BucketSpan { offset: s.offset, length: s.length }).collect()
}

fn oracle_histogram(timestamp: i64, h: &HistogramValue) -> oracle::Histogram {
    match h {
        HistogramValue::Int(h) => oracle::Histogram {
            count: Some(oracle::Count::Int(h.count)),
            sum: h.sum,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: Some(oracle::ZeroCount::Int(h.zero_count)),
            negative_spans: oracle_spans(&h.negative_spans),
            negative_deltas: h.negative_buckets.clone(),
            positive_spans: oracle_spans(&h.positive_spans),
            positive_deltas: h.positive_buckets.clone(),
            reset_hint: h.counter_reset_hint as i32,
            timestamp,
            custom_values: h.custom_values.clone(),
            ..Default::default()
        },
        HistogramValue::Float(h) => oracle::Histogram {
            count: Some(oracle::Count::Float(h.count)),
            sum: h.sum,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: Some(oracle::ZeroCount::Float(h.zero_count)),
            negative_spans: oracle_spans(&h.negative_spans),
            negative_counts: h.negative_buckets.clone(),
            positive_spans: oracle_spans(&h.positive_spans),
            positive_counts: h.positive_buckets.clone(),
            reset_hint: h.counter_reset_hint as i32,
            timestamp,
            custom_values: h.custom_values.clone(),
            ..Default::default()
        },
    }
}

fn oracle_request(content: &Content) -> oracle::WriteRequest {
    let series = |(labels, samples, exemplars): &(Labels, Vec<Sample>, Vec<Exemplar>)| oracle::TimeSeries {
        labels: oracle_labels(labels),
        samples: samples
            .iter()
            .filter_map(|s| match &s.value {
                SampleValue::Float(v) => Some(oracle::Sample { value: *v, timestamp: s.timestamp_ms }),
                SampleValue::Histogram(_) => None,
            })
            .collect(),
        exemplars: exemplars
            .iter()
            .map(|e| oracle::Exemplar {
                labels: oracle_labels(&e.labels),
                value: e.value,
                timestamp: e.timestamp_ms.unwrap_or(0),
            })
            .collect(),
        histograms: samples
            .iter()
            .filter_map(|s| match &s.value {
                SampleValue::Float(_) => None,
                SampleValue::Histogram(h) => Some(oracle_histogram(s.timestamp_ms, h)),
            })
            .collect(),
    };
    oracle::WriteRequest {
        timeseries: content.series.iter().map(series).collect(),
        metadata: content
            .metadata
            .iter()
            .map(|(f, m)| oracle::MetricMetadata {
                r#type: metric_type_number(m.metric_type) as i32,
                metric_family_name: f.clone(),
                help: m.help.to_string(),
                unit: m.unit.to_string(),
            })
            .collect(),
    }
}

// === Generators ===

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map("[a-zé_]{1,6}", "\\PC{1,20}", 1..6).prop_map(Labels::from_pairs)
}

/// Numbers that `==` compares like their bits, since the oracle compares that way; NaN and -0 have tests of their own.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), any::<i32>().prop_map(f64::from), -1e300..1e300, Just(f64::INFINITY)]
}

fn hint() -> impl Strategy<Value = CounterResetHint> {
    prop_oneof![
        Just(CounterResetHint::Unknown),
        Just(CounterResetHint::CounterReset),
        Just(CounterResetHint::NotCounterReset),
        Just(CounterResetHint::Gauge)
    ]
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    vec((any::<i32>(), 0..9_u32).prop_map(|(offset, length)| Span { offset, length }), 0..4)
}

fn histogram_value() -> impl Strategy<Value = HistogramValue> {
    let shape = (hint(), -53..9_i32, value(), value(), spans(), spans(), vec(value(), 0..3));
    let int = (any::<u64>(), any::<u64>(), vec(any::<i64>(), 0..6), vec(any::<i64>(), 0..6));
    let float = (value(), value(), vec(value(), 0..6), vec(value(), 0..6));
    let int = (shape, int).prop_map(|((hint, schema, zt, sum, ps, ns, cv), (count, zero_count, p, n))| {
        HistogramValue::from(Histogram {
            counter_reset_hint: hint,
            schema,
            zero_threshold: zt,
            zero_count,
            count,
            sum,
            positive_spans: ps,
            positive_buckets: p,
            negative_spans: ns,
            negative_buckets: n,
            custom_values: cv,
        })
    });
    let shape = (hint(), -53..9_i32, value(), value(), spans(), spans(), vec(value(), 0..3));
    let float =
        (shape, float).prop_map(|((hint, schema, zt, sum, ps, ns, cv), (count, zero_count, p, n))| {
            HistogramValue::from(FloatHistogram {
                counter_reset_hint: hint,
                schema,
                zero_threshold: zt,
                zero_count,
                count,
                sum,
                positive_spans: ps,
                positive_buckets: p,
                negative_spans: ns,
                negative_buckets: n,
                custom_values: cv,
            })
        });
    prop_oneof![int, float]
}

fn exemplar_strategy() -> impl Strategy<Value = Exemplar> {
    (proptest::option::of(labels()), value(), proptest::option::of(1..i64::MAX)).prop_map(
        |(labels, value, timestamp_ms)| Exemplar { labels: labels.unwrap_or_default(), value, timestamp_ms },
    )
}

fn metadata_strategy() -> impl Strategy<Value = (String, Metadata)> {
    ("[a-z]{0,5}", 0..8_u64, "\\PC{0,20}", "[a-z]{0,5}").prop_map(|(family, t, help, unit)| {
        (family, Metadata { metric_type: metric_type_of(t), unit: unit.into(), help: help.into() })
    })
}

fn content() -> impl Strategy<Value = Content> {
    let floats = vec((any::<i64>(), value()).prop_map(|(t, v)| Sample::float(t, v)), 0..5);
    let histograms = vec((any::<i64>(), histogram_value()).prop_map(|(t, h)| Sample::histogram(t, h)), 0..3);
    let series = (labels(), floats, histograms, vec(exemplar_strategy(), 0..3)).prop_map(
        |(labels, mut samples, mut histograms, exemplars)| {
            samples.append(&mut histograms);
            (labels, samples, exemplars)
        },
    );
    (vec(series, 0..5), vec(metadata_strategy(), 0..3))
        .prop_map(|(series, metadata)| Content { series, metadata })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn reads_what_the_oracle_writes(content in content()) {
        let bytes = oracle_request(&content).encode_to_vec();
        prop_assert_eq!(read(&bytes).expect("valid"), content);
    }

    #[test]
    fn the_oracle_reads_what_we_write(content in content()) {
        let bytes = write(&content);
        prop_assert_eq!(oracle::WriteRequest::decode(&bytes[..]).expect("valid"), oracle_request(&content));
        prop_assert_eq!(read(&bytes).expect("valid"), content);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    /// Bytes that get past the first tags more often than random ones.
    #[test]
    fn damaged_messages_never_panic(content in content(), at in any::<prop::sample::Index>(), b in any::<u8>()) {
        let mut bytes = write(&content);
        if !bytes.is_empty() {
            let i = at.index(bytes.len());
            bytes[i] = b;
        }
        let ours = read(&bytes);
        // What the oracle takes, we take too, unless it is a label set that names no series.
        if let (Ok(_), Err(e)) = (oracle::WriteRequest::decode(&bytes[..]), &ours) {
            let group = matches!(e, Error::Malformed { reason: "groups are not supported", .. });
            prop_assert!(group || matches!(e, Error::InvalidLabels(_)), "{}", e);
        }
    }
}

fn example() -> Content {
    let histogram = Histogram {
        count: 7,
        sum: 3.5,
        positive_spans: vec![Span { offset: -3, length: 2 }],
        positive_buckets: vec![4, -1],
        custom_values: vec![0.5],
        ..Histogram::default()
    };
    Content {
        series: vec![(
            Labels::from_pairs([("__name__", "up"), ("job", "ü")]),
            vec![Sample::float(1_700_000_000_000, 1.5), Sample::histogram(-5, histogram)],
            vec![Exemplar {
                labels: Labels::from_pairs([("trace_id", "x")]),
                value: 2.0,
                timestamp_ms: Some(9),
            }],
        )],
        metadata: vec![(
            "up".into(),
            Metadata { metric_type: MetricType::Gauge, unit: "".into(), help: "Whether.".into() },
        )],
    }
}

#[test]
fn truncated_anywhere_it_is_an_error_or_a_shorter_message() {
    let bytes = write(&example());
    let whole = read(&bytes).expect("valid");
    let mut taken = 0;
    for len in 0..bytes.len() {
        match read(&bytes[..len]) {
            Ok(part) => {
                taken += 1;
                assert_ne!(part, whole, "{len}");
            }
            Err(Error::Malformed { offset, .. }) => assert!(offset <= len, "{offset} {len}"),
            Err(e) => panic!("{len}: {e}"),
        }
    }
    // The empty message and the one without metadata.
    assert_eq!(taken, 2);
}

#[test]
fn nan_payloads_and_negative_zero_keep_their_bits() {
    for bits in [stale_nan().to_bits(), model::staleness::NORMAL_NAN_BITS, (-0.0_f64).to_bits(), 0] {
        let v = f64::from_bits(bits);
        let mut out = WriteRequestEncoder::new();
        let h = Histogram { sum: v, ..Histogram::default() };
        out.series_of(&Labels::from_pairs([("a", "b")])).float(1, v).histogram(2, &h.into());
        let content = read(out.as_bytes()).expect("valid");
        let (SampleValue::Float(f), SampleValue::Histogram(h)) =
            (&content.series[0].1[0].value, &content.series[0].1[1].value)
        else {
            panic!("{content:?}")
        };
        assert_eq!((f.to_bits(), h.sum().to_bits()), (bits, bits));
    }
}

#[test]
fn the_label_section_is_the_key_of_a_series() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "x")]);
    let mut raw = Vec::new();
    encode_labels_for_test(&labels, &mut raw);
    let mut out = WriteRequestEncoder::new();
    out.series(&raw).float(1, 1.0);
    out.series_of(&labels).float(2, 2.0).float(3, 3.0);
    let mut request = WriteRequest::new(out.as_bytes());
    for _ in 0..2 {
        let s = request.next_series().expect("valid").expect("two series");
        assert_eq!(s.raw_labels(), raw);
    }
}

fn encode_labels_for_test(labels: &Labels, out: &mut Vec<u8>) {
    encode::encode_labels(labels, out);
}

#[test]
fn labels_may_stand_anywhere_in_a_series() {
    let (a, b) = (Labels::from_pairs([("a", "1")]), Labels::from_pairs([("b", "2")]));
    let mut body = Vec::new();
    encode::encode_labels(&a, &mut body);
    // A sample, then the other label.
    body.extend_from_slice(&[0x12, 2, 0x10, 7]);
    encode::encode_labels(&b, &mut body);
    let mut bytes = vec![0x0a, body.len() as u8];
    bytes.extend_from_slice(&body);
    let mut expect = Vec::new();
    encode::encode_labels(&Labels::from_pairs([("a", "1"), ("b", "2")]), &mut expect);

    let mut request = WriteRequest::new(&bytes);
    let s = request.next_series().expect("valid").expect("one");
    assert_eq!(s.raw_labels(), expect);
    let mut scratch = LabelScratch::default();
    assert_eq!(s.labels(&mut scratch).expect("valid"), [("a", "1"), ("b", "2")]);
    assert_eq!(s.samples().collect::<Result<Vec<_>, _>>().expect("valid"), [(7, 0.0)]);
}

#[test]
fn label_sets_are_sorted_and_checked() {
    let check = |pairs: &[(&str, &str)], expect: Result<&str, &str>| {
        let got = to_labels(&mut pairs.to_vec()).map(|l| l.to_string()).map_err(|e| e.to_string());
        match expect {
            Ok(text) => assert_eq!(got.expect("valid"), text),
            Err(reason) => assert!(got.expect_err("invalid").contains(reason)),
        }
    };
    check(&[("b", "1"), ("__name__", "up"), ("c", "")], Ok("up{b=\"1\"}"));
    check(&[("a", "1"), ("a", "1")], Err("twice"));
    check(&[("a", ""), ("a", "1")], Err("twice"));
    check(&[("", "1")], Err("empty"));
    check(&[("a", "")], Err("none"));
    check(&[], Err("none"));
}

#[test]
fn strings_that_are_not_utf_8_are_refused_with_their_place() {
    let bytes = [0x0a, 7, 0x0a, 5, 0x0a, 1, 0xff, 0x12, 0];
    let mut request = WriteRequest::new(&bytes);
    let s = request.next_series().expect("lengths are right").expect("one");
    let e = s.labels(&mut LabelScratch::default()).map(|l| l.len()).expect_err("not UTF-8");
    assert_eq!(e.to_string(), "malformed WriteRequest at byte 7: string before this byte is not UTF-8");
}

#[test]
fn scratch_memory_moves_on_to_the_next_request() {
    let bytes = write(&example());
    let mut scratch = LabelScratch::default();
    for _ in 0..3 {
        let body = bytes.clone();
        let mut inner = scratch.recycle();
        let s = WriteRequest::new(&body).next_series().expect("valid").expect("one");
        assert_eq!(s.labels(&mut inner).expect("valid").len(), 2);
        let pointer = inner.pairs.as_ptr() as usize;
        scratch = inner.recycle();
        assert_eq!(scratch.pairs.as_ptr() as usize, pointer);
    }
}
