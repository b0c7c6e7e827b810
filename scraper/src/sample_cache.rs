//! The memory of a target between scrapes when its body comes as samples ([`crate::exposition::samples`]).
//!
//! The counterpart of [`crate::cache`], which is for plain text. It expects the series of the last scrape in their order: a
//! metric whose labels have the bytes of the one expected costs one comparison, and each further sample of it the comparison
//! of two numbers. Only what differs is looked up, and only what is new gets labels. `sample_cache/table.rs` has the tables.
//!
//! Series that counted at the last completed scrape and did not now become stale; after a failed scrape that is all of them.

mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use model::histogram::bounds::EXPONENTIAL_SCHEMA_MIN;
use model::histogram::is_exponential_schema;
use model::labels::LabelsWriter;
use model::{
    AppendError, Appender, Exemplar, HistogramValue, Labels, Sample, SampleValue, SeriesRef, stale_nan,
};

use crate::cache::metadata::{Fact, FamilyId, is_part_of};
use crate::cache::{MAX_AHEAD_MS, MetadataStore, ScrapeCounts};
use crate::cardinality::Refusal;
use crate::error::ScrapeFailure;
use crate::exposition::samples::{FamilyFacts, Item, SampleSource, Value};
use crate::exposition::{self, Entry, Format, Pair};
use crate::sample_labels::{SampleRules, add_type_and_unit};
use table::{NONE, Table};

/// Entries that failed scrapes may leave behind, beside doubling.
const ENTRIES_SLACK: usize = 1000;
/// Bytes of keys above which failed scrapes leave nothing behind. Offsets are 32 bits wide, and one body adds 512 MiB.
const KEY_BYTES_MAX: usize = 1 << 30;
/// Families are looked at for having gone away every so many scrapes.
const EXPIRY_PERIOD: u32 = 16;

/// Series of one target.
pub(crate) struct SampleCache {
    /// Number of the scrape under way or of the last one. Never 0.
    scrape: u32,
    table: Table,
    /// Entries of the last completed scrape in the order of their samples.
    order: Vec<u32>,
    /// Entries with `was_tracked`.
    tracked: usize,
    successful_len: usize,
    forced_flushes: u64,
    metadata: Arc<MetadataStore>,
}

/// One walk over a body.
struct Run<'a, 'r> {
    rules: &'r SampleRules,
    app: &'r mut dyn Appender,
    format: Option<Format>,
    timestamp_ms: i64,
    /// Later samples are out of bounds.
    latest_ms: i64,
    counts: ScrapeCounts,
    samples_left: usize,
    over_sample_limit: bool,
    over_bucket_limit: bool,
    /// Tracked series that were tracked at the last scrape, and others.
    kept: usize,
    newly: usize,
    /// The expected place in the order.
    place: usize,
    /// Order of this scrape, once it differs from the last one.
    fresh: Option<Vec<u32>>,
    /// Metric of the sample before.
    metric: u32,
    /// Family in force, and the one that keys are relative to.
    family: Option<FamilyId>,
    key_family: u32,
    family_is_news: bool,
    pairs: Vec<Pair<'a>>,
    writer: LabelsWriter,
    exemplars: Vec<Exemplar>,
}

impl SampleCache {
    /// An empty cache that goes on with what is known of families.
    pub(crate) fn new(metadata: Arc<MetadataStore>, scrape: u32, forced_flushes: u64) -> Self {
        Self {
            scrape,
            table: Table::new(),
            order: Vec::new(),
            tracked: 0,
            successful_len: 0,
            forced_flushes,
            metadata,
        }
    }

    pub(crate) fn metadata(&self) -> Arc<MetadataStore> {
        self.metadata.clone()
    }

    pub(crate) fn forced_flushes(&self) -> u64 {
        self.forced_flushes
    }

    pub(crate) fn scrape(&self) -> u32 {
        self.scrape
    }

    /// Walks a body and appends its samples, and stale markers for what is gone. `format` is that of text. The counts hold
    /// also when the scrape failed; the caller then rolls `app` back and calls [`SampleCache::append_stale`] with a new one.
    pub(crate) fn append<'a>(
        &mut self,
        mut source: impl SampleSource<'a>,
        format: Option<Format>,
        timestamp_ms: i64,
        rules: &SampleRules,
        app: &mut dyn Appender,
    ) -> (ScrapeCounts, Result<(), ScrapeFailure>) {
        self.begin();
        let mut run = Run {
            rules,
            app,
            format,
            timestamp_ms,
            latest_ms: timestamp_ms.saturating_add(MAX_AHEAD_MS),
            counts: ScrapeCounts::default(),
            samples_left: if rules.sample_limit == 0 { usize::MAX } else { rules.sample_limit },
            over_sample_limit: false,
            over_bucket_limit: false,
            kept: 0,
            newly: 0,
            place: 0,
            fresh: None,
            metric: NONE,
            family: None,
            key_family: NONE,
            family_is_news: false,
            pairs: Vec::new(),
            writer: LabelsWriter::new(),
            exemplars: Vec::new(),
        };
        let result = self.walk(&mut source, &mut run).and_then(|()| {
            if run.over_sample_limit {
                return Err(ScrapeFailure::SampleLimit);
            }
            if run.over_bucket_limit {
                return Err(ScrapeFailure::BucketLimit);
            }
            self.complete(&mut run)
        });
        if result.is_err() {
            self.limit_leftovers();
        }
        (run.counts, result)
    }

    fn walk<'a, S: SampleSource<'a>>(
        &mut self,
        source: &mut S,
        run: &mut Run<'a, '_>,
    ) -> Result<(), ScrapeFailure> {
        while let Some(item) = source.next()? {
            match item {
                Item::Family(facts) => self.note_family(run, &facts),
                Item::Fact(entry) => self.note_fact(run, &entry),
                Item::Sample { value, timestamp_ms } => self.sample(source, run, value, timestamp_ms)?,
            }
        }
        Ok(())
    }

    // === Metadata ===

    fn note_family(&mut self, run: &mut Run<'_, '_>, facts: &FamilyFacts<'_>) {
        let mut families = self.metadata.lock();
        let name = facts.name.as_bytes();
        let (id, mut news) = families.set(name, &Fact::Help(facts.help), self.scrape);
        if !facts.unit.is_empty() {
            news |= families.set(name, &Fact::Unit(facts.unit.as_bytes()), self.scrape).1;
        }
        news |= families.set(name, &Fact::Type(facts.metric_type), self.scrape).1;
        run.family = Some(id);
        run.key_family = id;
        run.family_is_news = news && run.rules.append_metadata;
    }

    fn note_fact(&mut self, run: &mut Run<'_, '_>, entry: &Entry<'_>) {
        let help;
        let (family, fact) = match entry {
            Entry::Type { family, metric_type } => (family, Fact::Type(*metric_type)),
            Entry::Help { family, text } => {
                help = run.format.map_or((*text).into(), |f| exposition::unescape_help(f, text));
                (family, Fact::Help(&help))
            }
            Entry::Unit { family, unit } => (family, Fact::Unit(unit)),
            Entry::Comment(_) | Entry::Series(_) => return,
        };
        let (id, news) = self.metadata.lock().set(family, &fact, self.scrape);
        let still_news = run.family_is_news && run.family == Some(id);
        run.family_is_news = run.rules.append_metadata && (news || still_news);
        run.family = Some(id);
    }

    // === Samples ===

    /// The series of the sample: the expected one, or one that is looked up.
    fn find<'a, S: SampleSource<'a>>(&mut self, source: &S, run: &mut Run<'a, '_>) -> Option<u32> {
        let key = source.key();
        if let Some(id) = self.order.get(run.place).copied() {
            let e = self.table.get(id);
            let hit = if key.same_metric {
                e.metric == run.metric && e.part == key.part
            } else {
                self.table.is(id, run.key_family, key.labels, key.part)
            };
            if hit {
                run.metric = e.metric;
                run.place += 1;
                if let Some(fresh) = &mut run.fresh {
                    fresh.push(id);
                }
                return Some(id);
            }
        }
        let before = &self.order[..run.place];
        let fresh = run.fresh.get_or_insert_with(|| before.to_vec());
        if !key.same_metric {
            run.metric = self.table.metric(run.key_family, key.labels);
        }
        let id = self.table.find(run.metric, key.part)?;
        fresh.push(id);
        let place = self.table.get(id).place;
        if place != NONE {
            run.place = place as usize + 1;
        }
        Some(id)
    }

    fn sample<'a, S: SampleSource<'a>>(
        &mut self,
        source: &mut S,
        run: &mut Run<'a, '_>,
        value: Value,
        timestamp_ms: Option<i64>,
    ) -> Result<(), ScrapeFailure> {
        run.counts.scraped += 1;
        let known = self.find(source, run);
        let timestamp_ms = timestamp_ms.filter(|_| run.rules.honor_timestamps);
        let mut series = SeriesRef::NONE;
        let mut labels = None;
        let mut needs_seat = known.is_none();
        match known {
            Some(id) => {
                let e = self.table.get_mut(id);
                let seen_already = e.seen == self.scrape;
                e.seen = self.scrape;
                let refusal = e.refusal;
                if e.dropped && refusal == Refusal::None {
                    return Ok(());
                }
                if seen_already && timestamp_ms.is_none() {
                    run.counts.post_relabel += 1;
                    run.counts.duplicates += 1;
                    return Ok(());
                }
                series = e.series;
                if refusal != Refusal::None {
                    if run.rules.seats.as_ref().is_some_and(|s| !s.may_take(refusal)) {
                        run.leave_out();
                        return Ok(());
                    }
                    needs_seat = true;
                    labels = run.labels(source, &self.metadata)?;
                }
            }
            None => match run.labels(source, &self.metadata)? {
                Some(l) => labels = Some(l),
                None => {
                    let id = self.insert(source, run, SeriesRef::NONE);
                    self.table.drop_series(id, Refusal::None);
                    return Ok(());
                }
            },
        }
        if needs_seat
            && let (Some(seats), Some(labels)) = (&run.rules.seats, &labels)
            && let refusal = seats.take(labels)
            && refusal != Refusal::None
        {
            run.leave_out();
            let id = known.unwrap_or_else(|| self.insert(source, run, SeriesRef::NONE));
            self.table.drop_series(id, refusal);
            return Ok(());
        }
        if let Some(id) = known.filter(|_| needs_seat) {
            self.table.readmit(id);
        }
        run.counts.post_relabel += 1;
        let at = timestamp_ms.unwrap_or(run.timestamp_ms);
        let Some(stored) = run.store(source, &self.metadata, series, &mut labels, at, value)? else {
            return Ok(());
        };
        let id = match known {
            Some(id) => id,
            None => self.insert(source, run, stored),
        };
        run.counts.series_added +=
            usize::from(needs_seat && !run.over_sample_limit && !run.over_bucket_limit);
        let e = self.table.get_mut(id);
        e.series = stored;
        if timestamp_ms.is_none() || run.rules.track_timestamps_staleness {
            if e.tracked != self.scrape {
                *(if e.was_tracked { &mut run.kept } else { &mut run.newly }) += 1;
            }
            e.tracked = self.scrape;
        }
        self.append_extras(source, run, stored, at, labels.as_ref(), needs_seat);
        Ok(())
    }

    fn insert<'a, S: SampleSource<'a>>(
        &mut self,
        source: &S,
        run: &mut Run<'a, '_>,
        series: SeriesRef,
    ) -> u32 {
        let id = self.table.insert(run.metric, source.key().part, series);
        self.table.get_mut(id).seen = self.scrape;
        if let Some(fresh) = &mut run.fresh {
            fresh.push(id);
        }
        id
    }

    /// Exemplars and metadata, whose refusal never fails a scrape.
    fn append_extras<'a, S: SampleSource<'a>>(
        &self,
        source: &mut S,
        run: &mut Run<'a, '_>,
        series: SeriesRef,
        timestamp_ms: i64,
        labels: Option<&Labels>,
        is_new: bool,
    ) {
        run.exemplars.clear();
        source.exemplars(&mut run.exemplars);
        if !run.exemplars.is_empty() {
            run.append_exemplars(series, timestamp_ms);
        }
        if !run.rules.append_metadata || !(is_new || run.family_is_news) {
            return;
        }
        let Some((family, metadata)) = run.family.and_then(|f| self.metadata.get(f)) else { return };
        let exposed_name;
        let metric = match labels {
            Some(l) => l.metric_name(),
            None => {
                run.pairs.clear();
                if source.labels(&mut run.pairs).is_err() {
                    return;
                }
                exposed_name = run.pairs.first().map(|p| p.1.clone()).unwrap_or_default();
                exposed_name.as_ref()
            }
        };
        if is_part_of(metric, &family, metadata.metric_type) {
            // The sample itself is stored; metadata comes again with the next change.
            let _ = run.app.append_metadata(series, &metadata);
        }
    }

    // === The end of a scrape ===

    /// Series that it holds, and those that it leaves out for want of a seat.
    pub(crate) fn seated(&self) -> (usize, usize) {
        self.table.seated()
    }

    fn begin(&mut self) {
        self.scrape = self.scrape.wrapping_add(1).max(1);
    }

    /// Writes stale markers for what is gone and makes this scrape the one to compare with.
    fn complete(&mut self, run: &mut Run<'_, '_>) -> Result<(), ScrapeFailure> {
        let scrape = self.scrape;
        if scrape.is_multiple_of(EXPIRY_PERIOD) {
            self.metadata.expire(scrape);
        }
        let same_order = run.fresh.is_none() && run.place == self.order.len();
        let leftovers = self.table.len() > self.successful_len;
        if same_order && run.newly == 0 && run.kept == self.tracked && !leftovers {
            return Ok(());
        }
        if run.kept < self.tracked {
            // A series may go on under other bytes: what its reference says counts.
            let going_on = self.tracked_at(scrape);
            for e in self.table.iter().filter(|e| e.was_tracked && e.tracked != scrape) {
                if !going_on.contains(&e.series) {
                    append_marker(e.series, run.timestamp_ms, run.app)?;
                }
            }
        }
        self.tracked = 0;
        for e in self.table.iter_mut() {
            e.was_tracked = e.tracked == scrape;
            self.tracked += usize::from(e.was_tracked);
        }
        if !same_order {
            match run.fresh.take() {
                Some(fresh) => self.order = fresh,
                None => self.order.truncate(run.place),
            }
            self.table.retain(|e| e.seen == scrape);
            for e in self.table.iter_mut() {
                e.place = NONE;
            }
            for (place, id) in self.order.iter().enumerate().rev() {
                self.table.get_mut(*id).place = place as u32;
            }
            self.metadata.expire(scrape);
        }
        if same_order && leftovers {
            // Of failed scrapes; the order has none of them.
            self.table.retain(|e| e.seen == scrape);
        }
        self.successful_len = self.table.len();
        Ok(())
    }

    fn tracked_at(&self, scrape: u32) -> HashSet<SeriesRef> {
        self.table.iter().filter(|e| e.tracked == scrape).map(|e| e.series).collect()
    }

    /// Series that count after the last scrape.
    pub(crate) fn tracked_refs(&self) -> HashSet<SeriesRef> {
        self.table.iter().filter(|e| e.was_tracked).map(|e| e.series).collect()
    }

    /// Appends a stale marker for every series that counts, but for those of `except`.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append_stale(
        &mut self,
        timestamp_ms: i64,
        except: &HashSet<SeriesRef>,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        self.begin();
        for e in self.table.iter_mut().filter(|e| e.was_tracked) {
            e.was_tracked = false;
            if !except.contains(&e.series) {
                append_marker(e.series, timestamp_ms, app)?;
            }
        }
        self.tracked = 0;
        self.limit_leftovers();
        Ok(())
    }

    /// Failed scrapes may leave entries behind, which a target with ever new series would let grow without bound.
    fn limit_leftovers(&mut self) {
        let many = self.successful_len * 2 + ENTRIES_SLACK;
        if self.table.len().max(self.table.metrics_len()) > many || self.table.key_bytes() > KEY_BYTES_MAX {
            self.table.retain(|e| e.place != NONE);
            self.forced_flushes += 1;
        }
    }
}

/// A stale marker. That the store has a newer sample, or no longer knows the series, is as good.
fn append_marker(series: SeriesRef, timestamp_ms: i64, app: &mut dyn Appender) -> Result<(), ScrapeFailure> {
    if series == SeriesRef::NONE {
        return Ok(());
    }
    match app.append_float(series, timestamp_ms, stale_nan()) {
        Err(AppendError::Storage(e)) => Err(e.into()),
        _ => Ok(()),
    }
}

impl<'a> Run<'a, '_> {
    /// Counts a sample whose series has no seat.
    fn leave_out(&mut self) {
        self.counts.post_relabel += 1;
        if self.samples_left == 0 {
            self.over_sample_limit = true;
            return;
        }
        self.samples_left -= 1;
        self.counts.refused += 1;
    }

    /// Labels of the stored series for the last sample; `None` when relabeling drops it.
    fn labels<S: SampleSource<'a>>(
        &mut self,
        source: &S,
        metadata: &MetadataStore,
    ) -> Result<Option<Labels>, ScrapeFailure> {
        self.pairs.clear();
        source.labels(&mut self.pairs)?;
        if self.rules.type_and_unit_labels {
            let unit = self.family.and_then(|f| metadata.unit(f));
            add_type_and_unit(&mut self.pairs, source.metric_type(), &unit.unwrap_or_default());
        }
        self.rules.series_labels(&mut self.pairs, &mut self.writer)
    }

    /// Appends by reference, or by labels where there is none that counts. `None` when the sample was refused.
    fn store<S: SampleSource<'a>>(
        &mut self,
        source: &mut S,
        metadata: &MetadataStore,
        series: SeriesRef,
        labels: &mut Option<Labels>,
        timestamp_ms: i64,
        value: Value,
    ) -> Result<Option<SeriesRef>, ScrapeFailure> {
        let value = match value {
            Value::Float(v) => SampleValue::Float(v),
            Value::Histogram(h) => match self.limited(h) {
                Some(h) => SampleValue::Histogram(h),
                None => return Ok(None),
            },
        };
        if self.samples_left == 0 {
            // Parsing goes on, so that the report tells how many samples there were.
            self.over_sample_limit = true;
            return Ok(None);
        }
        self.samples_left -= 1;
        if timestamp_ms > self.latest_ms {
            self.counts.out_of_bounds += 1;
            return Ok(None);
        }
        let start_ms = if self.rules.starts.read { source.start_ms() } else { 0 };
        let sample = Sample { timestamp_ms, start_timestamp_ms: start_ms, value };
        let by_ref = match sample.value {
            _ if series == SeriesRef::NONE => Err(AppendError::UnknownRef),
            SampleValue::Float(v) if start_ms == 0 => {
                self.app.append_float(series, timestamp_ms, v).map(|()| series)
            }
            // Labels are not looked at as long as the reference is valid.
            _ => self.append(series, &Labels::empty(), &sample),
        };
        let result = match by_ref {
            Err(AppendError::UnknownRef | AppendError::InvalidLabels(_)) => {
                if labels.is_none() {
                    *labels = self.labels(source, metadata)?;
                }
                let Some(labels) = labels else { return Ok(None) };
                self.append(SeriesRef::NONE, labels, &sample)
            }
            result => result,
        };
        match result {
            Ok(series) => Ok(Some(series)),
            Err(e) => self.counts.refuse(e).map(|()| None),
        }
    }

    /// Appends the sample, and before it a zero where the counter began, if that is wanted.
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: &Sample,
    ) -> Result<SeriesRef, AppendError> {
        if self.rules.starts.as_zeros && sample.start_timestamp_ms != 0 {
            self.app.append_start_as_zero(series, labels, sample)?;
        }
        self.app.append(series, labels, sample.clone())
    }

    /// The histogram within the limits of resolution and buckets; `None` when it cannot be.
    fn limited(&mut self, mut h: HistogramValue) -> Option<HistogramValue> {
        if let Some(schema) = self.rules.schema_max
            && is_exponential_schema(schema_of(&h))
            && schema_of(&h) > schema
        {
            reduce(&mut h, schema)?;
        }
        let limit = self.rules.bucket_limit;
        while limit > 0 && buckets_of(&h) > limit {
            let schema = schema_of(&h);
            if !is_exponential_schema(schema)
                || schema <= EXPONENTIAL_SCHEMA_MIN
                || reduce(&mut h, schema - 1).is_none()
            {
                self.over_bucket_limit = true;
                return None;
            }
        }
        Some(h)
    }

    fn append_exemplars(&mut self, series: SeriesRef, timestamp_ms: i64) {
        // One without a timestamp gets that of the sample, unless the store sees that it only repeats the last one.
        let time = |e: &Exemplar| e.timestamp_ms.unwrap_or(timestamp_ms);
        self.exemplars.sort_by(|a, b| {
            let by_value = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal);
            time(a)
                .cmp(&time(b))
                .then_with(|| by_value(a.value, b.value))
                .then_with(|| a.labels.cmp(&b.labels))
        });
        let out_of_order = |e: &Exemplar| {
            let result = self.app.append_exemplar(series, e);
            matches!(result, Err(AppendError::OutOfOrder))
        };
        let refused = self.exemplars.iter().map(out_of_order).filter(|refused| *refused).count();
        // Where some are new, the others are just those of the scrape before.
        if refused == self.exemplars.len() {
            self.counts.exemplars_refused += refused;
        }
    }
}

fn schema_of(h: &HistogramValue) -> i32 {
    match h {
        HistogramValue::Int(h) => h.schema,
        HistogramValue::Float(h) => h.schema,
    }
}

fn buckets_of(h: &HistogramValue) -> usize {
    match h {
        HistogramValue::Int(h) => h.positive_buckets.len() + h.negative_buckets.len(),
        HistogramValue::Float(h) => h.positive_buckets.len() + h.negative_buckets.len(),
    }
}

fn reduce(h: &mut HistogramValue, schema: i32) -> Option<()> {
    match h {
        HistogramValue::Int(h) => Arc::make_mut(h).reduce_resolution(schema).ok(),
        HistogramValue::Float(h) => Arc::make_mut(h).reduce_resolution(schema).ok(),
    }
}
