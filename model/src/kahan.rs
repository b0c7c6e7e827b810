//! Kahan summation with Neumaier's improvement, the way Prometheus rounds.
//!
//! Here, and not with the functions of the query language, because a store that sums up ahead must round as they do.
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#aggregation_over_time>.

/// Adds `inc` to `sum` with compensation `c`; gives the new pair.
#[inline]
#[must_use]
pub fn add(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    let c = if t.is_infinite() {
        0.0
    } else if sum.abs() >= inc.abs() {
        c + ((sum - t) + inc)
    } else {
        c + ((inc - t) + sum)
    };
    (t, c)
}
