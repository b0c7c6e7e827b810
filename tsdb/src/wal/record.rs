//! What records hold. Spec: docs/formats/wal.md#records. The first byte is the type.
//!
//! Reading order: this file (series, tombstones, markers, exemplars, metadata), `timed` (samples), `histogram`. Everything
//! that Prometheus 3.14 writes is read and can be written; samples without start timestamps are written as its older versions
//! read them. Types from the future are [`Record::Unknown`], as Prometheus skips them too.

pub(crate) mod histogram;
mod timed;

use model::{Exemplar, Labels, Metadata, MetricType, SeriesRef, WalRecord};

use crate::varint::{Reader, put_be64, put_str, put_uvarint, put_varint};

pub(crate) use timed::{
    encode_histograms, encode_samples, encode_started_histograms, encode_started_samples,
};

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

pub(crate) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_uvarint(out, labels.len() as u64);
    for (n, v) in labels {
        put_str(out, n);
        put_str(out, v);
    }
}

pub(crate) fn encode_exemplars(exemplars: &[(SeriesRef, Exemplar)]) -> Vec<u8> {
    let entries = exemplars.iter().map(|(r, e)| (*r, e.timestamp_ms.unwrap_or(0), e));
    timed::put_based(EXEMPLARS, entries, |out, e| {
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

/// Float samples of a record, appended to `out`; false, and nothing appended, when the record holds something else or has start
/// timestamps. The fast path of replays.
///
/// # Errors
/// What the bytes are not.
pub(crate) fn decode_floats(bytes: &[u8], out: &mut Vec<(u64, i64, f64)>) -> Result<bool, &'static str> {
    match bytes.split_first() {
        Some((&SAMPLES, rest)) => {
            timed::floats(&mut Reader::new(rest), out).map(|()| true).ok_or("samples record")
        }
        _ => Ok(false),
    }
}

/// Decodes a record.
///
/// # Errors
/// What the bytes are not.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, &'static str> {
    let mut r = Reader::new(bytes);
    let kind = r.u8().ok_or("empty record")?;
    let data = match kind {
        SERIES => list(&mut r, |r| Some((SeriesRef(r.be64()?), labels(r)?))).map(WalRecord::Series),
        SAMPLES => timed::samples(&mut r),
        SAMPLES_V2 => timed::samples_v2(&mut r),
        EXEMPLARS => exemplars(&mut r).map(WalRecord::Exemplars),
        METADATA => list(&mut r, metadata).map(WalRecord::Metadata),
        HISTOGRAMS | CUSTOM_HISTOGRAMS => timed::histograms(&mut r, histogram::int),
        FLOAT_HISTOGRAMS | CUSTOM_FLOAT_HISTOGRAMS => timed::histograms(&mut r, histogram::float),
        HISTOGRAMS_V2 => timed::histograms_v2(&mut r, histogram::int),
        FLOAT_HISTOGRAMS_V2 => timed::histograms_v2(&mut r, histogram::float),
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

pub(crate) fn labels(r: &mut Reader<'_>) -> Option<Labels> {
    let n = r.count(2)?;
    let mut pairs = Vec::with_capacity(n);
    for _ in 0..n {
        pairs.push((r.str()?, r.str()?));
    }
    let sorted = pairs.windows(2).all(|w| w[0].0 < w[1].0) && pairs.iter().all(|p| !p.1.is_empty());
    Some(if sorted { Labels::from_sorted(pairs.iter().copied()) } else { Labels::from_pairs(pairs) })
}

fn exemplars(r: &mut Reader<'_>) -> Option<Vec<(SeriesRef, Exemplar)>> {
    let timed = timed::based(r, |r| Some((r.f64()?, labels(r)?)))?;
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

#[cfg(test)]
mod tests {
    use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
    use model::{Histogram, HistogramValue};

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
        assert_eq!(got, all);

        let starts = [7, 7, 0, 20];
        let started: Vec<_> = all.iter().zip(starts).map(|((r, t, h), s)| (*r, *t, s, h)).collect();
        let records = encode_started_histograms(&started);
        assert_eq!(records.iter().map(|r| r[0]).collect::<Vec<_>>(), [HISTOGRAMS_V2, FLOAT_HISTOGRAMS_V2]);
        let mut got = Vec::new();
        for rec in records {
            match decode(&rec).expect("own bytes") {
                Record::Data(WalRecord::StartedHistograms(h)) => got.extend(h),
                other => panic!("{other:?}"),
            }
        }
        assert!(got.iter().zip(&started).all(|(a, b)| (a.0, a.1, a.2, &a.3) == *b), "{got:?}");
        // A schema that nobody knows is passed over, what follows it is not.
        let odd = HistogramValue::from(Histogram { schema: 99, ..h });
        let list = [(SeriesRef(8), 1, odd), all[0].clone()];
        let Record::Data(WalRecord::Histograms(got)) =
            decode(&encode_histograms(&list)[0]).expect("own bytes")
        else {
            panic!("histograms")
        };
        assert_eq!(got, all[..1]);
    }

    #[test]
    fn start_timestamps_need_version_2() {
        let encode = |list: &[(SeriesRef, i64, i64, f64)]| encode_started_samples(list.iter().copied());
        let plain = [(SeriesRef(5), 100, 0, 1.5), (SeriesRef(7), 101, 0, 2.5)];
        check(&encode(&plain), "Data(Samples([(SeriesRef(5), 100, 1.5), (SeriesRef(7), 101, 2.5)]))");
        assert_eq!(encode(&plain)[0], SAMPLES);
        let started = [
            (SeriesRef(5), 100, 60, 1.0),
            (SeriesRef(7), 101, 60, 1.0),
            (SeriesRef(6), 99, 0, 1.0),
            (SeriesRef(9), 100, 61, 1.0),
        ];
        let bytes = encode(&started);
        let one = [0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
        // Signed varints: 5, 100, 60; then 2, 1, "the same"; −1, −1, none; 3, 0, 1 more than the first.
        let expect = [
            &[SAMPLES_V2, 10, 200, 1, 120][..],
            &one,
            &[4, 2, 1],
            &one,
            &[1, 1, 0],
            &one,
            &[6, 0, 2, 2],
            &one,
        ];
        assert_eq!(bytes, expect.concat());
        check(&bytes, &format!("Data(StartedSamples({started:?}))"));
    }
}
