//! Numbers for humans: the `humanize` functions of Prometheus.

use super::go_time;
use super::number::four_digits;
use super::value::Value;

/// The number that a value is, or that its text says.
///
/// # Errors
/// When it is none.
pub(super) fn float_of(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(v) => Ok(*v),
        Value::Int(n) => Ok(*n as f64),
        Value::Named(named) if named.type_name == "int64" => Ok(named.value as f64),
        Value::Text(text) => parse(text).ok_or_else(|| {
            format!("strconv.ParseFloat: parsing {}: invalid syntax", model::labels::Quoted(text))
        }),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// As Go's `ParseFloat`, but without hexadecimal floats.
fn parse(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.trim_start_matches(['+', '-']);
    let named = matches!(plain, "inf" | "infinity" | "nan");
    if !named && !plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    text.parse().ok()
}

pub(super) fn humanize(mut v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return four_digits(v);
    }
    let mut prefix = "";
    if v.abs() >= 1.0 {
        for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
            if v.abs() < 1000.0 {
                break;
            }
            prefix = next;
            v /= 1000.0;
        }
    } else {
        (v, prefix) = scale_up(v);
    }
    format!("{}{prefix}", four_digits(v))
}

fn scale_up(mut v: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if v.abs() >= 1.0 {
            break;
        }
        prefix = next;
        v *= 1000.0;
    }
    (v, prefix)
}

pub(super) fn humanize_1024(mut v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return four_digits(v);
    }
    let mut prefix = "";
    for next in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
        if v.abs() < 1024.0 {
            break;
        }
        prefix = next;
        v /= 1024.0;
    }
    format!("{}{prefix}", four_digits(v))
}

pub(super) fn humanize_percentage(v: f64) -> String {
    format!("{}%", four_digits(v * 100.0))
}

pub(super) fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return four_digits(v);
    }
    if v == 0.0 {
        return format!("{}s", four_digits(v));
    }
    if v.abs() < 1.0 {
        let (v, prefix) = scale_up(v);
        return format!("{}{prefix}s", four_digits(v));
    }
    let sign = if v < 0.0 { "-" } else { "" };
    let v = v.abs();
    let whole = go_int(v);
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", four_digits(v))
    }
}

/// The number without what follows its point; one that is too large becomes the smallest integer, as in Go on amd64.
pub(super) fn go_int(v: f64) -> i64 {
    if v < 9_223_372_036_854_775_808.0 { v as i64 } else { i64::MIN }
}

/// Milliseconds since the epoch.
///
/// # Errors
/// When the number is no time.
pub(super) fn time_of(seconds: f64) -> Result<i64, String> {
    if !seconds.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let nanoseconds = seconds * 1e9;
    if nanoseconds > i64::MAX as f64 || nanoseconds < i64::MIN as f64 {
        let shown = super::number::shortest(seconds);
        return Err(format!(
            "{shown} cannot be represented as a nanoseconds timestamp since it overflows int64"
        ));
    }
    Ok(nanoseconds as i64 / 1_000_000)
}

/// # Errors
/// When the number is no time.
pub(super) fn humanize_timestamp(v: f64) -> Result<String, String> {
    if !v.is_finite() {
        return Ok(four_digits(v));
    }
    time_of(v).map(go_time::text)
}
