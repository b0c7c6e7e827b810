//! `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`: of native histograms and of the series of classic
//! ones, which are brought together by their labels without `le`.
//!
//! Several quantiles of one classic histogram are taken of the same buckets: what the first one mended, the next one finds
//! mended.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile> and the sections about
//! `histogram_quantiles()` and `histogram_fraction()`.

use std::collections::{BTreeMap, HashMap};

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
use crate::functions::classic_histogram::{Forced, LeBucket, bucket_fraction, bucket_quantile};
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

    /// The rows of a family: one, or with several quantiles one for each of them.
    fn emit(
        &self,
        all: &Batch,
        f: &Family,
        params: &[Vec<f64>],
        mending: &mut Mending,
        out: &mut Rows,
    ) -> Result<()> {
        let labels = self.ctx.drop_name(&f.labels);
        let name = self.note_name(&f.labels);
        let mut buckets: Vec<LeBucket> = Vec::with_capacity(f.buckets.len());
        for step in 0..self.grid.count {
            buckets.clear();
            buckets.extend(f.buckets.iter().filter_map(|(upper, row)| {
                let count = all.row(*row)[step];
                is_float(count).then_some(LeBucket { upper: *upper, count })
            }));
            let native = f.native.iter().find_map(|r| match all.cell(*r, step) {
                Cell::Histogram(h) => Some(h),
                _ => None,
            });
            match native {
                Some(_) if !buckets.is_empty() => self.ctx.note(self.site, Note::MixedClassicNative(name)),
                Some(h) => {
                    // Native histograms are told by name either way, as long as they have one.
                    let name = labels.metric_name();
                    let tell = |(value, note): (f64, Option<Note<'_>>)| {
                        note.into_iter().for_each(|note| self.ctx.note(self.site, note));
                        value
                    };
                    if self.fraction {
                        let value = tell(histogram::fraction(params[0][step], params[1][step], &h, name));
                        out.put(&labels, (0, None), step, value)?;
                        continue;
                    }
                    for (i, q) in params.iter().enumerate() {
                        let value = tell(histogram::quantile(q[step], &h, name));
                        out.put(&labels, (i, Some(q[step])), step, value)?;
                    }
                }
                None if buckets.is_empty() => {}
                None if self.fraction => {
                    let value = bucket_fraction(params[0][step], params[1][step], &mut buckets);
                    out.put(&labels, (0, None), step, value)?;
                }
                None => {
                    for (i, q) in params.iter().enumerate() {
                        let (value, forced) = bucket_quantile(q[step], &mut buckets);
                        if let Some(forced) = forced {
                            mending.add(name, step, forced);
                        }
                        out.put(&labels, (i, Some(q[step])), step, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells what was mended.
    fn tell_mending(&self, mending: &Mending) {
        for (name, m) in &mending.by_name {
            let touched =
                || m.by_step.iter().enumerate().filter(|(_, n)| **n > 0).map(|(step, _)| self.grid.at(step));
            let (Some(first), Some(last)) = (touched().next(), touched().next_back()) else { continue };
            self.ctx.note(
                self.site,
                Note::ForcedMonotonicity {
                    name,
                    times_ms: (first, last),
                    min_bucket: m.worst.min_bucket,
                    max_bucket: m.worst.max_bucket,
                    max_diff: m.worst.max_diff,
                    samples: samples_told(&m.by_step),
                },
            );
        }
    }
}

/// The number of samples that an info about mended buckets gives: over several steps each one counts again what was
/// told before.
fn samples_told(by_step: &[i64]) -> i64 {
    let steps = by_step.iter().skip_while(|n| **n == 0);
    steps.copied().reduce(|told, more| told.wrapping_add(more).wrapping_mul(2)).unwrap_or(0)
}

/// Buckets that had to be mended, by the name that is told.
struct Mending {
    by_name: BTreeMap<String, Mended>,
    steps: usize,
}

struct Mended {
    /// Histograms mended, by step.
    by_step: Vec<i64>,
    worst: Forced,
}

impl Mending {
    fn add(&mut self, name: &str, step: usize, forced: Forced) {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Mended { by_step: vec![0; self.steps], worst: forced });
        }
        if let Some(m) = self.by_name.get_mut(name) {
            m.by_step[step] += 1;
            m.worst.min_bucket = m.worst.min_bucket.min(forced.min_bucket);
            m.worst.max_bucket = m.worst.max_bucket.max(forced.max_bucket);
            m.worst.max_diff = m.worst.max_diff.max(forced.max_diff);
        }
    }
}

/// The rows that are made, one for each family, each quantile and each text of its label.
struct Rows<'q> {
    label: Option<&'q str>,
    batch: Batch,
    /// Of each row, the number of the quantile.
    quantile: Vec<usize>,
    /// Rows of the family at hand.
    of_family: HashMap<(usize, u64), usize>,
    bytes: HeldBytes<'q>,
}

impl Rows<'_> {
    fn put(
        &mut self,
        labels: &Labels,
        (quantile, q): (usize, Option<f64>),
        step: usize,
        value: f64,
    ) -> Result<()> {
        let q = q.filter(|_| self.label.is_some());
        // All NaNs have the same text.
        let bits = q.map_or(0, |q| if q.is_nan() { u64::MAX } else { q.to_bits() });
        let row = match self.of_family.get(&(quantile, bits)) {
            Some(row) => *row,
            None => {
                let labels = match (self.label, q) {
                    (Some(name), Some(q)) => {
                        LabelsBuilder::from_labels(labels).set(name, &format_open_metrics(q)).build()
                    }
                    _ => labels.clone(),
                };
                self.bytes.add(rows_bytes(1, self.batch.steps()))?;
                let row = self.batch.push_row(Head { labels, drop_name: true });
                self.quantile.push(quantile);
                self.of_family.insert((quantile, bits), row);
                row
            }
        };
        self.batch.row_mut(row)[step] = clean(value);
        Ok(())
    }

    /// All rows, quantile after quantile.
    fn into_batch(mut self) -> Result<Batch> {
        if self.quantile.is_sorted() {
            return Ok(self.batch);
        }
        self.bytes.add(self.batch.bytes())?;
        let mut order: Vec<usize> = (0..self.batch.rows()).collect();
        order.sort_by_key(|row| self.quantile[*row]);
        let mut out = Batch::new();
        out.reset(self.batch.steps());
        for row in order {
            out.push_copy(self.batch.heads[row].clone(), &self.batch, row);
        }
        Ok(out)
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
        let (all, families, _bytes) = self.read(input)?;
        // Native histograms come before classic ones.
        let order = || {
            let native = families.iter().filter(|f| !f.native.is_empty());
            native.chain(families.iter().filter(|f| f.native.is_empty()))
        };
        let mut made = Rows {
            label: self.label,
            batch: Batch::new(),
            quantile: Vec::new(),
            of_family: HashMap::new(),
            bytes: self.ctx.memory.hold(),
        };
        made.batch.reset(self.grid.count);
        let mut mending = Mending { by_name: BTreeMap::new(), steps: self.grid.count };
        for f in order() {
            self.ctx.check()?;
            made.of_family.clear();
            self.emit(&all, f, &params, &mut mending, &mut made)?;
        }
        self.tell_mending(&mending);
        *out = made.into_batch()?;
        self.ctx.release(all.samples());
        if !self.ctx.delayed_names() || self.grid.is_range {
            Duplicates::new(self.ctx).check(out)?;
        }
        Ok(true)
    }
}

/// A bound as Go's `ParseFloat` reads it: a number that is too large for a float is none.
fn parse_bound(le: &str) -> Option<f64> {
    let digits = le.strip_prefix(['+', '-']).unwrap_or(le);
    match digits.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => Some(if le.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        "nan" => (digits.len() == le.len()).then_some(f64::NAN),
        _ => le.parse().ok().filter(|v: &f64| v.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_go_reads_them() {
        assert_eq!(parse_bound("+Inf"), Some(f64::INFINITY));
        assert_eq!(parse_bound("-infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_bound("1e-400"), Some(0.0));
        assert!(parse_bound("NaN").is_some_and(f64::is_nan));
        for bad in ["", "+-Inf", "1e400", "+NaN", "x", "1 "] {
            assert_eq!(parse_bound(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_step_tells_what_was_told_before() {
        assert_eq!(samples_told(&[0, 2]), 2);
        assert_eq!(samples_told(&[1, 1, 1, 1, 1]), 46);
        assert_eq!(samples_told(&[1, 0, 0]), 4);
        assert_eq!(samples_told(&[0, 0]), 0);
    }
}
