//! Who owns which target, and how far each series is. Plain decisions, without a clock or a store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::{Labels, SeriesRef};

use super::{FORGET_MS, LACKING_MS};

/// Different values of the replica label, over all clusters.
pub(super) const REPLICAS_MAX: usize = 255;
/// How often what is silent is looked for.
const FORGET_EVERY_MS: i64 = FORGET_MS / 8;

/// A series and the replica that sends it, as a [`SeriesRef`] carries them: the highest bit marks it, then 23 bits of
/// generation, 8 of replica, 32 of slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeriesKey {
    slot: u32,
    generation: u32,
    replica: u8,
}

const MARK: u64 = 1 << 63;
const GENERATIONS: u32 = 1 << 23;

impl SeriesKey {
    pub(super) fn to_series_ref(self) -> SeriesRef {
        SeriesRef(
            MARK | u64::from(self.generation) << 40 | u64::from(self.replica) << 32 | u64::from(self.slot),
        )
    }

    #[inline]
    pub(super) fn from_series_ref(r: SeriesRef) -> Option<Self> {
        (r.0 & MARK != 0).then_some(Self {
            slot: r.0 as u32,
            generation: (r.0 >> 40) as u32 & (GENERATIONS - 1),
            replica: (r.0 >> 32) as u8,
        })
    }
}

/// What becomes of a sample.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is stored; the cluster's name when its target changed hands for it.
    Store { took_over: Option<Arc<str>> },
    /// Another replica's samples go that far; they go on for so long behind it.
    Covered { behind_ms: i64 },
    /// It waits for the owner.
    Held { owner: String },
}

/// A series of a pair.
pub(super) struct Series {
    /// Without the replica label.
    pub(super) labels: Labels,
    /// The store's reference.
    pub(super) stored: SeriesRef,
    target: u32,
    /// Timestamp of the newest stored sample.
    newest_ms: i64,
    /// When a sample was stored last, as [`State::key`] counts.
    touched_ms: i64,
}

struct Slot {
    generation: u32,
    series: Option<Series>,
}

/// A target, whose series change hands together.
struct Target {
    name: String,
    series: usize,
    cluster: Arc<str>,
    owner: Option<u8>,
    /// When samples of the owner were last stored.
    heard_ms: i64,
    /// Timestamp of the newest one.
    frontier_ms: i64,
}

/// What is known of all pairs.
pub(super) struct State {
    failover_ms: i64,
    replicas: Vec<String>,
    clusters: HashSet<Arc<str>>,
    targets: Vec<Target>,
    free_targets: Vec<u32>,
    target_numbers: HashMap<String, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    slot_of: HashMap<Labels, u32>,
    forgot_ms: i64,
}

impl State {
    pub(super) fn new(failover_ms: i64) -> Self {
        Self {
            failover_ms,
            replicas: Vec::new(),
            clusters: HashSet::new(),
            targets: Vec::new(),
            free_targets: Vec::new(),
            target_numbers: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            slot_of: HashMap::new(),
            forgot_ms: 0,
        }
    }

    pub(super) fn knows_cluster(&self, cluster: &str) -> bool {
        self.clusters.contains(cluster)
    }

    pub(super) fn learn_cluster(&mut self, cluster: &str) {
        self.clusters.insert(cluster.into());
    }

    /// The key of a series that a replica sends; `None` when there are too many replicas. `at_ms` is the time here and below:
    /// milliseconds of the clock that nobody sets.
    pub(super) fn key(
        &mut self,
        labels: &Labels,
        target: [&str; 3],
        replica: &str,
        at_ms: i64,
    ) -> Option<SeriesKey> {
        let known = self.replicas.iter().position(|r| r == replica);
        let replica = known.or_else(|| {
            (self.replicas.len() < REPLICAS_MAX).then(|| {
                self.replicas.push(replica.to_owned());
                self.replicas.len() - 1
            })
        })?;
        let slot = self.slot(labels, target, at_ms);
        let generation = self.slots[slot as usize].generation;
        Some(SeriesKey { slot, generation, replica: replica as u8 })
    }

    /// Notes the newest stored sample of a series.
    pub(super) fn remember(&mut self, labels: &Labels, target: [&str; 3], newest_ms: i64, at_ms: i64) {
        let slot = self.slot(labels, target, at_ms);
        let series = self.slots[slot as usize].series.as_mut().expect("a slot that is found is live");
        series.newest_ms = series.newest_ms.max(newest_ms);
    }

    fn slot(&mut self, labels: &Labels, target: [&str; 3], at_ms: i64) -> u32 {
        if let Some(slot) = self.slot_of.get(labels) {
            return *slot;
        }
        let series = Series {
            labels: labels.clone(),
            stored: SeriesRef::NONE,
            target: self.target(target),
            newest_ms: i64::MIN,
            touched_ms: at_ms,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize].series = Some(series);
                slot
            }
            None => {
                self.slots.push(Slot { generation: 0, series: Some(series) });
                u32::try_from(self.slots.len() - 1).expect("fewer series than memory for them")
            }
        };
        self.slot_of.insert(labels.clone(), slot);
        slot
    }

    /// The number of a target, which has one series more.
    fn target(&mut self, parts: [&str; 3]) -> u32 {
        let name = parts.map(|p| format!("{}:{p}", p.len())).concat();
        if let Some(number) = self.target_numbers.get(&name) {
            self.targets[*number as usize].series += 1;
            return *number;
        }
        let cluster = self.clusters.get(parts[0]).cloned().unwrap_or_else(|| parts[0].into());
        let target = Target {
            name: name.clone(),
            series: 1,
            cluster,
            owner: None,
            heard_ms: 0,
            frontier_ms: i64::MIN,
        };
        let number = match self.free_targets.pop() {
            Some(number) => {
                self.targets[number as usize] = target;
                number
            }
            None => {
                self.targets.push(target);
                u32::try_from(self.targets.len() - 1).expect("fewer targets than memory for them")
            }
        };
        self.target_numbers.insert(name, number);
        number
    }

    pub(super) fn series(&self, key: SeriesKey) -> Option<&Series> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.series.as_ref().filter(|_| slot.generation == key.generation)
    }

    fn series_mut(&mut self, key: SeriesKey) -> Option<&mut Series> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.series.as_mut().filter(|_| slot.generation == key.generation)
    }

    /// The store's reference of a series, when the replica of the key owns it and the store knows it.
    pub(super) fn of_owner(&self, key: SeriesKey) -> Option<SeriesRef> {
        let series = self.series(key)?;
        let owns = self.targets[series.target as usize].owner == Some(key.replica);
        (owns && series.stored != SeriesRef::NONE).then_some(series.stored)
    }

    /// What becomes of a sample; `None` when the series is not known any more.
    pub(super) fn decide(&mut self, key: SeriesKey, timestamp_ms: i64, at_ms: i64) -> Option<Verdict> {
        let failover_ms = self.failover_ms;
        let series = self.series(key)?;
        let (number, newest_ms) = (series.target as usize, series.newest_ms);
        let target = &mut self.targets[number];
        let owner = match target.owner {
            Some(owner) => owner,
            None => {
                // The first one heard. It counts as heard now, so that another one waits for its samples.
                (target.owner, target.heard_ms) = (Some(key.replica), at_ms);
                key.replica
            }
        };
        if owner == key.replica {
            return Some(Verdict::Store { took_over: None });
        }
        if timestamp_ms <= newest_ms {
            return Some(Verdict::Covered { behind_ms: newest_ms.saturating_sub(timestamp_ms) });
        }
        let silent = at_ms.saturating_sub(target.heard_ms) > failover_ms;
        let behind =
            target.frontier_ms != i64::MIN && timestamp_ms.saturating_sub(target.frontier_ms) > failover_ms;
        if silent || behind {
            (target.owner, target.heard_ms) = (Some(key.replica), at_ms);
            return Some(Verdict::Store { took_over: Some(target.cluster.clone()) });
        }
        if target.frontier_ms.saturating_sub(timestamp_ms) > LACKING_MS {
            return Some(Verdict::Store { took_over: None });
        }
        Some(Verdict::Held { owner: self.replicas[usize::from(owner)].clone() })
    }

    /// Notes the store's reference of a series.
    pub(super) fn found(&mut self, key: SeriesKey, stored: SeriesRef) {
        if let Some(series) = self.series_mut(key) {
            series.stored = stored;
        }
    }

    /// Notes what is durable.
    pub(super) fn stored(&mut self, samples: &[(SeriesKey, i64)], at_ms: i64) {
        for (key, timestamp_ms) in samples {
            let Some(series) = self.series_mut(*key) else { continue };
            series.newest_ms = series.newest_ms.max(*timestamp_ms);
            series.touched_ms = at_ms;
            let target = series.target as usize;
            let target = &mut self.targets[target];
            if target.owner == Some(key.replica) {
                target.heard_ms = at_ms;
                target.frontier_ms = target.frontier_ms.max(*timestamp_ms);
            }
        }
        if at_ms.saturating_sub(self.forgot_ms) > FORGET_EVERY_MS {
            self.forgot_ms = at_ms;
            self.forget(at_ms.saturating_sub(FORGET_MS));
        }
    }

    /// Forgets the series that are silent since `since_ms`, and targets without series.
    fn forget(&mut self, since_ms: i64) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(series) = slot.series.take_if(|s| s.touched_ms < since_ms) else { continue };
            self.slot_of.remove(&series.labels);
            slot.generation = (slot.generation + 1) % GENERATIONS;
            self.free.push(number as u32);
            let target = &mut self.targets[series.target as usize];
            target.series -= 1;
            if target.series == 0 {
                self.target_numbers.remove(&target.name);
                self.free_targets.push(series.target);
            }
        }
    }
}
