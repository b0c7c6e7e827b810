//! XOR chunk codec of float samples. Spec: docs/formats/chunk.md#xor. Cutting chunks is `head/append.rs`'s business.
//!
//! Both directions keep a 64-bit window instead of going bit by bit. Decoding writes straight into the columns; its two
//! labelled fast paths are runs of "same interval, same value" (two zero bits a sample, up to 28 samples a step) and
//! "same interval, XOR in the window of the sample before". Bench: benches/chunk_codec.rs.

use bytes::Bytes;
use model::{ChunkCodec, ChunkEncoding, Samples, StorageError};

use crate::varint;

/// The codec of XOR chunks.
pub static XOR_CODEC: &dyn ChunkCodec = &Xor;

/// Bytes of the sample count in front.
const HEADER_LEN_BYTES: usize = 2;
/// Leading zeros have five bits.
const MAX_LEADING: u32 = 31;
/// Bits that one look at the stream surely gives: an eight-byte load, shifted by up to seven bits.
const PEEK_BITS: u32 = 57;

// === Writing ===

/// Writes a XOR chunk sample by sample.
#[derive(Clone, Debug)]
pub struct XorAppender {
    /// Header and whole 64-bit words of the stream.
    bytes: Vec<u8>,
    /// Bits not yet in `bytes`, from the top.
    window: u64,
    /// How many they are, 0 to 63.
    window_bits: u32,
    count: u16,
    timestamp_ms: i64,
    delta: u64,
    value_bits: u64,
    /// Window of the last XOR that opened one.
    leading: u32,
    /// Meaningful bits of it; 0 until there was one.
    significant: u32,
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
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&[0; HEADER_LEN_BYTES]);
        Self {
            bytes,
            window: 0,
            window_bits: 0,
            count: 0,
            timestamp_ms: 0,
            delta: 0,
            value_bits: 0,
            leading: 0,
            significant: 0,
        }
    }

    /// Adds a sample. The caller keeps timestamps strictly rising; the encoding itself takes any.
    ///
    /// # Panics
    /// When the chunk holds 65,535 samples already: callers cut long before.
    #[inline]
    pub fn append(&mut self, timestamp_ms: i64, value: f64) {
        let value_bits = value.to_bits();
        let xor = value_bits ^ self.value_bits;
        let delta = timestamp_ms.wrapping_sub(self.timestamp_ms) as u64;
        if self.count >= 2 {
            let dod = delta.wrapping_sub(self.delta) as i64;
            self.timestamp_ms = timestamp_ms;
            self.value_bits = value_bits;
            self.delta = delta;
            if dod == 0 && xor == 0 {
                self.put(0, 2); // fast path
            } else {
                self.put_dod(dod);
                self.put_xor(xor);
            }
        } else {
            self.append_first_two(timestamp_ms, value_bits, delta, xor);
        }
        assert!(self.count < u16::MAX, "a chunk is cut long before its counter is full");
        self.count += 1;
    }

    #[inline(never)]
    fn append_first_two(&mut self, timestamp_ms: i64, value_bits: u64, delta: u64, xor: u64) {
        let mut varint = Vec::with_capacity(varint::MAX_LEN_BYTES);
        if self.count == 0 {
            varint::put_varint(&mut varint, timestamp_ms);
            varint.iter().for_each(|b| self.put(u64::from(*b), 8));
            self.put(value_bits, 64);
        } else {
            varint::put_uvarint(&mut varint, delta);
            varint.iter().for_each(|b| self.put(u64::from(*b), 8));
            self.put_xor(xor);
            self.delta = delta;
        }
        self.timestamp_ms = timestamp_ms;
        self.value_bits = value_bits;
    }

    /// Writes the low `n` bits of `v`, whose other bits are 0; `n` is 1 to 64.
    #[inline(always)]
    fn put(&mut self, v: u64, n: u32) {
        let free = 64 - self.window_bits;
        if n < free {
            self.window |= v << (free - n);
            self.window_bits += n;
        } else {
            let over = n - free;
            self.window |= v >> over;
            self.bytes.extend_from_slice(&self.window.to_be_bytes());
            self.window = if over == 0 { 0 } else { v << (64 - over) };
            self.window_bits = over;
        }
    }

    #[inline(always)]
    fn put_dod(&mut self, dod: i64) {
        let masked = |bits: u32| dod as u64 & ((1 << bits) - 1);
        if dod == 0 {
            self.put(0, 1);
        } else if fits(dod, 14) {
            self.put(0b10 << 14 | masked(14), 16);
        } else if fits(dod, 17) {
            self.put(0b110 << 17 | masked(17), 20);
        } else if fits(dod, 20) {
            self.put(0b1110 << 20 | masked(20), 24);
        } else {
            self.put(0b1111, 4);
            self.put(dod as u64, 64);
        }
    }

    #[inline(always)]
    fn put_xor(&mut self, xor: u64) {
        if xor == 0 {
            self.put(0, 1);
            return;
        }
        let leading = xor.leading_zeros().min(MAX_LEADING);
        let trailing = xor.trailing_zeros();
        let window_trailing = 64 - self.leading - self.significant;
        if self.significant != 0 && leading >= self.leading && trailing >= window_trailing {
            let n = self.significant;
            let v = xor >> window_trailing;
            if n <= 62 {
                self.put(0b10 << n | v, n + 2);
            } else {
                self.put(0b10, 2);
                self.put(v, n);
            }
            return;
        }
        let significant = 64 - leading - trailing;
        self.leading = leading;
        self.significant = significant;
        // 64 significant bits are written as 0 in the six bits of the length.
        self.put(0b11 << 11 | u64::from(leading) << 6 | u64::from(significant & 63), 13);
        self.put(xor >> trailing, significant);
    }

    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Timestamp of the last sample; 0 when there is none.
    #[must_use]
    pub fn last_timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    /// Bits of the last value; 0 when there is none.
    #[must_use]
    pub fn last_value_bits(&self) -> u64 {
        self.value_bits
    }

    /// Length of the encoded chunk as it stands.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() + self.window_bits.div_ceil(8) as usize
    }

    /// Heap bytes taken.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The chunk with its first `count` samples (at most those it has). Bits of later samples may follow; readers stop
    /// before them.
    #[must_use]
    pub fn encode_first(&self, count: u16) -> Bytes {
        let mut bytes = Vec::with_capacity(self.len_bytes());
        bytes.extend_from_slice(&self.bytes);
        let rest = self.window_bits.div_ceil(8) as usize;
        bytes.extend_from_slice(&self.window.to_be_bytes()[..rest]);
        bytes[..HEADER_LEN_BYTES].copy_from_slice(&count.min(self.count).to_be_bytes());
        Bytes::from(bytes)
    }

    /// The chunk with all its samples.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encode_first(self.count)
    }
}

/// Whether `n` bits hold `v` in the format's asymmetric two's complement, `-(2^(n-1) - 1) ..= 2^(n-1)`.
#[inline(always)]
fn fits(v: i64, n: u32) -> bool {
    -((1 << (n - 1)) - 1) <= v && v <= 1 << (n - 1)
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

/// 64 bits of `data` from bit `at` on, of which at least [`PEEK_BITS`] count; zeros follow the end. `data` has at least
/// eight bytes.
#[inline(always)]
fn peek(data: &[u8], at: usize) -> u64 {
    let byte = at >> 3;
    let word = match data.get(byte..byte + 8) {
        Some(b) => be64(b),
        None => {
            let missing = byte + 8 - data.len();
            let last = be64(&data[data.len() - 8..]);
            if missing >= 8 { 0 } else { last << (8 * missing) }
        }
    };
    word << (at & 7)
}

#[inline(always)]
fn be64(b: &[u8]) -> u64 {
    u64::from_be_bytes(b.try_into().expect("callers pass eight bytes"))
}

/// `n` bits from bit `at` on, 1 to 64.
#[inline(always)]
fn bits(data: &[u8], at: usize, n: u32) -> u64 {
    if n <= PEEK_BITS {
        peek(data, at) >> (64 - n)
    } else {
        let low = n - 32;
        (peek(data, at) >> 32) << low | peek(data, at + 32) >> (64 - low)
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
    let mut leading = 0_u32;
    let mut significant = 64_u32;
    let mut i = 1;
    while i < n {
        let mut w = peek(data, at);
        let mut left = PEEK_BITS;
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
                left -= 1;
            } else {
                let (dod, len) = read_dod(data, at, w);
                delta = delta.wrapping_add(dod);
                at += len;
                w = peek(data, at);
            }
        }
        t = t.wrapping_add(delta);
        if w >> 62 == 0b10 {
            // Fast path: the XOR lies in the window of an earlier one.
            let xor = if significant <= left - 2 {
                w << 2 >> (64 - significant)
            } else {
                bits(data, at + 2, significant)
            };
            at += 2 + significant as usize;
            value ^= xor << (64 - leading - significant);
        } else if w >> 63 == 0 {
            at += 1;
        } else {
            leading = (w >> 57) as u32 & 31;
            significant = (w >> 51) as u32 & 63;
            if significant == 0 {
                significant = 64;
            }
            if leading + significant > 64 {
                return Err("more significant bits than a float has");
            }
            let xor = if significant <= left - 13 {
                w << 13 >> (64 - significant)
            } else {
                bits(data, at + 13, significant)
            };
            at += 13 + significant as usize;
            value ^= xor << (64 - leading - significant);
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
    let (prefix, n) = match (w >> 60).leading_ones_of_four() {
        1 => (2, 14),
        2 => (3, 17),
        3 => (4, 20),
        _ => return (bits(data, at + 4, 64) as i64, 4 + 64),
    };
    let raw = (w << prefix >> (64 - n)) as i64;
    let dod = if raw > 1 << (n - 1) { raw - (1 << n) } else { raw };
    (dod, (prefix + n) as usize)
}

trait LeadingOnesOfFour {
    /// Ones in front of a four-bit number.
    fn leading_ones_of_four(self) -> u32;
}

impl LeadingOnesOfFour for u64 {
    #[inline(always)]
    fn leading_ones_of_four(self) -> u32 {
        (self << 60).leading_ones()
    }
}

#[cfg(test)]
mod tests;
