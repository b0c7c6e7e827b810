//! The one place that reads YAML: strict, bounded, and with line and column in every error.
//!
//! Prometheus's files use YAML 1.1 forms (`yes`, `<<` merge keys), which the reader underneath accepts. Repeated keys
//! and keys that no one knows are errors. [`At`] keeps the position of a value for checks that come later.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A position in a YAML file, both counted from 1; 0 when unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// Why a file was refused: one line that names file, position and reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {reason}", file.display(), at(position))]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// Where in it.
    pub position: Position,
    /// What is wrong.
    pub reason: String,
}

fn at(p: &Position) -> String {
    if p.line == 0 { String::new() } else { format!(":{}:{}", p.line, p.column) }
}

impl ConfigError {
    /// An error of the file as a whole.
    pub fn whole(file: &Path, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), position: Position::default(), reason: reason.into() }
    }
}

/// A reason with the position it belongs to; the file is added where it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub position: Position,
    /// What is wrong.
    pub reason: String,
    /// The file is valid, but asks for something that is not built in: it is refused when it is to run, not when it is
    /// parsed.
    pub not_built_in: bool,
}

impl Problem {
    /// A problem without position.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { position: Position::default(), reason: reason.into(), not_built_in: false }
    }

    /// Something valid that is not built in.
    pub fn not_built_in(reason: impl Into<String>) -> Self {
        Self { not_built_in: true, ..Self::new(reason) }
    }

    /// The same problem at `position`, unless it already has one.
    pub fn or_at(self, position: Position) -> Self {
        if self.position.line == 0 { Self { position, ..self } } else { self }
    }

    /// The same problem in a file.
    pub fn in_file(self, file: &Path) -> ConfigError {
        ConfigError { file: file.to_owned(), position: self.position, reason: self.reason }
    }
}

impl From<String> for Problem {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}

/// Files above this size are refused: no configuration is that large, a mistaken path may be.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Nodes in one document. Large generated `static_configs` need more than the reader's default.
const MAX_NODES: usize = 8_000_000;

/// Reads a file into a string.
///
/// # Errors
/// When it cannot be read, is too large, or is not UTF-8.
pub fn read_file(file: &Path) -> Result<String, ConfigError> {
    let whole = |reason: String| ConfigError::whole(file, reason);
    let len = std::fs::metadata(file).map_err(|e| whole(format!("cannot open: {e}")))?.len();
    if len > MAX_FILE_BYTES {
        return Err(whole(format!("is {len} bytes long; at most {MAX_FILE_BYTES} are accepted")));
    }
    let bytes = std::fs::read(file).map_err(|e| whole(format!("cannot read: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        ConfigError {
            file: file.to_owned(),
            position: Position { line: line as u64, column: 1 },
            reason: "invalid UTF-8".into(),
        }
    })
}

/// Parses one YAML document. An empty document gives the default.
///
/// # Errors
/// The first thing that is wrong, with its position.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, Problem> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    options.legacy_octal_numbers = true;
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = MAX_NODES;
        budget.max_events = 4 * MAX_NODES;
        budget.max_total_scalar_bytes = MAX_FILE_BYTES as usize;
    }
    match serde_saphyr::from_str_with_options::<Option<T>>(text, options) {
        Ok(value) => Ok(value.unwrap_or_default()),
        Err(e) => {
            let position =
                e.location().map(|l| Position { line: l.line(), column: l.column() }).unwrap_or_default();
            Err(Problem { position, ..Problem::new(reason(&e.to_string())) })
        }
    }
}

/// The reader appends the position to its texts and advises on its own options; both are cut off.
fn reason(text: &str) -> String {
    let one_line = text.lines().next().unwrap_or(text);
    let cut = one_line.rfind(" at line ").map_or(one_line, |i| &one_line[..i]);
    // What the reader says in terms of Rust.
    for (theirs, ours) in [
        ("cannot deserialize null into string", "a text is expected here, not nothing"),
        ("multiple YAML documents detected", "the file holds several YAML documents; only one is read"),
        ("expected mapping start", "a section with keys is expected here"),
        ("expected sequence start", "a list is expected here"),
        ("expected string scalar", "a text is expected here"),
        ("invalid boolean", "true or false is expected here"),
        ("invalid u16", "a whole number from 0 to 65535 is expected here"),
        ("invalid f64", "a number is expected here"),
    ] {
        if cut.starts_with(theirs) {
            return ours.to_owned();
        }
    }
    cut.replace(", set DuplicateKeyPolicy in Options if acceptable", "")
}

/// A value with its position.
#[derive(Clone, Debug, Default)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands in its file.
    pub position: Position,
}

impl<T> At<T> {
    /// Another value at the same position.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), position: self.position }
    }

    /// A problem at this position.
    pub fn problem(&self, reason: impl Into<String>) -> Problem {
        Problem { position: self.position, ..Problem::new(reason) }
    }
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> std::ops::DerefMut for At<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// A null is an error here: a list entry or value that is written down must say something.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Option<T>>::deserialize(d)?;
        let position = Position { line: spanned.referenced.line(), column: spanned.referenced.column() };
        match spanned.value {
            Some(value) => Ok(Self { value, position }),
            None => Err(D::Error::custom("empty or null section")),
        }
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(s)
    }
}

impl<T: fmt::Display> fmt::Display for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
