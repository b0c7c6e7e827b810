//! Bounds of a cache's memory: entries that failed scrapes left behind, and bytes that no line uses any more.

use super::ScrapeCache;
use super::entries::{NONE, Slice};
use super::metadata::FamilyId;

/// Below this the arena is not worth compacting.
pub(super) const ARENA_SLACK_BYTES: usize = 64 << 10;
/// Entries that failed scrapes may leave behind, beside doubling.
const ENTRIES_SLACK: usize = 1000;

impl ScrapeCache {
    /// Failed scrapes may leave entries behind, which a target with ever new series would let grow without bound.
    pub(super) fn limit_leftovers(&mut self) {
        if self.entries.len() > self.successful_len * 2 + ENTRIES_SLACK {
            self.entries.retain(|e| e.line != NONE);
            self.forced_flushes += 1;
        }
        self.compact();
    }

    /// Copies what is in use to a new arena when most of the old one is not.
    pub(super) fn compact(&mut self) {
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
