//! The querier: a view on journal and chunks as one.
//!
//! A reader registers the sequence it sees up to. Samples of later batches are not visible in memory, and sealing does
//! not pass a reader, so chunks never hold what a reader must not see. For each batch of series the open samples are
//! copied first and the chunks looked up second: a sample that is being sealed is found at least once, and merged to once.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Chunk, Labels, LabelsResult, Matcher, Querier, RollupRequest, Samples, SelectHints, Series, SeriesSet,
    StorageError,
};
use roaring::RoaringTreemap;

use super::Inner;
use super::chunk::open_chunk;
use super::chunk_rows::ChunkRows;
use super::families::{RAW, SERIES, TS};
use super::keys::{Month, month_end_ms, month_start_ms, parse_sample_key, sample_key};
use super::rollup::RollupReader;
use super::rows::decode_series;
use super::seal::merge_all;
use super::select::{Selection, limited};

/// Series fetched at once: few at first, so that a query that stops early reads little.
const FIRST_BATCH: usize = 16;
const MAX_BATCH: usize = 256;
/// Chunk bytes after which a batch ends.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// With fewer series than this, label names and values come from labels rather than from postings.
const FEW_SERIES: u64 = 2048;

/// A reader's entry in the list of readers; taken off when dropped.
struct Registration {
    inner: Arc<Inner>,
    token: u64,
    seq: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.inner.readers.leave(self.token);
    }
}

pub(super) struct LongtermQuerier {
    view: Arc<Registration>,
    mint: i64,
    maxt: i64,
    /// What retention counts from.
    expiry_ms: i64,
    /// Whether `mint` is the begin of retention rather than what was asked for.
    clamped: bool,
}

impl LongtermQuerier {
    pub(super) fn new(inner: Arc<Inner>, mint: i64, maxt: i64) -> Self {
        let now_ms = inner.clock.now_ms();
        let asked = mint;
        let mint = mint.max(inner.oldest_ms(now_ms));
        let open = inner.open.read();
        let seq = open.published;
        let token = inner.readers.enter(seq, mint, now_ms);
        drop(open);
        let expiry_ms = inner.expiry_ms(now_ms);
        Self {
            view: Arc::new(Registration { inner, token, seq }),
            mint,
            maxt,
            expiry_ms,
            clamped: mint > asked,
        }
    }

    fn inner(&self) -> &Inner {
        &self.view.inner
    }

    /// Series that pass all matchers, sorted by labels.
    fn series(&self, matchers: &[Matcher]) -> Result<(Selection, Vec<(Labels, u64)>), StorageError> {
        let selection = self.inner().select(matchers, self.mint, self.maxt)?;
        let mut series = self.inner().labels_of_ids(&selection.all())?;
        if selection.check_labels {
            series.retain(|(labels, _)| Matcher::all_match(matchers, labels));
        }
        series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok((selection, series))
    }

    fn series_set(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<LongtermSeriesSet, StorageError> {
        let (selection, series) = self.series(matchers)?;
        Ok(LongtermSeriesSet {
            view: self.view.clone(),
            mint: self.mint,
            maxt: self.maxt,
            expiry_ms: self.expiry_ms,
            clamped: self.clamped,
            labels_only: hints.labels_only,
            months: selection.months,
            series,
            next: 0,
            batch_len: FIRST_BATCH,
            ready: Vec::new().into_iter(),
            rollup: None,
        })
    }
}

impl Querier for LongtermQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        Ok(Box::new(self.series_set(matchers, hints)?))
    }

    fn select_rollup(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
        request: &RollupRequest,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        let (mint, maxt) = (self.mint.max(hints.start_ms), self.maxt.min(hints.end_ms));
        let mut set = self.series_set(matchers, hints)?;
        if !hints.labels_only {
            set.rollup = RollupReader::new(request, mint, maxt);
        }
        Ok(Box::new(set))
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        if matchers.is_empty() {
            return Ok(limited(self.inner().index_names(self.mint, self.maxt)?, limit));
        }
        let (_, series) = self.series(matchers)?;
        let mut names = std::collections::BTreeSet::new();
        for (name, _) in series.iter().flat_map(|(labels, _)| labels.iter()) {
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        }
        Ok(limited(names.into_iter().collect(), limit))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError> {
        let inner = self.inner();
        if matchers.is_empty() {
            let months: Vec<_> =
                inner.months_in(self.mint, self.maxt).into_iter().map(|m| (m, None)).collect();
            return Ok(limited(inner.index_values(name, &months, limit)?, limit));
        }
        let selection = inner.select(matchers, self.mint, self.maxt)?;
        let all = selection.all();
        if selection.check_labels || all.len() <= FEW_SERIES {
            let series = inner.labels_of_ids(&all)?;
            let passing = series.iter().filter(|(labels, _)| Matcher::all_match(matchers, labels));
            let values: std::collections::BTreeSet<&str> =
                passing.filter_map(|(labels, _)| labels.get(name)).collect();
            return Ok(limited(values.into_iter().map(str::to_owned).collect(), limit));
        }
        let months: Vec<_> = selection.months.iter().map(|(m, ids)| (*m, Some(ids))).collect();
        Ok(limited(inner.index_values(name, &months, limit)?, limit))
    }
}

impl Inner {
    /// Labels of series, from memory or else from disk. Series that were removed meanwhile are left out.
    pub(super) fn labels_of_ids(&self, ids: &RoaringTreemap) -> Result<Vec<(Labels, u64)>, StorageError> {
        let mut out = Vec::with_capacity(ids.len() as usize);
        let all: Vec<u64> = ids.iter().collect();
        let mut unknown: Vec<[u8; 8]> = Vec::new();
        for slice in all.chunks(4096) {
            unknown.clear();
            {
                let open = self.open.read();
                for id in slice {
                    match open.by_id(*id) {
                        Some(series) => out.push((series.labels.clone(), *id)),
                        None => unknown.push(id.to_be_bytes()),
                    }
                }
            }
            let rows = self.db.batched_multi_get_cf(&self.cf(SERIES), unknown.iter(), true);
            for (key, row) in unknown.iter().zip(rows) {
                if let Some(row) = row.map_err(|e| self.error("read series of", &e))? {
                    out.push((decode_series(&row)?.0, u64::from_be_bytes(*key)));
                }
            }
        }
        Ok(out)
    }

    /// Labels of one series.
    pub(super) fn read_labels(&self, id: u64) -> Result<Option<Labels>, StorageError> {
        Ok(self.labels_of_ids(&std::iter::once(id).collect())?.pop().map(|(labels, _)| labels))
    }
}

struct LongtermSeriesSet {
    view: Arc<Registration>,
    mint: i64,
    maxt: i64,
    /// What retention counts from.
    expiry_ms: i64,
    clamped: bool,
    labels_only: bool,
    /// How series are answered, where they can be.
    rollup: Option<RollupReader>,
    months: BTreeMap<Month, RoaringTreemap>,
    series: Vec<(Labels, u64)>,
    next: usize,
    batch_len: usize,
    ready: std::vec::IntoIter<Series>,
}

impl SeriesSet for LongtermSeriesSet {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        loop {
            if let Some(series) = self.ready.next() {
                return Ok(Some(series));
            }
            if self.next == self.series.len() {
                return Ok(None);
            }
            let batch = if self.labels_only { self.fetch_labels() } else { self.fetch() };
            match batch {
                Ok(batch) => self.ready = batch.into_iter(),
                Err(e) => {
                    self.next = self.series.len();
                    return Err(e);
                }
            }
        }
    }
}

impl LongtermSeriesSet {
    /// The next series with samples, perhaps none of the next batch.
    fn fetch(&mut self) -> Result<Vec<Series>, StorageError> {
        let inner = &self.view.inner;
        let len = self.batch_len.min(self.series.len() - self.next);
        let batch = &self.series[self.next..self.next + len];
        self.batch_len = (2 * self.batch_len).min(MAX_BATCH);
        // Whoever reads the chunks clips to what was asked for, not to retention.
        let own: Vec<Option<i64>> = batch.iter().map(|(labels, _)| self.mint_of(labels)).collect();
        let open = self.open_samples(batch, &own);
        // Chunks and rollups as they are at one moment.
        let snapshot = inner.db.snapshot();
        let mut raw = ChunkRows::new(snapshot.raw_iterator_cf(&inner.cf(RAW)), || {
            snapshot.raw_iterator_cf(&inner.cf(TS))
        });
        let mut rows = self.rollup.as_ref().map(|r| snapshot.raw_iterator_cf(&inner.cf(r.family())));
        let mut out = Vec::with_capacity(len);
        let mut bytes = 0;
        let mut used = 0;
        for (((labels, id), open), own) in batch.iter().zip(open).zip(own) {
            used += 1;
            let (mint, clamped) = own.map_or((self.mint, self.clamped), |mint| (mint, true));
            if own.is_none()
                && let (Some(reader), Some(rows)) = (&mut self.rollup, &mut rows)
            {
                let months = self.months.iter().filter(|(_, ids)| ids.contains(*id)).map(|(m, _)| *m);
                if let Some(chunks) = reader.series(inner, rows, &mut raw, months, *id, &open)? {
                    bytes += chunks.iter().map(Chunk::size_bytes).sum::<usize>();
                    if !chunks.is_empty() {
                        out.push(Series { labels: labels.clone(), chunks });
                    }
                    if bytes >= MAX_BATCH_BYTES {
                        break;
                    }
                    continue;
                }
            }
            let sealed = self.sealed_chunks(&mut raw, *id, mint, clamped)?;
            bytes += sealed.iter().filter_map(Chunk::bytes).map(|b| b.len()).sum::<usize>();
            bytes += 16 * open.len();
            let chunks = combine(sealed, open, mint, self.maxt)?;
            if !chunks.is_empty() {
                out.push(Series { labels: labels.clone(), chunks });
            }
            if bytes >= MAX_BATCH_BYTES {
                break;
            }
        }
        self.next += used;
        Ok(out)
    }

    /// The open samples of some series, of each from a time of its own on.
    fn open_samples(&self, batch: &[(Labels, u64)], own: &[Option<i64>]) -> Vec<Samples> {
        let open = self.view.inner.open.read();
        let copy = |id, own: &Option<i64>| {
            let series = open.by_id(id)?;
            Some(series.copy(series.visible_len(self.view.seq), own.unwrap_or(self.mint), self.maxt))
        };
        batch.iter().zip(own).map(|((_, id), own)| copy(*id, own).unwrap_or_default()).collect()
    }

    /// As [`LongtermSeriesSet::fetch`], for labels alone: samples are looked at as far as it takes to know that there are some.
    fn fetch_labels(&mut self) -> Result<Vec<Series>, StorageError> {
        let inner = &self.view.inner;
        let len = self.batch_len.min(self.series.len() - self.next);
        let batch = &self.series[self.next..self.next + len];
        self.batch_len = (2 * self.batch_len).min(MAX_BATCH);
        let own: Vec<Option<i64>> = batch.iter().map(|(labels, _)| self.mint_of(labels)).collect();
        let is_open: Vec<bool> = {
            let open = inner.open.read();
            let has = |id, own: &Option<i64>| {
                let series = open.by_id(id)?;
                Some(series.has(series.visible_len(self.view.seq), own.unwrap_or(self.mint), self.maxt))
            };
            batch.iter().zip(&own).map(|((_, id), own)| has(*id, own).unwrap_or(false)).collect()
        };
        let snapshot = inner.db.snapshot();
        let mut raw = ChunkRows::new(snapshot.raw_iterator_cf(&inner.cf(RAW)), || {
            snapshot.raw_iterator_cf(&inner.cf(TS))
        });
        let mut out = Vec::with_capacity(len);
        for (((labels, id), is_open), own) in batch.iter().zip(is_open).zip(own) {
            let (mint, clamped) = own.map_or((self.mint, self.clamped), |mint| (mint, true));
            if is_open || self.certain(*id, mint) || {
                let sealed = self.sealed_chunks(&mut raw, *id, mint, clamped)?;
                any_sample(&sealed, mint, self.maxt)?
            } {
                out.push(Series { labels: labels.clone(), chunks: Vec::new() });
            }
        }
        self.next += len;
        Ok(out)
    }

    /// Whether a series surely has samples in range: it has some in a month that lies within.
    fn certain(&self, id: u64, mint: i64) -> bool {
        let within = |m: Month| month_start_ms(m) >= mint && month_end_ms(m) - 1 <= self.maxt;
        self.months.iter().any(|(m, ids)| within(*m) && ids.contains(id))
    }

    /// First timestamp of a series that its own retention leaves, when that is later than the set's.
    fn mint_of(&self, labels: &Labels) -> Option<i64> {
        let config = &self.view.inner.config;
        if config.rules.is_empty() {
            return None;
        }
        let mint = self.expiry_ms.saturating_sub(config.retention_of(labels));
        (mint > self.mint).then_some(mint)
    }

    /// The sealed chunks of a series that touch the range, in order; with `clamped`, without the samples before it.
    fn sealed_chunks(
        &self,
        raw: &mut ChunkRows<'_>,
        id: u64,
        mint: i64,
        clamped: bool,
    ) -> Result<Vec<Chunk>, StorageError> {
        let inner = &self.view.inner;
        let mut out = Vec::new();
        for month in self.months.iter().filter(|(_, ids)| ids.contains(id)).map(|(m, _)| *m) {
            if month_end_ms(month) <= mint {
                continue;
            }
            if mint > month_start_ms(month) {
                // The chunk that holds `mint` starts at or before it.
                raw.seek_for_prev(sample_key(month, id, mint));
                let found = raw.key().and_then(parse_sample_key);
                if found.is_none_or(|(m, i, _)| (m, i) != (month, id)) {
                    raw.status().map_err(|e| inner.raw_error(month, id, mint, &e))?;
                    raw.seek(sample_key(month, id, mint));
                }
            } else {
                raw.seek(sample_key(month, id, 0));
            }
            while let Some((m, i, start)) = raw.key().and_then(parse_sample_key) {
                if (m, i) != (month, id) || start > self.maxt {
                    break;
                }
                let whole = raw.whole();
                let (_, chunk) = whole.and_then(|whole| open_chunk(&whole)).map_err(|e| {
                    inner.metrics.corruptions.inc();
                    inner.read_error(month, id, start, e)
                })?;
                if chunk.maxt >= mint {
                    out.extend(if clamped { from_time(chunk, mint)? } else { Some(chunk) });
                }
                raw.next();
            }
            raw.status().map_err(|e| inner.raw_error(month, id, mint, &e))?;
        }
        Ok(out)
    }
}

/// A chunk without the samples before `mint`.
fn from_time(chunk: Chunk, mint: i64) -> Result<Option<Chunk>, StorageError> {
    if chunk.mint >= mint {
        return Ok(Some(chunk));
    }
    let mut samples = Samples::new();
    chunk.decode(mint, i64::MAX, &mut samples)?;
    samples.clip(mint, i64::MAX);
    Ok((!samples.is_empty()).then(|| Chunk::columns(Arc::new(samples))))
}

/// Sealed chunks and open samples of a series as chunks that do not overlap. Empty when no sample lies in range.
fn combine(sealed: Vec<Chunk>, open: Samples, mint: i64, maxt: i64) -> Result<Vec<Chunk>, StorageError> {
    let (Some(first), Some(last)) = (open.timestamps_ms.first(), open.timestamps_ms.last()) else {
        return if any_sample(&sealed, mint, maxt)? { Ok(sealed) } else { Ok(Vec::new()) };
    };
    let from = sealed.partition_point(|c| c.maxt < *first);
    let to = sealed.partition_point(|c| c.mint <= *last).max(from);
    let mut merged = open;
    if from < to {
        // Late samples, or a sealing under way: what is sealed came first and counts.
        let mut old = Samples::new();
        for chunk in &sealed[from..to] {
            chunk.decode(i64::MIN, i64::MAX, &mut old)?;
        }
        merged = merge_all(&old, &merged);
        model::histogram::settle_hints(&mut merged, 0);
    }
    let mut out = sealed;
    out.splice(from..to, [Chunk::columns(Arc::new(merged))]);
    Ok(out)
}

/// Whether a chunk has a sample in range. Nearly always its ends tell.
fn any_sample(chunks: &[Chunk], mint: i64, maxt: i64) -> Result<bool, StorageError> {
    if chunks.iter().any(|c| (c.mint >= mint && c.mint <= maxt) || (c.maxt >= mint && c.maxt <= maxt)) {
        return Ok(true);
    }
    let mut samples = Samples::new();
    for c in chunks {
        samples.clear();
        c.decode(mint, maxt, &mut samples)?;
        if samples.timestamps_ms.iter().any(|t| *t >= mint && *t <= maxt) {
            return Ok(true);
        }
    }
    Ok(false)
}
