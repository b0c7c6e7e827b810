//! The only place of this crate that touches files: every operation carries its path into the error.
//!
//! Files that must be whole or absent are written through [`OutFile`] into a temporary name or directory, synced, renamed,
//! and the directory that holds the name is synced ([`publish`]). The calls themselves are in `disk`; tests lead them to a
//! simulated disk.

pub(crate) mod disk;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::StorageError;

#[cfg(any(test, feature = "fuzzing"))]
use crate::sim::switch as files;
#[cfg(not(any(test, feature = "fuzzing")))]
use disk as files;
use files::File;

use crate::error::Error;

type Result<T> = std::result::Result<T, StorageError>;

/// Bytes collected before they go to the operating system.
const OUT_BUFFER_LEN_BYTES: usize = 1 << 20;

fn io<T>(op: &'static str, path: &Path, r: io::Result<T>) -> Result<T> {
    r.map_err(|e| StorageError::io(op, path, &e))
}

/// Holds the lock of a data directory until it is dropped.
pub(crate) struct DirLock {
    _lock: files::Lock,
}

/// Makes the directory when needed and takes its lock, so that no second process writes there.
pub(crate) fn lock(dir: &Path) -> std::result::Result<DirLock, Error> {
    let not_writable = |e: io::Error| Error::NotWritable { dir: dir.to_owned(), reason: e.to_string() };
    let missing = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !files::is_dir(d)).count();
    files::create_dir_all(dir).map_err(not_writable)?;
    // What is synced inside would be lost with the directory's own name. One that is there may have been made by a process
    // that was killed before it came here.
    for parent in dir.ancestors().skip(1).take(missing.max(1)) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match files::sync_dir(parent) {
            // Who may not look into it has not made anything there.
            Err(e) if e.kind() != ErrorKind::PermissionDenied => return Err(not_writable(e)),
            _ => {}
        }
    }
    match files::lock(&dir.join("lock")).map_err(not_writable)? {
        Some(lock) => Ok(DirLock { _lock: lock }),
        None => Err(Error::Locked(dir.to_owned())),
    }
}

/// Makes a directory and its parents.
pub(crate) fn create_all(path: &Path) -> Result<()> {
    io("create directory", path, files::create_dir_all(path))
}

/// Names in a directory, sorted. Names that are not UTF-8 are none of ours and are left out.
pub(crate) fn list(path: &Path) -> Result<Vec<String>> {
    let mut names = io("list", path, files::names(path))?;
    names.sort();
    Ok(names)
}

pub(crate) fn exists(path: &Path) -> bool {
    files::exists(path)
}

pub(crate) fn is_dir(path: &Path) -> bool {
    files::is_dir(path)
}

/// Whole contents; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match files::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        r => io("read", path, r).map(Some),
    }
}

/// Length of a file.
pub(crate) fn len(path: &Path) -> Result<u64> {
    io("stat", path, files::len(path))
}

/// Length of all files below a directory.
pub(crate) fn len_all(path: &Path) -> Result<u64> {
    let mut total = 0;
    for name in list(path)? {
        let child = path.join(name);
        total += if is_dir(&child) { len_all(&child)? } else { len(&child)? };
    }
    Ok(total)
}

pub(crate) fn remove_file(path: &Path) -> Result<()> {
    io("remove", path, files::remove_file(path))
}

/// Removes a directory with all it holds.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    io("remove", path, files::remove_dir_all(path))
}

/// Gives a file a second name; on another file system, where that is not possible, it is copied.
pub(crate) fn link(from: &Path, to: &Path) -> Result<()> {
    match files::hard_link(from, to) {
        Err(e) if e.kind() == ErrorKind::CrossesDevices => io("copy", from, files::copy(from, to)),
        r => io("link", from, r),
    }
}

/// Copies a directory with all it holds. What is removed from it meanwhile is left out.
pub(crate) fn copy_all(from: &Path, to: &Path) -> Result<()> {
    create_all(to)?;
    for name in list(from)? {
        let (child, target) = (from.join(&name), to.join(&name));
        if is_dir(&child) {
            copy_all(&child, &target)?;
        } else if let Err(e) = files::copy(&child, &target)
            && e.kind() != ErrorKind::NotFound
        {
            return Err(StorageError::io("copy", &child, &e));
        }
    }
    Ok(())
}

/// Size of the file system that holds a path; `None` when it cannot be had.
pub(crate) fn file_system_bytes(path: &Path) -> Option<u64> {
    files::file_system_bytes(path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync(path: &Path) -> Result<()> {
    io("fsync directory", path, files::sync_dir(path))
}

/// Gives what was written under `from` its final name, durably.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<()> {
    if is_dir(from) {
        sync(from)?;
    }
    io("rename", from, files::rename(from, to))?;
    match to.parent() {
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

/// Cuts a file to `len`, durably.
pub(crate) fn truncate(path: &Path, len: u64) -> Result<()> {
    let file = io("open", path, File::open_to_write(path))?;
    io("truncate", path, file.set_len(len))?;
    io("fsync", path, file.sync_data())
}

/// A file that is there, of which parts are written over.
pub(crate) struct Patch {
    path: PathBuf,
    file: File,
}

impl Patch {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: io("open", path, File::open_to_write(path))? })
    }

    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        io("write", &self.path, self.file.write_all_at(bytes, offset))
    }

    pub(crate) fn truncate(&mut self, len: u64) -> Result<()> {
        io("truncate", &self.path, self.file.set_len(len))
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        io("fsync", &self.path, self.file.sync_data())
    }
}

/// Maps a file that nobody changes any more.
pub(crate) fn map(path: &Path) -> Result<Bytes> {
    io("map", path, files::map(path))
}

/// A file read at positions.
pub(crate) struct InFile {
    path: PathBuf,
    file: File,
}

impl InFile {
    /// Opens a file; `None` when there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            r => Ok(Some(Self { path: path.to_owned(), file: io("open", path, r)? })),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> Result<u64> {
        io("stat", &self.path, self.file.len())
    }

    pub(crate) fn read_at(&self, out: &mut [u8], offset: u64) -> Result<()> {
        io("read", &self.path, self.file.read_exact_at(out, offset))
    }
}

/// A file written from front to end, buffered unless written with [`OutFile::write_through`].
pub(crate) struct OutFile {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// Length of the file with the buffer.
    len: u64,
}

impl OutFile {
    /// Makes a new, empty file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = io("create", path, File::create(path))?;
        Ok(Self { path: path.to_owned(), file, buffer: Vec::new(), len: 0 })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        if self.buffer.len() >= OUT_BUFFER_LEN_BYTES { self.flush() } else { Ok(()) }
    }

    /// Replaces bytes that were written before.
    pub(crate) fn write_back(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(offset + bytes.len() as u64 <= self.len, "only what was written is replaced");
        self.flush()?;
        io("write", &self.path, self.file.write_all_at(bytes, offset))
    }

    /// Writes zeros up to the next multiple of `align`.
    pub(crate) fn pad(&mut self, align: u64) -> Result<()> {
        let missing = self.len.next_multiple_of(align) - self.len;
        self.write(&vec![0; missing as usize])
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        io("write", &self.path, self.file.write_all_at(&self.buffer, self.len - self.buffer.len() as u64))?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes without the buffer. After an error the file is cut back to what it was; when that fails too, the error
    /// says so and the file must not be written any more.
    pub(crate) fn write_through(&mut self, bytes: &[u8]) -> std::result::Result<(), (StorageError, bool)> {
        assert!(self.buffer.is_empty(), "a file is either buffered or not");
        match self.file.write_all_at(bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(e) => {
                let usable = self.file.set_len(self.len).is_ok();
                Err((StorageError::io("write", &self.path, &e), usable))
            }
        }
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        io("fsync", &self.path, self.file.sync_data())
    }

    /// A second handle for syncing beside writing.
    pub(crate) fn sync_handle(&self) -> Result<SyncHandle> {
        let file = io("open", &self.path, self.file.try_clone())?;
        Ok(SyncHandle { path: self.path.clone(), file })
    }
}

/// Syncs a file while another thread writes it.
pub(crate) struct SyncHandle {
    path: PathBuf,
    file: File,
}

impl SyncHandle {
    /// For a file that another process wrote.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: io("open", path, File::open(path))? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sync(&self) -> Result<()> {
        io("fsync", &self.path, self.file.sync_data())
    }
}
