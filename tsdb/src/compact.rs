//! Makes blocks: cuts the head's oldest range into one. (Merging blocks into longer ones will live here too: it reads
//! `block::Block`s and writes through the same `BlockWriter`.)

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::{Samples, StorageError};

use crate::block::meta::{Compaction, Ulid};
use crate::block::{Block, BlockWriter};
use crate::chunk::{self, OpenChunk};
use crate::head::Head;
use crate::head::isolation::Snapshot;
use crate::head::series::{HeadChunk, MemSeries};

/// Writes everything in the head before `end` into a block and opens it; `None` when there is nothing. No commit may add
/// such samples any more.
pub(crate) fn cut_head(
    head: &Head,
    root: &Path,
    end: i64,
    now_ms: i64,
) -> Result<Option<Block>, StorageError> {
    let last = end - 1;
    let mut series: Vec<Arc<MemSeries>> = Vec::new();
    head.series.for_each(|s| {
        if s.state.lock().overlaps(i64::MIN, last) {
            series.push(s.clone());
        }
    });
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    let symbols: BTreeSet<&str> =
        series.iter().flat_map(|s| s.labels.iter()).flat_map(|(n, v)| [n, v]).collect();

    let ulid = Ulid::new(now_ms);
    let mut writer = BlockWriter::create(root, ulid, symbols.iter().copied())?;
    let everything = Snapshot::everything();
    let mut found: Vec<HeadChunk> = Vec::new();
    let mut chunks = Vec::new();
    for s in &series {
        found.clear();
        chunks.clear();
        s.state.lock().chunks(i64::MIN, last, &everything, &mut found);
        for c in found.drain(..) {
            chunks.extend(before(c, end)?);
        }
        if !chunks.is_empty() {
            writer.add_series(&s.labels, &chunks)?;
        }
    }
    let compaction = Compaction { level: 1, sources: vec![ulid.to_string()], ..Compaction::default() };
    if writer.finish(end, compaction)?.is_none() {
        return Ok(None);
    }
    Block::open(&root.join(ulid.to_string()), ulid).map(Some)
}

/// The part of a chunk before `end`. Chunks do not cross the end of a block, so this is nearly always the whole chunk; it is
/// not when the length of blocks was changed.
fn before(c: HeadChunk, end: i64) -> Result<Option<(i64, i64, u8, Bytes)>, StorageError> {
    if c.maxt < end {
        return Ok(Some((c.mint, c.maxt, c.encoding, c.bytes)));
    }
    let codec = chunk::codec(c.encoding).expect("the head writes encodings it can read");
    let mut samples = Samples::new();
    codec.decode(&c.bytes, i64::MIN, end - 1, &mut samples)?;
    samples.clip(i64::MIN, end - 1);
    let (Some(mint), Some(maxt)) = (samples.timestamps_ms.first(), samples.timestamps_ms.last()) else {
        return Ok(None);
    };
    let mut out = OpenChunk::new(&samples.get(0).value);
    samples.iter().for_each(|s| out.append(s.timestamp_ms, &s.value));
    Ok(Some((*mint, *maxt, c.encoding, out.encode_first(out.count()))))
}
