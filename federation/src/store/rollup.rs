//! Rollups: what the samples of a series come to over windows of five minutes, an hour and a day, kept beside the chunks, so that
//! queries over a year need not decode them.
//!
//! A row is about one *part* of a month of one series: the samples in `[start, end)`, a day in `agg5m`, eight days in `agg1h`, which holds two
//! levels, days and hours. **A row stands for all sealed samples of its part**: it is written in the same RocksDB write as the
//! chunks. A part with sealed samples and without a row is answered from its chunks, until maintenance fills it in.
//! Windows `(end - grid, end]` reach over the end of a part by the millisecond at its very end; readers put both pieces together.
//!
//! Read in this order: [`block`] for the bytes, [`row`], [`keep`] for sealing and deleting, [`fill`] for maintenance, [`read`] for queries.
//! Spec: docs/formats/longterm.md#rollups.

mod block;
mod fill;
mod keep;
mod read;
mod row;

pub(super) use fill::FillState;
pub(super) use keep::read_sealed;
pub(super) use read::RollupReader;
pub(super) use row::Row;

use model::Resolutions;

use super::families::{AGG1H, AGG5M};
use super::keys::{DAY_MS, Month, month_end_ms, month_start_ms};

const MINUTES_5_MS: i64 = 300_000;
const HOUR_MS: i64 = 3_600_000;
/// Days of a part of `agg1h`; the last part of a month takes what is left.
const PART_DAYS: i64 = 8;
/// Key in `meta` that says that no part with samples lacks its row.
pub(super) const FILLED_KEY: &[u8] = b"rolled up";

/// A column family of rollups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    /// Lengths of the windows of its levels, longest first.
    pub(super) grids_ms: &'static [i64],
    resolution: Resolutions,
}

pub(super) static HOURS: Family =
    Family { name: AGG1H, grids_ms: &[DAY_MS, HOUR_MS], resolution: Resolutions::HOUR };
pub(super) static MINUTES: Family =
    Family { name: AGG5M, grids_ms: &[MINUTES_5_MS], resolution: Resolutions::MINUTES_5 };

/// Lengths of all windows.
pub static ROLLUP_GRIDS_MS: [i64; 3] = [DAY_MS, HOUR_MS, MINUTES_5_MS];

/// All of them, the coarsest first.
pub(super) static ROLLUPS: [&Family; 2] = [&HOURS, &MINUTES];

/// A range of a month that has a row of its own: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Family {
    /// The part of a month that `t`, a timestamp of this month, lies in.
    pub(super) fn part_of(&self, month: Month, t: i64) -> Part {
        let month_start = month_start_ms(month);
        let days = (t - month_start) / DAY_MS;
        if *self == MINUTES {
            let start = month_start + days * DAY_MS;
            return Part { start, end: start + DAY_MS };
        }
        let number = (days / PART_DAYS).min(3);
        let start = month_start + number * PART_DAYS * DAY_MS;
        let end = if number == 3 { month_end_ms(month) } else { start + PART_DAYS * DAY_MS };
        // The last days of February fit in the third part.
        Part { start, end: end.min(month_end_ms(month)) }
    }
}

/// End of the window `(end - grid, end]` that `t` lies in.
#[inline]
fn window_end(t: i64, grid_ms: i64) -> i64 {
    (t + grid_ms - 1).div_euclid(grid_ms) * grid_ms
}

#[cfg(test)]
mod tests {
    use super::super::keys::month_of;
    use super::*;

    #[test]
    fn parts_cover_each_month_without_overlap() {
        for month in [361, 362, 673, 674, 680] {
            for family in ROLLUPS {
                let mut at = month_start_ms(month);
                let mut parts = 0;
                while at < month_end_ms(month) {
                    let part = family.part_of(month, at);
                    assert_eq!((part.start, family.part_of(month, part.end - 1)), (at, part));
                    assert_eq!(month_of(part.end - 1), month);
                    at = part.end;
                    parts += 1;
                }
                assert_eq!(at, month_end_ms(month));
                assert!(parts == 4 || *family == MINUTES, "{parts} parts in {month}");
            }
        }
    }

    #[test]
    fn windows_are_closed_on_the_right() {
        assert_eq!(
            [0, 1, 300_000, 300_001].map(|t| window_end(t, MINUTES_5_MS)),
            [0, 300_000, 300_000, 600_000]
        );
    }
}
