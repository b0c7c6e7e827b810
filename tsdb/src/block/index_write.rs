//! Writes the index of a block, version 2. Spec: docs/formats/blocks.md#index.
//!
//! Order in the file: symbols, series, postings, table of postings offsets, table of contents. Postings are collected in
//! memory while series come: four bytes for each label of each series.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use model::{Labels, StorageError};

use super::ChunkMeta;
use crate::dir::OutFile;
use crate::varint::{put_be32, put_be64, put_str, put_uvarint, put_varint};

pub(crate) const MAGIC: u32 = 0xBAAA_D700;
pub(crate) const VERSION: u8 = 2;
/// Series begin at multiples of this; their id is the offset divided by it.
pub(crate) const SERIES_ALIGN: u64 = 16;

pub(crate) struct IndexWriter {
    out: OutFile,
    symbols: HashMap<Box<str>, u32>,
    /// By position, for the table of postings offsets.
    sorted_symbols: Vec<Box<str>>,
    toc: Toc,
    /// (name, value) as positions of their symbols, which sort like the strings.
    postings: BTreeMap<(u32, u32), Vec<u32>>,
    all: Vec<u32>,
    last: Option<Labels>,
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

fn too_large(what: &str) -> StorageError {
    StorageError::Limit(format!("index of a block: {what} exceeds what its format can hold"))
}

fn len32(n: usize, what: &str) -> Result<u32, StorageError> {
    u32::try_from(n).map_err(|_| too_large(what))
}

impl IndexWriter {
    pub(crate) fn create<'a>(
        path: &Path,
        symbols: impl Iterator<Item = &'a str>,
    ) -> Result<Self, StorageError> {
        let mut out = OutFile::create(path)?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION])?;
        let mut toc = Toc { symbols: out.len(), ..Toc::default() };
        let sorted_symbols: Vec<Box<str>> = symbols.map(Box::from).collect();
        assert!(sorted_symbols.is_sorted_by(|a, b| a < b), "symbols are strictly sorted");
        let mut body = Vec::new();
        put_be32(&mut body, len32(sorted_symbols.len(), "number of symbols")?);
        sorted_symbols.iter().for_each(|s| put_str(&mut body, s));
        write_section(&mut out, &body, "symbol table")?;
        toc.series = out.len();
        let symbols = sorted_symbols.iter().enumerate().map(|(i, s)| (s.clone(), i as u32)).collect();
        Ok(Self {
            out,
            symbols,
            sorted_symbols,
            toc,
            postings: BTreeMap::new(),
            all: Vec::new(),
            last: None,
            scratch: Vec::new(),
        })
    }

    /// Adds a series; labels rise strictly, and so do the references of all chunks.
    pub(crate) fn add_series(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<(), StorageError> {
        assert!(self.last.as_ref().is_none_or(|l| l < labels), "series come in order of their labels");
        self.last = Some(labels.clone());
        self.out.pad(SERIES_ALIGN)?;
        let id = u32::try_from(self.out.len() / SERIES_ALIGN).map_err(|_| too_large("series"))?;
        self.all.push(id);

        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        put_uvarint(&mut body, labels.len() as u64);
        for (n, v) in labels {
            let pair = (self.symbol(n), self.symbol(v));
            put_uvarint(&mut body, u64::from(pair.0));
            put_uvarint(&mut body, u64::from(pair.1));
            self.postings.entry(pair).or_default().push(id);
        }
        put_uvarint(&mut body, chunks.len() as u64);
        let mut before: Option<&ChunkMeta> = None;
        for c in chunks {
            match before {
                None => put_varint(&mut body, c.mint),
                Some(b) => put_uvarint(&mut body, c.mint.wrapping_sub(b.maxt) as u64),
            }
            put_uvarint(&mut body, c.maxt.wrapping_sub(c.mint) as u64);
            match before {
                None => put_uvarint(&mut body, c.reference),
                Some(b) => put_varint(&mut body, c.reference.wrapping_sub(b.reference) as i64),
            }
            before = Some(c);
        }
        let mut len = Vec::new();
        put_uvarint(&mut len, body.len() as u64);
        let crc = crc32c::crc32c(&body);
        put_be32(&mut body, crc);
        self.out.write(&len)?;
        self.out.write(&body)?;
        self.scratch = body;
        Ok(())
    }

    fn symbol(&self, s: &str) -> u32 {
        *self.symbols.get(s).expect("the caller gave all symbols of its series")
    }

    /// Writes what comes after the series and syncs the file.
    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        self.toc.label_indices = self.out.len();
        self.out.pad(4)?;
        self.toc.postings = self.out.len();
        let mut table = Vec::new();
        put_be32(&mut table, len32(self.postings.len() + 1, "number of label pairs")?);
        let all = std::mem::take(&mut self.all);
        self.write_postings("", "", &all, &mut table)?;
        for ((n, v), list) in std::mem::take(&mut self.postings) {
            let symbols = std::mem::take(&mut self.sorted_symbols);
            self.write_postings(&symbols[n as usize], &symbols[v as usize], &list, &mut table)?;
            self.sorted_symbols = symbols;
        }
        // The sections for label values have not been read for years; writers leave them out but set the offset.
        self.toc.label_indices_table = self.out.len();
        self.toc.postings_table = self.out.len();
        write_section(&mut self.out, &table, "postings offset table")?;
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

    fn write_postings(
        &mut self,
        name: &str,
        value: &str,
        list: &[u32],
        table: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.out.pad(4)?;
        put_uvarint(table, 2);
        put_str(table, name);
        put_str(table, value);
        put_uvarint(table, self.out.len());
        self.scratch.clear();
        put_be32(&mut self.scratch, len32(list.len(), "postings list")?);
        list.iter().for_each(|id| put_be32(&mut self.scratch, *id));
        write_section(&mut self.out, &self.scratch, "postings list")
    }
}

/// Length, body, checksum of the body.
fn write_section(out: &mut OutFile, body: &[u8], what: &str) -> Result<(), StorageError> {
    out.write(&len32(body.len(), what)?.to_be_bytes())?;
    out.write(body)?;
    out.write(&crc32c::crc32c(body).to_be_bytes())
}
