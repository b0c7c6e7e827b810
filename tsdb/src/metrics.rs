//! Metrics of the database, under Prometheus's names where it has one.

use std::sync::Arc;

use model::Clock;
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use summary::Summary;

use crate::error::Error;

macro_rules! metrics {
    ($clock:ident; $( $field:ident : $kind:ty = $make:expr; )*) => {
        /// All metrics of one database.
        pub(crate) struct Metrics { $( pub(crate) $field: $kind, )* }

        impl Metrics {
            /// Makes the metrics and registers them. Those that are registered already stay with their first owner.
            pub(crate) fn register(registry: &Registry, $clock: &Arc<dyn Clock>) -> Result<Self, Error> {
                $( let $field = register(registry, $make)?; )*
                let metrics = Self { $( $field, )* };
                metrics.show_types();
                Ok(metrics)
            }
        }
    };
}

impl Metrics {
    /// Counters by type show their zeros from the start.
    fn show_types(&self) {
        for c in [
            &self.samples_appended,
            &self.out_of_order,
            &self.out_of_bounds,
            &self.too_old,
            &self.duplicates,
            &self.late_appended,
        ] {
            ["float", "histogram"].iter().for_each(|t| drop(c.with_label_values(&[t])));
        }
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> Result<C, Error> {
    let metric = made.map_err(|e| Error::Metrics(e.to_string()))?;
    match registry.register(Box::new(metric.clone())) {
        Ok(()) | Err(prometheus::Error::AlreadyReg) => Ok(metric),
        Err(e) => Err(Error::Metrics(e.to_string())),
    }
}

fn counter(name: &str, help: &str) -> prometheus::Result<IntCounter> {
    IntCounter::new(name, help)
}

fn by_type(name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), &["type"])
}

fn gauge(name: &str, help: &str) -> prometheus::Result<IntGauge> {
    IntGauge::new(name, help)
}

fn fsyncs(name: &str, clock: &Arc<dyn Clock>) -> prometheus::Result<Summary> {
    Summary::new(name, "Duration of write log fsync.", &[0.5, 0.9, 0.99], clock.clone())
}

/// Count and sum of durations alone.
fn durations(name: &str, help: &str, clock: &Arc<dyn Clock>) -> prometheus::Result<Summary> {
    Summary::new(name, help, &[], clock.clone())
}

/// Buckets from the first number on, each so many times the one before.
fn exponential(
    name: &str,
    help: &str,
    (start, factor, count): (f64, f64, usize),
) -> prometheus::Result<Histogram> {
    let buckets = prometheus::exponential_buckets(start, factor, count)?;
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
}

/// As Prometheus has them.
const LATENESS_SECONDS: [f64; 8] = [600.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0];

/// Metrics of one of the two logs.
#[derive(Clone)]
pub(crate) struct LogMetrics {
    pub(crate) segment_current: IntGauge,
    pub(crate) writes_failed: IntCounter,
    pub(crate) truncations: IntCounter,
    pub(crate) truncations_failed: IntCounter,
    pub(crate) fsync_duration: Summary,
    pub(crate) storage_bytes: IntGauge,
}

impl LogMetrics {
    /// Metrics that nobody sees: of a log that lives for seconds.
    pub(crate) fn unseen(clock: &Arc<dyn Clock>) -> prometheus::Result<Self> {
        Ok(Self {
            segment_current: gauge("segment_current", "-")?,
            writes_failed: counter("writes_failed", "-")?,
            truncations: counter("truncations", "-")?,
            truncations_failed: counter("truncations_failed", "-")?,
            fsync_duration: fsyncs("fsync_duration", clock)?,
            storage_bytes: gauge("storage_bytes", "-")?,
        })
    }
}

impl Metrics {
    /// Metrics of the write-ahead log.
    pub(crate) fn wal(&self) -> LogMetrics {
        LogMetrics {
            segment_current: self.wal_segment_current.clone(),
            writes_failed: self.wal_writes_failed.clone(),
            truncations: self.wal_truncations.clone(),
            truncations_failed: self.wal_truncations_failed.clone(),
            fsync_duration: self.wal_fsync_duration.clone(),
            storage_bytes: self.wal_storage_bytes.clone(),
        }
    }

    /// Metrics of the log of late samples.
    pub(crate) fn wbl(&self) -> LogMetrics {
        LogMetrics {
            segment_current: self.wbl_segment_current.clone(),
            writes_failed: self.wbl_writes_failed.clone(),
            truncations: self.wbl_truncations.clone(),
            truncations_failed: self.wbl_truncations_failed.clone(),
            fsync_duration: self.wbl_fsync_duration.clone(),
            storage_bytes: self.wbl_storage_bytes.clone(),
        }
    }
}

metrics! {
    clock;
    head_series: IntGauge = gauge("prometheus_tsdb_head_series", "Total number of series in the head block.");
    stale_series: IntGauge = gauge("prometheus_tsdb_head_stale_series", "Total number of stale series in the head block.");
    histogram_series: IntGauge = gauge("prometheus_tsdb_head_native_histogram_series", "Number of series whose most recent in-order sample is a native histogram.");
    histogram_buckets: IntGauge = gauge("prometheus_tsdb_head_native_histogram_buckets", "Number of positive and negative bucket entries in the most recent in-order native histogram sample of each series, including entries carried by staleness markers.");
    series_created: IntCounter = counter("prometheus_tsdb_head_series_created_total", "Total number of series created in the head");
    series_removed: IntCounter = counter("prometheus_tsdb_head_series_removed_total", "Total number of series removed in the head");
    head_chunks: IntGauge = gauge("prometheus_tsdb_head_chunks", "Total number of chunks in the head block.");
    chunks_created: IntCounter = counter("prometheus_tsdb_head_chunks_created_total", "Total number of chunks created in the head");
    chunks_removed: IntCounter = counter("prometheus_tsdb_head_chunks_removed_total", "Total number of chunks removed in the head");
    samples_appended: IntCounterVec = by_type("prometheus_tsdb_head_samples_appended_total", "Total number of appended samples.");
    out_of_order: IntCounterVec = by_type("prometheus_tsdb_out_of_order_samples_total", "Total number of out of order samples ingestion failed attempts due to out of order being disabled.");
    out_of_bounds: IntCounterVec = by_type("prometheus_tsdb_out_of_bound_samples_total", "Total number of out of bound samples ingestion failed attempts with out of order support disabled.");
    too_old: IntCounterVec = by_type("prometheus_tsdb_too_old_samples_total", "Total number of out of order samples ingestion failed attempts with out of support enabled, but sample outside of time window.");
    late_appended: IntCounterVec = by_type("prometheus_tsdb_head_out_of_order_samples_appended_total", "Total number of appended out of order samples.");
    lateness: Histogram = Histogram::with_opts(HistogramOpts::new("prometheus_tsdb_sample_ooo_delta", "Delta in seconds by which a sample is considered out of order (reported regardless of OOO time window and whether sample is accepted or not).").buckets(LATENESS_SECONDS.to_vec()));
    duplicates: IntCounterVec = by_type("almanac_tsdb_duplicate_samples_total", "Total number of samples refused because their series has another value at that timestamp.");
    head_min_time: IntGauge = gauge("prometheus_tsdb_head_min_time", "Minimum time bound of the head block. The unit is decided by the library consumer.");
    head_max_time: IntGauge = gauge("prometheus_tsdb_head_max_time", "Maximum timestamp of the head block. The unit is decided by the library consumer.");
    head_min_time_seconds: IntGauge = gauge("prometheus_tsdb_head_min_time_seconds", "Minimum time bound of the head block.");
    head_max_time_seconds: IntGauge = gauge("prometheus_tsdb_head_max_time_seconds", "Maximum timestamp of the head block.");
    head_gc_duration: Summary = durations("prometheus_tsdb_head_gc_duration_seconds", "Runtime of garbage collection in the head block.", clock);
    series_not_found: IntCounter = counter("prometheus_tsdb_head_series_not_found_total", "Total number of requests for series that were not found.");
    appenders_created: IntCounter = counter("prometheus_tsdb_head_appenders_created_total", "Total number of appender transactions created.");
    appenders_active: IntGauge = gauge("prometheus_tsdb_head_active_appenders", "Number of currently active appender transactions");
    isolation_low: IntGauge = gauge("prometheus_tsdb_isolation_low_watermark", "The lowest TSDB append ID that is still referenced.");
    isolation_high: IntGauge = gauge("prometheus_tsdb_isolation_high_watermark", "The highest TSDB append ID that has been given out.");
    head_truncations: IntCounter = counter("prometheus_tsdb_head_truncations_total", "Total number of head truncations attempted.");
    exemplars_appended: IntCounter = counter("prometheus_tsdb_exemplar_exemplars_appended_total", "Total number of appended exemplars.");
    exemplars_out_of_order: IntCounter = counter("prometheus_tsdb_exemplar_out_of_order_exemplars_total", "Total number of out of order exemplar ingestion failed attempts.");
    exemplars_in_storage: IntGauge = gauge("prometheus_tsdb_exemplar_exemplars_in_storage", "Number of exemplars currently in circular storage.");
    exemplars_series: IntGauge = gauge("prometheus_tsdb_exemplar_series_with_exemplars_in_storage", "Number of series with exemplars currently in circular storage.");
    exemplars_oldest_seconds: Gauge = Gauge::new("prometheus_tsdb_exemplar_last_exemplars_timestamp_seconds", "The timestamp of the oldest exemplar stored in circular storage.");
    exemplars_max: IntGauge = gauge("prometheus_tsdb_exemplar_max_exemplars", "Total number of exemplars the exemplar storage can store, resizeable.");
    wal_segment_current: IntGauge = gauge("prometheus_tsdb_wal_segment_current", "Write log segment index that TSDB is currently writing to.");
    wal_writes_failed: IntCounter = counter("prometheus_tsdb_wal_writes_failed_total", "Total number of write log writes that failed.");
    wal_fsync_duration: Summary = fsyncs("prometheus_tsdb_wal_fsync_duration_seconds", clock);
    wal_corruptions: IntCounter = counter("prometheus_tsdb_wal_corruptions_total", "Total number of WAL corruptions.");
    head_chunk_corruptions: IntCounter = counter("prometheus_tsdb_mmap_chunk_corruptions_total", "Total number of memory-mapped chunk corruptions.");
    wal_truncations: IntCounter = counter("prometheus_tsdb_wal_truncations_total", "Total number of write log truncations attempted.");
    wal_truncations_failed: IntCounter = counter("prometheus_tsdb_wal_truncations_failed_total", "Total number of write log truncations that failed.");
    wal_truncate_duration: Summary = durations("prometheus_tsdb_wal_truncate_duration_seconds", "Duration of WAL truncation.", clock);
    wal_storage_bytes: IntGauge = gauge("prometheus_tsdb_wal_storage_size_bytes", "Size of the write log directory.");
    wbl_segment_current: IntGauge = gauge("prometheus_tsdb_out_of_order_wbl_segment_current", "Write log segment index that TSDB is currently writing to.");
    wbl_writes_failed: IntCounter = counter("prometheus_tsdb_out_of_order_wbl_writes_failed_total", "Total number of write log writes that failed.");
    wbl_truncations: IntCounter = counter("prometheus_tsdb_out_of_order_wbl_truncations_total", "Total number of write log truncations attempted.");
    wbl_truncations_failed: IntCounter = counter("prometheus_tsdb_out_of_order_wbl_truncations_failed_total", "Total number of write log truncations that failed.");
    wbl_fsync_duration: Summary = fsyncs("prometheus_tsdb_out_of_order_wbl_fsync_duration_seconds", clock);
    wbl_storage_bytes: IntGauge = gauge("prometheus_tsdb_out_of_order_wbl_storage_size_bytes", "Size of the write log directory.");
    checkpoints_created: IntCounter = counter("prometheus_tsdb_checkpoint_creations_total", "Total number of checkpoint creations attempted.");
    checkpoints_failed: IntCounter = counter("prometheus_tsdb_checkpoint_creations_failed_total", "Total number of checkpoint creations that failed.");
    wal_unknown_refs: IntCounterVec = by_type("prometheus_tsdb_wal_replay_unknown_refs_total", "Total number of unknown series references encountered during WAL replay.");
    snapshot_errors: IntCounter = counter("prometheus_tsdb_snapshot_replay_error_total", "Total number snapshot replays that failed.");
    replay_duration: Gauge = Gauge::new("prometheus_tsdb_data_replay_duration_seconds", "Time taken to replay the data on disk.");
    compactions: IntCounter = counter("prometheus_tsdb_compactions_total", "Total number of compactions that were executed for the partition.");
    compactions_failed: IntCounter = counter("prometheus_tsdb_compactions_failed_total", "Total number of compactions that failed for the partition.");
    compactions_triggered: IntCounter = counter("prometheus_tsdb_compactions_triggered_total", "Total number of triggered compactions for the partition.");
    vertical_compactions: IntCounter = counter("prometheus_tsdb_vertical_compactions_total", "Total number of compactions done on overlapping blocks.");
    populating_block: IntGauge = gauge("prometheus_tsdb_compaction_populating_block", "Set to 1 when a block is currently being written to the disk.");
    compaction_duration: Histogram = exponential("prometheus_tsdb_compaction_duration_seconds", "Duration of compaction runs", (1.0, 2.0, 14));
    chunk_size: Histogram = exponential("prometheus_tsdb_compaction_chunk_size_bytes", "Final size of chunks on their first compaction", (32.0, 1.5, 12));
    chunk_samples: Histogram = exponential("prometheus_tsdb_compaction_chunk_samples", "Final number of samples on their first compaction", (4.0, 1.5, 12));
    chunk_range: Histogram = exponential("prometheus_tsdb_compaction_chunk_range_seconds", "Final time range of chunks on their first compaction", (100.0, 4.0, 10));
    tombstone_cleanup: Histogram = exponential("prometheus_tsdb_tombstone_cleanup_seconds", "The time taken to recompact blocks to remove tombstones.", (0.005, 2.5, 11));
    reloads: IntCounter = counter("prometheus_tsdb_reloads_total", "Number of times the database reloaded block data from disk.");
    reloads_failed: IntCounter = counter("prometheus_tsdb_reloads_failures_total", "Number of times the database failed to reloadBlocks block data from disk.");
    blocks_loaded: IntGauge = gauge("prometheus_tsdb_blocks_loaded", "Number of currently loaded data blocks");
    blocks_bytes: IntGauge = gauge("prometheus_tsdb_storage_blocks_bytes", "The number of bytes that are currently used for local storage by all blocks.");
    lowest_timestamp: IntGauge = gauge("prometheus_tsdb_lowest_timestamp", "Lowest timestamp value stored in the database. The unit is decided by the library consumer.");
    lowest_timestamp_seconds: IntGauge = gauge("prometheus_tsdb_lowest_timestamp_seconds", "Lowest timestamp value stored in the database.");
    time_retentions: IntCounter = counter("prometheus_tsdb_time_retentions_total", "The number of times that blocks were deleted because the maximum time limit was exceeded.");
    size_retentions: IntCounter = counter("prometheus_tsdb_size_retentions_total", "The number of times that blocks were deleted because the maximum number of bytes was exceeded.");
    retention_bytes: IntGauge = gauge("prometheus_tsdb_retention_limit_bytes", "Max number of bytes to be retained in the tsdb blocks, configured 0 means disabled");
    retention_percentage: Gauge = Gauge::new("prometheus_tsdb_retention_limit_percentage", "Max percentage of total storage space to be retained in the tsdb blocks, configured 0 means disabled");
    retention_seconds: Gauge = Gauge::new("prometheus_tsdb_retention_limit_seconds", "How long to retain samples in storage.");
    symbols_bytes: IntGauge = gauge("prometheus_tsdb_symbol_table_size_bytes", "Size of symbol table in memory for loaded blocks");
    quarantined_blocks: IntCounter = counter("almanac_tsdb_quarantined_blocks_total", "Total number of blocks set aside because they could not be opened.");
    commits_failed: Counter = Counter::new("almanac_tsdb_commits_failed_total", "Total number of batches that could not be stored.");
}
