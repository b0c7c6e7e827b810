//! `/api/v1/read`: remote read of this node's own store, answered in samples or as a stream of chunks, as the client prefers.
//!
//! An answer in samples is one message, so its size is limited. A stream holds one group of chunks of one series at a time:
//! chunks in an encoding that everyone knows go out as they lie there, others are encoded anew, and what overlaps is merged.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use model::chunk::decode_chunks;
use model::{
    Chunk, Labels, LabelsBuilder, MatchOp, Matcher, Querier, Samples, Series, SeriesSet, StorageError,
};
use wire::chunked::{self, FrameEncoder};
use wire::read::{ReadQuery, ReadRequest, ReadResponseEncoder, ResponseType};
use wire::snappy::{Compressor, Decompressor};

use crate::app::App;
use crate::body::BodyOut;

/// Answers one request, whose body is still compressed.
pub(crate) fn read(app: &Arc<App>, body: &[u8], mut out: BodyOut) {
    let answered = request_of(app, body).and_then(|(request, form)| match form {
        ResponseType::StreamedXorChunks => stream(app, &request, &mut out),
        _ => samples(app, &request, &mut out),
    });
    match answered {
        Ok(()) => out.finish(),
        // A stream that is under way can only break off: the client must not take half an answer for a whole one.
        Err(refusal) if out.is_under_way() => tracing::warn!("remote read broke off: {}", refusal.text),
        Err(refusal) => {
            out.set_status(refusal.status);
            out.headers().clear();
            out.headers().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            *out.buf() = (refusal.text + "\n").into_bytes();
            out.finish();
        }
    }
}

/// Why there is no answer.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn bad(e: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: e.to_string() }
    }
}

impl From<StorageError> for Refusal {
    fn from(e: StorageError) -> Self {
        let status = match e {
            StorageError::Limit(_) => StatusCode::BAD_REQUEST,
            StorageError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, text: e.to_string() }
    }
}

fn request_of(app: &App, body: &[u8]) -> Result<(ReadRequest, ResponseType), Refusal> {
    let mut message = Vec::new();
    let limit = app.config.remote_read.max_body_bytes;
    Decompressor::new().decompress(body, limit, &mut message).map_err(Refusal::bad)?;
    let request = ReadRequest::decode(&message).map_err(Refusal::bad)?;
    let form = request.answer_form().map_err(Refusal::bad)?;
    Ok((request, form))
}

fn samples(app: &App, request: &ReadRequest, out: &mut BodyOut) -> Result<(), Refusal> {
    let limit = app.config.remote_read.sample_limit;
    let mut left = if limit == 0 { usize::MAX } else { limit };
    let mut encoder = ReadResponseEncoder::new();
    for query in &request.queries {
        let mut set = select(app, query)?;
        encoder.result(&mut set, query.mint, query.maxt, &mut left)?;
        log_warnings(&set);
    }
    let compressed = Compressor::new().compress(&encoder.into_bytes(), out.buf());
    compressed.map_err(|e| Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, text: e.to_string() })?;
    out.headers().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    out.headers().insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    Ok(())
}

fn stream(app: &App, request: &ReadRequest, out: &mut BodyOut) -> Result<(), Refusal> {
    out.headers().insert(CONTENT_TYPE, HeaderValue::from_static(chunked::CONTENT_TYPE));
    let mut encoder = FrameEncoder::new(app.config.remote_read.max_bytes_in_frame);
    let mut scratch = Samples::new();
    for (number, query) in request.queries.iter().enumerate() {
        let mut set = select_for_stream(app, query)?;
        while let Some(series) = set.next()? {
            encoder.begin(number, &series.labels);
            if let ([only], Some(request)) = (series.chunks.as_slice(), &query.rollup)
                && let Some(rollup) = only.as_rollup()
            {
                encoder.rollup(rollup, request.columns, (only.mint, only.maxt), out.buf());
                encoder.end(out.buf());
                out.checkpoint();
                continue;
            }
            let mut rest = series.chunks.as_slice();
            while let Some(group) = overlapping(&mut rest) {
                if let [only] = group
                    && chunked::is_common(only.encoding())
                {
                    if only.maxt >= query.mint && only.mint <= query.maxt {
                        encoder.chunk(only, out.buf());
                    }
                } else {
                    decode_chunks(group, query.mint, query.maxt, &mut scratch)?;
                    for chunk in (app.deps.encode_chunks)(&scratch) {
                        encoder.chunk(&chunk, out.buf());
                    }
                }
                out.checkpoint();
            }
            encoder.end(out.buf());
            out.checkpoint();
            if out.is_dead() {
                return Ok(());
            }
        }
        log_warnings(&set);
    }
    Ok(())
}

/// Takes the first chunks, sorted by their first timestamps, that share time with each other and with none of the rest.
fn overlapping<'a>(rest: &mut &'a [Chunk]) -> Option<&'a [Chunk]> {
    let mut maxt = rest.first()?.maxt;
    let mut len = 1;
    while let Some(next) = rest.get(len).filter(|c| c.mint <= maxt) {
        maxt = maxt.max(next.maxt);
        len += 1;
    }
    let (group, after) = rest.split_at(len);
    *rest = after;
    Some(group)
}

fn select(app: &App, query: &ReadQuery) -> Result<WithExternal, StorageError> {
    select_by(app, query, |querier, matchers| querier.select(matchers, &query.hints))
}

/// With rollups in place of samples where the client takes them.
fn select_for_stream(app: &App, query: &ReadQuery) -> Result<WithExternal, StorageError> {
    // Without hints nobody knows for which range cells are wanted.
    let request = query.rollup.as_ref().filter(|_| query.hints.end_ms >= query.hints.start_ms);
    select_by(app, query, |querier, matchers| match request {
        Some(request) => querier.select_rollup(matchers, &query.hints, request),
        None => querier.select(matchers, &query.hints),
    })
}

fn select_by(
    app: &App,
    query: &ReadQuery,
    select: impl FnOnce(&dyn Querier, &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError>,
) -> Result<WithExternal, StorageError> {
    let external = app.deps.status.external_labels();
    let matchers: Vec<Matcher> = query.matchers.iter().map(|m| without_external(m, &external)).collect();
    let querier = app.deps.local_queryable.querier(query.mint, query.maxt)?;
    let set = select(&*querier, &matchers)?;
    Ok(WithExternal { set, external, builder: LabelsBuilder::new() })
}

fn log_warnings(set: &WithExternal) {
    for w in set.warnings() {
        tracing::warn!("remote read: {w}");
    }
}

/// The store knows no external labels: asking for one with its value is asking for series without it.
fn without_external(m: &Matcher, external: &Labels) -> Matcher {
    if m.op == MatchOp::Equal && external.get(&m.name) == Some(m.value.as_str()) {
        return Matcher::equal(m.name.clone(), "");
    }
    m.clone()
}

/// A series set whose series carry the external labels they lack.
struct WithExternal {
    set: Box<dyn SeriesSet>,
    external: Labels,
    builder: LabelsBuilder,
}

impl SeriesSet for WithExternal {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        let Some(mut series) = self.set.next()? else {
            return Ok(None);
        };
        if !self.external.is_empty() {
            self.builder.reset(&series.labels);
            for (name, value) in &self.external {
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
