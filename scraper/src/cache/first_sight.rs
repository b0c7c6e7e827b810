//! Samples that the last scrape did not have at this place: parsed, looked up by their bytes, given labels.
//!
//! Invariant: each sample that is parsed becomes a line of the scrape under way, also when the store refuses it.

use model::{AppendError, Labels, Sample, SeriesRef};

use super::entries::NONE;
use super::metadata::{Fact, Families, is_part_of};
use super::{Line, Run, ScrapeCache};
use crate::cardinality::Refusal;
use crate::error::ScrapeFailure;
use crate::exposition::{self, Tail};
use crate::sample_labels::add_type_and_unit;

/// How a sample ended.
enum Fate {
    Stored(SeriesRef),
    Refused,
}

impl ScrapeCache {
    /// Parses one sample with the comments before it. False at the end of the body.
    pub(super) fn parse_sample(&mut self, run: &mut Run<'_>) -> Result<bool, ScrapeFailure> {
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
            let tail = &run.body[chunk_at..];
            self.tail = (self.entries.hash(tail), tail.len());
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
        let key = self.entries.key(tail.series);
        let known = self.entries.find(key);
        let timestamp_ms = tail.timestamp_ms.filter(|_| run.rules.honor_timestamps);
        let counts_for_staleness = timestamp_ms.is_none() || run.rules.track_timestamps_staleness;
        let scrape = self.scrape;
        let mut series = SeriesRef::NONE;
        let mut labels = None;
        let mut needs_seat = known.is_none();
        if let Some(id) = known {
            labels = self.entries.labels(id).cloned();
            let e = self.entries.get_mut(id);
            let seen_already = e.seen == scrape;
            e.seen = scrape;
            e.tracked &= seen_already;
            let refusal = e.refusal;
            if e.dropped && refusal == Refusal::None {
                return Ok(known);
            }
            if seen_already && timestamp_ms.is_none() {
                run.counts.post_relabel += 1;
                run.counts.duplicates += 1;
                return Ok(known);
            }
            if refusal != Refusal::None && run.rules.seats.as_ref().is_some_and(|s| !s.may_take(refusal)) {
                run.leave_out();
                return Ok(known);
            }
            series = e.series;
            needs_seat = refusal != Refusal::None;
        }
        if series == SeriesRef::NONE && labels.is_none() {
            match run.labels()? {
                Some(l) => labels = Some(l),
                None => {
                    let id = known.unwrap_or_else(|| self.entries.insert(key));
                    self.entries.drop_series(id, Refusal::None);
                    self.entries.get_mut(id).seen = scrape;
                    return Ok(Some(id));
                }
            }
        }
        if needs_seat
            && let (Some(seats), Some(labels)) = (&run.rules.seats, &labels)
            && let refusal = seats.take(labels)
            && refusal != Refusal::None
        {
            run.leave_out();
            let id = known.unwrap_or_else(|| self.entries.insert(key));
            self.entries.drop_series(id, refusal);
            self.entries.get_mut(id).seen = scrape;
            return Ok(Some(id));
        }
        if let Some(id) = known.filter(|_| needs_seat) {
            self.entries.readmit(id);
        }
        run.counts.post_relabel += 1;
        let at = timestamp_ms.unwrap_or(run.timestamp_ms);
        let fate = run.store(series, &mut labels, at, tail.value)?;
        let Fate::Stored(stored) = fate else { return Ok(known) };
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.entries.insert(key);
                self.entries.get_mut(id).seen = scrape;
                id
            }
        };
        run.counts.series_added += usize::from(needs_seat && !run.over_limit);
        self.entries.set_series(id, stored, labels.as_ref());
        if counts_for_staleness {
            self.entries.get_mut(id).tracked = true;
            run.tracked += 1;
        }
        self.append_extras(run, stored, labels.as_ref(), needs_seat);
        Ok(Some(id))
    }

    /// Exemplar and metadata, whose refusal never fails a scrape.
    fn append_extras(&mut self, run: &mut Run<'_>, series: SeriesRef, labels: Option<&Labels>, is_new: bool) {
        if let Some(exemplar) = run.parser.exemplar() {
            // One without a timestamp gets that of the sample, unless the store sees that it only repeats the last one.
            if run.app.append_exemplar(series, &exemplar).is_err() {
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
        let predictable = entry.is_some() && (separator > 0 || tail.series.ends_with(b"}"));
        if let Some(id) = entry {
            let line = self.entries.get(id).line;
            // A series written twice has its second line right here.
            if self.lines.get(run.line).is_some_and(|l| l.entry == id) {
                run.line += 1;
            } else if line != NONE {
                run.line = line as usize + 1;
            }
        }
        let line = Line {
            text_hash: self.entries.hash(text),
            text_len: if predictable { text.len() as u32 } else { 0 },
            entry: entry.unwrap_or(NONE),
            families_start: families.0,
            families_len: families.1,
            tracked: false,
            sets_type: run.chunk_type,
        };
        if let Some(fresh) = &mut run.fresh {
            fresh.push(line);
        }
    }
}

impl Run<'_> {
    /// Counts a sample whose series has no seat.
    fn leave_out(&mut self) {
        self.counts.post_relabel += 1;
        if self.samples_left == 0 {
            self.over_limit = true;
            return;
        }
        self.samples_left -= 1;
        self.counts.refused += 1;
    }

    /// Labels of the stored series for the sample that was just parsed; `None` when relabeling drops it.
    fn labels(&mut self) -> Result<Option<Labels>, ScrapeFailure> {
        self.pairs.clear();
        self.parser.labels(&mut self.pairs)?;
        if self.rules.type_and_unit_labels {
            let unit = self.family.and_then(|f| self.metadata.unit(f));
            add_type_and_unit(&mut self.pairs, self.parser.metric_type(), &unit.unwrap_or_default());
        }
        self.rules.series_labels(&mut self.pairs, &mut self.writer)
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
