//! Batches: some series, all steps, as columns.
//!
//! Values lie series after series, one cell per step. A cell is absent, a float or a histogram. Absent cells and cells
//! whose histogram is in the side column carry two NaNs that no sample has: leaves replace these bit patterns in what
//! they read ([`clean`]), and the processor makes NaNs with other payloads.

use std::mem::size_of;
use std::sync::Arc;

use model::{FloatHistogram, Labels};

use super::memory::histograms_bytes;

const ABSENT_BITS: u64 = 0x7ffc_5eed_ab5e_a700;
const HISTOGRAM_BITS: u64 = ABSENT_BITS | 1;

/// Nothing at this step.
pub(crate) const ABSENT: f64 = f64::from_bits(ABSENT_BITS);
/// The value is in the histogram column.
pub(crate) const HISTOGRAM: f64 = f64::from_bits(HISTOGRAM_BITS);

/// Whether the cell is absent.
#[inline]
pub(crate) fn is_absent(v: f64) -> bool {
    v.to_bits() == ABSENT_BITS
}

/// Whether the cell holds a float.
#[inline]
pub(crate) fn is_float(v: f64) -> bool {
    v.to_bits() | 1 != HISTOGRAM_BITS
}

/// Whether the cell stands for a histogram.
#[inline]
pub(crate) fn is_histogram(v: f64) -> bool {
    v.to_bits() == HISTOGRAM_BITS
}

/// A value from outside, made safe to lie in a cell.
#[inline]
pub(crate) fn clean(v: f64) -> f64 {
    if is_float(v) { v } else { f64::NAN }
}

/// One cell, taken out.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Absent,
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// What a row is about.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) labels: Labels,
    /// The metric name goes away at the end of the query.
    pub(crate) drop_name: bool,
}

/// Rows of equal length.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    steps: usize,
    pub(crate) heads: Vec<Head>,
    /// `heads.len() * steps` cells.
    pub(crate) values: Vec<f64>,
    /// Empty, or as long as `values`.
    pub(crate) histograms: Vec<Option<Arc<FloatHistogram>>>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Forgets the rows, keeps the buffers.
    pub(crate) fn reset(&mut self, steps: usize) {
        self.steps = steps;
        self.heads.clear();
        self.values.clear();
        self.histograms.clear();
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    pub(crate) fn rows(&self) -> usize {
        self.heads.len()
    }

    /// Adds a row of absent cells; gives its index.
    pub(crate) fn push_row(&mut self, head: Head) -> usize {
        self.heads.push(head);
        self.values.resize(self.values.len() + self.steps, ABSENT);
        if !self.histograms.is_empty() {
            self.histograms.resize(self.values.len(), None);
        }
        self.heads.len() - 1
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.steps..(row + 1) * self.steps]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.values[row * self.steps..(row + 1) * self.steps]
    }

    /// Histograms of a row; empty when no row has one.
    pub(crate) fn row_histograms(&self, row: usize) -> &[Option<Arc<FloatHistogram>>] {
        if self.histograms.is_empty() {
            return &[];
        }
        &self.histograms[row * self.steps..(row + 1) * self.steps]
    }

    /// The histogram of a cell.
    pub(crate) fn histogram(&self, row: usize, step: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.get(row * self.steps + step).and_then(Option::as_ref)
    }

    pub(crate) fn set_histogram(&mut self, row: usize, step: usize, h: Arc<FloatHistogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.values.len(), None);
        }
        let at = row * self.steps + step;
        self.values[at] = HISTOGRAM;
        self.histograms[at] = Some(h);
    }

    /// Bytes held: columns, histograms and labels.
    pub(crate) fn bytes(&self) -> u64 {
        let columns = (self.values.capacity() + self.histograms.capacity()) * size_of::<f64>();
        let heads = self.heads.iter().map(|h| (size_of::<Head>() + h.labels.size_bytes()) as u64);
        columns as u64 + heads.sum::<u64>() + histograms_bytes(self.histograms.iter().flatten())
    }

    pub(crate) fn set(&mut self, row: usize, step: usize, cell: Cell) {
        match cell {
            Cell::Absent => self.values[row * self.steps + step] = ABSENT,
            Cell::Float(v) => self.values[row * self.steps + step] = v,
            Cell::Histogram(h) => self.set_histogram(row, step, h),
        }
    }

    pub(crate) fn cell(&self, row: usize, step: usize) -> Cell {
        let v = self.row(row)[step];
        if is_float(v) {
            return Cell::Float(v);
        }
        match self.histogram(row, step) {
            Some(h) if is_histogram(v) => Cell::Histogram(h.clone()),
            _ => Cell::Absent,
        }
    }

    /// Adds a copy of a row of another batch with the same number of steps.
    pub(crate) fn push_copy(&mut self, head: Head, from: &Batch, row: usize) -> usize {
        self.heads.push(head);
        self.values.extend_from_slice(from.row(row));
        let histograms = from.row_histograms(row);
        if histograms.iter().any(Option::is_some) {
            let before = self.values.len() - self.steps;
            self.histograms.resize(before, None);
            self.histograms.extend_from_slice(histograms);
        } else if !self.histograms.is_empty() {
            self.histograms.resize(self.values.len(), None);
        }
        self.heads.len() - 1
    }

    /// Makes room for rows, so that their columns are allocated once.
    pub(crate) fn reserve_rows(&mut self, rows: usize) {
        self.heads.reserve(rows);
        self.values.reserve_exact(rows.saturating_mul(self.steps));
    }

    /// Samples held, a histogram counting by its size.
    pub(crate) fn samples(&self) -> u64 {
        let cells = self.values.iter().filter(|v| is_float(**v)).count() as u64;
        cells + self.histograms.iter().flatten().map(|h| histogram_weight(h)).sum::<u64>()
    }
}

/// Bytes of so many rows of floats.
pub(crate) fn rows_bytes(rows: usize, steps: usize) -> u64 {
    (rows as u64).saturating_mul((steps as u64).saturating_mul(8).saturating_add(size_of::<Head>() as u64))
}

/// As how many samples a histogram counts, its timestamp included: samples are 16 bytes.
pub(crate) fn histogram_weight(h: &FloatHistogram) -> u64 {
    let spans = (h.positive_spans.len() + h.negative_spans.len()) * 8;
    let floats = (h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len()) * 8;
    ((spans + floats + 176) / 16) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str) -> Head {
        Head { labels: Labels::from_pairs([("n", name)]), drop_name: false }
    }

    #[test]
    fn cells_are_absent_float_or_histogram() {
        assert!(is_absent(ABSENT) && !is_float(ABSENT) && !is_float(HISTOGRAM) && is_histogram(HISTOGRAM));
        assert!(is_float(f64::NAN) && is_float(model::stale_nan()) && is_float(clean(ABSENT)));
    }

    #[test]
    fn copies_take_their_histograms_along() {
        let mut b = Batch::new();
        b.reset(2);
        for n in ["a", "b"] {
            b.push_row(head(n));
        }
        b.set_histogram(1, 1, Arc::new(FloatHistogram { count: 3.0, ..Default::default() }));
        let mut copy = Batch::new();
        copy.reset(2);
        copy.push_row(head("x"));
        copy.push_copy(head("y"), &b, 1);
        assert!(matches!(copy.cell(1, 1), Cell::Histogram(_)) && matches!(copy.cell(0, 1), Cell::Absent));
    }
}
