//! Numbers as Go prints them, for labels and annotations.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#count_values> (labels), <https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview>
//! (annotations).

/// The shortest text without exponent that reads back to the same number (`'f', -1`).
pub(crate) fn format_f(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    format!("{v}")
}

/// The shortest text, with exponent when that is below -4 or at least 6 (`%g`).
pub(crate) fn format_g(v: f64) -> String {
    format_general(v, None)
}

/// `%.<digits>g`
pub(crate) fn format_g_digits(v: f64, digits: usize) -> String {
    format_general(v, Some(digits))
}

fn format_general(v: f64, digits: Option<usize>) -> String {
    if !v.is_finite() {
        return format_f(v);
    }
    if v == 0.0 {
        return if v.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let scientific = match digits {
        Some(d) => format!("{:.*e}", d.saturating_sub(1), v),
        None => format!("{v:e}"),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    // With the shortest form, Go takes the exponent from six digits before the point on; with a precision, from that.
    let limit = digits.map_or(6, |d| d as i32);
    if exponent < -4 || exponent >= limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{trimmed}e{sign}{:02}", exponent.abs());
    }
    match digits {
        None => format_f(v),
        Some(_) => {
            let rounded: f64 = scientific.parse().unwrap_or(v);
            format_f(rounded)
        }
    }
}

/// A float as OpenMetrics writes it: integers keep a `.0`.
pub(crate) fn format_open_metrics(v: f64) -> String {
    if v.is_nan() || v.is_infinite() {
        return format_f(v);
    }
    // A negative zero has no sign.
    let text = format_g(v + 0.0);
    if text.contains(['e', '.']) { text } else { format!("{text}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        for (v, g) in [
            (0.5, "0.5"),
            (1e21, "1e+21"),
            (1e20, "1e+20"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5, "-1.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(format_g(v), g);
        }
        assert_eq!(format_g_digits(123.456, 2), "1.2e+02");
        assert_eq!(format_g_digits(10.0, 2), "10");
        assert_eq!(format_f(1e21), "1000000000000000000000");
        assert_eq!(format_open_metrics(1.0), "1.0");
        assert_eq!(format_open_metrics(0.9), "0.9");
        assert_eq!(format_open_metrics(-0.0), "0.0");
    }
}
