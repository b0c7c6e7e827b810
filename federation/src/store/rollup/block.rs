//! Blocks: the windows of one level of a row, in columns of which readers decode what they need.
//! Spec: docs/formats/longterm.md#rollups.

use std::ops::Range;

use model::rollup::{Reset, Rollup, Summary};
use model::{RollupColumns, RollupRequest, StorageError, kahan};

use crate::store::floats::{put_values, read_values};
use crate::store::ints::{put_prefixed_ints, read_ints};
use crate::store::varint::{Reader, put_varint};

/// The windows of a level in memory: cells of a [`Rollup`] and what is special about each.
#[derive(Clone, Debug)]
pub(in crate::store) struct Level {
    pub(in crate::store) grid_ms: i64,
    pub(in crate::store) rollup: Rollup,
    /// One for each cell.
    pub(in crate::store) flags: Vec<u8>,
    /// Whether the values before resets were few enough to be kept.
    pub(in crate::store) resets_kept: bool,
}

/// Something in the window cannot be summed up exactly: a histogram, or a number near the end of what floats hold.
pub(in crate::store) const IRREGULAR: u8 = 1;
/// A sample in the window has a start timestamp.
pub(in crate::store) const STARTS: u8 = 2;
/// A stale marker comes last.
const STALE: u8 = 4;

/// Bound on windows of a block; a row has far fewer.
const MAX_WINDOWS_BITS: u32 = 14;
/// No window is longer, in milliseconds.
const MAX_OFFSET_BITS: u32 = 40;
/// No block has more values before resets than windows and so many.
const SPARE_RESETS: usize = 128;

const RESETS_KEPT: u8 = 1;
const COMPENSATED: u8 = 2;

const OWN: u8 = 0;
const AS_FIRST: u8 = 1;
const AS_LAST: u8 = 2;

impl Level {
    pub(super) fn new(grid_ms: i64) -> Self {
        Self { grid_ms, rollup: Rollup::default(), flags: Vec::new(), resets_kept: true }
    }
}

/// Writes the windows of a level of a part that begins at `start`. There is at least one.
pub(super) fn put_block(out: &mut Vec<u8>, level: &Level, start: i64) {
    let (ends, cells) = (&level.rollup.ends_ms, &level.rollup.cells);
    assert!(!cells.is_empty() && cells.len() == level.flags.len(), "a block has windows, each with flags");
    let kept = level.resets_kept && level.rollup.resets.len() <= resets_worth_keeping(level);
    let filled = filled(cells);
    // Where all have one sign, sums do not cancel out and what rounding took is nowhere to be seen.
    let mixed = filled.iter().any(|c| c.min < 0.0) && filled.iter().any(|c| c.max > 0.0);
    let rests: Vec<f64> = filled.iter().map(rest).collect();
    let compensated = mixed && rests.iter().any(|c| *c != 0.0);
    put_varint(out, cells.len() as u64);
    out.push(if kept { RESETS_KEPT } else { 0 } | if compensated { COMPENSATED } else { 0 });
    let ints = |out: &mut Vec<u8>, f: &dyn Fn(usize) -> i64| {
        put_prefixed_ints(out, &(0..cells.len()).map(f).collect::<Vec<_>>());
    };
    let grid = level.grid_ms;
    ints(out, &|i| (ends[i] - start) / grid);
    ints(out, &|i| i64::from(level.flags[i] | if cells[i].is_stale { STALE } else { 0 }));
    ints(out, &|i| cells[i].count as i64);
    // A window without samples repeats how the one before looks.
    let looks = looks(ends, cells, grid);
    ints(out, &|i| looks[i].0);
    ints(out, &|i| looks[i].1);
    let column = |f: fn(&Summary) -> f64| filled.iter().map(f).collect::<Vec<_>>();
    let (first, last) = (column(|c| c.first), column(|c| c.last));
    put_floats(out, &first);
    put_column(out, &last, &[(AS_FIRST, &first)]);
    for values in [column(|c| c.min), column(|c| c.max), column(Summary::total)] {
        put_column(out, &values, &[(AS_FIRST, &first), (AS_LAST, &last)]);
    }
    if compensated {
        put_floats(out, &rests);
    }
    if kept {
        let resets = &level.rollup.resets;
        put_varint(out, resets.len() as u64);
        if !resets.is_empty() {
            put_prefixed_ints(out, &resets.iter().map(|r| r.cell as i64).collect::<Vec<_>>());
            put_floats(out, &resets.iter().map(|r| r.value).collect::<Vec<_>>());
        }
    }
}

/// Beyond so many resets it is no counter, and their values cost more than the windows are worth: a tenth of all rows of five minutes,
/// on real exporters. Long windows are few, and a process may be started anew many times in eight days.
fn resets_worth_keeping(level: &Level) -> usize {
    const HOUR_MS: i64 = 3_600_000;
    let least = if level.grid_ms < HOUR_MS { 8 } else { SPARE_RESETS };
    least.max(level.rollup.cells.len() / 4)
}

/// What rounding takes from the sum as it is stored.
fn rest(c: &Summary) -> f64 {
    let total = c.total();
    if total.is_finite() { (c.sum - total) + c.compensation } else { 0.0 }
}

/// The cells, with the one before in place of those without samples, so that columns stay smooth.
fn filled(cells: &[Summary]) -> Vec<Summary> {
    let mut before = cells.iter().find(|c| c.count > 0).copied().unwrap_or_default();
    if before.count == 0 {
        (before.min, before.max) = (0.0, 0.0);
    }
    let fill = |c: &Summary| {
        if c.count > 0 {
            before = *c;
        }
        before
    };
    cells.iter().map(fill).collect()
}

/// How far the first and the last sample lie from the bounds of their windows.
fn looks(ends: &[i64], cells: &[Summary], grid: i64) -> Vec<(i64, i64)> {
    let of = |end: i64, c: &Summary| (c.first_ms - (end - grid), end - c.last_ms);
    let first = cells.iter().zip(ends).find(|(c, _)| c.count > 0);
    let mut before = first.map_or((0, 0), |(c, end)| of(*end, c));
    let fill = |(c, end): (&Summary, &i64)| {
        if c.count > 0 {
            before = of(*end, c);
        }
        before
    };
    cells.iter().zip(ends).map(fill).collect()
}

fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    let mut column = Vec::with_capacity(64);
    put_values(&mut column, values);
    put_varint(out, column.len() as u64);
    out.extend_from_slice(&column);
}

/// Writes a column, or that it equals another one.
fn put_column(out: &mut Vec<u8>, values: &[f64], others: &[(u8, &Vec<f64>)]) {
    let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    match others.iter().find(|(_, other)| same(values, other)) {
        Some((code, _)) => out.push(*code),
        None => {
            out.push(OWN);
            put_floats(out, values);
        }
    }
}

/// Decoded columns of a block; one is used again and again.
#[derive(Default)]
pub(in crate::store) struct Columns {
    index: Vec<i64>,
    flags: Vec<i64>,
    counts: Vec<i64>,
    before: Vec<i64>,
    after: Vec<i64>,
    first: Vec<f64>,
    last: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
    sum: Vec<f64>,
    rest: Vec<f64>,
    reset_cells: Vec<i64>,
    resets: Vec<f64>,
    pub(super) resets_kept: bool,
}

impl Columns {
    /// Reads what is `wanted` of a block.
    pub(super) fn read(&mut self, bytes: &[u8], wanted: RollupColumns) -> Result<(), StorageError> {
        let mut r = Reader::new("rollup", bytes);
        let n = r.varint()?;
        if n == 0 || n > 1 << MAX_WINDOWS_BITS {
            return Err(r.error(format!("{n} windows are more than a block can hold")));
        }
        let n = n as usize;
        let bits = r.u8()?;
        self.resets_kept = bits & RESETS_KEPT != 0;
        ints(&mut r, n, true, &mut self.index)?;
        ints(&mut r, n, true, &mut self.flags)?;
        ints(&mut r, n, true, &mut self.counts)?;
        let (want_first, want_last) = (wanted.has(RollupColumns::FIRST), wanted.has(RollupColumns::LAST));
        ints(&mut r, n, want_first, &mut self.before)?;
        ints(&mut r, n, want_last, &mut self.after)?;
        let (first, last) = (Column::Own(r.prefixed()?), Column::read(&mut r)?);
        let (min, max, sum) = (Column::read(&mut r)?, Column::read(&mut r)?, Column::read(&mut r)?);
        let others = [(RollupColumns::MIN, min), (RollupColumns::MAX, max), (RollupColumns::SUM, sum)];
        let asks = |like: Column<'_>| others.iter().any(|(c, column)| wanted.has(*c) && *column == like);
        let need_last = want_last || asks(Column::AsLast);
        let need_first = want_first || asks(Column::AsFirst) || (need_last && last == Column::AsFirst);
        self.first.clear();
        self.last.clear();
        if need_first {
            first.decode(n, [&[], &[]], &mut self.first)?;
        }
        if need_last {
            last.decode(n, [&self.first, &[]], &mut self.last)?;
        }
        let like = [self.first.as_slice(), self.last.as_slice()];
        for ((asked, column), out) in others.into_iter().zip([&mut self.min, &mut self.max, &mut self.sum]) {
            out.clear();
            if wanted.has(asked) {
                column.decode(n, like, out)?;
            }
        }
        let want_sum = wanted.has(RollupColumns::SUM);
        self.rest.clear();
        if bits & COMPENSATED != 0 {
            floats(&mut r, n, want_sum, &mut self.rest)?;
        }
        self.reset_cells.clear();
        self.resets.clear();
        if self.resets_kept && wanted.has(RollupColumns::RESETS) {
            let resets = r.varint()?;
            if resets > (n + SPARE_RESETS) as u64 {
                return Err(r.error("more resets than are kept"));
            }
            if resets > 0 {
                ints(&mut r, resets as usize, true, &mut self.reset_cells)?;
                floats(&mut r, resets as usize, true, &mut self.resets)?;
            }
        }
        self.check(&r)
    }

    /// Without branches, since it is done for every row of a query: all bits that a column has together tell its bounds.
    fn check(&self, r: &Reader<'_>) -> Result<(), StorageError> {
        let rises =
            |column: &[i64], by: i64| column.windows(2).fold(true, |all, w| all & (w[1] - w[0] >= by));
        let below = |column: &[i64], bits: u32| column.iter().fold(0, |all, x| all | *x as u64) >> bits == 0;
        let n = self.index.len() as i64;
        let bounded = below(&self.index, MAX_WINDOWS_BITS) && below(&self.counts, 32);
        let near = below(&self.before, MAX_OFFSET_BITS) && below(&self.after, MAX_OFFSET_BITS);
        let placed = below(&self.reset_cells, MAX_WINDOWS_BITS) && rises(&self.reset_cells, 0);
        let last = self.reset_cells.last().is_none_or(|cell| *cell < n);
        if bounded && near && placed && last && rises(&self.index, 1) {
            return Ok(());
        }
        Err(r.error("windows or resets are out of order"))
    }

    /// Adds the windows within `[mint, maxt]` to the cells of `request`; `false` when some window in them is irregular. Only the columns that
    /// were read are gone over. `scratch` is a buffer.
    pub(super) fn fold(
        &self,
        (start, grid_ms): (i64, i64),
        (mint, maxt): (i64, i64),
        request: &RollupRequest,
        scratch: &mut Vec<f64>,
        out: &mut Rollup,
    ) -> bool {
        let bad = i64::from(IRREGULAR | if request.starts { STARTS } else { 0 });
        let end_of = |index: i64| start + index * grid_ms;
        // The first window of a part holds the samples at its very start, as far as this part has them.
        let mut at = self.index.partition_point(|i| end_of(*i) < mint);
        let stop = self.index.partition_point(|i| end_of(*i) - grid_ms < maxt);
        let mut reset = 0;
        while at < stop {
            let end = end_of(self.index[at]);
            let cell_end = request.end_from(end);
            let cell_start = cell_end.saturating_sub(request.width_ms);
            let until = |bound: i64| at + self.index[at..stop].partition_point(|i| end_of(*i) <= bound);
            if end <= cell_start {
                at = until(cell_start);
                continue;
            }
            let to = until(cell_end);
            if self.flags[at..to].iter().fold(0, |all, f| all | f) & bad != 0 {
                return false;
            }
            scratch.clear();
            self.resets_of(at..to, &mut reset, scratch);
            let summary = self.summary(at..to, (start, grid_ms), request.columns);
            out.push(cell_end, &summary, scratch.iter().copied());
            at = to;
        }
        true
    }

    /// What some neighbouring windows come to together.
    fn summary(
        &self,
        windows: Range<usize>,
        (start, grid_ms): (i64, i64),
        columns: RollupColumns,
    ) -> Summary {
        let counts = &self.counts[windows.clone()];
        let count: i64 = counts.iter().sum();
        let is_stale = |i: usize| self.flags[i] & i64::from(STALE) != 0;
        let mut out = Summary { count: count as u64, ..Summary::default() };
        let filled = |i: &usize| self.counts[*i] > 0;
        let (Some(first), Some(last)) = (windows.clone().find(filled), windows.clone().rev().find(filled))
        else {
            out.is_stale = windows.clone().any(is_stale);
            return out;
        };
        out.is_stale = (last..windows.end).any(is_stale);
        if columns.has(RollupColumns::FIRST) {
            out.first = self.first[first];
            out.first_ms = start + (self.index[first] - 1) * grid_ms + self.before[first];
        }
        if columns.has(RollupColumns::LAST) {
            out.last = self.last[last];
            out.last_ms = start + self.index[last] * grid_ms - self.after[last];
        }
        let filled = || (first..=last).filter(|i| self.counts[*i] > 0);
        if columns.has(RollupColumns::SUM) {
            for i in filled() {
                (out.sum, out.compensation) = kahan::add(self.sum[i], out.sum, out.compensation);
                out.compensation += self.rest.get(i).copied().unwrap_or(0.0);
            }
        }
        if columns.has(RollupColumns::MIN) {
            let better = |best: f64, v: f64| if v < best || best.is_nan() { v } else { best };
            out.min = filled().fold(self.min[first], |best, i| better(best, self.min[i]));
        }
        if columns.has(RollupColumns::MAX) {
            let better = |best: f64, v: f64| if v > best || best.is_nan() { v } else { best };
            out.max = filled().fold(self.max[first], |best, i| better(best, self.max[i]));
        }
        out
    }

    /// Adds the values before resets in and between some neighbouring windows, in order of time. Those before `next` belong to windows before.
    fn resets_of(&self, windows: Range<usize>, next: &mut usize, out: &mut Vec<f64>) {
        if self.first.is_empty() || self.last.is_empty() {
            return;
        }
        while self.reset_cells.get(*next).is_some_and(|cell| *cell < windows.start as i64) {
            *next += 1;
        }
        let mut before: Option<f64> = None;
        for i in windows {
            if self.counts[i] > 0 {
                out.extend(before.filter(|before| self.first[i] < *before));
                before = Some(self.last[i]);
            }
            while self.reset_cells.get(*next) == Some(&(i as i64)) {
                out.push(self.resets[*next]);
                *next += 1;
            }
        }
    }

    /// The windows as a level in memory, all columns having been read.
    pub(super) fn to_level(&self, start: i64, grid_ms: i64) -> Level {
        let mut level = Level::new(grid_ms);
        level.resets_kept = self.resets_kept;
        for (i, index) in self.index.iter().enumerate() {
            level.rollup.ends_ms.push(start + index * grid_ms);
            level.rollup.cells.push(self.summary(i..i + 1, (start, grid_ms), RollupColumns::ALL));
            level.flags.push(self.flags[i] as u8 & !STALE);
        }
        let resets = self.reset_cells.iter().zip(&self.resets);
        level.rollup.resets =
            resets.map(|(cell, value)| Reset { cell: *cell as usize, value: *value }).collect();
        level
    }
}

/// Reads a column of integers when it is wanted.
fn ints(r: &mut Reader<'_>, n: usize, wanted: bool, out: &mut Vec<i64>) -> Result<(), StorageError> {
    out.clear();
    let stream = r.prefixed()?;
    if wanted { read_ints(stream, n, out) } else { Ok(()) }
}

/// Reads a column of floats when it is wanted.
fn floats(r: &mut Reader<'_>, n: usize, wanted: bool, out: &mut Vec<f64>) -> Result<(), StorageError> {
    out.clear();
    let bytes = r.prefixed()?;
    if wanted { read_values(&mut Reader::new("rollup", bytes), n, out) } else { Ok(()) }
}

/// Where the values of a column are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column<'a> {
    Own(&'a [u8]),
    AsFirst,
    AsLast,
}

impl<'a> Column<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, StorageError> {
        match r.u8()? {
            OWN => Ok(Self::Own(r.prefixed()?)),
            AS_FIRST => Ok(Self::AsFirst),
            AS_LAST => Ok(Self::AsLast),
            code => Err(r.error(format!("unknown kind of column {code}"))),
        }
    }

    /// Appends the `n` values; `like` are the first column and the last one, as far as they are needed.
    fn decode(self, n: usize, like: [&[f64]; 2], out: &mut Vec<f64>) -> Result<(), StorageError> {
        match self {
            Self::Own(bytes) => return read_values(&mut Reader::new("rollup", bytes), n, out),
            Self::AsFirst => out.extend_from_slice(like[0]),
            Self::AsLast => out.extend_from_slice(like[1]),
        }
        if out.len() == n {
            Ok(())
        } else {
            Err(StorageError::decode("rollup", "a column equals a later one"))
        }
    }
}
