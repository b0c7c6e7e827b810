//! Text bodies sample by sample, with classic histograms converted to native ones with custom buckets, and with the start
//! timestamps of OpenMetrics.
//!
//! A histogram ends where a series of another metric, a line of metadata or the end of the body begins; only then is it
//! known, so [`TextSamples`] holds back what it read and gives the histogram first. `_created` lines give the start of the
//! series before them and are no samples then; they are searched ahead, each line once.
//!
//! Spec: <https://prometheus.io/docs/specs/native_histograms/#scrape-configuration>,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/#counter>.

use std::borrow::Cow;

use model::labels::{BUCKET_LABEL, QUANTILE_LABEL};
use model::{Exemplar, MetricType};

use super::classic::ClassicHistogram;
use super::samples::{Item, Key, Part, SampleSource, Value};
use super::value::float;
use super::{Entry, Format, Pair, ParseError, Parser, Tail};

const CREATED_SUFFIX: &str = "_created";

/// What becomes of histograms and of `_created` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TextOptions {
    pub(crate) convert_classic: bool,
    /// Keep the series of histograms that are converted.
    pub(crate) keep_classic: bool,
    pub(crate) starts: bool,
}

/// Walks a body.
pub(crate) struct TextSamples<'a> {
    body: &'a [u8],
    format: Format,
    parser: Parser<'a>,
    options: TextOptions,
    /// Family that the last `TYPE` line names, when it is one of classic histograms.
    histogram_family: Option<&'a [u8]>,
    /// Length of the name in the last metadata line.
    family_len: usize,
    collected: Collected<'a>,
    /// What was read when a histogram turned out to be complete.
    held_back: Option<Held<'a>>,
    /// The last sample given is the histogram in `collected`.
    gives_converted: bool,
    /// The last sample given is part of the histogram under collection.
    taken: bool,
    series: &'a [u8],
    timestamp_ms: Option<i64>,
    created: Created<'a>,
}

enum Held<'a> {
    End,
    Entry(Entry<'a>),
}

/// A classic histogram under collection, or the last one that was converted.
#[derive(Default)]
struct Collected<'a> {
    open: bool,
    histogram: ClassicHistogram,
    /// Labels of the converted series, the name first.
    labels: Vec<Pair<'a>>,
    /// Key of the converted series.
    key: Vec<u8>,
    exemplars: Vec<Exemplar>,
    start_ms: i64,
}

/// Part of a classic histogram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Classic {
    Bucket,
    Sum,
    Count,
}

/// The name of the histogram, and which part of it has the whole name.
fn split_name(name: &str) -> (&str, Option<Classic>) {
    for (suffix, part) in [("_bucket", Classic::Bucket), ("_sum", Classic::Sum), ("_count", Classic::Count)] {
        if let Some(base) = name.strip_suffix(suffix) {
            return (base, Some(part));
        }
    }
    (name, None)
}

impl<'a> TextSamples<'a> {
    pub(crate) fn new(format: Format, body: &'a [u8], options: TextOptions) -> Self {
        Self {
            body,
            format,
            parser: Parser::new(format, body),
            // The text format has no start timestamps.
            options: TextOptions { starts: options.starts && format == Format::OpenMetrics, ..options },
            histogram_family: None,
            family_len: 0,
            collected: Collected::default(),
            held_back: None,
            gives_converted: false,
            taken: false,
            series: b"",
            timestamp_ms: None,
            created: Created::default(),
        }
    }

    /// The next entry of the body, without `_created` lines that are start timestamps.
    fn read(&mut self) -> Result<Held<'a>, ParseError> {
        loop {
            let Some(entry) = self.parser.next()? else { return Ok(Held::End) };
            match &entry {
                Entry::Series(_) if self.options.starts && has_start(self.parser.metric_type()) => {
                    if self.parser.name_bytes().ends_with(CREATED_SUFFIX.as_bytes()) {
                        continue;
                    }
                }
                Entry::Type { family, .. } | Entry::Help { family, .. } | Entry::Unit { family, .. } => {
                    self.family_len = family.len();
                }
                Entry::Series(_) | Entry::Comment(_) => {}
            }
            return Ok(Held::Entry(entry));
        }
    }

    /// Converts what was collected; true when that gave a histogram.
    fn close(&mut self) -> Option<Item<'a>> {
        if !self.collected.open {
            return None;
        }
        self.collected.open = false;
        let h = self.collected.histogram.convert().ok()?;
        let valid = match &h {
            model::HistogramValue::Int(h) => h.validate(),
            model::HistogramValue::Float(h) => h.validate(),
        };
        valid.ok()?;
        self.gives_converted = true;
        Some(Item::Sample { value: Value::Histogram(h), timestamp_ms: self.timestamp_ms })
    }

    /// Takes a series into the histogram under collection. When it belongs to another one, the complete one is
    /// returned, and the series is to come again.
    fn collect(&mut self, tail: &Tail<'a>) -> Result<Collecting<'a>, ParseError> {
        let Some(family) = self.histogram_family else { return Ok(Collecting::Other) };
        let mut pairs = Vec::new();
        self.parser.labels(&mut pairs)?;
        let le = pairs.iter().position(|(n, _)| n == BUCKET_LABEL).map(|at| pairs.remove(at).1);
        let bound = le.and_then(|le| float(le.as_bytes(), 0).ok()).filter(|b| !b.is_nan());
        let Some((name, others)) = pairs.split_first_mut() else { return Ok(Collecting::Other) };
        let (base, part) = split_name(&name.1);
        name.1 = Cow::Owned(base.to_owned());
        others.sort_unstable();
        if self.collected.open
            && self.collected.labels != pairs
            && let Some(item) = self.close()
        {
            return Ok(Collecting::Complete(item));
        }
        let part =
            part.filter(|p| pairs[0].1.as_bytes() == family && (*p != Classic::Bucket || bound.is_some()));
        let Some(part) = part else { return Ok(Collecting::Other) };
        if !self.collected.open {
            self.open(pairs);
        }
        let c = &mut self.collected;
        c.exemplars.extend(self.parser.exemplar().filter(|e| e.timestamp_ms.is_some()));
        match (part, bound) {
            (Classic::Bucket, Some(bound)) => c.histogram.set_bucket(bound, tail.value),
            (Classic::Count, _) => c.histogram.set_count(tail.value),
            _ => c.histogram.set_sum(tail.value),
        }
        Ok(Collecting::Taken)
    }

    /// Begins a histogram whose series has these labels.
    fn open(&mut self, labels: Vec<Pair<'a>>) {
        let start_ms = if self.options.starts { self.start_of_series() } else { 0 };
        let c = &mut self.collected;
        c.open = true;
        c.histogram.clear();
        c.exemplars.clear();
        c.key.clear();
        for text in labels.iter().flat_map(|(n, v)| [n, v]) {
            c.key.extend_from_slice(text.as_bytes());
            c.key.push(0xff);
        }
        c.labels = labels;
        c.start_ms = start_ms;
    }

    fn start_of_series(&mut self) -> i64 {
        let metric_type = self.parser.metric_type();
        if !has_start(metric_type) {
            return 0;
        }
        let here = self.parser.position();
        if self.created.valid_from.is_none_or(|from| here < from || here > self.created.found_at) {
            self.created.search(self.format, self.body, &self.parser);
        }
        let name = self.parser.name_bytes();
        let family = &name[..self.family_len.min(name.len())];
        self.created.scratch.clear();
        series_identity(&self.parser, family, metric_type, &mut self.created.scratch);
        if self.created.line.is_some() && self.created.identity == self.created.scratch {
            self.created.ms
        } else {
            0
        }
    }
}

/// What came of a series.
enum Collecting<'a> {
    /// It is part of the histogram under collection.
    Taken,
    /// It begins another metric: this is the histogram before.
    Complete(Item<'a>),
    /// It is no part of a histogram.
    Other,
}

impl<'a> SampleSource<'a> for TextSamples<'a> {
    fn next(&mut self) -> Result<Option<Item<'a>>, ParseError> {
        loop {
            self.gives_converted = false;
            let read = match self.held_back.take() {
                Some(held) => held,
                None => self.read()?,
            };
            let ends_histogram = !matches!(read, Held::Entry(Entry::Series(_)));
            if ends_histogram && let Some(item) = self.close() {
                self.held_back = Some(read);
                return Ok(Some(item));
            }
            let tail = match read {
                Held::End => return Ok(None),
                Held::Entry(Entry::Series(tail)) => tail,
                Held::Entry(entry) => {
                    if let Entry::Type { family, metric_type } = entry {
                        let converts = self.options.convert_classic && metric_type == MetricType::Histogram;
                        self.histogram_family = converts.then_some(family);
                    }
                    return Ok(Some(Item::Fact(entry)));
                }
            };
            // As in Prometheus, the series that shows a histogram to be complete gives it its timestamp.
            self.timestamp_ms = tail.timestamp_ms;
            self.series = tail.series;
            self.taken = false;
            match self.collect(&tail)? {
                Collecting::Complete(item) => {
                    self.held_back = Some(Held::Entry(Entry::Series(tail)));
                    return Ok(Some(item));
                }
                Collecting::Taken if !self.options.keep_classic => continue,
                Collecting::Taken => self.taken = true,
                Collecting::Other => {}
            }
            return Ok(Some(Item::Sample {
                value: Value::Float(tail.value),
                timestamp_ms: tail.timestamp_ms,
            }));
        }
    }

    fn key(&self) -> Key<'_> {
        if self.gives_converted {
            return Key { labels: &self.collected.key, part: Part::Converted, same_metric: false };
        }
        Key { labels: self.series, part: Part::Whole, same_metric: false }
    }

    fn labels(&self, out: &mut Vec<Pair<'a>>) -> Result<(), ParseError> {
        if self.gives_converted {
            out.extend_from_slice(&self.collected.labels);
            return Ok(());
        }
        self.parser.labels(out)
    }

    fn metric_type(&self) -> MetricType {
        if self.gives_converted { MetricType::Histogram } else { self.parser.metric_type() }
    }

    fn exemplars(&mut self, out: &mut Vec<Exemplar>) {
        if self.gives_converted {
            out.append(&mut self.collected.exemplars);
        } else if !self.taken {
            // Exemplars of a histogram under collection go to the histogram.
            out.extend(self.parser.exemplar());
        }
    }

    fn start_ms(&mut self) -> i64 {
        match (self.options.starts, self.gives_converted) {
            (false, _) => 0,
            (true, true) => self.collected.start_ms,
            (true, false) => self.start_of_series(),
        }
    }
}

// === Start timestamps ===

fn has_start(metric_type: MetricType) -> bool {
    matches!(metric_type, MetricType::Counter | MetricType::Summary | MetricType::Histogram)
}

/// The next `_created` line, for all series before it.
#[derive(Default)]
struct Created<'a> {
    /// Positions between which the search gives this answer; `None` before the first search.
    valid_from: Option<usize>,
    found_at: usize,
    /// The line's series, when one was found before other metadata.
    line: Option<&'a [u8]>,
    identity: Vec<u8>,
    ms: i64,
    scratch: Vec<u8>,
}

impl<'a> Created<'a> {
    fn search(&mut self, format: Format, body: &'a [u8], at: &Parser<'a>) {
        self.valid_from = Some(at.position());
        self.line = None;
        let metric_type = at.metric_type();
        let mut ahead = Parser::new(format, body);
        ahead.seek(at.position(), metric_type, at.unit());
        loop {
            self.found_at = ahead.position();
            match ahead.next() {
                Ok(Some(Entry::Series(tail))) => {
                    let Some(base) = ahead.name_bytes().strip_suffix(CREATED_SUFFIX.as_bytes()) else {
                        continue;
                    };
                    self.line = Some(tail.series);
                    self.ms = (tail.value * 1000.0) as i64;
                    self.identity.clear();
                    series_identity(&ahead, base, metric_type, &mut self.identity);
                    return;
                }
                // Other metadata, the end, or what the main walk will stumble over.
                _ => return,
            }
        }
    }
}

/// Labels and family of a series as they stand, bounds of buckets and quantiles left out.
fn series_identity(parser: &Parser<'_>, family: &[u8], metric_type: MetricType, out: &mut Vec<u8>) {
    let bound = match metric_type {
        MetricType::Summary => QUANTILE_LABEL,
        MetricType::Histogram => BUCKET_LABEL,
        _ => "",
    };
    for (name, value) in parser.label_bytes().filter(|(name, _)| *name != bound.as_bytes()) {
        out.extend_from_slice(name);
        out.push(0xff);
        out.extend_from_slice(value);
        out.push(0xff);
    }
    out.extend_from_slice(family);
}
