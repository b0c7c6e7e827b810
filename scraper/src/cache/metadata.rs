//! Metadata of a target's metric families, shared with the API.
//!
//! A family is known by a small number while it lives. It is kept for ten scrapes after its lines went away.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use model::{Metadata, MetricType};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const SCRAPES_KEPT: u32 = 10;

/// Number of a family.
pub(super) type FamilyId = u32;

/// Metadata of one target.
#[derive(Debug, Default)]
pub struct MetadataStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ids: HashMap<Arc<[u8]>, FamilyId, Seeded>,
    families: Vec<Option<Family>>,
    free: Vec<FamilyId>,
    /// The family of the last change: `HELP` and `TYPE` come together.
    last: Option<FamilyId>,
}

/// Hashes names with XXH3 and a seed of its own, so that a target cannot choose collisions.
#[derive(Debug)]
struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(std::hash::RandomState::new().hash_one(0_u64))
    }
}

impl BuildHasher for Seeded {
    type Hasher = NameHasher;
    fn build_hasher(&self) -> NameHasher {
        NameHasher(self.0)
    }
}

struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    fn write_usize(&mut self, _len: usize) {
        // A name is hashed alone, so its length tells nothing more.
    }
}

#[derive(Debug)]
struct Family {
    name: Arc<[u8]>,
    metadata: Metadata,
    last_seen: u32,
}

/// What a line says about its family.
pub(super) enum Fact<'a> {
    Type(MetricType),
    Help(&'a str),
    Unit(&'a [u8]),
}

impl MetadataStore {
    /// Notes a fact; returns the family and whether this is news.
    pub(super) fn set(&self, family: &[u8], fact: &Fact<'_>, scrape: u32) -> (FamilyId, bool) {
        let mut inner = self.inner.lock();
        let id = inner.id(family);
        inner.last = Some(id);
        let Some(Some(f)) = inner.families.get_mut(id as usize) else { return (id, false) };
        f.last_seen = scrape;
        let news = match fact {
            Fact::Type(t) => std::mem::replace(&mut f.metadata.metric_type, *t) != *t,
            Fact::Help(text) => replace_text(&mut f.metadata.help, text),
            Fact::Unit(unit) => replace_text(&mut f.metadata.unit, &String::from_utf8_lossy(unit)),
        };
        (id, news)
    }

    /// Name and metadata of a family.
    pub(super) fn get(&self, id: FamilyId) -> Option<(Arc<[u8]>, Metadata)> {
        let inner = self.inner.lock();
        let f = inner.families.get(id as usize)?.as_ref()?;
        Some((f.name.clone(), f.metadata.clone()))
    }

    /// Notes that the families were there at `scrape`.
    pub(super) fn touch(&self, ids: impl Iterator<Item = FamilyId>, scrape: u32) {
        let mut inner = self.inner.lock();
        for id in ids {
            if let Some(Some(f)) = inner.families.get_mut(id as usize) {
                f.last_seen = scrape;
            }
        }
    }

    /// Forgets families that have been gone for more than ten scrapes.
    pub(super) fn expire(&self, scrape: u32) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        for (id, slot) in inner.families.iter_mut().enumerate() {
            if let Some(f) = slot
                && scrape.wrapping_sub(f.last_seen) > SCRAPES_KEPT
            {
                inner.ids.remove(&f.name);
                *slot = None;
                inner.free.push(id as FamilyId);
            }
        }
        inner.last = None;
    }

    /// Number of families, and bytes of what is known of them.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let bytes = |f: &Family| {
            f.metadata.help.len() + f.metadata.unit.len() + f.metadata.metric_type.as_str().len()
        };
        (inner.ids.len(), inner.families.iter().flatten().map(bytes).sum())
    }

    /// Everything known, sorted by family.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Metadata)> {
        let inner = self.inner.lock();
        let mut all: Vec<_> = inner
            .families
            .iter()
            .flatten()
            .map(|f| (String::from_utf8_lossy(&f.name).into_owned(), f.metadata.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl Inner {
    fn id(&mut self, family: &[u8]) -> FamilyId {
        if let Some(last) = self.last
            && let Some(Some(f)) = self.families.get(last as usize)
            && &*f.name == family
        {
            return last;
        }
        if let Some(id) = self.ids.get(family) {
            return *id;
        }
        let name: Arc<[u8]> = family.into();
        let entry = Some(Family { name: name.clone(), metadata: Metadata::default(), last_seen: 0 });
        let id = match self.free.pop() {
            Some(id) => {
                self.families[id as usize] = entry;
                id
            }
            None => {
                self.families.push(entry);
                (self.families.len() - 1) as FamilyId
            }
        };
        self.ids.insert(name, id);
        id
    }
}

fn replace_text(old: &mut Arc<str>, new: &str) -> bool {
    if &**old == new {
        return false;
    }
    *old = new.into();
    true
}

/// Whether a series belongs to a family of this name and type: the name, plus the suffixes that the type has.
pub(super) fn is_part_of(metric: &str, family: &str, metric_type: MetricType) -> bool {
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
