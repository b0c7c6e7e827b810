//! Logarithms, powers of two and powers, computed in the steps in which Prometheus's runtime computes them, so that the last
//! digit is the same: `log10(1e15)` is a little less than 15, and whoever rounds it down gets 14.
//!
//! Left out are functions whose last digit depends on the processor there (`exp`) or shows nowhere.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#ln>, `#log2`, `#log10`; the method of the
//! natural logarithm and of the exponential is that of fdlibm.

use std::f64::consts::{FRAC_1_SQRT_2, LOG2_E, LOG10_E};

const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// The mantissa in `[0.5, 1)` and the exponent of a positive finite number.
fn split(v: f64) -> (f64, i32) {
    // Subnormal numbers have fewer digits; scaling them up makes their exponent readable.
    let (v, shift) = if v < f64::MIN_POSITIVE { (v * 2_f64.powi(52), 52) } else { (v, 0) };
    let exponent = (v.to_bits() >> 52) as i32 - 1022 - shift;
    (f64::from_bits(v.to_bits() & !(0x7ff << 52) | 1022 << 52), exponent)
}

/// `v * 2^exponent`, rounded once.
fn scale(v: f64, exponent: i32) -> f64 {
    if v == 0.0 || !v.is_finite() {
        return v;
    }
    let (mantissa, own) = split(v.abs());
    let exponent = own.saturating_add(exponent).saturating_sub(1);
    if exponent > 1023 {
        return f64::INFINITY.copysign(v);
    }
    if exponent < -1075 {
        return 0_f64.copysign(v);
    }
    // What becomes subnormal gets there by a multiplication, which rounds.
    let (exponent, factor) =
        if exponent < -1022 { (exponent + 53, 2_f64.powi(-53)) } else { (exponent, 1.0) };
    let bits = mantissa.to_bits() & !(0x7ff << 52) | ((exponent + 1023) as u64) << 52;
    f64::from_bits(bits).copysign(v) * factor
}

/// Coefficients of the series of the natural logarithm.
pub(super) const LN_SERIES: [f64; 7] = [
    6.666_666_666_666_735e-1,
    3.999_999_999_940_942e-1,
    2.857_142_874_366_239e-1,
    2.222_219_843_214_978_4e-1,
    1.818_357_216_161_805e-1,
    1.531_383_769_920_937_3e-1,
    1.479_819_860_511_658_6e-1,
];

/// The natural logarithm.
pub(crate) fn ln(v: f64) -> f64 {
    if !(v.is_finite() && v > 0.0) {
        return v.ln();
    }
    let (mut mantissa, mut exponent) = split(v);
    if mantissa < FRAC_1_SQRT_2 {
        mantissa *= 2.0;
        exponent -= 1;
    }
    let (f, k) = (mantissa - 1.0, f64::from(exponent));
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let odd = s2 * (LN_SERIES[0] + s4 * (LN_SERIES[2] + s4 * (LN_SERIES[4] + s4 * LN_SERIES[6])));
    let even = s4 * (LN_SERIES[1] + s4 * (LN_SERIES[3] + s4 * LN_SERIES[5]));
    let half_square = 0.5 * f * f;
    k * LN2_HIGH - ((half_square - (s * (half_square + (odd + even)) + k * LN2_LOW)) - f)
}

/// The binary logarithm: exact of powers of two.
pub(crate) fn log2(v: f64) -> f64 {
    if !(v.is_finite() && v > 0.0) {
        return v.ln();
    }
    let (mantissa, exponent) = split(v);
    let exponent = f64::from(exponent);
    if mantissa == 0.5 { exponent - 1.0 } else { ln(mantissa) * LOG2_E + exponent }
}

/// The decimal logarithm.
pub(crate) fn log10(v: f64) -> f64 {
    ln(v) * LOG10_E
}

/// `2^v`
pub(crate) fn exp2(v: f64) -> f64 {
    const P: [f64; 5] = [
        1.666_666_666_666_660_2e-1,
        -2.777_777_777_701_559_3e-3,
        6.613_756_321_437_934e-5,
        -1.653_390_220_546_525_2e-6,
        4.138_136_797_057_238_5e-8,
    ];
    if v.is_nan() {
        return v;
    }
    if v > 1.023_999_999_999_999_9e3 {
        return f64::INFINITY;
    }
    if v < -1.074e3 {
        return 0.0;
    }
    let k = (v + 0.5_f64.copysign(v)) as i32;
    let t = v - f64::from(k);
    let (high, low) = (t * LN2_HIGH, -t * LN2_LOW);
    let r = high - low;
    let t = r * r;
    let c = r - t * (P[0] + t * (P[1] + t * (P[2] + t * (P[3] + t * P[4]))));
    scale(1.0 - ((low - (r * c) / (2.0 - c)) - high), k)
}

/// `x^y`: the whole part of the exponent by squaring, the rest by logarithm.
pub(crate) fn pow(x: f64, y: f64) -> f64 {
    const WHOLE_END: f64 = 9_223_372_036_854_775_808.0;
    let simple = x == 0.0 || x == 1.0 || y == 0.0 || !x.is_finite() || !y.is_finite() || y.abs() >= WHOLE_END;
    if simple {
        return x.powf(y);
    }
    if y == 1.0 {
        return x;
    }
    if y.abs() == 0.5 {
        return if y > 0.0 { x.sqrt() } else { 1.0 / x.sqrt() };
    }
    let (mut whole, mut rest) = (y.abs().trunc(), y.abs().fract());
    if rest != 0.0 && x < 0.0 {
        return f64::NAN;
    }
    let (mut result, mut result_exponent) = (1.0, 0_i32);
    if rest != 0.0 {
        if rest > 0.5 {
            rest -= 1.0;
            whole += 1.0;
        }
        result = (rest * ln(x)).exp();
    }
    let (square, mut exponent) = split(x.abs());
    let mut square = square.copysign(x);
    let mut bits = whole as i64;
    while bits != 0 {
        if !(-4096..=4096).contains(&exponent) {
            // Far beyond what a float can hold, either way.
            result_exponent += exponent;
            break;
        }
        if bits & 1 == 1 {
            result *= square;
            result_exponent += exponent;
        }
        square *= square;
        exponent *= 2;
        if square < 0.5 {
            square += square;
            exponent -= 1;
        }
        bits >>= 1;
    }
    if y < 0.0 { scale(1.0 / result, -result_exponent) } else { scale(result, result_exponent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(log2(8.0), 3.0);
        assert_eq!([log2(0.0), ln(0.0)], [f64::NEG_INFINITY; 2]);
        assert_eq!(log2(f64::from_bits(1)), -1074.0);
        assert_eq!(log10(100.0), 2.0);
        assert_eq!(log10(1e15), 14.999_999_999_999_998);
        assert_eq!(log10(0.1), -0.999_999_999_999_999_9);
        assert_eq!(log10(f64::INFINITY), f64::INFINITY);
        assert!(log10(-1.0).is_nan() && log2(f64::NAN).is_nan() && pow(-8.0, 1.0 / 3.0).is_nan());
        assert_eq!([exp2(3.0), exp2(-1074.0), exp2(-1075.0)], [8.0, f64::from_bits(1), 0.0]);
        assert_eq!([exp2(1024.0), exp2(f64::NEG_INFINITY)], [f64::INFINITY, 0.0]);
        assert_eq!([pow(2.0, 10.0), pow(-2.0, 3.0), pow(10.0, -2.0)], [1024.0, -8.0, 0.01]);
        assert_eq!(
            [pow(2.0, -1074.0), pow(2.0, 1024.0), pow(0.5, 2000.0)],
            [f64::from_bits(1), f64::INFINITY, 0.0]
        );
    }

    #[test]
    fn close_to_the_true_values() {
        let mut seed = 3_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let v = f64::from_bits(seed >> 1);
            if !v.is_finite() || v == 0.0 {
                continue;
            }
            let close = |a: f64, b: f64| {
                a == b || (a - b).abs() <= 1e-14 * (a.abs() + b.abs()) || a.is_nan() && b.is_nan()
            };
            assert!(close(ln(v), v.ln()), "ln {v}");
            let small = (seed >> 40) as f64 / 7_919.0 - 1_000.0;
            assert!(close(exp2(small), small.exp2()), "exp2 {small}");
            let base = ((seed >> 33) % 1_000) as f64 / 31.0 + 0.01;
            let power = (seed % 400) as f64 / 8.0 - 25.0;
            assert!((pow(base, power) / base.powf(power) - 1.0).abs() < 1e-12, "{base}^{power}");
        }
    }
}
