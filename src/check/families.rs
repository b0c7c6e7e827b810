//! The text format as client libraries write it, read strictly into families: what the lint of `check metrics` looks at.
//!
//! This reader is stricter than that of scraping in form (every line ends with a line break, a second `HELP` is an
//! error, so is a space behind the timestamp) and blind to the order of families. It keeps what the lint needs: names,
//! types, labels and numbers of buckets, not values. Spec:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::labels::{METRIC_NAME, Quoted};
use model::relabel::NameValidation;

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Summary,
    Untyped,
    Histogram,
    GaugeHistogram,
}

/// The series of one family that differ in nothing but the bucket or quantile.
#[derive(Debug, Default)]
pub(super) struct Metric {
    pub(super) labels: Vec<(String, String)>,
    /// Buckets of a histogram, quantiles of a summary.
    pub(super) parts: usize,
}

/// A metric family.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) has_help: bool,
    kind: Option<Kind>,
    pub(super) metrics: Vec<Metric>,
    /// Where a metric of a histogram or summary is, by its labels.
    known: HashMap<Vec<(String, String)>, usize>,
}

impl Family {
    pub(super) fn kind(&self) -> Kind {
        self.kind.unwrap_or(Kind::Untyped)
    }

    /// The label that tells the series of one metric apart.
    fn part_label(&self) -> Option<&'static str> {
        match self.kind() {
            Kind::Histogram | Kind::GaugeHistogram => Some("le"),
            Kind::Summary => Some("quantile"),
            _ => None,
        }
    }
}

/// Reads a body.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(super) fn parse(body: &[u8], names: NameValidation) -> Result<BTreeMap<String, Family>, String> {
    let mut reader = Reader { body, at: 0, names, families: BTreeMap::new() };
    let mut line = 0_usize;
    loop {
        line += 1;
        match reader.line() {
            Ok(true) => {}
            Ok(false) => break,
            Err(Stop::End) => return Err(at_line(line, "unexpected end of input stream")),
            Err(Stop::Wrong(reason)) => return Err(at_line(line, &reason)),
        }
    }
    reader.families.retain(|_, f| !f.metrics.is_empty());
    Ok(reader.families)
}

fn at_line(line: usize, reason: &str) -> String {
    format!("text format parsing error in line {line}: {reason}")
}

/// Why reading stopped.
enum Stop {
    /// In the middle of a line.
    End,
    Wrong(String),
}

fn wrong<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Wrong(reason.into()))
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    names: NameValidation,
    families: BTreeMap<String, Family>,
}

/// The family of a series, and what a series of it without a bucket or quantile is.
struct Owner {
    family: String,
    kind: Kind,
}

/// Labels of one series, those that identify its metric apart from the one that does not.
#[derive(Default)]
struct SeriesLabels {
    labels: Vec<(String, String)>,
    has_part: bool,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Result<u8, Stop> {
        self.body.get(self.at).copied().ok_or(Stop::End)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.body.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// The byte after blanks.
    fn next_visible(&mut self) -> Result<u8, Stop> {
        self.skip_blanks();
        self.peek()
    }

    /// Reads one line; `false` at the end of the body.
    fn line(&mut self) -> Result<bool, Stop> {
        self.skip_blanks();
        match self.body.get(self.at) {
            None => return Ok(false),
            Some(b'\n') => self.at += 1,
            Some(b'#') => {
                self.at += 1;
                self.comment()?;
            }
            Some(b'{') => {
                self.at += 1;
                let (owner, labels) = self.labels_with_name()?;
                self.value(&owner, labels)?;
            }
            Some(_) => self.sample()?,
        }
        Ok(true)
    }

    fn comment(&mut self) -> Result<(), Stop> {
        self.next_visible()?;
        let keyword = self.word()?;
        if keyword != b"HELP" && keyword != b"TYPE" {
            self.rest_of_line()?;
            return Ok(());
        }
        self.next_visible()?;
        let name = self.name("metric")?;
        match self.peek()? {
            b'\n' => {
                self.at += 1;
                return Ok(());
            }
            b' ' | b'\t' => {}
            _ => return wrong("invalid metric name in comment"),
        }
        let family = self.owner(&name)?.family;
        if self.next_visible()? == b'\n' {
            self.at += 1;
            return Ok(());
        }
        if keyword == b"HELP" { self.help(&family) } else { self.kind(&family) }
    }

    fn family(&mut self, name: &str) -> &mut Family {
        self.families.entry(name.to_owned()).or_default()
    }

    fn help(&mut self, family: &str) -> Result<(), Stop> {
        if std::mem::replace(&mut self.family(family).has_help, true) {
            return wrong(format!("second HELP line for metric name {}", Quoted(family)));
        }
        let text = self.rest_of_line()?;
        let mut bytes = text.iter();
        while let Some(b) = bytes.next() {
            if *b == b'\\' {
                match bytes.next() {
                    Some(b'\\' | b'n' | b'"') => {}
                    Some(other) => return wrong(bad_escape(*other)),
                    None => return wrong(bad_escape(b'\n')),
                }
            }
        }
        Ok(())
    }

    fn kind(&mut self, family: &str) -> Result<(), Stop> {
        if self.family(family).kind.is_some() {
            return wrong(format!(
                "second TYPE line for metric name {}, or TYPE reported after samples",
                Quoted(family)
            ));
        }
        let text = self.rest_of_line()?;
        let kind = match text.to_ascii_uppercase().as_slice() {
            b"COUNTER" => Kind::Counter,
            b"GAUGE" => Kind::Gauge,
            b"SUMMARY" => Kind::Summary,
            b"UNTYPED" => Kind::Untyped,
            b"HISTOGRAM" => Kind::Histogram,
            b"GAUGE_HISTOGRAM" | b"GAUGEHISTOGRAM" => Kind::GaugeHistogram,
            _ => return wrong(format!("unknown metric type {}", quoted(text))),
        };
        self.family(family).kind = Some(kind);
        Ok(())
    }

    /// A series that begins with its name.
    fn sample(&mut self) -> Result<(), Stop> {
        let name = self.name("metric")?;
        if name.is_empty() {
            return wrong("invalid metric name");
        }
        let owner = self.series_of(&name)?;
        let mut labels = SeriesLabels::default();
        if self.next_visible()? == b'{' {
            self.at += 1;
            while self.label(&owner, &mut labels)? {}
        }
        self.value(&owner, labels)
    }

    /// Labels whose braces hold the name of the series too.
    fn labels_with_name(&mut self) -> Result<(Owner, SeriesLabels), Stop> {
        let mut owner: Option<Owner> = None;
        let mut labels = SeriesLabels::default();
        let nobody = Owner { family: String::new(), kind: Kind::Untyped };
        loop {
            let start = self.at;
            if self.next_visible()? == b'}' {
                self.at += 1;
                break;
            }
            let name = self.name("label")?;
            if name.is_empty() {
                let family = owner.as_ref().map_or("", |o| &o.family);
                return wrong(format!("invalid label name for metric {}", Quoted(family)));
            }
            match self.next_visible()? {
                b'=' => {
                    self.at = start;
                    if !self.label(owner.as_ref().unwrap_or(&nobody), &mut labels)? {
                        break;
                    }
                }
                _ if owner.is_some() => {
                    let family = owner.map(|o| o.family).unwrap_or_default();
                    return wrong(format!("multiple metric names for metric {}", Quoted(&family)));
                }
                end @ (b',' | b'}') => {
                    owner = Some(self.series_of(&name)?);
                    self.at += 1;
                    if end == b'}' {
                        break;
                    }
                }
                other => return wrong(format!("unexpected end of metric name {}", quoted_byte(other))),
            }
        }
        match owner {
            Some(owner) => Ok((owner, labels)),
            None => wrong("invalid metric name"),
        }
    }

    /// Reads a label and what follows it; `false` when that was the closing brace.
    fn label(&mut self, owner: &Owner, out: &mut SeriesLabels) -> Result<bool, Stop> {
        if self.next_visible()? == b'}' {
            self.at += 1;
            return Ok(false);
        }
        let name = self.name("label")?;
        if name.is_empty() {
            return wrong(format!("invalid label name for metric {}", Quoted(&owner.family)));
        }
        let found = self.next_visible()?;
        if found != b'=' {
            return wrong(format!("expected '=' after label name, found {}", quoted_byte(found)));
        }
        self.at += 1;
        if name == METRIC_NAME.as_bytes() {
            return wrong(format!("label name {} is reserved", Quoted(METRIC_NAME)));
        }
        let Some(name) = text(&name).filter(|n| self.names.is_label_name(n)) else {
            return wrong(format!("invalid label name {}", quoted(&name)));
        };
        let part = self.families.get(&owner.family).and_then(Family::part_label);
        let is_part = part == Some(name);
        if !is_part && out.labels.iter().any(|(known, _)| known == name) {
            return wrong(format!("duplicate label names for metric {}", Quoted(&owner.family)));
        }
        let found = self.next_visible()?;
        if found != b'"' {
            return wrong(format!("expected '\"' at start of label value, found {}", quoted_byte(found)));
        }
        self.at += 1;
        let value = self.label_value()?;
        let Some(value) = text(&value) else {
            return wrong(format!("invalid label value {}", quoted(&value)));
        };
        if !is_part {
            out.labels.push((name.to_owned(), value.to_owned()));
        } else if let Some(number) = number(value.as_bytes()) {
            out.has_part = !number.is_nan();
        } else {
            return wrong(format!("expected float as value for '{name}' label, got {}", Quoted(value)));
        }
        let end = self.next_visible()?;
        self.at += 1;
        match end {
            b',' => Ok(true),
            b'}' => Ok(false),
            _ => wrong(format!("unexpected end of label value {}", Quoted(value))),
        }
    }

    /// The value and the timestamp, with which the series counts.
    fn value(&mut self, owner: &Owner, series: SeriesLabels) -> Result<(), Stop> {
        self.next_visible()?;
        self.count(owner, series);
        let value = self.word()?;
        if number(value).is_none() {
            return wrong(format!("expected float as value, got {}", quoted(value)));
        }
        if self.peek()? == b'\n' {
            self.at += 1;
            return Ok(());
        }
        self.next_visible()?;
        let timestamp = self.word()?;
        if text(timestamp).and_then(|t| t.parse::<i64>().ok()).is_none() {
            return wrong(format!("expected integer as timestamp, got {}", quoted(timestamp)));
        }
        match self.rest_of_line()? {
            [] => Ok(()),
            rest => wrong(format!("spurious string after timestamp: {}", quoted(rest))),
        }
    }

    fn count(&mut self, owner: &Owner, series: SeriesLabels) {
        let family = self.family(&owner.family);
        let parts = usize::from(series.has_part);
        if family.part_label().is_none() {
            family.metrics.push(Metric { labels: series.labels, parts });
            return;
        }
        let mut key = series.labels.clone();
        key.sort();
        let Family { metrics, known, .. } = family;
        let i = *known.entry(key).or_insert_with(|| {
            metrics.push(Metric { labels: series.labels, parts: 0 });
            metrics.len() - 1
        });
        metrics[i].parts += parts;
    }

    /// The family that a series of this name belongs to, whose type is settled from now on.
    fn series_of(&mut self, name: &[u8]) -> Result<Owner, Stop> {
        let owner = self.owner(name)?;
        self.family(&owner.family).kind = Some(owner.kind);
        Ok(owner)
    }

    /// The family of a name: its own, or the summary or histogram it is a part of.
    fn owner(&mut self, name: &[u8]) -> Result<Owner, Stop> {
        let Some(name) = text(name).filter(|n| self.names.is_metric_name(n)) else {
            return wrong(format!("invalid metric name {}", quoted(name)));
        };
        let of = |family: &str, kind| Ok(Owner { family: family.to_owned(), kind });
        if let Some(family) = self.families.get(name) {
            return of(name, family.kind());
        }
        for (suffix, is_part) in [("_count", true), ("_sum", true), ("_bucket", false)] {
            let Some(base) = name.strip_suffix(suffix).filter(|b| !b.is_empty()) else { continue };
            match self.families.get(base).map(Family::kind) {
                Some(Kind::Summary) if is_part => return of(base, Kind::Summary),
                Some(kind @ (Kind::Histogram | Kind::GaugeHistogram)) => return of(base, kind),
                _ => {}
            }
        }
        self.families.insert(name.to_owned(), Family::default());
        of(name, Kind::Untyped)
    }

    /// A metric or label name, as `what` says, which may be quoted; empty when what stands here begins none.
    fn name(&mut self, what: &str) -> Result<Vec<u8>, Stop> {
        let mut out = Vec::new();
        let begins = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b':' | b'"');
        let mut b = self.peek()?;
        if !begins(b) {
            return Ok(out);
        }
        let mut quotes = false;
        while quotes || begins(b) || b.is_ascii_digit() {
            self.at += 1;
            match b {
                b'"' if quotes => return Ok(out),
                b'"' => quotes = true,
                b'\\' => {
                    out.push(match self.peek()? {
                        b'\\' => b'\\',
                        b'n' => b'\n',
                        b'"' => b'"',
                        other => return wrong(bad_escape(other)),
                    });
                    self.at += 1;
                }
                b'\n' => return wrong(format!("{what} name {} contains unescaped new-line", quoted(&out))),
                other => out.push(other),
            }
            b = self.peek()?;
        }
        Ok(out)
    }

    /// The rest of a label value and its closing quote.
    fn label_value(&mut self) -> Result<Vec<u8>, Stop> {
        let mut out = Vec::new();
        loop {
            let b = self.peek()?;
            self.at += 1;
            match b {
                b'"' => return Ok(out),
                b'\n' => return wrong(format!("label value {} contains unescaped new-line", quoted(&out))),
                b'\\' => {
                    out.push(match self.peek()? {
                        b'n' => b'\n',
                        same @ (b'"' | b'\\') => same,
                        other => return wrong(bad_escape(other)),
                    });
                    self.at += 1;
                }
                other => out.push(other),
            }
        }
    }

    /// What stands before the next white space.
    fn word(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.at;
        while !matches!(self.peek()?, b' ' | b'\t' | b'\n') {
            self.at += 1;
        }
        Ok(&self.body[start..self.at])
    }

    /// What stands before the line break, which is read too.
    fn rest_of_line(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.at;
        while self.peek()? != b'\n' {
            self.at += 1;
        }
        self.at += 1;
        Ok(&self.body[start..self.at - 1])
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A number in the notation of Go, decimal.
fn number(token: &[u8]) -> Option<f64> {
    let token = text(token).filter(|t| !t.contains(['p', 'P', '_']))?;
    let signed_nan = token.len() > 3 && token[1..].eq_ignore_ascii_case("nan");
    let number: f64 = token.parse().ok().filter(|_| !signed_nan)?;
    let says_infinity = token.contains(['i', 'I']);
    (number.is_finite() || number.is_nan() || says_infinity).then_some(number)
}

fn bad_escape(b: u8) -> String {
    format!("invalid escape sequence '\\{}'", char::from(b))
}

/// Bytes in quotes, those that are no text as `\xff`.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let text = Quoted(chunk.valid()).to_string();
        out.push_str(&text[1..text.len() - 1]);
        chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    out.push('"');
    out
}

fn quoted_byte(b: u8) -> String {
    match b {
        b'\'' => "'\\''".into(),
        b'"' => "'\"'".into(),
        _ => {
            let text = Quoted(char::from(b).encode_utf8(&mut [0; 4])).to_string();
            format!("'{}'", &text[1..text.len() - 1])
        }
    }
}

/// Labels in the order in which they stood, for telling series apart.
pub(super) fn repeated(metrics: &[Metric]) -> usize {
    let mut seen = BTreeSet::new();
    metrics.iter().filter(|m| !seen.insert(&m.labels)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<BTreeMap<String, Family>, String> {
        parse(body.as_bytes(), NameValidation::Legacy)
    }

    #[test]
    fn families_gather_their_series() {
        let families = check(
            "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 3\n\
             h_bucket{a=\"b\",le=\"1\"} 1\n# TYPE s summary\ns{quantile=\"0.5\"} 1 5\ns_bucket 1\n{\"g\",a=\"b\"} 1\n\n",
        )
        .expect("valid");
        let shape: Vec<_> = families
            .iter()
            .map(|(n, f)| (n.as_str(), f.kind(), f.metrics.iter().map(|m| m.parts).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            shape,
            [
                ("g", Kind::Untyped, vec![0]),
                ("h", Kind::Histogram, vec![2, 1]),
                ("s", Kind::Summary, vec![1]),
                ("s_bucket", Kind::Untyped, vec![0]),
            ]
        );
        assert!(families["h"].has_help && !families["s"].has_help);
    }

    #[test]
    fn errors_say_what_was_expected() {
        for (body, reason) in [
            ("a 1", "unexpected end of input stream"),
            ("{\"a.b\"} 1\n", "invalid metric name \"a.b\""),
            ("{a=\"b\"} 1\n", "invalid metric name"),
            ("-a 1\n", "invalid metric name"),
            ("a-b 1\n", "expected float as value, got \"-b\""),
            ("a{\"b c\"=\"d\"} 1\n", "invalid label name \"b c\""),
            ("a{__name__=\"d\"} 1\n", "label name \"__name__\" is reserved"),
            ("a{b=\"c\",b=\"d\"} 1\n", "duplicate label names for metric \"a\""),
            ("a{b~\"c\"} 1\n", "expected '=' after label name, found '~'"),
            ("a{b=1} 1\n", "expected '\"' at start of label value, found '1'"),
            ("a{b=\"c\"d=\"e\"} 1\n", "unexpected end of label value \"c\""),
            ("a{,} 1\n", "invalid label name for metric \"a\""),
            ("a{b=\"\\z\"} 1\n", "invalid escape sequence '\\z'"),
            ("a{b=\"\n\"} 1\n", "label value \"\" contains unescaped new-line"),
            ("a 1_0\n", "expected float as value, got \"1_0\""),
            ("a 1e999\n", "expected float as value, got \"1e999\""),
            ("a +nan\n", "expected float as value, got \"+nan\""),
            ("a 1\r\n", "expected float as value, got \"1\\r\""),
            ("a 1 1.5\n", "expected integer as timestamp, got \"1.5\""),
            ("a 1 1 \n", "spurious string after timestamp: \" \""),
            ("a 1 # {b=\"c\"} 1\n", "expected integer as timestamp, got \"#\""),
            ("# TYPE a counters\n", "unknown metric type \"counters\""),
            ("# TYPE a-b counter\n", "invalid metric name in comment"),
            ("# HELP a \\z\n", "invalid escape sequence '\\z'"),
            ("{\"a\",\"b\"} 1\n", "multiple metric names for metric \"a\""),
            ("{\"a\"x} 1\n", "unexpected end of metric name 'x'"),
        ] {
            let expect = format!("text format parsing error in line 1: {reason}");
            assert_eq!(check(body).map(|_| ()), Err(expect), "{body:?}");
        }
        for (body, reason) in [
            ("# HELP a b\n# HELP a c\n", "second HELP line for metric name \"a\""),
            (
                "a 1\n# TYPE a gauge\n",
                "second TYPE line for metric name \"a\", or TYPE reported after samples",
            ),
            (
                "# TYPE h histogram\nh_bucket{le=\"x\"} 1\n",
                "expected float as value for 'le' label, got \"x\"",
            ),
        ] {
            let expect = format!("text format parsing error in line 2: {reason}");
            assert_eq!(check(body).map(|_| ()), Err(expect), "{body:?}");
        }
        let invalid = parse(b"a{b=\"\xff\"} 1\n", NameValidation::Utf8).map(|_| ());
        assert_eq!(invalid, Err("text format parsing error in line 1: invalid label value \"\\xff\"".into()));
    }
}
