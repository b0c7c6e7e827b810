//! Journal records: one committed batch each. Spec: docs/formats/longterm.md#journal.

use model::{Sample, StorageError};

use super::sample_codec::{put_sample, read_sample};
use super::varint::{Reader, check_crc, put_crc, put_varint, put_zigzag};

const VERSION: u8 = 1;
const WHAT: &str = "journal record";

/// Encodes a batch: floats without start timestamp as columns, everything else one by one. `floats` gives the same
/// `(series id, timestamp, value)` each time it is walked.
pub(super) fn encode<'a>(
    floats: impl ExactSizeIterator<Item = (u64, i64, f64)> + Clone,
    others: impl ExactSizeIterator<Item = (u64, &'a Sample)>,
) -> Vec<u8> {
    let n = floats.len();
    let mut out = Vec::with_capacity(16 + 11 * n + 64 * others.len());
    out.push(VERSION);
    put_varint(&mut out, n as u64);
    let mut last = 0_i64;
    for (id, _, _) in floats.clone() {
        put_zigzag(&mut out, (id as i64).wrapping_sub(last));
        last = id as i64;
    }
    last = 0;
    for (_, t, _) in floats.clone() {
        put_zigzag(&mut out, t.wrapping_sub(last));
        last = t;
    }
    for (_, _, v) in floats {
        out.extend_from_slice(&v.to_bits().to_le_bytes());
    }
    put_varint(&mut out, others.len() as u64);
    for (id, s) in others {
        put_varint(&mut out, id);
        put_zigzag(&mut out, s.timestamp_ms);
        put_sample(&mut out, s);
    }
    put_crc(&mut out);
    out
}

/// A decoded record; the buffers are reused from record to record.
#[derive(Default)]
pub(super) struct Record {
    pub(super) floats: Vec<(u64, i64, f64)>,
    pub(super) others: Vec<(u64, Sample)>,
}

impl Record {
    /// Fills the record from bytes.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.floats.clear();
        self.others.clear();
        let body = check_crc(WHAT, bytes)?;
        let mut r = Reader::new(WHAT, body);
        let version = r.u8()?;
        if version != VERSION {
            return Err(r.error(format!("unknown version {version}")));
        }
        let n = r.count(10)?;
        self.floats.reserve(n);
        let mut id = 0_i64;
        for _ in 0..n {
            id = id.wrapping_add(r.zigzag()?);
            self.floats.push((id as u64, 0, 0.0));
        }
        let mut t = 0_i64;
        for f in &mut self.floats {
            t = t.wrapping_add(r.zigzag()?);
            f.1 = t;
        }
        for f in &mut self.floats {
            f.2 = r.f64()?;
        }
        for _ in 0..r.count(3)? {
            let id = r.varint()?;
            let t = r.zigzag()?;
            self.others.push((id, read_sample(&mut r, t)?));
        }
        if !r.is_empty() {
            return Err(r.error("bytes after the last sample"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample_codec::tests::specimens;

    #[test]
    fn records_round_trip_and_damage_is_found() {
        let floats = [(5, 1000, 1.5), (3, 1000, model::stale_nan()), (u64::MAX >> 1, 0, -0.0)];
        let others: Vec<(u64, Sample)> = specimens(99).into_iter().map(|s| (7, s)).collect();
        let bytes = encode(floats.iter().copied(), others.iter().map(|(id, s)| (*id, s)));
        let mut r = Record::default();
        r.decode(&bytes).expect("own bytes");
        assert_eq!(r.others, others);
        let bits =
            |f: &[(u64, i64, f64)]| f.iter().map(|(a, b, c)| (*a, *b, c.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&r.floats), bits(&floats));
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x10;
            assert!(r.decode(&bad).is_err(), "flip in byte {i}");
        }
    }
}
