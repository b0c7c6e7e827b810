//! Parser tests: lines with their outcome, and the shared conformance bodies where they are at hand.

use super::*;
use proptest::prelude::*;

/// Prints a body's entries one per line, or the error that ended it.
fn dump(format: Format, body: &str) -> String {
    let mut p = Parser::new(format, body.as_bytes());
    let mut out = String::new();
    loop {
        let entry = match p.next() {
            Ok(Some(e)) => e,
            Ok(None) => return out,
            Err(e) => return out + &format!("error: {e}\n"),
        };
        let s = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        out += &match entry {
            Entry::Series(t) => {
                let mut pairs = Vec::new();
                if let Err(e) = p.labels(&mut pairs) {
                    return out + &format!("error: {e}\n");
                }
                let labels = model::Labels::from_pairs(pairs);
                let at = t.timestamp_ms.map(|t| format!(" @{t}")).unwrap_or_default();
                let exemplar = p
                    .exemplar()
                    .map(|e| format!(" # {} {} {:?}", e.labels, e.value, e.timestamp_ms))
                    .unwrap_or_default();
                format!("{labels} {}{at}{exemplar}\n", t.value)
            }
            Entry::Type { family, metric_type } => format!("type {} {metric_type}\n", s(family)),
            Entry::Help { family, text } => format!("help {} {:?}\n", s(family), unescape_help(format, text)),
            Entry::Unit { family, unit } => format!("unit {} {}\n", s(family), s(unit)),
            Entry::Comment(c) => format!("comment {}\n", s(c)),
        };
    }
}

fn check(format: Format, cases: &[(&str, &str)]) {
    for (body, expect) in cases {
        assert_eq!(&dump(format, body), expect, "{body:?}");
    }
}

#[test]
fn text_lines() {
    check(
        Format::Text,
        &[
            ("", ""),
            ("\n  \n\t\n", ""),
            ("a 1", "a 1\n"),
            ("a 1 123\n", "a 1 @123\n"),
            (" a\t{ x = \"1\" , } 2  3 \n", "a{x=\"1\"} 2 @3\n"),
            ("a{x=\"1\" y=\"2\"}1\n", "a{x=\"1\", y=\"2\"} 1\n"),
            ("a{x=\"q\\\"b\\\\n\\n\"} 1\n", "a{x=\"q\\\"b\\\\n\\n\"} 1\n"),
            ("a{x=\"two\nlines\"} 1\n", "a{x=\"two\\nlines\"} 1\n"),
            ("{\"a.b\",\"x.y\"=\"1\"} 1\n", "{\"a.b\", \"x.y\"=\"1\"} 1\n"),
            ("{x=\"1\",\"a\"} 1\n", "a{x=\"1\"} 1\n"),
            ("a NaN\nb +Inf\n", "a NaN\nb inf\n"),
            (
                "# a comment\n#and another\n# HELPER no\n",
                "comment # a comment\ncomment #and another\ncomment # HELPER no\n",
            ),
            ("# HELP a  two \\\\ \\n \\\"\n", "help a \" two \\\\ \\n \\\\\\\"\"\n"),
            ("# HELP a\n#\tTYPE a counter\n", "help a \"\"\ntype a counter\n"),
            ("# TYPE \"a.b\" gauge\n", "type a.b gauge\n"),
            (
                "# TYPE h histogram\nh{le=\"1\"} 1\nh{le=\"+Inf\"} 1\n",
                "type h histogram\nh{le=\"1.0\"} 1\nh{le=\"+Inf\"} 1\n",
            ),
            (
                "# TYPE s summary\ns{quantile=\"0.50\",le=\"1\"} 1\n",
                "type s summary\ns{le=\"1\", quantile=\"0.5\"} 1\n",
            ),
            ("h{le=\"1\"} 1\n", "h{le=\"1\"} 1\n"),
            ("a 1\n\0b 2\n", "a 1\n"),
        ],
    );
}

#[test]
fn text_errors_name_line_and_expectation() {
    check(
        Format::Text,
        &[
            ("a\n", "error: line 1: expected value after metric, got end of line while parsing: \"a\"\n"),
            ("a 1\nb x\n", "a 1\nerror: line 2: strconv.ParseFloat: parsing \"x\": invalid syntax\n"),
            (
                "a 1 x\n",
                "error: line 1: expected timestamp or new record, got \"x\" while parsing: \"a 1 \"\n",
            ),
            (
                "a 1 -5\n",
                "error: line 1: expected timestamp or new record, got \"-5\" while parsing: \"a 1 \"\n",
            ),
            (
                "a 1 2 3\n",
                "error: line 1: expected next entry after timestamp, got \"3\" while parsing: \"a 1 2 \"\n",
            ),
            (
                "a 1 99999999999999999999\n",
                "error: line 1: strconv.ParseInt: parsing \"99999999999999999999\": value out of range\n",
            ),
            ("a{,} 1\n", "error: line 1: expected label name, got \",} 1\" while parsing: \"a{\"\n"),
            ("a{x} 1\n", "error: line 1: expected equal, got \"} 1\" while parsing: \"a{x\"\n"),
            ("a{x=1} 1\n", "error: line 1: expected label value, got \"1} 1\" while parsing: \"a{x=\"\n"),
            ("a{x=\"1} 1\n", "error: line 1: expected a closing quote, got end of body\n"),
            ("a{\"b\"} 1\n", "error: line 1: metric name already set\n"),
            ("{x=\"1\"} 1\n", "error: line 1: metric name not set\n"),
            (
                "a{x=\"1\"}\n",
                "error: line 1: expected value after metric, got end of line while parsing: \"a{x=\\\"1\\\"}\"\n",
            ),
            ("7&-\n", "error: line 1: expected a valid start token, got \"7&-\"\n"),
            ("# TYPE a x\n", "error: line 1: invalid metric type \"x\"\n"),
            ("# TYPE a counter \n", "error: line 1: invalid metric type \"counter \"\n"),
            (
                "# HELP \n",
                "error: line 1: expected metric name after HELP, got end of line while parsing: \"# HELP \"\n",
            ),
            ("a 1\r\n", "error: line 1: strconv.ParseFloat: parsing \"1\\r\": invalid syntax\n"),
            ("a 0x1p3\n", "error: line 1: strconv.ParseFloat: parsing \"0x1p3\": invalid syntax\n"),
        ],
    );
    let mut p = Parser::new(Format::Text, b"a{x=\"\xff\"} 1\n");
    assert!(matches!(p.next(), Ok(Some(Entry::Series(_)))));
    assert!(p.labels(&mut Vec::new()).is_err_and(|e| e.reason.contains("invalid UTF-8")));
}

#[test]
fn openmetrics_lines() {
    check(
        Format::OpenMetrics,
        &[
            ("# EOF", ""),
            ("a 1\n# EOF\n", "a 1\n"),
            ("a 1 1.5\n# EOF\n", "a 1 @1500\n"),
            ("a{x=\"1\"} 1 # {t=\"z\"} 0.5 2\n# EOF\n", "a{x=\"1\"} 1 # {t=\"z\"} 0.5 Some(2000)\n"),
            ("a 1 2 # {} 3\n# EOF\n", "a 1 @2000 # {} 3 None\n"),
            ("# UNIT a_seconds seconds\n# EOF", "unit a_seconds seconds\n"),
            ("# HELP a \\\"q\\\"\n# EOF", "help a \"\\\"q\\\"\"\n"),
            ("# TYPE a stateset\n# EOF", "type a stateset\n"),
            ("a 1\n", "a 1\nerror: line 2: data does not end with # EOF\n"),
            ("a 1", "error: line 1: data does not end with # EOF\n"),
            ("# EOF\n\n", "error: line 1: unexpected data after # EOF\n"),
            ("\n# EOF", "error: line 1: expected a valid start token, got end of line\n"),
            ("a  1\n# EOF", "error: line 1: expected value after metric, got \" 1\" while parsing: \"a \"\n"),
            ("a 1 \n# EOF", "error: line 1: expected timestamp, got end of line while parsing: \"a 1 \"\n"),
            (
                "a{x=\"1\" y=\"2\"} 1\n# EOF",
                "error: line 1: expected comma or brace close, got \" y=\\\"2\\\"} 1\" while parsing: \"a{x=\\\"1\\\"\"\n",
            ),
            ("# TYPE a untyped\n# EOF", "error: line 1: invalid metric type \"untyped\"\n"),
            ("# UNIT a seconds\n# EOF", "error: line 1: unit \"seconds\" not a suffix of metric \"a\"\n"),
            ("a 1 NaN\n# EOF", "error: line 1: invalid timestamp NaN\n"),
            (
                "a 1 # {\"t\"} 1\n# EOF",
                "error: line 1: expected equal, got \"} 1\" while parsing: \"a 1 # {\\\"t\\\"\"\n",
            ),
        ],
    );
}

/// Samples in a body, or the error.
fn count(format: Format, body: &[u8]) -> Result<usize, ParseError> {
    let mut p = Parser::new(format, body);
    let mut n = 0;
    while let Some(e) = p.next()? {
        if let Entry::Series(_) = e {
            p.labels(&mut Vec::new())?;
            n += 1;
        }
    }
    Ok(n)
}

#[test]
fn real_bodies_count_as_prometheus_counts_them() {
    let Ok(dir) = std::env::var("CONFORMANCE_DIR") else { return };
    for (file, samples) in [
        ("1histogram.om.txt", 42),
        ("alltypes.5mfs.om.txt", 53),
        ("alltypes.237mfs.prom.txt", 1857),
        ("alltypes.237mfs.nometa.prom.txt", 1857),
        ("metrics-test.prom", 27),
    ] {
        let body = std::fs::read(format!("{dir}/exposition/{file}")).expect("conformance body");
        let format = if file.contains(".om.") { Format::OpenMetrics } else { Format::Text };
        assert_eq!(count(format, &body), Ok(samples), "{file}");
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(body in proptest::collection::vec(prop_oneof![
        8 => proptest::sample::select(b"# HELPTYPUNITEOFa{}=\",\\1.e+-_: \t\n\0\xff".to_vec()), 1 => any::<u8>()], 0..120)) {
        for format in [Format::Text, Format::OpenMetrics] {
            let _ = count(format, &body);
        }
    }
}
