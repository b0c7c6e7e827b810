//! Reads the index of a block, versions 1 and 2, from a mapped file. Spec: docs/formats/blocks.md#index.
//!
//! Kept in memory: the offset of every eighth symbol, and of every 32nd entry of the table of postings offsets. (Version 1
//! did not sort that table, so all of its entries are kept.) The checksums of the tables are verified when the index is
//! opened, those of series and postings each time they are read. Labels come as positions of symbols, which sort like the
//! strings: what only compares them never looks at a string.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::StorageError;
use model::labels::LabelsWriter;

use super::ChunkMeta;
use super::index_write::{MAGIC, SERIES_ALIGN, Toc, VERSION};
use super::symbols::SymbolTable;
use crate::checksum;
use crate::dir;
use crate::postings::{List, PostingsIndex};
use crate::varint::Reader;

const TOC_LEN_BYTES: usize = 6 * 8 + 4;
/// The version before [`VERSION`]: symbols and series are named by their offsets.
const VERSION_1: u8 = 1;
/// One of so many entries of the postings table is remembered.
const TABLE_STRIDE: usize = 32;

pub(crate) struct IndexReader {
    path: PathBuf,
    bytes: Bytes,
    /// A series begins at its id times this.
    series_align: u64,
    pub(crate) symbols: SymbolTable,
    /// Where the body of the postings table begins.
    table_at: usize,
    /// Entries of the table from one remembered offset to the next.
    table_stride: usize,
    names: HashMap<Box<str>, NameEntries>,
    /// Label names, sorted. The empty one, which stands for all series, is there too.
    sorted_names: Vec<Box<str>>,
}

/// Where the entries of a label name lie in the postings table.
#[derive(Default)]
struct NameEntries {
    /// Offsets in the table of entries 0, 32, 64 and so on.
    sampled: Vec<u32>,
    count: usize,
}

/// A label pair as positions of symbols.
pub(crate) type SymbolPair = (u32, u32);

/// A series as the index has it. Buffers are reused from one series to the next.
#[derive(Default)]
pub(crate) struct RawSeries {
    /// Sorted by name.
    pub(crate) labels: Vec<SymbolPair>,
    pub(crate) chunks: Vec<ChunkMeta>,
}

impl IndexReader {
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let mut index = Self {
            path: path.to_owned(),
            bytes: dir::map(path)?,
            series_align: SERIES_ALIGN,
            symbols: SymbolTable::default(),
            table_at: 0,
            table_stride: TABLE_STRIDE,
            names: HashMap::new(),
            sorted_names: Vec::new(),
        };
        let mut header = Reader::new(&index.bytes);
        if header.be32() != Some(MAGIC) {
            return Err(index.corrupt(0, "not an index"));
        }
        let v1 = match header.u8() {
            Some(VERSION) => false,
            Some(VERSION_1) => true,
            _ => return Err(index.corrupt(4, "unknown index version")),
        };
        if v1 {
            (index.series_align, index.table_stride) = (1, 1);
        }
        let toc = index.toc()?;
        index.load_symbols(toc.symbols, v1)?;
        index.load_names(toc.postings_table, v1)?;
        Ok(index)
    }

    fn corrupt(&self, offset: u64, reason: impl Into<String>) -> StorageError {
        StorageError::Corruption { path: self.path.clone(), offset, reason: reason.into() }
    }

    fn toc(&self) -> Result<Toc, StorageError> {
        let at = self.bytes.len().saturating_sub(TOC_LEN_BYTES);
        let err = || self.corrupt(at as u64, "table of contents is damaged");
        let (body, crc) = self.bytes[at..].split_last_chunk::<4>().ok_or_else(err)?;
        if !checksum::is_right(body, u32::from_be_bytes(*crc)) {
            return Err(err());
        }
        let mut r = Reader::new(body);
        let mut next = || r.be64().ok_or_else(err);
        Ok(Toc {
            symbols: next()?,
            series: next()?,
            label_indices: next()?,
            label_indices_table: next()?,
            postings: next()?,
            postings_table: next()?,
        })
    }

    /// The body of a section with a four-byte length, its checksum verified.
    fn section(&self, offset: u64, what: &str) -> Result<&[u8], StorageError> {
        let body = (|| {
            let mut r = Reader::new(self.bytes.get(usize::try_from(offset).ok()?..)?);
            let len = r.be32()? as usize;
            let body = r.bytes(len)?;
            checksum::is_right(body, r.be32()?).then_some(body)
        })();
        body.ok_or_else(|| self.corrupt(offset, format!("{what} is damaged")))
    }

    fn load_symbols(&mut self, offset: u64, v1: bool) -> Result<(), StorageError> {
        let body = self.section(offset, "symbol table")?;
        let base = offset + 4;
        let body = self.bytes.slice_ref(body);
        let table = SymbolTable::load(body, v1.then_some(base));
        self.symbols = table.ok_or_else(|| self.corrupt(offset, "symbol table is damaged"))?;
        Ok(())
    }

    fn load_names(&mut self, offset: u64, v1: bool) -> Result<(), StorageError> {
        let body = self.section(offset, "postings offset table")?;
        let err = || self.corrupt(offset, "postings offset table is damaged");
        let mut r = Reader::new(body);
        let count = r.be32().ok_or_else(err)?;
        let mut names: HashMap<Box<str>, NameEntries> = HashMap::new();
        let mut current: (&[u8], NameEntries) = (&[], NameEntries::default());
        let mut put = |name: &[u8], entries: NameEntries| {
            let name = std::str::from_utf8(name).ok()?;
            // Entries of a name follow each other in version 2, but not in version 1.
            let all = names.entry(name.into()).or_default();
            if all.count > 0 && !v1 {
                return None;
            }
            all.sampled.extend(entries.sampled);
            all.count += entries.count;
            Some(())
        };
        for _ in 0..count {
            let at = (body.len() - r.len()) as u32;
            let name = entry_name(&mut r).ok_or_else(err)?;
            r.skip_str().and_then(|()| r.uvarint()).ok_or_else(err)?;
            if current.0 != name {
                let (before, entries) = std::mem::replace(&mut current, (name, NameEntries::default()));
                if entries.count > 0 {
                    put(before, entries).ok_or_else(err)?;
                }
            }
            if current.1.count.is_multiple_of(self.table_stride) {
                current.1.sampled.push(at);
            }
            current.1.count += 1;
        }
        if current.1.count > 0 {
            put(current.0, current.1).ok_or_else(err)?;
        }
        if v1 {
            let value = |at: &u32| entry(&mut Reader::new(&body[*at as usize..])).map(|e| e.0);
            names.values_mut().for_each(|e| e.sampled.sort_by_key(value));
        }
        let mut sorted_names: Vec<Box<str>> = names.keys().cloned().collect();
        sorted_names.sort_unstable();
        self.table_at = offset as usize + 4;
        self.names = names;
        self.sorted_names = sorted_names;
        Ok(())
    }

    /// Bytes kept in memory for symbols and names.
    pub(crate) fn memory_bytes(&self) -> usize {
        let sampled: usize = self.names.values().map(|e| e.sampled.len() * 4 + 64).sum();
        self.symbols.memory_bytes() + sampled
    }

    /// Label names, sorted.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.sorted_names.iter().map(|n| &**n).filter(|n| !n.is_empty())
    }

    /// Number of values of a label.
    pub(crate) fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |e| e.count)
    }

    /// Calls `f` with each value of a label that begins with `prefix` and the offset of its postings, in order, until it
    /// returns false.
    pub(crate) fn for_each_value<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        mut f: impl FnMut(&'a str, u64) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        let Some(entries) = self.names.get(name) else { return Ok(()) };
        let table = &self.bytes[self.table_at..];
        let err = || self.corrupt(self.table_at as u64, "postings offset table is damaged");
        let value_at = |at: u32| entry(&mut Reader::new(&table[at as usize..])).map_or("", |e| e.0);
        // The last remembered entry that is not after the prefix: values with it begin there or later.
        let first = entries.sampled.partition_point(|at| value_at(*at) <= prefix).saturating_sub(1);
        let Some(at) = entries.sampled.get(first) else { return Ok(()) };
        let mut r = Reader::new(&table[*at as usize..]);
        for i in first * self.table_stride..entries.count {
            if self.table_stride == 1 {
                r = Reader::new(&table[entries.sampled[i] as usize..]);
            }
            let (value, offset) = entry(&mut r).ok_or_else(err)?;
            if value < prefix {
                continue;
            }
            if !value.starts_with(prefix) || !f(value, offset)? {
                break;
            }
        }
        Ok(())
    }

    /// A postings list where it lies: series ids, four bytes each, big-endian, rising.
    fn postings_at(&self, offset: u64) -> Result<&[[u8; 4]], StorageError> {
        let body = self.section(offset, "postings list")?;
        let (count, ids) = body.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let (ids, rest) = ids.as_chunks::<4>();
        if ids.len() != u32::from_be_bytes(*count) as usize || !rest.is_empty() {
            return Err(self.corrupt(offset, "postings list is damaged"));
        }
        Ok(ids)
    }

    /// Ids of all series, as [`IndexReader::postings_at`] has them: in order of the labels.
    pub(crate) fn all_series(&self) -> Result<&[[u8; 4]], StorageError> {
        let mut found = None;
        self.for_each_value("", "", |_, offset| {
            found = Some(offset);
            Ok(false)
        })?;
        found.map_or(Ok(&[]), |offset| self.postings_at(offset))
    }

    /// Reads a series with those of its chunks that may have samples within `[mint, maxt]`.
    pub(crate) fn series(
        &self,
        id: u64,
        mint: i64,
        maxt: i64,
        out: &mut RawSeries,
    ) -> Result<(), StorageError> {
        let offset = id.saturating_mul(self.series_align);
        let body = (|| {
            let mut r = Reader::new(self.bytes.get(usize::try_from(offset).ok()?..)?);
            let len = usize::try_from(r.uvarint()?).ok()?;
            let body = r.bytes(len)?;
            checksum::is_right(body, r.be32()?).then_some(body)
        })();
        let mut r = Reader::new(body.unwrap_or_default());
        let read = self
            .read_labels(&mut r, &mut out.labels)
            .and_then(|()| read_chunks(&mut r, mint, maxt, &mut out.chunks));
        read.ok_or_else(|| self.corrupt(offset, "series is damaged"))
    }

    fn read_labels(&self, r: &mut Reader<'_>, out: &mut Vec<SymbolPair>) -> Option<()> {
        out.clear();
        for _ in 0..r.count(2)? {
            let name = self.symbols.position(r.uvarint()?)?;
            let value = self.symbols.position(r.uvarint()?)?;
            let sorted = out.last().is_none_or(|(before, _)| *before < name);
            if !sorted || name.max(value) as usize >= self.symbols.len() {
                return None;
            }
            out.push((name, value));
        }
        Some(())
    }

    /// Writes the labels into `out`, which is cleared first.
    pub(crate) fn write_labels(
        &self,
        pairs: &[SymbolPair],
        out: &mut LabelsWriter,
    ) -> Result<(), StorageError> {
        out.clear();
        let err = || self.corrupt(0, "a series has a label that the symbol table cannot have");
        for (name, value) in pairs {
            let name = self.symbols.get(*name).ok_or_else(err)?;
            let value = self.symbols.get(*value).filter(|v| !v.is_empty()).ok_or_else(err)?;
            out.push(name, value);
        }
        Ok(())
    }
}

fn read_chunks(r: &mut Reader<'_>, mint: i64, maxt: i64, out: &mut Vec<ChunkMeta>) -> Option<()> {
    out.clear();
    let mut before: Option<ChunkMeta> = None;
    for _ in 0..r.count(3)? {
        let meta = match before {
            None => {
                let mint = r.varint()?;
                let maxt = mint.checked_add_unsigned(r.uvarint()?)?;
                ChunkMeta { mint, maxt, reference: r.uvarint()? }
            }
            Some(b) => {
                let mint = b.maxt.checked_add_unsigned(r.uvarint()?)?;
                let maxt = mint.checked_add_unsigned(r.uvarint()?)?;
                ChunkMeta { mint, maxt, reference: b.reference.checked_add_signed(r.varint()?)? }
            }
        };
        if meta.mint > maxt {
            break;
        }
        if meta.maxt >= mint {
            out.push(meta);
        }
        before = Some(meta);
    }
    Some(())
}

/// Name of the entry of the postings table that `r` stands at; goes on to its value.
fn entry_name<'a>(r: &mut Reader<'a>) -> Option<&'a [u8]> {
    if r.uvarint()? != 2 {
        return None;
    }
    let n = usize::try_from(r.uvarint()?).ok()?;
    r.bytes(n)
}

/// Value and offset of the postings of the entry that `r` stands at; goes on to the next one.
fn entry<'a>(r: &mut Reader<'a>) -> Option<(&'a str, u64)> {
    entry_name(r)?;
    Some((r.str()?, r.uvarint()?))
}

impl PostingsIndex for IndexReader {
    fn all(&self) -> Result<List<'_>, StorageError> {
        self.all_series().map(List::Packed)
    }

    fn get(&self, name: &str, value: &str) -> Result<List<'_>, StorageError> {
        let mut found = None;
        // The entry without name and value lists all series and is no label.
        if !name.is_empty() {
            self.for_each_value(name, value, |v, offset| {
                if v == value {
                    found = Some(offset);
                }
                Ok(false)
            })?;
        }
        found.map_or(Ok(List::EMPTY), |offset| self.postings_at(offset).map(List::Packed))
    }

    fn matching<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        pass: &mut dyn FnMut(&str) -> bool,
        out: &mut Vec<List<'a>>,
    ) -> Result<(), StorageError> {
        if name.is_empty() {
            return Ok(());
        }
        self.for_each_value(name, prefix, |v, offset| {
            if pass(v) {
                out.push(List::Packed(self.postings_at(offset)?));
            }
            Ok(true)
        })
    }

    fn value_count(&self, name: &str) -> usize {
        if name.is_empty() { 0 } else { IndexReader::value_count(self, name) }
    }

    fn retain(
        &self,
        ids: &mut Vec<u64>,
        name: &str,
        pass: &mut dyn FnMut(&str) -> bool,
    ) -> Result<bool, StorageError> {
        let mut raw = RawSeries::default();
        let name = self.symbols.find(name);
        let mut failed = None;
        // Neighbours often have the same value.
        let mut last: Option<(u32, bool)> = None;
        ids.retain(|id| {
            if failed.is_some() {
                return false;
            }
            // An empty range: no chunk is needed.
            if let Err(e) = self.series(*id, i64::MAX, i64::MIN, &mut raw) {
                failed = Some(e);
                return false;
            }
            let Some((_, v)) = raw.labels.iter().find(|(n, _)| Some(*n) == name) else {
                return pass("");
            };
            if let Some((value, passed)) = last
                && value == *v
            {
                return passed;
            }
            let passed = pass(self.symbols.get(*v).unwrap_or_default());
            last = Some((*v, passed));
            passed
        });
        failed.map_or(Ok(true), Err)
    }
}
