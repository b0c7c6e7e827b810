//! Bit streams of chunks, most significant bit first, and the variable-length numbers in them. Spec: docs/formats/chunk.md.

use crate::varint;

/// Leading zeros of a XOR window have five bits.
const MAX_LEADING: u32 = 31;
/// Bits that one look at a stream surely gives: an eight-byte load, shifted by up to seven bits.
pub(super) const PEEK_BITS: u32 = 57;
/// Number of bits of the classes of varbit numbers. The prefix of class `i` is `i + 1` ones and a zero, but for the last
/// one (64 bits), which is eight ones.
const VARBIT_SIZES: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];

// === Writing ===

/// Writes bits behind a header.
#[derive(Clone, Debug)]
pub(super) struct BitWriter {
    /// Header and whole 64-bit words of the stream, then room for more.
    bytes: Box<[u8]>,
    /// Bits not yet in `bytes`, from the top.
    window: u64,
    /// Bytes of `bytes` that are written.
    len: u32,
    /// How many bits are in the window, 0 to 63.
    window_bits: u8,
}

/// Bytes that a stream has room for first.
const ROOM_BYTES: usize = 32;

impl BitWriter {
    pub(super) fn new(header: &[u8]) -> Self {
        let mut bytes = vec![0; ROOM_BYTES].into_boxed_slice();
        bytes[..header.len()].copy_from_slice(header);
        Self { bytes, window: 0, len: header.len() as u32, window_bits: 0 }
    }

    /// Writes the low `n` bits of `v`, whose other bits are 0; `n` is 1 to 64.
    #[inline(always)]
    pub(super) fn put(&mut self, v: u64, n: u32) {
        let free = 64 - u32::from(self.window_bits);
        if n < free {
            self.window |= v << (free - n);
            self.window_bits += n as u8;
        } else {
            let over = n - free;
            self.window |= v >> over;
            let (from, to) = (self.len as usize, self.len as usize + 8);
            if to > self.bytes.len() {
                self.grow();
            }
            self.bytes[from..to].copy_from_slice(&self.window.to_be_bytes());
            self.len = to as u32;
            self.window = if over == 0 { 0 } else { v << (64 - over) };
            self.window_bits = over as u8;
        }
    }

    /// Takes more room, in the steps that the allocator has: there are as many open chunks as series.
    #[cold]
    fn grow(&mut self) {
        let room = self.bytes.len();
        let step = match room {
            ..128 => 16,
            128..256 => 32,
            _ => (room / 4).next_multiple_of(64),
        };
        let mut bytes = std::mem::take(&mut self.bytes).into_vec();
        bytes.reserve_exact(step);
        bytes.resize(room + step, 0);
        self.bytes = bytes.into_boxed_slice();
    }

    /// Writes an unsigned number as Go's varint.
    pub(super) fn put_uvarint(&mut self, v: u64) {
        let mut bytes = Vec::with_capacity(varint::MAX_LEN_BYTES);
        varint::put_uvarint(&mut bytes, v);
        bytes.iter().for_each(|b| self.put(u64::from(*b), 8));
    }

    /// Writes a signed number as Go's varint.
    pub(super) fn put_varint(&mut self, v: i64) {
        self.put_uvarint(((v << 1) ^ (v >> 63)) as u64);
    }

    /// Writes a signed number in the class that fits it.
    pub(super) fn put_varbit_int(&mut self, v: i64) {
        if v == 0 {
            self.put(0, 1);
            return;
        }
        match VARBIT_SIZES.iter().position(|n| fits(v, *n)) {
            Some(class) => self.put_class(class, v as u64),
            None => self.put_largest(v as u64),
        }
    }

    /// Writes an unsigned number in the class that fits it.
    pub(super) fn put_varbit_uint(&mut self, v: u64) {
        if v == 0 {
            self.put(0, 1);
            return;
        }
        match VARBIT_SIZES.iter().position(|n| v >> n == 0) {
            Some(class) => self.put_class(class, v),
            None => self.put_largest(v),
        }
    }

    fn put_class(&mut self, class: usize, v: u64) {
        let ones = class as u32 + 1;
        self.put(((1 << ones) - 1) << 1, ones + 1);
        let n = VARBIT_SIZES[class];
        self.put(v & ((1 << n) - 1), n);
    }

    fn put_largest(&mut self, v: u64) {
        self.put(0xff, 8);
        self.put(v, 64);
    }

    /// A byte of the header.
    pub(super) fn header_mut(&mut self, at: usize) -> &mut u8 {
        &mut self.bytes[at]
    }

    /// Length with the bits that do not fill a byte.
    pub(super) fn len_bytes(&self) -> usize {
        self.len as usize + usize::from(self.window_bits.div_ceil(8))
    }

    /// Header and stream as they stand.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len_bytes());
        out.extend_from_slice(&self.bytes[..self.len as usize]);
        let rest = usize::from(self.window_bits.div_ceil(8));
        out.extend_from_slice(&self.window.to_be_bytes()[..rest]);
        out
    }
}

/// Whether `n` bits hold `v` in the format's asymmetric two's complement, `-(2^(n-1) - 1) ..= 2^(n-1)`.
#[inline(always)]
pub(super) fn fits(v: i64, n: u32) -> bool {
    -((1 << (n - 1)) - 1) <= v && v <= 1 << (n - 1)
}

/// The number that `n` bits hold in that form.
#[inline(always)]
pub(super) fn sign(raw: u64, n: u32) -> i64 {
    let raw = raw as i64;
    if raw > 1 << (n - 1) { raw - (1 << n) } else { raw }
}

// === Reading ===

/// 64 bits of `data` from bit `at` on, of which at least [`PEEK_BITS`] count; zeros follow the end. `data` has at least
/// eight bytes.
#[inline(always)]
pub(super) fn peek(data: &[u8], at: usize) -> u64 {
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
pub(super) fn bits(data: &[u8], at: usize, n: u32) -> u64 {
    if n <= PEEK_BITS {
        peek(data, at) >> (64 - n)
    } else {
        let low = n - 32;
        (peek(data, at) >> 32) << low | peek(data, at + 32) >> (64 - low)
    }
}

/// Reads a stream number by number. `None`: it ends too early.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
    len_bits: usize,
}

impl<'a> BitReader<'a> {
    /// A reader of at least eight bytes, of which the first `len_bytes` count.
    pub(super) fn new(data: &'a [u8], len_bytes: usize) -> Self {
        assert!(data.len() >= 8, "callers pad short streams");
        Self { data, at: 0, len_bits: len_bytes * 8 }
    }

    /// A reader of bytes of any length; `short` takes those that are fewer than eight.
    pub(super) fn of(data: &'a [u8], short: &'a mut [u8; 8]) -> Self {
        if data.len() >= short.len() {
            return Self::new(data, data.len());
        }
        short[..data.len()].copy_from_slice(data);
        Self::new(short, data.len())
    }

    pub(super) fn bits_left(&self) -> usize {
        self.len_bits - self.at
    }

    pub(super) fn get(&mut self, n: u32) -> Option<u64> {
        let at = self.at;
        if n as usize > self.len_bits - at {
            return None;
        }
        self.at += n as usize;
        Some(bits(self.data, at, n))
    }

    pub(super) fn f64(&mut self) -> Option<f64> {
        self.get(64).map(f64::from_bits)
    }

    /// Go's varint, wherever it begins.
    pub(super) fn uvarint(&mut self) -> Option<u64> {
        let mut v = 0_u64;
        for i in 0..varint::MAX_LEN_BYTES {
            let b = self.get(8)?;
            if i == varint::MAX_LEN_BYTES - 1 && b > 1 {
                return None;
            }
            v |= (b & 0x7f) << (7 * i);
            if b < 0x80 {
                return Some(v);
            }
        }
        None
    }

    pub(super) fn varint(&mut self) -> Option<i64> {
        let u = self.uvarint()?;
        Some((u >> 1) as i64 ^ -((u & 1) as i64))
    }

    /// Number of ones in front, at most `max`, which they and the zero behind them (not after `max` ones) are read over.
    pub(super) fn ones(&mut self, max: u32) -> Option<u32> {
        let ones = peek(self.data, self.at).leading_ones().min(max);
        self.get(if ones == max { max } else { ones + 1 })?;
        Some(ones)
    }

    /// The class of a varbit number: its bits, 0 for the number 0.
    fn varbit_size(&mut self) -> Option<u32> {
        Some(match self.ones(8)? {
            0 => 0,
            8 => 64,
            n => VARBIT_SIZES[n as usize - 1],
        })
    }

    pub(super) fn varbit_int(&mut self) -> Option<i64> {
        match self.varbit_size()? {
            0 => Some(0),
            64 => self.get(64).map(|v| v as i64),
            n => self.get(n).map(|v| sign(v, n)),
        }
    }

    pub(super) fn varbit_uint(&mut self) -> Option<u64> {
        match self.varbit_size()? {
            0 => Some(0),
            n => self.get(n),
        }
    }
}

// === XOR of floats ===

/// A float and the window of the last XOR that opened one: what the next float of its column is written against.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct XorColumn {
    pub(super) value_bits: u64,
    window: XorWindow,
}

/// The window of the last XOR that opened one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct XorWindow {
    leading: u8,
    /// Meaningful bits; 0 until there was one.
    significant: u8,
}

impl XorColumn {
    pub(super) fn new(value: f64) -> Self {
        Self { value_bits: value.to_bits(), window: XorWindow::default() }
    }

    /// Writes the next value.
    #[inline(always)]
    pub(super) fn put(&mut self, out: &mut BitWriter, value_bits: u64) {
        if value_bits == self.value_bits {
            out.put(0, 1);
        } else {
            self.put_changed(out, value_bits, (0b10, 2), (0b11, 2));
        }
    }

    /// Writes a value that differs from the one before: a prefix (its bits and their number) that says whether the XOR lies
    /// in the window of an earlier one or has a new window, then the XOR.
    #[inline(always)]
    pub(super) fn put_changed(
        &mut self,
        out: &mut BitWriter,
        value_bits: u64,
        same_window: (u64, u32),
        new_window: (u64, u32),
    ) {
        let xor = value_bits ^ self.value_bits;
        self.value_bits = value_bits;
        self.window.put(out, xor, same_window, new_window);
    }

    /// Reads the next value. (XOR chunks have a faster way of their own.)
    pub(super) fn get(&mut self, r: &mut BitReader<'_>) -> Option<f64> {
        if r.get(1)? == 1 {
            let new_window = r.get(1)? == 1;
            self.get_changed(r, new_window)?;
        }
        Some(f64::from_bits(self.value_bits))
    }

    /// Reads a value that differs from the one before, after its prefix.
    #[inline]
    pub(super) fn get_changed(&mut self, r: &mut BitReader<'_>, new_window: bool) -> Option<()> {
        if new_window {
            let window = r.get(11)?;
            self.window.leading = (window >> 6) as u8;
            self.window.significant = ((window & 63) as u8).wrapping_sub(1) & 63; // 0 stands for 64
            self.window.significant += 1;
        } else if self.window.significant == 0 {
            self.window.significant = 64;
        }
        let trailing = (64 - self.window.leading).checked_sub(self.window.significant)?;
        self.value_bits ^= r.get(u32::from(self.window.significant))? << trailing;
        Some(())
    }
}

impl XorWindow {
    /// Writes the XOR of a value that differs from the one before, as [`XorColumn::put_changed`] does.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        out: &mut BitWriter,
        xor: u64,
        same_window: (u64, u32),
        new_window: (u64, u32),
    ) {
        let leading = xor.leading_zeros().min(MAX_LEADING);
        let trailing = xor.trailing_zeros();
        let n = u32::from(self.significant);
        let window_trailing = 64 - u32::from(self.leading) - n;
        if n != 0 && leading >= u32::from(self.leading) && trailing >= window_trailing {
            let v = xor >> window_trailing;
            if n + same_window.1 <= 64 {
                out.put(same_window.0 << n | v, n + same_window.1);
            } else {
                out.put(same_window.0, same_window.1);
                out.put(v, n);
            }
            return;
        }
        let significant = 64 - leading - trailing;
        self.leading = leading as u8;
        self.significant = significant as u8;
        // 64 significant bits are written as 0 in the six bits of the length.
        let window = u64::from(leading) << 6 | u64::from(significant & 63);
        out.put(new_window.0 << 11 | window, new_window.1 + 11);
        out.put(xor >> trailing, significant);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop::collection::vec((any::<i64>(), 0_u32..64), 0..50)) {
            let mut w = BitWriter::new(&[]);
            let numbers: Vec<i64> = numbers.into_iter().map(|(v, shift)| v >> shift).collect();
            let mut column = XorColumn::new(1.5);
            for v in &numbers {
                w.put_varbit_int(*v);
                w.put_varbit_uint(*v as u64);
                column.put(&mut w, *v as u64);
            }
            let mut bytes = w.to_bytes();
            let len = bytes.len();
            prop_assert_eq!(len, w.len_bytes());
            bytes.resize(len.max(8), 0);
            let mut r = BitReader::new(&bytes, len);
            let mut column = XorColumn::new(1.5);
            for v in &numbers {
                prop_assert_eq!(r.varbit_int(), Some(*v));
                prop_assert_eq!(r.varbit_uint(), Some(*v as u64));
                prop_assert_eq!(column.get(&mut r).map(f64::to_bits), Some(*v as u64));
            }
            prop_assert!(r.bits_left() < 8);
        }
    }
}
