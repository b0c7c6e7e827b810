//! Corners of the language that a reader of the documentation would not guess: what Prometheus 3.14 answers there.
//!
//! Scripts of our own, each run on the plain store in memory.

use promql_testkit::{MemoryTestStorage, run_file};

fn passes(script: &str) {
    let report = run_file("semantics", script, &mut || Box::new(MemoryTestStorage::new()));
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(report.passed > 0, "no eval was run");
}

/// Rows with equal labels and samples at different steps are one series to functions over windows.
#[test]
fn a_subquery_sees_whole_series() {
    passes(
        r#"
load 1m
  m{a="1"} 1 7 2 8 3 9 4

eval instant at 6m count_over_time((m > 5 or m)[5m:1m])
  {a="1"} 5

eval instant at 6m max_over_time((m > 5 or m)[5m:1m])
  {a="1"} 9

eval instant at 6m count_over_time(label_replace(m > 5 or m, "b", "x", "", "")[5m:1m])
  {a="1", b="x"} 5

eval instant at 6m last_over_time((m > 5 or m)[5m:1m])
  m{a="1"} 4
"#,
    );
}

/// Of equal values `topk` gives up the one that its heap has in front.
#[test]
fn ties_go_as_the_heap_has_them() {
    passes(
        r#"
load 1m
  m{a="1"} 1
  m{a="2"} 1
  m{a="3"} 5
  m{a="4"} NaN

eval instant at 0 topk(2, m)
  expect ordered
  m{a="3"} 5
  m{a="2"} 1

eval instant at 0 limitk(3, m)
  m{a="1"} 1
  m{a="2"} 1
  m{a="3"} 5

eval instant at 0 bottomk(3, m)
  expect ordered
  m{a="2"} 1
  m{a="1"} 1
  m{a="3"} 5

eval instant at 0 topk(9223372036854774784, m)
  expect fail msg: Scalar value 9.223372036854775e+18 overflows int64
"#,
    );
}

/// What nothing is picked of is evaluated all the same: its annotations and errors are told.
#[test]
fn nothing_picked_is_not_nothing_evaluated() {
    passes(
        r#"
load 1m
  h{a="1"} {{count:1 buckets:[1]}}
  m{a="1"} 1
  m{a="2"} 1

eval instant at 0 topk(0, min(h))
  expect info msg: PromQL info: ignored histogram in min aggregation (1:13)

eval instant at 0 limitk(NaN, m + on() m)
  expect fail msg: found duplicate series for the match group {} on the right hand-side of the operation: [{__name__="m", a="1"}, {__name__="m", a="2"}];many-to-many matching not allowed: matching labels must be unique on one side

eval instant at 0 limitk(NaN, m)
  expect fail msg: Parameter value is NaN
"#,
    );
}

/// An operator between vectors tells the last thing that went wrong at a step.
#[test]
fn operators_tell_the_last_thing() {
    passes(
        r#"
load 1m
  l{a="1"} {{count:1 buckets:[1]}}
  l{a="2"} 1
  r{a="1"} 2
  r{a="2"} {{count:1 buckets:[1]}}

eval instant at 0 l + r
  expect info msg: PromQL info: incompatible sample types encountered for binary operator "+": float + histogram (1:1)

eval instant at 0 2 </ l
  expect info msg: PromQL info: incompatible sample types encountered for binary operator "</": float </ float (1:1)
"#,
    );
}

/// A range that a subquery made has no place in the text.
#[test]
fn subqueries_have_no_position() {
    passes(
        r#"
load 1m
  m 1 2 3 4

eval range from 3m to 3m step 1m rate(m[2m:1m])
  expect info msg: PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "m" (1:1)
  {} 0.016666666666666666

eval range from 3m to 3m step 1m rate(m[2m])
  expect info msg: PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "m" (1:6)
  {} 0.016666666666666666
"#,
    );
}

/// Several quantiles of one classic histogram share its buckets, those mended for the first one included; over several
/// steps each one counts what was told before once more.
#[test]
fn quantiles_share_their_buckets() {
    passes(
        r#"
load 1m
  b{le="1"} 5x5
  b{le="2"} 3x5
  b{le="+Inf"} 9x5

eval range from 0 to 0 step 1m histogram_quantiles(b, "q", 0.5, 0.9)
  expect info msg: PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name "b", from buckets 2 to 2, with a max diff of 2, over 1 samples from 1970-01-01T00:00:00Z to 1970-01-01T00:00:00Z (1:21)
  {q="0.5"} 0.9
  {q="0.9"} 2

eval range from 0 to 4m step 1m histogram_quantile(0.5, b)
  expect info msg: PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name "b", from buckets 2 to 2, with a max diff of 2, over 46 samples from 1970-01-01T00:00:00Z to 1970-01-01T00:04:00Z (1:25)
  {} 0.9x4

eval range from 0 to 2m step 1m histogram_quantiles(b, "q", time() / 120)
  expect info regex: over 10 samples
  {q="0.0"} 0
  {q="0.5"} _ 0.9
  {q="1.0"} _ _ 2
"#,
    );
}

/// With NaN among the observations, the quantile is looked for in the last bucket, with the rank of the right one.
#[test]
fn quantiles_with_nan_observations() {
    passes(
        r#"
load 1m
  h {{schema:0 buckets:[0 2 3] count:7 sum:NaN}}
  e {{schema:-53 count:2 sum:NaN}}

eval instant at 0 histogram_quantile(0, h)
  expect info msg: PromQL info: input to histogram_quantile has NaN observations, result is skewed higher for metric name "h" (1:23)
  {} 2

eval instant at 0 histogram_quantile(0, e)
  expect info msg: PromQL info: input to histogram_quantile has NaN observations, result is skewed higher for metric name "e" (1:23)
  {} NaN

eval instant at 0 histogram_quantile(0.5, e)
  expect info msg: PromQL info: input to histogram_quantile has NaN observations, result is NaN for metric name "e" (1:25)
  {} NaN
"#,
    );
}

/// Natural order says nothing about empty texts; numbers that are no times have a calendar day.
#[test]
fn orders_and_days_of_the_impossible() {
    passes(
        r#"
load 1m
  m{a="10"} NaN
  m{a="9"} Inf
  m{a="9", b="x"} -1

eval instant at 0 sort_by_label(m, "a")
  expect ordered
  m{a="9"} Inf
  m{a="9", b="x"} -1
  m{a="10"} NaN

eval instant at 0 day_of_month(m)
  {a="10"} 4
  {a="9"} 4
  {a="9", b="x"} 31

eval instant at 0 floor(log10(vector(1e15)))
  {} 14

eval range from 0 to 30s step 1m sort(m)
  expect warn msg: PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)
  m{a="10"} NaN
  m{a="9"} Inf
  m{a="9", b="x"} -1
"#,
    );
}

/// A mix of schemas inside of a window is all that is told about it.
#[test]
fn a_mix_inside_hides_the_gauge() {
    passes(
        r#"
load 1m
  h_total {{schema:0 count:1 buckets:[1] counter_reset_hint:gauge}} {{schema:0 count:1 buckets:[1]}} {{schema:-53 count:1 buckets:[1]}} {{schema:0 count:1 buckets:[1]}}

eval instant at 3m rate(h_total[4m])
  expect warn msg: PromQL warning: vector contains a mix of histograms with exponential and custom buckets schemas for metric name "h_total" (1:6)
"#,
    );
}

/// A parameter that changes counts at the first step when what is aggregated does not change.
#[test]
fn what_is_pinned_is_aggregated_once() {
    passes(
        r#"
load 1m
  m{a="1"} 1 2 3
  m{a="2"} 2 3 4

eval range from 0 to 2m step 1m topk(1 + time() / 60, m @ 0)
  m{a="2"} 2 2 2

eval range from 0 to 2m step 1m quantile(time() / 120, m @ 60)
  {} 2 2 2
"#,
    );
}

/// The name of a result is dropped with type and unit; what falls together then is an error, also of `timestamp`.
#[test]
fn the_time_of_a_pinned_sample_knows_no_offset() {
    passes(
        r#"
load 1m
  m 1 2 3 4

eval instant at 3m timestamp(m @ 120)
  {} 120

eval range from 3m to 3m step 1m timestamp(m @ 120 offset -1m)
  {} 120
"#,
    );
}

/// A float that comes first leaves the histograms of its group alone.
#[test]
fn the_first_sample_decides_for_histograms() {
    passes(
        r#"
load 1m
  m{a="1"} 1
  m{a="2"} {{schema:-53 custom_values:[1] count:1 buckets:[1]}}
  m{a="3"} {{schema:-53 custom_values:[2] count:1 buckets:[1]}}

eval instant at 0 avg(m)
  expect warn msg: PromQL warning: encountered a mix of histograms and floats for aggregation (1:5)
  expect no_info
"#,
    );
}

/// Which labels `absent` knows depends on the order in which the index goes through matchers.
#[test]
fn absent_counts_matchers_that_need_the_label_first() {
    passes(
        r#"
load 1m
  m{a="1"} 1

eval instant at 0 absent(m{b!="x", b="y", c="z"})
  {c="z"} 1

eval instant at 0 absent_over_time(m{b!~"x", b="y", c!="q"}[1m])
  {} 1
"#,
    );
}

/// Twice the number would be too much; half the exponential is too much already.
#[test]
fn hyperbolic_functions_of_huge_numbers() {
    passes(
        r#"
eval instant at 0 round(acosh(vector(1.7e308)), 0.1)
  {} 710.4

eval instant at 0 round(asinh(vector(-1.7e308)), 0.1)
  {} -710.4

eval instant at 0 sinh(vector(710))
  {} +Inf
"#,
    );
}

/// A warning of a selector does not get lost with the series that the other side of an operator rules out.
#[test]
fn smoothed_selectors_are_read_whole() {
    passes(
        r#"
load 1m
  a{x="1"} 1
  b{x="2"} 1 {{schema:0 count:1 sum:1 buckets:[1]}}

eval instant at 30s a{x="1"} unless b smoothed
  expect warn
  a{x="1"} 1
"#,
    );
}

/// Without buckets a fall of one is not seen: the histogram between is a mix of both.
#[test]
fn a_smoothed_average_knows_no_buckets() {
    passes(
        r#"
load 2m
  h {{schema:0 count:2 sum:10 buckets:[2]}} {{schema:0 count:4 sum:60 buckets:[1 3] counter_reset_hint:gauge}}

eval instant at 1m histogram_avg(h smoothed)
  {} 11.666666666666666

eval instant at 1m histogram_avg(last_over_time((h smoothed)[1s:1s]))
  {} 15
"#,
    );
}

/// The selector of an `info` counts for the time range that is read: the window of its first argument may be shorter.
#[test]
fn info_is_looked_up_where_the_query_reads() {
    passes(
        r#"
load 1m
  m{job="a", instance="b"} _ _ _ 1 2
  target_info{job="a", instance="b", version="1"} 1

eval instant at 4m info(count_over_time(m[2m]), {__name__="target_info"})
  {job="a", instance="b", version="1"} 2
"#,
    );
}

/// A NaN among the counts of a classic histogram: the bucket is searched by halving.
#[test]
fn a_quantile_passes_a_bucket_of_nan() {
    passes(
        r#"
load 1m
  b{le="0.1"} 19
  b{le="0.5"} NaN
  b{le="+Inf"} 150

eval instant at 0 histogram_quantile(0.1, b)
  {} 0.5
"#,
    );
}
