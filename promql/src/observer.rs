//! Who wants to know about queries: the query log, which is told of every query that ended, and the list of active
//! queries, which is told of those that run. Both write files, which this crate does not: the program does.

use std::collections::BTreeMap;

use crate::error::QueryError;
use crate::value::QueryStats;

/// Where a query comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryOrigin {
    /// A request.
    Http {
        /// Address of the client, without port.
        client_ip: String,
        /// Method of the request.
        method: String,
        /// Path of the request.
        path: String,
    },
    /// A rule.
    RuleGroup {
        /// File of its group.
        file: String,
        /// Name of its group.
        name: String,
    },
}

impl QueryOrigin {
    /// Key and fields under which the query log shows it.
    #[must_use]
    pub fn fields(&self) -> (&'static str, BTreeMap<&'static str, &str>) {
        match self {
            Self::Http { client_ip, method, path } => (
                "httpRequest",
                BTreeMap::from([
                    ("clientIP", client_ip.as_str()),
                    ("method", method.as_str()),
                    ("path", path.as_str()),
                ]),
            ),
            Self::RuleGroup { file, name } => {
                ("ruleGroup", BTreeMap::from([("file", file.as_str()), ("name", name.as_str())]))
            }
        }
    }
}

/// A query that ended.
#[derive(Clone, Copy, Debug)]
pub struct QueryRecord<'a> {
    /// Wall time, milliseconds.
    pub now_ms: i64,
    /// The text.
    pub query: &'a str,
    /// First evaluation time.
    pub start_ms: i64,
    /// Last evaluation time.
    pub end_ms: i64,
    /// 0 for an instant query.
    pub step_ms: i64,
    /// Why there was no answer.
    pub error: Option<&'a QueryError>,
    /// What it took.
    pub stats: &'a QueryStats,
    /// Where it came from.
    pub origin: Option<&'a QueryOrigin>,
    /// Its place in a trace, if there is one.
    pub trace: Option<&'a model::trace::SpanContext>,
}

/// Takes note of queries that ended.
pub trait QueryLog: Send + Sync {
    /// Called once for every query, by the thread that ran it.
    ///
    /// # Errors
    /// When it could not be written down; the engine counts that.
    fn log(&self, record: &QueryRecord<'_>) -> Result<(), String>;
}

/// Takes note of queries that run, so that the next start can tell which ones did not end.
pub trait ActiveQueries: Send + Sync {
    /// `query` begins. `slot` is below the engine's `max_concurrency` and held by no other query.
    fn insert(&self, slot: usize, query: &str);

    /// The query in `slot` has ended.
    fn remove(&self, slot: usize);
}

/// A time in UTC with milliseconds, as the query log has it: `2024-01-01T00:00:00.001Z`.
#[must_use]
pub fn format_date(ms: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(ms) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        // Beyond the calendar of the library, some 260,000 years away.
        None => format!("{ms}ms"),
    }
}

/// A query that runs; dropping it takes it off the list.
pub(crate) struct Active<'a> {
    log: &'a dyn ActiveQueries,
    slot: usize,
}

impl<'a> Active<'a> {
    pub(crate) fn insert(log: &'a dyn ActiveQueries, slot: usize, query: &str) -> Self {
        log.insert(slot, query);
        Self { log, slot }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.log.remove(self.slot);
    }
}
