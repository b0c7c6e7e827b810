//! Texts, characters and numbers as Go writes them.

use model::labels::Quoted;

use super::node::Number;

/// The text of a string in double quotes or back quotes.
///
/// # Errors
/// An escape that is none.
pub(super) fn unquote(quoted: &str) -> Result<String, String> {
    let inner = &quoted[1..quoted.len() - 1];
    if quoted.starts_with('`') {
        return Ok(inner.replace('\r', ""));
    }
    let mut bytes = Vec::new();
    let mut rest = inner;
    while !rest.is_empty() {
        rest = unescape(rest, '"', &mut bytes).ok_or("invalid syntax")?;
    }
    // Bytes that are no UTF-8 can be neither sent nor shown.
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// The code of a character in single quotes.
///
/// # Errors
/// When there is not one character.
pub(super) fn character(quoted: &str) -> Result<u32, String> {
    let inner = &quoted[1..];
    let mut bytes = Vec::new();
    let rest = unescape(inner, '\'', &mut bytes).ok_or("invalid syntax")?;
    if rest != "'" {
        return Err(format!("malformed character constant: {quoted}"));
    }
    // `'\xff'` is the number 255, not a part of a character.
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.chars().next().map_or(0, u32::from)),
        Err(_) => Ok(u32::from(bytes[0])),
    }
}

/// Reads one character, which may be escaped; what follows it.
fn unescape<'a>(text: &'a str, quote: char, out: &mut Vec<u8>) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    let mut push = |c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    if c == quote || c == '\n' {
        return None;
    }
    if c != '\\' {
        push(c);
        return Some(rest);
    }
    let escape = rest.chars().next()?;
    let rest = &rest[escape.len_utf8()..];
    let simple = match escape {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' => '\\',
        c if c == quote => c,
        'x' | 'u' | 'U' => {
            let len = match escape {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let code = u32::from_str_radix(digits(rest, len, 16)?, 16).ok()?;
            match escape {
                'x' => out.push(code as u8),
                _ => push(char::from_u32(code)?),
            }
            return Some(&rest[len..]);
        }
        '0'..='7' => {
            let all = &text[1..];
            out.push(u8::from_str_radix(digits(all, 3, 8)?, 8).ok()?);
            return Some(&all[3..]);
        }
        _ => return None,
    };
    push(simple);
    Some(rest)
}

fn digits(text: &str, len: usize, radix: u32) -> Option<&str> {
    text.get(..len).filter(|t| t.chars().all(|c| c.is_digit(radix)))
}

/// The value of a number.
///
/// # Errors
/// What is none.
pub(super) fn number(text: &str) -> Result<Number, String> {
    if let Some(n) = integer(text) {
        return Ok(i64::try_from(n).map_or(Number::TooLarge, Number::Int));
    }
    let bad = || format!("illegal number syntax: {}", Quoted(text));
    let unsigned = text.trim_start_matches(['+', '-']);
    if !text.contains(['.', 'e', 'E', 'p', 'P']) {
        let is_int = !unsigned.is_empty() && unsigned.chars().all(|c| c.is_ascii_digit());
        return Err(if is_int { format!("integer overflow: {}", Quoted(text)) } else { bad() });
    }
    let plain = without_underscores(text).ok_or_else(bad)?;
    if plain.to_ascii_lowercase().contains("0x") {
        return hexadecimal(&plain.to_ascii_lowercase()).map(Number::Float).ok_or_else(bad);
    }
    plain.parse().map(Number::Float).map_err(|_| bad())
}

/// The text without underscores, which may stand between digits only.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_alphanumeric);
    let good = |i: usize| bytes[i] != b'_' || (digit(i.checked_sub(1)) && digit(Some(i + 1)));
    (0..bytes.len()).all(good).then(|| text.replace('_', ""))
}

/// `0x1.8p3`, in small letters.
fn hexadecimal(text: &str) -> Option<f64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = rest.strip_prefix("0x")?.split_once('p')?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let value = u64::from_str_radix(&digits, 16).ok()? as f64;
    let exponent = exponent.parse::<i32>().ok()?.checked_sub(i32::try_from(4 * part.len()).ok()?)?;
    Some(sign * value * f64::from(exponent).exp2())
}

/// With Go's prefixes; a leading 0 is octal.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let plain = without_underscores(text).map(|_| digits.replace('_', ""))?;
    if plain.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(&plain, radix).ok()?);
    (!negative || value <= 1 << 63).then_some(if negative { -value } else { value })
}
