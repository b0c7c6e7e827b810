//! Digests: what a node says of the samples it holds, short enough to compare all of them with another node's.
//!
//! Time is cut into aligned windows of two hours. A series in a window is a hash of its labels, the number of its
//! samples and a checksum over timestamps and values, bit for bit: the sum of one hash per sample, which the order of
//! samples does not change. Start timestamps, exemplars and metadata are left out, since a store may not keep them;
//! so are the hints about counter resets and empty buckets of a native histogram, which a store may lay out anew.
//!
//! Both sides compute with [`digest_window`]; the bytes between them are drawn in docs/formats/digest.md.

use std::collections::BTreeMap;

use model::chunk::decode_chunks;
use model::histogram::{HistogramValue, Span};
use model::{Labels, Matcher, Queryable, Samples, SelectHints, StorageError};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::proto::{Cursor, put_varint, unzigzag, zigzag};

/// Length of a window.
pub const WINDOW_MS: i64 = 2 * 3600 * 1000;
/// What an answer begins with; the last byte is the version of the format.
pub const MAGIC: &[u8; 8] = b"almdig\0\x01";

const FRAME_END: u8 = 0;
const FRAME_WINDOW: u8 = 1;
const MESSAGE: &str = "digest";

/// Begin of the window that holds a timestamp.
#[must_use]
pub fn window_start(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(WINDOW_MS).saturating_mul(WINDOW_MS)
}

/// One series in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesDigest {
    /// [`Labels::hash64`] of the labels as the long-term node has them.
    pub series: u64,
    /// Number of samples, above 0.
    pub samples: u64,
    /// Sum of the hashes of the samples.
    pub checksum: u64,
}

/// All series of one window.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WindowDigest {
    /// Begin of the window, a multiple of [`WINDOW_MS`].
    pub start_ms: i64,
    /// Strictly rising by `series`.
    pub series: Vec<SeriesDigest>,
}

// === Computing ===

/// Digests the samples within `[mint, maxt]`, which lie in one window, of the series that pass any of the matcher sets.
/// `name` gives the labels under which a series is compared, or leaves it out.
///
/// # Errors
/// When the store cannot be read.
pub fn digest_window(
    store: &dyn Queryable,
    sets: &[Vec<Matcher>],
    mint: i64,
    maxt: i64,
    mut name: impl FnMut(&Labels) -> Option<Labels>,
) -> Result<WindowDigest, StorageError> {
    let querier = store.querier(mint, maxt)?;
    let hints = SelectHints { start_ms: mint, end_ms: maxt, ..SelectHints::default() };
    let mut found: BTreeMap<u64, SeriesDigest> = BTreeMap::new();
    let (mut samples, mut scratch) = (Samples::new(), Vec::new());
    for matchers in sets {
        let mut set = querier.select(matchers, &hints)?;
        while let Some(series) = set.next()? {
            let Some(labels) = name(&series.labels) else { continue };
            let hash = labels.hash64();
            // A series that two sets select counts once.
            if found.contains_key(&hash) {
                continue;
            }
            decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            if !samples.is_empty() {
                found.insert(hash, digest_samples(hash, &samples, &mut scratch));
            }
        }
    }
    Ok(WindowDigest { start_ms: window_start(mint), series: found.into_values().collect() })
}

/// The digest of the samples of one series. `scratch` is memory to work in.
#[must_use]
pub fn digest_samples(series: u64, samples: &Samples, scratch: &mut Vec<u8>) -> SeriesDigest {
    let mut checksum = 0_u64;
    for (i, t) in samples.timestamps_ms.iter().enumerate() {
        let value = match samples.histogram(i) {
            None => samples.values[i].to_bits(),
            Some(h) => {
                scratch.clear();
                canonical(h, scratch);
                // Never what a float of the same bits would give.
                xxh3_64(scratch) ^ 0x5bd1_e995_9e37_79b9
            }
        };
        checksum = checksum.wrapping_add(mix(mix(*t as u64) ^ value));
    }
    SeriesDigest { series, samples: samples.len() as u64, checksum }
}

/// The finaliser of MurmurHash3: each bit of the input changes half of the output.
fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// A histogram's contents without its layout: buckets that are empty are left out, each other one with its index.
fn canonical(h: &HistogramValue, out: &mut Vec<u8>) {
    let mut put = |v: u64| out.extend_from_slice(&v.to_le_bytes());
    match h {
        HistogramValue::Int(h) => {
            put(1);
            [h.schema as u64, h.zero_threshold.to_bits(), h.sum.to_bits(), h.zero_count, h.count]
                .into_iter()
                .for_each(&mut put);
            for (sign, spans, deltas) in
                [(0, &h.positive_spans, &h.positive_buckets), (1, &h.negative_spans, &h.negative_buckets)]
            {
                let mut count = 0_i64;
                for (index, delta) in indices(spans).zip(deltas) {
                    count = count.wrapping_add(*delta);
                    if count != 0 {
                        [sign, index as u64, count as u64].into_iter().for_each(&mut put);
                    }
                }
            }
            h.custom_values.iter().for_each(|v| put(v.to_bits()));
        }
        HistogramValue::Float(h) => {
            put(2);
            [
                h.schema as u64,
                h.zero_threshold.to_bits(),
                h.sum.to_bits(),
                h.zero_count.to_bits(),
                h.count.to_bits(),
            ]
            .into_iter()
            .for_each(&mut put);
            for (sign, spans, counts) in
                [(0, &h.positive_spans, &h.positive_buckets), (1, &h.negative_spans, &h.negative_buckets)]
            {
                for (index, count) in indices(spans).zip(counts) {
                    if *count != 0.0 {
                        [sign, index as u64, count.to_bits()].into_iter().for_each(&mut put);
                    }
                }
            }
            h.custom_values.iter().for_each(|v| put(v.to_bits()));
        }
    }
}

/// Indices of the buckets of some spans.
fn indices(spans: &[Span]) -> impl Iterator<Item = i64> + '_ {
    let mut next = 0_i64;
    spans.iter().flat_map(move |s| {
        let first = next + i64::from(s.offset);
        next = first + i64::from(s.length);
        first..next
    })
}

// === Bytes ===

/// Appends what an answer begins with.
pub fn encode_begin(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
}

/// Appends one window.
pub fn encode_window(window: &WindowDigest, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(FRAME_WINDOW);
    put_varint(out, zigzag(window.start_ms));
    put_varint(out, window.series.len() as u64);
    for s in &window.series {
        out.extend_from_slice(&s.series.to_le_bytes());
        put_varint(out, s.samples);
        out.extend_from_slice(&s.checksum.to_le_bytes());
    }
    seal(out, start);
}

/// Appends the end; without it an answer is not whole.
pub fn encode_end(windows: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(FRAME_END);
    put_varint(out, windows);
    seal(out, start);
}

fn seal(out: &mut Vec<u8>, start: usize) {
    let checksum = xxh3_64(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Reads a whole answer.
///
/// # Errors
/// [`Error::Malformed`] for bytes that are none, are damaged or end too early.
pub fn decode(bytes: &[u8]) -> Result<Vec<WindowDigest>, Error> {
    let Some(frames) = bytes.strip_prefix(MAGIC) else {
        return Err(Error::Malformed { message: MESSAGE, offset: 0, reason: "does not begin as a digest" });
    };
    let mut cursor = Cursor::new(frames, MESSAGE);
    let mut windows: Vec<WindowDigest> = Vec::new();
    loop {
        let before = cursor.rest();
        let kind = cursor.varint()?;
        let end = match u8::try_from(kind) {
            Ok(FRAME_WINDOW) => {
                windows.push(window(&mut cursor)?);
                false
            }
            Ok(FRAME_END) => {
                if cursor.varint()? != windows.len() as u64 {
                    return Err(cursor.error("windows are missing"));
                }
                true
            }
            _ => return Err(cursor.error("unknown frame")),
        };
        let frame = &before[..before.len() - cursor.rest().len()];
        if cursor.fixed64()? != xxh3_64(frame) {
            return Err(cursor.error("checksum does not match"));
        }
        if end {
            return if cursor.is_empty() { Ok(windows) } else { Err(cursor.error("bytes after the end")) };
        }
    }
}

fn window(c: &mut Cursor<'_>) -> Result<WindowDigest, Error> {
    let start_ms = unzigzag(c.varint()?);
    let len = c.varint()?;
    // An entry has seventeen bytes or more, so that memory follows what is there.
    let room = c.rest().len() / 17 + 1;
    let mut series: Vec<SeriesDigest> =
        Vec::with_capacity(usize::try_from(len).unwrap_or(usize::MAX).min(room));
    for _ in 0..len {
        let s = SeriesDigest { series: c.fixed64()?, samples: c.varint()?, checksum: c.fixed64()? };
        if series.last().is_some_and(|last| last.series >= s.series) {
            return Err(c.error("series are not in order"));
        }
        series.push(s);
    }
    Ok(WindowDigest { start_ms, series })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::memory::MemoryStorage;
    use model::{Histogram, Sample, stale_nan};

    fn labels(i: usize) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())])
    }

    fn example() -> MemoryStorage {
        let store = MemoryStorage::new();
        for i in 0..5 {
            for t in 0..10 {
                store.insert(&labels(i), Sample::float(t * 1000, i as f64 + t as f64));
            }
        }
        store.insert(&labels(0), Sample::float(WINDOW_MS, 1.0));
        store
    }

    fn digest(store: &MemoryStorage) -> WindowDigest {
        let sets = [vec![Matcher::equal("__name__", "m")], vec![Matcher::equal("i", "3")]];
        digest_window(store, &sets, 0, WINDOW_MS - 1, |l| Some(l.clone())).expect("readable")
    }

    #[test]
    fn each_bit_counts() {
        let (a, b) = (example(), example());
        assert_eq!(digest(&a), digest(&b));
        assert_eq!(digest(&a).series.iter().map(|s| s.samples).sum::<u64>(), 50);
        for (t, v) in [(0, -0.0), (3000, f64::NAN), (3001, 3.0), (5000, stale_nan())] {
            let b = example();
            b.insert(&labels(0), Sample::float(t, v));
            assert_ne!(digest(&a), digest(&b), "{t} {v}");
        }
    }

    #[test]
    fn histograms_count_by_contents() {
        let span = |offset, length| Span { offset, length };
        let dense = Histogram {
            count: 3,
            positive_spans: vec![span(0, 3)],
            positive_buckets: vec![1, -1, 2],
            ..Histogram::default()
        };
        let sparse = Histogram {
            positive_spans: vec![span(0, 1), span(1, 1)],
            positive_buckets: vec![1, 1],
            ..dense.clone()
        };
        let other = Histogram { positive_buckets: vec![1, 0], ..sparse.clone() };
        let of = |h: &Histogram| {
            let mut s = Samples::new();
            s.push(Sample::histogram(1, h.clone()));
            digest_samples(0, &s, &mut Vec::new()).checksum
        };
        assert_eq!(of(&dense), of(&sparse));
        assert_ne!(of(&dense), of(&other));
    }

    #[test]
    fn bytes_read_back_and_damage_is_seen() {
        let windows = vec![digest(&example()), WindowDigest { start_ms: -WINDOW_MS, series: Vec::new() }];
        let mut bytes = Vec::new();
        encode_begin(&mut bytes);
        windows.iter().for_each(|w| encode_window(w, &mut bytes));
        encode_end(2, &mut bytes);
        assert_eq!(decode(&bytes).expect("valid"), windows);
        for i in 0..bytes.len() {
            assert!(decode(&bytes[..i]).is_err(), "cut at {i}");
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert!(decode(&damaged).is_err(), "flipped at {i}");
        }
    }
}
