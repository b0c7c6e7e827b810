//! Streamed remote read: `prometheus.ChunkedReadResponse` in frames.
//!
//! An answer is a sequence of frames: length of the message as a varint, its CRC-32C in four bytes, big-endian, and the
//! message, which holds some chunks of one series. A series may be spread over several frames; series come sorted by labels
//! within a query, and queries in order. What a chunk's bytes mean is its encoding's, as blocks store it.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>.

use bytes::Bytes;
use model::{Chunk, ChunkEncoding, Labels};

use crate::error::Error;
use crate::proto::{Cursor, WireType, put_bytes, put_int64, put_len, put_uint64, put_varint, varint_len};
use crate::write_v1::encode::encode_labels;
use crate::write_v1::{label, to_labels};

/// What an HTTP answer in this form has as its `Content-Type`.
pub const CONTENT_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

const MESSAGE: &str = "ChunkedReadResponse";

/// Field numbers.
mod field {
    pub(super) const SERIES: u32 = 1;
    pub(super) const QUERY: u32 = 2;
    pub(super) const LABELS: u32 = 1;
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
        let before = self.chunks.len();
        let encoding = chunk.encoding();
        debug_assert!(is_common(encoding));
        let len = int64_len(chunk.mint) + int64_len(chunk.maxt) + 2 + 1 + varint_len(data.len() as u64);
        put_len(&mut self.chunks, field::CHUNKS, len + data.len());
        put_int64(&mut self.chunks, field::MINT, chunk.mint);
        put_int64(&mut self.chunks, field::MAXT, chunk.maxt);
        put_uint64(&mut self.chunks, field::ENCODING, u64::from(encoding.0));
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

/// Some chunks of one series, as they arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of the query that is answered.
    pub query: u64,
    /// Of the series.
    pub labels: Labels,
    /// In the order of the frame.
    pub chunks: Vec<FrameChunk>,
}

/// A chunk whose bytes nobody has looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameChunk {
    /// Timestamp of its first sample.
    pub mint: i64,
    /// Timestamp of its last sample.
    pub maxt: i64,
    /// What the bytes are.
    pub encoding: ChunkEncoding,
    /// The chunk.
    pub bytes: Bytes,
}

/// Reads the first frame of `bytes` and says how many bytes it takes; `None` when it is not there as a whole yet.
///
/// # Errors
/// [`Error::TooLarge`] for a frame beyond `limit` bytes, [`Error::Malformed`] (a checksum that is wrong, too),
/// [`Error::InvalidLabels`].
pub fn read_frame(bytes: &[u8], limit: usize) -> Result<Option<(Vec<Frame>, usize)>, Error> {
    let mut cursor = Cursor::new(bytes, MESSAGE);
    let len = match cursor.varint() {
        Ok(len) => usize::try_from(len).unwrap_or(usize::MAX),
        Err(_) if bytes.len() < 10 => return Ok(None),
        Err(e) => return Err(e),
    };
    if len > limit {
        return Err(Error::TooLarge { len, limit });
    }
    let Some((sum, rest)) = cursor.rest().split_first_chunk() else { return Ok(None) };
    let Some(message) = rest.get(..len) else { return Ok(None) };
    if crc32c::crc32c(message) != u32::from_be_bytes(*sum) {
        return Err(cursor.error("the checksum of the frame is wrong"));
    }
    let used = bytes.len() - rest.len() + len;
    Ok(Some((read_message(message)?, used)))
}

fn read_message(message: &[u8]) -> Result<Vec<Frame>, Error> {
    let mut cursor = Cursor::new(message, MESSAGE);
    let mut query = 0;
    let mut frames = Vec::new();
    while let Some(tag) = cursor.tag()? {
        match tag.field {
            field::SERIES => {
                cursor.expect(tag, WireType::Bytes)?;
                frames.push(read_series(cursor.message()?)?);
            }
            field::QUERY => {
                cursor.expect(tag, WireType::Varint)?;
                query = cursor.varint()?;
            }
            _ => cursor.skip(tag.wire_type)?,
        }
    }
    frames.iter_mut().for_each(|f| f.query = query);
    Ok(frames)
}

fn read_series(mut cursor: Cursor<'_>) -> Result<Frame, Error> {
    let mut pairs = Vec::new();
    let mut chunks = Vec::new();
    while let Some(tag) = cursor.tag()? {
        match tag.field {
            field::LABELS => {
                cursor.expect(tag, WireType::Bytes)?;
                pairs.push(label(cursor.message()?)?);
            }
            field::CHUNKS => {
                cursor.expect(tag, WireType::Bytes)?;
                chunks.push(read_chunk(cursor.message()?)?);
            }
            _ => cursor.skip(tag.wire_type)?,
        }
    }
    Ok(Frame { query: 0, labels: to_labels(&mut pairs)?, chunks })
}

fn read_chunk(mut cursor: Cursor<'_>) -> Result<FrameChunk, Error> {
    let mut chunk = FrameChunk { mint: 0, maxt: 0, encoding: ChunkEncoding(0), bytes: Bytes::new() };
    while let Some(tag) = cursor.tag()? {
        match tag.field {
            field::MINT | field::MAXT | field::ENCODING => {
                cursor.expect(tag, WireType::Varint)?;
                let n = cursor.varint()?;
                match tag.field {
                    field::MINT => chunk.mint = n as i64,
                    field::MAXT => chunk.maxt = n as i64,
                    // An encoding that no byte holds is not known to anyone.
                    _ => chunk.encoding = ChunkEncoding(u8::try_from(n).unwrap_or(0)),
                }
            }
            field::DATA => {
                cursor.expect(tag, WireType::Bytes)?;
                chunk.bytes = Bytes::copy_from_slice(cursor.bytes()?);
            }
            _ => cursor.skip(tag.wire_type)?,
        }
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use model::{ChunkCodec, Samples, StorageError};
    use proptest::prelude::*;

    use super::*;

    /// A codec of bytes that mean nothing.
    struct Opaque;

    impl ChunkCodec for Opaque {
        fn encoding(&self) -> ChunkEncoding {
            ChunkEncoding::HISTOGRAM
        }

        fn decode(&self, _: &[u8], _: i64, _: i64, _: &mut Samples) -> Result<(), StorageError> {
            Err(StorageError::Closed)
        }
    }

    fn frames_of(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some((frames, used)) = read_frame(&bytes[at..], 1 << 20)? {
            out.extend(frames);
            at += used;
        }
        assert_eq!(at, bytes.len(), "frames end where the answer ends");
        Ok(out)
    }

    fn chunk(mint: i64, maxt: i64, len: usize) -> Chunk {
        Chunk::encoded(&Opaque, vec![7; len].into(), mint, maxt)
    }

    fn answer() -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = FrameEncoder::new(200);
        encoder.begin(0, &Labels::from_pairs([("__name__", "a")]));
        [chunk(-5, 0, 60), chunk(1, 2, 60), chunk(3, 4, 60), chunk(5, 1 << 50, 1)]
            .iter()
            .for_each(|c| encoder.chunk(c, &mut out));
        encoder.end(&mut out);
        encoder.begin(3, &Labels::from_pairs([("__name__", "b"), ("l", "x")]));
        encoder.chunk(&chunk(9, 9, 1000), &mut out);
        encoder.end(&mut out);
        encoder.end(&mut out);
        out
    }

    #[test]
    fn series_are_cut_into_frames_of_the_size_asked_for() {
        let frames = frames_of(&answer()).expect("own bytes");
        let shape: Vec<(u64, String, Vec<(i64, i64, usize)>)> = frames
            .iter()
            .map(|f| {
                assert!(f.chunks.iter().all(|c| c.encoding == ChunkEncoding::HISTOGRAM));
                let chunks = f.chunks.iter().map(|c| (c.mint, c.maxt, c.bytes.len())).collect();
                (f.query, f.labels.to_string(), chunks)
            })
            .collect();
        assert_eq!(
            shape,
            [
                (0, "a".to_owned(), vec![(-5, 0, 60), (1, 2, 60), (3, 4, 60)]),
                (0, "a".to_owned(), vec![(5, 1 << 50, 1)]),
                (3, "b{l=\"x\"}".to_owned(), vec![(9, 9, 1000)]),
            ]
        );
    }

    #[test]
    fn damage_and_size_are_noticed() {
        let bytes = answer();
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 0x10;
            let whole = read_frame(&flipped, 400);
            assert!(!matches!(&whole, Ok(Some((f, _))) if f.len() != 1), "byte {i}: {whole:?}");
            assert!(read_frame(&bytes[..i], 1 << 20).is_ok(), "half a frame is no error");
        }
        assert_eq!(
            read_frame(&bytes, 10),
            Err(Error::TooLarge { len: bytes[0] as usize & 0x7f | 0x80, limit: 10 })
        );
        let mut flipped = bytes;
        flipped[20] ^= 1;
        assert!(matches!(read_frame(&flipped, 1 << 20), Err(Error::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_frame(&bytes, 1 << 20);
            let _ = read_message(&bytes);
        }
    }
}
