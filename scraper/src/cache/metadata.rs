//! Metadata of a target's metric families, shared with the API.
//!
//! A family is known by a small number while it lives. It is kept for ten scrapes after its lines went away.

use std::sync::Arc;

use hashbrown::HashTable;
use model::{Metadata, MetricType};
use parking_lot::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const SCRAPES_KEPT: u32 = 10;

/// Number of a family.
pub(crate) type FamilyId = u32;

/// Metadata of one target.
#[derive(Debug, Default)]
pub struct MetadataStore {
    families: Mutex<Families>,
}

/// All families of a target. Names are hashed with a seed, so that a target cannot choose collisions.
#[derive(Debug)]
pub(crate) struct Families {
    slots: Vec<Option<Family>>,
    free: Vec<FamilyId>,
    by_name: HashTable<FamilyId>,
    seed: u64,
    /// The family of the last change: `HELP` and `TYPE` come together.
    last: Option<FamilyId>,
}

impl Default for Families {
    fn default() -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64);
        Self { slots: Vec::new(), free: Vec::new(), by_name: HashTable::new(), seed, last: None }
    }
}

#[derive(Debug)]
struct Family {
    hash: u64,
    name: Box<[u8]>,
    metric_type: MetricType,
    help: Option<Arc<str>>,
    unit: Option<Arc<str>>,
    last_seen: u32,
}

impl Family {
    fn metadata(&self) -> Metadata {
        Metadata {
            metric_type: self.metric_type,
            help: self.help.clone().unwrap_or_default(),
            unit: self.unit.clone().unwrap_or_default(),
        }
    }
}

/// What a line says about its family.
pub(crate) enum Fact<'a> {
    Type(MetricType),
    Help(&'a str),
    Unit(&'a [u8]),
}

impl MetadataStore {
    /// The families, to note facts.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Families> {
        self.families.lock()
    }

    /// Name and metadata of a family.
    pub(crate) fn get(&self, id: FamilyId) -> Option<(String, Metadata)> {
        let families = self.families.lock();
        let f = families.slots.get(id as usize)?.as_ref()?;
        Some((String::from_utf8_lossy(&f.name).into_owned(), f.metadata()))
    }

    /// Unit of a family.
    pub(crate) fn unit(&self, id: FamilyId) -> Option<Arc<str>> {
        self.families.lock().slots.get(id as usize)?.as_ref()?.unit.clone()
    }

    /// Notes that the families were there at `scrape`.
    pub(super) fn touch(&self, ids: impl Iterator<Item = FamilyId>, scrape: u32) {
        let mut families = self.families.lock();
        for id in ids {
            if let Some(Some(f)) = families.slots.get_mut(id as usize) {
                f.last_seen = scrape;
            }
        }
    }

    /// Forgets families that have been gone for more than ten scrapes.
    pub(crate) fn expire(&self, scrape: u32) {
        let mut families = self.families.lock();
        let families = &mut *families;
        for (id, slot) in families.slots.iter_mut().enumerate() {
            let id = id as FamilyId;
            if let Some(f) = slot
                && scrape.wrapping_sub(f.last_seen) > SCRAPES_KEPT
            {
                if let Ok(found) = families.by_name.find_entry(f.hash, |other| *other == id) {
                    found.remove();
                }
                *slot = None;
                families.free.push(id);
            }
        }
        families.last = None;
    }

    /// Number of families, and bytes of what is known of them.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let families = self.families.lock();
        let text = |t: &Option<Arc<str>>| t.as_ref().map_or(0, |t| t.len());
        let bytes = |f: &Family| text(&f.help) + text(&f.unit) + f.metric_type.as_str().len();
        (families.by_name.len(), families.slots.iter().flatten().map(bytes).sum())
    }

    /// Everything known, sorted by family.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Metadata)> {
        let families = self.families.lock();
        let known = families.slots.iter().flatten();
        let mut all: Vec<_> =
            known.map(|f| (String::from_utf8_lossy(&f.name).into_owned(), f.metadata())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl Families {
    pub(super) fn reserve(&mut self, n: usize) {
        self.slots.reserve(n);
        let slots = &self.slots;
        self.by_name.reserve(n, |id| hash_of(slots, *id));
    }

    /// Notes a fact; returns the family and whether this is news.
    pub(crate) fn set(&mut self, family: &[u8], fact: &Fact<'_>, scrape: u32) -> (FamilyId, bool) {
        let id = self.id(family);
        self.last = Some(id);
        let Some(Some(f)) = self.slots.get_mut(id as usize) else { return (id, false) };
        f.last_seen = scrape;
        let news = match fact {
            Fact::Type(t) => std::mem::replace(&mut f.metric_type, *t) != *t,
            Fact::Help(text) => replace_text(&mut f.help, text),
            Fact::Unit(unit) => replace_text(&mut f.unit, &String::from_utf8_lossy(unit)),
        };
        (id, news)
    }

    fn id(&mut self, family: &[u8]) -> FamilyId {
        if let Some(last) = self.last
            && let Some(Some(f)) = self.slots.get(last as usize)
            && &*f.name == family
        {
            return last;
        }
        let hash = xxh3_64_with_seed(family, self.seed);
        let is_it = |id: &FamilyId| {
            self.slots.get(*id as usize).is_some_and(|f| f.as_ref().is_some_and(|f| &*f.name == family))
        };
        if let Some(id) = self.by_name.find(hash, is_it) {
            return *id;
        }
        let entry = Some(Family {
            hash,
            name: family.into(),
            metric_type: MetricType::Unknown,
            help: None,
            unit: None,
            last_seen: 0,
        });
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = entry;
                id
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as FamilyId
            }
        };
        let slots = &self.slots;
        self.by_name.insert_unique(hash, id, |id| hash_of(slots, *id));
        id
    }
}

fn hash_of(slots: &[Option<Family>], id: FamilyId) -> u64 {
    slots.get(id as usize).and_then(Option::as_ref).map_or(0, |f| f.hash)
}

fn replace_text(old: &mut Option<Arc<str>>, new: &str) -> bool {
    if old.as_deref().unwrap_or_default() == new {
        return false;
    }
    *old = (!new.is_empty()).then(|| new.into());
    true
}

/// Whether a series belongs to a family of this name and type: the name, plus the suffixes that the type has.
pub(crate) fn is_part_of(metric: &str, family: &str, metric_type: MetricType) -> bool {
    if !metric.starts_with(family) {
        return false;
    }
    let cut =
        |suffixes: &[&str]| suffixes.iter().find_map(|s| metric.strip_suffix(s)).unwrap_or(metric).to_owned();
    let base = |suffix: &str| family.strip_suffix(suffix).unwrap_or(family).to_owned();
    match metric_type {
        MetricType::Counter => base("_total") == cut(&["_total"]),
        MetricType::Histogram => family == cut(&["_bucket", "_sum", "_count"]),
        MetricType::GaugeHistogram => family == cut(&["_bucket", "_gsum", "_gcount"]),
        MetricType::Summary => family == cut(&["_sum", "_count"]),
        MetricType::Info => base("_info") == cut(&["_info"]),
        MetricType::Gauge | MetricType::StateSet | MetricType::Unknown => family == metric,
    }
}
