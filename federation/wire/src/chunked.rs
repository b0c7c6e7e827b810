//! Streamed remote read: `prometheus.ChunkedReadResponse` in frames.
//!
//! An answer is a sequence of frames: length of the message as a varint, its CRC-32C in four bytes, big-endian, and the
//! message, which holds some chunks of one series. A series may be spread over several frames; series come sorted by labels
//! within a query, and queries in order. What a chunk's bytes mean is its encoding's, as blocks store it.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>.

use model::{Chunk, ChunkEncoding, Labels, Rollup, RollupColumns};

use crate::proto::{put_bytes, put_int64, put_len, put_uint64, put_varint, varint_len};
use crate::rollup;
use crate::write_v1::encode::encode_labels;

/// What an HTTP answer in this form has as its `Content-Type`.
pub const CONTENT_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// Field numbers.
mod field {
    pub(super) const SERIES: u32 = 1;
    pub(super) const QUERY: u32 = 2;
    pub(super) const CHUNKS: u32 = 2;
    pub(super) const MINT: u32 = 1;
    pub(super) const MAXT: u32 = 2;
    pub(super) const ENCODING: u32 = 3;
    pub(super) const DATA: u32 = 4;
}

/// Whether a chunk of this encoding can be sent: those that blocks store, and not what a node keeps for itself.
#[must_use]
pub fn is_common(encoding: ChunkEncoding) -> bool {
    (ChunkEncoding::XOR.0..=ChunkEncoding::FLOAT_HISTOGRAM_ST.0).contains(&encoding.0)
}

/// Writes the frames of one answer.
#[derive(Debug, Default)]
pub struct FrameEncoder {
    labels: Vec<u8>,
    chunks: Vec<u8>,
    /// Of the labels, as far as a frame's size is concerned.
    left: usize,
    query: usize,
    max_bytes: usize,
}

impl FrameEncoder {
    /// An encoder of frames of about `max_bytes`; the last chunk of a frame may exceed it.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    /// Begins a series of the result number `query`.
    pub fn begin(&mut self, query: usize, labels: &Labels) {
        self.labels.clear();
        encode_labels(labels, &mut self.labels);
        self.chunks.clear();
        self.query = query;
        self.left = self.room();
    }

    /// Adds a chunk, whose encoding [`is_common`]; a frame that is full goes to `out`.
    ///
    /// # Panics
    /// When the chunk has no encoded bytes.
    pub fn chunk(&mut self, chunk: &Chunk, out: &mut Vec<u8>) {
        let data = chunk.bytes().expect("what is sent is encoded");
        debug_assert!(is_common(chunk.encoding()));
        self.encoded((chunk.mint, chunk.maxt), chunk.encoding(), data, out);
    }

    /// Adds what stands for all samples of the series within `[mint, maxt]`, for a client that asked for it.
    pub fn rollup(
        &mut self,
        rollup: &Rollup,
        columns: RollupColumns,
        (mint, maxt): (i64, i64),
        out: &mut Vec<u8>,
    ) {
        let mut data = Vec::new();
        rollup::encode(rollup, columns, &mut data);
        self.encoded((mint, maxt), ChunkEncoding(rollup::ENCODING), &data, out);
    }

    fn encoded(&mut self, (mint, maxt): (i64, i64), encoding: ChunkEncoding, data: &[u8], out: &mut Vec<u8>) {
        let before = self.chunks.len();
        let number = u64::from(encoding.0);
        let len =
            int64_len(mint) + int64_len(maxt) + 1 + varint_len(number) + 1 + varint_len(data.len() as u64);
        put_len(&mut self.chunks, field::CHUNKS, len + data.len());
        put_int64(&mut self.chunks, field::MINT, mint);
        put_int64(&mut self.chunks, field::MAXT, maxt);
        put_uint64(&mut self.chunks, field::ENCODING, number);
        put_bytes(&mut self.chunks, field::DATA, data);
        self.left = self.left.saturating_sub(self.chunks.len() - before);
        if self.left == 0 {
            self.end(out);
        }
    }

    /// Ends the series: chunks that have not gone out go to `out`.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.chunks.is_empty() {
            return;
        }
        let mut message = Vec::with_capacity(self.labels.len() + self.chunks.len() + 16);
        put_len(&mut message, field::SERIES, self.labels.len() + self.chunks.len());
        message.extend_from_slice(&self.labels);
        message.extend_from_slice(&self.chunks);
        put_uint64(&mut message, field::QUERY, self.query as u64);
        put_varint(out, message.len() as u64);
        out.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
        out.extend_from_slice(&message);
        self.chunks.clear();
        self.left = self.room();
    }

    fn room(&self) -> usize {
        self.max_bytes.saturating_sub(self.labels.len()).max(1)
    }
}

fn int64_len(v: i64) -> usize {
    if v == 0 { 0 } else { 1 + varint_len(v as u64) }
}

#[cfg(test)]
mod tests {
    use model::chunk::decode_chunks;
    use model::{ChunkCodec, Samples, StorageError};

    use super::*;
    use crate::proto::Cursor;
    use crate::read_chunks::{ChunkLimits, decode_chunked};

    const MESSAGE: &str = "ChunkedReadResponse";

    /// A chunk of as many bytes as it has samples, at the times from the first byte on.
    struct Counting;

    impl ChunkCodec for Counting {
        fn encoding(&self) -> ChunkEncoding {
            ChunkEncoding::HISTOGRAM
        }

        fn decode(&self, bytes: &[u8], _: i64, _: i64, out: &mut Samples) -> Result<(), StorageError> {
            (0..bytes.len()).for_each(|i| out.push_float(i64::from(bytes[0]) + i as i64, 1.0));
            Ok(())
        }
    }

    fn chunk(first: u8, len: usize) -> Chunk {
        let (mint, maxt) = (i64::from(first), i64::from(first) + len as i64 - 1);
        Chunk::encoded(&Counting, vec![first; len].into(), mint, maxt)
    }

    /// Lengths of the messages of an answer.
    fn messages(body: &[u8]) -> Vec<usize> {
        let (mut at, mut out) = (0, Vec::new());
        while at < body.len() {
            let mut cursor = Cursor::new(&body[at..], MESSAGE);
            let len = usize::try_from(cursor.varint().expect("a length")).expect("short");
            at += cursor.offset() + 4 + len;
            out.push(len);
        }
        assert_eq!(at, body.len(), "whole frames");
        out
    }

    #[test]
    fn series_are_cut_into_frames_of_the_size_asked_for() {
        let mut out = Vec::new();
        let mut encoder = FrameEncoder::new(200);
        encoder.begin(0, &Labels::from_pairs([("__name__", "a")]));
        for c in [chunk(0, 60), chunk(60, 60), chunk(120, 60), chunk(180, 1)] {
            encoder.chunk(&c, &mut out);
        }
        encoder.end(&mut out);
        encoder.begin(0, &Labels::from_pairs([("__name__", "b"), ("l", "x")]));
        encoder.chunk(&chunk(9, 1000), &mut out);
        encoder.end(&mut out);
        encoder.end(&mut out);
        let lens = messages(&out);
        assert!(
            lens.len() == 3 && (200..280).contains(&lens[0]) && lens[1] < 50 && lens[2] > 1000,
            "{lens:?}"
        );
        let limits = ChunkLimits { mint: 0, maxt: 5000, frame_len_bytes: 2000, samples: 5000 };
        let codecs =
            |encoding| (encoding == ChunkEncoding::HISTOGRAM.0).then_some(&Counting as &dyn ChunkCodec);
        let series = decode_chunked(&out.into(), codecs, limits).expect("own bytes");
        let mut samples = Samples::new();
        let mut shape = |s: &model::Series| {
            decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples).expect("decodes");
            (s.labels.to_string(), samples.len(), samples.timestamps_ms[0])
        };
        let shapes: Vec<_> = series.iter().map(&mut shape).collect();
        assert_eq!(shapes, [("a".to_owned(), 181, 0), ("b{l=\"x\"}".to_owned(), 1000, 9)]);
    }
}
