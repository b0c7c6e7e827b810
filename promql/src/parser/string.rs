//! Strings in quotes: Go's escapes, in PromQL's three kinds of quotes. Section "String literals" of Prometheus's
//! `querying/basics.md`.

use super::lexer::quoted_char;

/// Length of the escape sequence that `s` starts with; the backslash before it is already read.
pub(super) fn escape_len(s: &str, quote: char) -> Result<usize, String> {
    let mut chars = s.chars();
    let Some(first) = chars.next() else {
        return Err("escape sequence not terminated".into());
    };
    let (skip, digits, base) = match first {
        'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(1),
        c if c == quote => return Ok(1),
        '0'..='7' => (0, 3, 8),
        'x' => (1, 2, 16),
        'u' => (1, 4, 16),
        'U' => (1, 8, 16),
        c => return Err(format!("unknown escape sequence {}", code_point(c))),
    };
    let mut value: u64 = 0;
    let mut rest = s[skip..].chars();
    for _ in 0..digits {
        let Some(c) = rest.next() else {
            return Err("escape sequence not terminated".into());
        };
        let Some(d) = c.to_digit(base) else {
            return Err(format!("illegal character {} in escape sequence", code_point(c)));
        };
        value = value * u64::from(base) + u64::from(d);
    }
    let max = if digits <= 3 { 255 } else { u64::from(u32::from(char::MAX)) };
    if value > max || (0xd800..0xe000).contains(&value) {
        return Err("escape sequence is an invalid Unicode code point".into());
    }
    Ok(skip + digits)
}

/// `U+0041 'A'`, without the character when it cannot be printed.
fn code_point(c: char) -> String {
    let number = u32::from(c);
    let escaped = quoted_char(Some(c));
    let printable = escaped.chars().count() == 3 || matches!(c, '\'' | '\\');
    if printable { format!("U+{number:04X} '{c}'") } else { format!("U+{number:04X}") }
}

/// The value of a string in quotes that the lexer has checked. Escaped bytes that are no UTF-8 become U+FFFD.
pub(super) fn unquote(quoted: &str) -> String {
    unquote_bytes(quoted).0
}

/// Like [`unquote`], and the bytes themselves when they are no UTF-8.
pub(super) fn unquote_bytes(quoted: &str) -> (String, Option<Box<[u8]>>) {
    let inner = &quoted[1..quoted.len() - 1];
    if quoted.starts_with('`') || !inner.contains('\\') {
        return (inner.to_owned(), None);
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (value, len) = escape_value(&rest[at + 1..]);
        match value {
            Escaped::Byte(b) => bytes.push(b),
            Escaped::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = &rest[at + 1 + len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    match String::from_utf8(bytes) {
        Ok(s) => (s, None),
        Err(e) => (String::from_utf8_lossy(e.as_bytes()).into_owned(), Some(e.into_bytes().into())),
    }
}

/// Bytes in double quotes with Go's escapes; those that are no UTF-8 as `\xff`.
pub(super) fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = model::labels::Quoted(chunk.valid()).to_string();
        out.push_str(&quoted[1..quoted.len() - 1]);
        chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    out.push('"');
    out
}

enum Escaped {
    Byte(u8),
    Char(char),
}

/// Value and length of a checked escape sequence without its backslash.
fn escape_value(s: &str) -> (Escaped, usize) {
    let number = |digits: &str, base| u32::from_str_radix(digits, base).unwrap_or(0);
    let char_of =
        |digits| Escaped::Char(char::from_u32(number(digits, 16)).unwrap_or(char::REPLACEMENT_CHARACTER));
    match s.as_bytes()[0] {
        b'a' => (Escaped::Byte(7), 1),
        b'b' => (Escaped::Byte(8), 1),
        b'f' => (Escaped::Byte(12), 1),
        b'n' => (Escaped::Byte(b'\n'), 1),
        b'r' => (Escaped::Byte(b'\r'), 1),
        b't' => (Escaped::Byte(b'\t'), 1),
        b'v' => (Escaped::Byte(11), 1),
        b'0'..=b'7' => (Escaped::Byte(number(&s[..3], 8) as u8), 3),
        b'x' => (Escaped::Byte(number(&s[1..3], 16) as u8), 3),
        b'u' => (char_of(&s[1..5]), 5),
        b'U' => (char_of(&s[1..9]), 9),
        other => (Escaped::Byte(other), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_escapes() {
        for (quoted, value) in [
            (r#""a\n\t\"\\""#, "a\n\t\"\\"),
            (r#"'a"\''"#, "a\"'"),
            (r"`a\n`", "a\\n"),
            (r#""\x41\101é\U0001F600""#, "AAé😀"),
            (r#""\xe2\x8c\x98""#, "⌘"),
            (r#""\xff""#, "\u{fffd}"),
        ] {
            assert_eq!(unquote(quoted), value, "{quoted}");
        }
    }
}
