//! The order of equal elements. `sort`, `topk` and their kin show their outcome in the order that Prometheus's sort and
//! heap leave it in, and neither is stable: which of several equal series `topk` keeps, and in which order equal ones
//! come, is decided by the steps of the algorithm. So the steps are the same here: a pattern-defeating quicksort
//! (<https://arxiv.org/abs/2106.05123>) that sorts up to 12 elements by insertion, and a binary heap with its smallest
//! element in front.
//!
//! The comparison need be no order at all: NaN is less than itself, and natural order contradicts itself in places.
//! Whatever it says, the outcome is a permutation.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#sort>,
//! <https://prometheus.io/docs/prometheus/latest/querying/operators/#aggregation-operators>.

/// Sorts by `less`.
pub(crate) fn sort_by<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let bad_pivots = bit_length(items.len());
    let end = items.len();
    Sorter { items, less }.quick(0, end, bad_pivots);
}

/// Adds an element to a heap.
pub(crate) fn heap_push<T>(heap: &mut Vec<T>, item: T, less: impl Fn(&T, &T) -> bool) {
    heap.push(item);
    let mut at = heap.len() - 1;
    while at > 0 {
        let parent = (at - 1) / 2;
        if !less(&heap[at], &heap[parent]) {
            break;
        }
        heap.swap(at, parent);
        at = parent;
    }
}

/// Replaces the front element of a heap that is not empty.
pub(crate) fn heap_replace<T>(heap: &mut [T], item: T, less: impl Fn(&T, &T) -> bool) {
    heap[0] = item;
    let mut at = 0;
    loop {
        let left = 2 * at + 1;
        if left >= heap.len() {
            return;
        }
        let right = left + 1;
        let child = if right < heap.len() && less(&heap[right], &heap[left]) { right } else { left };
        if !less(&heap[child], &heap[at]) {
            return;
        }
        heap.swap(at, child);
        at = child;
    }
}

fn bit_length(n: usize) -> u32 {
    usize::BITS - n.leading_zeros()
}

/// Up to so many elements are sorted by insertion.
const INSERTION_MAX: usize = 12;
/// From so many elements on, the pivot is a median of medians, and almost sorted runs are mended.
const LONG_MIN: usize = 50;

/// What looking for a pivot told about a run.
#[derive(PartialEq)]
enum Hint {
    Rising,
    Falling,
    Unknown,
}

struct Sorter<'a, T, F> {
    items: &'a mut [T],
    less: F,
}

impl<T, F: Fn(&T, &T) -> bool> Sorter<'_, T, F> {
    fn less(&self, a: usize, b: usize) -> bool {
        (self.less)(&self.items[a], &self.items[b])
    }

    /// Sorts the elements from `start` to before `end`; after `bad_pivots` of them, with a heap.
    fn quick(&mut self, mut start: usize, mut end: usize, mut bad_pivots: u32) {
        let (mut balanced, mut was_partitioned) = (true, true);
        loop {
            let len = end - start;
            if len <= INSERTION_MAX {
                return self.insertion(start, end);
            }
            if bad_pivots == 0 {
                return self.heap(start, end);
            }
            if !balanced {
                self.break_patterns(start, end);
                bad_pivots -= 1;
            }
            let (mut pivot, mut hint) = self.choose_pivot(start, end);
            if hint == Hint::Falling {
                self.items[start..end].reverse();
                pivot = (end - 1) - (pivot - start);
                hint = Hint::Rising;
            }
            if balanced && was_partitioned && hint == Hint::Rising && self.mend(start, end) {
                return;
            }
            if start > 0 && !self.less(start - 1, pivot) {
                // Nothing here is smaller than the pivot: put aside what is equal to it.
                start = self.partition_equal(start, end, pivot);
                continue;
            }
            let (middle, already) = self.partition(start, end, pivot);
            was_partitioned = already;
            let (left, right) = (middle - start, end - middle);
            balanced = left.min(right) >= len / 8;
            // The shorter part first, the longer one in the next round.
            if left < right {
                self.quick(start, middle, bad_pivots);
                start = middle + 1;
            } else {
                self.quick(middle + 1, end, bad_pivots);
                end = middle;
            }
        }
    }

    fn insertion(&mut self, start: usize, end: usize) {
        for i in start + 1..end {
            let mut j = i;
            while j > start && self.less(j, j - 1) {
                self.items.swap(j, j - 1);
                j -= 1;
            }
        }
    }

    fn heap(&mut self, start: usize, end: usize) {
        let len = end - start;
        for root in (0..=(len - 1) / 2).rev() {
            self.sift_down(root, len, start);
        }
        for last in (0..len).rev() {
            self.items.swap(start, start + last);
            self.sift_down(0, last, start);
        }
    }

    fn sift_down(&mut self, mut root: usize, len: usize, start: usize) {
        loop {
            let mut child = 2 * root + 1;
            if child >= len {
                return;
            }
            if child + 1 < len && self.less(start + child, start + child + 1) {
                child += 1;
            }
            if !self.less(start + root, start + child) {
                return;
            }
            self.items.swap(start + root, start + child);
            root = child;
        }
    }

    /// Brings the pivot to its place; tells where that is, and whether everything else was in place already.
    fn partition(&mut self, start: usize, end: usize, pivot: usize) -> (usize, bool) {
        self.items.swap(start, pivot);
        let (mut i, mut j) = (start + 1, end - 1);
        let mut in_place = true;
        loop {
            while i <= j && self.less(i, start) {
                i += 1;
            }
            while i <= j && !self.less(j, start) {
                j -= 1;
            }
            if i > j {
                break;
            }
            in_place = false;
            self.items.swap(i, j);
            i += 1;
            j -= 1;
        }
        self.items.swap(j, start);
        (j, in_place)
    }

    /// Moves what is equal to the pivot to the front; tells where the rest begins.
    fn partition_equal(&mut self, start: usize, end: usize, pivot: usize) -> usize {
        self.items.swap(start, pivot);
        let (mut i, mut j) = (start + 1, end - 1);
        loop {
            while i <= j && !self.less(start, i) {
                i += 1;
            }
            while i <= j && self.less(start, j) {
                j -= 1;
            }
            if i > j {
                return i;
            }
            self.items.swap(i, j);
            i += 1;
            j -= 1;
        }
    }

    /// Moves a few elements of an almost sorted run; whether it is sorted afterwards.
    fn mend(&mut self, start: usize, end: usize) -> bool {
        const MOVES_MAX: usize = 5;
        let mut i = start + 1;
        for _ in 0..MOVES_MAX {
            while i < end && !self.less(i, i - 1) {
                i += 1;
            }
            if i == end {
                return true;
            }
            if end - start < LONG_MIN {
                return false;
            }
            self.items.swap(i, i - 1);
            if i - start >= 2 {
                let mut j = i - 1;
                while j >= 1 && self.less(j, j - 1) {
                    self.items.swap(j, j - 1);
                    j -= 1;
                }
            }
            if end - i >= 2 {
                let mut j = i + 1;
                while j < end && self.less(j, j - 1) {
                    self.items.swap(j, j - 1);
                    j += 1;
                }
            }
        }
        false
    }

    /// Scatters three elements, by a generator that is seeded with the length.
    fn break_patterns(&mut self, start: usize, end: usize) {
        let len = end - start;
        let mut random = len as u64;
        let mask = (1_u64 << bit_length(len)) - 1;
        let middle = start + len / 4 * 2;
        for at in middle - 1..=middle + 1 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut other = (random & mask) as usize;
            if other >= len {
                other -= len;
            }
            self.items.swap(at, start + other);
        }
    }

    fn choose_pivot(&self, start: usize, end: usize) -> (usize, Hint) {
        const SWAPS_MAX: usize = 12;
        let quarter = (end - start) / 4;
        let (mut i, mut j, mut k) = (start + quarter, start + quarter * 2, start + quarter * 3);
        let mut swaps = 0;
        if end - start >= LONG_MIN {
            i = self.median(i - 1, i, i + 1, &mut swaps);
            j = self.median(j - 1, j, j + 1, &mut swaps);
            k = self.median(k - 1, k, k + 1, &mut swaps);
        }
        let pivot = self.median(i, j, k, &mut swaps);
        let hint = match swaps {
            0 => Hint::Rising,
            SWAPS_MAX => Hint::Falling,
            _ => Hint::Unknown,
        };
        (pivot, hint)
    }

    fn median(&self, a: usize, b: usize, c: usize, swaps: &mut usize) -> usize {
        let mut ordered = |a: usize, b: usize| {
            if self.less(b, a) {
                *swaps += 1;
                (b, a)
            } else {
                (a, b)
            }
        };
        let (a, b) = ordered(a, b);
        let (b, _) = ordered(b, c);
        ordered(a, b).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_whatever_the_pattern() {
        let mut seed = 7_u64;
        for len in 0..300 {
            for pattern in 0..5_u64 {
                let value = |i: u64, random: u64| match pattern {
                    0 => i,
                    1 => u64::MAX - i,
                    2 => random % 5,
                    3 => i % 17,
                    _ => random,
                };
                let mut items: Vec<(u64, u64)> = (0..len)
                    .map(|i| {
                        seed = seed
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        (value(i, seed >> 33), i)
                    })
                    .collect();
                let mut expect: Vec<u64> = items.iter().map(|(v, _)| *v).collect();
                sort_by(&mut items, |a, b| a.0 < b.0);
                expect.sort_unstable();
                assert_eq!(items.iter().map(|(v, _)| *v).collect::<Vec<_>>(), expect, "{len} {pattern}");
                items.sort_by_key(|(_, i)| *i);
                assert!(items.iter().map(|(_, i)| *i).eq(0..len));
            }
        }
    }

    #[test]
    fn contradictions_do_no_harm() {
        for len in 0..200 {
            let mut items: Vec<usize> = (0..len).collect();
            sort_by(&mut items, |_, _| true);
            sort_by(&mut items, |a, b| a % 3 <= b % 3);
            items.sort_unstable();
            assert!(items.into_iter().eq(0..len));
        }
    }

    /// The front of the heap goes first when something better comes: of two equal ones the earlier.
    #[test]
    fn a_heap_keeps_the_later_of_equal_elements() {
        let less = |a: &(i32, char), b: &(i32, char)| a.0 < b.0;
        let mut heap = Vec::new();
        heap_push(&mut heap, (1, 'a'), less);
        heap_push(&mut heap, (1, 'b'), less);
        heap_replace(&mut heap, (5, 'c'), less);
        assert_eq!(heap, [(1, 'b'), (5, 'c')]);
    }
}
