//! Chunk encodings, byte-compatible with Prometheus. Reading order: [`xor`] (floats); [`OpenChunk`] is what the head
//! writes to, whatever it holds.
//!
//! A chunk begins with the number of its samples in two bytes, big-endian. A reader stops after that many, so a chunk
//! that is still written to can be read up to any earlier sample by giving it a smaller number.
//! Format: docs/formats/chunk.md.

mod bits;
pub(crate) mod xor;

use bytes::Bytes;
use model::{ChunkCodec, ChunkEncoding};

pub use xor::{XOR_CODEC, XorAppender};

/// The codec of an encoding byte as blocks and head chunks store it; `None` when this version has none.
pub(crate) fn codec(encoding: u8) -> Option<&'static dyn ChunkCodec> {
    match ChunkEncoding(encoding) {
        ChunkEncoding::XOR => Some(XOR_CODEC),
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

/// What a sample of the head carries.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Float(f64),
}

impl Value {
    /// Whether both are the same sample, bit for bit.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
        }
    }
}

/// A chunk that is being written.
pub(crate) enum OpenChunk {
    Float(XorAppender),
}

impl OpenChunk {
    /// An empty chunk for values like this one.
    pub(crate) fn new(value: &Value) -> Self {
        match value {
            Value::Float(_) => Self::Float(XorAppender::new()),
        }
    }

    /// Whether the chunk can hold this value beside those it has.
    pub(crate) fn takes(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Float(_), Value::Float(_)) => true,
        }
    }

    pub(crate) fn append(&mut self, timestamp_ms: i64, value: &Value) {
        match (self, value) {
            (Self::Float(a), Value::Float(v)) => a.append(timestamp_ms, *v),
        }
    }

    pub(crate) fn count(&self) -> u16 {
        match self {
            Self::Float(a) => a.count(),
        }
    }

    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            Self::Float(a) => a.len_bytes(),
        }
    }

    pub(crate) fn encoding(&self) -> u8 {
        match self {
            Self::Float(_) => ChunkEncoding::XOR.0,
        }
    }

    pub(crate) fn encode_first(&self, count: u16) -> Bytes {
        match self {
            Self::Float(a) => a.encode_first(count),
        }
    }
}
