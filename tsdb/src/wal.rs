//! The write-ahead log, in Prometheus's format (docs/formats/wal.md).
//!
//! Reading order: `segment` (names, framing), `record` (what records hold), `writer` ([`Wal`]: commits, syncs, holds),
//! `reader` (records of a segment, replay and repair), `checkpoint` (what stays of segments that go), `tail` (live
//! followers).
//!
//! Invariants: a record never crosses segments; all records of one commit lie in one segment and are written by one
//! call; a series record comes before every record that names its reference.

pub(crate) mod checkpoint;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod tail;
pub(crate) mod writer;

pub(crate) use record::Record;
pub(crate) use writer::Wal;

/// Segments are written in pages of this length; a fragment never crosses one.
pub(crate) const PAGE_LEN_BYTES: usize = 32 << 10;
/// Type, length and checksum before each fragment.
pub(crate) const HEADER_LEN_BYTES: usize = 7;
const _: () = assert!(PAGE_LEN_BYTES - HEADER_LEN_BYTES <= u16::MAX as usize, "lengths have two bytes");

#[cfg(test)]
mod tests;
