//! What can go wrong in discovery, by what the caller does next: correct the configuration, or retry.

/// An error of discovery.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// A setting that cannot work; the text names it and what to change.
    #[error("{0}")]
    Config(String),

    /// A file that could not be read.
    #[error("reading {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },

    /// Target groups that are not what Prometheus would accept; the previous ones stay.
    #[error("{origin}: {message}")]
    Groups {
        /// The file or URL.
        origin: String,
        /// What is wrong with it and where.
        message: String,
    },

    /// A request that failed; it is tried again.
    #[error("{url}: {message}")]
    Request {
        /// What was asked for.
        url: String,
        /// What came back.
        message: String,
    },

    /// No connection to a Kubernetes API could be set up; it is tried again.
    #[error("connecting to the Kubernetes API ({cluster}): {message}")]
    Cluster {
        /// Which one.
        cluster: String,
        /// Why not.
        message: String,
    },

    /// A metric could not be registered.
    #[error("registering discovery metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
