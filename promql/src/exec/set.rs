//! `and`, `or`, `unless`. `and` and `unless` read the right side into one bit per match group and step, then stream the
//! left side; `or` streams one side after the other, and a chain of it is one operator with as many sides: each row is
//! looked at once, however long the chain.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#logical-set-binary-operators>.

use super::batch::{ABSENT, Batch, is_absent};
use super::bitmap::StepBits;
use super::context::Context;
use super::duplicates::Duplicates;
use super::matching::Groups;
use super::memory::HeldBytes;
use super::operator::{BoxOperator, Operator, drain};
use crate::error::Result;
use crate::parser::ast::{BinaryOp, VectorMatching};
use crate::plan::Grid;

pub(crate) struct SetOperator<'q> {
    ctx: &'q Context<'q>,
    op: BinaryOp,
    /// In order of the text; two but for `or`.
    sides: Vec<BoxOperator<'q>>,
    grid: Grid,
    groups: Groups<'q>,
    /// Steps at which a group has something on the side that was read first.
    present: Vec<StepBits>,
    /// Rows of the side of `or` that is read now, by group. They do not hide each other: they count once the side is read.
    fresh: Vec<(usize, StepBits)>,
    /// The side of `or` that is streamed; 0 for the others.
    at: usize,
    begun: bool,
    duplicates: Option<Duplicates<'q>>,
    bytes: HeldBytes<'q>,
}

impl<'q> SetOperator<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        op: BinaryOp,
        matching: &'q VectorMatching,
        sides: Vec<BoxOperator<'q>>,
        grid: Grid,
    ) -> Self {
        // Rows of both sides may be equal; an instant query with delayed names finds out at its end.
        let check = op == BinaryOp::Or && (grid.count > 1 || !ctx.delayed_names());
        let duplicates = check.then(|| Duplicates::new(ctx));
        let groups = Groups::new(ctx, matching);
        let bytes = ctx.memory.hold();
        Self {
            ctx,
            op,
            sides,
            grid,
            groups,
            present: Vec::new(),
            fresh: Vec::new(),
            at: 0,
            begun: false,
            duplicates,
            bytes,
        }
    }

    fn remember(&mut self, rows: &Batch) -> Result<()> {
        for (i, head) in rows.heads.iter().enumerate() {
            if rows.row(i).iter().all(|v| is_absent(*v)) {
                continue;
            }
            let mut bits = StepBits::new(self.grid.count);
            bits.add_row(rows.row(i));
            self.bytes.add(StepBits::bytes(self.grid.count))?;
            self.fresh.push((self.groups.ordinal(&head.labels)?, bits));
        }
        Ok(())
    }

    /// What was remembered counts from now on.
    fn settle(&mut self) -> Result<()> {
        for (group, bits) in self.fresh.drain(..) {
            match self.present.get_mut(group) {
                Some(present) => present.add(&bits),
                None => {
                    self.present.resize_with(group, || StepBits::new(self.grid.count));
                    self.present.push(bits);
                }
            }
        }
        self.bytes.set(self.present.len() as u64 * StepBits::bytes(self.grid.count))
    }

    fn read_right(&mut self) -> Result<()> {
        let Some(mut right) = self.sides.pop() else { return Ok(()) };
        let mut rows = Batch::new();
        loop {
            match right.next(&mut rows) {
                Ok(true) => self.remember(&rows)?,
                Ok(false) => return Ok(()),
                Err(e) => {
                    // The error of the left side comes first.
                    if let Some(left) = self.sides.first_mut() {
                        drain(self.ctx, &mut **left)?;
                    }
                    return Err(e);
                }
            }
            self.settle()?;
            self.ctx.check()?;
        }
    }

    /// Clears the cells whose group is, or is not, present.
    fn filter(&mut self, out: &mut Batch, keep_present: bool) {
        for i in 0..out.rows() {
            let group = self.groups.find(&out.heads[i].labels);
            let present = group.and_then(|g| self.present.get(g));
            let row = out.row_mut(i);
            match present {
                None if keep_present => row.fill(ABSENT),
                None => {}
                Some(bits) => {
                    for (step, v) in row.iter_mut().enumerate() {
                        if bits.get(step) != keep_present {
                            *v = ABSENT;
                        }
                    }
                }
            }
        }
    }
}

impl Operator for SetOperator<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        self.ctx.check()?;
        if self.op != BinaryOp::Or {
            if !std::mem::replace(&mut self.begun, true) {
                self.read_right()?;
            }
            let Some(left) = self.sides.first_mut() else { return Ok(false) };
            if !left.next(out)? {
                return Ok(false);
            }
            self.filter(out, self.op == BinaryOp::And);
            return Ok(true);
        }
        while let Some(side) = self.sides.get_mut(self.at) {
            if !side.next(out)? {
                self.at += 1;
                self.settle()?;
                continue;
            }
            if self.at > 0 {
                self.filter(out, false);
            }
            if self.at + 1 < self.sides.len() {
                self.remember(out)?;
            }
            if let Some(d) = &mut self.duplicates {
                d.check(out)?;
            }
            return Ok(true);
        }
        Ok(false)
    }
}
