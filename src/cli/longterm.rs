//! Flags of the commands `almanac longterm …`. Those of the node itself are [`super::LongtermFlags`].

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use federation::ha::HaConfig;
use federation::store::{RetentionRule, StoreConfig};

use super::{duration, label_pair, size, time};
use crate::config::scalar::{Bytes, Ms};

/// `almanac longterm …`
#[derive(Subcommand, Debug, Clone)]
pub enum LongtermCommand {
    /// Compare a scraper node with its long-term node and say until when everything is there. Fails when something is
    /// missing.
    Audit(LongtermAuditFlags),
    /// Have history sent to the long-term node: by a scraper node, or from a Prometheus data directory.
    Backfill(LongtermBackfillFlags),
    /// Tell what tagging some series would cost: series, samples and bytes per day and year.
    Preview(LongtermPreviewFlags),
    /// Read a whole long-term store and check every checksum in it. Fails when anything is damaged.
    Verify(LongtermVerifyFlags),
}

/// What a long-term store keeps.
#[derive(Args, Debug, Clone)]
pub struct LongtermStoreFlags {
    /// How long samples are kept.
    #[arg(id = "longterm_retention_time", long = "storage.longterm.retention.time", default_value = "400d", value_parser = duration)]
    pub retention: Ms,
    /// Retention of some series, as `SELECTOR=DURATION`, for example `{job="debug"}=30d`. The first one that a series passes counts;
    /// --storage.longterm.retention.time does for the rest. Repeatable.
    #[arg(id = "longterm_retention_match", long = "storage.longterm.retention.match", value_name = "SELECTOR=DURATION", value_parser = retention_rule)]
    pub retention_rules: Vec<RetentionRule>,
    /// Bytes on disk above which the oldest months are dropped; 0 for no limit. Units: B, KB, MB, GB, TB, of powers of 1024.
    #[arg(id = "longterm_retention_size", long = "storage.longterm.retention.size", default_value = "0", value_parser = size)]
    pub retention_size: Bytes,
    /// Label that the replicas of a high-availability pair have the same value of.
    #[arg(long = "storage.longterm.ha.cluster-label", default_value = "cluster")]
    pub ha_cluster_label: String,
    /// Label that tells the replicas of a pair apart. Of series that have it and the cluster label one replica's samples are
    /// stored, without it. Empty: every series is stored as it comes.
    #[arg(long = "storage.longterm.ha.replica-label", default_value = "__replica__")]
    pub ha_replica_label: String,
    /// For how long a replica may be silent or behind before another one takes over.
    #[arg(long = "storage.longterm.ha.failover-timeout", default_value = "30s", value_parser = duration)]
    pub ha_failover: Ms,
}

fn retention_rule(text: &str) -> Result<RetentionRule, String> {
    let (selector, time) =
        text.rsplit_once('=').ok_or("must be SELECTOR=DURATION, for example {job=\"debug\"}=30d")?;
    let matchers = promql::parser::parse_selector(selector.trim()).map_err(|e| format!("selector: {e}"))?;
    Ok(RetentionRule { matchers, retention_ms: duration(time.trim())?.ms() })
}

impl LongtermStoreFlags {
    /// Settings of the store in `dir`.
    pub fn store_config(&self, dir: &Path) -> StoreConfig {
        StoreConfig {
            retention_ms: self.retention.ms(),
            rules: self.retention_rules.clone(),
            max_bytes: self.retention_size.0,
            ..StoreConfig::new(dir)
        }
    }

    /// Settings of pairs; `None` when there are none to be.
    pub fn ha(&self) -> Option<HaConfig> {
        (!self.ha_replica_label.is_empty()).then(|| HaConfig {
            cluster_label: self.ha_cluster_label.clone(),
            replica_label: self.ha_replica_label.clone(),
            failover_ms: self.ha_failover.ms(),
        })
    }
}

/// Flags of `almanac longterm verify`.
#[derive(Args, Debug, Clone)]
pub struct LongtermVerifyFlags {
    /// Directory of the store, which no process has open: of a node that is stopped, a snapshot, or a backup.
    pub path: PathBuf,
}

/// Flags of `almanac longterm audit`.
#[derive(Args, Debug, Clone)]
pub struct LongtermAuditFlags {
    /// Series selector; what the scraper node sends, when absent. Repeatable.
    #[arg(long = "match")]
    pub matchers: Vec<String>,
    /// First time, as RFC 3339 or seconds since the epoch; fifteen days before the end, when absent.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub start: Option<Ms>,
    /// Last time; ten minutes ago, when absent: what is newer may be on its way.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub end: Option<Ms>,
    /// Base address of the scraper node.
    #[arg(long, default_value = "http://localhost:9090")]
    pub url: String,
    /// Base address of the long-term node; where the scraper node sends to, when absent.
    #[arg(long = "longterm-url")]
    pub longterm_url: Option<String>,
}

/// Flags of `almanac longterm backfill`.
#[derive(Args, Debug, Clone)]
pub struct LongtermBackfillFlags {
    /// Series selector. Repeatable.
    #[arg(long = "match", required = true)]
    pub matchers: Vec<String>,
    /// First time, as RFC 3339 or seconds since the epoch; all that there is, when absent.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub start: Option<Ms>,
    /// Last time; now, when absent.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub end: Option<Ms>,
    /// Base address of the scraper node that is to send its history. It needs `--web.enable-admin-api`.
    #[arg(long, default_value = "http://localhost:9090", conflicts_with = "data")]
    pub url: String,
    /// A Prometheus data directory to send from, which is only read.
    #[arg(long, requires = "longterm_url")]
    pub data: Option<PathBuf>,
    /// Base address of the long-term node, for `--data`.
    #[arg(long = "longterm-url")]
    pub longterm_url: Option<String>,
    /// Label to add to series that lack it, as `name=value`, for `--data`: the external labels. Repeatable.
    #[arg(long = "external-label", value_parser = label_pair)]
    pub external_labels: Vec<(String, String)>,
    /// Directory that remembers how far it is, for `--data`: the same command goes on there.
    #[arg(long = "state-dir", default_value = "almanac-backfill/")]
    pub state_dir: PathBuf,
    /// Most samples per second, for `--data`; 0 for no limit.
    #[arg(long = "max-rate", default_value_t = 0.0)]
    pub max_rate: f64,
    /// Enqueue and do not wait, without `--data`.
    #[arg(long)]
    pub detach: bool,
}

/// Flags of `almanac longterm preview`.
#[derive(Args, Debug, Clone)]
pub struct LongtermPreviewFlags {
    /// Series selector. Repeatable.
    #[arg(long = "match", required = true)]
    pub matchers: Vec<String>,
    /// First time that is looked at; a day before the end, when absent.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub start: Option<Ms>,
    /// Last time that is looked at; now, when absent.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub end: Option<Ms>,
    /// Base address of the scraper node.
    #[arg(long, default_value = "http://localhost:9090")]
    pub url: String,
}
