//! The hot path: samples whose lines are those of the last scrape.
//!
//! Leaves out everything that needs parsing: at the first doubt `first_sight` takes over for one sample.

use model::{AppendError, SeriesRef};

use super::{Run, ScrapeCache};
use crate::cardinality::Refusal;
use crate::error::ScrapeFailure;
use crate::exposition::{self, short_value};

impl ScrapeCache {
    /// Appends samples as long as the body agrees with the last scrape. Stops before the first sample that needs a
    /// closer look. Cost per sample: one hash, one number, one call.
    pub(super) fn follow_prediction(&mut self, run: &mut Run<'_>) -> Result<(), ScrapeFailure> {
        let scrape = self.scrape;
        while let Some(line) = self.lines.get(run.line).copied() {
            let value_at = run.at + line.text_len as usize;
            let Some(text) = run.body.get(run.at..value_at).filter(|t| !t.is_empty()) else { return Ok(()) };
            if self.entries.hash(text) != line.text_hash {
                return Ok(());
            }
            if line.families_len > 0 {
                run.family_is_news = false;
                let last = line.families_start as usize + usize::from(line.families_len) - 1;
                run.family = self.family_lists.get(last).copied();
            } else if run.family_is_news {
                return Ok(());
            }
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
                entry.tracked = false;
                match run.app.append_float(entry.series, at, value) {
                    Ok(()) if explicit_ms.is_none() || run.rules.track_timestamps_staleness => {
                        entry.tracked = true;
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
            } else if entry.refusal != Refusal::None {
                let seats = run.rules.seats.as_ref();
                let may_come_in = seats.is_none_or(|seats| seats.may_take(entry.refusal));
                if may_come_in || run.samples_left == 0 || entry.seen == scrape {
                    return Ok(());
                }
                run.samples_left -= 1;
                run.counts.post_relabel += 1;
                run.counts.refused += 1;
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
}
