//! [`OpenChunk`]: a chunk that is being written; [`Cut`]: when it ends and another one begins; [`encode`]: whole chunks of
//! samples at hand.
//!
//! Chunks end where Prometheus ends them (docs/formats/chunk.md#cutting), so that both make equally many.

use bytes::Bytes;
use model::{ChunkEncoding, SampleValue, Samples};

use super::histogram::HistogramAppender;
use super::xor::XorStream;
use super::xor2::Xor2Appender;

/// Samples a chunk of floats is meant to have.
const FLOATS: u16 = 120;
/// Encoded length from which a chunk of floats is cut: one more sample of 19 bytes must fit into 1,024.
const FLOATS_LEN_BYTES_MAX: usize = 1024 - 19;
/// Length that a chunk of histograms is meant to have.
const HISTOGRAMS_LEN_BYTES: usize = 1024;
/// A chunk of histograms is not cut for its length before it has so many samples.
const HISTOGRAMS_MIN: u16 = 10;

/// Which encodings new chunks have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encodings {
    /// XOR2 instead of XOR.
    pub(crate) xor2: bool,
    /// Histograms with start timestamps.
    pub(crate) histogram_starts: bool,
    /// Start timestamps are stored, so that a chunk that cannot hold them must not go on.
    pub(crate) starts: bool,
}

/// A chunk that is being written.
pub(crate) enum OpenChunk {
    /// The newest sample is kept by the callers.
    Float(XorStream),
    Float2(Box<Xor2Appender>),
    Histogram(Box<HistogramAppender>),
}

/// There are as many open chunks as series.
const _: () = assert!(size_of::<Option<OpenChunk>>() == 48);

/// Time and bits of a sample, the latter only of a float.
fn float_bits(t: i64, value: &SampleValue) -> (i64, u64) {
    match value {
        SampleValue::Float(v) => (t, v.to_bits()),
        SampleValue::Histogram(_) => (t, 0),
    }
}

impl OpenChunk {
    /// A chunk of one sample. `before` is the chunk that it follows without a gap.
    pub(crate) fn new(
        t: i64,
        start: i64,
        value: &SampleValue,
        encodings: Encodings,
        before: Option<&Self>,
    ) -> Self {
        match value {
            SampleValue::Float(v) if encodings.xor2 => {
                let mut a = Xor2Appender::new();
                a.append(t, start, *v);
                Self::Float2(Box::new(a))
            }
            SampleValue::Float(v) => {
                let mut a = XorStream::new();
                a.append((0, 0), (t, v.to_bits()));
                Self::Float(a)
            }
            SampleValue::Histogram(h) => {
                let before = match before {
                    Some(Self::Histogram(b)) => Some(&**b),
                    _ => None,
                };
                Self::Histogram(first_of(
                    HistogramAppender::new(h, encodings.histogram_starts, before),
                    t,
                    start,
                    h,
                ))
            }
        }
    }

    /// Whether such a value goes into the chunk.
    fn is_for(&self, value: &SampleValue, encodings: Encodings) -> bool {
        match (self, value) {
            (Self::Float(_), SampleValue::Float(_)) => !(encodings.xor2 && encodings.starts),
            (Self::Float2(_), SampleValue::Float(_)) => encodings.xor2 || !encodings.starts,
            (Self::Histogram(a), SampleValue::Histogram(h)) => a.is_for(h, encodings.histogram_starts),
            _ => false,
        }
    }

    /// Adds a value the chunk is for, after its newest sample; gives the next chunk, with the value in it, when it does not
    /// fit.
    fn append(
        &mut self,
        (last_t, last): (i64, &SampleValue),
        (t, start, value): (i64, i64, &SampleValue),
        encodings: Encodings,
    ) -> Option<Self> {
        match (self, value) {
            (Self::Float(a), SampleValue::Float(v)) => a.append(float_bits(last_t, last), (t, v.to_bits())),
            (Self::Float2(a), SampleValue::Float(v)) => a.append(t, start, *v),
            (Self::Histogram(a), SampleValue::Histogram(h)) => {
                if let Err(new) = a.append(t, start, h) {
                    let next = HistogramAppender::after(&new, h, encodings.histogram_starts);
                    return Some(Self::Histogram(first_of(next, t, start, h)));
                }
            }
            _ => panic!("callers ask `is_for` first"),
        }
        None
    }

    pub(crate) fn count(&self) -> u16 {
        match self {
            Self::Float(a) => a.count(),
            Self::Float2(a) => a.count(),
            Self::Histogram(a) => a.count(),
        }
    }

    fn len_bytes(&self) -> usize {
        match self {
            Self::Float(a) => a.len_bytes(),
            Self::Float2(a) => a.len_bytes(),
            Self::Histogram(a) => a.len_bytes(),
        }
    }

    pub(crate) fn encoding(&self) -> u8 {
        match self {
            Self::Float(_) => ChunkEncoding::XOR.0,
            Self::Float2(_) => ChunkEncoding::XOR2.0,
            Self::Histogram(a) => a.encoding().0,
        }
    }

    pub(crate) fn encode_first(&self, count: u16) -> Bytes {
        match self {
            Self::Float(a) => a.encode_first(count),
            Self::Float2(a) => a.encode_first(count),
            Self::Histogram(a) => a.encode_first(count),
        }
    }
}

fn first_of(
    mut a: HistogramAppender,
    t: i64,
    start: i64,
    h: &model::HistogramValue,
) -> Box<HistogramAppender> {
    assert!(a.append(t, start, h).is_ok(), "an empty chunk takes every histogram");
    Box::new(a)
}

/// Where the chunk that is being written ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cut {
    mint: i64,
    /// Timestamp from which on a new chunk begins.
    next_at: i64,
}

impl Cut {
    fn begin(mint: i64, range_ms: i64) -> Self {
        Self { mint, next_at: range_end(mint, range_ms) }
    }

    /// Timestamp of the first sample of the chunk.
    pub(crate) fn mint(&self) -> i64 {
        self.mint
    }

    /// Adds a sample at `t` to the chunk, whose newest sample is `last`, or begins a new chunk with it and gives
    /// the one before.
    #[inline]
    pub(crate) fn append(
        &mut self,
        open: &mut OpenChunk,
        last: &(i64, SampleValue),
        (t, start, value): (i64, i64, &SampleValue),
        range_ms: i64,
        encodings: Encodings,
    ) -> Option<OpenChunk> {
        let next = if !open.is_for(value, encodings) || self.is_due(open, last.0, t, range_ms) {
            Some(OpenChunk::new(t, start, value, encodings, Some(open)))
        } else {
            open.append((last.0, &last.1), (t, start, value), encodings)
        };
        let next = next?;
        *self = Self::begin(t, range_ms);
        Some(std::mem::replace(open, next))
    }

    /// A first chunk with one sample.
    pub(crate) fn first(
        (t, start, value): (i64, i64, &SampleValue),
        range_ms: i64,
        encodings: Encodings,
    ) -> (Self, OpenChunk) {
        (Self::begin(t, range_ms), OpenChunk::new(t, start, value, encodings, None))
    }

    fn is_due(&mut self, open: &mut OpenChunk, last: i64, t: i64, range_ms: i64) -> bool {
        let (count, len) = (open.count(), open.len_bytes());
        let OpenChunk::Histogram(histograms) = open else {
            // At a quarter of a chunk, the rest of the range is shared out evenly.
            if count == FLOATS / 4 {
                self.next_at = chunk_end(self.mint, last, self.next_at, 4.0);
            }
            return t >= self.next_at || count >= FLOATS * 2 || len > FLOATS_LEN_BYTES_MAX;
        };
        let range_end = range_end(self.mint, range_ms);
        if len >= HISTOGRAMS_LEN_BYTES / 4 && !histograms.end_foretold {
            self.next_at = chunk_end(self.mint, last, self.next_at, HISTOGRAMS_LEN_BYTES as f64 / len as f64);
            histograms.end_foretold = true;
        }
        (t >= self.next_at || len >= HISTOGRAMS_LEN_BYTES * 2) && (count >= HISTOGRAMS_MIN || t >= range_end)
    }
}

/// The end of the aligned range that holds `t`.
pub(crate) fn range_end(t: i64, range_ms: i64) -> i64 {
    t.div_euclid(range_ms).saturating_mul(range_ms).saturating_add(range_ms)
}

/// Where a chunk that is full by one part in `ratio` at `last` should end, so that chunks fill the time up to `end` evenly.
fn chunk_end(start: i64, last: i64, end: i64, ratio: f64) -> i64 {
    let n = end.saturating_sub(start) as f64 / (last.saturating_sub(start).saturating_add(1) as f64 * ratio);
    if n <= 1.0 { end } else { (start as f64 + (end - start) as f64 / n.floor()) as i64 }
}

/// A whole chunk: times of its first and last sample, encoding, bytes.
pub(crate) type EncodedChunk = (i64, i64, u8, Bytes);

/// Encodes samples, sorted by time, into chunks that end where chunks of the head would, but for the time that a range
/// ends: callers give samples of one range. Samples with start timestamps get encodings that hold them.
pub(crate) fn encode(samples: &Samples, encodings: Encodings) -> Vec<EncodedChunk> {
    let starts = samples.start_timestamps_ms.iter().any(|s| *s != 0);
    let encodings = Encodings {
        xor2: encodings.xor2 || starts,
        histogram_starts: encodings.histogram_starts || starts,
        starts: encodings.starts || starts,
    };
    let mut out = Vec::new();
    let mut open: Option<(OpenChunk, i64)> = None;
    let mut last = (0, SampleValue::Float(0.0));
    let mut finish = |open: OpenChunk, mint: i64, maxt: i64| {
        out.push((mint, maxt, open.encoding(), open.encode_first(open.count())));
    };
    for s in samples.iter() {
        let (t, start) = (s.timestamp_ms, s.start_timestamp_ms);
        let next = match &mut open {
            None => Some(OpenChunk::new(t, start, &s.value, encodings, None)),
            Some((chunk, _)) => {
                let is_full = match &*chunk {
                    OpenChunk::Histogram(a) => {
                        a.len_bytes() >= HISTOGRAMS_LEN_BYTES && a.count() >= HISTOGRAMS_MIN
                    }
                    other => other.count() >= FLOATS || other.len_bytes() > FLOATS_LEN_BYTES_MAX,
                };
                if is_full || !chunk.is_for(&s.value, encodings) {
                    Some(OpenChunk::new(t, start, &s.value, encodings, Some(chunk)))
                } else {
                    chunk.append((last.0, &last.1), (t, start, &s.value), encodings)
                }
            }
        };
        if let Some(next) = next
            && let Some((before, mint)) = open.replace((next, t))
        {
            finish(before, mint, last.0);
        }
        last = (t, s.value);
    }
    if let Some((chunk, mint)) = open {
        finish(chunk, mint, last.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use model::{Histogram, Sample};

    use super::*;

    #[test]
    fn samples_of_all_kinds_come_back_from_whole_chunks() {
        let mut samples = Samples::new();
        for i in 0..1000_i64 {
            let value = match i {
                0..400 => SampleValue::Float(i as f64),
                400..700 => SampleValue::Histogram(
                    Histogram {
                        count: i as u64 % 250,
                        counter_reset_hint: Default::default(),
                        ..Default::default()
                    }
                    .into(),
                ),
                _ => SampleValue::Float(1.0),
            };
            samples.push(Sample { timestamp_ms: i * 1000, start_timestamp_ms: i / 300, value });
        }
        let chunks = encode(&samples, Encodings::default());
        assert_eq!(chunks.len(), 4 + 2 + 3);
        assert!(chunks.windows(2).all(|w| w[0].1 < w[1].0));
        let mut out = Samples::new();
        for (mint, maxt, encoding, bytes) in &chunks {
            let before = out.len();
            let codec = super::super::codec(*encoding).expect("known");
            codec.decode(bytes, i64::MIN, i64::MAX, &mut out).expect("own bytes");
            assert_eq!((out.timestamps_ms[before], *out.timestamps_ms.last().expect("some")), (*mint, *maxt));
            assert_eq!(out.len() - before, usize::from(super::super::sample_count(*encoding, bytes)));
        }
        assert_eq!(out.timestamps_ms, samples.timestamps_ms);
        assert_eq!(out.start_timestamps_ms, samples.start_timestamps_ms);
        assert!((0..1000).all(|i| out.histogram(i).is_some() == (400..700).contains(&i)));
        assert_eq!(out.values, samples.values);
    }
}
