//! What the store says of itself: numbers for status pages, metadata, exemplars.

use model::{Exemplar, Labels, Matcher, Metadata, StorageError};

use super::families::{EXEMPLARS, FAMILIES, SERIES};
use super::keys::{month_of, month_start_ms, parse_sample_key, sample_key};
use super::rows::{decode_exemplar, decode_series};
use super::{Inner, LongtermStore};

/// Numbers of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Series with samples in the newest month.
    pub series: u64,
    /// Series in memory: those that took samples lately.
    pub series_in_memory: u64,
    /// Samples in memory that are not sealed yet, and the memory they take.
    pub open_samples: u64,
    /// Bytes of these.
    pub open_bytes: u64,
    /// First millisecond of the oldest month with data.
    pub oldest_ms: Option<i64>,
    /// Months with data.
    pub months: u64,
    /// Bytes on disk, and by column family.
    pub disk_bytes: u64,
    /// Column family and its bytes on disk.
    pub family_bytes: Vec<(&'static str, u64)>,
    /// Properties of RocksDB worth showing: name and value.
    pub rocksdb: Vec<(&'static str, u64)>,
}

const PROPERTIES: [&str; 6] = [
    "rocksdb.cur-size-all-mem-tables",
    "rocksdb.estimate-table-readers-mem",
    "rocksdb.block-cache-usage",
    "rocksdb.num-running-compactions",
    "rocksdb.num-running-flushes",
    "rocksdb.estimate-pending-compaction-bytes",
];

impl LongtermStore {
    /// Numbers for status pages. Reads no data.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let inner = &self.inner;
        let (open_samples, open_bytes) = {
            let open = inner.open.read();
            (open.samples, open.bytes)
        };
        let family_bytes: Vec<_> = FAMILIES.iter().map(|f| (*f, inner.family_bytes(f))).collect();
        let series = inner.writer.lock().months.last_key_value().map_or(0, |(_, ids)| ids.len());
        let months = inner.months.read();
        StoreStats {
            series,
            series_in_memory: inner.registry.read().len() as u64,
            open_samples,
            open_bytes,
            oldest_ms: months.first().map(|m| month_start_ms(*m)),
            months: months.len() as u64,
            disk_bytes: family_bytes.iter().map(|(_, b)| b).sum(),
            family_bytes,
            rocksdb: PROPERTIES.iter().map(|p| (*p, inner.property(p))).collect(),
        }
    }

    /// Metadata of the series that pass the matchers and have samples near `[mint, maxt]`, sorted by labels; series
    /// without metadata are left out, and at most `limit` (0: all) are given.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn metadata(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
        limit: usize,
    ) -> Result<Vec<(Labels, Metadata)>, StorageError> {
        let inner = &self.inner;
        inner.check_open()?;
        let cf = inner.cf(SERIES);
        let mut out = Vec::new();
        for id in inner.select(matchers, mint, maxt)?.all() {
            let row = inner.db.get_pinned_cf(&cf, id.to_be_bytes());
            let Some(row) = row.map_err(|e| inner.error("read series of", &e))? else { continue };
            let (labels, metadata) = decode_series(&row)?;
            if let Some(metadata) = metadata.filter(|_| Matcher::all_match(matchers, &labels)) {
                out.push((labels, metadata));
                if limit > 0 && out.len() == limit {
                    break;
                }
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// Exemplars in `[mint, maxt]` of the series that pass the matchers, sorted by labels and time, at most `limit` in all
    /// (0: all).
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn exemplars(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
        limit: usize,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError> {
        let inner = &self.inner;
        inner.check_open()?;
        let mint = mint.max(inner.oldest_ms(inner.clock.now_ms()));
        let selection = inner.select(matchers, mint, maxt)?;
        let mut series = inner.labels_of_ids(&selection.all())?;
        series.retain(|(labels, _)| Matcher::all_match(matchers, labels));
        series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut left = if limit == 0 { usize::MAX } else { limit };
        let mut out = Vec::new();
        for (labels, id) in series {
            let found = inner.exemplars_of(id, mint, maxt, left)?;
            left -= found.len();
            if !found.is_empty() {
                out.push((labels, found));
            }
        }
        Ok(out)
    }
}

impl Inner {
    fn exemplars_of(
        &self,
        id: u64,
        mint: i64,
        maxt: i64,
        limit: usize,
    ) -> Result<Vec<Exemplar>, StorageError> {
        let mut out = Vec::new();
        let mut rows = self.db.raw_iterator_cf(&self.cf(EXEMPLARS));
        for month in self.months_in(mint, maxt) {
            let from = if month == month_of(mint) { mint } else { month_start_ms(month) };
            rows.seek(sample_key(month, id, from.max(0)));
            while let Some((key, value)) = rows.item() {
                let Some((m, i, t)) = parse_sample_key(key) else { break };
                if (m, i) != (month, id) || t > maxt || out.len() >= limit {
                    break;
                }
                out.push(decode_exemplar(value, t)?);
                rows.next();
            }
            rows.status().map_err(|e| self.error("read exemplars of", &e))?;
        }
        Ok(out)
    }

    /// Bytes of a column family on disk, its memtables not included.
    pub(super) fn family_bytes(&self, family: &str) -> u64 {
        let value = self.db.property_int_value_cf(&self.cf(family), "rocksdb.live-sst-files-size");
        value.ok().flatten().unwrap_or(0)
    }

    fn property(&self, name: &str) -> u64 {
        self.db.property_int_value_cf(&self.cf(super::families::RAW), name).ok().flatten().unwrap_or(0)
    }
}
