//! The hot path of scraping: *same body, new numbers*.
//!
//! A target writes the same lines in the same order every time; only the values change. [`ScrapeCache`] remembers, per
//! sample of the last scrape, the bytes from the end of the sample before up to the value (comments included) by length and
//! hash, and the reference of the stored series. While the body agrees, a sample costs one hash, one float and one
//! [`Appender::append_float`]: no lexing, no lookup, no allocation. Where it disagrees, one sample is parsed and
//! looked up by its bytes (`cache/entries.rs`), or seen for the first time and given labels (`sample_labels.rs`), and
//! prediction goes on behind the place where that sample stood before. Bench: `benches/scrape_parse.rs`.
//!
//! The text itself would be most of what a target costs in memory. Hashes have a seed of their own per target, which a target
//! cannot learn: that another text of the same length is taken for the one before has a chance of 1 in 2^64 per line that
//! changes, that two series of a target are taken for one a chance of 1 in 2^96 per pair (docs/decisions/0007-head-memory.md).
//!
//! Reading order: this file (the cache and a walk over a body), `prediction` (the body agrees), `first_sight` (it does
//! not), `completion` (stale markers, what the next scrape compares with, bounds of memory), `entries` and `metadata`
//! (tables).
//!
//! The cache also knows what must become stale: series that counted at the last completed scrape and did not now. After
//! a failed scrape that is all of them.
//!
//! Invariants: a line's entry is live; each live entry has been seen by the last completed scrape or by a failed one since.

mod completion;
mod entries;
mod first_sight;
pub(crate) mod metadata;
mod prediction;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use model::labels::LabelsWriter;
use model::{AppendError, Appender, MetricType, Sample, SeriesRef, stale_nan};

use crate::error::ScrapeFailure;
use crate::exposition::{Format, Pair, Parser};
use crate::sample_labels::SampleRules;
use entries::Entries;
use metadata::FamilyId;

pub use metadata::MetadataStore;

/// Samples further ahead of the clock are refused.
pub(crate) const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;
/// Room for metric families that a first scrape makes at most in advance: bodies may have few of them.
const FAMILIES_EXPECTED_MAX: usize = 512;
/// Lengths of texts are 32 bits wide.
const BODY_LEN_BYTES_MAX: usize = 512 << 20;

/// One sample of the last completed scrape.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// From the end of the sample before to the value. Its length is 0 when an equal text does not surely mean the same
    /// series.
    text_hash: u64,
    text_len: u32,
    /// The series; `NONE` when its first sample was refused.
    entry: u32,
    /// Families whose metadata the text holds: range of `family_lists`.
    families_start: u32,
    families_len: u16,
    /// Its sample counted for staleness; on the first line of a series only.
    tracked: bool,
    /// Type that the last `TYPE` line in the text names.
    sets_type: Option<MetricType>,
}

/// There are as many lines as series.
const _: () = assert!(size_of::<Line>() == 24);

/// What a scrape brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeCounts {
    /// Samples in the body.
    pub scraped: usize,
    /// Samples left after metric relabeling.
    pub post_relabel: usize,
    /// Series not seen at the scrape before.
    pub series_added: usize,
    /// Samples refused as out of order or too old.
    pub out_of_order: usize,
    /// Samples refused because the timestamp is taken.
    pub duplicates: usize,
    /// Samples refused as out of bounds.
    pub out_of_bounds: usize,
    /// Exemplars refused.
    pub exemplars_refused: usize,
    /// Samples whose series has no seat.
    pub refused: usize,
}

/// The memory of one target between scrapes.
pub struct ScrapeCache {
    /// Number of the scrape under way or of the last one. Never 0.
    scrape: u32,
    lines: Vec<Line>,
    /// Hash and length of what follows the last sample.
    tail: (u64, usize),
    tail_families: (u32, u16),
    family_lists: Vec<FamilyId>,
    entries: Entries,
    /// Every line is tracked.
    all_tracked: bool,
    successful_len: usize,
    forced_flushes: u64,
    metadata: Arc<MetadataStore>,
}

impl Default for ScrapeCache {
    fn default() -> Self {
        Self {
            scrape: 0,
            lines: Vec::new(),
            tail: (0, 0),
            tail_families: (0, 0),
            family_lists: Vec::new(),
            entries: Entries::new(),
            all_tracked: true,
            successful_len: 0,
            forced_flushes: 0,
            metadata: Arc::default(),
        }
    }
}

/// One walk over a body.
struct Run<'a> {
    body: &'a [u8],
    format: Format,
    rules: &'a SampleRules,
    app: &'a mut dyn Appender,
    timestamp_ms: i64,
    /// Later samples are out of bounds.
    latest_ms: i64,
    counts: ScrapeCounts,
    /// Samples that `sample_limit` still allows.
    samples_left: usize,
    over_limit: bool,
    /// Samples that count for staleness.
    tracked: usize,
    /// Where the body goes on.
    at: usize,
    /// The next line to compare with.
    line: usize,
    /// Type in force.
    metric_type: MetricType,
    /// Type that the chunk being parsed names.
    chunk_type: Option<MetricType>,
    /// Family of the last metadata line, and whether that line brought news.
    family: Option<FamilyId>,
    family_is_news: bool,
    /// Lines of this scrape, once it differs from the last one.
    fresh: Option<Vec<Line>>,
    parser: Parser<'a>,
    pairs: Vec<Pair<'a>>,
    writer: LabelsWriter,
    metadata: &'a MetadataStore,
}

impl ScrapeCache {
    /// Metadata of the target, shared.
    #[must_use]
    pub fn metadata(&self) -> Arc<MetadataStore> {
        self.metadata.clone()
    }

    /// How often entries of failed scrapes had to be dropped.
    #[must_use]
    pub fn forced_flushes(&self) -> u64 {
        self.forced_flushes
    }

    /// Walks `body` and appends its samples, and stale markers for what is gone, to `app`. The counts hold also when
    /// the scrape failed; the caller then rolls `app` back and calls [`ScrapeCache::append_stale`] with a new one.
    /// An empty body has no samples and no format.
    pub fn append(
        &mut self,
        body: &[u8],
        format: Format,
        timestamp_ms: i64,
        rules: &SampleRules,
        app: &mut dyn Appender,
    ) -> (ScrapeCounts, Result<(), ScrapeFailure>) {
        if body.is_empty() {
            return (ScrapeCounts::default(), self.append_stale(timestamp_ms, app));
        }
        if body.len() > BODY_LEN_BYTES_MAX {
            return (ScrapeCounts::default(), Err(ScrapeFailure::BodySizeLimit));
        }
        self.begin();
        let metadata = self.metadata();
        let mut run = Run {
            body,
            format,
            rules,
            app,
            timestamp_ms,
            latest_ms: timestamp_ms.saturating_add(MAX_AHEAD_MS),
            counts: ScrapeCounts::default(),
            samples_left: if rules.sample_limit == 0 { usize::MAX } else { rules.sample_limit },
            over_limit: false,
            tracked: 0,
            at: 0,
            line: 0,
            metric_type: MetricType::Unknown,
            chunk_type: None,
            family: None,
            family_is_news: false,
            fresh: None,
            parser: Parser::new(format, body),
            pairs: Vec::new(),
            writer: LabelsWriter::new(),
            metadata: &metadata,
        };
        if self.lines.is_empty() {
            self.reserve(body.len());
        }
        let result = self.walk(&mut run).and_then(|()| {
            if run.over_limit {
                return Err(ScrapeFailure::SampleLimit);
            }
            self.complete(&mut run)
        });
        if result.is_err() {
            self.limit_leftovers();
        }
        (run.counts, result)
    }

    /// Appends a stale marker for every series that counts, as when the target is gone.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub fn append_stale(&mut self, timestamp_ms: i64, app: &mut dyn Appender) -> Result<(), ScrapeFailure> {
        self.begin();
        for line in &mut self.lines {
            if line.tracked {
                line.tracked = false;
                append_marker(&self.entries, line.entry, timestamp_ms, app)?;
            }
        }
        self.all_tracked = false;
        self.limit_leftovers();
        Ok(())
    }

    /// Series that count after the last scrape.
    pub(crate) fn tracked_refs(&self) -> HashSet<SeriesRef> {
        self.lines.iter().filter(|l| l.tracked).map(|l| self.entries.get(l.entry).series).collect()
    }

    /// Appends stale markers for the series that count, but for those of `except`.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append_stale_except(
        &mut self,
        timestamp_ms: i64,
        except: &HashSet<SeriesRef>,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        for line in self.lines.iter_mut().filter(|l| l.tracked) {
            line.tracked = false;
            let series = self.entries.get(line.entry).series;
            if series == SeriesRef::NONE || !except.contains(&series) {
                append_marker(&self.entries, line.entry, timestamp_ms, app)?;
            }
        }
        Ok(())
    }

    /// An empty cache that goes on with what is known of families.
    pub(crate) fn successor(metadata: Arc<MetadataStore>, scrape: u32, forced_flushes: u64) -> Self {
        Self { scrape, forced_flushes, metadata, ..Self::default() }
    }

    /// Series that it holds, and those that it leaves out for want of a seat.
    pub(crate) fn seated(&self) -> (usize, usize) {
        self.entries.seated()
    }

    /// Number of the last scrape.
    pub(crate) fn scrape(&self) -> u32 {
        self.scrape
    }

    fn begin(&mut self) {
        self.scrape = self.scrape.wrapping_add(1).max(1);
    }

    /// Typical lines are a hundred bytes; a wrong guess costs a reallocation.
    fn reserve(&mut self, body_len: usize) {
        let lines = body_len / 100;
        self.lines.reserve(lines);
        self.entries.reserve(lines);
        self.metadata.lock().reserve((lines / 2).min(FAMILIES_EXPECTED_MAX));
    }

    fn walk(&mut self, run: &mut Run<'_>) -> Result<(), ScrapeFailure> {
        loop {
            self.follow_prediction(run)?;
            let at_end = run.line == self.lines.len();
            if at_end && run.fresh.is_none() && !self.lines.is_empty() {
                let tail = &run.body[run.at..];
                if (self.entries.hash(tail), tail.len()) == self.tail {
                    return Ok(());
                }
            }
            if !self.parse_sample(run)? {
                return Ok(());
            }
        }
    }
}

/// A stale marker. That the store has a newer sample, or no longer knows the series, is as good.
fn append_marker(
    entries: &Entries,
    id: u32,
    timestamp_ms: i64,
    app: &mut dyn Appender,
) -> Result<(), ScrapeFailure> {
    let series = entries.get(id).series;
    let result = match entries.labels(id) {
        Some(labels) => {
            app.append(SeriesRef::NONE, labels, Sample::float(timestamp_ms, stale_nan())).map(|_| ())
        }
        None if series != SeriesRef::NONE => app.append_float(series, timestamp_ms, stale_nan()),
        None => Ok(()),
    };
    match result {
        Err(AppendError::Storage(e)) => Err(e.into()),
        _ => Ok(()),
    }
}

impl ScrapeCounts {
    /// Counts a refused sample.
    ///
    /// # Errors
    /// When the whole scrape must fail.
    pub(crate) fn refuse(&mut self, error: AppendError) -> Result<(), ScrapeFailure> {
        match error {
            AppendError::OutOfOrder | AppendError::TooOld => self.out_of_order += 1,
            AppendError::DuplicateTimestamp => self.duplicates += 1,
            AppendError::OutOfBounds => self.out_of_bounds += 1,
            AppendError::Storage(e) => return Err(e.into()),
            AppendError::UnknownRef | AppendError::InvalidLabels(_) | AppendError::InvalidHistogram(_) => {
                return Err(ScrapeFailure::Labels(error.to_string()));
            }
        }
        Ok(())
    }
}
