//! [`Expiring`]: references of series that have gone, but that the log still names.
//!
//! There may be as many of them as series in the head, and those that go together were mostly made together: bitmaps hold them in
//! next to nothing.

use std::collections::BTreeMap;

use model::SeriesRef;
use roaring::RoaringTreemap;

/// References, by the last segment of the log that may name them. One that is there for several segments counts for the last of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expiring {
    by_segment: BTreeMap<u32, RoaringTreemap>,
}

impl Expiring {
    pub(crate) fn add(&mut self, references: impl IntoIterator<Item = SeriesRef>, segment: u32) {
        let mut references = references.into_iter().map(|r| r.0).peekable();
        if references.peek().is_some() {
            self.by_segment.entry(segment).or_default().extend(references);
        }
    }

    /// Whether a segment after this one may name the reference.
    pub(crate) fn outlives(&self, segment: u32, reference: SeriesRef) -> bool {
        let after = (std::ops::Bound::Excluded(segment), std::ops::Bound::Unbounded);
        self.by_segment.range(after).any(|(_, references)| references.contains(reference.0))
    }

    /// Segments up to this one have gone.
    pub(crate) fn forget_upto(&mut self, segment: u32) {
        self.by_segment.retain(|s, _| *s > segment);
    }

    /// References with segments.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SeriesRef, u32)> {
        let of_segment = |(s, references): (&u32, _)| {
            let s = *s;
            RoaringTreemap::iter(references).map(move |r| (SeriesRef(r), s))
        };
        self.by_segment.iter().flat_map(of_segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_counts_until_the_last_segment_that_names_it_has_gone() {
        let mut expiring = Expiring::default();
        expiring.add([SeriesRef(5), SeriesRef(1 << 39)], 3);
        expiring.add([SeriesRef(5)], 7);
        expiring.add([], 9);
        assert!(expiring.outlives(2, SeriesRef(1 << 39)) && !expiring.outlives(3, SeriesRef(1 << 39)));
        assert!(expiring.outlives(6, SeriesRef(5)) && !expiring.outlives(7, SeriesRef(5)));
        assert!(!expiring.outlives(0, SeriesRef(6)));
        let all: Vec<_> = expiring.iter().collect();
        assert_eq!(all, [(SeriesRef(5), 3), (SeriesRef(1 << 39), 3), (SeriesRef(5), 7)]);
        expiring.forget_upto(3);
        assert_eq!(expiring.iter().collect::<Vec<_>>(), [(SeriesRef(5), 7)]);
    }
}
