//! LEB128 and zigzag, and a reader over foreign bytes that never panics. Spec: docs/formats/longterm.md.

use model::StorageError;

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

#[inline]
pub(super) fn zigzag(x: i64) -> u64 {
    ((x << 1) ^ (x >> 63)) as u64
}

#[inline]
pub(super) fn unzigzag(x: u64) -> i64 {
    (x >> 1) as i64 ^ -((x & 1) as i64)
}

#[inline]
pub(super) fn put_zigzag(out: &mut Vec<u8>, x: i64) {
    put_varint(out, zigzag(x));
}

pub(super) fn put_f64(out: &mut Vec<u8>, x: f64) {
    out.extend_from_slice(&x.to_bits().to_le_bytes());
}

/// Adds the checksum of all of `out`.
pub(super) fn put_crc(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The bytes before the checksum, when it fits them.
pub(super) fn check_crc<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], StorageError> {
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(StorageError::decode(what, format!("{} bytes are too few for a checksum", bytes.len())));
    };
    let (want, got) = (u32::from_le_bytes(*crc), crc32c::crc32c(body));
    if want != got {
        return Err(StorageError::decode(what, format!("checksum is {got:08x}, stored is {want:08x}")));
    }
    Ok(body)
}

/// Reads values off the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the thing in errors.
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[cold]
    pub(super) fn error(&self, reason: impl Into<String>) -> StorageError {
        StorageError::decode(self.what, reason)
    }

    #[cold]
    fn short(&self) -> StorageError {
        self.error("ends in the middle of a value")
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, StorageError> {
        let Some((b, rest)) = self.rest.split_first() else { return Err(self.short()) };
        self.rest = rest;
        Ok(*b)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, StorageError> {
        if let Some((b, rest)) = self.rest.split_first()
            && *b < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*b));
        }
        let mut x = 0_u64;
        for shift in (0..64).step_by(7) {
            let b = self.u8()?;
            if shift == 63 && b > 1 {
                break;
            }
            x |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(x);
            }
        }
        Err(self.error("a varint is longer than 64 bits"))
    }

    #[inline]
    pub(super) fn zigzag(&mut self) -> Result<i64, StorageError> {
        self.varint().map(unzigzag)
    }

    /// A number of things of which each takes at least `min_bytes` of the rest.
    pub(super) fn count(&mut self, min_bytes: usize) -> Result<usize, StorageError> {
        let n = self.varint()?;
        if n > (self.rest.len() / min_bytes.max(1)) as u64 {
            return Err(self.error(format!("{n} entries do not fit in {} bytes", self.rest.len())));
        }
        Ok(n as usize)
    }

    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8], StorageError> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else { return Err(self.short()) };
        self.rest = rest;
        Ok(head)
    }

    /// Bytes preceded by their number.
    pub(super) fn prefixed(&mut self) -> Result<&'a [u8], StorageError> {
        let n = self.count(1)?;
        self.bytes(n)
    }

    /// Text preceded by its length.
    pub(super) fn text(&mut self) -> Result<&'a str, StorageError> {
        let b = self.prefixed()?;
        std::str::from_utf8(b).map_err(|_| self.error("text is not UTF-8"))
    }

    #[inline]
    pub(super) fn f64(&mut self) -> Result<f64, StorageError> {
        let Some((b, rest)) = self.rest.split_first_chunk::<8>() else { return Err(self.short()) };
        self.rest = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*b)))
    }
}
