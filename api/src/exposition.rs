//! `/metrics`: the registry in the text format, and what the text format demands of names, values and numbers.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use prometheus::{Encoder, TextEncoder};

use crate::app::{App, Request};
use crate::body::BodyOut;
use crate::json::{write_exponent, write_plain_float};

/// `/metrics`
pub(crate) fn metrics(app: &Arc<App>, _request: &Request, mut out: BodyOut) {
    let families = app.deps.registry.gather();
    let encoder = TextEncoder::new();
    if let Err(e) = encoder.encode(&families, out.buf()) {
        tracing::error!("encode metrics: {e}");
        out.buf().clear();
        out.set_status(StatusCode::INTERNAL_SERVER_ERROR);
        out.raw("metrics cannot be encoded, see the log\n");
        return out.finish();
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    out.headers().insert(CONTENT_TYPE, kind);
    out.finish();
}

/// A number of the text format: an exponent below 1e-4 and from 1e6 on.
pub(crate) fn write_number(out: &mut Vec<u8>, f: f64) {
    let abs = f.abs();
    if abs != 0.0 && f.is_finite() && !(1e-4..1e6).contains(&abs) {
        write_exponent(out, f);
    } else {
        write_plain_float(out, f);
    }
}

/// A label value in quotes.
pub(crate) fn write_label_value(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    for b in value.bytes() {
        match b {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            b => out.push(b),
        }
    }
    out.push(b'"');
}

/// A name in which everything the classic formats do not take is an underscore.
pub(crate) fn underscored(name: &str, colons: bool) -> String {
    name.chars()
        .enumerate()
        .map(|(i, c)| {
            let ok =
                c.is_ascii_alphabetic() || c == '_' || (c == ':' && colons) || (i > 0 && c.is_ascii_digit());
            if ok { c } else { '_' }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        for (f, text) in [
            (1.0, "1"),
            (123456.5, "123456.5"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e21, "1e+21"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            let mut out = Vec::new();
            write_number(&mut out, f);
            assert_eq!(String::from_utf8(out).expect("text"), text);
        }
        assert_eq!(underscored("http.status:x", true), "http_status:x");
        assert_eq!(underscored("1é", false), "__");
    }
}
