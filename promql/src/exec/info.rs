//! `info`: adds labels of info series (such as `target_info`) to series with the same `instance` and `job`.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#info>.

use std::collections::HashMap;

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder, MatchOp, Matcher, Samples, SelectHints, is_stale_nan};

use super::batch::{Batch, Head, is_absent};
use super::binary::labels::braced;
use super::context::Context;
use super::duplicates::Duplicates;
use super::memory::{HeldBytes, labels_bytes};
use super::operator::{BoxOperator, Builder, Operator, arg};
use super::source::decode;
use super::tally::TallyId;
use crate::error::{QueryError, Result};
use crate::plan::Grid;
use crate::plan::grid::Shift;
use crate::plan::node::{Call, CallExtra};

/// Labels by which base and info series find each other.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

pub(crate) fn build<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
    let CallExtra::Info { matchers, shift } = &c.extra else {
        return Err(QueryError::execution("info without its selector"));
    };
    let input = b.vector(arg(c, 0)?, grid)?;
    let mut names = Vec::new();
    let mut data = Vec::new();
    for m in matchers.iter().flatten() {
        if m.name == METRIC_NAME { names.push(m.clone()) } else { data.push(m.clone()) }
    }
    let names = name_matchers(names)?;
    Ok(Box::new(Info { ctx: b.ctx, tally: b.tally, input: Some(input), names, data, shift: *shift, grid }))
}

/// The matchers that pick info series: `target_info` when none is given, names ending in `_info` when all exclude.
fn name_matchers(given: Vec<Matcher>) -> Result<Vec<Matcher>> {
    if given.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regexp)) {
        return Ok(given);
    }
    if given.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, "target_info")]);
    }
    let mut all = vec![regexp_matcher(METRIC_NAME, ".+_info")?];
    all.extend(given);
    Ok(all)
}

fn regexp_matcher(name: &str, pattern: &str) -> Result<Matcher> {
    Matcher::new(MatchOp::Regexp, name, pattern).map_err(|e| QueryError::Execution(e.to_string()))
}

struct Info<'q> {
    ctx: &'q Context<'q>,
    tally: TallyId,
    input: Option<BoxOperator<'q>>,
    /// Matchers of the names of info series.
    names: Vec<Matcher>,
    /// Matchers of other labels: which labels are taken over, and which series count.
    data: Vec<Matcher>,
    shift: Shift,
    grid: Grid,
}

/// An info series: at each step the timestamp of its sample, 0 at least, or `None`.
struct InfoSeries {
    labels: Labels,
    seen: Vec<Option<i64>>,
}

/// Name and identifying labels.
type Signature = (String, [String; 2]);

impl Info<'_> {
    fn is_info(&self, labels: &Labels) -> bool {
        self.names.iter().all(|m| m.matches(labels.metric_name()))
    }

    /// Reads the info series that may belong to the base series.
    fn read(&self, base: &Batch, bytes: &mut HeldBytes<'_>) -> Result<Vec<InfoSeries>> {
        let mut matchers = Vec::new();
        for name in IDENTIFYING {
            let mut values: Vec<String> = base
                .heads
                .iter()
                .filter(|h| !self.is_info(&h.labels))
                .map(|h| h.labels.value(name))
                .filter(|v| !v.is_empty())
                .map(regex::escape)
                .collect();
            values.sort_unstable();
            values.dedup();
            if !values.is_empty() {
                matchers.push(regexp_matcher(name, &values.join("|"))?);
            }
        }
        if matchers.is_empty() {
            return Ok(Vec::new());
        }
        matchers.extend(self.data.iter().cloned());
        matchers.extend(self.names.iter().cloned());
        let lookback = self.ctx.lookback_ms;
        let (first, last) = (self.shift.apply(self.grid.start_ms), self.shift.apply(self.grid.last_ms()));
        let hints = SelectHints {
            start_ms: first - lookback + 1,
            end_ms: last,
            step_ms: self.grid.step_ms,
            func: "info".into(),
            ..SelectHints::default()
        };
        let mut set = self.ctx.querier.select(&matchers, &hints)?;
        let (mut out, mut samples) = (Vec::new(), Samples::new());
        while let Some(series) = set.next()? {
            self.ctx.check()?;
            decode(self.ctx, &series, hints.start_ms, last, &mut samples)?;
            let seen = self.seen(&samples, &series.labels)?;
            if seen.iter().any(Option::is_some) {
                self.ctx.hold(seen.len() as u64)?;
                bytes.add(size_of_val(seen.as_slice()) as u64 + labels_bytes(&series.labels))?;
                self.count(&seen);
                out.push(InfoSeries { labels: series.labels, seen });
            }
        }
        self.ctx.warn_storage(set.warnings());
        Ok(out)
    }

    /// Counts the samples of an info series.
    fn count(&self, seen: &[Option<i64>]) {
        let mut counts = self.ctx.tallies.part(self.tally);
        for (step, _) in seen.iter().enumerate().filter(|(_, s)| s.is_some()) {
            counts.add(step, 1, 1);
        }
        self.ctx.tallies.add(self.tally, &counts);
    }

    fn seen(&self, samples: &Samples, labels: &Labels) -> Result<Vec<Option<i64>>> {
        let times = &samples.timestamps_ms;
        let at_step = |step: usize| {
            let at = self.shift.apply(self.grid.at(step));
            let i = times.partition_point(|t| *t <= at).checked_sub(1)?;
            (times[i] > at - self.ctx.lookback_ms).then_some(i)
        };
        let mut out = Vec::with_capacity(self.grid.count);
        for step in 0..self.grid.count {
            let found = at_step(step);
            if found.is_some_and(|i| samples.histogram(i).is_some_and(|h| !is_stale_nan(h.sum()))) {
                let text = format!("this should be an info metric, with float samples: {labels}");
                return Err(QueryError::Execution(text));
            }
            let fresh = |i: &usize| samples.histogram(*i).is_none() && !is_stale_nan(samples.values[*i]);
            out.push(found.filter(fresh).map(|i| times[i]));
        }
        Ok(out)
    }

    /// At each step, the newest info series of every signature.
    fn newest(
        &self,
        infos: &[InfoSeries],
        bytes: &mut HeldBytes<'_>,
    ) -> Result<HashMap<Signature, Vec<Option<usize>>>> {
        let mut by: HashMap<Signature, Vec<Option<usize>>> = HashMap::new();
        for (at, info) in infos.iter().enumerate() {
            let signature = signature(info.labels.metric_name(), &info.labels);
            if !by.contains_key(&signature) {
                bytes.add((self.grid.count * size_of::<Option<usize>>()) as u64)?;
            }
            let slots = by.entry(signature).or_insert_with(|| vec![None; self.grid.count]);
            for (step, slot) in slots.iter_mut().enumerate() {
                let Some(ts) = info.seen[step] else { continue };
                let old = slot.map(|other| &infos[other]);
                match old.and_then(|o| Some((o, o.seen[step]?))) {
                    Some((_, old_ts)) if old_ts > ts => {}
                    Some((o, old_ts)) if old_ts == ts => {
                        return Err(QueryError::Execution(format!(
                            "found duplicate series for info metric: existing {} @ {old_ts}, new {} @ {ts}",
                            braced(&o.labels),
                            braced(&info.labels),
                        )));
                    }
                    _ => *slot = Some(at),
                }
            }
        }
        Ok(by)
    }

    /// Labels that info series give to a base series; `None` when the series has to go.
    fn enriched(&self, base: &Labels, found: &[&InfoSeries]) -> Result<Option<Labels>> {
        if found.is_empty() {
            return Ok(self.data.iter().all(Matcher::matches_empty).then(|| base.clone()));
        }
        let mut added = LabelsBuilder::new();
        for info in found {
            for (n, v) in info.labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
                if !self.data.is_empty() && !self.data.iter().any(|m| m.name == n) {
                    continue;
                }
                let other = added.get(n);
                if !other.is_empty() && other != v {
                    return Err(QueryError::Execution(format!("conflicting label: {n}")));
                }
                if !base.contains(n) {
                    added.set(n, v);
                }
            }
        }
        let mut b = LabelsBuilder::from_labels(base);
        for (n, v) in added.iter() {
            b.set(n, v);
        }
        Ok(Some(b.build()))
    }
}

fn signature(name: &str, labels: &Labels) -> Signature {
    (name.to_owned(), IDENTIFYING.map(|l| labels.value(l).to_owned()))
}

impl Operator for Info<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        let Some(mut input) = self.input.take() else { return Ok(false) };
        let (mut base, mut rows) = (Batch::new(), Batch::new());
        base.reset(self.grid.count);
        let mut bytes = self.ctx.memory.hold();
        while input.next(&mut rows)? {
            self.ctx.check()?;
            self.ctx.hold(rows.samples())?;
            bytes.add(2 * rows.bytes())?;
            for (i, head) in rows.heads.iter().enumerate() {
                base.push_copy(head.clone(), &rows, i);
            }
        }
        let infos = self.read(&base, &mut bytes)?;
        let newest = self.newest(&infos, &mut bytes)?;
        let mut names: Vec<&str> = infos.iter().map(|i| i.labels.metric_name()).collect();
        names.sort_unstable();
        names.dedup();
        for (i, head) in base.heads.iter().enumerate() {
            self.ctx.check()?;
            if self.is_info(&head.labels) {
                out.push_copy(head.clone(), &base, i);
                continue;
            }
            let slots: Vec<&Vec<Option<usize>>> =
                names.iter().filter_map(|n| newest.get(&signature(n, &head.labels))).collect();
            // Neighbouring steps mostly have the same info series: one row for each combination.
            let mut row_of: HashMap<Vec<usize>, Option<usize>> = HashMap::new();
            for step in 0..self.grid.count {
                if is_absent(base.row(i)[step]) {
                    continue;
                }
                let found: Vec<usize> = slots.iter().filter_map(|s| s[step]).collect();
                let row = match row_of.get(&found) {
                    Some(row) => *row,
                    None => {
                        let series: Vec<&InfoSeries> = found.iter().map(|f| &infos[*f]).collect();
                        let row = self
                            .enriched(&head.labels, &series)?
                            .map(|labels| out.push_row(Head { labels, drop_name: head.drop_name }));
                        row_of.insert(found, row);
                        row
                    }
                };
                if let Some(row) = row {
                    out.set(row, step, base.cell(i, step));
                }
            }
        }
        self.ctx.release(base.samples());
        Duplicates::new(self.ctx).check(out)?;
        Ok(true)
    }
}
