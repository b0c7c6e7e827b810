//! The two kinds of histograms, integer and float: how their numbers are written against those of the sample before.

use std::borrow::Cow;
use std::sync::Arc;

use model::histogram::{CounterResetHint, Span};
use model::{ChunkEncoding, FloatHistogram, Histogram, HistogramValue};

use super::super::bits::{BitReader, BitWriter, XorColumn};
use super::layout::LayoutRef;

/// A kind of histogram.
pub(super) trait Kind: Sized {
    const ENCODING: ChunkEncoding;
    /// The same with start timestamps.
    const STARTED_ENCODING: ChunkEncoding;
    const WHAT: &'static str;
    /// Whether a new chunk tells of a reset only, not of other reasons. (Prometheus does so for floats.)
    const TELLS_RESETS_ONLY: bool;
    /// Count, zero count or bucket as the histogram has it.
    type Number: Copy + Default;
    /// What must be remembered of one.
    type Column: Copy + Default;

    fn put_first(out: &mut BitWriter, v: Self::Number, signed: bool) -> Self::Column;
    fn get_first(r: &mut BitReader<'_>, signed: bool) -> Option<(Self::Column, Self::Number)>;
    fn put(out: &mut BitWriter, column: &mut Self::Column, v: Self::Number);
    fn get(r: &mut BitReader<'_>, column: &mut Self::Column) -> Option<Self::Number>;
    /// For a stale marker, where the number means nothing.
    fn put_stale(out: &mut BitWriter, column: &mut Self::Column);
    /// The number last written.
    fn newest(column: &Self::Column) -> Self::Number;
    /// Whether a count is lower than it was.
    fn falls(before: Self::Number, after: Self::Number) -> bool;
    /// What is in the bucket with this number, when the one before it has `before`.
    fn in_bucket(before: Self::Number, number: Self::Number) -> Self::Number;
    /// The number of a bucket with `v` in it, when the one before it has `before`.
    fn of_bucket(before: Self::Number, v: Self::Number) -> Self::Number;
    /// Whether a bucket with `before` in it may go on with `after`.
    fn bucket_falls(before: Self::Number, after: Self::Number) -> bool;
    fn is_zero(v: Self::Number) -> bool;
    /// The histogram taken apart; `None` when it is of the other kind.
    fn parts(h: &HistogramValue) -> Option<Parts<'_, Self>>;
    fn build(layout: LayoutRef<'_>, hint: CounterResetHint, n: Numbers<'_, Self>) -> HistogramValue;
}

/// The numbers of a sample.
pub(super) struct Numbers<'a, K: Kind> {
    pub(super) count: K::Number,
    pub(super) zero_count: K::Number,
    pub(super) sum: f64,
    /// Positive, then negative.
    pub(super) buckets: [&'a [K::Number]; 2],
}

/// A histogram taken apart.
pub(super) struct Parts<'a, K: Kind> {
    pub(super) layout: LayoutRef<'a>,
    pub(super) hint: CounterResetHint,
    pub(super) count: K::Number,
    pub(super) zero_count: K::Number,
    pub(super) sum: f64,
    /// Positive, then negative.
    pub(super) buckets: [Cow<'a, [K::Number]>; 2],
}

fn layout<'a>(
    schema: i32,
    zero_threshold: f64,
    positive: &'a [Span],
    negative: &'a [Span],
    custom_values: &'a [f64],
) -> LayoutRef<'a> {
    LayoutRef { schema, zero_threshold, spans: [positive, negative], custom_values }
}

/// An integer and its last difference.
#[derive(Clone, Copy, Default)]
pub(crate) struct IntColumn {
    value: i64,
    delta: i64,
}

/// Integer histograms: differences of differences. Counts are unsigned but wrap like signed numbers; the number of a bucket
/// is what it has more than the one before it.
pub(crate) struct IntHistograms;

impl Kind for IntHistograms {
    const ENCODING: ChunkEncoding = ChunkEncoding::HISTOGRAM;
    const STARTED_ENCODING: ChunkEncoding = ChunkEncoding::HISTOGRAM_ST;
    const WHAT: &'static str = "histogram chunk";
    const TELLS_RESETS_ONLY: bool = false;
    type Number = i64;
    type Column = IntColumn;

    fn put_first(out: &mut BitWriter, v: i64, signed: bool) -> IntColumn {
        if signed {
            out.put_varbit_int(v)
        } else {
            out.put_varbit_uint(v as u64)
        }
        IntColumn { value: v, delta: 0 }
    }

    fn get_first(r: &mut BitReader<'_>, signed: bool) -> Option<(IntColumn, i64)> {
        let value = if signed { r.varbit_int()? } else { r.varbit_uint()? as i64 };
        Some((IntColumn { value, delta: 0 }, value))
    }

    fn put(out: &mut BitWriter, c: &mut IntColumn, v: i64) {
        let delta = v.wrapping_sub(c.value);
        out.put_varbit_int(delta.wrapping_sub(c.delta));
        *c = IntColumn { value: v, delta };
    }

    fn get(r: &mut BitReader<'_>, c: &mut IntColumn) -> Option<i64> {
        c.delta = c.delta.wrapping_add(r.varbit_int()?);
        c.value = c.value.wrapping_add(c.delta);
        Some(c.value)
    }

    fn put_stale(out: &mut BitWriter, _column: &mut IntColumn) {
        out.put_varbit_int(0);
    }

    fn newest(c: &IntColumn) -> i64 {
        c.value
    }

    fn falls(before: i64, after: i64) -> bool {
        (after as u64) < before as u64
    }

    fn in_bucket(before: i64, number: i64) -> i64 {
        before.wrapping_add(number)
    }

    fn of_bucket(before: i64, v: i64) -> i64 {
        v.wrapping_sub(before)
    }

    fn bucket_falls(before: i64, after: i64) -> bool {
        after < before
    }

    fn is_zero(v: i64) -> bool {
        v == 0
    }

    fn parts(h: &HistogramValue) -> Option<Parts<'_, Self>> {
        let HistogramValue::Int(h) = h else { return None };
        Some(Parts {
            layout: layout(
                h.schema,
                h.zero_threshold,
                &h.positive_spans,
                &h.negative_spans,
                &h.custom_values,
            ),
            hint: h.counter_reset_hint,
            count: h.count as i64,
            zero_count: h.zero_count as i64,
            sum: h.sum,
            buckets: [Cow::Borrowed(&h.positive_buckets), Cow::Borrowed(&h.negative_buckets)],
        })
    }

    fn build(
        layout: LayoutRef<'_>,
        counter_reset_hint: CounterResetHint,
        n: Numbers<'_, Self>,
    ) -> HistogramValue {
        HistogramValue::Int(Arc::new(Histogram {
            counter_reset_hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: n.zero_count as u64,
            count: n.count as u64,
            sum: n.sum,
            positive_spans: layout.spans[0].to_vec(),
            positive_buckets: n.buckets[0].to_vec(),
            negative_spans: layout.spans[1].to_vec(),
            negative_buckets: n.buckets[1].to_vec(),
            custom_values: layout.custom_values.to_vec(),
        }))
    }
}

/// Float histograms: XOR, each number in its own column.
pub(crate) struct FloatHistograms;

impl Kind for FloatHistograms {
    const ENCODING: ChunkEncoding = ChunkEncoding::FLOAT_HISTOGRAM;
    const STARTED_ENCODING: ChunkEncoding = ChunkEncoding::FLOAT_HISTOGRAM_ST;
    const WHAT: &'static str = "float histogram chunk";
    const TELLS_RESETS_ONLY: bool = true;
    type Number = f64;
    type Column = XorColumn;

    fn put_first(out: &mut BitWriter, v: f64, _signed: bool) -> XorColumn {
        out.put(v.to_bits(), 64);
        XorColumn::new(v)
    }

    fn get_first(r: &mut BitReader<'_>, _signed: bool) -> Option<(XorColumn, f64)> {
        let v = r.f64()?;
        Some((XorColumn::new(v), v))
    }

    fn put(out: &mut BitWriter, c: &mut XorColumn, v: f64) {
        c.put(out, v.to_bits());
    }

    fn get(r: &mut BitReader<'_>, c: &mut XorColumn) -> Option<f64> {
        c.get(r)
    }

    fn put_stale(out: &mut BitWriter, c: &mut XorColumn) {
        c.put(out, 0);
    }

    fn newest(c: &XorColumn) -> f64 {
        f64::from_bits(c.value_bits)
    }

    fn falls(before: f64, after: f64) -> bool {
        after < before
    }

    fn in_bucket(_before: f64, number: f64) -> f64 {
        number
    }

    fn of_bucket(_before: f64, v: f64) -> f64 {
        v
    }

    fn bucket_falls(before: f64, after: f64) -> bool {
        after < before
    }

    fn is_zero(v: f64) -> bool {
        v == 0.0
    }

    fn parts(h: &HistogramValue) -> Option<Parts<'_, Self>> {
        let HistogramValue::Float(h) = h else { return None };
        Some(Parts {
            layout: layout(
                h.schema,
                h.zero_threshold,
                &h.positive_spans,
                &h.negative_spans,
                &h.custom_values,
            ),
            hint: h.counter_reset_hint,
            count: h.count,
            zero_count: h.zero_count,
            sum: h.sum,
            buckets: [Cow::Borrowed(&h.positive_buckets), Cow::Borrowed(&h.negative_buckets)],
        })
    }

    fn build(
        layout: LayoutRef<'_>,
        counter_reset_hint: CounterResetHint,
        n: Numbers<'_, Self>,
    ) -> HistogramValue {
        HistogramValue::Float(Arc::new(FloatHistogram {
            counter_reset_hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: n.zero_count,
            count: n.count,
            sum: n.sum,
            positive_spans: layout.spans[0].to_vec(),
            positive_buckets: n.buckets[0].to_vec(),
            negative_spans: layout.spans[1].to_vec(),
            negative_buckets: n.buckets[1].to_vec(),
            custom_values: layout.custom_values.to_vec(),
        }))
    }
}
