//! Bodies within a limit, decompressed as they come.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A frame may ask for a window of 128 MiB in its first bytes; over HTTP there are none above 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
    /// As many bytes as are taken, or more, counted after decompression.
    #[error("body size limit exceeded")]
    TooLarge,
    /// It does not decompress.
    #[error("{0}")]
    Encoding(String),
}

/// Reads a body of the given `Content-Encoding` that must be shorter than `limit` bytes. An encoding that is not known
/// leaves the bytes as they are. `expected_len` is a guess that saves copies.
///
/// # Errors
/// When it breaks off, does not decompress or is too long.
pub async fn read(
    mut body: Incoming,
    encoding: &str,
    limit: u64,
    expected_len: usize,
) -> Result<Vec<u8>, BodyError> {
    let out = Limited { bytes: Vec::with_capacity(expected_len), limit, exceeded: false };
    let mut sink = Sink::new(out, encoding)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Broken(broken(&e)))?;
        if let Some(data) = frame.data_ref() {
            sink.write(data)?;
        }
    }
    sink.finish()
}

/// Reads a body as it is, and of a longer one its first `limit` bytes.
///
/// # Errors
/// When it breaks off.
pub async fn collect_at_most(mut body: Incoming, limit: usize) -> Result<Bytes, String> {
    let mut out = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|e| broken(&e))?.into_data().unwrap_or_default();
        let room = limit - out.len();
        out.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() >= room {
            break;
        }
    }
    Ok(out.freeze())
}

/// What to say of a body that broke off.
#[must_use]
pub fn broken(e: &hyper::Error) -> String {
    if e.is_incomplete_message() { "unexpected EOF".into() } else { crate::error::reason(e) }
}

/// Bytes up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: u64,
    exceeded: bool,
}

impl Write for Limited {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if (self.bytes.len() + data.len()) as u64 >= self.limit {
            self.exceeded = true;
            return Err(std::io::Error::other("body size limit exceeded"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Sink {
    Plain(Limited),
    Gzip(Box<MultiGzDecoder<Limited>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Limited>>),
}

impl Sink {
    fn new(out: Limited, encoding: &str) -> Result<Self, BodyError> {
        Ok(match encoding {
            "gzip" => Self::Gzip(Box::new(MultiGzDecoder::new(out))),
            "zstd" => {
                let decoder = zstd::stream::write::Decoder::new(out).and_then(|mut decoder| {
                    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                    Ok(decoder)
                });
                Self::Zstd(Box::new(decoder.map_err(|e| BodyError::Encoding(format!("zstd: {e}")))?))
            }
            _ => Self::Plain(out),
        })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), BodyError> {
        match self {
            Self::Plain(out) => out.write_all(data).map_err(|_| BodyError::TooLarge),
            Self::Gzip(decoder) => {
                let result = decoder.write_all(data);
                result.map_err(|e| failure(decoder.get_ref(), "gzip", &e))
            }
            Self::Zstd(decoder) => {
                let result = decoder.write_all(data);
                result.map_err(|e| failure(decoder.get_ref(), "zstd", &e))
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, BodyError> {
        match self {
            Self::Plain(out) => Ok(out.bytes),
            Self::Gzip(mut decoder) => {
                let result = decoder.try_finish();
                result.map_err(|e| failure(decoder.get_ref(), "gzip", &e))?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
            Self::Zstd(mut decoder) => {
                let result = decoder.flush();
                result.map_err(|e| failure(decoder.get_ref(), "zstd", &e))?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }
}

fn failure(out: &Limited, format: &str, e: &std::io::Error) -> BodyError {
    match e.kind() {
        _ if out.exceeded => BodyError::TooLarge,
        std::io::ErrorKind::UnexpectedEof => BodyError::Encoding("unexpected EOF".into()),
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData if format == "gzip" => {
            BodyError::Encoding(format!("gzip: {e}"))
        }
        _ => BodyError::Encoding(format!("{format}: {e}")),
    }
}

/// A body that comes in parts of some bytes, for tests and `fuzz/`.
///
/// # Errors
/// As for [`read`], but that it cannot break off.
#[cfg(any(test, feature = "fuzzing"))]
pub fn decode(encoding: &str, body: &[u8], part_len: usize, limit: u64) -> Result<Vec<u8>, BodyError> {
    let mut sink = Sink::new(Limited { bytes: Vec::new(), limit, exceeded: false }, encoding)?;
    for part in body.chunks(part_len.max(1)) {
        sink.write(part)?;
    }
    sink.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoding: &str, body: &[u8], limit: u64) -> Result<Vec<u8>, BodyError> {
        super::decode(encoding, body, 7, limit)
    }

    #[test]
    fn bodies_are_decompressed_within_their_limit() {
        let plain = b"up 1\n".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).expect("in memory");
        let gzip = gzip.finish().expect("in memory");
        let zstd = zstd::encode_all(plain.as_slice(), 1).expect("in memory");
        for (encoding, body) in [("", &plain), ("gzip", &gzip), ("zstd", &zstd)] {
            assert_eq!(decode(encoding, body, 501).as_ref(), Ok(&plain), "{encoding}");
            assert_eq!(decode(encoding, body, 500), Err(BodyError::TooLarge), "{encoding}");
        }
        assert!(matches!(decode("gzip", &plain, 1 << 20), Err(BodyError::Encoding(_))));
        // A frame that wants a window of 16 MiB (RFC 8878, section 3.1.1.1.2), and an empty block.
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0, (24 - 10) << 3, 1, 0, 0];
        assert!(matches!(decode("zstd", &wide, 1 << 20), Err(BodyError::Encoding(_))));
        assert!(matches!(decode("gzip", &gzip[..gzip.len() - 9], 1 << 20), Err(BodyError::Encoding(_))));
    }
}
