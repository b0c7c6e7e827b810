//! Sealed chunks: up to [`MAX_CHUNK_SAMPLES`] samples of one series within one month, bit for bit.
//!
//! Two encodings: floats (timestamps and values as columns, `floats.rs`) and any samples (native histograms, start
//! timestamps). The checksum is verified when a chunk is read from disk ([`open_chunk`]); the codecs that queries use
//! get the bytes without it. Spec: docs/formats/longterm.md#sealed-chunk.

use bytes::Bytes;
use model::{Chunk, ChunkCodec, ChunkEncoding, Samples, StorageError};

use super::floats::{put_values, read_values};
use super::ints::{put_prefixed_ints, read_ints};
use super::sample_codec::{put_sample, read_sample};
use super::varint::{Reader, check_crc, put_crc, put_varint, put_zigzag};

/// Most samples of one chunk: at 15 s some four hours, so that one hour of a year is not read with a day around it.
pub(super) const MAX_CHUNK_SAMPLES: usize = 1024;
/// Chunks with fewer samples are extended by the next sealing instead of being followed by another one.
pub(super) const SMALL_CHUNK_SAMPLES: usize = MAX_CHUNK_SAMPLES / 2;
/// Most samples of one chunk with histograms, which are much larger.
pub(super) const MAX_ANY_CHUNK_SAMPLES: usize = 256;
/// Bound on what a chunk of histograms may unpack to.
const MAX_UNPACKED_BYTES: usize = 256 << 20;

const FLOATS: u8 = 0x90;
const ANY: u8 = 0x91;

const INTERVAL_CONSTANT: u8 = 0;
const INTERVAL_SPARSE: u8 = 1;
const INTERVAL_STREAM: u8 = 2;

const ZSTD_LEVEL: i32 = 3;

/// Codec of sealed float chunks.
#[derive(Debug)]
pub struct FloatChunkCodec;
/// Codec of sealed chunks with any samples.
#[derive(Debug)]
pub struct AnyChunkCodec;

/// The one value that reads float chunks.
pub static FLOAT_CHUNKS: FloatChunkCodec = FloatChunkCodec;
/// The one value that reads chunks with any samples.
pub static ANY_CHUNKS: AnyChunkCodec = AnyChunkCodec;

impl ChunkCodec for FloatChunkCodec {
    fn encoding(&self) -> ChunkEncoding {
        ChunkEncoding(FLOATS)
    }

    fn decode(&self, bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        decode(bytes, FLOATS, mint, maxt, out)
    }
}

impl ChunkCodec for AnyChunkCodec {
    fn encoding(&self) -> ChunkEncoding {
        ChunkEncoding(ANY)
    }

    fn decode(&self, bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        decode(bytes, ANY, mint, maxt, out)
    }
}

/// What the first bytes of a chunk say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHead {
    encoding: u8,
    pub(super) samples: usize,
    pub(super) mint: i64,
    pub(super) maxt: i64,
}

/// Reads the head of a chunk, with or without checksum behind it.
pub(super) fn chunk_head(bytes: &[u8]) -> Result<ChunkHead, StorageError> {
    read_head(&mut Reader::new("sealed chunk", bytes))
}

/// Verifies the checksum of a stored chunk and makes it a chunk for queries.
pub(super) fn open_chunk(stored: &[u8]) -> Result<(ChunkHead, Chunk), StorageError> {
    let body = check_crc("sealed chunk", stored)?;
    let head = chunk_head(body)?;
    let codec: &'static dyn ChunkCodec = if head.encoding == FLOATS { &FLOAT_CHUNKS } else { &ANY_CHUNKS };
    Ok((head, Chunk::encoded(codec, Bytes::copy_from_slice(body), head.mint, head.maxt)))
}

/// Verifies the checksum of a stored chunk and appends its samples to `out`.
pub(super) fn decode_stored(stored: &[u8], out: &mut Samples) -> Result<ChunkHead, StorageError> {
    let body = check_crc("sealed chunk", stored)?;
    let head = chunk_head(body)?;
    decode(body, head.encoding, i64::MIN, i64::MAX, out)?;
    Ok(head)
}

/// How many of the samples `[at, end)` go into the first chunk, so that all chunks are about equal.
pub(super) fn page_len(samples: &Samples, at: usize, end: usize) -> usize {
    let max = if is_any(samples) { MAX_ANY_CHUNK_SAMPLES } else { MAX_CHUNK_SAMPLES };
    let rest = end - at;
    rest.div_ceil(rest.div_ceil(max).max(1))
}

fn is_any(samples: &Samples) -> bool {
    !samples.histograms.is_empty() || !samples.start_timestamps_ms.is_empty()
}

/// Encodes the samples `[from, to)`, which are strictly rising by timestamp and not negative, with checksum.
pub(super) fn encode(samples: &Samples, from: usize, to: usize) -> Vec<u8> {
    assert!(from < to && to <= samples.len(), "a chunk has at least one sample");
    let ts = &samples.timestamps_ms[from..to];
    let any = is_any(samples)
        && (from..to).any(|i| samples.histogram(i).is_some() || samples.start_timestamp_ms(i) != 0);
    let mut out = Vec::with_capacity(64 + ts.len());
    out.push(if any { ANY } else { FLOATS });
    put_varint(&mut out, ts.len() as u64);
    put_varint(&mut out, ts[0] as u64);
    put_varint(&mut out, (ts[ts.len() - 1] - ts[0]) as u64);
    put_timestamps(&mut out, ts);
    if any {
        let mut plain = Vec::new();
        (from..to).for_each(|i| put_sample(&mut plain, &samples.get(i)));
        put_varint(&mut out, plain.len() as u64);
        let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL).expect("compressing into memory cannot fail");
        out.extend_from_slice(&packed);
    } else {
        put_values(&mut out, &samples.values[from..to]);
    }
    put_crc(&mut out);
    out
}

fn read_head(r: &mut Reader<'_>) -> Result<ChunkHead, StorageError> {
    let encoding = r.u8()?;
    if encoding != FLOATS && encoding != ANY {
        return Err(r.error(format!("unknown encoding {encoding:#x}")));
    }
    let (samples, mint, span) = (r.varint()?, r.varint()?, r.varint()?);
    let maxt = mint.checked_add(span).filter(|t| *t <= i64::MAX as u64);
    let (Some(maxt), 1..=0xffff) = (maxt, samples) else {
        return Err(r.error("impossible number of samples or time range"));
    };
    Ok(ChunkHead { encoding, samples: samples as usize, mint: mint as i64, maxt: maxt as i64 })
}

fn decode(bytes: &[u8], want: u8, mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
    let mut r = Reader::new("sealed chunk", bytes);
    let head = read_head(&mut r)?;
    if head.encoding != want {
        return Err(r.error(format!("encoding {:#x} where {want:#x} was expected", head.encoding)));
    }
    if head.maxt < mint || head.mint > maxt {
        return Ok(());
    }
    if want == FLOATS {
        decode_floats(r, head, mint, maxt, out)
    } else {
        decode_any(r, head, mint, maxt, out)
    }
}

fn decode_floats(
    mut r: Reader<'_>,
    head: ChunkHead,
    mint: i64,
    maxt: i64,
    out: &mut Samples,
) -> Result<(), StorageError> {
    let at = out.len();
    read_timestamps(&mut r, head, &mut out.timestamps_ms)?;
    read_values(&mut r, head.samples, &mut out.values)?;
    if head.mint < mint || head.maxt > maxt {
        // Whole columns decode fastest; what lies outside is cut off afterwards.
        let ts = &out.timestamps_ms[at..];
        let (from, to) = (ts.partition_point(|t| *t < mint), ts.partition_point(|t| *t <= maxt));
        let to = to.max(from);
        out.timestamps_ms.truncate(at + to);
        out.values.truncate(at + to);
        out.timestamps_ms.drain(at..at + from);
        out.values.drain(at..at + from);
    }
    if !out.histograms.is_empty() {
        out.histograms.resize(out.timestamps_ms.len(), None);
    }
    if !out.start_timestamps_ms.is_empty() {
        out.start_timestamps_ms.resize(out.timestamps_ms.len(), 0);
    }
    Ok(())
}

fn decode_any(
    mut r: Reader<'_>,
    head: ChunkHead,
    mint: i64,
    maxt: i64,
    out: &mut Samples,
) -> Result<(), StorageError> {
    let mut timestamps = Vec::with_capacity(head.samples);
    read_timestamps(&mut r, head, &mut timestamps)?;
    let plain_len = r.varint()?;
    if plain_len > MAX_UNPACKED_BYTES as u64 {
        return Err(r.error(format!("{plain_len} bytes of samples are more than a chunk can hold")));
    }
    let plain = zstd::bulk::decompress(r.rest(), plain_len as usize).map_err(|e| r.error(e.to_string()))?;
    let mut samples = Reader::new("sealed chunk", &plain);
    for t in timestamps {
        let sample = read_sample(&mut samples, t)?;
        if t >= mint && t <= maxt {
            out.push(sample);
        }
    }
    Ok(())
}

fn put_timestamps(out: &mut Vec<u8>, ts: &[i64]) {
    if ts.len() < 2 {
        return;
    }
    let interval = median_interval(ts);
    put_varint(out, interval as u64);
    let odd = ts.windows(2).filter(|w| w[1] - w[0] != interval).count();
    if odd == 0 {
        out.push(INTERVAL_CONSTANT);
    } else if odd <= ts.len() / 16 {
        out.push(INTERVAL_SPARSE);
        put_varint(out, odd as u64);
        let mut last = 0;
        for (i, w) in ts.windows(2).enumerate().filter(|(_, w)| w[1] - w[0] != interval) {
            put_varint(out, (i - last) as u64);
            put_zigzag(out, w[1] - w[0] - interval);
            last = i;
        }
    } else {
        out.push(INTERVAL_STREAM);
        let residuals: Vec<i64> = ts.windows(2).map(|w| w[1] - w[0] - interval).collect();
        put_prefixed_ints(out, &residuals);
    }
}

/// The interval that most differences have, when there is one: the median.
fn median_interval(ts: &[i64]) -> i64 {
    let first = ts[1] - ts[0];
    if ts.windows(2).all(|w| w[1] - w[0] == first) {
        return first;
    }
    let mut deltas: Vec<i64> = ts.windows(2).map(|w| w[1] - w[0]).collect();
    let mid = deltas.len() / 2;
    *deltas.select_nth_unstable(mid).1
}

fn read_timestamps(r: &mut Reader<'_>, head: ChunkHead, out: &mut Vec<i64>) -> Result<(), StorageError> {
    let at = out.len();
    let n = head.samples;
    if n == 1 {
        out.push(head.mint);
    } else {
        let interval = r.varint()? as i64;
        match r.u8()? {
            INTERVAL_CONSTANT => {
                out.extend((0..n as i64).map(|i| head.mint.wrapping_add(i.wrapping_mul(interval))));
            }
            INTERVAL_SPARSE => read_sparse(r, head, interval, out)?,
            INTERVAL_STREAM => {
                let stream = r.prefixed()?;
                out.push(head.mint);
                read_ints(stream, n - 1, out)?;
                let mut t = head.mint;
                for x in &mut out[at + 1..] {
                    t = t.wrapping_add(interval).wrapping_add(*x);
                    *x = t;
                }
            }
            other => return Err(r.error(format!("unknown kind of timestamps {other}"))),
        }
    }
    let ts = &out[at..];
    if ts[n - 1] != head.maxt || !ts.windows(2).all(|w| w[0] < w[1]) {
        return Err(r.error("timestamps do not rise to the end that the head states"));
    }
    Ok(())
}

fn read_sparse(
    r: &mut Reader<'_>,
    head: ChunkHead,
    interval: i64,
    out: &mut Vec<i64>,
) -> Result<(), StorageError> {
    let exceptions = r.count(2)?;
    let (mut t, mut done) = (head.mint, 0_usize);
    out.push(t);
    let mut place = 0_usize;
    for _ in 0..exceptions {
        place = place.saturating_add(r.varint()? as usize);
        let excess = r.zigzag()?;
        if place >= head.samples - 1 || place < done {
            return Err(r.error("exception of a timestamp lies outside the chunk"));
        }
        while done < place {
            t = t.wrapping_add(interval);
            out.push(t);
            done += 1;
        }
        t = t.wrapping_add(interval).wrapping_add(excess);
        out.push(t);
        done += 1;
    }
    while done < head.samples - 1 {
        t = t.wrapping_add(interval);
        out.push(t);
        done += 1;
    }
    Ok(())
}
