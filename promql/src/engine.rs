//! The engine: takes a query text, gives an answer. Holds the limits, the slots and the self-metrics; planning is in
//! `plan/`, evaluation in `exec/`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::trace::{self, SpanKind};
use model::{Annotations, Clock, Queryable, Resolutions};
use parking_lot::RwLock;

use crate::error::QueryError;
use crate::exec::context::Context;
use crate::exec::operator::Builder;
use crate::exec::scalar::ScalarVector;
use crate::exec::source::Selections;
use crate::exec::tally::Tallies;
use crate::exec::{collect, ranges};
use crate::limits::Slots;
use crate::metrics::EngineMetrics;
use crate::observer::{Active, ActiveQueries, QueryLog, QueryOrigin, QueryRecord};
use crate::parser::ast::ValueType;
use crate::parser::{Expr, ParserOptions, parse};
use crate::plan::Grid;
use crate::plan::lower::{Params, lower};
use crate::plan::node::{Node, Plan};
use crate::plan::optimize::optimize;
use crate::stack::run_deep;
use crate::value::{QueryOutput, QueryStats, StepStats, Value};

/// Settings of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How far back an instant selector looks.
    pub lookback_ms: i64,
    /// Longest time one query may take.
    pub timeout: Duration,
    /// Most samples one query may hold at once.
    pub max_samples: u64,
    /// Most bytes one query may hold at once, as it counts them; 0 for no limit.
    pub max_memory_bytes: u64,
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
    /// Statistics by step may be asked for.
    pub per_step_stats: bool,
    /// Threads one query may use; 0 for one per core.
    pub worker_threads: usize,
    /// Plans are optimised. Answers are the same either way; tests compare them.
    pub optimize: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            lookback_ms: 300_000,
            timeout: Duration::from_secs(120),
            max_samples: 50_000_000,
            max_memory_bytes: 2 << 30,
            max_concurrency: 20,
            default_subquery_step_ms: 60_000,
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            per_step_stats: false,
            worker_threads: 0,
            optimize: true,
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
    /// Statistics by step are wanted, as far as the engine's settings allow them.
    pub per_step_stats: bool,
    /// Where the query comes from, for the query log.
    pub origin: Option<QueryOrigin>,
    /// At most so many series in the answer; 0 for all. A cut answer carries a warning.
    pub limit: usize,
    /// Samples are read even where the store has them summed up.
    pub raw_only: bool,
}

/// Evaluates queries. Calls block; clones share slots and metrics.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    clock: Arc<dyn Clock>,
    slots: Slots,
    metrics: EngineMetrics,
    active: Option<Arc<dyn ActiveQueries>>,
    query_log: RwLock<Option<Arc<dyn QueryLog>>>,
}

/// A query that was read already, to be evaluated many times.
#[derive(Clone, Debug)]
pub struct Prepared {
    text: Arc<str>,
    expr: Arc<Expr>,
}

impl Prepared {
    /// The text it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }
}

/// The moments at which a query is evaluated.
#[derive(Clone, Copy)]
struct Span {
    start_ms: i64,
    end_ms: i64,
    /// 0 for an instant query.
    step_ms: i64,
}

impl Engine {
    /// An engine whose metrics are registered on `registry`.
    #[must_use]
    pub fn new(config: EngineConfig, clock: Arc<dyn Clock>, registry: &prometheus::Registry) -> Self {
        Self::with_active_queries(config, clock, registry, None)
    }

    /// Like [`Engine::new`], of an engine that tells `active` which queries run.
    #[must_use]
    pub fn with_active_queries(
        config: EngineConfig,
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
        active: Option<Arc<dyn ActiveQueries>>,
    ) -> Self {
        let metrics = EngineMetrics::new(clock.clone());
        metrics.register(registry, config.max_concurrency);
        let slots = Slots::new(config.max_concurrency);
        let query_log = RwLock::default();
        Self { inner: Arc::new(Inner { config, clock, slots, metrics, active, query_log }) }
    }

    /// Queries that end from now on are told to `log`.
    pub fn set_query_log(&self, log: Option<Arc<dyn QueryLog>>) {
        self.inner.metrics.query_log_enabled(log.is_some());
        *self.inner.query_log.write() = log;
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// What the parser accepts under the engine's settings.
    #[must_use]
    pub fn parser_options(&self) -> ParserOptions {
        let c = &self.inner.config;
        ParserOptions {
            experimental_functions: c.experimental_functions,
            duration_expressions: c.duration_expressions,
            extended_range_selectors: c.extended_range_selectors,
            fill_modifiers: c.fill_modifiers,
            ..ParserOptions::default()
        }
    }

    /// What of the language is switched on, by category and name.
    #[must_use]
    pub fn features(&self) -> crate::features::Features {
        crate::features::of(&self.inner.config)
    }

    /// Reads a query.
    ///
    /// # Errors
    /// [`QueryError::Parse`].
    pub fn prepare(&self, query: &str) -> Result<Prepared, QueryError> {
        let expr = parse(query, &self.parser_options()).map_err(|e| QueryError::Parse(e.to_string()))?;
        Ok(Prepared { text: query.into(), expr: Arc::new(expr) })
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
        self.instant_prepared(storage, &self.prepare(query)?, ts_ms, options)
    }

    /// Evaluates `query` at `start_ms`, `start_ms + step_ms`, … up to and including `end_ms`. The step is above zero.
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
        self.range_prepared(storage, &self.prepare(query)?, start_ms, end_ms, step_ms, options)
    }

    /// Like [`Engine::instant`], of a query that was read already.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn instant_prepared(
        &self,
        storage: &dyn Queryable,
        query: &Prepared,
        ts_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        self.run(
            storage,
            &query.expr,
            &query.text,
            Span { start_ms: ts_ms, end_ms: ts_ms, step_ms: 0 },
            options,
        )
    }

    /// Like [`Engine::range`], of a query that was read already.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn range_prepared(
        &self,
        storage: &dyn Queryable,
        query: &Prepared,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        if step_ms <= 0 {
            return Err(QueryError::Parse("the step of a range query must be above zero".into()));
        }
        let kind = query.expr.value_type();
        if !matches!(kind, ValueType::Vector | ValueType::Scalar) {
            return Err(QueryError::Parse(format!(
                "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                kind.documented()
            )));
        }
        self.run(storage, &query.expr, &query.text, Span { start_ms, end_ms, step_ms }, options)
    }

    /// Like [`Engine::instant`], of an expression. Annotations give positions in `text`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn instant_expr(
        &self,
        storage: &dyn Queryable,
        expr: &Expr,
        text: &str,
        ts_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        self.run(storage, expr, text, Span { start_ms: ts_ms, end_ms: ts_ms, step_ms: 0 }, options)
    }

    /// What the engine would do, as text.
    ///
    /// # Errors
    /// When the query cannot be planned.
    pub fn explain(
        &self,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<String, QueryError> {
        let prepared = self.prepare(query)?;
        let span = Span { start_ms, end_ms, step_ms };
        run_deep(&prepared.expr, || {
            Ok(self.plan(&prepared.expr, span, self.inner.config.lookback_ms, &[])?.to_string())
        })?
    }

    /// A plan for a store that sums up over windows of `grids_ms`.
    fn plan(&self, expr: &Expr, span: Span, lookback_ms: i64, grids_ms: &[i64]) -> Result<Plan, QueryError> {
        let params = Params {
            start_ms: span.start_ms,
            end_ms: span.end_ms,
            step_ms: span.step_ms,
            lookback_ms,
            default_subquery_step_ms: self.inner.config.default_subquery_step_ms,
        };
        let mut plan = lower(expr, params)?;
        plan.keep_rollups(grids_ms);
        if self.inner.config.optimize {
            optimize(&mut plan, Grid::new(span.start_ms, span.end_ms, span.step_ms));
        }
        Ok(plan)
    }

    fn run(
        &self,
        storage: &dyn Queryable,
        expr: &Expr,
        text: &str,
        span: Span,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        let link = trace::current();
        run_deep(expr, || {
            // A deep expression has a thread of its own.
            let _entered = link.enter();
            self.run_here(storage, expr, text, span, options)
        })?
    }

    fn run_here(
        &self,
        storage: &dyn Queryable,
        expr: &Expr,
        text: &str,
        span: Span,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        let inner = &*self.inner;
        let _running = inner.metrics.running();
        let exec = trace::child("promqlExec");
        let _entered = exec.enter();
        let begin = inner.clock.monotonic();
        let mut stats = QueryStats::default();
        let result = self.run_in_slot(storage, expr, text, span, options, begin, &mut stats);
        stats.exec_total_seconds = (inner.clock.monotonic() - begin).as_secs_f64();
        inner.metrics.count_samples(&stats);
        self.log(text, span, options, &stats, result.as_ref().err());
        let (value, annotations, resolutions) = result?;
        Ok(QueryOutput { value, annotations, stats, resolutions })
    }

    /// Waits for a slot and evaluates. What it took is in `stats`, also when the query failed.
    #[allow(clippy::too_many_arguments, reason = "the query, and when it began")]
    fn run_in_slot(
        &self,
        storage: &dyn Queryable,
        expr: &Expr,
        text: &str,
        span: Span,
        options: &QueryOptions,
        begin: Duration,
        stats: &mut QueryStats,
    ) -> Result<(Value, Annotations, Resolutions), QueryError> {
        let inner = &*self.inner;
        let (clock, metrics) = (&*inner.clock, &inner.metrics);
        let timeout = options.timeout.map_or(inner.config.timeout, |t| t.min(inner.config.timeout));
        let deadline = begin.saturating_add(timeout);
        let queue_span = trace::child("promqlExecQueue");
        let slot = inner.slots.take(clock, deadline, options.cancel.as_ref());
        drop(queue_span);
        let queued = clock.monotonic();
        stats.exec_queue_seconds = (queued - begin).as_secs_f64();
        metrics.observe("queue_time", stats.exec_queue_seconds);
        let slot = slot?;
        let eval_span = trace::child("promqlEval");
        let _entered = eval_span.enter();
        let _active = inner.active.as_ref().map(|log| Active::insert(&**log, slot.number(), text));

        let prepare_span = trace::child("promqlPrepare");
        let lookback_ms = options.lookback_ms.filter(|l| *l > 0).unwrap_or(inner.config.lookback_ms);
        let grids_ms = if options.raw_only { &[] } else { storage.rollup_grids_ms() };
        let Plan { root, selections } = self.plan(expr, span, lookback_ms, grids_ms)?;
        let mint = selections.iter().map(|s| s.hints.start_ms).min().unwrap_or(0);
        let maxt = selections.iter().map(|s| s.hints.end_ms).max().unwrap_or(0);
        let querier = {
            let mut span = prepare_span.link().child("Querier", SpanKind::Internal);
            span.set("mint", mint);
            span.set("maxt", maxt);
            let querier = storage.querier(mint, maxt);
            span.fail_if_err(&querier);
            querier?
        };
        let grid = Grid::new(span.start_ms, span.end_ms, span.step_ms);
        let by_step = inner.config.per_step_stats && options.per_step_stats;
        let tallies = Tallies::new(grid, by_step);
        let cancel = options.cancel.clone();
        let mut ctx = Context::new(&*querier, &inner.config, clock, deadline, cancel, lookback_ms, tallies);
        let selections = Selections::new(selections);
        drop(prepare_span);
        let prepared = clock.monotonic();
        stats.query_preparation_seconds = (prepared - queued).as_secs_f64();
        metrics.observe("prepare_time", stats.query_preparation_seconds);

        let inner_span = trace::child("promqlInnerEval");
        ctx.trace = inner_span.link();
        let builder = Builder { ctx: &ctx, selections: &selections, tally: ctx.tallies.root() };
        // A bug in an operator fails this query and no other: nothing it touched outlives it.
        let result = catch_unwind(AssertUnwindSafe(|| evaluate(builder, &root, span))).unwrap_or_else(|_| {
            Err(QueryError::execution("unexpected error: the evaluation of the query failed"))
        });
        drop(inner_span);
        let evaluated = clock.monotonic();
        stats.result_sort_seconds = ctx.sort_seconds();
        stats.inner_eval_seconds = (evaluated - prepared).as_secs_f64() - stats.result_sort_seconds;
        stats.eval_total_seconds = (evaluated - queued).as_secs_f64();
        metrics.observe("inner_eval", stats.inner_eval_seconds);
        let counts = ctx.tallies.finish();
        stats.total_queryable_samples = counts.queryable;
        stats.samples_read = counts.read;
        stats.by_step = by_step.then_some(StepStats {
            start_ms: grid.start_ms,
            step_ms: grid.step_ms,
            queryable: counts.queryable_by_step,
            read: counts.read_by_step,
        });
        stats.peak_samples = ctx.samples_peak();
        stats.peak_bytes = ctx.memory.peak();
        debug_assert_eq!(ctx.memory.passing(), 0, "operators give back what they hold");
        let mut value = result?;
        if matches!(value, Value::Matrix(_)) {
            metrics.observe("result_sort", stats.result_sort_seconds);
        }
        let mut annotations = ctx.take_notes().into_annotations(text);
        ctx.take_storage_warnings().into_iter().for_each(|w| annotations.warn(w));
        if options.limit > 0 && truncate(&mut value, options.limit) {
            annotations.warn("results truncated due to limit");
        }
        Ok((value, annotations, ctx.resolutions()))
    }

    /// Writes the query to the query log, if there is one.
    fn log(
        &self,
        text: &str,
        span: Span,
        options: &QueryOptions,
        stats: &QueryStats,
        error: Option<&QueryError>,
    ) {
        let inner = &*self.inner;
        let Some(log) = inner.query_log.read().clone() else { return };
        let trace = trace::current();
        let record = QueryRecord {
            now_ms: inner.clock.now_ms(),
            query: text,
            start_ms: span.start_ms,
            end_ms: span.end_ms,
            step_ms: span.step_ms,
            error,
            stats,
            origin: options.origin.as_ref(),
            trace: trace.context(),
        };
        if log.log(&record).is_err() {
            inner.metrics.query_log_failed();
        }
    }
}

fn evaluate<'q>(b: Builder<'q>, root: &'q Node, span: Span) -> Result<Value, QueryError> {
    b.ctx.check()?;
    let grid = Grid::new(span.start_ms, span.end_ms, span.step_ms);
    let instant = span.step_ms == 0;
    let timestamp_ms = span.start_ms;
    match root {
        Node::Text(value) => return Ok(Value::String { timestamp_ms, value: value.clone() }),
        Node::Ranges(source) => {
            // What is collected stays on the account until the answer is made.
            let (all, _held) = ranges::collect(b, source, grid)?;
            return Ok(Value::Matrix(collect::ranges(b.ctx, all)?));
        }
        _ => {}
    }
    if root.value_type() == ValueType::Scalar {
        let mut scalar = b.scalar(root, grid)?;
        if !instant {
            let rows = Box::new(ScalarVector::new(scalar, grid));
            return Ok(Value::Matrix(collect::matrix(b.ctx, rows, grid)?));
        }
        let value = scalar.column()?.first().copied().unwrap_or(f64::NAN);
        return Ok(Value::Scalar { timestamp_ms, value });
    }
    let operator = b.vector(root, grid)?;
    if instant {
        return Ok(Value::Vector(collect::vector(b.ctx, operator, timestamp_ms)?));
    }
    Ok(Value::Matrix(collect::matrix(b.ctx, operator, grid)?))
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    let cut = |len: usize| len > limit;
    match value {
        Value::Vector(v) if cut(v.len()) => v.truncate(limit),
        Value::Matrix(m) if cut(m.len()) => m.truncate(limit),
        _ => return false,
    }
    true
}
