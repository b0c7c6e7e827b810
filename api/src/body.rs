//! Bodies of answers: how a blocking handler writes one and how hyper reads it.
//!
//! A handler writes into a [`BodyOut`] and calls [`BodyOut::checkpoint`] now and then. A small body goes out whole, with
//! its length. Once a body outgrows [`FLUSH_BYTES`] the head is sent and the rest follows piece by piece through a short
//! channel, so that a large answer never lies in memory as text and a slow client holds up only its own handler; one that
//! takes nothing for `stall_timeout` is given up. A body that ends without [`BodyOut::finish`] (a panic, a stalled client)
//! breaks the connection, so that nobody takes half an answer for a whole one.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::{Frame, SizeHint};
use model::trace::Span;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::metrics::Observation;

/// Text that is kept before a piece goes out.
const FLUSH_BYTES: usize = 64 << 10;
/// Pieces under way at once.
const PIECES_MAX: usize = 4;
/// Smaller bodies are not worth compressing.
const GZIP_MIN_BYTES: usize = 1024;

/// A body as hyper reads it.
pub(crate) struct Body {
    kind: Kind,
    observation: Option<Observation>,
    /// The span of the request, which ends with the body.
    span: Span,
    bytes: usize,
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.span.set("http.response.body.size", self.bytes as i64);
        }
    }
}

enum Kind {
    Full(Option<Bytes>),
    Pieces(mpsc::Receiver<Piece>),
    Done,
}

enum Piece {
    Data(Bytes),
    End,
}

impl Body {
    /// A body at hand.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, observation: None, span: Span::default(), bytes: 0 }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// Lets the span of the request end with the body.
    pub(crate) fn hold(&mut self, span: Span) {
        self.span = span;
    }

    /// Measures the body until it is dropped.
    pub(crate) fn observe(&mut self, observation: Observation) {
        self.observation = Some(observation);
    }

    fn took(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.bytes += bytes.len();
        if let Some(o) = &mut self.observation {
            o.add_bytes(bytes.len());
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut self.kind {
            Kind::Done => Poll::Ready(None),
            Kind::Full(bytes) => match bytes.take() {
                Some(bytes) => self.took(bytes),
                None => Poll::Ready(None),
            },
            Kind::Pieces(rx) => match std::task::ready!(rx.poll_recv(cx)) {
                Some(Piece::Data(bytes)) => self.took(bytes),
                Some(Piece::End) => {
                    self.kind = Kind::Done;
                    Poll::Ready(None)
                }
                None => {
                    self.kind = Kind::Done;
                    Poll::Ready(Some(Err(std::io::Error::other("the answer broke off"))))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Done | Kind::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Full(None) | Kind::Done => SizeHint::with_exact(0),
            Kind::Pieces(_) => SizeHint::default(),
        }
    }
}

/// Where a handler on a blocking thread writes its answer.
pub(crate) struct BodyOut {
    buf: Vec<u8>,
    status: StatusCode,
    headers: HeaderMap,
    gzip_accepted: bool,
    gzip: Option<GzEncoder<Vec<u8>>>,
    head: Option<oneshot::Sender<Response<Body>>>,
    pieces: Option<mpsc::Sender<Piece>>,
    stall_timeout: Duration,
    runtime: tokio::runtime::Handle,
    dead: bool,
    /// Given back once the head is out: a slow reader takes nobody's turn.
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyOut {
    /// A writer whose head goes to `head`. To be made within the runtime whose clock limits stalls.
    pub(crate) fn new(
        head: oneshot::Sender<Response<Body>>,
        gzip_accepted: bool,
        stall_timeout: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            permit: Some(permit),
            buf: Vec::with_capacity(1024),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            gzip_accepted,
            gzip: None,
            head: Some(head),
            pieces: None,
            stall_timeout,
            runtime: tokio::runtime::Handle::current(),
            dead: false,
        }
    }

    /// Sets the status; too late once a piece went out.
    pub(crate) fn set_status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// Headers; too late once a piece went out.
    pub(crate) fn headers(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The text that has not gone out.
    pub(crate) fn buf(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Whether the head is out: it is too late to answer with an error.
    pub(crate) fn is_under_way(&self) -> bool {
        self.pieces.is_some() || self.dead
    }

    /// Whether nobody reads any more: what is still written is thrown away.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Sends what has piled up, if it is enough to be worth it.
    pub(crate) fn checkpoint(&mut self) {
        if self.buf.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Sends what has piled up, however little it is.
    pub(crate) fn flush(&mut self) {
        if self.dead {
            self.buf.clear();
            return;
        }
        if self.pieces.is_none() {
            self.start();
        }
        let bytes = self.take_piece();
        if !bytes.is_empty() {
            self.send(Piece::Data(bytes));
        }
    }

    /// Ends the body. Without it the reader sees a broken connection.
    pub(crate) fn finish(mut self) {
        if self.pieces.is_some() {
            let rest = match self.gzip.take() {
                Some(mut gz) => match gz.write_all(&self.buf).and_then(|()| gz.finish()) {
                    Ok(bytes) => Bytes::from(bytes),
                    Err(_) => return,
                },
                None => Bytes::from(std::mem::take(&mut self.buf)),
            };
            if !rest.is_empty() {
                self.send(Piece::Data(rest));
            }
            self.send(Piece::End);
            return;
        }
        let mut bytes = std::mem::take(&mut self.buf);
        if self.gzip_accepted && bytes.len() > GZIP_MIN_BYTES {
            let mut gz = encoder();
            if gz.write_all(&bytes).is_ok()
                && let Ok(compressed) = gz.finish()
            {
                bytes = compressed;
                self.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        if self.status != StatusCode::NO_CONTENT {
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        self.send_head(Body::full(bytes));
    }

    fn start(&mut self) {
        let (tx, rx) = mpsc::channel(PIECES_MAX);
        if self.gzip_accepted {
            self.gzip = Some(encoder());
            self.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.pieces = Some(tx);
        self.send_head(Body::of(Kind::Pieces(rx)));
    }

    fn take_piece(&mut self) -> Bytes {
        match &mut self.gzip {
            Some(gz) => {
                // Writing into memory does not fail.
                if gz.write_all(&self.buf).is_err() {
                    self.dead = true;
                }
                self.buf.clear();
                Bytes::from(std::mem::take(gz.get_mut()))
            }
            None => {
                let full = std::mem::replace(&mut self.buf, Vec::with_capacity(FLUSH_BYTES + 4096));
                Bytes::from(full)
            }
        }
    }

    fn send_head(&mut self, body: Body) {
        self.permit = None;
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = std::mem::take(&mut self.headers);
        let sent = self.head.take().is_some_and(|head| head.send(response).is_ok());
        self.dead |= !sent;
    }

    fn send(&mut self, piece: Piece) {
        let Some(tx) = &self.pieces else { return };
        if self.dead {
            return;
        }
        let piece = match tx.try_send(piece) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.dead = true;
                return;
            }
            Err(mpsc::error::TrySendError::Full(piece)) => piece,
        };
        if self.runtime.block_on(tx.send_timeout(piece, self.stall_timeout)).is_err() {
            self.dead = true;
            self.pieces = None;
            self.gzip = None;
        }
    }
}

fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}
