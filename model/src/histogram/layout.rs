//! Changing which buckets a histogram has without changing what it says: dropping empty ones, merging them into wider
//! ones, widening the zero bucket.
//!
//! Each works on a *side*: spans, buckets and, for compensated sums, one compensation per bucket.

use super::bounds::{is_exponential_schema, upper_bound};
use super::buckets::{Cells, SideBuilder};
use super::error::HistogramError;
use super::kahan::kahan_inc;
use super::{FloatHistogram, Span};

impl FloatHistogram {
    /// Drops empty buckets: those at the ends of spans, and runs of more than `max_empty` within. Gaps of at most
    /// `max_empty` between spans are filled with empty buckets.
    pub fn compact(&mut self, max_empty: usize) {
        compact_side(&mut self.positive_spans, &mut self.positive_buckets, None, max_empty);
        compact_side(&mut self.negative_spans, &mut self.negative_buckets, None, max_empty);
    }

    /// Merges exponential buckets into those of a lower schema.
    ///
    /// # Errors
    /// When either schema is not exponential, or `schema` is higher than that of the histogram.
    pub fn reduce_resolution(&mut self, schema: i32) -> Result<(), HistogramError> {
        if schema == self.schema {
            return Ok(());
        }
        check_resolution(self.schema, schema)?;
        for (spans, buckets) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            (*spans, *buckets) = merged(spans, buckets, self.schema, schema);
        }
        self.schema = schema;
        Ok(())
    }

    /// A copy with a lower schema, and no counter reset hint unless the schema is the same.
    ///
    /// # Errors
    /// As for [`FloatHistogram::reduce_resolution`].
    pub fn copy_to_schema(&self, schema: i32) -> Result<Self, HistogramError> {
        if schema == self.schema {
            return Ok(self.clone());
        }
        check_resolution(self.schema, schema)?;
        let (positive_spans, positive_buckets) =
            merged(&self.positive_spans, &self.positive_buckets, self.schema, schema);
        let (negative_spans, negative_buckets) =
            merged(&self.negative_spans, &self.negative_buckets, self.schema, schema);
        Ok(Self {
            schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            ..Self::default()
        })
    }

    // === Zero bucket ===

    /// What the zero bucket would hold with at least this threshold, and the threshold it would really have: one within a
    /// populated bucket moves to that bucket's far end.
    pub(super) fn zero_count_for(&self, threshold: f64, c: Option<&FloatHistogram>) -> ZeroBucket {
        if threshold == self.zero_threshold {
            // Nothing moves. Custom buckets have no zero bucket, and their bounds may lie on either side of zero.
            let compensation = c.map_or(0.0, |c| c.zero_count);
            return ZeroBucket { threshold, count: self.zero_count, compensation };
        }
        let mut wanted = threshold;
        loop {
            let mut zero = ZeroBucket {
                threshold: wanted,
                count: self.zero_count,
                compensation: c.map_or(0.0, |c| c.zero_count),
            };
            let positive =
                zero.absorb(self.positive_cells(), self.schema, c.map(|c| &c.positive_buckets[..]));
            if let Some(far_end) = positive {
                zero.threshold = far_end;
            }
            let negative =
                zero.absorb(self.negative_cells(), self.schema, c.map(|c| &c.negative_buckets[..]));
            match negative {
                // The positive buckets were looked at with a threshold that is too small.
                Some(far_end) if far_end > zero.threshold => wanted = far_end,
                _ => return zero,
            }
        }
    }

    /// Removes the buckets that lie within the zero bucket, which counts them already.
    fn drop_buckets_in_zero_bucket(&mut self, c: Option<&mut FloatHistogram>) {
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let inside = |spans: &[Span], buckets: &[f64]| {
            Cells::new(spans, buckets)
                .take_while(|(i, _)| upper_bound(i.wrapping_sub(1), schema, &[]) < threshold)
                .count()
        };
        let positive = inside(&self.positive_spans, &self.positive_buckets);
        let negative = inside(&self.negative_spans, &self.negative_buckets);
        self.positive_buckets[..positive].fill(0.0);
        self.negative_buckets[..negative].fill(0.0);
        let (mut cp, mut cn) = (None, None);
        if let Some(c) = c {
            c.positive_buckets.iter_mut().take(positive).for_each(|v| *v = 0.0);
            c.negative_buckets.iter_mut().take(negative).for_each(|v| *v = 0.0);
            (cp, cn) = (Some(&mut c.positive_buckets), Some(&mut c.negative_buckets));
        }
        compact_side(&mut self.positive_spans, &mut self.positive_buckets, cp, 0);
        compact_side(&mut self.negative_spans, &mut self.negative_buckets, cn, 0);
    }

    /// Widens the zero bucket until its threshold suits both histograms: not within a populated bucket of either.
    /// Returns what the zero bucket of `other`, which stays as it is, would hold.
    pub(super) fn reconcile_zero_buckets(
        &mut self,
        other: &FloatHistogram,
        mut c: Option<&mut FloatHistogram>,
    ) -> ZeroBucket {
        let mut theirs =
            ZeroBucket { threshold: other.zero_threshold, count: other.zero_count, compensation: 0.0 };
        loop {
            if self.zero_threshold > theirs.threshold {
                theirs = other.zero_count_for(self.zero_threshold, None);
            }
            // A threshold that is NaN ends here too.
            if theirs.threshold > self.zero_threshold {
                let ours = self.zero_count_for(theirs.threshold, c.as_deref());
                self.zero_count = ours.count;
                self.zero_threshold = ours.threshold;
                if let Some(c) = &mut c {
                    c.zero_count = ours.compensation;
                }
                self.drop_buckets_in_zero_bucket(c.as_deref_mut());
            } else {
                return theirs;
            }
            if self.zero_threshold == theirs.threshold {
                return theirs;
            }
        }
    }
}

/// A zero bucket with the compensation of its count.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZeroBucket {
    pub(super) threshold: f64,
    pub(super) count: f64,
    pub(super) compensation: f64,
}

impl ZeroBucket {
    /// Takes in the buckets of one side that begin below the threshold. When it lies within a populated bucket, returns
    /// the far end of that bucket.
    fn absorb(&mut self, cells: Cells<'_>, schema: i32, c: Option<&[f64]>) -> Option<f64> {
        for (i, (index, count)) in cells.enumerate() {
            if upper_bound(index.wrapping_sub(1), schema, &[]) >= self.threshold {
                return None;
            }
            (self.count, self.compensation) = kahan_inc(count, self.count, self.compensation);
            if let Some(more) = c.and_then(|c| c.get(i)) {
                (self.count, self.compensation) = kahan_inc(*more, self.count, self.compensation);
            }
            let far_end = upper_bound(index, schema, &[]);
            if far_end > self.threshold {
                return (count != 0.0).then_some(far_end);
            }
        }
        None
    }
}

// === Sides ===

pub(super) fn check_resolution(from: i32, to: i32) -> Result<(), HistogramError> {
    if is_exponential_schema(from) && is_exponential_schema(to) && to <= from {
        return Ok(());
    }
    Err(HistogramError::Resolution { from, to })
}

/// Index that a bucket has in a lower schema.
pub(super) fn target_index(index: i32, from: i32, to: i32) -> i32 {
    (index.wrapping_sub(1) >> (from - to)).wrapping_add(1)
}

/// A side with its buckets merged into those of a lower exponential schema.
pub(super) fn merged(spans: &[Span], buckets: &[f64], from: i32, to: i32) -> (Vec<Span>, Vec<f64>) {
    let mut out = SideBuilder::with_capacity(buckets.len());
    for (index, count) in Cells::new(spans, buckets) {
        let index = target_index(index, from, to);
        if out.last_index() != Some(index) {
            out.push(index, count);
        } else if let Some(last) = out.buckets.last_mut() {
            *last += count;
        }
    }
    (out.spans, out.buckets)
}

/// Like [`merged`], with compensations that go with the buckets; what merging loses goes into them.
pub(super) fn kahan_merged(
    spans: &[Span],
    buckets: &[f64],
    c: &[f64],
    from: i32,
    to: i32,
) -> (Vec<Span>, Vec<f64>, Vec<f64>) {
    let mut out = SideBuilder::with_capacity(buckets.len());
    let mut out_c: Vec<f64> = Vec::with_capacity(buckets.len());
    for (i, (index, count)) in Cells::new(spans, buckets).enumerate() {
        let index = target_index(index, from, to);
        let lost = c.get(i).copied().unwrap_or(0.0);
        if out.last_index() != Some(index) {
            out.push(index, count);
            out_c.push(lost);
        } else if let (Some(sum), Some(compensation)) = (out.buckets.last_mut(), out_c.last_mut()) {
            (*sum, *compensation) = kahan_inc(count, *sum, *compensation);
            (*sum, *compensation) = kahan_inc(lost, *sum, *compensation);
        }
    }
    (out.spans, out.buckets, out_c)
}

/// Drops empty cells; `c` holds compensations that go with the buckets.
pub(super) fn compact_side(
    spans: &mut Vec<Span>,
    buckets: &mut Vec<f64>,
    c: Option<&mut Vec<f64>>,
    max_empty: usize,
) {
    let tight = |(i, s): (usize, &Span)| s.length > 0 && (i == 0 || s.offset as i64 > max_empty as i64);
    if !buckets.contains(&0.0) && spans.iter().enumerate().all(tight) {
        return;
    }
    let mut out = SideBuilder::with_capacity(buckets.len());
    let mut out_c = Vec::new();
    for (i, (index, count)) in Cells::new(spans, buckets).enumerate() {
        let compensation = c.as_ref().and_then(|c| c.get(i)).copied().unwrap_or(0.0);
        if count == 0.0 && compensation == 0.0 {
            continue;
        }
        if let Some(last) = out.last_index() {
            let gap = i64::from(index) - i64::from(last) - 1;
            if gap > 0 && gap as u64 <= max_empty as u64 {
                for empty in 1..=gap as i32 {
                    out.push(last.wrapping_add(empty), 0.0);
                    out_c.push(0.0);
                }
            }
        }
        out.push(index, count);
        out_c.push(compensation);
    }
    (*spans, *buckets) = (out.spans, out.buckets);
    if let Some(c) = c {
        *c = out_c;
    }
}
