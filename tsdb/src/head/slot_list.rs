//! [`SlotList`]: a sorted set of slots of series, as small as it can be: most label pairs have a handful of series, a few
//! have nearly all of them.
//!
//! A few slots, or some that lie far apart, are a sorted array with hardly any room to spare; many that lie close are a
//! compressed bitmap, whose containers of 65,536 slots cost some 40 bytes each.

use roaring::RoaringBitmap;

use crate::postings::List;

/// Slots of a container of a bitmap, as a shift.
const CONTAINER_BITS: u32 = 16;
/// A bitmap is worth its containers from so many slots in each on.
const SLOTS_PER_CONTAINER_MIN: usize = 24;

/// A sorted set of slots.
pub(super) enum SlotList {
    Few(Vec<u32>),
    #[allow(clippy::box_collection, reason = "most lists are few, and all pay for the largest variant")]
    Many(Box<RoaringBitmap>),
}

impl Default for SlotList {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl SlotList {
    /// Adds a slot that is not in the list.
    pub(super) fn insert(&mut self, slot: u32) {
        match self {
            Self::Many(b) => {
                b.insert(slot);
            }
            Self::Few(slots) => {
                if slots.len() == slots.capacity() {
                    if is_dense(slots) {
                        let mut b: RoaringBitmap = slots.iter().copied().collect();
                        b.insert(slot);
                        *self = Self::Many(Box::new(b));
                        return;
                    }
                    slots.reserve_exact((slots.len() / 8).max(2));
                }
                match slots.last() {
                    Some(last) if *last > slot => {
                        let at = slots.partition_point(|s| *s < slot);
                        slots.insert(at, slot);
                    }
                    _ => slots.push(slot),
                }
            }
        }
    }

    /// Removes slots, which come sorted. Cost follows them and, for a small list, its length.
    pub(super) fn remove(&mut self, gone: &[u32]) {
        match self {
            Self::Many(b) => {
                for slot in gone {
                    b.remove(*slot);
                }
                if b.len() < SLOTS_PER_CONTAINER_MIN as u64 / 2 {
                    *self = Self::Few(b.iter().collect());
                }
            }
            Self::Few(slots) => {
                let mut gone = gone.iter().peekable();
                slots.retain(|s| {
                    while gone.next_if(|g| *g < s).is_some() {}
                    gone.peek() != Some(&s)
                });
                if slots.len() * 2 < slots.capacity() {
                    slots.shrink_to_fit();
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(slots) => slots.len(),
            Self::Many(b) => b.len() as usize,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(slots) => slots.is_empty(),
            Self::Many(b) => b.is_empty(),
        }
    }

    pub(super) fn as_list(&self) -> List<'_> {
        match self {
            Self::Few(slots) => List::Slots(slots),
            Self::Many(b) => List::Bitmap(b),
        }
    }
}

/// Whether a bitmap of the slots would be smaller.
fn is_dense(slots: &[u32]) -> bool {
    let (Some(first), Some(last)) = (slots.first(), slots.last()) else { return false };
    let containers = (last >> CONTAINER_BITS) - (first >> CONTAINER_BITS) + 1;
    slots.len() / SLOTS_PER_CONTAINER_MIN >= containers as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_set(
            steps in prop::collection::vec((any::<bool>(), prop::collection::btree_set(0_u32..400, 1..60), 0_u32..3), 0..12),
        ) {
            let (mut list, mut set) = (SlotList::default(), BTreeSet::new());
            for (removes, slots, far) in steps {
                let slots: Vec<u32> = slots.into_iter().map(|s| s + far * 200_000).collect();
                if removes {
                    list.remove(&slots);
                    set.retain(|s| !slots.contains(s));
                } else {
                    slots.into_iter().filter(|s| set.insert(*s)).for_each(|s| list.insert(s));
                }
                prop_assert_eq!(list.len(), set.len());
                prop_assert_eq!(list.is_empty(), set.is_empty());
                let all: Vec<u64> = set.iter().map(|s| u64::from(*s)).collect();
                prop_assert_eq!(list.as_list().into_vec(), all);
            }
        }
    }
}
