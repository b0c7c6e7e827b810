//! `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`. Only an instant query has an order to speak of: over
//! several steps rows pass through with a warning. The order of equal series is that of `functions/sorting`.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#sort> and the sections that follow it.

use super::batch::{ABSENT, Batch, Head, is_float};
use super::context::Context;
use super::operator::{BoxOperator, Builder, Operator, arg, text_arg};
use crate::annotations::Note;
use crate::error::Result;
use crate::functions::label::natural_less;
use crate::functions::sorting::sort_by;
use crate::plan::Grid;
use crate::plan::node::Call;

pub(crate) fn build<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
    if grid.is_range {
        b.ctx.note(c.site, Note::SortInRange);
    }
    let descending = c.func.ends_with("_desc");
    let labels = match c.func.starts_with("sort_by_label") {
        true => Some((1..c.args.len()).map(|i| text_arg(c, i)).collect::<Result<Vec<_>>>()?),
        false => None,
    };
    let input = b.vector(arg(c, 0)?, grid)?;
    Ok(Box::new(Sort { ctx: b.ctx, input: Some(input), labels, descending, grid }))
}

struct Sort<'q> {
    ctx: &'q Context<'q>,
    input: Option<BoxOperator<'q>>,
    /// By these labels; by value when `None`.
    labels: Option<Vec<&'q str>>,
    descending: bool,
    grid: Grid,
}

impl Operator for Sort<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        if self.grid.count > 1 {
            let Some(input) = &mut self.input else { return Ok(false) };
            let more = input.next(out)?;
            if self.labels.is_none() {
                // Histograms have no place in an order by value.
                out.histograms.clear();
                out.values.iter_mut().filter(|v| !is_float(**v)).for_each(|v| *v = ABSENT);
            }
            return Ok(more);
        }
        let Some(mut input) = self.input.take() else { return Ok(false) };
        let (mut all, mut rows) = (Batch::new(), Batch::new());
        let mut bytes = self.ctx.memory.hold();
        all.reset(self.grid.count);
        while input.next(&mut rows)? {
            self.ctx.check()?;
            // Twice: the rows as they came and as they are sorted.
            bytes.add(2 * rows.bytes())?;
            for r in 0..rows.rows() {
                let by_value = self.labels.is_none();
                if by_value && !rows.row(r).first().is_some_and(|v| is_float(*v)) {
                    continue;
                }
                self.ctx.hold(1)?;
                all.push_copy(rows.heads[r].clone(), &rows, r);
            }
        }
        let mut order: Vec<usize> = (0..all.rows()).collect();
        match &self.labels {
            Some(names) => sort_by(&mut order, |a, b| {
                before_by_labels(names, &all.heads[*a], &all.heads[*b], self.descending)
            }),
            None => sort_by(&mut order, |a, b| before(all.row(*a)[0], all.row(*b)[0], self.descending)),
        }
        for r in order {
            out.push_copy(all.heads[r].clone(), &all, r);
        }
        Ok(out.rows() > 0)
    }
}

/// NaN comes last either way.
fn before(a: f64, b: f64, descending: bool) -> bool {
    b.is_nan() || if descending { b < a } else { b > a }
}

/// Equal in all of them: by the whole label set, so that the order is always the same.
fn before_by_labels(names: &[&str], a: &Head, b: &Head, descending: bool) -> bool {
    let values = names.iter().map(|n| (a.labels.value(n), b.labels.value(n)));
    match values.into_iter().find(|(x, y)| x != y) {
        Some((x, y)) => natural_less(x, y) != descending,
        None if descending => b.labels < a.labels,
        None => a.labels < b.labels,
    }
}
