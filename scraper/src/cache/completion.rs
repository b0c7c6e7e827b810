//! The end of a scrape that succeeded: stale markers for what is gone, and the lines to compare with next time.

use std::collections::HashSet;

use model::SeriesRef;

use super::entries::NONE;
use super::metadata::FamilyId;
use super::{Run, ScrapeCache, append_marker};
use crate::error::ScrapeFailure;

impl ScrapeCache {
    /// Writes stale markers for what is gone and makes this scrape the one to compare with.
    pub(super) fn complete(&mut self, run: &mut Run<'_>) -> Result<(), ScrapeFailure> {
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
}
