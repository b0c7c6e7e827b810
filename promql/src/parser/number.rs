//! Values of number and duration tokens.

use model::labels::Quoted;

/// Value of a number: an integer in base 10, 8 (leading 0) or 16 (leading 0x), or else a float. Underscores may stand
/// between digits.
pub(super) fn parse_number(text: &str) -> Result<f64, String> {
    let bad = |what| format!("error parsing number: strconv.ParseFloat: parsing {}: {what}", Quoted(text));
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).map(|n| n as f64).map_err(|_| bad("invalid syntax"));
    }
    if digits.len() > 1
        && digits.starts_with('0')
        && let Ok(n) = i64::from_str_radix(&digits, 8)
    {
        return Ok(n as f64);
    }
    let value: f64 = digits.parse().map_err(|_| bad("invalid syntax"))?;
    let word = digits.starts_with(|c: char| c.is_ascii_alphabetic());
    if value.is_infinite() && !word {
        return Err(bad("value out of range"));
    }
    Ok(if value.is_nan() { model::staleness::normal_nan() } else { value })
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
        assert!(parse_number("1e999").is_err());
        assert!(parse_number("0xfffffffffffffffff").is_err());
        assert_eq!(parse_duration_seconds("1m500ms"), Ok(60.5));
    }
}
