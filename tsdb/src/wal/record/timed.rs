//! Records of entries with a series and a time. Spec: docs/formats/wal.md#records.
//!
//! Version 1 writes reference and timestamp as difference to those of the first entry. Version 2, which also holds start
//! timestamps, writes the reference as difference to the entry before.

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{HistogramValue, SeriesRef, WalRecord};

use super::histogram;
use super::{
    CUSTOM_FLOAT_HISTOGRAMS, CUSTOM_HISTOGRAMS, FLOAT_HISTOGRAMS, FLOAT_HISTOGRAMS_V2, HISTOGRAMS,
    HISTOGRAMS_V2, SAMPLES, SAMPLES_V2,
};
use crate::varint::{Reader, put_be64, put_varint};

/// Start timestamps of version 2: none, that of the entry before, or a difference to the first one.
const START_NONE: u8 = 0;
const START_SAME: u8 = 1;
const START_GIVEN: u8 = 2;

/// Reference, timestamp, value.
pub(crate) type Timed<T> = (SeriesRef, i64, T);
/// Reference, timestamp, start timestamp (0: none), value.
pub(crate) type Started<T> = (SeriesRef, i64, i64, T);

// === Writing ===

/// A record of version 1.
pub(super) fn put_based<T>(
    kind: u8,
    entries: impl Iterator<Item = Timed<T>>,
    mut body: impl FnMut(&mut Vec<u8>, T),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + entries.size_hint().0 * 12);
    out.push(kind);
    let mut base = None;
    for (r, t, value) in entries {
        let (base_ref, base_t) = *base.get_or_insert_with(|| {
            put_be64(&mut out, r.0);
            put_be64(&mut out, t as u64);
            (r.0, t)
        });
        put_varint(&mut out, r.0.wrapping_sub(base_ref) as i64);
        put_varint(&mut out, t.wrapping_sub(base_t));
        body(&mut out, value);
    }
    out
}

/// A record of version 2.
fn put_started<T>(
    kind: u8,
    entries: impl Iterator<Item = Started<T>>,
    mut body: impl FnMut(&mut Vec<u8>, T),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(31 + entries.size_hint().0 * 13);
    out.push(kind);
    let mut first: Option<(i64, i64)> = None;
    let (mut last_ref, mut last_start) = (0_u64, 0_i64);
    for (r, t, start, value) in entries {
        put_varint(&mut out, r.0.wrapping_sub(last_ref) as i64);
        match first {
            None => {
                put_varint(&mut out, t);
                put_varint(&mut out, start);
                first = Some((t, start));
            }
            Some((first_t, first_start)) => {
                put_varint(&mut out, t.wrapping_sub(first_t));
                if start == 0 {
                    out.push(START_NONE);
                } else if start == last_start {
                    out.push(START_SAME);
                } else {
                    out.push(START_GIVEN);
                    put_varint(&mut out, start.wrapping_sub(first_start));
                }
            }
        }
        body(&mut out, value);
        (last_ref, last_start) = (r.0, start);
    }
    out
}

fn put_float(out: &mut Vec<u8>, v: f64) {
    put_be64(out, v.to_bits());
}

/// Float samples without start timestamps.
pub(crate) fn encode_samples(samples: &[Timed<f64>]) -> Vec<u8> {
    put_based(SAMPLES, samples.iter().copied(), put_float)
}

/// Float samples; in version 2 when one has a start timestamp.
pub(crate) fn encode_started_samples(samples: impl Iterator<Item = Started<f64>> + Clone) -> Vec<u8> {
    if samples.clone().any(|s| s.2 != 0) {
        put_started(SAMPLES_V2, samples, put_float)
    } else {
        put_based(SAMPLES, samples.map(|(r, t, _, v)| (r, t, v)), put_float)
    }
}

/// Histograms without start timestamps.
pub(crate) fn encode_histograms(all: &[Timed<HistogramValue>]) -> Vec<Vec<u8>> {
    let started: Vec<_> = all.iter().map(|(r, t, h)| (*r, *t, 0, h)).collect();
    encode_started_histograms(&started)
}

/// Histograms go into up to four records: integer or float, exponential or custom buckets. Those of version 2 take both
/// sorts of buckets.
pub(crate) fn encode_started_histograms(all: &[Started<&HistogramValue>]) -> Vec<Vec<u8>> {
    let with_starts = all.iter().any(|s| s.2 != 0);
    let is_custom = |h: &HistogramValue| match h {
        HistogramValue::Int(h) => h.schema == CUSTOM_BUCKETS_SCHEMA,
        HistogramValue::Float(h) => h.schema == CUSTOM_BUCKETS_SCHEMA,
    };
    let kind = |h: &HistogramValue| match (h, with_starts, is_custom(h)) {
        (HistogramValue::Int(_), true, _) => HISTOGRAMS_V2,
        (HistogramValue::Int(_), false, false) => HISTOGRAMS,
        (HistogramValue::Int(_), false, true) => CUSTOM_HISTOGRAMS,
        (HistogramValue::Float(_), true, _) => FLOAT_HISTOGRAMS_V2,
        (HistogramValue::Float(_), false, false) => FLOAT_HISTOGRAMS,
        (HistogramValue::Float(_), false, true) => CUSTOM_FLOAT_HISTOGRAMS,
    };
    const KINDS: [u8; 6] = [
        HISTOGRAMS,
        CUSTOM_HISTOGRAMS,
        FLOAT_HISTOGRAMS,
        CUSTOM_FLOAT_HISTOGRAMS,
        HISTOGRAMS_V2,
        FLOAT_HISTOGRAMS_V2,
    ];
    let one = |k: u8| {
        let mut part = all.iter().copied().filter(move |(.., h)| kind(h) == k).peekable();
        part.peek()?;
        Some(if with_starts {
            put_started(k, part, histogram::put)
        } else {
            put_based(k, part.map(|(r, t, _, h)| (r, t, h)), histogram::put)
        })
    };
    KINDS.into_iter().filter_map(one).collect()
}

// === Reading ===

/// The entries of a record of version 1.
pub(super) fn based<'a, T>(
    r: &mut Reader<'a>,
    mut body: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<Timed<T>>> {
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

/// Float samples of version 1.
pub(super) fn floats(r: &mut Reader<'_>, out: &mut Vec<(u64, i64, f64)>) -> Option<()> {
    if r.is_empty() {
        return Some(());
    }
    let (base_ref, base_t) = (r.be64()?, r.be64()? as i64);
    while !r.is_empty() {
        let s = base_ref.wrapping_add(r.varint()? as u64);
        let t = base_t.wrapping_add(r.varint()?);
        out.push((s, t, r.f64()?));
    }
    Some(())
}

/// The entries of a record of version 2.
fn started<'a, T>(
    r: &mut Reader<'a>,
    mut body: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<Started<T>>> {
    if r.is_empty() {
        return Some(Vec::new());
    }
    let (mut s, first_t, first_start) = (r.varint()?, r.varint()?, r.varint()?);
    let mut start = first_start;
    let mut out = Vec::with_capacity(r.len() / 11);
    out.push((SeriesRef(s as u64), first_t, start, body(r)?));
    while !r.is_empty() {
        s = s.wrapping_add(r.varint()?);
        let t = first_t.wrapping_add(r.varint()?);
        start = match r.u8()? {
            START_NONE => 0,
            START_SAME => start,
            _ => first_start.wrapping_add(r.varint()?),
        };
        out.push((SeriesRef(s as u64), t, start, body(r)?));
    }
    Some(out)
}

fn without_starts<T>(list: Vec<Started<T>>) -> Result<Vec<Timed<T>>, Vec<Started<T>>> {
    if list.iter().any(|s| s.2 != 0) {
        return Err(list);
    }
    Ok(list.into_iter().map(|(r, t, _, v)| (r, t, v)).collect())
}

pub(super) fn samples(r: &mut Reader<'_>) -> Option<WalRecord> {
    based(r, Reader::f64).map(WalRecord::Samples)
}

pub(super) fn samples_v2(r: &mut Reader<'_>) -> Option<WalRecord> {
    let list = started(r, Reader::f64)?;
    Some(without_starts(list).map_or_else(WalRecord::StartedSamples, WalRecord::Samples))
}

type Body = fn(&mut Reader<'_>) -> Option<histogram::Known>;

pub(super) fn histograms(r: &mut Reader<'_>, body: Body) -> Option<WalRecord> {
    let list = based(r, body)?.into_iter().filter_map(|(s, t, h)| Some((s, t, h?)));
    Some(WalRecord::Histograms(list.collect()))
}

pub(super) fn histograms_v2(r: &mut Reader<'_>, body: Body) -> Option<WalRecord> {
    let list = started(r, body)?.into_iter().filter_map(|(s, t, start, h)| Some((s, t, start, h?)));
    Some(without_starts(list.collect()).map_or_else(WalRecord::StartedHistograms, WalRecord::Histograms))
}
