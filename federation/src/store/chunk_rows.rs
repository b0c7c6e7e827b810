//! Rows of `raw` as they are read: chunks whose timestamps lie in `ts` get them back.
//!
//! Series that are scraped together have the same timestamps, and when scrapes come a little late these take a fifth of all
//! bytes. So a column of timestamps that several chunks have is kept once, under its hash, and a chunk names it.
//! A column goes with its month; nothing counts who uses it. Spec: docs/formats/longterm.md#shared-timestamps.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use model::StorageError;
use rocksdb::{DBRawIterator, ReadOptions, WriteBatch};

use super::Inner;
use super::chunk::{Encoded, Shared};
use super::error::storage_error;
use super::families::{RAW, TS};
use super::keys::{Month, parse_sample_key, sample_key, ts_key};
use super::varint::{check_crc, put_crc};

/// Columns that a reader remembers.
const KNOWN_MAX: usize = 4096;
/// Shorter columns stay in their chunks: a name and a row of its own take as much.
const SHARED_MIN_BYTES: usize = 24;

/// The hash that a column is known by.
pub(super) fn column_hash(column: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(column)
}

/// A column as a value of `ts`.
pub(super) fn read_column(stored: &[u8]) -> Result<&[u8], StorageError> {
    check_crc("column of timestamps", stored)
}

/// Goes over chunks. Both iterators have to see the database at one moment: those of one snapshot, or under the maintenance lock.
pub(super) struct ChunkRows<'a> {
    raw: DBRawIterator<'a>,
    ts: Columns<'a>,
    known: HashMap<(Month, u64), Arc<[u8]>>,
}

/// Rows of `ts`, opened when they are wanted.
struct Columns<'a> {
    open: Box<dyn Fn() -> DBRawIterator<'a> + 'a>,
    rows: Option<DBRawIterator<'a>>,
}

impl<'a> ChunkRows<'a> {
    /// `ts` is asked for its iterator when the first column is wanted.
    pub(super) fn new(raw: DBRawIterator<'a>, ts: impl Fn() -> DBRawIterator<'a> + 'a) -> Self {
        Self { raw, ts: Columns { open: Box::new(ts), rows: None }, known: HashMap::new() }
    }

    pub(super) fn seek(&mut self, key: impl AsRef<[u8]>) {
        self.raw.seek(key);
    }

    pub(super) fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) {
        self.raw.seek_for_prev(key);
    }

    pub(super) fn next(&mut self) {
        self.raw.next();
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        self.raw.key()
    }

    /// The chunk as it is stored, of which the head may be read.
    pub(super) fn item(&self) -> Option<(&[u8], &[u8])> {
        self.raw.item()
    }

    pub(super) fn status(&self) -> Result<(), rocksdb::Error> {
        self.raw.status()?;
        self.ts.rows.as_ref().map_or(Ok(()), DBRawIterator::status)
    }

    /// The chunk at the iterator with its timestamps in it. Not to be called where there is none.
    pub(super) fn whole(&mut self) -> Result<Cow<'_, [u8]>, StorageError> {
        let Self { raw, ts, known } = self;
        let Some((key, stored)) = raw.item() else {
            return Err(StorageError::decode("sealed chunk", "there is none"));
        };
        let month = parse_sample_key(key).map_or(0, |(month, ..)| month);
        make_whole(ts, known, month, stored)
    }

    /// The same for a chunk that was read before.
    pub(super) fn whole_of<'s>(
        &mut self,
        month: Month,
        stored: &'s [u8],
    ) -> Result<Cow<'s, [u8]>, StorageError> {
        make_whole(&mut self.ts, &mut self.known, month, stored)
    }
}

fn make_whole<'s>(
    ts: &mut Columns<'_>,
    known: &mut HashMap<(Month, u64), Arc<[u8]>>,
    month: Month,
    stored: &'s [u8],
) -> Result<Cow<'s, [u8]>, StorageError> {
    let Some(chunk) = Shared::parse(stored)? else { return Ok(Cow::Borrowed(stored)) };
    let hash = chunk.column;
    if let Some(column) = known.get(&(month, hash)) {
        return Ok(Cow::Owned(chunk.with(column)));
    }
    let key = ts_key(month, hash);
    let ts = ts.rows.get_or_insert_with(|| (ts.open)());
    ts.seek(key);
    // A disk that does not answer is no reason to take the chunk for damaged.
    ts.status().map_err(|e| storage_error("read", Path::new(TS), &e))?;
    let Some(column) = ts.item().filter(|(k, _)| *k == key).map(|(_, value)| value) else {
        return Err(StorageError::decode(
            "sealed chunk",
            format!("its timestamps, {hash:016x}, are missing"),
        ));
    };
    let column: Arc<[u8]> = read_column(column)?.into();
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert((month, hash), column.clone());
    Ok(Cow::Owned(chunk.with(&column)))
}

/// Chunks on their way into the database, with what else is written with them.
#[derive(Default)]
pub(super) struct ChunkBatch {
    /// What is written with them. Chunks come after it.
    pub(super) batch: WriteBatch,
    chunks: Vec<(Month, u64, i64, Encoded)>,
}

impl ChunkBatch {
    pub(super) fn put(&mut self, month: Month, id: u64, start: i64, chunk: Encoded) {
        self.chunks.push((month, id, start, chunk));
    }
}

impl Inner {
    /// All chunks, for maintenance: what it reads it writes anew, so the cache is left to those who ask.
    pub(super) fn chunk_rows(&self) -> ChunkRows<'_> {
        let rows = |family| {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            self.db.raw_iterator_cf_opt(&self.cf(family), options)
        };
        ChunkRows::new(rows(RAW), move || rows(TS))
    }

    /// Puts the chunks behind the rest of a batch. Columns that two of them have, or that are there, are shared.
    pub(super) fn finish_chunks(&self, out: ChunkBatch) -> Result<WriteBatch, StorageError> {
        let ChunkBatch { mut batch, chunks } = out;
        let (raw, ts) = (self.cf(RAW), self.cf(TS));
        // Of each column the bytes it stands for and whether it is in use; two that have one hash do not share.
        let mut columns: HashMap<(Month, u64), (&[u8], u32)> = HashMap::new();
        let hash_of = |chunk: &Encoded| {
            let column = chunk.timestamps();
            (column.len() >= SHARED_MIN_BYTES).then(|| column_hash(column))
        };
        for (month, _, _, chunk) in &chunks {
            if let Some(hash) = hash_of(chunk) {
                let column = columns.entry((*month, hash)).or_insert((chunk.timestamps(), 0));
                column.1 += u32::from(column.0 == chunk.timestamps());
            }
        }
        let mut shared: HashMap<(Month, u64), &[u8]> = HashMap::new();
        for ((month, hash), (column, users)) in columns {
            let key = ts_key(month, hash);
            let there = self.db.get_pinned_cf(&ts, key).map_err(|e| self.error("read timestamps of", &e))?;
            let is_there = there.as_ref().is_some_and(|t| read_column(t).is_ok_and(|t| t == column));
            if there.is_none() && users > 1 {
                let mut value = column.to_vec();
                put_crc(&mut value);
                batch.put_cf(&ts, key, value);
            }
            if is_there || (there.is_none() && users > 1) {
                shared.insert((month, hash), column);
            }
        }
        for (month, id, start, chunk) in &chunks {
            let hash = hash_of(chunk);
            let is_shared = |h: &u64| shared.get(&(*month, *h)).is_some_and(|c| *c == chunk.timestamps());
            let value = match hash.filter(is_shared) {
                Some(hash) => chunk.shared(hash),
                None => chunk.inline(),
            };
            batch.put_cf(&raw, sample_key(*month, *id, *start), value);
        }
        Ok(batch)
    }
}
