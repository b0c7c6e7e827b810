//! Writes a chunk of histograms of one kind; makes its layout wider when new buckets come.
//!
//! A counter does not fall within a chunk, since readers take "no reset" for granted between its samples. Schema, zero
//! threshold and custom bounds are the same in all samples. A stale marker keeps only its sum, and only stale markers follow
//! it. What breaks these rules begins a new chunk.

use std::borrow::Cow;

use bytes::Bytes;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint};
use model::{HistogramValue, Samples, is_stale_nan};

use super::super::bits::{BitWriter, XorColumn};
use super::super::start::StartColumn;
use super::kind::{IntColumn, IntHistograms, Kind, Parts};
use super::layout::{Layout, LayoutRef};
use super::widen::{Reset, Union, unite};
use super::{
    FLAG_COUNTER_RESET, FLAG_GAUGE, FLAG_MASK, FLAG_NO_RESET, FLAG_UNKNOWN, FLAGS_AT, HEADER_LEN_BYTES,
    STARTED_COUNT_MASK, read,
};

/// Writes a chunk of histograms of one kind.
pub(super) struct Appender<K: Kind> {
    pub(super) out: BitWriter,
    pub(super) count: u16,
    /// Whether a counter reset, or a gauge, or what else began the chunk.
    flags: u8,
    layout: Layout,
    t: i64,
    time: IntColumn,
    counts: [K::Column; 2],
    sum: XorColumn,
    /// Positive, then negative.
    buckets: [Vec<K::Column>; 2],
    /// For chunks with start timestamps.
    starts: Option<StartColumn>,
}

/// How a histogram fits the chunk.
enum Fit {
    /// With all buckets where they are, or after these changes to the sides.
    Fits([Option<Union>; 2]),
    /// Not at all: a new chunk is needed, with these flags.
    Not(u8),
}

impl<K: Kind> Appender<K> {
    /// An empty chunk.
    pub(super) fn new(flags: u8, with_starts: bool) -> Self {
        Self {
            out: BitWriter::new(&[0; HEADER_LEN_BYTES]),
            count: 0,
            flags,
            layout: Layout::default(),
            t: 0,
            time: IntColumn::default(),
            counts: Default::default(),
            sum: XorColumn::default(),
            buckets: Default::default(),
            starts: with_starts.then(StartColumn::default),
        }
    }

    pub(super) fn has_starts(&self) -> bool {
        self.starts.is_some()
    }

    /// Adds a histogram, or gives the flags of the new chunk that it needs.
    pub(super) fn append(&mut self, t: i64, start: i64, mut p: Parts<'_, K>) -> Result<(), u8> {
        if self.count == 0 {
            self.put(t, start, &p);
            return Ok(());
        }
        let [positive, negative] = match self.fit(&p) {
            Fit::Not(flags) => return Err(flags),
            Fit::Fits(sides) => sides,
        };
        let sides = [positive, negative];
        let grows_chunk = sides.iter().flatten().any(Union::grows_chunk);
        let grows_histogram = sides.iter().flatten().any(Union::grows_histogram);
        if grows_chunk {
            // As Prometheus does: the new layout is that of the histogram, unless it lacks buckets.
            let all = self.flags == FLAG_GAUGE && grows_histogram;
            let spans = [0, 1].map(|i| match &sides[i] {
                Some(u) if all || u.grows_histogram() => u.spans(),
                _ => p.layout.spans[i].to_vec(),
            });
            self.widen(&sides, spans);
        }
        for (numbers, union) in p.buckets.iter_mut().zip(&sides) {
            if let Some(u) = union {
                *numbers = Cow::Owned(u.spread_histogram::<K>(numbers));
            }
        }
        self.put(t, start, &p);
        Ok(())
    }

    /// The flags of a chunk that follows this one and begins with the histogram.
    pub(super) fn flags_after(&self, next: &Parts<'_, K>) -> u8 {
        match self.fit(next) {
            Fit::Fits(_) => FLAG_NO_RESET,
            Fit::Not(FLAG_UNKNOWN) if K::TELLS_RESETS_ONLY => FLAG_NO_RESET,
            Fit::Not(flags) => flags,
        }
    }

    fn fit(&self, next: &Parts<'_, K>) -> Fit {
        let is_gauge = self.flags == FLAG_GAUGE;
        let unless_told = if K::TELLS_RESETS_ONLY { FLAG_UNKNOWN } else { FLAG_NO_RESET };
        if next.hint == CounterResetHint::Gauge {
            if !is_gauge {
                return Fit::Not(FLAG_GAUGE);
            }
        } else if is_gauge {
            return Fit::Not(unless_told);
        } else if next.hint == CounterResetHint::CounterReset {
            return Fit::Not(FLAG_COUNTER_RESET);
        }
        if is_stale_nan(next.sum) {
            return Fit::Fits([None, None]);
        }
        let otherwise = if is_gauge { FLAG_GAUGE } else { FLAG_UNKNOWN };
        if is_stale_nan(f64::from_bits(self.sum.value_bits)) {
            return Fit::Not(otherwise);
        }
        match self.fit_layout(next, is_gauge) {
            Ok(Some(sides)) => Fit::Fits(sides),
            Ok(None) => Fit::Not(otherwise),
            Err(Reset) => Fit::Not(if is_gauge { FLAG_GAUGE } else { FLAG_COUNTER_RESET }),
        }
    }

    /// `None`: the schema or zero threshold is another one.
    fn fit_layout(&self, next: &Parts<'_, K>, is_gauge: bool) -> Result<Option<[Option<Union>; 2]>, Reset> {
        let reset_if = |falls: bool| if falls && !is_gauge { Err(Reset) } else { Ok(()) };
        reset_if(K::falls(K::newest(&self.counts[0]), next.count))?;
        if next.layout.schema != self.layout.schema
            || next.layout.zero_threshold != self.layout.zero_threshold
        {
            return Ok(None);
        }
        if self.layout.schema == CUSTOM_BUCKETS_SCHEMA
            && next.layout.custom_values != self.layout.custom_values
        {
            return Err(Reset);
        }
        reset_if(K::falls(K::newest(&self.counts[1]), next.zero_count))?;
        let side = |i: usize| {
            unite::<K>(
                (&self.layout.spans[i], &self.buckets[i]),
                (next.layout.spans[i], &next.buckets[i]),
                !is_gauge,
            )
        };
        Ok(Some([side(0)?, side(1)?]))
    }

    /// Writes the chunk anew with more buckets.
    fn widen(&mut self, sides: &[Option<Union>; 2], [positive, negative]: [Vec<model::histogram::Span>; 2]) {
        let mut samples = Samples::new();
        read::decode::<K>(
            &self.encode_first(self.count),
            i64::MIN,
            i64::MAX,
            self.has_starts(),
            &mut samples,
        )
        .expect("a chunk that was just written decodes");
        let mut wider = Self::new(self.flags, self.has_starts());
        for sample in samples.iter() {
            let model::SampleValue::Histogram(h) = &sample.value else { continue };
            let mut p = K::parts(h).expect("a chunk has histograms of one kind");
            for (numbers, union) in p.buckets.iter_mut().zip(sides) {
                if let Some(u) = union {
                    *numbers = Cow::Owned(u.spread_chunk::<K>(numbers));
                }
            }
            p.layout = LayoutRef { spans: [&positive, &negative], ..p.layout };
            wider.put(sample.timestamp_ms, sample.start_timestamp_ms, &p);
        }
        *self = wider;
    }

    /// Writes a histogram with as many buckets as the chunk has.
    fn put(&mut self, t: i64, start: i64, p: &Parts<'_, K>) {
        let out = &mut self.out;
        let stale = is_stale_nan(p.sum);
        if self.count == 0 {
            let layout = if stale { LayoutRef::default() } else { p.layout };
            layout.put(out);
            self.layout = layout.to_owned();
            self.time = IntHistograms::put_first(out, t, true);
            let counts = if stale { Default::default() } else { [p.count, p.zero_count] };
            self.counts = counts.map(|c| K::put_first(out, c, false));
            out.put(p.sum.to_bits(), 64);
            self.sum = XorColumn::new(p.sum);
            if !stale {
                self.buckets =
                    [0, 1].map(|i| p.buckets[i].iter().map(|b| K::put_first(out, *b, true)).collect());
            }
        } else {
            IntHistograms::put(out, &mut self.time, t);
            if stale {
                self.counts.iter_mut().for_each(|c| K::put_stale(out, c));
            } else {
                K::put(out, &mut self.counts[0], p.count);
                K::put(out, &mut self.counts[1], p.zero_count);
            }
            self.sum.put(out, p.sum.to_bits());
            if !stale {
                for (columns, numbers) in self.buckets.iter_mut().zip(&p.buckets) {
                    debug_assert_eq!(columns.len(), numbers.len(), "validated and brought under one layout");
                    columns.iter_mut().zip(numbers.iter()).for_each(|(c, b)| K::put(out, c, *b));
                }
            }
        }
        if let Some(starts) = &mut self.starts {
            starts.put(out, self.count, self.t, t, start);
        }
        self.t = t;
        let max = if self.starts.is_some() { STARTED_COUNT_MASK } else { u16::MAX };
        assert!(self.count < max, "a chunk is cut long before its counter is full");
        self.count += 1;
    }

    /// The chunk with its first `count` samples (at most those it has).
    pub(super) fn encode_first(&self, count: u16) -> Bytes {
        let mut bytes = self.out.to_bytes();
        bytes[..2].copy_from_slice(&count.min(self.count).to_be_bytes());
        match &self.starts {
            Some(starts) => {
                bytes[0] = bytes[0] & !FLAG_MASK | self.flags;
                bytes[FLAGS_AT] = starts.header();
            }
            None => bytes[FLAGS_AT] = self.flags,
        }
        bytes.into()
    }
}

/// The flags of a chunk that begins with a histogram, when nothing is known of what came before it.
pub(super) fn first_flags(h: &HistogramValue) -> u8 {
    let hint = match h {
        HistogramValue::Int(h) => h.counter_reset_hint,
        HistogramValue::Float(h) => h.counter_reset_hint,
    };
    match hint {
        CounterResetHint::Gauge => FLAG_GAUGE,
        CounterResetHint::CounterReset => FLAG_COUNTER_RESET,
        CounterResetHint::Unknown | CounterResetHint::NotCounterReset => FLAG_UNKNOWN,
    }
}
