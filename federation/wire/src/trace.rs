//! Spans as OTLP has them: the request that an exporter writes, and the answer to it. [`read`] is the other side, for
//! collectors in tests.
//!
//! Spec: `opentelemetry/proto/collector/trace/v1/trace_service.proto` and what it imports,
//! <https://opentelemetry.io/docs/specs/otlp/>.

use model::trace::{AttributeValue, SpanData, SpanEvent, SpanId, SpanKind, TraceId};

use crate::error::Error;
use crate::proto::{
    Cursor, WireType, put_bytes, put_double_always, put_fixed32, put_fixed64, put_str, put_uint64,
    put_uint64_always,
};

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`
const KNOWS_REMOTE: u32 = 0x100;
/// `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`
const IS_REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`
const STATUS_ERROR: u64 = 2;

/// Who sends spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Attributes of the resource.
    pub resource: Vec<(&'static str, String)>,
    /// Name of what made the spans.
    pub scope: &'static str,
    /// Its version.
    pub scope_version: &'static str,
}

/// Writes an `ExportTraceServiceRequest`.
#[must_use]
pub fn encode(source: &Source, spans: &[SpanData]) -> Vec<u8> {
    let resource = message(|out| {
        for (key, value) in &source.resource {
            put_attribute(out, 1, key, &value.clone().into());
        }
    });
    let scope = message(|out| {
        put_str(out, 1, source.scope);
        put_str(out, 2, source.scope_version);
    });
    let scope_spans = message(|out| {
        put_bytes(out, 1, &scope);
        spans.iter().for_each(|span| put_bytes(out, 2, &encode_span(span)));
    });
    let resource_spans = message(|out| {
        put_bytes(out, 1, &resource);
        put_bytes(out, 2, &scope_spans);
    });
    message(|out| put_bytes(out, 1, &resource_spans))
}

fn message(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn encode_span(span: &SpanData) -> Vec<u8> {
    message(|out| {
        put_bytes(out, 1, &span.context.trace_id.0);
        put_bytes(out, 2, &span.context.span_id.0);
        put_str(out, 3, &span.context.state);
        if let Some(parent) = span.parent {
            put_bytes(out, 4, &parent.0);
        }
        put_str(out, 5, &span.name);
        let kind = match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        };
        put_uint64(out, 6, kind);
        put_fixed64(out, 7, span.start_ns);
        put_fixed64(out, 8, span.end_ns);
        span.attributes.iter().for_each(|(key, value)| put_attribute(out, 9, key, value));
        span.events.iter().for_each(|event| put_bytes(out, 11, &encode_event(event)));
        let status = message(|out| {
            if let Some(reason) = &span.failure {
                put_str(out, 2, reason);
                put_uint64(out, 3, STATUS_ERROR);
            }
        });
        put_bytes(out, 15, &status);
        let remote = if span.parent_is_remote { IS_REMOTE } else { 0 };
        put_fixed32(out, 16, u32::from(span.context.flags()) | KNOWS_REMOTE | remote);
    })
}

fn encode_event(event: &SpanEvent) -> Vec<u8> {
    message(|out| {
        put_fixed64(out, 1, event.time_ns);
        put_str(out, 2, event.name);
        event.attributes.iter().for_each(|(key, value)| put_attribute(out, 3, key, value));
    })
}

fn put_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &AttributeValue) {
    let value = message(|out| match value {
        AttributeValue::Text(text) => put_bytes(out, 1, text.as_bytes()),
        AttributeValue::Int(n) => put_uint64_always(out, 3, *n as u64),
        AttributeValue::Float(x) => put_double_always(out, 4, *x),
    });
    let pair = message(|out| {
        put_str(out, 1, key);
        put_bytes(out, 2, &value);
    });
    put_bytes(out, field, &pair);
}

/// What a collector did not take, from its `ExportTraceServiceResponse`: the number of spans, and why. `None` when it
/// took all and has nothing to say.
///
/// # Errors
/// When the answer is malformed.
pub fn rejected(answer: &[u8]) -> Result<Option<(i64, String)>, Error> {
    let mut found = None;
    let mut cursor = Cursor::new(answer, "ExportTraceServiceResponse");
    while let Some(tag) = cursor.tag()? {
        if tag.field != 1 {
            cursor.skip(tag.wire_type)?;
            continue;
        }
        cursor.expect(tag, WireType::Bytes)?;
        let (mut partial, mut count, mut why) = (cursor.message()?, 0, "");
        while let Some(tag) = partial.tag()? {
            match (tag.field, tag.wire_type) {
                (1, WireType::Varint) => count = partial.varint()? as i64,
                (2, WireType::Bytes) => why = partial.str()?,
                (_, other) => partial.skip(other)?,
            }
        }
        if count != 0 || !why.is_empty() {
            found = Some((count, why.to_owned()));
        }
    }
    Ok(found)
}

/// A span as a collector sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadSpan {
    /// Attributes of the resource, as text.
    pub resource: Vec<(String, String)>,
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The span above; absent at the top.
    pub parent: Option<SpanId>,
    /// Name.
    pub name: String,
    /// Number of the kind.
    pub kind: u64,
    /// Begin, since the Unix epoch.
    pub start_ns: u64,
    /// End, since the Unix epoch.
    pub end_ns: u64,
    /// Attributes, as text.
    pub attributes: Vec<(String, String)>,
    /// Names of the events.
    pub events: Vec<String>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl ReadSpan {
    /// An attribute; the empty text when there is none.
    #[must_use]
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }
}

/// Reads an `ExportTraceServiceRequest`.
///
/// # Errors
/// When it is malformed.
pub fn read(request: &[u8]) -> Result<Vec<ReadSpan>, Error> {
    let mut spans = Vec::new();
    each(Cursor::new(request, "ExportTraceServiceRequest"), 1, &mut |resource_spans| {
        let mut resource = Vec::new();
        each(resource_spans, 1, &mut |r| each(r, 1, &mut |pair| read_attribute(pair, &mut resource)))?;
        each(resource_spans, 2, &mut |scope_spans| {
            each(scope_spans, 2, &mut |span| {
                spans.push(ReadSpan { resource: resource.clone(), ..read_span(span)? });
                Ok(())
            })
        })
    })?;
    Ok(spans)
}

/// Calls `one` for each sub-message of that number.
fn each<'a>(
    mut cursor: Cursor<'a>,
    field: u32,
    one: &mut dyn FnMut(Cursor<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    while let Some(tag) = cursor.tag()? {
        if tag.field == field && tag.wire_type == WireType::Bytes {
            one(cursor.message()?)?;
        } else {
            cursor.skip(tag.wire_type)?;
        }
    }
    Ok(())
}

fn read_span(mut cursor: Cursor<'_>) -> Result<ReadSpan, Error> {
    let mut span = ReadSpan::default();
    while let Some(tag) = cursor.tag()? {
        match (tag.field, tag.wire_type) {
            (1, WireType::Bytes) => span.trace_id = TraceId(id(&mut cursor)?),
            (2, WireType::Bytes) => span.span_id = SpanId(id(&mut cursor)?),
            (4, WireType::Bytes) => span.parent = Some(SpanId(id(&mut cursor)?)),
            (5, WireType::Bytes) => span.name = cursor.str()?.to_owned(),
            (6, WireType::Varint) => span.kind = cursor.varint()?,
            (7, WireType::Fixed64) => span.start_ns = cursor.fixed64()?,
            (8, WireType::Fixed64) => span.end_ns = cursor.fixed64()?,
            (9, WireType::Bytes) => read_attribute(cursor.message()?, &mut span.attributes)?,
            (11, WireType::Bytes) => {
                let name = text_of(cursor.message()?, 2)?;
                span.events.push(name);
            }
            (15, WireType::Bytes) => {
                let status = cursor.message()?;
                span.failure = read_number(status, 3)?
                    .filter(|c| *c == STATUS_ERROR)
                    .map(|_| text_of(status, 2))
                    .transpose()?;
            }
            (_, other) => cursor.skip(other)?,
        }
    }
    Ok(span)
}

fn id<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u8; N], Error> {
    let bytes = cursor.bytes()?;
    bytes.try_into().map_err(|_| cursor.error("an id has the wrong length"))
}

fn text_of(mut cursor: Cursor<'_>, field: u32) -> Result<String, Error> {
    let mut text = String::new();
    while let Some(tag) = cursor.tag()? {
        if tag.field == field && tag.wire_type == WireType::Bytes {
            text = cursor.str()?.to_owned();
        } else {
            cursor.skip(tag.wire_type)?;
        }
    }
    Ok(text)
}

fn read_number(mut cursor: Cursor<'_>, field: u32) -> Result<Option<u64>, Error> {
    let mut number = None;
    while let Some(tag) = cursor.tag()? {
        if tag.field == field && tag.wire_type == WireType::Varint {
            number = Some(cursor.varint()?);
        } else {
            cursor.skip(tag.wire_type)?;
        }
    }
    Ok(number)
}

fn read_attribute(pair: Cursor<'_>, out: &mut Vec<(String, String)>) -> Result<(), Error> {
    let mut value = String::new();
    each(pair, 2, &mut |mut any| {
        while let Some(tag) = any.tag()? {
            match (tag.field, tag.wire_type) {
                (1, WireType::Bytes) => value = any.str()?.to_owned(),
                (3, WireType::Varint) => value = (any.varint()? as i64).to_string(),
                (4, WireType::Fixed64) => value = any.double()?.to_string(),
                (_, other) => any.skip(other)?,
            }
        }
        Ok(())
    })?;
    out.push((text_of(pair, 1)?, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::trace::SpanContext;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (trace_id, span_id, parent) = (TraceId([1; 16]), SpanId([2; 8]), SpanId([3; 8]));
        let span = SpanData {
            context: SpanContext::new(trace_id, span_id, true),
            parent: Some(parent),
            parent_is_remote: true,
            name: "GET /api/v1/query".into(),
            kind: SpanKind::Server,
            start_ns: 1_700_000_000_123_456_789,
            end_ns: 1_700_000_000_223_456_789,
            attributes: vec![
                ("text", "x".into()),
                ("n", (-3).into()),
                ("x", 0.5.into()),
                ("none", "".into()),
            ],
            events: vec![SpanEvent { time_ns: 5, name: "exception", attributes: Vec::new() }],
            failure: Some("no".into()),
        };
        let top = SpanData { parent: None, failure: None, ..span.clone() };
        let source = Source { resource: vec![("service.name", "a".into())], scope: "s", scope_version: "1" };
        let bytes = encode(&source, &[span, top]);
        let read = read(&bytes).expect("well-formed");
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let expect = ReadSpan {
            resource: vec![pair("service.name", "a")],
            trace_id,
            span_id,
            parent: Some(parent),
            name: "GET /api/v1/query".into(),
            kind: 2,
            start_ns: 1_700_000_000_123_456_789,
            end_ns: 1_700_000_000_223_456_789,
            attributes: vec![pair("text", "x"), pair("n", "-3"), pair("x", "0.5"), pair("none", "")],
            events: vec!["exception".into()],
            failure: Some("no".into()),
        };
        assert_eq!(read, [expect.clone(), ReadSpan { parent: None, failure: None, ..expect }]);
        for len in 0..bytes.len() {
            // Cut anywhere, it is an error or fewer spans, never a panic.
            let _ = super::read(&bytes[..len]);
        }
    }

    #[test]
    fn answers_say_what_was_not_taken() {
        assert_eq!(rejected(b"").expect("empty"), None);
        assert_eq!(rejected(&[0x0a, 0]).expect("all taken"), None);
        let partial = [0x0a, 6, 0x08, 2, 0x12, 2, b'n', b'o'];
        assert_eq!(rejected(&partial).expect("well-formed"), Some((2, "no".into())));
        assert!(rejected(&partial[..5]).is_err());
    }
}
