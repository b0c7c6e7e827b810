//! What is refused: the text of the error, its position, and which error comes first.

use super::super::*;
use super::check_error;

#[test]
fn errors_say_what_and_where() {
    check_error("", "unknown position: parse error: no expression found in input");
    check_error("# only a comment", "1:1: parse error: no expression found in input");
    check_error("1 +", "1:4: parse error: unexpected end of input");
    check_error("foo bar", "1:5: parse error: unexpected identifier \"bar\"");
    check_error("1 1", "1:3: parse error: unexpected number \"1\"");
    check_error("\n  *1", "2:3: parse error: unexpected <op:*>");
    check_error("(1", "1:3: parse error: unclosed left parenthesis");
    check_error("1)", "1:3: parse error: unexpected right parenthesis ')'");
    check_error("\"abc", "1:1: parse error: unterminated quoted string");
    check_error(r#""\q""#, "1:1: parse error: unknown escape sequence U+0071 'q'");
    check_error("foo{a", "1:6: parse error: unexpected end of input inside braces");
    check_error(
        r#"foo{a="b" c="d"}"#,
        r#"1:11: parse error: unexpected identifier "c" in label matching, expected "," or "}""#,
    );
    check_error(
        "foo{a=b}",
        r#"1:7: parse error: unexpected identifier "b" in label matching, expected string"#,
    );
    check_error(
        "foo{a}",
        r#"1:6: parse error: unexpected "}" in label matching, expected label matching operator"#,
    );
    check_error("foo[5m", "1:7: parse error: unclosed left bracket");
    check_error(
        "foo[]",
        r#"1:5: parse error: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
    );
    check_error("foo[0m]", "1:5: parse error: duration must be greater than 0");
    check_error(
        "foo offset",
        "1:11: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
    );
    check_error("foo @ bar", r#"1:7: parse error: unexpected identifier "bar" in @, expected timestamp"#);
    check_error("foo @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf");
    check_error("foo @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times");
    check_error("foo offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times");
    check_error("foo offset 1m [5m]", "1:15: parse error: no offset modifiers allowed before range");
    check_error("sum(foo)[5m]", "1:9: parse error: ranges only allowed for vector selectors");
    check_error(
        "1 offset 1m",
        "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    );
    check_error("nope(1)", "1:1: parse error: unknown function with name \"nope\"");
    check_error(
        "rate(foo)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    check_error("rate()", "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 0");
    check_error(
        "round(foo, 1, 2)",
        "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3",
    );
    check_error("abs(foo,)", "1:8: parse error: trailing commas not allowed in function call args");
    check_error("sum()", "1:1: parse error: no arguments for aggregate expression provided");
    check_error(
        "topk(foo)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
    );
    check_error(
        "sum by a (foo)",
        r#"1:8: parse error: unexpected identifier "a" in grouping opts, expected "(""#,
    );
    check_error("sum some", r#"1:5: parse error: unexpected identifier "some""#);
    check_error("1 == 2", "1:3: parse error: comparisons between scalars must use BOOL modifier");
    check_error("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators");
    check_error("a or 1", "1:1: parse error: set operator \"or\" not allowed in binary scalar expression");
    check_error("a and on(x) group_left b", "1:1: parse error: no grouping allowed for \"and\" operation");
    check_error(
        "a + on(x) group_left(x) b",
        "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once",
    );
    check_error("a + on(x) 1", "1:1: parse error: vector matching only allowed between instant vectors");
    check_error(
        "a + foo[5m]",
        "1:5: parse error: binary expression must contain only scalar and instant vector types",
    );
    check_error(
        "-\"a\"",
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
    );
    check_error("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher");
    check_error(
        r#"foo{__name__="bar"}"#,
        r#"1:1: parse error: metric name must not be set twice: "foo" or "bar""#,
    );
    check_error("1[5m:]", "1:1: parse error: subquery is only allowed on instant vector, got scalar instead");
    check_error("foo[5m:1m:1s]", "1:10: parse error: unexpected colon ':'");
    check_error(
        "info(foo, bar)",
        "1:11: parse error: expected label selectors only, got vector selector instead",
    );
    check_error(
        "1e1000",
        "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"1e1000\": value out of range",
    );
    check_error("5mm", "1:1: parse error: bad number or duration syntax: \"5mm\"");
    check_error("foo[1e20]", "1:5: parse error: duration out of range");
    check_error("é", "1:1: parse error: unexpected character: 'é'");
}

#[test]
fn switches_gate_what_is_experimental() {
    let off = ParserOptions { duration_expressions: false, ..ParserOptions::default() };
    for (text, expect) in [
        (
            "limitk(1, foo)",
            "1:1: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
        ("mad_over_time(foo[5m])", "1:1: parse error: function \"mad_over_time\" is not enabled"),
        ("foo[5m] anchored", "1:1: parse error: anchored modifier is experimental and not enabled"),
        ("foo smoothed", "1:1: parse error: smoothed modifier is experimental and not enabled"),
        ("foo + fill(1) bar", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
        ("foo[5m * 2]", "1:5: parse error: experimental duration expression is not enabled"),
        ("foo offset step()", "1:12: parse error: experimental duration expression is not enabled"),
    ] {
        assert_eq!(parse(text, &off).map_err(|e| e.to_string()), Err(expect.to_owned()), "{text}");
    }
    assert!(parse("foo[5m * 2]", &ParserOptions::default()).is_ok());
}

/// Syntax: tokens that fit nowhere, in which construct they are reported, and what is found wrong before they are.
#[test]
fn the_first_error_counts() {
    for (text, expect) in [
        ("up)", "1:4: unexpected right parenthesis ')'"),
        ("(up))", "1:6: unexpected right parenthesis ')'"),
        ("job_a[1m:30s:10s]", "1:13: unexpected colon ':'"),
        ("job_a[:30s]", "1:8: unexpected colon before duration in duration expression"),
        ("job_a[step():30s]", "1:14: unexpected colon before duration in duration expression"),
        ("job_a[5m] or job_b[step():30s:]", "1:30: unexpected colon ':'"),
        ("job_a[[", "1:7: unexpected character in duration expression: '['"),
        ("job_a[5m[", "1:9: unexpected left bracket '['"),
        ("job_a[5m @ 3]", r#"1:10: unexpected <op:@> in subquery or range, expected ":" or "]""#),
        ("job_a[# five", "1:7: unexpected character in duration expression: '#'"),
        (r#"job_a[5m "x"]"#, r#"1:10: unexpected string "\"x\"" in subquery or range, expected ":" or "]""#),
        ("job_a[end()]", "1:7: unexpected character in duration expression: 'e'"),
        (
            "job_a[min_of]",
            r#"1:13: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
        ),
        (
            "job_a[min_of(1m)]",
            r#"1:16: unexpected ")" in subquery or range selector, expected number, duration, step(), or range()"#,
        ),
        (
            "job_a[5m:step(]",
            r#"1:15: unexpected "]" in subquery selector, expected number, duration, step(), range(), or "]""#,
        ),
        (
            "job_a[5m * ]",
            r#"1:12: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
        ),
        (
            "job_a[(5m + ]",
            r#"1:13: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
        ),
        ("7..5", r#"1:1: bad number or duration syntax: "7..""#),
        ("7h5", r#"1:1: bad number or duration syntax: "7h5""#),
        ("7hs", r#"1:1: unknown unit "hs" in duration "7hs""#),
        ("7_", r#"1:1: bad number or duration syntax: "7_""#),
        ("0x", r#"1:1: error parsing number: strconv.ParseFloat: parsing "0x": invalid syntax"#),
        ("0x_f_", r#"1:1: bad number or duration syntax: "0x_f_""#),
        ("1e", r#"1:1: bad number or duration syntax: "1e""#),
        (r#""\'""#, "1:1: unknown escape sequence U+0027 '''"),
        (r#""a�b""#, "1:1: invalid UTF-8 rune"),
        ("`a�b`", "1:1: invalid UTF-8 rune"),
        (r#""\x4"#, "1:1: escape sequence not terminated"),
        ("sum 7", r#"1:5: unexpected number "7""#),
        ("sum (a b)", r#"1:8: unexpected identifier "b" in aggregation"#),
        ("sum by (x) y", r#"1:12: unexpected identifier "y" in aggregation"#),
        ("sum by x (y)", r#"1:8: unexpected identifier "x" in grouping opts, expected "(""#),
        ("sum by (x y) (z)", r#"1:11: unexpected identifier "y" in grouping opts, expected "," or ")""#),
        ("sum by (x,,y) (z)", r#"1:11: unexpected "," in grouping opts, expected label"#),
        ("sum by (without) (z)", "1:9: unexpected <without> in grouping opts, expected label"),
        (r#"sum by ("") (z)"#, r#"1:9: invalid label name for grouping: """#),
        (r#"sum by ("\xff") (z)"#, r#"1:9: invalid label name for grouping: "\xff""#),
        ("sum(rate(a[5m] b))", r#"1:16: unexpected identifier "b" in aggregation"#),
        ("max(a, )", "1:6: trailing commas not allowed in function call args"),
        ("rate(a[5m], * 2)", "1:11: trailing commas not allowed in function call args"),
        ("rate(a[5m],", "1:12: unclosed left parenthesis"),
        ("nosuch(a)) + 1", r#"1:1: unknown function with name "nosuch""#),
        ("nosuch(a", "1:9: unclosed left parenthesis"),
        (
            "a offset -b",
            r#"1:11: unexpected identifier "b" in offset, expected number, duration, step(), or range()"#,
        ),
        ("a offset (5m", "1:13: unclosed left parenthesis"),
        (
            "a offset -(b)",
            r#"1:12: unexpected identifier "b" in offset, expected number, duration, step(), or range()"#,
        ),
        (
            "a offset end()",
            r#"1:10: unexpected "end" in offset, expected number, duration, step(), or range()"#,
        ),
        ("a offset 1e10", "1:10: duration out of range"),
        ("a offset -1e10", "1:10: duration out of range"),
        (
            "a offset +min_of(1)",
            r#"1:19: unexpected ")" in offset, expected number, duration, step(), or range()"#,
        ),
        ("a @ start", "1:10: unexpected end of input in @, expected timestamp"),
        ("a @ (5)", r#"1:5: unexpected "(" in @, expected timestamp"#),
        ("a @ -x", r#"1:6: unexpected identifier "x" in @, expected timestamp"#),
        ("a @ end(", "1:9: unclosed left parenthesis"),
        ("a + on(x) group_left * b", r#"1:22: unexpected <op:*> in grouping opts, expected "(""#),
        ("a + group_left b", "1:5: unexpected <group_left>"),
        ("a + on(x) bool b", "1:11: unexpected <bool>"),
        ("a + bool bool b", "1:10: unexpected <bool>"),
        (r#"a + fill("x") b"#, r#"1:10: unexpected string "\"x\"""#),
        ("a + fill_left(1) fill_left(2) b", r#"1:27: unexpected "(""#),
        (r#"a{b=~"(c"}"#, "1:3: error parsing regexp: missing closing ): `(c`"),
        (r#"a{"b" "c"}"#, r#"1:7: unexpected string "\"c\"" in label matching, expected "," or "}""#),
        (r#"a{b!"c"}"#, r#"1:4: unexpected character after '!' inside braces: '"'"#),
        ("a{,}", r#"1:3: unexpected "," in label matching, expected identifier or "}""#),
        (r#"a{b="c",,}"#, r#"1:9: unexpected "," in label matching, expected identifier or "}""#),
        (r#"a{="c"}"#, r#"1:3: unexpected "=" in label matching, expected identifier or "}""#),
        ("a{b=}", r#"1:5: unexpected "}" in label matching, expected string"#),
        (r#"a{b="c""#, "1:8: unexpected end of input inside braces"),
        ("a:b(1)", r#"1:4: unexpected "(""#),
        ("=1", r#"1:1: unexpected "=""#),
        ("a = 1", r#"1:3: unexpected "=""#),
        (r#"a =~ "b""#, "1:3: unexpected character after '=': '~'"),
        (r#"a !~ "b""#, "1:3: unexpected character after '!': '~'"),
        ("a & b", "1:3: unexpected character: '&'"),
        ("a ? b", "1:3: unexpected character: '?'"),
        ("1m1h", r#"1:1: not a valid duration string: "1m1h""#),
        ("300y", "1:1: duration out of range"),
        ("step(1)", r#"1:1: expected 0 argument(s) in call to "step", got 1"#),
        ("offset(5)", r#"1:7: unexpected "(""#),
    ] {
        let expect = expect.replacen(": ", ": parse error: ", 1);
        check_error(text, &expect);
    }
}

/// Modifiers, types and arguments.
#[test]
fn what_does_not_fit_together() {
    for (text, expect) in [
        ("a smoothed anchored", "1:1: anchored and smoothed modifiers cannot be used together"),
        ("a[5m] anchored smoothed", "1:1: anchored and smoothed modifiers cannot be used together"),
        ("sum(a) anchored", "1:1: anchored modifier not implemented"),
        ("a[5m:] smoothed", "1:1: smoothed modifier is not supported for subqueries"),
        (
            "-a[5m]",
            r#"1:1: unary expression only allowed on expressions of type scalar or instant vector, got "range vector""#,
        ),
        ("a unless bool b", "1:3: bool modifier can only be used on comparison operators"),
        ("a and group_left b", "1:7: unexpected <group_left>"),
        ("a and on(x) group_left b", r#"1:1: no grouping allowed for "and" operation"#),
        ("1 and 2", r#"1:1: set operator "and" not allowed in binary scalar expression"#),
        ("a and 2", r#"1:1: set operator "and" not allowed in binary scalar expression"#),
        ("a or fill(1) b", "1:1: filling in missing series not allowed for set operators"),
        ("1 + fill(1) a", "1:1: filling in missing series only allowed between instant vectors"),
        ("1 + on(x) a", "1:1: vector matching only allowed between instant vectors"),
        ("topk(a)", "1:1: wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("topk(a, b)", "1:6: expected type scalar in aggregation parameter, got instant vector"),
        (r#"topk("x", b)"#, "1:6: expected type scalar in aggregation parameter, got string"),
        ("count_values(1, b)", "1:14: expected type string in aggregation parameter, got scalar"),
        (
            "quantile(0.5)",
            "1:1: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        ("sum(a, b)", "1:1: wrong number of arguments for aggregate expression provided, expected 1, got 2"),
        ("sum()", "1:1: no arguments for aggregate expression provided"),
        ("sum(1)", "1:5: expected type instant vector in aggregation expression, got scalar"),
        (r#"sum("a")"#, "1:5: expected type instant vector in aggregation expression, got string"),
        ("round(a, 1, 2)", r#"1:1: expected at most 2 argument(s) in call to "round", got 3"#),
        ("clamp(a)", r#"1:1: expected 3 argument(s) in call to "clamp", got 1"#),
        ("label_join(a)", r#"1:1: expected at least 3 argument(s) in call to "label_join", got 1"#),
        (
            "histogram_quantiles(a)",
            r#"1:1: expected at least 3 argument(s) in call to "histogram_quantiles", got 1"#,
        ),
        (
            r#"histogram_quantiles(a, "q", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)"#,
            r#"1:1: expected at most 12 argument(s) in call to "histogram_quantiles", got 13"#,
        ),
        ("info(a, b)", "1:9: expected label selectors only, got vector selector instead"),
        ("info(a, 5)", r#"1:1: expected type instant vector in call to function "info", got scalar"#),
        ("info(a, sum(b))", "1:9: expected label selectors only"),
        (
            r#"info(a, {b="c"} offset 5m, 1)"#,
            r#"1:1: expected at most 2 argument(s) in call to "info", got 3"#,
        ),
        ("time(1)", r#"1:1: expected 0 argument(s) in call to "time", got 1"#),
        ("vector(a)", r#"1:8: expected type scalar in call to function "vector", got instant vector"#),
        ("scalar(1)", r#"1:8: expected type instant vector in call to function "scalar", got scalar"#),
        (r#"abs("x")"#, r#"1:5: expected type instant vector in call to function "abs", got string"#),
        (r#"{b=""}"#, "1:1: vector selector must contain at least one non-empty matcher"),
        (r#"{b=~".*"}"#, "1:1: vector selector must contain at least one non-empty matcher"),
        (r#"a{__name__="c"}"#, r#"1:1: metric name must not be set twice: "a" or "c""#),
        (r#"{__name__=~".*"}[5m]"#, "1:1: vector selector must contain at least one non-empty matcher"),
        ("1[5m]", "1:2: ranges only allowed for vector selectors"),
        (r#""a" + b"#, "1:1: binary expression must contain only scalar and instant vector types"),
        ("a[5m] == b", "1:1: binary expression must contain only scalar and instant vector types"),
        ("1 == 1", "1:3: comparisons between scalars must use BOOL modifier"),
        ("1 + bool 1", "1:3: bool modifier can only be used on comparison operators"),
        ("a + on(x) group_left(x) b", r#"1:3: label "x" must not occur in ON and GROUP clause at once"#),
    ] {
        let expect = expect.replacen(": ", ": parse error: ", 1);
        check_error(text, &expect);
    }
}
