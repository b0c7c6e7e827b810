//! [`BlockBuilder`]: a block from samples that somebody has at hand, outside of any database: backfilling.
//!
//! Samples are encoded as they come, so that memory holds chunks. The block appears when it is finished, whole or not at
//! all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use model::{AppendError, Clock, Labels, SampleValue, StorageError};

use crate::block::meta::{Compaction, Ulid};
use crate::block::{Block, BlockWriter};
use crate::chunk::{Cut, EncodedChunk, Encodings, OpenChunk};
use crate::dir;
use crate::error::Error;
use crate::read_only::BlockInfo;

/// Collects the samples of a block.
pub struct BlockBuilder {
    root: PathBuf,
    range_ms: i64,
    series: HashMap<Labels, Building>,
}

struct Building {
    finished: Vec<EncodedChunk>,
    cut: Cut,
    open: OpenChunk,
    last: (i64, SampleValue),
}

impl Building {
    fn new(t: i64, value: SampleValue, range_ms: i64) -> Self {
        let (cut, open) = Cut::first((t, 0, &value), range_ms, Encodings::default());
        Self { finished: Vec::new(), cut, open, last: (t, value) }
    }

    fn append(&mut self, t: i64, value: SampleValue, range_ms: i64) {
        let mint = self.cut.mint();
        let full =
            self.cut.append(&mut self.open, &self.last, (t, 0, &value), range_ms, Encodings::default());
        if let Some(full) = full {
            self.finished.push(encoded(&full, mint, self.last.0));
        }
        self.last = (t, value);
    }
}

fn encoded(chunk: &OpenChunk, mint: i64, maxt: i64) -> EncodedChunk {
    (mint, maxt, chunk.encoding(), chunk.encode_first(chunk.count()))
}

impl BlockBuilder {
    /// A builder of a block in the directory `root`, which is made when it is not there. Chunks are cut as in a head whose
    /// blocks have the range `range_ms`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(root: &Path, range_ms: i64) -> Result<Self, Error> {
        dir::create_all(root)?;
        Ok(Self { root: root.to_owned(), range_ms, series: HashMap::new() })
    }

    /// Adds a sample; those of a series come in order of time.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn append(&mut self, labels: &Labels, t: i64, value: SampleValue) -> Result<(), AppendError> {
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("empty labelset".into()));
        }
        let Some(series) = self.series.get_mut(labels) else {
            self.series.insert(labels.clone(), Building::new(t, value, self.range_ms));
            return Ok(());
        };
        match &series.last {
            (last, _) if t < *last => return Err(AppendError::OutOfOrder),
            (last, v) if t == *last => {
                return if *v == value { Ok(()) } else { Err(AppendError::DuplicateTimestamp) };
            }
            _ => {}
        }
        series.append(t, value, self.range_ms);
        Ok(())
    }

    /// Writes the block; `None` when there was no sample.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is left then.
    pub fn finish(self, clock: &dyn Clock) -> Result<Option<BlockInfo>, Error> {
        if self.series.is_empty() {
            return Ok(None);
        }
        let mut series: Vec<(Labels, Building)> = self.series.into_iter().collect();
        series.sort_by(|a, b| a.0.cmp(&b.0));
        let labels: Vec<&Labels> = series.iter().map(|(l, _)| l).collect();
        let mut symbols: HashMap<String, u32> = HashMap::new();
        for (n, v) in labels.iter().flat_map(|l| l.iter()) {
            for s in [n, v] {
                if !symbols.contains_key(s) {
                    symbols.insert(s.to_owned(), 0);
                }
            }
        }
        let ulid = Ulid::new(clock.now_ms());
        let mut writer = BlockWriter::create(&self.root, ulid, |out| {
            let mut sorted: Vec<_> = symbols.iter_mut().collect();
            sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
            for (symbol, position) in sorted {
                *position = out.add(symbol)?;
            }
            Ok(())
        })?;
        if let Err(e) = write(series, &symbols, &mut writer) {
            writer.abandon();
            return Err(e.into());
        }
        let compaction = Compaction { level: 1, sources: vec![ulid.to_string()], ..Compaction::default() };
        if writer.finish((None, None), compaction)?.is_none() {
            return Ok(None);
        }
        let block = Block::open(&self.root.join(ulid.to_string()), ulid)?;
        Ok(Some(BlockInfo::of(&block)))
    }
}

fn write(
    series: Vec<(Labels, Building)>,
    symbols: &HashMap<String, u32>,
    writer: &mut BlockWriter,
) -> Result<(), StorageError> {
    for (labels, s) in series {
        let last = encoded(&s.open, s.cut.mint(), s.last.0);
        for (mint, maxt, encoding, data) in s.finished.iter().chain([&last]) {
            writer.add_chunk(*mint, *maxt, *encoding, data)?;
        }
        let pairs: Vec<(u32, u32)> = labels.iter().map(|(n, v)| (symbols[n], symbols[v])).collect();
        writer.end_series(&pairs)?;
    }
    Ok(())
}
