//! Layout of integer histograms: dropping empty buckets and merging them into wider ones, without a detour through floats,
//! which would round counts above 2^53.
//!
//! The counterpart for float histograms is `layout`, which says more about each step.

use super::error::HistogramError;
use super::layout::{check_resolution, target_index};
use super::{Histogram, Span};

impl Histogram {
    /// Drops empty buckets: those at the ends of spans, and runs of more than `max_empty` within. Gaps of at most
    /// `max_empty` between spans are filled with empty buckets.
    pub fn compact(&mut self, max_empty: usize) {
        compact_side(&mut self.positive_spans, &mut self.positive_buckets, max_empty);
        compact_side(&mut self.negative_spans, &mut self.negative_buckets, max_empty);
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
            let mut out = Side::default();
            for (index, count) in cells(spans, buckets) {
                let index = target_index(index, self.schema, schema);
                if out.spans.is_empty() || out.next != index.wrapping_add(1) {
                    out.push(index, count);
                } else if let Some(last) = out.counts.last_mut() {
                    *last = last.wrapping_add(count);
                }
            }
            (*spans, *buckets) = out.finish();
        }
        self.schema = schema;
        Ok(())
    }
}

fn compact_side(spans: &mut Vec<Span>, buckets: &mut Vec<i64>, max_empty: usize) {
    let tight = |(i, s): (usize, &Span)| s.length > 0 && (i == 0 || i64::from(s.offset) > max_empty as i64);
    let empty = cells(spans, buckets).any(|(_, count)| count == 0);
    if !empty && spans.iter().enumerate().all(tight) {
        return;
    }
    let mut out = Side::default();
    for (index, count) in cells(spans, buckets).filter(|(_, count)| *count != 0) {
        if !out.spans.is_empty() {
            let gap = i64::from(index) - i64::from(out.next);
            if gap > 0 && gap as u64 <= max_empty as u64 {
                (0..gap).for_each(|_| out.push(out.next, 0));
            }
        }
        out.push(index, count);
    }
    (*spans, *buckets) = out.finish();
}

/// Index and absolute count of each bucket. Where spans and buckets do not fit, the shorter side counts.
fn cells<'a>(spans: &'a [Span], deltas: &'a [i64]) -> impl Iterator<Item = (i32, i64)> + 'a {
    let mut next = 0_i32;
    let indexes = spans.iter().flat_map(move |s| {
        let first = next.wrapping_add(s.offset);
        next = first.wrapping_add(s.length as i32);
        (0..s.length).map(move |i| first.wrapping_add(i as i32))
    });
    let counts = deltas.iter().scan(0_i64, |count, delta| {
        *count = count.wrapping_add(*delta);
        Some(*count)
    });
    indexes.zip(counts)
}

/// A side under construction, with absolute counts.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    counts: Vec<i64>,
    /// Index after the last bucket.
    next: i32,
}

impl Side {
    fn push(&mut self, index: i32, count: i64) {
        match self.spans.last_mut() {
            Some(last) if index == self.next => last.length += 1,
            Some(_) => self.spans.push(Span { offset: index.wrapping_sub(self.next), length: 1 }),
            None => self.spans.push(Span { offset: index, length: 1 }),
        }
        self.counts.push(count);
        self.next = index.wrapping_add(1);
    }

    fn finish(mut self) -> (Vec<Span>, Vec<i64>) {
        let mut before = 0_i64;
        for count in &mut self.counts {
            let delta = count.wrapping_sub(before);
            before = *count;
            *count = delta;
        }
        (self.spans, self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn side() -> impl Strategy<Value = (Vec<Span>, Vec<i64>)> {
        let span = (0..4_i32, 0..5_u32, proptest::collection::vec(0..3_i64, 5));
        proptest::collection::vec(span, 0..5).prop_map(|spans| {
            let mut counts = Vec::new();
            let spans = spans.iter().enumerate().map(|(i, (offset, length, values))| {
                counts.extend_from_slice(&values[..*length as usize]);
                Span { offset: if i == 0 { offset - 2 } else { *offset }, length: *length }
            });
            let spans = spans.collect();
            let deltas = counts.iter().scan(0, |before, c| Some(c - std::mem::replace(before, *c)));
            (spans, deltas.collect())
        })
    }

    proptest! {
        /// Small counts are exact as floats, so both kinds must agree.
        #[test]
        fn agrees_with_float_histograms(positive in side(), negative in side(), max_empty in 0..3_usize, lower in 0..4_i32) {
            let mut int = Histogram {
                schema: 2,
                positive_spans: positive.0,
                positive_buckets: positive.1,
                negative_spans: negative.0,
                negative_buckets: negative.1,
                ..Histogram::default()
            };
            let mut float = int.to_float();
            int.compact(max_empty);
            float.compact(max_empty);
            prop_assert_eq!(int.to_float(), float.clone());
            int.reduce_resolution(2 - lower).expect("a lower schema");
            float.reduce_resolution(2 - lower).expect("a lower schema");
            prop_assert_eq!(int.to_float(), float);
        }
    }

    #[test]
    fn large_counts_stay_exact() {
        let mut h = Histogram {
            schema: 1,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: vec![(1 << 53) + 1, 0],
            ..Histogram::default()
        };
        h.reduce_resolution(0).expect("a lower schema");
        assert_eq!((h.positive_buckets, h.schema), (vec![(1 << 54) + 2], 0));
    }
}
