//! Small records: series rows, exemplars, counters. Spec: docs/formats/longterm.md.

use model::{Exemplar, Labels, Metadata, MetricType, StorageError};

use super::varint::{Reader, check_crc, put_crc, put_f64, put_varint};

const SERIES_VERSION: u8 = 1;

/// Types by their number in the format.
const TYPES: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

pub(super) fn encode_series(labels: &Labels, metadata: Option<&Metadata>) -> Vec<u8> {
    let packed = labels.as_packed();
    let mut out = Vec::with_capacity(packed.len() + 16);
    out.push(SERIES_VERSION);
    put_text(&mut out, packed);
    match metadata {
        None => out.push(0),
        Some(m) => {
            out.push(1);
            let number = TYPES.iter().position(|t| *t == m.metric_type).expect("all types have a number");
            out.push(number as u8);
            put_text(&mut out, &m.unit);
            put_text(&mut out, &m.help);
        }
    }
    put_crc(&mut out);
    out
}

pub(super) fn decode_series(bytes: &[u8]) -> Result<(Labels, Option<Metadata>), StorageError> {
    const WHAT: &str = "series record";
    let mut r = Reader::new(WHAT, check_crc(WHAT, bytes)?);
    let version = r.u8()?;
    if version != SERIES_VERSION {
        return Err(r.error(format!("unknown version {version}")));
    }
    let labels = Labels::from_packed(r.text()?).ok_or_else(|| r.error("labels are damaged"))?;
    let metadata = match r.u8()? {
        0 => None,
        _ => {
            let number = r.u8()?;
            let metric_type = TYPES.get(number as usize).copied().unwrap_or_default();
            Some(Metadata { metric_type, unit: r.text()?.into(), help: r.text()?.into() })
        }
    };
    Ok((labels, metadata))
}

/// A number that tells whether metadata changed; 0 stands for none.
pub(super) fn metadata_hash(labels: &Labels, metadata: Option<&Metadata>) -> u64 {
    match metadata {
        None => 0,
        Some(_) => {
            let row = encode_series(labels, metadata);
            Labels::from_pairs([("crc", format!("{:08x}", crc32c::crc32c(&row)))]).hash64() | 1
        }
    }
}

pub(super) fn encode_exemplar(e: &Exemplar) -> Vec<u8> {
    let packed = e.labels.as_packed();
    let mut out = Vec::with_capacity(packed.len() + 12);
    put_f64(&mut out, e.value);
    out.extend_from_slice(packed.as_bytes());
    put_crc(&mut out);
    out
}

pub(super) fn decode_exemplar(bytes: &[u8], timestamp_ms: i64) -> Result<Exemplar, StorageError> {
    const WHAT: &str = "exemplar";
    let mut r = Reader::new(WHAT, check_crc(WHAT, bytes)?);
    let value = r.f64()?;
    let packed = std::str::from_utf8(r.rest()).ok();
    let labels = packed.and_then(Labels::from_packed).ok_or_else(|| r.error("labels are damaged"))?;
    Ok(Exemplar { labels, value, timestamp_ms: Some(timestamp_ms) })
}

/// Key of the counters in `meta`.
pub(super) const COUNTERS_KEY: &[u8] = b"counters";

pub(super) fn encode_counters(next_id: u64, next_seq: u64) -> Vec<u8> {
    let mut out = next_id.to_le_bytes().to_vec();
    out.extend_from_slice(&next_seq.to_le_bytes());
    put_crc(&mut out);
    out
}

pub(super) fn decode_counters(bytes: &[u8]) -> Result<(u64, u64), StorageError> {
    const WHAT: &str = "counters";
    let body = check_crc(WHAT, bytes)?;
    let numbers = body.split_first_chunk::<8>().and_then(|(a, b)| Some((a, b.first_chunk::<8>()?)));
    let (id, seq) = numbers.ok_or_else(|| StorageError::decode(WHAT, "too short"))?;
    Ok((u64::from_le_bytes(*id), u64::from_le_bytes(*seq)))
}

fn put_text(out: &mut Vec<u8>, s: &str) {
    put_varint(out, s.len() as u64);
    out.extend_from_slice(s.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_damage_is_found() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "ü")]);
        let meta =
            Metadata { metric_type: MetricType::StateSet, unit: "s".into(), help: "Some\nhelp".into() };
        for m in [None, Some(&meta)] {
            let mut row = encode_series(&labels, m);
            assert_eq!(decode_series(&row).expect("own bytes"), (labels.clone(), m.cloned()));
            row[3] ^= 1;
            assert!(decode_series(&row).is_err());
        }
        let e = Exemplar { labels, value: 1.5, timestamp_ms: Some(7) };
        assert_eq!(decode_exemplar(&encode_exemplar(&e), 7).expect("own bytes"), e);
        assert_eq!(decode_counters(&encode_counters(3, 1 << 50)).expect("own bytes"), (3, 1 << 50));
        assert!(decode_counters(&[1, 2]).is_err());
    }
}
