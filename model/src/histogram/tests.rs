//! Tests of histogram arithmetic, against a model that keeps buckets in maps.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn side(offset: i32, buckets: &[f64]) -> (Vec<Span>, Vec<f64>) {
    (vec![Span { offset, length: buckets.len() as u32 }], buckets.to_vec())
}

fn exponential(schema: i32, offset: i32, buckets: &[f64]) -> FloatHistogram {
    let (positive_spans, positive_buckets) = side(offset, buckets);
    let count = buckets.iter().sum();
    FloatHistogram { schema, count, positive_spans, positive_buckets, ..FloatHistogram::default() }
}

fn custom(bounds: &[f64], buckets: &[f64]) -> FloatHistogram {
    FloatHistogram { custom_values: bounds.to_vec(), ..exponential(CUSTOM_BUCKETS_SCHEMA, 0, buckets) }
}

#[test]
fn lists_buckets_from_both_ends() {
    let mut h = exponential(0, 0, &[1.0, 2.0]);
    h.positive_spans =
        vec![Span { offset: 0, length: 1 }, Span { offset: 0, length: 0 }, Span { offset: 2, length: 1 }];
    (h.negative_spans, h.negative_buckets) = side(1, &[4.0]);
    (h.zero_count, h.zero_threshold) = (8.0, 0.75);
    let texts: Vec<_> = h.all_buckets().map(|b| b.to_string()).collect();
    assert_eq!(texts, ["[-2,-1):4", "[-0.75,0.75]:8", "(0.75,1]:1", "(4,8]:2"]);
    let mut reverse: Vec<_> = h.all_buckets().rev().map(|b| b.to_string()).collect();
    reverse.reverse();
    assert_eq!(texts, reverse);
    assert_eq!(h.to_string(), "{count:3, sum:0, [-2,-1):4, [-0.75,0.75]:8, (0.5,1]:1, (4,8]:2}");
    let h = custom(&[1.0, 5.0], &[1.0, 0.0, 3.0]);
    assert_eq!(h.to_string(), "{count:4, sum:0, [-Inf,1]:1, (5,+Inf]:3}");
}

#[test]
fn spans_that_do_not_fit_do_not_panic() {
    let mut h = exponential(0, i32::MAX, &[1.0, 2.0]);
    h.positive_spans =
        vec![Span { offset: i32::MAX, length: u32::MAX }, Span { offset: i32::MIN, length: 1 }];
    assert_eq!(h.all_buckets().count(), 2);
    assert_eq!(h.all_buckets().rev().count(), 2);
    let mut sum = h.clone();
    assert!(sum.add(&exponential(0, 3, &[1.0])).is_ok());
    h.compact(3);
    h.trim(1.0, Keep::Above);
    let none =
        FloatHistogram { positive_spans: vec![Span { offset: 0, length: 3 }], ..FloatHistogram::default() };
    assert_eq!((none.all_buckets().count(), none.all_buckets().rev().count()), (0, 0));
    let nan = FloatHistogram { zero_threshold: f64::NAN, ..exponential(0, 0, &[1.0]) };
    assert!(nan.clone().add(&exponential(0, 0, &[1.0])).is_ok());
    assert!(exponential(0, 0, &[1.0]).add(&nan).is_ok());
}

#[test]
fn compaction_drops_and_fills() {
    let check = |max_empty, expect_spans: &[(i32, u32)], expect: &[f64]| {
        let mut h = exponential(0, -1, &[0.0, 1.0, 0.0, 0.0, 2.0, 0.0]);
        h.positive_spans = vec![Span { offset: -1, length: 4 }, Span { offset: 1, length: 2 }];
        h.compact(max_empty);
        let spans: Vec<_> = h.positive_spans.iter().map(|s| (s.offset, s.length)).collect();
        assert_eq!((&spans[..], &h.positive_buckets[..]), (expect_spans, expect), "{max_empty}");
    };
    check(0, &[(0, 1), (3, 1)], &[1.0, 2.0]);
    check(2, &[(0, 1), (3, 1)], &[1.0, 2.0]);
    check(3, &[(0, 5)], &[1.0, 0.0, 0.0, 0.0, 2.0]);
}

#[test]
fn sums_reconcile_schema_and_zero_bucket() {
    // Schema 1 buckets (1, sqrt 2], (sqrt 2, 2], … merge into (1, 2], …
    let mut h = exponential(1, 1, &[1.0, 2.0, 3.0, 4.0]);
    let outcome = h.add(&exponential(0, 1, &[10.0, 20.0, 30.0])).expect("both exponential");
    assert_eq!(outcome, AddOutcome::default());
    assert_eq!(h.test_expression(), "{{count:70 offset:1 buckets:[13 27 30]}}");

    // A threshold within a populated bucket moves to its end.
    let mut h = exponential(0, 0, &[1.0, 2.0, 3.0]);
    let other =
        FloatHistogram { zero_threshold: 1.5, zero_count: 5.0, count: 5.0, ..FloatHistogram::default() };
    h.add(&other).expect("both exponential");
    assert_eq!(h.test_expression(), "{{count:11 z_bucket:8 z_bucket_w:2 offset:2 buckets:[3]}}");
    let mut other = other;
    other.sub(&exponential(0, 0, &[1.0, 2.0, 3.0])).expect("both exponential");
    assert_eq!(other.test_expression(), "{{count:-1 z_bucket:2 z_bucket_w:2 offset:2 buckets:[-3]}}");

    let err = h.add(&custom(&[1.0], &[1.0])).expect_err("mixed");
    assert_eq!(err, HistogramError::IncompatibleSchemas);
}

#[test]
fn sums_of_custom_buckets_keep_the_common_bounds() {
    let mut h = custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]);
    let outcome = h.add(&custom(&[2.0, 3.0, 5.0], &[10.0, 20.0, 30.0, 40.0])).expect("both custom");
    assert!(outcome.bounds_reconciled);
    assert_eq!(h.test_expression(), "{{schema:-53 count:110 custom_values:[2 5] buckets:[13 53 44]}}");
    let outcome = h.sub(&h.clone()).expect("both custom");
    assert!(!outcome.bounds_reconciled);
    assert_eq!(h.positive_buckets, [0.0, 0.0, 0.0]);
}

#[test]
fn hints_collide_only_between_reset_and_no_reset() {
    use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
    for (a, b, expect, collision) in [
        (Unknown, Unknown, Unknown, false),
        (CounterReset, NotCounterReset, Unknown, true),
        (NotCounterReset, CounterReset, Unknown, true),
        (CounterReset, Gauge, Gauge, false),
        (Gauge, Unknown, Gauge, false),
        (NotCounterReset, Unknown, Unknown, false),
        (CounterReset, CounterReset, CounterReset, false),
    ] {
        let with = |hint| FloatHistogram { counter_reset_hint: hint, ..exponential(0, 0, &[1.0]) };
        let mut h = with(a);
        let outcome = h.add(&with(b)).expect("same schema");
        assert_eq!((h.counter_reset_hint, outcome.counter_reset_collision), (expect, collision));
    }
}

#[test]
fn factors() {
    let mut h = FloatHistogram { sum: 3.0, zero_count: 1.0, ..exponential(0, 0, &[1.0, 2.0]) };
    h.mul(-2.0);
    assert_eq!(
        h.test_expression(),
        "{{count:-6 sum:-6 z_bucket:-2 counter_reset_hint:gauge buckets:[-2 -4]}}"
    );
    h.div(-2.0);
    assert_eq!((h.sum, &h.positive_buckets[..]), (3.0, &[1.0, 2.0][..]));
    h.div(0.0);
    assert!(h.sum.is_infinite() && h.positive_spans.is_empty() && h.has_overflow());
}

#[test]
fn resets() {
    let base =
        FloatHistogram { zero_count: 1.0, zero_threshold: 0.001, ..exponential(1, 0, &[1.0, 0.0, 2.0]) };
    let reset = |change: &dyn Fn(&mut FloatHistogram)| {
        let mut now = base.clone();
        change(&mut now);
        now.detect_reset(&base)
    };
    assert!(!reset(&|_| {}));
    assert!(!reset(&|h| h.mul(2.0)));
    assert!(reset(&|h| h.count = 1.0));
    assert!(reset(&|h| h.zero_count = 0.0));
    assert!(reset(&|h| h.positive_buckets[2] = 1.0));
    assert!(reset(&|h| h.schema = 2));
    assert!(reset(&|h| h.zero_threshold = 0.0));
    assert!(reset(&|h| h.zero_threshold = 0.8));
    assert!(reset(&|h| h.positive_spans[0].length = 2));
    assert!(reset(&|h| h.counter_reset_hint = CounterResetHint::CounterReset));
    assert!(!reset(&|h| (h.counter_reset_hint, h.count) = (CounterResetHint::NotCounterReset, 0.0)));
    assert!(!reset(&|h| h.reduce_resolution(0).expect("lower")));
    assert!(!reset(&|h| {
        (h.zero_threshold, h.zero_count) = (1.0, 2.0);
        h.positive_buckets[0] = 0.0;
    }));
    let before = custom(&[1.0, 2.0], &[1.0, 1.0, 1.0]);
    assert!(!custom(&[2.0], &[2.0, 1.0]).detect_reset(&before));
    assert!(custom(&[2.0], &[1.0, 3.0]).detect_reset(&before));
    assert!(custom(&[2.0], &[2.0, 1.0]).detect_reset(&exponential(0, 0, &[1.0])));
}

#[test]
fn trimming_interpolates() {
    let mut h = FloatHistogram { sum: 100.0, ..exponential(0, 1, &[4.0, 8.0]) };
    h.trim(4.0, Keep::Below);
    assert_eq!(h.sum, 100.0, "nothing was cut off");
    h.trim(8.0_f64.sqrt(), Keep::Below);
    assert_eq!(h.count.round(), 8.0);
    let mut h = custom(&[10.0, 20.0], &[4.0, 8.0, 2.0]);
    h.trim(15.0, Keep::Above);
    assert_eq!(
        h.test_expression(),
        "{{schema:-53 count:6 sum:110 custom_values:[10 20] offset:1 buckets:[4 2]}}"
    );
    let mut h =
        FloatHistogram { zero_count: 4.0, zero_threshold: 1.0, count: 4.0, ..FloatHistogram::default() };
    h.trim(0.5, Keep::Above);
    assert_eq!((h.count, h.sum), (1.0, 0.75));
}

#[test]
fn validation_names_what_is_wrong() {
    let ok = FloatHistogram { zero_count: 1.0, ..exponential(3, -5, &[1.0, 0.5]) };
    assert_eq!(ok.validate(), Ok(()));
    assert_eq!(custom(&[1.0, 2.0], &[1.0, 1.0, 1.0]).validate(), Ok(()));
    let err = |change: &dyn Fn(&mut FloatHistogram)| {
        let mut h = ok.clone();
        change(&mut h);
        h.validate().expect_err("invalid").to_string()
    };
    assert!(err(&|h| h.schema = 9).contains("invalid schema"));
    assert!(err(&|h| h.count = -1.0).contains("observation count is negative"));
    assert!(err(&|h| h.positive_buckets[1] = -1.0).starts_with("positive side: bucket number 2"));
    assert!(err(&|h| h.positive_buckets.truncate(1)).contains("need 2 buckets, have 1"));
    assert!(
        err(&|h| h.negative_spans = vec![Span::default(), Span { offset: -1, length: 0 }])
            .contains("span number 2")
    );
    assert!(err(&|h| h.custom_values = vec![1.0]).contains("custom bounds"));
    for (bounds, word) in [
        (&[2.0, 1.0][..], "increasing"),
        (&[f64::NAN], "NaN"),
        (&[f64::INFINITY], "finite"),
        (&[], "insufficient"),
    ] {
        let text = custom(bounds, &[1.0, 1.0]).validate().expect_err("invalid").to_string();
        assert!(text.contains(word), "{text}");
    }
    let int = Histogram {
        count: 6,
        zero_count: 1,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![2, 1],
        ..Histogram::default()
    };
    assert_eq!(int.validate(), Ok(()));
    assert!(Histogram { count: 7, ..int.clone() }.validate().is_err());
    assert_eq!(Histogram { count: 7, sum: f64::NAN, ..int.clone() }.validate(), Ok(()));
    assert!(Histogram { count: 5, sum: f64::NAN, ..int }.validate().is_err());
}

#[test]
fn floats_print_as_go_prints_them() {
    for (v, text) in [
        (0.0, "0"),
        (-1.5, "-1.5"),
        (123_456.0, "123456"),
        (1_234_567.0, "1.234567e+06"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (0.000_012, "1.2e-05"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(display::GoFloat(v).to_string(), text);
    }
}

// === Against a model ===

/// Buckets by index, without empty ones.
type Model = BTreeMap<i32, i64>;

fn model(spans: &[Span], buckets: &[f64]) -> Model {
    buckets::Cells::new(spans, buckets).filter(|(_, c)| *c != 0.0).map(|(i, c)| (i, c as i64)).collect()
}

fn coarser(m: &Model, by: i32) -> Model {
    let mut out = Model::new();
    for (i, c) in m {
        *out.entry(((i - 1) >> by) + 1).or_default() += c;
    }
    out.retain(|_, c| *c != 0);
    out
}

fn plus(a: &Model, b: &Model, sign: i64) -> Model {
    let mut out = a.clone();
    for (i, c) in b {
        *out.entry(*i).or_default() += sign * c;
    }
    out.retain(|_, c| *c != 0);
    out
}

fn any_side() -> impl Strategy<Value = (Vec<Span>, Vec<f64>)> {
    proptest::collection::vec((0..4_i32, 0..4_usize), 0..5).prop_flat_map(|shape| {
        let total: usize = shape.iter().map(|(_, n)| n).sum();
        let spans: Vec<_> = shape
            .iter()
            .enumerate()
            .map(|(i, (gap, n))| Span { offset: if i == 0 { gap - 6 } else { *gap }, length: *n as u32 })
            .collect();
        (Just(spans), proptest::collection::vec((0..5_u8).prop_map(f64::from), total))
    })
}

prop_compose! {
    fn any_histogram()(
        schema in -1..3_i32, positive in any_side(), negative in any_side(),
    ) -> FloatHistogram {
        FloatHistogram {
            schema,
            positive_spans: positive.0,
            positive_buckets: positive.1,
            negative_spans: negative.0,
            negative_buckets: negative.1,
            ..FloatHistogram::default()
        }
    }
}

proptest! {
    #[test]
    fn compaction_keeps_what_a_histogram_says(h in any_histogram(), max_empty in 0..4_usize) {
        let mut compacted = h.clone();
        compacted.compact(max_empty);
        prop_assert_eq!(compacted.validate(), Ok(()));
        for (a, b) in [
            (model(&h.positive_spans, &h.positive_buckets), model(&compacted.positive_spans, &compacted.positive_buckets)),
            (model(&h.negative_spans, &h.negative_buckets), model(&compacted.negative_spans, &compacted.negative_buckets)),
        ] {
            prop_assert_eq!(a, b);
        }
        if max_empty == 0 {
            prop_assert!(!compacted.positive_buckets.contains(&0.0));
        }
        let again = { let mut h = compacted.clone(); h.compact(max_empty); h };
        prop_assert_eq!(again, compacted);
    }

    #[test]
    fn sums_are_those_of_the_buckets(a in any_histogram(), b in any_histogram()) {
        let schema = a.schema.min(b.schema);
        let expect = |sign| {
            let side = |h: &FloatHistogram, s: &[Span], v: &[f64]| coarser(&model(s, v), h.schema - schema);
            (
                plus(&side(&a, &a.positive_spans, &a.positive_buckets), &side(&b, &b.positive_spans, &b.positive_buckets), sign),
                plus(&side(&a, &a.negative_spans, &a.negative_buckets), &side(&b, &b.negative_spans, &b.negative_buckets), sign),
            )
        };
        let got = |h: &FloatHistogram| (model(&h.positive_spans, &h.positive_buckets), model(&h.negative_spans, &h.negative_buckets));
        let mut sum = a.clone();
        sum.add(&b).expect("both exponential");
        prop_assert_eq!(got(&sum), expect(1));
        let mut difference = a.clone();
        difference.sub(&b).expect("both exponential");
        prop_assert_eq!(got(&difference), expect(-1));
        let mut kahan = a.clone();
        let mut c = None;
        kahan.kahan_add(&b, &mut c).expect("both exponential");
        kahan.kahan_add(&a, &mut c).expect("both exponential");
        let c = c.expect("made");
        prop_assert_eq!((&c.positive_spans, c.negative_buckets.len()), (&kahan.positive_spans, kahan.negative_buckets.len()));
        sum.add(&a).expect("both exponential");
        prop_assert_eq!(got(&kahan), got(&sum));
        prop_assert!(!sum.detect_reset(&a) || a.zero_threshold != 0.0);
    }

    #[test]
    fn zero_buckets_take_in_what_they_cover(h in any_histogram(), threshold in 0.0..4.0_f64) {
        let mut sum = h.clone();
        let other = FloatHistogram { schema: 8, zero_threshold: threshold, ..FloatHistogram::default() };
        let mut kahan = h.clone();
        let mut c = None;
        sum.add(&other).expect("both exponential");
        kahan.kahan_add(&other, &mut c).expect("both exponential");
        let total = |h: &FloatHistogram| h.zero_count + h.positive_buckets.iter().chain(&h.negative_buckets).sum::<f64>();
        prop_assert_eq!(total(&sum), total(&h));
        prop_assert!(sum.zero_threshold >= threshold);
        prop_assert!(sum.positive().chain(sum.negative()).all(|b| b.count == 0.0 || b.lower.abs().min(b.upper.abs()) >= sum.zero_threshold));
        prop_assert_eq!(kahan, sum);
    }

    #[test]
    fn trims_never_add(h in any_histogram(), at in -8.0..8.0_f64) {
        let total = |h: &FloatHistogram| h.positive_buckets.iter().chain(&h.negative_buckets).sum::<f64>();
        for keep in [Keep::Below, Keep::Above] {
            let mut trimmed = h.clone();
            trimmed.trim(at, keep);
            prop_assert!(total(&trimmed) <= total(&h));
        }
    }
}
