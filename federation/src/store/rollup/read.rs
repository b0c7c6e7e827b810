//! Reading rollups for a query: rows where they are, chunks and open samples summed up where they are not.
//!
//! A series is answered so only when some row helps and nothing in its windows is irregular; else its samples are handed out.
//! Rows and chunks are read in one snapshot that is younger than the copy of the open samples: an open sample that is sealed meanwhile is found
//! twice, seen by its time, and counted once.

use std::sync::Arc;

use model::{Chunk, Resolutions, Rollup, RollupColumns, RollupRequest, Samples, StorageError};
use rocksdb::DBRawIterator;

use super::block::{Columns, IRREGULAR, STARTS};
use super::row::{RowHead, sample_flags};
use super::{Family, Part, ROLLUPS};
use crate::store::Inner;
use crate::store::chunk_rows::ChunkRows;
use crate::store::keys::{Month, month_end_ms, month_start_ms, parse_sample_key, sample_key};
use crate::store::seal::merge_all;

/// Cells of one series that an answer may have; a longer one is given as samples.
const MAX_CELLS: i64 = 1 << 18;

/// How a selection is answered from rollups: the level that is read, and for which range.
pub(in crate::store) struct RollupReader {
    request: RollupRequest,
    family: &'static Family,
    level: usize,
    grid_ms: i64,
    mint: i64,
    maxt: i64,
    columns: Columns,
    sealed: Samples,
    scratch: Vec<f64>,
}

/// Why a series is not answered from rollups.
enum Stop {
    /// Something cannot be summed up.
    Irregular,
    Failed(StorageError),
}

impl From<StorageError> for Stop {
    fn from(e: StorageError) -> Self {
        Self::Failed(e)
    }
}

/// A series on its way.
struct Series<'a> {
    inner: &'a Inner,
    id: u64,
    open: &'a Samples,
    out: Rollup,
    rows: u64,
}

impl RollupReader {
    /// The coarsest level that has the cells of the request, for samples within `[mint, maxt]`. `None` when there is none.
    pub(in crate::store) fn new(request: &RollupRequest, mint: i64, maxt: i64) -> Option<Self> {
        if mint > maxt || maxt.saturating_sub(mint) / request.period_ms > MAX_CELLS {
            return None;
        }
        let levels = ROLLUPS.iter().flat_map(|family| {
            family.grids_ms.iter().enumerate().map(move |(level, grid)| (*family, level, *grid))
        });
        let (family, level, grid_ms) = levels
            .into_iter()
            .filter(|(_, _, grid)| request.is_on(*grid))
            .max_by_key(|(_, _, grid)| *grid)?;
        Some(Self {
            request: *request,
            family,
            level,
            grid_ms,
            mint,
            maxt,
            columns: Columns::default(),
            sealed: Samples::new(),
            scratch: Vec::new(),
        })
    }

    /// The column family that is read.
    pub(in crate::store) fn family(&self) -> &'static str {
        self.family.name
    }

    /// The rollup of a series as a chunk, if that is how it is answered; it may be empty of cells, and then there is no chunk in it.
    /// `open` are the open samples of the series in order.
    pub(in crate::store) fn series(
        &mut self,
        inner: &Inner,
        rows: &mut DBRawIterator<'_>,
        raw: &mut ChunkRows<'_>,
        months: impl Iterator<Item = Month>,
        id: u64,
        open: &Samples,
    ) -> Result<Option<Vec<Chunk>>, StorageError> {
        let mut series = Series { inner, id, open, out: Rollup::default(), rows: 0 };
        for month in months {
            match self.month(&mut series, rows, raw, month) {
                Ok(()) => {}
                Err(Stop::Irregular) => return Ok(None),
                Err(Stop::Failed(e)) => return Err(e),
            }
        }
        if series.rows == 0 {
            return Ok(None);
        }
        if series.out.is_empty() {
            return Ok(Some(Vec::new()));
        }
        Ok(Some(vec![Chunk::rollup(Arc::new(series.out), self.mint, self.maxt)]))
    }

    fn month(
        &mut self,
        s: &mut Series<'_>,
        rows: &mut DBRawIterator<'_>,
        raw: &mut ChunkRows<'_>,
        month: Month,
    ) -> Result<(), Stop> {
        let (lo, hi) = (self.mint.max(month_start_ms(month)), self.maxt.min(month_end_ms(month) - 1));
        if lo > hi {
            return Ok(());
        }
        // Everything before is done.
        let mut at = lo;
        let first = self.family.part_of(month, lo);
        rows.seek(sample_key(month, s.id, first.start));
        while let Some((key, value)) = rows.item() {
            let Some((m, i, start)) = parse_sample_key(key) else { break };
            if (m, i) != (month, s.id) || start > hi {
                break;
            }
            let part = self.family.part_of(month, start);
            if at < part.start {
                self.samples(s, raw, month, at, part.start - 1)?;
            }
            match self.row(s, part, value) {
                Ok(true) => {}
                Ok(false) => self.samples(s, raw, month, part.start.max(lo), (part.end - 1).min(hi))?,
                Err(Stop::Failed(e)) => {
                    // Samples are as good, only slower.
                    s.inner.report_damage(self.family, (month, s.id), part, &e);
                    return Err(Stop::Irregular);
                }
                Err(stop) => return Err(stop),
            }
            at = part.end;
            rows.next();
        }
        rows.status().map_err(|e| s.inner.error("read rollups of", &e))?;
        if at <= hi {
            self.samples(s, raw, month, at, hi)?;
        }
        Ok(())
    }

    /// Adds the windows of a row and the open samples of its part, if all open samples are later; `false` when its samples must be read.
    fn row(&mut self, s: &mut Series<'_>, part: Part, bytes: &[u8]) -> Result<bool, Stop> {
        let head = RowHead::read(part, bytes)?;
        let ts = &s.open.timestamps_ms;
        let from = ts.partition_point(|t| *t < part.start);
        let to = from + ts[from..].partition_point(|t| *t < part.end);
        let is_late = ts[from..to].first().is_some_and(|t| *t <= head.maxt);
        // Retention may begin within a window.
        let is_cut = |bound: i64| bound > part.start && bound <= head.maxt && (bound - 1) % self.grid_ms != 0;
        if is_late || is_cut(self.mint) || is_cut(self.maxt.saturating_add(1)) {
            return Ok(false);
        }
        s.rows += 1;
        s.out.resolutions = s.out.resolutions.and(self.family.resolution);
        if self.needs(part) {
            self.windows(s, part, &head)?;
        }
        self.open_samples(s, from..to)?;
        Ok(true)
    }

    /// Whether some cell reaches into a part.
    fn needs(&self, part: Part) -> bool {
        self.request.end_from(part.start).saturating_sub(self.request.width_ms) < part.end
    }

    fn windows(&mut self, s: &mut Series<'_>, part: Part, head: &RowHead<'_>) -> Result<(), Stop> {
        let wanted = self.request.columns;
        head.block(self.level, self.grid_ms, wanted, &mut self.columns)?;
        if wanted.has(RollupColumns::RESETS) && !self.columns.resets_kept {
            return Err(Stop::Irregular);
        }
        let grid = (part.start, self.grid_ms);
        let range = (self.mint, self.maxt);
        match self.columns.fold(grid, range, &self.request, &mut self.scratch, &mut s.out) {
            true => Ok(()),
            false => Err(Stop::Irregular),
        }
    }

    fn open_samples(&self, s: &mut Series<'_>, range: std::ops::Range<usize>) -> Result<(), Stop> {
        let open = s.open;
        self.add(&mut s.out, open, range)
    }

    /// Adds samples as they are.
    fn add(&self, out: &mut Rollup, samples: &Samples, range: std::ops::Range<usize>) -> Result<(), Stop> {
        for i in range {
            let t = samples.timestamps_ms[i];
            if t < self.mint || t > self.maxt {
                continue;
            }
            let Some(end_ms) = self.request.cell_of(t) else { continue };
            let flags = sample_flags(samples, i);
            if flags & IRREGULAR != 0 || (self.request.starts && flags & STARTS != 0) {
                return Err(Stop::Irregular);
            }
            out.push_sample(end_ms, t, samples.values[i]);
            out.resolutions = out.resolutions.and(Resolutions::RAW);
        }
        Ok(())
    }

    /// Adds the sealed and open samples within `[from, to]`.
    fn samples(
        &mut self,
        s: &mut Series<'_>,
        raw: &mut ChunkRows<'_>,
        month: Month,
        from: i64,
        to: i64,
    ) -> Result<(), Stop> {
        let mut sealed = std::mem::take(&mut self.sealed);
        s.inner.read_sealed(raw, (month, s.id), from, to, &mut sealed)?;
        let mut open = Samples::new();
        if s.open.timestamps_ms.last().is_some_and(|t| *t >= from) {
            open = s.open.clone();
            open.clip(from, to);
        }
        if !open.is_empty() {
            // What is sealed came first and counts.
            sealed = merge_all(&sealed, &open);
        }
        let added = self.add(&mut s.out, &sealed, 0..sealed.len());
        self.sealed = sealed;
        added
    }
}
