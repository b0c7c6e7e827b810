//! The thread that follows the write-ahead log for one destination.
//!
//! It reads a bounded number of records, keeps what the destination wants and hands pieces on through a channel that
//! holds one; when that is full, the thread waits, and nothing but this thread does. The log gives series before the
//! samples that refer to them; when many have been remembered since the last time, the log is opened anew where
//! reading stands, so that series which the log has forgotten are forgotten here as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use model::storage::{SeriesRef, WalPosition, WalRecord, WalSource, WalTail};
use model::{Exemplar, HistogramValue, Metadata, MetricType, StorageError};
use prometheus::Counter;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::metrics::{Counts, SenderMetrics, reason};
use super::series::{Lookup, SeriesCache};
use super::{Gap, Shared};
use crate::queue::{Item, Piece, Value};

/// Records read at a time. One is a scrape of one target, in most cases.
const RECORDS_PER_READ: usize = 64;
/// Below this number of remembered series nothing is tidied.
const MIN_SERIES_TO_TIDY: usize = if cfg!(test) { 100 } else { 100_000 };
/// Pause after the log could not be read.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Reader {
    pub(crate) source: Arc<dyn WalSource>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) cache: SeriesCache,
    /// Where to begin; `None`: at the begin of the log as it is.
    pub(crate) start: Option<WalPosition>,
    pub(crate) pieces: Sender<Piece>,
    /// Disconnects when the sender stops.
    pub(crate) stop: Receiver<()>,
}

/// Why the loop ended.
struct Stopped;

impl Reader {
    /// Reads until told to stop.
    pub(crate) fn run(mut self) {
        let mut filter = Filter::new(&self.shared);
        // Ends with `Stopped`, the only way out.
        let _stopped = self.follow(&mut filter);
    }

    fn follow(&mut self, filter: &mut Filter) -> Result<(), Stopped> {
        let mut tail = self.open(self.start)?;
        // While the log names what lies before the place it was opened at, nothing is tidied; what it named is alive,
        // and twice as much is the size to tidy at.
        let mut naming_at = Some(tail.position());
        let mut tidy_at = usize::MAX;
        let mut records = Vec::new();
        loop {
            records.clear();
            let end = match tail.read(RECORDS_PER_READ, &mut records) {
                Ok(end) => end,
                Err(e) => {
                    self.read_failed("read", &e);
                    self.pause(ERROR_PAUSE)?;
                    continue;
                }
            };
            let items = filter.apply(&records, &mut self.cache);
            if naming_at.is_some_and(|at| records.is_empty() || end > at) {
                naming_at = None;
                tidy_at = MIN_SERIES_TO_TIDY.max(self.cache.len() * 2);
            }
            if records.is_empty() {
                self.pause(self.shared.config.queue.poll_interval)?;
                continue;
            }
            self.hand_on(Piece { items, end })?;
            if self.cache.len() > tidy_at {
                self.cache.clear();
                tail = self.open(Some(tail.position()))?;
                naming_at = Some(tail.position());
                tidy_at = usize::MAX;
            }
        }
    }

    fn hand_on(&self, piece: Piece) -> Result<(), Stopped> {
        self.shared.metrics.add_pending(Counts::of(&piece.items), 1);
        match self.pieces.try_send(piece) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(piece)) => {
                self.shared.metrics.enqueue_retries.inc();
                self.pieces.blocking_send(piece).map_err(|_| Stopped)
            }
            Err(TrySendError::Closed(_)) => Err(Stopped),
        }
    }

    /// Opens the log, again and again until it works. Notes what it no longer holds.
    fn open(&mut self, from: Option<WalPosition>) -> Result<Box<dyn WalTail>, Stopped> {
        loop {
            let end = self.source.end();
            // A position beyond the end belongs to a log that was deleted: all of the new one is news.
            let lost = from.filter(|p| *p > end);
            if let Some(position) = lost {
                tracing::warn!(
                    destination = self.shared.config.name,
                    %position, %end,
                    "the stored position lies beyond the write-ahead log, which must have been replaced: sending all of it"
                );
            }
            let wanted = from.filter(|_| lost.is_none());
            match self.source.tail(Some(wanted.unwrap_or_default())) {
                Ok(tail) => {
                    if wanted.is_some()
                        && let Some(asked) = tail.gap()
                    {
                        self.shared.note_gap(Gap { from: asked, to: tail.position() });
                    }
                    return Ok(tail);
                }
                Err(e) => {
                    self.read_failed("open", &e);
                    self.pause(ERROR_PAUSE)?;
                }
            }
        }
    }

    fn read_failed(&self, op: &str, e: &StorageError) {
        self.shared.metrics.read_errors.inc();
        tracing::error!(
            destination = self.shared.config.name,
            error = %e,
            "cannot {op} the write-ahead log; trying again, nothing is lost while the log keeps its segments"
        );
    }

    /// Waits, unless the sender stops.
    fn pause(&self, time: Duration) -> Result<(), Stopped> {
        match self.stop.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }
}

/// Turns records into items.
struct Filter {
    shared: Arc<Shared>,
    /// Metadata as last sent, by family.
    metadata: HashMap<String, Metadata>,
    not_selected: [Counter; 3],
    unknown: [Counter; 3],
    custom_buckets: Counter,
    highest_ms: i64,
}

/// Index into the counters by kind.
const SAMPLES: usize = 0;
const HISTOGRAMS: usize = 1;
const EXEMPLARS: usize = 2;
/// Families whose metadata is remembered; beyond it all are forgotten and sent again when met.
const MAX_FAMILIES: usize = 100_000;

impl Filter {
    fn new(shared: &Arc<Shared>) -> Self {
        let SenderMetrics { samples, histograms, exemplars, .. } = &*shared.metrics;
        let each = |why: &str| [samples, histograms, exemplars].map(|kind| reason(kind, why));
        Self {
            metadata: HashMap::new(),
            not_selected: each("dropped_series"),
            unknown: each("unintentionally_dropped_series"),
            custom_buckets: reason(histograms, "nhcb_in_rw1_not_supported"),
            highest_ms: i64::MIN,
            shared: shared.clone(),
        }
    }

    fn apply(&mut self, records: &[WalRecord], cache: &mut SeriesCache) -> Vec<Item> {
        let mut items = Vec::new();
        let config = &self.shared.config;
        let (send_histograms, send_exemplars, send_metadata) =
            (config.send_native_histograms, config.send_exemplars, config.send_metadata);
        for record in records {
            match record {
                WalRecord::Series(list) => list.iter().for_each(|(r, labels)| cache.add(*r, labels)),
                WalRecord::Samples(list) => self.samples(list, cache, &mut items),
                WalRecord::Histograms(list) if send_histograms => self.histograms(list, cache, &mut items),
                WalRecord::Exemplars(list) if send_exemplars => self.exemplars(list, cache, &mut items),
                WalRecord::Metadata(list) if send_metadata => self.metadata(list, cache, &mut items),
                // Remote write 1.0 has no start timestamps.
                WalRecord::StartedSamples(list) => {
                    let list: Vec<_> = list.iter().map(|(r, t, _, v)| (*r, *t, *v)).collect();
                    self.samples(&list, cache, &mut items);
                }
                WalRecord::StartedHistograms(list) if send_histograms => {
                    let list: Vec<_> = list.iter().map(|(r, t, _, h)| (*r, *t, h.clone())).collect();
                    self.histograms(&list, cache, &mut items);
                }
                WalRecord::Histograms(_)
                | WalRecord::StartedHistograms(_)
                | WalRecord::Exemplars(_)
                | WalRecord::Metadata(_) => {}
            }
        }
        if self.highest_ms > i64::MIN {
            self.shared.metrics.highest.set(self.highest_ms as f64 / 1000.0);
        }
        items
    }

    fn samples(&mut self, list: &[(SeriesRef, i64, f64)], cache: &SeriesCache, items: &mut Vec<Item>) {
        let (mut not_selected, mut unknown) = (0_u64, 0_u64);
        for (r, timestamp_ms, value) in list {
            match cache.get(*r) {
                Lookup::Sent(series) => {
                    self.highest_ms = self.highest_ms.max(*timestamp_ms);
                    items.push(Item {
                        series: series.clone(),
                        timestamp_ms: *timestamp_ms,
                        value: Value::Float(*value),
                    });
                }
                Lookup::NotSelected => not_selected += 1,
                Lookup::Unknown => unknown += 1,
            }
        }
        self.not_selected[SAMPLES].inc_by(not_selected as f64);
        self.unknown[SAMPLES].inc_by(unknown as f64);
    }

    fn histograms(
        &mut self,
        list: &[(SeriesRef, i64, HistogramValue)],
        cache: &SeriesCache,
        items: &mut Vec<Item>,
    ) {
        for (r, timestamp_ms, value) in list {
            match cache.get(*r) {
                Lookup::Sent(_) if has_custom_buckets(value) && !self.shared.config.send_custom_buckets => {
                    self.custom_buckets.inc();
                }
                Lookup::Sent(series) => {
                    self.highest_ms = self.highest_ms.max(*timestamp_ms);
                    items.push(Item {
                        series: series.clone(),
                        timestamp_ms: *timestamp_ms,
                        value: Value::Histogram(value.clone()),
                    });
                }
                Lookup::NotSelected => self.not_selected[HISTOGRAMS].inc(),
                Lookup::Unknown => self.unknown[HISTOGRAMS].inc(),
            }
        }
    }

    fn exemplars(&self, list: &[(SeriesRef, Exemplar)], cache: &SeriesCache, items: &mut Vec<Item>) {
        for (r, exemplar) in list {
            match cache.get(*r) {
                Lookup::Sent(series) => items.push(Item {
                    series: series.clone(),
                    timestamp_ms: exemplar.timestamp_ms.unwrap_or(0),
                    value: Value::Exemplar(Box::new(exemplar.clone())),
                }),
                Lookup::NotSelected => self.not_selected[EXEMPLARS].inc(),
                Lookup::Unknown => self.unknown[EXEMPLARS].inc(),
            }
        }
    }

    fn metadata(&mut self, list: &[(SeriesRef, Metadata)], cache: &SeriesCache, items: &mut Vec<Item>) {
        for (r, metadata) in list {
            let Lookup::Sent(series) = cache.get(*r) else { continue };
            let family = family_name(&series.metric_name, metadata.metric_type);
            if family.is_empty() || self.metadata.get(family) == Some(metadata) {
                continue;
            }
            if self.metadata.len() >= MAX_FAMILIES {
                self.metadata.clear();
            }
            self.metadata.insert(family.to_owned(), metadata.clone());
            items.push(Item {
                series: series.clone(),
                timestamp_ms: 0,
                value: Value::Metadata(Box::new((family.to_owned(), metadata.clone()))),
            });
        }
    }
}

fn has_custom_buckets(value: &HistogramValue) -> bool {
    let schema = match value {
        HistogramValue::Int(h) => h.schema,
        HistogramValue::Float(h) => h.schema,
    };
    schema == model::histogram::CUSTOM_BUCKETS_SCHEMA
}

/// The name of a series' metric family: parts of histograms and summaries lose their suffix.
fn family_name(metric_name: &str, metric_type: MetricType) -> &str {
    let suffixes: &[&str] = match metric_type {
        MetricType::Histogram | MetricType::GaugeHistogram => &["_bucket", "_count", "_sum"],
        MetricType::Summary => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|s| metric_name.strip_suffix(s)).unwrap_or(metric_name)
}
