//! Rows: the levels of one part, with a head that says how far they reach. Spec: docs/formats/longterm.md#rollups.

use model::rollup::{Summary, is_summable};
use model::{RollupColumns, Samples, StorageError};

use super::block::{Columns, IRREGULAR, Level, STARTS, put_block};
use super::{Family, Part, window_end};
use crate::store::varint::{Reader, check_crc, put_crc, put_varint};

const VERSION: u8 = 1;

/// The levels of a part in memory.
#[derive(Clone, Debug)]
pub(in crate::store) struct Row {
    part: Part,
    /// Timestamp of the last sample, stale marker or histogram that the row stands for.
    pub(in crate::store) maxt: i64,
    /// How many those are.
    pub(in crate::store) samples: u64,
    pub(in crate::store) levels: Vec<Level>,
}

/// What the first bytes of a row say, and where its blocks are.
pub(super) struct RowHead<'a> {
    pub(super) maxt: i64,
    samples: u64,
    /// Length of windows and bytes, checksums included.
    blocks: Vec<(i64, &'a [u8])>,
}

impl Row {
    pub(in crate::store) fn new(family: &Family, part: Part) -> Self {
        let levels = family.grids_ms.iter().map(|grid| Level::new(*grid)).collect();
        Self { part, maxt: i64::MIN, samples: 0, levels }
    }

    /// A row of all samples of a part, which may be none.
    pub(in crate::store) fn of(family: &Family, part: Part, samples: &Samples) -> Self {
        let mut row = Self::new(family, part);
        row.push(samples, 0..samples.len());
        row
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// Adds samples of the part that are later than all the row stands for.
    pub(in crate::store) fn push(&mut self, samples: &Samples, range: std::ops::Range<usize>) {
        let ts = &samples.timestamps_ms[range.clone()];
        let (Some(first), Some(last)) = (ts.first(), ts.last()) else { return };
        assert!(
            *first > self.maxt && *first >= self.part.start && *last < self.part.end,
            "later, of this part"
        );
        self.maxt = *last;
        self.samples += ts.len() as u64;
        for level in &mut self.levels {
            level.push(samples, range.clone());
        }
    }

    /// The bytes of a row that is not empty.
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let blocks: Vec<Vec<u8>> = self
            .levels
            .iter()
            .map(|level| {
                let mut block = Vec::with_capacity(512);
                put_block(&mut block, level, self.part.start);
                put_crc(&mut block);
                block
            })
            .collect();
        let mut head = Vec::with_capacity(32);
        put_varint(&mut head, (self.maxt - self.part.start) as u64);
        put_varint(&mut head, self.samples);
        for (level, block) in self.levels.iter().zip(&blocks) {
            put_varint(&mut head, level.grid_ms as u64);
            put_varint(&mut head, block.len() as u64);
        }
        let mut out = vec![VERSION, u8::try_from(head.len()).expect("six short numbers")];
        out.extend_from_slice(&head);
        put_crc(&mut out);
        blocks.iter().for_each(|b| out.extend_from_slice(b));
        out
    }

    /// Tells where a row differs from one made anew. Sums may differ as rounding does; which resets are kept depends on how the row
    /// came about.
    pub(in crate::store) fn check_against(&self, made: &Self) -> Result<(), String> {
        if (self.maxt, self.samples) != (made.maxt, made.samples) {
            return Err(format!(
                "it is about {} samples until {}, there are {} until {}",
                self.samples, self.maxt, made.samples, made.maxt
            ));
        }
        for (a, b) in self.levels.iter().zip(&made.levels) {
            let grid = a.grid_ms;
            if (&a.rollup.ends_ms, &a.flags) != (&b.rollup.ends_ms, &b.flags) {
                return Err(format!("its windows of {grid} ms are not those of the samples"));
            }
            let pairs = a.rollup.cells.iter().zip(&b.rollup.cells);
            if let Some((_, end)) = pairs.zip(&a.rollup.ends_ms).find(|((a, b), _)| !same_cell(a, b)) {
                return Err(format!("the window of {grid} ms until {end} is not what its samples come to"));
            }
            if a.resets_kept && b.resets_kept && a.rollup.resets != b.rollup.resets {
                return Err(format!("the resets in its windows of {grid} ms are not those of the samples"));
            }
        }
        Ok(())
    }

    /// Reads a row whole.
    pub(in crate::store) fn decode(family: &Family, part: Part, bytes: &[u8]) -> Result<Self, StorageError> {
        let head = RowHead::read(part, bytes)?;
        let mut columns = Columns::default();
        let mut levels = Vec::with_capacity(family.grids_ms.len());
        for (at, grid_ms) in family.grids_ms.iter().enumerate() {
            head.block(at, *grid_ms, RollupColumns::ALL, &mut columns)?;
            levels.push(columns.to_level(part.start, *grid_ms));
        }
        Ok(Self { part, maxt: head.maxt, samples: head.samples, levels })
    }
}

fn same_cell(a: &Summary, b: &Summary) -> bool {
    let bits = |c: &Summary| [c.min, c.max, c.first, c.last].map(f64::to_bits);
    let ends = |c: &Summary| (c.count, c.is_stale, c.first_ms, c.last_ms);
    let (x, y) = (a.total(), b.total());
    let size = b.count as f64 * b.min.abs().max(b.max.abs());
    let near = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-12 * size;
    if a.count == 0 || b.count == 0 {
        return (a.count, a.is_stale) == (b.count, b.is_stale);
    }
    ends(a) == ends(b) && bits(a) == bits(b) && near
}

impl<'a> RowHead<'a> {
    pub(super) fn read(part: Part, bytes: &'a [u8]) -> Result<Self, StorageError> {
        let short = || StorageError::decode("rollup", "ends in its head");
        let (start, _) = bytes.split_at_checked(2).ok_or_else(short)?;
        if start[0] != VERSION {
            return Err(StorageError::decode("rollup", format!("unknown version {}", start[0])));
        }
        let head_len = 2 + start[1] as usize + 4;
        let (head, mut rest) = bytes.split_at_checked(head_len).ok_or_else(short)?;
        let mut r = Reader::new("rollup", &check_crc("rollup", head)?[2..]);
        let (reach, samples) = (r.varint()?, r.varint()?);
        if reach >= (part.end - part.start) as u64 {
            return Err(r.error("reaches beyond its part"));
        }
        let mut blocks = Vec::with_capacity(2);
        while !r.is_empty() {
            let (grid, len) = (r.varint()?, r.varint()?);
            let (block, after) =
                rest.split_at_checked(usize::try_from(len).unwrap_or(usize::MAX)).ok_or_else(short)?;
            blocks.push((i64::try_from(grid).unwrap_or(0), block));
            rest = after;
        }
        Ok(Self { maxt: part.start + reach as i64, samples, blocks })
    }

    /// Reads what is `wanted` of a level.
    pub(super) fn block(
        &self,
        level: usize,
        grid_ms: i64,
        wanted: RollupColumns,
        columns: &mut Columns,
    ) -> Result<(), StorageError> {
        match self.blocks.get(level) {
            Some((grid, block)) if *grid == grid_ms => columns.read(check_crc("rollup", block)?, wanted),
            _ => Err(StorageError::decode("rollup", "a level is missing")),
        }
    }
}

impl Level {
    /// Adds samples that are later than those at hand.
    pub(super) fn push(&mut self, samples: &Samples, range: std::ops::Range<usize>) {
        let mut end = i64::MIN;
        for i in range {
            let t = samples.timestamps_ms[i];
            if t > end {
                end = window_end(t, self.grid_ms);
            }
            let value = samples.values[i];
            let odd = sample_flags(samples, i);
            if odd & IRREGULAR != 0 {
                self.mark(end, odd);
                continue;
            }
            self.rollup.push_sample(end, t, value);
            if self.flags.len() < self.rollup.cells.len() {
                self.flags.push(odd);
            } else if let Some(flags) = self.flags.last_mut() {
                *flags |= odd;
            }
        }
    }

    fn mark(&mut self, end: i64, odd: u8) {
        if self.rollup.ends_ms.last() != Some(&end) {
            self.rollup.ends_ms.push(end);
            self.rollup.cells.push(Summary::default());
            self.flags.push(0);
        }
        if let Some(flags) = self.flags.last_mut() {
            *flags |= odd;
        }
    }
}

/// What is special about a sample.
#[inline]
pub(super) fn sample_flags(samples: &Samples, i: usize) -> u8 {
    let value = samples.values[i];
    let irregular = if is_summable(value) && samples.histogram(i).is_none() { 0 } else { IRREGULAR };
    irregular | if samples.start_timestamp_ms(i) != 0 { STARTS } else { 0 }
}
