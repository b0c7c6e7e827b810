//! Chunk encodings, byte-compatible with Prometheus. Reading order: `bits` (bit streams), [`xor`] (floats), `start` (start
//! timestamps), `xor2` (floats with them), `histogram`; `open` is what the head writes to, whatever it holds.
//!
//! A chunk begins with the number of its samples in two bytes, big-endian. A reader stops after that many, so a chunk
//! that is still written to can be read up to any earlier sample by giving it a smaller number.
//! Format: docs/formats/chunk.md.

mod bits;
mod histogram;
mod open;
mod start;
pub(crate) mod xor;
mod xor2;

use bytes::Bytes;
use model::{Chunk, ChunkCodec, ChunkEncoding, HistogramValue, Samples};

pub(crate) use open::{Cut, EncodedChunk, Encodings, OpenChunk, encode, range_end};
pub use xor::{XOR_CODEC, XorAppender};

/// The codec of an encoding byte as blocks and head chunks store it; `None` when this version has none.
#[must_use]
pub fn codec(encoding: u8) -> Option<&'static dyn ChunkCodec> {
    match ChunkEncoding(encoding) {
        ChunkEncoding::XOR => Some(XOR_CODEC),
        ChunkEncoding::HISTOGRAM => Some(histogram::HISTOGRAM_CODEC),
        ChunkEncoding::FLOAT_HISTOGRAM => Some(histogram::FLOAT_HISTOGRAM_CODEC),
        ChunkEncoding::XOR2 => Some(xor2::XOR2_CODEC),
        ChunkEncoding::HISTOGRAM_ST => Some(histogram::HISTOGRAM_ST_CODEC),
        ChunkEncoding::FLOAT_HISTOGRAM_ST => Some(histogram::FLOAT_HISTOGRAM_ST_CODEC),
        _ => None,
    }
}

/// Encodes samples, sorted by time, into chunks that any Prometheus reads: XOR and histograms. Start timestamps are left out,
/// since the encodings that hold them are newer.
#[must_use]
pub fn encode_common(samples: &Samples) -> Vec<Chunk> {
    let started;
    let samples = if samples.start_timestamps_ms.is_empty() {
        samples
    } else {
        started = Samples { start_timestamps_ms: Vec::new(), ..samples.clone() };
        &started
    };
    let chunk = |(mint, maxt, encoding, bytes)| {
        Chunk::encoded(codec(encoding).expect("what is written can be read"), bytes, mint, maxt)
    };
    encode(samples, Encodings::default()).into_iter().map(chunk).collect()
}

/// The bits of the first two bytes of a chunk that are the number of its samples.
fn count_mask(encoding: u8) -> u16 {
    match ChunkEncoding(encoding) {
        ChunkEncoding::HISTOGRAM_ST | ChunkEncoding::FLOAT_HISTOGRAM_ST => histogram::STARTED_COUNT_MASK,
        _ => u16::MAX,
    }
}

/// Number of samples of an encoded chunk; 0 for bytes that are none.
pub(crate) fn sample_count(encoding: u8, bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |b| u16::from_be_bytes(*b)) & count_mask(encoding)
}

/// The same chunk, read only up to its first `count` samples.
pub(crate) fn with_sample_count(encoding: u8, bytes: &[u8], count: u16) -> Bytes {
    assert!(count <= sample_count(encoding, bytes), "a chunk cannot show more samples than it has");
    let mut copy = bytes.to_vec();
    let others = u16::from_be_bytes([copy[0], copy[1]]) & !count_mask(encoding);
    copy[..2].copy_from_slice(&(others | count).to_be_bytes());
    copy.into()
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
