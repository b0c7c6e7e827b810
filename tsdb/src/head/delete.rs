//! Deletes in the head: ranges of series that are not shown any more and do not go into blocks. Durable through the log.

use std::sync::Arc;

use model::{Chunk, Matcher, Samples, StorageError};

use super::Head;
use super::series::{HeadChunk, to_model};
use crate::block::tombstones::{Tombstones, without};
use crate::wal::record;

impl Head {
    /// Deletes the samples that the series that pass the matchers have now within `[mint, maxt]`, durably. Calls do not
    /// overlap.
    pub(crate) fn delete(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<(), StorageError> {
        let mut stones = Vec::new();
        for (_, s) in self.series.matching(matchers)? {
            if let Some((first, last)) = s.state.lock().range() {
                // No further than what is there: samples to come are not meant.
                stones.push((s.reference, mint.max(first), maxt.min(last)));
            }
        }
        stones.retain(|(_, mint, maxt)| mint <= maxt);
        if stones.is_empty() {
            return Ok(());
        }
        self.wal.log(vec![record::encode_tombstones(&stones)])?;
        let mut all = (*self.tombstones()).clone();
        stones.iter().for_each(|(r, mint, maxt)| all.add(r.0, *mint, *maxt));
        self.tombstones.store(Arc::new(all));
        self.wal.sync()
    }

    /// What is deleted, by reference of the series.
    pub(crate) fn tombstones(&self) -> Arc<Tombstones> {
        self.tombstones.load_full()
    }

    /// Forgets what is deleted before `mint`, which the head no longer has.
    pub(crate) fn forget_deleted(&self, mint: i64) {
        let old = self.tombstones();
        if !old.is_empty() {
            self.tombstones.store(Arc::new(old.from(mint)));
        }
    }
}

/// A chunk without what is deleted of it; `None` when nothing is left.
pub(crate) fn shown(c: HeadChunk, deleted: &[(i64, i64)]) -> Result<Option<Chunk>, StorageError> {
    let (mint, maxt) = (c.mint, c.maxt);
    if deleted.iter().any(|(a, b)| *a <= mint && maxt <= *b) {
        return Ok(None);
    }
    let Some(chunk) = to_model(c) else { return Ok(None) };
    if !deleted.iter().any(|(a, b)| *a <= maxt && mint <= *b) {
        return Ok(Some(chunk));
    }
    let mut samples = Samples::new();
    chunk.decode(i64::MIN, i64::MAX, &mut samples)?;
    let rest = without(&samples, deleted);
    Ok((!rest.is_empty()).then(|| Chunk::columns(Arc::new(rest))))
}
