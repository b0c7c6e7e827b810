//! The engine: takes a query text, gives an answer. Holds the limits, the slots and the self-metrics; planning is in
//! `plan/`, evaluation in `exec/`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Clock, Queryable};

use crate::error::QueryError;
use crate::exec::context::Context;
use crate::exec::operator::Builder;
use crate::exec::scalar::ScalarVector;
use crate::exec::source::Selections;
use crate::exec::{collect, ranges};
use crate::limits::Slots;
use crate::metrics::EngineMetrics;
use crate::parser::ast::ValueType;
use crate::parser::{Expr, ParserOptions, parse};
use crate::plan::Grid;
use crate::plan::lower::{Params, lower};
use crate::plan::node::{Node, Plan};
use crate::plan::optimize::optimize;
use crate::stack::run_deep;
use crate::value::{QueryOutput, QueryStats, Value};

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
    /// Plans are optimised. Answers are the same either way; tests compare them.
    pub optimize: bool,
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
    slots: Slots,
    metrics: EngineMetrics,
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
        let metrics = EngineMetrics::new();
        metrics.register(registry, config.max_concurrency);
        let slots = Slots::new(config.max_concurrency);
        Self { inner: Arc::new(Inner { config, clock, slots, metrics }) }
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
            Ok(self.plan(&prepared.expr, query, span, self.inner.config.lookback_ms)?.to_string())
        })?
    }

    fn plan(&self, expr: &Expr, text: &str, span: Span, lookback_ms: i64) -> Result<Plan, QueryError> {
        let params = Params {
            start_ms: span.start_ms,
            end_ms: span.end_ms,
            step_ms: span.step_ms,
            lookback_ms,
            default_subquery_step_ms: self.inner.config.default_subquery_step_ms,
        };
        let mut plan = lower(expr, text, params)?;
        if self.inner.config.optimize {
            optimize(&mut plan, Grid::new(span.start_ms, span.end_ms, span.step_ms).count);
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
        run_deep(expr, || self.run_here(storage, expr, text, span, options))?
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
        let clock = &*inner.clock;
        let begin = clock.monotonic();
        let timeout = options.timeout.map_or(inner.config.timeout, |t| t.min(inner.config.timeout));
        let deadline = begin.saturating_add(timeout);
        let _running = inner.metrics.running();
        let _slot = inner.slots.take(clock, deadline, options.cancel.as_ref())?;
        let queued = clock.monotonic();
        let mut stats =
            QueryStats { exec_queue_seconds: (queued - begin).as_secs_f64(), ..Default::default() };

        let lookback_ms = options.lookback_ms.filter(|l| *l > 0).unwrap_or(inner.config.lookback_ms);
        let Plan { root, selections } = self.plan(expr, text, span, lookback_ms)?;
        let mint = selections.iter().map(|s| s.hints.start_ms).min().unwrap_or(0);
        let maxt = selections.iter().map(|s| s.hints.end_ms).max().unwrap_or(0);
        let querier = storage.querier(mint, maxt)?;
        let ctx =
            Context::new(&*querier, &inner.config, clock, deadline, options.cancel.clone(), lookback_ms);
        let selections = Selections::new(selections);
        let prepared = clock.monotonic();
        stats.query_preparation_seconds = (prepared - queued).as_secs_f64();

        let builder = Builder { ctx: &ctx, selections: &selections };
        // A bug in an operator fails this query and no other: nothing it touched outlives it.
        let result = catch_unwind(AssertUnwindSafe(|| evaluate(builder, &root, span))).unwrap_or_else(|_| {
            Err(QueryError::execution("unexpected error: the evaluation of the query failed"))
        });
        let evaluated = clock.monotonic();
        stats.inner_eval_seconds = (evaluated - prepared).as_secs_f64();
        stats.exec_total_seconds = (evaluated - begin).as_secs_f64();
        stats.total_queryable_samples = ctx.samples_read();
        stats.peak_samples = ctx.samples_peak();
        inner.metrics.observe(&stats);
        let mut value = result?;
        let mut annotations = ctx.take_notes().into_annotations(text);
        ctx.take_storage_warnings().into_iter().for_each(|w| annotations.warn(w));
        if options.limit > 0 && truncate(&mut value, options.limit) {
            annotations.warn("results truncated due to limit");
        }
        Ok(QueryOutput { value, annotations, stats })
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
            return Ok(Value::Matrix(collect::ranges(ranges::collect(b, source, grid)?)?));
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
