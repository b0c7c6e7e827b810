//! `/api/v1/read`: remote read of this node's own store, answered in samples.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use model::{Labels, LabelsBuilder, MatchOp, Matcher, Series, SeriesSet, StorageError};
use wire::read::{ReadQuery, ReadRequest, ReadResponseEncoder};
use wire::snappy::{Compressor, Decompressor};

use crate::app::App;
use crate::body::Body;
use crate::small::plain;

/// Answers one request, whose body is still compressed.
pub(crate) fn read(app: &Arc<App>, body: &[u8]) -> Response<Body> {
    let refuse = |text: String| plain(StatusCode::BAD_REQUEST, text + "\n");
    let limits = &app.config.remote_read;
    let mut message = Vec::new();
    if let Err(e) = Decompressor::new().decompress(body, limits.max_body_bytes, &mut message) {
        return refuse(e.to_string());
    }
    let request = match ReadRequest::decode(&message) {
        Ok(request) => request,
        Err(e) => return refuse(e.to_string()),
    };
    if !request.samples_accepted() {
        return refuse(format!(
            "server does not support any of the requested response types: {:?}; supported: [Samples]",
            request.accepted
        ));
    }
    let external = app.deps.status.external_labels();
    let mut encoder = ReadResponseEncoder::new();
    let mut left = if limits.sample_limit == 0 { usize::MAX } else { limits.sample_limit };
    for query in &request.queries {
        if let Err(e) = answer(app, query, &external, &mut encoder, &mut left) {
            let status = match e {
                StorageError::Limit(_) => StatusCode::BAD_REQUEST,
                StorageError::Closed => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return plain(status, format!("{e}\n"));
        }
    }
    let mut compressed = Vec::new();
    if let Err(e) = Compressor::new().compress(&encoder.into_bytes(), &mut compressed) {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n"));
    }
    let mut response = Response::new(Body::full(compressed));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    response
}

fn answer(
    app: &App,
    query: &ReadQuery,
    external: &Labels,
    encoder: &mut ReadResponseEncoder,
    left: &mut usize,
) -> Result<(), StorageError> {
    let matchers: Vec<Matcher> = query.matchers.iter().map(|m| without_external(m, external)).collect();
    let querier = app.deps.local_queryable.querier(query.mint, query.maxt)?;
    let set = querier.select(&matchers, &query.hints)?;
    let mut set = WithExternal { set, external, builder: LabelsBuilder::new() };
    let result = encoder.result(&mut set, query.mint, query.maxt, left);
    for w in set.warnings() {
        tracing::warn!("remote read: {w}");
    }
    result
}

/// The store knows no external labels: asking for one with its value is asking for series without it.
fn without_external(m: &Matcher, external: &Labels) -> Matcher {
    if m.op == MatchOp::Equal && external.get(&m.name) == Some(m.value.as_str()) {
        return Matcher::equal(m.name.clone(), "");
    }
    m.clone()
}

/// A series set whose series carry the external labels they lack.
struct WithExternal<'a> {
    set: Box<dyn SeriesSet>,
    external: &'a Labels,
    builder: LabelsBuilder,
}

impl SeriesSet for WithExternal<'_> {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        let Some(mut series) = self.set.next()? else {
            return Ok(None);
        };
        if !self.external.is_empty() {
            self.builder.reset(&series.labels);
            for (name, value) in self.external {
                if !series.labels.contains(name) {
                    self.builder.set(name, value);
                }
            }
            series.labels = self.builder.build();
        }
        Ok(Some(series))
    }

    fn warnings(&self) -> Vec<String> {
        self.set.warnings()
    }
}
