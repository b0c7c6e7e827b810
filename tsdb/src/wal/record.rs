//! What records hold. Spec: docs/formats/wal.md#records. The first byte is the type.
//!
//! Written are series, samples (version 1), tombstones, exemplars, metadata and histograms; read is everything that
//! Prometheus 3 writes. Types from the future are [`Record::Unknown`], as Prometheus skips them too.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{
    Exemplar, FloatHistogram, Histogram, HistogramValue, Labels, Metadata, MetricType, SeriesRef, WalRecord,
};

use crate::varint::{Reader, put_be64, put_str, put_uvarint, put_varint};

const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const TOMBSTONES: u8 = 3;
const EXEMPLARS: u8 = 4;
const METADATA: u8 = 6;
const HISTOGRAMS: u8 = 7;
const FLOAT_HISTOGRAMS: u8 = 8;
const CUSTOM_HISTOGRAMS: u8 = 9;
const CUSTOM_FLOAT_HISTOGRAMS: u8 = 10;
const SAMPLES_V2: u8 = 11;
const HISTOGRAMS_V2: u8 = 12;
const FLOAT_HISTOGRAMS_V2: u8 = 13;

/// Start timestamps of version 2: none, that of the entry before, or a difference to the first one.
const START_NONE: u8 = 0;
const START_SAME: u8 = 1;

/// A decoded record.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// What followers of the log see too.
    Data(WalRecord),
    /// Deleted ranges `[mint, maxt]`.
    Tombstones(Vec<(SeriesRef, i64, i64)>),
    /// A type that this version does not know.
    Unknown,
}

// === Writing ===

pub(crate) fn encode_series<'a>(series: impl IntoIterator<Item = (SeriesRef, &'a Labels)>) -> Vec<u8> {
    let mut out = vec![SERIES];
    for (r, labels) in series {
        put_be64(&mut out, r.0);
        put_labels(&mut out, labels);
    }
    out
}

fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_uvarint(out, labels.len() as u64);
    for (n, v) in labels {
        put_str(out, n);
        put_str(out, v);
    }
}

/// Writes `(reference, timestamp)` of the first entry as base and of each as difference to it.
fn with_base<T>(
    kind: u8,
    entries: &[T],
    key: impl Fn(&T) -> (SeriesRef, i64),
    mut body: impl FnMut(&mut Vec<u8>, &T),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + entries.len() * 12);
    out.push(kind);
    let Some(first) = entries.first() else { return out };
    let (base_ref, base_t) = key(first);
    put_be64(&mut out, base_ref.0);
    put_be64(&mut out, base_t as u64);
    for e in entries {
        let (r, t) = key(e);
        put_varint(&mut out, r.0.wrapping_sub(base_ref.0) as i64);
        put_varint(&mut out, t.wrapping_sub(base_t));
        body(&mut out, e);
    }
    out
}

pub(crate) fn encode_samples(samples: &[(SeriesRef, i64, f64)]) -> Vec<u8> {
    with_base(SAMPLES, samples, |s| (s.0, s.1), |out, s| put_be64(out, s.2.to_bits()))
}

pub(crate) fn encode_exemplars(exemplars: &[(SeriesRef, Exemplar)]) -> Vec<u8> {
    let key = |e: &(SeriesRef, Exemplar)| (e.0, e.1.timestamp_ms.unwrap_or(0));
    with_base(EXEMPLARS, exemplars, key, |out, (_, e)| {
        put_be64(out, e.value.to_bits());
        put_labels(out, &e.labels);
    })
}

pub(crate) fn encode_tombstones(stones: &[(SeriesRef, i64, i64)]) -> Vec<u8> {
    let mut out = vec![TOMBSTONES];
    for (r, mint, maxt) in stones {
        put_be64(&mut out, r.0);
        put_varint(&mut out, *mint);
        put_varint(&mut out, *maxt);
    }
    out
}

pub(crate) fn encode_metadata(metadata: &[(SeriesRef, Metadata)]) -> Vec<u8> {
    let mut out = vec![METADATA];
    for (r, m) in metadata {
        put_uvarint(&mut out, r.0);
        out.push(metric_type_to_byte(m.metric_type));
        put_uvarint(&mut out, 2);
        put_str(&mut out, "UNIT");
        put_str(&mut out, &m.unit);
        put_str(&mut out, "HELP");
        put_str(&mut out, &m.help);
    }
    out
}

/// Histograms go into up to four records: integer or float, exponential or custom buckets.
pub(crate) fn encode_histograms(all: &[(SeriesRef, i64, HistogramValue)]) -> Vec<Vec<u8>> {
    type Entry = (SeriesRef, i64, HistogramValue);
    let class = |h: &HistogramValue| match h {
        HistogramValue::Int(h) if h.schema == CUSTOM_BUCKETS_SCHEMA => CUSTOM_HISTOGRAMS,
        HistogramValue::Int(_) => HISTOGRAMS,
        HistogramValue::Float(h) if h.schema == CUSTOM_BUCKETS_SCHEMA => CUSTOM_FLOAT_HISTOGRAMS,
        HistogramValue::Float(_) => FLOAT_HISTOGRAMS,
    };
    let mut out = Vec::new();
    for kind in [HISTOGRAMS, CUSTOM_HISTOGRAMS, FLOAT_HISTOGRAMS, CUSTOM_FLOAT_HISTOGRAMS] {
        let part: Vec<&Entry> = all.iter().filter(|(_, _, h)| class(h) == kind).collect();
        if !part.is_empty() {
            out.push(with_base(
                kind,
                &part,
                |e| (e.0, e.1),
                |out, e| match &e.2 {
                    HistogramValue::Int(h) => put_histogram(out, h),
                    HistogramValue::Float(h) => put_float_histogram(out, h),
                },
            ));
        }
    }
    out
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

pub(crate) fn hint_to_byte(h: CounterResetHint) -> u8 {
    match h {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

fn metric_type_to_byte(t: MetricType) -> u8 {
    match t {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

// === Reading ===

/// Decodes a record.
///
/// # Errors
/// What the bytes are not.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, &'static str> {
    let mut r = Reader::new(bytes);
    let kind = r.u8().ok_or("empty record")?;
    let data = match kind {
        SERIES => list(&mut r, |r| Some((SeriesRef(r.be64()?), labels(r)?))).map(WalRecord::Series),
        SAMPLES => based(&mut r, Reader::f64).map(WalRecord::Samples),
        SAMPLES_V2 => based_v2(&mut r, Reader::f64).map(WalRecord::Samples),
        EXEMPLARS => exemplars(&mut r).map(WalRecord::Exemplars),
        METADATA => list(&mut r, metadata).map(WalRecord::Metadata),
        HISTOGRAMS | CUSTOM_HISTOGRAMS => based(&mut r, histogram).map(WalRecord::Histograms),
        FLOAT_HISTOGRAMS | CUSTOM_FLOAT_HISTOGRAMS => {
            based(&mut r, float_histogram).map(WalRecord::Histograms)
        }
        HISTOGRAMS_V2 => based_v2(&mut r, histogram).map(WalRecord::Histograms),
        FLOAT_HISTOGRAMS_V2 => based_v2(&mut r, float_histogram).map(WalRecord::Histograms),
        TOMBSTONES => {
            let stones = list(&mut r, |r| Some((SeriesRef(r.be64()?), r.varint()?, r.varint()?)));
            return stones.map(Record::Tombstones).ok_or("tombstone record");
        }
        _ => return Ok(Record::Unknown),
    };
    data.map(Record::Data).ok_or(match kind {
        SERIES => "series record",
        SAMPLES | SAMPLES_V2 => "samples record",
        EXEMPLARS => "exemplars record",
        METADATA => "metadata record",
        _ => "histograms record",
    })
}

/// Entries up to the end of the record.
fn list<'a, T>(r: &mut Reader<'a>, mut one: impl FnMut(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
    let mut out = Vec::new();
    while !r.is_empty() {
        out.push(one(r)?);
    }
    Some(out)
}

type Timed<T> = Vec<(SeriesRef, i64, T)>;

fn based<'a, T>(r: &mut Reader<'a>, mut body: impl FnMut(&mut Reader<'a>) -> Option<T>) -> Option<Timed<T>> {
    if r.is_empty() {
        return Some(Vec::new());
    }
    let (base_ref, base_t) = (r.be64()?, r.be64()? as i64);
    let mut out = Vec::with_capacity(r.len() / 10);
    while !r.is_empty() {
        let s = SeriesRef(base_ref.wrapping_add(r.varint()? as u64));
        let t = base_t.wrapping_add(r.varint()?);
        out.push((s, t, body(r)?));
    }
    Some(out)
}

fn based_v2<'a, T>(
    r: &mut Reader<'a>,
    mut body: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<Timed<T>> {
    if r.is_empty() {
        return Some(Vec::new());
    }
    let (mut s, first_t, _start) = (r.varint()?, r.varint()?, r.varint()?);
    let mut out = vec![(SeriesRef(s as u64), first_t, body(r)?)];
    while !r.is_empty() {
        s = s.wrapping_add(r.varint()?);
        let t = first_t.wrapping_add(r.varint()?);
        if !matches!(r.u8()?, START_NONE | START_SAME) {
            r.varint()?;
        }
        out.push((SeriesRef(s as u64), t, body(r)?));
    }
    Some(out)
}

fn labels(r: &mut Reader<'_>) -> Option<Labels> {
    let n = r.count(2)?;
    let mut pairs = Vec::with_capacity(n);
    for _ in 0..n {
        pairs.push((r.str()?, r.str()?));
    }
    let sorted = pairs.windows(2).all(|w| w[0].0 < w[1].0) && pairs.iter().all(|p| !p.1.is_empty());
    Some(if sorted { Labels::from_sorted(pairs.iter().copied()) } else { Labels::from_pairs(pairs) })
}

fn exemplars(r: &mut Reader<'_>) -> Option<Vec<(SeriesRef, Exemplar)>> {
    let timed = based(r, |r| Some((r.f64()?, labels(r)?)))?;
    let one = |(s, t, (value, labels))| (s, Exemplar { labels, value, timestamp_ms: Some(t) });
    Some(timed.into_iter().map(one).collect())
}

fn metadata(r: &mut Reader<'_>) -> Option<(SeriesRef, Metadata)> {
    let s = SeriesRef(r.uvarint()?);
    let metric_type = match r.u8()? {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    };
    let mut m = Metadata { metric_type, ..Metadata::default() };
    for _ in 0..r.count(2)? {
        let (name, value) = (r.str()?, r.str()?);
        match name {
            "UNIT" => m.unit = value.into(),
            "HELP" => m.help = value.into(),
            _ => {}
        }
    }
    Some((s, m))
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

fn histogram(r: &mut Reader<'_>) -> Option<HistogramValue> {
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
    Some(HistogramValue::Int(Arc::new(h)))
}

fn float_histogram(r: &mut Reader<'_>) -> Option<HistogramValue> {
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
    Some(HistogramValue::Float(Arc::new(h)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoded: &[u8], expect: &str) {
        let got = decode(encoded).expect("own bytes");
        assert_eq!(format!("{got:?}"), expect);
        for end in 1..encoded.len() {
            let _ = decode(&encoded[..end]); // Must not panic.
        }
    }

    #[test]
    fn records_come_back() {
        let l = Labels::from_pairs([("__name__", "up"), ("job", "x")]);
        check(
            &encode_series([(SeriesRef(7), &l), (SeriesRef(1 << 40), &l)]),
            "Data(Series([(SeriesRef(7), up{job=\"x\"}), (SeriesRef(1099511627776), up{job=\"x\"})]))",
        );
        check(
            &encode_samples(&[(SeriesRef(9), 100, 1.5), (SeriesRef(2), -100, -0.0)]),
            "Data(Samples([(SeriesRef(9), 100, 1.5), (SeriesRef(2), -100, -0.0)]))",
        );
        check(
            &encode_tombstones(&[(SeriesRef(9), i64::MIN, i64::MAX)]),
            &format!("Tombstones([(SeriesRef(9), {}, {})])", i64::MIN, i64::MAX),
        );
        let m = Metadata { metric_type: MetricType::Counter, unit: "s".into(), help: "h".into() };
        check(
            &encode_metadata(&[(SeriesRef(3), m.clone())]),
            &format!("Data(Metadata([(SeriesRef(3), {m:?})]))"),
        );
        let e = Exemplar { labels: l, value: 2.0, timestamp_ms: Some(5) };
        check(
            &encode_exemplars(&[(SeriesRef(3), e.clone())]),
            &format!("Data(Exemplars([(SeriesRef(3), {e:?})]))"),
        );
        check(&[200, 1, 2], "Unknown");
    }

    #[test]
    fn histograms_are_split_by_kind() {
        let h = Histogram {
            schema: 3,
            count: 5,
            zero_count: 1,
            sum: model::stale_nan(),
            positive_spans: vec![Span { offset: -2, length: 2 }],
            positive_buckets: vec![3, -1],
            ..Default::default()
        };
        let custom = Histogram { schema: CUSTOM_BUCKETS_SCHEMA, custom_values: vec![0.5, 1.0], ..h.clone() };
        let all: Vec<(SeriesRef, i64, HistogramValue)> = vec![
            (SeriesRef(1), 10, h.clone().into()),
            (SeriesRef(2), 11, custom.clone().into()),
            (SeriesRef(3), 12, h.to_float().into()),
            (SeriesRef(4), 13, custom.to_float().into()),
        ];
        let mut got = Vec::new();
        for rec in encode_histograms(&all) {
            match decode(&rec).expect("own bytes") {
                Record::Data(WalRecord::Histograms(h)) => got.extend(h),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got.len(), 4);
        got.iter().zip(&all).for_each(|(a, b)| assert_eq!(a, b));
    }
}
