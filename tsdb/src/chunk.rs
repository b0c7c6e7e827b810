//! Chunk encodings, byte-compatible with Prometheus. Reading order: `bits` (bit streams), [`xor`] (floats), `histogram`;
//! `OpenChunk` is what the head writes to, whatever it holds.
//!
//! A chunk begins with the number of its samples in two bytes, big-endian. A reader stops after that many, so a chunk
//! that is still written to can be read up to any earlier sample by giving it a smaller number.
//! Format: docs/formats/chunk.md.

mod bits;
mod histogram;
pub(crate) mod xor;

use bytes::Bytes;
use model::{ChunkCodec, ChunkEncoding, HistogramValue, SampleValue};

use histogram::HistogramAppender;

pub use xor::{XOR_CODEC, XorAppender};

/// The codec of an encoding byte as blocks and head chunks store it; `None` when this version has none.
pub(crate) fn codec(encoding: u8) -> Option<&'static dyn ChunkCodec> {
    match ChunkEncoding(encoding) {
        ChunkEncoding::XOR => Some(XOR_CODEC),
        ChunkEncoding::HISTOGRAM => Some(histogram::HISTOGRAM_CODEC),
        ChunkEncoding::FLOAT_HISTOGRAM => Some(histogram::FLOAT_HISTOGRAM_CODEC),
        _ => None,
    }
}

/// Number of samples of an encoded chunk; 0 for bytes that are none.
pub(crate) fn sample_count(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
}

/// The same chunk, read only up to its first `count` samples.
pub(crate) fn with_sample_count(bytes: &[u8], count: u16) -> Bytes {
    assert!(count <= sample_count(bytes), "a chunk cannot show more samples than it has");
    let mut copy = bytes.to_vec();
    copy[..2].copy_from_slice(&count.to_be_bytes());
    copy.into()
}

/// Encoded length from which a XOR chunk is cut: one more sample of 19 bytes must fit into 1,024.
const XOR_LEN_BYTES_MAX: usize = 1024 - 19;
/// A chunk of histograms is cut from this length on, but not before it has so many samples.
const HISTOGRAM_LEN_BYTES: usize = 1024;
const HISTOGRAM_SAMPLES_MIN: u16 = 10;

/// A chunk that is being written.
pub(crate) enum OpenChunk {
    Float(XorAppender),
    Histogram(Box<HistogramAppender>),
}

impl OpenChunk {
    /// An empty chunk for values like this one.
    pub(crate) fn new(value: &SampleValue) -> Self {
        match value {
            SampleValue::Float(_) => Self::Float(XorAppender::new()),
            SampleValue::Histogram(h) => Self::Histogram(Box::new(HistogramAppender::new(h))),
        }
    }

    /// Whether the chunk can hold this value beside those it has.
    pub(crate) fn takes(&self, value: &SampleValue) -> bool {
        match (self, value) {
            (Self::Float(_), SampleValue::Float(_)) => true,
            (Self::Histogram(a), SampleValue::Histogram(h)) => a.takes(h),
            _ => false,
        }
    }

    /// Adds a value that the chunk takes.
    pub(crate) fn append(&mut self, timestamp_ms: i64, value: &SampleValue) {
        match (self, value) {
            (Self::Float(a), SampleValue::Float(v)) => a.append(timestamp_ms, *v),
            (Self::Histogram(a), SampleValue::Histogram(h)) => a.append(timestamp_ms, h),
            _ => panic!("callers ask `takes` first"),
        }
    }

    pub(crate) fn count(&self) -> u16 {
        match self {
            Self::Float(a) => a.count(),
            Self::Histogram(a) => a.count(),
        }
    }

    /// Whether the chunk has grown so long that it is cut, whatever the number of its samples.
    pub(crate) fn is_long(&self) -> bool {
        match self {
            Self::Float(a) => a.len_bytes() > XOR_LEN_BYTES_MAX,
            Self::Histogram(a) => a.len_bytes() >= HISTOGRAM_LEN_BYTES && a.count() >= HISTOGRAM_SAMPLES_MIN,
        }
    }

    pub(crate) fn encoding(&self) -> u8 {
        match self {
            Self::Float(_) => ChunkEncoding::XOR.0,
            Self::Histogram(a) => a.encoding().0,
        }
    }

    pub(crate) fn encode_first(&self, count: u16) -> Bytes {
        match self {
            Self::Float(a) => a.encode_first(count),
            Self::Histogram(a) => a.encode_first(count),
        }
    }
}

/// Checks a histogram for contradictions; a stale marker has none.
pub(crate) fn validate(h: &HistogramValue) -> Result<(), String> {
    if model::is_stale_nan(h.sum()) {
        return Ok(());
    }
    match h {
        HistogramValue::Int(h) => h.validate(),
        HistogramValue::Float(h) => h.validate(),
    }
    .map_err(|e| e.to_string())
}
