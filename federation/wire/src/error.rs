//! The error of this crate.

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes break the format. The sender must not send them again.
    #[error("malformed {message} at byte {offset}: {reason}")]
    Malformed {
        /// The message being read, for example `WriteRequest`.
        message: &'static str,
        /// Offset from the start of the bytes given to the reader.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The body is, or says it would become, larger than the limit.
    #[error("body of {len} bytes when decompressed exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Declared length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The snappy block is damaged.
    #[error("snappy: {0}")]
    Snappy(String),
    /// A label set that names no series.
    #[error("invalid labels: {0}")]
    InvalidLabels(String),
    /// A matcher of a remote read request that does not compile.
    #[error("invalid matcher: {0}")]
    InvalidMatcher(String),
    /// Valid, but more of something than is taken.
    #[error("{0}")]
    Limit(String),
    /// Valid, but not built here.
    #[error("not supported: {0}")]
    Unsupported(String),
}
