//! Settings of a database. Plain data; checked by [`Config::check`] when the database opens.

use std::path::PathBuf;

use crate::chunk::Encodings;
use crate::error::Error;
use crate::head::series::ChunkForm;

/// How records of the write-ahead log are compressed. Reading understands all of them, whatever is set here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WalCompression {
    /// Not at all.
    None,
    /// Snappy's block format, as Prometheus does by default.
    #[default]
    Snappy,
    /// Zstandard.
    Zstd,
}

/// How chunks of floats are encoded. Reading understands all encodings, whatever is set here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FloatEncoding {
    /// As every Prometheus reads it; without start timestamps.
    #[default]
    Xor,
    /// Smaller for scraped data, with start timestamps where there are some. Older Prometheus does not read it.
    Xor2,
}

/// Settings of a database.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data directory; made when it does not exist.
    pub dir: PathBuf,
    /// Blocks whose samples are all older than the newest block's end minus this are dropped. 0: keep.
    pub retention_ms: i64,
    /// The oldest blocks are dropped when blocks and write-ahead log exceed this. 0: no limit.
    pub retention_bytes: u64,
    /// The same in percent of the file system; wins over `retention_bytes`. 0: no limit.
    pub retention_percentage: f64,
    /// Range of a block cut from the head, and alignment of its bounds.
    pub min_block_ms: i64,
    /// Blocks are merged into blocks of at most this range. 0: a tenth of the retention by time, but no more than 31 days.
    pub max_block_ms: i64,
    /// A JSON file, `{"uploaded": [ULIDs]}`: blocks cut from the head are not merged before they are named in it.
    pub delay_compact_file: Option<PathBuf>,
    /// Size at which a segment of the write-ahead log is full. A multiple of 32 KiB.
    pub wal_segment_bytes: u64,
    /// Compression of the write-ahead log.
    pub wal_compression: WalCompression,
    /// Whether a commit waits until its records are on the disk; otherwise they are with the operating system.
    pub fsync_on_commit: bool,
    /// Readers that hold the write-ahead log (`WalSource::hold`) keep at most so many bytes of it.
    pub wal_hold_max_bytes: u64,
    /// Encoding of new chunks of floats.
    pub float_encoding: FloatEncoding,
    /// Whether new chunks of histograms have an encoding that holds start timestamps.
    pub histogram_start_encoding: bool,
    /// Whether start timestamps are stored; `float_encoding` must hold them then. Otherwise they are dropped.
    pub store_start_timestamps: bool,
    /// How far behind the newest sample of all a sample may be that is older than the newest one of its series. 0: samples
    /// of a series must come in order.
    pub out_of_order_window_ms: i64,
    /// Whether closing the database takes a snapshot of the head, so that the next start reads nothing of the write-ahead log.
    pub snapshot_on_close: bool,
    /// Exemplars kept in memory. 0: none.
    pub exemplars_max: usize,
}

impl Config {
    /// Prometheus's defaults for a directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            retention_ms: 15 * 24 * 3600 * 1000,
            retention_bytes: 0,
            retention_percentage: 0.0,
            min_block_ms: 2 * 3600 * 1000,
            max_block_ms: 0,
            delay_compact_file: None,
            wal_segment_bytes: 128 << 20,
            wal_compression: WalCompression::Snappy,
            fsync_on_commit: false,
            wal_hold_max_bytes: 4 << 30,
            float_encoding: FloatEncoding::Xor,
            histogram_start_encoding: false,
            store_start_timestamps: false,
            out_of_order_window_ms: 0,
            snapshot_on_close: false,
            exemplars_max: 100_000,
        }
    }

    /// The longest range that blocks are merged into.
    pub(crate) fn longest_block_ms(&self) -> i64 {
        const LONGEST_MS: i64 = 31 * 24 * 3600 * 1000;
        let wanted = match (self.max_block_ms, self.retention_ms) {
            (0, 0) => LONGEST_MS,
            (0, retention) => (retention / 10).min(LONGEST_MS),
            (given, _) => given,
        };
        wanted.max(self.min_block_ms)
    }

    pub(crate) fn chunk_form(&self) -> ChunkForm {
        let encodings = Encodings {
            xor2: self.float_encoding == FloatEncoding::Xor2,
            histogram_starts: self.histogram_start_encoding,
            starts: self.store_start_timestamps,
        };
        ChunkForm { range_ms: self.min_block_ms, encodings }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::Config(text));
        if self.store_start_timestamps && self.float_encoding == FloatEncoding::Xor {
            return refuse(
                "store_start_timestamps: chunks of encoding xor do not hold start timestamps, use xor2"
                    .into(),
            );
        }
        if self.out_of_order_window_ms < 0 {
            return refuse(format!(
                "out_of_order_window_ms = {}: must not be negative",
                self.out_of_order_window_ms
            ));
        }
        if self.min_block_ms < 1000 {
            return refuse(format!("min_block_ms = {}: must be at least 1000", self.min_block_ms));
        }
        let page = crate::wal::PAGE_LEN_BYTES as u64;
        if self.wal_segment_bytes < page || !self.wal_segment_bytes.is_multiple_of(page) {
            return refuse(format!(
                "wal_segment_bytes = {}: must be a multiple of {page}",
                self.wal_segment_bytes
            ));
        }
        if self.retention_ms < 0 {
            return refuse(format!("retention_ms = {}: must not be negative", self.retention_ms));
        }
        if self.max_block_ms < 0 {
            return refuse(format!("max_block_ms = {}: must not be negative", self.max_block_ms));
        }
        if !(0.0..=100.0).contains(&self.retention_percentage) {
            return refuse(format!(
                "retention_percentage = {}: must be between 0 and 100",
                self.retention_percentage
            ));
        }
        Ok(())
    }
}
