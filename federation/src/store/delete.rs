//! Deleting: samples of chosen series within a range of time, at once and for good.
//!
//! Open samples are sealed first, past readers, which may find less than they came for; then chunks are cut, with a sync;
//! then series that have nothing left in a month leave its index. Each step may be repeated after a crash. Samples that arrive
//! meanwhile may stay, and what is sent again is taken again.

use std::collections::BTreeMap;

use model::{Matcher, Samples, StorageError};
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::chunk::decode_stored;
use super::chunk_rows::ChunkBatch;
use super::families::{INDEX, RAW};
use super::keys::{
    Month, all_series_key, index_key, month_end_ms, month_start_ms, parse_sample_key, sample_key,
};
use super::seal::SealStats;
use super::write::Durable;
use super::{Inner, LongtermStore, postings};

/// Series whose chunks are cut in one RocksDB write.
const SERIES_AT_A_TIME: usize = 256;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Series that lost samples.
    pub series: u64,
    /// Samples.
    pub samples: u64,
}

impl LongtermStore {
    /// Deletes the samples within `[mint, maxt]` of the series that pass all matchers. Durable on return. Exemplars and metadata
    /// stay until their month expires.
    ///
    /// # Errors
    /// When the store is closed, RocksDB fails, or a chunk that holds other samples too is damaged. What was deleted by then
    /// stays deleted; the call can be repeated.
    pub fn delete(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Deleted, StorageError> {
        self.inner.check_open()?;
        let _maintenance = self.inner.maintenance.lock();
        self.inner.delete(matchers, mint.max(0), maxt)
    }
}

impl Inner {
    /// The maintenance lock is held.
    fn delete(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Deleted, StorageError> {
        let selection = self.select(matchers, mint, maxt)?;
        let mut ids = selection.all();
        if selection.check_labels {
            let series = self.labels_of_ids(&ids)?;
            let passing = series.iter().filter(|(labels, _)| Matcher::all_match(matchers, labels));
            ids = passing.map(|(_, id)| *id).collect();
        }
        let slots: Vec<u32> = {
            let open = self.open.read();
            ids.iter().filter_map(|id| open.slot_of(id)).collect()
        };
        self.seal_past_readers(&slots)?;
        let mut deleted = Deleted::default();
        let mut losers = RoaringTreemap::new();
        for (month, of_month) in &selection.months {
            let all: Vec<u64> = (of_month & &ids).iter().collect();
            for part in all.chunks(SERIES_AT_A_TIME) {
                let mut out = ChunkBatch::default();
                for id in part {
                    let samples = self.cut_series(*month, *id, (mint, maxt), &mut out)?;
                    deleted.samples += samples;
                    if samples > 0 {
                        losers.insert(*id);
                    }
                }
                self.write("delete from", self.finish_chunks(out)?, Durable::Now)?;
            }
            self.unindex(*month, &all)?;
        }
        deleted.series = losers.len();
        let orphans = {
            let writer = self.writer.lock();
            ids.iter().filter(|id| !writer.months.values().any(|of| of.contains(*id))).collect()
        };
        self.remove_series(orphans)?;
        Ok(deleted)
    }

    /// Takes the samples of a range out of the chunks of a series in a month. Gives how many those are.
    fn cut_series(
        &self,
        month: Month,
        id: u64,
        (mint, maxt): (i64, i64),
        out: &mut ChunkBatch,
    ) -> Result<u64, StorageError> {
        let family = self.cf(RAW);
        let mut raw = self.chunk_rows();
        raw.seek(sample_key(month, id, 0));
        let (mut cut, mut stats, mut samples) = (0, SealStats::default(), Samples::new());
        let mut bounds: Option<(i64, i64)> = None;
        while let Some((m, i, start)) = raw.key().and_then(parse_sample_key) {
            if (m, i) != (month, id) || start > maxt {
                break;
            }
            samples.clear();
            let whole = raw.whole();
            let head = whole
                .and_then(|whole| decode_stored(&whole, &mut samples))
                .map_err(|e| self.read_error(month, id, start, e))?;
            if head.maxt >= mint {
                let ts = &samples.timestamps_ms;
                let from = ts.partition_point(|t| *t < mint);
                let to = ts.partition_point(|t| *t <= maxt);
                if from < to {
                    cut += (to - from) as u64;
                    let first = bounds.map_or(ts[from], |(first, _)| first);
                    bounds = Some((first, ts[to - 1]));
                    out.batch.delete_cf(&family, sample_key(month, id, start));
                    for rest in [0..from, to..samples.len()] {
                        self.put_chunks(month, id, &samples, rest, out, &mut stats);
                    }
                }
            }
            raw.next();
        }
        raw.status().map_err(|e| self.raw_error(month, id, mint, &e))?;
        if let Some(bounds) = bounds {
            self.cut_rollups(&mut raw, (month, id), (mint, maxt), bounds, &mut out.batch)?;
        }
        Ok(cut)
    }

    /// Takes the series that have no sample left in a month out of its index.
    pub(super) fn unindex(&self, month: Month, ids: &[u64]) -> Result<(), StorageError> {
        // Nobody commits meanwhile: a sample that comes after puts its series into the index again.
        let mut writer = self.writer.lock();
        let mut gone = RoaringTreemap::new();
        let mut raw = self.db.raw_iterator_cf(&self.cf(RAW));
        for id in ids {
            raw.seek(sample_key(month, *id, 0));
            raw.status().map_err(|e| self.raw_error(month, *id, 0, &e))?;
            let is_sealed =
                raw.key().and_then(parse_sample_key).is_some_and(|(m, i, _)| (m, i) == (month, *id));
            if !is_sealed && !self.is_open_in(month, *id) {
                gone.insert(*id);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let mut less: BTreeMap<Vec<u8>, RoaringTreemap> = BTreeMap::new();
        for (labels, id) in self.labels_of_ids(&gone)? {
            for (name, value) in &labels {
                less.entry(index_key(month, name, value)).or_default().insert(id);
            }
        }
        less.insert(all_series_key(month).to_vec(), gone.clone());
        let index = self.cf(INDEX);
        let mut batch = WriteBatch::default();
        for (key, ids) in less {
            let row = self.db.get_pinned_cf(&index, &key).map_err(|e| self.error("read index of", &e))?;
            let mut there = RoaringTreemap::new();
            if let Some(row) = row {
                postings::decode(&row, &mut there)?;
            }
            there -= ids;
            if there.is_empty() {
                batch.delete_cf(&index, key);
            } else {
                batch.put_cf(&index, key, postings::encode(&there));
            }
        }
        self.write("delete from the index of", batch, Durable::Now)?;
        if let Some(of_month) = writer.months.get_mut(&month) {
            *of_month -= &gone;
        }
        let open = self.open.read();
        for slot in gone.iter().filter_map(|id| open.slot_of(id)) {
            writer.forget_month(slot);
        }
        Ok(())
    }

    /// Whether a series has open samples in a month.
    fn is_open_in(&self, month: Month, id: u64) -> bool {
        let open = self.open.read();
        open.by_id(id).is_some_and(|s| s.has(s.len(), month_start_ms(month), month_end_ms(month) - 1))
    }
}
