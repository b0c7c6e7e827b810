//! Aggregations, group by group.

use std::collections::{BTreeMap, BTreeSet};

use model::labels::Quoted;
use model::{Labels, LabelsBuilder};
use promql::parser::ast::{Aggregate, AggregateOp, Expr};

use super::elementwise::insertion_sort;
use super::extended::{mixed_schemas, reconciled};
use super::histogram::kahan;
use super::{Evaluator, Grid, Point, Row, quantile, window};
use model::histogram::CounterResetHint;

impl Evaluator<'_> {
    pub(super) fn aggregation(&self, a: &Aggregate, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        if a.op == AggregateOp::CountValues {
            return self.count_values(a, grid);
        }
        let n = grid.times().len();
        let params = match &a.param {
            Some(p) => self.scalars(p, grid)?,
            None => vec![0.0; n],
        };
        let input = self.vectors(&a.expr, grid)?;
        if self.nothing_to_do(a.op, &params)? {
            return Ok(vec![Vec::new(); n]);
        }
        let series = distinct(&input);
        let order = if grid.is_instant() { Vec::new() } else { series_order(&input) };
        let step = |(rows, param): (Vec<Row>, &f64)| {
            self.aggregate_step(a, &rows, *param, (series, grid.is_instant()))
        };
        let out: Vec<Vec<Row>> = input.into_iter().zip(&params).map(step).collect();
        if matches!(
            a.op,
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio
        ) {
            return Ok(out);
        }
        // One series per group: whether its name goes is what the last step says.
        let mut out = last_drop_name(out);
        if !grid.is_instant() {
            let mut rank: BTreeMap<Labels, usize> = BTreeMap::new();
            for (i, labels) in order.iter().enumerate() {
                rank.entry(group_labels(labels, &a.grouping, a.without)).or_insert(i);
            }
            out.iter_mut().for_each(|rows| rows.sort_by_key(|r| rank[&r.labels]));
        }
        Ok(out)
    }

    /// Checks the parameters of all steps.
    fn nothing_to_do(&self, op: AggregateOp, params: &[f64]) -> Result<bool, String> {
        let nan = params.iter().any(|p| p.is_nan());
        let max = params.iter().copied().fold(f64::NEG_INFINITY, super::elementwise::go_max);
        let min = params.iter().copied().fold(f64::INFINITY, super::elementwise::go_min);
        match op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                if max < 1.0 {
                    return Ok(true);
                }
                if nan {
                    return Err("Parameter value is NaN".to_owned());
                }
                if min <= i64::MIN as f64 || max >= i64::MAX as f64 {
                    return Err("Scalar value does not fit".to_owned());
                }
            }
            AggregateOp::LimitRatio => {
                if max == 0.0 && min == 0.0 {
                    return Ok(true);
                }
                if nan {
                    return Err("Ratio value is NaN".to_owned());
                }
                for (got, cap, bad) in [(max, 1.0, max > 1.0), (min, -1.0, min < -1.0)] {
                    if bad {
                        self.warn(format_args!(
                            "ratio value should be between -1 and 1, got {}, capping to {}",
                            format_g(got),
                            format_g(cap)
                        ));
                    }
                }
            }
            AggregateOp::Quantile => {
                if nan {
                    self.invalid_quantile(f64::NAN);
                }
                if max > 1.0 {
                    self.invalid_quantile(max);
                }
                if min < 0.0 {
                    self.invalid_quantile(min);
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn aggregate_step(
        &self,
        a: &Aggregate,
        rows: &[Row],
        param: f64,
        (series, instant): (usize, bool),
    ) -> Vec<Row> {
        let mut groups: Vec<(Labels, Vec<&Row>)> = Vec::new();
        for row in rows {
            let key = group_labels(&row.labels, &a.grouping, a.without);
            match groups.iter_mut().find(|g| g.0 == key) {
                Some(g) => g.1.push(row),
                None => groups.push((key, vec![row])),
            }
        }
        let mut out = Vec::new();
        for (labels, members) in groups {
            match a.op {
                AggregateOp::Topk | AggregateOp::Bottomk => {
                    out.extend(self.top(a.op, &members, param, series));
                }
                AggregateOp::Limitk => {
                    let k = (param as i64).clamp(0, series as i64) as usize;
                    let picked: Vec<&Row> = members.into_iter().take(k).collect();
                    out.extend(if instant { heaped(&picked) } else { picked.into_iter().cloned().collect() });
                }
                AggregateOp::LimitRatio => {
                    let r = param.clamp(-1.0, 1.0);
                    let kept = |row: &&&Row| {
                        let at = row.labels.prometheus_hash64() as f64 / u64::MAX as f64;
                        (r >= 0.0 && at < r && r != 0.0) || (r < 0.0 && at >= 1.0 + r)
                    };
                    let picked: Vec<&Row> = members.iter().filter(kept).copied().collect();
                    out.extend(if instant { heaped(&picked) } else { picked.into_iter().cloned().collect() });
                }
                op => {
                    let (point, drop_name) = match self.aggregate_group(op, &members, param) {
                        Some(v) => v,
                        None => continue,
                    };
                    out.push(Row { labels, drop_name, point });
                }
            }
        }
        out
    }

    fn ignored(&self, op: AggregateOp) {
        self.info(format_args!("ignored histogram in {} aggregation", op.as_str()));
    }

    /// The floats of a group; histograms are left out with a note.
    fn floats(&self, op: AggregateOp, members: &[&Row]) -> Vec<(f64, bool)> {
        let mut out = Vec::new();
        for row in members {
            match row.point {
                Point::Float(v) => out.push((v, row.drop_name)),
                Point::Hist(_) => {
                    self.ignored(op);
                    // Its flag counts all the same, once the group was begun.
                    if let Some(first) = out.first_mut() {
                        let first: &mut (f64, bool) = first;
                        first.1 |= row.drop_name;
                    }
                }
            }
        }
        out
    }

    fn aggregate_group(&self, op: AggregateOp, members: &[&Row], param: f64) -> Option<(Point, bool)> {
        let any_drop = members.iter().any(|r| r.drop_name);
        match op {
            AggregateOp::Count => return Some((Point::Float(members.len() as f64), any_drop)),
            AggregateOp::Group => return Some((Point::Float(1.0), any_drop)),
            AggregateOp::Sum | AggregateOp::Avg => return self.sum_group(op, members).map(|p| (p, any_drop)),
            _ => {}
        }
        let floats = self.floats(op, members);
        let drop_name = floats.iter().any(|f| f.1);
        let values: Vec<f64> = floats.into_iter().map(|f| f.0).collect();
        let first = *values.first()?;
        let value = match op {
            AggregateOp::Max => values.iter().fold(first, |m, v| if m < *v || m.is_nan() { *v } else { m }),
            AggregateOp::Min => values.iter().fold(first, |m, v| if m > *v || m.is_nan() { *v } else { m }),
            AggregateOp::Quantile => quantile::of_floats(param, &values),
            AggregateOp::Stddev => variance(&values).sqrt(),
            AggregateOp::Stdvar => variance(&values),
            _ => unreachable!("handled elsewhere"),
        };
        Some((Point::Float(value), drop_name))
    }

    fn sum_group(&self, op: AggregateOp, members: &[&Row]) -> Option<Point> {
        let avg = op == AggregateOp::Avg;
        let mut floats = Vec::new();
        let mut hists = Vec::new();
        for row in members {
            match &row.point {
                Point::Float(v) => floats.push(*v),
                Point::Hist(h) => hists.push((row, h)),
            }
        }
        if hists.is_empty() {
            if avg {
                return Some(Point::Float(window::average(&floats)));
            }
            let (s, c) = floats[1..].iter().fold((floats[0], 0.0), |(s, c), v| kahan(*v, s, c));
            return Some(Point::Float(s + c));
        }
        // Histograms are added as long as no float came before all of them and their schemas fit.
        let mut incompatible = false;
        let starts_with_float = matches!(members[0].point, Point::Float(_));
        let mut summed = Vec::new();
        let mut mixed = false;
        for row in members {
            match &row.point {
                _ if incompatible => break,
                Point::Float(_) => mixed = true,
                Point::Hist(_) if starts_with_float => {}
                Point::Hist(h) => {
                    let first = summed.first().copied().unwrap_or(h);
                    if first.is_custom() == h.is_custom() {
                        summed.push(h);
                    } else {
                        mixed_schemas(self, row.labels.metric_name());
                        incompatible = true;
                    }
                }
            }
        }
        let mut hints = summed.clone();
        if incompatible && let Some(h) = refused(members, &summed) {
            // Its hint was looked at before it was refused.
            hints.push(h);
        }
        let mixed = mixed || starts_with_float;
        let total = if summed.is_empty() { None } else { Some(window::sum_hists(&summed, avg)) };
        if let Some(Ok((_, met))) = &total
            && met.reconciled
        {
            reconciled(self, "aggregation");
        }
        if mixed {
            self.warn("encountered a mix of histograms and floats for aggregation");
            return None;
        }
        if incompatible {
            return None;
        }
        let has = |hint| hints.iter().any(|h| h.hint == hint);
        if has(CounterResetHint::CounterReset) && has(CounterResetHint::NotCounterReset) {
            self.warn("conflicting counter resets during histogram aggregation");
        }
        let (sum, _) = total?.ok()?;
        Some(Point::Hist(sum.compact()))
    }

    // === topk, bottomk ===

    /// A heap of the best, as Prometheus keeps it: which of several equal ones stay depends on it.
    fn top(&self, op: AggregateOp, members: &[&Row], param: f64, series: usize) -> Vec<Row> {
        let k = (param as i64).min(series as i64);
        if k < 1 {
            return Vec::new();
        }
        let k = k as usize;
        let top = op == AggregateOp::Topk;
        // Whether the first is nearer to being thrown out.
        let less = move |a: f64, b: f64| a.is_nan() || if top { a < b } else { a > b };
        let mut heap: Vec<(f64, Row)> = Vec::new();
        let mut first = true;
        for row in members {
            let Point::Float(v) = row.point else {
                self.ignored(op);
                continue;
            };
            if heap.len() < k {
                heap.push((v, (*row).clone()));
                // The first of a group is pushed as for `topk`, which makes no difference with one element.
                first = false;
                up(&mut heap, less);
            } else if (if top { heap[0].0 < v } else { heap[0].0 > v }) || (heap[0].0.is_nan() && !v.is_nan())
            {
                heap[0] = (v, (*row).clone());
                down(&mut heap, less);
            }
        }
        debug_assert!(heap.is_empty() || !first);
        // Reversed: the best first.
        insertion_sort(&mut heap, |a, b| less(b.0, a.0));
        heap.into_iter().map(|(_, r)| r).collect()
    }

    // === count_values ===

    fn count_values(&self, a: &Aggregate, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        let label = match a.param.as_ref().map(Expr::without_parens) {
            Some(Expr::String(s)) => s.value.clone(),
            _ => unreachable!("a string, as the parser checked"),
        };
        if label.is_empty() {
            return Err(format!("invalid label name {}", Quoted(&label)));
        }
        let mut grouping = a.grouping.clone();
        if !a.without {
            grouping.push(label.clone());
        }
        let mut out = Vec::new();
        for rows in self.vectors(&a.expr, grid)? {
            let mut groups: Vec<(Labels, f64)> = Vec::new();
            for row in rows {
                let value = match &row.point {
                    Point::Float(v) => plain_float(*v),
                    Point::Hist(h) => h.to_model().to_string(),
                };
                let labels = LabelsBuilder::from_labels(&row.labels).set(&label, &value).build();
                let key = group_labels(&labels, &grouping, a.without);
                match groups.iter_mut().find(|g| g.0 == key) {
                    Some(g) => g.1 += 1.0,
                    None => groups.push((key, 1.0)),
                }
            }
            out.push(groups.into_iter().map(|(labels, n)| Row::float(labels, false, n)).collect());
        }
        self.settled(out, grid)
    }
}

/// The histogram whose schema did not fit.
fn refused<'r>(
    members: &[&'r Row],
    summed: &[&'r super::histogram::Hist],
) -> Option<&'r super::histogram::Hist> {
    let custom = summed.first()?.is_custom();
    members.iter().find_map(|r| match &r.point {
        Point::Hist(h) if h.is_custom() != custom => Some(h),
        _ => None,
    })
}

/// What `limitk` and `limit_ratio` pick at a single step comes as a heap has it, histograms counting as zero.
fn heaped(picked: &[&Row]) -> Vec<Row> {
    let mut heap = Vec::new();
    for row in picked {
        let value = if let Point::Float(v) = row.point { v } else { 0.0 };
        heap.push((value, (*row).clone()));
        up(&mut heap, |a, b| a.is_nan() || a < b);
    }
    heap.into_iter().map(|(_, r)| r).collect()
}

fn up(heap: &mut [(f64, Row)], less: impl Fn(f64, f64) -> bool) {
    let mut j = heap.len() - 1;
    while j > 0 {
        let i = (j - 1) / 2;
        if !less(heap[j].0, heap[i].0) {
            break;
        }
        heap.swap(i, j);
        j = i;
    }
}

fn down(heap: &mut [(f64, Row)], less: impl Fn(f64, f64) -> bool) {
    let mut i = 0;
    loop {
        let mut j = 2 * i + 1;
        if j >= heap.len() {
            break;
        }
        if j + 1 < heap.len() && less(heap[j + 1].0, heap[j].0) {
            j += 1;
        }
        if !less(heap[j].0, heap[i].0) {
            break;
        }
        heap.swap(i, j);
        i = j;
    }
}

/// How many series there are over all steps.
fn distinct(vectors: &[Vec<Row>]) -> usize {
    let labels: BTreeSet<&Labels> = vectors.iter().flatten().map(|r| &r.labels).collect();
    labels.len()
}

/// The series of all steps in the order that each step has them in; by labels where no step tells.
fn series_order(vectors: &[Vec<Row>]) -> Vec<Labels> {
    let mut before: BTreeMap<&Labels, BTreeSet<&Labels>> = BTreeMap::new();
    for rows in vectors {
        for (i, row) in rows.iter().enumerate() {
            let known = before.entry(&row.labels).or_default();
            known.extend(i.checked_sub(1).map(|p| &rows[p].labels).filter(|p| **p != row.labels));
        }
    }
    let mut out = Vec::new();
    while !before.is_empty() {
        let free = before.iter().find(|(_, b)| b.is_empty()).or_else(|| before.iter().next());
        let Some(next) = free.map(|(l, _)| *l) else { break };
        before.remove(next);
        before.values_mut().for_each(|b| {
            b.remove(next);
        });
        out.push(next.clone());
    }
    out
}

fn last_drop_name(mut vectors: Vec<Vec<Row>>) -> Vec<Vec<Row>> {
    let mut flags = BTreeMap::new();
    for row in vectors.iter().flatten() {
        flags.insert(row.labels.clone(), row.drop_name);
    }
    for row in vectors.iter_mut().flatten() {
        row.drop_name = flags[&row.labels];
    }
    vectors
}

fn group_labels(labels: &Labels, grouping: &[String], without: bool) -> Labels {
    labels.filter(|n| {
        let named = grouping.iter().any(|g| g == n);
        if without { !named && n != "__name__" } else { named }
    })
}

fn variance(values: &[f64]) -> f64 {
    let bad = values[0].is_nan() || values[0].is_infinite();
    let mut sum = if bad { f64::NAN } else { 0.0 };
    let (mut mean, mut count) = (values[0], 1.0);
    for v in &values[1..] {
        count += 1.0;
        let delta = v - mean;
        mean += delta / count;
        sum += delta * (v - mean);
    }
    sum / count
}

/// Without an exponent.
fn plain_float(v: f64) -> String {
    if v.is_nan() {
        "NaN".to_owned()
    } else if v.is_infinite() {
        if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{v}")
    }
}

/// As Go's `%g`: an exponent below -4 and from 6 on.
pub(super) fn format_g(v: f64) -> String {
    if v.is_nan() || v.is_infinite() {
        return plain_float(v);
    }
    let text = format!("{v:e}");
    let (mantissa, exponent) = text.split_once('e').expect("scientific");
    let exponent: i32 = exponent.parse().expect("a number");
    if (-4..6).contains(&exponent) {
        return format!("{v}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
