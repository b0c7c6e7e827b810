//! Series from storage: what operators at the leaves read. A selection that only one leaf reads is streamed; one that
//! several leaves read is kept, encoded, until the query ends. Decoding is here too.

use std::sync::Arc;

use model::chunk::decode_chunks_watched;
use model::labels::METRIC_NAME;
use model::trace::SpanKind;
use model::{
    Chunk, FloatHistogram, HistogramValue, MatchOp, Matcher, Rollup, Samples, Series, SeriesSet, is_stale_nan,
};
use parking_lot::Mutex;

use super::batch::clean;
use super::context::Context;
use super::memory::labels_bytes;
use crate::error::Result;
use crate::functions::window::SeriesColumns;
use crate::plan::node::Selection;

/// The selections of a query, opened when first read.
pub(crate) struct Selections {
    plans: Vec<Selection>,
    shared: Vec<Mutex<Option<Arc<[Series]>>>>,
}

impl Selections {
    pub(crate) fn new(plans: Vec<Selection>) -> Self {
        let shared = plans.iter().map(|_| Mutex::new(None)).collect();
        Self { plans, shared }
    }

    /// Series of a selection, in order of their labels.
    pub(crate) fn open(&self, ctx: &Context<'_>, at: usize) -> Result<SeriesStream> {
        let plan = &self.plans[at];
        if plan.users <= 1 {
            return Ok(SeriesStream::Set(select(ctx, plan)?));
        }
        let mut shared = self.shared[at].lock();
        if shared.is_none() {
            let mut set = select(ctx, plan)?;
            let mut all = Vec::new();
            while let Some(s) = set.next()? {
                ctx.check()?;
                ctx.count_resolution(&s);
                ctx.memory.keep(series_bytes(&s))?;
                all.push(s);
            }
            ctx.warn_storage(set.warnings());
            *shared = Some(all.into());
        }
        let all = shared.clone().unwrap_or_else(|| Arc::new([]));
        Ok(SeriesStream::Shared { all, next: 0 })
    }

    /// Whether histograms may come without buckets.
    pub(crate) fn stats_only(&self, at: usize) -> bool {
        self.plans[at].stats_only
    }

    /// Whether all series of a selection have the same name, so that dropping it makes none of them equal.
    pub(crate) fn one_name(&self, at: usize) -> bool {
        self.plans[at].matchers.iter().any(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal)
    }
}

/// A selector as a query has it.
fn selector(matchers: &[Matcher]) -> String {
    let is_name = |m: &&Matcher| m.name == METRIC_NAME && m.op == MatchOp::Equal;
    let name = matchers.iter().find(is_name).map_or("", |m| &m.value);
    let others: Vec<String> = matchers.iter().filter(|m| !is_name(m)).map(ToString::to_string).collect();
    if others.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", others.join(",")) }
}

/// Asks the store, for rollups where those will do.
fn select(ctx: &Context<'_>, plan: &Selection) -> Result<Box<dyn SeriesSet>> {
    let mut span = ctx.trace.child("querierSelect", SpanKind::Internal);
    if span.is_recording() {
        span.set("selector", selector(&plan.matchers));
        span.set("start", plan.hints.start_ms);
        span.set("end", plan.hints.end_ms);
    }
    // A store that asks others goes on with the trace.
    let _entered = span.enter();
    Ok(match plan.rollup {
        Some(mut request) => {
            request.starts &= ctx.config.use_start_timestamps;
            ctx.querier.select_rollup(&plan.matchers, &plan.hints, &request)?
        }
        None => ctx.querier.select(&plan.matchers, &plan.hints)?,
    })
}

/// The rollup that stands for the samples of a series.
#[inline]
pub(crate) fn rollup_of(series: &Series) -> Option<&Rollup> {
    match series.chunks.as_slice() {
        [only] => only.as_rollup().map(|rollup| &**rollup),
        _ => None,
    }
}

/// A stream of series.
pub(crate) enum SeriesStream {
    Set(Box<dyn SeriesSet>),
    Shared { all: Arc<[Series]>, next: usize },
    End,
}

impl SeriesStream {
    /// Fills `out` with up to `max` series.
    pub(crate) fn take(&mut self, ctx: &Context<'_>, max: usize, out: &mut Vec<Series>) -> Result<()> {
        out.clear();
        match self {
            Self::End => {}
            Self::Shared { all, next } => {
                let end = (*next + max).min(all.len());
                out.extend_from_slice(&all[*next..end]);
                *next = end;
            }
            Self::Set(set) => {
                while out.len() < max {
                    // Each may be a read from disk or from afar.
                    ctx.check()?;
                    match set.next()? {
                        Some(s) => {
                            ctx.count_resolution(&s);
                            out.push(s);
                        }
                        None => {
                            ctx.warn_storage(set.warnings());
                            *self = Self::End;
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Bytes of a series that is kept, chunks as they are encoded.
fn series_bytes(s: &Series) -> u64 {
    labels_bytes(&s.labels) + s.chunks.iter().map(|c| c.size_bytes() as u64).sum::<u64>()
}

/// Chunks that are decoded between two looks at the limits.
const CHUNKS_PER_CHECK: usize = 64;

/// Decodes the samples of a series within `[mint, maxt]`. A series may be longer than the query may hold or has time for,
/// so the limits are looked at on the way.
pub(crate) fn decode(
    ctx: &Context<'_>,
    series: &Series,
    mint: i64,
    maxt: i64,
    out: &mut Samples,
) -> Result<()> {
    decode_watched(ctx, &series.chunks, mint, maxt, out)
}

/// Like [`decode`], of some chunks.
pub(crate) fn decode_watched(
    ctx: &Context<'_>,
    chunks: &[Chunk],
    mint: i64,
    maxt: i64,
    out: &mut Samples,
) -> Result<()> {
    let mut decoded = 0;
    decode_chunks_watched(chunks, mint, maxt, out, |out| {
        decoded += 1;
        if decoded % CHUNKS_PER_CHECK != 0 {
            return Ok(());
        }
        ctx.check()?;
        ctx.memory.fits(samples_bytes(out))
    })
}

/// Bytes of decoded columns, histograms without their buckets.
pub(crate) fn samples_bytes(samples: &Samples) -> u64 {
    let columns = samples.timestamps_ms.capacity() * 2 + samples.start_timestamps_ms.capacity();
    (columns * 8 + samples.histograms.capacity() * size_of::<Option<HistogramValue>>()) as u64
}

/// Strips histograms of their buckets, which would be carried along for nothing. What the buckets tell about resets is
/// written into the hints first.
pub(crate) fn strip_buckets(samples: &mut Samples) {
    use model::histogram::CounterResetHint::{CounterReset, NotCounterReset, Unknown};
    let mut prev: Option<Arc<FloatHistogram>> = None;
    for slot in &mut samples.histograms {
        let Some(h) = slot.as_ref().map(HistogramValue::to_float) else { continue };
        let hint = match (h.counter_reset_hint, &prev) {
            (Unknown, Some(p)) if h.detect_reset(p) => CounterReset,
            (Unknown, Some(_)) => NotCounterReset,
            (hint, _) => hint,
        };
        let stripped = FloatHistogram {
            counter_reset_hint: hint,
            schema: h.schema,
            count: h.count,
            sum: h.sum,
            ..FloatHistogram::default()
        };
        if !is_stale_nan(h.sum) {
            prev = Some(h);
        }
        *slot = Some(stripped.into());
    }
}

/// Makes columns of samples: stale markers go, floats and histograms part. Start timestamps are kept when asked for.
pub(crate) fn to_columns(samples: &mut Samples, with_starts: bool, out: &mut SeriesColumns) {
    out.clear();
    let starts = with_starts && !samples.start_timestamps_ms.is_empty();
    if samples.histograms.is_empty() && !starts {
        let stale = samples.values.iter().any(|v| is_stale_nan(*v));
        if !stale {
            std::mem::swap(&mut out.float_ts, &mut samples.timestamps_ms);
            std::mem::swap(&mut out.floats, &mut samples.values);
            out.floats.iter_mut().for_each(|v| *v = clean(*v));
            return;
        }
    }
    split_columns(samples, with_starts, out);
}

/// Adds samples to columns. With start timestamps these are all samples of the series.
pub(crate) fn split_columns(samples: &Samples, with_starts: bool, out: &mut SeriesColumns) {
    let with_starts = with_starts && !samples.start_timestamps_ms.is_empty();
    if samples.histograms.is_empty() && !with_starts && !samples.values.iter().any(|v| is_stale_nan(*v)) {
        out.float_ts.extend_from_slice(&samples.timestamps_ms);
        out.floats.extend(samples.values.iter().map(|v| clean(*v)));
        return;
    }
    for i in 0..samples.len() {
        let ts = samples.timestamps_ms[i];
        match samples.histogram(i) {
            Some(h) if is_stale_nan(h.sum()) => {}
            Some(h) => {
                out.histogram_ts.push(ts);
                out.histograms.push(h.to_float());
                if with_starts {
                    out.histogram_starts.push(samples.start_timestamp_ms(i));
                }
            }
            None if is_stale_nan(samples.values[i]) => {}
            None => {
                out.float_ts.push(ts);
                out.floats.push(clean(samples.values[i]));
                if with_starts {
                    out.float_starts.push(samples.start_timestamp_ms(i));
                }
            }
        }
    }
}
