//! A small HTTP/1.1 client: one connection per server, opened again when it is gone. Blocks.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::Error;

const ANSWER_BYTES_MAX: usize = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(150);

/// A connection to a server.
pub struct Client {
    runtime: Runtime,
    authority: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client of the server at `url`; connects when first used.
    ///
    /// # Errors
    /// [`Error::Address`] when that is no plain `http` address.
    pub fn new(url: &str) -> Result<Self, Error> {
        let bad = || Error::Address(url.to_owned());
        let parsed = url::Url::parse(url).map_err(|_| bad())?;
        let (Some(host), Some(port), "http") =
            (parsed.host_str(), parsed.port_or_known_default(), parsed.scheme())
        else {
            return Err(bad());
        };
        let authority = format!("{host}:{port}");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|_| bad())?;
        Ok(Self { runtime, authority, connection: None })
    }

    /// `host:port`
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a form and gives status and body.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<(u16, Bytes), Error> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], body.into())
    }

    /// Sends a request and gives status and body. A connection that turns out to be closed is opened again, once.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub fn send(
        &mut self,
        method: &'static str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(u16, Bytes), Error> {
        let fail = |reason: String, authority: &str| Error::Http {
            method,
            address: format!("http://{authority}"),
            path: path.to_owned(),
            reason,
        };
        let was_open = self.connection.is_some();
        let mut outcome = self.once(method, path, headers, body.clone());
        if outcome.is_err() && was_open {
            outcome = self.once(method, path, headers, body);
        }
        outcome.map_err(|reason| fail(reason, &self.authority))
    }

    fn once(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(u16, Bytes), String> {
        let mut request = Request::builder().method(method).uri(path).header("Host", &self.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let kept = self.connection.take();
        let authority = &self.authority;
        let work = async {
            let mut connection = match kept {
                Some(c) => c,
                None => connect(authority).await?,
            };
            let response = connection.send_request(request).await.map_err(|e| e.to_string())?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((connection, status, body.map_err(|e| e.to_string())?.to_bytes()))
        };
        let bounded = async { tokio::time::timeout(TIMEOUT, work).await };
        let (connection, status, body) = self
            .runtime
            .block_on(bounded)
            .map_err(|_| "no answer in time".to_owned())
            .and_then(|r: Result<_, String>| r)?;
        self.connection = Some(connection);
        Ok((status, body))
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(authority).await.map_err(|e| e.to_string())?;
    // Requests are small and each waits for its answer.
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // It ends with the sender, and its errors show there.
    tokio::spawn(connection);
    Ok(sender)
}
