//! Bits that flip at rest, in any file that is read later. What must hold: no panic, no sample that was never sent, whatever the damage
//! did not hit is there, the node starts, nothing is missing in silence, and maintenance gets through.
//!
//! One bit flips in a history: it may lie for long where nobody looks, and what a second one did could not be told apart. Left out: a
//! `meta.json` that is still one, for nothing in its format says that a digit is another one; copies in `snapshots/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ::model::{Labels, Matcher, WalRecord};

use super::history::History;
use super::model::Key;
use crate::block::meta::{Meta, Ulid};
use crate::dir;
use crate::sim::Plan;
use crate::wal::reader::SegmentReader;
use crate::wal::{Record, record, segment};

/// The bit that flipped.
pub(super) struct Flip {
    path: PathBuf,
    /// The block that it is in, and its time.
    block: Option<(String, i64, i64)>,
}

#[derive(Default)]
pub(super) struct Flips {
    flip: Option<Flip>,
    /// What it hit of a log: may be missing.
    hit: BTreeSet<Key>,
    /// Series of the block that could not be read.
    unreadable: BTreeSet<u64>,
    /// The damage was told in a metric or by an error.
    is_told: bool,
    quarantined: bool,
}

/// Metrics that tell of damage.
const TELLING: [&str; 4] = [
    "prometheus_tsdb_wal_corruptions_total",
    "prometheus_tsdb_mmap_chunk_corruptions_total",
    "prometheus_tsdb_snapshot_replay_error_total",
    "almanac_tsdb_quarantined_blocks_total",
];

/// What kind of file a path below the database's directory is; none for those that are left alone.
fn kind(path: &str) -> Option<&str> {
    let (first, rest) = path.split_once('/')?;
    Some(match first {
        "wal" if rest.starts_with("checkpoint") => "checkpoint",
        "wal" | "wbl" | "journal" | "chunks_head" => first,
        _ if first.starts_with("chunk_snapshot.") => "chunk_snapshot",
        _ if Ulid::parse(first).is_some() => rest.split('/').next().expect("at least one part"),
        _ => return None,
    })
}

/// The records of a segment that can be read, by where they begin.
fn records(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    let mut out = BTreeMap::new();
    let Ok(Some(mut reader)) = SegmentReader::open(path) else { return out };
    loop {
        match reader.next() {
            Ok(None) => return out,
            Ok(Some((start, bytes))) => drop(out.insert(start, bytes.to_vec())),
            Err(::model::StorageError::Corruption { offset, .. }) => {
                reader.skip_damage(offset).expect("a good disk");
            }
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }
}

fn number(labels: &Labels) -> u64 {
    labels.get("i").and_then(|i| i.parse().ok()).expect("one of ours")
}

impl History {
    /// Flips a bit between two processes, once.
    pub(super) fn flip(&mut self) {
        let Some(flips) = &mut self.flips else { return };
        if flips.flip.is_some() || self.side.one_in(2) {
            return;
        }
        let root = self.config.dir.clone();
        let mut kinds: BTreeMap<String, Vec<(PathBuf, u64)>> = BTreeMap::new();
        for (path, len) in self.disk.files() {
            let below = path.strip_prefix(&root).ok().and_then(Path::to_str).and_then(kind);
            if let Some(kind) = below {
                kinds.entry(kind.to_owned()).or_default().push((path.clone(), len));
            }
        }
        let n = self.side.below(kinds.len() as u64);
        let Some((kind, files)) = kinds.into_iter().nth(n as usize) else { return };
        let (path, len) = files[self.side.below(files.len() as u64) as usize].clone();
        let bit = self.side.below(8 * len);
        let block = path.strip_prefix(&root).ok().and_then(|p| p.iter().next()).and_then(|n| n.to_str());
        let block = block.filter(|n| Ulid::parse(n).is_some()).map(|n| {
            let meta = Meta::read(&root.join(n)).expect("whole until now");
            (n.to_owned(), meta.min_time, meta.max_time)
        });
        let before = records(&path);
        let names = self.names(path.parent().expect("in a directory"));
        self.disk.flip(&path, bit);
        if kind == "meta.json" && Meta::read(path.parent().expect("in a block")).is_ok() {
            return self.disk.flip(&path, bit);
        }
        self.note(|| format!("bit {bit} of {} flips", path.display()));
        // What it hides may be shown again.
        self.model.unhide();
        self.may_misfit = true;
        if matches!(&*kind, "wal" | "checkpoint" | "wbl" | "journal") {
            let after = records(&path);
            for bytes in before.into_iter().filter(|(start, b)| after.get(start) != Some(b)).map(|(_, b)| b) {
                self.excuse_record(&bytes, &names);
            }
        }
        let flips = self.flips.as_mut().expect("looked at above");
        flips.flip = Some(Flip { path, block });
    }

    /// Series by their references in the logs. A journal has references of its own.
    fn names(&self, dir: &Path) -> BTreeMap<u64, u64> {
        let journal = self.config.dir.join("journal");
        let wal = self.config.dir.join("wal");
        let dir = if dir == journal { journal } else { wal };
        let mut files = Vec::new();
        if let Ok(Some((checkpoint, _))) = segment::last_checkpoint(&dir) {
            files.extend(dir::list(&checkpoint).expect("listed").iter().map(|n| checkpoint.join(n)));
        }
        let segments = segment::numbers(&dir).unwrap_or_default();
        files.extend(segments.into_iter().map(|s| segment::path(&dir, s)));
        let mut out = BTreeMap::new();
        for bytes in files.iter().flat_map(|f| records(f).into_values()) {
            if let Ok(Record::Data(WalRecord::Series(list))) = record::decode(&bytes) {
                out.extend(list.iter().map(|(r, labels)| (r.0, number(labels))));
            }
        }
        out
    }

    /// What a lost record held may be missing; of a series that it made known, everything.
    fn excuse_record(&mut self, bytes: &[u8], names: &BTreeMap<u64, u64>) {
        let Ok(Record::Data(lost)) = record::decode(bytes) else { return };
        let mut keys: Vec<(u64, i64)> = Vec::new();
        match lost {
            WalRecord::Series(list) => {
                let series: BTreeSet<u64> = list.iter().map(|(_, labels)| number(labels)).collect();
                keys.extend(self.model.acknowledged.keys().filter(|k| series.contains(&k.0)));
            }
            other => {
                let times: Vec<(u64, i64)> = match other {
                    WalRecord::Samples(l) => l.into_iter().map(|(r, t, _)| (r.0, t)).collect(),
                    WalRecord::StartedSamples(l) => l.into_iter().map(|(r, t, ..)| (r.0, t)).collect(),
                    WalRecord::Histograms(l) => l.into_iter().map(|(r, t, _)| (r.0, t)).collect(),
                    WalRecord::StartedHistograms(l) => l.into_iter().map(|(r, t, ..)| (r.0, t)).collect(),
                    _ => Vec::new(),
                };
                keys.extend(times.into_iter().filter_map(|(r, t)| Some((*names.get(&r)?, t))));
            }
        }
        self.note(|| format!("hits a record of {} samples", keys.len()));
        for k in keys {
            if self.model.acknowledged.remove(&k).is_some() {
                self.flips.as_mut().expect("bits flip").hit.insert(k);
            }
        }
    }

    /// Whether an error tells of the bit that flipped: it names the file, or the block.
    pub(super) fn is_of_flip(&mut self, error: &str) -> bool {
        let Some(flips) = &mut self.flips else { return false };
        let Some(flip) = &flips.flip else { return false };
        let block = flip.block.as_ref().is_some_and(|(name, ..)| error.contains(name.as_str()));
        let is_told = block || error.contains(flip.path.to_str().expect("names are text"));
        flips.is_told |= is_told;
        is_told
    }

    /// Reads all there is but what cannot be read of the damaged block, series by series.
    pub(super) fn read_around(&mut self, when: &str) -> BTreeSet<Key> {
        let flip = self.flips.as_ref().and_then(|f| f.flip.as_ref()).expect("reading failed");
        let of_chunks = flip.path.to_string_lossy().contains("/chunks/");
        let Some((_, mint, maxt)) = flip.block.clone() else {
            // A file of head chunks: maintenance takes what it had from the log.
            let maintained = self.db().maintain();
            assert!(maintained.is_ok() || self.disk.is_off(), "seed {}: {maintained:?}", self.seed);
            let mut out = BTreeSet::new();
            let all = [Matcher::equal("__name__", "m")];
            let read = self.read(&all, (i64::MIN, i64::MAX), when, &mut out);
            assert!(read.is_ok() || self.disk.is_off(), "seed {}, {when}: {read:?}", self.seed);
            return out;
        };
        let mut out = BTreeSet::new();
        let series: BTreeSet<u64> = self.model.sent.iter().map(|k| k.0).collect();
        let mut failed = BTreeSet::new();
        for s in series {
            let one = [Matcher::equal("i", s.to_string().as_str())];
            for range in [(i64::MIN, mint - 1), (maxt, i64::MAX)] {
                let read = self.read(&one, range, when, &mut out);
                assert!(read.is_ok(), "seed {}, {when}: beside the damage: {read:?}", self.seed);
            }
            let mut within = BTreeSet::new();
            match self.read(&one, (mint, maxt - 1), when, &mut within) {
                Ok(()) => out.append(&mut within),
                Err(e) => {
                    assert!(self.is_of_flip(&e.to_string()), "seed {}, {when}: {e}", self.seed);
                    failed.insert(s);
                }
            }
        }
        assert!(!of_chunks || failed.len() <= 1, "seed {}, {when}: {failed:?} cannot be read", self.seed);
        self.flips.as_mut().expect("bits flip").unreadable.append(&mut failed);
        out
    }

    /// What is deleted or has expired is not missed.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&Key) -> bool) {
        if let Some(flips) = &mut self.flips {
            flips.hit.retain(|k| !is_gone(k));
        }
    }

    /// Takes note of what metrics tell.
    pub(super) fn hear(&mut self) {
        let told: u64 = TELLING.iter().map(|m| self.count(m)).sum();
        let quarantined = self.count(TELLING[3]) > 0;
        if let Some(flips) = &mut self.flips {
            flips.is_told |= told > 0;
            flips.quarantined |= quarantined;
        }
    }

    /// What the damaged block has not got any more need not be there; what is missing has been told.
    pub(super) fn excuse_damaged(&mut self, stored: &BTreeSet<Key>) {
        if self.flips.as_ref().is_none_or(|f| f.flip.is_none()) {
            return;
        }
        self.hear();
        let Some(flips) = &mut self.flips else { return };
        if let Some((_, mint, maxt)) = flips.flip.as_ref().and_then(|f| f.block.as_ref()) {
            let (all, some) = (flips.quarantined, &flips.unreadable);
            let is_lost = |(s, t): &Key| (*mint..*maxt).contains(t) && (all || some.contains(s));
            let lost = self.model.acknowledged.keys().filter(|k| is_lost(k) && !stored.contains(k));
            let lost: BTreeSet<Key> = lost.copied().collect();
            self.model.acknowledged.retain(|k, _| !lost.contains(k));
            flips.hit.extend(lost);
        }
        let missing: Vec<_> = flips.hit.iter().filter(|k| !stored.contains(k)).take(8).collect();
        let silent = !missing.is_empty() && !flips.is_told && !self.disk.is_off();
        assert!(!silent, "seed {}: nobody tells that these are missing: {missing:?}", self.seed);
    }

    /// Maintenance gets through in the end, and loses nothing more.
    pub(super) fn check_maintenance(&mut self) {
        self.disk.plan(Plan::default());
        if self.disk.is_off() {
            return;
        }
        for _ in 0..3 {
            let tried = self.db().maintain();
            self.note(|| format!("maintained: {tried:?}"));
        }
        let tried = self.db().maintain();
        assert!(tried.is_ok(), "seed {}: maintenance fails again and again: {tried:?}", self.seed);
        let retained = self.config.retention_ms == 0;
        if retained {
            self.check("after maintenance");
        }
    }
}
