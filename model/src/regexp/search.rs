//! Expressions that are looked for anywhere in a text, as in templates; `.` does not match a newline.

use super::{MAX_NESTING, MAX_PROGRAM_BYTES, RegexpError, expand_go, one_line, reason, syntax};

/// A compiled expression that is not anchored.
#[derive(Debug)]
pub struct SearchRegexp {
    engine: regex::bytes::Regex,
    /// Names of groups with their numbers, in order.
    names: Vec<(String, usize)>,
}

impl SearchRegexp {
    /// Compiles `pattern`, which is in RE2 syntax.
    ///
    /// # Errors
    /// When RE2 would refuse the expression, or its program exceeds 16 MiB.
    pub fn new(pattern: &str) -> Result<Self, RegexpError> {
        let err = |reason: String| RegexpError { pattern: pattern.to_owned(), reason };
        let syntax::Translated { text, names } = syntax::translate(pattern).map_err(err)?;
        let parsed =
            regex_syntax::ParserBuilder::new().utf8(false).nest_limit(MAX_NESTING).build().parse(&text);
        parsed.map_err(|e| err(reason(pattern, &e)))?;
        let mut builder = regex::bytes::RegexBuilder::new(&text);
        let engine = builder.size_limit(MAX_PROGRAM_BYTES).nest_limit(MAX_NESTING + 2).build();
        Ok(Self { engine: engine.map_err(|e| err(one_line(&e.to_string())))?, names })
    }

    /// Whether a part of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.engine.is_match(text.as_bytes())
    }

    /// The text with `template` (`$1`, `${name}`, `$$`) in place of each match. Ends early, and is longer than `limit`,
    /// when it becomes longer.
    #[must_use]
    pub fn replace_all(&self, text: &str, template: &str, limit: usize) -> String {
        let mut out = String::with_capacity(text.len());
        let mut end = 0;
        for captures in self.engine.captures_iter(text.as_bytes()) {
            let Some(found) = captures.get(0) else { continue };
            // Characters are taken whole, so matches begin and end between them.
            out.push_str(text.get(end..found.start()).unwrap_or(""));
            let group = |n| captures.get(n).and_then(|m| text.get(m.range()));
            expand_go(group, &self.names, template, &mut out);
            end = found.end();
            if out.len() > limit {
                return out;
            }
        }
        out.push_str(text.get(end..).unwrap_or(""));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_found_and_replaced_as_go_does() {
        for (pattern, template, text, expect) in [
            ("(.*)a", "x$1", "babab", "xbabb"),
            ("x*", "-", "abc", "-a-b-c-"),
            ("(?P<n>b+)", "<${n}$$>", "abbc", "a<bb$>c"),
            ("b.c", "!", "b\nc bxc", "b\nc !"),
            ("ü", "u", "üü", "uu"),
            ("b", "$1x", "abc", "ac"),
        ] {
            assert_eq!(
                SearchRegexp::new(pattern).unwrap().replace_all(text, template, 1000),
                expect,
                "{pattern}"
            );
        }
        assert!(SearchRegexp::new("b$").unwrap().is_match("ab"));
        assert_eq!(
            SearchRegexp::new("(").unwrap_err().to_string(),
            "error parsing regexp: missing closing ): `(`"
        );
    }
}
