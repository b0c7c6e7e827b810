//! Request lines as people type them: `curl -g 'host/api/v1/query?query=up{job="x"}'` sends the quotes as they are.
//!
//! They do not belong there (RFC 3986, section 3.4), and the parser underneath refuses the request with an empty answer;
//! Prometheus takes it. [`LenientTarget`] percent-encodes `"`, `<` and `>` in request lines on their way in and changes nothing
//! else. It follows a connection up to the first request with a body; what comes after that is passed on as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once while request lines are looked at.
const STEP_LEN_BYTES: usize = 4096;

/// A stream whose request lines are mended.
pub(crate) struct LenientTarget<S> {
    stream: S,
    mender: Mender,
    /// Mended bytes that the reader has not taken yet, from `taken` on.
    mended: Vec<u8>,
    taken: usize,
}

impl<S> LenientTarget<S> {
    /// Mends what comes from `stream`.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, mender: Mender::default(), mended: Vec::new(), taken: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientTarget<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken == this.mended.len() {
            if this.mender.place == Place::Beyond {
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            let mut step = [0; STEP_LEN_BYTES];
            let mut read = ReadBuf::new(&mut step);
            match Pin::new(&mut this.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            this.mended.clear();
            this.taken = 0;
            this.mender.push(read.filled(), &mut this.mended);
        }
        let n = (this.mended.len() - this.taken).min(buf.remaining());
        buf.put_slice(&this.mended[this.taken..this.taken + n]);
        this.taken += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LenientTarget<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Where in a connection the next byte lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In a request line.
    #[default]
    RequestLine,
    /// In the header lines after it.
    Headers,
    /// Behind a head that announced a body.
    Beyond,
}

/// Follows the heads of requests byte by byte.
#[derive(Debug, Default)]
struct Mender {
    place: Place,
    /// Start of the current line, in lower case: enough to know the headers that announce a body.
    line: Vec<u8>,
    has_body: bool,
}

/// Length of the longest name that announces a body, its colon included.
const NAME_LEN_BYTES: usize = "transfer-encoding:".len();

impl Mender {
    /// Appends `bytes`, mended, to `out`.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for (i, b) in bytes.iter().enumerate() {
            match (self.place, b) {
                (Place::Beyond, _) => {
                    out.extend_from_slice(&bytes[i..]);
                    return;
                }
                (Place::RequestLine, b'"') => out.extend_from_slice(b"%22"),
                (Place::RequestLine, b'<') => out.extend_from_slice(b"%3C"),
                (Place::RequestLine, b'>') => out.extend_from_slice(b"%3E"),
                _ => out.push(*b),
            }
            if *b == b'\n' {
                self.end_line();
            } else if *b != b'\r' && self.line.len() < NAME_LEN_BYTES {
                self.line.push(b.to_ascii_lowercase());
            }
        }
    }

    fn end_line(&mut self) {
        let announces = [b"content-length:".as_slice(), b"transfer-encoding:", b"upgrade:"];
        match self.place {
            // Empty lines before a request line are allowed and mean nothing.
            Place::RequestLine if self.line.is_empty() => {}
            Place::RequestLine => self.place = Place::Headers,
            Place::Headers if self.line.is_empty() => {
                self.place = if self.has_body { Place::Beyond } else { Place::RequestLine };
            }
            Place::Headers => self.has_body |= announces.iter().any(|name| self.line.starts_with(name)),
            Place::Beyond => {}
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one piece and byte by byte.
    fn check(text: &str, expect: &str) {
        for step in [text.len(), 1, 7] {
            let (mut mender, mut out) = (Mender::default(), Vec::new());
            text.as_bytes().chunks(step).for_each(|piece| mender.push(piece, &mut out));
            assert_eq!(String::from_utf8_lossy(&out), expect);
        }
    }

    #[test]
    fn only_request_lines_are_mended() {
        check(
            "\r\nGET /q?query=up{a=\"b\"}<1 HTTP/1.1\r\nX: \"<>\"\r\n\r\nGET /\">\" HTTP/1.1\r\n\r\n",
            "\r\nGET /q?query=up{a=%22b%22}%3C1 HTTP/1.1\r\nX: \"<>\"\r\n\r\nGET /%22%3E%22 HTTP/1.1\r\n\r\n",
        );
    }

    #[test]
    fn bodies_and_what_follows_them_stay() {
        check(
            "POST /\" HTTP/1.1\r\nContent-Length: 9\r\n\r\na=\"b\"\n\"<\nGET /\" HTTP/1.1\r\n\r\n",
            "POST /%22 HTTP/1.1\r\nContent-Length: 9\r\n\r\na=\"b\"\n\"<\nGET /\" HTTP/1.1\r\n\r\n",
        );
        check("P / H\nTRANSFER-ENCODING: chunked\n\n\"\"\n", "P / H\nTRANSFER-ENCODING: chunked\n\n\"\"\n");
    }
}
