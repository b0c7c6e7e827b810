//! Expiry: months older than retention go as a whole, series that no month knows any more go with them.
//!
//! Nothing is rewritten. Each step may be repeated after a crash: the list of a month's series is deleted last.
//!
//! When nothing has come since the newest month ended, ages count to that month's begin: a clock that is years ahead for a
//! minute must not cost years of samples. A store that nothing is written to therefore keeps what it has.

use std::collections::BTreeMap;

use model::StorageError;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::Inner;
use super::families::{AGG1H, AGG5M, EXEMPLARS, IDS, INDEX, META, RAW, SEALED, SERIES, TS};
use super::keys::{Month, id_key, month_end_ms, month_name, month_range, month_start_ms};
use super::rows::{COUNTERS_KEY, decode_series, encode_counters};
use super::write::Durable;

/// How long nothing may come after the end of a month before the clock is not believed.
const SILENCE_MS: i64 = 86_400_000;
/// Series removed in one RocksDB write.
const REMOVE_SERIES: usize = 4096;

impl Inner {
    /// The time that ages are counted to: the clock's, unless that has left the newest month that has samples behind.
    pub(super) fn expiry_ms(&self, now_ms: i64) -> i64 {
        let newest = self.months.read().last().copied();
        let silent = newest.filter(|m| now_ms.saturating_sub(month_end_ms(*m)) > SILENCE_MS);
        silent.map_or(now_ms, month_start_ms)
    }

    /// Drops what is older than retention. Returns the number of months and of series. The maintenance lock is held.
    pub(super) fn expire(&self, now_ms: i64) -> Result<(u64, u64), StorageError> {
        let oldest = self.oldest_ms(now_ms);
        // A reader that began earlier may still ask for more.
        let oldest = self.readers.oldest_mint().map_or(oldest, |mint| oldest.min(mint));
        let expired: Vec<Month> =
            self.months.read().iter().copied().take_while(|m| month_end_ms(*m) <= oldest).collect();
        let mut removed = 0;
        for month in &expired {
            removed += self.drop_month(*month)?;
            tracing::info!(dir = %self.config.dir.display(), "dropped month {}", month_name(*month));
        }
        Ok((expired.len() as u64, removed))
    }

    pub(super) fn drop_month(&self, month: Month) -> Result<u64, StorageError> {
        let dying = {
            let writer = self.writer.lock();
            only_in(&writer.months, month)
        };
        let removed = self.remove_series(dying)?;
        let (from, to) = month_range(month);
        for family in [RAW, TS, EXEMPLARS, AGG5M, AGG1H, INDEX] {
            let cf = self.cf(family);
            // `to` itself is no key, so that it does not matter that RocksDB counts it in. Whole files first: that is what frees the space at once. The rest goes with the next compaction.
            let files = self.db.delete_file_in_range_cf(&cf, from, to);
            files.map_err(|e| self.error("delete files of a month in", &e))?;
            let range = self.db.delete_range_cf(&cf, from, to);
            range.map_err(|e| self.error("delete a month in", &e))?;
        }
        self.writer.lock().months.remove(&month);
        self.months.write().remove(&month);
        self.metrics.dropped_months.inc();
        Ok(removed)
    }

    /// Removes the rows of series that have no month, but for those in memory.
    pub(super) fn remove_series(&self, mut dying: RoaringTreemap) -> Result<u64, StorageError> {
        if dying.is_empty() {
            return Ok(0);
        }
        {
            let mut registry = self.registry.write();
            dying -= registry.live_ids();
            registry.dying.clone_from(&dying);
            registry.removals += 1;
        }
        let result = self.delete_series_rows(&dying);
        let mut registry = self.registry.write();
        registry.dying.clear();
        registry.removals += 1;
        drop(registry);
        self.metrics.removed_series.inc_by(dying.len());
        result.map(|()| dying.len())
    }

    fn delete_series_rows(&self, dying: &RoaringTreemap) -> Result<(), StorageError> {
        let (series, ids, sealed) = (self.cf(SERIES), self.cf(IDS), self.cf(SEALED));
        let counters = {
            let writer = self.writer.lock();
            encode_counters(writer.next_id, writer.next_seq)
        };
        let all: Vec<u64> = dying.iter().collect();
        for slice in all.chunks(REMOVE_SERIES) {
            let mut batch = WriteBatch::default();
            // Ids are not used again, even when the rows that would tell are gone.
            batch.put_cf(&self.cf(META), COUNTERS_KEY, &counters);
            for id in slice {
                let key = id.to_be_bytes();
                let row =
                    self.db.get_pinned_cf(&series, key).map_err(|e| self.error("read series of", &e))?;
                // A damaged row cannot tell its hash; its entry in `ids` then finds no row and is ignored.
                if let Some((labels, _)) = row.and_then(|row| decode_series(&row).ok()) {
                    batch.delete_cf(&ids, id_key(labels.hash64(), *id));
                }
                batch.delete_cf(&series, key);
                batch.delete_cf(&sealed, key);
            }
            self.write("remove series from", batch, Durable::Later)?;
        }
        Ok(())
    }
}

/// Series of a month that no later month has.
fn only_in(months: &BTreeMap<Month, RoaringTreemap>, month: Month) -> RoaringTreemap {
    let mut ids = months.get(&month).cloned().unwrap_or_default();
    for (_, later) in months.range(month + 1..) {
        ids -= later;
    }
    ids
}
