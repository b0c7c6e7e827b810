//! Why a query failed. Variants follow the error types of the HTTP API; texts are Prometheus's, because dashboards and
//! tests match on them.

use model::StorageError;

/// Why a query gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is no query, or asks for something that is switched off. API: `bad_data`.
    #[error("{0}")]
    Parse(String),
    /// The query was understood and cannot be answered. API: `execution`.
    #[error("{0}")]
    Execution(String),
    /// Time ran out during the named stage. API: `timeout`.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// The one who asked has gone away. API: `canceled`.
    #[error("query was canceled in {0}")]
    Canceled(&'static str),
    /// More samples at once than the limit allows. API: `execution`.
    #[error("query processing would load too many samples into memory in {0}")]
    TooManySamples(&'static str),
    /// More memory than one query may hold. API: `execution`.
    #[error(
        "query processing would hold more than {} of memory, the limit of one query; select fewer series or steps, or \
         raise --query.max-memory",
        bytes_text(*limit_bytes)
    )]
    TooMuchMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The store could not answer. API: `internal`.
    #[error("expanding series: {0}")]
    Storage(#[from] StorageError),
}

impl QueryError {
    /// The `errorType` of the HTTP API.
    #[must_use]
    pub fn api_type(&self) -> &'static str {
        match self {
            Self::Parse(_) => "bad_data",
            Self::Execution(_) | Self::TooManySamples(_) | Self::TooMuchMemory { .. } => "execution",
            Self::Timeout(_) => "timeout",
            Self::Canceled(_) => "canceled",
            Self::Storage(_) => "internal",
        }
    }

    pub(crate) fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }
}

/// Bytes in the largest unit that divides them.
fn bytes_text(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// Result of anything within the crate that can fail a query.
pub(crate) type Result<T> = std::result::Result<T, QueryError>;
