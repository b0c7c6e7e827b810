//! Running a plan. Operators hand on batches of series × steps as columns ([`batch`]); the one who asks owns the buffer
//! ([`operator`]). What all operators of a query share, limits and annotations, is in [`context`]; what they hold and read is
//! counted in [`memory`] and [`tally`].
//!
//! Leaves: [`source`] reads series, [`instant`] and [`window`] make rows of them (of those that come summed up with [`rollup`]), [`ranges`] hands whole windows on.
//! Everything else takes rows and gives rows. [`collect`] makes the answer.

pub(crate) mod absent;
pub(crate) mod aggregate;
pub(crate) mod batch;
pub(crate) mod binary;
pub(crate) mod binary_scalar;
pub(crate) mod bitmap;
pub(crate) mod collect;
pub(crate) mod context;
pub(crate) mod count_values;
pub(crate) mod duplicates;
pub(crate) mod elementwise;
pub(crate) mod exchange;
pub(crate) mod feed;
pub(crate) mod histogram_quantile;
pub(crate) mod info;
pub(crate) mod instant;
pub(crate) mod invariant;
pub(crate) mod label_ops;
pub(crate) mod matching;
pub(crate) mod memory;
pub(crate) mod merge;
pub(crate) mod operator;
pub(crate) mod ranges;
pub(crate) mod rollup;
pub(crate) mod scalar;
pub(crate) mod set;
pub(crate) mod sort;
pub(crate) mod source;
pub(crate) mod tally;
pub(crate) mod topk;
pub(crate) mod window;
