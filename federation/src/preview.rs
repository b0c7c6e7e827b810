//! What it would cost to keep some series: counted in the local store, and encoded as the long-term store does.

use std::collections::HashSet;

use model::chunk::decode_chunks;
use model::{Matcher, Queryable, Samples, SelectHints, StorageError};

use crate::store::sealed_len_bytes;

/// Of so many series in a row one is encoded; the others are taken to be like it.
const ENCODE_EVERY: u64 = 16;
/// So many first series are encoded each.
const ENCODE_FIRST: u64 = 64;

/// What some selectors select.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// From the first to the last sample, in milliseconds; the whole range when there are samples at both ends.
    pub span_ms: i64,
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes in the long-term store, estimated.
    pub bytes: u64,
}

/// Counts what one of the sets selects within `[mint, maxt]`. Blocks.
///
/// # Errors
/// When the store cannot be read.
pub fn preview(
    store: &dyn Queryable,
    sets: &[Vec<Matcher>],
    mint: i64,
    maxt: i64,
) -> Result<Preview, StorageError> {
    let querier = store.querier(mint, maxt)?;
    let hints = SelectHints { start_ms: mint, end_ms: maxt, ..SelectHints::default() };
    let mut found = Preview::default();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let (mut encoded_samples, mut encoded_bytes) = (0_u64, 0_u64);
    let mut seen: HashSet<u64> = HashSet::new();
    let mut samples = Samples::new();
    for (i, matchers) in sets.iter().enumerate() {
        let mut set = querier.select(matchers, &hints)?;
        while let Some(series) = set.next()? {
            // A series that two sets select counts once.
            if sets.len() > 1 && !seen.insert(series.labels.hash64()) && i > 0 {
                continue;
            }
            decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            let (Some(a), Some(b)) = (samples.timestamps_ms.first(), samples.timestamps_ms.last()) else {
                continue;
            };
            (first, last) = (first.min(*a), last.max(*b));
            if found.series < ENCODE_FIRST || found.series.is_multiple_of(ENCODE_EVERY) {
                encoded_samples += samples.len() as u64;
                encoded_bytes += sealed_len_bytes(&samples) as u64;
            }
            found.series += 1;
            found.samples += samples.len() as u64;
        }
    }
    if found.samples > 0 {
        found.span_ms = last - first;
        let per_sample = encoded_bytes as f64 / encoded_samples.max(1) as f64;
        found.bytes = (found.samples as f64 * per_sample).round() as u64;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::memory::MemoryStorage;
    use model::{Labels, Sample};

    #[test]
    fn counts_what_is_selected_once() {
        let store = MemoryStorage::new();
        for i in 0..200 {
            let labels = Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]);
            (0..100).for_each(|t| store.insert(&labels, Sample::float(t * 15_000, (t * i) as f64)));
        }
        let sets = [vec![Matcher::equal("__name__", "m")], vec![Matcher::equal("i", "7")]];
        let found = preview(&store, &sets, 0, i64::MAX).expect("readable");
        assert_eq!((found.series, found.samples, found.span_ms), (200, 20_000, 99 * 15_000));
        assert!((1..100_000).contains(&found.bytes), "{found:?}");
        assert_eq!(preview(&store, &[], 0, 1).expect("readable"), Preview::default());
    }
}
