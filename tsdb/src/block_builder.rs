//! [`BlockBuilder`]: a block from samples that somebody has at hand, outside of any database: backfilling.
//!
//! Samples are encoded as they come, so that memory holds chunks. The block appears when it is finished, whole or not at
//! all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{AppendError, Clock, Labels, Sample, SampleValue, Samples, StorageError};

use crate::block::meta::{Compaction, Ulid};
use crate::block::{Block, BlockWriter};
use crate::error::Error;
use crate::read_only::BlockInfo;
use crate::{chunk, dir};

/// Samples a chunk gets.
const CHUNK_SAMPLES: usize = 120;

/// Collects the samples of a block.
pub struct BlockBuilder {
    root: PathBuf,
    series: HashMap<Labels, Building>,
}

#[derive(Default)]
struct Building {
    finished: Vec<(i64, i64, u8, Bytes)>,
    /// Fewer than a chunk gets.
    pending: Samples,
    last: Option<(i64, SampleValue)>,
}

impl Building {
    fn encode_pending(&mut self) {
        self.finished.extend(chunk::encode(&self.pending, chunk::Encodings::default()));
        self.pending.clear();
    }
}

impl BlockBuilder {
    /// A builder of a block in the directory `root`, which is made when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(root: &Path) -> Result<Self, Error> {
        dir::create_all(root)?;
        Ok(Self { root: root.to_owned(), series: HashMap::new() })
    }

    /// Adds a sample; those of a series come in order of time.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn append(&mut self, labels: &Labels, t: i64, value: SampleValue) -> Result<(), AppendError> {
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("empty labelset".into()));
        }
        let series = match self.series.get_mut(labels) {
            Some(s) => s,
            None => self.series.entry(labels.clone()).or_default(),
        };
        match &series.last {
            Some((last, _)) if t < *last => return Err(AppendError::OutOfOrder),
            Some((last, v)) if t == *last => {
                return if *v == value { Ok(()) } else { Err(AppendError::DuplicateTimestamp) };
            }
            _ => {}
        }
        series.last = Some((t, value.clone()));
        series.pending.push(Sample { timestamp_ms: t, start_timestamp_ms: 0, value });
        if series.pending.len() >= CHUNK_SAMPLES {
            series.encode_pending();
        }
        Ok(())
    }

    /// Writes the block; `None` when there was no sample.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is left then.
    pub fn finish(self, clock: &dyn Clock) -> Result<Option<BlockInfo>, Error> {
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
    for (labels, mut s) in series {
        s.encode_pending();
        for (mint, maxt, encoding, data) in &s.finished {
            writer.add_chunk(*mint, *maxt, *encoding, data)?;
        }
        let pairs: Vec<(u32, u32)> = labels.iter().map(|(n, v)| (symbols[n], symbols[v])).collect();
        writer.end_series(&pairs)?;
    }
    Ok(())
}
