//! Why the server did not start.

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// An address that cannot be listened on.
    #[error("listen on {address}: {reason}")]
    Listen {
        /// The address as configured.
        address: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A setting that makes no sense.
    #[error("setting {name}: {reason}")]
    Config {
        /// Its name in [`crate::ApiConfig`].
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The server's metrics could not be registered.
    #[error("register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
