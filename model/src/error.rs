//! Errors that cross the storage contracts. Variants follow what the caller does next.

use std::path::PathBuf;

/// Why one sample was not taken. Rejections are per sample: they are counted, and the rest of the batch goes on.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Older than the newest sample of its series, and no out-of-order window takes it.
    #[error("out of order sample")]
    OutOfOrder,
    /// Outside the range that the head can still take.
    #[error("out of bounds")]
    OutOfBounds,
    /// Older than the out-of-order window.
    #[error("too old sample")]
    TooOld,
    /// Another value at the timestamp of the newest sample.
    #[error("duplicate sample for timestamp")]
    DuplicateTimestamp,
    /// The reference is not, or no longer, known: append again with labels and reference 0.
    #[error("unknown series reference")]
    UnknownRef,
    /// The labels name no series, for example there are none or a name occurs twice.
    #[error("invalid labels: {0}")]
    InvalidLabels(String),
    /// A histogram that contradicts itself.
    #[error("invalid histogram: {0}")]
    InvalidHistogram(String),
    /// The store cannot take samples now; the whole batch fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a store could not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// A file operation failed. `reason` is the operating system's word for it.
    #[error("{op} {}: {reason}", path.display())]
    Io {
        /// What was tried: `open`, `fsync`, …
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Text of the I/O error.
        reason: String,
    },
    /// Bytes read back are not what was written.
    #[error("corruption in {} at offset {offset}: {reason}", path.display())]
    Corruption {
        /// The file.
        path: PathBuf,
        /// Byte offset of the record or page.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process or node is needed and did not answer.
    #[error("{who}: {reason}")]
    Unavailable {
        /// Whom we asked.
        who: String,
        /// What happened.
        reason: String,
    },
    /// A limit would be exceeded; `what` names it and its setting.
    #[error("{0}")]
    Limit(String),
    /// What is to be stored depends on something that has not come yet: the same batch is to be sent again.
    #[error("{0}")]
    NotYet(String),
    /// The one who asked has gone away, or time is up.
    #[error("cancelled")]
    Cancelled,
    /// The store is shutting down or was never opened.
    #[error("storage is closed")]
    Closed,
    /// Not built, or not possible here: names the thing.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Bytes of a chunk or message that do not decode.
    #[error("decode {what}: {reason}")]
    Decode {
        /// The kind of thing.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl StorageError {
    /// An I/O error with what was tried on which path.
    pub fn io(op: &'static str, path: impl Into<PathBuf>, err: &std::io::Error) -> Self {
        Self::Io { op, path: path.into(), reason: err.to_string() }
    }

    /// A decoding error.
    pub fn decode(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Decode { what, reason: reason.into() }
    }
}
