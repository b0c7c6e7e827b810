//! Functions and operators of single numbers.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#abs> and the sections of the functions named
//! here; <https://prometheus.io/docs/prometheus/latest/querying/operators/#binary-operators>.

use std::f64::consts::PI;

use super::{elementary, hyperbolic, trigonometry};
use crate::parser::ast::BinaryOp;

/// The value of an operator between two scalars; `None` for operators that scalars do not have.
pub(crate) fn scalar_binary(op: BinaryOp, l: f64, r: f64) -> Option<f64> {
    if let Some(v) = arithmetic(op, l, r) {
        return Some(v);
    }
    compare(op, l, r).map(f64::from)
}

/// Arithmetic operators.
#[inline]
pub(crate) fn arithmetic(op: BinaryOp, l: f64, r: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => elementary::pow(l, r),
        BinaryOp::Atan2 => trigonometry::atan2(l, r),
        _ => return None,
    })
}

/// Comparison operators.
#[inline]
pub(crate) fn compare(op: BinaryOp, l: f64, r: f64) -> Option<bool> {
    Some(match op {
        BinaryOp::Eq => l == r,
        BinaryOp::NotEq => l != r,
        BinaryOp::Less => l < r,
        BinaryOp::LessEq => l <= r,
        BinaryOp::Greater => l > r,
        BinaryOp::GreaterEq => l >= r,
        _ => return None,
    })
}

/// Whether the result is something else than a sample of the left side.
pub(crate) fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

/// A function of one number, by name.
pub(crate) fn unary(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => elementary::ln,
        "log2" => elementary::log2,
        "log10" => elementary::log10,
        "sin" => trigonometry::sin,
        "cos" => trigonometry::cos,
        "tan" => trigonometry::tan,
        "asin" => trigonometry::asin,
        "acos" => trigonometry::acos,
        "atan" => trigonometry::atan,
        "sinh" => hyperbolic::sinh,
        "cosh" => hyperbolic::cosh,
        "tanh" => hyperbolic::tanh,
        "asinh" => hyperbolic::asinh,
        "acosh" => hyperbolic::acosh,
        "atanh" => hyperbolic::atanh,
        "rad" => |v| v * PI / 180.0,
        "deg" => |v| v * 180.0 / PI,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    })
}

/// Go's `math.Max`: NaN wins, and of two zeros the positive one.
#[inline]
pub(crate) fn max(a: f64, b: f64) -> f64 {
    if a.is_infinite() && a > 0.0 || b.is_infinite() && b > 0.0 {
        return f64::INFINITY;
    }
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        // Rust leaves open which one it is.
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

/// Go's `math.Min`: NaN wins, and of two zeros the negative one.
#[inline]
pub(crate) fn min(a: f64, b: f64) -> f64 {
    if a.is_infinite() && a < 0.0 || b.is_infinite() && b < 0.0 {
        return f64::NEG_INFINITY;
    }
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { a } else { b }
    } else {
        a.min(b)
    }
}

/// `clamp`; `None` when the bounds are the wrong way round.
#[inline]
pub(crate) fn clamp(v: f64, low: f64, high: f64) -> Option<f64> {
    if high < low { None } else { Some(max(low, min(high, v))) }
}

/// `round` to a multiple; halves go up. Works with the inverse, which loses less.
#[inline]
pub(crate) fn round(v: f64, to_nearest: f64) -> f64 {
    let inverse = 1.0 / to_nearest;
    (v * inverse + 0.5).floor() / inverse
}
