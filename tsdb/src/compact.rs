//! Makes blocks: cuts the head's oldest range into one ([`cut_head`]), and merges blocks into longer ones, as Prometheus's
//! levelled compaction does.
//!
//! Reading order: `plan` (which blocks become one), `merge` (how), then here what both ways have in common.

pub(crate) mod late;
pub(crate) mod merge;
pub(crate) mod plan;

use std::path::Path;
use std::sync::Arc;

use model::{Samples, StorageError};

use crate::block::index_read::SymbolPair;
use crate::block::meta::{Compaction, Ulid};
use crate::block::{Block, BlockWriter};
use crate::chunk;
use crate::head::Head;
use crate::head::delete::shown;
use crate::head::isolation::Snapshot;
use crate::head::series::{HeadChunk, MemSeries};
use crate::head::symbols::Symbols;
use crate::metrics::Metrics;

/// Writes what `seen` sees of the head before `end` into a block below `root` and opens it; `None` when there is nothing.
pub(crate) fn cut_head(
    head: &Head,
    root: &Path,
    end: i64,
    now_ms: i64,
    seen: &Snapshot,
    metrics: &Metrics,
) -> Result<Option<Block>, StorageError> {
    let last = end.saturating_sub(1);
    let mut series: Vec<Arc<MemSeries>> = Vec::new();
    head.series.for_each(|s| {
        if s.state.lock().overlaps(i64::MIN, last) {
            series.push(s.clone());
        }
    });
    head.series.sort(&mut series, |s| s);
    let mut symbols = head.series.symbols(series.iter().map(|s| &**s));
    let ulid = Ulid::new(now_ms);
    let mut writer = BlockWriter::create(root, ulid, |out| symbols.write(|symbol| out.add(symbol)))?;
    if let Err(e) = write_series(head, &series, &symbols, (end, seen), &mut writer, metrics) {
        writer.abandon();
        return Err(e);
    }
    let compaction = Compaction { level: 1, sources: vec![ulid.to_string()], ..Compaction::default() };
    if writer.finish((None, Some(end)), compaction)?.is_none() {
        return Ok(None);
    }
    Block::open(&root.join(ulid.to_string()), ulid).map(Some)
}

fn write_series(
    head: &Head,
    series: &[Arc<MemSeries>],
    symbols: &Symbols,
    (end, seen): (i64, &Snapshot),
    writer: &mut BlockWriter,
    metrics: &Metrics,
) -> Result<(), StorageError> {
    let tombstones = head.tombstones();
    let sizes = metrics.chunk_size.local();
    let counts = metrics.chunk_samples.local();
    let ranges = metrics.chunk_range.local();
    let mut found: Vec<HeadChunk> = Vec::new();
    let mut pairs: Vec<SymbolPair> = Vec::new();
    for s in series {
        found.clear();
        s.state.lock().chunks((i64::MIN, end.saturating_sub(1)), seen, &head.files, &mut found)?;
        for c in found.drain(..) {
            each_before(c, end, tombstones.of(s.reference.0), |mint, maxt, encoding, data| {
                sizes.observe(data.len() as f64);
                counts.observe(f64::from(chunk::sample_count(encoding, data)));
                ranges.observe((maxt - mint) as f64);
                writer.add_chunk(mint, maxt, encoding, data)
            })?;
        }
        pairs.clear();
        pairs.extend(symbols.pairs_of(s));
        writer.end_series(&pairs)?;
    }
    sizes.flush();
    counts.flush();
    ranges.flush();
    Ok(())
}

/// Gives the part of a chunk that is before `end` and not deleted. Chunks do not cross the end of a block, so this is
/// nearly always the whole chunk; it is not when the length of blocks was changed.
fn each_before(
    c: HeadChunk,
    end: i64,
    deleted: &[(i64, i64)],
    mut give: impl FnMut(i64, i64, u8, &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    if c.maxt < end && !deleted.iter().any(|(a, b)| *a <= c.maxt && c.mint <= *b) {
        return give(c.mint, c.maxt, c.encoding, &c.bytes);
    }
    let mut samples = Samples::new();
    if let Some(rest) = shown(c, deleted)? {
        rest.decode(i64::MIN, end - 1, &mut samples)?;
    }
    samples.clip(i64::MIN, end - 1);
    encode(&samples, give)
}

/// Encodes samples into chunks `(mint, maxt, encoding, bytes)`, in encodings that hold start timestamps where there are some.
pub(crate) fn encode(
    samples: &Samples,
    mut give: impl FnMut(i64, i64, u8, &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let chunks = chunk::encode(samples, chunk::Encodings::default());
    chunks.into_iter().try_for_each(|(mint, maxt, encoding, bytes)| give(mint, maxt, encoding, &bytes))
}
