//! What records of a snapshot hold. Spec: docs/formats/snapshot.md. Those of the snapshot itself are Prometheus's, those of the
//! folder `almanac` in it are ours.

use bytes::Bytes;
use model::{ChunkEncoding, Exemplar, HistogramValue, Labels, SampleValue, SeriesRef, WalRecord};

use crate::block::tombstones::Tombstones;
use crate::head::series::HeadChunk;
use crate::varint::{Reader, put_be32, put_be64, put_uvarint, put_varint};
use crate::wal::{Record, record};

const SERIES: u8 = 1;
const TOMBSTONES: u8 = 2;
const EXEMPLARS: u8 = 3;
/// Version of the list of tombstones.
const TOMBSTONES_VERSION: u8 = 1;
/// The type that exemplars have in a log.
const EXEMPLARS_OF_LOG: u8 = 4;
/// Three samples and a time that older versions of Prometheus had here, before the newest value.
const UNUSED_LEN_BYTES: usize = 3 * 16 + 8;

const HEADER: u8 = 1;
const ALIASES: u8 = 2;
const EXPIRING: u8 = 3;

/// A record of the snapshot.
pub(crate) enum SnapshotRecord {
    Series(SeriesRef, Labels, Option<HeadChunk>),
    Tombstones(Vec<(SeriesRef, i64, i64)>),
    Exemplars(Vec<(SeriesRef, Exemplar)>),
}

/// A series, its open chunk, and the newest value of that.
pub(crate) fn encode_series(
    series: SeriesRef,
    labels: &Labels,
    open: Option<(&HeadChunk, &SampleValue)>,
) -> Vec<u8> {
    let mut out = vec![SERIES];
    put_be64(&mut out, series.0);
    record::put_labels(&mut out, labels);
    put_be64(&mut out, 0); // Was the length of blocks.
    let Some((chunk, newest)) = open else {
        put_uvarint(&mut out, 0);
        return out;
    };
    put_uvarint(&mut out, 1);
    put_be64(&mut out, chunk.mint as u64);
    put_be64(&mut out, chunk.maxt as u64);
    out.push(chunk.encoding);
    put_uvarint(&mut out, chunk.bytes.len() as u64);
    out.extend_from_slice(&chunk.bytes);
    match newest {
        SampleValue::Float(v) => {
            out.extend_from_slice(&[0; UNUSED_LEN_BYTES]);
            put_be64(&mut out, v.to_bits());
        }
        SampleValue::Histogram(h) => record::histogram::put(&mut out, h),
    }
    out
}

pub(crate) fn encode_tombstones(stones: &Tombstones) -> Vec<u8> {
    let mut list = vec![TOMBSTONES_VERSION];
    stones.put(&mut list);
    let mut out = vec![TOMBSTONES];
    put_uvarint(&mut out, list.len() as u64);
    out.extend_from_slice(&list);
    out
}

pub(crate) fn encode_exemplars(exemplars: &[(SeriesRef, Exemplar)]) -> Vec<u8> {
    let mut out = record::encode_exemplars(exemplars);
    out[0] = EXEMPLARS;
    out
}

/// Decodes a record of the snapshot.
///
/// # Errors
/// What the bytes are not.
pub(crate) fn decode(bytes: &[u8]) -> Result<SnapshotRecord, &'static str> {
    let mut r = Reader::new(bytes);
    match r.u8().ok_or("empty record")? {
        SERIES => {
            let decoded = series(&mut r).ok_or("series of a snapshot")?;
            if r.is_empty() { Ok(decoded) } else { Err("series of a snapshot: bytes are left") }
        }
        TOMBSTONES => tombstones(&mut r).ok_or("tombstones of a snapshot"),
        EXEMPLARS => match record::decode(&[&[EXEMPLARS_OF_LOG], &bytes[1..]].concat())? {
            Record::Data(WalRecord::Exemplars(list)) => Ok(SnapshotRecord::Exemplars(list)),
            _ => Err("exemplars of a snapshot"),
        },
        _ => Err("a kind of record that this version does not know"),
    }
}

fn series(r: &mut Reader<'_>) -> Option<SnapshotRecord> {
    let reference = SeriesRef(r.be64()?);
    let labels = record::labels(r)?;
    r.be64()?;
    if r.uvarint()? == 0 {
        return Some(SnapshotRecord::Series(reference, labels, None));
    }
    let (mint, maxt, encoding) = (r.be64()? as i64, r.be64()? as i64, r.u8()?);
    let len = usize::try_from(r.uvarint()?).ok()?;
    let bytes = Bytes::copy_from_slice(r.bytes(len)?);
    // The newest value is in the chunk too.
    match ChunkEncoding(encoding) {
        ChunkEncoding::XOR | ChunkEncoding::XOR2 => {
            r.bytes(UNUSED_LEN_BYTES + 8)?;
        }
        ChunkEncoding::HISTOGRAM | ChunkEncoding::HISTOGRAM_ST => drop(record::histogram::int(r)?),
        ChunkEncoding::FLOAT_HISTOGRAM | ChunkEncoding::FLOAT_HISTOGRAM_ST => {
            drop::<Option<HistogramValue>>(record::histogram::float(r)?);
        }
        _ => return None,
    }
    Some(SnapshotRecord::Series(reference, labels, Some(HeadChunk { mint, maxt, encoding, bytes })))
}

fn tombstones(r: &mut Reader<'_>) -> Option<SnapshotRecord> {
    let len = usize::try_from(r.uvarint()?).ok()?;
    let mut r = Reader::new(r.bytes(len)?);
    if r.u8()? != TOMBSTONES_VERSION {
        return None;
    }
    let mut out = Vec::new();
    while !r.is_empty() {
        out.push((SeriesRef(r.uvarint()?), r.varint()?, r.varint()?));
    }
    Some(SnapshotRecord::Tombstones(out))
}

/// A file of head chunks: number, length, and time of the newest sample in it.
pub(crate) type ChunkFile = (u32, u64, i64);

/// What Prometheus has no place for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    /// References up to this one have been given.
    pub(crate) last_ref: u64,
    pub(crate) series: u64,
    /// The files of head chunks that belong to the snapshot.
    pub(crate) files: Vec<ChunkFile>,
    /// References that are not their series' own, and what is.
    pub(crate) aliases: Vec<(u64, u64)>,
    /// References that are gone but that segments up to this one may still name.
    pub(crate) expiring: Vec<(u64, u32)>,
}

impl Extras {
    pub(crate) fn encode(&self) -> Vec<Vec<u8>> {
        const PER_RECORD_MAX: usize = 100_000;
        let mut header = vec![HEADER];
        put_be64(&mut header, self.last_ref);
        put_uvarint(&mut header, self.series);
        for (number, len_bytes, maxt) in &self.files {
            put_be32(&mut header, *number);
            put_be64(&mut header, *len_bytes);
            put_varint(&mut header, *maxt);
        }
        let mut out = vec![header];
        for part in self.aliases.chunks(PER_RECORD_MAX) {
            let mut record = vec![ALIASES];
            for (alias, own) in part {
                put_be64(&mut record, *alias);
                put_be64(&mut record, *own);
            }
            out.push(record);
        }
        for part in self.expiring.chunks(PER_RECORD_MAX) {
            let mut record = vec![EXPIRING];
            for (reference, segment) in part {
                put_be64(&mut record, *reference);
                put_be32(&mut record, *segment);
            }
            out.push(record);
        }
        out
    }

    /// Adds what a record holds; true when it is the header, without which there is nothing.
    ///
    /// # Errors
    /// What the bytes are not.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<bool, &'static str> {
        let mut r = Reader::new(bytes);
        let kind = r.u8().ok_or("empty record")?;
        let added = match kind {
            HEADER => self.add_header(&mut r),
            ALIASES => pairs(&mut r, |r| Some((r.be64()?, r.be64()?))).map(|l| self.aliases.extend(l)),
            EXPIRING => pairs(&mut r, |r| Some((r.be64()?, r.be32()?))).map(|l| self.expiring.extend(l)),
            _ => return Err("a kind of record that this version does not know"),
        };
        added.map(|()| kind == HEADER).ok_or("record of a snapshot ends early")
    }

    fn add_header(&mut self, r: &mut Reader<'_>) -> Option<()> {
        (self.last_ref, self.series) = (r.be64()?, r.uvarint()?);
        while !r.is_empty() {
            self.files.push((r.be32()?, r.be64()?, r.varint()?));
        }
        Some(())
    }
}

fn pairs<'a, T>(r: &mut Reader<'a>, mut one: impl FnMut(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
    let mut out = Vec::new();
    while !r.is_empty() {
        out.push(one(r)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_laid_out_as_prometheus_does() {
        let labels = Labels::from_pairs([("a", "b")]);
        let chunk = HeadChunk { mint: 1, maxt: 2, encoding: 1, bytes: Bytes::from_static(&[0, 1, 7]) };
        let got = encode_series(SeriesRef(9), &labels, Some((&chunk, &SampleValue::Float(1.0))));
        let expect = [
            &[1, 0, 0, 0, 0, 0, 0, 0, 9][..],
            &[1, 1, b'a', 1, b'b'],
            &[0; 8],
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 3, 0, 1, 7],
            &[0; 56],
            &[0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(got, expect.concat());
        let Ok(SnapshotRecord::Series(r, l, Some(c))) = decode(&got) else { panic!("own bytes") };
        assert_eq!(
            (r, l, c.mint, c.maxt, c.encoding, c.bytes),
            (SeriesRef(9), labels.clone(), 1, 2, 1, chunk.bytes)
        );
        assert!((0..got.len()).all(|end| decode(&got[..end]).is_err()));
        assert!(decode(&[&got[..], &[0]].concat()).is_err());
        let bare = encode_series(SeriesRef(9), &labels, None);
        assert_eq!(bare, [&expect[..3].concat()[..], &[0]].concat());
        assert!(matches!(decode(&bare), Ok(SnapshotRecord::Series(_, _, None))));
    }

    #[test]
    fn the_others_come_back() {
        let mut stones = Tombstones::default();
        stones.add(7, -5, 300);
        let got = encode_tombstones(&stones);
        assert_eq!(got, [2, 5, 1, 7, 9, 0xd8, 4]);
        let Ok(SnapshotRecord::Tombstones(list)) = decode(&got) else { panic!("own bytes") };
        assert_eq!(list, [(SeriesRef(7), -5, 300)]);
        let e = Exemplar { labels: Labels::from_pairs([("t", "x")]), value: 2.0, timestamp_ms: Some(5) };
        let got = encode_exemplars(&[(SeriesRef(3), e.clone())]);
        let Ok(SnapshotRecord::Exemplars(list)) = decode(&got) else { panic!("own bytes") };
        assert_eq!((got[0], list), (3, vec![(SeriesRef(3), e)]));
        let extras = Extras {
            last_ref: 90,
            series: 7,
            files: vec![(3, 1 << 33, -4)],
            aliases: vec![(8, 2), (9, 3)],
            expiring: vec![(5, 77)],
        };
        let mut again = Extras::default();
        let headers = extras.encode().iter().filter(|r| again.add(r).expect("own bytes")).count();
        assert_eq!((headers, again), (1, extras));
    }
}
