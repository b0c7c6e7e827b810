//! Stands where `dir` calls the operating system: paths of a simulated disk go there, all others on to [`disk`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::find;
use super::fs::Tree;
use crate::dir::disk;

/// An open file.
pub(crate) enum File {
    Real(disk::File),
    Simulated(Handle),
}

/// A file of a simulated disk, opened by the process that ran at `epoch`.
pub(crate) struct Handle {
    tree: Arc<Mutex<Tree>>,
    inode: u64,
    epoch: u64,
}

impl File {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match find(path) {
            Some((tree, p)) => Self::simulated(&tree, |t| t.open(p)),
            None => disk::File::open(path).map(Self::Real),
        }
    }

    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        match find(path) {
            Some((tree, p)) => Self::simulated(&tree, |t| t.create(p)),
            None => disk::File::create(path).map(Self::Real),
        }
    }

    pub(crate) fn open_to_write(path: &Path) -> io::Result<Self> {
        match find(path) {
            Some((tree, p)) => Self::simulated(&tree, |t| t.open(p)),
            None => disk::File::open_to_write(path).map(Self::Real),
        }
    }

    fn simulated(
        tree: &Arc<Mutex<Tree>>,
        open: impl FnOnce(&mut Tree) -> io::Result<u64>,
    ) -> io::Result<Self> {
        let mut t = tree.lock();
        let inode = open(&mut t)?;
        Ok(Self::Simulated(Handle { tree: tree.clone(), inode, epoch: t.epoch() }))
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(f) => f.len(),
            Self::Simulated(h) => h.with(|t, i| t.file(i).map(|f| f.len() as u64)),
        }
    }

    pub(crate) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Real(f) => f.read_exact_at(out, offset),
            Self::Simulated(h) => h.with(|t, i| {
                let data = t.file(i)?;
                let end = (offset as usize).saturating_add(out.len());
                out.copy_from_slice(data.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }),
        }
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Real(f) => f.write_all_at(bytes, offset),
            Self::Simulated(h) => h.with(|t, i| t.write(i, offset, bytes)),
        }
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            Self::Real(f) => f.set_len(len),
            Self::Simulated(h) => h.with(|t, i| t.set_len(i, len)),
        }
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::Real(f) => f.sync_data(),
            Self::Simulated(h) => h.with(Tree::sync),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Real(f) => f.try_clone().map(Self::Real),
            Self::Simulated(h) => {
                Ok(Self::Simulated(Handle { tree: h.tree.clone(), inode: h.inode, epoch: h.epoch }))
            }
        }
    }
}

impl Handle {
    fn with<T>(&self, f: impl FnOnce(&mut Tree, u64) -> io::Result<T>) -> io::Result<T> {
        let mut tree = self.tree.lock();
        tree.check_epoch(self.epoch)?;
        f(&mut tree, self.inode)
    }
}

/// A lock that lasts until it is dropped.
pub(crate) enum Lock {
    Real { _lock: disk::Lock },
    Simulated(Handle),
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Self::Simulated(h) = self {
            h.tree.lock().unlock(h.inode, h.epoch);
        }
    }
}

pub(crate) fn lock(path: &Path) -> io::Result<Option<Lock>> {
    let Some((tree, p)) = find(path) else {
        return Ok(disk::lock(path)?.map(|l| Lock::Real { _lock: l }));
    };
    let mut t = tree.lock();
    let Some(inode) = t.lock(p)? else { return Ok(None) };
    Ok(Some(Lock::Simulated(Handle { tree: tree.clone(), inode, epoch: t.epoch() })))
}

pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
    match find(path) {
        Some((tree, p)) => tree.lock().create_dir_all(p),
        None => disk::create_dir_all(path),
    }
}

pub(crate) fn names(path: &Path) -> io::Result<Vec<String>> {
    match find(path) {
        Some((tree, p)) => tree.lock().names(p),
        None => disk::names(path),
    }
}

pub(crate) fn exists(path: &Path) -> bool {
    match find(path) {
        Some((tree, p)) => tree.lock().is_there(p),
        None => disk::exists(path),
    }
}

pub(crate) fn is_dir(path: &Path) -> bool {
    match find(path) {
        Some((tree, p)) => tree.lock().is_dir(p),
        None => disk::is_dir(path),
    }
}

pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    match find(path) {
        Some((tree, p)) => tree.lock().read(p).cloned(),
        None => disk::read(path),
    }
}

pub(crate) fn len(path: &Path) -> io::Result<u64> {
    match find(path) {
        Some((tree, p)) => tree.lock().read(p).map(|d| d.len() as u64),
        None => disk::len(path),
    }
}

pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match find(path) {
        Some((tree, p)) => tree.lock().remove(p),
        None => disk::remove_file(path),
    }
}

pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    match find(path) {
        Some((tree, p)) => tree.lock().remove_all(p),
        None => disk::remove_dir_all(path),
    }
}

pub(crate) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    match (find(from), find(to)) {
        (Some((tree, from)), Some((_, to))) => tree.lock().link(from, to),
        (None, None) => disk::hard_link(from, to),
        _ => Err(io::ErrorKind::CrossesDevices.into()),
    }
}

pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if find(from).is_none() && find(to).is_none() {
        return disk::copy(from, to);
    }
    let bytes = read(from)?;
    File::create(to)?.write_all_at(&bytes, 0)
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match (find(from), find(to)) {
        (Some((tree, from)), Some((_, to))) => tree.lock().rename(from, to),
        (None, None) => disk::rename(from, to),
        _ => Err(io::ErrorKind::CrossesDevices.into()),
    }
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    match find(path) {
        Some((tree, p)) => tree.lock().sync_dir(p),
        None => disk::sync_dir(path),
    }
}

/// A simulated file is copied: nobody changes it any more.
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    match find(path) {
        Some(_) => read(path).map(Bytes::from),
        None => disk::map(path),
    }
}

pub(crate) fn file_system_bytes(path: &Path) -> Option<u64> {
    match find(path) {
        Some(_) => Some(1 << 30),
        None => disk::file_system_bytes(path),
    }
}
