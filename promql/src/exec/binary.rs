//! Binary operators between two vectors, set operators aside. The "one" side is read first and kept by match group; the
//! "many" side is streamed. For one-to-many the sides are swapped and the values swapped back.
//!
//! Errors come as if the left side were evaluated to its end, then the right one, and only then both combined.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#vector-matching>.

pub(crate) mod element;
pub(crate) mod labels;

use std::collections::VecDeque;

use model::Labels;
use model::labels::{METRIC_NAME, TYPE_LABEL, UNIT_LABEL};

use super::batch::{ABSENT, Batch, Cell, Head, clean, is_absent, is_float};
use super::bitmap::StepBits;
use super::context::Context;
use super::duplicates::Duplicates;
use super::matching::{Groups, group_labels};
use super::memory::{HeldBytes, labels_bytes};
use super::operator::{BoxOperator, Operator, drain};
use crate::error::{QueryError, Result};
use crate::functions::math::{arithmetic, changes_meaning, compare};
use crate::hash::FastMap;
use crate::parser::ast::{BinaryOp, MatchCardinality, VectorMatching};
use crate::plan::Grid;
use crate::plan::node::Binary;
use element::{Told, combine};
use labels::{conflict_text, result_labels};

/// Rows that are looked at between two looks at the clock.
const ROWS_PER_CHECK: usize = 64;

pub(crate) struct VectorBinary<'q> {
    ctx: &'q Context<'q>,
    node: &'q Binary,
    matching: &'q VectorMatching,
    many: BoxOperator<'q>,
    one: Option<BoxOperator<'q>>,
    grid: Grid,
    groups: Groups<'q>,
    /// Rows of the "one" side and, by group, their numbers.
    kept: Batch,
    by_group: Vec<Vec<usize>>,
    /// Steps at which a group gave a result.
    matched: Vec<StepBits>,
    /// Results by group, for many-to-one.
    results: Vec<FastMap<Labels, StepBits>>,
    /// The first two rows of the "one" side, by step, that share a group there; empty when there are none at any step.
    conflicts: Vec<Option<(usize, usize)>>,
    /// Batches of the "many" side that were read ahead.
    ahead: VecDeque<Batch>,
    ahead_bytes: HeldBytes<'q>,
    told: Told,
    /// One series of the "one" side may have several partners.
    grouped: bool,
    duplicates: Option<Duplicates<'q>>,
    stage: Stage,
    held: u64,
    /// What lasts: the "one" side and what was found out about it.
    kept_bytes: HeldBytes<'q>,
    /// The rows that were handed on last.
    out_bytes: HeldBytes<'q>,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Begin,
    Stream,
    Done,
}

impl<'q> VectorBinary<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        node: &'q Binary,
        matching: &'q VectorMatching,
        lhs: BoxOperator<'q>,
        rhs: BoxOperator<'q>,
        grid: Grid,
    ) -> Self {
        let swapped = matching.card == MatchCardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let grouped = matching.card != MatchCardinality::OneToOne;
        Self {
            ctx,
            node,
            matching,
            many,
            one: Some(one),
            grid,
            groups: Groups::new(ctx, matching),
            kept: Batch::new(),
            by_group: Vec::new(),
            matched: Vec::new(),
            results: Vec::new(),
            conflicts: Vec::new(),
            ahead: VecDeque::new(),
            ahead_bytes: ctx.memory.hold(),
            told: Told::default(),
            grouped,
            duplicates: grouped.then(|| Duplicates::new(ctx)),
            stage: Stage::Begin,
            held: 0,
            kept_bytes: ctx.memory.hold(),
            out_bytes: ctx.memory.hold(),
        }
    }

    fn swapped(&self) -> bool {
        self.matching.card == MatchCardinality::OneToMany
    }

    fn has_fill(&self) -> bool {
        self.matching.fill_left.is_some() || self.matching.fill_right.is_some()
    }

    /// Reads the "one" side.
    fn keep_one_side(&mut self) -> Result<()> {
        self.kept.reset(self.grid.count);
        let Some(mut one) = self.one.take() else { return Ok(()) };
        let mut rows = Batch::new();
        while one.next(&mut rows)? {
            self.ctx.check()?;
            self.ctx.hold(rows.samples())?;
            self.kept_bytes.add(rows.bytes())?;
            for (i, head) in rows.heads.iter().enumerate() {
                if rows.row(i).iter().all(|v| is_absent(*v)) {
                    continue;
                }
                let group = self.groups.ordinal(&head.labels)?;
                if group >= self.by_group.len() {
                    self.by_group.resize_with(group + 1, Vec::new);
                }
                let row = self.kept.push_copy(head.clone(), &rows, i);
                self.find_conflict(group, row)?;
                self.by_group[group].push(row);
            }
        }
        Ok(())
    }

    /// Remembers the steps at which a new row of a group meets an older one.
    fn find_conflict(&mut self, group: usize, row: usize) -> Result<()> {
        let is_known =
            |(step, v): (usize, &f64)| is_absent(*v) || self.conflicts.get(step).is_some_and(Option::is_some);
        if self.kept.row(row).iter().enumerate().all(is_known) {
            return Ok(());
        }
        for (i, other) in self.by_group[group].iter().enumerate() {
            if i % ROWS_PER_CHECK == ROWS_PER_CHECK - 1 {
                self.ctx.check()?;
            }
            let both = self.kept.row(row).iter().zip(self.kept.row(*other));
            for (step, _) in both.enumerate().filter(|(_, (a, b))| !is_absent(**a) && !is_absent(**b)) {
                if self.conflicts.is_empty() {
                    self.kept_bytes.add((self.grid.count * size_of::<Option<(usize, usize)>>()) as u64)?;
                    self.conflicts.resize(self.grid.count, None);
                }
                self.conflicts[step].get_or_insert((*other, row));
            }
        }
        Ok(())
    }

    /// That rows share a group at a step is an error only where the other side has something. So all of that is read
    /// first, and kept.
    fn check_conflicts(&mut self) -> Result<()> {
        if self.conflicts.is_empty() {
            return Ok(());
        }
        let mut present = StepBits::new(self.grid.count);
        let mut rows = Batch::new();
        while self.many.next(&mut rows)? {
            self.ctx.check()?;
            self.ctx.hold(rows.samples())?;
            self.ahead_bytes.add(rows.bytes())?;
            (0..rows.rows()).for_each(|row| present.add_row(rows.row(row)));
            self.ahead.push_back(std::mem::take(&mut rows));
        }
        let matters = |step: &usize| self.has_fill() || present.get(*step);
        let first = (0..self.grid.count).filter(matters).find_map(|step| self.conflicts[step]);
        match first {
            Some((a, b)) => {
                let labels = |row: usize| &self.kept.heads[row].labels;
                Err(QueryError::Execution(conflict_text(self.matching, labels(b), labels(a))))
            }
            None => Ok(()),
        }
    }

    /// Whether different match groups may give results with the same labels: when they differ in labels that are dropped.
    fn may_meet(&self) -> bool {
        let drops = changes_meaning(self.node.op) || (self.node.return_bool && !self.ctx.delayed_names());
        let dropped = |n: &str| matches!(n, METRIC_NAME | TYPE_LABEL | UNIT_LABEL);
        if !drops || (self.ctx.delayed_names() && !self.grid.is_range) {
            return false;
        }
        if self.matching.on {
            return self.matching.labels.iter().any(|n| dropped(n));
        }
        let typed = |head: &Head| head.labels.contains(TYPE_LABEL) || head.labels.contains(UNIT_LABEL);
        self.has_fill() || self.kept.heads.iter().any(typed)
    }

    /// The next rows of the "many" side.
    fn next_many(&mut self, rows: &mut Batch) -> Result<bool> {
        match self.ahead.pop_front() {
            Some(batch) => {
                self.ctx.release(batch.samples());
                self.ahead_bytes.set(self.ahead.iter().map(Batch::bytes).sum())?;
                *rows = batch;
                Ok(true)
            }
            None => self.many.next(rows),
        }
    }

    fn combine_rows(&mut self, rows: &Batch, out: &mut Batch) -> Result<()> {
        out.reserve_rows(rows.rows());
        for row in 0..rows.rows() {
            if row % ROWS_PER_CHECK == ROWS_PER_CHECK - 1 {
                self.ctx.check()?;
            }
            if !self.combine_floats(rows, row, out)? {
                self.combine_row(rows, row, out)?;
            }
        }
        Ok(())
    }

    /// Rows for one row of the "many" side.
    fn combine_row(&mut self, rows: &Batch, row: usize, out: &mut Batch) -> Result<()> {
        let values = rows.row(row);
        if values.iter().all(|v| is_absent(*v)) {
            return Ok(());
        }
        let labels = rows.heads[row].labels.clone();
        let fill = self.matching.fill_right;
        let group = match fill {
            Some(_) => self.groups.ordinal(&labels)?,
            None => match self.groups.find(&labels) {
                Some(g) => g,
                None => return Ok(()),
            },
        };
        self.grow(group)?;
        let ones = self.by_group.get(group).cloned().unwrap_or_default();
        for one in &ones {
            let one_labels = self.kept.heads[*one].labels.clone();
            let at = self.push_result(&labels, &one_labels, out);
            self.fill_cells(group, out, at, |me, step| {
                let other = me.kept.row(*one)[step];
                (!is_absent(values[step]) && !is_absent(other))
                    .then(|| (rows.cell(row, step), me.kept.cell(*one, step)))
            })?;
        }
        if let Some(fill) = fill {
            let missing = |me: &Self, step: usize| {
                ones.iter().all(|o| is_absent(me.kept.row(*o)[step])) && !is_absent(values[step])
            };
            if (0..values.len()).any(|s| missing(self, s)) {
                let at = self.push_result(&labels, &group_labels(self.matching, &labels), out);
                self.fill_cells(group, out, at, |me, step| {
                    missing(me, step).then(|| (rows.cell(row, step), Cell::Float(fill)))
                })?;
            }
        }
        Ok(())
    }

    /// Rows for the steps at which the "one" side found no partner.
    fn combine_leftovers(&mut self, fill: f64, out: &mut Batch) -> Result<()> {
        for group in 0..self.by_group.len() {
            self.ctx.check()?;
            self.grow(group)?;
            let matched = self.matched[group].clone();
            for one in self.by_group[group].clone() {
                let labels = self.kept.heads[one].labels.clone();
                let at = self.push_result(&group_labels(self.matching, &labels), &labels, out);
                self.fill_cells(group, out, at, |me, step| {
                    let there = !is_absent(me.kept.row(one)[step]) && !matched.get(step);
                    there.then(|| (Cell::Float(fill), me.kept.cell(one, step)))
                })?;
            }
        }
        Ok(())
    }

    fn grow(&mut self, group: usize) -> Result<()> {
        let steps = self.grid.count;
        let len = self.groups.len().max(group + 1);
        if self.matched.len() < len {
            let added = (len - self.matched.len()) as u64;
            self.kept_bytes.add(added * StepBits::bytes(steps))?;
            self.matched.resize_with(len, || StepBits::new(steps));
        }
        if self.grouped && self.results.len() < len {
            self.results.resize_with(len, FastMap::default);
        }
        Ok(())
    }

    fn push_result(&self, many: &Labels, one: &Labels, out: &mut Batch) -> usize {
        let drop_now = !self.ctx.delayed_names() && self.node.return_bool;
        let labels = result_labels(many, one, self.node.op, self.matching, drop_now);
        out.push_row(Head { labels, drop_name: self.node.return_bool })
    }

    /// Fills a result row: `pair` gives the cells of the "many" and the "one" side where both are there.
    fn fill_cells(
        &mut self,
        group: usize,
        out: &mut Batch,
        at: usize,
        pair: impl Fn(&Self, usize) -> Option<(Cell, Cell)>,
    ) -> Result<()> {
        let grouped = self.grouped;
        for step in 0..self.grid.count {
            let Some((many, one)) = pair(self, step) else { continue };
            let (l, r) = if self.swapped() { (&one, &many) } else { (&many, &one) };
            let combined = match combine(self.node.op, l, r) {
                Ok(c) => c,
                Err(e) => {
                    self.told.error(self.node.op, e, step);
                    continue;
                }
            };
            if combined.reconciled {
                self.told.reconciled(self.node.op, step);
            }
            if !grouped && self.matched[group].get(step) {
                return Err(many_to_one());
            }
            self.matched[group].set(step);
            if grouped {
                let labels = &out.heads[at].labels;
                let seen = match self.results[group].get_mut(labels) {
                    Some(bits) => bits,
                    None => {
                        self.kept_bytes.add(labels_bytes(labels) + StepBits::bytes(self.grid.count))?;
                        self.results[group]
                            .entry(labels.clone())
                            .or_insert_with(|| StepBits::new(self.grid.count))
                    }
                };
                if seen.get(step) {
                    return Err(QueryError::execution(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    ));
                }
                seen.set(step);
            }
            let value = match (self.node.return_bool, combined.keep) {
                (true, keep) => Cell::Float(f64::from(keep)),
                (false, true) => combined.value,
                (false, false) => Cell::Absent,
            };
            out.set(at, step, value);
        }
        Ok(())
    }

    /// The fast path: one partner, floats only, no grouping. `false` when it does not apply.
    fn combine_floats(&mut self, rows: &Batch, row: usize, out: &mut Batch) -> Result<bool> {
        if self.grouped || self.has_fill() || !rows.histograms.is_empty() || !self.kept.histograms.is_empty()
        {
            return Ok(false);
        }
        let labels = &rows.heads[row].labels;
        let Some(group) = self.groups.find(labels) else { return Ok(true) };
        let one = match self.by_group.get(group).map(Vec::as_slice) {
            Some([one]) => *one,
            _ => return Ok(false),
        };
        if self.node.op == BinaryOp::TrimLower || self.node.op == BinaryOp::TrimUpper {
            return Ok(false);
        }
        self.grow(group)?;
        let labels = labels.clone();
        let at = self.push_result(&labels, &self.kept.heads[one].labels, out);
        let (op, return_bool) = (self.node.op, self.node.return_bool);
        let partners = self.kept.row(one);
        let matched = &mut self.matched[group];
        let mut twice = false;
        for (step, (cell, (l, r))) in
            out.row_mut(at).iter_mut().zip(rows.row(row).iter().zip(partners)).enumerate()
        {
            if !is_float(*l) || !is_float(*r) {
                continue;
            }
            if matched.get(step) {
                twice = true;
                break;
            }
            matched.set(step);
            *cell = match arithmetic(op, *l, *r) {
                Some(v) => clean(v),
                None => match compare(op, *l, *r) {
                    Some(holds) if return_bool => f64::from(holds),
                    Some(true) => *l,
                    _ => ABSENT,
                },
            };
        }
        if twice { Err(many_to_one()) } else { Ok(true) }
    }
}

impl Operator for VectorBinary<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        self.ctx.check()?;
        self.ctx.release(std::mem::take(&mut self.held));
        if self.stage == Stage::Begin {
            self.stage = Stage::Stream;
            if let Err(e) = self.keep_one_side() {
                if !self.swapped() {
                    drain(self.ctx, &mut *self.many)?;
                }
                return Err(e);
            }
            self.check_conflicts()?;
            if self.may_meet() {
                self.duplicates.get_or_insert_with(|| Duplicates::new(self.ctx));
            }
        }
        if self.stage == Stage::Done {
            return Ok(false);
        }
        let mut rows = Batch::new();
        if self.next_many(&mut rows)? {
            if let Err(e) = self.combine_rows(&rows, out) {
                drain(self.ctx, &mut *self.many)?;
                return Err(e);
            }
        } else {
            self.stage = Stage::Done;
            let fill = self.matching.fill_left;
            if let Some(fill) = fill {
                self.combine_leftovers(fill, out)?;
            }
            self.told.tell(self.ctx, self.node);
            if fill.is_none() {
                return Ok(false);
            }
        }
        if let Some(d) = &mut self.duplicates {
            d.check(out)?;
        }
        self.held = out.samples();
        self.ctx.hold(self.held)?;
        self.out_bytes.set(out.bytes())?;
        Ok(true)
    }
}

impl Drop for VectorBinary<'_> {
    fn drop(&mut self) {
        let ahead: u64 = self.ahead.iter().map(Batch::samples).sum();
        self.ctx.release(self.kept.samples() + self.held + ahead);
    }
}

fn many_to_one() -> QueryError {
    QueryError::execution(
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
    )
}
