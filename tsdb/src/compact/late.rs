//! Cuts the late samples of the head into blocks of their own, one for each range that has some. They overlap the blocks of samples
//! in order until merging makes one of both.

use std::collections::BTreeSet;
use std::path::Path;

use model::chunk::decode_chunks;
use model::{Samples, StorageError};

use super::encode;
use crate::block::index_read::SymbolPair;
use crate::block::meta::{Compaction, FROM_OUT_OF_ORDER, Ulid};
use crate::block::{Block, BlockWriter};
use crate::head::Head;
use crate::head::delete::shown;
use crate::head::late::Leaving;

/// Writes blocks below `root` and opens them.
pub(crate) fn cut_late(
    head: &Head,
    leaving: &Leaving,
    root: &Path,
    now_ms: i64,
) -> Result<Vec<Block>, StorageError> {
    let range_ms = head.range_ms();
    let mut starts = BTreeSet::new();
    for c in leaving.series.iter().flat_map(|(_, chunks)| chunks) {
        let mut start = c.mint.div_euclid(range_ms).saturating_mul(range_ms);
        while start <= c.maxt {
            starts.insert(start);
            start = start.saturating_add(range_ms);
        }
    }
    let mut blocks: Vec<Block> = Vec::new();
    for start in starts {
        match cut_range(head, leaving, (start, start.saturating_add(range_ms)), root, now_ms) {
            Ok(block) => blocks.extend(block),
            Err(e) => {
                blocks.iter().try_for_each(Block::remove)?;
                return Err(e);
            }
        }
    }
    Ok(blocks)
}

fn cut_range(
    head: &Head,
    leaving: &Leaving,
    (start, end): (i64, i64),
    root: &Path,
    now_ms: i64,
) -> Result<Option<Block>, StorageError> {
    let overlapping =
        leaving.series.iter().filter(|(_, c)| c.iter().any(|c| c.mint < end && c.maxt >= start));
    let overlapping: Vec<_> = overlapping.collect();
    let mut symbols = head.series.symbols(overlapping.iter().map(|(s, _)| &**s));
    let ulid = Ulid::new(now_ms);
    let mut writer = BlockWriter::create(root, ulid, |out| symbols.write(|symbol| out.add(symbol)))?;
    let tombstones = head.tombstones();
    let mut samples = Samples::new();
    let mut pairs: Vec<SymbolPair> = Vec::new();
    let mut write = || {
        for (s, chunks) in &overlapping {
            let mut rest = Vec::with_capacity(chunks.len());
            for c in chunks {
                rest.extend(shown(c.clone(), tombstones.of(s.reference.0))?);
            }
            decode_chunks(&rest, start, end - 1, &mut samples)?;
            encode(&samples, |mint, maxt, encoding, data| writer.add_chunk(mint, maxt, encoding, data))?;
            pairs.clear();
            pairs.extend(symbols.pairs_of(s));
            writer.end_series(&pairs)?;
        }
        Ok(())
    };
    if let Err(e) = write() {
        writer.abandon();
        return Err(e);
    }
    let compaction = Compaction {
        level: 1,
        sources: vec![ulid.to_string()],
        hints: vec![FROM_OUT_OF_ORDER.to_owned()],
        ..Compaction::default()
    };
    if writer.finish((Some(start), Some(end)), compaction)?.is_none() {
        return Ok(None);
    }
    Block::open(&root.join(ulid.to_string()), ulid).map(Some)
}
