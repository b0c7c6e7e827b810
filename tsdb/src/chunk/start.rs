//! Start timestamps within XOR2 chunks and histogram chunks of the ST kinds. Spec: docs/formats/chunk.md#start-timestamps.
//!
//! They follow the other numbers of a sample. As long as the start does not change nothing is written, so a counter that
//! never restarted costs one number per chunk, and a chunk without starts nothing.

use super::bits::{BitReader, BitWriter};

/// Header: the first sample has a start timestamp.
const FIRST_KNOWN: u8 = 0x80;
/// Header: number of the sample from which on each has one; at the latest this one, since seven bits hold no more.
const CHANGE_MAX: u16 = 0x7f;

/// What is remembered of the start timestamps of a chunk, on both ways.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StartColumn {
    start: i64,
    /// From the start to the timestamp of the sample before.
    distance: i64,
    /// Number of the sample from which on each has a start timestamp; 0: not yet.
    change_at: u16,
    first_known: bool,
}

impl StartColumn {
    /// The column of a chunk with this header.
    pub(super) fn of_header(header: u8) -> Self {
        let change_at = u16::from(header & !FIRST_KNOWN);
        Self { change_at, first_known: header & FIRST_KNOWN != 0, ..Self::default() }
    }

    /// The header as it is now.
    pub(super) fn header(&self) -> u8 {
        self.change_at as u8 | if self.first_known { FIRST_KNOWN } else { 0 }
    }

    /// Whether nothing needs to be written for this start timestamp: the hot path.
    #[inline(always)]
    pub(super) fn is_silent(&self, number: u16, start: i64) -> bool {
        self.change_at == 0 && start == self.start && number != CHANGE_MAX
    }

    /// Writes the start timestamp of sample `number` (0 is the first) at `t`, after the sample's other numbers.
    pub(super) fn put(&mut self, out: &mut BitWriter, number: u16, previous_t: i64, t: i64, start: i64) {
        if number == 0 {
            if start != 0 {
                out.put_varint(t.wrapping_sub(start));
                self.first_known = true;
            }
        } else if !self.is_silent(number, start) {
            let distance = previous_t.wrapping_sub(start);
            if self.change_at == 0 {
                self.change_at = number;
                out.put_varbit_int(distance);
            } else {
                out.put_varbit_int(distance.wrapping_sub(self.distance));
            }
            self.distance = distance;
        }
        self.start = start;
    }

    /// Reads the start timestamp of sample `number`; 0 for none.
    #[inline]
    pub(super) fn get(&mut self, r: &mut BitReader<'_>, number: u16, previous_t: i64, t: i64) -> Option<i64> {
        if number == 0 {
            if self.first_known {
                self.start = t.wrapping_sub(r.varint()?);
            }
        } else if self.change_at > 0 && number >= self.change_at {
            let v = r.varbit_int()?;
            self.distance = if number == self.change_at { v } else { self.distance.wrapping_add(v) };
            self.start = previous_t.wrapping_sub(self.distance);
        }
        Some(self.start)
    }

    /// Whether samples of the chunk have start timestamps.
    pub(super) fn is_used(&self) -> bool {
        self.first_known || self.change_at > 0
    }
}
