//! A simulated disk, for tests and fuzzing only: a tree of files in memory that does what real disks do when things go wrong,
//! by seed, so that every failure can be had again.
//!
//! What it does, and the database must survive:
//! - the process ends at any change (kill -9): what was written stays, the last write perhaps in part;
//! - the machine ends at any change: of what was not synced any part may be there, in sectors, in any order; a file may have
//!   grown without its bytes (zeros); a name made, moved or removed may be as before until its directory is synced, and later
//!   changes of names may be there without earlier ones;
//! - the disk is full for a while: writes end in the middle, nothing can be made;
//! - fsync fails once: what it was to write is lost for good, later calls succeed without it; what is read afterwards is what
//!   was written ([`Loss::Cached`]) or what is on the disk ([`Loss::Evicted`]);
//! - bits flip ([`SimDisk::flip`]).
//!
//! What it takes for granted: a sector is written whole or not at all, a rename is atomic, synced bytes stay.
//!
//! A disk is found by its path, `/sim/<number>/…` ([`switch`]); reading never counts as a change.

#![cfg_attr(not(test), allow(dead_code, reason = "fuzzing needs files only, no faults"))]

mod fs;
#[cfg(test)]
pub(crate) mod gate;
pub(crate) mod switch;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::rng::Rng;
use parking_lot::Mutex;

#[cfg(test)]
pub(crate) use fs::Loss;
pub(crate) use fs::Plan;
use fs::Tree;

/// Simulated disks are below this path.
const PREFIX: &str = "/sim/";

static DISKS: Mutex<BTreeMap<u64, Arc<Mutex<Tree>>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static ULIDS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes the random parts of ULIDs on this thread follow from a seed.
pub(crate) fn seed_ulids(seed: u64) {
    ULIDS.set(Some(seed));
}

/// The next random part of a ULID, when it is to follow from a seed.
pub(crate) fn ulid_random() -> Option<u64> {
    let mut rng = Rng::new(ULIDS.get()?);
    let n = rng.next();
    ULIDS.set(Some(n));
    Some(n)
}

/// A simulated disk; its files go with it.
pub(crate) struct SimDisk {
    number: u64,
    tree: Arc<Mutex<Tree>>,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tree = Arc::new(Mutex::new(Tree::new(seed)));
        DISKS.lock().insert(number, tree.clone());
        Self { number, tree }
    }

    /// Where it is mounted; exists durably.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("{PREFIX}{}", self.number))
    }

    /// What goes wrong from now on; changes are counted anew.
    pub(crate) fn plan(&self, plan: Plan) {
        self.tree.lock().set_plan(plan);
    }

    /// Changes since the last plan.
    pub(crate) fn changes(&self) -> u64 {
        self.tree.lock().changes()
    }

    /// Whether the end came that was planned.
    pub(crate) fn is_off(&self) -> bool {
        self.tree.lock().is_off()
    }

    /// Prints every change from now on.
    pub(crate) fn set_loud(&self) {
        self.tree.lock().set_loud();
    }

    /// Whether an fsync has lost something of a file that is still there, since the machine went down last.
    pub(crate) fn has_lost(&self) -> bool {
        !self.lost().is_empty()
    }

    /// These files.
    pub(crate) fn lost(&self) -> Vec<PathBuf> {
        self.tree.lock().lost().into_iter().map(|p| self.root().join(p)).collect()
    }

    /// What the next process finds: with `power_lost` only what a disk keeps. Files opened before cannot be used any more.
    pub(crate) fn restart(&self, power_lost: bool) {
        self.tree.lock().restart(power_lost);
    }

    /// All files that are not empty, and their lengths in bytes.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.tree.lock().lengths();
        files.into_iter().map(|(path, len)| (self.root().join(path), len)).collect()
    }

    /// Flips a bit of a file.
    pub(crate) fn flip(&self, path: &Path, bit: u64) {
        let path = path.strip_prefix(self.root()).expect("a file of this disk");
        self.tree.lock().flip(path.to_str().expect("names are text"), bit);
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        DISKS.lock().remove(&self.number);
    }
}

/// The disk that a path is on, and the path from its root.
fn find(path: &Path) -> Option<(Arc<Mutex<Tree>>, &str)> {
    let rest = path.to_str()?.strip_prefix(PREFIX)?;
    let (number, inner) = rest.split_once('/').unwrap_or((rest, ""));
    let tree = DISKS.lock().get(&number.parse().ok()?)?.clone();
    Some((tree, inner))
}

#[cfg(test)]
mod tests;
