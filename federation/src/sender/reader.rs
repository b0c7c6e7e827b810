//! Follows the write-ahead log for one destination.
//!
//! Each step reads a bounded number of records on a blocking thread, keeps what the destination wants and makes a piece
//! of it, which goes through a channel that holds one; when that is full, the reader waits, and nothing but it does. The
//! log gives series before the samples that refer to them; when many have been remembered since the last time, the log
//! is opened anew where reading stands, so that series which the log has forgotten are forgotten here as well.
//!
//! When the log no longer has what comes next, the missing range is enqueued to the backlog, durably, before any piece
//! from behind the gap is handed on. Without a backlog the gap is only counted.

use std::sync::Arc;
use std::time::Duration;

use model::storage::{SeriesRef, WalPosition, WalRecord, WalSource, WalTail};
use model::{Exemplar, HistogramValue, Labels, Metadata, MetricType, StorageError};
use prometheus::Counter;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::metrics::{Counts, SenderMetrics, reason};
use super::series::{Lookup, SeriesCache};
use super::{Gap, Shared, hold_name};
use crate::backlog::{Backlog, NewRange, Reason, tag_names};
use crate::config::Protocol;
use crate::queue::{Acknowledged, Item, Piece, SentSeries, Times, Value};

/// Records read at a time. One is a scrape of one target, in most cases.
const RECORDS_PER_READ: usize = 64;
/// Below this number of remembered series nothing is tidied.
const MIN_SERIES_TO_TIDY: usize = if cfg!(test) { 100 } else { 100_000 };
/// Pause after the log could not be read.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// What counts as usual lateness of samples, and the most that is remembered of more.
const LATENESS_MS: (i64, i64) = (5 * 60_000, 86_400_000);

pub(crate) struct Reader {
    source: Arc<dyn WalSource>,
    shared: Arc<Shared>,
    backlog: Option<Arc<Backlog>>,
    cache: SeriesCache,
    filter: Filter,
    tail: Option<Box<dyn WalTail>>,
    /// Where to open the log; `None`: at the begin of the log as it is.
    next: Option<WalPosition>,
    /// While the log names what lies before the place it was opened at, nothing is tidied, and nothing counts as new.
    naming_at: Option<WalPosition>,
    tidy_at: usize,
    /// The gap that the open log had from the start.
    known_gap: Option<WalPosition>,
    missing: Option<Missing>,
    times: Option<Times>,
    late_ms: i64,
    records: Vec<WalRecord>,
    /// A piece that waits until the gap before it is enqueued.
    held: Option<Piece>,
    metadata_sent_at: Duration,
    /// Whether metadata has gone out anew since the destination turned out to want version 1.0.
    fell_back: bool,
    /// Whether the log was opened before.
    opened: bool,
}

/// A gap that is not enqueued yet.
#[derive(Debug)]
struct Missing {
    mint: i64,
    /// Series named since, which may have got their tag within the gap.
    series: Vec<Labels>,
}

/// What a step found.
enum Step {
    Piece(Piece),
    /// Nothing to hand on, and more to read.
    More,
    /// Nothing new.
    Idle,
    Failed,
}

impl Reader {
    pub(crate) fn new(
        source: Arc<dyn WalSource>,
        shared: Arc<Shared>,
        backlog: Option<Arc<Backlog>>,
        cache: SeriesCache,
        start: Option<Acknowledged>,
    ) -> Self {
        Self {
            filter: Filter::new(&shared),
            metadata_sent_at: shared.clock.monotonic(),
            source,
            shared,
            backlog,
            cache,
            tail: None,
            next: start.map(|a| a.position),
            naming_at: None,
            tidy_at: usize::MAX,
            known_gap: None,
            missing: None,
            times: start.and_then(|a| a.times),
            late_ms: start.and_then(|a| a.times).map_or(0, |t| t.newest_ms.saturating_sub(t.low_ms)),
            records: Vec::new(),
            held: None,
            fell_back: false,
            opened: false,
        }
    }

    /// Reads until nobody takes pieces any more.
    pub(crate) async fn run(mut self, pieces: Sender<Piece>) {
        loop {
            let stepped = tokio::task::spawn_blocking(move || {
                let step = self.step();
                (self, step)
            });
            let step = match stepped.await {
                Ok((reader, step)) => {
                    self = reader;
                    step
                }
                Err(e) => {
                    // Only at the end of the runtime, or by a defect; what is acknowledged stays right.
                    if e.is_panic() {
                        tracing::error!(error = %e, "the reader of the write-ahead log failed");
                    }
                    return;
                }
            };
            let pause = match step {
                Step::Piece(piece) => {
                    if !self.hand_on(piece, &pieces).await {
                        return;
                    }
                    continue;
                }
                Step::More => continue,
                Step::Idle => self.shared.config.queue.poll_interval,
                Step::Failed => ERROR_PAUSE,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = pieces.closed() => return,
            }
        }
    }

    async fn hand_on(&mut self, piece: Piece, pieces: &Sender<Piece>) -> bool {
        let counts = Counts::of(&piece.items);
        self.shared.metrics.add_pending(counts, 1);
        let taken = match pieces.try_send(piece) {
            Ok(()) => true,
            Err(TrySendError::Full(piece)) => {
                self.shared.metrics.enqueue_retries.inc();
                pieces.send(piece).await.is_ok()
            }
            Err(TrySendError::Closed(_)) => false,
        };
        if !taken {
            self.shared.metrics.add_pending(counts, -1);
        }
        taken
    }

    /// One blocking step.
    fn step(&mut self) -> Step {
        if let Some(piece) = self.held.take() {
            return self.after_gap(piece);
        }
        self.leave_behind();
        let Some(mut tail) = self.tail.take().or_else(|| self.open()) else { return Step::Failed };
        self.records.clear();
        let end = match tail.read(RECORDS_PER_READ, &mut self.records) {
            Ok(end) => end,
            Err(e) => {
                self.read_failed("read", &e);
                self.tail = Some(tail);
                return Step::Failed;
            }
        };
        if tail.gap() != self.known_gap {
            // Segments went away under the reader; the log begins anew behind the gap.
            self.known_gap = tail.gap();
            if let Some(from) = tail.gap() {
                self.note_gap(Gap { from, to: tail.position() });
                self.naming_at = Some(tail.position());
            }
        }
        self.tail = Some(tail);
        if self.records.len() < RECORDS_PER_READ {
            self.shared.note_caught_up();
        }
        let records = std::mem::take(&mut self.records);
        let empty = records.is_empty();
        // Records of both kinds may come at once; then some that are only named count as new, which costs a look.
        let named = self.naming_at.is_some_and(|at| empty || end > at);
        if named {
            self.naming_at = None;
        }
        let look = self.backlog.is_some() && (self.naming_at.is_none() || self.missing.is_some());
        let found = self.filter.apply(&records, &mut self.cache, look);
        self.records = records;
        if named {
            self.tidy_at = MIN_SERIES_TO_TIDY.max(self.cache.len() * 2);
        }
        let has_samples = found.range.is_some();
        self.note_times(found.range);
        let mut piece = Piece {
            items: found.items,
            end: Acknowledged { position: end, times: self.times },
            newly_tagged: found.newly_tagged,
            read_at: self.shared.clock.monotonic(),
        };
        if let Some(missing) = &mut self.missing {
            if !has_samples && !empty {
                // Nothing is handed on before it is known up to where the gap reaches.
                missing.series.append(&mut piece.newly_tagged);
                return Step::More;
            }
            return self.after_gap(piece);
        }
        self.add_metadata(&mut piece);
        if empty && piece.items.is_empty() {
            return Step::Idle;
        }
        if self.cache.len() > self.tidy_at {
            self.cache.clear();
            self.next = self.tail.take().map(|t| t.position());
            self.tidy_at = usize::MAX;
        }
        Step::Piece(piece)
    }

    /// New samples go first: when the end of the log has been out of reach for long, what lies between is left to the
    /// backlog lane, and reading goes on at the end.
    fn leave_behind(&mut self) {
        let limit = self.shared.config.backlog.leave_behind_after;
        if self.backlog.is_none() || self.tail.is_none() || self.shared.reading_lag() <= limit {
            return;
        }
        let end = self.source.end();
        tracing::warn!(
            destination = self.shared.config.name,
            from = %self.tail.as_ref().map(|t| t.position()).unwrap_or_default(),
            to = %end,
            "sending is far behind: going on with new samples, history follows from blocks and head"
        );
        self.tail = None;
        self.next = Some(end);
        self.cache.clear();
        self.tidy_at = usize::MAX;
        self.miss();
        self.shared.note_caught_up();
    }

    /// Enqueues the gap, then hands on what comes behind it.
    fn after_gap(&mut self, mut piece: Piece) -> Step {
        let (Some(missing), Some(backlog)) = (&self.missing, &self.backlog) else {
            return Step::Piece(piece);
        };
        let config = &self.shared.config;
        let slack_ms = config.backlog.late_window.as_millis() as i64 + self.late_ms.max(LATENESS_MS.0);
        let now_ms = self.shared.clock.now_ms();
        let maxt = self.times.filter(|_| !piece.items.is_empty()).map_or(now_ms, |t| t.newest_ms);
        let range = NewRange {
            reason: Reason::Gap,
            selectors: config.matchers.clone(),
            strip: Vec::new(),
            mint: missing.mint,
            maxt: maxt.max(missing.mint).saturating_add(slack_ms),
        };
        match backlog.enqueue(range) {
            Ok(_) => {
                let missing = self.missing.take().expect("looked at above");
                piece.newly_tagged.extend(missing.series);
                Step::Piece(piece)
            }
            Err(e) => {
                self.shared.metrics.position_errors.inc();
                tracing::error!(
                    destination = config.name,
                    error = %e,
                    "a gap of the write-ahead log cannot be noted durably; reading pauses until it can"
                );
                self.held = Some(piece);
                Step::Failed
            }
        }
    }

    /// Follows the times of the samples.
    fn note_times(&mut self, range: Option<(i64, i64)>) {
        let Some((oldest_ms, newest_ms)) = range else { return };
        // A sample from the future must not make a gap look as if it began there.
        let newest_ms = newest_ms.min(self.shared.clock.now_ms());
        let before = self.times.map_or(newest_ms, |t| t.newest_ms);
        self.late_ms = self.late_ms.max(before.saturating_sub(oldest_ms)).clamp(LATENESS_MS.0, LATENESS_MS.1);
        let newest_ms = newest_ms.max(before);
        self.times = Some(Times { newest_ms, low_ms: newest_ms.saturating_sub(self.late_ms) });
    }

    /// Adds what is known of metric families when version 1.0 is to send it again.
    fn add_metadata(&mut self, piece: &mut Piece) {
        let config = &self.shared.config;
        if !config.send_metadata || self.shared.protocol() != Protocol::V1 {
            return;
        }
        let now = self.shared.clock.monotonic();
        // Version 2.0 had it with the series.
        let fell_back = config.protocol == Protocol::V2 && !std::mem::replace(&mut self.fell_back, true);
        if !fell_back && now.saturating_sub(self.metadata_sent_at) < config.metadata_interval {
            return;
        }
        self.metadata_sent_at = now;
        piece.items.extend(self.shared.families().into_iter().map(|(family, m)| metadata_item(family, &m)));
    }

    /// Opens the log, and notes what it no longer holds.
    fn open(&mut self) -> Option<Box<dyn WalTail>> {
        let opened = self.source.tail(Some(self.next.unwrap_or_default())).and_then(|tail| {
            // Only a log that can be opened says where it ends. A position beyond it belongs to a log that was deleted:
            // all of the new one is news.
            let end = self.source.end();
            let lost = self.next.filter(|p| *p > end);
            let tail = if lost.is_some() { self.source.tail(Some(WalPosition::default()))? } else { tail };
            Ok((tail, lost, end))
        });
        let (tail, lost, end) = match opened {
            Ok(opened) => opened,
            Err(e) => {
                self.read_failed("open", &e);
                return None;
            }
        };
        // A log that was still being replayed has not taken note of it before.
        if !std::mem::replace(&mut self.opened, true) {
            self.source.hold(&hold_name(&self.shared.config.name), Some(tail.position()));
            // Waiting for a log that is being replayed is not being behind.
            self.shared.note_caught_up();
        }
        self.known_gap = tail.gap();
        self.naming_at = Some(tail.position());
        if let Some(position) = lost {
            tracing::warn!(
                destination = self.shared.config.name,
                %position, %end,
                "the stored position lies beyond the write-ahead log, which must have been replaced: sending all of it"
            );
            self.miss();
        } else if self.next.is_some()
            && let Some(from) = tail.gap()
        {
            self.note_gap(Gap { from, to: tail.position() });
        }
        Some(tail)
    }

    fn note_gap(&mut self, gap: Gap) {
        self.shared.note_gap(gap, self.backlog.is_some());
        self.miss();
    }

    /// What follows the acknowledged times is to be sent from the local store.
    fn miss(&mut self) {
        if self.backlog.is_none() {
            return;
        }
        let late_ms = self.shared.config.backlog.late_window.as_millis() as i64;
        let mint = self.times.map_or(i64::MIN, |t| t.low_ms.saturating_sub(late_ms));
        let mint = self.missing.as_ref().map_or(mint, |m| m.mint.min(mint));
        let series = self.missing.take().map(|m| m.series).unwrap_or_default();
        self.missing = Some(Missing { mint, series });
    }

    fn read_failed(&self, op: &str, e: &StorageError) {
        self.shared.metrics.read_errors.inc();
        tracing::error!(
            destination = self.shared.config.name,
            error = %e,
            "cannot {op} the write-ahead log; trying again, nothing is lost while the log keeps its segments"
        );
    }
}

/// Turns records into items.
struct Filter {
    shared: Arc<Shared>,
    not_selected: [Counter; 3],
    unknown: [Counter; 3],
    too_old: [Counter; 3],
    highest_ms: i64,
}

/// What some records hold.
#[derive(Default)]
struct Found {
    items: Vec<Item>,
    newly_tagged: Vec<Labels>,
    /// Lowest and highest timestamp of all samples, of those too that are not sent.
    range: Option<(i64, i64)>,
}

impl Found {
    fn see(&mut self, t: i64) {
        let (low, high) = self.range.unwrap_or((t, t));
        self.range = Some((low.min(t), high.max(t)));
    }
}

/// Index into the counters by kind.
const SAMPLES: usize = 0;
const HISTOGRAMS: usize = 1;
const EXEMPLARS: usize = 2;

impl Filter {
    fn new(shared: &Arc<Shared>) -> Self {
        let SenderMetrics { samples, histograms, exemplars, .. } = &*shared.metrics;
        let each = |why: &str| [samples, histograms, exemplars].map(|kind| reason(kind, why));
        Self {
            not_selected: each("dropped_series"),
            unknown: each("unintentionally_dropped_series"),
            too_old: each("too_old"),
            highest_ms: i64::MIN,
            shared: shared.clone(),
        }
    }

    /// With `look`, series that are new and tagged are given too.
    fn apply(&mut self, records: &[WalRecord], cache: &mut SeriesCache, look: bool) -> Found {
        let mut found = Found::default();
        let config = &self.shared.config;
        let (send_histograms, send_exemplars) = (config.send_native_histograms, config.send_exemplars);
        let limit_ms = config.sample_age_limit.map(|l| l.as_millis() as u64);
        let oldest_ms = limit_ms.map_or(i64::MIN, |l| self.shared.clock.now_ms().saturating_sub_unsigned(l));
        for record in records {
            match record {
                WalRecord::Series(list) => {
                    for (r, labels) in list {
                        let sent = cache.add(*r, labels);
                        if let (true, Lookup::Sent(series)) = (sent, cache.get(*r)) {
                            series.set_metadata(self.shared.metadata_of(series.labels.metric_name()));
                        }
                        if look && sent && !tag_names(&self.shared.config.matchers, labels).is_empty() {
                            found.newly_tagged.push(labels.clone());
                        }
                    }
                }
                WalRecord::Samples(list) => {
                    let list = list.iter().map(|(r, t, v)| (*r, *t, 0, *v));
                    self.samples(list, oldest_ms, cache, &mut found);
                }
                WalRecord::StartedSamples(list) => {
                    self.samples(list.iter().copied(), oldest_ms, cache, &mut found);
                }
                WalRecord::Histograms(list) => {
                    let list = list.iter().map(|(r, t, h)| (*r, *t, 0, h));
                    self.histograms(list, send_histograms, oldest_ms, cache, &mut found);
                }
                WalRecord::StartedHistograms(list) => {
                    let list = list.iter().map(|(r, t, st, h)| (*r, *t, *st, h));
                    self.histograms(list, send_histograms, oldest_ms, cache, &mut found);
                }
                WalRecord::Exemplars(list) if send_exemplars => {
                    self.exemplars(list, oldest_ms, cache, &mut found.items);
                }
                WalRecord::Exemplars(_) => {}
                WalRecord::Metadata(list) => self.metadata(list, cache, &mut found.items),
            }
        }
        if self.highest_ms > i64::MIN {
            self.shared.metrics.highest.set(self.highest_ms as f64 / 1000.0);
        }
        found
    }

    fn samples(
        &mut self,
        list: impl Iterator<Item = (SeriesRef, i64, i64, f64)>,
        oldest_ms: i64,
        cache: &SeriesCache,
        found: &mut Found,
    ) {
        let (mut not_selected, mut unknown, mut too_old) = (0_u64, 0_u64, 0_u64);
        for (r, timestamp_ms, start_timestamp_ms, value) in list {
            found.see(timestamp_ms);
            match cache.get(r) {
                _ if timestamp_ms < oldest_ms => too_old += 1,
                Lookup::Sent(series) => {
                    self.highest_ms = self.highest_ms.max(timestamp_ms);
                    let value = Value::Float(value);
                    found.items.push(Item {
                        series: series.clone(),
                        timestamp_ms,
                        start_timestamp_ms,
                        value,
                    });
                }
                Lookup::NotSelected => not_selected += 1,
                Lookup::Unknown => unknown += 1,
            }
        }
        self.not_selected[SAMPLES].inc_by(not_selected as f64);
        self.unknown[SAMPLES].inc_by(unknown as f64);
        self.too_old[SAMPLES].inc_by(too_old as f64);
    }

    fn histograms<'a>(
        &mut self,
        list: impl Iterator<Item = (SeriesRef, i64, i64, &'a HistogramValue)>,
        send: bool,
        oldest_ms: i64,
        cache: &SeriesCache,
        found: &mut Found,
    ) {
        for (r, timestamp_ms, start_timestamp_ms, value) in list {
            found.see(timestamp_ms);
            if !send {
                continue;
            }
            match cache.get(r) {
                _ if timestamp_ms < oldest_ms => self.too_old[HISTOGRAMS].inc(),
                Lookup::Sent(series) => {
                    self.highest_ms = self.highest_ms.max(timestamp_ms);
                    let value = Value::Histogram(value.clone());
                    found.items.push(Item {
                        series: series.clone(),
                        timestamp_ms,
                        start_timestamp_ms,
                        value,
                    });
                }
                Lookup::NotSelected => self.not_selected[HISTOGRAMS].inc(),
                Lookup::Unknown => self.unknown[HISTOGRAMS].inc(),
            }
        }
    }

    fn exemplars(
        &self,
        list: &[(SeriesRef, Exemplar)],
        oldest_ms: i64,
        cache: &SeriesCache,
        items: &mut Vec<Item>,
    ) {
        for (r, exemplar) in list {
            let timestamp_ms = exemplar.timestamp_ms.unwrap_or(0);
            match cache.get(*r) {
                _ if timestamp_ms < oldest_ms => self.too_old[EXEMPLARS].inc(),
                Lookup::Sent(series) => items.push(Item {
                    series: series.clone(),
                    timestamp_ms,
                    start_timestamp_ms: 0,
                    value: Value::Exemplar(Box::new(exemplar.clone())),
                }),
                Lookup::NotSelected => self.not_selected[EXEMPLARS].inc(),
                Lookup::Unknown => self.unknown[EXEMPLARS].inc(),
            }
        }
    }

    /// Notes metadata with its series and by family; what is new goes out apart only in version 1.0.
    fn metadata(&mut self, list: &[(SeriesRef, Metadata)], cache: &SeriesCache, items: &mut Vec<Item>) {
        let apart = self.shared.config.send_metadata && self.shared.protocol() == Protocol::V1;
        for (r, metadata) in list {
            let Lookup::Sent(series) = cache.get(*r) else { continue };
            let family = family_name(series.labels.metric_name(), metadata.metric_type);
            if family.is_empty() {
                continue;
            }
            let (known, is_new) = self.shared.note_family(family, metadata);
            if is_new && apart {
                items.push(metadata_item(family.to_owned(), &known));
            }
            series.set_metadata(Some(known));
        }
    }
}

fn metadata_item(family: String, metadata: &Metadata) -> Item {
    let series =
        Arc::new(SentSeries::new(Labels::from_pairs([(model::labels::METRIC_NAME, family.as_str())])));
    let value = Value::Metadata(Box::new((family, metadata.clone())));
    Item { series, timestamp_ms: 0, start_timestamp_ms: 0, value }
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
