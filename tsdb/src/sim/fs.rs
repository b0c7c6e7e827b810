//! The tree of a simulated disk: what a process sees, what the disk has, and how the two come apart.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;

use model::rng::Rng;

const SECTOR_LEN_BYTES: usize = 512;
const ROOT: u64 = 0;

/// What is read after an fsync failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// What was written.
    Cached,
    /// What is on the disk.
    Evicted,
}

/// What goes wrong, by number of the change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Everything ends at this change.
    pub(crate) off_at: Option<u64>,
    /// The disk is full during these.
    pub(crate) full: Range<u64>,
    /// The first fsync of a file from here on fails.
    pub(crate) bad_sync: Option<(u64, Loss)>,
}

enum Node {
    File {
        data: Vec<u8>,
        durable: Vec<u8>,
        /// Changes that are not durable, in order.
        pending: Vec<Change>,
    },
    Dir {
        now: BTreeMap<String, u64>,
        durable: BTreeMap<String, u64>,
    },
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

/// One change of names, atomic: `(directory, name, what it then stands for)`.
type NameChange = Vec<(u64, String, Option<u64>)>;

/// How a change comes out.
enum Verdict {
    Done,
    /// The end comes; whether the change was still done.
    End(bool),
    Full,
}

pub(super) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next_inode: u64,
    /// Changes of names that are not durable, in order.
    names: Vec<NameChange>,
    locks: BTreeSet<u64>,
    rng: Rng,
    plan: Plan,
    changes: u64,
    off: bool,
    /// Files of which an fsync lost something.
    lost: BTreeSet<u64>,
    loud: bool,
    epoch: u64,
}

fn gone() -> io::Error {
    io::Error::other("the machine is off")
}

fn not_found() -> io::Error {
    ErrorKind::NotFound.into()
}

fn dir() -> Node {
    Node::Dir { now: BTreeMap::new(), durable: BTreeMap::new() }
}

/// Applies one change to the bytes of a file, as far as `sector` (given the number of a sector of the file) says so.
fn apply(data: &mut Vec<u8>, change: &Change, mut sector: impl FnMut(usize) -> bool) {
    match change {
        Change::Len(len) => data.resize(*len, 0),
        Change::Write { offset, bytes } => {
            let mut at = 0;
            while at < bytes.len() {
                let position = offset + at;
                let n = (SECTOR_LEN_BYTES - position % SECTOR_LEN_BYTES).min(bytes.len() - at);
                if sector(position / SECTOR_LEN_BYTES) {
                    if data.len() < position + n {
                        data.resize(position + n, 0);
                    }
                    data[position..position + n].copy_from_slice(&bytes[at..at + n]);
                }
                at += n;
            }
        }
    }
}

impl Tree {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, dir())]),
            next_inode: 1,
            names: Vec::new(),
            locks: BTreeSet::new(),
            rng: Rng::new(seed),
            plan: Plan::default(),
            changes: 0,
            off: false,
            lost: BTreeSet::new(),
            loud: false,
            epoch: 0,
        }
    }

    pub(super) fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
        self.changes = 0;
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    pub(super) fn lost(&self) -> Vec<String> {
        self.paths().into_iter().filter(|(_, i)| self.lost.contains(i)).map(|(path, _)| path).collect()
    }

    pub(super) fn set_loud(&mut self) {
        self.loud = true;
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.loud {
            eprintln!("    {} {}", self.changes, text());
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn check_epoch(&self, epoch: u64) -> io::Result<()> {
        if self.off || epoch != self.epoch { Err(gone()) } else { Ok(()) }
    }

    fn check_on(&self) -> io::Result<()> {
        if self.off { Err(gone()) } else { Ok(()) }
    }

    /// Counts a change and says how it comes out. `needs_space`: a full disk refuses it.
    fn change(&mut self, needs_space: bool) -> io::Result<Verdict> {
        self.check_on()?;
        self.changes += 1;
        if self.plan.off_at == Some(self.changes) {
            self.off = true;
            return Ok(Verdict::End(self.rng.one_in(2)));
        }
        if needs_space && self.plan.full.contains(&self.changes) {
            return Ok(Verdict::Full);
        }
        Ok(Verdict::Done)
    }

    // === Names ===

    fn lookup(&self, path: &str) -> io::Result<u64> {
        let mut at = ROOT;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            at = match &self.nodes[&at] {
                Node::Dir { now, .. } => *now.get(part).ok_or_else(not_found)?,
                Node::File { .. } => return Err(ErrorKind::NotADirectory.into()),
            };
        }
        Ok(at)
    }

    /// The directory that holds a path's last name, and the name.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(u64, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.lookup(parent)?;
        match &self.nodes[&parent] {
            Node::Dir { .. } => Ok((parent, name)),
            Node::File { .. } => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn entries(&mut self, inode: u64) -> &mut BTreeMap<String, u64> {
        match self.nodes.get_mut(&inode) {
            Some(Node::Dir { now, .. }) => now,
            _ => panic!("inode {inode} is a directory"),
        }
    }

    /// Carries out a change of names. An error is what the caller gets; the change may still have been done.
    fn rename_all(&mut self, change: NameChange, needs_space: bool) -> io::Result<()> {
        let verdict = self.change(needs_space)?;
        self.say(|| format!("names {change:?}"));
        if matches!(verdict, Verdict::Done | Verdict::End(true)) {
            for (dir, name, inode) in &change {
                match inode {
                    Some(i) => self.entries(*dir).insert(name.clone(), *i),
                    None => self.entries(*dir).remove(name),
                };
            }
            self.names.push(change);
        }
        match verdict {
            Verdict::Done => Ok(()),
            Verdict::End(_) => Err(gone()),
            Verdict::Full => Err(ErrorKind::StorageFull.into()),
        }
    }

    fn add(&mut self, path: &str, node: Node) -> io::Result<u64> {
        let (parent, name) = self.parent(path)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        self.rename_all(vec![(parent, name.to_owned(), Some(inode))], true)?;
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &str) -> io::Result<()> {
        self.check_on()?;
        let ends = path.match_indices('/').map(|(i, _)| i).chain([path.len()]);
        for end in ends {
            match self.lookup(&path[..end]) {
                Ok(i) if matches!(self.nodes[&i], Node::Dir { .. }) => {}
                Ok(_) => return Err(ErrorKind::NotADirectory.into()),
                Err(e) if e.kind() == ErrorKind::NotFound => drop(self.add(&path[..end], dir())?),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(super) fn names(&self, path: &str) -> io::Result<Vec<String>> {
        self.check_on()?;
        match &self.nodes[&self.lookup(path)?] {
            Node::Dir { now, .. } => Ok(now.keys().cloned().collect()),
            Node::File { .. } => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn is_there(&self, path: &str) -> bool {
        !self.off && self.lookup(path).is_ok()
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        !self.off && self.lookup(path).is_ok_and(|i| matches!(self.nodes[&i], Node::Dir { .. }))
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.check_on()?;
        self.lookup(path)?;
        let (parent, name) = self.parent(path)?;
        self.rename_all(vec![(parent, name.to_owned(), None)], false)
    }

    pub(super) fn remove_all(&mut self, path: &str) -> io::Result<()> {
        for name in self.names(path)? {
            let child = format!("{path}/{name}");
            if self.is_dir(&child) {
                self.remove_all(&child)?;
            } else {
                self.remove(&child)?;
            }
        }
        self.remove(path)
    }

    pub(super) fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.check_on()?;
        let inode = self.lookup(from)?;
        if self.lookup(to).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let (parent, name) = self.parent(to)?;
        self.rename_all(vec![(parent, name.to_owned(), Some(inode))], true)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.check_on()?;
        let inode = self.lookup(from)?;
        if let Ok(there) = self.lookup(to)
            && matches!(&self.nodes[&there], Node::Dir { now, .. } if !now.is_empty())
        {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let ((a, old), (b, new)) = (self.parent(from)?, self.parent(to)?);
        self.rename_all(vec![(a, old.to_owned(), None), (b, new.to_owned(), Some(inode))], false)
    }

    pub(super) fn sync_dir(&mut self, path: &str) -> io::Result<()> {
        let inode = self.lookup(path)?;
        self.say(|| format!("sync directory {path}, {inode}"));
        match self.change(false)? {
            Verdict::End(false) => return Err(gone()),
            Verdict::Done | Verdict::End(true) | Verdict::Full => {}
        }
        let (mine, others) = std::mem::take(&mut self.names)
            .into_iter()
            .partition::<Vec<_>, _>(|c| c.iter().any(|(d, ..)| *d == inode));
        self.names = others;
        mine.iter().for_each(|c| self.make_durable(c));
        self.check_on()
    }

    fn make_durable(&mut self, change: &NameChange) {
        for (d, name, inode) in change {
            if let Some(Node::Dir { durable, .. }) = self.nodes.get_mut(d) {
                match inode {
                    Some(i) => durable.insert(name.clone(), *i),
                    None => durable.remove(name),
                };
            }
        }
    }

    // === Files ===

    pub(super) fn open(&mut self, path: &str) -> io::Result<u64> {
        self.check_on()?;
        let inode = self.lookup(path)?;
        self.file(inode)?;
        Ok(inode)
    }

    pub(super) fn create(&mut self, path: &str) -> io::Result<u64> {
        self.check_on()?;
        match self.lookup(path) {
            Ok(inode) => self.set_len(inode, 0).map(|()| inode),
            Err(_) => {
                let file = Node::File { data: Vec::new(), durable: Vec::new(), pending: Vec::new() };
                self.add(path, file)
            }
        }
    }

    pub(super) fn file(&self, inode: u64) -> io::Result<&Vec<u8>> {
        match self.nodes.get(&inode) {
            Some(Node::File { data, .. }) => Ok(data),
            Some(Node::Dir { .. }) => Err(ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    pub(super) fn read(&self, path: &str) -> io::Result<&Vec<u8>> {
        self.check_on()?;
        self.file(self.lookup(path)?)
    }

    fn push(&mut self, inode: u64, change: Change) {
        if let Some(Node::File { data, pending, .. }) = self.nodes.get_mut(&inode) {
            apply(data, &change, |_| true);
            pending.push(change);
        }
    }

    pub(super) fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return self.check_on();
        }
        let verdict = self.change(true)?;
        self.say(|| format!("write {inode} at {offset} {}", bytes.len()));
        let n = match verdict {
            Verdict::Done => bytes.len(),
            Verdict::End(_) | Verdict::Full => self.rng.below(bytes.len() as u64 + 1) as usize,
        };
        if n > 0 {
            self.push(inode, Change::Write { offset: offset as usize, bytes: bytes[..n].to_vec() });
        }
        match verdict {
            Verdict::Done => Ok(()),
            Verdict::End(_) => Err(gone()),
            Verdict::Full => Err(ErrorKind::StorageFull.into()),
        }
    }

    pub(super) fn set_len(&mut self, inode: u64, len: u64) -> io::Result<()> {
        let verdict = self.change(false)?;
        self.say(|| format!("cut {inode} to {len}"));
        if matches!(verdict, Verdict::Done | Verdict::End(true)) {
            self.push(inode, Change::Len(len as usize));
            if len == 0 {
                self.lost.remove(&inode);
            }
        }
        self.check_on()
    }

    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        let verdict = self.change(false)?;
        self.say(|| format!("sync {inode}"));
        if matches!(verdict, Verdict::End(false)) {
            return Err(gone());
        }
        let bad = self.plan.bad_sync.filter(|(from, _)| self.changes >= *from).map(|(_, loss)| loss);
        let rng = &mut self.rng;
        let Some(Node::File { data, durable, pending }) = self.nodes.get_mut(&inode) else {
            return Err(not_found());
        };
        let changes = std::mem::take(pending);
        if let Some(loss) = bad.filter(|_| !changes.is_empty()) {
            self.plan.bad_sync = None;
            self.lost.insert(inode);
            for c in &changes {
                apply(durable, c, |_| rng.one_in(2));
            }
            durable.resize(data.len(), 0);
            if loss == Loss::Evicted {
                data.clone_from(durable);
            }
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        changes.iter().for_each(|c| apply(durable, c, |_| true));
        self.check_on()
    }

    pub(super) fn lock(&mut self, path: &str) -> io::Result<Option<u64>> {
        let inode = match self.lookup(path) {
            Ok(inode) => inode,
            Err(_) => self.create(path)?,
        };
        Ok(self.locks.insert(inode).then_some(inode))
    }

    pub(super) fn unlock(&mut self, inode: u64, epoch: u64) {
        if epoch == self.epoch {
            self.locks.remove(&inode);
        }
    }

    // === What happens between two processes ===

    pub(super) fn restart(&mut self, power_lost: bool) {
        self.off = false;
        self.epoch += 1;
        self.locks.clear();
        self.plan = Plan::default();
        self.changes = 0;
        if power_lost {
            self.lost.clear();
            self.lose_names();
            self.lose_bytes();
        }
    }

    fn lose_names(&mut self) {
        let changes = std::mem::take(&mut self.names);
        let kept_to = match self.rng.below(4) {
            0 => 0,
            1 => changes.len(),
            _ => self.rng.below(changes.len() as u64 + 1) as usize,
        };
        let reorders = self.rng.one_in(2);
        for (i, c) in changes.iter().enumerate() {
            if i < kept_to || reorders && self.rng.one_in(2) {
                self.make_durable(c);
            }
        }
        for node in self.nodes.values_mut() {
            if let Node::Dir { now, durable } = node {
                now.clone_from(durable);
            }
        }
    }

    fn lose_bytes(&mut self) {
        let rng = &mut self.rng;
        for node in self.nodes.values_mut() {
            let Node::File { data, durable, pending } = node else { continue };
            let changes = std::mem::take(pending);
            if !changes.is_empty() {
                let kept_to = match rng.below(4) {
                    0 => 0,
                    1 => changes.len(),
                    _ => rng.below(changes.len() as u64 + 1) as usize,
                };
                let reorders = rng.one_in(2);
                for (i, c) in changes.iter().enumerate() {
                    let torn = i == kept_to || reorders;
                    apply_at_crash(durable, c, i < kept_to, torn, rng);
                }
                // The length may be there without the bytes.
                if rng.one_in(3) && durable.len() < data.len() {
                    durable.resize(data.len(), 0);
                }
            }
            data.clone_from(durable);
        }
        for (path, inode) in self.paths() {
            self.say(|| format!("left: {path}, {inode}, {} bytes", self.file(inode).map_or(0, Vec::len)));
        }
    }

    /// Paths and lengths of files that are not empty.
    pub(super) fn lengths(&self) -> Vec<(String, u64)> {
        let len = |i: u64| self.file(i).map_or(0, |d| d.len() as u64);
        self.paths().into_iter().map(|(path, i)| (path, len(i))).filter(|(_, len)| *len > 0).collect()
    }

    pub(super) fn flip(&mut self, path: &str, bit: u64) {
        let inode = self.lookup(path).expect("callers know the file");
        if let Some(Node::File { data, durable, .. }) = self.nodes.get_mut(&inode) {
            let bit = (bit % (data.len() as u64 * 8)) as usize;
            data[bit / 8] ^= 1 << (bit % 8);
            if let Some(b) = durable.get_mut(bit / 8) {
                *b ^= 1 << (bit % 8);
            }
        }
    }

    /// Every file: its path and inode.
    fn paths(&self) -> Vec<(String, u64)> {
        let mut out = Vec::new();
        let mut stack = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = stack.pop() {
            match &self.nodes[&inode] {
                Node::File { .. } => out.push((path, inode)),
                Node::Dir { now, .. } => {
                    let child = |n: &String| if path.is_empty() { n.clone() } else { format!("{path}/{n}") };
                    stack.extend(now.iter().map(|(n, i)| (child(n), *i)));
                }
            }
        }
        out.sort();
        out
    }
}

/// What a crash leaves of one change: all of it, or some of its sectors, or nothing.
fn apply_at_crash(durable: &mut Vec<u8>, c: &Change, whole: bool, torn: bool, rng: &mut Rng) {
    if whole {
        apply(durable, c, |_| true);
    } else if torn {
        match c {
            Change::Len(_) if rng.one_in(2) => {}
            c => apply(durable, c, |_| rng.one_in(2)),
        }
    }
}
