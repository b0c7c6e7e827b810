//! Parameters of requests: query string and form, times, durations, limits, matchers.
//!
//! Accepts what Prometheus accepts and says the same where it does not.

use model::Matcher;
use model::labels::Quoted;

use crate::failure::Failure;

/// Where an open start begins: the earliest time of the API.
pub(crate) const MIN_TIME_MS: i64 = (i64::MIN / 1000 + 62_135_596_801) * 1000;
/// Where an open end ends: the latest time of the API.
pub(crate) const MAX_TIME_MS: i64 = (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999;
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Parameters of one request, those of the body first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    /// How many of `pairs` came in the body.
    from_body: usize,
    /// Why a part of them could not be read.
    error: Option<String>,
}

impl Params {
    /// Reads form body and query string.
    pub(crate) fn parse(query: &str, body: &[u8]) -> Self {
        let mut p = Self::default();
        match std::str::from_utf8(body) {
            Ok(body) => p.add(body),
            Err(_) => p.error = Some("form body is not UTF-8".into()),
        }
        p.from_body = p.pairs.len();
        p.add(query);
        p
    }

    fn add(&mut self, text: &str) {
        for part in text.split('&').filter(|p| !p.is_empty()) {
            if part.contains(';') {
                self.fail("invalid semicolon separator in query".into());
                continue;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (unescape(name), unescape(value)) {
                (Ok(n), Ok(v)) => self.pairs.push((n, v)),
                (Err(e), _) | (_, Err(e)) => self.fail(e),
            }
        }
    }

    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    /// Fails when a part could not be read.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &self.error {
            None => Ok(()),
            Some(e) => Err(Failure::bad_data(format!("error parsing form values: {e}"))),
        }
    }

    /// The first value of a parameter, or the empty string.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// A parameter that is true or false, and false when it is absent.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, Failure> {
        match self.get(name) {
            "" => Ok(false),
            text => {
                parse_bool(text).map_err(|e| Failure::invalid(name, format!("unable to parse boolean: {e}")))
            }
        }
    }

    /// The first value of a parameter in the query string alone.
    pub(crate) fn get_url(&self, name: &str) -> &str {
        self.pairs[self.from_body..].iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time that may be left out.
    pub(crate) fn time_or(&self, name: &str, default_ms: i64) -> Result<i64, Failure> {
        match self.get(name) {
            "" => Ok(default_ms),
            text => parse_time(text)
                .map_err(|e| Failure::invalid(name, format!("invalid time value for '{name}': {e}"))),
        }
    }

    /// A time that must be there.
    pub(crate) fn time(&self, name: &str) -> Result<i64, Failure> {
        parse_time(self.get(name)).map_err(|e| Failure::invalid(name, e))
    }

    /// `limit`: 0 means none.
    pub(crate) fn limit(&self) -> Result<usize, Failure> {
        match self.get("limit") {
            "" => Ok(0),
            text => match parse_int(text) {
                Ok(n) => {
                    usize::try_from(n).map_err(|_| Failure::invalid("limit", "limit must be non-negative"))
                }
                Err(e) => Err(Failure::invalid("limit", e)),
            },
        }
    }

    /// A limit of the metadata endpoints: -1 means none.
    pub(crate) fn number_or(&self, name: &str, default: i64) -> Result<i64, Failure> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_int(text).map_err(|_| Failure::bad_data(format!("{name} must be a number"))),
        }
    }

    /// The selectors of `match[]`; each must ask for something.
    pub(crate) fn matchers(&self) -> Result<Vec<Vec<Matcher>>, Failure> {
        let mut sets = Vec::new();
        for text in self.all("match[]") {
            sets.push(parse_selector(text).map_err(Failure::bad_data)?);
        }
        if sets.iter().any(|set| set.iter().all(Matcher::matches_empty)) {
            return Err(Failure::bad_data("match[] must contain at least one non-empty matcher"));
        }
        Ok(sets)
    }
}

/// The matchers of a selector such as `up{job="x"}`.
pub(crate) fn parse_selector(text: &str) -> Result<Vec<Matcher>, String> {
    promql::parser::parse_selector(text).map_err(|e| e.to_string())
}

/// Percent escapes and plus signs of a form.
fn unescape(s: &str) -> Result<String, String> {
    if !s.contains(['%', '+']) {
        return Ok(s.to_owned());
    }
    let b = s.as_bytes();
    let mut out = Vec::with_capacity(b.len());
    let mut i = 0;
    while i < b.len() {
        match b[i] {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = b.get(i + 1..i + 3).filter(|h| h.iter().all(u8::is_ascii_hexdigit));
                let Some(hex) = hex else {
                    let end = (i + 3).min(b.len());
                    let bad = String::from_utf8_lossy(&b[i..end]);
                    return Err(format!("invalid URL escape {}", Quoted(&bad)));
                };
                out.push(hex_value(hex[0]) << 4 | hex_value(hex[1]));
                i += 2;
            }
            c => out.push(c),
        }
        i += 1;
    }
    String::from_utf8(out).map_err(|_| "parameter is not UTF-8".into())
}

pub(crate) fn hex_value(b: u8) -> u8 {
    match b {
        b'0'..=b'9' => b - b'0',
        b'a'..=b'f' => b - b'a' + 10,
        _ => b.to_ascii_lowercase().wrapping_sub(b'a').wrapping_add(10),
    }
}

/// A Unix time in seconds, or RFC 3339; in milliseconds.
///
/// # Errors
/// When it is neither.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Some(t) = parse_float(text)
        && t.is_finite()
    {
        let seconds = t.trunc();
        let ms = ((t - seconds) * 1000.0).round();
        return Ok((seconds as i64).saturating_mul(1000).saturating_add(ms as i64));
    }
    if let Ok(t) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(t.timestamp_millis());
    }
    match text {
        MIN_TIME_TEXT => Ok(MIN_TIME_MS),
        MAX_TIME_TEXT => Ok(MAX_TIME_MS),
        _ => Err(format!("cannot parse {} to a valid timestamp", Quoted(text))),
    }
}

/// Seconds as a number, or a duration such as `1m`; in nanoseconds.
pub(crate) fn parse_duration_ns(text: &str) -> Result<i64, String> {
    if let Some(seconds) = parse_float(text) {
        let ns = seconds * 1e9;
        if ns.is_nan() || ns > i64::MAX as f64 || ns < i64::MIN as f64 {
            return Err(format!("cannot parse {} to a valid duration. It overflows int64", Quoted(text)));
        }
        return Ok(ns as i64);
    }
    model::duration::parse_ms(text)
        .ok()
        .and_then(|ms| ms.checked_mul(1_000_000))
        .ok_or_else(|| format!("cannot parse {} to a valid duration", Quoted(text)))
}

fn parse_float(text: &str) -> Option<f64> {
    // `f64::from_str` takes what Go takes, hexadecimal floats apart.
    text.parse().ok()
}

/// An integer, with the texts of the field's usual parser.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|e| {
        let why = match e.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {why}", Quoted(text))
    })
}

/// A truth value as Go reads it.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", Quoted(text))),
    }
}

/// The name behind a `U__` escape: `_hex_` is a code point, `__` an underscore. What is no valid escape stays.
pub(crate) fn unescape_name(name: &str) -> String {
    fn decode(escaped: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = escaped;
        while let Some(at) = rest.find('_') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('_') {
                out.push('_');
                rest = after;
                continue;
            }
            let end = rest.find('_').filter(|end| *end <= 6)?;
            let hex = &rest[..end];
            // No digits at all is code point 0 to the field's decoder, which a label name cannot hold anyway.
            if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Some(out)
    }
    name.strip_prefix("U__").and_then(decode).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_like_go_reads_them() {
        let p = Params::parse("a=1&b=%7Bx%3D%22y%22%7D&c=a+b&a=3", b"a=2");
        assert_eq!((p.get("a"), p.get("b"), p.get("c"), p.get("d")), ("2", "{x=\"y\"}", "a b", ""));
        assert_eq!(p.all("a").collect::<Vec<_>>(), ["2", "1", "3"]);
        assert_eq!(p.get_url("a"), "1");
        assert!(p.check().is_ok());
        for bad in ["a=%zz", "a=%4", "a;b", "a=%ff"] {
            assert!(Params::parse(bad, b"").check().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_durations() {
        for (text, ms) in [
            ("0", 0),
            ("1.5", 1500),
            ("-1.5", -1500),
            ("1435781451.781", 1_435_781_451_781),
            ("1e3", 1_000_000),
            ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
            ("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555),
            (MIN_TIME_TEXT, MIN_TIME_MS),
            (MAX_TIME_TEXT, MAX_TIME_MS),
        ] {
            assert_eq!(parse_time(text), Ok(ms), "{text}");
        }
        for bad in ["", "foo", "30s", "NaN", "inf", "2015-06-03"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        for (text, ns) in
            [("1", 1_000_000_000), ("0.5", 500_000_000), ("1m", 60_000_000_000), ("100ms", 100_000_000)]
        {
            assert_eq!(parse_duration_ns(text), Ok(ns), "{text}");
        }
        for bad in ["", "abc", "1e99", "NaN", "10x"] {
            assert!(parse_duration_ns(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn escaped_names() {
        for (escaped, name) in [
            ("U__http_2e_method", "http.method"),
            ("U__a__b", "a_b"),
            ("U___1F600_x", "\u{1F600}x"),
            ("U__no_zz_", "U__no_zz_"),
            ("U__open_2e", "U__open_2e"),
            ("U___D800_", "U___D800_"),
            ("plain_2e_", "plain_2e_"),
        ] {
            assert_eq!(unescape_name(escaped), name, "{escaped}");
        }
    }
}
