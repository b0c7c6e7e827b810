//! Chunk files of a block: `chunks/000001` and so on. Spec: docs/formats/chunk.md#files.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::StorageError;

use crate::checksum;
use crate::dir::{self, OutFile};
use crate::varint;

const MAGIC: u32 = 0x85BD_40DD;
const VERSION: u8 = 1;
const HEADER_LEN_BYTES: u64 = 8;
/// Files do not grow beyond this; offsets have 32 bits.
const FILE_LEN_BYTES_MAX: u64 = 512 << 20;
const CRC_LEN_BYTES: usize = 4;

/// Writes chunk files.
pub(crate) struct ChunkWriter {
    dir: PathBuf,
    number: u64,
    out: Option<OutFile>,
    scratch: Vec<u8>,
}

impl ChunkWriter {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), number: 0, out: None, scratch: Vec::new() }
    }

    /// Writes a chunk and returns its reference.
    pub(crate) fn add(&mut self, encoding: u8, data: &[u8]) -> Result<u64, StorageError> {
        self.scratch.clear();
        varint::put_uvarint(&mut self.scratch, data.len() as u64);
        let crc_from = self.scratch.len();
        self.scratch.push(encoding);
        self.scratch.extend_from_slice(data);
        let crc = crc32c::crc32c(&self.scratch[crc_from..]);
        varint::put_be32(&mut self.scratch, crc);
        let record = std::mem::take(&mut self.scratch);
        let reference = self.copy(&record);
        self.scratch = record;
        reference
    }

    /// Writes a chunk as it lies in another block: [`StoredChunk::record`].
    pub(crate) fn copy(&mut self, record: &[u8]) -> Result<u64, StorageError> {
        let full = |out: &OutFile| out.len() + record.len() as u64 > FILE_LEN_BYTES_MAX;
        if self.out.as_ref().is_none_or(full) {
            self.cut()?;
        }
        let out = self.out.as_mut().expect("cut above when there was none");
        let offset = out.len();
        out.write(record)?;
        Ok((self.number - 1) << 32 | offset)
    }

    fn cut(&mut self) -> Result<(), StorageError> {
        self.sync()?;
        self.number += 1;
        let mut out = OutFile::create(&self.dir.join(format!("{:06}", self.number)))?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION, 0, 0, 0])?;
        assert_eq!(out.len(), HEADER_LEN_BYTES);
        self.out = Some(out);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.out.take().map_or(Ok(()), |mut o| o.sync())
    }

    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        self.sync()
    }
}

/// The chunk files of a block, mapped.
pub(crate) struct ChunkFiles {
    files: Vec<(PathBuf, Bytes)>,
}

impl ChunkFiles {
    pub(crate) fn open(dir: &Path) -> Result<Self, StorageError> {
        let mut files = Vec::new();
        for name in dir::list(dir)? {
            if !name.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let path = dir.join(name);
            let bytes = dir::map(&path)?;
            let header: Option<&[u8; 5]> = bytes.first_chunk();
            if header.is_none_or(|h| h[..4] != MAGIC.to_be_bytes() || h[4] != VERSION) {
                return Err(StorageError::Corruption {
                    path,
                    offset: 0,
                    reason: "not a chunk file of version 1".into(),
                });
            }
            files.push((path, bytes));
        }
        Ok(Self { files })
    }

    /// A chunk, checked, where it lies.
    pub(crate) fn get(&self, reference: u64) -> Result<StoredChunk<'_>, StorageError> {
        let (file, offset) = ((reference >> 32) as usize, (reference & 0xffff_ffff) as usize);
        let Some((path, bytes)) = self.files.get(file) else {
            return Err(StorageError::decode("chunk reference", format!("no chunk file {}", file + 1)));
        };
        let corrupt = |reason: &str| StorageError::Corruption {
            path: path.clone(),
            offset: offset as u64,
            reason: reason.to_owned(),
        };
        let mut r = varint::Reader::new(bytes.get(offset..).unwrap_or_default());
        let len = r.uvarint().and_then(|l| usize::try_from(l).ok()).ok_or_else(|| corrupt("no chunk"))?;
        let start = bytes.len() - r.len();
        let covered =
            len.checked_add(1).and_then(|l| r.bytes(l)).ok_or_else(|| corrupt("chunk ends early"))?;
        let crc = r.be32().ok_or_else(|| corrupt("chunk ends early"))?;
        if !checksum::is_right(covered, crc) {
            return Err(corrupt("checksum of the chunk is wrong"));
        }
        const _: () = assert!(CRC_LEN_BYTES == size_of::<u32>());
        let record = &bytes[offset..start + 1 + len + CRC_LEN_BYTES];
        Ok(StoredChunk { encoding: covered[0], data: &covered[1..], record, file: bytes })
    }
}

/// A chunk in a file.
pub(crate) struct StoredChunk<'a> {
    pub(crate) encoding: u8,
    pub(crate) data: &'a [u8],
    /// With what surrounds the data: length, encoding, checksum.
    pub(crate) record: &'a [u8],
    file: &'a Bytes,
}

impl StoredChunk<'_> {
    /// The data, not copied; the file stays mapped as long as it lives.
    pub(crate) fn bytes(&self) -> Bytes {
        self.file.slice_ref(self.data)
    }
}
