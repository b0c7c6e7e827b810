//! Writes the index of a block, version 2. Spec: docs/formats/blocks.md#index.
//!
//! Order in the file: symbols, series, postings, table of postings offsets, table of contents. Memory stays bounded: symbols
//! are not held but read back from the file; postings are collected while series come as long as they are few, and
//! otherwise gathered from the series in the file, label names by label names; the table goes through a second file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::StorageError;

use super::ChunkMeta;
use super::index_read::SymbolPair;
use super::symbols::SymbolTable;
use crate::dir::{self, OutFile};
use crate::varint::{Reader, put_be32, put_be64, put_str, put_uvarint, put_varint};

pub(crate) const MAGIC: u32 = 0xBAAA_D700;
pub(crate) const VERSION: u8 = 2;
/// Series begin at multiples of this; their id is the offset divided by it.
pub(crate) const SERIES_ALIGN: u64 = 16;
const HEADER_LEN_BYTES: u64 = 5;
/// Entries of postings lists collected in memory, four bytes each.
const POSTINGS_MAX: usize = 8 << 20;
/// Name of the file that the table of postings offsets is written to first.
const TABLE_FILE: &str = "index.postings-table";

pub(crate) struct IndexWriter {
    path: PathBuf,
    out: OutFile,
    toc: Toc,
    symbol_count: u32,
    postings: Postings,
    postings_max: usize,
    /// How many series have each label name, by its symbol.
    name_counts: HashMap<u32, u64>,
    all: Vec<u32>,
    last: Vec<SymbolPair>,
    scratch: Vec<u8>,
}

/// Offsets of the sections; 0 for those that are not there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Toc {
    pub(crate) symbols: u64,
    pub(crate) series: u64,
    pub(crate) label_indices: u64,
    pub(crate) label_indices_table: u64,
    pub(crate) postings: u64,
    pub(crate) postings_table: u64,
}

/// Postings lists under collection.
#[derive(Default)]
struct Postings {
    lists: HashMap<SymbolPair, Vec<u32>>,
    len: usize,
    /// There were too many: the lists are gathered from the file.
    overflown: bool,
}

impl Postings {
    fn add(&mut self, pair: SymbolPair, id: u32) {
        self.lists.entry(pair).or_default().push(id);
        self.len += 1;
    }
}

fn too_large(what: &str) -> StorageError {
    StorageError::Limit(format!("index of a block: {what} exceeds what its format can hold"))
}

fn len32(n: usize, what: &str) -> Result<u32, StorageError> {
    u32::try_from(n).map_err(|_| too_large(what))
}

impl IndexWriter {
    /// Begins an index. `symbols` gives every label name and value, strictly sorted.
    pub(crate) fn create(path: &Path) -> Result<SymbolWriter, StorageError> {
        let mut out = OutFile::create(path)?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION])?;
        // Length and count follow when they are known.
        out.write(&[0; 8])?;
        Ok(SymbolWriter {
            path: path.to_owned(),
            out,
            crc: 0,
            count: 0,
            last: String::new(),
            scratch: Vec::new(),
        })
    }

    /// Adds a series; labels rise strictly, and so do the references of all chunks.
    pub(crate) fn add_series(
        &mut self,
        labels: &[SymbolPair],
        chunks: &[ChunkMeta],
    ) -> Result<(), StorageError> {
        assert!(self.all.is_empty() || self.last.as_slice() < labels, "series come in order of their labels");
        self.last.clear();
        self.last.extend_from_slice(labels);
        self.out.pad(SERIES_ALIGN)?;
        let id = u32::try_from(self.out.len() / SERIES_ALIGN).map_err(|_| too_large("series"))?;
        self.all.push(id);

        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        put_uvarint(&mut body, labels.len() as u64);
        for pair in labels {
            assert!(pair.0.max(pair.1) < self.symbol_count, "the caller gave all symbols of its series");
            put_uvarint(&mut body, u64::from(pair.0));
            put_uvarint(&mut body, u64::from(pair.1));
            *self.name_counts.entry(pair.0).or_default() += 1;
            if !self.postings.overflown {
                self.postings.add(*pair, id);
            }
        }
        if self.postings.len > self.postings_max {
            self.postings = Postings { overflown: true, ..Postings::default() };
        }
        put_chunks(&mut body, chunks);
        let mut len = Vec::with_capacity(5);
        put_uvarint(&mut len, body.len() as u64);
        let crc = crc32c::crc32c(&body);
        put_be32(&mut body, crc);
        self.out.write(&len)?;
        self.out.write(&body)?;
        self.scratch = body;
        Ok(())
    }

    /// Writes what comes after the series and syncs the file.
    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        self.toc.label_indices = self.out.len();
        self.out.flush()?;
        // What is written so far does not change any more.
        let written = dir::map(&self.path)?;
        let symbols = self.symbols(&written)?;
        self.out.pad(4)?;
        self.toc.postings = self.out.len();
        let table_path = self.path.with_file_name(TABLE_FILE);
        let mut table = Table { out: OutFile::create(&table_path)?, count: 0 };
        let all = std::mem::take(&mut self.all);
        self.write_list("", "", &all, &mut table)?;
        if self.postings.overflown {
            for names in self.batches() {
                let lists = gather(&written, self.toc.series, &all, &names)?;
                self.write_lists(lists, &symbols, &mut table)?;
            }
        } else {
            let lists = std::mem::take(&mut self.postings.lists);
            self.write_lists(lists, &symbols, &mut table)?;
        }
        // The sections for label values have not been read for years; writers leave them out but set the offset.
        self.toc.label_indices_table = self.out.len();
        self.toc.postings_table = self.out.len();
        table.copy_to(&table_path, &mut self.out)?;
        let mut toc = Vec::new();
        let t = self.toc;
        for offset in
            [t.symbols, t.series, t.label_indices, t.label_indices_table, t.postings, t.postings_table]
        {
            put_be64(&mut toc, offset);
        }
        let crc = crc32c::crc32c(&toc);
        put_be32(&mut toc, crc);
        self.out.write(&toc)?;
        self.out.sync()
    }

    fn symbols(&self, written: &Bytes) -> Result<SymbolTable, StorageError> {
        // Between the section's length before and its checksum behind.
        let body = written.slice(self.toc.symbols as usize + 4..self.toc.series as usize - 4);
        SymbolTable::load(body, None).ok_or_else(|| StorageError::Corruption {
            path: self.path.clone(),
            offset: self.toc.symbols,
            reason: "the symbol table is not what was written".into(),
        })
    }

    /// Label names in order, in groups whose lists fit into memory together. A name that does not fit is a group.
    fn batches(&self) -> Vec<Vec<u32>> {
        let mut names: Vec<(u32, u64)> = self.name_counts.iter().map(|(n, c)| (*n, *c)).collect();
        names.sort_unstable();
        let mut batches: Vec<Vec<u32>> = Vec::new();
        let mut len = u64::MAX;
        for (name, count) in names {
            if len.saturating_add(count) > self.postings_max as u64 {
                batches.push(Vec::new());
                len = 0;
            }
            batches.last_mut().expect("pushed above").push(name);
            len += count;
        }
        batches
    }

    fn write_lists(
        &mut self,
        lists: HashMap<SymbolPair, Vec<u32>>,
        symbols: &SymbolTable,
        table: &mut Table,
    ) -> Result<(), StorageError> {
        let mut lists: Vec<_> = lists.into_iter().collect();
        lists.sort_unstable_by_key(|(pair, _)| *pair);
        for ((n, v), list) in lists {
            let text = |s| symbols.get(s).expect("checked when the series was added");
            self.write_list(text(n), text(v), &list, table)?;
        }
        Ok(())
    }

    fn write_list(
        &mut self,
        name: &str,
        value: &str,
        list: &[u32],
        table: &mut Table,
    ) -> Result<(), StorageError> {
        self.out.pad(4)?;
        table.add(name, value, self.out.len())?;
        self.scratch.clear();
        put_be32(&mut self.scratch, len32(list.len(), "postings list")?);
        list.iter().for_each(|id| put_be32(&mut self.scratch, *id));
        self.out.write(&len32(self.scratch.len(), "postings list")?.to_be_bytes())?;
        self.out.write(&self.scratch)?;
        self.out.write(&crc32c::crc32c(&self.scratch).to_be_bytes())
    }
}

fn put_chunks(body: &mut Vec<u8>, chunks: &[ChunkMeta]) {
    put_uvarint(body, chunks.len() as u64);
    let mut before: Option<&ChunkMeta> = None;
    for c in chunks {
        match before {
            None => put_varint(body, c.mint),
            Some(b) => put_uvarint(body, c.mint.wrapping_sub(b.maxt) as u64),
        }
        put_uvarint(body, c.maxt.wrapping_sub(c.mint) as u64);
        match before {
            None => put_uvarint(body, c.reference),
            Some(b) => put_varint(body, c.reference.wrapping_sub(b.reference) as i64),
        }
        before = Some(c);
    }
}

/// Collects the lists of some label names, which are sorted, from series that are written.
fn gather(
    written: &Bytes,
    series_at: u64,
    ids: &[u32],
    names: &[u32],
) -> Result<HashMap<SymbolPair, Vec<u32>>, StorageError> {
    let mut lists: HashMap<SymbolPair, Vec<u32>> = HashMap::new();
    for id in ids {
        let at = u64::from(*id) * SERIES_ALIGN;
        assert!(at >= series_at, "ids are offsets of series");
        let read = (|| {
            let mut r = Reader::new(written.get(at as usize..)?);
            r.uvarint()?;
            for _ in 0..r.uvarint()? {
                let pair = (r.uvarint()? as u32, r.uvarint()? as u32);
                if names.binary_search(&pair.0).is_ok() {
                    lists.entry(pair).or_default().push(*id);
                }
            }
            Some(())
        })();
        read.ok_or_else(|| StorageError::decode("index", "a series is not what was written".to_owned()))?;
    }
    Ok(lists)
}

/// The table of postings offsets on its way.
struct Table {
    out: OutFile,
    count: u32,
}

impl Table {
    fn add(&mut self, name: &str, value: &str, offset: u64) -> Result<(), StorageError> {
        let mut entry = Vec::with_capacity(name.len() + value.len() + 16);
        put_uvarint(&mut entry, 2);
        put_str(&mut entry, name);
        put_str(&mut entry, value);
        put_uvarint(&mut entry, offset);
        self.count = self.count.checked_add(1).ok_or_else(|| too_large("number of label pairs"))?;
        self.out.write(&entry)
    }

    /// Writes the section and removes the file.
    fn copy_to(mut self, path: &Path, out: &mut OutFile) -> Result<(), StorageError> {
        self.out.flush()?;
        let entries = dir::map(path)?;
        let count = self.count.to_be_bytes();
        out.write(&len32(entries.len() + count.len(), "postings offset table")?.to_be_bytes())?;
        out.write(&count)?;
        out.write(&entries)?;
        out.write(&crc32c::crc32c_append(crc32c::crc32c(&count), &entries).to_be_bytes())?;
        dir::remove_file(path)
    }
}

/// Writes the symbols, with which an index begins.
pub(crate) struct SymbolWriter {
    path: PathBuf,
    out: OutFile,
    /// Of the strings.
    crc: u32,
    count: u32,
    last: String,
    scratch: Vec<u8>,
}

impl SymbolWriter {
    /// Adds a label name or value and gives its position. They rise strictly.
    pub(crate) fn add(&mut self, symbol: &str) -> Result<u32, StorageError> {
        assert!(self.count == 0 || self.last.as_str() < symbol, "symbols are strictly sorted");
        self.last.clear();
        self.last.push_str(symbol);
        self.scratch.clear();
        put_str(&mut self.scratch, symbol);
        self.crc = crc32c::crc32c_append(self.crc, &self.scratch);
        self.out.write(&self.scratch)?;
        self.count = self.count.checked_add(1).ok_or_else(|| too_large("number of symbols"))?;
        Ok(self.count - 1)
    }

    /// Ends the symbols; series may follow.
    pub(crate) fn finish(mut self) -> Result<IndexWriter, StorageError> {
        let count = self.count.to_be_bytes();
        let body_len = self.out.len() - HEADER_LEN_BYTES - 4;
        let len = len32(body_len as usize, "symbol table")?;
        let crc = crc32c::crc32c_combine(crc32c::crc32c(&count), self.crc, body_len as usize - 4);
        self.out.write(&crc.to_be_bytes())?;
        let mut head = Vec::with_capacity(8);
        put_be32(&mut head, len);
        head.extend_from_slice(&count);
        self.out.write_back(HEADER_LEN_BYTES, &head)?;
        let toc = Toc { symbols: HEADER_LEN_BYTES, series: self.out.len(), ..Toc::default() };
        Ok(IndexWriter {
            path: self.path,
            out: self.out,
            toc,
            symbol_count: self.count,
            postings: Postings::default(),
            postings_max: POSTINGS_MAX,
            name_counts: HashMap::new(),
            all: Vec::new(),
            last: Vec::new(),
            scratch: self.scratch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, postings_max: usize) -> Vec<u8> {
        let path = dir.join("index");
        let mut symbols = IndexWriter::create(&path).expect("created");
        let names: Vec<String> = (0..50).map(|i| format!("{i:02}")).collect();
        for n in &names {
            symbols.add(n).expect("written");
        }
        let mut w = symbols.finish().expect("written");
        w.postings_max = postings_max;
        for i in 0..40_u32 {
            let labels = [(0, 1 + i), (3, 4), (5, i % 7), (9 + i % 3, 6)];
            let chunk = ChunkMeta { mint: i64::from(i), maxt: i64::from(i) + 5, reference: u64::from(i) };
            w.add_series(&labels, &[chunk]).expect("written");
        }
        w.finish().expect("written");
        assert_eq!(dir::list(dir).expect("listed"), ["index"]);
        std::fs::read(path).expect("read")
    }

    #[test]
    fn postings_gathered_from_the_file_are_those_collected_on_the_way() {
        let dir = tempfile::tempdir().expect("tempdir");
        let whole = write(dir.path(), POSTINGS_MAX);
        for max in [0, 1, 40, 50, 100, 159] {
            assert!(write(dir.path(), max) == whole, "at most {max} postings in memory");
        }
    }
}
