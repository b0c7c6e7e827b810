//! Label matchers: what a selector asks of one label.

use std::fmt;

use crate::labels::{Labels, Quoted, is_legacy_label_name};
use crate::regexp::{Regexp, RegexpError};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regexp,
    /// `!~`
    NotRegexp,
}

impl MatchOp {
    /// The operator as PromQL writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regexp => "=~",
            Self::NotRegexp => "!~",
        }
    }
}

/// One condition on one label. An absent label has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Label name.
    pub name: String,
    /// How to compare.
    pub op: MatchOp,
    /// The value, or the text of the regular expression.
    pub value: String,
    regexp: Option<Regexp>,
}

impl Matcher {
    /// A matcher; compiles the expression for the regular-expression operators.
    ///
    /// # Errors
    /// When the regular expression is not valid.
    pub fn new(op: MatchOp, name: impl Into<String>, value: impl Into<String>) -> Result<Self, RegexpError> {
        let (name, value) = (name.into(), value.into());
        let regexp = match op {
            MatchOp::Regexp | MatchOp::NotRegexp => Some(Regexp::new(&value)?),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name, op, value, regexp })
    }

    /// An equality matcher.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regexp: None }
    }

    /// An inequality matcher.
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::NotEqual, value: value.into(), regexp: None }
    }

    /// Whether the value of the label passes.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match (&self.regexp, self.op) {
            (None, MatchOp::Equal) => value == self.value,
            (None, _) => value != self.value,
            (Some(re), MatchOp::Regexp) => re.is_match(value),
            (Some(re), _) => !re.is_match(value),
        }
    }

    /// Whether a series without the label passes. Such a matcher cannot be answered from the postings of its label
    /// alone.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The compiled expression of `=~` and `!~`.
    #[must_use]
    pub fn regexp(&self) -> Option<&Regexp> {
        self.regexp.as_ref()
    }

    /// Whether a series passes all matchers.
    #[must_use]
    pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
        matchers.iter().all(|m| m.matches(labels.value(&m.name)))
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            write!(f, "{}{}{}", self.name, self.op.as_str(), Quoted(&self.value))
        } else {
            write!(f, "{}{}{}", Quoted(&self.name), self.op.as_str(), Quoted(&self.value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_label_is_the_empty_value() {
        let l = Labels::from_pairs([("a", "1")]);
        let check = |op, name: &str, value: &str, expect: bool| {
            let m = Matcher::new(op, name, value).expect("valid");
            assert_eq!(Matcher::all_match(std::slice::from_ref(&m), &l), expect, "{m}");
        };
        check(MatchOp::Equal, "b", "", true);
        check(MatchOp::NotEqual, "b", "", false);
        check(MatchOp::Equal, "a", "1", true);
        check(MatchOp::Regexp, "a", "1|2", true);
        check(MatchOp::Regexp, "a", "[0-9]", true);
        check(MatchOp::NotRegexp, "a", ".+", false);
        check(MatchOp::Regexp, "b", ".*", true);
    }
}
