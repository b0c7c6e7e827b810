//! What can be wrong with a histogram, or with two of them. The texts are those of Prometheus.

use super::CUSTOM_BUCKETS_SCHEMA;
use super::bounds::{EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN};

/// What is wrong with a histogram, or with two that are to be combined.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HistogramError {
    /// One has exponential buckets, the other custom ones.
    #[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
    IncompatibleSchemas,
    /// Only exponential buckets can be merged into wider ones.
    #[error("cannot reduce resolution from schema {from} to {to}")]
    Resolution {
        /// Schema of the histogram.
        from: i32,
        /// Schema asked for.
        to: i32,
    },
    /// The schema is not one we can compute with.
    #[error(
        "histogram has an invalid schema, which must be between {EXPONENTIAL_SCHEMA_MIN} and {EXPONENTIAL_SCHEMA_MAX} for exponential buckets, or {CUSTOM_BUCKETS_SCHEMA} for custom buckets, got schema {0}"
    )]
    Schema(i32),
    /// Fewer observations than the buckets hold, in a histogram whose sum is NaN.
    #[error(
        "{in_buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should be at least the number of observations found in the buckets"
    )]
    CountTooSmall {
        /// Observations in the buckets.
        in_buckets: u64,
        /// Observations in all.
        count: u64,
    },
    /// Not as many observations as the buckets hold.
    #[error(
        "{in_buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch {
        /// Observations in the buckets.
        in_buckets: u64,
        /// Observations in all.
        count: u64,
    },
    /// Fewer than no observations.
    #[error("observation count is {0}: histogram's observation count is negative")]
    NegativeCount(f64),
    /// Fewer than no observations in the zero bucket.
    #[error(
        "zero bucket has observation count of {0}: histogram has a bucket whose observation count is negative"
    )]
    NegativeZeroCount(f64),
    /// Fewer than no observations in a bucket.
    #[error(
        "{side}: bucket number {number} has observation count of {count}: histogram has a bucket whose observation count is negative"
    )]
    NegativeBucketCount {
        /// `positive side` or `negative side`.
        side: &'static str,
        /// Counts from 1.
        number: usize,
        /// Its count.
        count: f64,
    },
    /// A span that goes back.
    #[error(
        "{side}: span number {number} with offset {offset}: histogram has a span whose offset is negative"
    )]
    NegativeSpanOffset {
        /// `positive side`, `negative side` or `custom buckets`.
        side: &'static str,
        /// Counts from 1.
        number: usize,
        /// Its offset.
        offset: i32,
    },
    /// Spans and buckets do not fit each other.
    #[error(
        "{side}: spans need {needed} buckets, have {have} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpansBucketsMismatch {
        /// `positive side`, `negative side` or `custom buckets`.
        side: &'static str,
        /// Buckets that the spans describe.
        needed: u64,
        /// Buckets that are there.
        have: usize,
    },
    /// Buckets beyond the custom bounds.
    #[error(
        "custom buckets: only {bounds} custom bounds defined which is insufficient to cover total span length of {length}: histogram custom bounds are too few"
    )]
    TooFewCustomBounds {
        /// Custom bounds.
        bounds: usize,
        /// Indexes that the spans cover.
        length: u64,
    },
    /// A custom bound is NaN.
    #[error("custom buckets: histogram custom bounds must not be NaN")]
    CustomBoundNan,
    /// Custom bounds that do not rise.
    #[error("custom buckets: histogram custom bounds must be in strictly increasing order")]
    CustomBoundsOrder,
    /// A custom bound is infinite.
    #[error("custom buckets: histogram custom bounds must be finite")]
    CustomBoundInfinite,
    /// Custom buckets exclude the named part.
    #[error("custom buckets: must {0}")]
    CustomBuckets(&'static str),
    /// Custom bounds belong to custom buckets only.
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialWithCustomBounds,
}
