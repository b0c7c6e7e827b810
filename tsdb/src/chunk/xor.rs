//! XOR chunk codec of float samples. Spec: docs/formats/chunk.md#xor. Cutting chunks is `head/append.rs`'s business.
//!
//! Both directions keep a 64-bit window instead of going bit by bit. Decoding writes straight into the columns; its two
//! labelled fast paths are runs of "same interval, same value" (two zero bits a sample, up to 28 samples a step) and
//! values whose XOR lies in the window of an earlier one. Bench: benches/chunk_codec.rs.

use bytes::Bytes;
use model::{ChunkCodec, ChunkEncoding, Samples, StorageError};

use super::bits::{BitWriter, PEEK_BITS, XorWindow, bits, fits, peek, sign};
use crate::varint;

/// The codec of XOR chunks.
pub static XOR_CODEC: &dyn ChunkCodec = &Xor;

/// Bytes of the sample count in front.
const HEADER_LEN_BYTES: usize = 2;

// === Writing ===

/// Writes a XOR chunk sample by sample.
#[derive(Clone, Debug)]
pub struct XorAppender {
    stream: XorStream,
    /// The newest sample.
    last: (i64, u64),
}

impl Default for XorAppender {
    fn default() -> Self {
        Self::new()
    }
}

impl XorAppender {
    /// An empty chunk.
    #[must_use]
    pub fn new() -> Self {
        Self { stream: XorStream::new(), last: (0, 0) }
    }

    /// Adds a sample. The caller keeps timestamps strictly rising; the encoding itself takes any.
    ///
    /// # Panics
    /// When the chunk holds 65,535 samples already: callers cut long before.
    #[inline]
    pub fn append(&mut self, timestamp_ms: i64, value: f64) {
        let sample = (timestamp_ms, value.to_bits());
        self.stream.append(self.last, sample);
        self.last = sample;
    }

    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.stream.count()
    }

    /// Length of the encoded chunk as it stands.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.stream.len_bytes()
    }

    /// The chunk with its first `count` samples (at most those it has). Bits of later samples may follow; readers stop
    /// before them.
    #[must_use]
    pub fn encode_first(&self, count: u16) -> Bytes {
        self.stream.encode_first(count)
    }

    /// The chunk with all its samples.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encode_first(self.count())
    }
}

/// What [`XorAppender`] writes to. The newest sample is the caller's business, who has it anyway: there are as many of these
/// as series.
#[derive(Clone, Debug)]
pub(crate) struct XorStream {
    out: BitWriter,
    delta: u64,
    count: u16,
    window: XorWindow,
    _always: Always,
}

/// One value, so that the other 255 of its byte tell the kinds of open chunks apart.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Always {
    Here,
}

impl XorStream {
    /// An empty chunk.
    pub(crate) fn new() -> Self {
        let out = BitWriter::new(&[0; HEADER_LEN_BYTES]);
        Self { out, delta: 0, count: 0, window: XorWindow::default(), _always: Always::Here }
    }

    /// Adds a sample, time and bits of the value, after the newest one, which the first one has none of.
    #[inline]
    pub(crate) fn append(&mut self, last: (i64, u64), (timestamp_ms, value_bits): (i64, u64)) {
        let delta = timestamp_ms.wrapping_sub(last.0) as u64;
        if self.count >= 2 {
            let dod = delta.wrapping_sub(self.delta) as i64;
            self.delta = delta;
            if dod == 0 && value_bits == last.1 {
                self.out.put(0, 2); // fast path
            } else {
                self.put_dod(dod);
                self.put_value(last.1, value_bits);
            }
        } else {
            self.append_first_two(last, (timestamp_ms, value_bits), delta);
        }
        assert!(self.count < u16::MAX, "a chunk is cut long before its counter is full");
        self.count += 1;
    }

    #[inline(never)]
    fn append_first_two(&mut self, last: (i64, u64), (timestamp_ms, value_bits): (i64, u64), delta: u64) {
        if self.count == 0 {
            self.out.put_varint(timestamp_ms);
            self.out.put(value_bits, 64);
        } else {
            self.out.put_uvarint(delta);
            self.put_value(last.1, value_bits);
            self.delta = delta;
        }
    }

    #[inline(always)]
    fn put_value(&mut self, last_bits: u64, value_bits: u64) {
        if value_bits == last_bits {
            self.out.put(0, 1);
        } else {
            self.window.put(&mut self.out, value_bits ^ last_bits, (0b10, 2), (0b11, 2));
        }
    }

    #[inline(always)]
    fn put_dod(&mut self, dod: i64) {
        let masked = |bits: u32| dod as u64 & ((1 << bits) - 1);
        if dod == 0 {
            self.out.put(0, 1);
        } else if fits(dod, 14) {
            self.out.put(0b10 << 14 | masked(14), 16);
        } else if fits(dod, 17) {
            self.out.put(0b110 << 17 | masked(17), 20);
        } else if fits(dod, 20) {
            self.out.put(0b1110 << 20 | masked(20), 24);
        } else {
            self.out.put(0b1111, 4);
            self.out.put(dod as u64, 64);
        }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.out.len_bytes()
    }

    pub(crate) fn encode_first(&self, count: u16) -> Bytes {
        let mut bytes = self.out.to_bytes();
        bytes[..HEADER_LEN_BYTES].copy_from_slice(&count.min(self.count).to_be_bytes());
        Bytes::from(bytes)
    }
}

// === Reading ===

struct Xor;

impl ChunkCodec for Xor {
    fn encoding(&self) -> ChunkEncoding {
        ChunkEncoding::XOR
    }

    /// Decodes the whole chunk: it is small, and looking for the range would cost more than it saves.
    fn decode(&self, bytes: &[u8], _mint: i64, _maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        let err = |reason: &str| StorageError::decode("XOR chunk", reason);
        let Some((header, data)) = bytes.split_at_checked(HEADER_LEN_BYTES) else {
            return Err(err("shorter than its header"));
        };
        let count = usize::from(u16::from_be_bytes([header[0], header[1]]));
        if count == 0 {
            return Ok(());
        }
        // Each sample after the second takes at least two bits. Checked first, so that a count out of nowhere makes
        // nobody allocate.
        if data.len() < 9 || count > data.len() * 4 {
            return Err(err("shorter than its samples"));
        }
        let start = out.timestamps_ms.len();
        out.timestamps_ms.resize(start + count, 0);
        out.values.resize(start + count, 0.0);
        decode_columns(data, &mut out.timestamps_ms[start..], &mut out.values[start..]).map_err(err)?;
        if !out.histograms.is_empty() {
            out.histograms.resize(start + count, None);
        }
        if !out.start_timestamps_ms.is_empty() {
            out.start_timestamps_ms.resize(start + count, 0);
        }
        Ok(())
    }
}

/// Decodes `timestamps.len()` samples, at least one, from the stream after the header. Both columns have equal length;
/// `data` has at least nine bytes.
fn decode_columns(data: &[u8], timestamps: &mut [i64], values: &mut [f64]) -> Result<(), &'static str> {
    const SHORT: &str = "ends within a sample";
    let n = timestamps.len();
    let values = &mut values[..n];
    let mut r = varint::Reader::new(data);
    let mut t = r.varint().ok_or(SHORT)?;
    let mut value = r.be64().ok_or(SHORT)?;
    timestamps[0] = t;
    values[0] = f64::from_bits(value);
    if n == 1 {
        return Ok(());
    }
    let mut delta = r.uvarint().ok_or(SHORT)? as i64;
    let mut at = (data.len() - r.len()) * 8;
    let mut significant = 64_u32;
    let mut trailing = 0_u32;
    let mut i = 1;
    while i < n {
        let mut w = peek(data, at);
        if i >= 2 {
            if w >> 62 == 0 {
                // Fast path: a run of samples at the same interval with the same value.
                let run = ((w.leading_zeros().min(PEEK_BITS - 1) / 2) as usize).min(n - i);
                let v = f64::from_bits(value);
                for (ts, out) in timestamps[i..i + run].iter_mut().zip(&mut values[i..i + run]) {
                    t = t.wrapping_add(delta);
                    *ts = t;
                    *out = v;
                }
                i += run;
                at += 2 * run;
                continue;
            }
            if w >> 63 == 0 {
                w <<= 1;
                at += 1;
            } else {
                let (dod, len) = read_dod(data, at, w);
                delta = delta.wrapping_add(dod);
                at += len;
                w = peek(data, at);
            }
        }
        t = t.wrapping_add(delta);
        if w >> 62 == 0b10 {
            // Fast path: the XOR lies in the window of an earlier one. Its length is known, so that the processor goes
            // on to the next sample before this one is loaded.
            let xor = if significant < PEEK_BITS - 2 {
                w << 2 >> (64 - significant)
            } else {
                bits(data, at + 2, significant)
            };
            at += 2 + significant as usize;
            value ^= xor << trailing;
        } else if w >> 63 == 0 {
            at += 1;
        } else {
            let leading = (w >> 57) as u32 & 31;
            significant = ((w >> 51) as u32 & 63).wrapping_sub(1) & 63; // 0 stands for 64
            significant += 1;
            let Some(free) = (64 - leading).checked_sub(significant) else {
                return Err("more significant bits than a float has");
            };
            trailing = free;
            let xor = if significant < PEEK_BITS - 13 {
                w << 13 >> (64 - significant)
            } else {
                bits(data, at + 13, significant)
            };
            at += 13 + significant as usize;
            value ^= xor << trailing;
        }
        timestamps[i] = t;
        values[i] = f64::from_bits(value);
        i += 1;
    }
    // Beyond the end the stream reads as zeros, so one check here finds every overrun.
    if at > data.len() * 8 { Err(SHORT) } else { Ok(()) }
}

/// The delta of deltas at `at`, whose first bit is 1, and its length with the prefix.
#[inline(always)]
fn read_dod(data: &[u8], at: usize, w: u64) -> (i64, usize) {
    let (prefix, n) = match w.leading_ones() {
        1 => (2, 14),
        2 => (3, 17),
        3 => (4, 20),
        _ => return (bits(data, at + 4, 64) as i64, 4 + 64),
    };
    (sign(w << prefix >> (64 - n), n), (prefix + n) as usize)
}

#[cfg(test)]
mod tests;
