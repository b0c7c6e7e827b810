//! Why the long-term store could not be opened or maintained. What crosses the storage contracts is `StorageError`.

use std::path::{Path, PathBuf};

use model::StorageError;

/// An error of the long-term store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or written.
    #[error("long-term store {}: cannot be written: {reason}; check that the directory exists and belongs to this user", dir.display())]
    Unwritable {
        /// The store's directory.
        dir: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// Another process, or another part of this one, has the store open.
    #[error("long-term store {}: already open in another process; stop that one first", dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The directory was written by a newer program.
    #[error("long-term store {}: {found}, this program reads up to format {supported}; use a newer program", dir.display())]
    NewerFormat {
        /// The store's directory.
        dir: PathBuf,
        /// What was met.
        found: String,
        /// The newest format this program knows.
        supported: u32,
    },
    /// The directory holds something else.
    #[error("long-term store {}: not a long-term store: {reason}; choose an empty directory", dir.display())]
    Foreign {
        /// The store's directory.
        dir: PathBuf,
        /// What was met.
        reason: String,
    },
    /// A setting that cannot be.
    #[error("long-term store: {0}")]
    Config(String),
    /// Anything that happens to stored data.
    #[error("long-term store: {0}")]
    Storage(#[from] StorageError),
}

/// Reads RocksDB's words at opening.
pub(super) fn open_error(dir: &Path, err: &rocksdb::Error) -> StoreError {
    let text = err.to_string();
    let dir = dir.to_path_buf();
    if text.contains("LOCK")
        && (text.contains("lock hold by current process") || text.contains("unavailable"))
    {
        return StoreError::Locked { dir };
    }
    if text.contains("Permission denied") || text.contains("Read-only file system") {
        return StoreError::Unwritable { dir, reason: text };
    }
    StoreError::Storage(storage_error("open", &dir, err))
}

/// An error of RocksDB as the storage contracts have it.
pub(super) fn storage_error(op: &'static str, dir: &Path, err: &rocksdb::Error) -> StorageError {
    let reason = err.to_string();
    match err.kind() {
        rocksdb::ErrorKind::Corruption => {
            StorageError::Corruption { path: dir.to_path_buf(), offset: 0, reason: format!("{op}: {reason}") }
        }
        rocksdb::ErrorKind::ShutdownInProgress => StorageError::Closed,
        _ => StorageError::Io { op, path: dir.to_path_buf(), reason },
    }
}
