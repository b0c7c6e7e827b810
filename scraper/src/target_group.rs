//! What discovery hands to scraping: groups of targets, and the channel they come through.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Targets that one source knows, with labels they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// Which source this is, for example a file or a pod; unique within a job.
    pub source: String,
    /// Labels of all targets of the group. A target's own label wins.
    pub labels: BTreeMap<String, String>,
    /// Labels of each target; `__address__` says where it is.
    pub targets: Vec<BTreeMap<String, String>>,
}

/// The groups of one job as they are now.
pub type TargetGroups = Arc<Vec<Arc<TargetGroup>>>;

/// Through which a job learns its targets. Discovery replaces the whole list; an unchanged group keeps its `Arc`, so
/// that comparing pointers tells what changed. When the sender is dropped, the last list stays in force.
pub type TargetGroupReceiver = watch::Receiver<TargetGroups>;
