//! Label sets: the identity of a series.
//!
//! [`Labels`] is one reference-counted allocation that holds all names and values in a packed form, sorted by name.
//! Cloning is a counter, equality a `memcmp`. Building goes through [`LabelsBuilder`] or [`Labels::from_pairs`].
//!
//! # Packed form
//!
//! Name and value follow each other, each preceded by its length. A length below 127 is one byte; a longer one is the
//! byte 127 and then four bytes of seven bits each, most significant first. All length bytes are below 128, so the
//! packed form is itself valid UTF-8 and can be sliced without re-validation.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Name of the label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
/// Upper bound of a histogram bucket.
pub const BUCKET_LABEL: &str = "le";
/// Quantile of a summary.
pub const QUANTILE_LABEL: &str = "quantile";
/// Label that carries the metric type when type-and-unit labels are on.
pub const TYPE_LABEL: &str = "__type__";
/// Label that carries the metric unit when type-and-unit labels are on.
pub const UNIT_LABEL: &str = "__unit__";

/// Longest name or value that fits the packed form, in bytes.
pub const MAX_LEN_BYTES: usize = (1 << 28) - 1;
const LONG_LEN: u8 = 127;

/// A sorted, immutable set of label pairs. Names are unique; an empty value is the same as an absent label and is
/// never stored.
#[derive(Clone)]
pub struct Labels {
    packed: Arc<str>,
}

static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

impl Labels {
    /// The label set without labels.
    #[must_use]
    pub fn empty() -> Self {
        Self { packed: EMPTY.clone() }
    }

    /// Builds a set from pairs in any order. Pairs with an empty value are dropped; of several pairs with one name the
    /// last counts.
    pub fn from_pairs<I, N, V>(pairs: I) -> Self
    where
        I: IntoIterator<Item = (N, V)>,
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut builder = LabelsBuilder::new();
        for (n, v) in pairs {
            builder.set(n.as_ref(), v.as_ref());
        }
        builder.build()
    }

    /// Builds a set from pairs that are already strictly sorted by name and have no empty value: one allocation, no
    /// copy of the pairs. Used on ingestion paths.
    ///
    /// # Panics
    /// When the pairs are not strictly sorted by name, or a value is empty: that is a bug of the caller.
    pub fn from_sorted<'a, I>(pairs: I) -> Self
    where
        I: IntoIterator<Item = (&'a str, &'a str)> + Clone,
    {
        let mut len = 0;
        let mut prev: Option<&str> = None;
        for (n, v) in pairs.clone() {
            assert!(prev.is_none_or(|p| p < n), "label names are strictly sorted");
            assert!(!v.is_empty(), "empty label values are not stored");
            prev = Some(n);
            len += packed_len(n) + packed_len(v);
        }
        let mut packed = String::with_capacity(len);
        for (n, v) in pairs {
            push_packed(&mut packed, n);
            push_packed(&mut packed, v);
        }
        Self { packed: packed.into() }
    }

    /// Takes over a packed form made by [`Labels::as_packed`].
    ///
    /// Returns `None` when the bytes are not a packed form: lengths that run over the end, names out of order, empty
    /// values.
    #[must_use]
    pub fn from_packed(packed: &str) -> Option<Self> {
        let mut rest = packed;
        let mut prev: Option<&str> = None;
        while !rest.is_empty() {
            let name = checked_split(&mut rest)?;
            let value = checked_split(&mut rest)?;
            if value.is_empty() || prev.is_some_and(|p| p >= name) {
                return None;
            }
            prev = Some(name);
        }
        Some(Self { packed: packed.into() })
    }

    /// The packed form (see the module's documentation). Equal sets have equal packed forms.
    #[must_use]
    pub fn as_packed(&self) -> &str {
        &self.packed
    }

    /// The value of a label, or `None` when it is absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        for (n, v) in self.iter() {
            match n.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(v),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The value of a label; the empty string when it is absent, as PromQL sees it.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// The metric name, or the empty string.
    #[must_use]
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// Whether the label is present.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Pairs in order of their names.
    #[must_use]
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.packed }
    }

    /// Number of labels. Walks the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Heap bytes of this set, the reference counts included.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.packed.len() + 16
    }

    /// XXH3 of the packed form with seed 0. It is the same in every process and version, so it may decide where
    /// something is stored or sent.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.packed.as_bytes())
    }

    /// The hash that a stock Prometheus computes for this set (XXH64 of its own packed form, where a length below
    /// 255 is one byte and a longer one is 255 and three bytes, little-endian). `limit_ratio` picks series by it.
    #[must_use]
    pub fn prometheus_hash64(&self) -> u64 {
        let mut h = xxhash_rust::xxh64::Xxh64::new(0);
        let mut put = |s: &str| {
            if s.len() < 255 {
                h.update(&[s.len() as u8]);
            } else {
                h.update(&[255, s.len() as u8, (s.len() >> 8) as u8, (s.len() >> 16) as u8]);
            }
            h.update(s.as_bytes());
        };
        for (n, v) in self.iter() {
            put(n);
            put(v);
        }
        h.digest()
    }

    /// The set with only the named labels. `names` is in any order.
    #[must_use]
    pub fn keep<S: AsRef<str>>(&self, names: &[S]) -> Self {
        self.filter(|n| names.iter().any(|k| k.as_ref() == n))
    }

    /// The set without the named labels. `names` is in any order.
    #[must_use]
    pub fn without<S: AsRef<str>>(&self, names: &[S]) -> Self {
        self.filter(|n| !names.iter().any(|k| k.as_ref() == n))
    }

    /// The set without its metric name.
    #[must_use]
    pub fn without_metric_name(&self) -> Self {
        self.filter(|n| n != METRIC_NAME)
    }

    /// The labels whose name passes. Returns a clone of `self` without allocating when all do.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let mut rest: &str = &self.packed;
        let total = rest.len();
        // What passes is one run in most cases, such as all but the metric name; only further runs need a buffer.
        let mut run = 0..0;
        let mut before = String::new();
        while !rest.is_empty() {
            let start = total - rest.len();
            let name = split_packed(&mut rest);
            let _value = split_packed(&mut rest);
            let end = total - rest.len();
            if !keep(name) {
                continue;
            }
            if run.end == start {
                run.end = end;
                continue;
            }
            if !run.is_empty() {
                before.reserve(total);
                before.push_str(&self.packed[run]);
            }
            run = start..end;
        }
        if run.len() == total {
            return self.clone();
        }
        if before.is_empty() {
            return if run.is_empty() { Self::empty() } else { Self { packed: self.packed[run].into() } };
        }
        before.push_str(&self.packed[run]);
        Self { packed: before.into() }
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed) || self.packed == other.packed
    }
}

impl Eq for Labels {}

impl std::hash::Hash for Labels {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.packed.as_bytes());
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Pair by pair, name before value; a set that is a prefix of another comes first. This is the order of every
/// `SeriesSet` and of every matrix in an answer.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.packed, &other.packed) {
            return Ordering::Equal;
        }
        cmp_packed(&self.packed, &other.packed)
    }
}

/// Prints as PromQL writes it: `name{a="b", c="d"}`, names that are no plain identifiers in quotes.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        let plain = is_legacy_metric_name(name);
        if plain {
            f.write_str(name)?;
        }
        let mut first = true;
        for (n, v) in self.iter() {
            if n == METRIC_NAME && plain {
                continue;
            }
            f.write_str(if first { "{" } else { ", " })?;
            first = false;
            if n == METRIC_NAME {
                write!(f, "{}", Quoted(v))?;
            } else if is_legacy_label_name(n) {
                write!(f, "{n}={}", Quoted(v))?;
            } else {
                write!(f, "{}={}", Quoted(n), Quoted(v))?;
            }
        }
        if first {
            if !plain {
                f.write_str("{}")?;
            }
            return Ok(());
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;
    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

/// Pairs of a [`Labels`] in order of their names.
#[derive(Clone)]
pub struct LabelsIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name = split_packed(&mut self.rest);
        let value = split_packed(&mut self.rest);
        Some((name, value))
    }
}

impl<'a> LabelsIter<'a> {
    /// The pairs that are still to come, in packed form.
    #[must_use]
    pub fn as_packed(&self) -> &'a str {
        self.rest
    }
}

/// Writes labels that come in order of their names straight into the packed form. Reusable, so that a set costs the one
/// allocation it lives in. For ingestion paths; elsewhere [`LabelsBuilder`] is the one to use.
#[derive(Clone, Default, Debug)]
pub struct LabelsWriter {
    packed: String,
}

impl LabelsWriter {
    /// A writer without labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts again.
    pub fn clear(&mut self) {
        self.packed.clear();
    }

    /// Adds a label. Its name is above all names before, neither string is longer than [`MAX_LEN_BYTES`], the value
    /// is not empty.
    ///
    /// # Panics
    /// When a string is too long: that is a bug of the caller.
    pub fn push(&mut self, name: &str, value: &str) {
        debug_assert!(!value.is_empty(), "empty label values are not stored");
        self.packed.reserve(packed_len(name) + packed_len(value));
        push_packed(&mut self.packed, name);
        push_packed(&mut self.packed, value);
    }

    /// Adds labels that are packed already: a part of what [`LabelsIter::as_packed`] gives, cut between pairs.
    pub fn push_packed(&mut self, pairs: &str) {
        self.packed.push_str(pairs);
    }

    /// Pairs as they stand, in order of their names.
    #[must_use]
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.packed }
    }

    /// The label set as it stands. The writer can be used further.
    #[must_use]
    pub fn build(&self) -> Labels {
        debug_assert!(Labels::from_packed(&self.packed).is_some(), "label names are strictly sorted");
        if self.packed.is_empty() {
            return Labels::empty();
        }
        Labels { packed: Arc::from(self.packed.as_str()) }
    }
}

/// Collects label changes and makes a [`Labels`]. Reusable: [`LabelsBuilder::reset`] and [`LabelsBuilder::clear`] keep the
/// buffers, so that one builder serves any number of sets without allocating.
#[derive(Clone, Default, Debug)]
pub struct LabelsBuilder {
    /// All names and values, and what they were before: a change appends.
    text: String,
    /// Sorted by name, unique, no empty value.
    pairs: Vec<Pair>,
    /// Bytes of `text` that no pair points to any more.
    unused_bytes: usize,
    /// For whoever rewrites the labels and needs a buffer for a moment.
    pub(crate) scratch: String,
}

/// Where a name and a value stand in the text of a builder.
#[derive(Clone, Copy, Debug)]
struct Pair {
    name: Span,
    value: Span,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

/// Unused bytes a builder keeps before it considers moving the others together.
const UNUSED_BYTES_KEPT: usize = 4096;

impl Span {
    fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }

    fn len_bytes(self) -> usize {
        (self.end - self.start) as usize
    }
}

impl LabelsBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that starts from `base`.
    #[must_use]
    pub fn from_labels(base: &Labels) -> Self {
        let mut b = Self::new();
        b.reset(base);
        b
    }

    /// Starts again from `base`.
    pub fn reset(&mut self, base: &Labels) {
        self.clear();
        for (name, value) in base.iter() {
            let pair = Pair { name: self.append(name), value: self.append(value) };
            self.pairs.push(pair);
        }
    }

    /// Starts again from nothing.
    pub fn clear(&mut self) {
        self.text.clear();
        self.pairs.clear();
        self.unused_bytes = 0;
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.find(name) {
            Ok(i) if value.is_empty() => self.remove(i),
            Ok(i) => {
                self.unused_bytes += self.pairs[i].value.len_bytes();
                self.pairs[i].value = self.append(value);
                self.tidy();
            }
            Err(_) if value.is_empty() => {}
            Err(i) => {
                let pair = Pair { name: self.append(name), value: self.append(value) };
                self.pairs.insert(i, pair);
            }
        }
        self
    }

    /// Removes a label.
    pub fn del(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The value of a label, or the empty string.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        match self.find(name) {
            Ok(i) => self.pairs[i].value.of(&self.text),
            Err(_) => "",
        }
    }

    /// Pairs as they stand, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs.iter().map(|pair| (pair.name.of(&self.text), pair.value.of(&self.text)))
    }

    /// Keeps the labels for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        let (text, unused) = (&self.text, &mut self.unused_bytes);
        self.pairs.retain(|pair| {
            let kept = keep(pair.name.of(text), pair.value.of(text));
            if !kept {
                *unused += pair.name.len_bytes() + pair.value.len_bytes();
            }
            kept
        });
    }

    /// Whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The label set as it stands. The builder can be used further.
    #[must_use]
    pub fn build(&self) -> Labels {
        if self.pairs.is_empty() {
            return Labels::empty();
        }
        Labels::from_sorted(self.iter())
    }

    /// The place of `name`, or where it would be. Sets are mostly written in order, so the end is looked at first.
    fn find(&self, name: &str) -> Result<usize, usize> {
        match self.pairs.last() {
            Some(last) if last.name.of(&self.text) >= name => {
                self.pairs.binary_search_by(|pair| pair.name.of(&self.text).cmp(name))
            }
            _ => Err(self.pairs.len()),
        }
    }

    fn remove(&mut self, i: usize) {
        let pair = self.pairs.remove(i);
        self.unused_bytes += pair.name.len_bytes() + pair.value.len_bytes();
        self.tidy();
    }

    fn append(&mut self, s: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(s);
        assert!(self.text.len() <= u32::MAX as usize, "label strings are limited where they enter");
        Span { start: start as u32, end: self.text.len() as u32 }
    }

    /// Moves the text together when most of it is unused.
    fn tidy(&mut self) {
        if self.unused_bytes <= UNUSED_BYTES_KEPT.max(self.text.len() / 2) {
            return;
        }
        let text = std::mem::take(&mut self.text);
        for i in 0..self.pairs.len() {
            let Pair { name, value } = self.pairs[i];
            self.pairs[i] = Pair { name: self.append(name.of(&text)), value: self.append(value.of(&text)) };
        }
        self.unused_bytes = 0;
    }
}

/// Whether `name` is a metric name in the classic sense, `[a-zA-Z_:][a-zA-Z0-9_:]*`.
#[must_use]
pub fn is_legacy_metric_name(name: &str) -> bool {
    let b = name.as_bytes();
    !b.is_empty()
        && !b[0].is_ascii_digit()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_' || *c == b':')
}

/// Whether `name` is a label name in the classic sense, `[a-zA-Z_][a-zA-Z0-9_]*`.
#[must_use]
pub fn is_legacy_label_name(name: &str) -> bool {
    is_legacy_metric_name(name) && !name.contains(':')
}

/// A string in double quotes with Go's escapes, as PromQL and the text formats print it.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{b}' => f.write_str("\\v")?,
                '\u{c}' => f.write_str("\\f")?,
                c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(f, "\\x{:02x}", c as u32)?,
                c if !is_printable(c) => {
                    if (c as u32) < 0x1_0000 {
                        write!(f, "\\u{:04x}", c as u32)?;
                    } else {
                        write!(f, "\\U{:08x}", c as u32)?;
                    }
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Go's `strconv.IsPrint`, near enough: control characters, separators other than the ASCII space and the
/// non-characters are escaped.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'))
}

fn packed_len(s: &str) -> usize {
    s.len() + if s.len() < LONG_LEN as usize { 1 } else { 5 }
}

fn push_packed(out: &mut String, s: &str) {
    let len = s.len();
    assert!(len <= MAX_LEN_BYTES, "label strings are limited where they enter");
    if len < LONG_LEN as usize {
        out.push(len as u8 as char);
    } else {
        out.push(LONG_LEN as char);
        for shift in [21, 14, 7, 0] {
            out.push(((len >> shift) & 0x7f) as u8 as char);
        }
    }
    out.push_str(s);
}

#[inline]
/// Order of label sets (that of [`Labels`]) by their packed forms: finds the first byte that differs, and only then which
/// string it lies in.
#[must_use]
pub fn cmp_packed(a: &str, b: &str) -> Ordering {
    let (x, y) = (a.as_bytes(), b.as_bytes());
    let common = common_prefix(x, y);
    if common == x.len() || common == y.len() {
        // Lengths stand before their strings, so the shorter one ends between two pairs.
        return x.len().cmp(&y.len());
    }
    let (mut rest_a, mut rest_b) = (a, b);
    loop {
        let string_a = split_packed(&mut rest_a);
        if common < x.len() - rest_a.len() {
            let start = x.len() - rest_a.len() - string_a.len();
            if common >= start {
                return x[common].cmp(&y[common]);
            }
            return string_a.cmp(split_packed(&mut rest_b));
        }
        rest_b = &b[x.len() - rest_a.len()..];
    }
}

/// Number of equal bytes at the front, eight at a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (words_a, _) = a.as_chunks::<8>();
    let (words_b, _) = b.as_chunks::<8>();
    let mut at = 0;
    for (x, y) in words_a.iter().zip(words_b) {
        let difference = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if difference != 0 {
            return at + difference.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

fn split_packed<'a>(rest: &mut &'a str) -> &'a str {
    let b = rest.as_bytes();
    let (len, at) = if b[0] < LONG_LEN {
        (b[0] as usize, 1)
    } else {
        (b[1..5].iter().fold(0, |acc, x| (acc << 7) | *x as usize), 5)
    };
    let (head, tail) = rest.split_at(at + len);
    *rest = tail;
    &head[at..]
}

fn checked_split<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let b = rest.as_bytes();
    let (len, at) = match *b.first()? {
        l if l < LONG_LEN => (l as usize, 1),
        LONG_LEN => {
            let len = b.get(1..5)?.iter().fold(0, |acc, x| (acc << 7) | (*x & 0x7f) as usize);
            if len < LONG_LEN as usize || b[1..5].iter().any(|x| *x > 127) {
                return None;
            }
            (len, 5)
        }
        _ => return None,
    };
    let s = rest.get(at..at + len)?;
    *rest = rest.get(at + len..)?;
    Some(s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packed_forms_order_as_pairs_do(
            sets in prop::collection::vec(
                prop::collection::vec(("[ab]{1,2}", "[a-cé]{0,3}", prop::sample::select(vec![0_usize, 1, 7, 120, 124, 125, 126, 127, 130])), 0..4),
                2..8,
            )
        ) {
            let sets: Vec<Labels> = sets
                .into_iter()
                .map(|pairs| Labels::from_pairs(pairs.into_iter().map(|(n, v, pad)| (n, "x".repeat(pad) + &v))))
                .collect();
            for a in &sets {
                for b in &sets {
                    prop_assert_eq!(cmp_packed(a.as_packed(), b.as_packed()), a.iter().cmp(b.iter()), "{} {}", a, b);
                }
            }
        }
    }

    #[test]
    fn builds_sorted_unique_and_without_empty_values() {
        let l = Labels::from_pairs([("z", "1"), ("a", "2"), ("m", ""), ("a", "3")]);
        assert_eq!(l.iter().collect::<Vec<_>>(), [("a", "3"), ("z", "1")]);
        assert_eq!((l.get("a"), l.get("m"), l.value("m"), l.len()), (Some("3"), None, "", 2));
    }

    #[test]
    fn builders_do_what_a_map_does_however_long_they_are_used() {
        let mut b = LabelsBuilder::new();
        let mut map = std::collections::BTreeMap::new();
        for i in 0..5_000_u32 {
            let (name, value) = (format!("l{}", i * 7919 % 13), "v".repeat((i * 31 % 9) as usize));
            b.set(&name, &value);
            if value.is_empty() {
                map.remove(&name);
            } else {
                map.insert(name, value);
            }
            if i % 100 == 0 {
                b.retain(|n, _| n != "l3");
                map.remove("l3");
            }
            assert!(b.iter().eq(map.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
        }
        assert!(b.text.len() < 3 * UNUSED_BYTES_KEPT, "{}", b.text.len());
        b.clear();
        assert!(b.is_empty() && b.build().is_empty());
    }

    #[test]
    fn prints_as_promql() {
        let check = |pairs: &[(&str, &str)], expect: &str| {
            assert_eq!(Labels::from_pairs(pairs.iter().copied()).to_string(), expect);
        };
        check(&[], "{}");
        check(&[("__name__", "up")], "up");
        check(&[("__name__", "up"), ("b", "x\"y\n"), ("a", "1")], r#"up{a="1", b="x\"y\n"}"#);
        check(&[("__name__", "my.metric"), ("a.b", "1")], r#"{"my.metric", "a.b"="1"}"#);
    }

    #[test]
    fn filters_without_allocating_when_nothing_goes() {
        let l = Labels::from_pairs([("__name__", "up"), ("a", "1"), ("b", "2")]);
        assert!(Arc::ptr_eq(&l.packed, &l.without(&["x"]).packed));
        assert_eq!(l.without(&["a"]).to_string(), r#"up{b="2"}"#);
        assert_eq!(l.keep(&["a"]).to_string(), r#"{a="1"}"#);
        assert!(l.keep::<&str>(&[]).is_empty());
    }

    #[test]
    fn writers_pack_as_builders_do() {
        let long = "v".repeat(200);
        let l = Labels::from_pairs([("__name__", "up"), ("a", &long), ("b", "2"), ("c", "3")]);
        let mut rest = l.iter();
        rest.nth(1);
        let mut w = LabelsWriter::new();
        w.push("x", "gone");
        w.clear();
        assert!(w.build().is_empty());
        w.push("__name__", "up");
        w.push("a", &long);
        w.push_packed(rest.as_packed());
        assert_eq!(w.build(), l);
        assert!(w.iter().eq(l.iter()));
    }

    #[test]
    fn hashes_are_fixed() {
        let l = Labels::from_pairs([("__name__", "up"), ("job", "x")]);
        assert_eq!(l.hash64(), Labels::from_packed(l.as_packed()).expect("own form").hash64());
        assert_eq!(Labels::empty().prometheus_hash64(), 0xef46_db37_51d8_e999);
    }

    proptest! {
        #[test]
        fn packed_form_round_trips(pairs in proptest::collection::btree_map("\\PC{0,200}", "\\PC{1,200}", 0..6)) {
            let l = Labels::from_pairs(pairs.iter());
            let back: Vec<_> = l.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(back, pairs.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Labels::from_packed(l.as_packed()), Some(l));
        }

        #[test]
        fn foreign_packed_forms_never_panic(s in "\\PC{0,40}") {
            if let Some(l) = Labels::from_packed(&s) {
                prop_assert_eq!(l.iter().count(), l.len());
            }
        }
    }
}
