//! The end of a scrape: stale markers for what is gone, the lines to compare with next time, and bounds of memory: entries that
//! failed scrapes left behind, and lists of families that no line uses any more.

use std::collections::HashSet;

use model::SeriesRef;

use super::entries::NONE;
use super::metadata::FamilyId;
use super::{Run, ScrapeCache, append_marker};
use crate::error::ScrapeFailure;

/// Entries that failed scrapes may leave behind, and families of no line, beside doubling.
pub(super) const SLACK: usize = 1000;

impl ScrapeCache {
    /// Writes stale markers for what is gone and makes this scrape the one to compare with.
    pub(super) fn complete(&mut self, run: &mut Run<'_>) -> Result<(), ScrapeFailure> {
        let leftovers = self.entries.len() > self.successful_len;
        if run.fresh.is_none() && self.all_tracked && run.tracked == self.lines.len() && !leftovers {
            return Ok(());
        }
        let scrape = self.scrape;
        // A series may go on under other bytes (`a` and `a{}`): what its reference says counts.
        let mut going_on: Option<HashSet<SeriesRef>> = None;
        for line in self.lines.iter().filter(|l| l.tracked) {
            let entries = &self.entries;
            let entry = entries.get(line.entry);
            if entry.counts_in(scrape) {
                continue;
            }
            let going_on = going_on.get_or_insert_with(|| {
                entries.iter().filter(|e| e.counts_in(scrape)).map(|e| e.series).collect()
            });
            if entry.series == SeriesRef::NONE || !going_on.contains(&entry.series) {
                append_marker(entries, line.entry, run.timestamp_ms, run.app)?;
            }
        }
        if let Some(fresh) = run.fresh.take() {
            self.metadata.touch(self.families_in_force(), scrape.wrapping_sub(1));
            for line in self.lines.iter().filter(|l| l.entry != NONE) {
                self.entries.get_mut(line.entry).line = NONE;
            }
            self.lines = fresh;
            if self.lines.len() < self.lines.capacity() / 8 * 7 {
                self.lines.shrink_to_fit();
            }
            for (i, line) in self.lines.iter().enumerate().filter(|(_, l)| l.entry != NONE) {
                let entry = self.entries.get_mut(line.entry);
                entry.line = entry.line.min(i as u32);
            }
            self.entries.retain(|e| e.seen == scrape);
            self.metadata.touch(self.families_in_force(), scrape);
            self.metadata.expire(scrape);
            self.successful_len = self.entries.len();
            self.entries.shrink();
            self.compact();
        } else if leftovers {
            // Of failed scrapes; no line has them.
            self.entries.retain(|e| e.seen == scrape);
        }
        self.all_tracked = true;
        for (i, line) in self.lines.iter_mut().enumerate() {
            line.tracked = line.entry != NONE && {
                let entry = self.entries.get(line.entry);
                entry.line == i as u32 && entry.counts_in(scrape)
            };
            self.all_tracked &= line.tracked;
        }
        Ok(())
    }

    /// Failed scrapes may leave entries behind, which a target with ever new series would let grow without bound.
    pub(super) fn limit_leftovers(&mut self) {
        if self.entries.len() > self.successful_len * 2 + SLACK {
            self.entries.retain(|e| e.line != NONE);
            self.entries.shrink();
            self.forced_flushes += 1;
        }
        self.compact();
    }

    /// Copies the lists of families that are in use when most are not.
    fn compact(&mut self) {
        let used: usize = self.lines.iter().map(|l| usize::from(l.families_len)).sum();
        if self.family_lists.len() <= used * 2 + SLACK {
            return;
        }
        let mut lists = Vec::with_capacity(used + usize::from(self.tail_families.1));
        for line in &mut self.lines {
            (line.families_start, line.families_len) =
                move_list((line.families_start, line.families_len), &self.family_lists, &mut lists);
        }
        self.tail_families = move_list(self.tail_families, &self.family_lists, &mut lists);
        self.family_lists = lists;
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

fn move_list((start, len): (u32, u16), from: &[FamilyId], to: &mut Vec<FamilyId>) -> (u32, u16) {
    let moved = to.len() as u32;
    to.extend_from_slice(from.get(start as usize..start as usize + usize::from(len)).unwrap_or_default());
    (moved, len)
}
