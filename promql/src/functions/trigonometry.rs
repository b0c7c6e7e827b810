//! Sine, cosine, tangent and their inverses, computed in the steps in which Prometheus's runtime computes them: its last
//! digit shows where a value becomes a label (`count_values`), and magnified in `%` and beside poles.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#trigonometric-functions>; the method is that of
//! the Cephes library, and for large angles that of Payne and Hanek.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

/// From here on, an angle is reduced with all digits of 4/π that matter.
const LARGE: f64 = 536_870_912.0;

/// An angle as a multiple of π/4, made even, and what is left of it.
fn reduce(x: f64) -> (u64, f64) {
    // π/4 in three parts, so that the first products are exact.
    const A: f64 = f64::from_bits(0x3fe9_21fb_4000_0000);
    const B: f64 = f64::from_bits(0x3e64_442d_0000_0000);
    const C: f64 = f64::from_bits(0x3ce8_4698_98cc_5170);
    if x >= LARGE {
        return reduce_large(x);
    }
    let mut octant = (x * (4.0 / PI)) as u64;
    let mut y = octant as f64;
    if octant & 1 == 1 {
        octant += 1;
        y += 1.0;
    }
    (octant & 7, ((x - y * A) - y * B) - y * C)
}

/// The binary digits of 4/π.
const FOUR_OVER_PI: [u64; 20] = [
    0x0000_0000_0000_0001,
    0x45f3_06dc_9c88_2a53,
    0xf84e_afa3_ea69_bb81,
    0xb6c5_2b32_7887_2083,
    0xfca2_c757_bd77_8ac3,
    0x6e48_dc74_849b_a5c0,
    0x0c92_5dd4_13a3_2439,
    0xfc3b_d639_6253_4e7d,
    0xd104_6bea_5d76_8909,
    0xd338_e04d_68be_fc82,
    0x7323_ac73_06a6_73e9,
    0x3908_bf17_7bf2_5076,
    0x3ff1_2fff_bc0b_301f,
    0xde5e_2316_b414_da3e,
    0xda6c_fd9e_4f96_136e,
    0x9e8c_7ecd_3cbf_d45a,
    0xea4f_758f_d7cb_e2f6,
    0x7a0e_73ef_14a5_25d4,
    0xd7f6_bf62_3f1a_ba10,
    0xac06_608d_f8f6_d757,
];

/// Like [`reduce`]. Only those digits of 4/π matter whose product with the mantissa lies around the binary point.
fn reduce_large(x: f64) -> (u64, f64) {
    let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023 - 52;
    let mantissa = x.to_bits() & !(0x7ff << 52) | 1 << 52;
    let (digit, shift) = ((exponent + 61) as usize / 64, (exponent + 61) as u32 % 64);
    let part = |i: usize| {
        let two = u128::from(FOUR_OVER_PI[digit + i]) << 64 | u128::from(FOUR_OVER_PI[digit + i + 1]);
        (two << shift >> 64) as u64
    };
    let product = |i: usize| u128::from(part(i)) * u128::from(mantissa);
    let (low, carry) = (product(1) as u64).overflowing_add((product(2) >> 64) as u64);
    let high =
        part(0).wrapping_mul(mantissa).wrapping_add((product(1) >> 64) as u64).wrapping_add(u64::from(carry));
    let octant = high >> 61;
    let fraction = high << 3 | low >> 61;
    // The leading one is implied in a float.
    let zeros = fraction.leading_zeros() + 1;
    let digits = fraction.checked_shl(zeros).unwrap_or(0) | low.checked_shr(64 - zeros).unwrap_or(0);
    let z = f64::from_bits(digits >> 12 | u64::from(1023 - zeros) << 52);
    if octant & 1 == 1 { ((octant + 1) & 7, (z - 1.0) * FRAC_PI_4) } else { (octant, z * FRAC_PI_4) }
}

/// Near zero.
fn sine_series(z: f64) -> f64 {
    const S: [f64; 6] = [
        1.589_623_015_765_465_7e-10,
        -2.505_074_776_285_780_7e-8,
        2.755_731_362_138_572_2e-6,
        -1.984_126_982_958_954e-4,
        8.333_333_333_322_118e-3,
        -1.666_666_666_666_663e-1,
    ];
    let zz = z * z;
    z + z * zz * (((((S[0] * zz + S[1]) * zz + S[2]) * zz + S[3]) * zz + S[4]) * zz + S[5])
}

/// Near zero.
fn cosine_series(z: f64) -> f64 {
    const C: [f64; 6] = [
        -1.135_853_652_138_768_2e-11,
        2.087_570_084_197_473e-9,
        -2.755_731_417_929_674e-7,
        2.480_158_728_885_170_4e-5,
        -1.388_888_888_887_305_6e-3,
        4.166_666_666_666_659_5e-2,
    ];
    let zz = z * z;
    1.0 - 0.5 * zz + zz * zz * (((((C[0] * zz + C[1]) * zz + C[2]) * zz + C[3]) * zz + C[4]) * zz + C[5])
}

pub(crate) fn sin(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return if x.is_infinite() { f64::NAN } else { x };
    }
    let (octant, z) = reduce(x.abs());
    let y = if matches!(octant & 3, 1 | 2) { cosine_series(z) } else { sine_series(z) };
    if (octant > 3) != (x < 0.0) { -y } else { y }
}

pub(crate) fn cos(x: f64) -> f64 {
    if !x.is_finite() {
        return f64::NAN;
    }
    let (octant, z) = reduce(x.abs());
    let y = if matches!(octant & 3, 1 | 2) { sine_series(z) } else { cosine_series(z) };
    if (octant > 3) != (octant & 3 > 1) { -y } else { y }
}

pub(crate) fn tan(x: f64) -> f64 {
    const P: [f64; 3] = [-1.309_369_391_813_837_9e4, 1.153_516_648_385_874_2e6, -1.795_652_519_764_848_8e7];
    const Q: [f64; 4] = [
        1.368_129_634_706_929_5e4,
        -1.320_892_344_402_109_7e6,
        2.500_838_018_233_579e7,
        -5.386_957_559_294_546_4e7,
    ];
    if x == 0.0 || !x.is_finite() {
        return if x.is_infinite() { f64::NAN } else { x };
    }
    let (octant, z) = reduce(x.abs());
    let zz = z * z;
    let mut y = z;
    if zz > 1e-14 {
        let (p, q) = ((P[0] * zz + P[1]) * zz + P[2], (((zz + Q[0]) * zz + Q[1]) * zz + Q[2]) * zz + Q[3]);
        y = z + z * (zz * p / q);
    }
    if octant & 2 == 2 {
        y = -1.0 / y;
    }
    if x < 0.0 { -y } else { y }
}

/// The arcus tangent within 0 and 0.66.
fn atan_series(x: f64) -> f64 {
    const P: [f64; 5] = [
        -8.750_608_600_031_904e-1,
        -1.615_753_718_733_365_2e1,
        -7.500_855_792_314_705e1,
        -1.228_866_684_490_136_1e2,
        -6.485_021_904_942_025e1,
    ];
    const Q: [f64; 5] = [
        2.485_846_490_142_306_3e1,
        1.650_270_098_316_988_6e2,
        4.328_810_604_912_902_5e2,
        4.853_903_996_359_137e2,
        1.945_506_571_482_614e2,
    ];
    let z = x * x;
    let p = (((P[0] * z + P[1]) * z + P[2]) * z + P[3]) * z + P[4];
    let q = ((((z + Q[0]) * z + Q[1]) * z + Q[2]) * z + Q[3]) * z + Q[4];
    x * (z * p / q) + x
}

/// The arcus tangent of a positive number.
fn atan_positive(x: f64) -> f64 {
    /// What π/2 has beyond the digits of a float.
    const MORE: f64 = 6.123_233_995_736_766e-17;
    /// tan(3π/8)
    const TAN_3_PI_8: f64 = 2.414_213_562_373_095;
    if x <= 0.66 {
        return atan_series(x);
    }
    if x > TAN_3_PI_8 {
        return FRAC_PI_2 - atan_series(1.0 / x) + MORE;
    }
    FRAC_PI_4 + atan_series((x - 1.0) / (x + 1.0)) + 0.5 * MORE
}

pub(crate) fn atan(x: f64) -> f64 {
    if x == 0.0 {
        x
    } else if x > 0.0 {
        atan_positive(x)
    } else {
        -atan_positive(-x)
    }
}

pub(crate) fn asin(x: f64) -> f64 {
    if x == 0.0 {
        return x;
    }
    let v = x.abs();
    if v > 1.0 {
        return f64::NAN;
    }
    let other = (1.0 - v * v).sqrt();
    let angle = if v > 0.7 { FRAC_PI_2 - atan_positive(other / v) } else { atan_positive(v / other) };
    if x < 0.0 { -angle } else { angle }
}

pub(crate) fn acos(x: f64) -> f64 {
    FRAC_PI_2 - asin(x)
}

pub(crate) fn atan2(y: f64, x: f64) -> f64 {
    if x == 0.0 || y == 0.0 || !x.is_finite() || !y.is_finite() {
        return y.atan2(x);
    }
    let angle = atan(y / x);
    if x >= 0.0 {
        angle
    } else if angle <= 0.0 {
        angle + PI
    } else {
        angle - PI
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_values() {
        assert!([sin, cos, tan].iter().all(|f| f(f64::INFINITY).is_nan() && f(f64::NAN).is_nan()));
        assert!(asin(1.5).is_nan() && acos(-1.5).is_nan() && atan(f64::NAN).is_nan());
        assert!([sin, tan, atan, asin].iter().all(|f| f(-0.0).to_bits() == (-0.0_f64).to_bits()));
        assert_eq!((asin(1.0), acos(1.0), atan(f64::NEG_INFINITY)), (FRAC_PI_2, 0.0, -FRAC_PI_2));
        assert_eq!((atan2(-1.0, 0.0), atan2(0.0, -1.0), atan2(1.0, -1.0)), (-FRAC_PI_2, PI, 3.0 * FRAC_PI_4));
    }

    #[test]
    fn close_to_the_true_values() {
        let mut seed = 5_u64;
        for i in 0..20_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (seed >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0;
            let v = unit * 2_f64.powi(i as i32 % 1_040 - 20);
            let close = |a: f64, b: f64| (a - b).abs() <= 4e-16 * a.abs().max(b.abs()).max(1.0);
            assert!(close(sin(v), v.sin()) && close(cos(v), v.cos()), "{v:e}: {} {}", sin(v), v.sin());
            assert!((tan(v) / v.tan() - 1.0).abs() < 1e-9 || v.abs() < 1e-300, "tan {v:e}");
            assert!(close(atan(v), v.atan()) && close(atan2(unit, v), unit.atan2(v)), "{v:e} {unit}");
            // Near 1, the root loses digits.
            assert!(
                (asin(unit) - unit.asin()).abs() < 1e-13 && (acos(unit) - unit.acos()).abs() < 1e-13,
                "{unit}"
            );
        }
    }
}
