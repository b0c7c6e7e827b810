//! Opening RocksDB: column families with their options, the version record, refusals. Spec: docs/formats/longterm.md.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, LogLevel,
    Options,
};

use super::config::StoreConfig;
use super::error::{StoreError, open_error, storage_error};
use super::postings;
use super::varint::{Reader, check_crc, put_crc};

pub(super) const META: &str = "meta";
pub(super) const JOURNAL: &str = "journal";
pub(super) const SERIES: &str = "series";
pub(super) const IDS: &str = "ids";
pub(super) const SEALED: &str = "sealed";
pub(super) const INDEX: &str = "index";
pub(super) const RAW: &str = "raw";
/// Columns of timestamps that several chunks have.
pub(super) const TS: &str = "ts";
pub(super) const EXEMPLARS: &str = "exemplars";
pub(super) const AGG5M: &str = "agg5m";
pub(super) const AGG1H: &str = "agg1h";

/// All families with data.
pub(super) const FAMILIES: [&str; 11] =
    [META, JOURNAL, SERIES, IDS, SEALED, INDEX, RAW, TS, EXEMPLARS, AGG5M, AGG1H];

/// Newest format this program reads and the one it writes. Format 1 has no rollups, format 2 no shared timestamps.
pub(super) const FORMAT_VERSION: u32 = 3;
const FORMAT_KEY: &[u8] = b"format";
const FORMAT_MAGIC: &[u8; 16] = b"almanac-longterm";

/// Opens or makes the database and checks that it is one of ours.
pub(super) fn open(config: &StoreConfig) -> Result<DB, StoreError> {
    let dir = config.dir.as_path();
    std::fs::create_dir_all(dir)
        .map_err(|e| StoreError::Unwritable { dir: dir.to_path_buf(), reason: e.to_string() })?;
    let fresh = !dir.join("CURRENT").exists();
    if fresh {
        check_empty(dir)?;
    } else {
        check_families(dir)?;
    }
    let cache = Cache::new_lru_cache(config.cache_bytes);
    let families = std::iter::once(rocksdb::DEFAULT_COLUMN_FAMILY_NAME)
        .chain(FAMILIES)
        .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, config, &cache)));
    let db = DB::open_cf_descriptors(&db_options(config), dir, families).map_err(|e| open_error(dir, &e))?;
    check_format(&db, dir)?;
    Ok(db)
}

fn check_empty(dir: &Path) -> Result<(), StoreError> {
    let unreadable =
        |e: std::io::Error| StoreError::Unwritable { dir: dir.to_path_buf(), reason: e.to_string() };
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        // What an opening that was cut short leaves, and what file systems put there.
        let ours = ["LOG", "LOCK", "IDENTITY", "MANIFEST", "OPTIONS"].iter().any(|p| name.starts_with(p));
        if !ours
            && name != "lost+found"
            && name != super::SNAPSHOTS_DIR
            && !name.ends_with(".log")
            && !name.ends_with(".dbtmp")
        {
            let reason = format!("it holds the foreign file {name:?} and no database");
            return Err(StoreError::Foreign { dir: dir.to_path_buf(), reason });
        }
    }
    Ok(())
}

fn check_families(dir: &Path) -> Result<(), StoreError> {
    let names = DB::list_cf(&Options::default(), dir).map_err(|e| open_error(dir, &e))?;
    let unknown =
        names.iter().find(|n| *n != rocksdb::DEFAULT_COLUMN_FAMILY_NAME && !FAMILIES.contains(&n.as_str()));
    if let Some(name) = unknown {
        if !names.iter().any(|n| n == META) {
            let reason = format!("it is a RocksDB with the column family {name:?}");
            return Err(StoreError::Foreign { dir: dir.to_path_buf(), reason });
        }
        return Err(StoreError::NewerFormat {
            dir: dir.to_path_buf(),
            found: format!("it has the unknown column family {name:?}"),
            supported: FORMAT_VERSION,
        });
    }
    Ok(())
}

fn check_format(db: &DB, dir: &Path) -> Result<(), StoreError> {
    let error = |op, e: &rocksdb::Error| StoreError::Storage(storage_error(op, dir, e));
    let meta = db.cf_handle(META).expect("opened with this family");
    if let Some(record) = db.get_pinned_cf(&meta, FORMAT_KEY).map_err(|e| error("read format of", &e))? {
        let version = parse_format(&record)?;
        if version > FORMAT_VERSION {
            let found = format!("it has format {version}");
            return Err(StoreError::NewerFormat { dir: dir.to_path_buf(), found, supported: FORMAT_VERSION });
        }
        if version == FORMAT_VERSION {
            return Ok(());
        }
        // What is older lacks families, which opening made: from here on an older program must stay away.
        return write_format(db, dir);
    }
    let series = db.cf_handle(SERIES).expect("opened with this family");
    let mut rows = db.raw_iterator_cf(&series);
    rows.seek_to_first();
    if rows.valid() {
        let reason = "it has series but no format record".to_owned();
        return Err(StoreError::Foreign { dir: dir.to_path_buf(), reason });
    }
    write_format(db, dir)
}

fn write_format(db: &DB, dir: &Path) -> Result<(), StoreError> {
    let error = |op, e: &rocksdb::Error| StoreError::Storage(storage_error(op, dir, e));
    let meta = db.cf_handle(META).expect("opened with this family");
    db.put_cf(&meta, FORMAT_KEY, format_record(FORMAT_VERSION)).map_err(|e| error("write format to", &e))?;
    db.flush_wal(true).map_err(|e| error("sync", &e))
}

/// The version record.
pub(super) fn format_record(version: u32) -> Vec<u8> {
    let mut b = FORMAT_MAGIC.to_vec();
    b.extend_from_slice(&version.to_le_bytes());
    put_crc(&mut b);
    b
}

fn parse_format(record: &[u8]) -> Result<u32, StoreError> {
    let body = check_crc("format record", record)?;
    let mut r = Reader::new("format record", body);
    if r.bytes(FORMAT_MAGIC.len())? != FORMAT_MAGIC {
        return Err(r.error("magic is missing").into());
    }
    let version: [u8; 4] =
        r.rest().try_into().map_err(|_| StoreError::Storage(r.error("version is not four bytes long")))?;
    Ok(u32::from_le_bytes(version))
}

fn db_options(config: &StoreConfig) -> Options {
    let mut o = Options::default();
    o.create_if_missing(true);
    o.create_missing_column_families(true);
    o.set_db_write_buffer_size(config.write_buffer_bytes);
    // Families that are seldom written (`meta`, `series`) would hold back old log files for ever.
    o.set_max_total_wal_size(2 * config.write_buffer_bytes as u64);
    o.set_max_background_jobs(config.background_threads.max(1) as i32);
    o.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    o.set_bytes_per_sync(1 << 20);
    o.set_keep_log_file_num(4);
    o.set_max_log_file_size(4 << 20);
    o.set_log_level(LogLevel::Warn);
    o.set_max_open_files(512);
    o
}

fn family_options(name: &str, config: &StoreConfig, cache: &Cache) -> Options {
    let mut o = Options::default();
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    o.set_write_buffer_size((config.write_buffer_bytes / 2).max(1 << 20));
    o.set_level_compaction_dynamic_level_bytes(true);
    match name {
        RAW => {
            // Chunks are packed already; zstd at the bottom still finds the heads of neighbours.
            table.set_block_size(32 << 10);
            o.set_compression_type(DBCompressionType::None);
            o.set_bottommost_compression_type(DBCompressionType::Zstd);
        }
        AGG5M | AGG1H => {
            // Columns are packed already; a query wants few rows of each of many series.
            table.set_block_size(16 << 10);
            o.set_compression_type(DBCompressionType::None);
            o.set_bottommost_compression_type(DBCompressionType::Zstd);
        }
        TS => {
            // Looked for before a new column is written, mostly in vain.
            table.set_block_size(16 << 10);
            table.set_bloom_filter(10.0, false);
            o.set_compression_type(DBCompressionType::None);
            o.set_bottommost_compression_type(DBCompressionType::Zstd);
        }
        JOURNAL => {
            // Read once after a crash, deleted by range: nothing but sequential bytes.
            table.set_block_size(64 << 10);
            o.set_compression_type(DBCompressionType::Lz4);
            o.set_target_file_size_base(16 << 20);
        }
        INDEX => {
            table.set_block_size(16 << 10);
            table.set_bloom_filter(10.0, false);
            o.set_compression_type(DBCompressionType::Lz4);
            o.set_bottommost_compression_type(DBCompressionType::Zstd);
            o.set_merge_operator_associative(postings::MERGE_OPERATOR, postings::merge);
            o.set_max_successive_merges(0);
        }
        SERIES | EXEMPLARS => {
            table.set_block_size(16 << 10);
            o.set_compression_type(DBCompressionType::Lz4);
            o.set_bottommost_compression_type(DBCompressionType::Zstd);
        }
        IDS => {
            table.set_block_size(8 << 10);
            table.set_bloom_filter(10.0, false);
            o.set_prefix_extractor(rocksdb::SliceTransform::create_fixed_prefix(8));
            o.set_memtable_prefix_bloom_ratio(0.05);
            o.set_compression_type(DBCompressionType::None);
        }
        _ => o.set_compression_type(DBCompressionType::Lz4),
    }
    o.set_block_based_table_factory(&table);
    o
}
