//! Aggregations that pick series: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! The last two decide as rows stream by, over several steps. At a single step, where the order of rows shows, every group
//! keeps what it picks in a heap, as the first two do for every group and step. Which of equal values stay, and their
//! order, is what the heap makes of it.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#topk-and-bottomk>, `#limitk-and-limit_ratio`.

use super::aggregate::groups::Grouping;
use super::batch::{ABSENT, Batch, Head, is_absent, is_float, rows_bytes};
use super::context::Context;
use super::memory::{HeldBytes, histogram_bytes, labels_bytes};
use super::operator::{BoxOperator, Operator, drain};
use super::scalar::Scalar;
use crate::annotations::Note;
use crate::error::{QueryError, Result};
use crate::functions::format::format_g;
use crate::functions::sorting::{heap_push, heap_replace, sort_by};
use crate::parser::ast::AggregateOp;
use crate::plan::Grid;
use crate::plan::node::Aggregate;

/// Cells that are sorted between two looks at the clock.
const CELLS_PER_CHECK: usize = 1_024;

pub(crate) struct Pick<'q> {
    ctx: &'q Context<'q>,
    node: &'q Aggregate,
    input: Option<BoxOperator<'q>>,
    param: Option<Scalar<'q>>,
    /// The parameter at every step; empty when nothing can be picked.
    params: Vec<f64>,
    grid: Grid,
    grouping: Grouping<'q>,
    /// `limitk`: how many were picked, `[group][step]`.
    picked: Vec<u64>,
    /// Heaps of what was picked, `[group][step]`; the first to go is in front.
    heaps: Vec<Vec<Candidate>>,
    /// Series that candidates refer to.
    heads: Vec<Head>,
    /// `limitk`, `limit_ratio` at a single step: the rows picked, histograms among them.
    rows: Batch,
    held: u64,
    bytes: HeldBytes<'q>,
}

/// From here on, a number of series is refused: the largest float below 2^63.
const INT64_END: f64 = 9_223_372_036_854_774_784.0;

#[derive(Clone, Copy)]
struct Candidate {
    value: f64,
    row: u32,
}

impl<'q> Pick<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        node: &'q Aggregate,
        input: BoxOperator<'q>,
        param: Scalar<'q>,
        grid: Grid,
    ) -> Self {
        Self {
            ctx,
            node,
            input: Some(input),
            param: Some(param),
            params: Vec::new(),
            grid,
            grouping: Grouping::new(ctx, node),
            picked: Vec::new(),
            heaps: Vec::new(),
            heads: Vec::new(),
            rows: Batch::new(),
            held: 0,
            bytes: ctx.memory.hold(),
        }
    }

    /// Whether the parameter lets anything be picked at any step.
    fn can_pick(&self) -> Result<bool> {
        let max = self.params.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = self.params.iter().copied().fold(f64::INFINITY, f64::min);
        let nan = self.params.iter().any(|v| v.is_nan());
        if self.node.op == AggregateOp::LimitRatio {
            if max == 0.0 && min == 0.0 {
                return Ok(false);
            }
            if nan {
                return Err(QueryError::execution("Ratio value is NaN"));
            }
            for (got, capped_to, over) in [(max, 1.0, max > 1.0), (min, -1.0, min < -1.0)] {
                if over {
                    self.ctx.note(self.node.param_site, Note::InvalidRatio { got, capped_to });
                }
            }
            return Ok(true);
        }
        if !nan && max < 1.0 {
            return Ok(false);
        }
        if nan {
            return Err(QueryError::execution("Parameter value is NaN"));
        }
        if min <= i64::MIN as f64 {
            return Err(QueryError::Execution(format!("Scalar value {} underflows int64", format_g(min))));
        }
        if max >= INT64_END {
            return Err(QueryError::Execution(format!("Scalar value {} overflows int64", format_g(max))));
        }
        Ok(true)
    }

    fn limit(&mut self, out: &mut Batch) -> Result<()> {
        for i in 0..out.rows() {
            let group = self.grouping.find(&out.heads[i].labels)?;
            let steps = self.grid.count;
            self.bytes.at_least((self.grouping.len() * steps * size_of::<u64>()) as u64)?;
            self.picked.resize(self.grouping.len() * steps, 0);
            let picked = &mut self.picked[group * steps..(group + 1) * steps];
            for ((v, n), k) in out.row_mut(i).iter_mut().zip(picked).zip(&self.params) {
                if is_absent(*v) {
                    continue;
                }
                if *k >= 1.0 && *n < *k as u64 {
                    *n += 1;
                } else {
                    *v = ABSENT;
                }
            }
        }
        Ok(())
    }

    fn sample(&self, out: &mut Batch) {
        for i in 0..out.rows() {
            let offset = sample_offset(&out.heads[i]);
            for (v, ratio) in out.row_mut(i).iter_mut().zip(&self.params) {
                if !in_ratio(offset, *ratio) {
                    *v = ABSENT;
                }
            }
        }
    }

    /// Reads the input and picks into heaps.
    fn gather(&mut self, mut input: BoxOperator<'_>) -> Result<Batch> {
        let op = self.node.op;
        let ranks = matches!(op, AggregateOp::Topk | AggregateOp::Bottomk);
        self.rows.reset(self.grid.count);
        let mut rows = Batch::new();
        while input.next(&mut rows)? {
            self.ctx.check()?;
            for i in 0..rows.rows() {
                let group = self.grouping.find(&rows.heads[i].labels)?;
                let heaps = self.grouping.len() * self.grid.count;
                if self.heaps.len() < heaps {
                    self.hold(self.grid.count as u64)?;
                    self.bytes.add((self.grid.count * size_of::<Vec<Candidate>>()) as u64)?;
                    self.heaps.resize_with(heaps, Vec::new);
                }
                let added =
                    if ranks { self.rank_row(&rows, i, group)? } else { self.take_row(&rows, i, group)? };
                self.hold(added)?;
            }
        }
        if ranks { self.ranked() } else { self.taken() }
    }

    fn hold(&mut self, samples: u64) -> Result<()> {
        self.held += samples;
        self.ctx.hold(samples)
    }

    /// `topk`, `bottomk`: offers a row to the heaps of its group; gives the number of samples that are held more.
    fn rank_row(&mut self, rows: &Batch, i: usize, group: usize) -> Result<u64> {
        let (values, steps) = (rows.row(i), self.grid.count);
        let picks = |step: usize| self.params[step] >= 1.0;
        let is_histogram = |(step, v): (usize, &f64)| !is_float(*v) && !is_absent(*v) && picks(step);
        if values.iter().enumerate().any(is_histogram) {
            self.ctx.note(self.node.site, Note::HistogramIgnoredInAggregation(self.node.op.as_str()));
        }
        if !values.iter().any(|v| is_float(*v)) {
            return Ok(0);
        }
        let row =
            u32::try_from(self.heads.len()).map_err(|_| QueryError::TooManySamples("query execution"))?;
        let bottom = self.node.op == AggregateOp::Bottomk;
        let heaps = &mut self.heaps[group * steps..(group + 1) * steps];
        let (mut added, mut grown) = (0, 0);
        let mut used = false;
        for ((heap, v), k) in heaps.iter_mut().zip(values).zip(&self.params) {
            if !is_float(*v) || *k < 1.0 {
                continue;
            }
            let candidate = Candidate { value: *v, row };
            if (heap.len() as u64) < *k as u64 {
                let room = heap.capacity();
                heap_push(heap, candidate, |a, b| goes_first(bottom, a, b));
                grown += heap.capacity() - room;
                added += 1;
                used = true;
            } else if is_better(bottom, *v, heap[0].value) {
                heap_replace(heap, candidate, |a, b| goes_first(bottom, a, b));
                used = true;
            }
        }
        self.bytes.add((grown * size_of::<Candidate>()) as u64)?;
        if used {
            self.bytes.add(labels_bytes(&rows.heads[i].labels))?;
            self.heads.push(rows.heads[i].clone());
        }
        Ok(added)
    }

    /// `limitk`, `limit_ratio` at a single step: takes a row or leaves it; gives the number of samples that are held more.
    fn take_row(&mut self, rows: &Batch, i: usize, group: usize) -> Result<u64> {
        let (v, param) = (rows.row(i)[0], self.params[0]);
        let heap = &mut self.heaps[group];
        let takes = match self.node.op {
            AggregateOp::LimitRatio => in_ratio(sample_offset(&rows.heads[i]), param),
            _ => param >= 1.0 && (heap.len() as u64) < param as u64,
        };
        if is_absent(v) || !takes {
            return Ok(0);
        }
        // Twice: as it came and as it is handed on.
        self.bytes.add(2 * (rows_bytes(1, 1) + rows.histogram(i, 0).map_or(0, |h| histogram_bytes(h))))?;
        let row = self.rows.push_copy(rows.heads[i].clone(), rows, i);
        let row = u32::try_from(row).map_err(|_| QueryError::TooManySamples("query execution"))?;
        // A histogram has the place of a zero.
        let value = if is_float(v) { v } else { 0.0 };
        heap_push(heap, Candidate { value, row }, |a, b| goes_first(false, a, b));
        Ok(1)
    }

    /// Rows of the series that `topk` or `bottomk` picked: best first, group after group, when there is one step; else in
    /// order of arrival.
    fn ranked(&mut self) -> Result<Batch> {
        let steps = self.grid.count;
        let bottom = self.node.op == AggregateOp::Bottomk;
        let mut out = Batch::new();
        out.reset(steps);
        if steps == 1 {
            for (at, heap) in self.heaps.iter_mut().enumerate() {
                if at % CELLS_PER_CHECK == 0 {
                    self.ctx.check()?;
                }
                sort_by(heap, |a, b| goes_first(bottom, b, a));
                for c in heap.iter() {
                    let row = out.push_row(self.heads[c.row as usize].clone());
                    out.row_mut(row)[0] = c.value;
                }
            }
            self.bytes.add(out.bytes())?;
            return Ok(out);
        }
        let mut picked = vec![false; self.heads.len()];
        self.heaps.iter().flatten().for_each(|c| picked[c.row as usize] = true);
        let rows = picked.iter().filter(|p| **p).count();
        self.bytes.add(rows_bytes(rows, steps))?;
        out.reserve_rows(rows);
        let mut row_of = vec![0; self.heads.len()];
        for ((head, row), _) in self.heads.iter().zip(&mut row_of).zip(&picked).filter(|(_, p)| **p) {
            *row = out.push_row(head.clone());
        }
        for (at, heap) in self.heaps.iter().enumerate() {
            for c in heap {
                out.row_mut(row_of[c.row as usize])[at % steps] = c.value;
            }
        }
        Ok(out)
    }

    /// The rows that `limitk` or `limit_ratio` picked, group after group.
    fn taken(&mut self) -> Result<Batch> {
        let mut out = Batch::new();
        out.reset(self.grid.count);
        for c in self.heaps.iter().flatten() {
            let row = c.row as usize;
            out.push_copy(self.rows.heads[row].clone(), &self.rows, row);
        }
        Ok(out)
    }
}

/// Whether `a` comes before `b` in a heap, whose front is the first to go. NaN comes before everything, itself included.
fn goes_first(bottom: bool, a: &Candidate, b: &Candidate) -> bool {
    a.value.is_nan() || if bottom { a.value > b.value } else { a.value < b.value }
}

/// Whether a value takes the place of the one in front of a full heap.
fn is_better(bottom: bool, value: f64, front: f64) -> bool {
    let better = if bottom { front > value } else { front < value };
    better || (front.is_nan() && !value.is_nan())
}

/// Where a series stands between 0 and 1: by the hash of its labels, so that every query finds it at the same place.
fn sample_offset(head: &Head) -> f64 {
    head.labels.prometheus_hash64() as f64 / u64::MAX as f64
}

/// Whether `limit_ratio` picks the series at `offset`: a negative ratio picks what the positive rest does not.
fn in_ratio(offset: f64, ratio: f64) -> bool {
    let ratio = ratio.clamp(-1.0, 1.0);
    ratio != 0.0 && if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

impl Operator for Pick<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        if let Some(mut param) = self.param.take() {
            self.params = param.column()?;
            let can_pick = self.can_pick();
            if !matches!(can_pick, Ok(true))
                && let Some(mut input) = self.input.take()
            {
                // What the input has to tell, and its errors before ours.
                drain(self.ctx, &mut *input)?;
            }
            can_pick?;
        }
        let streams = matches!(self.node.op, AggregateOp::Limitk | AggregateOp::LimitRatio);
        if !streams || self.grid.count == 1 {
            let Some(input) = self.input.take() else { return Ok(false) };
            *out = self.gather(input)?;
            return Ok(true);
        }
        let Some(input) = &mut self.input else { return Ok(false) };
        if !input.next(out)? {
            return Ok(false);
        }
        match self.node.op {
            AggregateOp::LimitRatio => self.sample(out),
            _ => self.limit(out)?,
        }
        Ok(true)
    }
}

impl Drop for Pick<'_> {
    fn drop(&mut self) {
        self.ctx.release(self.held);
    }
}
