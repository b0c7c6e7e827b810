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
    /// A metric could not be registered.
    #[error("register metric: {0}")]
    Metrics(#[from] prometheus::Error),
}
