//! Which blocks become one: Prometheus's levelled plan.
//!
//! In this order: blocks that overlap; blocks that fill an aligned range of the next length (or what is there of it, once
//! newer blocks have been written), shortest range first; a long block of which much is deleted. The newest block is left
//! alone, unless it overlaps. Blocks that hold a part of the head's series only are never merged with others, since they
//! do not tell how far the write-ahead log is covered.
//!
//! One difference in the way, not in the end: where the result would be merged further at once, because the next longer
//! range is complete too, the blocks are merged into that in one go. A year written at once is so written a second time,
//! not a sixth.

use crate::block::meta::{FROM_SELECTED_SERIES, FROM_STALE_SERIES, Meta};

/// Each range of compaction is so much longer than the one before.
const STEP: i64 = 3;
const RANGES_MAX: usize = 10;
/// Above this part of series with tombstones a long block is written anew.
const TOMBSTONES_MAX: f64 = 0.05;

/// Lengths of blocks: `min_ms`, and then each three times the one before, up to `max_ms`.
pub(crate) fn ranges(min_ms: i64, max_ms: i64) -> Vec<i64> {
    let longer = |r: &i64| r.checked_mul(STEP).filter(|r| *r <= max_ms);
    std::iter::successors(Some(min_ms), longer).take(RANGES_MAX).collect()
}

/// Positions in `blocks` of those to become one, in order of their starts; empty when there is nothing to do.
pub(crate) fn plan(blocks: &[&Meta], ranges: &[i64]) -> Vec<usize> {
    let class = |m: &Meta| {
        let has = |hint| m.compaction.hints.iter().any(|h| h == hint);
        if has(FROM_STALE_SERIES) {
            1
        } else if has(FROM_SELECTED_SERIES) {
            2
        } else {
            0
        }
    };
    for wanted in 0..3 {
        let mut members: Vec<usize> = (0..blocks.len()).filter(|i| class(blocks[*i]) == wanted).collect();
        members.sort_by_key(|i| (blocks[*i].min_time, &blocks[*i].ulid));
        let metas: Vec<&Meta> = members.iter().map(|i| blocks[*i]).collect();
        let found = plan_class(&metas, ranges);
        if !found.is_empty() {
            return found.into_iter().map(|i| members[i]).collect();
        }
    }
    Vec::new()
}

fn plan_class(blocks: &[&Meta], ranges: &[i64]) -> Vec<usize> {
    // Merging one that cannot be read would fail again and again.
    let good: Vec<usize> = (0..blocks.len()).filter(|i| !blocks[*i].compaction.failed).collect();
    let found = overlapping(&good.iter().map(|i| blocks[*i]).collect::<Vec<_>>());
    let found: Vec<usize> = found.into_iter().map(|i| good[i]).collect();
    if !found.is_empty() {
        return found;
    }
    // The newest block may just have been cut; leaving it gives everybody a block range of time to copy it.
    let Some((_, older)) = blocks.split_last() else { return Vec::new() };
    let found = complete(older, ranges);
    if !found.is_empty() {
        return found;
    }
    tombstones(older, ranges).map_or(Vec::new(), |i| vec![i])
}

/// The first run of blocks that overlap.
fn overlapping(blocks: &[&Meta]) -> Vec<usize> {
    let mut found = Vec::new();
    let Some(first) = blocks.first() else { return found };
    let mut end = first.max_time;
    for (i, b) in blocks.iter().enumerate().skip(1) {
        if b.min_time < end {
            if found.is_empty() {
                found.push(i - 1);
            }
            found.push(i);
        } else if !found.is_empty() {
            break;
        }
        end = end.max(b.max_time);
    }
    found
}

/// The first blocks that fill a range, or are all that will ever be there of it.
fn complete(blocks: &[&Meta], ranges: &[i64]) -> Vec<usize> {
    let Some(newest) = blocks.last() else { return Vec::new() };
    let is_complete = |part: &[usize], range: i64| {
        let (first, last) = (blocks[part[0]], blocks[part[part.len() - 1]]);
        let full = last.max_time - first.min_time == range || last.max_time <= newest.min_time;
        full && part.len() > 1 && !part.iter().any(|i| blocks[*i].compaction.failed)
    };
    for (level, range) in ranges.iter().enumerate().skip(1) {
        for mut part in split(blocks, *range) {
            if !is_complete(&part, *range) {
                continue;
            }
            for longer in &ranges[level + 1..] {
                let around = split(blocks, *longer).into_iter().find(|p| p.contains(&part[0]));
                match around {
                    Some(p) if is_complete(&p, *longer) => part = p,
                    _ => break,
                }
            }
            return part;
        }
    }
    Vec::new()
}

/// Groups blocks by the aligned range they lie in; those that cross its end are left out.
fn split(blocks: &[&Meta], range: i64) -> Vec<Vec<usize>> {
    let mut parts = Vec::new();
    let mut i = 0;
    while let Some(b) = blocks.get(i) {
        let end = b.min_time.div_euclid(range).saturating_mul(range).saturating_add(range);
        let first = i;
        while blocks.get(i).is_some_and(|b| b.max_time <= end) {
            i += 1;
        }
        if i > first {
            parts.push((first..i).collect());
        } else {
            i += 1;
        }
    }
    parts
}

/// The newest block that has so many tombstones that it is worth writing it anew.
fn tombstones(blocks: &[&Meta], ranges: &[i64]) -> Option<usize> {
    for (i, b) in blocks.iter().enumerate().rev().filter(|(_, b)| !b.compaction.failed) {
        let s = &b.stats;
        if b.max_time - b.min_time < ranges[ranges.len() / 2] {
            // Short ones are worth it only when nothing is left.
            let gone = s.num_tombstones > 0 && s.num_tombstones >= s.num_series;
            return gone.then_some(i);
        }
        if s.num_tombstones as f64 / (s.num_series + 1) as f64 > TOMBSTONES_MAX {
            return Some(i);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::meta::{Compaction, Stats, VERSION};

    fn block(min_time: i64, max_time: i64) -> Meta {
        Meta {
            ulid: format!("{min_time:026}"),
            min_time,
            max_time,
            stats: Stats { num_series: 10, ..Stats::default() },
            compaction: Compaction { level: 1, ..Compaction::default() },
            version: VERSION,
        }
    }

    #[test]
    fn blocks_whose_merging_failed_are_left_alone() {
        let mut blocks = [block(0, 20), block(10, 30), block(15, 40)];
        blocks[0].compaction.failed = true;
        check(&blocks, &[(10, 30), (15, 40)]);
        blocks[1].compaction.failed = true;
        check(&blocks, &[]);
        let mut deleted = [block(0, 20), block(20, 40)];
        deleted[0].stats.num_tombstones = 10;
        check(&deleted, &[(0, 20)]);
        deleted[0].compaction.failed = true;
        check(&deleted, &[]);
    }

    fn check(blocks: &[Meta], expect: &[(i64, i64)]) {
        let refs: Vec<&Meta> = blocks.iter().collect();
        let got: Vec<_> =
            plan(&refs, &[20, 60, 180]).iter().map(|i| (blocks[*i].min_time, blocks[*i].max_time)).collect();
        assert_eq!(got, expect, "{:?}", blocks.iter().map(|b| (b.min_time, b.max_time)).collect::<Vec<_>>());
    }

    fn blocks(ranges: &[(i64, i64)]) -> Vec<Meta> {
        ranges.iter().map(|(a, b)| block(*a, *b)).collect()
    }

    #[test]
    fn ranges_grow_by_three() {
        assert_eq!(ranges(2, 60), [2, 6, 18, 54]);
        assert_eq!(ranges(2, 1), [2]);
        assert_eq!(ranges(1, i64::MAX).len(), 10);
    }

    #[test]
    fn a_range_is_merged_when_it_is_full_and_not_the_newest() {
        check(&[], &[]);
        check(&blocks(&[(0, 20)]), &[]);
        check(&blocks(&[(0, 20), (20, 40), (40, 60)]), &[]);
        check(&blocks(&[(0, 20), (20, 40), (40, 60), (60, 80)]), &[(0, 20), (20, 40), (40, 60)]);
        // With a gap, once the range is past.
        check(&blocks(&[(0, 20), (40, 60), (60, 80)]), &[(0, 20), (40, 60)]);
        check(&blocks(&[(0, 20), (20, 40), (60, 80)]), &[]);
        check(&blocks(&[(0, 20), (20, 40), (60, 80), (80, 100)]), &[(0, 20), (20, 40)]);
        check(&blocks(&[(-60, -40), (-40, -20), (-20, 0), (0, 20)]), &[(-60, -40), (-40, -20), (-20, 0)]);
    }

    #[test]
    fn what_would_be_merged_again_is_merged_at_once() {
        let nine: Vec<_> = (0..9).map(|i| (i * 20, i * 20 + 20)).collect();
        let mut ten = nine.clone();
        ten.push((180, 200));
        check(&blocks(&ten), &nine);
        let mixed = [(0, 60), (60, 120), (120, 140), (140, 160), (160, 180), (180, 200)];
        check(&blocks(&mixed), &mixed[..5]);
        // Not what a failed block is in the way of.
        let mut failed = blocks(&mixed);
        failed[0].compaction.failed = true;
        check(&failed, &mixed[2..5]);
        failed[3].compaction.failed = true;
        check(&failed, &[]);
    }

    #[test]
    fn overlaps_come_first_and_take_the_newest_too() {
        check(&blocks(&[(0, 20), (19, 40), (40, 60)]), &[(0, 20), (19, 40)]);
        check(&blocks(&[(0, 60), (10, 20), (30, 40), (60, 80)]), &[(0, 60), (10, 20), (30, 40)]);
        check(&blocks(&[(0, 20), (20, 40), (20, 40)]), &[(20, 40), (20, 40)]);
    }

    #[test]
    fn blocks_with_many_tombstones_are_written_anew() {
        let with = |ranges: &[(i64, i64)], at: usize, tombstones: u64| {
            let mut b = blocks(ranges);
            b[at].stats.num_tombstones = tombstones;
            b
        };
        let long = [(0, 180), (180, 240), (240, 260)];
        check(&with(&long, 0, 1), &[(0, 180)]);
        check(&with(&long, 1, 1), &[(180, 240)]);
        check(&with(&long, 2, 10), &[]);
        check(&with(&[(0, 20), (20, 40)], 0, 1), &[]);
        check(&with(&[(0, 20), (20, 40)], 0, 10), &[(0, 20)]);
    }

    #[test]
    fn partial_blocks_stay_among_themselves() {
        let mut b = blocks(&[(0, 20), (0, 20), (20, 40), (20, 40)]);
        b[0].compaction.hints.push(FROM_STALE_SERIES.into());
        b[2].compaction.hints.push(FROM_STALE_SERIES.into());
        check(&b, &[]);
        b[2].min_time = 10;
        check(&b, &[(0, 20), (10, 40)]);
    }
}
