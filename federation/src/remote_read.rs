//! A Prometheus-compatible server behind the storage contracts, through its remote-read and label endpoints.
//!
//! Samples come through `POST …/api/v1/read` as one bounded answer, in samples or, where the store's codecs are given
//! ([`RemoteRead::with_chunks`]), as a stream of chunks; label names and values through `…/api/v1/labels` and `…/api/v1/label/<name>/values` beside it. The contracts
//! block, the client does not: calls wait on the runtime given, and must come from a thread outside of it or from one
//! of its blocking threads.
//!
//! Failures to reach the server are [`StorageError::Unavailable`] with its name, so that callers can tell them from
//! answers that make no sense.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Uri};
use model::labels::{METRIC_NAME, is_legacy_label_name};
use model::storage::VecSeriesSet;
use model::trace;
use model::{LabelsResult, Matcher, Querier, Queryable, RollupRequest, SelectHints, SeriesSet, StorageError};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::runtime::Handle;
use wire::read::{ReadQuery, ReadRequest, decode_response};
use wire::read_chunks::{ChunkLimits, Codecs, decode_chunked};
use wire::snappy::{Compressor, Decompressor};

use crate::config::RemoteReadConfig;
use crate::http::{HttpClient, HttpError, Need, Outgoing, Response, parse_url};

const READ_VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-read-version");
/// What a server says that answers in chunks.
const CHUNKS_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
/// The path that the address of the endpoint ends in.
const READ_SUFFIX: &str = "/read";

/// A remote store.
#[derive(Clone, Debug)]
pub struct RemoteRead {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RemoteReadConfig,
    uri: Uri,
    /// The address up to and including `/api/v1`; `None` when the endpoint has another name.
    api: Option<String>,
    client: HttpClient,
    runtime: Handle,
    /// For answers in chunks.
    codecs: Option<Codecs>,
    /// Windows that the server sums up ahead.
    rollup_grids_ms: &'static [i64],
}

/// An answer to a read request.
enum Answer {
    /// A decompressed `ReadResponse`.
    Samples(Vec<u8>),
    /// Frames of `ChunkedReadResponse`, and what reads their chunks.
    Chunks(Bytes, Codecs),
}

impl RemoteRead {
    /// A store behind `config.url`, whose requests run on `runtime`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`HttpError::Config`] for settings that cannot be used.
    pub fn new(config: RemoteReadConfig, runtime: Handle) -> Result<Self, HttpError> {
        let uri = parse_url(&config.url)?;
        let client = HttpClient::new(&config.http)?;
        let path = uri.path().strip_suffix(READ_SUFFIX);
        let api = path.map(|path| {
            let authority = uri.authority().map_or("", |a| a.as_str());
            format!("{}://{authority}{path}", uri.scheme_str().unwrap_or("http"))
        });
        Ok(Self {
            inner: Arc::new(Inner { config, uri, api, client, runtime, codecs: None, rollup_grids_ms: &[] }),
        })
    }

    /// The same, and answers may come as chunks that these codecs read: the server need not decode them, and sends less.
    ///
    /// # Panics
    /// When the store is in use already.
    #[must_use]
    pub fn with_chunks(mut self, codecs: Codecs) -> Self {
        Arc::get_mut(&mut self.inner).expect("it was made just now").codecs = Some(codecs);
        self
    }

    /// The same, of a long-term node, which may answer with sums over such windows in place of samples. Chunks have to be taken too.
    ///
    /// # Panics
    /// When the store is in use already.
    #[must_use]
    pub fn with_rollups(mut self, grids_ms: &'static [i64]) -> Self {
        Arc::get_mut(&mut self.inner).expect("it was made just now").rollup_grids_ms = grids_ms;
        self
    }

    /// Name of the endpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }
}

impl Queryable for RemoteRead {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(RemoteQuerier { inner: self.inner.clone(), mint, maxt }))
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        self.inner.rollup_grids_ms
    }
}

struct RemoteQuerier {
    inner: Arc<Inner>,
    mint: i64,
    maxt: i64,
}

impl Querier for RemoteQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        self.ask(matchers, hints, None)
    }

    fn select_rollup(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
        request: &RollupRequest,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        self.ask(matchers, hints, (!self.inner.rollup_grids_ms.is_empty()).then_some(*request))
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        self.labels("/labels", matchers, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError> {
        self.labels(&format!("/label/{}/values", escaped_label_name(name)), matchers, limit)
    }
}

/// An answer of the label endpoints.
#[derive(Deserialize)]
struct LabelsAnswer {
    #[serde(default)]
    data: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

impl RemoteQuerier {
    fn ask(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
        rollup: Option<RollupRequest>,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        let (matchers, hints) = (matchers.to_vec(), hints.clone());
        let query = ReadQuery { mint: self.mint, maxt: self.maxt, matchers, hints, rollup };
        let inner = &self.inner;
        let request = match inner.codecs {
            Some(_) => ReadRequest::chunks(vec![query]),
            None => ReadRequest::samples(vec![query]),
        };
        let mut results = match inner.read(&request)? {
            Answer::Chunks(body, codecs) => {
                let limits = ChunkLimits {
                    mint: self.mint,
                    maxt: self.maxt,
                    frame_len_bytes: inner.config.max_frame_bytes,
                    samples: inner.config.max_decompressed_bytes / size_of::<(i64, f64)>(),
                };
                vec![decode_chunked(&body, codecs, limits).map_err(|e| inner.failed(e))?]
            }
            Answer::Samples(body) => decode_response(&body).map_err(|e| inner.failed(e))?,
        };
        match (results.pop(), results.is_empty()) {
            (Some(series), true) => Ok(Box::new(VecSeriesSet::new(series, Vec::new()))),
            _ => Err(self.inner.nonsense("the answer does not hold one result")),
        }
    }

    fn labels(&self, path: &str, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        if self.mint > self.maxt {
            return Ok(LabelsResult::default());
        }
        let Some(api) = &self.inner.api else {
            return Err(StorageError::Unsupported(format!(
                "label names and values from remote {:?}, whose url does not end in {READ_SUFFIX}",
                self.inner.config.name
            )));
        };
        let mut url = format!("{api}{path}?start={}&end={}", seconds(self.mint), seconds(self.maxt));
        if !matchers.is_empty() {
            let selector = utf8_percent_encode(&selector(matchers), NON_ALPHANUMERIC).to_string();
            // Writing to a string does not fail.
            let _ = write!(url, "&match%5B%5D={selector}");
        }
        if limit > 0 {
            let _ = write!(url, "&limit={limit}");
        }
        let uri: Uri = url.parse().map_err(|e| self.inner.nonsense(format!("address {url:?}: {e}")))?;
        let response = self.inner.send(Method::GET, &uri, &[], Bytes::new())?;
        let answer: LabelsAnswer =
            serde_json::from_slice(&response.body).map_err(|e| self.inner.nonsense(e.to_string()))?;
        let LabelsAnswer { data: mut values, warnings } = answer;
        values.sort_unstable();
        values.dedup();
        if limit > 0 {
            values.truncate(limit);
        }
        Ok(LabelsResult { values, warnings })
    }
}

impl Inner {
    /// Sends a read request and gives its answer, decompressed where it is compressed.
    fn read(&self, request: &ReadRequest) -> Result<Answer, StorageError> {
        let mut compressed = Vec::new();
        Compressor::new().compress(&request.encode(), &mut compressed).map_err(|e| self.failed(e))?;
        let headers = [
            (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
            (ACCEPT_ENCODING, HeaderValue::from_static("snappy")),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
            (READ_VERSION, HeaderValue::from_static("0.1.0")),
        ];
        let span = trace::client("Remote Read");
        let entered = span.enter();
        let response = self.send(Method::POST, &self.uri, &headers, compressed.into())?;
        drop((entered, span));
        let kind = response.header("content-type");
        if let Some(codecs) = self.codecs.filter(|_| kind.starts_with(CHUNKS_TYPE)) {
            return Ok(Answer::Chunks(response.body, codecs));
        }
        if !kind.starts_with("application/x-protobuf") {
            return Err(StorageError::Unsupported(format!(
                "answer of type {kind:?} from remote {:?}: application/x-protobuf was asked for",
                self.config.name
            )));
        }
        let mut out = Vec::new();
        Decompressor::new()
            .decompress(&response.body, self.config.max_decompressed_bytes, &mut out)
            .map_err(|e| self.failed(e))?;
        Ok(Answer::Samples(out))
    }

    /// Sends a request from this thread, which is not one of the runtime's workers, and waits for a 2xx.
    fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Response, StorageError> {
        let request = Outgoing {
            method,
            uri,
            headers,
            body,
            timeout: self.config.timeout,
            response_limit_bytes: self.config.max_response_bytes,
            need: Need::Whole,
        };
        let unavailable = |reason| StorageError::Unavailable { who: self.who(), reason };
        match self.runtime.block_on(self.client.send(request)) {
            Ok(response) if response.status.is_success() => Ok(response),
            Ok(response) => Err(unavailable(format!(
                "server returned HTTP status {}: {}",
                response.status,
                response.first_line()
            ))),
            Err(e @ HttpError::TooLarge(_)) => Err(StorageError::Limit(format!("{}: {e}", self.who()))),
            Err(e) => Err(unavailable(e.to_string())),
        }
    }

    fn who(&self) -> String {
        format!("remote read {:?}", self.config.name)
    }

    /// An answer that cannot be read.
    fn failed(&self, e: wire::Error) -> StorageError {
        match e {
            wire::Error::TooLarge { .. } => StorageError::Limit(format!("{}: {e}", self.who())),
            e => self.nonsense(e.to_string()),
        }
    }

    /// An answer that is none.
    fn nonsense(&self, reason: impl Into<String>) -> StorageError {
        StorageError::Unavailable { who: self.who(), reason: reason.into() }
    }
}

/// Milliseconds as seconds with exactly three digits after the point, which no float rounds.
fn seconds(ms: i64) -> String {
    // The API takes what fits Go's time; beyond it nothing is stored.
    const LIMIT_MS: i64 = 253_402_300_799_999; // year 9999
    let ms = ms.clamp(-LIMIT_MS, LIMIT_MS);
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}

/// Matchers as PromQL writes a selector.
fn selector(matchers: &[Matcher]) -> String {
    let mut out = String::from("{");
    for (i, m) in matchers.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let _ = write!(out, "{m}");
    }
    out.push('}');
    out
}

/// A label name as the path of the API has it: names beyond the classic set in the escaping that starts with `U__`.
fn escaped_label_name(name: &str) -> String {
    if is_legacy_label_name(name) && !name.starts_with("U__") || name == METRIC_NAME {
        return name.to_owned();
    }
    let mut out = String::from("U__");
    for c in name.chars() {
        match c {
            '_' => out.push_str("__"),
            c if c.is_ascii_alphanumeric() => out.push(c),
            c => {
                let _ = write!(out, "_{:x}_", c as u32);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
