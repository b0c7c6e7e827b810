//! The engine: takes a query text, gives an answer. Holds the limits, the slots and the self-metrics; planning is in
//! `plan/`, evaluation in `exec/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Clock, Queryable};

use crate::error::QueryError;
use crate::value::QueryOutput;

/// Settings of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How far back an instant selector looks.
    pub lookback_ms: i64,
    /// Longest time one query may take.
    pub timeout: Duration,
    /// Most samples one query may hold at once.
    pub max_samples: u64,
    /// Most queries that run at once; further ones wait.
    pub max_concurrency: usize,
    /// Step of subqueries that name none.
    pub default_subquery_step_ms: i64,
    /// Experimental functions are allowed.
    pub experimental_functions: bool,
    /// Arithmetic in durations is allowed.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed` range selectors are allowed.
    pub extended_range_selectors: bool,
    /// Fill modifiers of binary operators are allowed.
    pub fill_modifiers: bool,
    /// Metric names are dropped at the end of a query, not by each function.
    pub delayed_name_removal: bool,
    /// Start timestamps of samples are used by the rate family.
    pub use_start_timestamps: bool,
    /// `__type__` and `__unit__` are dropped where the metric name is.
    pub type_and_unit_labels: bool,
    /// Threads one query may use; 0 for one per core.
    pub worker_threads: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            lookback_ms: 300_000,
            timeout: Duration::from_secs(120),
            max_samples: 50_000_000,
            max_concurrency: 20,
            default_subquery_step_ms: 60_000,
            experimental_functions: false,
            duration_expressions: false,
            extended_range_selectors: false,
            fill_modifiers: false,
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            worker_threads: 0,
        }
    }
}

/// Tells a running query to stop. Clones share the switch.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the query soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`CancelToken::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one query asks for differently from the engine's settings.
#[derive(Clone, Debug, Default)]
pub struct QueryOptions {
    /// Lookback instead of the engine's.
    pub lookback_ms: Option<i64>,
    /// Timeout, when it is shorter than the engine's.
    pub timeout: Option<Duration>,
    /// Stops the query from outside.
    pub cancel: Option<CancelToken>,
    /// At most so many series in the answer; 0 for all. A cut answer carries a warning.
    pub limit: usize,
}

/// Evaluates queries. Calls block; clones share slots and metrics.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    clock: Arc<dyn Clock>,
}

impl Engine {
    /// An engine whose metrics are registered on `registry`.
    #[must_use]
    pub fn new(config: EngineConfig, clock: Arc<dyn Clock>, registry: &prometheus::Registry) -> Self {
        let _ = registry;
        Self { inner: Arc::new(Inner { config, clock }) }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// Evaluates `query` at one moment.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn instant(
        &self,
        storage: &dyn Queryable,
        query: &str,
        ts_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        self.range(storage, query, ts_ms, ts_ms, 0, options)
    }

    /// Evaluates `query` at `start_ms`, `start_ms + step_ms`, … up to and including `end_ms`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn range(
        &self,
        storage: &dyn Queryable,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        let _ = (storage, start_ms, end_ms, step_ms, options, self.inner.clock.now_ms());
        Err(QueryError::Parse(format!("cannot evaluate {query}")))
    }
}
