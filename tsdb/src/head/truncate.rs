//! What leaves the head once a block has it: chunks, series without samples, segments of the write-ahead log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{SeriesRef, StorageError};

use super::Head;
use super::series::{HeadChunk, MemSeries, Shape};
use crate::wal::checkpoint::{self, RecordWriter, Wanted};
use crate::wal::segment;

/// Fewer bytes of finished chunks stay in memory.
const STORE_LEN_BYTES_MIN: usize = if cfg!(test) { 1 << 10 } else { 4 << 20 };

impl Head {
    /// The range `[mint, maxt)` of the next block, once the head covers one and a half times its length.
    pub(crate) fn compactable(&self) -> Option<(i64, i64)> {
        let (min, max) = (self.min_time()?, self.max_time()?);
        let covers = max.saturating_sub(min) > self.form.range_ms / 2 * 3;
        covers.then(|| (min, crate::chunk::range_end(min, self.form.range_ms)))
    }

    /// Refuses samples before `t` from now on. What commits apply meanwhile is to be waited for with
    /// [`Head::is_settled`].
    pub(crate) fn refuse_before(&self, t: i64) -> u64 {
        self.min_valid.fetch_max(t, Ordering::SeqCst);
        self.isolation.last_commit()
    }

    /// Whether all commits up to `number` have been applied.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        !self.isolation.is_applying(number)
    }

    /// Moves finished chunks from memory into files, when they are many enough for one.
    ///
    /// # Errors
    /// When files cannot be written; the chunks stay in memory then.
    pub(crate) fn store_chunks(&self) -> Result<(), StorageError> {
        let (mut chunks, mut owners, mut len_bytes) = (Vec::new(), Vec::new(), 0);
        self.series.for_each(|s| {
            let state = s.state.lock();
            let unstored = state.unstored();
            if !unstored.is_empty() {
                owners.push((s.clone(), unstored.len()));
                len_bytes += unstored.iter().map(|c| c.bytes.len()).sum::<usize>();
                chunks.extend(unstored.iter().map(|c| (s.reference, c.clone())));
            }
        });
        if len_bytes < STORE_LEN_BYTES_MIN { Ok(()) } else { self.store_all(&chunks, owners) }
    }

    /// Moves chunks into files: of each owner the first so many in memory, in the same order.
    pub(super) fn store_all(
        &self,
        chunks: &[(SeriesRef, HeadChunk)],
        owners: Vec<(Arc<MemSeries>, usize)>,
    ) -> Result<(), StorageError> {
        // The files must not have more than the log: of a batch that the log loses nothing is to be seen.
        self.wal.sync()?;
        let places = self.files.write(chunks)?;
        let mut rest = places.as_slice();
        for (series, n) in owners {
            let (of_series, others) = rest.split_at(n);
            series.state.lock().store(of_series);
            rest = others;
        }
        Ok(())
    }

    /// Drops samples before `mint`, which are in a block, and series that have none left.
    pub(crate) fn truncate_memory(&self, mint: i64) {
        self.metrics.head_truncations.inc();
        let _timer = self.metrics.head_gc_duration.start_timer();
        let mut dropped = 0;
        let mut oldest = i64::MAX;
        let mut empty = Vec::new();
        self.series.for_each(|s| {
            let mut state = s.state.lock();
            dropped += state.truncate(mint);
            oldest = oldest.min(state.mint().unwrap_or(i64::MAX));
            if state.chunk_count() == 0 {
                empty.push(s.clone());
            }
        });
        // A commit that runs beside may have put an older sample (never one before the bound) after we looked. The
        // next block takes everything below its end, so a bound that is too high here loses nothing.
        if self.min_time.load(Ordering::SeqCst) < mint {
            let new_min = if oldest == i64::MAX { i64::MAX } else { oldest.max(mint) };
            self.min_time.store(new_min, Ordering::SeqCst);
        }
        // Late samples that are older are still there, and what is deleted of them must stay so.
        self.forget_deleted(self.deletions_needed_from(mint));
        if let Err(e) = self.files.drop_before(mint) {
            tracing::warn!(error = %e, "a file of head chunks that is no longer needed stays");
        }
        let gone = self.series.remove_empty(&empty);
        let mut shapes = Shape::default();
        for s in &empty {
            let state = s.state.lock();
            if state.is_removed() {
                shapes.add(state.shape(), -1);
            }
        }
        self.count_shapes(shapes);
        let last_segment = self.wal.end().segment;
        self.expiring.lock().add(gone.iter().copied(), last_segment);
        self.metrics.series_removed.inc_by(gone.len() as u64);
        self.metrics.head_series.sub(gone.len() as i64);
        self.metrics.chunks_removed.inc_by(dropped as u64);
        self.metrics.head_chunks.sub(dropped as i64);
        self.show_times();
    }

    /// Tells the time before which a start takes everything from blocks. It is behind the end of what was cut last when nothing of
    /// that was left for a block: files of head chunks may have deleted samples from there on, which must stay deleted.
    pub(crate) fn set_restart_from(&self, time: i64) {
        self.restart_from.store(time, Ordering::SeqCst);
    }

    /// From when on it counts what is deleted, if everything before `mint` leaves the head.
    fn deletions_needed_from(&self, mint: i64) -> i64 {
        let late = self.late_range().map_or(i64::MAX, |(first, _)| first);
        mint.min(late).min(self.restart_from.load(Ordering::SeqCst))
    }

    /// Replaces the older two thirds of the log by a checkpoint, as far as no reader holds them. Nothing happens when
    /// there are too few segments.
    pub(crate) fn truncate_wal(&self, mint: i64) -> Result<(), StorageError> {
        let _timer = self.metrics.wal_truncate_duration.start_timer();
        let current = self.wal.next_segment()?;
        let Some(first) = segment::list(self.wal.dir())?.first().copied() else { return Ok(()) };
        // The segment before the current one stays too: commits may just have left it.
        let Some(last) = current.checked_sub(1).filter(|l| *l >= first) else { return Ok(()) };
        let wanted = first + (last - first) * 2 / 3;
        if wanted <= first {
            return Ok(());
        }
        let Some(upto) = self.wal.droppable(wanted)?.filter(|u| *u >= first) else { return Ok(()) };
        // The records must be durable before what they replace goes.
        self.wal.sync()?;
        self.metrics.checkpoints_created.inc();
        let deleted_from = self.deletions_needed_from(mint);
        let written = {
            let expiring = self.expiring.lock().clone();
            let keep = |r| self.series.get(r).is_some() || expiring.outlives(upto, r);
            let from_memory =
                |known: &BTreeSet<SeriesRef>, out: &mut RecordWriter| self.log_memory(mint, known, out);
            let wanted = Wanted { last: upto, mint, deleted_from, keep: &keep, from_memory: &from_memory };
            checkpoint::write(self.wal.dir(), self.wal.compression(), &wanted)
        };
        match written {
            Ok(damaged) => {
                for e in damaged {
                    self.count_corruption();
                    tracing::error!(error = %e, "the write-ahead log is damaged: the checkpoint got from memory what it held");
                }
            }
            Err(e) => {
                self.metrics.checkpoints_failed.inc();
                return Err(e);
            }
        }
        // One that begins in what goes now is worth nothing.
        self.drop_snapshot_upto(upto)?;
        self.wal.truncate(upto)?;
        self.expiring.lock().forget_upto(upto);
        Ok(())
    }
}
