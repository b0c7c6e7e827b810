//! Postings in the `index` column family: sets of series ids, and the merge operator that unites them.
//!
//! Short lists are kept as differences, since most label values belong to few series. Spec: docs/formats/longterm.md#postings.

use model::StorageError;
use roaring::RoaringTreemap;
use rocksdb::MergeOperands;

use super::varint::{Reader, put_varint};

/// Name of the merge operator, part of the format.
pub(super) const MERGE_OPERATOR: &str = "almanac.postings";

const LIST: u8 = 0;
const BITMAP: u8 = 1;
/// Longest list before the bitmap form takes over.
const MAX_LIST_LEN: u64 = 64;

/// Encodes a set of ids.
pub(super) fn encode(ids: &RoaringTreemap) -> Vec<u8> {
    if ids.len() > MAX_LIST_LEN {
        let mut out = Vec::with_capacity(1 + ids.serialized_size());
        out.push(BITMAP);
        ids.serialize_into(&mut out).expect("writing to memory cannot fail");
        return out;
    }
    let mut out = Vec::with_capacity(2 + 4 * ids.len() as usize);
    out.push(LIST);
    put_varint(&mut out, ids.len());
    let mut last = 0;
    for id in ids {
        put_varint(&mut out, id - last);
        last = id;
    }
    out
}

/// Adds the ids of [`encode`] to `into`.
pub(super) fn decode(bytes: &[u8], into: &mut RoaringTreemap) -> Result<(), StorageError> {
    let mut r = Reader::new("postings", bytes);
    match r.u8()? {
        LIST => {
            let mut id = 0_u64;
            for _ in 0..r.count(1)? {
                id = id.saturating_add(r.varint()?);
                into.insert(id);
            }
            Ok(())
        }
        BITMAP => {
            let more = RoaringTreemap::deserialize_from(r.rest()).map_err(|e| r.error(e.to_string()))?;
            if into.is_empty() {
                *into = more;
            } else {
                *into |= more;
            }
            Ok(())
        }
        other => Err(r.error(format!("unknown form {other}"))),
    }
}

/// The union of what is stored and all operands. `None`, which RocksDB reports as corruption, when one of them is no
/// postings.
pub(super) fn merge(_key: &[u8], stored: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut ids = RoaringTreemap::new();
    for bytes in stored.into_iter().chain(operands) {
        decode(bytes, &mut ids).ok()?;
    }
    Some(encode(&ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_round_trip_and_unite() {
        let short: RoaringTreemap = [1, 2, 77, 1 << 40].into_iter().collect();
        let long: RoaringTreemap = (0..1000).map(|i| i * 3).collect();
        let mut all = RoaringTreemap::new();
        for set in [&short, &long] {
            let mut back = RoaringTreemap::new();
            decode(&encode(set), &mut back).expect("own bytes");
            assert_eq!(&back, set);
            decode(&encode(set), &mut all).expect("own bytes");
        }
        assert_eq!(all, short | long);
        assert!(decode(&[], &mut all).is_err() && decode(&[9], &mut all).is_err());
        assert!(decode(&[LIST, 200], &mut all).is_err() && decode(&[BITMAP, 1, 2], &mut all).is_err());
    }
}
