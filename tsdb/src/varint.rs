//! Integers and strings of the on-disk formats: big-endian fixed lengths, and Go's varints (seven bits a byte, least
//! significant first; signed ones in zigzag). Used by WAL records, the index and tombstones.

/// Longest encoding of a 64-bit varint.
pub(crate) const MAX_LEN_BYTES: usize = 10;

pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, v: i64) {
    put_uvarint(out, ((v << 1) ^ (v >> 63)) as u64);
}

pub(crate) fn put_str(out: &mut Vec<u8>, s: &str) {
    put_uvarint(out, s.len() as u64);
    out.extend_from_slice(s.as_bytes());
}

pub(crate) fn put_be32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_be_bytes());
}

pub(crate) fn put_be64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_be_bytes());
}

/// Reads from the front of a slice. `None` means that the bytes end too early or hold no such value; the position is
/// then undefined.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n)?;
        self.rest = tail;
        Some(head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (first, tail) = self.rest.split_first()?;
        self.rest = tail;
        Some(*first)
    }

    pub(crate) fn be32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn be64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    pub(crate) fn f64(&mut self) -> Option<f64> {
        self.be64().map(f64::from_bits)
    }

    #[inline]
    pub(crate) fn uvarint(&mut self) -> Option<u64> {
        let mut v = 0_u64;
        for i in 0..MAX_LEN_BYTES {
            let b = self.u8()?;
            if i == MAX_LEN_BYTES - 1 && b > 1 {
                return None;
            }
            v |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                return Some(v);
            }
        }
        None
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Option<i64> {
        let u = self.uvarint()?;
        Some((u >> 1) as i64 ^ -((u & 1) as i64))
    }

    /// A length that must fit what is left, when each element takes at least `min_len_bytes`: foreign bytes must not
    /// make us allocate more than they could fill.
    pub(crate) fn count(&mut self, min_len_bytes: usize) -> Option<usize> {
        let n = usize::try_from(self.uvarint()?).ok()?;
        (n.checked_mul(min_len_bytes)? <= self.rest.len()).then_some(n)
    }

    /// Steps over a string.
    #[inline]
    pub(crate) fn skip_str(&mut self) -> Option<()> {
        let n = usize::try_from(self.uvarint()?).ok()?;
        self.bytes(n).map(|_| ())
    }

    #[inline]
    pub(crate) fn str(&mut self) -> Option<&'a str> {
        let n = usize::try_from(self.uvarint()?).ok()?;
        std::str::from_utf8(self.bytes(n)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back() {
        for v in [0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN, 1 << 35] {
            let mut b = Vec::new();
            put_varint(&mut b, v);
            put_uvarint(&mut b, v as u64);
            let mut r = Reader::new(&b);
            assert_eq!((r.varint(), r.uvarint(), r.len()), (Some(v), Some(v as u64), 0));
        }
        assert_eq!(Reader::new(&[0xff; 10]).uvarint(), None);
        assert_eq!(Reader::new(&[0x80]).uvarint(), None);
        assert_eq!(Reader::new(&[5, b'a']).str(), None);
    }
}
