//! Selectors and subqueries: which samples a step sees.

use std::collections::BTreeMap;

use model::{Labels, Matcher, Sample, SampleValue};
use promql::parser::ast::{Boundary, Duration, Expr, Subquery, VectorSelector};

use super::histogram::Hist;
use super::{Evaluator, Grid, Point, Row, extended};
use model::histogram::CounterResetHint;

/// A sample with its time and start time.
#[derive(Clone, Debug)]
pub(super) struct Stamped {
    pub(super) t: i64,
    pub(super) start: i64,
    pub(super) point: Point,
}

/// A series that windows are cut from.
pub(super) struct Source {
    pub(super) labels: Labels,
    pub(super) drop_name: bool,
    pub(super) samples: Vec<Stamped>,
}

/// The samples of a window, floats and histograms apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) floats: Vec<(i64, f64)>,
    pub(super) float_starts: Vec<i64>,
    pub(super) hists: Vec<(i64, Hist)>,
    pub(super) hist_starts: Vec<i64>,
}

/// Where the windows of a range vector lie.
pub(super) struct Ranges {
    pub(super) sources: Vec<Source>,
    pub(super) pinned: Option<i64>,
    pub(super) offset: i64,
    pub(super) range: i64,
    pub(super) boundary: Boundary,
    /// Of a selector, for `absent_over_time`.
    pub(super) matchers: Vec<Matcher>,
}

impl Ranges {
    /// The bounds of the window at `t`, open on the left.
    pub(super) fn bounds(&self, t: i64) -> (i64, i64) {
        let end = self.pinned.unwrap_or(t) - self.offset;
        (end - self.range, end)
    }
}

/// The samples of a series but for stale markers. When only `statistics` are asked for, those after that moment, without
/// buckets.
fn samples(raw: &[Sample], statistics: Option<i64>) -> Vec<Stamped> {
    let from = statistics.map_or(0, |t| raw.iter().take_while(|s| s.timestamp_ms <= t).count());
    let raw = &raw[from..];
    let mut previous: Option<Hist> = None;
    let mut out = Vec::new();
    for s in raw.iter().filter(|s| !s.value.is_stale()) {
        let point = match &s.value {
            SampleValue::Float(v) => Point::Float(*v),
            SampleValue::Histogram(h) => {
                let h = Hist::from_model(&h.to_float());
                if statistics.is_some() {
                    let hint = match &previous {
                        Some(p) if h.hint == CounterResetHint::Unknown => {
                            if h.is_reset_after(p) {
                                CounterResetHint::CounterReset
                            } else {
                                CounterResetHint::NotCounterReset
                            }
                        }
                        _ => h.hint,
                    };
                    let stripped =
                        Hist { hint, schema: h.schema, count: h.count, sum: h.sum, ..Hist::default() };
                    previous = Some(h);
                    Point::Hist(stripped)
                } else {
                    Point::Hist(h)
                }
            }
        };
        out.push(Stamped { t: s.timestamp_ms, start: s.start_timestamp_ms, point });
    }
    out
}

impl Source {
    /// The samples in `(start, end]`.
    pub(super) fn window(&self, start: i64, end: i64) -> Window {
        let mut out = Window::default();
        for s in self.samples.iter().filter(|s| s.t > start && s.t <= end) {
            match &s.point {
                Point::Float(v) => {
                    out.floats.push((s.t, *v));
                    out.float_starts.push(s.start);
                }
                Point::Hist(h) => {
                    out.hists.push((s.t, h.clone()));
                    out.hist_starts.push(s.start);
                }
            }
        }
        out
    }
}

impl Evaluator<'_> {
    pub(super) fn signed_ms(&self, d: &Duration) -> Result<i64, String> {
        d.resolve_signed(self.query.step, self.query.end - self.query.start).map_err(|e| e.to_string())
    }

    fn positive_ms(&self, d: &Duration) -> Result<i64, String> {
        d.resolve_positive(self.query.step, self.query.end - self.query.start).map_err(|e| e.to_string())
    }

    /// Series that all matchers accept, without stale markers.
    pub(super) fn sources(&self, matchers: &[Matcher], statistics: Option<i64>) -> Vec<Source> {
        let accepted = |l: &Labels| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
        self.data
            .series
            .iter()
            .filter(|(labels, _)| accepted(labels))
            .map(|(labels, raw)| Source {
                labels: labels.clone(),
                drop_name: false,
                samples: samples(raw, statistics),
            })
            .collect()
    }

    /// The newest sample of each series within the lookback, unless it is a stale marker.
    pub(super) fn newest(
        &self,
        matchers: &[Matcher],
        at: i64,
        statistics: Option<i64>,
    ) -> Vec<(Labels, Stamped)> {
        let mut out = Vec::new();
        for (labels, raw) in &self.data.series {
            if !matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or(""))) {
                continue;
            }
            let until = raw.iter().take_while(|s| s.timestamp_ms <= at).count();
            let Some(newest) = raw[..until].last() else { continue };
            if newest.timestamp_ms > at - self.settings.lookback_ms && !newest.value.is_stale() {
                let last = samples(&raw[..until], statistics).pop().expect("it is not stale");
                out.push((labels.clone(), last));
            }
        }
        out
    }

    /// The newest sample at `at` of those that a selector at `read` could see.
    pub(super) fn newest_among(
        &self,
        matchers: &[Matcher],
        (read, at): (i64, i64),
    ) -> Vec<(Labels, Stamped)> {
        let lookback = self.settings.lookback_ms;
        let mut out = Vec::new();
        for (labels, raw) in &self.data.series {
            let seen = |s: &&Sample| s.timestamp_ms > read - lookback && s.timestamp_ms <= read.min(at);
            if matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
                && let Some(s) = raw.iter().rfind(seen)
                && s.timestamp_ms > at - lookback
                && !s.value.is_stale()
            {
                out.extend(samples(std::slice::from_ref(s), None).pop().map(|s| (labels.clone(), s)));
            }
        }
        out
    }

    /// From where on samples are read when only statistics are asked for: hints know nothing of the samples before.
    fn statistics(&self, expr: &Expr, from: i64) -> Option<i64> {
        self.statistics_only.contains(&expr.span().start).then_some(from)
    }

    /// For each step, where an instant selector looks.
    pub(super) fn moments(&self, v: &VectorSelector, grid: Grid) -> Result<Vec<i64>, String> {
        let offset = self.signed_ms(&v.offset)?;
        let pinned = self.pinned(v.at);
        Ok(grid.times().into_iter().map(|t| pinned.unwrap_or(t) - offset).collect())
    }

    pub(super) fn instant_selector(
        &self,
        expr: &Expr,
        v: &VectorSelector,
        grid: Grid,
    ) -> Result<Vec<Vec<Row>>, String> {
        let moments = self.moments(v, grid)?;
        let statistics = self.statistics(expr, moments[0] - self.settings.lookback_ms);
        if v.boundary == Boundary::Smoothed {
            let sources = self.sources(&v.matchers, statistics);
            let at = |t: i64| -> Vec<Row> {
                let lookback = self.settings.lookback_ms;
                sources
                    .iter()
                    .filter_map(|s| {
                        let point = extended::smoothed_at(self, s, t, lookback)?;
                        Some(Row { labels: s.labels.clone(), drop_name: false, point })
                    })
                    .collect()
            };
            return Ok(moments.into_iter().map(at).collect());
        }
        let row = |(labels, s): (Labels, Stamped)| Row { labels, drop_name: false, point: s.point };
        Ok(moments
            .into_iter()
            .map(|t| self.newest(&v.matchers, t, statistics).into_iter().map(row).collect())
            .collect())
    }

    /// From when on the selectors of an expression read, the selector of an `info` among them; `None` when there is none.
    pub(super) fn earliest(&self, expr: &Expr, grid: Grid) -> Result<Option<i64>, String> {
        let lookback = self.settings.lookback_ms;
        let first = |v: &VectorSelector| -> Result<i64, String> {
            Ok(self.pinned(v.at).unwrap_or(grid.start) - self.signed_ms(&v.offset)?)
        };
        match expr {
            Expr::Vector(v) => return Ok(Some(first(v)? - lookback + 1)),
            Expr::Matrix(m) => {
                let around = if m.selector.boundary == Boundary::Plain { 0 } else { lookback };
                return Ok(Some(first(&m.selector)? - self.positive_ms(&m.range)? - around + 1));
            }
            Expr::Subquery(s) => return self.earliest(&s.expr, self.inner_grid(s, grid)?),
            _ => {}
        }
        let mut out = Ok(None::<i64>);
        expr.for_each_child(|c| {
            if let Ok(old) = out {
                out = self.earliest(c, grid).map(|new| old.into_iter().chain(new).min());
            }
        });
        out
    }

    /// The steps of a subquery: multiples of its step from the first window to the last.
    fn inner_grid(&self, s: &Subquery, grid: Grid) -> Result<Grid, String> {
        let (offset, range) = (self.signed_ms(&s.offset)?, self.positive_ms(&s.range)?);
        let step = match &s.step {
            Some(step) => self.positive_ms(step)?,
            None => self.settings.default_subquery_step_ms,
        };
        let pinned = self.pinned(s.at);
        let last = grid.start + (grid.end - grid.start) / grid.step * grid.step;
        let (first, last) = (pinned.unwrap_or(grid.start) - offset, pinned.unwrap_or(last) - offset);
        Ok(Grid { start: (first - range).div_euclid(step) * step + step, end: last, step })
    }

    /// What a range vector's windows are cut from.
    pub(super) fn ranges(&self, expr: &Expr, grid: Grid) -> Result<Ranges, String> {
        match expr {
            Expr::Paren(p) => self.ranges(&p.expr, grid),
            Expr::Matrix(m) => {
                let mut ranges = Ranges {
                    sources: Vec::new(),
                    pinned: self.pinned(m.selector.at),
                    offset: self.signed_ms(&m.selector.offset)?,
                    range: self.positive_ms(&m.range)?,
                    boundary: m.selector.boundary,
                    matchers: m.selector.matchers.clone(),
                };
                let around = if ranges.boundary == Boundary::Plain { 0 } else { self.settings.lookback_ms };
                let statistics = self.statistics(expr, ranges.bounds(grid.start).0 - around);
                ranges.sources = self.sources(&ranges.matchers, statistics);
                Ok(ranges)
            }
            Expr::Subquery(s) => {
                let (offset, range) = (self.signed_ms(&s.offset)?, self.positive_ms(&s.range)?);
                let pinned = self.pinned(s.at);
                let inner = self.inner_grid(s, grid)?;
                let sources = series(inner, self.vectors(&s.expr, inner)?);
                Ok(Ranges { sources, pinned, offset, range, boundary: Boundary::Plain, matchers: Vec::new() })
            }
            _ => unreachable!("not a range vector"),
        }
    }
}

/// The series of an evaluated subquery. Hints about resets say nothing any more.
fn series(grid: Grid, vectors: Vec<Vec<Row>>) -> Vec<Source> {
    let mut out: BTreeMap<(Labels, usize), Source> = BTreeMap::new();
    for (t, rows) in grid.times().into_iter().zip(vectors) {
        let mut twins: BTreeMap<Labels, usize> = BTreeMap::new();
        for mut row in rows {
            let twin = twins.entry(row.labels.clone()).or_default();
            let source = out.entry((row.labels.clone(), *twin)).or_insert_with(|| Source {
                labels: row.labels.clone(),
                drop_name: row.drop_name,
                samples: Vec::new(),
            });
            *twin += 1;
            if let Point::Hist(h) = &mut row.point
                && matches!(h.hint, CounterResetHint::CounterReset | CounterResetHint::NotCounterReset)
            {
                h.hint = CounterResetHint::Unknown;
            }
            source.samples.push(Stamped { t, start: 0, point: row.point });
        }
    }
    out.into_values().collect()
}
