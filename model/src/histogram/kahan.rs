//! Compensated summation, as Prometheus does it: Kahan's algorithm with Neumaier's improvement.

/// Adds `inc` to a sum with its compensation, and returns both. The value of the sum is `sum + c`. An infinite sum has no
/// compensation.
#[must_use]
#[inline]
pub fn kahan_inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    if t.is_infinite() {
        (t, 0.0)
    } else if sum.abs() >= inc.abs() {
        (t, c + ((sum - t) + inc))
    } else {
        (t, c + ((inc - t) + sum))
    }
}
