//! Filling in: parts whose samples were sealed before there were rollups, or whose row went with a damaged chunk, get their rows, a
//! bounded number of them in each round of maintenance.
//!
//! The walk goes over months and series in the order of the chunks. A record in `meta` says that it came to its end; whoever
//! takes a row away, or leaves one out, deletes that record in the same write, and the walk begins anew.

use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{Samples, StorageError};
use rocksdb::WriteBatch;

use super::{FILLED_KEY, ROLLUPS, Row};
use crate::store::Inner;
use crate::store::chunk::chunk_head;
use crate::store::chunk_rows::ChunkRows;
use crate::store::families::META;
use crate::store::keys::{Month, parse_sample_key, sample_key};
use crate::store::write::Durable;

/// Samples decoded, and months of series looked at, in one round.
const ROUND_SAMPLES: u64 = 32 << 20;
const ROUND_SERIES: u64 = 50_000;
/// Time that a round takes at the most: sealing waits meanwhile.
const ROUND_TIME: Duration = Duration::from_secs(5);
/// Bytes of one write.
const WRITE_BYTES: usize = 1 << 20;

/// Where the walk is.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct FillState {
    next: Option<(Month, u64)>,
}

impl Inner {
    /// Whether some part may lack its row, as the database says at opening.
    pub(in crate::store) fn load_rollup_gaps(&self) -> Result<(), StorageError> {
        let record = self.db.get_pinned_cf(&self.cf(META), FILLED_KEY);
        let gaps = record.map_err(|e| self.error("read meta of", &e))?.is_none();
        self.rollup_gaps.store(gaps, Ordering::SeqCst);
        Ok(())
    }

    /// Goes on with the walk. Gives the number of rows written. The maintenance lock is held.
    pub(in crate::store) fn fill_rollups(&self, state: &mut FillState) -> Result<u64, StorageError> {
        let (month, id) = match state.next {
            Some(at) => at,
            None if self.rollup_gaps.swap(false, Ordering::SeqCst) => (0, 0),
            None => return Ok(0),
        };
        state.next = Some((month, id));
        let started = self.clock.monotonic();
        let mut raw = self.chunk_rows();
        let (mut rows, mut samples, mut series) = (0, 0, 0);
        let mut batch = WriteBatch::default();
        raw.seek(sample_key(month, id, 0));
        loop {
            raw.status().map_err(|e| self.error("read chunks of", &e))?;
            let Some((month, id, _)) = raw.key().and_then(parse_sample_key) else { break };
            let late = self.clock.monotonic().saturating_sub(started) > ROUND_TIME;
            if samples > ROUND_SAMPLES || series > ROUND_SERIES || late {
                state.next = Some((month, id));
                self.write_filled(std::mem::take(&mut batch))?;
                return Ok(rows);
            }
            series += 1;
            let (new_rows, read) = self.fill_series(&mut raw, (month, id), &mut batch)?;
            rows += new_rows;
            samples += read;
            if batch.size_in_bytes() > WRITE_BYTES {
                self.write_filled(std::mem::take(&mut batch))?;
            }
            raw.seek(sample_key(month, id.saturating_add(1), 0));
        }
        if !self.rollup_gaps.load(Ordering::SeqCst) {
            batch.put_cf(&self.cf(META), FILLED_KEY, b"");
        }
        self.write_filled(batch)?;
        state.next = None;
        Ok(rows)
    }

    /// Makes the rows that a series lacks in a month. Gives their number and the samples read.
    fn fill_series(
        &self,
        raw: &mut ChunkRows<'_>,
        (month, id): (Month, u64),
        batch: &mut WriteBatch,
    ) -> Result<(u64, u64), StorageError> {
        let mut chunks = Vec::new();
        while let Some((key, value)) = raw.item() {
            let Some((m, i, start)) = parse_sample_key(key) else { break };
            if (m, i) != (month, id) {
                break;
            }
            // A damaged head is found when the chunk is read.
            chunks.push((start, chunk_head(value).map_or(start, |head| head.maxt)));
            raw.next();
        }
        raw.status().map_err(|e| self.raw_error(month, id, 0, &e))?;
        let (mut rows, mut read) = (0, 0);
        let mut samples = Samples::new();
        for family in ROLLUPS {
            let cf = self.cf(family.name);
            let mut done = i64::MIN;
            for (start, maxt) in &chunks {
                let mut at = (*start).max(done);
                while at <= *maxt {
                    let part = family.part_of(month, at);
                    (at, done) = (part.end, part.end);
                    let key = sample_key(month, id, part.start);
                    let there =
                        self.db.get_pinned_cf(&cf, key).map_err(|e| self.error("read rollups of", &e))?;
                    if there.is_some() {
                        continue;
                    }
                    match self.read_sealed(raw, (month, id), part.start, part.end - 1, &mut samples) {
                        Ok(()) => {}
                        // Its part stays with its chunks, which tell of the damage when they are asked.
                        Err(StorageError::Decode { .. } | StorageError::Corruption { .. }) => continue,
                        Err(e) => return Err(e),
                    }
                    read += samples.len() as u64;
                    if !samples.is_empty() {
                        batch.put_cf(&cf, key, Row::of(family, part, &samples).encode());
                        rows += 1;
                    }
                }
            }
        }
        Ok((rows, read))
    }

    /// Not synced: what is lost is made again.
    fn write_filled(&self, batch: WriteBatch) -> Result<(), StorageError> {
        self.write("write rollups to", batch, Durable::Later)
    }
}
