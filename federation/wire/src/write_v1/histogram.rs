//! `prometheus.Histogram`, which remote write 1.0, 2.0 and remote read share. Version 2.0 adds the start timestamp.
//!
//! Integer histograms carry bucket counts as deltas, float histograms as absolute counts; which of both a message
//! holds is told by the `count` oneof. Fields of the other kind are passed over, as Prometheus does.

use std::sync::Arc;

use model::histogram::{CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span};
use model::{Sample, SampleValue};

use crate::error::Error;
use crate::proto::{
    Cursor, WireType, put_double, put_double_always, put_int64, put_len, put_sint64, put_uint64,
    put_uint64_always, put_varint, unzigzag, varint_len, zigzag,
};

mod field {
    pub(super) const COUNT_INT: u32 = 1;
    pub(super) const COUNT_FLOAT: u32 = 2;
    pub(super) const SUM: u32 = 3;
    pub(super) const SCHEMA: u32 = 4;
    pub(super) const ZERO_THRESHOLD: u32 = 5;
    pub(super) const ZERO_COUNT_INT: u32 = 6;
    pub(super) const ZERO_COUNT_FLOAT: u32 = 7;
    pub(super) const NEGATIVE_SPANS: u32 = 8;
    pub(super) const NEGATIVE_DELTAS: u32 = 9;
    pub(super) const NEGATIVE_COUNTS: u32 = 10;
    pub(super) const POSITIVE_SPANS: u32 = 11;
    pub(super) const POSITIVE_DELTAS: u32 = 12;
    pub(super) const POSITIVE_COUNTS: u32 = 13;
    pub(super) const RESET_HINT: u32 = 14;
    pub(super) const TIMESTAMP: u32 = 15;
    pub(super) const CUSTOM_VALUES: u32 = 16;
    pub(super) const START_TIMESTAMP: u32 = 17;

    pub(super) const SPAN_OFFSET: u32 = 1;
    pub(super) const SPAN_LENGTH: u32 = 2;
}

/// All fields of the message; which of them count is decided at the end.
#[derive(Default)]
struct Message {
    float: bool,
    count_int: u64,
    count_float: f64,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    zero_count_int: u64,
    zero_count_float: f64,
    negative: Side,
    positive: Side,
    hint: CounterResetHint,
    timestamp_ms: i64,
    start_timestamp_ms: i64,
    custom_values: Vec<f64>,
}

#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads a histogram and its timestamps.
pub(crate) fn read(mut cursor: Cursor<'_>) -> Result<Sample, Error> {
    let mut m = Message::default();
    while let Some(tag) = cursor.tag()? {
        let c = &mut cursor;
        match tag.field {
            field::NEGATIVE_SPANS => {
                c.expect(tag, WireType::Bytes)?;
                m.negative.spans.push(span(c.message()?)?);
            }
            field::POSITIVE_SPANS => {
                c.expect(tag, WireType::Bytes)?;
                m.positive.spans.push(span(c.message()?)?);
            }
            field::NEGATIVE_DELTAS => c.repeated(tag, WireType::Varint, |c| delta(c, &mut m.negative))?,
            field::POSITIVE_DELTAS => c.repeated(tag, WireType::Varint, |c| delta(c, &mut m.positive))?,
            field::NEGATIVE_COUNTS => {
                c.repeated(tag, WireType::Fixed64, |c| double(c, &mut m.negative.counts))?;
            }
            field::POSITIVE_COUNTS => {
                c.repeated(tag, WireType::Fixed64, |c| double(c, &mut m.positive.counts))?;
            }
            field::CUSTOM_VALUES => {
                c.repeated(tag, WireType::Fixed64, |c| double(c, &mut m.custom_values))?
            }
            field::COUNT_FLOAT | field::SUM | field::ZERO_THRESHOLD | field::ZERO_COUNT_FLOAT => {
                c.expect(tag, WireType::Fixed64)?;
                m.set_double(tag.field, c.double()?);
            }
            field::COUNT_INT
            | field::SCHEMA
            | field::ZERO_COUNT_INT
            | field::RESET_HINT
            | field::TIMESTAMP
            | field::START_TIMESTAMP => {
                c.expect(tag, WireType::Varint)?;
                m.set_varint(tag.field, c.varint()?);
            }
            _ => c.skip(tag.wire_type)?,
        }
    }
    Ok(m.into_sample())
}

fn delta(c: &mut Cursor<'_>, side: &mut Side) -> Result<(), Error> {
    side.deltas.push(unzigzag(c.varint()?));
    Ok(())
}

fn double(c: &mut Cursor<'_>, out: &mut Vec<f64>) -> Result<(), Error> {
    out.push(c.double()?);
    Ok(())
}

fn span(mut c: Cursor<'_>) -> Result<Span, Error> {
    let mut span = Span::default();
    while let Some(tag) = c.tag()? {
        match tag.field {
            field::SPAN_OFFSET => {
                c.expect(tag, WireType::Varint)?;
                span.offset = sint32(c.varint()?);
            }
            field::SPAN_LENGTH => {
                c.expect(tag, WireType::Varint)?;
                span.length = c.varint()? as u32;
            }
            _ => c.skip(tag.wire_type)?,
        }
    }
    Ok(span)
}

/// A `sint32`: the low 32 bits of the varint count.
fn sint32(v: u64) -> i32 {
    let v = v as u32;
    ((v >> 1) as i32) ^ -((v & 1) as i32)
}

impl Message {
    fn set_double(&mut self, field: u32, v: f64) {
        match field {
            field::COUNT_FLOAT => {
                self.float = true;
                self.count_float = v;
            }
            field::SUM => self.sum = v,
            field::ZERO_THRESHOLD => self.zero_threshold = v,
            _ => self.zero_count_float = v,
        }
    }

    fn set_varint(&mut self, field: u32, v: u64) {
        match field {
            field::COUNT_INT => {
                self.float = false;
                self.count_int = v;
            }
            field::SCHEMA => self.schema = sint32(v),
            field::ZERO_COUNT_INT => self.zero_count_int = v,
            field::RESET_HINT => self.hint = hint_of(v),
            field::TIMESTAMP => self.timestamp_ms = v as i64,
            _ => self.start_timestamp_ms = v as i64,
        }
    }

    fn into_sample(self) -> Sample {
        let value = if self.float {
            HistogramValue::Float(Arc::new(FloatHistogram {
                counter_reset_hint: self.hint,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count_float,
                count: self.count_float,
                sum: self.sum,
                positive_spans: self.positive.spans,
                positive_buckets: self.positive.counts,
                negative_spans: self.negative.spans,
                negative_buckets: self.negative.counts,
                custom_values: self.custom_values,
            }))
        } else {
            HistogramValue::Int(Arc::new(Histogram {
                counter_reset_hint: self.hint,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count_int,
                count: self.count_int,
                sum: self.sum,
                positive_spans: self.positive.spans,
                positive_buckets: self.positive.deltas,
                negative_spans: self.negative.spans,
                negative_buckets: self.negative.deltas,
                custom_values: self.custom_values,
            }))
        };
        Sample {
            timestamp_ms: self.timestamp_ms,
            start_timestamp_ms: self.start_timestamp_ms,
            value: SampleValue::Histogram(value),
        }
    }
}

/// The hint of a number on the wire; numbers of later versions are as good as unknown.
fn hint_of(number: u64) -> CounterResetHint {
    match number {
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

fn hint_number(hint: CounterResetHint) -> u64 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

// === Writing ===

/// Appends the fields of a histogram, without the message's own tag and length.
pub(crate) fn write(out: &mut Vec<u8>, timestamp_ms: i64, value: &HistogramValue) {
    match value {
        HistogramValue::Int(h) => {
            put_uint64_always(out, field::COUNT_INT, h.count);
            put_shape(out, h.sum, h.schema, h.zero_threshold);
            put_uint64_always(out, field::ZERO_COUNT_INT, h.zero_count);
            put_spans(out, field::NEGATIVE_SPANS, &h.negative_spans);
            put_deltas(out, field::NEGATIVE_DELTAS, &h.negative_buckets);
            put_spans(out, field::POSITIVE_SPANS, &h.positive_spans);
            put_deltas(out, field::POSITIVE_DELTAS, &h.positive_buckets);
            put_uint64(out, field::RESET_HINT, hint_number(h.counter_reset_hint));
            put_int64(out, field::TIMESTAMP, timestamp_ms);
            put_doubles(out, field::CUSTOM_VALUES, &h.custom_values);
        }
        HistogramValue::Float(h) => {
            put_double_always(out, field::COUNT_FLOAT, h.count);
            put_shape(out, h.sum, h.schema, h.zero_threshold);
            put_double_always(out, field::ZERO_COUNT_FLOAT, h.zero_count);
            put_spans(out, field::NEGATIVE_SPANS, &h.negative_spans);
            put_doubles(out, field::NEGATIVE_COUNTS, &h.negative_buckets);
            put_spans(out, field::POSITIVE_SPANS, &h.positive_spans);
            put_doubles(out, field::POSITIVE_COUNTS, &h.positive_buckets);
            put_uint64(out, field::RESET_HINT, hint_number(h.counter_reset_hint));
            put_int64(out, field::TIMESTAMP, timestamp_ms);
            put_doubles(out, field::CUSTOM_VALUES, &h.custom_values);
        }
    }
}

/// Appends the start timestamp, which version 2.0 has; 0 is none.
pub(crate) fn write_start(out: &mut Vec<u8>, start_timestamp_ms: i64) {
    put_int64(out, field::START_TIMESTAMP, start_timestamp_ms);
}

fn put_shape(out: &mut Vec<u8>, sum: f64, schema: i32, zero_threshold: f64) {
    put_double(out, field::SUM, sum);
    put_sint64(out, field::SCHEMA, i64::from(schema));
    put_double(out, field::ZERO_THRESHOLD, zero_threshold);
}

fn put_spans(out: &mut Vec<u8>, field: u32, spans: &[Span]) {
    for s in spans {
        let offset = zigzag(i64::from(s.offset));
        let mut len = 0;
        // A tag of these numbers is one byte; the default 0 is left out.
        len += if offset == 0 { 0 } else { 1 + varint_len(offset) };
        len += if s.length == 0 { 0 } else { 1 + varint_len(u64::from(s.length)) };
        put_len(out, field, len);
        put_uint64(out, field::SPAN_OFFSET, offset);
        put_uint64(out, field::SPAN_LENGTH, u64::from(s.length));
    }
}

fn put_deltas(out: &mut Vec<u8>, field: u32, deltas: &[i64]) {
    if deltas.is_empty() {
        return;
    }
    put_len(out, field, deltas.iter().map(|d| varint_len(zigzag(*d))).sum());
    deltas.iter().for_each(|d| put_varint(out, zigzag(*d)));
}

fn put_doubles(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    if values.is_empty() {
        return;
    }
    put_len(out, field, values.len() * 8);
    values.iter().for_each(|v| out.extend_from_slice(&v.to_bits().to_le_bytes()));
}
