//! Answers of queries: scalars, strings, vectors and matrices, as the API prints them.

use std::sync::Arc;

use model::{Annotations, FloatHistogram, Labels};

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
}

/// What a query took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// Samples that operators read, counted once per step that sees them.
    pub total_queryable_samples: u64,
    /// Most samples held at once.
    pub peak_samples: u64,
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
