//! `info`: labels of info series for those with the same `job` and `instance`.

use std::collections::{BTreeMap, BTreeSet};

use model::{Labels, LabelsBuilder, MatchOp, Matcher};
use promql::parser::ast::{Call, Expr, VectorSelector};

use super::select::Stamped;
use super::{Evaluator, Grid, Point, Row, unique};

const IDENTIFYING: [&str; 2] = ["instance", "job"];

impl Evaluator<'_> {
    pub(super) fn info_call(&self, call: &Call, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        let (pinned, offset) = self.info_time(&call.args[0])?;
        let base = self.vectors(&call.args[0], grid)?;
        let mut name_matchers = Vec::new();
        let mut data: Vec<Matcher> = Vec::new();
        if let Some(Expr::Vector(v)) = call.args.get(1).map(Expr::without_parens) {
            let (names, others) = v.matchers.iter().cloned().partition(|m| m.name == "__name__");
            (name_matchers, data) = (names, others);
        }
        let name_matchers = effective(name_matchers)?;
        let ignored = |l: &Labels| name_matchers.iter().all(|m| m.matches(l.metric_name()));
        let mut values: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for row in base.iter().flatten().filter(|r| !ignored(&r.labels)) {
            for name in IDENTIFYING {
                if let Some(v) = row.labels.get(name) {
                    values.entry(name).or_default().insert(v.to_owned());
                }
            }
        }
        let fits = |l: &Labels| values.iter().all(|(n, v)| v.contains(l.value(n)));
        let mut matchers = name_matchers.clone();
        matchers.extend(data.iter().cloned());
        let mut out = Vec::new();
        for (t, rows) in grid.times().into_iter().zip(base) {
            let at = pinned.unwrap_or(t) - offset;
            let mut infos = if values.is_empty() { Vec::new() } else { self.newest(&matchers, at, None) };
            // What lies before everything that the query asks the storage for is not seen, whatever the lookback.
            infos.retain(|(l, s)| fits(l) && s.t >= self.read_from);
            out.push(enrich(&infos, rows, &data, &ignored)?);
        }
        unique(&out)?;
        Ok(out)
    }

    /// The time that the first selector of the expression looks at: pinned, or away from the evaluation time.
    fn info_time(&self, expr: &Expr) -> Result<(Option<i64>, i64), String> {
        let mut path = Vec::new();
        let Some((selector, subqueries)) = first_selector(expr, &mut path) else { return Ok((None, 0)) };
        let (mut pinned, mut offset) = (self.pinned(selector.at), self.signed_ms(&selector.offset)?);
        for s in subqueries.iter().rev() {
            if pinned.is_some() {
                break;
            }
            if let Expr::Subquery(s) = s {
                offset += self.signed_ms(&s.offset)?;
                pinned = self.pinned(s.at);
            }
        }
        Ok((pinned, offset))
    }
}

fn first_selector<'e>(
    expr: &'e Expr,
    path: &mut Vec<&'e Expr>,
) -> Option<(&'e VectorSelector, Vec<&'e Expr>)> {
    match expr {
        Expr::Vector(v) => return Some((v, path.clone())),
        Expr::Matrix(m) => return Some((&m.selector, path.clone())),
        _ => {}
    }
    path.push(expr);
    let mut children = Vec::new();
    // An aggregation's vector comes before its parameter here.
    match expr {
        Expr::Aggregate(a) => {
            children.push(&a.expr);
            children.extend(a.param.as_ref());
        }
        other => other.for_each_child(|c| children.push(c)),
    }
    let found = children.into_iter().find_map(|c| first_selector(c, path));
    path.pop();
    found
}

/// With exclusions only, all metrics that end in `_info`; with nothing, `target_info`.
fn effective(mut matchers: Vec<Matcher>) -> Result<Vec<Matcher>, String> {
    if matchers.is_empty() {
        return Ok(vec![Matcher::equal("__name__", "target_info")]);
    }
    if !matchers.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regexp)) {
        let all = Matcher::new(MatchOp::Regexp, "__name__", ".+_info").map_err(|e| e.to_string())?;
        matchers.insert(0, all);
    }
    Ok(matchers)
}

fn enrich(
    infos: &[(Labels, Stamped)],
    rows: Vec<Row>,
    data: &[Matcher],
    ignored: &impl Fn(&Labels) -> bool,
) -> Result<Vec<Row>, String> {
    if infos.iter().any(|(_, s)| matches!(s.point, Point::Hist(_))) {
        return Err("this should be an info metric, with float samples".to_owned());
    }
    if rows.is_empty() {
        return Ok(rows);
    }
    let key = |name: &str, l: &Labels| (name.to_owned(), IDENTIFYING.map(|n| l.value(n).to_owned()));
    let mut newest: BTreeMap<_, &(Labels, Stamped)> = BTreeMap::new();
    for info in infos {
        let k = key(info.0.metric_name(), &info.0);
        match newest.get(&k) {
            Some(old) if old.1.t > info.1.t => {}
            Some(old) if old.1.t == info.1.t => {
                return Err("found duplicate series for info metric".to_owned());
            }
            _ => {
                newest.insert(k, info);
            }
        }
    }
    let names: BTreeSet<&str> = infos.iter().map(|(l, _)| l.metric_name()).collect();
    let mut out = Vec::new();
    for row in rows {
        if ignored(&row.labels) {
            out.push(row);
            continue;
        }
        let mut added: BTreeMap<String, String> = BTreeMap::new();
        let mut found = false;
        for name in &names {
            let Some((labels, _)) = newest.get(&key(name, &row.labels)) else { continue };
            found = true;
            for (n, v) in labels.iter().filter(|(n, _)| *n != "__name__") {
                if !data.is_empty() && !data.iter().any(|m| m.name == n) {
                    continue;
                }
                if added.get(n).is_some_and(|a| a != v) {
                    return Err(format!("conflicting label: {n}"));
                }
                if !row.labels.contains(n) {
                    added.insert(n.to_owned(), v.to_owned());
                }
            }
        }
        if !found && !data.iter().all(|m| m.matches("")) {
            continue;
        }
        let mut labels = LabelsBuilder::from_labels(&row.labels);
        added.iter().for_each(|(n, v)| {
            labels.set(n, v);
        });
        out.push(Row { labels: labels.build(), ..row });
    }
    Ok(out)
}
