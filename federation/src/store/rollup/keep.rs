//! Keeping rows true while chunks change: sealing adds to them, late samples and deleting make them anew.
//!
//! Everything here only adds to the RocksDB write in which the chunks change, and holds the maintenance lock. When a row cannot be
//! made, because a chunk is damaged, the old one goes: its part is then answered from chunks, which tell of the damage.

use std::ops::Range;
use std::sync::atomic::Ordering;

use model::{Samples, StorageError};
use rocksdb::WriteBatch;

use super::{FILLED_KEY, Family, Part, ROLLUPS, Row};
use crate::store::Inner;
use crate::store::chunk::{chunk_head, decode_stored};
use crate::store::chunk_rows::ChunkRows;
use crate::store::families::META;
use crate::store::keys::{Month, month_start_ms, parse_sample_key, sample_key};
use crate::store::seal::merge_all;

impl Inner {
    /// Adds the samples `range`, all of one month, which are about to be sealed. Chunks in the database are as before.
    pub(in crate::store) fn roll_up(
        &self,
        raw: &mut ChunkRows<'_>,
        (month, id): (Month, u64),
        samples: &Samples,
        range: Range<usize>,
        batch: &mut WriteBatch,
    ) -> Result<(), StorageError> {
        let ts = &samples.timestamps_ms;
        for family in ROLLUPS {
            let mut at = range.start;
            while at < range.end {
                let part = family.part_of(month, ts[at]);
                let to = at + ts[at..range.end].partition_point(|t| *t < part.end);
                self.roll_up_part(raw, family, part, (month, id), samples, at..to, batch)?;
                at = to;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the loop of one caller, cut out")]
    fn roll_up_part(
        &self,
        raw: &mut ChunkRows<'_>,
        family: &'static Family,
        part: Part,
        (month, id): (Month, u64),
        samples: &Samples,
        range: Range<usize>,
        batch: &mut WriteBatch,
    ) -> Result<(), StorageError> {
        let cf = self.cf(family.name);
        let key = sample_key(month, id, part.start);
        let stored = self.db.get_pinned_cf(&cf, key).map_err(|e| self.error("read rollups of", &e))?;
        let row = match stored {
            None => {
                if self.has_sealed(raw, (month, id), part)? {
                    // Written before there were rollups, or taken away: maintenance fills it in, with what is sealed now.
                    self.want_filling(batch);
                    return Ok(());
                }
                let mut row = Row::new(family, part);
                row.push(samples, range);
                row
            }
            Some(bytes) => match Row::decode(family, part, &bytes) {
                Ok(mut row) if samples.timestamps_ms[range.start] > row.maxt => {
                    row.push(samples, range);
                    row
                }
                Ok(_) => {
                    let mut new = samples.clone();
                    new.clip(part.start, part.end - 1);
                    return self.make_row(raw, family, part, (month, id), batch, |old| merge_all(&old, &new));
                }
                Err(e) => {
                    self.report_damage(family, (month, id), part, &e);
                    batch.delete_cf(&cf, key);
                    self.want_filling(batch);
                    return Ok(());
                }
            },
        };
        batch.put_cf(&cf, key, row.encode());
        Ok(())
    }

    /// Makes the row of a part anew from its chunks and what `change` makes of their samples.
    fn make_row(
        &self,
        raw: &mut ChunkRows<'_>,
        family: &'static Family,
        part: Part,
        (month, id): (Month, u64),
        batch: &mut WriteBatch,
        change: impl FnOnce(Samples) -> Samples,
    ) -> Result<(), StorageError> {
        let cf = self.cf(family.name);
        let key = sample_key(month, id, part.start);
        let mut old = Samples::new();
        match self.read_sealed(raw, (month, id), part.start, part.end - 1, &mut old) {
            Ok(()) => {}
            Err(e @ (StorageError::Decode { .. } | StorageError::Corruption { .. })) => {
                tracing::error!("rollups of a damaged chunk are dropped: {e}");
                batch.delete_cf(&cf, key);
                self.want_filling(batch);
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        let row = Row::of(family, part, &change(old));
        if row.is_empty() {
            batch.delete_cf(&cf, key);
        } else {
            batch.put_cf(&cf, key, row.encode());
        }
        Ok(())
    }

    /// Takes the samples within `[mint, maxt]` out of the rows of a series in a month; some were found between `first` and `last`.
    /// Chunks in the database are as before.
    pub(in crate::store) fn cut_rollups(
        &self,
        raw: &mut ChunkRows<'_>,
        (month, id): (Month, u64),
        (mint, maxt): (i64, i64),
        (first, last): (i64, i64),
        batch: &mut WriteBatch,
    ) -> Result<(), StorageError> {
        for family in ROLLUPS {
            let cf = self.cf(family.name);
            let mut at = first;
            while at <= last {
                let part = family.part_of(month, at);
                at = part.end;
                let key = sample_key(month, id, part.start);
                if mint <= part.start && maxt >= part.end - 1 {
                    batch.delete_cf(&cf, key);
                    continue;
                }
                let there = self.db.get_pinned_cf(&cf, key).map_err(|e| self.error("read rollups of", &e))?;
                if there.is_some() {
                    self.make_row(raw, family, part, (month, id), batch, |old| without(&old, mint, maxt))?;
                }
            }
        }
        Ok(())
    }

    /// Drops the rows of a series in a month: one of its chunks was moved aside.
    pub(in crate::store) fn drop_rollups(&self, month: Month, id: u64, batch: &mut WriteBatch) {
        let (from, to) = (sample_key(month, id, 0), sample_key(month, id.saturating_add(1), 0));
        for family in ROLLUPS {
            batch.delete_range_cf(&self.cf(family.name), from, to);
        }
        self.want_filling(batch);
    }

    /// Some part with samples lacks its row from this write on.
    fn want_filling(&self, batch: &mut WriteBatch) {
        batch.delete_cf(&self.cf(META), FILLED_KEY);
        self.rollup_gaps.store(true, Ordering::SeqCst);
    }

    /// A damaged row is no loss: its part is answered from chunks.
    pub(super) fn report_damage(
        &self,
        family: &Family,
        (month, id): (Month, u64),
        part: Part,
        e: &StorageError,
    ) {
        self.metrics.corruptions.inc();
        tracing::error!(
            "{}: series {id}, month {}, part at {}: {e}; its samples are read instead",
            self.config.dir.join(family.name).display(),
            crate::store::keys::month_name(month),
            part.start
        );
    }

    /// Whether a part has sealed samples.
    fn has_sealed(
        &self,
        raw: &mut ChunkRows<'_>,
        (month, id): (Month, u64),
        part: Part,
    ) -> Result<bool, StorageError> {
        let mut samples = Samples::new();
        match self.read_sealed(raw, (month, id), part.start, part.end - 1, &mut samples) {
            Ok(()) => Ok(!samples.is_empty()),
            Err(StorageError::Decode { .. } | StorageError::Corruption { .. }) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Fills `out` with the sealed samples of a series within `[mint, maxt]`, a range within a month.
    pub(super) fn read_sealed(
        &self,
        raw: &mut ChunkRows<'_>,
        (month, id): (Month, u64),
        mint: i64,
        maxt: i64,
        out: &mut Samples,
    ) -> Result<(), StorageError> {
        read_sealed(raw, (month, id), mint, maxt, out)
            .map_err(|(start, e)| self.read_error(month, id, start, e))?;
        raw.status().map_err(|e| self.raw_error(month, id, mint, &e))
    }
}

/// Fills `out` with the sealed samples of a series within `[mint, maxt]`, a range within a month. The iterator's status is not looked at.
/// Of a chunk that does not decode the start is told.
pub(in crate::store) fn read_sealed(
    raw: &mut ChunkRows<'_>,
    (month, id): (Month, u64),
    mint: i64,
    maxt: i64,
    out: &mut Samples,
) -> Result<(), (i64, StorageError)> {
    out.clear();
    raw.seek_for_prev(sample_key(month, id, mint));
    if raw.key().and_then(parse_sample_key).is_none_or(|(m, i, _)| (m, i) != (month, id)) {
        raw.seek(sample_key(month, id, mint.max(month_start_ms(month))));
    }
    while let Some((key, value)) = raw.item() {
        let Some((m, i, start)) = parse_sample_key(key) else { break };
        if (m, i) != (month, id) || start > maxt {
            break;
        }
        // A damaged head is found when the chunk is decoded.
        if chunk_head(value).map_or(true, |head| head.maxt >= mint) {
            let whole = raw.whole();
            whole.and_then(|whole| decode_stored(&whole, out)).map_err(|e| (start, e))?;
        }
        raw.next();
    }
    out.clip(mint, maxt);
    Ok(())
}

/// The samples outside of `[mint, maxt]`.
fn without(samples: &Samples, mint: i64, maxt: i64) -> Samples {
    let (mut before, mut after) = (samples.clone(), samples.clone());
    match mint.checked_sub(1) {
        Some(end) => before.clip(i64::MIN, end),
        None => before.clear(),
    }
    match maxt.checked_add(1) {
        Some(start) => after.clip(start, i64::MAX),
        None => after.clear(),
    }
    merge_all(&before, &after)
}
