//! A slow evaluator of PromQL, to hold the real one against.
//!
//! It follows the documentation of the language (<https://prometheus.io/docs/prometheus/latest/querying/basics/>, as of
//! Prometheus 3.14) word by word: expressions are evaluated on the syntax tree, step by step, every window is gathered anew
//! from the raw samples, every match is looked for among all series. It shares the parser, the vocabulary of `model` and
//! nothing else with the engine; `histogram` says what else of `model` it uses.
//!
//! In `reference/`: [`histogram`] and [`quantile`] compute with histograms; `select` finds samples, `window`, `growth` and
//! `extended` are the functions over windows, `elementwise` those over vectors, `aggregate`, `binary` and `info` the rest; this file
//! walks the tree.
//!
//! Left out: limits, positions in annotations, and range vectors as the answer of a query.

mod aggregate;
mod binary;
mod elementwise;
mod extended;
mod growth;
mod histogram;
mod info;
mod invariant;
mod quantile;
mod select;
mod window;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Labels;
use promql::parser::ast::{At, Expr, UnaryOp, ValueType};
use promql::{MatrixSeries, PointValue, Value, VectorSample};

use crate::generate::{DataSet, EvalTime};
use histogram::Hist;

/// Settings that change answers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How far back an instant selector looks.
    pub lookback_ms: i64,
    /// Step of subqueries that name none.
    pub default_subquery_step_ms: i64,
    /// Metric names are dropped at the end of a query, not by each function.
    pub delayed_name_removal: bool,
    /// Start timestamps of samples are used by the rate family.
    pub use_start_timestamps: bool,
}

/// The answer of a query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Warnings and infos without their positions.
    pub annotations: BTreeSet<String>,
    /// Those that may be there too: of several that one binary operation has at one step, the last one is there for sure,
    /// and nothing says in what order series come.
    pub possible_annotations: BTreeSet<String>,
}

/// Evaluates an expression over some data.
///
/// # Errors
/// When the query fails; the text says why, in words of its own.
pub fn evaluate(data: &DataSet, expr: &Expr, time: EvalTime, settings: Settings) -> Result<Answer, String> {
    let (grid, step_ms) = match time {
        EvalTime::Instant(t) => (Grid { start: t, end: t, step: 1 }, 0),
        EvalTime::Range { start_ms, end_ms, step_ms } => {
            (Grid { start: start_ms, end: end_ms, step: step_ms }, step_ms)
        }
    };
    let mut evaluator = Evaluator {
        data,
        settings,
        query: Grid { step: step_ms, ..grid },
        read_from: i64::MIN,
        statistics_only: invariant::statistics_only(expr),
        notes: RefCell::default(),
        possible_notes: RefCell::default(),
    };
    if expr.value_type() == ValueType::String && !matches!(time, EvalTime::Instant(_)) {
        return Err("a string is no answer to a range query".to_owned());
    }
    evaluator.read_from = evaluator.earliest(expr, grid)?.unwrap_or(0);
    let steps = evaluator.eval(expr, grid)?;
    let value = evaluator.answer(expr.value_type(), steps, grid, matches!(time, EvalTime::Instant(_)))?;
    let annotations = evaluator.notes.into_inner();
    Ok(Answer { value, annotations, possible_annotations: evaluator.possible_notes.into_inner() })
}

/// Moments of evaluation: `start`, `start + step`, … up to `end`.
#[derive(Clone, Copy, Debug)]
struct Grid {
    start: i64,
    end: i64,
    step: i64,
}

impl Grid {
    fn times(self) -> Vec<i64> {
        let mut out = Vec::new();
        let mut t = self.start;
        while t <= self.end {
            out.push(t);
            t += self.step;
        }
        out
    }

    fn is_instant(self) -> bool {
        self.start == self.end
    }
}

/// What a sample carries.
#[derive(Clone, Debug)]
enum Point {
    Float(f64),
    Hist(Hist),
}

/// One sample of an instant vector.
#[derive(Clone, Debug)]
struct Row {
    labels: Labels,
    /// The name goes at the end of the query.
    drop_name: bool,
    point: Point,
}

impl Row {
    fn float(labels: Labels, drop_name: bool, value: f64) -> Self {
        Self { labels, drop_name, point: Point::Float(value) }
    }
}

/// What an expression gives at every step of a grid.
#[derive(Clone, Debug)]
enum Steps {
    Scalars(Vec<f64>),
    Vectors(Vec<Vec<Row>>),
    Text(String),
}

type Evaluated = Result<Steps, String>;

struct Evaluator<'a> {
    data: &'a DataSet,
    settings: Settings,
    /// Bounds and step of the query; the step is 0 for an instant query.
    query: Grid,
    /// From when on the query asks the storage for samples.
    read_from: i64,
    /// Where the selectors stand whose histograms are read without buckets.
    statistics_only: BTreeSet<u32>,
    notes: RefCell<BTreeSet<String>>,
    possible_notes: RefCell<BTreeSet<String>>,
}

const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

impl Evaluator<'_> {
    fn info(&self, text: impl std::fmt::Display) {
        self.notes.borrow_mut().insert(format!("PromQL info: {text}"));
    }

    fn warn(&self, text: impl std::fmt::Display) {
        self.notes.borrow_mut().insert(format!("PromQL warning: {text}"));
    }

    /// The moment an `@` pins to.
    fn pinned(&self, at: Option<At>) -> Option<i64> {
        Some(match at? {
            At::Timestamp(t) => t,
            At::Start => self.query.start,
            At::End => self.query.end,
        })
    }

    /// Evaluates at every step. What does not depend on the step is evaluated at the first one only.
    fn eval(&self, expr: &Expr, grid: Grid) -> Evaluated {
        if grid.end < grid.start {
            return Ok(match expr.value_type() {
                ValueType::Scalar => Steps::Scalars(Vec::new()),
                _ => Steps::Vectors(Vec::new()),
            });
        }
        if !grid.is_instant() && invariant::is_evaluated_once(expr) {
            let once = self.eval(expr, Grid { end: grid.start, ..grid })?;
            let n = grid.times().len();
            return Ok(match once {
                Steps::Scalars(v) => Steps::Scalars(vec![v[0]; n]),
                Steps::Vectors(v) => Steps::Vectors(vec![v[0].clone(); n]),
                text @ Steps::Text(_) => text,
            });
        }
        let n = grid.times().len();
        match expr {
            Expr::Number(v) => Ok(Steps::Scalars(vec![v.value; n])),
            Expr::String(s) => Ok(Steps::Text(s.value.clone())),
            Expr::Paren(p) => self.eval(&p.expr, grid),
            Expr::Vector(v) => self.instant_selector(expr, v, grid).map(Steps::Vectors),
            Expr::Unary(u) => self.negated(self.eval(&u.expr, grid)?, u.op),
            Expr::Binary(b) => self.binary(b, grid),
            Expr::Aggregate(a) => self.aggregation(a, grid).map(Steps::Vectors),
            Expr::Call(c) => self.call(c, grid),
            Expr::Matrix(_) | Expr::Subquery(_) => Err("range vectors are not covered".to_owned()),
        }
    }

    fn vectors(&self, expr: &Expr, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        match self.eval(expr, grid)? {
            Steps::Vectors(v) => Ok(v),
            other => unreachable!("a vector is wanted, not {other:?}"),
        }
    }

    fn scalars(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, String> {
        match self.eval(expr, grid)? {
            Steps::Scalars(v) => Ok(v),
            other => unreachable!("a scalar is wanted, not {other:?}"),
        }
    }

    fn negated(&self, steps: Steps, op: UnaryOp) -> Evaluated {
        if op == UnaryOp::Plus {
            return Ok(steps);
        }
        Ok(match steps {
            Steps::Scalars(v) => Steps::Scalars(v.into_iter().map(|v| -v).collect()),
            Steps::Vectors(mut vectors) => {
                for row in vectors.iter_mut().flatten() {
                    row.labels = self.without_name(&row.labels);
                    row.drop_name = true;
                    row.point = match &row.point {
                        Point::Float(v) => Point::Float(-v),
                        Point::Hist(h) => Point::Hist(h.clone().mul(-1.0)),
                    };
                }
                if !self.settings.delayed_name_removal {
                    unique_of_a_kind(&vectors)?;
                }
                Steps::Vectors(vectors)
            }
            text => text,
        })
    }

    /// The labels without the metric's name, unless it is dropped at the end.
    fn without_name(&self, labels: &Labels) -> Labels {
        if self.settings.delayed_name_removal { labels.clone() } else { labels.without_metric_name() }
    }

    /// What every operation does with its result: series are told apart by their labels, and the first sample of one
    /// says whether its name is dropped.
    fn settled(&self, mut vectors: Vec<Vec<Row>>, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        if !(grid.is_instant() && self.settings.delayed_name_removal) {
            unique(&vectors)?;
        }
        let mut first: BTreeMap<Labels, bool> = BTreeMap::new();
        for row in vectors.iter_mut().flatten() {
            if !grid.is_instant() {
                row.drop_name = *first.entry(row.labels.clone()).or_insert(row.drop_name);
            }
        }
        Ok(vectors)
    }

    // === Answers ===

    fn answer(&self, kind: ValueType, steps: Steps, grid: Grid, instant: bool) -> Result<Value, String> {
        let vectors = match steps {
            Steps::Text(value) => return Ok(Value::String { timestamp_ms: grid.start, value }),
            Steps::Scalars(v) if instant => {
                return Ok(Value::Scalar { timestamp_ms: grid.start, value: v[0] });
            }
            Steps::Scalars(v) => v.into_iter().map(|v| vec![Row::float(Labels::empty(), false, v)]).collect(),
            Steps::Vectors(mut vectors) => {
                for row in vectors.iter_mut().flatten() {
                    if self.settings.delayed_name_removal && row.drop_name {
                        row.labels = row.labels.without_metric_name();
                    }
                }
                unique_of_a_kind(&vectors)?;
                vectors
            }
        };
        debug_assert!(kind != ValueType::Matrix);
        if instant {
            let rows = shown(vectors.into_iter().next().unwrap_or_default());
            let sample = |r: Row| VectorSample {
                labels: r.labels,
                timestamp_ms: grid.start,
                value: match r.point {
                    Point::Float(v) => PointValue::Float(v),
                    Point::Hist(h) => PointValue::Histogram(Arc::new(h.to_model())),
                },
            };
            return Ok(Value::Vector(rows.into_iter().map(sample).collect()));
        }
        let mut series: BTreeMap<Labels, MatrixSeries> = BTreeMap::new();
        for (t, rows) in grid.times().into_iter().zip(vectors) {
            for row in rows {
                let s = series
                    .entry(row.labels.clone())
                    .or_insert_with(|| MatrixSeries { labels: row.labels, ..MatrixSeries::default() });
                match row.point {
                    Point::Float(v) => s.floats.push((t, v)),
                    Point::Hist(h) => s.histograms.push((t, Arc::new(h.to_model()))),
                }
            }
        }
        Ok(Value::Matrix(series.into_values().collect()))
    }
}

/// No two floats and no two histograms of one step may have the same labels: where whole series are brought together,
/// floats and histograms are looked at apart.
fn unique_of_a_kind(vectors: &[Vec<Row>]) -> Result<(), String> {
    for rows in vectors {
        let mut seen = BTreeSet::new();
        if !rows.iter().all(|r| seen.insert((r.labels.clone(), matches!(r.point, Point::Float(_))))) {
            return Err(SAME_LABELS.to_owned());
        }
    }
    Ok(())
}

/// Of a float and a histogram with the same labels an instant query shows the histogram, in the place of the first.
fn shown(rows: Vec<Row>) -> Vec<Row> {
    let mut out: Vec<Row> = Vec::new();
    for row in rows {
        match out.iter_mut().find(|r| r.labels == row.labels) {
            Some(kept) if matches!(row.point, Point::Hist(_)) => *kept = row,
            Some(_) => {}
            None => out.push(row),
        }
    }
    out
}

/// No two samples of one step may have the same labels.
fn unique(vectors: &[Vec<Row>]) -> Result<(), String> {
    for rows in vectors {
        let mut seen = BTreeSet::new();
        if !rows.iter().all(|r| seen.insert(r.labels.clone())) {
            return Err(SAME_LABELS.to_owned());
        }
    }
    Ok(())
}
