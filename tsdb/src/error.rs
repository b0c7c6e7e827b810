//! What opening and maintaining a database can fail with. Reading and writing samples use the errors of `model`.

use std::path::PathBuf;

use model::StorageError;

/// Why a database could not be opened or maintained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the directory. Stop it, or choose another directory.
    #[error("data directory {} is in use by another process: stop it or choose another directory", .0.display())]
    Locked(PathBuf),
    /// The directory cannot be created or written to.
    #[error("data directory {} is not writable: {reason}", dir.display())]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// Text of the I/O error.
        reason: String,
    },
    /// A setting that this version cannot honour. Names the setting.
    #[error("{0}")]
    Config(String),
    /// A metric could not be registered.
    #[error("register metric: {0}")]
    Metrics(String),
    /// A file operation failed or a file is corrupt.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
