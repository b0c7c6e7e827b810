//! The protobuf wire format, read without copying and written into a growing buffer.
//!
//! Only what the messages of this crate need: varints, fixed 64-bit numbers and length-delimited fields. Groups are an
//! error, unknown fields are skipped. Messages are walked with explicit loops and nest three deep at most, or as deep as [`crate::otlp`] lets them, so foreign
//! bytes cannot exhaust the stack.
//!
//! Spec: <https://protobuf.dev/programming-guides/encoding/>.

use crate::error::Error;

/// How the bytes of a field are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// Number and wire type of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) field: u32,
    pub(crate) wire_type: WireType,
}

/// A reader over the bytes of one message, which knows where they lie in the whole input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// Offset of the end of `rest` in the whole input.
    end: usize,
    message: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], message: &'static str) -> Self {
        Self { rest: bytes, end: bytes.len(), message }
    }

    /// Offset of the next byte in the whole input.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, reason: &'static str) -> Error {
        Error::Malformed { message: self.message, offset: self.offset(), reason }
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Error> {
        match self.rest {
            [b, tail @ ..] if *b < 0x80 => {
                self.rest = tail;
                Ok(u64::from(*b))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for (i, b) in self.rest.iter().take(10).enumerate() {
            if i == 9 && *b > 1 {
                return Err(self.error("varint does not fit 64 bits"));
            }
            value |= u64::from(*b & 0x7f) << (7 * i);
            if *b < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(self.error("varint runs over the end"))
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Error> {
        match self.rest.split_first_chunk::<8>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(u64::from_le_bytes(*head))
            }
            None => Err(self.error("8 byte number runs over the end")),
        }
    }

    #[inline]
    pub(crate) fn double(&mut self) -> Result<f64, Error> {
        self.fixed64().map(f64::from_bits)
    }

    /// A reader over that many bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<Cursor<'a>, Error> {
        match self.rest.split_at_checked(len) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(Cursor { rest: head, end: self.offset(), message: self.message })
            }
            None => Err(self.error("length runs over the end")),
        }
    }

    /// A varint length and that many bytes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.varint()?;
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        match split {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(self.error("length runs over the end")),
        }
    }

    #[inline]
    pub(crate) fn str(&mut self) -> Result<&'a str, Error> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.error("string before this byte is not UTF-8"))
    }

    /// A reader over a length-delimited sub-message.
    #[inline]
    pub(crate) fn message(&mut self) -> Result<Cursor<'a>, Error> {
        let bytes = self.bytes()?;
        Ok(Cursor { rest: bytes, end: self.offset(), message: self.message })
    }

    /// The tag of the next field; `None` at the end of the message.
    #[inline]
    pub(crate) fn tag(&mut self) -> Result<Option<Tag>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            5 => WireType::Fixed32,
            3 | 4 => return Err(self.error("groups are not supported")),
            _ => return Err(self.error("unknown wire type")),
        };
        match u32::try_from(key >> 3) {
            Ok(field) if field > 0 && field < 1 << 29 => Ok(Some(Tag { field, wire_type })),
            _ => Err(self.error("field number out of range")),
        }
    }

    /// Passes over the value of a field.
    #[inline]
    pub(crate) fn skip(&mut self, wire_type: WireType) -> Result<(), Error> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.fixed64().map(drop),
            WireType::Bytes => self.bytes().map(drop),
            WireType::Fixed32 => match self.rest.split_at_checked(4) {
                Some((_, tail)) => {
                    self.rest = tail;
                    Ok(())
                }
                None => Err(self.error("4 byte number runs over the end")),
            },
        }
    }

    /// Passes over the fields at the front with this tag and a length of one byte, as labels nearly always are.
    #[inline]
    pub(crate) fn skip_short(&mut self, tag: u8) {
        let mut rest = self.rest;
        while let [first, len, tail @ ..] = rest
            && *first == tag
            && *len < 0x80
            && let Some(behind) = tail.get(usize::from(*len)..)
        {
            rest = behind;
        }
        self.rest = rest;
    }

    /// Fails unless a known field has the wire type of its declaration.
    #[inline]
    pub(crate) fn expect(&self, tag: Tag, wire_type: WireType) -> Result<(), Error> {
        if tag.wire_type == wire_type { Ok(()) } else { Err(self.error("field has the wrong wire type")) }
    }

    /// Calls `one` for each element of a repeated number, packed or not.
    #[inline]
    pub(crate) fn repeated(
        &mut self,
        tag: Tag,
        element: WireType,
        mut one: impl FnMut(&mut Cursor<'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if tag.wire_type == WireType::Bytes {
            let mut packed = self.message()?;
            while !packed.is_empty() {
                one(&mut packed)?;
            }
            return Ok(());
        }
        self.expect(tag, element)?;
        one(self)
    }
}

/// The inverse of [`put_sint64`].
#[inline]
pub(crate) fn unzigzag(v: u64) -> i64 {
    ((v >> 1) as i64) ^ -((v & 1) as i64)
}

// === Writing ===

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Bytes that [`put_varint`] writes.
#[inline]
pub(crate) fn varint_len(v: u64) -> usize {
    (70 - (v | 1).leading_zeros() as usize) / 7
}

#[inline]
fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

/// A length-delimited field.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_tag(out, field, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Tag and length of a length-delimited field whose bytes follow.
#[inline]
pub(crate) fn put_len(out: &mut Vec<u8>, field: u32, len: usize) {
    put_tag(out, field, BYTES);
    put_varint(out, len as u64);
}

/// A string field; the empty string is the default and left out.
#[inline]
pub(crate) fn put_str(out: &mut Vec<u8>, field: u32, s: &str) {
    if !s.is_empty() {
        put_bytes(out, field, s.as_bytes());
    }
}

/// A varint field; 0 is the default and left out.
#[inline]
pub(crate) fn put_uint64(out: &mut Vec<u8>, field: u32, v: u64) {
    if v != 0 {
        put_tag(out, field, VARINT);
        put_varint(out, v);
    }
}

/// An `int64` or `int32` field; 0 is the default and left out.
#[inline]
pub(crate) fn put_int64(out: &mut Vec<u8>, field: u32, v: i64) {
    put_uint64(out, field, v as u64);
}

/// A `sint64` or `sint32` field; 0 is the default and left out.
#[inline]
pub(crate) fn put_sint64(out: &mut Vec<u8>, field: u32, v: i64) {
    put_uint64(out, field, zigzag(v));
}

#[inline]
pub(crate) fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// A `double` field. Only +0 is the default and left out: -0 and NaNs keep their bits.
#[inline]
pub(crate) fn put_double(out: &mut Vec<u8>, field: u32, v: f64) {
    if v.to_bits() != 0 {
        put_double_always(out, field, v);
    }
}

/// A `double` field that is written even when it is the default, as members of a `oneof` are.
#[inline]
pub(crate) fn put_double_always(out: &mut Vec<u8>, field: u32, v: f64) {
    put_tag(out, field, FIXED64);
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

/// A varint field that is written even when it is the default, as members of a `oneof` are.
#[inline]
pub(crate) fn put_uint64_always(out: &mut Vec<u8>, field: u32, v: u64) {
    put_tag(out, field, VARINT);
    put_varint(out, v);
}

/// A `fixed64` field; 0 is the default and left out.
#[inline]
pub(crate) fn put_fixed64(out: &mut Vec<u8>, field: u32, v: u64) {
    if v != 0 {
        put_tag(out, field, FIXED64);
        out.extend_from_slice(&v.to_le_bytes());
    }
}

/// A `fixed32` field; 0 is the default and left out.
#[inline]
pub(crate) fn put_fixed32(out: &mut Vec<u8>, field: u32, v: u32) {
    if v != 0 {
        put_tag(out, field, FIXED32);
        out.extend_from_slice(&v.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_each_length() {
        for shift in 0..64 {
            for v in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, v);
                assert_eq!(out.len(), varint_len(v), "{v}");
                let mut c = Cursor::new(&out, "test");
                assert_eq!(c.varint(), Ok(v));
                assert!(c.is_empty());
                assert_eq!(unzigzag(zigzag(v as i64)), v as i64);
            }
        }
    }

    #[test]
    fn refuses_what_is_no_wire_format() {
        let check = |bytes: &[u8], reason: &str| {
            let mut c = Cursor::new(bytes, "test");
            let e = loop {
                match c.tag().and_then(|t| t.map(|t| c.skip(t.wire_type)).transpose()) {
                    Ok(Some(())) => {}
                    Ok(None) => panic!("{bytes:?} was taken"),
                    Err(e) => break e,
                }
            };
            assert!(e.to_string().contains(reason), "{e}");
        };
        check(&[0x0a], "runs over");
        check(&[0x0a, 5, 1], "length runs over");
        check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "length runs over");
        check(&[0x09, 1, 2], "8 byte");
        check(&[0x0d, 1, 2], "4 byte");
        check(&[0x0b], "groups");
        check(&[0x0f], "wire type");
        check(&[0x02, 0], "field number");
        check(&[0xff; 11], "64 bits");
        check(&[0x08, 0x80], "runs over");
    }
}
