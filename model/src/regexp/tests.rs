//! Expressions against what RE2 does, and shapes against the engine.

use super::*;
use crate::regexp::shape::Shape;

fn re(p: &str) -> Regexp {
    Regexp::new(p).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn matches_as_re2_anchored() {
    for (p, yes, no) in [
        ("foo", vec!["foo"], vec!["", "foobar", "xfoo"]),
        ("foo|bar", vec!["foo", "bar"], vec!["foobar", ""]),
        ("(?:foo|bar)baz|", vec!["foobaz", "barbaz", ""], vec!["baz"]),
        (".*", vec!["", "a\nb"], vec![]),
        (".+", vec!["a", "\n"], vec![""]),
        ("foo.*", vec!["foo", "foobar"], vec!["fo", "xfoo"]),
        (".*foo", vec!["foo", "xfoo"], vec!["foox"]),
        ("a.+z", vec!["abz"], vec!["az"]),
        (".*mid.*", vec!["mid", "xmidx"], vec!["mi"]),
        ("(?i)foo", vec!["FOO", "foo"], vec!["bar"]),
        (r"\d+", vec!["12"], vec!["١٢", "a"]),
        (r"[\w-]+", vec!["a-b_1"], vec!["é"]),
        (r"[\d\D]", vec!["1", "x"], vec![""]),
        (r"\Qa.b\E+", vec!["a.b", "a.bbb"], vec!["axb"]),
        ("a{", vec!["a{"], vec!["a"]),
        ("a{2}", vec!["aa"], vec!["a{2}"]),
        ("[[a]", vec!["[", "a"], vec!["[a"]),
        ("[]a]", vec!["]", "a"], vec!["[]a]"]),
        ("[a&&b]", vec!["a", "&", "b"], vec!["c"]),
        ("[[:alpha:]]+", vec!["abc"], vec!["1"]),
        (r"\<a\>", vec!["<a>"], vec!["a"]),
        (r"\101", vec!["A"], vec!["\\101"]),
        ("^foo$", vec!["foo"], vec!["^foo$"]),
        ("[a-c]x", vec!["ax", "cx"], vec!["dx"]),
        (r"\pN\p{^Lu}\P{Greek}", vec!["1ab"], vec!["1Ab", "1aα"]),
        (r"[\pL\d]+", vec!["é1"], vec!["-"]),
        ("(?)a(?ii-s:.)", vec!["ab"], vec!["a\n"]),
        (r"(?i)foo\Q.BAR\E.*", vec!["FOO.bar", "foo.BARx"], vec!["fooxbar"]),
        (r"\_\ \/", vec!["_ /"], vec![]),
        (r".\B.*", vec!["ab", "é", "éé"], vec!["a", "aé", "éa"]),
        (r"a(?i)+", vec!["aa"], vec!["A"]),
        (r"a\z|\Ab", vec!["a", "b"], vec!["ab"]),
        (r"[\x{D800}-\x{E000}]", vec!["\u{e000}"], vec!["a"]),
        ("(?i)straSSe-k", vec!["STRASSE-K", "strasse-\u{212a}", "stra\u{17f}se-k"], vec!["straße-k"]),
    ] {
        let r = re(p);
        for s in yes {
            assert!(r.is_match(s), "{p} should match {s:?}",);
        }
        for s in no {
            assert!(!r.is_match(s), "{p} should not match {s:?}",);
        }
    }
}

#[test]
fn tells_stores_what_it_knows() {
    assert_eq!(re("b|a|a").literal_set(), Some(["a".to_owned(), "b".to_owned()].as_slice()));
    assert_eq!(re("(?i)ab").literal_set().map(<[String]>::len), Some(4));
    for (p, prefixes) in [
        ("abc.*", vec!["abc"]),
        ("abc[0-9]+x", vec!["abc"]),
        ("(?i)abcdef.*", vec![""]),
        ("b.*|a.+|ab|c", vec!["a", "b", "c"]),
        ("(x|y)-.*-z", vec!["x-", "y-"]),
        (".*", vec![""]),
        ("a.*|.*b", vec![""]),
        ("a[^b]", vec!["a"]),
    ] {
        assert_eq!(re(p).prefixes(), prefixes, "{p}");
    }
}

/// Expressions whose shape says all, some, and nothing.
#[test]
fn shapes_are_found() {
    for (p, exact) in [
        ("foo", true),
        ("^foo$", true),
        ("foo|bar.*|.*baz|.+x.*y.+", true),
        ("(?i)prod-[a-c]-.*", true),
        ("(?i:web|api)|db", true),
        ("(a|b)?c.*", true),
        (".*foo.*", true),
        (".+.+x", false),
        ("a[0-9]+b", false),
        ("(?-s:.*)x", false),
        (r"foo\b.*", false),
    ] {
        let shape = re(p).inner.shape.as_ref().map(Shape::is_exact);
        assert_eq!(shape, Some(exact), "{p}");
    }
    assert!(re("[0-9]+").inner.shape.is_none());
    assert!(re(".*(foo|bar).*").inner.shape.is_none());
    // More than the engine's limit, and quick all the same.
    let many: Vec<String> = (0..50_000).map(|i| format!("pod-{i}-some-longer-name")).collect();
    let r = re(&many.join("|"));
    assert!(r.is_match("pod-49999-some-longer-name") && !r.is_match("pod-50000-some-longer-name"));
    assert_eq!(r.literal_set().map(<[String]>::len), Some(50_000));
}

/// A small generator of numbers, so that a failure can be repeated by its seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn pattern(&mut self, depth: usize) -> String {
        let parts = 1 + self.below(4);
        (0..parts).map(|_| self.part(depth)).collect()
    }

    fn part(&mut self, depth: usize) -> String {
        const TEXTS: [&str; 10] = ["a", "b", "ab", "k", "S", "1", "-", "é", "\n", "ba"];
        const WILD: [&str; 8] = [".*", ".+", ".*", ".?", ".", "a*", "[ab]", "[^a]"];
        const OTHER: [&str; 6] = ["^", "$", r"\b", "(?i)", "[A-Ba-b]", "(?-s:.*)"];
        match self.below(12) {
            0..5 => self.one_of(&TEXTS).to_owned(),
            5..8 => self.one_of(&WILD).to_owned(),
            8 => self.one_of(&OTHER).to_owned(),
            _ if depth == 0 => String::new(),
            _ => {
                let alternatives: Vec<String> =
                    (0..1 + self.below(3)).map(|_| self.pattern(depth - 1)).collect();
                let (open, close) =
                    (self.one_of(&["(", "(?:", "(?i:"]), self.one_of(&[")", ")?", ")", ")+"]));
                format!("{open}{}{close}", alternatives.join("|"))
            }
        }
    }

    fn value(&mut self) -> String {
        const LETTERS: [&str; 14] =
            ["a", "b", "A", "B", "k", "\u{212a}", "s", "ſ", "1", "-", "é", "É", "\n", "ab"];
        let len = self.below(6);
        (0..len).map(|_| self.one_of(&LETTERS)).collect()
    }
}

#[test]
fn what_shapes_say_is_what_the_engine_says() {
    let mut judged = 0;
    for seed in 0..6_000 {
        let mut numbers = Numbers(seed);
        let pattern = match numbers.below(4) {
            0 => format!("{}|{}", numbers.pattern(2), numbers.pattern(2)),
            _ => numbers.pattern(2),
        };
        // Two repetitions side by side, mostly.
        let Ok(r) = Regexp::new(&pattern) else { continue };
        let engine = r.inner.engine();
        for _ in 0..20 {
            let value = numbers.value();
            let expect = engine.is_match(value.as_bytes());
            assert_eq!(r.is_match(&value), expect, "seed {seed}: {pattern:?} on {value:?}");
            if let Some(set) = r.literal_set() {
                assert_eq!(set.contains(&value), expect, "seed {seed}: {pattern:?} on {value:?}");
            }
            if expect {
                assert!(
                    r.prefixes().iter().any(|p| value.starts_with(p.as_str())),
                    "seed {seed}: {pattern:?}"
                );
            }
        }
        judged += usize::from(r.inner.shape.is_some());
    }
    assert!(judged > 1_500, "{judged}");
}

#[test]
fn refuses_what_re2_refuses() {
    for (p, expect) in [
        ("(a", "missing closing ): `(a`"),
        ("b)", "unexpected ): `b)`"),
        ("x[ab", "missing closing ]: `[ab`"),
        ("[ab-]z[y-x]", "invalid character class range: `y-x`"),
        ("*?a", "missing argument to repetition operator: `*?`"),
        ("a|+", "missing argument to repetition operator: `+`"),
        (r"a\y", r"invalid escape sequence: `\y`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{2}{3}?", "invalid nested repetition operator: `{2}{3}?`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(a{100}b){11}", "invalid repeat count: `{11}`"),
        ("a{3,2}", "invalid repeat count: `{3,2}`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        (r"\pX", r"invalid character class range: `\pX`"),
        (r"[\p{greek}]", r"invalid character class range: `\p{greek}`"),
        ("a(?=b)", "invalid or unsupported Perl syntax: `(?=`"),
        ("a(?x)b", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?<!a)b", "invalid named capture: `(?<!a)b`"),
        ("(?P<a-b>c)", "invalid named capture: `(?P<a-b>`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
        ("a\\", "trailing backslash at end of expression: ``"),
    ] {
        let e = Regexp::new(p).expect_err(p);
        assert_eq!(e.to_string(), format!("error parsing regexp: {expect}"));
    }
    assert!(Regexp::new(&"(".repeat(10_000)).is_err());
    let deep = format!("{}a{}", "(".repeat(2_000), ")".repeat(2_000));
    let e = Regexp::new(&deep).expect_err("too deep").to_string();
    assert!(e.starts_with("error parsing regexp: expression nests too deeply: `(("), "{e}");
    let deep = format!("{}a+{}", "(".repeat(490), ")".repeat(490));
    assert!(re(&deep).is_match("aaa"));
}

#[test]
fn expands_as_go() {
    let r = re("(?P<first>[a-z]+)-([0-9]+)");
    for (t, expect) in [
        ("$1", "ab"),
        ("${1}x$2", "abx12"),
        ("$1x", ""),
        ("$first/$2", "ab/12"),
        ("$$1", "$1"),
        ("a$", "a$"),
        ("$0", "ab-12"),
        ("$9", ""),
        ("${", "${"),
    ] {
        assert_eq!(r.expand("ab-12", t).as_deref(), Some(expect), "{t}");
    }
    assert_eq!(r.expand("nope", "$1"), None);
    // Names that stand twice, and that begin with a digit.
    let r = re("(?P<n>a)?(?<n>b)(?P<1st>c)");
    assert_eq!(r.expand("bc", "${n}-${1st}-$n").as_deref(), Some("b-c-b"));
    assert_eq!(r.expand("abc", "$n").as_deref(), Some("a"));
}

#[test]
fn one_group_takes_what_the_engine_says() {
    let strings =
        ["", "a", "ab", "b", "Pod;", "Pod;x", "Pod;x;", "Pod;Pod;", "é", "\n", "aa", "aXa", ";", "a;b"];
    for (pattern, fast) in [
        ("(.*)", true),
        ("(.+)", true),
        ("^(.*)$", true),
        ("Pod;(.*)", true),
        ("(.+);", true),
        ("a(.*)a", true),
        ("(?P<x>.*)", true),
        ("(.*?)", true),
        ("(.*)(.*)", false),
        ("(?i)a(.*)", false),
        ("([^a]*)", false),
        ("(a)", false),
        (".*", false),
        ("(?:.*)", false),
    ] {
        let re = Regexp::new(pattern).expect("valid");
        assert_eq!(re.inner.one_group.is_some(), fast, "{pattern}");
        let engine = regex::Regex::new(&format!("^(?s:{pattern})$")).expect("valid");
        for s in strings {
            let expect = engine.captures(s).map(|caps| {
                let group = |n: usize| caps.get(n).map_or("", |m| m.as_str()).to_owned();
                let named = caps.name("x").map_or("", |m| m.as_str());
                format!("<{}|{}|{named}|$>", group(0), group(1))
            });
            assert_eq!(re.expand(s, "<$0|${1}|$x|$$>$2").as_deref(), expect.as_deref(), "{pattern} {s:?}");
        }
    }
}
