//! Several blocks become one. Streaming: memory holds the symbols' positions and one series, whatever the blocks hold.
//!
//! Labels are compared as positions in the new symbol table and never become strings. A chunk that overlaps no other one
//! of its series and has nothing deleted is copied byte by byte; the others are decoded and encoded anew. Where two
//! chunks have a sample at one time, the one that starts first counts, then the one of the block that starts first: what
//! queries over the blocks answered before.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use model::chunk::decode_chunks;
use model::{Chunk, Samples, StorageError};

use super::encode;
use crate::block::index_read::{RawSeries, SymbolPair};
use crate::block::index_write::SymbolWriter;
use crate::block::meta::{
    self, Compaction, FROM_OUT_OF_ORDER, FROM_SELECTED_SERIES, FROM_STALE_SERIES, Parent, Ulid,
};
use crate::block::symbols::SymbolTable;
use crate::block::tombstones::Tombstones;
use crate::block::{Block, BlockWriter, ChunkMeta};
use crate::merge::{Cursor, Groups, Member};

/// Writes one block below `root` that holds what `blocks`, sorted by start, hold, without what is deleted. `None` when
/// nothing is left.
///
/// # Errors
/// [`StorageError::Closed`] when `stop` said so; otherwise when a block cannot be read or the new one not be written.
/// Nothing is left behind then.
pub(crate) fn merge(
    blocks: &[Arc<Block>],
    root: &Path,
    now_ms: i64,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Block>, StorageError> {
    let ulid = Ulid::new(now_ms);
    let mut positions: Vec<Vec<u32>> = vec![Vec::new(); blocks.len()];
    let mut writer = BlockWriter::create(root, ulid, |out| merge_symbols(blocks, &mut positions, out))?;
    if let Err(e) = merge_series(blocks, &positions, &mut writer, stop) {
        writer.abandon();
        return Err(e);
    }
    drop(positions);
    let start = blocks.iter().map(|b| b.meta.min_time).min();
    let end = blocks.iter().map(|b| b.meta.max_time).max();
    if writer.finish((start, end), compaction(blocks))?.is_none() {
        return Ok(None);
    }
    Block::open(&root.join(ulid.to_string()), ulid).map(Some)
}

/// How the new block came about.
fn compaction(blocks: &[Arc<Block>]) -> Compaction {
    let of = |b: &Arc<Block>| b.meta.compaction.clone();
    let has = |b: &Arc<Block>, hint: &str| b.meta.compaction.hints.iter().any(|h| h == hint);
    let mut sources: Vec<String> = blocks.iter().flat_map(|b| of(b).sources).collect();
    sources.sort();
    sources.dedup();
    let mut hints = Vec::new();
    // A block is wholly out of order when all it was made of is; the others are never mixed.
    if blocks.iter().all(|b| has(b, FROM_OUT_OF_ORDER)) {
        hints.push(FROM_OUT_OF_ORDER.to_owned());
    }
    for hint in [FROM_STALE_SERIES, FROM_SELECTED_SERIES] {
        if blocks.iter().any(|b| has(b, hint)) {
            hints.push(hint.to_owned());
        }
    }
    let parent = |m: &meta::Meta| Parent { ulid: m.ulid.clone(), min_time: m.min_time, max_time: m.max_time };
    Compaction {
        level: blocks.iter().map(|b| b.meta.compaction.level).max().unwrap_or(0) + 1,
        sources,
        parents: blocks.iter().map(|b| parent(&b.meta)).collect(),
        hints,
        ..Compaction::default()
    }
}

// === Symbols ===

struct SymbolCursor<'a> {
    table: &'a SymbolTable,
    bytes_read: usize,
    symbol: &'a str,
    /// New positions, in order of the old ones.
    positions: &'a mut Vec<u32>,
}

impl Cursor for SymbolCursor<'_> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        let next = self.table.walk(&mut self.bytes_read);
        self.symbol = next.unwrap_or_default();
        Ok(next.is_some())
    }

    fn order(&self, other: &Self) -> Ordering {
        self.symbol.cmp(other.symbol)
    }
}

fn merge_symbols(
    blocks: &[Arc<Block>],
    positions: &mut [Vec<u32>],
    out: &mut SymbolWriter,
) -> Result<(), StorageError> {
    let cursors = blocks.iter().zip(positions).map(|(b, positions)| {
        let table = &b.index.symbols;
        positions.reserve_exact(table.len());
        SymbolCursor { table, bytes_read: 0, symbol: "", positions }
    });
    let mut groups = Groups::new(cursors);
    while let Some(group) = groups.next()? {
        let position = out.add(group[0].cursor.symbol)?;
        group.iter_mut().for_each(|m| m.cursor.positions.push(position));
    }
    Ok(())
}

// === Series ===

/// Stands at one series of a block after the other.
struct SeriesCursor<'a> {
    block: &'a Block,
    tombstones: Arc<Tombstones>,
    ids: std::slice::Iter<'a, [u8; 4]>,
    positions: &'a [u32],
    id: u64,
    series: RawSeries,
    /// Labels as positions in the new symbol table.
    labels: Vec<SymbolPair>,
    before: Vec<SymbolPair>,
}

impl Cursor for SeriesCursor<'_> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        let Some(id) = self.ids.next() else { return Ok(false) };
        self.id = u64::from(u32::from_be_bytes(*id));
        self.block.index.series(self.id, i64::MIN, i64::MAX, &mut self.series)?;
        std::mem::swap(&mut self.labels, &mut self.before);
        self.labels.clear();
        let new = |old: u32| self.positions[old as usize];
        self.labels.extend(self.series.labels.iter().map(|(n, v)| (new(*n), new(*v))));
        if !self.before.is_empty() && self.before >= self.labels {
            return Err(StorageError::Corruption {
                path: self.block.dir.clone(),
                offset: self.id,
                reason: "series of the index are not sorted by labels".into(),
            });
        }
        Ok(true)
    }

    fn order(&self, other: &Self) -> Ordering {
        self.labels.cmp(&other.labels)
    }
}

fn merge_series(
    blocks: &[Arc<Block>],
    positions: &[Vec<u32>],
    writer: &mut BlockWriter,
    stop: &dyn Fn() -> bool,
) -> Result<(), StorageError> {
    let mut cursors = Vec::with_capacity(blocks.len());
    for (b, positions) in blocks.iter().zip(positions) {
        cursors.push(Box::new(SeriesCursor {
            block: b,
            tombstones: b.tombstones(),
            ids: b.index.all_series()?.iter(),
            positions,
            id: 0,
            series: RawSeries::default(),
            labels: Vec::new(),
            before: Vec::new(),
        }));
    }
    let mut groups = Groups::new(cursors);
    let mut scratch = Scratch::default();
    while let Some(group) = groups.next()? {
        if stop() {
            return Err(StorageError::Closed);
        }
        scratch.write(group, writer)?;
        writer.end_series(&group[0].cursor.labels)?;
    }
    Ok(())
}

impl<C: Cursor> Cursor for Box<C> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        (**self).advance()
    }

    fn order(&self, other: &Self) -> Ordering {
        (**self).order(other)
    }
}

type Cursors<'a> = [Member<Box<SeriesCursor<'a>>>];

/// A chunk of a series, and which of the cursors has it.
#[derive(Clone, Copy)]
struct Piece {
    meta: ChunkMeta,
    cursor: usize,
    /// Whether a part of it is deleted.
    torn: bool,
}

#[derive(Default)]
struct Scratch {
    pieces: Vec<Piece>,
    chunks: Vec<Chunk>,
    samples: Samples,
}

impl Scratch {
    /// Writes the chunks of a series that all cursors stand at.
    fn write(&mut self, group: &Cursors<'_>, writer: &mut BlockWriter) -> Result<(), StorageError> {
        self.pieces.clear();
        for (cursor, m) in group.iter().enumerate() {
            let deleted = m.cursor.tombstones.of(m.cursor.id);
            for meta in &m.cursor.series.chunks {
                if deleted.iter().any(|(a, b)| *a <= meta.mint && meta.maxt <= *b) {
                    continue;
                }
                let torn = deleted.iter().any(|(a, b)| *a <= meta.maxt && meta.mint <= *b);
                self.pieces.push(Piece { meta: *meta, cursor, torn });
            }
        }
        if !self.pieces.is_sorted_by_key(|p| p.meta.mint) {
            self.pieces.sort_by_key(|p| p.meta.mint);
        }
        let pieces = std::mem::take(&mut self.pieces);
        let mut rest = pieces.as_slice();
        while let Some(first) = rest.first() {
            let mut end = first.meta.maxt;
            let mut n = 1;
            while let Some(p) = rest.get(n).filter(|p| p.meta.mint <= end) {
                end = end.max(p.meta.maxt);
                n += 1;
            }
            let (run, after) = rest.split_at(n);
            self.write_run(run, group, writer)?;
            rest = after;
        }
        self.pieces = pieces;
        Ok(())
    }

    /// Writes chunks of which each overlaps with those before it.
    fn write_run(
        &mut self,
        run: &[Piece],
        group: &Cursors<'_>,
        writer: &mut BlockWriter,
    ) -> Result<(), StorageError> {
        let ChunkMeta { mint, maxt, reference } = run[0].meta;
        let block = group[run[0].cursor].cursor.block;
        if !run.iter().any(|p| p.torn) {
            let first = block.chunks.get(reference)?;
            let mut same = true;
            for p in &run[1..] {
                same = same
                    && (p.meta.mint, p.meta.maxt) == (mint, maxt)
                    && group[p.cursor].cursor.block.chunks.get(p.meta.reference)?.record == first.record;
            }
            if same {
                return writer.copy_chunk(mint, maxt, &first);
            }
        }
        self.chunks.clear();
        let mut end = maxt;
        for p in run {
            let c = &group[p.cursor].cursor;
            self.chunks.extend(c.block.chunk(&p.meta, c.tombstones.of(c.id))?);
            end = end.max(p.meta.maxt);
        }
        decode_chunks(&self.chunks, mint, end, &mut self.samples)?;
        // What passes its checksum may still be nonsense that somebody wrote.
        if !self.samples.timestamps_ms.is_sorted_by(|a, b| a < b) {
            return Err(StorageError::Corruption {
                path: block.dir.clone(),
                offset: reference,
                reason: format!("a chunk between {mint} and {end} has samples that are not in order of time"),
            });
        }
        encode(&self.samples, |mint, maxt, encoding, data| writer.add_chunk(mint, maxt, encoding, data))
    }
}
