//! The contracts between stores and their users.
//!
//! All calls block; an async caller moves them to a blocking thread. All ranges `[mint, maxt]` are inclusive, in
//! milliseconds since the Unix epoch.

use std::fmt;
use std::sync::Arc;

use crate::chunk::Chunk;
use crate::error::{AppendError, StorageError};
use crate::exemplar::Exemplar;
use crate::histogram::HistogramValue;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::metadata::Metadata;
use crate::rollup::RollupRequest;
use crate::sample::Sample;

/// A store's short name for a series. Valid for the store that gave it, while it runs. 0 means "not known yet".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SeriesRef(pub u64);

impl SeriesRef {
    /// No reference.
    pub const NONE: Self = Self(0);
}

// === Writing ===

/// A store that takes samples.
pub trait Appendable: Send + Sync {
    /// Begins a batch. Batches of several threads go on side by side.
    ///
    /// # Errors
    /// When the store is closed or cannot take samples.
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError>;
}

/// One batch of samples: one scrape, one evaluation of a rule group, one remote-write request.
///
/// Nothing of a batch is seen by queries before `commit`; dropping the appender rolls back. Rejections are per
/// sample: after an `Err` that is not [`AppendError::Storage`] the batch goes on.
pub trait Appender: Send {
    /// Adds a sample. With a reference given by this store the labels are not looked at; with [`SeriesRef::NONE`] or a
    /// reference no longer valid they are, and a new series is made when needed. Returns the reference to use next time.
    ///
    /// # Errors
    /// Why the sample was not taken.
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError>;

    /// Adds a float sample to a series known by its reference: the hot path of scraping, no label is touched.
    ///
    /// # Errors
    /// [`AppendError::UnknownRef`] when the reference is no longer valid: call [`Appender::append`] with the labels.
    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) -> Result<(), AppendError>;

    /// Adds a zero where the counter or histogram of `sample`, which is appended next, began, so that its first increase
    /// is seen. Best effort: nothing is added when the series has a sample there or later, or when the store does not do
    /// this.
    ///
    /// # Errors
    /// As for [`Appender::append`], but for a zero that cannot be added.
    fn append_start_as_zero(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: &Sample,
    ) -> Result<(), AppendError> {
        let _ = (series, labels, sample);
        Ok(())
    }

    /// Adds an exemplar to a series of this batch or an earlier one.
    ///
    /// # Errors
    /// Why it was not taken; duplicates of the newest exemplar are silently dropped.
    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError>;

    /// Sets type, unit and help of the series' metric family.
    ///
    /// # Errors
    /// When the series is not known.
    fn append_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError>;

    /// Makes the batch visible, all of it at once, and durable as the store is configured.
    ///
    /// # Errors
    /// When the batch could not be stored; nothing of it is visible then.
    fn commit(self: Box<Self>) -> Result<(), StorageError>;

    /// Drops the batch.
    fn rollback(self: Box<Self>);
}

// === Reading ===

/// A store that answers selections.
pub trait Queryable: Send + Sync {
    /// A view on the data within `[mint, maxt]` as it is now.
    ///
    /// # Errors
    /// When the store is closed, or a part of it cannot be reached.
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError>;

    /// Lengths of the windows that the store sums up ahead: [`Querier::select_rollup`] can help with requests that lie on one
    /// of them ([`RollupRequest::is_on`]).
    fn rollup_grids_ms(&self) -> &'static [i64] {
        &[]
    }
}

impl<T: Queryable + ?Sized> Queryable for Arc<T> {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        (**self).querier(mint, maxt)
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        (**self).rollup_grids_ms()
    }
}

impl<T: Appendable + ?Sized> Appendable for Arc<T> {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        (**self).appender()
    }
}

/// What a selection is for. All fields are hints: a store may use them to read less and must not answer wrongly
/// because of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectHints {
    /// First timestamp that is needed.
    pub start_ms: i64,
    /// Last timestamp that is needed.
    pub end_ms: i64,
    /// Step of a range query; 0 for an instant query.
    pub step_ms: i64,
    /// Range of the range selector; 0 for an instant selector.
    pub range_ms: i64,
    /// Function around the selector, or empty.
    pub func: String,
    /// Labels of the aggregation around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` is `by` (else `without`).
    pub by: bool,
    /// At most so many series are needed; 0 for all.
    pub limit: usize,
    /// `func` is `series`: only labels are needed, chunks may be left out.
    pub labels_only: bool,
}

/// A view on a range of a store.
pub trait Querier: Send + Sync {
    /// The series that pass all matchers and have samples in the range, sorted by labels, each with the chunks that
    /// hold its samples within the querier's range.
    ///
    /// # Errors
    /// When the selection cannot be made at all. Errors met later come from [`SeriesSet::next`].
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError>;

    /// As [`Querier::select`], for windows that are made of the cells of `request`: a series may come with a single chunk that is a
    /// [`crate::Rollup`] ([`Chunk::as_rollup`]) in place of its samples. Its cells are those within
    /// `[hints.start_ms, hints.end_ms]` that have samples, and hold what the samples come to: nothing is missing and nothing is
    /// counted twice; a series whose samples cannot be summed up so (histograms, start timestamps when they matter) comes with
    /// chunks of samples. A store that sums up nothing ahead gives samples.
    ///
    /// # Errors
    /// As for [`Querier::select`].
    fn select_rollup(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
        request: &RollupRequest,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        let _ = request;
        self.select(matchers, hints)
    }

    /// Names of the labels of the series that pass the matchers, sorted, unique, at most `limit` (0: all).
    ///
    /// # Errors
    /// When they cannot be read.
    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError>;

    /// Values of one label among the series that pass the matchers, sorted, unique, at most `limit` (0: all).
    ///
    /// # Errors
    /// When they cannot be read.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError>;
}

/// An answer of [`Querier::label_names`] or [`Querier::label_values`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelsResult {
    /// Sorted and unique.
    pub values: Vec<String>,
    /// What the reader must know, for example that a part of the store did not answer or the limit cut something off.
    pub warnings: Vec<String>,
}

/// A series of a selection.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its chunks, sorted by `mint`; they may overlap ([`crate::chunk::decode_chunks`] merges them).
    pub chunks: Vec<Chunk>,
}

/// A stream of series, strictly sorted by labels.
pub trait SeriesSet: Send {
    /// The next series, or `None` at the end.
    ///
    /// # Errors
    /// When the rest cannot be read. The set is then at its end.
    fn next(&mut self) -> Result<Option<Series>, StorageError>;

    /// What the reader must know beside the data; complete once `next` gave `None`.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Sorts series by labels and makes one, with the chunks of all, of those that have the same: what several sources gave, or
/// what labels were taken off of.
#[must_use]
pub fn joined(mut all: Vec<Series>) -> Vec<Series> {
    if all.is_sorted_by(|a, b| a.labels < b.labels) {
        return all;
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all.dedup_by(|later, first| {
        let same = later.labels == first.labels;
        if same {
            first.chunks.append(&mut later.chunks);
            first.chunks.sort_by_key(|c| c.mint);
        }
        same
    });
    all
}

/// A series set over a list that is at hand, already sorted.
pub struct VecSeriesSet {
    series: std::vec::IntoIter<Series>,
    warnings: Vec<String>,
}

impl VecSeriesSet {
    /// A set over `series`, which are strictly sorted by labels.
    #[must_use]
    pub fn new(series: Vec<Series>, warnings: Vec<String>) -> Self {
        debug_assert!(
            series.is_sorted_by(|a, b| a.labels < b.labels),
            "a series set is strictly sorted by labels"
        );
        Self { series: series.into_iter(), warnings }
    }
}

impl SeriesSet for VecSeriesSet {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        Ok(self.series.next())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

// === Following a write-ahead log ===

/// A place in a write-ahead log: the first record not yet read begins here. Orders by segment, then offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WalPosition {
    /// Number of the segment.
    pub segment: u32,
    /// Byte offset in the segment.
    pub offset: u64,
}

impl WalPosition {
    /// Twelve bytes, big-endian, which sort like the positions.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 12] {
        let mut b = [0; 12];
        b[..4].copy_from_slice(&self.segment.to_be_bytes());
        b[4..].copy_from_slice(&self.offset.to_be_bytes());
        b
    }

    /// Reads [`WalPosition::to_bytes`]; `None` when the length is not twelve.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        let (segment, offset) = b.split_at_checked(4)?;
        Some(Self {
            segment: u32::from_be_bytes(segment.try_into().ok()?),
            offset: u64::from_be_bytes(offset.try_into().ok()?),
        })
    }
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}:{}", self.segment, self.offset)
    }
}

/// One record of a write-ahead log.
#[derive(Clone, Debug)]
pub enum WalRecord {
    /// New series: from here on the reference stands for the labels.
    Series(Vec<(SeriesRef, Labels)>),
    /// Float samples: reference, timestamp, value.
    Samples(Vec<(SeriesRef, i64, f64)>),
    /// Histogram samples.
    Histograms(Vec<(SeriesRef, i64, HistogramValue)>),
    /// Float samples of which some have a start timestamp: reference, timestamp, start timestamp (0: none), value.
    StartedSamples(Vec<(SeriesRef, i64, i64, f64)>),
    /// Histogram samples of which some have a start timestamp: reference, timestamp, start timestamp (0: none), value.
    StartedHistograms(Vec<(SeriesRef, i64, i64, HistogramValue)>),
    /// Exemplars.
    Exemplars(Vec<(SeriesRef, Exemplar)>),
    /// Metadata of series.
    Metadata(Vec<(SeriesRef, Metadata)>),
}

/// An ordered stream of the records of a write-ahead log.
///
/// Opened at a position, it first gives [`WalRecord::Series`] of everything before that position (checkpoint included),
/// so that each reference met later is known, and then all records from the position on, exactly once.
pub trait WalTail: Send {
    /// Appends the records at hand to `out`, at most about `max_records`, and returns the position after them. When
    /// nothing new is there, `out` stays as it is.
    ///
    /// # Errors
    /// When the log cannot be read. Reading may be tried again.
    fn read(&mut self, max_records: usize, out: &mut Vec<WalRecord>) -> Result<WalPosition, StorageError>;

    /// Position of the first record not yet given.
    fn position(&self) -> WalPosition;

    /// The position asked for, when the log no longer reached back to it at opening: what lies between it and
    /// [`WalTail::position`] is lost to this reader and must be fetched from blocks.
    fn gap(&self) -> Option<WalPosition>;
}

/// Opens readers of a write-ahead log.
pub trait WalSource: Send + Sync {
    /// A reader that starts at `from`, or, with `None`, at the end of the log as it is now.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn tail(&self, from: Option<WalPosition>) -> Result<Box<dyn WalTail>, StorageError>;

    /// The end of the log as it is now: everything committed lies before it.
    fn end(&self) -> WalPosition;

    /// Tells the log that `reader` needs everything from `position` on, so that segments are kept as far as the
    /// configured limit allows. `None` takes the reader off.
    fn hold(&self, reader: &str, position: Option<WalPosition>);
}
