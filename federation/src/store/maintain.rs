//! What is done about once a minute, and when memory runs full: choose what to seal, cut the journal, forget idle series.

use std::collections::BinaryHeap;
use std::time::Duration;

use model::StorageError;
use rocksdb::WriteBatch;

use super::Inner;
use super::families::{FAMILIES, JOURNAL, META};
use super::open::OpenSeries;
use super::rows::encode_counters;
use super::seal::{MAX_OPEN_SAMPLES, SealStats};
use super::write::Durable;

/// What one round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintainReport {
    /// Samples sealed.
    pub sealed_samples: u64,
    /// Chunks written for them, chunks extended included.
    pub sealed_chunks: u64,
    /// Months dropped.
    pub dropped_months: u64,
    /// Series dropped from months by rules of retention, counted in each month.
    pub dropped_by_rules: u64,
    /// Series removed with them.
    pub removed_series: u64,
    /// Series that left memory.
    pub forgotten_series: u64,
    /// Rows of rollups written for samples that were sealed without.
    pub filled_rollups: u64,
}

/// State of maintenance from round to round; its lock keeps rounds apart.
#[derive(Default)]
pub(super) struct Maintenance {
    /// Journal records below are deleted.
    journal_cut: u64,
    /// When idle series were looked for last.
    forgot_ms: i64,
    /// When the journal was cut last for want of memory, by the clock that nobody sets.
    relief_cut: Duration,
    /// Sealing for want of memory is not tried again before, by the clock that nobody sets: a reader held it back.
    relief_blocked_until: Duration,
    fill: super::rollup::FillState,
    retention: super::retention::RetentionState,
}

/// Samples sealed at once when memory runs full: whoever does it waits for some tenths of a second, on top of a commit.
const RELIEF_SAMPLES: usize = 250_000;
/// Most of the series looked at for that.
const RELIEF_SERIES: usize = 4096;
/// How often the journal is cut when memory runs full.
const RELIEF_CUT_EVERY: Duration = Duration::from_secs(5);
/// How long to wait after sealing for want of memory achieved nothing.
const RELIEF_PAUSE: Duration = Duration::from_millis(500);
/// What open samples of one series may take whatever the limit says: less would make short chunks, which are written again and again.
const OPEN_SERIES_BYTES: i64 = 1024;
/// Rounds without an append after which a series is idle; two fit in [`super::StoreConfig::forget_after`].
const IDLE_ROUNDS: u32 = 2;

impl Inner {
    pub(super) fn maintain(&self) -> Result<MaintainReport, StorageError> {
        let mut maintenance = self.maintenance.lock();
        let mut report = MaintainReport::default();
        let now_ms = self.clock.now_ms();
        let (months, series) = self.expire(now_ms)?;
        (report.dropped_months, report.removed_series) = (months, series);
        let (months, series) = self.expire_by_size()?;
        report.dropped_months += months;
        report.removed_series += series;
        report.dropped_by_rules = self.expire_by_rules(&mut maintenance.retention, now_ms)?;

        let started = self.clock.monotonic();
        let stats = self.seal(&self.due(now_ms))?;
        (report.sealed_samples, report.sealed_chunks) = (stats.taken, stats.chunks);
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.seal_seconds.set(took.as_secs_f64());

        self.cut_journal(&mut maintenance)?;
        report.forgotten_series = self.forget_idle(&mut maintenance, now_ms)?;
        report.filled_rollups = self.fill_rollups(&mut maintenance.fill)?;
        self.metrics.series.set(self.registry.read().len() as i64);
        for family in FAMILIES {
            let bytes = self.family_bytes(family);
            self.metrics.family_bytes.with_label_values(&[family]).set(bytes as i64);
        }
        Ok(report)
    }

    /// Slots to be sealed now.
    fn due(&self, now_ms: i64) -> Vec<u32> {
        let period = (self.config.seal_after.as_millis() as i64).max(1);
        let open = self.open.read();
        open.slots().filter(|(_, s)| is_due(s, now_ms, period)).map(|(slot, _)| slot).collect()
    }

    /// Seals some of the largest series when memory is over its limit. Called by those who commit, after their answer is
    /// certain: while one of them seals the others go on, up to twice the limit, where they wait.
    pub(super) fn relieve(&self) {
        let limit = self.open_limit_bytes();
        let bytes = self.metrics.open_bytes.get();
        if bytes <= limit {
            return;
        }
        let maintenance =
            if bytes <= 2 * limit { self.maintenance.try_lock() } else { Some(self.maintenance.lock()) };
        let Some(mut maintenance) = maintenance else { return };
        let now = self.clock.monotonic();
        // Whoever waited may find the work done, or in vain for now.
        if self.metrics.open_bytes.get() <= limit || now < maintenance.relief_blocked_until {
            return;
        }
        let is_cut_due = now.saturating_sub(maintenance.relief_cut) >= RELIEF_CUT_EVERY;
        let sealed = self.seal(&self.largest()).and_then(|stats| {
            if is_cut_due {
                maintenance.relief_cut = now;
                self.cut_journal(&mut maintenance)?;
            }
            Ok(stats)
        });
        match sealed {
            Ok(stats) if stats.taken > 0 => {}
            Ok(_) => maintenance.relief_blocked_until = now + RELIEF_PAUSE,
            Err(e) => {
                maintenance.relief_blocked_until = now + RELIEF_PAUSE;
                tracing::error!("long-term store: sealing early, because memory is full, failed: {e}");
            }
        }
    }

    /// Bytes of open samples above which sealing begins before its time.
    fn open_limit_bytes(&self) -> i64 {
        (self.metrics.open_series.get() * OPEN_SERIES_BYTES).max(self.config.open_max_bytes as i64)
    }

    /// Refuses new batches when memory is far over its limit: a reader or the disk holds sealing back.
    pub(super) fn check_memory(&self) -> Result<(), StorageError> {
        let (bytes, limit) = (self.metrics.open_bytes.get(), self.open_limit_bytes());
        if bytes > 4 * limit {
            return Err(StorageError::Limit(format!(
                "the long-term store holds {bytes} bytes of samples that are not sealed yet, four times its limit \
                 ({limit}); try again later"
            )));
        }
        Ok(())
    }

    /// The series with the most open samples: some with [`RELIEF_SAMPLES`] in all.
    fn largest(&self) -> Vec<u32> {
        let open = self.open.read();
        let mut heap = BinaryHeap::with_capacity(RELIEF_SERIES + 1);
        for (slot, s) in open.slots() {
            heap.push(std::cmp::Reverse((s.len(), slot)));
            if heap.len() > RELIEF_SERIES {
                heap.pop();
            }
        }
        drop(open);
        let mut samples = 0;
        let mut slots = Vec::new();
        for std::cmp::Reverse((len, slot)) in heap.into_sorted_vec() {
            slots.push(slot);
            samples += len;
            if samples >= RELIEF_SAMPLES {
                break;
            }
        }
        slots
    }

    /// Deletes the journal records whose samples are all sealed.
    fn cut_journal(&self, maintenance: &mut Maintenance) -> Result<(), StorageError> {
        let needed = {
            let open = self.open.read();
            open.slots().map(|(_, s)| s.first_seq()).min().unwrap_or(open.published + 1)
        };
        if needed <= maintenance.journal_cut {
            return Ok(());
        }
        let (next_id, next_seq) = {
            let writer = self.writer.lock();
            (writer.next_id, writer.next_seq)
        };
        let journal = self.cf(JOURNAL);
        let (from, to) = (0_u64.to_be_bytes(), needed.to_be_bytes());
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.cf(META), super::rows::COUNTERS_KEY, encode_counters(next_id, next_seq));
        batch.delete_range_cf(&journal, from, to);
        // Synced whatever the configuration: files are deleted next, and that is durable at once, so the chunks that
        // replace them and the counters that outlive them must be.
        self.write("cut journal of", batch, Durable::Now)?;
        let last = (needed - 1).to_be_bytes();
        let deleted = self.db.delete_file_in_range_cf(&journal, from, last);
        deleted.map_err(|e| self.error("delete journal files of", &e))?;
        maintenance.journal_cut = needed;
        Ok(())
    }

    fn forget_idle(&self, maintenance: &mut Maintenance, now_ms: i64) -> Result<u64, StorageError> {
        let round_ms = self.config.forget_after.as_millis() as i64 / i64::from(IDLE_ROUNDS);
        // A clock that was set back must not stop forgetting.
        if now_ms >= maintenance.forgot_ms && now_ms - maintenance.forgot_ms < round_ms {
            return Ok(0);
        }
        maintenance.forgot_ms = now_ms;
        let idle = self.registry.write().idle(IDLE_ROUNDS);
        let (mut forgotten, mut orphans) = (0, roaring::RoaringTreemap::new());
        // In slices, so that commits are not held up.
        for slots in idle.chunks(4096) {
            let mut writer = self.writer.lock();
            let mut open = self.open.write();
            let mut registry = self.registry.write();
            for slot in slots {
                // A series that was never committed is not known there.
                let (id, empty) = open.get(*slot).map_or((0, true), |s| (s.id, s.is_empty()));
                if !empty || !registry.forget(*slot) {
                    continue;
                }
                open.remove(*slot);
                writer.forget(*slot);
                forgotten += 1;
                if id != 0 && !writer.months.values().any(|ids| ids.contains(id)) {
                    orphans.insert(id);
                }
            }
        }
        // Series whose last month was dropped while they were in memory.
        self.remove_series(orphans)?;
        Ok(forgotten)
    }
}

/// Whether a series is to be sealed by age or by size. Each series has its own time of day, so that not all of them are
/// sealed in the same minute.
fn is_due(s: &OpenSeries, now_ms: i64, period: i64) -> bool {
    let phase = (s.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as i64 % period;
    let turn = |ms: i64| ms.saturating_add(phase).div_euclid(period);
    // A clock that was ahead when they came must not keep them open until then.
    s.len() >= MAX_OPEN_SAMPLES || turn(now_ms) != turn(s.opened_ms())
}

impl std::ops::AddAssign for SealStats {
    fn add_assign(&mut self, o: Self) {
        self.taken += o.taken;
        self.chunks += o.chunks;
        self.samples += o.samples;
        self.bytes += o.bytes;
        self.conflicts += o.conflicts;
        self.damaged += o.damaged;
    }
}
