//! Snapshots: a directory that is a store of its own, made of hard links while everything goes on.

use std::path::PathBuf;

use model::StorageError;
use model::calendar::DateTime;
use rocksdb::checkpoint::Checkpoint;

use super::LongtermStore;

/// Folder of snapshots in the store's directory.
pub const SNAPSHOTS_DIR: &str = "snapshots";

impl LongtermStore {
    /// Makes a snapshot below [`SNAPSHOTS_DIR`] and returns its name: everything committed before, durable on return. A long-term
    /// node starts on it or on a copy; it takes space only for what the store deletes later. Nobody waits for it.
    ///
    /// # Errors
    /// When it cannot be written. What was begun is removed.
    pub fn snapshot(&self) -> Result<String, StorageError> {
        let inner = &self.inner;
        inner.check_open()?;
        let root = inner.config.dir.join(SNAPSHOTS_DIR);
        std::fs::create_dir_all(&root).map_err(|e| StorageError::io("create", &root, &e))?;
        let name = self.free_name(&root)?;
        // RocksDB wants to make the directory itself, writes into a temporary one and renames that.
        let checkpoint = Checkpoint::new(&inner.db).map_err(|e| inner.error("snapshot", &e))?;
        let to = root.join(&name);
        checkpoint.create_checkpoint(&to).map_err(|e| inner.error("write snapshot of", &e))?;
        tracing::info!(path = %to.display(), "snapshot of the long-term store written");
        Ok(name)
    }

    /// A name by the clock, as snapshots of the local store have them, that is not taken.
    fn free_name(&self, root: &std::path::Path) -> Result<String, StorageError> {
        let d = DateTime::from_ms(self.inner.clock.now_ms());
        let stem =
            format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z", d.year, d.month, d.day, d.hour, d.minute, d.second);
        let taken = |name: &String| root.join(name).exists();
        (0..u32::MAX).map(|i| format!("{stem}-{i:016x}")).find(|n| !taken(n)).ok_or_else(|| {
            StorageError::Io { op: "name", path: PathBuf::from(root), reason: "no name is free".into() }
        })
    }
}
