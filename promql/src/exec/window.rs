//! Functions over windows: decodes each series once and slides over it. What is held of a series is what the windows of
//! some neighbouring steps need; the function then runs over these steps at once.

use model::labels::TYPE_LABEL;
use model::{Rollup, Samples, Series};

use super::batch::{ABSENT, Batch, Cell, Head, histogram_weight, is_absent, is_float, rows_bytes};
use super::context::{Context, without_metadata};
use super::duplicates::Duplicates;
use super::exchange::{RowFiller, RowHistograms, fill_rows, rows_per_batch};
use super::feed::{Feed, How, seek};
use super::memory::HeldBytes;
use super::merge::{Merge, may_have_twins};
use super::operator::{BoxOperator, Builder, Operator};
use super::scalar::Scalar;
use super::source::{SeriesStream, rollup_of, samples_bytes};
use super::tally::{Counts, TallyId};
use super::{absent, batch, rollup};
use crate::annotations::{Note, Notes};
use crate::error::{QueryError, Result};
use crate::functions::rate::find_resets;
use crate::functions::rollup::SummaryFunction;
use crate::functions::window::{
    Bound, Env, SeriesColumns, State, Steps, Window, WindowFunction, extended_function, window_function,
};
use crate::parser::ast::Boundary;
use crate::plan::Grid;
use crate::plan::node::{WindowCall, WindowSource};

/// Samples that functions look at between two looks at the clock.
const SAMPLES_PER_CHECK: u64 = 1 << 18;

/// The operator of a call.
pub(crate) fn build<'q>(builder: Builder<'q>, call: &'q WindowCall, grid: Grid) -> Result<BoxOperator<'q>> {
    let Some(mut function) = window_function(call.func) else {
        return Err(QueryError::Execution(format!("not supported: function {}", call.func)));
    };
    if call.source.boundary() != Boundary::Plain {
        function = extended_function(call.func, function);
    }
    let mut scalars = Vec::new();
    for s in &call.scalars {
        scalars.push(builder.scalar(s, grid)?);
    }
    let input = match &call.source {
        WindowSource::Selector { .. } => Input::Series { stream: None, series: Vec::new() },
        WindowSource::Subquery { input, shift, range_ms, step_ms } => {
            let inner = grid.subquery(shift, *range_ms, *step_ms);
            let mut operator = builder.inside(inner, *shift, *range_ms)?.vector(input, inner)?;
            if inner.count > 1 && may_have_twins(input) {
                operator = Box::new(Merge::new(builder.ctx, operator, inner));
            }
            Input::Subquery { inner, operator, rows: Batch::new() }
        }
    };
    let ctx = builder.ctx;
    let one_name = match &call.source {
        WindowSource::Selector { selection, .. } => builder.selections.one_name(*selection),
        WindowSource::Subquery { .. } => false,
    };
    // `absent_over_time` looks at steps, not at labels.
    let drops_now = !ctx.delayed_names() && !function.keeps_name && call.func != "absent_over_time";
    let duplicates = drops_now.then(|| match one_name {
        true => Duplicates::strict(ctx).of_one_name(),
        false => Duplicates::strict(ctx),
    });
    let operator = WindowOperator {
        builder,
        call,
        grid,
        function,
        scalars,
        args: None,
        input,
        duplicates,
        held: 0,
        bytes: ctx.memory.hold(),
    };
    if call.func == "absent_over_time" {
        return Ok(Box::new(absent::Absent::new(ctx, Box::new(operator), &call.absent_labels, true, grid)));
    }
    Ok(Box::new(operator))
}

struct WindowOperator<'q> {
    builder: Builder<'q>,
    call: &'q WindowCall,
    grid: Grid,
    function: WindowFunction,
    scalars: Vec<Scalar<'q>>,
    /// Values of the scalar arguments.
    args: Option<Vec<Vec<f64>>>,
    input: Input<'q>,
    duplicates: Option<Duplicates<'q>>,
    held: u64,
    bytes: HeldBytes<'q>,
}

enum Input<'q> {
    Series { stream: Option<SeriesStream>, series: Vec<Series> },
    Subquery { inner: Grid, operator: BoxOperator<'q>, rows: Batch },
}

impl Operator for WindowOperator<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        let ctx = self.builder.ctx;
        ctx.release(std::mem::take(&mut self.held));
        if self.grid.count == 0 {
            return Ok(false);
        }
        if self.args.is_none() {
            let columns = self.scalars.iter_mut().map(Scalar::column).collect::<Result<Vec<_>>>()?;
            self.args = Some(columns);
        }
        if !self.pull(out)? {
            return Ok(false);
        }
        let shared = Shared {
            ctx,
            tally: self.builder.tally,
            call: self.call,
            grid: self.grid,
            function: self.function,
            stats_only: match &self.call.source {
                WindowSource::Selector { selection, .. } => self.builder.selections.stats_only(*selection),
                WindowSource::Subquery { .. } => false,
            },
            args: self.args.as_deref().unwrap_or(&[]),
            input: match &self.input {
                Input::Series { series, .. } => Rows::Series(series),
                Input::Subquery { inner, rows, .. } => Rows::Subquery(*inner, rows),
            },
        };
        let cost = shared.cost(out.rows());
        fill_rows(ctx, out, cost, || Filler {
            shared,
            samples: Samples::new(),
            columns: SeriesColumns::default(),
            weights: Vec::new(),
            state: State::default(),
            bounds: Vec::new(),
            notes: Notes::default(),
            held: 0,
            counts: ctx.tallies.part(shared.tally),
            bytes: ctx.memory.hold(),
            unchecked: 0,
        })?;
        if self.function.wants_counter {
            self.note_non_counters(out);
        }
        if let Some(d) = &mut self.duplicates {
            d.check(out)?;
        }
        self.held = out.samples();
        ctx.hold(self.held)?;
        self.bytes.set(out.bytes())?;
        Ok(true)
    }
}

impl WindowOperator<'_> {
    /// Fetches the next inputs and makes empty rows for them.
    fn pull(&mut self, out: &mut Batch) -> Result<bool> {
        let ctx = self.builder.ctx;
        ctx.check()?;
        let keeps = self.function.keeps_name;
        match &mut self.input {
            Input::Series { stream, series } => {
                let WindowSource::Selector { selection, .. } = &self.call.source else {
                    return Err(QueryError::execution("a window over series has no selection"));
                };
                if stream.is_none() {
                    *stream = Some(self.builder.selections.open(ctx, *selection)?);
                }
                if let Some(stream) = stream {
                    stream.take(ctx, rows_per_batch(self.grid.count), series)?;
                }
                self.bytes.set(rows_bytes(series.len(), self.grid.count))?;
                out.reserve_rows(series.len());
                for s in series.iter() {
                    if let Some(d) = &mut self.duplicates {
                        d.meet(&s.labels);
                    }
                    let labels = if keeps { s.labels.clone() } else { ctx.drop_name(&s.labels) };
                    out.push_row(Head { labels, drop_name: !keeps });
                }
            }
            Input::Subquery { operator, rows, .. } => {
                // A batch without rows is not the end: more may follow.
                rows.reset(0);
                while rows.rows() == 0 {
                    if !operator.next(rows)? {
                        return Ok(false);
                    }
                }
                self.bytes.set(rows_bytes(rows.rows(), self.grid.count))?;
                out.reserve_rows(rows.rows());
                for h in &rows.heads {
                    let drop_name = !keeps || h.drop_name;
                    let labels = match drop_name && !ctx.delayed_names() {
                        true => without_metadata(&h.labels),
                        false => h.labels.clone(),
                    };
                    out.push_row(Head { labels, drop_name });
                }
            }
        }
        Ok(out.rows() > 0)
    }

    fn note_non_counters(&self, out: &Batch) {
        let ctx = self.builder.ctx;
        let mut last = String::new();
        for row in 0..out.rows() {
            let labels = match &self.input {
                Input::Series { series, .. } => &series[row].labels,
                Input::Subquery { rows, .. } => &rows.heads[row].labels,
            };
            let name = labels.metric_name();
            let by_label = ctx.config.type_and_unit_labels;
            if name.is_empty() || (name == last && !by_label) || !out.row(row).iter().any(|v| is_float(*v)) {
                continue;
            }
            if by_label {
                let type_label = labels.value(TYPE_LABEL);
                if !matches!(type_label, "counter" | "histogram") {
                    ctx.note(self.call.first_arg, Note::PossibleNonCounterLabel { name, type_label });
                }
            } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s)) {
                ctx.note(self.call.first_arg, Note::PossibleNonCounter(name));
            }
            last.clear();
            last.push_str(name);
        }
    }
}

#[derive(Clone, Copy)]
struct Shared<'a> {
    ctx: &'a Context<'a>,
    tally: TallyId,
    call: &'a WindowCall,
    grid: Grid,
    function: WindowFunction,
    stats_only: bool,
    args: &'a [Vec<f64>],
    input: Rows<'a>,
}

/// What the rows of a batch are made of.
#[derive(Clone, Copy)]
enum Rows<'a> {
    Series(&'a [Series]),
    Subquery(Grid, &'a Batch),
}

impl Shared<'_> {
    fn cost(&self, rows: usize) -> usize {
        let per_row = match self.input {
            Rows::Series(series) => series.iter().map(|s| s.chunks.len() * 120).sum::<usize>(),
            Rows::Subquery(inner, _) => inner.count * rows,
        };
        per_row + rows * self.grid.count * 4
    }

    /// The first and the last time that some step looks at.
    fn mint(&self) -> i64 {
        let source = &self.call.source;
        source.shift().apply(self.grid.start_ms) - source.range_ms() - self.around().0 + 1
    }

    fn maxt(&self) -> i64 {
        self.call.source.shift().apply(self.grid.last_ms()) + self.around().1
    }

    fn how(&self) -> How {
        let with_starts = self.function.uses_starts && self.ctx.config.use_start_timestamps;
        How { stats_only: self.stats_only, with_starts }
    }

    /// Times before and after the window as written that samples are taken from.
    fn around(&self) -> (i64, i64) {
        let lookback = self.ctx.lookback_ms;
        match self.call.source.boundary() {
            Boundary::Plain => (0, 0),
            Boundary::Anchored => (lookback, 0),
            Boundary::Smoothed => (lookback, lookback),
        }
    }
}

struct Filler<'a> {
    shared: Shared<'a>,
    samples: Samples,
    columns: SeriesColumns,
    /// Sizes of the histograms, summed up from the first one on; empty when there is none.
    weights: Vec<u64>,
    state: State,
    /// Steps that the function is to run over next.
    bounds: Vec<Bound>,
    notes: Notes,
    /// Samples of the largest window so far.
    held: u64,
    counts: Counts,
    /// What is decoded.
    bytes: HeldBytes<'a>,
    /// Samples looked at since the last look at the clock.
    unchecked: u64,
}

impl RowFiller for Filler<'_> {
    fn fill(&mut self, row: usize, cells: &mut [f64], histograms: &mut RowHistograms) -> Result<()> {
        let s = self.shared;
        self.columns.clear();
        self.weights.clear();
        self.state.begin_series();
        let largest = match s.input {
            Rows::Series(series) => {
                let series = &series[row];
                if let Some(rollup) = rollup_of(series) {
                    let largest = self.fill_from(rollup, cells)?;
                    return self.hold_window(largest);
                }
                let feed = Feed::new(&series.chunks, s.mint(), s.maxt(), s.how());
                self.slide(feed, &series.labels, cells, histograms)?
            }
            Rows::Subquery(inner, rows) => {
                columns_of_row(&inner, rows, row, &mut self.columns);
                self.take_in(0)?;
                self.slide(Feed::none(), &rows.heads[row].labels, cells, histograms)?;
                return Ok(());
            }
        };
        self.hold_window(largest)
    }

    fn finish(self) -> Notes {
        self.shared.ctx.release(self.held);
        self.shared.ctx.tallies.add(self.shared.tally, &self.counts);
        self.notes
    }
}

impl Filler<'_> {
    /// What one window holds counts as held: the rest is gone with the next one. Only growth is told: threads would wait
    /// for each other if every series were counted where all see it.
    fn hold_window(&mut self, largest: u64) -> Result<()> {
        if largest > self.held {
            self.shared.ctx.hold(largest - self.held)?;
            self.held = largest;
        }
        Ok(())
    }

    /// Fills a row from what samples come to, which count as one for each cell.
    fn fill_from(&mut self, rollup: &Rollup, cells: &mut [f64]) -> Result<u64> {
        let source = &self.shared.call.source;
        let windows = (self.shared.grid, source.shift(), source.range_ms());
        let Some(mut function) = SummaryFunction::new(self.shared.call.func, source.range_ms()) else {
            return Err(QueryError::execution("a function got a rollup that it did not ask for"));
        };
        Ok(rollup::fill(rollup, windows, &mut function, &mut self.counts, cells))
    }
}

/// Samples that are gathered before the function runs: as many as stay in the processor's fastest cache.
const SAMPLES_PER_RUN: usize = 2_048;
/// Steps that are gathered at most.
const STEPS_PER_RUN: usize = 1_024;

impl Filler<'_> {
    /// Takes the next samples in, which is more than were `known` before.
    fn take_in(&mut self, known: usize) -> Result<()> {
        if self.shared.function.needs_resets {
            find_resets(&mut self.columns, known);
        }
        let columns = &self.columns;
        if !columns.histograms.is_empty() {
            if self.weights.is_empty() {
                self.weights.push(0);
            }
            let mut sum = self.weights.last().copied().unwrap_or(0);
            let new = columns.histograms.iter().skip(self.weights.len() - 1);
            self.weights.extend(new.map(|h| {
                sum += histogram_weight(h);
                sum
            }));
        }
        // A histogram weighs as much as so many samples of 16 bytes.
        let slots = columns.floats.capacity() + columns.histograms.capacity();
        let bytes = (slots as u64 + weight_between(&self.weights, 0, columns.histograms.len())) * 16;
        self.bytes.at_least(bytes + samples_bytes(&self.samples))?;
        self.check(columns.floats.len().saturating_sub(known) as u64)
    }

    /// Looks at the clock now and then.
    fn check(&mut self, samples: u64) -> Result<()> {
        self.unchecked += samples;
        if self.unchecked > SAMPLES_PER_CHECK {
            self.unchecked = 0;
            self.shared.ctx.check()?;
        }
        Ok(())
    }

    /// Runs the function over every step whose window holds a sample. Gives the samples of the largest window.
    fn slide(
        &mut self,
        mut feed: Feed<'_>,
        labels: &model::Labels,
        cells: &mut [f64],
        histograms: &mut RowHistograms,
    ) -> Result<u64> {
        let s = self.shared;
        let source = &s.call.source;
        let (shift, range_ms, around) = (source.shift(), source.range_ms(), s.around());
        let from_storage = matches!(s.input, Rows::Series(_));
        let (mut floats, mut others) = (Cursor::default(), Cursor::default());
        let mut largest = 0;
        self.bounds.clear();
        let mut run_at = SAMPLES_PER_RUN;
        for step in 0..cells.len() {
            let end_ms = shift.apply(s.grid.at(step));
            let (from, to) = (end_ms - range_ms - around.0, end_ms + around.1);
            while feed.is_behind(to) {
                if self.columns.len() >= run_at || self.bounds.len() >= STEPS_PER_RUN {
                    self.run(labels, cells, histograms)?;
                    self.forget(&mut floats, &mut others);
                    run_at = SAMPLES_PER_RUN.max(self.columns.len() * 2);
                }
                let known = self.columns.floats.len();
                feed.advance(s.ctx, from, &mut self.samples, &mut self.columns)?;
                self.take_in(known)?;
            }
            let seen = (floats.hi, others.hi);
            floats.move_to(&self.columns.float_ts, from, to);
            others.move_to(&self.columns.histogram_ts, from, to);
            let samples = floats.len() as u64 + weight_between(&self.weights, others.lo, others.hi);
            if samples == 0 {
                continue;
            }
            let read = match (from_storage, step) {
                (true, 0) => samples,
                (true, _) if !shift.is_pinned() => {
                    let (new, others_from) = (floats.hi - floats.lo.max(seen.0), others.lo.max(seen.1));
                    new as u64 + weight_between(&self.weights, others_from, others.hi)
                }
                _ => 0,
            };
            self.counts.add(step, samples, read);
            largest = largest.max(samples);
            self.check(samples)?;
            let bound = Bound { step, floats: floats.range(), histograms: others.range(), end_ms };
            self.bounds.push(bound);
        }
        self.run(labels, cells, histograms)?;
        Ok(largest)
    }

    /// Forgets samples before the windows once they are at least half of all.
    fn forget(&mut self, floats: &mut Cursor, histograms: &mut Cursor) {
        if (floats.lo + histograms.lo) * 2 >= self.columns.len() {
            let gone = (floats.lo, histograms.lo);
            self.columns.drop_front(gone.0, gone.1);
            self.weights.drain(..gone.1);
            self.state.drop_front(gone.0);
            floats.drop_front(gone.0);
            histograms.drop_front(gone.1);
        }
    }

    /// Runs the function over the steps that were gathered.
    fn run(
        &mut self,
        labels: &model::Labels,
        cells: &mut [f64],
        histograms: &mut RowHistograms,
    ) -> Result<()> {
        let s = self.shared;
        let (range_ms, boundary) = (s.call.source.range_ms(), s.call.source.boundary());
        let mut env = Env {
            labels,
            scalars: [0.0; 2],
            range_ms,
            site: s.call.first_arg,
            args_site: s.call.site,
            notes: &mut self.notes,
            state: &mut self.state,
        };
        let columns = &self.columns;
        if let Some(run) = s.function.run_columns
            && columns.histograms.is_empty()
            && columns.float_starts.is_empty()
        {
            run(&Steps { columns, bounds: &self.bounds, range_ms, args: s.args }, &mut env, cells);
            self.bounds.clear();
            return Ok(());
        }
        for b in self.bounds.drain(..) {
            for (slot, column) in env.scalars.iter_mut().zip(s.args) {
                *slot = column[b.step];
            }
            let window = Window {
                columns,
                float_range: b.floats,
                histogram_range: b.histograms,
                ts_ms: s.grid.at(b.step),
                start_ms: b.end_ms - range_ms,
                end_ms: b.end_ms,
                boundary,
            };
            cells[b.step] = match (s.function.run)(&window, &mut env)? {
                Cell::Absent => ABSENT,
                Cell::Float(v) => batch::clean(v),
                Cell::Histogram(value) => {
                    histograms.push((b.step, value));
                    ABSENT
                }
            };
        }
        Ok(())
    }
}

/// What the histograms from `lo` up to, without, `hi` count.
fn weight_between(weights: &[u64], lo: usize, hi: usize) -> u64 {
    if weights.is_empty() { 0 } else { weights[hi] - weights[lo] }
}

/// A window that moves over sorted times.
#[derive(Clone, Copy, Default)]
struct Cursor {
    lo: usize,
    hi: usize,
    /// How far the ends moved last: samples come at even intervals and so do steps.
    lo_by: usize,
    hi_by: usize,
}

impl Cursor {
    /// Moves on so that the window holds the times in `(from, to]`.
    #[inline]
    fn move_to(&mut self, times: &[i64], from: i64, to: i64) {
        let (lo, hi) = (seek(times, self.lo, self.lo_by, from), seek(times, self.hi, self.hi_by, to));
        self.lo_by = lo - self.lo;
        self.hi_by = hi - self.hi;
        (self.lo, self.hi) = (lo.min(hi), hi);
    }

    fn len(&self) -> usize {
        self.hi - self.lo
    }

    fn range(&self) -> (usize, usize) {
        (self.lo, self.hi)
    }

    fn drop_front(&mut self, gone: usize) {
        self.lo -= gone;
        self.hi -= gone;
    }
}

/// The samples of a row as those of a series. What hints say about resets holds between neighbours in storage, not
/// between steps.
fn columns_of_row(inner: &Grid, rows: &Batch, row: usize, out: &mut SeriesColumns) {
    use model::histogram::CounterResetHint::{CounterReset, NotCounterReset, Unknown};
    out.clear();
    for (step, v) in rows.row(row).iter().enumerate() {
        if is_float(*v) {
            out.float_ts.push(inner.at(step));
            out.floats.push(*v);
        } else if !is_absent(*v)
            && let Some(h) = rows.histogram(row, step)
        {
            let mut h = h.clone();
            if matches!(h.counter_reset_hint, CounterReset | NotCounterReset) {
                std::sync::Arc::make_mut(&mut h).counter_reset_hint = Unknown;
            }
            out.histogram_ts.push(inner.at(step));
            out.histograms.push(h);
        }
    }
}
