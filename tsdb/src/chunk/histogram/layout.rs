//! What all histograms of a chunk share, and how it is written. Spec: docs/formats/chunk.md#histograms.

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

use super::super::bits::{BitReader, BitWriter};

/// Custom bounds up to this, in thousandths, are written as whole numbers.
const BOUND_MAX: f64 = 33_554_430.0;

/// Schema, zero threshold, places of the buckets, custom bounds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LayoutRef<'a> {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    /// Positive, then negative.
    pub(super) spans: [&'a [Span]; 2],
    pub(super) custom_values: &'a [f64],
}

/// A layout of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    /// Positive, then negative.
    pub(super) spans: [Vec<Span>; 2],
    pub(super) custom_values: Vec<f64>,
}

/// Number of buckets of spans.
pub(super) fn bucket_count(spans: &[Span]) -> u64 {
    spans.iter().map(|s| u64::from(s.length)).sum()
}

impl LayoutRef<'_> {
    pub(super) fn put(&self, out: &mut BitWriter) {
        put_zero_threshold(out, self.zero_threshold);
        out.put_varbit_int(i64::from(self.schema));
        for spans in self.spans {
            out.put_varbit_uint(spans.len() as u64);
            for s in spans {
                out.put_varbit_uint(u64::from(s.length));
                out.put_varbit_int(i64::from(s.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            out.put_varbit_uint(self.custom_values.len() as u64);
            self.custom_values.iter().for_each(|v| put_bound(out, *v));
        }
    }

    pub(super) fn to_owned(self) -> Layout {
        Layout {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            spans: self.spans.map(<[Span]>::to_vec),
            custom_values: self.custom_values.to_vec(),
        }
    }
}

impl Layout {
    pub(super) fn get(r: &mut BitReader<'_>) -> Option<Self> {
        let mut layout = Self {
            zero_threshold: get_zero_threshold(r)?,
            schema: r.varbit_int()?.try_into().ok()?,
            spans: [get_spans(r)?, get_spans(r)?],
            custom_values: Vec::new(),
        };
        if layout.schema == CUSTOM_BUCKETS_SCHEMA {
            let n = get_count(r)?;
            layout.custom_values = (0..n).map(|_| get_bound(r)).collect::<Option<_>>()?;
        }
        // Each bucket takes at least a bit of the first sample.
        (layout.buckets() <= r.bits_left() as u64).then_some(layout)
    }

    pub(super) fn as_ref(&self) -> LayoutRef<'_> {
        let [positive, negative] = &self.spans;
        LayoutRef {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            spans: [positive, negative],
            custom_values: &self.custom_values,
        }
    }

    pub(super) fn buckets(&self) -> u64 {
        bucket_count(&self.spans[0]).saturating_add(bucket_count(&self.spans[1]))
    }

    pub(super) fn positive_buckets(&self) -> usize {
        bucket_count(&self.spans[0]) as usize
    }
}

/// A count of things that take at least a bit each.
fn get_count(r: &mut BitReader<'_>) -> Option<usize> {
    let n = usize::try_from(r.varbit_uint()?).ok()?;
    (n <= r.bits_left()).then_some(n)
}

fn get_spans(r: &mut BitReader<'_>) -> Option<Vec<Span>> {
    let n = get_count(r)?;
    let one = |_| {
        Some(Span { length: r.varbit_uint()?.try_into().ok()?, offset: r.varbit_int()?.try_into().ok()? })
    };
    (0..n).map(one).collect()
}

/// Powers of two from 2^-243 to 2^10 take one byte, which is their exponent plus 244.
fn put_zero_threshold(out: &mut BitWriter, v: f64) {
    let bits = v.to_bits();
    // For a normal, positive power of two only the exponent is set.
    let exponent = (bits >> 52) as i64 - 1023;
    if v == 0.0 {
        out.put(0, 8);
    } else if v > 0.0 && bits << 12 == 0 && (-243..=10).contains(&exponent) {
        out.put((exponent + 244) as u64, 8);
    } else {
        out.put(255, 8);
        out.put(bits, 64);
    }
}

fn get_zero_threshold(r: &mut BitReader<'_>) -> Option<f64> {
    match r.get(8)? {
        0 => Some(0.0),
        255 => r.f64(),
        byte => Some(f64::from_bits((byte + 1023 - 244) << 52)),
    }
}

fn put_bound(out: &mut BitWriter, v: f64) {
    let thousandths = (v * 1000.0).round();
    if (0.0..=BOUND_MAX).contains(&(v * 1000.0))
        && thousandths / 1000.0 == v
        && v.to_bits() != (-0.0_f64).to_bits()
    {
        out.put_varbit_uint(thousandths as u64 + 1);
    } else {
        out.put(0, 1);
        out.put(v.to_bits(), 64);
    }
}

fn get_bound(r: &mut BitReader<'_>) -> Option<f64> {
    match r.varbit_uint()? {
        0 => r.f64(),
        n => Some((n - 1) as f64 / 1000.0),
    }
}
