//! Warnings and infos that an answer carries beside its data.

use std::collections::BTreeSet;

/// A set of warnings and infos, each kept once, sorted by text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
}

impl Annotations {
    /// No annotation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a warning: the answer may be wrong or incomplete.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.insert(text.into());
    }

    /// Adds an info: the query may not mean what its author thinks.
    pub fn info(&mut self, text: impl Into<String>) {
        self.infos.insert(text.into());
    }

    /// Takes over all of `other`.
    pub fn merge(&mut self, other: Annotations) {
        self.warnings.extend(other.warnings);
        self.infos.extend(other.infos);
    }

    /// Whether there is neither warning nor info.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }

    /// Warnings, sorted.
    pub fn warnings(&self) -> impl ExactSizeIterator<Item = &str> {
        self.warnings.iter().map(String::as_str)
    }

    /// Infos, sorted.
    pub fn infos(&self) -> impl ExactSizeIterator<Item = &str> {
        self.infos.iter().map(String::as_str)
    }
}
