//! Makes the answer of the rows at the root: drops names that were kept back, brings rows with equal labels together,
//! sorts.

use std::collections::HashMap;

use model::Labels;

use super::batch::{Batch, Cell};
use super::context::{Context, without_metadata};
use super::duplicates::same_labelset;
use super::operator::BoxOperator;
use super::ranges::push_row;
use crate::error::Result;
use crate::plan::Grid;
use crate::value::{MatrixSeries, PointValue, VectorSample};

/// The samples at the only step, in the order they come.
pub(crate) fn vector(ctx: &Context<'_>, mut root: BoxOperator<'_>, ts_ms: i64) -> Result<Vec<VectorSample>> {
    let (mut rows, mut out) = (Batch::new(), Vec::new());
    let mut seen = std::collections::HashSet::new();
    while root.next(&mut rows)? {
        ctx.check()?;
        let before = out.len();
        for (i, head) in rows.heads.iter().enumerate() {
            let value = match rows.cell(i, 0) {
                Cell::Absent => continue,
                Cell::Float(v) => PointValue::Float(v),
                Cell::Histogram(h) => PointValue::Histogram(h),
            };
            let labels = final_labels(&head.labels, head.drop_name);
            if !seen.insert(labels.clone()) {
                return Err(same_labelset());
            }
            out.push(VectorSample { labels, timestamp_ms: ts_ms, value });
        }
        ctx.hold((out.len() - before) as u64)?;
    }
    Ok(out)
}

/// The samples at all steps, sorted by labels.
pub(crate) fn matrix(ctx: &Context<'_>, mut root: BoxOperator<'_>, grid: Grid) -> Result<Vec<MatrixSeries>> {
    let mut rows = Batch::new();
    let mut merge = Merge::default();
    while root.next(&mut rows)? {
        ctx.check()?;
        ctx.hold(rows.samples())?;
        for (i, head) in rows.heads.iter().enumerate() {
            let labels = final_labels(&head.labels, head.drop_name);
            let mut s = MatrixSeries { labels, ..MatrixSeries::default() };
            push_row(&mut s, &rows, i, grid);
            merge.add(s)?;
        }
    }
    Ok(merge.finish())
}

/// Like [`matrix`], of series that are made already.
pub(crate) fn ranges(all: Vec<(MatrixSeries, bool)>) -> Result<Vec<MatrixSeries>> {
    let mut merge = Merge::default();
    for (mut s, drop_name) in all {
        s.labels = final_labels(&s.labels, drop_name);
        merge.add(s)?;
    }
    Ok(merge.finish())
}

fn final_labels(labels: &Labels, drop_name: bool) -> Labels {
    if drop_name { without_metadata(labels) } else { labels.clone() }
}

/// Series by their labels.
#[derive(Default)]
struct Merge {
    index: HashMap<Labels, usize>,
    out: Vec<MatrixSeries>,
}

impl Merge {
    /// Adds a series; one with the same labels takes its samples, which must lie at other times.
    fn add(&mut self, s: MatrixSeries) -> Result<()> {
        if s.floats.is_empty() && s.histograms.is_empty() {
            return Ok(());
        }
        let Some(at) = self.index.get(&s.labels) else {
            self.index.insert(s.labels.clone(), self.out.len());
            self.out.push(s);
            return Ok(());
        };
        let kept = &mut self.out[*at];
        kept.floats.extend(s.floats);
        kept.histograms.extend(s.histograms);
        kept.floats.sort_by_key(|(t, _)| *t);
        kept.histograms.sort_by_key(|(t, _)| *t);
        let twice = kept.floats.windows(2).any(|w| w[0].0 == w[1].0)
            || kept.histograms.windows(2).any(|w| w[0].0 == w[1].0);
        if twice { Err(same_labelset()) } else { Ok(()) }
    }

    fn finish(mut self) -> Vec<MatrixSeries> {
        self.out.sort_by(|a, b| a.labels.cmp(&b.labels));
        self.out
    }
}
