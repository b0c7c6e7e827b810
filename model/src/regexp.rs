//! Regular expressions as Prometheus has them: RE2 syntax, anchored at both ends, `.` matches a newline.
//!
//! The engine underneath is the `regex` crate, whose syntax differs from RE2 in details, which `syntax` rewrites. What can be
//! told without the engine, `shape` tells: texts, and texts with wildcards between them.
//!
//! Spec: <https://github.com/google/re2/wiki/Syntax>, <https://prometheus.io/docs/prometheus/latest/querying/basics/#regular-expressions>.

use std::fmt;
use std::sync::{Arc, OnceLock};

use one_group::OneGroup;
pub use search::SearchRegexp;
use shape::{Judgement, Shape};

mod one_group;
mod search;
mod shape;
mod syntax;

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
    /// In the syntax of the engine, anchored at both ends.
    anchored: String,
    /// Names of groups with their numbers, in order.
    names: Vec<(String, usize)>,
    shape: Option<Shape>,
    one_group: Option<OneGroup>,
    /// Whether what begins like none of these does not match; for a store.
    prefixes: Vec<String>,
    /// Made when it is needed first; at once, when there is nothing else.
    engine: OnceLock<regex::bytes::Regex>,
}

/// Bytes of a compiled program; more is refused, as a bomb would need it.
const MAX_PROGRAM_BYTES: usize = 16 << 20;
/// How deep groups may be nested. Prometheus allows 1,000 nodes, which is about half as many groups with something in them.
const MAX_NESTING: u32 = 500;

impl Regexp {
    /// Compiles `pattern`, which is in RE2 syntax and not anchored by itself.
    ///
    /// # Errors
    /// When RE2 would refuse the expression, or its program exceeds 16 MiB.
    pub fn new(pattern: &str) -> Result<Self, RegexpError> {
        let err = |reason: String| RegexpError { pattern: pattern.to_owned(), reason };
        let syntax::Translated { text, names } = syntax::translate(pattern).map_err(err)?;
        let hir = regex_syntax::ParserBuilder::new()
            .dot_matches_new_line(true)
            .utf8(false)
            .nest_limit(MAX_NESTING)
            .build()
            .parse(&text)
            .map_err(|e| err(reason(pattern, &e)))?;
        let shape = Shape::of(&hir);
        let inner = Inner {
            pattern: pattern.to_owned(),
            anchored: format!("^(?s:{text})$"),
            names,
            prefixes: shape.as_ref().map_or_else(|| vec![String::new()], Shape::prefixes),
            engine: OnceLock::new(),
            one_group: OneGroup::of(&hir),
            shape,
        };
        if !inner.shape.as_ref().is_some_and(Shape::is_exact) {
            let engine = inner.compile(MAX_PROGRAM_BYTES).map_err(|e| err(one_line(&e.to_string())))?;
            inner.engine.get_or_init(|| engine);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether the whole of `s` matches.
    #[must_use]
    pub fn is_match(&self, s: &str) -> bool {
        let judged = self.inner.shape.as_ref().map_or(Judgement::Unknown, |shape| shape.judge(s));
        match judged {
            Judgement::Match => true,
            Judgement::NoMatch => false,
            Judgement::Unknown => self.inner.engine().is_match(s.as_bytes()),
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
        self.inner.shape.as_ref()?.set()
    }

    /// Every match begins with one of these; only the empty string, when nothing is known. None is the beginning of another
    /// one, and they are sorted: a store narrows its scan of values by them.
    #[must_use]
    pub fn prefixes(&self) -> &[String] {
        &self.inner.prefixes
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
        if let Some(one) = &self.inner.one_group {
            let Some(taken) = one.take(s) else { return false };
            let group = |n| match n {
                0 => Some(s),
                1 => Some(taken),
                _ => None,
            };
            expand_go(group, &self.inner.names, template, out);
            return true;
        }
        if self.inner.shape.as_ref().is_some_and(|shape| shape.judge(s) == Judgement::NoMatch) {
            return false;
        }
        let Some(caps) = self.inner.engine().captures(s.as_bytes()) else { return false };
        // Characters are taken whole, so groups begin and end between them.
        expand_go(|n| caps.get(n).and_then(|m| s.get(m.range())), &self.inner.names, template, out);
        true
    }
}

impl Inner {
    fn engine(&self) -> &regex::bytes::Regex {
        self.engine.get_or_init(|| {
            // An exact shape means that nothing is repeated by number, so that the program grows with the text only.
            self.compile(usize::MAX).expect("it was parsed before, and is bounded by the length of its text")
        })
    }

    fn compile(&self, max_program_bytes: usize) -> Result<regex::bytes::Regex, regex::Error> {
        let mut builder = regex::bytes::RegexBuilder::new(&self.anchored);
        builder.size_limit(max_program_bytes).nest_limit(MAX_NESTING + 2).build()
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
fn expand_go<'s>(
    group: impl Fn(usize) -> Option<&'s str>,
    names: &[(String, usize)],
    template: &str,
    out: &mut String,
) {
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
        let taken = match name.parse::<usize>() {
            Ok(n) if !name.starts_with('0') || name == "0" => group(n),
            // Of several groups of one name the first that took part.
            _ => names.iter().filter(|(n, _)| n == name).find_map(|(_, number)| group(*number)),
        };
        out.push_str(taken.unwrap_or(""));
        rest = tail;
    }
    out.push_str(rest);
}

/// What is wrong that only the engine's parser sees.
fn reason(pattern: &str, e: &regex_syntax::Error) -> String {
    match e {
        regex_syntax::Error::Parse(parse)
            if matches!(parse.kind(), regex_syntax::ast::ErrorKind::NestLimitExceeded(_)) =>
        {
            format!("expression nests too deeply: `{pattern}`")
        }
        _ => one_line(&e.to_string()),
    }
}

fn one_line(s: &str) -> String {
    // regex-syntax draws the position below the pattern; its last line holds the reason.
    let last = s.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or(s).trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests;
