//! The vocabulary that every other crate shares, and the contracts through which they meet.
//!
//! Nothing here does I/O, starts a thread or knows an async runtime, and nothing here depends on another crate of
//! the project. Read in this order:
//!
//! 1. [`labels`], [`matcher`], [`regexp`]: what names a series and what selects it.
//! 2. [`sample`], [`histogram`], [`staleness`], [`exemplar`], [`metadata`]: what a series carries.
//! 3. [`chunk`], [`rollup`] (with [`kahan`]): how a store hands on samples without decoding them, or summed up ahead.
//! 4. [`storage`]: `Appender`, `Querier`, `SeriesSet`, `WalTail`, the traits between engines and users.
//! 5. [`trace`]: what was done for a request, and where it spent its time.
//! 6. [`duration`], [`annotations`], [`clock`], [`error`]: the small things everybody needs.

#![forbid(unsafe_code)]

pub mod annotations;
pub mod calendar;
pub mod chunk;
pub mod clock;
pub mod duration;
pub mod error;
pub mod exemplar;
pub mod histogram;
pub mod kahan;
pub mod labels;
pub mod matcher;
pub mod memory;
pub mod metadata;
pub mod regexp;
pub mod relabel;
pub mod rng;
pub mod rollup;
pub mod sample;
pub mod staleness;
pub mod storage;
pub mod trace;

pub use annotations::Annotations;
pub use chunk::{Chunk, ChunkCodec, ChunkEncoding, Samples};
pub use clock::{Clock, SystemClock};
pub use error::{AppendError, StorageError};
pub use exemplar::Exemplar;
pub use histogram::{FloatHistogram, Histogram, HistogramValue};
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{Metadata, MetricType};
pub use regexp::{Regexp, SearchRegexp};
pub use rollup::{Resolutions, Rollup, RollupColumns, RollupRequest};
pub use sample::{Sample, SampleValue};
pub use staleness::{STALE_NAN_BITS, is_stale_nan, stale_nan};
pub use storage::{
    Appendable, Appender, LabelsResult, Querier, Queryable, SelectHints, Series, SeriesRef, SeriesSet,
    WalPosition, WalRecord, WalTail,
};
