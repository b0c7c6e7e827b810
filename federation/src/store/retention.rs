//! Retention by selector and by size, beside the one for everything.
//!
//! The first rule whose matchers a series passes says how long its samples are kept; the store's own retention does for
//! the rest. A reader sees nothing that is older, to the millisecond; on disk samples go by whole months, in which they are
//! deleted by series. A month that the longest retention has no use for goes as files ([`super::expire`]). Over the limit of size the
//! oldest months go, but never the newest one.

use model::{Labels, Matcher, StorageError};
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::Inner;
use super::config::StoreConfig;
use super::families::{AGG1H, AGG5M, EXEMPLARS, FAMILIES, RAW};
use super::keys::{Month, month_end_ms, month_name, month_range, sample_key};
use super::write::Durable;

/// How often series are looked for that a rule has no use for.
const EVERY_MS: i64 = 3_600_000;
/// What a reader still sees that began a while ago.
const MARGIN_MS: i64 = 3_600_000;
/// Series deleted in one RocksDB write.
const SERIES_AT_A_TIME: usize = 4096;

/// How long the samples of some series are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionRule {
    /// What the series must match.
    pub matchers: Vec<Matcher>,
    /// Samples older than this are not shown, and dropped.
    pub retention_ms: i64,
}

impl StoreConfig {
    /// The longest retention that any series may have.
    pub(super) fn longest_ms(&self) -> i64 {
        self.rules.iter().map(|r| r.retention_ms).fold(self.retention_ms, i64::max)
    }

    /// Retention of one series.
    pub(super) fn retention_of(&self, labels: &Labels) -> i64 {
        let rule = self.rules.iter().find(|r| Matcher::all_match(&r.matchers, labels));
        rule.map_or(self.retention_ms, |r| r.retention_ms)
    }
}

/// When rules were looked at last.
#[derive(Default)]
pub(super) struct RetentionState {
    looked_ms: Option<i64>,
}

impl Inner {
    /// Drops the series of months that the rules have no use for. Gives how many series left a month. The maintenance lock is held.
    pub(super) fn expire_by_rules(
        &self,
        state: &mut RetentionState,
        now_ms: i64,
    ) -> Result<u64, StorageError> {
        let is_early = state.looked_ms.is_some_and(|t| (0..EVERY_MS).contains(&(now_ms - t)));
        if self.config.rules.is_empty() || is_early {
            return Ok(0);
        }
        let months: Vec<Month> = self.months.read().iter().copied().collect();
        let mut dropped = 0;
        for month in months {
            let gone = self.expired_in(month, now_ms)?;
            if !gone.is_empty() {
                self.drop_series_of(month, &gone)?;
                dropped += gone.len();
                tracing::info!(
                    dir = %self.config.dir.display(),
                    series = gone.len(),
                    "dropped series of {} by a rule of retention",
                    month_name(month)
                );
            }
        }
        state.looked_ms = Some(now_ms);
        Ok(dropped)
    }

    /// Series of a month whose retention ended before the month's end.
    fn expired_in(&self, month: Month, now_ms: i64) -> Result<RoaringTreemap, StorageError> {
        let expiry_ms = self.expiry_ms(now_ms);
        let is_over = |retention_ms: i64| {
            month_end_ms(month) <= expiry_ms.saturating_sub(retention_ms).saturating_sub(MARGIN_MS)
        };
        let (rules, general) = (&self.config.rules, self.config.retention_ms);
        let mut gone = RoaringTreemap::new();
        if !is_over(general) && !rules.iter().any(|r| is_over(r.retention_ms)) {
            return Ok(gone);
        }
        let mut rest = self.writer.lock().months.get(&month).cloned().unwrap_or_default();
        for rule in rules {
            let of_rule = self.select_in(month, &rule.matchers)? & &rest;
            rest -= &of_rule;
            if is_over(rule.retention_ms) {
                gone |= of_rule;
            }
        }
        if is_over(general) {
            gone |= rest;
        }
        Ok(gone)
    }

    /// Series of one month that pass all matchers.
    fn select_in(&self, month: Month, matchers: &[Matcher]) -> Result<RoaringTreemap, StorageError> {
        let (first, last) = (super::keys::month_start_ms(month), month_end_ms(month) - 1);
        let selection = self.select(matchers, first, last)?;
        let ids = selection.all();
        if !selection.check_labels {
            return Ok(ids);
        }
        let series = self.labels_of_ids(&ids)?;
        Ok(series.into_iter().filter(|(l, _)| Matcher::all_match(matchers, l)).map(|(_, id)| id).collect())
    }

    /// Deletes what a month has of some series. May be repeated after a crash: the index forgets them last.
    fn drop_series_of(&self, month: Month, gone: &RoaringTreemap) -> Result<(), StorageError> {
        // Open samples would come back with their sealing.
        let slots: Vec<u32> = {
            let open = self.open.read();
            gone.iter().filter_map(|id| open.slot_of(id)).collect()
        };
        self.seal_past_readers(&slots)?;
        let all: Vec<u64> = gone.iter().collect();
        for part in all.chunks(SERIES_AT_A_TIME) {
            let mut batch = WriteBatch::default();
            for run in part.chunk_by(|a, b| a + 1 == *b) {
                let (first, last) = (run[0], run[run.len() - 1]);
                for family in [RAW, AGG5M, AGG1H, EXEMPLARS] {
                    let (from, to) = (sample_key(month, first, 0), sample_key(month, last + 1, 0));
                    batch.delete_range_cf(&self.cf(family), from, to);
                }
            }
            self.write("drop series from", batch, Durable::Later)?;
        }
        self.unindex(month, &all)?;
        let orphans = {
            let writer = self.writer.lock();
            gone.iter().filter(|id| !writer.months.values().any(|of| of.contains(*id))).collect()
        };
        self.remove_series(orphans)?;
        // Reading past many deleted ranges is slow, and the space is wanted.
        let (from, to) = month_range(month);
        for family in [RAW, AGG5M, AGG1H, EXEMPLARS] {
            self.db.compact_range_cf(&self.cf(family), Some(from), Some(to));
        }
        Ok(())
    }

    /// Drops the oldest months while the store is over its limit of size. Gives the months and series dropped.
    pub(super) fn expire_by_size(&self) -> Result<(u64, u64), StorageError> {
        let limit = self.config.max_bytes;
        let (mut months, mut series) = (0, 0);
        if limit == 0 {
            return Ok((months, series));
        }
        loop {
            let bytes: u64 = FAMILIES.iter().map(|f| self.family_bytes(f)).sum();
            let oldest = {
                let months = self.months.read();
                (months.len() > 1).then(|| months.first().copied()).flatten()
            };
            let Some(month) = oldest.filter(|_| bytes > limit) else { break };
            tracing::warn!(
                dir = %self.config.dir.display(),
                bytes,
                limit,
                "the long-term store is over its limit of size: {} is dropped",
                month_name(month)
            );
            series += self.drop_month(month)?;
            months += 1;
        }
        Ok((months, series))
    }
}
