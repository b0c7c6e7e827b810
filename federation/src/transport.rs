//! How requests reach a destination: a seam between the sender and the network, so that a test can put a network of its
//! own there.

use std::future::Future;
use std::pin::Pin;

use crate::http::{HttpClient, HttpError, Outgoing, Response};

/// An answer that is not there yet.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, HttpError>> + Send + 'a>>;

/// Carries one request and brings its answer.
pub trait Transport: Send + Sync {
    /// Sends a request and waits for the whole answer, whatever its status. Fails when there is no complete answer within
    /// the limits of the request; the destination may have taken it all the same.
    fn send<'a>(&'a self, outgoing: Outgoing<'a>) -> Answer<'a>;
}

impl Transport for HttpClient {
    fn send<'a>(&'a self, outgoing: Outgoing<'a>) -> Answer<'a> {
        Box::pin(Self::send(self, outgoing))
    }
}
