//! The JSON form of a request, written as protobuf while it is read.
//!
//! Names are in camel case or with underscores, 64-bit numbers are strings or numbers, ids are hexadecimal, bytes are base64,
//! enumerations are numbers or names. What is not known is passed over; `null` is an absent message, list or text. Of what follows
//! the request nothing is read.
//!
//! Spec: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>, <https://protobuf.dev/programming-guides/json/>.

use super::base64;
use super::schema::{Field, Fields, REQUEST, Type};
use crate::error::Error;
use crate::proto::{put_bytes, put_double_always, put_uint64_always, zigzag};

/// How deep objects and lists may nest.
const DEPTH_MAX: usize = 256;
/// Bytes of a length that is written before what it measures.
const LEN_BYTES: usize = 5;

/// Makes the protobuf form of a request, of at most `limit` bytes, of its JSON form.
///
/// # Errors
/// [`Error::Malformed`] where the text is no such request; [`Error::TooLarge`] when it would become larger than `limit`.
pub fn json_to_protobuf(json: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let text = std::str::from_utf8(json).map_err(|e| Error::Malformed {
        message: MESSAGE,
        offset: e.valid_up_to(),
        reason: "text is not UTF-8",
    })?;
    let limit = limit.min(u32::MAX as usize);
    let mut reader = Reader { text, at: 0, scratch: String::new(), out: Vec::new(), limit };
    reader.message(&REQUEST, 0)?;
    Ok(reader.out)
}

const MESSAGE: &str = "ExportMetricsServiceRequest in JSON";

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The string that was read last, if it had escapes.
    scratch: String,
    out: Vec<u8>,
    limit: usize,
}

/// A string: as it stands, or in the scratch.
enum Text<'a> {
    Plain(&'a str),
    Unescaped,
}

impl<'a> Reader<'a> {
    #[cold]
    fn error(&self, reason: &'static str) -> Error {
        Error::Malformed { message: MESSAGE, offset: self.at, reason }
    }

    // === Tokens ===

    /// The next byte that is not white space; it stays to be read.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn word(&mut self, word: &str) -> bool {
        let there = self.peek().is_some() && self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        if there {
            self.at += word.len();
        }
        there
    }

    fn string(&mut self) -> Result<Text<'a>, Error> {
        if !self.take(b'"') {
            return Err(self.error("a string is expected"));
        }
        let (bytes, start) = (self.text.as_bytes(), self.at);
        let mut unescaped = false;
        loop {
            let from = self.at;
            let plain =
                bytes[from..].iter().take_while(|b| **b >= b' ' && !matches!(b, b'"' | b'\\')).count();
            self.at += plain;
            match bytes.get(self.at) {
                Some(b'"') if !unescaped => {
                    self.at += 1;
                    return Ok(Text::Plain(&self.text[start..self.at - 1]));
                }
                Some(stop @ (b'"' | b'\\')) => {
                    if !unescaped {
                        self.scratch.clear();
                        unescaped = true;
                    }
                    self.scratch.push_str(&self.text[from..self.at]);
                    self.at += 1;
                    if *stop == b'"' {
                        return Ok(Text::Unescaped);
                    }
                    self.escape()?;
                }
                Some(_) => return Err(self.error("a control character in a string")),
                None => return Err(self.error("a string without an end")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Error> {
        let Some(byte) = self.text.as_bytes().get(self.at) else {
            return Err(self.error("a string without an end"));
        };
        self.at += 1;
        let c = match byte {
            b'"' | b'\\' | b'/' => char::from(*byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return Err(self.error("an unknown escape")),
        };
        self.scratch.push(c);
        Ok(())
    }

    /// A character after `\u`; half a pair of surrogates is U+FFFD.
    fn unicode(&mut self) -> Result<char, Error> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let c = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.error("four hexadecimal digits are expected"));
        }
        self.at += 4;
        Ok(digits.iter().fold(0, |n, d| n << 4 | char::from(*d).to_digit(16).unwrap_or(0)))
    }

    /// The text of a number, or of a string that stands for one.
    fn number(&mut self) -> Result<Text<'a>, Error> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                let bytes = self.text.as_bytes()[start..].iter();
                let part = |b: &&u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
                self.at += bytes.take_while(part).count();
                Ok(Text::Plain(&self.text[start..self.at]))
            }
            _ => Err(self.error("a number is expected")),
        }
    }

    fn integer<T: std::str::FromStr>(&mut self) -> Result<T, Error> {
        let text = self.number()?;
        let text = self.text_of(&text);
        // What is not negative has no sign.
        let number = if text.starts_with('+') { None } else { text.parse().ok() };
        number.ok_or_else(|| self.error("an integer of another size, or none, stands before this byte"))
    }

    fn double(&mut self) -> Result<f64, Error> {
        let text = self.number()?;
        let text = self.text_of(&text);
        let number = text.parse::<f64>().ok();
        let named = text.bytes().any(|b| matches!(b, b'n' | b'N'));
        match number {
            Some(f) if f.is_finite() || named => Ok(f),
            _ => Err(self.error("no number, or one out of range, stands before this byte")),
        }
    }

    fn text_of<'s>(&'s self, text: &'s Text<'a>) -> &'s str {
        match text {
            Text::Plain(s) => s,
            Text::Unescaped => &self.scratch,
        }
    }

    fn skip(&mut self, depth: usize) -> Result<(), Error> {
        match self.peek() {
            Some(b'{') => self.object(depth, |reader, _, depth| reader.skip(depth)),
            Some(b'[') => self.list(depth, |reader, depth| reader.skip(depth)),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ if ["null", "true", "false"].iter().any(|w| self.word(w)) => Ok(()),
            _ => Err(self.error("a value is expected")),
        }
    }

    /// Calls `member` for each member of an object or `null`, its name read.
    fn object(
        &mut self,
        depth: usize,
        mut member: impl FnMut(&mut Self, Text<'a>, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.word("null") {
            return Ok(());
        }
        if !self.take(b'{') {
            return Err(self.error("an object is expected"));
        }
        self.check_depth(depth)?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.peek();
            let name = self.string()?;
            if !self.take(b':') {
                return Err(self.error("a colon is expected"));
            }
            member(self, name, depth + 1)?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.error("a comma or the end of an object is expected"));
            }
        }
    }

    /// Calls `element` for each element of a list or `null`.
    fn list(
        &mut self,
        depth: usize,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.word("null") {
            return Ok(());
        }
        if !self.take(b'[') {
            return Err(self.error("a list is expected"));
        }
        self.check_depth(depth)?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self, depth + 1)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.error("a comma or the end of a list is expected"));
            }
        }
    }

    fn check_depth(&self, depth: usize) -> Result<(), Error> {
        if depth < DEPTH_MAX { Ok(()) } else { Err(self.error("nests more than 256 deep")) }
    }

    // === Fields ===

    fn message(&mut self, fields: &'static Fields, depth: usize) -> Result<(), Error> {
        self.object(depth, |reader, name, depth| {
            let name = reader.text_of(&name);
            match fields.0.iter().find(|f| f.is_called(name)) {
                Some(field) if field.repeated => {
                    reader.list(depth, |reader, depth| reader.value(field, depth))
                }
                Some(field) => reader.value(field, depth),
                None => reader.skip(depth),
            }
        })
    }

    fn value(&mut self, field: &Field, depth: usize) -> Result<(), Error> {
        let number = field.number;
        match field.kind {
            Type::Text => {
                let text = if self.word("null") { Text::Plain("") } else { self.string()? };
                let text = match &text {
                    Text::Plain(s) => s,
                    Text::Unescaped => self.scratch.as_str(),
                };
                put_bytes(&mut self.out, number, text.as_bytes());
            }
            Type::Bool => {
                let value = self.word("true");
                if !value && !self.word("false") {
                    return Err(self.error("true or false is expected"));
                }
                put_uint64_always(&mut self.out, number, u64::from(value));
            }
            Type::Enum(names) => {
                let value = self.enumeration(names)?;
                put_uint64_always(&mut self.out, number, i64::from(value) as u64);
            }
            Type::Int32 => {
                let value = i64::from(self.integer::<i32>()?);
                put_uint64_always(&mut self.out, number, value as u64);
            }
            Type::Sint32 => {
                let value = i64::from(self.integer::<i32>()?);
                put_uint64_always(&mut self.out, number, zigzag(value));
            }
            Type::Uint32 => {
                let value = u64::from(self.integer::<u32>()?);
                put_uint64_always(&mut self.out, number, value);
            }
            Type::Int64 => {
                let value = self.integer::<i64>()?;
                put_uint64_always(&mut self.out, number, value as u64);
            }
            Type::Uint64 => {
                let value = self.integer::<u64>()?;
                put_uint64_always(&mut self.out, number, value);
            }
            // What is fixed in length is written alike, whatever the bits mean.
            Type::Fixed64 => {
                let value = self.integer::<u64>()?;
                put_double_always(&mut self.out, number, f64::from_bits(value));
            }
            Type::Sfixed64 => {
                let value = self.integer::<i64>()?;
                put_double_always(&mut self.out, number, f64::from_bits(value as u64));
            }
            Type::Double => {
                let value = self.double()?;
                put_double_always(&mut self.out, number, value);
            }
            Type::Id(len) => {
                let id = self.id(len)?;
                put_bytes(&mut self.out, number, &id);
            }
            Type::Bytes => {
                let text = self.string()?;
                let bytes = base64::decode(self.text_of(&text).as_bytes());
                let bytes = bytes.ok_or_else(|| self.error("what stands before this byte is not base64"))?;
                put_bytes(&mut self.out, number, &bytes);
            }
            Type::Message(fields) => {
                put_bytes(&mut self.out, number, &[]);
                // In place of the length 0 comes one that is known later.
                self.out.pop();
                let start = self.out.len();
                self.out.extend_from_slice(&[0; LEN_BYTES]);
                self.message(fields, depth)?;
                let mut len = self.out.len() - start - LEN_BYTES;
                for (i, byte) in self.out[start..start + LEN_BYTES].iter_mut().enumerate() {
                    *byte = len as u8 & 0x7f | if i + 1 < LEN_BYTES { 0x80 } else { 0 };
                    len >>= 7;
                }
            }
        }
        if self.out.len() > self.limit {
            return Err(Error::TooLarge { len: self.out.len(), limit: self.limit });
        }
        Ok(())
    }

    fn enumeration(&mut self, names: &[(&str, i32)]) -> Result<i32, Error> {
        if self.peek() != Some(b'"') {
            return self.integer();
        }
        let name = self.string()?;
        let name = self.text_of(&name);
        let found = names.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        found.ok_or_else(|| self.error("an unknown name stands before this byte"))
    }

    fn id(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let text = self.string()?;
        let digits = self.text_of(&text).as_bytes();
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        let id: Option<Vec<u8>> =
            digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
        match id {
            Some(id) if id.is_empty() || id.len() == len => Ok(id),
            _ => Err(self.error("what stands before this byte is not an id in hexadecimal digits")),
        }
    }
}
