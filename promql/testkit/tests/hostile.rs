//! Nothing a text says makes the parser, the script reader or the engine panic or hang. Texts are mutations of known ones
//! and bombs; `fuzz/` goes on from here.

use promql_testkit::hostile::{Mutator, check_eval, check_parser, check_script, vocabulary};

const QUERIES: [&str; 24] = [
    "a",
    "a{x=\"1\", y!~\"a|b\"} offset 5m @ 100",
    "{__name__=~\"a|b\", x!=\"\"}",
    "rate(a[5m])",
    "sum by (x) (rate(a[5m] offset -1m)) / on (x) group_left (y) a",
    "histogram_quantile(0.9, sum by (le) (rate(c_bucket[5m])))",
    "max_over_time(rate(a[5m])[10m:1m] @ end())",
    "topk(3, a) or bottomk(1, b) unless a",
    "count_values(\"v\", b)",
    "label_replace(a, \"z\", \"$1\", \"x\", \"(.*)\")",
    "label_join(a, \"z\", \"-\", \"x\", \"y\")",
    "histogram_quantile(0.5, h) + histogram_avg(h)",
    "h * 2 - h",
    "h </ 3",
    "-a ^ 2 % 3 atan2 b",
    "a > bool 1",
    "quantile_over_time(0.5, a[10m])",
    "absent(nothing{x=\"1\"})",
    "info(a)",
    "delta(a[5m] smoothed) + increase(a[5m] anchored)",
    "a + fill_left(1) fill_right(2) b",
    "a[5m * 2 + step()] offset (1m ^ 2)",
    "vector(time()) + scalar(a{x=\"1\"})",
    "\"text \\u00e9 \\xff\"",
];

const SCRIPT: &str = r#"
load 1m
  a{x="1"} 0+1x10 _x3 stale 5
  a{x="2"}@st -1m _x4 -30s-1mx2
  a{x="2"} 1 2 3 4 5 6 7
  h {{schema:0 sum:1 count:2 buckets:[1 1]}}+{{sum:1 count:1 buckets:[1]}}x5

load_with_nhcb 30s
  c_bucket{le="1"} 0+1x10
  c_bucket{le="+Inf"} 0+2x10

eval instant at 5m sum by (x) (a)
  expect no_warn
  {x="1"} 5
  {x="2"} 6

eval range from 0 to 10m step 1m rate(a[2m])
  expect ordered
  expect warn regex: .*
  {x="1"} 1 2 3

clear
eval_fail instant at 1h30m a[5m
  expected_fail_message x

eval instant at 1m 1
  1

eval instant at 1m "x"
  expect string "x"
"#;

fn queries() -> Vec<String> {
    QUERIES.map(str::to_owned).to_vec()
}

/// Runs `check` on `count` mutations; a panic names the text.
fn mutate(seed: u64, count: usize, seeds: &[String], check: impl Fn(&str)) {
    let mut mutator = Mutator::new(seed);
    seeds.iter().for_each(|s| check(s));
    (0..count).for_each(|_| check(&mutator.text(seeds)));
}

#[test]
fn mutated_queries_are_parsed_or_refused() {
    mutate(1, 20_000, &queries(), check_parser);
}

#[test]
fn mutated_scripts_are_run_or_refused() {
    mutate(2, 1_500, &[SCRIPT.to_owned()], check_script);
}

#[test]
fn mutated_queries_are_answered_or_refused() {
    mutate(3, 6_000, &queries(), check_eval);
}

/// Texts that are small to write and big to answer, or deep.
fn bombs() -> Vec<String> {
    let nest = |open: &str, inner: &str, close: &str, n: usize| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let mut out = Vec::new();
    for n in [900, 10_000] {
        out.extend([
            nest("(", "a", ")", n),
            nest("-", "a", "", n),
            nest("a[", "1m", "]", n),
            nest("", "a", "[1m:1m]", n),
            nest("max_over_time(", "a", "[1m:1s])", n),
            nest("a[", "1", "+1]", n),
            nest("a[1", "", "+1", n) + "]",
            nest("a offset ", "1", "", 1) + &"-".repeat(n),
            nest("a offset (", "1", ")", n),
            nest("{", "x", "}", n),
            nest("\"", "x", "\"", n),
            nest("a+", "a", "", n),
            nest("a or ", "a", "", n),
            nest("2^", "2", "", n),
            nest("sum(", "a", ")", n),
            nest("abs(", "a", ")", n),
            nest("a{x=~\"", "(", "\"}", 1) + &"(".repeat(n),
            format!("a{{x=~\"{}\"}}", nest("(", "x", ")*", n)),
            format!("a{{x=~\"{}\"}}", "(x|y)*".repeat(n)),
        ]);
    }
    let million = |unit: &str| unit.repeat((1 << 20) / unit.len() - 1);
    out.extend([
        million("a+") + "a",
        million("("),
        million("a "),
        million("\""),
        million("{a=\"b\"}"),
        million("é"),
        million("#\n"),
    ]);
    out.extend([
        format!("\"{}\"", million("\\x41")),
        format!("a{{x=\"{}\"}}", million("x")),
        million("a{x=\"1\"} or ") + "a",
    ]);
    out.extend([
        format!("{{{}}}", million("x=\"1\",")),
        format!("sum by ({}) (a)", million("x,")),
        "9".repeat(100_000),
    ]);
    out.extend(
        [
            "a{x=~\"(((((x{100}){100}){100}){100}){100}){100}\"}",
            "a{x=~\"((((((.*)*)*)*)*)*)*y\"}",
            "a{x=~\"(x+x+)+y\", y=~\"(.*a){200}\"}",
            "label_replace(a, \"z\", \"$1\", \"x\", \"((a{1000}){1000}){1000}\")",
            "topk(1e18, a)",
            "bottomk(1e308, a)",
            "limitk(9223372036854775807, a)",
            "limit_ratio(1e308, a)",
            "quantile(1e308, a)",
            "topk(NaN, a)",
            "quantile_over_time(-1e308, a[1h])",
            "a[9223372036854775807]",
            "a[1e300]",
            "a[292y]",
            "a offset -292y",
            "a offset 292y @ 9e15",
            "a @ -9e15 offset 292y",
            "rate(a[292y] @ 9e15 offset -292y)",
            "count_over_time(a[1y:1ms])",
            "max_over_time(a[292y:1ms])",
            "max_over_time(max_over_time(max_over_time(a[1y:1s])[1y:1s])[1y:1s])",
            "max_over_time(a[5m:1ms] offset 292y)",
            "max_over_time(max_over_time(a[1m:1m] offset 290y)[1m:1m] offset 290y)",
            "info(max_over_time(max_over_time(a[1m:1m] offset 290y)[1m:1m] offset 290y))",
            "sum_over_time(vector(1)[100y:1s])",
            "round(a, 1e-320)",
            "round(a, 1e308)",
            "days_in_month(vector(1e300))",
            "year(vector(-1e300))",
            "predict_linear(a[5m], 1e300)",
            "double_exponential_smoothing(a[5m], 0.5, 0.5)",
            "histogram_quantile(1e300, h) + histogram_fraction(-Inf, Inf, h)",
            "h * 1e308 * 1e308",
            "a[max_of(292y, 292y) * 1000]",
            "a[2 ^ 1000]",
            "a offset (0 - 2 ^ 63)",
            "a[1 / (1 - 1)]",
            "a[1 % (1 - 1)]",
        ]
        .map(str::to_owned),
    );
    out
}

#[test]
fn bombs_are_answered_or_refused_soon() {
    for bomb in bombs() {
        check_parser(&bomb);
        check_eval(&bomb);
        check_script(&format!("load 1m\n  a 1x10\n\neval instant at 5m {bomb}\n"));
    }
}

#[test]
fn scripts_cannot_ask_for_endless_data() {
    for row in ["a 1x1000000", "a 1x999999", "a _x999999", "a@st -1mx999999", "a {{}}x999999"] {
        check_script(&format!("load 1m\n  {}", format!("{row}\n  ").repeat(300)));
    }
    for histogram in
        ["schema:-532 sum:1 custom_values:[1]", "offset:2147483647 buckets:[1 1]", "schema:-53 n_buckets:[1]"]
    {
        check_script(&format!(
            "load 1m\n  a {{{{{histogram}}}}}x3\n\neval instant at 1m histogram_quantile(1, a)"
        ));
    }
    for head in
        ["load 292y\n a 1x1000", "eval range from 0 to 292y step 1ms a", "eval instant at 292y a @ end()"]
    {
        check_script(head);
    }
}

#[test]
fn every_word_is_known_to_the_mutator() {
    let words = vocabulary();
    assert!(["rate", "topk", "and", "offset"].iter().all(|w| words.contains(w)));
}
