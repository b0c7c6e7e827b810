//! Functions that make of every sample another one, in place.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/>, the sections of the functions named here.

use std::sync::Arc;

use model::labels::METRIC_NAME;
use model::{FloatHistogram, Labels};

use super::batch::{ABSENT, Batch, Head, clean, is_absent, is_float};
use super::context::Context;
use super::duplicates::Duplicates;
use super::operator::{BoxOperator, Builder, Operator, arg};
use super::scalar::Scalar;
use crate::error::{QueryError, Result};
use crate::functions::time::{Moment, at_seconds, calendar};
use crate::functions::{histogram, math};
use crate::parser::ast::ValueType;
use crate::plan::Grid;
use crate::plan::node::{Call, Node};

/// The operator of a function call that no other file knows.
pub(crate) fn build<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
    if calendar(c.func).is_some() && c.args.is_empty() {
        return Ok(Box::new(CalendarNow { func: c.func, grid: Some(grid) }));
    }
    let map = map_of(b, c, grid)?;
    let first = arg(c, 0)?;
    let input = match first.value_type() {
        ValueType::Vector => b.vector(first, grid)?,
        _ => return Err(QueryError::Execution(format!("not supported: function {}", c.func))),
    };
    let one_name = one_name(b, first);
    let duplicates = (!b.ctx.delayed_names()).then(|| match one_name {
        true => Duplicates::new(b.ctx).of_one_name(),
        false => Duplicates::new(b.ctx),
    });
    Ok(Box::new(Elementwise { ctx: b.ctx, input, map, grid, duplicates }))
}

/// Whether all series of the vector have the same name.
pub(crate) fn one_name(b: Builder<'_>, node: &Node) -> bool {
    match node {
        Node::Instant(i) => b.selections.one_name(i.selection),
        Node::Invariant(n) => one_name(b, n),
        _ => false,
    }
}

fn map_of<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<Map> {
    let column = |at: usize| -> Result<Vec<f64>> {
        let mut s: Scalar<'q> = b.scalar(arg(c, at)?, grid)?;
        s.column()
    };
    if let Some(f) = math::unary(c.func) {
        return Ok(Map::Float(f));
    }
    if let Some(f) = calendar(c.func) {
        return Ok(Map::Calendar(f));
    }
    if let Some(f) = histogram::of_histogram(c.func) {
        return Ok(Map::Histogram(f));
    }
    Ok(match c.func {
        "clamp" => Map::Clamp(column(1)?, column(2)?),
        "clamp_min" => Map::Clamp(column(1)?, vec![f64::INFINITY; grid.count]),
        "clamp_max" => Map::Clamp(vec![f64::NEG_INFINITY; grid.count], column(1)?),
        "round" if c.args.len() > 1 => Map::Round(column(1)?),
        "round" => Map::Round(vec![1.0; grid.count]),
        // Over anything but a selector, samples carry the time of the step and no start.
        "timestamp" => Map::StepTime,
        "start_timestamp" => Map::Nothing,
        other => return Err(QueryError::Execution(format!("not supported: function {other}"))),
    })
}

enum Map {
    Float(fn(f64) -> f64),
    Calendar(fn(&Moment) -> f64),
    Histogram(fn(&FloatHistogram) -> f64),
    Clamp(Vec<f64>, Vec<f64>),
    Round(Vec<f64>),
    StepTime,
    Nothing,
}

impl Map {
    fn apply(&self, grid: Grid, values: &mut [f64], histograms: &[Option<Arc<FloatHistogram>>]) {
        let floats = |values: &mut [f64], f: &dyn Fn(usize, f64) -> f64| {
            for (step, v) in values.iter_mut().enumerate() {
                *v = if is_float(*v) { f(step, *v) } else { ABSENT };
            }
        };
        match self {
            Self::Float(f) => {
                values.iter_mut().for_each(|v| *v = if is_float(*v) { clean(f(*v)) } else { ABSENT });
            }
            Self::Calendar(f) => floats(values, &|_, v| at_seconds(*f, v)),
            Self::Clamp(low, high) => {
                floats(values, &|step, v| math::clamp(v, low[step], high[step]).unwrap_or(ABSENT));
            }
            Self::Round(to) => floats(values, &|step, v| math::round(v, to[step])),
            Self::Histogram(f) => {
                for (step, v) in values.iter_mut().enumerate() {
                    *v = match histograms.get(step).and_then(Option::as_ref) {
                        Some(h) if !is_float(*v) && !is_absent(*v) => clean(f(h)),
                        _ => ABSENT,
                    };
                }
            }
            Self::StepTime => {
                for (step, v) in values.iter_mut().enumerate().filter(|(_, v)| !is_absent(**v)) {
                    *v = grid.at(step) as f64 / 1000.0;
                }
            }
            Self::Nothing => values.fill(ABSENT),
        }
    }
}

struct Elementwise<'q> {
    ctx: &'q Context<'q>,
    input: BoxOperator<'q>,
    map: Map,
    grid: Grid,
    duplicates: Option<Duplicates<'q>>,
}

impl Operator for Elementwise<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        if !self.input.next(out)? {
            return Ok(false);
        }
        let steps = out.steps();
        let histograms = std::mem::take(&mut out.histograms);
        for row in 0..out.rows() {
            let of_row = histograms.get(row * steps..(row + 1) * steps).unwrap_or(&[]);
            self.map.apply(self.grid, out.row_mut(row), of_row);
        }
        for head in &mut out.heads {
            head.drop_name = true;
            if let Some(d) = &mut self.duplicates {
                d.meet(&head.labels);
            }
            head.labels = match self.map {
                // These drop the name alone, unless it is dropped at the end.
                Map::Histogram(_) if !self.ctx.delayed_names() => head.labels.without(&[METRIC_NAME]),
                _ => self.ctx.drop_name(&head.labels),
            };
        }
        if let Some(d) = &mut self.duplicates {
            d.check(out)?;
        }
        Ok(true)
    }
}

/// `-v`
pub(crate) struct Negate<'q> {
    ctx: &'q Context<'q>,
    input: BoxOperator<'q>,
    duplicates: Option<Duplicates<'q>>,
}

impl<'q> Negate<'q> {
    pub(crate) fn new(ctx: &'q Context<'q>, input: BoxOperator<'q>) -> Self {
        let duplicates = (!ctx.delayed_names()).then(|| Duplicates::of_one_kind(ctx));
        Self { ctx, input, duplicates }
    }
}

impl Operator for Negate<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        if !self.input.next(out)? {
            return Ok(false);
        }
        out.values.iter_mut().filter(|v| is_float(**v)).for_each(|v| *v = clean(-*v));
        for h in out.histograms.iter_mut().flatten() {
            Arc::make_mut(h).mul(-1.0);
        }
        for head in &mut out.heads {
            head.drop_name = true;
            head.labels = self.ctx.drop_name(&head.labels);
        }
        if let Some(d) = &mut self.duplicates {
            d.check(out)?;
        }
        Ok(true)
    }
}

/// A calendar function without argument: of the evaluation time.
struct CalendarNow {
    func: &'static str,
    grid: Option<Grid>,
}

impl Operator for CalendarNow {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        let (Some(grid), Some(f)) = (self.grid.take(), calendar(self.func)) else { return Ok(false) };
        out.reset(grid.count);
        let row = out.push_row(Head { labels: Labels::empty(), drop_name: false });
        for (step, v) in out.row_mut(row).iter_mut().enumerate() {
            *v = at_seconds(f, (grid.at(step) / 1000) as f64);
        }
        Ok(true)
    }
}
