//! Why a text is no expression, and where.

use super::ast::Span;

/// A parse error. Prints as `LINE:COL: parse error: reason`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: parse error: {reason}")]
pub struct ParseError {
    /// The part of the query text concerned.
    pub span: Span,
    /// Where that starts: `LINE:COL`.
    pub position: String,
    /// What is wrong, without the position.
    pub reason: String,
}

impl ParseError {
    pub(super) fn new(query: &str, span: Span, reason: impl Into<String>) -> Self {
        Self { span, position: span.line_col(query), reason: reason.into() }
    }
}
