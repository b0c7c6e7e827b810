//! Finished chunks of a series: [`HeadChunk`], and how chunks that follow each other are looked through.

use bytes::Bytes;
use model::Chunk;

use crate::chunk::{self, OpenChunk};

/// A chunk that gets no more samples.
#[derive(Clone, Debug)]
pub(crate) struct HeadChunk {
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    pub(crate) encoding: u8,
    pub(crate) bytes: Bytes,
}

impl HeadChunk {
    /// An open chunk that ends.
    pub(super) fn of(open: &OpenChunk, mint: i64, maxt: i64) -> Self {
        Self { mint, maxt, encoding: open.encoding(), bytes: open.encode_first(open.count()) }
    }

    pub(crate) fn count(&self) -> u16 {
        chunk::sample_count(self.encoding, &self.bytes)
    }

    /// The chunk without its hidden samples, which are at its end; `None` when all are.
    pub(super) fn visible(mut self, hidden: &mut u64) -> Option<Self> {
        let count = self.count();
        let shown = hide(count, hidden);
        if shown < count {
            self.bytes = chunk::with_sample_count(self.encoding, &self.bytes, shown);
        }
        (shown > 0).then_some(self)
    }

    pub(super) fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.mint <= maxt && self.maxt >= mint
    }
}

/// How many of `count` samples are shown when `hidden` at the end are not.
pub(super) fn hide(count: u16, hidden: &mut u64) -> u16 {
    let hide = (*hidden).min(u64::from(count));
    *hidden -= hide;
    count - hide as u16
}

/// Of chunks that follow each other in time, those with samples within `[mint, maxt]`.
pub(super) fn within<T>(chunks: &[T], range: impl Fn(&T) -> (i64, i64), mint: i64, maxt: i64) -> &[T] {
    let first = chunks.partition_point(|c| range(c).1 < mint);
    let count = chunks[first..].partition_point(|c| range(c).0 <= maxt);
    &chunks[first..first + count]
}

/// A head chunk as the storage contract hands it on.
pub(crate) fn to_model(c: HeadChunk) -> Option<Chunk> {
    Some(Chunk::encoded(chunk::codec(c.encoding)?, c.bytes, c.mint, c.maxt))
}
