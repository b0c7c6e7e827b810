//! What functions compute: over windows of one series ([`window`], [`rate`], [`over_time`], [`quantile`],
//! [`regression`], [`extended`]) or of what its samples come to ([`rollup`]), of single values ([`math`], [`elementary`],
//! [`trigonometry`], [`hyperbolic`], [`time`]), of histograms ([`histogram`], [`classic_histogram`]) and of labels ([`label`]); and the order that equal elements are sorted in ([`sorting`]).
//! Nothing here knows operators or batches of series.

pub(crate) mod classic_histogram;
pub(crate) mod columns;
pub(crate) mod elementary;
pub(crate) mod extended;
pub(crate) mod format;
pub(crate) mod histogram;
pub(crate) mod histogram_over_time;
pub(crate) mod histogram_rate;
pub(crate) mod hyperbolic;
pub(crate) mod kahan;
pub(crate) mod label;
pub(crate) mod math;
pub(crate) mod over_time;
pub(crate) mod quantile;
pub(crate) mod rate;
pub(crate) mod regression;
pub(crate) mod resets;
pub(crate) mod rollup;
pub(crate) mod sorting;
pub(crate) mod time;
pub(crate) mod trigonometry;
pub(crate) mod window;

pub(crate) use math::scalar_binary;
