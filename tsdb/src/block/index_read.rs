//! Reads the index of a block, version 2, from a mapped file. Spec: docs/formats/blocks.md#index.
//!
//! Kept in memory: the offset of each symbol, and of every 32nd entry of the table of postings offsets. The checksums of
//! the tables are verified when the index is opened, those of series and postings each time they are read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{Labels, StorageError};

use super::ChunkMeta;
use super::index_write::{MAGIC, SERIES_ALIGN, Toc, VERSION};
use crate::dir;
use crate::postings::{List, PostingsIndex};
use crate::varint::Reader;

const TOC_LEN_BYTES: usize = 6 * 8 + 4;
/// One of so many entries of the postings table is remembered.
const TABLE_STRIDE: usize = 32;

pub(crate) struct IndexReader {
    path: PathBuf,
    bytes: Bytes,
    /// Offset of each symbol.
    symbols: Vec<u32>,
    names: HashMap<Box<str>, NameEntries>,
    /// Label names in order of the file.
    sorted_names: Vec<Box<str>>,
}

/// Where the entries of a label name lie in the postings table.
#[derive(Default)]
struct NameEntries {
    /// Offsets in the file of entries 0, 32, 64 and so on.
    sampled: Vec<u64>,
    count: usize,
}

/// An entry of the postings table.
struct Entry<'a> {
    name: &'a str,
    value: &'a str,
    offset: u64,
}

impl IndexReader {
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let mut index = Self {
            path: path.to_owned(),
            bytes: dir::map(path)?,
            symbols: Vec::new(),
            names: HashMap::new(),
            sorted_names: Vec::new(),
        };
        let mut header = Reader::new(&index.bytes);
        if header.be32() != Some(MAGIC) {
            return Err(index.corrupt(0, "not an index"));
        }
        match header.u8() {
            Some(VERSION) => {}
            Some(1) => {
                return Err(StorageError::Unsupported(format!("index version 1 in {}", path.display())));
            }
            _ => return Err(index.corrupt(4, "unknown index version")),
        }
        let toc = index.toc()?;
        index.load_symbols(toc.symbols)?;
        index.load_names(toc.postings_table)?;
        Ok(index)
    }

    fn corrupt(&self, offset: u64, reason: impl Into<String>) -> StorageError {
        StorageError::Corruption { path: self.path.clone(), offset, reason: reason.into() }
    }

    fn toc(&self) -> Result<Toc, StorageError> {
        let at = self.bytes.len().saturating_sub(TOC_LEN_BYTES);
        let err = || self.corrupt(at as u64, "table of contents is damaged");
        let (body, crc) = self.bytes[at..].split_last_chunk::<4>().ok_or_else(err)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
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
            (crc32c::crc32c(body) == r.be32()?).then_some(body)
        })();
        body.ok_or_else(|| self.corrupt(offset, format!("{what} is damaged")))
    }

    fn load_symbols(&mut self, offset: u64) -> Result<(), StorageError> {
        let body = self.section(offset, "symbol table")?;
        let err = || self.corrupt(offset, "symbol table is damaged");
        let mut r = Reader::new(body);
        let count = r.be32().ok_or_else(err)? as usize;
        let base = offset + 4 + body.len() as u64;
        let mut symbols = Vec::with_capacity(count.min(body.len()));
        for _ in 0..count {
            let at = base - r.len() as u64;
            symbols.push(u32::try_from(at).map_err(|_| err())?);
            r.str().ok_or_else(err)?;
        }
        self.symbols = symbols;
        Ok(())
    }

    fn load_names(&mut self, offset: u64) -> Result<(), StorageError> {
        let body = self.section(offset, "postings offset table")?;
        let err = || self.corrupt(offset, "postings offset table is damaged");
        let mut r = Reader::new(body);
        let count = r.be32().ok_or_else(err)?;
        let base = offset + 4 + body.len() as u64;
        let mut names: HashMap<Box<str>, NameEntries> = HashMap::new();
        let mut sorted_names: Vec<Box<str>> = Vec::new();
        for _ in 0..count {
            let at = base - r.len() as u64;
            let entry = read_entry(&mut r).ok_or_else(err)?;
            if sorted_names.last().is_none_or(|l| **l != *entry.name) {
                sorted_names.push(entry.name.into());
            }
            let entries = match names.get_mut(entry.name) {
                Some(e) => e,
                None => names.entry(entry.name.into()).or_default(),
            };
            if entries.count.is_multiple_of(TABLE_STRIDE) {
                entries.sampled.push(at);
            }
            entries.count += 1;
        }
        self.names = names;
        self.sorted_names = sorted_names;
        Ok(())
    }

    /// Bytes kept in memory for symbols and names.
    pub(crate) fn memory_bytes(&self) -> usize {
        let sampled: usize = self.names.values().map(|e| e.sampled.len() * 8 + 64).sum();
        self.symbols.len() * 4 + sampled
    }

    fn symbol(&self, number: u64) -> Option<&str> {
        let offset = *self.symbols.get(usize::try_from(number).ok()?)?;
        Reader::new(&self.bytes[offset as usize..]).str()
    }

    /// Label names, sorted.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.sorted_names.iter().map(|n| &**n).filter(|n| !n.is_empty())
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
        let err = |at: u64| self.corrupt(at, "postings offset table is damaged");
        // The last remembered entry that is not after the prefix: values with it begin there or later.
        let entry_at = |at: u64| read_entry(&mut Reader::new(&self.bytes[at as usize..]));
        let first = entries.sampled.partition_point(|at| entry_at(*at).is_some_and(|e| e.value <= prefix));
        let first = first.saturating_sub(1);
        let Some(at) = entries.sampled.get(first) else { return Ok(()) };
        let mut r = Reader::new(&self.bytes[*at as usize..]);
        for _ in first * TABLE_STRIDE..entries.count {
            let entry = read_entry(&mut r).ok_or_else(|| err(*at))?;
            if entry.value < prefix {
                continue;
            }
            if !entry.value.starts_with(prefix) || !f(entry.value, entry.offset)? {
                break;
            }
        }
        Ok(())
    }

    fn postings_at(&self, offset: u64) -> Result<List<'static>, StorageError> {
        let body = self.section(offset, "postings list")?;
        let (count, ids) = body.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        if ids.len() != u32::from_be_bytes(*count) as usize * 4 {
            return Err(self.corrupt(offset, "postings list is damaged"));
        }
        let (ids, _) = ids.as_chunks::<4>();
        Ok(ids.iter().map(|b| u64::from(u32::from_be_bytes(*b))).collect::<Vec<_>>().into())
    }

    /// Labels and chunks of a series.
    pub(crate) fn series(&self, id: u64, chunks: &mut Vec<ChunkMeta>) -> Result<Labels, StorageError> {
        chunks.clear();
        let offset = id * SERIES_ALIGN;
        let err = || self.corrupt(offset, "series is damaged");
        let body = (|| {
            let mut r = Reader::new(self.bytes.get(usize::try_from(offset).ok()?..)?);
            let len = usize::try_from(r.uvarint()?).ok()?;
            let body = r.bytes(len)?;
            (crc32c::crc32c(body) == r.be32()?).then_some(body)
        })();
        let mut r = Reader::new(body.ok_or_else(err)?);
        self.read_series(&mut r, chunks).ok_or_else(err)
    }

    fn read_series(&self, r: &mut Reader<'_>, chunks: &mut Vec<ChunkMeta>) -> Option<Labels> {
        let n = r.count(2)?;
        let mut pairs = Vec::with_capacity(n);
        for _ in 0..n {
            pairs.push((self.symbol(r.uvarint()?)?, self.symbol(r.uvarint()?)?));
        }
        let sorted = pairs.windows(2).all(|w| w[0].0 < w[1].0) && pairs.iter().all(|p| !p.1.is_empty());
        if !sorted {
            return None;
        }
        let mut before: Option<ChunkMeta> = None;
        for _ in 0..r.count(3)? {
            let mint = match before {
                None => r.varint()?,
                Some(b) => b.maxt.checked_add_unsigned(r.uvarint()?)?,
            };
            let maxt = mint.checked_add_unsigned(r.uvarint()?)?;
            let reference = match before {
                None => r.uvarint()?,
                Some(b) => b.reference.checked_add_signed(r.varint()?)?,
            };
            let meta = ChunkMeta { mint, maxt, reference };
            chunks.push(meta);
            before = Some(meta);
        }
        Some(Labels::from_sorted(pairs.iter().copied()))
    }
}

fn read_entry<'a>(r: &mut Reader<'a>) -> Option<Entry<'a>> {
    if r.uvarint()? != 2 {
        return None;
    }
    Some(Entry { name: r.str()?, value: r.str()?, offset: r.uvarint()? })
}

impl PostingsIndex for IndexReader {
    fn all(&self) -> Result<List<'_>, StorageError> {
        self.get("", "")
    }

    fn get(&self, name: &str, value: &str) -> Result<List<'_>, StorageError> {
        let mut found = None;
        self.for_each_value(name, value, |v, offset| {
            if v == value {
                found = Some(offset);
            }
            Ok(false)
        })?;
        found.map_or(Ok(Vec::new().into()), |offset| self.postings_at(offset))
    }

    fn matching<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        pass: &mut dyn FnMut(&str) -> bool,
        out: &mut Vec<List<'a>>,
    ) -> Result<(), StorageError> {
        // The entry without name and value lists all series and is no label.
        if name.is_empty() {
            return Ok(());
        }
        self.for_each_value(name, prefix, |v, offset| {
            if pass(v) {
                out.push(self.postings_at(offset)?);
            }
            Ok(true)
        })
    }
}
