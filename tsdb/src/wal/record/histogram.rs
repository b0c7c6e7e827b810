//! Histograms within records. Spec: docs/formats/wal.md#records.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span, is_exponential_schema};
use model::{FloatHistogram, Histogram, HistogramValue};

use crate::varint::{Reader, put_be64, put_uvarint, put_varint};

/// `None`: a schema that this version does not know. Such samples are passed over, as Prometheus does.
pub(crate) type Known = Option<HistogramValue>;

fn is_known(schema: i32) -> bool {
    schema == CUSTOM_BUCKETS_SCHEMA || is_exponential_schema(schema)
}

pub(crate) fn put(out: &mut Vec<u8>, h: &HistogramValue) {
    match h {
        HistogramValue::Int(h) => put_histogram(out, h),
        HistogramValue::Float(h) => put_float_histogram(out, h),
    }
}

fn put_f64(out: &mut Vec<u8>, v: f64) {
    put_be64(out, v.to_bits());
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_uvarint(out, spans.len() as u64);
    for s in spans {
        put_varint(out, i64::from(s.offset));
        put_uvarint(out, u64::from(s.length));
    }
}

fn put_list<T: Copy>(out: &mut Vec<u8>, list: &[T], put: impl Fn(&mut Vec<u8>, T)) {
    put_uvarint(out, list.len() as u64);
    list.iter().for_each(|v| put(out, *v));
}

fn put_histogram(out: &mut Vec<u8>, h: &Histogram) {
    out.push(hint_to_byte(h.counter_reset_hint));
    put_varint(out, i64::from(h.schema));
    put_f64(out, h.zero_threshold);
    put_uvarint(out, h.zero_count);
    put_uvarint(out, h.count);
    put_f64(out, h.sum);
    put_spans(out, &h.positive_spans);
    put_spans(out, &h.negative_spans);
    put_list(out, &h.positive_buckets, put_varint);
    put_list(out, &h.negative_buckets, put_varint);
    if h.schema == CUSTOM_BUCKETS_SCHEMA {
        put_list(out, &h.custom_values, put_f64);
    }
}

fn put_float_histogram(out: &mut Vec<u8>, h: &FloatHistogram) {
    out.push(hint_to_byte(h.counter_reset_hint));
    put_varint(out, i64::from(h.schema));
    [h.zero_threshold, h.zero_count, h.count, h.sum].into_iter().for_each(|v| put_f64(out, v));
    put_spans(out, &h.positive_spans);
    put_spans(out, &h.negative_spans);
    put_list(out, &h.positive_buckets, put_f64);
    put_list(out, &h.negative_buckets, put_f64);
    if h.schema == CUSTOM_BUCKETS_SCHEMA {
        put_list(out, &h.custom_values, put_f64);
    }
}

fn hint_to_byte(h: CounterResetHint) -> u8 {
    match h {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

fn spans(r: &mut Reader<'_>) -> Option<Vec<Span>> {
    let n = r.count(2)?;
    (0..n)
        .map(|_| Some(Span { offset: r.varint()?.try_into().ok()?, length: r.uvarint()?.try_into().ok()? }))
        .collect()
}

fn counted<'a, T>(
    r: &mut Reader<'a>,
    min_len_bytes: usize,
    one: fn(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let n = r.count(min_len_bytes)?;
    (0..n).map(|_| one(r)).collect()
}

fn hint(r: &mut Reader<'_>) -> Option<CounterResetHint> {
    Some(match r.u8()? {
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    })
}

pub(crate) fn int(r: &mut Reader<'_>) -> Option<Known> {
    let mut h = Histogram {
        counter_reset_hint: hint(r)?,
        schema: r.varint()?.try_into().ok()?,
        zero_threshold: r.f64()?,
        zero_count: r.uvarint()?,
        count: r.uvarint()?,
        sum: r.f64()?,
        positive_spans: spans(r)?,
        negative_spans: spans(r)?,
        positive_buckets: counted(r, 1, Reader::varint)?,
        negative_buckets: counted(r, 1, Reader::varint)?,
        custom_values: Vec::new(),
    };
    if h.schema == CUSTOM_BUCKETS_SCHEMA {
        h.custom_values = counted(r, 8, Reader::f64)?;
    }
    Some(is_known(h.schema).then(|| HistogramValue::Int(Arc::new(h))))
}

pub(crate) fn float(r: &mut Reader<'_>) -> Option<Known> {
    let mut h = FloatHistogram {
        counter_reset_hint: hint(r)?,
        schema: r.varint()?.try_into().ok()?,
        zero_threshold: r.f64()?,
        zero_count: r.f64()?,
        count: r.f64()?,
        sum: r.f64()?,
        positive_spans: spans(r)?,
        negative_spans: spans(r)?,
        positive_buckets: counted(r, 8, Reader::f64)?,
        negative_buckets: counted(r, 8, Reader::f64)?,
        custom_values: Vec::new(),
    };
    if h.schema == CUSTOM_BUCKETS_SCHEMA {
        h.custom_values = counted(r, 8, Reader::f64)?;
    }
    Some(is_known(h.schema).then(|| HistogramValue::Float(Arc::new(h))))
}
