//! `io.prometheus.write.v2.Request`, the message of remote write 2.0: read without copying.
//!
//! Strings sit once in a table of symbols and series refer to them by index, so [`Request::new`] reads the table
//! first. Raw label bytes mean something only within one request and are no key between requests. The writer is in
//! [`encode`].
//!
//! Spec: <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>.

use std::sync::Arc;

use model::{Exemplar, Histogram, Metadata, Sample};

use crate::error::Error;
use crate::proto::{Cursor, WireType};
use crate::write_v1::{LabelScratch, exemplar_of, histogram, metric_type_of};

pub mod encode;

pub use encode::{RequestEncoder, SeriesEncoder};

const MESSAGE: &str = "write.v2.Request";

/// A series whose labels together are longer than this is refused: a few bytes of references could otherwise stand for
/// gigabytes of text.
const MAX_SERIES_LABELS_BYTES: usize = 1 << 20;
/// The same for all exemplars of a series together.
const MAX_SERIES_EXEMPLARS_BYTES: usize = 64 << 10;

/// What the series of a request may take in memory, all together: a symbol is sent once and referred to often, and an empty
/// histogram of two bytes is as large as any other once it is read.
const MAX_REQUEST_MEMORY_BYTES: usize = 256 << 20;
/// What a symbol takes beside its text, while it moves to its place.
const SYMBOL_BYTES: usize = 2 * size_of::<&str>();
/// What a reference to one takes.
const REFERENCE_BYTES: usize = size_of::<&str>();
/// What a sample, a histogram or an exemplar takes beside its text and buckets, roughly.
const SAMPLE_BYTES: usize = size_of::<Sample>();
const HISTOGRAM_BYTES: usize = SAMPLE_BYTES + size_of::<Histogram>();
/// With the allocation of its labels.
const EXEMPLAR_BYTES: usize = size_of::<Exemplar>() + 64;
/// What a byte of a histogram's message may become: a bucket of eight.
const BUCKET_BYTES: usize = 8;

mod field {
    pub(super) const SYMBOLS: u32 = 4;
    pub(super) const TIMESERIES: u32 = 5;

    pub(super) const SERIES_LABELS_REFS: u32 = 1;
    pub(super) const SERIES_SAMPLES: u32 = 2;
    pub(super) const SERIES_HISTOGRAMS: u32 = 3;
    pub(super) const SERIES_EXEMPLARS: u32 = 4;
    pub(super) const SERIES_METADATA: u32 = 5;

    pub(super) const SAMPLE_VALUE: u32 = 1;
    pub(super) const SAMPLE_TIMESTAMP: u32 = 2;
    pub(super) const SAMPLE_START_TIMESTAMP: u32 = 3;

    pub(super) const EXEMPLAR_LABELS_REFS: u32 = 1;
    pub(super) const EXEMPLAR_VALUE: u32 = 2;
    pub(super) const EXEMPLAR_TIMESTAMP: u32 = 3;

    pub(super) const METADATA_TYPE: u32 = 1;
    pub(super) const METADATA_HELP_REF: u32 = 3;
    pub(super) const METADATA_UNIT_REF: u32 = 4;
}

/// A reader over one decompressed request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    cursor: Cursor<'a>,
    symbols: Arc<[&'a str]>,
    budget: Budget,
}

/// Memory that the rest of a request may take.
#[derive(Clone, Debug)]
struct Budget {
    left: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => {
                return Err(Error::Limit(format!(
                    "the series of a request may take {MAX_REQUEST_MEMORY_BYTES} bytes of memory, these take more; send fewer at once"
                )));
            }
        }
        Ok(())
    }
}

impl<'a> Request<'a> {
    /// A reader over `body`, which is decompressed already. Reads the table of symbols.
    ///
    /// # Errors
    /// [`Error::Malformed`]: also when the table does not begin with the empty string. [`Error::Limit`] for a table of very many.
    pub fn new(body: &'a [u8]) -> Result<Self, Error> {
        let mut symbols = Vec::new();
        let mut budget = Budget { left: MAX_REQUEST_MEMORY_BYTES };
        let mut cursor = Cursor::new(body, MESSAGE);
        while let Some(tag) = cursor.tag()? {
            if tag.field == field::SYMBOLS {
                cursor.expect(tag, WireType::Bytes)?;
                budget.take(SYMBOL_BYTES)?;
                symbols.push(cursor.str()?);
                if symbols.len() == 1 && !symbols[0].is_empty() {
                    return Err(cursor.error("the first symbol is not the empty string"));
                }
            } else {
                cursor.skip(tag.wire_type)?;
            }
        }
        Ok(Self { cursor: Cursor::new(body, MESSAGE), symbols: symbols.into(), budget })
    }

    /// Fills `out` with the next series; `false` at the end.
    ///
    /// # Errors
    /// [`Error::Malformed`]; [`Error::Limit`] for a request that stands for far more than it is long. The reader is of no use then; series given before are valid.
    pub fn next_series(&mut self, out: &mut TimeSeries<'a>) -> Result<bool, Error> {
        while let Some(tag) = self.cursor.tag()? {
            if tag.field == field::TIMESERIES {
                self.cursor.expect(tag, WireType::Bytes)?;
                let body = self.cursor.message()?;
                out.read(body, &self.symbols, &mut self.budget)?;
                return Ok(true);
            }
            self.cursor.skip(tag.wire_type)?;
        }
        Ok(false)
    }
}

/// One series of a request. Its memory is reused from series to series.
#[derive(Debug, Default)]
pub struct TimeSeries<'a> {
    labels: LabelScratch<'a>,
    refs: Vec<u32>,
    invalid: Option<String>,
    invalid_exemplars: Vec<String>,
    samples: Vec<Sample>,
    exemplars: Vec<Exemplar>,
    metadata: Option<Metadata>,
}

impl<'a> TimeSeries<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Labels in the order of the message; [`crate::write_v1::to_labels`] makes a label set of them.
    pub fn labels(&mut self) -> &mut [(&'a str, &'a str)] {
        &mut self.labels.pairs
    }

    /// Why the series cannot be told, although the message is well formed: references that lead nowhere. What else it holds is
    /// of no use then; other series are.
    #[must_use]
    pub fn invalid(&self) -> Option<&str> {
        self.invalid.as_deref()
    }

    /// Floats and histograms, each in the order of the message, floats first.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Exemplars.
    #[must_use]
    pub fn exemplars(&self) -> &[Exemplar] {
        &self.exemplars
    }

    /// What is wrong with the exemplars whose references lead nowhere.
    #[must_use]
    pub fn invalid_exemplars(&self) -> &[String] {
        &self.invalid_exemplars
    }

    /// Type, unit and help; `None` when the message says nothing of them.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    fn read(
        &mut self,
        mut cursor: Cursor<'a>,
        symbols: &[&'a str],
        budget: &mut Budget,
    ) -> Result<(), Error> {
        self.labels.pairs.clear();
        self.refs.clear();
        self.invalid = None;
        self.invalid_exemplars.clear();
        self.samples.clear();
        self.exemplars.clear();
        self.metadata = None;
        let mut histograms = Vec::new();
        let mut described = None;
        let mut exemplars_left = MAX_SERIES_EXEMPLARS_BYTES;
        while let Some(tag) = cursor.tag()? {
            if tag.field == field::SERIES_LABELS_REFS {
                let refs = &mut self.refs;
                cursor.repeated(tag, WireType::Varint, |c| reference(c, refs))?;
                continue;
            }
            let known = matches!(tag.field, field::SERIES_SAMPLES..=field::SERIES_METADATA);
            if !known {
                cursor.skip(tag.wire_type)?;
                continue;
            }
            cursor.expect(tag, WireType::Bytes)?;
            let part = cursor.message()?;
            match tag.field {
                field::SERIES_SAMPLES => {
                    budget.take(SAMPLE_BYTES)?;
                    self.samples.push(sample(part)?);
                }
                field::SERIES_HISTOGRAMS => {
                    budget.take(HISTOGRAM_BYTES + BUCKET_BYTES * part.rest().len())?;
                    histograms.push(histogram::read(part)?);
                }
                field::SERIES_EXEMPLARS => {
                    let before = exemplars_left;
                    match exemplar(part, symbols, &mut exemplars_left)? {
                        Ok(exemplar) => self.exemplars.push(exemplar),
                        Err(reason) => self.invalid_exemplars.push(reason),
                    }
                    budget.take(EXEMPLAR_BYTES + before - exemplars_left)?;
                }
                _ => described = Some(part),
            }
        }
        self.samples.append(&mut histograms);
        let text = resolve(&cursor, &self.refs, symbols, &mut self.labels.pairs, MAX_SERIES_LABELS_BYTES)?;
        match text {
            Ok(bytes) => budget.take(bytes)?,
            Err(reason) => {
                self.invalid = Some(format!("parsing labels for series {}: {reason}", list(&self.refs)));
                return Ok(());
            }
        }
        match described.map_or(Ok(Ok(None)), |part| metadata(part, symbols))? {
            Ok(metadata) => {
                budget.take(metadata.as_ref().map_or(0, |m| m.unit.len() + m.help.len()))?;
                self.metadata = metadata;
            }
            Err(reason) => {
                self.invalid = Some(format!("parsing metadata for series {}: {reason}", list(&self.refs)));
            }
        }
        Ok(())
    }
}

/// References as a list of a message that a person may read; of very many the first ones.
fn list(refs: &[u32]) -> String {
    const SHOWN: usize = 64;
    let mut words: Vec<String> = refs.iter().take(SHOWN).map(u32::to_string).collect();
    if refs.len() > SHOWN {
        words.push("...".into());
    }
    format!("[{}]", words.join(" "))
}

/// Reads one reference; larger numbers than there may be lose their upper bits, as in other readers of the message.
fn reference(c: &mut Cursor<'_>, refs: &mut Vec<u32>) -> Result<(), Error> {
    refs.push(c.varint()? as u32);
    if refs.len() > MAX_SERIES_LABELS_BYTES / REFERENCE_BYTES {
        return Err(c.error("labels of a series are too long"));
    }
    Ok(())
}

/// Looks up references, two for each pair. Gives how many bytes of text they stand for, or what is wrong with them.
fn resolve<'a>(
    c: &Cursor<'_>,
    refs: &[u32],
    symbols: &[&'a str],
    pairs: &mut Vec<(&'a str, &'a str)>,
    limit: usize,
) -> Result<Result<usize, String>, Error> {
    if !refs.len().is_multiple_of(2) {
        return Ok(Err(format!("invalid labelRefs length {}", refs.len())));
    }
    let mut bytes = 0;
    for pair in refs.chunks_exact(2) {
        let (Some(name), Some(value)) = (symbols.get(pair[0] as usize), symbols.get(pair[1] as usize)) else {
            return Ok(Err(format!(
                "labelRefs {} (name) = {} (value) outside of symbols table (size {})",
                pair[0],
                pair[1],
                symbols.len()
            )));
        };
        bytes += name.len() + value.len() + 2 * REFERENCE_BYTES;
        if bytes > limit {
            return Err(c.error("labels of a series are too long"));
        }
        pairs.push((name, value));
    }
    Ok(Ok(bytes))
}

fn sample(mut c: Cursor<'_>) -> Result<Sample, Error> {
    let (mut timestamp_ms, mut start_timestamp_ms, mut value) = (0, 0, 0.0);
    while let Some(tag) = c.tag()? {
        match tag.field {
            field::SAMPLE_VALUE => {
                c.expect(tag, WireType::Fixed64)?;
                value = c.double()?;
            }
            field::SAMPLE_TIMESTAMP | field::SAMPLE_START_TIMESTAMP => {
                c.expect(tag, WireType::Varint)?;
                let t = c.varint()? as i64;
                if tag.field == field::SAMPLE_TIMESTAMP { timestamp_ms = t } else { start_timestamp_ms = t }
            }
            _ => c.skip(tag.wire_type)?,
        }
    }
    Ok(Sample { start_timestamp_ms, ..Sample::float(timestamp_ms, value) })
}

/// An exemplar, or what is wrong with its references.
fn exemplar<'a>(
    mut c: Cursor<'a>,
    symbols: &[&'a str],
    bytes_left: &mut usize,
) -> Result<Result<Exemplar, String>, Error> {
    let (mut refs, mut pairs) = (Vec::new(), Vec::new());
    let (mut value, mut timestamp_ms) = (0.0, 0);
    while let Some(tag) = c.tag()? {
        match tag.field {
            field::EXEMPLAR_LABELS_REFS => {
                c.repeated(tag, WireType::Varint, |c| reference(c, &mut refs))?;
            }
            field::EXEMPLAR_VALUE => {
                c.expect(tag, WireType::Fixed64)?;
                value = c.double()?;
            }
            field::EXEMPLAR_TIMESTAMP => {
                c.expect(tag, WireType::Varint)?;
                timestamp_ms = c.varint()? as i64;
            }
            _ => c.skip(tag.wire_type)?,
        }
    }
    match resolve(&c, &refs, symbols, &mut pairs, *bytes_left)? {
        Ok(bytes) => *bytes_left -= bytes,
        Err(reason) => return Ok(Err(reason)),
    }
    exemplar_of(&mut pairs, value, timestamp_ms).map(Ok)
}

/// What is said of the metric, or what is wrong with the references.
fn metadata<'a>(mut c: Cursor<'a>, symbols: &[&'a str]) -> Result<Result<Option<Metadata>, String>, Error> {
    let (mut metric_type, mut help, mut unit) = (0, 0, 0);
    while let Some(tag) = c.tag()? {
        match tag.field {
            field::METADATA_TYPE | field::METADATA_HELP_REF | field::METADATA_UNIT_REF => {
                c.expect(tag, WireType::Varint)?;
                match tag.field {
                    field::METADATA_TYPE => metric_type = c.varint()?,
                    field::METADATA_HELP_REF => help = c.varint()? as u32,
                    _ => unit = c.varint()? as u32,
                }
            }
            _ => c.skip(tag.wire_type)?,
        }
    }
    let find = |what: &str, i: u32| {
        let outside = || format!("metadata {what}_ref {i} outside of symbols table (size {})", symbols.len());
        symbols.get(i as usize).copied().ok_or_else(outside)
    };
    // 0 is the empty string, which is there unless there are no symbols at all.
    let found = |what: &str, i: u32| if i == 0 { Ok("") } else { find(what, i) };
    let (unit, help) = match (found("unit", unit), found("help", help)) {
        (Ok(unit), Ok(help)) => (unit, help),
        (Err(e), _) | (_, Err(e)) => return Ok(Err(e)),
    };
    let said = metric_type != 0 || !help.is_empty() || !unit.is_empty();
    let metric_type = metric_type_of(metric_type);
    Ok(Ok(said.then(|| Metadata { metric_type, unit: Arc::from(unit), help: Arc::from(help) })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_v1::to_labels;
    use model::{Labels, MetricType, SampleValue};
    use proptest::prelude::*;
    use prost::Message;

    mod oracle {
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct Request {
            #[prost(string, repeated, tag = "4")]
            pub(super) symbols: Vec<String>,
            #[prost(message, repeated, tag = "5")]
            pub(super) timeseries: Vec<TimeSeries>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct TimeSeries {
            #[prost(uint32, repeated, tag = "1")]
            pub(super) labels_refs: Vec<u32>,
            #[prost(message, repeated, tag = "2")]
            pub(super) samples: Vec<Sample>,
            #[prost(message, repeated, tag = "3")]
            pub(super) histograms: Vec<Histogram>,
            #[prost(message, repeated, tag = "4")]
            pub(super) exemplars: Vec<Exemplar>,
            #[prost(message, optional, tag = "5")]
            pub(super) metadata: Option<Metadata>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct Sample {
            #[prost(double, tag = "1")]
            pub(super) value: f64,
            #[prost(int64, tag = "2")]
            pub(super) timestamp: i64,
            #[prost(int64, tag = "3")]
            pub(super) start_timestamp: i64,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct Histogram {
            #[prost(uint64, tag = "1")]
            pub(super) count_int: u64,
            #[prost(int64, tag = "15")]
            pub(super) timestamp: i64,
            #[prost(int64, tag = "17")]
            pub(super) start_timestamp: i64,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct Exemplar {
            #[prost(uint32, repeated, tag = "1")]
            pub(super) labels_refs: Vec<u32>,
            #[prost(double, tag = "2")]
            pub(super) value: f64,
            #[prost(int64, tag = "3")]
            pub(super) timestamp: i64,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct Metadata {
            #[prost(int32, tag = "1")]
            pub(super) r#type: i32,
            #[prost(uint32, tag = "3")]
            pub(super) help_ref: u32,
            #[prost(uint32, tag = "4")]
            pub(super) unit_ref: u32,
        }
    }

    fn example() -> oracle::Request {
        let symbols = ["", "__name__", "up", "job", "x", "trace_id", "Whether.", "seconds"];
        oracle::Request {
            symbols: symbols.map(str::to_owned).to_vec(),
            timeseries: vec![
                oracle::TimeSeries {
                    labels_refs: vec![1, 2, 3, 4],
                    samples: vec![oracle::Sample { value: 1.5, timestamp: 10, start_timestamp: 3 }],
                    histograms: vec![oracle::Histogram { count_int: 7, timestamp: 11, start_timestamp: 4 }],
                    exemplars: vec![oracle::Exemplar { labels_refs: vec![5, 4], value: 2.0, timestamp: 9 }],
                    metadata: Some(oracle::Metadata { r#type: 1, help_ref: 6, unit_ref: 7 }),
                },
                oracle::TimeSeries { labels_refs: vec![3, 4], ..Default::default() },
            ],
        }
    }

    #[test]
    fn reads_all_parts() {
        let bytes = example().encode_to_vec();
        let mut request = Request::new(&bytes).expect("valid");
        let mut s = TimeSeries::new();
        assert!(request.next_series(&mut s).expect("valid"));
        assert_eq!(to_labels(s.labels()).expect("valid").to_string(), "up{job=\"x\"}");
        let float = &s.samples()[0];
        assert_eq!((float.timestamp_ms, float.start_timestamp_ms), (10, 3));
        assert_eq!(float.value, SampleValue::Float(1.5));
        let histogram = &s.samples()[1];
        assert_eq!((histogram.timestamp_ms, histogram.start_timestamp_ms), (11, 4));
        assert_eq!(s.exemplars()[0].labels, Labels::from_pairs([("trace_id", "x")]));
        let m = s.metadata().expect("given");
        assert_eq!((m.metric_type, &*m.help, &*m.unit), (MetricType::Counter, "Whether.", "seconds"));
        assert!(request.next_series(&mut s).expect("valid"));
        assert_eq!((s.samples().len(), s.metadata()), (0, None));
        assert!(!request.next_series(&mut s).expect("valid"));
    }

    fn read_all(bytes: &[u8]) -> Result<usize, Error> {
        let mut request = Request::new(bytes)?;
        let mut s = TimeSeries::new();
        let mut n = 0;
        while request.next_series(&mut s)? {
            let _ = to_labels(s.labels());
            n += 1;
        }
        Ok(n)
    }

    /// What the series and exemplars of a well-formed message suffer from.
    fn invalid(bytes: &[u8]) -> Vec<String> {
        let mut request = Request::new(bytes).expect("well formed");
        let (mut s, mut out) = (TimeSeries::new(), Vec::new());
        while request.next_series(&mut s).expect("well formed") {
            out.extend(s.invalid().map(str::to_owned));
            out.extend(s.invalid_exemplars().iter().cloned());
        }
        out
    }

    #[test]
    fn a_bad_reference_costs_its_series_or_exemplar_only() {
        let check = |change: fn(&mut oracle::Request), reason: &str| {
            let mut m = example();
            change(&mut m);
            let bytes = m.encode_to_vec();
            let found = invalid(&bytes);
            assert!(found.len() == 1 && found[0].contains(reason), "{found:?}");
            assert_eq!(read_all(&bytes).expect("well formed"), example().timeseries.len());
        };
        check(|m| m.timeseries[0].labels_refs[1] = 80, " = 80 (value) outside of symbols table (size ");
        check(|m| m.timeseries[0].labels_refs.truncate(3), "invalid labelRefs length 3");
        check(|m| m.timeseries[0].exemplars[0].labels_refs.truncate(1), "invalid labelRefs length 1");
        let metadata = |m: &mut oracle::Request| {
            m.timeseries[0].metadata = Some(oracle::Metadata { help_ref: 80, ..Default::default() });
        };
        check(metadata, "parsing metadata for series");
    }

    #[test]
    fn bodies_that_cannot_be_are_errors() {
        let check = |change: fn(&mut oracle::Request), reason: &str| {
            let mut m = example();
            change(&mut m);
            let e = read_all(&m.encode_to_vec()).expect_err(reason);
            assert!(e.to_string().contains(reason), "{e}");
        };
        check(|m| m.symbols[0] = "x".into(), "first symbol");
        check(|m| m.symbols[4] = "x".repeat(MAX_SERIES_LABELS_BYTES), "too long");
    }

    /// A few bytes that stand for many, again and again: each alone is within its limits, together they are not.
    #[test]
    fn bombs_of_each_kind_are_refused_before_they_fill_memory() {
        let series = |change: &dyn Fn(&mut oracle::TimeSeries)| {
            let mut one = oracle::TimeSeries { labels_refs: vec![1, 2], ..Default::default() };
            one.samples.push(oracle::Sample::default());
            change(&mut one);
            one
        };
        let check = |symbols: Vec<String>, one: oracle::TimeSeries, times: usize, what: &str| {
            let timeseries = vec![one; times];
            let bytes = oracle::Request { symbols, timeseries }.encode_to_vec();
            assert!(bytes.len() < 32 << 20, "{what}: {} bytes", bytes.len());
            assert!(matches!(read_all(&bytes), Err(Error::Limit(_))), "{what}: {:?}", read_all(&bytes));
        };
        let big = || vec![String::new(), "__name__".into(), "x".repeat(900_000)];
        check(big(), series(&|_| {}), 400, "long labels of many series");
        let help = |s: &mut oracle::TimeSeries| {
            s.labels_refs = vec![1, 1];
            s.metadata = Some(oracle::Metadata { help_ref: 2, ..Default::default() });
        };
        check(big(), series(&help), 400, "help texts");
        let small = || vec![String::new(), "__name__".into(), "x".into()];
        let samples = |s: &mut oracle::TimeSeries| s.samples = vec![oracle::Sample::default(); 9_000_000];
        check(small(), series(&samples), 1, "empty samples");
        let histograms =
            |s: &mut oracle::TimeSeries| s.histograms = vec![oracle::Histogram::default(); 2_000_000];
        check(small(), series(&histograms), 1, "empty histograms");
        let exemplars = |s: &mut oracle::TimeSeries| {
            s.exemplars = vec![oracle::Exemplar { labels_refs: vec![1, 2], ..Default::default() }; 1000];
        };
        check(small(), series(&exemplars), 3000, "exemplars");
        check(vec![String::new(); (8 << 20) + 1], series(&|_| {}), 1, "empty symbols");
        let mut refs = oracle::TimeSeries { labels_refs: vec![0; 200_000], ..Default::default() };
        refs.samples.push(oracle::Sample::default());
        let bytes = oracle::Request { symbols: small(), timeseries: vec![refs] }.encode_to_vec();
        let e = read_all(&bytes).expect_err("empty labels");
        assert!(e.to_string().contains("too long"), "{e}");
    }

    #[test]
    fn truncated_anywhere_it_does_not_panic() {
        let bytes = example().encode_to_vec();
        for len in 0..bytes.len() {
            if let Ok(n) = read_all(&bytes[..len]) {
                assert!(n < 2, "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_all(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(at in any::<prop::sample::Index>(), b in any::<u8>()) {
            let mut bytes = example().encode_to_vec();
            let i = at.index(bytes.len());
            bytes[i] = b;
            let _ = read_all(&bytes);
        }
    }
}
