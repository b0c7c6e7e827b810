//! What an operator asks for: deleting series, taking out for good what is deleted, snapshots.

use model::{Matcher, StorageError};

use super::Db;
use crate::block::meta::Ulid;
use crate::{compact, dir};

/// Directory of snapshots.
const SNAPSHOTS_DIR: &str = "snapshots";

impl Db {
    /// Deletes the samples within `[mint, maxt]` of the series that pass the matchers: durable, and not seen by queriers
    /// opened from now on. Disk space comes back when blocks are merged, or with [`Db::clean_tombstones`].
    ///
    /// # Errors
    /// When a block cannot be read or its tombstones not be written. What was deleted stays deleted.
    pub fn delete(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<(), StorageError> {
        self.check_open()?;
        let _maintenance = self.maintenance.lock();
        // The head first: what leaves it meanwhile would otherwise come into a block that was looked at already.
        self.head.delete(matchers, mint, maxt)?;
        for block in self.blocks.load_full().iter().filter(|b| b.overlaps(mint, maxt)) {
            block.delete(matchers, mint, maxt)?;
        }
        Ok(())
    }

    /// Writes blocks with deleted samples anew, without them.
    ///
    /// # Errors
    /// When a block cannot be read or written. What was done stays done.
    pub fn clean_tombstones(&self) -> Result<(), StorageError> {
        self.check_open()?;
        let _maintenance = self.maintenance.lock();
        let timer = self.metrics.tombstone_cleanup.start_timer();
        for block in self.blocks.load_full().iter() {
            if !block.tombstones().is_empty() {
                self.merge(std::slice::from_ref(block))?;
            }
        }
        timer.observe_duration();
        self.show_sizes()
    }

    /// Makes a directory below `snapshots/` with all blocks, as links to their files, and, unless `skip_head`, one more with
    /// what the head has. Returns its name.
    ///
    /// # Errors
    /// When files cannot be linked or written; no snapshot is left then.
    pub fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        self.check_open()?;
        let _maintenance = self.maintenance.lock();
        let now_ms = self.clock.now_ms();
        let name = format!("{}-{:016x}", timestamp(now_ms), Ulid::new(now_ms).random() >> 1);
        let root = self.config.dir.join(SNAPSHOTS_DIR).join(&name);
        dir::create_all(&root)?;
        let write = || {
            self.blocks.load_full().iter().try_for_each(|b| b.snapshot(&root))?;
            if let (false, Some(last)) = (skip_head, self.head.max_time()) {
                let end = last.saturating_add(1);
                let seen = self.head.isolation.snapshot(i64::MIN);
                compact::cut_head(&self.head, &root, end, now_ms, &seen, &self.metrics)?;
            }
            dir::sync(&root)
        };
        write().inspect_err(|_| drop(dir::remove_all(&root)))?;
        Ok(name)
    }
}

/// UTC as `20060102T150405Z`.
fn timestamp(ms: i64) -> String {
    let (days, seconds) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
    // Days since the first of March of the year 0, in eras of 400 years: the leap day is the last of its year.
    let day = days + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day_of_month:02}T{h:02}{m:02}{s:02}Z")
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn timestamps_are_read_as_dates() {
        for (s, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_735_689_600, "20250101T000000Z"),
        ] {
            assert_eq!(timestamp(s * 1000), text);
        }
    }
}
