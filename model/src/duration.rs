//! Durations in Prometheus's notation: `1h30m`, `15s`, `1d`, `500ms`.

/// Parses a duration in milliseconds: units `y w d h m s ms`, each at most once and in that order, no sign, no blanks.
/// Plain `0` is allowed.
///
/// # Errors
/// A text that says what is wrong, in Prometheus's words.
pub fn parse_ms(s: &str) -> Result<i64, String> {
    match s {
        "0" => return Ok(0),
        "" => return Err("empty duration string".into()),
        _ => {}
    }
    let bad = || format!("not a valid duration string: {}", crate::labels::Quoted(s));
    let mut rest = s;
    let mut last_rank = 0;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let Ok(number) = number.parse::<u64>() else {
            return Err(bad());
        };
        let (rank, factor) = match unit {
            "" => return Err(bad()),
            "y" => (1, 365 * DAY_MS),
            "w" => (2, 7 * DAY_MS),
            "d" => (3, DAY_MS),
            "h" => (4, 3_600_000),
            "m" => (5, 60_000),
            "s" => (6, 1_000),
            "ms" => (7, 1),
            _ => {
                let (unit, s) = (crate::labels::Quoted(unit), crate::labels::Quoted(s));
                return Err(format!("unknown unit {unit} in duration {s}"));
            }
        };
        if rank <= last_rank {
            return Err(bad());
        }
        last_rank = rank;
        total = i64::try_from(number)
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .and_then(|n| n.checked_add(total))
            .filter(|n| *n <= i64::MAX / 1_000_000)
            .ok_or("duration out of range")?;
        rest = tail;
    }
    Ok(total)
}

const DAY_MS: i64 = 86_400_000;

/// Prints milliseconds as Prometheus does: years and weeks only when they divide the rest, `0s` for zero.
#[must_use]
pub fn format_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut rest = ms.unsigned_abs();
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    for (unit, factor, exact) in [
        ("y", 365 * DAY_MS as u64, true),
        ("w", 7 * DAY_MS as u64, true),
        ("d", DAY_MS as u64, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ] {
        if exact && !rest.is_multiple_of(factor) {
            continue;
        }
        let n = rest / factor;
        if n > 0 {
            out.push_str(&n.to_string());
            out.push_str(unit);
            rest -= n * factor;
        }
    }
    out
}

/// Prints milliseconds as Go does, which Prometheus uses in labels and messages: `15s`, `1m0s`, `1.5s`, `500ms`.
#[must_use]
pub fn go_duration(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    if ms < 1000 {
        return if ms == 0 { "0s".into() } else { format!("{sign}{ms}ms") };
    }
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let seconds = rest as f64 / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        for (ms, text) in [
            (0, "0s"),
            (500, "500ms"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (3_905_000, "1h5m5s"),
            (-90_000, "-1m30s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }

    #[test]
    fn reads_and_prints() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1s", 1_000, "1s"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("324ms", 324, "324ms"),
            ("3d", 3 * DAY_MS, "3d"),
            ("1y2w3d4h5m6s7ms", 365 * DAY_MS + 17 * DAY_MS + 14_706_007, "382d4h5m6s7ms"),
            ("14d", 14 * DAY_MS, "2w"),
        ] {
            assert_eq!(parse_ms(text), Ok(ms), "{text}");
            assert_eq!(format_ms(ms), printed);
        }
        for bad in ["", "1", "1x", "s", "1m1h", "1s1s", "-1s", "1 s", "999999999999999y", "1.5h"] {
            assert!(parse_ms(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_ms("5hs"), Err("unknown unit \"hs\" in duration \"5hs\"".into()));
        assert_eq!(parse_ms("1m1h"), Err("not a valid duration string: \"1m1h\"".into()));
        assert_eq!(parse_ms("300y"), Err("duration out of range".into()));
    }
}
