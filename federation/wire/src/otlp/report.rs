//! What a translation has to say beside the samples: what was refused and why, and warnings.

use std::collections::HashSet;

use model::{AppendError, StorageError};

use crate::error::Error;

/// Reasons that are told in full; further ones are counted.
const REASONS_MAX: usize = 100;
/// Warnings that are told in full; further ones are counted.
const WARNINGS_MAX: usize = 10;

/// What became of a request.
#[derive(Debug, Default)]
pub struct Report {
    /// Why it is refused; empty when it is not.
    pub refused: Refused,
    /// What its sender should look at.
    pub warnings: Warnings,
}

/// Why a request is refused: one reason for each metric that could not be taken as a whole.
#[derive(Debug, Default)]
pub struct Refused {
    reasons: Vec<String>,
    more: u64,
    sender: bool,
}

impl Refused {
    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Whether sending the same again cannot help, since samples are late or too early.
    #[must_use]
    pub fn by_time(&self) -> bool {
        self.sender
    }

    /// The reasons, one a line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.reasons.join("\n");
        if self.more > 0 {
            text.push_str(&format!("\nand {} more", self.more));
        }
        text
    }

    pub(crate) fn add(&mut self, failure: Failure) {
        self.sender |= failure.by_time;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(failure.reason);
        } else {
            self.more += 1;
        }
    }
}

/// Kinds of warnings, as the metric has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// A metric without data points.
    EmptyDataPoints,
    /// Attributes that get the same label name.
    LabelNameCollision,
    /// A histogram of nothing with a sum.
    HistogramZeroCountNonZeroSum,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 3] =
        [Self::EmptyDataPoints, Self::LabelNameCollision, Self::HistogramZeroCountNonZeroSum];

    /// Value of the label `category`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmptyDataPoints => "empty_data_points",
            Self::LabelNameCollision => "label_name_collision",
            Self::HistogramZeroCountNonZeroSum => "histogram_zero_count_non_zero_sum",
        }
    }
}

/// Warnings, each text once.
#[derive(Debug, Default)]
pub struct Warnings {
    /// The first few.
    pub texts: Vec<String>,
    counts: [u64; Category::ALL.len()],
    seen: HashSet<u64>,
}

impl Warnings {
    /// How many there are of a kind.
    #[must_use]
    pub fn count(&self, category: Category) -> u64 {
        self.counts[category as usize]
    }

    pub(crate) fn add(&mut self, category: Category, text: String) {
        if !self.seen.insert(xxhash_rust::xxh3::xxh3_64(text.as_bytes())) {
            return;
        }
        self.counts[category as usize] += 1;
        if self.texts.len() < WARNINGS_MAX {
            self.texts.push(text);
        }
    }
}

/// Why a metric is refused.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: String,
    by_time: bool,
}

impl Failure {
    pub(crate) fn new(reason: String) -> Self {
        Self { reason, by_time: false }
    }

    pub(crate) fn by_time(reason: &str) -> Self {
        Self { reason: reason.to_owned(), by_time: true }
    }
}

/// Why nothing of a request is taken, whatever else may be in it.
#[derive(Debug)]
pub enum Stop {
    /// The bytes are not the message, or more than is taken.
    Decode(Error),
    /// The store failed.
    Storage(StorageError),
}

/// What ends a metric, or everything.
pub(crate) enum Fault {
    Metric(Failure),
    All(Stop),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::All(Stop::Decode(e))
    }
}

/// A name that cannot be made.
impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Metric(Failure::new(reason))
    }
}

impl From<AppendError> for Fault {
    fn from(e: AppendError) -> Self {
        use AppendError as E;
        Self::Metric(match e {
            E::Storage(e) => return Self::All(Stop::Storage(e)),
            E::OutOfOrder | E::OutOfBounds | E::TooOld | E::DuplicateTimestamp => {
                Failure::by_time(&e.to_string())
            }
            E::InvalidHistogram(reason) => Failure::new(reason),
            E::UnknownRef | E::InvalidLabels(_) => Failure::new(e.to_string()),
        })
    }
}
