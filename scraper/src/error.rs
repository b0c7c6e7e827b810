//! Errors of the scraper. Variants follow what the caller does next.

/// Why the scraper could not be set up as configured. Failed scrapes are no such error: they show in the target's state.
#[derive(Debug, thiserror::Error)]
pub enum ScraperError {
    /// A job's configuration contradicts itself or asks for something that is not built: refuse the configuration.
    #[error("scrape config {job:?}: {reason}")]
    Config {
        /// The job.
        job: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file that the configuration names cannot be used.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up as configured.
    #[error("tls_config: {reason}")]
    Tls {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A configured header cannot be sent.
    #[error("header {name}: {reason}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A metric could not be registered.
    #[error("register metric: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a scrape failed. The text is the target's `lastError`, in Prometheus's words where it has them.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeFailure {
    /// The job has more targets than it may.
    #[error("target_limit exceeded (number of targets: {targets}, limit: {limit})")]
    TargetLimit {
        /// Targets after relabeling.
        targets: usize,
        /// The limit.
        limit: usize,
    },
    /// No answer, or none in time.
    #[error("Get \"{url}\": {reason}")]
    Http {
        /// What was fetched.
        url: String,
        /// What happened.
        reason: String,
    },
    /// An answer other than 200.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// More bytes than `body_size_limit`, counted after decompression.
    #[error("body size limit exceeded")]
    BodySizeLimit,
    /// The body does not decompress.
    #[error("{0}")]
    Encoding(String),
    /// The format is not known, or not one that is read.
    #[error("{0}")]
    ContentType(String),
    /// The body breaks its format.
    #[error(transparent)]
    Parse(#[from] crate::exposition::ParseError),
    /// More samples than `sample_limit`.
    #[error("sample limit exceeded")]
    SampleLimit,
    /// A native histogram with more buckets than `native_histogram_bucket_limit`, at the lowest resolution.
    #[error("histogram bucket limit exceeded")]
    BucketLimit,
    /// A series with more or longer labels than allowed.
    #[error("{0}")]
    LabelLimit(String),
    /// A series that cannot be stored.
    #[error("{0}")]
    Labels(String),
    /// A credential or certificate cannot be read.
    #[error(transparent)]
    Setup(#[from] ScraperError),
    /// The store cannot take samples.
    #[error(transparent)]
    Storage(#[from] model::StorageError),
}
