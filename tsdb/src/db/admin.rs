//! What an operator asks for: deleting series, taking out for good what is deleted, snapshots.

use model::calendar::DateTime;
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
        self.check_ready()?;
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
    /// When a block cannot be read or written; the others are done all the same.
    pub fn clean_tombstones(&self) -> Result<(), StorageError> {
        self.check_ready()?;
        let _maintenance = self.maintenance.lock();
        let timer = self.metrics.tombstone_cleanup.start_timer();
        let mut done = Ok(());
        for block in self.blocks.load_full().iter() {
            if !block.tombstones().is_empty() {
                done = done.and(self.merge(std::slice::from_ref(block)));
            }
        }
        timer.observe_duration();
        self.show_sizes()?;
        done
    }

    /// Takes a snapshot of the head, so that the next start replays only what is logged from now on. Maintenance does that from
    /// time to time.
    ///
    /// # Errors
    /// When files cannot be written; the last snapshot stays then.
    pub fn take_snapshot(&self) -> Result<(), StorageError> {
        self.check_ready()?;
        let _maintenance = self.maintenance.lock();
        self.head.take_snapshot()
    }

    /// Makes a directory below `snapshots/` with all blocks, as links to their files, and, unless `skip_head`, one more with
    /// what the head has. Returns its name.
    ///
    /// # Errors
    /// When files cannot be linked or written; no snapshot is left then.
    pub fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        self.check_ready()?;
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
    let d = DateTime::from_ms(ms);
    let (year, month, day) = (d.year, d.month, d.day);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", d.hour, d.minute, d.second)
}
