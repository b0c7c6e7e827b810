//! Brings the buckets of a chunk and of the histogram that comes next under one layout.
//!
//! A bucket that only the histogram has makes the chunk wider; one that only the chunk has stays as an empty bucket in the
//! histogram. With a counter the latter is only possible while the bucket is empty: anything else is a reset.

use std::cmp::Ordering;

use model::histogram::Span;

use super::kind::Kind;

/// The counter fell.
pub(super) struct Reset;

/// How one side (positive or negative) of chunk and histogram fit together, when their buckets differ.
#[derive(Debug, Default)]
pub(super) struct Union {
    /// Places of all buckets, rising.
    places: Vec<i64>,
    /// For each bucket of the chunk, its number among all.
    chunk: Vec<usize>,
    /// For each bucket of the histogram, its number among all.
    histogram: Vec<usize>,
}

/// Places of the buckets of spans.
fn places(spans: &[Span]) -> impl Iterator<Item = i64> + '_ {
    let mut next = 0_i64;
    spans.iter().flat_map(move |s| {
        let from = next + i64::from(s.offset);
        next = from + i64::from(s.length);
        from..next
    })
}

/// What buckets have in them, from their numbers.
fn contents<K: Kind>(numbers: impl Iterator<Item = K::Number>) -> impl Iterator<Item = K::Number> {
    numbers.scan(K::Number::default(), |before, n| {
        *before = K::in_bucket(*before, n);
        Some(*before)
    })
}

/// Compares one side. `None`: both have the same buckets.
pub(super) fn unite<K: Kind>(
    chunk: (&[Span], &[K::Column]),
    histogram: (&[Span], &[K::Number]),
    is_counter: bool,
) -> Result<Option<Union>, Reset> {
    let old = || contents::<K>(chunk.1.iter().map(K::newest));
    let new = || contents::<K>(histogram.1.iter().copied());
    if chunk.0 == histogram.0 {
        let falls = is_counter && old().zip(new()).any(|(a, b)| K::bucket_falls(a, b));
        return if falls { Err(Reset) } else { Ok(None) };
    }
    let mut union = Union::default();
    let mut a = places(chunk.0).zip(old()).peekable();
    let mut b = places(histogram.0).zip(new()).peekable();
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let number = union.places.len();
        let mut place = 0;
        let mut in_chunk = None;
        if order != Ordering::Greater
            && let Some((p, v)) = a.next()
        {
            (place, in_chunk) = (p, Some(v));
            union.chunk.push(number);
        }
        let mut in_histogram = None;
        if order != Ordering::Less
            && let Some((p, v)) = b.next()
        {
            (place, in_histogram) = (p, Some(v));
            union.histogram.push(number);
        }
        let falls = match (in_chunk, in_histogram) {
            (Some(a), Some(b)) => K::bucket_falls(a, b),
            (Some(a), None) => !K::is_zero(a),
            _ => false,
        };
        if is_counter && falls {
            return Err(Reset);
        }
        union.places.push(place);
    }
    Ok((union.grows_chunk() || union.grows_histogram()).then_some(union))
}

impl Union {
    /// Whether the histogram has buckets that the chunk does not.
    pub(super) fn grows_chunk(&self) -> bool {
        self.chunk.len() < self.places.len()
    }

    /// Whether the chunk has buckets that the histogram does not.
    pub(super) fn grows_histogram(&self) -> bool {
        self.histogram.len() < self.places.len()
    }

    /// Spans of all buckets.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut out: Vec<Span> = Vec::new();
        let mut next = 0;
        for place in &self.places {
            match out.last_mut() {
                Some(last) if *place == next => last.length += 1,
                _ => out.push(Span { offset: (place - next) as i32, length: 1 }),
            }
            next = place + 1;
        }
        out
    }

    /// Numbers of the chunk's buckets under the common layout.
    pub(super) fn spread_chunk<K: Kind>(&self, numbers: &[K::Number]) -> Vec<K::Number> {
        spread::<K>(&self.chunk, self.places.len(), numbers)
    }

    /// Numbers of the histogram's buckets under the common layout.
    pub(super) fn spread_histogram<K: Kind>(&self, numbers: &[K::Number]) -> Vec<K::Number> {
        spread::<K>(&self.histogram, self.places.len(), numbers)
    }
}

fn spread<K: Kind>(to: &[usize], len: usize, numbers: &[K::Number]) -> Vec<K::Number> {
    let mut out = vec![K::Number::default(); len];
    for (at, v) in to.iter().zip(contents::<K>(numbers.iter().copied())) {
        out[*at] = v;
    }
    let mut before = K::Number::default();
    for v in &mut out {
        let content = *v;
        *v = K::of_bucket(before, content);
        before = content;
    }
    out
}
