//! [`MemPostings`]: the label index of the head. Label pairs are held once; a series is a slot and the numbers of its pairs.
//! Resolving matchers is `crate::postings`.
//!
//! Invariants: a pair lives as long as a series has it; a slot belongs to one series from [`MemPostings::add`] to
//! [`MemPostings::remove`], and then to the next one, so that memory follows the most series there were at a time. Who has a
//! slot or a number of a pair only trusts it under the lock of the index, or while the series cannot be removed.
//!
//! Labels of a series are put together when somebody needs them: pair by pair, each a copy of its packed form.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;
use model::labels::LabelsWriter;
use model::{Labels, StorageError};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::series::MemSeries;
use super::slot_list::SlotList;
use crate::postings::{List, PostingsIndex};

/// Slots are allocated in pages of so many.
const PAGE_LEN: usize = if cfg!(test) { 16 } else { 1024 };
/// Lengths from here on take five bytes in the packed form of labels.
const LONG_LEN: usize = 127;

type Page = Box<[Option<Arc<MemSeries>>]>;

/// Index of the head. Names without values are removed.
pub(crate) struct MemPostings {
    pairs: Vec<Pair>,
    free_pairs: Vec<u32>,
    /// Numbers of pairs by the hash of their packed form. The seed keeps targets from choosing collisions.
    by_text: HashTable<u32>,
    seed: u64,
    names: HashMap<Box<str>, BTreeSet<Value>>,
    all: SlotList,
    /// One without any series is empty.
    pages: Vec<Page>,
    /// Slots below the end of the pages that no series has.
    free_slots: RoaringBitmap,
}

impl Default for MemPostings {
    fn default() -> Self {
        Self {
            pairs: Vec::new(),
            free_pairs: Vec::new(),
            by_text: HashTable::new(),
            seed: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64),
            names: HashMap::new(),
            all: SlotList::default(),
            pages: Vec::new(),
            free_slots: RoaringBitmap::new(),
        }
    }
}

/// A label pair.
struct Pair {
    /// Packed as in [`Labels`].
    text: Arc<str>,
    value_at: u32,
    /// Its series; empty when the number is free.
    series: SlotList,
}

impl Pair {
    fn name(&self) -> &str {
        name_of(&self.text, self.value_at)
    }

    fn value(&self) -> &str {
        &self.text[self.value_at as usize..]
    }
}

fn len_bytes_of_len(len: usize) -> usize {
    if len < LONG_LEN { 1 } else { 5 }
}

fn name_of(text: &str, value_at: u32) -> &str {
    let value_at = value_at as usize;
    let start = if usize::from(text.as_bytes()[0]) < LONG_LEN { 1 } else { 5 };
    &text[start..value_at - len_bytes_of_len(text.len() - value_at)]
}

/// A value of a name, ordered by its text.
struct Value {
    text: Arc<str>,
    value_at: u32,
    pair: u32,
}

impl Borrow<str> for Value {
    fn borrow(&self) -> &str {
        &self.text[self.value_at as usize..]
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b): (&str, &str) = (self.borrow(), other.borrow());
        a.cmp(b)
    }
}

/// The pairs of labels in packed form, each with the start of its value.
fn packed_pairs(labels: &Labels) -> impl Iterator<Item = (&str, u32)> {
    let mut rest = labels.iter();
    std::iter::from_fn(move || {
        let before = rest.as_packed();
        let (_, value) = rest.next()?;
        let text = &before[..before.len() - rest.as_packed().len()];
        Some((text, (text.len() - value.len()) as u32))
    })
}

impl MemPostings {
    /// Adds a series that is not there: finds it a slot, and makes it with the numbers of its pairs.
    pub(super) fn add(
        &mut self,
        labels: &Labels,
        make: impl FnOnce(u32, Box<[u32]>) -> MemSeries,
    ) -> Arc<MemSeries> {
        let slot = self.free_slot();
        let mut pairs = Vec::with_capacity(labels.len());
        pairs.extend(packed_pairs(labels).map(|(text, value_at)| self.pair(text, value_at)));
        for p in &pairs {
            self.pairs[*p as usize].series.insert(slot);
        }
        self.all.insert(slot);
        let series = Arc::new(make(slot, pairs.into_boxed_slice()));
        self.pages[slot as usize / PAGE_LEN][slot as usize % PAGE_LEN] = Some(series.clone());
        series
    }

    fn free_slot(&mut self) -> u32 {
        if self.free_slots.is_empty() {
            let first = (self.pages.len() * PAGE_LEN) as u32;
            self.pages.push(Page::default());
            self.free_slots.insert_range(first..first + PAGE_LEN as u32);
        }
        // The lowest one, so that series gather at the front.
        let slot = self.free_slots.min().expect("there is one");
        self.free_slots.remove(slot);
        let page = &mut self.pages[slot as usize / PAGE_LEN];
        if page.is_empty() {
            *page = (0..PAGE_LEN).map(|_| None).collect();
        }
        slot
    }

    /// The number of a pair, which is made when there is none.
    fn pair(&mut self, text: &str, value_at: u32) -> u32 {
        let hash = xxh3_64_with_seed(text.as_bytes(), self.seed);
        let pairs = &self.pairs;
        if let Some(known) = self.by_text.find(hash, |p| &*pairs[*p as usize].text == text) {
            return *known;
        }
        let text: Arc<str> = text.into();
        let made = Pair { text: text.clone(), value_at, series: SlotList::default() };
        let pair = match self.free_pairs.pop() {
            Some(free) => {
                self.pairs[free as usize] = made;
                free
            }
            None => {
                self.pairs.push(made);
                (self.pairs.len() - 1) as u32
            }
        };
        let (pairs, seed) = (&self.pairs, self.seed);
        let hash_of = |p: &u32| xxh3_64_with_seed(pairs[*p as usize].text.as_bytes(), seed);
        self.by_text.insert_unique(hash, pair, hash_of);
        let name = name_of(&text, value_at);
        let values = match self.names.get_mut(name) {
            Some(values) => values,
            None => self.names.entry(name.into()).or_default(),
        };
        values.insert(Value { text: text.clone(), value_at, pair });
        pair
    }

    /// Removes series; cost follows them and the lists they are in.
    pub(super) fn remove(&mut self, gone: &[Arc<MemSeries>]) {
        let mut slots: Vec<u32> = gone.iter().map(|s| s.slot).collect();
        slots.sort_unstable();
        let mut of_pairs: Vec<(u32, u32)> =
            gone.iter().flat_map(|s| s.pairs.iter().map(|p| (*p, s.slot))).collect();
        of_pairs.sort_unstable();
        let mut in_pair = Vec::new();
        for part in of_pairs.chunk_by(|a, b| a.0 == b.0) {
            in_pair.clear();
            in_pair.extend(part.iter().map(|(_, slot)| *slot));
            let pair = part[0].0;
            let list = &mut self.pairs[pair as usize].series;
            list.remove(&in_pair);
            if list.is_empty() {
                self.remove_pair(pair);
            }
        }
        self.all.remove(&slots);
        for part in slots.chunk_by(|a, b| *a as usize / PAGE_LEN == *b as usize / PAGE_LEN) {
            let page = part[0] as usize / PAGE_LEN;
            for slot in part {
                self.pages[page][*slot as usize % PAGE_LEN] = None;
                self.free_slots.insert(*slot);
            }
            let first = (page * PAGE_LEN) as u32;
            if self.free_slots.contains_range(first..first + PAGE_LEN as u32) {
                self.pages[page] = Page::default();
            }
        }
        self.drop_free_pages();
    }

    fn remove_pair(&mut self, pair: u32) {
        let p = &mut self.pairs[pair as usize];
        let text = std::mem::replace(&mut p.text, "".into());
        let value_at = std::mem::take(&mut p.value_at);
        p.series = SlotList::default();
        let hash = xxh3_64_with_seed(text.as_bytes(), self.seed);
        if let Ok(found) = self.by_text.find_entry(hash, |other| *other == pair) {
            found.remove();
        }
        let name = name_of(&text, value_at);
        if let Some(values) = self.names.get_mut(name) {
            values.remove(&text[value_at as usize..]);
            if values.is_empty() {
                self.names.remove(name);
            }
        }
        self.free_pairs.push(pair);
    }

    /// Pages at the end without any series go.
    fn drop_free_pages(&mut self) {
        while let Some(last) = self.pages.len().checked_sub(1) {
            if !self.pages[last].is_empty() {
                return;
            }
            self.free_slots.remove_range((last * PAGE_LEN) as u32..);
            self.pages.pop();
        }
    }

    /// The series in a slot.
    pub(super) fn at(&self, slot: u32) -> Option<&Arc<MemSeries>> {
        self.pages.get(slot as usize / PAGE_LEN)?.get(slot as usize % PAGE_LEN)?.as_ref()
    }

    /// The series of a page of slots; `None` behind the last one.
    pub(super) fn page(&self, page: usize) -> Option<impl Iterator<Item = &Arc<MemSeries>>> {
        self.pages.get(page).map(|p| p.iter().flatten())
    }

    /// Whether a series, which is not removed, has exactly these labels.
    pub(super) fn has_labels(&self, series: &MemSeries, labels: &Labels) -> bool {
        let mut rest = labels.iter().as_packed();
        for p in &series.pairs {
            match rest.strip_prefix(&*self.pairs[*p as usize].text) {
                Some(r) => rest = r,
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// Labels of a series, which is not removed.
    pub(super) fn labels(&self, series: &MemSeries, writer: &mut LabelsWriter) -> Labels {
        writer.clear();
        for p in &series.pairs {
            writer.push_packed(&self.pairs[*p as usize].text);
        }
        writer.build()
    }

    /// Name and value of a pair of a series that is not removed.
    pub(super) fn pair_text(&self, pair: u32) -> (&str, &str) {
        let p = &self.pairs[pair as usize];
        (p.name(), p.value())
    }

    /// The place of each pair among all of them sorted by name and value, by its number: series sort as the places of their
    /// pairs do.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.pairs.len()];
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_unstable_by_key(|(n, _)| *n);
        let values = names.into_iter().flat_map(|(_, values)| values);
        (0..).zip(values).for_each(|(rank, v)| ranks[v.pair as usize] = rank);
        ranks
    }

    /// Number of pairs ever numbered.
    pub(super) fn pair_numbers(&self) -> usize {
        self.pairs.len()
    }

    /// Label names, in no order, with their values and how many series have them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, impl ExactSizeIterator<Item = (&str, usize)>)> {
        self.names.iter().map(|(n, values)| {
            let counts = values.iter().map(|v| (v.borrow(), self.pairs[v.pair as usize].series.len()));
            (&**n, counts)
        })
    }

    /// Label names, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|n| &**n)
    }

    /// Values of a label, sorted.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.names.get(name).into_iter().flatten().map(Borrow::borrow)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

impl PostingsIndex for MemPostings {
    fn all(&self) -> Result<List<'_>, StorageError> {
        Ok(self.all.as_list())
    }

    fn get(&self, name: &str, value: &str) -> Result<List<'_>, StorageError> {
        let known = self.names.get(name).and_then(|v| v.get(value));
        Ok(known.map_or(List::EMPTY, |v| self.pairs[v.pair as usize].series.as_list()))
    }

    fn matching<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        pass: &mut dyn FnMut(&str) -> bool,
        out: &mut Vec<List<'a>>,
    ) -> Result<(), StorageError> {
        let Some(values) = self.names.get(name) else { return Ok(()) };
        for v in values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)) {
            let text: &str = v.borrow();
            if !text.starts_with(prefix) {
                break;
            }
            if pass(text) {
                out.push(self.pairs[v.pair as usize].series.as_list());
            }
        }
        Ok(())
    }

    fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, BTreeSet::len)
    }

    fn retain(
        &self,
        ids: &mut Vec<u64>,
        name: &str,
        pass: &mut dyn FnMut(&str) -> bool,
    ) -> Result<bool, StorageError> {
        ids.retain(|slot| {
            let Some(series) = self.at(*slot as u32) else { return false };
            let mut pairs = series.pairs.iter().map(|p| &self.pairs[*p as usize]);
            pass(pairs.find(|p| p.name() == name).map_or("", Pair::value))
        });
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
