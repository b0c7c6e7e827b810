//! Answers of queries: scalars, strings, vectors and matrices, as the API prints them.

use std::sync::Arc;

use model::{Annotations, FloatHistogram, Labels, Resolutions};

use crate::exec::memory::{histograms_bytes, labels_bytes};

/// What a query evaluates to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One number.
    Scalar {
        /// Evaluation time, milliseconds.
        timestamp_ms: i64,
        /// The number.
        value: f64,
    },
    /// One string.
    String {
        /// Evaluation time, milliseconds.
        timestamp_ms: i64,
        /// The string.
        value: String,
    },
    /// One sample per series, in the order of evaluation (`sort` and `topk` order matters).
    Vector(Vec<VectorSample>),
    /// Several samples per series, sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

/// What one sample of an answer carries.
#[derive(Clone, Debug)]
pub enum PointValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Its labels.
    pub labels: Labels,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The value.
    pub value: PointValue,
}

/// One series of a matrix. At least one of the columns is not empty; each rises strictly by timestamp, and no timestamp
/// is in both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// Float samples.
    pub floats: Vec<(i64, f64)>,
    /// Histogram samples.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

/// Answer, annotations and what it took.
#[derive(Clone, Debug)]
pub struct QueryOutput {
    /// The answer.
    pub value: Value,
    /// Warnings and infos, with positions.
    pub annotations: Annotations,
    /// What it took.
    pub stats: QueryStats,
    /// What the series it read were made of.
    pub resolutions: Resolutions,
}

/// What a query took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// Samples that were looked at, counted at every step that looks at them; histograms count by their size.
    pub total_queryable_samples: u64,
    /// Samples that were read from storage: of windows that overlap, each sample once.
    pub samples_read: u64,
    /// Both by step, when the query and the engine ask for it.
    pub by_step: Option<StepStats>,
    /// Most samples held at once.
    pub peak_samples: u64,
    /// Most bytes held at once, as they are counted.
    pub peak_bytes: u64,
    /// Seconds of all the work, without waiting for a slot.
    pub eval_total_seconds: f64,
    /// Seconds from the call to the answer, waiting for a slot included.
    pub exec_total_seconds: f64,
    /// Seconds of waiting for a slot.
    pub exec_queue_seconds: f64,
    /// Seconds of preparing: parsing, planning, selecting series.
    pub query_preparation_seconds: f64,
    /// Seconds of evaluating.
    pub inner_eval_seconds: f64,
    /// Seconds of sorting and shaping the answer.
    pub result_sort_seconds: f64,
}

impl MatrixSeries {
    /// Bytes that the series takes.
    pub(crate) fn bytes(&self) -> u64 {
        let floats = self.floats.capacity() * size_of::<(i64, f64)>();
        let histograms = self.histograms.capacity() * size_of::<(i64, Arc<FloatHistogram>)>();
        let values = histograms_bytes(self.histograms.iter().map(|(_, h)| h));
        labels_bytes(&self.labels) + (size_of::<Self>() + floats + histograms) as u64 + values
    }
}

/// Samples by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepStats {
    /// The first step, milliseconds.
    pub start_ms: i64,
    /// Milliseconds between two steps.
    pub step_ms: i64,
    /// Samples looked at.
    pub queryable: Vec<u64>,
    /// Samples read.
    pub read: Vec<u64>,
}

impl StepStats {
    /// Counts by step, each with its time in seconds.
    pub fn points<'a>(&self, counts: &'a [u64]) -> impl Iterator<Item = (f64, u64)> + use<'a> {
        let (start_ms, step_ms) = (self.start_ms, self.step_ms);
        let time = move |i: usize| (start_ms + i as i64 * step_ms) as f64 / 1000.0;
        counts.iter().enumerate().map(move |(i, n)| (time(i), *n))
    }
}

/// Equality of floats is by their bits, so that NaNs and the stale marker compare.
impl PartialEq for PointValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => a == b,
            _ => false,
        }
    }
}

impl Value {
    /// The `resultType` of the HTTP API.
    #[must_use]
    pub fn result_type(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "scalar",
            Self::String { .. } => "string",
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
        }
    }
}
