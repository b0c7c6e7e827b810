//! The head: the newest samples, in memory, durable through the write-ahead log.
//!
//! Reading order: `series` (one series), `chunk_list` (its finished chunks), `out_of_order` (its late samples), `series_map` (all
//! series), `postings` and `slot_list` (label index), `append` (batches), `isolation` and `visibility` (what a reader sees), `read` (selections), `replay` (from the logs at open), `truncate` (what moves
//! into a block leaves), `rescue` (damaged files), `late` (late samples of the whole head), `delete`,
//! `head_chunks` (finished chunks in files), `snapshot` (files that make a start short) and `commits` (what it waits for), `exemplars`.
//!
//! Order of a commit: log the records, then apply them series by series under one commit number. On replay the same
//! records are applied in the order of the log.

pub(crate) mod append;
mod chunk_list;
mod commits;
pub(crate) mod delete;
pub(crate) mod exemplars;
pub(crate) mod expiring;
pub(crate) mod head_chunks;
pub(crate) mod isolation;
pub(crate) mod late;
pub(crate) mod out_of_order;
pub(crate) mod postings;
pub(crate) mod read;
pub(crate) mod replay;
mod rescue;
pub(crate) mod series;
pub(crate) mod series_map;
mod slot_list;
pub(crate) mod snapshot;
pub(crate) mod symbols;
pub(crate) mod truncate;
mod visibility;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use model::{Matcher, SeriesRef};
use parking_lot::Mutex;

use crate::block::tombstones::Tombstones;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::wal::Wal;
use commits::Commits;
use exemplars::ExemplarRing;
use expiring::Expiring;
use head_chunks::HeadChunks;
use isolation::Isolation;
use out_of_order::Bounds;
use postings::MemPostings;
use series::{ChunkForm, MemSeries, Shape};
use series_map::{RefMap, SeriesMap};
use snapshot::Snapshots;

/// The head of a database.
pub(crate) struct Head {
    form: ChunkForm,
    /// Start timestamps are stored.
    stores_starts: bool,
    pub(crate) series: SeriesMap,
    pub(crate) isolation: Arc<Isolation>,
    pub(crate) wal: Arc<Wal>,
    /// Timestamp of the oldest sample, or a lower bound; `i64::MAX` when there is none.
    min_time: AtomicI64,
    /// Before this a start takes everything from blocks.
    restart_from: AtomicI64,
    /// Timestamp of the newest sample; `i64::MIN` when there is none.
    max_time: AtomicI64,
    /// Older samples do not go into the chunks in order: a block has, or is getting, that time.
    min_valid: AtomicI64,
    late: late::Late,
    /// Finished chunks that are in files.
    pub(crate) files: Arc<HeadChunks>,
    exemplars: Mutex<ExemplarRing>,
    tombstones: ArcSwap<Tombstones>,
    /// Commits that are being logged and applied.
    commits: Commits,
    snapshots: Snapshots,
    /// References of the logs that are not their series' own.
    aliases: RefMap<SeriesRef>,
    /// References that are gone but that segments after this one may still name.
    expiring: Mutex<Expiring>,
    metrics: Arc<Metrics>,
}

impl Head {
    pub(crate) fn new(
        config: &Config,
        min_valid: i64,
        (wal, files): (Arc<Wal>, HeadChunks),
        replayed: replay::Replay,
        metrics: Arc<Metrics>,
    ) -> Self {
        let head = Self {
            form: config.chunk_form(),
            stores_starts: config.store_start_timestamps,
            series: replayed.series,
            isolation: Arc::new(Isolation::default()),
            wal,
            min_time: AtomicI64::new(replayed.min_time),
            restart_from: AtomicI64::new(min_valid),
            max_time: AtomicI64::new(replayed.max_time),
            min_valid: AtomicI64::new(min_valid),
            late: late::Late::new(config, replayed.late, &metrics),
            files: Arc::new(files),
            exemplars: Mutex::new(replayed.exemplars),
            tombstones: ArcSwap::from_pointee(replayed.tombstones),
            commits: Commits::default(),
            snapshots: Snapshots::new(&config.dir, replayed.snapshot),
            aliases: replayed.aliases,
            expiring: Mutex::new(replayed.expiring),
            metrics,
        };
        head.metrics.exemplars_max.set(config.exemplars_max as i64);
        head.exemplars.lock().show(&head.metrics);
        head.metrics.head_series.set(head.series.index().len() as i64);
        let (mut chunks, mut shapes) = (0, Shape::default());
        head.series.for_each(|s| {
            let state = s.state.lock();
            chunks += state.chunk_count();
            shapes.add(state.shape(), 1);
        });
        head.metrics.stale_series.set(0);
        head.metrics.histogram_series.set(0);
        head.metrics.histogram_buckets.set(0);
        head.count_shapes(shapes);
        head.metrics.head_chunks.set(chunks as i64);
        head.show_times();
        head
    }

    /// Timestamp of the oldest sample, or a lower bound of it.
    pub(crate) fn min_time(&self) -> Option<i64> {
        let t = self.min_time.load(Ordering::SeqCst);
        (t != i64::MAX).then_some(t)
    }

    /// Timestamp of the newest sample.
    pub(crate) fn max_time(&self) -> Option<i64> {
        let t = self.max_time.load(Ordering::SeqCst);
        (t != i64::MIN).then_some(t)
    }

    /// The oldest timestamp a sample may have now: nothing that a block covers, and not more than half a block behind.
    pub(crate) fn min_valid(&self) -> i64 {
        let bound = self.max_time().map_or(i64::MIN, |t| t.saturating_sub(self.form.range_ms / 2));
        self.min_valid.load(Ordering::SeqCst).max(bound)
    }

    /// What a batch that begins now may hold.
    fn bounds(&self) -> Bounds {
        Bounds {
            min_valid: self.min_valid(),
            max_time: self.max_time.load(Ordering::SeqCst),
            window_ms: self.late.window_ms(),
        }
    }

    /// Length of blocks cut from the head.
    pub(crate) fn range_ms(&self) -> i64 {
        self.form.range_ms
    }

    /// A log was found damaged.
    pub(crate) fn count_corruption(&self) {
        self.metrics.wal_corruptions.inc();
    }

    /// Adds to the counts of series by the kind of their newest sample.
    fn count_shapes(&self, change: Shape) {
        if change != Shape::default() {
            self.metrics.stale_series.add(change.stale);
            self.metrics.histogram_series.add(change.histogram);
            self.metrics.histogram_buckets.add(change.buckets);
        }
    }

    fn saw(&self, mint: i64, maxt: i64) {
        self.min_time.fetch_min(mint, Ordering::SeqCst);
        self.max_time.fetch_max(maxt, Ordering::SeqCst);
        self.show_times();
    }

    fn show_times(&self) {
        self.metrics.head_min_time.set(self.min_time.load(Ordering::SeqCst));
        self.metrics.head_max_time.set(self.max_time.load(Ordering::SeqCst));
        self.metrics.head_min_time_seconds.set(self.min_time.load(Ordering::SeqCst) / 1000);
        self.metrics.head_max_time_seconds.set(self.max_time.load(Ordering::SeqCst) / 1000);
    }

    /// The series with these labels, made when there is none.
    fn get_or_create(&self, labels: &model::Labels) -> Arc<MemSeries> {
        let (series, created) = self.series.get_or_create(labels, None);
        if created {
            self.metrics.series_created.inc();
            self.metrics.head_series.inc();
        }
        series
    }

    /// Exemplars of the series that pass one of the sets of matchers.
    pub(crate) fn exemplars(
        &self,
        sets: &[Vec<Matcher>],
        mint: i64,
        maxt: i64,
    ) -> Vec<exemplars::SeriesExemplars> {
        self.exemplars.lock().select(sets, mint, maxt)
    }

    /// Runs `f` over the label index; commits that make new series wait meanwhile.
    pub(crate) fn with_postings<T>(&self, f: impl FnOnce(&MemPostings) -> T) -> T {
        f(&self.series.index())
    }
}
