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

const FLOATS: u8 = ChunkEncoding::SEALED_FLOATS.0;
const ANY: u8 = 0x91;
/// As [`FLOATS`], with the timestamps in `ts`: never seen outside of the store.
const SHARED: u8 = 0x92;

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
        let from = out.len();
        if chunk_head(bytes)?.maxt < mint {
            return Ok(());
        }
        // From the chunk's begin on: what comes before a histogram tells whether it follows a reset.
        decode(bytes, ANY, i64::MIN, maxt, out)?;
        model::histogram::settle_hints(out, from);
        Ok(())
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

/// Verifies the checksum of a stored chunk, whose timestamps are its own, and makes it a chunk for queries.
pub(super) fn open_chunk(stored: &[u8]) -> Result<(ChunkHead, Chunk), StorageError> {
    let body = check_crc("sealed chunk", stored)?;
    let head = chunk_head(body)?;
    let codec: &'static dyn ChunkCodec = match head.encoding {
        FLOATS => &FLOAT_CHUNKS,
        ANY => &ANY_CHUNKS,
        _ => return Err(StorageError::decode("sealed chunk", "its timestamps are elsewhere")),
    };
    Ok((head, Chunk::encoded(codec, Bytes::copy_from_slice(body), head.mint, head.maxt)))
}

/// Verifies the checksum of a stored chunk, whose timestamps are its own, and appends its samples to `out`.
pub(super) fn decode_stored(stored: &[u8], out: &mut Samples) -> Result<ChunkHead, StorageError> {
    let body = check_crc("sealed chunk", stored)?;
    let head = chunk_head(body)?;
    if head.encoding == SHARED {
        return Err(StorageError::decode("sealed chunk", "its timestamps are elsewhere"));
    }
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

/// A chunk in its parts.
pub(super) struct Encoded {
    encoding: u8,
    head: Vec<u8>,
    timestamps: Vec<u8>,
    values: Vec<u8>,
}

impl Encoded {
    /// The column of timestamps; empty where it cannot be shared.
    pub(super) fn timestamps(&self) -> &[u8] {
        if self.encoding == FLOATS { &self.timestamps } else { &[] }
    }

    pub(super) fn len(&self) -> usize {
        1 + self.head.len() + self.timestamps.len() + self.values.len() + 4
    }

    /// The chunk by itself, with checksum.
    pub(super) fn inline(&self) -> Vec<u8> {
        self.put(self.encoding, &self.timestamps)
    }

    /// The chunk without its timestamps, which are kept under `hash`, with checksum.
    pub(super) fn shared(&self, hash: u64) -> Vec<u8> {
        self.put(SHARED, &hash.to_le_bytes())
    }

    fn put(&self, encoding: u8, timestamps: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        out.push(encoding);
        [&self.head, timestamps, &self.values].iter().for_each(|part| out.extend_from_slice(part));
        put_crc(&mut out);
        out
    }
}

/// A stored chunk whose timestamps are elsewhere.
pub(super) struct Shared<'a> {
    head: &'a [u8],
    /// What its column of timestamps is known by.
    pub(super) column: u64,
    values: &'a [u8],
}

impl<'a> Shared<'a> {
    /// Verifies the checksum of a stored chunk, if it is such a one.
    pub(super) fn parse(stored: &'a [u8]) -> Result<Option<Self>, StorageError> {
        if stored.first() != Some(&SHARED) {
            return Ok(None);
        }
        let body = check_crc("sealed chunk", stored)?;
        let mut r = Reader::new("sealed chunk", body);
        read_head(&mut r)?;
        let head = &body[1..body.len() - r.rest().len()];
        let column = read_hash(&mut r)?;
        Ok(Some(Self { head, column, values: r.rest() }))
    }

    /// The stored chunk that it is with its column.
    pub(super) fn with(&self, column: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.head.len() + column.len() + self.values.len() + 4);
        out.push(FLOATS);
        [self.head, column, self.values].iter().for_each(|part| out.extend_from_slice(part));
        put_crc(&mut out);
        out
    }
}

fn read_hash(r: &mut Reader<'_>) -> Result<u64, StorageError> {
    let bytes: [u8; 8] = r.bytes(8)?.try_into().expect("eight bytes");
    Ok(u64::from_le_bytes(bytes))
}

/// Encodes the samples `[from, to)`, which are strictly rising by timestamp and not negative.
pub(super) fn encode(samples: &Samples, from: usize, to: usize) -> Encoded {
    assert!(from < to && to <= samples.len(), "a chunk has at least one sample");
    let ts = &samples.timestamps_ms[from..to];
    let any = is_any(samples)
        && (from..to).any(|i| samples.histogram(i).is_some() || samples.start_timestamp_ms(i) != 0);
    let mut head = Vec::with_capacity(16);
    put_varint(&mut head, ts.len() as u64);
    put_varint(&mut head, ts[0] as u64);
    put_varint(&mut head, (ts[ts.len() - 1] - ts[0]) as u64);
    let mut timestamps = Vec::new();
    put_timestamps(&mut timestamps, ts);
    let mut out = Vec::with_capacity(64 + ts.len());
    if any {
        let mut plain = Vec::new();
        (from..to).for_each(|i| put_sample(&mut plain, &samples.get(i)));
        put_varint(&mut out, plain.len() as u64);
        let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL).expect("compressing into memory cannot fail");
        out.extend_from_slice(&packed);
    } else {
        put_values(&mut out, &samples.values[from..to]);
    }
    Encoded { encoding: if any { ANY } else { FLOATS }, head, timestamps, values: out }
}

/// Bytes that samples take once sealed, keys included, as far as it is known before compression by RocksDB.
pub(crate) fn sealed_len_bytes(samples: &Samples) -> usize {
    /// What a record with a key of this store costs beside its value.
    const RECORD_BYTES: usize = 19;
    let (mut at, mut bytes) = (0, 0);
    while at < samples.len() {
        let to = at + page_len(samples, at, samples.len());
        bytes += RECORD_BYTES + encode(samples, at, to).len();
        at = to;
    }
    bytes
}

fn read_head(r: &mut Reader<'_>) -> Result<ChunkHead, StorageError> {
    let encoding = r.u8()?;
    if ![FLOATS, ANY, SHARED].contains(&encoding) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample_codec::tests::specimens;
    use proptest::prelude::*;

    const T0: i64 = 1_790_000_000_000;

    fn floats(ts: &[i64], values: &[f64]) -> Samples {
        let mut s = Samples::new();
        ts.iter().zip(values).for_each(|(t, v)| s.push_float(*t, *v));
        s
    }

    fn same(a: &Samples, b: &Samples) {
        assert_eq!(a.timestamps_ms, b.timestamps_ms);
        let plain = |s: &Samples| -> Vec<_> {
            s.iter().map(|s| (s.start_timestamp_ms, crate::store::tests::plain(s.value))).collect()
        };
        assert_eq!(plain(a), plain(b));
    }

    /// Encodes, reads back in whole and in part; gives the size.
    fn check(s: &Samples) -> usize {
        let stored = encode(s, 0, s.len()).inline();
        let mut back = Samples::new();
        let head = decode_stored(&stored, &mut back).unwrap();
        assert_eq!((head.samples, head.mint), (s.len(), s.timestamps_ms[0]));
        same(&back, s);
        let (_, chunk) = open_chunk(&stored).unwrap();
        assert_eq!((chunk.mint, chunk.maxt), (head.mint, head.maxt));
        let (from, to) = (s.len() / 3, s.len() / 2);
        let (mint, maxt) = (s.timestamps_ms[from], s.timestamps_ms[to]);
        let mut part = Samples::new();
        model::chunk::decode_chunks(&[chunk], mint, maxt, &mut part).unwrap();
        let mut want = s.clone();
        want.clip(mint, maxt);
        same(&part, &want);
        stored.len()
    }

    fn even(n: usize) -> Vec<i64> {
        (0..n as i64).map(|i| T0 + i * 15_000).collect()
    }

    #[test]
    fn what_metrics_look_like_is_small() {
        let n = 960;
        let ts = even(n);
        let size = |f: &dyn Fn(usize) -> f64| check(&floats(&ts, &(0..n).map(f).collect::<Vec<_>>()));
        assert!(size(&|_| 0.1) < 32, "constant");
        assert!(size(&|i| i as f64 * 15.0) < 32, "constant rate");
        assert!(size(&|i| if i == n - 1 { model::stale_nan() } else { 7.0 }) < 48, "constant until it ends");
        assert!(size(&|i| (i * i % 7) as f64 / 100.0 + 20.0) < 480, "few decimals");
        assert!(size(&|i| (i / 200) as f64) < 100, "steps");
        // A counter with noise of 100 values: at most a byte per sample.
        assert!(size(&|i| (i * 1000 + (i * 7919) % 100) as f64) < n + 64);
        let mut jitter = ts.clone();
        jitter.iter_mut().enumerate().for_each(|(i, t)| *t += (i as i64 * 7919) % 5);
        assert!(check(&floats(&jitter, &vec![1.0; n])) < n / 2, "jitter of 5 ms");
        let mut gaps = ts;
        gaps.iter_mut().enumerate().for_each(|(i, t)| *t += (i as i64 / 300) * 45_000);
        assert!(check(&floats(&gaps, &vec![1.0; n])) < 48, "missed scrapes");
    }

    #[test]
    fn awkward_floats_keep_their_bits() {
        let odd = [
            -0.0,
            0.0,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            -f64::NAN,
            model::stale_nan(),
            f64::from_bits(0xfff0_0000_0000_0001),
            9_007_199_254_740_993.0,
            -1e22,
            0.1 + 0.2,
            1.0 / 3.0,
        ];
        for n in [1, 2, 15, 100] {
            let values: Vec<f64> = (0..n).map(|i| odd[i % odd.len()]).collect();
            check(&floats(&even(n), &values));
            let mixed: Vec<f64> =
                (0..n).map(|i| if i % 29 == 0 { odd[i % odd.len()] } else { i as f64 * 0.25 }).collect();
            check(&floats(&even(n), &mixed));
        }
    }

    #[test]
    fn histograms_and_start_timestamps_are_kept() {
        let mut s = Samples::new();
        for i in 0..20 {
            s.push(specimens(T0 + i * 1000)[(i % 5) as usize].clone());
        }
        check(&s);
        assert_eq!(page_len(&s, 0, 20), 20);
        assert_eq!(page_len(&floats(&even(2049), &[0.0; 2049]), 0, 2049), 683);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let stored = encode(&floats(&even(50), &[1.5; 50]), 0, 50).inline();
        for i in 0..stored.len() * 8 {
            let mut bad = stored.clone();
            bad[i / 8] ^= 1 << (i % 8);
            assert!(open_chunk(&bad).is_err() && decode_stored(&bad, &mut Samples::new()).is_err());
        }
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            3 => (-1000_i32..1000).prop_map(f64::from),
            3 => (-100_000_i32..100_000).prop_map(|i| f64::from(i) / 1000.0),
            1 => any::<u64>().prop_map(f64::from_bits),
        ]
    }

    proptest! {
        #[test]
        fn any_floats_round_trip(
            samples in proptest::collection::vec((1_i64..30_000, any_value()), 1..300),
            even in any::<bool>(),
        ) {
            let mut t = T0;
            let mut s = Samples::new();
            for (step, v) in samples {
                t += if even { 15_000 } else { step };
                s.push_float(t, v);
            }
            check(&s);
        }

        #[test]
        fn foreign_bytes_never_panic(
            mut body in proptest::collection::vec(any::<u8>(), 0..80),
            flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            let mut out = Samples::new();
            let _ = FLOAT_CHUNKS.decode(&body, i64::MIN, i64::MAX, &mut out);
            body.insert(0, FLOATS);
            let _ = FLOAT_CHUNKS.decode(&body, i64::MIN, i64::MAX, &mut out);
            body[0] = ANY;
            let _ = ANY_CHUNKS.decode(&body, i64::MIN, i64::MAX, &mut out);
            // Good chunks with a few bytes changed, past the checksum.
            let values: Vec<f64> = (0..100).map(|i| f64::from(i * i % 37) * 0.1).collect();
            for mut stored in [encode(&floats(&super::tests::even(100), &values), 0, 100).inline()] {
                stored.truncate(stored.len() - 4);
                for (at, x) in &flips {
                    let at = at % stored.len();
                    stored[at] ^= x;
                }
                out.clear();
                let _ = FLOAT_CHUNKS.decode(&stored, i64::MIN, i64::MAX, &mut out);
            }
        }
    }
}
