//! From matchers to series: the algebra on sorted lists of series, shared by the head and by blocks.
//!
//! Semantics as Prometheus has them: an absent label has the empty value, so a matcher that takes the empty value keeps
//! every series but those with a value it refuses; any other matcher keeps the series with a value it takes.
//!
//! Order of work: matchers that name their values give a short list first. The others mark in it what they find, value by
//! value, so that no union over many values is ever built; where a label has many more values than the list has series,
//! the series are asked instead.

use model::{MatchOp, Matcher, StorageError};
use roaring::RoaringBitmap;

/// Sorted, unique ids of series.
#[derive(Clone, Debug)]
pub(crate) enum List<'a> {
    /// As they lie in a block: four bytes, big-endian.
    Packed(&'a [[u8; 4]]),
    /// Slots of the head.
    Slots(&'a [u32]),
    /// Many slots of the head.
    Bitmap(&'a RoaringBitmap),
}

impl List<'_> {
    /// No series.
    pub(crate) const EMPTY: Self = List::Packed(&[]);

    pub(crate) fn len(&self) -> usize {
        match self {
            List::Packed(ids) => ids.len(),
            List::Slots(ids) => ids.len(),
            List::Bitmap(ids) => ids.len() as usize,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<u64> {
        match self {
            List::Packed(ids) => ids.iter().map(|b| u64::from(u32::from_be_bytes(*b))).collect(),
            List::Slots(ids) => ids.iter().map(|id| u64::from(*id)).collect(),
            List::Bitmap(ids) => ids.iter().map(u64::from).collect(),
        }
    }
}

/// An index from label pairs to series.
pub(crate) trait PostingsIndex {
    /// All series.
    fn all(&self) -> Result<List<'_>, StorageError>;

    /// Series with this label pair.
    fn get(&self, name: &str, value: &str) -> Result<List<'_>, StorageError>;

    /// Series with a value of `name` that begins with `prefix` and passes, in order of the values: one sorted list each.
    fn matching<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        pass: &mut dyn FnMut(&str) -> bool,
        out: &mut Vec<List<'a>>,
    ) -> Result<(), StorageError>;

    /// Number of values of a label.
    fn value_count(&self, name: &str) -> usize;

    /// Keeps the series whose value of `name` passes (the empty one where there is no such label), by looking at each of
    /// them. `false`, and nothing done, when the index does not know the labels of its series.
    fn retain(
        &self,
        ids: &mut Vec<u64>,
        name: &str,
        pass: &mut dyn FnMut(&str) -> bool,
    ) -> Result<bool, StorageError>;
}

/// A label with so many values more than there are series is matched series by series.
const VALUES_PER_SERIES: usize = 4;

/// Ids of the series that pass all matchers, sorted.
pub(crate) fn resolve(index: &impl PostingsIndex, matchers: &[Matcher]) -> Result<Vec<u64>, StorageError> {
    let mut named: Vec<List<'_>> = Vec::new();
    let mut scanned: Vec<&Matcher> = Vec::new();
    for m in matchers {
        let takes_empty = m.matches("");
        match (m.op, m.regexp().and_then(|r| r.literal_set())) {
            (MatchOp::Regexp, _) if m.value == ".*" => {}
            (MatchOp::Equal, _) if !takes_empty => named.push(index.get(&m.name, &m.value)?),
            (MatchOp::Regexp, Some([value])) if !takes_empty => named.push(index.get(&m.name, value)?),
            _ => scanned.push(m),
        }
        if named.last().is_some_and(|l| l.len() == 0) {
            return Ok(Vec::new());
        }
    }
    named.sort_by_key(List::len);
    let mut named = named.into_iter();
    let mut out = match named.next() {
        Some(List::Bitmap(first)) => {
            intersect_bitmaps(first, named.as_slice()).into_iter().map(u64::from).collect()
        }
        Some(first) => first.into_vec(),
        // Without a list to begin with, the union over a matcher's values is shorter than all series.
        None => match scanned.iter().position(|m| !m.matches("")) {
            Some(i) => union(values(index, scanned.remove(i))?.1),
            None => index.all()?.into_vec(),
        },
    };
    named.for_each(|l| intersect(&mut out, &l));
    // Those that keep less come first.
    scanned.sort_by_key(|m| m.matches(""));
    for m in scanned {
        if out.is_empty() {
            break;
        }
        scan(index, m, &mut out)?;
    }
    Ok(out)
}

/// What all bitmaps of the lists have. They are intersected container by container, before any of them is spelled out.
fn intersect_bitmaps(first: &RoaringBitmap, others: &[List<'_>]) -> RoaringBitmap {
    let mut bitmaps = others.iter().filter_map(|l| match l {
        List::Bitmap(b) => Some(*b),
        _ => None,
    });
    let Some(second) = bitmaps.next() else { return first.clone() };
    bitmaps.fold(first & second, |mut all, b| {
        all &= b;
        all
    })
}

/// Keeps the series of `out` that pass `m`.
fn scan(index: &impl PostingsIndex, m: &Matcher, out: &mut Vec<u64>) -> Result<(), StorageError> {
    let set = m.regexp().and_then(|r| r.literal_set()).filter(|_| is_positive(m));
    let known = set.map_or_else(|| index.value_count(&m.name), <[_]>::len);
    if known / VALUES_PER_SERIES > out.len() && index.retain(out, &m.name, &mut |v| m.matches(v))? {
        return Ok(());
    }
    let (taken, lists) = values(index, m)?;
    if let [only] = lists.as_slice() {
        if taken {
            intersect(out, only)
        } else {
            subtract(out, only)
        }
        return Ok(());
    }
    let mut found = vec![false; out.len()];
    lists.iter().for_each(|l| mark(out, l, &mut found));
    let mut found = found.into_iter();
    out.retain(|_| found.next() == Some(taken));
    Ok(())
}

/// The lists of the values that `m` takes, or, when it takes the empty value, of those that it refuses; which of both is
/// said first.
fn values<'a>(index: &'a impl PostingsIndex, m: &Matcher) -> Result<(bool, Vec<List<'a>>), StorageError> {
    let take = !m.matches("");
    let mut lists = Vec::new();
    let positive = is_positive(m);
    match m.regexp() {
        None if positive => lists.push(index.get(&m.name, &m.value)?),
        Some(r) if positive => match r.literal_set() {
            Some(set) => {
                for v in set.iter().filter(|v| !v.is_empty()) {
                    lists.push(index.get(&m.name, v)?);
                }
            }
            None => {
                for prefix in r.prefixes() {
                    index.matching(&m.name, prefix, &mut |v| r.is_match(v), &mut lists)?;
                }
            }
        },
        _ => index.matching(&m.name, "", &mut |v| m.matches(v) == take, &mut lists)?,
    }
    Ok((take, lists))
}

/// Whether the values that [`values`] looks for are those the text of the matcher speaks of.
fn is_positive(m: &Matcher) -> bool {
    matches!(m.op, MatchOp::Equal | MatchOp::Regexp) != m.matches("")
}

fn union(lists: Vec<List<'_>>) -> Vec<u64> {
    let mut lists = lists.into_iter();
    let Some(first) = lists.next() else { return Vec::new() };
    if lists.len() == 0 {
        return first.into_vec();
    }
    let mut all: Vec<u64> =
        Vec::with_capacity(first.len() + lists.as_slice().iter().map(List::len).sum::<usize>());
    std::iter::once(first).chain(lists).for_each(|l| match l {
        List::Packed(ids) => all.extend(ids.iter().map(|b| u64::from(u32::from_be_bytes(*b)))),
        List::Slots(ids) => all.extend(ids.iter().map(|id| u64::from(*id))),
        List::Bitmap(ids) => all.extend(ids.iter().map(u64::from)),
    });
    // The sort finds the sorted runs, which makes this a merge.
    all.sort();
    all.dedup();
    all
}

// === Algebra ===

/// An element of a sorted list.
trait Id: Copy {
    fn id(self) -> u64;
}

impl Id for u64 {
    #[inline]
    fn id(self) -> u64 {
        self
    }
}

impl Id for [u8; 4] {
    #[inline]
    fn id(self) -> u64 {
        u64::from(u32::from_be_bytes(self))
    }
}

impl Id for u32 {
    #[inline]
    fn id(self) -> u64 {
        u64::from(self)
    }
}

/// Keeps what is also in `other`.
pub(crate) fn intersect(out: &mut Vec<u64>, other: &List<'_>) {
    match other {
        List::Packed(ids) => retain(out, ids, true),
        List::Slots(ids) => retain(out, ids, true),
        List::Bitmap(ids) => retain_in(out, ids, true),
    }
}

/// Keeps what is not in `other`.
pub(crate) fn subtract(out: &mut Vec<u64>, other: &List<'_>) {
    match other {
        List::Packed(ids) => retain(out, ids, false),
        List::Slots(ids) => retain(out, ids, false),
        List::Bitmap(ids) => retain_in(out, ids, false),
    }
}

/// Whether an entry is in both.
pub(crate) fn intersects(a: &[u64], other: &List<'_>) -> bool {
    match other {
        List::Packed(ids) => meet(a, ids),
        List::Slots(ids) => meet(a, ids),
        List::Bitmap(ids) => a.iter().any(|id| has(ids, *id)),
    }
}

/// Sets `found` for each entry of `of` that is in `other`.
fn mark(of: &[u64], other: &List<'_>, found: &mut [bool]) {
    match other {
        List::Packed(ids) => mark_in(of, ids, found),
        List::Slots(ids) => mark_in(of, ids, found),
        List::Bitmap(ids) => mark_in_bitmap(of, ids, found),
    }
}

/// Keeps what is, or is not, in `other`. Galloping through `other`: cost follows `out`, benchmarked in
/// `benches/postings.rs`.
fn retain<T: Id>(out: &mut Vec<u64>, other: &[T], wanted: bool) {
    let mut rest = other;
    out.retain(|id| {
        rest = skip_below(rest, *id);
        rest.first().is_some_and(|f| f.id() == *id) == wanted
    });
}

/// Entries of a bitmap are looked up, rather than walked over, when they are so many times more.
const LOOK_UP: usize = 8;

fn has(bitmap: &RoaringBitmap, id: u64) -> bool {
    u32::try_from(id).is_ok_and(|id| bitmap.contains(id))
}

/// [`mark_in`] for a bitmap. Only what lies between its ends is looked at: slots of a target's series are neighbours.
fn mark_in_bitmap(of: &[u64], other: &RoaringBitmap, found: &mut [bool]) {
    let (Some(min), Some(max)) = (other.min(), other.max()) else { return };
    let from = of.partition_point(|id| *id < u64::from(min));
    let to = from + of[from..].partition_point(|id| *id <= u64::from(max));
    let (of, found) = (&of[from..to], &mut found[from..to]);
    if other.len() as usize / LOOK_UP < of.len() {
        mark_each(of, other.iter(), found);
    } else {
        of.iter().zip(found).for_each(|(id, found)| *found |= has(other, *id));
    }
}

/// [`retain`] for a bitmap.
fn retain_in(out: &mut Vec<u64>, other: &RoaringBitmap, wanted: bool) {
    if other.len() as usize / LOOK_UP >= out.len() {
        out.retain(|id| has(other, *id) == wanted);
        return;
    }
    let mut rest = other.iter().map(u64::from).peekable();
    out.retain(|id| {
        while rest.next_if(|r| r < id).is_some() {}
        (rest.peek() == Some(id)) == wanted
    });
}

/// Gallops through both in turn.
fn meet<T: Id>(mut a: &[u64], mut b: &[T]) -> bool {
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        match x.cmp(&y.id()) {
            std::cmp::Ordering::Less => a = skip_below(a, y.id()),
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Greater => b = skip_below(b, *x),
        }
    }
    false
}

/// Walks over the shorter of both and gallops through the longer.
fn mark_in<T: Id>(of: &[u64], other: &[T], found: &mut [bool]) {
    if other.len() < of.len() {
        mark_each(of, other.iter().copied(), found);
    } else {
        let mut rest = other;
        for (id, found) in of.iter().zip(found) {
            rest = skip_below(rest, *id);
            *found |= rest.first().is_some_and(|f| f.id() == *id);
        }
    }
}

/// Walks over `other` and gallops through `of`.
fn mark_each<T: Id>(of: &[u64], other: impl Iterator<Item = T>, found: &mut [bool]) {
    let mut from = 0;
    for id in other {
        let rest = skip_below(&of[from..], id.id());
        from = of.len() - rest.len();
        match rest.first() {
            Some(f) if *f == id.id() => found[from] = true,
            Some(_) => {}
            None => return,
        }
    }
}

/// The part of a sorted list from the first entry on that is not below `id`.
#[inline]
fn skip_below<T: Id>(list: &[T], id: u64) -> &[T] {
    if list.first().is_none_or(|f| f.id() >= id) {
        return list;
    }
    let mut step = 1;
    while step < list.len() && list[step].id() < id {
        step *= 2;
    }
    let low = step / 2;
    let window = &list[low..(step + 1).min(list.len())];
    &list[low + window.partition_point(|x| x.id() < id)..]
}
