//! Unary calls of gRPC over HTTP/2: a frame of five bytes before each message, and the status behind it.
//!
//! Spec: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use http::{HeaderMap, StatusCode};

/// Flag, and length of the message.
const HEADER_LEN_BYTES: usize = 5;

/// A message in its frame.
pub(crate) fn frame(message: &[u8], compressed: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN_BYTES + message.len());
    out.push(u8::from(compressed));
    // A batch has 512 spans, which stay far below 4 GiB.
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// The message of an answer's only frame; empty when there is none, or one that is compressed, which was not asked for.
pub(crate) fn message(body: &[u8]) -> &[u8] {
    match body.split_at_checked(HEADER_LEN_BYTES) {
        Some((&[0, a, b, c, d], rest)) => {
            rest.get(..u32::from_be_bytes([a, b, c, d]) as usize).unwrap_or_default()
        }
        _ => &[],
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u8,
    pub(crate) message: String,
}

const OK: u8 = 0;
const UNKNOWN: u8 = 2;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const PERMISSION_DENIED: u8 = 7;
const UNAUTHENTICATED: u8 = 16;

/// Names by number.
const NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl Status {
    /// The status of an answer: behind its body, in its head when there is no body, or that of HTTP when it is not gRPC
    /// that answered.
    pub(crate) fn of(http: StatusCode, head: &HeaderMap, trailers: Option<&HeaderMap>) -> Self {
        let found = trailers.into_iter().chain([head]).find_map(|h| {
            let code = h.get("grpc-status")?.to_str().ok()?.parse().ok()?;
            let message = h.get("grpc-message").map_or(&b""[..], |m| m.as_bytes());
            let message = percent_encoding::percent_decode(message).decode_utf8_lossy().into_owned();
            Some(Self { code, message })
        });
        found.unwrap_or_else(|| {
            let code = match http.as_u16() {
                400 => INTERNAL,
                401 => UNAUTHENTICATED,
                403 => PERMISSION_DENIED,
                404 => UNIMPLEMENTED,
                429 | 502 | 503 | 504 => UNAVAILABLE,
                _ => UNKNOWN,
            };
            Self { code, message: format!("the answer has no status of gRPC; that of HTTP is {http}") }
        })
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.code == OK
    }

    /// Whether the same call may succeed later. One that exhausted a resource may not, unless the server says when.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.code, 1 | 4 | 10 | 11 | UNAVAILABLE | 15) && self.code != RESOURCE_EXHAUSTED
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = NAMES.get(usize::from(self.code)).copied().unwrap_or("Unknown");
        write!(f, "rpc error: code = {name} desc = {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn messages_are_framed() {
        assert_eq!(frame(b"abc", true), [1, 0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(message(&frame(b"abc", false)), b"abc");
        for broken in [&b""[..], &[0, 0, 0], &frame(b"abc", true), &frame(b"abc", false)[..7]] {
            assert_eq!(message(broken), b"");
        }
    }

    #[test]
    fn a_status_is_where_it_is() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(k, v)| (http::HeaderName::from_static(k), HeaderValue::from_static(v)))
                .collect()
        };
        let (none, ok): (HeaderMap, HeaderMap) = (HeaderMap::new(), of(&[("grpc-status", "0")]));
        let away: HeaderMap = of(&[("grpc-status", "14"), ("grpc-message", "not%20now")]);
        assert!(Status::of(StatusCode::OK, &none, Some(&ok)).is_ok());
        let status = Status::of(StatusCode::OK, &away, None);
        assert!(status.may_pass());
        assert_eq!(status.to_string(), "rpc error: code = Unavailable desc = not now");
        for (http, code, passes) in [(503, 14, true), (404, 12, false), (200, 2, false)] {
            let status = Status::of(StatusCode::from_u16(http).expect("a status"), &none, None);
            assert_eq!((status.code, status.may_pass()), (code, passes));
        }
    }
}
