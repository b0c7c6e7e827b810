//! Regular expressions as Prometheus has them: RE2 syntax, anchored at both ends, `.` matches a newline.
//!
//! The engine underneath is the `regex` crate, whose syntax differs from RE2 in details; [`Regexp::new`] rewrites those.
//! Literals, alternations of literals, prefixes and suffixes are answered without it.
//!
//! Spec: <https://github.com/google/re2/wiki/Syntax>, <https://prometheus.io/docs/prometheus/latest/querying/basics/#regular-expressions>.

use std::fmt;
use std::sync::Arc;

use regex_syntax::hir::{Hir, HirKind, Look};

/// Why a regular expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {reason}")]
pub struct RegexpError {
    /// The expression as given.
    pub pattern: String,
    /// What is wrong with it, on one line.
    pub reason: String,
}

/// A compiled, fully anchored expression. Cheap to clone.
#[derive(Clone)]
pub struct Regexp {
    inner: Arc<Inner>,
}

struct Inner {
    pattern: String,
    fast: Fast,
    /// Anchored at both ends.
    regex: regex::Regex,
}

/// What can be said of the whole expression without the engine.
#[derive(Debug, PartialEq, Eq)]
enum Fast {
    /// Matches exactly these strings; sorted.
    Set(Vec<String>),
    /// `.*` around literals.
    Affix { prefix: String, suffix: String, min_middle: usize },
    /// `.*literal.*`
    Contains(String),
    /// Ask the engine, but only for strings that begin like this.
    Engine { prefix: String },
}

/// Alternations with more members than this go to the engine.
const MAX_SET_MEMBERS: usize = 4096;
/// Bytes of a compiled program; more is refused, as a bomb would need it.
const MAX_PROGRAM_BYTES: usize = 16 << 20;

impl Regexp {
    /// Compiles `pattern`, which is in RE2 syntax and not anchored by itself.
    ///
    /// # Errors
    /// When RE2 would refuse the expression, or its program exceeds 16 MiB.
    pub fn new(pattern: &str) -> Result<Self, RegexpError> {
        let err = |reason: String| RegexpError { pattern: pattern.to_owned(), reason };
        let translated = translate(pattern).map_err(err)?;
        let hir = regex_syntax::ParserBuilder::new()
            .dot_matches_new_line(true)
            .nest_limit(250)
            .build()
            .parse(&translated)
            .map_err(|e| err(reason(pattern, &e)))?;
        let regex = regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
            .size_limit(MAX_PROGRAM_BYTES)
            .nest_limit(252)
            .build()
            .map_err(|e| err(one_line(&e.to_string())))?;
        Ok(Self { inner: Arc::new(Inner { pattern: pattern.to_owned(), fast: classify(&hir), regex }) })
    }

    /// Whether the whole of `s` matches.
    #[must_use]
    pub fn is_match(&self, s: &str) -> bool {
        match &self.inner.fast {
            Fast::Set(set) => set.binary_search_by(|m| m.as_str().cmp(s)).is_ok(),
            Fast::Affix { prefix, suffix, min_middle } => {
                s.len() >= prefix.len() + suffix.len() + min_middle
                    && s.starts_with(prefix.as_str())
                    && s.ends_with(suffix.as_str())
            }
            Fast::Contains(part) => memchr::memmem::find(s.as_bytes(), part.as_bytes()).is_some(),
            Fast::Engine { prefix } => s.starts_with(prefix.as_str()) && self.inner.regex.is_match(s),
        }
    }

    /// The expression as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.inner.pattern
    }

    /// All strings that match, sorted, when there are finitely many and few; a store then looks them up one by one.
    #[must_use]
    pub fn literal_set(&self) -> Option<&[String]> {
        match &self.inner.fast {
            Fast::Set(set) => Some(set),
            _ => None,
        }
    }

    /// A string with which every match begins; empty when nothing is known. A store narrows its scan of values by it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match &self.inner.fast {
            Fast::Affix { prefix, .. } | Fast::Engine { prefix } => prefix,
            Fast::Set(_) | Fast::Contains(_) => "",
        }
    }

    /// Replaces a whole match by `template` (`$1`, `${name}`, `$$`), as relabeling and `label_replace` do. `None` when
    /// `s` does not match.
    #[must_use]
    pub fn expand(&self, s: &str, template: &str) -> Option<String> {
        let mut out = String::new();
        self.expand_into(s, template, &mut out).then_some(out)
    }

    /// The same, appended to `out`; `false`, and nothing appended, when `s` does not match.
    #[must_use]
    pub fn expand_into(&self, s: &str, template: &str, out: &mut String) -> bool {
        let Some(caps) = self.inner.regex.captures(s) else { return false };
        expand_go(&caps, template, out);
        true
    }
}

impl fmt::Debug for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regexp({:?})", self.inner.pattern)
    }
}

impl PartialEq for Regexp {
    fn eq(&self, other: &Self) -> bool {
        self.inner.pattern == other.inner.pattern
    }
}

impl Eq for Regexp {}

/// Go's `Regexp.Expand`: `$name` takes the longest run of letters, digits and `_`; `$1x` is the group `1x`, which does
/// not exist and gives nothing; a `$` that starts no reference stays.
fn expand_go(caps: &regex::Captures<'_>, template: &str, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let (name, tail) = match rest.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => (&inner[..end], &inner[end + 1..]),
                None => ("", rest),
            },
            None => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                (&rest[..end], &rest[end..])
            }
        };
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            out.push('$');
            continue;
        }
        let group = match name.parse::<usize>() {
            Ok(n) if !name.starts_with('0') || name == "0" => caps.get(n),
            _ => caps.name(name),
        };
        out.push_str(group.map_or("", |m| m.as_str()));
        rest = tail;
    }
    out.push_str(rest);
}

/// What is wrong in the words of Go's `regexp`, as far as it has some for it.
fn reason(pattern: &str, e: &regex_syntax::Error) -> String {
    use regex_syntax::ast::ErrorKind;
    let regex_syntax::Error::Parse(parse) = e else {
        return one_line(&e.to_string());
    };
    let (start, end) = (parse.span().start.offset, parse.span().end.offset);
    let rest = parse.pattern().get(start..).unwrap_or("");
    match parse.kind() {
        ErrorKind::GroupUnclosed => format!("missing closing ): `{pattern}`"),
        ErrorKind::GroupUnopened => format!("unexpected ): `{pattern}`"),
        ErrorKind::ClassUnclosed => format!("missing closing ]: `{rest}`"),
        ErrorKind::ClassRangeInvalid => {
            let range = parse.pattern().get(start..end).unwrap_or("");
            format!("invalid character class range: `{range}`")
        }
        ErrorKind::RepetitionMissing => {
            let mut len =
                if rest.starts_with('{') { rest.find('}').map_or(rest.len(), |i| i + 1) } else { 1 };
            len += usize::from(rest.get(len..).is_some_and(|r| r.starts_with('?')));
            format!("missing argument to repetition operator: `{}`", rest.get(..len).unwrap_or(rest))
        }
        _ => one_line(&e.to_string()),
    }
}

fn one_line(s: &str) -> String {
    // regex-syntax draws the position below the pattern; its last line holds the reason.
    let last = s.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or(s).trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn classify(hir: &Hir) -> Fast {
    if let Some(mut set) = literals(hir) {
        set.sort();
        set.dedup();
        return Fast::Set(set);
    }
    let parts: Vec<&Hir> = match hir.kind() {
        HirKind::Concat(parts) => parts.iter().collect(),
        _ => vec![hir],
    };
    let any = |h: &Hir| any_min(h);
    match parts.as_slice() {
        [mid] if any(mid).is_some() => affix("", mid, ""),
        [a, mid] if any(mid).is_some() => match literal(a) {
            Some(p) => affix(&p, mid, ""),
            None => engine(&parts),
        },
        [mid, b] if any(mid).is_some() => match literal(b) {
            Some(s) => affix("", mid, &s),
            None => engine(&parts),
        },
        [a, mid, b] if any(mid).is_some() => match (literal(a), literal(b)) {
            (Some(p), Some(s)) => affix(&p, mid, &s),
            _ => engine(&parts),
        },
        [a, lit, b] if any(a) == Some(0) && any(b) == Some(0) => match literal(lit) {
            Some(s) => Fast::Contains(s),
            None => engine(&parts),
        },
        _ => engine(&parts),
    }
}

fn affix(prefix: &str, middle: &Hir, suffix: &str) -> Fast {
    let min_middle = any_min(middle).expect("callers checked that the middle is `.*` or `.+`");
    Fast::Affix { prefix: prefix.to_owned(), suffix: suffix.to_owned(), min_middle }
}

fn engine(parts: &[&Hir]) -> Fast {
    Fast::Engine { prefix: parts.first().and_then(|h| literal(h)).unwrap_or_default() }
}

/// 0 for `.*`, 1 for `.+`, where `.` is any character.
fn any_min(h: &Hir) -> Option<usize> {
    let HirKind::Repetition(r) = h.kind() else { return None };
    if r.max.is_some() || r.min > 1 {
        return None;
    }
    match r.sub.kind() {
        HirKind::Class(regex_syntax::hir::Class::Unicode(c)) if matches!(c.ranges(), [r] if r.start() == '\0' && r.end() == char::MAX) => {
            Some(r.min as usize)
        }
        _ => None,
    }
}

fn literal(h: &Hir) -> Option<String> {
    match h.kind() {
        HirKind::Literal(l) => String::from_utf8(l.0.to_vec()).ok(),
        _ => None,
    }
}

/// All strings of a finite expression.
fn literals(h: &Hir) -> Option<Vec<String>> {
    match h.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(_) => literal(h).map(|s| vec![s]),
        // The whole expression is anchored anyway, but only at its very ends, so inner anchors go to the engine.
        HirKind::Look(Look::Start | Look::End) => None,
        HirKind::Look(_) | HirKind::Repetition(_) => None,
        HirKind::Class(regex_syntax::hir::Class::Unicode(c)) => {
            let count: usize = c.ranges().iter().map(|r| r.end() as usize - r.start() as usize + 1).sum();
            if count > 64 {
                return None;
            }
            Some(c.ranges().iter().flat_map(|r| (r.start()..=r.end()).map(String::from)).collect())
        }
        HirKind::Class(_) => None,
        HirKind::Capture(c) => literals(&c.sub),
        HirKind::Alternation(alts) => {
            let mut out = Vec::new();
            for a in alts {
                out.extend(literals(a)?);
                if out.len() > MAX_SET_MEMBERS {
                    return None;
                }
            }
            Some(out)
        }
        HirKind::Concat(parts) => {
            let mut out = vec![String::new()];
            for p in parts {
                let tails = literals(p)?;
                if out.len().saturating_mul(tails.len()) > MAX_SET_MEMBERS {
                    return None;
                }
                out = out.iter().flat_map(|head| tails.iter().map(move |t| format!("{head}{t}"))).collect();
            }
            Some(out)
        }
    }
}

/// Rewrites RE2 syntax into that of the `regex` crate where the two differ.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // Position inside a class, if any: true right after `[` or `[^`, where a `]` is literal.
    let mut class: Option<bool> = None;
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        match (c, class) {
            ('\\', _) => {
                let Some(e) = tail.chars().next() else {
                    return Err("trailing backslash at end of expression".into());
                };
                rest = escape(e, &tail[e.len_utf8()..], class.is_some(), &mut out)?;
                class = class.map(|_| false);
                continue;
            }
            ('[', None) => {
                out.push('[');
                rest = tail;
                if let Some(t) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = t;
                }
                class = Some(true);
                continue;
            }
            ('[', Some(_)) if tail.starts_with(':') => match tail.find(":]") {
                Some(end) => {
                    out.push('[');
                    out.push_str(&tail[..end + 2]);
                    rest = &tail[end + 2..];
                    class = Some(false);
                    continue;
                }
                None => out.push_str("\\["),
            },
            ('[', Some(_)) => out.push_str("\\["),
            (']', Some(false)) => {
                out.push(']');
                rest = tail;
                class = None;
                continue;
            }
            (']', Some(true)) => out.push_str("\\]"),
            // `&&`, `--` and `~~` are set operations in the crate's classes and plain characters in RE2's.
            ('&' | '~', Some(_)) => {
                out.push('\\');
                out.push(c);
            }
            ('-', Some(_)) if tail.starts_with('-') => {
                // `a--` and `--a`: a range that starts or ends in a dash.
                out.push('-');
                out.push_str("\\-");
                rest = &tail[1..];
                class = Some(false);
                continue;
            }
            ('{', None) if !is_repetition(rest) => out.push_str("\\{"),
            ('(', None) if tail.starts_with('?') => {
                let flags = &tail[1..];
                let end = flags.find([':', ')', '<', 'P']).unwrap_or(flags.len());
                if let Some(bad) = flags[..end].chars().find(|f| !matches!(f, 'i' | 'm' | 's' | 'U' | '-')) {
                    return Err(format!("invalid or unsupported Perl syntax: `(?{bad}`"));
                }
                out.push('(');
            }
            _ => out.push(c),
        }
        class = class.map(|_| false);
        rest = tail;
    }
    Ok(out)
}

/// Whether the text starts with `{n}`, `{n,}` or `{n,m}`.
fn is_repetition(s: &str) -> bool {
    let Some(end) = s.find('}') else { return false };
    let (a, b) = s[1..end].split_once(',').map_or((&s[1..end], ""), |(a, b)| (a, b));
    !a.is_empty() && a.bytes().all(|c| c.is_ascii_digit()) && b.bytes().all(|c| c.is_ascii_digit())
}

/// Writes the escape `\e`; gives the text after it.
fn escape<'a>(e: char, tail: &'a str, in_class: bool, out: &mut String) -> Result<&'a str, String> {
    let perl = |set: &str, negated: bool| match (in_class, negated) {
        (true, false) => set.to_owned(),
        (_, true) => format!("[^{set}]"),
        (false, false) => format!("[{set}]"),
    };
    const DIGIT: &str = "0-9";
    const WORD: &str = "0-9A-Za-z_";
    const SPACE: &str = r"\t\n\x0C\r ";
    match e {
        'd' => out.push_str(&perl(DIGIT, false)),
        'D' => out.push_str(&perl(DIGIT, true)),
        'w' => out.push_str(&perl(WORD, false)),
        'W' => out.push_str(&perl(WORD, true)),
        's' => out.push_str(&perl(SPACE, false)),
        'S' => out.push_str(&perl(SPACE, true)),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'B' if !in_class => out.push_str(r"\B"),
        'Q' if !in_class => {
            let (quoted, after) = tail.split_once("\\E").unwrap_or((tail, ""));
            out.push_str(&regex_syntax::escape(quoted));
            return Ok(after);
        }
        'C' => return Err(r"invalid escape sequence: `\C`".into()),
        '0'..='7' => {
            let digits = tail.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            if e != '0' && digits == 0 {
                return Err(format!("invalid escape sequence: `\\{e}`"));
            }
            let octal = format!("{e}{}", &tail[..digits]);
            let code = u32::from_str_radix(&octal, 8).map_err(|err| err.to_string())?;
            out.push_str(&format!("\\x{{{code:x}}}"));
            return Ok(&tail[digits..]);
        }
        'a' | 'f' | 't' | 'n' | 'r' | 'v' | 'x' | 'p' | 'P' | 'A' | 'z' => {
            out.push('\\');
            out.push(e);
        }
        e if e.is_ascii_punctuation() => {
            // Some escaped punctuation means something else to the crate (`\<`, `\>`), so every character is escaped
            // by the crate's own rule.
            let mut buf = [0; 4];
            out.push_str(&regex_syntax::escape(e.encode_utf8(&mut buf)));
        }
        e => return Err(format!("invalid escape sequence: `\\{e}`")),
    }
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            let r = re(p);
            for s in yes {
                assert!(r.is_match(s), "{p} should match {s:?} ({:?})", r.inner.fast);
            }
            for s in no {
                assert!(!r.is_match(s), "{p} should not match {s:?} ({:?})", r.inner.fast);
            }
        }
    }

    #[test]
    fn tells_stores_what_it_knows() {
        assert_eq!(re("b|a|a").literal_set(), Some(["a".to_owned(), "b".to_owned()].as_slice()));
        assert_eq!(re("abc.*").prefix(), "abc");
        assert_eq!(re("abc[0-9]+x").prefix(), "abc");
        assert_eq!(re("(?i)abc.*").prefix(), "");
    }

    #[test]
    fn refuses_what_re2_refuses() {
        for p in ["(", "a**b(", "[z-a]", r"\y", "(?x)a", "*", "a\\"] {
            let e = Regexp::new(p).expect_err(p);
            assert!(!e.reason.contains('\n'), "{e}");
        }
        for (p, expect) in [
            ("(a", "missing closing ): `(a`"),
            ("b)", "unexpected ): `b)`"),
            ("x[ab", "missing closing ]: `[ab`"),
            ("[ab-]z[y-x]", "invalid character class range: `y-x`"),
            ("*?a", "missing argument to repetition operator: `*?`"),
            (r"a\y", r"invalid escape sequence: `\y`"),
        ] {
            let e = Regexp::new(p).expect_err(p);
            assert_eq!(e.to_string(), format!("error parsing regexp: {expect}"));
        }
        assert!(Regexp::new(&"(".repeat(10_000)).is_err());
        assert!(Regexp::new("((a{1000}){1000}){1000}").is_err());
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
    }
}
