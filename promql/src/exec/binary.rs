//! Binary operators between two vectors, set operators aside. The "one" side is read first and kept by match group; the
//! "many" side is streamed. For one-to-many the sides are swapped and the values swapped back.

use std::sync::Arc;

use model::labels::{METRIC_NAME, TYPE_LABEL, UNIT_LABEL};
use model::{Labels, LabelsBuilder};

use super::batch::{ABSENT, Batch, Cell, Head, clean, is_absent, is_float};
use super::binary_scalar::note_element_error;
use super::bitmap::StepBits;
use super::context::Context;
use super::duplicates::Duplicates;
use super::matching::{Groups, group_labels};
use super::memory::{HeldBytes, labels_bytes};
use super::operator::{BoxOperator, Operator};
use crate::annotations::{HistogramOperation, Note};
use crate::error::{QueryError, Result};
use crate::functions::histogram as hist;
use crate::functions::math::{arithmetic, changes_meaning, compare};
use crate::hash::FastMap;
use crate::parser::ast::{BinaryOp, MatchCardinality, VectorMatching};
use crate::plan::Grid;
use crate::plan::node::Binary;

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
    /// Steps at which the "many" side has anything.
    many_present: StepBits,
    conflict: Option<Conflict>,
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

/// Two rows of the "one" side that share a group at some steps.
struct Conflict {
    steps: StepBits,
    text: String,
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
            many_present: StepBits::new(grid.count),
            conflict: None,
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
                self.find_conflict(group, head, rows.row(i))?;
                let row = self.kept.push_copy(head.clone(), &rows, i);
                self.by_group[group].push(row);
            }
        }
        Ok(())
    }

    /// Whether two rows share a group at a step is an error only when the other side has something there.
    fn find_conflict(&mut self, group: usize, head: &Head, row: &[f64]) -> Result<()> {
        for (i, other) in self.by_group[group].iter().enumerate() {
            if i % ROWS_PER_CHECK == ROWS_PER_CHECK - 1 {
                self.ctx.check()?;
            }
            let both = |s: &usize| !is_absent(row[*s]) && !is_absent(self.kept.row(*other)[*s]);
            let steps: Vec<usize> = (0..row.len()).filter(both).collect();
            if steps.is_empty() {
                continue;
            }
            let conflict = self.conflict.get_or_insert_with(|| Conflict {
                steps: StepBits::new(row.len()),
                text: conflict_text(self.matching, &head.labels, &self.kept.heads[*other].labels),
            });
            steps.into_iter().for_each(|s| conflict.steps.set(s));
        }
        Ok(())
    }

    fn check_conflict(&self) -> Result<()> {
        let Some(c) = &self.conflict else { return Ok(()) };
        let hit =
            (0..self.grid.count).any(|s| c.steps.get(s) && (self.has_fill() || self.many_present.get(s)));
        if hit { Err(QueryError::Execution(c.text.clone())) } else { Ok(()) }
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
        if self.duplicates.is_some() && self.results.len() < len {
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
        let grouped = self.duplicates.is_some();
        for step in 0..self.grid.count {
            let Some((many, one)) = pair(self, step) else { continue };
            let (l, r) = if self.swapped() { (&one, &many) } else { (&many, &one) };
            let combined = match combine(self.node.op, l, r) {
                Ok(c) => c,
                Err(e) => {
                    note_element_error(self.ctx, self.node, e);
                    continue;
                }
            };
            if combined.reconciled {
                self.ctx.note(self.node.site, Note::MismatchedCustomBuckets(operation(self.node.op)));
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
        if self.duplicates.is_some()
            || self.has_fill()
            || !rows.histograms.is_empty()
            || !self.kept.histograms.is_empty()
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
            self.keep_one_side()?;
            self.stage = Stage::Stream;
        }
        if self.stage == Stage::Stream {
            let mut rows = Batch::new();
            if self.many.next(&mut rows)? {
                // Twins on the "one" side are complained about before anything that they lead to.
                (0..rows.rows()).for_each(|row| self.many_present.add_row(rows.row(row)));
                self.check_conflict()?;
                self.combine_rows(&rows, out)?;
            } else {
                self.stage = Stage::Done;
                self.check_conflict()?;
                match self.matching.fill_left {
                    Some(fill) => self.combine_leftovers(fill, out)?,
                    None => return Ok(false),
                }
            }
        } else {
            return Ok(false);
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
        self.ctx.release(self.kept.samples() + self.held);
    }
}

fn many_to_one() -> QueryError {
    QueryError::execution(
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
    )
}

fn conflict_text(matching: &VectorMatching, a: &Labels, b: &Labels) -> String {
    let side = if matching.card == MatchCardinality::OneToMany { "left" } else { "right" };
    let (mut x, mut y) = (braced(a), braced(b));
    if x > y {
        std::mem::swap(&mut x, &mut y);
    }
    format!(
        "found duplicate series for the match group {} on the {side} hand-side of the operation: [{x}, {y}];many-to-many matching not allowed: matching labels must be unique on one side",
        braced(&group_labels(matching, a)),
    )
}

/// All labels between braces, the name among them.
pub(crate) fn braced(labels: &Labels) -> String {
    use std::fmt::Write;
    let mut out = String::from("{");
    for (i, (n, v)) in labels.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        let value = model::labels::Quoted(v);
        let _ = if model::labels::is_legacy_label_name(n) {
            write!(out, "{comma}{n}={value}")
        } else {
            write!(out, "{comma}{}={value}", model::labels::Quoted(n))
        };
    }
    out.push('}');
    out
}

fn result_labels(
    many: &Labels,
    one: &Labels,
    op: BinaryOp,
    matching: &VectorMatching,
    drop_now: bool,
) -> Labels {
    let drops = drop_now || changes_meaning(op);
    let one_to_one = matching.card == MatchCardinality::OneToOne;
    let keep = |n: &str| {
        if drops && matches!(n, METRIC_NAME | TYPE_LABEL | UNIT_LABEL) {
            return false;
        }
        !one_to_one || matching.labels.iter().any(|l| l == n) == matching.on
    };
    let labels = many.filter(keep);
    if matching.include.is_empty() {
        return labels;
    }
    let mut b = LabelsBuilder::from_labels(&labels);
    for name in &matching.include {
        b.set(name, one.value(name));
    }
    b.build()
}

/// Outcome of an operator between two samples.
pub(crate) struct Combined {
    pub(crate) value: Cell,
    pub(crate) keep: bool,
    /// Custom bucket bounds differed.
    pub(crate) reconciled: bool,
}

/// Why two samples do not combine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ElementError {
    /// Kinds of the two sides.
    Types(&'static str, &'static str),
    /// Bucket schemas do not fit.
    Layout,
    /// One side was reset, the other was not.
    Collision,
}

impl ElementError {
    pub(crate) fn note(self, op: BinaryOp) -> Option<Note<'static>> {
        Some(match self {
            Self::Types(lhs, rhs) => Note::IncompatibleTypes { lhs, op: op.as_str(), rhs },
            Self::Layout => Note::IncompatibleBucketLayout(op.as_str()),
            Self::Collision => Note::CounterResetCollision(operation(op)),
        })
    }
}

fn operation(op: BinaryOp) -> HistogramOperation {
    if op == BinaryOp::Sub { HistogramOperation::Subtraction } else { HistogramOperation::Addition }
}

/// The operator between two samples.
pub(crate) fn combine(op: BinaryOp, l: &Cell, r: &Cell) -> std::result::Result<Combined, ElementError> {
    let plain = |value: Cell| Ok(Combined { value, keep: true, reconciled: false });
    let shared = |h| plain(Cell::Histogram(Arc::new(h)));
    match (l, r) {
        (Cell::Float(a), Cell::Float(b)) => {
            if let Some(v) = arithmetic(op, *a, *b) {
                return plain(Cell::Float(clean(v)));
            }
            match compare(op, *a, *b) {
                Some(keep) => Ok(Combined { value: l.clone(), keep, reconciled: false }),
                None => Err(ElementError::Types("float", "float")),
            }
        }
        (Cell::Float(a), Cell::Histogram(h)) => match op {
            BinaryOp::Mul => shared(hist::scaled(h, *a)),
            _ => Err(ElementError::Types("float", "histogram")),
        },
        (Cell::Histogram(h), Cell::Float(b)) => match op {
            BinaryOp::Mul => shared(hist::scaled(h, *b)),
            BinaryOp::Div => shared(hist::divided(h, *b)),
            BinaryOp::TrimUpper => shared(hist::trimmed(h, *b, true)),
            BinaryOp::TrimLower => shared(hist::trimmed(h, *b, false)),
            _ => Err(ElementError::Types("histogram", "float")),
        },
        (Cell::Histogram(a), Cell::Histogram(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => {
                let (h, outcome) = match op {
                    BinaryOp::Add => hist::sum(a, b),
                    _ => hist::difference(a, b),
                }
                .ok_or(ElementError::Layout)?;
                if outcome.collision {
                    return Err(ElementError::Collision);
                }
                let value = Cell::Histogram(Arc::new(h));
                Ok(Combined { value, keep: true, reconciled: outcome.reconciled })
            }
            BinaryOp::Eq | BinaryOp::NotEq => {
                let keep = hist::equal(a, b) == (op == BinaryOp::Eq);
                Ok(Combined { value: l.clone(), keep, reconciled: false })
            }
            _ => Err(ElementError::Types("histogram", "histogram")),
        },
        (Cell::Absent, _) | (_, Cell::Absent) => plain(Cell::Absent),
    }
}
