//! Columns of float values: constant, decimals as integers, pco on floats, or plain bits, with a list of exceptions.
//!
//! Most metrics are short decimals: `m / 10^e` with an integer `m` reproduces them bit for bit, because one IEEE
//! division rounds to the float nearest to the decimal, as parsing its text does. What no mode can hold (the stale
//! marker, other NaNs, infinities, −0.0) is an exception. Spec: docs/formats/longterm.md#sealed-chunk.

use std::cell::RefCell;

use model::StorageError;

use super::ints::{pco_bytes, put_prefixed_ints, read_ints, read_pco};
use super::varint::{Reader, put_f64, put_varint};

const CONSTANT: u8 = 0;
const DECIMAL: u8 = 1;
const PCO: u8 = 2;
const BITS: u8 = 3;
const WITH_EXCEPTIONS: u8 = 0x80;

/// Powers that a float holds exactly.
const POW10: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
/// Largest integer up to which floats hold all integers.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

thread_local! {
    /// Integers of the column being decoded, so that decoding allocates nothing of its own.
    static INTS: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// Writes a column that is not empty.
pub(super) fn put_values(out: &mut Vec<u8>, values: &[f64]) {
    let first = values[0].to_bits();
    if values.iter().all(|v| v.to_bits() == first) {
        out.push(CONSTANT);
        put_f64(out, values[0]);
        return;
    }
    let from = out.len();
    if !put_decimal(out, values) && !put_pco(out, values) {
        put_bits(out, values);
    }
    if out.len() - from > 1 + 8 * values.len() {
        out.truncate(from);
        put_bits(out, values);
    }
}

fn put_bits(out: &mut Vec<u8>, values: &[f64]) {
    out.push(BITS);
    values.iter().for_each(|v| put_f64(out, *v));
}

/// The integer of a value at exponent `e`, when it reproduces the value.
#[inline]
pub(super) fn decimal(v: f64, e: usize) -> Option<i64> {
    let scaled = (v * POW10[e]).round();
    if scaled.abs() > MAX_EXACT || scaled.is_nan() {
        return None;
    }
    // Through the integer, as reading does it: -0.0 does not survive that.
    let m = scaled as i64;
    (m as f64 / POW10[e]).to_bits().eq(&v.to_bits()).then_some(m)
}

/// The value that [`decimal`] gave an integer for.
#[inline]
pub(super) fn from_decimal(m: i64, e: usize) -> f64 {
    if e == 0 { m as f64 } else { m as f64 / POW10[e] }
}

/// The smallest exponent from `e` on that reproduces a value.
#[inline]
pub(super) fn smallest_exponent(v: f64, e: usize) -> Option<usize> {
    if !v.is_finite() {
        return None;
    }
    (e..POW10.len()).find(|e| decimal(v, *e).is_some())
}

/// The exponent that reproduces all of a few values spread over the column, looking at values that have one.
fn exponent(values: &[f64]) -> usize {
    const PROBES: usize = 24;
    let stride = values.len().div_ceil(PROBES);
    let mut e = 0;
    for v in values.iter().step_by(stride).filter(|v| v.is_finite()) {
        if let Some(found) = (e..POW10.len()).find(|e| decimal(*v, *e).is_some()) {
            e = found;
        }
    }
    e
}

/// Writes the column as decimals, unless too many values are none. Nothing is written then.
fn put_decimal(out: &mut Vec<u8>, values: &[f64]) -> bool {
    let e = exponent(values);
    let allowed = values.len() / 16 + 2;
    let mut ints = Vec::with_capacity(values.len());
    let mut exceptions = Vec::new();
    let mut last = 0;
    for (i, v) in values.iter().enumerate() {
        if let Some(m) = decimal(*v, e) {
            last = m;
        } else {
            exceptions.push(i);
            if exceptions.len() > allowed {
                return false;
            }
        }
        ints.push(last);
    }
    // An exception at the very begin would otherwise make a step from 0 to the first value.
    if exceptions.first() == Some(&0)
        && let Some(good) = (0..values.len()).find(|i| !exceptions.contains(i))
    {
        let m = ints[good];
        ints[..good].fill(m);
    }
    out.push(DECIMAL | if exceptions.is_empty() { 0 } else { WITH_EXCEPTIONS });
    out.push(e as u8);
    put_prefixed_ints(out, &ints);
    put_exceptions(out, values, &exceptions);
    true
}

/// Writes the column by pco on floats, with everything that is not finite as exceptions, unless those are too many.
fn put_pco(out: &mut Vec<u8>, values: &[f64]) -> bool {
    let exceptions: Vec<usize> = (0..values.len()).filter(|i| !values[*i].is_finite()).collect();
    if exceptions.len() > values.len() / 4 {
        return false;
    }
    let mut numbers = values.to_vec();
    for i in &exceptions {
        numbers[*i] = if *i > 0 { numbers[*i - 1] } else { 0.0 };
    }
    let Some(bytes) = pco_bytes(&numbers) else { return false };
    let mut back: Vec<f64> = Vec::with_capacity(numbers.len());
    // pco promises to keep the bits; a store for years checks that before it drops the original.
    if read_pco(&bytes, numbers.len(), &mut back).is_err()
        || !back.iter().zip(&numbers).all(|(a, b)| a.to_bits() == b.to_bits())
    {
        return false;
    }
    out.push(PCO | if exceptions.is_empty() { 0 } else { WITH_EXCEPTIONS });
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
    put_exceptions(out, values, &exceptions);
    true
}

fn put_exceptions(out: &mut Vec<u8>, values: &[f64], exceptions: &[usize]) {
    if exceptions.is_empty() {
        return;
    }
    put_varint(out, exceptions.len() as u64);
    let mut last = 0;
    for i in exceptions {
        put_varint(out, (i - last) as u64);
        put_f64(out, values[*i]);
        last = *i;
    }
}

/// Appends the `n` values of a column to `out`.
pub(super) fn read_values(r: &mut Reader<'_>, n: usize, out: &mut Vec<f64>) -> Result<(), StorageError> {
    let at = out.len();
    let mode = r.u8()?;
    match mode & !WITH_EXCEPTIONS {
        CONSTANT => {
            let v = r.f64()?;
            out.resize(at + n, v);
        }
        DECIMAL => {
            let e = r.u8()? as usize;
            let Some(&scale) = POW10.get(e) else {
                return Err(r.error(format!("decimal exponent {e} is not known")));
            };
            let stream = r.prefixed()?;
            INTS.with_borrow_mut(|ints| {
                ints.clear();
                read_ints(stream, n, ints)?;
                if e == 0 {
                    out.extend(ints.iter().map(|m| *m as f64));
                } else {
                    out.extend(ints.iter().map(|m| *m as f64 / scale));
                }
                Ok::<_, StorageError>(())
            })?;
        }
        PCO => read_pco(r.prefixed()?, n, out)?,
        BITS => {
            for _ in 0..n {
                out.push(r.f64()?);
            }
        }
        other => return Err(r.error(format!("unknown kind of values {other}"))),
    }
    if mode & WITH_EXCEPTIONS != 0 {
        let mut i = 0_usize;
        for _ in 0..r.count(9)? {
            i = i.saturating_add(r.varint()? as usize);
            let v = r.f64()?;
            let Some(slot) = out[at..].get_mut(i) else {
                return Err(r.error("an exception lies outside the chunk"));
            };
            *slot = v;
        }
    }
    Ok(())
}
