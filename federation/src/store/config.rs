//! Settings of the long-term store.

use std::path::PathBuf;
use std::time::Duration;

use super::error::StoreError;
use super::retention::RetentionRule;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Settings of the long-term store; [`StoreConfig::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Directory of the store. Made when it does not exist.
    pub dir: PathBuf,
    /// Samples older than this are not shown, not taken, and dropped by whole months. Default 400 days.
    pub retention_ms: i64,
    /// Retention of some series; the first rule that a series passes counts. Default none.
    pub rules: Vec<RetentionRule>,
    /// Bytes on disk above which the oldest months go, whatever retention says; 0 for no limit. The journal counts. Default 0.
    pub max_bytes: u64,
    /// Samples further ahead of the clock than this are refused as out of bounds. Default one hour.
    pub future_limit_ms: i64,
    /// Bytes of open samples in memory above which sealing begins before its time; a kilobyte for each series with open samples is
    /// always allowed. At twice as much, commits wait for sealing. The journal, and with it the time of a start, follows this.
    /// Default 128 MiB.
    pub open_max_bytes: usize,
    /// How long samples stay open before they are sealed. Default one day.
    pub seal_after: Duration,
    /// Series without open samples that nothing was appended to for this long leave memory; they come back with their
    /// next sample. Default two hours.
    pub forget_after: Duration,
    /// RocksDB's cache of uncompressed blocks. Default 256 MiB.
    pub cache_bytes: usize,
    /// All memtables together. Default 64 MiB.
    pub write_buffer_bytes: usize,
    /// Whether a commit waits until its bytes are on the disk, so that it survives loss of power. Without, it survives
    /// the end of the process. Default true.
    pub sync: bool,
    /// Threads that RocksDB may use for flushing and compacting. Default 2.
    pub background_threads: usize,
}

impl StoreConfig {
    /// The defaults.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            retention_ms: 400 * DAY_MS,
            rules: Vec::new(),
            max_bytes: 0,
            future_limit_ms: 3_600_000,
            open_max_bytes: 128 << 20,
            seal_after: Duration::from_secs(86_400),
            forget_after: Duration::from_secs(7200),
            cache_bytes: 256 << 20,
            write_buffer_bytes: 64 << 20,
            sync: true,
            background_threads: 2,
        }
    }

    /// Refuses settings that cannot be.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let refuse = |text: &str| Err(StoreError::Config(text.to_owned()));
        if self.retention_ms <= 0 || self.rules.iter().any(|r| r.retention_ms <= 0) {
            return refuse("the retention must be positive");
        }
        if self.future_limit_ms < 0 {
            return refuse("the limit for samples in the future must not be negative");
        }
        if self.seal_after.is_zero() {
            return refuse("the time before sealing must be positive");
        }
        Ok(())
    }
}
