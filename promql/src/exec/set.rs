//! `and`, `or`, `unless`. `and` and `unless` read the right side into one bit per match group and step, then stream the
//! left side; `or` streams the left side first.
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
    lhs: BoxOperator<'q>,
    rhs: BoxOperator<'q>,
    grid: Grid,
    groups: Groups<'q>,
    /// Steps at which a group has something on the side that was read first.
    present: Vec<StepBits>,
    stage: Stage,
    duplicates: Option<Duplicates<'q>>,
    bytes: HeldBytes<'q>,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Begin,
    Left,
    Right,
}

impl<'q> SetOperator<'q> {
    pub(crate) fn new(
        ctx: &'q Context<'q>,
        op: BinaryOp,
        matching: &'q VectorMatching,
        lhs: BoxOperator<'q>,
        rhs: BoxOperator<'q>,
        grid: Grid,
    ) -> Self {
        // Rows of both sides may be equal; an instant query with delayed names finds out at its end.
        let check = op == BinaryOp::Or && (grid.count > 1 || !ctx.delayed_names());
        let duplicates = check.then(|| Duplicates::new(ctx));
        let groups = Groups::new(ctx, matching);
        let bytes = ctx.memory.hold();
        Self { ctx, op, lhs, rhs, grid, groups, present: Vec::new(), stage: Stage::Begin, duplicates, bytes }
    }

    fn remember(&mut self, rows: &Batch) -> Result<()> {
        for (i, head) in rows.heads.iter().enumerate() {
            if rows.row(i).iter().all(|v| is_absent(*v)) {
                continue;
            }
            let group = self.groups.ordinal(&head.labels)?;
            if group >= self.present.len() {
                self.bytes.add(StepBits::bytes(self.grid.count))?;
                self.present.resize_with(group + 1, || StepBits::new(self.grid.count));
            }
            self.present[group].add_row(rows.row(i));
        }
        Ok(())
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
        if self.stage == Stage::Begin {
            self.stage = Stage::Left;
            if self.op != BinaryOp::Or {
                let mut rows = Batch::new();
                loop {
                    match self.rhs.next(&mut rows) {
                        Ok(true) => self.remember(&rows)?,
                        Ok(false) => break,
                        Err(e) => {
                            // The error of the left side comes first.
                            drain(self.ctx, &mut *self.lhs)?;
                            return Err(e);
                        }
                    }
                    self.ctx.check()?;
                }
            }
        }
        if self.stage == Stage::Left {
            if self.lhs.next(out)? {
                match self.op {
                    BinaryOp::Or => self.remember(out)?,
                    op => self.filter(out, op == BinaryOp::And),
                }
                if let Some(d) = &mut self.duplicates {
                    d.check(out)?;
                }
                return Ok(true);
            }
            if self.op != BinaryOp::Or {
                return Ok(false);
            }
            self.stage = Stage::Right;
        }
        if !self.rhs.next(out)? {
            return Ok(false);
        }
        self.filter(out, false);
        if let Some(d) = &mut self.duplicates {
            d.check(out)?;
        }
        Ok(true)
    }
}
