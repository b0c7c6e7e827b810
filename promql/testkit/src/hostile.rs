//! What must hold for any text at all, however hostile: nothing here panics, takes long or eats memory.
//!
//! [`check_parser`], [`check_script`] and [`check_eval`] are the properties; a fuzzer calls them with whatever it likes
//! (`fuzz/`), the tests of this crate with what [`Mutator`] makes of known texts. They panic when a property is broken, and
//! name the text. Meaning is not judged here: the conformance scripts do that.

use std::sync::OnceLock;
use std::time::Duration;

use model::clock::SystemClock;
use model::rng::Rng;
use model::{Clock, Labels, Matcher};
use promql::parser::{Expr, ParserOptions, parse, pretty};
use promql::{Engine, EngineConfig, PointValue, QueryError, QueryOptions, Value};

use crate::{MemoryTestStorage, TestStorage, engine_config, notation, script};

/// How long one query may take.
const QUERY_TIMEOUT: Duration = Duration::from_millis(500);
/// How long it takes at most until a query notices that its time is over, on a slow machine and in an unoptimised build.
const PATIENCE: Duration = Duration::from_secs(8);

// === Parser ===

/// What the parser accepts prints as a text, on one line and on several, that means the same.
///
/// # Panics
/// When it does not.
pub fn check_parser(text: &str) {
    let all = ParserOptions::all();
    // Switches only refuse; whatever a plain engine accepts is an expression.
    if parse(text, &ParserOptions { duration_expressions: false, ..ParserOptions::default() }).is_ok() {
        assert!(parse(text, &all).is_ok(), "switches make an error of {text:?}");
    }
    if let Ok(matchers) = promql::parser::parse_selector(text) {
        check_selector(text, &matchers);
    }
    let Ok(expr) = parse(text, &all) else {
        return;
    };
    check_spans(text, &expr);
    // The text that a tree prints as may be longer than the one it was read from.
    let room = ParserOptions { max_query_bytes: usize::MAX, ..all };
    let same = |printed: &str, how: &str| match parse(printed, &room) {
        Ok(again) => {
            let equal = again == expr || bare(again) == bare(expr.clone());
            assert!(equal, "{text:?} {how} {printed:?}, which means something else");
        }
        Err(e) => panic!("{text:?} {how} {printed:?}: {e}"),
    };
    let printed = expr.to_string();
    same(&printed, "prints as");
    same(&pretty(&expr), "is laid out as");
    assert!(expr.clone() == expr, "{text:?} has a clone that differs");
}

/// The tree without parentheses around selectors and subqueries, which mean nothing: printing adds some where an offset
/// would take the operator after it.
fn bare(mut expr: Expr) -> Expr {
    if let Expr::Paren(p) = &expr
        && matches!(p.expr, Expr::Vector(_) | Expr::Matrix(_) | Expr::Subquery(_))
    {
        expr = p.expr.clone();
    }
    expr.for_each_child_mut(|e| *e = bare(e.clone()));
    expr
}

fn check_selector(text: &str, matchers: &[Matcher]) {
    let list: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    let printed = format!("{{{}}}", list.join(","));
    let again =
        promql::parser::parse_selector(&printed).unwrap_or_else(|e| panic!("{text:?} as {printed:?}: {e}"));
    let again: Vec<String> = again.iter().map(ToString::to_string).collect();
    assert_eq!(list, again, "{text:?}");
}

/// Spans lie within the text, on the borders of characters, and within their parents.
fn check_spans(text: &str, expr: &Expr) {
    expr.walk(|e| {
        let span = e.span();
        let (start, end) = (span.start as usize, span.end as usize);
        assert!(text.get(start..end).is_some(), "{text:?} has no part {start}..{end}");
        e.for_each_child(|c| {
            let inner = c.span();
            assert!(span.start <= inner.start && inner.end <= span.end, "{text:?}: {c} is outside of {e}");
        });
    });
}

// === Scripts ===

/// A script is read and run, or refused; series rows print as rows that mean the same.
///
/// # Panics
/// When it is neither.
pub fn check_script(text: &str) {
    for line in text.lines().take(50) {
        if let Ok((labels, values)) = notation::parse_series(line) {
            assert!(values.len() <= line.len().max(notation::VALUES_MAX) + 1, "{line:?} is too long");
            let again = notation::parse_series(&labels.to_string());
            assert_eq!(again.map(|(l, _)| l), Ok(labels), "{line:?}");
        }
    }
    let commands = script::parse(text);
    assert!(commands.len() <= text.lines().count());
    let clock = SystemClock::new();
    let config = EngineConfig { timeout: QUERY_TIMEOUT, worker_threads: 1, ..engine_config() };
    let engine = Engine::new(config, SystemClock::shared(), &prometheus::Registry::new());
    let mut new_storage = || Box::new(MemoryTestStorage::new()) as Box<dyn TestStorage>;
    let mut evals_max = 2;
    let commands = commands.into_iter().filter(|c| {
        let is_eval = matches!(c.command, Ok(script::Command::Eval(_)));
        evals_max -= usize::from(is_eval && evals_max > 0);
        !is_eval || evals_max > 0
    });
    let report = crate::run_commands("script", commands, &engine, &mut new_storage);
    assert!(report.passed <= text.lines().count());
    assert!(clock.monotonic() < PATIENCE * 2, "{text:?} took {:?}", clock.monotonic());
}

// === Evaluation ===

/// A query on a small store answers or fails in time, and the same whether plans are improved or not, and whether it is
/// asked as an instant query or as a range of one step.
///
/// # Panics
/// When it does not.
pub fn check_eval(text: &str) {
    static ENGINES: OnceLock<[Engine; 2]> = OnceLock::new();
    static STORE: OnceLock<MemoryTestStorage> = OnceLock::new();
    let engines = ENGINES.get_or_init(|| [true, false].map(engine));
    let store = STORE.get_or_init(small_store);
    let [improved, plain] = engines;
    let at = 1_501_000;
    let instant = timed(text, || improved.instant(store, text, at, &QueryOptions::default()));
    if matches!(instant, Err(QueryError::Parse(_))) {
        return;
    }
    let options = QueryOptions::default();
    let span = (1_000, 3_000_000, 97_000);
    let range = timed(text, || improved.range(store, text, span.0, span.1, span.2, &options));
    if matches!(range, Err(QueryError::Timeout(_))) || matches!(instant, Err(QueryError::Timeout(_))) {
        return;
    }
    if let (Ok(a), Ok(b)) =
        (&range, timed(text, || plain.range(store, text, span.0, span.1, span.2, &options)))
    {
        assert!(same_value(&a.value, &b.value), "{text:?} improved: {:?}\nplain: {:?}", a.value, b.value);
        assert_eq!(a.annotations, b.annotations, "{text:?}");
    }
    // These see the bounds of the query.
    if ["start", "end", "range", "step"].iter().any(|word| text.to_ascii_lowercase().contains(word)) {
        return;
    }
    if let (Ok(a), Ok(b)) = (&instant, timed(text, || improved.range(store, text, at, at, 1_000, &options))) {
        let b = crate::compare::at_step(&b.value, at, matches!(a.value, Value::Scalar { .. }));
        assert!(same_instant(&a.value, &b), "{text:?} instant: {:?}\nrange: {b:?}", a.value);
    }
}

fn engine(optimize: bool) -> Engine {
    let config = EngineConfig {
        timeout: QUERY_TIMEOUT,
        max_samples: 20_000,
        worker_threads: if optimize { 2 } else { 1 },
        optimize,
        ..engine_config()
    };
    Engine::new(config, SystemClock::shared(), &prometheus::Registry::new())
}

fn timed<T>(text: &str, work: impl FnOnce() -> Result<T, QueryError>) -> Result<T, QueryError> {
    let clock = SystemClock::new();
    let out = work();
    assert!(clock.monotonic() < PATIENCE, "{text:?} took {:?}", clock.monotonic());
    if let Err(e) = &out {
        // The engine turns a panic into an error.
        assert!(!e.to_string().contains("unexpected error"), "{text:?}: {e}");
    }
    out
}

/// A few series of every kind, fifty minutes long.
fn small_store() -> MemoryTestStorage {
    const ROWS: &str = r#"
load 30s
  a{x="1", y="a"} 0+3x40 5+2x59
  a{x="2", y="b"} 1x20 _x5 stale 3-0.1x70
  b{x="1"} NaN 1 Inf -Inf 0 -0 1e300 -1e-300x3 0+0.1x80
  b{x="2", le="0.5"} 0+1x100
  c_bucket{le="0.1"} 0+1x100
  c_bucket{le="1"} 0+3x100
  c_bucket{le="+Inf"} 0+4x100
  h{x="1"} {{schema:0 sum:5 count:7 buckets:[1 2 3] offset:-1}}+{{schema:0 sum:2 count:3 buckets:[1 0 2] offset:-1}}x50 {{sum:1 count:1 buckets:[1]}}x40
  h{x="2"} {{schema:-53 sum:5 count:7 custom_values:[1 2] buckets:[1 2 4]}}x30 1 2 {{schema:3 sum:-5 count:7 z_bucket:2 z_bucket_w:0.1 n_buckets:[2 3]}}x60
  target_info{x="1", z="info"} 1x100
"#;
    let mut store = MemoryTestStorage::new();
    for located in script::parse(ROWS) {
        if let Ok(script::Command::Load(load)) = located.command {
            let series = crate::load_series(&load).expect("the rows are well-formed");
            store.load(&series).expect("the store in memory takes all");
        }
    }
    store
}

/// Equal up to the order of series, which nothing promises but for sorting functions.
fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Scalar { value: a, .. }, Value::Scalar { value: b, .. }) => same_number(*a, *b),
        (Value::Matrix(a), Value::Matrix(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    let same = |(a, b): (&(i64, f64), &(i64, f64))| a.0 == b.0 && same_number(a.1, b.1);
                    a.labels == b.labels
                        && a.floats.len() == b.floats.len()
                        && a.floats.iter().zip(&b.floats).all(same)
                        && a.histograms.len() == b.histograms.len()
                })
        }
        (a, b) => a.result_type() == b.result_type(),
    }
}

fn same_instant(a: &Value, b: &Value) -> bool {
    fn rows(v: &Value) -> Option<Vec<(&Labels, Option<f64>)>> {
        let Value::Vector(v) = v else { return None };
        let value = |p: &PointValue| match p {
            PointValue::Float(f) => Some(*f),
            PointValue::Histogram(_) => None,
        };
        let mut rows: Vec<_> = v.iter().map(|s| (&s.labels, value(&s.value))).collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        Some(rows)
    }
    match (rows(a), rows(b)) {
        (Some(a), Some(b)) => {
            let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => same_number(a, b),
                (a, b) => a.is_none() && b.is_none(),
            };
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
        }
        _ => match (a, b) {
            (Value::Scalar { value: a, .. }, Value::Scalar { value: b, .. }) => same_number(*a, *b),
            // A matrix or a string is no answer to a range query.
            _ => true,
        },
    }
}

fn same_number(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

// === Mutations ===

/// Words that occur in queries and scripts, for fuzzers and for [`Mutator`].
#[must_use]
pub fn vocabulary() -> Vec<&'static str> {
    use promql::parser::functions::FUNCTIONS;
    use promql::parser::operators::{AggregateOp, BinaryOp};
    let mut words: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).collect();
    words.extend(AggregateOp::ALL.iter().map(|op| op.as_str()));
    words.extend(BinaryOp::ALL.iter().map(|op| op.as_str()));
    words.extend(WORDS);
    words
}

#[rustfmt::skip]
const WORDS: [&str; 97] = [
    "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "@", "start()", "end()",
    "anchored", "smoothed", "fill", "fill_left", "fill_right", "(", ")", "{", "}", "[", "]", ",", ":", "\"", "'", "`",
    "=", "=~", "!~", "[5m]", "[1h:1m]", "[:]", "[0]", "{}", "{__name__=~\".+\"}", "a", "b", "c_bucket", "h", "le",
    "x=\"1\"", "\"\\xff\"", "\"\\u00e9\"", "é", "\u{0}", "#", "\n", " ", "1", "-1", "0", "-0", "1e308", "1e-320", "1e1000",
    "0x7fffffffffffffff", "0x1p3", "1_000", ".5", "5.", "Inf", "NaN", "5m", "1d2h3m4s5ms", "292y", "9999999999d",
    "9223372036854775807", "18446744073709551616", "@ 1e18", "@ -1e18", "offset -292y", "offset 292y", "offset (1m)",
    "[step()]", "min_of(1m, 2m)", "1ms", "$1", "(.*)", "(a|b)*", "((a*)*)*b", "a{1000}{1000}",
    "load 1m\n", "load_with_nhcb 30s\n", "clear\n", "eval instant at 5m ", "eval range from 0 to 10m step 30s ",
    "expect fail", "expect warn", "expect ordered", "_x5", "stale", "1+2x5", "x1000000",
    "{{schema:0 sum:1 count:2 buckets:[1 1]}}", "@st -1m", "schema:-53",
];

/// Makes new texts of known ones: cuts, repeats, crosses, nests, puts in words. Deterministic for a seed.
pub struct Mutator {
    rng: Rng,
    words: Vec<&'static str>,
}

impl Mutator {
    /// A mutator whose texts follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), words: vocabulary() }
    }

    /// A position between two characters of `text`.
    fn position(&mut self, text: &str) -> usize {
        let at = self.rng.index(text.len() + 1);
        text.floor_char_boundary(at)
    }

    fn word(&mut self) -> &'static str {
        let i = self.rng.index(self.words.len());
        self.words[i]
    }

    /// A text made of one of `seeds`, of at most about 2 KiB.
    pub fn text(&mut self, seeds: &[String]) -> String {
        let pick = |m: &mut Self| {
            let i = m.rng.index(seeds.len());
            seeds.get(i).cloned().unwrap_or_default()
        };
        let mut text = pick(self);
        for _ in 0..=self.rng.index(5) {
            let other = pick(self);
            text = self.mutated(&text, &other);
            text.truncate(text.floor_char_boundary(2_048));
        }
        text
    }

    fn mutated(&mut self, text: &str, other: &str) -> String {
        let (mut a, mut b) = (self.position(text), self.position(text));
        if a > b {
            std::mem::swap(&mut a, &mut b);
        }
        let (before, middle, after) = (&text[..a], &text[a..b], &text[b..]);
        match self.rng.index(8) {
            0 => format!("{before}{after}"),
            1 => format!("{before}{middle}{middle}{after}"),
            2 => format!("{before}{}{middle}{after}", self.word()),
            3 => format!("{before} {} {after}", self.word()),
            4 => {
                let cut = self.position(other);
                format!("{before}{}", &other[cut..])
            }
            5 => format!("{before}({middle}){after}"),
            6 => {
                let c = char::from_u32(self.rng.index(0x250) as u32).unwrap_or('\u{fffd}');
                format!("{before}{c}{after}")
            }
            _ => {
                let word = self.word();
                format!("{before}{}{middle}{after}", word.repeat(1 + self.rng.index(30)))
            }
        }
    }
}
