//! `prometheus.WriteRequest`, the message of remote write 1.0: read without copying, written into reusable buffers.
//!
//! A receiver walks [`WriteRequest::next_series`] and asks each [`TimeSeries`] for what it needs. The bytes of a
//! series' label section ([`TimeSeries::raw_labels`]) are the same in each request of one sender, so a receiver that
//! remembers them beside its series reference neither parses nor hashes labels again: the fast path costs one walk
//! over the tags and one look-up.
//!
//! ```
//! # fn receive(body: &[u8]) -> Result<(), wire::Error> {
//! let mut scratch = wire::write_v1::LabelScratch::default();
//! let mut request = wire::write_v1::WriteRequest::new(body);
//! while let Some(series) = request.next_series()? {
//!     let _key: &[u8] = series.raw_labels();
//!     let labels = series.labels(&mut scratch)?; // only when the key is not known
//!     for sample in series.samples() {
//!         let (timestamp_ms, value) = sample?;
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Nothing is allocated per series or float sample. Samples are read in the order of the message; whether timestamps
//! rise is the store's question. `custom_values` of histograms (field 16) are read and written too, since almanac's own
//! sender and receiver need no second protocol for them. Metadata comes from [`WriteRequest::metadata`].
//!
//! Writing is in [`encode`]. Spec: <https://prometheus.io/docs/specs/prw/remote_write_spec/>.

use std::borrow::Cow;
use std::sync::Arc;

use model::labels::MAX_LEN_BYTES;
use model::{Exemplar, Labels, Metadata, MetricType, Sample};

use crate::error::Error;
use crate::proto::{Cursor, WireType};

pub mod encode;
pub(crate) mod histogram;
#[cfg(test)]
mod tests;

pub use encode::WriteRequestEncoder;

/// Most labels of a series: an empty one of two bytes takes as much memory as any other.
const MAX_LABELS: usize = 1 << 16;

const MESSAGE: &str = "WriteRequest";

/// First byte of a label: its field number and that its length follows.
const LABEL_TAG: u8 = (field::SERIES_LABELS << 3 | 2) as u8;

/// Field numbers.
pub(crate) mod field {
    pub(crate) const TIMESERIES: u32 = 1;
    pub(crate) const METADATA: u32 = 3;

    pub(crate) const SERIES_LABELS: u32 = 1;
    pub(crate) const SERIES_SAMPLES: u32 = 2;
    pub(crate) const SERIES_EXEMPLARS: u32 = 3;
    pub(crate) const SERIES_HISTOGRAMS: u32 = 4;

    pub(crate) const LABEL_NAME: u32 = 1;
    pub(crate) const LABEL_VALUE: u32 = 2;

    pub(crate) const SAMPLE_VALUE: u32 = 1;
    pub(crate) const SAMPLE_TIMESTAMP: u32 = 2;

    pub(crate) const EXEMPLAR_LABELS: u32 = 1;
    pub(crate) const EXEMPLAR_VALUE: u32 = 2;
    pub(crate) const EXEMPLAR_TIMESTAMP: u32 = 3;

    pub(crate) const METADATA_TYPE: u32 = 1;
    pub(crate) const METADATA_FAMILY: u32 = 2;
    pub(crate) const METADATA_HELP: u32 = 4;
    pub(crate) const METADATA_UNIT: u32 = 5;
}

/// A reader over one decompressed request.
#[derive(Clone, Debug)]
pub struct WriteRequest<'a> {
    cursor: Cursor<'a>,
    body: &'a [u8],
}

impl<'a> WriteRequest<'a> {
    /// A reader over `body`, which is decompressed already.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(body, MESSAGE), body }
    }

    /// The next series, or `None` at the end. Its structure is checked as far as the lengths of its parts; what the
    /// parts hold is checked when they are asked for.
    ///
    /// # Errors
    /// [`Error::Malformed`]. The reader is of no use then; series given before are valid.
    #[inline]
    pub fn next_series(&mut self) -> Result<Option<TimeSeries<'a>>, Error> {
        while let Some(tag) = self.cursor.tag()? {
            if tag.field == field::TIMESERIES {
                self.cursor.expect(tag, WireType::Bytes)?;
                return TimeSeries::scan(self.cursor.message()?).map(Some);
            }
            self.cursor.skip(tag.wire_type)?;
        }
        Ok(None)
    }

    /// Metadata of metric families, in a walk of its own over the request.
    #[must_use]
    pub fn metadata(&self) -> MetadataIter<'a> {
        MetadataIter { cursor: Cursor::new(self.body, MESSAGE) }
    }
}

/// One series of a request.
#[derive(Clone, Debug)]
pub struct TimeSeries<'a> {
    raw_labels: Cow<'a, [u8]>,
    body: Cursor<'a>,
    /// From the first field that is no label on.
    after_labels: Cursor<'a>,
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

impl<'a> TimeSeries<'a> {
    /// Walks over the tags of a series: finds its label section and counts what follows.
    #[inline]
    pub(crate) fn scan(body: Cursor<'a>) -> Result<Self, Error> {
        let mut cursor = body;
        cursor.skip_short(LABEL_TAG);
        let mut after_labels = cursor;
        let mut labels_contiguous = true;
        let (mut samples, mut histograms, mut exemplars, mut others) = (0, 0, 0, 0);
        while let Some(tag) = cursor.tag()? {
            match tag.field {
                field::SERIES_LABELS => {
                    cursor.expect(tag, WireType::Bytes)?;
                    cursor.bytes()?;
                    if samples + histograms + exemplars + others == 0 {
                        after_labels = cursor;
                    } else {
                        labels_contiguous = false;
                    }
                    continue;
                }
                field::SERIES_SAMPLES => samples += 1,
                field::SERIES_EXEMPLARS => exemplars += 1,
                field::SERIES_HISTOGRAMS => histograms += 1,
                _ => {
                    others += 1;
                    cursor.skip(tag.wire_type)?;
                    continue;
                }
            }
            cursor.expect(tag, WireType::Bytes)?;
            cursor.bytes()?;
        }
        let raw_labels = if labels_contiguous {
            let len = body.rest().len() - after_labels.rest().len();
            Cow::Borrowed(&body.rest()[..len])
        } else {
            Cow::Owned(gather_labels(body)?)
        };
        Ok(Self { raw_labels, body, after_labels, samples, histograms, exemplars })
    }

    /// The bytes that hold the labels, tags included. Equal bytes mean equal labels (not the other way round), so a
    /// receiver may use them as a key. They are not checked: only [`TimeSeries::labels`] does that.
    #[must_use]
    #[inline]
    pub fn raw_labels(&self) -> &[u8] {
        &self.raw_labels
    }

    /// The labels in the order of the message, UTF-8 checked. `scratch` is overwritten. See [`to_labels`] for what
    /// makes a [`Labels`] of them.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn labels<'s>(
        &self,
        scratch: &'s mut LabelScratch<'a>,
    ) -> Result<&'s mut [(&'a str, &'a str)], Error> {
        scratch.pairs.clear();
        let mut cursor = self.body;
        while let Some(tag) = cursor.tag()? {
            if tag.field == field::SERIES_LABELS {
                cursor.expect(tag, WireType::Bytes)?;
                if scratch.pairs.len() == MAX_LABELS {
                    return Err(cursor.error("a series has too many labels"));
                }
                scratch.pairs.push(label(cursor.message()?)?);
            } else {
                cursor.skip(tag.wire_type)?;
            }
        }
        Ok(&mut scratch.pairs)
    }

    /// Number of float samples.
    #[must_use]
    pub fn samples_len(&self) -> usize {
        self.samples
    }

    /// Number of histogram samples.
    #[must_use]
    pub fn histograms_len(&self) -> usize {
        self.histograms
    }

    /// Number of exemplars.
    #[must_use]
    pub fn exemplars_len(&self) -> usize {
        self.exemplars
    }

    /// Float samples: timestamp in milliseconds and value, bit for bit.
    #[must_use]
    #[inline]
    pub fn samples(&self) -> SampleIter<'a> {
        SampleIter { parts: self.parts(field::SERIES_SAMPLES, self.samples) }
    }

    /// Histogram samples.
    #[must_use]
    pub fn histograms(&self) -> HistogramIter<'a> {
        HistogramIter { parts: self.parts(field::SERIES_HISTOGRAMS, self.histograms) }
    }

    /// Exemplars.
    #[must_use]
    pub fn exemplars(&self) -> ExemplarIter<'a> {
        ExemplarIter { parts: self.parts(field::SERIES_EXEMPLARS, self.exemplars) }
    }

    #[inline]
    fn parts(&self, field: u32, left: usize) -> Parts<'a> {
        Parts { cursor: self.after_labels, field, left }
    }
}

/// Label fields that other fields interrupt, put together. No known sender makes such a message, but it is a valid one.
#[cold]
fn gather_labels(mut cursor: Cursor<'_>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    loop {
        let before = cursor;
        let Some(tag) = cursor.tag()? else { return Ok(out) };
        cursor.skip(tag.wire_type)?;
        if tag.field == field::SERIES_LABELS {
            out.extend_from_slice(&before.rest()[..before.rest().len() - cursor.rest().len()]);
        }
    }
}

/// Reads a `Label`.
#[inline]
pub(crate) fn label(cursor: Cursor<'_>) -> Result<(&str, &str), Error> {
    match usual_label(cursor.rest()) {
        Some(label) => Ok(label),
        None => any_label(cursor),
    }
}

/// A label as all senders write it: name, then value, both shorter than 128 bytes. `None` is no verdict.
#[inline]
fn usual_label(bytes: &[u8]) -> Option<(&str, &str)> {
    const NAME: u8 = (field::LABEL_NAME << 3 | 2) as u8;
    const VALUE: u8 = (field::LABEL_VALUE << 3 | 2) as u8;
    let [NAME, name_len @ 0..=0x7f, rest @ ..] = bytes else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
    let [VALUE, value_len @ 0..=0x7f, value @ ..] = rest else { return None };
    if value.len() != usize::from(*value_len) {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

/// A label in any form that protobuf allows.
fn any_label<'a>(mut cursor: Cursor<'a>) -> Result<(&'a str, &'a str), Error> {
    let (mut name, mut value) = ("", "");
    while let Some(tag) = cursor.tag()? {
        match tag.field {
            field::LABEL_NAME => {
                cursor.expect(tag, WireType::Bytes)?;
                name = cursor.str()?;
            }
            field::LABEL_VALUE => {
                cursor.expect(tag, WireType::Bytes)?;
                value = cursor.str()?;
            }
            _ => cursor.skip(tag.wire_type)?,
        }
    }
    Ok((name, value))
}

/// Memory for the labels of one series at a time.
#[derive(Debug, Default)]
pub struct LabelScratch<'a> {
    pub(crate) pairs: Vec<(&'a str, &'a str)>,
}

impl LabelScratch<'_> {
    /// The same memory for the next request, whose bytes live elsewhere.
    #[must_use]
    pub fn recycle<'b>(mut self) -> LabelScratch<'b> {
        self.pairs.clear();
        // Collecting an emptied vector of the same layout keeps its allocation.
        LabelScratch { pairs: self.pairs.into_iter().map(|_| ("", "")).collect() }
    }
}

/// Makes a label set of pairs as they were read. Sorts them when a sender did not; labels with an empty value are as
/// good as absent and left out.
///
/// # Errors
/// [`Error::InvalidLabels`] when there is no label left, a name is empty or occurs twice, or a string is longer than
/// a label set holds.
pub fn to_labels(pairs: &mut [(&str, &str)]) -> Result<Labels, Error> {
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        if let Some(w) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(Error::InvalidLabels(format!("label {:?} occurs twice", shorten(w[0].0))));
        }
    }
    if pairs.first().is_some_and(|(n, _)| n.is_empty()) {
        return Err(Error::InvalidLabels("a label name is empty".into()));
    }
    if let Some((n, _)) = pairs.iter().find(|(n, v)| n.len().max(v.len()) > MAX_LEN_BYTES) {
        return Err(Error::InvalidLabels(format!("label {:?} is too long", shorten(n))));
    }
    if pairs.iter().all(|(_, v)| v.is_empty()) {
        return Err(Error::InvalidLabels("there are none".into()));
    }
    Ok(Labels::from_sorted(pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (*n, *v))))
}

/// Enough of a foreign name to recognise it in a log.
fn shorten(s: &str) -> &str {
    let end = s.char_indices().nth(64).map_or(s.len(), |(i, _)| i);
    &s[..end]
}

// === Parts of a series ===

/// The length-delimited fields of one number in a series.
#[derive(Clone, Debug)]
struct Parts<'a> {
    cursor: Cursor<'a>,
    field: u32,
    left: usize,
}

impl<'a> Parts<'a> {
    #[inline]
    fn next(&mut self) -> Result<Option<Cursor<'a>>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        while let Some(tag) = self.cursor.tag()? {
            if tag.field == self.field {
                self.left -= 1;
                return self.cursor.message().map(Some);
            }
            self.cursor.skip(tag.wire_type)?;
        }
        Ok(None)
    }

    /// After an error nothing more comes.
    #[inline]
    fn next_with<T>(
        &mut self,
        read: impl FnOnce(Cursor<'a>) -> Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let out = match self.next() {
            Ok(None) => return None,
            Ok(Some(message)) => read(message),
            Err(e) => Err(e),
        };
        if out.is_err() {
            self.left = 0;
        }
        Some(out)
    }
}

/// Float samples of a series.
#[derive(Clone, Debug)]
pub struct SampleIter<'a> {
    parts: Parts<'a>,
}

impl Iterator for SampleIter<'_> {
    type Item = Result<(i64, f64), Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.parts.next_with(sample)
    }
}

/// Reads a `Sample`.
#[inline]
fn sample(cursor: Cursor<'_>) -> Result<(i64, f64), Error> {
    match usual_sample(cursor.rest()) {
        Some(sample) => Ok(sample),
        None => any_sample(cursor),
    }
}

/// A sample as all senders write it: value, then a timestamp of at most nine bytes. `None` is no verdict.
#[inline]
fn usual_sample(bytes: &[u8]) -> Option<(i64, f64)> {
    const VALUE: u8 = (field::SAMPLE_VALUE << 3 | 1) as u8;
    const TIMESTAMP: u8 = (field::SAMPLE_TIMESTAMP << 3) as u8;
    let (&VALUE, rest) = bytes.split_first()? else { return None };
    let (value, rest) = rest.split_first_chunk::<8>()?;
    let [TIMESTAMP, timestamp @ .., last @ 0..=0x7f] = rest else { return None };
    if timestamp.len() > 8 || timestamp.iter().any(|b| *b < 0x80) {
        return None;
    }
    let high = u64::from(*last) << (7 * timestamp.len());
    let timestamp = timestamp.iter().rev().fold(0, |t, b| t << 7 | u64::from(*b & 0x7f)) | high;
    Some((timestamp as i64, f64::from_bits(u64::from_le_bytes(*value))))
}

/// A sample in any form that protobuf allows.
fn any_sample(mut cursor: Cursor<'_>) -> Result<(i64, f64), Error> {
    let (mut timestamp_ms, mut value) = (0, 0.0);
    while let Some(tag) = cursor.tag()? {
        match tag.field {
            field::SAMPLE_VALUE => {
                cursor.expect(tag, WireType::Fixed64)?;
                value = cursor.double()?;
            }
            field::SAMPLE_TIMESTAMP => {
                cursor.expect(tag, WireType::Varint)?;
                timestamp_ms = cursor.varint()? as i64;
            }
            _ => cursor.skip(tag.wire_type)?,
        }
    }
    Ok((timestamp_ms, value))
}

/// Histogram samples of a series. Whether a histogram agrees with itself is not checked.
#[derive(Clone, Debug)]
pub struct HistogramIter<'a> {
    parts: Parts<'a>,
}

impl Iterator for HistogramIter<'_> {
    type Item = Result<Sample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.parts.next_with(histogram::read)
    }
}

/// Exemplars of a series.
#[derive(Clone, Debug)]
pub struct ExemplarIter<'a> {
    parts: Parts<'a>,
}

impl Iterator for ExemplarIter<'_> {
    type Item = Result<Exemplar, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.parts.next_with(exemplar)
    }
}

/// Reads an `Exemplar`. A timestamp of 0 is one that was not given.
fn exemplar(mut cursor: Cursor<'_>) -> Result<Exemplar, Error> {
    let mut pairs = Vec::new();
    let (mut value, mut timestamp_ms) = (0.0, 0);
    while let Some(tag) = cursor.tag()? {
        match tag.field {
            field::EXEMPLAR_LABELS => {
                cursor.expect(tag, WireType::Bytes)?;
                pairs.push(label(cursor.message()?)?);
            }
            field::EXEMPLAR_VALUE => {
                cursor.expect(tag, WireType::Fixed64)?;
                value = cursor.double()?;
            }
            field::EXEMPLAR_TIMESTAMP => {
                cursor.expect(tag, WireType::Varint)?;
                timestamp_ms = cursor.varint()? as i64;
            }
            _ => cursor.skip(tag.wire_type)?,
        }
    }
    exemplar_of(&mut pairs, value, timestamp_ms)
}

/// An exemplar of its parts; unlike a series it may have no label.
pub(crate) fn exemplar_of(
    pairs: &mut [(&str, &str)],
    value: f64,
    timestamp_ms: i64,
) -> Result<Exemplar, Error> {
    let labels = if pairs.iter().all(|(_, v)| v.is_empty()) { Labels::empty() } else { to_labels(pairs)? };
    Ok(Exemplar { labels, value, timestamp_ms: (timestamp_ms != 0).then_some(timestamp_ms) })
}

/// Metadata of metric families: the family's name and what is said of it.
#[derive(Clone, Debug)]
pub struct MetadataIter<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for MetadataIter<'a> {
    type Item = Result<(&'a str, Metadata), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let out = self.try_next().transpose();
        if let Some(Err(_)) = out {
            self.cursor = Cursor::new(&[], MESSAGE);
        }
        out
    }
}

impl<'a> MetadataIter<'a> {
    fn try_next(&mut self) -> Result<Option<(&'a str, Metadata)>, Error> {
        while let Some(tag) = self.cursor.tag()? {
            if tag.field == field::METADATA {
                self.cursor.expect(tag, WireType::Bytes)?;
                return metadata(self.cursor.message()?).map(Some);
            }
            self.cursor.skip(tag.wire_type)?;
        }
        Ok(None)
    }
}

fn metadata<'a>(mut cursor: Cursor<'a>) -> Result<(&'a str, Metadata), Error> {
    let (mut family, mut help, mut unit, mut metric_type) = ("", "", "", 0);
    while let Some(tag) = cursor.tag()? {
        match tag.field {
            field::METADATA_TYPE => {
                cursor.expect(tag, WireType::Varint)?;
                metric_type = cursor.varint()?;
            }
            field::METADATA_FAMILY | field::METADATA_HELP | field::METADATA_UNIT => {
                cursor.expect(tag, WireType::Bytes)?;
                let s = cursor.str()?;
                match tag.field {
                    field::METADATA_FAMILY => family = s,
                    field::METADATA_HELP => help = s,
                    _ => unit = s,
                }
            }
            _ => cursor.skip(tag.wire_type)?,
        }
    }
    let metric_type = metric_type_of(metric_type);
    Ok((family, Metadata { metric_type, unit: Arc::from(unit), help: Arc::from(help) }))
}

const METRIC_TYPES: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

/// The type of a number on the wire. Numbers of later versions are unknown types.
pub(crate) fn metric_type_of(number: u64) -> MetricType {
    usize::try_from(number).ok().and_then(|i| METRIC_TYPES.get(i)).copied().unwrap_or_default()
}

pub(crate) fn metric_type_number(metric_type: MetricType) -> u64 {
    METRIC_TYPES.iter().position(|t| *t == metric_type).unwrap_or(0) as u64
}
