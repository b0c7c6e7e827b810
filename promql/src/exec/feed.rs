//! Decodes a series chunk by chunk while windows move over it, so that what is held follows the longest window and not the
//! series. Chunks that end before a window begins are never decoded.
//!
//! Chunks that overlap in time are decoded together and merged. Stale markers go, floats and histograms part.

use model::{Chunk, Samples, is_stale_nan};

use super::batch::clean;
use super::context::Context;
use super::source::{decode_watched, split_columns, strip_buckets};
use crate::error::{QueryError, Result};
use crate::functions::window::SeriesColumns;

/// What is left to decode of one series.
pub(crate) struct Feed<'a> {
    chunks: &'a [Chunk],
    /// The next chunk to be decoded.
    next: usize,
    mint: i64,
    maxt: i64,
    how: How,
}

/// How a series is decoded.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// Of histograms only count and sum are looked at.
    pub(crate) stats_only: bool,
    /// Start timestamps are kept.
    pub(crate) with_starts: bool,
}

impl How {
    /// Both look back over the whole series.
    fn at_once(self) -> bool {
        self.stats_only || self.with_starts
    }
}

impl<'a> Feed<'a> {
    /// The samples of `chunks` within `[mint, maxt]`.
    pub(crate) fn new(chunks: &'a [Chunk], mint: i64, maxt: i64, how: How) -> Self {
        Self { chunks, next: 0, mint, maxt, how }
    }

    /// Nothing to decode: all samples are at hand.
    pub(crate) fn none() -> Self {
        Self::new(&[], 0, 0, How { stats_only: false, with_starts: false })
    }

    /// Whether some sample at or before `to` may not be at hand.
    #[inline]
    pub(crate) fn is_behind(&self, to: i64) -> bool {
        self.chunks.get(self.next).is_some_and(|c| c.mint <= to.min(self.maxt))
    }

    /// Adds the next samples to `columns`; those at or before `from` may be left out. Called while
    /// [`Feed::is_behind`] says so.
    pub(crate) fn advance(
        &mut self,
        ctx: &Context<'_>,
        from: i64,
        samples: &mut Samples,
        columns: &mut SeriesColumns,
    ) -> Result<()> {
        let first = self.next;
        let Some(head) = self.chunks.get(first) else { return Ok(()) };
        let mut maxt = head.maxt;
        self.next += 1;
        while let Some(c) = self.chunks.get(self.next)
            && (c.mint <= maxt || self.how.at_once())
        {
            maxt = maxt.max(c.maxt);
            self.next += 1;
        }
        if maxt < self.mint || (maxt <= from && !self.how.at_once()) {
            return Ok(());
        }
        let (held, last) = (columns.float_ts.len(), columns.float_ts.last().copied());
        match &self.chunks[first..self.next] {
            [only] if only.encoding().is_floats() && !self.how.at_once() => {
                decode_floats(only, (self.mint, self.maxt), samples, columns)?;
            }
            chunks => {
                let needed =
                    if self.how.at_once() { self.mint } else { self.mint.max(from.saturating_add(1)) };
                decode_watched(ctx, chunks, needed, self.maxt, samples)?;
                if self.how.stats_only {
                    strip_buckets(samples);
                }
                split_columns(samples, self.how.with_starts, columns);
            }
        }
        match (last, columns.float_ts.get(held)) {
            (Some(last), Some(first)) if *first <= last => {
                Err(QueryError::execution("a chunk holds samples before those of the chunk before it"))
            }
            _ => Ok(()),
        }
    }
}

/// The fast path: floats are decoded behind those that are there.
fn decode_floats(
    chunk: &Chunk,
    (mint, maxt): (i64, i64),
    samples: &mut Samples,
    columns: &mut SeriesColumns,
) -> Result<()> {
    samples.clear();
    std::mem::swap(&mut samples.timestamps_ms, &mut columns.float_ts);
    std::mem::swap(&mut samples.values, &mut columns.floats);
    let before = samples.len();
    let decoded = chunk.decode(mint, maxt, samples);
    std::mem::swap(&mut samples.timestamps_ms, &mut columns.float_ts);
    std::mem::swap(&mut samples.values, &mut columns.floats);
    decoded?;
    clean_floats(columns, before);
    Ok(())
}

/// Takes stale markers out of the floats from `at` on and makes other NaNs safe for cells.
fn clean_floats(columns: &mut SeriesColumns, at: usize) {
    if !columns.floats[at..].iter().fold(false, |any, v| any | v.is_nan()) {
        return;
    }
    let mut kept = at;
    for i in at..columns.floats.len() {
        let v = columns.floats[i];
        if !is_stale_nan(v) {
            columns.floats[kept] = clean(v);
            columns.float_ts[kept] = columns.float_ts[i];
            kept += 1;
        }
    }
    columns.floats.truncate(kept);
    columns.float_ts.truncate(kept);
}

/// How many of the sorted `times` are at or before `bound`; at least `at`, and likely `at + by`.
#[inline]
pub(crate) fn seek(times: &[i64], at: usize, by: usize, bound: i64) -> usize {
    let is_in = |i: usize| times.get(i).is_some_and(|t| *t <= bound);
    let guess = at + by;
    if guess <= times.len() && (guess == at || is_in(guess - 1)) && !is_in(guess) {
        return guess;
    }
    let (mut known, mut reach) = (at, 1);
    while is_in(at + reach - 1) {
        known = at + reach;
        reach *= 2;
    }
    let end = (at + reach).min(times.len());
    known.min(end) + times[known.min(end)..end].partition_point(|t| *t <= bound)
}
