//! Values of number and duration tokens. Section "Float literals and time durations" of Prometheus's `querying/basics.md`.

use model::labels::Quoted;

/// Value of a number: an integer in base 10, 8 (leading 0) or 16 (leading 0x), or else a float. Underscores may stand
/// between digits.
pub(super) fn parse_number(text: &str) -> Result<f64, String> {
    let bad = |what| format!("error parsing number: strconv.ParseFloat: parsing {}: {what}", Quoted(text));
    if !underscores_separate_digits(text) {
        return Err(bad("invalid syntax"));
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(integer) = parse_integer(&digits) {
        return Ok(integer as f64);
    }
    let value: f64 = digits.parse().map_err(|_| bad("invalid syntax"))?;
    let word = digits.starts_with(|c: char| c.is_ascii_alphabetic());
    if value.is_infinite() && !word {
        return Err(bad("value out of range"));
    }
    Ok(if value.is_nan() { model::staleness::normal_nan() } else { value })
}

/// An integer, if it is one and fits. A leading 0 that no octal number follows begins a float.
fn parse_integer(digits: &str) -> Option<i64> {
    let (digits, base) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // A sign within, as of an exponent, would be taken.
    let integer = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if integer { i64::from_str_radix(digits, base).ok() } else { None }
}

/// Whether every underscore has a digit, or the prefix of a hexadecimal number, on its left and a digit on its right.
fn underscores_separate_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let is_digit = |b: &u8| b.is_ascii_digit() || (hex && b.is_ascii_hexdigit());
    bytes.iter().enumerate().filter(|(_, b)| **b == b'_').all(|(i, _)| {
        let follows = (hex && i == 2) || (i > 0 && is_digit(&bytes[i - 1]));
        follows && bytes.get(i + 1).is_some_and(is_digit)
    })
}

/// Value of a duration in seconds.
pub(super) fn parse_duration_seconds(text: &str) -> Result<f64, String> {
    model::duration::parse_ms(text).map(seconds)
}

/// Milliseconds as seconds, rounded as Go's `Duration.Seconds` does.
pub(super) fn seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_forms() {
        for (text, value) in [
            ("12.34e6", 12.34e6),
            ("0x1F", 31.0),
            ("0X_1f", 31.0),
            ("017", 15.0),
            ("089", 89.0),
            ("1_000", 1000.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("iNf", f64::INFINITY),
        ] {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
        assert!(parse_number("NaN").is_ok_and(f64::is_nan));
        for bad in ["1e999", "0xfffffffffffffffff", "0x", "1_", "1__0", "0x1_", "1_.5", "0_x1"] {
            assert!(parse_number(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_number("9223372036854775808"), Ok(9_223_372_036_854_775_808.0));
        assert_eq!(parse_number("1e5_0"), Ok(1e50));
        assert_eq!(parse_duration_seconds("1m500ms"), Ok(60.5));
    }
}
