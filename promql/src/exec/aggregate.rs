//! Aggregations that fold samples as they arrive: `sum`, `avg`, `min`, `max`, `count`, `group`, `stddev`, `stdvar`. What
//! is kept is one accumulator per group and step. [`quantile`] needs all samples and is on its own.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#aggregation-operators>.

pub(crate) mod groups;
pub(crate) mod histograms;
pub(crate) mod quantile;

use super::batch::{Batch, Head, clean, is_absent, is_float};
use super::context::Context;
use super::memory::HeldBytes;
use super::operator::{BoxOperator, Operator};
use crate::annotations::Note;
use crate::error::Result;
use crate::functions::kahan;
use crate::parser::ast::AggregateOp;
use crate::plan::node::Aggregate;
use groups::Grouping;
use histograms::HistogramGroups;

/// The operator of an aggregation.
pub(crate) fn build<'q>(
    ctx: &'q Context<'q>,
    node: &'q Aggregate,
    input: BoxOperator<'q>,
) -> BoxOperator<'q> {
    match node.op {
        AggregateOp::Sum => fold::<Sum>(ctx, node, input),
        AggregateOp::Avg => fold::<Avg>(ctx, node, input),
        AggregateOp::Min => fold::<Min>(ctx, node, input),
        AggregateOp::Max => fold::<Max>(ctx, node, input),
        AggregateOp::Count => fold::<Count>(ctx, node, input),
        AggregateOp::Stddev => fold::<Stddev>(ctx, node, input),
        AggregateOp::Stdvar => fold::<Stdvar>(ctx, node, input),
        _ => fold::<Group>(ctx, node, input),
    }
}

fn fold<'q, A: Accumulator + 'q>(
    ctx: &'q Context<'q>,
    node: &'q Aggregate,
    input: BoxOperator<'q>,
) -> BoxOperator<'q> {
    Box::new(Fold::<A> {
        ctx,
        node,
        input: Some(input),
        grouping: Grouping::new(ctx, node),
        cells: Vec::new(),
        drop_name: Vec::new(),
        histograms: HistogramGroups::new(ctx, node),
        done: 0,
        steps: 0,
        held: 0,
        bytes: ctx.memory.hold(),
    })
}

/// Folds floats.
trait Accumulator: Default + Clone + Send {
    /// How histograms are taken.
    const HISTOGRAMS: Histograms;

    fn add(&mut self, v: f64);

    /// The result, of at least one sample.
    fn get(&self) -> f64;

    /// Whether nothing was added.
    fn is_empty(&self) -> bool;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Histograms {
    /// They are aggregated themselves.
    Folded,
    /// They are samples like any other.
    Counted,
    /// They are left out, with an info.
    Ignored,
}

struct Fold<'q, A> {
    ctx: &'q Context<'q>,
    node: &'q Aggregate,
    input: Option<BoxOperator<'q>>,
    grouping: Grouping<'q>,
    /// `[group][step]`
    cells: Vec<A>,
    drop_name: Vec<bool>,
    histograms: HistogramGroups<'q>,
    done: usize,
    steps: usize,
    held: u64,
    bytes: HeldBytes<'q>,
}

impl<A: Accumulator> Fold<'_, A> {
    fn fold_all(&mut self, mut input: BoxOperator<'_>) -> Result<()> {
        let mut rows = Batch::new();
        while input.next(&mut rows)? {
            self.ctx.check()?;
            self.steps = rows.steps();
            for row in 0..rows.rows() {
                self.fold_row(&rows, row)?;
            }
        }
        Ok(())
    }

    fn fold_row(&mut self, rows: &Batch, row: usize) -> Result<()> {
        let values = rows.row(row);
        if values.iter().all(|v| is_absent(*v)) {
            return Ok(());
        }
        let head = &rows.heads[row];
        let group = self.grouping.find(&head.labels)?;
        if group >= self.drop_name.len() {
            self.bytes.add((self.steps * size_of::<A>()) as u64)?;
            self.drop_name.push(false);
            self.held += self.steps as u64;
            self.ctx.hold(self.steps as u64)?;
            self.cells.resize((group + 1) * self.steps, A::default());
        }
        self.drop_name[group] |= head.drop_name;
        let cells = &mut self.cells[group * self.steps..(group + 1) * self.steps];
        if self.histograms.is_empty() {
            // The fast path: floats.
            for (cell, v) in cells.iter_mut().zip(values).filter(|(_, v)| is_float(**v)) {
                cell.add(*v);
            }
        } else {
            for (step, (cell, v)) in cells.iter_mut().zip(values).enumerate() {
                if is_float(*v) && !self.histograms.is_lost(group * self.steps + step) {
                    cell.add(*v);
                }
            }
        }
        let histograms = rows.row_histograms(row);
        for (step, h) in histograms.iter().enumerate() {
            let Some(h) = h.as_ref().filter(|_| !is_float(values[step]) && !is_absent(values[step])) else {
                continue;
            };
            match A::HISTOGRAMS {
                Histograms::Counted => cells[step].add(0.0),
                Histograms::Ignored => {
                    let name = self.node.op.as_str();
                    self.ctx.note(self.node.input_site, Note::HistogramIgnoredInAggregation(name));
                }
                Histograms::Folded => {
                    let (at, after_float) = (group * self.steps + step, !cells[step].is_empty());
                    self.histograms.add(self.ctx, at, h, &head.labels, after_float)?;
                }
            }
        }
        Ok(())
    }

    fn emit(&mut self, group: usize, out: &mut Batch) {
        let head = Head { labels: self.grouping.labels(group).clone(), drop_name: self.drop_name[group] };
        let row = out.push_row(head);
        for step in 0..self.steps {
            let at = group * self.steps + step;
            let cell = &self.cells[at];
            match self.histograms.take(self.ctx, at, !cell.is_empty()) {
                histograms::Taken::None if cell.is_empty() => {}
                histograms::Taken::None => out.row_mut(row)[step] = clean(cell.get()),
                histograms::Taken::Histogram(h) => out.set_histogram(row, step, h),
                histograms::Taken::Nothing => {}
            }
        }
    }
}

impl<A: Accumulator> Operator for Fold<'_, A> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        if let Some(input) = self.input.take() {
            self.fold_all(input)?;
        }
        out.reset(self.steps);
        let end = (self.done + super::exchange::rows_per_batch(self.steps)).min(self.drop_name.len());
        let range = self.done..end;
        self.done = end;
        for group in range.clone() {
            self.emit(group, out);
        }
        Ok(!range.is_empty())
    }
}

impl<A> Drop for Fold<'_, A> {
    fn drop(&mut self) {
        self.ctx.release(self.held);
    }
}

#[derive(Clone, Default)]
struct Sum {
    sum: f64,
    c: f64,
    some: bool,
}

impl Accumulator for Sum {
    const HISTOGRAMS: Histograms = Histograms::Folded;

    #[inline]
    fn add(&mut self, v: f64) {
        if self.some {
            (self.sum, self.c) = kahan::add(v, self.sum, self.c);
        } else {
            (self.sum, self.some) = (v, true);
        }
    }

    fn get(&self) -> f64 {
        self.sum + self.c
    }

    fn is_empty(&self) -> bool {
        !self.some
    }
}

#[derive(Clone, Default)]
struct Avg(kahan::Mean, bool);

impl Accumulator for Avg {
    const HISTOGRAMS: Histograms = Histograms::Folded;

    #[inline]
    fn add(&mut self, v: f64) {
        self.0.add(v);
        self.1 = true;
    }

    fn get(&self) -> f64 {
        self.0.get()
    }

    fn is_empty(&self) -> bool {
        !self.1
    }
}

macro_rules! extreme {
    ($name:ident, $better:tt) => {
        #[derive(Clone, Default)]
        struct $name(f64, bool);

        impl Accumulator for $name {
            const HISTOGRAMS: Histograms = Histograms::Ignored;

            #[inline]
            fn add(&mut self, v: f64) {
                if !self.1 || v $better self.0 || self.0.is_nan() {
                    *self = Self(v, true);
                }
            }

            fn get(&self) -> f64 {
                self.0
            }

            fn is_empty(&self) -> bool {
                !self.1
            }
        }
    };
}

extreme!(Min, <);
extreme!(Max, >);

#[derive(Clone, Default)]
struct Count(u64);

impl Accumulator for Count {
    const HISTOGRAMS: Histograms = Histograms::Counted;

    #[inline]
    fn add(&mut self, _: f64) {
        self.0 += 1;
    }

    fn get(&self) -> f64 {
        self.0 as f64
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

#[derive(Clone, Default)]
struct Group(bool);

impl Accumulator for Group {
    const HISTOGRAMS: Histograms = Histograms::Counted;

    #[inline]
    fn add(&mut self, _: f64) {
        self.0 = true;
    }

    fn get(&self) -> f64 {
        1.0
    }

    fn is_empty(&self) -> bool {
        !self.0
    }
}

/// Welford's method. The first value, when it is no number, makes the outcome none.
#[derive(Clone, Default)]
struct Variance {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Variance {
    #[inline]
    fn add(&mut self, v: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = v;
            self.squares = if v.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let delta = v - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (v - self.mean);
    }
}

macro_rules! variance {
    ($name:ident, $result:expr) => {
        #[derive(Clone, Default)]
        struct $name(Variance);

        impl Accumulator for $name {
            const HISTOGRAMS: Histograms = Histograms::Ignored;

            #[inline]
            fn add(&mut self, v: f64) {
                self.0.add(v);
            }

            fn get(&self) -> f64 {
                let result: fn(f64) -> f64 = $result;
                result(self.0.squares / self.0.count)
            }

            fn is_empty(&self) -> bool {
                self.0.count == 0.0
            }
        }
    };
}

variance!(Stdvar, |v| v);
variance!(Stddev, f64::sqrt);
