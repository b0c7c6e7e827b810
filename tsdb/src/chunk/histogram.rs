//! Chunks of integer and float histograms. Spec: docs/formats/chunk.md#histograms.
//!
//! All samples of a chunk share one layout (schema, zero threshold, spans, custom bounds), and a counter does not fall within
//! a chunk, since readers take "no reset" for granted between its samples: [`HistogramAppender::takes`] tells when a
//! new chunk is needed. A stale marker keeps only its sum, and only stale markers follow it.
//!
//! Left out: widening the layout of a chunk that is being written. A histogram with new buckets begins a new chunk.

use std::sync::Arc;

use bytes::Bytes;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{
    ChunkCodec, ChunkEncoding, FloatHistogram, Histogram, HistogramValue, Sample, Samples, StorageError,
    is_stale_nan,
};

use super::bits::{BitReader, BitWriter, XorColumn};

pub(crate) static HISTOGRAM_CODEC: &dyn ChunkCodec = &IntHistograms;
pub(crate) static FLOAT_HISTOGRAM_CODEC: &dyn ChunkCodec = &FloatHistograms;

/// Sample count and flags.
const HEADER_LEN_BYTES: usize = 3;
const FLAG_COUNTER_RESET: u8 = 0b1000_0000;
const FLAG_GAUGE: u8 = 0b1100_0000;
const FLAG_MASK: u8 = 0b1100_0000;
/// Custom bounds up to this, in thousandths, are written as whole numbers.
const BOUND_MAX: f64 = 33_554_430.0;

// === Layout ===

/// What all samples of a chunk share.
#[derive(Clone, Debug, Default)]
struct Layout {
    schema: i32,
    zero_threshold: f64,
    positive_spans: Vec<Span>,
    negative_spans: Vec<Span>,
    custom_values: Vec<f64>,
}

fn bucket_count(spans: &[Span]) -> u64 {
    spans.iter().map(|s| u64::from(s.length)).sum()
}

impl Layout {
    fn put(&self, out: &mut BitWriter) {
        put_zero_threshold(out, self.zero_threshold);
        out.put_varbit_int(i64::from(self.schema));
        for spans in [&self.positive_spans, &self.negative_spans] {
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

    fn get(r: &mut BitReader<'_>) -> Option<Self> {
        let mut layout = Self {
            zero_threshold: get_zero_threshold(r)?,
            schema: r.varbit_int()?.try_into().ok()?,
            positive_spans: get_spans(r)?,
            negative_spans: get_spans(r)?,
            custom_values: Vec::new(),
        };
        if layout.schema == CUSTOM_BUCKETS_SCHEMA {
            let n = get_count(r)?;
            layout.custom_values = (0..n).map(|_| get_bound(r)).collect::<Option<_>>()?;
        }
        // Each bucket takes at least a bit of the first sample.
        (layout.buckets() <= r.bits_left() as u64).then_some(layout)
    }

    fn buckets(&self) -> u64 {
        bucket_count(&self.positive_spans).saturating_add(bucket_count(&self.negative_spans))
    }

    fn positive_buckets(&self) -> usize {
        bucket_count(&self.positive_spans) as usize
    }

    fn same(&self, o: &Layout) -> bool {
        let bounds = |l: &Layout| l.custom_values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        self.schema == o.schema
            && self.zero_threshold.to_bits() == o.zero_threshold.to_bits()
            && self.positive_spans == o.positive_spans
            && self.negative_spans == o.negative_spans
            && bounds(self) == bounds(o)
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

// === Numbers of one kind ===

/// How the numbers of a kind of histogram are written against those of the sample before.
trait Kind: Sized {
    const ENCODING: ChunkEncoding;
    const WHAT: &'static str;
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
    fn build(layout: &Layout, hint: CounterResetHint, n: Numbers<Self>) -> HistogramValue;
}

/// The numbers of a sample.
struct Numbers<K: Kind> {
    count: K::Number,
    zero_count: K::Number,
    sum: f64,
    /// Positive ones, then negative ones.
    buckets: Vec<K::Number>,
}

/// An integer and its last difference.
#[derive(Clone, Copy, Default)]
pub(crate) struct IntColumn {
    value: i64,
    delta: i64,
}

/// Integer histograms: differences of differences. Counts are unsigned but wrap like signed numbers.
pub(crate) struct IntHistograms;

impl Kind for IntHistograms {
    const ENCODING: ChunkEncoding = ChunkEncoding::HISTOGRAM;
    const WHAT: &'static str = "histogram chunk";
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

    fn build(layout: &Layout, counter_reset_hint: CounterResetHint, n: Numbers<Self>) -> HistogramValue {
        let (positive, negative) = n.buckets.split_at(layout.positive_buckets());
        HistogramValue::Int(Arc::new(Histogram {
            counter_reset_hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: n.zero_count as u64,
            count: n.count as u64,
            sum: n.sum,
            positive_spans: layout.positive_spans.clone(),
            positive_buckets: positive.to_vec(),
            negative_spans: layout.negative_spans.clone(),
            negative_buckets: negative.to_vec(),
            custom_values: layout.custom_values.clone(),
        }))
    }
}

/// Float histograms: XOR, each number in its own column.
pub(crate) struct FloatHistograms;

impl Kind for FloatHistograms {
    const ENCODING: ChunkEncoding = ChunkEncoding::FLOAT_HISTOGRAM;
    const WHAT: &'static str = "float histogram chunk";
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

    fn build(layout: &Layout, counter_reset_hint: CounterResetHint, n: Numbers<Self>) -> HistogramValue {
        let (positive, negative) = n.buckets.split_at(layout.positive_buckets());
        HistogramValue::Float(Arc::new(FloatHistogram {
            counter_reset_hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: n.zero_count,
            count: n.count,
            sum: n.sum,
            positive_spans: layout.positive_spans.clone(),
            positive_buckets: positive.to_vec(),
            negative_spans: layout.negative_spans.clone(),
            negative_buckets: negative.to_vec(),
            custom_values: layout.custom_values.clone(),
        }))
    }
}

/// A histogram taken apart.
struct Parts<'a, K: Kind> {
    layout: Layout,
    count: K::Number,
    zero_count: K::Number,
    sum: f64,
    buckets: [&'a [K::Number]; 2],
}

fn int_parts(h: &Histogram) -> Parts<'_, IntHistograms> {
    Parts {
        layout: Layout {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            positive_spans: h.positive_spans.clone(),
            negative_spans: h.negative_spans.clone(),
            custom_values: h.custom_values.clone(),
        },
        count: h.count as i64,
        zero_count: h.zero_count as i64,
        sum: h.sum,
        buckets: [&h.positive_buckets, &h.negative_buckets],
    }
}

fn float_parts(h: &FloatHistogram) -> Parts<'_, FloatHistograms> {
    Parts {
        layout: Layout {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            positive_spans: h.positive_spans.clone(),
            negative_spans: h.negative_spans.clone(),
            custom_values: h.custom_values.clone(),
        },
        count: h.count,
        zero_count: h.zero_count,
        sum: h.sum,
        buckets: [&h.positive_buckets, &h.negative_buckets],
    }
}

// === Writing ===

/// Writes a chunk of histograms of one kind.
struct Appender<K: Kind> {
    out: BitWriter,
    count: u16,
    layout: Layout,
    time: IntColumn,
    counts: [K::Column; 2],
    sum: XorColumn,
    buckets: Vec<K::Column>,
}

impl<K: Kind> Appender<K> {
    fn new(flags: u8) -> Self {
        Self {
            out: BitWriter::new(&[0, 0, flags]),
            count: 0,
            layout: Layout::default(),
            time: IntColumn::default(),
            counts: Default::default(),
            sum: XorColumn::default(),
            buckets: Vec::new(),
        }
    }

    fn append(&mut self, t: i64, mut p: Parts<'_, K>) {
        let stale = is_stale_nan(p.sum);
        if stale {
            p.layout = Layout::default();
            p.buckets = [&[], &[]];
            (p.count, p.zero_count) = Default::default();
        }
        let out = &mut self.out;
        let buckets = p.buckets.into_iter().flatten().copied();
        if self.count == 0 {
            p.layout.put(out);
            self.layout = p.layout;
            self.time = IntHistograms::put_first(out, t, true);
            self.counts = [K::put_first(out, p.count, false), K::put_first(out, p.zero_count, false)];
            out.put(p.sum.to_bits(), 64);
            self.sum = XorColumn::new(p.sum);
            self.buckets = buckets.map(|b| K::put_first(out, b, true)).collect();
        } else {
            IntHistograms::put(out, &mut self.time, t);
            if stale {
                self.counts.iter_mut().for_each(|c| K::put_stale(out, c));
            } else {
                K::put(out, &mut self.counts[0], p.count);
                K::put(out, &mut self.counts[1], p.zero_count);
            }
            self.sum.put(out, p.sum.to_bits());
            self.buckets.iter_mut().zip(buckets).for_each(|(c, b)| K::put(out, c, b));
        }
        assert!(self.count < u16::MAX, "a chunk is cut long before its counter is full");
        self.count += 1;
    }
}

enum AnyAppender {
    Int(Appender<IntHistograms>),
    Float(Appender<FloatHistograms>),
}

/// Writes a chunk of histograms of the kind of its first one.
pub(crate) struct HistogramAppender {
    appender: AnyAppender,
    /// The newest histogram, to see counters fall.
    last: Option<HistogramValue>,
}

impl HistogramAppender {
    /// An empty chunk for histograms like this one.
    pub(crate) fn new(first: &HistogramValue) -> Self {
        let flags = match hint(first) {
            CounterResetHint::Gauge => FLAG_GAUGE,
            CounterResetHint::CounterReset => FLAG_COUNTER_RESET,
            CounterResetHint::Unknown | CounterResetHint::NotCounterReset => 0,
        };
        let appender = match first {
            HistogramValue::Int(_) => AnyAppender::Int(Appender::new(flags)),
            HistogramValue::Float(_) => AnyAppender::Float(Appender::new(flags)),
        };
        Self { appender, last: None }
    }

    /// Whether the chunk can hold this histogram beside those it has.
    pub(crate) fn takes(&self, next: &HistogramValue) -> bool {
        let Some(last) = &self.last else { return true };
        let gauge = hint(last) == CounterResetHint::Gauge;
        if hint(next) == CounterResetHint::CounterReset || gauge != (hint(next) == CounterResetHint::Gauge) {
            return false;
        }
        let is_same_kind = matches!(
            (&self.appender, next),
            (AnyAppender::Int(_), HistogramValue::Int(_)) | (AnyAppender::Float(_), HistogramValue::Float(_))
        );
        if !is_same_kind {
            return false;
        }
        if is_stale_nan(next.sum()) {
            return true;
        }
        if is_stale_nan(last.sum()) {
            return false;
        }
        let same_layout = match (&self.appender, next) {
            (AnyAppender::Int(a), HistogramValue::Int(h)) => a.layout.same(&int_parts(h).layout),
            (AnyAppender::Float(a), HistogramValue::Float(h)) => a.layout.same(&float_parts(h).layout),
            _ => false,
        };
        same_layout && (gauge || !falls(last, next))
    }

    pub(crate) fn append(&mut self, t: i64, h: &HistogramValue) {
        match (&mut self.appender, h) {
            (AnyAppender::Int(a), HistogramValue::Int(h)) => a.append(t, int_parts(h)),
            (AnyAppender::Float(a), HistogramValue::Float(h)) => a.append(t, float_parts(h)),
            _ => panic!("callers ask `takes` first"),
        }
        self.last = Some(h.clone());
    }

    pub(crate) fn count(&self) -> u16 {
        match &self.appender {
            AnyAppender::Int(a) => a.count,
            AnyAppender::Float(a) => a.count,
        }
    }

    fn out(&self) -> &BitWriter {
        match &self.appender {
            AnyAppender::Int(a) => &a.out,
            AnyAppender::Float(a) => &a.out,
        }
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.out().len_bytes()
    }

    pub(crate) fn encoding(&self) -> ChunkEncoding {
        match &self.appender {
            AnyAppender::Int(_) => IntHistograms::ENCODING,
            AnyAppender::Float(_) => FloatHistograms::ENCODING,
        }
    }

    pub(crate) fn encode_first(&self, count: u16) -> Bytes {
        let mut bytes = self.out().to_bytes();
        bytes[..2].copy_from_slice(&count.min(self.count()).to_be_bytes());
        bytes.into()
    }
}

fn hint(h: &HistogramValue) -> CounterResetHint {
    match h {
        HistogramValue::Int(h) => h.counter_reset_hint,
        HistogramValue::Float(h) => h.counter_reset_hint,
    }
}

/// Whether a counter is lower in `next`, which has the layout of `last`.
fn falls(last: &HistogramValue, next: &HistogramValue) -> bool {
    let (a, b) = (last.to_float(), next.to_float());
    let lower = |a: &[f64], b: &[f64]| a.iter().zip(b).any(|(a, b)| b < a);
    lower(&[a.count, a.zero_count], &[b.count, b.zero_count])
        || lower(&a.positive_buckets, &b.positive_buckets)
        || lower(&a.negative_buckets, &b.negative_buckets)
}

// === Reading ===

impl ChunkCodec for IntHistograms {
    fn encoding(&self) -> ChunkEncoding {
        Self::ENCODING
    }

    fn decode(&self, bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        decode::<Self>(bytes, mint, maxt, out)
    }
}

impl ChunkCodec for FloatHistograms {
    fn encoding(&self) -> ChunkEncoding {
        Self::ENCODING
    }

    fn decode(&self, bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        decode::<Self>(bytes, mint, maxt, out)
    }
}

fn decode<K: Kind>(bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
    let err = |reason: &str| StorageError::decode(K::WHAT, reason);
    let Some((header, data)) = bytes.split_at_checked(HEADER_LEN_BYTES) else {
        return Err(err("shorter than its header"));
    };
    let count = u16::from_be_bytes([header[0], header[1]]);
    let gauge = header[2] & FLAG_MASK == FLAG_GAUGE;
    // The reader loads eight bytes at a time.
    let mut padded = [0; 8];
    let r = if data.len() < padded.len() {
        padded[..data.len()].copy_from_slice(data);
        BitReader::new(&padded, data.len())
    } else {
        BitReader::new(data, data.len())
    };
    decode_samples::<K>(r, count, gauge, mint, maxt, out).ok_or_else(|| err("ends within a sample"))
}

fn decode_samples<K: Kind>(
    mut r: BitReader<'_>,
    count: u16,
    gauge: bool,
    mint: i64,
    maxt: i64,
    out: &mut Samples,
) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    let r = &mut r;
    let layout = Layout::get(r)?;
    let (mut time, mut t) = IntHistograms::get_first(r, true)?;
    let (mut count_column, mut total) = K::get_first(r, false)?;
    let (mut zero_column, mut zero_count) = K::get_first(r, false)?;
    let mut sum = r.f64()?;
    let mut sum_column = XorColumn::new(sum);
    let mut columns = Vec::new();
    let mut buckets = Vec::new();
    for _ in 0..layout.buckets() {
        let (column, v) = K::get_first(r, true)?;
        columns.push(column);
        buckets.push(v);
    }
    for i in 0..count {
        if i > 0 {
            t = IntHistograms::get(r, &mut time)?;
            total = K::get(r, &mut count_column)?;
            zero_count = K::get(r, &mut zero_column)?;
            sum = sum_column.get(r)?;
            if !is_stale_nan(sum) {
                for (b, column) in buckets.iter_mut().zip(&mut columns) {
                    *b = K::get(r, column)?;
                }
            }
        }
        if t > maxt {
            break;
        }
        if t < mint {
            continue;
        }
        let hint = match (gauge, i) {
            (true, _) => CounterResetHint::Gauge,
            // The chunk before may be gone, so its end cannot be known.
            (false, 0) => CounterResetHint::Unknown,
            (false, _) => CounterResetHint::NotCounterReset,
        };
        let value = if is_stale_nan(sum) {
            let (count, zero_count) = Default::default();
            K::build(&Layout::default(), hint, Numbers { count, zero_count, sum, buckets: Vec::new() })
        } else {
            K::build(&layout, hint, Numbers { count: total, zero_count, sum, buckets: buckets.clone() })
        };
        out.push(Sample::histogram(t, value));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_histogram() -> impl Strategy<Value = Histogram> {
        let span = (0_i32..5, 1_u32..4).prop_map(|(offset, length)| Span { offset, length });
        let spans = prop::collection::vec(span, 0..3);
        let custom = prop::collection::vec(prop_oneof![0.0..1e9, Just(0.25), Just(-1.5)], 0..4);
        let schema = prop_oneof![-4..=8_i32, Just(CUSTOM_BUCKETS_SCHEMA)];
        let zero_threshold = prop_oneof![
            Just(0.0),
            Just(2.0_f64.powi(-128)),
            Just(1024.0),
            Just(2.0_f64.powi(-243)),
            0.0..1.0
        ];
        let numbers = (any::<u32>(), any::<u32>(), any::<f64>(), prop::collection::vec(0_i64..9, 20));
        (schema, zero_threshold, spans.clone(), spans, custom, numbers).prop_map(
            |(
                schema,
                zero_threshold,
                positive_spans,
                negative_spans,
                custom,
                (count, zero, sum, buckets),
            )| {
                let take = |spans: &[Span]| buckets[..bucket_count(spans) as usize].to_vec();
                Histogram {
                    schema,
                    zero_threshold,
                    count: u64::from(count),
                    zero_count: u64::from(zero),
                    sum,
                    positive_buckets: take(&positive_spans),
                    negative_buckets: take(&negative_spans),
                    positive_spans,
                    negative_spans,
                    custom_values: if schema == CUSTOM_BUCKETS_SCHEMA { custom } else { Vec::new() },
                    counter_reset_hint: CounterResetHint::Gauge,
                }
            },
        )
    }

    /// Writes what fits one chunk; gives that and what was read back.
    fn round_trip(list: &[HistogramValue]) {
        let mut a = HistogramAppender::new(&list[0]);
        let mut expect = Vec::new();
        for (i, h) in list.iter().enumerate() {
            if a.takes(h) {
                let t = 1_700_000_000_000 + i as i64 * 15_000;
                a.append(t, h);
                expect.push(Sample::histogram(t, h.clone()));
            }
        }
        let codec =
            if matches!(list[0], HistogramValue::Int(_)) { HISTOGRAM_CODEC } else { FLOAT_HISTOGRAM_CODEC };
        let bytes = a.encode_first(u16::MAX);
        assert_eq!(a.len_bytes(), bytes.len());
        let mut out = Samples::new();
        codec.decode(&bytes, i64::MIN, i64::MAX, &mut out).expect("own bytes");
        let got: Vec<Sample> = out.iter().collect();
        assert_eq!(got, expect);
        for end in 0..bytes.len() {
            let _ = codec.decode(&bytes[..end], i64::MIN, i64::MAX, &mut Samples::new()); // Must not panic.
        }
    }

    proptest! {
        #[test]
        fn gauges_come_back(first in any_histogram(), counts in prop::collection::vec((0_u64..1000, 0_i64..50), 0..20)) {
            let mut list: Vec<HistogramValue> = vec![first.clone().into()];
            for (count, bucket) in counts {
                let mut h = first.clone();
                h.count = h.count.wrapping_add(count);
                h.sum += count as f64;
                h.positive_buckets.iter_mut().for_each(|b| *b += bucket);
                list.push(h.into());
            }
            round_trip(&list);
            let floats: Vec<HistogramValue> = list.iter().map(|h| HistogramValue::Float(h.to_float())).collect();
            round_trip(&floats);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = HISTOGRAM_CODEC.decode(&bytes, 0, i64::MAX, &mut Samples::new());
            let _ = FLOAT_HISTOGRAM_CODEC.decode(&bytes, 0, i64::MAX, &mut Samples::new());
        }
    }

    #[test]
    fn resets_layouts_and_stale_markers_cut_chunks() {
        let base = Histogram {
            count: 10,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![4, 2],
            ..Histogram::default()
        };
        let check = |last: &Histogram, next: Histogram, expect: bool| {
            let (last, next) = (HistogramValue::from(last.clone()), HistogramValue::from(next));
            let mut a = HistogramAppender::new(&last);
            a.append(1, &last);
            assert_eq!(a.takes(&next), expect, "{next:?}");
        };
        let stale = Histogram { sum: model::stale_nan(), ..Histogram::default() };
        check(&base, base.clone(), true);
        check(&base, Histogram { count: 9, ..base.clone() }, false);
        check(&base, Histogram { positive_buckets: vec![3, 3], ..base.clone() }, false);
        check(&base, Histogram { schema: 1, ..base.clone() }, false);
        check(&base, Histogram { counter_reset_hint: CounterResetHint::CounterReset, ..base.clone() }, false);
        check(&base, Histogram { counter_reset_hint: CounterResetHint::Gauge, ..base.clone() }, false);
        check(&base, stale.clone(), true);
        check(&stale, base, false);
        check(&stale, stale.clone(), true);
    }
}
