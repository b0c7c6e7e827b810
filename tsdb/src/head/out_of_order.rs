//! [`OutOfOrder`]: samples of a series that came after newer ones, within the window that the configuration gives.
//!
//! They are kept beside the chunks in order: a few sorted ones that are open, and encoded chunks, which may overlap each other and
//! the chunks in order; readers merge. They are durable through a log of their own (`wbl`), and become blocks of their own when the
//! head is compacted. There is no isolation for them: a reader may see a part of a batch.

use model::{Sample, Samples};

use super::series::HeadChunk;
use crate::chunk::{self, Encodings};

/// Samples of the open chunk, as Prometheus has it by default.
const OPEN_MAX: usize = 32;

/// Bounds of what the head takes, as they were when a batch began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Older samples do not go into the chunks in order.
    pub(crate) min_valid: i64,
    /// The newest sample of the head.
    pub(crate) max_time: i64,
    /// How far behind it a sample may be; 0: samples must come in order.
    pub(crate) window_ms: i64,
}

impl Bounds {
    /// Takes everything in order: for samples that were taken before.
    pub(crate) const NONE: Self = Self { min_valid: i64::MIN, max_time: i64::MIN, window_ms: 0 };

    /// Whether the window takes a sample at `t`.
    pub(crate) fn takes_late(&self, t: i64) -> bool {
        self.window_ms > 0 && t >= self.max_time.saturating_sub(self.window_ms)
    }
}

/// What became of a late sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Yes,
    /// As the first sample of a new chunk.
    InNewChunk,
    /// The open chunk has a sample of this time.
    Same,
}

/// Late samples of a series.
#[derive(Debug, Default)]
pub(crate) struct OutOfOrder {
    /// Sorted by time, without two of one time.
    open: Vec<Sample>,
    finished: Vec<HeadChunk>,
    /// Chunks at the front that are being written into blocks.
    leaving: usize,
}

impl OutOfOrder {
    pub(crate) fn insert(&mut self, sample: Sample, encodings: Encodings) -> Inserted {
        if self.open.len() >= OPEN_MAX {
            self.seal(encodings);
        }
        let is_new = self.open.is_empty();
        let at = self.open.partition_point(|s| s.timestamp_ms < sample.timestamp_ms);
        if self.open.get(at).is_some_and(|s| s.timestamp_ms == sample.timestamp_ms) {
            return Inserted::Same;
        }
        self.open.insert(at, sample);
        if is_new { Inserted::InNewChunk } else { Inserted::Yes }
    }

    /// Takes over a chunk that a file has.
    pub(crate) fn restore(&mut self, chunk: HeadChunk) {
        self.finished.push(chunk);
    }

    /// Finishes the open chunk.
    fn seal(&mut self, encodings: Encodings) {
        let chunks = encoded(&self.open, encodings);
        self.finished.extend(chunks);
        self.open = Vec::new();
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.finished.len() + usize::from(!self.open.is_empty())
    }

    /// Times of the oldest and the newest sample.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        let open = self.open.first().zip(self.open.last()).map(|(a, b)| (a.timestamp_ms, b.timestamp_ms));
        let all = self.finished.iter().map(|c| (c.mint, c.maxt)).chain(open);
        all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Chunks with samples within `[mint, maxt]`, in no order.
    pub(crate) fn chunks(&self, mint: i64, maxt: i64, encodings: Encodings, out: &mut Vec<HeadChunk>) {
        let overlaps = |c: &HeadChunk| c.mint <= maxt && c.maxt >= mint;
        out.extend(self.finished.iter().filter(|c| overlaps(c)).cloned());
        let has_open = self.open.first().is_some_and(|s| s.timestamp_ms <= maxt)
            && self.open.last().is_some_and(|s| s.timestamp_ms >= mint);
        if has_open {
            out.extend(encoded(&self.open, encodings).filter(overlaps));
        }
    }

    /// Finishes the open chunk and gives all chunks, which are about to be written into blocks.
    pub(crate) fn begin_leaving(&mut self, encodings: Encodings) -> &[HeadChunk] {
        if !self.open.is_empty() {
            self.seal(encodings);
        }
        self.leaving = self.finished.len();
        &self.finished
    }

    /// Drops the chunks that are in blocks now; returns how many.
    pub(crate) fn left(&mut self) -> usize {
        let n = std::mem::take(&mut self.leaving);
        self.finished.drain(..n).count()
    }
}

fn encoded(samples: &[Sample], encodings: Encodings) -> impl Iterator<Item = HeadChunk> {
    let mut columns = Samples::new();
    samples.iter().for_each(|s| columns.push(s.clone()));
    let chunks = chunk::encode(&columns, encodings).into_iter();
    chunks.map(|(mint, maxt, encoding, bytes)| HeadChunk { mint, maxt, encoding, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_samples_are_sorted_into_chunks() {
        let mut o = OutOfOrder::default();
        let e = Encodings::default();
        for i in 0..70_i64 {
            let t = i * 37 % 70;
            let expect = if i % 32 == 0 { Inserted::InNewChunk } else { Inserted::Yes };
            assert_eq!(o.insert(Sample::float(t, t as f64), e), expect, "{i}");
        }
        assert_eq!(o.insert(Sample::float(69 * 37 % 70, 5.0), e), Inserted::Same);
        assert_eq!((o.chunk_count(), o.range()), (3, Some((0, 69))));
        let read = |o: &OutOfOrder, mint, maxt| {
            let mut chunks = Vec::new();
            o.chunks(mint, maxt, e, &mut chunks);
            chunks.sort_by_key(|c| c.mint);
            let chunks: Vec<_> = chunks.into_iter().filter_map(super::super::series::to_model).collect();
            let mut out = Samples::new();
            model::chunk::decode_chunks(&chunks, mint, maxt, &mut out).expect("own chunks");
            out.timestamps_ms
        };
        assert_eq!(read(&o, 10, 50), (10..=50).collect::<Vec<_>>());
        assert_eq!(o.begin_leaving(e).len(), 3);
        o.insert(Sample::float(1000, 1.0), e);
        assert_eq!(read(&o, 0, 1000).len(), 71, "they are there until they have left");
        assert_eq!(o.left(), 3);
        assert_eq!((read(&o, 0, 1000), o.left()), (vec![1000], 0));
    }
}
