//! Rollups on the way from a long-term node to a scraper node: an extension of remote read between nodes of this program.
//!
//! A query may carry a [`RollupRequest`] in field 1000 of `prometheus.Query`; servers that do not know it pass it over and answer with
//! chunks of samples. One that does may answer a series with one chunk of encoding [`ENCODING`] in place of its chunks:
//!
//! ```text
//! version u8 = 1 · columns u8 · resolutions u8 · number of cells · cells · number of resets · resets
//! cell:  end, as what it is more than the one before (zigzag) · count << 1 | stale · the columns that there are:
//!        sum f64 · compensation f64 · min f64 · max f64 · end - first time · first f64 · end - last time · last f64
//! reset: cell, as what it is more than the one before · value f64
//! ```
//!
//! Numbers are varints, floats eight bytes, little-endian.

use model::rollup::{Reset, Summary};
use model::{Resolutions, Rollup, RollupColumns, RollupRequest};

use crate::error::Error;
use crate::proto::{Cursor, put_varint, unzigzag, zigzag};

/// Encoding of a chunk that is a rollup. Prometheus counts its encodings up from 1.
pub const ENCODING: u8 = 0xf0;

const VERSION: u8 = 1;
const MESSAGE: &str = "rollup";

/// Appends a rollup of which `columns` are known.
pub fn encode(rollup: &Rollup, columns: RollupColumns, out: &mut Vec<u8>) {
    out.extend([VERSION, columns.bits(), rollup.resolutions.bits()]);
    put_varint(out, rollup.cells.len() as u64);
    let mut before = 0_i64;
    for (end, cell) in rollup.ends_ms.iter().zip(&rollup.cells) {
        put_varint(out, zigzag(end.wrapping_sub(before)));
        before = *end;
        put_varint(out, cell.count << 1 | u64::from(cell.is_stale));
        let mut floats = |values: &[f64]| values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        if columns.has(RollupColumns::SUM) {
            floats(&[cell.sum, cell.compensation]);
        }
        if columns.has(RollupColumns::MIN) {
            floats(&[cell.min]);
        }
        if columns.has(RollupColumns::MAX) {
            floats(&[cell.max]);
        }
        for (column, t, v) in [
            (RollupColumns::FIRST, cell.first_ms, cell.first),
            (RollupColumns::LAST, cell.last_ms, cell.last),
        ] {
            if columns.has(column) {
                put_varint(out, zigzag(end.wrapping_sub(t)));
                out.extend(v.to_le_bytes());
            }
        }
    }
    put_varint(out, rollup.resets.len() as u64);
    let mut before = 0;
    for reset in &rollup.resets {
        put_varint(out, (reset.cell - before) as u64);
        before = reset.cell;
        out.extend(reset.value.to_le_bytes());
    }
}

/// Reads a rollup of at most so many cells, which take more memory than bytes.
///
/// # Errors
/// [`Error::Malformed`]; [`Error::TooLarge`]; [`Error::Unsupported`] for a version that is not known here.
pub fn decode(bytes: &[u8], most_cells: usize) -> Result<Rollup, Error> {
    let mut c = Cursor::new(bytes, MESSAGE);
    let version = byte(&mut c)?;
    if version != VERSION {
        return Err(Error::Unsupported(format!("rollups of version {version}, known is {VERSION}")));
    }
    let columns = RollupColumns::from_bits(byte(&mut c)?);
    let mut out = Rollup { resolutions: Resolutions::from_bits(byte(&mut c)?), ..Rollup::default() };
    let cells = length(&mut c, 2)?;
    if cells > most_cells {
        let size = |n: usize| n.saturating_mul(size_of::<Summary>());
        return Err(Error::TooLarge { len: size(cells), limit: size(most_cells) });
    }
    out.ends_ms.reserve(cells);
    out.cells.reserve(cells);
    let mut end = 0_i64;
    for i in 0..cells {
        let step = unzigzag(c.varint()?);
        end = end.wrapping_add(step);
        if i > 0 && (step <= 0 || end <= out.ends_ms[i - 1]) {
            return Err(c.error("ends of cells do not rise"));
        }
        out.ends_ms.push(end);
        out.cells.push(read_cell(&mut c, end, columns)?);
    }
    let resets = length(&mut c, 9)?;
    out.resets.reserve(resets);
    let mut cell = 0_usize;
    for _ in 0..resets {
        let step = usize::try_from(c.varint()?).unwrap_or(usize::MAX);
        cell = cell.saturating_add(step);
        if cell >= cells {
            return Err(c.error("a reset of no cell"));
        }
        out.resets.push(Reset { cell, value: float(&mut c)? });
    }
    if !c.is_empty() {
        return Err(c.error("bytes after the end"));
    }
    Ok(out)
}

fn read_cell(c: &mut Cursor<'_>, end: i64, columns: RollupColumns) -> Result<Summary, Error> {
    let count = c.varint()?;
    let mut cell = Summary { count: count >> 1, is_stale: count & 1 == 1, ..Summary::default() };
    if columns.has(RollupColumns::SUM) {
        (cell.sum, cell.compensation) = (float(c)?, float(c)?);
    }
    if columns.has(RollupColumns::MIN) {
        cell.min = float(c)?;
    }
    if columns.has(RollupColumns::MAX) {
        cell.max = float(c)?;
    }
    if columns.has(RollupColumns::FIRST) {
        (cell.first_ms, cell.first) = (end.wrapping_sub(unzigzag(c.varint()?)), float(c)?);
    }
    if columns.has(RollupColumns::LAST) {
        (cell.last_ms, cell.last) = (end.wrapping_sub(unzigzag(c.varint()?)), float(c)?);
    }
    Ok(cell)
}

fn byte(c: &mut Cursor<'_>) -> Result<u8, Error> {
    Ok(c.take(1)?.rest()[0])
}

fn float(c: &mut Cursor<'_>) -> Result<f64, Error> {
    let bytes = c.take(8)?;
    let bytes = bytes.rest().try_into().expect("eight bytes were taken");
    Ok(f64::from_le_bytes(bytes))
}

/// A number of things, each of which takes at least so many bytes: more than the bytes that are left cannot be.
fn length(c: &mut Cursor<'_>, least_bytes: usize) -> Result<usize, Error> {
    let n = c.varint()?;
    usize::try_from(n)
        .ok()
        .filter(|n| n.saturating_mul(least_bytes) <= c.rest().len())
        .ok_or_else(|| c.error("more than there are bytes"))
}

/// A request as a message of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RequestMessage {
    #[prost(int64, tag = "1")]
    width_ms: i64,
    #[prost(int64, tag = "2")]
    period_ms: i64,
    #[prost(int64, tag = "3")]
    end_ms: i64,
    #[prost(uint32, tag = "4")]
    columns: u32,
    #[prost(bool, tag = "5")]
    starts: bool,
}

impl RequestMessage {
    pub(crate) fn of(r: &RollupRequest) -> Self {
        Self {
            width_ms: r.width_ms,
            period_ms: r.period_ms,
            end_ms: r.end_ms,
            columns: r.columns.bits().into(),
            starts: r.starts,
        }
    }

    /// The request, if it is one that can be answered; else samples are as good.
    pub(crate) fn request(&self) -> Option<RollupRequest> {
        (self.width_ms > 0 && self.period_ms >= self.width_ms).then(|| RollupRequest {
            width_ms: self.width_ms,
            period_ms: self.period_ms,
            end_ms: self.end_ms,
            columns: RollupColumns::from_bits(self.columns as u8),
            starts: self.starts,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rollup() -> Rollup {
        let mut out = Rollup { resolutions: Resolutions::RAW.and(Resolutions::HOUR), ..Rollup::default() };
        let values = [3.0, 5.0, 2.0, f64::NAN, 1e100, -0.0, 7.0, 1.0, model::stale_nan()];
        for (i, v) in values.iter().enumerate() {
            let t = -5 + 4 * i as i64;
            out.push_sample(t.div_euclid(10) * 10 + 10, t, *v);
        }
        out
    }

    fn bits(r: &Rollup) -> String {
        // Debug shows all bits but NaN's, of which there is one kind here.
        format!("{r:?}")
    }

    #[test]
    fn all_columns_come_back() {
        let rollup = rollup();
        let mut bytes = vec![9];
        encode(&rollup, RollupColumns::ALL, &mut bytes);
        assert_eq!(bits(&decode(&bytes[1..], 9).expect("own bytes")), bits(&rollup));
        for len in 1..bytes.len() {
            assert!(decode(&bytes[1..len], 9).is_err(), "{len}");
        }
        let few = rollup.cells.len() - 1;
        assert!(matches!(decode(&bytes[1..], few), Err(Error::TooLarge { .. })));
        bytes.push(0);
        assert!(matches!(decode(&bytes[1..], 9), Err(Error::Malformed { .. })));
        bytes[1] = 2;
        assert!(matches!(decode(&bytes[1..], 9), Err(Error::Unsupported(_))));
    }

    #[test]
    fn columns_that_nobody_needs_take_no_bytes() {
        let rollup = rollup();
        let mut bytes = Vec::new();
        encode(&rollup, RollupColumns::MAX, &mut bytes);
        let read = decode(&bytes, 100).expect("own bytes");
        let max = |r: &Rollup| r.cells.iter().map(|c| (c.count, c.max.to_bits())).collect::<Vec<_>>();
        assert_eq!((max(&read), read.cells[0].sum), (max(&rollup), 0.0));
        assert!(bytes.len() < 5 + rollup.cells.len() * 11 + rollup.resets.len() * 10);
    }

    #[test]
    fn requests_come_back_and_nonsense_is_none() {
        let r = RollupRequest {
            width_ms: 5,
            period_ms: 10,
            end_ms: -3,
            columns: RollupColumns::RESETS,
            starts: true,
        };
        assert_eq!(RequestMessage::of(&r).request(), Some(r));
        assert_eq!(RequestMessage { width_ms: 0, ..RequestMessage::of(&r) }.request(), None);
        assert_eq!(RequestMessage { period_ms: 4, ..RequestMessage::of(&r) }.request(), None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 100);
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _ = decode(&bytes, 100);
        }
    }
}
