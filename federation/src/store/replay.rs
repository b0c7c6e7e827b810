//! Opening: the journal becomes open samples again, the index tells which series each month has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::{Clock, StorageError};
use parking_lot::{Mutex, RwLock};
use roaring::RoaringTreemap;
use rocksdb::DB;

use super::Inner;
use super::commit::Writer;
use super::config::StoreConfig;
use super::error::StoreError;
use super::families::{INDEX, JOURNAL, META, SEALED, SERIES};
use super::journal::Record;
use super::keys::{Month, all_series_key};
use super::maintain::Maintenance;
use super::metrics::Metrics;
use super::open::{Apply, NO_READER, Open, Readers};
use super::postings;
use super::registry::Registry;
use super::rows::{COUNTERS_KEY, decode_counters, decode_series, metadata_hash};

/// Reads what the store keeps in memory from an open database.
pub(super) fn load(
    config: StoreConfig,
    clock: Arc<dyn Clock>,
    db: DB,
    metrics: Metrics,
) -> Result<Inner, StoreError> {
    let inner = Inner {
        config,
        clock,
        db,
        registry: RwLock::new(Registry::default()),
        open: RwLock::new(Open::default()),
        readers: Readers::default(),
        writer: Mutex::new(Writer::new(1, 1, BTreeMap::new())),
        queue: Mutex::new(Vec::new()),
        maintenance: Mutex::new(Maintenance::default()),
        months: RwLock::new(BTreeSet::new()),
        metrics,
        closed: AtomicBool::new(false),
        rollup_gaps: AtomicBool::new(true),
        #[cfg(test)]
        write_fault: Default::default(),
    };
    inner.load_rollup_gaps()?;
    let months = inner.load_months()?;
    *inner.months.write() = months.keys().copied().collect();
    let (next_id, next_seq) = inner.load_counters()?;
    *inner.writer.lock() = Writer::new(next_id, next_seq, months);
    inner.replay_journal()?;
    Ok(inner)
}

/// What replay knows of a series: its slot and through which sequence it is sealed; `None` when its row is gone.
type Known = HashMap<u64, Option<(u32, u64)>>;

impl Inner {
    fn load_months(&self) -> Result<BTreeMap<Month, RoaringTreemap>, StorageError> {
        let index = self.cf(INDEX);
        let mut months = BTreeMap::new();
        let mut keys = self.db.raw_iterator_cf(&index);
        keys.seek_to_first();
        while let Some(month) = keys.key().and_then(|k| k.first_chunk::<2>()) {
            let month = Month::from_be_bytes(*month);
            let mut ids = RoaringTreemap::new();
            let row = self.db.get_pinned_cf(&index, all_series_key(month));
            if let Some(row) = row.map_err(|e| self.error("read index of", &e))? {
                postings::decode(&row, &mut ids)?;
            }
            months.insert(month, ids);
            let Some(next) = month.checked_add(1) else { break };
            keys.seek(next.to_be_bytes());
        }
        keys.status().map_err(|e| self.error("read index of", &e))?;
        Ok(months)
    }

    fn load_counters(&self) -> Result<(u64, u64), StorageError> {
        let (mut next_id, mut next_seq) = (1, 1);
        let row = self.db.get_pinned_cf(&self.cf(META), COUNTERS_KEY);
        if let Some(row) = row.map_err(|e| self.error("read counters of", &e))? {
            (next_id, next_seq) = decode_counters(&row)?;
        }
        next_id = next_id.max(self.last_key(SERIES)?.map_or(1, |id| id + 1));
        next_seq = next_seq.max(self.last_key(JOURNAL)?.map_or(1, |seq| seq + 1));
        Ok((next_id, next_seq))
    }

    fn last_key(&self, family: &str) -> Result<Option<u64>, StorageError> {
        let mut rows = self.db.raw_iterator_cf(&self.cf(family));
        rows.seek_to_last();
        rows.status().map_err(|e| self.error("read last key of", &e))?;
        Ok(rows.key().and_then(|k| k.try_into().ok()).map(u64::from_be_bytes))
    }

    fn replay_journal(&self) -> Result<(), StorageError> {
        let mut record = Record::default();
        let mut known = Known::new();
        let now_ms = self.clock.now_ms();
        let mut options = rocksdb::ReadOptions::default();
        options.set_readahead_size(4 << 20);
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_cf_opt(&self.cf(JOURNAL), options);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            let seq = key.try_into().map(u64::from_be_bytes);
            let seq = seq.map_err(|_| StorageError::decode("journal key", "not eight bytes"))?;
            if let Err(e) = record.decode(value) {
                // Its samples are lost either way; a store that does not open would lose the others too.
                tracing::error!(dir = %self.config.dir.display(), "journal record {seq} is damaged and skipped: {e}");
                self.metrics.corruptions.inc();
            } else {
                self.replay_record(seq, now_ms, &mut record, &mut known)?;
            }
            rows.next();
        }
        rows.status().map_err(|e| self.error("read journal of", &e))?;
        let published = self.writer.lock().next_seq - 1;
        let mut open = self.open.write();
        open.published = published;
        self.metrics.show_open(&open);
        Ok(())
    }

    fn replay_record(
        &self,
        seq: u64,
        now_ms: i64,
        record: &mut Record,
        known: &mut Known,
    ) -> Result<(), StorageError> {
        let ids = record.floats.iter().map(|f| f.0).chain(record.others.iter().map(|o| o.0));
        for id in ids {
            if let std::collections::hash_map::Entry::Vacant(e) = known.entry(id) {
                e.insert(self.replay_series(id)?);
            }
        }
        let at = Apply { seq, now_ms, oldest_reader: NO_READER };
        let slot = |id: u64| known[&id].filter(|(_, sealed)| *sealed < seq).map(|(slot, _)| slot);
        let mut open = self.open.write();
        for (id, t, v) in &record.floats {
            if let Some(slot) = slot(*id) {
                open.push_float(&at, slot, *t, *v);
            }
        }
        for (id, sample) in record.others.drain(..) {
            if let Some(slot) = slot(id) {
                open.push(&at, slot, sample);
            }
        }
        open.published = seq;
        self.metrics.show_open(&open);
        drop(open);
        // A journal larger than memory, for example after the limit was lowered, is sealed on the way.
        self.relieve();
        Ok(())
    }

    /// Takes a series of the journal into memory.
    fn replay_series(&self, id: u64) -> Result<Option<(u32, u64)>, StorageError> {
        let key = id.to_be_bytes();
        let row = self.db.get_pinned_cf(&self.cf(SERIES), key);
        let Some(row) = row.map_err(|e| self.error("read series of", &e))? else { return Ok(None) };
        let (labels, metadata) = decode_series(&row)?;
        let sealed = self.db.get_pinned_cf(&self.cf(SEALED), key);
        let sealed = sealed.map_err(|e| self.error("read sealed sequence of", &e))?;
        let sealed = sealed.and_then(|v| v.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
        let hash = labels.hash64();
        let mut registry = self.registry.write();
        if registry.find(hash, &labels).is_some() {
            return Err(StorageError::decode("series", format!("{labels} has two ids, one is {id}")));
        }
        let r = registry.insert(hash, labels.clone(), id);
        drop(registry);
        self.writer.lock().learn(r, id, metadata_hash(&labels, metadata.as_ref()));
        self.open.write().insert(r.slot, id, labels);
        Ok(Some((r.slot, sealed)))
    }
}
