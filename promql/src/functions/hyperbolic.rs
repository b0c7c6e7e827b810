//! Hyperbolic functions and their inverses, computed in the steps in which Prometheus's runtime computes them: where they
//! overflow, and to which digits they are exact, is the same. The exponential in them is the platform's.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#trigonometric-functions>; the methods are those
//! of fdlibm, Cephes, and Hart and Cheney.

use std::f64::consts::LN_2;

use super::elementary::{LN_SERIES, ln};

/// Up to here a function of the kind of `x + …` is `x`.
const NEAR_ZERO: f64 = 1.0 / 268_435_456.0;
/// From here on 1 beside x² is lost.
const LARGE: f64 = 268_435_456.0;

pub(crate) fn sinh(x: f64) -> f64 {
    const P: [f64; 4] = [
        -6.307_673_640_497_717e5,
        -8.991_272_022_039_509e4,
        -2.894_211_355_989_564e3,
        -2.630_563_213_397_497e1,
    ];
    const Q: [f64; 3] = [-6.307_673_640_497_717e5, 1.521_517_378_790_019e4, -1.736_789_535_582_337e2];
    let v = x.abs();
    let result = if v > 21.0 {
        v.exp() * 0.5
    } else if v > 0.5 {
        let e = v.exp();
        (e - 1.0 / e) * 0.5
    } else {
        let s = v * v;
        (((P[3] * s + P[2]) * s + P[1]) * s + P[0]) * v / (((s + Q[2]) * s + Q[1]) * s + Q[0])
    };
    if x < 0.0 { -result } else { result.copysign(x) }
}

pub(crate) fn cosh(x: f64) -> f64 {
    let e = x.abs().exp();
    if x.abs() > 21.0 { e * 0.5 } else { (e + 1.0 / e) * 0.5 }
}

pub(crate) fn tanh(x: f64) -> f64 {
    const P: [f64; 3] = [-9.643_991_794_250_523e-1, -9.928_772_310_019_186e1, -1.614_687_684_417_084_4e3];
    const Q: [f64; 3] = [1.128_116_784_916_329_3e2, 2.235_488_390_601_004_5e3, 4.844_063_053_251_255e3];
    /// Half the logarithm of 2^127.
    const ONE_FROM: f64 = 44.014_845_965_556_53;
    let v = x.abs();
    if v > ONE_FROM {
        return 1_f64.copysign(x);
    }
    if v >= 0.625 {
        return (1.0 - 2.0 / ((2.0 * v).exp() + 1.0)).copysign(x);
    }
    if x == 0.0 {
        return x;
    }
    let s = x * x;
    x + x * s * ((P[0] * s + P[1]) * s + P[2]) / (((s + Q[0]) * s + Q[1]) * s + Q[2])
}

pub(crate) fn asinh(x: f64) -> f64 {
    if !x.is_finite() {
        return x;
    }
    let v = x.abs();
    let result = if v > LARGE {
        ln(v) + LN_2
    } else if v > 2.0 {
        ln(2.0 * v + 1.0 / ((v * v + 1.0).sqrt() + v))
    } else if v < NEAR_ZERO {
        v
    } else {
        ln_1p(v + v * v / (1.0 + (1.0 + v * v).sqrt()))
    };
    if x < 0.0 { -result } else { result.copysign(x) }
}

pub(crate) fn acosh(x: f64) -> f64 {
    if x.is_nan() || x < 1.0 {
        return f64::NAN;
    }
    if x == 1.0 {
        return 0.0;
    }
    if x >= LARGE {
        return ln(x) + LN_2;
    }
    if x > 2.0 {
        return ln(2.0 * x - 1.0 / (x + (x * x - 1.0).sqrt()));
    }
    let t = x - 1.0;
    ln_1p(t + (2.0 * t + t * t).sqrt())
}

pub(crate) fn atanh(x: f64) -> f64 {
    let v = x.abs();
    if v.is_nan() || v > 1.0 {
        return f64::NAN;
    }
    if v == 1.0 {
        return f64::INFINITY.copysign(x);
    }
    let twice = v + v;
    let result = if v < NEAR_ZERO {
        v
    } else if v < 0.5 {
        0.5 * ln_1p(twice + twice * v / (1.0 - v))
    } else {
        0.5 * ln_1p(twice / (1.0 - v))
    };
    if x < 0.0 { -result } else { result.copysign(x) }
}

/// `ln(1 + x)` of a number that is not negative.
fn ln_1p(x: f64) -> f64 {
    const SQRT_2_LESS_1: f64 = 4.142_135_623_730_950_5e-1;
    const TWO_53: f64 = 9_007_199_254_740_992.0;
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    /// The mantissa of the root of two.
    const SQRT_2_MANTISSA: u64 = 0x0006_a09e_667f_3bcd;
    if !x.is_finite() {
        return x;
    }
    if x < 1.0 / 536_870_912.0 {
        return if x < 1.0 / (2.0 * TWO_53) { x } else { x - x * x * 0.5 };
    }
    // 1 + x = 2^k (1 + f), and what that rounding lost.
    let (mut k, mut f, mut lost, mut mantissa) = (0.0, x, 0.0, 1);
    if x >= SQRT_2_LESS_1 {
        let u = if x < TWO_53 { 1.0 + x } else { x };
        let mut exponent = (u.to_bits() >> 52) as i32 - 1023;
        if x < TWO_53 {
            lost = if exponent > 0 { 1.0 - (u - x) } else { x - (u - 1.0) } / u;
        }
        mantissa = u.to_bits() & !(0xfff << 52);
        let scaled = if mantissa < SQRT_2_MANTISSA {
            f64::from_bits(mantissa | 1023 << 52)
        } else {
            exponent += 1;
            let scaled = f64::from_bits(mantissa | 1022 << 52);
            mantissa = ((1 << 52) - mantissa) >> 2;
            scaled
        };
        (k, f) = (f64::from(exponent), scaled - 1.0);
    }
    let half_square = 0.5 * f * f;
    if mantissa == 0 {
        if f == 0.0 {
            return k * LN2_HIGH + (lost + k * LN2_LOW);
        }
        let r = half_square * (1.0 - 0.666_666_666_666_666_6 * f);
        return k * LN2_HIGH - ((r - (k * LN2_LOW + lost)) - f);
    }
    let s = f / (2.0 + f);
    let z = s * s;
    let r = z
        * (LN_SERIES[0]
            + z * (LN_SERIES[1]
                + z * (LN_SERIES[2]
                    + z * (LN_SERIES[3] + z * (LN_SERIES[4] + z * (LN_SERIES[5] + z * LN_SERIES[6]))))));
    if k == 0.0 {
        return f - (half_square - s * (half_square + r));
    }
    k * LN2_HIGH - ((half_square - (s * (half_square + r) + (k * LN2_LOW + lost))) - f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_values() {
        assert!([sinh, tanh, asinh, atanh].iter().all(|f| f(-0.0).to_bits() == (-0.0_f64).to_bits()));
        assert!([sinh, cosh, tanh, asinh, acosh, atanh].iter().all(|f| f(f64::NAN).is_nan()));
        assert_eq!(
            [sinh(710.0), cosh(-710.0), sinh(-710.0)],
            [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY]
        );
        assert_eq!([atanh(1.0), atanh(-1.0), acosh(1.0)], [f64::INFINITY, f64::NEG_INFINITY, 0.0]);
        assert!(acosh(0.5).is_nan() && atanh(2.0).is_nan());
        // Twice the greatest float would be too much.
        assert_eq!([acosh(f64::MAX), asinh(-f64::MAX)], [710.475_860_073_943_9, -710.475_860_073_943_9]);
    }

    #[test]
    fn close_to_the_true_values() {
        let mut seed = 11_u64;
        for i in 0..20_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (seed >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0;
            let v = unit * 2_f64.powi(i as i32 % 60 - 30);
            let close = |a: f64, b: f64| a == b || (a - b).abs() <= 2e-15 * a.abs().max(b.abs());
            let small = v % 700.0;
            assert!(close(sinh(small), small.sinh()) && close(cosh(small), small.cosh()), "{small}");
            assert!(close(tanh(v), v.tanh()) && close(ln_1p(v.abs()), v.abs().ln_1p()), "{v}");
            assert!((sinh(asinh(small)) / small - 1.0).abs() < 1e-12, "asinh {small}");
            assert!(
                (cosh(acosh(1.0 + v.abs() % 700.0)) / (1.0 + v.abs() % 700.0) - 1.0).abs() < 1e-12,
                "{v}"
            );
            assert!((tanh(atanh(unit)) / unit - 1.0).abs() < 1e-12, "atanh {unit}");
        }
    }
}
