//! [`SeriesMap`]: all series of the head, found by labels, by reference, and by matchers through the label index.
//!
//! Several threads make series side by side; of two that make the same one, the second finds it. Lock order: shard by hash,
//! shard by reference, label index, a series.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use model::labels::LabelsWriter;
use model::{Labels, Matcher, SeriesRef, StorageError};
use parking_lot::{RwLock, RwLockReadGuard};

use super::postings::MemPostings;
use super::series::MemSeries;

const SHARDS: usize = 128;
const _: () = assert!(SHARDS.is_power_of_two(), "shards are picked by mask");
/// References are kept in pages of so many: neighbours are made, used and removed together.
const PAGE_LEN: usize = 64;
/// Series removed at a time, so that nobody waits long for the label index.
const REMOVED_AT_A_TIME: usize = 256;

/// Hashes are spread already; references are spread by a multiplication.
#[derive(Default)]
pub(crate) struct SpreadHasher(u64);

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

pub(crate) type RefMap<T> = HashMap<u64, T, BuildHasherDefault<SpreadHasher>>;

/// Half a hash of labels and the slot of the series.
#[derive(Clone, Copy)]
struct Found {
    hash: u32,
    slot: u32,
}

/// The half of a hash, spread for a table, which looks at the highest and the lowest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn shard_of(hash: u32) -> usize {
    hash as usize & (SHARDS - 1)
}

/// Series whose references are neighbours.
struct Page {
    count: usize,
    series: Box<[Option<Arc<MemSeries>>]>,
}

type Pages = RefMap<Page>;

fn place(reference: SeriesRef) -> (u64, usize) {
    (reference.0 / PAGE_LEN as u64, (reference.0 % PAGE_LEN as u64) as usize)
}

/// All series of the head.
pub(crate) struct SeriesMap {
    by_hash: Vec<RwLock<HashTable<Found>>>,
    by_ref: Vec<RwLock<Pages>>,
    index: RwLock<MemPostings>,
    last_ref: AtomicU64,
}

impl SeriesMap {
    pub(crate) fn new() -> Self {
        Self {
            by_hash: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_ref: (0..SHARDS).map(|_| RwLock::default()).collect(),
            index: RwLock::default(),
            last_ref: AtomicU64::new(0),
        }
    }

    /// The label index. Who holds it keeps others from making and removing series.
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, MemPostings> {
        self.index.read()
    }

    fn page_shard(&self, page: u64) -> &RwLock<Pages> {
        &self.by_ref[page as usize & (SHARDS - 1)]
    }

    #[inline]
    pub(crate) fn get(&self, reference: SeriesRef) -> Option<Arc<MemSeries>> {
        let (page, at) = place(reference);
        self.page_shard(page).read().get(&page)?.series[at].clone()
    }

    fn find(&self, shard: &HashTable<Found>, hash: u32, labels: &Labels) -> Option<Arc<MemSeries>> {
        let mut index = None;
        let mut series = None;
        let has_labels = |found: &Found| {
            if found.hash != hash {
                return false;
            }
            let index = index.get_or_insert_with(|| self.index.read());
            let there = index.at(found.slot).filter(|s| index.has_labels(s, labels));
            series = there.cloned();
            series.is_some()
        };
        shard.find(spread(hash), has_labels)?;
        series
    }

    /// The series with these labels; the second part is true when it was made. `wanted` is its reference then, if given.
    pub(crate) fn get_or_create(&self, labels: &Labels, wanted: Option<SeriesRef>) -> (Arc<MemSeries>, bool) {
        let hash = labels.hash64() as u32;
        let shard = &self.by_hash[shard_of(hash)];
        if let Some(s) = self.find(&shard.read(), hash, labels) {
            return (s, false);
        }
        let mut shard = shard.write();
        if let Some(s) = self.find(&shard, hash, labels) {
            return (s, false);
        }
        let reference = match wanted {
            Some(r) => {
                self.reserve_ref(r);
                r
            }
            None => SeriesRef(self.last_ref.fetch_add(1, Ordering::Relaxed) + 1),
        };
        let make = |slot, pairs| MemSeries::new(reference, (slot, hash), pairs);
        let series = self.index.write().add(labels, make);
        shard.insert_unique(spread(hash), Found { hash, slot: series.slot }, |f| spread(f.hash));
        let (page, at) = place(reference);
        let mut pages = self.page_shard(page).write();
        let page =
            pages.entry(page).or_insert_with(|| Page { count: 0, series: vec![None; PAGE_LEN].into() });
        if page.series[at].replace(series.clone()).is_none() {
            page.count += 1;
        }
        (series, true)
    }

    /// Makes sure that new references are above this one.
    pub(crate) fn reserve_ref(&self, reference: SeriesRef) {
        self.last_ref.fetch_max(reference.0, Ordering::Relaxed);
    }

    /// The highest reference that has been given, or kept from being given.
    pub(crate) fn last_ref(&self) -> u64 {
        self.last_ref.load(Ordering::Relaxed)
    }

    /// Calls `f` for every series. No lock is held meanwhile; series that come or go beside may be missed.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<MemSeries>)) {
        let mut series: Vec<Arc<MemSeries>> = Vec::new();
        for page in 0.. {
            match self.index.read().page(page) {
                Some(of_page) => series.extend(of_page.cloned()),
                None => return,
            }
            series.iter().for_each(&mut f);
            series.clear();
        }
    }

    /// Labels of a series; `None` when it has been removed.
    pub(crate) fn labels(&self, series: &MemSeries) -> Option<Labels> {
        let index = self.index.read();
        // Its pairs stay as long as the index is held, even if it is removed right after this look.
        let removed = series.state.lock().is_removed();
        (!removed).then(|| index.labels(series, &mut LabelsWriter::new()))
    }

    /// Series that pass the matchers, with their labels, sorted by these.
    pub(crate) fn matching(
        &self,
        matchers: &[Matcher],
    ) -> Result<Vec<(Labels, Arc<MemSeries>)>, StorageError> {
        let mut out = {
            let index = self.index.read();
            let slots = crate::postings::resolve(&*index, matchers)?;
            let mut writer = LabelsWriter::new();
            let mut out = Vec::with_capacity(slots.len());
            for series in slots.into_iter().filter_map(|slot| index.at(slot as u32)) {
                out.push((index.labels(series, &mut writer), series.clone()));
            }
            out
        };
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// Sorts series by their labels, without putting these together. Nobody removes series meanwhile.
    pub(crate) fn sort<T>(&self, list: &mut [T], series: impl Fn(&T) -> &MemSeries) {
        let ranks = self.index.read().ranks();
        let rank = |p: &u32| ranks[*p as usize];
        list.sort_by(|a, b| series(a).pairs.iter().map(rank).cmp(series(b).pairs.iter().map(rank)));
    }

    /// Removes those of the series that have no chunks and that no appender holds; returns their references. Cost follows
    /// what is removed, and others wait for a small part of it only.
    pub(crate) fn remove_empty(&self, candidates: &[Arc<MemSeries>]) -> Vec<SeriesRef> {
        let mut removed = Vec::new();
        for part in candidates.chunks(REMOVED_AT_A_TIME) {
            let gone: Vec<_> = part.iter().filter(|s| self.unlink(s)).cloned().collect();
            self.index.write().remove(&gone);
            removed.extend(gone.iter().map(|s| s.reference));
        }
        for shard in &self.by_hash {
            let mut shard = shard.write();
            // Seven eighths of the buckets can be full; what the capacity says leaves out those of entries that were removed.
            if shard.len() < shard.num_buckets() * 7 / 16 {
                shard.shrink_to(0, |f| spread(f.hash));
            }
        }
        for shard in &self.by_ref {
            let mut shard = shard.write();
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
        removed
    }

    /// Lets nobody find a series any more by labels or reference, if it may be removed.
    fn unlink(&self, series: &MemSeries) -> bool {
        let mut by_hash = self.by_hash[shard_of(series.hash)].write();
        let (page, at) = place(series.reference);
        let mut pages = self.page_shard(page).write();
        {
            let mut state = series.state.lock();
            if state.chunk_count() > 0 || state.is_pending() || state.is_removed() {
                return false;
            }
            state.set_removed();
        }
        let is_it = |f: &Found| f.slot == series.slot;
        if let Ok(found) = by_hash.find_entry(spread(series.hash), is_it) {
            found.remove();
        }
        if let Some(p) = pages.get_mut(&page)
            && p.series[at].take().is_some()
        {
            p.count -= 1;
            if p.count == 0 {
                pages.remove(&page);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(i: u64) -> Labels {
        Labels::from_pairs([("__name__", "m".to_owned()), ("i", (i % 50).to_string()), ("n", i.to_string())])
    }

    #[test]
    fn series_are_found_until_they_are_removed() {
        let map = SeriesMap::new();
        let made: Vec<_> = (0..1000).map(|i| map.get_or_create(&labels(i), None)).collect();
        assert!(made.iter().all(|(_, created)| *created));
        let (odd, even): (Vec<_>, Vec<_>) =
            made.into_iter().map(|(s, _)| s).partition(|s| s.reference.0 % 2 == 1);
        odd[0].state.lock().pin();
        let gone = map.remove_empty(&odd);
        assert_eq!(gone.len(), odd.len() - 1);
        assert_eq!(map.labels(&odd[0]), Some(labels(0)), "an appender holds it");
        assert_eq!((map.labels(&odd[1]), map.index().len()), (None, 501));
        for s in &even {
            let l = labels(s.reference.0 - 1);
            assert_eq!(map.labels(s).as_ref(), Some(&l));
            assert!(Arc::ptr_eq(&map.get_or_create(&l, None).0, s));
            assert!(map.get(s.reference).is_some_and(|found| Arc::ptr_eq(&found, s)));
        }
        assert!(gone.iter().all(|r| map.get(*r).is_none()));
        let (again, created) = map.get_or_create(&labels(2), Some(SeriesRef(5000)));
        assert!(created && again.reference == SeriesRef(5000));
        assert_eq!(map.get_or_create(&labels(4), None).0.reference, SeriesRef(5001));
        let mut seen = 0;
        map.for_each(|_| seen += 1);
        assert_eq!(seen, 503);
    }

    #[test]
    fn threads_agree_on_who_makes_a_series() {
        let map = SeriesMap::new();
        let made: usize = std::thread::scope(|scope| {
            let work =
                |_| scope.spawn(|| (0..2000).filter(|i| map.get_or_create(&labels(*i), None).1).count());
            let threads: Vec<_> = (0..4).map(work).collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).sum()
        });
        assert_eq!((made, map.index().len()), (2000, 2000));
        let sorted = map.matching(&[Matcher::equal("i", "7")]).expect("in memory");
        assert_eq!(sorted.len(), 40);
        assert!(sorted.is_sorted_by(|a, b| a.0 < b.0));
        let mut again: Vec<_> = sorted.iter().rev().map(|(_, s)| s.clone()).collect();
        map.sort(&mut again, |s| s);
        assert!(again.iter().zip(&sorted).all(|(a, (_, b))| Arc::ptr_eq(a, b)));
    }
}
