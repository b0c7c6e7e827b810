//! Iterating over the buckets of a float histogram, from either end.
//!
//! Histograms come from disks and networks: where spans and buckets do not fit each other, the shorter side counts.

use super::bounds::upper_bound;
use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Span};

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether observations at the lower bound are in it.
    pub lower_inclusive: bool,
    /// Whether observations at the upper bound are in it.
    pub upper_inclusive: bool,
    /// Its observations.
    pub count: f64,
    /// Index within the schema; 0 for the zero bucket.
    pub index: i32,
}

/// Index and count of the buckets of one side, in the order of their indexes: away from zero. Reversible.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    spans: &'a [Span],
    buckets: &'a [f64],
    /// Cells still to be given.
    remaining: usize,
    front: Cursor,
    back: Cursor,
}

/// The next cell to give from one end.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    span: usize,
    /// Cells of the span before this one; from the back, cells of the span up to and including this one.
    in_span: u32,
    bucket: usize,
    index: i32,
}

impl<'a> Cells<'a> {
    /// The cells that `spans` and `buckets` describe.
    #[must_use]
    pub fn new(spans: &'a [Span], buckets: &'a [f64]) -> Self {
        let mut left = buckets.len();
        let mut back = Cursor::default();
        // Both ends walk over the spans that have buckets; the last of them may be cut short.
        for (i, span) in spans.iter().enumerate() {
            if left == 0 {
                break;
            }
            let len = left.min(span.length as usize);
            left -= len;
            back.index = back.index.wrapping_add(span.offset).wrapping_add(len as i32);
            back.bucket += len;
            if len > 0 {
                (back.span, back.in_span) = (i, len as u32);
            }
        }
        let remaining = back.bucket;
        let index = spans.first().map_or(0, |s| s.offset);
        Self { spans, buckets, remaining, front: Cursor { index, ..Cursor::default() }, back }
    }
}

impl Iterator for Cells<'_> {
    type Item = (i32, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let at = &mut self.front;
        while at.in_span >= self.spans.get(at.span)?.length {
            at.in_span = 0;
            at.span += 1;
            at.index = at.index.wrapping_add(self.spans.get(at.span)?.offset);
        }
        let out = (at.index, *self.buckets.get(at.bucket)?);
        at.in_span += 1;
        at.bucket += 1;
        at.index = at.index.wrapping_add(1);
        self.remaining -= 1;
        Some(out)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl DoubleEndedIterator for Cells<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let at = &mut self.back;
        while at.in_span == 0 {
            at.index = at.index.wrapping_sub(self.spans.get(at.span)?.offset);
            at.span = at.span.checked_sub(1)?;
            at.in_span = self.spans.get(at.span)?.length;
        }
        at.in_span -= 1;
        at.bucket = at.bucket.checked_sub(1)?;
        at.index = at.index.wrapping_sub(1);
        self.remaining -= 1;
        Some((at.index, *self.buckets.get(at.bucket)?))
    }
}

impl ExactSizeIterator for Cells<'_> {}

/// Collects cells in rising order of their indexes into spans and buckets.
#[derive(Debug, Default)]
pub(super) struct SideBuilder {
    pub(super) spans: Vec<Span>,
    pub(super) buckets: Vec<f64>,
    /// Index after the last cell.
    next: i32,
}

impl SideBuilder {
    pub(super) fn with_capacity(buckets: usize) -> Self {
        Self { spans: Vec::new(), buckets: Vec::with_capacity(buckets), next: 0 }
    }

    /// Adds a cell. An index that does not rise (only in histograms that are not valid) makes a span with a negative
    /// offset, as it was.
    pub(super) fn push(&mut self, index: i32, count: f64) {
        match self.spans.last_mut() {
            Some(last) if index == self.next => last.length += 1,
            Some(_) => self.spans.push(Span { offset: index.wrapping_sub(self.next), length: 1 }),
            None => self.spans.push(Span { offset: index, length: 1 }),
        }
        self.buckets.push(count);
        self.next = index.wrapping_add(1);
    }

    /// Index of the last cell.
    pub(super) fn last_index(&self) -> Option<i32> {
        self.spans.last().map(|_| self.next.wrapping_sub(1))
    }
}

impl FloatHistogram {
    /// Whether the bounds are `custom_values`.
    #[must_use]
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Index and count of the positive buckets, upwards.
    #[must_use]
    pub fn positive_cells(&self) -> Cells<'_> {
        Cells::new(&self.positive_spans, &self.positive_buckets)
    }

    /// Index and count of the negative buckets, from zero downwards.
    #[must_use]
    pub fn negative_cells(&self) -> Cells<'_> {
        Cells::new(&self.negative_spans, &self.negative_buckets)
    }

    /// The positive buckets, upwards; reverse it for downwards.
    pub fn positive(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        self.positive_cells().map(|(index, count)| self.bucket(index, count, true))
    }

    /// The negative buckets, from zero downwards; reverse it for upwards.
    pub fn negative(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        self.negative_cells().map(|(index, count)| self.bucket(index, count, false))
    }

    /// The zero bucket.
    #[must_use]
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
            index: 0,
        }
    }

    /// All buckets upwards: negative ones, the zero bucket if anything is in it, positive ones; reverse it for downwards.
    /// A bucket that overlaps the zero bucket begins or ends at the zero threshold.
    pub fn all_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        let clip = |mut b: Bucket| {
            if b.upper < 0.0 && b.upper > -self.zero_threshold {
                b.upper = -self.zero_threshold;
            } else if b.lower > 0.0 && b.lower < self.zero_threshold {
                b.lower = self.zero_threshold;
            }
            b
        };
        self.negative().rev().map(clip).chain(zero).chain(self.positive().map(clip))
    }

    fn bucket(&self, index: i32, count: f64, positive: bool) -> Bucket {
        let far = upper_bound(index, self.schema, &self.custom_values);
        let near = upper_bound(index.wrapping_sub(1), self.schema, &self.custom_values);
        let (lower, upper) = if positive { (near, far) } else { (-far, -near) };
        let custom = self.uses_custom_buckets();
        Bucket {
            lower,
            upper,
            lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
            upper_inclusive: custom || upper > 0.0,
            count,
            index,
        }
    }
}
