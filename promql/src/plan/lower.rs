//! From syntax tree to plan: resolves times and durations, gives every selector its selection, checks what only the
//! engine knows. The plan it makes is right but not clever; see `optimize`.

use std::collections::HashSet;

use model::{Labels, MatchOp, Matcher, RollupColumns, RollupRequest, SelectHints};

use super::durations;
use super::grid::{Grid, Shift};
use super::node::{
    Aggregate, Binary, Call, CallExtra, Instant, Node, Plan, Reads, Selection, Site, WindowCall, WindowSource,
};
use super::optimize::is_invariant;
use crate::error::{QueryError, Result};
use crate::functions::label::is_label_name;
use crate::functions::rollup;
use crate::functions::window::window_function;
use crate::parser::ast::{
    self, AggregateOp, At, BinaryOp, Boundary, Duration, Expr, Span, UnaryOp, ValueType, VectorSelector,
};

/// What lowering needs to know of the query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Params {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// 0 for an instant query.
    pub(crate) step_ms: i64,
    pub(crate) lookback_ms: i64,
    pub(crate) default_subquery_step_ms: i64,
}

/// Makes a plan of `expr`.
pub(crate) fn lower(expr: &Expr, params: Params) -> Result<Plan> {
    durations::check(expr, &params)?;
    let mut l = Lower { params, selections: Vec::new(), rank: 0, context: Vec::new() };
    let grid = Grid::new(params.start_ms, params.end_ms, params.step_ms);
    let root = match expr.without_parens() {
        Expr::Matrix(_) | Expr::Subquery(_) => Node::Ranges(Box::new(l.source(expr, grid)?)),
        _ => l.node(expr, grid)?,
    };
    Ok(Plan { root, selections: l.selections })
}

struct Lower {
    params: Params,
    selections: Vec<Selection>,
    rank: u32,
    /// Enclosing functions and aggregations, for the hints.
    context: Vec<Context>,
}

enum Context {
    Function(&'static str),
    Aggregate { name: &'static str, grouping: Vec<String>, by: bool },
    Binary { trims: bool },
    Subquery,
}

impl Lower {
    fn site(&mut self, span: Span) -> Site {
        self.rank += 1;
        Site { span, rank: self.rank }
    }

    fn node(&mut self, expr: &Expr, grid: Grid) -> Result<Node> {
        match expr {
            Expr::Number(n) => Ok(Node::Number(n.value)),
            Expr::String(s) => Ok(Node::Text(s.value.clone())),
            Expr::Paren(p) => self.node(&p.expr, grid),
            Expr::Vector(v) => self.instant(v, grid, Reads::Value),
            Expr::Matrix(_) | Expr::Subquery(_) => {
                Err(QueryError::execution("a range vector cannot be used here: put a function around it"))
            }
            Expr::Unary(u) => {
                let inner = self.node(&u.expr, grid)?;
                Ok(if u.op == UnaryOp::Minus { Node::Negate(Box::new(inner)) } else { inner })
            }
            Expr::Binary(b) => self.chain(b, grid),
            Expr::Aggregate(a) => self.aggregate(a, grid),
            Expr::Call(c) => self.call(c, grid),
        }
    }

    /// An operation and those on its left, in the order of the text. One entry stands for the whole chain in the context:
    /// what encloses an operand are the operators from its own on.
    fn chain(&mut self, last: &ast::Binary, grid: Grid) -> Result<Node> {
        let chain = last.chain();
        let trims = |b: &&ast::Binary| matches!(b.op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
        let outermost_trim = chain.iter().position(trims);
        self.context.push(Context::Binary { trims: outermost_trim.is_some() });
        let mut left = None;
        for (i, b) in chain.iter().enumerate().rev() {
            let lhs = match left.take() {
                Some(node) => node,
                None => self.node(&b.lhs, grid)?,
            };
            self.context.pop();
            self.context.push(Context::Binary { trims: outermost_trim.is_some_and(|t| t <= i) });
            left = Some(self.binary(b, lhs, grid)?);
        }
        self.context.pop();
        left.ok_or_else(|| QueryError::execution("an operation without operands"))
    }

    fn binary(&mut self, b: &ast::Binary, lhs: Node, grid: Grid) -> Result<Node> {
        let rhs = self.node(&b.rhs, grid)?;
        let both = (b.lhs.value_type(), b.rhs.value_type());
        let scalars = both == (ValueType::Scalar, ValueType::Scalar);
        if scalars && (b.op.is_set() || matches!(b.op, BinaryOp::TrimLower | BinaryOp::TrimUpper)) {
            let op = b.op.as_str();
            return Err(QueryError::execution(format!("operator {op:?} not allowed for Scalar operations")));
        }
        let matching = match both {
            (ValueType::Vector, ValueType::Vector) => b.matching.clone(),
            _ => None,
        };
        let site = self.site(b.span);
        Ok(Node::Binary(Box::new(Binary {
            op: b.op,
            lhs,
            rhs,
            matching,
            return_bool: b.return_bool,
            value_type: b.value_type,
            site,
        })))
    }

    fn aggregate(&mut self, a: &ast::Aggregate, grid: Grid) -> Result<Node> {
        let param = match &a.param {
            Some(p) => Some(self.node(p.without_parens(), grid)?),
            None => None,
        };
        if let (AggregateOp::CountValues, Some(Expr::String(label))) =
            (a.op, a.param.as_ref().map(Expr::without_parens))
            && !is_label_name(&label.value)
        {
            return Err(QueryError::Execution(format!("invalid label name {}", label.quoted())));
        }
        let inner = a.expr.without_parens();
        self.context.push(Context::Aggregate {
            name: a.op.as_str(),
            grouping: a.grouping.clone(),
            by: !a.without,
        });
        let input = self.node(inner, grid)?;
        self.context.pop();
        let input_site = self.site(inner.span());
        let param_site = self.site(a.param.as_ref().map_or(a.span, |p| p.without_parens().span()));
        let site = self.site(a.span);
        let mut grouping = a.grouping.clone();
        grouping.sort_unstable();
        grouping.dedup();
        // What is aggregated decides alone whether the outcome is the same at all times: a parameter that changes counts
        // at the first of them.
        let changes = !matches!(param, None | Some(Node::Number(_) | Node::Text(_)));
        let once = changes && is_invariant(&input);
        let node = Node::Aggregate(Box::new(Aggregate {
            op: a.op,
            input,
            param,
            grouping,
            without: a.without,
            input_site,
            param_site,
            site,
        }));
        Ok(if once { Node::Invariant(Box::new(node)) } else { node })
    }

    fn call(&mut self, c: &ast::Call, grid: Grid) -> Result<Node> {
        let p = self.params;
        let seconds = |ms: i64| Ok(Node::Number(ms as f64 / 1000.0));
        match c.func.name {
            "start" => return seconds(p.start_ms),
            "end" => return seconds(p.end_ms),
            "range" => return seconds(p.end_ms.saturating_sub(p.start_ms)),
            "step" => return seconds(if p.start_ms == p.end_ms { 0 } else { p.step_ms }),
            "pi" => return Ok(Node::Number(std::f64::consts::PI)),
            "time" => return Ok(Node::Time),
            _ => {}
        }
        let is_window = |e: &Expr| matches!(e, Expr::Matrix(_) | Expr::Subquery(_));
        self.context.push(Context::Function(c.func.name));
        let node = match c.args.iter().position(|a| is_window(a.without_parens())) {
            Some(at) => self.window_call(c, at, grid),
            None => self.plain_call(c, grid),
        };
        self.context.pop();
        node
    }

    fn window_call(&mut self, c: &ast::Call, at: usize, grid: Grid) -> Result<Node> {
        let mut scalars = Vec::new();
        let source = self.source(&c.args[at], grid)?;
        check_boundary(c.func.name, source.boundary())?;
        if let WindowSource::Selector { selection, shift, range_ms, boundary: Boundary::Plain } = source
            && let Some(columns) = rollup::columns(c.func.name)
        {
            let starts = window_function(c.func.name).is_some_and(|f| f.uses_starts);
            self.roll_up(selection, grid, shift, range_ms, columns, starts);
        }
        for (i, arg) in c.args.iter().enumerate() {
            if i != at {
                scalars.push(self.node(arg.without_parens(), grid)?);
            }
        }
        let absent_labels = match c.args[at].without_parens() {
            Expr::Matrix(m) if c.func.name == "absent_over_time" => absent_labels(&m.selector.matchers),
            _ => Vec::new(),
        };
        // A subquery has become a range by the time anything is told about it, and a range has no place in the text.
        let placeless = matches!(source, WindowSource::Subquery { .. });
        let of = |span: Span, is: bool| if is { Span::default() } else { span };
        let first_arg = self.site(of(c.args[0].without_parens().span(), placeless && at == 0));
        let site = self.site(of(args_span(&c.args), placeless));
        Ok(Node::Window(Box::new(WindowCall {
            func: c.func.name,
            source,
            scalars,
            first_arg,
            site,
            absent_labels,
        })))
    }

    fn plain_call(&mut self, c: &ast::Call, grid: Grid) -> Result<Node> {
        let reads = match c.func.name {
            "timestamp" => Some(Reads::Timestamp),
            "start_timestamp" => Some(Reads::StartTimestamp),
            _ => None,
        };
        if let (Some(reads), Some(Expr::Vector(v))) = (reads, c.args.first().map(Expr::without_parens)) {
            return self.instant(v, grid, reads);
        }
        let mut args = Vec::with_capacity(c.args.len());
        let mut arg_sites = Vec::with_capacity(c.args.len());
        let mut extra = CallExtra::None;
        for (i, arg) in c.args.iter().enumerate() {
            let arg = arg.without_parens();
            if c.func.name == "info" && i == 1 {
                self.info_selection(arg, grid)?;
                continue;
            }
            args.push(self.node(arg, grid)?);
        }
        // The call is evaluated after its arguments, and what it tells of them counts more.
        for arg in c.args.iter().take(args.len()) {
            arg_sites.push(self.site(arg.without_parens().span()));
        }
        if c.func.name == "absent" {
            extra = CallExtra::Absent(match c.args[0].without_parens() {
                Expr::Vector(v) => absent_labels(&v.matchers),
                _ => Vec::new(),
            });
        }
        if c.func.name == "info" {
            let matchers = match c.args.get(1).map(Expr::without_parens) {
                Some(Expr::Vector(v)) => Some(v.matchers.clone()),
                Some(_) => return Err(QueryError::execution("info: the second argument must be a selector")),
                None => None,
            };
            let mut shift = None;
            self.info_shift(&c.args[0], &mut Vec::new(), &mut shift)?;
            extra = CallExtra::Info { matchers, shift: shift.unwrap_or_default() };
        }
        let site = self.site(c.span);
        Ok(Node::Call(Box::new(Call {
            func: c.func.name,
            returns: c.func.returns,
            args,
            arg_sites,
            site,
            extra,
        })))
    }

    /// The selector of an `info` is read together with the series it is for; but where it stands counts for the time
    /// range that the query asks the storage for.
    fn info_selection(&mut self, selector: &Expr, grid: Grid) -> Result<()> {
        let Expr::Vector(v) = selector else { return Ok(()) };
        let lookback = self.params.lookback_ms;
        let after = if v.boundary == Boundary::Smoothed { lookback } else { 0 };
        let shift = self.shift(&v.offset, v.at)?;
        let at = self.select(v, grid, shift, 0, (lookback - 1, after));
        self.selections[at].users = 0;
        Ok(())
    }

    /// The time that info series are looked up at: that of the first selector below `expr`, whose enclosing
    /// subqueries shift it until an `@` pins it.
    fn info_shift(&self, expr: &Expr, outer: &mut Vec<Shift>, found: &mut Option<Shift>) -> Result<()> {
        if found.is_some() {
            return Ok(());
        }
        let v = match expr {
            Expr::Vector(v) => &**v,
            Expr::Matrix(m) => &m.selector,
            Expr::Subquery(s) => {
                outer.push(self.shift(&s.offset, s.at)?);
                self.info_shift(&s.expr, outer, found)?;
                outer.pop();
                return Ok(());
            }
            _ => {
                let mut result = Ok(());
                expr.for_each_child(|e| {
                    if result.is_ok() {
                        result = self.info_shift(e, outer, found);
                    }
                });
                return result;
            }
        };
        let mut shift = self.shift(&v.offset, v.at)?;
        for s in outer.iter().rev() {
            if shift.at_ms.is_some() {
                break;
            }
            shift.offset_ms += s.offset_ms;
            shift.at_ms = s.at_ms;
        }
        *found = Some(shift);
        Ok(())
    }

    fn shift(&self, offset: &Duration, at: Option<At>) -> Result<Shift> {
        let p = self.params;
        let range = p.end_ms.saturating_sub(p.start_ms);
        let offset_ms = offset.resolve_signed(p.step_ms, range).map_err(|e| durations::error(&e))?;
        let at_ms = at.map(|at| match at {
            At::Timestamp(ms) => ms,
            At::Start => p.start_ms,
            At::End => p.end_ms,
        });
        Ok(Shift { at_ms, offset_ms })
    }

    fn positive(&self, d: &Duration) -> Result<i64> {
        let range = self.params.end_ms.saturating_sub(self.params.start_ms);
        d.resolve_positive(self.params.step_ms, range).map_err(|e| durations::error(&e))
    }

    fn instant(&mut self, v: &VectorSelector, grid: Grid, reads: Reads) -> Result<Node> {
        let shift = self.shift(&v.offset, v.at)?;
        let lookback = self.params.lookback_ms;
        // There is no sample behind an interpolated value: timestamps are those of the newest ones.
        let boundary = if reads == Reads::Value { v.boundary } else { Boundary::Plain };
        let after = if boundary == Boundary::Smoothed { lookback } else { 0 };
        let selection = self.select(v, grid, shift, 0, (lookback - 1, after));
        // Pinned, times of samples are looked up in a way of their own.
        let rolls_up = match reads {
            Reads::Value => boundary == Boundary::Plain,
            Reads::Timestamp => !shift.is_pinned(),
            Reads::StartTimestamp => false,
        };
        if rolls_up {
            self.roll_up(selection, grid, shift, lookback, RollupColumns::LAST, false);
        }
        let site = self.site(v.span);
        Ok(Node::Instant(Box::new(Instant { selection, shift, boundary, reads, site })))
    }

    fn source(&mut self, expr: &Expr, grid: Grid) -> Result<WindowSource> {
        let lookback = self.params.lookback_ms;
        match expr.without_parens() {
            Expr::Matrix(m) => {
                let v = &m.selector;
                let shift = self.shift(&v.offset, v.at)?;
                let range_ms = self.positive(&m.range)?;
                let around = match v.boundary {
                    Boundary::Plain => (range_ms - 1, 0),
                    Boundary::Anchored => (range_ms + lookback - 1, 0),
                    Boundary::Smoothed => (range_ms + lookback - 1, lookback),
                };
                let selection = self.select(v, grid, shift, range_ms, around);
                Ok(WindowSource::Selector { selection, shift, range_ms, boundary: v.boundary })
            }
            Expr::Subquery(s) => {
                let shift = self.shift(&s.offset, s.at)?;
                let range_ms = self.positive(&s.range)?;
                let step_ms = match &s.step {
                    Some(d) => match self.positive(d)? {
                        0 => self.params.default_subquery_step_ms,
                        ms => ms,
                    },
                    None => self.params.default_subquery_step_ms,
                };
                let inner = grid.subquery(&shift, range_ms, step_ms.max(1));
                self.context.push(Context::Subquery);
                let input = self.node(&s.expr, inner)?;
                self.context.pop();
                Ok(WindowSource::Subquery { input, shift, range_ms, step_ms: step_ms.max(1) })
            }
            _ => Err(QueryError::execution("expected a range vector")),
        }
    }

    /// Whether functions around need only count and sum of histograms. A subquery needs buckets to tell resets apart.
    fn stats_only(&self) -> bool {
        let mut found = false;
        for c in self.context.iter().rev() {
            match c {
                Context::Subquery | Context::Binary { trims: true } => return false,
                Context::Function("histogram_quantile" | "histogram_quantiles" | "histogram_fraction") => {
                    return false;
                }
                Context::Function("histogram_count" | "histogram_sum" | "histogram_avg") => found = true,
                _ => {}
            }
        }
        found
    }

    /// A selection for `v`; `around` is how far it reaches before and after the times looked at.
    fn select(
        &mut self,
        v: &VectorSelector,
        grid: Grid,
        shift: Shift,
        range_ms: i64,
        around: (i64, i64),
    ) -> usize {
        let (mut func, mut grouping, mut by) = (String::new(), Vec::new(), false);
        match self.context.last() {
            Some(Context::Function(name)) => func = (*name).to_owned(),
            Some(Context::Aggregate { name, grouping: g, by: b }) => {
                func = (*name).to_owned();
                grouping = g.clone();
                by = *b;
            }
            Some(Context::Binary { .. } | Context::Subquery) | None => {}
        }
        self.selections.push(Selection {
            stats_only: self.stats_only(),
            matchers: v.matchers.clone(),
            hints: SelectHints {
                start_ms: shift.apply(grid.start_ms).saturating_sub(around.0),
                end_ms: shift.apply(grid.last_ms()).saturating_add(around.1),
                step_ms: if grid.count > 1 { grid.step_ms } else { 0 },
                range_ms,
                func,
                grouping,
                by,
                limit: 0,
                labels_only: false,
            },
            users: 1,
            rollup: None,
        });
        self.selections.len() - 1
    }

    /// Notes which cells a selection can do with, whose windows `(t - range, t]` are looked at.
    fn roll_up(
        &mut self,
        selection: usize,
        grid: Grid,
        shift: Shift,
        range_ms: i64,
        columns: RollupColumns,
        starts: bool,
    ) {
        let count = if shift.is_pinned() { grid.count.min(1) } else { grid.count };
        let first_ms = shift.apply(grid.start_ms);
        self.selections[selection].rollup =
            RollupRequest::for_windows(first_ms, grid.step_ms, count, range_ms, columns, starts);
    }
}

/// From the first argument to the last one.
fn args_span(args: &[Expr]) -> Span {
    match (args.first(), args.last()) {
        (Some(a), Some(b)) => a.span().to(b.span()),
        _ => Span::default(),
    }
}

/// Functions that know what to do with samples outside of their window.
fn check_boundary(func: &str, boundary: Boundary) -> Result<()> {
    const ANCHORED: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
    const SMOOTHED: [&str; 3] = ["delta", "increase", "rate"];
    let (name, allowed): (_, &[&str]) = match boundary {
        Boundary::Plain => return Ok(()),
        Boundary::Anchored => ("anchored", &ANCHORED),
        Boundary::Smoothed => ("smoothed", &SMOOTHED),
    };
    if allowed.contains(&func) {
        return Ok(());
    }
    let list = allowed.join(", ");
    Err(QueryError::Execution(format!("{name} modifier can only be used with: {list} - not with {func}")))
}

/// Labels that a selector fixes: those with exactly one matcher, an equality. Matchers count in the order in which
/// Prometheus's index goes through them: those that need the label first, so that `a!="x", a="y"` fixes nothing.
fn absent_labels(matchers: &[Matcher]) -> Vec<(String, String)> {
    let needed: HashSet<&str> =
        matchers.iter().filter(|m| !m.matches_empty()).map(|m| m.name.as_str()).collect();
    let excludes = |m: &&Matcher| {
        !needed.contains(m.name.as_str())
            || (matches!(m.op, MatchOp::NotEqual | MatchOp::NotRegexp) && m.matches_empty())
    };
    let (out, within): (Vec<_>, Vec<_>) = matchers.iter().partition(excludes);
    let mut set: Vec<(String, String)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for m in within.into_iter().chain(out).filter(|m| m.name != model::labels::METRIC_NAME) {
        if m.op == MatchOp::Equal && !seen.contains(&m.name.as_str()) {
            set.push((m.name.clone(), m.value.clone()));
            seen.push(&m.name);
        } else {
            set.retain(|(n, _)| *n != m.name);
        }
    }
    set
}

/// The labels as a set.
pub(crate) fn labels_of(pairs: &[(String, String)]) -> Labels {
    Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
}
