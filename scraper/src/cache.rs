//! The hot path of scraping: *same body, new numbers*.
//!
//! A target writes the same lines in the same order every time; only the values change. [`ScrapeCache`] remembers, per
//! sample of the last scrape, the bytes from the end of the sample before up to the value (comments included) and the
//! reference of the stored series. While the body agrees, a sample costs one comparison, one float and one
//! [`Appender::append_float`]: no lexing, no hashing, no allocation. Where it disagrees, one sample is parsed and
//! looked up by its bytes (`cache/entries.rs`), or seen for the first time and given labels (`sample_labels.rs`), and
//! prediction goes on behind the place where that sample stood before. Bench: `benches/scrape_parse.rs`.
//!
//! The cache also knows what must become stale: series that counted at the last completed scrape and did not now. After
//! a failed scrape that is all of them.
//!
//! Invariants: a line's entry is live; each live entry has been seen by the last completed scrape or by a failed one since;
//! `arena` holds the chunk of every line and the key of every entry.

mod entries;
mod metadata;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use model::labels::{LabelsWriter, TYPE_LABEL, UNIT_LABEL};
use model::{AppendError, Appender, Exemplar, Labels, MetricType, Sample, SeriesRef, stale_nan};

use crate::error::ScrapeFailure;
use crate::exposition::{self, Format, Pair, Parser, Tail, short_value};
use crate::sample_labels::SampleRules;
use entries::{Entries, NONE, Slice};
use metadata::{Fact, Families, FamilyId, is_part_of};

pub use metadata::MetadataStore;

/// Samples further ahead of the clock are refused.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;
/// Room for metric families that a first scrape makes at most in advance: bodies may have few of them.
const FAMILIES_EXPECTED_MAX: usize = 512;
/// Offsets into the arena are 32 bits wide.
const BODY_LEN_BYTES_MAX: usize = 512 << 20;
/// Below this the arena is not worth compacting.
const ARENA_SLACK_BYTES: usize = 64 << 10;
/// Entries that failed scrapes may leave behind, beside doubling.
const ENTRIES_SLACK: usize = 1000;

/// One sample of the last completed scrape.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// From the end of the sample before to the value.
    chunk: Slice,
    /// The series; [`NONE`] when its first sample was refused.
    entry: u32,
    /// Families whose metadata the chunk holds: range of `family_lists`.
    families_start: u32,
    families_len: u16,
    /// Bytes between series and value; the key is what precedes them in the chunk.
    separator_len: u8,
    /// Whether an equal chunk surely means the same series.
    predictable: bool,
    /// Its sample counted for staleness; on the first line of a series only.
    tracked: bool,
    /// Type that the last `TYPE` line in the chunk names.
    sets_type: Option<MetricType>,
}

/// What a scrape brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeCounts {
    /// Samples in the body.
    pub scraped: usize,
    /// Samples left after metric relabeling.
    pub post_relabel: usize,
    /// Series not seen at the scrape before.
    pub series_added: usize,
    /// Samples refused as out of order or too old.
    pub out_of_order: usize,
    /// Samples refused because the timestamp is taken.
    pub duplicates: usize,
    /// Samples refused as out of bounds.
    pub out_of_bounds: usize,
    /// Exemplars refused.
    pub exemplars_refused: usize,
}

/// The memory of one target between scrapes.
pub struct ScrapeCache {
    /// Number of the scrape under way or of the last one. Never 0.
    scrape: u32,
    arena: Vec<u8>,
    lines: Vec<Line>,
    /// What follows the last sample.
    tail: Slice,
    tail_families: (u32, u16),
    family_lists: Vec<FamilyId>,
    entries: Entries,
    /// Every line is tracked.
    all_tracked: bool,
    successful_len: usize,
    forced_flushes: u64,
    metadata: Arc<MetadataStore>,
}

impl Default for ScrapeCache {
    fn default() -> Self {
        Self {
            scrape: 0,
            arena: Vec::new(),
            lines: Vec::new(),
            tail: Slice::default(),
            tail_families: (0, 0),
            family_lists: Vec::new(),
            entries: Entries::new(),
            all_tracked: true,
            successful_len: 0,
            forced_flushes: 0,
            metadata: Arc::default(),
        }
    }
}

/// One walk over a body.
struct Run<'a> {
    body: &'a [u8],
    format: Format,
    rules: &'a SampleRules,
    app: &'a mut dyn Appender,
    timestamp_ms: i64,
    /// Later samples are out of bounds.
    latest_ms: i64,
    counts: ScrapeCounts,
    /// Samples that `sample_limit` still allows.
    samples_left: usize,
    over_limit: bool,
    /// Samples that count for staleness.
    tracked: usize,
    /// Where the body goes on.
    at: usize,
    /// The next line to compare with.
    line: usize,
    /// Type in force.
    metric_type: MetricType,
    /// Type that the chunk being parsed names.
    chunk_type: Option<MetricType>,
    /// Family of the last metadata line, and whether that line brought news.
    family: Option<FamilyId>,
    family_is_news: bool,
    /// Lines of this scrape, once it differs from the last one.
    fresh: Option<Vec<Line>>,
    parser: Parser<'a>,
    pairs: Vec<Pair<'a>>,
    writer: LabelsWriter,
    metadata: &'a MetadataStore,
}

/// How a sample ended.
enum Fate {
    Stored(SeriesRef),
    Refused,
}

impl ScrapeCache {
    /// Metadata of the target, shared.
    #[must_use]
    pub fn metadata(&self) -> Arc<MetadataStore> {
        self.metadata.clone()
    }

    /// How often entries of failed scrapes had to be dropped.
    #[must_use]
    pub fn forced_flushes(&self) -> u64 {
        self.forced_flushes
    }

    /// Walks `body` and appends its samples, and stale markers for what is gone, to `app`. The counts hold also when
    /// the scrape failed; the caller then rolls `app` back and calls [`ScrapeCache::append_stale`] with a new one.
    /// An empty body has no samples and no format.
    pub fn append(
        &mut self,
        body: &[u8],
        format: Format,
        timestamp_ms: i64,
        rules: &SampleRules,
        app: &mut dyn Appender,
    ) -> (ScrapeCounts, Result<(), ScrapeFailure>) {
        if body.is_empty() {
            return (ScrapeCounts::default(), self.append_stale(timestamp_ms, app));
        }
        if body.len() > BODY_LEN_BYTES_MAX {
            return (ScrapeCounts::default(), Err(ScrapeFailure::BodySizeLimit));
        }
        self.begin();
        let metadata = self.metadata();
        let mut run = Run {
            body,
            format,
            rules,
            app,
            timestamp_ms,
            latest_ms: timestamp_ms.saturating_add(MAX_AHEAD_MS),
            counts: ScrapeCounts::default(),
            samples_left: if rules.sample_limit == 0 { usize::MAX } else { rules.sample_limit },
            over_limit: false,
            tracked: 0,
            at: 0,
            line: 0,
            metric_type: MetricType::Unknown,
            chunk_type: None,
            family: None,
            family_is_news: false,
            fresh: None,
            parser: Parser::new(format, body),
            pairs: Vec::new(),
            writer: LabelsWriter::new(),
            metadata: &metadata,
        };
        if self.lines.is_empty() {
            self.reserve(body.len());
        }
        let result = self.walk(&mut run).and_then(|()| {
            if run.over_limit {
                return Err(ScrapeFailure::SampleLimit);
            }
            self.complete(&mut run)
        });
        if result.is_err() {
            self.limit_leftovers();
        }
        (run.counts, result)
    }

    /// Appends a stale marker for every series that counts, as when the target is gone.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub fn append_stale(&mut self, timestamp_ms: i64, app: &mut dyn Appender) -> Result<(), ScrapeFailure> {
        self.begin();
        for line in &mut self.lines {
            if line.tracked {
                line.tracked = false;
                append_marker(self.entries.get_mut(line.entry), timestamp_ms, app)?;
            }
        }
        self.all_tracked = false;
        self.limit_leftovers();
        Ok(())
    }

    /// Appends stale markers for the series of this cache that the last scrape of `successor` did not go on with. For a
    /// loop that was replaced by one with other relabeling.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub fn append_stale_except(
        &mut self,
        successor: &mut ScrapeCache,
        timestamp_ms: i64,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        let scrape = successor.scrape;
        let going_on: HashSet<SeriesRef> =
            successor.entries.iter_mut().filter(|e| e.tracked == scrape).map(|e| e.series).collect();
        for line in self.lines.iter_mut().filter(|l| l.tracked) {
            line.tracked = false;
            let entry = self.entries.get_mut(line.entry);
            if entry.series == SeriesRef::NONE || !going_on.contains(&entry.series) {
                append_marker(entry, timestamp_ms, app)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) {
        self.scrape = self.scrape.wrapping_add(1).max(1);
    }

    /// Typical lines are a hundred bytes; a wrong guess costs a reallocation.
    fn reserve(&mut self, body_len: usize) {
        let lines = body_len / 100;
        self.lines.reserve(lines);
        self.entries.reserve(lines);
        self.arena.reserve(body_len);
        self.metadata.lock().reserve((lines / 2).min(FAMILIES_EXPECTED_MAX));
    }

    fn walk(&mut self, run: &mut Run<'_>) -> Result<(), ScrapeFailure> {
        loop {
            self.follow_prediction(run)?;
            let at_end = run.line == self.lines.len();
            if at_end && run.fresh.is_none() && !self.lines.is_empty() {
                let tail = self.tail.of(&self.arena);
                if &run.body[run.at..] == tail {
                    return Ok(());
                }
            }
            if !self.parse_sample(run)? {
                return Ok(());
            }
        }
    }

    // === Hot path ===

    /// Appends samples as long as the body agrees with the last scrape. Stops before the first sample that needs a
    /// closer look. Cost per sample: one `memcmp`, one number, one call.
    fn follow_prediction(&mut self, run: &mut Run<'_>) -> Result<(), ScrapeFailure> {
        let scrape = self.scrape;
        while let Some(line) = self.lines.get(run.line).copied() {
            let chunk = line.chunk.of(&self.arena);
            if !line.predictable || !run.body[run.at..].starts_with(chunk) {
                return Ok(());
            }
            if line.families_len > 0 {
                run.family_is_news = false;
                let last = line.families_start as usize + usize::from(line.families_len) - 1;
                run.family = self.family_lists.get(last).copied();
            } else if run.family_is_news {
                return Ok(());
            }
            let value_at = run.at + chunk.len();
            let entry = self.entries.get_mut(line.entry);
            let (value, explicit_ms, next) = match short_value(run.body, value_at) {
                Some((value, next)) => (value, None, next),
                None => {
                    // Timestamps, exemplars and special values; errors are reported by the parser.
                    let Ok(tail) = exposition::sample_tail(run.format, run.body, value_at) else {
                        return Ok(());
                    };
                    if tail.exemplar.is_some() {
                        return Ok(());
                    }
                    (tail.value, tail.timestamp_ms.filter(|_| run.rules.honor_timestamps), tail.next)
                }
            };
            if !entry.dropped {
                let at = explicit_ms.unwrap_or(run.timestamp_ms);
                let plain = entry.series != SeriesRef::NONE && entry.seen != scrape;
                if !plain || run.samples_left == 0 || at > run.latest_ms {
                    return Ok(());
                }
                match run.app.append_float(entry.series, at, value) {
                    Ok(()) if explicit_ms.is_none() || run.rules.track_timestamps_staleness => {
                        entry.tracked = scrape;
                        run.tracked += 1;
                    }
                    Ok(()) => {}
                    Err(AppendError::UnknownRef) => {
                        entry.series = SeriesRef::NONE;
                        return Ok(());
                    }
                    Err(e) => run.counts.refuse(e)?,
                }
                run.samples_left -= 1;
                run.counts.post_relabel += 1;
            }
            entry.seen = scrape;
            run.counts.scraped += 1;
            run.metric_type = line.sets_type.unwrap_or(run.metric_type);
            run.at = next;
            run.line += 1;
            if let Some(fresh) = &mut run.fresh {
                fresh.push(line);
            }
        }
        Ok(())
    }

    // === Slow path ===

    /// Parses one sample with the comments before it. False at the end of the body.
    fn parse_sample(&mut self, run: &mut Run<'_>) -> Result<bool, ScrapeFailure> {
        let chunk_at = run.at;
        run.chunk_type = None;
        let families_start = self.family_lists.len();
        run.parser.seek(run.at, run.metric_type, run.parser.unit());
        let lines_before = &self.lines[..run.line];
        run.fresh.get_or_insert_with(|| {
            let mut fresh = Vec::with_capacity(self.lines.capacity());
            fresh.extend_from_slice(lines_before);
            fresh
        });
        let metadata = run.metadata;
        let mut known = None;
        let tail = loop {
            match run.parser.next()? {
                None => break None,
                Some(exposition::Entry::Series(tail)) => break Some(tail),
                Some(entry) => {
                    self.note_metadata(run, known.get_or_insert_with(|| metadata.lock()), &entry);
                }
            }
        };
        drop(known);
        run.at = run.parser.position();
        run.metric_type = run.parser.metric_type();
        let families = (
            families_start as u32,
            u16::try_from(self.family_lists.len() - families_start).unwrap_or(u16::MAX),
        );
        let Some(tail) = tail else {
            self.tail = self.store_chunk(&run.body[chunk_at..]);
            self.tail_families = families;
            return Ok(false);
        };
        let entry = self.append_sample(run, &tail)?;
        self.remember_line(run, &tail, chunk_at, families, entry);
        Ok(true)
    }

    fn note_metadata(&mut self, run: &mut Run<'_>, families: &mut Families, entry: &exposition::Entry<'_>) {
        let help;
        let (family, fact) = match entry {
            exposition::Entry::Type { family, metric_type } => {
                run.chunk_type = Some(*metric_type);
                (family, Fact::Type(*metric_type))
            }
            exposition::Entry::Help { family, text } => {
                help = exposition::unescape_help(run.format, text);
                (family, Fact::Help(&help))
            }
            exposition::Entry::Unit { family, unit } => (family, Fact::Unit(unit)),
            exposition::Entry::Comment(_) | exposition::Entry::Series(_) => return,
        };
        let (id, news) = families.set(family, &fact, self.scrape);
        let still_news = run.family_is_news && run.family == Some(id);
        run.family_is_news = run.rules.append_metadata && (news || still_news);
        run.family = Some(id);
        self.family_lists.push(id);
    }

    /// Finds or makes the series and appends the sample. Returns the entry, if there is one.
    fn append_sample(&mut self, run: &mut Run<'_>, tail: &Tail<'_>) -> Result<Option<u32>, ScrapeFailure> {
        run.counts.scraped += 1;
        let hash = self.entries.hash(tail.series);
        let known = self.entries.find(hash, tail.series, &self.arena);
        let timestamp_ms = tail.timestamp_ms.filter(|_| run.rules.honor_timestamps);
        let counts_for_staleness = timestamp_ms.is_none() || run.rules.track_timestamps_staleness;
        let scrape = self.scrape;
        let mut series = SeriesRef::NONE;
        let mut labels = None;
        if let Some(id) = known {
            let e = self.entries.get_mut(id);
            let seen_already = e.seen == scrape;
            e.seen = scrape;
            if e.dropped {
                return Ok(known);
            }
            if seen_already && timestamp_ms.is_none() {
                run.counts.post_relabel += 1;
                run.counts.duplicates += 1;
                return Ok(known);
            }
            series = e.series;
            labels = e.labels.clone();
        }
        if series == SeriesRef::NONE && labels.is_none() {
            match run.labels()? {
                Some(l) => labels = Some(l),
                None => {
                    let key = self.store_chunk(tail.series);
                    let id = self.entries.insert(hash, key, SeriesRef::NONE);
                    let e = self.entries.get_mut(id);
                    (e.dropped, e.seen) = (true, scrape);
                    return Ok(Some(id));
                }
            }
        }
        run.counts.post_relabel += 1;
        let at = timestamp_ms.unwrap_or(run.timestamp_ms);
        let fate = run.store(series, &mut labels, at, tail.value)?;
        let Fate::Stored(stored) = fate else { return Ok(known) };
        let id = match known {
            Some(id) => id,
            None => {
                run.counts.series_added += usize::from(!run.over_limit);
                // The key gets its place in the arena with the line's chunk.
                let id = self.entries.insert(hash, Slice::default(), stored);
                self.entries.get_mut(id).seen = scrape;
                id
            }
        };
        let e = self.entries.get_mut(id);
        e.series = stored;
        e.labels = if stored == SeriesRef::NONE { labels.clone() } else { None };
        if counts_for_staleness {
            e.tracked = scrape;
            run.tracked += 1;
        }
        self.append_extras(run, stored, at, labels.as_ref(), known.is_none());
        Ok(Some(id))
    }

    /// Exemplar and metadata, whose refusal never fails a scrape.
    fn append_extras(
        &mut self,
        run: &mut Run<'_>,
        series: SeriesRef,
        timestamp_ms: i64,
        labels: Option<&Labels>,
        is_new: bool,
    ) {
        if let Some(exemplar) = run.parser.exemplar() {
            let timestamp_ms = exemplar.timestamp_ms.or(Some(timestamp_ms));
            if run.app.append_exemplar(series, &Exemplar { timestamp_ms, ..exemplar }).is_err() {
                run.counts.exemplars_refused += 1;
            }
        }
        if !run.rules.append_metadata || !(is_new || run.family_is_news) {
            return;
        }
        let Some((family, metadata)) = run.family.and_then(|f| run.metadata.get(f)) else { return };
        let exposed_name;
        let metric = match labels {
            Some(l) => l.metric_name(),
            None => {
                run.pairs.clear();
                if run.parser.labels(&mut run.pairs).is_err() {
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

    /// Adds the sample's line to those of this scrape, and decides where prediction goes on.
    fn remember_line(
        &mut self,
        run: &mut Run<'_>,
        tail: &Tail<'_>,
        chunk_at: usize,
        families: (u32, u16),
        entry: Option<u32>,
    ) {
        let text = &run.body[chunk_at..tail.value_at];
        let series_at = tail.series.as_ptr() as usize - run.body.as_ptr() as usize;
        let separator = tail.value_at - (series_at + tail.series.len());
        // Without a blank the next scrape's name could go on where this one's ends.
        let predictable = separator > 0 || tail.series.ends_with(b"}");
        let separator_len = u8::try_from(separator).ok().filter(|_| predictable);
        let mut before = None;
        if let Some(id) = entry {
            let line = self.entries.get_mut(id).line;
            // A series written twice has its second line right here.
            if self.lines.get(run.line).is_some_and(|l| l.entry == id) {
                run.line += 1;
            } else if line != NONE {
                run.line = line as usize + 1;
            }
            if line != NONE {
                before = self.lines.get(line as usize).map(|l| l.chunk).filter(|c| c.of(&self.arena) == text);
            }
        }
        let chunk = before.unwrap_or_else(|| self.store_chunk(text));
        if let Some(id) = entry {
            let e = self.entries.get_mut(id);
            if e.key.len == 0 {
                let end = chunk.start + chunk.len - separator as u32;
                let len = tail.series.len() as u32;
                e.key = Slice { start: end - len, len };
            }
        }
        let line = Line {
            chunk,
            entry: entry.unwrap_or(NONE),
            families_start: families.0,
            families_len: families.1,
            separator_len: separator_len.unwrap_or(0),
            predictable: entry.is_some() && separator_len.is_some(),
            tracked: false,
            sets_type: run.chunk_type,
        };
        if let Some(fresh) = &mut run.fresh {
            fresh.push(line);
        }
    }

    fn store_chunk(&mut self, bytes: &[u8]) -> Slice {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        Slice { start, len: bytes.len() as u32 }
    }

    // === End of a scrape ===

    /// Writes stale markers for what is gone and makes this scrape the one to compare with.
    fn complete(&mut self, run: &mut Run<'_>) -> Result<(), ScrapeFailure> {
        if run.fresh.is_none() && self.all_tracked && run.tracked == self.lines.len() {
            return Ok(());
        }
        let scrape = self.scrape;
        // A series may go on under other bytes (`a` and `a{}`): what its reference says counts.
        let mut going_on: Option<HashSet<SeriesRef>> = None;
        for line in self.lines.iter().filter(|l| l.tracked) {
            if self.entries.get_mut(line.entry).tracked == scrape {
                continue;
            }
            let entries = &mut self.entries;
            let going_on = going_on.get_or_insert_with(|| {
                entries.iter_mut().filter(|e| e.tracked == scrape).map(|e| e.series).collect()
            });
            let entry = entries.get_mut(line.entry);
            if entry.series == SeriesRef::NONE || !going_on.contains(&entry.series) {
                append_marker(entry, run.timestamp_ms, run.app)?;
            }
        }
        if let Some(fresh) = run.fresh.take() {
            self.metadata.touch(self.families_in_force(), scrape.wrapping_sub(1));
            for line in self.lines.iter().filter(|l| l.entry != NONE) {
                self.entries.get_mut(line.entry).line = NONE;
            }
            self.lines = fresh;
            for (i, line) in self.lines.iter().enumerate().filter(|(_, l)| l.entry != NONE) {
                let entry = self.entries.get_mut(line.entry);
                entry.line = entry.line.min(i as u32);
            }
            self.entries.retain(|e| e.seen == scrape);
            self.metadata.touch(self.families_in_force(), scrape);
            self.metadata.expire(scrape);
            self.successful_len = self.entries.len();
            self.compact();
        }
        self.all_tracked = true;
        for (i, line) in self.lines.iter_mut().enumerate() {
            line.tracked = line.entry != NONE && {
                let entry = self.entries.get_mut(line.entry);
                entry.line == i as u32 && entry.tracked == scrape
            };
            self.all_tracked &= line.tracked;
        }
        Ok(())
    }

    /// Families whose lines the last completed scrape had.
    fn families_in_force(&self) -> impl Iterator<Item = FamilyId> {
        let ranges = self.lines.iter().map(|l| (l.families_start, l.families_len));
        ranges.chain([self.tail_families]).flat_map(|(start, len)| {
            let start = start as usize;
            self.family_lists.get(start..start + usize::from(len)).unwrap_or_default().iter().copied()
        })
    }

    /// Failed scrapes may leave entries behind, which a target with ever new series would let grow without bound.
    fn limit_leftovers(&mut self) {
        if self.entries.len() > self.successful_len * 2 + ENTRIES_SLACK {
            self.entries.retain(|e| e.line != NONE);
            self.forced_flushes += 1;
        }
        self.compact();
    }

    /// Copies what is in use to a new arena when most of the old one is not.
    fn compact(&mut self) {
        let chunks: usize = self.lines.iter().map(|l| l.chunk.len as usize).sum();
        let keys: usize =
            self.entries.iter_mut().filter(|e| e.line == NONE).map(|e| e.key.len as usize).sum();
        let live = chunks + keys + self.tail.len as usize;
        let families: usize = self.lines.iter().map(|l| usize::from(l.families_len)).sum();
        if self.arena.len() <= live * 2 + ARENA_SLACK_BYTES
            && self.family_lists.len() <= families * 2 + ENTRIES_SLACK
        {
            return;
        }
        let mut arena = Vec::with_capacity(live);
        let mut lists = Vec::with_capacity(families);
        for (i, line) in self.lines.iter_mut().enumerate() {
            line.chunk = move_slice(line.chunk, &self.arena, &mut arena);
            (line.families_start, line.families_len) =
                move_list((line.families_start, line.families_len), &self.family_lists, &mut lists);
            if line.entry == NONE {
                continue;
            }
            let entry = self.entries.get_mut(line.entry);
            if entry.line == i as u32 {
                if line.predictable {
                    let end = line.chunk.start + line.chunk.len - u32::from(line.separator_len);
                    entry.key.start = end - entry.key.len;
                } else {
                    entry.key = move_slice(entry.key, &self.arena, &mut arena);
                }
            }
        }
        for entry in self.entries.iter_mut().filter(|e| e.line == NONE) {
            entry.key = move_slice(entry.key, &self.arena, &mut arena);
        }
        self.tail = move_slice(self.tail, &self.arena, &mut arena);
        self.tail_families = move_list(self.tail_families, &self.family_lists, &mut lists);
        self.arena = arena;
        self.family_lists = lists;
    }
}

fn move_slice(slice: Slice, from: &[u8], to: &mut Vec<u8>) -> Slice {
    let start = to.len() as u32;
    to.extend_from_slice(slice.of(from));
    Slice { start, len: slice.len }
}

fn move_list((start, len): (u32, u16), from: &[FamilyId], to: &mut Vec<FamilyId>) -> (u32, u16) {
    let moved = to.len() as u32;
    to.extend_from_slice(from.get(start as usize..start as usize + usize::from(len)).unwrap_or_default());
    (moved, len)
}

/// A stale marker. That the store has a newer sample, or no longer knows the series, is as good.
fn append_marker(
    entry: &entries::Entry,
    timestamp_ms: i64,
    app: &mut dyn Appender,
) -> Result<(), ScrapeFailure> {
    let result = match &entry.labels {
        Some(labels) => {
            app.append(SeriesRef::NONE, labels, Sample::float(timestamp_ms, stale_nan())).map(|_| ())
        }
        None if entry.series != SeriesRef::NONE => app.append_float(entry.series, timestamp_ms, stale_nan()),
        None => Ok(()),
    };
    match result {
        Err(AppendError::Storage(e)) => Err(e.into()),
        _ => Ok(()),
    }
}

impl ScrapeCounts {
    /// Counts a refused sample.
    ///
    /// # Errors
    /// When the whole scrape must fail.
    fn refuse(&mut self, error: AppendError) -> Result<(), ScrapeFailure> {
        match error {
            AppendError::OutOfOrder | AppendError::TooOld => self.out_of_order += 1,
            AppendError::DuplicateTimestamp => self.duplicates += 1,
            AppendError::OutOfBounds => self.out_of_bounds += 1,
            AppendError::Storage(e) => return Err(e.into()),
            AppendError::UnknownRef | AppendError::InvalidLabels(_) | AppendError::InvalidHistogram(_) => {
                return Err(ScrapeFailure::Labels(error.to_string()));
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// Labels of the stored series for the sample that was just parsed; `None` when relabeling drops it.
    fn labels(&mut self) -> Result<Option<Labels>, ScrapeFailure> {
        self.pairs.clear();
        self.parser.labels(&mut self.pairs)?;
        if self.rules.type_and_unit_labels {
            let unit = self.family.and_then(|f| self.metadata.unit(f));
            self.add_type_and_unit(&unit.unwrap_or_default());
        }
        self.rules.series_labels(&mut self.pairs, &mut self.writer)
    }

    fn add_type_and_unit(&mut self, unit: &str) {
        let kind = match self.parser.metric_type() {
            MetricType::Unknown => "",
            known => known.as_str(),
        };
        for (name, value) in [(TYPE_LABEL, kind), (UNIT_LABEL, unit)] {
            if !value.is_empty() {
                self.pairs.retain(|(n, _)| n != name);
                self.pairs.push((name.into(), value.to_owned().into()));
            }
        }
    }

    /// Appends by reference, or by labels where there is none that counts.
    fn store(
        &mut self,
        series: SeriesRef,
        labels: &mut Option<Labels>,
        timestamp_ms: i64,
        value: f64,
    ) -> Result<Fate, ScrapeFailure> {
        if self.samples_left == 0 {
            // Parsing goes on, so that the report tells how many samples there were.
            self.over_limit = true;
            return Ok(Fate::Refused);
        }
        self.samples_left -= 1;
        if timestamp_ms > self.latest_ms {
            self.counts.out_of_bounds += 1;
            return Ok(Fate::Refused);
        }
        if series != SeriesRef::NONE {
            match self.app.append_float(series, timestamp_ms, value) {
                Ok(()) => return Ok(Fate::Stored(series)),
                Err(AppendError::UnknownRef) => {}
                Err(e) => return self.counts.refuse(e).map(|()| Fate::Refused),
            }
        }
        if labels.is_none() {
            *labels = self.labels()?;
        }
        let Some(labels) = labels else { return Ok(Fate::Refused) };
        match self.app.append(SeriesRef::NONE, labels, Sample::float(timestamp_ms, value)) {
            Ok(series) => Ok(Fate::Stored(series)),
            Err(e) => self.counts.refuse(e).map(|()| Fate::Refused),
        }
    }
}
