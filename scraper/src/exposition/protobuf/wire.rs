//! The protobuf wire format: varints, fields, and skipping what is not known. Nothing here allocates.
//!
//! Errors are in the words of the generated decoders that Prometheus uses, so that a broken target reads the same in both.
//! Groups, a relic, are skipped without recursion, so that nesting costs nothing.
//!
//! Spec: <https://protobuf.dev/programming-guides/encoding/>.

use std::borrow::Cow;

/// Why bytes are no protobuf message.
#[derive(Debug)]
pub(super) struct WireError(pub(super) Cow<'static, str>);

type Result<T> = std::result::Result<T, WireError>;

impl WireError {
    fn eof() -> Self {
        Self(Cow::Borrowed("unexpected EOF"))
    }

    fn overflow() -> Self {
        Self(Cow::Borrowed("proto: integer overflow"))
    }

    pub(super) fn text(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// What kind of value a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    GroupStart,
    Fixed32,
}

impl Wire {
    fn number(self) -> u8 {
        match self {
            Self::Varint => 0,
            Self::Fixed64 => 1,
            Self::Bytes => 2,
            Self::GroupStart => 3,
            Self::Fixed32 => 5,
        }
    }
}

/// The head of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) field: u32,
    pub(super) wire: Wire,
    /// Where the field begins, its tag included.
    pub(super) start: usize,
}

/// Walks the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of what comes next.
    #[inline]
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The head of the next field of `message`, `None` at the end.
    #[inline]
    pub(super) fn next(&mut self, message: &'static str) -> Result<Option<Tag>> {
        let start = self.at;
        if start >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            3 => Wire::GroupStart,
            4 => {
                return Err(WireError::text(format!("proto: {message}: wiretype end group for non-group")));
            }
            5 => Wire::Fixed32,
            other => return Err(WireError::text(format!("proto: illegal wireType {other}"))),
        };
        let field = (key >> 3) as u32;
        if field as i32 <= 0 {
            let field = field as i32;
            return Err(WireError::text(format!("proto: {message}: illegal tag {field} (wire type {key})")));
        }
        Ok(Some(Tag { field, wire, start }))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64> {
        // Nearly all are one byte long.
        match self.bytes.get(self.at) {
            Some(b) if *b < 0x80 => {
                self.at += 1;
                Ok(u64::from(*b))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let b = *self.bytes.get(self.at).ok_or_else(WireError::eof)?;
            self.at += 1;
            value |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::overflow())
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.varint()?;
        if len > i64::MAX as u64 {
            return Err(WireError(Cow::Borrowed("proto: negative length found during unmarshaling")));
        }
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let out = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(WireError::eof)?;
        self.at += out.len();
        Ok(out)
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<u64> {
        let raw = self.bytes.get(self.at..self.at + 8).ok_or_else(WireError::eof)?;
        self.at += 8;
        Ok(u64::from_le_bytes(raw.try_into().expect("the slice is eight bytes long")))
    }

    /// Passes over a field of which the head has been read.
    pub(super) fn skip(&mut self, tag: Tag) -> Result<()> {
        self.skip_value(tag.wire)?;
        let mut depth = u32::from(tag.wire == Wire::GroupStart);
        while depth > 0 {
            let key = self.varint()?;
            match key & 7 {
                0 => self.skip_value(Wire::Varint)?,
                1 => self.skip_value(Wire::Fixed64)?,
                2 => self.skip_value(Wire::Bytes)?,
                3 => depth += 1,
                4 => depth -= 1,
                5 => self.skip_value(Wire::Fixed32)?,
                other => return Err(WireError::text(format!("proto: illegal wireType {other}"))),
            }
        }
        Ok(())
    }

    fn skip_value(&mut self, wire: Wire) -> Result<()> {
        match wire {
            Wire::Varint => self.varint().map(|_| ()),
            Wire::Fixed64 => self.fixed64().map(|_| ()),
            Wire::Bytes => self.bytes().map(|_| ()),
            Wire::GroupStart => Ok(()),
            Wire::Fixed32 => {
                self.bytes.get(self.at..self.at + 4).ok_or_else(WireError::eof)?;
                self.at += 4;
                Ok(())
            }
        }
    }

    // === Fields of an expected kind ===

    pub(super) fn expect(&self, tag: Tag, wire: Wire, field: &'static str) -> Result<()> {
        if tag.wire == wire {
            return Ok(());
        }
        Err(WireError::text(format!("proto: wrong wireType = {} for field {field}", tag.wire.number())))
    }

    #[inline]
    pub(super) fn uint(&mut self, tag: Tag, field: &'static str) -> Result<u64> {
        self.expect(tag, Wire::Varint, field)?;
        self.varint()
    }

    #[inline]
    pub(super) fn double(&mut self, tag: Tag, field: &'static str) -> Result<f64> {
        self.expect(tag, Wire::Fixed64, field)?;
        self.fixed64().map(f64::from_bits)
    }

    #[inline]
    pub(super) fn message(&mut self, tag: Tag, field: &'static str) -> Result<&'a [u8]> {
        self.expect(tag, Wire::Bytes, field)?;
        self.bytes()
    }

    /// A repeated number, packed or one by one.
    pub(super) fn repeated(
        &mut self,
        tag: Tag,
        single: Wire,
        field: &'static str,
        mut push: impl FnMut(u64),
    ) -> Result<()> {
        let read = |fields: &mut Self| match single {
            Wire::Fixed64 => fields.fixed64(),
            _ => fields.varint(),
        };
        if tag.wire == single {
            push(read(self)?);
            return Ok(());
        }
        self.expect(tag, Wire::Bytes, field)?;
        let mut packed = Fields::new(self.bytes()?);
        while packed.at < packed.bytes.len() {
            push(read(&mut packed)?);
        }
        Ok(())
    }
}

/// A signed number that was written zigzag.
#[inline]
pub(super) fn zigzag(v: u64) -> i64 {
    ((v >> 1) as i64) ^ -((v & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints() {
        for (bytes, value) in [(&[0x01][..], 1), (&[0xac, 0x02], 300), (&[0xff; 9], 0)] {
            let mut bytes = bytes.to_vec();
            if value == 0 {
                bytes.push(1);
            }
            let read = Fields::new(&bytes).varint().expect("a varint");
            assert_eq!(read, if value == 0 { u64::MAX } else { value });
        }
        assert_eq!(Fields::new(&[0xff; 11]).varint().expect_err("too long").0, "proto: integer overflow");
        assert_eq!(Fields::new(&[0xff; 2]).varint().expect_err("cut off").0, "unexpected EOF");
        assert_eq!([0, 1, 2, 3, u64::MAX].map(zigzag), [0, -1, 1, -2, i64::MIN]);
    }

    #[test]
    fn groups_of_any_depth_are_skipped() {
        let mut bytes = vec![0x0b; 1_000_000];
        bytes.extend_from_slice(&vec![0x0c; 1_000_000]);
        let mut fields = Fields::new(&bytes);
        let tag = fields.next("M").expect("a tag").expect("a field");
        fields.skip(tag).expect("groups end where they begin");
        assert_eq!(fields.position(), bytes.len());
    }
}
