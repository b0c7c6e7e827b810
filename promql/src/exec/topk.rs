//! Aggregations that pick series: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! The last two decide as rows stream by. The first two keep, for every group and step, up to twice `k` candidates and
//! cut them down to `k` when that many have come together.

use std::cmp::Ordering;

use super::aggregate::groups::Grouping;
use super::batch::{ABSENT, Batch, Head, is_absent, is_float, rows_bytes};
use super::context::Context;
use super::memory::{HeldBytes, labels_bytes};
use super::operator::{BoxOperator, Operator};
use super::scalar::Scalar;
use crate::annotations::Note;
use crate::error::{QueryError, Result};
use crate::functions::format::format_g;
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
    /// `topk`, `bottomk`: `[group][step]`.
    candidates: Vec<Vec<Candidate>>,
    /// Rows that candidates refer to.
    heads: Vec<Head>,
    /// The outcome, made at the end of the input.
    ready: Option<Batch>,
    held: u64,
    bytes: HeldBytes<'q>,
}

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
            candidates: Vec::new(),
            heads: Vec::new(),
            ready: None,
            held: 0,
            bytes: ctx.memory.hold(),
        }
    }

    /// Works out the parameter. `false` when nothing can be picked.
    fn prepare(&mut self, mut param: Scalar<'q>) -> Result<bool> {
        self.params = param.column()?;
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
        if max >= i64::MAX as f64 {
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
            let offset = out.heads[i].labels.prometheus_hash64() as f64 / u64::MAX as f64;
            for (v, r) in out.row_mut(i).iter_mut().zip(&self.params) {
                let r = r.clamp(-1.0, 1.0);
                let keep = if r >= 0.0 { offset < r } else { offset >= 1.0 + r };
                if r == 0.0 || !keep {
                    *v = ABSENT;
                }
            }
        }
    }

    fn rank(&mut self, mut input: BoxOperator<'_>) -> Result<Batch> {
        let (mut rows, steps) = (Batch::new(), self.grid.count);
        let bottom = self.node.op == AggregateOp::Bottomk;
        while input.next(&mut rows)? {
            self.ctx.check()?;
            for (i, head) in rows.heads.iter().enumerate() {
                let values = rows.row(i);
                if values.iter().any(|v| !is_float(*v) && !is_absent(*v)) {
                    self.ctx.note(self.node.site, Note::HistogramIgnoredInAggregation(self.node.op.as_str()));
                }
                if !values.iter().any(|v| is_float(*v)) {
                    continue;
                }
                let group = self.grouping.find(&head.labels)?;
                if self.grouping.len() * steps > self.candidates.len() {
                    self.account(steps as i64)?;
                    self.bytes.add((steps * size_of::<Vec<Candidate>>()) as u64)?;
                    self.candidates.resize_with(self.grouping.len() * steps, Vec::new);
                }
                let row = u32::try_from(self.heads.len())
                    .map_err(|_| QueryError::TooManySamples("query execution"))?;
                self.bytes.add(labels_bytes(&head.labels))?;
                self.heads.push(head.clone());
                let cells = &mut self.candidates[group * steps..(group + 1) * steps];
                // Candidates that are dropped leave their room to later ones.
                let (mut added, mut grown) = (0, 0);
                for ((cell, v), k) in cells.iter_mut().zip(values).zip(&self.params) {
                    if !is_float(*v) || *k < 1.0 {
                        continue;
                    }
                    let k = *k as usize;
                    let room = cell.capacity();
                    cell.push(Candidate { value: *v, row });
                    grown += cell.capacity() - room;
                    added += 1;
                    if cell.len() >= k.saturating_mul(2).max(16) {
                        cell.select_nth_unstable_by(k - 1, |a, b| better(bottom, a, b));
                        added -= (cell.len() - k) as i64;
                        cell.truncate(k);
                    }
                }
                self.account(added)?;
                self.bytes.add((grown * size_of::<Candidate>()) as u64)?;
            }
        }
        self.result(bottom)
    }

    fn account(&mut self, added: i64) -> Result<()> {
        if added >= 0 {
            self.held += added as u64;
            return self.ctx.hold(added as u64);
        }
        self.held = self.held.saturating_sub(added.unsigned_abs());
        self.ctx.release(added.unsigned_abs());
        Ok(())
    }

    /// Rows of the picked series: best first, group after group, when there is one step; else in order of arrival.
    fn result(&mut self, bottom: bool) -> Result<Batch> {
        let steps = self.grid.count;
        let mut out = Batch::new();
        out.reset(steps);
        let mut row_of: Vec<Option<usize>> = vec![None; self.heads.len()];
        for (at, cell) in self.candidates.iter_mut().enumerate() {
            let step = at % steps;
            if at % CELLS_PER_CHECK == 0 {
                self.ctx.check()?;
            }
            cell.sort_unstable_by(|a, b| better(bottom, a, b));
            cell.truncate(self.params.get(step).map_or(0, |k| *k as usize));
            if steps == 1 {
                for c in cell.iter() {
                    let row = out.push_row(self.heads[c.row as usize].clone());
                    out.row_mut(row)[0] = c.value;
                }
                continue;
            }
            cell.iter().for_each(|c| row_of[c.row as usize] = Some(0));
        }
        if steps == 1 {
            self.bytes.add(out.bytes())?;
            return Ok(out);
        }
        let picked = row_of.iter().flatten().count();
        self.bytes.add(rows_bytes(picked, steps))?;
        out.reserve_rows(picked);
        for (head, row) in self.heads.iter().zip(row_of.iter_mut()).filter(|(_, r)| r.is_some()) {
            *row = Some(out.push_row(head.clone()));
        }
        for (at, cell) in self.candidates.iter().enumerate() {
            for c in cell {
                if let Some(row) = row_of[c.row as usize] {
                    out.row_mut(row)[at % steps] = c.value;
                }
            }
        }
        Ok(out)
    }
}

/// Better ones first, NaN last, of equal ones the earlier first.
fn better(bottom: bool, a: &Candidate, b: &Candidate) -> Ordering {
    let by_value = match (a.value.is_nan(), b.value.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let o = a.value.partial_cmp(&b.value).unwrap_or(Ordering::Equal);
            if bottom { o } else { o.reverse() }
        }
    };
    by_value.then(a.row.cmp(&b.row))
}

impl Operator for Pick<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        if let Some(param) = self.param.take()
            && !self.prepare(param)?
        {
            self.input = None;
        }
        if matches!(self.node.op, AggregateOp::Topk | AggregateOp::Bottomk) {
            if let Some(input) = self.input.take() {
                self.ready = Some(self.rank(input)?);
            }
            return match self.ready.take() {
                Some(batch) => {
                    *out = batch;
                    Ok(true)
                }
                None => Ok(false),
            };
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
