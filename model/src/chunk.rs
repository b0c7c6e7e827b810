//! Encoded chunks: how a store hands on the samples of a series without decoding them.
//!
//! A [`Chunk`] knows its time range and carries either bytes with the codec that reads them or columns that are already
//! decoded. The codec belongs to the store that made the bytes; users only call [`Chunk::decode`] or [`decode_chunks`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::StorageError;
use crate::histogram::HistogramValue;
use crate::rollup::Rollup;
use crate::sample::{Sample, SampleValue};

/// What the bytes of a chunk are. Values below 0x80 are Prometheus's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkEncoding(pub u8);

impl ChunkEncoding {
    /// Prometheus's XOR chunk of floats.
    pub const XOR: Self = Self(1);
    /// Prometheus's chunk of integer histograms.
    pub const HISTOGRAM: Self = Self(2);
    /// Prometheus's chunk of float histograms.
    pub const FLOAT_HISTOGRAM: Self = Self(3);
    /// Prometheus's XOR2 chunk of floats, with start timestamps where there are some.
    pub const XOR2: Self = Self(4);
    /// Prometheus's chunk of integer histograms with start timestamps.
    pub const HISTOGRAM_ST: Self = Self(5);
    /// Prometheus's chunk of float histograms with start timestamps.
    pub const FLOAT_HISTOGRAM_ST: Self = Self(6);
    /// The long-term store's chunk of floats without start timestamps.
    pub const SEALED_FLOATS: Self = Self(0x90);
    /// No samples but a [`Rollup`].
    pub const ROLLUP: Self = Self(0xfe);
    /// Decoded columns.
    pub const COLUMNS: Self = Self(0xff);
}

impl ChunkEncoding {
    /// Whether all samples are floats without start timestamps, for certain.
    #[must_use]
    #[inline]
    pub fn is_floats(self) -> bool {
        self == Self::XOR || self == Self::SEALED_FLOATS
    }
}

/// Samples in columns, strictly rising by timestamp.
///
/// All columns in use have the same length: `timestamps_ms` and `values` always; `histograms` and
/// `start_timestamps_ms` are empty as long as no sample has one.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Milliseconds since the Unix epoch.
    pub timestamps_ms: Vec<i64>,
    /// Float values. Where `histograms` has a histogram, the entry is 0 and means nothing.
    pub values: Vec<f64>,
    /// Histograms; empty, or one entry per sample with `None` for floats.
    pub histograms: Vec<Option<HistogramValue>>,
    /// Start timestamps in milliseconds; empty, or one entry per sample with 0 for none.
    pub start_timestamps_ms: Vec<i64>,
}

impl Samples {
    /// No samples.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of samples.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.timestamps_ms.len()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.timestamps_ms.is_empty()
    }

    /// Forgets all samples and keeps the buffers.
    pub fn clear(&mut self) {
        self.timestamps_ms.clear();
        self.values.clear();
        self.histograms.clear();
        self.start_timestamps_ms.clear();
    }

    /// Adds a float sample without start timestamp.
    #[inline]
    pub fn push_float(&mut self, timestamp_ms: i64, value: f64) {
        self.timestamps_ms.push(timestamp_ms);
        self.values.push(value);
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
        if !self.start_timestamps_ms.is_empty() {
            self.start_timestamps_ms.push(0);
        }
    }

    /// Adds a sample of any kind.
    pub fn push(&mut self, sample: Sample) {
        let at = self.len();
        if let SampleValue::Histogram(_) = sample.value
            && self.histograms.is_empty()
        {
            self.histograms.resize(at, None);
        }
        if sample.start_timestamp_ms != 0 && self.start_timestamps_ms.is_empty() {
            self.start_timestamps_ms.resize(at, 0);
        }
        let with_histograms =
            !self.histograms.is_empty() || matches!(sample.value, SampleValue::Histogram(_));
        let with_starts = !self.start_timestamps_ms.is_empty() || sample.start_timestamp_ms != 0;
        self.timestamps_ms.push(sample.timestamp_ms);
        let histogram = match sample.value {
            SampleValue::Float(v) => {
                self.values.push(v);
                None
            }
            SampleValue::Histogram(h) => {
                self.values.push(0.0);
                Some(h)
            }
        };
        if with_histograms {
            self.histograms.push(histogram);
        }
        if with_starts {
            self.start_timestamps_ms.push(sample.start_timestamp_ms);
        }
    }

    /// The histogram at `i`, or `None` for a float.
    #[must_use]
    #[inline]
    pub fn histogram(&self, i: usize) -> Option<&HistogramValue> {
        self.histograms.get(i).and_then(Option::as_ref)
    }

    /// The start timestamp at `i`; 0 for none.
    #[must_use]
    #[inline]
    pub fn start_timestamp_ms(&self, i: usize) -> i64 {
        self.start_timestamps_ms.get(i).copied().unwrap_or(0)
    }

    /// The sample at `i`.
    ///
    /// # Panics
    /// When `i` is not below [`Samples::len`].
    #[must_use]
    pub fn get(&self, i: usize) -> Sample {
        let value = match self.histogram(i) {
            Some(h) => SampleValue::Histogram(h.clone()),
            None => SampleValue::Float(self.values[i]),
        };
        Sample { timestamp_ms: self.timestamps_ms[i], start_timestamp_ms: self.start_timestamp_ms(i), value }
    }

    /// All samples in order.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Drops everything outside `[mint, maxt]`.
    pub fn clip(&mut self, mint: i64, maxt: i64) {
        let end = self.timestamps_ms.partition_point(|t| *t <= maxt);
        let start = self.timestamps_ms.partition_point(|t| *t < mint).min(end);
        keep_range(&mut self.timestamps_ms, start, end);
        keep_range(&mut self.values, start, end);
        keep_range(&mut self.histograms, start, end);
        keep_range(&mut self.start_timestamps_ms, start, end);
    }
}

fn keep_range<T>(column: &mut Vec<T>, start: usize, end: usize) {
    if !column.is_empty() {
        column.truncate(end);
        column.drain(..start);
    }
}

/// Reads the bytes of a chunk. A store provides one static value per encoding.
pub trait ChunkCodec: Send + Sync {
    /// The encoding this codec reads.
    fn encoding(&self) -> ChunkEncoding;

    /// Appends to `out` at least the samples of `bytes` within `[mint, maxt]`; samples outside may come too. They come
    /// in order of their timestamps.
    ///
    /// # Errors
    /// [`StorageError::Decode`] when the bytes are not a chunk of this encoding. `out` then holds samples that do not count.
    fn decode(&self, bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError>;
}

/// Some consecutive samples of one series.
#[derive(Clone)]
pub struct Chunk {
    /// Timestamp of the first sample, or a lower bound of it.
    pub mint: i64,
    /// Timestamp of the last sample, or an upper bound of it.
    pub maxt: i64,
    payload: Payload,
}

#[derive(Clone)]
enum Payload {
    Encoded { codec: &'static dyn ChunkCodec, bytes: Bytes },
    Columns(Arc<Samples>),
    Rollup(Arc<Rollup>),
}

impl Chunk {
    /// A chunk of encoded bytes, whose samples all lie in `[mint, maxt]`.
    #[must_use]
    pub fn encoded(codec: &'static dyn ChunkCodec, bytes: Bytes, mint: i64, maxt: i64) -> Self {
        Self { mint, maxt, payload: Payload::Encoded { codec, bytes } }
    }

    /// A chunk of samples in columns, not empty.
    ///
    /// # Panics
    /// When there is no sample.
    #[must_use]
    pub fn columns(samples: Arc<Samples>) -> Self {
        let (mint, maxt) = match samples.timestamps_ms.as_slice() {
            [only] => (*only, *only),
            [first, .., last] => (*first, *last),
            [] => panic!("a chunk has at least one sample"),
        };
        Self { mint, maxt, payload: Payload::Columns(samples) }
    }

    /// What stands for the samples in `[mint, maxt]`, not empty. Only who asked for rollups may get one: it does not decode.
    #[must_use]
    pub fn rollup(rollup: Arc<Rollup>, mint: i64, maxt: i64) -> Self {
        Self { mint, maxt, payload: Payload::Rollup(rollup) }
    }

    /// The rollup, when it is one.
    #[must_use]
    pub fn as_rollup(&self) -> Option<&Arc<Rollup>> {
        match &self.payload {
            Payload::Rollup(rollup) => Some(rollup),
            Payload::Encoded { .. } | Payload::Columns(_) => None,
        }
    }

    /// Encoding of the payload.
    #[must_use]
    pub fn encoding(&self) -> ChunkEncoding {
        match &self.payload {
            Payload::Encoded { codec, .. } => codec.encoding(),
            Payload::Columns(_) => ChunkEncoding::COLUMNS,
            Payload::Rollup(_) => ChunkEncoding::ROLLUP,
        }
    }

    /// The encoded bytes; `None` for columns.
    #[must_use]
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.payload {
            Payload::Encoded { bytes, .. } => Some(bytes),
            Payload::Columns(_) | Payload::Rollup(_) => None,
        }
    }

    /// Bytes of the payload, as far as they are known without decoding: histograms in columns are counted without their
    /// buckets.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let payload = match &self.payload {
            Payload::Encoded { bytes, .. } => bytes.len(),
            Payload::Columns(s) => {
                (s.timestamps_ms.len() * 2 + s.start_timestamps_ms.len()) * size_of::<i64>()
                    + s.histograms.len() * size_of::<Option<HistogramValue>>()
            }
            Payload::Rollup(r) => r.size_bytes(),
        };
        size_of::<Self>() + payload
    }

    /// Appends to `out` at least the samples within `[mint, maxt]`; samples outside may come too.
    ///
    /// # Errors
    /// When the bytes do not decode.
    pub fn decode(&self, mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        match &self.payload {
            Payload::Encoded { codec, bytes } => codec.decode(bytes, mint, maxt, out),
            Payload::Rollup(_) => Err(StorageError::decode("chunk", "a rollup holds no samples")),
            Payload::Columns(s) => {
                let start = s.timestamps_ms.partition_point(|t| *t < mint);
                let end = start + leading(&s.timestamps_ms[start..], maxt);
                if s.histograms.is_empty()
                    && s.start_timestamps_ms.is_empty()
                    && out.histograms.is_empty()
                    && out.start_timestamps_ms.is_empty()
                {
                    out.timestamps_ms.extend_from_slice(&s.timestamps_ms[start..end]);
                    out.values.extend_from_slice(&s.values[start..end]);
                } else {
                    (start..end).for_each(|i| out.push(s.get(i)));
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({:?}, [{}, {}])", self.encoding(), self.mint, self.maxt)
    }
}

/// How many of the sorted `times` are at or before `maxt`. Looks at the first ones first: ranges are short and what lies
/// behind them is not in the cache.
fn leading(times: &[i64], maxt: i64) -> usize {
    let mut reach = 16;
    while reach < times.len() && times[reach] <= maxt {
        reach *= 2;
    }
    times[..times.len().min(reach)].partition_point(|t| *t <= maxt)
}

/// Fills `out` with exactly the samples of `chunks` within `[mint, maxt]`, strictly rising by timestamp.
///
/// `chunks` are sorted by `mint` and may overlap; where two have a sample at the same time, the one that comes first in
/// `chunks` counts. Chunks outside the range are not decoded. `out` is cleared first; its buffers are reused.
///
/// # Errors
/// When a chunk does not decode.
pub fn decode_chunks(chunks: &[Chunk], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
    decode_chunks_watched(chunks, mint, maxt, out, |_| Ok(()))
}

/// Like [`decode_chunks`], and asks `go_on` after each chunk, with what is decoded so far, whether to go on: a series may
/// be longer than whoever reads it has time or memory for.
///
/// # Errors
/// When a chunk does not decode, or what `go_on` gave.
pub fn decode_chunks_watched<E: From<StorageError>>(
    chunks: &[Chunk],
    mint: i64,
    maxt: i64,
    out: &mut Samples,
    mut go_on: impl FnMut(&Samples) -> Result<(), E>,
) -> Result<(), E> {
    out.clear();
    for c in chunks {
        if c.maxt < mint || c.mint > maxt {
            continue;
        }
        let before = out.len();
        c.decode(mint, maxt, out)?;
        let ordered =
            before == 0 || out.len() == before || out.timestamps_ms[before - 1] < out.timestamps_ms[before];
        if !ordered {
            merge_tail(out, before);
        }
        go_on(out)?;
    }
    if out.timestamps_ms.first().is_some_and(|t| *t < mint)
        || out.timestamps_ms.last().is_some_and(|t| *t > maxt)
    {
        out.clip(mint, maxt);
    }
    Ok(())
}

/// Merges the samples from `at` on, which are sorted by themselves, into those before. On equal timestamps the earlier
/// ones stay.
fn merge_tail(out: &mut Samples, at: usize) {
    let mut order: Vec<usize> = (0..out.len()).collect();
    order.sort_by_key(|i| out.timestamps_ms[*i]);
    debug_assert!(order.iter().filter(|i| **i < at).is_sorted());
    order.dedup_by_key(|i| out.timestamps_ms[*i]);
    let merged: Vec<Sample> = order.into_iter().map(|i| out.get(i)).collect();
    out.clear();
    merged.into_iter().for_each(|s| out.push(s));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(ts: &[i64], v: f64) -> Chunk {
        let mut s = Samples::new();
        ts.iter().for_each(|t| s.push_float(*t, v));
        Chunk::columns(Arc::new(s))
    }

    #[test]
    fn overlapping_chunks_merge_and_the_first_wins() {
        let mut out = Samples::new();
        let chunks = [columns(&[1, 3, 5], 1.0), columns(&[2, 3, 4, 9], 2.0), columns(&[20], 3.0)];
        decode_chunks(&chunks, 2, 9, &mut out).expect("columns decode");
        assert_eq!(out.timestamps_ms, [2, 3, 4, 5, 9]);
        assert_eq!(out.values, [2.0, 1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn optional_columns_fill_up() {
        let mut s = Samples::new();
        s.push_float(1, 1.0);
        s.push(Sample::histogram(2, crate::Histogram { count: 3, ..Default::default() }));
        s.push(Sample { start_timestamp_ms: 7, ..Sample::float(3, 2.0) });
        s.push_float(4, 4.0);
        assert_eq!((s.histograms.len(), s.start_timestamps_ms.len()), (4, 4));
        assert!(s.histogram(1).is_some() && s.histogram(3).is_none());
        assert_eq!((s.start_timestamp_ms(1), s.start_timestamp_ms(2), s.start_timestamp_ms(3)), (0, 7, 0));
        s.clip(2, 3);
        assert_eq!(s.timestamps_ms, [2, 3]);
        assert_eq!(s.get(1).start_timestamp_ms, 7);
    }
}
