//! Numbers of the exposition formats: what Go's `strconv.ParseFloat` reads, less hexadecimal and underscores.
//!
//! [`short_value`] is the hot path: it reads the decimal numbers that nearly all samples are in one pass, exact by
//! Clinger's argument (a mantissa below 2^53 and a power of ten up to 22 are both exact floats, so one multiplication or
//! division rounds once). Everything else goes to [`float`].

use model::staleness::normal_nan;

use super::Failure;

/// Powers of ten that a float holds exactly.
const POW10: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
const EXACT_MANTISSA_MAX: u64 = 1 << 53;

/// Reads a decimal number that ends at a newline; returns it with the offset behind the newline. `None`: ask [`float`].
#[inline]
pub(crate) fn short_value(body: &[u8], at: usize) -> Option<(f64, usize)> {
    let mut i = at;
    let negative = *body.get(i)? == b'-';
    i += usize::from(negative);
    let mut mantissa: u64 = 0;
    let first = i;
    let mut b = *body.get(i)?;
    while b.is_ascii_digit() {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(b - b'0'));
        i += 1;
        b = *body.get(i)?;
    }
    let mut digits = i - first;
    let mut exponent: i32 = 0;
    if b == b'.' {
        i += 1;
        let fraction = i;
        b = *body.get(i)?;
        while b.is_ascii_digit() {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(b - b'0'));
            i += 1;
            b = *body.get(i)?;
        }
        digits += i - fraction;
        exponent = -i32::try_from(i - fraction).ok()?;
    }
    // Nineteen digits never wrap.
    if digits == 0 || digits > 19 || mantissa > EXACT_MANTISSA_MAX {
        return None;
    }
    if b == b'e' {
        i += 1;
        let minus = *body.get(i)? == b'-';
        i += usize::from(minus || *body.get(i)? == b'+');
        let mut e: i32 = 0;
        let exponent_start = i;
        b = *body.get(i)?;
        while b.is_ascii_digit() && i - exponent_start < 4 {
            e = e * 10 + i32::from(b - b'0');
            i += 1;
            b = *body.get(i)?;
        }
        if i == exponent_start {
            return None;
        }
        exponent += if minus { -e } else { e };
    }
    if b != b'\n' {
        return None;
    }
    let m = mantissa as f64;
    let v = match exponent {
        0 => m,
        1..=22 => m * POW10[exponent as usize],
        -22..=-1 => m / POW10[exponent.unsigned_abs() as usize],
        _ => return None,
    };
    Some((if negative { -v } else { v }, i + 1))
}

/// Reads a whole token. Overflow is an error, as in Go; NaN is the normal NaN.
pub(crate) fn float(token: &[u8], at: usize) -> Result<f64, Failure> {
    let bad = |why: &str| {
        let token = String::from_utf8_lossy(token);
        Failure::text(at, format!("strconv.ParseFloat: parsing {token:?}: {why}"))
    };
    let unsigned = token.strip_prefix(b"+").or_else(|| token.strip_prefix(b"-")).unwrap_or(token);
    match unsigned.first() {
        Some(b'0'..=b'9' | b'.') => {
            let v: f64 = fast_float2::parse(token).map_err(|_| bad("invalid syntax"))?;
            if v.is_infinite() { Err(bad("value out of range")) } else { Ok(v) }
        }
        Some(b'i' | b'I')
            if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") =>
        {
            Ok(if token[0] == b'-' { f64::NEG_INFINITY } else { f64::INFINITY })
        }
        Some(b'n' | b'N') if token.eq_ignore_ascii_case(b"nan") => Ok(normal_nan()),
        _ => Err(bad("invalid syntax")),
    }
}

/// Prints with `.0` where neither point nor exponent shows: how OpenMetrics writes the bounds in `le` and `quantile`.
pub(crate) fn format_openmetrics(v: f64) -> String {
    // Both zeros are one bound.
    let mut out = if v == 0.0 { "0".to_owned() } else { format_g(v) };
    if v.is_finite() && !out.contains(['.', 'e']) {
        out.push_str(".0");
    }
    out
}

/// Prints as Go's `'g'` with the shortest digits.
pub(crate) fn format_g(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{v:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    format!("{v}")
}

/// Whether a bound is surely written as [`format_openmetrics`] would: saves parsing and printing it.
pub(crate) fn is_canonical_bound(s: &[u8]) -> bool {
    if s == b"+Inf" {
        return true;
    }
    let Some(point) = memchr::memchr(b'.', s) else { return false };
    let (whole, fraction) = (&s[..point], &s[point + 1..]);
    let digits = |d: &[u8]| !d.is_empty() && d.iter().all(u8::is_ascii_digit);
    digits(whole)
        && digits(fraction)
        && whole.len() <= 6
        && fraction.len() <= 9
        && (whole == b"0" || whole[0] != b'0')
        && (fraction == b"0" || fraction.last() != Some(&b'0'))
        && !(whole == b"0" && fraction.starts_with(b"0000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_reads() {
        for (s, v) in
            [("1", 1.0), ("-1.5e3", -1500.0), ("+2", 2.0), (".5", 0.5), ("5.", 5.0), ("1e-400", 0.0)]
        {
            assert_eq!(float(s.as_bytes(), 0).expect(s), v);
        }
        for s in ["inf", "+Inf", "Infinity", "-INF"] {
            assert!(float(s.as_bytes(), 0).expect(s).is_infinite());
        }
        assert_eq!(float(b"nAn", 0).expect("nan").to_bits(), model::staleness::NORMAL_NAN_BITS);
        for s in
            ["", "+", "1e400", "0x10", "1_000", "0x1p3", "+nan", "1 ", "e5", ".", "1e", "--1", "in", "infx"]
        {
            assert!(float(s.as_bytes(), 0).is_err(), "{s}");
        }
    }

    #[test]
    fn prints_bounds_as_openmetrics() {
        for (v, s) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.005, "0.005"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "+Inf"),
            (2.5, "2.5"),
            (-1.0, "-1.0"),
            (1.5e21, "1.5e+21"),
            (1234567.5, "1.2345675e+06"),
        ] {
            assert_eq!(format_openmetrics(v), s);
        }
    }

    proptest! {
        #[test]
        fn short_and_long_way_agree(v in any::<f64>(), style in 0..3) {
            let s = match style { 0 => format!("{v}\n"), 1 => format!("{v:e}\n"), _ => format!("{v:.3}\n") };
            let token = &s.as_bytes()[..s.len() - 1];
            if let Some((short, next)) = short_value(s.as_bytes(), 0) {
                prop_assert_eq!(short.to_bits(), float(token, 0).expect("both read it").to_bits());
                prop_assert_eq!(next, s.len());
            }
        }

        #[test]
        fn short_way_reads_nothing_the_long_way_refuses(s in "[-+0-9.e]{0,12}\n") {
            if let Some((short, _)) = short_value(s.as_bytes(), 0) {
                let long = float(&s.as_bytes()[..s.len() - 1], 0).expect("long way reads it");
                prop_assert_eq!(short.to_bits(), long.to_bits());
            }
        }

        #[test]
        fn canonical_bounds_print_as_they_are(v in 0.0..2e6_f64, digits in 0..6_usize) {
            let s = format!("{v:.digits$}");
            if is_canonical_bound(s.as_bytes()) {
                prop_assert_eq!(format_openmetrics(s.parse().expect("a number")), s);
            }
        }
    }
}
