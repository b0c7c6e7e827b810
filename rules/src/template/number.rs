//! Numbers as Go's `strconv` and `fmt` write them.

/// `%g` with the fewest digits that tell the number from its neighbours: with an exponent below -4 and from 6 on.
pub(super) fn shortest(v: f64) -> String {
    if let Some(special) = special(v) {
        return special.to_owned();
    }
    let text = format!("{v:e}");
    let exponent = exponent_of(&text);
    if (-4..6).contains(&exponent) { v.to_string() } else { go_exponent(&text) }
}

/// `%e`, `%f` or `%g` with so many digits.
pub(super) fn with_precision(v: f64, verb: char, digits: usize) -> String {
    if let Some(special) = special(v) {
        return special.to_owned();
    }
    match verb {
        'e' => go_exponent(&format!("{v:.digits$e}")),
        'f' => format!("{v:.digits$}"),
        _ => significant(v, digits.max(1)),
    }
}

/// `%e`, `%f` or `%g` with as many digits as are needed.
pub(super) fn with_any_precision(v: f64, verb: char) -> String {
    if let Some(special) = special(v) {
        return special.to_owned();
    }
    match verb {
        'e' => go_exponent(&format!("{v:e}")),
        'f' => v.to_string(),
        _ => shortest(v),
    }
}

/// As Go's `%.4g`.
pub(super) fn four_digits(v: f64) -> String {
    with_precision(v, 'g', 4)
}

fn special(v: f64) -> Option<&'static str> {
    if v.is_nan() {
        Some("NaN")
    } else if v.is_infinite() {
        Some(if v > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

fn exponent_of(text: &str) -> i32 {
    let (_, exponent) = text.split_once('e').expect("`e` formatting writes an exponent");
    exponent.parse().expect("the exponent is a small integer")
}

fn significant(v: f64, digits: usize) -> String {
    let rounded = format!("{v:.*e}", digits - 1);
    let exponent = exponent_of(&rounded);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    if (-4..limit).contains(&exponent) {
        let places = usize::try_from(limit - 1 - exponent).unwrap_or(0);
        return trim(&format!("{v:.places$}"));
    }
    let (mantissa, _) = rounded.split_once('e').expect("`e` formatting writes an exponent");
    go_exponent(&format!("{}e{exponent}", trim(mantissa)))
}

/// `1e5` as `1e+05`.
fn go_exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').expect("the text has an exponent");
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}
