//! Chunks of integer and float histograms, with and without start timestamps. Spec: docs/formats/chunk.md#histograms.
//!
//! Reading order: `layout` (what the samples of a chunk share), `kind` (integers and floats), `append`, `widen` (new buckets
//! in a chunk), `read`. [`HistogramAppender`] is what the head writes to, whatever the kind.

mod append;
mod kind;
mod layout;
mod read;
mod widen;

use bytes::Bytes;
use model::{ChunkEncoding, HistogramValue};

use append::{Appender, first_flags};
use kind::{FloatHistograms, IntHistograms, Kind};

pub(crate) use read::{FLOAT_HISTOGRAM_CODEC, FLOAT_HISTOGRAM_ST_CODEC, HISTOGRAM_CODEC, HISTOGRAM_ST_CODEC};

/// Sample count, and flags or the header of the start timestamps. With start timestamps the flags are in the upper two
/// bits of the count.
const HEADER_LEN_BYTES: usize = 3;
const FLAGS_AT: usize = 2;
const FLAG_MASK: u8 = 0b1100_0000;
const FLAG_UNKNOWN: u8 = 0;
const FLAG_NO_RESET: u8 = 0b0100_0000;
const FLAG_COUNTER_RESET: u8 = 0b1000_0000;
const FLAG_GAUGE: u8 = 0b1100_0000;
/// The bits of the sample count in a chunk with start timestamps.
pub(super) const STARTED_COUNT_MASK: u16 = 0x3fff;

enum AnyAppender {
    Int(Appender<IntHistograms>),
    Float(Appender<FloatHistograms>),
}

/// Writes a chunk of histograms of the kind of its first one.
pub(crate) struct HistogramAppender {
    appender: AnyAppender,
    /// For who cuts chunks: whether the end of this one has been foretold from how it fills.
    pub(crate) end_foretold: bool,
}

/// A histogram does not fit a chunk: the flags of the one that it begins.
pub(crate) struct NewChunk {
    flags: u8,
}

impl HistogramAppender {
    /// An empty chunk for histograms like this one. `before` is the chunk that it follows without a gap.
    pub(crate) fn new(first: &HistogramValue, with_starts: bool, before: Option<&Self>) -> Self {
        let mut flags = first_flags(first);
        if flags == FLAG_UNKNOWN {
            flags = before.map_or(FLAG_UNKNOWN, |b| b.flags_after(first));
        }
        Self::with_flags(first, with_starts, flags)
    }

    /// An empty chunk for a histogram that did not fit the chunk before.
    pub(crate) fn after(new_chunk: &NewChunk, first: &HistogramValue, with_starts: bool) -> Self {
        Self::with_flags(first, with_starts, new_chunk.flags)
    }

    fn with_flags(first: &HistogramValue, with_starts: bool, flags: u8) -> Self {
        let appender = match first {
            HistogramValue::Int(_) => AnyAppender::Int(Appender::new(flags, with_starts)),
            HistogramValue::Float(_) => AnyAppender::Float(Appender::new(flags, with_starts)),
        };
        Self { appender, end_foretold: false }
    }

    fn flags_after(&self, next: &HistogramValue) -> u8 {
        let flags = match &self.appender {
            AnyAppender::Int(a) => IntHistograms::parts(next).map(|p| a.flags_after(&p)),
            AnyAppender::Float(a) => FloatHistograms::parts(next).map(|p| a.flags_after(&p)),
        };
        flags.unwrap_or(FLAG_UNKNOWN)
    }

    /// Whether histograms of this kind go into the chunk.
    pub(crate) fn is_for(&self, h: &HistogramValue, with_starts: bool) -> bool {
        match (&self.appender, h) {
            (AnyAppender::Int(a), HistogramValue::Int(_)) => a.has_starts() == with_starts,
            (AnyAppender::Float(a), HistogramValue::Float(_)) => a.has_starts() == with_starts,
            _ => false,
        }
    }

    /// Adds a histogram of the chunk's kind, whose buckets are as many as its spans say.
    ///
    /// # Errors
    /// When it does not fit the others: it begins a new chunk.
    ///
    /// # Panics
    /// When it is of the other kind: callers ask `is_for` first.
    pub(crate) fn append(&mut self, t: i64, start: i64, h: &HistogramValue) -> Result<(), NewChunk> {
        const KIND: &str = "callers ask `is_for` first";
        match &mut self.appender {
            AnyAppender::Int(a) => a.append(t, start, IntHistograms::parts(h).expect(KIND)),
            AnyAppender::Float(a) => a.append(t, start, FloatHistograms::parts(h).expect(KIND)),
        }
        .map_err(|flags| NewChunk { flags })
    }

    pub(crate) fn count(&self) -> u16 {
        match &self.appender {
            AnyAppender::Int(a) => a.count,
            AnyAppender::Float(a) => a.count,
        }
    }

    pub(crate) fn len_bytes(&self) -> usize {
        match &self.appender {
            AnyAppender::Int(a) => a.out.len_bytes(),
            AnyAppender::Float(a) => a.out.len_bytes(),
        }
    }

    pub(crate) fn encoding(&self) -> ChunkEncoding {
        fn of<K: Kind>(a: &Appender<K>) -> ChunkEncoding {
            if a.has_starts() { K::STARTED_ENCODING } else { K::ENCODING }
        }
        match &self.appender {
            AnyAppender::Int(a) => of(a),
            AnyAppender::Float(a) => of(a),
        }
    }

    /// The chunk with its first `count` samples (at most those it has).
    pub(crate) fn encode_first(&self, count: u16) -> Bytes {
        match &self.appender {
            AnyAppender::Int(a) => a.encode_first(count),
            AnyAppender::Float(a) => a.encode_first(count),
        }
    }
}

#[cfg(test)]
mod tests;
