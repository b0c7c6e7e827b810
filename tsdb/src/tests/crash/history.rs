//! One random history: appends, late samples, churn, deletes, maintenance, snapshots, restarts; and ends at any change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ::model::clock::ManualClock;
use ::model::storage::{Appendable, Queryable};
use ::model::{
    Matcher, Sample, SampleValue, Samples, SelectHints, SeriesRef, StorageError, chunk::decode_chunks,
};

use super::flips::Flips;
use super::model::{Key, Model, Survives, is_value, labels, value};
use crate::sim::{self, Loss, Plan, SimDisk, gate};
use crate::wal::segment;
use crate::{Config, Db, Error, FloatEncoding, WalCompression};
use model::rng::Rng;

/// Length of a block cut from the head.
const BLOCK_MS: i64 = 100_000;
const START: i64 = 1_000_000 * BLOCK_MS;

pub(super) struct History {
    pub(super) seed: u64,
    rng: Rng,
    /// For what was added to histories later, so that old seeds mean much the same.
    pub(super) side: Rng,
    pub(super) disk: SimDisk,
    pub(super) config: Config,
    clock: Arc<ManualClock>,
    pub(super) db: Option<Arc<Db>>,
    registry: prometheus::Registry,
    pub(super) model: Model,
    now: i64,
    /// Series that get samples: so many from this one on.
    active: (u64, u64),
    faulty: bool,
    /// An fsync failed with [`Loss::Evicted`], and the process still runs or ran without the machine's end.
    evicted: bool,
    /// A file has something that an fsync lost, and the process that knew has ended and left no word of it.
    tainted: bool,
    /// A snapshot of the head may turn out not to fit: an fsync failed, or the machine went down, which may have left one log longer
    /// than the other, or holes between files of head chunks.
    pub(super) may_misfit: bool,
    /// Bits flip in this history, and nothing else goes wrong but ends of processes.
    pub(super) flips: Option<Flips>,
    loud: bool,
    steps: Vec<String>,
    /// How often everything ended.
    pub(super) ends: u64,
}

impl History {
    pub(super) fn new(seed: u64, loud: bool) -> Self {
        let mut rng = Rng::new(seed);
        sim::seed_ulids(seed);
        let disk = SimDisk::new(rng.next());
        let mut pick = |n| rng.below(n);
        let xor2 = pick(3) == 0;
        let config = Config {
            fsync_on_commit: pick(2) == 0,
            wal_segment_bytes: 32 << 10 << pick(2),
            wal_compression: [WalCompression::None, WalCompression::Snappy, WalCompression::Zstd]
                [pick(3) as usize],
            min_block_ms: BLOCK_MS,
            max_block_ms: [0, BLOCK_MS, 9 * BLOCK_MS][pick(3) as usize],
            retention_ms: [0, 30 * BLOCK_MS][pick(2) as usize],
            out_of_order_window_ms: [0, 3 * BLOCK_MS / 2][pick(2) as usize],
            float_encoding: if xor2 { FloatEncoding::Xor2 } else { FloatEncoding::Xor },
            histogram_start_encoding: pick(3) == 0,
            snapshot_on_close: pick(2) == 0,
            ..Config::new(disk.root().join("data"))
        };
        if loud {
            eprintln!("{config:?}");
            disk.set_loud();
        }
        let active = (0, 3 + rng.below(20));
        let mut side = Rng::new(!seed);
        Self {
            seed,
            rng,
            flips: side.one_in(3).then(Flips::default),
            side,
            disk,
            config,
            clock: Arc::new(ManualClock::new(START)),
            db: None,
            registry: prometheus::Registry::new(),
            model: Model::default(),
            now: START,
            active,
            faulty: false,
            evicted: false,
            tainted: false,
            may_misfit: false,
            loud,
            steps: Vec::new(),
            ends: 0,
        }
    }

    /// What was done, for comparing two runs.
    pub(super) fn steps(&self) -> Vec<String> {
        self.steps.clone()
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        // Disks are numbered as they come.
        let root = self.disk.root().display().to_string();
        let text = format!("{} {}", self.disk.changes(), text().replace(&root, ""));
        if self.loud {
            eprintln!("{text}");
        }
        self.steps.push(text);
    }

    pub(super) fn run(&mut self) {
        let steps = 30 + self.rng.below(120);
        for _ in 0..steps {
            if self.db.is_none() {
                self.start();
                continue;
            }
            self.step();
            if self.disk.is_off() {
                self.end();
            } else if self.db.is_some() && (self.rng.one_in(10) || self.loud) {
                self.check("while it runs");
            }
        }
        if self.db.is_some() && self.rng.one_in(2) {
            self.end();
        } else {
            self.close();
        }
        self.disk.plan(Plan::default());
        while self.db.is_none() {
            self.start();
        }
        self.check("at the end");
        if self.flips.is_some() {
            self.check_maintenance();
        }
    }

    // === What goes wrong ===

    fn plan(&mut self) {
        let mut plan = Plan::default();
        let rng = &mut self.rng;
        let reach = [40, 300, 2000][rng.below(3) as usize];
        if !rng.one_in(4) {
            plan.off_at = Some(1 + rng.below(reach));
        }
        if rng.one_in(4) {
            let from = rng.below(reach);
            plan.full = from..from + 1 + rng.below(60);
        }
        if rng.one_in(4) {
            let loss = if rng.one_in(3) { Loss::Evicted } else { Loss::Cached };
            plan.bad_sync = Some((rng.below(reach), loss));
        }
        if self.flips.is_some() {
            plan = Plan { off_at: plan.off_at, ..Plan::default() };
        }
        self.faulty = !plan.full.is_empty() || plan.bad_sync.is_some();
        self.evicted |= plan.bad_sync.is_some_and(|(_, l)| l == Loss::Evicted);
        self.may_misfit |= plan.bad_sync.is_some();
        self.note(|| format!("plan {plan:?}"));
        self.disk.plan(plan);
    }

    /// The process or the machine ends; what was open is gone.
    fn end(&mut self) {
        let power_lost = self.rng.one_in(2) && self.flips.is_none();
        self.ends += 1;
        self.note(|| format!("end, power lost: {power_lost}"));
        self.db = None;
        if power_lost {
            self.model.lose_undurable();
            self.may_misfit = true;
        }
        self.lose_evicted();
        self.tainted |= self.has_lost_silently();
        if power_lost && std::mem::take(&mut self.tainted) {
            self.model.lose_all();
        }
        self.disk.restart(power_lost);
        if power_lost {
            self.evicted = false;
        }
    }

    /// A process that is killed between a failed fsync and the beginning of its mending cannot tell the next one, whose fsync
    /// succeeds; writing a segment anew each time would cost every start a segment. Once it has begun its file tells. A journal is no
    /// matter: what is read of it is written elsewhere.
    fn has_lost_silently(&self) -> bool {
        let journal = self.config.dir.join("journal");
        let is_told = |p: &std::path::Path| p.extension().is_none() && segment::is_to_be_rewritten(p);
        !self.disk.lost().iter().all(|p| p.starts_with(&journal) || is_told(p))
    }

    /// The next process cannot read what an fsync has lost; the one before had it in memory.
    fn lose_evicted(&mut self) {
        self.tainted |= self.db.is_none() && self.has_lost_silently();
        if self.evicted && self.disk.has_lost() {
            self.model.lose_undurable();
        }
    }

    fn start(&mut self) {
        self.lose_evicted();
        let last_try = self.rng.one_in(3);
        if last_try {
            self.faulty = false;
            self.disk.plan(Plan::default());
        } else {
            self.plan();
        }
        self.flip();
        self.registry = prometheus::Registry::new();
        let opened = if self.side.one_in(3) { self.start_held() } else { self.open() };
        self.hear();
        let misfits = counted(&self.registry, "prometheus_tsdb_snapshot_replay_error_total");
        let excused = self.may_misfit || self.disk.is_off();
        assert!(misfits == 0 || excused, "seed {}: the snapshot of the head cannot be used", self.seed);
        match opened {
            Ok(db) => {
                self.note(|| "opened".into());
                self.db = Some(db);
                self.lose_evicted();
                self.check("after opening");
                if last_try {
                    self.plan();
                }
            }
            Err(e) => {
                self.note(|| format!("does not open: {e}"));
                if self.disk.is_off() {
                    self.end();
                } else {
                    assert!(self.faulty, "seed {}: does not open: {e}", self.seed);
                }
            }
        }
    }

    fn open(&self) -> Result<Arc<Db>, Error> {
        Db::open(self.config.clone(), self.clock.clone(), &self.registry)
    }

    /// Starts, and appends while the replay is held up somewhere.
    fn start_held(&mut self) -> Result<Arc<Db>, Error> {
        let places = self.side.below(8);
        let start = || Db::start(self.config.clone(), self.clock.clone(), &self.registry);
        let db = gate::held(places, start)?;
        db.wait_held();
        self.note(|| format!("held up after {places} places"));
        self.db = Some(db.clone());
        for _ in 0..self.side.below(4) {
            if self.side.one_in(4) {
                self.flush();
            } else {
                self.append();
            }
            // It is not in memory yet.
            self.lose_evicted();
            if self.disk.is_off() {
                break;
            }
        }
        self.db = None;
        if self.side.one_in(4) {
            // It is killed before it gets through, or closed.
            let closed = if self.side.one_in(3) { Some(db.close()) } else { None };
            self.note(|| "does not get through".into());
            if let Some(closed) = closed.map(|c| self.outcome("close", c))
                && closed.is_some()
            {
                self.all_durable();
            }
            self.hear();
            drop(db);
            self.lose_evicted();
            self.disk.restart(false);
            self.registry = prometheus::Registry::new();
            return self.open();
        }
        db.let_go();
        db.wait_ready()?;
        Ok(db)
    }

    /// An operation's outcome; errors come from faults only.
    fn outcome<T, E: std::fmt::Display>(&mut self, what: &str, r: Result<T, E>) -> Option<T> {
        match r {
            Ok(v) => {
                self.note(|| format!("{what}: done"));
                Some(v)
            }
            Err(e) => {
                self.note(|| format!("{what}: {e}"));
                let excused = self.disk.is_off() || self.faulty || self.is_of_flip(&e.to_string());
                let excused = excused || what == "flush" && self.is_to_be_rewritten();
                assert!(excused, "seed {}: {what} fails on a good disk: {e}", self.seed);
                None
            }
        }
    }

    /// Whether an earlier process left a segment that cannot be synced before it is written anew.
    fn is_to_be_rewritten(&self) -> bool {
        ["wal", "wbl"].into_iter().map(|d| self.config.dir.join(d)).any(|dir| {
            let segments = segment::numbers(&dir).unwrap_or_default();
            segments.into_iter().any(|s| segment::is_to_be_rewritten(&segment::path(&dir, s)))
        })
    }

    // === What is done ===

    pub(super) fn db(&self) -> Arc<Db> {
        self.db.clone().expect("it is open")
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..50 => self.append(),
            50..65 => self.append_late(),
            65..76 => self.maintain(),
            76..80 => {
                let r = self.db().take_snapshot();
                self.outcome("snapshot of the head", r);
            }
            80..86 => self.flush(),
            86..91 => self.delete(),
            91..93 => {
                let r = self.db().clean_tombstones();
                self.outcome("clean tombstones", r);
            }
            93..95 => {
                let skip_head = self.rng.one_in(2);
                let r = self.db().snapshot(skip_head);
                self.outcome("snapshot", r);
            }
            95..98 => {
                let ms = self.rng.below(2 * BLOCK_MS as u64) as i64;
                self.advance(ms);
                self.note(|| format!("{ms} ms pass"));
            }
            _ => self.close(),
        }
    }

    fn advance(&mut self, ms: i64) {
        self.now += ms;
        self.clock.advance(Duration::from_millis(ms as u64));
    }

    fn append(&mut self) {
        if self.rng.one_in(12) {
            // Churn.
            self.active.0 += self.rng.below(self.active.1);
        }
        for _ in 0..1 + self.rng.below(4) {
            let step = 1 + self.rng.below(BLOCK_MS as u64 / 8) as i64;
            self.advance(step);
            let (first, count) = self.active;
            let keys: Vec<Key> = (first..first + count).map(|s| (s, self.now)).collect();
            let keys = keys.into_iter().filter(|_| !self.rng.one_in(5)).collect();
            self.commit("append", keys);
            if self.disk.is_off() {
                return;
            }
        }
    }

    fn append_late(&mut self) {
        if self.config.out_of_order_window_ms == 0 {
            return;
        }
        let back = self.config.out_of_order_window_ms as u64;
        let mut keys = BTreeSet::new();
        for _ in 0..1 + self.rng.below(30) {
            let series = self.active.0 + self.rng.below(self.active.1);
            let key = (series, (self.now - self.rng.below(back) as i64).max(START));
            if !self.model.is_deleted(key) {
                keys.insert(key);
            }
        }
        let mut keys: Vec<Key> = keys.into_iter().collect();
        if self.rng.one_in(2) {
            keys.reverse();
        }
        self.commit("append late", keys);
    }

    fn commit(&mut self, what: &str, keys: Vec<Key>) {
        let mut appender = match self.db().appender() {
            Ok(a) => a,
            Err(e) => {
                self.outcome::<(), _>(what, Err(e));
                return;
            }
        };
        let mut taken = Vec::new();
        for k in keys {
            let sample = match value(self.seed, k) {
                SampleValue::Float(v) => Sample::float(k.1, v),
                SampleValue::Histogram(h) => Sample::histogram(k.1, h),
            };
            match appender.append(SeriesRef::NONE, &labels(k.0), sample) {
                Ok(_) => taken.push(k),
                Err(e) => assert!(what == "append late", "seed {}: {k:?} is refused: {e}", self.seed),
            }
        }
        self.model.sent.extend(taken.iter().copied());
        let (n, series) = (taken.len(), self.active.0);
        let r = appender.commit();
        if self.outcome(&format!("{what} {n} at {} from series {series}", self.now), r).is_some() {
            let survives = if self.config.fsync_on_commit { Survives::Machine } else { Survives::Process };
            self.model.acknowledge(&taken, survives);
        }
    }

    fn flush(&mut self) {
        let r = self.db().flush();
        if self.outcome("flush", r).is_some() {
            self.all_durable();
        }
    }

    /// All that is acknowledged is said to be on the disk. Of the journal of a start before this cannot be known, see
    /// [`History::has_lost_silently`].
    fn all_durable(&mut self) {
        if !self.disk.lost().iter().any(|p| p.starts_with(self.config.dir.join("journal"))) {
            self.model.all_durable();
        }
    }

    fn maintain(&mut self) {
        let r = self.db().maintain();
        self.outcome("maintain", r);
        if self.config.retention_ms > 0 {
            let oldest = self.now + BLOCK_MS - self.config.retention_ms;
            self.model.expire(oldest);
            self.forget(|(_, t)| *t < oldest);
        }
    }

    fn delete(&mut self) {
        let (first, count) = self.active;
        let series: Vec<u64> = if self.rng.one_in(2) {
            vec![first + self.rng.below(count)]
        } else {
            let group = self.rng.below(3);
            (0..first + count).filter(|s| s % 3 == group).collect()
        };
        let maxt = self.now - self.rng.below(2 * BLOCK_MS as u64) as i64;
        let mint = maxt - self.rng.below(BLOCK_MS as u64) as i64;
        let matchers = if let [one] = series[..] {
            vec![Matcher::equal("i", one.to_string().as_str())]
        } else {
            let group = (series.first().map_or(0, |s| s % 3)).to_string();
            vec![Matcher::equal("group", group.as_str())]
        };
        let r = self.db().delete(&matchers, mint, maxt);
        let done = self.outcome(&format!("delete {} series, {mint} to {maxt}", series.len()), r).is_some();
        self.model.delete(&series, mint, maxt, done);
        self.forget(|(s, t)| series.contains(s) && (mint..=maxt).contains(t));
    }

    fn close(&mut self) {
        let Some(db) = self.db.take() else { return };
        let r = db.close();
        if self.outcome("close", r).is_some() {
            self.all_durable();
        }
        if self.disk.is_off() {
            self.end();
        }
    }

    // === What must hold ===

    pub(super) fn check(&mut self, when: &str) {
        let mut stored = BTreeSet::new();
        if let Err(e) = self.read(&[Matcher::equal("__name__", "m")], (i64::MIN, i64::MAX), when, &mut stored)
        {
            assert!(self.is_of_flip(&e.to_string()), "seed {}, {when}: reading fails: {e}", self.seed);
            stored = self.read_around(when);
        }
        self.excuse_damaged(&stored);
        let seed = self.seed;
        let missing: Vec<_> = self.model.acknowledged.iter().filter(|(k, _)| !stored.contains(k)).collect();
        if !missing.is_empty() {
            let text: Vec<_> = missing.iter().take(8).collect();
            if self.loud {
                let (series, times) = (
                    missing.iter().map(|(k, _)| k.0).collect::<BTreeSet<_>>(),
                    missing.iter().map(|(k, _)| k.1).collect::<BTreeSet<_>>(),
                );
                eprintln!("series {series:?}\ntimes {times:?}");
                for b in self.db().blocks.load().iter() {
                    eprintln!("block {:?}", b.meta);
                }
            }
            panic!("seed {seed}, {when}: {} acknowledged samples are missing: {text:?}", missing.len());
        }
        let strange: Vec<_> = stored.iter().filter(|k| !self.model.sent.contains(k)).take(8).collect();
        assert!(strange.is_empty(), "seed {seed}, {when}: deleted or never sent: {strange:?}");
    }

    /// Reads samples of series.
    pub(super) fn read(
        &self,
        matchers: &[Matcher],
        (mint, maxt): (i64, i64),
        when: &str,
        out: &mut BTreeSet<Key>,
    ) -> Result<(), StorageError> {
        let seed = self.seed;
        let q = self.db().querier(mint, maxt)?;
        let mut set = q.select(matchers, &SelectHints::default())?;
        let mut samples = Samples::new();
        while let Some(s) = set.next()? {
            let series = s.labels.get("i").and_then(|i| i.parse().ok()).expect("one of ours");
            decode_chunks(&s.chunks, mint, maxt, &mut samples)?;
            for (i, t) in samples.timestamps_ms.iter().enumerate() {
                let read = match samples.histograms.get(i).and_then(Clone::clone) {
                    Some(h) => SampleValue::Histogram(h),
                    None => SampleValue::Float(samples.values[i]),
                };
                let key = (series, *t);
                assert!(is_value(seed, key, read.clone()), "seed {seed}, {when}: {key:?} is {read:?}");
                assert!(out.insert(key), "seed {seed}, {when}: {key:?} is there twice");
            }
        }
        Ok(())
    }

    /// Counts of this process.
    pub(super) fn count(&self, metric: &str) -> u64 {
        counted(&self.registry, metric)
    }
}

/// The value of a counter.
pub(in crate::tests) fn counted(registry: &prometheus::Registry, metric: &str) -> u64 {
    let families = registry.gather();
    let counter = families.iter().find(|f| f.name() == metric);
    counter.map_or(0, |f| f.get_metric()[0].get_counter().get_value() as u64)
}
