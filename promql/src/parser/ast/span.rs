//! Places in a query text.

/// A range of bytes `[start, end)` of the query text. Two spans are always equal: positions do not make two expressions
/// differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Span {}

impl Span {
    /// The range `[start, end)`.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// From the start of `self` to the end of `last`.
    #[must_use]
    pub fn to(self, last: Span) -> Self {
        Self { start: self.start, end: last.end }
    }

    /// Where the span starts in `query`, as `LINE:COL`. Both count from 1, columns in bytes.
    #[must_use]
    pub fn line_col(self, query: &str) -> String {
        if query.is_empty() {
            return "unknown position".into();
        }
        let pos = self.start as usize;
        let Some(before) = query.as_bytes().get(..pos) else {
            return "invalid position".into();
        };
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let col = match before.iter().rposition(|b| *b == b'\n') {
            Some(i) => pos - i,
            None => pos + 1,
        };
        format!("{line}:{col}")
    }
}
