use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{ChunkCodec, FloatHistogram, Histogram, Sample, SampleValue, Samples};
use proptest::prelude::*;

use super::layout::bucket_count;
use super::*;

fn any_histogram() -> impl Strategy<Value = Histogram> {
    let span = (0_i32..5, 1_u32..4).prop_map(|(offset, length)| Span { offset, length });
    let spans = prop::collection::vec(span, 0..3);
    let custom = prop::collection::vec(prop_oneof![0.0..1e9, Just(0.25), Just(-1.5)], 0..4);
    let schema = prop_oneof![-4..=8_i32, Just(CUSTOM_BUCKETS_SCHEMA)];
    let zero_threshold =
        prop_oneof![Just(0.0), Just(2.0_f64.powi(-128)), Just(1024.0), Just(2.0_f64.powi(-243)), 0.0..1.0];
    let numbers = (any::<u32>(), any::<u32>(), any::<f64>(), prop::collection::vec(0_i64..9, 20));
    (schema, zero_threshold, spans.clone(), spans, custom, numbers).prop_map(
        |(schema, zero_threshold, positive_spans, negative_spans, custom, (count, zero, sum, buckets))| {
            let take = |spans: &[Span]| buckets[..bucket_count(spans) as usize].to_vec();
            Histogram {
                schema,
                zero_threshold,
                count: u64::from(count),
                zero_count: u64::from(zero),
                sum,
                positive_buckets: take(&positive_spans),
                negative_buckets: take(&negative_spans),
                positive_spans,
                negative_spans,
                custom_values: if schema == CUSTOM_BUCKETS_SCHEMA { custom } else { Vec::new() },
                counter_reset_hint: CounterResetHint::Gauge,
            }
        },
    )
}

fn codec(first: &HistogramValue, with_starts: bool) -> &'static dyn ChunkCodec {
    match (first, with_starts) {
        (HistogramValue::Int(_), false) => HISTOGRAM_CODEC,
        (HistogramValue::Int(_), true) => HISTOGRAM_ST_CODEC,
        (HistogramValue::Float(_), false) => FLOAT_HISTOGRAM_CODEC,
        (HistogramValue::Float(_), true) => FLOAT_HISTOGRAM_ST_CODEC,
    }
}

/// Writes what fits one chunk; gives that and what was read back.
fn round_trip(list: &[HistogramValue], starts: Option<&[i64]>) -> (Vec<Sample>, Vec<Sample>) {
    let mut a = HistogramAppender::new(&list[0], starts.is_some(), None);
    let mut expect = Vec::new();
    for (i, h) in list.iter().enumerate() {
        let t = 1_700_000_000_000 + i as i64 * 15_000;
        let start = starts.map_or(0, |s| s[i % s.len()]);
        if a.append(t, start, h).is_ok() {
            expect.push(Sample { start_timestamp_ms: start, ..Sample::histogram(t, h.clone()) });
        }
    }
    let codec = codec(&list[0], starts.is_some());
    let bytes = a.encode_first(u16::MAX);
    assert_eq!(a.len_bytes(), bytes.len());
    assert_eq!(usize::from(crate::chunk::sample_count(a.encoding().0, &bytes)), expect.len());
    let mut out = Samples::new();
    codec.decode(&bytes, i64::MIN, i64::MAX, &mut out).expect("own bytes");
    for end in 0..bytes.len() {
        let _ = codec.decode(&bytes[..end], i64::MIN, i64::MAX, &mut Samples::new()); // Must not panic.
    }
    (out.iter().collect(), expect)
}

proptest! {
    #[test]
    fn gauges_come_back(
        first in any_histogram(),
        counts in prop::collection::vec((0_u64..1000, 0_i64..50), 0..20),
        starts in prop::collection::vec(prop_oneof![Just(0_i64), 1_690_000_000_000..1_700_000_000_000_i64], 1..5),
    ) {
        let mut list: Vec<HistogramValue> = vec![first.clone().into()];
        for (count, bucket) in counts {
            let mut h = first.clone();
            h.count = h.count.wrapping_add(count);
            h.sum += count as f64;
            h.positive_buckets.iter_mut().for_each(|b| *b += bucket);
            list.push(h.into());
        }
        let floats: Vec<HistogramValue> = list.iter().map(|h| HistogramValue::Float(h.to_float())).collect();
        for list in [list, floats] {
            for starts in [None, Some(&starts[..])] {
                let (got, expect) = round_trip(&list, starts);
                prop_assert_eq!(got, expect);
            }
        }
    }

    /// Counters and gauges with buckets that come and go: what is read back is the same but for empty buckets.
    #[test]
    fn wider_chunks_hold_the_same_buckets(
        rounds in prop::collection::vec((prop::collection::vec((0_usize..12, 1_i64..5), 0..4), any::<bool>()), 1..20),
        gauge in any::<bool>(),
    ) {
        let hint = if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        let mut totals = [0_i64; 12];
        let mut list: Vec<HistogramValue> = Vec::new();
        for (adds, again) in rounds {
            if gauge && again {
                totals = [0; 12];
            }
            adds.iter().for_each(|(at, n)| totals[*at] += n);
            list.push(sparse(&totals, hint).into());
        }
        let floats: Vec<HistogramValue> = list.iter().map(|h| HistogramValue::Float(h.to_float())).collect();
        for list in [list, floats] {
            let (got, expect) = round_trip(&list, Some(&[5]));
            prop_assert_eq!(got.len(), list.len(), "new buckets do not cut chunks");
            for (g, e) in got.iter().zip(&expect) {
                prop_assert_eq!((g.timestamp_ms, g.start_timestamp_ms), (e.timestamp_ms, 5));
                prop_assert_eq!(dense(&g.value), dense(&e.value));
            }
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for codec in [HISTOGRAM_CODEC, FLOAT_HISTOGRAM_CODEC, HISTOGRAM_ST_CODEC, FLOAT_HISTOGRAM_ST_CODEC] {
            let _ = codec.decode(&bytes, 0, i64::MAX, &mut Samples::new());
        }
    }
}

/// A histogram with the buckets that are not empty; every second one on the negative side.
fn sparse(totals: &[i64], hint: CounterResetHint) -> Histogram {
    let side = |parity: usize| {
        let (mut spans, mut buckets) = (Vec::<Span>::new(), Vec::new());
        let (mut next, mut before) = (0, 0);
        for (at, n) in totals.iter().enumerate().filter(|(i, n)| i % 2 == parity && **n > 0) {
            spans.push(Span { offset: (at / 2) as i32 - next, length: 1 });
            next = (at / 2) as i32 + 1;
            buckets.push(n - before);
            before = *n;
        }
        (spans, buckets)
    };
    let ((positive_spans, positive_buckets), (negative_spans, negative_buckets)) = (side(0), side(1));
    Histogram {
        counter_reset_hint: hint,
        schema: 2,
        count: totals.iter().sum::<i64>() as u64,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..Histogram::default()
    }
}

/// What is in each bucket that is not empty, by place.
fn dense(v: &SampleValue) -> Vec<(i64, u64)> {
    let SampleValue::Histogram(h) = v else { panic!("a histogram") };
    let h: Arc<FloatHistogram> = h.to_float();
    let mut out = vec![(i64::MAX, h.count.to_bits())];
    for (sign, spans, buckets) in
        [(1, &h.positive_spans, &h.positive_buckets), (-1, &h.negative_spans, &h.negative_buckets)]
    {
        let (mut at, mut i) = (0_i64, 0);
        for s in spans {
            at += i64::from(s.offset);
            for _ in 0..s.length {
                if buckets[i] != 0.0 {
                    out.push((sign * (at + 1000), buckets[i].to_bits()));
                }
                (at, i) = (at + 1, i + 1);
            }
        }
    }
    out
}

#[test]
fn resets_layouts_and_stale_markers_cut_chunks() {
    let base = Histogram {
        count: 10,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![4, 2],
        ..Histogram::default()
    };
    let check = |last: &Histogram, next: Histogram, expect: Result<(), u8>| {
        let (last, next) = (HistogramValue::from(last.clone()), HistogramValue::from(next));
        let mut a = HistogramAppender::new(&last, false, None);
        assert!(a.append(1, 0, &last).is_ok());
        assert_eq!(a.append(2, 0, &next).map_err(|n| n.flags), expect, "{next:?}");
    };
    let stale = Histogram { sum: model::stale_nan(), ..Histogram::default() };
    let reset = Err(FLAG_COUNTER_RESET);
    check(&base, base.clone(), Ok(()));
    check(&base, Histogram { count: 9, ..base.clone() }, reset);
    check(&base, Histogram { positive_buckets: vec![3, 3], ..base.clone() }, reset);
    check(&base, Histogram { schema: 1, ..base.clone() }, Err(FLAG_UNKNOWN));
    check(&base, Histogram { counter_reset_hint: CounterResetHint::CounterReset, ..base.clone() }, reset);
    check(&base, Histogram { counter_reset_hint: CounterResetHint::Gauge, ..base.clone() }, Err(FLAG_GAUGE));
    check(&base, stale.clone(), Ok(()));
    check(&stale, base.clone(), Err(FLAG_UNKNOWN));
    check(&stale, stale.clone(), Ok(()));
    // Buckets that come and go.
    let spans = |offset, length| vec![Span { offset, length }];
    let wider = Histogram { positive_spans: spans(0, 3), positive_buckets: vec![4, 2, 0], ..base.clone() };
    check(&base, wider.clone(), Ok(()));
    check(&wider, base.clone(), reset);
    let empty_third = Histogram { positive_buckets: vec![4, 2, -6], ..wider };
    check(&empty_third, base.clone(), Ok(()));
    let elsewhere = Histogram { positive_spans: spans(7, 2), ..base.clone() };
    check(&base, elsewhere.clone(), reset);
    let gauge = |h: Histogram| Histogram { counter_reset_hint: CounterResetHint::Gauge, ..h };
    check(&gauge(base.clone()), gauge(elsewhere), Ok(()));
    check(&gauge(base.clone()), base, Err(FLAG_NO_RESET));
}

#[test]
fn a_chunk_tells_what_began_it() {
    let h = |count: u64, hint| {
        HistogramValue::from(Histogram { count, counter_reset_hint: hint, ..Histogram::default() })
    };
    use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
    let flags = |before: Option<&HistogramAppender>, h: &HistogramValue, with_starts: bool| {
        let mut a = HistogramAppender::new(h, with_starts, before);
        assert!(a.append(1, 0, h).is_ok());
        let bytes = a.encode_first(1);
        bytes[if with_starts { 0 } else { FLAGS_AT }] & FLAG_MASK
    };
    let mut before = HistogramAppender::new(&h(5, Unknown), false, None);
    assert!(before.append(1, 0, &h(5, Unknown)).is_ok());
    for with_starts in [false, true] {
        assert_eq!(flags(None, &h(1, Unknown), with_starts), FLAG_UNKNOWN);
        assert_eq!(flags(None, &h(1, NotCounterReset), with_starts), FLAG_UNKNOWN);
        assert_eq!(flags(None, &h(1, CounterReset), with_starts), FLAG_COUNTER_RESET);
        assert_eq!(flags(Some(&before), &h(1, Gauge), with_starts), FLAG_GAUGE);
        assert_eq!(flags(Some(&before), &h(4, Unknown), with_starts), FLAG_COUNTER_RESET);
        assert_eq!(flags(Some(&before), &h(6, Unknown), with_starts), FLAG_NO_RESET);
    }
}
