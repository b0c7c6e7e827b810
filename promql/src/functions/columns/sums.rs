//! `sum_over_time`, `avg_over_time`, `stddev_over_time`, `stdvar_over_time`: each window is a chain of dependent
//! additions, so the windows of [`LANES`] steps go side by side and the processor is never waiting for one of them.

use crate::exec::batch::clean;
use crate::functions::kahan;
use crate::functions::window::{Bound, Env, Steps};

/// Windows that are worked on side by side.
const LANES: usize = 4;

type Lanes = [f64; LANES];

pub(crate) fn sum(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    side_by_side(
        s,
        cells,
        |w| {
            let (sum, c) = kahan_sums(w, [0.0; LANES], 0);
            std::array::from_fn(|l| sum[l] + c[l])
        },
        |w| {
            let (sum, c) = w.iter().fold((0.0_f64, 0.0), |(sum, c), v| kahan::add(*v, sum, c));
            if sum.is_infinite() { sum } else { sum + c }
        },
    );
}

pub(crate) fn avg(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    side_by_side(
        s,
        cells,
        |w| {
            let (sum, c) = kahan_sums(w, w.map(|w| w[0]), 1);
            let n = w[0].len() as f64;
            std::array::from_fn(|l| sum[l] / n + c[l] / n)
        },
        |w| {
            let mut mean = kahan::Mean::default();
            w.iter().for_each(|v| mean.add(*v));
            mean.get()
        },
    );
}

pub(crate) fn stddev(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    side_by_side(s, cells, |w| variances(w).map(f64::sqrt), |w| variances([w])[0].sqrt());
}

pub(crate) fn stdvar(s: &Steps<'_>, _: &mut Env<'_>, cells: &mut [f64]) {
    side_by_side(s, cells, variances, |w| variances([w])[0]);
}

/// Windows of equal length are given to `many`, others one by one to `one`; so are those of which `many` makes no finite
/// number.
#[inline]
fn side_by_side(
    s: &Steps<'_>,
    cells: &mut [f64],
    many: impl Fn([&[f64]; LANES]) -> Lanes,
    one: impl Fn(&[f64]) -> f64,
) {
    let samples = |b: &Bound| b.floats.1 - b.floats.0;
    let mut rest = s.bounds;
    while let Some(first) = rest.first() {
        if rest.len() >= LANES && rest[..LANES].iter().all(|b| samples(b) == samples(first)) {
            let results = many(std::array::from_fn(|l| s.floats(&rest[l])));
            for (b, v) in rest.iter().zip(results) {
                cells[b.step] = clean(if v.is_finite() { v } else { one(s.floats(b)) });
            }
            rest = &rest[LANES..];
        } else {
            cells[first.step] = clean(one(s.floats(first)));
            rest = &rest[1..];
        }
    }
}

/// Compensated sums from `from` on. Sums that are not finite at some time are not finite at the end.
#[inline]
fn kahan_sums(windows: [&[f64]; LANES], mut sum: Lanes, from: usize) -> (Lanes, Lanes) {
    let n = windows[0].len();
    let windows = windows.map(|w| &w[..n]);
    let mut c = [0.0; LANES];
    for i in from..n {
        let values: Lanes = windows.map(|w| w[i]);
        for (l, inc) in values.into_iter().enumerate() {
            let t = sum[l] + inc;
            let sum_is_larger = sum[l].abs() >= inc.abs();
            let (large, small) = if sum_is_larger { (sum[l], inc) } else { (inc, sum[l]) };
            c[l] += (large - t) + small;
            sum[l] = t;
        }
    }
    (sum, c)
}

/// Welford's method, compensated.
#[inline]
fn variances<const N: usize>(windows: [&[f64]; N]) -> [f64; N] {
    let n = windows[0].len();
    let windows = windows.map(|w| &w[..n]);
    let mut count = 0.0;
    let (mut mean, mut mean_c) = ([0.0; N], [0.0; N]);
    let (mut aux, mut aux_c) = ([0.0; N], [0.0; N]);
    for i in 0..n {
        count += 1.0;
        for (l, v) in windows.map(|w| w[i]).into_iter().enumerate() {
            let delta = v - (mean[l] + mean_c[l]);
            (mean[l], mean_c[l]) = kahan::add(delta / count, mean[l], mean_c[l]);
            (aux[l], aux_c[l]) = kahan::add(delta * (v - (mean[l] + mean_c[l])), aux[l], aux_c[l]);
        }
    }
    std::array::from_fn(|l| (aux[l] + aux_c[l]) / count)
}
