//! Why a request got no data: error type, text and status code of the API.

use http::StatusCode;
use model::StorageError;
use model::labels::Quoted;
use promql::QueryError;

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// Error types of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Timeout,
    Canceled,
    Execution,
    BadData,
    Internal,
    /// The store is not there yet or no more: trying again later may help.
    Unavailable,
    /// Switched off or not built: trying again does not help.
    Disabled,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Execution => "execution",
            Self::BadData => "bad_data",
            Self::Internal => "internal",
            Self::Unavailable | Self::Disabled => "unavailable",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            // nginx's code for "the client went away", which the API uses too.
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            // A stock server has no code of its own for its error type "unavailable".
            Self::Internal | Self::Disabled => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn bad_data(text: impl Into<String>) -> Self {
        Self::new(Kind::BadData, text)
    }

    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(Kind::Internal, text)
    }

    /// A parameter that cannot be used.
    pub(crate) fn invalid(parameter: &str, why: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {}: {why}", Quoted(parameter)))
    }

    /// A store's error in a selection outside of a query.
    pub(crate) fn storage(e: &StorageError) -> Self {
        let kind = match e {
            StorageError::Closed => Kind::Unavailable,
            StorageError::Cancelled => Kind::Canceled,
            _ => Kind::Execution,
        };
        Self::new(kind, e.to_string())
    }

    /// A store's error in something an operator asked for.
    pub(crate) fn operation(e: &StorageError) -> Self {
        let kind = match e {
            StorageError::Closed => Kind::Unavailable,
            StorageError::Unsupported(_) => Kind::Disabled,
            _ => Kind::Internal,
        };
        Self::new(kind, e.to_string())
    }

    /// The error of a query.
    pub(crate) fn query(e: &QueryError) -> Self {
        let kind = match e {
            QueryError::Parse(_) => return Self::invalid("query", e),
            QueryError::Execution(_) | QueryError::TooManySamples(_) | QueryError::TooMuchMemory { .. } => {
                Kind::Execution
            }
            QueryError::Timeout(_) => Kind::Timeout,
            QueryError::Canceled(_) => Kind::Canceled,
            QueryError::Storage(StorageError::Closed) => Kind::Unavailable,
            QueryError::Storage(_) => Kind::Internal,
        };
        Self::new(kind, e.to_string())
    }
}
