//! Remote read: streams of `prometheus.ChunkedReadResponse`, whose chunks are those of a store.
//!
//! The body is one frame after the other: length as a varint, CRC-32C of the message in four bytes, big-endian, the message. Series
//! come in order of their labels, a long one in several frames that follow each other. How chunks are encoded is the store's
//! business: who reads gives the codecs.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/#streamed-chunks>.

use std::sync::Arc;

use bytes::Bytes;
use model::chunk::decode_chunks_watched;
use model::{Chunk, ChunkCodec, Labels, Samples, Series, StorageError};

use crate::error::Error;
use crate::proto::{Cursor, WireType};
use crate::rollup;
use crate::write_v1::{label, to_labels};

const MESSAGE: &str = "ChunkedReadResponse";
const CHECKSUM_LEN_BYTES: usize = 4;
/// A cell of a rollup takes as much memory as so many samples.
const SAMPLES_PER_CELL: usize = 6;

/// The codec of an encoding as its number on the wire names it; `None` when there is none.
pub type Codecs = fn(u8) -> Option<&'static dyn ChunkCodec>;

/// What is taken of an answer.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLimits {
    /// First timestamp, inclusive. Chunks may begin before it.
    pub mint: i64,
    /// Last timestamp, inclusive. Chunks may end after it.
    pub maxt: i64,
    /// Longest message, in bytes.
    pub frame_len_bytes: usize,
    /// Most samples altogether.
    pub samples: usize,
}

/// The series of the answer to one query, sorted by labels and without duplicates. Series without samples are left out.
///
/// # Errors
/// [`Error::Malformed`], [`Error::InvalidLabels`]; [`Error::TooLarge`] for a frame or an answer beyond its limit;
/// [`Error::Unsupported`] for an encoding without a codec.
pub fn decode_chunked(body: &Bytes, codecs: Codecs, limits: ChunkLimits) -> Result<Vec<Series>, Error> {
    let mut list: Vec<(Labels, Vec<Chunk>)> = Vec::new();
    let mut cells = limits.samples / SAMPLES_PER_CELL;
    let mut frames = Cursor::new(body, MESSAGE);
    while !frames.is_empty() {
        let mut message = frame(&mut frames, limits.frame_len_bytes)?;
        while let Some(tag) = message.tag()? {
            if tag.field != 1 {
                message.skip(tag.wire_type)?;
                continue;
            }
            message.expect(tag, WireType::Bytes)?;
            let (labels, mut chunks) = series(message.message()?, body, codecs, &mut cells)?;
            match list.last_mut() {
                Some(last) if last.0 == labels => last.1.append(&mut chunks),
                _ => list.push((labels, chunks)),
            }
        }
    }
    if !list.is_sorted_by(|a, b| a.0 < b.0) {
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1.append(&mut later.1);
            }
            same
        });
    }
    let mut left = limits.samples;
    let mut out = Vec::with_capacity(list.len());
    for (labels, chunks) in list {
        if let [only] = chunks.as_slice()
            && let Some(rollup) = only.as_rollup()
        {
            if !rollup.is_empty() {
                out.push(Series { labels, chunks });
            }
            continue;
        }
        let samples = samples(chunks, limits, left)?;
        left -= samples.len();
        if !samples.is_empty() {
            out.push(Series { labels, chunks: vec![Chunk::columns(Arc::new(samples))] });
        }
    }
    Ok(out)
}

/// The message of the next frame.
fn frame<'a>(frames: &mut Cursor<'a>, limit: usize) -> Result<Cursor<'a>, Error> {
    let len = frames.varint()?;
    let len = usize::try_from(len).map_err(|_| frames.error("length runs over the end"))?;
    if len > limit {
        return Err(Error::TooLarge { len, limit });
    }
    let checksum = frames.take(CHECKSUM_LEN_BYTES)?;
    let checksum = checksum.rest().iter().fold(0, |sum, b| sum << 8 | u32::from(*b));
    let message = frames.take(len)?;
    if crc32c::crc32c(message.rest()) != checksum {
        return Err(message.error("the checksum does not match"));
    }
    Ok(message)
}

fn series(
    mut message: Cursor<'_>,
    body: &Bytes,
    codecs: Codecs,
    cells: &mut usize,
) -> Result<(Labels, Vec<Chunk>), Error> {
    let (mut pairs, mut chunks) = (Vec::new(), Vec::new());
    while let Some(tag) = message.tag()? {
        match tag.field {
            1 => {
                message.expect(tag, WireType::Bytes)?;
                pairs.push(label(message.message()?)?);
            }
            2 => {
                message.expect(tag, WireType::Bytes)?;
                chunks.push(chunk(message.message()?, body, codecs, cells)?);
            }
            _ => message.skip(tag.wire_type)?,
        }
    }
    Ok((to_labels(&mut pairs)?, chunks))
}

fn chunk(mut message: Cursor<'_>, body: &Bytes, codecs: Codecs, cells: &mut usize) -> Result<Chunk, Error> {
    let (mut mint, mut maxt, mut encoding, mut data) = (0, 0, 0, Bytes::new());
    while let Some(tag) = message.tag()? {
        match tag.field {
            1..=3 => {
                message.expect(tag, WireType::Varint)?;
                let number = message.varint()?;
                match tag.field {
                    1 => mint = number as i64,
                    2 => maxt = number as i64,
                    _ => encoding = number,
                }
            }
            4 => {
                message.expect(tag, WireType::Bytes)?;
                data = body.slice_ref(message.bytes()?);
            }
            _ => message.skip(tag.wire_type)?,
        }
    }
    if encoding == u64::from(rollup::ENCODING) {
        let rollup = rollup::decode(&data, *cells)?;
        *cells -= rollup.cells.len();
        return Ok(Chunk::rollup(Arc::new(rollup), mint, maxt));
    }
    let codec = u8::try_from(encoding).ok().and_then(codecs);
    let codec = codec.ok_or_else(|| Error::Unsupported(format!("chunks of encoding {encoding}")))?;
    Ok(Chunk::encoded(codec, data, mint, maxt))
}

/// The samples of chunks in any order, `left` at most.
fn samples(mut chunks: Vec<Chunk>, limits: ChunkLimits, left: usize) -> Result<Samples, Error> {
    chunks.sort_by_key(|c| c.mint);
    let mut out = Samples::new();
    let too_many = || StorageError::Limit(String::new());
    let decoded = decode_chunks_watched(&chunks, limits.mint, limits.maxt, &mut out, |samples| {
        if samples.len() > left { Err(too_many()) } else { Ok(()) }
    });
    match decoded {
        Ok(()) if out.timestamps_ms.is_sorted_by(|a, b| a < b) => Ok(out),
        Ok(()) => Err(bad_chunk("timestamps do not rise")),
        Err(StorageError::Limit(_)) => Err(too_large(limits.samples - left + out.len(), limits)),
        Err(_) => Err(bad_chunk("a chunk does not decode")),
    }
}

/// As bytes, which is what limits are given in.
fn too_large(samples: usize, limits: ChunkLimits) -> Error {
    let bytes = |samples: usize| samples.saturating_mul(size_of::<(i64, f64)>());
    Error::TooLarge { len: bytes(samples), limit: bytes(limits.samples) }
}

fn bad_chunk(reason: &'static str) -> Error {
    Error::Malformed { message: "Chunk", offset: 0, reason }
}

#[cfg(test)]
mod tests {
    use model::chunk::decode_chunks;
    use model::{ChunkEncoding, Sample};

    use super::*;
    use crate::proto::{put_bytes, put_int64, put_str, put_varint};

    /// Each byte is the time of a sample whose value is the time too.
    #[derive(Debug)]
    struct Bare;

    impl ChunkCodec for Bare {
        fn encoding(&self) -> ChunkEncoding {
            ChunkEncoding(77)
        }

        fn decode(&self, bytes: &[u8], _: i64, _: i64, out: &mut Samples) -> Result<(), StorageError> {
            bytes.iter().for_each(|t| out.push(Sample::float(i64::from(*t), f64::from(*t))));
            Ok(())
        }
    }

    fn codecs(encoding: u8) -> Option<&'static dyn ChunkCodec> {
        (encoding == 1).then_some(&Bare)
    }

    const LIMITS: ChunkLimits = ChunkLimits { mint: 0, maxt: 100, frame_len_bytes: 1000, samples: 1000 };

    /// Encoding and times.
    type BareChunk<'a> = (u8, &'a [u8]);

    fn framed(series: &[(&str, &[BareChunk<'_>])]) -> Vec<u8> {
        let mut message = Vec::new();
        for (name, chunks) in series {
            let (mut label, mut one) = (Vec::new(), Vec::new());
            put_str(&mut label, 1, "__name__");
            put_str(&mut label, 2, name);
            put_bytes(&mut one, 1, &label);
            for (encoding, times) in *chunks {
                let mut chunk = Vec::new();
                put_int64(&mut chunk, 1, times.first().copied().unwrap_or_default().into());
                put_int64(&mut chunk, 2, times.last().copied().unwrap_or_default().into());
                put_int64(&mut chunk, 3, (*encoding).into());
                put_bytes(&mut chunk, 4, times);
                put_bytes(&mut one, 2, &chunk);
            }
            put_bytes(&mut message, 1, &one);
        }
        let mut out = Vec::new();
        put_varint(&mut out, message.len() as u64);
        out.extend(crc32c::crc32c(&message).to_be_bytes());
        out.extend(message);
        out
    }

    fn read(body: &[u8], limits: ChunkLimits) -> Result<Vec<(String, Vec<i64>)>, Error> {
        let list = decode_chunked(&Bytes::copy_from_slice(body), codecs, limits)?;
        let times = |series: Series| {
            let mut samples = Samples::new();
            decode_chunks(&series.chunks, i64::MIN, i64::MAX, &mut samples).expect("columns");
            (series.labels.metric_name().to_owned(), samples.timestamps_ms.clone())
        };
        Ok(list.into_iter().map(times).collect())
    }

    #[test]
    fn series_of_several_frames_are_put_together() {
        let body = [
            framed(&[("a", &[(1, &[1, 2])])]),
            framed(&[("a", &[(1, &[2, 3, 4])]), ("b", &[(1, &[90, 99, 101])]), ("c", &[(1, &[200])])]),
            framed(&[("Z", &[(1, &[5])]), ("a", &[(1, &[0])])]),
        ]
        .concat();
        let name = |name: &str, times: &[i64]| (name.to_owned(), times.to_vec());
        let expect = vec![name("Z", &[5]), name("a", &[0, 1, 2, 3, 4]), name("b", &[90, 99])];
        assert_eq!(read(&body, LIMITS), Ok(expect));
        assert_eq!(read(&[], LIMITS), Ok(Vec::new()));
        assert_eq!(read(&body, ChunkLimits { samples: 9, ..LIMITS }).map(|l| l.len()), Ok(3));
        assert!(matches!(read(&body, ChunkLimits { samples: 4, ..LIMITS }), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = framed(&[("a", &[(1, &[1, 2])])]);
        for len in 1..good.len() {
            assert!(matches!(read(&good[..len], LIMITS), Err(Error::Malformed { .. })), "{len}");
        }
        for at in 1..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(read(&bad, LIMITS), Err(Error::Malformed { .. })), "{at}");
        }
        let small = ChunkLimits { frame_len_bytes: 10, ..LIMITS };
        assert_eq!(read(&good, small), Err(Error::TooLarge { len: good.len() - 5, limit: 10 }));
        let foreign = framed(&[("a", &[(9, &[1])])]);
        assert_eq!(read(&foreign, LIMITS), Err(Error::Unsupported("chunks of encoding 9".into())));
        let falling = framed(&[("a", &[(1, &[2, 1])])]);
        assert!(matches!(read(&falling, LIMITS), Err(Error::Malformed { message: "Chunk", .. })));
    }
}
