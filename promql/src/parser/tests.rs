//! Tests of the whole parser: what is accepted and how it prints, limits. `tests/errors.rs` has what is refused and how,
//! `tests/round_trip.rs` random texts.

mod errors;
mod round_trip;

use super::ast::{MatchCardinality, Span, ValueType};
use super::*;

fn parsed(text: &str) -> Expr {
    parse(text, &ParserOptions::all()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The text is accepted, prints as expected, and what is printed parses to the same tree.
fn check(text: &str, printed: &str) {
    let expr = parsed(text);
    assert_eq!(expr.to_string(), printed, "{text}");
    assert_eq!(bare(parsed(printed)), bare(expr), "{text} printed as {printed}");
}

/// The tree without parentheses around selectors and subqueries. They mean nothing, and printing adds some.
fn bare(mut expr: Expr) -> Expr {
    if let Expr::Paren(p) = &expr
        && matches!(p.expr, Expr::Vector(_) | Expr::Matrix(_) | Expr::Subquery(_))
    {
        expr = p.expr.clone();
    }
    expr.for_each_child_mut(|e| *e = bare(e.clone()));
    expr
}

fn check_same(text: &str) {
    check(text, text);
}

fn check_error(text: &str, expect: &str) {
    match parse(text, &ParserOptions::all()) {
        Ok(e) => panic!("{text}: parsed as {e}"),
        Err(e) => assert_eq!(e.to_string(), expect, "{text}"),
    }
}

#[test]
fn literals() {
    check("0x1F", "31");
    check("017", "15");
    check("1_000.5e1", "10005");
    check("+Inf", "+Inf");
    check("-iNf", "-Inf");
    check("nan", "NaN");
    check("-0", "-0");
    check("90s", "1m30s");
    check("-5m", "-5m");
    check(r#"'a"\n'"#, r#""a\"\n""#);
    check("`a\\n`", r#""a\\n""#);
    check(r#""a\xc5z\u00e9""#, r#""a\xc5zé""#);
}

#[test]
fn precedence_is_that_of_the_language() {
    let shape = |text: &str, with_parens: &str| {
        let (a, b) = (parsed(text), parsed(with_parens));
        fn strip(e: &Expr) -> String {
            match e {
                Expr::Paren(p) => strip(&p.expr),
                Expr::Binary(b) => format!("[{} {} {}]", strip(&b.lhs), b.op.as_str(), strip(&b.rhs)),
                Expr::Unary(u) => format!("<{:?} {}>", u.op, strip(&u.expr)),
                other => other.to_string(),
            }
        }
        assert_eq!(strip(&a), strip(&b), "{text}");
    };
    shape("a + b * c ^ d", "a + (b * (c ^ d))");
    shape("a ^ b ^ c", "a ^ (b ^ c)");
    shape("a - b - c", "(a - b) - c");
    shape("a or b and c unless d", "a or ((b and c) unless d)");
    shape("a == bool b + c", "a == bool (b + c)");
    shape("-a ^ b", "-(a ^ b)");
    shape("-a * b", "(-a) * b");
    shape("a ^ -b * c", "(a ^ (-b)) * c");
    shape("a atan2 b % c", "(a atan2 b) % c");
    shape("a </ 1 + 2", "a </ (1 + 2)");
    shape("a offset 1m * 2", "(a offset 1m) * 2");
    shape("a offset -1m * 2", "(a offset -1m) * 2");
    shape("a offset +(1m) * 2", "(a offset (1m)) * 2");
}

#[test]
fn selectors() {
    check_same("foo");
    check_same("a:b:c");
    check("foo{}", "foo");
    check(r#"{"my.metric", 'a.b'=~`x|y`, c!="",}"#, r#"{"a.b"=~"x|y",__name__="my.metric",c!=""}"#);
    check(r#"foo{b="1", a="2"}"#, r#"foo{a="2",b="1"}"#);
    check(r#"foo{sum="1", on!~"2"}"#, r#"foo{on!~"2",sum="1"}"#);
    for name in ["sum", "by", "offset", "start", "and", "step", "fill", "without", "anchored", "min_of"] {
        check_same(name);
        check(&format!("{name}{{}}[5m]"), &format!("{name}[5m]"));
    }
    check("foo offset 1w @ 1.5", "foo @ 1.500 offset 1w");
    check("foo @ -1m30s", "foo @ -90.000");
    check("foo[5m] @ start() offset -1h30m", "foo[5m] @ start() offset -1h30m");
    check("foo[300] smoothed @ end()", "foo[5m] smoothed @ end()");
    check("foo anchored [5m]", "foo[5m] anchored");
    check("foo[5m:] offset 1d", "foo[5m:] offset 1d");
    check("(foo)[5m:30s] @ 1", "(foo)[5m:30s] @ 1.000");
    check_same("rate(foo[5m])[1h:1m] offset 2h");
}

#[test]
fn durations() {
    check_same("foo[5m + step()]");
    check_same("foo[-(5m - 10m) * 2 ^ 3]");
    check_same("foo[(5m):(1m)] offset -(step() * 2)");
    check_same("foo[max_of(step(), 5s)] offset min_of(1m, -range())");
    check("foo offset (1h) * 2", "foo offset (1h) * 2");
    check("foo[5m] offset ++5m - 5m", "foo[5m] offset ++5m - 5m");
    check("foo offset +-5m - 5m", "foo offset +-5m - 5m");
    check("foo offset -+step() * 2", "foo offset +-step() * 2");
    check("foo offset +-2 ^ 2", "foo offset +-2 ^ 2");
    check("foo offset --2 ^ 2", "foo offset --2 ^ 2");
    check("foo offset +-(1h) * 2", "foo offset +-(1h) * 2");
    check("foo offset ++(1h) * 2", "foo offset (1h) * 2");
    check("foo offset +(1h) @ 10 * 2", "(foo @ 10.000 offset (1h)) * 2");
    check("foo offset (1h) * 3 @ 10 * 2", "(foo @ 10.000 offset (1h) * 3) * 2");
    check("foo offset +(1h) == 2", "foo offset (1h) == 2");
    check("foo offset +step()", "foo offset step()");
    let resolve = |text: &str| match parsed(text) {
        Expr::Matrix(m) => m.range.resolve_positive(10_000, 60_000).map_err(|e| e.to_string()),
        other => panic!("{other}"),
    };
    assert_eq!(resolve("foo[5m]"), Ok(300_000));
    assert_eq!(resolve("foo[1.5]"), Ok(1_500));
    assert_eq!(resolve("foo[step() * 3 + range() / 2]"), Ok(60_000));
    assert_eq!(resolve("foo[max_of(1m, 2m) % 50]"), Ok(20_000));
    assert_eq!(resolve("foo[step() - 10]"), Err("4:15: duration must be greater than 0".into()));
    assert_eq!(resolve("foo[1 / (step() - 10)]"), Err("4:20: division by zero".into()));
}

#[test]
fn calls_and_aggregations() {
    check("sum(foo)by(a,b)", "sum by (a, b) (foo)");
    check("sum by () (foo)", "sum(foo)");
    check("sum without () (foo)", "sum without () (foo)");
    check(r#"count_values("v", foo)"#, r#"count_values("v", foo)"#);
    check("TOPK by (\"a.b\", on,) (5, foo)", "topk by (\"a.b\", on) (5, foo)");
    check("sum by (\"without\", \"inf\") (foo)", "sum by (\"without\", \"inf\") (foo)");
    check_same("histogram_quantile(0.9, sum by (le) (rate(foo[5m])))");
    check_same(r#"label_join(foo, "a", ",", "b", "c")"#);
    check_same("time() - start() + step() * max_of(1, range())");
    check_same(r#"info(foo, {a=~".*"})"#);
    check("round( foo )", "round(foo)");
}

#[test]
fn binary_modifiers() {
    check("a+on(x)group_left b", "a + on (x) group_left () b");
    check("a / ignoring(x,y) group_right(z) b", "a / ignoring (x, y) group_right (z) b");
    check("a + fill(0) b", "a + fill (0) b");
    check("a + on(x) fill_right(-1) fill_left(1e3) b", "a + on (x) fill_left (1000) fill_right (-1) b");
    check("a and ignoring() b", "a and b");
    check("a > bool on() b", "a > bool on () b");
    check("1 == bool 2", "1 == bool 2");
    check("fill + fill", "fill + fill");
    check("a </ 1 >/ -2", "a </ 1 >/ -2");
    match &parsed("a unless b") {
        Expr::Binary(b) => {
            assert_eq!(b.matching.as_ref().map(|m| m.card), Some(MatchCardinality::ManyToMany))
        }
        other => panic!("{other}"),
    }
    match &parsed("a + 1") {
        Expr::Binary(b) => assert_eq!((b.matching.is_none(), b.value_type), (true, ValueType::Vector)),
        other => panic!("{other}"),
    }
}

#[test]
fn limits_hold_and_the_stack_does_too() {
    let options = ParserOptions::all();
    let deep = |n: usize| {
        [
            format!("{}1{}", "(".repeat(n), ")".repeat(n)),
            format!("{}a", "-".repeat(n)),
            format!("a{}", "+1".repeat(n)),
            format!("1{}", "^1".repeat(n)),
            format!("a[{}1{}]", "(".repeat(n), ")".repeat(n)),
            format!("a[1{}]", "+1".repeat(n)),
            format!("a[{}1]", "-".repeat(n)),
            format!("{}a{}", "abs(".repeat(n), ")".repeat(n)),
            format!("{}a{}", "sum by (x) (".repeat(n), ")".repeat(n)),
            format!("a{}", "[1m:1m]".repeat(n)),
        ]
    };
    for text in deep(100_000) {
        let text = &text[..text.len().min(options.max_query_bytes)];
        let err = parse(text, &options).expect_err("too deep").to_string();
        assert!(err.contains("levels deep") || err.contains("subquery is only"), "{err}");
    }
    for text in deep(10_000).iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, t)| t) {
        let err = parse(text, &options).expect_err("too deep").to_string();
        assert!(err.contains("more than 1000 levels deep") || err.contains("subquery is only"), "{err}");
    }
    for text in &deep(options.max_depth - 2)[..9] {
        match parse(text, &options) {
            Ok(e) => assert_eq!(parsed(&e.clone().to_string()), e),
            Err(e) => panic!("{e}"),
        }
    }
    let long = " ".repeat(options.max_query_bytes + 1);
    assert!(parse(&long, &options).is_err_and(|e| e.reason.contains("longer than the limit")));
}

#[test]
fn chains_of_operators_may_be_long() {
    let options = ParserOptions::all();
    for op in [" + ", " or ", " / on (x) group_left () ", " > bool "] {
        let text = vec!["a"; 10_001].join(op);
        let chain = parsed(&text);
        assert_eq!(chain.levels(), 10_001);
        assert_eq!(chain.to_string(), text);
        assert_eq!(chain.clone(), chain);
        assert_ne!(chain, parsed(&vec!["a"; 10_000].join(op)));
        assert!(format!("{chain:?}").len() > text.len());
    }
    // Chains within chains are nested as deep as they look.
    let nested = |n: usize| (0..n).fold("a".to_owned(), |inner, _| format!("a + a + ({inner}) * a"));
    assert!(parse(&nested(200), &options).is_ok());
    assert!(parse(&nested(400), &options).is_err());
    let err = parse(&vec!["1"; 30_000].join("+"), &options).expect_err("too long").to_string();
    assert!(err.ends_with("expression is nested more than 20000 levels deep"), "{err}");
}

#[test]
fn spans_cover_the_text() {
    let text = "sum(rate(foo{a=\"b\"}[5m] offset 1m)) + -bar @ 10";
    let e = parsed(text);
    let at = |s: Span| &text[s.start as usize..s.end as usize];
    let mut seen = Vec::new();
    e.walk(|e| seen.push(at(e.span())));
    assert_eq!(
        seen,
        [
            text,
            "sum(rate(foo{a=\"b\"}[5m] offset 1m))",
            "rate(foo{a=\"b\"}[5m] offset 1m)",
            "foo{a=\"b\"}[5m] offset 1m",
            "-bar @ 10",
            "bar @ 10"
        ]
    );
    assert_eq!(Span::new(5, 6).line_col("ab\ncdef"), "2:3");
}

#[test]
fn selectors_of_the_api() {
    let m = parse_selector(r#"foo{a="b"}"#).expect("valid");
    assert_eq!(m.iter().map(ToString::to_string).collect::<Vec<_>>(), [r#"a="b""#, r#"__name__="foo""#]);
    assert!(parse_selector("{}").is_ok_and(|m| m.is_empty()));
    for bad in ["", "foo[5m]", "foo + 1", "1", "foo offset 1m"] {
        assert!(parse_selector(bad).is_err(), "{bad}");
    }
}
