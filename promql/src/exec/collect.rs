//! Makes the answer of the rows at the root: drops names that were kept back, brings rows with equal labels together,
//! sorts.

use model::Labels;

use super::batch::{Batch, Cell, Head};
use super::context::{Context, without_metadata};
use super::duplicates::same_labelset;
use super::operator::BoxOperator;
use super::ranges::push_row;
use crate::error::Result;
use crate::hash::FastMap;
use crate::plan::Grid;
use crate::value::{MatrixSeries, PointValue, VectorSample};

/// The samples at the only step, in the order they come.
pub(crate) fn vector(ctx: &Context<'_>, mut root: BoxOperator<'_>, ts_ms: i64) -> Result<Vec<VectorSample>> {
    let (mut rows, mut out) = (Batch::new(), Vec::new());
    let mut seen: FastMap<Labels, usize> = FastMap::default();
    let mut bytes = ctx.memory.hold();
    while root.next(&mut rows)? {
        ctx.check()?;
        let before = out.len();
        for (i, head) in rows.heads.iter().enumerate() {
            let value = match rows.cell(i, 0) {
                Cell::Absent => continue,
                Cell::Float(v) => PointValue::Float(v),
                Cell::Histogram(h) => PointValue::Histogram(h),
            };
            let labels = final_labels(ctx, head);
            if let Some(at) = seen.get(&labels) {
                // A float and a histogram become one series, of which the histogram is shown.
                let kept: &mut VectorSample = &mut out[*at];
                match (&kept.value, &value) {
                    (PointValue::Float(_), PointValue::Histogram(_)) => kept.value = value,
                    (PointValue::Histogram(_), PointValue::Float(_)) => {}
                    _ => return Err(same_labelset()),
                }
                continue;
            }
            seen.insert(labels.clone(), out.len());
            out.push(VectorSample { labels, timestamp_ms: ts_ms, value });
        }
        ctx.hold((out.len() - before) as u64)?;
        // The rows, and their labels once more among those seen.
        bytes.add(2 * rows.bytes())?;
    }
    Ok(out)
}

/// The samples at all steps, sorted by labels.
pub(crate) fn matrix(ctx: &Context<'_>, mut root: BoxOperator<'_>, grid: Grid) -> Result<Vec<MatrixSeries>> {
    let mut rows = Batch::new();
    let mut merge = Merge::default();
    let mut bytes = ctx.memory.hold();
    while root.next(&mut rows)? {
        ctx.check()?;
        ctx.hold(rows.samples())?;
        for (i, head) in rows.heads.iter().enumerate() {
            let labels = final_labels(ctx, head);
            let mut s = MatrixSeries { labels, ..MatrixSeries::default() };
            push_row(&mut s, &rows, i, grid);
            bytes.add(s.bytes())?;
            merge.add(s);
        }
    }
    ctx.sorting(|| merge.finish())
}

/// Like [`matrix`], of series that are made already.
pub(crate) fn ranges(ctx: &Context<'_>, all: Vec<(MatrixSeries, bool)>) -> Result<Vec<MatrixSeries>> {
    let mut merge = Merge::default();
    for (mut s, drop_name) in all {
        let head = Head { labels: std::mem::take(&mut s.labels), drop_name };
        s.labels = final_labels(ctx, &head);
        merge.add(s);
    }
    ctx.sorting(|| merge.finish())
}

/// Only names that were kept back are dropped here.
fn final_labels(ctx: &Context<'_>, head: &Head) -> Labels {
    if head.drop_name && ctx.delayed_names() { without_metadata(&head.labels) } else { head.labels.clone() }
}

/// Series, brought together at the end: most come sorted already, and then nothing is to be done.
#[derive(Default)]
struct Merge {
    all: Vec<MatrixSeries>,
}

impl Merge {
    fn add(&mut self, s: MatrixSeries) {
        if !s.floats.is_empty() || !s.histograms.is_empty() {
            self.all.push(s);
        }
    }

    /// The series sorted by labels. Those with the same labels become one; their samples must lie at different times.
    fn finish(mut self) -> Result<Vec<MatrixSeries>> {
        if self.all.is_sorted_by(|a, b| a.labels < b.labels) {
            return Ok(self.all);
        }
        self.all.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut out: Vec<MatrixSeries> = Vec::with_capacity(self.all.len());
        for s in self.all {
            match out.last_mut().filter(|kept| kept.labels == s.labels) {
                Some(kept) => join(kept, s)?,
                None => out.push(s),
            }
        }
        Ok(out)
    }
}

fn join(kept: &mut MatrixSeries, s: MatrixSeries) -> Result<()> {
    kept.floats.extend(s.floats);
    kept.histograms.extend(s.histograms);
    kept.floats.sort_by_key(|(t, _)| *t);
    kept.histograms.sort_by_key(|(t, _)| *t);
    let twice = kept.floats.windows(2).any(|w| w[0].0 == w[1].0)
        || kept.histograms.windows(2).any(|w| w[0].0 == w[1].0);
    if twice { Err(same_labelset()) } else { Ok(()) }
}
