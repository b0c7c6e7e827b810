//! The stale marker: a NaN with one exact bit pattern, written when a series ends. It differs from the NaN that a
//! target may expose, and every path keeps its bits.

/// Bits of the stale marker.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;
/// Bits of the NaN that parsers store for an exposed `NaN`.
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The stale marker.
#[must_use]
#[inline]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// The NaN that stands for an exposed `NaN`.
#[must_use]
#[inline]
pub fn normal_nan() -> f64 {
    f64::from_bits(NORMAL_NAN_BITS)
}

/// Whether `v` is the stale marker, by its bits.
#[must_use]
#[inline]
pub fn is_stale_nan(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}
