//! XOR2 chunk codec: float samples, with start timestamps where there are some. Spec: docs/formats/chunk.md#xor2.
//!
//! As in XOR chunks, but one prefix tells time and value together, and a stale marker costs at most five bits and is no base
//! of the next XOR. Written when start timestamps are stored or when the configuration asks for it; always read.

use bytes::Bytes;
use model::{ChunkCodec, ChunkEncoding, STALE_NAN_BITS, Samples, StorageError};

use super::bits::{BitReader, BitWriter, XorColumn};
use super::start::StartColumn;

pub(crate) static XOR2_CODEC: &dyn ChunkCodec = &Xor2;

/// Sample count and header of the start timestamps.
const HEADER_LEN_BYTES: usize = 3;
const START_HEADER: usize = 2;

// === Writing ===

/// Writes a XOR2 chunk sample by sample.
#[derive(Clone, Debug)]
pub(crate) struct Xor2Appender {
    out: BitWriter,
    count: u16,
    timestamp_ms: i64,
    delta: u64,
    /// The newest value that is no stale marker.
    value: XorColumn,
    start: StartColumn,
}

impl Xor2Appender {
    /// An empty chunk.
    pub(crate) fn new() -> Self {
        Self {
            out: BitWriter::new(&[0; HEADER_LEN_BYTES]),
            count: 0,
            timestamp_ms: 0,
            delta: 0,
            value: XorColumn::default(),
            start: StartColumn::default(),
        }
    }

    /// Adds a sample; a start timestamp of 0 is none.
    #[inline]
    pub(crate) fn append(&mut self, timestamp_ms: i64, start_timestamp_ms: i64, value: f64) {
        let value_bits = value.to_bits();
        let previous = self.timestamp_ms;
        let delta = timestamp_ms.wrapping_sub(previous) as u64;
        match self.count {
            0 => {
                self.out.put_varint(timestamp_ms);
                self.out.put(value_bits, 64);
                if value_bits != STALE_NAN_BITS {
                    self.value = XorColumn::new(value);
                }
            }
            1 => {
                self.out.put_uvarint(delta);
                self.put_value(value_bits);
                self.delta = delta;
            }
            _ => {
                let dod = delta.wrapping_sub(self.delta) as i64;
                self.delta = delta;
                self.put_joint(dod, value_bits);
            }
        }
        self.timestamp_ms = timestamp_ms;
        if self.count == 0 || !self.start.is_silent(self.count, start_timestamp_ms) {
            self.start.put(&mut self.out, self.count, previous, timestamp_ms, start_timestamp_ms);
            *self.out.header_mut(START_HEADER) = self.start.header();
        }
        assert!(self.count < u16::MAX, "a chunk is cut long before its counter is full");
        self.count += 1;
    }

    #[inline(always)]
    fn put_joint(&mut self, dod: i64, value_bits: u64) {
        let masked = |bits: u32| dod as u64 & ((1 << bits) - 1);
        match dod {
            0 if value_bits == self.value.value_bits => return self.out.put(0, 1),
            0 if value_bits == STALE_NAN_BITS => return self.out.put(0b11111, 5),
            0 => return self.value.put_changed(&mut self.out, value_bits, (0b100, 3), (0b101, 3)),
            -4096..=4095 => self.out.put(0b110 << 13 | masked(13), 16),
            -524_288..=524_287 => self.out.put(0b1110 << 20 | masked(20), 24),
            _ => {
                self.out.put(0b11110, 5);
                self.out.put(dod as u64, 64);
            }
        }
        self.put_value(value_bits);
    }

    fn put_value(&mut self, value_bits: u64) {
        if value_bits == STALE_NAN_BITS {
            self.out.put(0b111, 3);
        } else if value_bits == self.value.value_bits {
            self.out.put(0, 1);
        } else {
            self.value.put_changed(&mut self.out, value_bits, (0b10, 2), (0b110, 3));
        }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.out.len_bytes()
    }

    /// The chunk with its first `count` samples (at most those it has).
    pub(crate) fn encode_first(&self, count: u16) -> Bytes {
        let mut bytes = self.out.to_bytes();
        bytes[..2].copy_from_slice(&count.min(self.count).to_be_bytes());
        bytes.into()
    }
}

// === Reading ===

struct Xor2;

impl ChunkCodec for Xor2 {
    fn encoding(&self) -> ChunkEncoding {
        ChunkEncoding::XOR2
    }

    /// Decodes the whole chunk: it is small, and looking for the range would cost more than it saves.
    fn decode(&self, bytes: &[u8], _mint: i64, _maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        let err = |reason: &str| StorageError::decode("XOR2 chunk", reason);
        let Some((header, data)) = bytes.split_at_checked(HEADER_LEN_BYTES) else {
            return Err(err("shorter than its header"));
        };
        let count = u16::from_be_bytes([header[0], header[1]]);
        // Each sample takes at least a bit. Checked first, so that a count out of nowhere makes nobody allocate.
        if usize::from(count) > data.len() * 8 {
            return Err(err("shorter than its samples"));
        }
        let start = StartColumn::of_header(header[START_HEADER]);
        if start.is_used() && out.start_timestamps_ms.is_empty() {
            out.start_timestamps_ms.resize(out.len(), 0);
        }
        let with_starts = start.is_used() || !out.start_timestamps_ms.is_empty();
        let before = out.len();
        let mut short = [0; 8];
        let reader = BitReader::of(data, &mut short);
        decode_samples(reader, count, start, with_starts, out).ok_or_else(|| err("ends within a sample"))?;
        if !out.histograms.is_empty() {
            out.histograms.resize(before + usize::from(count), None);
        }
        Ok(())
    }
}

fn decode_samples(
    mut r: BitReader<'_>,
    count: u16,
    mut starts: StartColumn,
    with_starts: bool,
    out: &mut Samples,
) -> Option<()> {
    out.timestamps_ms.reserve(usize::from(count));
    out.values.reserve(usize::from(count));
    let r = &mut r;
    let (mut t, mut delta) = (0_i64, 0_i64);
    let mut column = XorColumn::default();
    for i in 0..count {
        let previous = t;
        let value_bits = match i {
            0 => {
                t = r.varint()?;
                let v = r.get(64)?;
                if v != STALE_NAN_BITS {
                    column = XorColumn::new(f64::from_bits(v));
                }
                v
            }
            1 => {
                delta = r.uvarint()? as i64;
                get_value(r, &mut column)?
            }
            _ => get_joint(r, &mut delta, &mut column)?,
        };
        if i > 0 {
            t = t.wrapping_add(delta);
        }
        out.timestamps_ms.push(t);
        out.values.push(f64::from_bits(value_bits));
        if with_starts {
            out.start_timestamps_ms.push(starts.get(r, i, previous, t)?);
        }
    }
    Some(())
}

#[inline(always)]
fn get_joint(r: &mut BitReader<'_>, delta: &mut i64, column: &mut XorColumn) -> Option<u64> {
    let dod_bits = match r.ones(5)? {
        0 => return Some(column.value_bits),
        1 => {
            let new_window = r.get(1)? == 1;
            column.get_changed(r, new_window)?;
            return Some(column.value_bits);
        }
        2 => 13,
        3 => 20,
        4 => 64,
        _ => return Some(STALE_NAN_BITS),
    };
    let raw = r.get(dod_bits)?;
    let dod = (raw << (64 - dod_bits)) as i64 >> (64 - dod_bits);
    *delta = delta.wrapping_add(dod);
    get_value(r, column)
}

#[inline(always)]
fn get_value(r: &mut BitReader<'_>, column: &mut XorColumn) -> Option<u64> {
    match r.ones(3)? {
        0 => {}
        1 => column.get_changed(r, false)?,
        2 => column.get_changed(r, true)?,
        _ => return Some(STALE_NAN_BITS),
    }
    Some(column.value_bits)
}

#[cfg(test)]
mod tests {
    use model::Sample;
    use proptest::prelude::*;

    use super::*;

    fn check(samples: &[Sample]) {
        let mut a = Xor2Appender::new();
        for s in samples {
            let model::SampleValue::Float(v) = s.value else { panic!("floats only") };
            a.append(s.timestamp_ms, s.start_timestamp_ms, v);
        }
        let bytes = a.encode_first(u16::MAX);
        assert_eq!(bytes.len(), a.len_bytes());
        let mut out = Samples::new();
        XOR2_CODEC.decode(&bytes, i64::MIN, i64::MAX, &mut out).expect("own bytes");
        assert_eq!(out.iter().collect::<Vec<_>>(), samples);
        let mut out = Samples::new();
        XOR2_CODEC.decode(&a.encode_first(2), i64::MIN, i64::MAX, &mut out).expect("own bytes");
        assert_eq!(out.iter().collect::<Vec<_>>(), samples[..samples.len().min(2)]);
        for end in 0..bytes.len() {
            let _ = XOR2_CODEC.decode(&bytes[..end], 0, i64::MAX, &mut Samples::new()); // Must not panic.
        }
    }

    fn sample((t, start, v): (i64, i64, f64)) -> Sample {
        Sample { start_timestamp_ms: start, ..Sample::float(t, v) }
    }

    /// Bytes taken apart by hand from the format's description.
    #[test]
    fn bits_are_as_described() {
        let encode = |list: &[(i64, i64, f64)]| {
            let mut a = Xor2Appender::new();
            list.iter().for_each(|(t, s, v)| a.append(*t, *s, *v));
            a.encode_first(u16::MAX).to_vec()
        };
        // t 1, value 0, interval 1, the same value; then a whole sample in one bit, then a stale marker in five.
        let plain = encode(&[(1, 0, 0.0), (2, 0, 0.0), (3, 0, 0.0), (4, 0, model::stale_nan())]);
        assert_eq!(plain, [0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0b0011_1110]);
        // A start at 0 − 1: the first sample has it (distance 2), the others keep it.
        let started = encode(&[(1, -1, 0.0), (2, -1, 0.0), (3, -1, 0.0)]);
        assert_eq!(started, [0, 3, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0]);
        // It changes at the second sample: 1 − 1 = 0 in one bit; at the third the distance grows by 1.
        let changed = encode(&[(1, 0, 0.0), (2, 1, 0.0), (3, 1, 0.0)]);
        assert_eq!(changed, [0, 3, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0b0001_0001]);
        // A delta of deltas of −4096, then of 4096, which no longer fits thirteen bits.
        let jumps = encode(&[(0, 0, 0.0), (4096, 0, 0.0), (4096, 0, 0.0), (8192, 0, 0.0)]);
        assert_eq!(jumps[12..], [0x80, 0x20, 0b0110_1000, 0, 0b0011_1000, 0b0000_0100, 0, 0]);
    }

    proptest! {
        #[test]
        fn samples_come_back(list in prop::collection::vec(
            (
                prop_oneof![4 => Just(15_000_i64), 1 => -5000_i64..20_000, 1 => any::<i64>()],
                prop_oneof![6 => Just(None), 1 => Just(Some(0_i64)), 1 => any::<i64>().prop_map(Some)],
                prop_oneof![3 => Just(1.5), 2 => 0.0..100.0, 1 => Just(model::stale_nan()), 1 => any::<f64>()],
            ),
            0..300,
        )) {
            let (mut t, mut start) = (1_700_000_000_000_i64, 0);
            let samples: Vec<Sample> = list
                .into_iter()
                .map(|(step, change, v)| {
                    t = t.wrapping_add(step);
                    start = change.unwrap_or(start);
                    sample((t, start, v))
                })
                .collect();
            check(&samples);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = XOR2_CODEC.decode(&bytes, 0, i64::MAX, &mut Samples::new());
        }
    }
}
