//! Values of attributes, and what they are as the text of a label.
//!
//! A string is itself; a boolean is `true` or `false`; numbers are as JSON writes them, with `NaN`, `Infinity` and
//! `-Infinity`; bytes are base64; lists and maps are JSON, maps sorted by key, where of two equal keys the last counts, and a
//! map or list with a number that JSON does not have is the empty text. No value is the empty text.

use std::fmt::Write as _;

use super::base64;
use super::message::Repeated;
use crate::error::Error;
use crate::proto::{Cursor, WireType};

/// How deep lists and maps may nest.
const DEPTH_MAX: usize = 64;

/// A key and its value.
pub(crate) struct KeyValue<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: AnyValue<'a>,
}

impl<'a> KeyValue<'a> {
    pub(crate) fn read(mut c: Cursor<'a>) -> Result<Self, Error> {
        let mut out = Self { key: "", value: AnyValue::Empty };
        while let Some(tag) = c.tag()? {
            match tag.field {
                1 => {
                    c.expect(tag, WireType::Bytes)?;
                    out.key = c.str()?;
                }
                2 => {
                    c.expect(tag, WireType::Bytes)?;
                    out.value = AnyValue::read(c.message()?)?;
                }
                _ => c.skip(tag.wire_type)?,
            }
        }
        Ok(out)
    }
}

/// A value of any type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyValue<'a> {
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Repeated<'a>),
    Map(Repeated<'a>),
    Bytes(&'a [u8]),
}

/// JSON has no word for a number.
struct NoJson;

impl<'a> AnyValue<'a> {
    fn read(mut c: Cursor<'a>) -> Result<Self, Error> {
        let mut out = Self::Empty;
        while let Some(tag) = c.tag()? {
            let wire_type = match tag.field {
                2 | 3 | 8 => WireType::Varint,
                4 => WireType::Fixed64,
                1 | 5..=7 => WireType::Bytes,
                _ => {
                    c.skip(tag.wire_type)?;
                    continue;
                }
            };
            c.expect(tag, wire_type)?;
            out = match tag.field {
                1 => Self::Text(c.str()?),
                2 => Self::Bool(c.varint()? != 0),
                3 => Self::Int(c.varint()? as i64),
                4 => Self::Double(c.double()?),
                5 => Self::Array(Repeated::new(c.message()?, 1)),
                6 => Self::Map(Repeated::new(c.message()?, 1)),
                7 => Self::Bytes(c.bytes()?),
                // An index into a table that metrics do not have.
                _ => {
                    c.varint()?;
                    Self::Empty
                }
            };
        }
        Ok(out)
    }

    /// Appends the text of a label.
    pub(crate) fn write_text(self, out: &mut String) -> Result<(), Error> {
        match self {
            Self::Empty => {}
            Self::Text(s) => out.push_str(s),
            Self::Bool(b) => out.push_str(if b { "true" } else { "false" }),
            Self::Int(n) => write(out, n),
            Self::Double(f) => match write_number(out, f) {
                Ok(()) => {}
                Err(NoJson) if f.is_nan() => out.push_str("NaN"),
                Err(NoJson) => out.push_str(if f > 0.0 { "Infinity" } else { "-Infinity" }),
            },
            Self::Bytes(bytes) => base64::encode(bytes, out),
            Self::Array(_) | Self::Map(_) => {
                let start = out.len();
                if let Err(NoJson) = self.write_json(out, 0)? {
                    out.truncate(start);
                }
            }
        }
        Ok(())
    }

    fn write_json(self, out: &mut String, depth: usize) -> Result<Result<(), NoJson>, Error> {
        match self {
            Self::Empty => out.push_str("null"),
            Self::Text(s) => write_string(out, s),
            Self::Bool(_) | Self::Int(_) => self.write_text(out)?,
            Self::Double(f) => return Ok(write_number(out, f)),
            // As of a value that is not there.
            Self::Bytes([]) => out.push_str("null"),
            Self::Bytes(bytes) => {
                out.push('"');
                base64::encode(bytes, out);
                out.push('"');
            }
            Self::Array(list) => return write_list(list, out, depth),
            Self::Map(map) => return write_map(map, out, depth),
        }
        Ok(Ok(()))
    }
}

fn nested(list: &Repeated<'_>, depth: usize) -> Result<(), Error> {
    if depth < DEPTH_MAX { Ok(()) } else { Err(list.error("value of an attribute nests more than 64 deep")) }
}

fn write_list(mut list: Repeated<'_>, out: &mut String, depth: usize) -> Result<Result<(), NoJson>, Error> {
    nested(&list, depth)?;
    out.push('[');
    let mut first = true;
    while let Some(element) = list.next()? {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        if let Err(e) = AnyValue::read(element)?.write_json(out, depth + 1)? {
            return Ok(Err(e));
        }
    }
    out.push(']');
    Ok(Ok(()))
}

fn write_map(mut map: Repeated<'_>, out: &mut String, depth: usize) -> Result<Result<(), NoJson>, Error> {
    nested(&map, depth)?;
    let mut entries = Vec::new();
    while let Some(entry) = map.next()? {
        entries.push(KeyValue::read(entry)?);
    }
    entries.sort_by_key(|e| e.key);
    out.push('{');
    let mut first = true;
    for (i, entry) in entries.iter().enumerate() {
        if entries.get(i + 1).is_some_and(|next| next.key == entry.key) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        write_string(out, entry.key);
        out.push(':');
        if let Err(e) = entry.value.write_json(out, depth + 1)? {
            return Ok(Err(e));
        }
    }
    out.push('}');
    Ok(Ok(()))
}

fn write(out: &mut String, what: impl std::fmt::Display) {
    // Writing into a string does not fail.
    let _ = write!(out, "{what}");
}

/// As ECMAScript writes numbers: exponents below 1e-6 and from 1e21 on.
fn write_number(out: &mut String, f: f64) -> Result<(), NoJson> {
    if !f.is_finite() {
        return Err(NoJson);
    }
    if f == 0.0 || (1e-6..1e21).contains(&f.abs()) {
        write(out, f);
        return Ok(());
    }
    let start = out.len();
    let _ = write!(out, "{f:e}");
    if let Some(e) = out[start..].find('e')
        && !out[start + e..].starts_with("e-")
    {
        out.insert(start + e + 1, '+');
    }
    Ok(())
}

fn write_string(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::message::MESSAGE;
    use crate::proto::{put_bytes, put_double_always, put_str, put_uint64_always};

    fn text(bytes: &[u8]) -> Result<String, Error> {
        let mut out = String::new();
        AnyValue::read(Cursor::new(bytes, MESSAGE))?.write_text(&mut out)?;
        Ok(out)
    }

    fn made(make: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        make(&mut out);
        out
    }

    fn number(f: f64) -> Vec<u8> {
        made(|o| put_double_always(o, 4, f))
    }

    fn pair(key: &str, value: &[u8]) -> Vec<u8> {
        made(|o| {
            put_str(o, 1, key);
            put_bytes(o, 2, value);
        })
    }

    #[test]
    fn texts_of_each_type() {
        let check = |bytes: &[u8], expect: &str| assert_eq!(text(bytes).as_deref(), Ok(expect));
        check(&[], "");
        check(&made(|o| put_str(o, 1, "a\"<b>")), "a\"<b>");
        check(&made(|o| put_uint64_always(o, 2, 1)), "true");
        check(&made(|o| put_uint64_always(o, 2, 0)), "false");
        check(&made(|o| put_uint64_always(o, 3, -7_i64 as u64)), "-7");
        for (f, expect) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (-1.25e-7, "-1.25e-7"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            check(&number(f), expect);
        }
        check(&made(|o| put_bytes(o, 7, b"\0\xffab")), "AP9hYg==");
        // The last member of the oneof counts; the index of a table is nothing.
        check(&[made(|o| put_str(o, 1, "a")), number(2.0)].concat(), "2");
        check(&[number(2.0), made(|o| put_uint64_always(o, 8, 1))].concat(), "");
    }

    #[test]
    fn lists_and_maps_are_json() {
        let list = |elements: &[Vec<u8>]| {
            let inner = made(|o| elements.iter().for_each(|e| put_bytes(o, 1, e)));
            made(|o| put_bytes(o, 5, &inner))
        };
        let map = |pairs: &[Vec<u8>]| {
            let inner = made(|o| pairs.iter().for_each(|e| put_bytes(o, 1, e)));
            made(|o| put_bytes(o, 6, &inner))
        };
        let string = |s: &str| made(|o| put_str(o, 1, s));
        let check = |bytes: &[u8], expect: &str| assert_eq!(text(bytes).as_deref(), Ok(expect));
        check(&list(&[]), "[]");
        check(&map(&[]), "{}");
        check(
            &list(&[string("<\"\n\u{1}\u{2028}é"), vec![], number(1.5)]),
            "[\"<\\\"\\n\\u0001\\u2028é\",null,1.5]",
        );
        check(
            &map(&[pair("b", &number(1.0)), pair("a", &list(&[])), pair("b", &number(2.0))]),
            "{\"a\":[],\"b\":2}",
        );
        check(&map(&[pair("x", &list(&[number(f64::NAN)]))]), "");
        let bytes = |bytes: &[u8]| made(|o| put_bytes(o, 7, bytes));
        check(&list(&[bytes(b"abc"), bytes(b"")]), "[\"YWJj\",null]");
        let deep = |n: usize| (0..n).fold(number(1.0), |inner, _| list(&[inner]));
        assert!(text(&deep(64)).is_ok());
        assert!(text(&deep(65)).is_err());
    }
}
