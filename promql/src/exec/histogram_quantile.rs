//! `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`: of native histograms and of the series of classic
//! ones, which are brought together by their labels without `le`.

use std::collections::HashMap;

use model::labels::{BUCKET_LABEL, METRIC_NAME};
use model::{Labels, LabelsBuilder};

use super::batch::{Batch, Cell, Head, clean, is_absent, is_float, rows_bytes};
use super::context::Context;
use super::duplicates::Duplicates;
use super::memory::HeldBytes;
use super::operator::{BoxOperator, Builder, Operator, arg, text_arg};
use super::scalar::Scalar;
use crate::annotations::Note;
use crate::error::Result;
use crate::functions::classic_histogram::{LeBucket, bucket_fraction, bucket_quantile};
use crate::functions::format::format_open_metrics;
use crate::functions::histogram;
use crate::functions::quantile::is_invalid;
use crate::plan::Grid;
use crate::plan::node::{Call, Site};

pub(crate) fn build<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
    let (vector, scalars, label) = match c.func {
        "histogram_quantile" => (1, 0..1, None),
        "histogram_quantiles" => (0, 2..c.args.len(), Some(text_arg(c, 1)?)),
        _ => (2, 0..2, None),
    };
    let mut params = Vec::new();
    for i in scalars {
        let site = c.arg_sites.get(i).copied().unwrap_or(c.site);
        params.push((b.scalar(arg(c, i)?, grid)?, site));
    }
    Ok(Box::new(OfBuckets {
        ctx: b.ctx,
        fraction: c.func == "histogram_fraction",
        input: Some(b.vector(arg(c, vector)?, grid)?),
        params,
        label,
        site: c.arg_sites.get(vector).copied().unwrap_or(c.site),
        grid,
    }))
}

struct OfBuckets<'q> {
    ctx: &'q Context<'q>,
    fraction: bool,
    input: Option<BoxOperator<'q>>,
    /// Quantiles, or the two bounds of a fraction.
    params: Vec<(Scalar<'q>, Site)>,
    /// Label that tells quantiles apart.
    label: Option<&'q str>,
    /// The vector.
    site: Site,
    grid: Grid,
}

/// Everything under one label set without `le`.
struct Family {
    labels: Labels,
    /// Bound and row of each classic bucket, sorted by bound.
    buckets: Vec<(f64, usize)>,
    /// Rows of native histograms, with their labels.
    native: Vec<usize>,
}

impl<'q> OfBuckets<'q> {
    /// Reads all rows and sorts them into families.
    fn read(&self, mut input: BoxOperator<'_>) -> Result<(Batch, Vec<Family>, HeldBytes<'q>)> {
        let (mut all, mut rows) = (Batch::new(), Batch::new());
        all.reset(self.grid.count);
        let mut bytes = self.ctx.memory.hold();
        let mut families: Vec<Family> = Vec::new();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut family = |labels: Labels| {
            *index.entry(labels.clone()).or_insert_with(|| {
                families.push(Family { labels, buckets: Vec::new(), native: Vec::new() });
                families.len() - 1
            })
        };
        let mut members: Vec<(usize, Option<f64>, usize)> = Vec::new();
        while input.next(&mut rows)? {
            self.ctx.check()?;
            self.ctx.hold(rows.samples())?;
            bytes.add(rows.bytes())?;
            for (i, head) in rows.heads.iter().enumerate() {
                let values = rows.row(i);
                if values.iter().all(|v| is_absent(*v)) {
                    continue;
                }
                let row = all.push_copy(head.clone(), &rows, i);
                if values.iter().any(|v| is_float(*v)) {
                    let le = head.labels.value(BUCKET_LABEL);
                    match parse_bound(le) {
                        Some(bound) => {
                            let at = family(head.labels.without(&[BUCKET_LABEL]));
                            members.push((at, Some(bound), row));
                        }
                        None => {
                            let name = self.note_name(&head.labels);
                            self.ctx.note(self.site, Note::BadBucketLabel { name, label: le });
                        }
                    }
                }
                if values.iter().any(|v| !is_float(*v) && !is_absent(*v)) {
                    members.push((family(head.labels.clone()), None, row));
                }
            }
        }
        for (at, bound, row) in members {
            match bound {
                Some(bound) => families[at].buckets.push((bound, row)),
                None => families[at].native.push(row),
            }
        }
        for f in &mut families {
            f.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Ok((all, families, bytes))
    }

    /// The name that annotations give: only where it is still there.
    fn note_name<'l>(&self, labels: &'l Labels) -> &'l str {
        if self.ctx.delayed_names() { labels.value(METRIC_NAME) } else { "" }
    }

    /// One row for each family and, with several quantiles, each of them.
    fn emit(
        &self,
        all: &Batch,
        f: &Family,
        params: &[Vec<f64>],
        label: Option<(&str, &str)>,
        out: &mut Batch,
    ) {
        let mut labels = self.ctx.drop_name(&f.labels);
        if let Some((name, value)) = label {
            labels = LabelsBuilder::from_labels(&labels).set(name, value).build();
        }
        let row = out.push_row(Head { labels, drop_name: true });
        let name = self.note_name(&f.labels);
        let mut buckets: Vec<LeBucket> = Vec::with_capacity(f.buckets.len());
        for (step, cell) in out.row_mut(row).iter_mut().enumerate() {
            buckets.clear();
            buckets.extend(f.buckets.iter().filter_map(|(upper, row)| {
                let count = all.row(*row)[step];
                is_float(count).then_some(LeBucket { upper: *upper, count })
            }));
            let native = f.native.iter().find_map(|r| match all.cell(*r, step) {
                Cell::Histogram(h) => Some(h),
                _ => None,
            });
            let value = match native {
                Some(_) if !buckets.is_empty() => {
                    self.ctx.note(self.site, Note::MixedClassicNative(name));
                    continue;
                }
                Some(h) => {
                    // Native histograms are told by name either way, as long as they have one.
                    let name = self.ctx.drop_name(&f.labels);
                    let name = name.metric_name();
                    let (value, note) = match self.fraction {
                        true => histogram::fraction(params[0][step], params[1][step], &h, name),
                        false => histogram::quantile(params[0][step], &h, name),
                    };
                    if let Some(note) = note {
                        self.ctx.note(self.site, note);
                    }
                    value
                }
                None if buckets.is_empty() => continue,
                None if self.fraction => bucket_fraction(params[0][step], params[1][step], &mut buckets),
                None => {
                    let (value, forced) = bucket_quantile(params[0][step], &mut buckets);
                    if let Some(forced) = forced {
                        self.ctx.note(
                            self.site,
                            Note::ForcedMonotonicity {
                                name,
                                ts_ms: self.grid.at(step),
                                min_bucket: forced.min_bucket,
                                max_bucket: forced.max_bucket,
                                max_diff: forced.max_diff,
                            },
                        );
                    }
                    value
                }
            };
            *cell = clean(value);
        }
    }
}

impl Operator for OfBuckets<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        out.reset(self.grid.count);
        let Some(input) = self.input.take() else { return Ok(false) };
        let mut params = Vec::new();
        for (scalar, site) in &mut self.params {
            let column = scalar.column()?;
            if !self.fraction {
                for q in column.iter().filter(|q| is_invalid(**q)) {
                    self.ctx.note(*site, Note::InvalidQuantile(*q));
                }
            }
            params.push(column);
        }
        let (all, families, mut bytes) = self.read(input)?;
        let copies = if self.label.is_some() { params.len() } else { 1 };
        bytes.add(rows_bytes(families.len() * copies, self.grid.count))?;
        // Native histograms come before classic ones.
        let order = || {
            let native = families.iter().filter(|f| !f.native.is_empty());
            native.chain(families.iter().filter(|f| f.native.is_empty()))
        };
        match self.label {
            None => {
                for f in order() {
                    self.ctx.check()?;
                    self.emit(&all, f, &params, None, out);
                }
            }
            Some(label) => {
                for column in &params {
                    let value = format_open_metrics(column.first().copied().unwrap_or(f64::NAN));
                    for f in order() {
                        self.ctx.check()?;
                        self.emit(&all, f, std::slice::from_ref(column), Some((label, &value)), out);
                    }
                }
            }
        }
        self.ctx.release(all.samples());
        if !self.ctx.delayed_names() {
            Duplicates::new(self.ctx).check(out)?;
        }
        Ok(true)
    }
}

/// A bound as Go's `ParseFloat` reads it.
fn parse_bound(le: &str) -> Option<f64> {
    let digits = le.trim_start_matches(['+', '-']);
    match digits.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => Some(if le.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        _ => le.parse().ok(),
    }
}
