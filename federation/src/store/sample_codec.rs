//! One sample in bytes, as journal records and chunks of any samples hold it. Spec: docs/formats/longterm.md#journal.
//!
//! Plain rather than small: native histograms of one chunk are compressed together by zstd afterwards.

use model::histogram::{CounterResetHint, Span};
use model::{FloatHistogram, Histogram, HistogramValue, Sample, SampleValue, StorageError};

use super::varint::{Reader, put_f64, put_varint, put_zigzag};

const FLOAT: u8 = 0;
const INT_HISTOGRAM: u8 = 1;
const FLOAT_HISTOGRAM: u8 = 2;
const WITH_START: u8 = 0x80;

/// Writes everything of a sample but its timestamp.
pub(super) fn put_sample(out: &mut Vec<u8>, sample: &Sample) {
    let kind = match &sample.value {
        SampleValue::Float(_) => FLOAT,
        SampleValue::Histogram(HistogramValue::Int(_)) => INT_HISTOGRAM,
        SampleValue::Histogram(HistogramValue::Float(_)) => FLOAT_HISTOGRAM,
    };
    if sample.start_timestamp_ms == 0 {
        out.push(kind);
    } else {
        out.push(kind | WITH_START);
        put_zigzag(out, sample.timestamp_ms.wrapping_sub(sample.start_timestamp_ms));
    }
    match &sample.value {
        SampleValue::Float(v) => put_f64(out, *v),
        SampleValue::Histogram(HistogramValue::Int(h)) => put_int_histogram(out, h),
        SampleValue::Histogram(HistogramValue::Float(h)) => put_float_histogram(out, h),
    }
}

/// Reads [`put_sample`].
pub(super) fn read_sample(r: &mut Reader<'_>, timestamp_ms: i64) -> Result<Sample, StorageError> {
    let kind = r.u8()?;
    let start_timestamp_ms = if kind & WITH_START == 0 { 0 } else { timestamp_ms.wrapping_sub(r.zigzag()?) };
    let value = match kind & !WITH_START {
        FLOAT => SampleValue::Float(r.f64()?),
        INT_HISTOGRAM => SampleValue::Histogram(read_int_histogram(r)?.into()),
        FLOAT_HISTOGRAM => SampleValue::Histogram(read_float_histogram(r)?.into()),
        other => return Err(r.error(format!("unknown kind of sample {other}"))),
    };
    Ok(Sample { timestamp_ms, start_timestamp_ms, value })
}

fn put_int_histogram(out: &mut Vec<u8>, h: &Histogram) {
    put_head(out, h.counter_reset_hint, h.schema, h.zero_threshold, h.sum);
    put_varint(out, h.zero_count);
    put_varint(out, h.count);
    for (spans, buckets) in
        [(&h.positive_spans, &h.positive_buckets), (&h.negative_spans, &h.negative_buckets)]
    {
        put_spans(out, spans);
        put_varint(out, buckets.len() as u64);
        buckets.iter().for_each(|b| put_zigzag(out, *b));
    }
    put_floats(out, &h.custom_values);
}

fn put_float_histogram(out: &mut Vec<u8>, h: &FloatHistogram) {
    put_head(out, h.counter_reset_hint, h.schema, h.zero_threshold, h.sum);
    put_f64(out, h.zero_count);
    put_f64(out, h.count);
    for (spans, buckets) in
        [(&h.positive_spans, &h.positive_buckets), (&h.negative_spans, &h.negative_buckets)]
    {
        put_spans(out, spans);
        put_floats(out, buckets);
    }
    put_floats(out, &h.custom_values);
}

fn put_head(out: &mut Vec<u8>, hint: CounterResetHint, schema: i32, zero_threshold: f64, sum: f64) {
    out.push(match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    });
    put_zigzag(out, i64::from(schema));
    put_f64(out, zero_threshold);
    put_f64(out, sum);
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_varint(out, spans.len() as u64);
    for s in spans {
        put_zigzag(out, i64::from(s.offset));
        put_varint(out, u64::from(s.length));
    }
}

fn put_floats(out: &mut Vec<u8>, floats: &[f64]) {
    put_varint(out, floats.len() as u64);
    floats.iter().for_each(|f| put_f64(out, *f));
}

fn read_int_histogram(r: &mut Reader<'_>) -> Result<Histogram, StorageError> {
    let (counter_reset_hint, schema, zero_threshold, sum) = read_head(r)?;
    Ok(Histogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        sum,
        zero_count: r.varint()?,
        count: r.varint()?,
        positive_spans: read_spans(r)?,
        positive_buckets: read_list(r, 1, Reader::zigzag)?,
        negative_spans: read_spans(r)?,
        negative_buckets: read_list(r, 1, Reader::zigzag)?,
        custom_values: read_list(r, 8, Reader::f64)?,
    })
}

fn read_float_histogram(r: &mut Reader<'_>) -> Result<FloatHistogram, StorageError> {
    let (counter_reset_hint, schema, zero_threshold, sum) = read_head(r)?;
    Ok(FloatHistogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        sum,
        zero_count: r.f64()?,
        count: r.f64()?,
        positive_spans: read_spans(r)?,
        positive_buckets: read_list(r, 8, Reader::f64)?,
        negative_spans: read_spans(r)?,
        negative_buckets: read_list(r, 8, Reader::f64)?,
        custom_values: read_list(r, 8, Reader::f64)?,
    })
}

fn read_head(r: &mut Reader<'_>) -> Result<(CounterResetHint, i32, f64, f64), StorageError> {
    let hint = match r.u8()? {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        3 => CounterResetHint::Gauge,
        other => return Err(r.error(format!("unknown counter reset hint {other}"))),
    };
    let schema = i32::try_from(r.zigzag()?).map_err(|_| r.error("schema out of range"))?;
    Ok((hint, schema, r.f64()?, r.f64()?))
}

fn read_spans(r: &mut Reader<'_>) -> Result<Vec<Span>, StorageError> {
    read_list(r, 2, |r| {
        let offset = i32::try_from(r.zigzag()?).map_err(|_| r.error("span offset out of range"))?;
        let length = u32::try_from(r.varint()?).map_err(|_| r.error("span length out of range"))?;
        Ok(Span { offset, length })
    })
}

fn read_list<'a, T>(
    r: &mut Reader<'a>,
    min_bytes: usize,
    mut one: impl FnMut(&mut Reader<'a>) -> Result<T, StorageError>,
) -> Result<Vec<T>, StorageError> {
    let n = r.count(min_bytes)?;
    (0..n).map(|_| one(r)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Samples of every kind, with awkward values in them.
    pub(in crate::store) fn specimens(timestamp_ms: i64) -> Vec<Sample> {
        let int = Histogram {
            counter_reset_hint: CounterResetHint::NotCounterReset,
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: 5,
            count: u64::MAX,
            sum: model::stale_nan(),
            positive_spans: vec![Span { offset: -7, length: 2 }, Span { offset: 3, length: 1 }],
            positive_buckets: vec![5, -3, i64::MIN],
            negative_spans: vec![Span { offset: i32::MAX, length: 1 }],
            negative_buckets: vec![1],
            custom_values: vec![],
        };
        let float = FloatHistogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            zero_count: -0.0,
            count: 2.5,
            sum: f64::NEG_INFINITY,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.5, 1.0],
            custom_values: vec![0.1, 1.0],
            counter_reset_hint: CounterResetHint::Gauge,
            ..FloatHistogram::default()
        };
        vec![
            Sample::float(timestamp_ms, model::stale_nan()),
            Sample { start_timestamp_ms: timestamp_ms - 77, ..Sample::float(timestamp_ms, -0.0) },
            Sample::histogram(timestamp_ms, int),
            Sample { start_timestamp_ms: timestamp_ms + 1, ..Sample::histogram(timestamp_ms, float) },
            Sample::histogram(timestamp_ms, Histogram::default()),
        ]
    }

    #[test]
    fn samples_round_trip_and_cut_bytes_are_errors() {
        for s in specimens(1_790_000_000_000) {
            let mut b = Vec::new();
            put_sample(&mut b, &s);
            let mut r = Reader::new("sample", &b);
            assert_eq!(read_sample(&mut r, s.timestamp_ms).expect("own bytes"), s);
            assert!(r.is_empty());
            for cut in 0..b.len() {
                assert!(read_sample(&mut Reader::new("sample", &b[..cut]), s.timestamp_ms).is_err());
            }
        }
    }
}
