//! JSON as Prometheus prints it, written straight into a [`BodyOut`].
//!
//! Not a general serializer: the caller writes brackets and commas, this module knows numbers, strings, times and the
//! shapes that occur often (labels, points, histograms). Two kinds of strings: inside labels only what JSON demands is
//! escaped, everywhere else `<`, `>`, `&` too, because that is what clients of a stock server see.

use model::histogram::Bucket;
use model::{FloatHistogram, Labels};

use crate::body::BodyOut;

impl BodyOut {
    /// Bytes as they are.
    pub(crate) fn raw(&mut self, text: &str) {
        self.buf().extend_from_slice(text.as_bytes());
    }

    /// `"name":`; the name needs no escapes.
    pub(crate) fn key(&mut self, name: &str) {
        let b = self.buf();
        b.extend_from_slice(b"\"");
        b.extend_from_slice(name.as_bytes());
        b.extend_from_slice(b"\":");
    }

    /// A string with `<`, `>`, `&` escaped.
    pub(crate) fn string(&mut self, s: &str) {
        write_string(self.buf(), s, true);
    }

    /// A list of strings.
    pub(crate) fn strings<'a>(&mut self, list: impl IntoIterator<Item = &'a str>) {
        self.list(list, |out, s| out.string(s));
    }

    /// A list.
    pub(crate) fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.raw("[");
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.raw(",");
            }
            each(self, item);
            self.checkpoint();
            if self.is_dead() {
                return;
            }
        }
        self.raw("]");
    }

    /// An integer.
    pub(crate) fn int(&mut self, n: impl itoa::Integer) {
        self.buf().extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    }

    /// `true` or `false`.
    pub(crate) fn bool(&mut self, b: bool) {
        self.raw(if b { "true" } else { "false" });
    }

    /// A number; a NaN or infinity, which JSON has no word for, becomes 0.
    pub(crate) fn number(&mut self, f: f64) {
        write_float(self.buf(), if f.is_finite() { f } else { 0.0 });
    }

    /// A sample value: a number in quotes.
    pub(crate) fn value(&mut self, f: f64) {
        let b = self.buf();
        b.extend_from_slice(b"\"");
        write_float(b, f);
        b.extend_from_slice(b"\"");
    }

    /// Seconds with up to three decimals.
    pub(crate) fn seconds(&mut self, timestamp_ms: i64) {
        write_seconds(self.buf(), timestamp_ms);
    }

    /// A time in RFC 3339, or the zero time of the API when there is none.
    pub(crate) fn time(&mut self, ms: Option<i64>) {
        let text = ms.map_or_else(zero_time, rfc3339);
        self.raw("\"");
        self.raw(&text);
        self.raw("\"");
    }

    /// An object with the labels.
    pub(crate) fn labels(&mut self, labels: &Labels) {
        let b = self.buf();
        b.extend_from_slice(b"{");
        for (i, (n, v)) in labels.iter().enumerate() {
            if i > 0 {
                b.extend_from_slice(b",");
            }
            write_string(b, n, false);
            b.extend_from_slice(b":");
            write_string(b, v, false);
        }
        b.extend_from_slice(b"}");
    }

    /// `[1435781451.781,"1"]`.
    pub(crate) fn float_point(&mut self, timestamp_ms: i64, value: f64) {
        let b = self.buf();
        b.extend_from_slice(b"[");
        write_seconds(b, timestamp_ms);
        b.extend_from_slice(b",\"");
        write_float(b, value);
        b.extend_from_slice(b"\"]");
    }

    /// `[1435781451.781,{…}]`.
    pub(crate) fn histogram_point(&mut self, timestamp_ms: i64, h: &FloatHistogram) {
        self.raw("[");
        self.seconds(timestamp_ms);
        self.raw(",");
        self.histogram(h);
        self.raw("]");
    }

    fn histogram(&mut self, h: &FloatHistogram) {
        self.raw("{\"count\":");
        self.value(h.count);
        self.raw(",\"sum\":");
        self.value(h.sum);
        let mut found = false;
        for bucket in h.all_buckets() {
            if bucket.count == 0.0 {
                continue;
            }
            self.raw(if found { "," } else { ",\"buckets\":[" });
            found = true;
            self.bucket(&bucket);
        }
        self.raw(if found { "]}" } else { "}" });
    }

    fn bucket(&mut self, bucket: &Bucket) {
        let boundaries = match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => "[0,",
            (true, false) => "[1,",
            (false, false) => "[2,",
            (true, true) => "[3,",
        };
        self.raw(boundaries);
        self.value(bucket.lower);
        self.raw(",");
        self.value(bucket.upper);
        self.raw(",");
        self.value(bucket.count);
        self.raw("]");
    }
}

/// Milliseconds as seconds with up to three decimals.
pub(crate) fn write_seconds(out: &mut Vec<u8>, timestamp_ms: i64) {
    let mut ints = itoa::Buffer::new();
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    let ms = timestamp_ms.unsigned_abs();
    out.extend_from_slice(ints.format(ms / 1000).as_bytes());
    let fraction = ms % 1000;
    if fraction != 0 {
        let digits = [b'.', digit(fraction / 100), digit(fraction / 10 % 10), digit(fraction % 10)];
        out.extend_from_slice(&digits);
    }
}

fn digit(n: u64) -> u8 {
    b'0' + n as u8
}

/// The shortest text that reads back as the same float: plain within `[1e-6, 1e21)`, else with an exponent.
pub(crate) fn write_float(out: &mut Vec<u8>, f: f64) {
    let abs = f.abs();
    if abs != 0.0 && !(1e-6..1e21).contains(&abs) && f.is_finite() {
        return write_exponent(out, f);
    }
    write_plain_float(out, f);
}

/// The shortest text that reads back as the same float, never with an exponent.
pub(crate) fn write_plain_float(out: &mut Vec<u8>, f: f64) {
    if f.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if f.is_infinite() {
        out.extend_from_slice(if f > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if f.trunc() == f && f.abs() < 1e15 {
        // Most samples are whole numbers. The sign of zero is the one thing that the integer would lose.
        if f == 0.0 && f.is_sign_negative() {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(f as i64).as_bytes());
    } else {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(f);
        if text.contains('e') {
            out.extend_from_slice(f.to_string().as_bytes());
        } else {
            out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
        }
    }
}

/// Always with an exponent of at least two digits and a sign: `1.5e+21`, `1e-07`.
pub(crate) fn write_exponent(out: &mut Vec<u8>, f: f64) {
    if !f.is_finite() {
        return write_plain_float(out, f);
    }
    let text = format!("{f:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(d) => ('-', d),
        None => ('+', exponent),
    };
    let pad = if digits.len() < 2 { "0" } else { "" };
    out.extend_from_slice(format!("{mantissa}e{sign}{pad}{digits}").as_bytes());
}

/// A JSON string. `html` escapes `<`, `>` and `&` and the two line separators of JavaScript.
pub(crate) fn write_string(out: &mut Vec<u8>, s: &str, html: bool) {
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut start = 0;
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        let separator = html && b == 0xe2 && matches!(bytes.get(i..i + 3), Some([_, 0x80, 0xa8 | 0xa9]));
        if !separator && (b >= 0x20 && b != b'"' && b != b'\\' && !(html && matches!(b, b'<' | b'>' | b'&')))
        {
            i += 1;
            continue;
        }
        out.extend_from_slice(&bytes[start..i]);
        if separator {
            out.extend_from_slice(if bytes[i + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            i += 3;
        } else {
            write_escape(out, b);
            i += 1;
        }
        start = i;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

fn write_escape(out: &mut Vec<u8>, b: u8) {
    match b {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
    }
}

/// The API's word for "no time".
pub(crate) fn zero_time() -> String {
    "0001-01-01T00:00:00Z".into()
}

/// Milliseconds since the epoch in RFC 3339, UTC, without trailing zeros.
pub(crate) fn rfc3339(ms: i64) -> String {
    let Some(time) = chrono::DateTime::from_timestamp_millis(ms) else {
        return zero_time();
    };
    let mut text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    let fraction = ms.rem_euclid(1000);
    if fraction != 0 {
        text.push_str(format!(".{fraction:03}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn floats_read_like_those_of_a_stock_server() {
        for (f, plain, api, exponent) in [
            (0.0, "0", "0", "0e+00"),
            (-0.0, "-0", "-0", "-0e+00"),
            (1.0, "1", "1", "1e+00"),
            (-1.5, "-1.5", "-1.5", "-1.5e+00"),
            (0.1, "0.1", "0.1", "1e-01"),
            (1e-6, "0.000001", "0.000001", "1e-06"),
            (1.5e-7, "0.00000015", "1.5e-07", "1.5e-07"),
            (1e20, "100000000000000000000", "100000000000000000000", "1e+20"),
            (1e21, "1000000000000000000000", "1e+21", "1e+21"),
            (123_456_789_012_345_680.0, "123456789012345680", "123456789012345680", "1.2345678901234568e+17"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf"),
            (f64::NAN, "NaN", "NaN", "NaN"),
            (2.5e-300, &format!("{}", 2.5e-300), "2.5e-300", "2.5e-300"),
        ] {
            assert_eq!(text(|o| write_plain_float(o, f)), plain);
            assert_eq!(text(|o| write_float(o, f)), api);
            assert_eq!(text(|o| write_exponent(o, f)), exponent);
        }
    }

    #[test]
    fn times_have_no_trailing_zeros() {
        for (ms, seconds, rfc) in [
            (0, "0", "1970-01-01T00:00:00Z"),
            (1, "0.001", "1970-01-01T00:00:00.001Z"),
            (-1, "-0.001", "1969-12-31T23:59:59.999Z"),
            (10, "0.010", "1970-01-01T00:00:00.01Z"),
            (1_435_781_451_781, "1435781451.781", "2015-07-01T20:10:51.781Z"),
            (i64::MIN, "-9223372036854775.808", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(text(|o| write_seconds(o, ms)), seconds);
            assert_eq!(rfc3339(ms), rfc);
        }
    }

    #[test]
    fn strings_escape_what_json_demands_and_html_where_wanted() {
        let s = "a\"b\\c\n\u{1}<&>\u{2028}é\u{7f}";
        assert_eq!(text(|o| write_string(o, s, false)), "\"a\\\"b\\\\c\\n\\u0001<&>\u{2028}é\u{7f}\"");
        assert_eq!(
            text(|o| write_string(o, s, true)),
            "\"a\\\"b\\\\c\\n\\u0001\\u003c\\u0026\\u003e\\u2028é\u{7f}\""
        );
        let back: String = serde_json::from_str(&text(|o| write_string(o, s, true))).expect("JSON");
        assert_eq!(back, s);
    }
}
